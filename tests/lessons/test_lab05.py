"""Lab 05's checks tell each way of getting a vote, a price or a score wrong apart; its own parts say what the lab says they do."""

from collections import Counter

import numpy as np
import pytest

from workshop_lib import TRIAGE, Attempt, Decision, InvalidOutput, Tier
from workshop_lib.evaluation import LockedSplit, bakeoff, load_pair, record
from workshop_lib.lessons import check, hint, lab05, solution
from workshop_lib.triage import load_labels, load_tickets


def count_votes(answers):
    usable = [answer for answer in answers if answer is not None]
    if not usable:
        return None, 0.0
    winner = max(usable, key=usable.count)
    return winner, usable.count(winner) / len(answers)


def by_counter(answers):
    found = Counter(a for a in answers if a is not None).most_common(1)
    return [found[0][0], found[0][1] / len(answers)] if found else (None, 0)


def of_the_usable(answers):
    winner, agreeing = count_votes(answers)
    return winner, agreeing * len(answers) / max(1, sum(a is not None for a in answers))


def counts_the_unusable(answers):
    winner, count = Counter(answers).most_common(1)[0]
    return winner, count / len(answers)


def last_of_equal(answers):
    winner, agreeing = count_votes(answers[::-1])
    return winner, agreeing


def in_votes(answers):
    winner, agreeing = count_votes(answers)
    return winner, agreeing * len(answers)


def careless(answers):
    return Counter(a for a in answers if a).most_common(1)[0][0], 0.5


def worth_it(p_cheap, p_strong, wrong_usd, call_usd):
    return (p_strong - p_cheap) * wrong_usd > call_usd


def by_the_cheap_alone(p_cheap, p_strong, wrong_usd, call_usd):
    return (1 - p_cheap) * wrong_usd > call_usd


def ask_a_person(share, missed_usd, alarm_usd):
    return share * missed_usd > (1 - share) * alarm_usd


CASES = [
    ("5.1", count_votes, "Correct"),
    ("5.1", by_counter, "Correct"),
    ("5.1", of_the_usable, "an unusable answer agrees with nobody"),
    ("5.1", counts_the_unusable, "the majority of the usable ones"),
    ("5.1", last_of_equal, "the first that was given"),
    ("5.1", in_votes, "the share is 2"),
    ("5.1", careless, "the share is 0.5"),
    ("5.1", lambda answers: count_votes(answers)[0], "return the winner and its share"),
    ("5.1", lambda answers: (max(set(answers), key=answers.count), 1), "Not yet"),
    ("5.1", lambda answers: None, "Not attempted"),
    ("5.1", lambda answers: answers[9], "Your code raised"),
    ("5.2", worth_it, "Correct"),
    ("5.2", lambda c, s, w, call: np.float64(s - c) * w > call, "Correct"),
    ("5.2", by_the_cheap_alone, "going up does not mend it"),
    ("5.2", lambda c, s, w, call: (s - c) * w >= call, "just what the call costs"),
    ("5.2", lambda c, s, w, call: s > c, "at USD 0.01 each"),
    ("5.2", lambda c, s, w, call: abs(s - c) * w > call, "the worse one"),
    ("5.2", lambda c, s, w, call: (s - c) * w - call, "say True (up) or False"),
    ("5.2", lambda c, s, w, call: None, "Not attempted"),
    ("5.3", lambda c, s: s - c, "Correct"),
    ("5.3", lambda c, s: 10 * (s - c) + 3, "Correct"),
    ("5.3", lambda c, s: 1 - c, "both are likely to fail"),
    ("5.3", lambda c, s: s, "wins less"),
    ("5.3", lambda c, s: s * (1 - c), "wins less"),
    ("5.3", lambda c, s: c - s, "wins less"),
    ("5.3", lambda c, s: None, "Not attempted"),
    ("5.4", ask_a_person, "Correct"),
    ("5.4", lambda s, missed, alarm: s >= alarm / (alarm + missed), "Correct"),
    ("5.4", lambda s, missed, alarm: s >= 0.5, "there is a cheaper one"),
    ("5.4", lambda s, missed, alarm: True, "there is a cheaper one"),
    ("5.4", lambda s, missed, alarm: s * missed > alarm, "there is a cheaper one"),
    ("5.4", lambda s, missed, alarm: None, "Not attempted"),
]


@pytest.mark.parametrize(("number", "answer", "said"), CASES, ids=lambda v: getattr(v, "__name__", None))
def test_a_check_tells_what_is_missing(number, answer, said):
    assert said in repr(check(number, answer))


@pytest.mark.parametrize("number", ["5.1", "5.2", "5.3", "5.4"])
def test_every_exercise_has_hints_and_a_solution(number):
    assert "Hint 1" in repr(hint(number))
    assert "def " in repr(solution(number))


@pytest.fixture
def pair(bedrock, tmp_path):
    tickets, labels = load_tickets("calibration", limit=12), load_labels()
    tiers = [Tier("cheap"), Tier("strong"), *lab05.sample_tiers(5)]
    recording = record(tickets, labels, tiers, client=bedrock, store=tmp_path)
    return lab05.Pair.of(recording, tickets, labels)


def test_a_pair_tells_votes_costs_and_who_is_right(pair):
    assert set(pair.agreement(1)) == {1.0}
    assert (pair.with_votes_usd(5) > pair.cost_usd("cheap")).all()
    assert "cheap right on" in repr(pair)
    assert "(unusable)" not in repr(lab05.samples_of(pair))
    assert "samples at most=3" in repr(lab05.votes_bought(pair, [3]))


def test_nothing_is_tuned_on_the_test_tickets():
    with pytest.raises(LockedSplit):
        lab05.Pair.of(None, load_tickets("test", limit=1), load_labels())


def test_a_pair_is_written_as_evaluate_router_reads_it(pair, tmp_path):
    read = load_pair(lab05.write_pair(pair, tmp_path / "new" / "pair.csv"))
    assert (read.n, read.notes) == (12, ())
    assert read.cheap.tolist() == pair.cheap.astype(float).tolist()
    assert read.families == tuple(pair.families)


def test_a_price_of_an_error_is_added_to_what_the_calls_cost(pair):
    calls, wrong = 1_000 * pair.cost_usd("strong").mean(), 1 - pair.strong.mean()
    strong = next(line for line in repr(lab05.at_price(pair, 0.05)).splitlines() if "=strong-only" in line)
    assert strong.endswith(f"calls and errors, USD per 1,000={calls + 50 * wrong:.2f}")


def test_flags_are_priced_and_an_unwritten_policy_does_no_harm(pair):
    policies = {"always": lambda answers: True, "never": lambda answers: False, "mine": lambda answers: None}
    shown = repr(lab05.flag_costs(pair, policies, missed_usd=1, alarm_usd=0, urgent_usd=1))
    needed = sum(pair.labels[t.id].needs_human for t in pair.tickets)
    assert f"cost={1_000 * needed / 12:,.0f}" in shown
    assert "a person is asked=mine  needs a person, found=(not written yet)" in shown


def test_an_answer_without_a_decision_says_so_and_asks_for_nobody():
    failed = Attempt("cheap", "m", TRIAGE, error=InvalidOutput("no JSON"))
    assert lab05.said(failed) == {"said": "(unusable)"}
    assert not lab05.flagged(failed)


def test_an_answer_reads_as_the_training_file_tells_it():
    decision = Decision(category="billing", priority="P2", confidence=0.9, reasoning="", needs_human=False)
    train, held = lab05.training_answers()
    assert lab05.said(Attempt("cheap", "m", TRIAGE, decision)) in train.features
    assert not set(train.families) & set(held.families)
    assert len(train) + len(held) == 11_278


def test_nobody_promises_a_limit_from_too_few_tickets():
    for limit in (0.25, 0.05):
        n = lab05.fewest_tickets(limit)
        assert (1 - limit) ** n <= 0.05 < (1 - limit) ** (n - 1)


def test_a_guarantee_is_kept_where_the_plain_choice_breaks_its_limit():
    chance = np.random.default_rng(3)
    sure = chance.random(2_000)
    right = (chance.random(2_000) < sure).astype(float)
    shown = lab05.calibrated_again_and_again(sure, right, max_risk=0.2, times=300).text
    guaranteed, plain = (float(line.split("broken=")[1].split("%")[0]) for line in shown.splitlines()[1:])
    assert guaranteed <= 5 < 30 < plain


def test_what_the_answer_said_is_learned_and_judged_on_other_families():
    chance = np.random.default_rng(0)
    said = chance.choice(["a", "b"], 600)
    cheap = (chance.random(600) < np.where(said == "a", 0.9, 0.2)).astype(float)
    everything = lab05.Answers(
        tuple(f"ticket number {i % 7}" for i in range(600)), tuple({"said": s} for s in said), cheap,
        (chance.random(600) < 0.9).astype(float), tuple(map(str, range(600))),
    )  # fmt: skip
    train, held = everything.rows(np.arange(300)), everything.rows(np.arange(300, 600))
    found = lab05.learning_curve(train, held, [200])
    assert found.scores[lab05.ANSWER, 200][held.cheap == 0].mean() > 0.3
    assert "labels=200" in repr(found.table())
    assert "surest" in repr(
        lab05.by_surety(found.routers[lab05.ANSWER, 200].cheap_right(held.texts, held.features), held)
    )
    shown = repr(lab05.on_held_out((1 - found.scores[lab05.ANSWER, 200]) / 2, 0.4, held))
    assert "tuned is ahead of cheap-only" in shown


def test_routes_are_shown_with_what_they_cost_and_how_long_they_take(bedrock, tmp_path):
    tickets, labels = load_tickets("workshop", limit=3), load_labels()
    shown = repr(lab05.cost_and_wait(bakeoff(tickets, labels, client=bedrock, store=tmp_path)))
    assert "strategy=strong-only" in shown
    assert "longest ms" in shown
