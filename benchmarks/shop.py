"""What the shop's agent adds to a bare Strands agent, in ms a request: `python benchmarks/shop.py`, on an idle machine, a minute.

Both make the same calls to the same endpoint, which runs in a process of its own and waits for nothing. They take turns, request by
request, so that whatever else the machine does meets both alike; what is told is the median of the differences.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

from door import serve  # beside this file

from workshop_lib import Bedrock, Catalogue, Settings
from workshop_lib.shop import ShopAgent, load_questions
from workshop_lib.shop.prompts import quoted

PROMISED_MS = 10


def bare(agent: ShopAgent, tier: str) -> Callable[[str], Any]:
    """A Strands agent a request with the same model, tools and prompt, and nothing of ours around it."""
    from strands import Agent

    model, tools = agent._models[tier], agent._tools
    system = agent._system(agent.catalogue[tier])

    def ask(text: str) -> Any:
        made = Agent(model=model, tools=tools, system_prompt=system, callback_handler=None)  # type: ignore[arg-type]
        return made(quoted(text), limits={"turns": agent.limits.turns})

    return ask


def milliseconds(act: Callable[[str], Any], text: str) -> float:
    started = time.perf_counter()
    act(text)
    return (time.perf_counter() - started) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="times that the five questions are asked")
    rounds = parser.parse_args().rounds
    questions = [q.text for q in load_questions("demo")]
    with serve(0) as (url, _), ShopAgent(Bedrock(Settings(endpoint_url=url), Catalogue.load())) as agent:
        for tier in ("cheap", "strong"):
            ask = bare(agent, tier)
            for text in questions:  # the small models are trained, the caches filled
                agent.answer(text, tier)  # type: ignore[arg-type]
                ask(text)
            ours = functools.partial(agent.answer, route=tier)  # type: ignore[arg-type]
            pairs = []
            for i in range(rounds * len(questions)):
                text = questions[i % len(questions)]
                first, second = (ours, ask) if i % 2 else (ask, ours)
                times = (milliseconds(first, text), milliseconds(second, text))
                pairs.append(times if i % 2 else times[::-1])
            added = [o - t for o, t in pairs]
            low, _, high = quantiles(added, n=4)
            print(
                f"{tier}: bare {median(t for _, t in pairs):.1f} ms, ours {median(o for o, _ in pairs):.1f} ms, "
                f"added {median(added):+.1f} ms a request (middle half {low:+.1f} to {high:+.1f}; promised: under {PROMISED_MS})"
            )


if __name__ == "__main__":
    main()
