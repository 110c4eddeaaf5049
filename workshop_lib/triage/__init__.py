"""THE EXAMPLE: support tickets, their decisions, and the task that asks for them."""

from workshop_lib.triage.datasets import Label, load_labels, load_tickets, read_tickets
from workshop_lib.triage.schema import Category, CustomerTier, Decision, Priority, Ticket
from workshop_lib.triage.task import TRIAGE, Task

__all__ = [
    "TRIAGE",
    "Category",
    "CustomerTier",
    "Decision",
    "Label",
    "Priority",
    "Task",
    "Ticket",
    "load_labels",
    "load_tickets",
    "read_tickets",
]
