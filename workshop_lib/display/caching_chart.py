"""What routing and caching cost together: the four designs of `workshop_lib.shop.caching` against the hit rate or the prefix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.display.canvas import canvas, title_of
from workshop_lib.display.theme import BLUE, GREY, RED, Picture, picture, usd
from workshop_lib.shop.caching import DESIGNS, HitRates, Traffic, designs

LOOKS: Mapping[str, tuple[str, str, str]] = {
    "strong, uncached": (BLUE, "--", "s"),
    "strong, cached": (BLUE, "-", "s"),
    "routed, uncached": (RED, "--", "D"),
    "routed, cached": (RED, "-", "D"),
}
"""Colour, dashes and marker of each design."""
ALONE, ROUTED = "strong, cached", "routed, cached"
Series = Mapping[str, Sequence[float]]
"""Design to USD per 1,000 requests, one a point."""


def cost_against_hit_rate(traffic: Traffic, catalogue: Catalogue) -> Picture:
    """USD per 1,000 requests of the four designs, when the cache is warm for ever more of them (one hit rate for all models).

    Raises:
        ValueError: as `workshop_lib.shop.caching.designs`.
    """
    points = [i / 20 for i in range(21)]
    costs = _costs(lambda rate: (traffic, HitRates.same(rate)), points, catalogue)
    # Both are straight lines of the hit rate, so their ends say where they cross.
    first, last = (costs[ROUTED][i] - costs[ALONE][i] for i in (0, -1))
    if (first < 0) != (last < 0):
        at = first / (first - last)
        side = "Above" if last > 0 else "Below"
        title = f"{side} a hit rate of {at:.0%}, the cached strong model alone is cheaper than routing before it"
    else:
        less = [1 - routed / alone for routed, alone in zip(costs[ROUTED], costs[ALONE], strict=True)]
        low, high = sorted((abs(less[0]), abs(less[-1])))
        verb = "saves" if first < 0 else "adds"
        title = (
            f"At every hit rate routing {verb} between {low:.0%} and {high:.0%} of what the cached strong model costs"
        )
    label = "hit rate: requests that find the cache warm"
    return _drawn(points, costs, title=title, label=label, said=lambda x: f"{x:.0%}")


def cost_against_prefix(traffic: Traffic, catalogue: Catalogue, rate: float = 0.9, *, longest: int = 6_000) -> Picture:
    """USD per 1,000 requests of the four designs against the length of the shared prefix, with the models' cache minimums.

    Args:
        traffic: its own prefix length is not used.
        catalogue: the pair in use.
        rate: hit rate of every model.
        longest: tokens; the axis ends here.

    Raises:
        ValueError: as `workshop_lib.shop.caching.designs`.
    """
    minimums = {
        f"{role} caches": minimum
        for role in ("strong", "cheap")
        if (minimum := catalogue[role].cache_minimum_tokens) is not None and minimum <= longest
    }
    steps = {edge for minimum in minimums.values() for edge in (minimum - 1, minimum)}
    points = sorted({*range(0, longest + 1, max(1, longest // 30)), *steps})

    def at(tokens: float) -> tuple[Traffic, HitRates]:
        simple, hard = (replace(r, prefix_tokens=int(tokens)) for r in (traffic.simple, traffic.complex))
        return replace(traffic, simple=simple, complex=hard), HitRates.same(rate)

    costs = _costs(at, points, catalogue)
    less = {x: 1 - costs[ROUTED][i] / costs[ALONE][i] for i, x in enumerate(points)}
    most, least = max(less, key=less.__getitem__), min(less, key=less.__getitem__)
    told = " and ".join(
        f"{'saves' if less[x] >= 0 else 'adds'} {abs(less[x]):.0%} at {x:,} tokens" for x in (most, least)
    )
    title = f"With the cache warm for {rate:.0%} of the requests, routing {told}"
    label = "tokens of the shared prefix"
    return _drawn(points, costs, title=title, label=label, said=lambda x: f"{x:,.0f}", marks=minimums)


def _costs(at: Callable[[float], tuple[Traffic, HitRates]], points: Sequence[float], catalogue: Catalogue) -> Series:
    found: dict[str, list[float]] = {name: [] for name in DESIGNS}
    for x in points:
        traffic, hits = at(x)
        for name, bill in designs(traffic, catalogue, hits).items():
            found[name].append(float(bill.total * 1000))
    return found


def _drawn(
    points: Sequence[float],
    costs: Series,
    *,
    title: str,
    label: str,
    said: Callable[[float], str],
    marks: Mapping[str, float] | None = None,
) -> Picture:
    shown = [points[i] for i in sorted({0, len(points) // 4, len(points) // 2, 3 * len(points) // 4, len(points) - 1})]
    with canvas(7.2, 4.4) as axes:
        for name in sorted(DESIGNS, key=lambda name: -costs[name][-1]):
            colour, dashes, marker = LOOKS[name]
            axes.plot(
                points, costs[name], color=colour, linestyle=dashes, marker=marker, markevery=max(1, len(points) // 6),
                markersize=5, linewidth=1.8, label=name,
            )  # fmt: skip
        top = 1.08 * max(max(values) for values in costs.values())
        axes.set_ylim(0, top)
        for words, x in (marks or {}).items():
            axes.axvline(x, color=GREY, linestyle=":", linewidth=1.1)
            axes.text(x, top, f" {words} from {said(x)}", color=GREY, fontsize=9, va="top")
        axes.xaxis.set_major_formatter(lambda value, _: said(value))
        axes.set_xlabel(label, loc="left")
        axes.set_ylabel("USD per 1,000 requests")
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        title_of(axes, title)
        rows = [{label: said(x)} | {name: usd(costs[name][points.index(x)], 2) for name in DESIGNS} for x in shown]
        told = "; ".join(
            f"{name}: " + ", ".join(f"{usd(costs[name][points.index(x)], 2)} at {said(x)}" for x in shown)
            for name in DESIGNS
        )
        return picture(
            axes.get_figure(root=True),  # type: ignore[arg-type]  # it has one
            alt=f"Line chart. {title}. USD per 1,000 requests against {label}. {told}.",
            caption="Lower is better. A closed form of prices and token counts, not a measurement; cache writes are paid for.",
            rows=rows,
        )
