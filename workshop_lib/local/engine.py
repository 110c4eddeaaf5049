"""What the local endpoint answers: each operation of Bedrock Runtime, over the small models, metered like the real one."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from workshop_lib.bedrock.catalogue import Catalogue, ModelSpec, Usage
from workshop_lib.bedrock.replies import first_object
from workshop_lib.embedding import Vectors, count_wordpieces, first_wordpieces
from workshop_lib.local import guardrails, invoke
from workshop_lib.local.faults import MESSAGES, Fault, FaultSchedule
from workshop_lib.local.metering import PromptCache, Quotas, Segment
from workshop_lib.local.models.answers import Answerer, Question, Said
from workshop_lib.local.models.speech import TEXT_SHARE, as_text, chance
from workshop_lib.local.wire import ServiceError

TOKENS_PER_IMAGE = 1_500
Block = Mapping[str, Any]


@dataclass
class Answer:
    """A computed answer, before it is sent."""

    result: dict[str, Any]
    latency_ms: float
    usage: Usage = field(default_factory=Usage)
    cost_usd: float = 0.0
    fault: Fault | None = None
    """Struck by a fault that takes effect while the answer is sent."""


class Engine:
    """Answers operations. `answerer` is made at the first question, because training its models takes seconds."""

    def __init__(
        self,
        catalogue: Catalogue,
        answerer: Callable[[], Answerer],
        *,
        quotas: Quotas,
        cache: PromptCache,
        faults: FaultSchedule,
        guardrails: guardrails.Guardrails,
        check: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self.catalogue, self.quotas, self.cache, self.faults, self.guardrails = (
            catalogue,
            quotas,
            cache,
            faults,
            guardrails,
        )
        self._make_answerer, self._check = answerer, check
        self._answerer: Answerer | None = None
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()

    def operation(self, name: str) -> Callable[[dict[str, Any], str], Answer]:
        """The function of an operation.

        Raises:
            ServiceError: the local endpoint does not offer it.
        """
        offered: dict[str, Callable[[dict[str, Any], str], Answer]] = {
            "Converse": self.converse,
            "ConverseStream": self.converse,
            "CountTokens": self.count_tokens,
            "ApplyGuardrail": self.apply_guardrail,
            "InvokeModel": self.invoke_model,
        }
        if name not in offered:
            raise ServiceError(
                "UnknownOperationException", f"The local endpoint does not offer {name}; it has {', '.join(offered)}."
            )
        return offered[name]

    def converse(self, params: dict[str, Any], region: str, *, batch: bool = False) -> Answer:
        """Converse; a stream is cut from the same answer. As a record of a batch job it is not throttled, and priced as such."""
        spec = self.model(params["modelId"], region)
        _check_conversation(params, spec)
        fault = self.faults.next(params["modelId"], params.get("requestMetadata"))
        if fault is not None and fault.kind in MESSAGES:
            raise fault.error()
        asked = hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode()).hexdigest()
        segments = prompt_segments(params, spec)
        inference = params.get("inferenceConfig", {})
        asked_tokens = sum(s.tokens for s in segments)
        reserved = 0.0 if batch else self.quotas.reserve(spec, asked_tokens, inference.get("maxTokens"))
        usage = Usage()
        try:
            before = self._guard(params, "INPUT", _all_user_texts(params))
            if before is not None and before.blocked:
                return self._withheld(params, before)
            counters = self.cache.count(spec, segments)
            told = params if before is None else _with_user_texts(params, before.texts)
            content, stop, out_tokens = self._answer(told, spec, asked, fault)
            wire_usage = {**counters, "outputTokens": out_tokens}
            wire_usage["totalTokens"] = sum(
                wire_usage.get(k, 0)
                for k in ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
            )
            usage = Usage.from_wire(wire_usage)
        finally:
            self.quotas.settle(spec, reserved, usage)
        latency = draw_latency_ms(spec, asked) + (fault.delay_ms if fault is not None and fault.kind == "slow" else 0)
        # Tool calls are not looked at: the service's own guardrails read text alone.
        after = self._guard(params, "OUTPUT", [b["text"] for b in content if "text" in b])
        if (
            after is not None and after.action != "NONE"
        ):  # the model has answered and is paid for; its words are changed
            masked = iter(after.texts)
            content = [{"text": next(masked)} if "text" in block else block for block in content]
            content = [{"text": self._guardrail(params).blocked_message}] if after.blocked else content
            stop = "guardrail_intervened"
        result = {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": stop,
            "usage": wire_usage,
            "metrics": {"latencyMs": round(latency)},
            **self._trace(params, before, after),
        }
        if "serviceTier" in params:
            result["serviceTier"] = params["serviceTier"]
        cost = spec.cost(usage, batch=batch and spec.batch_price is not None)
        return Answer(result, latency, usage, cost, fault)

    def count_tokens(self, params: dict[str, Any], region: str) -> Answer:
        """CountTokens, of a Converse request or of an InvokeModel body."""
        spec = self.model(params["modelId"], region, counting=True)
        asked = params["input"]
        body = (
            asked["converse"] if "converse" in asked else invoke.to_converse(spec, asked["invokeModel"]["body"]).params
        )
        return Answer({"inputTokens": sum(s.tokens for s in prompt_segments(body, spec))}, 5)

    def apply_guardrail(self, params: dict[str, Any], region: str) -> Answer:
        """ApplyGuardrail: the check alone, without a model."""
        fault = self.faults.next("", operation="ApplyGuardrail")
        if fault is not None and fault.kind in MESSAGES:
            raise fault.error()
        guardrail = self.guardrails.get(params["guardrailIdentifier"], params["guardrailVersion"])
        texts = [c["text"]["text"] for c in params["content"] if "text" in c]
        found = guardrails.assess(guardrail, texts, params["source"], embed=self._embed)
        outputs = [guardrail.blocked_message] if found.blocked else list(found.texts)
        result = {
            "usage": found.wire["invocationMetrics"]["usage"],
            "action": found.action,
            "outputs": [{"text": t} for t in outputs] if found.action != "NONE" else [],
            "assessments": [found.wire],
        }
        return Answer(result, 80 + (fault.delay_ms if fault is not None else 0), fault=fault)

    def invoke_model(self, params: dict[str, Any], region: str) -> Answer:
        """InvokeModel in the provider's own dialect, answered through Converse."""
        spec = self.model(params["modelId"], region)
        dialect = invoke.to_converse(spec, params.get("body", b""))
        request = {**dialect.params, "modelId": params["modelId"]}
        self._check("Converse", request)
        answer = self.converse(request, region)
        answer.result = {
            "body": json.dumps(dialect.from_converse(answer.result)).encode(),
            "contentType": "application/json",
        }
        return answer

    def model(self, model_id: str, region: str, *, counting: bool = False) -> ModelSpec:
        """The model that an id calls in a Region.

        Raises:
            ServiceError: there is none, or only its inference profiles can be called.
        """
        spec = self.catalogue.by_id(model_id)
        if spec is None or (not model_id.startswith(("global.", "arn:")) and not region.startswith("us-")):
            raise ServiceError("ValidationException", "The provided model identifier is invalid.")
        if model_id.rsplit("/", 1)[-1] == spec.base_id and spec.base_id not in spec.ids.values() and not counting:
            raise ServiceError(
                "ValidationException",
                f"Invocation of model ID {model_id} with on-demand throughput isn\u2019t supported. Retry your request with the "
                "ID or ARN of an inference profile that contains this model.",
            )
        return spec

    def _guardrail(self, params: Mapping[str, Any]) -> guardrails.Guardrail:
        config = params["guardrailConfig"]
        return self.guardrails.get(config["guardrailIdentifier"], config["guardrailVersion"])

    def _guard(self, params: Mapping[str, Any], source: str, texts: Sequence[str]) -> guardrails.Assessment | None:
        """What the guardrail of the request finds, if it names one and there is text."""
        if not params.get("guardrailConfig") or not texts:
            return None
        return guardrails.assess(self._guardrail(params), texts, source, embed=self._embed)

    def _withheld(self, params: Mapping[str, Any], before: guardrails.Assessment) -> Answer:
        """The answer in place of a model's, where no model was asked."""
        message = self._guardrail(params).blocked_message
        result: dict[str, Any] = {
            "output": {"message": {"role": "assistant", "content": [{"text": message}]}},
            "stopReason": "guardrail_intervened",
            "usage": {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0},
            "metrics": {"latencyMs": 80},
            **self._trace(params, before, None),
        }
        return Answer(result, 80)

    def _trace(
        self,
        params: Mapping[str, Any],
        before: guardrails.Assessment | None,
        after: guardrails.Assessment | None,
    ) -> dict[str, Any]:
        """`trace` where the request asks for it: what was found, and in any case how many units were looked at."""
        config = params.get("guardrailConfig") or {}
        if config.get("trace", "disabled") == "disabled":
            return {}
        identifier = config["guardrailIdentifier"].rsplit("/", 1)[-1]
        guardrail: dict[str, Any] = {}
        if before is not None:
            guardrail["inputAssessment"] = {identifier: before.wire}
        if after is not None:
            guardrail["outputAssessments"] = {identifier: [after.wire]}
        found = [each for each in (before, after) if each is not None and each.action != "NONE"]
        if found:
            guardrail["actionReason"] = f"Guardrail {'blocked' if any(f.blocked for f in found) else 'masked'}."
        return {"trace": {"guardrail": guardrail}} if guardrail else {}

    def _answer(
        self, params: Mapping[str, Any], spec: ModelSpec, asked: str, fault: Fault | None
    ) -> tuple[list[dict[str, Any]], str, int]:
        """Content blocks, stop reason and output tokens."""
        inference = params.get("inferenceConfig", {})
        temperature = float(inference.get("temperature", 0.0))
        question = Question(
            system="\n".join(b["text"] for b in params.get("system", ()) if "text" in b),
            user="\n".join(_user_texts(params)),
            tools=[t["toolSpec"] for t in params.get("toolConfig", {}).get("tools", ()) if "toolSpec" in t],
            tool_choice=params.get("toolConfig", {}).get("toolChoice", {"auto": {}}),
            json_schema=_output_schema(params),
            temperature=temperature,
            messages=params["messages"],
            luck=f"{asked}/{self._nth(asked) if temperature > 0 else 0}",
        )
        if fault is not None and fault.kind == "invalid_output":
            said = Said("I looked at this carefully and would rather explain it in a meeting.")
        else:
            said = self._models().answer(spec, question)
        text, calls = said.text, said.calls
        if calls and said.form and not spec.honours_forced_tool and chance("as text", asked) < TEXT_SHARE:
            text, calls = as_text(text, chance("which text", asked)), ()
        stop = "tool_use" if calls else "end_turn"
        if not calls:
            ends = [text.find(sequence) for sequence in inference.get("stopSequences", ())]
            if max(ends, default=-1) >= 0:
                text, stop = text[: min(end for end in ends if end >= 0)], "stop_sequence"
        limit = inference.get("maxTokens", spec.max_output_tokens)
        wanted = math.ceil(count_wordpieces(text) * spec.token_ratio)
        if wanted > limit:
            text = first_wordpieces(text, int(limit / spec.token_ratio))
            return [{"text": text}], "max_tokens", limit
        if not calls:
            return [{"text": text}], stop, wanted
        uses = [
            {"toolUseId": _use_id(f"{asked}{i or ''}"), "name": name, "input": dict(given)}
            for i, (name, given) in enumerate(calls)
        ]
        return [{"toolUse": use} for use in uses], stop, wanted

    def _models(self) -> Answerer:
        with self._lock:
            if self._answerer is None:
                self._answerer = self._make_answerer()
            return self._answerer

    def _embed(self, texts: Sequence[str]) -> Vectors:
        return self._models().embed(texts)

    def warm_up(self) -> None:
        """Train or load the small models now, not at the first question."""
        self._models()

    def _nth(self, asked: str) -> int:
        with self._lock:
            self._asked[asked] += 1
            return self._asked[asked]


def stream_events(answer: Answer) -> Iterator[Mapping[str, Any] | ServiceError]:
    """A Converse answer as the events of ConverseStream, ended early by a fault that strikes mid-stream."""
    result = answer.result
    events: list[dict[str, Any]] = [{"messageStart": {"role": "assistant"}}]
    for index, block in enumerate(result["output"]["message"]["content"]):
        pieces: list[dict[str, Any]]
        if "toolUse" in block:
            use = block["toolUse"]
            start = {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}
            events.append({"contentBlockStart": {"start": start, "contentBlockIndex": index}})
            pieces = [{"toolUse": {"input": piece}} for piece in _pieces(json.dumps(use["input"]))]
        else:
            pieces = [{"text": piece} for piece in _pieces(block["text"])]
        events += [{"contentBlockDelta": {"delta": piece, "contentBlockIndex": index}} for piece in pieces]
        events.append({"contentBlockStop": {"contentBlockIndex": index}})
    if answer.fault is not None and answer.fault.mid_stream:
        yield from events[: max(3, len(events) // 2)]
        if answer.fault.kind != "cut":
            yield answer.fault.error()
        return
    yield from events
    yield {"messageStop": {"stopReason": result["stopReason"]}}
    yield {"metadata": {k: result[k] for k in ("usage", "metrics", "trace", "serviceTier") if k in result}}


def prompt_segments(params: Mapping[str, Any], spec: ModelSpec) -> list[Segment]:
    """The prompt cut at its cache points, in the order in which the service caches: tools, system, messages."""
    blocks: list[Block] = [*params.get("toolConfig", {}).get("tools", ()), *params.get("system", ())]
    for message in params.get("messages", ()):
        blocks += message["content"]
    segments: list[Segment] = []
    digest, pieces, counted = hashlib.sha256(), 0, 0
    for block in [*blocks, {"end": True}]:
        if "cachePoint" in block or "end" in block:
            tokens = math.ceil(pieces * spec.token_ratio) - counted
            counted += tokens
            ttl = block["cachePoint"].get("ttl", "5m") if "cachePoint" in block else None
            segments.append(Segment(tokens, digest.hexdigest(), ttl))
            continue
        digest.update(json.dumps(block, sort_keys=True, default=str).encode())
        pieces += _wordpieces(block)
    return segments


def draw_latency_ms(spec: ModelSpec, asked: str) -> float:
    """A latency from the catalogue's profile (log-normal through its p50 and p95); the same request draws the same one."""
    sigma = math.log(spec.latency_p95_ms / spec.latency_p50_ms) / NormalDist().inv_cdf(0.95)
    z = NormalDist().inv_cdf(min(max(chance("latency", spec.key, asked), 1e-6), 1 - 1e-6))
    return spec.latency_p50_ms * math.exp(sigma * z)


def _use_id(asked: str) -> str:
    return "tooluse_" + hashlib.sha256(asked.encode()).hexdigest()[:22]


def _wordpieces(block: Block) -> int:
    if "text" in block:
        return count_wordpieces(block["text"])
    if "image" in block:
        return TOKENS_PER_IMAGE
    if "toolResult" in block:
        return sum(_wordpieces(b) for b in block["toolResult"]["content"])
    return count_wordpieces(json.dumps(block, default=str))


def _pieces(text: str, size: int = 24) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)] or [""]


def _user_texts(params: Mapping[str, Any]) -> list[str]:
    """The texts of the user's first message: what the conversation is about (later ones correct the form of the answer)."""
    first = next((m for m in params["messages"] if m["role"] == "user"), {"content": ()})
    return [b["text"] for b in first["content"] if "text" in b]


def _all_user_texts(params: Mapping[str, Any]) -> list[str]:
    """What a guardrail looks at: everything the user says, in every turn."""
    return [b["text"] for m in params["messages"] if m["role"] == "user" for b in m["content"] if "text" in b]


def _with_user_texts(params: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """The request with the user's texts replaced, in the order of `_all_user_texts`."""
    left = iter(texts)

    def replaced(message: Mapping[str, Any]) -> Mapping[str, Any]:
        if message["role"] != "user":
            return message
        blocks = [{**block, "text": next(left)} if "text" in block else block for block in message["content"]]
        return {**message, "content": blocks}

    return {**params, "messages": [replaced(message) for message in params["messages"]]}


def _output_schema(params: Mapping[str, Any]) -> Mapping[str, Any] | None:
    asked = (
        params.get("outputConfig", {}).get("textFormat", {}).get("structure", {}).get("jsonSchema", {}).get("schema")
    )
    if asked is None and "toolConfig" not in params:  # a model without structured output is shown the schema
        _, shown, behind = " ".join(b["text"] for b in params.get("system", ()) if "text" in b).rpartition(
            "JSON Schema:"
        )
        return first_object(behind) if shown else None
    if asked is None:
        return None
    try:
        schema = json.loads(asked)
    except ValueError:
        schema = None
    if not isinstance(schema, dict):
        raise ServiceError(
            "ValidationException", "The JSON schema of outputConfig.textFormat is not a JSON object in a string."
        )
    return schema


def _check_conversation(params: Mapping[str, Any], spec: ModelSpec) -> None:
    """What the service refuses although every field has its proper shape."""

    def refuse(message: str, code: str = "ValidationException") -> ServiceError:
        return ServiceError(code, message)

    messages = params.get("messages") or ()
    if not messages or messages[0]["role"] != "user":
        raise refuse(
            "A conversation must start with a user message. Try again with a conversation that starts with a user message."
        )
    asked: set[str] = set()
    for i, message in enumerate(messages):
        if not message["content"]:
            raise refuse(
                f"The content field in the Message object at messages.{i} is empty. Add a ContentBlock object to the content field and try again."
            )
        for j, block in enumerate(message["content"]):
            if "text" in block and not block["text"].strip():
                raise refuse(
                    f"The text field in the ContentBlock object at messages.{i}.content.{j} is blank. Add text to the text field, and try again."
                )
            if "toolUse" in block:
                asked.add(block["toolUse"]["toolUseId"])
            if "toolResult" in block and block["toolResult"]["toolUseId"] not in asked:
                raise refuse(
                    f"The toolResult block at messages.{i}.content.{j} answers no toolUse block of the previous turns."
                )
    inference = params.get("inferenceConfig", {})
    if inference.get("maxTokens", 0) > spec.max_output_tokens:
        raise refuse(
            f"The maximum tokens you requested exceeds the model limit of {spec.max_output_tokens}. Try again with a maximum tokens "
            f"value that is lower than {spec.max_output_tokens}."
        )
    if "temperature" in inference and not spec.accepts_temperature:
        raise refuse("`temperature` is not supported for this model.")
    tools = [t["toolSpec"]["name"] for t in params.get("toolConfig", {}).get("tools", ()) if "toolSpec" in t]
    forced = params.get("toolConfig", {}).get("toolChoice", {}).get("tool", {}).get("name")
    if forced is not None and forced not in tools:
        raise refuse(f"The tool {forced} of toolChoice is not among the tools of the request.")
    if spec.cache_minimum_tokens is None and any("cachePoint" in b for b in _cacheable(params)):
        raise refuse("You invoked an unsupported model or your request did not allow prompt caching. See the documentation for more information.", "AccessDeniedException")  # fmt: skip


def _cacheable(params: Mapping[str, Any]) -> Iterator[Block]:
    yield from params.get("toolConfig", {}).get("tools", ())
    yield from params.get("system", ())
    for message in params["messages"]:
        yield from message["content"]
