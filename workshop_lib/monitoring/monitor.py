"""How the last tickets went: windows by number of tickets, figures with intervals, and the way of each record to windows and sinks.

monitor = Monitor([EmfSink(sys.stdout)]); answer = monitor.watching(cascade.run, strategy="cascade")
answer(ticket); monitor.window.summary().table()
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from workshop_lib.cascade.attempt import Outcome
from workshop_lib.monitoring.outlet import Delivery, Outlet
from workshop_lib.monitoring.records import Record, record_of
from workshop_lib.monitoring.sinks import Sink
from workshop_lib.operations.handled import Handled

if TYPE_CHECKING:
    from workshop_lib.evaluation.statistics import Share

LOG = logging.getLogger(__name__)
LINGER_S = 0.2
"""How long a sink waits for more records before it is handed a batch."""
R = TypeVar("R", bound="Handled | Outcome[Any]")


@dataclass(frozen=True)
class Summary:
    """The figures of the last tickets. Shares have Wilson intervals at 95 %; they take tickets for independent."""

    n: int
    cost_per_1000_usd: float
    escalated: Share
    reasons: Mapping[str, Share]
    """By rule; a ticket may have several."""
    retried: Share
    """Tickets with a retry: not retries, of which one bad minute has many."""
    failed: Share
    degraded: Share
    intervened: Share
    unanswered: Share
    """Queued, or with a person: the models' decision is not what the customer got."""
    changed: Share | None
    """Of the tickets that went up and came back with a decision: those where the tiers differ. None: no such ticket. It says nothing about the others,
    which no second tier has seen."""
    overridden: Share | None
    """Of the tickets a person looked at; None: nobody looked at any."""
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    dispositions: Mapping[str, int]
    categories: Mapping[str, int]
    span_s: float
    """Seconds between the first and the last of them, by a monotonic clock."""
    records: tuple[Record, ...]
    """Oldest first."""

    def table(self) -> list[dict[str, str]]:
        """A line a figure."""
        shares = {
            "escalated": self.escalated,
            **{f"escalated by {name}": share for name, share in self.reasons.items()},
            "tiers differ, of those that went up": self.changed,
            "retried": self.retried,
            "no decision": self.failed,
            "kept a lower tier's answer": self.degraded,
            "guardrail stepped in": self.intervened,
            "queued or with a person": self.unanswered,
            "overridden, of those looked at": self.overridden,
        }
        times = {"p50": self.latency_p50_ms, "p95": self.latency_p95_ms, "p99": self.latency_p99_ms}
        return [
            {"figure": "USD per 1,000 tickets", "value": f"{self.cost_per_1000_usd:.4f}", "tickets": f"{self.n}"},
            *({"figure": name, "value": str(s), "tickets": f"{s.n}"} for name, s in shares.items() if s is not None),
            *({"figure": f"latency {p}", "value": f"{ms:,.0f} ms", "tickets": f"{self.n}"} for p, ms in times.items()),
        ]


class Window:
    """The last tickets, in the order in which they came: whatever the wall clock does, none is lost or moved. Safe between threads."""

    def __init__(self, size: int = 1_000, *, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            size: how many tickets it holds.
            clock: seconds, never set back.

        Raises:
            ValueError: it would hold none.
        """
        if size < 1:
            raise ValueError(f"a window holds one ticket or more, not {size}")
        self._clock, self._lock = clock, threading.Lock()
        self._kept: deque[tuple[float, Record]] = deque(maxlen=size)

    def add(self, record: Record) -> None:
        """Take in one more; the oldest goes if it is full."""
        with self._lock:
            self._kept.append((self._clock(), record))

    def __len__(self) -> int:
        return len(self._kept)

    def summary(self) -> Summary:
        """The figures.

        Raises:
            ValueError: there is no ticket yet.
        """
        with self._lock:
            kept = list(self._kept)
        if not kept:
            raise ValueError("the window holds no ticket yet")
        return summarise([record for _, record in kept], span_s=kept[-1][0] - kept[0][0])


def summarise(records: Sequence[Record], *, span_s: float = 0.0) -> Summary:
    """The figures of some records.

    Raises:
        ValueError: there are none.
    """
    from workshop_lib.evaluation.statistics import wilson  # numpy comes with it

    n = len(records)
    if not n:
        raise ValueError("there are no records to summarise")

    def share(holds: Callable[[Record], bool], among: Sequence[Record] = records) -> Share:
        return wilson(sum(map(holds, among)), len(among))

    names = Counter(name for record in records for name in record.reasons)
    compared = [r for r in records if r.path in ("went up, agreed", "went up, changed")]
    looked_at = [r for r in records if r.overridden is not None]
    times = sorted(r.latency_ms for r in records)
    return Summary(
        n=n,
        cost_per_1000_usd=1_000 * math.fsum(r.cost_usd for r in records) / n,
        escalated=share(lambda r: r.escalated),
        reasons={name: wilson(count, n) for name, count in names.most_common()},
        retried=share(lambda r: r.retries > 0),
        failed=share(lambda r: r.failed),
        degraded=share(lambda r: r.degraded),
        intervened=share(lambda r: bool(r.interventions)),
        unanswered=share(lambda r: r.disposition in ("queued", "human")),
        changed=share(lambda r: r.path == "went up, changed", compared) if compared else None,
        overridden=share(lambda r: bool(r.overridden), looked_at) if looked_at else None,
        latency_p50_ms=_percentile(times, 0.50),
        latency_p95_ms=_percentile(times, 0.95),
        latency_p99_ms=_percentile(times, 0.99),
        dispositions=dict(Counter(r.disposition for r in records)),
        categories=dict(Counter(r.category for r in records).most_common()),
        span_s=span_s,
        records=tuple(records),
    )


class Monitor:
    """Takes each ticket's record to a window and to sinks. Safe between threads; no sink can delay or break an answer.

    monitor = Monitor([EmfSink(sys.stdout)]); answer = monitor.watching(cascade.run, strategy="cascade"); answer(ticket)
    """

    def __init__(self, sinks: Sequence[Sink] = (), *, window: Window | None = None) -> None:
        """
        Args:
            sinks: where records go, each with a queue and a thread of its own.
            window: of the last tickets; None: 1,000 of them.
        """
        self.window = window or Window()
        self._outlets = [
            Outlet[Record](
                s.name, s.write, shut=s.close, linger_s=LINGER_S, what="metrics", counted_by="monitor.deliveries"
            )
            for s in sinks
        ]

    def add(self, record: Record) -> None:
        """Take in one ticket's record, at once."""
        self.window.add(record)
        for outlet in self._outlets:
            outlet.put(record)

    def watching(self, answer: Callable[[Any], R], *, strategy: str) -> Callable[[Any], R]:
        """The same way of answering, with a record of each ticket and its duration by a monotonic clock.

        What cannot be recorded is answered all the same, and is told to the log. What `answer` raises is raised, and not recorded.

        Args:
            answer: item to `Handled` or `Outcome`, e.g. `cascade.run`.
            strategy: how it is called.
        """

        def watched(item: Any) -> R:
            began = time.perf_counter()
            found = answer(item)
            try:
                self.add(record_of(found, strategy=strategy, elapsed_ms=1_000 * (time.perf_counter() - began)))
            except Exception:  # a decision of another make: the answer is worth more than its figures
                LOG.warning("A ticket was answered but could not be recorded.", exc_info=True)
            return found

        return watched

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """What each sink got and lost."""
        return tuple(outlet.delivery for outlet in self._outlets)

    def flush(self, timeout_s: float = 5) -> bool:
        """Wait until every record is delivered or lost; False: the time was up first."""
        until = time.monotonic() + timeout_s
        return all(outlet.flush(max(0.0, until - time.monotonic())) for outlet in self._outlets)

    def close(self, timeout_s: float = 5) -> None:
        """Deliver what waits, as far as time allows, and close the sinks."""
        for outlet in self._outlets:
            outlet.close(timeout_s)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _percentile(ordered: Sequence[float], q: float) -> float:
    """By nearest rank."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]
