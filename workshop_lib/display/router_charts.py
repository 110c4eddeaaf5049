"""Charts of routing on recorded answers: whether a confidence is true, what it leaves out, and what going up wins and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from workshop_lib.display.canvas import OWN_COLOURS, canvas, enumerated, shortened, title_of
from workshop_lib.display.theme import BLUE, GREEN, GREY, RED, Picture, picture, usd
from workshop_lib.evaluation.curves import (
    apgr,
    aurc,
    cost_at_quality,
    cost_curve,
    cpt,
    curve,
    ece,
    reliability,
    risk_coverage,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCORE_LOOKS: Mapping[str, tuple[str, str]] = {
    "random": (GREY, "--"),
    "oracle": ("black", ":"),
    "length": ("#8C510A", "-."),
    "keywords": ("#CC79A7", (0, (5, 1, 1, 1, 1, 1))),  # type: ignore[dict-item]  # a dash pattern of matplotlib's
    "confidence": (RED, "-"),
    "learned, question": ("#5D3A9B", (0, (6, 2))),  # type: ignore[dict-item]
    "learned, answer": ("#01665E", (0, (3, 1))),  # type: ignore[dict-item]
}
"""Colour and dashes of each score: none is told by its colour alone."""
DASHES = ("-", "--", "-.", ":")
POINTS_DRAWN = 400
PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
"""Behind a label that lines may cross."""
MARKS = (0.95, 0.99, 1.0)
"""Shares of the strong model's quality that the cost chart marks."""
AT_LOT = ("random", "oracle")


def reliability_diagram(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, calibrated: npt.ArrayLike | None = None
) -> Picture:
    """How often answers of each confidence are right, in ten bins with 95% intervals, beside what the confidence says.

    Args:
        confidence: as recorded, 0..1.
        correct: whether each answer was right.
        calibrated: the same answers' fitted probabilities (of a fit that has not seen them), to be drawn beside.

    Raises:
        ValueError: as `workshop_lib.evaluation.curves.reliability`.
    """
    series = {"as recorded": (confidence, RED, "o")}
    if calibrated is not None:
        series["calibrated"] = (calibrated, BLUE, "s")
    bins = {name: reliability(values, correct) for name, (values, _, _) in series.items()}
    errors = {name: ece(values, correct) for name, (values, _, _) in series.items()}
    sure, right = (float(np.asarray(v, dtype=np.float64).mean()) for v in (confidence, correct))
    side = (
        "is about true" if errors["as recorded"] < 0.03 else "claims too much" if sure > right else "claims too little"
    )
    title = f"The confidence {side}: {sure:.0%} on the average, {right:.0%} are right (expected error {errors['as recorded']:.3f})"
    if calibrated is not None:
        title += f"; calibrated {errors['calibrated']:.3f}"
    with canvas(6.4, 5.0) as axes:
        axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1.2)
        axes.text(0.03, 0.085, "true confidence", color=GREY, fontsize=9, rotation=39, rotation_mode="anchor")
        for shift, (name, (_, colour, marker)) in zip((-0.004, 0.004), series.items(), strict=False):
            for b in bins[name]:
                axes.plot([b.confidence + shift] * 2, [b.correct.low, b.correct.high], color=colour, linewidth=1.3)
            axes.plot(
                [b.confidence + shift for b in bins[name]], [b.correct.value for b in bins[name]], marker + "-",
                color=colour, markersize=6, linewidth=1, label=f"{name} (ECE {errors[name]:.3f})",
            )  # fmt: skip
        _shares(axes, "confidence", "right, with 95% intervals")
        axes.legend(frameon=False, loc="upper left", fontsize=9)
        title_of(axes, title)
        rows = [
            {"of": name, "from": f"{b.low:.2f}", "to": f"{b.high:.2f}", "mean confidence": f"{b.confidence:.3f}",
             "right": str(b.correct), "answers": b.correct.n}
            for name, found in bins.items() for b in found
        ]  # fmt: skip
        told = "; ".join(
            f"{name}: " + ", ".join(f"{b.confidence:.2f} is {b.correct.value:.2f}" for b in found)
            for name, found in bins.items()
        )
        return picture(
            axes.get_figure(root=True),  # type: ignore[arg-type]  # it has one
            alt=f"Reliability diagram. {title}. Mean confidence and share right by bin, {told}.",
            caption="Below the dashed line a confidence claims too much, above it too little. Bins of few answers have long strokes.",
            rows=rows,
        )


def risk_coverage_chart(surety: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]) -> Picture:
    """Errors among the answers that are kept, from the surest down; the area below each (AURC) in the legend.

    Args:
        surety: name to (confidence, whether the answer was right); any number that is higher where the answer is surer.

    Raises:
        ValueError: there is none; or as `workshop_lib.evaluation.curves.risk_coverage`.
    """
    if not surety:
        raise ValueError("there is no confidence to draw")
    areas = {name: aurc(*both) for name, both in surety.items()}
    curves = {name: risk_coverage(*both) for name, both in surety.items()}
    ordered = sorted(areas, key=areas.__getitem__)
    half = {name: _at(c.coverage, c.risk, 0.5) for name, c in curves.items()}
    best, whole = ordered[0], float(curves[ordered[0]].risk[-1])
    title = f"Keeping the surer half by {best} leaves {half[best]:.1%} wrong, where keeping all leaves {whole:.1%}"
    with canvas(7.0, 4.4) as axes:
        for i, name in enumerate(ordered):
            colour, dashes = _look(name, i)
            x, y = _thinned(curves[name].coverage, curves[name].risk, first=max(1, len(curves[name].risk) // 100))
            axes.plot(
                x, y, color=colour, linestyle=dashes, linewidth=1.8, label=f"{shortened(name)} (AURC {areas[name]:.3f})"
            )
        axes.axhline(whole, color=GREY, linestyle="--", linewidth=1.1)
        axes.text(0.0, whole, "by lot", color=GREY, fontsize=9, va="bottom")
        _shares(axes, "share of the answers that are kept", "wrong among those")
        axes.set_ylim(
            0, max(0.02, 1.15 * whole, *(1.05 * float(c.risk[len(c.risk) // 20 :].max()) for c in curves.values()))
        )
        axes.legend(frameon=False, fontsize=9, loc="lower right")
        title_of(axes, title)
        steps = (0.1, 0.25, 0.5, 0.75, 1.0)
        rows = [
            {"by": name, "AURC": f"{areas[name]:.4f}"}
            | {f"wrong at {s:.0%} kept": f"{_at(curves[name].coverage, curves[name].risk, s):.1%}" for s in steps}
            for name in ordered
        ]
        told = "; ".join(f"{n}: AURC {areas[n]:.3f}, {half[n]:.1%} wrong at half" for n in ordered)
        return picture(
            axes.get_figure(root=True),  # type: ignore[arg-type]  # it has one
            alt=f"Line chart. {title}. {told}.",
            caption="Lower is better. The few answers at the far left are too few to be drawn.",
            rows=rows,
        )


def gap_chart(
    scores: Mapping[str, npt.ArrayLike], cheap_correct: npt.ArrayLike, strong_correct: npt.ArrayLike
) -> Picture:
    """Quality against the share that goes up, by each score, with sending up by lot, the oracle, and APGR in the legend.

    Args:
        scores: by name: how much each question should go up.
        cheap_correct, strong_correct: as `workshop_lib.evaluation.curves.curve`.

    Raises:
        ValueError: as `workshop_lib.evaluation.curves.apgr`: above all, the strong model is not better.
    """
    cheap, strong = np.asarray(cheap_correct, dtype=np.float64), np.asarray(strong_correct, dtype=np.float64)
    drawn = {name: np.asarray(values) for name, values in scores.items() if name not in AT_LOT}
    drawn |= {"random": np.zeros(len(cheap)), "oracle": strong - cheap}
    areas = {name: apgr(values, cheap, strong) for name, values in drawn.items()}
    half = {name: cpt(values, cheap, strong, 0.5) for name, values in drawn.items()}
    eighty = {name: cpt(values, cheap, strong, 0.8) for name, values in drawn.items()}
    real = sorted((name for name in drawn if name not in AT_LOT), key=lambda name: -areas[name])
    curves = {name: curve(values, cheap, strong) for name, values in drawn.items()}
    title = "By lot, half of the gap takes half of the strong calls"
    if real:
        best = real[0]
        title = (
            f"By {best}, {half[best]:.0%} of the strong calls win half of the gap and {eighty[best]:.0%} win 80% of it "
            f"(APGR {areas[best]:.3f}; by lot 0.5)"
        )
    with canvas(7.2, 4.8) as axes:
        for i, name in enumerate([*real, "random", "oracle"]):
            colour, dashes = _look(name, i)
            axes.plot(
                *_thinned(curves[name].share_up, curves[name].quality), color=colour, linestyle=dashes,
                linewidth=1.2 if name in AT_LOT else 1.9, label=f"{shortened(name)} ({areas[name]:.3f})",
            )  # fmt: skip
        low, high = float(cheap.mean()), float(strong.mean())
        axes.plot([0], [low], "o", color=GREEN, markersize=8, clip_on=False)
        axes.plot([1], [high], "s", color=BLUE, markersize=8, clip_on=False)
        axes.annotate(
            f"cheap {low:.1%}",
            (0, low),
            (10, -4),
            textcoords="offset points",
            va="top",
            color=GREEN,
            fontsize=9,
            bbox=PLATE,
        )
        axes.annotate(
            f"strong {high:.1%}", (1, high), (4, -18), textcoords="offset points", ha="right", va="top", color=BLUE,
            fontsize=9, bbox=PLATE,
        )  # fmt: skip
        _shares(axes, "share that the strong model answers", "quality of all answers")
        bottom, top = (
            min(low, *(float(c.quality.min()) for c in curves.values())),
            float(curves["oracle"].quality.max()),
        )
        axes.set_ylim(bottom - 0.12 * (top - bottom), top + 0.08 * (top - bottom))
        _legend(axes, "score (APGR)")
        title_of(axes, title)
        rows = [
            {"score": name, "APGR": f"{areas[name]:.3f}", "CPT50": f"{half[name]:.1%}", "CPT80": f"{eighty[name]:.1%}"}
            | {
                f"quality at {s:.0%} up": f"{_at(curves[name].share_up, curves[name].quality, s):.1%}"
                for s in (0.1, 0.25, 0.5, 0.75)
            }
            for name in ["oracle", *real, "random"]
        ]
        told = "; ".join(
            f"{n}: APGR {areas[n]:.3f}, CPT50 {half[n]:.0%}, CPT80 {eighty[n]:.0%}" for n in ["oracle", *real, "random"]
        )
        return picture(
            axes.get_figure(root=True),  # type: ignore[arg-type]  # it has one
            alt=f"Line chart. {title}. From the cheap model's {low:.1%} to the strong one's {high:.1%} of {len(cheap)} questions: {told}.",
            caption="CPT50 and CPT80: the smallest share of strong calls that wins 50% or 80% of the gap. Above the strong model's level, "
            "the cheap one is right where the strong one errs.",
            rows=rows,
        )


def quality_cost_chart(  # noqa: PLR0917  # columns of one table
    scores: Mapping[str, npt.ArrayLike],
    cheap_correct: npt.ArrayLike,
    strong_correct: npt.ArrayLike,
    cheap_cost_usd: npt.ArrayLike,
    strong_cost_usd: npt.ArrayLike,
    before: Sequence[str] = (),
) -> Picture:
    """Quality against USD per 1,000 questions, a line of all thresholds a score, both models as points, 95, 99 and 100 % of the strong one marked.

    Args:
        scores: by name: how much each question should go up.
        cheap_correct, strong_correct, cheap_cost_usd, strong_cost_usd: as `workshop_lib.evaluation.curves.cost_at_quality`.
        before: names of the scores that are known before a model is asked, so that a question pays one model only; all others
            pay the cheap model for every question.

    Raises:
        ValueError: no score; or as `cost_at_quality`.
    """
    if not scores:
        raise ValueError("there is no score to draw")
    cheap, strong, less, more = (
        np.asarray(values, dtype=np.float64)
        for values in (cheap_correct, strong_correct, cheap_cost_usd, strong_cost_usd)
    )
    first = {name: name not in before for name in scores}
    drawn = {name: np.zeros(len(cheap)) if name == "random" else np.asarray(v) for name, v in scores.items()}
    lines = {
        name: (
            1_000 * cost_curve(values, less, more, pays_cheap_first=first[name]),
            curve(values, cheap, strong).quality,
        )
        for name, values in drawn.items()
    }
    shares = {
        name: {q: cost_at_quality(values, cheap, strong, less, more, q, pays_cheap_first=first[name]) for q in MARKS}
        for name, values in drawn.items()
    }
    real = sorted((n for n in scores if n not in AT_LOT), key=lambda n: (shares[n][0.99] is None, shares[n][0.99], n))
    title = _cost_finding(real, shares)
    whole = 1_000 * float(more.mean())
    with canvas(7.2, 4.8) as axes:
        for i, name in enumerate([*real, *(n for n in scores if n in AT_LOT)]):
            colour, dashes = _look(name, i)
            axes.plot(*_thinned(*lines[name]), color=colour, linestyle=dashes, linewidth=1.2 if name in AT_LOT else 1.9,
                      label=f"{shortened(name)} ({_percent(shares[name][0.99])})")  # fmt: skip
        low, high = float(cheap.mean()), float(strong.mean())
        for q in MARKS:
            axes.axhline(q * high, color="#BBBBBB", linewidth=0.8, zorder=0)
            axes.annotate(f"{q:.0%}", (1, q * high), (-2, 1), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                          ha="right", va="bottom", fontsize=8, color=GREY)  # fmt: skip
            if real and (found := shares[real[0]][q]) is not None:
                axes.plot(found * whole, q * high, "D", color=_look(real[0], 0)[0], markersize=6)
        for name, x, y, colour, marker, away in (
            ("cheap-only", 1_000 * float(less.mean()), low, GREEN, "o", (9, -8)),
            ("strong-only", whole, high, BLUE, "s", (10, -22)),
        ):
            axes.plot(x, y, marker, color=colour, markersize=8, zorder=5)
            axes.annotate(
                name, (x, y), away, textcoords="offset points", color=colour, fontsize=9,
                ha="right" if marker == "s" else "left", bbox=PLATE, zorder=6,
            )  # fmt: skip
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlim(left=0)
        axes.set_xlabel("USD per 1,000 questions", loc="left")
        axes.set_ylabel("quality of all answers")
        _legend(axes, "score (cost for 99%)")
        title_of(axes, title)
        rows = [
            {"score": n, "asks the cheap model": "always" if first[n] else "or the strong one"}
            | {f"for {q:.0%} of the strong model's quality": _percent(shares[n][q]) for q in MARKS}
            for n in lines
        ]
        told = "; ".join(
            f"{n}: " + ", ".join(f"{_percent(v)} for {q:.0%}" for q, v in shares[n].items()) for n in lines
        )
        return picture(
            axes.get_figure(root=True),  # type: ignore[arg-type]  # it has one
            alt=f"Line chart. {title}. Cheap-only {low:.1%} at {usd(1_000 * float(less.mean()), 4)} per 1,000, strong-only {high:.1%} at "
            f"{usd(whole, 4)}. Cost as a share of strong-only, by quality kept: {told}.",
            caption="Each line runs over all thresholds of a score, chosen on these very questions. Diamonds: the least cost at 95, 99 and "
            "100% of the strong model's quality by the first score of the legend.",
            rows=rows,
        )


def _legend(axes: Axes, title: str) -> None:
    axes.legend(frameon=False, fontsize=9, title=title, title_fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _cost_finding(real: Sequence[str], shares: Mapping[str, Mapping[float, float | None]]) -> str:
    if not real or shares[real[0]][0.99] is None:
        return "No score reaches 99% of the strong model's quality"
    found = shares[real[0]][0.99]
    assert found is not None
    if found >= 1:
        return f"99% of the strong model's quality costs no less than asking it alone ({found:.0%} by {real[0]})"
    whole = shares[real[0]][1.0]
    rest = "" if whole is None or whole >= 1 else f", all of it for {whole:.0%}"
    same = [n for n in real if shares[n][0.99] == found]
    return f"By {enumerated(same)}, 99% of the strong model's quality is had for {found:.0%} of its cost{rest}"


def _look(name: str, i: int) -> tuple[str, str]:
    return SCORE_LOOKS.get(name, (OWN_COLOURS[i % len(OWN_COLOURS)], DASHES[i % len(DASHES)]))


def _shares(axes: Axes, x: str, y: str) -> None:
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlim(-0.01, 1.01)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _thinned(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], first: int = 0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """As many points as can be seen."""
    kept = np.unique(np.linspace(min(first, len(x) - 1), len(x) - 1, POINTS_DRAWN).round().astype(int))
    return x[kept], y[kept]


def _at(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], place: float) -> float:
    return float(np.interp(place, x, y))


def _percent(value: float | None) -> str:
    return "never" if value is None else f"{value:.0%}"
