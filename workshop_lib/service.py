"""What is served over HTTP: one ticket by the strong model, one through the cascade step by step, many in bulk.

    POST /api/triage           a ticket -> its decision by the strong model alone, the baseline
    POST /api/triage/cascade   a ticket -> server-sent events: tier-started, tier-finished, escalated, finished | failed
    POST /api/triage/bulk      {"tickets": [...]} -> NDJSON, one `Row` a line as it comes

A request is refused as a whole before anything is paid for, or answered; a client that leaves is not paid for further.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import anyio
import anyio.to_thread
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.bulk.rows import Row, RowError
from workshop_lib.bulk.runner import BulkRun, run_bulk
from workshop_lib.cascade.attempt import Event
from workshop_lib.evaluation.strategies import standard_strategies
from workshop_lib.triage.schema import Decision, Ticket

if TYPE_CHECKING:
    from workshop_lib.workshop import Workshop

MAX_BODY = 2_000_000
"""Bytes of a request."""
MAX_TICKETS = 500
"""Tickets of one bulk request: more is a job for `workshop bulk`, which can be resumed."""
MAX_REQUESTS = 16
"""Requests that are answered at once; further ones wait."""
UNBUFFERED = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
T = TypeVar("T")
_JSON: TypeAdapter[Any] = TypeAdapter(Any)


class Failure(BaseModel):
    """Why a request has no answer."""

    error: str = Field(description="What happened and what to do next.")
    problems: list[str] = Field(default_factory=list, description="One line a bad item, with its place and id.")
    cost_usd: float = Field(default=0.0, description="What was paid all the same.")


class Triaged(BaseModel):
    """A ticket's decision by one model, and its bill."""

    ticket_id: str
    model: str
    decision: Decision
    latency_ms: float
    usage: Usage
    cost_usd: float
    attempts: int


class Tickets(BaseModel):
    """A bulk request."""

    model_config = ConfigDict(extra="forbid")

    tickets: Annotated[list[Ticket], Field(min_length=1, max_length=MAX_TICKETS)]
    budget_usd: float | None = Field(default=None, gt=0, description="Spending limit of this request.")

    @model_validator(mode="after")
    def _distinct(self) -> Tickets:
        ids = [ticket.id for ticket in self.tickets]
        twice = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
        if twice:
            raise ValueError(f"ids that occur twice: {', '.join(twice[:10])}")
        return self


REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": Failure, "description": "The request cannot be used; nothing was called."},
    401: {"model": Failure, "description": "The token is missing or wrong."},
    413: {"model": Failure, "description": f"The request is longer than {MAX_BODY} bytes."},
}
NO_ANSWER: dict[int | str, dict[str, Any]] = {
    502: {"model": Failure, "description": "The model gave no usable answer."}
}
ROWS: dict[int | str, dict[str, Any]] = {
    200: {"description": "One row a line.", "content": {"application/x-ndjson": {"schema": Row.model_json_schema()}}}
}


def create_app(workshop: Workshop, *, token: str | None = None, hosts: Sequence[str] = ()) -> FastAPI:
    """The service over an open workshop.

    Args:
        workshop: whose client, pair and worker count are used.
        token: what a caller must send as `Authorization: Bearer`; None: nothing (for loopback only, see `check_address`).
        hosts: further names by which the service may be called, beside loopback's. Others are refused, so that a page of
            another site cannot spend money through a browser on this machine.
    """
    # No /docs page: it would load its scripts from elsewhere. /openapi.json is published.
    app = FastAPI(title="Two-tier triage", version="1", docs_url=None, redoc_url=None, description=__doc__ or "")
    cascade = standard_strategies(workshop.bedrock)["cascade"]
    turns = anyio.CapacityLimiter(MAX_REQUESTS)

    @app.post("/api/triage", responses={**REFUSED, **NO_ANSWER})
    async def triage(ticket: Ticket) -> Triaged:
        """The strong model alone."""
        tried = await anyio.to_thread.run_sync(lambda: workshop.triage(ticket, model="strong"), limiter=turns)
        if tried.decision is None:
            raise HTTPException(502, {"error": str(tried.error), "cost_usd": tried.cost_usd})
        return Triaged(
            ticket_id=ticket.id,
            model=tried.model,
            decision=tried.decision,
            latency_ms=tried.latency_ms,
            usage=tried.usage,
            cost_usd=tried.cost_usd,
            attempts=tried.http_attempts,
        )

    @app.post("/api/triage/cascade", response_class=EventSourceResponse, responses=REFUSED)
    async def triage_cascade(ticket: Ticket) -> AsyncIterator[ServerSentEvent]:
        """The cascade, step by step."""
        async for event in _stepwise(cascade.stream(ticket), turns):
            yield ServerSentEvent(event=event.kind, data=_told(event))

    @app.post("/api/triage/bulk", response_class=StreamingResponse, responses={**REFUSED, **ROWS})
    async def triage_bulk(given: Tickets) -> StreamingResponse:
        """Many tickets through the cascade: rows as they come."""
        run = run_bulk(cascade, given.tickets, workers=workshop.settings.workers, budget_usd=given.budget_usd)
        return StreamingResponse(_lines(run, turns), media_type="application/x-ndjson", headers=UNBUFFERED)

    @app.exception_handler(RequestValidationError)
    async def unusable(_: Request, error: RequestValidationError) -> JSONResponse:
        said = "The request cannot be used, and nothing was called. Mend what is named in problems and send it again."
        return _failure(400, said, problems=list(_problems(error)))

    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, error: StarletteHTTPException) -> JSONResponse:
        detail: Any = error.detail
        return _failure(error.status_code, **(detail if isinstance(detail, dict) else {"error": str(detail)}))

    app.add_middleware(_Gate, token=token)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", *hosts])
    return app


def check_address(host: str, token: str | None) -> None:
    """Refuse to listen beyond this machine without a token: whoever can reach the service can spend its money.

    Raises:
        ConfigurationError: the address is not loopback's, and there is no token.
    """
    local = host == "localhost"
    with contextlib.suppress(ValueError):
        local = local or ipaddress.ip_address(host).is_loopback
    if not local and not token:
        raise ConfigurationError(
            f"{host} can be reached from other machines, and no token is set.",
            advice="Set WORKSHOP_API_TOKEN to a long random text, or keep to 127.0.0.1.",
        )


class _Gate:
    """Stands before every request: its token, its length, and a kind of content that no form of another site can send."""

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        refusal = self._refusal(Request(scope))
        if refusal is not None:
            return await refusal(scope, receive, send)
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY:
                raise HTTPException(413, f"The request is longer than {MAX_BODY} bytes. Send fewer tickets at a time.")
            return message

        return await self._app(scope, counted, send)

    def _refusal(self, request: Request) -> JSONResponse | None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._token and not hmac.compare_digest(given.encode(), self._token.encode()):
            return _failure(401, "Send the service's token: Authorization: Bearer ...")
        if request.method == "POST" and not request.headers.get("content-type", "").startswith("application/json"):
            return _failure(400, "Send JSON, with the header Content-Type: application/json.")
        return None


async def _stepwise(steps: Iterator[T], turns: anyio.CapacityLimiter) -> AsyncIterator[T]:
    """A blocking iterator's steps, each taken in a thread. If the client leaves, the step under way is the last one."""
    end = object()
    while True:
        step: Any = await anyio.to_thread.run_sync(next, steps, end, limiter=turns, abandon_on_cancel=True)
        if step is end:
            return
        yield step


async def _lines(run: BulkRun, turns: anyio.CapacityLimiter) -> AsyncIterator[str]:
    try:
        async for row in _stepwise(iter(run), turns):
            yield row.to_json() + "\n"
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(run.close)


def _told(event: Event[Any]) -> dict[str, Any]:
    """An event as the data of its server-sent event."""
    data: dict[str, Any] = {"ticket_id": event.item_id, "tier": event.tier}
    if event.attempt is not None:
        tried = event.attempt
        data |= {
            "model": tried.model,
            "decision": tried.decision,
            "latency_ms": tried.latency_ms,
            "usage": tried.usage,
            "cost_usd": tried.cost_usd,
            "attempts": tried.http_attempts,
            "error": tried.error and RowError.of(tried.tier, tried.error),
        }
    if event.reasons:
        data["reasons"] = event.reasons
    if event.outcome is not None:
        whole = event.outcome
        data |= {
            "tier": whole.final.tier,
            "decision": whole.decision,
            "escalated": whole.escalated,
            "reasons": whole.reasons,
            "flags": whole.flags,
            "latency_ms": whole.latency_ms,
            "cost_usd": whole.cost_usd,
            "error": whole.error and RowError.of(whole.attempts[-1].tier, whole.error),
        }
    told: dict[str, Any] = _JSON.dump_python(data, mode="json")
    return told


def _problems(error: RequestValidationError) -> Iterator[str]:
    for problem in error.errors()[:20]:
        place = [part for part in problem["loc"] if part != "body"]
        given = error.body["tickets"][place[1]] if place[:1] == ["tickets"] and len(place) > 1 else None
        known = f" (id {given['id']!r})" if isinstance(given, dict) and "id" in given else ""
        yield f"{'.'.join(map(str, place)) or 'body'}{known}: {problem['msg']}"


def _failure(status: int, error: str, **more: Any) -> JSONResponse:
    return JSONResponse(Failure(error=error, **more).model_dump(), status)
