"""Which strategy is worth it: every model is asked once per ticket, and all strategies are worked out from those answers.

comparison = bakeoff(tickets, labels)                     # strong-only, cheap-only, cascade, ...
comparison.paired("cascade", "cheap-only").decides
comparison = replay(Recording.load(path), tickets, labels, ...)   # the same, without a call
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.bedrock.client import Bedrock, default_client
from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.bulk.rows import Row
from workshop_lib.bulk.runner import BulkRun, run_bulk
from workshop_lib.bulk.store import Store, StoreInUse
from workshop_lib.cascade.attempt import Attempt, Tier
from workshop_lib.cascade.cascade import Cascade, id_of
from workshop_lib.evaluation.comparison import LABELLED, Comparison
from workshop_lib.evaluation.metrics import (
    TRIAGE_MEASURES,
    Measure,
    family_of,
    score,
)
from workshop_lib.evaluation.provenance import Provenance, Recording, RecordingError
from workshop_lib.evaluation.statistics import Share, kappa
from workshop_lib.evaluation.strategies import Asked, Strategy, all_strategies, identity_of, work_out
from workshop_lib.triage.task import TRIAGE, Task

PATIENCE_S = 300
"""How long to wait for another program that fills the same store."""


class LockedSplit(ConfigurationError):
    """The test split was asked for without saying that this is the final measurement."""

    default_advice = (
        "Choose everything on calibration first. For the one figure that you publish, say --final (or final=True)."
    )


def bakeoff(
    tickets: Sequence[Any],
    labels: Mapping[str, Any],
    strategies: Mapping[str, Strategy] | None = None,
    *,
    client: Bedrock | None = None,
    tiers: Sequence[Tier] = (),
    task: Task[Any] = TRIAGE,
    measures: Sequence[Measure] = TRIAGE_MEASURES,
    store: Path | None = None,
    workers: int = 8,
    budget_usd: float | None = None,
    final: bool = False,
    seed: int = 0,
    on_row: Callable[[Row], None] | None = None,
) -> Comparison:
    """Compare strategies on labelled tickets. Each tier is asked once per ticket; asked again, the answers come from the store.

    Args:
        tickets: what the task reads.
        labels: the answer key by ticket id.
        strategies: by name; None: `all_strategies`.
        client: who calls; None: the client of the workshop opened last.
        tiers: to be asked for beside those of the cascades, for functions that use others than cheap and strong.
        task, measures: what is asked and judged.
        store: folder of the answers; None: in the cache folder. A file there belongs to one prompt, tier and door.
        workers: calls in flight at once.
        budget_usd: spending limit of this call. What was paid before it was reached is kept.
        final: needed for the locked test split.
        seed: of the intervals.
        on_row: told of each answer as it comes.

    Raises:
        LockedSplit: a ticket of the test split without `final`.
        ConfigurationError: no tickets, a ticket without a label, or two tiers of one name.
        RecordingError: the budget was reached; run again to go on.
    """
    client = client if client is not None else default_client()
    strategies = all_strategies(labels, client.catalogue) if strategies is None else strategies
    asked = tiers_of(strategies, tiers)
    _unlock(tickets, labels, final)
    recording = record(
        tickets, labels, asked, client=client, task=task, store=store, workers=workers, budget_usd=budget_usd,
        on_row=on_row,
    )  # fmt: skip
    return _compare(
        recording, tickets, labels, strategies=strategies, task=task, measures=measures, final=final, seed=seed
    )


def replay(
    recording: Recording,
    tickets: Sequence[Any],
    labels: Mapping[str, Any],
    strategies: Mapping[str, Strategy] | None = None,
    *,
    catalogue: Catalogue,
    door: Mapping[str, Any],
    tiers: Sequence[Tier] = (),
    task: Task[Any] = TRIAGE,
    measures: Sequence[Measure] = TRIAGE_MEASURES,
    final: bool = False,
    seed: int = 0,
    limit: int | None = None,
) -> Comparison:
    """The same from recorded answers: no call is made.

    Args:
        recording: of at least these tiers.
        catalogue, door: of today, to be held against the recording's.
        tickets, labels, strategies, tiers, task, measures, final, seed: as `bakeoff`.
        limit: judge the first so many tickets only.

    Raises:
        RecordingError: it belongs to something else, or lacks answers.
        LockedSplit, ConfigurationError: as `bakeoff`.
    """
    strategies = all_strategies(labels, catalogue) if strategies is None else strategies
    _unlock(tickets, labels, final)
    now = Provenance.of(tickets, labels, tiers_of(strategies, tiers), catalogue=catalogue, door=door, task=task)
    notes, tickets = recording.check(now), tickets[:limit]
    return _compare(
        recording,
        tickets,
        labels,
        strategies=strategies,
        task=task,
        measures=measures,
        final=final,
        seed=seed,
        notes=notes,
    )


def record(
    tickets: Sequence[Any],
    labels: Mapping[str, Any],
    tiers: Sequence[Tier],
    *,
    client: Bedrock,
    task: Task[Any] = TRIAGE,
    store: Path | None = None,
    workers: int = 8,
    budget_usd: float | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> Recording:
    """Ask each tier about each ticket, in bulk; what the store has an answer to is not asked again. Arguments as `bakeoff`.

    Raises:
        RecordingError: the budget was reached before the end.
        ConfigurationError: no tickets, or an unusable one.
    """
    if not tickets:
        raise ConfigurationError("There are no tickets to ask about.", advice="Check the split, the file and --limit.")
    made = Provenance.of(tickets, labels, tiers, catalogue=client.catalogue, door=client.door, task=task)
    folder = store or client.settings.cache_dir / "bakeoff"
    folder.mkdir(parents=True, exist_ok=True)
    order, rows, spent = {id_of(ticket): i for i, ticket in enumerate(tickets)}, list[Row](), 0.0
    for tier in tiers:
        left = None if budget_usd is None else budget_usd - spent
        if left is not None and left <= 0:
            raise _half(rows, tickets, tiers, spent)
        cascade = Cascade([tier], task=task, client=client)
        file = folder / f"{_file_name(tier.name)}-{made.hash_of(tier.name)}.db"
        begin = partial(run_bulk, cascade, tickets, workers=workers, store=file, budget_usd=left, retry_failed=True)
        with _once_free(begin) as run:
            for row in run:
                if on_row is not None:
                    on_row(row)
            spent += run.cost_usd
        with Store(file) as kept:
            rows += sorted((row for row in kept if row.ticket_id in order), key=lambda row: order[row.ticket_id])
        if run.stopped == "budget":
            raise _half(rows, tickets, tiers, spent)
    return Recording(made, tuple(rows))


def tiers_of(strategies: Mapping[str, Strategy], more: Sequence[Tier] = ()) -> tuple[Tier, ...]:
    """The tiers that have to be asked. A function of your own may use cheap and strong, and those of `more`.

    Raises:
        ConfigurationError: no strategies, or two different tiers of one name.
    """
    found: dict[str, Tier] = {tier.name: tier for tier in more}
    functions = False
    for name, strategy in strategies.items():
        if not isinstance(strategy, Cascade):
            functions = True
            continue
        for tier in strategy.tiers:
            if found.setdefault(tier.name, tier) != tier:
                raise ConfigurationError(
                    f"{name} has a tier {tier.name} with other settings than another strategy's tier of that name.",
                    advice='Give it a name of its own: Tier("cheap", name="cheap-warm", temperature=1.0).',
                )
    if not strategies:
        raise ConfigurationError("There are no strategies to compare.", advice="Name one, or say --all.")
    if functions:
        found = {"cheap": Tier("cheap"), "strong": Tier("strong")} | found
    return tuple(found[name] for name in sorted(found))


def judged_agreement(judged: Mapping[str, Attempt[Any]], labels: Mapping[str, Any]) -> dict[str, Share | None]:
    """Cohen's kappa of a judge's labels against the key, by field; None where only one label occurs.

    Raises:
        RecordingError: the judge has answered none of the tickets.
    """
    answered = [(i, a.decision) for i, a in judged.items() if a.decision is not None]
    if not answered:
        first = next((a.error for a in judged.values()), None)
        raise RecordingError(f"The judge has labelled no ticket: {first}")
    found: dict[str, Share | None] = {}
    for field in LABELLED:
        said = [str(getattr(decision, field)) for _, decision in answered]
        key = [str(getattr(labels[i], field)) for i, _ in answered]
        families = [family_of(i, labels[i]) for i, _ in answered]
        found[field] = kappa(said, key, families) if len({*said, *key}) > 1 else None
    return found


def refuse_locked(labels: Mapping[str, Any], item_ids: Sequence[str]) -> None:
    """Called by everything that chooses or tunes: the test split may not take part.

    Raises:
        LockedSplit: it does.
    """
    locked = [i for i in item_ids if getattr(labels.get(i), "split", "") == "test"]
    if locked:
        raise LockedSplit(
            f"{len(locked)} tickets of the locked test split (first: {locked[0]}) are to be tuned on.",
            advice="Use calibration. What is tuned on the test split measures nothing on it.",
        )


def _unlock(tickets: Sequence[Any], labels: Mapping[str, Any], final: bool) -> None:
    if not tickets:
        raise ConfigurationError("There are no tickets to compare.", advice="Check the split, the file and --limit.")
    missing = [id_of(t) for t in tickets if id_of(t) not in labels]
    if missing:
        raise ConfigurationError(
            f"{len(missing)} tickets have no label (first: {missing[0]}).",
            advice="Label them, or leave them out: an unlabelled ticket can be neither right nor wrong.",
        )
    locked = sum(getattr(labels[id_of(t)], "split", "") == "test" for t in tickets)
    if locked and not final:
        raise LockedSplit(f"{locked} of these tickets are of the locked test split.")


def _compare(
    recording: Recording,
    tickets: Sequence[Any],
    labels: Mapping[str, Any],
    *,
    strategies: Mapping[str, Strategy],
    task: Task[Any],
    measures: Sequence[Measure],
    final: bool,
    seed: int,
    notes: tuple[str, ...] = (),
) -> Comparison:
    answers = recording.answers(task)
    needed = [tier.name for tier in tiers_of(strategies)]
    lacking = [id_of(t) for t in tickets if not set(needed) <= answers.get(id_of(t), {}).keys()]
    if lacking:
        raise RecordingError(
            f"{len(lacking)} of {len(tickets)} tickets have not been answered by all of {', '.join(needed)} (first: {lacking[0]})."
        )
    asked = [Asked(ticket, answers[id_of(ticket)], task) for ticket in tickets]
    outcomes = {name: [work_out(name, strategy, a) for a in asked] for name, strategy in strategies.items()}
    texts = {id_of(ticket): task.describe(ticket) for ticket in tickets}
    return Comparison(
        scores={
            name: score(name, found, labels, texts=texts, measures=measures, seed=seed)
            for name, found in outcomes.items()
        },
        outcomes=outcomes,
        tickets=tickets,
        labels=labels,
        recording=recording,
        identities={name: identity_of(strategy) for name, strategy in strategies.items()},
        measures=measures,
        final=final and any(getattr(labels[a.item_id], "split", "") == "test" for a in asked),
        seed=seed,
        notes=notes,
    )


def _once_free(begin: Callable[[], BulkRun]) -> BulkRun:
    """A run, as soon as no other program (the same lab in a second window, say) writes to its store."""
    import tenacity

    patient = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(StoreInUse),
        stop=tenacity.stop_after_delay(PATIENCE_S),
        wait=tenacity.wait_fixed(0.2),
        reraise=True,
    )
    return patient(begin)


def _half(rows: Sequence[Row], tickets: Sequence[Any], tiers: Sequence[Tier], spent: float) -> RecordingError:
    return RecordingError(
        f"The budget was reached with {len(rows)} of {len(tickets) * len(tiers)} answers, after USD {spent:.6f}.",
        advice="They are kept: the same call with more budget goes on from there.",
    )


def _file_name(tier: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in tier)
