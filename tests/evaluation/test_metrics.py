"""Scores of a strategy."""

import pytest

from workshop_lib import TRIAGE, Attempt, Outcome, Reason
from workshop_lib.evaluation import auroc, score
from workshop_lib.lessons.lab02 import example
from workshop_lib.triage import Category, Label, Priority


def label(category="billing", priority="P3", *, human=False, family="f"):
    return Label(Category(category), Priority(priority), human, family, "workshop", "plain")


def outcome(item_id, attempt, *, reasons=()):
    return Outcome(item_id, attempt.decision, (attempt,), reasons)


KEY = {"a": label(family="1"), "b": label("auth", "P1", human=True, family="2"), "c": label("other", family="3")}


def test_a_ticket_without_a_decision_counts_as_wrong():
    failed = Attempt("cheap", "m", TRIAGE)
    scores = score("s", [outcome("a", example()), outcome("c", failed)], KEY)
    assert scores.joint.value == 0.5
    assert scores.failed == 1


def test_joint_agreement_needs_all_three_fields():
    scores = score("s", [outcome("a", example(human=True))], KEY)
    assert scores.category.value == 1
    assert scores.joint.value == 0


def test_recall_looks_only_at_tickets_that_need_it():
    scores = score("s", [outcome("a", example()), outcome("b", example("auth", "P2"))], KEY)
    assert (scores.needs_human_recall.value, scores.needs_human_recall.n) == (0, 1)
    assert scores.urgent_recall.value == 0


def test_recall_of_what_does_not_occur_is_none_and_not_a_number():
    assert score("s", [outcome("a", example())], KEY).needs_human_recall is None


def test_a_rule_counts_once_a_ticket():
    twice = (Reason("low_confidence", "x"), Reason("low_confidence", "y"))
    assert score("s", [outcome("a", example(), reasons=twice)], KEY).reasons == {"low_confidence": 1}


def test_no_outcomes_is_a_clear_error():
    with pytest.raises(ValueError, match="no outcomes"):
        score("s", [], KEY)


def test_auroc_of_a_perfect_a_useless_and_a_reversed_score():
    right = [True, True, False, False]
    assert auroc([4, 3, 2, 1], right) == 1
    assert auroc([1, 1, 1, 1], right) == 0.5
    assert auroc([1, 2, 3, 4], right) == 0


def test_auroc_agrees_with_scikit_learn():
    import numpy as np
    from sklearn.metrics import roc_auc_score

    chance = np.random.default_rng(0)
    values, truth = chance.integers(0, 8, 200), chance.random(200) < 0.4
    assert auroc(values, truth) == pytest.approx(roc_auc_score(truth, values), abs=1e-12)
