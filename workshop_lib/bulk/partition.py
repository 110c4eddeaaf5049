"""How a worker answers one partition: through `run_bulk`, with a store of its own, until its file stands. Asked again, it goes on."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import filelock
from distributed import Worker, WorkerPlugin, get_worker

from workshop_lib.bulk.folder import Folder, Partition, note
from workshop_lib.bulk.rows import Row
from workshop_lib.bulk.runner import run_bulk
from workshop_lib.bulk.store import Store, StoreError
from workshop_lib.bulk.turns import SharedLimiter
from workshop_lib.cascade.cascade import Cascade, id_of

ANOTHER_S = 0.2
"""How often to look whether another attempt at the same partition, of a driver that died, has ended."""


class Bench(WorkerPlugin):
    """What a worker process keeps of a run: its cascade with its own client, made once, and whether to stop."""

    def __init__(self, run: str, cascade: bytes, limited: Sequence[str]) -> None:
        """
        Args:
            run: names the run on the cluster.
            cascade: pickled.
            limited: models that have a quota to share.
        """
        self.name, self._pickled, self._limited = run, cascade, tuple(limited)

    def setup(self, worker: Worker) -> None:
        """Called in the worker, also in one that starts later."""
        if threading.current_thread() is threading.main_thread() and multiprocessing.parent_process() is not None:
            signal.signal(
                signal.SIGINT, signal.SIG_IGN
            )  # Ctrl-C reaches child processes, too; the driver ends them in order
        if sys.version_info < (3, 12) and (profile := worker.periodic_callbacks.get("profile")) is not None:
            # Dask looks at what all threads do, fifty times a second. Where Python 3.11 collects garbage at such a moment while
            # another thread starts, the process stands still for ever (cpython issue 106883).
            profile.stop()
        self.stop, self._lock = threading.Event(), threading.Lock()
        self._cascade: Cascade[Any] | None = None
        self.limits = {model: SharedLimiter(worker, self.name, model) for model in self._limited}

    def teardown(self, worker: Worker) -> None:
        """Called when the run ends: no further call is made."""
        self.stop.set()

    @property
    def cascade(self) -> Cascade[Any]:
        """With the client of this process."""
        with self._lock:
            if self._cascade is None:
                self._cascade = cloudpickle.loads(self._pickled)
            return self._cascade


@dataclass(frozen=True)
class Work:
    """What all partitions of a run have in common."""

    run: str
    folder: Folder
    threads: int
    deadline_s: float | None = None


def answer(work: Work, number: int, pickled: bytes, *, allowed_usd: float | None = None) -> Partition:
    """Answer one partition, in a worker.

    Args:
        work: the run's.
        number: the partition's.
        pickled: its tickets.
        allowed_usd: what all its attempts in this run may cost together.

    Raises:
        StoreError: the folder or the store cannot be used from this worker.
    """
    bench, folder = get_worker().plugins.get(work.run), work.folder
    items = cloudpickle.loads(pickled)
    if not isinstance(bench, Bench):  # the run was ended while this one was on its way
        return Partition(number, stopped="interrupted")
    if not (folder.path / "_manifest.json").exists():
        raise StoreError(
            f"A worker does not see the folder {folder.path}.", advice="Put out= where driver and workers see it."
        )
    try:
        folder.work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder.work} cannot be made on a worker: {error}.") from error
    with _alone(folder.lock(number), bench.stop) as alone:
        if (done := folder.finished(number, len(items), run=work.run)) is not None:
            folder.forget(number)
            return done
        if not alone or bench.stop.is_set():
            return Partition(number, stopped="interrupted")
        return _answer(work, number, items, bench, allowed_usd)


def _answer(work: Work, number: int, items: list[Any], bench: Bench, allowed_usd: float | None) -> Partition:
    store, record = work.folder.store(number), work.folder.store(number).with_suffix(".db.json")
    try:
        so_far = _kept(store, items)
    except StoreError:  # killed while it was made; if it is worse than that, run_bulk says so
        so_far = []
    began = _begin(record, work.run, _tally(so_far))
    budget = None if allowed_usd is None else allowed_usd - (_tally(so_far)["cost_usd"] - began["before"]["cost_usd"])
    stopped = "budget"
    if budget is None or budget > 0:
        run = run_bulk(
            bench.cascade, items, workers=work.threads, store=store, budget_usd=budget, deadline_s=work.deadline_s,
            limits=bench.limits, stop=bench.stop,
        )  # fmt: skip
        with run:
            for _ in run:
                pass
        stopped = "budget" if run.stopped == "budget" else "interrupted"
        so_far = _kept(store, items)
    now, before = _tally(so_far), began["before"]
    if now["tickets"] == len(items):
        stopped = "finished"  # whatever it was told meanwhile
    said = Partition(
        number,
        **{name: now[name] - before[name] for name in ("tickets", "escalated", "failed", "cost_usd")},
        skipped=before["tickets"],
        cut_off=began["cut_off"],
        stopped=stopped,  # type: ignore[arg-type]  # one of the three
    )
    if now["tickets"] < len(items):
        note(record, began | {"open": False})
        return said
    work.folder.finish(so_far, bench.cascade.task.schema, said, run=work.run)
    work.folder.forget(number)
    return said


@contextlib.contextmanager
def _alone(file: Path, stop: threading.Event) -> Iterator[bool]:
    """Wait until no other attempt is at the partition. False: the run was ended meanwhile."""
    lock = filelock.FileLock(file)
    while not stop.is_set():
        try:
            lock.acquire(timeout=ANOTHER_S)
        except filelock.Timeout:
            continue
        break
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _begin(record: Path, run: str, now: dict[str, Any]) -> dict[str, Any]:
    """Note that an attempt begins, and see whether the one before it has ended."""
    then: dict[str, Any] = {"run": "", "open": False}
    if record.exists():
        then = json.loads(record.read_text(encoding="utf-8"))
    if then["run"] == run:
        began = then | {"cut_off": then["cut_off"] + then["open"], "open": True}
    else:
        began = {"run": run, "open": True, "cut_off": int(then["open"]), "before": now}
    note(record, began)
    return began


def _kept(store: Path, items: list[Any]) -> list[Row]:
    """Rows that are there, in the tickets' order."""
    if not store.exists():
        return []
    with Store(store) as kept:
        by_ticket: dict[str, list[Row]] = {}
        for row in kept:
            by_ticket.setdefault(row.ticket_id, []).append(row)
    steps = [by_ticket.get(id_of(item), []) for item in items]
    return [row for rows in steps for row in rows]


def _tally(rows: list[Row]) -> dict[str, Any]:
    final = [row for row in rows if row.final]
    return {
        "tickets": len(final),
        "escalated": sum(row.escalated for row in final),
        "failed": sum(row.decision is None for row in final),
        "cost_usd": sum(row.cost_usd for row in rows),
    }
