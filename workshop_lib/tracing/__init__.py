"""TRACING: what happened to a request, step by step, with its cost."""

from workshop_lib.monitoring.outlet import Delivery
from workshop_lib.tracing.agent import TracedShopAgent
from workshop_lib.tracing.calls import trace_cascade, traced
from workshop_lib.tracing.store import Span, Trace, TraceStoreError, load_traces
from workshop_lib.tracing.tracer import LiveSpan, Tracer, open_tracing

__all__ = [
    "Delivery",
    "LiveSpan",
    "Span",
    "Trace",
    "TraceStoreError",
    "TracedShopAgent",
    "Tracer",
    "load_traces",
    "open_tracing",
    "trace_cascade",
    "traced",
]
