"""How sure an answer is: what its model states, how far its votes agree, or what was learned from answers like it.

A source is any function from an attempt to a number within 0..1, or None where it has nothing to say:

    confidence_below(0.8, source=votes)
    confidence_below(0.8, source=learned(router))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from workshop_lib.cascade.attempt import Attempt, ballot

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Source = Callable[[Attempt[Any]], float | None]


class Judge(Protocol):
    """Whatever has learned which cheap answers are right: a `LearnedRouter`, or your own."""

    @property
    def identity(self) -> str:
        """What tells it from another one, in every process."""
        ...

    def cheap_right(
        self, texts: Sequence[str], features: Sequence[Mapping[str, str | float]] | None = None
    ) -> npt.NDArray[np.float64]:
        """The probability that the cheap answer to each text is right."""
        ...

    def score(
        self, texts: Sequence[str], features: Sequence[Mapping[str, str | float]] | None = None
    ) -> npt.NDArray[np.float64]:
        """The probability that the strong answer is right less that of the cheap one."""
        ...


def self_reported(attempt: Attempt[Any]) -> float | None:
    """What the model states about itself; None where its task does not ask. Bunched high, and hardly related to being right."""
    stated = getattr(attempt.decision, "confidence", None)
    return None if stated is None else float(stated)


def votes(attempt: Attempt[Any]) -> float | None:
    """The share of the samples that gave this answer; None where it was asked once."""
    return attempt.agreement


def answer_features(attempt: Attempt[Any]) -> dict[str, str | float]:
    """What a learned confidence may go by beside the text: the answer in its closed fields, one by one and as one, and how sure it looks.

    As one (`answer`), because a category can be trusted at one priority and not at another. A vote or a statement that is missing is left out, which a learner can tell from a low one. An unusable answer has the one
    feature `unusable`.
    """
    if attempt.decision is None:
        return {"unusable": 1.0}
    found: dict[str, str | float] = {name: str(value) for name, value in ballot(attempt.decision).items()}
    found["answer"] = ", ".join(map(str, found.values()))
    for name, value in (("votes", votes(attempt)), ("stated", self_reported(attempt))):
        if value is not None:
            found[name] = value
    return found


class learned:  # noqa: N801  # read like the functions beside it
    """A source: the probability that this answer is right, as a router has learned it from the text and from `answer_features`."""

    def __init__(self, router: Judge, *, features: Callable[[Attempt[Any]], dict[str, str | float]] = answer_features):
        """
        Args:
            router: fitted with the same features.
            features: of an attempt.
        """
        self._router, self._features = router, features
        self.identity = f"learned({router.identity})"

    def __call__(self, attempt: Attempt[Any]) -> float | None:
        """
        Raises:
            ValueError: the attempt does not know what it was asked about, as one that no cascade has made.
        """
        if attempt.decision is None:
            return None
        return float(self._router.cheap_right([text_of(attempt)], [self._features(attempt)])[0])


def text_of(attempt: Attempt[Any]) -> str:
    """What the attempt was asked about, as its task tells it.

    Raises:
        ValueError: the attempt has no item, as one that no cascade has made.
    """
    if attempt.item is None:
        raise ValueError(f"the attempt of tier {attempt.tier} has no item, and what was learned reads its text")
    return attempt.task.describe(attempt.item)
