"""kill -9 at any moment loses no ticket and pays again only for what was in flight."""

import contextlib
import faulthandler
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

import pytest

from tests.waiting import wait_until
from workshop_lib import Cascade, Settings, Tier, always, load_tickets
from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.bedrock.client import Bedrock
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.bulk import Store, StoreError, run_bulk

KILLS, WORKERS = 20, 4
TIERS = (Tier("cheap", repairs=0), Tier("strong", repairs=0))  # one call a row, so that calls can be counted by rows
TICKETS = 60
DEADLINE_S = 60
"""For whatever is waited for, a whole run at most: the test fails then, and says what did not come."""


def nursery(url: str) -> None:
    """Started once, because imports take seconds: for each line "<tickets> <store>" it forks a run.

    It says the run's process id, and "ended" when it has ended by itself; asked with another line, it says how.
    """
    import filelock  # noqa: F401  # else each run would load them again
    import tenacity  # noqa: F401

    tickets = [*load_tickets("workshop"), *load_tickets("calibration", limit=TICKETS - 30)]
    client = Bedrock(Settings(endpoint_url=url), Catalogue.load())
    for tier in TIERS:
        client.client(tier.model)
    cascade = Cascade(TIERS, escalate_when=always(), client=client)
    print("ready", flush=True)
    for line in sys.stdin:
        assert len(threading.enumerate()) == 1  # what another thread holds would be held for ever in the run
        count, store = line.strip().split(" ", 1)
        pid = os.fork()
        if not pid:
            faulthandler.dump_traceback_later(DEADLINE_S * 0.8, exit=True)  # one that hangs says where, and has ended
            try:
                list(run_bulk(cascade, tickets, workers=WORKERS, store=store, limit=int(count)))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        print(pid, flush=True)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # its id is nobody else's until it is waited for in earnest
        print("ended", flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


class Runs:
    """Bulk runs in processes of their own, one after the other."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, "-m", "tests.bulk.test_kill", url]
        self.process = subprocess.Popen(
            command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        assert self._hears() == "ready"

    def start(self, store: Path, tickets: int = TICKETS) -> None:
        self._says(f"{tickets} {store}")
        self.pid = int(self._hears())

    def has_ended(self) -> bool:
        """Whether it has ended by itself; waits a few milliseconds for it."""
        return bool(select.select([self.process.stdout], [], [], 0.003)[0])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """Wait for its end; its exit code, -9 if it was killed."""
        assert self._hears() == "ended"
        self._says("how?")
        return int(self._hears())

    def _says(self, line: str) -> None:
        self.process.stdin.write(f"{line}\n".encode())

    def _hears(self) -> str:
        said, _, _ = select.select([self.process.stdout], [], [], DEADLINE_S)
        assert said, f"no word of the run's process within {DEADLINE_S} s"
        return self.process.stdout.readline().decode().strip()


@pytest.fixture(scope="module")
def runs(_shared_endpoint):
    if sys.platform == "win32":
        pytest.skip("there is no SIGKILL and no fork")
    made = Runs(_shared_endpoint.url)
    yield made
    made.process.stdin.close()
    try:
        made.process.wait(DEADLINE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(made.process.pid, signal.SIGKILL)  # with its run, if one hangs
        made.process.stdout.close()


def kept(path):
    """Rows of the store; none if the run was killed before it had made one."""
    try:
        with Store(path) as store:
            return list(store)
    except StoreError:
        return []


@pytest.fixture
def settled(endpoint, monkeypatch):
    """Waits until what a killed run had asked is answered, too, and gives the number of all answers."""
    from workshop_lib.local.wire import (
        ServiceError,
    )  # with numpy and its threads, which a process that forks must not have

    begun, answer = Counter(), endpoint._answer

    async def counted(*given):
        begun["requests"] += 1
        try:
            return await answer(*given)
        except ServiceError:  # an answer, too
            raise
        except BaseException:  # killed in the middle of asking
            begun["requests"] -= 1
            raise

    def settled():
        wait_until(
            lambda: begun["requests"] <= len(endpoint.journal), "the answers to all requests", within_s=DEADLINE_S
        )
        return len(endpoint.journal)

    monkeypatch.setattr(endpoint, "_answer", counted)
    return settled


def test_a_run_that_is_killed_twenty_times_loses_nothing_and_repeats_only_calls_in_flight(
    runs, endpoint, settled, tmp_path
):
    """Whenever it is killed, the next run finds every row that was written, and at most one lost call a worker."""
    path, luck, kills, answered, rows = tmp_path / "r.db", random.Random(20), 0, 0, []
    endpoint.time_scale = 0.02
    while True:
        enough, pause_s = answered + luck.randint(0, 4), luck.uniform(0, 0.04)
        runs.start(path)
        wait_until(
            lambda: runs.has_ended() or (kills < KILLS and len(endpoint.journal) >= enough),  # noqa: B023
            "the end of a run", within_s=DEADLINE_S, pause_s=0,
        )  # fmt: skip
        if not runs.has_ended():
            time.sleep(pause_s)
            runs.kill()
        code = runs.end()
        calls, kept_rows = settled() - answered, kept(path)
        assert kept_rows[: len(rows)] == rows
        assert 0 <= calls - (len(kept_rows) - len(rows)) <= WORKERS
        answered, rows = answered + calls, kept_rows
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1

    assert kills >= KILLS / 2  # else the machine was too fast for this to say much
    assert Counter((r.tier, r.final) for r in rows) == {("cheap", False): TICKETS, ("strong", True): TICKETS}
    assert len({(r.ticket_id, r.tier) for r in rows}) == 2 * TICKETS
    assert all(r.decision or r.error.type == "InvalidOutput" for r in rows)
    assert all(r.attempts == 1 for r in rows)
    assert {e.status for e in endpoint.journal} == {200}
    assert len(rows) <= answered <= len(rows) + kills * WORKERS
    lost_usd = endpoint.journal.cost_usd - sum(r.cost_usd for r in rows)
    assert -1e-9 <= lost_usd <= (answered - len(rows)) * max(e.cost_usd for e in endpoint.journal) + 1e-9


def test_a_run_goes_on_at_once_in_the_store_of_a_killed_one(runs, endpoint, tmp_path):
    """No lock of the killed process is in the way, and a run that nothing disturbs pays for nothing twice."""
    endpoint.time_scale = 0.02
    path = tmp_path / "r.db"
    runs.start(path, tickets=12)
    wait_until(
        lambda: runs.has_ended() or len(endpoint.journal) >= 10, "ten calls of a run", within_s=DEADLINE_S, pause_s=0
    )
    assert not runs.has_ended()
    runs.kill()
    assert runs.end() == -signal.SIGKILL
    before = {(r.ticket_id, r.tier): r for r in kept(path)}
    runs.start(path, tickets=12)
    assert runs.end() == 0
    after = {(r.ticket_id, r.tier): r for r in kept(path)}
    paid = len(endpoint.journal)
    runs.start(path, tickets=12)
    assert runs.end() == 0
    assert len(endpoint.journal) == paid
    assert before.items() <= after.items()
    assert len(after) == 24


if __name__ == "__main__":
    nursery(*sys.argv[1:])
