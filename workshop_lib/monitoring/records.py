"""What is noted of each ticket for a team's figures: one record of names from short lists and numbers, no id and no text.

record_of(handled, strategy="cascade")     # or of an Outcome
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from workshop_lib.cascade.attempt import Attempt, Outcome, ballot
from workshop_lib.operations.handled import Disposition, Handled, handled

BUCKETS = 20
"""Of a confidence: steps of 0.05, named by their lower end."""
NONE, OTHER = "none", "other"
Path = Literal["no model", "first tier", "went up, alone", "went up, agreed", "went up, changed", "went up, failed"]
"""How far a ticket came; alone: a route sent it past the tiers below. Tiers can be compared only where both were asked, and those
tickets are not like the rest."""


@dataclass(frozen=True)
class Record:
    """One ticket, as metrics know it. Every text is a name from a short list: it may be a dimension."""

    at: float
    """Wall clock, seconds since 1970: for the log only. Nothing is ordered or measured by it, since it may be set back."""
    strategy: str
    tier: str
    """Whose decision was taken; "none" without one."""
    disposition: Disposition
    why: str = NONE
    """Why it did not go as usual: "blocked", "strong throttled", ..."""
    path: Path = "first tier"
    reasons: tuple[str, ...] = ()
    """Names of the rules that sent it up."""
    category: str = NONE
    priority: str = NONE
    confidence: str = NONE
    """Of the first tier that was asked, as the lower end of its step of 0.05: "0.85" is 0.85 to 0.90."""
    failed: bool = False
    """Models were asked and none gave a decision, and no guardrail withheld one."""
    degraded: bool = False
    """A higher tier failed, and a lower one's decision stands."""
    cost_usd: float = 0.0
    """Of everything: models and guardrail."""
    latency_ms: float = 0.0
    """Until the decision stood: measured by a monotonic clock where it was given, else the models' own time."""
    retries: int = 0
    """HTTP requests beyond one a reply."""
    interventions: tuple[str, ...] = ()
    """Of a guardrail, by stage and action: "before: blocked", "after: masked"."""
    overridden: bool | None = None
    """Whether a person decided otherwise; None: nobody looked."""

    @property
    def escalated(self) -> bool:
        """Whether it went above the first tier, or began there."""
        return self.path.startswith("went up")


def record_of(
    found: Handled | Outcome[Any],
    *,
    strategy: str,
    elapsed_ms: float | None = None,
    overridden: bool | None = None,
    at: float | None = None,
) -> Record:
    """The record of one ticket.

    Args:
        found: what became of it.
        strategy: how your way of answering is called, e.g. "cascade 0.7".
        elapsed_ms: what the ticket took by a monotonic clock; None: the models' own time (simulated at the local door).
        overridden: whether a person decided otherwise; None: nobody looked.
        at: seconds since 1970; None: now.
    """
    record = found if isinstance(found, Handled) else handled(found)
    outcome = record.outcome
    decision = None if outcome is None else outcome.decision
    closed: Mapping[str, Any] = {} if decision is None else ballot(decision)
    attempts = () if outcome is None else outcome.attempts
    paid = attempts if outcome is None or outcome.unneeded is None else (*attempts, outcome.unneeded)
    return Record(
        at=time.time() if at is None else at,
        strategy=_name(strategy),
        tier=NONE if outcome is None or decision is None else _name(outcome.final.tier),
        disposition=record.disposition,
        why=_name(record.why),
        path=_path(outcome),
        reasons=() if outcome is None else tuple(dict.fromkeys(_name(reason.rule) for reason in outcome.reasons)),
        category=_listed(decision, closed, "category"),
        priority=_listed(decision, closed, "priority"),
        confidence=bucket(attempts[0].confidence) if attempts else NONE,
        failed=outcome is not None and decision is None and record.why != "blocked",
        degraded=outcome is not None and outcome.degraded,
        cost_usd=record.cost_usd,
        latency_ms=elapsed_ms if elapsed_ms is not None else 0.0 if outcome is None else outcome.latency_ms,
        retries=sum(max(0, a.http_attempts - max(1, len(a.replies))) for a in paid),
        interventions=tuple(dict.fromkeys(f"{i.stage}: {i.action}" for i in record.interventions)),
        overridden=overridden,
    )


def bucket(confidence: float | None) -> str:
    """A confidence as the lower end of its step of 0.05."""
    if confidence is None:
        return NONE
    step = min(BUCKETS - 1, int(confidence * BUCKETS + 1e-9))
    return f"{step / BUCKETS:.2f}"


def _path(outcome: Outcome[Any] | None) -> Path:
    if outcome is None:
        return "no model"
    if not outcome.escalated:
        return "first tier"
    if outcome.attempts[-1].decision is None:
        return "went up, failed"
    first, last = outcome.attempts[0], outcome.attempts[-1]
    if first.tier == last.tier:
        return "went up, alone"
    return "went up, changed" if _differ(first, last) else "went up, agreed"


def _differ(one: Attempt[Any], other: Attempt[Any]) -> bool:
    return one.decision is None or other.decision is None or ballot(one.decision) != ballot(other.decision)


def _listed(decision: Any, closed: Mapping[str, Any], field: str) -> str:
    """A field's value where it comes from a closed list; a free text is none of a metric's business."""
    return str(closed[field]) if isinstance(getattr(decision, field, None), Enum) and field in closed else NONE


def _name(text: str) -> str:
    """A short name as it is; anything that looks like a text becomes "other"."""
    if not text:
        return NONE
    return text if re.fullmatch(r"[\w .:%<>=/+-]{1,40}", text, re.ASCII) else OTHER
