"""The catalogue: roles, ids, scopes, and exact cost."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from workshop_lib.bedrock.catalogue import ROLES, Catalogue, Price, Usage
from workshop_lib.bedrock.errors import ConfigurationError, UnknownModel
from workshop_lib.bedrock.settings import PROJECT

PAIRS = {
    "nemotron-sonnet": ("nemotron-nano-3", "claude-sonnet-4-6", "claude-opus-4-7", "nemotron-nano-3"),
    "haiku-sonnet": ("claude-haiku-4-5", "claude-sonnet-4-6", "claude-opus-4-7", "claude-haiku-4-5"),
    "haiku-sonnet-5-5": ("claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5", "claude-haiku-5-5"),
}
ALL = Usage(input_tokens=1, output_tokens=1, cache_read_tokens=1, cache_write_tokens=2, cache_write_1h_tokens=1)


# Names


@pytest.mark.parametrize(("pair", "keys"), PAIRS.items(), ids=PAIRS)
def test_each_pair_has_its_roles(pair, keys):
    catalogue = Catalogue.load(pair=pair)
    assert tuple(catalogue[role].key for role in ROLES) == keys


def test_no_pair_of_the_file_is_untested(catalogue):
    assert set(catalogue.pairs) == set(PAIRS)


def test_without_a_choice_the_pair_is_nemotron_and_sonnet(catalogue):
    assert catalogue.pair == "nemotron-sonnet"


def test_an_unknown_pair_names_the_choices():
    with pytest.raises(UnknownModel, match="haiku-sonnet-5-5") as refused:
        Catalogue.load(pair="lama-llama")
    assert "WORKSHOP_PAIR" in refused.value.advice


def test_an_unknown_model_names_roles_and_keys(catalogue):
    with pytest.raises(UnknownModel, match="'strnog'") as refused:
        catalogue["strnog"]
    assert all(word in refused.value.advice for word in (*ROLES, *catalogue.models))


def test_a_model_is_found_by_each_of_its_names(catalogue):
    for spec in catalogue:
        arn = f"arn:aws:bedrock:us-west-2:123456789012:inference-profile/{spec.id}"
        assert {catalogue[name].key for name in (spec.key, spec.base_id, spec.id, arn)} == {spec.key}


def test_an_id_of_another_scope_has_the_price_of_that_scope(catalogue):
    spec = catalogue["strong"]
    assert catalogue["global.anthropic.claude-sonnet-4-6"].price == spec.prices["global"] != spec.price


def test_an_id_that_is_not_in_the_catalogue_is_nobodys(catalogue):
    assert catalogue.by_id("us.anthropic.claude-0") is None


def test_the_catalogue_can_be_counted_and_walked(catalogue):
    assert [spec.key for spec in catalogue] == list(catalogue.models)
    assert len(catalogue) == len(catalogue.models)


# Scopes


def test_the_scope_chooses_id_and_price():
    us, world = Catalogue.load(scope="us")["strong"], Catalogue.load(scope="global")["strong"]
    assert (us.id, world.id) == ("us.anthropic.claude-sonnet-4-6", "global.anthropic.claude-sonnet-4-6")
    assert (us.price.input, world.price.input) == (Decimal("3.30"), Decimal("3.00"))


def test_us_profiles_cost_a_tenth_more_in_every_counter(catalogue):
    for spec in catalogue:
        if "global" in spec.prices:
            us, world = spec.prices["us"], spec.prices["global"]
            for name in Price.__dataclass_fields__:
                assert getattr(us, name) == getattr(world, name) * Decimal("1.1"), (spec.key, name)


def test_a_model_on_demand_ignores_the_scope():
    assert Catalogue.load(scope="global")["cheap"].id == "nvidia.nemotron-nano-3-30b"


# Cost


def test_a_price_counts_every_counter_exactly():
    price = Price(*map(Decimal, ("1", "10", "100", "1000", "10000")))
    assert price.cost(ALL) == Decimal("0.011111")


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (Usage(input_tokens=1_650, output_tokens=231), "0.0092565"),
        (Usage(cache_read_tokens=3_000), "0.00099"),
        (Usage(cache_write_tokens=3_000), "0.012375"),
        (Usage(cache_write_tokens=3_000, cache_write_1h_tokens=3_000), "0.0198"),
        (Usage(100, 50, 2_000, 1_000, 400), "0.006930"),
    ],
    ids=["uncached", "cache read", "5-minute write", "1-hour write", "all together"],
)
def test_a_call_of_sonnet_costs_exactly(catalogue, usage, usd):
    assert catalogue["claude-sonnet-4-6"].cost(usage) == float(usd)


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (Usage(input_tokens=100_000, output_tokens=1_000), "0.01155"),
        (Usage(input_tokens=100_001, output_tokens=1_000), "0.05775055"),
        (Usage(input_tokens=1, cache_read_tokens=100_000), "0.00550055"),
        (Usage(input_tokens=1, cache_write_tokens=100_000), "0.06875055"),
    ],
    ids=["just not long", "one token too long", "long by cached tokens", "long by written tokens"],
)
def test_a_long_prompt_of_haiku_5_5_costs_five_times(catalogue, usage, usd):
    assert catalogue["claude-haiku-5-5"].cost(usage) == float(usd)


def test_money_is_not_rounded_on_the_way(catalogue):
    assert catalogue["cheap"].cost(Usage(input_tokens=1)) == 6e-8


def test_a_batch_job_of_nemotron_costs_half(catalogue):
    usage = Usage(input_tokens=1_259, output_tokens=110)
    assert catalogue["cheap"].cost(usage, batch=True) == float("0.00005097")
    assert catalogue["cheap"].cost(usage) == float("0.00010194")


def test_in_a_batch_job_every_prompt_token_is_input(catalogue):
    haiku = catalogue["claude-haiku-4-5"]
    assert haiku.cost(Usage(0, 0, 6_000, 4_000), batch=True) == haiku.cost(Usage(10_000), batch=True) == 0.0055


def test_where_no_batch_price_is_listed_none_is_made_up(catalogue):
    assert {spec.key for spec in catalogue if spec.batch_price} == {
        "nemotron-nano-3",
        "nemotron-super-3",
        "claude-haiku-4-5",
    }
    with pytest.raises(ConfigurationError, match=r"No batch price is listed for Claude Sonnet 4\.6"):
        catalogue["strong"].cost(Usage(1), batch=True)


def test_a_batch_price_is_half_the_price(catalogue):
    for spec in catalogue:
        for scope, batch in spec.batch_prices.items():
            assert (batch.input * 2, batch.output * 2) == (spec.prices[scope].input, spec.prices[scope].output)


def test_an_output_token_of_claude_takes_five_of_the_quota(catalogue):
    assert {spec.key.split("-")[0]: spec.burndown for spec in catalogue} == {"nemotron": 1.0, "claude": 5.0}


# Usage


def test_usage_adds_up():
    assert sum([ALL, ALL, Usage(input_tokens=5)], Usage()) == Usage(7, 2, 2, 4, 2)


def test_prompt_tokens_are_all_that_went_in():
    assert Usage(1, 1_000, 10, 100, 100).prompt_tokens == 111


def test_usage_is_read_from_the_wire():
    wire = {
        "inputTokens": 1,
        "outputTokens": 2,
        "totalTokens": 110,
        "cacheReadInputTokens": 7,
        "cacheWriteInputTokens": 100,
        "cacheDetails": [{"ttl": "1h", "inputTokens": 60}, {"ttl": "5m", "inputTokens": 40}],
    }
    assert Usage.from_wire(wire) == Usage(1, 2, 7, 100, 60)


def test_absent_counters_are_zero():
    assert Usage.from_wire({}) == Usage()


# The file


@pytest.fixture
def load_changed(tmp_path):
    def load(change) -> Catalogue:
        raw = json.loads((PROJECT / "data" / "models.json").read_text(encoding="utf-8"))
        file = tmp_path / "models.json"
        file.write_text(json.dumps(change(raw)), encoding="utf-8")
        return Catalogue.load(file)

    return load


def _priced(raw: dict, **price: str) -> dict:
    raw["models"]["nemotron-nano-3"]["prices"]["on-demand"] = price
    return raw


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: {k: v for k, v in raw.items() if k != "pairs"},
        lambda raw: _priced(raw, input="cheap", output="1"),
        lambda raw: [raw],
        lambda raw: _priced(raw, input="1"),
        lambda raw: {**raw, "pairs": {"nemotron-sonnet": {"cheap": "gone"}}},
    ],
    ids=["no pairs", "a price that is no number", "a list", "half a price", "a pair of nobody"],
)
def test_a_broken_catalogue_is_a_configuration_error(load_changed, change):
    with pytest.raises(ConfigurationError, match=r"models\.json"):
        load_changed(change)


def test_a_missing_catalogue_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigurationError, match="FileNotFoundError"):
        Catalogue.load(tmp_path / "models.json")
