"""What a ticket is and what a decision about it may say: pydantic, because a user writes the one and a model the other."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MAX_BODY = 30_000
"""Longest body in characters, about 8,000 tokens: longer text is a file, not a ticket."""


class Category(StrEnum):
    """What the ticket is about, in declaration order; where two fit, the earlier of data/README.md's precedence wins."""

    BILLING = "billing"
    AUTH = "auth"
    INTEGRATION = "integration"
    PERFORMANCE = "performance"
    BUG_REPORT = "bug_report"
    FEATURE_REQUEST = "feature_request"
    ABUSE = "abuse"
    OTHER = "other"


class Priority(StrEnum):
    """How soon somebody must act."""

    P0 = "P0"
    P1 = "P1"
    P2 = "P2"
    P3 = "P3"

    @property
    def is_urgent(self) -> bool:
        """P0 or P1: never for the cheap tier alone."""
        return self in (Priority.P0, Priority.P1)


class CustomerTier(StrEnum):
    """The customer's plan. Context only: it never moves a label or triggers an escalation."""

    FREE = "free"
    PRO = "pro"
    ENTERPRISE = "enterprise"


def _printable(text: str) -> str:
    if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", text):
        raise ValueError("holds control characters; is this a binary file?")
    if re.search(r"[\ud800-\udfff]", text):
        raise ValueError("holds half of a character pair (a lone surrogate); was it cut in the middle?")
    return text


def _only_text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {type(value).__name__}")
    return value


Text = Annotated[str, BeforeValidator(_only_text), AfterValidator(_printable)]


class Ticket(BaseModel):
    """One message of a customer. Its text is untrusted everywhere."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True, defer_build=True)

    id: Text = Field(min_length=1, max_length=200)
    """Ours; never sent to a model."""
    subject: Text = Field(default="", max_length=1_000)
    body: Text = Field(default="", max_length=MAX_BODY)
    customer_tier: CustomerTier | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Ticket:
        if not (self.subject or self.body):
            raise ValueError("subject and body are both empty")
        return self


class Decision(BaseModel):
    """One decision about one support ticket."""

    # The docstring and the descriptions are part of the prompt: the tool's schema carries them to the model.

    model_config = ConfigDict(
        extra="ignore", defer_build=True
    )  # small models like to echo a field or two: not worth a second call

    category: Category = Field(description="What the ticket is about.")
    priority: Priority = Field(description="How soon somebody must act.")
    confidence: float = Field(ge=0, le=1, description="How sure you are that all other fields are right, 0 to 1.")
    reasoning: str = Field(max_length=2_000, description="Why, in one or two sentences.")
    needs_human: bool = Field(description="Whether a person must decide before anything is answered or done.")

    @model_validator(mode="after")
    def _urgent_needs_a_person(self) -> Decision:
        if self.priority.is_urgent and not self.needs_human:
            raise ValueError(f"priority {self.priority} implies needs_human=true")
        return self
