"""Quotas that reserve and settle, and the prompt cache: by an injected clock, first alone and then over the wire."""

from __future__ import annotations

import pytest

from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.bedrock.pacing import Quota
from workshop_lib.local.metering import PromptCache, Quotas, Segment
from workshop_lib.local.wire import ServiceError

NANO = "nvidia.nemotron-nano-3-30b"
SONNET = "us.anthropic.claude-sonnet-4-6"
HAIKU = "us.anthropic.claude-haiku-4-5-20251001-v1:0"


@pytest.fixture
def quotas(clock):
    return Quotas(clock)


@pytest.fixture
def cache(clock):
    return PromptCache(clock)


@pytest.fixture
def sonnet(catalogue):
    return catalogue["claude-sonnet-4-6"]


# Quotas


def test_without_a_quota_nothing_is_reserved(quotas, sonnet):
    assert quotas.reserve(sonnet, 10**9, None) == 0


@pytest.mark.parametrize(
    ("quota", "words"),
    [
        (Quota(requests_per_minute=1), "Too many requests, please wait before trying again."),
        (Quota(tokens_per_minute=1_500), "Too many tokens, please wait before trying again."),
        (Quota(tokens_per_day=1_500), "Too many tokens per day, please wait before trying again."),
        (Quota(1, 1_500, 1_500), "Too many tokens per day, please wait before trying again."),
    ],
    ids=["requests", "tokens", "tokens per day", "the day before all others"],
)
def test_the_refusal_says_which_limit_is_reached(quotas, sonnet, quota, words):
    quotas.set(sonnet.key, quota)
    quotas.reserve(sonnet, 500, 500)
    with pytest.raises(ServiceError) as refused:
        quotas.reserve(sonnet, 500, 500)
    assert (refused.value.code, refused.value.message) == ("ThrottlingException", words)


def test_a_refused_call_takes_nothing(quotas, sonnet):
    quotas.set(sonnet.key, Quota(requests_per_minute=2, tokens_per_minute=1_000))
    for _ in range(5):
        with pytest.raises(ServiceError):
            quotas.reserve(sonnet, 1_000, 1)
    assert quotas.reserve(sonnet, 500, 500) == 1_000


def test_an_unset_max_tokens_reserves_the_models_maximum(quotas, sonnet):
    quotas.set(sonnet.key, Quota(tokens_per_minute=10**6))
    assert quotas.reserve(sonnet, 100, None) == 100 + sonnet.max_output_tokens


def test_a_minutes_allowance_comes_back_with_time(quotas, sonnet, clock):
    quotas.set(sonnet.key, Quota(requests_per_minute=60))
    for _ in range(60):
        quotas.reserve(sonnet, 1, 1)
    with pytest.raises(ServiceError):
        quotas.reserve(sonnet, 1, 1)
    clock.advance(1)
    quotas.reserve(sonnet, 1, 1)
    with pytest.raises(ServiceError):
        quotas.reserve(sonnet, 1, 1)


def test_a_days_allowance_does_not_come_back_in_a_minute(quotas, sonnet, clock):
    quotas.set(sonnet.key, Quota(tokens_per_day=1_000))
    quotas.reserve(sonnet, 500, 500)
    clock.advance(60)
    with pytest.raises(ServiceError, match="per day"):
        quotas.reserve(sonnet, 50, 50)
    clock.advance(86_400)
    quotas.reserve(sonnet, 500, 500)


def test_burst_seconds_bound_what_may_be_used_at_once(quotas, sonnet):
    quotas.set(sonnet.key, Quota(requests_per_minute=60, burst_seconds=2))
    quotas.reserve(sonnet, 1, 1)
    quotas.reserve(sonnet, 1, 1)
    with pytest.raises(ServiceError, match="Too many requests"):
        quotas.reserve(sonnet, 1, 1)


def _left(quotas, spec) -> int:
    """Tokens that can still be reserved, found by bisection; nothing is taken."""
    low, high = 0, 10**7
    while low < high:
        middle = (low + high + 1) // 2
        try:
            taken = quotas.reserve(spec, middle, 0)
        except ServiceError:
            high = middle - 1
        else:
            low = middle
            quotas.settle(spec, taken, Usage())
    return low


def test_settling_counts_an_output_token_of_claude_five_times(quotas, sonnet):
    quotas.set(sonnet.key, Quota(tokens_per_minute=10_000))
    reserved = quotas.reserve(sonnet, 1_000, 5_000)
    assert _left(quotas, sonnet) == 4_000
    quotas.settle(sonnet, reserved, Usage(input_tokens=1_000, output_tokens=100))
    assert _left(quotas, sonnet) == 10_000 - 1_000 - 5 * 100


def test_settling_counts_an_output_token_of_nemotron_once(quotas, catalogue):
    nano = catalogue["nemotron-nano-3"]
    quotas.set(nano.key, Quota(tokens_per_minute=10_000))
    quotas.settle(nano, quotas.reserve(nano, 1_000, 5_000), Usage(input_tokens=1_000, output_tokens=100))
    assert _left(quotas, nano) == 10_000 - 1_000 - 100


def test_cache_reads_take_no_quota_but_writes_do(quotas, sonnet):
    quotas.set(sonnet.key, Quota(tokens_per_minute=10_000))
    used = Usage(input_tokens=100, cache_read_tokens=3_000, cache_write_tokens=400)
    quotas.settle(sonnet, quotas.reserve(sonnet, 3_500, 100), used)
    assert _left(quotas, sonnet) == 10_000 - 100 - 400


def test_a_settlement_may_be_dearer_than_its_reservation(quotas, sonnet, clock):
    quotas.set(sonnet.key, Quota(tokens_per_minute=6_000))
    quotas.settle(sonnet, quotas.reserve(sonnet, 0, 1_400), Usage(output_tokens=1_400))  # 7,000 of 6,000
    clock.advance(10)
    assert _left(quotas, sonnet) == 0
    clock.advance(10)
    assert _left(quotas, sonnet) == pytest.approx(1_000, abs=1)


def test_each_model_has_its_own_quota(quotas, sonnet, catalogue):
    quotas.set(sonnet.key, Quota(requests_per_minute=1))
    quotas.reserve(sonnet, 1, 1)
    assert quotas.reserve(catalogue["nemotron-nano-3"], 1, 1) == 0


def test_on_the_wire_max_tokens_decides_what_is_reserved(endpoint, boto, ask):
    endpoint.quotas.set("nemotron-nano-3", Quota(tokens_per_minute=7_000))
    with pytest.raises(boto.exceptions.ThrottlingException, match="Too many tokens, "):
        ask()  # the model's maximum is 8,000
    assert ask(inferenceConfig={"maxTokens": 100})["stopReason"] == "end_turn"


def test_on_the_wire_a_call_gives_back_what_it_did_not_use(endpoint, ask):
    endpoint.quotas.set("nemotron-nano-3", Quota(tokens_per_minute=1_000))
    for _ in range(4):  # each reserves over 500 and uses some 90
        ask(inferenceConfig={"maxTokens": 500})


def test_a_refused_request_keeps_no_reservation(endpoint, boto, ask):
    endpoint.quotas.set("nemotron-nano-3", Quota(tokens_per_minute=1_000))
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tools = {"tools": [{"toolSpec": {"name": "t", "inputSchema": {"json": schema}}}]}
    for _ in range(4):
        with pytest.raises(boto.exceptions.ValidationException):
            ask(toolConfig=tools, inferenceConfig={"maxTokens": 700})


# The prompt cache


def _counted(cache, spec, *segments: Segment) -> tuple[int, int, int]:
    counters = cache.count(spec, [*segments, Segment(10, "all of it", None)])
    return counters["inputTokens"], counters["cacheReadInputTokens"], counters["cacheWriteInputTokens"]


def test_a_prefix_below_the_minimum_is_silently_not_cached(cache, sonnet):
    short = Segment(sonnet.cache_minimum_tokens - 1, "short", "5m")
    assert [_counted(cache, sonnet, short) for _ in range(2)] == [(short.tokens + 10, 0, 0)] * 2


def test_a_prefix_is_written_once_and_then_read(cache, sonnet):
    prefix = Segment(sonnet.cache_minimum_tokens, "prefix", "5m")
    seen = [_counted(cache, sonnet, prefix) for _ in range(3)]
    assert seen == [(10, 0, prefix.tokens), (10, prefix.tokens, 0), (10, prefix.tokens, 0)]


@pytest.mark.parametrize(("ttl", "seconds"), [("5m", 300), ("1h", 3_600)])
def test_a_prefix_is_forgotten_after_its_ttl(cache, sonnet, clock, ttl, seconds):
    prefix = Segment(5_000, f"prefix {ttl}", ttl)
    _counted(cache, sonnet, prefix)
    clock.advance(seconds - 1)
    assert _counted(cache, sonnet, prefix) == (10, 5_000, 0)
    clock.advance(seconds - 1)  # the read has renewed it
    assert _counted(cache, sonnet, prefix) == (10, 5_000, 0)
    clock.advance(seconds + 1)
    assert _counted(cache, sonnet, prefix) == (10, 0, 5_000)


def test_what_was_written_is_told_by_ttl(cache, sonnet):
    counters = cache.count(sonnet, [Segment(3_000, "tools", "1h"), Segment(1_000, "system", "5m")])
    assert counters["cacheDetails"] == [{"ttl": "1h", "inputTokens": 3_000}, {"ttl": "5m", "inputTokens": 1_000}]
    usage = Usage.from_wire(counters)
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (4_000, 3_000)


def test_a_known_prefix_is_read_and_only_the_rest_is_written(cache, sonnet):
    _counted(cache, sonnet, Segment(3_000, "tools", "5m"))
    assert _counted(cache, sonnet, Segment(3_000, "tools", "5m"), Segment(700, "more", "5m")) == (10, 3_000, 700)


def test_each_model_has_its_own_cache(cache, sonnet, catalogue):
    prefix = Segment(5_000, "prefix", "5m")
    _counted(cache, sonnet, prefix)
    assert _counted(cache, catalogue["claude-opus-4-7"], prefix) == (10, 0, 5_000)


def test_a_model_without_a_cache_has_no_cache_counters(cache, catalogue):
    assert cache.count(catalogue["nemotron-nano-3"], [Segment(9, "x", None)]) == {"inputTokens": 9}


LONG = "Quillbay answers tickets by these rules, and nothing else counts. " * 450


def _usage(ask, system: str = LONG, model_id: str = SONNET, **point: str) -> tuple[int, int]:
    blocks = [{"text": system}, {"cachePoint": {"type": "default", **point}}]
    usage = ask(modelId=model_id, system=blocks, inferenceConfig={"maxTokens": 200})["usage"]
    spent = usage["inputTokens"] + usage["outputTokens"]
    assert usage["totalTokens"] == spent + usage["cacheReadInputTokens"] + usage["cacheWriteInputTokens"]
    return usage["cacheReadInputTokens"], usage["cacheWriteInputTokens"]


def test_on_the_wire_a_prefix_is_written_then_read_then_expires(ask, clock):
    _, written = _usage(ask)
    assert written > 2_048
    assert _usage(ask) == (written, 0)
    clock.advance(301)
    assert _usage(ask) == (0, written)


def test_on_the_wire_the_hour_is_told_and_kept(ask, clock):
    blocks = [{"text": LONG}, {"cachePoint": {"type": "default", "ttl": "1h"}}]
    usage = ask(modelId=SONNET, system=blocks)["usage"]
    assert usage["cacheDetails"] == [{"ttl": "1h", "inputTokens": usage["cacheWriteInputTokens"]}]
    clock.advance(3_500)
    assert _usage(ask, ttl="1h") == (usage["cacheWriteInputTokens"], 0)


def test_on_the_wire_the_minimum_differs_by_model(ask):
    between = LONG[: len(LONG) // 3]  # above Sonnet's 2,048, below Haiku's 4,096
    assert _usage(ask, between)[1] > 2_048
    assert _usage(ask, between, HAIKU) == (0, 0)


def test_on_the_wire_a_changed_prefix_is_another_one(ask):
    _usage(ask)
    read, written = _usage(ask, "Now: " + LONG)
    assert (read, written > 0) == (0, True)


def test_cached_and_uncached_tokens_add_up_to_the_same_prompt(ask):
    plain = ask(modelId=SONNET, system=[{"text": LONG}])["usage"]["inputTokens"]
    blocks = [{"text": LONG}, {"cachePoint": {"type": "default"}}]
    usage = ask(modelId=SONNET, system=blocks)["usage"]
    assert usage["inputTokens"] + usage["cacheWriteInputTokens"] == plain
