"""`workshop bakeoff` and `workshop label`: strategies side by side, live or from a recorded run, and what a judge says to the key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from workshop_lib.bedrock.settings import Settings

if TYPE_CHECKING:
    from workshop_lib.bedrock.catalogue import Catalogue
    from workshop_lib.bulk import Row
    from workshop_lib.evaluation import Comparison, Recording, Share, Strategy

console, notes = Console(), Console(stderr=True)
SplitName = Literal["calibration", "workshop", "test", "train"]


def bakeoff(  # noqa: PLR0917  # a command's options are always named
    split: Annotated[
        SplitName, typer.Option(help="Which tickets. The test split is locked: see --final.")
    ] = "calibration",
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="strong-only, cheap-only, cascade, three-tier, random-30% (any share) or oracle; several times."
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many tickets.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Make no call: replay the recorded run of this split.")
    ] = False,
    recorded: Annotated[Path | None, typer.Option(help="The recorded run to replay; default: the shipped one.")] = None,
    budget: Annotated[float | None, typer.Option(min=0, help="Spending limit in USD. Run again to go on.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Calls in flight at once.")] = None,
    label: Annotated[
        bool, typer.Option("--label", help="Also ask the judge, and say how it agrees with the key.")
    ] = False,
    final: Annotated[
        bool, typer.Option("--final", help="This is the one measurement on the locked test split that you publish.")
    ] = False,
    store: Annotated[
        Path | None, typer.Option(help="Folder that keeps the answers; default: in the cache folder.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the answers as a recorded run.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of tables.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a one-page HTML report with charts.")] = None,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
) -> None:
    """Compare strategies on the same tickets: cost, latency and agreement, with intervals. Each model is asked once a ticket."""
    from workshop_lib import evaluation
    from workshop_lib.cascade.attempt import Tier
    from workshop_lib.triage.datasets import load_labels, load_tickets
    from workshop_lib.workshop import open_workshop

    settings = Settings.load()
    tickets = load_tickets(split, data_dir=settings.data_dir)
    key = load_labels(data_dir=settings.data_dir)
    labels = {ticket.id: key[ticket.id] for ticket in tickets}
    if dry_run:
        path = recorded or settings.data_dir / "recorded" / f"{settings.mode}-{split}.jsonl"
        comparison = _replayed(
            path, tickets, labels, settings=settings, choose=partial(_chosen, strategy, every), limit=limit, final=final,
            seed=seed,
        )  # fmt: skip
    else:
        tickets = tickets[:limit]
        judge = [Tier("judge")] if label else []
        with open_workshop(settings) as workshop:
            notes.print(f"[dim]{escape(workshop.door)}[/]")
            chosen = _chosen(strategy, every, labels, workshop.catalogue)
            with _progress(len(tickets), [tier.name for tier in evaluation.tiers_of(chosen, judge)]) as told:
                comparison = evaluation.bakeoff(
                    tickets, labels, chosen, client=workshop.bedrock, tiers=judge, store=store, final=final, seed=seed,
                    workers=workers or settings.workers, budget_usd=budget, on_row=told,
                )  # fmt: skip
        if save is not None:
            comparison.recording.save(save)
    judged = _kappas(comparison.recording, labels) if label else None
    if csv is not None:
        comparison.to_csv(csv)
    if report is not None:
        from workshop_lib.display import save_report

        save_report(comparison, report)
    if json_output:
        print(json.dumps(comparison.to_json() | {"judge": judged}, allow_nan=False))
    elif markdown:
        print(comparison.to_markdown())
    else:
        _show(comparison, judged)


def label(
    split: Annotated[SplitName, typer.Option(help="Which tickets.")] = "calibration",
    out: Annotated[Path | None, typer.Option(help="Write the judge's labels as JSONL.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many tickets.")] = None,
    budget: Annotated[float | None, typer.Option(min=0, help="Spending limit in USD. Run again to go on.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Let the judge model label tickets, and say how far it agrees with the answer key. Advisory: the key decides."""
    from workshop_lib import evaluation
    from workshop_lib.cascade.attempt import Tier
    from workshop_lib.triage.datasets import load_labels, load_tickets
    from workshop_lib.workshop import open_workshop

    settings = Settings.load()
    tickets = load_tickets(split, data_dir=settings.data_dir, limit=limit)
    key = load_labels(data_dir=settings.data_dir)
    with open_workshop(settings) as workshop, _progress(len(tickets), ["judge"]) as told:
        notes.print(f"[dim]{escape(workshop.door)}[/]")
        recording = evaluation.record(
            tickets,
            key,
            [Tier("judge")],
            client=workshop.bedrock,
            workers=settings.workers,
            budget_usd=budget,
            on_row=told,
        )
    kappas = _kappas(recording, key)
    if out is not None:
        lines = (
            json.dumps({"id": row.ticket_id, **(row.decision or {})}, ensure_ascii=False) for row in recording.rows
        )
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if json_output:
        print(json.dumps({"split": split, "n": len(tickets), "cost_usd": recording.cost_usd, "kappa": kappas}))
    else:
        _show_kappas(kappas)


def _replayed(
    path: Path,
    tickets: Sequence[Any],
    labels: Mapping[str, Any],
    *,
    settings: Settings,
    choose: Callable[[Mapping[str, Any], Catalogue], dict[str, Strategy]],
    **how: Any,
) -> Comparison:
    from workshop_lib import evaluation
    from workshop_lib.bedrock.catalogue import Catalogue
    from workshop_lib.workshop import door_of

    catalogue = Catalogue.load(settings.data_dir / "models.json", pair=settings.pair, scope=settings.profile_scope)
    recording = evaluation.Recording.load(path)
    chosen, door = choose(labels, catalogue), door_of(settings, catalogue)
    return evaluation.replay(recording, tickets, labels, chosen, catalogue=catalogue, door=door, **how)


def _chosen(
    names: Sequence[str] | None, every: bool, labels: Mapping[str, Any], catalogue: Catalogue
) -> dict[str, Strategy]:
    """The strategies that were asked for; without a word, the standard three."""
    from workshop_lib.evaluation import all_strategies, at_random

    known = all_strategies(labels, catalogue)
    if every and not names:
        return known
    chosen: dict[str, Strategy] = {}
    for name in names or ("strong-only", "cheap-only", "cascade"):
        share = re.fullmatch(r"random-(\d+(?:\.\d+)?)%", name)
        if share and float(share[1]) <= 100:
            chosen[name] = at_random(float(share[1]) / 100)
        elif name in known:
            chosen[name] = known[name]
        else:
            raise typer.BadParameter(
                f"{name!r}: choose from {', '.join(known)}, or random-30%", param_hint="--strategy"
            )
    return known | chosen if every else chosen


@contextmanager
def _progress(tickets: int, tiers: Sequence[str]) -> Iterator[Callable[[Row], None]]:
    columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True) as progress:
        bars = {tier: progress.add_task(tier, total=tickets) for tier in tiers}
        yield lambda row: progress.advance(bars[row.tier])


def _kappas(recording: Recording, labels: Mapping[str, Any]) -> dict[str, Any]:
    """Kappa by field. A recorded run without a judge's answers is an error that says so."""
    from workshop_lib.evaluation import RecordingError, judged_agreement

    judged = {i: tiers["judge"] for i, tiers in recording.answers().items() if "judge" in tiers}
    if not judged:
        raise RecordingError("The recorded run has no answers of a judge.", advice="Make it with --label.")
    return {field: None if k is None else dict(vars(k)) for field, k in judged_agreement(judged, labels).items()}


def _show(comparison: Comparison, judged: Mapping[str, Any] | None) -> None:
    said, scores = comparison.provenance, comparison.scores
    if comparison.final:
        console.print("[bold]FINAL: the locked test split.[/] Publish this figure; choose nothing by it.\n")
    some = next(iter(scores.values())).escalated
    title = f"{len(comparison.tickets)} tickets of {some.families} families ({said.split}, {said.door.get('mode')} door); % [95 % interval]"
    quality = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    money = Table(title="What it takes", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for table, columns in (
        (quality, [m.name.replace("_", " ").replace(" ", "\n", 1) for m in comparison.measures]),
        (
            money,
            [
                "went\nup",
                "USD\nper 1,000",
                "USD\nper right",
                "by chance\nper 1,000",
                "mean\ns",
                "p50\ns",
                "p95\ns",
            ],
        ),
    ):
        table.add_column("strategy", style="bold", no_wrap=True)
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
    for name, s in scores.items():
        quality.add_row(name, *(_percent(s.shares[m.name]) for m in comparison.measures))
        chance = comparison.chance_at_equal_agreement(name)
        right = s.cost_per_correct_usd(comparison.main_measure)
        seconds = (s.latency_mean_ms, s.latency_p50_ms, s.latency_p95_ms)
        money.add_row(
            name, _percent(s.escalated), f"{s.cost_per_1000_usd:.3f}", "-" if right is None else f"{right:.6f}",
            "-" if chance is None else f"{chance:.3f}", *(f"{ms / 1e3:.1f}" for ms in seconds),
        )  # fmt: skip
    console.print(quality)
    console.print(money)
    for line in comparison.sentences(about="cascade" if len(scores) > 3 and "cascade" in scores else None):
        console.print(f"- {escape(line)}", highlight=False)
    for name, s in scores.items():
        if s.reasons:
            why = ", ".join(f"{rule} {count / s.n:.0%}" for rule, count in sorted(s.reasons.items(), key=_by_count))
            console.print(f"- {escape(name)} sent up: {escape(why)} of the tickets.", highlight=False)
    for line in comparison.warnings:
        console.print(f"[yellow]! {escape(line)}[/]", highlight=False)
    if judged is not None:
        _show_kappas(judged)


def _by_count(reason: tuple[str, int]) -> int:
    return -reason[1]


def _show_kappas(kappas: Mapping[str, Any]) -> None:
    console.print(
        "Judge against key, Cohen's kappa (advisory: the key decides; at the local door the judge reads the key):"
    )
    for field, k in kappas.items():
        said = (
            "only one label occurs"
            if k is None
            else f"{k['value']:.2f} [{k['low']:.2f}, {k['high']:.2f}], {k['n']} tickets"
        )
        console.print(f"  {field}: {said}", highlight=False)


def _percent(share: Share | None) -> str:
    return "-" if share is None else f"{100 * share.value:.0f}\n\\[{100 * share.low:.0f}-{100 * share.high:.0f}]"
