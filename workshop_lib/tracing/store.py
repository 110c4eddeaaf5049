"""Where traces are kept and how they are read back: one SQLite file, a row a span, and no more of them than its size allows.

    for trace in load_traces("traces.db"):
        trace.name, trace.duration_ms, trace.cost_usd

The table `spans` can be read by anything that reads SQLite, also while it is written to.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workshop_lib.bedrock.errors import WorkshopError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

COST = "workshop.cost_usd"
OPERATION = "gen_ai.operation.name"
INPUT, OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHE_READ, CACHE_WRITE = "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_creation.input_tokens"
_APPLICATION = 0x54726163  # SQLite's application_id: tells a trace store from another SQLite file
_TABLE = """
CREATE TABLE spans (
    trace_id TEXT NOT NULL, span_id TEXT PRIMARY KEY, parent_id TEXT, name TEXT NOT NULL,
    start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, status TEXT NOT NULL, attributes TEXT NOT NULL, events TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX spans_of_a_trace ON spans (trace_id);
"""
_COLUMNS = "trace_id, span_id, parent_id, name, start_ns, end_ns, status, attributes, events"


class TraceStoreError(WorkshopError):
    """The file of the traces cannot be opened or read."""

    default_advice = "Name another file, or delete this one if its traces are not needed."


@dataclass(frozen=True)
class Span:
    """One step of a request: what it was, when, and with what result."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    parent_id: str | None
    """None: the request itself."""
    name: str
    start_ns: int
    """Nanoseconds since 1970, UTC."""
    end_ns: int
    status: str
    """UNSET, OK or ERROR."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()

    @property
    def duration_ms(self) -> float:
        """How long it took on this machine's clock. A simulated latency is in the attribute `workshop.latency_ms`."""
        return (self.end_ns - self.start_ns) / 1e6

    @property
    def is_call(self) -> bool:
        """Whether it is one call of a model. Spans above it may repeat its tokens, so only calls are added up."""
        return self.attributes.get(OPERATION) == "chat"

    @property
    def cost_usd(self) -> float | None:
        """USD of a model call; None: not a call, or one that nobody has priced."""
        found = self.attributes.get(COST) if self.is_call else None
        return None if found is None else float(found)

    @property
    def input_tokens(self) -> int:
        """All tokens that went in, cached ones included (0 for what is not a call)."""
        return int(self.attributes.get(INPUT, 0)) if self.is_call else 0

    @property
    def output_tokens(self) -> int:
        """Tokens that came out (0 for what is not a call)."""
        return int(self.attributes.get(OUTPUT, 0)) if self.is_call else 0


@dataclass(frozen=True)
class Trace:
    """All spans of one request."""

    spans: tuple[Span, ...]
    """In the order in which they began."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return self.spans[0].trace_id

    @property
    def root(self) -> Span:
        """The request; where its span was lost, the first one that is left."""
        return next((span for span in self.spans if span.parent_id is None), self.spans[0])

    @property
    def name(self) -> str:
        """What was asked for."""
        return self.root.name

    @property
    def duration_ms(self) -> float:
        """Of the request, by this machine's clock."""
        return self.root.duration_ms

    @property
    def calls(self) -> tuple[Span, ...]:
        """The model calls."""
        return tuple(span for span in self.spans if span.is_call)

    @property
    def cost_usd(self) -> float:
        """USD of all model calls that have a price."""
        return math.fsum(span.cost_usd or 0.0 for span in self.calls)

    @property
    def unpriced(self) -> tuple[Span, ...]:
        """Calls that were answered and have no price: their model is not in the catalogue, or their maker is not known."""
        return tuple(span for span in self.calls if span.cost_usd is None and INPUT in span.attributes)

    @property
    def failed(self) -> bool:
        """Whether the request itself ended in an error."""
        return self.root.status == "ERROR"

    def tree(self) -> Iterator[tuple[int, Span]]:
        """Every span with its depth, parents before their children; a span whose parent was lost stands at depth 0."""
        known = {span.span_id for span in self.spans}
        below: dict[str | None, list[Span]] = {}
        for span in self.spans:
            below.setdefault(span.parent_id if span.parent_id in known else None, []).append(span)
        waiting = [(0, span) for span in reversed(below.get(None, []))]
        while waiting:
            depth, span = waiting.pop()
            yield depth, span
            waiting += [(depth + 1, child) for child in reversed(below.get(span.span_id, []))]


def load_traces(path: Path | str, *, last: int | None = None) -> list[Trace]:
    """The traces of a store, the oldest first.

    Args:
        path: the file that `open_tracing` was given. A tracer that is still open: call its `flush()` first.
        last: how many of the newest to give; None: all.

    Raises:
        TraceStoreError: there is no such file, or it is no trace store.
    """
    path = Path(path)
    if not path.is_file():
        raise TraceStoreError(f"There are no traces at {path}.", advice="Check the path, or trace a request first.")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as file:
            _claim(file, path, make=False)
            newest = "SELECT trace_id FROM spans GROUP BY trace_id ORDER BY min(start_ns) DESC LIMIT ?"
            rows = file.execute(
                f"SELECT {_COLUMNS} FROM spans WHERE trace_id IN ({newest}) ORDER BY start_ns, end_ns DESC",
                (-1 if last is None else last,),
            ).fetchall()
    except sqlite3.Error as error:
        raise TraceStoreError(f"The traces at {path} cannot be read: {error}.") from error
    found: dict[str, list[Span]] = {}
    for row in rows:
        trace_id, span_id, parent_id, name, start, end, status, attributes, events = row
        span = Span(trace_id, span_id, parent_id, name, start, end, status, json.loads(attributes), json.loads(events))
        found.setdefault(trace_id, []).append(span)
    return [Trace(tuple(spans)) for spans in found.values()]


class SpanStore:
    """Writes spans into the file. Used by one thread at a time."""

    def __init__(self, path: Path | str, *, max_mb: float) -> None:
        """
        Args:
            path: the file; it is made if it does not exist, and added to if it does.
            max_mb: megabytes that it may grow to; what comes after is refused.

        Raises:
            TraceStoreError: the file cannot be opened, or is something else.
        """
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise TraceStoreError(f"There is no folder {self.path.parent}.", advice="Make it, or name another file.")
        file: sqlite3.Connection | None = None
        try:
            file = sqlite3.connect(self.path, timeout=5, check_same_thread=False, isolation_level=None)
            _claim(file, self.path, make=True)
            file.execute("PRAGMA journal_mode=WAL")
            file.execute("PRAGMA synchronous=NORMAL")
            (page,) = file.execute("PRAGMA page_size").fetchone()
            # SQLite itself refuses to grow beyond it, with the same error as a full disk.
            file.execute(f"PRAGMA max_page_count={max(8, int(max_mb * 1e6 / page))}")
        except BaseException as error:
            if file is not None:
                file.close()
            if isinstance(error, sqlite3.Error):
                raise TraceStoreError(f"The trace store {self.path} cannot be opened: {error}.") from error
            raise
        self._file = file

    def write(self, spans: Sequence[ReadableSpan]) -> None:
        """Keep some spans: all of them, or none.

        Raises:
            sqlite3.Error: no room, or the file is locked or damaged.
        """
        rows = [_row(span) for span in spans]
        self._file.execute("BEGIN IMMEDIATE")
        try:
            self._file.executemany(f"INSERT OR REPLACE INTO spans ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", rows)
            self._file.execute("COMMIT")
        except sqlite3.Error:
            if self._file.in_transaction:
                self._file.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _claim(file: sqlite3.Connection, path: Path, *, make: bool) -> None:
    """Make the table in an empty file; refuse a file that is something else."""
    (mark,) = file.execute("PRAGMA application_id").fetchone()
    (tables,) = file.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if mark == _APPLICATION:
        return
    if mark or tables or not make:
        raise TraceStoreError(f"{path} is no trace store; nothing was changed in it.", advice="Name another file.")
    file.executescript(f"BEGIN; PRAGMA application_id={_APPLICATION}; {_TABLE} COMMIT;")


def _row(span: ReadableSpan) -> tuple[Any, ...]:
    context = span.get_span_context()
    assert context is not None
    events = [{"name": e.name, "time_ns": e.timestamp, "attributes": dict(e.attributes or {})} for e in span.events]
    return (
        format(context.trace_id, "032x"),
        format(context.span_id, "016x"),
        format(span.parent.span_id, "016x") if span.parent else None,
        span.name,
        span.start_time or 0,
        span.end_time or span.start_time or 0,
        span.status.status_code.name,
        json.dumps(dict(span.attributes or {}), ensure_ascii=False),
        json.dumps(events, ensure_ascii=False),
    )
