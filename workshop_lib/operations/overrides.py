"""Which tickets people look at, how far people agree with each other, and how often they overrule the model.

chosen = choose_for_review(outcomes, 60)
reviews = ReviewStore("review.db", pick(tickets, [c.item_id for c in chosen]))
...                                                       # people review
overrides(outcomes, reviews.labels(), chosen)             # of all tickets, not of those that were easiest to doubt
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workshop_lib.cascade.attempt import Outcome
from workshop_lib.evaluation.metrics import family_of
from workshop_lib.evaluation.statistics import Share, kappa, weighted_mean
from workshop_lib.operations.review import FIELDS, Review
from workshop_lib.triage.datasets import Label

UNSURE = 0.7
"""A final answer below this confidence is sent as uncertain."""
RISKY, REST = "risky", "rest"


@dataclass(frozen=True)
class Chosen:
    """A ticket to be reviewed."""

    item_id: str
    why: str
    """What makes it risky; "random" if nothing does. Not for the reviewer, who must not guess what the model said."""
    stratum: str
    """risky or rest: drawn from at random, each at its own rate."""
    probability: float
    """Of being drawn; its weight in an estimate for all tickets is 1 / probability."""

    @property
    def weight(self) -> float:
        """How many tickets it stands for."""
        return 1 / self.probability


@dataclass(frozen=True)
class Override:
    """A field in which a person decided otherwise than the model."""

    item_id: str
    field: str
    model_said: str
    person_said: str


@dataclass(frozen=True)
class Overrides:
    """How often people decided otherwise."""

    rate: Mapping[str, Share]
    """By field, and `any`: the share of all tickets, weighted by how they were chosen."""
    changed: tuple[Override, ...]
    n: int
    """Tickets with both a person's label and a model's outcome."""
    without_decision: int
    """Of them, those that no model decided: overruled in every field."""
    weighted: bool
    """Whether `chosen` was given: else the rate is of the reviewed tickets, whoever chose them."""

    def __str__(self) -> str:
        whose = "all tickets" if self.weighted else "the reviewed tickets"
        rates = ", ".join(f"{name} {share}" for name, share in self.rate.items())
        return f"People overrule the model on {whose} ({self.n} reviewed): {rates}."


def risk_of(outcome: Outcome[Any]) -> str:
    """Why a ticket is risky, in one word; "" if nothing speaks for it: no decision, a degraded one, stakes, or low confidence."""
    if outcome.decision is None:
        return "undecided"
    if outcome.degraded:
        return "degraded"
    final = outcome.final
    if outcome.flags or any(final.task.stakes(outcome.decision)):
        return "stakes"
    return "unsure" if final.confidence is not None and final.confidence < UNSURE else ""


def choose_for_review(
    outcomes: Sequence[Outcome[Any]],
    n: int,
    *,
    random_share: float = 0.5,
    risk: Callable[[Outcome[Any]], str] = risk_of,
    seed: int = 0,
) -> list[Chosen]:
    """Draw tickets for people: so many from the risky ones, so many from all the others, at random within each.

    A stratified sample (J. Neyman, 1934): every ticket has a known chance above 0, so that what people find can be weighted back to
    all tickets. Risky ones are over-represented because that is where people change most.

    Args:
        outcomes: one a ticket.
        n: how many tickets people have time for.
        random_share: of `n`, for the tickets that nothing speaks against. What one side cannot fill goes to the other; each side that
            has two tickets gets two at least.
        risk: why a ticket is risky, "" if it is not.
        seed: of the draw.

    Returns:
        The tickets in the outcomes' order.

    Raises:
        ValueError: no tickets, two outcomes of one ticket, n below 4, or a share that is not strictly between 0 and 1.
    """
    ids = [o.item_id for o in outcomes]
    if not ids or len(set(ids)) != len(ids):
        raise ValueError(f"give one outcome a ticket: {len(ids)} outcomes of {len(set(ids))} tickets")
    if n < 4 or not 0 < random_share < 1:
        raise ValueError(f"draw 4 tickets or more, with a random share between 0 and 1: not {n} and {random_share}")
    why = {o.item_id: risk(o) for o in outcomes}
    risky, rest = [i for i in ids if why[i]], [i for i in ids if not why[i]]
    n = min(n, len(ids))
    from_rest = min(len(rest), max(2, n - len(risky), min(round(n * random_share), n - 2)))
    from_risky = min(len(risky), n - from_rest)
    rng = np.random.default_rng(seed)
    drawn: dict[str, Chosen] = {}
    for stratum, members, count in ((RISKY, risky, from_risky), (REST, rest, from_rest)):
        for i in rng.choice(len(members), size=count, replace=False) if count else ():
            drawn[members[i]] = Chosen(members[i], why[members[i]] or "random", stratum, count / len(members))
    return [drawn[i] for i in ids if i in drawn]


def overrides(
    outcomes: Sequence[Outcome[Any]],
    labels: Mapping[str, Label],
    chosen: Sequence[Chosen] | None = None,
    *,
    fields: Sequence[str] = FIELDS,
    seed: int = 0,
) -> Overrides:
    """Where people's labels differ from the final decisions, and how often that is.

    Args:
        outcomes: of the tickets, reviewed or not.
        labels: what people decided, by ticket id (`ReviewStore.labels`).
        chosen: how the reviewed ones were drawn, to estimate the rate of all tickets; labels of other tickets are then left out, and
            tickets that were drawn and not reviewed count as if reviewed ones of their stratum stood for them.
        fields: which to compare.
        seed: of the intervals (bootstrap over families, see `weighted_mean`).

    Raises:
        ValueError: no outcome has a label; or nobody has reviewed a ticket of a drawn stratum, or `chosen` does not stand for all
            outcomes: nothing can then be said of all tickets.
    """
    drawn = None if chosen is None else {c.item_id: c for c in chosen}
    reviewed = [o for o in outcomes if o.item_id in labels and (drawn is None or o.item_id in drawn)]
    if not reviewed:
        raise ValueError(f"none of the {len(outcomes)} outcomes has a label among the {len(labels)} given")
    weights = None
    if drawn is not None:
        stands_for = sum(c.weight for c in drawn.values())
        if stands_for < len(outcomes) - 0.5:
            raise ValueError(
                f"the chosen tickets stand for {stands_for:.0f} of {len(outcomes)}: give all that choose_for_review drew from these outcomes"
            )
        weights = _weights([drawn[o.item_id] for o in reviewed], list(drawn.values()))
    changed, differs = [], {name: [False] * len(reviewed) for name in fields}
    for place, outcome in enumerate(reviewed):
        label = labels[outcome.item_id]
        for name in fields:
            said, decided = str(getattr(outcome.decision, name, "(none)")), str(getattr(label, name))
            if said != decided:
                differs[name][place] = True
                changed.append(Override(outcome.item_id, name, said, decided))
    differs["any"] = [any(row) for row in zip(*(differs[name] for name in fields), strict=True)]
    families = [family_of(o.item_id, labels[o.item_id]) for o in reviewed]
    return Overrides(
        {name: weighted_mean(found, families, weights, seed=seed) for name, found in differs.items()},
        tuple(changed),
        len(reviewed),
        sum(o.decision is None for o in reviewed),
        chosen is not None,
    )


def reviewers_agree(
    reviews: Sequence[Review], a: str, b: str, *, fields: Sequence[str] = FIELDS, seed: int = 0
) -> dict[str, Share | None]:
    """Cohen's kappa of two reviewers by field, on the tickets that both decided, with intervals over different texts.

    None: both gave one and the same answer throughout, where chance leaves nothing to agree beyond.

    Raises:
        ValueError: they have no ticket in common.
    """
    mine, theirs = ({r.ticket_id: r for r in reviews if r.reviewer == name and not r.settles} for name in (a, b))
    both = [i for i in mine if i in theirs]
    if not both:
        raise ValueError(f"{a} and {b} have reviewed no ticket in common")
    texts, found = [mine[i].digest for i in both], dict[str, Share | None]()
    for name in fields:
        first, second = ([str(getattr(side[i].verdict, name)) for i in both] for side in (mine, theirs))
        found[name] = kappa(first, second, texts, seed=seed) if len({*first, *second}) > 1 else None
    return found


def _weights(reviewed: Sequence[Chosen], drawn: Sequence[Chosen]) -> list[float]:
    """Each stratum's tickets over its reviewed ones: of those drawn, some may not have been reviewed."""
    all_of, done = (Counter(c.stratum for c in side) for side in (drawn, reviewed))
    for stratum in all_of.keys() - done.keys():
        ids = [c.item_id for c in drawn if c.stratum == stratum]
        raise ValueError(
            f"none of the {len(ids)} chosen tickets of the stratum {stratum!r} is reviewed, so that nothing is known of those they stand "
            f"for: review some, e.g. {', '.join(ids[:3])}, or leave out `chosen` for the rate of the reviewed tickets alone"
        )
    return [c.weight * all_of[c.stratum] / done[c.stratum] for c in reviewed]
