"""Batch jobs at the local door: Bedrock's control plane for them, with states that pass, over the same small models.

    endpoint.batch.faults = BatchFaults(malformed=0.01, missing=0.01, doubled=0.01)
    endpoint.batch.end_next("Expired", after=0.4)        # the next job expires when four tenths are answered

Nothing is throttled here, and every record is in the journal at its batch price (on demand, where none is listed). The wording of
refusals is AWS's where it has been published (a job below the minimum), else ours.
"""

from __future__ import annotations

import functools
import json
import math
import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.local.engine import Answer, Engine
from workshop_lib.local.journal import Entry, Journal
from workshop_lib.local.models.speech import chance
from workshop_lib.local.objects import Objects
from workshop_lib.local.wire import ServiceError, Wire

BUCKET = "workshop-batch"
"""There from the start, as is the role."""
ROLE_ARN = "arn:aws:iam::000000000000:role/workshop-batch"
MINIMUM, MAXIMUM = 100, 50_000
"""Records of a job."""
STAGES = {"Submitted": 20, "Validating": 60, "Scheduled": 120}
"""Seconds in each state before a job begins, times the endpoint's time_scale. Assumed: AWS promises nothing but 24 hours."""
ENDED = {"Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired"}


@dataclass(frozen=True)
class BatchFaults:
    """Shares of records, 0 to 1, whose output goes wrong. A record's luck depends on its id and on how often the model was asked it."""

    malformed: float = 0.0
    """Its line is cut off: answered and paid for."""
    missing: float = 0.0
    """It has no line: answered and paid for."""
    doubled: float = 0.0
    """It has its line twice: paid for once."""
    error: float = 0.0
    """It has an error 500 in its line: not answered."""
    no_output: float = 0.0
    """Its line has neither answer nor error: answered and paid for."""

    def strikes(self, record_id: str, nth: int) -> str:
        """The fault of a record at its n-th time, or ""."""
        luck = chance("batch", record_id, str(nth))
        for name in ("malformed", "missing", "doubled", "error", "no_output"):
            luck -= getattr(self, name)
            if luck < 0:
                return name
        return ""


@dataclass
class _Job:
    arn: str
    request: dict[str, Any]
    region: str
    status: str = "Submitted"
    message: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    submitted: datetime = field(default_factory=lambda: datetime.now(UTC))
    changed: datetime = field(default_factory=lambda: datetime.now(UTC))
    stop: threading.Event = field(default_factory=threading.Event)
    ends: tuple[str, float] = ("Completed", 1.0)

    @property
    def id(self) -> str:
        return self.arn.rsplit("/", 1)[-1]

    def shown(self) -> dict[str, Any]:
        hours = self.request.get("timeoutDurationInHours", 24)
        told = {
            **{k: v for k, v in self.request.items() if k != "tags"},
            **self.counts,
            "jobArn": self.arn,
            "status": self.status,
            "submitTime": self.submitted.isoformat(),
            "lastModifiedTime": self.changed.isoformat(),
            "jobExpirationTime": (self.submitted + timedelta(hours=hours)).isoformat(),
        }
        if self.message:
            told["message"] = self.message
        if self.status in ENDED:
            told["endTime"] = self.changed.isoformat()
        return told

    def now(self, status: str, message: str = "") -> None:
        self.status, self.message, self.changed = status, message, datetime.now(UTC)


class BatchService:
    """The jobs of one endpoint, each worked off by a thread of its own."""

    def __init__(
        self, engine: Engine, wire: Wire, objects: Objects, journal: Journal, time_scale: Callable[[], float]
    ) -> None:
        """
        Args:
            engine, wire: answer and check the records.
            objects: where input is read and output written.
            journal: gets an entry for each record that is answered.
            time_scale: the share of `STAGES` that is really waited.
        """
        self.faults = BatchFaults()
        self.roles = {ROLE_ARN}
        self.minimum, self.maximum = MINIMUM, MAXIMUM
        self._engine, self._converse, self._objects, self._journal, self._time_scale = (
            engine,
            wire,
            objects,
            journal,
            time_scale,
        )
        self._jobs: dict[str, _Job] = {}
        self._tokens: dict[str, str] = {}
        self._endings: deque[tuple[str, float]] = deque()
        self._asked: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        objects.make_bucket(BUCKET)

    @functools.cached_property
    def wire(self) -> Wire:
        """The control plane's protocol; its description is long, and read at the first request."""
        return Wire("bedrock")

    def end_next(self, state: str, *, after: float = 0.5) -> None:
        """The next job not yet so marked ends in this state, when this share of its records has been answered."""
        if state not in ENDED:
            raise ValueError(f"a job ends as one of {sorted(ENDED)}, not as {state!r}")
        self._endings.append((state, after))

    def clear(self) -> None:
        """No jobs, no objects, no faults."""
        with self._lock:
            for job in self._jobs.values():
                job.stop.set()
            self._jobs.clear()
            self._tokens.clear()
            self._endings.clear()
            self._asked.clear()
        self.faults, self.minimum, self.maximum = BatchFaults(), MINIMUM, MAXIMUM
        self._objects.clear()
        self._objects.make_bucket(BUCKET)

    def operation(self, name: str) -> Callable[[dict[str, Any], str], Answer]:
        """The function of an operation.

        Raises:
            ServiceError: the local endpoint does not offer it.
        """
        offered: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
            "CreateModelInvocationJob": self._create,
            "GetModelInvocationJob": lambda params, region: self._job(params["jobIdentifier"]).shown(),
            "ListModelInvocationJobs": self._list,
            "StopModelInvocationJob": self._stop,
        }
        if name not in offered:
            raise ServiceError(
                "UnknownOperationException", f"The local endpoint does not offer {name}; it has {', '.join(offered)}."
            )
        return lambda params, region: Answer(offered[name](params, region), 0)

    def _create(self, params: dict[str, Any], region: str) -> dict[str, Any]:
        self._engine.model(params["modelId"], region)
        if params["roleArn"] not in self.roles:
            raise ServiceError("ValidationException", f"Could not assume the role {params['roleArn']}: check that it exists and trusts bedrock.amazonaws.com.")  # fmt: skip
        for side, name in (("input", "s3InputDataConfig"), ("output", "s3OutputDataConfig")):
            bucket = urlsplit(params[f"{side}DataConfig"][name]["s3Uri"]).netloc
            if not self._objects.has_bucket(bucket):
                raise ServiceError("ValidationException", f"The role cannot use the {side} bucket {bucket}.")
        token = params.get("clientRequestToken") or uuid.uuid4().hex
        with self._lock:
            if token in self._tokens:
                return {"jobArn": self._tokens[token]}
            arn = f"arn:aws:bedrock:{region}:000000000000:model-invocation-job/{uuid.uuid4().hex[:12]}"
            job = _Job(arn, {**params, "clientRequestToken": token}, region)
            if self._endings:
                job.ends = self._endings.popleft()
            self._jobs[arn], self._tokens[token] = job, arn
        threading.Thread(target=self._carry_out, args=(job,), name="local-batch", daemon=True).start()
        return {"jobArn": arn}

    def _list(self, params: dict[str, Any], region: str) -> dict[str, Any]:
        found = [job.shown() for job in reversed(self._all())]
        part, status = params.get("nameContains", ""), params.get("statusEquals")
        found = [told for told in found if part in told["jobName"] and status in (None, told["status"])]
        return {"invocationJobSummaries": found[: int(params.get("maxResults", 1000))]}

    def _stop(self, params: dict[str, Any], region: str) -> dict[str, Any]:
        job = self._job(params["jobIdentifier"])
        if job.status in ENDED:
            raise ServiceError("ConflictException", f"The job is {job.status} and cannot be stopped.")
        job.now("Stopping")
        job.stop.set()
        return {}

    def _all(self) -> list[_Job]:
        with self._lock:
            return list(self._jobs.values())

    def _job(self, arn: str) -> _Job:
        for job in self._all():
            if arn in (job.arn, job.id):
                return job
        raise ServiceError("ResourceNotFoundException", f"There is no job {arn}.")

    # --- working a job off

    def _carry_out(self, job: _Job) -> None:
        try:
            for state, seconds in STAGES.items():
                if not job.stop.is_set():
                    job.now(state)
                if job.stop.wait(seconds * self._time_scale()):
                    job.now("Stopped")
                    return
                if state == "Validating" and (problem := self._problem(job)):
                    job.now("Failed", problem)
                    return
            job.now("InProgress")
            for key, text in self._inputs(job):
                self._answer_file(job, key, text)
            state = "Stopped" if job.stop.is_set() else job.ends[0]
            job.now(state, "The job failed." if state == "Failed" else "")
        except Exception as error:  # a mistake of ours: a job that never ended would keep its driver waiting for ever
            job.now("Failed", f"{type(error).__name__}: {error}")

    def _inputs(self, job: _Job) -> list[tuple[str, bytes]]:
        where = urlsplit(job.request["inputDataConfig"]["s3InputDataConfig"]["s3Uri"])
        path = where.path.lstrip("/")
        keys = [
            k
            for k in self._objects.keys(where.netloc, path)
            if k.endswith(".jsonl") and (k == path or path.endswith("/"))
        ]
        return [(key, self._objects.get(where.netloc, key)) for key in keys]

    def _problem(self, job: _Job) -> str:
        """Why a job does not begin."""
        inputs = self._inputs(job)
        count = sum(text.count(b"\n") + (not text.endswith(b"\n")) for _, text in inputs)
        if not inputs:
            return "The S3 location has no file that ends in .jsonl."
        if count < self.minimum:
            return f"Batch job {job.arn} contains less records ({count}) than the required minimum of: {self.minimum}"
        if count > self.maximum:
            return f"Batch job {job.arn} contains more records ({count}) than the allowed maximum of: {self.maximum}"
        for _, text in inputs:
            for nth, line in enumerate(text.splitlines(), 1):
                if not isinstance(_object(line).get("modelInput"), dict):
                    return f"Line {nth} of the input is no JSON object with a modelInput."
        job.counts = {"totalRecordCount": count}
        return ""

    def _answer_file(self, job: _Job, key: str, text: bytes) -> None:
        """Answer one input file: its output, shuffled, and the manifest."""
        records = [_object(line) for line in text.splitlines()]
        most = math.floor(len(records) * job.ends[1]) if job.ends[0] != "Completed" else len(records)
        lines: list[tuple[float, bytes]] = []
        done, used = {"success": 0, "error": 0}, Usage()
        for nth, record in enumerate(records[:most]):
            if job.stop.is_set():
                break
            record_id = str(record.get("recordId") or f"REC{nth:08d}")
            with self._lock:
                self._asked[job.request["modelId"], record_id] += 1
                fault = self.faults.strikes(record_id, self._asked[job.request["modelId"], record_id])
            said, usage = self._answer(job, record_id, record["modelInput"], fault)
            used += usage
            done["error" if "error" in said else "success"] += 1
            if fault == "no_output":
                said = {}
            line = json.dumps({"recordId": record_id, "modelInput": record["modelInput"], **said}).encode()
            if fault == "malformed":
                line = line[: len(line) * 2 // 3]
            for copy in range(0 if fault == "missing" else 2 if fault == "doubled" else 1):
                lines.append((chance("order", record_id, job.id, str(copy)), line))
            job.counts |= {
                "processedRecordCount": nth + 1,
                "successRecordCount": done["success"],
                "errorRecordCount": done["error"],
            }
        where = urlsplit(job.request["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"])
        folder = f"{where.path.strip('/')}/{job.id}".lstrip("/")
        manifest = {**job.counts, "inputTokenCount": used.prompt_tokens, "outputTokenCount": used.output_tokens}
        output = b"".join(line + b"\n" for _, line in sorted(lines))
        self._objects.put(where.netloc, f"{folder}/{key.rsplit('/', 1)[-1]}.out", output)
        self._objects.put(where.netloc, f"{folder}/manifest.json.out", json.dumps(manifest).encode())

    def _answer(self, job: _Job, record_id: str, body: Mapping[str, Any], fault: str) -> tuple[dict[str, Any], Usage]:
        """What stands beside a record's input, and the tokens that it took."""
        params = {**body, "modelId": job.request["modelId"]}
        entry = Entry("Batch", params["modelId"], f"{job.id}/{record_id}", 1, status=200)
        try:
            self._check(job, params, fault)
            answer = self._engine.converse(params, job.region, batch=True)
        except ServiceError as error:
            status = self._converse.error(error).status
            entry.status, entry.error = status, error.code
            self._journal.add(entry)
            return {"error": {"errorCode": status, "errorMessage": error.message}}, Usage()
        entry.usage, entry.cost_usd, entry.latency_ms = answer.usage, answer.cost_usd, answer.latency_ms
        self._journal.add(entry)
        return {"modelOutput": answer.result}, answer.usage

    def _check(self, job: _Job, params: Mapping[str, Any], fault: str) -> None:
        """Refuse what a batch job refuses.

        Raises:
            ServiceError: for the record's line.
        """
        if fault == "error":
            raise ServiceError(
                "InternalServerException", "The system encountered an unexpected error during processing."
            )
        if job.request.get("modelInvocationType") != "Converse":
            raise ServiceError("ValidationException", "The local door answers jobs of the type Converse only.")
        if "toolConfig" in params:
            raise ServiceError(
                "ValidationException", "toolConfig is not supported in batch inference of the type Converse."
            )
        self._converse.check(self._converse.model.operation_model("Converse"), params)


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
