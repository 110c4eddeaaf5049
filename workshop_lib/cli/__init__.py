"""The program `workshop` (also `python -m workshop_lib`): what can be done without opening a notebook."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from workshop_lib.bedrock.errors import WorkshopError
from workshop_lib.bedrock.settings import Settings
from workshop_lib.cli.bakeoff import bakeoff, label
from workshop_lib.cli.capacity import plan
from workshop_lib.cli.routing import evaluate_router
from workshop_lib.triage.schema import Ticket

if TYPE_CHECKING:
    from workshop_lib.bulk import BulkRun, Store
    from workshop_lib.evaluation.metrics import Scores
    from workshop_lib.evaluation.statistics import Share

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console()
app.command()(bakeoff)
app.command()(label)
app.command("evaluate-router")(evaluate_router)
app.command()(plan)


@app.command()
def demo(
    limit: Annotated[int, typer.Option(min=1, help="Tickets of the workshop split.")] = 30,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Calls in flight at once.")] = None,
) -> None:
    """30 tickets through strong-only, cheap-only and cascade: cost, latency, agreement with intervals, escalation."""
    from workshop_lib.evaluation import run_strategies, score, standard_strategies
    from workshop_lib.triage.datasets import load_labels, load_tickets
    from workshop_lib.workshop import open_workshop

    settings = Settings.load()
    settings = settings.model_copy(update={"workers": workers or settings.workers})
    with open_workshop(settings) as workshop:
        console.print(f"[dim]{escape(workshop.door)}[/]\n")
        data_dir = workshop.settings.data_dir
        tickets, labels = load_tickets("workshop", data_dir=data_dir, limit=limit), load_labels(data_dir=data_dir)
        if workshop.endpoint is not None:
            with console.status("First use: training the small models on the train split (kept in .cache)"):
                workshop.endpoint.warm_up()
        strategies = standard_strategies(workshop.bedrock)
        columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            bars = {name: progress.add_task(name, total=len(tickets)) for name in strategies}
            outcomes = run_strategies(
                strategies, tickets, workers=settings.workers, on_done=lambda name, _: progress.advance(bars[name])
            )
    scores = [score(name, found, labels) for name, found in outcomes.items()]
    console.print(_comparison_table(scores))
    console.print(_what_it_says(scores))


@app.command()
def doctor(
    json_output: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    production: Annotated[
        bool, typer.Option("--production", help="Go through the check-list for production instead.")
    ] = False,
    policy: Annotated[
        bool, typer.Option("--policy", help="Print the IAM policy of the pair in use, and check nothing.")
    ] = False,
) -> None:
    """Check the set-up: one line a check, OK or FAIL with its fix. Exit code 1 if anything failed."""
    from workshop_lib.bedrock.catalogue import Catalogue
    from workshop_lib.lessons.doctor import examine
    from workshop_lib.lessons.production import examine_production, policy_of

    if policy:
        settings = Settings.load()
        catalogue = Catalogue.load(settings.data_dir / "models.json", pair=settings.pair, scope=settings.profile_scope)
        print(json.dumps(policy_of(settings, catalogue), indent=2))
        return
    failed = False
    for finding in examine_production() if production else examine():
        failed |= finding.status == "FAIL"
        if json_output:
            print(json.dumps(finding.as_dict()))
        else:
            console.print(finding.as_markup())
    raise typer.Exit(1 if failed else 0)


@app.command()
def triage(
    subject: Annotated[str, typer.Option(help="The ticket's subject.")] = "",
    body: Annotated[str, typer.Option(help="The ticket's text.")] = "",
    file: Annotated[Path | None, typer.Option(help="A JSONL file of tickets instead: id, subject, body.")] = None,
    strategy: Annotated[str, typer.Option(help="cascade, strong-only or cheap-only.")] = "cascade",
) -> None:
    """Triage one ticket, or each of a JSONL file: one JSON line a ticket."""
    from workshop_lib.evaluation.strategies import standard_strategies
    from workshop_lib.triage.datasets import read_tickets
    from workshop_lib.workshop import open_workshop

    tickets = list(read_tickets(file)) if file is not None else [_one_ticket(subject, body)]
    failed = 0
    with open_workshop() as workshop:
        strategies = standard_strategies(workshop.bedrock)
        if strategy not in strategies:
            raise typer.BadParameter(f"choose from {', '.join(strategies)}", param_hint="--strategy")
        for ticket in tickets:
            outcome = strategies[strategy].run(ticket)
            failed += outcome.decision is None
            row = {
                "ticket_id": outcome.item_id,
                "decision": outcome.decision.model_dump(mode="json") if outcome.decision is not None else None,
                "tier": outcome.final.tier,
                "reasons": [reason.rule for reason in outcome.reasons],
                "cost_usd": outcome.cost_usd,
                "latency_ms": outcome.latency_ms,
                "error": str(outcome.error) if outcome.error is not None else None,
            }
            print(json.dumps(row, ensure_ascii=False))
    raise typer.Exit(1 if failed else 0)


@app.command()
def bulk(  # noqa: PLR0917  # a command's options are always named
    file: Annotated[Path, typer.Argument(help="A JSONL file of tickets: id, subject, body.")],
    store: Annotated[
        Path | None, typer.Option(help="SQLite file that keeps every row; default: FILE with the ending .run.db.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="All rows, once each, when the run ends: .parquet, or NDJSON. Default: NDJSON lines as they come."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Tickets in flight at once.")] = None,
    budget_usd: Annotated[
        float | None, typer.Option(help="Spending limit of this run; default: WORKSHOP_BUDGET_USD.")
    ] = None,
    deadline_s: Annotated[float | None, typer.Option(help="Seconds for a ticket.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many tickets of the file.")] = None,
    strategy: Annotated[str, typer.Option(help="cascade, strong-only or cheap-only.")] = "cascade",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again where the store has an error row.")
    ] = False,
) -> None:
    """Triage a file of any length. Run it again to go on: what the store has is not paid for twice.

    Exit code 0: every ticket has a decision. 1: some have an error row, or nothing could be begun. 3: the budget ended it.
    130: interrupted.
    """
    from workshop_lib.bulk import Store, StoreError, run_bulk
    from workshop_lib.evaluation.strategies import standard_strategies
    from workshop_lib.workshop import open_workshop

    path = store or file.with_suffix(".run.db")
    notes = Console(stderr=True)
    with open_workshop() as workshop:
        strategies = standard_strategies(workshop.bedrock)
        if strategy not in strategies:
            raise typer.BadParameter(f"choose from {', '.join(strategies)}", param_hint="--strategy")
        notes.print(f"[dim]{escape(workshop.door)}[/]")
        run = run_bulk(
            strategies[strategy], file, workers=workers or workshop.settings.workers, store=path,
            budget_usd=workshop.settings.budget_usd if budget_usd is None else budget_usd,
            deadline_s=deadline_s, limit=limit, retry_failed=retry_failed,
        )  # fmt: skip
        code = 0
        try:
            _show_progress(run, notes, as_they_come=out is None)
        except KeyboardInterrupt as interrupt:
            notes.print(f"\n{escape(str(interrupt))}", highlight=False)
            code = 130
        except StoreError as error:
            rescued = path.with_suffix(".unsaved.ndjson")
            if run.unsaved:
                rescued.write_text("".join(row.to_json() + "\n" for row in run.unsaved), encoding="utf-8")
                notes.print(f"{len(run.unsaved)} rows that were paid for are in {rescued}.", highlight=False)
            raise error from None
    with Store(path) as kept:
        if out is not None:
            notes.print(f"{kept.export(out)} rows in {out}.", highlight=False)
        notes.print(_bulk_summary(run, kept), highlight=False)
        if code == 0:
            code = 3 if run.stopped == "budget" else int(kept.failed > 0)
    raise typer.Exit(code)


@app.command()
def api(
    host: Annotated[str, typer.Option(help="Beyond 127.0.0.1 only with WORKSHOP_API_TOKEN set.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further name by which the service may be called.")
    ] = None,
) -> None:
    """The HTTP service: POST /api/triage, /api/triage/cascade (events) and /api/triage/bulk (NDJSON). Ctrl-C stops it."""
    import os

    import uvicorn

    from workshop_lib.service import check_address, create_app
    from workshop_lib.workshop import open_workshop

    token = os.environ.get("WORKSHOP_API_TOKEN") or None
    check_address(host, token)
    with open_workshop() as workshop:
        if workshop.endpoint is not None:
            with console.status("First use: training the small models on the train split (kept in .cache)"):
                workshop.endpoint.warm_up()
        console.print(f"[dim]{escape(workshop.door)}[/]")
        console.print(f"Triage on [bold]http://{host}:{port}[/]; its description is /openapi.json. Ctrl-C stops it.")
        service = create_app(workshop, token=token, hosts=[host, *(allow_host or ())])
        uvicorn.run(service, host=host, port=port, log_level="warning", access_log=False)


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8333,
    time_scale: Annotated[float, typer.Option(min=0, max=10, help="Share of each latency that is waited.")] = 0.05,
) -> None:
    """The local Bedrock endpoint alone, for the AWS CLI and other clients. Ctrl-C stops it."""
    from workshop_lib.bedrock.catalogue import Catalogue
    from workshop_lib.local.server import LocalEndpoint

    settings = Settings.load()
    catalogue = Catalogue.load(settings.data_dir / "models.json", pair=settings.pair, scope=settings.profile_scope)
    endpoint = LocalEndpoint(
        catalogue, port=port, time_scale=time_scale, data_dir=settings.data_dir, cache_dir=settings.cache_dir
    )
    try:
        with endpoint:
            console.print(f"Local Bedrock endpoint on [bold]{endpoint.url}[/] (this machine only). Ctrl-C stops it.")
            console.print("For other programs, in another terminal:\n")
            for line in (
                f"export AWS_ENDPOINT_URL_BEDROCK_RUNTIME={endpoint.url}",
                "export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_DEFAULT_REGION=us-west-2",
                "export AWS_EC2_METADATA_DISABLED=true NO_PROXY=127.0.0.1",
                "unset AWS_BEARER_TOKEN_BEDROCK",
            ):
                console.print(f"  {line}", highlight=False, soft_wrap=True)
            endpoint.wait()
    except KeyboardInterrupt:
        console.print("\nStopped.")


@app.command()
def tickets(
    count: Annotated[int, typer.Argument(min=1, help="How many.")],
    seed: Annotated[int, typer.Option(help="The same seed makes the same tickets.")] = 0,
    out: Annotated[Path | None, typer.Option(help="A JSONL file; default: standard output.")] = None,
) -> None:
    """Make any number of varied tickets, for load tests only: they are put together from parts and say nothing on quality."""
    from workshop_lib.triage.generator import generate

    with out.open("w", encoding="utf-8") if out is not None else nullcontext(sys.stdout) as stream:
        for ticket in generate(count, seed=seed):
            stream.write(ticket.model_dump_json(exclude_none=True) + "\n")


@app.command("catch-up")
def catch_up(lab: Annotated[str, typer.Argument(help="Number of the lab, e.g. 02.")]) -> None:
    """Put in place what a lab starts from, so that any lab can be your first, and say what was done before it."""
    from workshop_lib.lessons.latecomers import catch_up as place

    with console.status("First use: training the small models on the train split (kept in .cache)"):
        note = place(lab)
    console.print(repr(note), highlight=False, markup=False, soft_wrap=True)


@app.command("build-notebooks")
def build_notebooks(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if a learner copy is stale.")] = False,
    render: Annotated[
        bool, typer.Option("--render", help="Run the solved notebooks first and keep their outputs.")
    ] = False,
) -> None:
    """Build the learners' notebooks from the solved ones in notebooks/solutions."""
    from workshop_lib.lessons import notebooks

    if render:
        for path in notebooks.solved():
            with console.status(f"Running {path.name}"):
                notebooks.render(path)
    stale = notebooks.build(write=not check)
    for path in stale:
        console.print(f"{'stale' if check else 'written'}: {path.name}", highlight=False)
    raise typer.Exit(1 if check and stale else 0)


@app.command("build-embeddings")
def build_embeddings() -> None:
    """Write data/embeddings.npz and data/vectors.npz again, after a change to tickets, questions or the shop."""
    from workshop_lib.local.models import write_shipped

    with console.status("Embedding the texts (a minute or two)"):
        paths = write_shipped(Settings.load().data_dir)
    for path in paths:
        console.print(f"written: {path.name}, {path.stat().st_size / 1e6:.1f} MB", highlight=False)


def main() -> None:
    """Run the program; an error of ours is one sentence and an exit code, not a traceback."""
    try:
        app()
    except WorkshopError as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: {escape(str(error))}", highlight=False)
        sys.exit(1)


def _show_progress(run: BulkRun, notes: Console, *, as_they_come: bool) -> None:
    """Read a run to its end under a progress bar on standard error."""
    columns = (
        TextColumn("tickets"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=notes, disable=not notes.is_terminal) as progress:
        bar = progress.add_task("", total=run.total, facts="")
        for row in run:
            if as_they_come:
                print(row.to_json(), flush=True)
            share = run.escalated / max(1, run.tickets)
            progress.update(
                bar, completed=run.tickets + run.skipped, facts=f"USD {run.cost_usd:.4f}, {share:.0%} went up"
            )


def _bulk_summary(run: BulkRun, kept: Store) -> str:
    done = f"{run.tickets} tickets in {run.elapsed_s:.1f} s: {run.escalated} went up, USD {run.cost_usd:.6f}."
    before = f" {run.skipped} were done already." if run.skipped else ""
    budget = " The budget is used up: the next ticket might pass it." if run.stopped == "budget" else ""
    failed = f" {kept.failed} have an error row: --retry-failed asks them again." if kept.failed else ""
    return f"{done}{before}{budget}{failed} All of it is in {kept.path} (USD {kept.cost_usd:.6f})."


def _one_ticket(subject: str, body: str) -> Ticket:
    from pydantic import ValidationError

    try:
        return Ticket(id="cli", subject=subject, body=body)
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"], param_hint="--subject/--body") from None


def _comparison_table(scores: Sequence[Scores]) -> Table:
    title = f"{scores[0].n} workshop tickets: shares in %, 95 % intervals in brackets"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("strategy", style="bold", no_wrap=True)
    for name in (
        "USD per\n1,000",
        "p50\ns",
        "p95\ns",
        "category\nagrees",
        "all three\nagree",
        "flags\nfound",
        "went\nup",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for s in scores:
        table.add_row(
            s.strategy,
            f"{s.cost_per_1000_usd:.3f}",
            f"{s.latency_p50_ms / 1e3:.1f}",
            f"{s.latency_p95_ms / 1e3:.1f}",
            *(_percent(share) for share in (s.category, s.joint, s.needs_human_recall, s.escalated)),
        )
    return table


def _percent(share: Share | None) -> str:
    return "-" if share is None else f"{share.value:.0%}\n\\[{100 * share.low:.0f}-{100 * share.high:.0f}]"


def _what_it_says(scores: Sequence[Scores]) -> str:
    by_name = {s.strategy: s for s in scores}
    cascade, strong = by_name["cascade"], by_name["strong-only"]
    fired = ", ".join(f"{rule} {n}" for rule, n in sorted(cascade.reasons.items(), key=lambda kv: -kv[1])) or "none"
    return (
        f"The cascade cost {cascade.cost_usd / strong.cost_usd:.0%} of strong-only. Rules that sent tickets up: {fired}.\n"
        f"With {cascade.n} tickets the intervals are wide: lab 04 shows what can and cannot be concluded from them."
    )
