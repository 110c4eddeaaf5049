"""What stands in a line of a batch job: what is asked of a model, and what came back of it, at which price.

A batch job of the type Converse takes no tool (Amazon Bedrock User Guide, "Process multiple prompts with batch inference"), and does
take structured output; one older copy of that page says that it does not. The order of the output is not that of the input.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from workshop_lib.bedrock import errors
from workshop_lib.bedrock.catalogue import ModelSpec, Usage
from workshop_lib.bedrock.client import Bedrock, Message, Tool
from workshop_lib.bedrock.errors import BedrockError
from workshop_lib.bedrock.replies import Reply, reply_from_wire
from workshop_lib.cascade.attempt import Tier, attempt
from workshop_lib.triage.task import Task

TEXT_FORM = "There is no tool to call here. Wherever one is spoken of, write what would be its input, one JSON object, as your whole answer."
_NOT_STRICT = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "default",
)
_BY_STATUS: dict[int, type[BedrockError]] = {
    408: errors.ModelTimeout, 424: errors.ModelFailed, 429: errors.Throttled, 403: errors.AccessDenied,
}  # fmt: skip


class AsText:
    """A client that asks for JSON in the text where a tool is given: what can be asked in a batch job as well as on demand.

    Where the catalogue lists structured output, the schema goes into `outputConfig.textFormat`, without the limits on numbers and
    lengths that it does not take; else into the system prompt. `Task.parse` checks the answer against the whole schema either way.
    """

    def __init__(self, client: Bedrock) -> None:
        self.client, self.catalogue = client, client.catalogue

    @property
    def door(self) -> dict[str, str]:
        """The client's, and that answers come as text: they are not mixed with those of a tool."""
        return {**self.client.door, "form": "text"}

    def converse(
        self,
        model: str,
        messages: str | Sequence[Message],
        *,
        system: str | Sequence[Message] = (),
        tool: Tool | None = None,
        **settings: Any,
    ) -> Reply:
        """As `Bedrock.converse`."""
        system, extra = self._form(model, system, tool)
        return self.client.converse(model, messages, system=system, extra=extra, **settings)

    def request(
        self, model: str, messages: Any, *, system: Any = (), tool: Tool | None = None, **settings: Any
    ) -> dict[str, Any]:
        """What `converse` sends for the same arguments."""
        system, extra = self._form(model, system, tool)
        return self.client.request(model, messages, system=system, extra=extra, **settings)

    def _form(
        self, model: str, system: str | Sequence[Message], tool: Tool | None
    ) -> tuple[str | Sequence[Message], dict[str, Any]]:
        if tool is None:
            return system, {}
        words, extra = TEXT_FORM, {}
        if self.catalogue[model].structured_output:
            schema = {"name": tool.name, "description": tool.description, "schema": json.dumps(_strict(tool.schema))}
            extra = {"outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}}
        else:
            words = f"{words} Its JSON Schema: {json.dumps(tool.schema)}"
        if isinstance(system, str):
            return f"{system}\n\n{words}".strip(), extra
        return [*system, {"text": words}], extra


class Asked(Exception):
    """What would be asked now."""

    def __init__(self, model: str, messages: Any, settings: Mapping[str, Any]) -> None:
        super().__init__(model)
        self.model, self.messages, self.settings = model, messages, settings


class Told:
    """A client that says what has come back so far, one after the other, and then does what it is told."""

    def __init__(self, came: Sequence[Reply | BedrockError], then: Callable[..., Reply]) -> None:
        self._left, self._then = deque(came), then

    def converse(self, model: str, messages: Any, **settings: Any) -> Reply:
        """As `Bedrock.converse`."""
        if not self._left:
            return self._then(model, messages, **settings)
        said = self._left.popleft()
        if isinstance(said, BedrockError):
            raise said
        return said


def not_now(model: str, messages: Any, **settings: Any) -> NoReturn:
    """Ends an attempt where it would have to ask."""
    raise Asked(model, messages, settings)


def refuse(error: BedrockError, *_: Any, **__: Any) -> NoReturn:
    """Ends an attempt with an error."""
    raise error


def to_line(
    client: AsText, record_id: str, item: Any, *, tier: Tier, task: Task[Any], came: Sequence[Reply | BedrockError]
) -> bytes:
    """A record for a job: exactly what would be asked on demand next, after what has come."""
    try:
        attempt(item, tier, task=task, client=Told(came, not_now))
    except Asked as asked:
        body = client.request(asked.model, asked.messages, **asked.settings)
        record = {"recordId": record_id, "modelInput": {k: v for k, v in body.items() if k != "modelId"}}
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"
    raise AssertionError(f"{record_id} has been answered")


def readable(raw: bytes) -> dict[str, Any]:
    """An output line that says something: with an answer in Converse's form, or with an error. Else nothing."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(line, dict):
        return {}
    line.pop("modelInput", None)  # the prompt again: nobody reads it, and all lines of a job are in memory at once
    said = line.get("modelOutput")
    if said is None:
        return line if isinstance(line.get("error"), dict) else {}
    try:
        blocks, usage = said["output"]["message"]["content"], said["usage"]
        Usage.from_wire(usage)
        whole = all(isinstance(block, dict) for block in blocks) and "inputTokens" in usage
    except (TypeError, KeyError, ValueError, AttributeError):
        return {}
    return line if whole else {}


def error_in(line: Mapping[str, Any], spec: ModelSpec) -> BedrockError:
    """The error in a record's place, as one of ours."""
    code, said = str(line["error"].get("errorCode", "")), str(line["error"].get("errorMessage", "no reason given"))
    status = int(code) if code.isdecimal() else 500
    kind = _BY_STATUS.get(status) or (errors.ServiceFault if status >= 500 else errors.InvalidRequest)
    return kind(f"{spec.key}: {said.rstrip('.')}.", model=spec.key, code=code, attempts=1)


def unread(manifest: Mapping[str, int], read: Usage, records: int) -> list[Usage]:
    """The tokens that a job counts and that no line shows, in equal parts for so many records."""
    names = (("inputTokenCount", read.prompt_tokens), ("outputTokenCount", read.output_tokens))
    left = [max(0, manifest.get(name, 0) - shown) for name, shown in names]
    parts = [[tokens * (i + 1) // records - tokens * i // records for tokens in left] for i in range(records)]
    return [Usage(input_tokens=part[0], output_tokens=part[1]) for part in parts]


def reply_in(line: Mapping[str, Any], spec: ModelSpec) -> Reply:
    """A line's answer, at the price of a batch job."""
    reply = reply_from_wire(line["modelOutput"], spec, wall_ms=0, attempts=1)
    return replace(reply, cost_usd=price_of(spec, reply.usage))


def lost_reply(spec: ModelSpec, usage: Usage) -> Reply:
    """What was paid for and cannot be read."""
    said: dict[str, Any] = {"role": "assistant", "content": []}
    return Reply(spec.key, spec.id, said, "", usage, price_of(spec, usage), latency_ms=0, wall_ms=0)


def price_of(spec: ModelSpec, usage: Usage) -> float:
    """USD of one record of a job; at the on-demand price where no batch price is listed."""
    return spec.cost(usage, batch=spec.batch_price is not None)


def price_said(spec: ModelSpec) -> str:
    """Which price that is."""
    return "batch price" if spec.batch_price is not None else "on-demand price: no batch price is listed"


def _strict(schema: Any) -> Any:
    """A schema as structured output takes it: closed objects, without limits on numbers and lengths."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, Any] = {}
    for key, part in schema.items():
        if key == "properties" and isinstance(part, Mapping):  # its keys are names, not keywords
            made[key] = {name: _strict(form) for name, form in part.items()}
        elif key not in _NOT_STRICT:
            made[key] = _strict(part)
    if made.get("type") == "object":
        made["additionalProperties"] = False
    return made
