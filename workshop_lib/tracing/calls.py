"""Which calls become spans: those of a client that is wrapped, under the request or the cascade's tier that is under way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan
from pydantic import BaseModel

from workshop_lib.bedrock.client import Message, Tool
from workshop_lib.bedrock.errors import UnknownModel
from workshop_lib.bedrock.replies import Reply, StreamEvent
from workshop_lib.cascade.attempt import Attempt, Converses, Event, Outcome, Reason, Tier, attempt
from workshop_lib.cascade.cascade import Cascade, id_of
from workshop_lib.tracing.store import COST, OPERATION
from workshop_lib.tracing.tracer import LiveSpan, Tracer, named, usage_attributes

D = TypeVar("D", bound=BaseModel)


class TracedClient:
    """A client whose calls are noted. Everything else is the wrapped client's own."""

    def __init__(self, client: Converses, tracer: Tracer) -> None:
        self._client, self._tracer = client, tracer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def converse(
        self,
        model: str,
        messages: str | Sequence[Message],
        *,
        system: str | Sequence[Message] = (),
        tool: Tool | None = None,
        max_tokens: int = 512,
        temperature: float | None = 0.0,
        **more: Any,
    ) -> Reply:
        """As the wrapped client's `converse`, as one span."""
        asked = {"system": system, "tool": tool, "max_tokens": max_tokens, "temperature": temperature, **more}
        with self._call(model, messages, asked) as answered:
            reply = self._client.converse(model, messages, **asked)
            answered(reply)
        return reply

    def stream(self, model: str, messages: str | Sequence[Message], **asked: Any) -> Iterator[StreamEvent]:
        """As the wrapped client's `stream`, as one span. A stream that is left before its end was paid for all the same; what it
        cost is not known, so its span has no cost.
        """
        client: Any = self._client
        with self._call(model, messages, asked, current=False) as answered:
            for event in client.stream(model, messages, **asked):
                if event.reply is not None:
                    answered(event.reply)
                yield event

    @contextmanager
    def _call(
        self, model: str, messages: str | Sequence[Message], asked: dict[str, Any], *, current: bool = True
    ) -> Iterator[Callable[[Reply], None]]:
        above = otel.get_current_span()
        noted: Mapping[str, Any] = (
            above.attributes or {} if isinstance(above, ReadableSpan) and above.is_recording() else {}
        )
        if noted.get(OPERATION) == "chat" and self._tracer.is_global:
            # Strands has opened this call's span: its figures go there, so that a call is one span and has one cost.
            yield lambda reply: above.set_attributes(named(_answered(reply, before=float(noted.get(COST, 0.0)))))
            return
        model_id = self._id_of(model)
        live = self._tracer.begin(
            f"chat {model_id}",
            kind=otel.SpanKind.CLIENT,
            **{
                OPERATION: "chat",
                "gen_ai.provider.name": "aws.bedrock",
                "gen_ai.request.model": model_id,
                "gen_ai.request.max_tokens": asked.get("max_tokens"),
                "gen_ai.request.temperature": asked.get("temperature"),
                "workshop.role": model,
                "workshop.tier": noted.get("workshop.tier"),
            },
        )
        if self._tracer.keep_texts:
            live.text(messages=messages if isinstance(messages, str) else json.dumps(messages, default=str))

        def answered(reply: Reply) -> None:
            live.set(**_answered(reply))
            if self._tracer.keep_texts:
                live.text(reply=reply.text or json.dumps(reply.data))

        try:
            if current:
                with live.current():
                    yield answered
            else:
                yield answered
        except GeneratorExit:
            live.set(abandoned=True)
            raise
        except BaseException as error:
            live.fail(error)
            raise
        finally:
            live.end()

    def _id_of(self, model: str) -> str:
        """The id that is called, where the client has a catalogue."""
        catalogue = getattr(self._client, "catalogue", None)
        try:
            return model if catalogue is None else str(catalogue[model].id)
        except UnknownModel:
            return model  # the call itself says what is wrong


def _answered(reply: Reply, *, before: float = 0.0) -> dict[str, Any]:
    """What a reply adds to its call's span."""
    return {
        **usage_attributes(reply.usage),
        COST: before + reply.cost_usd,
        "gen_ai.request.model": reply.model_id,
        "gen_ai.response.finish_reasons": [reply.stop_reason],
        "workshop.model": reply.model,
        "workshop.latency_ms": reply.latency_ms,
        "workshop.attempts": reply.attempts,
        "aws.request_id": reply.request_id or None,
    }


def traced(client: Converses, tracer: Tracer) -> TracedClient:
    """The client, with a span for every call: under the request that is under way, or in a trace of its own.

    Args:
        client: `Bedrock`, or anything that has its `converse`.
        tracer: who notes the calls. Closed, it loses spans and nothing else: calls are made as ever.
    """
    return TracedClient(client, tracer)


def trace_cascade(cascade: Cascade[D], tracer: Tracer) -> Cascade[D]:
    """The cascade, with a trace for every item: the item's span, below it the tiers that were asked, below them their calls.

    It has the same identity, and stands wherever the cascade stood: in `run`, in `stream`, in a bulk run.
    """
    return _TracedCascade(cascade, tracer)


class _TracedCascade(Cascade[D], Generic[D]):
    def __init__(self, cascade: Cascade[D], tracer: Tracer, client: Converses | None = None) -> None:
        super().__init__(
            cascade.tiers,
            escalate_when=cascade.escalate_when,
            route=cascade.route,
            start_early=cascade.start_early,
            task=cascade.task,
            client=traced(cascade.client if client is None else client, tracer),
        )
        self._tracer = tracer

    def using(self, client: Converses) -> Cascade[D]:
        return _TracedCascade(self, self._tracer, client)

    def stream(
        self,
        item: Any,
        *,
        attempts: Sequence[Attempt[D]] = (),
        reasons: Sequence[Reason] = (),
        ask: Callable[[Tier], Attempt[D]] | None = None,
    ) -> Iterator[Event[D]]:
        root, context = self._tracer.begin_request("cascade", item_id=id_of(item), task=self.task.name)
        if self._tracer.keep_texts:
            root.text(input=self.task.describe(item))

        def asked(tier: Tier) -> Attempt[D]:
            # The context is handed over by hand: a generator's steps, and a tier asked early, may run in other threads.
            token = otel_context.attach(context)
            try:
                with self._tracer.span(f"tier {tier.name}", tier=tier.name) as span:
                    found = ask(tier) if ask else attempt(item, tier, task=self.task, client=self.client)
                    span.set(model=found.model, decided=found.decision is not None, confidence=found.confidence)
                    if found.error is not None:
                        span.fail(found.error)
                    return found
            finally:
                otel_context.detach(token)

        try:
            for event in super().stream(item, attempts=attempts, reasons=reasons, ask=asked):
                if event.kind in ("finished", "failed") and event.outcome is not None:
                    _concluded(root, event.outcome)
                    root.end()  # here, because `run` takes this event and leaves
                yield event
        except GeneratorExit:
            root.set(abandoned=True)  # nothing happens to a span that has ended
            raise
        except BaseException as error:
            root.fail(error)
            raise
        finally:
            root.end()


def _concluded(root: LiveSpan, outcome: Outcome[Any]) -> None:
    root.set(
        tier=outcome.final.tier,
        escalated=outcome.escalated,
        fallback=outcome.degraded,
        reasons=[reason.rule for reason in outcome.reasons],
        flags=list(outcome.flags),
    )
    if outcome.decision is None and outcome.error is not None:
        root.fail(outcome.error)
