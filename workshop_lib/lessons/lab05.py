"""What counts as right in lab 05, the answers that its rules are tuned on, and the few parts that only this lab needs."""

from __future__ import annotations

import csv
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.cascade.attempt import Attempt, Outcome, Tier, vote
from workshop_lib.cascade.calibration import Calibrator, calibrated_held_out, folds_of
from workshop_lib.cascade.cascade import Cascade
from workshop_lib.cascade.router import LearnedRouter
from workshop_lib.display.theme import Html, show_table, usd
from workshop_lib.evaluation.bakeoff import refuse_locked
from workshop_lib.evaluation.comparison import Comparison
from workshop_lib.evaluation.curves import apgr, apgr_interval
from workshop_lib.evaluation.metrics import auroc, joint_agreement
from workshop_lib.evaluation.provenance import Recording
from workshop_lib.evaluation.statistics import paired_difference, share
from workshop_lib.evaluation.thresholds import choose_threshold, guaranteed
from workshop_lib.lessons import lab04
from workshop_lib.lessons.checks import Exercise, NotAttemptedError
from workshop_lib.triage.datasets import Label, load_labels, load_tickets
from workshop_lib.triage.schema import Ticket
from workshop_lib.triage.task import TRIAGE

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
TRAIN = PROJECT / "data" / "recorded" / "local-train.csv"
HELD_OUT = 0
"""The fold of the training families that no router of this lab learns from."""
SAMPLES = 9
say = lab04.say


def sample_tiers(most: int = SAMPLES) -> list[Tier]:
    """The cheap model asked again and again, at a temperature at which it does not always say the same."""
    return [Tier("cheap", name=f"sample {i}", temperature=1.0) for i in range(1, most + 1)]


@dataclass(frozen=True, eq=False)
class Pair:
    """The cheap and the strong model's answers to the same tickets, and samples of the cheap one. Arrays hold a number a ticket."""

    tickets: Sequence[Ticket]
    labels: Mapping[str, Label]
    answers: Sequence[Mapping[str, Attempt[Any]]]
    """A ticket each: tier to attempt."""

    @classmethod
    def of(cls, recording: Recording, tickets: Sequence[Ticket], labels: Mapping[str, Label]) -> Pair:
        """From a recording of `cheap`, `strong` and `sample_tiers`.

        Raises:
            LockedSplit: of the test split.
        """
        refuse_locked(labels, [ticket.id for ticket in tickets])
        answers = recording.answers()
        return cls(tickets, labels, [answers[ticket.id] for ticket in tickets])

    def right(self, tier: str) -> Bools:
        """Whether its answer agrees with the key in all three fields."""
        return self.judged([answers[tier] for answers in self.answers])

    def judged(self, attempts: Sequence[Attempt[Any]]) -> Bools:
        """The same of other answers to these tickets."""
        found = [joint_agreement(a.decision, self.labels[t.id]) for a, t in zip(attempts, self.tickets, strict=True)]
        return np.array(found)

    @property
    def cheap(self) -> Bools:
        """Whether the cheap model is right."""
        return self.right("cheap")

    @property
    def strong(self) -> Bools:
        """Whether the strong model is right."""
        return self.right("strong")

    @property
    def stated(self) -> Floats:
        """What the cheap model states about itself, 0..1; 0 where it gave no usable answer."""
        return np.array([a["cheap"].confidence or 0.0 for a in self.answers])

    @property
    def families(self) -> list[str]:
        """The scenario of each ticket."""
        return [self.labels[t.id].family for t in self.tickets]

    @property
    def texts(self) -> list[str]:
        """What the models were shown of each ticket."""
        return [TRIAGE.describe(ticket) for ticket in self.tickets]

    @property
    def said(self) -> list[dict[str, str | float]]:
        """What the cheap model said, as a router of this lab learns it."""
        return [said(answers["cheap"]) for answers in self.answers]

    def voted(self, most: int) -> list[Attempt[Any]]:
        """The vote of the first so many samples."""
        return [vote((a[tier.name] for tier in sample_tiers(most)), most) for a in self.answers]

    def agreement(self, most: int) -> Floats:
        """The share of the samples that gave the majority's answer, 0..1; 0 where none was usable."""
        return np.array([a.agreement or 0.0 for a in self.voted(most)])

    def cost_usd(self, tier: str) -> Floats:
        """USD of each call."""
        return np.array([a[tier].cost_usd for a in self.answers])

    def with_votes_usd(self, most: int) -> Floats:
        """USD of the cheap answer and a vote of so many samples at most, for each ticket."""
        votes_usd: Floats = np.array([a.cost_usd for a in self.voted(most)])
        return self.cost_usd("cheap") + votes_usd

    def __repr__(self) -> str:
        n = len(self.tickets)
        paid = sum(attempt.cost_usd for answers in self.answers for attempt in answers.values())
        return (
            f"{n} tickets of {len(set(self.families))} families: cheap right on {self.cheap.sum()} ({self.cheap.mean():.0%}), "
            f"strong on {self.strong.sum()} ({self.strong.mean():.0%}); all answers together {usd(paid, 2)}"
        )


def samples_of(pair: Pair, most: int = 5) -> Html:
    """The samples of the ticket on which they part most."""
    at = int(np.argmin(pair.agreement(most)))
    ticket, label, answers = pair.tickets[at], pair.labels[pair.tickets[at].id], pair.answers[at]
    rows = [{"asked": f"sample {i}", "said": told(answers[f"sample {i}"])} for i in range(1, most + 1)]
    rows.append({"asked": "once, at temperature 0", "said": told(answers["cheap"])})
    rows.append({"asked": "the key", "said": f"{label.category} {label.priority} {_human(label.needs_human)}"})
    return show_table(rows, caption=f"{ticket.id}: {ticket.subject}")


def told(attempt: Attempt[Any]) -> str:
    """An answer in its closed fields, as one word; unusable ones say so."""
    said = attempt.decision
    return "(unusable)" if said is None else f"{said.category} {said.priority} {_human(said.needs_human)}"


def said(attempt: Attempt[Any]) -> dict[str, str | float]:
    """What a router of this lab learns from: the cheap answer as one fact, for its fields tell more together than one by one."""
    return {"said": told(attempt)}


def _human(needs: bool) -> str:
    return "human" if needs else "no human"


def votes_bought(pair: Pair, counts: Sequence[int]) -> Html:
    """What votes of so many samples tell and cost."""
    rows = []
    for most in counts:
        voted, cheap = pair.voted(most), pair.cheap
        sure, right = pair.agreement(most), pair.judged(voted)
        wins = apgr(-sure, cheap, pair.strong)
        rows.append(
            {
                "samples at most": most,
                "the majority is right": f"{right.mean():.1%}",
                "AUROC of its share": f"{auroc(sure.tolist(), cheap.tolist()):.2f}",
                "APGR": f"{wins:.2f}",
                "USD per 1,000": f"{1_000 * np.mean([a.cost_usd for a in voted]):.3f}",
            }
        )
    once = 1_000 * pair.cost_usd("cheap").mean()
    return show_table(
        rows,
        caption=f"One answer at temperature 0 is right on {pair.cheap.mean():.1%} and costs {once:.3f}. AUROC and APGR judge the share as a sign "
        "of that one answer; 0.5 is chance.",
    )


def against_one_answer(pair: Pair, most: int = 5) -> Html:
    """The majority beside the single answer, in pairs."""
    majority = pair.judged(pair.voted(most)).tolist()
    found = paired_difference(majority, pair.cheap.tolist(), pair.families)
    return say([found.sentence("the majority", "the single answer")])


def what_it_means(calibrator: Calibrator, confidence: Floats, right: Bools) -> Html:
    """Each confidence with how often such answers are right, and what the calibrator makes of it."""
    rows = [
        {"as it came": f"{value:.2f}", "tickets": int((confidence == value).sum()),
         "right": f"{right[confidence == value].mean():.0%}", "calibrated": f"{calibrator(value):.2f}"}
        for value in np.unique(confidence).tolist()
    ]  # fmt: skip
    loss = calibrator.log_loss
    return show_table(
        rows, caption=f"By {calibrator.method}, of {calibrator.n} labels. Mean log loss on left-out families: {loss['stated']:.2f} "
        f"as it came, {loss[calibrator.method]:.2f} calibrated"
    )  # fmt: skip


def held_out_probability(confidence: Floats, right: Bools, families: Sequence[str]) -> Floats:
    """Probabilities on Platt's curve: each fifth of the families by what the other four fitted."""
    return calibrated_held_out(confidence, right, families, method="platt")


def at_price(pair: Pair, wrong_usd: float, most: int = 5) -> Html:
    """The threshold on the share of votes that a price of an error asks for, and what it does on tickets that did not choose it."""
    choice = choose_threshold(
        pair.agreement(most), pair.cheap.tolist(), pair.strong.tolist(), wrong_usd=wrong_usd,
        cheap_cost_usd=pair.with_votes_usd(most).tolist(), strong_cost_usd=pair.cost_usd("strong").tolist(), families=pair.families,
    )  # fmt: skip
    assert choice.cost_per_1000_usd is not None  # costs were given
    n, strong = len(pair.tickets), 1_000 * pair.cost_usd("strong").mean()
    costs = {
        "cheap-only": (pair.cheap.mean(), 1_000 * pair.cost_usd("cheap").mean()),
        "strong-only": (pair.strong.mean(), strong),
        f"up below {choice.threshold:.2f} ({choice.sent_up.value:.0%} of them)": (
            choice.agreement.value, choice.cost_per_1000_usd,
        ),
    }  # fmt: skip
    rows = [
        {"strategy": name, "right": f"{right:.1%}", "calls, USD per 1,000": f"{calls:.2f}",
         "calls and errors, USD per 1,000": f"{calls + 1_000 * wrong_usd * (1 - right):.2f}"}
        for name, (right, calls) in costs.items()
    ]  # fmt: skip
    return show_table(rows, caption=f"An error costs {usd(wrong_usd, 3)}. {n} tickets, the threshold held out.")


def fewest_tickets(max_risk: float, delta: float = 0.05) -> int:
    """Independent tickets, all of them right, until a risk of `max_risk` can be rejected: (1 - max_risk)^n <= delta."""
    return math.ceil(math.log(delta) / math.log(1 - max_risk))


def calibrated_again_and_again(
    confidence: Floats, right: Floats, *, max_risk: float, delta: float = 0.05, tickets: int = 100, times: int = 1_000
) -> Html:
    """How often a threshold chosen on drawn tickets breaks its limit, if these tickets were all that there are.

    Compared with the plain way: the lowest threshold whose risk on the drawn tickets is within the limit.
    """
    chance = np.random.default_rng(0)
    order = np.argsort(confidence, kind="stable")
    ordered, errors = confidence[order], np.cumsum((1 - right)[order][::-1])[::-1]

    def kept_and_wrong(threshold: float) -> tuple[float, float]:
        first = int(np.searchsorted(ordered, threshold))
        return (len(ordered) - first) / len(ordered), (errors[first] / len(ordered) if first < len(ordered) else 0.0)

    found: dict[str, list[tuple[float, float]]] = {"guaranteed": [], "within the limit on the tickets drawn": []}
    for _ in range(times):
        drawn = chance.integers(len(confidence), size=tickets)
        sure, correct = confidence[drawn], right[drawn]
        safe = guaranteed(sure, correct, max_risk, delta)
        down = np.argsort(-sure, kind="stable")
        within = np.flatnonzero(np.cumsum(1 - correct[down]) <= max_risk * tickets)
        plain = float(sure[down][within[-1]]) if len(within) else math.inf
        found["guaranteed"].append(kept_and_wrong(safe))
        found["within the limit on the tickets drawn"].append(kept_and_wrong(plain))
    rows = [
        {"threshold": name, "limit broken": f"{np.mean([risk > max_risk for _, risk in seen]):.1%} of {times:,} times",
         "kept by the cheap tier, on the average": f"{np.mean([kept for kept, _ in seen]):.0%}"}
        for name, seen in found.items()
    ]  # fmt: skip
    return show_table(
        rows,
        caption=f"At most {max_risk:.0%} kept and wrong, {tickets} tickets a time; promised: broken {delta:.0%} of the times or less",
    )


@dataclass(frozen=True, eq=False)
class Answers:
    """Labelled answers that a router learns from, or is judged on."""

    texts: tuple[str, ...]
    features: tuple[Mapping[str, str | float], ...]
    """What the cheap answer said, as `said` tells it."""
    cheap: Floats
    """1 where the cheap model was right, else 0."""
    strong: Floats
    families: tuple[str, ...]

    def rows(self, at: npt.NDArray[np.intp]) -> Answers:
        """Some of them."""
        return Answers(
            tuple(self.texts[i] for i in at), tuple(self.features[i] for i in at), self.cheap[at], self.strong[at],
            tuple(self.families[i] for i in at),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return (
            f"{len(self):,} tickets of {len(set(self.families)):,} families: cheap right on {self.cheap.mean():.1%}, "
            f"strong on {self.strong.mean():.1%}"
        )


def training_answers(path: Path = TRAIN) -> tuple[Answers, Answers]:
    """To learn from, in random order, and to judge by: a fifth of the families. See data/recorded/README.md for who answered."""
    labels, tickets = load_labels(), {t.id: t for t in load_tickets("train")}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    everything = Answers(
        tuple(TRIAGE.describe(tickets[row["ticket_id"]]) for row in rows),
        tuple({"said": f"{row['category']} {row['priority']} {_human(row['needs_human'] == 'true')}"} for row in rows),
        np.array([float(row["cheap_correct"]) for row in rows]),
        np.array([float(row["strong_correct"]) for row in rows]),
        tuple(labels[row["ticket_id"]].family for row in rows),
    )
    folds = folds_of(everything.families)
    rest = np.random.default_rng(1).permutation(np.flatnonzero(folds != HELD_OUT))
    return everything.rows(rest), everything.rows(np.flatnonzero(folds == HELD_OUT))


def learn(answers: Answers, labels: int, *, from_answer: bool) -> LearnedRouter:
    """A router of the first so many answers: of the text's form alone, or of what the cheap model said as well."""
    some = answers.rows(np.arange(min(labels, len(answers))))
    return LearnedRouter(("facts",)).fit(
        some.texts, some.cheap, some.strong, features=some.features if from_answer else None, families=some.families
    )


TEXT, ANSWER = "learned, question", "learned, answer"


@dataclass(frozen=True, eq=False)
class Learned:
    """Routers of more and more labels, and what each wins on tickets that none of them has seen."""

    held: Answers
    routers: Mapping[tuple[str, int], LearnedRouter]
    """By what it learned from and by labels."""
    scores: Mapping[tuple[str, int], Floats]
    """P(strong right) - P(cheap right) of the held-out tickets, likewise."""

    def table(self) -> Html:
        """APGR by labels."""
        sizes = sorted({labels for _, labels in self.routers})
        rows = [{"labels": f"{n:,}"} | {source: self._won(source, n) for source in (TEXT, ANSWER)} for n in sizes]
        return show_table(
            rows,
            caption=f"APGR on {len(self.held):,} tickets of other families, 95 % intervals; 0.5 is sending up by lot",
        )

    def _won(self, source: str, labels: int) -> str:
        held = self.held
        found = apgr_interval(self.scores[source, labels], held.cheap, held.strong, held.families, resamples=300)
        return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def learning_curve(train: Answers, held: Answers, sizes: Sequence[int]) -> Learned:
    """Two routers a size: of the text alone, and with what the cheap model said."""
    routers = {(source, n): learn(train, n, from_answer=source == ANSWER) for source in (TEXT, ANSWER) for n in sizes}
    scores = {
        (source, n): router.score(held.texts, held.features if source == ANSWER else None)
        for (source, n), router in routers.items()
    }
    return Learned(held, routers, scores)


def by_surety(right: Floats, held: Answers, parts: int = 3) -> Html:
    """Tickets in equal parts, from the least sure cheap answers up, and how often each model is right in each."""
    order = np.argsort(right, kind="stable")
    names = {0: "least sure", parts - 1: "surest"}
    rows = []
    for i, at in enumerate(np.array_split(order, parts)):
        ahead = paired_difference(
            (held.strong[at] > 0).tolist(), (held.cheap[at] > 0).tolist(), [held.families[j] for j in at]
        )
        rows.append(
            {
                "the cheap answer is": names.get(i, "between"),
                "tickets": len(at),
                "cheap right": f"{held.cheap[at].mean():.1%}",
                "strong right": f"{held.strong[at].mean():.1%}",
                "strong minus cheap": str(ahead),
            }
        )
    return show_table(rows, caption="Held-out tickets, by the learned probability that the cheap answer is right")


def on_held_out(sure: Floats, threshold: float, held: Answers, seed: int = 0) -> Html:
    """What a threshold does on the held-out tickets, in pairs with strong-only, cheap-only and chance at the same rate."""
    up = sure < threshold
    chance = np.random.default_rng(seed).random(len(sure)) < up.mean()
    ours = (np.where(up, held.strong, held.cheap) > 0).tolist()
    others = {
        "strong-only": held.strong,
        "cheap-only": held.cheap,
        "chance": np.where(chance, held.strong, held.cheap),
    }
    sentences = [
        f"{up.mean():.0%} go up, {np.mean(ours):.1%} are right; strong-only {held.strong.mean():.1%}, cheap-only {held.cheap.mean():.1%}"
    ]
    for name, right in others.items():
        found = paired_difference(ours, (right > 0).tolist(), held.families)
        sentences.append(found.sentence("tuned", name))
    return say(sentences)


Policy = Callable[[Mapping[str, Attempt[Any]]], bool | None]


def flagged(attempt: Attempt[Any]) -> bool:
    """Whether an answer asks for a person."""
    return attempt.decision is not None and bool(attempt.decision.needs_human)


def flag_share(answers: Mapping[str, Attempt[Any]], most: int = 5) -> float:
    """The share of the samples that ask for a person."""
    return sum(flagged(answers[tier.name]) for tier in sample_tiers(most)) / most


def flag_costs(
    pair: Pair,
    policies: Mapping[str, Policy],
    *,
    missed_usd: float = 5.0,
    alarm_usd: float = 0.5,
    urgent_usd: float = 20.0,
) -> Html:
    """What policies of asking for a person do and cost, calls aside.

    Args:
        pair: the answers that they go by.
        policies: from the answers to one ticket, by tier, to whether a person is asked; None: not written yet.
        missed_usd: what a ticket costs that needs a person and gets none.
        alarm_usd: what a person costs who was not needed.
        urgent_usd: what a missed ticket costs if it is P0 or P1.
    """
    keys = [pair.labels[ticket.id] for ticket in pair.tickets]
    rows = []
    for name, policy in policies.items():
        asks = [policy(answers) for answers in pair.answers]
        if any(value is None for value in asks):
            rows.append(
                {
                    "a person is asked": name,
                    "needs a person, found": "(not written yet)",
                    "false alarms": "-",
                    "cost": "-",
                }
            )
            continue
        missed = [key for key, asked in zip(keys, asks, strict=True) if key.needs_human and not asked]
        alarms = sum(bool(asked) and not key.needs_human for key, asked in zip(keys, asks, strict=True))
        spent = alarms * alarm_usd + sum(urgent_usd if key.priority.is_urgent else missed_usd for key in missed)
        needed = [(bool(asked), key.family) for key, asked in zip(keys, asks, strict=True) if key.needs_human]
        rows.append(
            {
                "a person is asked": name,
                "needs a person, found": str(share([asked for asked, _ in needed], [family for _, family in needed])),
                "false alarms": f"{alarms} of {sum(not key.needs_human for key in keys)}",
                "cost": f"{1_000 * spent / len(keys):,.0f}",
            }
        )  # fmt: skip
    return show_table(
        rows, caption=f"Cost: USD per 1,000 tickets, a missed one at {usd(missed_usd, 2)} ({usd(urgent_usd, 2)} if urgent), a false alarm at "
        f"{usd(alarm_usd, 2)}"
    )  # fmt: skip


def cost_and_wait(comparison: Comparison) -> Html:
    """Strategies by agreement, cost and latency."""
    columns = {"strategy": "strategy", "joint": "right", "escalated": "went up", "USD per 1,000": "USD per 1,000"}
    rows = []
    for name, row in zip(comparison.scores, comparison.table(), strict=True):
        waits = [outcome.latency_ms for outcome in comparison.outcomes[name]]
        rows.append(
            {shown: row[column] for column, shown in columns.items()}
            | {"mean ms": f"{np.mean(waits):,.0f}", "longest ms": f"{max(waits):,.0f}"}
        )
    return show_table(rows, caption=f"{len(comparison.tickets)} tickets; ms: model time until the decision stands")


def steps(cascade: Cascade[Any], ticket: Ticket) -> Html:
    """One ticket's events, in order."""
    rows = []
    for event in cascade.stream(ticket):
        outcome: Outcome[Any] | None = event.outcome
        seen = "" if outcome is None else f"{told(outcome.final)}; {usd(outcome.cost_usd)}"
        rows.append({"event": event.kind, "tier": event.tier, "outcome": seen})
    return show_table(rows, caption=ticket.id)


def write_pair(pair: Pair, path: Path) -> Path:
    """The pair as the CSV that `workshop evaluate-router` reads, with the share of five votes as its confidence."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sure = pair.agreement(5)
    columns = {
        "text": pair.texts,
        "cheap_correct": pair.cheap.astype(int).tolist(),
        "strong_correct": pair.strong.astype(int).tolist(),
        "confidence": [f"{value:.4f}" for value in sure],
        "cheap_cost_usd": [f"{value:.8f}" for value in pair.with_votes_usd(5)],
        "strong_cost_usd": [f"{value:.8f}" for value in pair.cost_usd("strong")],
        "family": pair.families,
    }
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, suffix=".csv", delete=False, encoding="utf-8", newline=""
    ) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    Path(file.name).replace(path)  # whole at any time: another notebook may read it just now
    return path


def _vote(answer: Callable[[list[str | None]], Any]) -> str | None:
    cases: tuple[tuple[list[str | None], str | None, float, str], ...] = (
        (["billing", "billing", "auth"], "billing", 2 / 3, ""),
        (["auth"], "auth", 1.0, ""),
        (["billing", None, "billing", None, "auth"], "billing", 0.4, ": an unusable answer agrees with nobody, but it was asked for"),
        ([None, None, "auth"], "auth", 1 / 3, ": the majority of the usable ones answers"),
        (["zeta", "alpha", "zeta", "alpha"], "zeta", 0.5, ": of equal ones, the first that was given"),
        (["alpha", "zeta", "alpha", "zeta"], "alpha", 0.5, ": of equal ones, the first that was given"),
        ([None, None], None, 0.0, ": nobody has answered"),
    )  # fmt: skip
    for answers, winner, agreeing, why in cases:
        given = answer(list(answers))
        if given is None or given is ...:
            raise NotAttemptedError
        if not isinstance(given, tuple | list) or len(given) != 2:
            return f"it gives {given!r:.60}: return the winner and its share"
        if given[0] != winner:
            return f"for {answers} the winner is {given[0]!r}{why}"
        if isinstance(given[1], str) or abs(float(given[1]) - agreeing) > 1e-6:
            return f"for {answers} the share is {given[1]!r:.20}{why}"
    return None


def _worth(answer: Callable[[float, float, float, float], Any]) -> str | None:
    cases = (
        (0.5, 0.75, 0.1, 0.006, True, "an error fewer in 4 tickets, at USD 0.10 each, for a call of USD 0.006"),
        (0.5, 0.75, 0.01, 0.006, False, "an error fewer in 4 tickets, at USD 0.01 each, for a call of USD 0.006"),
        (0.2, 0.2, 0.1, 0.006, False, "both models are as likely to fail: the cheap answer is bad, and going up does not mend it"),
        (0.7, 0.5, 1.0, 0.006, False, "the strong model is the worse one here"),
        (0.9, 0.95, 1.0, 0.006, True, "the cheap answer is good, but an error costs USD 1"),
        (0.5, 0.75, 0.04, 0.01, False, "what is saved is just what the call costs"),
    )  # fmt: skip
    for cheap, strong, wrong, call, wanted, words in cases:
        given = answer(cheap, strong, wrong, call)
        if given is None or given is ...:
            raise NotAttemptedError
        if not isinstance(given, bool | np.bool_):
            return f"it gives {given!r:.40}: say True (up) or False (stay)"
        if bool(given) is not wanted:
            return f"P(cheap right) {cheap}, P(strong right) {strong}: {words}; your function says {given}"
    return None


def _gain(answer: Callable[[float, float], Any]) -> str | None:
    tickets = {
        "both are likely to fail": (0.1, 0.1),
        "the cheap one fails, the strong one does not": (0.2, 0.9),
        "both are likely to be right": (0.95, 0.97),
        "the strong one is a little better": (0.3, 0.5),
        "a hard one, and the strong one is a little better": (0.05, 0.2),
        "it is even": (0.5, 0.5),
        "the strong one spoils it": (0.8, 0.4),
    }
    scores: dict[str, float] = {}
    for name, (cheap, strong) in tickets.items():
        given = answer(cheap, strong)
        if given is None or given is ...:
            raise NotAttemptedError
        scores[name] = float(given)
    for pair in combinations(tickets, 2):
        then, first = sorted(pair, key=lambda name: tickets[name][1] - tickets[name][0])
        less, more = (round(tickets[name][1] - tickets[name][0], 9) for name in (then, first))
        if less < more and scores[first] <= scores[then]:
            return (
                f"it scores {scores[then]:.2f} where {then} {tickets[then]}, and {scores[first]:.2f} where {first} {tickets[first]}: "
                "the first goes up no later than the second, and wins less. (In brackets: P(cheap right), P(strong right))"
            )
    return None


def _flag(answer: Callable[[float, float, float], Any]) -> str | None:
    for missed, alarm in ((5.0, 0.5), (0.5, 5.0), (20.0, 0.1), (1.0, 1.0)):
        spent = best = always = never = 0.0
        for share_flagged in (0.0, 0.02, 0.2, 0.4, 0.6, 0.8, 1.0):
            given = answer(share_flagged, missed, alarm)
            if given is None or given is ...:
                raise NotAttemptedError
            quiet, asked = share_flagged * missed, (1 - share_flagged) * alarm
            spent += asked if given else quiet
            best, always, never = best + min(quiet, asked), always + asked, never + quiet
        if spent > best + 1e-9:
            return (
                f"a missed person at USD {missed:g}, a false alarm at USD {alarm:g}: on 7 tickets yours is expected to cost {spent:.2f}, "
                f"asking always {always:.2f}, never {never:.2f}; there is a cheaper one"
            )
    return None


EXERCISES = {
    "5.1": Exercise(
        _vote,
        (
            "Count the answers that are not None; the share is the winner's count by the number of ALL answers.",
            "collections.Counter counts in the order of first sight, and its most_common(1) takes the first of equal ones.",
            "Where no answer is usable there is nothing to count: return None, 0.0 before you look for a winner.",
        ),
        "the share counts every answer that was paid for, and a tie goes to the first.",
    ),
    "5.2": Exercise(
        _worth,
        (
            "Going up saves an error on p_strong - p_cheap of such tickets. What is that worth?",
            "(p_strong - p_cheap) * wrong_usd is what you expect to save. Compare it with the price of the call.",
        ),
        "not how bad the cheap answer is decides, but how much better the strong one is, times what that is worth to you.",
    ),
    "5.3": Exercise(
        _gain,
        (
            "What does going up win on a ticket that neither model gets right?",
            "The expected number of errors saved is the difference of the two probabilities.",
        ),
        "a ticket that both get wrong is dear to send up and wins nothing: it stays.",
    ),
    "5.4": Exercise(
        _flag,
        (
            "If the share is a probability, what do you expect to pay for asking a person, and what for not asking?",
            "Asking costs (1 - share) * alarm_usd on the average, not asking share * missed_usd.",
        ),
        "the prices set the threshold: alarm_usd / (missed_usd + alarm_usd).",
    ),
}
