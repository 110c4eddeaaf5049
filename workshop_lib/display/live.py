"""What is seen while a cell runs: one ticket's journey, or a table of many, growing in one place and readable after it is saved."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from workshop_lib.bulk.rows import Row
from workshop_lib.bulk.runner import BulkRun
from workshop_lib.cascade.attempt import Attempt, Event, Outcome, Reason
from workshop_lib.cascade.cascade import Cascade
from workshop_lib.display.theme import COLOURS, GREY, line, usd
from workshop_lib.triage.schema import Ticket

if TYPE_CHECKING:
    from workshop_lib.bulk.cluster import ClusterRun
    from workshop_lib.bulk.folder import Partition

UPDATE_S = 0.25
"""Of a table of many, at most four pictures a second."""
FIELDS = ("category", "priority", "needs_human", "confidence", "reasoning")


def watch(cascade: Cascade[Any], ticket: Ticket, *, draw: Callable[[str], None] | None = None) -> Outcome[Any]:
    """Run one ticket and draw each stage as it happens; the last picture stays in the notebook.

    Args:
        cascade: what the ticket goes through.
        ticket: one ticket.
        draw: is given each picture as HTML; None: they are drawn below the cell.

    Returns:
        The outcome, as `cascade.run` would give it.
    """
    draw = draw or below_the_cell()
    journey = Journey(cascade, ticket)
    draw(journey.markup())
    for event in cascade.stream(ticket):
        journey.add(event)
        draw(journey.markup())
        if event.kind in ("finished", "failed") and event.outcome is not None:
            return event.outcome
    raise AssertionError("a stream ends with an outcome")


def _because(reasons: Sequence[Reason]) -> str:
    return ", ".join(f"{r.rule} ({r.detail})" if r.detail else r.rule for r in reasons)


def below_the_cell() -> Callable[[str], None]:
    """What draws pictures below the cell that runs, each in place of the one before; outside a notebook nothing is drawn."""
    from IPython.display import HTML, display

    handle = display(HTML(""), display_id=True)
    return lambda markup: None if handle is None else handle.update(HTML(markup))


class Journey:
    """What has happened to one ticket so far, as HTML with everything escaped."""

    def __init__(self, cascade: Cascade[Any], ticket: Ticket) -> None:
        self._ticket = ticket
        self._tiers: dict[str, str] = {tier.name: "waiting" for tier in cascade.tiers}
        self._attempts: dict[str, Attempt[Any]] = {}
        self._reasons: dict[str, str] = {}
        self._outcome: Outcome[Any] | None = None

    def add(self, event: Event[Any]) -> None:
        """Take in one event."""
        if event.kind == "tier-started":
            self._tiers[event.tier] = "thinking"
        elif event.kind == "tier-finished" and event.attempt is not None:
            self._attempts[event.tier] = event.attempt
            self._tiers[event.tier] = "answered" if event.attempt.decision is not None else "failed"
        elif event.kind == "routed":
            above = list(self._tiers).index(event.tier)
            self._tiers |= {name: f"skipped: {_because(event.reasons)}" for name in list(self._tiers)[:above]}
        elif event.kind == "escalated":
            self._reasons[event.tier] = _because(event.reasons)
        elif event.outcome is not None:
            self._outcome = event.outcome
            idle = ("waiting", "thinking")
            self._tiers = {name: "not needed" if state in idle else state for name, state in self._tiers.items()}

    def markup(self) -> str:
        """The journey as it stands."""
        cards = "".join(self._card(name) for name in self._tiers)
        return (
            "<div class='mathjax_ignore' style='max-width:60em'>"
            f"<p><b>{_e(self._ticket.subject or '(no subject)')}</b><br>{_e(_short(self._ticket.body))}</p>"
            f"<div style='display:flex;gap:1em;align-items:stretch;flex-wrap:wrap'>{cards}</div>{self._footer()}</div>"
        )

    def _card(self, name: str) -> str:
        colour, attempt = COLOURS.get(name, GREY), self._attempts.get(name)
        rows = ""
        if attempt is not None and attempt.decision is not None:
            answers = [(f, getattr(attempt.decision, f)) for f in FIELDS if hasattr(attempt.decision, f)]
            rows = "".join(map(line, answers))
        elif attempt is not None:
            rows = line(("error", attempt.error))
        facts = f"{attempt.latency_ms / 1e3:.1f} s, {usd(attempt.cost_usd)}" if attempt is not None else ""
        up = f"<p><b>went up:</b> {_e(self._reasons[name])}</p>" if name in self._reasons else ""
        return (
            f"<div style='border:1px solid {colour};border-top:5px solid {colour};padding:.5em;min-width:18em;flex:1'>"
            f"<b>{_e(name)}</b>: {_e(self._tiers[name])} <span style='color:#555'>{facts}</span>"
            f"<table>{rows}</table>{up}</div>"
        )

    def _footer(self) -> str:
        o = self._outcome
        if o is None:
            return "<p>under way</p>"
        if o.decision is None:
            return f"<p><b>Failed.</b> {_e(o.error)}</p>"
        kept = f"; flags kept: {_e(', '.join(f'{k} (from {v})' for k, v in o.flags.items()))}" if o.flags else ""
        said = (
            "kept the lower tier's answer, because the higher one failed" if o.degraded else f"answer of {o.final.tier}"
        )
        return f"<p><b>Done:</b> {_e(said)}{kept}. {o.latency_ms / 1e3:.1f} s, {usd(o.cost_usd)} in all.</p>"


def watch_bulk(
    run: BulkRun, tickets: Sequence[Ticket] = (), *, show: int = 40, clock: Callable[[], float] = time.monotonic
) -> list[Row]:
    """Read a bulk run to its end under a table that grows; the last picture stays in the notebook, also after an interrupt.

    Args:
        run: from `run_bulk`.
        tickets: those of the run; their subjects are shown, and the table keeps their order if it can hold them all.
        show: how many tickets the table holds; of more, the latest are shown.
        clock: seconds; injected by tests.

    Returns:
        All rows, as they came.
    """
    draw, table = below_the_cell(), BulkTable(run, tickets, show=show)
    draw(table.markup())
    rows, drawn = [], clock()
    try:
        for row in run:
            rows.append(row)
            table.add(row)
            if clock() - drawn >= UPDATE_S:
                draw(table.markup())
                drawn = clock()
    finally:
        draw(table.markup())
    return rows


def watch_cluster(run: ClusterRun, *, draw: Callable[[str], None] | None = None) -> list[Partition]:
    """Read a run on a cluster to its end under a line that says how far it is, with a link to the cluster's own page.

    Args:
        run: from `run_on_cluster`.
        draw: is given each picture as HTML; None: they are drawn below the cell.

    Returns:
        All partitions, as they were finished.
    """
    draw = draw or below_the_cell()
    link = f" <a href='{_e(run.dashboard)}'>{_e(run.dashboard)}</a>" if run.dashboard else ""
    parts = []
    try:
        draw(f"<p><b>{_e(progress(run))}</b>{link}</p>")
        for part in run:
            parts.append(part)
            draw(f"<p><b>{_e(progress(run))}</b>{link}</p>")
    finally:
        draw(f"<p><b>{_e(progress(run))}</b></p>")  # the page is gone with the run
    return parts


def progress(run: BulkRun | ClusterRun) -> str:
    """How far a run is, in one line: tickets, how many went up, USD, what is left, what went wrong."""
    done = run.tickets + run.skipped
    facts = [f"{done} of {run.total} tickets" if run.total is not None else f"{done} tickets"]
    if run.tickets:
        facts += [f"{run.escalated} went up ({run.escalated / run.tickets:.0%})", usd(run.cost_usd)]
        if run.total is not None and done < run.total and run.stopped in ("", "finished"):
            rate = run.tickets / max(run.elapsed_s, 1e-3)
            facts.append(f"{rate:.1f} a second, about {(run.total - done) / rate:.0f} s left")
    if run.failed:
        facts.append(f"{run.failed} without a decision")
    if run.stopped in ("interrupted", "budget", "error"):
        facts.append(f"stopped: {run.stopped}")
    return ", ".join(facts)


class BulkTable:
    """Tickets of a bulk run as they stand, as HTML with everything escaped."""

    HEAD = ("ticket", "first answer", "final answer", "route", "why it went up", "status", "USD")

    def __init__(self, run: BulkRun, tickets: Sequence[Ticket], *, show: int) -> None:
        self._run, self._show = run, show
        self._subjects = {ticket.id: ticket.subject for ticket in tickets}
        self._tickets: dict[str, list[Row]] = {i: [] for i in self._subjects} if len(tickets) <= show else {}

    def add(self, row: Row) -> None:
        """Take in one row."""
        self._tickets.setdefault(row.ticket_id, []).append(row)
        if len(self._tickets) > self._show:
            oldest = next(
                (i for i, rows in self._tickets.items() if rows and rows[-1].final), next(iter(self._tickets))
            )
            del self._tickets[oldest]

    def markup(self) -> str:
        """The table as it stands."""
        body = "".join(line(self._values(*entry)) for entry in self._tickets.items())
        return (
            f"<div class='bulk-table mathjax_ignore'><p><b>{_e(progress(self._run))}</b></p>"
            f"<table><thead>{line(self.HEAD, head=True)}</thead><tbody>{body}</tbody></table></div>"
        )

    def _values(self, ticket_id: str, rows: list[Row]) -> tuple[str, ...]:
        name = f"{ticket_id} {_short(self._subjects.get(ticket_id, ''), 50)}".strip()
        if not rows:
            return (name, "", "", "", "", "waiting", "")
        first, last = rows[0], rows[-1]
        return (
            name,
            _answer(first),
            _answer(last) if last.final else "",
            " → ".join(row.tier for row in rows) + ("" if last.final else " → ..."),
            ", ".join(dict.fromkeys(why.rule for row in rows for why in row.reasons)),
            last.status if last.error is None else f"{last.status}: {last.error.type}",
            f"{last.ticket_cost_usd:.6f}",
        )


def _answer(row: Row) -> str:
    """A decision in one line: its short fields, e.g. "billing P2 0.91 needs_human"."""
    if row.decision is None:
        return "none"
    shown = []
    for name, value in row.decision.items():
        if isinstance(value, bool):
            shown += [name] if value else []
        elif len(str(value)) <= 20:
            shown.append(str(value))
    return " ".join(shown)


def _e(value: object) -> str:
    return html.escape(str(value))


def _short(text: str, limit: int = 400) -> str:
    return text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " ..."
