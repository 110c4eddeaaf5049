"""What a Dask cluster costs and what it survives: `python benchmarks/cluster.py [--tickets 50000]`, on an idle machine.

A local cluster of two workers, at an endpoint in a process of its own. Throughput is a ratio within this run: to one process with as
many calls in flight, in turns. Then one worker is killed, and then the driver, and every call of the endpoint's journal is counted.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from bulk import endpoint  # beside this file
from door import ask

from workshop_lib import Bedrock, Cascade, Catalogue, Settings, Ticket, Tier, load_tickets, run_bulk, stakes
from workshop_lib.bedrock.pacing import Quota
from workshop_lib.bulk.cluster import ClusterRun, run_on_cluster

TIERS = (Tier("cheap", repairs=0), Tier("strong", repairs=0))  # one call a row, so that calls can be counted by rows
WORKERS = 2


def tickets(count: int) -> list[Ticket]:
    """So many of different ids: the shipped texts over and over, for it is not quality that is measured."""
    texts = itertools.cycle(load_tickets())
    return [text.model_copy(update={"id": f"B-{i:06d}"}) for i, text in zip(range(count), texts, strict=False)]


def cascade(url: str) -> Cascade[Any]:
    """Cheap, then strong where much is at stake."""
    return Cascade(TIERS, escalate_when=stakes(), client=Bedrock(Settings(endpoint_url=url), Catalogue.load()))


def cluster_run(url: str, count: int, out: Path, given: argparse.Namespace, **options: Any) -> ClusterRun:
    return run_on_cluster(
        cascade(url), tickets(count), out=out, workers=WORKERS, threads=given.threads, partition=given.partition, **options
    )  # fmt: skip


def throughput(given: argparse.Namespace) -> None:
    """Tickets a second on the cluster, once it is up, against one process with as many calls in flight, in turns."""
    count = min(given.tickets, given.compared)
    print("| turn | one process | cluster | ratio |\n|---|---|---|---|")
    ratios = []
    with endpoint(latency_ms=given.latency_ms) as url, tempfile.TemporaryDirectory() as folder:
        list(
            run_bulk(cascade(url), tickets(count), workers=32)
        )  # the endpoint reads each text once, which takes longest
        for turn in range(given.turns):
            rates = {}
            for name in ("one", "cluster") if turn % 2 == 0 else ("cluster", "one"):
                if name == "one":
                    started = time.perf_counter()
                    store = Path(folder) / f"{turn}.db"
                    for _ in run_bulk(cascade(url), tickets(count), workers=WORKERS * given.threads, store=store):
                        pass
                    rates[name] = count / (time.perf_counter() - started)
                else:
                    with cluster_run(url, count, Path(folder) / f"{turn}.parquet", given) as run:
                        for _ in run:
                            last = run.elapsed_s
                        rates[name] = count / last
            ratios.append(rates["cluster"] / rates["one"])
            print(f"| {turn + 1} | {rates['one']:.1f} | {rates['cluster']:.1f} | {ratios[-1]:.2f} |", flush=True)
    print(f"| median | | | {median(ratios):.2f} |")


def limited(given: argparse.Namespace) -> None:
    """600 tickets at 20 requests a second, 32 calls in flight: what the endpoint throttled, and time against the ideal."""
    count, rate = 600, 20
    given = argparse.Namespace(**{**vars(given), "threads": 16, "partition": 50})
    limits = {model: Quota(requests_per_minute=rate * 60) for model in ("cheap", "strong")}
    print("| | requests | throttled | seconds / ideal |\n|---|---|---|---|")
    with endpoint(latency_ms=200) as url, tempfile.TemporaryDirectory() as folder:
        for model in limits:
            ask(url, "/_local/quotas", {"model": model, "requests_per_minute": rate * 60, "burst_seconds": 1}, "POST")
        for name in ("one process", "cluster"):
            ask(url, "/_local/journal", method="DELETE")
            if name == "one process":
                started = time.perf_counter()
                for _ in run_bulk(cascade(url), tickets(count), workers=WORKERS * given.threads, limits=limits):
                    pass
                last = time.perf_counter() - started
            else:
                with cluster_run(url, count, Path(folder) / "run.parquet", given, limits=limits) as run:
                    for _ in run:
                        last = run.elapsed_s
            requests = ask(url, "/_local/journal")["requests"]
            throttled = sum(entry["status"] == 429 for entry in requests)
            print(f"| {name} | {len(requests)} | {throttled} | {last / (count / rate):.2f} |", flush=True)


def kills(given: argparse.Namespace) -> None:
    """A worker is killed at a third, the driver at two thirds, and the same call is made again."""
    count = given.tickets
    with endpoint(latency_ms=given.latency_ms) as url, tempfile.TemporaryDirectory() as folder:
        ask(url, "/_local/journal", method="DELETE")
        out, started = Path(folder) / "run.parquet", time.perf_counter()
        command = [sys.executable, __file__, *sys.argv[1:], "--drive", url, "--out", str(out)]
        driver = subprocess.Popen(command)
        parts = -(-count // given.partition)
        _until(out, parts // 3, driver)
        children = psutil.Process(driver.pid).children(recursive=True)
        worker = next(c for c in children if "spawn_main" in " ".join(c.cmdline()))
        os.kill(worker.pid, signal.SIGKILL)
        _until(out, 2 * parts // 3, driver)
        driver.kill()
        driver.wait()
        assert not psutil.wait_procs(children, timeout=60)[1], "workers outlived their driver"
        with cluster_run(url, count, out, given) as run:
            for _ in run:
                pass
        seconds, frame = time.perf_counter() - started, run.to_frame()
        calls = sum(entry["status"] == 200 for entry in ask(url, "/_local/journal")["requests"])
    final = frame[frame.final]
    print(
        "| tickets | final rows | different tickets | rows | calls | repeated | cut off after the driver's death | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {count} | {len(final)} | {final.ticket_id.nunique()} | {len(frame)} | {calls} | {calls - len(frame)} | {run.cut_off} "
        f"| {seconds:.0f} |"
    )
    bound = (1 + WORKERS) * given.threads
    print(f"\nBound on what is repeated: 1 worker + {WORKERS} with the driver, {given.threads} calls each: {bound}.")
    assert list(final.ticket_id) == [ticket.id for ticket in tickets(count)]
    assert not frame.duplicated(["ticket_id", "tier"]).any()
    assert 0 <= calls - len(frame) <= bound


def _until(out: Path, parts: int, driver: subprocess.Popen[bytes]) -> None:
    while len(list(out.glob("part-*.parquet"))) < parts:
        assert driver.poll() is None, "the driver ended too early"
        time.sleep(0.1)


def main() -> None:
    """All of it, or one part."""
    parts = {"throughput": throughput, "limited": limited, "kills": kills}
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; all if none is named")
    options.add_argument("--tickets", type=int, default=50_000, help="of the run with kills")
    options.add_argument("--compared", type=int, default=10_000, help="tickets of each run that is compared, at most")
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--threads", type=int, default=4, help="calls in flight of each worker")
    options.add_argument("--partition", type=int, default=100)
    options.add_argument("--latency-ms", type=float, default=130)
    options.add_argument("--drive", help=argparse.SUPPRESS)
    options.add_argument("--out", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.drive:
        list(cluster_run(given.drive, given.tickets, Path(given.out), given))
        return
    for name in given.parts or parts:
        print(f"\n### {name}\n\n{parts[name].__doc__}\n")
        parts[name](given)


if __name__ == "__main__":
    main()
