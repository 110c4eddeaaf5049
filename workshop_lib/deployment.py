"""What is put on AWS to run the agent there, what that costs, and that nothing of it stays.

    plan = Plan("shop_agent", code=zip_folder("build"), region="us-west-2", models=[catalogue["cheap"], catalogue["strong"]])
    print(plan)                                            # the bill first
    with deployed(plan, AwsClients.from_session(session), really=True) as agent:
        agent.invoke({"prompt": "Where is my order?"})
    # deleted again: the runtime, its role, the bucket with its code, its log groups

Plain boto3, with code from S3 (direct code deployment): no container is built. A runtime installs nothing, so the folder must hold
the dependencies too, built for Linux on ARM64:
`pip install --platform manylinux2014_aarch64 --only-binary=:all: --python-version 3.11 --target build -r requirements-agent.txt`.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from workshop_lib.bedrock.catalogue import ModelSpec
from workshop_lib.bedrock.errors import ConfigurationError, WorkshopError, from_botocore
from workshop_lib.operations.permissions import invoke_statements

if TYPE_CHECKING:
    import boto3

VCPU_HOUR, GB_HOUR = Decimal("0.0895"), Decimal("0.00945")
"""USD, us-west-2. A vCPU is billed while it works, memory as long as the session lives."""
PRICES_FROM = "https://aws.amazon.com/bedrock/agentcore/pricing/, as quoted by third parties in 2026; look there before you deploy"
IDLE_S = 60
"""Seconds after which an idle session ends, the least that AgentCore allows. Its default, 900, is billed for memory all the while."""
MAX_ZIP = 250_000_000
"""Bytes of a code archive."""
READY_S = 600.0
"""How long a runtime may take to be made or deleted."""
_GONE = {"ResourceNotFoundException", "NoSuchEntity", "NoSuchBucket"}
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,29}")


class DeploymentFailed(WorkshopError):
    """Something on AWS could not be made or asked; what had been made was deleted again."""

    default_advice = "Mend what the message names and deploy again."


class LeftBehind(WorkshopError):
    """Something could not be deleted.

    Attributes:
        resources: what is still there, one line each.
    """

    def __init__(self, resources: Sequence[str]) -> None:
        super().__init__(
            f"Not everything could be deleted: {'; '.join(resources)}.",
            advice="Delete these by hand in the AWS console: they may cost money.",
        )
        self.resources = tuple(resources)


@dataclass(frozen=True)
class Plan:
    """One deployment, before anything is made. `print(plan)` says what would be made and what it costs."""

    name: str
    """Letters, digits and _, at most 30 characters; every resource gets it with eight random characters behind it."""
    code: bytes = field(repr=False)
    """A zip archive of the agent and its dependencies, see `zip_folder`."""
    region: str
    models: Sequence[ModelSpec]
    """The models that the agent may call, and no others."""
    entry_point: str = "agent.py"
    """The file in the archive that starts the app with `app.run()`."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The agent's environment variables. Readable by who may read the runtime: no secrets."""
    invocations: int = 20
    """How many are expected, for the estimate."""
    seconds: float = 10.0
    """How long one takes, for the estimate."""

    def __post_init__(self) -> None:
        problem = ""
        if not _NAME.fullmatch(self.name):
            problem = f"the name {self.name!r} may have letters, digits and _, begins with a letter and has 30 at most"
        elif len(self.code) > MAX_ZIP:
            problem = f"the archive has {len(self.code):,} bytes, more than the {MAX_ZIP:,} that AgentCore takes"
        elif not self.models:
            problem = "it names no models that the agent may call"
        else:
            try:
                files = set(zipfile.ZipFile(io.BytesIO(self.code)).namelist())
            except zipfile.BadZipFile:
                problem = "its code is no zip archive"
            else:
                if self.entry_point not in files:
                    problem = f"the archive has no {self.entry_point}"
        if problem:
            raise ConfigurationError(f"The plan cannot be used: {problem}.", advice="See Plan and zip_folder.")

    @property
    def estimate_usd(self) -> Decimal:
        """USD of the runtime for the expected invocations, beside the models: 1 vCPU at work and 1 GB all the time, each in a session
        of its own that idles to its end. An upper guess: a vCPU that waits for a model is not billed.
        """
        hours = Decimal(self.invocations) / 3600
        busy = Decimal(str(self.seconds))
        return hours * (busy * VCPU_HOUR + (busy + IDLE_S) * GB_HOUR)

    def __str__(self) -> str:
        models = ", ".join(spec.id for spec in self.models)
        return "\n".join(
            [
                f"The bill: about USD {self.estimate_usd:.4f} for {self.invocations} invocations of {self.seconds:g} s, and the tokens of the models.",
                f"  AgentCore Runtime: USD {VCPU_HOUR} a vCPU-hour at work, USD {GB_HOUR} a GB-hour ({PRICES_FROM}).",
                "  S3 and CloudWatch Logs: fractions of a cent for as long as it stands.",
                f"What is made in {self.region}, and deleted at the end:",
                f"  a private S3 bucket with the code ({len(self.code):,} bytes)",
                f"  an IAM role that may call {models} and write its log, nothing else",
                f"  an AgentCore runtime {self.name}_..., which AgentCore gives a log group",
                "Nothing is made before deployed(plan, clients, really=True).",
            ]
        )


@dataclass(frozen=True)
class AwsClients:
    """The boto3 clients that all calls go through, of one account and Region."""

    control: Any
    """bedrock-agentcore-control: makes and deletes runtimes."""
    data: Any
    """bedrock-agentcore: invokes them."""
    iam: Any
    s3: Any
    sts: Any
    logs: Any

    @classmethod
    def from_session(cls, session: boto3.Session) -> AwsClients:
        """All of one session."""
        names = ("bedrock-agentcore-control", "bedrock-agentcore", "iam", "s3", "sts", "logs")
        make: Any = session.client
        return cls(*(make(name) for name in names))


@dataclass(frozen=True)
class Deployment:
    """An agent that stands on AWS."""

    arn: str
    runtime_id: str
    _data: Any = field(repr=False)

    def invoke(self, payload: Mapping[str, Any], *, session_id: str | None = None) -> dict[str, Any]:
        """Ask it.

        Args:
            payload: with a `prompt`, as `agentcore.make_app` takes it.
            session_id: 33 characters or more; the same one reaches the same microVM. None: a new one, and a cold start.

        Raises:
            DeploymentFailed: it could not be asked, or its app answered an error.
        """
        try:
            response = self._data.invoke_agent_runtime(
                agentRuntimeArn=self.arn,
                runtimeSessionId=session_id or str(uuid.uuid4()),
                contentType="application/json",
                accept="application/json",
                payload=json.dumps(dict(payload)).encode(),
            )
            found = json.loads(response["response"].read())
        except (ClientError, BotoCoreError, ValueError) as error:
            advice = "The app's own words are in the log group /aws/bedrock-agentcore/runtimes/... of the runtime."
            raise DeploymentFailed(f"The agent gave no answer: {_said(error)}", advice=advice) from error
        return dict(found)


@contextmanager
def deployed(
    plan: Plan,
    clients: AwsClients,
    *,
    really: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Deployment]:
    """Deploy, wait until it is ready, give it to the `with`, and delete everything again: also after an error, also half-way.

    Args:
        plan: what to deploy; show it first.
        clients: through which AWS is called.
        really: the fence. Without it nothing is called: this makes things that cost money.
        sleep: injected by tests.

    Raises:
        ConfigurationError: `really` is not True, or the clients are of another Region than the plan.
        DeploymentFailed: something could not be made. It was undone.
        LeftBehind: something could not be deleted; it names what.
    """
    if really is not True:
        raise ConfigurationError(
            "Nothing was deployed: this makes things on AWS that cost money.",
            advice="Read print(plan), then pass really=True.",
        )
    region = clients.control.meta.region_name
    if region != plan.region:
        raise ConfigurationError(
            f"The plan is for {plan.region}, the clients are of {region}.", advice="Make both for one Region."
        )
    # Random names: what is deleted at the end by name can be nobody else's, and a creation whose answer was lost is found.
    made = _Made(plan, clients, secrets.token_hex(4), sleep)
    try:
        try:
            runtime = made.all()
        except (ClientError, BotoCoreError) as error:
            raise DeploymentFailed(f"The deployment failed and was undone: {_said(error)}") from error
        yield runtime
    finally:
        left = made.delete_all()
        if left:
            raise LeftBehind(left)


def zip_folder(folder: Path | str) -> bytes:
    """A folder as the archive of a plan: the same bytes for the same files, readable by AgentCore.

    Raises:
        ConfigurationError: there is no such folder, or nothing in it.
    """
    folder = Path(folder)
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and "__pycache__" not in f.parts]
    if not files:
        raise ConfigurationError(f"There are no files in {folder}.", advice="Put the agent and its dependencies there.")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100755 << 16  # AgentCore goes by POSIX permissions
            archive.writestr(entry, file.read_bytes())
    return buffer.getvalue()


class _Made:
    """What one deployment makes, and how it is deleted."""

    def __init__(self, plan: Plan, clients: AwsClients, suffix: str, sleep: Callable[[float], None]) -> None:
        self._plan, self._aws, self._sleep = plan, clients, sleep
        self.runtime = f"{plan.name}_{suffix}"
        self.role = f"{plan.name}-agentcore-{suffix}"
        self.bucket = f"{plan.name.lower().replace('_', '-')}-code-{suffix}"
        # Each is noted before it is made: if the answer to its creation is lost, it is still looked for at the end.
        self._undo: list[tuple[str, Callable[[], None]]] = []
        self._ids: list[str] = []

    def all(self) -> Deployment:
        account = self._aws.sts.get_caller_identity()["Account"]
        self._undo.append((f"S3 bucket {self.bucket}", self._delete_bucket))
        self._make_bucket()
        self._undo.append((f"IAM role {self.role}", self._delete_role))
        role_arn = self._make_role(account)
        self._undo.append(("the runtime's log groups", self._delete_logs))
        self._undo.append((f"AgentCore runtime {self.runtime}", self._delete_runtime))
        return self._make_runtime(role_arn)

    def delete_all(self) -> list[str]:
        """Delete in reverse; gives what could not be deleted, and goes on with the rest."""
        left = []
        for what, delete in reversed(self._undo):
            try:
                delete()
            except (ClientError, BotoCoreError, DeploymentFailed) as error:
                left.append(f"{what} ({_said(error)})")
        return left

    def _make_bucket(self) -> None:
        s3, region = self._aws.s3, self._plan.region
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=self.bucket, **where)
        shut = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        s3.put_public_access_block(Bucket=self.bucket, PublicAccessBlockConfiguration=dict.fromkeys(shut, True))
        s3.put_object(Bucket=self.bucket, Key="agent.zip", Body=self._plan.code)

    def _make_role(self, account: str) -> str:
        trust = {
            "Effect": "Allow",
            "Principal": {"Service": "bedrock-agentcore.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": account}},
        }
        logs = f"arn:aws:logs:{self._plan.region}:{account}:log-group:/aws/bedrock-agentcore/runtimes/*"
        allowed = [
            *invoke_statements(self._plan.models, region=self._plan.region, account=account),
            {"Effect": "Allow", "Action": ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents",
             "logs:DescribeLogStreams"], "Resource": [logs, f"{logs}:log-stream:*"]},
        ]  # fmt: skip
        made = self._aws.iam.create_role(
            RoleName=self.role,
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
            Description="Made by a deployment of the workshop's agent, which deletes it again",
        )
        policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
        self._aws.iam.put_role_policy(RoleName=self.role, PolicyName="agent", PolicyDocument=policy)
        return str(made["Role"]["Arn"])

    def _make_runtime(self, role_arn: str) -> Deployment:
        request = {
            "agentRuntimeName": self.runtime,
            "agentRuntimeArtifact": {
                "codeConfiguration": {
                    "code": {"s3": {"bucket": self.bucket, "prefix": "agent.zip"}},
                    "runtime": "PYTHON_3_11",
                    "entryPoint": [self._plan.entry_point],
                }
            },
            "roleArn": role_arn,
            "networkConfiguration": {"networkMode": "PUBLIC"},
            "lifecycleConfiguration": {"idleRuntimeSessionTimeout": IDLE_S, "maxLifetime": 900},
            "environmentVariables": dict(self._plan.environment),
        }
        for attempt in range(6):
            try:
                made = self._aws.control.create_agent_runtime(**request)
                break
            except ClientError as error:
                # A role that was just made is not known everywhere for some seconds.
                if attempt == 5 or "role" not in str(error).lower():
                    raise
                self._sleep(5)
        self._ids.append(made["agentRuntimeId"])
        found = self._wait(made["agentRuntimeId"])
        return Deployment(found["agentRuntimeArn"], made["agentRuntimeId"], self._aws.data)

    def _wait(self, runtime_id: str) -> dict[str, Any]:
        waited = 0.0
        while True:
            found: dict[str, Any] = self._aws.control.get_agent_runtime(agentRuntimeId=runtime_id)
            if found["status"] == "READY":
                return found
            if found["status"] != "CREATING":
                why = found.get("failureReason") or "no reason given"
                raise DeploymentFailed(f"The runtime is {found['status']}: {why}. It was undone.")
            if waited >= READY_S:
                raise DeploymentFailed(f"The runtime was not ready after {READY_S:g} s. It was undone.")
            self._sleep(5)
            waited += 5

    def _delete_runtime(self) -> None:
        control = self._aws.control
        for page in control.get_paginator("list_agent_runtimes").paginate():
            # By name, so that it is also found where the answer to its creation was lost.
            named = [r["agentRuntimeId"] for r in page["agentRuntimes"] if r["agentRuntimeName"] == self.runtime]
            self._ids += [found for found in named if found not in self._ids]
        for runtime_id in self._ids:
            with _gone_is_fine():
                control.delete_agent_runtime(agentRuntimeId=runtime_id)
                waited = 0.0
                while (status := control.get_agent_runtime(agentRuntimeId=runtime_id)["status"]) == "DELETING":
                    if waited >= READY_S:
                        break
                    self._sleep(5)
                    waited += 5
                raise DeploymentFailed(f"AgentCore says {status}")

    def _delete_logs(self) -> None:
        for runtime_id in self._ids:
            prefix = f"/aws/bedrock-agentcore/runtimes/{runtime_id}"
            for page in self._aws.logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix):
                for group in page["logGroups"]:
                    with _gone_is_fine():
                        self._aws.logs.delete_log_group(logGroupName=group["logGroupName"])

    def _delete_role(self) -> None:
        with _gone_is_fine():
            self._aws.iam.delete_role_policy(RoleName=self.role, PolicyName="agent")
        with _gone_is_fine():
            self._aws.iam.delete_role(RoleName=self.role)

    def _delete_bucket(self) -> None:
        with _gone_is_fine():
            self._aws.s3.delete_object(Bucket=self.bucket, Key="agent.zip")
            self._aws.s3.delete_bucket(Bucket=self.bucket)


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in _GONE:
            raise


def _said(error: Exception) -> str:
    return from_botocore(error).message if isinstance(error, ClientError | BotoCoreError) else str(error)
