"""Brown-out: what becomes of a ticket that needs the strong tier while that tier is throttled, failing or over its budget.

    brownout = BrownOut(cascade, budget_usd=5.0, strong_down=StrongDown(stakes="human", other="cheap-with-flag"))
    handled = brownout.handle(ticket)       # answered | flagged | queued | human, and why
    for handled in brownout.drain(): ...    # later: what was queued, asked again from where it stopped

Tickets that the lower tiers settle are answered as ever.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from workshop_lib.bedrock import errors
from workshop_lib.cascade.attempt import Attempt, Outcome, Reason, Tier, attempt
from workshop_lib.cascade.cascade import Cascade, conclude
from workshop_lib.operations.handled import Handled, handled

Choice = Literal["queue", "cheap-with-flag", "human"]


class NotAsked(errors.WorkshopError):
    """A tier was left out on purpose: paused after failures, or its budget is spent. The message is the reason's short name."""

    default_advice = "Wait for the breaker's pause to end, or raise or renew the budget; then drain the queue."


@dataclass(frozen=True)
class StrongDown:
    """What is done without the strong tier, by what is at stake."""

    stakes: Choice = "human"
    """The lower tier's decision touches the task's stakes (for triage: P0, P1, needs_human)."""
    other: Choice = "cheap-with-flag"
    """It does not: the rule merely wanted a second opinion."""
    undecided: Literal["queue", "human"] = "queue"
    """No lower tier has a usable decision."""

    def choose(self, outcome: Outcome[Any], stakes: Sequence[str]) -> Choice:
        """What is done with this outcome, whose decision touches these stakes. Override it for a policy of your own."""
        if outcome.decision is None:
            return self.undecided
        return self.stakes if stakes else self.other


class Breaker:
    """After `after` failures in a row nobody is let through for `pause_s` seconds; then one at a time, until one succeeds.

    Safe to share between threads. A clock that jumps back starts the pause anew, one that jumps forward ends it: neither locks it.
    """

    def __init__(self, *, after: int = 5, pause_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            after: failures in a row, one or more.
            pause_s: seconds between two tries while it is open.
            clock: seconds; by default one that no change of the system's time moves.

        Raises:
            ValueError: `after` is less than 1, or the pause is negative.
        """
        if after < 1 or pause_s < 0:
            raise ValueError(f"a breaker opens after 1 failure or more, for 0 s or more: not {after} and {pause_s:g}")
        self._after, self._pause_s, self._clock = after, pause_s, clock
        self._failures, self._since = 0, 0.0
        self._lock = threading.Lock()

    @property
    def open(self) -> bool:
        """Whether calls are held back."""
        return self._failures >= self._after

    def allows(self) -> bool:
        """Whether a call may be made now. While it is open, a True is one probe: the next comes a pause later, whatever becomes of it."""
        with self._lock:
            if not self.open:
                return True
            now = self._clock()
            self._since = min(self._since, now)
            if now - self._since < self._pause_s:
                return False
            self._since = now
            return True

    def succeeded(self) -> None:
        """A call came through: closed again."""
        with self._lock:
            self._failures = 0

    def failed(self, *, at_once: bool = False) -> None:
        """A call failed; `at_once` opens it without waiting for more of them."""
        with self._lock:
            self._failures = max(self._failures + 1, self._after if at_once else 0)
            if self.open:
                self._since = self._clock()


class BrownOut:
    """A cascade that goes on without its last tier where it must. Safe to share between threads."""

    def __init__(
        self,
        cascade: Cascade[Any],
        *,
        budget_usd: float | None = None,
        strong_down: StrongDown | None = None,
        breaker: Breaker | None = None,
        queue_limit: int = 10_000,
    ) -> None:
        """
        Args:
            cascade: two tiers or more; the last one is the strong tier.
            budget_usd: for the strong tier, until `renew()`. A call is made only if the dearest one so far would still fit, beside
                those under way; so only first calls, of which no price is known, may pass it.
            strong_down: what is done instead; None: stakes to a person, the rest flagged.
            breaker: None: five failures in a row, half a minute.
            queue_limit: tickets kept at most, in memory; above it a person gets them.

        Raises:
            ValueError: the cascade has one tier: there is nothing to fall back on.
        """
        if len(cascade.tiers) < 2:
            raise ValueError("a brown-out needs a cascade of two tiers or more: one to fall back on")
        self.cascade, self._strong = cascade, cascade.tiers[-1]
        self._policy, self.breaker = strong_down or StrongDown(), breaker or Breaker()
        self._budget, self._limit = budget_usd, queue_limit
        self._spent = self._dearest = 0.0
        self._under_way = 0
        self._queue: deque[tuple[Any, Outcome[Any]]] = deque()
        self._lock = threading.Lock()

    @property
    def spent_usd(self) -> float:
        """USD of the strong tier since the start or the last `renew()`."""
        return self._spent

    @property
    def queued(self) -> int:
        """Tickets that wait."""
        return len(self._queue)

    def renew(self) -> None:
        """A new budget period begins."""
        with self._lock:
            self._spent = 0.0

    def handle(self, item: Any) -> Handled:
        """The cascade's answer, or what the policy says where the strong tier was needed and not to be had."""
        return self._handle(item)

    def drain(self) -> Iterator[Handled]:
        """Ask again about what is queued now, without paying the lower tiers twice; what still cannot be settled is queued again."""
        for _ in range(len(self._queue)):
            try:
                item, earlier = self._queue.popleft()
            except IndexError:  # another thread drains as well
                return
            kept = [a for a in earlier.attempts if a.tier != self._strong.name]
            paid = [a for a in earlier.attempts if a.tier == self._strong.name and a.replies]
            yield self._handle(item, attempts=kept, paid=paid, reasons=earlier.reasons)

    def _handle(
        self,
        item: Any,
        *,
        attempts: Sequence[Attempt[Any]] = (),
        paid: Sequence[Attempt[Any]] = (),
        reasons: Sequence[Reason] = (),
    ) -> Handled:
        """`paid`: earlier attempts of the strong tier that failed after a reply or more; they stay on the ticket's bill."""

        def ask(tier: Tier) -> Attempt[Any]:
            if tier.name != self._strong.name:
                return attempt(item, tier, task=self.cascade.task, client=self.cascade.client)
            return self._ask_strong(item)

        *_, last = self.cascade.stream(item, attempts=attempts, reasons=reasons, ask=ask)
        outcome = last.outcome
        assert outcome is not None
        outcome = replace(outcome, attempts=(*attempts, *paid, *outcome.attempts[len(attempts) :]))
        why = _why(outcome.attempts[-1].error) if outcome.attempts[-1].tier == self._strong.name else ""
        return handled(outcome) if not why else self._without_strong(item, outcome, why)

    def _without_strong(self, item: Any, outcome: Outcome[Any], why: str) -> Handled:
        skipped = all(a.tier == self._strong.name for a in outcome.attempts)
        if outcome.decision is None and skipped and self._policy.other == "cheap-with-flag":
            # The route had skipped the lower tiers; now the first of them is better than nothing.
            cheap = attempt(item, self.cascade.tiers[0], task=self.cascade.task, client=self.cascade.client)
            outcome = conclude(outcome.item_id, self.cascade.task, (cheap, *outcome.attempts), outcome.reasons)
        stakes = () if outcome.decision is None else tuple(self.cascade.task.stakes(outcome.decision))
        choice = self._policy.choose(outcome, stakes)
        record = replace(handled(outcome), why=why)
        if choice == "cheap-with-flag" and outcome.decision is not None:
            return replace(record, disposition="flagged")
        if choice == "queue":
            with self._lock:
                if len(self._queue) < self._limit:
                    self._queue.append((item, outcome))
                    return replace(record, disposition="queued")
            return replace(record, disposition="human", why="queue full")
        return replace(record, disposition="human")

    def _ask_strong(self, item: Any) -> Attempt[Any]:
        task = self.cascade.task
        with self._lock:
            affordable = self._budget is None or (
                self._spent < self._budget and self._spent + (self._under_way + 1) * self._dearest <= self._budget
            )
            why = "" if affordable else "strong over budget"
            if affordable and not self.breaker.allows():
                why = "strong paused"
            if why:
                return Attempt(self._strong.name, self._strong.model, task, error=NotAsked(why), item=item)
            self._under_way += 1
        cost = 0.0
        try:
            found = attempt(item, self._strong, task=task, client=self.cascade.client)
            cost = found.cost_usd
        finally:
            with self._lock:
                self._under_way -= 1
                self._spent += cost
                self._dearest = max(self._dearest, cost)
        if _why(found.error):
            self.breaker.failed(at_once=isinstance(found.error, errors.DailyQuotaReached))
        else:  # an answer came, usable or not: the tier is there
            self.breaker.succeeded()
        return found


def _why(error: errors.WorkshopError | None) -> str:
    """Short name of why the strong tier was not to be had; "" if it answered, well or badly, or refused this one item."""
    if isinstance(error, NotAsked):
        return error.message
    if isinstance(error, errors.Throttled | errors.DailyQuotaReached):
        return "strong throttled"
    down = isinstance(error, errors.BedrockError) and not isinstance(error, errors.InvalidRequest)
    return "strong failing" if down else ""
