"""The same bulk run on a Dask cluster: many processes or machines, one quota, one budget, one folder of results.

    if __name__ == "__main__":      # local workers are new processes, which read the program's file again
        with run_on_cluster(cascade, tickets, out="run.parquet", workers=2, threads=8) as run:
            print(run.dashboard)
            for part in run:
                print(part.number, run.tickets, run.cost_usd)
        run.to_frame()

Each worker takes a partition of tickets through `run_bulk`, with a store of its own, and writes one file when all of it is answered.
Whatever dies, the same call goes on: finished partitions are not asked about again, and an unfinished one goes on from its store, so
that each death is paid for with the calls in flight. One process does as well until its machine or its memory is too small.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import queue
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import cloudpickle
from distributed import Client, Future, KilledWorker, LocalCluster, wait

from workshop_lib.bedrock.errors import ConfigurationError, WorkshopError
from workshop_lib.bedrock.pacing import Quota
from workshop_lib.bulk.folder import Folder, Partition
from workshop_lib.bulk.intake import Seen, identify, twice
from workshop_lib.bulk.partition import Bench, Work, answer
from workshop_lib.bulk.runner import MAX_WORKERS, Stopped, identity_of
from workshop_lib.bulk.store import StoreMismatch
from workshop_lib.bulk.turns import Turns, leave, shared_limits
from workshop_lib.cascade.cascade import Cascade
from workshop_lib.triage.datasets import read_tickets

if TYPE_CHECKING:
    import filelock
    import pandas

AHEAD = 2
"""Partitions on the cluster for each that is worked on: the next one is there when a worker has finished, and memory stays flat."""
CONNECT_S = 20.0
"""How long to wait for a scheduler, and for a worker where there is none."""
LOOK_S = 2.0
"""How often a run that waits looks whether there are workers."""
CLOSE_S = 60.0
"""How long a run that is ended waits for calls in flight."""


class ClusterLost(WorkshopError):
    """The scheduler, or every worker, is gone or was never there."""

    default_advice = "Start the cluster again and run the same call with the same folder: it goes on, and nothing that was answered is lost."


class _Raised(Exception):
    """What a task raised, a mistake in a rule for example: not to be taken for an error of the connection, of whatever class it is."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@dataclass
class _Job:
    number: int
    items: bytes
    reserved_usd: float = 0.0
    alone: bool = False
    """Its share of the budget was too small to go on: it is tried once more when nobody else holds a share."""


class ClusterRun(Iterable[Partition]):
    """Partitions as they finish. Work starts when iteration does; leaving the loop ends it, and the same call goes on."""

    def __init__(
        self,
        task_schema: Any,
        parts: Iterable[tuple[int, list[Any]]],
        *,
        client: Client | None,
        owned: Sequence[Any],
        work: Work,
        lock: filelock.FileLock,
        total: int,
        skipped: int,
        budget_usd: float | None,
    ) -> None:
        """As `run_on_cluster`, whose result this is. `parts`: those still to do; `owned`: what is closed at the end, in order."""
        self.total = total
        self.stopped: Stopped = ""
        """Why no further partition is started; "" while some are."""
        self.dashboard = "" if client is None else client.dashboard_link
        """Address of the cluster's own page; "" if nothing was left to do."""
        self._schema, self._parts, self._client, self._owned = task_schema, iter(parts), client, list(owned)
        self._work, self._lock, self._budget, self._skipped = work, lock, budget_usd, skipped
        self._again: deque[_Job] = deque()
        self._active: dict[Future[Partition], _Job] = {}
        self._ended: queue.SimpleQueue[Future[Partition]] = queue.SimpleQueue()
        self._told: dict[int, Partition] = {}
        self._started_at: float | None = None
        self._ended_at: float | None = None

    @property
    def tickets(self) -> int:
        """Tickets that got their final row in this run, as far as workers have told: they tell when a partition ends."""
        return sum(part.tickets for part in self._told.values())

    @property
    def skipped(self) -> int:
        """Tickets whose final row an earlier run had paid for."""
        return self._skipped + sum(part.skipped for part in self._told.values())

    @property
    def escalated(self) -> int:
        """Of `tickets`, those that went above their first tier."""
        return sum(part.escalated for part in self._told.values())

    @property
    def failed(self) -> int:
        """Of `tickets`, those without a decision."""
        return sum(part.failed for part in self._told.values())

    @property
    def cost_usd(self) -> float:
        """USD of this run's rows. Calls that were in flight when a worker died are on the bill, and in no row."""
        return sum(part.cost_usd for part in self._told.values())

    @property
    def cut_off(self) -> int:
        """Attempts at a partition that were found cut off, by a dead worker or driver; each has repeated the calls in flight at most:
        one tier's for each of its threads. A store that was lost with a worker's own disk is not counted, and repeats a partition.
        """
        return sum(part.cut_off for part in self._told.values())

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first partition was started; stands still when the run has ended."""
        if self._started_at is None:
            return 0.0
        return (self._ended_at or time.monotonic()) - self._started_at

    def to_frame(self) -> pandas.DataFrame:
        """Rows of all finished partitions, of earlier runs as well, in the tickets' order; lists and objects as JSON text."""
        return self._work.folder.frame(self._schema)

    def how_to_go_on(self) -> str:
        """What has been done and what continues it, in two sentences."""
        return (
            f"Stopped after {self.tickets} tickets (USD {self.cost_usd:.6f}). "
            f"All of it is in {self._work.folder.path.name}: the same call with the same folder goes on from there."
        )

    def __iter__(self) -> Iterator[Partition]:
        try:
            yield from self._partitions()
        except KeyboardInterrupt:
            self._stop("interrupted")
            self.close()
            raise KeyboardInterrupt(self.how_to_go_on()) from None
        except _Raised as raised:
            self._stop("error")
            if not isinstance(raised.error, KilledWorker):
                raise raised.error from None
            raise WorkshopError(
                f"{raised.error}",
                advice="See the workers' logs: too little memory, or a rule or task that ends its process?",
            ) from raised.error
        except (CancelledError, OSError) as error:  # Dask's own errors about connections are of these classes
            self._stop("error")
            raise ClusterLost(f"The cluster is gone: {error}.") from error
        except BaseException as error:
            self._stop("closed" if isinstance(error, GeneratorExit) else "error")
            raise
        finally:
            self.close()

    def close(self, *, wait_s: float = CLOSE_S) -> None:
        """Start no further call, wait for those in flight, whose rows are kept, and let go of the folder and of an own cluster.

        Args:
            wait_s: at most.
        """
        self._stop("closed")
        client, self._client = self._client, None
        if client is not None and client.status == "running":  # else nobody can be told, and trying takes half a minute
            with contextlib.suppress(Exception):
                client.unregister_worker_plugin(self._work.run)
                wait(list(self._active), timeout=wait_s)
            for future, job in self._active.items():
                with contextlib.suppress(Exception):
                    self._take(job.number, future.result(timeout=1))
            with contextlib.suppress(Exception):
                client.run_on_scheduler(leave, self._work.run)
        self._active.clear()
        while self._owned:
            with contextlib.suppress(Exception):
                self._owned.pop(0).close()
        self._ended_at = self._ended_at or time.monotonic()
        if self._lock.is_locked:
            if self.stopped == "finished":
                self._work.folder.tidy()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _partitions(self) -> Iterator[Partition]:
        self._started_at = self._started_at or time.monotonic()
        while not self.stopped and self._client is not None:
            self._fill(self._client)
            if not self._active:
                break
            future = self._next_ended(self._client)
            job = self._active.pop(future)
            try:
                part = future.result()
            except Exception as error:
                if future.status == "error":
                    raise _Raised(error) from None
                raise
            paid_usd = self._take(job.number, part)
            if part.stopped == "interrupted":
                raise ClusterLost("The workers were told that this run has ended: the connection to them was lost.")
            if part.stopped != "budget":
                yield part
            elif paid_usd > 0 or not job.alone:
                self._again.append(_Job(job.number, job.items, alone=paid_usd <= 0))
            else:
                self._stop("budget")
        self._stop("finished")

    def _next_ended(self, client: Client) -> Future[Partition]:
        """Wait for a partition.

        Raises:
            ClusterLost: nobody is there to work on it.
        """
        seen = time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                return self._ended.get(timeout=LOOK_S)
            if client.nthreads():
                seen = time.monotonic()
            elif time.monotonic() - seen > CONNECT_S:  # a worker that died may be back in some seconds
                client.cancel(list(self._active))
                raise ClusterLost(f"The cluster has had no worker for {CONNECT_S:g} s.")

    def _take(self, number: int, part: Partition) -> float:
        """Take what a worker tells of a partition, unless it was ended before it knew; USD that are new."""
        new_usd = part.cost_usd - self._cost_of(number)
        if new_usd >= 0:
            self._told[number] = part
        return new_usd

    def _fill(self, client: Client) -> None:
        """Hand out as many partitions as the workers can use and the budget allows."""
        slots = max(1, sum(client.nthreads().values()))
        room = slots * AHEAD if self._budget is None else slots
        while len(self._active) < room and (job := self._next()) is not None:
            allowed_usd = None
            if self._budget is not None:
                # All that is left is shared out; what a partition does not use comes back with it.
                free = self._budget - self.cost_usd - sum(each.reserved_usd for each in self._active.values())
                if self._active and (job.alone or free <= 0):
                    self._again.appendleft(job)
                    return
                job.reserved_usd = free if job.alone else free / (room - len(self._active))
                allowed_usd = self._cost_of(job.number) + job.reserved_usd
            key = f"partition-{self._work.run}-{job.number:05d}-{uuid.uuid4().hex[:4]}"
            future = client.submit(
                answer, self._work, job.number, job.items, allowed_usd=allowed_usd, key=key, pure=False
            )
            self._active[future] = job
            future.add_done_callback(self._ended.put)

    def _cost_of(self, number: int) -> float:
        """USD of this run's rows of a partition, as far as is told."""
        return self._told[number].cost_usd if number in self._told else 0.0

    def _next(self) -> _Job | None:
        if self._again:
            return self._again.popleft()
        for number, items in self._parts:
            return _Job(number, cloudpickle.dumps(items))
        return None

    def _stop(self, why: Stopped) -> None:
        self.stopped = self.stopped or why


def run_on_cluster(
    cascade: Cascade[Any],
    tickets: Iterable[Any] | Path | str,
    *,
    out: Path | str,
    cluster: Client | Any = None,
    partition: int = 300,
    workers: int = 2,
    threads: int = 8,
    limits: Mapping[str, Quota] | None = None,
    budget_usd: float | None = None,
    deadline_s: float | None = None,
    work_dir: Path | str | None = None,
) -> ClusterRun:
    """Many tickets through a cascade, on a Dask cluster: partitions as they finish, one parquet file each in the folder `out`.

    Rules, task and tiers go to the workers as they are, functions of a notebook included; a module of your own must be there (Dask's
    `upload_file`), and so must this package. The client goes as its settings: each worker process opens connections of its own, at the
    same local endpoint or at Bedrock with the credentials that it finds where it runs.

    Args:
        cascade: tiers, rule, task and client.
        tickets: what the cascade's task reads; a path is a JSONL file of support tickets. All are checked before anything is paid for,
            and cut into partitions in their order; the same ones, in the same order, are needed to go on.
        out: folder of the results, on a disk that driver and workers share.
        cluster: a scheduler's address, e.g. "tcp://10.0.0.5:8786", a Dask cluster or a Client; None: processes of this machine, on
            loopback only.
        partition: tickets of one partition. Small ones tell sooner how far a run is, and a disk that is lost repeats less.
        workers: processes of a cluster of our own.
        threads: calls in flight for each partition that is worked on, 1 to 256. A worker with `--nthreads` above 1 works on as many
            partitions at once.
        limits: model, named as the tiers name it, to the quota that all workers share. The session's own share of a quota
            (`Settings.tokens_per_minute`) is shared in the same way.
        budget_usd: spending limit of this run. It is shared out among the partitions that are worked on, and none starts a ticket
            that could cost more than what is left of its share. Calls in flight when a worker dies come on top.
        deadline_s: seconds for a ticket, as in `run_bulk`.
        work_dir: where stores of unfinished partitions are, on each worker; None: in `out`. They are SQLite files, which a network
            file system may damage: if `out` is on one, name a folder of the worker's own disk. What is there is lost with that disk.

    Raises:
        ValueError: a number is not sensible, or the cascade starts tiers early.
        ConfigurationError: a ticket is unusable, an id occurs twice, or the cascade cannot be sent to another process.
        UnknownModel: a tier names no model of the catalogue.
        StoreInUse: another driver works on this folder.
        StoreMismatch: the folder was made by another task, prompt, model, rule, door, other tickets or another partition size.
        StoreError: the folder cannot be used.
        ClusterLost: there is no scheduler at the address, or no worker within 20 s; while iterating: it, or every worker, has gone.
    """
    numbers = {"partition": partition, "workers": workers, "threads": threads, "budget_usd": budget_usd}
    for name, value in {**numbers, "deadline_s": deadline_s}.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, not {value}")
    if threads > MAX_WORKERS:
        raise ValueError(f"threads can be {MAX_WORKERS} at most, not {threads}")
    identity = identity_of(cascade)
    if budget_usd is not None and getattr(cascade.client, "catalogue", None) is None:
        raise ConfigurationError("A budget needs prices, and this cascade's client has no catalogue.")
    try:
        pickled = cloudpickle.dumps(cascade)
    except Exception as error:  # whatever a user's rule holds
        raise ConfigurationError(
            f"This cascade cannot be sent to another process: {error}.",
            advice="Leave locks, connections and open files out of rules, routes and tasks; use a plain Bedrock client.",
        ) from error
    is_file = isinstance(tickets, Path | str)
    items: Any = Path(tickets) if is_file else tickets if isinstance(tickets, Sequence) else list(tickets)  # type: ignore[arg-type]
    digests, total = _checked(cascade, items, partition)
    whole = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
    folder = Folder(Path(out).absolute(), None if work_dir is None else Path(work_dir))
    work = Work(f"bulk-{uuid.uuid4().hex[:8]}", folder, threads, deadline_s)
    lock = folder.claim({**identity, "tickets": f"{total}, {whole}", "partition": partition})
    owned: list[Any] = []
    try:
        done = [folder.part(number).exists() for number in range(len(digests))]
        client = None
        if not all(done):
            client = _connected(cluster, workers, owned)
            _prepare(client, work, pickled, shared_limits(cascade, limits or {}))
        return ClusterRun(
            cascade.task.schema,
            _undone(cascade, items, partition, digests, done),
            client=client,
            owned=owned,
            work=work,
            lock=lock,
            total=total,
            skipped=sum(min(partition, total - n * partition) for n, there in enumerate(done) if there),
            budget_usd=budget_usd,
        )
    except BaseException:
        for each in owned:
            each.close()
        lock.release()
        raise


def _cut(items: Any, partition: int) -> Iterator[list[Any]]:
    source = iter(read_tickets(items) if isinstance(items, Path) else items)
    while part := list(itertools.islice(source, partition)):
        yield part


def _checked(cascade: Cascade[Any], items: Any, partition: int) -> tuple[list[str], int]:
    """A digest of each partition, and the number of tickets, once all are known to be usable and different."""
    seen, digests, total = Seen(), [], 0
    for part in _cut(items, partition):
        for item in part:
            item_id, _ = identify(cascade.task, item)
            if not seen.add(item_id):
                raise twice(item_id)
        digests.append(_digest(cascade, part))
        total += len(part)
    return digests, total


def _digest(cascade: Cascade[Any], part: list[Any]) -> str:
    told = "\n".join(" ".join(identify(cascade.task, item)) for item in part)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _undone(
    cascade: Cascade[Any], items: Any, partition: int, digests: list[str], done: list[bool]
) -> Iterator[tuple[int, list[Any]]]:
    for number, part in enumerate(_cut(items, partition)):
        if number >= len(digests) or _digest(cascade, part) != digests[number]:
            raise StoreMismatch("The file of tickets was changed while it was read.")
        if not done[number]:
            yield number, part


def _connected(cluster: Any, workers: int, owned: list[Any]) -> Client:
    """A client of the cluster; what was opened for it is added to `owned`.

    Raises:
        ClusterLost: no scheduler answers, or it has no worker.
    """
    if cluster is None:
        cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        )  # fmt: skip
        owned.append(cluster)
    try:
        client = cluster if isinstance(cluster, Client) else Client(cluster, timeout=CONNECT_S)
        if client is not cluster:
            owned.insert(0, client)
        client.wait_for_workers(1, timeout=CONNECT_S)
    except OSError as error:
        raise ClusterLost(f"There is no cluster with workers at {cluster}: {error}.") from error
    return client


def _prepare(client: Client, work: Work, cascade: bytes, limits: Mapping[str, Quota]) -> None:
    """Put what a run needs onto the scheduler and every worker, those included that start later.

    Raises:
        ConfigurationError: they cannot load it.
    """
    try:
        client.register_plugin(Turns(work.run, client.id, limits))
        client.register_plugin(Bench(work.run, cascade, list(limits)))
    except Exception as error:  # whatever their import says
        raise ConfigurationError(
            f"The cluster cannot load what it needs: {type(error).__name__}: {error}.",
            advice="Install this package, in the same version and on the same Python, on the scheduler and on every worker.",
        ) from error
