"""`workshop plan`: what a load takes of the account and costs, from the rows of your own bulk run or from the recorded run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from workshop_lib.bedrock.errors import BedrockError, ConfigurationError
from workshop_lib.bedrock.pacing import Quota
from workshop_lib.bedrock.settings import Settings

if TYPE_CHECKING:
    from workshop_lib.bedrock.catalogue import Catalogue
    from workshop_lib.operations.capacity import Plan, Traffic
    from workshop_lib.operations.scale import ScalePlan

console, notes = Console(), Console(stderr=True)


def plan(  # noqa: PLR0917  # a command's options are always named
    tickets_per_hour: Annotated[float, typer.Option(min=0.001, help="The load.")],
    store: Annotated[
        Path | None, typer.Option(help="The rows of a `workshop bulk` run; default: the recorded run.")
    ] = None,
    quota: Annotated[
        list[str] | None,
        typer.Option(help="What you may use, e.g. strong:tokens_per_minute=1000000; several times. Live, it is read."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="What if: another model at a tier, e.g. cheap=claude-haiku-5-5.")
    ] = None,
    wrong_usd: Annotated[float, typer.Option(min=0, help="What a wrong answer costs you.")] = 0,
    tickets: Annotated[
        int | None, typer.Option(min=1, help="So many in all: compare a process, Dask and batch jobs instead.")
    ] = None,
    deadline_h: Annotated[float, typer.Option(min=0.01, help="Hours for them; with --tickets.")] = 48,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Calls, workers, quota tokens and the monthly bill for a load, with intervals; which quota stops it first."""
    from workshop_lib.bedrock.catalogue import Catalogue
    from workshop_lib.operations.capacity import plan as planned
    from workshop_lib.operations.scale import SIZES, scale_plan

    settings = Settings.load()
    catalogue = Catalogue.load(settings.data_dir / "models.json", pair=settings.pair, scope=settings.profile_scope)
    quotas = _quotas(quota or ())
    traffic, right = _measured(store, settings, catalogue)
    if model:
        given: dict[str, str] = {}
        for each in model:
            tier, key = _split(each, r"([\w-]+)=([\w.-]+)", "--model", "cheap=claude-haiku-5-5")
            given[tier] = key
        unknown = set(given) - set(traffic.tiers)
        if unknown:
            raise typer.BadParameter(
                f"there is no tier {min(unknown)}: {', '.join(traffic.tiers)}", param_hint="--model"
            )
        traffic = traffic.with_models(given, catalogue)
    if settings.mode == "live" and not quotas:
        quotas = _read(settings, catalogue, traffic)
    if tickets is None:
        found: Plan | ScalePlan = planned(
            traffic, catalogue, tickets_per_hour=tickets_per_hour, quotas=quotas, right=right, wrong_usd=wrong_usd
        )
    else:
        found = scale_plan(traffic, catalogue, sizes=sorted({*SIZES, tickets}), quotas=quotas, deadline_h=deadline_h)
    if json_output:
        print(json.dumps(found.to_json(), allow_nan=False))
    else:
        console.print(str(found), highlight=False, markup=False, soft_wrap=True)


def _measured(store: Path | None, settings: Settings, catalogue: Catalogue) -> tuple[Traffic, dict[str, float]]:
    """Traffic, and how often each way is right, where there is a key to say so."""
    from workshop_lib.operations.capacity import Traffic

    if store is not None:
        from workshop_lib.bulk import Store

        with Store(store) as rows:
            return Traffic.of(rows, source=f"rows of {store.name}"), {}
    from workshop_lib.evaluation import Recording, replay, standard_strategies
    from workshop_lib.evaluation.strategies import NoCalls
    from workshop_lib.triage.datasets import load_labels, load_tickets
    from workshop_lib.workshop import door_of

    chosen, key = load_tickets("calibration", data_dir=settings.data_dir), load_labels(data_dir=settings.data_dir)
    labels = {ticket.id: key[ticket.id] for ticket in chosen}
    name = f"{settings.mode}-calibration.jsonl"
    if not (settings.data_dir / "recorded" / name).is_file():
        raise ConfigurationError(
            f"There is no recorded run of the {settings.mode} door to plan from.",
            advice="Run `workshop bulk tickets.jsonl` on some of your own tickets, then give its --store tickets.run.db.",
        )
    recording = Recording.load(settings.data_dir / "recorded" / name)
    strategies = standard_strategies(NoCalls())
    compared = replay(
        recording, chosen, labels, dict(strategies), catalogue=catalogue, door=door_of(settings, catalogue)
    )  # fmt: skip
    traffic = Traffic.of(compared.outcomes["cascade"], labels=labels, source=f"recorded run {name}")
    return traffic, {way: score.joint.value for way, score in compared.scores.items()}


def _read(settings: Settings, catalogue: Catalogue, traffic: Traffic) -> dict[str, Quota]:
    from workshop_lib.operations.quotas import account_quotas

    try:
        return account_quotas(settings, [catalogue[next(traffic.of_tier(tier)).model] for tier in traffic.tiers])
    except BedrockError as error:
        notes.print(f"Quotas cannot be read: {error.message}", highlight=False, markup=False)
        return {}


def _quotas(given: list[str] | tuple[str, ...]) -> dict[str, Quota]:
    found: dict[str, dict[str, float]] = {}
    pattern = r"([\w.-]+):((?:requests|tokens)_per_minute|tokens_per_day)=(\d+(?:\.\d+)?)"
    for each in given:
        name, kind, value = _split(each, pattern, "--quota", "strong:tokens_per_minute=1000000")
        found.setdefault(name, {})[kind] = float(value)
    return {name: Quota(**kinds) for name, kinds in found.items()}


def _split(words: str, pattern: str, option: str, example: str) -> tuple[str, ...]:
    match = re.fullmatch(pattern, words)
    if match is None:
        raise typer.BadParameter(f"{words!r} is not understood; write {example}", param_hint=option)
    return match.groups()
