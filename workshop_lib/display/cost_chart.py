"""What agreement costs: every strategy with its interval, the Pareto front, and what sending tickets up at random would give."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from workshop_lib.display.canvas import canvas, enumerated, looks_of, named, shortened, title_of
from workshop_lib.display.theme import GREY, Picture, picture, usd
from workshop_lib.evaluation.comparison import Comparison, pareto
from workshop_lib.evaluation.statistics import Share
from workshop_lib.evaluation.strategies import OUT_OF_REACH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

LESS_IS_BETTER = ("false_alarms", "urgent_false_alarms")
ASIDE = ("cheap-only", "strong-only", OUT_OF_REACH)
Point = tuple[float, float]
Points = Mapping[str, tuple[float, Share]]
"""Strategy to USD per 1,000 and share."""


def cost_against_agreement(comparison: Comparison, measure: str | None = None) -> Picture:
    """USD per 1,000 tickets against a measure with its 95% intervals, the Pareto front, and what escalating at random would give.

    Args:
        comparison: one or more strategies.
        measure: one of the comparison's; None: its main one.

    Raises:
        KeyError: there is no such measure.
        ValueError: no ticket that it looks at, or a share of false alarms, of which less is better.
    """
    measure = measure or comparison.main_measure
    if measure in LESS_IS_BETTER:
        raise ValueError(f"of {measure} less is better: this chart is for shares of which more is better")
    shares = {name: (s.cost_per_1000_usd, s.shares[measure]) for name, s in comparison.scores.items()}
    points = {name: (cost, share) for name, (cost, share) in shares.items() if share is not None}
    if not points:
        raise ValueError(f"there is no ticket that {measure} looks at")
    front, line = _front(points), _chance_line(points)
    title = _cost_title(points, front, line, named(measure))
    looks = looks_of(comparison)
    with canvas(7.5, 4.6) as axes:
        steps = [(cost, share.value) for cost, share in (points[name] for name in front)]
        corners = [corner for a, b in itertools.pairwise(steps) for corner in (a, (b[0], a[1]))] + steps[-1:]
        axes.plot(*zip(*corners, strict=True), color="#BBBBBB", linewidth=4, zorder=1, label="Pareto front")
        anchors = {name: (cost, share.value) for name, (cost, share) in points.items()}
        if line is not None:
            (x0, y0), (x1, y1) = line
            axes.plot([x0, x1], [y0, y1], "--", color=GREY, linewidth=1.2, zorder=2, label="escalating at random")
        for name, (cost, share) in points.items():
            colour, marker = looks[name]
            axes.plot([cost, cost], [share.low, share.high], color=colour, linewidth=1.3, zorder=3)
            axes.plot(cost, share.value, marker, color=colour, markersize=10 if marker == "*" else 8, zorder=4)
        ends = [end for _, share in points.values() for end in (share.low, share.high)]
        axes.set_ylim(max(-0.02, min(ends) - 0.05), min(1.02, max(ends) + 0.05))
        widest_cost = max([cost for cost, _ in points.values()] + ([line[1][0]] if line else []))
        axes.set_xlim(-0.04 * (widest_cost or 1), 1.08 * (widest_cost or 1))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel("USD per 1,000 tickets", loc="left")
        axes.legend(frameon=False, ncols=2, fontsize=9, loc="upper right", bbox_to_anchor=(1.0, -0.07))
        axes.set_ylabel(f"{named(measure)}, with 95% intervals")
        title_of(axes, title)
        _label_points(axes, anchors, {name: colour for name, (colour, _) in looks.items()}, points)
        said = "; ".join(f"{n} {share} at {_money(cost)}" for n, (cost, share) in _by_cost(points))
        return picture(
            axes.get_figure(root=True),  # type: ignore[arg-type]  # it has one
            alt=f"Scatter chart. {title}. {named(measure)} against USD per 1,000 tickets: {said}. On the Pareto front: {enumerated(front)}.",
            caption=_cost_caption(points, line, [n for n, (_, share) in shares.items() if share is None], measure),
            rows=[
                {
                    "strategy": n,
                    "USD per 1,000": f"{cost:.4f}",
                    named(measure): f"{share.value:.1%}",
                    "95% from": f"{share.low:.1%}",
                    "to": f"{share.high:.1%}",
                    "on the front": "yes" if n in front else "no",
                }
                for n, (cost, share) in _by_cost(points)
            ],
        )


def _front(points: Points) -> list[str]:
    """Strategies within reach that no other one beats on cost and share at once, from the cheapest up."""
    worth = {n: (cost, share.value) for n, (cost, share) in points.items() if n != OUT_OF_REACH or len(points) == 1}
    return pareto(worth)


def _chance_line(points: Points) -> tuple[Point, Point] | None:
    """From none to all of the tickets sent up at random, where each pays the cheap model and those sent up the strong one too."""
    if not {"cheap-only", "strong-only"} <= points.keys():
        return None
    (cheap, low), (strong, high) = points["cheap-only"], points["strong-only"]
    return (cheap, low.value), (cheap + strong, high.value)


def _cost_title(points: Points, front: Sequence[str], line: tuple[Point, Point] | None, measure: str) -> str:
    n = next(iter(points.values()))[1].n
    if line is not None and line[1][1] <= line[0][1]:
        return f"strong-only ({line[1][1]:.1%}) is not ahead of cheap-only ({line[0][1]:.1%}) on these {n} tickets"
    if line is not None:
        (x0, y0), (x1, y1) = line
        ahead = {
            name: share.value - (y0 + (cost - x0) / (x1 - x0) * (y1 - y0))
            for name, (cost, share) in points.items()
            if name not in ASIDE and not name.startswith("random") and x0 <= cost <= x1 and x1 > x0
        }
        told = [
            f"{enumerated(names)} {verbs[len(names) > 1]}"
            for verbs, side in ((("lies", "lie"), True), (("does not lie", "do not lie"), False))
            if (names := [name for name, d in ahead.items() if (d > 0) is side])
        ]
        if told:
            return (
                f"On these {n} tickets, {' and '.join(told)} above what escalating at random gives for the same money"
            )
    if len(points) == 1:
        ((name, (cost, share)),) = points.items()
        return f"{name}: {measure} {share.value:.1%} for {_money(cost)} per 1,000 tickets"
    (low_cost, low), (high_cost, high) = points[front[0]], points[front[-1]]
    if len(front) == 1:
        return f"{front[0]} is the cheapest and the best: {measure} {low.value:.1%} for {_money(low_cost)} per 1,000 tickets"
    return (
        f"From {front[0]} ({_money(low_cost)} per 1,000) to {front[-1]} ({_money(high_cost)}), "
        f"{measure} rises from {low.value:.1%} to {high.value:.1%}"
    )


def _cost_caption(points: Points, line: tuple[Point, Point] | None, left_out: Sequence[str], measure: str) -> str:
    said = ["An interval is of one strategy alone: whether two differ is for their paired comparison to say."]
    if line is not None:
        said.append("Dashed: ever more tickets sent up at random, each paid for twice.")
    if OUT_OF_REACH in points:
        said.append("The oracle knows the key, so it is nobody's choice and on no front.")
    if left_out:
        said.append(f"Left out, with no ticket that {measure} looks at: {enumerated(left_out)}.")
    return " ".join(said)


def _by_cost(points: Points) -> list[tuple[str, tuple[float, Share]]]:
    return sorted(points.items(), key=lambda kv: (kv[1][0], kv[0]))


def _label_points(axes: Axes, anchors: Mapping[str, Point], colours: Mapping[str, str], points: Points) -> None:
    """Write each name where it covers the least: around its point, nearer places first."""
    import numpy as np
    from matplotlib.transforms import Bbox

    to_pixels, pixels = axes.transData.transform, axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    taken: list[Bbox] = []
    for cost, share in points.values():
        (x, y), (_, low), (_, high) = to_pixels([(cost, share.value), (cost, share.low), (cost, share.high)])
        taken += [Bbox([[x - 7, y - 7], [x + 7, y + 7]]), Bbox([[x - 3, low], [x + 3, high]])]
    spots = np.concatenate(
        [
            np.linspace(a, b, 40)
            for path in axes.get_lines()
            for a, b in itertools.pairwise(to_pixels(path.get_xydata()))
        ]
        or [np.empty((0, 2))]
    )
    inside = axes.get_window_extent()
    for name in sorted(anchors, key=anchors.__getitem__):
        text = axes.annotate(
            shortened(name),
            anchors[name],
            (0, 0),
            textcoords="offset points",
            va="bottom",
            fontsize=10,
            zorder=5,
            color=colours.get(name, GREY),
        )
        size, (x, y) = text.get_window_extent(), to_pixels(anchors[name])

        def covers(box: Bbox) -> float:
            crossed = ((spots > box.min) & (spots < box.max)).all(axis=1).sum()
            outside = box.x0 < inside.x0 or box.x1 > inside.x1 + 30 or box.y0 < inside.y0
            return float(100 * sum(map(box.overlaps, taken)) + 10 * crossed + 1_000 * outside)

        places = [
            Bbox.from_bounds(x + left, y + low, size.width, size.height)
            for away in (12, 24, 40, 60)
            for left in (away, -away - size.width, -size.width / 2)
            for low in (-size.height / 2, 0.7 * away, -0.7 * away - size.height)
            if left != -size.width / 2 or low != -size.height / 2
        ]
        best = min(places, key=covers)
        text.set_position(((best.x0 - x) / pixels, (best.y0 - y) / pixels))
        taken.append(best)


def _money(amount: float) -> str:
    return usd(amount, 2 if amount >= 0.1 or not amount else 4)
