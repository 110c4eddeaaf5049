"""Replies: text or tool JSON, whatever the model made of it."""

from __future__ import annotations

import pytest

from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.bedrock.replies import first_object, reply_from_wire

TOOL_USE = {"toolUse": {"toolUseId": "t1", "name": "note", "input": {"mood": "calm"}}}


@pytest.fixture
def reply(catalogue):
    def reply(*content: dict, **response):
        message = {"role": "assistant", "content": list(content)}
        return reply_from_wire({"output": {"message": message}, **response}, catalogue["strong"], wall_ms=12)

    return reply


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', {"a": 1}),
        ('```json\n{"a": {"b": "}"}}\n```', {"a": {"b": "}"}}),
        ('Here it is: {"a": 1}. And {"a": 2}.', {"a": 1}),
        ('{not this} but {"a": 1}', {"a": 1}),
        ('{"a": 1', None),
        ("no JSON at all", None),
        ("[1, 2]", None),
        ('[{"a": 1}]', {"a": 1}),
        ("", None),
        ("{" * 3_000, None),
    ],
    ids=["bare", "fenced", "the first of two", "braces before", "cut", "prose", "a list", "in a list", "empty", "deep"],
)
def test_the_first_object_of_a_text_is_found(text, found):
    assert first_object(text) == found


def test_text_blocks_are_joined(reply):
    assert reply({"text": "Hello "}, TOOL_USE, {"text": "there"}).text == "Hello there"


def test_a_tool_call_is_the_data(reply):
    called = reply({"text": '{"mood": "angry"}'}, TOOL_USE)
    assert (called.data, called.came_as, called.tool_use["name"]) == ({"mood": "calm"}, "tool", "note")


def test_json_in_the_text_is_the_data_too(reply):
    written = reply({"text": 'Sure: {"mood": "angry"}'})
    assert (written.data, written.came_as, written.tool_use) == ({"mood": "angry"}, "text", None)


def test_a_tool_input_that_was_cut_off_is_no_data(reply):
    assert reply({"toolUse": {"toolUseId": "t1", "name": "note", "input": '{"mood": "ca'}}).data is None


def test_usage_is_priced(reply, catalogue):
    answer = reply(usage={"inputTokens": 1_650, "outputTokens": 231, "totalTokens": 1_881})
    assert answer.usage == Usage(input_tokens=1_650, output_tokens=231)
    assert answer.cost_usd == 0.0092565


def test_attempts_are_retries_and_one(reply):
    assert reply().attempts == 1
    assert reply(ResponseMetadata={"RetryAttempts": 2, "RequestId": "r"}).attempts == 3


def test_a_stop_by_a_guardrail_is_seen(reply):
    assert reply(stopReason="guardrail_intervened").blocked
    assert not reply(stopReason="end_turn").blocked


def test_a_reply_says_who_answered(reply):
    answer = reply({"text": "x"}, metrics={"latencyMs": 340}, ResponseMetadata={"RequestId": "r"})
    assert (answer.model, answer.model_id) == ("claude-sonnet-4-6", "us.anthropic.claude-sonnet-4-6")
    assert (answer.latency_ms, answer.wall_ms, answer.request_id) == (340, 12, "r")
