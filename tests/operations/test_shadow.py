"""Shadow mode: the candidate is in nobody's way, its answers are kept and paired, and the verdict is one that the data carry."""

import math
import random
import sqlite3
import threading
from types import SimpleNamespace

import pytest

from tests.waiting import wait_until
from workshop_lib import Cascade, Tier, load_labels, load_tickets, stakes
from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.bulk import Row, StoreError, StoreInUse, StoreMismatch, run_bulk
from workshop_lib.evaluation.metrics import joint_agreement
from workshop_lib.operations.promotion import judge
from workshop_lib.operations.shadow import Pair, Shadow, load_pairs, place, sampled
from workshop_lib.triage.schema import Decision

TICKETS = load_tickets("workshop")[:10]
LABELS = load_labels()


@pytest.fixture
def current(bedrock):
    return Cascade([Tier("cheap"), Tier("strong")], escalate_when=stakes(), client=bedrock)


@pytest.fixture
def candidate(make_bedrock):
    return Cascade([Tier("cheap")], client=make_bedrock())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shadow.db"


# --- running ---------------------------------------------------------------------------------------------------------


def test_the_current_answer_is_returned_and_both_are_kept(current, candidate, path):
    with Shadow(current, candidate, store=path, share=1) as shadow:
        outcomes = {t.id: shadow.run(t) for t in TICKETS}
    assert all(
        outcome.decision == current.run(t).decision for t, outcome in zip(TICKETS, outcomes.values(), strict=True)
    )
    pairs = load_pairs(path)
    assert {p.ticket_id for p in pairs} == outcomes.keys()
    for pair in pairs:
        assert pair.current.ticket_cost_usd == pytest.approx(outcomes[pair.ticket_id].cost_usd)
        assert pair.current.decision == outcomes[pair.ticket_id].decision.model_dump(mode="json")
        assert pair.candidate.tier == "cheap"
    assert shadow.counts.cost_usd == pytest.approx(sum(p.candidate.ticket_cost_usd for p in pairs))
    assert (shadow.counts.answered, shadow.counts.waiting, shadow.counts.dropped) == (len(TICKETS), 0, 0)


def test_the_same_tickets_are_sampled_in_every_run_and_about_as_many_as_asked_for():
    ids = [f"T-{i}" for i in range(5_000)]
    chosen = [i for i in ids if sampled(i, 0.2, salt="a")]
    assert chosen == [i for i in ids if sampled(i, 0.2, salt="a")]
    assert abs(len(chosen) / 5_000 - 0.2) < 0.02
    assert set(chosen) < {i for i in ids if sampled(i, 0.4, salt="a")}
    assert chosen != [i for i in ids if sampled(i, 0.2, salt="b")]
    assert not any(sampled(i, 0.0, salt="a") for i in ids)
    assert all(0 <= place(i, salt="a") < 1 for i in ids)


def test_a_run_that_goes_on_pays_for_no_pair_twice(current, candidate, endpoint, path):
    with Shadow(current, candidate, store=path, share=1) as first:
        for ticket in TICKETS[:4]:
            first.run(ticket)
    with Shadow(current, candidate, store=path, share=1) as again:
        for ticket in TICKETS[:6]:
            again.run(ticket)
    assert (again.counts.known, again.counts.answered) == (4, 2)
    assert len(load_pairs(path)) == 6


def test_a_ticket_that_was_cut_off_between_its_rows_is_no_pair_and_is_asked_again(current, candidate, path):
    with Shadow(current, candidate, store=path, share=1) as shadow:
        for ticket in TICKETS[:3]:
            shadow.run(ticket)
    with sqlite3.connect(path) as file:
        file.execute("DELETE FROM rows WHERE step = 1 AND ticket_id = ?", (TICKETS[1].id,))
    file.close()
    assert {p.ticket_id for p in load_pairs(path)} == {TICKETS[0].id, TICKETS[2].id}
    with Shadow(current, candidate, store=path, share=1) as again:
        again.run(TICKETS[1])
    assert len(load_pairs(path)) == 3


def test_another_candidate_needs_another_store(current, candidate, path, bedrock):
    Shadow(current, candidate, store=path).close()
    with pytest.raises(StoreMismatch, match="candidate"):
        Shadow(current, Cascade([Tier("strong")], client=bedrock), store=path)


def test_two_shadows_do_not_share_a_store(current, candidate, path):
    with Shadow(current, candidate, store=path), pytest.raises(StoreInUse):
        Shadow(current, candidate, store=path)


def test_a_candidate_that_hangs_holds_up_no_answer_and_what_finds_no_room_is_counted(current, path):
    let_go = threading.Event()

    def hangs(item):
        let_go.wait(30)
        return current.run(item)

    shadow = Shadow(current, hangs, store=path, share=1, workers=1, room=2)
    assert all(shadow.run(ticket).decision for ticket in TICKETS)
    counts = shadow.counts
    assert (counts.sampled, counts.dropped, counts.waiting, counts.answered) == (10, 7, 3, 0)
    let_go.set()
    shadow.close()
    assert (shadow.counts.answered, shadow.counts.waiting) == (3, 0)


def test_a_ticket_that_comes_again_while_it_is_in_hand_is_not_asked_twice(current, candidate, path):
    asked, let_go = [], threading.Event()

    def waits(item):
        asked.append(item.id)
        let_go.wait(30)
        return candidate.run(item)

    with Shadow(current, waits, store=path, share=1, workers=4) as shadow:
        outcome = current.run(TICKETS[0])
        for known in range(4):
            shadow.offer(TICKETS[0], outcome)
            wait_until(lambda known=known: asked and shadow.counts.known == known, f"offer {known}")
        let_go.set()
    assert asked == [TICKETS[0].id]
    assert (shadow.counts.known, shadow.counts.answered) == (3, 1)


def test_a_candidate_that_raises_breaks_no_answer_and_its_failure_counts_against_it(current, path):
    def broken(item):
        raise RuntimeError(item.body)

    with Shadow(current, broken, store=path, share=1) as shadow:
        assert shadow.run(TICKETS[0]).decision is not None
    (pair,) = load_pairs(path)
    assert pair.candidate.decision is None
    assert "RuntimeError" in pair.candidate.error.message
    assert TICKETS[0].body not in pair.candidate.to_json()


def test_a_store_that_breaks_is_the_shadows_trouble_alone(current, candidate, path, caplog):
    with Shadow(current, candidate, store=path, share=1) as shadow:
        shadow._store.close()
        assert all(shadow.run(ticket).decision for ticket in TICKETS[:3])
    assert (shadow.counts.lost, shadow.counts.answered) == (3, 0)
    assert "StoreError" in shadow.counts.problem
    assert len([r for r in caplog.records if "being lost" in r.getMessage()]) == 1


def test_what_comes_after_closing_is_answered_and_counted_as_dropped(current, candidate, path):
    shadow = Shadow(current, candidate, store=path, share=1)
    shadow.close()
    shadow.close()
    assert shadow.run(TICKETS[0]).decision is not None
    assert shadow.counts.dropped == 1


def test_the_store_of_a_bulk_run_is_refused(current, tmp_path):
    list(run_bulk(current, TICKETS, store=tmp_path / "bulk.db"))
    with pytest.raises(StoreError, match="bulk run"):
        load_pairs(tmp_path / "bulk.db")


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"workers": 0}, {"room": 0}])
def test_settings_that_cannot_be_are_refused(current, candidate, path, wrong):
    with pytest.raises(ValueError, match="do not hold"):
        Shadow(current, candidate, store=path, **wrong)


# --- judging ---------------------------------------------------------------------------------------------------------

KEY = SimpleNamespace(category="billing", priority="P2", needs_human=False)
OTHERS = ("auth", "abuse")


def row(ticket_id, category, cost):
    decision = None
    if category is not None:
        said = Decision(category=category, priority="P2", confidence=0.9, reasoning="r", needs_human=False)
        decision = said.model_dump(mode="json")
    return Row.model_construct(  # by the thousand: unchecked
        reasons=(), flags={}, error=None, agreement=None, ticket_id=ticket_id, tier="cheap", model="m", decision=decision, final=True, escalated=False, latency_ms=1,
        usage=Usage(), cost_usd=cost, attempts=1, ticket_cost_usd=cost,
    )  # fmt: skip


def make(both=0, only_candidate=0, only_current=0, neither=0, both_wrong_alike=0, costs=(0.001, 0.003)):
    """Pairs of these kinds: who is right."""
    kinds = (
        [("billing", "billing")] * both + [("billing", "auth")] * only_candidate + [("auth", "billing")] * only_current
    )
    kinds += [OTHERS] * neither + [("auth", "auth")] * both_wrong_alike
    random.Random(1).shuffle(kinds)
    return [
        Pair(f"T-{i}", row(f"T-{i}", old, costs[1]), row(f"T-{i}", new, costs[0])) for i, (new, old) in enumerate(kinds)
    ]


def key_of(pairs):
    return {p.ticket_id: KEY for p in pairs}


def test_a_candidate_that_is_as_good_and_cheaper_is_promoted():
    pairs = make(both=900, only_candidate=30, only_current=30, neither=40)
    report = judge(pairs, key_of(pairs), margin=0.02)
    assert report.verdict == "promote"
    assert report.difference.low > -0.02
    assert "PROMOTE" in report.sentence
    assert report.more == 0


def test_a_candidate_that_is_worse_by_the_margin_is_not():
    pairs = make(both=800, only_candidate=20, only_current=150)
    assert judge(pairs, key_of(pairs), margin=0.02).verdict == "keep"


def test_a_candidate_that_costs_too_much_is_not_however_good():
    pairs = make(both=500, only_candidate=100, costs=(0.003, 0.003))
    report = judge(pairs, key_of(pairs), margin=0.02, cost_ratio=0.8)
    assert report.verdict == "keep"
    assert "costs more than 0.8 times" in report.sentence
    assert judge(pairs, key_of(pairs), margin=0.02, cost_ratio=1.0).verdict == "promote"


def test_where_the_data_do_not_decide_it_says_how_many_more():
    pairs = make(both=90, only_candidate=5, only_current=5)
    report = judge(pairs, key_of(pairs), margin=0.02)
    assert report.verdict == "need more"
    assert 500 < report.more < 5_000
    assert report.more_labels == pytest.approx(report.more / 10, rel=0.1)
    assert f"NEED {report.more:,} MORE" in report.sentence


def test_with_the_number_it_asked_for_it_mostly_decides():
    rng = random.Random(4)

    def draw(n):
        counts = {"both": 0, "only_candidate": 0, "only_current": 0}
        for kind in rng.choices(list(counts), (0.9, 0.05, 0.05), k=n):
            counts[kind] += 1
        return make(**counts)

    first = make(both=90, only_candidate=5, only_current=5)
    n = len(first) + judge(first, key_of(first), margin=0.018).more
    decided = [judge(p, key_of(p), margin=0.018).verdict == "promote" for p in (draw(n) for _ in range(6))]
    assert sum(decided) >= 3


def test_the_labels_of_agreeing_pairs_change_nothing():
    pairs = make(both=300, both_wrong_alike=50, only_candidate=20, only_current=15)
    apart = {p.ticket_id: KEY for p in pairs if p.current.decision["category"] != p.candidate.decision["category"]}
    everything, few = judge(pairs, key_of(pairs), margin=0.02), judge(pairs, apart, margin=0.02)
    assert (everything.difference, everything.verdict) == (few.difference, few.verdict)
    assert len(apart) == 35
    assert few.to_label == ()


def test_some_labels_in_the_given_order_estimate_the_difference_of_all():
    pairs = make(both=800, only_candidate=120, only_current=80)
    key = key_of(pairs)
    order = judge(pairs, {}, margin=0.02).to_label
    assert len(order) == 200
    some = judge(pairs, {i: key[i] for i in order[:100]}, margin=0.02)
    assert some.labelled == 100
    assert some.difference.n == 500
    assert some.difference.low < 0.04 < some.difference.high


def test_labels_that_are_not_next_in_the_order_are_set_aside_unless_said_to_be_random():
    pairs = make(both=100, only_candidate=20, only_current=20)
    key = key_of(pairs)
    order = judge(pairs, {}, margin=0.02).to_label
    picked = {i: key[i] for i in [*order[:3], *order[10:20]]}
    assert (judge(pairs, picked, margin=0.02).labelled, judge(pairs, picked, margin=0.02).set_aside) == (3, 10)
    assert judge(pairs, picked, margin=0.02, random_labels=True).labelled == 13


def test_without_any_label_it_says_what_to_label_and_how_much():
    pairs = make(both=900, only_candidate=50, only_current=50)
    report = judge(pairs, {}, margin=0.02)
    assert report.verdict == "need more"
    assert report.difference is None
    assert len(report.to_label) == 100
    assert report.more_labels == pytest.approx(report.more * 0.1, rel=0.05)


def test_answers_that_hardly_ever_differ_need_no_label_at_all():
    pairs = make(both=2_099, only_candidate=1)
    assert judge(pairs, {}, margin=0.02).verdict == "promote"


def test_ten_equal_answers_prove_nothing():
    pairs = make(both=10)
    report = judge(pairs, {}, margin=0.02)
    assert report.verdict == "need more"
    assert 100 < report.more < 300
    assert report.more_labels == 0


def test_equal_answers_of_few_families_need_as_many_more_families():
    pairs = make(both=60)
    families = {p.ticket_id: f"F-{i // 6}" for i, p in enumerate(pairs)}
    alone, in_sixes = (judge(pairs, {}, margin=0.02, families=known) for known in (None, families))
    assert in_sixes.verdict == "need more"
    assert 60 + in_sixes.more == pytest.approx(6 * (60 + alone.more), rel=0.01)
    enough = make(both=60 + in_sixes.more)
    assert (
        judge(enough, {}, margin=0.02, families={p.ticket_id: f"F-{i // 6}" for i, p in enumerate(enough)}).verdict
        == "promote"
    )
    assert judge(pairs, {}, margin=1e-7).more_labels == 0  # beyond every number: no error


def test_where_no_number_of_pairs_would_tell_none_is_named():
    pairs = make(both=60, only_current=3)
    report = judge(pairs, {}, margin=0.02, families={p.ticket_id: "F-1" for p in pairs})
    assert (report.verdict, report.more, report.more_labels) == ("need more", 0, 0)
    assert report.sentence.startswith("NEED MORE: ")
    assert "one family" in report.sentence


def test_one_family_promotes_nobody():
    pairs = make(both=30, only_candidate=5)
    report = judge(pairs, key_of(pairs), margin=0.02, families=dict.fromkeys(key_of(pairs), "F"))
    assert report.verdict == "need more"
    assert "one family, which says nothing about others" in report.sentence


def test_a_candidate_without_an_answer_is_wrong_there():
    pairs = [Pair(f"T-{i}", row(f"T-{i}", "billing", 0.003), row(f"T-{i}", None, 0.0)) for i in range(60)]
    report = judge(pairs, key_of(pairs), margin=0.02, right=joint_agreement)
    assert (report.verdict, report.difference.value) == ("keep", -1.0)


def test_families_widen_the_interval():
    pairs = make(both=380, only_candidate=10, only_current=10)
    alone = judge(pairs, key_of(pairs), margin=0.02)
    in_tens = judge(
        sorted(pairs, key=lambda p: str(p.candidate.decision)), key_of(pairs), margin=0.02,
        families={p.ticket_id: f"F-{i // 10}" for i, p in enumerate(sorted(pairs, key=lambda p: str(p.candidate.decision)))},
    )  # fmt: skip
    assert in_tens.difference.families == 40
    assert in_tens.difference.high - in_tens.difference.low > alone.difference.high - alone.difference.low


def test_a_truth_on_the_margin_is_told_as_such():
    pairs = make(both=970, only_candidate=5, only_current=25)
    report = judge(pairs, key_of(pairs), margin=0.02)
    assert report.verdict == "need more"
    assert "at the limit" in report.sentence


def test_margins_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="margin"):
        judge(make(both=5), {}, margin=0)
    with pytest.raises(ValueError, match="pairs"):
        judge([], {}, margin=0.1)


def test_real_answers_of_the_local_door_are_judged_by_the_key(current, candidate, path):
    with Shadow(current, candidate, store=path, share=1) as shadow:
        for ticket in TICKETS:
            shadow.run(ticket)
    report = judge(load_pairs(path), LABELS, margin=0.05)
    assert report.n == 10
    assert report.candidate_per_1000_usd < report.current_per_1000_usd
    assert math.isfinite(report.difference.value)
