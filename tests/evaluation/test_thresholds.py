"""A threshold chosen from a target, what it means on other tickets, and a guarantee that holds."""

import numpy as np
import pytest

from workshop_lib.evaluation import choose_threshold


def pair(n, seed=0, *, strong=0.9):
    """A cheap model that knows when it is unsure, and a strong one."""
    chance = np.random.default_rng(seed)
    confidence = chance.beta(5, 2, n)
    return confidence, chance.random(n) < confidence, chance.random(n) < strong


COSTS = {"cheap_cost_usd": 0.0001, "strong_cost_usd": 0.0056}


def final_of(confidence, cheap, strong, threshold):
    return np.where(confidence < threshold, strong, cheap)


def test_a_share_of_the_strong_models_agreement_is_kept_with_as_few_calls_as_possible():
    confidence, cheap, strong = pair(800)
    choice = choose_threshold(confidence, cheap, strong, quality=0.97)
    assert choice.met
    assert final_of(confidence, cheap, strong, choice.threshold).mean() >= 0.97 * strong.mean()
    lower = confidence[confidence < choice.threshold].max()
    assert final_of(confidence, cheap, strong, lower).mean() < 0.97 * strong.mean()


def test_what_it_means_on_other_tickets_lies_within_its_interval():
    held = 0
    for seed in range(20):
        choice = choose_threshold(*pair(300, seed), quality=0.97)
        confidence, cheap, strong = pair(20_000, 1_000 + seed)
        held += (
            choice.agreement.low
            <= final_of(confidence, cheap, strong, choice.threshold).mean()
            <= choice.agreement.high
        )
    assert held >= 17


def test_a_budget_is_kept_and_spent_on_the_best_agreement():
    confidence, cheap, strong = pair(800)
    choice = choose_threshold(confidence, cheap, strong, budget_per_1000_usd=2.0, **COSTS)
    spent = 1_000 * (0.0001 + 0.0056 * (confidence < choice.threshold).mean())
    assert spent <= 2.0
    assert final_of(confidence, cheap, strong, choice.threshold).mean() > cheap.mean() + 0.1


def test_a_budget_below_the_cheap_calls_is_not_met_and_says_so():
    choice = choose_threshold(*pair(300), budget_per_1000_usd=0.01, **COSTS)
    assert not choice.met
    assert "NOT met" in str(choice)


def test_the_dearer_an_error_the_more_goes_up():
    cheap_errors, dear_errors = (choose_threshold(*pair(800), wrong_usd=usd, **COSTS).threshold for usd in (0.008, 1.0))
    assert cheap_errors < dear_errors


def test_a_dearer_review_sends_up_less():
    free, dear = (choose_threshold(*pair(800), wrong_usd=0.1, review_usd=usd, **COSTS).threshold for usd in (0, 0.05))
    assert dear < free


def test_the_expected_cost_is_least_at_the_chosen_threshold():
    confidence, cheap, strong = pair(400)
    choice = choose_threshold(confidence, cheap, strong, wrong_usd=0.05, **COSTS)

    def expected(threshold):
        up = confidence < threshold
        return 0.0056 * up.mean() + 0.05 * (1 - np.where(up, strong, cheap).mean())

    assert expected(choice.threshold) == pytest.approx(min(map(expected, [*confidence, 1.1])), abs=1e-12)


@pytest.mark.parametrize(("alpha", "delta", "n"), [(0.1, 0.1, 300), (0.05, 0.05, 400), (0.15, 0.2, 120)])
def test_the_risk_guarantee_holds_in_as_many_simulated_calibrations_as_promised(alpha, delta, n):
    grid = np.linspace(0, 1, 20_001)
    density = grid**4 * (1 - grid)  # of a Beta(5, 2), as `pair` draws
    kept_and_wrong = np.cumsum((density * (1 - grid))[::-1])[::-1] / density.sum()
    broken = 0
    for seed in range(1_000):
        confidence, cheap, _ = pair(n, seed)
        threshold = choose_guarantee(confidence, cheap, alpha, delta)
        true_risk = 0.0 if threshold > 1 else kept_and_wrong[np.searchsorted(grid, threshold)]
        broken += true_risk > alpha
    assert broken <= 1_000 * delta


def choose_guarantee(confidence, cheap, alpha, delta):
    from workshop_lib.evaluation.thresholds import guaranteed

    return guaranteed(confidence, np.asarray(cheap, dtype=float), alpha, delta)


def test_the_guarantee_is_not_bought_by_sending_everything_up():
    confidence, cheap, strong = pair(500)
    choice = choose_threshold(confidence, cheap, strong, max_risk=0.1, delta=0.1)
    assert 0.1 < choice.sent_up.value < 0.8
    kept_wrong = ((confidence >= choice.threshold) & ~cheap).mean()
    assert kept_wrong <= 0.1


def test_too_few_tickets_for_a_guarantee_send_everything_up():
    choice = choose_threshold(*pair(10), max_risk=0.05)
    assert choice.threshold > 1


def test_a_guarantee_counts_families_and_not_copies():
    confidence, cheap, strong = pair(60)
    copies = [np.repeat(x, 10) for x in (confidence, cheap, strong)]
    honest = choose_threshold(*copies, max_risk=0.1, families=np.repeat(np.arange(60), 10).tolist())
    naive = choose_threshold(*copies, max_risk=0.1)
    assert honest.threshold > naive.threshold


def test_few_tickets_and_a_strong_model_not_shown_to_be_stronger_are_warned_of():
    choice = choose_threshold(*pair(60, strong=0.6), quality=0.9)
    assert any("60 families" in line for line in choice.warnings)
    assert any("not shown to be stronger" in line for line in choice.warnings)
    assert choose_threshold(*pair(2_000), quality=0.9).warnings == ()


def test_a_constant_confidence_offers_all_or_nothing():
    _, cheap, strong = pair(200)
    choice = choose_threshold([0.9] * 200, cheap, strong, quality=0.99)
    assert choice.threshold > 1


def test_a_target_that_no_threshold_meets_gives_the_nearest_and_says_so():
    _, cheap, strong = pair(200)
    choice = choose_threshold([0.9] * 200, cheap, strong, quality=1.5)
    assert not choice.met


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "exactly one target"),
        ({"quality": 0.9, "max_risk": 0.1}, "exactly one target"),
        ({"budget_per_1000_usd": 1.0}, "needs cheap_cost_usd"),
        ({"max_risk": 0.0}, "max_risk lies between"),
        ({"quality": -1}, "quality lies between"),
        ({"wrong_usd": 1.0, "cheap_cost_usd": float("nan"), "strong_cost_usd": 1.0}, "number of USD"),
    ],
)
def test_an_impossible_wish_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        choose_threshold(*pair(120), **options)


@pytest.mark.parametrize("confidence", [[1.5, 0.2], [float("nan"), 0.2], [0.2]])
def test_unusable_confidences_are_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        choose_threshold(confidence, [True, False], [True, True], quality=0.9)
