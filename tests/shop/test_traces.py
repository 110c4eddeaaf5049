"""The shop's agent traced: one trace a message, with the bill that the answer has, and without what the customer wrote."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.shop.conftest import say, use
from workshop_lib import ConfigurationError
from workshop_lib.shop import load_questions
from workshop_lib.tracing import TracedShopAgent, load_traces, open_tracing
from workshop_lib.tracing.store import CACHE_READ, CACHE_WRITE

LOOK_UP = (use("return_policy", category="laptops"), say("You have 21 days from delivery."))
QUESTION = "How long can I return a laptop? Write to me: jo.doe@example.org"


@pytest.fixture
def trace_agent(make_client, script, shop, tmp_path):
    """A traced agent, and a function that reads its traces."""
    made = []

    def make(pair="haiku-sonnet", **options):
        client = make_client(pair)
        tracer = open_tracing(tmp_path / "t.db", environ={}, make_global=True, catalogue=client.catalogue, **options)
        agent = TracedShopAgent(client, tracer, shop=shop)
        made.extend([agent, tracer])

        def traces():
            assert tracer.flush()
            return load_traces(tmp_path / "t.db")

        return agent, traces

    yield make
    for each in made:
        each.close()


def test_a_message_is_one_trace_with_classifier_and_agent_beneath_it(trace_agent, script):
    agent, traces = trace_agent()
    script.play(*LOOK_UP)
    answer = agent.answer(QUESTION)
    (trace,) = traces()
    below = [span.name.split(" ")[0] for span in trace.spans if span.parent_id == trace.root.span_id]
    assert below == ["chat", "invoke_agent"]
    assert len(trace.calls) == len(answer.calls) == 3
    root = trace.root.attributes
    assert (root["workshop.tier"], root["workshop.label"], root["workshop.fallback"]) == ("cheap", "simple", False)


def test_a_cascade_has_both_agents_in_one_trace_and_says_why_it_went_up(trace_agent, script):
    agent, traces = trace_agent()
    script.play(say("I am not sure."))
    answer = agent.answer(QUESTION, "cascade", check=lambda attempt: "unsure" if attempt.tier == "cheap" else None)
    (trace,) = traces()
    assert answer.escalated == "unsure"
    assert [s.name for s in trace.spans if s.name.startswith("invoke_agent")] == [
        "invoke_agent shop-cheap",
        "invoke_agent shop-strong",
    ]
    assert trace.root.attributes["workshop.reasons"] == ["unsure"]


@pytest.mark.parametrize("pair", ["nemotron-sonnet", "haiku-sonnet"])
def test_twenty_messages_on_four_threads_cost_the_same_in_traces_answers_and_journal(trace_agent, script, door, pair):
    agent, traces = trace_agent(pair)
    script.classifier = "complex"  # the strong model, with its cache
    script.play(say("You have 21 days."))
    questions = load_questions("calibration")[:20]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(agent.answer, questions))
    found = {trace.root.attributes["workshop.item_id"]: trace for trace in traces()}
    assert len(found) == 20
    for question, answer in zip(questions, answers, strict=True):
        trace = found[question.id]
        assert trace.cost_usd == pytest.approx(answer.cost_usd, abs=1e-15)
        for name, counter in ((CACHE_READ, "cache_read_tokens"), (CACHE_WRITE, "cache_write_tokens")):
            assert sum(s.attributes[name] for s in trace.calls) == sum(getattr(c.usage, counter) for c in answer.calls)
    spans = math.fsum(trace.cost_usd for trace in found.values())
    assert spans == pytest.approx(math.fsum(a.cost_usd for a in answers), abs=1e-13)
    assert spans == pytest.approx(door.journal.cost_usd, abs=1e-13)
    assert spans > 0


@pytest.mark.parametrize("redact", [True, False])
def test_what_the_customer_wrote_is_kept_only_where_it_was_asked_for(trace_agent, script, redact):
    agent, traces = trace_agent(redact=redact)
    script.play(*LOOK_UP)
    agent.answer(QUESTION)
    (trace,) = traces()
    held = json.dumps([[s.name, dict(s.attributes), list(s.events)] for s in trace.spans])
    assert ("jo.doe@example.org" in held) is not redact
    assert ("21 days from delivery" in held) is not redact


def test_a_tracer_that_would_miss_the_agents_calls_is_refused(make_client):
    with open_tracing(environ={}) as tracer, pytest.raises(ConfigurationError, match="does not see the agent's calls"):
        TracedShopAgent(make_client(), tracer)
