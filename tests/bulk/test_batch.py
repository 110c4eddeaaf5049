"""A cascade as batch jobs: every ticket accounted for, nothing submitted or paid twice, whatever is killed, broken or cut off."""

import itertools
import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from workshop_lib import (
    TRIAGE,
    Bedrock,
    Cascade,
    ConfigurationError,
    Settings,
    Ticket,
    Tier,
    Usage,
    always,
    load_tickets,
    never,
    rule,
    run_bulk,
    stakes,
)
from workshop_lib.bedrock.errors import BedrockError
from workshop_lib.bulk import AsText, BatchFailed, BatchJobs, Store, StoreMismatch, run_batch, to_frame
from workshop_lib.bulk.records import readable, unread
from workshop_lib.cascade.cascade import Route
from workshop_lib.local import BUCKET, ROLE_ARN, BatchFaults, Fault

TICKETS = load_tickets("workshop")[:12]
FEW = 3
BROKEN = BatchFaults(malformed=0.45, missing=0.1, doubled=0.065, error=0.035, no_output=0.05)


@pytest.fixture(scope="module")
def _shared_jobs(_shared_endpoint, catalogue):
    client = Bedrock(Settings(endpoint_url=_shared_endpoint.url), catalogue)
    return BatchJobs.of(client, bucket=BUCKET, role_arn=ROLE_ARN, minimum=FEW)


@pytest.fixture
def jobs(_shared_jobs, endpoint):
    """Jobs of three records or more at the local door."""
    endpoint.batch.minimum = FEW
    return _shared_jobs


@pytest.fixture
def batch(cascade, jobs, tmp_path):
    """`run_batch` with what all tests give it."""

    def batch(tickets=TICKETS, *, cascade=cascade, jobs=jobs, store=tmp_path / "run.db", **settings):
        return run_batch(cascade, tickets, jobs=jobs, store=store, **{"poll_s": 0.01, **settings})

    return batch


def finals(rows):
    found = {row.ticket_id: row for row in rows if row.final}
    assert len(found) == sum(row.final for row in rows)
    return found


def decisions(rows):
    return {(row.ticket_id, row.tier): row.decision for row in rows}


def submitted(endpoint):
    """Records in all jobs that were made, by job."""
    told = endpoint.batch.operation("ListModelInvocationJobs")({}, "us-west-2").result["invocationJobSummaries"]
    return [job.get("totalRecordCount", 0) for job in told]


def asked(endpoint, operation="Batch"):
    return sum(entry.operation == operation for entry in endpoint.journal)


class Killed(BaseException):
    """Ends a driver as nothing else would."""


def kill(*_):
    raise Killed


class Cut:
    """A boto3 client that dies around one of its operations."""

    def __init__(self, client, operation, *, after):
        self._client, self._operation, self._after = client, operation, after

    def __getattr__(self, name):
        found = getattr(self._client, name)
        if name != self._operation:
            return found

        def call(**given):
            if self._after:
                found(**given)
            raise Killed

        return call


def test_every_ticket_has_one_final_row_and_costs_add_up_to_the_journals(batch, endpoint, tmp_path):
    run = batch()
    rows = list(run)
    assert finals(rows).keys() == {ticket.id for ticket in TICKETS}
    assert run.cost_usd == pytest.approx(sum(row.cost_usd for row in rows)) == pytest.approx(endpoint.journal.cost_usd)
    with Store(tmp_path / "run.db") as store:
        assert list(store) == rows
        assert len(to_frame(store)) == len(rows)


def test_decisions_are_those_of_a_bulk_run_that_asks_the_same(batch, cascade, bedrock):
    rows = list(batch())
    assert decisions(rows) == decisions(run_bulk(cascade.using(AsText(bedrock)), TICKETS))


def test_asked_with_a_tool_only_confidence_and_reasons_differ(batch, cascade):
    fields = ("category", "priority", "needs_human")
    as_text, with_tool = (
        {key: [said[name] for name in fields] for key, said in decisions(rows).items()}
        for rows in (batch(), run_bulk(cascade, TICKETS))
    )
    assert as_text == with_tool


def test_a_batch_price_is_applied_only_where_one_is_listed(batch, catalogue):
    run = batch()
    for row in run:
        spec = catalogue[row.tier]
        assert row.cost_usd == pytest.approx(spec.cost(row.usage, batch=row.tier == "cheap"))
    assert [(phase.tier, phase.price) for phase in run.phases] == [("cheap", "batch"), ("strong", "on demand")]
    assert "no batch price is listed" in run.plan


def test_lines_that_are_broken_missing_doubled_or_out_of_order_are_all_accounted_for(batch, endpoint):
    endpoint.batch.faults = BROKEN
    run = batch()
    rows = list(run)
    first, second = run.phases[:2]
    assert finals(rows).keys() == {ticket.id for ticket in TICKETS}
    assert {row.error.type for row in rows if row.decision is None} <= {"NoAnswer"}  # broken twice
    assert first.answered + first.refused + first.lost == first.records == len(TICKETS)
    assert min(first.refused, first.lost, first.unreadable, first.doubled) > 0
    assert second.records == first.refused + first.lost
    assert run.cost_usd == pytest.approx(endpoint.journal.cost_usd)
    assert sum(phase.cost_usd for phase in run.phases) == pytest.approx(run.cost_usd)


def test_an_unusable_answer_gets_its_repair_turn_in_a_second_job(batch, bedrock, endpoint):
    endpoint.faults.add(Fault("invalid_output", first=FEW))
    run = batch(cascade=Cascade([Tier("cheap")], client=bedrock))
    rows = list(run)
    assert [phase.records for phase in run.phases] == [len(TICKETS), FEW]
    assert Counter(row.attempts for row in rows) == {1: len(TICKETS) - FEW, 2: FEW}
    assert all(row.decision for row in rows)


def test_too_few_for_a_job_are_asked_on_demand_from_where_they_stand(batch, bedrock, endpoint):
    endpoint.faults.add(Fault("invalid_output", first=FEW - 1))
    run = batch(cascade=Cascade([Tier("cheap")], client=bedrock))
    rows = list(run)
    assert [phase.state for phase in run.phases] == ["Completed", "on demand"]
    assert asked(endpoint, "Converse") == FEW - 1
    assert all(row.decision for row in rows)
    assert run.cost_usd == pytest.approx(endpoint.journal.cost_usd)


def test_too_few_for_a_job_are_error_rows_where_nothing_is_asked_on_demand(batch, endpoint):
    rows = list(batch(TICKETS[: FEW - 1], on_demand=False))
    assert [(row.status, row.error.type) for row in rows if row.final] == [("failed", "NoAnswer")] * (FEW - 1)
    assert len(endpoint.journal) == 0


def test_what_is_lost_twice_is_asked_on_demand_or_is_an_error(batch, endpoint, bedrock, tmp_path):
    endpoint.batch.faults = BatchFaults(missing=1)
    run = batch(cascade=Cascade([Tier("cheap")], client=bedrock))
    rows = list(run)
    assert [phase.records for phase in run.phases] == [len(TICKETS)] * 2
    assert {row.error.type for row in rows} == {"NoAnswer"}
    assert run.cost_usd > 0
    assert run.cost_usd == pytest.approx(endpoint.journal.cost_usd)


def test_a_driver_killed_while_it_waits_finds_its_job_again_by_arn(batch, endpoint, cascade):
    endpoint.time_scale = 0.001  # long enough for the first look to come too early
    with pytest.raises(Killed):
        list(batch(sleep=kill))
    run = batch()
    (arn,) = [phase.job_arn for phase in run.phases]
    rows = list(run)
    assert run.phases[0].job_arn == arn
    assert len(finals(rows)) == len(TICKETS)
    assert submitted(endpoint)[-1:] == [len(TICKETS)]
    assert asked(endpoint) == sum(phase.records for phase in run.phases)


@pytest.mark.parametrize("after", [True, False], ids=["made", "not made"])
def test_a_driver_killed_before_it_could_note_the_arn_makes_no_second_job(batch, jobs, endpoint, after):
    with pytest.raises(Killed):
        list(batch(jobs=replace(jobs, bedrock=Cut(jobs.bedrock, "create_model_invocation_job", after=after))))
    rows = list(batch())
    assert len(finals(rows)) == len(TICKETS)
    assert submitted(endpoint).count(len(TICKETS)) == 1
    assert asked(endpoint) == len(rows)


def test_another_prefix_and_bucket_at_a_restart_pay_for_nothing_twice(batch, jobs, endpoint):
    with pytest.raises(Killed):
        list(batch(jobs=replace(jobs, bedrock=Cut(jobs.bedrock, "create_model_invocation_job", after=True))))
    endpoint.objects.make_bucket("other")
    rows = list(batch(jobs=replace(jobs, prefix="other", bucket="other")))
    assert len(finals(rows)) == len(TICKETS)
    assert submitted(endpoint).count(len(TICKETS)) == 1
    assert asked(endpoint) == len(rows)


def test_a_reader_who_leaves_loses_no_answer_that_was_asked_on_demand(batch, bedrock, jobs, endpoint, tmp_path):
    run = batch(cascade=Cascade([Tier("cheap")], client=bedrock), jobs=replace(jobs, minimum=100), workers=6)
    assert len(list(itertools.islice(run, 1))) == 1
    with Store(tmp_path / "run.db") as store:
        assert len(store) == len(endpoint.journal) == run.phases[0].answered
    assert run.phases[0].cost_usd == pytest.approx(endpoint.journal.cost_usd)


def test_a_driver_killed_between_two_rows_pays_for_nothing_twice(batch, endpoint):
    endpoint.batch.faults = BROKEN
    seen = list(itertools.islice(batch(), 5))
    run = batch()
    rows = seen + list(run)
    assert len(finals(rows)) == len(TICKETS)
    assert sum(row.cost_usd for row in rows) == pytest.approx(endpoint.journal.cost_usd)
    assert len({(row.ticket_id, row.tier) for row in rows}) == len(rows)


def test_a_finished_run_is_not_run_again(batch, endpoint):
    list(batch())
    paid = endpoint.journal.cost_usd
    run = batch()
    assert list(run) == []
    assert run.skipped == len(TICKETS)
    assert endpoint.journal.cost_usd == paid


@pytest.mark.parametrize("state", ["Expired", "Stopped", "PartiallyCompleted", "Failed"])
def test_a_job_that_ends_early_keeps_its_output_and_the_rest_is_put_into_another(batch, bedrock, endpoint, state):
    endpoint.batch.end_next(state, after=0.4)
    run = batch(cascade=Cascade([Tier("cheap")], client=bedrock))
    rows = list(run)
    assert [(p.state, p.records, p.answered) for p in run.phases] == [(state, 12, 4), ("Completed", 8, 8)]
    assert all(row.decision for row in rows)
    assert run.cost_usd == pytest.approx(endpoint.journal.cost_usd)
    assert asked(endpoint) == len(TICKETS)


def test_a_job_that_expires_before_it_began_is_submitted_again_with_the_same_input(batch, bedrock, endpoint):
    endpoint.batch.end_next("Expired", after=0)
    run = batch(cascade=Cascade([Tier("cheap")], client=bedrock))
    assert all(row.decision for row in run)
    assert [phase.records for phase in run.phases] == [len(TICKETS)] * 2
    assert len({phase.job_arn for phase in run.phases}) == 2


def test_a_job_that_failed_says_why_and_is_made_anew_by_the_next_run(batch, endpoint):
    endpoint.batch.minimum = 100
    with pytest.raises(BatchFailed, match=r"contains less records \(12\) than the required minimum of: 100") as caught:
        list(batch())
    assert "run the same call again" in caught.value.advice
    endpoint.batch.minimum = FEW
    run = batch()
    assert len(finals(list(run))) == len(TICKETS)
    assert [phase.state for phase in run.phases][:2] == ["Failed", "Completed"]


def test_a_job_whose_records_are_all_refused_sends_nothing_up(batch, endpoint):
    endpoint.faults.add(Fault("ValidationException", message="outputConfig is not supported."))
    with pytest.raises(BatchFailed, match=r"all 12 records were refused: .*outputConfig is not supported"):
        list(batch())
    assert submitted(endpoint) == [len(TICKETS)]


def test_an_upload_that_was_cut_off_is_made_again_before_there_is_a_job(batch, jobs, endpoint):
    with pytest.raises(Killed):
        list(batch(jobs=replace(jobs, s3=Cut(jobs.s3, "put_object", after=False))))
    assert submitted(endpoint) == []
    with pytest.raises(Killed):
        list(batch(jobs=replace(jobs, bedrock=Cut(jobs.bedrock, "create_model_invocation_job", after=False))))
    (key,) = endpoint.objects.keys(BUCKET, "batch/in/")
    whole = endpoint.objects.get(BUCKET, key)
    endpoint.objects.put(BUCKET, key, whole[: len(whole) // 2])  # as a tool without checksums might have left it
    assert len(finals(list(batch()))) == len(TICKETS)
    assert endpoint.objects.get(BUCKET, key) == whole


def test_an_upload_that_does_not_arrive_whole_becomes_no_job(batch, jobs, endpoint):
    class Half:
        meta, head_object = jobs.s3.meta, jobs.s3.head_object

        def put_object(self, **given):
            jobs.s3.put_object(Bucket=given["Bucket"], Key=given["Key"], Body=given["Body"].read(100))

    with pytest.raises(BatchFailed, match="did not arrive whole"):
        list(batch(jobs=replace(jobs, s3=Half())))
    assert submitted(endpoint) == []


def test_a_role_or_a_bucket_that_cannot_be_used_is_told_by_name(batch, jobs):
    with pytest.raises(BedrockError, match="role/nobody"):
        list(batch(jobs=replace(jobs, role_arn="arn:aws:iam::000000000000:role/nobody")))
    with pytest.raises(BatchFailed, match="no-such-bucket"):
        list(batch(jobs=replace(jobs, bucket="no-such-bucket")))


def test_three_tiers_are_three_phases_and_flags_stay_raised(batch, bedrock):
    tiers = [Tier("cheap"), Tier("middle"), Tier("strong")]
    run = batch(cascade=Cascade(tiers, escalate_when=stakes(), client=bedrock))
    rows = list(run)
    assert [phase.tier for phase in run.phases] == ["cheap", "middle", "strong"]
    assert all(row.decision for row in rows)
    raised = {row.ticket_id for row in rows if row.decision["needs_human"]}
    assert {key for key, row in finals(rows).items() if row.decision["needs_human"]} == raised


def test_a_route_decides_which_job_a_ticket_is_in(batch, bedrock):
    odd = {ticket.id for ticket in TICKETS[1::5]}
    route = lambda ticket: Route(("strong",), "odd") if ticket.id in odd else Route(("cheap",))  # noqa: E731
    run = batch(cascade=Cascade([Tier("cheap"), Tier("strong")], escalate_when=always(), route=route, client=bedrock))
    rows = list(run)
    assert {row.ticket_id for row in rows if row.tier == "strong"} == odd
    assert [phase.records for phase in run.phases] == [9, 3]
    assert all(row.escalated == (row.ticket_id in odd) for row in rows)


def test_too_many_for_one_job_become_several_of_equal_size(batch, bedrock, jobs, endpoint):
    run = batch(cascade=Cascade([Tier("cheap")], client=bedrock), jobs=replace(jobs, maximum=5, at_once=2))
    assert len(finals(list(run))) == len(TICKETS)
    assert [phase.records for phase in run.phases] == [4, 4, 4]


def test_where_the_account_has_as_many_jobs_as_it_may_the_next_one_waits_for_its_turn(batch, bedrock, jobs, endpoint):
    class Full:
        def __init__(self):
            self.calls = 0

        def __getattr__(self, name):
            return getattr(jobs.bedrock, name)

        def create_model_invocation_job(self, **given):
            self.calls += 1
            if self.calls % 2 == 0:
                told = {"Error": {"Code": "ServiceQuotaExceededException", "Message": "Too many jobs."}}
                raise ClientError(told, "CreateModelInvocationJob")
            return jobs.bedrock.create_model_invocation_job(**given)

    run = batch(cascade=Cascade([Tier("cheap")], client=bedrock), jobs=replace(jobs, maximum=5, bedrock=Full()))
    assert len(finals(list(run))) == len(TICKETS)
    assert [(phase.state, phase.records) for phase in run.phases] == [("Completed", 4)] * 3
    assert asked(endpoint) == len(TICKETS)
    assert [phase.records for phase in batch(cascade=Cascade([Tier("cheap")], client=bedrock)).phases] == [4] * 3


def test_records_are_split_by_bytes_as_well(jobs):
    assert replace(jobs, max_bytes=100).split([10] * 30) == [10, 10, 10]
    with pytest.raises(ConfigurationError, match="do not fit"):
        replace(jobs, max_bytes=100).split([90] * 30)


def test_nothing_is_made_on_aws_without_really(batch, jobs, endpoint, tmp_path):
    away = SimpleNamespace(meta=SimpleNamespace(endpoint_url="https://s3.us-west-2.amazonaws.com"))
    run = batch(jobs=replace(jobs, s3=away))
    assert BUCKET in run.plan
    assert ROLE_ARN in run.plan
    with pytest.raises(ConfigurationError, match="Nothing was submitted") as caught:
        list(run)
    assert "really=True" in caught.value.advice
    assert len(endpoint.journal) == 0


def test_the_plan_is_never_below_what_is_paid(batch):
    run = batch()
    at_most = float(run.plan.split("USD ")[1].split()[0])
    list(run)
    assert run.cost_usd <= at_most


def test_a_ticket_with_another_text_than_the_submitted_one_is_refused(batch, endpoint):
    endpoint.time_scale = 0.001
    with pytest.raises(Killed):
        list(batch(sleep=kill))
    changed = [TICKETS[0].model_copy(update={"body": "Something else."}), *TICKETS[1:]]
    with pytest.raises(StoreMismatch, match=TICKETS[0].id):
        list(batch(changed))


def test_a_bulk_run_that_asks_for_text_goes_on_from_the_store_of_a_batch(batch, cascade, bedrock, tmp_path, endpoint):
    list(batch(TICKETS[:6]))
    run = run_bulk(cascade.using(AsText(bedrock)), TICKETS, store=tmp_path / "run.db")
    list(run)
    assert (run.skipped, run.tickets) == (6, 6)
    with pytest.raises(StoreMismatch, match="form"):
        run_bulk(cascade, TICKETS, store=tmp_path / "run.db")


def test_a_rule_that_looks_at_the_ticket_sees_it(batch, bedrock):
    long = rule(lambda attempt: len(attempt.item.body) > 400)
    rows = list(batch(cascade=Cascade([Tier("cheap"), Tier("strong")], escalate_when=long, client=bedrock)))
    assert {r.ticket_id for r in rows if r.tier == "strong"} == {t.id for t in TICKETS if len(t.body) > 400}


def test_what_a_batch_cannot_do_is_refused_before_anything_is_made(batch, bedrock):
    with pytest.raises(ValueError, match="vote"):
        batch(cascade=Cascade([Tier("cheap", votes=3, temperature=1.0)], client=bedrock))
    with pytest.raises(ConfigurationError, match="occurs twice"):
        batch([*TICKETS, TICKETS[0]])
    with pytest.raises(ConfigurationError, match="cannot build the records"):
        batch(cascade=Cascade([Tier("cheap")], client=SimpleNamespace(converse=never)))


def test_a_record_holds_the_ticket_untouched_and_no_tool(batch, endpoint):
    odd = Ticket(id="T-\u2028 \u00fc/1", subject="\u00dcber", body="line one\u2028line two\r\nline three \U0001f600")
    rows = list(batch([odd, *TICKETS]))
    assert odd.id in finals(rows)
    key = endpoint.objects.keys(BUCKET, "batch/in/")[0]
    records = [
        json.loads(line)
        for key in endpoint.objects.keys(BUCKET, "batch/in/")
        for line in endpoint.objects.get(BUCKET, key).split(b"\n")
        if line
    ]
    mine = next(record for record in records if record["recordId"] == odd.id)
    assert odd.body in mine["modelInput"]["messages"][0]["content"][0]["text"]
    assert all("toolConfig" not in record["modelInput"] and "modelId" not in record["modelInput"] for record in records)
    assert key.endswith(".jsonl")


def test_the_form_is_structured_output_where_the_catalogue_lists_it_and_else_in_the_prompt(bedrock):
    tool = TRIAGE.tool
    listed, other = (
        AsText(bedrock).request(model, "hello", system="Triage.", tool=tool) for model in ("cheap", "middle")
    )
    (form,) = listed["outputConfig"]["textFormat"]["structure"].values()
    schema = json.loads(form["schema"])
    assert (form["name"], schema["additionalProperties"]) == (tool.name, False)
    assert schema["properties"].keys() == tool.schema["properties"].keys()
    assert not {"minimum", "maximum", "maxLength"} & set(form["schema"].replace('"', " ").split())
    assert "outputConfig" not in other
    assert json.dumps(tool.schema) in other["system"][0]["text"]
    assert not any("toolConfig" in request for request in (listed, other))


def test_without_a_tool_nothing_is_added(bedrock):
    blocks = [{"text": "Be brief."}]
    assert AsText(bedrock).request("cheap", "hello", system=blocks) == bedrock.request("cheap", "hello", system=blocks)
    assert len(AsText(bedrock).request("cheap", "hello", system=blocks, tool=TRIAGE.tool)["system"]) == 2


def test_a_line_that_says_nothing_is_not_read():
    answer = {"output": {"message": {"role": "assistant", "content": [{"text": "{}"}]}}, "usage": {"inputTokens": 0}}
    said = {"recordId": "a", "modelOutput": answer}  # a guardrail's answer counts no tokens
    assert readable(json.dumps({**said, "modelInput": {"messages": ["long"]}}).encode()) == said
    for broken in (
        {},
        {"output": None},
        {**answer, "usage": None},
        {**answer, "usage": {"inputTokens": "many"}},
        "text",
    ):
        assert readable(json.dumps({"recordId": "a", "modelOutput": broken}).encode()) == {}
    for raw in (b"", b"[1]", b"{", b'{"recordId": "a"}', b'{"recordId": "a", "error": 5}', b"[" * 100_000):
        assert readable(raw) == {}


def test_tokens_that_no_line_shows_are_shared_out_to_the_last_one():
    shares = unread({"inputTokenCount": 110, "outputTokenCount": 7}, Usage(input_tokens=10, output_tokens=2), 3)
    assert sum(shares, Usage()) == Usage(input_tokens=100, output_tokens=5)
    assert unread({}, Usage(input_tokens=10), 2) == [Usage(), Usage()]
