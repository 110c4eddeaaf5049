"""Recorded pairs with a known truth, for tests of what is said about them."""

import numpy as np

from workshop_lib.evaluation import RecordedPair

HARD, EASY = "prove the theorem of the manifold", "place the capital of the republic"


def made(n=400, *, stronger=True, confident=True, costs=True, seed=0, **changes):
    """Half of the questions are hard; there the cheap model is right on 3 of 10, the strong one on 9 of 10, if it is stronger."""
    chance = np.random.default_rng(seed)
    hard = chance.random(n) < 0.5
    ease = np.where(hard, 0.3, 0.95)
    cheap = (chance.random(n) < ease).astype(float)
    strong = (chance.random(n) < (0.92 if stronger else ease)).astype(float)
    texts = tuple(f"{HARD if h else EASY} number {i:05}" for i, h in enumerate(hard))
    sure = np.clip(0.55 + 0.35 * cheap + 0.12 * chance.normal(size=n), 0, 1)
    given = {
        "name": "pair.csv",
        "texts": texts,
        "cheap": cheap,
        "strong": strong,
        "families": texts,
        "confidence": sure if confident else None,
        "cheap_cost_usd": np.full(n, 0.001) if costs else None,
        "strong_cost_usd": np.full(n, 0.01) if costs else None,
    }
    return RecordedPair(**given | changes)


def as_csv(pair, path):
    """The same as a file."""
    rows = ["text,cheap_correct,strong_correct,confidence,cheap_cost_usd,strong_cost_usd"]
    rows += [
        f"{t},{c:g},{s:g},{u:.4f},{a},{b}"
        for t, c, s, u, a, b in zip(
            pair.texts, pair.cheap, pair.strong, pair.confidence, pair.cheap_cost_usd, pair.strong_cost_usd, strict=True
        )
    ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path
