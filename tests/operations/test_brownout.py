"""A brown-out: by stakes a ticket is queued, answered with a flag or given to a person; a breaker and a budget spare the strong tier."""

import pytest

from workshop_lib import Cascade, Tier, confidence_below, stakes
from workshop_lib.bedrock.errors import DailyQuotaReached, InvalidRequest, ServiceFault, Throttled
from workshop_lib.bedrock.replies import Reply, Usage
from workshop_lib.cascade import Route
from workshop_lib.operations import Answering, Breaker, BrownOut, StrongDown, handle_all
from workshop_lib.triage.schema import Ticket

THROTTLED, FAULT = Throttled("Too many tokens."), ServiceFault("500")
TICKETS = [Ticket(id=f"T-{n}", subject="s", body=f"b{n}") for n in range(12)]
ANY = StrongDown("cheap-with-flag", "cheap-with-flag")


class Scripted:
    """cheap says what `cheap` says; strong what stands next in `strong`, the last for ever: an error, None for a decision, else something
    that is none. Each answer costs 1 cent or 1 dollar."""

    def __init__(self, *strong, cheap=None):
        self.strong, self.cheap, self.asked = list(strong), cheap or {}, []

    def converse(self, model, messages, **settings):
        self.asked.append(model)
        said = {"category": "billing", "priority": "P3", "confidence": 0.5, "reasoning": "", "needs_human": False}
        if model == "strong":
            now = self.strong.pop(0) if len(self.strong) > 1 else (self.strong or [None])[0]
            if isinstance(now, Exception):
                raise now
            said = said if now is None else {}
        elif isinstance(self.cheap, Exception):
            raise self.cheap
        else:
            said |= self.cheap
        message = {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "x", "input": said}}]}
        cost = 1.0 if model == "strong" else 0.01
        return Reply(model, model, message, "tool_use", Usage(1, 1), cost_usd=cost, latency_ms=1, wall_ms=1)

    @property
    def strong_calls(self):
        return self.asked.count("strong")


def browned(client, **options):
    route = options.pop("route", None)
    rule = options.pop("rule", confidence_below(0.7) | stakes())
    return BrownOut(Cascade([Tier("cheap"), Tier("strong")], escalate_when=rule, client=client, route=route), **options)


class Hand:
    now = 1_000.0

    def __call__(self):
        return self.now


def test_while_the_strong_tier_is_there_all_is_as_ever():
    found = browned(Scripted()).handle(TICKETS[0])
    assert (found.disposition, found.why, found.outcome.final.tier) == ("answered", "", "strong")
    assert found.cost_usd == 1.01


def test_what_the_cheap_tier_settles_is_answered_in_a_brown_out_as_well():
    client = Scripted(THROTTLED, cheap={"confidence": 0.9})
    assert browned(client).handle(TICKETS[0]).disposition == "answered"
    assert client.strong_calls == 0


@pytest.mark.parametrize(
    ("cheap", "policy", "disposition"),
    [
        ({}, StrongDown(), "flagged"),
        ({"priority": "P1", "needs_human": True}, StrongDown(), "human"),
        ({"needs_human": True}, StrongDown(), "human"),
        ({"needs_human": True}, StrongDown(stakes="queue"), "queued"),
        ({}, StrongDown(other="queue"), "queued"),
        ({}, StrongDown(other="human"), "human"),
        (FAULT, StrongDown(), "queued"),
        (FAULT, StrongDown(undecided="human"), "human"),
    ],
)
def test_by_stakes_it_is_queued_flagged_or_given_to_a_person(cheap, policy, disposition):
    found = browned(Scripted(THROTTLED, cheap=cheap), strong_down=policy).handle(TICKETS[0])
    assert (found.disposition, found.why) == (disposition, "strong throttled")
    assert found.cost_usd == (0 if cheap is FAULT else 0.01)


@pytest.mark.parametrize(("error", "why"), [(THROTTLED, "strong throttled"), (FAULT, "strong failing")])
def test_why_is_told(error, why):
    assert browned(Scripted(error)).handle(TICKETS[0]).why == why


def test_a_policy_of_ones_own_is_a_method():
    class Never(StrongDown):
        def choose(self, outcome, stakes):
            return "human"

    assert browned(Scripted(FAULT), strong_down=Never()).handle(TICKETS[0]).disposition == "human"


def test_an_item_that_the_strong_tier_refuses_is_no_outage():
    brownout = browned(Scripted(InvalidRequest("too long")), breaker=Breaker(after=1))
    found = brownout.handle(TICKETS[0])
    assert (found.disposition, found.why) == ("flagged", "strong failed")
    assert not brownout.breaker.open


def test_an_item_routed_past_the_cheap_tier_is_asked_there_after_all():
    client = Scripted(THROTTLED)
    found = browned(client, route=lambda item: Route(("strong",), "score 0.9")).handle(TICKETS[0])
    assert (found.disposition, found.outcome.decision.category) == ("flagged", "billing")
    assert client.asked == ["strong", "cheap"]
    assert [r.rule for r in found.outcome.reasons] == ["routed"]


def test_one_tier_has_nothing_to_fall_back_on():
    with pytest.raises(ValueError, match="two tiers"):
        BrownOut(Cascade([Tier("strong")], client=Scripted()))


# The breaker.


def test_after_so_many_failures_in_a_row_the_strong_tier_is_left_in_peace_and_then_probed():
    clock, client = Hand(), Scripted(FAULT)
    brownout = browned(client, breaker=Breaker(after=3, pause_s=60, clock=clock), strong_down=ANY)
    whys = [brownout.handle(item).why for item in TICKETS[:5]]
    assert whys == ["strong failing"] * 3 + ["strong paused"] * 2
    assert client.strong_calls == 3
    clock.now += 60
    assert [brownout.handle(item).why for item in TICKETS[:2]] == ["strong failing", "strong paused"], "one probe"
    clock.now += 60
    client.strong = [None]
    assert [brownout.handle(item).disposition for item in TICKETS[:3]] == ["answered"] * 3
    assert not brownout.breaker.open


def test_failures_that_are_not_in_a_row_do_not_open_it():
    client = Scripted(FAULT, None, FAULT, None, FAULT, None)
    brownout = browned(client, breaker=Breaker(after=2))
    assert [brownout.handle(item).why for item in TICKETS[:6]] == ["strong failing", ""] * 3


def test_a_daily_quota_opens_it_at_once():
    client = Scripted(DailyQuotaReached("Too many tokens per day."))
    brownout = browned(client, breaker=Breaker(after=5))
    assert [brownout.handle(item).why for item in TICKETS[:2]] == ["strong throttled", "strong paused"]


def test_a_clock_that_jumps_does_not_lock_it():
    clock = Hand()
    breaker = Breaker(after=1, pause_s=60, clock=clock)
    breaker.failed()
    clock.now = 5.0
    assert not breaker.allows(), "back: the pause begins anew"
    clock.now += 60
    assert breaker.allows()
    breaker.failed()
    clock.now += 1e9
    assert breaker.allows(), "forward: one probe, no more"
    assert not breaker.allows()
    clock.now = 0.0
    assert not breaker.allows()
    clock.now = 60.0
    assert breaker.allows()


def test_a_probe_that_never_reports_does_not_lock_it():
    clock = Hand()
    breaker = Breaker(after=1, pause_s=60, clock=clock)
    breaker.failed()
    for _ in range(3):
        clock.now += 60
        assert breaker.allows()


@pytest.mark.parametrize("wrong", [{"after": 0}, {"pause_s": -1}])
def test_a_breaker_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="a breaker opens after"):
        Breaker(**wrong)


# The budget.


def test_over_budget_the_strong_tier_is_not_asked_until_it_is_renewed():
    client = Scripted()
    brownout = browned(client, budget_usd=2.5, strong_down=ANY)
    assert [brownout.handle(item).why for item in TICKETS[:4]] == ["", "", "strong over budget", "strong over budget"]
    assert brownout.spent_usd == 2.0
    brownout.renew()
    assert brownout.handle(TICKETS[0]).disposition == "answered"


def test_no_budget_at_all_means_cheap_alone():
    client = Scripted()
    assert browned(client, budget_usd=0).handle(TICKETS[0]).why == "strong over budget"
    assert client.strong_calls == 0


def test_threads_do_not_pass_the_budget_together():
    client = Scripted()
    brownout = browned(client, budget_usd=4.0, strong_down=ANY)
    brownout.handle(TICKETS[0])
    found = list(handle_all(brownout, TICKETS[1:], workers=6))
    assert brownout.spent_usd <= 4.0
    assert sum(f.disposition == "answered" for f in found) <= 3


# The queue.


def test_the_queue_is_drained_by_a_call_and_the_cheap_tier_is_not_paid_twice():
    client = Scripted(THROTTLED, THROTTLED, None)
    brownout = browned(client, strong_down=StrongDown("queue", "queue"))
    assert [brownout.handle(item).disposition for item in TICKETS[:2]] == ["queued", "queued"]
    found = list(brownout.drain())
    assert [f.disposition for f in found] == ["answered", "answered"]
    assert client.asked.count("cheap") == 2
    assert [f.cost_usd for f in found] == [1.01, 1.01]
    assert [r.rule for r in found[0].outcome.reasons] == ["low_confidence"]
    assert brownout.queued == 0
    assert list(brownout.drain()) == []


def test_what_a_failed_attempt_has_cost_stays_on_the_tickets_bill():
    """The strong tier answers with something unusable, is paid for it, and is throttled when it is asked to repair that."""
    brownout = browned(Scripted("unusable", THROTTLED, None), strong_down=StrongDown("queue", "queue"))
    assert brownout.handle(TICKETS[0]).cost_usd == pytest.approx(1.01)
    (found,) = brownout.drain()
    assert found.disposition == "answered"
    assert found.cost_usd == pytest.approx(2.01)
    assert brownout.spent_usd == pytest.approx(2.0)


def test_what_still_cannot_be_settled_stands_in_the_queue_again():
    client = Scripted(THROTTLED)
    brownout = browned(client, strong_down=StrongDown("queue", "queue"), breaker=Breaker(after=1, clock=Hand()))
    brownout.handle(TICKETS[0])
    assert [(f.disposition, f.why) for f in brownout.drain()] == [("queued", "strong paused")]
    assert (brownout.queued, client.strong_calls, client.asked.count("cheap")) == (1, 1, 1)


def test_a_full_queue_goes_to_people():
    brownout = browned(Scripted(THROTTLED), strong_down=StrongDown("queue", "queue"), queue_limit=1)
    assert [(f.disposition, f.why) for f in map(brownout.handle, TICKETS[:2])] == [
        ("queued", "strong throttled"),
        ("human", "queue full"),
    ]


# Three tiers.


def test_a_third_tier_is_one_line(bedrock, a_ticket, endpoint):
    from workshop_lib import always

    outcome = Cascade([Tier("cheap"), Tier("middle"), Tier("strong")], escalate_when=always(), client=bedrock).run(
        a_ticket
    )
    roles = bedrock.catalogue.roles
    assert [a.model for a in outcome.attempts] == [roles[name] for name in ("cheap", "middle", "strong")]
    assert outcome.cost_usd == pytest.approx(endpoint.journal.cost_usd)


def test_of_three_tiers_a_brown_out_keeps_the_middle_ones_answer(bedrock, a_ticket, endpoint):
    from workshop_lib import always
    from workshop_lib.local import Fault

    endpoint.faults.add(Fault("AccessDeniedException", model="claude"))
    cascade = Cascade([Tier("cheap"), Tier("middle"), Tier("strong")], escalate_when=always(), client=bedrock)
    found = BrownOut(cascade, strong_down=ANY).handle(a_ticket)
    assert (found.disposition, found.why, found.outcome.final.tier) == ("flagged", "strong failing", "middle")


def test_a_strong_tier_that_is_asked_early_is_spared_as_well():
    client = Scripted(FAULT)
    cascade = Cascade(
        [Tier("cheap"), Tier("strong")], escalate_when=stakes(), client=client, start_early=lambda item: True
    )
    brownout = BrownOut(cascade, breaker=Breaker(after=1))
    found = [brownout.handle(item) for item in TICKETS[:3]]
    assert [(f.disposition, f.why) for f in found] == [("answered", "")] * 3, "the cheap tier's answer was enough"
    assert client.strong_calls == 1


# Many tickets.


def test_where_one_ticket_raises_the_records_of_the_others_under_way_are_still_given():
    class Trips(Answering):
        def handle(self, item):
            if item.id == "T-1":
                raise LookupError("no such rule")
            return super().handle(item)

    cascade, given = browned(Scripted()).cascade, []
    with pytest.raises(LookupError, match="no such rule"):
        given.extend(found.item_id for found in handle_all(Trips(cascade), TICKETS, workers=3))
    assert {"T-0", "T-2"} <= set(given)
    assert len(given) < len(TICKETS) - 1


@pytest.mark.parametrize("count", [1, 5], ids=["at once", "later"])
def test_where_the_source_of_tickets_breaks_the_records_of_those_under_way_are_still_given(count):
    def source():
        yield from TICKETS[:count]
        raise LookupError("line 6")

    cascade, given = browned(Scripted()).cascade, []
    with pytest.raises(LookupError, match="line 6"):
        given.extend(found.item_id for found in handle_all(Answering(cascade), source(), workers=3))
    assert sorted(given) == [t.id for t in TICKETS[:count]]
