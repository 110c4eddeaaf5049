"""Lab 10's checks: each way of getting a bound, a join or a choice wrong is told apart, and the right ones pass; the fence holds."""

import json

import pytest

from tests.lessons.exercises import holds_for
from workshop_lib import Cascade, Settings, Tier, load_tickets, stakes
from workshop_lib.bulk import BatchJobs, run_batch
from workshop_lib.lessons import check, lab10
from workshop_lib.lessons.lab10 import Case
from workshop_lib.operations.capacity import Traffic
from workshop_lib.operations.scale import scale_plan
from workshop_lib.workshop import Workshop


def paid_again(died, threads, partition, disk_lost):
    return died * (partition if disk_lost else min(threads, partition))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda died, threads, partition, disk_lost: died * partition, "more than can be"),
        (lambda died, threads, partition, disk_lost: died * threads, "does not keep 8 threads busy"),
        (lambda died, threads, partition, disk_lost: min(threads, partition), "three workers died"),
        (lambda died, threads, partition, disk_lost: died * min(threads, partition), "lost with the worker's disk"),
        (lambda died, threads, partition, disk_lost: "eight", "give a number"),
    ],
)
def test_10_1_names_what_is_counted_wrongly(wrong, said):
    assert said in check("10.1", wrong).text


def join(lines, asked):
    answers = {}
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if said["recordId"] in asked and "modelOutput" in said:
            answers.setdefault(said["recordId"], said["modelOutput"])
    return answers, [i for i in asked if i not in answers]


def said_in(lines):
    """Lines that are whole, by id; of several, the last."""
    whole = [json.loads(line) for line in lines if line.endswith("}")]
    return {said["recordId"]: said for said in whole}


def by_position(lines, asked):
    usable = [json.loads(line)["modelOutput"] for line in lines if "modelOutput" in line]
    answers = dict(zip(asked, usable, strict=False))
    return answers, [i for i in asked if i not in answers]


def from_what_came(lines, asked):
    said = said_in(lines)
    return {i: s["modelOutput"] for i, s in said.items() if "modelOutput" in s and i in asked}, [
        i for i, s in said.items() if "modelOutput" not in s
    ]


def last_of_two(lines, asked):
    answers, again = join(list(reversed(lines)), asked)
    return answers, again


def errors_count(lines, asked):
    said = said_in(lines)
    return {i: said[i] for i in asked if i in said}, [i for i in asked if i not in said]


def with_strangers(lines, asked):
    answers, again = join(lines, [*asked, "T-99"])
    return answers, again


def first_line_counts(lines, asked):
    first = {}
    for line in lines:
        if line.endswith("}"):
            first.setdefault(json.loads(line)["recordId"], json.loads(line))
    answers = {i: first[i]["modelOutput"] for i in asked if i in first and "modelOutput" in first[i]}
    return answers, [i for i in asked if i not in answers]


def all_again(lines, asked):
    return join(lines, asked)[0], asked


def whole_lines(lines, asked):
    answers, again = join(lines, asked)
    return {i: {"modelOutput": answer} for i, answer in answers.items()}, again


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (by_position, "counts as answered"),
        (from_what_came, "in neither"),
        (last_of_two, "first of two answers"),
        (errors_count, "T-3 has an error"),
        (with_strangers, "T-99 was not asked"),
        (first_line_counts, "would be paid again"),
        (all_again, "paid for twice|paid again"),
        (whole_lines, "give the line's modelOutput"),
        (lambda lines, asked: 5, "return two things"),
    ],
)
def test_10_2_names_what_is_lost_doubled_or_made_up(wrong, said):
    text = check("10.2", wrong).text
    assert any(words in text for words in said.split("|")), text


def choose(case):
    def in_time(processes):
        return case.tickets / min(processes * case.per_process, case.quota) / 3600 <= case.deadline_h

    by_batch = case.batch_h <= case.deadline_h
    if by_batch and case.batch_saves >= 0.05:
        return "Bedrock batch"
    if in_time(1):
        return "one process"
    return "Dask" if in_time(case.processes) else "Bedrock batch" if by_batch else "none"


def quota_for_each(case):
    hours = case.tickets / (case.processes * min(case.per_process, case.quota)) / 3600
    return choose(case) if choose(case) != "none" or hours > case.deadline_h else "Dask"


def always_cheapest(case):
    return "Bedrock batch" if case.batch_h <= case.deadline_h else choose(case)


def whatever_the_deadline(case):
    return "Bedrock batch" if case.batch_saves >= 0.05 else choose(case)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda case: "one process", "nothing is in time"),
        (lambda case: "Dask", "one process does it in minutes"),
        (quota_for_each, "for all processes together"),
        (always_cheapest, "in minutes"),
        (whatever_the_deadline, "too late at any price"),
        (lambda case: "a bigger machine", "give one of"),
    ],
)
def test_10_3_names_the_case_and_why(wrong, said):
    assert said in check("10.3", wrong).text


@pytest.mark.parametrize(("number", "right"), [("10.1", paid_again), ("10.2", join), ("10.3", choose)])
def test_the_right_answer_passes_and_an_open_one_does_not_raise(number, right):
    holds_for(number, right)


def test_a_join_that_is_not_there_yet_is_said_to_be():
    assert "no join yet" in lab10.accounted(None, ["T-1"])
    assert lab10.accounted(join([], ["T-1"]), ["T-1"]) == "0 answered, 1 to be asked again, 0 in neither"


# --- the plans


@pytest.fixture(scope="module")
def traffic(_shared_endpoint, catalogue):
    from workshop_lib import Bedrock

    client = Bedrock(Settings(endpoint_url=_shared_endpoint.url), catalogue)
    cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=stakes(), client=client)
    return Traffic.of(cascade.run(ticket) for ticket in load_tickets("workshop")[:10])


def test_a_quota_is_one_for_all_processes_and_what_a_process_can_do_is_not(traffic, catalogue):
    one, two = (
        lab10.limits(traffic, catalogue, cpu_ms=4, tokens_per_minute=500_000, processes=processes)
        for processes in (1, 2)
    )
    assert two["quota"] == one["quota"]
    assert (two["CPU"], two["calls in flight"]) == (2 * one["CPU"], 2 * one["calls in flight"])
    assert lab10.binding({"CPU": 3.0, "quota": 2.0}) == {"CPU": "3", "quota": "2", "so": "2", "binds": "quota"}


@pytest.mark.parametrize(("tokens_per_minute", "deadline_h"), [(500_000, 48), (10_000_000, 12)])
def test_the_right_choice_is_the_planners(traffic, catalogue, tokens_per_minute, deadline_h):
    from workshop_lib.bedrock.pacing import Quota

    quotas = {"strong": Quota(tokens_per_minute=tokens_per_minute)}
    plans = {
        "a": (scale_plan(traffic, catalogue, quotas=quotas, deadline_h=deadline_h), traffic, tokens_per_minute),
    }
    for row in lab10.compare(choose, plans, catalogue):
        assert row["you"] == row["planner"]
    assert {row["you"] for row in lab10.compare(lambda case: None, plans, catalogue)} == {""}


def test_a_case_says_what_a_plan_says(traffic, catalogue):
    found = scale_plan(traffic, catalogue)
    case = lab10.cases(found, {"CPU": 100.0, "calls in flight": 50.0, "quota": 30.0})[0]
    assert isinstance(case, Case)
    assert (case.tickets, case.deadline_h, case.per_process, case.processes, case.quota) == (10_000, 48, 50, 16, 30)


# --- what dies, and the fence


def test_the_accident_happens_when_so_many_calls_were_made(endpoint, catalogue, bedrock):
    opened, happened = Workshop(Settings(), catalogue, bedrock, endpoint), []
    accident = lab10.after(2, opened, lambda: happened.append(len(endpoint.journal)))
    for _ in range(3):
        bedrock.converse("cheap", "Say hello.", max_tokens=20)
    accident.join(10)
    assert happened[0] >= 2


def test_a_dying_driver_is_interrupted_at_its_last_look():
    sleep = lab10.dying(2)
    sleep(0)
    with pytest.raises(KeyboardInterrupt):
        sleep(0)


@pytest.mark.parametrize(("mode", "really"), [("local", True), ("local", False), ("live", False)])
def test_nothing_is_submitted_without_the_live_door_and_the_flag(tmp_path, catalogue, bedrock, endpoint, mode, really):
    workshop = Workshop(Settings(mode=mode, cache_dir=tmp_path / "cache"), catalogue, bedrock)
    jobs = BatchJobs.of(bedrock, bucket="none", role_arn="none")
    cascade = Cascade([Tier("cheap")], client=bedrock)
    store = lab10.store_for(workshop)
    run = run_batch(cascade, load_tickets("workshop"), jobs=jobs, store=store, really=really)
    assert "Nothing was submitted" in lab10.submit(run, workshop, really=really)
    assert (store.parent == tmp_path / "cache") == (mode == "live")
    assert len(endpoint.journal) == 0
