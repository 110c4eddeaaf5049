"""Operations as figures: a stretch of tickets on one sheet, and what a drift simulation found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from workshop_lib.display.canvas import shortened
from workshop_lib.display.theme import BLUE, GREEN, GREY, PINK, RED, Picture, picture
from workshop_lib.monitoring.alarms import Alarm, default_alarms, evaluate
from workshop_lib.monitoring.monitor import Summary, summarise
from workshop_lib.monitoring.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from workshop_lib.evaluation.statistics import Share
    from workshop_lib.monitoring.drift import DriftWatch
    from workshop_lib.monitoring.simulation import Simulated

SIGNAL_LOOKS = ((RED, "-"), (BLUE, "--"), (GREEN, "-."), (PINK, ":"))
"""Colour and dashes of each signal, in their order."""
ROLLING = 100
"""Tickets behind each point of the cost curve."""


def dashboard_figure(
    records: Sequence[Record], *, drift: DriftWatch | None = None, alarms: Sequence[Alarm] | None = None
) -> Picture:
    """The same of a whole stretch of tickets, as one figure: cost, escalation, rates, latency, and drift against its limit.

    Args:
        records: oldest first.
        drift: its limits; its own state is left as it is.
        alarms: None: `default_alarms()`.

    Raises:
        ValueError: there are no records.
    """
    import matplotlib.pyplot as plt

    summary = summarise(records)
    alarms = default_alarms() if alarms is None else alarms
    raised = [s for s in evaluate(summary, alarms) if s.state == "raised"]
    with plt.rc_context({"text.parse_math": False}):
        figure, grid = plt.subplots(2, 2 if drift is None else 3, figsize=(9.5 if drift is None else 13, 6.4))
        figure.subplots_adjust(hspace=0.45, wspace=0.68, top=0.9)
        panels = iter(grid.T.flat)
        _cost(next(panels), summary)
        _latency(next(panels), summary)
        _shares(next(panels), {"all reasons": summary.escalated, **summary.reasons}, "escalated, by reason")
        _shares(next(panels), _rates(summary), "other rates")
        told = ""
        if drift is not None:
            told = _drift_curves(next(panels), drift, records)
            _categories(next(panels), drift, summary)
        names = [f"{s.alarm.name} alarm raised" for s in raised] + ([told] if told else [])
        title = (
            f"{summary.n:,} tickets, USD {summary.cost_per_1000_usd:.4f} per 1,000: {'; '.join(names) or 'no alarm'}"
        )
        figure.suptitle(title, x=0.02, ha="left", fontsize=12)
    rows = summary.table()
    said = "; ".join(f"{r['figure']} {r['value']}" for r in rows)
    return picture(
        figure,
        alt=f"Dashboard. {title}. {said}.",
        caption="Bars end at the share; lines are 95 % intervals.",
        rows=rows,
    )


def drift_chart(results: Sequence[Simulated], *, promised: float = 0.05) -> Picture:
    """False alarms and delay of a drift simulation, with intervals.

    Args:
        results: from `workshop_lib.monitoring.simulation.simulate`.
        promised: the rate of false alarms that the watches were made for.

    Raises:
        ValueError: there are no results.
    """
    import matplotlib.pyplot as plt

    if not results:
        raise ValueError("there are no results to draw")
    seen = [r for r in results if r.detected is not None]
    with plt.rc_context({"text.parse_math": False}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.55 * len(results) + 1.8), width_ratios=(1, 1.4))
        figure.subplots_adjust(wspace=0.75)
        _shares(
            left,
            {f"{r.change} ({_within(r)})": r.false_alarms for r in results},
            "streams with a false alarm",
            loose=True,
        )
        left.axvline(promised, color=GREY, linestyle="--", linewidth=1)
        left.text(
            promised, 1.01, f" promised {promised:.0%}", transform=left.get_xaxis_transform(), fontsize=8, color=GREY
        )
        names = [shortened(r.change, 36) for r in seen]
        for y, r in enumerate(seen):
            middle, low, high = r.median_delay
            for x, marker, label in ((middle, "o", "half of the streams"), (r.p90_delay, "|", "nine in ten")):
                if math.isfinite(x):
                    right.plot(
                        x, y, marker, color=BLUE, markersize=9 if marker == "o" else 14, mew=2, label="" if y else label
                    )
                    right.annotate(
                        f"{x:.0f}",
                        (x, y),
                        (0, 9 if marker == "o" else -18),
                        textcoords="offset points",
                        ha="center",
                        fontsize=8,
                    )
            if math.isfinite(low) and math.isfinite(high):
                right.plot([low, high], [y, y], color=BLUE, linewidth=2)
            if not math.isfinite(r.p90_delay):
                right.text(0.99, y - 0.28, f"seen in {r.detected.value:.0%}" if r.detected else "", ha="right", fontsize=8,
                           color=GREY, transform=right.get_yaxis_transform())  # fmt: skip
        right.set_yticks(range(len(seen)), names)
        right.set_ylim(len(seen) - 0.4, -0.6)
        right.set_xlim(0, 1.06 * right.get_xlim()[1])
        right.set_xlabel("tickets after the change until the alarm")
        right.spines[["top", "right"]].set_visible(False)
        if seen:
            right.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    said = " ".join(r.sentence for r in results)
    return picture(
        figure, alt=f"Two charts of a drift simulation. {said}", rows=[r.row() for r in results],
        caption="Streams are drawn ticket by ticket, so real ones, which come in bursts, raise more false alarms.",
    )  # fmt: skip


def _rates(summary: Summary) -> dict[str, Share]:
    found = {
        "retried": summary.retried,
        "guardrail stepped in": summary.intervened,
        "queued or a person's": summary.unanswered,
        "no decision": summary.failed,
        "overridden, if seen": summary.overridden,
    }
    return {name: share for name, share in found.items() if share is not None}


def _shares(axes: Axes, shares: dict[str, Share], label: str, *, loose: bool = False) -> None:
    """Bars with intervals; names at the left, values at the right, so that no colour is needed."""
    top = max(0.05, 1.15 * max(s.high for s in shares.values()))
    for y, s in enumerate(shares.values()):
        axes.barh(y, s.value, color=BLUE, height=0.55, alpha=0.85)
        axes.plot([s.low, s.high], [y, y], color="black", linewidth=1.2)
        axes.text(min(s.high, top) + 0.02 * top, y, f"{s.value:.1%}", va="center", fontsize=8)
    axes.set_yticks(range(len(shares)), [shortened(name, 60 if loose else 24) for name in shares], fontsize=9)
    axes.set_ylim(len(shares) - 0.4, -0.6)
    axes.set_xlim(0, 1.12 * top)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)


def _cost(axes: Axes, summary: Summary) -> None:
    costs = [r.cost_usd for r in summary.records]
    size = min(ROLLING, len(costs))
    points = range(size, len(costs) + 1, max(1, len(costs) // 200))
    axes.plot(points, [1_000 * math.fsum(costs[i - size : i]) / size for i in points], color=BLUE)
    axes.axhline(summary.cost_per_1000_usd, color=GREY, linestyle="--", linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tickets")
    axes.set_ylabel(f"USD per 1,000, last {size}")
    axes.spines[["top", "right"]].set_visible(False)


def _latency(axes: Axes, summary: Summary) -> None:
    values = {"p50": summary.latency_p50_ms, "p95": summary.latency_p95_ms, "p99": summary.latency_p99_ms}
    bars = axes.bar(list(values), list(values.values()), color=BLUE, width=0.55)
    axes.bar_label(bars, [f"{v:,.0f}" for v in values.values()], fontsize=8)
    axes.set_ylabel("latency in ms")
    axes.spines[["top", "right"]].set_visible(False)


def _drift_curves(axes: Axes, drift: DriftWatch, records: Sequence[Record]) -> str:
    """Each signal's statistic as a multiple of its limit; returns what has changed, in words."""
    changed = []
    for signal, (colour, dashes) in zip(drift.signals, SIGNAL_LOOKS * len(drift.signals), strict=False):
        detector = drift.detectors[signal.name]
        codes = detector.code([signal.of(r) for r in records])[None, :]
        values, first = detector.statistics(codes)[0] / detector.limit, float(detector.first_alarms(codes)[0])
        axes.plot(range(1, len(values) + 1), values, dashes, color=colour, label=signal.name)
        if math.isfinite(first):
            changed.append(f"{signal.name} at ticket {first:.0f}")
            axes.plot(first, 1, "v", color=colour, markersize=9)
    axes.axhline(1, color="black", linewidth=1)
    axes.text(1, 1.01, "limit", va="bottom", ha="right", fontsize=8, transform=axes.get_yaxis_transform())
    axes.set_ylim(0, min(3.0, max(1.25, axes.get_ylim()[1])))
    axes.set_xlabel("tickets")
    axes.set_ylabel("drift, in limits")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    return f"drift of {', '.join(changed)}" if changed else ""


def _categories(axes: Axes, drift: DriftWatch, summary: Summary) -> None:
    """Shares of the first signal's names beside the reference's."""
    signal = drift.signals[0]
    detector = drift.detectors[signal.name]
    codes = detector.code([signal.of(r) for r in summary.records])
    names = [i for i, name in enumerate(detector.names) if (codes == i).any() or detector.shares[i] > 0.01]
    for y, i in enumerate(names):
        axes.barh(y, float((codes == i).mean()), color=BLUE, height=0.55, alpha=0.85, label="" if y else "now")
        axes.plot(detector.shares[i], y, "D", color="black", markersize=5, label="" if y else "reference")
    axes.set_yticks(range(len(names)), [shortened(detector.names[i], 20) for i in names], fontsize=8)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.set_xlabel(f"share by {signal.name}")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.97))
    axes.spines[["top", "right"]].set_visible(False)


def _within(result: Simulated) -> str:
    return f"in {result.horizon if result.change_at is None else result.change_at:,} tickets"
