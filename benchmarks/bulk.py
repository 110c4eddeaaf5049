"""What running in bulk costs and reaches: `python benchmarks/bulk.py`, on an idle machine, about five minutes.

The endpoint runs in a process of its own, so that the client's time and memory are the client's alone. Everything is a ratio within
this run: to what the latency allows, to a bare boto3 loop that makes the same calls, to a short run, to what the quota allows.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from door import ask, serve  # beside this file

from workshop_lib import TRIAGE, Bedrock, Cascade, Catalogue, Decision, Reply, Settings, Ticket, Tier, Usage, run_bulk
from workshop_lib.bedrock.pacing import Quota
from workshop_lib.bedrock.replies import first_object
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.triage.generator import generate

CHEAP = [Tier("cheap", repairs=0)]


@contextmanager
def endpoint(*, latency_ms: float, time_scale: float = 1.0) -> Iterator[str]:
    """An endpoint in its own process whose every call takes the same time."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        for file in (PROJECT / "data").iterdir():
            if file.is_file():
                shutil.copy2(file, data / file.name)
        models = json.loads((data / "models.json").read_text(encoding="utf-8"))
        for entry in models["models"].values():
            entry["latency"] |= {"p50_ms": latency_ms, "p95_ms": latency_ms}
        (data / "models.json").write_text(json.dumps(models), encoding="utf-8")
        with serve(time_scale, WORKSHOP_DATA_DIR=folder) as (url, _):
            client = Bedrock(Settings(endpoint_url=url), Catalogue.load())
            list(run_bulk(Cascade(CHEAP, client=client), generate(3, seed=99)))  # trains the models
            yield url


def throughput() -> None:
    """Tickets a second against workers / latency."""
    print("| workers | tickets | tickets a second | workers / latency | reached |\n|---|---|---|---|---|")
    with endpoint(latency_ms=650) as url:
        for workers, rounds in ((8, 20), (16, 40), (64, 50)):
            client = Bedrock(Settings(endpoint_url=url), Catalogue.load())
            tickets = list(generate(workers * (rounds + 1), seed=workers))
            warm, rest = tickets[:workers], tickets[workers:]
            cascade = Cascade(CHEAP, client=client)
            list(run_bulk(cascade, warm, workers=workers))  # connections are made
            started = time.perf_counter()
            list(run_bulk(cascade, rest, workers=workers))
            rate, ideal = len(rest) / (time.perf_counter() - started), workers / 0.650
            print(f"| {workers} | {len(rest)} | {rate:.1f} | {ideal:.1f} | {rate / ideal:.1%} |", flush=True)


def bare_loop(client: Any, spec: Any, tickets: Sequence[Ticket], workers: int) -> list[Decision]:
    """What one would write without this package: a pool, a call, a validation."""
    tool = TRIAGE.tool.to_wire()

    def one(ticket: Ticket) -> Decision:
        response = client.converse(
            modelId=spec.id,
            messages=[{"role": "user", "content": [{"text": TRIAGE.describe(ticket)}]}],
            system=[{"text": TRIAGE.system}],
            toolConfig=tool,
            inferenceConfig={"maxTokens": 512, "temperature": 0.0},
        )
        block = response["output"]["message"]["content"][0]
        given = block["toolUse"]["input"] if "toolUse" in block else first_object(block["text"])
        return Decision.model_validate(given)

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, tickets))


def cpu() -> None:
    """CPU a ticket of this process, against the bare loop's."""
    spent: dict[str, list[float]] = {"bare boto3 loop": [], "run_bulk": [], "run_bulk with a store": []}
    with endpoint(latency_ms=50) as url, tempfile.TemporaryDirectory() as folder:
        catalogue = Catalogue.load()
        client = Bedrock(Settings(endpoint_url=url), catalogue)
        cascade, raw = Cascade(CHEAP, client=client), client.client("cheap")
        for turn in range(5):
            tickets = list(generate(600, seed=turn))
            for name, seconds in spent.items():
                started = time.process_time()
                if name.startswith("bare"):
                    bare_loop(raw, catalogue["cheap"], tickets, 16)
                else:
                    store = Path(folder) / f"{turn}.db" if "store" in name else None
                    for _ in run_bulk(cascade, tickets, workers=16, store=store):
                        pass
                seconds.append((time.process_time() - started) / len(tickets) * 1e3)
    base = median(spent["bare boto3 loop"])
    print("| | ms CPU a ticket (median of 5) | ratio |\n|---|---|---|")
    for name, each in spent.items():
        print(f"| {name} | {median(each):.2f} | {median(each) / base:.2f} |")


class Canned:
    """A client that answers at once: what memory grows by is then the runner's."""

    def converse(self, model: str, messages: Any, **settings: Any) -> Reply:
        """Always the same decision."""
        given = {"category": "other", "priority": "P3", "confidence": 0.9, "reasoning": "-", "needs_human": False}
        message = {
            "role": "assistant",
            "content": [{"toolUse": {"toolUseId": "t", "name": "record_triage", "input": given}}],
        }
        return Reply(model, model, message, "tool_use", Usage(900, 60), 0.0001, 600, 1)


def memory(count: int, store: bool) -> None:
    """One run in this process; prints its peak in MB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.db" if store else None
        for _ in run_bulk(Cascade(CHEAP, client=Canned()), generate(count), store=path):
            pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak / (1024 if sys.platform != "darwin" else 1024 * 1024))


def memories() -> None:
    """Peak memory of a long run against a short one."""
    print("| tickets | peak MB without a store | with a store |\n|---|---|---|")
    peaks = {}
    for count in (1_000, 100_000):
        for store in (0, 1):
            command = [sys.executable, __file__, "--memory", str(count), "--store", str(store)]
            peaks[count, store] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"| {count:,} | {peaks[count, 0]:.1f} | {peaks[count, 1]:.1f} |", flush=True)
    print(f"| ratio | {peaks[100_000, 0] / peaks[1_000, 0]:.2f} | {peaks[100_000, 1] / peaks[1_000, 1]:.2f} |")


def limited() -> None:
    """600 tickets at 20 requests a second: lost tickets, extra HTTP requests, time against the ideal."""
    count, rate, burst = 600, 20, 20
    ideal = (count - burst) / rate
    quota = {"requests_per_minute": rate * 60, "burst_seconds": burst / rate}
    print("| | lost | HTTP requests a ticket | seconds / ideal |\n|---|---|---|---|")
    with endpoint(latency_ms=200) as url:
        for name, limits in (
            ("run_bulk with a limiter", {"cheap": Quota(requests_per_minute=rate * 60)}),
            ("run_bulk, adaptive retries alone", None),
        ):
            client = Bedrock(Settings(endpoint_url=url), Catalogue.load(), max_attempts=10)
            tickets = list(generate(count, seed=rate))
            ask(url, "/_local/quotas", {"model": "cheap", **quota}, "POST")
            ask(url, "/_local/journal", method="DELETE")
            started = time.perf_counter()
            rows = list(run_bulk(Cascade(CHEAP, client=client), tickets, workers=64, limits=limits))
            seconds = time.perf_counter() - started
            throttled = sum(row.error is not None and row.error.type == "Throttled" for row in rows)
            requests = len(ask(url, "/_local/journal")["requests"])
            print(f"| {name} | {throttled} | {requests / count:.3f} | {seconds / ideal:.2f} |", flush=True)


def main() -> None:
    """All of it, or one part."""
    parts = {"throughput": throughput, "cpu": cpu, "memory": memories, "limited": limited}
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; all if none is named")
    options.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options.add_argument("--store", type=int, default=0, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.memory:
        memory(given.memory, bool(given.store))
        return
    for name in given.parts or parts:
        print(f"\n### {name}\n\n{parts[name].__doc__}\n")
        parts[name]()


if __name__ == "__main__":
    main()
