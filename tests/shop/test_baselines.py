"""Routers beside the classifier, on one footing, and what each kind of their mistakes costs."""

import pytest

from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.embedding import Embedder
from workshop_lib.shop import classify, llm_router, load_questions
from workshop_lib.shop.answers import AgentAttempt, Answer, Call, ToolCall
from workshop_lib.shop.baselines import (
    Learned,
    LengthThreshold,
    NearestExample,
    Oracle,
    Scored,
    Unlike,
    always_cheap,
    always_strong,
    keywords,
)
from workshop_lib.shop.comparison import compare_routers


@pytest.fixture(scope="module")
def few():
    return load_questions("few_shot")


@pytest.fixture(scope="module")
def embedder():
    return Embedder(PROJECT / ".cache")


def answered(question, *, right, usd, tier="cheap"):
    call = Call("answer", tier, "m", Usage(), usd, 100)
    missing = () if right else (("1",),)
    return Answer(question.text, "x", tier, "m", f"always-{tier}", calls=(call,), stop_reason="end_turn",
                  question_id=question.id, missing=missing)  # fmt: skip


def test_the_two_ends_never_change_their_mind(few):
    assert {always_cheap(q.text) for q in few} == {"simple"}
    assert {always_strong(q.text) for q in few} == {"complex"}


def test_keywords_find_whole_words():
    assert keywords("What are your HOURS?") == "simple"
    assert keywords("I shipped it, this thing broke") == "complex"


def test_a_length_threshold_is_chosen_where_it_is_right_most_often(few):
    fitted = LengthThreshold.fit(few)
    right = [sum(LengthThreshold(n)(q.text) == q.label for q in few) for n in range(1, 40)]
    assert right[fitted.words - 1] == max(right)


def test_the_nearest_example_of_an_example_is_itself(few, embedder):
    router = NearestExample(few, embedder)
    assert [router(q.text) for q in few] == [q.label for q in few]


def test_a_learned_router_has_learned_its_questions_and_always_the_same(embedder):
    questions = load_questions("calibration")
    router = Learned(questions, embedder)
    found = compare_routers({"cheap": always_cheap, "strong": always_strong, "learned": router}, questions)
    assert found["learned"].accuracy.value > max(found["cheap"].accuracy.value, found["strong"].accuracy.value)
    again = Learned(questions, embedder)
    assert [again(q.text) for q in questions[:20]] == [router(q.text) for q in questions[:20]]


def test_learning_from_too_few_questions_is_an_error(few, embedder):
    with pytest.raises(ValueError, match="five questions of each label"):
        Learned(few[:4], embedder)


def test_any_score_is_a_router_from_its_threshold_on():
    router = Scored(lambda texts: [len(text) / 10 for text in texts], 0.5)
    assert (router("abcd"), router("abcde")) == ("simple", "complex")


def test_an_answer_about_something_else_should_not_stand(embedder):
    check = Unlike(0.3, embedder)

    def why(text, question="How long can I return a laptop?"):
        found = ToolCall("return_policy", {"category": "laptops"}, ok=True)
        return check(AgentAttempt(question, "cheap", "m", text, tools_used=(found,), stop_reason="end_turn"))

    assert why("You can return a laptop within 21 days of delivery.") is None
    assert why("The watch measures the pulse with two green lamps.") == "unlike the question"
    assert why("I could not find how long you can return a laptop.") == "gives up"


def test_every_router_stands_in_the_same_table(few):
    found = compare_routers({"always-strong": always_strong, "keywords": keywords, "oracle": Oracle(few)}, few)
    assert [row["router"] for row in found.rows()] == ["always-strong", "keywords", "oracle"]
    assert found["oracle"].accuracy.value == 1
    assert found["always-strong"].confusion == {
        ("simple", "simple"): 0, ("simple", "complex"): 6, ("complex", "simple"): 0, ("complex", "complex"): 6,
    }  # fmt: skip
    assert found["always-strong"].against is None
    assert found["oracle"].against.value == 0.5
    assert found["oracle"].against.low > 0
    assert found["oracle"].total_usd is None


def test_mistakes_are_put_in_wrong_answers_and_in_money(few):
    cheap = [answered(q, right=q.label == "simple", usd=0.001) for q in few]
    strong = [answered(q, right=True, usd=0.01, tier="strong") for q in few]
    routers = {"cheap": always_cheap, "strong": always_strong, "oracle": Oracle(few)}
    found = compare_routers(routers, few, cheap=cheap, strong=strong)
    assert (found["cheap"].wrong_answers, found["cheap"].wasted_usd) == (6, 0)
    assert (found["strong"].wrong_answers, found["strong"].wasted_usd) == (0, pytest.approx(6 * 0.009))
    assert (found["oracle"].wrong_answers, found["oracle"].wasted_usd) == (0, 0)
    assert found["oracle"].total_usd == pytest.approx(6 * 0.001 + 6 * 0.01)
    assert [found[name].answers_right.value for name in routers] == [0.5, 1, 1]


def test_a_complex_question_that_the_cheap_model_gets_right_is_no_wrong_answer(few):
    both = [answered(q, right=True, usd=0.001) for q in few]
    found = compare_routers({"cheap": always_cheap}, few, cheap=both, strong=both)
    assert (found["cheap"].to_cheap, found["cheap"].wrong_answers) == (6, 0)


def test_the_classifiers_decisions_are_paid_and_its_fallbacks_counted(door, script, make_client, few):
    client = make_client()
    script.classifier = "not simple"
    found = compare_routers({"llm": llm_router(client)}, few)["llm"]
    assert found.fallbacks == {"negation": 12}
    assert (found.to_strong, found.to_cheap) == (6, 0)
    assert found.decision_usd == pytest.approx(door.journal.cost_usd)
    assert found.decision_ms > 0
    assert classify(few[0].text, client).label == "complex"


def test_answers_of_one_model_only_or_of_other_questions_are_refused(few):
    both = [answered(q, right=True, usd=0.001) for q in few]
    with pytest.raises(ValueError, match="both models"):
        compare_routers({"cheap": always_cheap}, few, cheap=both)
    with pytest.raises(ValueError, match="the strong model has no answer to 1 of the questions"):
        compare_routers({"cheap": always_cheap}, few, cheap=both, strong=both[1:])
    with pytest.raises(ValueError, match="at least one router"):
        compare_routers({}, few)
