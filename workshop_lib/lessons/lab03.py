"""What counts as right in lab 03: the attendee's own bulk runner, put through weather that a demo never sees."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from workshop_lib.bedrock.errors import WorkshopError
from workshop_lib.bedrock.replies import Reply
from workshop_lib.bedrock.settings import Settings
from workshop_lib.bulk.rows import Row, final_row
from workshop_lib.cascade.attempt import Attempt, Converses, Outcome, Tier
from workshop_lib.cascade.cascade import Cascade, id_of
from workshop_lib.cascade.rules import Rule, always, invalid_output, never, stakes
from workshop_lib.lessons.checks import Exercise, NotAttemptedError
from workshop_lib.local.faults import Fault
from workshop_lib.triage.datasets import load_tickets
from workshop_lib.triage.schema import Ticket
from workshop_lib.triage.task import TRIAGE
from workshop_lib.workshop import Workshop, open_workshop

PATIENCE_S = 60
Runner = Callable[[Cascade[Any], Iterable[Any], int], Iterable[Row]]


def scratch() -> Path:
    """A new folder for this notebook's stores; the system clears it away."""
    return Path(tempfile.mkdtemp(prefix="lab03-"))


def error_row(ticket: Any, error: Exception) -> Row:
    """The row of a ticket that could not even be asked about."""
    said = WorkshopError(f"{type(error).__name__}: {error}", advice="Look at the ticket itself.")
    unasked: Attempt[Any] = Attempt("none", "none", TRIAGE, None, said)
    return final_row(Outcome(id_of(ticket), None, (unasked,)), paid_usd=0.0)


class Practice:
    """A local endpoint of the lab's own, whatever the door: there the weather can be ordered, and nothing costs money."""

    def __init__(self, workshop: Workshop, client: Converses | None = None) -> None:
        if workshop.endpoint is None:
            raise AssertionError("the local door has an endpoint")
        self.workshop, self.endpoint = workshop, workshop.endpoint
        self.client = client or workshop.bedrock

    def cascade(self, rule: Rule | None = None) -> Cascade[Any]:
        """Cheap, then strong, by the rule of this lab if no other is given."""
        return Cascade(
            [Tier("cheap"), Tier("strong")], escalate_when=rule or stakes() | invalid_output(), client=self.client
        )

    def weather(self, *faults: Fault) -> None:
        """From the next call on, these faults and no others."""
        self.endpoint.faults.clear()
        self.endpoint.journal.clear()
        for fault in faults:
            self.endpoint.faults.add(fault)

    def close(self) -> None:
        """Stop the endpoint."""
        self.workshop.close()


def rough_weather() -> Practice:
    """A practice endpoint that throttles a burst, drops a connection, fails twice and now and then answers in prose."""
    practice = Practice(open_workshop(Settings(mode="local", time_scale=0.005)))
    practice.weather(
        Fault("ThrottlingException", at=frozenset({2, 3})),
        Fault("drop", at=frozenset({7})),
        Fault("ServiceUnavailableException", at=frozenset({11})),
        Fault("invalid_output", model="nemotron", at=frozenset({9, 10, 15, 16})),
        Fault("AccessDeniedException", model="claude", at=frozenset({5, 9})),
    )
    return practice


class Counting:
    """A client that knows how many of its calls were under way at once."""

    def __init__(self, client: Converses) -> None:
        self._client, self._lock, self._now, self.most = client, threading.Lock(), 0, 0

    def converse(self, model: str, messages: Any, **settings: Any) -> Reply:
        """As the client's, counted."""
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            return self._client.converse(model, messages, **settings)
        finally:
            with self._lock:
                self._now -= 1


@contextmanager
def _practice(time_scale: float) -> Iterator[Practice]:
    with open_workshop(Settings(mode="local", time_scale=time_scale)) as workshop:
        if workshop.endpoint is not None:
            workshop.endpoint.warm_up()
        yield Practice(workshop)


def _rows_of(answer: Callable[[Cascade[Any], Ticket], Iterable[Row]]) -> str | None:
    ticket = load_tickets("workshop")[0]
    with _practice(0) as practice:
        stayed = answer(practice.cascade(never()), ticket)
        if stayed is None:
            raise NotAttemptedError
        rows = list(stayed)
        if not rows:
            raise NotAttemptedError
        if [r.final for r in rows] != [True]:
            return f"a ticket that stays with the cheap tier has one row, a final one; yours has {_finals(rows)}"
        practice.weather()
        steps = iter(answer(practice.cascade(always()), ticket))
        first, calls = next(steps), practice.endpoint.journal.calls
        if calls != 1:
            return "the cheap row of a ticket that goes up comes only after the strong call: yield it when `escalated` happens"
        rows = [first, *steps]
        if [r.final for r in rows] != [False, True]:
            return f"a ticket that goes up has two rows, the last one final; yours has {_finals(rows)}"
        if [r.tier for r in rows] != ["cheap", "strong"]:
            return f"the rows are of the tiers {', '.join(r.tier for r in rows)}, not of cheap and strong"
    return None


def _run_all(answer: Runner) -> str | None:
    with _practice(0.02) as practice:
        for look in (_complete, _bounded, _unordered, _throttled, _dropped, _unusable, _poisoned):
            problem = look(practice, answer)
            if problem is not None:
                return problem
    return None


def _complete(practice: Practice, answer: Runner) -> str | None:
    tickets = load_tickets("workshop")[:12]
    practice.weather()
    rows, seen_after = _collect(practice, answer, tickets, 4)
    missed = _final_once(rows, tickets)
    if missed:
        return missed
    for ticket_id, mine in groupby(sorted(rows, key=lambda r: r.ticket_id), lambda r: r.ticket_id):
        tiers = [row.tier for row in mine]
        if tiers not in (["cheap"], ["cheap", "strong"]):
            return f"{ticket_id} has rows of {', '.join(tiers)}: cheap first, then strong where it goes up"
    if seen_after[0] >= practice.endpoint.journal.calls:
        return (
            "your first row was seen only when every call had been made: yield rows as they come, do not collect them"
        )
    return None


def _bounded(practice: Practice, answer: Runner) -> str | None:
    practice.weather()
    counting = Counting(practice.workshop.bedrock)
    _collect(Practice(practice.workshop, counting), answer, load_tickets("workshop")[:16], 3)
    if counting.most == 1:
        return "with workers=3 your calls were made one after the other"
    if counting.most > 3:
        return f"with workers=3 there were {counting.most} calls under way at once: the service will throttle you"
    return None


def _unordered(practice: Practice, answer: Runner) -> str | None:
    tickets = load_tickets("workshop")[:6]
    practice.weather(Fault("slow", at=frozenset({1}), delay_ms=150_000))  # of one of the first two tickets
    rows, _ = _collect(practice, answer, tickets, 2)
    if list(dict.fromkeys(row.ticket_id for row in rows)) == [ticket.id for ticket in tickets]:
        return "one slow call holds up the rows of all tickets behind it: yield them in the order in which they finish"
    return _final_once(rows, tickets)


def _throttled(practice: Practice, answer: Runner) -> str | None:
    tickets = load_tickets("workshop")[:4]
    practice.weather(Fault("ThrottlingException", first=2))
    rows, _ = _collect(practice, answer, tickets, 2)
    return _final_once(rows, tickets, "while the service throttled") or _paid_once(practice, rows, "throttling")


def _dropped(practice: Practice, answer: Runner) -> str | None:
    tickets = load_tickets("workshop")[:4]
    practice.weather(Fault("drop", at=frozenset({2})))
    rows, _ = _collect(practice, answer, tickets, 2)
    return _final_once(rows, tickets, "when a connection was dropped") or _paid_once(
        practice, rows, "a dropped connection"
    )


def _unusable(practice: Practice, answer: Runner) -> str | None:
    tickets = load_tickets("workshop")[:4]
    practice.weather(Fault("invalid_output"))
    rows, _ = _collect(practice, answer, tickets, 2)
    missed = _final_once(rows, tickets, "when no model answered in the asked form")
    if missed:
        return missed
    if any(row.error is None for row in rows if row.final):
        return "a ticket whose models gave no usable answer must end in a row with an error"
    return None


def _poisoned(practice: Practice, answer: Runner) -> str | None:
    tickets = [*load_tickets("workshop")[:2], None, *load_tickets("workshop")[2:4]]
    practice.weather()
    rows, _ = _collect(practice, answer, tickets, 1)
    return _final_once(
        rows, tickets, "when one item of the list was None (lab03.error_row makes the row of such an item)"
    )


def _collect(practice: Practice, answer: Runner, tickets: Iterable[Any], workers: int) -> tuple[list[Row], list[int]]:
    """All rows of the attendee's function, and how many calls had been made when each was seen; not for ever."""
    rows: list[Row] = []
    calls: list[int] = []
    problem: list[BaseException] = []

    def read() -> None:
        try:
            for row in answer(practice.cascade(), tickets, workers) or ():
                calls.append(practice.endpoint.journal.calls)
                rows.append(row)
        except BaseException as error:  # handed to the thread that waits
            problem.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(PATIENCE_S)
    if problem:
        raise problem[0]
    if reader.is_alive():
        raise TimeoutError(
            f"your function did not end within {PATIENCE_S} s: does each worker say that it has no more tickets, whatever happened to it?"
        )
    if not rows and not practice.endpoint.journal.calls:
        raise NotAttemptedError
    return rows, calls


def _final_once(rows: Iterable[Row], tickets: Iterable[Any], when: str = "") -> str | None:
    finals = Counter(row.ticket_id for row in rows if row.final)
    wanted = [id_of(ticket) for ticket in tickets]
    lost = [i for i in wanted if not finals[i]]
    if lost:
        return f"{len(lost)} of {len(wanted)} tickets have no final row {when}".rstrip() + f", the first is {lost[0]}"
    twice = [i for i in wanted if finals[i] > 1]
    return f"{twice[0]} has {finals[twice[0]]} final rows {when}".rstrip() if twice else None


def _paid_once(practice: Practice, rows: Iterable[Row], what: str) -> str | None:
    paid, told = practice.endpoint.journal.cost_usd, sum(row.cost_usd for row in rows)
    if abs(paid - told) > 1e-9:
        return f"with {what}, USD {paid:.6f} were paid and your rows tell of {told:.6f}: retries have one owner, the client"
    return None


def _finals(rows: Iterable[Row]) -> str:
    return ", ".join("final" if row.final else "not final" for row in rows) or "none"


NDJSON = """\
{"ticket_id": "T-1", "tier": "cheap", "final": true}
{"ticket_id": "T-2", "tier": "cheap", "final": false}
{"ticket_id": "T-3", "tier": "cheap", "final": false}
{"ticket_id": "T-3", "tier": "strong", "final": true}
{"ticket_id": "T-4", "tier": "che"""


def _finished(answer: Callable[[str], Any]) -> str | None:
    for text, wanted in (("", set()), (NDJSON.rsplit("\n", 1)[0] + "\n", {"T-1", "T-3"}), (NDJSON, {"T-1", "T-3"})):
        given = answer(text)
        if given is None:
            raise NotAttemptedError
        if set(given) != wanted:
            last = text.splitlines()[-1] if text else "(an empty file)"
            return f"for a file that ends in {last!r} your function gives {sorted(given)}"
    return None


def _may_start(answer: Callable[[float, float, float, float], Any]) -> str | None:
    cases = (
        (0.00, 0.00, 0.05, 1.00, True, "nothing spent of 1.00"),
        (0.90, 0.00, 0.05, 1.00, True, "0.90 spent of 1.00, nothing in flight"),
        (0.90, 0.08, 0.05, 1.00, False, "0.90 spent of 1.00, 0.08 in flight, 0.05 for the next"),
        (0.97, 0.00, 0.05, 1.00, False, "0.97 spent of 1.00, 0.05 for the next"),
    )
    for spent, in_flight, most, budget, wanted, words in cases:
        given = answer(spent, in_flight, most, budget)
        if given is None or given is ...:
            raise NotAttemptedError
        if bool(given) is not wanted:
            return f"with {words} your function says {given}"
    return None


EXERCISES = {
    "3.1": Exercise(
        _rows_of,
        (
            "Walk through `for event in cascade.stream(ticket)`. Three kinds of event matter: one that carries an attempt, `escalated`, and the one that carries an outcome.",
            "Remember the last event.attempt. At `escalated`, yield first_row(event.item_id, attempt, event.reasons, paid_usd=paid) and add its cost_usd to paid.",
            "Where event.outcome is not None, yield final_row(event.outcome, paid_usd=paid): that is the last row, whether it went well or not.",
        ),
        "a reader knows the cheap answer while the strong model is still thinking.",
    ),
    "3.2": Exercise(
        _run_all,
        (
            "Two queues and a few workers: one queue of tickets that wait, one of rows that are ready. A worker takes a ticket, puts its rows, takes the next.",
            "pool.submit(work) for each of `workers`. When waiting.get_nowait() raises queue.Empty, a worker puts None on the rows and ends: count the Nones to know when all have.",
            "An exception in a worker must not end it: around one ticket, `except Exception as error: rows.put(lab03.error_row(ticket, error))`. Do not retry: the client does.",
        ),
        "bounded, in order within a ticket and free across tickets, one row for every failure. The rest of this lab is what a long run needs on top.",
    ),
    "3.3": Exercise(
        _finished,
        (
            "One line is one JSON object. Only a row with final = true ends a ticket.",
            "A killed process can leave half a line at the end. json.loads raises ValueError there: skip that line.",
        ),
        "this is all that resuming is: know what is done, and pay for the rest.",
    ),
    "3.4": Exercise(
        _may_start,
        (
            "What has been spent is not all: calls in flight will cost something, too.",
            "spent + in_flight + most must not be above the budget.",
        ),
        "a budget that only counts what is finished is passed by whatever was in flight.",
    ),
}
