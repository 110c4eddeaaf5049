"""Two-tier LLM inference on Amazon Bedrock: a cheap model first, a strong one for what is hard or risky.

from workshop_lib import Cascade, Tier, confidence_below, invalid_output, open_workshop, stakes
"""

from workshop_lib.bedrock import (
    Bedrock,
    BedrockError,
    Catalogue,
    ConfigurationError,
    InvalidOutput,
    Reply,
    Settings,
    Tool,
    Usage,
    WorkshopError,
)
from workshop_lib.bulk import Row, Store, run_bulk
from workshop_lib.cascade import (
    Attempt,
    Cascade,
    Event,
    Outcome,
    Reason,
    Rule,
    Tier,
    always,
    confidence_below,
    field_in,
    invalid_output,
    never,
    rule,
    stakes,
)
from workshop_lib.triage import TRIAGE, Category, Decision, Priority, Task, Ticket, load_labels, load_tickets
from workshop_lib.workshop import Workshop, open_workshop

__all__ = [
    "TRIAGE",
    "Attempt",
    "Bedrock",
    "BedrockError",
    "Cascade",
    "Catalogue",
    "Category",
    "ConfigurationError",
    "Decision",
    "Event",
    "InvalidOutput",
    "Outcome",
    "Priority",
    "Reason",
    "Reply",
    "Row",
    "Rule",
    "Settings",
    "Store",
    "Task",
    "Ticket",
    "Tier",
    "Tool",
    "Usage",
    "Workshop",
    "WorkshopError",
    "always",
    "confidence_below",
    "field_in",
    "invalid_output",
    "load_labels",
    "load_tickets",
    "never",
    "open_workshop",
    "rule",
    "run_bulk",
    "stakes",
]
