"""Which tickets a candidate is asked about beside the current way of answering, and how its answers are kept. None is ever returned.

with Shadow(cascade.run, candidate, store="shadow.db", share=0.2) as shadow:
    outcome = shadow.run(ticket)          # the current answer, at once
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from workshop_lib.bedrock.errors import WorkshopError
from workshop_lib.bulk.intake import identify
from workshop_lib.bulk.rows import Row, final_row
from workshop_lib.bulk.store import Store, StoreError
from workshop_lib.cascade.attempt import Attempt, Outcome
from workshop_lib.cascade.cascade import Cascade, id_of
from workshop_lib.cascade.rules import code_hash
from workshop_lib.triage.task import TRIAGE, Task

LOG = logging.getLogger(__name__)
Answers = Cascade[Any] | Callable[[Any], Outcome[Any]]
"""A cascade, or anything from an item to its outcome."""
CURRENT, CANDIDATE = 0, 1
"""Places of the two rows that a ticket has in the store."""


@dataclass(frozen=True)
class Counts:
    """What has become of the sampled tickets."""

    offered: int
    """Tickets that came by."""
    sampled: int
    """Of them, those that the candidate is to be asked about."""
    answered: int
    """Now stored, failures of the candidate included: they count against it."""
    known: int
    """In the store already, by an earlier run: not paid again."""
    dropped: int
    """Not asked: no room. Tickets of busy hours are among them, so many drops make the sample unlike the tickets."""
    lost: int
    """Could not be stored."""
    waiting: int
    cost_usd: float
    """USD of the candidate in this run, apart from the current way's."""
    problem: str = ""
    """Why the first one was lost."""


@dataclass(frozen=True)
class Pair:
    """One ticket's answers by both, as final rows."""

    ticket_id: str
    current: Row
    candidate: Row


class Shadow:
    """Asks a candidate about a share of the tickets, in threads of its own. Safe to share between threads.

    The candidate needs a client of its own, and quota to spare: on a shared quota it takes requests from the current way.
    """

    def __init__(
        self,
        current: Answers,
        candidate: Answers,
        *,
        store: Path | str,
        share: float = 0.1,
        salt: str = "shadow",
        task: Task[Any] = TRIAGE,
        workers: int = 2,
        room: int = 100,
    ) -> None:
        """
        Args:
            current: what answers now.
            candidate: what may take its place.
            store: SQLite file; an existing one is gone on with.
            share: of the tickets, 0..1. The same tickets are sampled in every run, by a hash of id and salt.
            salt: another one samples other tickets.
            task: what both answer.
            workers: calls to the candidate at once.
            room: tickets that may wait for it; what comes after is dropped and counted.

        Raises:
            ValueError: a share outside 0..1, no worker, or no room.
            StoreInUse, StoreMismatch, StoreError: the store is in use, was made with others, or cannot be opened.
        """
        if not 0 <= share <= 1 or workers < 1 or room < 1:
            raise ValueError(
                f"0 <= share <= 1, workers >= 1 and room >= 1 do not hold for {share}, {workers} and {room}"
            )
        self._current, self._candidate = _runs(current), _runs(candidate)
        self._share, self._salt, self._task = share, salt, task
        identity = {
            "current": _identity(current),
            "candidate": _identity(candidate),
            "salt": salt,
            "task": task.fingerprint,
        }
        self._store = Store(store, identity=identity)
        self._room = threading.BoundedSemaphore(room + workers)
        self._pool = ThreadPoolExecutor(workers, "shadow")
        self._lock = threading.Lock()
        self._in_hand: set[str] = set()
        self._offered = self._sampled = self._answered = self._known = self._dropped = self._lost = self._waiting = 0
        self._cost_usd, self._problem, self._closed = 0.0, "", False

    def run(self, item: Any) -> Outcome[Any]:
        """The current answer. If the item is sampled, the candidate is asked afterwards, elsewhere."""
        outcome = self._current(item)
        self.offer(item, outcome)
        return outcome

    def offer(self, item: Any, outcome: Outcome[Any]) -> bool:
        """Hand over an item that was answered already, e.g. behind a guardrail; whether the candidate will be asked. Never raises, never waits."""
        with self._lock:
            self._offered += 1
            try:
                if not sampled(id_of(item), self._share, salt=self._salt):
                    return False
                self._sampled += 1
                if self._closed or not self._room.acquire(blocking=False):
                    self._dropped += 1
                    return False
                self._pool.submit(self._ask, item, outcome)
            except Exception as problem:  # an item without an id, a program that is ending
                self._lost += 1
                self._problem = self._problem or type(problem).__name__
                return False
            self._waiting += 1
            return True

    @property
    def counts(self) -> Counts:
        """So far."""
        with self._lock:
            return Counts(
                self._offered, self._sampled, self._answered, self._known, self._dropped, self._lost, self._waiting,
                self._cost_usd, self._problem,
            )  # fmt: skip

    def close(self) -> None:
        """Wait until the candidate has answered what waits, then let go of the store. Its client's time limits bound the wait."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True)
        self._store.close()

    def __enter__(self) -> Shadow:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _ask(self, item: Any, outcome: Outcome[Any]) -> None:
        item_id, twice = id_of(item), True
        try:
            _, digest = identify(self._task, item)
            with self._lock:
                twice = item_id in self._in_hand
                self._in_hand.add(item_id)
            if twice or len(self._store.rows_of(item_id, digest=digest)) > CANDIDATE:
                with self._lock:
                    self._known += 1
                return
            found = self._answer(item)
            with self._lock:
                self._cost_usd += found.cost_usd
            for step, kept in ((CURRENT, outcome), (CANDIDATE, found)):  # the pair is whole with the candidate's row
                self._store.add(_row(kept, item_id), step=step, digest=digest)
            with self._lock:
                self._answered += 1
        except Exception as problem:  # a full disk, a changed text: it is the shadow's trouble alone
            with self._lock:
                self._lost += 1
                first, self._problem = not self._problem, self._problem or f"{type(problem).__name__}: {problem}"
            if first:
                LOG.warning("Shadow answers are being lost (%s). Tickets are answered; shadow.counts counts.", problem)
        finally:
            with self._lock:
                self._waiting -= 1
                if not twice:  # else it is in another thread's hand
                    self._in_hand.discard(item_id)
            self._room.release()

    def _answer(self, item: Any) -> Outcome[Any]:
        """The candidate's outcome; if it raises, or gives none, that is its failure and counts as such."""
        try:
            found = self._candidate(item)
            if isinstance(found, Outcome) and found.attempts:
                return found
            problem = f"it gave {type(found).__name__} instead of an Outcome"
        except Exception as error:  # a user's function, which may raise anything
            problem = type(error).__name__
        broken = WorkshopError(f"The candidate has no outcome: {problem}.", advice="It counts as wrong on this ticket.")
        return Outcome(id_of(item), None, (Attempt("candidate", "", self._task, None, broken),))


def sampled(item_id: str, share: float, *, salt: str) -> bool:
    """Whether a ticket belongs to the sample: the same in every run and on every machine."""
    return place(item_id, salt=salt) < share


def place(item_id: str, *, salt: str) -> float:
    """A ticket's place in 0..1, as good as drawn by chance, and always the same."""
    digest = hashlib.sha256(f"{salt}:{item_id}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:7]) / 2**56


def load_pairs(store: Path | str) -> list[Pair]:
    """The tickets that both have answered, in the order in which they were stored.

    Raises:
        StoreError: there is no such store, or it holds other rows.
    """
    with Store(store) as kept:
        rows: dict[str, list[Row]] = {}
        for row in kept:
            rows.setdefault(row.ticket_id, []).append(row)
    if any(len(found) > 2 or not row.final for found in rows.values() for row in found):
        raise StoreError(f"{store} holds rows of a bulk run.", advice="Give the store of a Shadow.")
    return [Pair(ticket_id, *found) for ticket_id, found in rows.items() if len(found) == 2]


def _row(outcome: Outcome[Any], item_id: str) -> Row:
    row = final_row(outcome, paid_usd=outcome.cost_usd - outcome.attempts[-1].cost_usd)
    return row.model_copy(update={"ticket_id": item_id})


def _runs(answers: Answers) -> Callable[[Any], Outcome[Any]]:
    return answers.run if isinstance(answers, Cascade) else answers


def _identity(answers: Answers) -> Any:
    """What tells one way of answering from another: its own `identity`, or the one of the object whose method it is, else its code."""
    for known in (answers, getattr(answers, "__self__", None)):
        if (identity := getattr(known, "identity", None)) is not None:
            return identity
    return f"function with code {code_hash(_runs(answers))}"
