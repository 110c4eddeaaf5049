"""Which batch jobs there are: one for each input, whatever is killed between its upload and its end. S3 and Bedrock's control plane.

    jobs = BatchJobs.of(workshop.bedrock, bucket="my-bucket", role_arn="arn:aws:iam::123456789012:role/batch")

Sources: Amazon Bedrock User Guide, "Format and upload your batch inference data", "View the results of a batch inference job"
and "Monitor batch inference jobs"; shapes from botocore's service model.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from workshop_lib.bedrock.errors import ConfigurationError, WorkshopError, from_botocore

if TYPE_CHECKING:
    from workshop_lib.bedrock.client import Bedrock

ENDED = {"Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired"}
"""States that a job does not leave; the others are Submitted, Validating, Scheduled, InProgress and Stopping."""
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_MISSING = {"404", "NoSuchKey", "NotFound"}
_BUSY = {"ServiceQuotaExceededException", "ThrottlingException", "TooManyRequestsException"}


class BatchFailed(WorkshopError):
    """A batch job could not be made, read, or finished."""

    default_advice = (
        "Mend what the message names and run the same call again: it goes on from the store and pays for nothing twice."
    )


class Busy(BatchFailed):
    """The account has as many jobs of this model as it may."""

    default_advice = (
        "Wait until some of the account's jobs have ended, or ask for a higher quota; then run the same call again."
    )


@dataclass(frozen=True)
class Input:
    """The records of one job, written down."""

    token: str
    """The job's `clientRequestToken`: the same input has the same one, so that it is never submitted twice."""
    file: IO[bytes] = field(repr=False)
    size: int
    """Bytes."""
    sha256: str
    """Base64, as S3 states it."""


@dataclass(frozen=True)
class BatchJobs:
    """Where batch jobs are made, and how large one may be. The limits are quotas of the account, by model: look them up in
    Service Quotas, Amazon Bedrock. What stands here are the defaults that are usually reported.
    """

    s3: Any
    bedrock: Any
    """Boto3 clients of one account and Region; `bedrock` is the control plane, not bedrock-runtime."""
    bucket: str
    role_arn: str
    """What Bedrock assumes to read and write the bucket."""
    prefix: str = "batch"
    """Of keys in the bucket and of the jobs' names: letters, digits and hyphens."""
    minimum: int = 100
    """Quota "Minimum number of records per batch inference job"."""
    maximum: int = 50_000
    """Quota "Records per batch inference job"."""
    max_bytes: int = 1_000_000_000
    """Quota "Batch inference input file size"."""
    at_once: int = 10
    """Quota "Sum of in-progress and submitted batch inference jobs"."""
    hours: int = 24
    """After how many hours a job that has not begun expires, 24 to 168."""

    def __post_init__(self) -> None:
        if (
            not self.prefix.replace("-", "").isalnum()
            or not self.prefix.isascii()
            or self.prefix[0] == "-"
            or len(self.prefix) > 30
        ):
            raise ConfigurationError(
                f"The prefix {self.prefix!r} cannot be used.", advice="Up to 30 letters, digits and hyphens."
            )
        if not 1 <= self.minimum <= self.maximum:
            raise ConfigurationError(
                f"minimum is {self.minimum} and maximum {self.maximum} records.", advice="1 <= minimum <= maximum."
            )

    @classmethod
    def of(cls, client: Bedrock, *, bucket: str, role_arn: str, **settings: Any) -> BatchJobs:
        """With boto3 clients behind the same door as `client`.

        Raises:
            BedrockError: they cannot be made.
        """
        return cls(client.service("s3"), client.service("bedrock"), bucket, role_arn, **settings)

    @property
    def local(self) -> bool:
        """Whether both clients stay on this machine, where nothing costs money."""
        return all(urlsplit(c.meta.endpoint_url).hostname in LOOPBACK for c in (self.s3, self.bedrock))

    def split(self, sizes: Sequence[int]) -> list[int]:
        """How many records go into each job, evenly.

        Args:
            sizes: bytes of each record's line.

        Raises:
            ConfigurationError: no job within the limits can hold them.
        """
        count = max(1, math.ceil(len(sizes) / self.maximum), math.ceil(sum(sizes) / self.max_bytes))
        while count * self.minimum <= len(sizes):
            cuts = [len(sizes) * i // count for i in range(count + 1)]
            if all(sum(sizes[a:b]) <= self.max_bytes for a, b in itertools.pairwise(cuts)):
                return [b - a for a, b in itertools.pairwise(cuts)]
            count += 1
        raise ConfigurationError(
            f"{len(sizes)} records of {sum(sizes):,} bytes do not fit into jobs of {self.minimum} to {self.maximum} records "
            f"and {self.max_bytes:,} bytes.",
            advice="Compare minimum, maximum and max_bytes with the account's quotas, or shorten the prompt.",
        )

    @contextmanager
    def write(self, lines: Iterable[bytes], *, model_id: str, used: Collection[str]) -> Iterator[Input]:
        """The lines as a job's input, in a temporary file.

        Args:
            lines: one record each, with newline.
            model_id: for which model.
            used: tokens of jobs that have ended. The same input after one of these is meant to be submitted again.
        """
        with tempfile.TemporaryFile() as file:
            digest = hashlib.sha256()
            for line in lines:
                digest.update(line)
                file.write(line)
            size, nth, token = file.tell(), 0, ""
            while not token or token in used:
                named = f"{model_id} {self.bucket} {nth} {digest.hexdigest()}"
                token, nth = hashlib.sha256(named.encode()).hexdigest()[:40], nth + 1
            yield Input(token, file, size, base64.b64encode(digest.digest()).decode())

    def start(self, made: Input, *, model_id: str) -> str:
        """Upload the input, unless S3 has it whole, and make its job, unless there is one.

        Returns:
            The job's ARN.

        Raises:
            Busy: too many jobs at once.
            BatchFailed: the upload did not arrive whole, or S3 refused it.
            BedrockError: Bedrock refused the job.
        """
        key = f"{self.prefix}/in/{made.token}.jsonl"
        if not self._is_whole(key, made):
            made.file.seek(0)
            self._s3(f"take s3://{self.bucket}/{key}", self.s3.put_object, Bucket=self.bucket, Key=key, Body=made.file,
                     ContentLength=made.size, ChecksumSHA256=made.sha256)  # fmt: skip
            if not self._is_whole(key, made):
                raise BatchFailed(f"s3://{self.bucket}/{key} did not arrive whole; no job was made of it.")
        try:
            created = self.bedrock.create_model_invocation_job(
                jobName=self._name(made.token),
                clientRequestToken=made.token,
                roleArn=self.role_arn,
                modelId=model_id,
                modelInvocationType="Converse",
                timeoutDurationInHours=self.hours,
                inputDataConfig={"s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": f"s3://{self.bucket}/{key}"}},
                outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"s3://{self.bucket}/{self.prefix}/out/"}},
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in _BUSY:
                raise Busy(str(error.response["Error"].get("Message") or error)) from error
            raise from_botocore(error, model=model_id) from error
        except BotoCoreError as error:
            raise from_botocore(error, model=model_id) from error
        return str(created["jobArn"])

    def find(self, token: str) -> str | None:
        """The ARN of the job with this token, for a driver that was killed before it could write it down; None: there is none."""
        try:
            found = self.bedrock.list_model_invocation_jobs(nameContains=token[:24])["invocationJobSummaries"]
        except (ClientError, BotoCoreError) as error:
            raise from_botocore(error) from error
        return next((str(job["jobArn"]) for job in found if job.get("clientRequestToken", token) == token), None)

    def look(self, arn: str) -> tuple[str, str]:
        """A job's state, and the service's message about it.

        Raises:
            BedrockError: it cannot be looked up.
        """
        job = self._job(arn)
        return str(job["status"]), str(job.get("message", ""))

    def output(self, arn: str) -> Iterator[bytes]:
        """The lines that a job has written, in no order, wherever it was told to. None, where it wrote nothing.

        Raises:
            BatchFailed: S3 does not give them, or not to their end.
            BedrockError: the job cannot be looked up.
        """
        bucket, keys = self._written(arn)
        for key in keys:
            if key.endswith(".jsonl.out"):
                what = f"give s3://{bucket}/{key}"
                body = self._s3(what, self.s3.get_object, Bucket=bucket, Key=key)["Body"]
                lines = iter(body.iter_lines(64 * 1024))
                while (line := self._s3(what, next, lines, None)) is not None:
                    if line.strip():
                        yield line

    def manifest(self, arn: str) -> dict[str, int]:
        """What a job says of itself: totalRecordCount, successRecordCount, inputTokenCount, ...; empty, where it has none."""
        bucket, keys = self._written(arn)
        for key in keys:
            if key.endswith("manifest.json.out"):
                what = f"give s3://{bucket}/{key}"
                body = self._s3(what, self.s3.get_object, Bucket=bucket, Key=key)["Body"]
                try:
                    told = json.loads(self._s3(what, body.read))
                except ValueError:
                    return {}
                return {k: v for k, v in told.items() if isinstance(v, int)} if isinstance(told, dict) else {}
        return {}

    def _written(self, arn: str) -> tuple[str, list[str]]:
        """Bucket and keys of what a job has written: its own place, should bucket and prefix be others by now."""
        told = self._job(arn)["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"]
        place = urlsplit(f"{told.rstrip('/')}/{arn.rsplit('/', 1)[-1]}/")
        where = {"Bucket": place.netloc, "Prefix": place.path.lstrip("/")}
        list_all = self.s3.get_paginator("list_objects_v2").paginate
        pages = self._s3(f"list {place.geturl()}", lambda: list(list_all(**where)))
        return place.netloc, [found["Key"] for page in pages for found in page.get("Contents", ())]

    def _job(self, arn: str) -> Any:
        try:
            return self.bedrock.get_model_invocation_job(jobIdentifier=arn)
        except (ClientError, BotoCoreError) as error:
            raise from_botocore(error) from error

    def _is_whole(self, key: str, made: Input) -> bool:
        """Whether S3 holds exactly this input: another length or checksum is an upload that was cut off."""
        try:
            head = self.s3.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return False
            raise _of_s3(f"look for s3://{self.bucket}/{key}", error) from error
        except BotoCoreError as error:
            raise _of_s3(f"look for s3://{self.bucket}/{key}", error) from error
        return bool(head["ContentLength"] == made.size and head.get("ChecksumSHA256") == made.sha256)

    def _name(self, token: str) -> str:
        return f"{self.prefix}-{token[:24]}"

    def _s3(self, what: str, call: Any, *given: Any, **named: Any) -> Any:
        try:
            return call(*given, **named)
        except (ClientError, BotoCoreError) as error:
            raise _of_s3(what, error) from error


def _of_s3(what: str, error: Exception) -> BatchFailed:
    return BatchFailed(
        f"S3 did not {what}: {from_botocore(error).message}",
        advice="Check that the bucket exists, in the clients' Region, and that you may use it; then run the same call again.",
    )
