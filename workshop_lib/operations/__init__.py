"""OPERATING: what stands around a cascade that answers for a team, from the gate before it to the people behind it."""

from workshop_lib.operations.alarms import Alarm, AlarmState, default_alarms, evaluate
from workshop_lib.operations.handled import Handled, Intervention
from workshop_lib.operations.monitoring import Monitor, Summary, Window
from workshop_lib.operations.records import Record, record_of
from workshop_lib.operations.shadow import Pair, Shadow, load_pairs
from workshop_lib.operations.sinks import EmfSink, OtelSink

__all__ = [
    "Alarm",
    "AlarmState",
    "EmfSink",
    "Handled",
    "Intervention",
    "Monitor",
    "OtelSink",
    "Pair",
    "Record",
    "Shadow",
    "Summary",
    "Window",
    "default_alarms",
    "evaluate",
    "load_pairs",
    "record_of",
]
