"""Make data/recorded again, page and all: `python benchmarks/recorded.py`. Once, after the pair, a prompt or a price has changed.

It asks the local door's models about the locked test split as well: that is the final measurement, and nothing is chosen by it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from workshop_lib.bedrock.settings import PROJECT

FOLDER = PROJECT / "data" / "recorded"
HEAD = """\
# Recorded runs

One file a split: the answers of the local door's cheap, middle and strong model and of its judge to every ticket, each asked once.
`workshop bakeoff --dry-run --all --split calibration` replays them without a call; the first line of a file says what it belongs to,
and a replay that does not fit is refused by name. `python benchmarks/recorded.py` makes them again, and this page with them.

The train split has no recorded run: the local models have learned it, so agreement on it would measure memory. `local-train.csv` holds
honest answers to it all the same: five pairs, each fitted without a fifth of the scenario families, each asked about that fifth. A row a
ticket: the cheap answer (category, priority, needs_human), and whether the cheap and the strong model had all three right (1 or 0). It is
what a router learns from; lab 05 does. `python benchmarks/crossfit.py` makes it again, in ten minutes.

Shares are percentages of tickets with 95 % intervals: Wilson's where every ticket is a scenario of its own (workshop), else resampled by
scenario family. *joint*: category, priority and needs_human all as in the key. *chance at equal agreement*: what it costs to reach the
same joint agreement by sending tickets up at random; a rule has to be cheaper than that. At the local door the middle tier is the strong
one's small model at another price, so three tiers differ from two in cost alone. The models stand in for the catalogue's: what the
figures say is true of them and of nothing else.
"""
SPLITS = {
    "workshop": "The 30 tickets of the live labs",
    "calibration": "Calibration: for choosing",
    "test": "Test: locked, the final measurement",
}


def main() -> None:
    page = [HEAD]
    with tempfile.TemporaryDirectory() as store:
        for split, title in SPLITS.items():
            file = str(FOLDER / f"local-{split}.jsonl")
            workshop("--label", "--store", store, "--split", split, "--save", file)
            page.append(f"## {title}\n\n{workshop('--dry-run', '--split', split, '--markdown')}")
    (FOLDER / "README.md").write_text("\n".join(page), encoding="utf-8")


def workshop(*arguments: str) -> str:
    """What `workshop bakeoff --all --final ...` prints."""
    command = [sys.executable, "-m", "workshop_lib", "bakeoff", "--all", "--final", *arguments]
    environ = {**os.environ, "WORKSHOP_MODE": "local", "WORKSHOP_TIME_SCALE": "0"}
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environ, encoding="utf-8").stdout


if __name__ == "__main__":
    main()
