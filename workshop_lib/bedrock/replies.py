"""What came back from one call: text or tool JSON, tokens, exact cost, time, and how many HTTP requests it took."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from workshop_lib.bedrock.catalogue import ModelSpec, Usage


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
        """Whether a guardrail stepped in."""
        return self.stop_reason == "guardrail_intervened"


@dataclass(frozen=True)
class StreamEvent:
    """One step of a streamed answer."""

    kind: Literal["started", "text", "tool_input", "restarted", "finished"]
    """`restarted`: the stream broke and the whole call is made again, so what came before is void."""
    text: str = ""
    """The fragment, for `text` and `tool_input` (a fragment of JSON)."""
    reply: Reply | None = None
    """The whole answer, with `finished`."""


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
