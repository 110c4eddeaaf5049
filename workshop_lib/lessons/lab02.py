"""What counts as right in lab 02, and the few parts that only this lab needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workshop_lib.bedrock.errors import ServiceFault
from workshop_lib.bedrock.replies import Reply
from workshop_lib.cascade.attempt import Attempt, Converses, Outcome
from workshop_lib.cascade.rules import Rule
from workshop_lib.display.theme import Html, show_table
from workshop_lib.evaluation.metrics import joint_agreement
from workshop_lib.lessons.checks import Exercise, NotAttemptedError
from workshop_lib.triage.datasets import Label
from workshop_lib.triage.schema import Category, Decision, Priority
from workshop_lib.triage.task import TRIAGE


class Unplugged:
    """A client on which one model does not answer: what an outage of that model looks like to a cascade."""

    def __init__(self, client: Converses, model: str) -> None:
        self._client, self._model = client, model

    def converse(self, model: str, messages: Any, **settings: Any) -> Reply:
        """As the client's, but one model always fails."""
        if model == self._model:
            raise ServiceFault(f"{model}: Bedrock is unable to process your request.", model=model, attempts=8)
        return self._client.converse(model, messages, **settings)


def at_threshold(threshold: float, outcomes: Sequence[Outcome[Any]], labels: Mapping[str, Label]) -> Html:
    """What `confidence_below(threshold)` alone would do with the cheap tier's answers."""
    cheap = [(o.attempts[0], labels[o.item_id]) for o in outcomes if o.attempts[0].decision is not None]
    wrong = [not joint_agreement(a.decision, label) for a, label in cheap]
    up = [a.confidence is not None and a.confidence < threshold for a, _ in cheap]
    caught = sum(u and w for u, w in zip(up, wrong, strict=True))
    share_up, share_caught = sum(up) / len(up), caught / max(1, sum(wrong))
    row = {
        "threshold": f"{threshold:.2f}",
        "sent up": f"{sum(up)} of {len(up)} ({share_up:.0%})",
        "wrong answers caught": f"{caught} of {sum(wrong)} ({share_caught:.0%})",
        "by sending up at random": f"{share_up:.0%} would be caught",
    }
    return show_table([row], caption="A rule earns its cost if it catches more than sending up at random would.")


def example(
    category: str = "billing", priority: str = "P3", *, confidence: float = 0.95, human: bool = False
) -> Attempt[Decision]:
    """An attempt to try a rule on."""
    decision = Decision(
        category=Category(category),
        priority=Priority(priority),
        confidence=confidence,
        reasoning="",
        needs_human=human or Priority(priority).is_urgent,
    )
    return Attempt("cheap", "example", TRIAGE, decision)


def _sends_up_other(answer: object) -> str | None:
    if not isinstance(answer, Rule):
        return f"sends_up_other is {type(answer).__name__}, not a rule: does @rule stand above the def?"
    other, billing = answer.reasons(example("other")), answer.reasons(example("billing"))
    if not other and not answer.reasons(example("abuse", "P0")):
        raise NotAttemptedError
    if not other:
        return "it stays silent on a ticket that the cheap model calls other"
    if billing:
        return "it also sends up a ticket that the cheap model calls billing"
    if answer.reasons(Attempt("cheap", "example", TRIAGE)):
        return "it fires on an attempt without a decision, which other rules are for"
    return None


def _unsure_and_urgent(answer: object) -> str | None:
    if not isinstance(answer, Rule):
        return f"unsure_and_urgent is {type(answer).__name__}, not a rule"
    cases = (
        ("a P1 at confidence 0.85", example("auth", "P1", confidence=0.85), True),
        ("a P1 at confidence 0.95", example("auth", "P1", confidence=0.95), False),
        ("a P3 at confidence 0.85", example("auth", "P3", confidence=0.85), False),
    )
    for words, attempt, wanted in cases:
        if bool(answer.reasons(attempt)) != wanted:
            return f"{words} {'stays' if wanted else 'goes up'}"
    return None


def _keep_flags(answer: Callable[[list[bool]], bool]) -> str | None:
    for flags in ([True, False], [False, True], [False, False], [False], [True, False, False]):
        given = answer(flags)
        if given is None:
            raise NotAttemptedError
        if given is not any(flags):
            return f"for the flags {flags}, from cheap to strong, your function says {given}"
    return None


EXERCISES = {
    "2.1": Exercise(
        _sends_up_other,
        (
            "A rule is a function of one attempt; @rule above the def makes it one.",
            "attempt.decision may be None (the model failed): ask for that first, then look at attempt.decision.category.",
            'Return a detail such as "the cheap model could not place it" to send up, and None to stay.',
        ),
        "a rule is one question about one attempt. The name of the function is what the counts will show.",
    ),
    "2.2": Exercise(
        _unsure_and_urgent,
        (
            "| means either, & means both.",
            'field_in("priority", "P0", "P1") fires on urgent tickets, confidence_below(0.9) on unsure ones.',
        ),
        "& is the cautious spender: both must object.",
    ),
    "2.3": Exercise(
        _keep_flags,
        ("A raised flag stays raised whatever a later tier says.", "In Python, any([...]) is True if one of them is."),
        "this one line is the difference between losing safety flags and keeping them.",
    ),
}
