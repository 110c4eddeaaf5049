"""What counts as right in lab 10, a practice endpoint that takes batch jobs, what dies there, and the fence around a live job."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.bedrock.pacing import Quota
from workshop_lib.bedrock.settings import Settings
from workshop_lib.bulk.batch import BatchRun
from workshop_lib.lessons.checks import Exercise, NotAttemptedError
from workshop_lib.local.batch import BUCKET, ROLE_ARN, BatchFaults
from workshop_lib.workshop import Workshop, open_workshop

if TYPE_CHECKING:
    from workshop_lib.operations.capacity import Traffic
    from workshop_lib.operations.scale import ScalePlan

MINIMUM = 40
"""Records of a job at the practice endpoint. Accounts commonly have 100; with fewer, a small run has two jobs."""
BROKEN = BatchFaults(malformed=0.01, missing=0.01, doubled=0.005, error=0.005)
"""Three records in a hundred whose output goes wrong, in each of the ways."""
WAYS = ("one process", "Dask", "Bedrock batch", "none")


def scratch() -> Path:
    """A new folder for this notebook's results; the system clears it away."""
    return Path(tempfile.mkdtemp(prefix="lab10-"))


def practice() -> Workshop:
    """A local endpoint of the lab's own, whatever the door: there workers may be killed, and nothing costs money."""
    opened = open_workshop(Settings(mode="local", time_scale=0.02))
    if opened.endpoint is None:
        raise AssertionError("the local door has an endpoint")
    opened.endpoint.warm_up()
    opened.endpoint.batch.minimum = MINIMUM
    return opened


def jobs_at(opened: Workshop) -> Any:
    """Where the practice endpoint's batch jobs are made: its own bucket and role."""
    from workshop_lib.bulk import BatchJobs

    return BatchJobs.of(opened.bedrock, bucket=BUCKET, role_arn=ROLE_ARN, minimum=MINIMUM)


def after(calls: int, opened: Workshop, act: Callable[[], Any]) -> threading.Thread:
    """Do something as soon as the endpoint has had so many calls, while the notebook does something else."""
    endpoint = opened.endpoint
    if endpoint is None:
        raise AssertionError("only an endpoint of one's own counts its calls here")

    def wait() -> None:
        while len(endpoint.journal) < calls:
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def dying(looks: int) -> Callable[[float], None]:
    """A `sleep` for `run_batch` whose driver is interrupted after so many looks at its jobs, as by the stop button."""
    left = [looks]

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        left[0] -= 1
        if left[0] <= 0:
            raise KeyboardInterrupt

    return sleep


def limits(
    traffic: Traffic, catalogue: Catalogue, *, cpu_ms: float, tokens_per_minute: float, processes: int = 1
) -> dict[str, float]:
    """Tickets a second that each limit allows.

    Args:
        traffic: measured tickets.
        catalogue: burndown of the strong model.
        cpu_ms: CPU of one call in the process that makes it.
        tokens_per_minute: the strong model's quota.
        processes: each on a core of its own, with up to 256 calls in flight.
    """
    from workshop_lib.operations.capacity import plan
    from workshop_lib.operations.scale import Means

    n = len(traffic.tickets)
    asked = [call for calls in traffic.tickets.values() for call in calls]
    quotas = {"strong": Quota(tokens_per_minute=tokens_per_minute)}
    binding = plan(traffic, catalogue, tickets_per_hour=3_600, quotas=quotas).binding
    return {
        "CPU": processes * 1_000 / cpu_ms / (sum(call.calls for call in asked) / n),
        "calls in flight": processes * Means().of("in_flight") / (sum(call.latency_ms for call in asked) / 1_000 / n),
        "quota": float("inf") if binding is None else (binding.tickets_per_hour or 0) / 3_600,
    }


def binding(found: Mapping[str, float]) -> dict[str, str]:
    """Cells of a table: each limit in tickets a second, the least of them, and its name."""
    least = min(found, key=lambda name: found[name])
    return {**{name: f"{rate:,.0f}" for name, rate in found.items()}, "so": f"{found[least]:,.0f}", "binds": least}


def phases(run: BatchRun) -> list[dict[str, Any]]:
    """A row for each job so far, without its ARN: what it was asked, what it wrote, what that cost."""
    return [
        {
            "tier": p.tier,
            "state": p.state,
            "records": p.records,
            "answered": p.answered,
            "error in place": p.refused,
            "no usable line": p.lost,
            "line twice": p.doubled,
            "price": p.price,
            "USD": f"{p.cost_usd:.6f}",
        }
        for p in run.phases
    ]


def first_record(jobs: Any) -> dict[str, Any]:
    """The first line of the input in the bucket, as it stands there."""
    listed = jobs.s3.list_objects_v2(Bucket=jobs.bucket, Prefix=f"{jobs.prefix}/in/")["Contents"]
    body = jobs.s3.get_object(Bucket=jobs.bucket, Key=listed[0]["Key"])["Body"].read()
    record: dict[str, Any] = json.loads(body.splitlines()[0])
    return record


def output_lines(jobs: Any, run: BatchRun) -> list[str]:
    """The lines that the first job of a run has written."""
    return [line.decode("utf-8", "replace") for line in jobs.output(run.phases[0].job_arn)]


def accounted(joined: Any, asked: Sequence[str]) -> str:
    """What a join has made of the tickets that were asked; says so where there is no join yet."""
    try:
        answers, again = joined
        out = set(asked) - set(answers) - set(again)
        return f"{len(answers)} answered, {len(again)} to be asked again, {len(out)} in neither"
    except (TypeError, ValueError):
        return "no join yet: exercise 10.2"


def store_for(workshop: Workshop) -> Path:
    """Where a run of your own door is kept: at the live door it outlasts the kernel, and the jobs outlast both."""
    folder = workshop.settings.cache_dir if workshop.settings.mode == "live" else scratch()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "lab10-batch.db"


def submit(run: BatchRun, workshop: Workshop, *, really: bool) -> str:
    """Carry a batch run out, to its end. Nothing is called unless the door is live *and* `really` is True.

    Raises:
        BatchFailed, BedrockError: see `run_batch`.
    """
    if workshop.settings.mode != "live" or really is not True:
        run.close()
        why = "the door is local" if workshop.settings.mode != "live" else "set REALLY = True if you have read the plan"
        return f"Nothing was submitted: {why}. This is the plan only."
    for _ in run:
        pass
    return f"{run.tickets} tickets, {run.failed} without a decision, USD {run.cost_usd:.4f}"


# --- 10.1


def _paid_again(answer: Callable[[int, int, int, bool], Any]) -> str | None:
    cases = (
        (1, 8, 300, False, 8, "one worker died; each had its 8 calls in flight, and the others' rows were on disk"),
        (3, 8, 300, False, 24, "three workers died"),
        (1, 8, 5, False, 5, "a partition of 5 tickets does not keep 8 threads busy"),
        (0, 8, 300, False, 0, "nobody died"),
        (1, 8, 300, True, 300, "the store was lost with the worker's disk, so its partition begins again"),
        (2, 16, 50, True, 100, "two workers died, and their disks"),
        (2, 16, 10, True, 20, "two workers died, and their disks"),
    )
    for died, threads, partition, disk_lost, wanted, words in cases:
        given = answer(died, threads, partition, disk_lost)
        if given is None or given is ...:
            raise NotAttemptedError
        if not isinstance(given, int | float):
            return f"give a number of tickets, not {given!r}"
        if given != wanted:
            how = "more than can be" if given > wanted else "fewer than can be"
            return f"paid_again({died}, {threads}, {partition}, {disk_lost}) gives {given}: {how}; {words}"
    return None


# --- 10.2


def _line(record_id: str, text: str = "", *, said: Mapping[str, Any] | None = None) -> str:
    answered = {"modelOutput": {"text": text or f"answer to {record_id}"}}
    return json.dumps({"recordId": record_id, "modelInput": {}, **(answered if said is None else said)})


_ERROR = {"error": {"errorCode": 500, "errorMessage": "unexpected error"}}
ASKED = [f"T-{i}" for i in range(1, 9)]
LINES = [
    _line("T-4"),
    _line("T-2"),
    _line("T-2", "a second answer to T-2"),
    _line("T-3", said=_ERROR),
    _line("T-5")[:40],
    _line("T-7", said=_ERROR),
    _line("T-7", "answered after all"),
    _line("T-99"),
    _line("T-8", said={}),
    _line("T-1"),
]
"""A job's output: shuffled, T-2 twice, T-5 cut off, T-6 nowhere, T-8 without an answer, and T-99, which nobody asked."""


def _join(answer: Callable[[list[str], list[str]], Any]) -> str | None:
    given = answer(list(LINES), list(ASKED))
    if given is None or given is ...:
        raise NotAttemptedError
    try:
        answers, again = given
        answers, again = dict(answers), list(again)
    except (TypeError, ValueError):
        return f"return two things, answers by id and the ids to ask again; yours is {type(given).__name__}"
    both, out = set(answers) & set(again), set(ASKED) - set(answers) - set(again)
    looks: tuple[tuple[bool, str], ...] = (
        (bool(out), f"{_some(out)} in neither: every ticket that was asked must be in one of the two"),
        ("T-99" in answers or "T-99" in again, "T-99 was not asked in this job, and is in your result"),
        ("T-3" in answers, "T-3 has an error in the answer's place, and counts as answered"),
        ("T-8" in answers, "T-8 has a line with neither answer nor error, and counts as answered"),
        ("T-7" in again and "T-7" not in answers, "T-7 has an error in one line and an answer in another: it was answered, and would be paid again"),
        (bool(both), f"{_some(both)} in both: it would be paid for twice"),
        (len(again) != len(set(again)), "an id stands twice among those to ask again"),
        (sorted(again) != ["T-3", "T-5", "T-6", "T-8"], f"to be asked again by your join: {_some(again)}"),
    )  # fmt: skip
    for wrong, words in looks:
        if wrong:
            return words
    for record_id, text in (("T-1", "answer to T-1"), ("T-2", "answer to T-2"), ("T-7", "answered after all")):
        if answers[record_id] != {"text": text}:
            why = "the first of two answers counts" if record_id == "T-2" else "give the line's modelOutput"
            return f"{record_id} has {answers[record_id]!r}: {why}; the order of lines is not that of the records"
    return None


def _some(ids: Any) -> str:
    return ", ".join(sorted(ids)) or "none"


# --- 10.3


@dataclass(frozen=True)
class Case:
    """So many tickets, and what is there to work through them."""

    tickets: int
    deadline_h: float
    per_process: float
    """Tickets a second that one process can do: its CPU, or its calls in flight."""
    processes: int
    """Of a cluster."""
    quota: float
    """Tickets a second that the account allows, to all processes together."""
    batch_h: float
    """Hours until batch jobs have done them."""
    batch_saves: float
    """Share of the bill that batch jobs save."""


def cases(found: ScalePlan, allowed: Mapping[str, float]) -> list[Case]:
    """A case for each number of tickets of a plan. `allowed`: from `limits`, for one process."""
    alone, _, batch = found.ways
    processes = int(found.means.of("machines") * found.means.of("cores"))
    each = min(allowed["CPU"], allowed["calls in flight"])
    return [
        Case(p.n, found.deadline_h, each, processes, allowed["quota"], by_batch.hours, 1 - by_batch.usd / p.usd)
        for p, by_batch in zip(alone.points, batch.points, strict=True)
    ]


def _choose(answer: Callable[[Case], Any]) -> str | None:
    looks: tuple[tuple[Case, str, str], ...] = (
        (Case(10_000, 48, 100, 16, 30, 48, 0.015), WAYS[0], "one process does it in minutes"),
        (Case(20_000_000, 48, 100, 16, 30, 96, 0.015), WAYS[3], "the quota holds for all processes together, and nothing is in time"),
        (Case(20_000_000, 48, 100, 16, 2_000, 96, 0.015), WAYS[1], "one process takes longer than there is, and the quota has room for more"),
        (Case(1_000_000, 48, 100, 16, 30, 48, 0.5), WAYS[2], "batch is just in time at half the price"),
        (Case(1_000_000, 48, 100, 16, 30, 48, 0.015), WAYS[0], "1.5 % is not worth a second system"),
        (Case(1_000_000, 12, 100, 16, 30, 48, 0.5), WAYS[0], "batch is too late at any price"),
        (Case(20_000_000, 48, 100, 16, 30, 48, 0.015), WAYS[2], "batch takes nothing of the on-demand quota, and alone is in time"),
    )  # fmt: skip
    for case, wanted, why in looks:
        given = answer(case)
        if given is None or given is ...:
            raise NotAttemptedError
        if given not in WAYS:
            return f"give one of {', '.join(map(repr, WAYS))}, not {given!r}"
        if given != wanted:
            return f"for {case.tickets:,} tickets in {case.deadline_h:g} h (quota {case.quota:g}/s, batch {case.batch_h:g} h, saves {case.batch_saves:.1%}) you choose {given}, but {why}"
    return None


EXERCISES: Mapping[str, Exercise] = {
    "10.1": Exercise(
        _paid_again,
        (
            "What is not on disk when a worker dies? Only what its threads were waiting for: everything else has its row.",
            "A worker holds `threads` tickets in flight, but never more than its partition has. Without its store, the whole partition is asked again.",
            "Per death: partition if disk_lost else min(threads, partition). Times `died`.",
        ),
        "a death costs what was in flight, however long the run is. Small partitions matter only where a disk can be lost.",
    ),
    "10.2": Exercise(
        _join,
        (
            "Go by recordId, never by position. json.loads raises ValueError on a line that was cut off.",
            'A line counts if its recordId was asked and "modelOutput" is in it; answers.setdefault(record_id, ...) keeps the first.',
            "To be asked again is everything that was asked and has no answer in the end: [i for i in asked if i not in answers].",
        ),
        "begin from what was asked, not from what came: only then is a line that never came missed.",
    ),
    "10.3": Exercise(
        _choose,
        (
            "Work out hours first. A rate is the least of what the processes can do and what the quota allows: min(processes * per_process, quota).",
            "hours = tickets / rate / 3600. A cluster has case.processes processes, and still one quota.",
            "In order: batch if it is in time and saves 5 % or more; one process if in time; Dask if in time; batch if in time; else none.",
        ),
        "the deadline rules out, the price decides, and of two that cost the same the simpler one is taken.",
    ),
}


def compare(
    choose: Callable[[Case], Any], plans: Mapping[str, tuple[ScalePlan, Traffic, float]], catalogue: Catalogue
) -> list[dict[str, Any]]:
    """A row for each plan and number of tickets: what the attendee's function takes, and what the planner does.

    Args:
        choose: of exercise 10.3; where it returns nothing yet, nothing is shown for it.
        plans: name to a plan, the traffic that it is of, and the strong model's tokens a minute.
        catalogue: prices and burndown.
    """
    from workshop_lib.operations.scale import Means

    rows = []
    for name, (found, traffic, tokens_per_minute) in plans.items():
        cpu_ms = 1_000 / Means().of("calls_per_core_s")
        allowed = limits(traffic, catalogue, cpu_ms=cpu_ms, tokens_per_minute=tokens_per_minute)
        rows += [
            {"plan": name, "tickets": f"{case.tickets:,}", "you": choose(case) or "", "planner": found.best[case.tickets] or "none"}
            for case in cases(found, allowed)
        ]  # fmt: skip
    return rows
