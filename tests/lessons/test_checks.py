"""Exercises: five verdicts, none of which raises."""

import pytest

from workshop_lib import confidence_below, field_in, rule
from workshop_lib.lessons import check, hint, solution


def right(usage, price):
    return price.cost(usage)


def forgets_the_cache(usage, price):
    return (usage.input_tokens * price.input + usage.output_tokens * price.output) / 1_000_000


def divides_by_a_float(usage, price):
    plain = usage.input_tokens * price.input + usage.output_tokens * price.output
    return (plain + usage.cache_read_tokens * price.cache_read + usage.cache_write_tokens * price.cache_write_5m) / 1e6


def raises(usage, price):
    return usage.tokens


def returns_nothing(usage, price): ...


@pytest.mark.parametrize(
    ("arguments", "verdict"),
    [
        (("1.1", right), "Correct"),
        (("1.1", divides_by_a_float), "Correct"),
        (("1.1", forgets_the_cache), "Not yet"),
        (("1.1", returns_nothing), "Not attempted"),
        (("1.1", ...), "Not attempted"),
        (("1.1", raises), "Your code raised"),
        (("1.1",), "Nothing to check"),
        (("7.7", 1), "Nothing to check"),
        (("99.1", 1), "Nothing to check"),
    ],
)
def test_a_check_gives_one_of_five_verdicts(arguments, verdict):
    assert verdict in repr(check(*arguments))


def test_not_yet_shows_the_attendees_value_and_not_the_answer():
    said = repr(check("1.1", forgets_the_cache))
    assert "cached tokens" in said
    assert "your function says USD" in said


def test_a_raising_answer_names_its_error_and_line():
    said = repr(check("1.1", raises))
    assert "AttributeError" in said
    assert "usage.tokens" in said


@rule
def sends_up_other(attempt):
    return attempt.decision is not None and attempt.decision.category == "other"


@rule
def sends_up_all(attempt):
    return True


@pytest.mark.parametrize(
    ("number", "answer", "verdict"),
    [
        ("0.1", "local", "Correct"),
        ("0.1", "live", "Not yet"),
        ("1.3", "haiku-sonnet-5-5", "Correct"),
        ("1.3", "nemotron-sonnet", "Not yet"),
        ("1.3", "no-such-pair", "Not yet"),
        ("2.1", sends_up_other, "Correct"),
        ("2.1", sends_up_all, "Not yet"),
        ("2.1", lambda attempt: None, "Not yet"),
        ("2.2", field_in("priority", "P0", "P1") & confidence_below(0.9), "Correct"),
        ("2.2", field_in("priority", "P0", "P1") | confidence_below(0.9), "Not yet"),
        ("2.3", any, "Correct"),
        ("2.3", all, "Not yet"),
        ("2.3", lambda flags: flags[-1], "Not yet"),
        ("2.3", lambda flags: None, "Not attempted"),
    ],
)
def test_right_and_wrong_answers_of_each_exercise_are_told_apart(number, answer, verdict):
    assert verdict in repr(check(number, answer))


def test_hints_say_more_step_by_step_and_stop_at_the_last():
    assert repr(hint("2.1")).startswith("Hint 1 of 3")
    assert repr(hint("2.1", 99)).startswith("Hint 3 of 3")
    assert "no exercise" in repr(hint("9.9"))


def test_the_solution_comes_from_the_solved_notebook():
    assert "def cost_of(usage, price):" in repr(solution("1.1"))
    assert "BEGIN SOLUTION" not in repr(solution("1.1"))
    assert "no exercise" in repr(solution("8.8"))


def test_a_verdict_is_escaped_html():
    assert "<script>" not in check("1.3", "<script>alert(1)</script>")._repr_html_()
