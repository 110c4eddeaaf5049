"""How good the two small models are on the locked test split: `python benchmarks/local_pair.py`.

The test split is for this figure alone: nothing is chosen or tuned by it.
"""

from __future__ import annotations

from workshop_lib import Settings, load_labels, load_tickets, open_workshop
from workshop_lib.evaluation import (
    auroc,
    category_agreement,
    joint_agreement,
    paired_difference,
    run_strategies,
    score,
    standard_strategies,
)


def main() -> None:
    tickets, labels = load_tickets("test"), load_labels()
    families = [labels[t.id].family for t in tickets]
    with open_workshop(Settings(time_scale=0)) as workshop:
        outcomes = run_strategies(standard_strategies(workshop.bedrock), tickets)
    print(f"{len(tickets)} tickets, {len(set(families))} families\n")
    print(
        "| strategy | category | joint | needs_human recall | P0/P1 recall | escalated | USD per 1,000 |\n|---|---|---|---|---|---|---|"
    )
    for name, found in outcomes.items():
        s = score(name, found, labels)
        shares = (s.category, s.joint, s.needs_human_recall, s.urgent_recall, s.escalated)
        print(f"| {name} | {' | '.join(map(str, shares))} | {s.cost_per_1000_usd:.3f} |")
    for what, right in (("category", category_agreement), ("joint", joint_agreement)):
        agrees = {name: [right(o.decision, labels[o.item_id]) for o in found] for name, found in outcomes.items()}
        print(
            f"\nstrong minus cheap, {what}: {paired_difference(agrees['strong-only'], agrees['cheap-only'], families)}"
        )
    cheap = [(o.final.confidence, joint_agreement(o.decision, labels[o.item_id])) for o in outcomes["cheap-only"]]
    print(
        f"\nAUROC of the cheap model's stated confidence: {auroc([c or 0 for c, _ in cheap], [ok for _, ok in cheap]):.2f}"
    )
    styles = sorted({labels[t.id].style for t in tickets})
    print("\n| style | tickets | cheap joint | strong joint |\n|---|---|---|---|")
    for style in styles:
        shown = [i for i, t in enumerate(tickets) if labels[t.id].style == style]
        shares = [
            sum(joint_agreement(outcomes[n][i].decision, labels[tickets[i].id]) for i in shown)
            for n in ("cheap-only", "strong-only")
        ]
        print(f"| {style} | {len(shown)} | {shares[0]} | {shares[1]} |")


if __name__ == "__main__":
    main()
