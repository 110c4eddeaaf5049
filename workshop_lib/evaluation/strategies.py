"""Whole ways of answering, to be compared on the same tickets: strong-only, cheap-only, cascades, chance, an oracle, your own.

A strategy is a Cascade, or a function from an `Asked` ticket to an Outcome. Either way it is worked out from answers that were
asked for once, so that no two strategies differ by the luck of a second sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, NoReturn

from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.bedrock.errors import ConfigurationError, WorkshopError
from workshop_lib.cascade.attempt import Attempt, Converses, Outcome, Reason, Tier
from workshop_lib.cascade.cascade import Cascade, conclude, id_of, route_identity
from workshop_lib.cascade.rules import Rule, code_hash, confidence_below, invalid_output, stakes
from workshop_lib.evaluation.metrics import joint_agreement
from workshop_lib.triage.task import TRIAGE, Task


@dataclass(frozen=True)
class Asked:
    """One ticket and what each tier answered to it: all that a strategy may go by."""

    item: Any
    attempts: Mapping[str, Attempt[Any]]
    """By tier."""
    task: Task[Any] = TRIAGE

    @property
    def item_id(self) -> str:
        """The ticket's id."""
        return id_of(self.item)

    def take(self, *tiers: str, reasons: Sequence[Reason] = ()) -> Outcome[Any]:
        """The outcome of having asked these tiers, in order, and paid for them: flags of lower ones are kept.

        Args:
            tiers: by name, one or more.
            reasons: why it went up.

        Raises:
            KeyError: a tier was not asked.
        """
        return conclude(self.item_id, self.task, [self.attempts[tier] for tier in tiers], reasons)


Strategy = Cascade[Any] | Callable[[Asked], Outcome[Any]]


OUT_OF_REACH = "oracle"
"""The strategy that knows the key: it is shown, and it is nobody's choice."""


class NoCalls:
    """The client of a strategy that is only worked out: it refuses to call."""

    def converse(self, model: str, messages: Any, **settings: Any) -> NoReturn:
        """Never answers.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            f"{model} was to be called in a replay.", advice="A replay makes no calls: give a client to run it."
        )


def taught_rule() -> Rule:
    """The rule that this pattern is usually taught with; lab 02 looks at what each part of it does."""
    return confidence_below(0.7) | stakes() | invalid_output()


def standard_strategies(client: Converses, *, escalate_when: Rule | None = None) -> dict[str, Cascade[Any]]:
    """The three that every comparison starts from."""
    cheap, strong = Tier("cheap"), Tier("strong")
    return {
        "strong-only": Cascade([strong], client=client),
        "cheap-only": Cascade([cheap], client=client),
        "cascade": Cascade([cheap, strong], escalate_when=escalate_when or taught_rule(), client=client),
    }


def all_strategies(
    labels: Mapping[str, Any], catalogue: Catalogue, *, escalate_when: Rule | None = None
) -> dict[str, Strategy]:
    """The standard three, half of the tickets sent up by chance, the oracle, and three tiers where the pair has a middle one.

    They are worked out from answers (see `bakeoff`), so none of them has a client.
    """
    rule = escalate_when or taught_rule()
    strategies: dict[str, Strategy] = {**standard_strategies(NoCalls(), escalate_when=rule)}
    if "middle" in catalogue.roles:
        tiers = [Tier("cheap"), Tier("middle"), Tier("strong")]
        strategies["three-tier"] = Cascade(tiers, escalate_when=rule, client=NoCalls())
    return {**strategies, "random-50%": at_random(0.5), OUT_OF_REACH: oracle(labels)}


def at_random(share: float, *, seed: int = 0) -> Callable[[Asked], Outcome[Any]]:
    """Send a share of the tickets up by chance: what a rule has to beat at the same escalation rate.

    Raises:
        ValueError: the share is not within 0..1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies within 0..1, not at {share}")

    def strategy(asked: Asked) -> Outcome[Any]:
        drawn = int(hashlib.sha256(f"{seed}:{asked.item_id}".encode("utf-8", "replace")).hexdigest()[:12], 16) / 16**12
        return asked.take("cheap", "strong", reasons=[Reason("random")]) if drawn < share else asked.take("cheap")

    return strategy


def oracle(
    labels: Mapping[str, Any], right: Callable[[Any, Any], bool] = joint_agreement
) -> Callable[[Asked], Outcome[Any]]:
    """The best router there could be: it knows the key and takes the strong model exactly where only that one is right.

    It pays for the model that it takes. Nobody has it; it shows how much there is to be had.
    """

    def strategy(asked: Asked) -> Outcome[Any]:
        cheap, strong = (asked.attempts[name].decision for name in ("cheap", "strong"))
        label = labels[asked.item_id]
        return asked.take("strong" if not right(cheap, label) and right(strong, label) else "cheap")

    return strategy


def work_out(name: str, strategy: Strategy, asked: Asked) -> Outcome[Any]:
    """A strategy's outcome for one ticket. A function that raises fails on this ticket, and the others are unharmed.

    Raises:
        KeyError: a cascade has a tier that was not asked.
    """
    if isinstance(strategy, Cascade):
        for event in strategy.stream(asked.item, ask=lambda tier: asked.attempts[tier.name]):
            if event.kind in ("finished", "failed") and event.outcome is not None:
                return event.outcome
        raise AssertionError("a stream ends with an outcome")
    try:
        outcome = strategy(asked)
        problem = f"it gave {outcome!r:.80} instead of this ticket's Outcome: end with `return asked.take(...)`"
        if isinstance(outcome, Outcome) and outcome.item_id == asked.item_id:
            return outcome
    except Exception as error:  # a user's function, which may raise anything
        problem = f"{type(error).__name__}: {error}"
    broken = WorkshopError(
        f"The strategy {name} has no outcome for {asked.item_id}: {problem}.",
        advice="The ticket counts as wrong for it, and as free of charge.",
    )
    return Outcome(asked.item_id, None, (Attempt(name, "", asked.task, None, broken),))


def identity_of(strategy: Strategy) -> str:
    """What tells a strategy from another one of the same name."""
    if isinstance(strategy, Cascade):
        routed = "" if strategy.route is None else f", routed by {route_identity(strategy.route)}"
        return f"{' > '.join(tier.name for tier in strategy.tiers)} when {strategy.escalate_when.identity}{routed}"
    return f"function with code {code_hash(strategy)}"


def run_strategies(
    strategies: Mapping[str, Cascade[Any]],
    items: Sequence[Any],
    *,
    workers: int = 8,
    on_done: Callable[[str, Outcome[Any]], None] | None = None,
) -> dict[str, list[Outcome[Any]]]:
    """Every strategy over every item, `workers` at a time; outcomes in the items' order. Each strategy makes its own calls.

    Args:
        strategies: name to cascade.
        items: tickets, or whatever the cascades' task reads.
        workers: calls in flight at once.
        on_done: told of each outcome as it comes, for a progress bar. Called in the caller's thread.

    Raises:
        UnknownModel: a tier names no model of the catalogue.
    """
    outcomes: dict[str, list[Outcome[Any]]] = {}
    with ThreadPoolExecutor(workers) as pool:
        for name, cascade in strategies.items():
            running = {pool.submit(cascade.run, item): i for i, item in enumerate(items)}
            done: dict[int, Outcome[Any]] = {}
            for future in as_completed(running):
                done[running[future]] = future.result()
                if on_done is not None:
                    on_done(name, done[running[future]])
            outcomes[name] = [done[i] for i in range(len(items))]
    return outcomes
