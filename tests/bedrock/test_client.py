"""The client over real HTTP: what is sent, who retries what, and which surroundings it must withstand."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.waiting import wait_until
from workshop_lib.bedrock import errors
from workshop_lib.bedrock.client import Tool, default_client, set_default_client
from workshop_lib.bedrock.settings import Settings
from workshop_lib.local.faults import Fault
from workshop_lib.triage.task import TRIAGE

NANO = "nvidia.nemotron-nano-3-30b"
DAILY = "Too many tokens per day, please wait before trying again."
NOTE = Tool(
    "note", "Note the mood.", {"type": "object", "properties": {"mood": {"enum": ["calm"]}}, "required": ["mood"]}
)


@pytest.fixture
def live(endpoint):
    """Settings of the live door whose calls still stay on loopback."""

    def live(**options) -> Settings:
        return Settings(mode="live", endpoint_url=endpoint.url, **options)

    return live


# One call


def test_one_converse_is_one_http_request(bedrock, endpoint):
    reply = bedrock.converse("cheap", "The export fails.", max_tokens=200)
    assert reply.attempts == len(endpoint.journal) == endpoint.journal.calls == 1


def test_a_reply_costs_what_the_endpoint_noted(bedrock, endpoint):
    replies = [bedrock.converse(model, "The export fails.") for model in ("cheap", "strong", "judge")]
    assert sum(reply.cost_usd for reply in replies) == pytest.approx(endpoint.journal.cost_usd, abs=1e-15)
    assert [reply.model for reply in replies] == ["nemotron-nano-3", "claude-sonnet-4-6", "claude-opus-4-7"]


def test_a_tool_is_forced(bedrock):
    reply = bedrock.converse("strong", "hello", tool=NOTE)
    assert (reply.data, reply.came_as, reply.stop_reason) == ({"mood": "calm"}, "tool", "tool_use")


def test_a_conversation_may_be_given_instead_of_a_text(bedrock):
    conversation = [{"role": "user", "content": [{"text": "The export fails."}]}]
    assert bedrock.converse("cheap", conversation).message == bedrock.converse("cheap", "The export fails.").message


def test_a_temperature_is_not_sent_to_a_model_that_refuses_it(bedrock):
    assert bedrock.converse("judge", "hello", temperature=0.5).stop_reason == "end_turn"


def test_max_tokens_is_always_sent(bedrock):
    assert bedrock.converse("strong", "hello", max_tokens=7).usage.output_tokens == 7


def test_further_fields_go_out_as_they_are(bedrock):
    with pytest.raises(errors.InvalidRequest, match="enum value set"):
        bedrock.converse("cheap", "hello", extra={"serviceTier": {"type": "turbo"}})


def test_a_cache_point_is_written_and_then_read(bedrock, catalogue):
    system = [{"text": "Answer tickets by the rules. " * 700}, {"cachePoint": {"type": "default", "ttl": "1h"}}]
    first, second = (bedrock.converse("strong", "hello", system=system).usage for _ in range(2))
    assert first.cache_write_tokens == first.cache_write_1h_tokens == second.cache_read_tokens > 2_048


def test_the_guardrail_of_the_settings_is_attached_to_every_call(make_bedrock, endpoint):
    guarded = make_bedrock(
        Settings(mode="local", endpoint_url=endpoint.url, guardrail_id="workshop", guardrail_version="1")
    )
    assert guarded.converse("cheap", "this is forbidden").blocked
    *_, finished = guarded.stream("cheap", "this is forbidden")
    assert finished.reply.blocked
    assert "inputAssessment" in finished.reply.trace["guardrail"]


def test_counted_tokens_are_the_ones_that_are_billed(bedrock, a_ticket):
    told = {"system": TRIAGE.system, "tool": TRIAGE.tool}
    counted = bedrock.count_tokens("strong", TRIAGE.describe(a_ticket), **told)
    assert counted == bedrock.converse("strong", TRIAGE.describe(a_ticket), **told).usage.input_tokens


def test_an_unknown_model_is_refused_before_anything_is_sent(bedrock, endpoint):
    with pytest.raises(errors.UnknownModel):
        bedrock.converse("strnog", "hello")
    assert len(endpoint.journal) == 0


# Clients


def test_each_model_has_one_client_of_its_own(bedrock):
    cheap, strong = bedrock.client("cheap"), bedrock.client("strong")
    assert cheap is bedrock.client("nemotron-nano-3") is bedrock.client("classifier")
    assert strong is bedrock.client("claude-sonnet-4-6") is not cheap


def test_many_threads_share_one_client(bedrock, endpoint):
    texts = ["Please refund our last invoice.", "I cannot sign in with my password."]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda n: bedrock.converse("cheap", texts[n % 2]), range(24)))
    assert len({str(reply.message) for reply in replies}) == 2
    assert endpoint.journal.calls == 24


def test_the_default_client_is_the_one_opened_last(make_bedrock):
    first, second = make_bedrock(), make_bedrock()
    set_default_client(first, opened=True)
    set_default_client(second, opened=True)
    assert default_client() is second
    set_default_client(second, opened=False)
    assert default_client() is first
    set_default_client(first, opened=False)


# Who retries what

OURS = {
    "ModelTimeoutException": errors.ModelTimeout,
    "ModelErrorException": errors.ModelFailed,
    "ModelStreamErrorException": errors.StreamBroken,
}
BOTOCORES = {
    "ServiceUnavailableException": errors.ServiceFault,
    "InternalServerException": errors.ServiceFault,
    "ThrottlingException": errors.Throttled,
    "ModelNotReadyException": errors.ServiceFault,
}
NOBODYS = {
    "ValidationException": errors.InvalidRequest,
    "AccessDeniedException": errors.AccessDenied,
    "ResourceNotFoundException": errors.ModelNotFound,
    "ServiceQuotaExceededException": errors.QuotaExceeded,
    "ConflictException": errors.Conflict,
    "ExpiredTokenException": errors.CredentialsError,
}


def _failed(bedrock, kind: type[errors.BedrockError]) -> errors.BedrockError:
    with pytest.raises(kind) as raised:
        bedrock.converse("cheap", "hello")
    assert type(raised.value) is kind
    return raised.value


@pytest.mark.parametrize(("code", "kind"), OURS.items(), ids=OURS)
def test_what_botocore_never_retries_is_retried_by_us_alone(make_bedrock, endpoint, no_backoff, code, kind):
    endpoint.faults.add(Fault(code))
    error = _failed(make_bedrock(own_attempts=3, max_attempts=4), kind)
    assert error.attempts == len(endpoint.journal) == 3
    assert endpoint.journal.calls == 3  # each try of ours is a boto3 call of its own: botocore repeated none


@pytest.mark.parametrize(("code", "kind"), BOTOCORES.items(), ids=BOTOCORES)
def test_what_botocore_retries_is_never_retried_by_us(make_bedrock, endpoint, no_backoff, code, kind):
    endpoint.faults.add(Fault(code))
    error = _failed(make_bedrock(own_attempts=3, max_attempts=2), kind)
    assert error.attempts == len(endpoint.journal) == 2
    assert endpoint.journal.calls == 1


@pytest.mark.parametrize(("code", "kind"), NOBODYS.items(), ids=NOBODYS)
def test_what_cannot_get_better_is_retried_by_nobody(bedrock, endpoint, code, kind):
    endpoint.faults.add(Fault(code))
    assert _failed(bedrock, kind).attempts == len(endpoint.journal) == 1


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda bedrock: bedrock.converse("cheap", "hello"), id="converse"),
        pytest.param(lambda bedrock: list(bedrock.stream("cheap", "hello")), id="stream"),
    ],
)
def test_a_daily_quota_is_never_retried(make_bedrock, endpoint, no_backoff, call):
    endpoint.faults.add(Fault("ThrottlingException", message=DAILY))
    with pytest.raises(errors.DailyQuotaReached) as raised:
        call(make_bedrock(max_attempts=2))
    assert raised.value.attempts == len(endpoint.journal) == 1


def test_a_success_counts_the_tries_before_it(bedrock, endpoint, no_backoff):
    endpoint.faults.add(Fault("ModelTimeoutException", at=frozenset({1, 3})))
    endpoint.faults.add(Fault("ServiceUnavailableException", at=frozenset({2})))
    reply = bedrock.converse("cheap", "hello")  # ours, then botocore's and ours, then the answer
    assert reply.attempts == len(endpoint.journal) == 4


def test_waits_grow_between_our_tries(make_bedrock, endpoint):
    waits: list[float] = []
    endpoint.faults.add(Fault("ModelTimeoutException"))
    _failed(make_bedrock(sleep=waits.append, own_attempts=3), errors.ModelTimeout)
    assert len(waits) == 2
    assert all(0 <= wait <= 5 for wait in waits)


def test_a_dropped_connection_is_retried_until_it_holds(bedrock, endpoint, no_backoff):
    endpoint.faults.add(Fault("drop", first=1))
    reply = bedrock.converse("cheap", "hello")
    assert reply.text
    assert reply.attempts == 2


def test_an_answer_that_never_holds_is_unreachable(make_bedrock, endpoint, no_backoff):
    endpoint.faults.add(Fault("drop"))
    assert _failed(make_bedrock(max_attempts=2), errors.Unreachable).attempts == len(endpoint.journal) == 2


def test_a_silent_service_is_a_reply_timeout(make_bedrock, endpoint):
    endpoint.time_scale = 0.1
    endpoint.faults.add(Fault("slow", delay_ms=4_000))
    _failed(make_bedrock(read_timeout_s=0.15, max_attempts=1), errors.ReplyTimeout)
    wait_until(lambda: len(endpoint.journal), "its entry in the journal")  # else the next test would find it there


# Streams


def test_a_stream_ends_with_the_reply_of_converse(bedrock):
    events = list(bedrock.stream("strong", "The export fails."))
    whole = bedrock.converse("strong", "The export fails.")
    assert [events[0].kind, events[-1].kind] == ["started", "finished"]
    assert {e.kind for e in events[1:-1]} == {"text"}
    reply = events[-1].reply
    assert "".join(e.text for e in events) == reply.text == whole.text
    assert (reply.usage, reply.cost_usd, reply.stop_reason) == (whole.usage, whole.cost_usd, whole.stop_reason)


def test_a_streamed_tool_call_ends_with_its_input(bedrock, a_ticket):
    *events, finished = bedrock.stream("strong", TRIAGE.describe(a_ticket), tool=TRIAGE.tool)
    assert {e.kind for e in events[1:]} == {"tool_input"}
    assert TRIAGE.parse(finished.reply).category == "billing"


@pytest.mark.parametrize(
    "kind", ["mid-stream:ModelStreamErrorException", "mid-stream:ThrottlingException", "cut", "drop"]
)
def test_a_broken_stream_is_begun_again(bedrock, endpoint, kind):
    endpoint.faults.add(Fault(kind, first=1))
    events = list(bedrock.stream("strong", "The export fails."))
    kinds = [e.kind for e in events]
    assert (kinds[0], kinds[-1], kinds.count("restarted")) == ("started", "finished", 1)
    after = events[kinds.index("restarted") :]
    assert "".join(e.text for e in after) == events[-1].reply.text
    assert events[-1].reply.attempts == len(endpoint.journal) == 2


def test_a_stream_that_always_breaks_is_given_up(make_bedrock, endpoint):
    endpoint.faults.add(Fault("mid-stream:ModelStreamErrorException"))
    with pytest.raises(errors.StreamBroken) as raised:
        list(make_bedrock(own_attempts=2).stream("cheap", "hello"))
    assert raised.value.attempts == len(endpoint.journal) == 2


def test_a_request_that_is_refused_inside_a_stream_is_not_repeated(bedrock, endpoint):
    endpoint.faults.add(Fault("mid-stream:ValidationException"))
    with pytest.raises(errors.InvalidRequest):
        list(bedrock.stream("cheap", "hello"))
    assert len(endpoint.journal) == 1


def test_an_error_after_a_restart_counts_the_broken_stream_too(bedrock, endpoint):
    endpoint.faults.add(Fault("cut", at=frozenset({1})))
    endpoint.faults.add(Fault("ValidationException", at=frozenset({2})))
    with pytest.raises(errors.InvalidRequest) as raised:
        list(bedrock.stream("cheap", "hello"))
    assert raised.value.attempts == len(endpoint.journal) == 2


def test_a_request_is_what_a_call_sends(bedrock, catalogue):
    request = bedrock.request("strong", "hello", system="Be brief.", max_tokens=9)
    response = bedrock.client("strong").converse(**request)
    assert (
        response["output"]["message"]["content"][0]["text"]
        == bedrock.converse("strong", "hello", system="Be brief.", max_tokens=9).text
    )
    assert (request["modelId"], request["inferenceConfig"]["maxTokens"]) == (catalogue["strong"].id, 9)


def test_another_service_is_behind_the_same_door(bedrock, endpoint):
    for name in ("s3", "bedrock"):
        client = bedrock.service(name)
        assert client.meta.endpoint_url == endpoint.url
        client.close()


def test_a_stream_can_be_left_early(bedrock, endpoint):
    stream = bedrock.stream("cheap", "hello")
    assert next(stream).kind == "started"
    stream.close()
    assert bedrock.converse("cheap", "hello").text


# Surroundings of the local door

SURROUNDINGS = {
    "an empty bearer token": {"AWS_BEARER_TOKEN_BEDROCK": ""},
    "a bearer token": {"AWS_BEARER_TOKEN_BEDROCK": "abc"},
    "a proxy": {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"},
    "configured endpoints ignored": {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
    "another endpoint configured": {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
    "fips": {"AWS_USE_FIPS_ENDPOINT": "true"},
    "dual stack": {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
    "no retries": {"AWS_MAX_ATTEMPTS": "1", "AWS_RETRY_MODE": "legacy"},
    "half of a key": {"AWS_ACCESS_KEY_ID": "AKIA"},
    "a region in europe": {"AWS_DEFAULT_REGION": "eu-central-1"},
    "a bundle that is gone": {"AWS_CA_BUNDLE": "/nonexistent"},
    "another scheme": {"AWS_AUTH_SCHEME_PREFERENCE": "httpBearerAuth"},
}  # fmt: skip


@pytest.mark.parametrize("environ", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_the_local_door_withstands(make_bedrock, monkeypatch, environ):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert make_bedrock(max_attempts=1).converse("cheap", "hello").attempts == 1


def test_the_local_door_withstands_a_profile_that_is_gone(make_bedrock, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "gone")
    assert make_bedrock(max_attempts=1).converse("cheap", "hello").attempts == 1


def test_the_local_door_withstands_a_broken_aws_configuration(make_bedrock, monkeypatch, tmp_path):
    (tmp_path / "config").write_text("this is not a configuration\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert make_bedrock(max_attempts=1).converse("cheap", "hello").attempts == 1


# The live door, without leaving loopback


def test_without_credentials_nothing_is_sent(make_bedrock, endpoint, live):
    with pytest.raises(errors.CredentialsError) as raised:
        make_bedrock(live(region="us-west-2")).converse("cheap", "hello")
    assert raised.value.code == "NoCredentialsError"
    assert len(endpoint.journal) == 0


def test_without_a_region_the_advice_is_to_set_one(make_bedrock, live):
    with pytest.raises(errors.RegionError, match="AWS_DEFAULT_REGION"):
        make_bedrock(live()).converse("cheap", "hello")


def test_a_profile_that_does_not_exist_is_named(make_bedrock, live):
    with pytest.raises(errors.CredentialsError, match="gone"):
        make_bedrock(live(region="us-west-2", aws_profile="gone")).converse("cheap", "hello")


def test_with_credentials_of_the_environment_it_calls(make_bedrock, live, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    assert make_bedrock(live(region="us-east-1")).converse("strong", "hello").text


def test_a_model_that_is_not_offered_in_the_region_is_a_region_error(make_bedrock, live, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with pytest.raises(errors.RegionError):
        make_bedrock(live(region="eu-central-1")).converse("strong", "hello")


@pytest.fixture
def down() -> Settings:
    """Settings of an endpoint that does not run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return Settings(mode="local", endpoint_url=f"http://127.0.0.1:{free.getsockname()[1]}")


def test_an_endpoint_that_is_down_is_unreachable(make_bedrock, down):
    with pytest.raises(errors.Unreachable) as raised:
        make_bedrock(down, max_attempts=1).converse("cheap", "hello")
    assert raised.value.model == "nemotron-nano-3"


def test_the_tries_to_reach_an_endpoint_are_counted(make_bedrock, down, no_backoff):
    with pytest.raises(errors.Unreachable) as raised:
        make_bedrock(down, max_attempts=3).converse("cheap", "hello")
    assert raised.value.attempts == 3
