"""What the agent came to: one model's attempt, the answer to the customer, every call that was paid for, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.shop.classifier import Classification
from workshop_lib.shop.questions import Complexity, Question

CANNOT = re.compile(
    r"\b(i|we) (can ?not|can't|could not|couldn't|am not able|are not able|am unable|are unable|do not know|don't know|"
    r"do not have|don't have|am not sure|did not find|didn't find)\b|\b(no|not enough) information\b|\bunable to\b",
    re.IGNORECASE,
)
"""Words of an answer that gives up, in English; another language's go unseen."""
FORM = re.compile(r"\W*(json)?\s*\{.*\}\W*", re.DOTALL)
"""A tool call that was written as text: some models do that, and nothing is looked up."""
FIGURE = re.compile(r"\d")
ASK_BACK = "There was nothing in your message. What would you like to know?"
TOO_LONG = "Your message is too long for me to read. Please ask again in a few sentences."
SORRY = "Something went wrong on our side, so I have no answer for you. Please try again in a minute."
UNFINISHED = "I could not finish this in one go. Please ask again with fewer questions at once."


@dataclass(frozen=True)
class Call:
    """One call of a model, answered or failed."""

    purpose: Literal["classifier", "answer"]
    tier: str
    """classifier, cheap or strong."""
    model: str
    """Catalogue key."""
    usage: Usage = field(default_factory=Usage)
    cost_usd: float = 0.0
    """USD, all four counters priced by the catalogue."""
    latency_ms: float = 0.0
    """What the service measured; of a failed call, what was waited."""
    stop_reason: str = ""
    error: str = ""
    """Class of the error and its message, if it failed after all retries."""
    retryable: bool | None = None
    maybe_billed: bool = False
    """Whether it failed in a way after which the service may have billed it all the same."""


@dataclass(frozen=True)
class ToolCall:
    """One look-up."""

    name: str
    arguments: Mapping[str, Any]
    ok: bool
    result: str = field(default="", repr=False)
    """What the model was handed; of a failure, the error."""


@dataclass(frozen=True)
class AgentAttempt:
    """One model's attempt at a message."""

    question: str
    """The customer's text; it is untrusted."""
    tier: str
    model: str
    text: str
    calls: tuple[Call, ...] = ()
    tools_used: tuple[ToolCall, ...] = ()
    stop_reason: str = ""
    """end_turn; max_tokens; limit_turns, limit_usd or limit_seconds where the loop was ended; guardrail_intervened; error."""
    error: str = ""

    @property
    def truncated(self) -> bool:
        """Whether the answer was cut off."""
        return self.stop_reason == "max_tokens"

    @property
    def finished(self) -> bool:
        """Whether the model came to an answer: cut off and weak ones included, failures and ended loops not."""
        return not self.error and not self.stop_reason.startswith("limit_")

    @property
    def tool_errors(self) -> tuple[str, ...]:
        """Names of the tools that failed at their last call: one that was corrected does not count."""
        last = {used.name: used.ok for used in self.tools_used}
        return tuple(name for name, ok in last.items() if not ok)


Check = Callable[[AgentAttempt], str | None]
"""Why an answer should not stand; None: it may."""


def weak(attempt: AgentAttempt) -> str | None:
    """The check of the cascade: failed, cut off, ended by a limit, a look-up that failed or was
    written as text, figures without a look-up, or giving up.
    """
    if attempt.error:
        return "error"
    if attempt.truncated:
        return "truncated"
    if attempt.stop_reason != "end_turn":
        return attempt.stop_reason
    if attempt.tool_errors:
        return "tool error"
    if FORM.fullmatch(attempt.text):
        return "a form and no answer"
    if not any(used.ok for used in attempt.tools_used) and FIGURE.search(attempt.text):
        return "figures without a look-up"
    return "gives up" if CANNOT.search(attempt.text) else None


@dataclass(frozen=True)
class Answer:
    """The answer to one message, and its whole bill."""

    question: str
    text: str
    tier: str | None
    """cheap or strong: whose text it is; None: no model was asked."""
    model: str | None
    """Catalogue key."""
    route: str
    """Name of the router, always-cheap, always-strong or cascade."""
    label: Complexity | None = None
    """What the router said; None: there was no router, or the message was refused."""
    fallback: str | None = None
    """Why the label is the safe one (see `Classification`); None: the router has decided."""
    fallback_detail: str = ""
    escalated: str | None = None
    """Why the cheap answer was not taken, in a cascade; None: it was, or there was no cascade."""
    tools_used: tuple[ToolCall, ...] = ()
    """Of the attempt whose text it is."""
    calls: tuple[Call, ...] = ()
    """Every call, in order: the classifier's, and of both tiers in a cascade."""
    stop_reason: str = ""
    truncated: bool = False
    error: str = ""
    wall_ms: float = 0.0
    """What the caller waited."""
    question_id: str = ""
    """Of the answer key; "": there is none."""
    missing: tuple[tuple[str, ...], ...] = ()
    """Facts of the key that the text does not say."""
    tools_missing: tuple[str, ...] = ()
    """Tools of the key that were not called with success."""
    tools_extra: tuple[str, ...] = ()
    """Tools that were called although the key needs none: a greeting answered with a price list."""

    @property
    def cost_usd(self) -> float:
        """USD of every call."""
        return sum(call.cost_usd for call in self.calls)

    @property
    def usage(self) -> Usage:
        """Tokens of every call; price them per call, not in sum."""
        return sum((call.usage for call in self.calls), Usage())

    @property
    def latency_ms(self) -> float:
        """Model time of every call, one after the other; waiting for failed ones included."""
        return sum(call.latency_ms for call in self.calls)

    @property
    def router_cost_usd(self) -> float:
        """USD of the classifier's part."""
        return sum(call.cost_usd for call in self.calls if call.purpose == "classifier")

    @property
    def router_latency_ms(self) -> float:
        """Model time of the classifier's part."""
        return sum(call.latency_ms for call in self.calls if call.purpose == "classifier")

    @property
    def cold(self) -> bool:
        """Whether a call wrote to the prompt cache: the next one will be cheaper."""
        return any(call.usage.cache_write_tokens for call in self.calls)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with it, for people: an error, a cut, a limit, facts that are missing."""
        found = [f"error: {self.error}"] if self.error else []
        found += [f"{call.tier} failed: {call.error}" for call in self.calls if call.error and call.error != self.error]
        found += ["truncated"] if self.truncated else []
        found += [f"ended by {self.stop_reason}"] if self.stop_reason.startswith("limit_") else []
        found += ["a form and no answer"] if FORM.fullmatch(self.text) else []
        found += [f"missing: {fact[0]}" for fact in self.missing]
        found += ["a failed call may have been billed"] if any(call.maybe_billed for call in self.calls) else []
        return tuple(found)

    @property
    def right(self) -> bool | None:
        """Whether it says all facts of the key, called its tools (none where it has none) and came to an end; None: there is no key."""
        if not self.question_id:
            return None
        wrong = self.missing or self.tools_missing or self.tools_extra or self.error
        return not wrong and self.stop_reason == "end_turn"


def call_of(said: Classification) -> tuple[Call, ...]:
    """The classifier's call, for the bill; empty if no model was asked."""
    if said.model is None:
        return ()
    failed = f"{said.fallback}: {said.detail}" if said.reply is None else ""
    stop = said.reply.stop_reason if said.reply is not None else "error"
    return (
        Call(
            "classifier", "classifier", said.model, said.usage, said.cost_usd, said.latency_ms, stop, failed,
            said.retryable, said.maybe_billed,
        ),
    )  # fmt: skip


def judged(attempt: AgentAttempt, key: Question | None) -> dict[str, Any]:
    """The fields of an `Answer` that come from its answer key."""
    if key is None:
        return {}
    called = {used.name for used in attempt.tools_used if used.ok}
    return {
        "question_id": key.id,
        "missing": key.missing_facts(attempt.text),
        "tools_missing": tuple(tool for tool in key.tools if tool not in called),
        "tools_extra": () if key.tools else tuple(sorted({used.name for used in attempt.tools_used})),
    }
