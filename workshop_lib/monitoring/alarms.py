"""Which of the last tickets' figures should wake somebody: limits that a whole interval must lie beyond.

for state in evaluate(window.summary(), default_alarms(cost_per_1000_usd=3.0)): print(state.sentence)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from workshop_lib.monitoring.monitor import Summary
from workshop_lib.monitoring.records import Record

CONFIDENCE = 0.999
"""Of an alarm's interval. It is looked at after every ticket, so 95 % would be wrong many times a day."""
FEWEST = 30
"""Tickets below which nothing is raised."""


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
    dear = math.inf if cost_per_1000_usd is None else cost_per_1000_usd
    slow = math.inf if p95_latency_ms is None else p95_latency_ms
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
            "no escalation", lambda r: r.escalated, 0.02,
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
    `workshop_lib.monitoring.drift`'s.

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
