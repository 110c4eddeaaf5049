"""What a small model answers to a question: a filled-in form where it has learned the fields, a clear refusal where it has not.

A field of the asked schema is filled
* by the trained pair, where its values are those of the workshop's own labels,
* by zero-shot similarity to the described labels, where it is another closed list (see `zero_shot`),
* by `speech`, where it is a stated confidence or a reasoning text.
Any other required field is refused by name: nothing is guessed silently. Questions of the shop are answered by `shop`.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from workshop_lib.bedrock.catalogue import ModelSpec
from workshop_lib.embedding import Vectors
from workshop_lib.local.models import shop, speech
from workshop_lib.local.models.trained import LABELS, TrainedModel, read_ticket
from workshop_lib.local.models.zero_shot import ZeroShot
from workshop_lib.local.wire import ServiceError
from workshop_lib.triage.datasets import Label

T = TypeVar("T")
Distribution = Mapping[str, float]
CONFIDENCE_NAMES = ("confidence", "certainty")
REASON_NAMES = ("reason", "reasoning", "rationale", "explanation", "summary")
PHRASE_NAMES = ("query", "question", "search", "text", "issue", "description", "message")
"""Open fields for which words of the question will do, where a model is free to choose among tools."""
JUDGE_SAYS = "From the workshop's answer key."


@dataclass(frozen=True)
class Question:
    """What a model is asked, as far as a small model can take it in."""

    system: str
    user: str
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: Mapping[str, Any] = field(default_factory=dict)
    json_schema: Mapping[str, Any] | None = None
    """Of `outputConfig`: the answer is JSON in the text."""
    temperature: float = 0.0
    messages: Sequence[Mapping[str, Any]] = ()
    """The conversation, as Converse has it."""
    luck: str = ""
    """What chance depends on; differs between repeated samples of one question."""

    def roll(self, what: str) -> float:
        """A number in [0, 1) for one decision of this answer."""
        return speech.chance(what, self.luck)


@dataclass(frozen=True)
class Said:
    """What a model says: text, or calls of tools."""

    text: str
    """The calls' arguments as JSON, if there are calls."""
    calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    """Tool and arguments."""
    form: bool = False
    """The call fills in a form that was asked for: a model that does not honour forced tools may write it as text."""


class Answerer:
    """The small models behind the catalogue's names. Safe to share between threads."""

    def __init__(
        self,
        cheap: TrainedModel,
        strong: TrainedModel,
        zero_shot: ZeroShot,
        key: Callable[[], Mapping[str, Label]],
        shop_model: Callable[[], shop.ShopModel],
    ) -> None:
        """
        Args:
            cheap, strong: the trained pair.
            zero_shot: for closed lists that the pair was not trained on.
            key: gives the answer key by `read_ticket` text; called when the judge is first asked.
            shop_model: gives the pair for the shop; called at the first question of the shop.
        """
        self._models = {"cheap": cheap, "strong": strong, "judge": strong}
        self._zero_shot = zero_shot
        self._key, self._shop = _once(key), _once(shop_model)
        # The same tickets are asked again and again: by a baseline and a cascade, by votes, by a cell that is run twice.
        self._read = functools.lru_cache(maxsize=4096)(lambda manner, text: self._models[manner].predict(text))
        self._quote = functools.lru_cache(maxsize=4096)(
            lambda manner, text, lead: self._models[manner].telling_sentence(text, lead)
        )

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, by the embedder that all of them share."""
        return self._zero_shot.embedder.embed(texts)

    def answer(self, spec: ModelSpec, question: Question) -> Said:
        """Text, or calls of tools.

        Raises:
            ServiceError: a field is asked that no small model can fill.
        """
        label = not question.tools and question.json_schema is None and shop.asks_label(question.system)
        tools = {t["name"]: t for t in question.tools if shop.is_tool(t)}
        if label:
            return Said(self._label(spec, question))
        if tools and "none" not in question.tool_choice:
            return self._serve(spec, question, tools)
        free = "auto" in question.tool_choice and bool(question.tools)
        asked, results = shop.last_question(question.messages)
        if free and results:  # somebody else's agent
            return Said(self._shop().answer(spec.stand_in, asked, results))
        tool = self._choose(question, asked)
        if tool is None and question.json_schema is None:
            return Said(self._chat(spec, question))
        if tool is not None and free and len(question.tools) > 1:
            return self._free_call(spec, question, tool, asked)
        schema = tool["inputSchema"]["json"] if tool is not None else question.json_schema
        filled = self._fill(spec.stand_in, question, schema)
        text = json.dumps(filled, ensure_ascii=False)
        return Said(text, ((tool["name"], filled),) if tool is not None else (), form=True)

    def _label(self, spec: ModelSpec, question: Question) -> str:
        """simple or complex; now and then in a sentence."""
        text, _ = shop.last_question(question.messages)
        likely = self._shop().label(spec.stand_in, text)
        label, _ = _pick(likely, question, "label")
        if question.roll("sentence") < speech.SENTENCE_SHARE:
            return speech.as_sentence(label, min(likely.keys() - {label}), question.roll("which sentence"))
        return label

    def _serve(self, spec: ModelSpec, question: Question, tools: Mapping[str, Mapping[str, Any]]) -> Said:
        """Look up what a customer asks about; once the results are there, answer from them."""
        text, results = shop.last_question(question.messages)
        model, manner = self._shop(), spec.stand_in
        if results:
            return Said(model.answer(manner, text, results))
        forced = question.tool_choice.get("tool", {}).get("name")
        offered = [name for name in tools if forced in (None, name)]
        lookups = model.lookups(manner, text, offered, must=forced is not None or "any" in question.tool_choice)
        if not lookups:
            return Said(model.reply(manner, text))
        calls = []
        for tool, key in lookups[: 1 if forced else None]:
            name = shop.ARGUMENTS[tool]
            value, known = model.argument((tool, key)), labels_of(shop.form_of(tools[tool]))
            if known and value not in known:  # another shop's list
                likely = self._zero_shot.distribution(manner, text, {label: label for label in known})
                value = max(likely, key=likely.__getitem__)
            if (tool, {name: value}) not in calls:
                calls.append((tool, {name: value}))
        return Said(" ".join(json.dumps(given, ensure_ascii=False) for _, given in calls), calls)

    def _free_call(self, spec: ModelSpec, question: Question, tool: Mapping[str, Any], asked: str) -> Said:
        """One of several tools that nobody was trained on; said in words, if its form asks for what is not known."""
        phrases = {}
        for name, form in _form(tool["inputSchema"]["json"])[0].items():
            if name in PHRASE_NAMES and form.get("type") == "string" and not labels_of(form):
                about = f"{tool['name'].replace('_', ' ')}: {tool.get('description', '')} {form.get('description', '')}"
                likely = self._zero_shot.distribution("strong", about, {part: part for part in speech.sentences(asked)})
                phrases[name] = max(likely, key=likely.__getitem__)
        try:
            filled = self._fill(spec.stand_in, question, tool["inputSchema"]["json"], phrases)
        except ServiceError as error:
            return Said(f"I would call {tool['name']}, but do not know what to give it. {error.message}")
        return Said(json.dumps(filled, ensure_ascii=False), ((tool["name"], filled),))

    def _choose(self, question: Question, asked: str) -> Mapping[str, Any] | None:
        if not question.tools or "none" in question.tool_choice:
            return None
        forced = question.tool_choice.get("tool", {}).get("name")
        if forced is not None:
            return next(t for t in question.tools if t["name"] == forced)
        if len(question.tools) == 1:
            return question.tools[0]
        described = {t["name"]: f"{t['name'].replace('_', ' ')}: {t.get('description', '')}" for t in question.tools}
        likely = self._zero_shot.distribution("strong", read_ticket(asked), described)
        best = max(likely, key=likely.__getitem__)
        return next(t for t in question.tools if t["name"] == best)

    def _fill(
        self, manner: str, question: Question, schema: object, phrases: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The form, filled in; `phrases` are what open fields get.

        Raises:
            ServiceError: another field is asked that no small model can fill.
        """
        text = read_ticket(question.user)
        properties, required = _form(schema)
        filled: dict[str, Any] = {}
        learned, certainty = self._learned(manner, text, properties, question)
        key = self._key().get(text) if manner == "judge" and learned else None
        for name, form in properties.items():
            values = labels_of(form)
            if phrases and name in phrases:
                filled[name] = phrases[name]
            elif name in learned:
                filled[name] = learned[name] if key is None else getattr(key, name)
            elif values and form.get("type") != "boolean":
                described = describe_labels(values, form.get("description", ""), question.system)
                chosen, p = _pick(self._zero_shot.distribution(manner, text, described), question, name)
                filled[name], certainty = chosen, certainty * p
        lead = str(next(iter(filled.values()), ""))
        for name, form in properties.items():
            if name in filled:
                continue
            if form.get("type") == "number" and name in CONFIDENCE_NAMES:
                filled[name] = speech.stated_confidence(certainty, manner=manner, text=text, salt=question.luck)
            elif form.get("type") == "string" and name in REASON_NAMES:
                filled[name] = JUDGE_SAYS if key is not None else self._reason(manner, text, lead, bool(learned))
                filled[name] = filled[name][: form.get("maxLength", 2_000)]
            elif name in required:
                raise ServiceError(
                    "ValidationException",
                    f"The small model behind this local endpoint cannot fill the field '{name}' of type {form.get('type', 'any')}: it "
                    "fills closed lists (enum), 'confidence' and 'reasoning'. Make the field one of these or optional, or use "
                    "WORKSHOP_MODE=live.",
                )
        return {name: filled[name] for name in properties if name in filled}

    def _learned(
        self, manner: str, text: str, properties: Mapping[str, Any], question: Question
    ) -> tuple[dict[str, str | bool], float]:
        """What the trained pair says in the fields that ask exactly what it was trained on, and how probable that is."""
        same = [n for n, form in properties.items() if n in LABELS and set(labels_of(form)) == set(LABELS[n])]
        if not any("enum" in properties[n] for n in same):
            return {}, 1.0  # a lone yes/no may mean anything
        likely = self._read(manner, text)
        category, p_category = _pick(likely["category"], question, "category")
        urgency, p_urgency = _pick(likely["urgency"], question, "urgency")
        priority, flag = urgency.split("+")
        said: dict[str, str | bool] = {"category": category, "priority": priority, "needs_human": flag == "true"}
        certainty = (p_category if "category" in same else 1.0) * (
            p_urgency if len(same) > 1 or "category" not in same else 1.0
        )
        return {n: said[n] for n in same}, certainty

    def _reason(self, manner: str, text: str, lead: str, learned: bool) -> str:
        quoted = self._quote(manner, text, lead) if learned else speech.sentences(text)[0]
        return f'Reads as {lead}: "{quoted[:160]}"'

    def _chat(self, spec: ModelSpec, question: Question) -> str:
        """Without a form to fill, say what this is and what it reads in the text."""
        read = self._read(spec.stand_in, read_ticket(question.user))
        category, urgency = (max(read[head], key=read[head].__getitem__) for head in ("category", "urgency"))
        priority, flag = urgency.split("+")
        person = "needs a person" if flag == "true" else "no person needed"
        seen = f"{category} ({read['category'][category]:.0%}), {priority}, {person} ({read['urgency'][urgency]:.0%})"
        return (
            f"I am the small local model that stands in for {spec.label}: a text classifier, not a language model. "
            f"Read as a support ticket, your message looks like: {seen}. Give me a tool with closed lists to fill in."
        )


def _once(make: Callable[[], T]) -> Callable[[], T]:
    """Make it at the first call, and once: the other threads wait, since to make it for each takes all of them longer."""
    lock, made = threading.Lock(), functools.cache(make)

    def get() -> T:
        with lock:
            return made()

    return get


def _form(schema: object) -> tuple[Mapping[str, Mapping[str, Any]], set[str]]:
    """Fields and required names of a schema.

    Raises:
        ServiceError: it is not the schema of an object.
    """
    properties = schema.get("properties", {}) if isinstance(schema, Mapping) else None
    required = schema.get("required", []) if isinstance(schema, Mapping) else None
    if (
        not isinstance(properties, Mapping)
        or not all(isinstance(form, Mapping) for form in properties.values())
        or not isinstance(required, list)
        or not all(isinstance(name, str) for name in required)
        or not all(isinstance(form.get("enum", []), list) for form in properties.values())
    ):
        raise ServiceError("ValidationException", "The tool's inputSchema is not a JSON Schema of an object.")
    return properties, set(required)


def labels_of(form: Mapping[str, Any]) -> tuple[str, ...]:
    """The closed list of a field's schema as strings; () if it is open."""
    if form.get("type") == "boolean":
        return ("true", "false")
    return tuple(str(v) for v in form.get("enum", ()) if isinstance(v, str))


def describe_labels(labels: Sequence[str], description: str, system: str) -> dict[str, str]:
    """Each label with what the field's description or the system prompt says behind "label:" on a line or between semicolons."""
    said = [piece.strip(" -*\t") for line in f"{description}\n{system}".splitlines() for piece in line.split(";")]
    described = {}
    for label in labels:
        found = next((s for s in said if s.lower().startswith(label.lower() + ":")), None)
        described[label] = found or label.replace("_", " ")
    return described


def _pick(likely: Distribution, question: Question, name: str) -> tuple[str, float]:
    """A label and its probability: the likeliest at temperature 0, above it drawn from the distribution at that temperature."""
    if question.temperature <= 0:
        best = max(likely, key=likely.__getitem__)
        return best, likely[best]
    most = max(likely.values())
    weights = {label: (p / most) ** (1 / question.temperature) for label, p in likely.items()}
    left = question.roll(name) * sum(weights.values())
    for label, weight in weights.items():
        left -= weight
        if left < 0:
            return label, likely[label]
    return label, likely[label]
