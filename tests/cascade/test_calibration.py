"""What a confidence means once it is fitted, and when that is refused."""

import warnings

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from workshop_lib.cascade.calibration import EDGE, METHODS, Calibrator, calibrate


def overconfident(n, seed=0):
    """Confidences that claim more than they hold: the log-odds are twice the true ones."""
    chance = np.random.default_rng(seed)
    true = chance.uniform(0.05, 0.95, n)
    odds = (true / (1 - true)) ** 2
    return odds / (1 + odds), chance.random(n) < true


def gap(calibrator, confidence, correct, bins=10):
    predicted = calibrator.of(confidence)
    place = np.minimum((predicted * bins).astype(int), bins - 1)
    return sum(abs(predicted[place == b].mean() - correct[place == b].mean()) * (place == b).mean() for b in set(place))


@pytest.mark.parametrize("method", METHODS)
def test_a_fitted_confidence_is_near_the_share_correct_on_new_answers(method):
    fitted = calibrate(*overconfident(2_000, seed=1), method=method)
    confidence, correct = overconfident(5_000, seed=2)
    assert gap(fitted, confidence, correct) < 0.03
    assert gap(lambda_identity(), confidence, correct) > 0.08


def lambda_identity():
    class Stated:
        @staticmethod
        def of(confidence):
            return np.asarray(confidence)

    return Stated


@pytest.mark.parametrize("method", METHODS)
def test_a_higher_confidence_never_becomes_a_lower_probability(method):
    fitted = calibrate(*overconfident(200), method=method)
    assert (np.diff(fitted.of(np.linspace(0, 1, 101))) >= 0).all()


def test_platt_is_scikit_learns_logistic_regression_on_the_log_odds():
    confidence, correct = overconfident(500)
    inside = np.clip(confidence, EDGE, 1 - EDGE)
    z = np.log(inside / (1 - inside))[:, None]
    theirs = LogisticRegression(C=1e8, tol=1e-10, max_iter=10_000).fit(z, correct).predict_proba(z)[:, 1]
    assert calibrate(confidence, correct, method="platt").of(confidence) == pytest.approx(theirs, abs=1e-3)


def test_isotonic_steps_are_scikit_learns_with_a_right_and_a_wrong_answer_at_the_ends():
    confidence, correct = overconfident(300)
    x, y = np.r_[confidence, confidence.min(), confidence.max()], np.r_[correct, 0, 1]
    theirs = IsotonicRegression(out_of_bounds="clip").fit(x, y).predict(confidence)
    assert calibrate(confidence, correct, method="isotonic").of(confidence) == pytest.approx(
        np.clip(theirs, EDGE, 1 - EDGE)
    )


def test_the_method_is_the_one_of_least_loss_on_tickets_left_out():
    fitted = calibrate(*overconfident(1_000))
    assert fitted.log_loss[fitted.method] == min(fitted.log_loss[m] for m in METHODS)
    assert fitted.log_loss[fitted.method] < fitted.log_loss["stated"]


def test_a_useless_confidence_becomes_the_share_correct():
    chance = np.random.default_rng(3)
    fitted = calibrate(chance.uniform(0.9, 1.0, 600), chance.random(600) < 0.7, method="platt")
    assert fitted.of([0.9, 1.0]) == pytest.approx([0.7, 0.7], abs=0.12)


def test_a_confidence_that_speaks_against_itself_is_flattened_and_not_turned_round():
    confidence, correct = overconfident(600)
    fitted = calibrate(confidence, ~correct, method="platt")
    assert fitted(0.1) == pytest.approx(fitted(0.9), abs=0.02)


def test_it_comes_back_from_json_as_it_was():
    fitted = calibrate(*overconfident(300), method="isotonic")
    again = Calibrator.from_json(fitted.to_json())
    assert again == fitted
    assert again(0.42) == fitted(0.42)


@pytest.mark.parametrize("text", ["{}", "[]", '{"method": "platt", "parameters": {}, "n": 1, "log_loss": {}}', "no"])
def test_what_is_no_calibrator_is_refused(text):
    with pytest.raises(ValueError, match="no calibrator"):
        Calibrator.from_json(text)


@pytest.mark.parametrize(("n", "wrong"), [(49, 20), (400, 9)], ids=["few labels", "few errors"])
def test_too_few_labels_are_refused_with_the_number_it_takes(n, wrong):
    with pytest.raises(ValueError, match="it takes 50 and 10"):
        calibrate([0.9] * n, [False] * wrong + [True] * (n - wrong))


@pytest.mark.parametrize("value", [1.2, -0.1, float("nan")])
def test_a_confidence_beyond_its_scale_is_refused(value):
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        calibrate([value] + [0.5] * 99, [True, False] * 50)


def test_families_are_never_on_both_sides_of_a_fold():
    confidence, correct = overconfident(100)
    copied = calibrate(np.repeat(confidence, 5), np.repeat(correct, 5), families=np.repeat(np.arange(100), 5).tolist())
    naive = calibrate(np.repeat(confidence, 5), np.repeat(correct, 5))
    assert copied.log_loss["isotonic"] > naive.log_loss["isotonic"]


def test_confidences_that_part_right_from_wrong_fully_are_fitted_without_a_warning():
    sure = [0.5001] * 30 + [0.4999] * 30 + [0.0, 1.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = calibrate(sure, [True] * 30 + [False] * 31 + [True])
    assert fitted.of([1.0])[0] > 0.9
