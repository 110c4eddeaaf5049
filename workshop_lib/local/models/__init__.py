"""The small models that answer at the local door."""

from __future__ import annotations

from pathlib import Path

from workshop_lib.local.models.answers import Answerer
from workshop_lib.local.models.embedding import Embedder
from workshop_lib.local.models.trained import read_ticket, train
from workshop_lib.local.models.zero_shot import ZeroShot
from workshop_lib.triage.datasets import load_labels, load_tickets
from workshop_lib.triage.task import TRIAGE


def load_answerer(data_dir: Path, cache_dir: Path) -> Answerer:
    """Train the pair on the `train` split (embeddings are kept in `cache_dir`) and read the answer key for the judge.

    Raises:
        ConfigurationError: data or model files are missing.
    """
    embedder, labels, tickets = Embedder(), load_labels(data_dir=data_dir), load_tickets(data_dir=data_dir)
    cheap, strong = train(embedder, tickets, labels, data_dir=data_dir, cache_dir=cache_dir)
    key = {read_ticket(TRIAGE.describe(ticket)): labels[ticket.id] for ticket in tickets}
    return Answerer(cheap, strong, ZeroShot(embedder), key)


__all__ = ["Answerer", "load_answerer"]
