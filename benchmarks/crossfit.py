"""How the local pair does on tickets that it has not learned: `python benchmarks/crossfit.py` writes data/recorded/local-train.csv, ten minutes.

The small models are fitted on the `train` split, so their answers to it measure memory. Here five pairs are fitted, each without a
fifth of the scenario families, and each answers the tickets that it was not fitted on. Together that is one honest answer of the cheap
and the strong model to every training ticket: what a router learns from. No calibration, test or workshop ticket is looked at.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from workshop_lib import load_labels, load_tickets
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.embedding import Embedder
from workshop_lib.local.models.trained import HEADS, TrainedModel, read_ticket, train, training_vectors
from workshop_lib.triage.task import TRIAGE

FOLDS = 5
OUT = PROJECT / "data" / "recorded" / "local-train.csv"
COLUMNS = ("ticket_id", "category", "priority", "needs_human", "cheap_correct", "strong_correct")
"""The cheap answer in three fields; whether each model had all three right."""


class KnownVectors:
    """An embedder of the training texts alone, which were embedded before."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._vectors = dict(zip(texts, training_vectors(Embedder(), texts, PROJECT / "data"), strict=True))

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Shape (len(texts), 384)."""
        return np.vstack([self._vectors[text] for text in texts])


def main() -> None:
    tickets, labels = load_tickets("train"), load_labels()
    texts = {t.id: read_ticket(TRIAGE.describe(t)) for t in tickets}
    vectors = KnownVectors(list(texts.values()))
    families = sorted({labels[t.id].family for t in tickets})
    fold_of = dict(zip(families, np.random.default_rng(7).permutation(len(families)) % FOLDS, strict=True))
    lines = {
        name: (PROJECT / "data" / name).read_text(encoding="utf-8").splitlines(True)
        for name in ("tickets.jsonl", "labels.jsonl")
    }
    rows: dict[str, tuple[object, ...]] = {}
    for fold in range(FOLDS):
        left_out = {t.id for t in tickets if fold_of[labels[t.id].family] == fold}
        with tempfile.TemporaryDirectory() as folder:
            for name, content in lines.items():
                kept = [line for line in content if json.loads(line)["id"] not in left_out]
                Path(folder, name).write_text("".join(kept), encoding="utf-8")
            pair = train(vectors, data_dir=Path(folder), cache_dir=Path(folder))  # type: ignore[arg-type]  # embeds as an Embedder does
        for ticket_id in left_out:
            said = [_said(model, texts[ticket_id]) for model in pair]
            key = {head: of(labels[ticket_id]) for head, of in HEADS.items()}
            priority, human = said[0]["urgency"].split("+")
            rows[ticket_id] = (said[0]["category"], priority, human, *(int(answer == key) for answer in said))
        print(f"fold {fold + 1} of {FOLDS}: {len(left_out)} tickets", flush=True)
    with OUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((t.id, *rows[t.id]) for t in tickets)
    right = np.array([row[-2:] for row in rows.values()], dtype=float)
    print(f"{OUT.name}: cheap {right[:, 0].mean():.1%}, strong {right[:, 1].mean():.1%} right in all three fields")


def _said(model: TrainedModel, text: str) -> dict[str, str]:
    return {head: max(likely, key=likely.__getitem__) for head, likely in model.predict(text).items()}


if __name__ == "__main__":
    main()
