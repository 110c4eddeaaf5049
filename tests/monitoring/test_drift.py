"""Drift: seen where it is, rarely where it is not, and told in words."""

import math
from dataclasses import replace

import numpy as np
import pytest

from workshop_lib import Cascade, Tier, load_tickets
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.evaluation import NoCalls, Recording
from workshop_lib.evaluation.strategies import taught_rule
from workshop_lib.monitoring.drift import SIGNALS, Detector, DriftWatch, Signal
from workshop_lib.monitoring.simulation import incident, played, simulate

CATEGORY = SIGNALS[:1]
QUICK = {"horizon": 600, "simulations": 200}


@pytest.fixture(scope="module")
def replayed():
    """The taught cascade over the recorded calibration tickets: as it was, and with another model under the cheap tier's name."""
    tickets = load_tickets("calibration")
    answers = Recording.load(PROJECT / "data" / "recorded" / "local-calibration.jsonl").answers()
    cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=taught_rule(), client=NoCalls())
    return played(cascade, tickets, answers), played(cascade, tickets, answers, cast={"cheap": "strong"})


@pytest.fixture(scope="module")
def normal(replayed):
    return replayed[0]


def drawn(records, n, seed):
    return [records[i] for i in np.random.default_rng(seed).integers(len(records), size=n)]


@pytest.fixture(scope="module")
def watch(normal):
    return DriftWatch(drawn(normal, 500, 0), **QUICK)


@pytest.fixture
def fresh(watch):
    watch.restart()
    return watch


def test_a_stream_like_the_reference_raises_nothing(fresh, normal):
    states = [fresh.add(record) for record in drawn(normal, 600, 1)]
    assert not states[-1].alarmed
    assert "no change proven" in states[-1].sentence
    assert "about 5% of runs of 600 tickets" in states[-1].sentence


def test_an_incident_is_seen_and_named_with_the_time_since_when(fresh, normal):
    for record in drawn(normal, 200, 2):
        assert not fresh.add(record).alarmed
    for record in drawn(incident(normal, "auth", 4), 400, 3):
        if (state := fresh.add(record)).alarmed:
            break
    (seen,) = (s for s in state.signals if s.alarmed_at is not None)
    assert (seen.name, seen.change) == ("category", "auth comes up more often")
    assert state.n - 200 - 40 <= seen.since <= state.n - 200 + 100
    assert "CHANGED since about" in state.sentence


def test_a_silent_change_of_model_is_seen_while_the_tickets_stay_as_they_are(fresh, replayed):
    normal, changed = replayed
    for record in drawn(normal, 200, 4):
        fresh.add(record)
    for record in drawn(changed, 200, 5):
        state = fresh.add(record)
    by = {s.name: s for s in state.signals}
    assert by["confidence"].alarmed_at is not None
    assert by["category"].alarmed_at is None


def test_an_alarm_stays_until_the_watch_is_restarted(fresh, normal):
    for _ in range(60):
        fresh.add(replace(normal[0], category="auth"))
    seen = fresh.state.signals[0]
    for record in drawn([replace(r, category="billing") for r in normal], 300, 6):
        fresh.add(record)
    later = fresh.state.signals[0]
    assert later.statistic < seen.statistic  # the sum has fallen back
    assert (later.alarmed_at, later.since) == (seen.alarmed_at, seen.since + 300)
    fresh.restart()
    assert not fresh.state.alarmed


def test_a_name_that_the_reference_lacks_is_taken_in_and_seen(fresh, normal):
    for _ in range(30):
        state = fresh.add(replace(normal[0], confidence="0.10"))
    assert {s.name: s.change for s in state.signals}["confidence"] == "(new) comes up more often"


def test_one_ticket_at_a_time_and_whole_streams_come_to_the_same(watch, normal):
    stream = drawn(incident(normal, "auth", 5), 300, 7)
    single = DriftWatch(drawn(normal, 500, 0), signals=CATEGORY, **QUICK)
    detector = single.detectors["category"]
    many = detector.statistics(detector.code([r.category for r in stream])[None, :])[0]
    for record, expected in zip(stream, many, strict=True):
        state = single.add(record)
        if not state.alarmed:
            assert state.signals[0].statistic == pytest.approx(expected, abs=1e-3)
    assert state.signals[0].alarmed_at == detector.first_alarms(detector.code([r.category for r in stream])[None, :])[0]


def test_each_sum_falls_on_average_without_a_change_and_rises_with_its_own():
    detector = Detector(["a"] * 300 + ["b"] * 100, horizon=50, false_alarms=0.05, simulations=50)
    assert (detector.steps @ detector.shares < 0).all()
    a = detector.names.index("a")
    shifted = detector.shares * np.where(np.arange(len(detector.shares)) == a, 3, 1)
    assert detector.steps[a] @ (shifted / shifted.sum()) > 0
    # a likelihood ratio has the mean 1 under what it is compared with
    assert np.exp(detector.steps) @ detector.shares == pytest.approx(np.ones(len(detector.steps)))


def test_a_rarer_alarm_has_a_higher_limit(normal):
    names = [r.category for r in drawn(normal, 500, 0)]
    often, rarely = (Detector(names, horizon=300, false_alarms=a, simulations=300).limit for a in (0.2, 0.02))
    assert often < rarely


def test_too_short_a_reference_is_refused(normal):
    with pytest.raises(ValueError, match="200 records or more"):
        DriftWatch(normal)
    with pytest.raises(ValueError, match="horizon"):
        Detector(["a"] * 300, horizon=0, false_alarms=0.05)
    with pytest.raises(ValueError, match="one signal"):
        DriftWatch(drawn(normal, 300, 0), signals=())


def test_any_name_of_a_record_can_be_watched(normal):
    own = DriftWatch(drawn(normal, 300, 0), signals=[Signal("priority", lambda r: r.priority)], **QUICK)
    assert own.add(normal[0]).signals[0].name == "priority"


def test_simulated_streams_keep_the_promised_rate_and_see_both_changes(normal, replayed):
    changes = {"incident": incident(normal, "auth", 3), "model": replayed[1]}
    quiet, auth, model = simulate(
        normal, changes, streams=60, references=6, horizon=800, change_at=300, simulations=200, seed=1
    )
    assert quiet.false_alarms.low <= 0.05
    assert quiet.detected is None
    assert auth.detected.value > 0.8
    assert auth.seen_by["category"] > 0.9
    assert model.detected.value == 1
    assert model.seen_by["confidence"] > 0.9
    assert model.median_delay[1] <= model.median_delay[0] <= model.median_delay[2] < auth.median_delay[0]
    assert "false alarm" in auth.sentence
    assert "within" in auth.row()["nine in ten"]


def test_a_simulation_is_the_same_every_time_and_refuses_what_cannot_be(normal):
    options = {"streams": 4, "references": 2, "horizon": 60, "change_at": 20, "simulations": 20}
    first, again = (simulate(normal, {"x": normal}, **options) for _ in range(2))
    assert first[1].delays == again[1].delays
    assert math.isnan(first[0].median_delay[0])
    with pytest.raises(ValueError, match="change_at"):
        simulate(normal, {}, **{**options, "change_at": 60})
    with pytest.raises(ValueError, match="no records"):
        simulate(normal, {"x": []}, **options)
    with pytest.raises(ValueError, match="no record has the category"):
        incident(normal, "weather")
