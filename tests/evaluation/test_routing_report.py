"""What is said about a recorded pair: held against what is known of how it was made."""

import json

import numpy as np
import pytest

from tests.evaluation.pairs import made
from workshop_lib.evaluation import apgr, cost_at_quality, routing_report
from workshop_lib.evaluation.routing_report import ANSWER, CONFIDENCE, QUESTION


def said(pair, **how):
    """What needs no learning is quicker said."""
    return routing_report(pair, **{"views": (), "targets": [{"quality": 0.99}]} | how)


@pytest.fixture(scope="module")
def told():
    return routing_report(made(), views=("words",))


@pytest.fixture(scope="module")
def told_without_answers():
    return routing_report(made(confident=False, costs=False), views=("words",))


def test_the_pair_is_told_with_intervals(told):
    pair = told.pair
    assert told.cheap.low < told.cheap.value == pair.cheap.mean() < told.cheap.high
    assert told.oracle.value == np.maximum(pair.cheap, pair.strong).mean()
    assert told.stronger
    assert told.ahead.value == pytest.approx((pair.strong - pair.cheap).mean())


def test_chance_is_one_half_exactly_and_the_oracle_is_beaten_by_none(told):
    values = {name: s.apgr.value for name, s in told.scores.items()}
    assert values["random"] == pytest.approx(0.5)
    assert max(values, key=values.get) == "oracle"


def test_figures_are_those_of_the_measures(told):
    pair, s = told.pair, told.scores[CONFIDENCE]
    assert s.apgr.value == apgr(-pair.confidence, pair.cheap, pair.strong)
    assert s.costs[0.99] == cost_at_quality(
        -pair.confidence, pair.cheap, pair.strong, pair.cheap_cost_usd, pair.strong_cost_usd, 0.99
    )
    assert s.calls[1.0] <= 1


def test_a_confidence_that_tells_right_from_wrong_is_chosen(told):
    assert told.best == CONFIDENCE
    assert told.scores[CONFIDENCE].apgr.low > 0.5
    assert told.verdict.startswith("Worth it: confidence wins")
    assert "confidence_below(" in told.next_steps[0]


def test_what_is_learned_from_the_question_finds_the_hard_half(told_without_answers):
    report = told_without_answers
    assert report.scores[QUESTION].apgr.value > 0.65
    assert ANSWER not in report.scores
    assert any("Record how sure" in step for step in report.next_steps)
    assert any("cheap_cost_usd" in step for step in report.next_steps)


def test_no_question_is_scored_by_what_has_learned_from_it():
    luck = np.random.default_rng(1)
    texts = tuple(f"word{i} word{i} again{i // 2}" for i in range(300))
    pair = made(300, confident=False, costs=False, texts=texts, families=tuple(f"f{i // 2}" for i in range(300)),
                cheap=(luck.random(300) < 0.4).astype(float), strong=(luck.random(300) < 0.9).astype(float))  # fmt: skip
    pair.strong[1::2], pair.cheap[1::2] = (
        pair.strong[::2],
        pair.cheap[::2],
    )  # the other of a family has the same verdicts
    assert said(pair, views=("words",)).scores[QUESTION].apgr.low < 0.5


def test_a_learned_score_that_is_not_shown_to_be_better_gives_way(told):
    if told.edge is not None:
        assert told.edge.low <= 0
        assert any("not shown to be better" in step for step in told.next_steps)
    assert told.best == CONFIDENCE


def test_calibration_is_measured_on_left_out_questions(told):
    found = told.calibration
    assert found.fitted.value < found.raw.value
    assert len(found.probability) == told.pair.n
    assert told.aurc[CONFIDENCE] < 1 - told.cheap.value


def test_thresholds_are_in_the_scores_own_numbers(told, told_without_answers):
    for s in told.settings:
        assert s.here == (told.pair.confidence < s.threshold).mean()
    report = told_without_answers
    assert report.best == QUESTION
    assert [s.here for s in report.settings] == [
        (report.scores[QUESTION].values > s.threshold).mean() for s in report.settings
    ]


def test_a_threshold_that_parts_of_the_questions_choose_otherwise_is_called_unsteady(told_without_answers):
    last = told_without_answers.settings[-1]
    assert last.here - last.choice.sent_up.value > 0.1
    assert any("99.0% of the strong model's agreement is unsteady" in line for line in told_without_answers.warnings)


def test_a_target_for_which_everything_goes_up_is_not_worth_it(told_without_answers):
    assert told_without_answers.settings[-1].rule == "everything"
    assert "everything has to go up" in told_without_answers.verdict


def test_a_router_does_not_pay_the_cheap_model_for_what_goes_up():
    report = said(made(confident=False), targets=[{"quality": 0.97}])
    choice, up = report.settings[0].choice, report.settings[0].choice.sent_up.value
    assert choice.cost_per_1000_usd == pytest.approx(1_000 * (0.001 * (1 - up) + 0.01 * up))
    assert choice.cost_share == pytest.approx(choice.cost_per_1000_usd / 10)


def test_every_target_of_ones_own_is_met():
    targets = [
        {"quality": 0.9},
        {"budget_per_1000_usd": 4.0},
        {"wrong_usd": 0.05, "review_usd": 0.001},
        {"max_risk": 0.1},
    ]
    assert [s.choice.target for s in said(made(), targets=targets).settings] == [
        "keep 90.0% of the strong model's agreement",
        "spend at most USD 4 per 1,000 tickets",
        "a wrong answer costs USD 0.05, going up USD 0.001 more",
        "at most 10.0% kept and wrong, with probability 95%",
    ]


def test_a_strong_model_that_is_not_stronger_is_said_plainly_and_no_gap_is_measured():
    report = said(made(200, stronger=False))
    assert not report.stronger
    assert (dict(report.scores), report.best) == ({}, None)
    assert "Not worth it on these 200 questions: the strong model is not shown to be stronger" in report.verdict
    assert "no gap" in report.missing["scores"]
    assert any("cheap model alone" in step for step in report.next_steps)
    assert report.calibration is not None


def test_a_strong_model_that_is_weaker_is_called_so():
    pair = made()
    report = said(made(cheap=pair.strong, strong=pair.cheap))
    assert "the strong model is weaker" in report.verdict


def test_scores_that_are_noise_are_not_shown_to_be_worth_it():
    chance = np.random.default_rng(3)
    pair = made(200, texts=tuple(f"question {i:04}" for i in range(200)), confidence=chance.random(200))
    pair = made(200, texts=pair.texts, families=pair.texts, confidence=pair.confidence)
    report = said(pair)
    assert report.verdict.startswith("Not shown to be worth it")
    assert "Choose nothing" in report.next_steps[0]


def test_too_few_labels_leave_out_what_is_learned_and_say_why():
    report = said(made(48), views=("words",))
    assert QUESTION not in report.scores
    assert "too few" in report.missing[QUESTION]
    assert "too few" in report.missing["calibration"]


def test_qualities_between_right_and_wrong_are_measured_where_that_has_a_meaning():
    pair = made()
    report = said(made(cheap=0.2 + 0.6 * pair.cheap, strong=0.2 + 0.6 * pair.strong), views=("words",))
    assert report.scores[CONFIDENCE].apgr.value == pytest.approx(apgr(-pair.confidence, pair.cheap, pair.strong))
    assert report.cheap.low < report.cheap.value == pytest.approx(0.2 + 0.6 * pair.cheap.mean())
    assert {"calibration", "thresholds", "learned scores", "risk-coverage"} <= report.missing.keys()


def test_without_costs_the_verdict_names_the_price_ratio_from_which_it_pays():
    assert "if a strong call costs more than" in said(made(costs=False)).verdict


def test_what_saves_little_is_hardly_worth_it():
    dear = said(made(cheap_cost_usd=np.full(400, 0.006)), targets=[{"quality": 0.99}])
    assert 0.85 < dear.settings[0].choice.cost_share < 1
    assert dear.verdict.startswith("Hardly worth it: ")


def test_the_same_file_gives_the_same_report():
    assert said(made(150)).to_json() == said(made(150)).to_json()


def test_it_is_written_as_json_without_nan_and_as_markdown(told):
    again = json.loads(json.dumps(told.to_json(), allow_nan=False))
    assert again["best"] == CONFIDENCE
    assert again["scores"]["random"]["apgr"]["value"] == pytest.approx(0.5)
    assert again["thresholds"][0]["held_out"]["sent_up"]["n"] == 400
    page = told.to_markdown()
    assert told.verdict in page
    assert page.count("| random |") == 2
    assert "## Thresholds" in page
