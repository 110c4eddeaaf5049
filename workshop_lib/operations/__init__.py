"""OPERATING: what stands around a cascade that answers for a team, from the gate before it to the people behind it."""

from workshop_lib.operations.handled import Handled, Intervention
from workshop_lib.operations.review import Review, ReviewStore, Saved, Verdict

__all__ = [
    "Handled",
    "Intervention",
    "Review",
    "ReviewStore",
    "Saved",
    "Verdict",
]
