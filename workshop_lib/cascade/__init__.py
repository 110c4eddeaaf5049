"""DECIDING: when a cheap answer is enough, and what happens when it is not."""

from workshop_lib.cascade.attempt import Attempt, Event, Outcome, Reason, Tier, attempt, vote
from workshop_lib.cascade.cascade import Cascade, Route, conclude, id_of
from workshop_lib.cascade.confidence import answer_features, learned, self_reported, votes
from workshop_lib.cascade.rules import (
    Rule,
    always,
    confidence_below,
    field_in,
    gain_of,
    invalid_output,
    never,
    rule,
    stakes,
)

__all__ = [
    "Attempt",
    "Cascade",
    "Event",
    "Outcome",
    "Reason",
    "Route",
    "Rule",
    "Tier",
    "always",
    "answer_features",
    "attempt",
    "conclude",
    "confidence_below",
    "field_in",
    "gain_of",
    "id_of",
    "invalid_output",
    "learned",
    "never",
    "rule",
    "self_reported",
    "stakes",
    "vote",
    "votes",
]
