"""How soon drift is seen, and how often it is imagined: `python benchmarks/drift.py`, two minutes, no call.

Streams are resampled from the recorded answers of the local door to the calibration tickets, run through the taught cascade. For
comparison: a chi-square test of the last 200 categories against the reference, with p < 0.05, repeated after every ticket.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import chdtrc

from workshop_lib import Cascade, Tier, load_tickets
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.evaluation import NoCalls, Recording, wilson
from workshop_lib.evaluation.strategies import taught_rule
from workshop_lib.monitoring.records import Record
from workshop_lib.monitoring.simulation import incident, played, simulate

REFERENCE, HORIZON, WINDOW = 500, 2_000, 200


def repeated_chi_square(records: Sequence[Record], streams: int, *, seed: int = 0) -> int:
    """How many of some streams without a change raise an alarm."""
    rng = np.random.default_rng(seed)
    names = sorted({r.category for r in records})
    codes = np.array([names.index(r.category) for r in records])
    alarmed = 0
    for _ in range(streams):
        known = np.bincount(codes[rng.integers(len(codes), size=REFERENCE)], minlength=len(names)) + 0.0
        seen = np.eye(len(names))[codes[rng.integers(len(codes), size=HORIZON)]].cumsum(axis=0)
        window = seen[WINDOW:] - seen[:-WINDOW]
        total = window + known
        chi = sum(
            ((part - total * n / (WINDOW + REFERENCE)) ** 2 / (total * n / (WINDOW + REFERENCE))).sum(axis=1)
            for part, n in ((window, WINDOW), (known, REFERENCE))
        )
        alarmed += bool((chdtrc(len(names) - 1, chi) < 0.05).any())
    return alarmed


def main() -> None:
    tickets = load_tickets("calibration")
    answers = Recording.load(PROJECT / "data" / "recorded" / "local-calibration.jsonl").answers()
    cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=taught_rule(), client=NoCalls())
    normal = played(cascade, tickets, answers)
    changes = {
        "incident: auth three times as often": incident(normal, "auth", 3),
        "incident: auth twice as often": incident(normal, "auth", 2),
        "cheap tier is another model": played(cascade, tickets, answers, cast={"cheap": "strong"}),
    }
    for reference in (REFERENCE, 2 * REFERENCE):
        found = simulate(normal, changes, streams=1_000, references=50, reference=reference, horizon=HORIZON)
        print(f"\nReference of {reference} records:\n")
        print(f"| {' | '.join(found[0].row())} |\n|{'---|' * len(found[0].row())}")
        for result in found:
            print(f"| {' | '.join(result.row().values())} |")
    print(
        f"\nchi-square after every ticket: {wilson(repeated_chi_square(normal, 200), 200)} of streams without a change"
    )


if __name__ == "__main__":
    main()
