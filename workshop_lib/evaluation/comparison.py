"""What strategies on the same tickets come to: a table, pairs with a plain sentence, who is on the front, and what to beware of."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workshop_lib.cascade.attempt import Outcome
from workshop_lib.cascade.cascade import id_of
from workshop_lib.evaluation.metrics import (
    Measure,
    Scores,
    break_even_escalation,
    cost_at_equal_agreement,
    family_of,
)
from workshop_lib.evaluation.provenance import Provenance, Recording
from workshop_lib.evaluation.statistics import Difference, Share, paired_difference
from workshop_lib.evaluation.strategies import OUT_OF_REACH

FORM = "bakeoff-1"
LABELLED = ("category", "priority", "needs_human")
"""The fields of an answer key."""
COMPARED = ("category", "joint")
"""Measures by which strategies are compared in pairs, where the task has them."""


@dataclass(frozen=True)
class Comparison:
    """Strategies on the same tickets."""

    scores: Mapping[str, Scores]
    outcomes: Mapping[str, Sequence[Outcome[Any]]]
    tickets: Sequence[Any]
    labels: Mapping[str, Any]
    recording: Recording
    """The answers that all of this is worked out from, and what they belong to."""
    identities: Mapping[str, str]
    """Strategy to what it does."""
    measures: Sequence[Measure]
    final: bool
    """Whether this is the locked test split."""
    seed: int
    """Of all intervals."""
    notes: tuple[str, ...] = ()
    """What has changed since the answers were recorded, without making them wrong."""

    @property
    def provenance(self) -> Provenance:
        """What the answers belong to."""
        return self.recording.provenance

    @property
    def main_measure(self) -> str:
        """What "right" means here: joint agreement, or the first measure of a task without it."""
        names = [m.name for m in self.measures]
        return "joint" if "joint" in names else names[0]

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
        return tuple(
            pareto({n: (s.cost_usd, self._main(s).value) for n, s in self.scores.items() if n != OUT_OF_REACH})
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before believing the table."""
        said = []
        if {"strong-only", "cheap-only"} <= self.scores.keys():
            ahead = self.paired("strong-only", "cheap-only", self.main_measure)
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
        rows = []
        for name, s in self.scores.items():
            row: dict[str, Any] = {"strategy": name}
            row |= {m.name: "-" if (found := s.shares[m.name]) is None else str(found) for m in self.measures}
            per_right = s.cost_per_correct_usd(self.main_measure)
            row |= {
                "escalated": str(s.escalated),
                "USD per 1,000": f"{s.cost_per_1000_usd:.4f}",
                "USD per right answer": "-" if per_right is None else f"{per_right:.6f}",
                "mean ms": f"{s.latency_mean_ms:.0f}",
                "p50 ms": f"{s.latency_p50_ms:.0f}",
                "p95 ms": f"{s.latency_p95_ms:.0f}",
            }
            if {"cheap-only", "strong-only"} <= self.scores.keys():
                equal = self.chance_at_equal_agreement(name)
                row["chance at equal agreement, USD per 1,000"] = "-" if equal is None else f"{equal:.4f}"
            rows.append(row)
        return rows

    def chance_at_equal_agreement(self, strategy: str) -> float | None:
        """`cost_at_equal_agreement` of a strategy; None also where cheap-only or strong-only was not compared."""
        cheap, strong = self.scores.get("cheap-only"), self.scores.get("strong-only")
        if cheap is None or strong is None:
            return None
        return cost_at_equal_agreement(self.scores[strategy], cheap, strong, self.main_measure)

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
        return {
            "form": FORM,
            "split": self.provenance.split,
            "final": self.final,
            "n": len(self.tickets),
            "seed": self.seed,
            "strategies": {name: self._strategy_json(s) for name, s in self.scores.items()},
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
        for name, s in self.scores.items():
            told = self._strategy_json(s)
            flat = {"strategy": name} | {k: v for k, v in told.items() if not isinstance(v, dict)}
            for measure, found in {**told["shares"], "escalated": told["escalated"]}.items():
                flat |= {f"{measure}.{part}": value for part, value in (found or {"value": None}).items()}
            rows.append(flat)
        pd.DataFrame(rows).to_csv(path, index=False)

    def _strategy_json(self, s: Scores) -> dict[str, Any]:
        return {
            "identity": self.identities[s.strategy],
            "shares": {name: _share_json(found) for name, found in s.shares.items()},
            "escalated": _share_json(s.escalated),
            "reasons": {rule: count / s.n for rule, count in sorted(s.reasons.items())},
            "failed": s.failed,
            "cost_usd": s.cost_usd,
            "cost_per_ticket_usd": s.cost_usd / s.n,
            "cost_per_1000_usd": s.cost_per_1000_usd,
            "cost_per_correct_usd": s.cost_per_correct_usd(self.main_measure),
            "chance_at_equal_agreement_per_1000_usd": self.chance_at_equal_agreement(s.strategy),
            "latency_mean_ms": s.latency_mean_ms,
            "latency_p50_ms": s.latency_p50_ms,
            "latency_p95_ms": s.latency_p95_ms,
        }

    def _main(self, scores: Scores) -> Share:
        found = scores.shares[self.main_measure]
        assert found is not None  # it looks at every ticket
        return found


def pareto(worth: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names that no other one beats on cost and quality at once, from the cheapest up. `worth`: name to (cost, quality)."""
    kept = [
        name
        for name, (cost, value) in worth.items()
        if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in worth.values())
    ]
    return sorted(kept, key=lambda name: worth[name])


def _share_json(found: Share | None) -> dict[str, Any] | None:
    return None if found is None else dict(vars(found))


def _said(decision: Any) -> str:
    """A decision or a label in a few words."""
    if decision is None:
        return "(none)"
    flag = " needs_human" if getattr(decision, "needs_human", False) else ""
    short = [str(getattr(decision, name)) for name in ("category", "priority") if hasattr(decision, name)]
    return (" ".join(short) + flag) if short else json.dumps(decision.model_dump(mode="json"))[:120]
