"""How many tickets are answered at once, in which order, until when: a bounded pool that yields rows as tickets finish and loses none.

    for row in run_bulk(cascade, tickets, workers=8, store="run.db", budget_usd=5.0):
        print(row.ticket_id, row.tier, row.status)

Each worker takes one ticket through its tiers and keeps every row in the store *before* anybody sees it. So whatever ends a run
(an interrupt, a full disk, kill -9), the same call goes on from there and pays again at most for what was in flight.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from workshop_lib.bedrock.catalogue import ModelSpec
from workshop_lib.bedrock.errors import WorkshopError
from workshop_lib.bedrock.pacing import LEAVE, Leave, Limiter, Paced, Quota, RunEnded
from workshop_lib.bulk.budget import most_it_can_cost
from workshop_lib.bulk.intake import Seen, check, identify, twice
from workshop_lib.bulk.rows import Row, attempt_of, dearer, final_row, first_row
from workshop_lib.bulk.store import Store, StoreError
from workshop_lib.cascade.attempt import Attempt, Outcome, Reason
from workshop_lib.cascade.cascade import Cascade, conclude
from workshop_lib.triage.datasets import read_tickets

POLL_S = 0.1
"""How often a waiting run looks at its deadlines (and, on Windows, at Ctrl-C)."""
MAX_WORKERS = 256
"""Threads beyond a few hundred only wait for each other: boto3 makes some hundred calls a second in one process."""
Stopped = Literal["", "finished", "interrupted", "budget", "closed", "error"]


class DeadlineExceeded(WorkshopError):
    """A ticket took longer than its deadline; no further call was made for it."""

    default_advice = "Raise deadline_s, or run again with retry_failed. A call that was under way may be billed: what comes in late is counted."


@dataclass
class _Job:
    """One ticket on its way."""

    item: Any
    item_id: str
    digest: str
    started: float = 0.0
    attempts: list[Attempt[Any]] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    paid_usd: float = 0.0
    """By rows that are written."""
    carried: Row | None = None
    """The failed row that is tried again: what it cost stays counted."""
    reserved_usd: float = 0.0
    tier: str = ""
    """The one that was asked last."""
    calling: bool = False
    """Whether a tier is being asked just now."""
    given_up: bool = False
    """Its deadline passed during a call, and its final row is written; what still comes in is late."""
    given_up_at: float = 0.0
    row: Row | None = None
    """The one that was written last."""
    leave: threading.Event = field(default_factory=threading.Event)
    """No further call is made for it: the run has ended, or the ticket was given up."""


class BulkRun(Iterable[Row]):
    """Rows as they finish. Work starts when iteration does and goes on in threads; leaving the loop ends it.

    It can be iterated again after an interrupt: it gives the rows that had come already, and ends.
    """

    def __init__(
        self,
        cascade: Cascade[Any],
        items: Iterable[Any],
        *,
        workers: int,
        store: Store | None = None,
        budget_usd: float | None = None,
        deadline_s: float | None = None,
        retry_failed: bool = False,
        models: Mapping[str, str],
        stop: threading.Event | None = None,
        total: int | None = None,
        distinct: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """As `run_bulk`, whose result this is. `models`: tier to its model's key; `total`: how many tickets, if that is known;
        `distinct`: no id occurs twice, which has been checked.
        """
        self.cascade, self.workers, self.total = cascade, workers, total
        self.stopped: Stopped = ""
        """Why no further ticket is started; "" while some are."""
        self.tickets = 0
        """Tickets that got their final row in this run."""
        self.skipped = 0
        """Tickets whose final row the store had already."""
        self.escalated = 0
        """Of `tickets`, those that went above their first tier."""
        self.failed = 0
        """Of `tickets`, those without a decision."""
        self.cost_usd = 0.0
        """USD of this run's calls, late answers included."""
        self.unsaved: list[Row] = []
        """Rows that the store could not keep. They are yielded all the same."""
        self._items, self._store, self._clock, self._models = iter(items), store, clock, models
        self._told_to_stop = stop
        self._ended, self._gone = threading.Event(), threading.Event()  # no first call; no call at all
        self._budget, self._deadline, self._retry_failed = budget_usd, deadline_s, retry_failed
        self._out: queue.Queue[Row | None] = queue.Queue()
        self._changed = threading.Condition()
        self._active: dict[str, _Job] = {}
        self._seen = None if distinct else Seen()
        self._waiting: _Job | None = None
        self._problem: BaseException | None = None
        self._open = 0
        self._late: dict[str, _Job] = {}
        """Given up during a call that has not come in."""
        self._started_at: float | None = None
        self._ended_at: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first ticket was started; stands still when the run has ended."""
        if self._started_at is None:
            return 0.0
        return (self._ended_at or self._clock()) - self._started_at

    def __iter__(self) -> Iterator[Row]:
        try:
            yield from self._rows()
        except KeyboardInterrupt:
            self._stop("interrupted")
            self.close()
            raise KeyboardInterrupt(self.how_to_go_on()) from None
        finally:
            self.close()
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def how_to_go_on(self) -> str:
        """What has been done and what continues it, in two sentences."""
        done = f"Stopped after {self.tickets} tickets (USD {self.cost_usd:.6f})."
        if self._store is not None:
            return (
                f"{done} All of it is in {self._store.path.name}: the same call with the same store goes on from there."
            )
        return f"{done} Iterate this run again for rows not yet read. A run with a store can be resumed."

    def close(self, *, wait_s: float = 30) -> None:
        """Start no further call, wait for those in flight and keep what they bring. The store is let go of.

        Args:
            wait_s: at most; a call that takes longer ends unseen, and is asked again by the next run.
        """
        self._stop("closed")
        until = time.monotonic() + wait_s
        with self._changed:
            while self._active and (left := until - time.monotonic()) > 0:
                self._changed.wait(min(left, POLL_S))
            self._gone.set()
        self._ended_at = self._ended_at or self._clock()
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # --- the reader's side

    def _rows(self) -> Iterator[Row]:
        looked = self._clock()
        if self._started_at is None:
            if self._is_told_to_stop():
                return
            self._started_at = looked
            for _ in range(self.workers):
                self._start_worker()
        while True:
            try:
                row = self._out.get(timeout=POLL_S)
            except queue.Empty:
                row = None
            else:  # a row, or a worker's farewell
                with self._changed:
                    self._changed.notify_all()  # there is room for another ticket
            if (now := self._clock()) - looked >= POLL_S:
                looked = now
                self._look_at_deadlines()
            told = self._is_told_to_stop()
            if row is not None:
                yield row
            elif (told and self._out.empty()) or self._has_ended():
                return

    def _is_told_to_stop(self) -> bool:
        told = self._told_to_stop is not None and self._told_to_stop.is_set()
        if told:
            self._stop("interrupted")
        return told

    def _has_ended(self) -> bool:
        with self._changed:
            # A call beyond its deadline gets as long again to come in, so that what it costs is counted; not for ever.
            waiting = [j for j in self._late.values() if self._clock() - j.given_up_at <= (self._deadline or 0)]
            return self._open == 0 and not waiting and self._out.empty()

    def _look_at_deadlines(self) -> None:
        """Conclude tickets whose call does not come back in time. It cannot be recalled: a new worker takes its place."""
        if self._deadline is None:
            return
        with self._changed:
            overdue = [job for job in self._active.values() if job.calling and self._is_late(job)]
            for job in overdue:
                job.given_up, job.given_up_at = True, self._clock()
                job.leave.set()
                self._late[job.item_id] = self._active.pop(job.item_id)
                self._open -= 1
                self._give_up(job)  # before the lock is let go of: what comes in late is added to the row written here
        for _ in overdue:
            self._start_worker()

    # --- the workers' side

    def _start_worker(self) -> None:
        with self._changed:
            self._open += 1
        threading.Thread(target=self._work, name="bulk", daemon=True).start()

    def _work(self) -> None:
        job: _Job | None = None
        try:
            while (job := self._take()) is not None:
                self._answer(job)
                if job.given_up:
                    break
                self._finished(job)
        except (
            BaseException
        ) as error:  # a mistake in the program, or a store that fails: it ends the run, not this thread
            self._fail(error)
            if job is not None:
                self._finished(job)
        finally:
            with self._changed:
                if job is not None and job.given_up:
                    del self._late[job.item_id]
                else:
                    self._open -= 1
                self._changed.notify_all()
            self._out.put(None)

    def _take(self) -> _Job | None:
        """The next ticket, once there is room for its rows and money for its calls; None: no more."""
        with self._changed:
            while not self.stopped and not self._is_told_to_stop():
                if self._out.qsize() > 2 * self.workers:
                    self._changed.wait()
                    continue
                job, self._waiting = self._waiting or self._pull(), None
                if job is None:
                    self._stop("finished")
                    break
                promised = sum(j.reserved_usd for j in (*self._active.values(), *self._late.values()))
                if self._budget is not None and self.cost_usd + promised + job.reserved_usd > self._budget:
                    self._waiting = job
                    if not self._active:
                        self._stop("budget")
                        break
                    self._changed.wait()
                    continue
                job.started = self._clock()
                self._active[job.item_id] = job
                return job
        return None

    def _pull(self) -> _Job | None:
        """The next ticket that still needs an answer."""
        for item in self._items:
            item_id, digest = identify(self.cascade.task, item)
            if self._seen is not None and not self._seen.add(item_id):
                raise twice(item_id)
            job = _Job(item, item_id, digest)
            kept = (
                self._store.rows_of(item_id, digest=digest) if self._store is not None and self._store.resumed else []
            )
            if kept and kept[-1].final:
                if kept[-1].error is None or not self._retry_failed:
                    self.skipped += 1
                    continue
                job.carried = kept.pop()
            for row in kept:
                job.attempts.append(attempt_of(row, self.cascade.task))
                job.reasons += [Reason(why.rule, why.detail) for why in row.reasons]
                job.paid_usd += row.cost_usd
            if self._budget is not None:
                left = self.cascade.tiers_left(item, job.attempts)
                job.reserved_usd = most_it_can_cost(self.cascade, item, tiers=left)
            return job
        return None

    def _answer(self, job: _Job) -> None:
        """Take a ticket through its tiers, a row a tier. Left between two tiers, it is gone on with by a later run."""
        settled = len(job.attempts)  # attempts that have their row
        try:
            for event in self.cascade.stream(job.item, attempts=job.attempts, reasons=job.reasons):
                if event.kind == "routed":
                    job.reasons += event.reasons
                elif event.kind == "tier-started":
                    job.tier = event.tier
                    if job.leave.is_set():
                        return
                    if self._is_late(job):
                        self._give_up(job)
                        return
                    job.calling = True
                    LEAVE.set(Leave(job.leave, self._ended, self._gone))
                elif event.attempt is not None:
                    LEAVE.set(None)
                    with self._changed:
                        job.calling = False
                        if job.given_up:
                            break
                    job.attempts.append(event.attempt)
                elif event.kind == "escalated":
                    job.reasons += event.reasons
                    self._write(job, first_row(job.item_id, job.attempts[-1], event.reasons, paid_usd=job.paid_usd))
                    settled += 1
                elif event.outcome is not None:
                    self._conclude(job, event.outcome)
                    settled += 1
            if job.given_up and event.attempt is not None:
                self._came_late(job, event.attempt)
        except RunEnded:  # while it waited for its turn: no call was made
            with self._changed:
                job.calling = False
            return
        except Exception as error:
            if settled < len(job.attempts):  # a rule raised: its attempt was paid for
                paid = job.attempts.pop()
                broken = replace(paid, decision=None, error=_unexpected(error))
                self._conclude(job, Outcome(job.item_id, None, (*job.attempts, broken), tuple(job.reasons)))
            raise

    def _is_late(self, job: _Job) -> bool:
        return self._deadline is not None and self._clock() - job.started > self._deadline

    def _give_up(self, job: _Job) -> None:
        error = DeadlineExceeded(f"{job.item_id} had no answer of the tier {job.tier} within {self._deadline:g} s.")
        unanswered: Attempt[Any] = Attempt(job.tier, self._models[job.tier], self.cascade.task, None, error)
        self._conclude(job, conclude(job.item_id, self.cascade.task, [*job.attempts, unanswered], job.reasons))

    def _came_late(self, job: _Job, attempt: Attempt[Any]) -> None:
        """An answer after its ticket's deadline: nobody waits for it, but it was paid for."""
        with self._changed:
            self.cost_usd += attempt.cost_usd
        if job.row is not None:
            self._keep(job, dearer(job.row, attempt.cost_usd, attempt.http_attempts), len(job.attempts))

    def _conclude(self, job: _Job, outcome: Outcome[Any]) -> None:
        row = final_row(outcome, paid_usd=job.paid_usd)
        with self._changed:
            self.tickets += 1
            self.escalated += row.escalated
            self.failed += row.decision is None
        self._write(job, row, step=len(outcome.attempts) - 1)

    def _write(self, job: _Job, row: Row, *, step: int | None = None) -> None:
        with self._changed:
            self.cost_usd += row.cost_usd
        if job.carried is not None:
            row, job.carried = dearer(row, job.carried.cost_usd, job.carried.attempts), None
        job.paid_usd += row.cost_usd
        job.row = row
        self._keep(job, row, len(job.attempts) - 1 if step is None else step)
        self._out.put(row)

    def _keep(self, job: _Job, row: Row, step: int) -> None:
        if self._store is None:
            return
        try:
            self._store.add(row, step=step, digest=job.digest)
        except StoreError as error:
            with self._changed:
                self.unsaved.append(row)
            self._fail(error)

    def _finished(self, job: _Job) -> None:
        with self._changed:
            self._active.pop(job.item_id, None)
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._problem = self._problem or error
            self._stop("error")

    def _stop(self, why: Stopped) -> None:
        """The first reason stands; that the tickets have come to their end is the weakest one."""
        with self._changed:
            if not self.stopped or (self.stopped == "finished" and self._active):
                self.stopped = why
            if why not in ("finished", "budget"):
                self._ended.set()
                for job in self._active.values():
                    job.leave.set()
            self._changed.notify_all()


def run_bulk(
    cascade: Cascade[Any],
    tickets: Iterable[Any] | Path | str,
    *,
    workers: int = 8,
    store: Path | str | None = None,
    budget_usd: float | None = None,
    deadline_s: float | None = None,
    limits: Mapping[str, Quota | Limiter] | None = None,
    retry_failed: bool = False,
    limit: int | None = None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> BulkRun:
    """Many tickets through a cascade: rows as they finish, in memory that does not grow with their number.

    A ticket's first tier is one row, at once; where it goes up, each further tier is another one, in order. Tickets come in any
    order among each other. A ticket that fails is an error row, and the run goes on.

    Args:
        cascade: tiers, rule, task and client. Retries are its client's business alone.
        tickets: what the cascade's task reads; a path is a JSONL file of support tickets. A file or a list is checked as a
            whole before anything is paid for, another iterable ticket by ticket.
        workers: tickets in flight at once, 1 to 256.
        store: a SQLite file that keeps every row. The same call again goes on from there.
        budget_usd: the run's spending limit. A ticket is only started if the limit holds whatever it and those in flight cost.
        deadline_s: seconds for a ticket; after them no further call is made for it. A cheap answer that is there is kept.
        limits: model, named as the tiers name it, to its quota; calls wait for their turn.
        retry_failed: ask again where the store has an error row.
        limit: at most so many tickets.
        stop: ends the run when another thread sets it, also while the loop waits for a row.
        clock: seconds; injected by tests.

    Raises:
        ValueError: workers, budget, deadline or limit are no sensible number; or the cascade starts tiers early, which is for somebody
            who waits: in bulk it would only cost.
        ConfigurationError: a ticket or a line is unusable, an id occurs twice, the file is gone, or a budget has no prices.
        UnknownModel: a tier names no model of the catalogue.
        StoreError: the store cannot be used, or (while iterating) could not keep a row.
        StoreMismatch: the store belongs to another task, prompt, model, rule or door.
    """
    for name, value in (("workers", workers), ("budget_usd", budget_usd), ("deadline_s", deadline_s), ("limit", limit)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, not {value}")
    if workers > MAX_WORKERS:
        raise ValueError(f"workers can be {MAX_WORKERS} at most, not {workers}: use several processes beyond that")
    identity, specs = identity_of(cascade), specs_of(cascade)
    models = {t.name: specs[t.name].key if specs else t.model for t in cascade.tiers}
    if limits:
        cascade = cascade.using(Paced(cascade.client, limits))
    is_file = isinstance(tickets, Path | str)

    def items() -> Iterable[Any]:
        return itertools.islice(read_tickets(Path(tickets)) if is_file else tickets, limit)  # type: ignore[arg-type]

    is_list = isinstance(tickets, Sequence) and not is_file
    total = check(cascade.task, items()) if is_file or is_list else None
    kept = None if store is None else Store(store, identity=identity)
    return BulkRun(
        cascade,
        items(),
        workers=workers,
        store=kept,
        budget_usd=budget_usd,
        deadline_s=deadline_s,
        retry_failed=retry_failed,
        models=models,
        stop=stop,
        total=total,
        distinct=is_list,  # a file may be another one by the time it is read again
        clock=clock,
    )


def specs_of(cascade: Cascade[Any]) -> dict[str, ModelSpec]:
    """Tier to its model; empty without a catalogue.

    Raises:
        UnknownModel: a tier names no model of the catalogue.
    """
    catalogue = getattr(cascade.client, "catalogue", None)
    return {} if catalogue is None else {t.name: catalogue[t.model] for t in cascade.tiers}


def open_store(path: Path | str, cascade: Cascade[Any]) -> Store:
    """The store of a cascade's run: it belongs to task, prompt, models, rule and door.

    Raises:
        StoreError, StoreMismatch: as `Store`.
        ValueError, UnknownModel: as `identity_of`.
    """
    return Store(path, identity=identity_of(cascade))


def identity_of(cascade: Cascade[Any]) -> dict[str, Any]:
    """What rows in bulk depend on, part by part: the cascade, the ids of its models, the door.

    Raises:
        ValueError: the cascade starts tiers early, which in bulk would only cost.
        UnknownModel: a tier names no model of the catalogue.
    """
    if cascade.start_early is not None:
        raise ValueError(
            "start_early spends money to shorten one ticket's wait, and in bulk nobody waits for one: leave it out"
        )
    ids = {name: spec.id for name, spec in specs_of(cascade).items()} or {t.name: t.model for t in cascade.tiers}
    return {**cascade.identity, "models": ids, **getattr(cascade.client, "door", {})}


def _unexpected(error: Exception) -> WorkshopError:
    return WorkshopError(
        f"{type(error).__name__}: {error}",
        advice="This is a mistake in a rule or a task, not in the ticket: the run ends.",
    )
