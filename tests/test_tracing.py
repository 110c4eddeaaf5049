"""Traces: one a request, right in every figure, without what must not leave, and never in the way of a request."""

import asyncio
import json
import logging
import math
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from strands import Agent
from strands.models import BedrockModel, Model

from tests.waiting import wait_until
from workshop_lib import (
    BedrockError,
    Cascade,
    ConfigurationError,
    Tier,
    confidence_below,
    invalid_output,
    load_tickets,
    run_bulk,
    stakes,
)
from workshop_lib.bedrock.errors import InvalidOutput, Throttled
from workshop_lib.display import trace_tree
from workshop_lib.local import Fault
from workshop_lib.tracing import TraceStoreError, load_traces, open_tracing, trace_cascade, traced
from workshop_lib.tracing.delivery import Otlp
from workshop_lib.tracing.store import Span, Trace

TICKETS = load_tickets("workshop")
RULE = confidence_below(0.7) | stakes() | invalid_output()
SECRET = "sk-lf-0123456789abcdef"
WORDS = "my card 4242 was charged twice"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "traces.db"


@pytest.fixture
def open_tracer(path):
    """Open a tracer to the store, with no collector unless `environ` names one."""
    opened = []

    def open_(**options):
        opened.append(open_tracing(**{"path": path, "environ": {}, **options}))
        return opened[-1]

    yield open_
    for tracer in opened:
        tracer.close(1)


@pytest.fixture
def tracer(open_tracer):
    return open_tracer()


@pytest.fixture
def traces(path):
    """Flush a tracer and read its store."""

    def read(tracer):
        assert tracer.flush()
        return load_traces(path)

    return read


class Receiver:
    """A collector that takes OTLP over HTTP and keeps what it was sent."""

    def __init__(self, *, status=200, wait_s=0.0):
        self.requests, self.headers = [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                time.sleep(wait_s)
                outer.headers.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
                outer.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def spans(self):
        return [s for r in self.requests for rs in r.resource_spans for ss in rs.scope_spans for s in ss.spans]

    @staticmethod
    def attributes(span):
        return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


@pytest.fixture
def receiver():
    made = []

    def start(**options):
        made.append(Receiver(**options))
        return made[-1]

    yield start
    for one in made:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture
def nobody():
    """An address of this machine at which nobody listens."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.server_close()
    return f"http://127.0.0.1:{server.server_address[1]}"


def shape(trace):
    return [(depth, span.name.split(" ")[0]) for depth, span in trace.tree()]


def bill_of(endpoint):
    return math.fsum(entry.cost_usd for entry in endpoint.journal)


# --- one trace a request ---------------------------------------------------------------------------------------------


def test_a_request_is_a_trace_with_its_calls_beneath_it(tracer, traces, bedrock):
    client = traced(bedrock, tracer)
    with tracer.request("ask", question_id="Q-7", session_id="s-1") as request:
        client.converse("cheap", "Hello.")
        with tracer.span("check"):
            client.converse("strong", "Hello.")
        request.set(tier="strong", fallback=False)
    (trace,) = traces(tracer)
    assert shape(trace) == [(0, "ask"), (1, "chat"), (1, "check"), (2, "chat")]
    assert trace.trace_id == request.trace_id
    root = trace.root.attributes
    assert (root["workshop.question_id"], root["workshop.tier"], root["workshop.fallback"]) == ("Q-7", "strong", False)
    assert root["session.id"] == root["gen_ai.conversation.id"] == "s-1"


def test_a_request_within_a_request_is_a_step_of_it(tracer, traces):
    with tracer.request("invocation"), tracer.request("ask"):
        pass
    (trace,) = traces(tracer)
    assert shape(trace) == [(0, "invocation"), (1, "ask")]


def test_a_request_begins_its_own_trace_whatever_else_is_traced(tracer, traces):
    with TracerProvider().get_tracer("another").start_as_current_span("other"), tracer.request("ask"):
        pass
    (trace,) = traces(tracer)
    assert trace.root.parent_id is None


def test_a_calls_figures_have_the_conventions_names(tracer, traces, bedrock, catalogue):
    with tracer.request("ask"):
        reply = traced(bedrock, tracer).converse("strong", "Hello.", max_tokens=99)
    (call,) = traces(tracer)[0].calls
    of = call.attributes
    assert call.name == f"chat {catalogue['strong'].id}"
    assert of["gen_ai.operation.name"] == "chat"
    assert of["gen_ai.provider.name"] == "aws.bedrock"
    assert of["gen_ai.request.model"] == catalogue["strong"].id
    assert of["gen_ai.request.max_tokens"] == 99
    assert of["gen_ai.response.finish_reasons"] == [reply.stop_reason]
    assert of["gen_ai.usage.output_tokens"] == reply.usage.output_tokens
    assert of["workshop.cost_usd"] == reply.cost_usd


def test_input_tokens_include_the_cached_ones_and_bedrocks_own_figure_stands_beside_them(tracer, traces, bedrock):
    system = [{"text": "Policy. " * 3_000}, {"cachePoint": {"type": "default"}}]
    client = traced(bedrock, tracer)
    with tracer.request("ask"):
        first, second = (client.converse("strong", "Hello.", system=system) for _ in range(2))
    written, read = (call.attributes for call in traces(tracer)[0].calls)
    assert written["workshop.cache_write_tokens"] == first.usage.cache_write_tokens > 0
    assert read["gen_ai.usage.cache_read.input_tokens"] == second.usage.cache_read_tokens > 0
    assert read["gen_ai.usage.input_tokens"] == second.usage.input_tokens + second.usage.cache_read_tokens
    assert read["workshop.uncached_input_tokens"] == second.usage.input_tokens


def test_a_streamed_call_is_one_span_too(tracer, traces, bedrock, endpoint):
    with tracer.request("ask"):
        list(traced(bedrock, tracer).stream("cheap", "Hello."))
    (trace,) = traces(tracer)
    assert shape(trace) == [(0, "ask"), (1, "chat")]
    assert trace.cost_usd == bill_of(endpoint) > 0


def test_a_stream_that_is_left_is_noted_as_such_without_a_cost(tracer, traces, bedrock):
    stream = traced(bedrock, tracer).stream("cheap", "Hello.")
    next(stream)
    stream.close()
    (trace,) = traces(tracer)
    assert trace.root.attributes["workshop.abandoned"] is True
    assert trace.root.cost_usd is None


def test_whatever_else_the_client_can_do_it_still_does(tracer, bedrock, catalogue):
    assert traced(bedrock, tracer).catalogue is catalogue
    assert traced(bedrock, tracer).count_tokens("cheap", "Hello.") > 0


def test_anything_that_converses_can_be_traced(tracer, traces, bedrock):
    class Double:
        def converse(self, model, messages, **options):
            return bedrock.converse("cheap", messages)

    traced(Double(), tracer).converse("mine", "Hello.")
    (trace,) = traces(tracer)
    assert trace.root.name == "chat mine"
    assert trace.cost_usd > 0


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_call_that_fails_is_an_error_span_with_its_class_and_code(tracer, traces, make_bedrock, endpoint):
    endpoint.faults.add(Fault("ThrottlingException"))
    client = traced(make_bedrock(max_attempts=1), tracer)
    with pytest.raises(Throttled), tracer.request("ask"):
        client.converse("cheap", "Hello.")
    root, call = traces(tracer)[0].spans
    assert (root.status, call.status) == ("ERROR", "ERROR")
    assert call.attributes["error.type"] == "Throttled"
    assert call.attributes["workshop.error_code"] == "ThrottlingException"
    assert call.cost_usd is None


def test_a_message_of_an_error_is_not_kept_for_it_may_quote_the_ticket(tracer, traces, path):
    with pytest.raises(InvalidOutput), tracer.request("ask"):
        raise InvalidOutput(f"no JSON in {WORDS!r}")
    assert traces(tracer)[0].root.attributes["error.type"] == "InvalidOutput"
    assert WORDS not in path.read_bytes().decode("latin-1")


# --- the cascade -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cascade(bedrock):
    return Cascade([Tier("cheap"), Tier("strong")], escalate_when=RULE, client=bedrock)


def test_a_cascades_trace_has_a_step_a_tier_and_its_calls_below(tracer, traces, cascade):
    going = trace_cascade(cascade, tracer)
    outcomes = {t.id: going.run(t) for t in TICKETS[:6]}
    found = {trace.root.attributes["workshop.item_id"]: trace for trace in traces(tracer)}
    assert found.keys() == outcomes.keys()
    for ticket_id, outcome in outcomes.items():
        of = found[ticket_id].root.attributes
        assert (of["workshop.tier"], of["workshop.escalated"]) == (outcome.final.tier, outcome.escalated)
        assert "workshop.abandoned" not in of
        assert shape(found[ticket_id])[:3] == [(0, "cascade"), (1, "tier"), (2, "chat")]
        assert found[ticket_id].cost_usd == pytest.approx(outcome.cost_usd)
    assert {o.escalated for o in outcomes.values()} == {True, False}


def test_a_repair_turn_is_a_second_call_of_the_same_tier(tracer, traces, bedrock, endpoint):
    endpoint.faults.add(Fault("invalid_output", at=frozenset({1})))
    trace_cascade(Cascade([Tier("cheap")], client=bedrock), tracer).run(TICKETS[0])
    (trace,) = traces(tracer)
    assert shape(trace) == [(0, "cascade"), (1, "tier"), (2, "chat"), (2, "chat")]
    assert trace.cost_usd == bill_of(endpoint)


def test_a_strong_tier_that_fails_leaves_a_fallback_to_the_cheap_one(tracer, traces, cascade, endpoint, catalogue):
    endpoint.faults.add(Fault("AccessDeniedException", model=catalogue["strong"].key))
    outcome = trace_cascade(cascade, tracer).run(TICKETS[2])
    assert outcome.degraded
    (trace,) = traces(tracer)
    assert trace.root.attributes["workshop.fallback"] is True
    assert trace.root.attributes["workshop.tier"] == "cheap"
    assert [s.attributes.get("error.type") for s in trace.spans if s.name == "tier strong"] == ["AccessDenied"]
    assert not trace.failed


def test_a_tier_asked_early_in_another_thread_stands_under_its_request(tracer, traces, bedrock, endpoint):
    early = Cascade([Tier("cheap"), Tier("strong")], start_early=lambda item: True, client=bedrock)
    trace_cascade(early, tracer).run(TICKETS[0])
    (trace,) = traces(tracer)
    assert sorted(shape(trace)[1:]) == [(1, "tier"), (1, "tier"), (2, "chat"), (2, "chat")]
    assert trace.cost_usd == bill_of(endpoint)


def test_a_traced_cascade_is_the_same_cascade_to_a_store_and_answers_a_bulk_run(tracer, traces, cascade, endpoint):
    going = trace_cascade(cascade, tracer)
    assert going.identity == cascade.identity
    rows = list(run_bulk(going, TICKETS[:12], workers=4))
    found = traces(tracer)
    assert len(found) == 12
    assert math.fsum(t.cost_usd for t in found) == bill_of(endpoint)
    assert math.fsum(t.cost_usd for t in found) == pytest.approx(sum(r.cost_usd for r in rows))


def test_eight_threads_at_once_keep_their_calls_apart(tracer, traces, bedrock, endpoint):
    client = traced(bedrock, tracer)

    def ask(number):
        with tracer.request("ask", number=number), tracer.span("step", number=number):
            return client.converse("cheap", f"Hello {number}.").request_id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(ask, range(64)))
    found = traces(tracer)
    assert len(found) == 64
    assert all(shape(trace) == [(0, "ask"), (1, "step"), (2, "chat")] for trace in found)
    for trace in found:
        root, step, call = trace.spans
        assert root.attributes["workshop.number"] == step.attributes["workshop.number"]
        assert call.attributes["aws.request_id"] == ids[root.attributes["workshop.number"]]
    assert math.fsum(t.cost_usd for t in found) == bill_of(endpoint)


# --- Strands ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(endpoint, catalogue, _boto_session):
    return BedrockModel(
        boto_session=_boto_session, model_id=catalogue["strong"].id, endpoint_url=endpoint.url, max_tokens=200
    )


def test_strands_calls_are_priced_once_though_its_other_spans_repeat_their_tokens(
    open_tracer, traces, model, endpoint, bedrock
):
    tracer = open_tracer(make_global=True)
    with tracer.request("ask"):
        traced(bedrock, tracer).converse("cheap", "Is this simple?")
        agent = Agent(model=model, callback_handler=None)
        agent("What is the return policy for laptops?")
        agent("And for phones?")
    (trace,) = traces(tracer)
    names = [span.name.split(" ")[0] for span in trace.spans]
    assert "invoke_agent" in names
    repeated = sum(span.attributes.get("gen_ai.usage.input_tokens", 0) for span in trace.spans)
    assert repeated > sum(call.input_tokens for call in trace.calls)
    assert len(trace.calls) == endpoint.journal.calls
    assert trace.cost_usd == bill_of(endpoint) > 0
    assert not trace.unpriced


def test_strands_input_tokens_include_the_cache_and_are_priced_so(open_tracer, traces, model, endpoint):
    tracer = open_tracer(make_global=True)
    system = [{"text": "Policy. " * 3_000}, {"cachePoint": {"type": "default"}}]
    for _ in range(2):
        with tracer.request("ask"):
            Agent(model=model, system_prompt=system, callback_handler=None)("Hello.")
    first, second = traces(tracer)
    assert second.calls[0].attributes["workshop.cache_read_tokens"] > 0
    assert math.fsum([first.cost_usd, second.cost_usd]) == bill_of(endpoint)


def test_a_call_within_strands_own_call_span_is_one_span_with_one_cost(open_tracer, traces, bedrock, endpoint):
    from opentelemetry import trace as otel

    tracer = open_tracer(make_global=True)
    theirs = otel.get_tracer("strands.telemetry.tracer")
    chat = {"gen_ai.operation.name": "chat"}
    with tracer.request("ask"), theirs.start_as_current_span("chat", attributes=chat):
        traced(bedrock, tracer).converse("cheap", "Hello.")
    (trace,) = traces(tracer)
    assert shape(trace) == [(0, "ask"), (1, "chat")]
    assert trace.cost_usd == bill_of(endpoint) > 0


def test_a_span_that_makes_no_sense_is_counted_and_breaks_nothing(open_tracer, traces):
    from opentelemetry import trace as otel

    tracer = open_tracer(make_global=True)
    theirs = otel.get_tracer("strands.telemetry.tracer")
    odd = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": "many"}
    with tracer.request("ask"), theirs.start_as_current_span("chat", attributes=odd):
        pass
    (trace,) = traces(tracer)
    assert shape(trace) == [(0, "ask")]
    assert tracer.deliveries[0].dropped == 1


class OwnModel(Model):
    """A Strands model that asks through a client of ours, in a thread of its own."""

    def __init__(self, client):
        self._client = client

    def get_config(self):
        return {"model_id": "own"}

    def update_config(self, **config):
        pass

    async def structured_output(self, *given, **options):
        raise NotImplementedError
        yield

    async def stream(self, messages, tool_specs=None, system_prompt=None, **options):
        reply = await asyncio.to_thread(self._client.converse, "strong", messages)
        yield {"messageStart": {"role": "assistant"}}
        yield {"contentBlockStart": {"start": {}}}
        yield {"contentBlockDelta": {"delta": {"text": reply.text}}}
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": "end_turn"}}
        usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}  # not what was billed: the client knows better
        yield {"metadata": {"usage": usage, "metrics": {"latencyMs": 1}}}


def test_a_strands_model_over_a_traced_client_is_billed_once_by_the_client(open_tracer, traces, bedrock, endpoint):
    tracer = open_tracer(make_global=True)
    with tracer.request("ask"):
        Agent(model=OwnModel(traced(bedrock, tracer)), callback_handler=None)("Hello.")
    (trace,) = traces(tracer)
    assert len(trace.calls) == endpoint.journal.calls == 1
    assert trace.cost_usd == bill_of(endpoint) > 0


def test_what_strands_writes_of_questions_and_answers_stays_inside(open_tracer, traces, model, path):
    tracer = open_tracer(make_global=True)
    with tracer.request("ask", text=WORDS):
        answer = str(Agent(model=model, system_prompt="You are an agent of ACME.", callback_handler=None)(WORDS))
    traces(tracer)
    tracer.close()
    kept = path.read_bytes().decode("utf-8", "replace")
    assert WORDS not in kept
    assert "ACME" not in kept
    assert answer.strip()[:20] not in kept


def test_what_libraries_say_of_an_error_does_not_reach_the_collector(open_tracer, receiver):
    from opentelemetry import trace as otel

    collector = receiver()
    tracer = open_tracer(make_global=True, environ={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    theirs = otel.get_tracer("strands.telemetry.tracer")
    with pytest.raises(ValueError, match="4242"), tracer.request("ask"), theirs.start_as_current_span("tool"):
        raise ValueError(WORDS)
    tracer.flush()
    tool = collector.spans[0]
    assert tool.status.message == "ValueError"
    assert Receiver.attributes(tool)["error.type"] == "ValueError"
    assert "4242" not in str(collector.requests)


def test_a_global_tracer_opened_after_another_takes_over(open_tracer, tmp_path, model):
    first = open_tracer(make_global=True, path=tmp_path / "first.db")
    Agent(model=model, callback_handler=None)("Hello.")
    first.close()
    second = open_tracer(make_global=True, path=tmp_path / "second.db")
    Agent(model=model, callback_handler=None)("Hello.")
    second.close()
    assert [len(load_traces(tmp_path / f"{name}.db")) for name in ("first", "second")] == [1, 1]


def test_a_private_tracer_takes_in_nothing_of_other_libraries(tracer, model):
    Agent(model=model, callback_handler=None)("Hello.")
    tracer.flush()
    assert tracer.deliveries[0].delivered == 0


# --- what may leave --------------------------------------------------------------------------------------------------


def test_questions_and_answers_are_kept_only_where_asked_for(open_tracer, traces, bedrock):
    tracer = open_tracer(redact=False)
    with tracer.request("ask", text=WORDS):
        reply = traced(bedrock, tracer).converse("cheap", WORDS)
    root, call = traces(tracer)[0].spans
    assert root.attributes["workshop.text.input"] == WORDS
    assert call.attributes["workshop.text.messages"] == WORDS
    assert call.attributes["workshop.text.reply"] == reply.text


def test_of_a_question_that_is_not_kept_its_length_is(tracer, traces):
    with tracer.request("ask", text=WORDS):
        pass
    assert traces(tracer)[0].root.attributes["workshop.input_chars"] == len(WORDS)


@pytest.mark.parametrize("redact", [True, False])
def test_secrets_are_never_kept(open_tracer, traces, path, redact):
    tracer = open_tracer(redact=redact, environ={"LANGFUSE_SECRET_KEY": SECRET, "AWS_SECRET_ACCESS_KEY": "wJalrXUtnF"})
    leaks = f"{SECRET} wJalrXUtnF AKIAABCDEFGHIJKLMNOP Bearer abcdefgh12345 http://me:hunter22@host/"
    with pytest.raises(ValueError, match="leak"), tracer.request("ask", text=leaks, note=leaks):
        raise ValueError(f"leak {leaks}")
    traces(tracer)
    tracer.close()
    kept = path.read_bytes().decode("utf-8", "replace")
    assert not [part for part in (SECRET, "wJalrXUtnF", "AKIAABCDEF", "abcdefgh12345", "hunter22") if part in kept]


def test_a_long_text_is_cut(open_tracer, traces):
    tracer = open_tracer(redact=False)
    with tracer.request("ask", text="x" * 100_000):
        pass
    assert len(traces(tracer)[0].root.attributes["workshop.text.input"]) < 21_000


# --- a collector -----------------------------------------------------------------------------------------------------


def test_a_collector_gets_every_span_over_real_http(open_tracer, receiver, bedrock):
    collector = receiver()
    tracer = open_tracer(
        environ={
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20c2VjcmV0,x-team=a",
        }
    )
    with tracer.request("ask", text=WORDS):
        reply = traced(bedrock, tracer).converse("cheap", WORDS)
    assert tracer.flush()
    call, root = collector.spans
    assert (root.name, call.parent_span_id) == ("ask", root.span_id)
    assert call.trace_id == root.trace_id
    assert Receiver.attributes(call)["workshop.cost_usd"] == reply.cost_usd
    assert Receiver.attributes(call)["gen_ai.usage.input_tokens"] == reply.usage.prompt_tokens
    assert Receiver.attributes(root)["gen_ai.operation.name"] == "invoke_workflow"
    assert WORDS not in str(collector.requests)
    (headers,) = collector.headers
    assert (headers["path"], headers["authorization"], headers["x-team"]) == ("/v1/traces", "Basic c2VjcmV0", "a")
    resource = collector.requests[0].resource_spans[0].resource
    assert Receiver.attributes(resource)["service.name"] == "two-tier-workshop"
    assert [(d.delivered, d.dropped) for d in tracer.deliveries] == [(2, 0), (2, 0)]


def test_its_own_calls_to_the_collector_are_not_traced(open_tracer, receiver):
    collector = receiver()
    tracer = open_tracer(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, make_global=True)
    with tracer.request("ask"):
        pass
    tracer.flush()
    assert [span.name for span in collector.spans] == ["ask"]


@pytest.mark.parametrize(
    ("environ", "url", "header"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:1/"}, "http://h:1/v1/traces", None),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h:1/own"}, "http://h:1/own", None),
        ({"PHOENIX_COLLECTOR_ENDPOINT": "http://h:6006"}, "http://h:6006/v1/traces", None),
        ({"PHOENIX_COLLECTOR_ENDPOINT": "http://h/v1/traces", "PHOENIX_API_KEY": "k"}, "http://h/v1/traces", "Bearer k"),
        ({"LANGFUSE_BASE_URL": "https://h", "LANGFUSE_PUBLIC_KEY": "a", "LANGFUSE_SECRET_KEY": "b"},
         "https://h/api/public/otel/v1/traces", "Basic YTpi"),
    ],
)  # fmt: skip
def test_the_collector_is_named_by_the_variables_of_its_kind(environ, url, header):
    found = Otlp.from_environment(environ)
    assert (found.url, found.headers.get("authorization")) == (url, header)


@pytest.mark.parametrize("environ", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, {"LANGFUSE_SECRET_KEY": "b"}])
def test_without_an_address_nothing_is_sent_anywhere(environ):
    assert Otlp.from_environment(environ) is None


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "127.0.0.1:6006"}, "not an http"),
        ({"LANGFUSE_HOST": "https://h", "LANGFUSE_PUBLIC_KEY": "a"}, "not LANGFUSE_SECRET_KEY"),
    ],
)
def test_a_collector_that_cannot_be_is_refused_at_the_start(environ, said):
    with pytest.raises(ConfigurationError, match=said):
        open_tracing(environ=environ)


def test_credentials_in_the_address_or_headers_are_not_shown(open_tracer, receiver):
    url = receiver().url.replace("//", "//me:hunter22@")
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_HEADERS": f"x={SECRET}"}
    tracer = open_tracer(environ=environ)
    shown = f"{tracer!r} {tracer.deliveries} {Otlp.from_environment(environ)!r}"
    assert "127.0.0.1" in shown
    assert SECRET not in shown
    assert "hunter22" not in shown


# --- never in the way ------------------------------------------------------------------------------------------------


def test_a_collector_that_is_not_there_costs_no_request_anything_and_is_told_once(
    open_tracer, nobody, bedrock, traces, caplog
):
    tracer = open_tracer(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": nobody})
    client = traced(bedrock, tracer)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with tracer.request("ask"):
                client.converse("cheap", "Hello.")
            tracer.flush(4)
    store, collector = tracer.deliveries
    assert (store.delivered, store.dropped) == (6, 0)
    assert (collector.delivered, collector.dropped) == (0, 6)
    assert collector.problem
    assert [r.levelname for r in caplog.records if "lost" in r.getMessage()] == ["WARNING"]
    assert len(caplog.records) == 1


def test_a_collector_that_refuses_or_hangs_is_counted_and_closing_does_not_wait_for_it(open_tracer, receiver):
    hanging = receiver(wait_s=3)
    tracer = open_tracer(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": hanging.url})
    with tracer.request("ask"):
        pass
    wait_until(lambda: tracer.deliveries[0].delivered, "delivery")
    assert not tracer.flush(0.2)  # handed over to a host that does not answer
    tracer.close(0.1)
    with tracer.request("late"):
        pass
    assert tracer.deliveries[1].delivered == 0
    assert tracer.deliveries[1].dropped >= 1
    assert tracer.deliveries[0].delivered == 1


def test_a_collector_that_answers_an_error_is_counted(open_tracer, receiver):
    tracer = open_tracer(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver(status=401).url})
    with tracer.request("ask"):
        pass
    tracer.flush()
    assert (tracer.deliveries[1].delivered, tracer.deliveries[1].dropped) == (0, 1)
    assert "401" in tracer.deliveries[1].problem


def test_a_full_store_lets_requests_go_on_and_counts_what_it_could_not_keep(open_tracer, path, bedrock, caplog):
    tracer = open_tracer(max_mb=0.1)
    client = traced(bedrock, tracer)
    with caplog.at_level(logging.WARNING):
        for number in range(40):
            with tracer.request("ask", number=number, note="x" * 290):
                for _ in range(4):
                    client.converse("cheap", "Hello.")
            tracer.flush()
    (store,) = tracer.deliveries
    assert store.dropped > 0
    assert store.delivered + store.dropped == 200
    assert "full" in store.problem
    assert len([r for r in caplog.records if "lost" in r.getMessage()]) == 1
    tracer.close()
    assert path.stat().st_size <= 110_000
    kept = load_traces(path)
    assert sum(len(trace.spans) for trace in kept) == store.delivered
    assert kept[0].root.attributes["workshop.number"] == 0


def test_a_store_that_breaks_while_it_is_written_breaks_no_request(open_tracer, path):
    tracer = open_tracer()
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE spans")
    with tracer.request("ask"):
        pass
    tracer.flush()
    assert (tracer.deliveries[0].delivered, tracer.deliveries[0].dropped) == (0, 1)


def test_more_spans_than_can_wait_are_counted_not_waited_for(open_tracer, path):
    with mock.patch("workshop_lib.monitoring.outlet.ROOM", 5):
        tracer = open_tracer()
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            for _ in range(300):
                with tracer.request("ask"):
                    pass
            other.execute("COMMIT")
        tracer.flush()
    (store,) = tracer.deliveries
    assert store.dropped > 0
    assert store.delivered + store.dropped == 300


def test_after_closing_calls_are_made_as_ever(open_tracer, bedrock):
    tracer = open_tracer()
    client = traced(bedrock, tracer)
    tracer.close()
    tracer.close()
    with tracer.request("ask"):
        assert client.converse("cheap", "Hello.").cost_usd > 0
    assert tracer.deliveries[0].dropped == 2


def test_closing_leaves_no_thread_and_no_file_open(open_tracer, path, receiver):
    before = threading.active_count()
    collector = receiver()
    tracer = open_tracer(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    tracer.close()
    collector.server.shutdown()
    assert threading.active_count() <= before + 1  # the receiver's own, which may still end
    path.unlink()
    assert not list(path.parent.glob("traces.db*"))


# --- the store -------------------------------------------------------------------------------------------------------


def test_a_store_is_added_to_and_read_while_it_is_written(open_tracer, path, traces):
    for name in ("one", "two"):
        tracer = open_tracer()
        with tracer.request(name):
            pass
        traces(tracer)
        assert load_traces(path)[-1].name == name
        tracer.close()
    assert [trace.name for trace in load_traces(path)] == ["one", "two"]
    assert [trace.name for trace in load_traces(path, last=1)] == ["two"]


def test_any_program_can_read_the_spans(tracer, path):
    with tracer.request("ask", tier="cheap"):
        pass
    tracer.flush()
    with sqlite3.connect(path) as file:
        (row,) = file.execute("SELECT name, status, json_extract(attributes, '$.\"workshop.tier\"') FROM spans")
    assert row == ("ask", "UNSET", "cheap")


def test_a_file_that_is_something_else_is_refused_and_left_alone(tmp_path):
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE rows (x)")
    before = other.read_bytes()
    for use in (lambda: open_tracing(other, environ={}), lambda: load_traces(other)):
        with pytest.raises(TraceStoreError, match="no trace store"):
            use()
    assert other.read_bytes() == before
    note = tmp_path / "note.txt"
    note.write_text("not a database, but a note that is long enough to be looked at" * 20, encoding="utf-8")
    with pytest.raises(TraceStoreError):
        open_tracing(note, environ={})


def test_a_store_that_is_not_there_says_so(tmp_path):
    with pytest.raises(TraceStoreError, match="no traces at"):
        load_traces(tmp_path / "none.db")
    with pytest.raises(TraceStoreError, match="no folder"):
        open_tracing(tmp_path / "none" / "t.db", environ={})


# --- the picture -----------------------------------------------------------------------------------------------------


def test_the_picture_shows_every_step_with_its_cost_and_the_whole_bill(tracer, traces, cascade):
    trace_cascade(cascade, tracer).run(TICKETS[2])
    (trace,) = traces(tracer)
    shown = trace_tree(trace)
    for text in (shown.markup, shown.text):
        assert all(span.name in text for span in trace.spans)
        assert f"USD {trace.cost_usd:.6f}" in text
        assert all(f"{call.cost_usd:.6f}" in text for call in trace.calls)
        assert "answered by strong" in text


def test_names_in_the_picture_are_escaped_and_an_error_is_named():
    evil = "<script>alert(1)</script>"
    span = Span("t", "s", None, evil, 0, 10**6, "ERROR", {"error.type": evil, "workshop.item_id": evil})
    shown = trace_tree(Trace((span,)))
    assert "<script" not in shown.markup
    assert "! <script>" in shown.text


def test_a_trace_with_lost_spans_is_still_shown():
    spans = tuple(Span("t", f"s{i}", f"gone{i}", f"step {i}", i, i + 5, "UNSET") for i in range(2))
    assert "step 0" in trace_tree(Trace(spans)).text
    assert "step 1" in trace_tree(Trace(spans)).text


def test_importing_it_sets_nothing_up():
    import subprocess
    import sys

    program = (
        "import json, os, threading; before = dict(os.environ); import workshop_lib.tracing, workshop_lib.display; "
        "from opentelemetry import trace; "
        "print(json.dumps([threading.active_count(), type(trace.get_tracer_provider()).__name__, dict(os.environ) == before]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == [1, "ProxyTracerProvider", True]


def test_errors_of_the_service_keep_their_type_through_a_traced_client(tracer, make_bedrock, endpoint):
    endpoint.faults.add(Fault("AccessDeniedException"))
    with pytest.raises(BedrockError):
        traced(make_bedrock(), tracer).converse("cheap", "Hello.")


def test_a_key_in_the_collectors_address_is_not_told(open_tracer, nobody, caplog):
    tracer = open_tracer(environ={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{nobody}/v1/traces?key=hunter22"})
    with caplog.at_level(logging.WARNING), tracer.request("ask"):
        pass
    tracer.flush()
    assert "refused" in tracer.deliveries[1].problem
    assert "hunter22" not in f"{tracer.deliveries} {caplog.text}"
