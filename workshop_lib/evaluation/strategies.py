"""Whole ways of answering, run on the same tickets side by side: strong-only, cheap-only, cascade."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from workshop_lib.cascade.attempt import Converses, Outcome, Tier
from workshop_lib.cascade.cascade import Cascade
from workshop_lib.cascade.rules import Rule, confidence_below, invalid_output, stakes


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


def run_strategies(
    strategies: Mapping[str, Cascade[Any]],
    items: Sequence[Any],
    *,
    workers: int = 8,
    on_done: Callable[[str, Outcome[Any]], None] | None = None,
) -> dict[str, list[Outcome[Any]]]:
    """Every strategy over every item, `workers` at a time; outcomes in the items' order.

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
