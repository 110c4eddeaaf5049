"""How sure a share or a difference is: intervals for one strategy, paired comparisons of two, and how many tickets it takes.

Tickets of one scenario family are not independent. Where families repeat, intervals come from resampling whole families.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 4_000
"""Of a bootstrap: its ends then move by less than a tenth of their distance from one seed to another."""
BLOCK = 250
"""Resamples at once, where there are many families."""
MANY = 2_000
"""Families beyond which a mean is as good as normal: its interval comes from the spread between families alone."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """A share with its interval."""

    value: float
    low: float
    high: float
    n: int
    """Tickets behind it."""
    families: int = 0
    """Scenarios behind it; 0: not told."""
    distinct_texts: int = 0
    """Different texts behind it: a copy is no further evidence. 0: not told."""

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


@dataclass(frozen=True)
class Difference:
    """A paired difference of two shares, A - B, with its interval."""

    value: float
    low: float
    high: float
    n: int
    only_a: int
    """Tickets that only A has right."""
    only_b: int
    families: int = 0

    @property
    def decides(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    @property
    def mcnemar_p(self) -> float:
        """Exact McNemar test; it takes the tickets for independent: where families repeat, go by the interval."""
        return mcnemar(self.only_a, self.only_b)

    def sentence(self, a: str, b: str, measure: str = "joint agreement") -> str:
        """What the data say about A and B, for people."""
        shown = f"{self.n} tickets" + (f" of {self.families} families" if 0 < self.families < self.n else "")
        ahead, behind, sign = (a, b, 100) if self.value >= 0 else (b, a, -100)
        low, high = sorted((sign * self.low, sign * self.high))
        points = f"{sign * self.value:.1f} points [{_signed(low)}, {_signed(high)}]"
        only = f"{a} alone is right on {self.only_a}, {b} alone on {self.only_b}"
        if self.decides:
            return f"{measure}: {ahead} is ahead of {behind} by {points} on {shown}; {only}."
        if self.only_a == self.only_b == 0:
            return f"{measure}: {a} and {b} are right on the same of {shown}; up to {high:.1f} points either way are not ruled out."
        if self.value == 0:
            return f"{measure}: {a} and {b} are level, {points} on {shown}; {only}."
        needed = required_tickets(abs(self.value), discordance=(self.only_a + self.only_b) / self.n)
        return (
            f"{measure}: the data do not decide. {ahead} is before {behind} by {points} on {shown}; {only}. "
            f"To see {abs(100 * self.value):.1f} points takes about {needed:,} independent tickets."
        )

    def __str__(self) -> str:
        return f"{self.value:+.1%} [{self.low:+.1%}, {self.high:+.1%}]"


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Share:
    """Wilson's score interval (E. B. Wilson, 1927): honest for small n and for shares near 0 and 1, unlike p +- 1.96 se.

    Args:
        successes: how many of `n`.
        n: how many in all; tickets of one scenario family are not independent: see `clustered_share`.
        confidence: e.g. 0.95.

    Raises:
        ValueError: n is not positive, or successes lie outside 0..n.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"a share needs 0 <= successes <= n and n > 0, not {successes} of {n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Share(p, 0.0 if successes == 0 else low, 1.0 if successes == n else high, n)


def share(
    correct: Sequence[bool],
    families: Sequence[Hashable] | None = None,
    *,
    texts: Sequence[str] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Share:
    """A share with the interval that fits: Wilson where every ticket is a family of its own, else `clustered_share`.

    Args:
        correct: a truth value a ticket.
        families: the scenario of each ticket; None: all independent.
        texts: of the tickets, to count the different ones.
        confidence, seed: of the interval.

    Raises:
        ValueError: no tickets, or lengths that differ.
    """
    known = list(range(len(correct))) if families is None else list(families)
    if len(set(known)) == len(known) == len(correct) > 0:
        found = replace(wilson(sum(map(bool, correct)), len(correct), confidence=confidence), families=len(known))
    else:
        found = clustered_share(correct, known, confidence=confidence, seed=seed)
    return found if texts is None else replace(found, distinct_texts=len(set(texts)))


def clustered_share(
    correct: Sequence[float],
    families: Sequence[Hashable],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Share:
    """A share (or a mean of qualities 0..1) with a bootstrap interval over whole families (B. Efron & R. Tibshirani, 1993, chapters 8 and 13).

    The percentile interval is widened for few families as T. Hesterberg proposes (2015, "expanded percentile"). If every ticket has
    the same value, resampling cannot tell anything, and the interval is Wilson's for as many tickets as there are families.

    Raises:
        ValueError: no tickets, or lengths that differ.
    """
    right = np.asarray(correct, dtype=np.float64)
    clusters, count = _clusters(families, len(right))
    value = float(right.mean())
    if right.min() == right.max():
        bound = wilson(round(value * count), count, confidence=confidence)
        return Share(value, bound.low, bound.high, len(right), count)
    sums, sizes = np.bincount(clusters, right), np.bincount(clusters)
    low, high = _mean_interval(sums, sizes, confidence, seed, resamples, alone=(0.0, 1.0))
    return Share(value, low, high, len(right), count)


def weighted_mean(
    values: Sequence[float],
    families: Sequence[Hashable] | None = None,
    weights: Sequence[float] | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Share:
    """The mean of values of any size (costs, say), with a bootstrap interval over whole families (see `clustered_share`).

    With weights of 1 / (chance of being drawn) it estimates the mean of all tickets that were drawn from: D. Horvitz &
    D. Thompson, 1952, divided by the sum of the weights (J. Hajek, 1971). Where whole strata are drawn from at random, that sum is
    the number of all tickets, and the estimate is unbiased.

    Args:
        values: one a ticket. If all are the same, the interval is the value itself, or Wilson's where it is 0 or 1.
        families: scenario of each ticket; None: all independent. One alone says nothing about others: the interval is then 0 to 1 where
            each value is 0 or 1, and else -inf to inf.
        weights: above 0; None: all the same.
        confidence, seed, resamples: of the bootstrap.

    Raises:
        ValueError: no tickets, lengths that differ, or a weight that is not above 0.
    """
    x, w = np.asarray(values, dtype=np.float64), np.ones(len(values))
    if weights is not None:
        w = np.asarray(weights, dtype=np.float64)
    if len(w) != len(x) or not np.all(w > 0):
        raise ValueError(f"{len(x)} values and {len(w)} weights: give each value one weight above 0")
    clusters, count = _clusters(range(len(x)) if families is None else families, len(x))
    value = float((x * w).sum() / w.sum())
    alone = (0.0, 1.0) if np.isin(x, (0, 1)).all() else (-math.inf, math.inf)  # of other values nobody knows the range
    if x.min() == x.max() and (count > 1 or value in (0, 1)):
        low = high = value
        if value in (0, 1):  # as many equal tickets as the weights are worth (L. Kish, 1965)
            worth = max(1, min(count, round(w.sum() ** 2 / (w**2).sum())))
            bound = wilson(round(value * worth), worth, confidence=confidence)
            low, high = bound.low, bound.high
        return Share(value, low, high, len(x), count)
    sums, sizes = np.bincount(clusters, x * w), np.bincount(clusters, w)
    low, high = _mean_interval(sums, sizes, confidence, seed, resamples, alone=alone)
    return Share(value, low, high, len(x), count)


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    families: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Difference:
    """A - B on the same tickets, with a bootstrap interval over whole families (see `clustered_share`).

    Args:
        a, b: whether each strategy was right, in the same order; or the quality of its answers, 0..1 (then `only_a` and `only_b`
            count the tickets on which just one is wholly right and the other wholly wrong).
        families: the scenario of each ticket; None: all independent.
        confidence, seed, resamples: of the bootstrap.

    Raises:
        ValueError: no tickets, or lengths that differ.
    """
    if len(a) != len(b):
        raise ValueError(f"paired answers must be of equal number, not {len(a)} and {len(b)}")
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    clusters, count = _clusters(range(len(left)) if families is None else families, len(left))
    only_a, only_b = int(((left == 1) & (right == 0)).sum()), int(((left == 0) & (right == 1)).sum())
    if np.array_equal(left, right):  # nothing to resample: at most this share of families can differ
        bound = wilson(0, count, confidence=confidence).high
        return Difference(0.0, -bound, bound, len(left), 0, 0, count)
    sums, sizes = np.bincount(clusters, left - right), np.bincount(clusters)
    low, high = _mean_interval(sums, sizes, confidence, seed, resamples, alone=(-1.0, 1.0))
    return Difference(float((left - right).mean()), low, high, len(left), only_a, only_b, count)


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p of "A and B are equally often right", from the tickets on which just one of them is (Q. McNemar, 1947).

    Raises:
        ValueError: a negative count.
    """
    from scipy.special import bdtr

    if min(only_a, only_b) < 0:
        raise ValueError(f"counts of tickets cannot be negative: {only_a}, {only_b}")
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))) if only_a + only_b else 1.0


def required_tickets(
    difference: float,
    *,
    discordance: float,
    confidence: float = 0.95,
    power: float = 0.8,
    design_effect: float = 1.0,
) -> int:
    """About how many tickets a paired comparison takes to see a difference (R. J. Connor, 1987).

    Args:
        difference: to be seen, as a share: 0.03 for three points.
        discordance: the share of tickets on which just one of the two is right; at least `difference`.
        confidence, power: how sure no false alarm, how sure it is seen.
        design_effect: how much less a ticket says because families repeat; 1: independent.

    Raises:
        ValueError: a share that cannot be.
    """
    if not 0 < abs(difference) <= discordance <= 1:
        raise ValueError(f"0 < difference <= discordance <= 1 does not hold for {difference} and {discordance}")
    z_false, z_miss = NormalDist().inv_cdf(0.5 + confidence / 2), NormalDist().inv_cdf(power)
    spread = math.sqrt(max(0.0, discordance - difference**2))
    n = ((z_false * math.sqrt(discordance) + z_miss * spread) / difference) ** 2
    return math.ceil(design_effect * n)


def kappa(
    a: Sequence[Hashable],
    b: Sequence[Hashable],
    families: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Share:
    """Cohen's kappa (1960) of two labellings: agreement beyond what their habits would give by chance; 1 is full, 0 is chance.

    Returns:
        The value with a bootstrap interval over families. Despite its class it may lie below 0.

    Raises:
        ValueError: no tickets, lengths that differ, or one and the same label throughout, where chance leaves nothing to agree beyond.
    """
    if len(a) != len(b):
        raise ValueError(f"two labellings must be of equal length, not {len(a)} and {len(b)}")
    clusters, count = _clusters(range(len(a)) if families is None else families, len(a))
    names = {name: i for i, name in enumerate(dict.fromkeys([*a, *b]))}
    if len(names) == 1:
        raise ValueError(f"kappa needs two different labels; all are {a[0]!r}")
    cells = np.zeros((count, len(names) ** 2))
    for cluster, x, y in zip(clusters, a, b, strict=True):
        cells[cluster, names[x] * len(names) + names[y]] += 1
    value = float(_kappa_of(cells.sum(axis=0)[None, :], len(names))[0])
    if value == 1:
        return Share(1.0, max(0.0, wilson(count, count, confidence=confidence).low), 1.0, len(a), count)
    if count == 1:
        return Share(value, -1.0, 1.0, len(a), count)
    low, high = _ends(_kappa_of(_weighted(cells, count, seed, RESAMPLES), len(names)), count, confidence)
    return Share(value, low, high, len(a), count)


def _signed(points: float) -> str:
    return f"{round(points, 1) + 0.0:+.1f}"  # + 0.0: no minus before a zero


def _kappa_of(cells: Floats, labels: int) -> Floats:
    tables = cells.reshape(-1, labels, labels) / cells.sum(axis=1)[:, None, None]
    seen = np.trace(tables, axis1=1, axis2=2)
    chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample of one label only: both agree
        return np.where(chance < 1, (seen - chance) / (1 - chance), 1.0)


def _clusters(families: Sequence[Hashable], n: int) -> tuple[npt.NDArray[np.intp], int]:
    if n == 0 or n != len(families):
        raise ValueError(f"{n} values and {len(families)} families: give one family a ticket, and at least one ticket")
    index = {family: i for i, family in enumerate(dict.fromkeys(families))}
    return np.array([index[family] for family in families]), len(index)


def _mean_interval(
    sums: npt.NDArray[Any],
    sizes: npt.NDArray[Any],
    confidence: float,
    seed: int,
    resamples: int,
    *,
    alone: tuple[float, float],
) -> tuple[float, float]:
    """Of a mean over all tickets, from each family's sum and size; `alone`: of a single family, which says nothing about others."""
    count = len(sums)
    if count == 1:
        return alone
    if count > MANY:  # the limit of the bootstrap, without its minutes
        mean = sums.sum() / sizes.sum()
        spread = math.sqrt(((sums - mean * sizes) ** 2).sum() * count / (count - 1)) / sizes.sum()
        reach = NormalDist().inv_cdf(0.5 + confidence / 2) * spread
        return float(mean - reach), float(mean + reach)
    alike = sizes.min() == sizes.max()  # then every resample has as many tickets
    tickets = sizes.sum() if alike else _weighted(sizes, count, seed, resamples)
    return _ends(_weighted(sums, count, seed, resamples) / tickets, count, confidence)


def _weighted(values: npt.NDArray[Any], count: int, seed: int, resamples: int) -> Floats:
    """Sums of the families' values in each resample, shape (resamples, ...)."""
    if count <= 300:
        sums: Floats = _draws(count, seed, resamples) @ values.astype(np.float64)
        return sums
    draw = _block if count <= MANY else _block.__wrapped__  # of more families it would keep too much
    blocks = (draw(count, seed + i) for i in range(math.ceil(resamples / BLOCK)))
    return np.concatenate([block.astype(np.float64) @ values.astype(np.float64) for block in blocks])


@functools.lru_cache(maxsize=12)
def _draws(count: int, seed: int, resamples: int) -> Floats:
    return _drawn(count, seed, resamples)


@functools.lru_cache(maxsize=64)
def _block(count: int, seed: int) -> npt.NDArray[np.uint8]:
    """As `_draws`, a part of it; kept, since several intervals in a row are of the same families: at most 32 MB."""
    return _drawn(count, seed, BLOCK).astype(np.uint8)


def _drawn(count: int, seed: int, resamples: int) -> Floats:
    """How often each family is drawn, shape (resamples, families)."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples).astype(np.float64)


def _ends(means: Floats, count: int, confidence: float) -> tuple[float, float]:
    """Both ends of an expanded percentile interval, of two families or more."""
    from scipy.special import ndtr, stdtrit

    tail = float(ndtr(math.sqrt(count / (count - 1)) * stdtrit(count - 1, 0.5 - confidence / 2)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
