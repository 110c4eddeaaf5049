"""How fast models may be called: a limiter that keeps calls under a known quota, so that they need not be throttled to slow down.

paced = Paced(workshop.bedrock, {"strong": Quota(requests_per_minute=1_200)})
Cascade(tiers, client=paced)          # calls of `strong` wait for their turn
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from workshop_lib.bedrock.errors import WorkshopError
from workshop_lib.bedrock.replies import Reply

CHARACTERS_PER_TOKEN = 3.5
"""For guessing a prompt's tokens before it is sent; what was reserved in excess is given back when the answer is there."""

SAVED_UP_S = 0.1
LOOK_AGAIN_S = 0.2
"""How long who may go on in a run that has ended sleeps at a time: those ahead may have left their turns."""


class RunEnded(WorkshopError):
    """The run ended, or gave its ticket up, while a call waited for its turn. The call was not made and costs nothing."""

    default_advice = "Run it again: a run with a store goes on from there."


class TurnsLeftError(Exception):
    """Others have left their turns: the own one may come earlier."""


@dataclass
class Leave:
    """How long a thread of a run may wait for a turn. A repair or a further vote belongs to a call that is paid for: it may go on."""

    ticket: threading.Event
    """The run has ended, or the ticket was given up: no first call."""
    run: threading.Event
    """The run has ended: no other ticket waits for a first call."""
    gone: threading.Event
    """Nobody takes in any more what comes: no call at all."""
    paid: bool = False
    """A call was made."""

    def wait(self, seconds: float) -> None:
        """Sleep that long.

        Raises:
            RunEnded: leave.
            TurnsLeftError: look again how long it takes.
        """
        if self.paid:
            if not self.run.wait(seconds):
                return
            if not self.gone.wait(min(seconds, LOOK_AGAIN_S)):
                raise TurnsLeftError
        elif not self.ticket.wait(seconds):
            return
        raise RunEnded("The run ended while a call waited for its turn.")


LEAVE: ContextVar[Leave | None] = ContextVar("leave", default=None)
"""Set by a run in each of its threads. Limiters are met deep within a client; so it need not be handed through every client that wraps
another."""


def pause(seconds: float) -> None:
    """Sleep; in a run as `Leave.wait`, with its errors."""
    leave = LEAVE.get()
    if leave is None:
        time.sleep(seconds)
    else:
        leave.wait(seconds)


@dataclass(frozen=True)
class Quota:
    """What an account may call of one model; None: no limit."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    tokens_per_day: float | None = None
    burst_seconds: float = 60.0
    """How much of a minute's allowance may be used at once."""


class Limiter:
    """Hands out turns no faster than a quota allows, first come, first served. Safe to share between threads.

    It saves up no more than a tenth of a second's allowance: what the service allows as a burst stays there to absorb the jitter
    of the network, and whoever else uses the same quota. Only while calls are under way as much again as they have reserved may come
    together, so that who makes one call after the other has all of the quota.
    """

    def __init__(
        self, quota: Quota, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = pause
    ) -> None:
        self._clock, self._sleep, self._lock = clock, sleep, threading.Lock()
        per_minute = (quota.requests_per_minute, quota.tokens_per_minute)
        self._rates = [None if each is None else each / 60 for each in per_minute]
        self._depths = [0.0 if rate is None else max(1.0, rate * SAVED_UP_S) for rate in self._rates]
        self._levels = list(self._depths)
        self._at = clock()

    def acquire(self, tokens: float = 0) -> float:
        """Wait for a turn.

        Args:
            tokens: what the call reserves, its prompt and its max_tokens; to be settled at its end.

        Returns:
            Seconds waited.

        Raises:
            RunEnded: see `LEAVE`; the turn is given back.
        """
        left, waited = self.book(tokens), 0.0
        while left > 0:
            began = self._clock()
            try:
                self._sleep(left)
                return waited + left
            except TurnsLeftError:
                slept = self._clock() - began
                waited, left = waited + slept, min(left - slept, self.due())
            except BaseException:
                self.give_back(tokens)
                raise
        return waited

    def book(self, tokens: float) -> float:
        """Take a turn, which may lie in the future, where nobody after us can take it; seconds until it comes."""
        with self._lock:
            self._refill()
            self._depths[1] += tokens
            for i, need in enumerate((1.0, tokens)):
                if self._rates[i] is not None:
                    self._levels[i] -= need
            return self._due()

    def due(self) -> float:
        """Seconds until the last turn that was booked comes."""
        with self._lock:
            self._refill()
            return self._due()

    def give_back(self, tokens: float, turns: int = 1) -> None:
        """Give back turns that were booked and not used, and the tokens that they had reserved."""
        with self._lock:
            self._levels[0] += turns
        self.settle(tokens, 0)

    def settle(self, reserved: float, used: float) -> None:
        """Give back the tokens that a call reserved and did not use."""
        with self._lock:
            self._refill()
            self._depths[1] -= reserved
            self._levels[1] += reserved - used

    @contextmanager
    def turn(self, prompt: str, max_tokens: int) -> Iterator[list[float]]:
        """A turn for one call: waits first, and at the end gives back what the call did not use.

        Args:
            prompt: all that is sent, for guessing its tokens.
            max_tokens: the longest answer.

        Yields:
            A list for the tokens that were used; empty if none were.
        """
        reserved, used = len(prompt) / CHARACTERS_PER_TOKEN + max_tokens, list[float]()
        self.acquire(reserved)
        try:
            yield used
        finally:
            self.settle(reserved, sum(used))
        if (leave := LEAVE.get()) is not None:
            leave.paid = True

    def _due(self) -> float:
        return max([0.0, *(-level / rate for level, rate in zip(self._levels, self._rates, strict=True) if rate)])

    def _refill(self) -> None:
        now = self._clock()
        for i, rate in enumerate(self._rates):
            if rate is not None:
                # Only what accrues is capped: what a call gave back is its own.
                self._levels[i] = max(self._levels[i], min(self._depths[i], self._levels[i] + (now - self._at) * rate))
        self._at = now


class Paced:
    """A client whose calls of some models wait for their turn. Everything else is the client's own."""

    def __init__(self, client: Any, limits: Mapping[str, Quota | Limiter]) -> None:
        """
        Args:
            client: whatever has `converse`.
            limits: model, named as the tiers name it, to its quota.
        """
        self._client = client
        self._limiters = {m: q if isinstance(q, Limiter) else Limiter(q) for m, q in limits.items()}

    def converse(self, model: str, messages: Any, *, max_tokens: int = 512, **settings: Any) -> Reply:
        """As the client's, after the wait."""
        limiter = self._limiters.get(model)
        if limiter is None:
            reply: Reply = self._client.converse(model, messages, max_tokens=max_tokens, **settings)
            return reply
        catalogue = getattr(self._client, "catalogue", None)
        with limiter.turn(f"{messages}{settings}", max_tokens) as used:
            reply = self._client.converse(model, messages, max_tokens=max_tokens, **settings)
            usage = reply.usage
            plain = usage.input_tokens + usage.cache_write_tokens + usage.output_tokens
            used.append(plain if catalogue is None else catalogue[model].quota_tokens(usage))
        return reply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)
