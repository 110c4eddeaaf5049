"""Lab 04's checks: each way of getting an interval, a comparison or a strategy wrong is told apart, and the right ones pass."""

import math
import random

import pytest

from workshop_lib import Reason
from workshop_lib.evaluation import Share, clustered_share, mcnemar, paired_difference, share, wilson
from workshop_lib.lessons import check, hint, lab04, solution


def interval(right, n, z=1.96):
    p = right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return centre - half, centre + half


def of_the_textbook(right, n):
    p = right / n
    half = 1.96 * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


def cut_off(right, n):
    low, high = of_the_textbook(right, n)
    return max(0, low), min(1, high)


def in_per_cent(right, n):
    return tuple(100 * end for end in interval(right, n))


def upside_down(right, n):
    return interval(right, n)[::-1]


def of_ninety_per_cent(right, n):
    return interval(right, n, z=1.645)


def who_is_ahead(a, b, families):
    difference = paired_difference(a, b, families)
    if not difference.decides:
        return "neither"
    return "a" if difference.value > 0 else "b"


def by_value(a, b, families):
    return "a" if sum(a) > sum(b) else "b"


def by_overlap(a, b, families):
    x, y = share(a), share(b)
    return "a" if x.low > y.high else "b" if y.low > x.high else "neither"


def without_families(a, b, families):
    return who_is_ahead(a, b, None)


def by_mcnemar(a, b, families):
    d = paired_difference(a, b)
    return "neither" if mcnemar(d.only_a, d.only_b) > 0.05 else "a" if d.value > 0 else "b"


def the_wrong_way(a, b, families):
    return {"a": "b", "b": "a"}.get(who_is_ahead(a, b, families), "neither")


def honest(right, n, independent):
    return wilson(right / n * independent, independent)


def widened(right, n, independent):
    """By the design effect itself, not by its root."""
    found, by = wilson(right, n), n / independent
    return found.value - by * (found.value - found.low), found.value + by * (found.high - found.value)


def mine(asked):
    said = asked.attempts["cheap"].decision
    if said is None or said.priority == "P3":
        return asked.take("cheap", "strong", reasons=[Reason("called_harmless")])
    return asked.take("cheap")


def by_its_text(asked):
    if asked.attempts["cheap"].decision is None or len(asked.item.body) > 200:
        return asked.take("cheap", "strong", reasons=[Reason("long")])
    return asked.take("cheap")


def in_three_tiers(asked):
    if (asked.attempts["cheap"].confidence or 0) > 0.9:
        return asked.take("cheap")
    return asked.take("cheap", "middle", "strong", reasons=[Reason("unsure")])


def careless(asked):
    if asked.attempts["cheap"].decision.priority == "P3":
        return asked.take("cheap", "strong", reasons=[Reason("p3")])
    return asked.take("cheap")


def leaves_failures(asked):
    said = asked.attempts["cheap"].decision
    return mine(asked) if said is not None else asked.take("cheap")


def peeks(asked):
    cheap, strong = (asked.attempts[tier].decision for tier in ("cheap", "strong"))
    if cheap is None or cheap.category != strong.category:
        return asked.take("cheap", "strong", reasons=[Reason("they_differ")])
    return asked.take("cheap")


def skips_the_cheap(asked):
    return asked.take("strong") if len(asked.item.body) > 200 else asked.take("cheap")


def silent(asked):
    return asked.take("cheap", "strong") if mine(asked).escalated else asked.take("cheap")


def throws_dice(asked):
    up = asked.attempts["cheap"].decision is None or random.random() < 0.5
    return asked.take("cheap", "strong", reasons=[Reason("dice")]) if up else asked.take("cheap")


def forgets_to_return(asked):
    return mine(asked) if not mine(asked).escalated or asked.attempts["cheap"].confidence < 0.6 else None


CASES = [
    ("4.1", interval, "Correct"),
    ("4.1", wilson, "Correct"),
    ("4.1", of_the_textbook, "beyond what a share can be"),
    ("4.1", cut_off, "standard errors"),
    ("4.1", in_per_cent, "not per cent"),
    ("4.1", upside_down, "lies above"),
    ("4.1", of_ninety_per_cent, "for 28 of 30 it gives"),
    ("4.1", lambda right, n: (right / n, right / n), "has no width"),
    ("4.1", lambda right, n: None, "Not attempted"),
    ("4.1", lambda right, n: right / 0, "Your code raised"),
    ("4.2", who_is_ahead, "Correct"),
    ("4.2", by_value, "A alone is right on 3 of 30"),
    ("4.2", by_overlap, "two intervals overlap"),
    ("4.2", without_families, "are of one family"),
    ("4.2", by_mcnemar, "are of one family"),
    ("4.2", the_wrong_way, "Not yet"),
    ("4.2", lambda a, b, families: True, "say 'a', 'b' or 'neither'"),
    ("4.2", lambda a, b, families: None, "Not attempted"),
    ("4.3", honest, "Correct"),
    ("4.3", lambda right, n, independent: interval(right / n * independent, independent), "Correct"),
    ("4.3", lambda right, n, independent: wilson(right, n), "is that of 120 independent tickets"),
    ("4.3", lambda right, n, independent: wilson(min(right, independent), independent), "the share is now"),
    ("4.3", widened, "the interval is"),
    ("4.3", lambda right, n, independent: None, "Not attempted"),
    ("4.4", mine, "Correct"),
    ("4.4", by_its_text, "Correct"),
    ("4.4", in_three_tiers, "Correct"),
    ("4.4", careless, "AttributeError"),
    ("4.4", leaves_failures, "unanswered"),
    ("4.4", peeks, "which nobody knows before paying"),
    ("4.4", skips_the_cheap, "the cheap model goes first"),
    ("4.4", silent, "without a reason"),
    ("4.4", throws_dice, "it goes two ways"),
    ("4.4", forgets_to_return, "every way through"),
    ("4.4", lambda asked: asked.take("cheap"), "that is cheap-only"),
    ("4.4", lambda asked: asked.take("cheap", "strong", reasons=[Reason("x")]), "plus a fee"),
    ("4.4", lambda asked: None, "Not attempted"),
    ("4.4", lambda asked: "cheap", "gives str"),
]


@pytest.mark.parametrize(("number", "answer", "said"), CASES, ids=lambda v: getattr(v, "__name__", None))
def test_a_check_tells_what_is_missing(number, answer, said):
    assert said in repr(check(number, answer))


@pytest.mark.parametrize("number", ["4.1", "4.2", "4.3", "4.4"])
def test_every_exercise_has_hints_and_a_solution(number):
    assert "Hint 1" in repr(hint(number))
    assert "def " in repr(solution(number))


def test_the_published_stories_end_as_the_lab_says():
    _, cheap, cascade = lab04.FIRST_TABLE
    assert wilson(cheap.right, cheap.n).high > wilson(cascade.right, cascade.n).low
    assert mcnemar(3, 0) > 0.05
    _, cheap, cascade = lab04.LOCKED_TEST
    assert cascade.right < cheap.right
    texts = [wilson(told.right / told.n * 31, 31) for told in lab04.LOCKED_TEST]
    assert texts[0].low < texts[2].high
    assert cheap.human_found - cascade.human_found == 5


def test_a_design_effect_is_one_for_independent_tickets_and_more_where_families_repeat():
    right = [i % 3 > 0 for i in range(60)]
    assert lab04.design_effect(share(right)) == pytest.approx(1)
    copies = [value for value in right for _ in range(4)]
    assert 3 < lab04.design_effect(clustered_share(copies, [i // 4 for i in range(240)])) < 5


def test_a_kappa_that_cannot_be_worked_out_is_told_in_words():
    shown = repr(lab04.kappas({"category": Share(0.5, -0.1, 0.9, 30), "priority": None}))
    assert "0.50 [-0.10, 0.90]" in shown
    assert "only one label" in shown
