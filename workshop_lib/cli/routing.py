"""`workshop evaluate-router`: is routing or escalating worth it for your own pair of models, from a CSV of their recorded answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from workshop_lib.evaluation.routing_report import RoutingReport

console, notes = Console(), Console(stderr=True)


def evaluate_router(  # noqa: PLR0917  # a command's options are always named
    file: Annotated[
        Path,
        typer.Argument(
            help="A CSV: text, cheap_correct, strong_correct (0/1); if you have them confidence or cheap_logprob, "
            "cheap_cost_usd, strong_cost_usd, family."
        ),
    ],
    quality: Annotated[
        list[float] | None,
        typer.Option(help="Keep this share of the strong model's quality; several times. Default: 0.95 and 0.99."),
    ] = None,
    budget: Annotated[float | None, typer.Option(help="Spend at most so many USD per 1,000 questions.")] = None,
    wrong_usd: Annotated[float | None, typer.Option(help="What a wrong final answer costs you, in USD.")] = None,
    review_usd: Annotated[
        float, typer.Option(min=0, help="What going up costs beside the call; with --wrong-usd.")
    ] = 0,
    max_risk: Annotated[
        float | None, typer.Option(help="At most this share of all questions kept by the cheap model and wrong ...")
    ] = None,
    delta: Annotated[float, typer.Option(help="... with probability 1 - delta; with --max-risk.")] = 0.05,
    feature: Annotated[
        list[str] | None, typer.Option(help="A further column to learn from, e.g. subject; several times.")
    ] = None,
    no_learning: Annotated[
        bool,
        typer.Option("--no-learning", help="Learn no score: length, keywords and the confidence alone, in seconds."),
    ] = False,
    no_meaning: Annotated[
        bool, typer.Option("--no-meaning", help="Do not embed the texts (about 10 ms each): learn from words alone.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write a one-page HTML report with charts.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures as one JSON object.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of tables.")] = False,
    seed: Annotated[int, typer.Option(help="Of folds and intervals.")] = 0,
) -> None:
    """From recorded answers of your own two models: is routing worth it, by which score, below which threshold, at what cost.

    Exit code 0: a verdict was reached, whichever. 1: the file cannot be used.
    """
    from workshop_lib.evaluation.recorded_pair import load_pair
    from workshop_lib.evaluation.routing_report import routing_report

    targets = _targets(quality, budget, wrong_usd, review_usd, max_risk, delta)
    pair = load_pair(file, features=feature or ())
    if (budget is not None or wrong_usd is not None) and pair.cheap_cost_usd is None:
        raise typer.BadParameter(
            f"{file.name} needs the columns cheap_cost_usd and strong_cost_usd for it",
            param_hint="--budget/--wrong-usd",
        )
    with _steps() as on_step:
        report = routing_report(
            pair,
            targets=targets,
            views=() if no_learning else ("words",) if no_meaning else ("words", "meaning"),
            seed=seed,
            on_step=on_step,
        )
    if out is not None:
        from workshop_lib.display import save_routing_page

        with _steps() as on_step:
            on_step("drawing")
            save_routing_page(report, out)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if markdown:
        print(report.to_markdown())
    else:
        _show(report)


def _targets(  # noqa: PLR0917  # options of one command
    quality: Sequence[float] | None, budget: float | None, wrong_usd: float | None, review_usd: float, max_risk: float | None,
    delta: float,
) -> Sequence[Mapping[str, float]]:  # fmt: skip
    """What was asked for; without a word, the standard two."""
    from workshop_lib.evaluation.routing_report import DEFAULT_TARGETS

    for name, value, high in (
        *(("--quality", q, 2.0) for q in quality or ()), ("--budget", budget, 1e9), ("--wrong-usd", wrong_usd, 1e9),
        ("--max-risk", max_risk, 1.0), ("--delta", delta, 1.0),
    ):  # fmt: skip
        if value is not None and not 0 < value < high:
            raise typer.BadParameter(f"it lies between 0 and {high:g}, not at {value:g}", param_hint=name)
    targets: list[Mapping[str, float]] = [{"quality": q} for q in sorted(quality or ())]
    if budget is not None:
        targets.append({"budget_per_1000_usd": budget})
    if wrong_usd is not None:
        targets.append({"wrong_usd": wrong_usd, "review_usd": review_usd})
    if max_risk is not None:
        targets.append({"max_risk": max_risk, "delta": delta})
    return targets or DEFAULT_TARGETS


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """Tell each step on a terminal, and nowhere else."""
    with notes.status("reading") as status:
        yield lambda said: status.update(escape(said))


def _show(report: RoutingReport) -> None:
    for line in report.facts():
        console.print(escape(line), highlight=False)
    for title, rows in (
        ("APGR: share of the gap won on the average; least strong calls for a quality", report.table()),
        ("Least cost for a quality, as a share of strong-only", report.cost_table()),
    ):
        if rows:
            console.print(_table(title, rows, report.best))
    for setting, row in zip(report.settings, report.settings_table(), strict=True):
        console.print(f"[bold]{escape(row['target'])}[/]: send up {escape(setting.rule)}", highlight=False)
        money = (
            f"; USD {row['USD per 1,000']} per 1,000, {row['of strong-only']} of strong-only"
            if "of strong-only" in row
            else ""
        )
        console.print(
            escape(
                f"  held out: right {row['quality']}, against strong {row['against strong']}; went up {row['went up']}{money}"
            ),
            highlight=False,
        )
    console.print(f"\n[bold]{escape(report.verdict)}[/]", highlight=False)
    for line in report.next_steps:
        console.print(f"- {escape(line)}", highlight=False)
    for line in report.warnings:
        console.print(f"[yellow]! {escape(line)}[/]", highlight=False)


def _table(title: str, rows: Sequence[Mapping[str, str]], best: str | None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for name in rows[0]:
        table.add_column(
            name.replace(" for ", "\nfor "), justify="left" if name in {"score", "pays"} else "right", no_wrap=True
        )
    for row in rows:
        cells = (escape(cell.replace(" [", "\n[")) for cell in row.values())
        table.add_row(*cells, style="bold" if row["score"] == best else None)
    return table
