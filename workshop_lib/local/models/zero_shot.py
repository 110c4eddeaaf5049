"""Labels that nobody was trained on: similarity between the text and what is said about each label.

Measured on the eight categories of the calibration split, as if nobody had been trained on them: the strong manner chooses the right
one of eight for a little over half of the tickets, the cheap one for a third; always naming the commonest category gets an eighth
(tests/local/test_zero_shot.py holds it to that).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workshop_lib.embedding import Embedder
from workshop_lib.local.models.speech import sentences

SHARPNESS = {"cheap": 12.0, "strong": 20.0, "judge": 20.0}
"""How far apart the probabilities of near and far labels are."""


class ZeroShot:
    """Chooses among described labels. The cheap manner reads the first sentence and the bare names of the labels only."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def distribution(self, manner: str, text: str, described: Mapping[str, str]) -> dict[str, float]:
        """Label to probability.

        Args:
            manner: cheap or strong.
            text: what is to be labelled.
            described: label to a text about it, e.g. {"hot": "hot: asks for a price or a date"}.
        """
        if manner == "cheap":
            labels, parts = [label.replace("_", " ") for label in described], sentences(text)[:1]
        else:
            labels, parts = list(described.values()), [text, *sentences(text)]
        near = self.embedder.embed(parts) @ self.embedder.embed(labels).T
        near = (near[0] + near[1:].max(axis=0)) / 2 if len(near) > 1 else near[0]
        odds = np.exp(SHARPNESS[manner] * (near - near.max()))
        return dict(zip(described, map(float, odds / odds.sum()), strict=True))
