"""Strategies worked out from answers that were asked for once, at the local endpoint."""

import itertools
import json
import math
from dataclasses import replace

import pytest

from workshop_lib import Cascade, Tier, confidence_below, load_tickets, stakes
from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.evaluation import (
    Asked,
    LockedSplit,
    Measure,
    NoCalls,
    RecordingError,
    all_strategies,
    at_random,
    bakeoff,
    judged_agreement,
    oracle,
    record,
    refuse_locked,
    replay,
    standard_strategies,
    tiers_of,
)
from workshop_lib.triage.task import Task


@pytest.fixture(scope="module")
def tickets():
    return load_tickets("workshop", limit=8)


@pytest.fixture
def compare(bedrock, tickets, labels, tmp_path):
    def run(strategies=None, **options):
        strategies = standard_strategies(NoCalls()) if strategies is None else strategies
        return bakeoff(tickets, labels, strategies, client=bedrock, store=tmp_path / "answers", **options)

    return run


def test_each_tier_is_asked_once_a_ticket_whatever_the_number_of_strategies(
    compare, labels, bedrock, endpoint, tickets
):
    compare(all_strategies(labels, bedrock.catalogue))
    assert endpoint.journal.calls == 3 * len(tickets)


def test_the_same_call_again_asks_nothing(compare, endpoint):
    first, before = compare(), endpoint.journal.calls
    again = compare()
    assert endpoint.journal.calls == before
    assert again.to_json()["strategies"] == first.to_json()["strategies"]


def test_a_cascade_worked_out_is_the_cascade_run(compare, bedrock, tickets):
    cascade = standard_strategies(bedrock)["cascade"]
    for worked_out, ticket in zip(compare().outcomes["cascade"], tickets, strict=True):
        ran = cascade.run(ticket)
        assert (worked_out.decision, worked_out.reasons, worked_out.flags) == (ran.decision, ran.reasons, ran.flags)
        assert worked_out.cost_usd == pytest.approx(ran.cost_usd)
        assert worked_out.latency_ms == pytest.approx(ran.latency_ms)


def test_the_calls_cost_what_the_endpoint_journalled(bedrock, tickets, labels, tmp_path, endpoint):
    made = record(tickets, labels, [Tier("cheap"), Tier("strong")], client=bedrock, store=tmp_path)
    assert made.cost_usd == pytest.approx(endpoint.journal.cost_usd, abs=1e-12)


def test_every_share_in_the_json_has_an_interval_n_families_and_distinct_texts(compare):
    told = json.loads(json.dumps(compare().to_json(), allow_nan=False))
    for strategy in told["strategies"].values():
        for found in (*strategy["shares"].values(), strategy["escalated"]):
            assert found["low"] <= found["value"] <= found["high"]
            assert 0 < found["families"] <= found["n"]
            assert 0 < found["distinct_texts"] <= found["n"]
    assert {(p["a"], p["b"]) for p in told["pairs"]} == {
        ("strong-only", "cheap-only"),
        ("strong-only", "cascade"),
        ("cheap-only", "cascade"),
    }
    assert all(p["low"] <= p["difference"] <= p["high"] for p in told["pairs"])


def test_the_oracle_is_never_behind_a_strategy_of_the_same_two_tiers(compare, labels):
    found = compare({**standard_strategies(NoCalls()), "oracle": oracle(labels), "random-50%": at_random(0.5)})
    best = max(s.joint.value for s in found.scores.values())
    assert found.scores["oracle"].joint.value == best


def test_sending_up_none_or_all_by_chance_is_cheap_only_or_pays_for_both(compare):
    found = compare({**standard_strategies(NoCalls()), "none": at_random(0), "all": at_random(1)})
    cost = {name: s.cost_usd for name, s in found.scores.items()}
    assert cost["none"] == cost["cheap-only"]
    assert cost["all"] == pytest.approx(cost["cheap-only"] + cost["strong-only"])


def test_a_strategy_of_ones_own_stands_beside_the_others(compare):
    def short_ones_are_easy(asked):
        return asked.take("cheap") if len(asked.item.body) < 200 else asked.take("cheap", "strong")

    assert compare({"mine": short_ones_are_easy}).scores["mine"].failed == 0


def test_a_strategy_that_raises_on_some_tickets_is_carried_with_a_word(compare, tickets):
    def mine(asked):
        if asked.item_id == tickets[0].id:
            raise KeyError("oops")
        return asked.take("cheap")

    found = compare({"mine": mine})
    assert (found.scores["mine"].failed, found.scores["mine"].joint.n) == (1, len(tickets))
    assert any("KeyError" in line and tickets[0].id in line for line in found.warnings)


def test_a_strategy_that_returns_something_else_is_told_what_to_return(compare):
    assert any("asked.take" in line for line in compare({"mine": lambda asked: "cheap"}).warnings)


def test_a_third_tier_joins_by_its_name(compare):
    three = Cascade([Tier("cheap"), Tier("middle"), Tier("strong")], escalate_when=stakes(), client=NoCalls())
    used = {len(o.attempts) for o in compare({"three": three}).outcomes["three"]}
    assert used == {1, 3}


def test_the_failure_of_one_call_is_that_tickets_alone(compare, endpoint, tickets):
    from workshop_lib.local.faults import Fault

    endpoint.faults.add(Fault("AccessDeniedException", at=frozenset({1})))
    found = compare()
    assert sum(s.failed for s in found.scores.values()) >= 1
    assert found.scores["strong-only"].n == len(tickets)


def test_a_budget_stops_it_and_more_of_it_goes_on(compare, endpoint, tickets):
    with pytest.raises(RecordingError, match=r"budget was reached with \d+ of 16 answers"):
        compare(budget_usd=0.04)
    paid = endpoint.journal.calls
    assert 0 < paid < 2 * len(tickets)
    compare(budget_usd=5)
    assert endpoint.journal.calls == 2 * len(tickets)


# The locked test split


def test_the_test_split_is_locked(bedrock, labels, endpoint):
    with pytest.raises(LockedSplit, match="test split"):
        bakeoff(load_tickets("test", limit=3), labels, client=bedrock)
    assert endpoint.journal.calls == 0


def test_the_final_measurement_says_so(bedrock, labels, tmp_path):
    found = bakeoff(load_tickets("test", limit=3), labels, client=bedrock, store=tmp_path, final=True)
    assert found.to_json()["final"]


def test_final_makes_no_test_split_of_other_tickets(compare):
    assert not compare(final=True).final


def test_tuning_on_the_test_split_is_refused(labels):
    with pytest.raises(LockedSplit, match="tuned on"):
        refuse_locked(labels, [load_tickets("test", limit=1)[0].id])
    refuse_locked(labels, [load_tickets("calibration", limit=1)[0].id])


# Replay


def test_a_replay_needs_no_call_and_says_the_same(bedrock, tickets, labels, tmp_path, endpoint):
    strategies = all_strategies(labels, bedrock.catalogue)
    made = record(tickets, labels, tiers_of(strategies), client=bedrock, store=tmp_path)
    live = bakeoff(tickets, labels, strategies, client=bedrock, store=tmp_path)
    calls = endpoint.journal.calls
    again = replay(made, tickets, labels, strategies, catalogue=bedrock.catalogue, door=bedrock.door)
    assert endpoint.journal.calls == calls
    assert again.to_json()["strategies"] == live.to_json()["strategies"]


def test_a_replay_of_some_of_the_tickets_judges_only_these(bedrock, tickets, labels, tmp_path):
    made = record(tickets, labels, [Tier("cheap")], client=bedrock, store=tmp_path)
    cheap = {"cheap-only": standard_strategies(NoCalls())["cheap-only"]}
    found = replay(made, tickets, labels, cheap, catalogue=bedrock.catalogue, door=bedrock.door, limit=3)
    assert found.scores["cheap-only"].n == 3


def test_a_replay_that_lacks_a_tier_names_it(bedrock, tickets, labels, tmp_path):
    made = record(tickets, labels, [Tier("cheap")], client=bedrock, store=tmp_path)
    with pytest.raises(RecordingError, match="no answers of strong"):
        replay(made, tickets, labels, standard_strategies(NoCalls()), catalogue=bedrock.catalogue, door=bedrock.door)


def test_a_half_finished_recording_names_the_first_ticket_that_lacks_an_answer(bedrock, tickets, labels, tmp_path):
    made = record(tickets, labels, [Tier("cheap"), Tier("strong")], client=bedrock, store=tmp_path)
    half = replace(made, rows=made.rows[:-1])
    with pytest.raises(RecordingError, match=rf"1 of 8 tickets .*first: {tickets[-1].id}"):
        replay(half, tickets, labels, standard_strategies(NoCalls()), catalogue=bedrock.catalogue, door=bedrock.door)


def test_no_call_is_made_by_a_strategy_that_is_only_worked_out():
    with pytest.raises(ConfigurationError, match="replay"):
        NoCalls().converse("cheap", "x")


# Bad input


def test_no_tickets_is_a_clear_error(bedrock, labels):
    with pytest.raises(ConfigurationError, match="no tickets"):
        bakeoff([], labels, client=bedrock)


def test_a_ticket_without_a_label_is_named_before_any_call(bedrock, tickets, labels, endpoint):
    some = {i: label for i, label in labels.items() if i != tickets[3].id}
    with pytest.raises(ConfigurationError, match=rf"no label \(first: {tickets[3].id}\)"):
        bakeoff(tickets, some, standard_strategies(NoCalls()), client=bedrock)
    assert endpoint.journal.calls == 0


def test_two_different_tiers_of_one_name_are_refused():
    with pytest.raises(ConfigurationError, match="name of its own"):
        tiers_of(
            {
                "a": Cascade([Tier("cheap")], client=NoCalls()),
                "b": Cascade([Tier("cheap", temperature=1.0)], client=NoCalls()),
            }
        )


def test_no_strategies_is_a_clear_error(compare):
    with pytest.raises(ConfigurationError, match="no strategies"):
        compare({})


def test_one_ticket_gives_wide_intervals_and_no_nan(bedrock, tickets, labels, tmp_path):
    found = bakeoff(tickets[:1], labels, client=bedrock, store=tmp_path)
    json.dumps(found.to_json(), allow_nan=False)
    assert not any(d.decides for *_, d in found.pairs())


def test_tickets_of_one_class_have_no_recall_instead_of_a_nan(bedrock, labels, tmp_path):
    calm = [t for t in load_tickets("workshop") if not labels[t.id].needs_human][:3]
    found = bakeoff(calm, labels, standard_strategies(NoCalls()), client=bedrock, store=tmp_path)
    assert found.scores["cheap-only"].needs_human_recall is None
    assert found.to_json()["strategies"]["cheap-only"]["shares"]["needs_human_recall"] is None


def test_copies_of_a_text_are_counted_once_and_said(bedrock, tickets, labels, tmp_path):
    copies = [tickets[0].model_copy(update={"id": f"C-{i}"}) for i in range(4)]
    key = {c.id: labels[tickets[0].id] for c in copies}
    found = bakeoff(copies, key, standard_strategies(NoCalls()), client=bedrock, store=tmp_path)
    joint = found.scores["strong-only"].joint
    assert (joint.n, joint.families, joint.distinct_texts) == (4, 1, 1)
    assert any("Only 1 of 4 texts" in line for line in found.warnings)


def test_a_strong_model_not_shown_to_be_stronger_is_warned_of(compare):
    found = compare()
    ahead = found.paired("strong-only", "cheap-only")
    assert any("not shown to be stronger" in line for line in found.warnings) == (ahead.low <= 0)


# What it says


def test_disagreements_are_the_tickets_on_which_just_one_is_right(compare):
    found = compare()
    rows = found.disagreements("strong-only", "cheap-only")
    difference = found.paired("strong-only", "cheap-only")
    assert len(rows) == difference.only_a + difference.only_b
    assert all(row["right"] in {"strong-only", "cheap-only"} for row in rows)


def test_nothing_on_the_pareto_front_is_dearer_and_worse(compare, labels):
    found = compare({**standard_strategies(NoCalls()), "oracle": oracle(labels)})
    worth = [(found.scores[n].cost_usd, found.scores[n].joint.value) for n in found.pareto]
    assert worth == sorted(worth)
    assert all(a[1] < b[1] for a, b in itertools.pairwise(worth))


def test_csv_holds_a_row_a_strategy_with_intervals(compare, tmp_path):
    import pandas as pd

    compare().to_csv(tmp_path / "t.csv")
    frame = pd.read_csv(tmp_path / "t.csv")
    assert list(frame["strategy"]) == ["strong-only", "cheap-only", "cascade"]
    assert (frame["joint.low"] <= frame["joint.value"]).all()


def test_another_task_with_its_own_measures_is_compared(bedrock, tmp_path):
    from typing import Literal

    from pydantic import BaseModel

    class Lead(BaseModel):
        grade: Literal["hot", "cold"]
        confidence: float = 0.5

    leads = Task(
        name="leads", schema=Lead, system="Grade the sales lead. hot: wants to buy now. cold: does not want to buy."
    )
    key = {"We want to buy forty seats today.": "hot", "Please take me off your list.": "cold"}
    by_id = {Asked(text, {}).item_id: grade for text, grade in key.items()}
    right = Measure("grade", lambda said, grade: said.grade == grade)
    strategies = {
        "both": Cascade(
            [Tier("cheap"), Tier("strong")], task=leads, escalate_when=confidence_below(2 / 3), client=NoCalls()
        ),
    }
    found = bakeoff(list(key), by_id, strategies, client=bedrock, task=leads, measures=[right], store=tmp_path)
    assert math.isfinite(found.scores["both"].shares["grade"].value)
    json.dumps(found.to_json(), allow_nan=False)


def test_a_judge_that_reads_the_key_agrees_with_it_fully(bedrock, labels, tmp_path):
    some = load_tickets("workshop")
    made = record(some, labels, [Tier("judge")], client=bedrock, store=tmp_path)
    kappas = judged_agreement({i: tiers["judge"] for i, tiers in made.answers().items()}, labels)
    assert {k.value for k in kappas.values()} == {1.0}


def test_kappa_of_a_field_with_one_label_is_none(bedrock, labels, tmp_path):
    calm = [t for t in load_tickets("workshop") if not labels[t.id].needs_human][:3]
    made = record(calm, labels, [Tier("judge")], client=bedrock, store=tmp_path)
    assert judged_agreement({i: tiers["judge"] for i, tiers in made.answers().items()}, labels)["needs_human"] is None


def test_a_second_window_waits_for_the_first_and_pays_for_nothing(bedrock, tickets, labels, tmp_path, endpoint):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(record, tickets, labels, [Tier("cheap")], client=bedrock, store=tmp_path) for _ in range(2)]
        first, second = (run.result() for run in both)
    assert first.rows == second.rows
    assert endpoint.journal.calls == len(tickets)
