"""Charts of a comparison: the finding and the numbers are in words, whatever strategies there are."""

import pytest

from tests.display.comparisons import (
    ATTACK,
    MISSED,
    MIXED,
    REPAIRED,
    RIGHT_BELOW,
    compared,
    strategies,
)
from workshop_lib import Cascade, Tier, rule
from workshop_lib.display import (
    browse,
    confusions,
    cost_against_agreement,
    disagreement,
    disagreements,
    escalation_flow,
    latencies,
)
from workshop_lib.evaluation import Measure, NoCalls, oracle

DRAWN = {
    "cost": cost_against_agreement,
    "flow": lambda c: escalation_flow(c, next(iter(c.scores))),
    "confusions": lambda c: confusions(c, next(iter(c.scores)), "category"),
    "latencies": latencies,
}
every_chart = pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN.keys())


def only(name, strategy=None):
    return {name: strategy or strategies()["cascade"]}


def test_the_cost_chart_tells_each_strategys_share_interval_and_cost():
    comparison = compared(*MIXED)
    alt = cost_against_agreement(comparison).alt
    for name, found in comparison.scores.items():
        assert f"{name} {found.joint} at USD {found.cost_per_1000_usd:.2f}" in alt


def test_the_cost_chart_says_which_side_of_chance_the_cascade_lies_on():
    helped = compared(*[RIGHT_BELOW] * 6, REPAIRED, REPAIRED)
    assert "cascade lies above what escalating at random gives" in cost_against_agreement(helped).alt
    wasted = compared(*[RIGHT_BELOW] * 4, MISSED, MISSED, ("auth P1 human",) * 3, ("auth P1 human",) * 3)
    assert "cascade does not lie above what escalating at random gives" in cost_against_agreement(wasted).alt


def test_the_cost_chart_says_when_the_strong_model_is_not_ahead():
    assert (
        "strong-only (100.0%) is not ahead of cheap-only (100.0%)" in cost_against_agreement(compared(RIGHT_BELOW)).alt
    )


def test_the_oracle_is_on_no_front():
    comparison = compared(*MIXED)
    chosen = strategies() | {"oracle": oracle(comparison.labels)}
    picture = cost_against_agreement(compared(*MIXED, chosen=chosen))
    assert "oracle" in picture.alt
    assert "oracle" not in picture.alt.split("On the Pareto front")[1]


def test_a_share_of_which_less_is_better_is_refused():
    with pytest.raises(ValueError, match="less is better"):
        cost_against_agreement(compared(*MIXED), "false_alarms")


def test_a_measure_that_looks_at_no_ticket_is_refused():
    with pytest.raises(ValueError, match="no ticket"):
        cost_against_agreement(compared(RIGHT_BELOW), "urgent_recall")


def test_the_flow_tells_where_tickets_went_why_and_what_it_did():
    alt = escalation_flow(compared(*MIXED)).alt
    assert "Of 8 tickets cascade sends 5 up: 2 repaired, 1 harmed, 1 right already" in alt
    assert "cheap 3, cheap → strong 5" in alt
    assert "needs_human 5" in alt
    assert "urgent_priority 5" in alt
    assert "wrong before and after 1" in alt


def test_a_strategy_that_sends_nothing_up_says_so():
    assert "cheap-only sends none of 8 tickets up" in escalation_flow(compared(*MIXED), "cheap-only").alt


def test_a_failure_that_is_repaired_counts_as_repaired():
    assert ": 1 repaired" in escalation_flow(compared(("billing P3", None, "billing P3"))).alt


def test_confusions_name_the_most_frequent_mistake_and_count_every_cell():
    picture = confusions(compared(*MIXED, MISSED), "cheap-only", "category")
    assert "right on 6 of 9 tickets; most often wrong: feature_request taken for bug_report, 2 times" in picture.alt
    assert "abuse taken for other 1" in picture.alt
    assert "bug_report" in picture.table


@pytest.mark.parametrize("field", ["category", "priority", "needs_human"])
def test_every_field_of_the_key_can_be_drawn(field):
    assert "right on 8 of 8" in confusions(compared(*[RIGHT_BELOW] * 8), "cascade", field).alt


def test_a_ticket_without_a_decision_has_a_column_of_its_own():
    assert "billing taken for (none) 1" in confusions(compared(("billing P3", None, None)), "cascade", "category").alt


def test_latencies_tell_p50_mean_and_p95_in_seconds():
    alt = latencies(compared(*MIXED)).alt
    assert "cheap-only p50 0.5 s, mean 0.5 s, p95 0.5 s" in alt
    assert "cascade p50 3.5 s, mean 2.4 s, p95 3.5 s" in alt


@pytest.mark.parametrize(
    ("mode", "said"), [("local", "Nothing was measured here"), ("live", "As the service measured")]
)
def test_latencies_say_where_the_times_come_from(mode, said):
    assert said in latencies(compared(*MIXED, mode=mode)).caption


@every_chart
def test_the_same_comparison_is_drawn_as_the_same_bytes(draw):
    assert draw(compared(*MIXED)).png == draw(compared(*MIXED)).png


@every_chart
@pytest.mark.parametrize("said", [RIGHT_BELOW, ("billing P3", None, None)], ids=["right", "failed"])
def test_one_strategy_on_one_ticket_is_drawn_without_nan(draw, said):
    picture = draw(compared(said, chosen=only("mine")))
    assert "nan" not in (picture.alt + picture.caption + picture.table).lower()
    assert "mine" in picture.alt
    assert picture.png


@every_chart
def test_names_of_ones_own_are_no_mathematics_and_no_markup(draw):
    picture = draw(compared(*MIXED, chosen=only(f"$x_{{$ {ATTACK}")))
    assert "<script>" not in picture._repr_html_()


@every_chart
def test_a_chart_leaves_no_figure_open(draw):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    assert draw(compared(*MIXED)).png
    assert plt.get_fignums() == before


def test_many_strategies_of_ones_own_are_all_named():
    chosen = {f"own {i}": Cascade([Tier("cheap")], client=NoCalls()) for i in range(12)}
    shown = cost_against_agreement(compared(*MIXED, chosen=chosen))
    assert all(name in shown.alt for name in chosen)


def test_a_task_without_joint_agreement_is_judged_by_its_first_measure():
    mine = Measure("right_team", lambda said, key: said.category == key.category)
    assert "right_team against USD" in cost_against_agreement(compared(*MIXED, measures=(mine,))).alt


def test_a_rule_of_ones_own_is_named_in_the_flow():
    @rule
    def too_short(attempt):
        return "<b>$5 & more$</b>"

    chosen = only("c", Cascade([Tier("cheap"), Tier("strong")], escalate_when=too_short, client=NoCalls()))
    assert "too_short 8" in escalation_flow(compared(*MIXED, chosen=chosen), "c").alt


def test_disagreements_show_key_both_answers_and_who_is_right():
    shown = disagreements(compared(*MIXED), "cascade", "strong-only")
    assert "On 1 of 8 tickets just one is right: cascade on 0, strong-only on 1." in shown.markup
    assert "feature_request P3" in shown.markup
    assert "bug_report P3" in shown.markup


def test_hostile_ticket_text_is_escaped_in_disagreements():
    comparison = compared(*MIXED, text=ATTACK)
    for shown in (
        disagreements(comparison, "cascade", "strong-only"),
        disagreement(comparison, "cascade", "strong-only"),
    ):
        assert "<script>" not in shown.markup
        assert "<img" not in shown.markup
        assert "&lt;script&gt;" in shown.markup


def test_more_disagreements_than_are_shown_are_counted():
    shown = disagreements(compared(*[MISSED] * 7), "cascade", "strong-only", show=3)
    assert shown.markup.count("T-") == 3
    assert "4 more are not shown." in shown.markup
    assert "4 more are not shown." in repr(shown)


def test_long_text_is_cut_in_the_table_and_whole_in_the_single_view():
    comparison = compared(MISSED, text="word " * 100 + "end")
    assert "word end" not in disagreements(comparison, "cascade", "strong-only").text.split("text=")[1]
    assert "word end" in disagreement(comparison, "cascade", "strong-only").markup


def test_strategies_that_agree_everywhere_are_said_to():
    said = "cheap-only and cascade are right on the same of 1 tickets."
    comparison = compared(RIGHT_BELOW)
    assert said in disagreements(comparison, "cheap-only", "cascade").markup
    assert said in browse(comparison, "cheap-only", "cascade").children[0].value


def test_browsing_shows_what_the_function_shows_and_goes_round():
    comparison = compared(*MIXED, MISSED)
    _, bar, shown = browse(comparison, "cascade", "strong-only").children
    _, back, on = bar.children
    views = [disagreement(comparison, "cascade", "strong-only", i).markup for i in range(2)]
    assert shown.value == views[0]
    on.click()
    assert shown.value == views[1]
    on.click()
    assert shown.value == views[0]
    back.click()
    assert shown.value == views[1]


def test_a_function_that_asks_the_strong_tier_at_once_sends_nothing_up():
    chosen = only("direct", lambda asked: asked.take("strong"))
    alt = escalation_flow(compared(RIGHT_BELOW, RIGHT_BELOW, chosen=chosen), "direct").alt
    assert "none of 2 tickets up" in alt
    assert "strong 2" in alt
