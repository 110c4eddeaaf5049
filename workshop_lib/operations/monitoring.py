"""How the last tickets went, and which of it should wake somebody: windows by number of tickets, alarms that wait for evidence.

window = Window(1_000); window.add(record)
for state in evaluate(window.summary(), default_alarms(cost_per_1000_usd=3.0)): print(state.sentence)
"""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from workshop_lib.cascade.attempt import Outcome
from workshop_lib.operations.handled import Handled
from workshop_lib.operations.outlet import Delivery, Outlet
from workshop_lib.operations.records import Record, record_of
from workshop_lib.operations.sinks import Sink

if TYPE_CHECKING:
    from workshop_lib.evaluation.statistics import Share

LOG = logging.getLogger(__name__)
LINGER_S = 0.2
"""How long a sink waits for more records before it is handed a batch."""
CONFIDENCE = 0.999
"""Of an alarm's interval. It is looked at after every ticket, so 95 % would be wrong many times a day."""
FEWEST = 30
"""Tickets below which nothing is raised."""
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


@dataclass(frozen=True)
class Alarm:
    """A mean over tickets that must not lie beyond a limit; it is raised when its whole interval does."""

    name: str
    measure: Callable[[Record], float]
    """Of one ticket: whether something holds (the mean is then a share), or USD."""
    limit: float
    """A share; USD a ticket."""
    meaning: str
    action: str
    """What to do first."""
    side: Literal["above", "below"] = "above"
    """Where it must not lie."""
    unit: Literal["share", "USD"] = "share"
    among: Callable[[Record], bool] = lambda record: True
    """Which tickets it looks at."""

    def shown(self, value: float) -> str:
        """A value as people read it."""
        return f"{value:.1%}" if self.unit == "share" else f"USD {1_000 * value:.4f} per 1,000"


@dataclass(frozen=True)
class AlarmState:
    """What an alarm says about a window."""

    alarm: Alarm
    state: Literal["raised", "clear", "too few tickets"]
    """clear: the data do not prove that the limit is passed, which is no proof of the contrary."""
    n: int
    """Tickets it looks at."""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def sentence(self) -> str:
        """For people: where it stands, and if it is raised what that means and what to do."""
        a = self.alarm
        if self.state == "too few tickets":
            return f"{a.name}: too few tickets to say ({self.n})."
        values = f"{a.shown(self.value)} [{a.shown(self.low)}, {a.shown(self.high)}]"
        where = f"{values} over {self.n} tickets; limit: not {a.side} {a.shown(a.limit)}"
        return (
            f"{a.name}: RAISED. {where}. {a.meaning} {a.action}"
            if self.state == "raised"
            else f"{a.name}: clear, {where}."
        )


def default_alarms(
    *,
    cost_per_1000_usd: float | None = None,
    p95_latency_ms: float | None = None,
    escalation: float = 0.6,
    overridden: float = 0.2,
) -> tuple[Alarm, ...]:
    """The alarms to start with. Their limits are starting points, to be set from your own quiet weeks.

    Args:
        cost_per_1000_usd: what 1,000 tickets may cost; None: no such alarm.
        p95_latency_ms: what 95 % of the tickets must not exceed; None: no such alarm.
        escalation: highest share that may go up: at which the cascade no longer pays (see `workshop_lib.evaluation`).
        overridden: highest share of the looked-at tickets that people may decide otherwise.
    """
    dear, slow = cost_per_1000_usd or math.inf, p95_latency_ms or math.inf
    always = (
        Alarm(
            "no decision", lambda r: r.failed, 0.01,
            "Every tier failed for more than one ticket in a hundred.",
            "Look at the class of the errors; if it is throttling, lower the rate before you raise the retries.",
        ),
        Alarm(
            "lower tier kept", lambda r: r.degraded, 0.05,
            "The higher tier fails, and answers that a rule did not trust stand.",
            "Look at that model's errors and quota; send these tickets to people until it is back.",
        ),
        Alarm(
            "retried tickets", lambda r: r.retries > 0, 0.10,
            "More than one ticket in ten needs a retry: the quota is near.",
            "Lower max_tokens, which reserves quota, or the rate; have one retry owner only.",
        ),
        Alarm(
            "escalation", lambda r: r.escalated, escalation,
            "So many tickets go up that the first tier hardly saves anything.",
            "Look at escalation by reason: one rule that grew is a change in the tickets or in the model.",
        ),
        Alarm(
            "no escalation", lambda r: r.escalated, 0.01,
            "Hardly anything goes up: a rule has stopped firing, or every ticket is held back.",
            "Look at the confidences the first tier states; check that the rule reads the field that the model fills.",
            side="below", among=lambda r: r.path != "no model",
        ),
        Alarm(
            "guardrail", lambda r: bool(r.interventions), 0.10,
            "The guardrail steps in on more than one ticket in ten.",
            "Look at which policy: an attack, or a policy that takes customers' plain words for one.",
        ),
        Alarm(
            "overridden", lambda r: bool(r.overridden), overridden,
            "People decide otherwise on many of the tickets they look at.",
            "Read twenty of them; the tickets or the model have changed, or the rubric is not what people go by.",
            among=lambda r: r.overridden is not None,
        ),
    )  # fmt: skip
    asked_for = (
        Alarm(
            "cost", lambda r: r.cost_usd, dear / 1_000,
            "Tickets cost more than was planned.",
            "Look at escalation by reason first, then at retries and at the length of the prompts.",
            unit="USD",
        ),
        Alarm(
            "latency", lambda r: r.latency_ms > slow, 0.05,
            f"More than one ticket in twenty takes longer than {slow:,.0f} ms.",
            "Look at the escalation rate first: a ticket that goes up waits for two models.",
        ),
    )  # fmt: skip
    return always + tuple(a for a, value in zip(asked_for, (dear, slow), strict=True) if value < math.inf)


def evaluate(
    summary: Summary, alarms: Iterable[Alarm], *, confidence: float = CONFIDENCE, fewest: int = FEWEST
) -> list[AlarmState]:
    """Which alarms the window raises.

    An alarm is raised when its share's whole Wilson interval lies beyond the limit, so that a handful of tickets wakes nobody. It is
    looked at again and again, and for that no interval states a false-alarm rate: a change that must be told from chance with one is
    `workshop_lib.operations.drift`'s.

    Args:
        summary: of a window.
        alarms: e.g. `default_alarms()`.
        confidence: of the interval.
        fewest: tickets below which nothing is raised.
    """
    return [_state_of(alarm, summary.records, confidence, fewest) for alarm in alarms]


def _state_of(alarm: Alarm, records: Sequence[Record], confidence: float, fewest: int) -> AlarmState:
    from workshop_lib.evaluation.statistics import wilson

    values = [float(alarm.measure(r)) for r in records if alarm.among(r)]
    n = len(values)
    if n < max(2, fewest):
        return AlarmState(alarm, "too few tickets", n)
    mean = math.fsum(values) / n
    if alarm.unit == "share":
        share = wilson(round(sum(values)), n, confidence=confidence)
        low, high = share.low, share.high
    else:
        reach = statistics.NormalDist().inv_cdf(0.5 + confidence / 2) * statistics.stdev(values) / math.sqrt(n)
        low, high = mean - reach, mean + reach
    beyond = low > alarm.limit if alarm.side == "above" else high < alarm.limit
    return AlarmState(alarm, "raised" if beyond else "clear", n, mean, low, high)


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
