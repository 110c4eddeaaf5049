"""How far scores and learned routers get on recorded answers of real models: `python benchmarks/router_on_recorded.py FOLDER`.

FOLDER holds mmlu-mixtral-gpt4.csv (RouteLLM's evaluation files) and mmlu-4omini-4o.train.csv, mmlu-4omini-4o.test.csv (of "Rational
Tuning of LLM Cascades", arXiv 2501.09345): one row a question, with cheap_correct and strong_correct. They are not part of this project.

The baselines are not trained. LearnedRouter is trained on rows that are not scored: from the question's text alone, and from the text and
the subject that the row names. Its defaults (the facts counted in a text, pairs of words, how facts are scaled, the grid of penalties) were
chosen on draws of other seeds within random halves of the 14,042 rows, without the rows outside them; so the third digit of "all" is soft.
Sentence vectors of all prompts take most of the time: seven minutes on two cores. `--vectors FILE` keeps them for the next run,
`--without-vectors` leaves that view out: three minutes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from workshop_lib.cascade.calibration import calibrate
from workshop_lib.cascade.router import DEFAULT_VIEWS, Embed, LearnedRouter, View
from workshop_lib.embedding import Embedder
from workshop_lib.evaluation import (
    aiq,
    apgr,
    apgr_interval,
    aurc,
    baselines,
    choose_threshold,
    cost_at_quality,
    cpt,
    curve,
    ece,
    ece_interval,
    reliability,
)
from workshop_lib.evaluation.thresholds import guaranteed

Scores = npt.NDArray[np.float64]
DRAWS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without-vectors", action="store_true", help="the view words alone")
    parser.add_argument("--vectors", type=Path, help="a .npy file to keep the sentence vectors in")
    given = parser.parse_args()
    folder, began = given.folder, time.perf_counter()
    views: list[View] = ["words"] if given.without_vectors else list(DEFAULT_VIEWS)
    large = pd.read_csv(folder / "mmlu-mixtral-gpt4.csv")
    train, test = (pd.read_csv(folder / f"mmlu-4omini-4o.{split}.csv") for split in ("train", "test"))
    before_the_answer(large)
    learned_before_the_answer(large, views, given.vectors)
    for rows, split in ((train, "train"), (test, "test")):
        after_the_answer(rows, split)
    what_confidence_is_worth(train, test)
    learned_on_few(train, test, views)
    guarantee_kept()
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


def learned_before_the_answer(rows: pd.DataFrame, views: list[View], kept: Path | None) -> None:
    """LearnedRouter before any answer, by how many labels it has; each figure is of rows that it was not trained on."""
    vectors = known_vectors(rows.prompt.tolist(), kept) if "meaning" in views else None
    print(f"\nLearnedRouter, views {', '.join(views)}; draws: mean (lowest to highest APGR).\n")
    print("| learned from | labels | CPT50 | CPT80 | APGR |\n|---|---|---|---|---|")
    for name, subject in {"the text": False, "text and subject": True}.items():
        for labels in (300, 1_500):
            found = []
            for seed in range(DRAWS):
                order = np.random.default_rng(seed).permutation(len(rows))
                drawn, left = rows.iloc[order[:labels]], rows.iloc[order[labels:]]
                found.append(figures(learned(drawn, left, views, vectors, subject=subject), left))
            half, most, area = np.mean(found, axis=0)
            low, high = np.min(found, axis=0)[2], np.max(found, axis=0)[2]
            print(
                f"| {name} | {labels:,} | {half:.2%} | {most:.2%} | {area:.3f} ({low:.3f} to {high:.3f}) |", flush=True
            )
        fold_of, score = np.random.default_rng(0).permutation(len(rows)) % 5, np.empty(len(rows))
        for fold in range(5):
            out = fold_of == fold
            score[out] = learned(rows[~out], rows[out], views, vectors, subject=subject)
        cheap, strong = rows.cheap_correct.to_numpy(), rows.strong_correct.to_numpy()
        print(row(f"{name} | four fifths, cross-fitted", score, cheap, strong), flush=True)


def what_confidence_is_worth(train: pd.DataFrame, test: pd.DataFrame) -> None:
    """A calibrator and a threshold chosen on the train rows, and what they come to on the test rows."""
    sure = {name: np.exp(rows.cheap_logprob.to_numpy()) for name, rows in (("train", train), ("test", test))}
    calibrator = calibrate(sure["train"], train.cheap_correct.astype(bool).tolist())
    error = ece_interval(calibrator.of(sure["test"]), test.cheap_correct)
    print(
        f"\nCalibrated on {len(train)} rows ({calibrator.method}): ECE {error.value:.3f} [{error.low:.3f}, {error.high:.3f}]."
    )
    choice = choose_threshold(sure["train"], train.cheap_correct, train.strong_correct, quality=0.99)
    up = sure["test"] < choice.threshold
    kept = np.where(up, test.strong_correct, test.cheap_correct).mean() - test.strong_correct.mean()
    print(f"Chosen on them for 99 %: {choice}")
    print(f"On the test rows: {up.mean():.1%} go up, {100 * kept:+.1f} points against gpt-4o.")


def guarantee_kept() -> None:
    """How often a threshold of guaranteed risk keeps it, over fresh draws of calibration tickets whose true risk is known."""
    print("\n| risk at most | delta | tickets | kept in, of 1,000 draws |\n|---|---|---|---|")
    grid = np.linspace(0, 1, 20_001)
    for limit, delta, n in ((0.05, 0.1, 200), (0.1, 0.05, 300), (0.02, 0.1, 1_000)):
        kept = 0
        for seed in range(1_000):
            chance = np.random.default_rng(seed)
            sure = chance.random(n)
            threshold = guaranteed(sure, (chance.random(n) < 0.5 + sure / 2).astype(float), limit, delta)
            kept += np.where(grid >= threshold, 0.5 - grid / 2, 0.0).mean() <= limit + 1e-4
        print(f"| {limit:.0%} | {delta:.0%} | {n:,} | {kept} |")


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


def learned(
    train: pd.DataFrame, test: pd.DataFrame, views: list[View], embed: Embed | None, *, subject: bool = False
) -> Scores:
    router = LearnedRouter(views, embed=embed)
    of_train, of_test = ([{"subject": s} for s in rows.subject] if subject else None for rows in (train, test))
    router.fit(train.prompt.tolist(), train.cheap_correct, train.strong_correct, features=of_train)
    return router.score(test.prompt.tolist(), of_test)


def figures(score: Scores, rows: pd.DataFrame) -> tuple[float, float, float]:
    cheap, strong = rows.cheap_correct.to_numpy(), rows.strong_correct.to_numpy()
    return cpt(score, cheap, strong, 0.5) or 0.0, cpt(score, cheap, strong, 0.8) or 0.0, apgr(score, cheap, strong)


def known_vectors(texts: list[str], kept: Path | None) -> Embed:
    """Each text embedded once, however often it is learned from or scored."""
    began = time.perf_counter()
    vectors = np.load(kept) if kept is not None and kept.exists() else Embedder().embed(texts)
    if kept is not None and not kept.exists():
        np.save(kept, vectors)
    known = dict(zip(texts, vectors, strict=True))
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
