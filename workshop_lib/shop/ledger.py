"""Which calls and look-ups one attempt of the agent made, and when it has to end: written down by hooks of the Strands agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workshop_lib.bedrock import errors
from workshop_lib.bedrock.catalogue import ModelSpec, Usage
from workshop_lib.shop import answers
from workshop_lib.shop.answers import AgentAttempt, Call, ToolCall
from workshop_lib.shop.classifier import MAYBE_BILLED, RETRYABLE


class Ledger:
    """One attempt's calls with tokens and cost, its look-ups, and its end when money or time is spent."""

    def __init__(
        self,
        question: str,
        tier: str,
        spec: ModelSpec,
        *,
        spent_usd: float,
        limit_usd: float,
        until: float,
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            question: the customer's text.
            tier, spec: whose attempt it is.
            spent_usd: what the request has cost before this attempt.
            limit_usd: no call is begun once the request has cost so much.
            until: no call is begun after this reading of `clock`, in seconds.
            clock: seconds.
        """
        self._question, self._tier, self._spec, self._clock = question, tier, spec, clock
        self._spent, self._limit, self._until = spent_usd, limit_usd, until
        self._calls: list[Call] = []
        self._tools: list[ToolCall] = []
        self._began = clock()
        self._text = ""
        self.stopped = ""
        """limit_usd, limit_seconds or error, where this ledger has ended the attempt."""
        self.error = ""
        """Of the call that failed last: our class and its message."""

    def watch(self, agent: Any) -> None:
        """Listen to a Strands agent."""
        from strands.hooks import AfterModelCallEvent, AfterToolCallEvent, BeforeModelCallEvent

        agent.hooks.add_callback(BeforeModelCallEvent, self._before)
        agent.hooks.add_callback(AfterModelCallEvent, self._after)
        agent.hooks.add_callback(AfterToolCallEvent, self._used)

    def attempt(self, stop_reason: str, error: str = "") -> AgentAttempt:
        """What it all came to."""
        text = self._text
        if stop_reason == "error":
            text = answers.SORRY
        elif stop_reason.startswith("limit_") or not text.strip():
            text = answers.UNFINISHED
        return AgentAttempt(
            self._question, self._tier, self._spec.key, text, tuple(self._calls), tuple(self._tools), stop_reason, error
        )

    def _before(self, event: Any) -> None:
        self._began = self._clock()
        if self.stopped:
            pass
        elif self._spent + sum(call.cost_usd for call in self._calls) >= self._limit:
            self.stopped = "limit_usd"
        elif self._began >= self._until:
            self.stopped = "limit_seconds"
        if self.stopped:
            event.cancel = answers.UNFINISHED

    def _after(self, event: Any) -> None:
        waited = (self._clock() - self._began) * 1e3
        if event.exception is not None:
            return self._failed(_translated(event.exception, self._spec.key), waited)
        message = event.stop_response.message
        if "metadata" not in message:  # the call was not made: `_before` has cancelled it
            return None
        usage, reason = Usage.from_wire(message["metadata"]["usage"]), str(event.stop_response.stop_reason)
        if usage == Usage() and reason != "guardrail_intervened":
            self.stopped = "error"  # Strands takes a stream that breaks off for a whole answer
            return self._failed(errors.StreamBroken("The answer ended without its last events."), waited)
        latency = float(message["metadata"]["metrics"]["latencyMs"])
        self._calls.append(Call("answer", self._tier, self._spec.key, usage, self._spec.cost(usage), latency, reason))
        self._text = "".join(block["text"] for block in message["content"] if "text" in block)
        return None

    def _failed(self, error: Exception, waited: float) -> None:
        self.error = f"{type(error).__name__}: {getattr(error, 'message', error)}"
        self._calls.append(
            Call(
                "answer",
                self._tier,
                self._spec.key,
                latency_ms=waited,
                stop_reason="error",
                error=self.error,
                retryable=isinstance(error, RETRYABLE),
                maybe_billed=isinstance(error, MAYBE_BILLED),
            )
        )

    def _used(self, event: Any) -> None:
        result = event.result
        said = "\n".join(block["text"] for block in result["content"] if "text" in block)
        self._tools.append(
            ToolCall(event.tool_use["name"], event.tool_use["input"], result["status"] == "success", said)
        )


def _translated(error: Exception, model: str) -> Exception:
    """Our error for what Strands has wrapped, if a boto3 call is at the bottom of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, errors.of_a_call()):
            response: Any = getattr(cause, "response", {})
            tried = int(response.get("ResponseMetadata", {}).get("RetryAttempts", 0)) + 1
            return errors.from_botocore(cause, model=model, attempts=tried)
        cause = cause.__cause__
    return error
