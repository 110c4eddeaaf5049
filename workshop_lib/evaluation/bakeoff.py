"""Which strategy is worth it: every model is asked once per ticket, and all strategies are worked out from those answers.

comparison = bakeoff(tickets, labels)                     # strong-only, cheap-only, cascade, ...
comparison.paired("cascade", "cheap-only").decides
comparison = replay(Recording.load(path), tickets, labels, ...)   # the same, without a call
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.bedrock.client import Bedrock, default_client
from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.bulk.rows import Row
from workshop_lib.bulk.runner import BulkRun, run_bulk
from workshop_lib.bulk.store import Store, StoreInUse
from workshop_lib.cascade.attempt import Attempt, Outcome, Tier
from workshop_lib.cascade.cascade import Cascade, id_of
from workshop_lib.evaluation.metrics import (
    TRIAGE_MEASURES,
    Measure,
    Scores,
    break_even_escalation,
    cost_at_equal_agreement,
    family_of,
    score,
)
from workshop_lib.evaluation.provenance import Provenance, Recording, RecordingError
from workshop_lib.evaluation.statistics import Difference, Share, kappa, paired_difference
from workshop_lib.evaluation.strategies import OUT_OF_REACH, Asked, Strategy, all_strategies, identity_of, work_out
from workshop_lib.triage.task import TRIAGE, Task

FORM = "bakeoff-1"
COMPARED = ("category", "joint")
"""Measures by which strategies are compared in pairs, where the task has them."""
PATIENCE_S = 300
"""How long to wait for another program that fills the same store."""
LABELLED = ("category", "priority", "needs_human")


class LockedSplit(ConfigurationError):
    """The test split was asked for without saying that this is the final measurement."""

    default_advice = (
        "Choose everything on calibration first. For the one figure that you publish, say --final (or final=True)."
    )


@dataclass(frozen=True)
class Comparison:
    """Strategies on the same tickets."""

    scores: Mapping[str, Scores]
    outcomes: Mapping[str, Sequence[Outcome[Any]]]
    tickets: Sequence[Any]
    labels: Mapping[str, Any]
    provenance: Provenance
    identities: Mapping[str, str]
    """Strategy to what it does."""
    measures: Sequence[Measure]
    final: bool
    """Whether this is the locked test split."""
    seed: int
    """Of all intervals."""
    notes: tuple[str, ...] = ()
    """What has changed since the answers were recorded, without making them wrong."""

    def paired(self, a: str, b: str, measure: str = "joint") -> Difference:
        """A - B on the same tickets.

        Raises:
            KeyError: there is no such strategy or measure.
        """
        judge = {m.name: m for m in self.measures}[measure]
        looked = [i for i, t in enumerate(self.tickets) if judge.among(self.labels[id_of(t)])]
        holds = [
            [judge.of(self.outcomes[name][i], self.labels[id_of(self.tickets[i])]) for i in looked] for name in (a, b)
        ]
        families = [family_of(id_of(self.tickets[i]), self.labels[id_of(self.tickets[i])]) for i in looked]
        return paired_difference(holds[0], holds[1], families, seed=self.seed)

    def pairs(self) -> list[tuple[str, str, str, Difference]]:
        """Every two strategies by each measure of `COMPARED`: A, B, measure, difference."""
        known = [m.name for m in self.measures if m.name in COMPARED] or [self.measures[0].name]
        return [
            (a, b, measure, self.paired(a, b, measure))
            for a, b in itertools.combinations(self.scores, 2)
            for measure in known
        ]

    def disagreements(self, a: str, b: str, measure: str = "joint") -> list[dict[str, Any]]:
        """Tickets on which just one of two strategies is right, as rows: who, what the key says, what each said, the text."""
        judge = {m.name: m for m in self.measures}[measure]
        rows = []
        for i, ticket in enumerate(self.tickets):
            label, said = self.labels[id_of(ticket)], {name: self.outcomes[name][i] for name in (a, b)}
            right = [name for name, outcome in said.items() if judge.of(outcome, label)]
            if len(right) == 1:
                told = {"ticket": id_of(ticket), "right": right[0], "key": _said(label)}
                texts = {"subject": getattr(ticket, "subject", ""), "text": getattr(ticket, "body", str(ticket))}
                rows.append(told | {name: _said(outcome.decision) for name, outcome in said.items()} | texts)
        return rows

    @property
    def pareto(self) -> tuple[str, ...]:
        """Strategies that no other one beats on cost and joint agreement at once, from the cheapest up; the oracle has no part in it."""
        worth = {name: (s.cost_usd, self._main(s).value) for name, s in self.scores.items() if name != OUT_OF_REACH}
        kept = [
            name
            for name, (cost, value) in worth.items()
            if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in worth.values())
        ]
        return tuple(sorted(kept, key=lambda name: worth[name]))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before believing the table."""
        said = []
        if {"strong-only", "cheap-only"} <= self.scores.keys():
            ahead = self.paired("strong-only", "cheap-only", self._main_measure)
            if ahead.low <= 0:
                said.append(
                    f"The strong model is not shown to be stronger than the cheap one ({ahead}): whatever a cascade keeps of it, "
                    "nobody knows what that is worth."
                )
        for name, s in self.scores.items():
            if s.failed:
                first = next(o for o in self.outcomes[name] if o.decision is None)
                said.append(
                    f"{name}: {s.failed} of {s.n} tickets without a decision count as wrong. First: {first.error}"
                )
        some = self._main(next(iter(self.scores.values())))
        if some.distinct_texts and some.distinct_texts < some.n:
            said.append(f"Only {some.distinct_texts} of {some.n} texts are different: copies are no further evidence.")
        if self.provenance.door.get("mode") == "local" and self.provenance.split == "train":
            said.append("The local models have learned these very tickets: their agreement here measures memory.")
        return (*said, *(f"Since the recording, {note}." for note in self.notes))

    def table(self) -> list[dict[str, Any]]:
        """A row a strategy: shares with intervals, costs, latencies."""
        cheap, strong = self.scores.get("cheap-only"), self.scores.get("strong-only")
        rows = []
        for name, s in self.scores.items():
            row: dict[str, Any] = {"strategy": name}
            row |= {m.name: "-" if (found := s.shares[m.name]) is None else str(found) for m in self.measures}
            per_right = s.cost_per_correct_usd(self._main_measure)
            row |= {
                "escalated": str(s.escalated),
                "USD per 1,000": f"{s.cost_per_1000_usd:.4f}",
                "USD per right answer": "-" if per_right is None else f"{per_right:.6f}",
                "mean ms": f"{s.latency_mean_ms:.0f}",
                "p50 ms": f"{s.latency_p50_ms:.0f}",
                "p95 ms": f"{s.latency_p95_ms:.0f}",
            }
            if cheap is not None and strong is not None:
                equal = cost_at_equal_agreement(s, cheap, strong, self._main_measure)
                row["chance at equal agreement, USD per 1,000"] = "-" if equal is None else f"{equal:.4f}"
            rows.append(row)
        return rows

    def sentences(self, measure: str = "joint", *, about: str | None = None) -> list[str]:
        """What the data say about every two strategies, or about those pairs that one strategy is part of."""
        return [
            d.sentence(a, b, f"{m} agreement")
            for a, b, m, d in self.pairs()
            if m == measure and (about is None or about in {a, b})
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything as one object without NaN: strategies with shares, costs and latencies; pairs with differences; provenance."""
        cheap, strong = self.scores.get("cheap-only"), self.scores.get("strong-only")
        both = cheap is not None and strong is not None
        return {
            "form": FORM,
            "split": self.provenance.split,
            "final": self.final,
            "n": len(self.tickets),
            "seed": self.seed,
            "strategies": {
                name: self._strategy_json(s, cheap, strong) if both else self._strategy_json(s)
                for name, s in self.scores.items()
            },
            "pairs": [
                {
                    "a": a, "b": b, "measure": m, "difference": d.value, "low": d.low, "high": d.high, "n": d.n,
                    "families": d.families, "only_a": d.only_a, "only_b": d.only_b, "mcnemar_p": d.mcnemar_p,
                    "decides": d.decides, "sentence": d.sentence(a, b, f"{m} agreement"),
                }
                for a, b, m, d in self.pairs()
            ],
            "pareto": list(self.pareto),
            "break_even_escalation": break_even_escalation(cheap, strong) if cheap and strong else None,
            "warnings": list(self.warnings),
            "provenance": {**vars(self.provenance)},
        }  # fmt: skip

    def to_markdown(self) -> str:
        """The table, what the data say about each pair, and the warnings, to be published."""
        rows = self.table()
        lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
        lines += ["| " + " | ".join(str(cell) for cell in row.values()) + " |" for row in rows]
        return "\n".join([*lines, "", *(f"- {line}" for line in (*self.sentences(), *self.warnings))])

    def to_csv(self, path: Path) -> None:
        """The table as a file, shares in columns of their own."""
        import pandas as pd

        rows = []
        for name, told in self.to_json()["strategies"].items():
            flat = {"strategy": name} | {k: v for k, v in told.items() if not isinstance(v, dict)}
            for measure, found in {**told["shares"], "escalated": told["escalated"]}.items():
                flat |= {f"{measure}.{part}": value for part, value in (found or {"value": None}).items()}
            rows.append(flat)
        pd.DataFrame(rows).to_csv(path, index=False)

    def _strategy_json(self, s: Scores, cheap: Scores | None = None, strong: Scores | None = None) -> dict[str, Any]:
        equal = cost_at_equal_agreement(s, cheap, strong, self._main_measure) if cheap and strong else None
        return {
            "identity": self.identities[s.strategy],
            "shares": {name: _share_json(found) for name, found in s.shares.items()},
            "escalated": _share_json(s.escalated),
            "reasons": {rule: count / s.n for rule, count in sorted(s.reasons.items())},
            "failed": s.failed,
            "cost_usd": s.cost_usd,
            "cost_per_ticket_usd": s.cost_usd / s.n,
            "cost_per_1000_usd": s.cost_per_1000_usd,
            "cost_per_correct_usd": s.cost_per_correct_usd(self._main_measure),
            "chance_at_equal_agreement_per_1000_usd": equal,
            "latency_mean_ms": s.latency_mean_ms,
            "latency_p50_ms": s.latency_p50_ms,
            "latency_p95_ms": s.latency_p95_ms,
        }

    @property
    def _main_measure(self) -> str:
        return "joint" if any(m.name == "joint" for m in self.measures) else self.measures[0].name

    def _main(self, scores: Scores) -> Share:
        found = scores.shares[self._main_measure]
        assert found is not None  # it looks at every ticket
        return found


def bakeoff(
    tickets: Sequence[Any],
    labels: Mapping[str, Any],
    strategies: Mapping[str, Strategy] | None = None,
    *,
    client: Bedrock | None = None,
    tiers: Sequence[Tier] = (),
    task: Task[Any] = TRIAGE,
    measures: Sequence[Measure] = TRIAGE_MEASURES,
    store: Path | None = None,
    workers: int = 8,
    budget_usd: float | None = None,
    final: bool = False,
    seed: int = 0,
    on_row: Callable[[Row], None] | None = None,
) -> Comparison:
    """Compare strategies on labelled tickets. Each tier is asked once per ticket; asked again, the answers come from the store.

    Args:
        tickets: what the task reads.
        labels: the answer key by ticket id.
        strategies: by name; None: `all_strategies`.
        client: who calls; None: the client of the workshop opened last.
        tiers: to be asked for beside those of the cascades, for functions that use others than cheap and strong.
        task, measures: what is asked and judged.
        store: folder of the answers; None: in the cache folder. A file there belongs to one prompt, tier and door.
        workers: calls in flight at once.
        budget_usd: spending limit of this call. What was paid before it was reached is kept.
        final: needed for the locked test split.
        seed: of the intervals.
        on_row: told of each answer as it comes.

    Raises:
        LockedSplit: a ticket of the test split without `final`.
        ConfigurationError: no tickets, a ticket without a label, or two tiers of one name.
        RecordingError: the budget was reached; run again to go on.
    """
    client = client if client is not None else default_client()
    strategies = all_strategies(labels, client.catalogue) if strategies is None else strategies
    asked = tiers_of(strategies, tiers)
    _unlock(tickets, labels, final)
    recording = record(
        tickets, labels, asked, client=client, task=task, store=store, workers=workers, budget_usd=budget_usd,
        on_row=on_row,
    )  # fmt: skip
    return _compare(
        recording, tickets, labels, strategies=strategies, task=task, measures=measures, final=final, seed=seed
    )


def replay(
    recording: Recording,
    tickets: Sequence[Any],
    labels: Mapping[str, Any],
    strategies: Mapping[str, Strategy] | None = None,
    *,
    catalogue: Catalogue,
    door: Mapping[str, Any],
    tiers: Sequence[Tier] = (),
    task: Task[Any] = TRIAGE,
    measures: Sequence[Measure] = TRIAGE_MEASURES,
    final: bool = False,
    seed: int = 0,
    limit: int | None = None,
) -> Comparison:
    """The same from recorded answers: no call is made.

    Args:
        recording: of at least these tiers.
        catalogue, door: of today, to be held against the recording's.
        tickets, labels, strategies, tiers, task, measures, final, seed: as `bakeoff`.
        limit: judge the first so many tickets only.

    Raises:
        RecordingError: it belongs to something else, or lacks answers.
        LockedSplit, ConfigurationError: as `bakeoff`.
    """
    strategies = all_strategies(labels, catalogue) if strategies is None else strategies
    _unlock(tickets, labels, final)
    now = Provenance.of(tickets, labels, tiers_of(strategies, tiers), catalogue=catalogue, door=door, task=task)
    notes, tickets = recording.check(now), tickets[:limit]
    return _compare(
        recording,
        tickets,
        labels,
        strategies=strategies,
        task=task,
        measures=measures,
        final=final,
        seed=seed,
        notes=notes,
    )


def record(
    tickets: Sequence[Any],
    labels: Mapping[str, Any],
    tiers: Sequence[Tier],
    *,
    client: Bedrock,
    task: Task[Any] = TRIAGE,
    store: Path | None = None,
    workers: int = 8,
    budget_usd: float | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> Recording:
    """Ask each tier about each ticket, in bulk; what the store has an answer to is not asked again. Arguments as `bakeoff`.

    Raises:
        RecordingError: the budget was reached before the end.
        ConfigurationError: no tickets, or an unusable one.
    """
    if not tickets:
        raise ConfigurationError("There are no tickets to ask about.", advice="Check the split, the file and --limit.")
    made = Provenance.of(tickets, labels, tiers, catalogue=client.catalogue, door=client.door, task=task)
    folder = store or client.settings.cache_dir / "bakeoff"
    folder.mkdir(parents=True, exist_ok=True)
    order, rows, spent = {id_of(ticket): i for i, ticket in enumerate(tickets)}, list[Row](), 0.0
    for tier in tiers:
        left = None if budget_usd is None else budget_usd - spent
        if left is not None and left <= 0:
            raise _half(rows, tickets, tiers, spent)
        cascade = Cascade([tier], task=task, client=client)
        file = folder / f"{_file_name(tier.name)}-{made.hash_of(tier.name)}.db"
        begin = partial(run_bulk, cascade, tickets, workers=workers, store=file, budget_usd=left, retry_failed=True)
        with _once_free(begin) as run:
            for row in run:
                if on_row is not None:
                    on_row(row)
            spent += run.cost_usd
        with Store(file) as kept:
            rows += sorted((row for row in kept if row.ticket_id in order), key=lambda row: order[row.ticket_id])
        if run.stopped == "budget":
            raise _half(rows, tickets, tiers, spent)
    return Recording(made, tuple(rows))


def tiers_of(strategies: Mapping[str, Strategy], more: Sequence[Tier] = ()) -> tuple[Tier, ...]:
    """The tiers that have to be asked. A function of your own may use cheap and strong, and those of `more`.

    Raises:
        ConfigurationError: no strategies, or two different tiers of one name.
    """
    found: dict[str, Tier] = {tier.name: tier for tier in more}
    functions = False
    for name, strategy in strategies.items():
        if not isinstance(strategy, Cascade):
            functions = True
            continue
        for tier in strategy.tiers:
            if found.setdefault(tier.name, tier) != tier:
                raise ConfigurationError(
                    f"{name} has a tier {tier.name} with other settings than another strategy's tier of that name.",
                    advice='Give it a name of its own: Tier("cheap", name="cheap-warm", temperature=1.0).',
                )
    if not strategies:
        raise ConfigurationError("There are no strategies to compare.", advice="Name one, or say --all.")
    if functions:
        found = {"cheap": Tier("cheap"), "strong": Tier("strong")} | found
    return tuple(found[name] for name in sorted(found))


def judged_agreement(judged: Mapping[str, Attempt[Any]], labels: Mapping[str, Any]) -> dict[str, Share | None]:
    """Cohen's kappa of a judge's labels against the key, by field; None where only one label occurs.

    Raises:
        RecordingError: the judge has answered none of the tickets.
    """
    answered = [(i, a.decision) for i, a in judged.items() if a.decision is not None]
    if not answered:
        first = next((a.error for a in judged.values()), None)
        raise RecordingError(f"The judge has labelled no ticket: {first}")
    found: dict[str, Share | None] = {}
    for field in LABELLED:
        said = [str(getattr(decision, field)) for _, decision in answered]
        key = [str(getattr(labels[i], field)) for i, _ in answered]
        families = [family_of(i, labels[i]) for i, _ in answered]
        found[field] = kappa(said, key, families) if len({*said, *key}) > 1 else None
    return found


def refuse_locked(labels: Mapping[str, Any], item_ids: Sequence[str]) -> None:
    """Called by everything that chooses or tunes: the test split may not take part.

    Raises:
        LockedSplit: it does.
    """
    locked = [i for i in item_ids if getattr(labels.get(i), "split", "") == "test"]
    if locked:
        raise LockedSplit(
            f"{len(locked)} tickets of the locked test split (first: {locked[0]}) are to be tuned on.",
            advice="Use calibration. What is tuned on the test split measures nothing on it.",
        )


def _unlock(tickets: Sequence[Any], labels: Mapping[str, Any], final: bool) -> None:
    if not tickets:
        raise ConfigurationError("There are no tickets to compare.", advice="Check the split, the file and --limit.")
    missing = [id_of(t) for t in tickets if id_of(t) not in labels]
    if missing:
        raise ConfigurationError(
            f"{len(missing)} tickets have no label (first: {missing[0]}).",
            advice="Label them, or leave them out: an unlabelled ticket can be neither right nor wrong.",
        )
    locked = sum(getattr(labels[id_of(t)], "split", "") == "test" for t in tickets)
    if locked and not final:
        raise LockedSplit(f"{locked} of these tickets are of the locked test split.")


def _compare(
    recording: Recording,
    tickets: Sequence[Any],
    labels: Mapping[str, Any],
    *,
    strategies: Mapping[str, Strategy],
    task: Task[Any],
    measures: Sequence[Measure],
    final: bool,
    seed: int,
    notes: tuple[str, ...] = (),
) -> Comparison:
    answers = recording.answers(task)
    needed = [tier.name for tier in tiers_of(strategies)]
    lacking = [id_of(t) for t in tickets if not set(needed) <= answers.get(id_of(t), {}).keys()]
    if lacking:
        raise RecordingError(
            f"{len(lacking)} of {len(tickets)} tickets have not been answered by all of {', '.join(needed)} (first: {lacking[0]})."
        )
    asked = [Asked(ticket, answers[id_of(ticket)], task) for ticket in tickets]
    outcomes = {name: [work_out(name, strategy, a) for a in asked] for name, strategy in strategies.items()}
    texts = {id_of(ticket): task.describe(ticket) for ticket in tickets}
    return Comparison(
        scores={
            name: score(name, found, labels, texts=texts, measures=measures, seed=seed)
            for name, found in outcomes.items()
        },
        outcomes=outcomes,
        tickets=tickets,
        labels=labels,
        provenance=recording.provenance,
        identities={name: identity_of(strategy) for name, strategy in strategies.items()},
        measures=measures,
        final=final and any(getattr(labels[a.item_id], "split", "") == "test" for a in asked),
        seed=seed,
        notes=notes,
    )


def _once_free(begin: Callable[[], BulkRun]) -> BulkRun:
    """A run, as soon as no other program (the same lab in a second window, say) writes to its store."""
    import tenacity

    patient = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(StoreInUse),
        stop=tenacity.stop_after_delay(PATIENCE_S),
        wait=tenacity.wait_fixed(0.2),
        reraise=True,
    )
    return patient(begin)


def _half(rows: Sequence[Row], tickets: Sequence[Any], tiers: Sequence[Tier], spent: float) -> RecordingError:
    return RecordingError(
        f"The budget was reached with {len(rows)} of {len(tickets) * len(tiers)} answers, after USD {spent:.6f}.",
        advice="They are kept: the same call with more budget goes on from there.",
    )


def _share_json(found: Share | None) -> dict[str, Any] | None:
    return None if found is None else dict(vars(found))


def _said(decision: Any) -> str:
    """A decision or a label in a few words."""
    if decision is None:
        return "(none)"
    flag = " needs_human" if getattr(decision, "needs_human", False) else ""
    short = [str(getattr(decision, name)) for name in ("category", "priority") if hasattr(decision, name)]
    return (" ".join(short) + flag) if short else json.dumps(decision.model_dump(mode="json"))[:120]


def _file_name(tier: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in tier)
