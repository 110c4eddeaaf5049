"""Whether the next ticket is affordable: the most that it can cost, whatever the models answer."""

from __future__ import annotations

import json
from typing import Any

from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.cascade.attempt import Tier
from workshop_lib.cascade.cascade import Cascade

HIDDEN_PROMPT_TOKENS = 800
"""What a service may add to a prompt with a tool; Anthropic documents 313 to 804 tokens, depending on model and tool choice."""
REPAIR_TOKENS = 400
"""The repair turn's own words, beside the answer that it repeats."""


def most_it_can_cost(cascade: Cascade[Any], item: Any, *, tiers: tuple[Tier, ...] | None = None) -> float:
    """USD that one item costs at the very most: every tier is asked, every answer is as long as it may be and needs all its repairs.

    An item's tokens are bounded by its bytes, which no byte-level tokenizer exceeds, those of the prompt and the form, which are
    prose, by half of theirs. So the bound is several times the usual cost; it only decides how early a run stops, and the last
    few tickets of a budget may run one after the other.

    Args:
        cascade: with a client that has a catalogue.
        item: what is asked about.
        tiers: those still to be asked; None: all.

    Raises:
        ConfigurationError: the client has no prices.
        UnknownModel: a tier names no model of the catalogue.
    """
    catalogue = getattr(cascade.client, "catalogue", None)
    if catalogue is None:
        raise ConfigurationError(
            "A budget needs prices, and this cascade's client has no catalogue.",
            advice="Use the workshop's own client, or leave budget_usd out.",
        )
    task = cascade.task
    prompt = (
        HIDDEN_PROMPT_TOKENS + _bytes(task.describe(item)) + _bytes(task.system + json.dumps(task.tool.to_wire())) // 2
    )
    total = 0.0
    for tier in cascade.tiers if tiers is None else tiers:
        answer = tier.max_tokens or task.max_tokens
        worded = max((_bytes(wording) for wording in tier.wordings), default=0)
        for turn in range(tier.repairs + 1):
            asked = prompt + worded + turn * (answer + REPAIR_TOKENS)
            total += tier.votes * catalogue[tier.model].cost(Usage(input_tokens=asked, output_tokens=answer))
    return total


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
