"""Who may call a model next, over all workers of a cluster: one limiter a model on the scheduler, asked before each call.

A turn is one message of about a millisecond. The scheduler books it and says how long to wait, so the sum over all workers keeps the
quota exactly, whoever is busy or idle; a worker that dies leaves unused no more than the turns that it had booked.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from distributed import Scheduler, SchedulerPlugin, Worker
from distributed.utils import sync

from workshop_lib.bedrock.pacing import Limiter, Quota
from workshop_lib.bulk.runner import specs_of
from workshop_lib.cascade.cascade import Cascade

ANSWER_WITHIN_S = 60
"""How long a worker waits for the scheduler's word; it is asked about as often as a model is."""


class Turns(SchedulerPlugin):
    """A run's limiters. It also ends the run's calls when the driver is gone, which nobody would read the results of."""

    def __init__(self, run: str, driver: str, limits: Mapping[str, Quota]) -> None:
        """
        Args:
            run: names the run on the cluster.
            driver: id of the client that started it.
            limits: model, named as the tiers name it, to the quota that all workers share.
        """
        self.name, self._driver, self._limits = run, driver, dict(limits)
        self._limiters: dict[str, Limiter] = {}
        self._ending: set[asyncio.Future[Any]] = set()

    async def start(self, scheduler: Scheduler) -> None:
        """Called where the scheduler runs."""
        self._limiters = {model: Limiter(quota) for model, quota in self._limits.items()}
        scheduler.handlers[self.name] = self._turn

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Called when any client has left or died."""
        if client == self._driver and self.name in scheduler.worker_plugins:
            task = asyncio.ensure_future(scheduler.unregister_worker_plugin(None, self.name))
            self._ending.add(task)  # else it might be collected before it is done
            leave(self.name, dask_scheduler=scheduler)

    def _turn(self, *, model: str, tokens: float | None, reserved: float, used: float, left: int = 0) -> float:
        limiter = self._limiters[model]
        limiter.settle(reserved, used)
        limiter.give_back(0, left)
        return limiter.due() if tokens is None else limiter.book(tokens)


def shared_limits(cascade: Cascade[Any], limits: Mapping[str, Quota]) -> dict[str, Quota]:
    """A run's limits, with the session's own share of a quota among them, which else each worker would take for itself. Tiers that name
    one model differently get equal parts of it.
    """
    share, shared = getattr(cascade.client, "share", {}), dict(limits)
    keys = {tier.model: spec.key for tier, spec in zip(cascade.tiers, specs_of(cascade).values(), strict=False)}
    for model, key in keys.items():
        own = share[key].tokens_per_minute if key in share else None
        if own is not None:
            given, names = shared.get(model, Quota()), sum(other == key for other in keys.values())
            least = min(own / names, math.inf if given.tokens_per_minute is None else given.tokens_per_minute)
            shared[model] = replace(given, tokens_per_minute=least)
    return shared


def leave(run: str, *, dask_scheduler: Scheduler) -> None:
    """Remove a run's limiters from the scheduler; Dask gives the second argument."""
    dask_scheduler.handlers.pop(run, None)
    dask_scheduler.remove_plugin(run)


class SharedLimiter(Limiter):
    """A worker's part of it: waits as long as the scheduler says. Safe to share between threads."""

    def __init__(self, worker: Worker, run: str, model: str) -> None:
        super().__init__(Quota())
        self._worker, self._run, self._model = worker, run, model
        self._settled = (0.0, 0.0, 0)

    def book(self, tokens: float) -> float:
        """Take a turn at the scheduler. What earlier calls reserved and did not use goes back with the question.

        Raises:
            OSError: the scheduler does not answer.
        """
        return self._ask(tokens)

    def due(self) -> float:
        """Seconds until the last turn that was booked comes, by the scheduler; raises as `book`."""
        return self._ask(None)

    def _ask(self, tokens: float | None) -> float:
        with self._lock:
            (reserved, used, left), self._settled = self._settled, (0.0, 0.0, 0)
        ask = getattr(self._worker.scheduler, self._run)
        wait: float = sync(
            self._worker.loop, ask, model=self._model, tokens=tokens, reserved=reserved, used=used, left=left,
            callback_timeout=ANSWER_WITHIN_S,
        )  # fmt: skip
        return wait

    def give_back(self, tokens: float, turns: int = 1) -> None:
        """Give back turns that were booked and not used, and the tokens that they had reserved."""
        with self._lock:
            reserved, used, left = self._settled
            self._settled = reserved + tokens, used, left + turns

    def settle(self, reserved: float, used: float) -> None:
        """Give back the tokens that a call reserved and did not use."""
        with self._lock:
            self._settled = self._settled[0] + reserved, self._settled[1] + used, self._settled[2]
