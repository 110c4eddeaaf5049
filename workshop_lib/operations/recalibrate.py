"""Whether what people have reviewed since justifies another calibrator and another threshold, and what would change if so.

found = recalibrate(outcomes, reviews.labels(), threshold=0.8, calibrator=calibrator, max_risk=0.1)
print(found)                                              # and change the rule only if found.changed
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.cascade.attempt import Attempt, Outcome
from workshop_lib.cascade.calibration import Calibrator, calibrate, calibrated_held_out
from workshop_lib.cascade.confidence import Source
from workshop_lib.evaluation.curves import ece_interval
from workshop_lib.evaluation.metrics import family_of, joint_agreement
from workshop_lib.evaluation.statistics import Difference, Share, paired_difference, share, weighted_mean
from workshop_lib.evaluation.thresholds import FEW, Choice, choose_threshold

Floats = npt.NDArray[np.float64]
FEWEST_OF_A_KIND = 10
"""Right ones, and wrong ones, that a curve needs; as `calibrate`."""


class TooFewLabels(ConfigurationError):
    """There are not enough reviews to judge a calibrator by."""

    default_advice = "Review more tickets, and keep the rule as it is until then."


@dataclass(frozen=True)
class Side:
    """A calibrator with its threshold, and what it does."""

    calibrator: Calibrator | None
    """None: the confidence as it comes."""
    threshold: float
    ece: Share
    """On the reviewed tickets; of a new calibrator by what the other folds fitted."""
    missed: Share
    """Of the reviewed tickets, those that are kept by the first tier and wrong."""
    sent_up: Share
    """Of all tickets, those below the threshold, or sent up by another rule of the cascade."""
    cost_per_1000_usd: float | None
    """Of all tickets; None: no answer of a second tier tells what going up costs."""


@dataclass(frozen=True)
class Recalibration:
    """Before, after, and whether the one justifies the other."""

    before: Side
    after: Side
    changed: bool
    why: str
    """In a sentence, for people."""
    brier: Difference
    """Brier's score (1950; less is better) before minus after, held out: above zero where the new curve predicts better."""
    choice: Choice
    """How the new threshold was chosen."""
    goes_up: tuple[str, ...]
    """Tickets that the new rule would send up and the old one keeps."""
    stays: tuple[str, ...]
    """Tickets that the new rule would keep and the old one sends up."""
    n: int
    """Reviewed tickets with a first answer."""
    left_out: int
    """Labelled tickets without a usable first answer."""

    def __str__(self) -> str:
        lines = [f"{'Change it' if self.changed else 'No change'}: {self.why}"]
        for name, side in (("before", self.before), ("after", self.after)):
            cost = "" if side.cost_per_1000_usd is None else f", USD {side.cost_per_1000_usd:.4f} per 1,000"
            lines.append(
                f"{name}: below {side.threshold:.3f} goes up; ECE {side.ece.value:.3f} [{side.ece.low:.3f}, {side.ece.high:.3f}], "
                f"kept and wrong {side.missed}, sent up {side.sent_up}{cost}"
            )
        lines.append(f"{len(self.goes_up)} tickets would go up that stay today, {len(self.stays)} the other way.")
        return "\n".join([*lines, *(f"Warning: {line}" for line in self.choice.warnings)])


def recalibrate(
    outcomes: Sequence[Outcome[Any]],
    labels: Mapping[str, Any],
    *,
    threshold: float,
    calibrator: Calibrator | None = None,
    source: Source | None = None,
    max_risk: float | None = None,
    quality: float | None = None,
    strong: Mapping[str, Attempt[Any]] | None = None,
    right: Callable[[Any, Any], bool] = joint_agreement,
    fewest: int = FEW,
    seed: int = 0,
) -> Recalibration:
    """Fit the calibrator again on reviewed tickets, choose the threshold again, and say whether the difference is more than chance.

    Reviews are of tickets that were chosen. A curve from confidence to "right" does not mind tickets chosen by that confidence; it
    does mind others, and an ECE or a risk always belongs to the reviewed tickets. `sent_up` and costs are of all `outcomes` but those
    that a route sent past the first tier: no threshold decides about them.

    It is a change only if the new curve predicts better on tickets that did not fit it (the interval of Brier's score leaves out
    zero), or if the rule in force misses the target (its interval lies beyond it), or, with `max_risk`, if the bound allows a rule
    that sends up fewer.

    Args:
        outcomes: of the cascade, reviewed or not; the first tier's answer is what is calibrated.
        labels: what people decided (`ReviewStore.labels`).
        threshold, calibrator: the rule in force; None: it compares the confidence as it comes.
        source: where the confidence comes from; None: votes, else what the model states.
        max_risk: target: at most this share of all tickets may be kept by the first tier and be wrong.
        quality: target: this share of the strong model's agreement. Needs its answer to every reviewed ticket.
        strong: such answers by ticket id, beside those of the outcomes (a shadow run's, say).
        right: whether a decision agrees with a label.
        fewest: labels below which it refuses.
        seed: of folds and intervals.

    Raises:
        TooFewLabels: fewer than `fewest`, or fewer than 10 right or wrong ones.
        ConfigurationError: strong answers are missing for `quality`.
        ValueError: not exactly one target.
    """
    read = (lambda a: a.confidence) if source is None else source
    routed = {o.item_id for o in outcomes if any(reason.rule == "routed" for reason in o.reasons)}
    first = {o.item_id: o.attempts[0] for o in outcomes if o.attempts and o.item_id not in routed}
    sure = {i: c for i, a in first.items() if a.decision is not None and (c := read(a)) is not None}
    ids = [i for i in first if i in labels and i in sure]
    verdicts = np.array([right(first[i].decision, labels[i]) for i in ids], dtype=bool)
    rarer = int(min(verdicts.sum(), (~verdicts).sum())) if ids else 0
    if len(ids) < fewest or rarer < FEWEST_OF_A_KIND:
        raise TooFewLabels(
            f"{len(ids)} reviewed tickets, {rarer} of the rarer verdict, are too few to judge a calibrator by: it takes {fewest} "
            f"and {FEWEST_OF_A_KIND}."
        )
    if (max_risk is None) == (quality is None):
        raise ValueError("name one target: max_risk or quality")
    above = {o.item_id: o.attempts[-1] for o in outcomes if len(o.attempts) > 1 and o.item_id not in routed}
    above |= dict(strong or {})
    lacking = [i for i in ids if i not in above]
    if quality is not None and lacking:
        raise ConfigurationError(
            f"The strong model has not answered {len(lacking)} of the {len(ids)} reviewed tickets, so `quality` cannot be judged.",
            advice="Name max_risk, which needs the first tier alone; or ask the strong model for them, and give its answers as `strong`.",
        )
    # Where max_risk is the target, what the strong tier says plays no part: right throughout stands for "not kept".
    strong_right = np.array([quality is None or right(above[i].decision, labels[i]) for i in ids], dtype=bool)
    # What another rule sends up (stakes, say) is not the threshold's to keep.
    forced = {o.item_id for o in outcomes if any(reason.rule != "low_confidence" for reason in o.reasons)}
    elsewhere = np.array([i in forced for i in ids], dtype=bool)
    effective = np.where(elsewhere, strong_right if quality is not None else True, verdicts)
    families = [family_of(i, labels[i]) for i in ids]
    raw = np.array([sure[i] for i in ids])

    fitted = calibrate(raw, verdicts.tolist(), families=families)
    held_out = calibrated_held_out(raw, verdicts, families, seed=seed)
    then = raw if calibrator is None else calibrator.of(raw)
    choice = choose_threshold(
        fitted.of(raw), effective.tolist(), strong_right.tolist(), max_risk=max_risk, quality=quality,
        families=families, seed=seed,
    )  # fmt: skip

    everyone = list(sure)
    all_raw = np.array([sure[i] for i in everyone])
    always = np.array([i in forced for i in everyone], dtype=bool)
    up_before = always | ((all_raw if calibrator is None else calibrator.of(all_raw)) < threshold)
    up_after = always | (fitted.of(all_raw) < choice.threshold)
    going = float(np.mean([a.cost_usd for a in above.values()])) if above else None
    paid = float(np.mean([first[i].cost_usd for i in everyone]))

    def side(used: Calibrator | None, at: float, predicted: Floats, up: npt.NDArray[np.bool_]) -> Side:
        kept = ~elsewhere & ((raw if used is None else used.of(raw)) >= at)
        return Side(
            used,
            at,
            ece_interval(predicted, verdicts, families, equal_mass=True, seed=seed),
            share((kept & ~verdicts).tolist(), families, seed=seed),
            share(up.tolist(), [family_of(i, labels.get(i)) for i in everyone], seed=seed),
            None if going is None else 1_000 * (paid + float(up.mean()) * going),
        )

    before, after = side(calibrator, threshold, then, up_before), side(fitted, choice.threshold, held_out, up_after)
    brier = paired_difference((then - verdicts) ** 2, (held_out - verdicts) ** 2, families, seed=seed)
    why = _why(
        before, brier, max_risk=max_risk, quality=quality, seen=(elsewhere | (then < threshold), verdicts, strong_right),
        families=families, seed=seed,
    )  # fmt: skip
    fewer = paired_difference(up_before.tolist(), up_after.tolist(), seed=seed)
    if not why and max_risk is not None and choice.met and fewer.low > 0:
        why = f"a rule that holds the risk within {max_risk:.1%} sends up fewer tickets, by {fewer}."
    return Recalibration(
        before,
        after,
        bool(why),
        why
        or f"what is seen on {len(ids)} reviewed tickets is within chance (Brier's score before minus after: "
        f"{brier.value:+.4f} [{brier.low:+.4f}, {brier.high:+.4f}]).",
        brier,
        choice,
        tuple(i for i, was, now in zip(everyone, up_before, up_after, strict=True) if now and not was),
        tuple(i for i, was, now in zip(everyone, up_before, up_after, strict=True) if was and not now),
        len(ids),
        sum(o.item_id in labels for o in outcomes if o.attempts) - len(ids),
    )


def _why(
    before: Side,
    brier: Difference,
    *,
    max_risk: float | None,
    quality: float | None,
    seen: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
    families: Sequence[str],
    seed: int,
) -> str:
    """What speaks for a change beyond chance; "" if nothing does."""
    if brier.low > 0:
        return (
            "the new curve predicts better on tickets that it was not fitted on: Brier's score falls by "
            f"{brier.value:.4f} [{brier.low:.4f}, {brier.high:.4f}]."
        )
    if max_risk is not None:
        risk = before.missed
        return f"today's rule keeps {risk} of tickets wrong, above {max_risk:.1%}." if risk.low > max_risk else ""
    up, cheap, strong = seen
    assert quality is not None
    short = weighted_mean((np.where(up, strong, cheap) - quality * strong).tolist(), families, seed=seed)
    return (
        f"today's rule falls short of {quality:.1%} of the strong model's agreement, by {-short.value:.1%}."
        if short.high < 0
        else ""
    )
