"""When an answer is not good enough to stop at: small rules that combine with `|` and `&`, each giving its reasons.

    escalate_when = confidence_below(0.7) | stakes() | invalid_output()
    escalate_when.reasons(attempt)      # () means: stay

Write your own with `@rule`: any function from an Attempt to a detail (or None) is a rule.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import CodeType
from typing import Any

from workshop_lib.bedrock.errors import InvalidOutput
from workshop_lib.cascade.attempt import Attempt, Reason
from workshop_lib.cascade.confidence import Judge, Source, answer_features, text_of

AnyAttempt = Attempt[Any]


class Rule(ABC):
    """Looks at one attempt and says why it should go up a tier."""

    name = "rule"

    @property
    def identity(self) -> str:
        """The name, and where that does not say it all, what tells this rule from another of the same name."""
        return self.name

    @abstractmethod
    def reasons(self, attempt: AnyAttempt) -> tuple[Reason, ...]:
        """Every reason to escalate; empty: stay."""

    def __call__(self, attempt: AnyAttempt) -> Reason | None:
        """The first reason, or None."""
        return next(iter(self.reasons(attempt)), None)

    def __or__(self, other: Rule) -> Rule:
        return _AnyOf(self, other)

    def __and__(self, other: Rule) -> Rule:
        return _AllOf(self, other)

    def __repr__(self) -> str:
        return self.name


class _AnyOf(Rule):
    def __init__(self, left: Rule, right: Rule) -> None:
        self.name, self._both = f"({left!r} | {right!r})", (left, right)

    @property
    def identity(self) -> str:
        return f"({self._both[0].identity} | {self._both[1].identity})"

    def reasons(self, attempt: AnyAttempt) -> tuple[Reason, ...]:
        found = [reason for rule in self._both for reason in rule.reasons(attempt)]
        return tuple(dict.fromkeys(found))


class _AllOf(Rule):
    def __init__(self, left: Rule, right: Rule) -> None:
        self.name, self._both = f"({left!r} & {right!r})", (left, right)

    @property
    def identity(self) -> str:
        return f"({self._both[0].identity} & {self._both[1].identity})"

    def reasons(self, attempt: AnyAttempt) -> tuple[Reason, ...]:
        left, right = (rule.reasons(attempt) for rule in self._both)
        return tuple(dict.fromkeys(left + right)) if left and right else ()


class _Function(Rule):
    def __init__(
        self, name: str, test: Callable[[AnyAttempt], str | bool | None], reason: str, *, identity: str = ""
    ) -> None:
        self.name, self._test, self._reason, self._identity = name, test, reason, identity or name

    @property
    def identity(self) -> str:
        return self._identity

    def reasons(self, attempt: AnyAttempt) -> tuple[Reason, ...]:
        found = self._test(attempt)
        if not found:
            return ()
        return (Reason(self._reason, found if isinstance(found, str) else ""),)


def rule(test: Callable[[AnyAttempt], str | bool | None]) -> Rule:
    """Make your own out of a function that returns a detail (or True) to escalate and None (or False) to stay."""
    name = test.__name__
    return _Function(name, test, name, identity=f"{name} with code {code_hash(test)}")


def confidence_below(
    threshold: float, calibrator: Callable[[float], float] | None = None, *, source: Source | None = None
) -> Rule:
    """Escalate when the confidence is strictly below `threshold` (0.70 stays at 0.7). Without a confidence it stays silent.

    Args:
        threshold: within 0..1; just above 1 sends up everything that has a confidence.
        calibrator: makes the probability of being right out of a confidence (see `calibration`); the threshold is then one of it.
        source: where the confidence comes from (see `confidence`); None: votes where there was a vote, else what the model states.

    Raises:
        ValueError: the threshold is not within 0..1.
    """
    if not 0 <= threshold < 1.001:
        raise ValueError(f"a confidence threshold lies within 0..1, not at {threshold}")

    def test(attempt: AnyAttempt) -> str | None:
        c = attempt.confidence if source is None else source(attempt)
        if c is not None and calibrator is not None:
            c = calibrator(c)
        return f"confidence {c:.2f} < {threshold:g}" if c is not None and c < threshold else None

    name, identity = f"confidence_below({threshold:g})", f"confidence_below({threshold!r})"
    if calibrator is not None:
        name = f"confidence_below({threshold:g}, calibrated)"
        identity += f" calibrated by {hashlib.sha256(_lasting(calibrator).encode()).hexdigest()[:8]}"
    if source is not None:
        called = getattr(source, "__name__", type(source).__name__)
        name = f"{name[:-1]}, {called})"
        identity += f" of {getattr(source, 'identity', '') or f'{called} with code {code_hash(source)}'}"
    return _Function(name, test, "low_confidence", identity=identity)


def gain_of(
    router: Judge, threshold: float, *, features: Callable[[AnyAttempt], dict[str, str | float]] = answer_features
) -> Rule:
    """Escalate where a router that has seen the cheap answer expects the strong one to be right more often, by `threshold` or more.

    A low confidence alone also sends up what neither model can answer, and pays for nothing there.

    Args:
        router: a `LearnedRouter`, fitted with the same features.
        threshold: of P(strong right) - P(cheap right), within -1..1.
        features: of an attempt.
    """

    def test(attempt: AnyAttempt) -> str | None:
        if attempt.decision is None:
            return None
        gain = float(router.score([text_of(attempt)], [features(attempt)])[0])
        return f"expected gain {gain:.2f} >= {threshold:g}" if gain >= threshold else None

    identity = f"gain_of({router.identity}, {threshold!r}) from {code_hash(features)}"
    return _Function(f"gain_of(router, {threshold:g})", test, "expected_gain", identity=identity)


def invalid_output() -> Rule:
    """Escalate when the tier answered in no usable form, even after its repair turn."""

    def test(attempt: AnyAttempt) -> str | None:
        return attempt.error.message if isinstance(attempt.error, InvalidOutput) else None

    return _Function("invalid_output()", test, "invalid_output")


class _Stakes(Rule):
    name = "stakes()"

    def reasons(self, attempt: AnyAttempt) -> tuple[Reason, ...]:
        if attempt.decision is None:
            return ()
        return tuple(Reason(name) for name in attempt.task.stakes(attempt.decision))


def stakes() -> Rule:
    """Escalate what the task says must not be decided by this tier alone (triage: urgent priority, needs_human)."""
    return _Stakes()


def field_in(field: str, *values: str) -> Rule:
    """Escalate when a field of the decision has one of these values, e.g. a category of `abuse`."""

    def test(attempt: AnyAttempt) -> str | None:
        value = getattr(attempt.decision, field, None)
        return f"{field} is {value}" if value is not None and str(value) in values else None

    return _Function(f"field_in({field}: {', '.join(values)})", test, f"{field}_in")


def always() -> Rule:
    """Escalate everything: the dear end of the scale."""
    return _Function("always()", lambda attempt: True, "always")


def never() -> Rule:
    """Escalate nothing but failures: the cheap end of the scale."""
    return _Function("never()", lambda attempt: False, "never")


def code_hash(function: Callable[..., Any]) -> str:
    """A short hash of what a function does: its code, its constants, its defaults and what it closes over.

    Equal for the same source on the same Python version, in every process; a rewritten function differs, whatever its name.
    """
    code = getattr(function, "__code__", None)
    closed = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    seen = _lasting([code or type(function).__name__, closed, getattr(function, "__defaults__", None)])
    return hashlib.sha256(seen.encode()).hexdigest()[:8]


def _lasting(value: object) -> str:
    """A repr that is the same in every process: no addresses, no order of a set."""
    if isinstance(value, CodeType):
        return value.co_code.hex() + repr(value.co_names) + _lasting(value.co_consts)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_lasting, value))}]"
    if isinstance(value, set | frozenset):
        return f"[{', '.join(sorted(map(_lasting, value)))}]"
    if callable(value) and hasattr(value, "__code__"):
        return code_hash(value)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
