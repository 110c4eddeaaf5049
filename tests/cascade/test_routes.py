"""Which tiers an item may pass: some are skipped, some are the end, one may be asked before it is known to be needed."""

import threading

import pytest

from workshop_lib import TRIAGE, Attempt, Cascade, Tier, always, load_tickets, never, run_bulk
from workshop_lib.bulk.store import StoreMismatch
from workshop_lib.cascade import Route
from workshop_lib.display.live import Journey

TICKETS = load_tickets("calibration", limit=4)
TICKET = TICKETS[0]
CHEAP, MIDDLE, STRONG = Tier("cheap"), Tier("middle"), Tier("strong")


def to_the_top(ticket):
    return Route(("strong",), "score 0.41 >= 0.3")


def kinds(cascade):
    return [(event.kind, event.tier) for event in cascade.stream(TICKET)]


def test_a_route_skips_the_cheap_tier_and_says_why(bedrock, endpoint):
    outcome = Cascade([CHEAP, STRONG], route=to_the_top, client=bedrock).run(TICKET)
    assert [a.tier for a in outcome.attempts] == ["strong"]
    assert [(r.rule, r.detail) for r in outcome.reasons] == [("routed", "score 0.41 >= 0.3")]
    assert outcome.escalated
    assert len(endpoint.journal) == 1


def test_a_skip_is_told_before_the_first_call(bedrock):
    cascade = Cascade([CHEAP, STRONG], route=to_the_top, client=bedrock)
    assert kinds(cascade) == [
        ("routed", "strong"), ("tier-started", "strong"), ("tier-finished", "strong"), ("finished", ""),
    ]  # fmt: skip


def test_a_route_stops_where_it_says_whatever_the_rule_says(bedrock, endpoint):
    cascade = Cascade([CHEAP, STRONG], escalate_when=always(), route=lambda t: Route(("cheap",)), client=bedrock)
    outcome = cascade.run(TICKET)
    assert ([a.tier for a in outcome.attempts], outcome.escalated, outcome.reasons) == (["cheap"], False, ())


def test_a_route_leaves_out_a_tier_in_between(bedrock):
    cascade = Cascade(
        [CHEAP, MIDDLE, STRONG], escalate_when=always(), route=lambda t: Route(("cheap", "strong")), client=bedrock
    )
    assert [a.tier for a in cascade.run(TICKET).attempts] == ["cheap", "strong"]


def test_a_route_may_have_no_opinion(bedrock):
    cascade = Cascade([CHEAP, STRONG], escalate_when=always(), route=lambda t: None, client=bedrock)
    assert [a.tier for a in cascade.run(TICKET).attempts] == ["cheap", "strong"]


@pytest.mark.parametrize("names", [(), ("best",), ("strong", "cheap"), ("cheap", "cheap")])
def test_a_route_of_other_tiers_is_refused_before_any_call(bedrock, endpoint, names):
    with pytest.raises(ValueError, match=rf"route of {TICKET.id}.*'cheap', 'strong'"):
        Cascade([CHEAP, STRONG], route=lambda t: Route(names), client=bedrock).run(TICKET)
    assert len(endpoint.journal) == 0


def test_bulk_rows_of_a_routed_ticket_say_that_it_went_up(bedrock, tmp_path):
    cascade = Cascade(
        [CHEAP, MIDDLE, STRONG], escalate_when=always(), route=lambda t: Route(("middle", "strong")), client=bedrock
    )
    rows = list(run_bulk(cascade, TICKETS, store=tmp_path / "r.db", budget_usd=1.0))
    assert {(r.tier, r.final, r.escalated) for r in rows} == {("middle", False, True), ("strong", True, True)}
    assert {tuple(why.rule for why in r.reasons) for r in rows if r.final} == {("routed", "always")}
    again = run_bulk(cascade, TICKETS, store=tmp_path / "r.db")
    assert (list(again), again.skipped) == ([], len(TICKETS))


def test_a_routed_item_goes_on_after_the_tier_that_it_had_reached(bedrock):
    cascade = Cascade(
        [CHEAP, MIDDLE, STRONG], escalate_when=always(), route=lambda t: Route(("middle", "strong")), client=bedrock
    )
    reached = cascade.run(TICKET).attempts[:1]
    *_, last = cascade.stream(TICKET, attempts=reached)
    assert [a.tier for a in last.outcome.attempts] == ["middle", "strong"]
    assert [r.rule for r in last.outcome.reasons] == ["routed"]


def test_another_route_is_another_run(bedrock, tmp_path):
    def of(route):
        return Cascade([CHEAP, STRONG], route=route, client=bedrock)

    list(run_bulk(of(to_the_top), TICKETS, store=tmp_path / "r.db"))
    with pytest.raises(StoreMismatch, match="route"):
        list(run_bulk(of(None), TICKETS, store=tmp_path / "r.db"))


def test_the_picture_of_a_routed_ticket_says_what_was_skipped(bedrock):
    cascade = Cascade([CHEAP, STRONG], route=to_the_top, client=bedrock)
    journey = Journey(cascade, TICKET)
    for event in cascade.stream(TICKET):
        journey.add(event)
    assert "skipped: routed (score 0.41 &gt;= 0.3)" in journey.markup()


def test_an_early_strong_answer_that_is_not_needed_is_paid_for(bedrock, endpoint):
    outcome = Cascade([CHEAP, STRONG], escalate_when=never(), start_early=lambda t: True, client=bedrock).run(TICKET)
    assert ([a.tier for a in outcome.attempts], outcome.unneeded.tier) == (["cheap"], "strong")
    assert outcome.cost_usd == pytest.approx(endpoint.journal.cost_usd, rel=1e-12)
    assert outcome.cost_usd > outcome.unneeded.cost_usd > 0
    assert outcome.usage.input_tokens == sum(a.usage.input_tokens for a in (*outcome.attempts, outcome.unneeded))
    assert (outcome.latency_ms, outcome.escalated) == (outcome.attempts[0].latency_ms, False)


def test_the_decision_is_told_before_the_bill(bedrock):
    cascade = Cascade([CHEAP, STRONG], escalate_when=never(), start_early=lambda t: True, client=bedrock)
    events = list(cascade.stream(TICKET))
    told = [event.kind for event in events]
    assert told[-3:] == ["decided", "tier-finished", "finished"]
    assert events[-3].outcome.decision == events[-1].outcome.decision
    assert events[-3].outcome.unneeded is None


def test_both_tiers_are_asked_at_once():
    together = threading.Barrier(2, timeout=30)

    def meet(tier):
        together.wait()  # passes only when both are here
        return answered[tier.name]

    class Nobody:
        def converse(self, *args, **settings):
            raise AssertionError("answers are given")

    answered = {name: Attempt(name, name, TRIAGE) for name in ("cheap", "strong")}
    cascade = Cascade([CHEAP, STRONG], start_early=lambda t: True, client=Nobody())
    *_, last = cascade.stream(TICKET, ask=meet)
    assert [a.tier for a in last.outcome.attempts] == ["cheap", "strong"]


def test_going_up_side_by_side_takes_as_long_as_the_slower_and_skips_what_lies_between(bedrock):
    cascade = Cascade([CHEAP, MIDDLE, STRONG], escalate_when=always(), start_early=lambda t: True, client=bedrock)
    outcome = cascade.run(TICKET)
    assert [a.tier for a in outcome.attempts] == ["cheap", "strong"]
    assert outcome.unneeded is None
    assert outcome.latency_ms == max(a.latency_ms for a in outcome.attempts)
    assert outcome.cost_usd == pytest.approx(sum(a.cost_usd for a in outcome.attempts))


def test_only_the_items_that_are_chosen_start_early(bedrock, endpoint):
    cascade = Cascade([CHEAP, STRONG], start_early=lambda t: t.id == TICKETS[1].id, client=bedrock)
    assert [cascade.run(t).unneeded is not None for t in TICKETS] == [False, True, False, False]


def test_a_cheap_failure_takes_the_early_answer(bedrock):
    cascade = Cascade([Tier("cheap", max_tokens=1, repairs=0), STRONG], start_early=lambda t: True, client=bedrock)
    outcome = cascade.run(TICKET)
    assert (outcome.final.tier, outcome.reasons[0].rule) == ("strong", "failed")


def test_in_bulk_nothing_starts_early(bedrock):
    cascade = Cascade([CHEAP, STRONG], start_early=lambda t: True, client=bedrock)
    with pytest.raises(ValueError, match="in bulk nobody waits"):
        run_bulk(cascade, TICKETS)
