"""Several samples of one tier: their majority answers, the share that agrees is the confidence, and every one is paid for."""

import pytest

from workshop_lib import Cascade, Tier, confidence_below, load_tickets, run_bulk
from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.bedrock.replies import Reply
from workshop_lib.bulk.budget import most_it_can_cost
from workshop_lib.bulk.rows import Row, attempt_of
from workshop_lib.cascade.attempt import attempt
from workshop_lib.cascade.attempt import vote as count_votes
from workshop_lib.cascade.calibration import Calibrator
from workshop_lib.triage.task import TRIAGE

TICKET = load_tickets("calibration", limit=1)[0]
FIVE = Tier("cheap", temperature=1.0, votes=5, repairs=0)


class Says:
    """A client that gives prepared answers, one after the other; None is an answer that cannot be used."""

    def __init__(self, *categories):
        self.left, self.systems = list(categories), []

    def converse(self, model, messages, *, system, **settings):
        self.systems.append(system)
        category = self.left.pop(0)
        given = {
            "category": category,
            "priority": "P2",
            "confidence": 0.9,
            "reasoning": f"{len(self.left)}",
            "needs_human": False,
        }
        content = [{"toolUse": {"toolUseId": "t", "name": "record_triage", "input": given if category else {}}}]
        return Reply(
            model, model, {"role": "assistant", "content": content}, "tool_use", Usage(900, 60), 0.0001, 600, 1
        )


def vote(*categories, tier=FIVE):
    client = Says(*categories)
    return attempt(TICKET, tier, task=TRIAGE, client=client), client


def test_the_majority_answers_and_its_share_is_the_confidence():
    found, _ = vote("billing", "auth", "billing", "auth", "billing")
    assert (found.decision.category, found.confidence, found.confidence_source) == ("billing", 0.6, "votes")


def test_it_stops_once_nothing_can_change_the_majority():
    found, client = vote("billing", "billing", "billing", "auth", "auth")
    assert len(client.left) == 2
    assert found.confidence == 1


def test_a_leader_who_can_still_be_caught_is_not_the_winner_yet():
    found, client = vote("auth", "billing", "billing", "auth", "auth")
    assert client.left == []
    assert found.decision.category == "auth"


def test_every_sample_is_paid_for_in_money_tokens_time_and_requests():
    found, _ = vote("billing", "auth", "billing", "auth", "billing")
    assert (found.cost_usd, found.usage.input_tokens, found.latency_ms, found.http_attempts) == (
        pytest.approx(0.0005),
        4500,
        3000,
        5,
    )


def test_reasons_and_stated_confidence_are_not_voted_on():
    assert vote("billing", "billing", "billing")[0].confidence == 1


def test_an_unusable_sample_counts_as_dissent():
    assert vote("billing", None, "auth", "billing", "billing")[0].confidence == pytest.approx(3 / 5)


def test_a_vote_without_a_usable_sample_is_a_failure_that_was_paid_for():
    found, _ = vote(None, None, None, None, None)
    assert found.decision is None
    assert found.error is not None
    assert found.cost_usd == pytest.approx(0.0005)


def test_samples_are_asked_in_other_words_in_turn():
    worded = Tier("cheap", votes=3, repairs=0, wordings=("Read twice.", "Be strict."))
    _, client = vote("billing", "auth", "billing", tier=worded)
    assert [s.removeprefix(TRIAGE.system).strip() for s in client.systems] == [
        "Read twice.",
        "Be strict.",
        "Read twice.",
    ]


def test_votes_at_temperature_zero_and_in_the_same_words_are_refused():
    with pytest.raises(ValueError, match="are one vote"):
        Tier("cheap", votes=3)
    with pytest.raises(ValueError, match="one vote or more"):
        Tier("cheap", votes=0)


def test_a_split_vote_goes_up(bedrock):
    cascade = Cascade([FIVE, Tier("strong")], escalate_when=confidence_below(0.8), client=bedrock)
    for ticket in load_tickets("calibration", limit=12):
        outcome = cascade.run(ticket)
        assert outcome.escalated == (outcome.attempts[0].confidence < 0.8)


def test_votes_differ_at_the_local_door_and_agree_more_often_than_not(bedrock):
    found = [attempt(t, FIVE, task=TRIAGE, client=bedrock).confidence for t in load_tickets("calibration", limit=20)]
    assert min(found) < 1
    assert sum(found) / len(found) > 0.5


def test_the_cost_of_votes_is_what_the_endpoint_journalled(bedrock, endpoint):
    cascade = Cascade([FIVE], client=bedrock)
    paid = sum(cascade.run(t).cost_usd for t in load_tickets("calibration", limit=3))
    assert paid == pytest.approx(endpoint.journal.cost_usd, abs=1e-12)


def test_a_row_keeps_the_share_that_agreed(bedrock, tmp_path):
    cascade = Cascade([FIVE], client=bedrock)
    (row,) = run_bulk(cascade, [TICKET], store=tmp_path / "r.db")
    again = Row.model_validate_json(row.to_json())
    assert attempt_of(again, TRIAGE).confidence == row.agreement is not None


def test_a_budget_counts_every_vote(bedrock):
    one, five = (
        most_it_can_cost(Cascade([t], client=bedrock), TICKET)
        for t in (Tier("cheap", temperature=1.0, repairs=0), FIVE)
    )
    assert five == pytest.approx(5 * one)


def test_a_calibrator_makes_the_threshold_one_of_probability():
    halved = Calibrator("isotonic", {"x": [0.0, 1.0], "y": [0.0, 0.5]}, 100, {})
    rule = confidence_below(0.6, halved)
    assert rule(vote("billing", "billing", "billing")[0]).detail == "confidence 0.50 < 0.6"
    assert rule.identity != confidence_below(0.6).identity
    other = Calibrator("isotonic", {"x": [0.0, 1.0], "y": [0.0, 0.6]}, 100, {})
    assert rule.identity != confidence_below(0.6, other).identity


def test_kept_samples_can_be_voted_on_again_without_a_call():
    samples = [vote(category, tier=Tier("cheap"))[0] for category in ("auth", "billing", "billing", "billing")]
    three, all_four = (count_votes(samples, most) for most in (3, 4))
    assert (three.decision.category, three.agreement) == ("billing", 2 / 3)
    assert (all_four.agreement, len(all_four.replies)) == (3 / 4, 4)


def test_a_vote_without_samples_is_refused():
    with pytest.raises(ValueError, match="one sample or more"):
        count_votes([], 5)
