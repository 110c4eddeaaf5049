"""What a guardrail said of some texts, in how many text units, and what they cost: ApplyGuardrail's answer as a value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Literal

Source = Literal["INPUT", "OUTPUT"]
THOUSAND = Decimal(1_000)
_POLICIES = {"wordPolicy": "word", "topicPolicy": "topic", "sensitiveInformationPolicy": "pii"}


@dataclass(frozen=True)
class GuardrailUnits:
    """Text units by policy; a unit is up to 1,000 characters. Adds up with `+` and `sum(..., GuardrailUnits())`."""

    content: int = 0
    topic: int = 0
    word: int = 0
    sensitive: int = 0

    def __add__(self, other: GuardrailUnits) -> GuardrailUnits:
        return GuardrailUnits(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(GuardrailUnits)))

    @classmethod
    def from_wire(cls, usage: Mapping[str, Any]) -> GuardrailUnits:
        """A GuardrailUsage object; absent counters are 0."""
        return cls(
            content=int(usage.get("contentPolicyUnits", 0)),
            topic=int(usage.get("topicPolicyUnits", 0)),
            word=int(usage.get("wordPolicyUnits", 0)),
            sensitive=int(usage.get("sensitiveInformationPolicyUnits", 0)),
        )


@dataclass(frozen=True)
class GuardrailPrice:
    """USD per 1,000 text units, one field a policy."""

    content: Decimal
    topic: Decimal
    word: Decimal
    sensitive: Decimal
    as_of: str = ""
    source: str = ""

    def cost(self, units: GuardrailUnits) -> Decimal:
        """Exact USD."""
        return (
            units.content * self.content
            + units.topic * self.topic
            + units.word * self.word
            + units.sensitive * self.sensitive
        ) / THOUSAND


@dataclass(frozen=True)
class Assessment:
    """What a guardrail came to for some texts."""

    action: Literal["none", "masked", "blocked"]
    texts: tuple[str, ...]
    """As they may go on: masked where it masks; none at all where it blocks."""
    policies: tuple[str, ...]
    """Which policies stepped in: word, topic, pii, prompt-attack, content (another content filter), grounding, reasoning."""
    units: GuardrailUnits
    cost_usd: float
    attempts: int = 1
    """HTTP requests sent for it."""


def policies_of(assessments: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of the policies that stepped in, each once, never what they matched (that may be a card number)."""
    return tuple(dict.fromkeys(name for name, action in _findings(assessments) if action != "NONE"))


def blocks(assessments: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any finding blocks; masking alone does not."""
    return any(action == "BLOCKED" for _, action in _findings(assessments))


def assessments_of(trace: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The assessments in a Converse trace: of what went in, and of what came out."""
    found = trace.get("guardrail", {})
    outputs = found.get("outputAssessments", {}).values()
    return list(found.get("inputAssessment", {}).values()), [each for several in outputs for each in several]


def units_of(assessments: Sequence[Mapping[str, Any]]) -> GuardrailUnits:
    """Text units of all assessments."""
    usages = (a.get("invocationMetrics", {}).get("usage", {}) for a in assessments)
    return sum(map(GuardrailUnits.from_wire, usages), GuardrailUnits())


def _findings(assessments: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(policy, action) of every finding; what it matched stays behind."""
    for assessment in assessments:
        for key, policy in assessment.items():
            if key.endswith("Policy"):
                for found in (f for several in policy.values() if isinstance(several, list) for f in several):
                    yield _name(key, found), str(found.get("action", "NONE"))


def _name(key: str, found: Mapping[str, Any]) -> str:
    if key == "contentPolicy":
        return "prompt-attack" if found.get("type") == "PROMPT_ATTACK" else "content"
    return _POLICIES.get(key) or ("grounding" if key.startswith("contextual") else "reasoning")
