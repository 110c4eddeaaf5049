"""The small models that answer at the local door."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from workshop_lib.embedding import Embedder, write_vectors
from workshop_lib.local.models import shop
from workshop_lib.local.models.answers import Answerer
from workshop_lib.local.models.trained import read_ticket, train, write_embeddings
from workshop_lib.local.models.zero_shot import ZeroShot
from workshop_lib.shop.facts import load_shop
from workshop_lib.shop.questions import load_questions
from workshop_lib.triage.datasets import Label, load_labels, load_tickets
from workshop_lib.triage.task import TRIAGE

VECTORS = "vectors.npz"


def load_answerer(data_dir: Path, cache_dir: Path) -> Answerer:
    """Train the pair on the `train` split, or read what an earlier training left in `cache_dir`; the key waits for the judge.

    Raises:
        ConfigurationError: data or model files are missing.
    """
    embedder = Embedder(cache_dir, shipped=data_dir / VECTORS)
    cheap, strong = train(embedder, data_dir=data_dir, cache_dir=cache_dir)

    def key() -> Mapping[str, Label]:
        labels = load_labels(data_dir=data_dir)
        return {read_ticket(TRIAGE.describe(ticket)): labels[ticket.id] for ticket in load_tickets(data_dir=data_dir)}

    return Answerer(
        cheap, strong, ZeroShot(embedder), key, lambda: shop.learn(embedder, data_dir=data_dir, cache_dir=cache_dir)
    )


def shipped_texts(data_dir: Path) -> list[str]:
    """What the small models are asked about, learn from and quote, beside the training tickets: the held-out tickets, and the shop.

    Raises:
        ConfigurationError: a data file is missing.
    """
    labels, tickets = load_labels(data_dir=data_dir), load_tickets(data_dir=data_dir)
    held_out = [read_ticket(TRIAGE.describe(ticket)) for ticket in tickets if labels[ticket.id].split != "train"]
    examples = load_questions("train", path=data_dir / "questions.jsonl")
    goods = load_shop(data_dir / "shop.json")
    return list(dict.fromkeys([*held_out, *shop.known_texts(goods, examples), *shop.quotable_texts(goods)]))


def write_shipped(data_dir: Path) -> list[Path]:
    """Make data/embeddings.npz and data/vectors.npz again.

    Raises:
        ConfigurationError: a data file is missing.
    """
    write_vectors(data_dir / VECTORS, shipped_texts(data_dir))
    return [write_embeddings(data_dir), data_dir / VECTORS]


__all__ = ["Answerer", "load_answerer", "shipped_texts", "write_shipped"]
