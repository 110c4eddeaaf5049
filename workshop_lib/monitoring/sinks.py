"""Where records go: OpenTelemetry metrics, or lines in CloudWatch's embedded metric format. Names and dimensions are fixed and few.

Sinks may block or raise: `Monitor` puts a queue before each.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from workshop_lib.monitoring.records import NONE, Record

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader

NAMESPACE = "TwoTierWorkshop"
DIMENSIONS = (("strategy",), ("strategy", "tier"), ("strategy", "category"))
"""Of EMF metrics. CloudWatch bills each combination of values as a metric of its own, so there are three short sets."""
MS_BUCKETS = (50, 100, 250, 500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 20_000, 60_000)
"""Ends of the histogram's buckets in ms. OpenTelemetry's own end at 10,000."""


class Sink(Protocol):
    """Somewhere that records are written to."""

    @property
    def name(self) -> str:
        """How it is called in counts and in the log; without credentials."""
        ...

    def write(self, records: Sequence[Record]) -> None:
        """Write some records, or raise."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class OtelSink:
    """OpenTelemetry metrics, by an exporter or a reader of yours.

    | instrument | kind, unit | attributes |
    |---|---|---|
    | workshop.tickets | counter | strategy, tier, disposition, path |
    | workshop.tickets.category | counter | strategy, category, priority |
    | workshop.tickets.confidence | counter | strategy, confidence |
    | workshop.escalations | counter, one a rule | strategy, rule |
    | workshop.interventions | counter | strategy, intervention |
    | workshop.not_as_usual | counter | strategy, why |
    | workshop.overrides | counter, tickets that people looked at | strategy, overridden |
    | workshop.retries | counter, HTTP requests | strategy |
    | workshop.tickets.retried | counter | strategy |
    | workshop.cost | counter, USD | strategy, tier |
    | workshop.latency | histogram, ms | strategy, tier |
    """

    name = "OpenTelemetry"

    def __init__(
        self,
        exporter: MetricExporter | None = None,
        *,
        reader: MetricReader | None = None,
        every_ms: float = 60_000,
        service: str = "two-tier-workshop",
    ) -> None:
        """
        Args:
            exporter: e.g. `OTLPMetricExporter(endpoint="http://127.0.0.1:4318/v1/metrics")`.
            reader: instead of it, a reader that exports by itself.
            every_ms: how often the exporter is given the figures.
            service: `service.name` of the resource.

        Raises:
            ValueError: neither or both were given.
        """
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource

        if (exporter is None) == (reader is None):
            raise ValueError("give an exporter, or a reader that has one of its own")
        if exporter is not None:
            reader = PeriodicExportingMetricReader(exporter, export_interval_millis=every_ms)
        assert reader is not None
        self._provider = MeterProvider([reader], Resource({"service.name": service}), shutdown_on_exit=False)
        meter = self._provider.get_meter("workshop_lib.operations")
        counted = {
            "tickets": "1", "tickets.category": "1", "tickets.confidence": "1", "tickets.retried": "1", "escalations": "1",
            "interventions": "1", "not_as_usual": "1", "overrides": "1", "retries": "1", "cost": "USD",
        }  # fmt: skip
        self._counters = {name: meter.create_counter(f"workshop.{name}", unit) for name, unit in counted.items()}
        self._latency = meter.create_histogram(
            "workshop.latency", "ms", explicit_bucket_boundaries_advisory=list(MS_BUCKETS)
        )

    def write(self, records: Sequence[Record]) -> None:
        """Add them to the figures; the reader exports those in a thread of its own."""
        for r in records:
            whose = {"strategy": r.strategy}
            self._count("tickets", **whose, tier=r.tier, disposition=r.disposition, path=r.path)
            self._count("tickets.category", **whose, category=r.category, priority=r.priority)
            self._count("tickets.confidence", **whose, confidence=r.confidence)
            self._count("cost", r.cost_usd, **whose, tier=r.tier)
            self._latency.record(r.latency_ms, {**whose, "tier": r.tier})
            for rule in r.reasons:
                self._count("escalations", **whose, rule=rule)
            for intervention in r.interventions:
                self._count("interventions", **whose, intervention=intervention)
            if r.why != NONE:
                self._count("not_as_usual", **whose, why=r.why)
            if r.overridden is not None:
                self._count("overrides", **whose, overridden=r.overridden)
            if r.retries:
                self._count("retries", r.retries, **whose)
                self._count("tickets.retried", **whose)

    def close(self) -> None:
        """Export what is left and shut the exporter down."""
        self._provider.shutdown()

    def _count(self, name: str, amount: float = 1, /, **attributes: str | bool) -> None:
        self._counters[name].add(amount, attributes)


class EmfSink:
    """One JSON line a ticket, which CloudWatch Logs turns into metrics (Embedded Metric Format specification, AWS documentation).

    Flags are 0 or 1, so that a metric's average is a rate: the average of `escalated` is the escalation rate. A rule's own metric is there
    when it fired, so its rate is SUM(escalated_by.stakes) / SUM(tickets).
    """

    def __init__(self, stream: TextIO, *, namespace: str = NAMESPACE, name: str = "EMF lines") -> None:
        """
        Args:
            stream: any text stream: a file, standard output. It is not closed.
            namespace: of the metrics, 1 to 256 characters.
            name: how the sink is called in counts.

        Raises:
            ValueError: the namespace is empty or too long.
        """
        if not 0 < len(namespace) <= 256:
            raise ValueError(f"a namespace has 1 to 256 characters, not {len(namespace)}")
        self.name, self._stream, self._namespace = name, stream, namespace

    def write(self, records: Sequence[Record]) -> None:
        """Write their lines."""
        self._stream.writelines(json.dumps(emf_line(r, self._namespace)) + "\n" for r in records)
        self._stream.flush()

    def close(self) -> None:
        """Nothing: the stream is the user's."""


def emf_line(record: Record, namespace: str = NAMESPACE) -> dict[str, Any]:
    """A record in CloudWatch's embedded metric format: metrics and dimensions at the root, described under `_aws`."""
    r = record
    counts: dict[str, float] = {
        "tickets": 1,
        "escalated": int(r.escalated),
        "tiers_differ": int(r.path == "went up, changed"),
        "retried": int(r.retries > 0),
        "retries": r.retries,
        "no_decision": int(r.failed),
        "lower_tier_kept": int(r.degraded),
        "intervened": int(bool(r.interventions)),
        **{f"escalated_by.{rule}": 1 for rule in r.reasons},
    }
    if r.overridden is not None:
        counts["overridden"] = int(r.overridden)
    units = {**dict.fromkeys(counts, "Count"), "cost_usd": "None", "latency_ms": "Milliseconds"}
    return {
        "_aws": {
            "Timestamp": round(1_000 * r.at),
            "CloudWatchMetrics": [
                {
                    "Namespace": namespace,
                    "Dimensions": [list(names) for names in DIMENSIONS],
                    "Metrics": [{"Name": name, "Unit": unit} for name, unit in units.items()],
                }
            ],
        },
        "strategy": r.strategy,
        "tier": r.tier,
        "category": r.category,
        "priority": r.priority,
        "confidence": r.confidence,
        "disposition": r.disposition,
        "why": r.why,
        "path": r.path,
        **counts,
        "cost_usd": r.cost_usd,
        "latency_ms": r.latency_ms,
    }
