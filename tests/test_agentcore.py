"""The agent as AgentCore serves it: over real HTTP, by curl's way and by unchanged boto3."""

import http.client
import json
import logging
import uuid
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import botocore.exceptions
import pytest
from botocore.config import Config
from pydantic import BaseModel

from workshop_lib import Cascade, ConfigurationError, Tier, load_tickets
from workshop_lib.agentcore import MAX_PAYLOAD, make_app, serve
from workshop_lib.bedrock.errors import Throttled
from workshop_lib.tracing import load_traces, open_tracing, trace_cascade, traced

ARN = "arn:aws:bedrock-agentcore:us-west-2:123456789012:runtime/shop_agent-Ab12Cd34Ef"
SESSION_HEADER = "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"


def echo(payload, session_id):
    return {"said": payload["prompt"], "session": session_id}


@pytest.fixture(scope="module")
def echoing():
    with serve(make_app(echo)) as url:
        yield url


def send(url, method, path, body=None, **headers):
    raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, path, raw, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    finally:
        connection.close()


def ask(url, body, **headers):
    return send(url, "POST", "/invocations", body, **headers)


@pytest.fixture
def client_of(_boto_session):
    def make(url):
        config = Config(retries={"total_max_attempts": 1}, read_timeout=10)
        return _boto_session.client("bedrock-agentcore", endpoint_url=url, config=config)

    return make


def test_it_says_that_it_is_well(echoing):
    status, said = send(echoing, "GET", "/ping")
    assert (status, said["status"]) == (200, "Healthy")


def test_an_invocation_is_answered_with_its_session(echoing):
    assert ask(echoing, {"prompt": "Hé"}, **{SESSION_HEADER: "s-1"}) == (200, {"said": "Hé", "session": "s-1"})
    assert ask(echoing, {"prompt": "Hello"}) == (200, {"said": "Hello", "session": None})


def test_it_is_reached_from_this_machine_alone(echoing):
    assert urlsplit(echoing).hostname == "127.0.0.1"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "Invalid JSON"),
        (b"\xff", 400, "Invalid"),
        ([], 400, "list, not an object"),
        ("hello", 400, "str, not an object"),
        (None, 400, "Invalid JSON"),
        ({}, 400, "no prompt"),
        ({"Prompt": "x"}, 400, "no prompt"),
        ({"prompt": 5}, 400, "int, not a text"),
        ({"prompt": None}, 400, "not a text"),
        ({"prompt": " \n"}, 400, "empty"),
        ({"prompt": "x" * MAX_PAYLOAD}, 413, "longer than 100,000 bytes"),
    ],
)
def test_a_payload_that_cannot_be_used_is_refused_with_what_to_send(echoing, body, status, said):
    got, failure = ask(echoing, body)
    assert got == status
    assert said in failure["error"]


def test_a_payload_just_short_enough_is_answered(echoing):
    prompt = "x" * (MAX_PAYLOAD - len(json.dumps({"prompt": ""})))
    assert ask(echoing, {"prompt": prompt})[0] == 200
    assert ask(echoing, {"prompt": prompt + "x"})[0] == 413


def test_unchanged_boto3_invokes_it_under_any_arn(echoing, client_of):
    session = str(uuid.uuid4())
    answer = client_of(echoing).invoke_agent_runtime(
        agentRuntimeArn=ARN, runtimeSessionId=session, payload=json.dumps({"prompt": "Hello"}).encode()
    )
    assert answer["statusCode"] == 200
    assert answer["contentType"] == "application/json"
    assert json.loads(answer["response"].read()) == {"said": "Hello", "session": session}


@pytest.mark.parametrize(("payload", "status"), [(b"{}", 400), (b"x" * (MAX_PAYLOAD + 1), 413), (b"{", 400)])
def test_to_boto3_an_apps_error_is_what_agentcore_makes_of_it(echoing, client_of, payload, status):
    client = client_of(echoing)
    with pytest.raises(client.exceptions.RuntimeClientError) as raised:
        client.invoke_agent_runtime(agentRuntimeArn=ARN, payload=payload)
    assert f"Received error ({status}) from runtime" in str(raised.value)
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 424


def test_another_path_is_not_found(echoing, client_of):
    with pytest.raises(botocore.exceptions.ClientError):
        client_of(echoing).stop_runtime_session(agentRuntimeArn=ARN, runtimeSessionId=str(uuid.uuid4()))


def failing(error):
    def answer(payload, session_id):
        raise error

    return answer


def test_a_model_that_fails_is_a_502_with_what_to_do_next():
    with serve(make_app(failing(Throttled("sonnet: too many requests.", model="sonnet")))) as url:
        status, said = ask(url, {"prompt": "Hello"})
    assert status == 502
    assert "Use fewer workers" in said["error"]


def test_an_error_of_the_agent_is_named_but_its_message_told_to_nobody(caplog):
    with serve(make_app(failing(ValueError("the password is hunter22")))) as url, caplog.at_level(logging.INFO):
        status, said = ask(url, {"prompt": "Hello"})
    assert status == 500
    assert "ValueError" in said["error"]
    assert "hunter22" not in json.dumps(said) + caplog.text
    assert "in answer" in caplog.text


class Answered(BaseModel):
    tier: str
    cost_usd: float


@pytest.mark.parametrize(
    ("result", "status"),
    [(Answered(tier="cheap", cost_usd=0.1), 200), ({"a": Answered(tier="cheap", cost_usd=0.1)}, 200),
     ("text", 500), (None, 500), ({"a": float("nan")}, 200), ({"a": object()}, 500)],
)  # fmt: skip
def test_a_result_is_json_or_an_error(result, status):
    with serve(make_app(lambda payload, session_id: result)) as url:
        got, said = ask(url, {"prompt": "Hello"})
    assert got == status
    assert isinstance(said, dict)


def test_an_invocation_is_one_trace_with_its_session_and_bill(tmp_path, bedrock, endpoint, client_of):
    path, session = tmp_path / "traces.db", str(uuid.uuid4())
    with open_tracing(path, environ={}) as tracer:
        cascade = trace_cascade(Cascade([Tier("cheap")], client=bedrock), tracer)
        ticket = load_tickets("workshop")[0]

        def answer(payload, session_id):
            reply = traced(bedrock, tracer).converse("classifier", payload["prompt"])
            return {"class": reply.text, "decision": cascade.run(ticket).decision}

        with serve(make_app(answer, tracer=tracer)) as url:
            client = client_of(url)
            payload = b'{"prompt": "my card 4242"}'
            client.invoke_agent_runtime(agentRuntimeArn=ARN, runtimeSessionId=session, payload=payload)[
                "response"
            ].read()
            ask(url, {"prompt": ""})
    (trace,) = load_traces(path)
    assert [(d, s.name.split()[0]) for d, s in trace.tree()] == [
        (0, "invocation"), (1, "chat"), (1, "cascade"), (2, "tier"), (3, "chat"),
    ]  # fmt: skip
    assert trace.root.attributes["session.id"] == session
    assert trace.root.attributes["workshop.request_id"]
    assert trace.cost_usd == pytest.approx(endpoint.journal.cost_usd)
    assert b"4242" not in path.read_bytes()


def test_an_invocation_that_fails_is_a_failed_trace(tmp_path):
    path = tmp_path / "traces.db"
    with open_tracing(path, environ={}) as tracer, serve(make_app(failing(KeyError("x")), tracer=tracer)) as url:
        ask(url, {"prompt": "Hello"})
    (trace,) = load_traces(path)
    assert trace.failed
    assert trace.root.attributes["error.type"] == "KeyError"


def test_eight_at_once_get_each_their_own_answer_and_trace(tmp_path, bedrock):
    path = tmp_path / "traces.db"
    with open_tracing(path, environ={}) as tracer:
        client = traced(bedrock, tracer)

        def answer(payload, session_id):
            client.converse("cheap", payload["prompt"])
            return {"prompt": payload["prompt"], "session": session_id}

        with serve(make_app(answer, tracer=tracer)) as url, ThreadPoolExecutor(8) as pool:
            said = list(pool.map(lambda n: ask(url, {"prompt": f"p{n}"}, **{SESSION_HEADER: f"s{n}"}), range(40)))
    assert [body for _, body in said] == [{"prompt": f"p{n}", "session": f"s{n}"} for n in range(40)]
    found = load_traces(path)
    assert sorted(t.root.attributes["session.id"] for t in found) == sorted(f"s{n}" for n in range(40))
    assert all(len(trace.calls) == 1 for trace in found)


def test_a_port_that_is_taken_is_said(echoing):
    with pytest.raises(ConfigurationError, match="cannot be used"), serve(make_app(echo), port=urlsplit(echoing).port):
        pass


def test_when_the_with_ends_nobody_answers():
    with serve(make_app(echo)) as url:
        assert send(url, "GET", "/ping")[0] == 200
    with pytest.raises(OSError, match=r".*"):
        send(url, "GET", "/ping")
