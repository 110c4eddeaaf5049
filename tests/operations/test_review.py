"""What reviewers enter is kept, blind, and becomes labels; estimates from chosen tickets hold for all of them."""

import sqlite3
import threading

import numpy as np
import pytest

from tests.operations.told import label, outcome
from workshop_lib import ConfigurationError, Ticket
from workshop_lib.bulk import StoreError, StoreMismatch
from workshop_lib.operations import ReviewStore, Verdict
from workshop_lib.operations.overrides import choose_for_review, overrides, reviewers_agree
from workshop_lib.operations.review import ReviewsUnsaved, pick

BILLING = Verdict("billing", "P3", False)
AUTH = Verdict("auth", "P3", False)
TICKETS = [Ticket(id=f"T-{i}", subject=f"Subject {i}", body="Text") for i in range(4)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "review.db"


@pytest.fixture
def store(path):
    with ReviewStore(path, TICKETS) as opened:
        yield opened


# Saving


def test_a_review_is_there_when_the_file_is_opened_again(store, path):
    store.save("T-0", BILLING, reviewer="Ada")
    with ReviewStore(path, TICKETS) as again:
        (review,) = again.reviews()
    assert (review.verdict, review.reviewer, review.rubric) == (BILLING, "Ada", "triage-rubric-1")


def test_a_reviewer_goes_on_at_the_first_ticket_without_a_review(store):
    store.save("T-0", BILLING, reviewer="Ada")
    store.save("T-2", BILLING, reviewer="Ada")
    assert store.next_unreviewed("Ada").id == "T-1"
    assert store.next_unreviewed("Ada", after="T-2").id == "T-3"
    assert store.next_unreviewed("Ben").id == "T-0"


def test_with_everything_reviewed_nothing_is_next(store):
    for ticket in TICKETS:
        store.save(ticket.id, BILLING, reviewer="Ada")
    assert store.next_unreviewed("Ada", after="T-1") is None


def test_two_reviewers_of_one_ticket_are_both_kept(store, path):
    with ReviewStore(path, TICKETS) as second:
        begin = threading.Barrier(2, timeout=30)

        def review(where, name, verdict):
            begin.wait()
            for ticket in TICKETS:
                where.save(ticket.id, verdict, reviewer=name)

        threads = [threading.Thread(target=review, args=a) for a in ((store, "Ada", BILLING), (second, "Ben", AUTH))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    said = {(r.ticket_id, r.reviewer): r.verdict for r in store.reviews()}
    assert said == {(t.id, who): v for t in TICKETS for who, v in (("Ada", BILLING), ("Ben", AUTH))}


def test_of_one_reviewers_two_windows_the_last_wins_and_says_so(store, path):
    with ReviewStore(path, TICKETS) as other:
        other.save("T-0", BILLING, reviewer="Ada", seen=0)
        saved = store.save("T-0", AUTH, reviewer="Ada", seen=0)
    assert saved.review.revision == 2
    assert "had saved T-0 elsewhere" in saved.note
    assert "as billing P3" in saved.note
    assert [r.verdict for r in store.reviews()] == [AUTH]


def test_a_change_of_what_this_window_shows_is_nothing_to_tell(store):
    first = store.save("T-0", BILLING, reviewer="Ada", seen=0)
    assert store.save("T-0", AUTH, reviewer="Ada", seen=first.review.revision).note == ""


def test_an_urgent_ticket_always_needs_a_person():
    with pytest.raises(ValueError, match="P1 implies needs_human"):
        Verdict("billing", "P1", False)


def test_nothing_of_a_model_is_in_what_a_reviewer_reads(store):
    store.save("T-0", BILLING, reviewer="Ada")
    assert {f for r in store.reviews(reviewer="Ada") for f in vars(r)}.isdisjoint({"decision", "model", "confidence"})
    assert store.reviews(reviewer="Ben") == []


# Trouble


def test_a_ticket_that_is_not_in_the_review_is_refused(store):
    with pytest.raises(ConfigurationError, match="no ticket 'T-9' among the 4"):
        store.save("T-9", BILLING, reviewer="Ada")


def test_a_review_without_a_name_is_refused(store):
    with pytest.raises(ConfigurationError, match="reviewer's name"):
        store.save("T-0", BILLING, reviewer=" ")


def test_while_the_file_is_locked_reviews_stay_in_memory_and_are_written_later(path):
    with ReviewStore(path, TICKETS, busy_timeout_s=0) as store:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        for ticket in TICKETS[:2]:
            with pytest.raises(ReviewsUnsaved, match="kept in memory: T-0") as refused:
                store.save(ticket.id, BILLING, reviewer="Ada")
        assert "Keep this session open" in refused.value.advice
        assert store.next_unreviewed("Ada").id == "T-2"
        holder.execute("ROLLBACK")
        holder.close()
        store.save("T-2", BILLING, reviewer="Ada")
        assert store.unsaved == []
    with ReviewStore(path, TICKETS) as again:
        assert [r.ticket_id for r in again.reviews()] == ["T-0", "T-1", "T-2"]


def test_what_cannot_be_saved_can_be_written_elsewhere(path, tmp_path):
    with ReviewStore(path, TICKETS, busy_timeout_s=0) as store:
        store._file.close()
        with pytest.raises(ReviewsUnsaved):
            store.save("T-0", BILLING, reviewer="Ada")
        assert store.export_unsaved(tmp_path / "rescued.jsonl") == 1
    assert '"Ada"' in (tmp_path / "rescued.jsonl").read_text()


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\x00" + b"\x07" * 5_000])
def test_a_damaged_file_is_left_alone_and_named(path, content):
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"review\.db cannot be read as a review store") as refused:
        ReviewStore(path, TICKETS)
    assert "keep the file" in refused.value.advice
    assert path.read_bytes() == content


def test_another_programs_database_is_not_written_into(path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE rows (x)")
        before = path.read_bytes()
    other.close()
    with pytest.raises(StoreError, match="it holds rows"):
        ReviewStore(path, TICKETS)
    assert path.read_bytes() == before  # not even its journal mode


def damage(path):
    with sqlite3.connect(path) as file:
        file.execute("UPDATE reviews SET review = '{'")
    file.close()


def test_a_damaged_review_is_named_with_what_to_do(store, path):
    store.save("T-0", BILLING, reviewer="Ada")
    damage(path)
    with pytest.raises(StoreError, match=r"the row of T-0, by:Ada, is damaged \(JSONDecodeError") as refused:
        ReviewStore(path, TICKETS)
    assert "delete that row" in refused.value.advice


def test_after_a_damaged_review_others_can_still_write(store, path):
    store.save("T-0", BILLING, reviewer="Ada")
    damage(path)
    with pytest.raises(ReviewsUnsaved, match="by:Ada, is damaged") as refused:
        store.save("T-0", AUTH, reviewer="Ada")
    assert "delete that row" in refused.value.advice
    assert [r.verdict for r in store.unsaved] == [AUTH]
    with ReviewStore(path, TICKETS, set_aside=True, busy_timeout_s=0) as other:
        other.save("T-1", BILLING, reviewer="Ben")


def test_an_interrupted_save_keeps_the_review_and_lets_others_write(store, path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("workshop_lib.operations.review.asdict", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.save("T-0", BILLING, reviewer="Ada")
    with ReviewStore(path, TICKETS, busy_timeout_s=0) as other:
        other.save("T-1", BILLING, reviewer="Ben")
    store.flush()
    assert [r.ticket_id for r in store.reviews()] == ["T-0", "T-1"]


def test_a_ticket_whose_text_has_changed_is_refused_or_reviewed_again(store, path):
    store.save("T-0", BILLING, reviewer="Ada")
    changed = [Ticket(id="T-0", subject="Something else", body="Text"), *TICKETS[1:]]
    with pytest.raises(StoreMismatch, match="1 tickets were reviewed with another text or by other rules: T-0"):
        ReviewStore(path, changed)
    with ReviewStore(path, changed, set_aside=True) as again:
        assert again.next_unreviewed("Ada").id == "T-0"
        again.save("T-0", AUTH, reviewer="Ada")
    assert [r.verdict for r in store.reviews()] == [BILLING]


def test_reviews_by_another_rubric_do_not_count(store, path):
    store.save("T-0", BILLING, reviewer="Ada")
    with pytest.raises(StoreMismatch, match="by other rules"):
        ReviewStore(path, TICKETS, rubric="triage-rubric-2")


# Labels


def test_what_all_reviewers_say_is_the_label(store):
    store.save("T-0", BILLING, reviewer="Ada")
    store.save("T-0", BILLING, reviewer="Ben")
    found = store.labels()
    assert (found["T-0"].category, found["T-0"].split) == ("billing", "calibration")


def test_a_disagreement_has_no_label_until_it_is_settled(store):
    store.save("T-0", BILLING, reviewer="Ada")
    store.save("T-0", AUTH, reviewer="Ben")
    assert store.labels() == {}
    assert [r.reviewer for r in store.disagreements()["T-0"]] == ["Ada", "Ben"]
    store.save("T-0", AUTH, reviewer="Cy", settles=True)
    assert store.labels()["T-0"].category == "auth"
    assert store.disagreements() == {}


def test_a_label_keeps_the_family_that_is_known(store):
    store.save("T-0", BILLING, reviewer="Ada")
    assert store.labels({"T-0": label("auth P3", family="seats")})["T-0"].family == "seats"


def test_reviewers_agree_in_kappa_with_an_interval(store):
    for ticket, other in zip(TICKETS, (BILLING, AUTH, AUTH, BILLING), strict=True):
        store.save(ticket.id, BILLING if ticket.id in {"T-0", "T-3"} else AUTH, reviewer="Ada")
        store.save(ticket.id, other, reviewer="Ben")
    found = reviewers_agree(store.reviews(), "Ada", "Ben")
    assert found["category"].value == 1
    assert found["category"].low < 1
    assert found["priority"] is None  # P3 throughout


# Choosing, and what people change


def test_the_order_of_review_tells_nothing_of_why_a_ticket_was_chosen():
    many = [Ticket(id=f"T-{i}", body="x") for i in range(50)]
    picked = [t.id for t in pick(many, [t.id for t in many])]
    assert sorted(picked) == sorted(t.id for t in many) != picked


def test_of_risky_tickets_more_are_chosen_and_each_weighs_less():
    outcomes = [outcome(f"T-{i}", "billing P3", sure=0.5 if i < 20 else 0.9) for i in range(200)]
    chosen = choose_for_review(outcomes, 40)
    weights = {c.stratum: c.weight for c in chosen}
    assert weights == {"risky": 1.0, "rest": 9.0}
    assert sum(c.weight for c in chosen) == 200


@pytest.mark.parametrize("random_share", [0.01, 0.5, 0.99])
def test_every_ticket_has_a_chance_whatever_share_is_asked_for(random_share):
    outcomes = [outcome(f"T-{i}", "billing P3", sure=0.5 if i < 20 else 0.9) for i in range(100)]
    chosen = choose_for_review(outcomes, 4, random_share=random_share)
    assert [c.stratum for c in chosen] == ["risky"] * 2 + ["rest"] * 2
    assert sum(c.weight for c in chosen) == pytest.approx(100)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (outcome("T", "billing P3", sure=0.69), "unsure"),
        (outcome("T", "billing P1 human"), "stakes"),
        (outcome("T", None), "undecided"),
        (outcome("T", "billing P3"), "random"),
    ],
    ids=["unsure", "stakes", "undecided", "nothing"],
)
def test_it_is_said_why_a_ticket_was_chosen(said, why):
    others = [outcome(f"T-{i}", "billing P3") for i in range(3)]
    assert {c.item_id: c.why for c in choose_for_review([said, *others], 4)}["T"] == why


def test_the_override_rate_of_chosen_tickets_estimates_that_of_all():
    rng = np.random.default_rng(0)
    outcomes, labels = [], {}
    for i in range(300):
        unsure = rng.random() < 0.2
        wrong = rng.random() < (0.5 if unsure else 0.05)
        outcomes.append(outcome(f"T-{i}", "billing P3", sure=0.5 if unsure else 0.9))
        labels[f"T-{i}"] = label("auth P3" if wrong else "billing P3")
    truth = np.mean([labels[o.item_id].category != "billing" for o in outcomes])
    weighted, plain = [], []
    for seed in range(150):
        chosen = choose_for_review(outcomes, 60, seed=seed)
        seen = {c.item_id: labels[c.item_id].category != "billing" for c in chosen}
        weighted.append(sum(c.weight * seen[c.item_id] for c in chosen) / sum(c.weight for c in chosen))
        plain.append(np.mean(list(seen.values())))
    assert abs(np.mean(weighted) - truth) < 0.01
    assert np.mean(plain) > truth + 0.1
    found = overrides(outcomes, labels, choose_for_review(outcomes, 60, seed=149))
    assert found.rate["category"].value == pytest.approx(weighted[-1])
    assert found.rate["category"].low < truth < found.rate["category"].high


def test_overrides_name_the_field_and_both_sides():
    found = overrides(
        [outcome("T-0", "billing P3"), outcome("T-1", None)], {"T-0": label("billing P2"), "T-1": label()}
    )
    assert [tuple(vars(c).values()) for c in found.changed[:1]] == [("T-0", "priority", "P3", "P2")]
    assert found.without_decision == 1
    assert found.rate["any"].value == 1
    assert "the reviewed tickets (2 reviewed)" in str(found)


def test_a_drawn_ticket_that_nobody_reviewed_is_stood_for_by_its_stratum():
    outcomes = [outcome(f"T-{i}", "billing P3", sure=0.5 if i < 4 else 0.9) for i in range(20)]
    chosen = choose_for_review(outcomes, 8)
    done = [c for c in chosen if c.stratum == "risky"][:2] + [c for c in chosen if c.stratum == "rest"]
    labels = {c.item_id: label("auth P3" if c.stratum == "risky" else "billing P3") for c in done}
    assert overrides(outcomes, labels, chosen).rate["category"].value == pytest.approx(4 / 20)


def test_no_rate_of_all_tickets_is_told_where_a_stratum_was_not_reviewed_or_not_drawn():
    outcomes = [outcome(f"T-{i}", "billing P3", sure=0.5 if i < 4 else 0.9) for i in range(20)]
    chosen = choose_for_review(outcomes, 8)
    risky = [c for c in chosen if c.stratum == "risky"]
    labels = {c.item_id: label() for c in risky}
    with pytest.raises(
        ValueError, match=r"none of the 4 chosen tickets of the stratum 'rest' is reviewed.*review some, e\.g\. T-"
    ):
        overrides(outcomes, labels, chosen)
    with pytest.raises(ValueError, match="stand for 4 of 20: give all that choose_for_review drew"):
        overrides(outcomes, labels, risky)
    assert overrides(outcomes, labels).n == 4
