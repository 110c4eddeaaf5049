"""Tickets and decisions: what is let in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from workshop_lib import Decision, Ticket
from workshop_lib.triage.schema import MAX_BODY

BAD = {
    "empty": {"id": "1", "subject": "", "body": "  "},
    "no id": {"subject": "a", "body": "b"},
    "id is a number": {"id": 7, "subject": "a", "body": "b"},
    "body is a list": {"id": "1", "subject": "a", "body": ["b"]},
    "body is None": {"id": "1", "subject": "a", "body": None},
    "null characters": {"id": "1", "subject": "a", "body": "b\x00c"},
    "binary": {"id": "1", "subject": "a", "body": "\x89PNG\r\n\x1a\n\x01\x02"},
    "half a character": {"id": "1", "subject": "a", "body": "\ud83d"},
    "a megabyte": {"id": "1", "subject": "a", "body": "x" * 1_000_000},
    "unknown plan": {"id": "1", "subject": "a", "body": "b", "customer_tier": "gold"},
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD)
def test_a_bad_ticket_is_refused(raw):
    with pytest.raises(ValidationError):
        Ticket.model_validate(raw)


@pytest.mark.parametrize("raw", [{"subject": "only a subject"}, {"body": "only a body"}], ids=["subject", "body"])
def test_a_subject_or_a_body_is_enough(raw):
    assert Ticket.model_validate({"id": "1", **raw})


def test_the_longest_body_is_let_in():
    assert Ticket(id="1", body="x" * MAX_BODY)


@pytest.mark.parametrize("priority", ["P0", "P1"])
def test_urgent_implies_a_person(priority):
    with pytest.raises(ValidationError, match="implies needs_human"):
        Decision(category="auth", priority=priority, confidence=0.9, reasoning="", needs_human=False)


def test_a_field_too_many_does_not_cost_a_second_call():
    raw = {
        "ticket_id": "T",
        "category": "auth",
        "priority": "P2",
        "confidence": 0.9,
        "reasoning": "",
        "needs_human": False,
    }
    assert Decision.model_validate(raw).category == "auth"


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["id", "subject", "body", "customer_tier", "x"]), st.one_of(st.text(), st.integers(), st.none())
    )
)
def test_whatever_comes_in_is_a_ticket_or_a_validation_error(raw):
    try:
        ticket = Ticket.model_validate(raw)
    except ValidationError:
        return
    assert ticket.subject or ticket.body
