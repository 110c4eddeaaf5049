"""Reviewed labels change a rule only where they show more than chance."""

from dataclasses import replace

import numpy as np
import pytest

from tests.operations.told import attempt, label, outcome
from workshop_lib import ConfigurationError, Outcome, Reason
from workshop_lib.cascade.calibration import calibrate
from workshop_lib.operations.recalibrate import TooFewLabels, recalibrate


def traffic(n, right_at, *, seed=0, up=()):
    """Outcomes whose stated confidence c is right with probability right_at(c), with their labels."""
    rng = np.random.default_rng(seed)
    sure = rng.choice([0.6, 0.7, 0.8, 0.9, 0.95], n)
    right = rng.random(n) < np.array([right_at(c) for c in sure])
    outcomes = [outcome(f"T-{i}", "billing P3", "billing P3" if i in up else "", float(c)) for i, c in enumerate(sure)]
    return outcomes, {f"T-{i}": label("billing P3" if ok else "auth P3") for i, ok in enumerate(right)}, sure, right


def overconfident(c):
    return c - 0.4


def test_an_overconfident_model_is_recalibrated_and_what_changes_is_shown():
    outcomes, labels, *_ = traffic(300, overconfident, up=range(30))
    found = recalibrate(outcomes, labels, threshold=0.7, max_risk=0.2)
    assert found.changed
    assert "predicts better" in found.why
    assert found.after.ece.high < found.before.ece.low
    assert found.after.sent_up.value > found.before.sent_up.value
    assert found.after.cost_per_1000_usd > found.before.cost_per_1000_usd
    assert found.goes_up
    assert not found.stays
    assert all(words in str(found) for words in ("Change it", "ECE", "before", "after", "would go up"))


def test_a_calibrator_that_still_holds_is_left_in_place():
    *_, sure, right = traffic(600, overconfident, seed=1)
    calibrator = calibrate(sure, right.tolist())
    outcomes, labels, *_ = traffic(200, overconfident, seed=2)
    found = recalibrate(outcomes, labels, threshold=0.5, calibrator=calibrator, max_risk=0.3)
    assert not found.changed
    assert found.after.cost_per_1000_usd is None  # no strong answer told one
    assert str(found).startswith("No change: what is seen on 200 reviewed tickets is within chance")


def test_a_rule_that_keeps_too_many_wrong_answers_is_changed_though_its_curve_holds():
    *_, sure, right = traffic(600, overconfident, seed=1)
    calibrator = calibrate(sure, right.tolist())
    outcomes, labels, *_ = traffic(200, overconfident, seed=2)
    found = recalibrate(outcomes, labels, threshold=0.0, calibrator=calibrator, max_risk=0.3)
    assert found.changed
    assert "above 30.0%" in found.why


def test_below_a_hundred_labels_it_refuses():
    outcomes, labels, *_ = traffic(99, overconfident)
    with pytest.raises(TooFewLabels, match="99 reviewed tickets") as refused:
        recalibrate(outcomes, labels, threshold=0.7, max_risk=0.2)
    assert "Review more" in refused.value.advice


def test_with_hardly_a_wrong_answer_it_refuses():
    outcomes, labels, *_ = traffic(120, lambda c: 1.0)
    with pytest.raises(TooFewLabels, match="0 of the rarer verdict"):
        recalibrate(outcomes, labels, threshold=0.7, max_risk=0.2)


def test_quality_needs_the_strong_answer_to_every_reviewed_ticket():
    outcomes, labels, *_ = traffic(150, overconfident, up=range(100))
    with pytest.raises(ConfigurationError, match="not answered 50 of the 150") as refused:
        recalibrate(outcomes, labels, threshold=0.7, quality=0.9)
    assert "max_risk" in refused.value.advice
    shadow = {f"T-{i}": attempt("strong", "billing P3") for i in range(100, 150)}
    assert recalibrate(outcomes, labels, threshold=0.7, quality=0.9, strong=shadow).n == 150


def test_one_target_is_named():
    outcomes, labels, *_ = traffic(150, overconfident)
    with pytest.raises(ValueError, match="one target"):
        recalibrate(outcomes, labels, threshold=0.7)


def test_what_another_rule_sends_up_is_not_the_thresholds_to_keep():
    outcomes, labels, *_ = traffic(200, overconfident)
    stakes = [replace(o, reasons=(Reason("low_confidence"), Reason("needs_human"))) for o in outcomes]
    found = recalibrate(stakes, labels, threshold=0.0, max_risk=0.2)
    assert found.before.missed.value == 0
    assert found.before.sent_up.value == found.after.sent_up.value == 1
    assert not found.goes_up


def test_what_a_route_sent_past_the_first_tier_says_nothing_about_it():
    """Its one answer is the strong tier's: neither its confidence nor its price is the first tier's."""
    outcomes, labels, *_ = traffic(200, overconfident, up=range(50))
    routed = [
        Outcome(f"R-{i}", None, (attempt("strong", "billing P3", 0.99),), (Reason("routed"),)) for i in range(100)
    ]
    labels |= {o.item_id: label("auth P3") for o in routed}
    plain, mixed = (recalibrate(o, labels, threshold=0.7, max_risk=0.2) for o in (outcomes, outcomes + routed))
    assert mixed.after == plain.after
    assert (mixed.n, mixed.left_out) == (200, 100)
