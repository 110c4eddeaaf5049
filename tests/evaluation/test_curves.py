"""Curves of a score over every threshold, held against plain loops, scikit-learn and scipy."""

import math
import time
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.calibration import calibration_curve

from workshop_lib.evaluation import (
    aiq,
    apgr,
    apgr_interval,
    aurc,
    baselines,
    cost_at_quality,
    cpt,
    curve,
    ece,
    ece_interval,
    reliability,
    risk_coverage,
    wilson,
)


def drawn(seed, *, ties=False):
    """A score, and two models of which the strong one is better."""
    chance = np.random.default_rng(seed)
    n = int(chance.integers(5, 80))
    score = chance.integers(0, 5, n).astype(float) if ties else chance.normal(size=n)
    while True:
        cheap, strong = (chance.random(n) < 0.5).astype(int), (chance.random(n) < 0.8).astype(int)
        if strong.sum() > cheap.sum():
            return score, cheap, strong


def loop(score, cheap, strong):
    """Quality with the k highest scores sent up, for every k, without a tie: one threshold after the other."""
    first = sorted(range(len(score)), key=lambda i: -score[i])
    return [
        sum(strong[i] if i in set(first[:k]) else cheap[i] for i in range(len(score))) / len(score)
        for k in range(len(score) + 1)
    ]


HUNDRED = range(100)


# APGR, CPT and cost


def test_the_curve_and_apgr_are_those_of_a_plain_loop_over_all_thresholds():
    for seed in HUNDRED:
        score, cheap, strong = drawn(seed)
        quality = loop(score, cheap, strong)
        assert curve(score, cheap, strong).quality == pytest.approx(quality, abs=1e-9)
        area = sum((a + b) / 2 for a, b in pairwise(quality)) / len(score)
        assert apgr(score, cheap, strong) == pytest.approx((area - cheap.mean()) / (strong - cheap).mean(), abs=1e-9)


def test_apgr_is_each_tickets_gain_times_its_rank_from_scipy_ties_and_all():
    for seed in HUNDRED:
        score, cheap, strong = drawn(seed, ties=True)
        gain, rank = strong - cheap, stats.rankdata(score)
        expected = (gain * (rank - 0.5) / len(score)).sum() / gain.sum()
        assert apgr(score, cheap, strong) == pytest.approx(expected, abs=1e-9)


def test_tickets_of_equal_score_count_as_the_mean_over_all_their_orders():
    score, cheap, strong = [2, 1, 1, 1, 0], np.array([1, 0, 1, 0, 1]), np.array([0, 1, 1, 1, 1])
    orders = [loop([2, *broken, 0], cheap, strong) for broken in permutations([1.0, 1.1, 1.2])]
    assert curve(score, cheap, strong).quality == pytest.approx(np.mean(orders, axis=0), abs=1e-9)


def test_a_constant_score_is_the_line_of_chance():
    for seed in HUNDRED:
        _, cheap, strong = drawn(seed)
        constant = [7] * len(cheap)
        assert apgr(constant, cheap, strong) == pytest.approx(0.5, abs=1e-12)
        found = curve(constant, cheap, strong)
        line = cheap.mean() + found.share_up * (strong - cheap).mean()
        assert found.quality == pytest.approx(line, abs=1e-12)
        assert cpt(constant, cheap, strong, 0.8) == math.ceil(0.8 * len(cheap) - 1e-9) / len(cheap)


def test_a_hand_worked_case():
    cheap, strong = [0, 1, 0, 1], [1, 1, 1, 1]
    assert curve([4, 3, 2, 1], cheap, strong).quality.tolist() == [0.5, 0.75, 0.75, 1, 1]
    assert apgr([4, 3, 2, 1], cheap, strong) == (3.25 / 4 - 0.5) / 0.5
    assert [cpt([4, 3, 2, 1], cheap, strong, s) for s in (0, 0.5, 0.8, 1, 1.01)] == [0, 0.25, 0.75, 0.75, None]


def test_cpt_is_the_first_threshold_of_the_loop():
    for seed in HUNDRED:
        score, cheap, strong = drawn(seed)
        quality, gap = loop(score, cheap, strong), (strong - cheap).mean()
        first = next(k for k, q in enumerate(quality) if q >= cheap.mean() + 0.8 * gap - 1e-12)
        assert cpt(score, cheap, strong, 0.8) == first / len(score)


@pytest.mark.parametrize("pays_cheap_first", [True, False])
def test_the_cost_is_that_of_the_cheapest_threshold_of_the_loop(pays_cheap_first):
    for seed in HUNDRED:
        score, cheap, strong = drawn(seed)
        less, more = np.random.default_rng(seed).random((2, len(score)))
        first = np.argsort(-score)
        costs = [
            more[first[:k]].sum() + (less.sum() if pays_cheap_first else less[first[k:]].sum())
            for k, q in enumerate(loop(score, cheap, strong))
            if q >= 0.9 * strong.mean() - 1e-12
        ]
        found = cost_at_quality(score, cheap, strong, less, more, 0.9, pays_cheap_first=pays_cheap_first)
        assert found == pytest.approx(min(costs) / more.sum(), abs=1e-9)


def test_a_quality_that_no_threshold_reaches_has_no_cost():
    assert cost_at_quality([1, 2], [0, 1], [1, 1], [1, 1], [9, 9], 1.1) is None


def test_no_score_is_ahead_of_the_oracle():
    for seed in HUNDRED:
        score, cheap, strong = drawn(seed)
        scores = {**baselines(["x"] * len(score), cheap, strong), "other": score}
        best = curve(scores["oracle"], cheap, strong).quality
        assert all((curve(s, cheap, strong).quality <= best + 1e-12).all() for s in scores.values())


def test_the_baselines_look_at_the_text():
    found = baselines(["Why?", "x = 3 * 41?"], [0, 1], [1, 0])
    assert found["length"].tolist() == [4, 11]
    assert found["keywords"].tolist() == [1, 4]
    assert found["oracle"].tolist() == [1, -1]
    assert baselines(["an urgent one", "none"], [0, 1], [1, 0], marks="urgent")["keywords"].tolist() == [1, 0]


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=100, deadline=None)
def test_only_the_order_of_the_scores_counts(seed, ties):
    score, cheap, strong = drawn(seed, ties=ties)
    for same in (2 * score - 5, np.arctan(score), stats.rankdata(score)):
        assert apgr(same, cheap, strong) == pytest.approx(apgr(score, cheap, strong), abs=1e-9)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_tickets_does_not_count(seed, ties):
    score, cheap, strong = drawn(seed, ties=ties)
    mixed = np.random.default_rng(seed).permutation(len(score))
    confidence = (score - score.min()) / (np.ptp(score) or 1)
    assert curve(score[mixed], cheap[mixed], strong[mixed]).quality == pytest.approx(
        curve(score, cheap, strong).quality
    )
    assert aurc(score[mixed], cheap[mixed]) == pytest.approx(aurc(score, cheap), abs=1e-9)
    for equal_mass in (True, False):
        there, here = (ece(confidence[o], cheap[o], equal_mass=equal_mass) for o in (mixed, slice(None)))
        assert there == pytest.approx(here, abs=1e-9)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_reversed_score_recovers_the_rest(seed, ties):
    score, cheap, strong = drawn(seed, ties=ties)
    assert apgr(score, cheap, strong) + apgr(-score, cheap, strong) == pytest.approx(1, abs=1e-9)


# The interval of APGR


def test_a_resample_is_apgr_of_the_tickets_drawn_again():
    score, cheap, strong = drawn(3, ties=True)
    n, chance, again = len(score), np.random.default_rng(5), []
    for _ in range(400):
        times = chance.multinomial(n, np.full(n, 1 / n))
        again.append(apgr(*(np.repeat(values, times) for values in (score, cheap, strong))))
    tail = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(0.025, n - 1))
    found = apgr_interval(score, cheap, strong, seed=5, resamples=400)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(again, [tail, 1 - tail])), abs=1e-9)
    assert (found.value, found.n, found.families) == (apgr(score, cheap, strong), n, n)


def test_copies_of_a_ticket_do_not_narrow_its_interval():
    chance = np.random.default_rng(1)
    score, cheap, strong = chance.random(200), chance.random(200) < 0.4, chance.random(200) < 0.8
    alone = apgr_interval(score, cheap, strong)
    five = [np.repeat(values, 5) for values in (score, cheap, strong)]
    copied = apgr_interval(*five, np.repeat(np.arange(200), 5).tolist())
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high), abs=1e-9)
    assert (copied.n, copied.families) == (1_000, 200)
    naive = apgr_interval(*five)
    assert naive.high - naive.low < 0.6 * (alone.high - alone.low)


@pytest.mark.parametrize("size", [1, 2])
def test_the_interval_covers_the_true_apgr_as_often_as_it_says(size):
    """A ticket of score u gains with a chance of 0.7 u and loses with 0.1 (1 - u): the gap is 0.3, and APGR is E[gain u] / 0.3."""
    chance, held, families = np.random.default_rng(11), 0, np.repeat(np.arange(120), size).tolist()
    for seed in range(400):
        score, luck = np.repeat(chance.random((2, 120)), size, axis=1)
        found = apgr_interval(
            score, luck > 1 - 0.1 * (1 - score), luck < 0.7 * score, families, seed=seed, resamples=200
        )
        held += found.low <= (0.7 / 3 - 0.1 / 6) / 0.3 <= found.high
    assert 0.92 <= held / 400 <= 0.98


# Risk and coverage


def test_aurc_is_the_mean_risk_of_a_loop_over_all_thresholds():
    for seed in HUNDRED:
        confidence, correct, _ = drawn(seed)
        risks = [1 - correct[confidence >= threshold].mean() for threshold in confidence]
        assert aurc(confidence, correct) == pytest.approx(np.mean(risks), abs=1e-9)


def test_equal_confidence_has_the_same_risk_at_every_coverage():
    assert risk_coverage([0.7] * 4, [1, 0, 0, 1]).risk == pytest.approx([0.5] * 4, abs=1e-12)


@given(st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.booleans()), min_size=1, max_size=50))
@settings(deadline=None)
def test_at_full_coverage_the_risk_is_the_overall_error_rate(rows):
    confidence, correct = map(list, zip(*rows, strict=True))
    found = risk_coverage(confidence, correct)
    assert found.risk[-1] == pytest.approx(1 - np.mean(correct), abs=1e-9)
    assert (found.coverage[-1], len(found.coverage)) == (1, len(rows))
    assert ((found.risk > -1e-12) & (found.risk < 1 + 1e-12)).all()


# Calibration


@pytest.mark.parametrize("equal_mass", [True, False])
@pytest.mark.parametrize("levels", [7, 10_000])
def test_reliability_is_scikit_learns_calibration_curve(equal_mass, levels):
    for seed in HUNDRED:
        chance = np.random.default_rng(seed)
        confidence = chance.integers(0, levels + 1, 200) / levels
        correct = chance.random(200) < confidence**2
        share, mean = calibration_curve(correct, confidence, n_bins=8, strategy="quantile" if equal_mass else "uniform")
        rows = reliability(confidence, correct, 8, equal_mass=equal_mass)
        assert [row.correct.value for row in rows] == pytest.approx(share, abs=1e-9)
        assert [row.confidence for row in rows] == pytest.approx(mean, abs=1e-9)
        assert sum(row.correct.n for row in rows) == 200
        expected = sum(row.correct.n * abs(row.confidence - row.correct.value) for row in rows) / 200
        assert ece(confidence, correct, 8, equal_mass=equal_mass) == pytest.approx(expected, abs=1e-9)


def test_ece_is_that_of_a_plain_loop():
    for seed in HUNDRED:
        chance = np.random.default_rng(seed)
        confidence, total = chance.random(60), 0
        correct = chance.random(60) < 0.7
        for i in range(10):
            members = [j for j in range(60) if i / 10 < confidence[j] <= (i + 1) / 10]
            total += abs(sum(confidence[j] - correct[j] for j in members))
        assert ece(confidence, correct) == pytest.approx(total / 60, abs=1e-9)


def test_bins_are_ten_of_equal_width_or_fifteen_of_equal_mass():
    confidence, correct = np.linspace(0, 1, 300), np.arange(300) % 2
    wide, alike = reliability(confidence, correct), reliability(confidence, correct, equal_mass=True)
    assert [row.high for row in wide] == pytest.approx(np.arange(1, 11) / 10)
    assert [row.correct.n for row in alike] == [20] * 15


def test_a_row_of_the_diagram_has_wilsons_interval():
    assert reliability([0.95, 0.9, 0.92, 0.1], [1, 0, 1, 0])[-1].correct == wilson(2, 2)
    assert [(row.low, row.high) for row in reliability([1, 1], [1, 0])] == [(pytest.approx(0.9), 1)]


def test_right_as_often_as_said_is_calibrated():
    assert ece([0.75] * 4, [1, 1, 1, 0]) == 0
    assert ece([1, 1], [0, 0]) == 1


@pytest.mark.parametrize(("power", "most"), [(1, 0.99), (1.5, 0.99), (2, 0.97)], ids=["calibrated", "off", "far off"])
def test_the_interval_of_an_ece_covers_the_true_one_at_least_as_often_as_it_says(power, most):
    """A confidence c is right with a chance of c to the power."""
    chance, held = np.random.default_rng(11), 0
    many = chance.beta(4, 1.5, 1_000_000)
    bins = np.minimum(many * 10, 9).astype(int)
    true = np.abs(np.bincount(bins, many - many**power)).sum() / len(many)
    for seed in range(400):
        confidence = chance.beta(4, 1.5, 300)
        found = ece_interval(confidence, chance.random(300) < confidence**power, seed=seed % 3, resamples=300)
        assert 0 <= found.low <= found.value <= found.high
        held += found.low <= true <= found.high
    assert 0.93 <= held / 400 <= most


def test_copies_of_a_ticket_do_not_narrow_the_interval_of_an_ece():
    chance = np.random.default_rng(1)
    confidence = chance.random(200)
    correct = chance.random(200) < confidence**2
    copied = ece_interval(np.repeat(confidence, 5), np.repeat(correct, 5), np.repeat(np.arange(200), 5).tolist())
    alone = ece_interval(confidence, correct)
    assert (copied.low, copied.value, copied.high) == pytest.approx((alone.low, alone.value, alone.high), abs=1e-9)
    assert alone.value == pytest.approx(ece(confidence, correct), abs=1e-12)


# AIQ


def test_aiq_of_a_hand_worked_case():
    """The hull goes (1, .4), (2, .8), then level at .9 from 4: the point (3, .2) is worth nothing, and (3, .85) lies on the line."""
    expected = ((0.4 + 0.8) / 2 * 1 + (0.8 + 0.9) / 2 * 2 + 0.9 * 1) / 4
    assert aiq([1, 2, 3, 3, 4, 5], [0.4, 0.8, 0.2, 0.85, 0.9, 0.5]) == pytest.approx(expected, abs=1e-12)


def test_aiq_is_the_best_mix_of_any_two_points_at_every_cost():
    for seed in HUNDRED:
        chance = np.random.default_rng(seed)
        cost, quality = chance.integers(1, 9, 12) / 4, chance.random(12)
        if np.ptp(cost) == 0:
            continue
        grid = np.linspace(cost.min(), cost.max(), 10 * round(4 * np.ptp(cost)) + 1)
        best = np.full(len(grid), -1.0)
        for i in range(12):
            best[grid >= cost[i]] = np.maximum(best[grid >= cost[i]], quality[i])
            for j in range(12):
                if cost[i] < cost[j]:
                    part = (grid >= cost[i]) & (grid <= cost[j])
                    best[part] = np.maximum(best[part], np.interp(grid[part], cost[[i, j]], quality[[i, j]]))
        assert aiq(cost, quality) == pytest.approx(np.mean((best[1:] + best[:-1]) / 2), abs=1e-9)


# What cannot be judged


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: apgr([1, 2], [1, 0], [1, 0]), "not better .* 2 tickets .*0.5 against 0.5.* no gap"),
        (lambda: apgr([1, 2], [1, 1], [1, 0]), "not better"),
        (lambda: cpt([1, 2], [1, 1], [1, 0], 0.5), "not better"),
        (lambda: apgr([], [], []), "score: give one number a ticket"),
        (lambda: apgr([1, 2, 3], [0, 1], [1, 1]), "unequal length: score 3, cheap_correct 2, strong_correct 2"),
        (lambda: apgr([1, math.nan], [0, 1], [1, 1]), "score: number 1 is nan"),
        (lambda: apgr([1, None], [0, 1], [1, 1]), "score: number 1 is nan"),
        (lambda: apgr([1, -math.inf], [0, 1], [1, 1]), "score: number 1 is -inf"),
        (lambda: apgr_interval([1, 2], [0, 1], [1, 1], ["f", "f"]), "two families"),
        (lambda: apgr_interval([1, 2, 3], [0, 1, 0], [1, 0, 1]), "gap is too unsure"),
        (lambda: cost_at_quality([1], [0], [1], [1], [0]), "cost something"),
        (lambda: cost_at_quality([1], [0], [1], [-1], [1]), "negative"),
        (lambda: aurc([1, 2], [0.5, 1]), "correct: give 1"),
        (lambda: ece([1.5, 0.5], [0, 1]), "confidence: from 0 to 1, not 0.5 to 1.5"),
        (lambda: ece([-0.5, 0.5], [0, 1]), "log-probability"),
        (lambda: ece([0.5, 0.5], [0, 1], 0), "bins: at least one"),
        (lambda: ece_interval([0.5, 0.5], [0, 1], ["f", "f"]), "two families"),
        (lambda: ece_interval([0.5, 0.6], [1, 1]), "all answers have correct = 1"),
        (lambda: reliability([0.5], [0, 1]), "unequal length"),
        (lambda: aiq([2, 2], [0, 1]), "two different costs; all cost 2"),
        (lambda: baselines([], [], []), "at least one"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_the_reason(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()


def test_a_hundred_thousand_tickets_take_less_than_five_seconds_for_all_curves():
    chance = np.random.default_rng(0)
    score, cheap, strong = chance.random(100_000), chance.random(100_000) < 0.6, chance.random(100_000) < 0.8
    less, more = chance.random((2, 100_000))
    began = time.process_time()
    found = curve(score, cheap, strong)
    apgr(score, cheap, strong), cpt(score, cheap, strong, 0.8), cost_at_quality(score, cheap, strong, less, more)
    (
        aurc(score, cheap),
        ece(score, cheap),
        reliability(score, cheap, equal_mass=True),
        aiq(found.share_up, found.quality),
    )
    assert time.process_time() - began < 5
