"""What became of one ticket in production: who has it now, why, and all that it cost, with or without a model's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import islice
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from workshop_lib.bedrock.guardrails import assessments_of, blocks, policies_of
from workshop_lib.bedrock.replies import Reply
from workshop_lib.cascade.attempt import Outcome
from workshop_lib.cascade.cascade import Cascade

Disposition = Literal["answered", "flagged", "queued", "human"]
"""answered: the decision stands · flagged: it stands, and says that it was made under a brown-out · queued: to be asked again
later · human: a person decides."""


@dataclass(frozen=True)
class Intervention:
    """A guardrail stepped in. It is no failure: it did what it is for."""

    stage: Literal["before", "after"]
    """Before any model saw the text, or on a model's answer."""
    action: Literal["blocked", "masked"]
    """blocked: the text goes no further; masked: it goes on with parts of it replaced."""
    policies: tuple[str, ...]
    """Which policies found something: word, topic, pii, prompt-attack. Never what they found."""


@dataclass(frozen=True)
class Handled:
    """One ticket, as a team's records know it."""

    item_id: str
    disposition: Disposition
    why: str = ""
    """Short name that can be counted, e.g. "blocked", "strong throttled", "guardrail unavailable"; "" where it went as usual."""
    outcome: Outcome[Any] | None = None
    """What the models came to; None: none was asked."""
    interventions: tuple[Intervention, ...] = ()
    guardrail_usd: float = 0.0
    """USD of the guardrail: its own calls, and its part in model calls that carry it. `Gate` counts them."""
    unchecked: tuple[Literal["before", "after"], ...] = ()
    """Where the guardrail could not be asked, and the ticket went on without it, or to a person because of it."""

    @property
    def cost_usd(self) -> float:
        """USD of everything: models and guardrail."""
        return self.guardrail_usd + (0.0 if self.outcome is None else self.outcome.cost_usd)


class Handles(Protocol):
    """One way of handling a ticket. `Answering`, `BrownOut` and `Gate` are such, so that one can stand around another."""

    def handle(self, item: Any) -> Handled:
        """What becomes of one item. Failures of models and guardrail are recorded, not raised. Safe to call from many threads."""
        ...

    def drain(self) -> Iterator[Handled]:
        """Ask again what was queued before this call; each record replaces the queued one of the same item, and includes its cost."""
        ...


class Answering:
    """A bare cascade as a way of handling: no queue, and nothing but the cascade's own outcome."""

    def __init__(self, cascade: Cascade[Any]) -> None:
        self.cascade = cascade

    def handle(self, item: Any) -> Handled:
        """The cascade's outcome and what it means for the ticket."""
        return handled(self.cascade.run(item))

    def drain(self) -> Iterator[Handled]:
        """Nothing: it queues nothing."""
        return iter(())


def handled(outcome: Outcome[Any]) -> Handled:
    """What an outcome means for its ticket: without a decision a person has it, and a guardrail that withheld one is no failure."""
    interventions = interventions_of(outcome)
    last = outcome.attempts[-1]
    if last.decision is None and any(reply.blocked for reply in last.replies):
        return Handled(outcome.item_id, "human", "blocked", outcome, interventions)
    if outcome.decision is None:
        return Handled(outcome.item_id, "human", "failed", outcome, interventions)
    if outcome.degraded:
        return Handled(outcome.item_id, "flagged", "strong failed", outcome, interventions)
    return Handled(outcome.item_id, "answered", "", outcome, interventions)


def interventions_of(outcome: Outcome[Any]) -> tuple[Intervention, ...]:
    """Where a guardrail attached to the model calls stepped in, each kind once however many tiers it was asked for."""
    found = [i for attempt in outcome.attempts for reply in attempt.replies for i in _of_reply(reply)]
    return tuple(dict.fromkeys(found))


def handle_all(way: Handles, items: Iterable[Any], *, workers: int = 8) -> Iterator[Handled]:
    """Many items in threads, each record as soon as it is known; no more than `workers` items are read ahead.

    Where an item or their source raises, no further one is begun, and the records of those under way are given before it is raised.

    Raises:
        ValueError: less than one worker.
    """
    if workers < 1:
        raise ValueError(f"it takes one worker or more, not {workers}")
    left = iter(items)
    with ThreadPoolExecutor(workers, "handle") as pool:
        done, running = set[Future[Handled]](), set[Future[Handled]]()
        problem: BaseException | None = None
        while True:
            try:
                for item in islice(left, 0 if problem else workers - len(running)):
                    running.add(pool.submit(way.handle, item))
            except Exception as broken:  # the items' own source
                problem = broken
            yield from (each.result() for each in done if each.exception() is None)
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            problem = problem or next(filter(None, (each.exception() for each in done)), None)
    if problem is not None:
        raise problem


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of an item or decision with every text in it changed, at any depth; ids, closed lists (enums) and figures stay."""
    if type(value) is str:
        return change(value)
    if isinstance(value, BaseModel):
        texts = {name: map_texts(held, change) for name, held in value if name != "id"}
        return value.model_copy(update=texts)
    if is_dataclass(value) and not isinstance(value, type):
        kept = {f.name: getattr(value, f.name) for f in fields(value) if f.init and f.name != "id"}
        return replace(value, **{name: map_texts(held, change) for name, held in kept.items()})
    if isinstance(value, dict):
        return {key: map_texts(held, change) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_texts(held, change) for held in value)
    return value


def _of_reply(reply: Reply) -> Iterator[Intervention]:
    before, after = assessments_of(reply.trace)
    for stage, found in (("before", before), ("after", after)):
        policies = policies_of(found)
        if policies:
            yield Intervention(stage, "blocked" if blocks(found) else "masked", policies)  # type: ignore[arg-type]
    if (
        reply.blocked and not before and not after
    ):  # without a trace the bill tells: a model that was not asked has no tokens
        yield Intervention("after" if reply.usage.output_tokens else "before", "blocked", ())
