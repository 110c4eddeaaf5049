"""Which way of working through very many tickets is quick enough, which is cheapest, and what stops each: a process, a cluster, batch jobs.

found = scale_plan(Traffic.of(outcomes), catalogue, quotas={"strong": Quota(tokens_per_minute=2e6)}, deadline_h=48)
print(found)
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.bedrock.pacing import Quota
from workshop_lib.cascade.attempt import Converses
from workshop_lib.operations.capacity import Plan, Traffic, plan
from workshop_lib.triage.task import TRIAGE

PROCESS, CLUSTER, BATCH = "one process", "Dask", "Bedrock batch"
WORTH = 0.05
"""A way that saves less than this share is not worth its trouble: the simpler one is named."""
SIZES = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)


@dataclass(frozen=True)
class Constant:
    """A number that a plan rests on, and where it comes from."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Means:
    """What work is done with. Each may be replaced by your own figure: `Means(machines=Constant(16, "machines", "ours"))`."""

    calls_per_core_s: Constant = Constant(
        230,
        "calls/s",
        "benchmarks/bulk.py: 4.34 ms of CPU a call of run_bulk, Python 3.11; measure yours with calls_per_core_s()",
    )
    in_flight: Constant = Constant(256, "calls a process", "the most workers that the settings allow")
    machines: Constant = Constant(4, "machines", "assumed")
    cores: Constant = Constant(4, "processes a machine", "assumed: one a core")
    machine_usd_per_hour: Constant = Constant(0.0, "USD", "not counted unless you give a price")
    overhead: Constant = Constant(
        0.08, "share", "measured: Dask took 7 to 9 % longer than one process on the same machine"
    )
    start_s: Constant = Constant(9, "s", "measured: 4 to 9 s until Dask's workers are there")
    batch_min_records: Constant = Constant(
        100, "records a job", "assumed, as commonly reported; it is a quota of each model: Service Quotas has yours"
    )
    batch_max_records: Constant = Constant(50_000, "records a job", "assumed; it is a quota of each model")
    batch_jobs: Constant = Constant(20, "jobs at once", "assumed; it is a quota of each model")
    batch_turnaround_h: Constant = Constant(
        24,
        "h a job",
        "assumed: the shortest time-out of a job (timeoutDurationInHours, 24 to 168); many are done sooner, none need be",
    )

    def of(self, name: str) -> float:
        """A value by its name."""
        return float(getattr(self, name).value)


@dataclass(frozen=True)
class Point:
    """So many tickets by one way."""

    n: int
    hours: float
    usd: float
    limit: str
    """What it waits for: CPU, calls in flight, a quota, batch turnaround."""


@dataclass(frozen=True)
class Way:
    """One way, for each number of tickets."""

    name: str
    points: tuple[Point, ...]
    most: int | None
    """Tickets within the deadline; None: no limit is known."""
    sentence: str
    """Where it stops paying."""


@dataclass(frozen=True)
class ScalePlan:
    """Three ways side by side."""

    ways: tuple[Way, ...]
    deadline_h: float
    plan: Plan
    """Of one ticket a second: what a ticket takes of each quota."""
    means: Means
    best: Mapping[int, str]
    """By number of tickets: the simplest way within the deadline that no other one undercuts by 5 % or more; "" if none is."""

    def rows(self) -> list[dict[str, Any]]:
        """A row for each way and number, for a table."""
        return [
            {
                "tickets": p.n,
                "way": way.name,
                "hours": p.hours,
                "USD": p.usd,
                "limit": p.limit,
                "best": self.best[p.n] == way.name,
            }
            for way in self.ways
            for p in way.points
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON knows it; a number of tickets that is a key becomes text."""
        return {**asdict(self), "plan": self.plan.to_json(), "best": {str(n): name for n, name in self.best.items()}}

    def __str__(self) -> str:
        lines = [f"Within {self.deadline_h:g} h, at USD {self.plan.usd_per_1000.value:.4f} per 1,000 on demand:"]
        lines += [f"- {way.sentence}" for way in self.ways]
        lines.append("To be taken: " + "; ".join(f"{n:,}: {name or 'none'}" for n, name in self.best.items()) + ".")
        return "\n".join(lines)


def scale_plan(
    traffic: Traffic,
    catalogue: Catalogue,
    *,
    sizes: Sequence[int] = SIZES,
    quotas: Mapping[str, Quota] | None = None,
    means: Means | None = None,
    deadline_h: float = 48.0,
    max_tokens: int = TRIAGE.max_tokens,
    seed: int = 0,
) -> ScalePlan:
    """Hours and USD of each way for each number of tickets.

    On demand, tickets a second are the least of processes x calls/s of a core / calls a ticket, of processes x calls in flight /
    seconds a ticket (J. Little, 1961), and of what each known quota allows. By batch, tiers follow one another: ceil(records / records
    a job / jobs at once) x turnaround each; a tier without a listed batch price, or with fewer records than a job takes, is asked on
    demand by one process. Batch takes nothing of the on-demand quotas.

    Args:
        traffic: measured tickets.
        catalogue: prices on demand and by batch.
        sizes: numbers of tickets.
        quotas: as in `plan`; not known ones limit nothing, and the sentences say so.
        means: what work is done with.
        deadline_h: when it must be done. By default two batch jobs, one a tier, just fit.
        max_tokens: of each call.
        seed: of the intervals.

    Raises:
        ValueError: no size, or one below 1, or a deadline that is not above 0.
        ConfigurationError: as `plan`.
    """
    if not sizes or min(sizes) < 1 or deadline_h <= 0:
        raise ValueError(
            f"give numbers of tickets from 1, and a deadline above 0 h: not {list(sizes)} and {deadline_h}"
        )
    means = means or Means()
    single = plan(traffic, catalogue, tickets_per_hour=3_600, quotas=quotas, max_tokens=max_tokens, seed=seed)
    ways = (
        _on_demand(PROCESS, 1, 0.0, traffic, single, sizes, means, deadline_h),
        _on_demand(
            CLUSTER, int(means.of("machines") * means.of("cores")), 1.0, traffic, single, sizes, means, deadline_h
        ),
        _batch(traffic, catalogue, single, sizes, means, deadline_h),
    )
    best = {}
    for at, n in enumerate(sizes):
        fit = [(w.name, w.points[at].usd) for w in ways if w.points[at].hours <= deadline_h]
        least = min((cost for _, cost in fit), default=0.0)
        best[n] = next((name for name, cost in fit if cost * (1 - WORTH) <= least), "")
    return ScalePlan(ways, deadline_h, single, means, best)


def calls_per_core_s(client: Converses, model: str = "cheap", *, calls: int = 200, workers: int = 16) -> Constant:
    """How many calls a second one core can make: a short run, by the CPU that it takes. At the local door, whose endpoint answers in
    the same process, it lies far too low.

    Args:
        client: who calls; live calls cost money.
        model: role or key.
        calls, workers: how many, and how many at once.
    """

    def call(_: int) -> None:
        client.converse(model, "Say hello.", max_tokens=20)

    call(0)  # the first one loads what all others use
    began = time.process_time()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(call, range(calls)))
    rate = calls / max(time.process_time() - began, 1e-9)
    return Constant(rate, "calls/s", f"measured here: {calls} calls of {model}, {workers} at once")


def _rate(  # noqa: PLR0917  # called three times, here
    traffic: Traffic, single: Plan, processes: float, overhead: float, means: Means, tiers: Sequence[str] = ()
) -> tuple[float, str]:
    """Tickets a second on demand, and what limits them: at all tiers, or at some alone."""
    asked = [c for tier in tiers or traffic.tiers for c in traffic.of_tier(tier)]
    calls, wait = (
        total / len(traffic.tickets) for total in (sum(c.calls for c in asked), sum(c.latency_ms for c in asked) / 1e3)
    )
    rates = {
        "CPU": processes * means.of("calls_per_core_s") / calls * (1 - overhead),
        "calls in flight": processes * means.of("in_flight") / max(wait, 1e-9),
    }
    for need in (need for tier in single.tiers for need in tier.needs if tier.tier in (tiers or traffic.tiers)):
        if need.allowed is not None and need.tickets_per_hour is not None:
            # `single` is of one ticket a second. A tier alone has its model's quota for itself.
            rate = need.allowed / need.needed if tiers else need.tickets_per_hour / 3_600
            rates[f"quota: {need.kind.replace('_', ' ')} of {need.tier}"] = rate
    limit = min(rates, key=lambda name: rates[name])
    return rates[limit], limit


def _on_demand(  # noqa: PLR0917  # called twice, above
    name: str,
    processes: int,
    engine: float,
    traffic: Traffic,
    single: Plan,
    sizes: Sequence[int],
    means: Means,
    deadline_h: float,
) -> Way:
    rate, limit = _rate(traffic, single, processes, engine * means.of("overhead"), means)
    start_h = engine * means.of("start_s") / 3_600
    machines = means.of("machines") if engine else 1.0
    points = []
    for n in sizes:
        hours = start_h + n / rate / 3_600
        usd = n * single.usd_per_1000.value / 1_000 + machines * hours * means.of("machine_usd_per_hour")
        points.append(Point(n, hours, usd, limit))
    most = max(0, int((deadline_h - start_h) * 3_600 * rate))
    where = f" on {machines:.0f} machines" if engine else ""
    said = f"{name}{where}: {rate:,.1f} tickets/s, about {_about(most)} tickets in time; it waits for {limit}."
    if engine:
        alone, same = _rate(traffic, single, 1, 0.0, means)
        if rate <= alone * 1.05:
            said += f" It buys nothing: one process waits for {same} as well."
        elif limit.startswith("quota"):
            said += f" {math.ceil(rate / alone)} processes reach it: more buy nothing."
    elif not limit.startswith("quota"):
        said += " More processes are quicker, until a quota stops them."
    if single.not_known:
        said += f" Quotas that nobody told may stop it earlier ({len(single.not_known)} are not known)."
    return Way(name, tuple(points), most, said)


def _batch(  # noqa: PLR0917  # called once, above
    traffic: Traffic, catalogue: Catalogue, single: Plan, sizes: Sequence[int], means: Means, deadline_h: float
) -> Way:
    at_once = means.of("batch_max_records") * means.of("batch_jobs")
    turnaround, fewest = means.of("batch_turnaround_h"), means.of("batch_min_records")
    tickets = len(traffic.tickets)
    # A tier at a time: calls a ticket, share of all calls, and USD a ticket both ways.
    phases = []
    for tier in traffic.tiers:
        calls = list(traffic.of_tier(tier))
        spec = catalogue[calls[0].model]
        batch = None if spec.batch_price is None else sum(spec.cost(c.usage, batch=True) for c in calls) / tickets
        demand = sum(spec.cost(c.usage) for c in calls) / tickets
        phases.append((tier, spec, len(calls) / tickets, batch, demand))
    rates = {tier: _rate(traffic, single, 1, 0.0, means, [tier]) for tier in traffic.tiers}

    def work(n: int) -> Point:
        hours, usd, limits = 0.0, 0.0, []
        for tier, _, share, batch, demand in phases:
            records = n * share
            if batch is not None and records >= fewest:
                hours += turnaround * math.ceil(records / at_once)
                usd += n * batch
                limits.append("batch turnaround")
            else:
                rate, limit = rates[tier]
                hours += n / rate / 3_600
                usd += n * demand
                why = "no batch price" if batch is None else "too few records"
                limits.append(f"{tier} on demand ({why}), by {limit}")
        return Point(n, hours, usd, "; ".join(dict.fromkeys(limits)))

    points = tuple(work(n) for n in sizes)
    most = _most(work, deadline_h)
    usual = single.usd_per_1000.value / 1_000
    saves = 1 - sum(p[4] if p[3] is None else p[3] for p in phases) / usual
    unlisted = [f"{spec.label} ({tier})" for tier, spec, _, batch, _ in phases if batch is None]
    said = f"{BATCH}: {saves:.1%} cheaper from {math.ceil(fewest / max(p[2] for p in phases)):,} tickets on, "
    said += (
        f"about {_about(most)} tickets in time." if most else f"nothing in time: {turnaround:g} h a tier are assumed."
    )
    if unlisted:
        said += f" No batch price is listed for {', '.join(unlisted)}: that part stays on demand."
    return Way(BATCH, points, most, said)


def _about(n: int) -> str:
    return f"{float(f'{n:.3g}'):,.0f}"


def _most(work: Any, deadline_h: float) -> int:
    """The most tickets within the deadline, to a thousandth; 0 where none are."""
    if work(1_000).hours > deadline_h:
        return 0
    low, high = 1_000.0, 1e13
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if work(int(middle)).hours <= deadline_h else (low, middle)
    return int(low)
