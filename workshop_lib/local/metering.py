"""How much may be called and what is remembered: quotas with reservation, and the prompt cache, as Bedrock documents both.

Sources: AWS's agent toolkit for Bedrock, "model invocation" and "prompt caching" (August 2026).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from workshop_lib.bedrock.catalogue import ModelSpec, Usage
from workshop_lib.bedrock.pacing import Quota
from workshop_lib.local.wire import ServiceError

TTL_SECONDS = {"5m": 300.0, "1h": 3600.0}


class _Bucket:
    """Fills at `per_second` up to `depth`; may go below zero when a settlement turns out dearer than its reservation."""

    def __init__(self, per_second: float, depth: float, now: float) -> None:
        self._rate, self._depth, self._level, self._at = per_second, depth, depth, now

    def level(self, now: float) -> float:
        self._level = min(self._depth, self._level + (now - self._at) * self._rate)
        self._at = now
        return self._level

    def add(self, amount: float) -> None:
        self._level = min(self._depth, self._level + amount)


@dataclass
class _Account:
    quota: Quota
    buckets: dict[str, _Bucket] = field(default_factory=dict)


class Quotas:
    """Reserves at the start of a call (prompt + maxTokens) and settles at its end (prompt + output x burndown)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._accounts: dict[str, _Account] = {}

    def set(self, model_key: str, quota: Quota | None) -> None:
        """Put a model's quota in force with full buckets; None takes it back."""
        now = self._clock()
        with self._lock:
            self._accounts.pop(model_key, None)
            if quota is None:
                return
            account = self._accounts[model_key] = _Account(quota)
            for name, per_minute in (("requests", quota.requests_per_minute), ("tokens", quota.tokens_per_minute)):
                if per_minute is not None:
                    depth = max(1.0, per_minute * quota.burst_seconds / 60)
                    account.buckets[name] = _Bucket(per_minute / 60, depth, now)
            if quota.tokens_per_day is not None:
                account.buckets["day"] = _Bucket(quota.tokens_per_day / 86_400, quota.tokens_per_day, now)

    def reserve(self, spec: ModelSpec, prompt_tokens: int, max_tokens: int | None) -> float:
        """Tokens reserved for a call; an unset maxTokens reserves the model's maximum.

        Raises:
            ServiceError: ThrottlingException that says which limit is reached.
        """
        wanted = prompt_tokens + (spec.max_output_tokens if max_tokens is None else max_tokens)
        with self._lock:
            account = self._accounts.get(spec.key)
            if account is None:
                return 0
            now = self._clock()
            for name, what, need in (
                ("day", "tokens per day", wanted), ("requests", "requests", 1), ("tokens", "tokens", wanted)
            ):  # fmt: skip
                if name in account.buckets and account.buckets[name].level(now) < need:
                    raise ServiceError("ThrottlingException", f"Too many {what}, please wait before trying again.")
            for name, bucket in account.buckets.items():
                bucket.add(-1 if name == "requests" else -wanted)
            return wanted

    def settle(self, spec: ModelSpec, reserved: float, usage: Usage) -> None:
        """Give back what the call did not use; cache reads are free of quota."""
        used = spec.quota_tokens(usage)
        with self._lock:
            account = self._accounts.get(spec.key)
            if account is None or not reserved:
                return
            for name in ("tokens", "day"):
                if name in account.buckets:
                    account.buckets[name].add(reserved - used)


@dataclass(frozen=True)
class Segment:
    """A stretch of the prompt up to a cache point, or the rest behind the last one."""

    tokens: int
    prefix_hash: str
    """Of everything from the start of the prompt to this segment's end."""
    ttl: str | None
    """"5m" or "1h" where a cache point ends it; None for the rest."""


class PromptCache:
    """Prefixes that were sent with a cache point, per model, until their TTL has passed since the last use."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._expires: dict[tuple[str, str], float] = {}

    def count(self, spec: ModelSpec, segments: Sequence[Segment]) -> dict[str, Any]:
        """Input counters of a call, in Bedrock's names. A prefix below the model's minimum is silently not cached."""
        now = self._clock()
        sent = done = read = 0
        written: dict[str, int] = {}
        points: list[tuple[int, Segment]] = []
        for segment in segments:
            sent += segment.tokens
            if segment.ttl and spec.cache_minimum_tokens is not None and sent >= spec.cache_minimum_tokens:
                points.append((sent, segment))
        with self._lock:
            for length, segment in points:
                if self._expires.get((spec.key, segment.prefix_hash), 0) > now:
                    read = length
            done = read
            for length, segment in points:
                self._expires[spec.key, segment.prefix_hash] = now + TTL_SECONDS[segment.ttl or "5m"]
                if length > done:
                    written[segment.ttl or "5m"] = written.get(segment.ttl or "5m", 0) + length - done
                    done = length
        counters: dict[str, Any] = {"inputTokens": sent - done}
        if spec.cache_minimum_tokens is not None:
            counters |= {"cacheReadInputTokens": read, "cacheWriteInputTokens": sum(written.values())}
            if written:
                counters["cacheDetails"] = [{"ttl": ttl, "inputTokens": n} for ttl, n in written.items()]
        return counters

    def clear(self) -> None:
        """Forget everything, as if the TTL had passed."""
        with self._lock:
            self._expires.clear()
