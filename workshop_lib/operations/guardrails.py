"""The gate: what a guardrail lets through to a cascade and out of it, and what happens when the guardrail cannot be asked.

    gate = Gate(cascade, client=workshop.bedrock)
    for handled in handle_all(gate, tickets): ...

Gate or `guardrailConfig`? A guardrail in the settings rides on every model call by itself (`Bedrock` attaches it). It is paid for on each
of them, tier, vote and repair turn alike, and it does not look into tool calls: the answer of a forced tool passes unread (Amazon Bedrock
user guide, sensitive information filters). The gate asks once before any model and once about the answer's free text, tool call or not.
Measured at the local door, 30 workshop tickets, version 2 of its guardrail, two tiers: the gate costs USD 0.64 per 1,000 tickets, nine
times the cheap tier (0.07); with `guardrailConfig` as well it is 1.31, since the input is then paid for twice and once more for each
tier above. So: the gate where a cascade answers tickets; `guardrailConfig` where texts reach a model by other ways, or where a rule says that
no call may be without; both where that rule is worth its price. `Handled.guardrail_usd` counts both.

What a tracer keeps of texts (`keep_texts`) is written before the answer is checked: it holds masked tickets, but unmasked answers.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel

from workshop_lib.bedrock import errors
from workshop_lib.bedrock.client import Bedrock
from workshop_lib.bedrock.guardrails import Assessment, assessments_of, units_of
from workshop_lib.cascade.attempt import Attempt, Outcome
from workshop_lib.cascade.cascade import Cascade, id_of
from workshop_lib.operations.handled import Answering, Handled, Handles, Intervention, map_texts

UNAVAILABLE, REFUSED = "guardrail unavailable", "guardrail refused"
_REFUSALS = (
    errors.AccessDenied, errors.CredentialsError, errors.InvalidRequest, errors.ModelNotFound, errors.QuotaExceeded, errors.RegionError
)  # fmt: skip
"""What will not mend itself: no ticket goes on, since all would go on unchecked for as long as nobody looks."""


def enterprise_customer(item: Any) -> bool:
    """The default of what is risky without a guardrail. The tier moves no label; here it only says who gets a person instead of luck."""
    return getattr(item, "customer_tier", None) == "enterprise"


class Gate:
    """A guardrail around a way of handling tickets. Safe to share between threads."""

    def __init__(
        self,
        inner: Handles | Cascade[Any],
        *,
        client: Bedrock,
        risky: Callable[[Any], bool] = enterprise_customer,
        when_down: Literal["go-on", "human"] = "go-on",
        trial: bool = False,
    ) -> None:
        """
        Args:
            inner: what answers; a `Cascade` as it is, or e.g. a `BrownOut`.
            client: whose settings name the guardrail.
            risky: which items must not go on unchecked, known before any model has seen them.
            when_down: what becomes of the others while the guardrail is down.
            trial: True allows the version DRAFT, which changes under your feet.

        Raises:
            ConfigurationError: no guardrail is set, or it is DRAFT and this is no trial.
        """
        guardrail = client.settings.guardrail
        if guardrail is None:
            raise errors.ConfigurationError(
                "A gate needs a guardrail.", advice="Set BEDROCK_GUARDRAIL_ID and BEDROCK_GUARDRAIL_VERSION."
            )
        if guardrail["guardrailVersion"] == "DRAFT" and not trial:
            raise errors.ConfigurationError(
                f"The guardrail {guardrail['guardrailIdentifier']} is not pinned: its version is DRAFT.",
                advice="Publish a version and set BEDROCK_GUARDRAIL_VERSION to its number, or pass trial=True.",
            )
        self._inner: Handles = Answering(inner) if isinstance(inner, Cascade) else inner
        self._client, self._risky, self._when_down = client, risky, when_down
        self._under_way: defaultdict[str, list[_Seen]] = defaultdict(list)
        self._lock = threading.Lock()

    def handle(self, item: Any) -> Handled:
        """Check the item, let it be answered if it may be, check the answer.

        Raises:
            TypeError: the item is neither text nor of a kind whose texts can be found and replaced.
        """
        if not isinstance(item, str | BaseModel | dict | list) and not is_dataclass(item):
            raise TypeError(
                f"the gate cannot find the texts in a {type(item).__name__}: give text, a pydantic model, a dataclass or a dict"
            )
        seen, item, stopped = self._before(item)
        if stopped is not None:
            return stopped
        key = id_of(item)
        with self._lock:  # before it can be queued: another thread may drain it at once
            self._under_way[key].append(seen)
        found: Handled | None = None
        try:
            found = self._inner.handle(item)
        finally:
            if found is None or found.disposition != "queued":
                self._done(key, seen)
        return self._finish(seen, found)

    def drain(self) -> Iterator[Handled]:
        """What the inner way had queued, asked again and checked on its way out."""
        for found in self._inner.drain():
            with self._lock:
                known = self._under_way.get(found.item_id)
                seen = known[0] if known else _Seen(risky=True, unchecked=("before",))  # it was queued behind our back
            if found.disposition != "queued":
                self._done(found.item_id, seen)
            yield self._finish(seen, found)

    def _done(self, key: str, seen: _Seen) -> None:
        with self._lock:
            known = self._under_way.get(key, [])
            if seen in known:
                known.remove(seen)
            if not known:
                self._under_way.pop(key, None)

    def _before(self, item: Any) -> tuple[_Seen, Any, Handled | None]:
        """What was seen, the item as it may go on, and the record if it goes no further."""
        seen = _Seen(risky=self._risky(item))
        try:
            found = self._client.apply_guardrail(_texts(item), source="INPUT")
        except errors.BedrockError as error:
            seen = replace(seen, unchecked=("before",))
            why = self._stops(seen, error)
            return seen, item, None if why is None else self._record(seen, Handled(id_of(item), "human", why))
        seen = seen.plus(found, "before")
        if found.action == "blocked":
            return seen, item, self._record(seen, Handled(id_of(item), "human", "blocked"))
        if found.action == "masked":
            masked = iter(found.texts)
            own = id_of(item)
            item = map_texts(item, lambda _: next(masked))
            seen = replace(
                seen, item_id=own
            )  # an item without an id is called by a hash of its text, which has changed
        return seen, item, None

    def _finish(self, seen: _Seen, found: Handled) -> Handled:
        outcome = found.outcome
        if found.disposition == "queued" or outcome is None or all(a.decision is None for a in outcome.attempts):
            return self._record(seen, found)
        decided = [a.decision for a in outcome.attempts]
        try:
            checked = self._client.apply_guardrail(_texts([outcome.decision, *decided]), source="OUTPUT")
        except errors.BedrockError as error:
            seen = replace(seen, unchecked=(*seen.unchecked, "after"))
            why = self._stops(seen, error)
            return self._record(seen, found if why is None else replace(found, disposition="human", why=why))
        seen = seen.plus(checked, "after")
        record = self._record(seen, found)  # before the traces, which tell the cost, are dropped with what was said
        if checked.action == "blocked":
            return replace(record, disposition="human", why="blocked", outcome=_said_no_more(outcome, None))
        if checked.action == "masked":
            return replace(record, outcome=_said_no_more(outcome, iter(checked.texts)))
        return record

    def _stops(self, seen: _Seen, error: errors.BedrockError) -> str | None:
        """Why an unchecked item goes to a person; None: it goes on."""
        if isinstance(error, _REFUSALS):
            return REFUSED
        return UNAVAILABLE if seen.risky or self._when_down == "human" else None

    def _record(self, seen: _Seen, found: Handled) -> Handled:
        attached = 0.0 if found.outcome is None else self._attached_usd(found.outcome)
        return replace(
            found,
            item_id=seen.item_id or found.item_id,
            why=found.why or (UNAVAILABLE if seen.unchecked else ""),
            interventions=(*seen.interventions, *(i for i in found.interventions if i not in seen.interventions)),
            guardrail_usd=found.guardrail_usd + seen.cost_usd + attached,
            unchecked=seen.unchecked,
        )

    def _attached_usd(self, outcome: Outcome[Any]) -> float:
        """USD of the guardrail on the model calls, as far as their traces tell."""
        tries = outcome.attempts if outcome.unneeded is None else (*outcome.attempts, outcome.unneeded)
        found = (each for a in tries for r in a.replies for side in assessments_of(r.trace) for each in side)
        return float(self._client.catalogue.guardrail_price.cost(units_of(list(found))))


@dataclass(frozen=True)
class _Seen:
    """What the gate knows of an item that is under way."""

    risky: bool = False
    item_id: str = ""
    interventions: tuple[Intervention, ...] = ()
    cost_usd: float = 0.0
    unchecked: tuple[Literal["before", "after"], ...] = ()

    def plus(self, found: Assessment, stage: Literal["before", "after"]) -> _Seen:
        stepped_in = self.interventions
        if found.action != "none":
            stepped_in = (*stepped_in, Intervention(stage, found.action, found.policies))
        return replace(self, interventions=stepped_in, cost_usd=self.cost_usd + found.cost_usd)


def _texts(value: Any) -> list[str]:
    texts: list[str] = []
    map_texts(value, lambda text: texts.append(text) or text)  # type: ignore[func-returns-value]
    return texts


def _said_no_more(outcome: Outcome[Any], masked: Iterator[str] | None) -> Outcome[Any]:
    """The outcome with masked texts in its decisions, or without decisions; what the models said word for word is dropped."""

    def change(decision: Any) -> Any:
        return None if masked is None else map_texts(decision, lambda _: next(masked))

    def silent(attempt: Attempt[Any]) -> Attempt[Any]:
        replies = tuple(replace(r, message={"role": "assistant", "content": []}, trace={}) for r in attempt.replies)
        decision, error = change(attempt.decision), attempt.error
        if isinstance(error, errors.InvalidOutput) or (masked is None and error is None):
            error = errors.InvalidOutput("What the model said was withheld by a guardrail.")
        return replace(attempt, decision=decision, error=error, replies=replies)

    final = change(outcome.decision)
    attempts = tuple(silent(a) for a in outcome.attempts)
    unneeded = None if outcome.unneeded is None else silent(replace(outcome.unneeded, decision=None))
    return replace(outcome, decision=final, attempts=attempts, unneeded=unneeded)
