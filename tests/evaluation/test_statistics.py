"""Intervals and paired differences."""

import numpy as np
import pytest
from scipy import stats

from workshop_lib.evaluation import clustered_share, paired_difference, wilson


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
