"""One tier's try at an item, what a whole run of the cascade came to, and the events on the way."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel

from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.bedrock.client import Message, Tool
from workshop_lib.bedrock.errors import BedrockError, InvalidOutput, WorkshopError
from workshop_lib.bedrock.replies import Reply
from workshop_lib.triage import prompts
from workshop_lib.triage.task import Task

D = TypeVar("D", bound=BaseModel)
D_co = TypeVar("D_co", bound=BaseModel, covariant=True)


class Converses(Protocol):
    """Whatever can answer: `Bedrock`, or a double of your own in a test."""

    def converse(
        self,
        model: str,
        messages: str | Sequence[Message],
        *,
        system: str | Sequence[Message] = (),
        tool: Tool | None = None,
        max_tokens: int = 512,
        temperature: float | None = 0.0,
    ) -> Reply:
        """As `Bedrock.converse`."""
        ...


@dataclass(frozen=True)
class Tier:
    """A model with its settings. Tiers of a cascade are listed from cheap to strong."""

    model: str
    """Role (cheap, strong, ...) or catalogue key."""
    name: str = ""
    """How the tier is called in events and tables; default: `model`."""
    temperature: float | None = 0.0
    max_tokens: int | None = None
    """Longest answer; None: what the task says."""
    repairs: int = 1
    """How often an unusable answer is sent back with what is wrong in it."""
    votes: int = 1
    """Samples at most; above 1 their majority answers, and the share that agrees is the confidence. All are paid for."""
    wordings: tuple[str, ...] = ()
    """Added to the system prompt in turn, so that the samples of a vote are asked differently."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.model)
        if self.votes < 1:
            raise ValueError(f"a tier needs one vote or more, not {self.votes}")
        if self.votes > 1 and self.temperature == 0 and len(self.wordings) < 2:
            raise ValueError(
                f"{self.votes} votes at temperature 0 are one vote: give temperature=1.0, or wordings that differ"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """Name, model and what is not by default, as JSON knows it: a setting that a later version adds changes no kept run."""
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {"model": self.model, "name": self.name} | {
            name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()
        }


@dataclass(frozen=True)
class Reason:
    """Why an item went up a tier."""

    rule: str
    """Short name that can be counted, e.g. "needs_human"."""
    detail: str = ""
    """What was seen, e.g. "confidence 0.62 < 0.7"."""


@dataclass(frozen=True)
class Attempt(Generic[D_co]):
    """One tier's try: a decision or an error, and all that it cost either way."""

    tier: str
    model: str
    """Catalogue key of the model that answered, or the tier's model if none did."""
    task: Task[Any]
    decision: D_co | None = None
    error: WorkshopError | None = None
    replies: tuple[Reply, ...] = ()
    """Every answer that was paid for: one, or more after a repair turn."""
    http_attempts: int = 0
    """HTTP requests of all calls of this try, retries and failed ones included."""
    agreement: float | None = None
    """Of a vote: the share of samples that gave this decision, unusable ones counted as dissent; None: there was no vote."""
    item: Any = field(default=None, repr=False, compare=False)
    """What was asked about, for rules that read it; None: a kept attempt that no cascade has looked at yet."""

    @property
    def confidence(self) -> float | None:
        """The share of votes where there was a vote, else what the model states about itself, None if its task does not ask."""
        if self.agreement is not None:
            return self.agreement
        stated = getattr(self.decision, "confidence", None)
        return None if stated is None else float(stated)

    @property
    def confidence_source(self) -> Literal["votes", "self-reported"]:
        """Where `confidence` comes from."""
        return "self-reported" if self.agreement is None else "votes"

    @property
    def cost_usd(self) -> float:
        """USD of all replies, unusable ones included."""
        return sum(reply.cost_usd for reply in self.replies)

    @property
    def usage(self) -> Usage:
        """Tokens of all replies."""
        return sum((reply.usage for reply in self.replies), Usage())

    @property
    def latency_ms(self) -> float:
        """Model time of all replies, one after the other."""
        return sum(reply.latency_ms for reply in self.replies)


@dataclass(frozen=True)
class Outcome(Generic[D_co]):
    """What a run of the cascade came to for one item."""

    item_id: str
    decision: D_co | None
    """The final decision: the highest tier that answered, with flags of lower tiers kept. None: every tier failed."""
    attempts: tuple[Attempt[D_co], ...]
    reasons: tuple[Reason, ...] = ()
    """Why it went up, over all tiers; why it began above the first one."""
    flags: Mapping[str, str] = ()  # type: ignore[assignment]  # made a dict in __post_init__
    """Raised flag to the first tier that raised it."""
    side_by_side: bool = False
    """Whether the last tier was asked at the same time as the first."""
    unneeded: Attempt[D_co] | None = None
    """The last tier's try, where it was asked early and the first tier's answer was enough: paid for, and not used."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "flags", dict(self.flags))

    @property
    def escalated(self) -> bool:
        """Whether it went above its first tier, or began there."""
        return len(self.attempts) > 1 or bool(self.reasons)

    @property
    def final(self) -> Attempt[D_co]:
        """The attempt whose decision was taken; the last one if every tier failed."""
        return next((a for a in reversed(self.attempts) if a.decision is not None), self.attempts[-1])

    @property
    def degraded(self) -> bool:
        """Whether a higher tier failed and a lower tier's decision was kept instead."""
        return self.decision is not None and self.attempts[-1].decision is None

    @property
    def error(self) -> WorkshopError | None:
        """The last tier's failure, if it failed; with a decision beside it when a lower tier's was kept."""
        return self.attempts[-1].error

    @property
    def cost_usd(self) -> float:
        """USD of every call of every tier, an unneeded one included."""
        return sum(a.cost_usd for a in self._paid)

    @property
    def usage(self) -> Usage:
        """Tokens of every call; price them per model, not in sum."""
        return sum((a.usage for a in self._paid), Usage())

    @property
    def latency_ms(self) -> float:
        """Model time until the decision stands: one tier after the other, or the slower of two asked side by side."""
        times = [a.latency_ms for a in self.attempts]
        return max(times) if self.side_by_side else sum(times)

    @property
    def _paid(self) -> tuple[Attempt[D_co], ...]:
        return self.attempts if self.unneeded is None else (*self.attempts, self.unneeded)


@dataclass(frozen=True)
class Event(Generic[D_co]):
    """A step of one item's journey, in order: tier-started, tier-finished, (escalated, tier-started, ...)*, finished | failed.

    With a route that begins above the first tier, `routed` comes first. With a tier that was asked early and is not needed, `decided`
    comes before the bill is known: the decision stands, and may be shown.
    """

    kind: Literal["routed", "tier-started", "tier-finished", "escalated", "decided", "finished", "failed"]
    item_id: str
    tier: str = ""
    attempt: Attempt[D_co] | None = None
    """With tier-finished."""
    reasons: tuple[Reason, ...] = ()
    """With escalated and routed."""
    outcome: Outcome[D_co] | None = None
    """With decided, finished and failed."""


def attempt(item: Any, tier: Tier, *, task: Task[D], client: Converses) -> Attempt[D]:
    """Ask one tier. An unusable answer is sent back once with what is wrong in it; failures are recorded, not raised.

    A tier of several votes is asked until no further sample could change the majority.

    Raises:
        UnknownModel: the tier names no model of the catalogue (a mistake in the program, not in the item).
    """
    wordings = itertools.cycle(tier.wordings or ("",))
    samples = (_sample(item, tier, task=task, client=client, wording=wording) for wording in wordings)
    return next(samples) if tier.votes == 1 else vote(samples, tier.votes)


def vote(samples: Iterable[Attempt[D]], most: int) -> Attempt[D]:
    """The majority's first sample, with the replies of all; samples are taken until no further one could change the majority.

    Args:
        samples: of one item, one reply or more each; recorded ones as well. Unusable ones count as dissent.
        most: how many are taken at most.

    Raises:
        ValueError: there are no samples, or none is to be taken.
    """
    taken: list[Attempt[D]] = []
    ballots: Counter[str] = Counter()
    for sample in itertools.islice(samples, most):
        taken.append(sample)
        if sample.decision is not None:
            ballots[_ballot_key(sample.decision)] += 1
        if _decided(ballots, left=most - len(taken)):
            break
    if not taken:
        raise ValueError("a vote takes one sample or more")
    replies = tuple(reply for sample in taken for reply in sample.replies)
    calls = sum(sample.http_attempts for sample in taken)
    if not ballots:
        return replace(taken[-1], replies=replies, http_attempts=calls)
    chosen, votes = ballots.most_common(1)[0]  # of equal ones, the first that was given
    first = next(s for s in taken if s.decision is not None and _ballot_key(s.decision) == chosen)
    return replace(first, replies=replies, http_attempts=calls, agreement=votes / len(taken))


def _decided(ballots: Counter[str], *, left: int) -> bool:
    """Whether the leader stays ahead, or level and first, whatever is still to come."""
    ranked = [count for _, count in ballots.most_common(2)]
    return bool(ranked) and ranked[0] - (ranked[1] if len(ranked) > 1 else 0) >= left + (len(ranked) > 1)


def ballot(decision: BaseModel) -> dict[str, Any]:
    """What is voted on: the fields of closed lists and yes or no, not the words and figures around them."""
    loose = {name for name, form in type(decision).model_fields.items() if form.annotation in (str, float)}
    return decision.model_dump(mode="json", exclude=loose)


def _ballot_key(decision: BaseModel) -> str:
    return json.dumps(ballot(decision), sort_keys=True)


def _sample(item: Any, tier: Tier, *, task: Task[D], client: Converses, wording: str = "") -> Attempt[D]:
    system = f"{task.system}\n\n{wording}" if wording else task.system
    replies: list[Reply] = []
    calls = 0
    conversation: list[Message] = [{"role": "user", "content": [{"text": task.describe(item)}]}]

    def result(decision: D | None, error: WorkshopError | None) -> Attempt[D]:
        model = replies[-1].model if replies else getattr(error, "model", "") or tier.model
        return Attempt(tier.name, model, task, decision, error, tuple(replies), calls, item=item)

    for turn in range(tier.repairs + 1):
        try:
            reply = client.converse(
                tier.model,
                conversation,
                system=system,
                tool=task.tool,
                max_tokens=tier.max_tokens or task.max_tokens,
                temperature=tier.temperature,
            )
        except BedrockError as error:
            calls += error.attempts
            return result(None, error)
        replies.append(reply)
        calls += reply.attempts
        try:
            return result(task.parse(reply), None)
        except InvalidOutput as problem:
            if turn == tier.repairs or reply.blocked:
                return result(None, problem)
            conversation += _repair(task, reply, problem)
    raise AssertionError("the loop returns")


def _repair(task: Task[Any], reply: Reply, problem: InvalidOutput) -> list[Message]:
    text = prompts.REPAIR.substitute(problem=problem.message, tool=task.tool.name)
    answer: dict[str, Any] = {"text": text}
    if reply.tool_use is not None:
        use_id = reply.tool_use["toolUseId"]
        answer = {"toolResult": {"toolUseId": use_id, "content": [{"text": text}], "status": "error"}}
    said = reply.message
    if not said.get("content"):
        said = {"role": "assistant", "content": [{"text": "(no answer)"}]}
    return [said, {"role": "user", "content": [answer]}]
