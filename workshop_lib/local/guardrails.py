"""The local guardrail: words, denied topics, personal data and prompt attacks. Real checks on the text, wrong where they are wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from workshop_lib.local.prompt_attack import LEVELS, Confidence, attack_confidence
from workshop_lib.local.wire import ServiceError

if TYPE_CHECKING:
    from workshop_lib.embedding import Vectors

Embed = Callable[[Sequence[str]], "Vectors"]
_PATTERNS: Mapping[str, re.Pattern[str]] = {
    "EMAIL": re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w"),
    "INTERNATIONAL_BANK_ACCOUNT_NUMBER": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "CREDIT_DEBIT_CARD_NUMBER": re.compile(r"\b(?:\d[ -]?){12,18}\d\b"),
    "US_SOCIAL_SECURITY_NUMBER": re.compile(r"\b(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b"),
    "AWS_ACCESS_KEY": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "PHONE": re.compile(
        r"(?<![\w+])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){6,12}|\(\d{3}\) ?\d{3}[ .-]\d{4})(?!\w)"
    ),
}
"""Looked for in this order: what is found is replaced before the next kind is looked for."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Topic:
    """What must not be talked about, known by how near a sentence comes to its definition or to an example."""

    name: str
    definition: str
    examples: tuple[str, ...] = ()
    threshold: float = 0.55
    """Cosine of two MiniLM vectors from which a sentence counts."""


@dataclass(frozen=True)
class Guardrail:
    """One version of one guardrail."""

    words: tuple[str, ...] = ()
    """Blocked wherever they stand as whole words."""
    topics: tuple[Topic, ...] = ()
    mask: tuple[str, ...] = ("EMAIL",)
    """Kinds of personal data that are replaced by {KIND}."""
    block: tuple[str, ...] = ("CREDIT_DEBIT_CARD_NUMBER", "AWS_ACCESS_KEY")
    """Kinds of personal data that block the text."""
    prompt_attack: Confidence = "NONE"
    """Strength of the filter, on INPUT alone: HIGH blocks from LOW confidence up, LOW only what is HIGH, NONE does not look."""
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


def assess(guardrail: Guardrail, texts: Sequence[str], source: str = "INPUT", *, embed: Embed) -> Assessment:
    """Look through some texts, all as one content.

    Args:
        guardrail: what is looked for.
        texts: the content.
        source: INPUT or OUTPUT.
        embed: texts to unit vectors; called where a policy needs them.
    """
    words = [w for w in guardrail.words if any(re.search(rf"\b{re.escape(w)}\b", t, re.I) for t in texts)]
    topics = _denied(guardrail.topics, texts, embed)
    attack = _attack(guardrail.prompt_attack, texts, embed) if source == "INPUT" else None
    masked, entities = _personal_data(guardrail, texts)
    length = sum(map(len, texts))
    wire: dict[str, Any] = {
        "invocationMetrics": {
            "guardrailProcessingLatency": 80,
            "usage": _units(guardrail, source, -(-length // 1000)),  # billed by units of up to 1,000 characters
            "guardrailCoverage": {"textCharacters": {"guarded": length, "total": length}},
        }
    }
    if topics:
        found = [{"name": name, "type": "DENY", "action": "BLOCKED", "detected": True} for name in topics]
        wire["topicPolicy"] = {"topics": found}
    if attack is not None:
        strength = guardrail.prompt_attack
        wire["contentPolicy"] = {
            "filters": [
                {"type": "PROMPT_ATTACK", "confidence": attack, "filterStrength": strength, "action": "BLOCKED", "detected": True}
            ]
        }  # fmt: skip
    if words:
        custom = [{"match": w, "action": "BLOCKED", "detected": True} for w in words]
        wire["wordPolicy"] = {"customWords": custom, "managedWordLists": []}
    if entities:
        wire["sensitiveInformationPolicy"] = {"piiEntities": entities, "regexes": []}
    blocked = bool(words or topics or attack) or any(e["action"] == "BLOCKED" for e in entities)
    return Assessment(blocked, tuple(masked), wire)


def _denied(topics: Sequence[Topic], texts: Sequence[str], embed: Embed) -> list[str]:
    """Names of the topics that any sentence is about."""
    sentences = [s for text in texts for s in _SENTENCE.split(text) if len(s) > 8] if topics else []
    if not sentences:
        return []
    vectors = embed(sentences)
    known = {t.name: embed([t.definition, *t.examples]) for t in topics}
    return [t.name for t in topics if float((vectors @ known[t.name].T).max()) >= t.threshold]


def _attack(strength: Confidence, texts: Sequence[str], embed: Embed) -> Confidence | None:
    """How sure it is of an attack, where that is enough for the filter's strength."""
    if strength == "NONE":
        return None
    found = attack_confidence(texts, None if strength == "LOW" else embed)  # nothing below HIGH would be enough
    enough = found != "NONE" and LEVELS.index(found) + LEVELS.index(strength) >= len(LEVELS)
    return found if enough else None


def _personal_data(guardrail: Guardrail, texts: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """The texts with every hit replaced by its kind, and the hits as Bedrock words them."""
    masked, entities = list(texts), list[dict[str, Any]]()
    for kind, pattern in _PATTERNS.items():
        if kind not in guardrail.block and kind not in guardrail.mask:
            continue
        action = "BLOCKED" if kind in guardrail.block else "ANONYMIZED"
        for i, text in enumerate(masked):
            hits = [m[0] for m in pattern.finditer(text) if _CHECKS.get(kind, bool)(m[0])]
            entities += [{"match": hit, "type": kind, "action": action, "detected": True} for hit in hits]
            for hit in hits:
                masked[i] = masked[i].replace(hit, f"{{{kind}}}")
    return masked, entities


def _units(guardrail: Guardrail, source: str, units: int) -> dict[str, int]:
    """The unit counters of an answer: only policies that the guardrail has are counted, and billed."""
    return {
        "topicPolicyUnits": units if guardrail.topics else 0,
        "contentPolicyUnits": units if guardrail.prompt_attack != "NONE" and source == "INPUT" else 0,
        "wordPolicyUnits": units if guardrail.words else 0,
        "sensitiveInformationPolicyUnits": units if guardrail.mask or guardrail.block else 0,
        "sensitiveInformationPolicyFreeUnits": 0,
        "contextualGroundingPolicyUnits": 0,
    }


def _luhn(text: str) -> bool:
    digits = [int(c) for c in reversed(text) if c.isdigit()]
    return sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)) % 10 == 0


def _iban(text: str) -> bool:
    """ISO 13616: the first four characters moved behind, letters as 10 to 35, leave 1 when divided by 97."""
    bare = text.replace(" ", "")
    return 15 <= len(bare) <= 34 and int("".join(str(int(c, 36)) for c in bare[4:] + bare[:4])) % 97 == 1


_CHECKS: Mapping[str, Callable[[str], bool]] = {
    "CREDIT_DEBIT_CARD_NUMBER": _luhn,
    "INTERNATIONAL_BANK_ACCOUNT_NUMBER": _iban,
}
