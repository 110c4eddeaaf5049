"""Lab 06's checks, and the published tables: every printed cost comes out of its token columns, and what was left out is found."""

from dataclasses import replace

import pytest

from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.lessons import check, hint, lab06, solution
from workshop_lib.shop import load_shop
from workshop_lib.shop.caching import HitRates, Request, bill_of, cacheable, designs, usage_of

POINT = lab06.CACHE_POINT
RUNS = (lab06.JANUARY_CACHED, lab06.JANUARY_ROUTED, lab06.JANUARY_TRACED, lab06.JUNE_CACHED, lab06.JUNE_ROUTED)


def cached(calls, tokens, price):
    return tokens * (price.cache_write_5m + (calls - 1) * price.cache_read) / 1_000_000


def in_floats(calls, tokens, price):
    return (price.cache_write_5m * tokens + (calls - 1) * tokens * price.cache_read) / 1e6


def arrange(rules, handbook, now, customer):
    return [{"text": rules}, {"text": handbook}, POINT, {"text": now}, {"text": customer}]


def two_points(rules, handbook, now, customer):
    return [{"text": rules}, POINT, {"text": handbook}, POINT, {"text": f"{now}\n{customer}"}]


def handbook_first(rules, handbook, now, customer):
    return [{"text": f"{handbook}\n{rules}"}, POINT, {"text": customer}, {"text": now}]


def clock_first(rules, handbook, now, customer):
    return [{"text": now}, {"text": rules}, {"text": handbook}, POINT, {"text": customer}]


def at_the_end(rules, handbook, now, customer):
    return [{"text": rules}, {"text": handbook}, {"text": now}, {"text": customer}, POINT]


def one_too_many(rules, handbook, now, customer):
    return [*arrange(rules, handbook, now, customer), POINT]


def rules_behind(rules, handbook, now, customer):
    return [{"text": handbook}, POINT, {"text": rules}, {"text": now}, {"text": customer}]


def too_early(rules, handbook, now, customer):
    return [{"text": rules}, POINT, {"text": handbook}, {"text": now}, {"text": customer}]


def no_point(rules, handbook, now, customer):
    return [block for block in arrange(rules, handbook, now, customer) if "text" in block]


def forgetful(rules, handbook, now, customer):
    return [{"text": rules}, {"text": handbook}, POINT, {"text": now}]


def priced(row, cheap, strong):
    return (strong if row.model == "strong" else cheap).cost(row.usage) + cheap.cost(row.classifier)


def by_hand(row, cheap, strong):
    p = (strong if row.model == "strong" else cheap).price
    u, c = row.usage, row.classifier
    mine = u.input_tokens * p.input + u.output_tokens * p.output + u.cache_read_tokens * p.cache_read
    label = c.input_tokens * cheap.price.input + c.output_tokens * cheap.price.output
    return (mine + u.cache_write_tokens * p.cache_write_5m + label) / 1_000_000


def like_the_tracker(row, cheap, strong):
    return priced(replace(row, usage=replace(row.usage, cache_write_tokens=0)), cheap, strong)


def without_classifier(row, cheap, strong):
    return priced(replace(row, classifier=Usage()), cheap, strong)


def all_strong(row, cheap, strong):
    return strong.cost(row.usage) + cheap.cost(row.classifier)


def all_one(row, cheap, strong):
    spec = strong if row.model == "strong" else cheap
    return spec.cost(row.usage) + spec.cost(row.classifier)


CASES = [
    ("6.1", cached, "Correct"),
    ("6.1", in_floats, "Correct"),
    ("6.1", lambda calls, tokens, price: cached(calls, tokens, price) * 1_000_000, "for a million tokens"),
    ("6.1", lambda calls, tokens, price: calls * tokens * price.cache_read / 1_000_000, "must have written"),
    (
        "6.1",
        lambda calls, tokens, price: calls * tokens * price.cache_write_5m / 1_000_000,
        "only the first one writes",
    ),
    (
        "6.1",
        lambda calls, tokens, price: tokens * (price.input + (calls - 1) * price.cache_read) / 1_000_000,
        "the write at the plain input price",
    ),
    (
        "6.1",
        lambda calls, tokens, price: tokens * (price.cache_write_5m + calls * price.cache_read) / 1_000_000,
        "the first call does not read",
    ),
    ("6.1", lambda calls, tokens, price: calls * tokens * price.input / 1_000_000, "without a cache"),
    ("6.1", lambda calls, tokens, price: 1, "your function says USD 1.0"),
    ("6.1", lambda calls, tokens, price: None, "Not attempted"),
    ("6.1", lambda calls, tokens, price: price.nothing, "Your code raised"),
    ("6.2", arrange, "Correct"),
    ("6.2", two_points, "Correct"),
    ("6.2", handbook_first, "Correct"),
    ("6.2", clock_first, "reads nothing and writes"),
    ("6.2", at_the_end, "reads nothing and writes"),
    ("6.2", one_too_many, "that no later one will read"),
    ("6.2", rules_behind, "that never change are read"),
    ("6.2", too_early, "no cache point stands behind the long texts"),
    ("6.2", no_point, "no cache point"),
    ("6.2", forgetful, "customer cannot be found"),
    ("6.2", lambda *texts: "\n".join(texts), "return a list of blocks"),
    ("6.2", lambda *texts: [*texts, POINT], "return a list of blocks"),
    ("6.2", lambda *texts: [{"txt": "x"}], "not 'txt'"),
    ("6.2", lambda *texts: [{"text": 3}], "holds a string"),
    ("6.2", lambda *texts: None, "Not attempted"),
    ("6.3", priced, "Correct"),
    ("6.3", by_hand, "Correct"),
    ("6.3", like_the_tracker, "without its cache writes"),
    ("6.3", without_classifier, "without the classifier's call"),
    ("6.3", all_strong, "at the strong model's price"),
    ("6.3", all_one, "the classifier's tokens at the strong model's price"),
    ("6.3", lambda row, cheap, strong: None, "Not attempted"),
    ("6.3", lambda row, cheap, strong: 0, "your function says USD 0.000000"),
]


@pytest.mark.parametrize(("number", "answer", "said"), CASES, ids=lambda v: getattr(v, "__name__", None))
def test_a_check_tells_what_is_missing(number, answer, said):
    assert said in repr(check(number, answer))


@pytest.mark.parametrize("number", ["6.1", "6.2", "6.3"])
def test_every_exercise_has_hints_and_a_solution(number):
    assert "Hint 1" in repr(hint(number))
    assert "def " in repr(solution(number))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_published_total_leaves_out_its_cache_writes(run):
    assert round(lab06.cost(run.rows, writes=False), 4) == run.printed_usd
    written = sum(row.usage.cache_write_tokens for row in run.rows)
    assert lab06.cost(run.rows) - lab06.cost(run.rows, writes=False) == pytest.approx(written * 3.75e-6)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lab06.JANUARY_CACHED, lab06.JANUARY_ROUTED),
        (lab06.JANUARY_CACHED, lab06.JANUARY_TRACED),
        (lab06.JUNE_CACHED, lab06.JUNE_ROUTED),
    ],
    ids=lambda run: run.name,
)
def test_a_published_change_comes_out_of_the_token_columns(before, after):
    change = lab06.cost(after.rows, writes=False) / lab06.cost(before.rows, writes=False) - 1
    assert round(change, 3) == after.printed_change


def test_rows_cost_what_was_printed_to_six_decimals():
    support, two = lab06.JANUARY_TRACED.rows[2:4]
    assert [round(lab06.cost([row], writes=False), 6) for row in (support, two)] == [0.010329, 0.012676]
    rows = lab06.JUNE_ROUTED.rows
    assert [round(lab06.cost([row]), 6) for row in rows] == [0.008154, 0.008563, 0.00994, 0.014332, 0.004006]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_the_closed_form_gives_every_counter_of_every_row(run):
    """A question's own tokens are those of the cached run; what differs is a handful of words that the model chose."""
    pair = lab06.their_pair()
    base = lab06.JANUARY_CACHED if run.prefix_tokens == 1_743 else lab06.JUNE_CACHED
    own = {row.question: row.usage.input_tokens for row in base.rows}
    for row in run.rows:
        request = Request(run.prefix_tokens, own[row.question], row.usage.output_tokens, lab06.CALLS[row.question])
        start = "cold" if row.usage.cache_write_tokens else "warm"
        found = usage_of(request, pair[row.model], start)
        assert abs(found.input_tokens - row.usage.input_tokens) <= 1
        assert replace(found, input_tokens=0) == replace(row.usage, input_tokens=0)


def test_the_first_table_has_no_room_for_a_classifier():
    shown = repr(lab06.where_is_the_classifier())
    assert "= 4,349  printed first=4,349" in shown
    assert "= 2,075  printed first=2,075" in shown


def test_a_cold_run_and_a_warm_one_differ_by_more_than_routing_saves():
    june = lab06.cost(lab06.JUNE_CACHED.rows)
    assert lab06.cost(lab06.JUNE_ROUTED.rows) / june - 1 < -0.2
    assert -0.05 < lab06.cost(lab06.started_cold(lab06.JUNE_ROUTED)) / june - 1 < -0.03
    assert lab06.started_cold(lab06.JUNE_CACHED) == lab06.JUNE_CACHED.rows


def test_the_table_of_changes_tells_the_whole_story():
    shown = repr(lab06.repriced())
    for change in ("-15.8%", "-11.6%", "-10.4%", "-2.8%", "-21.0%", "-3.8%"):
        assert change in shown


def test_a_greeting_costs_the_same_either_way_and_a_look_up_saves_a_little():
    shown = repr(lab06.kinds(lab06.their_pair())).splitlines()
    saved = {line.split("  ")[0].removeprefix("question="): line.rsplit("=", 1)[1] for line in shown[1:]}
    assert saved == {"return policy": "4.0%", "product info": "13.4%", "greeting": "-0.9%"}


def test_without_a_cache_the_same_routing_would_have_saved_a_third():
    pair, alone, routed = lab06.their_pair(), 0, 0
    for row in lab06.JUNE_ROUTED.rows:
        own, calls = lab06.OWN[row.question], lab06.CALLS[row.question]
        request = Request(lab06.JUNE_ROUTED.prefix_tokens, own, row.usage.output_tokens, calls)
        alone, routed = (
            total + bill_of(usage_of(request, pair[model], "uncached"), pair[model].price).total
            for total, model in ((alone, "strong"), (routed, row.model))
        )
        routed += pair["classifier"].price.cost(row.classifier)
    assert 0.33 < 1 - routed / alone < 0.36


def test_the_fight_turns_with_the_generation():
    shown = repr(lab06.pairs(lab06.june_traffic(), HitRates.of_arrivals(1, 0.6)))
    assert "the cheap model caches=no" in shown
    assert "routing saves=-" in shown.splitlines()[0]
    assert "routing saves=3" in shown.splitlines()[1]


def test_the_cheapest_design_is_named():
    pair, traffic = lab06.their_pair(), lab06.june_traffic()
    assert "Cheapest: routed, cached" in repr(lab06.compare(designs(traffic, pair, HitRates.same(0.5))))
    assert "Cheapest: strong, cached" in repr(lab06.compare(designs(traffic, pair, HitRates.same(1.0))))


def test_one_call_loses_by_a_write_and_two_gain():
    lines = repr(lab06.write_or_not(lab06.their_pair()["strong"], 4_000, (1, 2, 3))).splitlines()[1:]
    assert [line.rsplit("=", 1)[1] for line in lines] == ["no cache point", "5 minutes", "5 minutes"]
    assert "no cache point=USD 0.0240  5 minutes=USD 0.0162  an hour=USD 0.0252" in lines[1]


def test_the_handbook_is_cached_by_the_strong_model_and_too_short_for_the_cheap_one(bedrock, catalogue):
    tokens = bedrock.count_tokens("claude-sonnet-4-6", "x", system=lab06.handbook(load_shop()))
    assert cacheable(catalogue["claude-sonnet-4-6"], tokens - 10)
    assert not cacheable(catalogue["claude-haiku-4-5"], tokens)
