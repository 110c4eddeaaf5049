"""Routing and caching together: the closed form counts as the endpoint counts, adds up, and knows where each of the two pays."""

import random
from dataclasses import replace
from decimal import Decimal

import pytest

from workshop_lib.bedrock.catalogue import Catalogue, Price, Usage
from workshop_lib.shop.caching import (
    DESIGNS,
    Bill,
    HitRates,
    Request,
    Traffic,
    bill_of,
    break_even_hit_rate,
    break_even_simple_share,
    cacheable,
    designs,
    expected,
    explain,
    hit_rate,
    reads_to_pay,
    usage_of,
)

POINT = {"cachePoint": {"type": "default"}}
LONG = "Returns are free within thirty days. " * 600
TRAFFIC = Traffic(Request(2_839, 700, 250, 2), Request(2_839, 1_260, 430, 2), 0.6, Usage(212, 1))


@pytest.fixture(scope="module")
def pair():
    return Catalogue.load(pair="haiku-sonnet", scope="global")


@pytest.fixture(scope="module")
def sonnet(pair):
    return pair["strong"]


# What is counted


def test_without_a_cache_point_every_call_sends_the_prefix(sonnet):
    assert usage_of(Request(3_000, 100, 50, 2), sonnet, "uncached") == Usage(6_100, 50)


def test_a_warm_request_reads_the_prefix_with_each_call(sonnet):
    assert usage_of(Request(3_000, 100, 50, 3), sonnet, "warm") == Usage(100, 50, cache_read_tokens=9_000)


def test_a_cold_request_writes_once_and_its_later_calls_read(sonnet):
    counted = usage_of(Request(3_000, 100, 50, 2), sonnet, "cold")
    assert counted == Usage(100, 50, cache_read_tokens=3_000, cache_write_tokens=3_000)


def test_an_hour_is_counted_apart(sonnet):
    assert usage_of(Request(3_000, 100, 50), sonnet, "cold", ttl="1h").cache_write_1h_tokens == 3_000


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_below_the_minimum_a_cache_point_changes_nothing(sonnet, start):
    short = Request(sonnet.cache_minimum_tokens - 1, 100, 50)
    assert not cacheable(sonnet, short.prefix_tokens)
    assert usage_of(short, sonnet, start) == usage_of(short, sonnet, "uncached")


def test_a_model_without_a_cache_never_caches(catalogue):
    assert not cacheable(catalogue["nemotron-nano-3"], 100_000)


def test_a_prompt_with_another_price_is_refused():
    haiku = Catalogue.load(pair="haiku-sonnet-5-5")["cheap"]
    with pytest.raises(ValueError, match="another price above 100,000"):
        usage_of(Request(100_000, 1, 1), haiku, "warm")


@pytest.mark.parametrize("model", ["claude-sonnet-4-6", "claude-haiku-4-5", "claude-haiku-5-5", "claude-opus-4-7"])
def test_the_closed_form_is_the_bill_of_the_local_door(bedrock, endpoint, catalogue, model):
    spec, system = catalogue[model], [{"text": LONG}, POINT]
    prefix = bedrock.converse(model, "x", system=system).usage.cache_write_tokens
    for start, question in (("warm", "And shoes?"), ("cold", "And shoes?"), ("warm", "I have a longer question.")):
        if start == "cold":
            endpoint.cache.clear()
        reply = bedrock.converse(model, question, system=system)
        total = bedrock.count_tokens(model, question, system=LONG)
        counted = usage_of(Request(prefix, total - prefix, reply.usage.output_tokens), spec, start)
        assert counted == reply.usage
        assert float(bill_of(counted, spec.price).total) == reply.cost_usd


def test_below_the_minimum_the_local_door_bills_as_without_a_cache_point(bedrock, catalogue):
    short = LONG[: len(LONG) // 3]
    for _ in range(2):
        reply = bedrock.converse("claude-haiku-4-5", "And shoes?", system=[{"text": short}, POINT])
        total = bedrock.count_tokens("claude-haiku-4-5", "And shoes?", system=short)
        request = Request(total - 4, 4, reply.usage.output_tokens)
        assert usage_of(request, catalogue["claude-haiku-4-5"], "warm") == reply.usage


# What it costs


def test_a_bill_adds_up_to_the_price_of_its_tokens(sonnet):
    for ttl in ("5m", "1h"):
        usage = usage_of(Request(3_001, 107, 53, 2), sonnet, "cold", ttl=ttl)
        assert bill_of(usage, sonnet.price).total == sonnet.price.cost(usage)


def test_an_expected_cost_lies_between_cold_and_warm_by_the_hit_rate(sonnet):
    request = Request(3_000, 100, 50)
    cold, warm = (sonnet.price.cost(usage_of(request, sonnet, start)) for start in ("cold", "warm"))
    assert expected(request, sonnet, 0.0).total == cold
    assert expected(request, sonnet, 1.0).total == warm
    assert expected(request, sonnet, 0.25).total == (3 * cold + warm) / 4


def test_the_four_designs_differ_by_who_answers_and_what_is_cached(pair, sonnet):
    bills = designs(TRAFFIC, pair, HitRates.same(1))
    assert tuple(bills) == DESIGNS
    assert not any(bills[name].read or bills[name].written for name in ("strong, uncached", "routed, uncached"))
    label = pair["classifier"].price.cost(TRAFFIC.classifier)
    assert [bill.classifier for bill in bills.values()] == [0, 0, label, label]
    assert bills["routed, cached"].read == sonnet.price.cost(Usage(cache_read_tokens=2 * 2_839)) * Decimal("0.4")


def test_with_no_simple_requests_routing_adds_its_classifier_and_nothing_else(pair):
    bills = designs(replace(TRAFFIC, simple_share=0.0), pair, HitRates.same(0.5))
    assert bills["routed, cached"].total - bills["strong, cached"].total == bills["routed, cached"].classifier


def test_rows_that_explain_show_every_part_and_its_sum(pair):
    row = explain(designs(TRAFFIC, pair, HitRates.same(0.9)))[-1]
    parts = [float(value) for column, value in row.items() if column not in ("design", "USD per 1,000")]
    assert sum(parts) == pytest.approx(float(row["USD per 1,000"]), abs=0.03)
    assert explain({"x": Bill(output=Decimal("0.5"))}, requests=10)[0]["USD per 10"] == "5.00"


# How often it is warm


def test_more_requests_keep_a_cache_warmer():
    assert hit_rate(0) == 0
    assert 0 < hit_rate(0.1) < hit_rate(1) < hit_rate(1, "1h") <= 1
    assert hit_rate(0.2) == pytest.approx(1 - 1 / 2.718281828459045)


def test_the_hit_rate_is_what_a_cache_shows_that_each_use_renews():
    draw = random.Random(6)
    now, last, hits, n = 0.0, -1e9, 0, 20_000
    for _ in range(n):
        now += draw.expovariate(0.3 / 60)
        hits += now - last < 300
        last = now
    assert hits / n == pytest.approx(hit_rate(0.3), abs=0.015)


def test_a_router_cools_the_strong_models_cache():
    hits = HitRates.of_arrivals(0.5, 0.6)
    assert hits.strong == hit_rate(0.2) < hits.cheap == hit_rate(0.3) < hits.alone == hit_rate(0.5)


# When it pays


def test_one_read_pays_for_five_minutes_and_two_for_an_hour(sonnet):
    assert 0 < reads_to_pay(sonnet.price) <= 1 < reads_to_pay(sonnet.price, ttl="1h") <= 2


@pytest.mark.parametrize("ttl", ["5m", "1h"])
@pytest.mark.parametrize("calls", [1, 2])
def test_at_the_break_even_hit_rate_a_cache_point_costs_nothing_or_saves_already(sonnet, calls, ttl):
    rate, request = break_even_hit_rate(sonnet.price, calls=calls, ttl=ttl), Request(3_000, 100, 50, calls)
    plain = float(sonnet.price.cost(usage_of(request, sonnet, "uncached")))
    with_point = float(expected(request, sonnet, rate, ttl=ttl).total)
    assert with_point == pytest.approx(plain) if rate else with_point <= plain


def test_a_request_of_two_calls_pays_for_its_own_write(sonnet):
    assert break_even_hit_rate(sonnet.price) > 0
    assert break_even_hit_rate(sonnet.price, calls=2) == 0


@pytest.mark.parametrize("question", [reads_to_pay, break_even_hit_rate])
def test_a_model_without_a_cache_has_no_break_even(question):
    with pytest.raises(ValueError, match="no prompt cache"):
        question(Price(Decimal(1), Decimal(5)))


def test_at_the_break_even_share_routing_costs_what_the_strong_model_costs(pair):
    share = break_even_simple_share(TRAFFIC, pair, 0.9)
    bills = designs(replace(TRAFFIC, simple_share=share), pair, HitRates.same(0.9))
    assert float(bills["routed, cached"].total) == pytest.approx(float(bills["strong, cached"].total))


def test_where_a_simple_request_saves_less_than_its_classifier_no_share_is_enough(pair):
    assert break_even_simple_share(TRAFFIC, pair, 1.0) is None


# What is refused


@pytest.mark.parametrize("wrong", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 0, 0)])
def test_a_request_of_impossible_numbers_is_refused(wrong):
    with pytest.raises(ValueError, match="0 or more"):
        Request(*wrong)


def test_shares_and_rates_beyond_0_and_1_are_refused():
    with pytest.raises(ValueError, match="share"):
        replace(TRAFFIC, simple_share=1.1)
    with pytest.raises(ValueError, match="hit rate"):
        HitRates.same(-0.1)
    with pytest.raises(ValueError, match="per minute"):
        hit_rate(-1)
