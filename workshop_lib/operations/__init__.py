"""OPERATING: what stands around a cascade that answers for a team, from the gate before it to the people behind it."""

from workshop_lib.operations.handled import Handled, Intervention

__all__ = ["Handled", "Intervention"]
