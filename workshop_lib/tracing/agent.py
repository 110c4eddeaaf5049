"""How the shop's agent is traced: one request, below it the classifier's call and an agent's calls and look-ups.

    tracer = open_tracing("traces.db", make_global=True)
    with TracedShopAgent(workshop, tracer) as agent:
        agent.answer("How long can I return a laptop?")

Strands writes the spans of its own loop to the process's provider, so the tracer must be the global one.
"""

from __future__ import annotations

from typing import Any

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.shop.agent import Route, ShopAgent
from workshop_lib.shop.answers import Answer, Check, weak
from workshop_lib.shop.questions import Question
from workshop_lib.tracing.calls import traced
from workshop_lib.tracing.tracer import Tracer


class TracedShopAgent(ShopAgent):
    """The shop's agent with a trace for every message. It answers as it would without."""

    def __init__(self, bedrock: Any, tracer: Tracer, **options: Any) -> None:
        """
        Args:
            bedrock: as `ShopAgent` takes it.
            tracer: opened with `make_global=True` and the same catalogue.
            options: as `ShopAgent` takes them, without `wrap`.

        Raises:
            ConfigurationError: the tracer is not global, so the agent's own calls would be missing from every bill.
        """
        if not tracer.is_global:
            raise ConfigurationError(
                "This tracer does not see the agent's calls, only the classifier's.",
                advice="Open it with open_tracing(..., make_global=True).",
            )
        super().__init__(bedrock, wrap=lambda client: traced(client, tracer), **options)
        self._tracer = tracer

    def answer(self, question: str | Question, route: Route = "classifier", *, check: Check = weak) -> Answer:
        """As `ShopAgent.answer`, as one request. The question and the answer are kept only where the tracer keeps texts."""
        text = question.text if isinstance(question, Question) else question
        item = question.id if isinstance(question, Question) else None
        with self._tracer.request("ask", text=str(text), item_id=item) as request:
            found = super().answer(question, route, check=check)
            request.text(answer=found.text)
            request.set(
                tier=found.tier,
                route=found.route,
                label=found.label,
                fallback=found.fallback is not None,
                fallback_reason=found.fallback,
                stop_reason=found.stop_reason,
                escalated=found.escalated is not None,
                reasons=[] if found.escalated is None else [found.escalated],
            )
        return found
