"""What is shown: escaped, readable when saved, with words for who cannot see it."""

import pytest

from workshop_lib import Cascade, Ticket, Tier, always
from workshop_lib.display import Journey, rules_fired, show_table, stated_confidence, ticket_form, usd, watch
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


def test_an_unusable_ticket_in_the_form_is_shown_and_not_raised():
    def refuse(subject, body):
        raise ValueError("subject and body are both empty")

    form = ticket_form(refuse)
    form.children[2].click()


@pytest.mark.parametrize("given", [("Hello", "there")])
def test_the_form_hands_over_what_was_typed(given):
    seen = []
    form = ticket_form(lambda s, b: seen.append((s, b)))
    form.children[0].value, form.children[1].value = given
    form.children[2].click()
    assert seen == [given]
