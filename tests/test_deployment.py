"""A deployment to AgentCore against a stand-in of AWS's control plane: the bill first, the fence, and nothing left behind.

moto makes runtimes, roles, buckets and log groups. It has no data plane (nothing answers at a runtime's address: there the app that
`agentcore.serve` serves takes its place), does not run the code, and does not ask whether a role is allowed anything.
"""

import io
import json
import uuid
import zipfile
from decimal import Decimal
from types import SimpleNamespace
from unittest import mock

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from workshop_lib import Catalogue, ConfigurationError
from workshop_lib.agentcore import make_app, serve
from workshop_lib.deployment import AwsClients, DeploymentFailed, LeftBehind, Plan, deployed, zip_folder

REGION = "us-west-2"


@pytest.fixture(scope="module")
def running():
    with serve(make_app(lambda payload, session_id: {"said": payload["prompt"], "session": session_id})) as url:
        yield url


@pytest.fixture(scope="module")
def _all_clients(running):
    with mock_aws():
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
        clients = AwsClients.from_session(session)
        data = session.client(
            "bedrock-agentcore", endpoint_url=running, config=Config(retries={"total_max_attempts": 1})
        )
        yield AwsClients(clients.control, data, clients.iam, clients.s3, clients.sts, clients.logs)


@pytest.fixture
def aws(_all_clients):
    assert not standing(_all_clients)
    return _all_clients


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    (folder / "agent.py").write_text("print('the agent')", encoding="utf-8")
    return zip_folder(folder)


@pytest.fixture
def plan(code):
    catalogue = Catalogue.load()
    return Plan("shop_agent", code=code, region=REGION, models=[catalogue["cheap"], catalogue["strong"]])


def standing(aws):
    """All that is there, by name."""
    return [
        *(r["agentRuntimeName"] for r in aws.control.list_agent_runtimes()["agentRuntimes"]),
        *(r["RoleName"] for r in aws.iam.list_roles()["Roles"]),
        *(b["Name"] for b in aws.s3.list_buckets()["Buckets"]),
        *(g["logGroupName"] for g in aws.logs.describe_log_groups()["logGroups"]),
    ]


class Wrapped:
    """A client one of whose operations does something else; without `instead` it is asked as ever and then fails."""

    def __init__(self, client, operation, error=None, *, instead=None):
        self._client, self._operation, self._error, self._instead = client, operation, error, instead

    def __getattr__(self, name):
        if name != self._operation:
            return getattr(self._client, name)
        if self._instead is not None:
            return self._instead

        def fails(**given):
            raise self._error

        return fails


def refused(operation, code="AccessDeniedException", message="You may not."):
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def with_(aws, **changed):
    return AwsClients(**{name: changed.get(name, getattr(aws, name)) for name in aws.__dataclass_fields__})


def no_sleep(seconds):
    pass


# --- before --------------------------------------------------------------------------------------------------------


def test_the_plan_says_the_bill_first_and_all_that_is_made(plan):
    lines = str(plan).splitlines()
    assert lines[0].startswith("The bill: about USD 0.0")
    for word in ("S3 bucket", "IAM role", "runtime", plan.models[1].id, "really=True"):
        assert word in str(plan)


def test_the_estimate_counts_work_and_the_idle_wait(code, plan):
    one = Plan("a", code=code, region=REGION, models=plan.models, invocations=1, seconds=3600)
    assert one.estimate_usd == pytest.approx(Decimal("0.0895") + Decimal("0.00945") * (1 + Decimal(60) / 3600))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "shop-agent"}, "letters, digits"),
        ({"name": "a" * 31}, "30 at most"),
        ({"code": b"print()"}, "no zip archive"),
        ({"entry_point": "main.py"}, "no main.py"),
        ({"models": []}, "no models"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_before_aws_is_asked(code, plan, changed, said):
    with pytest.raises(ConfigurationError, match=said):
        Plan(**{"name": "a", "code": code, "region": REGION, "models": plan.models, **changed})


def test_environment_and_code_are_not_shown(code, plan):
    secret = Plan("a", code=code, region=REGION, models=plan.models, environment={"KEY": "hunter22"})
    assert "hunter22" not in f"{secret!r} {secret}"


@pytest.mark.parametrize("really", [False, 1, "yes"])
def test_without_the_fence_open_nothing_is_called(plan, really):
    nothing = AwsClients(*[SimpleNamespace()] * 6)
    with pytest.raises(ConfigurationError, match="cost money"), deployed(plan, nothing, really=really):
        pytest.fail("nothing may be deployed")


def test_clients_of_another_region_are_refused(plan):
    other = boto3.Session(aws_access_key_id="x", aws_secret_access_key="x", region_name="eu-west-1")
    clients = AwsClients(other.client("bedrock-agentcore-control"), *[SimpleNamespace()] * 5)
    with pytest.raises(ConfigurationError, match="eu-west-1"), deployed(plan, clients, really=True):
        pytest.fail("nothing may be deployed")


def test_a_folder_becomes_the_same_archive_each_time(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "agent.py").write_text("x = 1", encoding="utf-8")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "agent.pyc").write_bytes(b"x")
    made = zip_folder(tmp_path)
    (tmp_path / "agent.py").touch()
    assert zip_folder(tmp_path) == made
    archive = zipfile.ZipFile(io.BytesIO(made))
    assert archive.namelist() == ["agent.py", "package/__init__.py"]
    assert all(entry.external_attr >> 16 & 0o444 == 0o444 for entry in archive.infolist())


def test_an_empty_folder_is_no_agent(tmp_path):
    with pytest.raises(ConfigurationError, match="no files"):
        zip_folder(tmp_path)


# --- while it stands -------------------------------------------------------------------------------------------------


def test_what_the_plan_says_is_made_and_deleted_again(plan, aws):
    with deployed(plan, aws, really=True, sleep=no_sleep) as agent:
        names = standing(aws)
        assert len(names) == 3
        assert all(name.startswith(("shop_agent", "shop-agent")) for name in names)
        found = aws.control.get_agent_runtime(agentRuntimeId=agent.runtime_id)
        assert found["status"] == "READY"
    assert standing(aws) == []


def test_the_bucket_is_private_and_holds_the_code(plan, aws):
    with deployed(plan, aws, really=True, sleep=no_sleep):
        (bucket,) = [b["Name"] for b in aws.s3.list_buckets()["Buckets"]]
        assert all(aws.s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
        assert aws.s3.get_object(Bucket=bucket, Key="agent.zip")["Body"].read() == plan.code


def test_the_role_may_call_these_models_and_log_and_nothing_else(plan, aws):
    with deployed(plan, aws, really=True, sleep=no_sleep):
        (role,) = aws.iam.list_roles()["Roles"]
        policy = aws.iam.get_role_policy(RoleName=role["RoleName"], PolicyName="agent")["PolicyDocument"]
    actions = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert {action.split(":")[0] for action in actions} == {"bedrock", "logs"}
    resources = [resource for statement in policy["Statement"] for resource in statement["Resource"]]
    assert "*" not in resources
    assert any(plan.models[1].id in resource for resource in resources)
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "bedrock-agentcore.amazonaws.com"}
    assert trust["Condition"]["StringEquals"]["aws:SourceAccount"]


def test_it_is_asked_through_boto3(plan, aws):
    session = str(uuid.uuid4())
    with deployed(plan, aws, really=True, sleep=no_sleep) as agent:
        assert agent.invoke({"prompt": "Hé"}, session_id=session) == {"said": "Hé", "session": session}
        with pytest.raises(DeploymentFailed, match="no prompt"):
            agent.invoke({})


def test_two_deployments_of_one_plan_do_not_touch_each_other(plan, aws):
    with deployed(plan, aws, really=True, sleep=no_sleep) as first:
        with deployed(plan, aws, really=True, sleep=no_sleep):
            assert len(standing(aws)) == 6
        assert len(standing(aws)) == 3
        assert aws.control.get_agent_runtime(agentRuntimeId=first.runtime_id)["status"] == "READY"
    assert standing(aws) == []


def test_log_groups_that_the_runtime_was_given_go_with_it(plan, aws):
    with deployed(plan, aws, really=True, sleep=no_sleep) as agent:
        aws.logs.create_log_group(logGroupName=f"/aws/bedrock-agentcore/runtimes/{agent.runtime_id}-DEFAULT")
        aws.logs.create_log_group(logGroupName="/aws/bedrock-agentcore/runtimes/another-DEFAULT")
    assert standing(aws) == ["/aws/bedrock-agentcore/runtimes/another-DEFAULT"]
    aws.logs.delete_log_group(logGroupName="/aws/bedrock-agentcore/runtimes/another-DEFAULT")


def test_an_error_of_the_lesson_deletes_it_too(plan, aws):
    with pytest.raises(KeyboardInterrupt), deployed(plan, aws, really=True, sleep=no_sleep):
        raise KeyboardInterrupt
    assert standing(aws) == []


# --- half-way --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "operation"),
    [
        ("sts", "get_caller_identity"),
        ("s3", "create_bucket"),
        ("s3", "put_public_access_block"),
        ("s3", "put_object"),
        ("iam", "create_role"),
        ("iam", "put_role_policy"),
        ("control", "create_agent_runtime"),
        ("control", "get_agent_runtime"),
    ],
)
def test_a_failure_half_way_leaves_nothing_behind(plan, aws, service, operation):
    calls = []
    client = getattr(aws, service)

    def once(**given):
        calls.append(given)
        if len(calls) == 1:
            raise refused(operation)
        return getattr(client, operation)(**given)

    broken = with_(aws, **{service: Wrapped(client, operation, instead=once)})
    with pytest.raises(DeploymentFailed, match="undone"), deployed(plan, broken, really=True, sleep=no_sleep):
        pytest.fail("it may not stand")
    assert calls
    assert standing(aws) == []


def test_a_runtime_whose_creation_was_not_answered_is_found_and_deleted(plan, aws):
    def made_but_not_answered(**given):
        aws.control.create_agent_runtime(**given)
        raise EndpointConnectionError(endpoint_url="https://x")

    broken = with_(aws, control=Wrapped(aws.control, "create_agent_runtime", instead=made_but_not_answered))
    with pytest.raises(DeploymentFailed), deployed(plan, broken, really=True, sleep=no_sleep):
        pytest.fail("it may not stand")
    assert standing(aws) == []


def test_a_role_that_is_not_known_yet_is_waited_for(plan, aws):
    calls, slept = [], []

    def not_yet(**given):
        calls.append(given)
        if len(calls) < 3:
            raise refused("CreateAgentRuntime", "ValidationException", "Role validation failed for the role.")
        return aws.control.create_agent_runtime(**given)

    slow = with_(aws, control=Wrapped(aws.control, "create_agent_runtime", instead=not_yet))
    with deployed(plan, slow, really=True, sleep=slept.append) as agent:
        assert agent.runtime_id
    assert len(calls) == 3
    assert len(slept) == 2
    assert standing(aws) == []


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([{"status": "CREATING"}, {"status": "CREATE_FAILED", "failureReason": "no agent.py"}], "no agent.py"),
        ([{"status": "CREATING"}] * 1_000, "not ready after"),
    ],
)
def test_a_runtime_that_does_not_get_ready_is_undone(plan, aws, answers, said):
    told = iter(answers)

    def status(**given):
        found = aws.control.get_agent_runtime(**given)  # raises once it is deleted
        return {**found, **next(told)}

    slow = with_(aws, control=Wrapped(aws.control, "get_agent_runtime", instead=status))
    with (
        mock.patch("workshop_lib.deployment.READY_S", 20),
        pytest.raises(DeploymentFailed, match=said),
        deployed(plan, slow, really=True, sleep=no_sleep),
    ):
        pytest.fail("it may not stand")
    assert standing(aws) == []


def test_what_cannot_be_deleted_is_named_and_the_rest_is_deleted(plan, aws):
    stuck = with_(aws, iam=Wrapped(aws.iam, "delete_role", refused("DeleteRole")))
    with pytest.raises(LeftBehind, match="IAM role shop_agent-agentcore-") as raised:  # noqa: SIM117
        with deployed(plan, stuck, really=True, sleep=no_sleep):
            pass
    (role,) = standing(aws)
    assert role in raised.value.resources[0]
    aws.iam.delete_role(RoleName=role)


def test_the_request_has_the_shape_that_aws_documents(plan, aws):
    """boto3 holds every parameter against AWS's own description of the operation."""
    asked = []

    def noted(**given):
        asked.append(given)
        return aws.control.create_agent_runtime(**given)

    with deployed(
        plan,
        with_(aws, control=Wrapped(aws.control, "create_agent_runtime", instead=noted)),
        really=True,
        sleep=no_sleep,
    ):
        pass
    code = asked[0]["agentRuntimeArtifact"]["codeConfiguration"]
    assert code["entryPoint"] == ["agent.py"]
    assert code["code"]["s3"]["prefix"] == "agent.zip"
    assert json.dumps(asked[0])
