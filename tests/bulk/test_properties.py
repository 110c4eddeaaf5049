"""Whatever comes in: a file is refused by line before anything is paid for, or each of its tickets gets its row, once."""

import json
import math
import re
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from workshop_lib import Cascade, ConfigurationError, Task, Ticket, Tier, always
from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.bedrock.errors import ServiceFault
from workshop_lib.bedrock.replies import Reply
from workshop_lib.bulk import Store, run_bulk

MANY = settings(max_examples=50, deadline=None)
SOME = settings(max_examples=25, deadline=None)
PRICE = 0.001


class Echo:
    """A client that answers at once, in the ticket's own words; it may fail now and then, and counts what it was paid for."""

    def __init__(self, fails=lambda nth: False):
        self.paid, self.fails, self.calls, self.lock = Counter(), fails, 0, threading.Lock()

    def converse(self, model, messages, **settings):
        asked = messages[0]["content"][0]["text"]
        with self.lock:
            self.calls += 1
            if self.fails(self.calls):
                raise ServiceFault("Not now.", model=model, attempts=1)
            self.paid[model, asked] += 1
        said = {"toolUseId": "t", "name": "record_triage", "input": decision_on(asked)}
        message = {"role": "assistant", "content": [{"toolUse": said}]}
        return Reply(model, model, message, "tool_use", Usage(input_tokens=1, output_tokens=1), PRICE, 1.0, 1.0)


def decision_on(asked):
    return {"category": "other", "priority": "P3", "confidence": 0.5, "reasoning": asked[:2_000], "needs_human": False}


# --- files

printable = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\t\n\r"), min_size=1, max_size=40)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20),  # lone surrogates too
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["id", "subject", "body", "customer_tier", "note"])
tickets_maybe = st.dictionaries(fields, anything | printable, max_size=5)
EXTREMES = [
    b"[" * 5_000,
    b'{"id":' * 5_000,
    b'{"id": "n", "body": ' + b"9" * 5_000 + b"}",
    b'{"id": "f", "body": 1e999, "subject": NaN}',
    b'{"id": "long", "body": "' + b"x" * 40_000 + b'"}',
    b'{"id": "' + b"i" * 201 + b'", "body": "b"}',
    b'{"id": "half", "body": "\\ud83d"}',
    b'{"id": "\\udc00", "body": "b"}',
    b'{"id": "odd", "\\ud83d": 1, "body": "b"}',
    b'{"id": "nul", "body": "a\\u0000b"}',
    b'{"id": "nul", "body": "a\0b"}',
    b'{"id": "bytes", "body": "\xff\xfe"}',
    b'{"id": "unread", "body": "b", "note": "\xff"}',
    b'{"id": "twice", "id": "twice", "body": "b"}',
    b'{"id": "blank", "body": "\xc2\xa0", "subject": " "}',
    b'{"id": "T-0", "body": "the id of another one"}',
    b"\xef\xbb\xbf",
    b"\xff\xfe{\0}\0",
    b"null",
    b"\0",
    b" \t ",
]
odd = (
    st.sampled_from(EXTREMES)
    | st.binary(max_size=40)
    | st.text(max_size=40).map(str.encode)
    | anything.map(json.dumps).map(str.encode)
    | tickets_maybe.map(json.dumps).map(str.encode)
)
good = st.builds(
    json.dumps, st.fixed_dictionaries({"body": printable, "subject": st.just("s")}), ensure_ascii=st.booleans()
)


def each_extreme_alone(test):
    for line in EXTREMES:
        test = example(content=line)(test)
    return test


@st.composite
def files(draw):
    """Tickets with ids of their own, and in every other file one line more, which may be anything."""
    lines = [
        line.replace("{", f'{{"id": "T-{n}", ', 1).encode() for n, line in enumerate(draw(st.lists(good, max_size=6)))
    ]
    if draw(st.booleans()):
        lines.insert(draw(st.integers(0, len(lines))), draw(odd))
    return draw(st.sampled_from([b"\n", b"\r\n"])).join(lines)


@each_extreme_alone
@given(content=files())
@MANY
def test_a_file_is_refused_by_its_line_before_any_call_or_every_ticket_in_it_gets_its_row(content):
    """A ticket a line: what is no ticket is named by its line, and an id that occurs twice by itself."""
    client = Echo()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "t.jsonl")
        file.write_bytes(content)
        rows, refusal = rows_or_refusal(Cascade([Tier("cheap")], client=client), file)
    event("refused" if refusal else f"{len(rows)} rows")
    if refusal is not None:
        assert re.search(r"line \d+ |The id .+ occurs twice", refusal.message, re.DOTALL)
        assert client.calls == 0
        return
    lines = [line for line in re.split("\r\n|\r|\n", content.decode("utf-8-sig")) if line.strip()]
    assert len(rows) == len({r.ticket_id for r in rows}) == len(lines) == client.calls
    assert all(r.status == "done" for r in rows)


def rows_or_refusal(cascade, file):
    try:
        run = run_bulk(cascade, file, workers=2)
    except ConfigurationError as refusal:
        return [], refusal
    return list(run), None


# --- ids and texts


def _is_ticket(item_id, body):
    try:
        return Ticket(id=item_id, body=body)
    except ValueError:
        return None


tickets = st.lists(st.builds(_is_ticket, printable, printable).filter(bool), max_size=6, unique_by=lambda t: t.id)


@given(tickets=tickets)
@SOME
def test_ids_and_decisions_come_back_from_store_and_export_as_they_went_in(tickets):
    """Whatever characters a ticket holds: in the stream, the store and the NDJSON file they are the same."""
    cascade = Cascade([Tier("cheap")], client=Echo())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r.db")
        seen = {r.ticket_id: r.decision for r in run_bulk(cascade, tickets, workers=2, store=path)}
        with Store(path) as store:
            kept = {r.ticket_id: r.decision for r in store}
            assert store.export(Path(folder, "rows.ndjson")) == len(tickets)
        lines = Path(folder, "rows.ndjson").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        exported = {row["ticket_id"]: row["decision"] for row in map(json.loads, filter(None, lines))}
        assert list(run_bulk(cascade, tickets, store=path)) == []
    wanted = {t.id: decision_on(cascade.task.describe(t)) for t in tickets}
    assert seen == kept == exported == wanted


# --- answers


class Loose(BaseModel):
    """A schema that takes almost anything."""

    word: str = ""
    number: float = 0
    rest: Any = None


class Says:
    """A client that gives one answer to everything, as a tool call or as text."""

    def __init__(self, answer, as_text):
        said = (
            {"text": json.dumps(answer)} if as_text else {"toolUse": {"toolUseId": "t", "name": "t", "input": answer}}
        )
        self.message = {"role": "assistant", "content": [said]}

    def converse(self, model, messages, **settings):
        return Reply(model, model, self.message, "end_turn", Usage(), PRICE, 1.0, 1.0)


answers = st.dictionaries(st.sampled_from(["word", "number", "rest", "else"]), anything, max_size=4) | anything


@given(answer=answers, as_text=st.booleans())
@example(answer={"word": "cut in the middle of a smile \ud83d"}, as_text=True)
@example(answer={"number": math.nan}, as_text=True)
@example(answer={"rest": [math.inf, "\ud83d"]}, as_text=False)
@MANY
def test_whatever_a_model_answers_is_kept_as_a_decision_or_as_an_unusable_answer(answer, as_text):
    """No answer ends a run; each is paid for in a row, and the row that comes back from the store is the one that was seen."""
    task = Task(name="loose", schema=Loose, system="Say something.")
    tiers = [Tier("cheap", repairs=0), Tier("strong", repairs=0)]
    cascade = Cascade(tiers, escalate_when=always(), task=task, client=Says(answer, as_text))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r.db")
        rows = list(run_bulk(cascade, ["one"], store=path))
        with Store(path) as store:
            assert list(store) == rows
    event("decided" if rows[-1].decision else "unusable")
    assert [(r.tier, r.cost_usd, r.final) for r in rows] == [("cheap", PRICE, False), ("strong", PRICE, True)]
    assert all((r.decision is None) == (r.error is not None) for r in rows)
    assert {r.error.type for r in rows if r.error} <= {"InvalidOutput"}


# --- the same call again and again

TICKETS = [Ticket(id=f"T-{n}", body=f"Ticket number {n}.") for n in range(9)]
visits = st.lists(
    st.fixed_dictionaries(
        {
            "limit": st.none() | st.integers(1, len(TICKETS)),
            "workers": st.integers(1, 4),
            "retry_failed": st.booleans(),
            "leaves_after": st.none() | st.integers(1, 8),
            "order": st.permutations(TICKETS),
            "as_iterator": st.booleans(),
        }
    ),
    min_size=1,
    max_size=6,
)


@given(visits=visits, failing=st.sets(st.integers(1, 40), max_size=12))
@SOME
def test_no_sequence_of_calls_on_one_store_pays_for_an_answer_twice(visits, failing):
    """Limited, left early, in another order, with failures that come and go: each model is paid once a ticket, and each cent is kept."""
    client = Echo(fails=lambda nth: nth in failing)
    cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=always(), client=client)

    def rows_after(path, *, order=TICKETS, as_iterator=False, leaves_after=None, **visit):
        given = iter(order) if as_iterator else order
        for count, _ in enumerate(run_bulk(cascade, given, store=path, **visit), 1):
            if count == leaves_after:
                break
        with Store(path) as store:
            assert store.cost_usd == pytest.approx(PRICE * client.paid.total(), abs=1e-9)
            return list(store)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r.db")
        for visit in visits:
            rows = rows_after(path, **visit)
            assert len({(r.ticket_id, r.tier) for r in rows}) == len(rows)
        failing.clear()
        rows = rows_after(path, retry_failed=True)
    assert max(client.paid.values()) == 1
    assert sum(r.attempts for r in rows) == client.calls
    assert sorted(r.ticket_id for r in rows if r.final and r.decision) == [t.id for t in TICKETS]
