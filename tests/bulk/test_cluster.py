"""On a Dask cluster every ticket is answered once, whoever dies; what a quota, a budget or a folder says holds over all workers."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from types import SimpleNamespace

import dask
import pandas as pd
import psutil
import pytest
from distributed import Client, LocalCluster

from workshop_lib import (
    Bedrock,
    Cascade,
    ConfigurationError,
    Settings,
    Tier,
    always,
    load_tickets,
    rule,
    run_bulk,
    stakes,
)
from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.bedrock.pacing import Quota
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.bulk import StoreError, StoreInUse, StoreMismatch, to_frame
from workshop_lib.bulk import cluster as cluster_module
from workshop_lib.bulk import partition as partition_module
from workshop_lib.bulk.cluster import ClusterLost, run_on_cluster
from workshop_lib.bulk.folder import Folder, Partition
from workshop_lib.bulk.turns import Turns, shared_limits
from workshop_lib.display import watch_cluster
from workshop_lib.triage.schema import Ticket

TIERS = (Tier("cheap", repairs=0), Tier("strong", repairs=0))  # one call a row, so that calls can be counted by rows
THREADS = 4
DEADLINE_S = 60
"""For whatever a test waits for: it fails then, by name."""


def several(count):
    """Tickets of different ids."""
    texts = load_tickets("workshop")
    return [
        Ticket(id=f"N-{i}", subject=texts[i % len(texts)].subject, body=texts[i % len(texts)].body)
        for i in range(count)
    ]


def thread_cluster():
    """Two workers that are threads of this process: all of Dask but the processes, in a fraction of the time."""
    return LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
    )


@pytest.fixture(scope="module")
def dask_cluster():
    with thread_cluster() as cluster:
        yield cluster


@pytest.fixture
def client(dask_cluster):
    with Client(dask_cluster) as client:
        yield client


@pytest.fixture
def start(client, cascade, tmp_path):
    """`run_on_cluster` with what the tests have in common."""

    def start(tickets, *, cascade=cascade, **options):
        settings = {"out": tmp_path / "run.parquet", "cluster": client, "partition": 7, "threads": THREADS}
        return run_on_cluster(cascade, tickets, **(settings | options))

    return start


def wait_for_calls(endpoint, count, *, while_true=lambda: True):
    """Until so many requests are answered; fails where they never are."""
    until = time.monotonic() + DEADLINE_S
    while (answered := len(endpoint.journal)) < count:
        assert while_true(), f"the run has ended by itself, after {answered} calls"
        assert time.monotonic() < until, f"only {answered} of {count} calls within {DEADLINE_S} s"
        time.sleep(0.01)


def once_each(run, tickets):
    """The frame, if it has exactly one final row for each ticket, in the tickets' order."""
    frame = run.to_frame()
    assert list(frame[frame.final].ticket_id) == [ticket.id for ticket in tickets]
    assert not frame.duplicated(["ticket_id", "tier"]).any()
    return frame


def test_it_gives_the_rows_of_one_process_in_the_tickets_order(start, cascade, endpoint, tmp_path):
    tickets = load_tickets("workshop")
    with start(iter(tickets)) as run:
        parts = list(run)
    frame, alone = once_each(run, tickets), to_frame(run_bulk(cascade, tickets))
    assert [run.stopped, run.total, run.tickets, run.skipped] == ["finished", 30, 30, 0]
    assert sorted(part.number for part in parts) == [0, 1, 2, 3, 4]
    assert sum(part.cost_usd for part in parts) == pytest.approx(run.cost_usd)
    assert run.cost_usd == pytest.approx(alone.cost_usd.sum()) == pytest.approx(frame.cost_usd.sum())
    same = [
        "ticket_id",
        "tier",
        "decision.category",
        "decision.needs_human",
        "final",
        "escalated",
        "usage.input_tokens",
    ]
    by = ["ticket_id", "tier"]
    pd.testing.assert_frame_equal(
        frame[same].sort_values(by, ignore_index=True),
        alone[same].sort_values(by, ignore_index=True),
        check_dtype=False,
    )
    assert run.escalated == len(frame) - 30 > 0
    assert pd.read_parquet(tmp_path / "run.parquet").shape == frame.shape
    assert not (tmp_path / "run.parquet" / "_work").exists()


def test_a_finished_run_asks_nothing_again_and_needs_no_cluster(start, endpoint):
    tickets = several(9)
    list(start(tickets))
    paid = len(endpoint.journal)
    with start(tickets, cluster="tcp://127.0.0.1:1") as again:
        assert list(again) == []
    assert [again.stopped, again.skipped, again.tickets, again.dashboard] == ["finished", 9, 0, ""]
    assert len(endpoint.journal) == paid


@pytest.mark.parametrize("partition", [1, 10_000])
def test_partitions_may_be_small_or_larger_than_all(start, partition):
    with start(several(3), partition=partition) as run:
        assert len(list(run)) == (3 if partition == 1 else 1)
    once_each(run, several(3))


def test_it_is_watched_in_one_line(start):
    pictures = []
    parts = watch_cluster(start(several(9)), draw=pictures.append)
    assert len(pictures) == 2 + len(parts) == 4
    assert "9 of 9 tickets" in pictures[-1]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="a later Python does not mind")
def test_dasks_profiler_which_can_lock_a_process_up_stands_still_where_a_run_is(client, start):
    list(start(several(3)))
    running = client.run(lambda dask_worker: dask_worker.periodic_callbacks["profile"].is_running())
    assert set(running.values()) == {False}


def test_no_tickets_are_no_work_and_an_empty_table(start):
    with start([]) as run:
        assert list(run) == []
    assert len(run.to_frame()) == 0
    assert {"ticket_id", "decision.category", "cost_usd"} <= set(run.to_frame().columns)


def test_a_function_of_a_notebook_goes_to_the_workers(start, bedrock):
    limit = 10

    @rule
    def long(attempt):
        return f"{len(attempt.item.body)} characters" if len(attempt.item.body) > limit else None

    with start(several(2), cascade=Cascade(TIERS, escalate_when=long, client=bedrock)) as run:
        list(run)
    assert run.escalated == 2
    assert "characters" in run.to_frame().reasons[0]


@pytest.mark.parametrize("changed", ["rule", "tickets", "partition"])
def test_a_folder_of_another_run_is_refused(start, bedrock, endpoint, changed):
    list(start(several(3)))
    paid = len(endpoint.journal)
    other = {
        "rule": {"cascade": Cascade([Tier("cheap"), Tier("strong")], escalate_when=always(), client=bedrock)},
        "tickets": {},
        "partition": {"partition": 2},
    }[changed]
    with pytest.raises(StoreMismatch, match=changed):
        start(several(4 if changed == "tickets" else 3), **other)
    assert len(endpoint.journal) == paid


def test_a_folder_is_one_drivers_at_a_time_and_holds_nothing_else(start, tmp_path):
    with start(several(3)), pytest.raises(StoreInUse, match=r"run\.parquet"):
        start(several(3))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(StoreError, match="a folder of its own"):
        start(several(3), out=tmp_path / "mine")
    with pytest.raises(StoreError, match="cannot be made"):
        start(several(3), out=tmp_path / "mine" / "thesis.txt")


def test_what_cannot_work_is_refused_before_anything_is_paid_for(start, bedrock, endpoint):
    lock = threading.Lock()
    held = Cascade(TIERS, escalate_when=rule(lambda attempt: lock.locked()), client=bedrock)
    early = Cascade(TIERS, start_early=lambda item: True, client=bedrock)
    with pytest.raises(ConfigurationError, match="N-2 occurs twice"):
        start([*several(9), several(3)[2]])
    with pytest.raises(ConfigurationError, match="another process"):
        start(several(3), cascade=held)
    with pytest.raises(ValueError, match="start_early"):
        start(several(3), cascade=early)
    for name in ("partition", "workers", "threads", "budget_usd", "deadline_s"):
        with pytest.raises(ValueError, match=name):
            start(several(3), **{name: 0})
    assert len(endpoint.journal) == 0


def test_two_workers_never_get_the_same_turn(client, start):
    async def turns(dask_worker):
        """Ten turns of one a minute: how long each has to wait."""
        (name,) = (name for name in dask_worker.plugins if name.startswith("bulk-"))
        turn = getattr(dask_worker.scheduler, name)
        return [await turn(model="cheap", tokens=0, reserved=0, used=0) for _ in range(10)]

    with start(several(1), limits={"cheap": Quota(requests_per_minute=1)}):
        waits = sorted(wait for each in client.run(turns).values() for wait in each)
    assert [round(wait / 60) for wait in waits] == list(range(20))


def test_the_workers_share_the_sessions_share(client, start, endpoint, make_bedrock):
    async def turns(dask_worker):
        (name,) = (name for name in dask_worker.plugins if name.startswith("bulk-"))
        return await getattr(dask_worker.scheduler, name)(model="strong", tokens=60, reserved=0, used=0)

    bedrock = make_bedrock(Settings(endpoint_url=endpoint.url, tokens_per_minute=60))
    with start(several(1), cascade=Cascade(TIERS, client=bedrock)):
        assert sorted(round(wait / 60) for wait in client.run(turns).values()) == [1, 2]
    given = {"strong": Quota(requests_per_minute=5, tokens_per_minute=90), "cheap": Quota(7)}
    shared = {"strong": Quota(requests_per_minute=5, tokens_per_minute=60), "cheap": Quota(7)}
    assert shared_limits(Cascade(TIERS, client=bedrock), given) == shared


def test_tiers_that_name_one_model_differently_share_its_part_of_the_quota(make_bedrock, endpoint):
    bedrock = make_bedrock(Settings(endpoint_url=endpoint.url, tokens_per_minute=6_000))
    twice = Cascade([Tier("strong"), Tier(bedrock.catalogue["strong"].key, name="again")], client=bedrock)
    found = shared_limits(twice, {})
    assert sorted(quota.tokens_per_minute for quota in found.values()) == [3_000, 3_000]


def test_turns_that_workers_have_left_are_somebody_elses():
    turns, nothing = (
        Turns("run", "driver", {"cheap": Quota(requests_per_minute=60)}),
        {"tokens": 0, "reserved": 0, "used": 0},
    )
    asyncio.run(turns.start(SimpleNamespace(handlers={})))
    waits = [turns._turn(model="cheap", left=0, **nothing) for _ in range(30)]
    assert waits[-1] > 25
    assert turns._turn(model="cheap", left=29, **nothing) < 3


def test_a_budget_is_kept_over_all_partitions_and_a_larger_one_goes_on(start, endpoint):
    tickets = several(28)
    with start(tickets, budget_usd=0.05) as run:
        list(run)
    assert run.stopped == "budget"
    assert 0 < run.tickets < 28
    assert run.cost_usd == pytest.approx(endpoint.journal.cost_usd)
    assert 0.01 < run.cost_usd < 0.05
    with start(tickets, budget_usd=1) as more:
        list(more)
    once_each(more, tickets)
    assert more.skipped == run.tickets
    assert run.cost_usd + more.cost_usd == pytest.approx(endpoint.journal.cost_usd)


def test_an_interrupted_run_keeps_what_was_answered_and_goes_on(start, endpoint):
    tickets, endpoint.time_scale = several(60), 0.01
    run = start(tickets)
    parts = iter(run)
    next(parts)
    with pytest.raises(KeyboardInterrupt, match="goes on from there"):
        parts.throw(KeyboardInterrupt)
    answered = len(endpoint.journal)
    assert run.stopped == "interrupted"
    assert 0 < run.tickets < 60
    with start(tickets) as more:
        list(more)
    assert [more.tickets, more.skipped, more.cut_off] == [60 - run.tickets, run.tickets, 0]
    assert len(endpoint.journal) == len(once_each(more, tickets)) > answered


def test_the_workers_stop_when_the_driver_has_gone(dask_cluster, cascade, start, endpoint, tmp_path):
    tickets, endpoint.time_scale = several(60), 0.01
    theirs = Client(dask_cluster)
    lost = start(tickets, cluster=theirs)
    parts = iter(lost)
    next(parts)
    theirs.close()  # as a killed process's connection would
    lost._lock.release()
    with start(tickets) as run:
        list(run)
    parts.close()
    assert run.cut_off == 0
    assert len(endpoint.journal) == len(once_each(run, tickets))


def test_a_mistake_in_a_rule_ends_the_run_and_is_shown(start, client, bedrock, tmp_path):
    """An OSError, too, which Dask's own errors of a lost connection are."""

    @rule
    def wrong(attempt):
        raise FileNotFoundError("in a rule")

    with pytest.raises(FileNotFoundError, match="in a rule"):
        list(start(several(15), cascade=Cascade(TIERS, escalate_when=wrong, client=bedrock)))
    kept = client.run(lambda dask_worker: [name for name in dask_worker.plugins if name.startswith("bulk-")])
    assert not any(kept.values())  # the other workers were told to stop
    list(start(several(3), out=tmp_path / "other"))  # the cluster is as good as before


def test_a_partition_that_is_ended_before_it_begins_again_costs_what_it_has_cost(start, client):
    run = start(several(3))
    run._told[0] = Partition(0, tickets=2, cost_usd=1.0)
    run._active[client.submit(Partition, 0, stopped="interrupted")] = cluster_module._Job(0, b"")
    run.close()
    assert (run.tickets, run.cost_usd) == (2, 1.0)


def test_a_partition_is_finished_if_all_its_tickets_are_whatever_ended_the_run(
    cascade, endpoint, tmp_path, monkeypatch
):
    def ended(*given, **settings):
        run = run_bulk(*given, **settings)
        list(run)
        run.stopped = "closed"
        return run

    monkeypatch.setattr(partition_module, "run_bulk", ended)
    folder = Folder(tmp_path)
    folder.work.mkdir()
    bench = SimpleNamespace(cascade=cascade, limits={}, stop=threading.Event())
    said = partition_module._answer(partition_module.Work("run", folder, 1), 0, several(1), bench, None)
    assert (said.tickets, said.stopped) == (1, "finished")
    assert folder.finished(0, 1, run="run") == said


def test_a_new_driver_leaves_alone_what_a_worker_of_the_last_one_still_writes(tmp_path):
    folder, writing = Folder(tmp_path), tmp_path / "_part-00003.parquet.1.tmp"
    writing.touch()
    with folder.claim({"task": "triage"}):
        assert writing.exists()
    folder.tidy()
    assert not writing.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="a folder cannot be synced")
def test_a_file_is_on_the_disk_under_its_name_before_what_it_replaces_is_removed(cascade, tmp_path, monkeypatch):
    folder, synced = Folder(tmp_path), []
    folder.work.mkdir()
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    folder.finish([], cascade.task.schema, Partition(0), run="run")
    assert synced == [folder.part(0).stat().st_ino, tmp_path.stat().st_ino]


def test_a_lost_scheduler_is_said_and_loses_nothing(start, endpoint):
    tickets, endpoint.time_scale = several(60), 0.01
    impatient = dask.config.set({"distributed.comm.timeouts.connect": "0.2s"})
    with impatient, thread_cluster() as cluster, Client(cluster) as client:
        run = start(tickets, cluster=client)
        parts = iter(run)
        next(parts)
        cluster.sync(cluster.scheduler.close)
        with pytest.raises(ClusterLost, match="run the same call"):
            list(parts)
    with start(tickets) as more:
        list(more)
    frame = once_each(more, tickets)
    assert more.skipped > 0
    assert len(frame) <= len(endpoint.journal) <= len(frame) + 2 * THREADS


def test_no_cluster_is_said(start, monkeypatch):
    monkeypatch.setattr(cluster_module, "CONNECT_S", 0.1)
    with pytest.raises(ClusterLost, match="no cluster with workers"):
        start(several(3), cluster="tcp://127.0.0.1:1")


def test_a_cluster_whose_workers_have_all_gone_is_said(start, monkeypatch):
    monkeypatch.setattr(cluster_module, "CONNECT_S", 0.1)
    monkeypatch.setattr(cluster_module, "LOOK_S", 0.1)
    with thread_cluster() as cluster, Client(cluster) as client:
        run = start(several(3), cluster=client)
        client.retire_workers(list(client.nthreads()))
        with pytest.raises(ClusterLost, match="no worker"):
            list(run)
        with pytest.raises(ClusterLost, match="no cluster with workers"):
            start(several(3), cluster=client)


needs_sigkill = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


@needs_sigkill
def test_a_killed_worker_loses_nothing_and_repeats_calls_in_flight(start, bedrock, endpoint):
    """On a cluster of our own, which listens on loopback alone."""
    tickets, endpoint.time_scale = several(90), 0.02
    cascade = Cascade(TIERS, escalate_when=stakes(), client=bedrock)
    run = start(tickets, cascade=cascade, cluster=None, workers=1, partition=90)
    ours = [p for p in psutil.Process().children(recursive=True) if p.net_connections("tcp")]
    listening = {
        c.laddr.ip for p in [psutil.Process(), *ours] for c in p.net_connections("tcp") if c.status == "LISTEN"
    }
    assert listening == {"127.0.0.1"}
    assert run.dashboard.startswith("http://127.0.0.1:")

    def kill():
        wait_for_calls(endpoint, 50)
        os.kill(worker, signal.SIGKILL)

    (worker,) = run._client.run(os.getpid).values()
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    list(run)
    killer.join(DEADLINE_S)
    frame = once_each(run, tickets)
    assert [run.stopped, run.tickets, run.cut_off] == ["finished", 90, 1]
    assert len(frame) <= len(endpoint.journal) <= len(frame) + THREADS
    assert run.cost_usd == pytest.approx(frame.cost_usd.sum())


@needs_sigkill
def test_a_killed_driver_is_gone_on_from(start, bedrock, endpoint, tmp_path):
    tickets, endpoint.time_scale = several(90), 0.02
    cascade = Cascade(TIERS, escalate_when=stakes(), client=bedrock)
    out = tmp_path / "run.parquet"
    driver = subprocess.Popen([sys.executable, "-m", "tests.bulk.test_cluster", endpoint.url, str(out)], cwd=PROJECT)
    try:
        wait_for_calls(endpoint, 60, while_true=lambda: driver.poll() is None)
    finally:
        driver.kill()
        driver.wait(DEADLINE_S)
    (out / "_part-00003.parquet.1.tmp").write_text("half")  # as one who is killed while writing leaves it
    with start(tickets, cascade=cascade, partition=30) as run:
        list(run)
    frame = once_each(run, tickets)
    assert run.skipped > 0
    assert len(frame) <= len(endpoint.journal) <= len(frame) + run.cut_off * THREADS
    assert Counter(entry.status for entry in endpoint.journal) == {200: len(endpoint.journal)}
    assert not list(out.glob("_*.tmp"))


if __name__ == "__main__":
    client = Bedrock(Settings(endpoint_url=sys.argv[1]), Catalogue.load())
    cascade = Cascade(TIERS, escalate_when=stakes(), client=client)
    with thread_cluster() as dask:
        list(run_on_cluster(cascade, several(90), out=sys.argv[2], cluster=dask, partition=30, threads=THREADS))
