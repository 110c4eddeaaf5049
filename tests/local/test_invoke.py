"""InvokeModel speaks each provider's own dialect and means the same as Converse."""

from __future__ import annotations

import json

import pytest

from workshop_lib.triage.task import TRIAGE

NANO = "nvidia.nemotron-nano-3-30b"
SONNET = "us.anthropic.claude-sonnet-4-6"


@pytest.fixture
def invoke(boto):
    def invoke(model_id: str, body: object) -> dict:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = boto.invoke_model(modelId=model_id, body=raw)
        assert response["contentType"] == "application/json"
        return json.loads(response["body"].read())

    return invoke


def _anthropic(text: str = "The export fails.", **fields) -> dict:
    return {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 300,
        "messages": [{"role": "user", "content": text}],
        **fields,
    }


def test_claude_answers_in_the_messages_dialect(invoke, ask):
    answer = invoke(SONNET, _anthropic())
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "end_turn")
    converse = ask(modelId=SONNET, inferenceConfig={"maxTokens": 300})
    assert answer["usage"] == {
        "input_tokens": converse["usage"]["inputTokens"],
        "output_tokens": converse["usage"]["outputTokens"],
    }
    assert answer["content"] == [{"type": "text", "text": converse["output"]["message"]["content"][0]["text"]}]


def test_claude_calls_a_tool_in_the_messages_dialect(invoke, a_ticket):
    tool = {"name": "record_triage", "input_schema": dict(TRIAGE.tool.schema)}
    answer = invoke(
        SONNET,
        _anthropic(
            TRIAGE.describe(a_ticket),
            system=TRIAGE.system,
            temperature=0,
            tools=[tool],
            tool_choice={"type": "tool", "name": "record_triage"},
        ),
    )
    (block,) = answer["content"]
    assert (block["type"], block["name"], block["input"]["category"]) == ("tool_use", "record_triage", "billing")
    assert answer["stop_reason"] == "tool_use"


def test_nemotron_answers_in_the_chat_dialect(invoke, ask):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "The export fails."}]
    answer = invoke(NANO, {"messages": messages, "max_tokens": 300, "temperature": 0})
    converse = ask(system=[{"text": "be brief"}], inferenceConfig={"maxTokens": 300, "temperature": 0.0})
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == converse["output"]["message"]["content"][0]["text"]
    assert choice["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == converse["usage"]["totalTokens"]


def test_a_chat_answer_that_was_cut_says_length(invoke):
    answer = invoke(NANO, {"messages": [{"role": "user", "content": "The export fails."}], "max_tokens": 5})
    assert answer["choices"][0]["finish_reason"] == "length"


def test_contents_may_be_lists_of_blocks(invoke):
    blocks = [{"type": "text", "text": "The export"}, {"type": "text", "text": "fails."}]
    messages = [{"role": "user", "content": blocks}]
    assert invoke(SONNET, _anthropic(messages=messages))["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    ("model_id", "body"),
    [
        (SONNET, b"{"),
        (SONNET, b"[]"),
        (SONNET, {"messages": [{"role": "user", "content": "x"}]}),
        (SONNET, {"max_tokens": 5}),
        (NANO, {"a": 1}),
        (NANO, {"messages": "hello"}),
    ],
    ids=["not json", "a list", "claude without max_tokens", "no messages", "another dialect", "messages a text"],
)
def test_a_body_in_another_dialect_is_malformed(boto, invoke, model_id, body):
    with pytest.raises(boto.exceptions.ValidationException, match="Malformed input request"):
        invoke(model_id, body)


@pytest.mark.parametrize(
    "fields",
    [{"temperature": 1.5}, {"max_tokens": "many"}, {"messages": [{"role": "user", "content": [{"text": 5}]}]}],
    ids=["temperature above 1", "max_tokens a text", "text a number"],
)
def test_a_translated_body_is_checked_like_converse(boto, invoke, fields):
    with pytest.raises(boto.exceptions.ValidationException):
        invoke(SONNET, _anthropic(**fields))


def test_a_bare_id_of_claude_is_refused_here_too(boto, invoke):
    with pytest.raises(boto.exceptions.ValidationException, match="on-demand throughput"):
        invoke("anthropic.claude-sonnet-4-6", _anthropic())
