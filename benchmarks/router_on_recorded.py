"""How far scores and learned routers get on recorded answers of real models: `python benchmarks/router_on_recorded.py FOLDER`.

FOLDER holds mmlu-mixtral-gpt4.csv (RouteLLM's evaluation files) and mmlu-4omini-4o.train.csv, mmlu-4omini-4o.test.csv (of "Rational
Tuning of LLM Cascades", arXiv 2501.09345): one row a question, with cheap_correct and strong_correct. They are not part of this project.

The baselines are not trained. LearnedRouter is trained on rows that are not scored. Its defaults (the facts counted in a text, ranks and
their squares, three views, the grid of penalties) were chosen on draws of other seeds within one random half of the 14,042 rows; the lines
"other half" train and score on the half that was never looked at for that. Sentence vectors of all prompts take most of the time;
`--without-vectors` leaves them out.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from workshop_lib.cascade.router import VIEWS, Embed, LearnedRouter, View
from workshop_lib.embedding import Embedder
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
DRAWS = 5
TUNED_HALF = 2026
"""Seed of the permutation whose first half of the rows the defaults were chosen on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without-vectors", action="store_true", help="views facts and words alone: two minutes")
    given = parser.parse_args()
    folder, began = given.folder, time.perf_counter()
    views: list[View] = ["facts", "words"] if given.without_vectors else list(VIEWS)
    large = pd.read_csv(folder / "mmlu-mixtral-gpt4.csv")
    train, test = (pd.read_csv(folder / f"mmlu-4omini-4o.{split}.csv") for split in ("train", "test"))
    before_the_answer(large)
    learned_before_the_answer(large, views)
    for rows, split in ((train, "train"), (test, "test")):
        after_the_answer(rows, split)
    learned_on_few(train, test, views)
    all_curves_of(100_000)
    print(f"\nIn all {time.perf_counter() - began:.0f} s.")


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


def learned_before_the_answer(rows: pd.DataFrame, views: list[View]) -> None:
    """LearnedRouter on the text alone, by how many labels it has; each figure is of rows that it was not trained on."""
    vectors = known_vectors(rows.prompt.tolist()) if "meaning" in views else None
    print(f"\nLearnedRouter, views {', '.join(views)}, from the text alone; draws: mean (lowest to highest APGR).\n")
    print("| labels | rows | CPT50 | CPT80 | APGR |\n|---|---|---|---|---|")
    other = np.random.default_rng(TUNED_HALF).permutation(len(rows))[len(rows) // 2 :]
    for name, part in {"all": rows, "other half": rows.iloc[other]}.items():
        for labels in (300, 1_500):
            found = []
            for seed in range(DRAWS):
                order = np.random.default_rng(seed).permutation(len(part))
                drawn, left = part.iloc[order[:labels]], part.iloc[order[labels:]]
                found.append(figures(learned(drawn, left, views, vectors), left))
            half, most, area = np.mean(found, axis=0)
            low, high = np.min(found, axis=0)[2], np.max(found, axis=0)[2]
            print(
                f"| {labels:,} | {name} | {half:.2%} | {most:.2%} | {area:.3f} ({low:.3f} to {high:.3f}) |", flush=True
            )
    fold_of, score = np.random.default_rng(0).permutation(len(rows)) % 5, np.empty(len(rows))
    for fold in range(5):
        out = fold_of == fold
        score[out] = learned(rows[~out], rows[out], views, vectors)
    print(row("four fifths | all, cross-fitted", score, rows.cheap_correct.to_numpy(), rows.strong_correct.to_numpy()))


def learned_on_few(train: pd.DataFrame, test: pd.DataFrame, views: list[View]) -> None:
    """285 labels: with and without the cheap answer's confidence, beside that confidence itself."""
    cheap, strong = test.cheap_correct.to_numpy(), test.strong_correct.to_numpy()
    print(f"\nLearnedRouter of {len(train)} train rows, scored on {len(test):,} test rows.\n")
    print("| score | CPT50 | CPT80 | APGR |\n|---|---|---|---|")
    print(row("learned from the text", learned(train, test, views, None), cheap, strong))
    of_train, of_test = ([{"confidence": c} for c in np.exp(rows.cheap_logprob)] for rows in (train, test))
    router = LearnedRouter(views).fit(
        train.prompt.tolist(), train.cheap_correct, train.strong_correct, features=of_train
    )
    texts = test.prompt.tolist()
    print(row("learned from text and confidence", router.score(texts, of_test), cheap, strong))
    print(row("its head cheap_right alone", -router.cheap_right(texts, of_test), cheap, strong))
    print(row("log-probability, not learned", -test.cheap_logprob.to_numpy(), cheap, strong))


def learned(train: pd.DataFrame, test: pd.DataFrame, views: list[View], embed: Embed | None) -> Scores:
    router = LearnedRouter(views, embed=embed)
    router.fit(train.prompt.tolist(), train.cheap_correct, train.strong_correct)
    return router.score(test.prompt.tolist())


def figures(score: Scores, rows: pd.DataFrame) -> tuple[float, float, float]:
    cheap, strong = rows.cheap_correct.to_numpy(), rows.strong_correct.to_numpy()
    return cpt(score, cheap, strong, 0.5) or 0.0, cpt(score, cheap, strong, 0.8) or 0.0, apgr(score, cheap, strong)


def known_vectors(texts: list[str]) -> Embed:
    """Each text embedded once, however often it is learned from or scored."""
    began = time.perf_counter()
    known = dict(zip(texts, Embedder().embed(texts), strict=True))
    print(f"\nSentence vectors of {len(texts):,} prompts: {time.perf_counter() - began:.0f} s.")
    return lambda asked: np.array([known[text] for text in asked])


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
