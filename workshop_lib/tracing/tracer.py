"""What is noted of a request: one trace, a span a step, under the names that OpenTelemetry's GenAI conventions give.

    tracer = open_tracing("traces.db")               # once, at the start of a program or notebook
    with tracer.request("ask", question_id="Q-7") as request:
        reply = traced(bedrock, tracer).converse("cheap", question)
        request.set(tier="cheap", fallback=False)
    tracer.close()

Names, on the span of a model call (`chat <model id>`): gen_ai.operation.name = "chat", gen_ai.provider.name, gen_ai.request.model,
gen_ai.response.finish_reasons, gen_ai.usage.output_tokens, gen_ai.usage.cache_read.input_tokens,
gen_ai.usage.cache_creation.input_tokens, and **gen_ai.usage.input_tokens, which includes what was read from and written to the
cache**, as the conventions ask (https://github.com/open-telemetry/semantic-conventions-genai). Bedrock's own `inputTokens` does not;
it stands beside it as workshop.uncached_input_tokens. The conventions have no money: workshop.cost_usd is ours, and so are
workshop.tier, workshop.fallback, workshop.cache_read_tokens and workshop.cache_write_tokens.

The cost stands on the calls alone: a span above them may repeat their tokens (Strands' `invoke_agent` does), so only spans whose
operation is "chat" may be added up, and each call has one such span. `traced` prices its own; a `chat` span that Strands wrote is
priced from the catalogue, unless the call beneath it went through `traced`, which then writes its figures there.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Status, StatusCode

from workshop_lib.bedrock.catalogue import Catalogue, Usage
from workshop_lib.bedrock.errors import BedrockError, ConfigurationError, UnknownModel
from workshop_lib.monitoring.outlet import Delivery, Outlet
from workshop_lib.tracing.delivery import Otlp, otlp_outlet
from workshop_lib.tracing.redaction import TEXT, Redaction
from workshop_lib.tracing.store import CACHE_READ, CACHE_WRITE, COST, INPUT, OPERATION, OUTPUT, SpanStore

SCOPE = "workshop_lib.tracing"
STRANDS = "strands.telemetry.tracer"
"""The instrumentation scope of Strands' own spans."""
CLOSE_S = 5.0
"""How long closing may take."""


class LiveSpan:
    """A span that is still open: what is found out on the way is noted on it."""

    def __init__(self, span: otel.Span, *, keep_texts: bool) -> None:
        self._span, self._keep_texts = span, keep_texts

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits: the trace's name in every tool that shows it."""
        return format(self._span.get_span_context().trace_id, "032x")

    def set(self, **attributes: Any) -> None:
        """Note figures and names, e.g. `set(tier="cheap", fallback=False)`. They are kept as they are: no texts here.

        A name without a dot gets the prefix `workshop.`; None is left out.
        """
        if self._span.is_recording():
            self._span.set_attributes(named(attributes))

    def text(self, **texts: str) -> None:
        """Note what somebody wrote: how long it is, and itself only where the tracer keeps texts."""
        for name, text in texts.items():
            self._span.set_attribute(f"workshop.{name}_chars", len(text))
            if self._keep_texts:
                self._span.set_attribute(f"{TEXT}{name}", text)

    def fail(self, error: BaseException) -> None:
        """Mark the step as failed: by the error's class and code. Its message may quote a ticket, so it counts as a text."""
        kind = type(error).__name__
        self._span.set_status(Status(StatusCode.ERROR, kind))
        self._span.set_attribute("error.type", kind)
        if isinstance(error, BedrockError):
            self._span.set_attributes(named({"error_code": error.code, "attempts": error.attempts}))
        if self._keep_texts:
            self._span.set_attribute(f"{TEXT}error", str(error))

    def end(self) -> None:
        """The step is over, if it is not yet. Only for spans of `Tracer.begin` and `begin_request`."""
        if self._span.is_recording():
            self._span.end()

    def current(self) -> AbstractContextManager[Any]:
        """Makes it the span under which others are put, while a `with` lasts."""
        return otel.use_span(self._span, record_exception=False, set_status_on_exception=False)


class Tracer:
    """Notes spans and hands them on. Safe to share between threads; made by `open_tracing`."""

    def __init__(
        self,
        outlets: tuple[Outlet[ReadableSpan], ...],
        *,
        redaction: Redaction,
        catalogue: Catalogue,
        make_global: bool,
    ) -> None:
        self.keep_texts = redaction.keep_texts
        """Whether tickets, questions and answers are kept."""
        self._outlets, self._redaction, self._catalogue = outlets, redaction, catalogue
        self._inside = otel_context.create_key("workshop-request")
        self._closing = threading.Lock()
        self._closed = False
        collector = _Collector(self)
        self._relay: _Relay | None = None
        if make_global:
            self.provider, self._relay = _global_provider()
            self._relay.open(collector)
        else:
            self.provider = _new_provider()
            self.provider.add_span_processor(collector)
        self._collector = collector
        self._tracer = self.provider.get_tracer(SCOPE)
        atexit.register(self.close)

    @contextmanager
    def request(
        self, name: str, *, text: str | None = None, session_id: str | None = None, **attributes: Any
    ) -> Iterator[LiveSpan]:
        """One request: the root of a trace. Within another request of this tracer it is a step of that one.

        Args:
            name: what is asked for, the same for all requests of one kind.
            text: the question or ticket: kept only where texts are, else its length.
            session_id: the conversation that it belongs to.
            attributes: figures and names, as `LiveSpan.set` takes them.
        """
        live, context = self.begin_request(name, text=text, session_id=session_id, **attributes)
        token = otel_context.attach(context)
        try:
            yield live
        except BaseException as error:
            live.fail(error)
            raise
        finally:
            otel_context.detach(token)
            live.end()

    def begin_request(
        self, name: str, *, text: str | None = None, session_id: str | None = None, **attributes: Any
    ) -> tuple[LiveSpan, otel_context.Context]:
        """A request whose steps run in several threads, or between the steps of a generator: its span, whose `end()` must be
        called, and the context to attach where something is done for it.
        """
        base = otel_context.get_current()
        if otel_context.get_value(self._inside, base) is None:
            base = otel_context.Context()  # a trace of its own, whatever else is traced in this process
        session = {"gen_ai.conversation.id": session_id, "session.id": session_id}
        first = {OPERATION: "invoke_workflow", "gen_ai.workflow.name": name, **session, **attributes}
        span = self._tracer.start_span(name, context=base, attributes=named(first))
        live = LiveSpan(span, keep_texts=self.keep_texts)
        if text is not None:
            live.text(input=text)
        return live, otel.set_span_in_context(span, otel_context.set_value(self._inside, True, base))

    @contextmanager
    def span(self, name: str, **attributes: Any) -> Iterator[LiveSpan]:
        """A step of the request that is under way, e.g. the classifier's."""
        live = self.begin(name, **attributes)
        try:
            with live.current():
                yield live
        except BaseException as error:
            live.fail(error)
            raise
        finally:
            live.end()

    def begin(self, name: str, *, kind: otel.SpanKind = otel.SpanKind.INTERNAL, **attributes: Any) -> LiveSpan:
        """A step that is not the current one while it lasts, for generators; its `end()` must be called."""
        return LiveSpan(
            self._tracer.start_span(name, kind=kind, attributes=named(attributes)), keep_texts=self.keep_texts
        )

    @property
    def is_global(self) -> bool:
        """Whether it takes in the spans of the process's provider, Strands' among them."""
        return self._relay is not None

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """For the store and for the collector: how many spans were delivered, lost, and still wait."""
        return tuple(outlet.delivery for outlet in self._outlets)

    def flush(self, timeout_s: float = CLOSE_S) -> bool:
        """Wait until the spans so far are where they belong; False: not all of them in this time."""
        until = time.monotonic() + timeout_s
        done = True
        for outlet in self._outlets:
            done &= outlet.flush(max(0.0, until - time.monotonic()))
        return done

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Deliver what waits, for `timeout_s` at most, and stop. Spans that end later are counted as lost."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        if self._relay is not None:
            self._relay.close(self._collector)
        until = time.monotonic() + timeout_s
        for outlet in self._outlets:
            outlet.close(max(0.0, until - time.monotonic()))

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Tracer to {', '.join(d.to for d in self.deliveries) or 'nowhere'}>"

    def take(self, span: ReadableSpan) -> None:
        """Called for every span that ends. Whatever is wrong with it, the request goes on."""
        try:
            kept = self._prepared(span)
        except Exception as error:
            for outlet in self._outlets:
                outlet.lost(1, f"a span could not be read: {type(error).__name__}")
        else:
            for outlet in self._outlets:
                outlet.put(kept)

    def _prepared(self, span: ReadableSpan) -> ReadableSpan:
        """The span as it may leave the process: priced, without what must not be kept."""
        scope = span.instrumentation_scope
        attributes = self._priced(dict(span.attributes or {}), scope.name if scope else "")
        events = [
            Event(event.name, self._redaction.attributes(event.attributes or {}), event.timestamp)
            for event in span.events
        ]
        code, said = span.status.status_code, span.status.description
        if code is StatusCode.ERROR and "error.type" not in attributes:
            raised = [e.attributes.get("exception.type") for e in span.events if e.attributes]
            attributes["error.type"] = str(raised[-1]) if raised and raised[-1] else "_OTHER"
        if said is not None:
            said = self._redaction.text(said) if self.keep_texts else str(attributes.get("error.type", ""))
        return ReadableSpan(
            span.name,
            span.context,
            span.parent,
            span.resource,
            self._redaction.attributes(attributes),
            events,
            span.links,
            span.kind,
            status=Status(code, said if code is StatusCode.ERROR else None),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=scope,
        )

    def _priced(self, given: dict[str, Any], scope: str) -> dict[str, Any]:
        """Strands' own call spans with their price. Who wrote another one, and what it means by input tokens, is not known."""
        if scope != STRANDS or given.get(OPERATION) != "chat" or COST in given or INPUT not in given:
            return given
        read, written = int(given.get(CACHE_READ, 0)), int(given.get(CACHE_WRITE, 0))
        # Its input tokens include the cached ones. It does not say how long they are kept: five minutes is assumed.
        usage = Usage(int(given[INPUT]) - read - written, int(given.get(OUTPUT, 0)), read, written)
        try:
            spec = self._catalogue[str(given.get("gen_ai.request.model"))]
        except UnknownModel:
            return given
        return given | usage_attributes(usage) | {COST: spec.cost(usage), "workshop.model": spec.key}


def open_tracing(
    path: Path | str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    redact: bool = True,
    make_global: bool = False,
    catalogue: Catalogue | None = None,
    max_mb: float = 100,
) -> Tracer:
    """Set tracing up: once for a program, and closed at its end (at the latest when the process ends).

    Args:
        path: the SQLite file in which traces are kept; None: none. An existing store is added to.
        environ: where the collector is looked up, see `Otlp.from_environment`; None: the process's environment. An empty one:
            no collector.
        redact: leave out tickets, questions, answers, prompts and error messages, of whatever library. False keeps them, which may
            be personal data; secrets are left out either way.
        make_global: also take in the spans of libraries that ask OpenTelemetry for the process's provider and accept no other:
            Strands is one. What is global can be set once a process; a tracer opened later takes over from one that is closed, and
            a provider that the process has already is joined.
        catalogue: prices of calls that Strands makes by itself; None: data/models.json.
        max_mb: megabytes that the file may grow to. Then the oldest traces stay and new ones are dropped and counted.

    Raises:
        TraceStoreError: the file cannot be opened, or is something else.
        ConfigurationError: the collector's settings are not usable.
    """
    environ = os.environ if environ is None else environ
    redaction = Redaction.of(environ, keep_texts=not redact)
    catalogue = catalogue or Catalogue.load()
    collector = Otlp.from_environment(environ)
    outlets = []
    if path is not None:
        store = SpanStore(path, max_mb=max_mb)
        outlets.append(
            Outlet(
                str(path), store.write, shut=store.close, linger_s=0.05, what="traces", counted_by="tracer.deliveries"
            )
        )
    if collector is not None:
        outlets.append(otlp_outlet(collector, redaction.text))
    return Tracer(tuple(outlets), redaction=redaction, catalogue=catalogue, make_global=make_global)


def usage_attributes(usage: Usage) -> dict[str, int]:
    """The tokens of a call under the conventions' names and ours."""
    return {
        INPUT: usage.prompt_tokens,
        OUTPUT: usage.output_tokens,
        CACHE_READ: usage.cache_read_tokens,
        CACHE_WRITE: usage.cache_write_tokens,
        "workshop.uncached_input_tokens": usage.input_tokens,
        "workshop.cache_read_tokens": usage.cache_read_tokens,
        "workshop.cache_write_tokens": usage.cache_write_tokens,
    }


def named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes under their full names, with values that OpenTelemetry can hold."""
    return {
        name if "." in name else f"workshop.{name}": _value(value)
        for name, value in attributes.items()
        if value is not None
    }


def _value(value: Any) -> Any:
    if isinstance(value, bool | int | float | str):
        return value
    return [str(v) for v in value] if isinstance(value, list | tuple | set | frozenset) else str(value)


class _Collector(SpanProcessor):
    """Hands every span that ends to a tracer."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def on_end(self, span: ReadableSpan) -> None:
        self._tracer.take(span)


class _Relay(SpanProcessor):
    """Stands in the process's provider, which is set once, and hands spans to the tracer that was opened last."""

    def __init__(self) -> None:
        self._open: tuple[_Collector, ...] = ()

    def open(self, collector: _Collector) -> None:
        self._open = (*self._open, collector)

    def close(self, collector: _Collector) -> None:
        self._open = tuple(c for c in self._open if c is not collector)

    def on_end(self, span: ReadableSpan) -> None:
        if self._open:
            self._open[-1].on_end(span)


_relays: dict[TracerProvider, _Relay] = {}
_relays_lock = threading.Lock()


def _global_provider() -> tuple[TracerProvider, _Relay]:
    """The process's provider, made if there is none, and our place in it.

    Raises:
        ConfigurationError: the provider that is set can take nothing in.
    """
    with _relays_lock:
        if isinstance(otel.get_tracer_provider(), otel.ProxyTracerProvider):
            otel.set_tracer_provider(_new_provider())
        found = otel.get_tracer_provider()
        if not isinstance(found, TracerProvider):
            raise ConfigurationError(
                f"OpenTelemetry's provider of this process is a {type(found).__name__}, which takes in no spans.",
                advice="Unset OTEL_PYTHON_TRACER_PROVIDER, or open tracing without make_global.",
            )
        if found not in _relays:
            _relays[found] = _Relay()
            found.add_span_processor(_relays[found])
        return found, _relays[found]


def _new_provider() -> TracerProvider:
    resource = Resource.create({"service.name": "two-tier-workshop"})
    return TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
