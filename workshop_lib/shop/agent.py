"""How a customer's message is answered: a route picks the model, and one agent with the shop's tools runs under either of them.

    agent = ShopAgent(workshop)
    answer = agent.answer("How long can I return a laptop?")             # the classifier picks
    answer.text, answer.tier, answer.cost_usd, answer.problems
    agent.answer(question, route="cascade")                              # cheap first, strong if its answer is weak

Models are made once: each holds one boto3 client. A Strands agent serves one conversation at a time, so each request has its own.
Of retries there is one owner, botocore: Strands would multiply them, with waits of minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast

from workshop_lib.bedrock.catalogue import ModelSpec
from workshop_lib.bedrock.client import Bedrock
from workshop_lib.cascade.attempt import Converses
from workshop_lib.shop import answers, prompts, tools
from workshop_lib.shop.answers import AgentAttempt, Answer, Call, Check, weak
from workshop_lib.shop.classifier import Classification, Router, decide, llm_router, why_refused
from workshop_lib.shop.facts import Shop, load_shop
from workshop_lib.shop.ledger import Ledger
from workshop_lib.shop.questions import Complexity, Question

if TYPE_CHECKING:
    from boto3 import Session
    from strands.models import BedrockModel

TIER_OF: dict[Complexity, str] = {"simple": "cheap", "complex": "strong"}
"""Label to role of the catalogue: the one place where a label becomes a model."""
Named = Literal["classifier", "cheap", "strong", "cascade"]
Route = Named | Router


@dataclass(frozen=True)
class Limits:
    """What one request may take at most. Time and money are looked at before each call, so the call under way is the overshoot."""

    turns: int = 6
    """Model calls of one attempt."""
    usd: float = 0.10
    """For the whole request, the classifier and both tiers included."""
    seconds: float | None = None
    """For the whole request; None: 90 s, and at the local door 600 s, where the first call of all trains the models."""
    http_attempts: int = 3
    """HTTP requests of one call, retries included."""
    read_timeout_s: float | None = None
    """How long to wait for each HTTP request; None: 30 s, and at the local door 300 s."""

    def at(self, mode: str) -> Limits:
        """With the times of a door, "live" or "local", where they are None."""
        seconds, read = (90.0, 30.0) if mode == "live" else (600.0, 300.0)
        return replace(self, seconds=self.seconds or seconds, read_timeout_s=self.read_timeout_s or read)


class ShopAgent:
    """The shop's assistant. Safe to share between threads; close it with `close()`, or use it as a context manager."""

    def __init__(
        self,
        bedrock: Any,
        *,
        shop: Shop | None = None,
        limits: Limits | None = None,
        max_tokens: int = 800,
        streaming: bool = False,
        caching: bool = True,
        wrap: Callable[[Bedrock], Converses] = lambda client: client,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """
        Args:
            bedrock: a `Bedrock`, or a `Workshop` that holds one: its door and catalogue are used.
            shop: what is true; None: the shipped shop.
            limits: of one request; None: the defaults.
            max_tokens: longest answer of one call.
            streaming: ConverseStream instead of Converse. A stream that breaks has been billed, and nobody is told how much.
            caching: cache points after tools and system prompt, for models that have a prompt cache.
            wrap: put around the client that asks the classifier, to watch its calls; Strands tells of its own.
            clock: seconds; injected by tests.
        """
        given: Bedrock = getattr(bedrock, "bedrock", bedrock)
        self.shop = shop or load_shop()
        self.limits = (limits or Limits()).at(given.settings.mode)
        self.catalogue, self.door = given.catalogue, given.door
        self._bedrock = Bedrock(
            given.settings,
            given.catalogue,
            max_attempts=self.limits.http_attempts,
            read_timeout_s=cast(float, self.limits.read_timeout_s),
            own_attempts=1,
        )
        self.system_prompt = prompts.agent_prompt(self.shop)
        self.classifier = llm_router(wrap(self._bedrock), system=prompts.classifier_prompt())
        self._guardrail = given.settings.guardrail
        self._tools = tools.strands_tools(self.shop)
        self._max_tokens, self._streaming, self._caching, self._clock = max_tokens, streaming, caching, clock
        self._models = {tier: self._model(self.catalogue[tier]) for tier in TIER_OF.values()}

    def answer(self, question: str | Question, route: Route = "classifier", *, check: Check = weak) -> Answer:
        """Answer one message. What goes wrong is recorded in the answer, not raised.

        Args:
            question: the customer's text; a `Question` brings its answer key, which fills `missing` and `right`.
            route: "classifier"; "cheap" or "strong" for all; "cascade"; or a router of your own, from text to label.
            check: of the cascade: why the cheap answer should not stand.

        Raises:
            ValueError: there is no such route.
            TypeError: the question is no text.
        """
        key = question if isinstance(question, Question) else None
        if not isinstance(question, str | Question):
            raise TypeError(f"A question is a text or a Question, not {type(question).__name__}.")
        text = question.text if isinstance(question, Question) else question
        started = self._clock()
        said, tier, name = self._choose(text, route)
        if said.refused is not None:
            reply = answers.ASK_BACK if said.refused == "empty" else answers.TOO_LONG
            asked = AgentAttempt(text, "", "", reply, stop_reason=f"refused: {said.refused}")
            return Answer(text, reply, None, None, name, stop_reason=asked.stop_reason, **answers.judged(asked, key))
        calls = answers.call_of(said)
        taken = self._attempt(tier, text, calls, started)
        calls += taken.calls
        escalated = check(taken) if route == "cascade" else None
        if escalated is not None:
            strong = self._attempt("strong", text, calls, started)
            calls += strong.calls
            if strong.finished or not taken.finished:  # a weak answer is better than none
                taken = strong
        return Answer(
            question=text,
            text=taken.text,
            tier=taken.tier,
            model=taken.model,
            route=name,
            label=said.label,
            fallback=said.fallback,
            fallback_detail=said.detail,
            escalated=escalated,
            tools_used=taken.tools_used,
            calls=calls,
            stop_reason=taken.stop_reason,
            truncated=taken.truncated,
            error=taken.error,
            wall_ms=(self._clock() - started) * 1e3,
            **answers.judged(taken, key),
        )

    def close(self) -> None:
        """Close all connections of this agent; the client it was made from stays open."""
        self._bedrock.close()

    def __enter__(self) -> ShopAgent:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _choose(self, text: str, route: Route) -> tuple[Classification, str, str]:
        """What the router says, the tier to begin with, and the route's name."""
        if callable(route) or route == "classifier":
            said = decide(text, self.classifier if route == "classifier" else route)
            return said, TIER_OF[said.label or "complex"], said.by
        if route not in ("cheap", "strong", "cascade"):
            raise ValueError(
                f"There is no route {route!r}: give classifier, cheap, strong, cascade, or a function from text to label."
            )
        name = route if route == "cascade" else f"always-{route}"
        said = Classification(None, name, refused=why_refused(text))
        return said, "cheap" if route == "cascade" else route, name

    def _attempt(self, tier: str, text: str, before: tuple[Call, ...], started: float) -> AgentAttempt:
        """One agent, from the message to its last word."""
        from strands import Agent
        from strands.agent.conversation_manager import NullConversationManager
        from strands.tools.executors import SequentialToolExecutor
        from strands.types.exceptions import MaxTokensReachedException

        spec, limits = self.catalogue[tier], self.limits
        ledger = Ledger(
            text,
            tier,
            spec,
            spent_usd=sum(call.cost_usd for call in before),
            limit_usd=limits.usd,
            until=started + cast(float, limits.seconds),
            clock=self._clock,
        )
        agent = Agent(
            model=self._models[tier],
            tools=cast(list[Any], self._tools),
            system_prompt=cast(Any, self._system(spec)),
            name=f"shop-{tier}",
            trace_attributes={"workshop.tier": tier, "workshop.model": spec.key},
            callback_handler=None,
            conversation_manager=NullConversationManager(),
            tool_executor=SequentialToolExecutor(),
            retry_strategy=None,
        )
        ledger.watch(agent)
        try:
            result = agent(prompts.quoted(text), limits={"turns": limits.turns})
        except MaxTokensReachedException:
            return ledger.attempt("max_tokens")
        except Exception as error:  # recorded: the customer gets an apology, the operator its class
            return ledger.attempt("error", ledger.error or f"{type(error).__name__}: {error}")
        return ledger.attempt(
            ledger.stopped or str(result.stop_reason), ledger.error if ledger.stopped == "error" else ""
        )

    def _system(self, spec: ModelSpec) -> list[dict[str, Any]]:
        point = [{"cachePoint": {"type": "default"}}] if self._cached(spec) else []
        return [{"text": self.system_prompt}, *point]

    def _cached(self, spec: ModelSpec) -> bool:
        """Whether to send cache points: a model without a prompt cache refuses them."""
        return self._caching and spec.cache_minimum_tokens is not None

    def _model(self, spec: ModelSpec) -> BedrockModel:
        from strands.models import BedrockModel

        options: dict[str, Any] = {"model_id": spec.id, "max_tokens": self._max_tokens, "streaming": self._streaming}
        if spec.accepts_temperature:
            options["temperature"] = 0.0
        if self._cached(
            spec
        ):  # by hand: Strands' own setting adds a point behind each message, a write that nobody reads
            listed = [{"toolSpec": form} for form in tools.tool_specs(self.shop)]
            config = {"tools": [*listed, {"cachePoint": {"type": "default"}}], "toolChoice": {"auto": {}}}
            options["additional_args"] = {"toolConfig": config}
        if self._guardrail is not None:
            options["guardrail_id"] = self._guardrail["guardrailIdentifier"]
            options["guardrail_version"] = self._guardrail["guardrailVersion"]
        return BedrockModel(boto_session=cast("Session", _Session(self._bedrock.client(spec.key))), **options)


class _Session:
    """Hands Strands the client that is already there, in place of a new one with settings of its own."""

    def __init__(self, client: Any) -> None:
        self._client, self.region_name = client, client.meta.region_name

    def client(self, *_: Any, **__: Any) -> Any:
        return self._client
