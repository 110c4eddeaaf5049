"""What of a span may leave the process: names and figures always, texts only where they were asked for, secrets never."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

TEXT = "workshop.text."
"""Attributes with this prefix hold what people and models wrote."""
HIDDEN = "(hidden)"
MAX_TEXT = 20_000
"""Characters of a kept text; what is longer is cut."""
MAX_NAME = 300
"""Characters of any other attribute."""
# A list of what may pass, not of what may not: what a library adds in its next version stays inside until it is looked at.
_MAY_PASS = (
    "workshop.", "error.type", "session.id", "aws.request_id", "event_loop.",
    "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.system", "gen_ai.conversation.id", "gen_ai.workflow.name",
    "gen_ai.agent.name", "gen_ai.agent.id", "gen_ai.tool.name", "gen_ai.tool.call.id", "gen_ai.tool.status",
    "gen_ai.request.", "gen_ai.response.id", "gen_ai.response.model", "gen_ai.response.finish_reasons",
    "gen_ai.response.time_to_first_chunk", "gen_ai.usage.", "gen_ai.server.",
)  # fmt: skip
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|API_KEY|ACCESS_KEY|HEADERS", re.IGNORECASE)
_SECRET = re.compile(
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\b(?:Bearer|Basic)\s+[\w.~+/=-]{8,}|\b(?:sk|pk)-[\w-]{16,}|://[^/\s:@]+:[^/\s@]+@",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Redaction:
    """The rule for one tracer."""

    keep_texts: bool
    """Whether tickets, questions, answers and error messages are kept."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values that are never written, wherever they stand."""

    @classmethod
    def of(cls, environ: Mapping[str, str], *, keep_texts: bool) -> Redaction:
        """With the values of all variables that are named like a secret."""
        given = [value for name, value in environ.items() if _SECRET_NAME.search(name)]
        parts = {part for value in given for part in _parts(value) if len(part) >= 8}
        return cls(keep_texts, tuple(sorted(parts, key=len, reverse=True)))

    def text(self, text: str) -> str:
        """A text without secrets."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return _SECRET.sub(HIDDEN, text)

    def attributes(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What may be kept of a span's attributes."""
        kept = {}
        for name, value in given.items():
            is_text = name.startswith(TEXT) or not name.startswith(_MAY_PASS)
            if not is_text or self.keep_texts:
                kept[name] = self._value(value, MAX_TEXT if is_text else MAX_NAME)
        return kept

    def _value(self, value: Any, most: int) -> Any:
        if isinstance(value, str):
            # Secrets go first: a cut could leave half of one.
            clean = self.text(value)
            return clean if len(clean) <= most else f"{clean[:most]}..."
        return value if isinstance(value, bool | int | float) else [self._value(v, most) for v in value]


def _parts(value: str) -> Iterable[str]:
    """A value, and of a list of headers ("name=value,name=value") each value, also decoded."""
    for whole in (value, unquote(value)):
        yield whole
        for part in whole.split(","):
            yield part.partition("=")[2].strip()
