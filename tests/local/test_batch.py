"""Batch jobs and objects at the local door, as unmodified boto3 sees them."""

import contextlib
import io
import json
import time

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from workshop_lib.local import BUCKET, ROLE_ARN, BatchFaults
from workshop_lib.local import batch as local_batch
from workshop_lib.local.objects import Objects

NANO = "nvidia.nemotron-nano-3-30b"
FEW = 3


@pytest.fixture(scope="module")
def clients(_shared_endpoint):
    """S3 and Bedrock's control plane at the local door."""
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-west-2")
    config = Config(retries={"total_max_attempts": 1}, read_timeout=10, s3={"addressing_style": "path"})
    return tuple(session.client(name, endpoint_url=_shared_endpoint.url, config=config) for name in ("s3", "bedrock"))


@pytest.fixture
def s3(clients, endpoint):
    endpoint.batch.minimum = FEW
    return clients[0]


@pytest.fixture
def control(clients, endpoint):
    return clients[1]


def record(i, **fields):
    asked = {"messages": [{"role": "user", "content": [{"text": f"Ticket {i}: the export fails."}]}]}
    return {"recordId": f"R{i}", "modelInput": {**asked, "inferenceConfig": {"maxTokens": 200}, **fields}}


@pytest.fixture
def create(s3, control):
    """Upload records and make a job of them; its ARN."""

    def create(records=None, **fields):
        lines = "".join(json.dumps(one) + "\n" for one in records or [record(i) for i in range(5)])
        s3.put_object(Bucket=BUCKET, Key="in/tickets.jsonl", Body=lines.encode())
        request = {
            "jobName": "job",
            "roleArn": ROLE_ARN,
            "modelId": NANO,
            "modelInvocationType": "Converse",
            "inputDataConfig": {"s3InputDataConfig": {"s3Uri": f"s3://{BUCKET}/in/tickets.jsonl"}},
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"s3://{BUCKET}/out/"}},
        }
        return control.create_model_invocation_job(**{**request, **fields})["jobArn"]

    return create


@pytest.fixture
def ended(control):
    """Wait for a job; what the service says of it."""

    def ended(arn):
        until = time.monotonic() + 30
        while time.monotonic() < until:
            job = control.get_model_invocation_job(jobIdentifier=arn)
            if "endTime" in job:
                return job
            time.sleep(0.01)
        raise AssertionError("the job does not end")

    return ended


@pytest.fixture
def output(s3):
    """A job's output lines and its manifest."""

    def output(arn):
        folder = f"out/{arn.rsplit('/', 1)[-1]}"
        read = lambda name: s3.get_object(Bucket=BUCKET, Key=f"{folder}/{name}")["Body"].read()  # noqa: E731
        return read("tickets.jsonl.out").splitlines(), json.loads(read("manifest.json.out"))

    return output


def test_a_job_writes_a_line_a_record_and_a_manifest_of_its_counts(create, ended, output, endpoint, catalogue):
    arn = create([record(i) for i in range(20)])
    job = ended(arn)
    lines, manifest = output(arn)
    found = [json.loads(line) for line in lines]
    assert (job["status"], job["totalRecordCount"], job["successRecordCount"]) == ("Completed", 20, 20)
    assert sorted(one["recordId"] for one in found) == sorted(f"R{i}" for i in range(20))
    assert [one["recordId"] for one in found] != [f"R{i}" for i in range(20)]
    assert all(one["modelOutput"]["output"]["message"]["role"] == "assistant" for one in found)
    assert manifest["inputTokenCount"] == sum(one["modelOutput"]["usage"]["inputTokens"] for one in found)
    answered = [entry for entry in endpoint.journal if entry.operation == "Batch"]
    assert len(answered) == 20
    assert all(entry.cost_usd == catalogue["cheap"].cost(entry.usage, batch=True) for entry in answered)


def test_a_batch_is_not_throttled(create, ended, endpoint, catalogue):
    from workshop_lib.local import Quota

    endpoint.quotas.set(catalogue["cheap"].key, Quota(requests_per_minute=1, tokens_per_minute=1000))
    assert ended(create())["successRecordCount"] == 5


def test_a_record_with_a_tool_is_an_error_line(create, ended, output):
    form = {"json": {"type": "object", "properties": {}}}
    tool = {"tools": [{"toolSpec": {"name": "record", "inputSchema": form}}]}
    arn = create([record(0, toolConfig=tool), *(record(i) for i in range(1, 5))])
    assert ended(arn)["errorRecordCount"] == 1
    (refused,) = [one for one in map(json.loads, output(arn)[0]) if "error" in one]
    assert (refused["recordId"], refused["error"]["errorCode"]) == ("R0", 400)
    assert "toolConfig" in refused["error"]["errorMessage"]


def test_a_record_that_converse_would_refuse_is_an_error_line(create, ended, output):
    arn = create([record(0, messages=[]), record(1, inferenceConfig={"temperature": 7}), record(2), record(3)])
    ended(arn)
    assert {one["recordId"] for one in map(json.loads, output(arn)[0]) if "error" in one} == {"R0", "R1"}


def test_too_few_or_too_many_records_fail_after_the_job_was_made(create, ended, endpoint):
    job = ended(create([record(1)]))
    assert job["status"] == "Failed"
    assert "contains less records (1) than the required minimum of: 3" in job["message"]
    endpoint.batch.maximum = 4
    assert "more records" in ended(create())["message"]


def test_a_file_that_is_no_jsonl_of_records_fails(create, ended):
    assert "Line 2" in ended(create([record(0), {"recordId": "x"}, record(2)]))["message"]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("modelId", "acme.unknown-1", "model identifier is invalid"),
        ("roleArn", "arn:aws:iam::000000000000:role/nobody", "role/nobody"),
        ("roleArn", "nobody", "regular expression"),
        ("jobName", "two words", "regular expression"),
        ("outputDataConfig", {"s3OutputDataConfig": {"s3Uri": "s3://no-such-bucket/out/"}}, "no-such-bucket"),
    ],
)
def test_a_request_that_cannot_be_is_refused_at_once(create, field, value, said):
    with pytest.raises(ClientError, match=said) as caught:
        create(**{field: value})
    assert caught.value.response["Error"]["Code"] == "ValidationException"


def test_the_same_token_is_the_same_job(create, control):
    assert create(clientRequestToken="once") == create(clientRequestToken="once")
    assert len(control.list_model_invocation_jobs()["invocationJobSummaries"]) == 1


def test_jobs_are_listed_by_name_and_state(create, control, ended):
    ended(create(jobName="first"))
    arn = create(jobName="second")
    ended(arn)
    found = control.list_model_invocation_jobs(nameContains="sec", statusEquals="Completed", maxResults=5)
    assert [job["jobArn"] for job in found["invocationJobSummaries"]] == [arn]
    assert not control.list_model_invocation_jobs(statusEquals="Failed")["invocationJobSummaries"]


def test_jobs_may_be_made_while_others_are_looked_at(create, endpoint, monkeypatch):
    arns, shown = [create(), create()], local_batch._Job.shown

    def another(job):
        monkeypatch.setattr(local_batch._Job, "shown", shown)
        arns.append(create())
        return job.shown()

    monkeypatch.setattr(local_batch._Job, "shown", another)
    told = endpoint.batch.operation("ListModelInvocationJobs")({}, "us-west-2").result["invocationJobSummaries"]
    assert [job["jobArn"] for job in told] == arns[1::-1]


def test_a_job_can_be_stopped_and_an_ended_one_cannot(create, control, ended, endpoint):
    endpoint.time_scale = 10  # it waits for minutes to begin
    arn = create()
    assert control.get_model_invocation_job(jobIdentifier=arn)["status"] == "Submitted"
    control.stop_model_invocation_job(jobIdentifier=arn)
    assert ended(arn)["status"] == "Stopped"
    with pytest.raises(ClientError, match="cannot be stopped"):
        control.stop_model_invocation_job(jobIdentifier=arn)


def test_a_job_that_nobody_made_is_not_found(control):
    with pytest.raises(ClientError) as caught:
        control.get_model_invocation_job(
            jobIdentifier="arn:aws:bedrock:us-west-2:000000000000:model-invocation-job/abcdefghijkl"
        )
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_states_pass_in_order(create, control, endpoint):
    endpoint.time_scale = 0.002
    arn, seen = create(), []
    until = time.monotonic() + 30
    while (not seen or seen[-1] != "Completed") and time.monotonic() < until:
        status = control.get_model_invocation_job(jobIdentifier=arn)["status"]
        if not seen or seen[-1] != status:
            seen.append(status)
    order = ["Submitted", "Validating", "Scheduled", "InProgress", "Completed"]
    assert seen == [state for state in order if state in seen]
    assert len(seen) > 2


@pytest.mark.parametrize("state", ["Expired", "Stopped", "PartiallyCompleted", "Failed"])
def test_a_job_can_be_made_to_end_early(create, ended, output, endpoint, state):
    endpoint.batch.end_next(state, after=0.4)
    arn = create()
    assert ended(arn)["status"] == state
    assert len(output(arn)[0]) == 2
    assert ended(create())["status"] == "Completed"


def test_a_kind_of_end_that_does_not_exist_is_refused(endpoint):
    with pytest.raises(ValueError, match="not as 'Lost'"):
        endpoint.batch.end_next("Lost")


def test_faults_strike_the_share_that_was_asked_for(create, ended, output, endpoint):
    endpoint.batch.faults = BatchFaults(malformed=0.2, missing=0.2, doubled=0.2, error=0.2, no_output=0.2)
    arn = create([record(i) for i in range(60)])
    ended(arn)
    lines, manifest = output(arn)
    whole = []
    for line in lines:
        with contextlib.suppress(ValueError):
            whole.append(json.loads(line))
    errors = sum("error" in one for one in whole)
    empty = sum("error" not in one and "modelOutput" not in one for one in whole)
    answered = [one["recordId"] for one in whole if "modelOutput" in one]
    assert len(lines) > len(whole)
    assert min(errors, empty) > 0
    assert len(answered) == 2 * len(set(answered)) > 0
    assert manifest["errorRecordCount"] == errors
    assert (
        manifest["inputTokenCount"]
        > sum(one["modelOutput"]["usage"]["inputTokens"] for one in whole if "modelOutput" in one) / 2
    )


def test_a_schema_in_the_prompt_is_filled_in_as_text(create, ended, output):
    form = {"type": "object", "properties": {"mood": {"enum": ["calm", "angry"]}}, "required": ["mood"]}
    arn = create([record(i, system=[{"text": f"Answer in JSON. JSON Schema: {json.dumps(form)}"}]) for i in range(5)])
    ended(arn)
    for one in map(json.loads, output(arn)[0]):
        assert json.loads(one["modelOutput"]["output"]["message"]["content"][0]["text"])["mood"] in ("calm", "angry")


def test_objects_are_put_read_listed_and_deleted(s3):
    for name in ("a/1", "a/2 \u00fc&<", "b/1"):
        s3.put_object(Bucket=BUCKET, Key=name, Body=name.encode())
    assert s3.get_object(Bucket=BUCKET, Key="a/2 \u00fc&<")["Body"].read() == "a/2 \u00fc&<".encode()
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="a/", PaginationConfig={"PageSize": 1})
    assert [one["Key"] for page in pages for one in page["Contents"]] == ["a/1", "a/2 \u00fc&<"]
    s3.delete_object(Bucket=BUCKET, Key="a/1")
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket=BUCKET, Key="a/1")
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket=BUCKET, Key="a/1")
    with pytest.raises(s3.exceptions.NoSuchBucket):
        s3.put_object(Bucket="nowhere", Key="a", Body=b"")


def test_a_bucket_can_be_made(s3):
    with pytest.raises(ClientError):
        s3.head_bucket(Bucket="mine")
    s3.create_bucket(Bucket="mine", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    s3.head_bucket(Bucket="mine")


def test_an_upload_in_parts_is_put_together(s3):
    body = bytes(range(256)) * 40_000
    s3.upload_fileobj(io.BytesIO(body), BUCKET, "large")
    assert s3.head_object(Bucket=BUCKET, Key="large")["ContentLength"] == len(body)
    back = io.BytesIO()
    s3.download_fileobj(BUCKET, "large", back)
    assert back.getvalue() == body


def test_what_is_changed_is_changed_under_the_lock_of_those_who_list():
    class Watched(dict):
        def pop(self, *given):
            assert objects._lock.locked()
            return super().pop(*given)

    objects = Objects()
    objects._buckets["b"], objects._uploads = Watched(k=None), Watched(u={1: b"one"}, v={})
    assert objects.answer("DELETE", "/b/k", {}, {}, b"").status == 204
    assert objects.answer("DELETE", "/b/k", {"uploadId": "v"}, {}, b"").status == 204
    assert objects.answer("POST", "/b/k", {"uploadId": "u"}, {}, b"").status == 200
    assert (objects.keys("b"), objects.get("b", "k"), objects._uploads) == (["k"], b"one", {})


def test_a_body_that_is_not_what_was_announced_is_not_kept(s3, send):
    for checksum in (
        {"ChecksumSHA256": "A" * 43 + "="},
        {"ChecksumCRC32": "AAAAAA=="},
        {"ContentMD5": "A" * 22 + "=="},
    ):
        with pytest.raises(ClientError, match="BadDigest"):
            s3.put_object(Bucket=BUCKET, Key="k", Body=b"one", **checksum)
    signed = {"authorization": "AWS4-HMAC-SHA256 Credential=k/20260101/us-west-2/s3/aws4_request"}
    headers = {**signed, "content-encoding": "aws-chunked", "x-amz-decoded-content-length": "9"}
    assert b"IncompleteBody" in send("PUT", f"/{BUCKET}/k", b"3;x=y\r\nabc\r\n0\r\n\r\n", **headers).body
    assert (
        send("PUT", f"/{BUCKET}/k", b"3\r\nabc\r\n0\r\n\r\n", **{**headers, "x-amz-decoded-content-length": "3"}).status
        == 200
    )
    assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"abc"


def test_what_s3_has_beyond_that_is_not_offered(s3):
    with pytest.raises(ClientError, match="NotImplemented"):
        s3.get_bucket_acl(Bucket=BUCKET)
