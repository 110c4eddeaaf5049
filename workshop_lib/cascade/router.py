"""Which tier is to answer, learned from labelled answers of both: from the question's text, or from the cheap answer's facts as well.

router = LearnedRouter().fit(texts, cheap_correct, strong_correct)
router.score(new_texts)                    # P(strong right) - P(cheap right): the higher, the more it should go up
router.decide(new_texts, threshold=0.15)   # goes up at this score, and where the text is unlike all that was learned from
router.save(path); LearnedRouter.load(path)
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.cascade.attempt import Reason
from workshop_lib.cascade.calibration import FEWEST, FEWEST_OF_A_KIND, folds_of
from workshop_lib.cascade.cascade import Route
from workshop_lib.triage.task import TRIAGE, Task

Floats = npt.NDArray[np.float64]
Facts = Mapping[str, str | float]
"""What is known of a text beside its words, by name: a word (a subject, a category) or a number (a confidence, a count)."""
View = Literal["facts", "words", "meaning"]
VIEWS: tuple[View, ...] = ("facts", "words", "meaning")
DEFAULT_VIEWS: tuple[View, ...] = ("words", "meaning")
"""`facts` stand in both of these as well; alone it is for few labels and many features, or where words must not count."""
Embed = Callable[[Sequence[str]], npt.ArrayLike]
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""scikit-learn's C, the inverse of the penalty, to choose from: per view and head, by log loss on left-out folds."""
FOLDS, FEWER_FOLDS, MANY = 4, 2, 2_000
"""To choose C by: the second from so many texts on, where a half tells as much and the search is what takes long."""
NUMBER_SCALE, WORD_SCALE = 0.3, 0.7
"""Facts enter times this, numbers and words of their own: less, and the text is preferred to them; more, and few labels are learned by heart."""
SQUARED = ", squared"
UNFAMILIAR = 0.01
"""The share of training texts, each compared with all others, that the bound of familiarity would call unsure."""
SEEN = 2
"""In so many training texts a word must stand to be learned from."""
FORMAT = 1


@dataclass(frozen=True)
class Choice:
    """Where one text is to be answered."""

    score: float
    """P(strong right) - P(cheap right)."""
    reasons: tuple[Reason, ...] = ()
    """Why it goes up, `score` or `unsure` or both; empty: the cheap tier answers."""

    @property
    def up(self) -> bool:
        """Whether the strong tier is to answer."""
        return bool(self.reasons)


@dataclass(frozen=True)
class Contribution:
    """How far one thing moved a score."""

    view: str
    name: str
    """A word; a fact with its value; or `the text's meaning`, whose numbers have no names of their own."""
    value: float
    """Above 0: towards the strong model."""


@dataclass(frozen=True)
class Explanation:
    """What drove one score: `start`, `contributions` and `rest` sum to it."""

    score: float
    cheap_right: float
    strong_right: float
    start: float
    """The score of a text without words, of average facts."""
    views: Mapping[str, float]
    """How far each view moved the score."""
    contributions: tuple[Contribution, ...]
    """The largest, by size."""
    rest: float
    """The sum of all that are not listed."""
    unsure: str = ""
    """Why the router should not be relied on here; empty: it may be."""

    def __str__(self) -> str:
        lines = [
            f"score {self.score:+.3f}: strong right {self.strong_right:.3f}, cheap right {self.cheap_right:.3f}",
            f"{self.start:+.3f}  to start with",
            *(f"{c.value:+.3f}  {c.name} ({c.view})" for c in self.contributions),
            f"{self.rest:+.3f}  all else",
            "of these, by view: " + ", ".join(f"{name} {value:+.3f}" for name, value in self.views.items()),
        ]
        return "\n".join([*lines, f"unsure: {self.unsure}"] if self.unsure else lines)


class LearnedRouter:
    """Two heads, is the cheap model right and is the strong one, each the mean of one logistic regression per view of the text.

    `facts` is the text's form (its length, figures, signs) and the given features, `words` these and TF-IDF, `meaning` these and a
    sentence vector. On texts alone it decides before the cheap answer. With `answer_features` it decides after it, and
    `cheap_right` is a learned confidence. The same data give the same router.
    """

    def __init__(self, views: Sequence[View] = DEFAULT_VIEWS, *, embed: Embed | None = None) -> None:
        """
        Args:
            views: which of `facts`, `words`, `meaning` to average.
            embed: texts to vectors, one row each, for `meaning`; None: all-MiniLM-L6-v2, where its packages are installed.

        Raises:
            ValueError: no view, or an unknown one.
        """
        if isinstance(views, str) or not views or not set(views) <= set(VIEWS):
            raise ValueError(f"views: give a list of one or more of {', '.join(VIEWS)}, not {views!r}")
        self.views: tuple[View, ...] = tuple(view for view in VIEWS if view in views)
        """Those in use: after `fit` without the embedding packages, all but `meaning`."""
        self._embed, self._own_vectors = embed, embed is not None
        self._fitted: _Fitted | None = None

    def fit(
        self,
        texts: Sequence[str],
        cheap_correct: npt.ArrayLike,
        strong_correct: npt.ArrayLike,
        *,
        features: Sequence[Facts] | None = None,
        families: Sequence[Hashable] | None = None,
    ) -> LearnedRouter:
        """Learn from labelled answers of both models; the penalties are chosen on left-out folds of these labels.

        Args:
            texts: the questions.
            cheap_correct, strong_correct: 1 or 0, whether each model was right.
            features: what else is known of each text. What some texts lack may be missing when scoring too; all else must be there.
            families: scenario of each text, so that no family is on both sides of a fold; None: all independent.

        Raises:
            ValueError: too few labels, or too few right or wrong ones; lengths that differ; what is no text, label or feature.
        """
        texts = _texts(texts)
        if families is not None and len(families) != len(texts):
            raise ValueError(f"{len(texts)} texts and {len(families)} families: give one each a text")
        labels = np.column_stack(
            [_labels(cheap_correct, "cheap", len(texts)), _labels(strong_correct, "strong", len(texts))]
        )
        table = _Table.of(_facts(texts, features), given=features is not None)
        self._fitted = _Fitted(table, _Words.of(texts), {}, len(texts))
        if "meaning" in self.views and self._embed is None:
            try:
                self._embed = _minilm()
            except (ConfigurationError, ImportError) as error:
                if self.views == ("meaning",):
                    raise
                warnings.warn(f"The router learns without sentence vectors: {error}", stacklevel=2)
                self.views = tuple(view for view in self.views if view != "meaning")
        folds = _folds(len(texts), families)
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):  # many small fits: more threads only wait for each other, at six times the CPU
            heads = {view: _Heads.of(x, labels, folds) for view, x in self._inputs(texts, features).items()}
        self._fitted = replace(self._fitted, heads=heads)
        return self

    def score(self, texts: Sequence[str], features: Sequence[Facts] | None = None) -> Floats:
        """P(strong right) - P(cheap right) of each text, shape (n,), within -1..1: the higher, the more it should go up.

        Raises:
            ValueError: it is not fitted; features are missing that it was fitted with, or are given and it was fitted without.
            ConfigurationError: it was fitted with sentence vectors, and the packages for them are missing here.
        """
        cheap, strong = self.both_right(texts, features)
        score: Floats = strong - cheap
        return score

    def cheap_right(self, texts: Sequence[str], features: Sequence[Facts] | None = None) -> Floats:
        """The probability that the cheap model is right, 0..1; arguments and errors as `score`."""
        return self.both_right(texts, features)[0]

    def strong_right(self, texts: Sequence[str], features: Sequence[Facts] | None = None) -> Floats:
        """The probability that the strong model is right, 0..1; arguments and errors as `score`."""
        return self.both_right(texts, features)[1]

    def both_right(self, texts: Sequence[str], features: Sequence[Facts] | None = None) -> tuple[Floats, Floats]:
        """The probabilities that the cheap model is right, and the strong one, from one look at the texts; else as `score`."""
        heads = self._ready().heads
        if not _texts(texts):
            return np.zeros(0), np.zeros(0)
        cheap, strong = np.mean([heads[view].right(x) for view, x in self._inputs(texts, features).items()], axis=0)
        return cheap, strong

    def decide(self, texts: Sequence[str], threshold: float, features: Sequence[Facts] | None = None) -> list[Choice]:
        """Up at a score of `threshold` or more, and wherever the router is unsure: when in doubt, it is the dear model's.

        It is unsure of a text without words, and of one less familiar than 99 % of the training texts are, each seen from the others
        (see `familiarity`). That tells another language, codes or noise; a new subject in the same language it mostly does not.
        Measured: a router of 1,500 MMLU questions is unsure of 0.6 % of other MMLU questions and of 2 % of this project's tickets,
        one of 1,500 tickets of 1 % of MMLU questions. Arguments and errors otherwise as `score`.
        """
        found = []
        for score, doubt in zip(self.score(texts, features).tolist(), self._doubts(texts), strict=True):
            reasons = [Reason("score", f"{score:.3f} >= {threshold:g}")] if score >= threshold else []
            reasons += [Reason("unsure", doubt)] if doubt else []
            found.append(Choice(score, tuple(reasons)))
        return found

    def familiarity(self, texts: Sequence[str]) -> Floats:
        """The share of each text's words that stood in training texts, rare words weighing more (by IDF), 0..1; 0 without words."""
        return self._ready().words.familiarity(_texts(texts))

    @property
    def identity(self) -> str:
        """A hash of all that it has learned: equal for a router that was saved and loaded, in every process.

        Raises:
            ValueError: it is not fitted.
        """
        fitted, seen = self._ready(), hashlib.sha256()
        seen.update(json.dumps([asdict(fitted.table), fitted.words.terms]).encode())
        for view, heads in fitted.heads.items():
            seen.update(view.encode() + heads.weights.tobytes() + heads.start.tobytes())
        return seen.hexdigest()[:12]

    def explain(self, text: str, features: Facts | None = None, top: int = 8) -> Explanation:
        """What drove the score of one text; arguments and errors otherwise as `score`.

        Each probability moves along a logistic curve from an empty text's to this text's; a thing's part of the way is its part of
        the log-odds (integrated gradients along a straight line, M. Sundararajan and others, 2017). So the parts sum to the score.
        """
        fitted = self._ready()
        found, start, right = [], 0.0, np.zeros(2)
        for view, x in self._inputs([text], None if features is None else [features]).items():
            heads = fitted.heads[view]
            parts = heads.weights * (x.toarray() if view == "words" else x)
            way = parts.sum(axis=1)
            begin, end = _sigmoid(heads.start), _sigmoid(heads.start + way)
            slope = np.where(np.abs(way) > 1e-6, (end - begin) / np.where(way == 0, 1.0, way), begin * (1 - begin))
            moved = np.array([-1.0, 1.0]) @ (parts * slope[:, None]) / len(fitted.heads)
            right += end / len(fitted.heads)
            start += float(begin[1] - begin[0]) / len(fitted.heads)
            ours, facts = np.split(moved, [len(moved) - len(fitted.table.columns)])
            if view == "meaning":
                found.append(Contribution(view, "the text's meaning", float(ours.sum())))
            elif view == "words":
                found += [Contribution(view, fitted.words.terms[i], float(ours[i])) for i in np.flatnonzero(ours)]
            named: dict[str, float] = {}
            for name, value in zip(fitted.table.columns, facts.tolist(), strict=True):
                named[name.removesuffix(SQUARED)] = named.get(name.removesuffix(SQUARED), 0.0) + value
            found += [Contribution(view, name, value) for name, value in named.items() if value]
        found.sort(key=lambda c: -abs(c.value))
        cheap, strong = right.tolist()
        return Explanation(
            score=strong - cheap,
            cheap_right=cheap,
            strong_right=strong,
            start=start,
            views={view: sum(c.value for c in found if c.view == view) for view in fitted.heads},
            contributions=tuple(found[:top]),
            rest=sum(c.value for c in found[top:]),
            unsure=self._doubts([text])[0],
        )

    def save(self, path: Path) -> None:
        """Write it to one .npz file: arrays of numbers and a JSON text, no pickled objects.

        Raises:
            ValueError: it is not fitted.
        """
        import sklearn

        fitted = self._ready()
        header = {
            "format": FORMAT,
            "vectors": "your own" if self._own_vectors else "all-MiniLM-L6-v2",
            "written with": {"scikit-learn": sklearn.__version__, "numpy": np.__version__},
            "labels": fitted.labels,
            "table": asdict(fitted.table),
            "terms": fitted.words.terms,
            "stranger": fitted.words.stranger,
            "bound": fitted.words.bound,
            "views": {view: heads.strengths for view, heads in fitted.heads.items()},
        }
        arrays: dict[str, Any] = {
            "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
            "idf": fitted.words.idf,
        }
        for view, heads in fitted.heads.items():
            arrays |= {f"{view}_weights": heads.weights, f"{view}_start": heads.start}
        with Path(path).open("wb") as file:  # a name without .npz stays as it is
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path, *, embed: Embed | None = None) -> LearnedRouter:
        """The opposite of `save`; it scores as before, without learning again.

        Args:
            path: of the file.
            embed: the one that it was fitted with, if that was your own.

        Raises:
            ValueError: it is not what `save` wrote, or is damaged; or its vectors were your own and `embed` is missing.
            OSError: the file cannot be opened.
        """
        try:
            with np.load(Path(path), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            header = json.loads(arrays["header"].tobytes())
            _check_format(header["format"])
            router = cls(tuple(header["views"]), embed=embed)
            words = _Words(tuple(header["terms"]), arrays["idf"], float(header["stranger"]), float(header["bound"]))
            heads = {
                view: _Heads(arrays[f"{view}_weights"], arrays[f"{view}_start"], tuple(strengths))
                for view, strengths in header["views"].items()
            }
            table = header["table"]
            table = _Table(table["given"], tuple(table["columns"]), table["numbers"], tuple(table["always"]))
            router._fitted = _Fitted(table, words, heads, int(header["labels"]))
            router._fitted.check()
            own = header["vectors"] != "all-MiniLM-L6-v2"
        except OSError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is no router that can be read: {error}. Fit it again, and save it.") from None
        if "meaning" in router.views and own != (embed is not None):
            raise ValueError(
                f"{path} was fitted with {header['vectors'] if not own else 'an `embed` of your own'}: load it with the same."
            )
        return router

    def _inputs(self, texts: Sequence[str], features: Sequence[Facts] | None) -> dict[View, Any]:
        """By view: a row a text; the last columns are the facts'."""
        from scipy import sparse

        fitted = self._ready()
        facts = fitted.table.matrix(_facts(texts, features), given=features is not None)
        found: dict[View, Any] = {"facts": facts} if "facts" in self.views else {}
        if "words" in self.views:
            found["words"] = sparse.hstack([fitted.words.tfidf(texts), facts], format="csr")
        if "meaning" in self.views:
            self._embed = self._embed or _minilm()
            vectors = np.asarray(self._embed(texts), dtype=np.float64)
            if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
                raise ValueError(
                    f"embed gave an array of shape {vectors.shape} for {len(texts)} texts: one finite row each"
                )
            found["meaning"] = np.hstack([vectors, facts])
        return found

    def _doubts(self, texts: Sequence[str]) -> list[str]:
        """Why the router is unsure of each text; empty: it is not."""
        words = self._ready().words
        found = []
        for text, known in zip(texts, words.familiarity(texts).tolist(), strict=True):
            strange = f"familiarity {known:.2f} < {words.bound:.2f}" if known < words.bound else ""
            found.append(strange if _split(text) else "no words")
        return found

    def _ready(self) -> _Fitted:
        if self._fitted is None:
            raise ValueError("this router has learned nothing yet: call fit, or load one that has")
        return self._fitted


class route_by:  # noqa: N801  # read like a rule: Cascade(tiers, route=route_by(router, skip_at=0.3))
    """A cascade's route from a router of texts: straight to the last tier where it is sure enough, or to the first one alone."""

    def __init__(
        self,
        router: LearnedRouter,
        tiers: Sequence[str] = ("cheap", "strong"),
        *,
        skip_at: float,
        stop_below: float | None = None,
        task: Task[Any] = TRIAGE,
    ) -> None:
        """
        Args:
            router: fitted on what `task.describe` makes of items, without features.
            tiers: names of the cascade's, all of them in its order.
            skip_at: a score from which the last tier alone is asked; where the router is unsure, no tier is skipped.
            stop_below: a score below which the first tier alone is asked and its answer kept, stakes or not; None: never.
            task: how an item is told as a text.

        Raises:
            ValueError: `stop_below` is above `skip_at`.
        """
        if stop_below is not None and stop_below > skip_at:
            raise ValueError(f"a score of {skip_at:g} cannot both skip the first tier and be below {stop_below:g}")
        self._router, self._tiers, self._task = router, tuple(tiers), task
        self._skip_at, self._stop_below = skip_at, stop_below
        self.identity = f"route_by({router.identity}, {self._tiers}, {skip_at!r}, {stop_below!r})"

    def __call__(self, item: Any) -> Route | None:
        """The route of one item; None: all tiers, by the cascade's rule."""
        text = self._task.describe(item)
        choice = self._router.decide([text], self._skip_at)[0]
        if any(reason.rule == "unsure" for reason in choice.reasons):
            return None
        if choice.score >= self._skip_at:
            return Route(self._tiers[-1:], f"score {choice.score:.2f} >= {self._skip_at:g}")
        if self._stop_below is not None and choice.score < self._stop_below:
            return Route(self._tiers[:1], f"score {choice.score:.2f} < {self._stop_below:g}")
        return None


@dataclass(frozen=True)
class _Fitted:
    table: _Table
    words: _Words
    heads: dict[View, _Heads]
    labels: int

    def check(self) -> None:
        """That the parts fit together, where they come from a file."""
        facts = len(self.table.columns)
        widths = {"facts": facts, "words": len(self.words.terms) + facts, "meaning": None}
        for view, heads in self.heads.items():
            wide = heads.weights.shape[1] if heads.weights.ndim == 2 else -1
            if heads.weights.shape[0] != 2 or heads.start.shape != (2,) or wide != (widths[view] or wide):
                raise ValueError(f"the weights of {view} do not fit its columns")
            if not (np.isfinite(heads.weights).all() and np.isfinite(heads.start).all()):
                raise ValueError(f"a weight of {view} is no finite number")
        if self.words.idf.shape != (len(self.words.terms),) or not np.isfinite(self.words.idf).all():
            raise ValueError("there is not one finite IDF a word")


@dataclass(frozen=True, eq=False)
class _Heads:
    """Two logistic regressions on one view: cheap right, strong right."""

    weights: Floats
    """Shape (2, columns)."""
    start: Floats
    """Intercepts, shape (2,)."""
    strengths: tuple[float, ...]
    """The C that was chosen for each."""

    @classmethod
    def of(cls, x: Any, labels: Floats, folds: npt.NDArray[np.intp]) -> _Heads:
        models = [_best(x, right, folds) for right in labels.T]
        return cls(
            np.vstack([m.coef_[0] for m in models]),
            np.array([m.intercept_[0] for m in models]),
            tuple(float(m.C) for m in models),
        )

    def right(self, x: Any) -> Floats:
        return _sigmoid(np.asarray(x @ self.weights.T) + self.start).T


@dataclass(frozen=True, eq=False)
class _Words:
    """TF-IDF of the words and word pairs that stand in `SEEN` training texts or more."""

    terms: tuple[str, ...]
    idf: Floats
    stranger: float
    """The IDF of a word that stood in no training text."""
    bound: float
    """A text of less familiarity is strange."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> _Words:
        pieces = [set(_pieces(text)) for text in texts]
        bags = [{piece for piece in found if " " not in piece} for found in pieces]
        count: Counter[str] = Counter()
        for found in pieces:
            count.update(found)
        terms = tuple(sorted(piece for piece, n in count.items() if n >= SEEN))
        if not terms:
            raise ValueError(f"no word stands in {SEEN} of these texts: there is nothing to learn from")
        # As scikit-learn: ln((1 + texts) / (1 + texts with the word)) + 1.
        idf = np.log((1 + len(texts)) / (1 + np.array([count[word] for word in terms]))) + 1
        stranger = float(np.log(1 + len(texts)) + 1)
        # A training text seen from the others: its own words stand in one text fewer.
        others = {word: w for word, w in zip(terms, idf.tolist(), strict=True) if count[word] > SEEN}
        shares = [_known(bag, others, stranger) for bag in bags if bag]
        return cls(terms, idf, stranger, float(np.quantile(shares, UNFAMILIAR)))

    def tfidf(self, texts: Sequence[str]) -> Any:
        """Unit rows, sparse, shape (len(texts), len(self.terms))."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(vocabulary=list(self.terms), analyzer=_pieces, sublinear_tf=True)
        vectorizer.idf_ = self.idf
        return vectorizer.transform(texts)

    def familiarity(self, texts: Sequence[str]) -> Floats:
        return np.array([_known(set(_split(text)), self._weights, self.stranger) for text in texts], dtype=np.float64)

    @functools.cached_property
    def _weights(self) -> Mapping[str, float]:
        return dict(zip(self.terms, self.idf.tolist(), strict=True))


@dataclass(frozen=True)
class _Table:
    """From facts to columns: of a number its rank among the training texts, from -1 to 1, and that squared; of a word 0 or 1.

    The square lets a middling length be the hardest; ranks keep one very long text from outweighing all others.
    """

    given: bool
    """Whether there were features beside the text's form."""
    columns: tuple[str, ...]
    numbers: Mapping[str, Sequence[Sequence[float]]]
    """Name to values and their ranks, in rising order; all other names are words'."""
    always: tuple[str, ...]
    """Names that every training row had."""

    @classmethod
    def of(cls, rows: Sequence[Facts], *, given: bool) -> _Table:
        values: dict[str, list[str | float]] = {}
        for row in rows:
            for name, value in row.items():
                values.setdefault(name, []).append(value)
        numbers, columns = {}, []
        always = tuple(name for name, found in values.items() if len(found) == len(rows))
        for name, found in sorted(values.items()):
            words = sorted({value for value in found if isinstance(value, str)})
            if words and not all(isinstance(value, str) for value in found):
                raise ValueError(f"the feature {name!r} is a word for some texts and a number for others: choose one")
            if words:
                columns += [f"{name} = {word}" for word in words]
            else:
                numbers[name] = _ranks(np.array(found, dtype=np.float64))
                columns += [name, name + SQUARED] + ([] if name in always else [f"no {name}"])
        return cls(given, tuple(columns), numbers, always)

    def matrix(self, rows: Sequence[Facts], *, given: bool) -> Floats:
        """Shape (len(rows), len(self.columns)). A word that training did not see has no column."""
        if given != self.given:
            raise ValueError(
                "the router was fitted with features: give them for these texts as well"
                if self.given
                else "the router was fitted on texts alone: leave the features out, or fit it with them"
            )
        place = {column: i for i, column in enumerate(self.columns)}
        found = np.zeros((len(rows), len(self.columns)))
        for i, row in enumerate(rows):
            if lacking := [name for name in self.always if name not in row]:
                raise ValueError(
                    f"text {i} lacks the feature {lacking[0]!r}, which every text had that was learned from"
                )
            for name, value in row.items():
                if isinstance(value, str) is (name in self.numbers):
                    kind = "number" if name in self.numbers else "word"
                    raise ValueError(
                        f"text {i}: the feature {name!r} is {value!r}; when learned from it was a {kind}, or not there"
                    )
                if isinstance(value, str) and f"{name} = {value}" in place:
                    found[i, place[f"{name} = {value}"]] = 1.0
        for name, (values, ranks) in self.numbers.items():
            there = np.array([name in row for row in rows], dtype=bool)
            at = np.interp([float(row[name]) for row in rows if name in row], values, ranks)
            found[there, place[name]], found[there, place[name + SQUARED]] = at, at**2
            if name not in self.always:
                found[~there, place[f"no {name}"]] = 1.0
        found *= np.array([WORD_SCALE if " = " in column else NUMBER_SCALE for column in self.columns])
        return found


def _ranks(values: Floats) -> tuple[list[float], list[float]]:
    """The values at every twentieth of the way through them, and the ranks there, -1..1; equal values share their mean rank."""
    steps = np.linspace(-1, 1, 21)
    quantiles = np.quantile(values, (steps + 1) / 2)
    knots, which = np.unique(quantiles, return_inverse=True)
    return knots.tolist(), (np.bincount(which, steps) / np.bincount(which)).tolist()


def _best(x: Any, right: Floats, folds: npt.NDArray[np.intp]) -> Any:
    """Logistic regression of the strength that predicts left-out folds best, on all rows."""
    from sklearn.linear_model import LogisticRegression

    loss = dict.fromkeys(STRENGTHS, 0.0)
    for fold in np.unique(folds):
        out = folds == fold
        if len(np.unique(right[~out])) < 2:
            continue
        model = LogisticRegression(max_iter=1_000, warm_start=True)  # from the last strength on: it is nearer than zero
        for strength in STRENGTHS:
            odds = model.set_params(C=strength).fit(x[~out], right[~out]).decision_function(x[out])
            loss[strength] += float(np.logaddexp(0, -(2 * right[out] - 1) * odds).sum())
    return LogisticRegression(C=min(STRENGTHS, key=loss.__getitem__), max_iter=1_000).fit(x, right)


def _folds(n: int, families: Sequence[Hashable] | None) -> npt.NDArray[np.intp]:
    """The fold of each text; a family is in one."""
    found = folds_of(range(n) if families is None else families, FOLDS if n < MANY else FEWER_FOLDS)
    if not found.any():
        raise ValueError("all texts are of one family: there is no fold to leave out")
    return found


def _facts(texts: Sequence[str], features: Sequence[Facts] | None) -> list[Facts]:
    """Each text's form, and what was given beside it."""
    forms: list[Facts] = [_form(text) for text in _texts(texts)]
    if features is None:
        return forms
    if len(features) != len(texts):
        raise ValueError(f"{len(texts)} texts and {len(features)} features: give one mapping each a text")
    for i, (form, given) in enumerate(zip(forms, features, strict=True)):
        for name, value in given.items():
            if name in form:
                raise ValueError(f"the feature {name!r} is taken: the router counts it itself; choose another name")
            if not isinstance(value, str) and not np.isfinite(value):
                raise ValueError(f"text {i}: the feature {name!r} is {value}; leave it out where it is not known")
        forms[i] = {**form, **given}
    return forms


@functools.lru_cache(maxsize=8192)  # fit and score look at a text several times
def _form(text: str) -> Facts:
    """What a text looks like: how long it and its parts are, and of what its characters are."""
    words, lines = re.findall(r"\w+", text), text.split("\n")
    size, count, lengths = len(text) + 1, len(words) + 1, [len(word) for word in words]
    kinds = (str.isdigit, str.isupper, str.isalnum, str.isspace)
    digits, capitals, letters, spaces = (
        sum(map(kind, text)) for kind in kinds
    )  # a loop of Python's own takes four times as long
    return {
        "characters": len(text),
        "words": len(words),
        "different words": len(set(words)) / count,
        "long words": sum(length > 8 for length in lengths) / count,
        "short words": sum(length < 4 for length in lengths) / count,
        "characters a word": len(text) / count,
        "lines": len(lines),
        "first line": len(lines[0]),
        "longest line": max(map(len, lines)),
        "sentences": len(re.findall(r"[.!?]\s", text)),
        "numbers": len(re.findall(r"\d+", text)),
        "digits": digits / size,
        "capitals": capitals / size,
        "signs": (len(text) - letters - spaces) / size,
        "commas": text.count(",") / size,
        "brackets": text.count("(") / size,
        "quotes": (text.count('"') + text.count("'")) / size,
        "question marks": text.count("?"),
    }


def _split(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _pieces(text: str) -> list[str]:
    """Words and pairs of neighbours; a pair holds a space, so that no word is taken for one."""
    words = _split(text)
    return words + [f"{a} {b}" for a, b in itertools.pairwise(words)]


def _known(bag: set[str], weights: Mapping[str, float], stranger: float) -> float:
    """The share of a text's words that have a weight, by weight."""
    found = [weights[word] for word in sorted(bag) if word in weights]
    known, strange = sum(found), stranger * (len(bag) - len(found))
    return known / (known + strange) if bag else 0.0


def _texts(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise ValueError("give a list of texts, not one text")
    found = list(texts)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise ValueError(f"text {i} is {type(text).__name__} and no text")
    return found


def _labels(correct: npt.ArrayLike, model: str, n: int) -> Floats:
    right = np.asarray(correct, dtype=np.float64)
    if right.shape != (n,):
        raise ValueError(f"{n} texts and {model}_correct of shape {right.shape}: give one label a text")
    if not np.isin(right, (0, 1)).all():
        raise ValueError(f"{model}_correct: give 1 (right) or 0 (wrong) for each text")
    rarer = int(min(right.sum(), n - right.sum()))
    if n < FEWEST or rarer < FEWEST_OF_A_KIND:
        raise ValueError(
            f"{n} labels of the {model} model, {rarer} of the rarer kind, are too few to learn from: it takes {FEWEST} and "
            f"{FEWEST_OF_A_KIND}. Label more answers, or go by the answer's confidence."
        )
    return right


def _check_format(found: int) -> None:
    if found != FORMAT:
        raise ValueError(f"it is of format {found}, and this version reads {FORMAT}")


def _sigmoid(odds: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-odds))
    return result


@functools.cache
def _minilm() -> Embed:
    from workshop_lib.embedding import Embedder

    return Embedder().embed
