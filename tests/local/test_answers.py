"""What the small models answer: repeatable at temperature 0, varied above it, and a clear refusal where they know nothing."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, Field

from workshop_lib.bedrock.client import Bedrock
from workshop_lib.bedrock.errors import InvalidRequest
from workshop_lib.bedrock.settings import Settings
from workshop_lib.local.models.answers import JUDGE_SAYS, Question, _pick, describe_labels, labels_of
from workshop_lib.local.server import LocalEndpoint
from workshop_lib.triage.datasets import load_labels, load_tickets
from workshop_lib.triage.schema import Ticket
from workshop_lib.triage.task import TRIAGE, Task

VAGUE = Ticket(id="T-own-2", subject="It stopped", body="Since the change it does not do what we pay for. Please look.")


def _ask(bedrock: Bedrock, model: str, item: object, task: Task = TRIAGE, **options):
    return bedrock.converse(model, task.describe(item), system=task.system, tool=task.tool, **options)


@pytest.fixture(scope="module")
def sixty() -> list[Ticket]:
    return load_tickets("calibration", limit=60)


@pytest.fixture(scope="module")
def second_endpoint(catalogue):
    with LocalEndpoint(catalogue, time_scale=0) as endpoint:
        yield endpoint


@pytest.mark.parametrize("model", ["cheap", "strong", "judge"])
def test_at_temperature_0_two_endpoints_answer_alike(bedrock, make_bedrock, second_endpoint, sixty, model):
    other = make_bedrock(Settings(mode="local", endpoint_url=second_endpoint.url))
    for ticket in sixty[:5]:
        here, there = (_ask(client, model, ticket) for client in (bedrock, other))
        assert (here.message, here.usage, here.latency_ms) == (there.message, there.usage, there.latency_ms)


def test_at_temperature_0_a_repeated_call_repeats_its_answer(bedrock):
    assert _ask(bedrock, "cheap", VAGUE).message == _ask(bedrock, "cheap", VAGUE).message


@pytest.mark.parametrize("model", ["cheap", "strong"])
def test_above_0_repeated_calls_vote_on_a_ticket_they_are_unsure_of(bedrock, sixty, model):
    def votes(ticket: Ticket) -> set[tuple[str, str]]:
        said = [_ask(bedrock, model, ticket, temperature=1.0).data for _ in range(6)]
        return {(data["category"], data["priority"]) for data in said}

    assert any(len(votes(ticket)) > 1 for ticket in [VAGUE, *sixty[:10]])


def test_a_tiny_temperature_is_as_good_as_0():
    question = Question("", "", temperature=0.0005, luck="any")
    assert _pick({"likely": 0.5, "less": 0.3, "least": 0.2}, question, "category") == ("likely", 0.5)


def test_the_cheap_model_often_writes_its_json_as_text(bedrock, sixty):
    replies = [_ask(bedrock, "cheap", ticket) for ticket in sixty]
    share = sum(reply.came_as == "text" for reply in replies) / len(replies)
    assert 0.15 <= share <= 0.45
    assert all(TRIAGE.parse(reply) for reply in replies)


def test_the_strong_model_always_calls_the_tool(bedrock, sixty):
    assert {_ask(bedrock, "strong", ticket).came_as for ticket in sixty[:6]} == {"tool"}


@pytest.mark.parametrize("model", ["cheap", "strong"])
def test_nobody_doubts_aloud(bedrock, sixty, model):
    assert min(_ask(bedrock, model, ticket).data["confidence"] for ticket in [VAGUE, *sixty[:8]]) >= 0.8


def test_the_strong_model_agrees_with_the_key_more_often(bedrock, sixty):
    key = load_labels()

    def agreement(model: str) -> int:
        return sum(_ask(bedrock, model, t).data["category"] == key[t.id].category for t in sixty[:30])

    assert agreement("cheap") < agreement("strong")


# The judge


def test_the_judge_reads_the_answer_key_and_says_so(bedrock, sixty):
    key = load_labels()
    for ticket in sixty[:10]:
        decision = TRIAGE.parse(_ask(bedrock, "judge", ticket))
        label = key[ticket.id]
        assert decision.reasoning == JUDGE_SAYS
        assert (decision.category, decision.priority, decision.needs_human) == (
            label.category,
            label.priority,
            label.needs_human,
        )


def test_on_a_ticket_of_its_own_the_judge_claims_no_key(bedrock, a_ticket):
    decision = TRIAGE.parse(_ask(bedrock, "judge", a_ticket))
    assert decision.reasoning != JUDGE_SAYS
    assert decision.category == "billing"


@pytest.mark.parametrize("model", ["cheap", "strong"])
def test_nobody_else_reads_the_key(bedrock, sixty, model):
    assert JUDGE_SAYS not in _ask(bedrock, model, sixty[0]).data["reasoning"]


# Forms that nobody was trained on


class Verdict(BaseModel):
    """What to do with a forum post."""

    verdict: Literal["allow", "insult", "advertisement"] = Field(
        description="allow: a normal question or remark; insult: attacks or belittles a person; advertisement: sells something"
    )
    confidence: float
    reasoning: str


MODERATION = Task(name="moderation", schema=Verdict, system="Moderate the post.")


@pytest.mark.parametrize(
    ("post", "verdict"),
    [
        ("You are an idiot and nobody likes you.", "insult"),
        ("Buy cheap watches now, 70 % discount in our shop!", "advertisement"),
    ],
    ids=["insult", "advertisement"],
)
def test_another_closed_list_is_filled_by_similarity(bedrock, post, verdict):
    assert MODERATION.parse(_ask(bedrock, "strong", post, MODERATION)).verdict == verdict


def test_the_cheap_model_fills_it_too(bedrock):
    assert MODERATION.parse(_ask(bedrock, "cheap", "hello", MODERATION)).confidence >= 0.8


class WithInteger(BaseModel):
    score: int


class WithText(BaseModel):
    product: str


class WithYesNo(BaseModel):
    polite: bool


@pytest.mark.parametrize(
    ("schema", "name"),
    [(WithInteger, "score"), (WithText, "product"), (WithYesNo, "polite")],
    ids=["integer", "text", "yes or no"],
)
def test_an_open_field_is_refused_by_name(bedrock, schema, name):
    with pytest.raises(InvalidRequest, match=f"'{name}'") as refused:
        _ask(bedrock, "strong", "hello", Task(name="other", schema=schema, system="Fill it in."))
    assert refused.value.code == "ValidationException"


class WithOptional(BaseModel):
    mood: Literal["calm", "angry"]
    note: str = ""


def test_an_optional_open_field_is_left_out(bedrock):
    data = _ask(bedrock, "strong", "hello", Task(name="other", schema=WithOptional, system="Fill it in.")).data
    assert set(data) == {"mood"}


class AllOptional(BaseModel):
    mood: Literal["calm", "angry"] = "calm"
    note: str = ""


def test_a_form_of_optional_fields_only_is_not_refused(bedrock):
    _ask(bedrock, "strong", "hello", Task(name="other", schema=AllOptional, system="Fill it in."))


# Labels


@pytest.mark.parametrize(
    ("form", "labels"),
    [
        ({"enum": ["a", "b"]}, ("a", "b")),
        ({"type": "boolean"}, ("true", "false")),
        ({"type": "string"}, ()),
        ({"enum": [1, 2]}, ()),
    ],
    ids=["enum", "yes or no", "open", "numbers"],
)
def test_a_closed_list_is_told_from_an_open_field(form, labels):
    assert labels_of(form) == labels


def test_a_label_is_described_by_its_field_or_else_by_the_prompt():
    described = describe_labels(
        ("hot", "cold_call", "odd"), "hot: asks for a price; x", "- cold_call: never wrote before"
    )
    assert described == {"hot": "hot: asks for a price", "cold_call": "cold_call: never wrote before", "odd": "odd"}
