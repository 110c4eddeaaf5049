"""What became of one ticket in production: who has it now, why, and all that it cost, with or without a model's answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from workshop_lib.cascade.attempt import Outcome

Disposition = Literal["answered", "flagged", "queued", "human"]
"""answered: the decision stands · flagged: it stands, and says that it was made under a brown-out · queued: to be asked again
later · human: a person decides."""


@dataclass(frozen=True)
class Intervention:
    """A guardrail stepped in. It is no failure: it did what it is for."""

    stage: Literal["before", "after"]
    """Before any model saw the text, or on a model's answer."""
    action: Literal["blocked", "masked"]
    """blocked: the text goes no further; masked: it goes on with parts of it replaced."""
    policies: tuple[str, ...]
    """Which policies found something: word, topic, pii, prompt-attack. Never what they found."""


@dataclass(frozen=True)
class Handled:
    """One ticket, as a team's records know it."""

    item_id: str
    disposition: Disposition
    why: str = ""
    """Short name that can be counted, e.g. "blocked", "strong throttled", "guardrail unavailable"; "" where it went as usual."""
    outcome: Outcome[Any] | None = None
    """What the models came to; None: none was asked."""
    interventions: tuple[Intervention, ...] = ()
    guardrail_usd: float = 0.0
    """USD of the guardrail's own calls."""

    @property
    def cost_usd(self) -> float:
        """USD of everything: models and guardrail."""
        return self.guardrail_usd + (0.0 if self.outcome is None else self.outcome.cost_usd)
