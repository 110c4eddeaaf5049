"""How sure a share or a difference is: intervals for one strategy, and paired comparisons of two on the same tickets."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Share:
    """A share with its interval."""

    value: float
    low: float
    high: float
    n: int
    """Tickets behind it."""

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

    @property
    def decides(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

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
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return Share(p, max(0.0, centre - half), min(1.0, centre + half), n)


def clustered_share(
    correct: Sequence[bool],
    families: Sequence[Hashable],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 4_000,
) -> Share:
    """A share with a percentile bootstrap interval over whole families (B. Efron & R. Tibshirani, 1993, chapters 8 and 13).

    Raises:
        ValueError: no tickets, or lengths that differ.
    """
    right = np.asarray(correct, dtype=float)
    low, high = _bootstrap(right, families, confidence, seed, resamples)
    return Share(float(right.mean()), low, high, len(right))


def paired_difference(
    a: Sequence[bool],
    b: Sequence[bool],
    families: Sequence[Hashable],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 4_000,
) -> Difference:
    """A - B on the same tickets, with a bootstrap interval over whole families.

    Args:
        a, b: whether each strategy was right, in the same order.
        families: the scenario of each ticket; give distinct values where tickets are independent.
        confidence, seed, resamples: of the bootstrap.

    Raises:
        ValueError: no tickets, or lengths that differ.
    """
    if len(a) != len(b):
        raise ValueError(f"paired answers must be of equal number, not {len(a)} and {len(b)}")
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    low, high = _bootstrap(left - right, families, confidence, seed, resamples)
    only_a, only_b = int(((left == 1) & (right == 0)).sum()), int(((left == 0) & (right == 1)).sum())
    return Difference(float((left - right).mean()), low, high, len(left), only_a, only_b)


def _bootstrap(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    families: Sequence[Hashable],
    confidence: float,
    seed: int,
    resamples: int,
) -> tuple[float, float]:
    if len(values) == 0 or len(values) != len(families):
        raise ValueError(
            f"{len(values)} values and {len(families)} families: give one family a ticket, and at least one ticket"
        )
    index = {family: i for i, family in enumerate(dict.fromkeys(families))}
    cluster = np.array([index[family] for family in families])
    sums, sizes = np.bincount(cluster, values), np.bincount(cluster)
    drawn = np.random.default_rng(seed).integers(0, len(sizes), (resamples, len(sizes)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
