"""Which tickets go into which batch job: a cascade tier by tier, each tier one or more Bedrock batch jobs, joined by ticket.

    jobs = BatchJobs.of(workshop.bedrock, bucket="my-bucket", role_arn="arn:aws:iam::123456789012:role/batch")
    run = run_batch(cascade, tickets, jobs=jobs, store="run.db")
    print(run.plan)                                 # bucket, role, records, what it can cost; nothing has been made
    for row in run: ...                             # the rows of `run_bulk`

Everything about a ticket is decided by the cascade itself: its rule, its repair turns, its flags. Only the asking differs: a batch
job takes no tool, so JSON is asked for as text (`AsText`), and what a job has not answered usably is asked for once more.

What was submitted is noted in the store before it is submitted. So whatever ends a run, the same call looks for its jobs, waits for
them and goes on; their output in S3 is read again, not paid again.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

from workshop_lib.bedrock import errors
from workshop_lib.bedrock.catalogue import ModelSpec, Usage
from workshop_lib.bedrock.client import Bedrock
from workshop_lib.bedrock.errors import BedrockError, ConfigurationError
from workshop_lib.bedrock.replies import Reply
from workshop_lib.bulk.intake import identify, twice
from workshop_lib.bulk.jobs import ENDED, BatchFailed, BatchJobs, Busy
from workshop_lib.bulk.records import (
    Asked,
    AsText,
    Told,
    error_in,
    lost_reply,
    not_now,
    price_of,
    price_said,
    readable,
    refuse,
    reply_in,
    to_line,
    unread,
)
from workshop_lib.bulk.rows import Row, attempt_of, final_row, first_row
from workshop_lib.bulk.runner import open_store
from workshop_lib.bulk.store import Store, StoreMismatch
from workshop_lib.cascade.attempt import Attempt, Reason, Tier, attempt
from workshop_lib.cascade.cascade import Cascade
from workshop_lib.triage.datasets import read_tickets

TRIES = 2
"""In how many jobs of one tier a ticket is put at most."""


class NoAnswer(BedrockError):
    """The batch jobs that a ticket was put into have no usable answer for it."""

    default_advice = (
        "Ask for it on demand: run_bulk(cascade.using(AsText(client)), ..., store=the same, retry_failed=True)."
    )


@dataclass
class Phase:
    """One job of one tier, or what was asked on demand for one."""

    tier: str
    model: str
    records: int
    job_arn: str = ""
    """Empty: on demand, or not yet made."""
    state: str = "Planned"
    """As the service names it; "on demand"."""
    message: str = ""
    """The service's, e.g. why a job failed."""
    answered: int = 0
    """Records with an answer, usable or not."""
    refused: int = 0
    """Records with an error in their place."""
    lost: int = 0
    """Records without a line that can be read."""
    unreadable: int = 0
    """Lines that are no JSON, or of no record of this job."""
    doubled: int = 0
    """Further lines of a record; the first answer counts."""
    cost_usd: float = 0.0
    price: str = "batch"
    """"batch", or "on demand" where no batch price is listed or no job was made."""


@dataclass
class _Job:
    """A phase with what only the driver needs to know; kept as a note in the store."""

    name: str
    phase: Phase
    token: str = ""
    records: dict[str, str] = field(default_factory=dict)
    """Ticket to the digest of its text."""
    void: bool = False
    """It was never made, or failed as a whole: its tickets go into another one."""


@dataclass
class _Ticket:
    """One ticket on its way through the tiers."""

    item: Any
    item_id: str
    digest: str
    attempts: list[Attempt[Any]] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    paid_usd: float = 0.0
    waits_for: str = ""
    """The tier that is to answer; empty: none, it has its final row."""
    came: list[Reply | BedrockError] = field(default_factory=list)
    """What this tier has said so far, in order."""
    lost: list[Reply] = field(default_factory=list)
    """What it was paid for and cannot be read."""
    tries: int = 0
    """Jobs of this tier that it was in."""
    problem: BedrockError | None = None
    """Why the last of them is not enough, unless its answer is unusable."""


class BatchRun(Iterable[Row]):
    """Rows as jobs end. Nothing is made before iteration; leaving the loop leaves the jobs running, and the same call finds them."""

    def __init__(
        self,
        cascade: Cascade[Any],
        tickets: list[_Ticket],
        *,
        jobs: BatchJobs,
        client: AsText,
        store: Store,
        skipped: int,
        on_demand: bool,
        workers: int,
        poll_s: float,
        really: bool,
        sleep: Callable[[float], None],
    ) -> None:
        """As `run_batch`, whose result this is."""
        self.cascade, self.jobs = cascade, jobs
        self.tickets = self.escalated = self.failed = 0
        """Tickets that got their final row in this run; of these, those that went up, and those without a decision."""
        self.skipped = skipped
        """Tickets whose final row the store had already."""
        self.cost_usd = 0.0
        """USD of the rows of this run."""
        self._tickets = {ticket.item_id: ticket for ticket in tickets}
        self._client, self._store = client, store
        self._on_demand, self._workers, self._poll_s, self._really, self._sleep = (
            on_demand, workers, poll_s, really, sleep,
        )  # fmt: skip
        self._specs: dict[str, ModelSpec] = {tier.name: client.catalogue[tier.model] for tier in cascade.tiers}
        noted = store.notes("batch/").values()
        self._jobs = [_Job(**{**told, "phase": Phase(**told["phase"])}) for told in noted]

    @property
    def phases(self) -> list[Phase]:
        """Every job so far, those of earlier runs on this store included, and what was asked on demand."""
        return [job.phase for job in self._jobs]

    @cached_property
    def plan(self) -> str:
        """Where the jobs would be made, how many records they have, and what that can cost. Calls nothing."""
        lines, total = [], 0.0
        for tier in self.cascade.tiers:
            spec = self._specs[tier.name]
            answer = tier.max_tokens or self.cascade.task.max_tokens
            sizes = [len(self._line(ticket, tier, came=())) for ticket in self._tickets.values()]
            cost = sum(price_of(spec, Usage(input_tokens=size // 2, output_tokens=answer)) for size in sizes)
            total += cost
            lines.append(f"  {tier.name}: {spec.id}, USD {cost:.2f} at most if all get so far ({price_said(spec)})")
        return "\n".join(
            [
                f"The bill: at most USD {total:.2f} for one answer of every tier to each of {len(self._tickets)} tickets, one token to two",
                "bytes and every answer as long as it may be. Usually a fraction; what is asked twice comes on top.",
                *lines,
                f"What is made, and stays: objects under s3://{self.jobs.bucket}/{self.jobs.prefix}/, and batch jobs that {self.jobs.role_arn} carries out.",
                "Nothing is made on AWS before run_batch(..., really=True) is iterated.",
            ]
        )

    def __iter__(self) -> Iterator[Row]:
        if not self.jobs.local and self._really is not True:
            self._store.close()
            raise ConfigurationError(
                "Nothing was submitted: batch jobs on AWS cost money.",
                advice="Read print(run.plan), then pass really=True.",
            )
        try:
            for ticket in self._tickets.values():
                yield from self._advance(ticket)
            for tier in self.cascade.tiers:
                yield from self._answer(tier)
        except KeyboardInterrupt:
            running = sum(bool(phase.job_arn) and phase.state not in ENDED for phase in self.phases)
            raise KeyboardInterrupt(
                f"Stopped after {self.tickets} tickets (USD {self.cost_usd:.6f}). {running} jobs go on, and cost what they cost: the same "
                f"call with {self._store.path.name} finds them."
            ) from None
        finally:
            self._store.close()

    def close(self) -> None:
        """Let go of the store. Jobs go on."""
        self._store.close()

    # --- one tier

    def _answer(self, tier: Tier) -> Iterator[Row]:
        """Until no ticket waits for this tier: what was submitted before, then a job, then another, then on demand."""
        left = self._resume(tier)
        planned = [chunk for job in left if not job.phase.job_arn for chunk in self._forget(job)]
        yield from self._carry_out(tier, [], [job for job in left if job.phase.job_arn])
        while chunks := self._chunks(tier, planned):
            planned = []
            yield from self._carry_out(tier, chunks, [])
        waiting = self._waiting(tier)
        if self._on_demand and len(waiting) < self.jobs.minimum:
            yield from self._ask_now(tier, waiting)
        for ticket in self._waiting(tier):
            yield from self._advance(ticket, self._give_up(ticket, tier))

    def _waiting(self, tier: Tier) -> list[_Ticket]:
        return [ticket for ticket in self._tickets.values() if ticket.waits_for == tier.name]

    def _resume(self, tier: Tier) -> list[_Job]:
        """Jobs of an earlier run whose output is still needed; one whose making was cut off is looked for on AWS."""
        waiting = {ticket.item_id for ticket in self._waiting(tier)}
        left = [j for j in self._jobs if j.phase.tier == tier.name and not j.void and waiting & j.records.keys()]
        for job in left:
            for item_id in waiting & job.records.keys():
                if self._tickets[item_id].digest != job.records[item_id]:
                    raise StoreMismatch(f"Ticket {item_id} has another text than when it was submitted in {job.name}.")
            if job.token and not job.phase.job_arn and (arn := self.jobs.find(job.token)) is not None:
                job.phase.job_arn, job.phase.state = arn, "Submitted"
                self._note(job)
        return left

    def _forget(self, job: _Job) -> Iterator[list[_Ticket]]:
        """The tickets of a job that was never made; together again, so that its token is the same should AWS know it after all."""
        job.void, job.phase.state = True, "Not made"
        job.token = ""
        self._note(job)
        tickets = [self._tickets.get(item_id) for item_id in job.records]
        if all(ticket is not None and ticket.waits_for == job.phase.tier for ticket in tickets):
            yield [ticket for ticket in tickets if ticket is not None]

    def _chunks(self, tier: Tier, planned: list[list[_Ticket]]) -> list[list[_Ticket]]:
        """The tickets of each job to be made now."""
        planned = [chunk for chunk in planned if all(ticket.waits_for == tier.name for ticket in chunk)]
        taken = {ticket.item_id for chunk in planned for ticket in chunk}
        due = [t for t in self._waiting(tier) if t.tries < TRIES and t.item_id not in taken]
        if len(due) < self.jobs.minimum:
            return planned
        rest = iter(due)
        sizes = [len(self._line(ticket, tier)) for ticket in due]
        return planned + [list(itertools.islice(rest, count)) for count in self.jobs.split(sizes)]

    def _carry_out(self, tier: Tier, chunks: list[list[_Ticket]], active: list[_Job]) -> Iterator[Row]:
        """Submit as many jobs as may be, look at them until each has ended, and join what it has written."""
        pending = deque(chunks)
        while pending or active:
            while pending and len(active) < self.jobs.at_once:
                try:
                    active.append(self._submit(tier, pending[0]))
                except Busy:
                    if not active:
                        raise
                    break
                pending.popleft()
            for job in list(active):
                state, message = self.jobs.look(job.phase.job_arn)
                if (state, message) != (job.phase.state, job.phase.message):
                    job.phase.state, job.phase.message = state, message
                    self._note(job)
                if state in ENDED:
                    active.remove(job)
                    yield from self._join(tier, job)
            if active:
                self._sleep(self._poll_s)

    def _submit(self, tier: Tier, tickets: list[_Ticket]) -> _Job:
        spec = self._specs[tier.name]
        used = {job.token for job in self._jobs if job.token and job.phase.state in ENDED}
        lines = (self._line(ticket, tier) for ticket in tickets)
        with self.jobs.write(lines, model_id=spec.id, used=used) as made:
            phase = Phase(tier.name, spec.key, len(tickets), price="batch" if spec.batch_price else "on demand")
            records = {ticket.item_id: ticket.digest for ticket in tickets}
            job = _Job(f"batch/{len(self._jobs):06d}", phase, made.token, records)
            self._jobs.append(job)
            self._note(job)  # before it is made: a driver that is killed in between finds it again
            try:
                job.phase.job_arn = self.jobs.start(made, model_id=spec.id)
            except Busy:
                self._jobs.pop()  # the next try takes over its name
                raise
        job.phase.state = "Submitted"
        self._note(job)
        return job

    def _join(self, tier: Tier, job: _Job) -> Iterator[Row]:
        """What an ended job says about each of its tickets. Tokens that it counts and that no line shows are the lost records'."""
        phase = job.phase
        try:
            found = self._read(job)
        except BatchFailed:
            if phase.state != "Failed":
                raise
            found = {}  # its bucket may be why it failed
        if phase.state == "Failed" and not any("modelOutput" in line for line in found.values()):
            self._failed(job, phase.message or "the service gives no reason.")
        spec = self._specs[tier.name]
        mine = [t for t in map(self._tickets.get, job.records) if t is not None and t.waits_for == tier.name]
        shown = [Usage.from_wire(line["modelOutput"]["usage"]) for line in found.values() if "modelOutput" in line]
        phase.answered, phase.refused = len(shown), len(found) - len(shown)
        lost_ids = [record_id for record_id in job.records if record_id not in found]
        phase.lost = len(lost_ids)
        shares = dict(
            zip(lost_ids, unread(self.jobs.manifest(phase.job_arn), sum(shown, Usage()), len(lost_ids)), strict=False)
        )
        if phase.refused == len(job.records):  # not each ticket's fault, and the next tier should not pay for it
            self._failed(
                job, f"all {phase.refused} records were refused: {error_in(next(iter(found.values())), spec).message}"
            )
        phase.cost_usd = sum(price_of(spec, usage) for usage in (*shown, *shares.values()))
        self._note(job)
        for ticket in mine:
            ticket.tries += 1
            said = found.get(ticket.item_id)
            if said is None:
                ticket.problem = NoAnswer(f"Job {phase.job_arn} ({phase.state}) has no line for {ticket.item_id}.")
                if (usage := shares.get(ticket.item_id, Usage())) != Usage():
                    ticket.lost.append(lost_reply(spec, usage))
            elif "modelOutput" in said:
                ticket.came.append(reply_in(said, spec))
            else:
                error = error_in(said, spec)
                ticket.problem = error
                if isinstance(error, errors.InvalidRequest | errors.AccessDenied):  # asked again, it is refused again
                    ticket.came.append(error)
            yield from self._advance(ticket)

    def _read(self, job: _Job) -> dict[str, dict[str, Any]]:
        """Record to its line: the first with an answer, else the first of all."""
        found: dict[str, dict[str, Any]] = {}
        job.phase.unreadable = job.phase.doubled = 0
        for raw in self.jobs.output(job.phase.job_arn):
            line = readable(raw)
            record_id = line.get("recordId")
            if not isinstance(record_id, str) or record_id not in job.records:
                job.phase.unreadable += 1
                continue
            if record_id in found:
                job.phase.doubled += 1
                if "modelOutput" in found[record_id] or "modelOutput" not in line:
                    continue
            found[record_id] = line
        return found

    def _failed(self, job: _Job, why: str) -> NoReturn:
        job.void = True
        self._note(job)
        raise BatchFailed(
            f"Batch job {job.phase.job_arn} of the tier {job.phase.tier} failed: {why}",
            advice="Mend what the message names (role, bucket, quota, model) and run the same call again: this job is made anew, "
            "all others are kept.",
        )

    def _ask_now(self, tier: Tier, tickets: list[_Ticket]) -> Iterator[Row]:
        """Too few for a job: on demand, each from where it stands."""
        if not tickets:
            return
        phase = Phase(tier.name, self._specs[tier.name].key, len(tickets), state="on demand", price="on demand")
        job = _Job(f"batch/{len(self._jobs):06d}", phase)
        self._jobs.append(job)
        lock = threading.Lock()

        def ask(ticket: _Ticket) -> list[Row]:
            found = self._try(ticket, tier, self._client.converse)
            with lock:  # its rows are kept now: the reader may have left, and it is paid for
                phase.answered += not isinstance(found.error, BedrockError)
                phase.cost_usd += found.cost_usd - sum(
                    r.cost_usd for r in (*ticket.came, *ticket.lost) if isinstance(r, Reply)
                )
                return list(self._advance(ticket, found))

        pool = ThreadPoolExecutor(self._workers, "batch")
        try:
            for call in as_completed([pool.submit(ask, ticket) for ticket in tickets]):
                yield from call.result()
        finally:
            pool.shutdown(cancel_futures=True)
            self._note(job)

    def _give_up(self, ticket: _Ticket, tier: Tier) -> Attempt[Any]:
        why = "" if ticket.problem is None else f" {ticket.problem.message}"
        if ticket.tries < TRIES:
            why = f" Fewer than {self.jobs.minimum} tickets wait, and on_demand is off.{why}"
        told = f"{ticket.item_id} has no usable answer of the tier {tier.name} after {ticket.tries} jobs.{why}"
        return self._try(ticket, tier, partial(refuse, NoAnswer(told, model=self._specs[tier.name].key)))

    # --- one ticket

    def _advance(self, ticket: _Ticket, found: Attempt[Any] | None = None) -> Iterator[Row]:
        """Take a ticket as far as its answers reach. Its rows are kept before anybody sees them."""
        try:
            for event in self.cascade.stream(
                ticket.item,
                attempts=ticket.attempts,
                reasons=ticket.reasons,
                ask=partial(self._answered, ticket, found),
            ):
                if event.kind == "routed":
                    ticket.reasons += event.reasons
                elif event.kind == "escalated":
                    ticket.reasons += event.reasons
                    yield self._keep(
                        ticket, first_row(ticket.item_id, ticket.attempts[-1], event.reasons, paid_usd=ticket.paid_usd)
                    )
                elif event.attempt is not None:
                    ticket.attempts.append(event.attempt)
                    ticket.came, ticket.lost, ticket.tries, ticket.problem = [], [], 0, None
                    ticket.waits_for = ""
                elif event.outcome is not None:
                    row = final_row(event.outcome, paid_usd=ticket.paid_usd)
                    self.tickets += 1
                    self.escalated += row.escalated
                    self.failed += row.decision is None
                    yield self._keep(ticket, row)
        except _Waits as waits:
            ticket.waits_for = waits.tier

    def _answered(self, ticket: _Ticket, found: Attempt[Any] | None, tier: Tier) -> Attempt[Any]:
        """A tier's attempt from what has come.

        Raises:
            _Waits: it has to be asked first.
        """
        if found is not None and found.tier == tier.name:
            return found
        try:
            return self._try(ticket, tier, not_now)
        except Asked:
            raise _Waits(tier.name) from None

    def _line(self, ticket: _Ticket, tier: Tier, *, came: Sequence[Reply | BedrockError] | None = None) -> bytes:
        """A ticket's record for a job: exactly what would be asked on demand."""
        said = ticket.came if came is None else came
        return to_line(self._client, ticket.item_id, ticket.item, tier=tier, task=self.cascade.task, came=said)

    def _try(self, ticket: _Ticket, tier: Tier, then: Callable[..., Reply]) -> Attempt[Any]:
        """The attempt of what has come, and of what `then` adds."""
        found = attempt(ticket.item, tier, task=self.cascade.task, client=Told(ticket.came, then))
        unheard = max(0, ticket.tries - len(ticket.came))
        return replace(found, replies=(*ticket.lost, *found.replies), http_attempts=found.http_attempts + unheard)

    def _keep(self, ticket: _Ticket, row: Row) -> Row:
        self._store.add(row, step=len(ticket.attempts) - 1, digest=ticket.digest)
        ticket.paid_usd += row.cost_usd
        self.cost_usd += row.cost_usd
        return row

    def _note(self, job: _Job) -> None:
        self._store.note(job.name, asdict(job))


def run_batch(
    cascade: Cascade[Any],
    tickets: Iterable[Any] | Path | str,
    *,
    jobs: BatchJobs,
    store: Path | str,
    on_demand: bool = True,
    workers: int = 8,
    poll_s: float = 30.0,
    limit: int | None = None,
    really: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> BatchRun:
    """Many tickets through a cascade as batch jobs, tier by tier: the rows of `run_bulk`, in the same kind of store.

    A record whose line is missing, broken or an error that may pass, and an unusable answer (with what is wrong in it), is put into
    one further job; where fewer than `jobs.minimum` are left, they are asked on demand. What still has no answer is an error to the
    cascade, as a failed call is. A ticket's `attempts` counts its records and requests. Where jobs count tokens that no line shows,
    the lost records' rows bear them in equal parts.

    Prices are batch prices where the catalogue lists one, and on-demand prices where it does not: see `Phase.price`.

    Args:
        cascade: tiers of one vote each, rule, task, and a `Bedrock` client (or `AsText` of one).
        tickets: what the cascade's task reads; a path is a JSONL file of support tickets. All are held in memory.
        jobs: where jobs are made, and the account's limits.
        store: a SQLite file that keeps rows and jobs. The same call again goes on from there. `run_bulk` with the same cascade
            `.using(AsText(client))` can go on from it as well, e.g. with retry_failed.
        on_demand: whether what is too little for a job is asked on demand; else it is an error.
        workers: calls in flight on demand.
        poll_s: seconds between two looks at running jobs.
        limit: at most so many tickets.
        really: the fence. Without it nothing is made on AWS. On loopback it is not needed.
        sleep: injected by tests.

    Raises:
        ValueError: a tier has several votes, or the cascade starts tiers early; or `poll_s`, `workers` or `limit` is no sensible number.
        ConfigurationError: a ticket is unusable, an id occurs twice, or the client cannot build a record; while iterating: `really`
            is missing.
        StoreError, StoreMismatch: as `run_bulk`.
        BatchFailed: while iterating: a job failed, or S3 did. BedrockError: the control plane refused.
    """
    for name, value in (("workers", workers), ("poll_s", poll_s), ("limit", limit)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, not {value}")
    voting = [tier.name for tier in cascade.tiers if tier.votes > 1]
    if voting or cascade.start_early is not None:
        raise ValueError(
            f"the tiers {voting} vote: a batch job asks once a ticket"
            if voting
            else "start_early saves a wait, and a batch job has no other"
        )
    client: Any = cascade.client if isinstance(cascade.client, AsText) else None
    if client is None:
        if not isinstance(cascade.client, Bedrock):
            raise ConfigurationError(
                f"{type(cascade.client).__name__} cannot build the records of a batch job.",
                advice="Give the cascade the workshop's own client.",
            )
        client = AsText(cascade.client)
    cascade = cascade.using(client)
    kept = open_store(store, cascade)
    try:
        found = read_tickets(Path(tickets)) if isinstance(tickets, Path | str) else tickets
        waiting, skipped = _intake(cascade, itertools.islice(found, limit), kept)
    except BaseException:
        kept.close()
        raise
    return BatchRun(
        cascade, waiting, jobs=jobs, client=client, store=kept, skipped=skipped, on_demand=on_demand, workers=workers, poll_s=poll_s,
        really=really, sleep=sleep,
    )  # fmt: skip


def _intake(cascade: Cascade[Any], items: Iterable[Any], store: Store) -> tuple[list[_Ticket], int]:
    """The tickets without a final row, as far as their rows go; and how many have one."""
    waiting: dict[str, _Ticket] = {}
    seen: set[str] = set()
    for item in items:
        item_id, digest = identify(cascade.task, item)
        if item_id in seen:
            raise twice(item_id)
        seen.add(item_id)
        rows = store.rows_of(item_id, digest=digest) if store.resumed else []
        if rows and rows[-1].final:
            continue
        ticket = waiting[item_id] = _Ticket(item, item_id, digest)
        for row in rows:
            ticket.attempts.append(attempt_of(row, cascade.task))
            ticket.reasons += [Reason(why.rule, why.detail) for why in row.reasons]
            ticket.paid_usd += row.cost_usd
    return list(waiting.values()), len(seen) - len(waiting)


class _Waits(Exception):
    """A ticket gets no further before this tier has been asked."""

    def __init__(self, tier: str) -> None:
        super().__init__(tier)
        self.tier = tier
