"""The small models that answer at the local door."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from workshop_lib.embedding import Embedder
from workshop_lib.local.models import shop
from workshop_lib.local.models.answers import Answerer
from workshop_lib.local.models.trained import read_ticket, train
from workshop_lib.local.models.zero_shot import ZeroShot
from workshop_lib.triage.datasets import Label, load_labels, load_tickets
from workshop_lib.triage.task import TRIAGE


def load_answerer(data_dir: Path, cache_dir: Path) -> Answerer:
    """Train the pair on the `train` split, or read what an earlier training left in `cache_dir`; the key waits for the judge.

    Raises:
        ConfigurationError: data or model files are missing.
    """
    embedder = Embedder(cache_dir)
    cheap, strong = train(embedder, data_dir=data_dir, cache_dir=cache_dir)

    def key() -> Mapping[str, Label]:
        labels = load_labels(data_dir=data_dir)
        return {read_ticket(TRIAGE.describe(ticket)): labels[ticket.id] for ticket in load_tickets(data_dir=data_dir)}

    return Answerer(
        cheap, strong, ZeroShot(embedder), key, lambda: shop.learn(embedder, data_dir=data_dir, cache_dir=cache_dir)
    )


__all__ = ["Answerer", "load_answerer"]
