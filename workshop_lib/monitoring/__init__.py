"""MONITORING: what a cascade tells of itself while it works, which alarms that raises, and whether the world has changed."""

from workshop_lib.monitoring.alarms import Alarm, AlarmState, default_alarms, evaluate
from workshop_lib.monitoring.monitor import Monitor, Summary, Window
from workshop_lib.monitoring.records import Record, record_of
from workshop_lib.monitoring.sinks import EmfSink, OtelSink

__all__ = [
    "Alarm",
    "AlarmState",
    "EmfSink",
    "Monitor",
    "OtelSink",
    "Record",
    "Summary",
    "Window",
    "default_alarms",
    "evaluate",
    "record_of",
]
