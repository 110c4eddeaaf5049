"""Monitoring: records without texts, figures that are right, sinks that are in nobody's way, alarms that wait for evidence."""

import io
import json
import math
import subprocess
import sys
import threading
from dataclasses import fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from workshop_lib import (
    TRIAGE,
    Attempt,
    Cascade,
    Outcome,
    Tier,
    confidence_below,
    invalid_output,
    load_tickets,
    stakes,
)
from workshop_lib.bedrock.errors import InvalidOutput
from workshop_lib.bedrock.replies import Reply, Usage
from workshop_lib.cascade import Route
from workshop_lib.local import Fault
from workshop_lib.monitoring.alarms import default_alarms, evaluate
from workshop_lib.monitoring.monitor import Monitor, Window, summarise
from workshop_lib.monitoring.records import Record, bucket, record_of
from workshop_lib.monitoring.sinks import DIMENSIONS, EmfSink, OtelSink, emf_line
from workshop_lib.operations import Handled, Intervention

TICKETS = load_tickets("workshop")[:12]
PLAIN = Record(1_000.0, "cascade", "cheap", "answered", category="billing", priority="P2", confidence="0.85")


@pytest.fixture
def cascade(bedrock):
    rule = confidence_below(0.7) | stakes() | invalid_output()
    return Cascade([Tier("cheap"), Tier("strong")], escalate_when=rule, client=bedrock)


@pytest.fixture
def outcomes(cascade):
    return [cascade.run(ticket) for ticket in TICKETS]


@pytest.fixture
def records(outcomes):
    return [record_of(outcome, strategy="cascade") for outcome in outcomes]


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_record_tells_how_a_ticket_went(outcomes, records):
    for outcome, record in zip(outcomes, records, strict=True):
        assert (record.tier, record.escalated) == (outcome.final.tier, outcome.escalated)
        assert record.category == outcome.decision.category
        assert record.reasons == tuple(dict.fromkeys(r.rule for r in outcome.reasons))
        assert record.cost_usd == outcome.cost_usd
        assert float(record.confidence) <= outcome.attempts[0].confidence < float(record.confidence) + 0.05
    assert {r.path for r in records} >= {"first tier", "went up, agreed"}


def test_a_record_holds_no_id_and_no_text(outcomes, records):
    kept = json.dumps([vars(record) for record in records])
    for ticket, outcome in zip(TICKETS, outcomes, strict=True):
        assert ticket.id not in kept
        assert ticket.subject not in kept
        assert all(attempt.decision.reasoning not in kept for attempt in outcome.attempts)


def test_a_ticket_that_no_model_saw_has_a_record_too():
    blocked = Handled("T-1", "human", "blocked", None, (Intervention("before", "blocked", ("word",)),), 0.0001)
    record = record_of(blocked, strategy="cascade", at=0)
    assert (record.path, record.tier, record.why) == ("no model", "none", "blocked")
    assert (record.interventions, record.cost_usd) == (("before: blocked",), 0.0001)


def test_a_withheld_answer_is_no_failure_of_a_model():
    """A guardrail attached to the calls did what it is for; the bill tells that it was asked after the model."""
    message = {"role": "assistant", "content": [{"text": "Blocked."}]}
    reply = Reply("cheap", "id", message, "guardrail_intervened", Usage(10, 5), 0.001, 1.0, 1.0)
    withheld = Attempt("cheap", "cheap", TRIAGE, None, InvalidOutput("no JSON"), (reply,))
    record = record_of(Outcome("T-1", None, (withheld,)), strategy="cascade")
    assert (record.failed, record.disposition, record.why) == (False, "human", "blocked")
    assert record.interventions == ("after: blocked",)


def test_a_ticket_that_was_sent_straight_up_compares_no_tiers(bedrock):
    straight = Cascade(
        [Tier("cheap"), Tier("strong")],
        escalate_when=stakes(),
        client=bedrock,
        route=lambda item: Route(("strong",), "hard"),
    )
    record = record_of(straight.run(TICKETS[0]), strategy="cascade")
    assert (record.path, record.escalated) == ("went up, alone", True)
    assert summarise([record]).changed is None


def test_a_retry_and_a_repair_turn_are_told_apart(cascade, endpoint, no_backoff):
    endpoint.faults.add(Fault("ThrottlingException", at=frozenset({1})))
    assert record_of(cascade.run(TICKETS[0]), strategy="cascade").retries == 1
    endpoint.faults.clear()
    endpoint.faults.add(Fault("invalid_output", at=frozenset({endpoint.journal.calls + 1})))
    assert record_of(cascade.run(TICKETS[1]), strategy="cascade").retries == 0


def test_what_looks_like_a_text_is_no_name():
    assert record_of(Handled("T-1", "human", "my card 4242?! was charged"), strategy="s").why == "other"
    assert record_of(Handled("T-1", "human", "x" * 200), strategy="s").why == "other"


def test_confidence_falls_into_steps_by_their_lower_end():
    assert [bucket(c) for c in (0, 0.3, 0.85, 0.88, 0.9, 1.0, None)] == [
        "0.00",
        "0.30",
        "0.85",
        "0.85",
        "0.90",
        "0.95",
        "none",
    ]


# --- windows ---------------------------------------------------------------------------------------------------------


def test_a_summary_adds_up(records):
    found = summarise(records)
    assert found.cost_per_1000_usd == pytest.approx(1_000 * sum(r.cost_usd for r in records) / len(records))
    assert found.escalated.value == sum(r.escalated for r in records) / len(records)
    assert found.reasons
    for name, share in found.reasons.items():
        assert share.low < share.value == sum(name in r.reasons for r in records) / len(records) < share.high
    assert found.latency_p50_ms <= found.latency_p95_ms <= found.latency_p99_ms == max(r.latency_ms for r in records)
    assert sum(found.categories.values()) == found.n
    assert found.overridden is None


def test_only_tickets_that_somebody_looked_at_count_as_overridden_or_not():
    seen = [replace(PLAIN, overridden=value) for value in (True, False, None, None)]
    assert (summarise(seen).overridden.value, summarise(seen).overridden.n) == (0.5, 2)


def test_a_window_keeps_the_last_tickets():
    window = Window(3)
    for strategy in "abcde":
        window.add(replace(PLAIN, strategy=strategy))
    assert [r.strategy for r in window.summary().records] == ["c", "d", "e"]


def test_a_wall_clock_that_is_set_back_moves_nothing():
    window, ticks = Window(10, clock=iter((5.0, 6.0, 7.5)).__next__), (3_000.0, 10.0, 3_001.0)
    for at in ticks:
        window.add(replace(PLAIN, at=at))
    found = window.summary()
    assert [r.at for r in found.records] == list(ticks)
    assert found.span_s == 2.5


def test_an_empty_window_says_so():
    with pytest.raises(ValueError, match="no ticket yet"):
        Window().summary()


# --- alarms ----------------------------------------------------------------------------------------------------------


def states(records, **options):
    return {s.alarm.name: s for s in evaluate(summarise(records), default_alarms(**options))}


def test_a_handful_of_bad_tickets_wakes_nobody():
    assert {s.state for s in states([replace(PLAIN, failed=True)] * 5).values()} == {"too few tickets"}


def test_three_failures_in_a_hundred_are_not_yet_proof_of_more_than_one_in_a_hundred():
    assert states([PLAIN] * 97 + [replace(PLAIN, failed=True)] * 3)["no decision"].state == "clear"


def test_what_is_beyond_doubt_is_raised_and_says_what_to_do():
    state = states([PLAIN] * 900 + [replace(PLAIN, failed=True)] * 100)["no decision"]
    assert state.state == "raised"
    assert "RAISED" in state.sentence
    assert state.alarm.action in state.sentence


def test_a_rule_that_stopped_firing_is_noticed():
    window = Window()
    for _ in range(2_000):
        window.add(PLAIN)
    found = {s.alarm.name: s.state for s in evaluate(window.summary(), default_alarms())}
    assert found["no escalation"] == "raised"


def test_cost_and_latency_are_watched_where_a_limit_is_given():
    records = [replace(PLAIN, cost_usd=0.004 + 0.001 * (i % 2), latency_ms=100 * (i % 10)) for i in range(200)]
    found = states(records, cost_per_1000_usd=3.0, p95_latency_ms=500)
    assert (found["cost"].state, found["latency"].state) == ("raised", "raised")
    assert "USD 4.5000 per 1,000" in found["cost"].sentence
    assert "cost" not in states(records)


def test_a_limit_of_nothing_is_a_limit():
    assert (
        states([replace(PLAIN, cost_usd=0.001 + 0.001 * (i % 2)) for i in range(100)], cost_per_1000_usd=0.0)[
            "cost"
        ].state
        == "raised"
    )


def test_an_alarm_about_people_waits_until_people_have_looked():
    assert states([PLAIN] * 500)["overridden"].state == "too few tickets"
    assert states([replace(PLAIN, overridden=i % 2 == 0) for i in range(200)])["overridden"].state == "raised"


# --- sinks -----------------------------------------------------------------------------------------------------------


def test_emf_lines_have_the_shape_that_cloudwatch_asks_for(records):
    stream = io.StringIO()
    with Monitor([EmfSink(stream)]) as monitor:
        for record in records:
            monitor.add(record)
        assert monitor.flush()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == len(records)
    for line, record in zip(lines, records, strict=True):
        about = line["_aws"]
        assert about["Timestamp"] == round(record.at * 1_000)
        (directive,) = about["CloudWatchMetrics"]
        assert 0 < len(directive["Metrics"]) <= 100
        for metric in directive["Metrics"]:
            assert metric["Unit"] in ("Count", "Milliseconds", "None")
            assert math.isfinite(line[metric["Name"]])
        for names in directive["Dimensions"]:
            assert len(names) <= 30
            assert all(isinstance(line[name], str) and 0 < len(line[name]) <= 1_024 for name in names)
        assert len(json.dumps(line)) < 256_000
    assert sum(line["cost_usd"] for line in lines) == pytest.approx(sum(r.cost_usd for r in records))


def test_no_value_that_differs_from_ticket_to_ticket_is_a_dimension(outcomes, records):
    dimensions = {name for names in DIMENSIONS for name in names}
    assert dimensions <= {"strategy", "tier", "category"}
    lines = [emf_line(record) for record in records]
    texts = {value for line in lines for value in line.values() if isinstance(value, str)}
    assert not texts & {t.id for t in TICKETS}
    assert len(texts) < 30
    assert not {f.name for f in fields(Record)} & {"id", "item_id", "text", "subject", "body"}


def points_of(reader):
    data = reader.get_metrics_data()
    metrics = [m for rm in data.resource_metrics for sm in rm.scope_metrics for m in sm.metrics]
    return {m.name: list(m.data.data_points) for m in metrics}


def test_opentelemetry_gets_counters_and_a_histogram_with_few_attributes(records):
    reader = InMemoryMetricReader()
    sink = OtelSink(reader=reader)
    sink.write(
        [*records, replace(PLAIN, retries=3, overridden=True, why="blocked", interventions=("before: blocked",))]
    )
    found = points_of(reader)
    sink.close()
    assert sum(p.value for p in found["workshop.tickets"]) == len(records) + 1
    assert sum(p.value for p in found["workshop.cost"]) == pytest.approx(sum(r.cost_usd for r in records))
    assert sum(p.count for p in found["workshop.latency"]) == len(records) + 1
    assert [p.value for p in found["workshop.retries"]] == [3]
    names = {name for points in found.values() for p in points for name in p.attributes}
    assert names == {
        "strategy", "tier", "disposition", "path", "category", "priority", "confidence", "rule", "intervention", "why", "overridden",
    }  # fmt: skip


def test_an_exporter_or_a_reader_must_be_given():
    with pytest.raises(ValueError, match="exporter"):
        OtelSink()


def test_metrics_reach_a_collector_that_speaks_otlp(records):
    taken = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            taken.append((self.path, ExportMetricsServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        exporter = OTLPMetricExporter(f"http://127.0.0.1:{server.server_address[1]}/v1/metrics", timeout=5)
        with Monitor([OtelSink(exporter)]) as monitor:
            for record in records:
                monitor.add(record)
            assert monitor.flush()
        server.shutdown()
    metrics = [
        m for path, r in taken if path == "/v1/metrics" for rm in r.resource_metrics for sm in rm.scope_metrics for m in sm.metrics
    ]  # fmt: skip
    tickets = [p.as_int for m in metrics if m.name == "workshop.tickets" for p in m.sum.data_points]
    assert sum(tickets) == len(records)


class Broken:
    name = "broken"

    def write(self, records):
        raise OSError("disk full")

    def close(self):
        pass


class Stuck:
    name = "stuck"

    def __init__(self):
        self.let_go = threading.Event()

    def write(self, records):
        self.let_go.wait(30)

    def close(self):
        pass


def test_a_sink_that_raises_breaks_no_answer_and_its_losses_are_counted_and_told_once(cascade, caplog):
    with Monitor([Broken()]) as monitor:
        answer = monitor.watching(cascade.run, strategy="cascade")
        assert all(answer(ticket).decision for ticket in TICKETS[:3])
        monitor.flush()
        (delivery,) = monitor.deliveries
    assert (delivery.delivered, delivery.dropped) == (0, 3)
    assert "disk full" in delivery.problem
    assert len([r for r in caplog.records if "lost" in r.getMessage()]) == 1


def test_a_sink_that_hangs_holds_up_nothing_and_what_finds_no_room_is_counted(monkeypatch):
    monkeypatch.setattr("workshop_lib.monitoring.outlet.ROOM", 5)
    stuck, stream = Stuck(), io.StringIO()
    monitor = Monitor([stuck, EmfSink(stream)])
    for _ in range(400):
        monitor.add(PLAIN)
        monitor._outlets[1].flush(5)
    assert len(monitor.window) == 400
    held, fine = monitor.deliveries
    assert held.dropped >= 400 - 5 - 256
    assert (fine.delivered, fine.dropped) == (400, 0)
    stuck.let_go.set()
    monitor.close()


def test_what_cannot_be_recorded_is_answered_all_the_same(caplog):
    with Monitor() as monitor:
        assert monitor.watching(lambda item: "no outcome", strategy="mine")("x") == "no outcome"
    assert "could not be recorded" in caplog.text


def test_a_watched_answer_is_timed_by_a_clock_that_is_not_set_back(cascade):
    with Monitor() as monitor:
        monitor.watching(cascade.run, strategy="cascade")(TICKETS[0])
    (record,) = monitor.window.summary().records
    assert record.latency_ms > 0


def test_importing_operations_loads_nothing_heavy():
    program = (
        "import sys, workshop_lib.operations; "
        "print(sorted({'numpy', 'scipy', 'boto3', 'pandas', 'opentelemetry', 'filelock', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
