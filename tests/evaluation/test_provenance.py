"""What a recorded run belongs to, and whether its file is whole."""

import json
from dataclasses import replace

import pytest

from workshop_lib import Tier, load_tickets
from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.evaluation import Provenance, Recording, RecordingError, record
from workshop_lib.triage.task import TRIAGE

TIERS = [Tier("cheap"), Tier("strong")]


@pytest.fixture(scope="module")
def tickets():
    return load_tickets("workshop", limit=4)


@pytest.fixture
def recording(bedrock, tickets, labels, tmp_path):
    return record(tickets, labels, TIERS, client=bedrock, store=tmp_path / "answers")


@pytest.fixture
def file(recording, tmp_path):
    recording.save(tmp_path / "run.jsonl")
    return tmp_path / "run.jsonl"


def now(bedrock, tickets, labels, *, tiers=TIERS, door=None, task=TRIAGE, catalogue=None):
    return Provenance.of(
        tickets, labels, tiers, catalogue=catalogue or bedrock.catalogue, door=door or bedrock.door, task=task
    )


def test_what_is_saved_is_read_back(recording, file):
    assert Recording.load(file) == recording


def test_the_same_run_differs_in_nothing(recording, bedrock, tickets, labels):
    assert recording.check(now(bedrock, tickets, labels)) == ()


def test_a_changed_prompt_is_refused_by_name(recording, bedrock, tickets, labels):
    changed = replace(TRIAGE, system=TRIAGE.system + " Be brief.")
    with pytest.raises(RecordingError, match="something else: prompt: then"):
        recording.check(now(bedrock, tickets, labels, task=changed))


def test_another_door_is_refused_by_name(recording, bedrock, tickets, labels):
    with pytest.raises(RecordingError, match=r"door: then .*local.* now .*live"):
        recording.check(now(bedrock, tickets, labels, door={"mode": "live", "region": "us-west-2"}))


def test_other_small_models_behind_the_same_door_are_another_door(recording, bedrock, tickets, labels):
    with pytest.raises(RecordingError, match="stand_ins"):
        recording.check(now(bedrock, tickets, labels, door={**bedrock.door, "stand_ins": "recipe 0"}))


def test_another_model_behind_a_tier_is_refused_by_name(recording, bedrock, tickets, labels):
    with pytest.raises(RecordingError, match="tiers: then"):
        recording.check(now(bedrock, tickets, labels, catalogue=Catalogue.load(pair="haiku-sonnet")))


def test_other_settings_of_a_tier_are_refused_by_name(recording, bedrock, tickets, labels):
    with pytest.raises(RecordingError, match="temperature"):
        recording.check(now(bedrock, tickets, labels, tiers=[Tier("cheap", temperature=1.0), Tier("strong")]))


def test_a_changed_ticket_is_refused_by_name(recording, bedrock, tickets, labels):
    edited = [tickets[0].model_copy(update={"body": "Another text."}), *tickets[1:]]
    with pytest.raises(RecordingError, match="tickets: then"):
        recording.check(now(bedrock, edited, labels))


def test_every_part_that_differs_is_named_at_once(recording, bedrock, tickets, labels):
    with pytest.raises(RecordingError, match=r"door: .*tickets: .*count: "):
        recording.check(now(bedrock, tickets[:2], labels, door={"mode": "live"}))


def test_fewer_tiers_than_were_recorded_do_no_harm(recording, bedrock, tickets, labels):
    assert recording.check(now(bedrock, tickets, labels, tiers=[Tier("cheap")])) == ()


def test_a_changed_key_is_noted_and_not_refused(recording, bedrock, tickets, labels):
    label = labels[tickets[0].id]
    changed = {**labels, tickets[0].id: replace(label, needs_human=not label.needs_human)}
    assert recording.check(now(bedrock, tickets, changed))[0].startswith("labels: then")


def test_another_library_version_is_written_down_and_not_refused(recording, bedrock, tickets, labels):
    current = now(bedrock, tickets, labels)
    assert {"python", "boto3", "numpy"} <= current.libraries.keys()
    assert recording.check(replace(current, libraries={"boto3": "2.0"})) == ()


def test_a_file_that_was_cut_short_is_refused(file):
    file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:-2]), encoding="utf-8")
    with pytest.raises(RecordingError, match="cut short: 6 rows of 8"):
        Recording.load(file)


def test_a_file_with_a_changed_answer_is_refused(file):
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"escalated":false', '"escalated":true', 1), encoding="utf-8")
    with pytest.raises(RecordingError, match="was changed"):
        Recording.load(file)


def test_a_file_of_another_form_is_refused(file):
    head, *rows = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([json.dumps({**json.loads(head), "form": "recorded-run-0"}), *rows]), encoding="utf-8")
    with pytest.raises(RecordingError, match="recorded-run-0"):
        Recording.load(file)


@pytest.mark.parametrize("text", ["", "[]\n", "not json\n", '{"form": "recorded-run-1"}\n'])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "x.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(RecordingError, match="no recorded run"):
        Recording.load(tmp_path / "x.jsonl")


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(RecordingError, match="There is no recorded run"):
        Recording.load(tmp_path / "x.jsonl")


def test_a_recorded_failure_is_the_same_failure_when_read_back(bedrock, tickets, labels, tmp_path, endpoint):
    from workshop_lib.bedrock.errors import AccessDenied
    from workshop_lib.local.faults import Fault

    endpoint.faults.add(Fault("AccessDeniedException", at=frozenset({1})))
    record(tickets, labels, [Tier("cheap")], client=bedrock, store=tmp_path).save(tmp_path / "run.jsonl")
    answers = Recording.load(tmp_path / "run.jsonl").answers()
    errors = [a["cheap"].error for a in answers.values() if a["cheap"].error is not None]
    assert [type(e) for e in errors] == [AccessDenied]


def test_a_text_with_any_of_unicodes_line_ends_survives_a_file(recording, tmp_path):
    first = recording.rows[0]
    odd = first.model_copy(update={"decision": {**first.decision, "reasoning": "one\u2028two\x85three"}})
    path = tmp_path / "odd.jsonl"
    replace(recording, rows=(odd, *recording.rows[1:])).save(path)
    assert Recording.load(path).rows[0] == odd
