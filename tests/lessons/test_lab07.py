"""Lab 07's checks: each way of reading a label, a saving or an answer wrong is told apart, and prices of errors are exact."""

import math

import pytest

from workshop_lib.evaluation import Share
from workshop_lib.lessons import check, hint, lab07, solution
from workshop_lib.lessons.lab07 import Line
from workshop_lib.shop import load_questions, parse_label


def by_word(text):
    word = text.strip(" \n\t.,:;!*_`\"'").lower()
    return word if word in {"simple", "complex"} else None


def by_search(text):
    return "simple" if "simple" in text.lower() else "complex"


def exactly(text):
    return text if text in {"simple", "complex"} else None


def by_last_word(text):
    word = text.lower().strip(' .*\n"').split(" ")[-1]
    return word if word in {"simple", "complex"} else None


def changes(before, after):
    classifier = sum(a.router_cost_usd for a in after.answers)
    return 100 * (after.cost_usd / before.cost_usd - 1), 100 * ((after.cost_usd - classifier) / before.cost_usd - 1)


def as_shares(before, after):
    return tuple(value / 100 for value in changes(before, after))


def as_savings(before, after):
    return tuple(-value for value in changes(before, after))


def backwards(before, after):
    return changes(before, after)[::-1]


def twice_the_same(before, after):
    return changes(before, after)[0], changes(before, after)[0]


def per_question(before, after):
    pairs = list(zip(before.answers, after.answers, strict=True))
    mean = sum(100 * (b.cost_usd / a.cost_usd - 1) for a, b in pairs) / len(pairs)
    return mean, mean - 10


def problem(answer, question):
    if answer.error or answer.stop_reason != "end_turn":
        return f"ended by {answer.stop_reason}"
    used = {tool.name for tool in answer.tools_used if tool.ok}
    if any(tool not in used for tool in question.tools):
        return "not looked up"
    if answer.tools_used and not question.tools:
        return "nothing was to be looked up"
    return "facts are missing" if question.missing_facts(answer.text) else None


def by_right(answer, question):
    return None if answer.right else "not right"


def by_truncated(answer, question):
    return "cut off" if answer.truncated else problem(answer, question) if answer.stop_reason == "end_turn" else None


def by_the_letter(answer, question):
    lacking = [fact for fact in question.facts if fact[0] not in answer.text]
    return problem(answer, question) or ("facts are missing" if lacking else None)


def without_facts(answer, question):
    return None if answer.stop_reason == "end_turn" else "cut off"


def without_tools(answer, question):
    broken = answer.stop_reason != "end_turn" or question.missing_facts(answer.text)
    return "broken" if broken else None


def with_tools_to_spare(answer, question):
    return None if question.tools == () and answer.text.startswith("Hello!") else problem(answer, question)


def with_any_tool(answer, question):
    called = {tool.name for tool in answer.tools_used}
    return without_tools(answer, question) or ("not looked up" if set(question.tools) - called else None)


def in_truth_values(answer, question):
    return problem(answer, question) is not None


def mine(text):
    return "complex" if text.count("?") > 1 or "compare" in text.lower() else "simple"


CASES = [
    ("7.1", by_word, "Correct"),
    ("7.1", parse_label, "Correct"),
    ("7.1", by_search, "'not simple' is taken for 'simple'"),
    ("7.1", exactly, "case, blanks and marks"),
    ("7.1", by_last_word, "'not simple' is taken for 'simple'"),
    ("7.1", lambda text: "complex", "'simple' gives 'complex'"),
    ("7.1", lambda text: None, "Not attempted"),
    ("7.1", lambda text: text.lowercase(), "Your code raised"),
    ("7.2", changes, "Correct"),
    ("7.2", as_shares, "times 100"),
    ("7.2", as_savings, "cheaper is a negative change"),
    ("7.2", backwards, "the other way round"),
    ("7.2", twice_the_same, "twice the same"),
    ("7.2", per_question, "compare sums"),
    ("7.2", lambda before, after: ..., "Not attempted"),
    ("7.2", lambda before, after: 5, "Your code raised"),
    ("7.3", problem, "Correct"),
    ("7.3", by_right, "a full answer is called"),
    ("7.3", by_truncated, "that a stop sequence ended is let through"),
    ("7.3", by_the_letter, "in its own way is called"),
    ("7.3", without_facts, "one introductory line, without the facts is let through"),
    ("7.3", without_tools, "from memory, with no look-up is let through"),
    ("7.3", with_any_tool, "whose look-up failed is let through"),
    ("7.3", with_tools_to_spare, "a greeting answered with a price list is let through"),
    ("7.3", in_truth_values, "give a reason in words"),
    ("7.3", lambda answer, question: None, "Not attempted"),
    ("7.4", mine, "Correct"),
    ("7.4", lambda text: "simple", "that is a constant"),
    ("7.4", lambda text: "cheap", "give 'simple' or 'complex'"),
    ("7.4", lambda text: None, "Not attempted"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "answer", "said"), CASES, ids=lambda v: getattr(v, "__name__", None))
def test_a_check_tells_what_is_missing(number, answer, said):
    assert said in repr(check(number, answer))


@pytest.mark.parametrize("number", ["7.1", "7.2", "7.3", "7.4"])
def test_every_exercise_has_hints_and_a_solution(number):
    assert "Hint 1" in repr(hint(number))
    assert "def " in repr(solution(number))


def test_the_replies_of_7_1_are_read_by_the_library_as_the_lab_says():
    assert [parse_label(reply)[0] for reply, _ in lab07.REPLIES] == [label for _, label in lab07.REPLIES]


@pytest.mark.parametrize(
    ("kind", "fallback", "retryable"),
    [
        ("ThrottlingException", "Throttled", True),
        ("AccessDeniedException", "AccessDenied", False),
        ("invalid_output", "truncated", None),
    ],
)
def test_each_weather_ends_at_the_strong_model_with_its_reason(kind, fallback, retryable):
    said = lab07.in_weather(kind, "How long can I return a laptop?")
    assert (said.label, said.fallback, said.retryable) == ("complex", fallback, retryable)
    assert (said.cost_usd > 0) == (kind == "invalid_output")


def line(name, wrong, usd, n=10):
    return Line(name, (False,) * wrong + (True,) * (n - wrong), usd, 0.0, 0.5, 0.5, Share(0.5, 0.4, 0.6, n))


def test_the_cheapest_way_changes_where_the_costs_meet():
    found = [line("always-strong", 2, 1.0), line("always-cheap", 8, 0.1), line("router", 4, 0.3)]
    spans = lab07.cheapest(found)
    assert [name for name, *_ in spans] == ["always-cheap", "router", "always-strong"]
    assert [low for _, low, _ in spans] == pytest.approx([0, 0.05, 0.35])
    assert math.isinf(spans[-1][2])
    for name, low, high in spans:
        at = (low + min(high, 1)) / 2
        assert min(found, key=lambda each: each.costs(at)).name == name


def test_a_router_that_is_dearer_and_no_better_is_never_the_cheapest():
    found = [line("always-strong", 2, 1.0), line("always-cheap", 8, 0.1), line("router", 8, 0.3)]
    assert "router" not in lab07.in_words(lab07.cheapest(found))


def test_a_price_of_errors_is_put_on_wrong_answers_alone():
    shown = repr(lab07.at_price([line("a", 2, 1.0), line("b", 8, 0.1)])(10))
    assert shown.index("router=b") < shown.index("router=a")
    assert "in all=USD 0.9000" in shown
    assert "in all=USD 1.2000" in shown


def test_a_sample_is_the_same_each_time_and_goes_through_the_whole_file():
    questions = load_questions("calibration")
    found = lab07.sample(questions, 50)
    assert found == lab07.sample(questions, 50)
    assert len({q.id for q in found}) == 50
    assert len(lab07.sample(questions, 1_000)) == len(questions)
