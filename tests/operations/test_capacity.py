"""Rates, workers, quotas and bills follow from measured tickets; what nobody knows is not made up."""

import json
import sys
from dataclasses import replace

import botocore.exceptions
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from tests.operations.told import outcome
from workshop_lib import ConfigurationError, run_bulk
from workshop_lib.bedrock.catalogue import Catalogue, Usage
from workshop_lib.bedrock.pacing import Quota
from workshop_lib.cli import main
from workshop_lib.display import scale_chart
from workshop_lib.evaluation import standard_strategies
from workshop_lib.operations.capacity import Traffic, plan, tokens_per_minute
from workshop_lib.operations.quotas import quota_of, read_quotas
from workshop_lib.operations.scale import Constant, Means, calls_per_core_s, scale_plan

N = 40


@pytest.fixture(scope="module")
def traffic():
    """A quarter of the tickets go up. Cheap 1,259 + 110 tokens and 0.7 s; strong 1,650 + 231 and 3.4 s."""
    return Traffic.of([outcome(f"T-{i}", "billing P3", "billing P3" if i % 4 == 0 else "") for i in range(N)])


@pytest.fixture
def planned(traffic, catalogue):
    return lambda **how: plan(traffic, catalogue, **({"tickets_per_hour": 3_600} | how))


# Tokens of a quota


def test_a_call_of_sonnet_settles_with_five_for_each_output_token(catalogue):
    assert catalogue["strong"].quota_tokens(Usage(1_655, 218)) == 2_745
    assert catalogue["cheap"].quota_tokens(Usage(1_259, 110)) == 1_369


def test_what_was_read_from_the_cache_is_reserved_and_not_settled(catalogue):
    cached = Usage(input_tokens=100, output_tokens=0, cache_read_tokens=900, cache_write_tokens=50)
    assert cached.prompt_tokens == 1_050
    assert catalogue["strong"].quota_tokens(cached) == 150


def test_a_running_call_holds_its_reservation():
    assert tokens_per_minute(60, reserved=3_000, settled=1_000, latency_s=6) == 60 * (1_000 + 0.1 * 2_000)
    assert tokens_per_minute(60, reserved=2_167, settled=2_745, latency_s=6) == 60 * 2_745


# One load


def test_rates_and_workers_follow_from_load_share_and_time(planned):
    cheap, strong = planned().tiers
    assert (cheap.calls_per_s, strong.calls_per_s) == (1.0, 0.25)
    assert cheap.in_flight == pytest.approx(0.7)
    assert strong.in_flight == pytest.approx(0.25 * 3.4)
    assert strong.workers == 2  # at the upper end of the share, 3.4 s each
    assert strong.reach.low < 0.25 < strong.reach.high


def test_a_call_reserves_its_prompt_and_max_tokens(planned):
    strong = planned(max_tokens={"strong": 1_024}).tiers[1]
    assert (strong.tokens_reserved, strong.tokens_settled) == (1_650 + 1_024, 1_650 + 5 * 231)


def test_the_first_quota_that_is_used_up_is_named_with_the_load_that_it_allows(planned):
    found = planned(
        quotas={"strong": Quota(tokens_per_minute=42_075), "nemotron-nano-3": Quota(requests_per_minute=120)}
    )
    assert (found.binding.tier, found.binding.kind) == ("strong", "tokens_per_minute")
    assert found.binding.tickets_per_hour == pytest.approx(3_600)  # 15 calls a minute x 2,805
    assert found.fits
    assert "the load fits" in str(found)
    assert not planned(tickets_per_hour=7_300, quotas={"strong": Quota(tokens_per_minute=42_075)}).fits


def test_tiers_on_one_model_share_its_quota(traffic, catalogue):
    quotas = {"strong": Quota(requests_per_minute=150)}
    alike = traffic.with_models({"cheap": "claude-sonnet-4-6"}, catalogue)
    found = plan(alike, catalogue, tickets_per_hour=3_600, quotas=quotas)
    assert [t.needs[0].needed for t in found.tiers] == [60, 15]
    assert [t.needs[0].tickets_per_hour for t in found.tiers] == [7_200, 7_200]  # 75 a minute of 150
    with pytest.raises(ConfigurationError, match="two quotas of claude-sonnet-4-6"):
        plan(alike, catalogue, tickets_per_hour=1, quotas=quotas | {"cheap": Quota(requests_per_minute=1)})


def test_a_daily_quota_counts_settled_tokens(planned):
    found = planned(quotas={"strong": Quota(tokens_per_day=24 * 900 * 2_805)})
    assert found.binding.tickets_per_hour == pytest.approx(3_600)


def test_a_quota_that_nobody_told_is_called_not_known(planned):
    found = planned()
    assert found.binding is None
    assert found.fits is None
    assert "strong: tokens_per_minute" in found.not_known
    assert "Nothing is said about them" in str(found)


def test_a_quota_of_a_model_that_is_not_asked_is_refused(planned):
    with pytest.raises(ConfigurationError, match=r"quota of claude-opus-4-7, which no tier asks"):
        planned(quotas={"claude-opus-4-7": Quota(tokens_per_minute=1)})


@pytest.mark.parametrize("load", [0, -1, float("nan"), float("inf")])
def test_a_load_that_cannot_be_is_refused(planned, load):
    with pytest.raises(ValueError, match="above 0"):
        planned(tickets_per_hour=load)


def test_the_bill_is_the_mean_ticket_times_the_month_with_an_interval(planned, catalogue):
    found = planned()
    ticket = catalogue["cheap"].cost(Usage(1_259, 110)) + catalogue["strong"].cost(Usage(1_650, 231)) / 4
    assert found.usd_per_1000.value == pytest.approx(1_000 * ticket)
    bill, low, high = found.month_usd
    assert bill == pytest.approx(3_600 * 730 * ticket)
    assert low < bill < high
    assert sum(t.usd_per_1000 for t in found.tiers) == pytest.approx(found.usd_per_1000.value)


def test_other_prices_give_another_bill(planned, traffic, catalogue):
    half = {
        key: replace(s, prices={k: replace(p, input=p.input / 2, output=p.output / 2) for k, p in s.prices.items()})
        for key, s in catalogue.models.items()
    }
    cheaper = plan(traffic, replace(catalogue, models=half), tickets_per_hour=3_600)
    assert cheaper.month_usd[0] == pytest.approx(planned().month_usd[0] / 2)


def test_other_models_take_tokens_by_their_tokenizer(traffic, catalogue):
    moved = traffic.with_models({"cheap": "claude-haiku-5-5", "strong": "claude-sonnet-5-5"}, catalogue)
    assert next(moved.of_tier("cheap")).usage.input_tokens == round(1_259 * 1.31)
    assert next(moved.of_tier("strong")).usage.input_tokens == 1_650
    found = plan(moved, catalogue, tickets_per_hour=3_600)
    assert [t.label for t in found.tiers] == ["Claude Haiku 5.5", "Claude Sonnet 5.5"]
    assert "re-priced" in found.source


# Worth it?


def test_a_wrong_answer_has_a_price_at_which_both_ways_cost_the_same(planned):
    right = {"cascade": 0.80, "cheap-only": 0.75, "strong-only": 0.85}
    found = planned(right=right, wrong_usd=0.02)
    cheap, strong = found.break_even
    mine = found.usd_per_1000.value
    assert cheap.wrong_usd == pytest.approx((mine - cheap.usd_per_1000) / 50)
    assert strong.wrong_usd == pytest.approx((strong.usd_per_1000 - mine) / 50)
    assert "above USD" in cheap.sentence
    assert "below USD" in strong.sentence
    assert "it is ahead by" in strong.sentence


def test_a_cascade_that_is_dearer_and_worse_is_never_worth_it(planned):
    found = planned(right={"cascade": 0.7, "cheap-only": 0.75, "strong-only": 0.7})
    assert found.break_even[0].wrong_usd is None
    assert "no price of a wrong answer changes that" in found.break_even[0].sentence


def test_above_the_break_even_share_a_cascade_saves_nothing(planned, catalogue):
    cheap, strong = catalogue["cheap"].cost(Usage(1_259, 110)), catalogue["strong"].cost(Usage(1_650, 231))
    assert planned().break_even_escalation == pytest.approx(1 - cheap / strong)


def test_rows_of_a_bulk_run_give_the_same_plan_as_its_outcomes(bedrock, catalogue, a_ticket):
    cascade = standard_strategies(bedrock)["cascade"]
    from_rows = Traffic.of(run_bulk(cascade, [a_ticket]))
    from_outcome = Traffic.of([cascade.run(a_ticket)])
    assert plan(from_rows, catalogue, tickets_per_hour=10).usd_per_1000.value == pytest.approx(
        plan(from_outcome, catalogue, tickets_per_hour=10).usd_per_1000.value
    )


def test_retries_of_a_bulk_run_are_no_calls(bedrock, a_ticket):
    (row,) = run_bulk(standard_strategies(bedrock)["cheap-only"], [a_ticket])
    throttled = row.model_copy(update={"attempts": 5})
    assert [call.calls for call in Traffic.of([throttled]).of_tier(row.tier)] == [1]
    voted = throttled.model_copy(update={"agreement": 0.8})
    assert [call.calls for call in Traffic.of([voted]).of_tier(row.tier)] == [5]


def test_of_one_family_the_bill_has_no_interval_and_says_so(traffic, catalogue):
    found = plan(replace(traffic, families=dict.fromkeys(traffic.tickets, "one")), catalogue, tickets_per_hour=3_600)
    assert "a month [not known: all tickets are of one family]" in str(found)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["month_usd"][1:] == [None, None]


def test_without_a_call_there_is_nothing_to_plan_from():
    with pytest.raises(ValueError, match="nothing to plan from"):
        Traffic.of([])


# Quotas of the account

LISTED = {
    "Cross-region model inference tokens per minute for Anthropic Claude Sonnet 4.6 V1": 1e6,
    "Cross-region model inference requests per minute for Anthropic Claude Sonnet 4.6 V1": 200,
    "Global cross-region model inference tokens per minute for Anthropic Claude Sonnet 4.6 V1": 3e6,
    "Cross-region model inference tokens per minute for Anthropic Claude Sonnet 4 V1": 7,
    "Model invocation max tokens per day for Anthropic Claude Sonnet 4.6 V1 (doubled for cross-region calls)": 7.2e8,
    "Global cross-region model inference tokens per day for Anthropic Claude Sonnet 4.6": 4e8,
    "Cross-region model inference tokens per minute for Anthropic Claude Sonnet 4.6 V1 1M Context Length": 2e4,
    "Model invocation max tokens per day for Anthropic Claude Sonnet 4.6 V1 1M Context Length (doubled for cross-region calls)": 8,
    "On-Demand, latency-optimized model inference tokens per minute for NVIDIA Nemotron Nano 3 30B": 9,
    "On-demand model inference tokens per minute for NVIDIA Nemotron Nano 3 30B": 5e5,
    "Minimum number of records per batch inference job for Claude Sonnet 4.6": 100,
}


def test_a_quota_is_found_by_model_version_and_scope(catalogue):
    assert quota_of(catalogue["strong"], LISTED) == Quota(200, 1e6, 1.44e9)
    assert quota_of(catalogue["cheap"], LISTED) == Quota(tokens_per_minute=5e5)
    assert quota_of(Catalogue.load(scope="global")["strong"], LISTED) == Quota(None, 3e6, 4e8)
    assert quota_of(catalogue["claude-haiku-4-5"], LISTED) == Quota()


def test_a_daily_quota_is_doubled_for_cross_region_calls_alone(catalogue):
    daily = {"Model invocation max tokens per day for Claude Sonnet 4.6 V1 (doubled for cross-region calls)": 5.0}
    assert quota_of(catalogue["strong"], daily).tokens_per_day == 10
    assert quota_of(replace(catalogue["strong"], scope="on-demand"), daily).tokens_per_day == 5
    assert quota_of(Catalogue.load(scope="global")["strong"], daily) == Quota()


@pytest.fixture
def service_quotas(_boto_session):
    return _boto_session.client("service-quotas")


def test_where_the_accounts_own_quotas_cannot_be_listed_aws_defaults_count(catalogue, service_quotas):
    with Stubber(service_quotas) as stub:
        stub.add_client_error("list_service_quotas", "AccessDeniedException")
        rows = [{"QuotaName": name, "Value": value} for name, value in LISTED.items()]
        stub.add_response("list_aws_default_service_quotas", {"Quotas": rows}, {"ServiceCode": "bedrock"})
        assert read_quotas(service_quotas, [catalogue["strong"]])["claude-sonnet-4-6"].tokens_per_minute == 1e6


def test_an_applied_quota_wins_over_the_default(catalogue, service_quotas):
    name = "Cross-region model inference tokens per minute for Anthropic Claude Sonnet 4.6 V1"
    with Stubber(service_quotas) as stub:
        stub.add_response("list_service_quotas", {"Quotas": [{"QuotaName": name, "Value": 5e6}]})
        stub.add_response("list_aws_default_service_quotas", {"Quotas": [{"QuotaName": name, "Value": 1e6}]})
        assert read_quotas(service_quotas, [catalogue["strong"]])["claude-sonnet-4-6"].tokens_per_minute == 5e6


@mock_aws
def test_a_region_without_bedrock_quotas_is_an_error_not_a_guess(catalogue, service_quotas):
    with pytest.raises((botocore.exceptions.ClientError, NotImplementedError)):
        read_quotas(service_quotas, [catalogue["strong"]])


# Very many tickets


def points(found, name):
    return {p.n: p for way in found.ways if way.name == name for p in way.points}


def test_without_a_quota_a_cluster_is_quicker_by_its_processes(traffic, catalogue):
    found = scale_plan(traffic, catalogue)
    one, many = points(found, "one process")[10**9], points(found, "Dask")[10**9]
    assert one.limit == many.limit == "calls in flight"
    assert one.hours == pytest.approx(10**9 / (256 / (0.7 + 3.4 / 4)) / 3_600)
    assert one.hours / many.hours == pytest.approx(16, rel=0.01)


def test_where_the_processor_is_the_limit_a_cluster_loses_its_overhead(traffic, catalogue):
    slow = Means(calls_per_core_s=Constant(10, "calls/s", "a test"))
    found = scale_plan(traffic, catalogue, means=slow)
    one, many = points(found, "one process")[10**9], points(found, "Dask")[10**9]
    assert one.limit == many.limit == "CPU"
    assert one.hours == pytest.approx(10**9 * 1.25 / 10 / 3_600)
    assert one.hours / many.hours == pytest.approx(16 * 0.92, rel=0.01)


def test_under_a_quota_a_cluster_buys_nothing(traffic, catalogue):
    found = scale_plan(traffic, catalogue, quotas={"strong": Quota(tokens_per_minute=42_075)})
    one, many = points(found, "one process")[10**6], points(found, "Dask")[10**6]
    assert one.limit == "quota: tokens per minute of strong"
    assert one.hours == pytest.approx(10**6 / 3_600)
    assert many.hours > one.hours
    assert "It buys nothing" in found.ways[1].sentence


def test_batch_is_half_the_price_only_where_a_batch_price_is_listed(traffic, catalogue):
    found = scale_plan(traffic, catalogue)
    cheap = 10**6 * catalogue["cheap"].cost(Usage(1_259, 110))
    strong = 10**6 / 4 * catalogue["strong"].cost(Usage(1_650, 231))
    at = points(found, "Bedrock batch")[10**6]
    assert at.usd == pytest.approx(cheap / 2 + strong)
    assert "strong on demand (no batch price)" in at.limit
    assert "No batch price is listed for Claude Sonnet 4.6" in found.ways[2].sentence
    both = traffic.with_models({"strong": "nemotron-super-3"}, catalogue)
    halved = scale_plan(both, catalogue)
    assert points(halved, "Bedrock batch")[10**6].usd == pytest.approx(points(halved, "one process")[10**6].usd / 2)
    assert points(halved, "Bedrock batch")[10**6].limit == "batch turnaround"


def test_batch_jobs_beyond_those_at_once_wait_for_another_turn(traffic, catalogue):
    both = traffic.with_models({"strong": "nemotron-super-3"}, catalogue)
    hours = {n: p.hours for n, p in points(scale_plan(both, catalogue), "Bedrock batch").items()}
    assert hours[10**6] == 48  # a turn a tier
    assert hours[10**7] == 24 * (10 + 3)  # 200 and 50 jobs, 20 at once


def test_below_a_jobs_fewest_records_a_tier_is_asked_on_demand(traffic, catalogue):
    found = scale_plan(traffic.with_models({"strong": "nemotron-super-3"}, catalogue), catalogue, sizes=[200])
    assert "strong on demand (too few records)" in points(found, "Bedrock batch")[200].limit


def test_the_cheapest_way_within_the_deadline_is_named(traffic, catalogue):
    both = traffic.with_models({"strong": "nemotron-super-3"}, catalogue)
    assert scale_plan(both, catalogue, sizes=[10**5], deadline_h=48).best[10**5] == "Bedrock batch"
    assert scale_plan(both, catalogue, sizes=[10**5], deadline_h=12).best[10**5] == "one process"
    assert scale_plan(both, catalogue, sizes=[10**12], deadline_h=12).best[10**12] == ""


def test_a_saving_of_a_percent_is_not_worth_a_day(traffic, catalogue):
    found = scale_plan(traffic, catalogue, sizes=[10**5])
    assert points(found, "Bedrock batch")[10**5].usd < points(found, "one process")[10**5].usd
    assert found.best[10**5] == "one process"


def test_a_tier_that_stays_on_demand_waits_for_its_own_quota(traffic, catalogue):
    found = scale_plan(traffic, catalogue, quotas={"strong": Quota(tokens_per_minute=42_075)})
    at = points(found, "Bedrock batch")[10**6]
    assert at.hours == pytest.approx(24 + 10**6 / 3_600)
    assert "by quota: tokens per minute of strong" in at.limit


def test_machines_that_cost_money_are_on_the_bill(traffic, catalogue):
    paid = Means(machine_usd_per_hour=Constant(1.0, "USD", "ours"))
    free, dear = scale_plan(traffic, catalogue), scale_plan(traffic, catalogue, means=paid)
    many = points(dear, "Dask")[10**6]
    assert many.usd - points(free, "Dask")[10**6].usd == pytest.approx(4 * many.hours)


def test_every_constant_says_where_it_comes_from():
    assert all(c.source and c.unit for c in vars(Means()).values())


def test_a_short_run_measures_the_rate_of_one_core(bedrock):
    found = calls_per_core_s(bedrock, calls=5, workers=2)
    assert found.value > 0
    assert "measured here: 5 calls" in found.source


def test_the_chart_tells_its_finding_and_its_numbers(traffic, catalogue):
    chart = scale_chart(scale_plan(traffic, catalogue, quotas={"strong": Quota(tokens_per_minute=1e6)}))
    assert "Within 48 h: one process up to" in chart.alt
    assert "1,000,000,000 tickets" in chart.alt
    assert "waits for" in chart.table
    assert chart.png.startswith(b"\x89PNG")


# The program


@pytest.fixture
def program(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["workshop", "plan", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, capsys.readouterr()

    return run


def test_the_program_plans_from_the_recorded_run(program):
    code, out = program("--tickets-per-hour", "5000", "--quota", "strong:tokens_per_minute=200000", "--json")
    found = json.loads(out.out)
    assert code == 0
    assert found["binding"]["tier"] == "strong"
    assert found["n"] == 112
    assert found["month_usd"][1] < found["month_usd"][0] < found["month_usd"][2]


def test_the_program_names_what_it_does_not_understand(program):
    code, out = program("--tickets-per-hour", "5000", "--quota", "strong=5")
    assert code == 2
    assert "strong:tokens_per_minute" in out.err
