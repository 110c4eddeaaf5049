"""Where a person labels: the form and the plain call do the same, and neither lets ticket text act or a review get lost."""

import sqlite3

import pytest

from workshop_lib import Ticket
from workshop_lib.bulk import StoreError
from workshop_lib.display import ReviewPanel
from workshop_lib.operations import ReviewStore

ATTACK = "<script>alert(1)</script> <img src=x onerror=alert(2)>"
TICKETS = [
    Ticket(id="T-0", subject="Charged twice", body="Please refund.", customer_tier="enterprise"),
    Ticket(id="T-1", subject=ATTACK, body=ATTACK),
    Ticket(id="T-2", body="Third"),
]


@pytest.fixture
def store(tmp_path):
    with ReviewStore(tmp_path / "review.db", TICKETS, busy_timeout_s=0) as opened:
        yield opened


@pytest.fixture
def panel(store):
    return ReviewPanel(store, reviewer="Ada")


@pytest.fixture
def form(panel):
    panel.widget()
    return panel._form


def said(store):
    return [
        (r.ticket_id, str(r.verdict.category), str(r.verdict.priority), r.verdict.needs_human) for r in store.reviews()
    ]


def status(form):
    return form._status.value


# Without a click


def test_an_answer_is_saved_and_the_next_ticket_shown(panel, store):
    panel.answer(category="billing", priority="P2", needs_human=True)
    assert said(store) == [("T-0", "billing", "P2", True)]
    assert panel.ticket.id == "T-1"
    assert repr(panel).startswith("1 of 3 tickets reviewed by Ada; now T-1")


def test_the_short_form_means_the_same(panel, store):
    panel.answer("2 2 y asks for a refund")
    assert said(store) == [("T-0", "billing", "P2", True)]
    assert store.reviews()[0].verdict.notes == "asks for a refund"


@pytest.mark.parametrize(("line", "needs"), [("2 1", True), ("2p0y", True), ("8 3 n", False), ("8,3,N", False)])
def test_the_short_form_is_lenient(panel, line, needs):
    assert panel.read(line).needs_human is needs


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"shorthand": "9 1 y"}, "is not understood. Write category 1-8"),
        ({"shorthand": "2 2"}, "say needs_human"),
        ({"shorthand": "2 1 n"}, "P1 implies needs_human"),
        ({"category": "biling", "priority": "P2"}, "no category 'biling': choose from billing"),
        ({"category": "billing"}, "takes a category and a priority"),
    ],
)
def test_what_is_no_verdict_is_refused_in_words(panel, store, answer, problem):
    with pytest.raises(ValueError, match=problem):
        panel.answer(**answer)
    assert said(store) == []


def test_a_second_session_goes_on_at_the_first_ticket_without_a_review(panel, store):
    panel.answer("2 3 n")
    assert ReviewPanel(store, reviewer="Ada").ticket.id == "T-1"
    assert ReviewPanel(store, reviewer="Ben").ticket.id == "T-0"


def test_skipping_leaves_a_ticket_for_later_and_previous_goes_back(panel):
    panel.skip()
    assert panel.ticket.id == "T-1"
    panel.previous()
    assert panel.ticket.id == "T-0"


def test_when_all_are_reviewed_it_says_so(panel):
    for _ in TICKETS:
        panel.answer("8 3 n")
    assert "All 3 tickets are reviewed by Ada" in panel.markup()
    with pytest.raises(ValueError, match="every ticket is reviewed"):
        panel.answer("8 3 n")
    panel.go("T-1")
    assert panel.mine.verdict.category == "other"


# The page


def test_ticket_text_is_escaped(panel):
    panel.go("T-1")
    assert "<script>" not in panel.markup()
    assert "<img" not in panel.markup()


def test_the_customers_plan_is_marked_as_context(panel):
    assert "enterprise plan: context only" in panel.markup()


def test_every_category_and_priority_has_a_button_with_its_definition(form):
    buttons = [*form._buttons["category"].values(), *form._buttons["priority"].values()]
    assert [b.description for b in buttons[:2]] == ["1 abuse", "2 billing"]
    assert len(buttons) == 12
    assert all(len(b.tooltip) > 40 for b in buttons)


def test_a_complete_choice_is_saved_at_once(form, store):
    form._buttons["category"]["billing"].click()
    form._buttons["priority"]["P3"].click()
    assert "needs_human missing" in status(form)
    assert said(store) == []
    form._buttons["needs_human"][False].click()
    assert said(store) == [("T-0", "billing", "P3", False)]
    assert "saved: billing P3" in status(form)


def test_an_urgent_priority_forces_a_person(form, store):
    form._buttons["category"]["billing"].click()
    form._buttons["priority"]["P1"].click()
    assert said(store) == [("T-0", "billing", "P1", True)]
    assert form._buttons["needs_human"][False].disabled


def test_save_and_next_does_not_pass_over_an_incomplete_ticket(panel, form):
    form._guarded(form._next)()
    assert "choose category, priority, needs_human first" in status(form)
    assert panel.ticket.id == "T-0"


def test_a_line_in_short_and_enter_saves_and_goes_on(panel, form, store):
    form._short.value = "2 2 y"
    assert said(store) == [("T-0", "billing", "P2", True)]
    assert panel.ticket.id == "T-1"
    assert form._short.value == ""
    assert "1 of 3" in form._count.value


def test_without_a_name_nothing_is_saved_and_the_form_says_why(store):
    panel = ReviewPanel(store)
    panel.widget()
    panel._form._short.value = "2 2 y"
    assert "reviewer's name" in status(panel._form) or "reviewer&#x27;s name" in status(panel._form)
    panel._form._name.value = "Ben"
    panel._form._short.value = "2 2 y"
    assert store.reviews()[0].reviewer == "Ben"


def test_a_locked_file_is_said_in_the_form_and_costs_nothing(form, store, tmp_path):
    holder = sqlite3.connect(tmp_path / "review.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    form._short.value = "2 2 y"
    assert "kept in memory: T-0" in status(form)
    holder.execute("ROLLBACK")
    holder.close()
    store.flush()
    assert said(store) == [("T-0", "billing", "P2", True)]


def choose(form, category):
    for name, value in (("category", category), ("priority", "P3"), ("needs_human", False)):
        form._buttons[name][value].click()


def test_what_a_second_window_has_saved_since_is_told_when_it_is_replaced(panel, form, store):
    second = ReviewPanel(store, reviewer="Ada")
    second.answer("2 2 y")
    choose(form, "abuse")
    assert "Ada had saved T-0 elsewhere" in status(form)
    second.go("T-0")
    second.answer("2 1 y")
    form._guarded(form._next)()
    assert "as billing P1" in status(form)  # below the next ticket
    assert panel.ticket.id == "T-1"
    second.go("T-0")
    assert second.answer("2 3 n").note == ""  # shown before


def test_a_verdict_is_saved_once_however_often_it_is_chosen(panel, form, store):
    choose(form, "billing")
    form._buttons["category"]["billing"].click()
    form._guarded(form._next)()
    assert [r.revision for r in store.reviews()] == [1]
    assert panel.ticket.id == "T-1"


def test_a_review_that_was_written_late_is_this_windows_own(panel, form, store, tmp_path):
    holder = sqlite3.connect(tmp_path / "review.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    choose(form, "billing")
    assert "kept in memory: T-0" in status(form)
    holder.execute("ROLLBACK")
    holder.close()
    store.flush()
    choose(form, "auth")
    assert "saved: auth P3" in status(form)
    assert [r.revision for r in store.reviews()] == [2]


def test_notes_alone_change_a_saved_review(form, store):
    for name, value in (("category", "billing"), ("priority", "P2"), ("needs_human", True)):
        form._buttons[name][value].click()
    form._notes.value = "second refund this month"
    assert [(r.verdict.notes, r.revision) for r in store.reviews()] == [("second refund this month", 2)]


def test_a_closed_store_is_an_error_in_words(store):
    store.close()
    with pytest.raises(StoreError, match="cannot be read"):
        ReviewPanel(store, reviewer="Ada")


def test_a_saved_notebook_shows_the_ticket_without_a_kernel(panel):
    bundle = panel._repr_mimebundle_()
    assert "Charged twice" in bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle
