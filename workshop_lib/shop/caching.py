"""What routing and caching cost together: a closed form.

    traffic = Traffic(Request(2839, 332, 150), Request(2839, 1302, 275, calls=2), 0.6, Usage(208, 1))
    designs(traffic, catalogue, HitRates.same(0.9))["routed, cached"].total      # expected USD per request

A prefix that every request repeats can be cached, by each model for itself and only if it is long enough for that model. The
first call of a request finds it there (a hit: it is read) or not (it is written); the further calls of the same request, which
hand a tool's answer back, always find it. Costs are linear in the four token counters, so an expected cost is the mean of a
request that starts warm and one that starts cold, weighted by the hit rate.

Amounts are exact decimals in USD. A prompt so long that the model's price changes is refused: its price is not linear.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Literal

from workshop_lib.bedrock.catalogue import MILLION, Catalogue, ModelSpec, Price, Usage

Start = Literal["uncached", "cold", "warm"]
"""How a request's first call finds the prefix: no cache point is sent, or the cache does not hold it, or it does."""
Ttl = Literal["5m", "1h"]
TTL_SECONDS: Mapping[Ttl, float] = {"5m": 300, "1h": 3_600}
DESIGNS = ("strong, uncached", "strong, cached", "routed, uncached", "routed, cached")
_NOTHING = Usage()


@dataclass(frozen=True)
class Request:
    """What one request sends and gets, whichever model answers it.

    Tokens are taken to be the same for all models of a pair. Within one family they are; another family's tokenizer may count
    a quarter fewer (`ModelSpec.token_ratio`).
    """

    prefix_tokens: int
    """Up to the cache point: the same for all requests, sent anew with each call."""
    own_tokens: int
    """Everything behind the cache point, of all calls together: question, tool calls, tools' answers."""
    output_tokens: int
    """Of all calls together."""
    calls: int = 1
    """Model calls: 1, and one more for each turn in which tools are used."""

    def __post_init__(self) -> None:
        if min(self.prefix_tokens, self.own_tokens, self.output_tokens) < 0 or self.calls < 1:
            raise ValueError(f"{self}: tokens are 0 or more, calls 1 or more")


@dataclass(frozen=True)
class Traffic:
    """Requests of two kinds, and what it takes to tell them apart."""

    simple: Request
    """What a router sends to the cheap model."""
    complex: Request
    """What it sends to the strong one."""
    simple_share: float
    """Of all requests, 0..1."""
    classifier: Usage = _NOTHING
    """Tokens of the one classifying call that each request of a routed design makes; none: routing is free."""

    def __post_init__(self) -> None:
        if not 0 <= self.simple_share <= 1:
            raise ValueError(f"a share of simple requests lies between 0 and 1, not at {self.simple_share}")


@dataclass(frozen=True)
class HitRates:
    """How often a request finds its model's cache warm, 0..1."""

    alone: float
    """The strong model, when it answers everything."""
    strong: float
    """The strong model, when it answers only what is complex."""
    cheap: float
    """The cheap model, when it answers what is simple."""

    def __post_init__(self) -> None:
        for rate in (self.alone, self.strong, self.cheap):
            if not 0 <= rate <= 1:
                raise ValueError(f"a hit rate lies between 0 and 1, not at {rate}")

    @classmethod
    def same(cls, rate: float) -> HitRates:
        """One rate for all."""
        return cls(rate, rate, rate)

    @classmethod
    def of_arrivals(cls, per_minute: float, simple_share: float, ttl: Ttl = "5m") -> HitRates:
        """Of requests that come independently of each other: a router parts them, so each model sees fewer.

        A Poisson stream parted at random is two independent Poisson streams with that share of the rate each
        (thinning: J. F. C. Kingman, Poisson Processes, 1993, section 5.1).

        Raises:
            ValueError: as `hit_rate`.
        """
        return cls(
            hit_rate(per_minute, ttl),
            hit_rate(per_minute * (1 - simple_share), ttl),
            hit_rate(per_minute * simple_share, ttl),
        )


def hit_rate(per_minute: float, ttl: Ttl = "5m") -> float:
    """Share of requests that find the prefix cached, if they come as a Poisson stream: 1 - exp(-rate x TTL).

    Each use of a cached prefix starts its TTL anew (Amazon Bedrock user guide and Anthropic's documentation, "Prompt caching"),
    so a request hits if the one before it came less than a TTL ago. Gaps of a Poisson stream are exponential with mean 1 / rate.

    Args:
        per_minute: requests that one model gets, in the mean.
        ttl: how long an unused prefix is kept.

    Raises:
        ValueError: a negative rate.
    """
    if per_minute < 0:
        raise ValueError(f"requests per minute are 0 or more, not {per_minute}")
    return -math.expm1(-per_minute * TTL_SECONDS[ttl] / 60)


@dataclass(frozen=True)
class Bill:
    """Expected USD of one request, by what it is paid for; adds up with `+`."""

    uncached: Decimal = Decimal(0)
    """Input at full price."""
    read: Decimal = Decimal(0)
    written: Decimal = Decimal(0)
    output: Decimal = Decimal(0)
    classifier: Decimal = Decimal(0)

    @property
    def total(self) -> Decimal:
        """All parts together."""
        return sum((getattr(self, f.name) for f in fields(self)), Decimal(0))

    def __add__(self, other: Bill) -> Bill:
        return Bill(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def mixed(self, share: float, other: Bill) -> Bill:
        """These costs for a share of the requests (taken as it is written: 0.1 is one tenth), `other` for the rest."""
        exact = Decimal(str(share))
        return Bill(*(exact * getattr(self, f.name) + (1 - exact) * getattr(other, f.name) for f in fields(self)))


def cacheable(spec: ModelSpec, prefix_tokens: int) -> bool:
    """Whether the model caches a prefix of that length. Below its minimum a cache point is silently ignored."""
    return spec.cache_minimum_tokens is not None and prefix_tokens >= spec.cache_minimum_tokens


def usage_of(request: Request, spec: ModelSpec, start: Start, *, ttl: Ttl = "5m") -> Usage:
    """The four counters of a request, as Bedrock would count them.

    Raises:
        ValueError: the prompt is so long that the model's price changes.
    """
    if spec.long_prompt_above is not None and request.prefix_tokens + request.own_tokens > spec.long_prompt_above:
        raise ValueError(
            f"{spec.label} has another price above {spec.long_prompt_above:,} prompt tokens: not of this form"
        )
    sent = request.calls * request.prefix_tokens
    if start == "uncached" or not cacheable(spec, request.prefix_tokens):
        return Usage(request.own_tokens + sent, request.output_tokens)
    if start == "warm":
        return Usage(request.own_tokens, request.output_tokens, cache_read_tokens=sent)
    return Usage(
        request.own_tokens,
        request.output_tokens,
        cache_read_tokens=sent - request.prefix_tokens,
        cache_write_tokens=request.prefix_tokens,
        cache_write_1h_tokens=request.prefix_tokens if ttl == "1h" else 0,
    )


def bill_of(usage: Usage, price: Price) -> Bill:
    """USD of counted tokens, by counter."""
    return Bill(
        uncached=usage.input_tokens * price.input / MILLION,
        read=usage.cache_read_tokens * price.cache_read / MILLION,
        written=price.cost(
            Usage(
                cache_write_tokens=usage.cache_write_tokens,
                cache_write_1h_tokens=usage.cache_write_1h_tokens,
            )
        ),
        output=usage.output_tokens * price.output / MILLION,
    )


def expected(request: Request, spec: ModelSpec, rate: float, *, ttl: Ttl = "5m") -> Bill:
    """Of a request with a cache point, when that share of requests starts warm.

    Raises:
        ValueError: as `usage_of`.
    """
    warm = bill_of(usage_of(request, spec, "warm", ttl=ttl), spec.price)
    return warm.mixed(rate, bill_of(usage_of(request, spec, "cold", ttl=ttl), spec.price))


def designs(traffic: Traffic, catalogue: Catalogue, hits: HitRates, *, ttl: Ttl = "5m") -> dict[str, Bill]:
    """Expected USD per request of the four `DESIGNS`, for the catalogue's pair in use.

    Raises:
        ValueError: as `usage_of`.
    """
    cheap, strong, share = catalogue["cheap"], catalogue["strong"], traffic.simple_share
    label = Bill(classifier=catalogue["classifier"].price.cost(traffic.classifier))

    def plain(request: Request, spec: ModelSpec) -> Bill:
        return bill_of(usage_of(request, spec, "uncached"), spec.price)

    def cached(request: Request, spec: ModelSpec, rate: float) -> Bill:
        return expected(request, spec, rate, ttl=ttl)

    found = (
        plain(traffic.simple, strong).mixed(share, plain(traffic.complex, strong)),
        cached(traffic.simple, strong, hits.alone).mixed(share, cached(traffic.complex, strong, hits.alone)),
        plain(traffic.simple, cheap).mixed(share, plain(traffic.complex, strong)) + label,
        cached(traffic.simple, cheap, hits.cheap).mixed(share, cached(traffic.complex, strong, hits.strong)) + label,
    )
    return dict(zip(DESIGNS, found, strict=True))


def explain(bills: Mapping[str, Bill], *, requests: int = 1_000) -> list[dict[str, str]]:
    """Each design's parts in USD for so many requests, as rows of a table; the last column is their sum."""
    columns = {
        "input, full price": "uncached",
        "cache reads": "read",
        "cache writes": "written",
        "output": "output",
        "classifier": "classifier",
    }
    return [
        {"design": name}
        | {column: f"{getattr(bill, part) * requests:.2f}" for column, part in columns.items()}
        | {f"USD per {requests:,}": f"{bill.total * requests:.2f}"}
        for name, bill in bills.items()
    ]


def reads_to_pay(price: Price, *, ttl: Ttl = "5m") -> Decimal:
    """Reads after one write from which on caching is cheaper: (write - input) / (input - read).

    Written and read n times, a prefix token costs write + n x read; sent n + 1 times it costs (n + 1) x input.

    Raises:
        ValueError: the model has no price for cached tokens.
    """
    write = _write(price, ttl)
    return (write - price.input) / (price.input - price.cache_read)


def break_even_hit_rate(price: Price, *, calls: int = 1, ttl: Ttl = "5m") -> float:
    """Hit rate from which on a cache point pays; 0: it pays even if no request ever starts warm.

    The prefix costs hit x calls x read + (1 - hit) x (write + (calls - 1) x read) against calls x input, so
    hit = (write + (calls - 1) x read - calls x input) / (write - read).

    Raises:
        ValueError: the model has no price for cached tokens.
    """
    write = _write(price, ttl)
    cold = write + (calls - 1) * price.cache_read
    return float(max(Decimal(0), (cold - calls * price.input) / (write - price.cache_read)))


def break_even_simple_share(traffic: Traffic, catalogue: Catalogue, rate: float, *, ttl: Ttl = "5m") -> float | None:
    """Share of simple requests from which on routing is cheaper than the strong model alone, both cached at one hit rate.

    Routing pays the classifier for every request and saves on the simple ones: share = classifier / saving of a simple request.

    Returns:
        The share, 0..1; None: at no share, because a simple request saves less than the classifier costs.

    Raises:
        ValueError: as `usage_of`.
    """
    cheap, strong = (expected(traffic.simple, catalogue[role], rate, ttl=ttl).total for role in ("cheap", "strong"))
    label = catalogue["classifier"].price.cost(traffic.classifier)
    saved = strong - cheap
    return float(label / saved) if saved > 0 and label <= saved else None


def _write(price: Price, ttl: Ttl) -> Decimal:
    write = price.cache_write_1h if ttl == "1h" else price.cache_write_5m
    if not 0 < price.cache_read < price.input or write <= price.cache_read:
        raise ValueError("the model has no price for cached tokens: it has no prompt cache")
    return write
