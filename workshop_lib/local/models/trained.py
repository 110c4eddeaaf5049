"""The trained pair: a cheap text classifier and a stronger one, both fitted on the `train` split, at first use.

* **cheap**: TF-IDF of single words and logistic regression. Knows the words it has seen, not what they mean.
* **strong**: MiniLM sentence embeddings and logistic regression, averaged with a TF-IDF view of letter groups.

Each has two heads: the category, and priority and needs_human together, because the one constrains the other.
They are real models with real errors, but not language models: what a prompt says does not change what they answer.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workshop_lib.local.models.embedding import Embedder
from workshop_lib.local.models.speech import sentences
from workshop_lib.triage.datasets import Label, load_labels, load_tickets
from workshop_lib.triage.schema import Category, Priority
from workshop_lib.triage.task import TRIAGE

RECIPE = "2"
"""Changes when features or fitting change, so that no stale cache is used."""
HEADS: Mapping[str, Callable[[Label], str]] = {
    "category": lambda label: label.category.value,
    "urgency": lambda label: f"{label.priority.value}+{str(label.needs_human).lower()}",
}
LABELS: Mapping[str, tuple[str, ...]] = {
    "category": tuple(c.value for c in Category),
    "priority": tuple(p.value for p in Priority),
    "needs_human": ("true", "false"),
}
"""The fields that the pair has learned, and their values."""
SHORT = 160
"""Characters up to which a text is not looked at sentence by sentence."""
Arrays = dict[str, npt.NDArray[Any]]
Matrix = Any  # a numpy array or a scipy sparse matrix: both know @


@dataclass(frozen=True)
class Head:
    """A fitted logistic regression for one field."""

    labels: tuple[str, ...]
    weights: npt.NDArray[np.float32]
    """Shape (labels, features)."""
    bias: npt.NDArray[np.float32]

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

    def predict(self, text: str) -> dict[str, dict[str, float]]:
        """Head to label to probability: `category`, and `urgency` with labels such as "P2+false" (priority and needs_human)."""
        return self.predict_all([text])[0]

    def predict_all(self, texts: Sequence[str]) -> list[dict[str, dict[str, float]]]:
        """`predict` for many texts."""
        seen = [(view, view.features(texts)) for view in self._views]
        labels = {name: head.labels for name, head in self._views[0].heads.items()}
        mean = {
            name: np.mean([view.heads[name].probabilities(features) for view, features in seen], axis=0)
            for name in labels
        }
        return [
            {name: dict(zip(labels[name], map(float, mean[name][i]), strict=True)) for name in labels}
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
    labels = load_labels(data_dir=data_dir)
    tickets = load_tickets("train", data_dir=data_dir)
    texts = [read_ticket(TRIAGE.describe(ticket)) for ticket in tickets]
    targets = {name: [of(labels[t.id]) for t in tickets] for name, of in HEADS.items()}
    digest = hashlib.sha256(repr([RECIPE, texts, targets]).encode()).hexdigest()[:16]
    cache = cache_dir / f"pair-{digest}.npz"
    stored = _read(cache)
    if stored is None:
        stored = _fit_all(embedder, texts, targets)
        _write(cache, stored)
    features: dict[str, Callable[[Sequence[str]], Matrix]] = {
        "words": Hashed("word", (1, 1), stored["words/idf"]),
        "letters": Hashed("char_wb", (3, 5), stored["letters/idf"]),
        "meaning": lambda some: pooled(embedder, some),
    }
    view = {
        name: View(
            of, {head: Head(tuple(sorted(set(t))), *_weights(stored, name, head)) for head, t in targets.items()}
        )
        for name, of in features.items()
    }
    return TrainedModel([view["words"]]), TrainedModel([view["meaning"], view["letters"]])


class Hashed:
    """TF-IDF over hashed words or letter groups: no vocabulary to keep, the same column for the same piece on every machine."""

    def __init__(self, analyzer: str, ngrams: tuple[int, int], idf: npt.NDArray[np.float32]) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer  # heavy: only the local endpoint needs it

        self._count = HashingVectorizer(
            analyzer=analyzer,
            ngram_range=ngrams,
            n_features=len(idf),
            norm=None,
            alternate_sign=False,
            dtype=np.float32,
        )
        self._idf = idf

    def counts(self, texts: Sequence[str]) -> Matrix:
        """How often each piece occurs, damped: shape (texts, columns)."""
        matrix = self._count.transform(texts)
        matrix.data = 1 + np.log(matrix.data)
        return matrix

    def __call__(self, texts: Sequence[str]) -> Matrix:
        """Unit-length rows, rare pieces weighing more."""
        from sklearn.preprocessing import normalize

        return normalize(self.counts(texts).multiply(self._idf).tocsr())


def pooled(embedder: Embedder, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Each text as its own embedding beside the mean, maximum and minimum over its sentences: shape (texts, 4 x 384)."""
    parts = [sentences(text) if len(text) > SHORT else [text] for text in texts]
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


def _fit_all(embedder: Embedder, texts: Sequence[str], targets: Mapping[str, Sequence[str]]) -> Arrays:
    recipes: dict[
        str, tuple[Callable[[npt.NDArray[np.float32]], Callable[[Sequence[str]], Matrix]], int, float, int]
    ] = {
        "words": (lambda idf: Hashed("word", (1, 1), idf), 2**15, 5.0, 100),
        "letters": (lambda idf: Hashed("char_wb", (3, 5), idf), 2**17, 20.0, 50),
    }
    stored: Arrays = {}
    for view, (make, columns, strength, steps) in recipes.items():
        counter = make(np.ones(columns, np.float32))
        seen = np.asarray((counter.counts(texts) > 0).sum(axis=0)).ravel()  # type: ignore[attr-defined]  # a Hashed
        stored[f"{view}/idf"] = (np.log((1 + len(texts)) / (1 + seen)) + 1).astype(np.float32)
        matrix = make(stored[f"{view}/idf"])(texts)
        for head, target in targets.items():
            _keep(stored, view, head, _fit(matrix, target, strength, steps))
    vectors = pooled(embedder, texts)
    for head, target in targets.items():
        _keep(stored, "meaning", head, _fit(vectors, target, 3.0, 300))
    return stored


def _fit(features: Matrix, target: Sequence[str], strength: float, steps: int) -> tuple[Any, Any]:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is part of the recipe, and regularises
        model = LogisticRegression(C=strength, max_iter=steps, tol=1e-3).fit(features, target)
    return model.coef_, model.intercept_


def _keep(stored: Arrays, view: str, head: str, fitted: tuple[Any, Any]) -> None:
    stored[f"{view}/{head}/weights"], stored[f"{view}/{head}/bias"] = (np.asarray(a, np.float32) for a in fitted)


def _weights(stored: Arrays, view: str, head: str) -> tuple[Any, Any]:
    return stored[f"{view}/{head}/weights"], stored[f"{view}/{head}/bias"]


def _read(cache: Path) -> Arrays | None:
    try:
        with np.load(cache, allow_pickle=False) as found:
            return dict(found)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # not there yet, or cut short: fit again


def _write(cache: Path, stored: Arrays) -> None:
    """All or nothing: several notebooks may train at once."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache.parent, suffix=".npz", delete=False) as file:
            np.savez(file, **stored)  # type: ignore[arg-type]  # numpy types its other keyword first
        Path(file.name).replace(cache)
    except OSError:
        return  # a read-only folder only costs the training, each time
