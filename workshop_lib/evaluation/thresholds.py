"""Below which confidence a ticket goes up: chosen from a target in your own words, with what it means on tickets that did not choose it.

choice = choose_threshold(confidence, cheap_correct, strong_correct, quality=0.99)
print(choice)
Cascade(tiers, escalate_when=confidence_below(choice.threshold))
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workshop_lib.cascade.calibration import folds_of
from workshop_lib.evaluation.statistics import Difference, Share, paired_difference, share

Floats = npt.NDArray[np.float64]
FEW = 100
"""Tickets below which a chosen threshold is mostly luck: published thresholds from 300 tickets already missed their target widely."""
ABOVE_ALL = float(np.nextafter(1.0, 2.0))
"""The threshold that sends everything up, a confidence of 1 included."""


@dataclass(frozen=True)
class Choice:
    """A threshold and what it means."""

    threshold: float
    """A ticket goes up if its confidence is strictly below it."""
    target: str
    met: bool
    """Whether any threshold met the target on these tickets; if not, this one comes nearest."""
    agreement: Share
    """Of the cascade, held out: each fifth of the families judged by the threshold that the other four chose."""
    sent_up: Share
    """Held out."""
    against_strong: Difference
    """Cascade minus strong-only, held out."""
    cost_per_1000_usd: float | None
    """Held out; None: no costs were given."""
    cost_share: float | None
    """Of what strong-only costs, held out."""
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        cost = "" if self.cost_share is None else f", at {self.cost_share:.0%} of strong-only's cost"
        lines = [
            f"Send up below {self.threshold:.3f} ({self.target}{'' if self.met else '; NOT met'}).",
            f"On tickets that did not choose it: agreement {self.agreement}, {self.sent_up} sent up{cost}; "
            f"against strong-only {self.against_strong}.",
        ]
        return "\n".join([*lines, *(f"Warning: {line}" for line in self.warnings)])


def choose_threshold(
    confidence: Sequence[float] | Floats,
    cheap_correct: Sequence[bool],
    strong_correct: Sequence[bool],
    *,
    quality: float | None = None,
    budget_per_1000_usd: float | None = None,
    wrong_usd: float | None = None,
    review_usd: float = 0.0,
    max_risk: float | None = None,
    delta: float = 0.05,
    cheap_cost_usd: Sequence[float] | float | None = None,
    strong_cost_usd: Sequence[float] | float | None = None,
    families: Sequence[Hashable] | None = None,
    pays_cheap_first: bool = True,
    seed: int = 0,
) -> Choice:
    """A threshold from exactly one target.

    Args:
        confidence: of the cheap answers, 0..1.
        cheap_correct, strong_correct: whether each model's answer was right, in the same order.
        quality: keep this share of the strong model's agreement, sending up as few tickets as possible.
        budget_per_1000_usd: spend at most this, cheap calls included, for the best agreement.
        wrong_usd: what a wrong final answer costs you; the least expected cost of calls, errors and reviews is chosen.
        review_usd: what each ticket that goes up costs beside its call (a person who looks on, say).
        max_risk: the share of all tickets that may be kept by the cheap tier and be wrong; holds with probability 1 - delta over
            the draw of these tickets (Learn then Test: A. Angelopoulos and others, 2021, with a binomial test in fixed order).
        delta: see `max_risk`.
        cheap_cost_usd, strong_cost_usd: of each call, or one number for all; needed for a budget and for wrong_usd.
        families: scenario of each ticket; None: all independent. For `max_risk` one ticket a family is used: the test needs
            independent ones.
        pays_cheap_first: as in `cost_at_quality`: False for a router, which knows its score before a model is asked.
        seed: of the folds, the intervals, and the ticket drawn from each family.

    Raises:
        ValueError: not exactly one target, costs that are missing, lengths that differ, or a number that cannot be.
    """
    scores, cheap, strong = (np.asarray(x, dtype=np.float64) for x in (confidence, cheap_correct, strong_correct))
    n = len(scores)
    if n == 0 or not len(cheap) == len(strong) == n or (families is not None and len(families) != n):
        raise ValueError(
            f"give every ticket a confidence, both verdicts and a family: {n}, {len(cheap)}, {len(strong)}"
        )
    if not np.all((scores >= 0) & (scores <= 1)):
        raise ValueError("a confidence is a number within 0..1; one of these is not")
    targets = {
        "quality": quality,
        "budget_per_1000_usd": budget_per_1000_usd,
        "wrong_usd": wrong_usd,
        "max_risk": max_risk,
    }
    given = [name for name, value in targets.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"name exactly one target of {', '.join(targets)}, not {given or 'none'}")
    costs = _costs(cheap_cost_usd, strong_cost_usd, n, needed=given[0] in {"budget_per_1000_usd", "wrong_usd"})
    paid = None if costs is None else costs[1] if pays_cheap_first else costs[1] - costs[0]  # more, for going up
    groups = list(range(n)) if families is None else list(families)

    if quality is not None:
        _within("quality", quality, 0, 2)
        said = f"keep {quality:.1%} of the strong model's agreement"

        def choose(rows: npt.NDArray[np.intp]) -> tuple[float, bool]:
            sweep = _Sweep(scores[rows], cheap[rows], strong[rows])
            return sweep.first(sweep.agreement >= quality * strong[rows].mean() - 1e-12, else_best=sweep.agreement)

    elif budget_per_1000_usd is not None:
        assert costs is not None  # `_costs` has raised otherwise
        assert paid is not None
        said = f"spend at most USD {budget_per_1000_usd:g} per 1,000 tickets"

        def choose(rows: npt.NDArray[np.intp]) -> tuple[float, bool]:
            sweep = _Sweep(scores[rows], cheap[rows], strong[rows])
            spent = 1_000 * (costs[0][rows].mean() + sweep.up(paid[rows]))
            affordable = spent <= budget_per_1000_usd + 1e-12
            return sweep.best(np.where(affordable, sweep.agreement, -1.0)), bool(affordable.any())

    elif wrong_usd is not None:
        assert paid is not None
        said = f"a wrong answer costs USD {wrong_usd:g}" + (f", going up USD {review_usd:g} more" if review_usd else "")

        def choose(rows: npt.NDArray[np.intp]) -> tuple[float, bool]:
            sweep = _Sweep(scores[rows], cheap[rows], strong[rows])
            spent = sweep.up(paid[rows] + review_usd) + wrong_usd * (1 - sweep.agreement)
            return sweep.best(-spent), True

    else:
        assert max_risk is not None  # there is exactly one target
        _within("max_risk", max_risk, 0, 1)
        _within("delta", delta, 0, 1)
        said = f"at most {max_risk:.1%} kept and wrong, with probability {1 - delta:.0%}"

        def choose(rows: npt.NDArray[np.intp]) -> tuple[float, bool]:
            single = _one_a_family(rows, groups, seed)
            return guaranteed(scores[single], cheap[single], max_risk, delta), True

    threshold, met = choose(np.arange(n))
    up = _held_out(scores, groups, choose, seed)
    final = np.where(up, strong, cheap)
    spent = None if costs is None or paid is None else costs[0] + up * paid
    return Choice(
        threshold=threshold,
        target=said,
        met=met,
        agreement=share((final > 0).tolist(), groups, seed=seed),
        sent_up=share(up.tolist(), groups, seed=seed),
        against_strong=paired_difference((final > 0).tolist(), (strong > 0).tolist(), groups, seed=seed),
        cost_per_1000_usd=None if spent is None else float(1_000 * spent.mean()),
        cost_share=None if spent is None or costs is None else float(spent.mean() / max(costs[1].mean(), 1e-300)),
        warnings=tuple(_warnings(cheap, strong, groups, seed)),
    )


class _Sweep:
    """All thresholds at once: entry k sends up the tickets below the k-th distinct confidence; the last sends up all."""

    def __init__(self, scores: Floats, cheap: Floats, strong: Floats) -> None:
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] > ordered[:-1]])
        self.thresholds = np.r_[ordered[starts], ABOVE_ALL]
        self._ends = np.r_[starts, len(scores)]
        self.agreement = cheap.mean() + self.up(strong - cheap)

    def up(self, values: Floats) -> Floats:
        """The mean over all tickets of what those that go up have."""
        sums = np.r_[0.0, np.cumsum(values[self._order])]
        result: Floats = sums[self._ends] / len(values)
        return result

    def first(self, good: npt.NDArray[np.bool_], *, else_best: Floats) -> tuple[float, bool]:
        """The lowest threshold that is good; the best one if none is."""
        if good.any():
            return float(self.thresholds[int(good.argmax())]), True
        return self.best(else_best), False

    def best(self, values: Floats) -> float:
        """The lowest threshold of the highest value."""
        return float(self.thresholds[int(values.argmax())])


def guaranteed(confidence: Floats, cheap_correct: Floats, max_risk: float, delta: float) -> float:
    """The lowest threshold of an unbroken row, from "all up" downwards, at which a risk above `max_risk` is rejected.

    The risk is the share of all tickets that are kept and wrong. It only grows as the threshold falls, and testing in this order
    needs no correction for many tests. Where nothing can be rejected, everything goes up, and nothing is kept.
    """
    from scipy.special import bdtr

    order = np.argsort(-confidence, kind="stable")
    ordered, wrong = confidence[order], np.cumsum(1 - cheap_correct[order])
    ends = np.flatnonzero(
        np.r_[ordered[1:] < ordered[:-1], True]
    )  # a threshold keeps all tickets of one confidence, or none
    rejected = bdtr(wrong[ends], len(ordered), max_risk) <= delta
    passed = int(np.argmin(np.r_[rejected, False]))
    return float(ordered[ends[passed - 1]]) if passed else ABOVE_ALL


def _held_out(
    scores: Floats,
    groups: Sequence[Hashable],
    choose: Callable[[npt.NDArray[np.intp]], tuple[float, bool]],
    seed: int,
) -> npt.NDArray[np.bool_]:
    """Which tickets go up when each fold of the families is judged by the threshold that the others choose."""
    fold = folds_of(groups, seed=seed)
    up = np.zeros(len(scores), dtype=bool)
    for k in range(int(fold.max()) + 1):
        rest = np.flatnonzero(fold != k)
        threshold = choose(rest if len(rest) else np.arange(len(scores)))[0]
        up[fold == k] = scores[fold == k] < threshold
    return up


def _one_a_family(rows: npt.NDArray[np.intp], groups: Sequence[Hashable], seed: int) -> npt.NDArray[np.intp]:
    shuffled = np.random.default_rng(seed).permutation(rows)
    first: dict[Hashable, int] = {}
    for row in shuffled:
        first.setdefault(groups[row], int(row))
    return np.array(sorted(first.values()))


def _warnings(cheap: Floats, strong: Floats, groups: Sequence[Hashable], seed: int) -> list[str]:
    said = []
    families = len(set(groups))
    if families < FEW:
        said.append(
            f"chosen on {len(cheap)} tickets of {families} families; below {FEW}, expect another choice from other tickets."
        )
    ahead = paired_difference((strong > 0).tolist(), (cheap > 0).tolist(), groups, seed=seed)
    if ahead.low <= 0:
        said.append(f"the strong model is not shown to be stronger ({ahead}): going up may buy nothing.")
    return said


def _costs(
    cheap: Sequence[float] | float | None, strong: Sequence[float] | float | None, n: int, *, needed: bool
) -> tuple[Floats, Floats] | None:
    if cheap is None or strong is None:
        if needed:
            raise ValueError("this target needs cheap_cost_usd and strong_cost_usd")
        return None
    both = tuple(np.broadcast_to(np.asarray(c, dtype=np.float64), (n,)) for c in (cheap, strong))
    if not all(np.all(np.isfinite(c) & (c >= 0)) for c in both):
        raise ValueError("a cost is a number of USD, 0 or more; one of these is not")
    return both[0], both[1]


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low < value < high:
        raise ValueError(f"{name} lies between {low} and {high}, not at {value}")
