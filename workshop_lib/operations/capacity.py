"""Whether an account can take the load, and what it will cost: rates, workers, quotas and the monthly bill, from measured tickets.

found = plan(Traffic.of(outcomes), catalogue, tickets_per_hour=5_000, quotas={"claude-sonnet-4-6": Quota(tokens_per_minute=1e6)})
print(found)

Of a quota, a call takes at its start prompt + maxTokens, cached tokens included; when it ends, that becomes
input + cache writes + output x burndown (aws/agent-toolkit-for-aws, amazon-bedrock skill, model-invocation reference, 2026-08-20).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from workshop_lib.bedrock.catalogue import Catalogue, Usage
from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.bedrock.pacing import Quota
from workshop_lib.bulk.rows import Row
from workshop_lib.cascade.attempt import Outcome
from workshop_lib.evaluation.metrics import family_of
from workshop_lib.evaluation.statistics import Share, share, weighted_mean
from workshop_lib.operations.quotas import KINDS
from workshop_lib.triage.task import TRIAGE

HOURS_A_MONTH = 730.0
"""8,760 / 12: the month that cloud bills are estimated by."""


@dataclass(frozen=True)
class Call:
    """One tier's part in one ticket."""

    tier: str
    model: str
    """Catalogue key."""
    usage: Usage
    """Of all its calls."""
    calls: int
    """More than 1 after a repair turn or in a vote."""
    latency_ms: float


@dataclass(frozen=True)
class Traffic:
    """Measured tickets: which calls each of them took."""

    tickets: Mapping[str, tuple[Call, ...]]
    families: Mapping[str, str]
    """Scenario of each ticket, so that copies are no further evidence."""
    source: str = "measured"
    """What the figures are, in a few words."""

    @classmethod
    def of(
        cls,
        measured: Iterable[Outcome[Any] | Row],
        *,
        labels: Mapping[str, Any] | None = None,
        source: str = "measured",
    ) -> Traffic:
        """From outcomes, or from the rows of a bulk run. Tickets that were not asked about count nowhere.

        A row knows its HTTP requests, retries among them, and not its calls: it counts as one call with all its tokens, and only
        where the tier was asked several times as that many requests.

        Args:
            measured: outcomes or rows.
            labels: for the tickets' families.
            source: where they come from.

        Raises:
            ValueError: nobody was asked anything.
        """
        found: dict[str, tuple[Call, ...]] = {}
        for one in measured:
            if isinstance(one, Row):
                asked = 1 if one.agreement is None else max(1, one.attempts)
                calls: tuple[Call, ...] = (Call(one.tier, one.model, one.usage, asked, one.latency_ms),)
                found[one.ticket_id] = found.get(one.ticket_id, ()) + (calls if one.usage != Usage() else ())
            else:
                parts = one.attempts if one.unneeded is None else (*one.attempts, one.unneeded)
                found[one.item_id] = tuple(
                    Call(a.tier, a.model, a.usage, len(a.replies), a.latency_ms) for a in parts if a.replies
                )
        found = {ticket: calls for ticket, calls in found.items() if calls}
        if not found:
            raise ValueError("no ticket with a call: there is nothing to plan from")
        return cls(found, {i: family_of(i, (labels or {}).get(i)) for i in found}, source)

    @property
    def tiers(self) -> list[str]:
        """In the order in which tickets reach them."""
        longest = max(self.tickets.values(), key=len)
        return list(
            dict.fromkeys([c.tier for c in longest] + [c.tier for calls in self.tickets.values() for c in calls])
        )

    def of_tier(self, tier: str) -> Iterator[Call]:
        """Its calls."""
        return (call for calls in self.tickets.values() for call in calls if call.tier == tier)

    def with_models(self, models: Mapping[str, str], catalogue: Catalogue) -> Traffic:
        """The same tickets with other models at some tiers: tokens by the models' token ratios, latencies by their profiles.

        Which tickets go up, and what is right, is taken over unchanged: another model may answer otherwise.

        Args:
            models: tier to role or catalogue key.
            catalogue: with both models.
        """

        def moved(call: Call) -> Call:
            if call.tier not in models:
                return call
            old, new = catalogue[call.model], catalogue[models[call.tier]]
            ratio = new.token_ratio / old.token_ratio
            usage = Usage(*(round(getattr(call.usage, f.name) * ratio) for f in fields(Usage)))
            wait = call.latency_ms * new.latency_p50_ms / old.latency_p50_ms
            return replace(call, model=new.key, usage=usage, latency_ms=wait)

        named = ", ".join(f"{tier} = {catalogue[model].label}" for tier, model in models.items())
        return Traffic(
            {i: tuple(map(moved, calls)) for i, calls in self.tickets.items()},
            self.families,
            f"{self.source}, re-priced with {named}",
        )


@dataclass(frozen=True)
class Need:
    """What one tier takes of one kind of quota."""

    tier: str
    kind: str
    """requests_per_minute, tokens_per_minute or tokens_per_day."""
    needed: float
    allowed: float | None
    """The model's, for all tiers that ask it together; None: not known."""
    tickets_per_hour: float | None
    """At which this quota is used up by all of them; None: the quota is not known."""


@dataclass(frozen=True)
class TierPlan:
    """One tier under the planned load."""

    tier: str
    model: str
    label: str
    reach: Share
    """Share of the tickets that ask this tier."""
    calls_per_s: float
    calls_per_s_high: float
    """At the upper end of `reach`."""
    latency_s: float
    """Mean of a ticket's stay at this tier."""
    latency_p95_s: float
    in_flight: float
    """On average (J. Little, 1961: rate x mean time)."""
    workers: int
    """For the upper end of `reach`, at the 95th percentile of the time: how many calls must be possible at once."""
    tokens_reserved: float
    """Of the quota, for one call at its start: prompt + maxTokens."""
    tokens_settled: float
    """Of the quota, for one call in the end: input + cache writes + output x burndown."""
    usd_per_1000: float
    """For the tickets of this load, those that do not ask it included."""
    needs: tuple[Need, ...]


@dataclass(frozen=True)
class BreakEven:
    """The cascade against answering everything with one model."""

    against: str
    usd_per_1000: float
    """Of that other way."""
    month_usd: float
    wrong_usd: float | None
    """The price of a wrong answer at which both cost the same; None: there is none, or nobody said how often each is right."""
    sentence: str


@dataclass(frozen=True)
class Plan:
    """What a load takes and costs."""

    tickets_per_hour: float
    tiers: tuple[TierPlan, ...]
    binding: Need | None
    """The quota that is used up first; None: no quota is known."""
    not_known: tuple[str, ...]
    """Quotas nobody has told, e.g. "strong: tokens_per_minute"."""
    usd_per_1000: Share
    month_usd: tuple[float, float, float]
    """The bill, and both ends of its 95% interval (bootstrap over families of tickets); -inf and inf: of one family, not known."""
    break_even_escalation: float
    """Share going up at which the cascade costs as much as strong-only: 1 - cheap / strong."""
    break_even: tuple[BreakEven, ...]
    n: int
    """Measured tickets behind it."""
    source: str
    prices: str
    """Date of the catalogue."""

    @property
    def fits(self) -> bool | None:
        """Whether the load stays within every quota that is known; None: none is."""
        return None if self.binding is None else (self.binding.tickets_per_hour or 0) >= self.tickets_per_hour

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON knows it: an end of an interval that is not known is None."""
        found = asdict(self)
        if math.isinf(self.usd_per_1000.high):
            found["usd_per_1000"] |= {"low": None, "high": None}
            found["month_usd"] = (self.month_usd[0], None, None)
        return {**found, "fits": self.fits}

    def __str__(self) -> str:
        bill, low, high = self.month_usd
        ends = f"[{low:,.0f}, {high:,.0f}]" if math.isfinite(high) else "[not known: all tickets are of one family]"
        lines = [
            f"{self.tickets_per_hour:,.0f} tickets an hour, from {self.n} tickets ({self.source}), prices of {self.prices}:",
            *(
                f"- {t.tier} ({t.label}): {t.reach} of tickets, {t.calls_per_s:.2f} calls/s, {t.workers} workers, "
                f"{t.needs[1].needed:,.0f} quota tokens a minute ({t.tokens_reserved:,.0f} reserved, {t.tokens_settled:,.0f} settled a call)"
                for t in self.tiers
            ),
            f"USD {bill:,.0f} a month {ends} of {HOURS_A_MONTH:.0f} such hours.",
        ]
        if self.binding is not None:
            b = self.binding
            lines.append(
                f"First limit: {b.kind.replace('_', ' ')} of {b.tier} ({b.allowed:,.0f}), at {b.tickets_per_hour:,.0f} tickets an hour: "
                f"the load {'fits' if self.fits else 'does NOT fit'}."
            )
        if self.not_known:
            lines.append(f"Not known: {'; '.join(self.not_known)}. Nothing is said about them.")
        return "\n".join([*lines, *(b.sentence for b in self.break_even)])


def plan(
    traffic: Traffic,
    catalogue: Catalogue,
    *,
    tickets_per_hour: float,
    quotas: Mapping[str, Quota] | None = None,
    max_tokens: int | Mapping[str, int] = TRIAGE.max_tokens,
    right: Mapping[str, float] | None = None,
    wrong_usd: float = 0.0,
    seed: int = 0,
) -> Plan:
    """What a load takes of each tier and each quota, and what it costs.

    Args:
        traffic: measured tickets; their mix is taken for the planned one's.
        catalogue: prices, burndown; another one, or `traffic.with_models`, answers "what if".
        tickets_per_hour: the load.
        quotas: of models, by catalogue key, role or tier; tiers on one model share what it has. What is missing is not known (see
            `read_quotas`).
        max_tokens: of each call, or by tier: the quota is reserved by it.
        right: share of right answers of "cascade", "cheap-only" and "strong-only", for the price of a wrong one.
        wrong_usd: what a wrong answer costs you.
        seed: of the intervals.

    Raises:
        ValueError: the load is not above 0.
        ConfigurationError: a quota is of a model that this traffic does not ask.
    """
    if not 0 < tickets_per_hour < math.inf:
        raise ValueError(f"a load is a number of tickets an hour above 0, not {tickets_per_hour}")
    known = _by_model(traffic, catalogue, quotas or {})
    tiers = _sharing(
        _tier_plan(
            traffic, tier, catalogue, tickets_per_hour, known,
            max_tokens if isinstance(max_tokens, int) else max_tokens.get(tier, TRIAGE.max_tokens), seed,
        )
        for tier in traffic.tiers
    )  # fmt: skip
    families = list(traffic.families.values())
    spent = [1_000 * sum(catalogue[c.model].cost(c.usage) for c in calls) for calls in traffic.tickets.values()]
    per_1000 = weighted_mean(spent, families, seed=seed)
    monthly = tickets_per_hour * HOURS_A_MONTH / 1_000
    needs = [need for tier in tiers for need in tier.needs]
    alone = {}
    for tier in (
        traffic.tiers
    ):  # what one model alone would cost, by the tickets that asked it: hard ones, above the first tier
        costs = [catalogue[c.model].cost(c.usage) for c in traffic.of_tier(tier)]
        alone[f"{tier}-only"] = 1_000 * float(np.mean(costs)), len(costs)
    return Plan(
        tickets_per_hour,
        tiers,
        min((n for n in needs if n.tickets_per_hour is not None), key=lambda n: n.tickets_per_hour or 0, default=None),
        tuple(f"{n.tier}: {n.kind}" for n in needs if n.allowed is None),
        per_1000,
        (per_1000.value * monthly, per_1000.low * monthly, per_1000.high * monthly),
        max(0.0, 1 - alone[f"{traffic.tiers[0]}-only"][0] / (alone[f"{traffic.tiers[-1]}-only"][0] or 1)),
        tuple(
            _against(name, cost, asked, per_1000.value, monthly, right or {}, wrong_usd)
            for name, (cost, asked) in alone.items()
            if len(alone) > 1 and name in {f"{traffic.tiers[0]}-only", f"{traffic.tiers[-1]}-only"}
        ),
        len(traffic.tickets),
        traffic.source,
        catalogue.version,
    )


def tokens_per_minute(calls_per_minute: float, *, reserved: float, settled: float, latency_s: float) -> float:
    """What calls take of a quota of tokens per minute.

    Of the calls of the last minute, those that still run count as reserved and the others as settled:
    rate x (settled + latency / 60 s x (reserved - settled)). Where a call settles above its reservation, as settled throughout.

    Args:
        calls_per_minute: started, evenly spread: bursts take more.
        reserved, settled: tokens a call.
        latency_s: mean of a call.
    """
    return calls_per_minute * (settled + min(1.0, latency_s / 60) * max(0.0, reserved - settled))


def _tier_plan(  # noqa: PLR0917  # one caller
    traffic: Traffic,
    tier: str,
    catalogue: Catalogue,
    per_hour: float,
    known: Mapping[str, Quota],
    max_tokens: int,
    seed: int,
) -> TierPlan:
    mine = {i: [c for c in calls if c.tier == tier] for i, calls in traffic.tickets.items()}
    asked = [call for calls in mine.values() for call in calls]
    spec = catalogue[asked[0].model]
    quota = known.get(spec.key, Quota())
    reach = share([bool(calls) for calls in mine.values()], list(traffic.families.values()), seed=seed)
    times = np.array([c.latency_ms / 1e3 for c in asked])
    calls = sum(c.calls for c in asked)
    per_ticket = calls / len(asked)
    reserved = sum(c.usage.prompt_tokens for c in asked) / calls + max_tokens
    settled = sum(spec.quota_tokens(c.usage) for c in asked) / calls
    rate = per_hour / 3_600 * per_ticket
    tokens = tokens_per_minute(
        60 * rate * reach.value, reserved=reserved, settled=settled, latency_s=float(times.mean()) / per_ticket
    )
    needed = (60 * rate * reach.value, tokens, 86_400 * rate * reach.value * settled)
    return TierPlan(
        tier,
        spec.key,
        spec.label,
        reach,
        rate * reach.value,
        rate * reach.high,
        float(times.mean()),
        float(np.percentile(times, 95)),
        per_hour / 3_600 * reach.value * float(times.mean()),
        math.ceil(per_hour / 3_600 * reach.high * float(np.percentile(times, 95))),
        reserved,
        settled,
        1_000 * sum(spec.cost(c.usage) for c in asked) / len(traffic.tickets),
        tuple(
            Need(tier, kind, need, limit, None if limit is None else per_hour * limit / need)
            for kind, need in zip(KINDS, needed, strict=True)
            for limit in (getattr(quota, kind),)
        ),
    )


def _sharing(tiers: Iterable[TierPlan]) -> tuple[TierPlan, ...]:
    """The same tiers, where those that ask one model use up its quota together."""
    tiers = tuple(tiers)
    total = defaultdict[tuple[str, str], float](float)
    for tier in tiers:
        for need in tier.needs:
            total[tier.model, need.kind] += need.needed

    def shared(model: str, need: Need) -> Need:
        if need.tickets_per_hour is None:
            return need
        return replace(need, tickets_per_hour=need.tickets_per_hour * (need.needed / total[model, need.kind]))

    return tuple(replace(tier, needs=tuple(shared(tier.model, need) for need in tier.needs)) for tier in tiers)


def _by_model(traffic: Traffic, catalogue: Catalogue, quotas: Mapping[str, Quota]) -> dict[str, Quota]:
    models = {tier: next(traffic.of_tier(tier)).model for tier in traffic.tiers}
    asked, found = {catalogue[model].key for model in models.values()}, dict[str, Quota]()
    for name, quota in quotas.items():
        key = catalogue[models.get(name, name)].key
        if key not in asked:
            raise ConfigurationError(
                f"There is a quota of {name}, which no tier asks.",
                advice=f"Give quotas of: {', '.join(f'{t} ({m})' for t, m in models.items())}.",
            )
        if found.get(key, quota) != quota:
            raise ConfigurationError(
                f"There are two quotas of {key}, by two names; one is {name}.",
                advice="Give it once: its tiers share it.",
            )
        found[key] = quota
    return found


def _against(  # noqa: PLR0917  # one caller
    name: str, other: float, asked: int, mine: float, monthly: float, right: Mapping[str, float], wrong_usd: float
) -> BreakEven:
    saves = other - mine  # USD per 1,000 by which the cascade is cheaper
    dearer = mine / other if other else math.inf
    costs = (
        f"{dearer:.1f} times as much"
        if dearer > 2
        else f"{abs(saves) / (other or 1):.1%} {'less' if saves >= 0 else 'more'}"
    )
    words = f"Against {name} (USD {other:.4f} per 1,000, by {asked:,} tickets): the cascade costs {costs}"
    if not {"cascade", name} <= right.keys():
        words += "; say how often each is right to weigh wrong answers"
        return BreakEven(name, other, other * monthly, None, words + ".")
    better = right["cascade"] - right[name]
    even = -saves / (1_000 * better) if better else None
    if even is None or even < 0:
        both = "and is right as often or more" if better >= 0 else "and is right less often"
        words += f" {both}: no price of a wrong answer changes that"
        even = None
    else:
        side = "above" if better > 0 else "below"
        words += f"; it pays where a wrong answer costs {side} USD {even:.4f}"
    if wrong_usd:
        total = saves + 1_000 * better * wrong_usd
        words += f". At USD {wrong_usd:g} a wrong answer it is {'ahead' if total > 0 else 'behind'} by USD {abs(total):.2f} per 1,000"
    return BreakEven(name, other, other * monthly, even, words + ".")
