"""Which routers there are beside the classifier, all from a text to its label: fixed, words, length, nearest, learned, oracle.

keywords("What does the Tarn 13 cost?")                            # "simple"
NearestExample(load_questions("few_shot"))("My laptop is dead.")
agent.answer(question, route=LengthThreshold(20))
agent.answer(question, route="cascade", check=Unlike(0.3))         # the cascade has no label, but a check
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from workshop_lib.embedding import Embedder
from workshop_lib.shop.answers import AgentAttempt, weak
from workshop_lib.shop.questions import LABELS, Complexity, Question

KEYWORDS = (
    "return policy", "warranty", "price", "hours", "open", "shipping", "what is", "how much", "when do", "do you have",
    "can i return", "how long", "hello", "thank", "thanks", "hi",
)  # fmt: skip
"""Words of simple questions, as somebody writes them down in a first version."""


@dataclass(frozen=True)
class Fixed:
    """Always the same label: the two ends that every router is held against."""

    label: Complexity

    @property
    def name(self) -> str:
        """always-cheap or always-strong."""
        return "always-cheap" if self.label == "simple" else "always-strong"

    def __call__(self, text: str) -> str:
        """The label of a message."""
        return self.label


always_cheap, always_strong = Fixed("simple"), Fixed("complex")


@dataclass(frozen=True)
class Keywords:
    """Simple if one of some words stands in the text, else complex."""

    words: tuple[str, ...] = KEYWORDS
    name: str = "keywords"

    def __call__(self, text: str) -> str:
        """The label of a message."""
        found = re.search(r"\b(" + "|".join(map(re.escape, self.words)) + r")\b", text, re.IGNORECASE)
        return "simple" if found else "complex"


keywords = Keywords()


@dataclass(frozen=True)
class LengthThreshold:
    """Complex from so many words on."""

    words: int = 15
    name: str = "length"

    def __call__(self, text: str) -> str:
        """The label of a message."""
        return "complex" if len(text.split()) >= self.words else "simple"

    @classmethod
    def fit(cls, questions: Sequence[Question]) -> LengthThreshold:
        """The threshold that is right most often on these; of equal ones the lowest."""
        lengths = [len(q.text.split()) for q in questions]
        right = {
            n: sum((length >= n) == (q.label == "complex") for length, q in zip(lengths, questions, strict=True))
            for n in range(1, max(lengths) + 2)
        }
        return cls(max(right, key=right.__getitem__))


class NearestExample:
    """The label of the example whose meaning is nearest, by MiniLM's vectors (English: other languages are read badly)."""

    name = "nearest example"

    def __init__(self, examples: Sequence[Question], embedder: Embedder | None = None) -> None:
        """
        Raises:
            ConfigurationError: the embedding packages are missing.
            ValueError: no examples.
        """
        if not examples:
            raise ValueError("the nearest example needs at least one example")
        self._embed = (embedder or Embedder()).embed
        self._labels = [q.label for q in examples]
        self._vectors = self._embed([q.text for q in examples])

    def __call__(self, text: str) -> str:
        """The label of a message."""
        return self._labels[int(np.argmax(self._vectors @ self._embed([text])[0]))]


class Learned:
    """Logistic regression from MiniLM's vectors to the label. C was chosen by cross-validation on the calibration questions.

    From about a hundred labels it is right two times of three on others: meaning tells what a question is about, hardly how much work it
    takes. Labels, not answers, are what it learns from: it needs no run of either model. Once both models have answered many questions, a
    `LearnedRouter` on their answers learns what routing is for; `Scored` puts it beside the others.
    """

    name = "learned"

    def __init__(self, questions: Sequence[Question], embedder: Embedder | None = None) -> None:
        """
        Raises:
            ConfigurationError: the embedding packages are missing.
            ValueError: fewer than five questions of a label.
        """
        from sklearn.linear_model import LogisticRegression

        counts = Counter(q.label for q in questions)
        if min(counts[label] for label in LABELS) < 5:
            raise ValueError(f"learning takes five questions of each label or more; there are {dict(counts)}")
        self._embed = (embedder or Embedder()).embed
        vectors, labels = self._embed([q.text for q in questions]), [q.label for q in questions]
        self._model = LogisticRegression(C=3.0, max_iter=1_000).fit(vectors, labels)

    def __call__(self, text: str) -> str:
        """The label of a message."""
        return str(self._model.predict(self._embed([text]))[0])


@dataclass(frozen=True)
class Scored:
    """Complex from a score on: `Scored(router.score, 0.1)` for a `LearnedRouter` that has learned from both models' answers."""

    score: Callable[[Sequence[str]], Iterable[float]]
    threshold: float
    name: str = "score"

    def __call__(self, text: str) -> str:
        """The label of a message."""
        return "complex" if float(next(iter(self.score([text])))) >= self.threshold else "simple"


class Unlike:
    """A check for the cascade: `weak`, or an answer whose meaning is far from the question's, by MiniLM's vectors.

    It needs no label and no model of the catalogue. It sees that something else was looked up, and not that a figure is wrong.
    """

    def __init__(self, threshold: float = 0.3, embedder: Embedder | None = None) -> None:
        """
        Args:
            threshold: cosine below which an answer should not stand.
            embedder: None: a new one.

        Raises:
            ConfigurationError: the embedding packages are missing.
        """
        self._threshold, self._embed = threshold, (embedder or Embedder()).embed

    def __call__(self, attempt: AgentAttempt) -> str | None:
        """Why the answer should not stand."""
        asked, said = self._embed([attempt.question]), self._embed([attempt.text])
        return weak(attempt) or ("unlike the question" if float(asked[0] @ said[0]) < self._threshold else None)


class Oracle:
    """Knows the labels of its questions: as good as any router by label can be, and none of yours."""

    name = "oracle"

    def __init__(self, questions: Iterable[Question]) -> None:
        self._labels = {q.text: q.label for q in questions}

    def __call__(self, text: str) -> str:
        """The label of a message."""
        return self._labels[text]
