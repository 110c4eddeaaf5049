"""What a tuned cascade keeps of the strong model on the locked test split: `python benchmarks/tuned_cascade.py`, one minute.

Nothing is chosen on the test split. The router learns from data/recorded/local-train.csv (training tickets, answered by pairs that had
not learned them): from what the cheap answer says, which measures as well there as text, word counts and sentence vectors together. Its
threshold is the one that spends 45 % of strong-only's cost on the calibration tickets.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import Any

import numpy as np

from workshop_lib import Attempt, Cascade, Tier, invalid_output, load_labels, load_tickets, open_workshop
from workshop_lib.bedrock.settings import PROJECT, Settings
from workshop_lib.cascade import answer_features, gain_of
from workshop_lib.cascade.confidence import text_of
from workshop_lib.cascade.router import LearnedRouter
from workshop_lib.evaluation import NoCalls, at_random, bakeoff, standard_strategies
from workshop_lib.triage.task import TRIAGE

COST_SHARE = 0.45
FIELDS = ("category", "priority", "needs_human")


def said(attempt: Attempt[Any]) -> dict[str, str | float]:
    """What the cheap answer says in its closed fields; what it states about its confidence is left out."""
    return {name: value for name, value in answer_features(attempt).items() if name in (*FIELDS, "answer")}


def main() -> None:
    tickets = {t.id: t for t in load_tickets("train")}
    with (PROJECT / "data" / "recorded" / "local-train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = [TRIAGE.describe(tickets[row["ticket_id"]]) for row in rows]
    features: list[dict[str, str | float]] = []
    for row in rows:
        fields = [row["category"], row["priority"], row["needs_human"].capitalize()]
        features.append({**dict(zip(FIELDS, fields, strict=True)), "answer": ", ".join(fields)})
    labels = load_labels()
    router = LearnedRouter(["facts"]).fit(
        texts,
        [int(row["cheap_correct"]) for row in rows],
        [int(row["strong_correct"]) for row in rows],
        features=features,
        families=[labels[row["ticket_id"]].family for row in rows],
    )
    with open_workshop(Settings(time_scale=0)) as workshop:
        seen = bakeoff(load_tickets("calibration"), labels, standard_strategies(NoCalls()), client=workshop.bedrock)
    cheap, strong = (seen.scores[f"{tier}-only"].cost_per_1000_usd for tier in ("cheap", "strong"))
    share_up = COST_SHARE - cheap / strong
    answers = [
        replace(outcome.attempts[0], item=ticket)
        for outcome, ticket in zip(seen.outcomes["cheap-only"], seen.tickets, strict=True)
    ]
    gains = router.score([text_of(a) for a in answers], [said(a) for a in answers])
    threshold = float(np.quantile(gains, 1 - share_up))
    tiers = [Tier("cheap"), Tier("strong")]
    rule = gain_of(router, threshold, features=said) | invalid_output()
    strategies = {
        **standard_strategies(NoCalls()),
        "tuned": Cascade(tiers, escalate_when=rule, client=NoCalls()),
        "chance": at_random(share_up),
    }
    with open_workshop(Settings(time_scale=0)) as workshop:
        found = bakeoff(load_tickets("test"), labels, strategies, client=workshop.bedrock, final=True)
    columns = ("strategy", "joint", "category", "needs_human_recall", "urgent_recall", "escalated", "USD per 1,000")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for line in found.table():
        print(f"| {' | '.join(str(line[column]) for column in columns)} |")
    for other in ("strong-only", "cheap-only", "cascade", "chance"):
        print(f"\n{found.paired('tuned', other).sentence('tuned', other)}")
    spent = found.scores["tuned"].cost_usd / found.scores["strong-only"].cost_usd
    print(f"\ntuned spends {spent:.1%} of strong-only's cost; expected gain of {threshold:.3f} or more goes up")


if __name__ == "__main__":
    main()
