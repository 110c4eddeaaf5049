"""Many tickets at once: bounded, in order per ticket, within budget and deadline, with every failure written down."""

import itertools
import threading
import time
from typing import Literal

import pytest
from pydantic import BaseModel

from tests.waiting import wait_until
from workshop_lib import (
    Cascade,
    ConfigurationError,
    Settings,
    Task,
    Ticket,
    Tier,
    always,
    load_tickets,
    rule,
)
from workshop_lib.bedrock.errors import UnknownModel
from workshop_lib.bedrock.pacing import Limiter, Quota
from workshop_lib.bedrock.replies import Reply, Usage
from workshop_lib.bulk import Store, most_it_can_cost, run_bulk, to_frame
from workshop_lib.lessons.lab02 import Unplugged
from workshop_lib.local import Fault

TWO = [Tier("cheap"), Tier("strong")]
TICKETS = load_tickets("workshop")


def by_ticket(rows):
    return {
        key: list(group)
        for key, group in itertools.groupby(sorted(rows, key=lambda r: r.ticket_id), lambda r: r.ticket_id)
    }


class Counting:
    """A client that knows how many of its calls are under way at once, each held until others have had time to start."""

    def __init__(self, client, hold_s=0.02):
        self.client, self.hold_s, self.now, self.most, self.calls = client, hold_s, 0, 0, 0
        self.lock = threading.Lock()

    def converse(self, *given, **settings):
        with self.lock:
            self.now, self.calls = self.now + 1, self.calls + 1
            self.most = max(self.most, self.now)
        time.sleep(self.hold_s)
        try:
            return self.client.converse(*given, **settings)
        finally:
            with self.lock:
                self.now -= 1


def test_every_ticket_has_one_final_row_and_costs_add_up_to_the_journals(cascade, endpoint):
    run = run_bulk(cascade, TICKETS)
    rows = list(run)
    assert sorted(r.ticket_id for r in rows if r.final) == sorted(t.id for t in TICKETS)
    assert sum(r.cost_usd for r in rows) == pytest.approx(endpoint.journal.cost_usd, abs=1e-12)
    assert run.cost_usd == pytest.approx(endpoint.journal.cost_usd, abs=1e-12)


def test_a_run_decides_what_the_cascade_alone_decides(cascade):
    final = {r.ticket_id: r.decision for r in run_bulk(cascade, TICKETS[:8]) if r.final}
    assert final == {t.id: cascade.run(t).decision.model_dump(mode="json") for t in TICKETS[:8]}


def test_the_cheap_row_of_an_escalated_ticket_comes_before_its_strong_row(cascade):
    rows = by_ticket(run_bulk(cascade, TICKETS))
    escalated = [pair for pair in rows.values() if len(pair) == 2]
    assert escalated
    for cheap, strong in escalated:
        assert (cheap.tier, cheap.final, strong.tier, strong.final) == ("cheap", False, "strong", True)
        assert cheap.escalated
        assert strong.escalated
        assert cheap.reasons == strong.reasons != ()
        assert strong.ticket_cost_usd == pytest.approx(cheap.cost_usd + strong.cost_usd)


def test_a_cheap_row_is_seen_while_its_strong_call_is_still_under_way(bedrock, endpoint):
    endpoint.faults.add(Fault("slow", model="sonnet", delay_ms=1_000))
    endpoint.time_scale = 1.0
    cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=always(), client=bedrock)
    answered = [(row.tier, endpoint.journal.calls) for row in run_bulk(cascade, TICKETS[:1])]
    assert answered == [("cheap", 1), ("strong", 2)]


def test_no_more_tickets_are_in_flight_than_there_are_workers(bedrock):
    client = Counting(bedrock)
    list(run_bulk(Cascade(TWO, client=client), TICKETS, workers=3))
    assert client.most == 3


def test_a_reader_that_does_not_read_on_is_not_run_away_from(bedrock):
    client = Counting(bedrock, hold_s=0)
    rows = iter(run_bulk(Cascade(TWO, client=client), (t for t in TICKETS), workers=2))
    next(rows)
    time.sleep(0.5)
    assert client.calls < 12
    rows.close()


def test_tickets_are_drawn_from_an_iterator_only_as_they_are_needed(cascade):
    drawn = []
    rows = iter(run_bulk(cascade, (drawn.append(t) or t for t in TICKETS), workers=2))
    next(rows)
    rows.close()
    assert len(drawn) < len(TICKETS)


def test_leaving_the_loop_starts_no_further_call(bedrock, endpoint):
    for _ in run_bulk(Cascade(TWO, client=bedrock), TICKETS, workers=2):
        break
    after = endpoint.journal.calls
    time.sleep(0.3)
    assert endpoint.journal.calls == after < len(TICKETS)


def test_a_failing_strong_tier_keeps_the_cheap_answer_and_says_why(bedrock):
    cascade = Cascade(TWO, escalate_when=always(), client=Unplugged(bedrock, "strong"))
    last = list(run_bulk(cascade, TICKETS[:1]))[-1]
    assert last.status == "degraded"
    assert last.decision is not None
    assert (last.error.stage, last.error.type) == ("strong", "ServiceFault")
    assert last.error.advice


def test_a_ticket_without_any_answer_is_one_error_row_and_the_others_go_on(bedrock, endpoint):
    endpoint.faults.add(Fault("ValidationException", at=frozenset({2})))
    run = run_bulk(Cascade([Tier("cheap")], client=bedrock), TICKETS[:5], workers=1)
    rows = list(run)
    assert [r.status for r in rows] == ["done", "failed", "done", "done", "done"]
    assert (rows[1].error.type, rows[1].cost_usd, run.failed) == ("InvalidRequest", 0, 1)


def test_an_unusable_answer_is_paid_for_in_its_error_row(bedrock, endpoint):
    endpoint.faults.add(Fault("invalid_output"))
    (row,) = run_bulk(Cascade([Tier("cheap")], client=bedrock), TICKETS[:1])
    assert (row.status, row.error.type, row.attempts) == ("failed", "InvalidOutput", 2)
    assert row.cost_usd == pytest.approx(endpoint.journal.cost_usd)
    assert row.cost_usd > 0


# --- budget


def test_a_budget_is_never_passed_and_says_that_it_stopped_the_run(cascade, endpoint):
    run = run_bulk(cascade, TICKETS, budget_usd=0.06, workers=4)
    rows = list(run)
    assert run.stopped == "budget"
    assert 0 < endpoint.journal.cost_usd <= 0.06
    assert len([r for r in rows if r.final]) == run.tickets < len(TICKETS)
    assert len(by_ticket(rows)) == run.tickets


def test_a_budget_too_small_for_one_ticket_pays_for_none(cascade, endpoint):
    run = run_bulk(cascade, TICKETS, budget_usd=0.001)
    assert list(run) == []
    assert (run.stopped, endpoint.journal.calls) == ("budget", 0)


def test_no_ticket_costs_more_than_the_most_that_it_can_cost(bedrock, endpoint):
    endpoint.faults.add(Fault("invalid_output"))
    cascade = Cascade(TWO, escalate_when=always(), client=bedrock)
    for ticket in TICKETS[:5]:
        assert cascade.run(ticket).cost_usd <= most_it_can_cost(cascade, ticket)


def test_a_budget_without_prices_is_refused():
    class NoPrices:
        def converse(self, *given, **settings):
            raise AssertionError("no call is made")

    with pytest.raises(ConfigurationError, match="needs prices"):
        list(run_bulk(Cascade(TWO, client=NoPrices()), TICKETS[:1], budget_usd=1))


# --- deadline


def test_a_call_beyond_its_deadline_does_not_hold_up_the_run(bedrock, endpoint):
    endpoint.faults.add(Fault("endless", at=frozenset({1})))  # a slow one would be paid for in a later test
    endpoint.time_scale = 1.0
    run = run_bulk(Cascade([Tier("cheap", repairs=0)], client=bedrock), TICKETS[:2], workers=1, deadline_s=1.5)
    rows = list(run)
    assert [(r.status, r.error and r.error.type) for r in rows] == [("failed", "DeadlineExceeded"), ("done", None)]


def test_a_deadline_between_two_tiers_keeps_the_cheap_answer_and_asks_no_more(bedrock, endpoint):
    endpoint.faults.add(Fault("slow", model="nemotron", delay_ms=0))
    client = Counting(bedrock, hold_s=0.3)
    rows = list(run_bulk(Cascade(TWO, escalate_when=always(), client=client), TICKETS[:1], deadline_s=0.25))
    wait_until(lambda: not client.now, "the late answer")  # it must not be found in a later test's journal
    assert rows[-1].error.type == "DeadlineExceeded"
    assert not [e for e in endpoint.journal if "sonnet" in e.model_id]


# --- limits


def test_calls_wait_for_their_turn_under_a_known_quota(bedrock, endpoint):
    slept = []
    limiter = Limiter(Quota(requests_per_minute=120), clock=lambda: 0.0, sleep=slept.append)
    list(run_bulk(Cascade([Tier("cheap")], client=bedrock), TICKETS[:5], limits={"cheap": limiter}))
    assert endpoint.journal.calls == 5
    assert sorted(slept) == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_calls_that_wait_for_their_turn_are_not_made_once_the_run_is_left(bedrock, endpoint, tmp_path):
    cascade, store = Cascade([Tier("cheap")], client=bedrock), tmp_path / "run.db"
    run = run_bulk(cascade, TICKETS[:4], store=store, limits={"cheap": Quota(requests_per_minute=1)})
    for _ in run:
        break
    assert (run._active, run.stopped, run.tickets, endpoint.journal.calls) == ({}, "closed", 1, 1)
    assert len(list(run_bulk(cascade, TICKETS[:4], store=store))) == 3
    assert endpoint.journal.calls == 4


def test_a_run_that_is_told_to_stop_makes_no_call_that_waits_for_the_sessions_share(endpoint, make_bedrock):
    settings = Settings(endpoint_url=endpoint.url, tokens_per_minute=60)
    cascade, stop = Cascade([Tier("strong")], client=make_bedrock(settings, sleep=None)), threading.Event()
    run = run_bulk(cascade, TICKETS[:4], stop=stop)
    threading.Timer(0.1, stop.set).start()
    assert list(run) == []
    assert (run._active, run.stopped, endpoint.journal.calls) == ({}, "interrupted", 0)


def test_a_repair_is_waited_for_when_the_run_ends_as_its_first_call_was_paid(bedrock, endpoint):
    stop = threading.Event()

    class Ending:
        def converse(self, *given, **settings):
            reply = bedrock.converse(*given, **settings)
            stop.set()
            return reply

    endpoint.faults.add(Fault("invalid_output", at=frozenset({1})))
    limits = {"cheap": Quota(requests_per_minute=300)}
    run = run_bulk(Cascade([Tier("cheap")], client=Ending()), TICKETS[:1], limits=limits, stop=stop)
    (row,) = [*run, *run]
    assert (row.status, row.attempts, endpoint.journal.calls) == ("done", 2, 2)
    assert run.cost_usd == pytest.approx(endpoint.journal.cost_usd)


def test_repairs_that_wait_behind_many_turns_are_made_before_the_run_is_closed_and_none_after_it(tmp_path):
    """The turns of those that leave are free: who has paid for a first answer need not wait for them any more."""

    class Rubbish:
        calls = 0

        def converse(self, model, messages, **settings):
            self.calls += 1
            message = {"role": "assistant", "content": [{"text": "no JSON"}]}
            return Reply(model, model, message, "end_turn", Usage(1, 1), 0.001, 1.0, 1.0)

    client, store = Rubbish(), tmp_path / "run.db"
    tickets = [Ticket(id=f"T-{n}", body="b") for n in range(32)]
    limits = {"cheap": Quota(requests_per_minute=120)}  # in turn, the first repair would come after 15 seconds
    run = run_bulk(Cascade([Tier("cheap")], client=client), tickets, workers=32, store=store, limits=limits)
    reader = threading.Thread(target=list, args=(run,), daemon=True)
    reader.start()
    wait_until(lambda: client.calls >= 2, "the second call")
    began = time.monotonic()
    run.close()
    reader.join(30)
    assert time.monotonic() - began < 12
    made = client.calls
    with Store(store) as kept:
        assert sum(row.attempts for row in kept) == made <= 8
    time.sleep(0.5)
    assert client.calls == made


def test_where_nobody_takes_in_an_answer_any_more_no_repair_is_made(bedrock, endpoint):
    endpoint.faults.add(Fault("invalid_output", at=frozenset({1})))
    run = run_bulk(
        Cascade([Tier("cheap")], client=bedrock), TICKETS[:1], limits={"cheap": Quota(requests_per_minute=1)}
    )
    reader = threading.Thread(target=list, args=(run,), daemon=True)
    reader.start()
    wait_until(lambda: endpoint.journal.calls, "the first call")
    run.close(wait_s=0.1)
    reader.join(30)
    assert (reader.is_alive(), endpoint.journal.calls) == (False, 1)


def test_a_run_that_is_told_to_stop_before_it_begins_makes_no_call(bedrock, endpoint):
    stop = threading.Event()
    stop.set()
    run = run_bulk(Cascade([Tier("cheap")], client=bedrock), TICKETS[:4], stop=stop)
    assert (list(run), run.stopped, endpoint.journal.calls) == ([], "interrupted", 0)


def test_no_call_is_made_for_a_ticket_whose_deadline_passed_while_it_waited_for_its_turn(bedrock, endpoint):
    limits = {"cheap": Quota(requests_per_minute=1)}
    run = run_bulk(Cascade([Tier("cheap")], client=bedrock), TICKETS[:2], limits=limits, deadline_s=1)
    assert sorted(row.status for row in run) == ["done", "failed"]
    assert (run._late, endpoint.journal.calls) == ({}, 1)


# --- bad input, before anything is paid for


@pytest.mark.parametrize(
    ("tickets", "said"),
    [
        ([*TICKETS[:3], TICKETS[0]], "occurs twice"),
        ([TICKETS[0], {"id": "T-1"}], "no item for the task triage"),
        ([None], "no item for the task triage"),
        ("no-such-file.jsonl", "cannot be read"),
    ],
    ids=["a duplicate id", "a dict", "nothing", "a moved file"],
)
def test_unusable_tickets_are_named_before_any_call(cascade, endpoint, tickets, said):
    with pytest.raises(ConfigurationError, match=said):
        run_bulk(cascade, tickets)
    assert endpoint.journal.calls == 0


def test_a_bad_line_at_the_end_of_a_file_is_named_before_any_call(cascade, endpoint, tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(t.model_dump_json() for t in TICKETS[:3]) + '\n{"id": "T-x"}\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="line 4"):
        run_bulk(cascade, file)
    assert endpoint.journal.calls == 0


def test_a_duplicate_in_an_iterator_ends_the_run_with_all_earlier_rows_read(cascade):
    rows = []
    with pytest.raises(ConfigurationError, match="occurs twice"):
        rows.extend(run_bulk(cascade, iter([*TICKETS[:3], TICKETS[0]]), workers=1))
    assert {r.ticket_id for r in rows if r.final} == {t.id for t in TICKETS[:3]}


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"workers": 257}, {"budget_usd": -1}, {"deadline_s": 0}, {"limit": 0}]
)
def test_senseless_numbers_are_refused(cascade, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        run_bulk(cascade, TICKETS, **wrong)


def test_a_tier_without_a_model_is_refused_before_it_starts(bedrock):
    with pytest.raises(UnknownModel):
        run_bulk(Cascade([Tier("cheapest")], client=bedrock), TICKETS)


# --- ends


def read_until_interrupted(run, after):
    """Read some rows, then be interrupted while waiting for the next, as by Ctrl-C."""
    rows, get = [], run._out.get

    def interrupt(timeout=None):
        run._out.get = get
        raise KeyboardInterrupt

    for row in run:
        rows.append(row)
        if len(rows) == after:
            run._out.get = interrupt
    return rows


def test_an_interrupt_keeps_what_is_done_and_says_how_to_go_on(cascade, endpoint, tmp_path):
    store = tmp_path / "run.db"
    with pytest.raises(KeyboardInterrupt, match="goes on from there"):
        read_until_interrupted(run_bulk(cascade, TICKETS, workers=2, store=store), after=5)
    kept = Store(store)
    assert len(kept) >= 5
    assert kept.cost_usd == pytest.approx(endpoint.journal.cost_usd)


def test_a_run_without_a_store_still_gives_what_had_come_before_an_interrupt(bedrock, endpoint):
    run = run_bulk(Cascade([Tier("cheap")], client=bedrock), TICKETS, workers=2)
    with pytest.raises(KeyboardInterrupt, match="Iterate this run again"):
        read_until_interrupted(run, after=3)
    assert 3 + len(list(run)) == endpoint.journal.calls


def test_a_rule_that_raises_ends_the_run_with_its_ticket_paid_for_and_written_down(bedrock, endpoint):
    @rule
    def broken(attempt):
        return attempt.decision.no_such_field

    rows = []
    with pytest.raises(AttributeError, match="no_such_field"):
        rows.extend(run_bulk(Cascade(TWO, escalate_when=broken, client=bedrock), TICKETS, workers=1))
    assert len(rows) == endpoint.journal.calls == 1
    assert rows[0].status == "failed"
    assert rows[0].cost_usd == pytest.approx(endpoint.journal.cost_usd)


class Lead(BaseModel):
    grade: Literal["hot", "warm", "cold"]


def test_another_task_runs_in_bulk_as_it_is(bedrock):
    leads = Task(
        name="leads",
        schema=Lead,
        system="Grade it.\n- hot: asks for a price\n- warm: asks how it works\n- cold: an advertisement",
    )
    texts = ["Send us a quote.", "How does it work?"]
    rows = list(run_bulk(Cascade([Tier("cheap")], task=leads, client=bedrock), texts))
    assert all(Lead.model_validate(row.decision) for row in rows)


def test_rows_make_a_table_with_a_column_for_each_part_of_a_decision(cascade):
    frame = to_frame(run_bulk(cascade, TICKETS[:4]))
    assert {"ticket_id", "decision.category", "usage.input_tokens", "cost_usd"} <= set(frame.columns)
    assert not set(frame.columns) & {"decision", "error"}


def test_ticket_ids_may_be_anything_that_is_text(cascade):
    odd = [
        Ticket(id=i, body=f"Please refund invoice {n}.")
        for n, i in enumerate(["1", "a b", "'; DROP TABLE rows; --", "é/ü", "x" * 200])
    ]
    assert {r.ticket_id for r in run_bulk(cascade, odd)} == {t.id for t in odd}
