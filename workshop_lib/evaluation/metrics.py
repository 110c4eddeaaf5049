"""What a strategy's outcomes are worth: agreement with the answer key, recall of what matters, escalation, cost, latency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workshop_lib.cascade.attempt import Outcome
from workshop_lib.evaluation.statistics import Share, clustered_share, wilson
from workshop_lib.triage.datasets import Label
from workshop_lib.triage.schema import Decision


@dataclass(frozen=True)
class Scores:
    """One strategy on some tickets."""

    strategy: str
    n: int
    category: Share
    joint: Share
    """Category, priority and needs_human all as in the key. A ticket without a decision counts as wrong."""
    needs_human_recall: Share | None
    """Of the tickets that need a person, the share that was flagged; None: none does."""
    urgent_recall: Share | None
    """Of the P0 and P1 tickets, the share that was given P0 or P1."""
    escalated: Share
    reasons: Mapping[str, int]
    """How many tickets each rule sent up (a ticket may have several)."""
    failed: int
    cost_usd: float
    latency_p50_ms: float
    latency_p95_ms: float

    @property
    def cost_per_1000_usd(self) -> float:
        """USD for a thousand such tickets."""
        return 1_000 * self.cost_usd / self.n


def joint_agreement(decision: Decision | None, label: Label) -> bool:
    """Whether all three fields are as the key says."""
    return decision is not None and (decision.category, decision.priority, decision.needs_human) == (
        label.category,
        label.priority,
        label.needs_human,
    )


def category_agreement(decision: Decision | None, label: Label) -> bool:
    """Whether the category is as the key says."""
    return decision is not None and decision.category == label.category


def score(strategy: str, outcomes: Sequence[Outcome[Any]], labels: Mapping[str, Label]) -> Scores:
    """Score a strategy's outcomes against the answer key; intervals respect scenario families.

    Raises:
        ValueError: there are no outcomes.
        KeyError: a ticket has no label.
    """
    if not outcomes:
        raise ValueError(f"{strategy}: no outcomes to score")
    pairs = [(o, labels[o.item_id]) for o in outcomes]
    families = [label.family for _, label in pairs]
    latencies = [o.latency_ms for o in outcomes]
    return Scores(
        strategy=strategy,
        n=len(outcomes),
        category=clustered_share([category_agreement(o.decision, label) for o, label in pairs], families),
        joint=clustered_share([joint_agreement(o.decision, label) for o, label in pairs], families),
        needs_human_recall=_recall([(_flag(o), label.needs_human) for o, label in pairs]),
        urgent_recall=_recall([(_urgent(o), label.priority.is_urgent) for o, label in pairs]),
        escalated=wilson(sum(o.escalated for o in outcomes), len(outcomes)),
        reasons=Counter(name for o in outcomes for name in {r.rule for r in o.reasons}),
        failed=sum(o.decision is None for o in outcomes),
        cost_usd=sum(o.cost_usd for o in outcomes),
        latency_p50_ms=float(np.percentile(latencies, 50)),
        latency_p95_ms=float(np.percentile(latencies, 95)),
    )


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


def _recall(pairs: Sequence[tuple[bool, bool]]) -> Share | None:
    wanted = [found for found, truth in pairs if truth]
    return wilson(sum(wanted), len(wanted)) if wanted else None


def _flag(outcome: Outcome[Any]) -> bool:
    return outcome.decision is not None and bool(outcome.decision.needs_human)


def _urgent(outcome: Outcome[Any]) -> bool:
    return outcome.decision is not None and bool(outcome.decision.priority.is_urgent)
