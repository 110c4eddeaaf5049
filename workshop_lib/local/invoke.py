"""InvokeModel's bodies: each provider's own dialect, translated to Converse and back (Anthropic's Messages, OpenAI-style chat)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workshop_lib.bedrock.catalogue import ModelSpec
from workshop_lib.local.wire import ServiceError


@dataclass(frozen=True)
class Dialect:
    """A body in Converse's form, and the way back for its answer."""

    params: dict[str, Any]
    from_converse: Callable[[Mapping[str, Any]], dict[str, Any]]


def to_converse(spec: ModelSpec, body: bytes) -> Dialect:
    """Read a body in the dialect of the model's provider.

    Raises:
        ServiceError: the body is not in that dialect.
    """
    try:
        given = json.loads(body)
        return _anthropic(spec, given) if "anthropic" in spec.base_id else _chat(spec, given)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServiceError(
            "ValidationException",
            f"Malformed input request: {type(error).__name__} {error}, please reformat your input and try again.",
        ) from None


def _anthropic(spec: ModelSpec, given: Mapping[str, Any]) -> Dialect:
    messages = [{"role": m["role"], "content": _texts(m["content"])} for m in given["messages"]]
    params: dict[str, Any] = {"messages": messages, "inferenceConfig": {"maxTokens": given["max_tokens"]}}
    if given.get("system"):
        params["system"] = _texts(given["system"])
    if "temperature" in given:
        params["inferenceConfig"]["temperature"] = given["temperature"]
    if given.get("tools"):
        specs = [{"name": t["name"], "inputSchema": {"json": t["input_schema"]}} for t in given["tools"]]
        params["toolConfig"] = {"tools": [{"toolSpec": s} for s in specs]}
        choice = given.get("tool_choice", {"type": "auto"})
        params["toolConfig"]["toolChoice"] = (
            {"tool": {"name": choice["name"]}} if choice["type"] == "tool" else {choice["type"]: {}}
        )

    def back(result: Mapping[str, Any]) -> dict[str, Any]:
        usage = result["usage"]
        content = []
        for block in result["output"]["message"]["content"]:
            use = block.get("toolUse")
            content.append(
                {"type": "tool_use", "id": use["toolUseId"], "name": use["name"], "input": use["input"]}
                if use
                else {"type": "text", "text": block["text"]}
            )
        return {
            "id": "msg_local",
            "type": "message",
            "role": "assistant",
            "model": spec.base_id,
            "content": content,
            "stop_reason": result["stopReason"],
            "usage": {"input_tokens": usage["inputTokens"], "output_tokens": usage["outputTokens"]},
        }

    return Dialect(params, back)


def _chat(spec: ModelSpec, given: Mapping[str, Any]) -> Dialect:
    turns = [{"role": m["role"], "content": _texts(m["content"])} for m in given["messages"] if m["role"] != "system"]
    system = [block for m in given["messages"] if m["role"] == "system" for block in _texts(m["content"])]
    inference = {"maxTokens": given.get("max_tokens", spec.max_output_tokens)}
    if "temperature" in given:
        inference["temperature"] = given["temperature"]
    params = {"messages": turns, "inferenceConfig": inference} | ({"system": system} if system else {})

    def back(result: Mapping[str, Any]) -> dict[str, Any]:
        usage = result["usage"]
        text = "".join(b.get("text", "") for b in result["output"]["message"]["content"])
        finish = "length" if result["stopReason"] == "max_tokens" else "stop"
        return {
            "id": "chatcmpl-local",
            "object": "chat.completion",
            "model": spec.base_id,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
            "usage": {
                "prompt_tokens": usage["inputTokens"],
                "completion_tokens": usage["outputTokens"],
                "total_tokens": usage["totalTokens"],
            },
        }

    return Dialect(params, back)


def _texts(content: Any) -> list[dict[str, str]]:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [{"text": block["text"]} for block in blocks if block.get("type", "text") == "text"]
