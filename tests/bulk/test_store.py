"""The store: every row once, one writer, and no mixing of runs that differ."""

import json

import pandas as pd
import pytest

from workshop_lib import (
    Cascade,
    Settings,
    Tier,
    always,
    confidence_below,
    load_tickets,
    rule,
    stakes,
)
from workshop_lib.bulk import Store, StoreError, StoreInUse, StoreMismatch, run_bulk
from workshop_lib.lessons.lab02 import Unplugged
from workshop_lib.local import Fault

TWO = [Tier("cheap"), Tier("strong")]
TICKETS = load_tickets("workshop")


def test_the_same_call_again_pays_for_nothing(cascade, endpoint, tmp_path):
    first = list(run_bulk(cascade, TICKETS, store=tmp_path / "r.db"))
    paid = endpoint.journal.calls
    again = run_bulk(cascade, TICKETS, store=tmp_path / "r.db")
    assert list(again) == []
    assert (endpoint.journal.calls, again.skipped) == (paid, len(TICKETS))
    assert {r.to_json() for r in Store(tmp_path / "r.db")} == {r.to_json() for r in first}


def test_more_tickets_in_the_same_store_pay_only_for_themselves(cascade, endpoint, tmp_path):
    list(run_bulk(cascade, TICKETS[:10], store=tmp_path / "r.db"))
    endpoint.journal.clear()
    rows = list(run_bulk(cascade, TICKETS, store=tmp_path / "r.db"))
    assert {r.ticket_id for r in rows} == {t.id for t in TICKETS[10:]}
    assert sum(r.cost_usd for r in rows) == pytest.approx(endpoint.journal.cost_usd)


def test_a_ticket_left_between_its_tiers_goes_on_with_the_strong_one(bedrock, endpoint, tmp_path):
    cascade = Cascade(TWO, escalate_when=always(), client=bedrock)
    rows = iter(run_bulk(cascade, TICKETS[:1], store=tmp_path / "r.db"))
    next(rows)
    rows.close()
    done = len(Store(tmp_path / "r.db"))
    before = [e.model_id for e in endpoint.journal]
    list(run_bulk(cascade, TICKETS[:1], store=tmp_path / "r.db"))
    asked = [e.model_id for e in endpoint.journal][len(before) :]
    assert done == 2 or (len(asked) == 1 and "sonnet" in asked[0])
    assert [r.tier for r in Store(tmp_path / "r.db")] == ["cheap", "strong"]


def test_going_on_keeps_the_reasons_and_flags_of_the_cheap_tier(bedrock, tmp_path):
    urgent = next(t for t in TICKETS if Cascade(TWO[:1], client=bedrock).run(t).decision.needs_human)
    cascade = Cascade(TWO, escalate_when=stakes(), client=bedrock)
    (whole,) = [r for r in run_bulk(cascade, [urgent], store=tmp_path / "a.db") if r.final]
    cheap = next(iter(Store(tmp_path / "a.db")))
    store = Store(tmp_path / "b.db", identity=json.loads(identity_of(tmp_path / "a.db")))
    store.add(cheap, step=0, digest=digest_of(tmp_path / "a.db"))
    store.close()
    (rest,) = run_bulk(cascade, [urgent], store=tmp_path / "b.db")
    assert (rest.reasons, rest.flags, rest.decision) == (whole.reasons, whole.flags, whole.decision)
    assert rest.ticket_cost_usd == pytest.approx(whole.ticket_cost_usd)


def identity_of(path):
    import sqlite3

    return sqlite3.connect(path).execute("SELECT value FROM meta").fetchone()[0]


def digest_of(path):
    import sqlite3

    return sqlite3.connect(path).execute("SELECT digest FROM rows").fetchone()[0]


@rule
def mine(attempt):
    return attempt.confidence < 0.5


def another():
    @rule
    def mine(attempt):
        return attempt.confidence < 0.6

    return mine


@pytest.mark.parametrize(
    ("then", "now", "part"),
    [
        ({}, {"escalate_when": confidence_below(0.8)}, "rule"),
        ({"escalate_when": mine}, {"escalate_when": another()}, "rule"),
        ({}, {"tiers": [Tier("cheap", temperature=1.0), Tier("strong")]}, "tiers"),
        ({}, {"tiers": [Tier("judge", name="cheap"), Tier("strong")]}, "models"),
        ({}, {"settings": Settings(guardrail_id="workshop", guardrail_version="1")}, "guardrail"),
        ({}, {"settings": Settings(mode="live", region="us-west-2")}, "mode"),
    ],
    ids=["a rule", "a rule of the same name", "a setting", "a model", "a guardrail", "the door"],
)
def test_a_changed_run_refuses_to_mix_and_names_what_changed(make_bedrock, endpoint, tmp_path, then, now, part):
    def made(settings=None, tiers=TWO, escalate_when=None):
        settings = (settings or Settings()).model_copy(update={"endpoint_url": endpoint.url})
        return Cascade(tiers, escalate_when=escalate_when or stakes(), client=make_bedrock(settings))

    list(run_bulk(made(**then), TICKETS[:1], store=tmp_path / "r.db"))
    endpoint.journal.clear()
    with pytest.raises(StoreMismatch, match=f"another.* {part} ") as refused:
        run_bulk(made(**now), TICKETS, store=tmp_path / "r.db")
    assert "then" in str(refused.value)
    assert endpoint.journal.calls == 0


def test_a_ticket_whose_text_has_changed_is_not_taken_for_done(cascade, tmp_path):
    list(run_bulk(cascade, TICKETS[:2], store=tmp_path / "r.db"))
    changed = TICKETS[0].model_copy(update={"body": "Something else altogether."})
    with pytest.raises(StoreMismatch, match=changed.id):
        list(run_bulk(cascade, [changed], store=tmp_path / "r.db"))


def test_a_second_run_on_one_store_is_refused_before_it_pays(cascade, endpoint, tmp_path):
    with run_bulk(cascade, TICKETS, store=tmp_path / "r.db"), pytest.raises(StoreInUse, match="another run"):
        run_bulk(cascade, TICKETS, store=tmp_path / "r.db")
    assert endpoint.journal.calls == 0


def test_a_store_can_be_read_while_a_run_writes_to_it(cascade, tmp_path):
    rows = iter(run_bulk(cascade, TICKETS, store=tmp_path / "r.db", workers=1))
    first = next(rows)
    assert first in list(Store(tmp_path / "r.db"))
    rows.close()


def test_failed_tickets_are_asked_again_only_on_request_and_stay_paid_for(bedrock, endpoint, tmp_path):
    cascade = Cascade([Tier("cheap")], client=bedrock)
    endpoint.faults.add(Fault("invalid_output", first=2))
    list(run_bulk(cascade, TICKETS[:3], store=tmp_path / "r.db", workers=1))
    endpoint.faults.clear()
    assert list(run_bulk(cascade, TICKETS[:3], store=tmp_path / "r.db")) == []
    (row,) = run_bulk(cascade, TICKETS[:3], store=tmp_path / "r.db", retry_failed=True)
    assert row.status == "done"
    assert [r.status for r in Store(tmp_path / "r.db")].count("done") == 3
    assert Store(tmp_path / "r.db").cost_usd == pytest.approx(endpoint.journal.cost_usd)


def test_a_failed_strong_tier_that_is_asked_again_does_not_pay_the_cheap_one_twice(bedrock, endpoint, tmp_path):
    list(
        run_bulk(
            Cascade(TWO, escalate_when=always(), client=Unplugged(bedrock, "strong")),
            TICKETS[:1],
            store=tmp_path / "r.db",
        )
    )
    endpoint.journal.clear()
    with pytest.raises(StoreMismatch):  # the double has neither settings nor catalogue: it is not the same door
        run_bulk(Cascade(TWO, escalate_when=always(), client=bedrock), TICKETS[:1], store=tmp_path / "r.db")


def test_an_export_holds_every_row_once_in_either_form(cascade, tmp_path):
    rows = list(run_bulk(cascade, TICKETS, store=tmp_path / "r.db"))
    store = Store(tmp_path / "r.db")
    assert store.export(tmp_path / "rows.ndjson") == len(rows)
    lines = [json.loads(line) for line in (tmp_path / "rows.ndjson").read_text(encoding="utf-8").splitlines()]
    assert [(line["ticket_id"], line["tier"]) for line in lines] == [(r.ticket_id, r.tier) for r in store]
    store.export(tmp_path / "rows.parquet")
    assert pd.read_parquet(tmp_path / "rows.parquet")["cost_usd"].sum() == pytest.approx(store.cost_usd)


def test_an_export_that_cannot_be_written_leaves_the_old_file(cascade, tmp_path, monkeypatch):
    list(run_bulk(cascade, TICKETS[:2], store=tmp_path / "r.db"))
    (tmp_path / "rows.ndjson").write_text("before")
    monkeypatch.setattr(Store, "__iter__", lambda self: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(StoreError, match="disk full"):
        Store(tmp_path / "r.db").export(tmp_path / "rows.ndjson")
    assert (tmp_path / "rows.ndjson").read_text() == "before"
    assert not list(tmp_path.glob("tmp*"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("no database at all, whatever its name says" * 50), "not a store"),
        (lambda path: path.mkdir(), "r.db"),
    ],
    ids=["a text file", "a folder"],
)
def test_a_file_that_is_no_store_is_refused_by_name(cascade, tmp_path, make, said):
    make(tmp_path / "r.db")
    with pytest.raises(StoreError, match=said):
        run_bulk(cascade, TICKETS, store=tmp_path / "r.db")


def test_a_store_that_does_not_exist_cannot_be_read(tmp_path):
    with pytest.raises(StoreError, match="no store"):
        Store(tmp_path / "nowhere.db")


def test_a_store_in_a_folder_that_does_not_exist_is_refused(cascade, tmp_path):
    with pytest.raises(StoreError, match="no folder"):
        run_bulk(cascade, TICKETS, store=tmp_path / "no" / "such" / "r.db")
