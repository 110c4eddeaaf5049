"""What a batch cascade of 5,000 tickets loses when 3 % of its output is broken: `python benchmarks/batch.py`, some minutes.

The texts are the first 1,000 of data/tickets.jsonl, five times over, under numbered ids. Lines are cut off, missing, doubled, or errors, in equal parts; their
order is never that of the input. Midway the driver is killed, and another one goes on from the store.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path

from workshop_lib import Bedrock, Cascade, Catalogue, Settings, Ticket, Tier, stakes
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.bulk import BatchJobs, BatchRun, Store, run_batch
from workshop_lib.local import BUCKET, ROLE_ARN, BatchFaults, LocalEndpoint
from workshop_lib.triage.datasets import read_tickets


def numbered(count: int) -> list[Ticket]:
    """Texts of the data set, each under an id of its own."""
    texts = itertools.cycle(list(itertools.islice(read_tickets(PROJECT / "data" / "tickets.jsonl"), 1_000)))
    return [ticket.model_copy(update={"id": f"N-{i:05d}"}) for i, ticket in enumerate(itertools.islice(texts, count))]


def phases(run: BatchRun) -> None:
    columns = ("tier", "state", "records", "answered", "refused", "lost", "unreadable", "doubled", "price", "cost_usd")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for phase in run.phases:
        cells = [getattr(phase, name) for name in columns[:-1]]
        print("| " + " | ".join(map(str, [*cells, f"{phase.cost_usd:.6f}"])) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tickets", type=int, default=5_000)
    parser.add_argument("--broken", type=float, default=0.03)
    given = parser.parse_args()
    tickets, share = numbered(given.tickets), given.broken / 4
    catalogue = Catalogue.load()
    with LocalEndpoint(catalogue, time_scale=0) as endpoint, tempfile.TemporaryDirectory() as folder:
        endpoint.warm_up()
        endpoint.batch.faults = BatchFaults(malformed=share, missing=share, doubled=share, error=share)
        client = Bedrock(Settings(endpoint_url=endpoint.url), catalogue)
        cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=stakes(), client=client)
        jobs = BatchJobs.of(client, bucket=BUCKET, role_arn=ROLE_ARN)
        store = Path(folder) / "run.db"
        started, cpu = time.perf_counter(), time.process_time()
        first = run_batch(cascade, tickets, jobs=jobs, store=store, poll_s=1)
        rows = list(itertools.islice(first, given.tickets // 2))
        first.close()  # the driver is gone, its jobs and its store are not
        run = run_batch(cascade, tickets, jobs=jobs, store=store, poll_s=1)
        rows += run
        took, busy = time.perf_counter() - started, time.process_time() - cpu
        final = Counter(row.ticket_id for row in rows if row.final)
        with Store(store) as kept:
            stored, stored_usd = len(kept), kept.cost_usd
        assert final == Counter(ticket.id for ticket in tickets)
        assert len({(row.ticket_id, row.tier) for row in rows}) == len(rows) == stored
        paid, journal = sum(row.cost_usd for row in rows), endpoint.journal.cost_usd
        assert abs(paid - journal) < 1e-9 * max(1, journal), (paid, journal)
        assert abs(paid - stored_usd) < 1e-9 * max(1, journal)
        phases(run)
        failed = sum(row.final and row.decision is None for row in rows)
        up = sum(row.final and row.escalated for row in rows)
        on_demand = sum(catalogue[row.tier].cost(row.usage) for row in rows)
        print(
            f"\n{given.tickets:,} tickets, {len(rows):,} rows, {len(final):,} final, {failed} without a decision, {up / given.tickets:.1%} went up"
        )
        print(f"paid USD {paid:.6f}, journal USD {journal:.6f}, on demand it would be USD {on_demand:.6f}")
        print(
            f"{took:.0f} s, {busy:.0f} s of them at work (models included), {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most"
        )


if __name__ == "__main__":
    main()
