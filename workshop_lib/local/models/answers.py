"""What a small model answers to a question: a filled-in form where it has learned the fields, a clear refusal where it has not.

A field of the asked schema is filled
* by the trained pair, where its values are those of the workshop's own labels,
* by zero-shot similarity to the described labels, where it is another closed list (see `zero_shot`),
* by `speech`, where it is a stated confidence or a reasoning text.
Any other required field is refused by name: nothing is guessed silently.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workshop_lib.bedrock.catalogue import ModelSpec
from workshop_lib.local.models import speech
from workshop_lib.local.models.trained import LABELS, TrainedModel, read_ticket
from workshop_lib.local.models.zero_shot import ZeroShot
from workshop_lib.local.wire import ServiceError
from workshop_lib.triage.datasets import Label

Distribution = Mapping[str, float]
CONFIDENCE_NAMES = ("confidence", "certainty")
REASON_NAMES = ("reason", "reasoning", "rationale", "explanation", "summary")
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
    luck: str = ""
    """What chance depends on; differs between repeated samples of one question."""

    def roll(self, what: str) -> float:
        """A number in [0, 1) for one decision of this answer."""
        return speech.chance(what, self.luck)


class Answerer:
    """The small models behind the catalogue's names. Safe to share between threads."""

    def __init__(
        self, cheap: TrainedModel, strong: TrainedModel, zero_shot: ZeroShot, key: Callable[[], Mapping[str, Label]]
    ) -> None:
        """
        Args:
            cheap, strong: the trained pair.
            zero_shot: for closed lists that the pair was not trained on.
            key: gives the answer key by `read_ticket` text, for the judge.
        """
        self._models = {"cheap": cheap, "strong": strong, "judge": strong}
        self._zero_shot, self._key = zero_shot, key
        # The same tickets are asked again and again: by a baseline and a cascade, by votes, by a cell that is run twice.
        self._read = functools.lru_cache(maxsize=4096)(lambda manner, text: self._models[manner].predict(text))
        self._quote = functools.lru_cache(maxsize=4096)(
            lambda manner, text, lead: self._models[manner].telling_sentence(text, lead)
        )

    def answer(self, spec: ModelSpec, question: Question) -> tuple[str | None, str]:
        """The tool that is called (None: plain text) and the answer, as JSON for a tool.

        Raises:
            ServiceError: a field is asked that no small model can fill.
        """
        tool = self._choose(question)
        if tool is None and question.json_schema is None:
            return None, self._chat(spec, question)
        schema = tool["inputSchema"]["json"] if tool is not None else question.json_schema
        filled = self._fill(spec.stand_in, question, schema)
        return (tool["name"] if tool is not None else None), json.dumps(filled, ensure_ascii=False)

    def _choose(self, question: Question) -> Mapping[str, Any] | None:
        if not question.tools or "none" in question.tool_choice:
            return None
        forced = question.tool_choice.get("tool", {}).get("name")
        if forced is not None:
            return next(t for t in question.tools if t["name"] == forced)
        if len(question.tools) == 1:
            return question.tools[0]
        described = {t["name"]: f"{t['name'].replace('_', ' ')}: {t.get('description', '')}" for t in question.tools}
        likely = self._zero_shot.distribution("strong", read_ticket(question.user), described)
        best = max(likely, key=likely.__getitem__)
        return next(t for t in question.tools if t["name"] == best)

    def _fill(self, manner: str, question: Question, schema: object) -> dict[str, Any]:
        text = read_ticket(question.user)
        properties, required = _form(schema)
        filled: dict[str, Any] = {}
        learned, certainty = self._learned(manner, text, properties, question)
        key = self._key().get(text) if manner == "judge" and learned else None
        for name, form in properties.items():
            values = labels_of(form)
            if name in learned:
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
