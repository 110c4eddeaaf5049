"""Whether a set-up may serve a team: a check-list, one finding a point. What a machine cannot know is asked of a person (ASK)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from workshop_lib.bedrock import errors
from workshop_lib.bedrock.catalogue import Catalogue, ModelSpec
from workshop_lib.bedrock.settings import Settings
from workshop_lib.lessons.doctor import Finding, quotas
from workshop_lib.operations.permissions import iam_policy
from workshop_lib.triage.task import TRIAGE
from workshop_lib.workshop import Workshop, open_workshop

PRICES_MAX_DAYS = 92
"""A quarter: prices and models move about as fast."""
RETIREMENT_DAYS = 90
"""Time to measure a successor on one's own tickets."""
ASKED: tuple[tuple[str, str], ...] = (
    ("data in prompts", "Is it allowed, by contract and by law, that ticket texts reach these models? Who agreed, and when?"),
    ("residency", "May texts be processed in every Region of the inference profile ({regions})?"),
    ("logging", "Is model invocation logging on or off on purpose, and who may read, how long, what is encrypted?"),
    ("retention", "When are rows, traces, queues and results deleted, and who has tried it?"),
    ("people", "Who decides what is given to a human, within which time, and who stands in at night?"),
    ("switching off", "Who may turn the cascade off, how, and when was it last tried?"),
    ("account budget", "Is there an AWS Budgets alarm on the account, besides the limit of a run?"),
    ("threshold", "Was the escalation rule chosen on tickets of your own, other than those it was scored on?"),
)  # fmt: skip
"""What only a person can tick."""


def examine_production(
    settings: Settings | None = None, *, opened: Workshop | None = None, now: Callable[[], float] = time.time
) -> Iterator[Finding]:
    """Go through the list. A live run costs less than USD 0.001: one call of the guardrail, if there is one.

    Args:
        settings: None reads the environment and `.env`.
        opened: a workshop that is already open; None opens one and closes it again.
        now: the local clock, in seconds since 1970.

    Raises:
        ConfigurationError: settings or catalogue cannot be used.
    """
    workshop = opened or open_workshop(settings)
    try:
        today = datetime.fromtimestamp(now(), UTC).date()
        yield _guardrail(workshop)
        yield _budget(workshop.settings)
        yield _permissions(workshop)
        yield quotas(workshop)
        yield _retries(workshop)
        yield _max_tokens(workshop)
        yield _prices(workshop.catalogue, today)
        for spec in models_in_use(workshop.catalogue):
            yield _retirement(workshop.settings, spec, today)
        yield from _asked(workshop.catalogue)
    finally:
        if opened is None:
            workshop.close()


def models_in_use(catalogue: Catalogue) -> list[ModelSpec]:
    """The models of the pair that answer: its tiers and its classifier. The judge labels test tickets and serves nobody."""
    keys = [key for role, key in catalogue.roles.items() if role != "judge"]
    return [catalogue[key] for key in dict.fromkeys(keys)]


def policy_of(settings: Settings, catalogue: Catalogue) -> dict[str, Any]:
    """The IAM policy of the pair in use, with the settings' Region and guardrail.

    Raises:
        ConfigurationError: half a guardrail is set, or the Regions of a profile are not known.
    """
    guardrail = settings.guardrail
    return iam_policy(
        models_in_use(catalogue),
        region=settings.region or "us-west-2",
        guardrail=guardrail["guardrailIdentifier"] if guardrail else None,
    )


def _guardrail(workshop: Workshop) -> Finding:
    pin = "Publish a version in the Bedrock console and set BEDROCK_GUARDRAIL_ID and BEDROCK_GUARDRAIL_VERSION to it."
    try:
        guardrail = workshop.settings.guardrail
        if guardrail is None:
            return Finding("guardrail", "FAIL", "none is configured", pin)
        name, version = guardrail["guardrailIdentifier"], guardrail["guardrailVersion"]
        if version == "DRAFT":
            return Finding("guardrail", "FAIL", f"{name} is not pinned: DRAFT changes whenever somebody edits it", pin)
        found = workshop.bedrock.apply_guardrail(["Where do I download my invoice?"], source="INPUT")
    except errors.WorkshopError as error:
        return Finding("guardrail", "FAIL", error.message, error.advice)
    price = workshop.catalogue.guardrail_price
    said = f"{name} version {version} on every call; one short text costs USD {found.cost_usd:.6f} (prices as of {price.as_of})"
    if found.action != "none":
        return Finding(
            "guardrail",
            "FAIL",
            f"{name} version {version} has {found.action} an innocent question",
            "Test its policies.",
        )
    return Finding("guardrail", "OK", said)


def _budget(settings: Settings) -> Finding:
    if settings.budget_usd is None:
        return Finding("budget", "FAIL", "a run may spend without limit", "Set WORKSHOP_BUDGET_USD, e.g. to 5.")
    return Finding("budget", "OK", f"USD {settings.budget_usd:g} for a bulk run that names no other limit")


def _permissions(workshop: Workshop) -> Finding:
    try:
        document = policy_of(workshop.settings, workshop.catalogue)
    except errors.ConfigurationError as error:
        return Finding("IAM policy", "FAIL", error.message, error.advice)
    actions = sorted({action for statement in document["Statement"] for action in statement["Action"]})
    return Finding(
        "IAM policy",
        "ASK",
        f"Does the role allow these actions and no others: {', '.join(actions)}? `workshop doctor --policy` prints the document.",
    )


def _retries(workshop: Workshop) -> Finding:
    try:
        retries = workshop.bedrock.client("strong").meta.config.retries  # type: ignore[attr-defined]
    except errors.BedrockError as error:
        return Finding("retries", "FAIL", error.message, error.advice)
    said = f"owned by botocore: {retries['mode']}, {retries['total_max_attempts']} attempts, one client a model; ours only what it never retries"
    if retries["mode"] != "adaptive":
        return Finding("retries", "FAIL", said, "Make clients with Bedrock, which sets adaptive retries.")
    return Finding("retries", "OK", said)


def _max_tokens(workshop: Workshop) -> Finding:
    least = min(workshop.catalogue[role].max_output_tokens for role in ("cheap", "strong"))
    said = f"{TRIAGE.max_tokens} with every call (quota is reserved by it; the models would allow {least:,})"
    if TRIAGE.max_tokens > 2_048:
        return Finding("max_tokens", "FAIL", said, "Lower it to what the longest useful answer needs.")
    return Finding("max_tokens", "OK", said)


def _prices(catalogue: Catalogue, today: date) -> Finding:
    dated = [(spec.label, spec.as_of) for spec in models_in_use(catalogue)]
    label, oldest = min(dated, key=lambda pair: pair[1])
    days = (today - date.fromisoformat(oldest)).days
    said = f"the oldest, of {label}, are {days} days old ({oldest})"
    if days > PRICES_MAX_DAYS:
        fix = "Compare data/models.json with the price list and bring its dates up to date."
        return Finding("prices", "FAIL", said, fix)
    return Finding("prices", "OK", said)


def _retirement(settings: Settings, spec: ModelSpec, today: date) -> Finding:
    name = f"retirement of {spec.label}"
    fix = "Choose a successor, run `workshop bakeoff` with it, and change the pair in data/models.json."
    if spec.retires is not None and date.fromisoformat(spec.retires) - today < timedelta(days=RETIREMENT_DAYS):
        return Finding(name, "FAIL", f"it is served until {spec.retires}", fix)
    status = _lifecycle(settings, spec) if settings.mode == "live" else ""
    if status == "LEGACY":
        return Finding(name, "FAIL", "Bedrock lists it as LEGACY: it will be switched off", fix)
    if spec.retires is not None or status == "ACTIVE":
        until = f", served until {spec.retires}" if spec.retires else ""
        return Finding(name, "OK", f"Bedrock lists it as {status}{until}" if status else f"served until {spec.retires}")
    return Finding(name, "ASK", "The catalogue knows no date: what does the model lifecycle page of Bedrock say?")


def _lifecycle(settings: Settings, spec: ModelSpec) -> str:
    """ACTIVE or LEGACY; "" if Bedrock cannot be asked."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        session = boto3.Session(profile_name=settings.aws_profile, region_name=settings.region)
        quick = Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 1})
        found = session.client("bedrock", config=quick).get_foundation_model(modelIdentifier=spec.base_id)
    except (BotoCoreError, ClientError):
        return ""
    return str(found["modelDetails"].get("modelLifecycle", {}).get("status", ""))


def _asked(catalogue: Catalogue) -> Iterator[Finding]:
    profiles = [spec for spec in models_in_use(catalogue) if spec.id != spec.base_id]
    named = {region for spec in profiles for region in spec.profile_regions.get(spec.scope, ("any commercial Region",))}
    regions = ", ".join(sorted(named)) or "none: the models are called in your own Region"
    for name, question in ASKED:
        yield Finding(name, "ASK", question.format(regions=regions))
