"""Which collector spans go to, and how they are sent to it; the queue before it is `workshop_lib.monitoring.outlet`'s."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.monitoring.outlet import Outlet

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

EXPORT_TIMEOUT_S = 2.0
"""How long a collector may take for one batch, retries included."""


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


def otlp_outlet(collector: Otlp, hide: Callable[[str], str]) -> Outlet[ReadableSpan]:
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

    return Outlet(collector.name, write, shut=shut, linger_s=0.5, what="traces", counted_by="tracer.deliveries")


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
