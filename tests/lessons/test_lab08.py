"""Lab 08's checks: each way of getting a bill, a search or an entry point wrong is told apart, and the right ones pass."""

import json

import pytest

from tests.lessons.exercises import holds_for
from workshop_lib import ConfigurationError, Settings
from workshop_lib.agentcore import make_app, serve
from workshop_lib.lessons import check, lab08
from workshop_lib.tracing import open_tracing
from workshop_lib.tracing.store import Span, Trace
from workshop_lib.workshop import Workshop


def request_cost(spans, price, *, keep=lambda s: s["operation"] == "chat", cached=1):
    return sum(
        price(s["model"], s["input"] - cached * (s["cache_read"] + s["cache_write"]), s["output"], s["cache_read"], s["cache_write"])
        for s in spans
        if keep(s)
    )  # fmt: skip


def with_the_agents_span(spans, price):
    return request_cost(spans, price, keep=lambda s: True)


def with_cached_tokens_twice(spans, price):
    return request_cost(spans, price, cached=0)


def without_the_classifier(spans, price):
    return request_cost(spans, price, keep=lambda s: s["name"] == "chat")


def of_nothing(spans, price):
    return 0.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (with_the_agents_span, "paid them twice"),
        (with_cached_tokens_twice, "from and written to the cache"),
        (without_the_classifier, "the classifier's call is missing"),
        (of_nothing, "not the bill"),
    ],
)
def test_8_1_names_the_mistake(wrong, said):
    assert said in check("8.1", wrong).text
    assert "Not yet" in check("8.1", wrong).head


def leaks(spans, pieces):
    return [s.name for s in spans if any(p in _held([s.name, dict(s.attributes), list(s.events)]) for p in pieces)]


def _held(what):
    return json.dumps(what).lower()


def in_strings_only(spans, pieces):
    return [s.name for s in spans for v in s.attributes.values() if isinstance(v, str) and any(p in v.lower() for p in pieces)]  # fmt: skip


def in_attributes_only(spans, pieces):
    return [s.name for s in spans if any(p in _held(dict(s.attributes)) for p in pieces)]


def as_written(spans, pieces):
    return [s.name for s in spans if any(p in json.dumps([s.name, dict(s.attributes), list(s.events)]) for p in pieces)]


def nothing(spans, pieces):
    return []


def by_single_words(spans, pieces):
    words = {w for p in pieces for w in p.split()}
    return [s.name for s in spans if any(w in _held([s.name, dict(s.attributes)]) for w in words)]


def in_everything(spans, pieces):
    return [s.name for s in spans]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (nothing, "in small letters is passed over"),
        (as_written, "the e-mail address alone is passed over"),
        (in_strings_only, "a list with the question in it is passed over"),
        (in_attributes_only, "an event that holds the question is passed over"),
        (by_single_words, "taken for a leak"),
        (in_everything, "taken for a leak"),
        (lambda spans, pieces: bool(leaks(spans, pieces)) and [1], "give the names"),
    ],
)
def test_8_2_names_what_is_passed_over_or_wrongly_found(wrong, said):
    assert said in check("8.2", wrong).text


def invoke(payload, agent):
    if not isinstance(payload, dict) or not isinstance(payload.get("prompt"), str) or not payload["prompt"].strip():
        return {"error": "Send a prompt."}
    route = payload.get("route", "classifier")
    if route not in lab08.ROUTES:
        return {"error": "No such route."}
    found = agent.answer(payload["prompt"], route)
    return {"answer": found.text, "tier": found.tier, "cost_usd": found.cost_usd}


def trusting(payload, agent):
    found = agent.answer(payload["prompt"])
    return {"answer": found.text, "tier": found.tier, "cost_usd": found.cost_usd}


def without_a_look_at_the_route(payload, agent):
    return invoke(payload, agent) if payload == [] or "route" not in payload else trusting_of_routes(payload, agent)


def trusting_of_routes(payload, agent):
    found = agent.answer(payload["prompt"], payload["route"])
    return {"answer": found.text, "tier": found.tier, "cost_usd": found.cost_usd}


def raising(payload, agent):
    found = invoke(payload, agent)
    if "error" in found:
        raise ValueError(found["error"])
    return found


def text_only(payload, agent):
    return {"answer": invoke(payload, agent).get("answer")}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (trusting, "the agent was asked"),
        (without_a_look_at_the_route, "refuse before you pay"),
        (raising, "it raises ValueError"),
        (text_only, "give a dict with answer, tier and cost_usd"),
    ],
)
def test_8_3_names_the_mistake(wrong, said):
    assert said in check("8.3", wrong).text


@pytest.mark.parametrize(("number", "right"), [("8.1", request_cost), ("8.2", leaks), ("8.3", invoke)])
def test_the_right_answer_passes_and_an_open_one_does_not_raise(number, right):
    holds_for(number, right)


def test_the_collector_keeps_what_it_is_sent():
    with lab08.Collector() as collector:
        with open_tracing(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}) as tracer, tracer.request("ask"):
            pass
        assert [span["name"] for span in collector.spans] == ["ask"]
        assert collector.spans[0]["attributes"]["gen_ai.workflow.name"] == "ask"


def test_post_gives_answers_and_refusals_alike():
    with serve(make_app(lambda payload, session_id: {"said": payload["prompt"]})) as url:
        assert lab08.post(f"{url}/invocations", {"prompt": "Hi"}) == (200, {"said": "Hi"})
        assert lab08.post(f"{url}/invocations", [])[0] == 400


def test_the_table_counts_money_once_and_names_the_classifier():
    call = {"gen_ai.operation.name": "chat", "workshop.cost_usd": 0.25, "workshop.model": "m"}
    spans = (
        Span("t", "1", None, "ask", 0, 9_000_000, "UNSET"),
        Span("t", "2", "1", "chat x", 0, 1_000_000, "UNSET", {**call, "workshop.role": "classifier"}),
        Span("t", "3", "1", "chat", 2_000_000, 5_000_000, "UNSET", {**call, "workshop.cost_usd": 0.75}),
    )
    shown = lab08.where_it_went([Trace(spans)]).text
    assert "1 requests, USD 1.0" in shown
    assert "span=chat m  n=1  cost=USD 0.75" in shown
    assert "share=25%" in shown


@pytest.mark.parametrize(("p", "wanted"), [(50, 2), (95, 4), (100, 4), (1, 1)])
def test_percentiles_are_values_that_occurred(p, wanted):
    assert lab08.percentile([4, 1, 3, 2], p) == wanted


# --- the fence -------------------------------------------------------------------------------------------------------


def at(mode, catalogue, bedrock):
    return Workshop(Settings(mode=mode, region="us-west-2"), catalogue, bedrock)


@pytest.fixture
def _no_aws(monkeypatch):
    """Whoever asks for a session of boto3 has gone through the fence."""

    def refuse(*args, **kwargs):
        raise AssertionError("AWS was about to be called")

    monkeypatch.setattr("boto3.Session", refuse)


@pytest.mark.usefixtures("_no_aws")
@pytest.mark.parametrize(("mode", "really"), [("local", True), ("local", False), ("live", False)])
def test_nothing_is_deployed_without_the_live_door_and_the_flag(tmp_path, catalogue, bedrock, mode, really):
    workshop = at(mode, catalogue, bedrock)
    plan = lab08.deployment_plan(workshop, tmp_path)
    assert "The bill" in str(plan)
    assert "Nothing was deployed" in lab08.deploy_and_ask(plan, workshop, {"prompt": "x"}, really=really)


@pytest.mark.usefixtures("_no_aws")
def test_code_without_its_dependencies_is_refused_before_anything_is_made(tmp_path, catalogue, bedrock):
    workshop = at("live", catalogue, bedrock)
    with pytest.raises(ConfigurationError, match="no dependencies"):
        lab08.deploy_and_ask(lab08.deployment_plan(workshop, tmp_path), workshop, {"prompt": "x"}, really=True)
