"""What counts as right in lab 04, two published tables to put intervals on, and the few parts that only this lab needs."""

from __future__ import annotations

import functools
import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workshop_lib.bedrock.errors import InvalidOutput
from workshop_lib.cascade.attempt import Attempt, Outcome
from workshop_lib.display.theme import Html, show_table, usd
from workshop_lib.evaluation.comparison import Comparison
from workshop_lib.evaluation.metrics import Scores, joint_agreement
from workshop_lib.evaluation.statistics import Share, wilson
from workshop_lib.evaluation.strategies import Asked
from workshop_lib.lessons.checks import Exercise, NotAttemptedError
from workshop_lib.triage.datasets import SPLITS, Label, load_labels, load_tickets
from workshop_lib.triage.schema import Category, Decision, Priority
from workshop_lib.triage.task import TRIAGE

PURPOSES = {
    "train": "the small models of the local door; nothing else",
    "calibration": "choosing and comparing: this lab",
    "test": "one final figure to publish; locked",
    "workshop": "showing",
}
THREE = ("strong-only", "cheap-only", "cascade")


@dataclass(frozen=True)
class Told:
    """One line of a published table: counts, as they were printed."""

    strategy: str
    right: int
    n: int
    cost_usd: float
    human_found: int = 0
    human: int = 0
    """Tickets that need a person; 0: not reported."""


# As printed by a published workshop of this pattern (Nemotron Nano and Claude Sonnet on Bedrock, 2026). "Right" is the category alone in the
# first table; in the second, its later test on locked tickets, category, priority and needs_human together.
FIRST_TABLE = (
    Told("strong-only", 28, 30, 0.0608),
    Told("cheap-only", 25, 30, 0.0041),
    Told("cascade", 28, 30, 0.0514),
)
LOCKED_TEST = (
    Told("strong-only", 125, 150, 1.2420, 9, 22),
    Told("cheap-only", 111, 150, 0.0157, 12, 22),
    Told("cascade", 109, 150, 0.1183, 7, 22),
)
LOCKED_TEXTS, LOCKED_FAMILIES = 31, 11
"""How many of the 150 texts of `LOCKED_TEST` are different, and of how many scenario families they are."""


def splits(labels: Mapping[str, Label]) -> Html:
    """The shipped tickets by split, and what each is for."""
    rows = []
    for split in SPLITS:
        mine = [label for label in labels.values() if label.split == split]
        families = len({label.family for label in mine})
        rows.append({"split": split, "tickets": len(mine), "families": families, "for": PURPOSES[split]})
    return show_table(rows)


def kappas(agreement: Mapping[str, Share | None]) -> Html:
    """Kappa by field, as figures between -1 and 1."""
    words = "only one label occurs"
    rows = [
        {"field": field, "kappa": words if k is None else f"{k.value:.2f} [{k.low:.2f}, {k.high:.2f}]"}
        for field, k in agreement.items()
    ]
    return show_table(rows, caption="1: full agreement, 0: as by chance; 95 % intervals in brackets")


def confront(guess: Mapping[str, Any], comparison: Comparison) -> Html:
    """What was predicted beside what was measured."""
    scores = {name: comparison.scores[name] for name in THREE}
    first, second, _ = sorted(scores, key=lambda name: -scores[name].joint.value)
    lead = comparison.paired(first, second)
    paid = scores["cascade"].cost_usd / scores["strong-only"].cost_usd if scores["strong-only"].cost_usd else math.nan
    measured = {
        "best": first,
        "points ahead": f"{100 * lead.value:.1f} [{100 * lead.low:.1f}, {100 * lead.high:.1f}] before {second}",
        "share of cost": f"{paid:.2f}",
    }
    rows = [{"question": q, "you wrote": guess.get(q, "-"), "measured": found} for q, found in measured.items()]
    return show_table(rows)


def say(sentences: Iterable[str]) -> Html:
    """Sentences as a list."""
    lines = list(sentences)
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return Html(f"<ul class='mathjax_ignore'>{items}</ul>", "\n".join(lines))


def printed(table: Sequence[Told]) -> Html:
    """A published table as it was printed: figures without intervals."""
    rows = []
    for told in table:
        row = {"strategy": told.strategy, "right": f"{told.right} of {told.n} ({told.right / told.n:.1%})"}
        if told.human:
            row["needs a person, found"] = f"{told.human_found} of {told.human}"
        rows.append(row | {"cost": usd(told.cost_usd, 4)})
    return show_table(rows, caption="As published")


def right_by(comparison: Comparison, field: str) -> Html:
    """For each answer of the cheap model to one field: how often it is right in all, and how often the strong model is."""
    found: dict[str, list[tuple[bool, bool]]] = {}
    for cheap, strong in zip(comparison.outcomes["cheap-only"], comparison.outcomes["strong-only"], strict=True):
        label = comparison.labels[cheap.item_id]
        said = str(getattr(cheap.decision, field, "(none)"))
        found.setdefault(said, []).append(
            (joint_agreement(cheap.decision, label), joint_agreement(strong.decision, label))
        )
    rows = [
        {
            f"the cheap model says {field}": said,
            "tickets": len(pairs),
            "cheap-only right": f"{sum(c for c, _ in pairs)} ({sum(c for c, _ in pairs) / len(pairs):.0%})",
            "strong-only right": f"{sum(s for _, s in pairs)} ({sum(s for _, s in pairs) / len(pairs):.0%})",
        }
        for said, pairs in sorted(found.items())
    ]
    return show_table(rows, caption="Right: category, priority and needs_human all as in the key")


def design_effect(share: Share) -> float:
    """How many tickets say as much as one independent one: the squared ratio of the interval's width to Wilson's."""
    plain = wilson(round(share.value * share.n), share.n)
    return ((share.high - share.low) / (plain.high - plain.low)) ** 2


def price_of_an_error(cheap: Scores, strong: Scores) -> float | None:
    """USD that a wrong answer must cost for the strong model to be worth its price; None: it is not ahead."""
    gained = strong.joint.value - cheap.joint.value
    return (strong.cost_usd - cheap.cost_usd) / strong.n / gained if gained > 0 else None


def _interval(answer: Callable[[int, int], Any]) -> str | None:
    for right, n in ((28, 30), (7, 22), (0, 12), (12, 12), (50, 100), (1, 400)):
        low, high = _ends(answer(right, n))
        wanted, p = wilson(right, n), right / n
        if low > high:
            return f"for {right} of {n} the lower end ({low:.3f}) lies above the upper one ({high:.3f})"
        if max(low, high) > 1 and wanted.high < max(low, high) / 10:
            return f"for {right} of {n} it gives [{low:.1f}, {high:.1f}]: give shares, not per cent"
        if not -1e-9 <= low <= high <= 1 + 1e-9:
            return (
                f"for {right} of {n} it gives [{low:.3f}, {high:.3f}], beyond what a share can be: Wilson's never does"
            )
        if high - low < 1e-9:
            return f"for {right} of {n} it has no width: {n} tickets make nobody certain"
        if abs(low - wanted.low) > 5e-4 or abs(high - wanted.high) > 5e-4:
            usual = 1.96 * math.sqrt(p * (1 - p) / n)
            same = abs(low - max(0, p - usual)) + abs(high - min(1, p + usual)) < 1e-3
            why = ": that is p +- 1.96 standard errors, while Wilson's centre is drawn towards one half" if same else ""
            return f"for {right} of {n} it gives [{low:.3f}, {high:.3f}]{why}"
    return None


def _who_is_ahead(answer: Callable[[list[bool], list[bool], list[str]], Any]) -> str | None:
    alone = [str(i) for i in range(100)]
    yes, no = [True], [False]
    cases = (
        ("a", yes * 80 + no * 20, yes * 55 + no * 45, alone, "A is right on 25 of 100 tickets on which B is wrong"),
        ("b", yes * 30 + no * 30, yes * 52 + no * 8, alone[:60], "B is right on 22 of 60 tickets on which A is wrong"),
        (
            "neither", yes * 3 + no + yes * 26, no * 3 + yes + yes * 26, alone[:30],
            "A alone is right on 3 of 30 tickets, B alone on 1",
        ),
        (
            "a", yes * 70 + no * 30, yes * 60 + no * 40, alone,
            "A is right wherever B is, and on 10 more of 100 (their two intervals overlap, their difference does not include 0)",
        ),
        (
            "neither", yes * 10 + yes * 20 + no * 10, no * 10 + yes * 20 + no * 10, [str(i // 10) for i in range(40)],
            "all 10 tickets that A alone has right are of one family, of 4 in all",
        ),
        ("neither", yes * 7 + no * 3, yes * 7 + no * 3, alone[:10], "A and B are right on the same tickets"),
    )  # fmt: skip
    for wanted, a, b, families, words in cases:
        given = answer(a, b, families)
        if given is None or given is ...:
            raise NotAttemptedError
        if given not in ("a", "b", "neither"):
            return f"it says {given!r}: say 'a', 'b' or 'neither'"
        if given != wanted:
            return f"{words}: your function says {given!r}"
    return None


def _honest(answer: Callable[[int, int, int], Any]) -> str | None:
    for right, n, independent in ((90, 120, 120), (90, 120, 20), (7, 40, 9), (30, 60, 10), (0, 50, 10)):
        given = answer(right, n, independent)
        low, high = _ends(given)
        plain, wanted = wilson(right, n), _as_many(right, n, independent)
        said = f"{right} of {n} with {independent} independent texts"
        if isinstance(given, Share) and abs(given.value - right / n) > 5e-4:
            return f"{said}: the share is now {given.value:.3f}; copies say nothing new, but the share stays {right / n:.3f}"
        if independent < n and abs(low - plain.low) + abs(high - plain.high) < 1e-6:
            return f"{said}: the interval is that of {n} independent tickets"
        if abs(low - wanted.low) > 5e-4 or abs(high - wanted.high) > 5e-4:
            return f"{said}: the interval is [{low:.3f}, {high:.3f}]"
    return None


def _as_many(right: int, n: int, independent: int) -> Share:
    return wilson(right / n * independent, independent)  # type: ignore[arg-type]  # the formula takes any share


def _ends(given: Any) -> tuple[float, float]:
    """Both ends of what an attendee calls an interval."""
    if given is None or given is ...:
        raise NotAttemptedError
    low, high = (given.low, given.high) if isinstance(given, Share) else given
    return float(low), float(high)


def _strategy(answer: Callable[[Asked], Any]) -> str | None:
    asked = _unseen()
    first = answer(asked[0])
    if first is None or first is ...:
        raise NotAttemptedError
    outcomes = []
    for each in asked:
        outcome = answer(each)
        if not isinstance(outcome, Outcome) or outcome.item_id != each.item_id:
            return f"for one ticket it gives {type(outcome).__name__}: every way through must end in `return asked.take(...)`"
        outcomes.append(outcome)
    routes = [_route(o) for o in outcomes]
    if any(route[0] != "cheap" for route in routes):
        return f"it takes {' then '.join(next(r for r in routes if r[0] != 'cheap'))}: the cheap model goes first, and is paid"
    if routes != [_route(answer(each)) for each in asked]:
        return "asked twice about the same ticket it goes two ways: at_random draws by the ticket's id for that reason"
    peeked = [_route(answer(_with_other_strong(each))) for each in asked]
    if peeked != routes:
        return "its way depends on what the strong model answers, which nobody knows before paying for it"
    up = [o for o in outcomes if o.escalated]
    if len(up) in (0, len(asked)):
        return f"it sends up {len(up)} of {len(asked)} tickets that you have not seen: that is {'cheap-only' if not up else 'strong-only plus a fee'}"
    if any(not o.reasons for o in up):
        return "it sends tickets up without a reason: take(..., reasons=[Reason('my_rule')])"
    return _without_an_answer(answer, asked[0])


def _without_an_answer(answer: Callable[[Asked], Any], asked: Asked) -> str | None:
    failed: Attempt[Decision] = Attempt("cheap", "example", TRIAGE, None, InvalidOutput("no usable answer"))
    ticket = Asked(asked.item, {**asked.attempts, "cheap": failed})
    try:
        outcome = answer(ticket)
    except Exception as error:
        return (
            f"where the cheap model gave no decision it raises {type(error).__name__}: ask for `decision is None` first"
        )
    return None if _route(outcome)[1:] else "a ticket on which the cheap model gave no decision stays there, unanswered"


def _route(outcome: Outcome[Any]) -> tuple[str, ...]:
    return tuple(attempt.tier for attempt in outcome.attempts)


@functools.cache
def _unseen() -> tuple[Asked, ...]:
    """Tickets that no lesson shows, with answers of every kind: what a strategy of the attendee's is tried on."""
    labels = load_labels()
    asked = []
    categories, priorities = list(Category), list(Priority)
    for i, ticket in enumerate(load_tickets("train", limit=160)):
        label = labels[ticket.id]
        category = label.category if i % 3 else categories[i % len(categories)]
        priority = priorities[i // 2 % len(priorities)]
        human = label.needs_human or priority.is_urgent
        attempts = {
            tier: _attempt(tier, category, priority, (0.55, 0.85, 0.88, 0.92, 0.95)[i % 5], human=human)
            for tier in ("cheap", "middle", "strong")
        }
        asked.append(Asked(ticket, attempts))
    return tuple(asked)


def _with_other_strong(asked: Asked) -> Asked:
    said = asked.attempts["strong"].decision
    assert said is not None  # `_unseen` gives every tier a decision
    other = Category.BILLING if said.category != Category.BILLING else Category.OTHER
    priority = Priority.P0 if not said.priority.is_urgent else Priority.P3
    changed = _attempt("strong", other, priority, 0.89, human=priority.is_urgent)
    return Asked(asked.item, {**asked.attempts, "strong": changed})


def _attempt(tier: str, category: Category, priority: Priority, confidence: float, *, human: bool) -> Attempt[Decision]:
    decision = Decision(
        category=category, priority=priority, confidence=confidence, reasoning="An example.", needs_human=human
    )
    return Attempt(tier, "example", TRIAGE, decision)


EXERCISES = {
    "4.1": Exercise(
        _interval,
        (
            "p = right / n and z = 1.96. Work out centre and half as they stand above, then return centre - half, centre + half.",
            "The denominator 1 + z*z/n divides both. `math.sqrt` of p * (1 - p) / n + z * z / (4 * n * n) is the root.",
        ),
        "the interval of 28 of 30 starts below four fifths. It stays within 0 and 1, and 12 of 12 is not certainty.",
    ),
    "4.2": Exercise(
        _who_is_ahead,
        (
            "paired_difference(a, b, families) gives a Difference: value, low, high.",
            "Only an interval that leaves out 0 decides (`.decides`). Two single intervals that overlap prove nothing either way.",
            "If it decides, the sign of `.value` says who.",
        ),
        "paired, by families, and with a third answer: the data do not decide.",
    ),
    "4.3": Exercise(
        _honest,
        (
            "The share stays what it is; only the number of tickets behind it shrinks.",
            "wilson(k, m) takes k right of m. Which k of `independent` tickets gives the same share? It need not be whole.",
            "wilson(right / n * independent, independent)",
        ),
        "evidence is counted in what is different, not in rows.",
    ),
    "4.4": Exercise(
        _strategy,
        (
            'asked.attempts["cheap"].decision is what the cheap model said, or None; asked.item is the ticket.',
            'To stay: return asked.take("cheap"). To go up: return asked.take("cheap", "strong", reasons=[Reason("my_rule")]).',
            "In the table above, which answer of the cheap model leaves most to be gained? Send that one up, and what has no decision.",
        ),
        "it pays before it looks, it always ends in an outcome, and it says why it went up.",
    ),
}
