"""Whether a shadowed candidate takes over: promote, keep, or how many more labelled pairs it takes, by a margin stated beforehand.

report = judge(load_pairs("shadow.db"), labels, margin=0.02, cost_ratio=0.8); print(report.sentence)

Where both gave the same answer, both are right or both are wrong: the pair adds nothing to the difference, whatever its label. So only
disagreeing pairs need a person, in a random order, and the agreeing ones count as zeros. What must not be done is to take the labelled
pairs for all: they were chosen because somebody is wrong on them, so the share right among them is nobody's share right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

from workshop_lib.bulk.rows import Row
from workshop_lib.cascade.attempt import ballot
from workshop_lib.evaluation.metrics import joint_agreement
from workshop_lib.evaluation.statistics import Difference, Share, paired_difference, share, weighted_mean
from workshop_lib.operations.shadow import Pair, place
from workshop_lib.triage.task import TRIAGE, Task

SALT = "label"
MOST = 1_000_000
"""Pairs beyond which "so many more" means never."""


@dataclass(frozen=True)
class Promotion:
    """What the pairs say. Differences are candidate minus current."""

    verdict: Literal["promote", "keep", "need more"]
    why: str
    n: int
    """Pairs."""
    disagreement: Share
    """Pairs with different answers: the difference in quality cannot be larger."""
    labelled: int
    """Disagreeing pairs whose labels were used."""
    set_aside: int
    """Disagreeing pairs with a label that was not used, because it was not next in the random order."""
    difference: Difference | None
    """In quality, over all pairs; None: no disagreeing pair has a label."""
    current_per_1000_usd: float
    candidate_per_1000_usd: float
    dearer: tuple[float, float, float]
    """Candidate minus `cost_ratio` times current, USD per 1,000, with its interval."""
    margin: float
    cost_ratio: float
    more: int
    """Further labelled pairs until the interval would decide, if the truth is as observed; 0: it decides, or no number would soon."""
    more_labels: int
    """Of them, those that a person must label."""
    to_label: tuple[str, ...]
    """Disagreeing tickets without a label, in the order in which to label them. Any first part of it is a random sample."""

    @property
    def sentence(self) -> str:
        """For people."""
        many = f" {self.more:,}" if self.more else ""
        asked = f"{self.verdict.upper() if self.verdict != 'need more' else f'NEED{many} MORE'}: {self.why}"
        quality = "no disagreeing pair is labelled"
        if self.difference is not None:
            d = self.difference
            quality = (
                f"the candidate is {100 * d.value:+.1f} points [{100 * d.low:+.1f}, {100 * d.high:+.1f}] against the current "
                f"(margin {100 * self.margin:.1f}), {d.only_a} against {d.only_b} of {self.labelled} labelled disagreements"
            )
        cost = f"USD {self.candidate_per_1000_usd:.4f} against {self.current_per_1000_usd:.4f} per 1,000"
        plan = ""
        if self.more:
            ready = min(self.more_labels, len(self.to_label))
            plan = f" Of the {self.more:,} pairs about {self.more_labels:,} need a person; {ready:,} of those can be labelled now."
        return f"{asked} On {self.n:,} pairs, {self.disagreement} of them different: {quality}; {cost}.{plan}"


def judge(
    pairs: Sequence[Pair],
    labels: Mapping[str, Any],
    *,
    margin: float,
    cost_ratio: float = 1.0,
    right: Callable[[Any, Any], bool] = joint_agreement,
    task: Task[Any] = TRIAGE,
    families: Mapping[str, str] | None = None,
    random_labels: bool = False,
    confidence: float = 0.95,
    power: float = 0.8,
) -> Promotion:
    """The verdict on a candidate.

    Promoted is what is not worse than the current by `margin` or more, and does not cost more than `cost_ratio` times as much, both beyond
    doubt: the whole interval says so (non-inferiority). Kept is the current where either is refuted beyond doubt. State margin and
    ratio before you look, and look when the planned number of labels is there: an interval that is looked at every day until it
    decides is wrong more often than it says.

    Args:
        pairs: from `load_pairs`.
        labels: the key by ticket id, e.g. of human review. Agreeing pairs need none.
        margin: how much worse the candidate may be, as a share: 0.02 for two points.
        cost_ratio: how much it may cost, as a multiple of the current: 0.8 asks for a saving of a fifth.
        right: whether a decision is as the label says. It must go by fields that make answers differ (closed lists, yes or no).
        task: of both.
        families: scenario by ticket id; None: as `labels` say, else each ticket is one.
        random_labels: the labels are a random draw of the disagreeing pairs, though not in the order of `to_label`. A reviewer's queue is
            none: it holds what looked doubtful.
        confidence: of the intervals.
        power: how surely the needed number decides.

    Raises:
        ValueError: no pairs; a margin outside 0..1 or a ratio that is not positive.
    """
    if not pairs or not 0 < margin < 1 or cost_ratio <= 0:
        raise ValueError(
            f"judge needs pairs, 0 < margin < 1 and cost_ratio > 0, not {len(pairs)} pairs, {margin} and {cost_ratio}"
        )
    ordered = sorted(pairs, key=lambda p: place(p.ticket_id, salt=SALT))
    decided = {p.ticket_id: (_decision(p.candidate, task), _decision(p.current, task)) for p in ordered}
    differ = [p.ticket_id for p in ordered if _said(decided[p.ticket_id][0]) != _said(decided[p.ticket_id][1])]
    differing = set(differ)
    agree = [p.ticket_id for p in ordered if p.ticket_id not in differing]
    known = [i for i in differ if i in labels]
    first_open = next((k for k, i in enumerate(differ) if i not in labels), len(differ))
    used = known if random_labels else differ[:first_open]

    def family(ticket_id: str) -> str:
        told = None if families is None else families.get(ticket_id)
        return str(told or getattr(labels.get(ticket_id), "family", None) or ticket_id)

    # As large a part of the agreeing pairs as of the disagreeing ones is labelled: together a random part of all pairs.
    zeros = agree[: round(len(agree) * len(used) / len(differ))] if differ else agree
    difference = None
    if used or not differ:
        a, b = ([right(decided[i][side], labels[i]) for i in used] + [True] * len(zeros) for side in (0, 1))
        owners = [family(i) for i in [*used, *zeros]]
        difference = paired_difference(a, b, owners, confidence=confidence)
    owners = [family(p.ticket_id) for p in ordered]
    apart = share([p.ticket_id in differing for p in ordered], owners, confidence=confidence)
    costs = [(p.candidate.ticket_cost_usd, p.current.ticket_cost_usd) for p in ordered]
    dearer = _dearer(costs, cost_ratio, owners, confidence)
    verdict, why = _verdict(difference, apart, dearer, margin, cost_ratio)
    needed = 0
    if verdict == "need more":
        needed = max(
            _pairs_for_quality(difference, apart, margin, confidence, power),
            _pairs_for_cost(dearer, len(pairs), confidence, power),
            len(used) + len(zeros) + 1,
        )
    never = (
        "All pairs are of one family, which says nothing about others: take pairs of more."
        if apart.families == 1
        else "No number of pairs will tell soon: the truth lies at the limit. State another one."
    )
    n = len(pairs)
    return Promotion(
        verdict=verdict,
        why=why if needed < MOST else f"{why} {never}",
        n=n,
        disagreement=apart,
        labelled=len(used),
        set_aside=len(known) - len(used),
        difference=difference,
        current_per_1000_usd=1_000 * math.fsum(c for _, c in costs) / n,
        candidate_per_1000_usd=1_000 * math.fsum(c for c, _ in costs) / n,
        dearer=dearer,
        margin=margin,
        cost_ratio=cost_ratio,
        more=needed - len(used) - len(zeros) if 0 < needed < MOST else 0,
        more_labels=max(0, math.ceil(needed * len(differ) / n) - len(used)) if needed < MOST else 0,
        to_label=tuple(i for i in differ if i not in labels),
    )


def _verdict(
    difference: Difference | None, apart: Share, dearer: tuple[float, float, float], margin: float, cost_ratio: float
) -> tuple[Literal["promote", "keep", "need more"], str]:
    limit = f"{cost_ratio:g} times the current cost"
    if dearer[1] > 0:
        return "keep", f"The candidate costs more than {limit}."
    if difference is not None and difference.high < -margin:
        return "keep", "The candidate is worse by more than the margin."
    good = apart.high < margin if difference is None else difference.low > -margin
    if good and dearer[2] <= 0:
        how = "they disagree too rarely for more" if difference is None else "the interval leaves out the margin"
        return "promote", f"The candidate is not worse by the margin ({how}), at no more than {limit}."
    missing = [
        words for words, open_ in (("quality", not good), (f"whether it stays within {limit}", dearer[2] > 0)) if open_
    ]
    return "need more", f"The pairs do not decide {' and '.join(missing)}."


def _dearer(
    costs: Sequence[tuple[float, float]], ratio: float, owners: Sequence[str], confidence: float
) -> tuple[float, float, float]:
    new, old = [1_000 * c for c, _ in costs], [1_000 * ratio * c for _, c in costs]
    if all(math.isclose(a, b, abs_tol=1e-12) for a, b in zip(new, old, strict=True)):
        return 0.0, 0.0, 0.0
    found = weighted_mean([a - b for a, b in zip(new, old, strict=True)], owners, confidence=confidence)
    return found.value, found.low, found.high


def _pairs_for_quality(
    difference: Difference | None, apart: Share, margin: float, confidence: float, power: float
) -> int:
    """Labelled pairs until the interval leaves out the margin, at the observed difference and spread; see `required_tickets`."""
    z, z_miss = NormalDist().inv_cdf(0.5 + confidence / 2), NormalDist().inv_cdf(power)
    if difference is None:  # no label yet: as if both were equally good and one of them right wherever they differ
        return math.ceil(apart.value * ((z + z_miss) / margin) ** 2)
    if difference.low > -margin or difference.high < -margin:
        return 0
    # Nothing differs: Wilson's bound of as many families, z² / (families + z²), must fall below.
    if difference.only_a == difference.only_b == 0:
        families = math.floor(z * z * (1 / margin - 1)) + 1
        return min(MOST, math.ceil(families * difference.n / difference.families))
    return _until(difference.n, (difference.high - difference.low) / 2, difference.value + margin, z, z_miss)


def _pairs_for_cost(dearer: tuple[float, float, float], n: int, confidence: float, power: float) -> int:
    value, low, high = dearer
    if high <= 0 or low > 0:
        return 0
    z, z_miss = NormalDist().inv_cdf(0.5 + confidence / 2), NormalDist().inv_cdf(power)
    return _until(n, (high - low) / 2, value, z, z_miss)


def _until(n: int, half: float, gap: float, z: float, z_miss: float) -> int:
    """The interval's half width falls with the root of n; it decides, with the power asked for, once it is z / (z + z_miss) of the gap."""
    if abs(gap) * math.sqrt(MOST / n) * z <= half * (z + z_miss):
        return MOST
    return math.ceil(n * (half / abs(gap) * (z + z_miss) / z) ** 2)


def _decision(row: Row, task: Task[Any]) -> Any:
    return None if row.decision is None else task.schema.model_validate(row.decision)


def _said(decision: Any) -> Any:
    return None if decision is None else ballot(decision)
