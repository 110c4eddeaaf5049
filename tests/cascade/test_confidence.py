"""Where a confidence comes from: a statement, votes, or what was learned; all of them fit into the same rule."""

import numpy as np
import pytest

from workshop_lib import TRIAGE, Attempt, Cascade, Decision, InvalidOutput, Tier, confidence_below, load_tickets
from workshop_lib.cascade import answer_features, gain_of, learned, self_reported, votes

TICKET = load_tickets("calibration", limit=1)[0]
DECISION = Decision(category="billing", priority="P2", confidence=0.92, reasoning="Invoice.", needs_human=False)
STATED = Attempt("cheap", "m", TRIAGE, DECISION, item=TICKET)
VOTED = Attempt("cheap", "m", TRIAGE, DECISION, agreement=0.6, item=TICKET)
FAILED = Attempt("cheap", "m", TRIAGE, error=InvalidOutput("The answer holds no JSON object."))


class Reads:
    """A judge that finds texts with a word in them hard, and keeps what it was shown."""

    def __init__(self, word, identity="reads"):
        self.word, self.identity, self.seen = word, identity, []

    def cheap_right(self, texts, features=None):
        self.seen.append((list(texts), list(features)))
        return np.array([0.3 if self.word in text else 0.9 for text in texts])

    def score(self, texts, features=None):
        return 0.95 - self.cheap_right(texts, features)


def test_a_model_states_a_confidence_whether_or_not_there_was_a_vote():
    assert (self_reported(STATED), self_reported(VOTED), self_reported(FAILED)) == (0.92, 0.92, None)


def test_votes_have_nothing_to_say_where_there_was_no_vote():
    assert (votes(STATED), votes(VOTED)) == (None, 0.6)


@pytest.mark.parametrize(("source", "goes_up"), [(None, True), (votes, True), (self_reported, False)])
def test_a_rule_goes_by_the_source_it_is_given(source, goes_up):
    assert bool(confidence_below(0.8, source=source).reasons(VOTED)) is goes_up


def test_a_rule_without_its_source_of_confidence_stays_silent():
    assert confidence_below(0.8, source=votes).reasons(STATED) == ()


def test_the_answer_is_told_in_its_closed_fields_one_by_one_and_as_one_and_how_sure_it_looks():
    assert answer_features(VOTED) == {
        "category": "billing", "priority": "P2", "needs_human": "False", "answer": "billing, P2, False", "votes": 0.6, "stated": 0.92,
    }  # fmt: skip


def test_a_vote_that_was_not_taken_is_no_feature():
    assert "votes" not in answer_features(STATED)


def test_an_unusable_answer_is_told_as_such():
    assert answer_features(FAILED) == {"unusable": 1.0}


def test_a_learned_confidence_reads_the_text_and_the_answer(bedrock):
    judge = Reads(TICKET.subject)
    cascade = Cascade(
        [Tier("cheap"), Tier("strong")], escalate_when=confidence_below(0.8, source=learned(judge)), client=bedrock
    )
    outcome = cascade.run(TICKET)
    assert (outcome.reasons[0].rule, outcome.reasons[0].detail) == ("low_confidence", "confidence 0.30 < 0.8")
    assert judge.seen == [([TRIAGE.describe(TICKET)], [answer_features(outcome.attempts[0])])]


def test_a_learned_confidence_says_nothing_of_a_failure():
    assert learned(Reads("x"))(FAILED) is None


def test_an_attempt_that_no_cascade_has_made_cannot_be_read():
    with pytest.raises(ValueError, match="tier cheap has no item"):
        learned(Reads("x"))(Attempt("cheap", "m", TRIAGE, DECISION))


def test_an_answer_goes_up_where_the_strong_model_is_expected_to_gain(bedrock):
    tiers = [Tier("cheap"), Tier("strong")]
    gains = Cascade(tiers, escalate_when=gain_of(Reads(TICKET.subject), 0.5), client=bedrock).run(TICKET)
    assert [(r.rule, r.detail) for r in gains.reasons] == [("expected_gain", "expected gain 0.65 >= 0.5")]
    assert not Cascade(tiers, escalate_when=gain_of(Reads("no such word"), 0.5), client=bedrock).run(TICKET).escalated


def test_a_gain_is_not_expected_of_a_failure():
    assert gain_of(Reads("x"), -1.0).reasons(FAILED) == ()


def test_rules_of_other_sources_are_other_rules():
    rules = [
        confidence_below(0.8),
        confidence_below(0.8, source=votes),
        confidence_below(0.8, source=self_reported),
        confidence_below(0.8, source=learned(Reads("x", "one"))),
        confidence_below(0.8, source=learned(Reads("x", "two"))),
    ]
    assert len({rule.identity for rule in rules}) == 5
    assert repr(rules[1]) == "confidence_below(0.8, votes)"
