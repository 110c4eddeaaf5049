"""What a room of attendees needs: `python benchmarks/room.py [costs|fair|quota|memory]`, on an idle machine.

costs   runs the solved notebooks against one endpoint and reads from its journal what each lab calls; `--write` keeps the counts in
        benchmarks/room_costs.json and puts the tables into notebooks/FACILITATOR.md. Name labs to run only these: `costs 03 04`.
fair    so many attendees at one endpoint at once: does each get their share?
quota   the same with a quota on the strong model, with adaptive retries alone and with calls that are paced.
memory  what a kernel takes that has opened the workshop, with an endpoint of its own and with a shared one.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from door import ask, serve  # beside this file

from workshop_lib import (
    Cascade,
    Catalogue,
    Settings,
    Tier,
    Usage,
    invalid_output,
    load_tickets,
    open_workshop,
    run_bulk,
    stakes,
)
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.lessons import notebooks

COUNTS = PROJECT / "benchmarks" / "room_costs.json"
FACILITATOR = PROJECT / "notebooks" / "FACILITATOR.md"
BULK_WORKERS = 8
BURST_S = 10
"""How much of a minute's quota may be used at once."""
SYSTEM_GB = 4
"""What a machine keeps for itself."""
PROCESSES = 4
"""Attendees share so many processes: forty would spend the machine on imports."""


@contextmanager
def warm(time_scale: float = 0.05) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """One endpoint for everybody, its models loaded."""
    with serve(time_scale) as (url, server):
        with open_workshop(Settings(endpoint_url=url)) as workshop:
            for model in ("cheap", "strong"):
                workshop.triage(load_tickets("workshop")[0], model=model)
        yield url, server


# --- what the labs call


def count_lab(path: Path, url: str) -> dict[str, dict[str, int]]:
    """Model key to calls and token counters of one solved notebook. It runs as at the live door: the endpoint is not its own."""
    import nbformat
    from nbclient import NotebookClient

    catalogue = Catalogue.load()
    ask(url, "/_local/journal", method="DELETE")
    with tempfile.TemporaryDirectory() as cache:
        environ = {**os.environ, "WORKSHOP_ENDPOINT_URL": url, "WORKSHOP_CACHE_DIR": cache}
        resources = {"metadata": {"path": str(path.parent)}}
        notebook = NotebookClient(nbformat.read(path, 4), timeout=900, kernel_name="python3", resources=resources)
        notebook.execute(env=environ)
    counted: dict[str, dict[str, int]] = {}
    for request in ask(url, "/_local/journal")["requests"]:
        spec = catalogue.by_id(request["model_id"])
        if spec is None or request["operation"] == "CountTokens" or request["status"] != 200:
            continue
        of_model = counted.setdefault(spec.key, {"calls": 0, **asdict(Usage())})
        of_model["calls"] += 1
        for counter, tokens in request["usage"].items():
            of_model[counter] += tokens
    return counted


def usd(counted: Mapping[str, Mapping[str, int]], catalogue: Catalogue) -> float:
    """What the counted tokens cost at the catalogue's prices."""
    return float(sum(catalogue[key].price.cost(usage_of(counts)) for key, counts in counted.items()))


def usage_of(counts: Mapping[str, int]) -> Usage:
    """The token counters among the counts of a model."""
    return Usage(**{name: n for name, n in counts.items() if name != "calls"})


def cost_table(kept: Mapping[str, Any], catalogue: Catalogue) -> str:
    """The table of what each lab costs a person."""
    strong = catalogue["strong"]
    lines = [
        f"Counted on {kept['counted_on']} by `python benchmarks/room.py costs --write`; pair {kept['pair']}, prices of {catalogue.version}.\n",
        f"| lab | calls | of these {strong.label} | tokens in | tokens out | USD |",
        "|---|---|---|---|---|---|",
    ]
    total: dict[str, dict[str, int]] = {}
    for lab in [*sorted(kept["labs"]), "all"]:
        counted = kept["labs"].get(lab, total)
        uses = [usage_of(counts) for counts in counted.values()]
        calls, up = sum(c["calls"] for c in counted.values()), counted.get(strong.key, {}).get("calls", 0)
        prompt, out = sum(u.prompt_tokens for u in uses), sum(u.output_tokens for u in uses)
        lines.append(f"| {lab} | {calls:,} | {up:,} | {prompt:,} | {out:,} | {usd(counted, catalogue):.2f} |")
        if lab != "all":
            for key, counts in counted.items():
                of_model = total.setdefault(key, dict.fromkeys(counts, 0))
                for name, n in counts.items():
                    of_model[name] += n
    return "\n".join(lines)


def quota_table(kept: Mapping[str, Any], catalogue: Catalogue, *, minutes: float = 10) -> str:
    """How many people one quota of the strong model carries, if all run a lab's calls within the same so many minutes."""
    strong = catalogue["strong"]
    need = {
        lab: (counts[strong.key]["calls"], strong.quota_tokens(usage_of(counts[strong.key])))
        for lab, counts in sorted(kept["labs"].items())
        if strong.key in counts and counts[strong.key]["calls"] > 10  # fewer are nobody's trouble
    }
    limits = (200_000, 1_000_000, 4_000_000)
    lines = [
        f"| lab | strong calls a person | quota tokens a person | {' | '.join(f'{n:,} a minute' for n in limits)} |"
    ]
    lines.append("|---|---|---|" + "---|" * len(limits))
    for lab, (calls, tokens) in need.items():
        people = " | ".join(f"{math.floor(limit * minutes / tokens):,}" for limit in limits)
        lines.append(f"| {lab} | {calls:,} | {tokens:,.0f} | {people} |")
    return "\n".join(lines)


def put(page: str, name: str, table: str) -> str:
    """The page with the table between `<!-- name -->` and `<!-- /name -->`."""
    return re.sub(rf"(?s)(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m: f"{m[1]}{table}\n{m[2]}", page)


def costs(labs: Sequence[str], write: bool) -> None:
    """Run, count, print; keep with `write`."""
    catalogue = Catalogue.load()
    kept = json.loads(COUNTS.read_text(encoding="utf-8")) if COUNTS.is_file() else {"labs": {}}
    for path in notebooks.solved():
        lab = path.stem[:2]
        if not labs or lab in labs:
            with warm(time_scale=0) as (url, _):  # one each: a prompt cache that another lab has warmed would flatter
                kept["labs"][lab] = count_lab(path, url)
            print(lab, {key: counts["calls"] for key, counts in kept["labs"][lab].items()}, flush=True)
    kept["labs"] = dict(sorted(kept["labs"].items()))
    kept |= {"counted_on": datetime.now(UTC).date().isoformat(), "pair": catalogue.pair}
    print(f"\n{cost_table(kept, catalogue)}\n\n{quota_table(kept, catalogue)}")
    if write:
        COUNTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        page = FACILITATOR.read_text(encoding="utf-8")
        page = put(page, "costs", cost_table(kept, catalogue))
        FACILITATOR.write_text(put(page, "quota", quota_table(kept, catalogue)), encoding="utf-8", newline="\n")


# --- a room at one endpoint


@dataclass(frozen=True)
class Finished:
    """How one attendee came through."""

    seconds: float
    tickets: int
    failed: int


def attend(url: str, number: int, start_at: float, share: float | None, batch: int) -> Finished:
    """One attendee: a call, a cascade over some tickets one after the other, and as many in bulk. A client of their own, as in a kernel."""
    tickets = load_tickets("workshop")[:batch]
    with open_workshop(Settings(endpoint_url=url, tokens_per_minute=share)) as workshop:
        rule = stakes() | invalid_output()
        cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=rule, client=workshop.bedrock)
        for model in ("cheap", "strong"):
            workshop.bedrock.client(
                model
            )  # made before the clock runs: reading the service model is no share of the endpoint
        time.sleep(max(0.0, start_at - time.time()))
        started = time.perf_counter()
        single = workshop.triage(tickets[number % len(tickets)])
        outcomes = [cascade.run(ticket) for ticket in tickets]
        rows = list(run_bulk(cascade, tickets, workers=BULK_WORKERS))
        seconds = time.perf_counter() - started
    attempts = [single, *(a for outcome in outcomes for a in outcome.attempts)]
    failed = sum(a.error is not None for a in attempts) + sum(row.error is not None for row in rows)
    return Finished(seconds, 1 + len(outcomes) + sum(row.final for row in rows), failed)


def attend_some(
    url: str, numbers: Sequence[int], start_at: float, share: float | None, batch: int
) -> tuple[list[Finished], float]:
    """Several attendees in this process, each in a thread; and the CPU seconds of all of them."""
    with ThreadPoolExecutor(len(numbers)) as pool:
        waiting = [pool.submit(attend, url, number, start_at, share, batch) for number in numbers]
        time.sleep(max(0.0, start_at - time.time()))
        before = time.process_time()
        return [each.result() for each in waiting], time.process_time() - before


def room(name: str, attendees: int, batch: int, *, tpm: float | None = None, share: float | None = None) -> None:
    """All of them at one endpoint, released at the same moment; prints one row.

    Args:
        name: of the row.
        attendees: how many.
        batch: tickets, one after the other and again in bulk.
        tpm: quota of the strong model for all of them together, in tokens a minute; None: no quota.
        share: what each paces itself to; None: adaptive retries alone.
    """
    import psutil

    groups = [list(range(first, attendees, PROCESSES)) for first in range(min(PROCESSES, attendees))]
    context = multiprocessing.get_context("spawn")
    with warm() as (url, server), ProcessPoolExecutor(len(groups), mp_context=context) as pool:
        ask(url, "/_local/journal", method="DELETE")
        if tpm is not None:
            ask(url, "/_local/quotas", {"model": "strong", "tokens_per_minute": tpm, "burst_seconds": BURST_S}, "POST")
        process, start_at = psutil.Process(server.pid), time.time() + 8 + attendees / 2
        waiting = [pool.submit(attend_some, url, group, start_at, share, batch) for group in groups]
        time.sleep(max(0.0, start_at - time.time()))
        before = process.cpu_times()
        done = [group.result() for group in waiting]
        after, megabytes = process.cpu_times(), process.memory_info().rss / 1e6
        journal = ask(url, "/_local/journal")
    finished = [f for group, _ in done for f in group]
    seconds, calls = sorted(f.seconds for f in finished), journal["calls"]
    median, slowest = statistics.median(seconds), seconds[-1]
    cpu_ms = [
        1e3 * used / calls
        for used in (after.user + after.system - before.user - before.system, sum(c for _, c in done))
    ]
    cells = (
        name, attendees, f"{sum(f.tickets for f in finished):,}", sum(f.failed for f in finished), f"{median:.1f}", f"{slowest:.1f}",
        f"{slowest / median:.2f}", f"{jain([1 / s for s in seconds]):.3f}", f"{len(journal['requests']) / calls:.2f}",
        f"{cpu_ms[0]:.1f}", f"{cpu_ms[1]:.1f}", f"{megabytes:.0f}",
    )  # fmt: skip
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def jain(values: Sequence[float]) -> float:
    """Jain's index of fairness: 1 if all have the same, 1/n if one has everything (Jain, Chiu, Hawe, 1984)."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


HEAD = (
    "| | attendees | tickets | failed | median s | slowest s | slowest / median | Jain's index | requests a call | endpoint, CPU ms a call "
    "| attendees, CPU ms a call | endpoint MB |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def fair(attendees: int, batch: int) -> None:
    """One endpoint, no quota."""
    print(HEAD)
    for n in sorted({1, attendees}):
        room("no quota", n, batch)


def quota(attendees: int, batch: int, tpm: float) -> None:
    """One endpoint whose strong model has a quota for all of them together."""
    print(HEAD)
    for name, share in (
        ("adaptive retries alone", None),
        ("each paced to a share", 1),
        ("each paced to two shares", 2),
    ):
        room(name, attendees, batch, tpm=tpm, share=share and share * tpm / attendees)


MEMORY = """
import sys, psutil
from workshop_lib import Settings, load_tickets, open_workshop
from workshop_lib import display, evaluation
from workshop_lib.triage import load_labels
import ipykernel.kernelapp, matplotlib.pyplot, pandas
workshop = open_workshop(Settings(endpoint_url=sys.argv[1] or None))
workshop.triage(load_tickets("workshop")[0], model="cheap"); workshop.triage(load_tickets("workshop")[0])
print(psutil.Process().memory_info().rss / 1e6)
workshop.close()
"""


def memory() -> None:
    """MB of what a person runs, and how many people that makes."""
    import psutil

    with warm() as (url, server):
        kernels = {}
        for name, given in (("an endpoint of its own", ""), ("a shared endpoint", url)):
            command = [sys.executable, "-c", MEMORY, given]
            kernels[name] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        shared = psutil.Process(server.pid).memory_info().rss / 1e6
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port", "0"]
    lab = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(20)
    page = psutil.Process(lab.pid).memory_info().rss / 1e6
    lab.terminate()
    lab.wait(20)
    print(f"JupyterLab {page:.0f} MB, shared endpoint {shared:.0f} MB\n")
    print("| a kernel with | MB | people on 8 GB | 16 GB | 32 GB |\n|---|---|---|---|---|")
    for name, kernel in kernels.items():
        left = [(gb - SYSTEM_GB) * 1e3 - (shared if "shared" in name else 0) for gb in (8, 16, 32)]
        people = " | ".join(f"{math.floor(mb / (kernel + page)):,}" for mb in left)
        print(f"| {name} | {kernel:.0f} | {people} |")


def main() -> None:
    """One part."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("part", choices=["costs", "fair", "quota", "memory"])
    options.add_argument("labs", nargs="*", help="for costs: these only, e.g. 03 04")
    options.add_argument("--write", action="store_true", help="for costs: keep what was counted")
    options.add_argument("--attendees", type=int, default=40)
    options.add_argument("--tickets", type=int, default=30, help="one after the other, and again in bulk")
    options.add_argument("--tpm", type=float, default=1_000_000, help="for quota: tokens a minute of the strong model")
    given = options.parse_intermixed_args()  # so that labs may follow --write
    if given.part == "costs":
        costs(given.labs, given.write)
    elif given.part == "fair":
        fair(given.attendees, given.tickets)
    elif given.part == "quota":
        quota(given.attendees, given.tickets, given.tpm)
    else:
        memory()


if __name__ == "__main__":
    main()
