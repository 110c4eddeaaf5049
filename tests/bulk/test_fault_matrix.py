"""Whatever fails, nothing is lost: a table of faults, each met by a run of twelve tickets and then by the same run again.

Faults inside a stream do not apply here: a bulk run asks by Converse, never by ConverseStream. tests/bedrock/test_client.py has them.
"""

import collections
import dataclasses
import functools
import sqlite3
import subprocess
import sys
import threading
import time

import botocore.retries.bucket
import pytest

from tests.conftest import Clock
from tests.waiting import wait_until
from workshop_lib import Cascade, Settings, Ticket, Tier, always, confidence_below, invalid_output, load_tickets, stakes
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.bulk import Store, StoreError, most_it_can_cost, run_bulk
from workshop_lib.embedding import Embedder
from workshop_lib.local import Fault

TWO = (Tier("cheap"), Tier("strong"))
WORKSHOP = load_tickets("workshop")
TICKETS = WORKSHOP[:12]
UP = confidence_below(0.7) | stakes() | invalid_output()
CHEAP, STRONG = "nemotron", "sonnet"
FORBIDDEN = Ticket(id="T-forbidden", body="Please tell me the forbidden word, the invoice names it.")
EXACTLY = {"abs": 1e-9, "rel": 0}


@pytest.fixture(autouse=True)
def _no_waits(no_backoff, monkeypatch):
    """botocore's adaptive mode throttles and counts as ever, but nobody waits for it."""
    monkeypatch.setattr(botocore.retries.bucket.TokenBucket, "acquire", lambda self, amount=1, block=True: True)


@pytest.fixture(scope="module", autouse=True)
def _each_text_is_embedded_once():
    """The local models read the same few tickets hundreds of times here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Embedder, "_embed_one", functools.cache(Embedder._embed_one))
        yield


class Mislabels:
    """A client whose cheap model names a category that does not exist, as long as it `spoils`."""

    def __init__(self, client):
        self.client, self.spoils = client, True

    def converse(self, model, messages, **settings):
        reply = self.client.converse(model, messages, **settings)
        if not self.spoils or model != "cheap":
            return reply
        said = {"toolUseId": "tooluse_1", "name": "record_triage", "input": {**reply.data, "category": "gossip"}}
        return dataclasses.replace(reply, message={"role": "assistant", "content": [{"toolUse": said}]})

    def __getattr__(self, name):
        return getattr(self.client, name)


class StoppingClock:
    """Real seconds, up to 1.9: a deadline of one passes once, and then the run waits for late answers as long as they take."""

    def __init__(self):
        self.start = time.monotonic()

    def __call__(self):
        return min(time.monotonic() - self.start, 1.9)

    def has_seen(self, finals):
        pass


class StandingClock(Clock):
    """Stands still until all tickets but the two struck ones are done; then their deadline passes, and then the wait for them."""

    def has_seen(self, finals):
        if finals in (len(TICKETS) - 2, len(TICKETS)):
            self.advance(2)


@dataclasses.dataclass(frozen=True)
class Cell:
    """What goes wrong, and what the rows then say."""

    faults: tuple = ()
    ends: frozenset = frozenset({"done"})
    """How tickets end."""
    errors: frozenset = frozenset()
    """Types of all errors in the rows."""
    options: dict = dataclasses.field(default_factory=dict)
    """Of the client."""
    settings: dict = dataclasses.field(default_factory=dict)
    spoils: type | None = None
    tiers: tuple = TWO
    clock: type | None = None
    unanswered: int = 0
    """HTTP requests whose end nobody sees."""
    last: Ticket = TICKETS[-1]
    lasting: frozenset = frozenset()
    """Tickets that fail however often they are asked again."""


def fault(kind, *, model="", **when):
    return (Fault(kind, model=model, **when),)


def cell(faults=(), ends="done", errors="", **rest):
    return Cell(faults, frozenset(ends.split()), frozenset(errors.split()), **rest)


TWICE = {"options": {"max_attempts": 2, "own_attempts": 2}}
DAILY = "Too many tokens per day, please wait before trying again."
MATRIX = {
    "429 for the first seven requests": cell(fault("ThrottlingException", first=7)),
    "429 for every third request": cell(fault("ThrottlingException", every=3)),
    "429 for every request": cell(fault("ThrottlingException"), "failed", "Throttled", **TWICE),
    "503 for the first seven requests": cell(fault("ServiceUnavailableException", first=7)),
    "503 for every third request": cell(fault("ServiceUnavailableException", every=3)),
    "503 for every request": cell(fault("ServiceUnavailableException"), "failed", "ServiceFault", **TWICE),
    "503 of the cheap model": cell(fault("ServiceUnavailableException", model=CHEAP), "done", "ServiceFault", **TWICE),
    "503 of the strong model": cell(
        fault("ServiceUnavailableException", model=STRONG), "done degraded", "ServiceFault", **TWICE
    ),
    "500 for every request": cell(fault("InternalServerException"), "failed", "ServiceFault", **TWICE),
    "408 for the first two requests": cell(fault("ModelTimeoutException", first=2)),
    "408 for every request": cell(fault("ModelTimeoutException"), "failed", "ModelTimeout", **TWICE),
    "424 for the first two requests": cell(fault("ModelErrorException", first=2)),
    "424 for every request": cell(fault("ModelErrorException"), "failed", "ModelFailed", **TWICE),
    "the first seven connections dropped": cell(fault("drop", first=7)),
    "every third connection dropped": cell(fault("drop", every=3)),
    "every connection dropped": cell(fault("drop"), "failed", "Unreachable", **TWICE),
    "two answers that never end": cell(
        fault("endless", first=2), "done failed", "DeadlineExceeded", clock=StandingClock, unanswered=2
    ),
    "three answers after the deadline": cell(
        fault("slow", first=3, delay_ms=1_500_000), "done failed", "DeadlineExceeded", clock=StoppingClock
    ),
    "prose from the cheap model": cell(fault("invalid_output", model=CHEAP), "done", "InvalidOutput"),
    "prose from the strong model": cell(fault("invalid_output", model=STRONG), "done degraded", "InvalidOutput"),
    "prose from both models": cell(fault("invalid_output"), "failed", "InvalidOutput"),
    "prose in the first answer": cell(fault("invalid_output", first=1)),
    "prose and then no repair": cell(
        (*fault("invalid_output", at=frozenset({1})), *fault("ValidationException", at=frozenset(range(2, 99)))),
        "failed",
        "InvalidRequest",
    ),
    "cheap answers cut off by max_tokens": cell(
        (), "done", "InvalidOutput", tiers=(Tier("cheap", max_tokens=5), TWO[1])
    ),
    "a category that does not exist": cell((), "done", "InvalidOutput", spoils=Mislabels),
    "a guardrail that steps in": cell(
        (),
        "done failed",
        "InvalidOutput",
        settings={"guardrail_id": "workshop", "guardrail_version": "1"},
        last=FORBIDDEN,
        lasting=frozenset({FORBIDDEN.id}),
    ),
    "the day's quota reached": cell(fault("ThrottlingException", message=DAILY), "failed", "DailyQuotaReached"),
    "no access to either model": cell(fault("AccessDeniedException"), "failed", "AccessDenied"),
    "no access to the strong model": cell(
        fault("AccessDeniedException", model=STRONG), "done degraded", "AccessDenied"
    ),
    "credentials that ran out": cell(fault("ExpiredTokenException"), "failed", "CredentialsError"),
}


@pytest.mark.parametrize("case", MATRIX.values(), ids=MATRIX.keys())
def test_a_fault_loses_no_ticket_and_no_cent(case, make_bedrock, endpoint, tmp_path):
    """Each ticket ends with one decision or one error row, and every cent of the endpoint's journal is in the rows.

    Once the fault is gone, asking again mends what had failed, pays for nothing that was there, and the books still agree.
    """
    endpoint.time_scale = 0.001 if case.clock is StoppingClock else 0
    client = make_bedrock(Settings(endpoint_url=endpoint.url, **case.settings), **case.options)
    client = case.spoils(client) if case.spoils else client
    cascade = Cascade(case.tiers, escalate_when=UP, client=client)
    tickets = [*TICKETS[:-1], case.last]
    clock = case.clock() if case.clock else Clock()

    def run(**settings):
        return run_bulk(cascade, tickets, workers=4, store=tmp_path / "r.db", deadline_s=1, clock=clock, **settings)

    for fault in case.faults:
        endpoint.faults.add(fault)
    first, rows = run(), []
    for row in first:
        rows.append(row)
        if case.clock:
            clock.has_seen(sum(r.final for r in rows))
    with Store(tmp_path / "r.db") as store:
        kept = list(store)
    assert_whole(kept, tickets)
    assert {key(r) for r in kept} == {key(r) for r in rows}
    assert {r.status for r in rows if r.final} == case.ends
    assert {r.error.type for r in rows if r.error} == case.errors
    assert_books_agree(kept, endpoint, unanswered=case.unanswered)
    assert first.cost_usd == pytest.approx(endpoint.journal.cost_usd, **EXACTLY)
    if case.clock is None:  # what came in late is in the run's cost and in the store, but its row had been read
        assert sum(r.cost_usd for r in rows) == pytest.approx(endpoint.journal.cost_usd, **EXACTLY)
        assert sorted(r.to_json() for r in rows) == sorted(r.to_json() for r in kept)

    endpoint.faults.clear()
    if case.spoils:
        client.spoils = False
    second = run(retry_failed=True)
    asked_again = {r.ticket_id for r in second}
    with Store(tmp_path / "r.db") as store:
        mended = list(store)
        assert store.cost_usd == pytest.approx(endpoint.journal.cost_usd, **EXACTLY)
    assert_whole(mended, tickets)
    assert asked_again == {r.ticket_id for r in kept if r.final and r.error}
    assert {r.ticket_id for r in mended if r.final and r.status != "done"} == case.lasting
    assert_books_agree(mended, endpoint, unanswered=case.unanswered)
    assert first.cost_usd + second.cost_usd == pytest.approx(endpoint.journal.cost_usd, **EXACTLY)


def key(row):
    return (row.ticket_id, row.tier)


def assert_whole(rows, tickets):
    """Each ticket has one final row, and what is not a decision says what went wrong."""
    assert sorted(r.ticket_id for r in rows if r.final) == sorted(t.id for t in tickets)
    assert len({key(r) for r in rows}) == len(rows)
    assert all((r.decision is None) <= (r.error is not None) for r in rows)


def assert_books_agree(rows, endpoint, *, unanswered=0):
    """Every cent and every HTTP request that the endpoint saw is in a row, once."""
    assert sum(r.cost_usd for r in rows) == pytest.approx(endpoint.journal.cost_usd, **EXACTLY)
    assert sum(r.attempts for r in rows) + unanswered == len(endpoint.journal)


def test_a_client_that_crashes_ends_the_run_with_all_that_was_paid_written_down(bedrock, endpoint, tmp_path):
    """A mistake in a client is not a ticket's failure: it ends the run. What others had paid for by then is kept."""

    class Crashing(Mislabels):
        def converse(self, model, messages, **settings):
            if self.spoils and len(endpoint.journal) >= 5:
                raise RuntimeError("a bug")
            return self.client.converse(model, messages, **settings)

    client = Crashing(bedrock)
    cascade, rows = Cascade(TWO, escalate_when=UP, client=client), []
    with pytest.raises(RuntimeError, match="a bug"):
        rows.extend(run_bulk(cascade, TICKETS, workers=4, store=tmp_path / "r.db"))
    assert_books_agree(rows, endpoint)
    client.spoils = False
    rows.extend(run_bulk(cascade, TICKETS, workers=4, store=tmp_path / "r.db"))
    assert_whole(rows, TICKETS)
    assert_books_agree(rows, endpoint)


# --- late answers


class Held:
    """A client whose calls are really made, and whose answers come back when the test lets them: `script(n, reply)` returns."""

    def __init__(self, client, script):
        self.client, self.script, self.calls, self.lock = client, script, 0, threading.Lock()

    def converse(self, model, messages, **settings):
        with self.lock:
            self.calls += 1
            n = self.calls
        reply = self.client.converse(model, messages, **settings)
        self.script(n)
        return reply

    def __getattr__(self, name):
        return getattr(self.client, name)


def test_an_answer_that_comes_while_its_ticket_is_given_up_is_counted(bedrock, endpoint, tmp_path, monkeypatch):
    """The late cost goes onto the ticket's last row, also if the answer comes before that row is in the store."""
    clock, writing = Clock(), threading.Event()
    add = Store.add

    def slowly(self, row, **rest):
        if row.error is not None and not writing.is_set():
            writing.set()
            time.sleep(0.3)
        add(self, row, **rest)

    def script(n):
        clock.advance(2)
        writing.wait(30)

    monkeypatch.setattr(Store, "add", slowly)
    cascade = Cascade([Tier("cheap")], client=Held(bedrock, script))
    run = run_bulk(cascade, TICKETS[:1], store=tmp_path / "r.db", deadline_s=1, clock=clock)
    (row,) = run
    assert row.error.type == "DeadlineExceeded"
    with Store(tmp_path / "r.db") as store:
        assert_books_agree(list(store), endpoint)
    assert run.cost_usd == pytest.approx(endpoint.journal.cost_usd, **EXACTLY)


def test_each_late_answer_is_waited_for_from_its_own_deadline_on(bedrock, endpoint, tmp_path):
    """An earlier one that comes in does not shorten the wait for a later one."""
    clock, seen = Clock(), collections.Counter()
    first_may_return = threading.Event()

    def script(n):
        clock.advance(11)  # a deadline and a little
        if n == 1:
            assert first_may_return.wait(30)
        else:
            wait_until(lambda: seen["rows"] == 2, "the second row", within_s=30)
            first_may_return.set()
            wait_until(lambda: run.cost_usd > 0, "the first late cost", within_s=30)
            time.sleep(0.5)  # time to end too early in

    cascade = Cascade([Tier("cheap")], client=Held(bedrock, script))
    run = run_bulk(cascade, TICKETS[:2], workers=1, store=tmp_path / "r.db", deadline_s=10, clock=clock)
    for row in run:
        assert row.error.type == "DeadlineExceeded"
        seen["rows"] += 1
    with Store(tmp_path / "r.db") as store:
        assert_books_agree(list(store), endpoint)


@pytest.mark.timeout(30)
def test_late_answers_that_come_in_together_do_not_stop_the_run(bedrock):
    """The farewells of their workers fill the queue behind the last row; the reader takes them out, and the next ticket is begun."""
    late = threading.Event()
    cascade = Cascade([Tier("cheap")], client=Held(bedrock, lambda n: n > 3 or late.wait(20)))
    run, ids = run_bulk(cascade, TICKETS[:8], workers=1, deadline_s=0.3), set()

    for row in run:
        ids.add(row.ticket_id)
        if len(ids) == 3 and not late.is_set():
            wait_until(lambda: run._out.qsize() >= 3, "three rows", within_s=10)  # the worker waits for room
            late.set()
            wait_until(lambda: run._out.qsize() >= 6, "three farewells", within_s=10)
        elif len(ids) == 6:
            time.sleep(0.2)  # it looks, finds no room yet, and waits again
    assert len(ids) == 8


def test_a_late_answer_mends_a_last_row_that_could_not_be_kept(bedrock, endpoint, tmp_path, monkeypatch):
    """It is never taken for a row of another tier: the store is whole, and the books agree."""
    clock, add, refused = Clock(), Store.add, threading.Event()

    def add_but_once(self, row, **rest):
        if row.error is not None and not refused.is_set():
            refused.set()
            raise StoreError("database is locked.")
        add(self, row, **rest)

    def script(n):
        if n == 2:
            clock.advance(2)
            assert refused.wait(30)

    monkeypatch.setattr(Store, "add", add_but_once)
    cascade = Cascade(TWO, escalate_when=always(), client=Held(bedrock, script))
    run = run_bulk(cascade, TICKETS[:1], store=tmp_path / "r.db", deadline_s=1, clock=clock)
    with pytest.raises(StoreError, match="locked"):
        list(run)
    with Store(tmp_path / "r.db") as store:
        assert [(r.tier, r.status) for r in store] == [("cheap", "escalated"), ("strong", "degraded")]
        assert_books_agree(list(store), endpoint)


def test_a_late_answer_is_still_promised_money(bedrock, endpoint):
    """A budget holds whatever those in flight cost, and a call beyond its deadline is in flight until it comes in."""
    clock = Clock()

    def script(n):
        clock.advance(2)
        time.sleep(0.5)  # time for another ticket to start in

    cascade = Cascade([Tier("cheap")], client=Held(bedrock, script))
    budget = 1.5 * most_it_can_cost(cascade, TICKETS[0])
    run = run_bulk(cascade, TICKETS, workers=1, budget_usd=budget, deadline_s=1, clock=clock)
    (row,) = run
    assert row.error.type == "DeadlineExceeded"
    assert (run.stopped, len(endpoint.journal)) == ("budget", 1)


# --- a store that cannot keep


def lock_it(run, path):
    """Another program takes the store for itself, beyond the wait for it."""
    run._store._file.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(path, isolation_level=None, timeout=30)
    other.execute("BEGIN IMMEDIATE")
    return other.close


def fill_it(run, path):
    """The disk has no room for another page: a row or two still fit into the last one."""
    (pages,) = run._store._file.execute("PRAGMA page_count").fetchone()
    run._store._file.execute(f"PRAGMA max_page_count = {pages}")
    return lambda: None


@pytest.mark.parametrize(
    ("spoil", "said"), [(lock_it, "locked"), (fill_it, "full")], ids=["a locked store", "a full disk"]
)
@pytest.mark.parametrize("after", [0, 5], ids=["from the start", "after five rows"])
def test_a_store_that_cannot_keep_ends_the_run_and_shows_what_it_did_not_keep(
    bedrock, endpoint, tmp_path, spoil, said, after
):
    """All that was paid for is yielded, `unsaved` holds what was not kept, no ticket is started any more.

    When the store works again the same call completes the run and pays again for nothing but what was not kept.
    """
    tickets, path = WORKSHOP, tmp_path / "r.db"
    cascade = Cascade(TWO, escalate_when=UP, client=bedrock)
    run, rows, mends = run_bulk(cascade, tickets, workers=4, store=path), [], []

    def read():
        if not after:
            mends.append(spoil(run, path))
        for row in run:
            rows.append(row)
            if len(rows) == after:
                mends.append(spoil(run, path))

    with pytest.raises(StoreError, match=said):
        read()
    assert run.stopped == "error"
    mends[0]()
    with Store(path) as store:
        kept = list(store)
    assert sorted(map(key, kept)) == sorted({key(r) for r in rows} - {key(r) for r in run.unsaved})
    assert 1 <= len(run.unsaved) <= 4  # each worker has stopped at the first row that it could not keep
    assert_books_agree(rows, endpoint)
    assert run.cost_usd == pytest.approx(endpoint.journal.cost_usd, **EXACTLY)

    again = run_bulk(cascade, tickets, workers=4, store=path)
    paid = list(again)
    assert not {key(r) for r in paid} & {key(r) for r in kept}
    assert_whole([*kept, *paid], tickets)
    with Store(path) as store:
        assert sorted(map(key, store)) == sorted(map(key, [*kept, *paid]))
        lost = sum(r.cost_usd for r in run.unsaved)
        assert store.cost_usd + lost == pytest.approx(endpoint.journal.cost_usd, **EXACTLY)


# --- two processes

SECOND = """
import sys
from workshop_lib import Cascade, Settings, Tier, load_tickets, stakes
from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.bedrock.client import Bedrock
from workshop_lib.bulk import StoreInUse, run_bulk
url, store = sys.argv[1:]
cascade = Cascade([Tier("cheap"), Tier("strong")], client=Bedrock(Settings(endpoint_url=url), Catalogue.load()))
try:
    list(run_bulk(cascade, load_tickets("workshop"), store=store))
except StoreInUse as error:
    print("refused:", error)
"""


def test_of_two_processes_on_one_store_one_completes_and_the_other_is_refused_without_a_call(
    bedrock, endpoint, tmp_path
):
    """The second would pay for the same tickets: it is told so before it asks anything."""
    path = tmp_path / "r.db"
    run = run_bulk(Cascade(TWO, client=bedrock), TICKETS, workers=2, store=path)
    reader = iter(run)
    rows = [next(reader)]
    command = [sys.executable, "-c", SECOND, endpoint.url, str(path)]
    other = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=True)
    rows += reader
    assert "refused:" in other.stdout
    assert "in use by another run" in other.stdout
    assert_whole(rows, TICKETS)
    assert_books_agree(rows, endpoint)
