"""The trained pair: a cheap text classifier and a stronger one, both fitted on the `train` split, at first use.

* **cheap**: TF-IDF of single words and logistic regression. Knows the words it has seen, not what they mean.
* **strong**: MiniLM embeddings and three small neural networks on them, averaged with a TF-IDF view of letter groups.

Each has two heads: the category, and priority and needs_human together, because the one constrains the other.
They are real models with real errors, but not language models: what a prompt says does not change what they answer.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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

RECIPE = "5"
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
EMBEDDINGS = "embeddings.npz"
HASHED: Mapping[str, tuple[str, tuple[int, int], int, float, int]] = {
    "words": ("word", (1, 1), 2**15, 5.0, 100),
    "letters": ("char_wb", (3, 5), 2**17, 20.0, 50),
}
"""TF-IDF views: what is counted, in groups of how many, columns, inverse regularisation, steps."""
NETWORKS = 3
Arrays = dict[str, npt.NDArray[Any]]
Matrix = Any  # a numpy array or a scipy sparse matrix: both know @


@dataclass(frozen=True)
class Regression:
    """A logistic regression."""

    labels: tuple[str, ...]
    weights: npt.NDArray[np.float32]
    """Shape (labels, features)."""
    bias: npt.NDArray[np.float32]

    def probabilities(self, features: Matrix) -> npt.NDArray[np.float64]:
        """Shape (texts, labels)."""
        return _softmax(np.asarray(features @ self.weights.T) + self.bias)


@dataclass(frozen=True)
class Network:
    """Networks with one hidden layer of rectified units, on standardised features; their probabilities are averaged."""

    labels: tuple[str, ...]
    mean: npt.NDArray[np.float32]
    deviation: npt.NDArray[np.float32]
    hidden: npt.NDArray[np.float32]
    hidden_bias: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def probabilities(self, features: Matrix) -> npt.NDArray[np.float64]:
        """Shape (texts, labels)."""
        standard = (features - self.mean) / self.deviation
        each = [
            _softmax(np.maximum(0, standard @ hidden + hidden_bias) @ weights + bias)
            for hidden, hidden_bias, weights, bias in zip(
                self.hidden, self.hidden_bias, self.weights, self.bias, strict=True
            )
        ]
        shares: npt.NDArray[np.float64] = np.mean(each, axis=0)
        return shares


Head = Regression | Network


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
        stored = _fit_all(training_vectors(embedder, texts, data_dir), texts, targets)
        _write(cache, stored)
    features: dict[str, Callable[[Sequence[str]], Matrix]] = {
        **{view: Hashed(*HASHED[view][:2], stored[f"{view}/idf"]) for view in HASHED},
        "meaning": embedder.embed,
    }
    labels_of = {head: tuple(sorted(set(target))) for head, target in targets.items()}
    view = {
        name: View(of, {head: _head(stored, f"{name}/{head}/", known) for head, known in labels_of.items()})
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


def training_vectors(embedder: Embedder, texts: Sequence[str], data_dir: Path) -> npt.NDArray[np.float32]:
    """MiniLM vectors of the training texts: from data/embeddings.npz if it belongs to these texts, else computed (a minute or two)."""
    try:
        with np.load(data_dir / EMBEDDINGS, allow_pickle=False) as stored:
            if str(stored["texts"]) == _digest(texts):
                vectors: npt.NDArray[np.float32] = stored["rows"] * stored["scale"]
                return vectors
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not shipped, or cut short: it can be made again
    return embedder.embed(texts)


def write_embeddings(data_dir: Path) -> Path:
    """Make data/embeddings.npz from the training tickets, rounded to 8 bits a number.

    Raises:
        ConfigurationError: the tickets cannot be read.
    """
    texts = [read_ticket(TRIAGE.describe(ticket)) for ticket in load_tickets("train", data_dir=data_dir)]
    vectors = Embedder().embed(texts)
    scale = np.maximum(np.abs(vectors).max(axis=0) / 127, 1e-9).astype(np.float32)  # two columns are always 0
    rows = np.round(vectors / scale).astype(np.int8)
    path = data_dir / EMBEDDINGS
    np.savez_compressed(path, texts=np.array(_digest(texts)), scale=scale, rows=rows)
    return path


def read_ticket(user_message: str) -> str:
    """What the user message is about: the words between our delimiters, or all of it if another prompt was used."""
    found = re.search(r"<subject>(.*?)</subject>\s*<body>(.*)</body>", user_message, re.S)
    if found:
        return f"{found[1].strip()}\n{found[2].strip()}".strip()
    found = re.search(r"<(item|ticket|document|text)>(.*)</\1>", user_message, re.S)
    return (found[2] if found else user_message).strip()


def _fit_all(vectors: npt.NDArray[np.float32], texts: Sequence[str], targets: Mapping[str, Sequence[str]]) -> Arrays:
    stored: Arrays = {}
    for view, (analyzer, ngrams, columns, strength, steps) in HASHED.items():
        seen = (Hashed(analyzer, ngrams, np.ones(columns, np.float32)).counts(texts) > 0).sum(axis=0)
        idf = stored[f"{view}/idf"] = (np.log((1 + len(texts)) / (1 + np.asarray(seen).ravel())) + 1).astype(np.float32)
        matrix = Hashed(analyzer, ngrams, idf)(texts)
        for head, target in targets.items():
            for name, values in zip(("weights", "bias"), _fit(matrix, target, strength, steps), strict=True):
                stored[f"{view}/{head}/{name}"] = np.asarray(values, np.float32)
    mean, deviation = vectors.mean(axis=0), vectors.std(axis=0) + 1e-6
    for head, target in targets.items():
        for name, values in _fit_network((vectors - mean) / deviation, target).items():
            stored[f"meaning/{head}/{name}"] = np.asarray(values, np.float32)
        stored[f"meaning/{head}/mean"], stored[f"meaning/{head}/deviation"] = mean, deviation
    return stored


def _fit(features: Matrix, target: Sequence[str], strength: float, steps: int) -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression

    with _early_stop():
        model = LogisticRegression(C=strength, max_iter=steps, tol=1e-3).fit(features, target)
    return model.coef_, model.intercept_


def _fit_network(features: Matrix, target: Sequence[str]) -> dict[str, Any]:
    """Several networks that differ by their seed, stacked: averaged, they depend less on chance than one."""
    from sklearn.neural_network import MLPClassifier

    with _early_stop():
        fitted = [
            MLPClassifier((200,), alpha=2.0, batch_size=128, max_iter=15, random_state=seed).fit(features, target)
            for seed in range(NETWORKS)
        ]
    return {
        "hidden": np.stack([model.coefs_[0] for model in fitted]),
        "hidden_bias": np.stack([model.intercepts_[0] for model in fitted]),
        "weights": np.stack([model.coefs_[1] for model in fitted]),
        "bias": np.stack([model.intercepts_[1] for model in fitted]),
    }


@contextmanager
def _early_stop() -> Iterator[None]:
    """Stopping before convergence is part of the recipe: it regularises, so scikit-learn's warning of it is kept quiet."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _head(stored: Arrays, prefix: str, labels: tuple[str, ...]) -> Head:
    own = {key.removeprefix(prefix): values for key, values in stored.items() if key.startswith(prefix)}
    return Network(labels, **own) if "hidden" in own else Regression(labels, **own)


def _softmax(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
    return shares


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\x00".join(texts).encode()).hexdigest()


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
