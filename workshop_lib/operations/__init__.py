"""OPERATING: what stands around a cascade that answers for a team, from the gate before it to the people behind it."""

from workshop_lib.operations.brownout import Breaker, BrownOut, StrongDown
from workshop_lib.operations.guardrails import Gate
from workshop_lib.operations.handled import Answering, Handled, Handles, Intervention, handle_all
from workshop_lib.operations.permissions import iam_policy
from workshop_lib.operations.review import Review, ReviewStore, Saved, Verdict
from workshop_lib.operations.shadow import Pair, Shadow, load_pairs

__all__ = [
    "Answering",
    "Breaker",
    "BrownOut",
    "Gate",
    "Handled",
    "Handles",
    "Intervention",
    "Pair",
    "Review",
    "ReviewStore",
    "Saved",
    "Shadow",
    "StrongDown",
    "Verdict",
    "handle_all",
    "iam_policy",
    "load_pairs",
]
