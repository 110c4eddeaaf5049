"""How records reach where they are kept: in the background, so that no request waits for a disk or a collector, nor fails with it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

LOG = logging.getLogger(__name__)
ROOM = 8_192
"""Records that may wait for one destination; what comes after is dropped and counted."""
BATCH = 256
T = TypeVar("T")


@dataclass(frozen=True)
class Delivery:
    """What has become of the records for one destination."""

    to: str
    """The file or the collector's address, without credentials."""
    delivered: int
    dropped: int
    """Lost: no room, no collector, or no time left at the end."""
    waiting: int
    problem: str = ""
    """Why the first ones were lost, "" if none were."""


class Outlet(Generic[T]):
    """One destination with a queue and a thread of its own. Never raises into the request."""

    def __init__(
        self,
        to: str,
        write: Callable[[Sequence[T]], None],
        *,
        shut: Callable[[], None],
        linger_s: float,
        what: str = "records",
        counted_by: str = "deliveries",
    ) -> None:
        """
        Args:
            to: its name, as it may be shown.
            write: delivers some records, or raises.
            shut: called once at the end.
            linger_s: how long to wait for more before a batch is written.
            what: how its records are called in the log, and in its thread's name.
            counted_by: where the user reads what was lost.
        """
        self._to, self._write, self._shut, self._linger_s = to, write, shut, linger_s
        self._what, self._counted_by = what, counted_by
        self._changed = threading.Condition()
        self._queue: deque[T] = deque()
        self._in_hand = self._delivered = self._dropped = self._hurrying = 0
        self._problem = ""
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"{what} to {to}", daemon=True)
        self._thread.start()

    @property
    def delivery(self) -> Delivery:
        """The count so far."""
        with self._changed:
            waiting = len(self._queue) + self._in_hand
            return Delivery(self._to, self._delivered, self._dropped, waiting, self._problem)

    def put(self, record: T) -> None:
        """Hand over a record, at once."""
        with self._changed:
            if not self._closed and len(self._queue) < ROOM:
                self._queue.append(record)
                self._changed.notify_all()
                return
            why = "it is closed" if self._closed else f"{ROOM} {self._what} wait already"
        self.lost(1, why)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything handed over so far is delivered or lost; False: the time was up first."""
        with self._changed:
            self._hurrying += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: not self._queue and not self._in_hand, timeout_s)
            finally:
                self._hurrying -= 1

    def close(self, timeout_s: float) -> None:
        """Deliver what waits as far as time allows; the rest is counted as lost."""
        until = time.monotonic() + timeout_s
        self.flush(timeout_s)
        with self._changed:
            if self._closed:
                return
            self._closed = True
            left = len(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        if left:
            self.lost(left, "there was no time left to deliver them")
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            # It is in the middle of a batch. What that comes to is counted when it ends; nobody waits for it.
            LOG.debug("a batch for %s is still under way", self._to)

    def _work(self) -> None:
        try:
            while batch := self._next():
                try:
                    self._write(batch)
                except Exception as error:
                    self._done(len(batch), f"{type(error).__name__}: {error}")
                else:
                    self._done(len(batch), "")
        finally:
            self._shut()

    def _next(self) -> list[T]:
        """The next batch; empty: it is over."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue) or self._closed)
            self._changed.wait_for(
                lambda: len(self._queue) >= BATCH or self._hurrying > 0 or self._closed, self._linger_s
            )
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            self._in_hand = len(batch)
            return batch

    def _done(self, count: int, problem: str) -> None:
        if problem:
            self.lost(count, problem)
        with self._changed:
            self._in_hand = 0
            self._delivered += 0 if problem else count
            self._changed.notify_all()

    def lost(self, count: int, why: str) -> None:
        """Count records that will not arrive; the first time, say so."""
        with self._changed:
            first = not self._problem
            self._problem = self._problem or why
            self._dropped += count
        if first:  # told once: a warning a request would drown what matters
            LOG.warning(
                "Some %s are being lost on their way to %s (%s). Requests go on; %s counts what is lost.",
                self._what,
                self._to,
                why,
                self._counted_by,
            )
