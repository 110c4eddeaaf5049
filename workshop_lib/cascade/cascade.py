"""Who answers: the first tier whose answer no rule objects to. Flags that any tier raised stay raised.

cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=confidence_below(0.7) | stakes() | invalid_output())
outcome = cascade.run(ticket)

A `route` reads the item before any model does and names the tiers that it may pass: it skips a cheap tier whose answer would not be
kept anyway, or stops at one whose answer needs no check.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from workshop_lib.bedrock.client import default_client
from workshop_lib.bedrock.errors import WorkshopError
from workshop_lib.cascade.attempt import Attempt, Converses, Event, Outcome, Reason, Tier, attempt
from workshop_lib.cascade.rules import Rule, code_hash, never
from workshop_lib.triage.task import TRIAGE, Task

D = TypeVar("D", bound=BaseModel)


@dataclass(frozen=True)
class Route:
    """Which tiers an item may pass, decided before any of them is asked."""

    tiers: tuple[str, ...]
    """Names in the cascade's order, one or more; ("strong",) skips the cheap one, ("cheap",) stops there whatever a rule says."""
    detail: str = ""
    """What was seen, e.g. "score 0.41 >= 0.3"."""


class Cascade(Generic[D]):
    """Tiers from cheap to strong and the rule that sends an item up. Holds no state between items: share it between threads."""

    def __init__(
        self,
        tiers: Sequence[Tier],
        *,
        escalate_when: Rule | None = None,
        route: Callable[[Any], Route | None] | None = None,
        start_early: Callable[[Any], bool] | None = None,
        task: Task[D] = TRIAGE,  # type: ignore[assignment]  # the default makes D Decision
        client: Converses | None = None,
    ) -> None:
        """
        Args:
            tiers: one or more, from cheap to strong; names must differ.
            escalate_when: asked after every tier but the last; None: only failures go up.
            route: asked once an item, before any tier; None, or None from it: all tiers.
            start_early: asked once an item; True asks the last tier side by side with the first. It saves the wait of those that go up,
                which then skip what lies between, and it pays the last tier for those that do not.
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
        self.route, self.start_early = route, start_early
        self.client: Converses = client if client is not None else default_client()

    def run(self, item: Any) -> Outcome[D]:
        """One item's outcome. A failing tier is recorded in it; look at `.decision`, `.degraded` and `.error`.

        With `start_early` it waits for the bill of an unneeded call; `stream` gives the decision as soon as it stands.

        Raises:
            UnknownModel: a tier names no model of the catalogue.
            ValueError: the route names no tiers of this cascade.
        """
        for event in self.stream(item):
            if event.kind in ("finished", "failed") and event.outcome is not None:
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
        route = self._route_of(item)
        path = self._left(route, attempts)
        skips = _why_above(route, self.tiers)
        if skips is not None and skips not in reasons:
            reasons.insert(0, skips)
            if not attempts:
                yield Event("routed", item_id, path[0].name, reasons=(skips,))

        def asked(tier: Tier) -> Attempt[D]:
            found = ask(tier) if ask else attempt(item, tier, task=self.task, client=self.client)
            return found if found.item is not None else replace(found, item=item)

        with ExitStack() as stack:
            early: Future[Attempt[D]] | None = None
            if self.start_early is not None and len(path) > 1 and not attempts and self.start_early(item):
                last = path[-1]
                early = stack.enter_context(ThreadPoolExecutor(1, "early")).submit(asked, last)
                yield Event("tier-started", item_id, last.name)
                path = (path[0], last)
            for tier in path:
                awaited = early if tier is path[-1] else None
                if awaited is None:
                    yield Event("tier-started", item_id, tier.name)
                attempts.append(awaited.result() if awaited is not None else asked(tier))
                yield Event("tier-finished", item_id, tier.name, attempt=attempts[-1])
                if tier is path[-1]:
                    break
                found = self.escalate_when.reasons(attempts[-1])
                if attempts[-1].decision is None and not found:
                    found = (Reason("failed", _said(attempts[-1].error)),)
                if not found:
                    break
                reasons.extend(found)
                yield Event("escalated", item_id, tier.name, reasons=found)
            outcome = conclude(item_id, self.task, attempts, reasons)
            if early is not None and len(attempts) == 1:
                yield Event("decided", item_id, outcome=outcome)
                unneeded = early.result()
                yield Event("tier-finished", item_id, unneeded.tier, attempt=unneeded)
                outcome = replace(outcome, unneeded=unneeded)
            elif early is not None:
                outcome = replace(outcome, side_by_side=True)
        yield Event("finished" if outcome.decision is not None else "failed", item_id, outcome=outcome)

    def tiers_left(self, item: Any, attempts: Sequence[Attempt[Any]] = ()) -> tuple[Tier, ...]:
        """The tiers that may still be asked about an item, after these attempts.

        Raises:
            ValueError: the route names no tiers of this cascade.
        """
        return self._left(self._route_of(item), attempts)

    def _route_of(self, item: Any) -> Route | None:
        route = None if self.route is None else self.route(item)
        if route is None:
            return None
        names = [tier.name for tier in self.tiers]
        if (
            not isinstance(route, Route)
            or [name for name in names if name in route.tiers] != list(route.tiers)
            or not route.tiers
        ):
            raise ValueError(
                f"the route of {id_of(item)} is {route!r}: give Route(...) of one or more of {names}, in this order"
            )
        return route

    def _left(self, route: Route | None, attempts: Sequence[Attempt[Any]]) -> tuple[Tier, ...]:
        names = [tier.name for tier in self.tiers]
        after = names.index(attempts[-1].tier) + 1 if attempts and attempts[-1].tier in names else len(attempts)
        return tuple(tier for tier in self.tiers[after:] if route is None or tier.name in route.tiers)

    def using(self, client: Converses) -> Cascade[D]:
        """The same cascade with another client."""
        return Cascade(
            self.tiers,
            escalate_when=self.escalate_when,
            route=self.route,
            start_early=self.start_early,
            task=self.task,
            client=client,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers depend on, part by part: two cascades of equal identity may share a store of results."""
        return {
            "task": self.task.name,
            "prompt": self.task.fingerprint,
            "stakes": code_hash(self.task.stakes),
            "tiers": [tier.settings for tier in self.tiers],
            "rule": self.escalate_when.identity,
            **({} if self.route is None else {"route": route_identity(self.route)}),
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


def route_identity(route: Callable[[Any], Route | None]) -> str:
    """What tells a route from another one: its own `identity` where it has one, else its code."""
    return str(getattr(route, "identity", "")) or f"function with code {code_hash(route)}"


def _why_above(route: Route | None, tiers: Sequence[Tier]) -> Reason | None:
    """Why an item begins above the first tier; None: it does not."""
    if route is None or route.tiers[0] == tiers[0].name:
        return None
    return Reason("routed", route.detail)


def _said(error: WorkshopError | None) -> str:
    return "" if error is None else error.message


def id_of(item: Any) -> str:
    """The item's own `id`, or a short hash of its text."""
    own = getattr(item, "id", None)
    return str(own) if own else hashlib.sha256(str(item).encode("utf-8", "replace")).hexdigest()[:12]
