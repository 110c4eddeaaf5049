"""What is asked of the models: a schema, a prompt, and which answers carry stakes. Triage is one task; a lead score is another.

LEADS = Task(name="leads", schema=Lead, system="Score the lead. ...", stakes=lambda d: ["hot"] if d.grade == "hot" else [])
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from workshop_lib.bedrock.client import Tool
from workshop_lib.bedrock.errors import InvalidOutput
from workshop_lib.bedrock.replies import Reply
from workshop_lib.triage import prompts
from workshop_lib.triage.schema import Decision, Ticket

D = TypeVar("D", bound=BaseModel)


def describe(item: Any) -> str:
    """An item as the user message of a task without its own: its text, or the JSON of a pydantic model, between delimiters."""
    text = item.model_dump_json(exclude={"id"}) if isinstance(item, BaseModel) else str(item)
    return f"<item>\n{defuse(text)}\n</item>"


def defuse(text: str) -> str:
    """Text that cannot close our own delimiters: `<` before a letter or a slash becomes a look-alike."""
    return re.sub(r"<(?=[^\W\d_]|/)", "\u2039", text)


@dataclass(frozen=True)
class Task(Generic[D]):
    """Schema + prompt + stakes. `D` is the pydantic class of its decisions."""

    name: str
    schema: type[D]
    """What a decision is; becomes the tool that the model must call. A field `confidence` (0..1), if any, is its stated confidence."""
    system: str
    """The system prompt: the rubric, and that the item is untrusted."""
    version: str = "1"
    describe: Callable[[Any], str] = describe
    """Item to user message, delimited."""
    stakes: Callable[[D], Iterable[str]] = lambda decision: ()
    """Which stakes a decision touches, by name: what the cheap tier must never decide alone."""
    flags: tuple[str, ...] = ()
    """Boolean fields that a later tier may raise but never lower."""
    max_tokens: int = 512

    @cached_property  # pydantic takes longer to write a schema than boto3 to send it
    def tool(self) -> Tool:
        """The tool whose input is a decision."""
        schema = self.schema.model_json_schema()
        return Tool(
            name=f"record_{self.name}", description=f"Record the {self.name} decision.", schema=_inlined(schema)
        )

    @property
    def fingerprint(self) -> str:
        """Hash of everything the model is told, for provenance."""
        told = json.dumps([self.name, self.version, self.system, self.tool.to_wire()], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def parse(self, reply: Reply) -> D:
        """The decision in a reply, whether it came as a tool call or as JSON in the text.

        Raises:
            InvalidOutput: cut off, no JSON, or JSON that the schema refuses; the message says which field and why.
        """
        if reply.blocked:
            raise InvalidOutput("A guardrail stepped in.", reply=reply, advice="A person should look at the item.")
        if reply.stop_reason == "max_tokens":
            raise InvalidOutput(f"The answer was cut off after {reply.usage.output_tokens} tokens.", reply=reply)
        data = reply.data
        if data is None:
            raise InvalidOutput("The answer holds no JSON object.", reply=reply)
        try:
            decision = self.schema.model_validate(data)
            json.dumps(decision.model_dump(mode="json"), allow_nan=False, ensure_ascii=False).encode()
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'decision'}: {e['msg']}" for e in error.errors()[:5]
            )
            raise InvalidOutput(f"The answer does not fit the schema: {problems}.", reply=reply) from None
        except ValueError as error:  # NaN, or half of a character pair: no row could be written of it
            raise InvalidOutput(f"The answer cannot be kept as JSON: {error}.", reply=reply) from None
        return decision


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without `$defs`: not every model follows references."""
    defs = schema.pop("$defs", {})

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(n) for n in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            target = defs[node["$ref"].rsplit("/", 1)[-1]]
            node = {**target, **{k: v for k, v in node.items() if k != "$ref"}}
        return {k: walk(v) for k, v in node.items() if k != "title" or not isinstance(v, str)}

    walked: dict[str, Any] = walk(schema)
    return walked


def _describe_ticket(ticket: Ticket) -> str:
    return prompts.TICKET.substitute(
        customer_tier=ticket.customer_tier or "unknown", subject=defuse(ticket.subject), body=defuse(ticket.body)
    )


def _triage_stakes(decision: Decision) -> Iterable[str]:
    if decision.priority.is_urgent:
        yield "urgent_priority"
    if decision.needs_human:
        yield "needs_human"


TRIAGE: Task[Decision] = Task(
    name="triage",
    schema=Decision,
    system=prompts.TRIAGE_SYSTEM,
    version=prompts.TRIAGE_VERSION,
    describe=_describe_ticket,
    stakes=_triage_stakes,
    flags=("needs_human",),
)
