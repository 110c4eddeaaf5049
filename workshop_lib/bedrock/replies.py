"""What came back from one call: text or tool JSON, tokens, exact cost, time, and how many HTTP requests it took."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from workshop_lib.bedrock.catalogue import ModelSpec, Usage
from workshop_lib.bedrock.guardrails import assessments_of, blocks, policies_of


@dataclass(frozen=True)
class Reply:
    """One answer of one model."""

    model: str
    """Catalogue key of the model that answered."""
    model_id: str
    """The id that was called."""
    message: Mapping[str, Any]
    """The assistant's message as Converse returned it, ready to be appended to a conversation."""
    stop_reason: str
    usage: Usage
    cost_usd: float
    """USD of this call, all four token counters included."""
    latency_ms: float
    """What the service measured (`metrics.latencyMs`); simulated at the local door."""
    wall_ms: float
    """What the caller waited, retries included."""
    attempts: int = 1
    """HTTP requests sent for this call; 1 means that nothing was retried."""
    trace: Mapping[str, Any] = field(default_factory=dict)
    """Guardrail and router trace, where one was asked for."""
    request_id: str = ""

    @property
    def text(self) -> str:
        """All text blocks, joined."""
        return "".join(block["text"] for block in self.message.get("content", ()) if "text" in block)

    @property
    def tool_use(self) -> Mapping[str, Any] | None:
        """The first `toolUse` block, or None."""
        return next((block["toolUse"] for block in self.message.get("content", ()) if "toolUse" in block), None)

    @property
    def data(self) -> dict[str, Any] | None:
        """The JSON object that the model gave: its tool input, or else the first object in its text; None without one.

        Some models write their JSON as text although the tool is forced; both are accepted.
        """
        if self.tool_use is not None:
            found = self.tool_use.get("input")
            return found if isinstance(found, dict) else None
        return first_object(self.text)

    @property
    def came_as(self) -> Literal["tool", "text"]:
        """Whether the answer was a tool call or plain text."""
        return "tool" if self.tool_use is not None else "text"

    @property
    def blocked(self) -> bool:
        """Whether a guardrail withheld something. One that only masked is no block, where the trace says so."""
        if self.stop_reason != "guardrail_intervened":
            return False
        before, after = assessments_of(self.trace)
        return blocks([*before, *after]) or not policies_of([*before, *after])


@dataclass(frozen=True)
class StreamEvent:
    """One step of a streamed answer."""

    kind: Literal["started", "text", "tool_input", "restarted", "finished"]
    """`restarted`: the stream broke and the whole call is made again, so what came before is void."""
    text: str = ""
    """The fragment, for `text` and `tool_input` (a fragment of JSON)."""
    reply: Reply | None = None
    """The whole answer, with `finished`."""


class Gathered:
    """A Converse response put together from stream events."""

    def __init__(self) -> None:
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, str] = {}
        self._stop, self._metadata = "", dict[str, Any]()

    @property
    def complete(self) -> bool:
        """Whether the last events have come."""
        return bool(self._stop and self._metadata)

    def add(self, event: Mapping[str, Any]) -> Iterator[StreamEvent]:
        """Take in one event of the wire; yields what a reader should see of it."""
        ((kind, body),) = event.items()
        index = body.get("contentBlockIndex", 0)
        if kind == "contentBlockStart" and "toolUse" in body["start"]:
            self._blocks[index], self._inputs[index] = {"toolUse": dict(body["start"]["toolUse"])}, ""
        elif kind == "contentBlockDelta" and "text" in body["delta"]:
            block = self._blocks.setdefault(index, {"text": ""})
            block["text"] += body["delta"]["text"]
            yield StreamEvent("text", body["delta"]["text"])
        elif kind == "contentBlockDelta" and "toolUse" in body["delta"]:
            self._inputs[index] = self._inputs.get(index, "") + body["delta"]["toolUse"]["input"]
            yield StreamEvent("tool_input", body["delta"]["toolUse"]["input"])
        elif kind == "messageStop":
            self._stop = body["stopReason"]
        elif kind == "metadata":
            self._metadata = dict(body)

    def response(self) -> dict[str, Any]:
        """The response as Converse would have given it."""
        for index, text in self._inputs.items():
            try:
                self._blocks[index]["toolUse"]["input"] = json.loads(text or "{}")
            except ValueError:
                # Cut off by max_tokens: keep what came, so that the caller sees an invalid answer and not a crash.
                self._blocks[index]["toolUse"]["input"] = text
        content = [self._blocks[i] for i in sorted(self._blocks)]
        return {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": self._stop,
            **self._metadata,
        }


def first_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in a text that may have prose or code fences around it; None without one."""
    decoder, start = json.JSONDecoder(), text.find("{")
    while start != -1:
        try:
            found, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        return found if isinstance(found, dict) else None
    return None


def reply_from_wire(
    response: Mapping[str, Any], spec: ModelSpec, *, wall_ms: float, attempts: int | None = None
) -> Reply:
    """A Reply from a Converse response (or from the same shape assembled from a stream)."""
    usage = Usage.from_wire(response.get("usage", {}))
    meta = response.get("ResponseMetadata", {})
    return Reply(
        model=spec.key,
        model_id=spec.id,
        message=response.get("output", {}).get("message", {"role": "assistant", "content": []}),
        stop_reason=response.get("stopReason", ""),
        usage=usage,
        cost_usd=spec.cost(usage),
        latency_ms=float(response.get("metrics", {}).get("latencyMs", 0)),
        wall_ms=wall_ms,
        attempts=attempts or int(meta.get("RetryAttempts", 0)) + 1,
        trace=response.get("trace", {}),
        request_id=str(meta.get("RequestId", "")),
    )
