"""What a recorded pair says about routing, as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from workshop_lib.display.report import listed, page, section, warned
from workshop_lib.display.router_charts import gap_chart, quality_cost_chart, reliability_diagram, risk_coverage_chart
from workshop_lib.display.theme import Picture, table
from workshop_lib.evaluation.routing_report import DESCRIPTIONS, RoutingReport


def routing_page(report: RoutingReport) -> str:
    """The report as a self-contained page: verdict, warnings, tables, charts. What cannot be drawn is left out."""
    from html import escape

    told = "; ".join(f"{name}: {DESCRIPTIONS[name]}" for name in report.scores)
    return page(
        f"{report.pair.name}: is routing worth it?",
        [
            f"<p><strong>{escape(report.verdict)}</strong></p>",
            listed("What to do next", report.next_steps),
            listed("The pair", report.facts()),
            warned(report.warnings),
            section(
                "The scores",
                _wide(report.table()),
                _wide(report.cost_table()) if report.cost_table() else "",
                f"<p>{escape(told)}.</p><p>{escape(LEGEND)}</p>",
            )
            if report.scores
            else "",
            section("The thresholds", _wide(report.settings_table()), f"<p>{escape(HELD_OUT)}</p>")
            if report.settings
            else "",
            section("Charts", *(f"<div>{picture._repr_html_()}</div>" for picture in _pictures(report))),
            f"<p>Seed of folds and intervals: {report.seed}.</p>",
        ],
    )


LEGEND = (
    "APGR: the share of the gap between both models that is won, averaged over all shares of strong calls, with its 95% interval; 0.5 is "
    "by lot. CPT50, CPT80: the smallest share of strong calls that wins half, or 80%, of the gap. Calls and cost for 95, 99, 100%: the "
    "least share of strong calls, and the cost as a share of strong-only, at that share of the strong model's quality, by a threshold "
    "chosen on these very questions. AIQ: mean quality over the costs from cheap-only to strong-only. Learned scores are cross-fitted."
)
HELD_OUT = "All figures are held out: each fifth of the questions is judged by the threshold that the other four chose. 95% intervals."


def save_routing_page(report: RoutingReport, path: Path) -> None:
    """Write the page to a file; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(routing_page(report), encoding="utf-8", errors="replace", newline="\n")


def _pictures(report: RoutingReport) -> Iterator[Picture]:
    pair = report.pair
    values = {name: s.values for name, s in report.scores.items()}
    if values:
        yield gap_chart(values, pair.cheap, pair.strong)
    if (
        values
        and pair.cheap_cost_usd is not None
        and pair.strong_cost_usd is not None
        and pair.strong_cost_usd.sum() > 0
    ):
        yield quality_cost_chart(
            {n: v for n, v in values.items() if n != "oracle"}, pair.cheap, pair.strong, pair.cheap_cost_usd, pair.strong_cost_usd,
            before=[name for name, s in report.scores.items() if not s.pays_cheap_first],
        )  # fmt: skip
    if pair.confidence is not None and not pair.graded:
        fitted = report.calibration
        yield reliability_diagram(pair.confidence, pair.cheap, None if fitted is None else fitted.probability)
    if report.surety:
        yield risk_coverage_chart({name: (sure, pair.cheap) for name, sure in report.surety.items()})


def _wide(rows: list[dict[str, str]]) -> str:
    return f"<div class='wide'>{table(rows)}</div>"
