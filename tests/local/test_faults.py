"""Faults strike when the schedule says, on the wire and in botocore's own eyes."""

from __future__ import annotations

import contextlib
import http.client
import json

import pytest
from botocore.exceptions import BotoCoreError, ConnectionClosedError, EventStreamError

from workshop_lib.local.faults import MESSAGES, SHAPES, Fault, FaultSchedule
from workshop_lib.local.server import LocalEndpoint
from workshop_lib.local.wire import ServiceError, Wire

NANO = "nvidia.nemotron-nano-3-30b"
MESSAGE = [{"role": "user", "content": [{"text": "The export fails."}]}]


def _struck(fault: Fault, calls: int, model_id: str = NANO) -> list[int]:
    schedule = FaultSchedule()
    schedule.add(fault)
    return [n for n in range(1, calls + 1) if schedule.next(model_id) is fault]


@pytest.mark.parametrize(
    ("when", "struck"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"first": 2}, [1, 2]),
        ({"every": 3}, [3, 6]),
        ({"at": frozenset({2, 5})}, [2, 5]),
        ({"first": 1, "every": 4}, [1, 4]),
    ],
    ids=["always", "first 2", "every 3rd", "at 2 and 5", "first and every 4th"],
)
def test_a_fault_strikes_when_its_schedule_says(when, struck):
    assert _struck(Fault("ThrottlingException", **when), 6) == struck


def test_a_fault_counts_only_the_calls_of_its_model():
    schedule = FaultSchedule()
    schedule.add(Fault("ThrottlingException", model="claude", at=frozenset({2})))
    asked = ["us.anthropic.claude-x", NANO, NANO, "us.anthropic.claude-x"]
    assert [schedule.next(model_id) is not None for model_id in asked] == [False, False, False, True]


def test_of_two_faults_the_one_that_was_added_first_strikes():
    schedule = FaultSchedule()
    schedule.add(Fault("ThrottlingException"))
    schedule.add(Fault("ConflictException"))
    assert schedule.next(NANO).kind == "ThrottlingException"


def test_a_call_that_asks_for_a_fault_is_not_counted_by_the_schedule():
    schedule = FaultSchedule()
    schedule.add(Fault("ThrottlingException", at=frozenset({1})))
    assert schedule.next(NANO, {"workshop-fault": "drop"}).kind == "drop"
    assert schedule.next(NANO).kind == "ThrottlingException"


@pytest.mark.parametrize("kind", ["bad-mood", "mid-stream:drop", "mid-stream:"])
def test_an_unknown_fault_is_refused_with_the_known_ones(kind):
    with pytest.raises(ValueError, match="known: slow"):
        Fault(kind)


def test_an_unknown_fault_in_a_call_is_a_validation_error():
    with pytest.raises(ServiceError, match="unknown fault 'bad-mood'") as refused:
        FaultSchedule().next(NANO, {"workshop-fault": "bad-mood"})
    assert refused.value.code == "ValidationException"


def test_every_error_of_the_service_model_can_be_a_fault():
    assert set(Wire().errors) <= set(MESSAGES)


@pytest.mark.parametrize("kind", [*SHAPES, *MESSAGES])
def test_every_known_fault_can_be_made(kind):
    assert Fault(kind).strikes(1)


def test_a_fault_can_say_its_own_message(endpoint, boto, ask):
    endpoint.faults.add(Fault("ThrottlingException", message="Too many tokens, please wait before trying again."))
    with pytest.raises(boto.exceptions.ThrottlingException, match="Too many tokens, "):
        ask()


def test_an_error_before_the_stream_is_an_http_error(endpoint, boto):
    endpoint.faults.add(Fault("ThrottlingException"))
    with pytest.raises(boto.exceptions.ThrottlingException) as raised:
        boto.converse_stream(modelId=NANO, messages=MESSAGE)
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429


@pytest.mark.parametrize(
    "name",
    [
        "ModelStreamErrorException",
        "InternalServerException",
        "ThrottlingException",
        "ServiceUnavailableException",
        "ValidationException",
    ],
)
def test_an_error_inside_a_stream_is_raised_while_it_is_read(endpoint, boto, name):
    endpoint.faults.add(Fault(f"mid-stream:{name}"))
    with pytest.raises(EventStreamError) as raised:
        list(boto.converse_stream(modelId=NANO, messages=MESSAGE)["stream"])
    assert raised.value.response["Error"]["Code"] == name[0].lower() + name[1:]
    assert raised.value.response["Error"]["Message"]


def test_some_events_come_before_an_error_inside_a_stream(endpoint, boto):
    endpoint.faults.add(Fault("mid-stream:ModelStreamErrorException"))
    stream = iter(boto.converse_stream(modelId=NANO, messages=MESSAGE)["stream"])
    assert [next(iter(next(stream))) for _ in range(2)] == ["messageStart", "contentBlockDelta"]


def test_a_cut_stream_ends_without_its_last_events(endpoint, boto):
    endpoint.faults.add(Fault("cut"))
    kinds = [next(iter(e)) for e in boto.converse_stream(modelId=NANO, messages=MESSAGE)["stream"]]
    assert kinds[0] == "messageStart"
    assert not {"messageStop", "metadata"} & set(kinds)


def test_a_fault_inside_streams_leaves_converse_alone(endpoint, ask):
    endpoint.faults.add(Fault("cut"))
    assert ask()["stopReason"] == "end_turn"


def test_a_dropped_connection_is_what_botocore_calls_closed(endpoint, ask):
    endpoint.faults.add(Fault("drop"))
    with pytest.raises(ConnectionClosedError):
        ask()


def test_a_dropped_connection_is_retried_by_botocore(endpoint, make_boto, no_backoff):
    endpoint.faults.add(Fault("drop", first=1))
    reply = make_boto(mode="standard", total_max_attempts=3).converse(modelId=NANO, messages=MESSAGE)
    assert reply["ResponseMetadata"]["RetryAttempts"] == 1


def test_a_dropped_connection_is_not_printed_as_a_crash(endpoint, ask, caplog):
    endpoint.faults.add(Fault("drop"))
    with contextlib.suppress(BotoCoreError):
        ask()
    assert not caplog.records


@pytest.fixture
def begin(endpoint):
    """Asks by plain HTTP and gives the response as soon as its headers are there."""
    opened = []

    def begin(url=endpoint.url):
        opened.append(http.client.HTTPConnection("127.0.0.1", int(url.rsplit(":", 1)[1]), timeout=60))
        body = json.dumps({"messages": MESSAGE})
        opened[-1].request("POST", f"/model/{NANO}/converse", body, {"content-type": "application/json"})
        return opened[-1].getresponse()

    yield begin
    for connection in opened:
        connection.close()


def test_an_endless_answer_begins_and_goes_on_with_blanks_and_is_not_paid_for(endpoint, begin):
    endpoint.faults.add(Fault("endless"))
    response = begin()
    assert (response.status, response.read(5)) == (200, b"     ")
    assert [(e.status, e.error) for e in endpoint.journal] == [(0, "endless")]
    assert endpoint.journal.cost_usd == 0


def test_an_endpoint_that_stops_breaks_an_endless_answer_off(endpoint, begin, catalogue, caplog):
    endpoint.faults.add(Fault("endless"))
    stopping = LocalEndpoint(catalogue)
    stopping._engine = endpoint._engine  # whose models are loaded
    with stopping:
        response = begin(stopping.url)
        assert response.read(1) == b" "
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    assert not caplog.records


def test_an_endless_answer_leaves_streams_alone(endpoint, boto):
    endpoint.faults.add(Fault("endless"))
    kinds = [next(iter(e)) for e in boto.converse_stream(modelId=NANO, messages=MESSAGE)["stream"]]
    assert kinds[-1] == "metadata"


def test_a_slow_answer_says_so_in_its_latency(endpoint, ask):
    before = ask()["metrics"]["latencyMs"]
    endpoint.faults.add(Fault("slow", delay_ms=5_000))
    assert ask()["metrics"]["latencyMs"] == pytest.approx(before + 5_000, abs=1)


def test_an_invalid_output_is_prose_that_is_paid_for(endpoint, ask):
    endpoint.faults.add(Fault("invalid_output"))
    schema = {"type": "object", "properties": {"mood": {"enum": ["calm", "angry"]}}, "required": ["mood"]}
    reply = ask(toolConfig={"tools": [{"toolSpec": {"name": "note", "inputSchema": {"json": schema}}}]})
    assert "{" not in reply["output"]["message"]["content"][0]["text"]
    assert reply["usage"]["outputTokens"] > 0


def test_botocore_retries_503_but_not_408(endpoint, make_boto, no_backoff):
    client = make_boto(mode="standard", total_max_attempts=3)
    endpoint.faults.add(Fault("ServiceUnavailableException"))
    with pytest.raises(client.exceptions.ServiceUnavailableException) as unavailable:
        client.converse(modelId=NANO, messages=MESSAGE)
    endpoint.faults.clear()
    endpoint.faults.add(Fault("ModelTimeoutException"))
    with pytest.raises(client.exceptions.ModelTimeoutException) as timeout:
        client.converse(modelId=NANO, messages=MESSAGE)
    tried = [e.value.response["ResponseMetadata"]["RetryAttempts"] for e in (unavailable, timeout)]
    assert tried == [2, 0]
    assert len(endpoint.journal) == 4
