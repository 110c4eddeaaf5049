"""How a model is called: Converse and ConverseStream through unmodified boto3, with one retry owner for each kind of failure.

    bedrock = Bedrock(Settings.load(), Catalogue.load())
    reply = bedrock.converse("strong", "Which plan has SSO?", max_tokens=200)
    reply.text, reply.cost_usd

botocore retries what it knows to be transient (429, 500, 503, dropped connections) in adaptive mode, whose rate limiter is per
client: so every model has a client of its own. tenacity retries only what botocore never does: 408, 424 caused by a 5xx, and an
error inside a stream. Nothing is retried by both.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import BotoCoreError, ResponseStreamingError

from workshop_lib.bedrock import errors
from workshop_lib.bedrock.catalogue import Catalogue, ModelSpec
from workshop_lib.bedrock.guardrails import Assessment, GuardrailUnits, Source, blocks, policies_of
from workshop_lib.bedrock.pacing import Limiter, Quota, pause
from workshop_lib.bedrock.replies import Gathered, Reply, StreamEvent, reply_from_wire
from workshop_lib.bedrock.settings import Settings

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_bedrock_runtime.client import BedrockRuntimeClient

Message = Mapping[str, Any]
MAX_CONNECTIONS = 256
"""Kept open at most, per model. They are made as they are needed, so a large number costs nothing to who uses few."""
GUARDRAIL = "guardrail"
"""What errors and the client of ApplyGuardrail are named by, where a model's key would stand."""
T = TypeVar("T")


@dataclass(frozen=True)
class Tool:
    """A tool that the model is made to call: its `schema` is the form of the answer."""

    name: str
    description: str
    schema: Mapping[str, Any]
    """JSON Schema of the tool's input, an object."""

    def to_wire(self) -> dict[str, Any]:
        """`toolConfig` with this tool forced."""
        spec = {"name": self.name, "description": self.description, "inputSchema": {"json": dict(self.schema)}}
        return {"tools": [{"toolSpec": spec}], "toolChoice": {"tool": {"name": self.name}}}


class Bedrock:
    """Calls models by role or catalogue key. Safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        *,
        max_attempts: int = 8,
        read_timeout_s: float = 60,
        own_attempts: int = 3,
        sleep: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        stand_ins: str = "",
    ) -> None:
        """
        Args:
            settings: door, Region, endpoint, guardrail.
            catalogue: ids and prices.
            max_attempts: HTTP requests at most for one call, botocore's retries included.
            read_timeout_s: how long to wait for an answer; each silent attempt may be billed, so fit it to max_tokens.
            own_attempts: tries at most for what botocore does not retry.
            sleep, clock: injected by tests; None: sleep really.
            stand_ins: which small models answer at the local door, for provenance.
        """
        import tenacity  # here, as boto3 below: `import workshop_lib` need not take their time

        self.settings, self.catalogue = settings, catalogue
        self._max_attempts, self._read_timeout = max_attempts, read_timeout_s
        self._given_sleep, self._sleep, self._clock = sleep, sleep or time.sleep, clock
        self._stand_ins = stand_ins
        self._own_attempts = own_attempts
        self._policy = tenacity.Retrying(  # threads can share it: what it knows of a call is kept by thread
            stop=tenacity.stop_after_attempt(own_attempts),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
            retry=tenacity.retry_if_exception(_we_retry),
            sleep=self._sleep,
            reraise=True,
        )
        self._limiters = {key: Limiter(quota, sleep=sleep or pause) for key, quota in self.share.items()}
        self._session: boto3.Session | None = None
        self._clients: dict[str, BedrockRuntimeClient] = {}
        self._lock = threading.Lock()
        self._sent = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets the settings and opens connections of its own; keys are never sent, it finds its own."""
        make = partial(
            Bedrock,
            max_attempts=self._max_attempts,
            read_timeout_s=self._read_timeout,
            own_attempts=self._own_attempts,
            sleep=self._given_sleep,
            clock=self._clock,
            stand_ins=self._stand_ins,
        )
        return make, (self.settings, self.catalogue)

    @property
    def share(self) -> dict[str, Quota]:
        """Model's key to what this session keeps to of its quota. A client in another process keeps to as much again: who starts
        several must share it out, as `run_on_cluster` does.
        """
        tokens = self.settings.tokens_per_minute
        return {} if tokens is None else {self.catalogue["strong"].key: Quota(tokens_per_minute=tokens)}

    @property
    def door(self) -> dict[str, str]:
        """What answers depend on beside model and prompt: results of different doors must not be mixed."""
        s = self.settings
        live = {"region": s.region or ""} if s.mode == "live" else {"stand_ins": self._stand_ins}
        guardrail = s.guardrail
        named = f"{guardrail['guardrailIdentifier']} {guardrail['guardrailVersion']}" if guardrail else ""
        return {"mode": s.mode, "guardrail": named, **live}

    def converse(
        self,
        model: str,
        messages: str | Sequence[Message],
        *,
        system: str | Sequence[Message] = (),
        tool: Tool | None = None,
        max_tokens: int = 512,
        temperature: float | None = 0.0,
        extra: Mapping[str, Any] | None = None,
    ) -> Reply:
        """One call.

        Args:
            model: role (cheap, strong, judge, classifier) or catalogue key.
            messages: the user's text, or a conversation in Converse's form.
            system: the system prompt, as text or as Converse blocks (for a cache point).
            tool: the form of the answer; the model is told that it must call it.
            max_tokens: longest answer. Always sent: the service reserves quota by it.
            temperature: 0 repeats itself, 1 varies; not sent to models that refuse it.
            extra: further Converse fields as they are on the wire, e.g. {"serviceTier": {"type": "flex"}}.

        Raises:
            BedrockError: the call failed; the class says why and what to do (see `errors`).
            UnknownModel: there is no such role or key.
        """
        spec = self.catalogue[model]
        request = self.request(
            model, messages, system=system, tool=tool, max_tokens=max_tokens, temperature=temperature, extra=extra
        )
        with self._turn(spec, request) as used:
            started = self._clock()
            response, attempts = self._retrying(
                spec.key, lambda: _whole(self.client(spec.key).converse(**request), "output", "usage")
            )
            reply = reply_from_wire(response, spec, wall_ms=(self._clock() - started) * 1e3, attempts=attempts)
            used.append(spec.quota_tokens(reply.usage))
        return reply

    def stream(
        self,
        model: str,
        messages: str | Sequence[Message],
        *,
        system: str | Sequence[Message] = (),
        tool: Tool | None = None,
        max_tokens: int = 512,
        temperature: float | None = 0.0,
        extra: Mapping[str, Any] | None = None,
    ) -> Iterator[StreamEvent]:
        """The same as `converse`, as it comes. The last event is `finished` and carries the whole Reply.

        If the stream breaks, a `restarted` event voids what came so far and the whole call is made again.

        Raises:
            BedrockError: as `converse`; StreamBroken when every try broke.
        """
        spec = self.catalogue[model]
        request = self.request(
            model, messages, system=system, tool=tool, max_tokens=max_tokens, temperature=temperature, extra=extra
        )
        started, spent = self._clock(), 0
        for attempt in range(1, self._own_attempts + 1):
            call = partial(self.client(spec.key).converse_stream, **request)
            response, attempts = self._retrying(spec.key, call, already=spent)
            spent += attempts
            gathered = Gathered()
            stream = response["stream"]
            try:
                yield StreamEvent("started" if attempt == 1 else "restarted")
                for event in stream:
                    yield from gathered.add(event)
                if not gathered.complete:
                    raise ResponseStreamingError(error="the stream ended before its last event")
                break
            except errors.of_a_call() as error:
                ours = errors.from_botocore(error, model=spec.key, attempts=spent)
                if attempt == self._own_attempts or not _we_retry(ours):
                    raise ours from error
            finally:
                stream.close()
            self._sleep(min(0.2 * 2**attempt, 5))
        whole = {**gathered.response(), "ResponseMetadata": response["ResponseMetadata"]}
        yield StreamEvent(
            "finished",
            reply=reply_from_wire(whole, spec, wall_ms=(self._clock() - started) * 1e3, attempts=spent),
        )

    def count_tokens(
        self,
        model: str,
        messages: str | Sequence[Message],
        *,
        system: str | Sequence[Message] = (),
        tool: Tool | None = None,
    ) -> int:
        """Input tokens that `converse` with the same arguments would be billed for. Free of charge.

        Raises:
            BedrockError: as `converse`; some models cannot count (InvalidRequest).
        """
        spec = self.catalogue[model]
        request = self.request(model, messages, system=system, tool=tool, max_tokens=1)
        body: Any = {k: v for k, v in request.items() if k in ("messages", "system", "toolConfig")}
        counted, _ = self._retrying(
            spec.key, lambda: self.client(spec.key).count_tokens(modelId=spec.base_id, input={"converse": body})
        )
        return int(counted["inputTokens"])

    def apply_guardrail(self, texts: Sequence[str], *, source: Source) -> Assessment:
        """Ask the guardrail of the settings about some texts, without a model. Billed by text units, whatever it finds.

        Args:
            texts: looked at as one content; blank ones are not sent.
            source: INPUT for what a user wrote, OUTPUT for what a model wrote. A prompt attack is looked for in INPUT alone.

        Raises:
            ConfigurationError: the settings name no guardrail.
            BedrockError: as `converse`; `.model` is "guardrail".
        """
        config = self.settings.guardrail
        if config is None:
            raise errors.ConfigurationError(
                "There is no guardrail to ask.", advice="Set BEDROCK_GUARDRAIL_ID and BEDROCK_GUARDRAIL_VERSION."
            )
        sent = [text for text in texts if text.strip()]
        if not sent:
            return Assessment("none", tuple(texts), (), GuardrailUnits(), 0.0, 0)
        call = partial(
            self._client(GUARDRAIL).apply_guardrail,
            guardrailIdentifier=config["guardrailIdentifier"],
            guardrailVersion=config["guardrailVersion"],
            source=source,
            content=[{"text": {"text": text}} for text in sent],
        )
        try:
            found, attempts = self._retrying(GUARDRAIL, lambda: _whole(call(), "action", "usage", "assessments"))
        except (errors.AccessDenied, errors.ModelNotFound) as error:  # whose advice speaks of models
            error.advice = "Check the guardrail's id, version and Region, and allow bedrock:ApplyGuardrail on its ARN."
            raise
        units = GuardrailUnits.from_wire(found["usage"])
        cost = float(self.catalogue.guardrail_price.cost(units))
        policies = policies_of(found["assessments"])
        if found["action"] == "NONE":
            return Assessment("none", tuple(texts), policies, units, cost, attempts)
        if blocks(found["assessments"]) or not policies:  # it stepped in without a word why: nothing goes on
            return Assessment("blocked", (), policies, units, cost, attempts)
        outputs = [output["text"] for output in found["outputs"]]
        if len(outputs) != len(sent):
            # The reference does not promise one output a content: what cannot be put back in its place is not let through.
            return Assessment("blocked", (), policies, units, cost, attempts)
        masked = iter(outputs)
        kept = tuple(next(masked) if text.strip() else text for text in texts)
        return Assessment("masked", kept, policies, units, cost, attempts)

    def request(
        self,
        model: str,
        messages: str | Sequence[Message],
        *,
        system: str | Sequence[Message] = (),
        tool: Tool | None = None,
        max_tokens: int = 512,
        temperature: float | None = 0.0,
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """What `converse` sends for the same arguments, `modelId` included. Without it, it is a record of a batch job."""
        spec = self.catalogue[model]
        inference: dict[str, Any] = {"maxTokens": max_tokens}
        if temperature is not None and spec.accepts_temperature:
            inference["temperature"] = temperature
        request: dict[str, Any] = {
            "modelId": spec.id,
            "messages": [{"role": "user", "content": [{"text": messages}]}] if isinstance(messages, str) else messages,
            "inferenceConfig": inference,
        }
        if system:
            request["system"] = [{"text": system}] if isinstance(system, str) else system
        if tool is not None:
            request["toolConfig"] = tool.to_wire()
        if self.settings.guardrail:
            request["guardrailConfig"] = self.settings.guardrail
        return request | dict(extra or {})

    def service(self, name: str) -> Any:
        """A new boto3 client of another service behind the same door, e.g. "s3" or "bedrock"; the caller closes it.

        Raises:
            BedrockError: no Region, no such profile, ...
        """
        try:
            return self._new_client(name)
        except (BotoCoreError, ValueError) as error:
            raise errors.from_botocore(error) from error

    def client(self, model: str) -> BedrockRuntimeClient:
        """The boto3 client of one model: made at first use, then kept.

        Raises:
            BedrockError: no Region, no such profile, ...
        """
        return self._client(self.catalogue[model].key)

    def _client(self, name: str) -> BedrockRuntimeClient:
        with self._lock:
            if name not in self._clients:
                try:
                    self._clients[name] = self._new_client()
                except (BotoCoreError, ValueError) as error:
                    raise errors.from_botocore(error, model=name) from error
            return self._clients[name]

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _new_client(self, service: str = "bedrock-runtime") -> Any:
        import boto3  # a tenth of a second that `import workshop_lib` need not take
        from botocore.config import Config

        s = self.settings
        local = s.mode == "local"
        if self._session is None and local:
            self._session = _unconfigured(s.region or "us-west-2")
        elif self._session is None:
            self._session = boto3.Session(profile_name=s.aws_profile, region_name=s.region)
        config = Config(
            retries={"mode": "adaptive", "total_max_attempts": self._max_attempts},
            max_pool_connections=MAX_CONNECTIONS,
            connect_timeout=5,
            read_timeout=self._read_timeout,
            tcp_keepalive=True,
            user_agent_extra="two-tier-workshop",
            # A bearer token in the environment (even an empty one) would refuse plain http, and a proxy would not know loopback.
            signature_version=None if not local else "s3v4" if service == "s3" else "v4",
            proxies={} if local else None,
            s3={"addressing_style": "path"} if local else None,  # no name of a bucket resolves to loopback
        )
        keys: dict[str, Any] = {"aws_access_key_id": "local", "aws_secret_access_key": "local"} if local else {}
        make: Any = self._session.client
        if service != "bedrock-runtime":  # a live endpoint of one's own is one of Bedrock Runtime alone
            return make(service, endpoint_url=s.endpoint_url if local else None, config=config, **keys)
        client = make(service, endpoint_url=s.endpoint_url, config=config, **keys)
        client.meta.events.register("response-received.bedrock-runtime", _mark_daily_quota)
        client.meta.events.register("before-send.bedrock-runtime", self._count_request)
        return client

    def _turn(self, spec: ModelSpec, request: Mapping[str, Any]) -> AbstractContextManager[list[float]]:
        """The wait for this session's share of a quota, if it keeps to one."""
        limiter = self._limiters.get(spec.key)
        if limiter is None:
            return nullcontext([])
        prompt = f"{request['messages']}{request.get('system', '')}{request.get('toolConfig', '')}"
        return limiter.turn(prompt, request["inferenceConfig"]["maxTokens"])

    def _retrying(self, name: str, call: Callable[[], T], *, already: int = 0) -> tuple[T, int]:
        """The call's response and the HTTP requests spent on it; `already` were spent before and count in an error."""
        before = self._requests()
        for attempt in self._policy:
            with attempt:
                try:
                    return call(), self._requests() - before
                except errors.of_a_call() as error:
                    attempts = already + self._requests() - before
                    raise errors.from_botocore(error, model=name, attempts=attempts) from error
        raise AssertionError("tenacity either returns or raises")

    def _requests(self) -> int:
        """HTTP requests that this thread has sent so far."""
        return getattr(self._sent, "requests", 0)

    def _count_request(self, **_: Any) -> None:
        self._sent.requests = self._requests() + 1


def _we_retry(error: BaseException) -> bool:
    """What botocore never retries and a second try may mend."""
    if isinstance(error, errors.ModelFailed):
        response = getattr(error.__cause__, "response", {})
        return int(response.get("originalStatusCode") or 0) >= 500
    return isinstance(error, errors.ModelTimeout | errors.StreamBroken)


def _whole(response: T, *parts: str) -> T:
    """The response, if nothing of it is missing: a connection that drops may leave half of it behind a status 200."""
    if not isinstance(response, dict) or not response.keys() >= set(parts):
        raise ResponseStreamingError(error="the answer broke off")
    return response


def _unconfigured(region: str) -> boto3.Session:
    """A session that reads no AWS configuration: at the local door no profile, file or variable of yours can be in the way."""
    import boto3
    import botocore.session

    bare = botocore.session.Session(
        {
            "profile": (None, [], None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    return boto3.Session(botocore_session=bare, region_name=region)


def _mark_daily_quota(parsed_response: dict[str, Any] | None = None, **_: Any) -> None:
    """Give "too many tokens per day" a code that botocore does not retry: no wait within a call can help."""
    error = (parsed_response or {}).get("Error", {})
    if error.get("Code") == "ThrottlingException" and errors.is_daily_quota(str(error.get("Message", ""))):
        error["Code"] = errors.NOT_RETRIED


_default: list[Bedrock] = []


def default_client() -> Bedrock:
    """The client of the workshop opened last and not yet closed, so that a lesson need not pass it about.

    This is the package's one piece of shared state, as boto3's default session is; anything but a lesson passes its client.

    Raises:
        ConfigurationError: no workshop is open.
    """
    if not _default:
        raise errors.ConfigurationError(
            "There is no client to call models with.", advice="Call open_workshop() first, or pass client=."
        )
    return _default[-1]


def set_default_client(client: Bedrock, *, opened: bool) -> None:
    """Called by `open_workshop` when a workshop opens, and when it closes."""
    if opened:
        _default.append(client)
    elif client in _default:
        _default.remove(client)
