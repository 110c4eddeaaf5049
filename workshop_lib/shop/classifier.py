"""Which work a customer's message takes, by asking a small model for one word: simple or complex.

found = classify("Do you price match?", bedrock)
found.label, found.fallback, found.cost_usd      # ("simple", None, 3.9e-05)

Whatever goes wrong ends at "complex", the capable model, with the reason written down. A message that no model need read (empty, or
far too long) gets no label and costs nothing.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from workshop_lib.bedrock import errors
from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.bedrock.replies import Reply
from workshop_lib.cascade.attempt import Converses
from workshop_lib.shop import prompts
from workshop_lib.shop.questions import LABELS, Complexity

SAFE: Complexity = "complex"
MAX_TOKENS = 10
"""Longest answer: a label takes one to three tokens."""
MAX_QUESTION = 8_000
"""Characters of a message. A customer's question is a fiftieth of that; an essay would be billed at every call of the agent."""
RETRYABLE = (
    errors.Throttled, errors.ServiceFault, errors.ModelTimeout, errors.ModelFailed, errors.StreamBroken, errors.Unreachable,
    errors.ReplyTimeout, errors.Conflict,
)  # fmt: skip
"""Failures that may be gone in a minute. All others stay until somebody changes something: rights, ids, quotas, the request."""
MAYBE_BILLED = (errors.ReplyTimeout, errors.StreamBroken, errors.ModelTimeout)
"""Failures after which the service may have counted tokens that nobody was told of."""


@dataclass(frozen=True)
class Classification:
    """What a router says about one message, and what saying it cost."""

    label: Complexity | None
    """None: the message was `refused`, or there was no router."""
    by: str
    """The router's name."""
    fallback: str | None = None
    """Why the label is the safe one and not the router's own, as a short name that can be counted: truncated, empty reply, both
    labels, negation, prose, blocked, or the class of an error; None: the router has decided."""
    detail: str = ""
    """What was seen: the reply, or the error's message."""
    retryable: bool | None = None
    """Of an error: whether a later try may succeed; None: there was none."""
    refused: str | None = None
    """empty, or too long."""
    model: str | None = None
    """Catalogue key of the model that was asked; None: none was."""
    reply: Reply | None = None
    latency_ms: float = 0.0
    """Model time of the reply; of a failed call, of a router without a model: what the caller waited."""
    maybe_billed: bool = False
    """Whether the failed call may have been billed all the same: such tokens are in nobody's count."""

    @property
    def cost_usd(self) -> float:
        """USD of the call; 0 without a reply."""
        return self.reply.cost_usd if self.reply is not None else 0.0

    @property
    def usage(self) -> Usage:
        """Tokens of the call."""
        return self.reply.usage if self.reply is not None else Usage()


Router = Callable[[str], Classification | str]
"""From a message to its label. One that gives just the label costs nothing."""


def classify(
    question: str,
    client: Converses,
    *,
    system: str | None = None,
    model: str = "classifier",
    max_tokens: int = MAX_TOKENS,
    clock: Callable[[], float] = time.perf_counter,
) -> Classification:
    """Ask for the label of one message. Failures are recorded, not raised.

    Args:
        question: the customer's text; it is untrusted.
        client: what answers.
        system: the prompt; None: `classifier_prompt()`.
        model: role or catalogue key.
        max_tokens: longest answer.
        clock: seconds; injected by tests.

    Raises:
        UnknownModel: there is no such role or key (a mistake in the program, not in the message).
    """
    by = "classifier"
    if (refused := why_refused(question)) is not None:
        return Classification(None, by, refused=refused)
    system = _prompt() if system is None else system
    started = clock()
    try:
        reply = client.converse(model, prompts.quoted(question), system=system, max_tokens=max_tokens, temperature=0.0)
    except errors.BedrockError as error:
        return Classification(
            SAFE,
            by,
            fallback=type(error).__name__,
            detail=error.message,
            retryable=isinstance(error, RETRYABLE),
            model=error.model or model,
            latency_ms=(clock() - started) * 1e3,
            maybe_billed=isinstance(error, MAYBE_BILLED),
        )
    label, why = parse_label(reply.text, reply.stop_reason)
    return Classification(
        label or SAFE,
        by,
        fallback=why,
        detail=reply.text[:200] if why else "",
        model=reply.model,
        reply=reply,
        latency_ms=reply.latency_ms,
    )


def llm_router(client: Converses, **options: Any) -> Router:
    """`classify` as a router; keywords as there.

    Raises:
        TypeError: the client cannot converse. Found only at the first question, it would be a fallback on every one of them.
    """
    if not callable(getattr(client, "converse", None)):
        raise TypeError(f"{type(client).__name__} has no converse: give a Bedrock, for example workshop.bedrock")
    return lambda question: classify(question, client, **options)


def parse_label(text: str, stop_reason: str = "end_turn") -> tuple[Complexity | None, str | None]:
    """The label of a reply, or why there is none. Case, white space and punctuation around the word do not matter; anything else does.

    Returns:
        (label, None), or (None, reason): a reply that merely contains a label, or denies one, is no label.
    """
    if stop_reason == "guardrail_intervened":
        return None, "blocked"
    if stop_reason == "max_tokens":
        return None, "truncated"
    plain = unicodedata.normalize("NFKC", text).casefold()
    word = re.sub(r"^[\W_]+|[\W_]+$", "", plain)
    if not word:
        return None, "empty reply"
    for label in LABELS:
        if word == label:
            return label, None
    held = [label for label in LABELS if label in word]
    if len(held) > 1:
        return None, "both labels"
    if held and re.search(r"\b(not|no|non|never|neither|hardly|isn.?t|nicht|kein)\b", word):
        return None, "negation"
    return None, "prose"


def decide(question: str, router: Router, name: str = "") -> Classification:
    """What a router says, whatever it does: one that raises, or gives no label, falls back as the classifier does."""
    if (refused := why_refused(question)) is not None:
        return Classification(None, name or _name(router), refused=refused)
    started = time.perf_counter()
    try:
        said = router(question)
    except Exception as error:  # a router is anybody's code, and its failure must not be the customer's
        return Classification(
            SAFE, name or _name(router), fallback=type(error).__name__, detail=str(error)[:200], retryable=False
        )
    if isinstance(said, Classification):
        lost = said.label is None and said.refused is None
        return replace(said, label=SAFE, fallback="no label") if lost else said
    waited = (time.perf_counter() - started) * 1e3
    for label in LABELS:
        if said == label:
            return Classification(label, name or _name(router), latency_ms=waited)
    return Classification(SAFE, name or _name(router), fallback="no label", detail=repr(said)[:200], latency_ms=waited)


def why_refused(question: str) -> str | None:
    """Why a message is answered without a model: "empty" or "too long"; None: it is not."""
    if not question.strip():
        return "empty"
    return "too long" if len(question) > MAX_QUESTION else None


def _prompt() -> str:
    return prompts.classifier_prompt()


def _name(router: Router) -> str:
    return str(getattr(router, "name", "") or getattr(router, "__name__", "") or type(router).__name__)
