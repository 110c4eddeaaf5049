"""Lab 09's checks: each way of failing closed, browning out, promoting or crying wolf wrongly is told apart; its stories end as told."""

import re

import numpy as np
import pytest

from workshop_lib import Cascade, Tier, field_in, invalid_output, stakes
from workshop_lib.bulk import StoreMismatch
from workshop_lib.evaluation import joint_agreement, paired_difference, score, taught_rule
from workshop_lib.lessons import check, hint, lab09, solution
from workshop_lib.local import Fault
from workshop_lib.monitoring.simulation import played
from workshop_lib.operations import Gate, ReviewStore, Shadow
from workshop_lib.operations.capacity import Traffic, plan
from workshop_lib.operations.handled import Handled


def risky(ticket):
    return ticket.customer_tier == "enterprise" or bool(re.search(r"(\d[ -]?){12}", f"{ticket.subject}\n{ticket.body}"))


def by_hand(ticket):
    """None where nothing is found, as a regular expression gives it."""
    return ticket.customer_tier == "enterprise" or re.search(r"\d([ -]?\d){11}", ticket.subject + " " + ticket.body)


def in_the_body(ticket):
    return ticket.customer_tier == "enterprise" or bool(re.search(r"(\d[ -]?){12}", ticket.body))


def without_blanks(ticket):
    return ticket.customer_tier == "enterprise" or bool(re.search(r"\d{12}", ticket.subject + ticket.body))


def all_digits(ticket):
    return ticket.customer_tier == "enterprise" or sum(c.isdigit() for c in ticket.subject + ticket.body) >= 12


def choose(decision, stakes):
    if decision is None:
        return "queue"
    if decision.priority.is_urgent:
        return "human"
    return "queue" if stakes else "cheap-with-flag"


def verdict(low, high, margin):
    return "promote" if low > -margin else "keep" if high < -margin else "need more"


def cries(p_values, level):
    return (p_values < level).any(axis=1).mean()


def needed(per_hour, share_up, seconds, prompt, max_tokens):
    calls = per_hour / 3600 * share_up * seconds
    return calls, calls * (prompt + max_tokens)


CASES = [
    ("9.1", risky, "Correct"),
    ("9.1", by_hand, "Correct"),
    ("9.1", in_the_body, "in the subject"),
    ("9.1", without_blanks, "with blanks"),
    ("9.1", all_digits, "three order numbers"),
    ("9.1", lambda t: True, "an angry ticket"),
    ("9.1", lambda t: risky(t) or t.body.isupper() or "FURIOUS" in t.body, "an angry ticket"),
    ("9.1", lambda t: t.customer_tier == "enterprise", "a card number with blanks"),
    ("9.1", lambda t: bool(re.search(r"(\d[ -]?){12}", f"{t.subject} {t.body}")), "an enterprise customer"),
    ("9.1", lambda t: t.customer_tier.value == "enterprise", "Your code raised"),
    ("9.1", lambda t: None, "Not attempted"),
    ("9.2", choose, "Correct"),
    ("9.2", lambda d, s: choose(d, s) if d else "human", "no tier has a usable decision"),
    ("9.2", lambda d, s: "queue" if d is None or s else "cheap-with-flag", "P0"),
    ("9.2", lambda d, s: "queue" if d is None else "human" if s else "cheap-with-flag", "a person must decide"),
    ("9.2", lambda d, s: "queue" if d is None else "human" if d.priority == "P0" else choose(d, s) if d.priority != "P1" else "queue", "P1"),
    ("9.2", lambda d, s: "queue" if choose(d, s) == "cheap-with-flag" else choose(d, s), "nothing at stake"),
    ("9.2", lambda d, s: choose(d, s).upper(), "say 'queue'"),
    ("9.2", lambda d, s: d.priority and "human", "Your code raised"),
    ("9.2", lambda d, s: None, "Not attempted"),
    ("9.3", verdict, "Correct"),
    ("9.3", lambda low, high, m: "promote" if low > 0 else "keep" if high < 0 else "need more", "leaves out minus the margin"),
    ("9.3", lambda low, high, m: "keep" if high < 0 else verdict(low, high, m), "a little worse beyond doubt"),
    ("9.3", lambda low, high, m: "promote" if (low + high) / 2 > -m else "keep", "holds both 0 and minus the margin"),
    ("9.3", lambda low, high, m: verdict(low, high, 0.05), "a margin of two points"),
    ("9.3", lambda low, high, m: low > -m, "say 'promote'"),
    ("9.3", lambda low, high, m: None, "Not attempted"),
    ("9.4", cries, "Correct"),
    ("9.4", lambda p, level: sum(any(x < level for x in row) for row in p) / len(p), "Correct"),
    ("9.4", lambda p, level: (p < level).mean(), "early, and is quiet again"),
    ("9.4", lambda p, level: (p[:, -1] < level).mean(), "early, and is quiet again"),
    ("9.4", lambda p, level: (p < level).any(axis=1).sum(), "early, and is quiet again"),
    ("9.4", lambda p, level: (p < level).sum(axis=1).mean(), "cries, twice"),
    ("9.4", lambda p, level: cries(p, 0.05), "at a level of 0.015"),
    ("9.4", lambda p, level: (p < level).any(axis=0).mean(), "early, and is quiet again"),
    ("9.4", lambda p, level: None, "Not attempted"),
    ("9.5", needed, "Correct"),
    ("9.5", lambda n, up, s, p, m: needed(3_600 * n, up, s, p, m), "by the hour"),
    ("9.5", lambda n, up, s, p, m: needed(n, 1, s, p, m), "only those that go up"),
    ("9.5", lambda n, up, s, p, m: needed(n, up, s, p, 0), "tokens reserved"),
    ("9.5", lambda n, up, s, p, m: needed(n, up, 1, p, m), "calls at once"),
    ("9.5", lambda n, up, s, p, m: needed(n, up, s, p, m)[0], "return two numbers"),
    ("9.5", lambda n, up, s, p, m: None, "Not attempted"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "answer", "said"), CASES)
def test_a_check_tells_what_is_missing(number, answer, said):
    assert said in repr(check(number, answer))


@pytest.mark.parametrize("number", ["9.1", "9.2", "9.3", "9.4", "9.5"])
def test_every_exercise_has_hints_and_a_solution_and_an_open_one_does_not_raise(number):
    assert "Hint 1" in repr(hint(number))
    assert "def " in repr(solution(number))
    assert "Not attempted" in repr(check(number, ...))


@pytest.fixture(scope="module")
def day():
    return lab09.yesterday()


@pytest.fixture(scope="module")
def current(day):
    return day.cascade(Tier("cheap"), Tier("strong"), escalate_when=taught_rule())


@pytest.fixture
def practice(bedrock, catalogue):
    from workshop_lib import Settings
    from workshop_lib.workshop import Workshop

    opened = lab09.Practice(Workshop(Settings(), catalogue, bedrock))
    yield opened
    opened.close()


def test_the_tickets_of_the_gate_do_what_the_lab_says_and_every_request_names_the_pinned_version(practice):
    cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=stakes(), client=practice.guarded)
    gate = Gate(cascade, client=practice.guarded)
    orders, card, mail, angry = (gate.handle(ticket) for ticket in lab09.FOUR)
    assert (orders.why, card.why, orders.outcome, card.outcome) == ("blocked", "blocked", None, None)
    assert [i.action for i in mail.interventions] == ["masked"]
    assert angry.interventions == ()
    false_alarm, miss = (gate.handle(ticket) for ticket in lab09.TWO)
    assert (false_alarm.why, miss.interventions) == ("blocked", ())
    assert {entry.guardrail for entry in practice.endpoint.journal} == {"workshop 2"}
    assert "workshop 2" in repr(lab09.pinned(practice.endpoint.journal))
    shown = repr(lab09.became([orders, mail]))
    assert "before: blocked (prompt-attack)" in shown
    assert "4111" not in shown


def test_weather_ends_when_the_next_is_ordered_and_the_clock_moves_by_hand(practice):
    practice.weather(Fault("ThrottlingException", model=practice.strong))
    cascade = Cascade([Tier("cheap"), Tier("strong")], client=practice.plain)
    assert cascade.run(lab09.FOUR[3]).decision is not None
    assert (practice.calls(), practice.calls("cheap"), practice.calls("strong")) == (1, 1, 0)
    practice.weather()
    assert practice.calls() == 0
    practice.wait(60)
    assert practice.clock() == 60


def test_the_shadowed_rules_come_out_as_the_lab_says(day, current):
    now = day.outcomes(current)

    def beside(rule):
        other = day.outcomes(day.cascade(*current.tiers, escalate_when=rule))
        a, b = ([joint_agreement(o.decision, day.labels[o.item_id]) for o in side] for side in (other, now))
        found = paired_difference(a, b, [day.labels[o.item_id].family for o in now])
        return found, sum(o.cost_usd for o in other) / sum(o.cost_usd for o in now)

    urgent, cost = beside(field_in("priority", "P0", "P1") | invalid_output())
    assert (urgent.only_a, urgent.only_b) == (0, 2)
    assert urgent.low > -0.05
    assert cost < 1
    harmless, cost = beside(taught_rule() | field_in("priority", "P3"))
    assert harmless.low > 0
    assert cost > 1


def test_no_price_of_a_wrong_answer_lets_the_taught_cascade_beat_both_single_models(day, current, catalogue):
    ways = {"cascade": current, "cheap-only": day.cascade(Tier("cheap")), "strong-only": day.cascade(Tier("strong"))}
    right = {name: score(name, day.outcomes(each), day.labels).joint.value for name, each in ways.items()}
    found = plan(Traffic.of(day.outcomes(current)), catalogue, tickets_per_hour=5_000, right=right)
    above, below = (even.wrong_usd for even in found.break_even)
    assert above > below > 0


def test_a_rule_that_is_changed_under_the_same_name_does_not_go_on_with_the_old_answers(day, current, tmp_path):
    now = day.answering(current)
    one, other = (
        day.answering(day.cascade(*current.tiers, escalate_when=rule)) for rule in (stakes(), invalid_output())
    )
    Shadow(now, one, store=tmp_path / "s.db").close()
    with pytest.raises(StoreMismatch):
        Shadow(now, other, store=tmp_path / "s.db")


def test_a_test_that_is_repeated_cries_in_most_quiet_streams_and_once_in_few(day, current):
    p_values = lab09.quiet_p_values(played(current, day.tickets, day.answers), streams=60)
    assert p_values.shape == (60, 1_801)
    assert cries(p_values, 0.05) > 0.7
    assert (p_values[:, -1] < 0.05).mean() < 0.2
    chart = lab09.wolf_chart(p_values)
    assert "looked at once it stays near" in chart.alt


def test_p_values_of_equal_shares_are_spread_evenly(day, current):
    p_values = lab09.quiet_p_values(played(current, day.tickets, day.answers), streams=200, seed=3)[:, 0]
    assert 0.4 < np.median(p_values) < 0.6


def test_reviews_that_are_filled_in_are_the_key_or_carelessly_beside_it(day, tmp_path):
    from workshop_lib.display import ReviewPanel

    with ReviewStore(tmp_path / "r.db", day.tickets[:30]) as store:
        assert lab09.fill_in(ReviewPanel(store, reviewer="Ada"), day.labels) == "30 filled in for Ada"
        for review in store.reviews(reviewer="Ada"):
            label = day.labels[review.ticket_id]
            assert (review.verdict.category, review.verdict.priority) == (label.category, label.priority)
        lab09.fill_in(ReviewPanel(store, reviewer="Ben"), day.labels, strict=False)
        assert 0 < len(store.disagreements()) < 15


def test_counts_are_in_an_order_that_does_not_depend_on_who_came_first():
    found = [
        Handled("a", "human", "blocked"),
        Handled("b", "answered"),
        Handled("c", "flagged", "x"),
        Handled("d", "answered"),
    ]
    shown = repr(lab09.counted(found))
    assert shown == repr(lab09.counted(found[::-1]))
    assert "tickets=2  disposition=answered" in shown.splitlines()[0]
