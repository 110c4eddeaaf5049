"""The shop at the local door: a label, look-ups, an answer; asked over HTTP by a plain boto3 client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.embedding import Embedder
from workshop_lib.local.models.shop import ARGUMENTS, ShopModel, learn
from workshop_lib.local.models.speech import SENTENCE_SHARE, as_sentence
from workshop_lib.shop import Question, load_questions, load_shop

NANO = "nvidia.nemotron-nano-3-30b"
SONNET = "us.anthropic.claude-sonnet-4-6"
SHOP = load_shop()
CLASSIFIER = [{"text": "Answer with one word.\nsimple: one look-up\ncomplex: all else\nHello!\nsimple"}]
ENUMS = {"return_policy": list(SHOP.categories), "store_info": [t.key for t in SHOP.topics]}


def _tool(name: str, argument: str, description: str = "", values: list[str] | None = None) -> dict[str, Any]:
    form = {"type": "string", "description": argument, **({"enum": values} if values else {})}
    schema = {"type": "object", "properties": {argument: form}, "required": [argument]}
    return {"toolSpec": {"name": name, "description": description or name, "inputSchema": {"json": schema}}}


TOOLS = {"tools": [_tool(name, argument, values=ENUMS.get(name)) for name, argument in ARGUMENTS.items()]}


def _said(role: str, *content: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(content)}


def _asked(text: str) -> dict[str, Any]:
    return _said("user", {"text": f"<question>\n{text}\n</question>"})


def _calls(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Tool and argument of each call."""
    uses = [b["toolUse"] for b in answer["output"]["message"]["content"] if "toolUse" in b]
    return [(use["name"], next(iter(use["input"].values()))) for use in uses]


def _text(answer: Mapping[str, Any]) -> str:
    return "".join(b.get("text", "") for b in answer["output"]["message"]["content"])


def _looked_up(name: str, argument: str) -> str:
    """What the shop says."""
    if name == "product_info" and argument in SHOP.categories:
        return "\n\n".join(p.text for p in SHOP.products_of(argument))
    if name == "tech_support":
        return next(a.text for a in SHOP.support if a.title == argument)
    if name == "web_search":
        return next(f"{p.title}\n{p.text}" for p in SHOP.web_pages if argument.startswith(p.title))
    find = {"return_policy": SHOP.return_policy, "product_info": SHOP.product, "store_info": SHOP.topic}[name]
    return find(argument).text


def _with_results(question: str, answer: Mapping[str, Any], *, error: str = "") -> list[dict[str, Any]]:
    message = answer["output"]["message"]
    results = []
    for block in message["content"]:
        use = block["toolUse"]
        said = error or _looked_up(use["name"], next(iter(use["input"].values())))
        status = {"status": "error"} if error else {}
        results.append({"toolResult": {"toolUseId": use["toolUseId"], "content": [{"text": said}], **status}})
    return [_asked(question), message, _said("user", *results)]


@pytest.fixture(scope="module", autouse=True)
def fitted() -> ShopModel:
    """Fitted before anybody asks over HTTP, where nobody waits for more than ten seconds; the endpoint finds what was fitted."""
    return learn(Embedder(PROJECT / ".cache"), data_dir=PROJECT / "data", cache_dir=PROJECT / ".cache")


@pytest.fixture
def serve(ask):
    """Question to the calls of the first turn and the answer of the second."""

    def serve(question: str, model: str, **fields: Any) -> tuple[list[tuple[str, str]], Any]:
        first = ask(modelId=model, messages=[_asked(question)], toolConfig=TOOLS)
        if first["stopReason"] != "tool_use":
            return [], first
        return _calls(first), ask(modelId=model, messages=_with_results(question, first), toolConfig=TOOLS, **fields)

    return serve


# Labels


@pytest.mark.parametrize("model", [NANO, SONNET], ids=["cheap", "strong"])
@pytest.mark.parametrize(
    ("question", "label"),
    [
        ("What does the Tarn 13 cost?", "simple"),
        ("My Hush 500 won't pair with my new phone any more. What can I do?", "complex"),
        ("Tarn 13 or Tarn 15: which one should I take for travelling?", "complex"),
    ],
)
def test_a_classifier_prompt_gets_one_word(ask, model, question, label):
    answer = ask(modelId=model, messages=[_asked(question)], system=CLASSIFIER)
    assert (_text(answer), answer["stopReason"]) == (label, "end_turn")


def test_at_temperature_0_a_label_repeats_itself_and_above_it_may_change(ask):
    def labels(temperature: float, question: str) -> set[str]:
        config = {"temperature": temperature}
        asked = [ask(messages=[_asked(question)], system=CLASSIFIER, inferenceConfig=config) for _ in range(8)]
        return {_text(answer) for answer in asked}

    unsure = [q.text for q in load_questions("calibration")[:12]]
    assert all(len(labels(0.0, question)) == 1 for question in unsure[:3])
    assert any(len(labels(1.0, question)) > 1 for question in unsure)


def test_now_and_then_a_label_comes_as_a_sentence(ask):
    said = [
        _text(ask(messages=[_asked(f"{q.text} {i}")], system=CLASSIFIER))
        for q in load_questions("calibration")
        for i in range(2)
    ]
    long = [text for text in said if text not in ("simple", "complex")]
    assert 0 < len(long) / len(said) < 4 * SENTENCE_SHARE


@pytest.mark.parametrize("luck", [0.1, 0.9])
def test_a_sentence_ends_with_the_label_that_counts(luck):
    assert as_sentence("simple", "complex", luck).rstrip(".").endswith("simple")


# Look-ups


@pytest.mark.parametrize("model", [NANO, SONNET], ids=["cheap", "strong"])
@pytest.mark.parametrize(
    ("question", "calls"),
    [
        ("What does the Cairn Bar cost?", [("product_info", "cairn-bar")]),
        ("How long can I return a tablet?", [("return_policy", "tablets")]),
        ("What does express shipping cost?", [("store_info", "shipping")]),
        ("My Murmur Buds won't pair. What can I try?", [("tech_support", SHOP.article("earbuds-pairing").title)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_question_that_takes_one_look_up_gets_it(serve, model, question, calls):
    assert serve(question, model)[0] == calls


def test_the_strong_model_looks_up_several_things_in_one_turn_and_the_cheap_one_a_single_one(ask, serve):
    question = "How heavy is the Tarn 13? And what does shipping to Canada cost?"
    assert sorted(serve(question, SONNET)[0]) == [("product_info", "tarn-13"), ("store_info", "shipping")]
    assert len(serve(question, NANO)[0]) == 1
    content = ask(modelId=SONNET, messages=[_asked(question)], toolConfig=TOOLS)["output"]["message"]["content"]
    assert len({block["toolUse"]["toolUseId"] for block in content}) == len(content) == 2


def test_a_stream_carries_all_calls(boto):
    question = "How heavy is the Tarn 13? And what does shipping to Canada cost?"
    events = list(boto.converse_stream(modelId=SONNET, messages=[_asked(question)], toolConfig=TOOLS)["stream"])
    starts = [e["contentBlockStart"]["start"]["toolUse"]["name"] for e in events if "contentBlockStart" in e]
    assert sorted(starts) == ["product_info", "store_info"]
    assert next(e["messageStop"]["stopReason"] for e in events if "messageStop" in e) == "tool_use"


@pytest.mark.parametrize("model", [NANO, SONNET], ids=["cheap", "strong"])
@pytest.mark.parametrize("question", ["Hello!", "..."])
def test_small_talk_needs_no_look_up(serve, model, question):
    calls, answer = serve(question, model)
    assert (calls, answer["stopReason"]) == ([], "end_turn")


def test_of_a_conversation_the_last_question_counts(ask):
    before = [_asked("What does the Tarn 13 cost?"), _said("assistant", {"text": "It costs $949."})]
    answer = ask(modelId=SONNET, messages=[*before, _asked("How long can I return a tablet?")], toolConfig=TOOLS)
    assert _calls(answer) == [("return_policy", "tablets")]


def test_another_shops_list_of_categories_is_kept_to(ask):
    tools = {"tools": [_tool("return_policy", "category", values=["boats", "notebook computers"]), TOOLS["tools"][1]]}
    question = "How many days do I have to return a laptop?"
    answer = ask(modelId=SONNET, messages=[_asked(question)], toolConfig=tools)
    assert _calls(answer) == [("return_policy", "notebook computers")]


def test_a_forced_tool_is_called_whatever_is_asked(ask):
    tools = {**TOOLS, "toolChoice": {"tool": {"name": "store_info"}}}
    (call,) = _calls(ask(messages=[_asked("Hello!")], toolConfig=tools))
    assert call[0] == "store_info"


# Answers


@pytest.mark.parametrize("model", [NANO, SONNET], ids=["cheap", "strong"])
def test_an_answer_is_made_of_what_the_tool_said(serve, model):
    _, answer = serve("What does the Cairn Bar cost, and is it in stock?", model)
    assert answer["stopReason"] == "end_turn"
    assert "$389" in _text(answer)


def test_whoever_has_results_does_not_look_up_again(ask, serve):
    question = "How heavy is the Tarn 13? And what does shipping to Canada cost?"
    first = ask(modelId=SONNET, messages=[_asked(question)], toolConfig=TOOLS)
    for tools in (TOOLS, {**TOOLS, "toolChoice": {"any": {}}}):
        again = ask(modelId=SONNET, messages=_with_results(question, first), toolConfig=tools)
        assert (_calls(again), again["stopReason"]) == ([], "end_turn")


def test_a_tool_that_failed_is_owned_up_to(ask):
    question = "What does the Cairn Bar cost?"
    first = ask(messages=[_asked(question)], toolConfig=TOOLS)
    results = _with_results(question, first, error="The shop has no product 'x'. There are others.")
    assert "could not look everything up: The shop has no product 'x'." in _text(
        ask(messages=results, toolConfig=TOOLS)
    )


def test_max_tokens_cuts_an_answer_and_says_so(serve):
    question = "My Tarn 13 won't turn on any more. What should I try?"
    _, whole = serve(question, SONNET)
    _, cut = serve(question, SONNET, inferenceConfig={"maxTokens": 20})
    assert (cut["stopReason"], cut["usage"]["outputTokens"]) == ("max_tokens", 20)
    assert _text(whole).startswith(_text(cut))


def test_a_stop_sequence_cuts_an_answer_and_says_so(serve):
    question = "My Tarn 13 won't turn on any more. What should I try?"
    _, whole = serve(question, SONNET)
    _, cut = serve(question, SONNET, inferenceConfig={"stopSequences": ["never said", "2. "]})
    assert cut["stopReason"] == "stop_sequence"
    assert _text(cut) == _text(whole)[: _text(whole).index("2. ")]
    assert cut["usage"]["outputTokens"] < whole["usage"]["outputTokens"]


# Somebody else's tools


def test_of_tools_it_was_not_trained_on_it_calls_the_one_that_reads_most_alike(ask):
    tools = [
        _tool("weather", "query", "The weather forecast of a place: rain, wind, temperature."),
        _tool("currency", "query", "Exchange rates between currencies, and money in another currency."),
    ]
    answer = ask("I am packing. Will it rain in Lisbon tomorrow?", modelId=SONNET, toolConfig={"tools": tools})
    assert _calls(answer) == [("weather", "Will it rain in Lisbon tomorrow?")]


def test_it_says_in_words_what_it_cannot_fill_in(ask):
    tools = [_tool("track", "order_number", "Where a parcel is."), _tool("weather", "query", "The weather forecast.")]
    answer = ask("Where is my parcel?", modelId=SONNET, toolConfig={"tools": tools})
    assert answer["stopReason"] == "end_turn"
    assert "'order_number'" in _text(answer)


# How good they are


@pytest.fixture(scope="module")
def served(fitted) -> dict[str, list[tuple[Question, str]]]:
    """Calibration questions with the answers of each manner, asked without HTTP."""
    found: dict[str, list[tuple[Question, str]]] = {"cheap": [], "strong": []}
    for question in load_questions("calibration"):
        for manner, answers in found.items():
            calls = [(tool, fitted.argument((tool, key))) for tool, key in fitted.lookups(manner, question.text)]
            results = [(_looked_up(*call), False) for call in calls]
            said = fitted.answer(manner, question.text, results) if calls else fitted.reply(manner, question.text)
            answers.append((question, said))
    return found


def _share(answers: list[tuple[Question, str]], label: str) -> float:
    right = [not q.missing_facts(said) for q, said in answers if q.label == label and q.facts]
    return sum(right) / len(right)


def test_on_complex_questions_the_strong_model_says_far_more_of_what_it_must(served):
    assert _share(served["strong"], "complex") - _share(served["cheap"], "complex") >= 0.25


def test_on_simple_questions_both_mostly_say_it(served):
    assert _share(served["cheap"], "simple") >= 0.6
    assert _share(served["strong"], "simple") >= 0.7


def test_answers_have_a_sensible_length(served):
    words = {manner: [len(said.split()) for _, said in answers] for manner, answers in served.items()}
    assert max(words["cheap"]) <= 100 < 200 >= max(words["strong"])
    assert sum(words["cheap"]) < sum(words["strong"])


def test_the_key_of_held_out_questions_is_not_looked_at(tmp_path, fitted):
    shutil.copy(PROJECT / "data" / "shop.json", tmp_path / "shop.json")
    rows = [json.loads(line) for line in (PROJECT / "data" / "questions.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        if row["split"] in ("calibration", "test", "demo"):
            row |= {"label": "simple", "tools": [], "keys": {}, "facts": []}
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "questions.jsonl").write_text(lines, encoding="utf-8")
    other = learn(Embedder(PROJECT / ".cache"), data_dir=tmp_path, cache_dir=tmp_path)
    ours, theirs = fitted.learned(), other.learned()
    assert all(np.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)


def test_without_a_train_split_the_few_shot_examples_are_learned_from(tmp_path):
    shutil.copy(PROJECT / "data" / "shop.json", tmp_path / "shop.json")
    lines = (PROJECT / "data" / "questions.jsonl").read_text("utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["split"] != "train"]
    (tmp_path / "questions.jsonl").write_text("\n".join(kept), encoding="utf-8")
    small = learn(Embedder(PROJECT / ".cache"), data_dir=tmp_path, cache_dir=tmp_path)
    assert small.lookups("strong", "What does the Cairn Bar cost?") == [("product_info", "cairn-bar")]
    assert set(small.label("cheap", "What does it cost?")) == {"simple", "complex"}
