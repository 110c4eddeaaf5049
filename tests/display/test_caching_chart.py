"""Charts of routing and caching together: the finding in the title, every number in words."""

import pytest

from workshop_lib.bedrock.catalogue import Catalogue, Usage
from workshop_lib.display import cost_against_hit_rate, cost_against_prefix, sliders
from workshop_lib.display.theme import Html
from workshop_lib.shop.caching import DESIGNS, HitRates, Request, Traffic, designs

TRAFFIC = Traffic(Request(2_839, 700, 250, 2), Request(2_839, 1_260, 430, 2), 0.6, Usage(212, 1))
PAIR, NEXT = (Catalogue.load(pair=pair) for pair in ("haiku-sonnet", "haiku-sonnet-5-5"))


def test_the_title_says_from_which_hit_rate_on_routing_loses():
    assert "Above a hit rate of 9" in cost_against_hit_rate(TRAFFIC, PAIR).alt


def test_the_title_says_so_where_routing_always_saves_or_never():
    assert "At every hit rate routing saves between 4" in cost_against_hit_rate(TRAFFIC, NEXT).alt
    dear = Traffic(TRAFFIC.simple, TRAFFIC.complex, 0.0, Usage(5_000))
    assert "At every hit rate routing adds between" in cost_against_hit_rate(dear, PAIR).alt


def test_the_title_names_the_lengths_at_which_routing_saves_most_and_least():
    minimum = PAIR["cheap"].cache_minimum_tokens
    assert f"adds 4% at {minimum - 1:,} tokens" in cost_against_prefix(TRAFFIC, PAIR).alt


def test_a_prefix_too_short_for_both_caches_is_drawn_without_marks():
    assert "uncached" in cost_against_prefix(TRAFFIC, PAIR, longest=500).alt


@pytest.mark.parametrize("draw", [cost_against_hit_rate, cost_against_prefix])
def test_a_chart_says_all_its_numbers_and_is_always_the_same(draw):
    picture = draw(TRAFFIC, PAIR)
    assert all(f"{name}: USD" in picture.alt for name in DESIGNS)
    assert "<table" in picture.table
    assert picture.png == draw(TRAFFIC, PAIR).png


def test_the_chart_draws_what_the_closed_form_says():
    total = designs(TRAFFIC, PAIR, HitRates.same(0.5))["routed, cached"].total
    assert f"USD {float(total) * 1000:.2f} at 50%" in cost_against_hit_rate(TRAFFIC, PAIR).alt


def test_several_sliders_call_one_function_with_all_their_values():
    seen = []

    def shown(prefix, hit_rate):
        seen.append((prefix, hit_rate))
        return Html(f"{prefix} {hit_rate}")

    box = sliders(shown, prefix=(0, 100, 50, 1), hit_rate=(0.0, 1.0, 0.5, 0.1))
    first, second, result = box.children
    first.value, second.value = 60, 0.7
    assert seen == [(50, 0.5), (60, 0.5), (60, 0.7)]
    assert result.value == "60 0.7"
    assert (first.description, second.description) == ("prefix", "hit rate")
