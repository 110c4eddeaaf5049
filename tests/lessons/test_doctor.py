"""The doctor: each of the sixteen troubles is found and comes with its fix."""

import json
from datetime import UTC, date, datetime

import pytest

from workshop_lib import Settings
from workshop_lib.lessons import doctor
from workshop_lib.lessons.doctor import TROUBLES, examine
from workshop_lib.lessons.production import ASKED, _retirement, examine_production, policy_of
from workshop_lib.local import Fault, Quota
from workshop_lib.workshop import Workshop


@pytest.fixture
def workshop(endpoint, bedrock):
    return Workshop(bedrock.settings, bedrock.catalogue, bedrock, endpoint)


def failures(opened, **settings):
    return [f for f in examine(opened=opened, environ={}, **settings) if f.status == "FAIL"]


def test_a_healthy_set_up_has_no_failure(workshop):
    assert failures(workshop) == []


def test_every_trouble_is_looked_for(workshop):
    looked_for = {n for finding in examine(opened=workshop, environ={}) for n in finding.troubles}
    assert looked_for == set(TROUBLES)


@pytest.mark.parametrize(
    ("fault", "said", "fix"),
    [
        (Fault("AccessDeniedException"), "don't have access", "bedrock:InvokeModel"),
        (Fault("ResourceNotFoundException"), "use case details", "use-case form"),
        (
            Fault("ValidationException", message="The provided model identifier is invalid."),
            "identifier is invalid",
            "AWS_DEFAULT_REGION",
        ),
        (
            Fault("ValidationException", message="Invocation of model ID x with on-demand throughput isn't supported."),
            "on-demand throughput",
            "WORKSHOP_PROFILE",
        ),
        (Fault("ThrottlingException", message="Too many tokens per day, please wait."), "per day", "tomorrow"),
        (Fault("ExpiredTokenException"), "expired", "aws sso login"),
        (Fault("UnrecognizedClientException"), "invalid", "aws sso login"),
        (Fault("invalid_output"), "no JSON object", "stronger tier"),
    ],
    ids=[
        "4 access",
        "5 use-case form",
        "3 not in the Region",
        "6 bare id",
        "7 daily quota",
        "1 expired",
        "1 unknown key",
        "12 prose",
    ],
)
def test_a_call_that_fails_is_a_failure_with_its_fix(workshop, endpoint, fault, said, fix):
    endpoint.faults.add(fault)
    found = [f for f in failures(workshop) if f.name.startswith("cheap tier")]
    assert said in found[0].text
    assert fix in found[0].fix


def test_7_a_quota_too_small_for_one_call_is_found(make_bedrock, endpoint):
    client = make_bedrock(max_attempts=1)
    endpoint.quotas.set("nemotron-nano-3", Quota(tokens_per_minute=100))
    found = failures(Workshop(client.settings, client.catalogue, client, endpoint))
    assert any("Too many tokens" in f.text and "max_tokens" in f.fix for f in found)


def test_13_a_stream_that_breaks_every_time_is_found(workshop, endpoint):
    endpoint.faults.add(Fault("mid-stream:ModelStreamErrorException"))
    assert [f.name for f in failures(workshop)] == ["streaming"]


def test_13_a_stream_that_breaks_once_is_started_again_and_told(workshop, endpoint):
    endpoint.faults.add(Fault("mid-stream:ThrottlingException", at=frozenset({3})))
    (stream,) = [f for f in examine(opened=workshop, environ={}) if f.name == "streaming"]
    assert stream.status == "OK"
    assert "1 broken" in stream.text


def test_14_an_endpoint_that_is_gone_is_found(make_bedrock):
    client = make_bedrock(Settings(endpoint_url="http://127.0.0.1:9"), max_attempts=1)
    (found,) = failures(Workshop(client.settings, client.catalogue, client))
    assert "does not answer" in found.text


def test_15_a_clock_that_is_off_is_found(workshop):
    import time

    (found,) = failures(workshop, now=lambda: time.time() + 3_600)
    assert "s off the server's" in found.text


def test_9_a_pool_smaller_than_the_workers_is_found(make_bedrock, endpoint, monkeypatch):
    monkeypatch.setattr("workshop_lib.bedrock.client.MAX_CONNECTIONS", 4)
    client = make_bedrock(Settings(endpoint_url=endpoint.url, workers=4))
    crowded = client.settings.model_copy(update={"workers": 64})
    (found,) = failures(Workshop(crowded, client.catalogue, client, endpoint))
    assert "4 connections for 64 workers" in found.text


def test_10_an_old_boto3_is_found():
    assert doctor._boto3("1.42.41").status == "FAIL"
    assert doctor._boto3("1.42.42").status == "OK"
    assert doctor._boto3("1.100.0").status == "OK"


LIVE = Settings(mode="live", region="us-west-2")


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        (doctor._bearer_token(LIVE, {"AWS_BEARER_TOKEN_BEDROCK": ""}), "unset AWS_BEARER_TOKEN_BEDROCK"),
        (doctor._redirects(LIVE, {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "http://127.0.0.1:1"}), "unset AWS_ENDPOINT_URL"),
        (doctor._region(Settings(mode="live"), {"AWS_REGION": "us-west-2"}), "export AWS_DEFAULT_REGION"),
        (doctor._credentials(LIVE), "aws sso login"),
        (doctor._credentials(LIVE.model_copy(update={"aws_profile": "nobody"})), "aws sso login"),
    ],
    ids=["2 empty token", "14 redirected", "3 AWS_REGION alone", "1 no credentials", "1 unknown profile"],
)
def test_a_trap_of_the_live_door_is_found_before_any_call(finding, said):
    assert finding.status == "FAIL"
    assert said in finding.fix


def test_the_bearer_token_does_not_matter_at_the_local_door():
    assert doctor._bearer_token(Settings(), {"AWS_BEARER_TOKEN_BEDROCK": ""}).status == "SKIP"


def test_8_the_read_timeout_is_told(workshop):
    (client,) = [f for f in examine(opened=workshop, environ={}) if f.name == "client"]
    assert "read timeout 60 s" in client.text


def test_11_a_request_of_the_wrong_shape_is_found(monkeypatch, catalogue):
    from dataclasses import replace

    monkeypatch.setattr(doctor, "TRIAGE", replace(doctor.TRIAGE, system=7))
    assert doctor._shape(catalogue).status == "FAIL"


def test_16_a_prompt_too_short_to_be_cached_is_told(workshop):
    (cache,) = [f for f in examine(opened=workshop, environ={}) if f.name == "prompt cache"]
    assert "counters stay 0" in cache.text


def test_settings_that_cannot_be_read_end_the_examination_with_their_fix():
    *_, last = examine(environ={"WORKSHOP_MODE": "both"})
    assert last.status == "FAIL"
    assert "WORKSHOP_MODE='both'" in last.text


def test_a_finding_is_readable_in_a_terminal_and_as_json():
    finding = doctor.Finding("x", "FAIL", "[bold]text[/]", "do this", (1,))
    assert "\\[bold]" in finding.as_markup()
    assert finding.as_dict()["troubles"] == [1]
    assert "Fix: do this" in str(finding)


# Before others depend on it: the check-list for production.


@pytest.fixture
def production(make_bedrock, endpoint):
    def found(now=None, **settings):
        client = make_bedrock(Settings(endpoint_url=endpoint.url, **settings), max_attempts=1)
        opened = Workshop(client.settings, client.catalogue, client, endpoint)
        when = date.fromisoformat(now or client.catalogue["cheap"].as_of)
        clock = datetime(when.year, when.month, when.day, 12, tzinfo=UTC).timestamp
        return {f.name: f for f in examine_production(opened=opened, now=clock)}

    return found


PINNED = {"guardrail_id": "workshop", "guardrail_version": "2"}


def test_a_set_up_for_production_has_no_failure_and_questions_for_people(production):
    found = production(budget_usd=5, **PINNED)
    assert {f.status for f in found.values()} == {"OK", "SKIP", "ASK"}
    assert "workshop version 2" in found["guardrail"].text
    assert "us-east-1, us-east-2, us-west-2" in found["residency"].text
    assert found["quotas"].status == "SKIP"
    assert {name for name, f in found.items() if f.status == "ASK"} > {name for name, _ in ASKED}


@pytest.mark.parametrize(
    ("settings", "name", "said"),
    [
        ({}, "guardrail", "none is configured"),
        ({"guardrail_id": "workshop", "guardrail_version": "DRAFT"}, "guardrail", "not pinned"),
        ({"guardrail_id": "workshop"}, "guardrail", "set together"),
        ({"guardrail_id": "workshop", "guardrail_version": "9"}, "guardrail", "does not exist"),
        ({}, "budget", "without limit"),
        ({"now": "2027-06-01"}, "prices", "days old"),
    ],
    ids=["no guardrail", "draft", "half a guardrail", "unknown version", "no budget", "old prices"],
)
def test_what_is_missing_for_production_fails_with_its_fix(production, settings, name, said):
    found = production(**settings)[name]
    assert (found.status, bool(found.fix)) == ("FAIL", True)
    assert said in found.text


def test_a_model_that_is_about_to_be_retired_fails(catalogue):
    from dataclasses import replace

    soon = replace(catalogue["strong"], retires="2027-01-31")
    today = date(2026, 12, 1)
    assert _retirement(Settings(), soon, today).status == "FAIL"
    assert _retirement(Settings(), replace(soon, retires="2027-12-31"), today).status == "OK"
    assert _retirement(Settings(), catalogue["strong"], today).status == "ASK"


def test_the_policy_names_the_pairs_models_and_the_guardrail_but_no_judge(catalogue):
    document = json.dumps(policy_of(Settings(region="us-east-1", **PINNED), catalogue))
    assert catalogue["strong"].id in document
    assert catalogue["judge"].base_id not in document
    assert "arn:aws:bedrock:us-east-1:ACCOUNT_ID:guardrail/workshop" in document
