"""The local Bedrock endpoint: HTTP on loopback, spoken to by unmodified boto3, the AWS CLI, or anything else that knows Bedrock.

    with LocalEndpoint(catalogue) as endpoint:
        boto3.client("bedrock-runtime", endpoint_url=endpoint.url, ...)

It is Bedrock Runtime, Bedrock's batch jobs and as much of S3 as they need, at one address: what was signed for S3 is for S3.
Beside their own paths it answers `/_local/...`: health, journal, faults, quotas (see `workshop serve`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.bedrock.pacing import Quota
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.local.batch import BatchService
from workshop_lib.local.engine import Answer, Engine, stream_events
from workshop_lib.local.faults import Fault, FaultSchedule
from workshop_lib.local.guardrails import Guardrail, Guardrails, Topic
from workshop_lib.local.journal import Entry, Journal
from workshop_lib.local.metering import PromptCache, Quotas
from workshop_lib.local.models import load_answerer
from workshop_lib.local.objects import Objects
from workshop_lib.local.wire import EVENT_STREAM, ServiceError, Wire, event_bytes

MAX_BODY = 25_000_000
"""Bytes, as InvokeModel's own limit."""
DRIP_S = 0.05
"""Between two blanks of an endless answer."""
LEGAL = Topic(
    "legal-demands",
    "A demand by a lawyer, a court, the police or an authority.",
    (
        "We have a court order and request the records of this user.",
        "This is a formal legal complaint; our lawyers will sue you.",
        "The police ask for the account data of a suspect.",
        "Please preserve all data, a subpoena will follow.",
    ),
    threshold=0.45,
)
_SECOND = Guardrail(
    words=("forbidden",),
    topics=(LEGAL,),
    mask=("EMAIL", "PHONE"),
    block=(
        "CREDIT_DEBIT_CARD_NUMBER",
        "AWS_ACCESS_KEY",
        "INTERNATIONAL_BANK_ACCOUNT_NUMBER",
        "US_SOCIAL_SECURITY_NUMBER",
    ),
    prompt_attack="MEDIUM",
)
GUARDRAILS = {
    ("workshop", "1"): Guardrail(words=("forbidden",)),
    ("workshop", "2"): _SECOND,
    ("workshop", "DRAFT"): replace(_SECOND, prompt_attack="HIGH"),
}
"""One guardrail, as it grew: version 1 knows words and three kinds of personal data, 2 also a topic, prompt attacks and more kinds; the
draft is what might become version 3, with the stricter filter under trial."""


class LocalEndpoint:
    """One endpoint with its own models, quotas, cache, faults and journal. Start it with `start()` or as a context manager."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        port: int = 0,
        time_scale: float = 0.05,
        data_dir: Path = PROJECT / "data",
        cache_dir: Path = PROJECT / ".cache",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            catalogue: the models, their prices, cache rules and latencies.
            port: 0 takes a free one.
            time_scale: the share of each drawn latency that is really waited; `metrics.latencyMs` always says the whole.
            data_dir: where the training tickets and the answer key lie.
            cache_dir: where embeddings of the training tickets are kept between runs.
            clock: seconds for quotas and cache TTLs; injected by tests.
        """
        self.journal, self.faults = Journal(), FaultSchedule()
        self.quotas, self.cache = Quotas(clock), PromptCache(clock)
        self.time_scale = time_scale
        self._catalogue = catalogue
        self._wire = Wire()
        self._engine = Engine(
            catalogue,
            lambda: load_answerer(data_dir, cache_dir),
            quotas=self.quotas,
            cache=self.cache,
            faults=self.faults,
            guardrails=Guardrails(GUARDRAILS),
            check=lambda name, params: self._wire.check(self._wire.model.operation_model(name), params),
        )
        self.objects = Objects()
        self.batch = BatchService(self._engine, self._wire, self.objects, self.journal, lambda: self.time_scale)
        self._port, self._server, self._thread = port, None, None  # type: tuple[int, uvicorn.Server | None, threading.Thread | None]
        routes = [
            Route("/_local/health", self._health, methods=["GET"]),
            Route("/_local/journal", self._show_journal, methods=["GET", "DELETE"]),
            Route("/_local/faults", self._set_faults, methods=["POST", "DELETE"]),
            Route("/_local/quotas", self._set_quota, methods=["POST"]),
            Route("/{path:path}", self._serve, methods=["GET", "POST", "PUT", "DELETE"]),
        ]
        self.app = Starlette(routes=routes)

    @property
    def url(self) -> str:
        """Where it listens; give it to boto3 as endpoint_url."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> LocalEndpoint:
        """Listen, in a thread of its own.

        Raises:
            ConfigurationError: the port is taken.
        """
        # The protocol is named because asyncio turns Nagle's algorithm off only where it is: left on, a reply waits 40 ms for an ACK.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if sys.platform != "win32":  # where it would let two servers share the port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self._port))
        except OSError as error:
            listener.close()
            raise ConfigurationError(
                f"Port {self._port} of 127.0.0.1 cannot be used: {error.strerror}.",
                advice="Another endpoint may still be running: stop it, or choose another port (0 takes a free one).",
            ) from error
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self.app,
            log_level="error",
            access_log=False,
            lifespan="off",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
        logging.getLogger("uvicorn.error").addFilter(_NotDropped())
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=server.run, args=([listener],), name="local-bedrock", daemon=True)
        self._thread.start()
        while not server.started and self._thread.is_alive():
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        """Close the port; requests under way get a second to finish."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout=5)
            self._server = self._thread = None

    def wait(self) -> None:
        """Block until the endpoint stops (for `workshop serve`)."""
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout=0.2)

    def warm_up(self) -> None:
        """Train or load the small models now, not at the first call."""
        self._engine.warm_up()

    def __enter__(self) -> LocalEndpoint:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    async def _serve(self, request: Request) -> Response:
        came = time.monotonic()
        raw_path = request.scope["raw_path"].split(b"?")[0].decode("ascii", "replace")
        if "/s3/aws4_request" in request.headers.get("authorization", ""):
            return await self._serve_object(request, raw_path)
        entry = Entry("", "", request.headers.get("amz-sdk-invocation-id", ""), _attempt_of(request.headers))
        try:
            answer, operation = await self._answer(request, raw_path, entry)
        except ServiceError as error:
            response = self._wire.error(error)
            entry.status, entry.error = response.status, error.code
            self.journal.add(entry)
            return Response(response.body, response.status, response.headers)
        except ClientDisconnect:
            return Response(status_code=499)
        entry.status, entry.usage, entry.cost_usd, entry.latency_ms = (
            200,
            answer.usage,
            answer.cost_usd,
            answer.latency_ms,
        )
        wait_s = answer.latency_ms * self.time_scale / 1e3
        if answer.fault is not None and answer.fault.kind == "drop":
            entry.status, entry.error, entry.cost_usd = 0, "drop", 0.0
            self.journal.add(entry)
            return _DroppedResponse()
        if answer.fault is not None and answer.fault.kind == "endless" and not operation.has_event_stream_output:
            entry.status, entry.error, entry.cost_usd = 0, "endless", 0.0
            self.journal.add(entry)
            return StreamingResponse(self._dripped(), 200, media_type="application/json")
        if operation.has_event_stream_output:
            if answer.fault is not None and answer.fault.mid_stream:
                entry.error = answer.fault.kind
            self.journal.add(entry)
            headers = {"x-amzn-requestid": str(uuid.uuid4())}
            return StreamingResponse(_streamed(answer, wait_s), 200, headers, media_type=EVENT_STREAM)
        await asyncio.sleep(max(0.0, wait_s - (time.monotonic() - came)))  # the small model's own time is part of it
        self.journal.add(entry)
        response = self._wire.result(operation, answer.result)
        return Response(response.body, response.status, response.headers)

    async def _serve_object(self, request: Request, raw_path: str) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=499)
        asked = (request.method, raw_path, request.query_params, request.headers, body)
        response = await run_in_threadpool(self.objects.answer, *asked)
        return Response(response.body, response.status, response.headers)

    async def _dripped(self) -> AsyncIterator[bytes]:
        """Blanks until the client goes; when this endpoint stops, the connection is dropped."""
        while self._server is not None and not self._server.should_exit:
            yield b" "
            await asyncio.sleep(DRIP_S)
        raise DropError("the endpoint stops")

    async def _answer(self, request: Request, raw_path: str, entry: Entry) -> tuple[Answer, Any]:
        if int(request.headers.get("content-length") or 0) > MAX_BODY:
            raise ServiceError("ValidationException", f"The request body is longer than {MAX_BODY} bytes.")
        body = await request.body()
        of_batch = raw_path.startswith("/model-invocation-job")
        wire, offered = (self.batch.wire, self.batch.operation) if of_batch else (self._wire, self._engine.operation)
        operation, path = wire.route(request.method, raw_path)
        entry.operation, entry.model_id = operation.name, path.get("modelId", "")
        compute = offered(operation.name)

        def answer() -> Answer:
            params = wire.parse(operation, path, request.headers, body, request.query_params)
            wire.check(operation, params)
            entry.guardrail = _guardrail_of(params)
            return compute(params, _region_of(request.headers))

        return await run_in_threadpool(answer), operation

    def _put_quota(self, given: dict[str, Any]) -> None:
        key = self._catalogue[given.pop("model")].key
        self.quotas.set(key, Quota(**given) if given else None)

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "endpoint": self.url, "calls": self.journal.calls})

    async def _show_journal(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.journal.clear()
        entries = [asdict(entry) for entry in self.journal]
        return JSONResponse({"calls": self.journal.calls, "cost_usd": self.journal.cost_usd, "requests": entries})

    async def _set_faults(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.faults.clear()
            return JSONResponse({"faults": "none"})
        return await _admin(request, lambda given: self.faults.add(Fault(**_with_set(given, "at"))))

    async def _set_quota(self, request: Request) -> Response:
        return await _admin(request, self._put_quota)


class _NotDropped(logging.Filter):
    """Keeps the schedule's own dropped connections out of the server's log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be logged."""
        return not (record.exc_info and isinstance(record.exc_info[1], DropError))


class DropError(ConnectionResetError):
    """Raised inside a response to make the server close its connection."""


async def _admin(request: Request, act: Callable[[dict[str, Any]], None]) -> Response:
    try:
        given = json.loads(await request.body())
        act(dict(given))
    except (ValueError, TypeError, KeyError, ConfigurationError) as error:
        return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 400)
    return JSONResponse({"set": given})


async def _streamed(answer: Answer, wait_s: float) -> AsyncIterator[bytes]:
    """Events as they would come: a third of the latency before the first, the rest spread over the others."""
    events = list(stream_events(answer))
    for i, event in enumerate(events):
        await asyncio.sleep(wait_s / 3 if i == 0 else wait_s * 2 / 3 / max(1, len(events) - 1))
        yield event_bytes(event)


class _DroppedResponse(Response):
    """Promises more than it sends and ends, so that the server closes the connection under the client."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # chunked, so that the end is missed
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        raise DropError("the schedule says: drop this connection")


def _attempt_of(headers: Mapping[str, str]) -> int:
    found = re.search(r"attempt=(\d+)", headers.get("amz-sdk-request", ""))
    return int(found[1]) if found else 1


def _guardrail_of(params: Mapping[str, Any]) -> str:
    """As Converse and ConverseStream name it in `guardrailConfig`, ApplyGuardrail and InvokeModel among their own parameters."""
    named = params.get("guardrailConfig", params)
    return f"{named.get('guardrailIdentifier', '')} {named.get('guardrailVersion', '')}".strip()


def _region_of(headers: Mapping[str, str]) -> str:
    """The Region the request was signed for; us-west-2 for unsigned ones (curl, bearer tokens)."""
    found = re.search(r"Credential=[^/]+/\d+/([a-z0-9-]+)/", headers.get("authorization", ""))
    return found[1] if found else "us-west-2"


def _with_set(given: dict[str, Any], name: str) -> dict[str, Any]:
    return {**given, name: frozenset(given.get(name, ()))}
