"""Guardrails block words and card numbers, and mask addresses: alone, before and after a model."""

from __future__ import annotations

import json

import pytest

from workshop_lib.local.guardrails import Guardrail, Guardrails, assess
from workshop_lib.local.wire import ServiceError

CARD = "4111 1111 1111 1111"
CONFIG = {"guardrailIdentifier": "workshop", "guardrailVersion": "1"}
GUARDRAIL = Guardrail(words=("forbidden",))


@pytest.mark.parametrize(
    "text",
    ["This is FORBIDDEN.", f"My card is {CARD}.", "AKIAIOSFODNN7EXAMPLE is the key"],
    ids=["word", "card", "aws key"],
)
def test_it_blocks(text):
    found = assess(GUARDRAIL, ["fine", text])
    assert (found.blocked, found.action) == (True, "GUARDRAIL_INTERVENED")


@pytest.mark.parametrize(
    "text",
    ["All is well.", "unforbiddenly", "order 4111 1111 1111 1112", "ticket 12345"],
    ids=["nothing", "part of a word", "a number that fails the checksum", "a short number"],
)
def test_it_lets_pass(text):
    found = assess(GUARDRAIL, [text])
    assert (found.blocked, found.action, found.texts) == (False, "NONE", (text,))


def test_it_masks_an_address_without_blocking():
    found = assess(GUARDRAIL, ["Write to ann@example.org, please."])
    assert (found.blocked, found.action) == (False, "GUARDRAIL_INTERVENED")
    assert found.texts == ("Write to {EMAIL}, please.",)


def test_it_counts_units_of_a_thousand_characters():
    usage = assess(GUARDRAIL, ["x" * 1_500, "y" * 501]).wire["invocationMetrics"]["usage"]
    assert (usage["wordPolicyUnits"], usage["sensitiveInformationPolicyUnits"]) == (3, 3)


@pytest.mark.parametrize("name", ["workshop", "arn:aws:bedrock:us-west-2:123456789012:guardrail/workshop"])
def test_a_guardrail_is_found_by_id_or_arn(name):
    assert Guardrails({("workshop", "1"): GUARDRAIL}).get(name, "1") is GUARDRAIL


def test_an_unknown_version_is_refused():
    with pytest.raises(ServiceError, match="does not exist") as refused:
        Guardrails({("workshop", "1"): GUARDRAIL}).get("workshop", "2")
    assert refused.value.code == "ResourceNotFoundException"


def test_a_blocked_input_never_reaches_the_model(ask, endpoint):
    reply = ask("this is forbidden", guardrailConfig={**CONFIG, "trace": "enabled"})
    assert reply["stopReason"] == "guardrail_intervened"
    words = reply["trace"]["guardrail"]["inputAssessment"]["workshop"]["wordPolicy"]["customWords"]
    assert words[0]["match"] == "forbidden"
    assert reply["usage"]["totalTokens"] == 0
    assert endpoint.journal.cost_usd == 0


def test_without_being_asked_for_there_is_no_trace(ask):
    assert "trace" not in ask("this is forbidden", guardrailConfig=CONFIG)


def test_an_innocent_input_is_answered_as_ever(ask):
    assert ask("hello", guardrailConfig=CONFIG)["output"] == ask("hello")["output"]


def test_a_blocked_output_is_withheld_but_paid_for(ask, endpoint):
    schema = {"type": "object", "properties": {"word": {"enum": ["forbidden"]}}, "required": ["word"]}
    structure = {"jsonSchema": {"schema": json.dumps(schema)}}
    reply = ask(
        outputConfig={"textFormat": {"type": "json_schema", "structure": structure}},
        guardrailConfig={**CONFIG, "trace": "enabled"},
    )
    assert reply["stopReason"] == "guardrail_intervened"
    assert "forbidden" not in reply["output"]["message"]["content"][0]["text"]
    assert "outputAssessments" in reply["trace"]["guardrail"]
    assert reply["usage"]["outputTokens"] > 0
    assert endpoint.journal.cost_usd > 0


def test_a_stream_is_stopped_like_a_whole_answer(boto):
    stream = boto.converse_stream(
        modelId="nvidia.nemotron-nano-3-30b",
        messages=[{"role": "user", "content": [{"text": "this is forbidden"}]}],
        guardrailConfig=CONFIG,
    )["stream"]
    assert [e["messageStop"]["stopReason"] for e in stream if "messageStop" in e] == ["guardrail_intervened"]


def test_an_unknown_guardrail_is_not_found(boto, ask):
    with pytest.raises(boto.exceptions.ResourceNotFoundException):
        ask(guardrailConfig={**CONFIG, "guardrailIdentifier": "other"})


def test_a_later_turn_is_looked_at_too(ask):
    turns = [("user", "hello"), ("assistant", "hi"), ("user", "this is forbidden")]
    messages = [{"role": role, "content": [{"text": text}]} for role, text in turns]
    assert ask(messages=messages, guardrailConfig=CONFIG)["stopReason"] == "guardrail_intervened"


def _applied(boto, text: str, source: str = "INPUT") -> dict:
    return boto.apply_guardrail(**CONFIG, source=source, content=[{"text": {"text": text}}])


def test_apply_guardrail_blocks(boto):
    answer = _applied(boto, "forbidden")
    assert answer["action"] == "GUARDRAIL_INTERVENED"
    assert answer["outputs"] == [{"text": GUARDRAIL.blocked_message}]


def test_apply_guardrail_masks(boto):
    answer = _applied(boto, "I am ann@example.org", "OUTPUT")
    assert answer["action"] == "GUARDRAIL_INTERVENED"
    assert answer["outputs"] == [{"text": "I am {EMAIL}"}]
    (entity,) = answer["assessments"][0]["sensitiveInformationPolicy"]["piiEntities"]
    assert (entity["type"], entity["action"], entity["match"]) == ("EMAIL", "ANONYMIZED", "ann@example.org")


def test_apply_guardrail_lets_pass(boto):
    answer = _applied(boto, "hello")
    assert (answer["action"], answer["outputs"]) == ("NONE", [])
