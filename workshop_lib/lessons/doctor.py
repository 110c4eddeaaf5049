"""Whether this machine, account and network are ready: one finding a check, OK, SKIP or FAIL, each FAIL with its fix.

The checks cover the sixteen ways in which a first Bedrock session usually goes wrong (`TROUBLES`); every one runs in both doors
unless it can only mean something against AWS.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from workshop_lib.bedrock import errors
from workshop_lib.bedrock.catalogue import Catalogue, ModelSpec
from workshop_lib.bedrock.settings import PROJECT, Settings
from workshop_lib.cascade.attempt import Tier, attempt
from workshop_lib.operations.quotas import KINDS, account_quotas
from workshop_lib.triage.schema import Ticket
from workshop_lib.triage.task import TRIAGE
from workshop_lib.workshop import Workshop, open_workshop

TROUBLES: Mapping[int, str] = {
    1: "no credentials, an unknown profile, or expired ones",
    2: "AWS_BEARER_TOKEN_BEDROCK set, even to nothing",
    3: "no Region, AWS_REGION alone, or a model that the Region does not offer",
    4: "the account or a policy does not allow the model",
    5: "Anthropic's use-case form has not been submitted",
    6: "a bare model id where an inference profile is needed",
    7: "throttled: requests, tokens a minute, tokens a day",
    8: "a read timeout that is retried and billed again",
    9: "a connection pool smaller than the number of threads",
    10: "a boto3 too old for outputConfig and strict tools",
    11: "a request of the wrong shape",
    12: "an answer in text, cut short, or not in the asked form",
    13: "an error inside a stream, which no SDK retries",
    14: "an endpoint or proxy variable that sends calls elsewhere",
    15: "a clock that is off, so that signatures are refused",
    16: "cache counters that stay at zero",
}
MINIMUM_BOTO3 = (1, 42, 42)
MAX_SKEW_S = 240
"""AWS refuses signatures that are five minutes off."""
CANARY = Ticket(
    id="canary", subject="Where is my invoice?", body="I cannot find last month's invoice. Where do I download it?"
)


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    status: Literal["OK", "SKIP", "FAIL", "ASK"]
    """ASK: a person has to answer (see `production`)."""
    text: str
    fix: str = ""
    troubles: tuple[int, ...] = ()
    """Numbers of `TROUBLES` that this check looks for."""

    def as_dict(self) -> dict[str, Any]:
        """For `workshop doctor --json`."""
        return {
            "name": self.name,
            "status": self.status,
            "text": self.text,
            "fix": self.fix,
            "troubles": list(self.troubles),
        }

    def __str__(self) -> str:
        fix = f"\n        Fix: {self.fix}" if self.fix else ""
        return f"[{self.status:^4}] {self.name}: {self.text}{fix}"

    def as_markup(self) -> str:
        """Coloured for a terminal (rich); the words carry the meaning."""
        from rich.markup import escape

        colour = {"OK": "green", "SKIP": "yellow", "FAIL": "bold red", "ASK": "cyan"}[self.status]
        head = f"[{colour}]\\[{self.status:^4}][/]"
        fix = f"\n        [bold]Fix:[/] {escape(self.fix)}" if self.fix else ""
        return f"{head} {escape(self.name)}: {escape(self.text)}{fix}"


def examine(
    settings: Settings | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    opened: Workshop | None = None,
    now: Callable[[], float] = time.time,
) -> Iterator[Finding]:
    """Run all checks, the cheap ones first; a finding is yielded as soon as it is known. Live calls cost less than USD 0.02.

    Args:
        settings: None reads the environment and `.env`.
        environ: the environment variables to look at; None: the process's.
        opened: a workshop that is already open; None opens one and closes it again.
        now: the local clock, in seconds since 1970.
    """
    environ = os.environ if environ is None else environ
    yield _python()
    yield _boto3(importlib.metadata.version("boto3"))
    try:
        settings = settings or (opened.settings if opened is not None else Settings.load(environ))
        catalogue = Catalogue.load(settings.data_dir / "models.json", pair=settings.pair, scope=settings.profile_scope)
    except errors.ConfigurationError as error:
        yield Finding("settings", "FAIL", error.message, error.advice)
        return
    env_file = "and .env" if (PROJECT / ".env").is_file() else "(no .env: defaults)"
    yield Finding(
        "settings", "OK", f"door {settings.mode}, pair {catalogue.pair}, read from the environment {env_file}"
    )
    yield _bearer_token(settings, environ)
    yield _redirects(settings, environ)
    yield _region(settings, environ)
    yield _credentials(settings)
    yield _shape(catalogue)
    try:
        workshop = opened or open_workshop(settings)
    except errors.WorkshopError as error:
        yield Finding("open the workshop", "FAIL", error.message, error.advice)
        return
    try:
        yield from _with_workshop(workshop, now)
    finally:
        if opened is None:
            workshop.close()


def _with_workshop(workshop: Workshop, now: Callable[[], float]) -> Iterator[Finding]:
    client = _client_limits(workshop)
    yield client
    if client.status == "FAIL" and not _has_client(workshop):
        return
    reached = _endpoint(workshop, now)
    yield reached
    if reached.status == "FAIL":
        return
    for role in ("cheap", "strong"):
        yield _canary(workshop, role)
    yield _stream(workshop)
    yield quotas(workshop)
    yield _cache(workshop)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if tuple(sys.version_info) < (3, 11):
        return Finding(
            "Python", "FAIL", f"{version} is too old", "Install Python 3.11 or newer and make the environment again."
        )
    return Finding("Python", "OK", version)


def _boto3(version: str) -> Finding:
    troubles = (10,)
    found = tuple(int(part) for part in version.split(".")[:3])
    if found < MINIMUM_BOTO3:
        wanted = ".".join(map(str, MINIMUM_BOTO3))
        return Finding(
            "boto3",
            "FAIL",
            f"{version} does not know outputConfig and strict tools",
            f"pip install 'boto3>={wanted}'",
            troubles,
        )
    return Finding("boto3", "OK", version, troubles=troubles)


def _bearer_token(settings: Settings, environ: Mapping[str, str]) -> Finding:
    name, troubles = "AWS_BEARER_TOKEN_BEDROCK", (2,)
    if name not in environ:
        return Finding("bearer token", "OK", "not set: requests are signed with your credentials", troubles=troubles)
    if settings.mode == "local":
        return Finding("bearer token", "SKIP", "set, and ignored at the local door", troubles=troubles)
    if not environ[name]:
        return Finding(
            "bearer token", "FAIL", "set to nothing, which still wins over your credentials", f"unset {name}", troubles
        )
    return Finding(
        "bearer token",
        "SKIP",
        "set: it is used instead of your credentials; if calls fail with 403 it is stale",
        troubles=troubles,
    )


def _redirects(settings: Settings, environ: Mapping[str, str]) -> Finding:
    troubles = (14,)
    names = [n for n in ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL") if environ.get(n)]
    if settings.mode == "live" and names and environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() != "true":
        return Finding(
            "endpoint variables",
            "FAIL",
            f"{names[0]}={environ[names[0]]} sends live calls there",
            f"unset {' '.join(names)}",
            troubles,
        )
    proxy = next((n for n in ("HTTPS_PROXY", "https_proxy") if environ.get(n)), None)
    if settings.mode == "live" and proxy:
        return Finding("endpoint variables", "SKIP", f"{proxy} is set: calls go through that proxy", troubles=troubles)
    return Finding("endpoint variables", "OK", "nothing in the environment redirects the calls", troubles=troubles)


def _region(settings: Settings, environ: Mapping[str, str]) -> Finding:
    troubles = (3,)
    if settings.mode == "local":
        return Finding("Region", "SKIP", "the local door signs for us-west-2", troubles=troubles)
    import boto3

    try:
        region: str | None = settings.region or boto3.Session(profile_name=settings.aws_profile).region_name
    except Exception as error:  # a broken profile is reported by the credentials check
        region = None if environ.get("AWS_DEFAULT_REGION") is None else str(error)
    if region:
        return Finding("Region", "OK", region, troubles=troubles)
    hint = " (AWS_REGION is set, but boto3 does not read it)" if environ.get("AWS_REGION") else ""
    return Finding("Region", "FAIL", f"none is set{hint}", "export AWS_DEFAULT_REGION=us-west-2", troubles)


def _credentials(settings: Settings) -> Finding:
    troubles = (1,)
    if settings.mode == "local":
        return Finding("credentials", "SKIP", "the local door needs none", troubles=troubles)
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    fix = errors.CredentialsError.default_advice
    try:
        session = boto3.Session(profile_name=settings.aws_profile, region_name=settings.region or "us-west-2")
        found = session.get_credentials()
        if found is None:
            return Finding("credentials", "FAIL", "none found", fix, troubles)
        quick = Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 1})
        who = session.client("sts", config=quick).get_caller_identity()["Arn"]
    except (BotoCoreError, ClientError) as error:
        ours = errors.from_botocore(error)
        return Finding(
            "credentials",
            "FAIL",
            ours.message,
            ours.advice if isinstance(ours, errors.CredentialsError) else fix,
            troubles,
        )
    role = who.rsplit(":", 1)[-1]  # without the account number, which does not belong into outputs
    return Finding("credentials", "OK", f"{found.method}, as {role}", troubles=troubles)


def _shape(catalogue: Catalogue) -> Finding:
    """The request that the lessons send, held against the installed service model without sending it."""
    from botocore.loaders import Loader
    from botocore.model import ServiceModel
    from botocore.validate import ParamValidator

    troubles = (11,)
    model = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"), "bedrock-runtime")
    request = {
        "modelId": catalogue["cheap"].id,
        "messages": [{"role": "user", "content": [{"text": TRIAGE.describe(CANARY)}]}],
        "system": [{"text": TRIAGE.system}],
        "toolConfig": TRIAGE.tool.to_wire(),
        "inferenceConfig": {"maxTokens": TRIAGE.max_tokens, "temperature": 0.0},
    }
    shape: Any = model.operation_model("Converse").input_shape
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        return Finding(
            "request shape",
            "FAIL",
            report.generate_report(),
            "Undo the last change to the task or its schema.",
            troubles,
        )
    return Finding("request shape", "OK", "the triage request fits the installed service model", troubles=troubles)


def _client_limits(workshop: Workshop) -> Finding:
    troubles = (8, 9)
    try:
        config: Any = workshop.bedrock.client("cheap").meta.config
    except errors.BedrockError as error:
        return Finding("client", "FAIL", error.message, error.advice, troubles)
    pool, timeout, workers = config.max_pool_connections, config.read_timeout, workshop.settings.workers
    if pool < workers:
        return Finding(
            "client",
            "FAIL",
            f"{pool} connections for {workers} workers",
            "Set WORKSHOP_WORKERS before opening.",
            troubles,
        )
    return Finding(
        "client",
        "OK",
        f"{pool} connections for {workers} workers, read timeout {timeout:g} s, {config.retries['mode']} retries, one client a model",
        troubles=troubles,
    )


def _has_client(workshop: Workshop) -> bool:
    try:
        workshop.bedrock.client("cheap")
    except errors.BedrockError:
        return False
    return True


def _endpoint(workshop: Workshop, now: Callable[[], float]) -> Finding:
    troubles = (14, 15)
    url = workshop.bedrock.client("cheap").meta.endpoint_url
    handlers = [urllib.request.ProxyHandler({})] if workshop.settings.mode == "local" else []
    try:
        with urllib.request.build_opener(*handlers).open(url + "/_local/health", timeout=10) as response:
            date = response.headers.get("Date")
    except urllib.error.HTTPError as error:  # AWS answers an unsigned request with a refusal, which is all we need
        date = error.headers.get("Date")
    except OSError as error:
        fix = (
            "Is the local endpoint still running? Run the setup cell again."
            if workshop.settings.mode == "local"
            else errors.Unreachable.default_advice
        )
        return Finding("endpoint", "FAIL", f"{url} does not answer: {error}", fix, troubles)
    if date is not None:
        skew = abs(now() - parsedate_to_datetime(date).timestamp())
        if skew > MAX_SKEW_S:
            clock = datetime.fromtimestamp(now(), UTC).isoformat(timespec="seconds")
            return Finding(
                "endpoint",
                "FAIL",
                f"the clock says {clock}, {skew:.0f} s off the server's",
                "Set the clock (NTP): AWS refuses signatures that are 5 minutes off.",
                troubles,
            )
    who = "the local endpoint" if workshop.endpoint is not None else url  # its port is another one each time
    return Finding("endpoint", "OK", f"{who} answers, clocks agree", troubles=troubles)


def _canary(workshop: Workshop, role: str) -> Finding:
    """One call with the real tool: access, model id, Region, quota and the form of the answer all show here."""
    troubles = (3, 4, 5, 6, 7, 12)
    spec = workshop.catalogue[role]
    name = f"{role} tier ({spec.label})"
    tried = attempt(CANARY, Tier(role, repairs=0), task=TRIAGE, client=workshop.bedrock)
    if tried.error is not None:
        return Finding(name, "FAIL", tried.error.message, tried.error.advice, troubles)
    reply = tried.replies[-1]
    came = "a tool call" if reply.came_as == "tool" else "JSON in text, although the tool was forced: accepted"
    return Finding(name, "OK", f"{spec.id} answered with {came}; USD {tried.cost_usd:.6f}", troubles=troubles)


def _stream(workshop: Workshop) -> Finding:
    troubles = (13,)
    try:
        kinds = [event.kind for event in workshop.bedrock.stream("cheap", "Say hello.", max_tokens=50)]
    except errors.WorkshopError as error:
        return Finding("streaming", "FAIL", error.message, error.advice, troubles)
    broken = kinds.count("restarted")
    text = f"{len(kinds)} events" + (f", after {broken} broken streams that were started again" if broken else "")
    return Finding("streaming", "OK", text, troubles=troubles)


def quotas(workshop: Workshop) -> Finding:
    """The quotas of both models of the pair, where the account's can be read."""
    troubles = (7,)
    if workshop.settings.mode == "local":
        return Finding("quotas", "SKIP", "the local door has none unless a lesson sets one", troubles=troubles)
    specs = [workshop.catalogue[role] for role in ("cheap", "strong")]
    try:
        found = account_quotas(workshop.settings, specs)
    except errors.BedrockError as error:
        return Finding("quotas", "SKIP", f"cannot be read: {error.message}", troubles=troubles)
    said = []
    for spec in specs:
        limits = {kind: getattr(found[spec.key], kind) for kind in KINDS}
        known = [f"{value:,.0f} {kind.replace('_', ' ')}" for kind, value in limits.items() if value is not None]
        said.append(f"{spec.label}: {', '.join(known) or 'none listed'}")
    return Finding("quotas", "OK", "; ".join(said), troubles=troubles)


def _cache(workshop: Workshop) -> Finding:
    troubles = (16,)
    said = "; ".join(_cache_of(workshop, workshop.catalogue[role]) for role in ("cheap", "strong"))
    return Finding("prompt cache", "OK", said, troubles=troubles)


def _cache_of(workshop: Workshop, spec: ModelSpec) -> str:
    if spec.cache_minimum_tokens is None:
        return f"{spec.label} has none"
    try:
        tokens = workshop.bedrock.count_tokens(spec.key, "x", system=TRIAGE.system, tool=TRIAGE.tool)
    except errors.BedrockError:
        return f"{spec.label} caches from {spec.cache_minimum_tokens} tokens"
    verdict = "caches" if tokens >= spec.cache_minimum_tokens else "too short, so the cache counters stay 0"
    return f"{spec.label}: the triage prompt has {tokens} tokens of the {spec.cache_minimum_tokens} needed: {verdict}"
