"""Bedrock's protocol, held against the service model and the parsers of the installed botocore."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from botocore.eventstream import EventStreamBuffer

from workshop_lib.local.wire import ServiceError, Wire, event_bytes

HAIKU = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
PROFILE_ARN = f"arn:aws:bedrock:us-west-2:123456789012:inference-profile/{HAIKU}"
WIRE = Wire()


@pytest.mark.parametrize(
    "model_id", [HAIKU, PROFILE_ARN, "nvidia.nemotron-nano-3-30b"], ids=["colon", "arn with slash", "plain"]
)
def test_a_model_id_is_read_from_the_undecoded_path(model_id):
    operation, path = WIRE.route("POST", f"/model/{quote(model_id, safe='')}/converse")
    assert (operation.name, path) == ("Converse", {"modelId": model_id})


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/model/m/converse", "Converse"),
        ("POST", "/model/m/converse/", "Converse"),
        ("POST", "/model/m/converse-stream", "ConverseStream"),
        ("POST", "/model/m/invoke", "InvokeModel"),
        ("POST", "/model/m/count-tokens", "CountTokens"),
        ("POST", "/guardrail/g/version/1/apply", "ApplyGuardrail"),
    ],
)
def test_a_path_leads_to_its_operation(method, path, name):
    assert WIRE.route(method, path)[0].name == name


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/model/m/dance"), ("GET", "/model/m/converse"), ("POST", "/model/a/b/converse")]
)
def test_a_path_of_no_operation_is_refused(method, path):
    with pytest.raises(ServiceError) as refused:
        WIRE.route(method, path)
    assert refused.value.code == "UnknownOperationException"
    assert path in refused.value.message


@pytest.mark.parametrize("shape", WIRE.errors.values(), ids=lambda shape: shape.name)
def test_an_error_of_the_model_has_its_status_and_its_name_in_the_header(shape):
    response = WIRE.error(ServiceError(shape.name, "because"))
    assert response.status == shape.metadata["error"]["httpStatusCode"]
    assert response.headers["x-amzn-errortype"] == shape.name
    assert json.loads(response.body) == {"message": "because"}


@pytest.mark.parametrize(
    ("code", "status"),
    [("UnknownOperationException", 404), ("ExpiredTokenException", 403), ("SerializationException", 400)],
)
def test_an_error_of_the_front_door_has_a_status_too(code, status):
    assert WIRE.error(ServiceError(code, "because")).status == status


def test_members_of_an_error_go_into_its_body():
    body = WIRE.error(ServiceError("ModelErrorException", "because", originalStatusCode=500)).body
    assert json.loads(body)["originalStatusCode"] == 500


def _parsed(body: bytes, operation: str = "Converse") -> dict:
    return WIRE.parse(WIRE.model.operation_model(operation), {"modelId": "m"}, {}, body)


def test_base64_in_the_body_becomes_bytes():
    image = {"image": {"format": "png", "source": {"bytes": base64.b64encode(b"\x89PNG").decode()}}}
    params = _parsed(json.dumps({"messages": [{"role": "user", "content": [image]}]}).encode())
    assert params["messages"][0]["content"][0]["image"]["source"]["bytes"] == b"\x89PNG"


def test_the_body_of_an_opaque_operation_stays_as_it_is():
    assert _parsed(b"not json", "InvokeModel")["body"] == b"not json"


def test_a_document_is_not_looked_into_for_base64():
    tool = {"toolSpec": {"name": "t", "inputSchema": {"json": {"bytes": "AAAA"}}}}
    params = _parsed(json.dumps({"toolConfig": {"tools": [tool]}}).encode())
    assert params["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"] == {"bytes": "AAAA"}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[1]",
        b"\xff",
        b'{"messages":[{"role":"user","content":[{"image":{"format":"png","source":{"bytes":"%"}}}]}]}',
    ],
    ids=["cut", "a list", "not utf-8", "broken base64"],
)
def test_an_unreadable_body_is_a_serialization_error(body):
    with pytest.raises(ServiceError) as refused:
        _parsed(body)
    assert refused.value.code == "SerializationException"


def _refusal(**params) -> str:
    messages = [{"role": "user", "content": [{"text": "x"}]}]
    with pytest.raises(ServiceError) as refused:
        WIRE.check(WIRE.model.operation_model("Converse"), {"modelId": "m", "messages": messages, **params})
    assert refused.value.code == "ValidationException"
    return refused.value.message


def test_every_field_at_fault_is_named():
    message = _refusal(inferenceConfig={"temperature": 1.5, "topP": 2.0})
    assert message.startswith("2 validation errors detected")
    assert "'inferenceConfig.temperature'" in message
    assert "'inferenceConfig.topP'" in message


def test_a_missing_field_is_named():
    assert '"role"' in _refusal(messages=[{"content": []}])


def test_a_long_value_is_not_repeated_whole():
    assert len(_refusal(toolConfig={"tools": [{"toolSpec": {"name": "x" * 5_000, "inputSchema": {}}}]})) < 500


def test_a_proper_request_passes():
    operation = WIRE.model.operation_model("Converse")
    WIRE.check(operation, {"modelId": "m", "messages": [{"role": "user", "content": [{"text": "x"}]}]})


def _decoded(raw: bytes):
    buffer = EventStreamBuffer()
    buffer.add_data(raw)
    (event,) = list(buffer)
    return event


def test_an_event_is_what_botocore_reads():
    event = _decoded(event_bytes({"contentBlockDelta": {"delta": {"text": "Grüße 🎟"}, "contentBlockIndex": 0}}))
    assert event.headers[":event-type"] == "contentBlockDelta"
    assert json.loads(event.payload)["delta"]["text"] == "Grüße 🎟"


def test_an_error_in_a_stream_goes_by_its_camel_case_name():
    event = _decoded(event_bytes(ServiceError("ModelStreamErrorException", "broke", originalStatusCode=500)))
    assert event.headers[":message-type"] == "exception"
    assert event.headers[":exception-type"] == "modelStreamErrorException"
    assert json.loads(event.payload) == {"message": "broke", "originalStatusCode": 500}


def test_bytes_in_a_result_become_base64():
    operation = WIRE.model.operation_model("Converse")
    assert json.loads(WIRE.result(operation, {"x": b"\x89PNG"}).body) == {"x": base64.b64encode(b"\x89PNG").decode()}


def test_members_with_a_header_location_leave_as_headers():
    operation = WIRE.model.operation_model("InvokeModel")
    response = WIRE.result(operation, {"body": b"{}", "contentType": "application/json"})
    assert (response.body, response.headers["content-type"]) == (b"{}", "application/json")
