"""What counts as right in lab 01."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from workshop_lib.bedrock.catalogue import Catalogue, Price, Usage
from workshop_lib.bedrock.replies import Reply
from workshop_lib.lessons.checks import Exercise, NotAttemptedError

USAGES = (
    Usage(1_000, 0),
    Usage(0, 1_000),
    Usage(1_055, 97),
    Usage(100, 50, cache_read_tokens=2_000),
    Usage(100, 50, cache_write_tokens=2_000),
)


def _cost_of(answer: Callable[[Usage, Price], Any]) -> str | None:
    exact = Catalogue.load()["strong"].price
    floats: dict[str, Any] = {f.name: float(getattr(exact, f.name)) for f in fields(Price)}
    plain = Price(**floats)
    if not callable(answer):
        return f"cost_of is {answer!r}; it should be a function of a usage and a price"
    for usage in USAGES:
        wanted = float(exact.cost(usage))
        try:
            given = answer(usage, exact)
        except TypeError:  # decimals do not mix with a float such as 1e6
            given = answer(usage, plain)
        if given is None:
            raise NotAttemptedError
        if not math.isclose(float(given), wanted, rel_tol=1e-9):
            what = "cached tokens" if usage.cache_read_tokens or usage.cache_write_tokens else "plain tokens"
            return f"for {usage} (a call with {what}) your function says USD {float(given):.8f}"
    return None


def _ratio(answer: float, strong: Reply | None = None, cheap: Reply | None = None) -> str | None:
    if strong is None or cheap is None:
        return 'call it as check("1.2", ratio, strong, cheap)'
    if math.isclose(float(answer), strong.cost_usd / cheap.cost_usd, rel_tol=0.02):
        return None
    return f"ratio is {float(answer):,.2f}"


def _cheapest_pair(answer: str) -> str | None:
    pairs = Catalogue.load().pairs
    if answer not in pairs:
        return f"{answer!r} is not a pair; the pairs are {', '.join(pairs)}"
    usage = Usage(1_000, 100)
    costs = {pair: Catalogue.load(pair=pair)["strong"].cost(usage) for pair in pairs}
    return (
        None
        if costs[answer] == min(costs.values())
        else f"the strong tier of {answer} costs USD {costs[answer]:.6f} a call"
    )


EXERCISES = {
    "1.1": Exercise(
        _cost_of,
        (
            "A price is in USD per million tokens; multiply each counter by its own price and add up.",
            "There are four counters: input_tokens, output_tokens, cache_read_tokens, cache_write_tokens; "
            "the prices are price.input, price.output, price.cache_read and price.cache_write_5m.",
        ),
        "four counters, four prices. Published comparisons that forget the cache writes come out too cheap.",
    ),
    "1.2": Exercise(
        _ratio,
        ("Divide what the strong call cost by what the cheap call cost.", "Every reply has .cost_usd."),
        "the strong call costs that many cheap ones. Keep the number in mind: it is why a cascade can pay.",
    ),
    "1.3": Exercise(
        _cheapest_pair,
        (
            "Catalogue.load(pair=...) gives the catalogue with the roles of that pair.",
            'For each name in workshop.catalogue.pairs, compute Catalogue.load(pair=name)["strong"].cost(strong.usage).',
        ),
        "prices move with each generation, so the question is a cell and not a sentence.",
    ),
}
