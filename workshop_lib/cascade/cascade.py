"""Who answers: the first tier whose answer no rule objects to. Flags that any tier raised stay raised.

cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=confidence_below(0.7) | stakes() | invalid_output())
outcome = cascade.run(ticket)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from workshop_lib.bedrock.client import default_client
from workshop_lib.bedrock.errors import WorkshopError
from workshop_lib.cascade.attempt import Attempt, Converses, Event, Outcome, Reason, Tier, attempt
from workshop_lib.cascade.rules import Rule, code_hash, never
from workshop_lib.triage.task import TRIAGE, Task

D = TypeVar("D", bound=BaseModel)


class Cascade(Generic[D]):
    """Tiers from cheap to strong and the rule that sends an item up. Holds no state between items: share it between threads."""

    def __init__(
        self,
        tiers: Sequence[Tier],
        *,
        escalate_when: Rule | None = None,
        task: Task[D] = TRIAGE,  # type: ignore[assignment]  # the default makes D Decision
        client: Converses | None = None,
    ) -> None:
        """
        Args:
            tiers: one or more, from cheap to strong; names must differ.
            escalate_when: asked after every tier but the last; None: only failures go up.
            task: what is asked; default: ticket triage.
            client: who calls the models; None: the client of the workshop opened last.

        Raises:
            ValueError: no tiers, or two of one name.
            TypeError: `escalate_when` is not a rule.
            ConfigurationError: no client was given and no workshop is open.
        """
        names = [getattr(tier, "name", f"{tier!r} (not a Tier)") for tier in tiers]
        if not tiers or len(set(names)) < len(names):
            raise ValueError(f"a cascade needs one or more tiers of different names, not {names}")
        if not isinstance(escalate_when, Rule | None):
            raise TypeError(
                f"escalate_when is {escalate_when!r}, not a rule: write stakes() with brackets, or @rule above your function"
            )
        self.tiers, self.task = tuple(tiers), task
        self.escalate_when = escalate_when or never()
        self.client: Converses = client if client is not None else default_client()

    def run(self, item: Any) -> Outcome[D]:
        """One item's outcome. A failing tier is recorded in it; look at `.decision`, `.degraded` and `.error`.

        Raises:
            UnknownModel: a tier names no model of the catalogue.
        """
        for event in self.stream(item):
            if event.outcome is not None:
                return event.outcome
        raise AssertionError("a stream ends with an outcome")

    def stream(
        self,
        item: Any,
        *,
        attempts: Sequence[Attempt[D]] = (),
        reasons: Sequence[Reason] = (),
        ask: Callable[[Tier], Attempt[D]] | None = None,
    ) -> Iterator[Event[D]]:
        """The same, step by step: tier-started, tier-finished, escalated, ..., finished | failed.

        Args:
            item: what is asked about.
            attempts, reasons: of an earlier run that got no further; the run goes on with the tier above them.
            ask: gives a tier's attempt; None: calls its model. With recorded attempts a rule is tried out without a call.
        """
        item_id = id_of(item)
        attempts, reasons = list(attempts), list(reasons)
        for tier in self.tiers[len(attempts) :]:
            yield Event("tier-started", item_id, tier.name)
            attempts.append(ask(tier) if ask else attempt(item, tier, task=self.task, client=self.client))
            yield Event("tier-finished", item_id, tier.name, attempt=attempts[-1])
            if tier is self.tiers[-1]:
                break
            found = self.escalate_when.reasons(attempts[-1])
            if attempts[-1].decision is None and not found:
                found = (Reason("failed", _said(attempts[-1].error)),)
            if not found:
                break
            reasons.extend(found)
            yield Event("escalated", item_id, tier.name, reasons=found)
        outcome = conclude(item_id, self.task, attempts, reasons)
        yield Event("finished" if outcome.decision is not None else "failed", item_id, outcome=outcome)

    def using(self, client: Converses) -> Cascade[D]:
        """The same cascade with another client."""
        return Cascade(self.tiers, escalate_when=self.escalate_when, task=self.task, client=client)

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers depend on, part by part: two cascades of equal identity may share a store of results."""
        return {
            "task": self.task.name,
            "prompt": self.task.fingerprint,
            "stakes": code_hash(self.task.stakes),
            "tiers": [tier.settings for tier in self.tiers],
            "rule": self.escalate_when.identity,
        }


def conclude(item_id: str, task: Task[D], attempts: Sequence[Attempt[D]], reasons: Sequence[Reason] = ()) -> Outcome[D]:
    """What these attempts come to: the highest tier's decision, with the flags of lower ones kept."""
    decided = [(a.tier, a.decision) for a in attempts if a.decision is not None]
    flags: dict[str, str] = {}
    for name in task.flags:
        for tier, decision in decided:
            if getattr(decision, name):
                flags.setdefault(name, tier)
    final = decided[-1][1] if decided else None
    lowered = {name: True for name in flags if not getattr(final, name)}
    if final is not None and lowered:
        final = final.model_copy(update=lowered)
    return Outcome(item_id, final, tuple(attempts), tuple(reasons), flags)


def _said(error: WorkshopError | None) -> str:
    return "" if error is None else error.message


def id_of(item: Any) -> str:
    """The item's own `id`, or a short hash of its text."""
    own = getattr(item, "id", None)
    return str(own) if own else hashlib.sha256(str(item).encode("utf-8", "replace")).hexdigest()[:12]
