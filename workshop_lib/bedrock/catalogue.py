"""Which models there are, under which ids, what a call costs: the only place that knows a model id or a price.

catalogue = Catalogue.load()
catalogue["strong"].cost(Usage(input_tokens=1650, output_tokens=231))     # USD
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from workshop_lib.bedrock.errors import ConfigurationError, UnknownModel
from workshop_lib.bedrock.guardrails import GuardrailPrice
from workshop_lib.bedrock.settings import PROJECT

ROLES = ("cheap", "strong", "judge", "classifier")
MILLION = Decimal(1_000_000)


@dataclass(frozen=True)
class Usage:
    """Tokens of one call or of many, as Bedrock counts them; adds up with `+` and `sum(..., Usage())`.

    `input_tokens` is what was neither read from nor written to the cache, so the four counters never overlap.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    """The part of `cache_write_tokens` that was written with the one-hour TTL (it costs more)."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Usage)))

    @property
    def prompt_tokens(self) -> int:
        """All tokens that went in, cached or not."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @classmethod
    def from_wire(cls, usage: Mapping[str, Any]) -> Usage:
        """Bedrock's `usage` object; absent counters are 0."""
        return cls(
            input_tokens=int(usage.get("inputTokens", 0)),
            output_tokens=int(usage.get("outputTokens", 0)),
            cache_read_tokens=int(usage.get("cacheReadInputTokens", 0)),
            cache_write_tokens=int(usage.get("cacheWriteInputTokens", 0)),
            cache_write_1h_tokens=sum(
                int(d.get("inputTokens", 0)) for d in usage.get("cacheDetails", ()) if d.get("ttl") == "1h"
            ),
        )


@dataclass(frozen=True)
class Price:
    """USD per million tokens, one field a counter."""

    input: Decimal
    output: Decimal
    cache_read: Decimal = Decimal(0)
    cache_write_5m: Decimal = Decimal(0)
    cache_write_1h: Decimal = Decimal(0)

    def cost(self, usage: Usage) -> Decimal:
        """Exact USD for the counters of `usage`."""
        return (
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + usage.cache_read_tokens * self.cache_read
            + (usage.cache_write_tokens - usage.cache_write_1h_tokens) * self.cache_write_5m
            + usage.cache_write_1h_tokens * self.cache_write_1h
        ) / MILLION


@dataclass(frozen=True)
class ModelSpec:
    """One model of the catalogue."""

    key: str
    label: str
    base_id: str
    """The foundation model's bare id (for IAM, and refused on demand where only profiles work)."""
    ids: Mapping[str, str]
    """Scope ("on-demand", "us", "global") to the id that is called."""
    prices: Mapping[str, Price]
    """Scope to price: `us.` profiles cost 10 % more than `global.` ones."""
    scope: str
    """The scope in use."""
    as_of: str
    price_source: str
    max_output_tokens: int
    accepts_temperature: bool
    honours_forced_tool: bool
    burndown: float
    """How many quota tokens one output token takes when a call is settled (5 for Claude 3.7 and later, 1 for others)."""
    latency_p50_ms: float
    latency_p95_ms: float
    latency_source: str
    token_ratio: float
    """Tokens of a text relative to the cheapest tokenizer of the catalogue."""
    stand_in: str
    """Which small model answers in its place at the local door: cheap, strong or judge."""
    cache_minimum_tokens: int | None = None
    """Shortest prefix that is cached; None: the model has no prompt cache."""
    cache_ttls: tuple[str, ...] = ()
    long_prompt_above: int | None = None
    long_prompt_factor: Decimal = Decimal(1)
    retires: str | None = None
    """The day (ISO) on which it is no longer served; None: none is known."""
    profile_regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Scope to the Regions in which an inference profile of that scope may be served; "global" names none."""
    batch_prices: Mapping[str, Price] = field(default_factory=dict)
    """Scope to price in a batch job, for the models that a batch price is listed for."""
    structured_output: bool = False
    """Whether `outputConfig.textFormat` is listed for it: JSON in the text, held to a schema."""

    @property
    def id(self) -> str:
        """The id to call, e.g. with the `us.` prefix."""
        return self.ids[self.scope]

    @property
    def price(self) -> Price:
        """USD per million tokens in the scope in use."""
        return self.prices[self.scope]

    @property
    def batch_price(self) -> Price | None:
        """USD per million tokens of a batch job in the scope in use; None: no batch price is listed."""
        return self.batch_prices.get(self.scope)

    def quota_tokens(self, usage: Usage) -> float:
        """Tokens that a finished call takes from a quota: cache reads none, each output token `burndown` of them.

        Source: AWS's agent toolkit for Bedrock, "model invocation" (August 2026).
        """
        return usage.input_tokens + usage.cache_write_tokens + usage.output_tokens * self.burndown

    def cost(self, usage: Usage, *, batch: bool = False) -> float:
        """USD of *one call* (a long prompt may change the price of the whole call).

        Computed in decimal and handed out as the nearest float.

        Args:
            batch: as a record of a batch job. Its price lists no cache, so all prompt tokens are input there.

        Raises:
            ConfigurationError: no batch price is listed for this model.
        """
        price = self.price
        if batch:
            if self.batch_price is None:
                raise ConfigurationError(
                    f"No batch price is listed for {self.label} ({self.key}, {self.scope}).",
                    advice="Price it on demand, or take a model with batch_prices in data/models.json.",
                )
            price, usage = self.batch_price, Usage(usage.prompt_tokens, usage.output_tokens)
        exact = price.cost(usage)
        if self.long_prompt_above is not None and usage.prompt_tokens > self.long_prompt_above:
            exact *= self.long_prompt_factor
        return float(exact)


@dataclass(frozen=True)
class Catalogue:
    """The models of data/models.json and the pair whose roles are in use. `catalogue["strong"]` or `catalogue["<key>"]`."""

    version: str
    models: Mapping[str, ModelSpec]
    pairs: Mapping[str, Mapping[str, str]]
    pair: str
    guardrail_price: GuardrailPrice
    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | None = None, *, pair: str | None = None, scope: str = "us") -> Catalogue:
        """Read the catalogue.

        Args:
            path: the file; None: data/models.json of this project.
            pair: whose roles to use; None: the file's default.
            scope: "us" or "global", for the models that are called through an inference profile.

        Raises:
            ConfigurationError: the file is missing or wrong.
            UnknownModel: there is no such pair.
        """
        path = path or PROJECT / "data" / "models.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            regions = {name: tuple(found) for name, found in raw["profile_regions"].items()}
            models = {key: _spec(key, entry, scope, regions) for key, entry in raw["models"].items()}
            pairs, default = raw["pairs"], raw["default_pair"]
            guardrail_price = _guardrail_price(raw["guardrail"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise ConfigurationError(
                f"The model catalogue {path} cannot be read: {type(error).__name__}: {error}.",
                advice="Install the project with `pip install -e .` from its own folder, or restore data/models.json.",
            ) from error
        missing = [m for roles in pairs.values() for m in roles.values() if m not in models]
        if missing or scope not in ("us", "global"):
            problem = (
                f"a pair names {missing[0]}, which is not among its models"
                if missing
                else f"there is no scope {scope!r}"
            )
            raise ConfigurationError(f"The model catalogue {path}: {problem}.", advice="Scopes are us and global.")
        chosen = pair or default
        if chosen not in pairs:
            raise UnknownModel(
                f"There is no pair {chosen!r}.", advice=f"Set WORKSHOP_PAIR to one of: {', '.join(pairs)}."
            )
        return cls(raw["version"], models, pairs, chosen, guardrail_price, raw["sources"])

    @property
    def roles(self) -> Mapping[str, str]:
        """Role to catalogue key, for the pair in use."""
        return self.pairs[self.pair]

    def __getitem__(self, name: str) -> ModelSpec:
        """The model of a role, a key, or any id of the catalogue.

        Raises:
            UnknownModel: nothing is called so.
        """
        key = self.roles.get(name, name)
        if key in self.models:
            return self.models[key]
        spec = self.by_id(name)
        if spec is None:
            raise UnknownModel(
                f"There is no model {name!r} in the catalogue.",
                advice=f"Roles: {', '.join(ROLES)}; keys: {', '.join(self.models)}.",
            )
        return spec

    def by_id(self, model_id: str) -> ModelSpec | None:
        """The model that a wire id or ARN names, with the scope that the id stands for; None if unknown."""
        bare = model_id.rsplit("/", 1)[-1]
        for spec in self.models.values():
            for scope, known in spec.ids.items():
                if bare == known:
                    return spec if scope == spec.scope else replace(spec, scope=scope)
            if bare == spec.base_id:
                return spec
        return None

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self.models.values())

    def __len__(self) -> int:
        return len(self.models)


def _spec(key: str, entry: Mapping[str, Any], scope: str, regions: Mapping[str, tuple[str, ...]]) -> ModelSpec:
    prices, batch_prices = (
        {s: Price(**{k: Decimal(v) for k, v in p.items()}) for s, p in entry.get(name, {}).items()}
        for name in ("prices", "batch_prices")
    )
    long_prompt = entry.get("long_prompt", {})
    return ModelSpec(
        key=key,
        label=entry["label"],
        base_id=entry["base_id"],
        ids=entry["ids"],
        prices=prices,
        scope="on-demand" if "on-demand" in entry["ids"] else scope,
        as_of=entry["as_of"],
        price_source=entry["price_source"],
        max_output_tokens=entry["max_output_tokens"],
        accepts_temperature=entry["accepts_temperature"],
        honours_forced_tool=entry["honours_forced_tool"],
        burndown=float(entry["output_burndown"]),
        latency_p50_ms=entry["latency"]["p50_ms"],
        latency_p95_ms=entry["latency"]["p95_ms"],
        latency_source=entry["latency"]["source"],
        token_ratio=entry["token_ratio"],
        stand_in=entry["stand_in"],
        cache_minimum_tokens=entry.get("cache_minimum_tokens"),
        cache_ttls=tuple(entry.get("cache_ttls", ())),
        long_prompt_above=long_prompt.get("above_tokens"),
        long_prompt_factor=Decimal(long_prompt.get("factor", "1")),
        retires=entry.get("retires"),
        profile_regions=regions,
        batch_prices=batch_prices,
        structured_output=entry.get("structured_output", False),
    )


def _guardrail_price(entry: Mapping[str, Any]) -> GuardrailPrice:
    prices = {name: Decimal(value) for name, value in entry["prices"].items()}
    return GuardrailPrice(**prices, as_of=entry["as_of"], source=entry["price_source"])
