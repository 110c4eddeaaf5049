"""Whether the tickets or the models have changed since a quiet time: looked at after every ticket, with a stated rate of false alarms.

watch = DriftWatch(reference, horizon=2_000, false_alarms=0.05)      # some 500 records of a quiet time
for record in live: print(watch.add(record).sentence)

A test that is repeated after every ticket with p < 0.05 cries wolf sooner or later. Here each signal (the category, the first tier's
confidence, how far tickets come) is a stream of names, and for each name two sums are kept, which rise while it comes up too often or too
rarely: Page's CUSUM (E. S. Page, Continuous inspection schemes, Biometrika 1954), of the log likelihood ratio of its odds being `RATIO`
times what they were, or that part of them. CUSUM detects such a change as fast as can be at a given rate of false alarms (G. Moustakides,
1986). The limit is not from a formula: it is the one that simulated streams without a change stay below with the promised probability, as
the e-detectors' bound (J. Shin, A. Ramdas & A. Rinaldo, 2023, arXiv 2203.03532) would be for a reference that is known exactly. Ours
is known from some hundred tickets; each simulated stream therefore comes from shares that the reference leaves possible (a draw of the
Dirichlet posterior), and not from the reference itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workshop_lib.monitoring.records import Record

RATIO = 3.0
"""Change of odds that each sum waits for; smaller ones are found later, or not at all. Waiting for 2 finds a category that doubled no
sooner and one that tripled after 236 tickets instead of 144 (benchmarks/README.md), because an unlucky reference of some hundred tickets looks like a small change: the limits
have to lie higher."""
PRIOR = 0.5
"""Added to each name's count (Jeffreys): a name that the reference lacks is rare, not impossible."""
FEWEST = 200
"""Records of a reference below which the limit would be that of a guess."""
UNSEEN = "(new)"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Signal:
    """What is watched of a record: one name from a short list."""

    name: str
    of: Callable[[Record], str]


SIGNALS = (
    Signal("category", lambda r: r.category),
    Signal("confidence", lambda r: r.confidence),
    Signal("path", lambda r: r.path),
)
"""The category answered, the first tier's confidence, and how far the ticket came: whether it went up, and whether the tiers then agreed."""


class Detector:
    """One signal: its names' shares in the reference, the sums' steps, and their limit. Holds no state of a stream."""

    def __init__(
        self, names: Sequence[str], *, horizon: int, false_alarms: float, simulations: int = 1_000, seed: int = 0
    ) -> None:
        """
        Args:
            names: the signal's of each reference record.
            horizon: tickets within which a false alarm has the probability below.
            false_alarms: that probability.
            simulations: streams that the limit is taken from.
            seed: of them.

        Raises:
            ValueError: too few records, a horizon of none, or no probability.
        """
        if len(names) < FEWEST:
            raise ValueError(
                f"a reference needs {FEWEST} records or more, not {len(names)}: wait, or take a longer quiet time"
            )
        if horizon < 1 or not 0 < false_alarms < 1:
            raise ValueError(f"horizon >= 1 and 0 < false_alarms < 1 do not hold for {horizon} and {false_alarms}")
        counts = Counter(names)
        self.names = (*sorted(counts), UNSEEN)
        self._index = {name: i for i, name in enumerate(self.names)}
        weights = np.array([counts[name] for name in self.names]) + PRIOR
        self.shares: Floats = weights / weights.sum()
        # Odds times r make share p to r p / (1 + (r - 1) p): the step for the name itself, and for every other one.
        ratios = np.repeat([RATIO, 1 / RATIO], len(self.names))
        p = np.tile(self.shares, 2)
        norm = 1 + (ratios - 1) * p
        own = np.tile(np.eye(len(self.names), dtype=bool), (2, 1))
        self.steps: Floats = np.where(own, np.log(ratios / norm)[:, None], -np.log(norm)[:, None])
        """Shape (sums, names): first those for "too often", then those for "too rarely"."""
        rng = np.random.default_rng(seed)
        highest = self._highest(_draw(rng.dirichlet(weights, simulations), horizon, rng))
        self.limit = float(np.quantile(highest, 1 - false_alarms, method="higher"))

    def code(self, names: Sequence[str]) -> npt.NDArray[np.intp]:
        """Names as numbers; one that the reference lacks is the last."""
        return np.array([self._index.get(name, len(self.names) - 1) for name in names], dtype=np.intp)

    def first_alarms(self, streams: npt.NDArray[np.intp]) -> Floats:
        """At which ticket, from 1, each stream passes the limit first; infinity: never."""
        beyond = self.statistics(streams) > self.limit
        return np.where(beyond.any(axis=1), beyond.argmax(axis=1) + 1.0, math.inf)

    def statistics(self, streams: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """The highest sum of many streams after each ticket.

        Args:
            streams: names as `code` gives them, shape (streams, tickets).
        """
        return np.stack([sums.max(axis=1) for sums in self._sums(streams)], axis=1)

    def _highest(self, streams: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """The highest that any sum of each stream comes to."""
        best = np.zeros((len(streams), len(self.steps)), dtype=np.float32)
        for sums in self._sums(streams):
            np.maximum(best, sums, out=best)
        highest: npt.NDArray[np.float32] = best.max(axis=1)
        return highest

    def _sums(self, streams: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.float32]]:
        """After each ticket the sums, shape (streams, sums): one array, which the next ticket changes."""
        steps = np.ascontiguousarray(self.steps.T, dtype=np.float32)
        sums, gained = np.zeros((2, len(streams), len(self.steps)), dtype=np.float32)
        for names in np.ascontiguousarray(streams.T):  # all streams at once: they fit into a cache
            np.take(steps, names, axis=0, out=gained, mode="clip")
            sums += gained
            np.maximum(sums, 0, out=sums)
            yield sums

    def describe(self, sum_index: int) -> str:
        """What a sum waits for, in words."""
        name = self.names[sum_index % len(self.names)]
        return f"{name} comes up {'more often' if sum_index < len(self.names) else 'more rarely'}"


@dataclass(frozen=True)
class SignalState:
    """Where one signal stands."""

    name: str
    statistic: float
    limit: float
    alarmed_at: int | None
    """Ticket, from 1, at which the limit was reached first; None: it was not."""
    change: str
    """What the highest sum sees, e.g. "auth comes up more often"."""
    since: int
    """Tickets since that sum was last at zero before the alarm, or before now: if there was a change, it is about so long ago."""

    @property
    def sentence(self) -> str:
        """For people."""
        where = f"{self.statistic:.1f} of {self.limit:.1f}"
        if self.alarmed_at is None:
            return f"{self.name}: no change proven ({where})."
        return f"{self.name}: CHANGED since about {self.since} tickets, {self.change} ({where}; alarm at ticket {self.alarmed_at})."


@dataclass(frozen=True)
class DriftState:
    """Where all signals stand after some tickets."""

    n: int
    horizon: int
    false_alarms: float
    signals: tuple[SignalState, ...]

    @property
    def alarmed(self) -> bool:
        """Whether any signal has reached its limit."""
        return any(s.alarmed_at is not None for s in self.signals)

    @property
    def sentence(self) -> str:
        """For people, with the rate at which it is wrong."""
        told = " ".join(s.sentence for s in self.signals if not self.alarmed or s.alarmed_at is not None)
        promise = f"Without a change about {self.false_alarms:.0%} of runs of {self.horizon:,} tickets raise an alarm."
        return f"After {self.n} tickets: {told} {promise}"


class DriftWatch:
    """Watches a stream of records for a change since the reference. An alarm stays until `restart`. For one thread at a time."""

    def __init__(
        self,
        reference: Sequence[Record],
        *,
        horizon: int = 2_000,
        false_alarms: float = 0.05,
        signals: Sequence[Signal] = SIGNALS,
        simulations: int = 1_000,
        seed: int = 0,
    ) -> None:
        """
        Args:
            reference: records of a quiet time, 200 or more; the more, the sooner a change is seen.
            horizon: tickets within which any false alarm has the probability below, over all signals. After a horizon without an
                alarm, take a new reference, or know that the next one has the same probability about once more.
            false_alarms: that probability, shared out evenly between the signals.
            signals: what is watched.
            simulations, seed: of the limits.

        Raises:
            ValueError: as `Detector`; or no signals.
        """
        if not signals:
            raise ValueError("a drift watch needs one signal or more")
        self.horizon, self.false_alarms, self.signals = horizon, false_alarms, tuple(signals)
        self.detectors = {
            s.name: Detector(
                [s.of(r) for r in reference],
                horizon=horizon,
                false_alarms=false_alarms / len(signals),
                simulations=simulations,
                seed=seed + i,
            )
            for i, s in enumerate(signals)
        }
        self.restart()

    def restart(self) -> None:
        """Begin again with no ticket seen, against the same reference."""
        self._n = 0
        self._sums = {name: np.zeros(len(d.steps)) for name, d in self.detectors.items()}
        self._since = {name: np.zeros(len(d.steps), dtype=np.intp) for name, d in self.detectors.items()}
        self._alarmed: dict[
            str, tuple[int, int, int]
        ] = {}  # at which ticket, which sum, after which ticket it began to rise

    def add(self, record: Record) -> DriftState:
        """Take in one more ticket's record."""
        self._n += 1
        for signal in self.signals:
            detector, sums, since = self.detectors[signal.name], self._sums[signal.name], self._since[signal.name]
            sums += detector.steps[:, detector.code([signal.of(record)])[0]]
            np.maximum(sums, 0.0, out=sums)
            since[:] = np.where(sums > 0, since + 1, 0)
            top = int(sums.argmax())
            if sums[top] > detector.limit and signal.name not in self._alarmed:
                self._alarmed[signal.name] = (self._n, top, self._n - int(since[top]))
        return self.state

    @property
    def state(self) -> DriftState:
        """Where it stands."""
        return DriftState(self._n, self.horizon, self.false_alarms, tuple(self._state_of(s.name) for s in self.signals))

    def _state_of(self, name: str) -> SignalState:
        detector, sums = self.detectors[name], self._sums[name]
        highest = int(sums.argmax())
        begun = self._n - int(self._since[name][highest])
        at, top, begun = self._alarmed.get(name, (None, highest, begun))
        return SignalState(name, float(sums[top]), detector.limit, at, detector.describe(top), self._n - begun)


def _draw(shares: Floats, tickets: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """One stream a row of shares."""
    ends = np.cumsum(shares, axis=1)[:, :-1]
    drawn = rng.random((len(shares), tickets))
    found = np.zeros(drawn.shape, dtype=np.intp)
    for end in ends.T:
        found += drawn > end[:, None]
    return found
