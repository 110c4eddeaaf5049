"""Intervals and paired differences."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from workshop_lib.evaluation import (
    clustered_share,
    kappa,
    mcnemar,
    paired_difference,
    required_tickets,
    share,
    weighted_mean,
    wilson,
)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (25, 30), (28, 30), (7, 22), (1, 1)])
def test_wilson_agrees_with_scipy(k, n):
    theirs = stats.binomtest(k, n).proportion_ci(method="wilson")
    ours = wilson(k, n)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (3, 2), (-1, 5)])
def test_an_impossible_share_is_refused(k, n):
    with pytest.raises(ValueError, match="successes"):
        wilson(k, n)


def test_copies_of_a_ticket_do_not_narrow_the_interval():
    right = [True, False] * 10
    alone = clustered_share(right, range(20))
    copied = clustered_share([r for r in right for _ in range(5)], [i for i in range(20) for _ in range(5)])
    assert copied.value == alone.value
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high), abs=0.06)
    naive = clustered_share([r for r in right for _ in range(5)], range(100))
    assert naive.high - naive.low < 0.7 * (copied.high - copied.low)


def test_a_paired_difference_counts_what_each_alone_got_right():
    found = paired_difference([True, True, False, True], [True, False, False, False], range(4))
    assert (found.value, found.only_a, found.only_b, found.n) == (0.5, 2, 0, 4)


def test_no_difference_does_not_decide():
    assert not paired_difference([True, False] * 20, [False, True] * 20, range(40)).decides


def test_a_clear_difference_decides():
    assert paired_difference([True] * 40, [True] * 25 + [False] * 15, range(40)).decides


@pytest.mark.parametrize(
    ("a", "b", "families"),
    [([], [], []), ([True], [True, False], [0]), ([True], [True], [])],
    ids=["none", "unequal", "no family"],
)
def test_input_that_does_not_pair_is_refused(a, b, families):
    with pytest.raises(ValueError, match=r"paired|family"):
        paired_difference(a, b, families)


def test_the_clustered_interval_covers_about_as_often_as_it_says():
    chance, hits, runs = np.random.default_rng(1), 0, 200
    for seed in range(runs):
        strengths = chance.beta(4, 2, size=60)
        right = [bool(r) for p in strengths for r in chance.random(3) < p]
        share = clustered_share(right, [i for i in range(60) for _ in range(3)], seed=seed, resamples=500)
        hits += share.low <= 4 / 6 <= share.high
    assert 0.89 <= hits / runs <= 0.99


# Against scipy and scikit-learn, on a hundred random inputs

CHANCE = np.random.default_rng(2026)
HUNDRED = [(int(CHANCE.integers(0, n + 1)), int(n)) for n in CHANCE.integers(1, 400, 100)]


def test_wilson_is_scipys_on_a_hundred_inputs():
    for k, n in HUNDRED:
        theirs = stats.binomtest(k, n).proportion_ci(method="wilson")
        assert (wilson(k, n).low, wilson(k, n).high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_mcnemar_is_scipys_exact_test_on_a_hundred_inputs():
    for k, n in HUNDRED:
        assert mcnemar(k, n - k) == pytest.approx(stats.binomtest(k, n, 0.5).pvalue, abs=1e-9)


def test_kappa_is_scikit_learns_on_a_hundred_inputs():
    for seed in range(100):
        chance = np.random.default_rng(seed)
        a = chance.integers(0, 4, 60).tolist()
        b = [x if chance.random() < 0.6 else int(chance.integers(0, 4)) for x in a]
        assert kappa(a, b).value == pytest.approx(cohen_kappa_score(a, b), abs=1e-9)


def test_the_ends_of_an_interval_are_scipys_quantiles_of_the_resampled_means():
    for seed in range(100):
        chance = np.random.default_rng(seed)
        families, right = chance.integers(0, 25, 60).tolist(), (chance.random(60) < 0.7).tolist()
        count = len(set(families))
        sums, sizes = (
            np.array(
                [
                    sum(v for v, f in zip(values, families, strict=True) if f == family)
                    for family in dict.fromkeys(families)
                ]
            )
            for values in (right, [1] * 60)
        )
        drawn = np.random.default_rng(5).multinomial(count, np.full(count, 1 / count), 4_000)
        means = (drawn @ sums) / (drawn @ sizes)
        tail = stats.norm.cdf(np.sqrt(count / (count - 1)) * stats.t.ppf(0.025, count - 1))
        theirs = stats.mstats.mquantiles(means, [tail, 1 - tail], alphap=1, betap=1)
        ours = clustered_share(right, families, seed=5)
        assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=1e-9)


def test_the_size_of_a_sample_is_the_formula_in_scipys_quantiles():
    for seed in range(100):
        discordance = np.random.default_rng(seed).uniform(0.05, 0.6)
        difference = discordance * np.random.default_rng(seed + 1).uniform(0.1, 0.9)
        a, b = stats.norm.ppf(0.975), stats.norm.ppf(0.8)
        exact = ((a * np.sqrt(discordance) + b * np.sqrt(discordance - difference**2)) / difference) ** 2
        assert required_tickets(difference, discordance=discordance) == int(np.ceil(exact))


# Whether an interval holds what it promises, over a thousand simulated data sets each


def families_of(count, size):
    return np.repeat(np.arange(count), size).tolist()


def drawn_shares(chance, count, size, share, correlation):
    """Chances to be right, alike within a family as the correlation says."""
    if not correlation:
        return np.full(count * size, share)
    strength = (1 - correlation) / correlation
    return np.repeat(chance.beta(share * strength, (1 - share) * strength, count), size)


@pytest.mark.parametrize(
    ("count", "size", "true", "correlation"),
    [(240, 1, 0.7, 0), (100, 1, 0.88, 0), (120, 2, 0.7, 0.3), (120, 2, 0.88, 0.3), (56, 2, 0.6, 0.5), (40, 5, 0.8, 0.4), (15, 2, 0.7, 0.3)],
)  # fmt: skip
def test_an_interval_of_a_share_covers_it_as_often_as_it_says(count, size, true, correlation):
    chance, families, held = np.random.default_rng(11), families_of(count, size), 0
    for _ in range(1_000):
        found = share(
            (chance.random(count * size) < drawn_shares(chance, count, size, true, correlation)).tolist(), families
        )
        held += found.low <= true <= found.high
    assert 930 <= held <= 970


@pytest.mark.parametrize(("count", "size", "correlation"), [(240, 1, 0), (120, 2, 0.3), (56, 2, 0.5)])
def test_an_interval_of_a_difference_covers_it_as_often_as_it_says(count, size, correlation):
    chance, families, held = np.random.default_rng(12), families_of(count, size), 0
    for _ in range(400):
        hard = drawn_shares(chance, count, size, 0.6, correlation)
        b = chance.random(count * size) < hard
        a = np.where(b, chance.random(count * size) < 0.95, chance.random(count * size) < 0.3)
        found = paired_difference(a.tolist(), b.tolist(), families)
        held += found.low <= 0.6 * 0.95 + 0.4 * 0.3 - 0.6 <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_an_interval_of_kappa_covers_it_as_often_as_it_says():
    chance, held = np.random.default_rng(13), 0
    for _ in range(400):
        a = chance.integers(0, 3, 150)
        b = np.where(chance.random(150) < 0.7, a, chance.integers(0, 3, 150))
        found = kappa(a.tolist(), b.tolist())
        held += found.low <= 0.7 <= found.high  # agreement 0.8, by chance 1/3
    assert 0.92 <= held / 400 <= 0.98


def test_as_many_tickets_as_required_see_the_difference_as_often_as_promised():
    n = required_tickets(0.1, discordance=0.3, power=0.8)
    chance = np.random.default_rng(14)
    cells = chance.multinomial(n, [0.2, 0.1, 0.7], 2_000)
    seen = np.mean([mcnemar(int(a), int(b)) < 0.05 for a, b, _ in cells])
    assert 0.74 < seen < 0.86


# At the edges


def test_one_family_says_nothing_about_others():
    found = clustered_share([True, False, True], ["f", "f", "f"])
    assert (found.low, found.high) == (0, 1)
    ahead = paired_difference([True, True], [True, False], ["f", "f"])
    assert (ahead.low, ahead.high) == (-1, 1)
    same_text = kappa(["x", "y", "y"], ["x", "y", "x"], ["f", "f", "f"])
    assert (same_text.low, same_text.high) == (-1, 1)


@pytest.mark.parametrize("costs", [[40.0, 56.0], [48.0, 48.0], [0.2, 0.4]])
def test_of_one_familys_costs_no_interval_is_known_whatever_their_unit(costs):
    found = weighted_mean(costs, ["f", "f"])
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert (weighted_mean([1, 0], ["f", "f"]).low, weighted_mean([1, 0], ["f", "f"]).high) == (0, 1)


def test_all_right_is_not_certainly_right():
    found = clustered_share([True] * 30, families_of(15, 2))
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(wilson(15, 15).low)


def test_a_single_ticket_leaves_nearly_everything_open():
    found = share([True], ["f"])
    assert found.low < 0.25
    assert not paired_difference([True], [False]).decides


def test_strategies_right_on_the_same_tickets_are_not_proven_equal():
    found = paired_difference([True, False] * 20, [True, False] * 20)
    assert found.low < 0 < found.high
    assert "not ruled out" in found.sentence("a", "b")


def test_a_share_counts_families_and_different_texts():
    found = share([True, False, True, True], ["f", "f", "g", "g"], texts=["x", "x", "y", "z"])
    assert (found.n, found.families, found.distinct_texts) == (4, 2, 3)


def test_an_undecided_pair_says_how_many_tickets_it_takes():
    said = paired_difference([True] * 6 + [False] * 24, [True] * 4 + [False] * 26).sentence("a", "b")
    assert "do not decide" in said
    assert "takes about" in said


def test_the_sentence_names_who_is_ahead_first():
    said = paired_difference([False] * 40, [True] * 30 + [False] * 10).sentence("a", "b")
    assert said.startswith("joint agreement: b is ahead of a by 75.0 points [+")


def test_kappa_of_one_label_is_refused():
    with pytest.raises(ValueError, match="two different labels"):
        kappa(["x", "x"], ["x", "x"])


def test_kappa_of_full_agreement_is_one_with_a_lower_end_below_it():
    found = kappa(["x", "y"] * 10, ["x", "y"] * 10)
    assert found.value == found.high == 1
    assert found.low < 1


@pytest.mark.parametrize(("difference", "discordance"), [(0, 0.2), (0.3, 0.2), (0.1, 1.2)])
def test_a_difference_larger_than_the_discordance_is_refused(difference, discordance):
    with pytest.raises(ValueError, match="discordance"):
        required_tickets(difference, discordance=discordance)


def test_beyond_many_families_the_interval_is_what_resampling_them_gives(monkeypatch):
    from workshop_lib.evaluation import statistics

    chance = np.random.default_rng(15)
    right, families = (chance.random(5_000) < 0.8).tolist(), families_of(2_500, 2)
    at_once = clustered_share(right, families)
    monkeypatch.setattr(statistics, "MANY", 10_000)
    resampled = clustered_share(right, families)
    assert (at_once.low, at_once.high) == pytest.approx((resampled.low, resampled.high), abs=5e-4)


# Weighted means


def test_a_weighted_mean_counts_each_value_as_often_as_its_weight():
    assert weighted_mean([1, 0, 0], weights=[2, 1, 1]).value == 0.5


def test_without_weights_a_mean_has_the_interval_of_a_clustered_share():
    values, families = [1, 0, 1, 1, 0, 0, 1, 1], list("aabbccdd")
    found, known = weighted_mean(values, families), clustered_share(values, families)
    assert (found.value, found.low, found.high, found.families) == (known.value, known.low, known.high, 4)


def test_a_mean_of_costs_may_have_any_size():
    found = weighted_mean([10.0, 30.0, 20.0, 40.0] * 5)
    assert 10 < found.low < found.value == 25 < found.high < 40


def test_equal_verdicts_are_worth_fewer_tickets_where_weights_differ():
    alike, unlike = weighted_mean([0] * 10), weighted_mean([0] * 10, weights=[91] + [1] * 9)
    assert alike.high < unlike.high <= 1


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, float("nan")]])
def test_a_weight_that_cannot_be_is_refused(weights):
    with pytest.raises(ValueError, match="one weight above 0"):
        weighted_mean([1, 0], weights=weights)
