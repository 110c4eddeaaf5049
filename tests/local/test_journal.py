"""The journal counts HTTP requests, logical calls, errors and money."""

from __future__ import annotations

import pytest

from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.local.faults import Fault
from workshop_lib.local.journal import Entry, Journal

NANO = "nvidia.nemotron-nano-3-30b"
MESSAGE = [{"role": "user", "content": [{"text": "The export fails."}]}]


def _entry(invocation: str, attempt: int = 1, **fields) -> Entry:
    return Entry("Converse", NANO, invocation, attempt, **fields)


def test_requests_of_one_invocation_are_one_call():
    journal = Journal()
    for entry in (_entry("a", 1), _entry("a", 2), _entry("b"), _entry(""), _entry("")):
        journal.add(entry)
    assert (len(journal), journal.calls) == (5, 4)


def test_errors_are_counted_by_name():
    journal = Journal()
    for error in ("ThrottlingException", "", "ThrottlingException", "drop"):
        journal.add(_entry("a", error=error))
    assert journal.errors == {"ThrottlingException": 2, "drop": 1}


def test_only_the_last_entries_are_kept():
    journal = Journal(keep=2)
    for name in "abc":
        journal.add(_entry(name))
    assert [e.invocation for e in journal] == ["b", "c"]


def test_costs_add_up():
    journal = Journal()
    journal.add(_entry("a", cost_usd=0.25))
    journal.add(_entry("b", cost_usd=0.5))
    assert journal.cost_usd == 0.75


def test_an_answer_is_noted_with_its_usage_and_cost(endpoint, ask, catalogue):
    usage = Usage.from_wire(ask()["usage"])
    (entry,) = endpoint.journal
    assert (entry.operation, entry.model_id, entry.attempt, entry.status) == ("Converse", NANO, 1, 200)
    assert entry.usage == usage
    assert entry.cost_usd == catalogue["cheap"].cost(usage)


def test_the_retries_of_one_boto3_call_are_one_logical_call(endpoint, make_boto, no_backoff):
    endpoint.faults.add(Fault("ServiceUnavailableException", first=2))
    reply = make_boto(mode="standard", total_max_attempts=3).converse(modelId=NANO, messages=MESSAGE)
    assert reply["ResponseMetadata"]["RetryAttempts"] == 2
    assert (len(endpoint.journal), endpoint.journal.calls) == (3, 1)
    assert [(e.attempt, e.status) for e in endpoint.journal] == [(1, 503), (2, 503), (3, 200)]
    assert endpoint.journal.errors == {"ServiceUnavailableException": 2}


def test_an_error_costs_nothing(endpoint, boto, ask):
    with pytest.raises(boto.exceptions.ThrottlingException):
        ask(requestMetadata={"workshop-fault": "ThrottlingException"})
    (entry,) = endpoint.journal
    assert (entry.status, entry.error, entry.cost_usd) == (429, "ThrottlingException", 0)


def test_counting_tokens_is_noted_and_free(endpoint, boto):
    boto.count_tokens(modelId=NANO, input={"converse": {"messages": MESSAGE}})
    assert [(e.operation, e.cost_usd) for e in endpoint.journal] == [("CountTokens", 0)]


def test_a_broken_stream_is_noted_with_its_error(endpoint, boto):
    endpoint.faults.add(Fault("cut"))
    list(boto.converse_stream(modelId=NANO, messages=MESSAGE)["stream"])
    assert [(e.status, e.error) for e in endpoint.journal] == [(200, "cut")]


def test_the_guardrail_that_a_request_names_is_noted(endpoint, boto, ask):
    ask()
    ask(guardrailConfig={"guardrailIdentifier": "workshop", "guardrailVersion": "2"})
    boto.apply_guardrail(
        guardrailIdentifier="workshop", guardrailVersion="1", source="INPUT", content=[{"text": {"text": "Hello"}}]
    )
    assert [entry.guardrail for entry in endpoint.journal] == ["", "workshop 2", "workshop 1"]
