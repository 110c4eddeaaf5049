"""How far known scores get on recorded answers of real models: `python benchmarks/router_on_recorded.py FOLDER`, ten seconds.

FOLDER holds mmlu-mixtral-gpt4.csv (RouteLLM's evaluation files) and mmlu-4omini-4o.train.csv, mmlu-4omini-4o.test.csv (of "Rational
Tuning of LLM Cascades", arXiv 2501.09345): one row a question, with cheap_correct and strong_correct. They are not part of this project.
Nothing is trained or tuned here.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from workshop_lib.evaluation import (
    aiq,
    apgr,
    apgr_interval,
    aurc,
    baselines,
    cost_at_quality,
    cpt,
    curve,
    ece,
    ece_interval,
    reliability,
)

Scores = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    before_the_answer(pd.read_csv(folder / "mmlu-mixtral-gpt4.csv"))
    for split in ("train", "test"):
        after_the_answer(pd.read_csv(folder / f"mmlu-4omini-4o.{split}.csv"), split)
    all_curves_of(100_000)


def before_the_answer(rows: pd.DataFrame) -> None:
    """Scores of the question alone."""
    cheap, strong = rows.cheap_correct.to_numpy(), rows.strong_correct.to_numpy()
    print(f"Mixtral-8x7B to GPT-4, MMLU, n = {len(rows):,}: {cheap.mean():.4f} and {strong.mean():.4f} right.\n")
    print("| score | CPT50 | CPT80 | APGR |\n|---|---|---|---|")
    constant = np.zeros(len(rows))
    half, most = (cpt(constant, cheap, strong, share) for share in (0.5, 0.8))
    print(f"| random, as expected (a constant score) | {half:.2%} | {most:.2%} | {apgr(constant, cheap, strong):.3f} |")
    texts = rows.prompt.tolist()
    draws = [baselines(texts, cheap, strong, seed=seed)["random"] for seed in range(5)]
    found = np.array([[cpt(s, cheap, strong, 0.5), cpt(s, cheap, strong, 0.8), apgr(s, cheap, strong)] for s in draws])
    for name, (half, most, area) in {
        "random, mean of 5 draws": found.mean(axis=0),
        "random, lowest": found.min(axis=0),
        "random, highest": found.max(axis=0),
    }.items():
        print(f"| {name} | {half:.2%} | {most:.2%} | {area:.3f} |")
    for name, score in baselines(texts, cheap, strong).items():
        if name != "random":
            print(row(name, score, cheap, strong))


def after_the_answer(rows: pd.DataFrame, split: str) -> None:
    """The cheap answer's log-probability: the lower, the more it should go up."""
    cheap, strong = rows.cheap_correct.to_numpy(), rows.strong_correct.to_numpy()
    score, confidence = -rows.cheap_logprob.to_numpy(), np.exp(rows.cheap_logprob.to_numpy())
    print(
        f"\ngpt-4o-mini to gpt-4o, MMLU, {split}, n = {len(rows):,}: {cheap.mean():.4f} and {strong.mean():.4f} right.\n"
    )
    print("| score | CPT50 | CPT80 | APGR |\n|---|---|---|---|")
    print(row("log-probability", score, cheap, strong))
    print(row("length", baselines(rows.prompt.tolist(), cheap, strong)["length"], cheap, strong))
    print("\n| cost against gpt-4o alone | at 99 % of its accuracy | at all of it |\n|---|---|---|")
    costs = rows.cheap_cost_usd.to_numpy(), rows.strong_cost_usd.to_numpy()
    for name, paid in {
        "each ticket at its own cost": costs,
        "every ticket at the mean cost": [np.full(len(rows), cost.mean()) for cost in costs],
    }.items():
        almost, equal = (cost_at_quality(score, cheap, strong, *paid, share) for share in (0.99, 1.0))
        print(f"| {name} | {almost:.1%} | {equal:.1%} |")
    error = ece_interval(confidence, cheap)
    print(f"\nRaw ECE {error.value:.3f} [{error.low:.3f}, {error.high:.3f}], AURC {aurc(confidence, cheap):.3f}.")


def row(name: str, score: Scores, cheap: Scores, strong: Scores) -> str:
    half, most = (cpt(score, cheap, strong, share) for share in (0.5, 0.8))
    try:
        found = apgr_interval(score, cheap, strong)
        area = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    except ValueError as error:
        area = f"{apgr(score, cheap, strong):.3f} ({str(error).split(':')[0]})"
    return f"| {name} | {half:.2%} | {most:.2%} | {area} |"


def all_curves_of(n: int) -> None:
    """How long every figure takes on so many tickets, without intervals."""
    chance = np.random.default_rng(0)
    score, less, more = chance.random((3, n))
    cheap, strong = chance.random(n) < 0.6, chance.random(n) < 0.8
    began = time.perf_counter()
    found = curve(score, cheap, strong)
    apgr(score, cheap, strong), cpt(score, cheap, strong, 0.8), cost_at_quality(score, cheap, strong, less, more)
    (
        aurc(score, cheap),
        ece(score, cheap),
        reliability(score, cheap, equal_mass=True),
        aiq(found.share_up, found.quality),
    )
    print(f"\nAll curves of {n:,} tickets, every threshold: {time.perf_counter() - began:.2f} s.")


if __name__ == "__main__":
    main()
