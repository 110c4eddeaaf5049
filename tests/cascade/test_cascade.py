"""The cascade: who answers, what is recorded, what is kept."""

from typing import Literal

import pytest
from pydantic import BaseModel

from workshop_lib import (
    Cascade,
    ConfigurationError,
    Decision,
    Settings,
    Task,
    Tier,
    always,
    confidence_below,
    invalid_output,
    never,
    stakes,
)
from workshop_lib.bedrock.errors import ServiceFault, StreamBroken, UnknownModel, Unreachable
from workshop_lib.bedrock.replies import Reply, Usage
from workshop_lib.cascade.attempt import attempt
from workshop_lib.lessons.lab02 import Unplugged
from workshop_lib.local import Fault, LocalEndpoint
from workshop_lib.triage import TRIAGE, load_tickets

TWO = [Tier("cheap"), Tier("strong")]


class Scripted:
    """A client whose models say what the test says: a decision as a dict, a text, or an error to raise."""

    def __init__(self, **answers):
        self.answers, self.asked = {k: list(v) for k, v in answers.items()}, []

    def converse(self, model, messages, **settings):
        self.asked.append((model, list(messages)))
        said = self.answers[model].pop(0)
        if isinstance(said, Exception):
            raise said
        content = (
            [{"text": said}]
            if isinstance(said, str)
            else [{"toolUse": {"toolUseId": "t1", "name": "x", "input": said}}]
        )
        message = {"role": "assistant", "content": content}
        return Reply(model, model, message, "tool_use", Usage(10, 5), cost_usd=0.25, latency_ms=100, wall_ms=1)


def says(priority="P3", *, human=False, confidence=0.9, category="billing"):
    return {"category": category, "priority": priority, "confidence": confidence, "reasoning": "", "needs_human": human}


def test_an_unobjectionable_answer_stays_with_the_cheap_tier(a_ticket):
    outcome = Cascade(TWO, escalate_when=stakes(), client=Scripted(cheap=[says()])).run(a_ticket)
    assert not outcome.escalated
    assert outcome.final.tier == "cheap"
    assert outcome.cost_usd == 0.25


def test_an_objection_goes_up_and_its_reasons_are_kept(a_ticket):
    client = Scripted(cheap=[says("P1", human=True, confidence=0.5)], strong=[says("P1", human=True)])
    outcome = Cascade(TWO, escalate_when=confidence_below(0.7) | stakes(), client=client).run(a_ticket)
    assert [r.rule for r in outcome.reasons] == ["low_confidence", "urgent_priority", "needs_human"]
    assert outcome.final.tier == "strong"
    assert outcome.cost_usd == 0.5


def test_a_flag_is_never_lowered_by_a_later_tier(a_ticket):
    client = Scripted(cheap=[says("P2", human=True)], strong=[says("P2", human=False, category="auth")])
    outcome = Cascade(TWO, escalate_when=stakes(), client=client).run(a_ticket)
    assert outcome.decision.needs_human
    assert outcome.decision.category == "auth"
    assert outcome.flags == {"needs_human": "cheap"}
    assert not outcome.attempts[-1].decision.needs_human, "what the strong tier said stays on record"


def test_a_flag_that_only_the_strong_tier_raises_is_raised(a_ticket):
    client = Scripted(cheap=[says()], strong=[says("P2", human=True)])
    outcome = Cascade(TWO, escalate_when=always(), client=client).run(a_ticket)
    assert outcome.flags == {"needs_human": "strong"}


def test_an_unusable_answer_gets_one_repair_turn_that_says_what_is_wrong(a_ticket):
    client = Scripted(cheap=[{"category": "bills"}, says()])
    outcome = Cascade([Tier("cheap")], client=client).run(a_ticket)
    assert outcome.decision.category == "billing"
    assert outcome.cost_usd == 0.5, "both turns are paid for"
    (_, first), (_, second) = client.asked
    assert len(first) == 1
    assert len(second) == 3
    result = second[2]["content"][0]["toolResult"]
    assert result["status"] == "error"
    assert "category" in result["content"][0]["text"]


def test_after_a_failed_repair_the_cheap_tiers_failure_is_a_reason_to_go_up(a_ticket):
    client = Scripted(cheap=["no", "still no"], strong=[says()])
    outcome = Cascade(TWO, escalate_when=invalid_output(), client=client).run(a_ticket)
    assert [r.rule for r in outcome.reasons] == ["invalid_output"]
    assert outcome.decision is not None
    assert outcome.cost_usd == 0.75


def test_a_failure_goes_up_even_if_no_rule_asks_for_it(a_ticket):
    client = Scripted(cheap=[ServiceFault("down", model="cheap", attempts=8)], strong=[says()])
    outcome = Cascade(TWO, escalate_when=never(), client=client).run(a_ticket)
    assert [r.rule for r in outcome.reasons] == ["failed"]
    assert outcome.attempts[0].http_attempts == 8


def test_the_strong_tiers_failure_keeps_the_cheap_answer_and_says_so(a_ticket):
    client = Scripted(cheap=[says("P1", human=True)], strong=[ServiceFault("down", model="strong")])
    outcome = Cascade(TWO, escalate_when=stakes(), client=client).run(a_ticket)
    assert outcome.decision.priority == "P1"
    assert outcome.degraded
    assert isinstance(outcome.error, ServiceFault)
    assert outcome.final.tier == "cheap"


def test_if_every_tier_fails_the_outcome_says_why_and_nothing_is_raised(a_ticket):
    client = Scripted(cheap=[ServiceFault("down")], strong=[ServiceFault("down too")])
    outcome = Cascade(TWO, client=client).run(a_ticket)
    assert outcome.decision is None
    assert "down too" in str(outcome.error)


def test_an_urgent_decision_without_a_person_is_not_accepted(a_ticket):
    client = Scripted(cheap=[says("P0", human=False), says("P0", human=True)])
    outcome = Cascade([Tier("cheap")], client=client).run(a_ticket)
    assert outcome.decision.needs_human
    assert len(outcome.final.replies) == 2


def test_three_tiers_stop_at_the_first_that_is_good_enough(a_ticket):
    tiers = [Tier("cheap"), Tier("middle"), Tier("strong")]
    client = Scripted(cheap=[says(confidence=0.5)], middle=[says(confidence=0.9)], strong=[])
    outcome = Cascade(tiers, escalate_when=confidence_below(0.7), client=client).run(a_ticket)
    assert [a.tier for a in outcome.attempts] == ["cheap", "middle"]


def test_events_come_in_order(a_ticket):
    client = Scripted(cheap=[says("P1", human=True)], strong=[says("P1", human=True)])
    kinds = [e.kind for e in Cascade(TWO, escalate_when=stakes(), client=client).stream(a_ticket)]
    assert kinds == ["tier-started", "tier-finished", "escalated", "tier-started", "tier-finished", "finished"]


def test_a_journey_that_ends_without_a_decision_ends_on_failed(a_ticket):
    kinds = [e.kind for e in Cascade([Tier("cheap")], client=Scripted(cheap=[ServiceFault("x")])).stream(a_ticket)]
    assert kinds[-1] == "failed"


@pytest.mark.parametrize("tiers", [[], [Tier("cheap"), Tier("cheap")]], ids=["none", "two of one name"])
def test_tiers_that_make_no_cascade_are_refused(tiers):
    with pytest.raises(ValueError, match="tiers of different names"):
        Cascade(tiers, client=Scripted())


def test_without_a_client_and_without_a_workshop_the_error_says_what_to_do():
    with pytest.raises(ConfigurationError, match="open_workshop"):
        Cascade(TWO)


def test_an_unknown_tier_is_a_mistake_of_the_program_and_raised(bedrock, a_ticket):
    with pytest.raises(UnknownModel, match="cheep"):
        Cascade([Tier("cheep")], client=bedrock).run(a_ticket)


def test_over_real_http_every_reply_of_both_tiers_is_in_the_journal(bedrock, endpoint):
    tickets = load_tickets("workshop")[:8]
    cascade = Cascade(TWO, escalate_when=always(), client=bedrock)
    outcomes = [cascade.run(t) for t in tickets]
    assert sum(o.cost_usd for o in outcomes) == pytest.approx(endpoint.journal.cost_usd, rel=1e-12)
    assert sum(a.http_attempts for o in outcomes for a in o.attempts) == len(endpoint.journal)


def test_over_real_http_prose_instead_of_json_is_repaired(bedrock, endpoint, a_ticket):
    endpoint.faults.add(Fault("invalid_output", first=1))
    tried = attempt(a_ticket, Tier("cheap"), task=TRIAGE, client=bedrock)
    assert tried.decision is not None
    assert len(tried.replies) == 2


def test_an_unplugged_model_fails_and_the_other_answers(bedrock, a_ticket):
    outcome = Cascade(TWO, escalate_when=always(), client=Unplugged(bedrock, "strong")).run(a_ticket)
    assert outcome.degraded


class Lead(BaseModel):
    grade: Literal["hot", "warm", "cold"]
    confidence: float
    reasoning: str


def test_any_pydantic_class_is_a_task(bedrock):
    leads = Task(
        name="leads",
        schema=Lead,
        system="Grade the message.\n- hot: asks for a price or an order\n- warm: asks how it works\n- cold: an advertisement",
        stakes=lambda lead: ["hot_lead"] if lead.grade == "hot" else [],
    )
    cascade = Cascade(TWO, escalate_when=stakes() | confidence_below(0.7), task=leads, client=bedrock)
    outcome = cascade.run("What would be the price for an order of 40 seats? Please send a quote.")
    assert isinstance(outcome.decision, Lead)
    assert outcome.attempts[-1].error is None


def test_the_default_task_decides_about_tickets(bedrock, a_ticket):
    assert isinstance(Cascade(TWO, client=bedrock).run(a_ticket).decision, Decision)


def test_an_endpoint_that_dies_in_mid_run_costs_only_the_tickets_that_come_after(make_bedrock, catalogue):
    endpoint = LocalEndpoint(catalogue, time_scale=0).start()
    client = make_bedrock(Settings(endpoint_url=endpoint.url), max_attempts=1)
    cascade = Cascade(TWO, escalate_when=stakes(), client=client)
    first, second = load_tickets("workshop")[:2]
    before = cascade.run(first)
    endpoint.stop()
    after = cascade.run(second)
    assert before.decision is not None
    assert after.decision is None
    assert isinstance(after.error, Unreachable | StreamBroken)
