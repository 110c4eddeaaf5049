"""What is shown: escaped, readable when saved, with words for who cannot see it."""

from types import SimpleNamespace

from workshop_lib import Cascade, Ticket, Tier, always, rule, run_bulk
from workshop_lib.display import (
    BulkTable,
    Journey,
    rules_fired,
    show_table,
    stated_confidence,
    ticket_form,
    usd,
    watch,
    watch_bulk,
)
from workshop_lib.display.controls import slider

ATTACK = "<script>alert(1)</script> <img src=x onerror=alert(2)>"


def journey_of(cascade, ticket):
    journey = Journey(cascade, ticket)
    for event in cascade.stream(ticket):
        journey.add(event)
    return journey.markup()


def test_ticket_text_is_escaped_in_a_journey(bedrock):
    cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=always(), client=bedrock)
    markup = journey_of(cascade, Ticket(id="1", subject=ATTACK, body=ATTACK))
    assert "<script>" not in markup
    assert "<img" not in markup
    assert "&lt;script&gt;" in markup


def test_a_finished_journey_shows_both_answers_the_reasons_and_the_bill(bedrock, a_ticket):
    markup = journey_of(Cascade([Tier("cheap"), Tier("strong")], escalate_when=always(), client=bedrock), a_ticket)
    for words in ("cheap", "strong", "went up", "always", "Done", "USD"):
        assert words in markup


def test_a_journey_that_never_needed_the_strong_tier_says_so(bedrock, a_ticket):
    assert "not needed" in journey_of(Cascade([Tier("cheap"), Tier("strong")], client=bedrock), a_ticket)


def test_watching_gives_the_outcome_that_running_gives(bedrock, a_ticket):
    cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=always(), client=bedrock)
    assert watch(cascade, a_ticket).decision == cascade.run(a_ticket).decision


def test_watching_draws_every_stage_however_fast_they_come(bedrock, a_ticket):
    cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=always(), client=bedrock)
    pictures = []
    watch(cascade, a_ticket, draw=pictures.append)
    assert len(pictures) == 1 + len(list(cascade.stream(a_ticket))) == 7
    assert len(set(pictures)) == 7


def test_a_table_escapes_its_cells():
    assert "<script>" not in show_table([{"a": ATTACK}])._repr_html_()


def test_money_has_no_dollar_sign():
    assert usd(0.0000721) == "USD 0.000072"


def test_a_chart_carries_its_numbers_in_its_alt_text_and_below_it():
    chart = stated_confidence([0.95, 0.95, 0.85], [True, False, False])
    assert "0.95: 1 right, 1 wrong" in chart.alt
    assert "<table" in chart._repr_html_()
    assert chart.alt in chart._repr_html_()


def test_the_same_chart_is_the_same_bytes():
    assert rules_fired({"a": 3, "b": 0}, 9).png == rules_fired({"a": 3, "b": 0}, 9).png


def test_a_chart_says_its_finding():
    assert "b fired on no ticket" in rules_fired({"a": 3, "b": 0}, 9).alt


def test_the_slider_shows_what_its_function_says():
    box = slider(lambda t: show_table([{"threshold": t}]), description="t", start=0.5)
    handle, shown = box.children
    assert "0.5" in shown.value
    handle.value = 0.25
    assert "0.25" in shown.value


def test_a_ticket_typed_into_the_form_is_drawn_stage_by_stage_to_its_end(bedrock):
    subject, body, button, shown = ticket_form(Cascade([Tier("cheap")], client=bedrock)).children
    pictures = []
    shown.observe(lambda change: pictures.append(change["new"]), names="value")
    subject.value, body.value = "Charged twice", ATTACK
    button.click()
    assert "waiting" in pictures[0]
    assert "thinking" in pictures[1]
    assert "Done" in pictures[-1]
    assert "Charged twice" in pictures[-1]
    assert "<script>" not in pictures[-1]


def test_an_empty_ticket_in_the_form_is_shown_and_not_raised(bedrock):
    *_, button, shown = ticket_form(Cascade([Tier("cheap")], client=bedrock)).children
    button.click()
    assert "subject and body are both empty" in shown.value


def test_a_mistake_in_a_rule_of_ones_own_is_shown_below_the_form_and_escaped(bedrock):
    @rule
    def mistaken(attempt):
        raise RuntimeError(ATTACK)

    cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=mistaken, client=bedrock)
    subject, _, button, shown = ticket_form(cascade).children
    subject.value = "Charged twice"
    button.click()
    assert "RuntimeError: &lt;script&gt;" in shown.value
    assert "<img" not in shown.value


def test_a_bulk_table_fills_up_in_the_order_of_the_tickets(bedrock):
    tickets = [Ticket(id=str(i), subject=f"Case {i}", body=f"Please refund invoice {i}.") for i in range(3)]
    run = run_bulk(Cascade([Tier("cheap")], client=bedrock), tickets)
    table = BulkTable(run, tickets, show=10)
    before = table.markup()
    for row in run:
        table.add(row)
    after = table.markup()
    assert before.count("waiting") == 3
    assert "waiting" not in after
    assert after.index("Case 0") < after.index("Case 1") < after.index("Case 2")
    assert "3 of 3 tickets" in after


def test_a_bulk_table_escapes_ids_subjects_and_answers(bedrock):
    evil = Ticket(id=ATTACK[:100], subject=ATTACK, body="Please refund the second payment.")
    run = run_bulk(Cascade([Tier("cheap")], client=bedrock), [evil])
    table = BulkTable(run, [evil], show=10)
    for row in run:
        table.add(row)
    assert "<script>" not in table.markup()
    assert "<img" not in table.markup()


def test_a_long_bulk_table_keeps_the_latest_and_says_how_many_are_done(bedrock):
    tickets = [Ticket(id=str(i), body=f"Please refund invoice {i}.") for i in range(12)]
    run = run_bulk(Cascade([Tier("cheap")], client=bedrock), tickets, workers=1)
    table = BulkTable(run, tickets, show=5)
    for row in run:
        table.add(row)
    assert table.markup().count("<tr>") == 6
    assert "12 of 12 tickets" in table.markup()


def test_watching_a_bulk_run_gives_its_rows_and_draws_at_most_four_times_a_second(bedrock, monkeypatch):
    drawn = []
    handle = SimpleNamespace(update=lambda picture: drawn.append(picture.data))
    monkeypatch.setattr("IPython.display.display", lambda *given, **options: handle)
    run = run_bulk(Cascade([Tier("cheap")], client=bedrock), [Ticket(id=str(i), body=f"Refund {i}.") for i in range(9)])
    rows = watch_bulk(run, clock=lambda: 0.0)
    assert len(rows) == 9
    first, last = drawn
    assert "0 of 9" in first
    assert "9 of 9" in last
