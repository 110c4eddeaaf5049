"""How operations look while tickets come: figures, alarms and drift in one place, in words, readable after the notebook is saved."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from workshop_lib.display.live import below_the_cell
from workshop_lib.display.theme import GREEN, RED, table
from workshop_lib.monitoring.alarms import Alarm, default_alarms, evaluate
from workshop_lib.monitoring.monitor import Summary, Window
from workshop_lib.monitoring.records import Record

if TYPE_CHECKING:
    from workshop_lib.monitoring.drift import DriftState, DriftWatch

UPDATE_S = 0.5
"""At most two pictures a second."""


class Dashboard:
    """Figures, drift and alarms of the last tickets, drawn in one place; the last picture stays in the notebook.

    dashboard = Dashboard(drift=watch)
    for ticket in tickets: dashboard.add(record_of(cascade.run(ticket), strategy="cascade"))
    dashboard.draw()
    """

    def __init__(
        self,
        *,
        window: Window | None = None,
        drift: DriftWatch | None = None,
        alarms: Sequence[Alarm] | None = None,
        draw: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            window: which tickets the figures are of; None: the last 1,000.
            drift: is given each record too.
            alarms: None: `default_alarms()`.
            draw: is given each picture as HTML; None: they are drawn below the cell.
            clock: seconds; injected by tests.
        """
        self.window, self.drift = window or Window(), drift
        self.alarms = default_alarms() if alarms is None else tuple(alarms)
        self._draw = draw or below_the_cell()
        self._clock, self._drawn = clock, -math.inf

    def add(self, record: Record) -> None:
        """Take in one ticket; draws if the last picture is half a second old."""
        self.window.add(record)
        if self.drift is not None:
            self.drift.add(record)
        if self._clock() - self._drawn >= UPDATE_S:
            self.draw()

    def draw(self) -> None:
        """Draw how it stands."""
        self._drawn = self._clock()
        self._draw(self.markup())

    def markup(self) -> str:
        """How it stands, as HTML with everything escaped."""
        if not len(self.window):
            return "<p>No ticket yet.</p>"
        summary = self.window.summary()
        drift = None if self.drift is None else self.drift.state
        raised = [s for s in evaluate(summary, self.alarms) if s.state == "raised"]
        changed = [] if drift is None else [s for s in drift.signals if s.alarmed_at is not None]
        told = [*(s.sentence for s in raised), *(f"drift: {s.sentence}" for s in changed)]
        tone = RED if told else GREEN
        head = f"{len(told)} ALARM{'S' * (len(told) > 1)}" if told else "No alarm"
        items = "".join(f"<li>{html.escape(words)}</li>" for words in told)
        return (
            "<div class='dashboard mathjax_ignore' style='max-width:80em;font-size:.9em'>"
            f"<div style='border-left:6px solid {tone};padding:.3em .8em'><b>{head}</b> over the last {summary.n:,} tickets"
            f"<ul style='margin:.2em 0'>{items}</ul></div>"
            f"<div style='display:flex;gap:1em;flex-wrap:wrap'><div>{_figures(summary)}</div>"
            f"<div>{table(_alarm_rows(summary, self.alarms), caption='Alarms')}</div></div>{_drift_table(drift)}</div>"
        )


def watch_records(records: Iterable[Record], **options: Any) -> Dashboard:
    """Read records to their end under a dashboard; it is drawn a last time also after an interrupt.

    Args:
        records: as they come.
        options: of `Dashboard`.
    """
    dashboard = Dashboard(**options)
    try:
        for record in records:
            dashboard.add(record)
    finally:
        dashboard.draw()
    return dashboard


def _figures(summary: Summary) -> str:
    return table(summary.table(), caption="Figures, with 95 % intervals")


def _alarm_rows(summary: Summary, alarms: Sequence[Alarm]) -> list[dict[str, str]]:
    return [
        {
            "alarm": s.alarm.name,
            "state": s.state.upper() if s.state == "raised" else s.state,
            "value": "" if math.isnan(s.value) else s.alarm.shown(s.value),
            "raised if": f"{s.alarm.side} {s.alarm.shown(s.alarm.limit)}",
        }
        for s in evaluate(summary, alarms)
    ]


def _drift_table(state: DriftState | None) -> str:
    if state is None:
        return ""
    rows = [
        {
            "drift of": s.name,
            "state": "no change proven" if s.alarmed_at is None else f"CHANGED (ticket {s.alarmed_at})",
            "statistic": f"{s.statistic:.1f}",
            "limit": f"{s.limit:.1f}",
            "strongest": s.change,
        }
        for s in state.signals
    ]
    promise = f"false alarm in about {state.false_alarms:.0%} of runs of {state.horizon:,} tickets"
    return table(rows, caption=f"Drift since the reference, ticket {state.n:,} ({promise})")
