"""The endpoint as HTTP: paths, statuses, headers, streams, admin routes, and the port it listens on."""

from __future__ import annotations

import json
import re
import socket
import time
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.local.server import LocalEndpoint
from workshop_lib.local.wire import Wire

NANO = "nvidia.nemotron-nano-3-30b"
HAIKU = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
SONNET = "us.anthropic.claude-sonnet-4-6"
BODY = {"messages": [{"role": "user", "content": [{"text": "The export fails."}]}]}
MODELLED = {name: shape.metadata["error"]["httpStatusCode"] for name, shape in Wire().errors.items()}


# Errors on the wire


@pytest.mark.parametrize(("code", "status"), MODELLED.items(), ids=MODELLED.keys())
def test_boto3_raises_every_modelled_error_as_its_own_class(boto, ask, code, status):
    with pytest.raises(getattr(boto.exceptions, code)) as raised:
        ask(requestMetadata={"workshop-fault": code})
    response = raised.value.response
    assert isinstance(raised.value, ClientError)
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    assert response["ResponseMetadata"]["HTTPHeaders"]["x-amzn-errortype"] == code
    assert response["Error"]["Message"]


@pytest.mark.parametrize("code", ["ModelErrorException", "ModelStreamErrorException"])
def test_a_failed_model_tells_its_own_status(boto, ask, code):
    with pytest.raises(getattr(boto.exceptions, code)) as raised:
        ask(requestMetadata={"workshop-fault": code})
    assert raised.value.response["originalStatusCode"] == 500


@pytest.mark.parametrize("code", ["ExpiredTokenException", "UnrecognizedClientException"])
def test_an_error_of_the_front_door_is_a_403(ask, code):
    with pytest.raises(ClientError, match=code) as raised:
        ask(requestMetadata={"workshop-fault": code})
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


# Paths


@pytest.mark.parametrize(
    "model_id",
    [HAIKU, f"arn:aws:bedrock:us-west-2:123456789012:inference-profile/{SONNET}"],
    ids=["id with a colon", "arn with a slash"],
)
def test_boto3_reaches_a_model_whose_id_must_be_quoted(ask, endpoint, model_id):
    assert ask(modelId=model_id)["stopReason"] == "end_turn"
    assert [e.model_id for e in endpoint.journal] == [model_id]


def test_curl_needs_no_signature(send):
    answer = send("POST", f"/model/{quote(HAIKU, safe='')}/converse", BODY)
    assert (answer.status, answer.json["stopReason"]) == (200, "end_turn")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/model/m/dance"), ("GET", "/model/m/converse"), ("GET", "/"), ("PUT", "/nowhere")]
)
def test_an_unknown_path_is_a_404(send, method, path):
    answer = send(method, path)
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (404, "UnknownOperationException")


def test_an_operation_that_is_not_offered_is_a_404_that_says_what_is(send):
    answer = send("POST", f"/model/{NANO}/invoke-with-response-stream", {})
    assert answer.status == 404
    assert "InvokeModelWithResponseStream" in answer.json["message"]
    assert "ConverseStream" in answer.json["message"]


def test_a_body_that_is_not_json_is_a_400(send):
    answer = send("POST", f"/model/{NANO}/converse", b"{")
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "SerializationException")


def test_every_answer_has_a_request_id(send):
    good, bad = send("POST", f"/model/{NANO}/converse", BODY), send("GET", "/nowhere")
    assert good.headers["x-amzn-requestid"] != bad.headers["x-amzn-requestid"]


# Region, taken from the signature


@pytest.mark.parametrize(
    ("region", "model_id"),
    [("us-west-2", SONNET), ("us-east-1", SONNET), ("eu-central-1", SONNET.replace("us.", "global."))],
    ids=["us", "another us", "global from eu"],
)
def test_a_model_is_offered_in_the_regions_of_its_id(make_boto, region, model_id):
    assert make_boto(region).converse(modelId=model_id, **BODY)["stopReason"] == "end_turn"


def test_a_us_id_is_refused_in_europe(make_boto):
    client = make_boto("eu-central-1")
    with pytest.raises(client.exceptions.ValidationException, match="model identifier is invalid"):
        client.converse(modelId=SONNET, **BODY)


# Streams


def test_a_stream_of_text_is_the_answer_of_converse_in_pieces(boto, ask):
    events = list(boto.converse_stream(modelId=NANO, **BODY)["stream"])
    kinds = [next(iter(e)) for e in events]
    assert kinds[0] == "messageStart"
    assert kinds[-2:] == ["messageStop", "metadata"]
    text = "".join(e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e)
    whole = ask()
    assert text == whole["output"]["message"]["content"][0]["text"]
    assert events[-1]["metadata"]["usage"] == whole["usage"]


def test_a_streamed_tool_call_comes_as_fragments_of_json(boto):
    schema = {"type": "object", "properties": {"plan": {"type": "string", "enum": ["free", "paid"]}}}
    tools = {
        "tools": [{"toolSpec": {"name": "note", "inputSchema": {"json": {**schema, "required": ["plan"]}}}}],
        "toolChoice": {"tool": {"name": "note"}},
    }
    events = list(boto.converse_stream(modelId=SONNET, toolConfig=tools, **BODY)["stream"])
    (start,) = [e["contentBlockStart"]["start"]["toolUse"] for e in events if "contentBlockStart" in e]
    written = "".join(e["contentBlockDelta"]["delta"]["toolUse"]["input"] for e in events if "contentBlockDelta" in e)
    assert start["name"] == "note"
    assert json.loads(written)["plan"] in ("free", "paid")
    assert [e["messageStop"]["stopReason"] for e in events if "messageStop" in e] == ["tool_use"]


def test_a_stream_arrives_bit_by_bit(endpoint):
    endpoint.time_scale = 0.3
    raw = json.dumps(BODY).encode()
    head = f"POST /model/{NANO}/converse-stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(raw)}\r\n\r\n"
    arrived: list[tuple[float, bytes]] = []
    with socket.create_connection(("127.0.0.1", int(endpoint.url.rsplit(":", 1)[1])), timeout=10) as connection:
        connection.sendall(head.encode() + raw)
        while piece := connection.recv(65_536):
            arrived.append((time.monotonic(), piece))

    def when(word: bytes) -> float:
        return next(at for at, piece in arrived if word in piece)

    assert when(b"messageStart") < when(b"contentBlockDelta") < when(b"metadata")
    assert len(arrived) > 5


def test_a_stream_has_the_media_type_of_event_streams(send):
    answer = send("POST", f"/model/{NANO}/converse-stream", BODY)
    assert answer.headers["content-type"] == "application/vnd.amazon.eventstream"


def test_a_stream_has_a_request_id(send):
    assert "x-amzn-requestid" in send("POST", f"/model/{NANO}/converse-stream", BODY).headers


# Images and odd contents


def test_an_image_is_accepted_and_counted(ask):
    image = {"image": {"format": "png", "source": {"bytes": b"\x89PNG"}}}
    with_image = ask(messages=[{"role": "user", "content": [image, {"text": "The export fails."}]}])
    assert with_image["usage"]["inputTokens"] == ask()["usage"]["inputTokens"] + 1_500


@pytest.mark.parametrize(
    "schema",
    [
        "not an object",
        {"type": "object", "properties": ["a"]},
        {"type": "object", "properties": {"a": "string"}},
        {"type": "object", "properties": {"a": {"enum": 5}}},
        {"type": "object", "required": 5},
        {"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]},
    ],
    ids=["a string", "properties a list", "a field a string", "enum a number", "required a number", "empty enum"],
)
def test_a_senseless_schema_is_never_a_server_fault(send, schema):
    spec = {"toolSpec": {"name": "t", "inputSchema": {"json": schema}}}
    answer = send("POST", f"/model/{SONNET}/converse", {**BODY, "toolConfig": {"tools": [spec]}})
    assert answer.status == 400


# Admin routes


def test_health_says_where_it_listens(send, endpoint):
    assert send("GET", "/_local/health").json == {"status": "ok", "endpoint": endpoint.url, "calls": 0}


def test_the_journal_can_be_read_and_emptied(send, ask):
    ask()
    seen = send("GET", "/_local/journal").json
    assert (seen["calls"], len(seen["requests"])) == (1, 1)
    assert seen["requests"][0]["operation"] == "Converse"
    assert seen["cost_usd"] == seen["requests"][0]["cost_usd"] > 0
    assert send("DELETE", "/_local/journal").json["requests"] == []


def test_a_fault_can_be_put_in_force_and_taken_back(send, boto, ask):
    assert send("POST", "/_local/faults", {"kind": "ThrottlingException", "at": [1]}).status == 200
    with pytest.raises(boto.exceptions.ThrottlingException):
        ask()
    send("POST", "/_local/faults", {"kind": "ThrottlingException"})
    send("DELETE", "/_local/faults")
    assert ask()["stopReason"] == "end_turn"


def test_a_quota_can_be_put_in_force_and_taken_back(send, boto, ask):
    assert send("POST", "/_local/quotas", {"model": "nemotron-nano-3", "requests_per_minute": 1}).status == 200
    ask()
    with pytest.raises(boto.exceptions.ThrottlingException):
        ask()
    send("POST", "/_local/quotas", {"model": "nemotron-nano-3"})
    assert ask()["stopReason"] == "end_turn"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/_local/faults", {"kind": "bad-mood"}),
        ("/_local/faults", {"kind": "slow", "often": 3}),
        ("/_local/faults", [1, 2]),
        ("/_local/quotas", {"requests_per_minute": 1}),
        ("/_local/quotas", b"{"),
    ],
    ids=["unknown fault", "unknown field", "a list", "no model", "not json"],
)
def test_a_wrong_admin_request_is_a_400_that_says_why(send, path, body):
    answer = send("POST", path, body)
    assert answer.status == 400
    assert answer.json["error"]


def test_a_quota_for_an_unknown_model_is_refused(send):
    assert send("POST", "/_local/quotas", {"model": "nano", "requests_per_minute": 1}).status == 400


# The port


def test_it_listens_on_loopback_only(endpoint):
    port = int(endpoint.url.rsplit(":", 1)[1])
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", endpoint.url)
    with socket.socket() as other:  # 127.0.0.2 is loopback too, but another address: free if only 127.0.0.1 is bound
        other.bind(("127.0.0.2", port))


def test_a_taken_port_is_named(catalogue, endpoint):
    port = int(endpoint.url.rsplit(":", 1)[1])
    with pytest.raises(ConfigurationError, match=f"Port {port} ") as raised:
        LocalEndpoint(catalogue, port=port).start()
    assert "another port" in raised.value.advice


def test_a_stopped_endpoint_frees_its_port_and_can_start_again(catalogue):
    with LocalEndpoint(catalogue) as endpoint:
        url = endpoint.url
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=1)
    with endpoint:
        assert endpoint.url == url
