"""The real local endpoint over real HTTP, spoken to by unmodified boto3: shared by all tests, wiped after each that used it."""

from __future__ import annotations

import functools
import gc
import http.client
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.endpoint
import botocore.session
import pytest
from botocore.config import Config

import workshop_lib.bedrock.client
from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.bedrock.client import Bedrock
from workshop_lib.bedrock.settings import Settings
from workshop_lib.cli import main
from workshop_lib.local.server import LocalEndpoint
from workshop_lib.triage.schema import Ticket

NANO = "nvidia.nemotron-nano-3-30b"
NOWHERE = "/nonexistent/aws"
ROOT = Path(__file__).resolve().parents[1]
LONG = (
    "tests/test_style.py",
    "tests/browser/",
    "notebooks/",
    "tests/bulk/test_cluster.py",
    "tests/local/test_shop_models.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no worker is left with one of them while the others have nothing to do."""

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(ROOT).as_posix()
        return next((i for i, start in enumerate(LONG) if path.startswith(start)), len(LONG))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What is there by now stays: the garbage collector need not look through it again and again."""
    gc.freeze()


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True)
class HttpAnswer:
    """What came back from a plain HTTP request."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """No AWS, workshop or proxy setting of the machine reaches a test, and no test reaches AWS."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            upper = name.upper()
            if upper.startswith(("AWS_", "WORKSHOP_", "BEDROCK_")) or upper.endswith("_PROXY"):
                patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", NOWHERE)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", NOWHERE)
        yield


@pytest.fixture(scope="session", autouse=True)
def _botocore_is_set_up_once() -> Iterator[None]:
    """Each client would read its service descriptions and set up its session again: a tenth of a second, in hundreds of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        patch.setattr(
            workshop_lib.bedrock.client, "_unconfigured", functools.cache(workshop_lib.bedrock.client._unconfigured)
        )
        yield


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return Catalogue.load()


@pytest.fixture(scope="session")
def _shared_clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def _shared_endpoint(catalogue: Catalogue, _shared_clock: Clock) -> Iterator[LocalEndpoint]:
    with LocalEndpoint(catalogue, time_scale=0, clock=_shared_clock) as endpoint:
        endpoint.warm_up()
        yield endpoint


@pytest.fixture
def clock(_shared_clock: Clock) -> Clock:
    """The endpoint's clock: quotas and cache TTLs go by it."""
    return _shared_clock


@pytest.fixture
def endpoint(_shared_endpoint: LocalEndpoint) -> Iterator[LocalEndpoint]:
    """The local endpoint, with an empty journal and cache, no faults and no quotas."""
    _wipe(_shared_endpoint)
    yield _shared_endpoint
    _wipe(_shared_endpoint)


def _wipe(endpoint: LocalEndpoint) -> None:
    endpoint.time_scale = 0
    endpoint.faults.clear()
    endpoint.journal.clear()
    endpoint.cache.clear()
    endpoint.batch.clear()
    for spec in Catalogue.load():
        endpoint.quotas.set(spec.key, None)


@pytest.fixture
def make_bedrock(endpoint: LocalEndpoint, catalogue: Catalogue) -> Iterator[Callable[..., Bedrock]]:
    """Our client at the local door; its own retries do not wait. Keywords go to `Bedrock`."""
    made: list[Bedrock] = []

    def make(settings: Settings | None = None, *, pair: str | None = None, **options: Any) -> Bedrock:
        settings = settings or Settings(mode="local", endpoint_url=endpoint.url)
        models = Catalogue.load(pair=pair) if pair else catalogue
        made.append(Bedrock(settings, models, **{"sleep": lambda seconds: None, **options}))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def bedrock(make_bedrock: Callable[..., Bedrock]) -> Bedrock:
    return make_bedrock()


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore retries as ever, but does not sleep in between."""
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture(scope="session")
def _boto_session() -> boto3.Session:
    return boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-west-2")


@pytest.fixture
def make_boto(endpoint: LocalEndpoint, _boto_session: boto3.Session) -> Callable[..., Any]:
    """A plain boto3 client of the endpoint. `region`, and `retries` as botocore's Config takes them."""

    def make(region: str = "us-west-2", **retries: Any) -> Any:
        config = Config(retries=retries or {"total_max_attempts": 1}, read_timeout=10)
        return _boto_session.client("bedrock-runtime", region_name=region, endpoint_url=endpoint.url, config=config)

    return make


@pytest.fixture
def boto(make_boto: Callable[..., Any]) -> Any:
    return make_boto()


@pytest.fixture
def ask(boto: Any) -> Callable[..., Any]:
    """Converse with one user text: `ask("hello", modelId=..., **fields)`."""

    def ask(text: str = "The export fails.", *, modelId: str = NANO, **fields: Any) -> Any:
        messages = fields.pop("messages", None) or [{"role": "user", "content": [{"text": text}]}]
        return boto.converse(modelId=modelId, messages=messages, **fields)

    return ask


@pytest.fixture
def send(endpoint: LocalEndpoint) -> Callable[..., HttpAnswer]:
    """A request by plain HTTP, with the path exactly as given: what curl would do."""

    def send(method: str, path: str, body: Any = None, **headers: str) -> HttpAnswer:
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", int(endpoint.url.rsplit(":", 1)[1]), timeout=10)
        try:
            connection.request(method, path, raw, {"content-type": "application/json", **headers})
            response = connection.getresponse()
            return HttpAnswer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    return send


@pytest.fixture
def here(endpoint: LocalEndpoint, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., SimpleNamespace]:
    """`workshop ...` in this process, at the tests' endpoint: to start both anew takes longer than most of what is tested."""

    def here(*arguments: str, **environ: str) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["workshop", *arguments])
        for name, value in {"COLUMNS": "100", "WORKSHOP_ENDPOINT_URL": endpoint.url, **environ}.items():
            monkeypatch.setenv(name, value)
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    return here


@pytest.fixture
def a_ticket() -> Ticket:
    """A ticket that is in no data file."""
    return Ticket(
        id="T-own-1",
        subject="Charged twice for March",
        body="Our card was charged twice for the March invoice. Please refund the second payment to our account.",
        customer_tier="pro",
    )
