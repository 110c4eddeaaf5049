"""Labels that nobody was trained on: similarity between the text and what is said about each label."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workshop_lib.local.models.embedding import Embedder
from workshop_lib.local.models.speech import sentences

SHARPNESS = {"cheap": 12.0, "strong": 20.0, "judge": 20.0}
"""How far apart the probabilities of near and far labels are."""


class ZeroShot:
    """Chooses among described labels. The cheap manner reads the first sentence and the bare label names only."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def distribution(self, manner: str, text: str, described: Mapping[str, str]) -> dict[str, float]:
        """Label to probability.

        Args:
            manner: cheap or strong.
            text: what is to be labelled.
            described: label to a text about it, e.g. {"hot": "hot: asks for a price or a date"}.
        """
        if manner == "cheap":
            labels = [label.replace("_", " ") for label in described]
            parts = sentences(text)[:1]
        else:
            labels, parts = list(described.values()), [text, *sentences(text)]
        near = (self._embedder.embed(parts) @ self._embedder.embed(labels).T).max(axis=0)
        odds = np.exp(SHARPNESS[manner] * (near - near.max()))
        return dict(zip(described, map(float, odds / odds.sum()), strict=True))
