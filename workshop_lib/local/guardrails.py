"""The local guardrail: blocked words and personal data found by pattern. Real checks on the text, wrong where patterns are wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from workshop_lib.local.wire import ServiceError

_PATTERNS: Mapping[str, re.Pattern[str]] = {
    "EMAIL": re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w"),
    "CREDIT_DEBIT_CARD_NUMBER": re.compile(r"\b(?:\d[ -]?){13,19}\b"),
    "AWS_ACCESS_KEY": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
}


@dataclass(frozen=True)
class Guardrail:
    """One version of one guardrail."""

    words: tuple[str, ...] = ()
    """Blocked wherever they stand as whole words."""
    mask: tuple[str, ...] = ("EMAIL",)
    """Kinds of personal data that are replaced by {KIND}."""
    block: tuple[str, ...] = ("CREDIT_DEBIT_CARD_NUMBER", "AWS_ACCESS_KEY")
    """Kinds of personal data that block the text."""
    blocked_message: str = "Sorry, this content cannot be processed."


@dataclass(frozen=True)
class Assessment:
    """What a guardrail found in some texts."""

    blocked: bool
    texts: tuple[str, ...]
    """The texts with personal data masked."""
    wire: dict[str, Any]
    """A GuardrailAssessment as Bedrock words it."""

    @property
    def action(self) -> Literal["NONE", "GUARDRAIL_INTERVENED"]:
        """Whether it stepped in, by blocking or by masking."""
        return "GUARDRAIL_INTERVENED" if len(self.wire) > 1 else "NONE"


class Guardrails:
    """The guardrails of the account, by (id, version)."""

    def __init__(self, known: Mapping[tuple[str, str], Guardrail]) -> None:
        self._known = dict(known)

    def get(self, identifier: str, version: str) -> Guardrail:
        """The guardrail of an id or ARN and a version.

        Raises:
            ServiceError: there is none.
        """
        found = self._known.get((identifier.rsplit("/", 1)[-1], version))
        if found is None:
            raise ServiceError(
                "ResourceNotFoundException",
                "The guardrail identifier or version provided in the request does not exist.",
            )
        return found


def assess(guardrail: Guardrail, texts: Sequence[str]) -> Assessment:
    """Look through some texts, all as one content."""
    words = [w for w in guardrail.words if any(re.search(rf"\b{re.escape(w)}\b", t, re.I) for t in texts)]
    entities: list[dict[str, Any]] = []
    masked = list(texts)
    for kind in (*guardrail.block, *guardrail.mask):
        action = "BLOCKED" if kind in guardrail.block else "ANONYMIZED"
        for i, text in enumerate(masked):
            hits = [m[0] for m in _PATTERNS[kind].finditer(text) if kind != "CREDIT_DEBIT_CARD_NUMBER" or _luhn(m[0])]
            entities += [{"match": hit, "type": kind, "action": action, "detected": True} for hit in hits]
            for hit in hits:
                masked[i] = masked[i].replace(hit, f"{{{kind}}}")
    length = sum(map(len, texts))
    units = -(-length // 1000)  # guardrails are billed by text units of up to 1,000 characters
    wire: dict[str, Any] = {
        "invocationMetrics": {
            "guardrailProcessingLatency": 80,
            "usage": usage_units(units),
            "guardrailCoverage": {"textCharacters": {"guarded": length, "total": length}},
        }
    }
    if words:
        custom = [{"match": w, "action": "BLOCKED", "detected": True} for w in words]
        wire["wordPolicy"] = {"customWords": custom, "managedWordLists": []}
    if entities:
        wire["sensitiveInformationPolicy"] = {"piiEntities": entities, "regexes": []}
    blocked = bool(words) or any(e["action"] == "BLOCKED" for e in entities)
    return Assessment(blocked, tuple(masked), wire)


def usage_units(units: int) -> dict[str, int]:
    """The unit counters of an answer; only words and personal data are looked for."""
    return {
        "topicPolicyUnits": 0,
        "contentPolicyUnits": 0,
        "wordPolicyUnits": units,
        "sensitiveInformationPolicyUnits": units,
        "sensitiveInformationPolicyFreeUnits": 0,
        "contextualGroundingPolicyUnits": 0,
    }


def _luhn(text: str) -> bool:
    digits = [int(c) for c in reversed(text) if c.isdigit()]
    return sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)) % 10 == 0
