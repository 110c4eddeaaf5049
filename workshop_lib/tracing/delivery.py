"""How spans reach where they are kept: in the background, so that no request waits for a disk or a collector, nor fails with it."""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from workshop_lib.bedrock.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

LOG = logging.getLogger(__name__)
ROOM = 8_192
"""Spans that may wait for one destination; what comes after is dropped and counted."""
BATCH = 256
EXPORT_TIMEOUT_S = 2.0
"""How long a collector may take for one batch, retries included."""


@dataclass(frozen=True)
class Delivery:
    """What has become of the spans for one destination."""

    to: str
    """The file or the collector's address, without credentials."""
    delivered: int
    dropped: int
    """Lost: no room, no collector, or no time left at the end."""
    waiting: int
    problem: str = ""
    """Why the first ones were lost, "" if none were."""


@dataclass(frozen=True, repr=False)
class Otlp:
    """A collector that speaks OTLP over HTTP (protobuf)."""

    url: str
    """The whole address, with its path: http://127.0.0.1:6006/v1/traces."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request; credentials are among them."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(
                f"The collector's address {self.name!r} is not an http:// or https:// one.",
                advice="Give e.g. OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:6006.",
            )

    def __repr__(self) -> str:
        return f"<Otlp {self.name}>"

    @property
    def name(self) -> str:
        """The address as it may be shown: without user, password and query."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Otlp | None:
        """The collector that the environment names; None: none. The first of these that is set counts.

        - OTEL_EXPORTER_OTLP_TRACES_ENDPOINT (the whole address) or OTEL_EXPORTER_OTLP_ENDPOINT (without /v1/traces), with
          OTEL_EXPORTER_OTLP_TRACES_HEADERS or OTEL_EXPORTER_OTLP_HEADERS: any collector.
        - LANGFUSE_BASE_URL (or LANGFUSE_HOST) with LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY: Langfuse.
        - PHOENIX_COLLECTOR_ENDPOINT, with PHOENIX_API_KEY if it asks for one: Phoenix.

        Keys alone send nothing anywhere: an address must be named.

        Raises:
            ConfigurationError: an address is none, or a Langfuse key is missing.
        """
        given = {name: value for name, value in environ.items() if value}
        prefix = "OTEL_EXPORTER_OTLP_"
        whole, base = given.get(f"{prefix}TRACES_ENDPOINT"), given.get(f"{prefix}ENDPOINT")
        if whole or base:
            headers = given.get(f"{prefix}TRACES_HEADERS") or given.get(f"{prefix}HEADERS") or ""
            return cls(whole or f"{str(base).rstrip('/')}/v1/traces", _headers(headers))
        if host := given.get("LANGFUSE_BASE_URL") or given.get("LANGFUSE_HOST"):
            missing = [name for name in ("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY") if name not in given]
            if missing:
                raise ConfigurationError(
                    f"A Langfuse address is set, but not {' and '.join(missing)}.",
                    advice="Set both keys of the project, or unset LANGFUSE_BASE_URL and LANGFUSE_HOST.",
                )
            keys = f"{given['LANGFUSE_PUBLIC_KEY']}:{given['LANGFUSE_SECRET_KEY']}".encode()
            basic = f"Basic {base64.b64encode(keys).decode()}"
            # https://langfuse.com/integrations/native/opentelemetry: the path, basic auth and the version of ingestion
            return cls(
                f"{host.rstrip('/')}/api/public/otel/v1/traces",
                {"authorization": basic, "x-langfuse-ingestion-version": "4"},
            )
        if host := given.get("PHOENIX_COLLECTOR_ENDPOINT"):
            key = given.get("PHOENIX_API_KEY")
            path = "" if host.rstrip("/").endswith("/v1/traces") else "/v1/traces"
            return cls(f"{host.rstrip('/')}{path}", {"authorization": f"Bearer {key}"} if key else {})
        return None


class Outlet:
    """One destination with a queue and a thread of its own. Never raises into the request."""

    def __init__(
        self,
        to: str,
        write: Callable[[Sequence[ReadableSpan]], None],
        *,
        shut: Callable[[], None],
        linger_s: float,
    ) -> None:
        """
        Args:
            to: its name, as it may be shown.
            write: delivers some spans, or raises.
            shut: called once at the end.
            linger_s: how long to wait for more spans before a batch is written.
        """
        self._to, self._write, self._shut, self._linger_s = to, write, shut, linger_s
        self._changed = threading.Condition()
        self._queue: deque[ReadableSpan] = deque()
        self._in_hand = self._delivered = self._dropped = self._hurrying = 0
        self._problem = ""
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"traces to {to}", daemon=True)
        self._thread.start()

    @property
    def delivery(self) -> Delivery:
        """The count so far."""
        with self._changed:
            waiting = len(self._queue) + self._in_hand
            return Delivery(self._to, self._delivered, self._dropped, waiting, self._problem)

    def put(self, span: ReadableSpan) -> None:
        """Hand over a span, at once."""
        with self._changed:
            if not self._closed and len(self._queue) < ROOM:
                self._queue.append(span)
                self._changed.notify_all()
                return
            why = "the tracer is closed" if self._closed else f"{ROOM} spans wait already"
        self.lost(1, why)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything handed over so far is delivered or lost; False: the time was up first."""
        with self._changed:
            self._hurrying += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: not self._queue and not self._in_hand, timeout_s)
            finally:
                self._hurrying -= 1

    def close(self, timeout_s: float) -> None:
        """Deliver what waits as far as time allows; the rest is counted as lost."""
        until = time.monotonic() + timeout_s
        self.flush(timeout_s)
        with self._changed:
            if self._closed:
                return
            self._closed = True
            left = len(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        if left:
            self.lost(left, "there was no time left to deliver them")
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            # It is in the middle of a batch. What that comes to is counted when it ends; nobody waits for it.
            LOG.debug("a batch for %s is still under way", self._to)

    def _work(self) -> None:
        try:
            while batch := self._next():
                try:
                    self._write(batch)
                except Exception as error:
                    self._done(len(batch), f"{type(error).__name__}: {error}")
                else:
                    self._done(len(batch), "")
        finally:
            self._shut()

    def _next(self) -> list[ReadableSpan]:
        """The next batch; empty: it is over."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue) or self._closed)
            self._changed.wait_for(
                lambda: len(self._queue) >= BATCH or self._hurrying > 0 or self._closed, self._linger_s
            )
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            self._in_hand = len(batch)
            return batch

    def _done(self, count: int, problem: str) -> None:
        if problem:
            self.lost(count, problem)
        with self._changed:
            self._in_hand = 0
            self._delivered += 0 if problem else count
            self._changed.notify_all()

    def lost(self, count: int, why: str) -> None:
        """Count spans that will not arrive; the first time, say so."""
        with self._changed:
            first = not self._problem
            self._problem = self._problem or why
            self._dropped += count
        if first:  # told once: a warning a request would drown what matters
            LOG.warning(
                "Traces are being lost on their way to %s (%s). Requests go on; tracer.deliveries counts what is lost.",
                self._to,
                why,
            )


def otlp_outlet(collector: Otlp, hide: Callable[[str], str]) -> Outlet:
    """The outlet to a collector.

    Args:
        collector: address and headers.
        hide: takes secrets out of a text that is shown.
    """
    from opentelemetry.exporter.otlp.proto.http import trace_exporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    exporter = trace_exporter.OTLPSpanExporter(collector.url, headers=dict(collector.headers), timeout=EXPORT_TIMEOUT_S)
    said = _Said()
    log = logging.getLogger(trace_exporter.__name__)
    log.addFilter(said)

    def write(spans: Sequence[ReadableSpan]) -> None:
        said.thread, said.first = threading.get_ident(), ""
        if exporter.export(spans) is not SpanExportResult.SUCCESS:
            why = said.first.replace(urlsplit(collector.url).query or "\0", "")  # a key may stand there
            raise ConnectionError(hide(why)[:300] or "the collector did not take them")

    def shut() -> None:
        exporter.shutdown()  # type: ignore[no-untyped-call]
        log.removeFilter(said)

    return Outlet(collector.name, write, shut=shut, linger_s=0.5)


class _Said(logging.Filter):
    """Keeps the exporter's own lines, one a batch, out of the log: what they say is told once, by the outlet."""

    thread: int | None = None
    first = ""
    """Of a batch: the cause, before it is tried again."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be logged: only other people's."""
        if record.thread != self.thread:
            return True
        self.first = self.first or record.getMessage()
        return False


def _headers(text: str) -> dict[str, str]:
    """What OTEL_EXPORTER_OTLP_HEADERS holds, "name=value,name=value": values are percent-encoded."""
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {name.strip().lower(): unquote(value.strip()) for name, _, value in pairs}
