"""How an agent is served as AgentCore Runtime serves it: the same app on this machine and on AWS, and unchanged boto3 to call either.

    app = make_app(lambda payload, session_id: {"answer": agent.answer(payload["prompt"])}, tracer=tracer)
    with serve(app) as url:
        client = boto3.client("bedrock-agentcore", endpoint_url=url, ...)
        client.invoke_agent_runtime(agentRuntimeArn="arn:aws:bedrock-agentcore:...", payload=b'{"prompt": "..."}')

The contract (https://docs.aws.amazon.com/bedrock-agentcore/latest/devguide/runtime-service-contract.html): POST /invocations with
JSON, GET /ping, the session's id in a header. What this machine cannot show is a session's own microVM, a cold start, IAM, a quota.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import uvicorn
from bedrock_agentcore.runtime import BedrockAgentCoreApp
from bedrock_agentcore.runtime.context import BedrockAgentCoreContext, RequestContext
from pydantic import BaseModel, TypeAdapter
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workshop_lib.bedrock.errors import ConfigurationError, WorkshopError
from workshop_lib.tracing.tracer import LiveSpan, Tracer

MAX_PAYLOAD = 100_000
"""Bytes of an invocation: a question, not a document. (AgentCore itself would let 100 MB in.)"""
START_S = 10.0
"""How long the server may take to start or to stop."""
LOG = logging.getLogger(__name__)
_JSON: TypeAdapter[Any] = TypeAdapter(Any)
Answer = Callable[[dict[str, Any], str | None], Mapping[str, Any] | BaseModel]
"""From the payload and the session's id (None: the caller gave none) to the result, an object that JSON can hold."""


def make_app(answer: Answer, *, tracer: Tracer | None = None, name: str = "invocation") -> BedrockAgentCoreApp:
    """The app around a function. Run it with `serve` here, with `app.run()` as the entry point of a deployment.

    A payload must be a JSON object with a `prompt`, a text; further fields are passed on. What cannot be used is answered with 400
    (413: too long) before anything is called, a WorkshopError of the function with 502, any other one with 500; each as
    {"error": what happened and what to do next}. Invocations run side by side in threads, so `answer` must allow that.

    Args:
        answer: see `Answer`.
        tracer: every invocation becomes one trace, with the session's id on its root; None: no traces.
        name: the root span's name.
    """
    app = BedrockAgentCoreApp(middleware=[Middleware(_Limit)])

    def invoke(payload: Any, context: RequestContext) -> Response:
        problem = _problem(payload)
        if problem:
            return _failure(400, problem)
        session_id, request_id = context.session_id, BedrockAgentCoreContext.get_request_id()
        began = tracer and tracer.request(name, text=payload["prompt"], session_id=session_id, request_id=request_id)
        with began or nullcontext() as live:
            return _answered(answer, payload, session_id, live)

    app.entrypoint(invoke)
    return app


@contextmanager
def serve(app: ASGIApp, *, port: int = 0) -> Iterator[str]:
    """Serve an app on this machine alone while a `with` lasts; gives its URL.

    It answers on the app's own paths, and on the path that boto3's `invoke_agent_runtime` calls, whatever the ARN in it. There an
    app's error becomes what AgentCore makes of it, RuntimeClientError; on AWS the app's own words are in its log group alone.

    Args:
        app: from `make_app`, or any other ASGI app with /invocations and /ping.
        port: 0: a free one.

    Raises:
        ConfigurationError: the port is taken, or the server does not start.
    """
    listener = socket.socket()
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"Port {port} cannot be used: {error}.", advice="Use port=0: a free one.") from error
    if isinstance(app, BedrockAgentCoreApp):
        app.logger.setLevel(logging.WARNING)  # it would write a line for every invocation
    config = uvicorn.Config(_DataPlane(app), log_level="error", lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="agentcore", daemon=True)
    thread.start()
    try:
        until = time.monotonic() + START_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > until:
                raise ConfigurationError("The agent's server did not start.", advice="Look at the log above.")
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_S)
        listener.close()


class _Limit:
    """Refuses a payload that is too long before it is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        parts: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
            if sum(map(len, parts)) > MAX_PAYLOAD:
                return await _failure(413, _too_long())(scope, receive, send)
        whole: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def given() -> Message:
            return whole.pop() if whole else await receive()

        return await self._app(scope, given, send)


class _DataPlane:
    """AgentCore's address of a runtime, on top of the app: /runtimes/{ARN}/invocations is the app's /invocations."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path.startswith("/runtimes/") and path.endswith("/invocations")):
            return await self._app(scope, receive, send)
        failed: list[int] = []
        said: list[bytes] = []

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                failed.append(message["status"])
            elif not failed:
                await send(message)
            else:
                said.append(message.get("body", b""))

        await self._app({**scope, "path": "/invocations", "raw_path": b"/invocations"}, receive, told)
        if failed:
            text = f"Received error ({failed[0]}) from runtime: {_error_of(b''.join(said))}"
            headers = {"x-amzn-errortype": "RuntimeClientError"}
            await JSONResponse({"message": text}, 424, headers)(scope, receive, send)
        return None


def _problem(payload: Any) -> str:
    """What is wrong with a payload, "" if nothing is."""
    example = 'Send a JSON object such as {"prompt": "Where is my order?"}.'
    if not isinstance(payload, dict):
        return f"The payload is of type {type(payload).__name__}, not an object. {example}"
    if "prompt" not in payload:
        return f"The payload has no prompt. {example}"
    if not isinstance(payload["prompt"], str):
        return f"The prompt is of type {type(payload['prompt']).__name__}, not a text. {example}"
    if not payload["prompt"].strip():
        return f"The prompt is empty. {example}"
    return ""


def _answered(answer: Answer, payload: dict[str, Any], session_id: str | None, live: LiveSpan | None) -> Response:
    try:
        body = _body(answer(payload, session_id))
    except WorkshopError as error:
        if live is not None:
            live.fail(error)
        return _failure(502, str(error))
    except Exception as error:
        if live is not None:
            live.fail(error)
        # Where it happened, but not the message: it may quote the question or a secret.
        where = "".join(traceback.format_tb(error.__traceback__))
        LOG.error("The agent failed with %s:\n%s", type(error).__name__, where)  # noqa: TRY400
        return _failure(500, f"The agent failed with {type(error).__name__}. Its log says where; nothing was answered.")
    return Response(body, media_type="application/json")


def _body(found: Any) -> str:
    if not isinstance(found, Mapping | BaseModel):
        raise TypeError(f"the agent gave a {type(found).__name__}, not an object")
    return _JSON.dump_json(found).decode()


def _failure(status: int, error: str) -> JSONResponse:
    return JSONResponse({"error": error}, status)


def _too_long() -> str:
    return f"The payload is longer than {MAX_PAYLOAD:,} bytes. Send the question alone."


def _error_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
