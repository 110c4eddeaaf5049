"""What a recorded pair of models says about routing: whether it is worth it, by which score, below which threshold, and how sure that is.

report = routing_report(load_pair(Path("pair.csv")))
print(report.verdict)
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.cascade.calibration import EDGE, Calibrator, calibrate, calibrated_held_out, folds_of
from workshop_lib.evaluation.curves import (
    CURVE_RESAMPLES,
    aiq,
    apgr,
    apgr_difference,
    apgr_interval,
    aurc,
    baselines,
    cost_at_quality,
    cost_curve,
    cpt,
    curve,
    ece_interval,
)
from workshop_lib.evaluation.recorded_pair import RecordedPair
from workshop_lib.evaluation.statistics import (
    Difference,
    Share,
    clustered_share,
    paired_difference,
    required_tickets,
    share,
)
from workshop_lib.evaluation.thresholds import Choice, choose_threshold

if TYPE_CHECKING:
    from workshop_lib.cascade.router import Embed, Facts, View

Floats = npt.NDArray[np.float64]
FORM = "routing-1"
EMBEDDED_AT_ONCE = 500
LITTLE = 0.15
"""Share saved of the strong calls or of their cost up to which it is hardly worth the trouble."""
UNSTEADY = 0.1
"""Share sent up by which a threshold and those chosen on parts of the questions may part without a warning."""
GRADED = "it takes right or wrong (0 or 1); these verdicts are qualities in between."
QUALITIES = (0.95, 0.99, 1.0)
"""Shares of the strong model's quality that the table prices."""
DEFAULT_TARGETS: tuple[Mapping[str, float], ...] = ({"quality": 0.95}, {"quality": 0.99})
CONFIDENCE, QUESTION, ANSWER = "confidence", "learned, question", "learned, answer"
UNLEARNED = ("length", "keywords", CONFIDENCE)
DESCRIPTIONS: Mapping[str, str] = {
    "random": "goes up by lot: what any score has to beat",
    "length": "longer texts go up",
    "keywords": "texts with more numbers, question marks and formulas go up",
    CONFIDENCE: "less sure answers of the cheap model go up",
    QUESTION: "learned from the text; known before a model is asked",
    ANSWER: "learned from the text and the cheap answer's confidence",
    "oracle": "knows who is right: what no score can beat",
}


@dataclass(frozen=True, eq=False)
class RoutingScore:
    """One score: what goes up first, and what that buys."""

    name: str
    values: Floats
    """Of each text; the higher, the sooner it goes up. Learned ones are cross-fitted: no text was scored by what learned from it."""
    pays_cheap_first: bool
    """Whether it is known only after the cheap model has answered."""
    apgr: Share | None
    """None: there is no gap to recover. Without an interval (low = high) for random and oracle."""
    cpt50: float | None
    cpt80: float | None
    calls: Mapping[float, float | None]
    """Share of strong calls by share of the strong model's quality; None: never reached."""
    costs: Mapping[float, float | None] | None
    """Likewise, what it costs as a share of strong-only; None: no costs were given."""
    aiq: float | None
    """Mean quality over the costs from cheap-only to strong-only."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Whether the confidence is true, and what it is once fitted."""

    raw: Share
    """ECE as recorded."""
    fitted: Share
    """ECE of `probability`."""
    calibrator: Calibrator
    """Fitted on everything, to be used."""
    probability: Floats
    """Cross-fitted: each fifth of the families by what the other four fitted."""


@dataclass(frozen=True)
class Setting:
    """A target with the threshold that meets it."""

    target: Mapping[str, float]
    rule: str
    """What goes up, in words."""
    threshold: float
    """In the score's own numbers: goes up above it (of a confidence: below it)."""
    here: float
    """Share of these very questions that it sends up."""
    choice: Choice
    """Its `threshold` is in 0..1 and falls as the score rises."""


@dataclass(frozen=True, eq=False)
class RoutingReport:
    """All that is found. `verdict` says it in a sentence or two."""

    pair: RecordedPair
    cheap: Share
    strong: Share
    oracle: Share
    """Where the better of both answers is always taken."""
    ahead: Difference
    """Strong minus cheap."""
    scores: Mapping[str, RoutingScore]
    best: str | None
    """The score to use; None: there is no gap, so no best one."""
    edge: Share | None
    """Its APGR less that of the runner-up which learns nothing (or which it gave way to)."""
    calibration: Calibration | None
    aurc: Mapping[str, float]
    """By what says that the cheap answer is right: mean risk over all coverages."""
    surety: Mapping[str, Floats]
    """The same, as numbers of each text: the chance that the cheap answer is right, or a confidence."""
    settings: Sequence[Setting]
    missing: Mapping[str, str]
    """What could not be worked out, and why."""
    seed: int

    @property
    def stronger(self) -> bool:
        """Whether the strong model is shown to be stronger."""
        return self.ahead.low > 0

    @property
    def verdict(self) -> str:
        """Is it worth it, and how sure is that."""
        return _verdict(self)

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What to do now."""
        return tuple(_next_steps(self))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before believing the table."""
        said = [*self.pair.notes, *(f"{what}: {why}" for what, why in self.missing.items())]
        chosen = dict.fromkeys(line for s in self.settings for line in s.choice.warnings if "not shown" not in line)
        unsteady = [
            f"The threshold to {s.choice.target} is unsteady: it sends up {s.here:.0%} of all these questions, those chosen on parts of "
            f"them {s.choice.sent_up.value:.0%}."
            for s in self.settings
            if abs(s.here - s.choice.sent_up.value) > UNSTEADY
        ]
        return (*said, *unsteady, *chosen)

    def table(self) -> list[dict[str, str]]:
        """A row a score, as words: what it wins."""
        return [
            {"score": s.name, "APGR": _apgr_said(s), "CPT50": _percent(s.cpt50), "CPT80": _percent(s.cpt80)}
            | {f"calls for {q:.0%}": _percent(found) for q, found in s.calls.items()}
            for s in self.scores.values()
        ]

    def cost_table(self) -> list[dict[str, str]]:
        """A row a score, as words: what it costs, as a share of strong-only; none without costs."""
        return [
            {"score": s.name, "pays": "cheap, and strong if up" if s.pays_cheap_first else "one of both"}
            | {f"cost for {q:.0%}": _percent(found) for q, found in s.costs.items()}
            | {"AIQ": "-" if s.aiq is None else f"{s.aiq:.3f}"}
            for s in self.scores.values()
            if s.costs is not None
        ]

    def settings_table(self) -> list[dict[str, str]]:
        """A row a target, as words; all figures held out."""
        rows = []
        for s in self.settings:
            c = s.choice
            row = {
                "target": c.target + ("" if c.met else " (NOT met)"), "send up": s.rule, "quality": str(c.agreement),
                "against strong": str(c.against_strong), "went up": str(c.sent_up),
            }  # fmt: skip
            if c.cost_per_1000_usd is not None and c.cost_share is not None:
                row |= {"USD per 1,000": f"{c.cost_per_1000_usd:.4g}", "of strong-only": f"{c.cost_share:.0%}"}
            rows.append(row)
        return rows

    def facts(self) -> list[str]:
        """The pair, its calibration and its risk, a sentence each."""
        families = len(set(self.pair.families))
        of = f" of {families} families" if families < self.pair.n else ""
        said = [
            f"{self.pair.n} questions{of}. Cheap model {self.cheap}, strong model {self.strong}, the better of both {self.oracle}; "
            f"strong minus cheap {self.ahead}."
        ]
        c = self.calibration
        if c is not None:
            said.append(
                f"Calibration: expected error of the confidence {c.raw} as recorded, {c.fitted} after {c.calibrator.method} on left-out "
                f"questions ({len(c.probability)})."
            )
        if self.aurc:
            told = ", ".join(f"{name} {value:.3f}" for name, value in self.aurc.items())
            said.append(
                f"Risk-coverage: mean error over all coverages (AURC) {told}; answering everything {1 - self.cheap.value:.3f}."
            )
        return said

    def to_markdown(self) -> str:
        """Verdict, tables, next steps and warnings, to be published."""
        parts = [f"# {self.pair.name}: is routing worth it?", self.verdict, _bullets(self.facts())]
        parts += ["## Scores", _markdown(self.table())] if self.scores else []
        parts += ["## Costs", _markdown(self.cost_table())] if self.cost_table() else []
        parts += ["## Thresholds", _markdown(self.settings_table())] if self.settings else []
        parts += ["## What to do next", _bullets(self.next_steps)]
        parts += ["## Before you believe it", _bullets(self.warnings)] if self.warnings else []
        return "\n\n".join(parts) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Everything but the texts and the scores of each, as one object without NaN."""
        c = self.calibration
        return {
            "form": FORM,
            "name": self.pair.name,
            "n": self.pair.n,
            "families": len(set(self.pair.families)),
            "seed": self.seed,
            "verdict": self.verdict,
            "next_steps": list(self.next_steps),
            "cheap": asdict(self.cheap),
            "strong": asdict(self.strong),
            "oracle": asdict(self.oracle),
            "strong_minus_cheap": asdict(self.ahead),
            "stronger": self.stronger,
            "scores": {
                s.name: {
                    "pays_cheap_first": s.pays_cheap_first,
                    "apgr": None if s.apgr is None else asdict(s.apgr),
                    "cpt50": s.cpt50,
                    "cpt80": s.cpt80,
                    "strong_calls_at_quality": _by_text(s.calls),
                    "cost_at_quality": None if s.costs is None else _by_text(s.costs),
                    "aiq": s.aiq,
                }
                for s in self.scores.values()
            },
            "best": self.best,
            "edge": None if self.edge is None else asdict(self.edge),
            "calibration": None
            if c is None
            else {
                "ece": asdict(c.raw),
                "ece_fitted": asdict(c.fitted),
                "calibrator": json.loads(c.calibrator.to_json()),
            },
            "aurc": dict(self.aurc),
            "thresholds": [
                {
                    "target": dict(s.target),
                    "rule": s.rule,
                    "threshold": s.threshold,
                    "sent_up_here": s.here,
                    "held_out": asdict(s.choice),
                }
                for s in self.settings
            ],
            "missing": dict(self.missing),
            "warnings": list(self.warnings),
        }


def routing_report(
    pair: RecordedPair,
    *,
    targets: Sequence[Mapping[str, float]] = DEFAULT_TARGETS,
    views: Sequence[View] = ("words", "meaning"),
    seed: int = 0,
    on_step: Callable[[str], None] = lambda said: None,
) -> RoutingReport:
    """Work out what a recorded pair says.

    Args:
        pair: of `load_pair`.
        targets: keywords of `choose_threshold`, one target each: {"quality": 0.99}, {"wrong_usd": 5, "review_usd": 1}.
        views: what learned scores see of a text, as `LearnedRouter`; `meaning` embeds it, in about 10 ms; none: nothing is learned.
        seed: of folds and intervals.
        on_step: told what comes next.

    Raises:
        ValueError: a target that `choose_threshold` refuses, or of which the costs are missing.
    """
    families, missing = pair.families, dict[str, str]()
    ahead = paired_difference(pair.strong.tolist(), pair.cheap.tolist(), families, seed=seed)
    scores: dict[str, RoutingScore] = {}
    surety: dict[str, Floats] = {} if pair.confidence is None else {CONFIDENCE: pair.confidence}
    best, edge = None, None
    if ahead.low > 0:
        plain = baselines(pair.texts, pair.cheap, pair.strong, seed=seed)
        plain["random"] = np.zeros(pair.n)  # of equal scores each figure is the expectation over all orders
        if pair.confidence is not None:
            plain[CONFIDENCE] = -pair.confidence
        on_step("scoring")
        learned = _learned(pair, views, seed, missing, on_step) if views else {}
        surety |= {name: right for name, (_, right) in learned.items()}
        values = plain | {name: score for name, (score, _) in learned.items()}
        for name in (n for n in DESCRIPTIONS if n in values):
            on_step(f"measuring: {name}")
            scores[name] = _score(name, values[name], pair, seed)
        on_step("comparing the best scores")
        best, edge = _best(scores, pair, seed)
    else:
        missing["scores"] = (
            "the strong model is not shown to be stronger, so there is no gap of which a score could win a share."
        )
    on_step("calibrating")
    calibration = _calibration(pair, seed, missing)
    if pair.graded:
        missing["risk-coverage"] = GRADED
        surety = {}
    on_step("choosing thresholds")
    return RoutingReport(
        pair=pair,
        cheap=_mean(pair.cheap, pair, seed),
        strong=_mean(pair.strong, pair, seed),
        oracle=_mean(np.maximum(pair.cheap, pair.strong), pair, seed),
        ahead=ahead,
        scores=scores,
        best=best,
        edge=edge,
        calibration=calibration,
        aurc={name: aurc(sure, pair.cheap) for name, sure in surety.items()},
        surety=surety,
        settings=_settings(pair, scores, best, targets, seed, missing),
        missing=missing,
        seed=seed,
    )


def _score(name: str, values: Floats, pair: RecordedPair, seed: int) -> RoutingScore:
    cheap, strong, after = pair.cheap, pair.strong, name in {CONFIDENCE, ANSWER}
    if name in {"random", "oracle"}:
        value = apgr(values, cheap, strong)
        found = Share(value, value, value, pair.n)
    else:
        found = apgr_interval(values, cheap, strong, pair.families, seed=seed, resamples=_resamples(pair))
    nothing, one = np.zeros(pair.n), np.ones(pair.n)
    costs, quality_of_money = None, None
    if pair.cheap_cost_usd is not None and pair.strong_cost_usd is not None and pair.strong_cost_usd.sum() > 0:
        money = (pair.cheap_cost_usd, pair.strong_cost_usd)
        costs = {q: cost_at_quality(values, cheap, strong, *money, q, pays_cheap_first=after) for q in QUALITIES}
        quality_of_money = _aiq(values, cheap, strong, *money, after=after)
    return RoutingScore(
        name=name,
        values=values,
        pays_cheap_first=after,
        apgr=found,
        cpt50=cpt(values, cheap, strong, 0.5),
        cpt80=cpt(values, cheap, strong, 0.8),
        calls={q: cost_at_quality(values, cheap, strong, nothing, one, q) for q in QUALITIES},
        costs=costs,
        aiq=quality_of_money,
    )


def _aiq(values: Floats, cheap: Floats, strong: Floats, less: Floats, more: Floats, *, after: bool) -> float | None:
    """Over the costs from cheap-only to strong-only, so that the figures of all scores compare."""
    low, high = float(less.mean()), float(more.mean())
    if low >= high:
        return None
    cost, quality = cost_curve(values, less, more, pays_cheap_first=after), curve(values, cheap, strong).quality
    inside = (cost >= low) & (cost <= high)
    return aiq(np.r_[low, cost[inside], high], np.r_[cheap.mean(), quality[inside], strong.mean()])


def _best(scores: Mapping[str, RoutingScore], pair: RecordedPair, seed: int) -> tuple[str, Share | None]:
    """The highest APGR; but what learns nothing goes before a learned score that is not shown to be better."""
    found = {name: s.apgr.value for name, s in scores.items() if s.apgr and name not in {"random", "oracle"}}
    top = max(found, key=found.__getitem__)
    rival = max((name for name in found if name in UNLEARNED), key=found.__getitem__)
    if top == rival:
        return top, None
    edge = apgr_difference(
        scores[top].values, scores[rival].values, pair.cheap, pair.strong, pair.families, seed=seed,
        resamples=_resamples(pair),
    )  # fmt: skip
    return (top if edge.low > 0 else rival), edge


def _learned(
    pair: RecordedPair, views: Sequence[View], seed: int, missing: dict[str, str], on_step: Callable[[str], None]
) -> dict[str, tuple[Floats, Floats]]:
    """By name: the cross-fitted score, and the chance that the cheap answer is right."""
    from workshop_lib.cascade.router import LearnedRouter

    if pair.graded:
        missing["learned scores"] = GRADED
        return {}
    facts: dict[str, Sequence[Facts] | None] = {QUESTION: pair.features}
    if pair.confidence is not None:
        known: Sequence[Facts] = pair.features or [{}] * pair.n
        facts[ANSWER] = [{**f, **_sure(c)} for f, c in zip(known, pair.confidence.tolist(), strict=True)]
    embed = _remembered(pair.texts, missing, on_step) if "meaning" in views else None
    views = [view for view in views if view != "meaning" or embed is not None]
    if not views:
        return {}
    folds = folds_of(pair.families, seed=seed)
    parts = int(folds.max()) + 1
    found = {}
    for name, features in facts.items():
        score, right = np.empty(pair.n), np.empty(pair.n)
        try:
            for fold in range(parts):
                on_step(f"{name}: part {fold + 1} of {parts}")
                rest, out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
                router = LearnedRouter(views, embed=embed).fit(
                    [pair.texts[i] for i in rest], pair.cheap[rest], pair.strong[rest],
                    features=_of(features, rest), families=[pair.families[i] for i in rest],
                )  # fmt: skip
                texts, given = [pair.texts[i] for i in out], _of(features, out)
                right[out], strong = router.both_right(texts, given)
                score[out] = strong - right[out]
        except ValueError as error:
            missing[name] = str(error)
        else:
            found[name] = (score, right)
    return found


def _remembered(texts: Sequence[str], missing: dict[str, str], on_step: Callable[[str], None]) -> Embed | None:
    """Texts to vectors, each embedded once; None where the packages for it are missing."""
    different = list(dict.fromkeys(texts))
    try:
        from workshop_lib.embedding import Embedder

        embedder = Embedder()
    except (ConfigurationError, ImportError) as error:
        missing["meaning of the texts"] = f"{error} Learned scores do without."
        return None
    vectors: dict[str, npt.NDArray[np.float32]] = {}
    for start in range(0, len(different), EMBEDDED_AT_ONCE):
        on_step(f"embedding: {start:,} of {len(different):,} texts")
        some = different[start : start + EMBEDDED_AT_ONCE]
        vectors.update(zip(some, embedder.embed(some), strict=True))
    return lambda wanted: np.vstack([vectors[text] for text in wanted])


def _sure(confidence: float) -> dict[str, float]:
    """A confidence as facts to learn from: near 0 and 1 its log-odds tell more apart."""
    inside = min(max(confidence, EDGE), 1 - EDGE)
    return {CONFIDENCE: confidence, "log-odds of confidence": math.log(inside / (1 - inside))}


def _of(features: Sequence[Facts] | None, rows: npt.NDArray[np.intp]) -> list[Facts] | None:
    return None if features is None else [features[i] for i in rows]


def _calibration(pair: RecordedPair, seed: int, missing: dict[str, str]) -> Calibration | None:
    if pair.confidence is None:
        missing["calibration"] = "there is no column confidence or cheap_logprob."
        return None
    if pair.graded:
        missing["calibration"] = GRADED
        return None
    right, families = pair.cheap > 0, pair.families
    try:
        whole = calibrate(pair.confidence, right.tolist(), families=families)
        fitted = calibrated_held_out(pair.confidence, right, families, seed=seed)
        raw, after = (
            ece_interval(sure, pair.cheap, families, seed=seed, resamples=_resamples(pair))
            for sure in (pair.confidence, fitted)
        )
    except ValueError as error:
        missing["calibration"] = str(error)
        return None
    return Calibration(raw, after, whole, fitted)


def _settings(  # noqa: PLR0917  # parts of one report
    pair: RecordedPair, scores: Mapping[str, RoutingScore], best: str | None, targets: Sequence[Mapping[str, float]],
    seed: int, missing: dict[str, str],
) -> list[Setting]:  # fmt: skip
    name = best or (CONFIDENCE if pair.confidence is not None else None)
    if pair.graded or name is None:
        missing["thresholds"] = GRADED if pair.graded else "there is no score to choose one for."
        return []
    values = scores[name].values if name in scores else -np.asarray(pair.confidence)
    falling = _falling(name, values)
    settings = []
    for target in targets:
        choice = choose_threshold(
            falling, (pair.cheap > 0).tolist(), (pair.strong > 0).tolist(), **target,
            cheap_cost_usd=None if pair.cheap_cost_usd is None else pair.cheap_cost_usd.tolist(),
            strong_cost_usd=None if pair.strong_cost_usd is None else pair.strong_cost_usd.tolist(),
            families=pair.families, pays_cheap_first=name in {CONFIDENCE, ANSWER}, seed=seed,
        )  # fmt: skip
        threshold = _back(name, choice.threshold)
        here = float((falling < choice.threshold).mean())
        settings.append(Setting(target, _rule(name, threshold, choice.threshold), threshold, here, choice))
    return settings


def _falling(name: str, values: Floats) -> Floats:
    """A score as `choose_threshold` takes it: within 0..1, and low where it goes up."""
    if name == CONFIDENCE:
        return -values
    return (1 - values) / 2 if name in {QUESTION, ANSWER} else 1 / (1 + values)


def _back(name: str, threshold: float) -> float:
    """The opposite of `_falling`; of a confidence, itself."""
    if name == CONFIDENCE:
        return threshold
    if name in {QUESTION, ANSWER}:
        return 1 - 2 * threshold
    return 1 / threshold - 1 if threshold > 0 else math.inf


def _rule(name: str, threshold: float, falling: float) -> str:
    if falling > 1:
        return "everything"
    if name == CONFIDENCE:
        return f"confidence below {_near_one(threshold)}"
    if name in {QUESTION, ANSWER}:
        return f"{name} above {threshold:+.3f}"
    return f"{name} above {threshold:,.0f}"


def _near_one(threshold: float) -> str:
    """Enough digits to tell it from 1: confidences crowd there."""
    digits = 4 if not 0.99 < threshold < 1 else min(12, 3 + math.ceil(-math.log10(1 - threshold)))
    return f"{threshold:.{digits}f}"


def _mean(values: Floats, pair: RecordedPair, seed: int) -> Share:
    right, families = values.tolist(), pair.families
    if pair.graded:
        return clustered_share(right, families, seed=seed)
    return share([v > 0 for v in right], families, seed=seed)


def _resamples(pair: RecordedPair) -> int:
    """Fewer where many questions make each dear: the ends then still move by a tenth of their distance."""
    return CURVE_RESAMPLES if pair.n <= 5_000 else CURVE_RESAMPLES * 4 // 10


def _verdict(r: RoutingReport) -> str:
    if not r.stronger:
        sure = "is weaker" if r.ahead.high < 0 else "is not shown to be stronger"
        return (
            f"Not worth it on these {r.pair.n} questions: the strong model {sure} ({r.strong} against {r.cheap}; difference {r.ahead}). "
            "No share of a gap is worked out, for there may be none."
        )
    assert r.best is not None  # there is a gap
    best = r.scores[r.best]
    assert best.apgr is not None
    worth = f"{best.name} wins {best.apgr.value:.3f} [{best.apgr.low:.3f}, {best.apgr.high:.3f}] of the gap on the average (APGR; by lot 0.5)"
    if best.apgr.low <= 0.5:
        return f"Not shown to be worth it on these {r.pair.n} questions: {worth}, so no score is surely better than sending up by lot."
    if not r.settings:
        return f"Worth a try: {worth}. {_calls(best)}"
    asked = r.settings[-1]
    c = asked.choice
    held = (
        f"To {c.target}, send up: {asked.rule}. On questions that did not choose it, {c.agreement} are right "
        f"(against strong-only {c.against_strong}), {c.sent_up.value:.0%} go up"
    )
    met = "" if c.met else " No threshold meets that target on these questions; this one comes nearest."
    if asked.here > 0.99:
        return f"Not worth it at this target: to {c.target}, everything has to go up. {worth[0].upper()}{worth[1:]}; ask for less."
    if c.cost_share is not None:
        head = _head(1 - c.cost_share)
        return f"{head}: {worth}. {held}, and it costs {c.cost_share:.0%} of strong-only.{met}"
    kept = 1 - c.sent_up.value
    if not best.pays_cheap_first:
        return f"{_head(kept)}: {worth}. {held}; each of the others saves the difference of a strong and a cheap call.{met}"
    if kept <= 0:
        return f"Not worth it at this target: {worth}. {held}.{met}"
    return f"Worth it if a strong call costs more than {1 / kept:.1f} times a cheap one: {worth}. {held}.{met}"


def _head(saved: float) -> str:
    return "Worth it" if saved > LITTLE else "Hardly worth it" if saved > 0 else "Not worth it at this target"


def _calls(best: RoutingScore) -> str:
    found = best.calls[0.99]
    return f"99% of the strong model's quality takes {found:.0%} of the strong calls." if found is not None else ""


def _next_steps(r: RoutingReport) -> list[str]:
    said = []
    d = r.ahead
    if not r.stronger:
        if d.value > 0:
            parted = max((d.only_a + d.only_b) / d.n, d.value)
            said.append(
                f"To see a lead of {100 * d.value:.1f} points takes about {required_tickets(d.value, discordance=parted):,} questions: label more."
            )
        said.append("Until then use the cheap model alone, or compare another strong one.")
        if r.oracle.value > max(r.strong.value, r.cheap.value) + 0.02:
            said.append(
                f"The two differ: the better of both answers is right on {r.oracle}. A third opinion or a vote may win some of it."
            )
        return said
    found = r.scores[r.best].apgr if r.best else None
    if found is None or found.low <= 0.5:
        said.append("Choose nothing by this yet: label more questions, or find a score that tells more.")
    elif r.best == CONFIDENCE and r.settings:
        said.append(
            f"Use it: `Cascade(tiers, escalate_when=confidence_below({_near_one(r.settings[-1].threshold)}))`, and measure again on new questions."
        )
    elif r.best in {QUESTION, ANSWER} and r.settings:
        said.append(
            f"Use it: fit a `LearnedRouter` on all {r.pair.n} questions and `decide(texts, threshold={r.settings[-1].threshold:.3f})`."
        )
    if r.edge is not None and r.best in UNLEARNED:
        said.append(
            f"What is learned is not shown to be better than {r.best} (APGR {_signed(r.edge)}): keep to what needs no training."
        )
    if r.pair.confidence is None:
        said.append(
            "Record how sure the cheap model is of each answer (cheap_logprob or confidence): whether that tells more than the question is not to be seen here."
        )
    if r.pair.cheap_cost_usd is None:
        said.append("Add cheap_cost_usd and strong_cost_usd to see what it saves in money.")
    if found is not None and found.high - found.low > 0.15:
        said.append(
            f"The interval of {r.best} is {found.high - found.low:.2f} wide; four times the questions halve it."
        )
    return said


def _apgr_said(s: RoutingScore) -> str:
    if s.apgr is None:
        return "-"
    return f"{s.apgr.value:.3f}" + ("" if s.apgr.low == s.apgr.high else f" [{s.apgr.low:.3f}, {s.apgr.high:.3f}]")


def _signed(found: Share) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _percent(value: float | None) -> str:
    return "never" if value is None else f"{value:.1%}"


def _by_text(found: Mapping[float, float | None]) -> dict[str, float | None]:
    return {f"{q:g}": value for q, value in found.items()}


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _markdown(rows: Sequence[Mapping[str, str]]) -> str:
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join([*lines, *("| " + " | ".join(row.values()) + " |" for row in rows)])
