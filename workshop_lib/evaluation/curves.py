"""How much of the strong model's gain a score buys, at every threshold: curves of quality, cost and risk, and whether a confidence is true.

A *score* says how much a ticket should go up: tickets with the highest go up first. Tickets of equal score go up in random order, and
every figure is the expectation over that order, so a constant score is the line of sending tickets up at random.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workshop_lib.evaluation.statistics import Floats, Share, _clusters, _ends, _weighted, wilson

CURVE_RESAMPLES = 1_000
"""Of a bootstrap of a curve: 14,000 tickets take seconds."""
HARD_MARKS = r"\d+|[?=<>{}\\^$`]"
"""What the baseline `keywords` counts: numbers, question marks, marks of formulas and of code."""
_NOTHING = 1e-12
"""Differences below it are rounding."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Quality against how much goes up: n + 1 points, from no ticket to all n."""

    share_up: Floats
    """Share of the tickets that the strong model answers, 0..1."""
    quality: Floats
    """Mean quality of all tickets then: the share of right answers. First the cheap model's alone, last the strong one's."""


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Errors against how much is answered: n points, from the one most confident ticket to all."""

    coverage: Floats
    """Share of the tickets that are answered, 1/n..1."""
    risk: Floats
    """Share of wrong answers among those."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Tickets of about the same confidence: they are calibrated if `correct` is about `confidence`."""

    low: float
    """Confidences above it (the first bin: from it) ..."""
    high: float
    """... up to it."""
    confidence: float
    """Their mean confidence."""
    correct: Share
    """How many are right, with Wilson's interval and their number."""


def curve(score: npt.ArrayLike, cheap_correct: npt.ArrayLike, strong_correct: npt.ArrayLike) -> Curve:
    """Quality at every threshold of a score.

    Args:
        score: how much each ticket should go up.
        cheap_correct, strong_correct: whether each model is right on it; or its quality, as a number.

    Raises:
        ValueError: no tickets, unequal lengths, or what is no finite number.
    """
    scores, cheap, strong = _columns(score=score, cheap_correct=cheap_correct, strong_correct=strong_correct)
    return Curve(np.arange(len(scores) + 1) / len(scores), (cheap.sum() + _swept(scores, strong - cheap)) / len(scores))


def apgr(score: npt.ArrayLike, cheap_correct: npt.ArrayLike, strong_correct: npt.ArrayLike) -> float:
    """Average performance gap recovered: the share of (strong - cheap) won, averaged over all shares of strong calls (Ong et al., 2024).

    The area between the quality curve and the cheap model's level, by trapezoids over all n + 1 thresholds, divided by the gap. 0.5 is
    random, and more than 1 is possible: where the cheap model is right and the strong one is wrong, a router beats both.

    Raises:
        ValueError: as `curve`; or the strong model is not better on these tickets.
    """
    quality = curve(score, cheap_correct, strong_correct).quality
    area = (quality.sum() - (quality[0] + quality[-1]) / 2) / (len(quality) - 1)
    return float((area - quality[0]) / _gap(quality))


def apgr_interval(
    score: npt.ArrayLike,
    cheap_correct: npt.ArrayLike,
    strong_correct: npt.ArrayLike,
    families: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = CURVE_RESAMPLES,
) -> Share:
    """APGR with a bootstrap interval over whole families, as `clustered_share`. Despite its class it may lie outside 0..1.

    A ticket at relative rank r from below goes up first at a share of 1 - r, and so counts r of its gain: no curve has to be drawn
    again for a resample.

    Args:
        score, cheap_correct, strong_correct: as `curve`.
        families: the scenario of each ticket; None: all independent.
        level: how often the interval is to hold the true value.
        seed, resamples: of the bootstrap.

    Raises:
        ValueError: as `apgr`; or fewer than two families; or the gap's own interval reaches 0, where a share of it says nothing.
    """
    value = apgr(score, cheap_correct, strong_correct)
    clusters, count = _families(families, np.size(cheap_correct))
    drawn = _apgr_drawn(
        score, cheap_correct, strong_correct, clusters, count, level=level, seed=seed, resamples=resamples
    )
    low, high = _ends(drawn[~np.isnan(drawn)], count, level)
    return Share(value, low, high, len(clusters), count)


def apgr_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    cheap_correct: npt.ArrayLike,
    strong_correct: npt.ArrayLike,
    families: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = CURVE_RESAMPLES,
) -> Share:
    """APGR of score A minus that of score B on the same tickets, from the same resamples. Despite its class it may lie below 0.

    Args:
        a, b: two scores, each as in `curve`.
        cheap_correct, strong_correct, families, level, seed, resamples: as `apgr_interval`.

    Raises:
        ValueError: as `apgr_interval`.
    """
    value = apgr(a, cheap_correct, strong_correct) - apgr(b, cheap_correct, strong_correct)
    clusters, count = _families(families, np.size(cheap_correct))
    first, second = (
        _apgr_drawn(score, cheap_correct, strong_correct, clusters, count, level=level, seed=seed, resamples=resamples)
        for score in (a, b)
    )
    low, high = _ends((first - second)[~np.isnan(first)], count, level)
    return Share(value, low, high, len(clusters), count)


def _apgr_drawn(
    score: npt.ArrayLike,
    cheap_correct: npt.ArrayLike,
    strong_correct: npt.ArrayLike,
    clusters: npt.NDArray[np.intp],
    count: int,
    *,
    level: float,
    seed: int,
    resamples: int,
) -> Floats:
    """APGR of each resample; NaN where the strong model is not better in it. The same seed draws the same families."""
    scores, cheap, strong = _columns(score=score, cheap_correct=cheap_correct, strong_correct=strong_correct)
    ascending = np.argsort(scores, kind="stable")
    ties = _starts(scores[ascending])
    clusters, gain = clusters[ascending], (strong - cheap)[ascending]
    chance, areas, gaps = np.random.default_rng(seed), [], []
    for block in np.array_split(np.arange(resamples), 1 + resamples * len(scores) // 1_000_000):
        weights = chance.multinomial(count, np.full(count, 1 / count), len(block))[:, clusters].astype(np.float64)
        sizes, gains = (np.add.reduceat(w, ties, axis=1) for w in (weights, weights * gain))
        ranks = (np.cumsum(sizes, axis=1) - sizes / 2) / sizes.sum(axis=1, keepdims=True)
        areas.append((gains * ranks).sum(axis=1))
        gaps.append(gains.sum(axis=1))
    area, gap = np.concatenate(areas), np.concatenate(gaps)
    usable = gap > _NOTHING
    if usable.mean() < 0.5 + level / 2:
        raise ValueError(
            f"in {1 - usable.mean():.0%} of the resamples the strong model is not better: on {len(scores)} tickets the gap is too unsure "
            "for a share of it. Take more tickets, or compare the models themselves (`paired_difference`)."
        )
    return np.where(usable, area / np.where(usable, gap, 1.0), np.nan)


def cpt(
    score: npt.ArrayLike, cheap_correct: npt.ArrayLike, strong_correct: npt.ArrayLike, share: float
) -> float | None:
    """Call-performance threshold: the smallest share of strong calls that recovers `share` of the gap (Ong et al., 2024).

    CPT50 is `share=0.5`, CPT80 is 0.8. None: never recovered, which only a share above 1 can be.

    Raises:
        ValueError: as `apgr`.
    """
    found = curve(score, cheap_correct, strong_correct)
    wanted = found.quality[0] + share * _gap(found.quality)
    reached = np.flatnonzero(found.quality >= wanted - _NOTHING)
    return float(found.share_up[reached[0]]) if len(reached) else None


def cost_at_quality(  # noqa: PLR0917  # columns of one table
    score: npt.ArrayLike,
    cheap_correct: npt.ArrayLike,
    strong_correct: npt.ArrayLike,
    cheap_cost: npt.ArrayLike,
    strong_cost: npt.ArrayLike,
    share: float = 0.99,
    *,
    pays_cheap_first: bool = True,
) -> float | None:
    """The cheapest threshold's cost at `share` of the strong model's quality, as a share of what strong-only costs; above 1: it costs more.

    Args:
        score, cheap_correct, strong_correct: as `curve`.
        cheap_cost, strong_cost: of each ticket, in one currency.
        share: of the strong model's mean quality; None is returned where no threshold reaches it.
        pays_cheap_first: the score is known only after the cheap model has answered, so every ticket pays it (a cascade); False: it is
            known from the question, and a ticket pays one of the two models (a router).

    Raises:
        ValueError: as `curve`; a negative cost, or a strong model that costs nothing.
    """
    quality = curve(score, cheap_correct, strong_correct).quality
    cost = cost_curve(score, cheap_cost, strong_cost, pays_cheap_first=pays_cheap_first)
    whole = float(np.asarray(strong_cost, dtype=np.float64).mean())
    if whole == 0:
        raise ValueError("the strong model has to cost something to be a measure")
    reached = cost[quality >= share * quality[-1] - _NOTHING]
    return float(reached.min() / whole) if len(reached) else None


def cost_curve(
    score: npt.ArrayLike, cheap_cost: npt.ArrayLike, strong_cost: npt.ArrayLike, *, pays_cheap_first: bool = True
) -> Floats:
    """Cost per ticket at every threshold of a score: n + 1 numbers, in the order of `curve`.

    Args:
        score: as `curve`.
        cheap_cost, strong_cost, pays_cheap_first: as `cost_at_quality`.

    Raises:
        ValueError: as `curve`; a negative cost.
    """
    scores, less, more = _columns(score=score, cheap_cost=cheap_cost, strong_cost=strong_cost)
    if min(less.min(), more.min()) < 0:
        raise ValueError("costs cannot be negative")
    spent: Floats = (less.sum() + _swept(scores, more if pays_cheap_first else more - less)) / len(scores)
    return spent


def risk_coverage(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> RiskCoverage:
    """Errors among the tickets that are answered, from the most confident down (El-Yaniv & Wiener, 2010).

    Args:
        confidence: any number that is higher where the answer is surer.
        correct: whether the answer is right.

    Raises:
        ValueError: as `curve`; or correct is neither 0 nor 1.
    """
    sure, right = _columns(confidence=confidence, correct=correct)
    _check_right(right)
    answered = np.arange(1, len(sure) + 1)
    return RiskCoverage(answered / len(sure), _swept(sure, 1 - right)[1:] / answered)


def aurc(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """Area under the risk-coverage curve: the mean risk over all n coverages (Geifman, Uziel & El-Yaniv, 2019); lower is better.

    Raises:
        ValueError: as `risk_coverage`.
    """
    return float(risk_coverage(confidence, correct).risk.mean())


def reliability(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int | None = None, *, equal_mass: bool = False
) -> tuple[ReliabilityBin, ...]:
    """The bins of a reliability diagram, empty ones left out.

    Args:
        confidence: from 0 to 1, the chance that the answer is said to be right with.
        correct: whether it is.
        bins: how many; None: 10, or 15 of equal mass.
        equal_mass: about equally many tickets a bin (equal confidences stay together), and not 0..1 in equal steps.

    Raises:
        ValueError: no tickets, unequal lengths, a confidence outside 0..1, correct neither 0 nor 1, or no bins.
    """
    sure, right, edges, at = _binned(confidence, correct, bins, equal_mass)
    return tuple(
        ReliabilityBin(
            float(edges[i]), float(edges[i + 1]), float(sure[at == i].mean()),
            wilson(int(right[at == i].sum()), int((at == i).sum())),
        )
        for i in np.unique(at)
    )  # fmt: skip


def ece(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int | None = None, *, equal_mass: bool = False
) -> float:
    """Expected calibration error: how far confidence and share of right answers lie apart, averaged over tickets (Naeini et al., 2015).

    0 is calibrated. It depends on the bins, and lies too high on few tickets. Arguments and errors as `reliability`.
    """
    sure, right, _, at = _binned(confidence, correct, bins, equal_mass)
    return float(np.abs(np.bincount(at, sure - right)).sum() / len(sure))


def ece_interval(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    families: Sequence[Hashable] | None = None,
    *,
    bins: int | None = None,
    equal_mass: bool = False,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = CURVE_RESAMPLES,
) -> Share:
    """ECE with a bootstrap interval over whole families; the bins stay those of all tickets.

    Noise alone makes an ECE positive, and resampling adds noise of its own. So the lower end is 0 where chance deviations of the bins are
    as large as theirs, and else the percentile interval's upper end reflected at the value; the upper end is that end itself. In
    simulations (285 and 1,500 tickets, calibrated to far off) it holds the true value in 95 to 97 % of cases, a plain percentile
    interval in 0 to 96 %.

    Args:
        confidence, correct, bins, equal_mass: as `reliability`.
        families, level, seed, resamples: as `apgr_interval`.

    Raises:
        ValueError: as `reliability`; or fewer than two families; or all answers are right, or all wrong.
    """
    sure, right, _, at = _binned(confidence, correct, bins, equal_mass)
    clusters, count = _families(families, len(sure))
    if right.min() == right.max():
        raise ValueError(f"all answers have correct = {right[0]:g}: resampling cannot tell how often the next has not")
    width = int(at.max()) + 1
    off = np.bincount(clusters * width + at, sure - right, count * width).reshape(count, width)
    drawn = _weighted(np.column_stack([off, np.bincount(clusters)]), count, seed, resamples)
    here, there = off.sum(axis=0) / len(sure), drawn[:, :-1] / drawn[:, -1:]
    value = float(np.abs(here).sum())
    _, noise = _ends(np.abs(there - here).sum(axis=1), count, level)
    _, high = _ends(np.abs(there).sum(axis=1), count, level)
    return Share(value, 0.0 if value <= noise else max(0.0, 2 * value - high), high, len(sure), count)


def aiq(costs: npt.ArrayLike, qualities: npt.ArrayLike) -> float:
    """Average improvement in quality: the mean, over the range of costs, of the best quality to be had for a cost (Hu et al., 2024, RouterBench).

    The best quality is the non-decreasing convex hull of the points: two of them can be mixed, and spending less is always allowed.
    Only figures over the same range of costs compare: put the cheapest and the dearest model among the points of each.

    Args:
        costs: of each setting (a threshold, a model), per ticket, in one currency.
        qualities: its mean quality.

    Raises:
        ValueError: as `curve`; or there is only one cost.
    """
    cost, quality = _columns(costs=costs, qualities=qualities)
    if cost.min() == cost.max():
        raise ValueError(f"AIQ needs settings of at least two different costs; all cost {cost[0]:g}")
    hull: list[tuple[float, float]] = []
    for x, y in sorted(zip(cost.tolist(), quality.tolist(), strict=True), key=lambda p: (p[0], -p[1])):
        if hull and y <= hull[-1][1]:
            continue  # no dearer point is worth it that is not better
        while len(hull) > 1 and _rise(hull[-2], hull[-1]) <= _rise(hull[-1], (x, y)):
            hull.pop()
        hull.append((x, y))
    hull.append((float(cost.max()), hull[-1][1]))
    xs, ys = np.array(hull).T
    return float(np.diff(xs) @ (ys[1:] + ys[:-1]) / 2 / (cost.max() - cost.min()))


def baselines(
    texts: Sequence[str],
    cheap_correct: npt.ArrayLike,
    strong_correct: npt.ArrayLike,
    *,
    marks: str = HARD_MARKS,
    seed: int = 0,
) -> dict[str, Floats]:
    """Scores that need no training, to be held beside a router's: what it has to beat, and what no score can beat.

    Args:
        texts: of the tickets.
        cheap_correct, strong_correct: as `curve`; only the oracle looks at them.
        marks: regular expression of what `keywords` counts.
        seed: of `random`.

    Returns:
        By name: `random`; `length` in characters; `keywords`, how often `marks` occur; `oracle`, which sends up first what only the
        strong model has right and last what only the cheap one has.

    Raises:
        ValueError: as `curve`.
    """
    found = {
        "random": np.random.default_rng(seed).random(len(texts)),
        "length": np.array([len(text) for text in texts]),
        "keywords": np.array([len(re.findall(marks, text)) for text in texts]),
    }
    *scores, cheap, strong = _columns(**found, cheap_correct=cheap_correct, strong_correct=strong_correct)
    return {**dict(zip(found, scores, strict=True)), "oracle": strong - cheap}


def _columns(**given: npt.ArrayLike) -> list[Floats]:
    """The inputs as numbers, or what is wrong with them by name."""
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in given.items()}
    for name, values in columns.items():
        if values.ndim != 1 or not len(values):
            raise ValueError(f"{name}: give one number a ticket, and at least one ticket; its shape is {values.shape}")
        if not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(
                f"{name}: number {first} is {values[first]}; leave such tickets out, or say what they count as"
            )
    if len({len(values) for values in columns.values()}) > 1:
        raise ValueError("of unequal length: " + ", ".join(f"{name} {len(v)}" for name, v in columns.items()))
    return list(columns.values())


def _families(families: Sequence[Hashable] | None, n: int) -> tuple[npt.NDArray[np.intp], int]:
    clusters, count = _clusters(range(n) if families is None else families, n)
    if count < 2:
        raise ValueError("an interval takes at least two families of tickets: one says nothing about others")
    return clusters, count


def _check_right(correct: Floats) -> None:
    if not np.isin(correct, (0, 1)).all():
        raise ValueError("correct: give 1 (right) or 0 (wrong) for each ticket")


def _swept(score: Floats, values: Floats) -> Floats:
    """Sums of the values over the k highest scores, k = 0..n; within a tie, as expected of a random order."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(_starts(score[order]), len(score))
    sums = np.append(0.0, np.cumsum(values[order]))
    swept: Floats = np.interp(np.arange(len(score) + 1), ends, sums[ends])
    return swept


def _starts(ordered: Floats) -> npt.NDArray[np.intp]:
    """Where each group of equal numbers begins."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))


def _gap(quality: Floats) -> float:
    gap = float(quality[-1] - quality[0])
    if gap <= _NOTHING:
        raise ValueError(
            f"the strong model is not better than the cheap one on these {len(quality) - 1} tickets "
            f"({quality[-1]:.4g} against {quality[0]:.4g}): there is no gap to recover"
        )
    return gap


def _binned(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int | None, equal_mass: bool
) -> tuple[Floats, Floats, Floats, npt.NDArray[np.intp]]:
    """Confidences, right answers, the bins' edges and the bin of each ticket."""
    sure, right = _columns(confidence=confidence, correct=correct)
    _check_right(right)
    if sure.min() < 0 or sure.max() > 1:
        raise ValueError(f"confidence: from 0 to 1, not {sure.min():g} to {sure.max():g} (a log-probability: take exp)")
    wanted = (15 if equal_mass else 10) if bins is None else bins
    if wanted < 1:
        raise ValueError(f"bins: at least one, not {wanted}")
    edges = np.linspace(0, 1, wanted + 1)
    edges = np.quantile(sure, edges) if equal_mass else edges
    return sure, right, edges, np.searchsorted(edges[1:-1], sure)


def _rise(a: tuple[float, float], b: tuple[float, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])
