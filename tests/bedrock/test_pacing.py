"""The limiter: turns in order, never faster than the quota, with what was reserved too much given back."""

import pytest

from workshop_lib import Settings
from workshop_lib.bedrock.pacing import Limiter, Paced, Quota
from workshop_lib.local import Fault


class Time:
    """A clock that sleeping moves on."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time():
    return Time()


def test_turns_come_at_the_quotas_pace(time):
    limiter = Limiter(Quota(requests_per_minute=120), clock=time, sleep=time.sleep)
    assert [limiter.acquire() for _ in range(5)] == pytest.approx([0, 0.5, 0.5, 0.5, 0.5])


def test_no_more_than_a_tenth_of_a_second_is_saved_up(time):
    limiter = Limiter(Quota(requests_per_minute=1_800), clock=time, sleep=time.sleep)
    time.now = 1_000
    assert [limiter.acquire() > 0 for _ in range(5)] == [False, False, False, True, True]


def test_tokens_are_waited_for_as_well_as_requests(time):
    limiter = Limiter(Quota(requests_per_minute=6_000, tokens_per_minute=60_000), clock=time, sleep=time.sleep)
    assert limiter.acquire(100) == 0
    assert limiter.acquire(2_000) == pytest.approx(2)


def test_what_a_call_did_not_use_is_given_back(time):
    limiter = Limiter(Quota(tokens_per_minute=60_000), clock=time, sleep=time.sleep)
    limiter.acquire(100)
    limiter.settle(100, used=20)
    assert limiter.acquire(80) == 0


def test_several_waiters_get_turns_one_behind_the_other(time):
    limiter = Limiter(Quota(requests_per_minute=60), clock=lambda: 0.0, sleep=time.sleep)
    assert [limiter.acquire() for _ in range(4)] == pytest.approx([0, 1, 2, 3])


def test_only_the_named_model_is_paced_and_everything_else_is_the_clients_own(bedrock, endpoint, time):
    limiter = Limiter(Quota(requests_per_minute=60), clock=time, sleep=time.sleep)
    paced = Paced(bedrock, {"strong": limiter})
    for model in ("cheap", "cheap", "strong", "strong"):
        paced.converse(model, "Which plan has SSO?", max_tokens=20)
    assert time.slept == pytest.approx([1.0])
    assert endpoint.journal.calls == 4
    assert paced.catalogue is bedrock.catalogue


def test_a_failed_call_gives_its_tokens_back(bedrock, endpoint, time):
    endpoint.faults.add(Fault("AccessDeniedException"))
    limiter = Limiter(Quota(tokens_per_minute=60_000), clock=time, sleep=time.sleep)
    for _ in range(5):
        with pytest.raises(Exception, match="access"):
            Paced(bedrock, {"cheap": limiter}).converse("cheap", "Which plan has SSO?", max_tokens=50)
    assert time.slept == []


def test_a_paced_call_settles_with_the_models_burndown(bedrock, time):
    limiter = Limiter(Quota(tokens_per_minute=60_000), clock=time, sleep=time.sleep)
    reply = Paced(bedrock, {"strong": limiter}).converse("strong", "Which plan has SSO?", max_tokens=80)
    behind = bedrock.catalogue["strong"].quota_tokens(reply.usage) - 100  # a tenth of a second was saved up
    assert limiter.acquire(0) == pytest.approx(max(0, behind) / 1_000)


def test_a_session_keeps_to_its_share_of_the_strong_models_quota(endpoint, make_bedrock):
    slept = []
    settings = Settings(endpoint_url=endpoint.url, tokens_per_minute=25_000)
    client = make_bedrock(settings, sleep=slept.append)
    for model in ("cheap", "cheap", "cheap", "strong", "strong"):
        client.converse(model, "Which plan has SSO?", max_tokens=400)
    assert len(slept) == 2
    assert slept[1] > slept[0] > 0
