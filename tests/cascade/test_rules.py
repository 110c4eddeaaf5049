"""Rules: each gives its reason, and they combine."""

import pytest

from workshop_lib import TRIAGE, Attempt, InvalidOutput, confidence_below, field_in, invalid_output, never, rule, stakes
from workshop_lib.cascade import always
from workshop_lib.lessons.lab02 import example

FAILED = Attempt("cheap", "m", TRIAGE, error=InvalidOutput("The answer holds no JSON object."))


def names(rule_, attempt):
    return [reason.rule for reason in rule_.reasons(attempt)]


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [(0.69, ["low_confidence"]), (0.70, []), (0.71, [])],
    ids=["below goes up", "equal stays", "above stays"],
)
def test_confidence_below_is_strict(confidence, expected):
    assert names(confidence_below(0.7), example(confidence=confidence)) == expected


def test_confidence_below_says_what_it_saw():
    assert confidence_below(0.7)(example(confidence=0.62)).detail == "confidence 0.62 < 0.7"


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_a_threshold_outside_0_to_1_is_refused(threshold):
    with pytest.raises(ValueError, match="lies within"):
        confidence_below(threshold)


def test_confidence_below_stays_silent_where_there_is_no_confidence():
    assert names(confidence_below(1.0), FAILED) == []


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        (example("auth", "P0"), ["urgent_priority", "needs_human"]),
        (example("auth", "P1"), ["urgent_priority", "needs_human"]),
        (example("auth", "P2", human=True), ["needs_human"]),
        (example("abuse", "P2"), []),
        (FAILED, []),
    ],
    ids=["P0", "P1", "flag alone", "abuse is no stake of its own", "no decision"],
)
def test_stakes_name_each_stake_that_is_touched(attempt, expected):
    assert names(stakes(), attempt) == expected


def test_invalid_output_fires_only_on_an_unusable_answer():
    assert names(invalid_output(), FAILED) == ["invalid_output"]
    assert names(invalid_output(), example()) == []


def test_or_collects_the_reasons_of_both_once():
    both = confidence_below(0.9) | stakes() | confidence_below(0.9)
    assert names(both, example("auth", "P1", confidence=0.5)) == ["low_confidence", "urgent_priority", "needs_human"]


def test_and_needs_both_to_object():
    both = field_in("priority", "P0", "P1") & confidence_below(0.9)
    assert names(both, example("auth", "P1", confidence=0.5)) == ["priority_in", "low_confidence"]
    assert names(both, example("auth", "P3", confidence=0.5)) == []
    assert names(both, example("auth", "P1", confidence=0.95)) == []


def test_a_function_becomes_a_rule_under_its_own_name():
    @rule
    def calls_it_other(attempt):
        return "could not place it" if attempt.decision.category == "other" else None

    assert calls_it_other(example("other")).rule == "calls_it_other"
    assert calls_it_other(example("other")).detail == "could not place it"
    assert calls_it_other(example("billing")) is None


def test_a_rule_shows_how_it_was_put_together():
    assert repr(confidence_below(0.7) | stakes()) == "(confidence_below(0.7) | stakes())"


def test_always_and_never_are_the_ends_of_the_scale():
    assert names(always(), example()) == ["always"]
    assert names(never(), example("abuse", "P0")) == []
