"""The limiter: turns in order, never faster than the quota, with what was reserved too much given back."""

import contextvars
import threading

import pytest

from workshop_lib import Settings
from workshop_lib.bedrock.pacing import LEAVE, Leave, Limiter, Paced, Quota, RunEnded
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


def test_what_is_given_back_is_not_cut_to_what_may_be_saved_up(time):
    limiter = Limiter(Quota(tokens_per_minute=60_000), clock=time, sleep=time.sleep)
    limiter.acquire(6_000)
    limiter.settle(6_000, used=400)
    time.now += 1_000
    assert limiter.acquire(5_600) == 0
    assert limiter.acquire(1_000) == pytest.approx(1)


@pytest.mark.parametrize("latency_s", [0.05, 0.35, 1.5])
def test_one_call_after_the_other_gets_all_of_the_quota(time, latency_s):
    limiter, used = Limiter(Quota(tokens_per_minute=60_000), clock=time, sleep=time.sleep), 0
    while time.now < 600:
        limiter.acquire(2_500)
        time.now += latency_s
        limiter.settle(2_500, used=1_600)
        used += 1_600
    assert 59_000 < used / time.now * 60 <= 60_100


def test_calls_under_way_leave_no_more_to_be_used_at_once_than_they_had_reserved(time):
    limiter = Limiter(Quota(tokens_per_minute=60_000), clock=time, sleep=time.sleep)
    limiter.acquire(500)
    time.now += 1_000
    limiter.settle(500, used=400)
    assert limiter.acquire(500 + 100 + 100) == 0
    assert limiter.acquire(100) == pytest.approx(0.1)


def in_a_run(ended, wait):
    """What `wait` comes to in a thread of a run, which has ended when the event is set."""

    def begin():
        LEAVE.set(Leave(ended, ended, threading.Event()))
        return wait()

    return contextvars.copy_context().run(begin)


def test_who_waits_leaves_when_the_run_has_ended_and_gives_the_turn_back():
    limiter, ended = Limiter(Quota(60, 60_000), clock=lambda: 0.0), threading.Event()
    ended.set()
    assert in_a_run(ended, lambda: limiter.acquire(10)) == 0
    for _ in range(3):
        with pytest.raises(RunEnded):
            in_a_run(ended, lambda: limiter.acquire(6_000))
    limiter._sleep = lambda seconds: None
    assert limiter.acquire(90) == pytest.approx(1)


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
