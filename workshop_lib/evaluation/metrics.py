"""What a strategy's outcomes are worth: agreement with the answer key, recall of what matters, escalation, cost, latency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workshop_lib.cascade.attempt import Outcome
from workshop_lib.evaluation.statistics import Share, share
from workshop_lib.triage.datasets import Label
from workshop_lib.triage.schema import Decision


@dataclass(frozen=True)
class Measure:
    """A share that outcomes are judged by: of the tickets it looks at, on how many something holds."""

    name: str
    holds: Callable[[Any, Any], bool]
    """Whether it holds, from a decision and what the answer key says. Without a decision nothing holds."""
    among: Callable[[Any], bool] = lambda label: True
    """Which tickets it looks at, by the answer key."""
    description: str = ""

    def of(self, outcome: Outcome[Any], label: Any) -> bool:
        """Whether it holds for a ticket's outcome."""
        return outcome.decision is not None and bool(self.holds(outcome.decision, label))


def category_agreement(decision: Decision | None, label: Label) -> bool:
    """Whether the category is as the key says."""
    return decision is not None and decision.category == label.category


def joint_agreement(decision: Decision | None, label: Label) -> bool:
    """Whether all three fields are as the key says."""
    return decision is not None and (decision.category, decision.priority, decision.needs_human) == (
        label.category,
        label.priority,
        label.needs_human,
    )


TRIAGE_MEASURES = (
    Measure("category", category_agreement, description="category as in the key"),
    Measure("joint", joint_agreement, description="category, priority and needs_human all as in the key"),
    Measure(
        "needs_human_recall",
        lambda said, label: said.needs_human,
        lambda label: label.needs_human,
        "of the tickets that need a person, those that were flagged",
    ),
    Measure(
        "urgent_recall",
        lambda said, label: said.priority.is_urgent,
        lambda label: label.priority.is_urgent,
        "of the P0 and P1 tickets, those that were given P0 or P1",
    ),
    Measure(
        "false_alarms",
        lambda said, label: said.needs_human,
        lambda label: not label.needs_human,
        "of the tickets that need no person, those that were flagged all the same",
    ),
    Measure(
        "urgent_false_alarms",
        lambda said, label: said.priority.is_urgent,
        lambda label: not label.priority.is_urgent,
        "of the P2 and P3 tickets, those that were given P0 or P1",
    ),
)
"""Of support triage; for another task write your own. The second one, `joint`, is what "right" means."""


@dataclass(frozen=True)
class Scores:
    """One strategy on some tickets."""

    strategy: str
    n: int
    shares: Mapping[str, Share | None]
    """By measure; None: no ticket that it looks at."""
    escalated: Share
    reasons: Mapping[str, int]
    """How many tickets each rule sent up (a ticket may have several)."""
    failed: int
    """Tickets without a decision: wrong by every measure of agreement."""
    cost_usd: float
    latency_mean_ms: float
    latency_p50_ms: float
    latency_p95_ms: float

    @property
    def category(self) -> Share:
        """Category as in the key."""
        return self._always("category")

    @property
    def joint(self) -> Share:
        """All three fields as in the key."""
        return self._always("joint")

    @property
    def needs_human_recall(self) -> Share | None:
        """Of the tickets that need a person, the share that was flagged; None: none does."""
        return self.shares["needs_human_recall"]

    @property
    def urgent_recall(self) -> Share | None:
        """Of the P0 and P1 tickets, the share that was given P0 or P1; None: there are none."""
        return self.shares["urgent_recall"]

    @property
    def cost_per_1000_usd(self) -> float:
        """USD for a thousand such tickets."""
        return 1_000 * self.cost_usd / self.n

    def cost_per_correct_usd(self, measure: str = "joint") -> float | None:
        """USD for one right answer; None: none was right."""
        found = self._always(measure)
        return self.cost_usd / (found.value * found.n) if found.value else None

    def _always(self, measure: str) -> Share:
        found = self.shares[measure]
        if found is None:
            raise ValueError(f"{self.strategy}: no ticket that {measure} looks at")
        return found


def score(
    strategy: str,
    outcomes: Sequence[Outcome[Any]],
    labels: Mapping[str, Any],
    *,
    texts: Mapping[str, str] | None = None,
    measures: Sequence[Measure] = TRIAGE_MEASURES,
    seed: int = 0,
) -> Scores:
    """Score a strategy's outcomes against the answer key; intervals respect scenario families.

    Args:
        strategy: its name.
        outcomes: one a ticket.
        labels: the key by ticket id. A label without `family` is a family of its own.
        texts: of the tickets by id, to count the different ones.
        measures: what to judge by.
        seed: of the bootstrap.

    Raises:
        ValueError: there are no outcomes.
        KeyError: a ticket has no label.
    """
    if not outcomes:
        raise ValueError(f"{strategy}: no outcomes to score")
    keyed = [(o, labels[o.item_id]) for o in outcomes]

    def judged(holds: Callable[[Outcome[Any], Any], bool], among: Callable[[Any], bool]) -> Share | None:
        looked = [(o, label) for o, label in keyed if among(label)]
        if not looked:
            return None
        return share(
            [holds(o, label) for o, label in looked],
            [family_of(o.item_id, label) for o, label in looked],
            texts=None if texts is None else [texts[o.item_id] for o, _ in looked],
            seed=seed,
        )

    escalated = judged(lambda o, label: o.escalated, lambda label: True)
    assert escalated is not None  # there are outcomes
    latencies = [o.latency_ms for o in outcomes]
    return Scores(
        strategy=strategy,
        n=len(outcomes),
        shares={m.name: judged(m.of, m.among) for m in measures},
        escalated=escalated,
        reasons=Counter(name for o in outcomes for name in {r.rule for r in o.reasons}),
        failed=sum(o.decision is None for o in outcomes),
        cost_usd=sum(o.cost_usd for o in outcomes),
        latency_mean_ms=float(np.mean(latencies)),
        latency_p50_ms=float(np.percentile(latencies, 50)),
        latency_p95_ms=float(np.percentile(latencies, 95)),
    )


def family_of(item_id: str, label: Any) -> str:
    """The scenario that a ticket belongs to: its label's, or the ticket alone."""
    return str(getattr(label, "family", "") or item_id)


def confusion(outcomes: Sequence[Outcome[Any]], labels: Mapping[str, Any], field: str) -> Counter[tuple[str, str]]:
    """How often the key says the first and the strategy the second, for one field; a ticket without a decision says "(none)"."""
    return Counter(
        (str(getattr(labels[o.item_id], field)), str(getattr(o.decision, field, "(none)")) if o.decision else "(none)")
        for o in outcomes
    )


def break_even_escalation(cheap: Scores, strong: Scores) -> float:
    """The escalation rate at which a cascade costs as much as the strong model alone: above it, a cascade cannot save anything.

    A cascade pays the cheap model for every ticket and the strong one for the share e that goes up: cheap + e x strong = strong.
    """
    return 1 - cheap.cost_per_1000_usd / strong.cost_per_1000_usd if strong.cost_usd else 0.0


def cost_at_equal_agreement(scores: Scores, cheap: Scores, strong: Scores, measure: str = "joint") -> float | None:
    """USD per 1,000 of sending tickets up at random until the agreement is as good: what a strategy has to undercut.

    Random escalation lies on the line from cheap-only to (cheap and strong for every ticket). None: the agreement lies outside
    what such a mix reaches, or the strong model is not ahead.
    """
    low, high, wanted = (s.shares[measure] for s in (cheap, strong, scores))
    if low is None or high is None or wanted is None or not low.value < high.value:
        return None
    up = (wanted.value - low.value) / (high.value - low.value)
    return cheap.cost_per_1000_usd + up * strong.cost_per_1000_usd if 0 <= up <= 1 else None


def auroc(score: Sequence[float], positive: Sequence[bool]) -> float:
    """The chance that a positive case has a higher score than a negative one, ties counting half (Mann & Whitney, 1947).

    Raises:
        ValueError: there are only positive or only negative cases.
    """
    values, truth = np.asarray(score, dtype=float), np.asarray(positive, dtype=bool)
    high, low = values[truth], values[~truth]
    if not len(high) or not len(low):
        raise ValueError("AUROC needs both right and wrong cases")
    wins = (high[:, None] > low[None, :]).sum() + 0.5 * (high[:, None] == low[None, :]).sum()
    return float(wins / (len(high) * len(low)))
