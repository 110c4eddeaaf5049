"""How long very many tickets take, and what they cost, by each way of working through them: two panels on logarithmic axes."""

from __future__ import annotations

from collections.abc import Mapping

from workshop_lib.display.canvas import title_of
from workshop_lib.display.theme import BLUE, GREEN, GREY, RED, Picture, picture, usd
from workshop_lib.operations.scale import BATCH, CLUSTER, PROCESS, ScalePlan

LOOKS: Mapping[str, tuple[str, str, str, int]] = {
    PROCESS: (GREEN, "-", "o", 11),
    CLUSTER: (BLUE, "--", "s", 7),
    BATCH: (RED, ":", "D", 4),
}
"""Colour, dashes, marker and its size: where lines lie on each other, each is still seen around the next."""


def scale_chart(found: ScalePlan) -> Picture:
    """Hours (left) and USD (right) against the number of tickets, with the deadline."""
    import matplotlib.pyplot as plt

    sizes = list(found.best)
    ways = {name: [n for n in sizes if found.best[n] == name] for name in LOOKS}
    words = [f"{name} up to {max(ns):,}" for name, ns in sorted(ways.items(), key=lambda w: max(w[1], default=0)) if ns]
    none = [n for n in sizes if not found.best[n]]
    title = f"Within {found.deadline_h:g} h: {', '.join(words) or 'no way is in time'}" + (
        f"; for {min(none):,} tickets and more nothing is in time" if none and words else ""
    )
    with plt.rc_context({"text.parse_math": False}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.2))
        try:
            for way in found.ways:
                colour, dashes, marker, size = LOOKS[way.name]
                at = [p.n for p in way.points]
                for axes, values in ((left, [p.hours for p in way.points]), (right, [p.usd for p in way.points])):
                    axes.loglog(at, values, dashes, color=colour, marker=marker, markersize=size, label=way.name)
            left.axhline(found.deadline_h, color=GREY, linewidth=1, label=f"deadline, {found.deadline_h:g} h")
            for axes, name in ((left, "hours"), (right, "USD")):
                axes.spines[["top", "right"]].set_visible(False)
                axes.minorticks_off()  # hundreds of them over so many decades, which take half of the time
                axes.set_xlabel("tickets", loc="left")
                axes.set_ylabel(name)
                axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
                axes.xaxis.set_major_formatter(lambda value, _: _short(value))
            left.legend(frameon=False, fontsize=9, loc="lower right")
            title_of(left, title)
            figure.tight_layout()
            said = "; ".join(
                f"{way.name}: {p.n:,} tickets in {p.hours:,.2f} h for {usd(p.usd, 2)}"
                for way in found.ways
                for p in (way.points[0], way.points[-1])
            )
            return picture(
                figure,
                alt=f"Two line charts on logarithmic axes. {title}. {said}.",
                caption=" ".join(way.sentence for way in found.ways),
                rows=[
                    {
                        "tickets": f"{row['tickets']:,}",
                        "way": row["way"],
                        "hours": f"{row['hours']:,.2f}",
                        "USD": f"{row['USD']:,.2f}",
                        "waits for": row["limit"],
                        "to be taken": "yes" if row["best"] else "",
                    }
                    for row in found.rows()
                ],
            )
        finally:
            plt.close(figure)


def _short(n: float) -> str:
    """A round number of tickets in few characters."""
    for size, letter in ((1e9, "bn"), (1e6, "m"), (1e3, "k")):
        if n >= size:
            return f"{n / size:g} {letter}"
    return f"{n:g}"
