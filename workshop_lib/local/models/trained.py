"""The trained pair: a cheap text classifier and a stronger one, both fitted on the `train` split, in seconds, at first use.

* **cheap**: TF-IDF of single words and logistic regression. Knows the words it has seen, not what they mean.
* **strong**: MiniLM sentence embeddings and logistic regression, averaged with a TF-IDF view of words and word pairs.

They are real models with real errors, but not language models: what a prompt says does not change what they answer.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workshop_lib.local.models.embedding import Embedder
from workshop_lib.local.models.speech import sentences
from workshop_lib.triage.datasets import Label, load_labels, load_tickets
from workshop_lib.triage.task import TRIAGE

RECIPE = "1"
"""Changes when features or fitting change, so that no stale cache is used."""
FIELDS: Mapping[str, Callable[[Label], str]] = {
    "category": lambda label: label.category.value,
    "priority": lambda label: label.priority.value,
    "needs_human": lambda label: str(label.needs_human).lower(),
}
Matrix = Any  # a numpy array or a scipy sparse matrix: both know @


@dataclass(frozen=True)
class Head:
    """A fitted logistic regression for one field."""

    labels: tuple[str, ...]
    weights: npt.NDArray[np.float64]
    """Shape (labels, features)."""
    bias: npt.NDArray[np.float64]

    def probabilities(self, features: Matrix) -> npt.NDArray[np.float64]:
        """Shape (texts, labels)."""
        scores = np.asarray(features @ self.weights.T) + self.bias
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares: npt.NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
        return shares


@dataclass(frozen=True)
class View:
    """One way to look at a text, and a head for each field."""

    features: Callable[[Sequence[str]], Matrix]
    heads: Mapping[str, Head]


class TrainedModel:
    """One or more views whose probabilities are averaged."""

    def __init__(self, views: Sequence[View]) -> None:
        self._views = tuple(views)
        self.labels = {name: head.labels for name, head in views[0].heads.items()}

    def predict(self, text: str) -> dict[str, dict[str, float]]:
        """Field to label to probability."""
        return self.predict_all([text])[0]

    def predict_all(self, texts: Sequence[str]) -> list[dict[str, dict[str, float]]]:
        """`predict` for many texts."""
        seen = [(view, view.features(texts)) for view in self._views]
        mean = {
            name: np.mean([view.heads[name].probabilities(features) for view, features in seen], axis=0)
            for name in self.labels
        }
        return [
            {name: dict(zip(self.labels[name], map(float, mean[name][i]), strict=True)) for name in self.labels}
            for i in range(len(texts))
        ]

    def telling_sentence(self, text: str, category: str) -> str:
        """The sentence that speaks most for a category."""
        view, parts = self._views[-1], sentences(text)
        head = view.heads["category"]
        if category not in head.labels:
            return parts[0]
        return parts[int(head.probabilities(view.features(parts))[:, head.labels.index(category)].argmax())]


def train(embedder: Embedder, data_dir: Path, cache_dir: Path) -> tuple[TrainedModel, TrainedModel]:
    """The cheap and the strong model. The fitted heads are kept in `cache_dir`, under a hash of all that went in.

    Raises:
        ConfigurationError: the tickets cannot be read.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # heavy: only the local endpoint needs it

    labels = load_labels(data_dir=data_dir)
    tickets = load_tickets("train", data_dir=data_dir)
    texts = [read_ticket(TRIAGE.describe(ticket)) for ticket in tickets]
    targets = {name: [of(labels[t.id]) for t in tickets] for name, of in FIELDS.items()}
    words = TfidfVectorizer(sublinear_tf=True, min_df=2).fit(texts)
    pairs = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)).fit(texts)
    features: dict[str, Callable[[Sequence[str]], Matrix]] = {
        "words": words.transform,
        "meaning": lambda some: pooled(embedder, some),
        "pairs": pairs.transform,
    }
    strength = {"words": 5.0, "meaning": 3.0, "pairs": 20.0}
    digest = hashlib.sha256(repr([RECIPE, texts, targets, strength]).encode()).hexdigest()[:16]
    cache = cache_dir / f"heads-{digest}.npz"
    heads = _read(cache, targets)
    if heads is None:
        heads = {
            (view, name): _fit(matrix, target, strength[view])
            for view, of in features.items()
            for matrix in [of(texts)]
            for name, target in targets.items()
        }
        _write(cache, heads)
    view = {v: View(of, {name: heads[v, name] for name in targets}) for v, of in features.items()}
    return TrainedModel([view["words"]]), TrainedModel([view["meaning"], view["pairs"]])


def pooled(embedder: Embedder, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Each text as its own embedding beside the mean, maximum and minimum over its sentences: shape (texts, 4 x 384)."""
    parts = [sentences(text) for text in texts]
    whole = embedder.embed(texts)
    single = embedder.embed([s for group in parts if len(group) > 1 for s in group])
    rows, at = [], 0
    for i, group in enumerate(parts):
        own = whole[i : i + 1]
        if len(group) > 1:
            own, at = single[at : at + len(group)], at + len(group)
        rows.append(np.concatenate([whole[i], own.mean(axis=0), own.max(axis=0), own.min(axis=0)]))
    return np.vstack(rows) if rows else np.zeros((0, 4 * 384), np.float32)


def read_ticket(user_message: str) -> str:
    """What the user message is about: the words between our delimiters, or all of it if another prompt was used."""
    found = re.search(r"<subject>(.*?)</subject>\s*<body>(.*)</body>", user_message, re.S)
    if found:
        return f"{found[1].strip()}\n{found[2].strip()}".strip()
    found = re.search(r"<(item|ticket|document|text)>(.*)</\1>", user_message, re.S)
    return (found[2] if found else user_message).strip()


def _fit(features: Matrix, target: Sequence[str], strength: float) -> Head:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=2_000).fit(features, target)
    weights, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        weights, bias = np.vstack([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return Head(tuple(map(str, model.classes_)), weights, bias)


def _read(cache: Path, targets: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Head] | None:
    try:
        with np.load(cache, allow_pickle=False) as stored:
            names = {tuple(key.split("/")[:2]) for key in stored.files}
            return {
                (view, name): Head(
                    tuple(sorted(set(targets[name]))), stored[f"{view}/{name}/weights"], stored[f"{view}/{name}/bias"]
                )
                for view, name in names
            }
    except (OSError, ValueError, KeyError):
        return None  # not there yet, or cut short: fit again


def _write(cache: Path, heads: Mapping[tuple[str, str], Head]) -> None:
    """All or nothing: several notebooks may train at once."""
    arrays = {}
    for (view, name), head in heads.items():
        arrays[f"{view}/{name}/weights"], arrays[f"{view}/{name}/bias"] = head.weights, head.bias
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache.parent, suffix=".npz", delete=False) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy types its other keyword first
        Path(file.name).replace(cache)
    except OSError:
        return  # a read-only folder only costs the seconds of training, each time
