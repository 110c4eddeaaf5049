"""What a confidence is worth as a probability: fitted on labelled answers, by the method that predicts best on tickets it has not seen.

calibrator = calibrate(confidence, correct)
escalate_when = confidence_below(0.8, calibrator)     # 0.8 now means: right on 8 of 10 such tickets
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Method = Literal["platt", "temperature", "isotonic"]
METHODS: tuple[Method, ...] = ("platt", "temperature", "isotonic")
FEWEST, FEWEST_OF_A_KIND = 50, 10
"""Labels below which nothing is fitted: with 50, the share right within a tenth of the scale rests on five tickets."""
FOLDS = 5
EDGE = 1e-4
"""A stated certainty of 0 or 1 is taken for this far from it: its logit is then a number."""


@dataclass(frozen=True)
class Calibrator:
    """From a confidence to the probability of being right; never falls as the confidence rises."""

    method: Method
    parameters: Mapping[str, Any]
    """platt: slope, intercept; temperature: slope; isotonic: knots x and y."""
    n: int
    """Labels it was fitted on."""
    log_loss: Mapping[str, float]
    """By method, on tickets that were left out (nats a ticket); `stated`: the confidence as it came."""

    def __call__(self, confidence: float) -> float:
        """One confidence as a probability."""
        return float(self.of([confidence])[0])

    def of(self, confidence: Sequence[float] | Floats) -> Floats:
        """Many of them.

        Raises:
            ValueError: one is no number within 0..1.
        """
        return _apply(self.method, self.parameters, _confidences(confidence))

    def to_json(self) -> str:
        """Everything as one line, to be kept beside the rule that uses it."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Calibrator:
        """The opposite of `to_json`.

        Raises:
            ValueError: it is not what `to_json` wrote.
        """
        try:
            found = cls(**json.loads(text))
            found.of([0.5])
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"this is no calibrator: {error}") from None
        return found


def calibrate(
    confidence: Sequence[float] | Floats,
    correct: Sequence[bool],
    *,
    method: Method | None = None,
    families: Sequence[Hashable] | None = None,
) -> Calibrator:
    """Fit what a confidence means.

    Args:
        confidence: of each answer, 0..1.
        correct: whether it was right.
        method: platt (J. Platt, 1999: a logistic curve), temperature (C. Guo and others, 2017: its slope alone), isotonic
            (B. Zadrozny & C. Elkan, 2002: any rising steps); None: the one of least log loss on left-out fifths of the tickets.
        families: scenario of each ticket, so that no family is on both sides of a fold; None: all independent.

    Raises:
        ValueError: too few labels, or too few right or wrong ones, to fit anything; lengths that differ; no such method.
    """
    scores, right = _confidences(confidence), np.asarray(correct, dtype=np.float64)
    if len(scores) != len(right) or (families is not None and len(families) != len(right)):
        raise ValueError(f"{len(scores)} confidences and {len(right)} verdicts: give one each a ticket, and one family")
    rarer = int(min(right.sum(), len(right) - right.sum()))
    if len(right) < FEWEST or rarer < FEWEST_OF_A_KIND:
        raise ValueError(
            f"{len(right)} labels, {rarer} of the rarer kind, are too few to calibrate with: it takes {FEWEST} and "
            f"{FEWEST_OF_A_KIND}. Label more tickets, or send everything up that carries stakes."
        )
    if method is not None and method not in METHODS:
        raise ValueError(f"there is no method {method!r}: choose from {', '.join(METHODS)}")
    from threadpoolctl import threadpool_limits

    losses = {"stated": _loss(scores, right)}
    with threadpool_limits(1):  # many small fits: more threads only wait for each other
        losses.update((name, _left_out_loss(name, scores, right, families)) for name in METHODS)
        best = sorted(METHODS, key=lambda name: losses[name])[0]
        chosen = best if method is None else method
        return Calibrator(chosen, _fit(chosen, scores, right), len(right), losses)


def calibrated_held_out(
    confidence: Floats,
    correct: npt.NDArray[np.bool_],
    families: Sequence[Hashable],
    *,
    method: Method | None = None,
    seed: int = 0,
) -> Floats:
    """Each confidence as a probability, by what the other folds of the families fitted; arguments and errors as `calibrate`."""
    folds, fitted = folds_of(families, seed=seed), np.empty(len(correct))
    for fold in np.unique(folds):
        out = folds == fold
        rest = [family for family, left in zip(families, out, strict=True) if not left]
        some = calibrate(confidence[~out], correct[~out].tolist(), method=method, families=rest)
        fitted[out] = some.of(confidence[out])
    return fitted


def folds_of(families: Sequence[Hashable], folds: int = FOLDS, seed: int = 0) -> npt.NDArray[np.intp]:
    """The fold of each ticket, 0..folds - 1 (or fewer, if there are fewer families): whole families, drawn at random."""
    place = {family: i for i, family in enumerate(dict.fromkeys(families))}
    drawn: npt.NDArray[np.intp] = np.random.default_rng(seed).permutation(len(place)) % min(folds, len(place))
    return drawn[[place[family] for family in families]]


def _left_out_loss(method: Method, scores: Floats, right: Floats, families: Sequence[Hashable] | None) -> float:
    folds = folds_of(range(len(right)) if families is None else families)
    predicted = np.empty(len(right))
    for fold in np.unique(folds):
        out = folds == fold
        predicted[out] = _apply(method, _fit(method, scores[~out], right[~out]), scores[out])
    return _loss(predicted, right)


def _fit(method: Method, scores: Floats, right: Floats) -> dict[str, Any]:
    if method == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        # A right and a wrong answer at each end: without them a step of a few tickets would claim certainty.
        x, y = np.r_[scores, scores.min(), scores.max()], np.r_[right, 0.0, 1.0]
        weights = np.r_[np.ones(len(scores)), 1.0, 1.0]
        fitted = IsotonicRegression(out_of_bounds="clip").fit(x, y, sample_weight=weights)
        return {"x": fitted.X_thresholds_.tolist(), "y": np.clip(fitted.y_thresholds_, EDGE, 1 - EDGE).tolist()}
    if len(np.unique(right)) < 2:  # a fold without an error: the curve is flat
        share = (right.sum() + 1) / (len(right) + 2)
        return {"slope": 0.0, "intercept": float(np.log(share / (1 - share)))}
    from scipy.optimize import minimize
    from scipy.special import expit

    z, sign = _logit(scores), 2 * right - 1

    def loss(parameters: Floats) -> tuple[float, Floats]:
        """The mean log loss, and its slope along each parameter."""
        slope, intercept = parameters[0], parameters[1] if method == "platt" else 0.0
        margin = sign * (slope * z + intercept)
        pull = -sign * expit(-margin)
        along = np.array([(pull * z).mean() + 2e-6 * slope, pull.mean()])
        return float(np.logaddexp(0, -margin).mean() + 1e-6 * slope**2), along[: len(parameters)]

    start = np.array([1.0, 0.0] if method == "platt" else [1.0])
    bounds = [(0.0, None), (None, None)][: len(start)]  # a confidence that speaks against itself is none
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return {"slope": float(found[0]), "intercept": float(found[1]) if method == "platt" else 0.0}


def _apply(method: str, parameters: Mapping[str, Any], scores: Floats) -> Floats:
    if method == "isotonic":
        steps: Floats = np.interp(scores, parameters["x"], parameters["y"])
        return steps
    from scipy.special import expit

    result: Floats = expit(parameters["slope"] * _logit(scores) + parameters["intercept"])
    return result


def _logit(scores: Floats) -> Floats:
    inside = np.clip(scores, EDGE, 1 - EDGE)
    result: Floats = np.log(inside / (1 - inside))
    return result


def _loss(probabilities: Floats, right: Floats) -> float:
    p = np.clip(probabilities, EDGE, 1 - EDGE)
    return float(-(right * np.log(p) + (1 - right) * np.log(1 - p)).mean())


def _confidences(values: Sequence[float] | Floats) -> Floats:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not np.all((scores >= 0) & (scores <= 1)):
        raise ValueError("a confidence is a number within 0..1; one of these is not")
    return scores
