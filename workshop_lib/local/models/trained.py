"""The trained pair: a cheap text classifier and a stronger one, both fitted on the `train` split, at first use.

* **cheap**: TF-IDF of single words and logistic regression. Knows the words it has seen, not what they mean.
* **strong**: kernel ridge regression: how like each training text a ticket is, by meaning (MiniLM), by words and word pairs, and by
  letter groups.

Each has two heads: the category, and priority and needs_human together, because the one constrains the other.
They are real models with real errors, but not language models: what a prompt says does not change what they answer.
Only training needs scikit-learn and scipy: answering does without, because to import them takes longer than all else at the start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmh3
import numpy as np
import numpy.typing as npt

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.embedding import Embedder, Kept, digest
from workshop_lib.local.models.speech import sentences
from workshop_lib.triage.datasets import Label, load_labels, load_tickets
from workshop_lib.triage.schema import Category, Priority
from workshop_lib.triage.task import TRIAGE

RECIPE = "6"
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
HASHED: Mapping[str, tuple[str, tuple[int, int], int]] = {
    "words": ("word", (1, 1), 2**15),
    "phrases": ("word", (1, 2), 2**17),
    "letters": ("char_wb", (3, 5), 2**17),
}
"""TF-IDF views: what is counted, in groups of how many, columns (a power of 2). The cheap model has the first, the strong one the others."""
CHEAP_STRENGTH, CHEAP_STEPS = 5.0, 100
"""Inverse regularisation, and steps."""
RIDGE, NEARNESS, SHARPNESS = 0.2, 2.0, 8.0
"""Of the strong model: regularisation; how fast likeness of meaning fades with distance; from scores to probabilities."""
Arrays = dict[str, npt.NDArray[Any]]
Matrix = Any  # a scipy sparse matrix


@dataclass(frozen=True)
class Row:
    """What was found in one text: the features that are not zero."""

    columns: npt.NDArray[np.int64]
    """Ascending."""
    values: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Regression:
    """A logistic regression."""

    labels: tuple[str, ...]
    weights: npt.NDArray[np.float32]
    """Shape (features, labels)."""
    bias: npt.NDArray[np.float32]

    def probabilities(self, row: Row) -> npt.NDArray[np.floating[Any]]:
        """Shape (labels,)."""
        return _softmax((row.values[:, None] * self.weights[row.columns]).sum(axis=0) + self.bias)


@dataclass(frozen=True)
class View:
    """One way to look at a text, and a head for each field."""

    features: Callable[[str], Row]
    heads: Mapping[str, Regression]


class TrainedModel:
    """A view that answers, and one that chooses what to quote."""

    def __init__(self, view: View, quoting: View, *, name: str = "", kept: Kept | None = None) -> None:
        """
        Args:
            kept: where answers are kept from one process to the next, under the model's `name`; None: nowhere.
        """
        self._view, self._quoting, self._name, self._kept = view, quoting, name, kept

    def predict(self, text: str) -> dict[str, dict[str, float]]:
        """Head to label to probability: `category`, and `urgency` with labels such as "P2+false" (priority and needs_human)."""
        likely: dict[str, dict[str, float]] = self._recalled("probabilities", text, lambda: self._probabilities(text))
        return likely

    def _probabilities(self, text: str) -> dict[str, dict[str, float]]:
        row = self._view.features(text)
        return {
            name: dict(zip(head.labels, map(float, head.probabilities(row)), strict=True))
            for name, head in self._view.heads.items()
        }

    def _recalled(self, what: str, text: str, make: Callable[[], Any]) -> Any:
        if self._kept is None:
            return make()
        key = digest(self._name, what, text)
        with contextlib.suppress(ValueError):  # not kept yet, or damaged
            return json.loads(self._kept.get(key) or "")
        made = make()
        self._kept.add(key, json.dumps(made).encode())
        return made

    def telling_sentence(self, text: str, category: str) -> str:
        """The sentence that speaks most for a category."""
        parts, head = sentences(text), self._quoting.heads["category"]
        if category not in head.labels:
            return parts[0]
        column = head.labels.index(category)

        def most() -> int:
            return int(np.argmax([head.probabilities(self._quoting.features(part))[column] for part in parts]))

        place: int = self._recalled(f"sentence for {category}", text, most)  # and not the sentence: no text is kept
        return parts[place]


def train(embedder: Embedder, *, data_dir: Path, cache_dir: Path) -> tuple[TrainedModel, TrainedModel]:
    """The cheap and the strong model. The fitted heads are kept in `cache_dir`, under a hash of all that went in; the strong one's
    answers as well, since they take it some milliseconds each.

    Raises:
        ConfigurationError: the tickets cannot be read.
    """
    which = identity(data_dir)
    cache = cache_dir / f"pair-{hashlib.sha256(which.encode()).hexdigest()[:16]}.npz"
    stored = read_arrays(cache)
    if stored is None:
        with one_at_a_time(cache):
            stored = read_arrays(cache)
            if stored is None:
                stored = _learn(embedder, data_dir)
                write_arrays(cache, stored)
    hashed = {view: Hashed(view, stored[f"{view}/idf"]) for view in HASHED}
    known = {head: tuple(map(str, stored[f"labels/{head}"])) for head in HEADS}
    likeness = Likeness(embedder, stored["center"], stored["rows"], hashed["phrases"], hashed["letters"])
    part = slice(-HASHED["letters"][2], None)

    def view(name: str, features: Callable[[str], Row], columns: slice = slice(None)) -> View:
        return View(
            features,
            {
                head: Regression(labels, stored[f"{name}/{head}/weights"][columns], stored[f"{name}/{head}/bias"])
                for head, labels in known.items()
            },
        )

    words = view("words", hashed["words"])
    strong = view("strong", likeness)
    quoting = view("strong", hashed["letters"], part)
    return TrainedModel(words, words), TrainedModel(
        strong, quoting, name=f"{which}, strong", kept=Kept(cache_dir / "answers.db")
    )


def identity(data_dir: Path) -> str:
    """Which pair it is: the recipe, and a hash of what it learns from. Answers of another pair are not this one's.

    Raises:
        ConfigurationError: the files cannot be read.
    """
    try:
        key = (data_dir / "labels.jsonl").read_bytes().splitlines()
        texts = (
            (data_dir / "tickets.jsonl").read_bytes().replace(b"\r\n", b"\n")
        )  # a checkout on Windows is no other pair
        learned = texts + b"".join(line for line in key if b'"train"' in line)
    except OSError as error:
        raise ConfigurationError(
            f"The local models have nothing to learn from: {error}.", advice="Restore the data folder."
        ) from error
    return f"recipe {RECIPE} on {hashlib.sha256(learned).hexdigest()[:12]}"


class Likeness:
    """What the strong model sees: nearness in meaning to each training text, then words and word pairs, then letter groups."""

    def __init__(
        self,
        embedder: Embedder,
        center: npt.NDArray[np.float32],
        rows: npt.NDArray[np.float32],
        phrases: Hashed,
        letters: Hashed,
    ) -> None:
        self._embedder, self._center, self._rows = embedder, center, rows
        self._phrases, self._letters = phrases, letters

    def __call__(self, text: str) -> Row:
        """The features of a text: one a training text, then the columns of both TF-IDF views."""
        near = _nearness(_centered(self._embedder.embed([text]), self._center), self._rows)[0]
        phrases, letters = self._phrases(text), self._letters(text)
        after = len(near) + HASHED["phrases"][2]
        columns = np.concatenate([np.arange(len(near)), phrases.columns + len(near), letters.columns + after])
        return Row(columns, np.concatenate([near, phrases.values, letters.values]))


class Hashed:
    """TF-IDF over hashed words or letter groups: no vocabulary to keep, the same column for the same piece on every machine."""

    def __init__(self, view: str, idf: npt.NDArray[np.float32]) -> None:
        self._view, self._idf = view, idf

    def __call__(self, text: str) -> Row:
        """Of unit length, rare pieces weighing more."""
        return self.weighted(counts(self._view, text))

    def weighted(self, counted: Row) -> Row:
        """The same from what `counts` found."""
        values = counted.values * self._idf[counted.columns]
        squares = np.bincount(np.zeros(len(values), np.int64), values**2, minlength=1)  # added up in 64 bits
        values /= np.sqrt(squares)
        return Row(counted.columns, values)


def counts(view: str, text: str) -> Row:
    """How often each piece occurs, damped. The columns are those of scikit-learn's HashingVectorizer."""
    analyzer, ngrams, width = HASHED[view]
    pieces = Counter(word_groups(text, ngrams) if analyzer == "word" else letter_groups(text, ngrams))
    hashed = np.abs(np.array([mmh3.hash(piece) for piece in pieces], np.int64)) % width
    columns, of_piece = np.unique(hashed, return_inverse=True)
    found = np.bincount(of_piece, np.array(list(pieces.values())))
    return Row(columns, 1 + np.log(found.astype(np.float32)))


def word_groups(text: str, sizes: tuple[int, int]) -> list[str]:
    """Groups of neighbouring words, in small letters; a word has two characters or more."""
    words = re.findall(r"\b\w\w+\b", text.lower())
    return [
        " ".join(words[i : i + size]) for size in range(sizes[0], sizes[1] + 1) for i in range(len(words) - size + 1)
    ]


def letter_groups(text: str, sizes: tuple[int, int]) -> list[str]:
    """Groups of neighbouring letters inside each word and the blanks beside it. A word shorter than a size counts once, whole."""
    groups = []
    for word in text.lower().split():
        padded = f" {word} "
        for size in range(sizes[0], sizes[1] + 1):
            groups += [padded[i : i + size] for i in range(max(1, len(padded) - size + 1))]
            if len(padded) <= size:
                break
    return groups


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


def _learn(embedder: Embedder, data_dir: Path) -> Arrays:
    labels, tickets = load_labels(data_dir=data_dir), load_tickets("train", data_dir=data_dir)
    texts = [read_ticket(TRIAGE.describe(ticket)) for ticket in tickets]
    targets = {name: [of(labels[t.id]) for t in tickets] for name, of in HEADS.items()}
    fitted = _fit_all(training_vectors(embedder, texts, data_dir), texts, targets)
    return fitted | {f"labels/{name}": np.array(sorted(set(target))) for name, target in targets.items()}


def _fit_all(vectors: npt.NDArray[np.float32], texts: Sequence[str], targets: Mapping[str, Sequence[str]]) -> Arrays:
    stored: Arrays = {}
    matrices = {}
    for view, (_, _, columns) in HASHED.items():
        counted = [counts(view, text) for text in texts]
        seen = np.bincount(np.concatenate([row.columns for row in counted]), minlength=columns)
        idf = stored[f"{view}/idf"] = (np.log((1 + len(texts)) / (1 + seen)) + 1).astype(np.float32)
        matrices[view] = _stacked([Hashed(view, idf).weighted(row) for row in counted], columns)
    for head, target in targets.items():
        for name, values in zip(("weights", "bias"), _fit(matrices["words"], target), strict=True):
            stored[f"words/{head}/{name}"] = np.asarray(values, np.float32)
    stored["center"] = vectors.mean(axis=0)
    stored["rows"] = _centered(vectors, stored["center"])
    for head, fitted in _fit_ridge(stored["rows"], matrices["phrases"], matrices["letters"], targets).items():
        stored[f"strong/{head}/weights"], stored[f"strong/{head}/bias"] = fitted
    return stored


def _stacked(rows: Sequence[Row], width: int) -> Matrix:
    from scipy.sparse import csr_matrix

    starts = np.cumsum([0, *(len(row.columns) for row in rows)])
    columns = np.concatenate([row.columns for row in rows])
    return csr_matrix((np.concatenate([row.values for row in rows]), columns, starts), shape=(len(rows), width))


def _fit(features: Matrix, target: Sequence[str]) -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression

    with _early_stop():
        model = LogisticRegression(C=CHEAP_STRENGTH, max_iter=CHEAP_STEPS, tol=1e-3).fit(features, target)
    return np.ascontiguousarray(model.coef_.T), model.intercept_


def _fit_ridge(
    rows: npt.NDArray[np.float32], phrases: Matrix, letters: Matrix, targets: Mapping[str, Sequence[str]]
) -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Kernel ridge regression on 0/1 targets, all heads at once; the sum of three kernels of equal weight.

    The two TF-IDF kernels are linear: their part of the solution is kept as weights of the columns.
    """
    from scipy.linalg import cho_factor, cho_solve

    kernel = _nearness(rows, rows)
    for matrix in (phrases, letters):
        _add_products(kernel, matrix)
    kernel /= 3
    kernel[np.diag_indices(len(rows))] += RIDGE
    solver = cho_factor(kernel.T, lower=True, overwrite_a=True, check_finite=False)
    fitted = {}
    for head, target in targets.items():
        wanted = (np.asarray(target)[:, None] == sorted(set(target))).astype(np.float32)
        base = wanted.mean(axis=0)
        duals = cho_solve(solver, wanted - base, check_finite=False) * np.float32(SHARPNESS / 3)
        weights = np.vstack([duals, phrases.T @ duals, letters.T @ duals])
        fitted[head] = weights, base * np.float32(SHARPNESS)
    return fitted


def _add_products(kernel: npt.NDArray[np.float32], matrix: Matrix, block: int = 800) -> None:
    """kernel += matrix @ matrix.T, in the upper triangle alone, which is all that is solved with.

    The few pieces that very many texts have are multiplied densely: that is much faster.
    """
    common = np.asarray((matrix > 0).sum(axis=0)).ravel() > matrix.shape[0] / 10
    dense, rare = matrix[:, common].toarray(), matrix[:, ~common]
    for i in range(0, len(kernel), block):
        kernel[i : i + block, i:] += dense[i : i + block] @ dense[i:].T
        kernel[i : i + block, i:] += (rare[i : i + block] @ rare[i:].T.tocsr()).toarray()


def _centered(vectors: npt.NDArray[np.float32], center: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Unit vectors from the center: what all tickets have in common says nothing."""
    moved: npt.NDArray[np.float32] = vectors - center
    moved /= np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), np.float32(1e-9))
    return moved


def _nearness(some: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    near: npt.NDArray[np.float32] = np.exp(np.float32(NEARNESS) * (some @ others.T - 1))
    return near


@contextlib.contextmanager
def _early_stop() -> Iterator[None]:
    """Stopping before convergence is part of the recipe: it regularises, so scikit-learn's warning of it is kept quiet."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _softmax(scores: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    odds = np.exp(scores - scores.max())
    shares: npt.NDArray[np.floating[Any]] = odds / odds.sum()
    return shares


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\x00".join(texts).encode()).hexdigest()


def read_arrays(cache: Path) -> Arrays | None:
    """What `write_arrays` left; None if there is nothing whole."""
    try:
        with np.load(cache, allow_pickle=False) as found:
            return dict(found)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # not there yet, or cut short: fit again


@contextlib.contextmanager
def one_at_a_time(cache: Path) -> Iterator[None]:
    """Several notebooks may open at once: one of them trains, on all cores, and the others read what it wrote."""
    import filelock

    lock = filelock.FileLock(cache.with_suffix(".lock"))
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:  # a read-only folder: each trains for itself
        yield
        return
    try:
        yield
    finally:
        lock.release()


def write_arrays(cache: Path, stored: Arrays) -> None:
    """Keep arrays under their names: all or nothing."""
    try:
        with tempfile.NamedTemporaryFile(dir=cache.parent, suffix=".npz", delete=False) as file:
            np.savez(file, **stored)  # type: ignore[arg-type]  # numpy types its other keyword first
        Path(file.name).replace(cache)
    except OSError:
        return  # a read-only folder only costs the training, each time
