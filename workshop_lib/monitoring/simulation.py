"""How soon a drift watch sees a change, and how often it imagines one: many streams, resampled from real records.

answers = Recording.load(path).answers()
normal = played(cascade, tickets, answers)
changed = {"incident": incident(normal, "auth"), "other model": played(cascade, tickets, answers, cast={"cheap": "strong"})}
for result in simulate(normal, changed): print(result.sentence)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from workshop_lib.cascade.attempt import Attempt
from workshop_lib.cascade.cascade import Cascade, id_of
from workshop_lib.evaluation.statistics import Share, clustered_share
from workshop_lib.evaluation.strategies import Asked, work_out
from workshop_lib.monitoring.drift import SIGNALS, DriftWatch, Signal
from workshop_lib.monitoring.records import Record, record_of

NO_CHANGE = "no change"
RESAMPLES = 1_000


@dataclass(frozen=True)
class Simulated:
    """What became of the streams with one change. Intervals resample whole references: streams that share one are not independent."""

    change: str
    streams: int
    references: int
    reference: int
    """Records of each."""
    horizon: int
    change_at: int | None
    """Tickets before the change; None: there is none."""
    false_alarms: Share
    """Streams with an alarm before the change, or at all where there is none."""
    detected: Share | None
    """Of the streams not alarmed before: those alarmed between the change and the horizon. None: no change."""
    median_delay: tuple[float, float, float]
    """Tickets after the change until the alarm, with its interval; infinity: half of the streams or more see nothing. NaN: no change."""
    p90_delay: float
    seen_by: Mapping[str, float]
    """Share of the alarmed streams in which this signal was (among) the first."""
    delays: tuple[float, ...] = ()
    """Of each stream not alarmed before."""

    @property
    def sentence(self) -> str:
        """For people."""
        false = f"{self.false_alarms} of {self.false_alarms.n} streams raised a false alarm"
        if self.detected is None or self.change_at is None:
            return f"{self.change}: {false} within {self.horizon:,} tickets."
        middle, low, high = self.median_delay
        return (
            f"{self.change}: seen in {self.detected}; half of the streams {self._within(middle)} tickets [{low:.0f}, {high:.0f}], nine in "
            f"ten {self._within(self.p90_delay)}; first by {self._by}. Before it, {false} within {self.change_at:,} tickets."
        )

    def row(self) -> dict[str, str]:
        """A line of a table."""
        middle, low, high = self.median_delay
        return {
            "change": self.change,
            "false alarms": f"{self.false_alarms} in {self.horizon if self.change_at is None else self.change_at:,} tickets",
            "detected": "" if self.detected is None else str(self.detected),
            "median delay": "" if self.detected is None else f"{middle:.0f} [{low:.0f}, {high:.0f}]",
            "nine in ten": "" if self.detected is None else self._within(self.p90_delay),
            "first seen by": self._by,
        }

    @property
    def _by(self) -> str:
        return ", ".join(f"{name} {share:.0%}" for name, share in self.seen_by.items() if share >= 0.005)

    def _within(self, delay: float) -> str:
        return f"within {delay:.0f}" if math.isfinite(delay) else f"not within {self.horizon - (self.change_at or 0):,}"


def simulate(
    normal: Sequence[Record],
    changed: Mapping[str, Sequence[Record]],
    *,
    streams: int = 200,
    references: int = 10,
    reference: int = 500,
    horizon: int = 2_000,
    change_at: int = 1_000,
    false_alarms: float = 0.05,
    signals: Sequence[Signal] = SIGNALS,
    simulations: int = 300,
    seed: int = 0,
) -> list[Simulated]:
    """Streams without a change, and with each of some changes.

    Each of the references is drawn anew and gets a watch of its own, so that the chance of an unlucky reference is in the result.
    Tickets are drawn independently: a real stream comes in bursts, and its false alarms are more.

    Args:
        normal: records to draw from, with repetition, as long as nothing has changed.
        changed: by name of the change, records to draw from after it.
        streams: how many, for each change and without one; shared out between the references.
        references: how many watches.
        reference: records that each is made from.
        horizon, change_at: tickets in a stream, and before its change.
        false_alarms, signals, simulations: of each watch (see `DriftWatch`).
        seed: of everything.

    Raises:
        ValueError: no records; a change outside the stream; fewer streams than references; or as `DriftWatch`.
    """
    if not normal or not all(changed.values()):
        raise ValueError("there are no records to draw from")
    if not 0 < change_at < horizon or not 0 < references <= streams:
        raise ValueError(
            f"0 < change_at < horizon and 0 < references <= streams do not hold for {change_at}, {horizon}, {references}, {streams}"
        )
    rng = np.random.default_rng(seed)
    pools = {NO_CHANGE: normal, **changed}
    each = math.ceil(streams / references)
    names = {s.name: {change: [s.of(r) for r in pool] for change, pool in pools.items()} for s in signals}
    firsts: dict[str, list[npt.NDArray[np.float64]]] = {change: [] for change in pools}
    for number in range(references):
        drawn = [normal[i] for i in rng.integers(len(normal), size=reference)]
        watch = DriftWatch(
            drawn,
            horizon=horizon,
            false_alarms=false_alarms,
            signals=signals,
            simulations=simulations,
            seed=seed + number,
        )
        before = {change: rng.integers(len(normal), size=(each, change_at)) for change in pools}
        after = {change: rng.integers(len(pool), size=(each, horizon - change_at)) for change, pool in pools.items()}
        alarms = []
        for s in signals:
            detector = watch.detectors[s.name]
            code = {change: detector.code(found) for change, found in names[s.name].items()}
            drawn_codes = [
                np.hstack([code[NO_CHANGE][before[change]], code[change][after[change]]]) for change in pools
            ]
            alarms.append(np.split(detector.first_alarms(np.vstack(drawn_codes)), len(pools)))
        for i, change in enumerate(pools):
            firsts[change].append(np.stack([found[i] for found in alarms]))
    families = np.repeat(np.arange(references), each)
    return [
        _judged(
            name, np.concatenate(found, axis=1), families, signals,
            reference=reference, horizon=horizon, change_at=None if name == NO_CHANGE else change_at, seed=seed,
        )
        for name, found in firsts.items()
    ]  # fmt: skip


def incident(records: Sequence[Record], category: str, times: int = 3) -> list[Record]:
    """Records to draw from when something broke, and tickets of one category come so many times as often as they did.

    Raises:
        ValueError: no record has that category.
    """
    if all(r.category != category for r in records):
        raise ValueError(f"no record has the category {category}; they have {sorted({r.category for r in records})}")
    return [r for r in records for _ in range(times if r.category == category else 1)]


def played(
    cascade: Cascade[Any],
    tickets: Sequence[Any],
    answers: Mapping[str, Mapping[str, Attempt[Any]]],
    *,
    cast: Mapping[str, str] | None = None,
    strategy: str = "cascade",
) -> list[Record]:
    """Records of a cascade over recorded answers, without a call; with `cast`, another model answers under a tier's name.

    Args:
        cascade: its tiers must have been asked.
        tickets: to go through it.
        answers: by ticket id and tier, as `Recording.answers` gives them.
        cast: tier to the tier whose answers it gives: {"cheap": "strong"} is a cheap tier that silently became another model.
        strategy: name in the records.

    Raises:
        KeyError: a ticket or tier was not asked.
    """
    found = []
    for ticket in tickets:
        known = answers[id_of(ticket)]
        recast = {tier: replace(known[other], tier=tier) for tier, other in (cast or {}).items()}
        outcome = work_out(strategy, cascade, Asked(ticket, {**known, **recast}, cascade.task))
        found.append(record_of(outcome, strategy=strategy, at=0.0))
    return found


def _judged(
    name: str,
    firsts: npt.NDArray[np.float64],
    families: npt.NDArray[np.intp],
    signals: Sequence[Signal],
    *,
    reference: int,
    horizon: int,
    change_at: int | None,
    seed: int,
) -> Simulated:
    """Args: firsts: ticket of the first alarm, shape (signals, streams)."""
    first = firsts.min(axis=0)
    early = first <= (horizon if change_at is None else change_at)
    alarmed = np.isfinite(first) if change_at is None else np.isfinite(first) & ~early
    seen = Counter(s.name for s, row in zip(signals, firsts, strict=True) for hit in (row == first)[alarmed] if hit)
    common: dict[str, Any] = {
        "change": name, "streams": len(first), "references": len(set(families.tolist())), "reference": reference,
        "horizon": horizon, "change_at": change_at, "false_alarms": clustered_share(early.tolist(), families.tolist(), seed=seed),
        "seen_by": {s.name: seen[s.name] / max(1, int(alarmed.sum())) for s in signals},
    }  # fmt: skip
    kept = ~early
    if change_at is None or not kept.any():
        nothing = (math.nan, math.nan, math.nan)
        return Simulated(**common, detected=None, median_delay=nothing, p90_delay=math.nan)
    delays, owners = first[kept] - change_at, families[kept]
    return Simulated(
        **common,
        detected=clustered_share(np.isfinite(delays).tolist(), owners.tolist(), seed=seed),
        median_delay=(_quantile(delays, 0.5), *_median_interval(delays, owners, seed)),
        p90_delay=_quantile(delays, 0.9),
        delays=tuple(delays.tolist()),
    )


def _quantile(delays: npt.NDArray[np.float64], q: float) -> float:
    return float(np.quantile(delays, q, method="higher"))  # no mean of a number and infinity


def _median_interval(delays: npt.NDArray[np.float64], owners: npt.NDArray[np.intp], seed: int) -> tuple[float, float]:
    """95 %, by resampling whole references."""
    groups = [delays[owners == owner] for owner in np.unique(owners)]
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(groups), size=(RESAMPLES, len(groups)))
    medians = [_quantile(np.concatenate([groups[i] for i in draw]), 0.5) for draw in draws]
    low, high = np.quantile(medians, [0.025, 0.975], method="nearest")
    return float(low), float(high)
