"""What Converse and CountTokens answer, and which requests they refuse in the service's words."""

from __future__ import annotations

import pytest

from workshop_lib.local.engine import draw_latency_ms
from workshop_lib.local.wire import Wire
from workshop_lib.triage.task import TRIAGE

NANO = "nvidia.nemotron-nano-3-30b"
HAIKU = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
SONNET = "us.anthropic.claude-sonnet-4-6"
OPUS = "us.anthropic.claude-opus-4-7"
CACHE_POINT = {"cachePoint": {"type": "default"}}


def _turn(role: str, *texts: str) -> dict:
    return {"role": role, "content": [{"text": text} for text in texts]}


# Answers


def test_a_plain_question_gets_text_usage_and_latency(ask):
    reply = ask("hello", system=[{"text": "be brief"}], inferenceConfig={"maxTokens": 200, "temperature": 0.0})
    assert reply["output"]["message"]["role"] == "assistant"
    assert "small local model" in reply["output"]["message"]["content"][0]["text"]
    assert reply["stopReason"] == "end_turn"
    assert reply["usage"]["totalTokens"] == reply["usage"]["inputTokens"] + reply["usage"]["outputTokens"] > 0
    assert reply["metrics"]["latencyMs"] > 0
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_a_forced_tool_is_called_behind_cache_points_and_a_tier(ask, a_ticket):
    tools = TRIAGE.tool.to_wire()
    reply = ask(
        TRIAGE.describe(a_ticket),
        modelId=HAIKU,
        toolConfig={**tools, "tools": [*tools["tools"], CACHE_POINT]},
        system=[{"text": TRIAGE.system}, {"cachePoint": {"type": "default", "ttl": "1h"}}],
        serviceTier={"type": "flex"},
    )
    use = reply["output"]["message"]["content"][0]["toolUse"]
    assert (use["name"], use["input"]["category"]) == ("record_triage", "billing")
    assert reply["stopReason"] == "tool_use"
    assert reply["serviceTier"] == {"type": "flex"}


def test_a_tool_result_goes_on_with_the_conversation(ask, a_ticket):
    first = ask(TRIAGE.describe(a_ticket), modelId=SONNET, toolConfig=TRIAGE.tool.to_wire())["output"]["message"]
    use_id = first["content"][0]["toolUse"]["toolUseId"]
    result = {"toolResult": {"toolUseId": use_id, "content": [{"text": "again"}], "status": "error"}}
    messages = [_turn("user", TRIAGE.describe(a_ticket)), first, {"role": "user", "content": [result]}]
    assert ask(modelId=SONNET, messages=messages, toolConfig=TRIAGE.tool.to_wire())["stopReason"] == "tool_use"


def test_an_answer_that_is_too_long_is_cut_at_max_tokens(ask, a_ticket):
    reply = ask(
        TRIAGE.describe(a_ticket),
        modelId=SONNET,
        toolConfig=TRIAGE.tool.to_wire(),
        inferenceConfig={"maxTokens": 10},
    )
    assert reply["stopReason"] == "max_tokens"
    assert reply["usage"]["outputTokens"] == 10


def test_the_form_can_be_asked_for_as_structured_output(ask):
    schema = '{"type": "object", "properties": {"mood": {"enum": ["calm", "angry"]}}, "required": ["mood"]}'
    structure = {"jsonSchema": {"schema": schema, "name": "mood"}}
    reply = ask(modelId=SONNET, outputConfig={"textFormat": {"type": "json_schema", "structure": structure}})
    assert reply["output"]["message"]["content"][0]["text"] in ('{"mood": "calm"}', '{"mood": "angry"}')
    assert reply["stopReason"] == "end_turn"


def test_a_token_of_claude_is_shorter_than_one_of_nemotron(ask):
    text = "The export to CSV fails with an error since the update of last Tuesday, for every project we have. " * 5
    ratio = ask(text, modelId=SONNET)["usage"]["inputTokens"] / ask(text, modelId=NANO)["usage"]["inputTokens"]
    assert ratio == pytest.approx(1.31, abs=0.02)


def test_latencies_follow_the_profile_of_the_model(catalogue):
    spec = catalogue["strong"]
    drawn = sorted(draw_latency_ms(spec, f"request {i}") for i in range(2_000))
    assert drawn[1_000] == pytest.approx(spec.latency_p50_ms, rel=0.05)
    assert drawn[1_900] == pytest.approx(spec.latency_p95_ms, rel=0.05)


# Counting


@pytest.mark.parametrize("model_id", [NANO, SONNET, OPUS], ids=["nano", "sonnet", "opus"])
def test_count_tokens_equals_what_the_same_call_is_billed_for(boto, ask, a_ticket, model_id):
    request = {
        "messages": [_turn("user", TRIAGE.describe(a_ticket))],
        "system": [{"text": TRIAGE.system}],
        "toolConfig": TRIAGE.tool.to_wire(),
    }
    counted = boto.count_tokens(modelId=model_id.removeprefix("us."), input={"converse": request})["inputTokens"]
    assert counted == ask(modelId=model_id, **request)["usage"]["inputTokens"] > 500


def test_count_tokens_reads_an_invoke_model_body_too(boto, ask):
    body = b'{"max_tokens": 9, "messages": [{"role": "user", "content": "The export fails."}]}'
    counted = boto.count_tokens(modelId=SONNET, input={"invokeModel": {"body": body}})["inputTokens"]
    assert counted == ask(modelId=SONNET)["usage"]["inputTokens"]


# Refusals

REFUSALS = {
    "temperature above 1": (NANO, {"inferenceConfig": {"temperature": 1.5}}, "less than or equal to 1"),
    "a tier that does not exist": (NANO, {"serviceTier": {"type": "turbo"}}, "enum value set"),
    "a tool name with a blank": (
        NANO,
        {"toolConfig": {"tools": [{"toolSpec": {"name": "a b", "inputSchema": {"json": {}}}}]}},
        "regular expression",
    ),
    "a blank text": (NANO, {"messages": [_turn("user", "  \n")]}, "messages.0.content.0 is blank"),
    "an empty content": (NANO, {"messages": [_turn("user")]}, "messages.0 is empty"),
    "an assistant that starts": (NANO, {"messages": [_turn("assistant", "x")]}, "must start with a user message"),
    "more tokens than the model has": (NANO, {"inferenceConfig": {"maxTokens": 8_001}}, "exceeds the model limit of 8000"),
    "a temperature for a model without": (OPUS, {"inferenceConfig": {"temperature": 0.0}}, "`temperature` is not supported"),
    "a forced tool that is not there": (
        NANO,
        {"toolConfig": {**TRIAGE.tool.to_wire(), "toolChoice": {"tool": {"name": "other"}}}},
        "other of toolChoice",
    ),
    "a tool result without a call": (
        NANO,
        {"messages": [{"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [{"text": "x"}]}}]}]},
        "answers no toolUse",
    ),
    "a bare id of claude": (SONNET.removeprefix("us."), {}, "on-demand throughput isn.t supported"),
    "an unknown id": ("meta.llama-9", {}, "model identifier is invalid"),
    "a schema that is not json": (
        SONNET,
        {"outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": "{"}}}}},
        "not a JSON object",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model_id", "fields", "words"), REFUSALS.values(), ids=REFUSALS.keys())
def test_it_refuses(boto, ask, endpoint, model_id, fields, words):
    with pytest.raises(boto.exceptions.ValidationException, match=words) as raised:
        ask(modelId=model_id, **fields)
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert endpoint.journal.cost_usd == 0


@pytest.mark.parametrize("where", ["tools", "system", "messages"])
def test_a_cache_point_for_a_model_without_a_cache_is_a_403(boto, ask, where):
    tools = TRIAGE.tool.to_wire()
    fields = {
        "tools": {"toolConfig": {**tools, "tools": [*tools["tools"], CACHE_POINT]}},
        "system": {"system": [{"text": "x"}, CACHE_POINT]},
        "messages": {"messages": [{"role": "user", "content": [{"text": "x"}, CACHE_POINT]}]},
    }[where]
    with pytest.raises(boto.exceptions.AccessDeniedException, match="prompt caching"):
        ask(modelId=NANO, **fields)


def test_an_arn_of_the_bare_model_is_refused_like_its_id(boto, ask):
    with pytest.raises(boto.exceptions.ValidationException, match="on-demand"):
        ask(modelId="arn:aws:bedrock:us-west-2::foundation-model/anthropic.claude-sonnet-4-6")


def test_every_answer_fits_the_services_own_output_shapes(boto, ask):
    wire = Wire()
    say = [{"role": "user", "content": [{"text": "x"}]}]
    answers = {
        "Converse": ask(
            guardrailConfig={"guardrailIdentifier": "workshop", "guardrailVersion": "1", "trace": "enabled"}
        ),
        "CountTokens": boto.count_tokens(modelId=NANO, input={"converse": {"messages": say}}),
        "ApplyGuardrail": boto.apply_guardrail(
            guardrailIdentifier="workshop",
            guardrailVersion="1",
            source="INPUT",
            content=[{"text": {"text": "this is forbidden, write to a@example.com"}}],
        ),
    }
    for name, answer in answers.items():
        answer.pop("ResponseMetadata")
        assert wire.problems(wire.model.operation_model(name).output_shape, answer) == []
