"""What counts as right in lab 06, published token counts to price again, and the few parts that only this lab needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any, Literal

from workshop_lib.bedrock.catalogue import Catalogue, ModelSpec, Price, Usage
from workshop_lib.bedrock.replies import Reply
from workshop_lib.display.theme import Html, show_table, usd
from workshop_lib.lessons.checks import Exercise, NotAttemptedError
from workshop_lib.local.engine import prompt_segments
from workshop_lib.local.metering import PromptCache
from workshop_lib.shop.caching import Bill, Request, Traffic, cacheable, designs, explain, usage_of
from workshop_lib.shop.facts import Shop
from workshop_lib.workshop import Workshop

CACHE_POINT: Mapping[str, Any] = {"cachePoint": {"type": "default"}}
COUNTERS = {
    "input": "input_tokens",
    "cache read": "cache_read_tokens",
    "cache write": "cache_write_tokens",
    "output": "output_tokens",
}


@dataclass(frozen=True)
class Row:
    """One question of a published table: who answered it, and the tokens it took."""

    question: str
    model: Literal["cheap", "strong"]
    """Whose price the tokens in `usage` have."""
    usage: Usage
    """Of the answering model, all its calls together."""
    classifier: Usage = Usage()  # noqa: RUF009  # frozen
    """Of the classifying call before it, made by the cheap model; none: not traced, or not routed."""

    @property
    def printed(self) -> Usage:
        """The columns as they were printed: answer and classifier in one."""
        return self.usage + self.classifier


@dataclass(frozen=True)
class Run:
    """A published table of five questions."""

    name: str
    prefix_tokens: int
    """System prompt and tool definitions, up to the last cache point."""
    rows: tuple[Row, ...]
    printed_usd: float
    """The total below the table."""
    printed_change: float | None = None
    """Of the total against the run without routing, as printed."""


def _row(question: str, model: Literal["cheap", "strong"], printed: Usage, classifier: tuple[int, int] = (0, 0)) -> Row:
    tokens_in, tokens_out = classifier
    answer = replace(
        printed, input_tokens=printed.input_tokens - tokens_in, output_tokens=printed.output_tokens - tokens_out
    )
    return Row(question, model, answer, Usage(tokens_in, tokens_out))


# The tables of a published routing workshop (Claude Sonnet 4.5, then 4.6, and Haiku 4.5, 2026), as its notebooks hold them:
# qiixiangg/aws-bedrock-prompt-optimization-workshop, labs 03 and 04 at 36e06b9, 2e4aca4 and c6bcfdc (January), and
# aws-samples/sample-amazon-bedrock-prompt-optimization-workshop at 3a346b9 (June). The classifier has no column there. Its tokens
# in rows of the cheap model are what the same question took more than before; in rows of the strong model, whose tokens
# have another price, those that make the row's cost come out to six decimals.
POLICY, PRODUCT, SUPPORT, TWO_PARTS, GREETING = (
    "return policy", "product info", "technical support", "two questions", "greeting",
)  # fmt: skip
CALLS = {POLICY: 2, PRODUCT: 2, SUPPORT: 2, TWO_PARTS: 2, GREETING: 1}
"""Model calls of each question: one more where tools are used."""
JANUARY_CACHED = Run(
    "January, cached",
    1_743,
    (
        _row(POLICY, "strong", Usage(863, 306, 1_743, 1_743)),
        _row(PRODUCT, "strong", Usage(910, 353, 3_486)),
        _row(SUPPORT, "strong", Usage(916, 480, 3_486)),
        _row(TWO_PARTS, "strong", Usage(1_207, 519, 3_486)),
        _row(GREETING, "strong", Usage(332, 137, 1_743)),
    ),
    0.0438,
)
JANUARY_ROUTED = Run(
    "January, routed, as first published",
    1_743,
    (
        _row(POLICY, "cheap", Usage(4_349, 331)),
        _row(PRODUCT, "cheap", Usage(4_396, 360)),
        _row(SUPPORT, "strong", Usage(917, 418, 1_743, 1_743)),
        _row(TWO_PARTS, "strong", Usage(1_207, 510, 3_486)),
        _row(GREETING, "cheap", Usage(2_075, 149)),
    ),
    0.0369,
    -0.158,
)
JANUARY_TRACED = Run(
    "January, routed, classifier traced",
    1_743,
    (
        _row(POLICY, "cheap", Usage(4_559, 335), (210, 4)),
        _row(PRODUCT, "cheap", Usage(4_603, 365), (207, 4)),
        _row(SUPPORT, "strong", Usage(1_131, 459, 1_743, 1_743), (216, 4)),
        _row(TWO_PARTS, "strong", Usage(1_426, 522, 3_486), (219, 4)),
        _row(GREETING, "cheap", Usage(2_286, 153), (211, 4)),
    ),
    0.0387,
    -0.116,
)
SETTLED_USD, SETTLED_CHANGE, SETTLED_WRITTEN = 0.0393, -0.104, 1_743
"""The January table that stayed, of another run with the classifier traced: its total, its change and its cache writes."""
JUNE_CACHED = Run(
    "June, cached",
    2_839,
    (
        _row(POLICY, "strong", Usage(863, 276, 2_839, 2_839)),
        _row(PRODUCT, "strong", Usage(910, 389, 5_678)),
        _row(SUPPORT, "strong", Usage(1_302, 277, 5_678)),
        _row(TWO_PARTS, "strong", Usage(1_225, 575, 5_678)),
        _row(GREETING, "strong", Usage(332, 188, 2_839)),
    ),
    0.0463,
)
JUNE_ROUTED = Run(
    "June, routed",
    2_839,
    (
        _row(POLICY, "cheap", Usage(6_749, 281), (208, 1)),
        _row(PRODUCT, "cheap", Usage(6_793, 354), (205, 1)),
        _row(SUPPORT, "strong", Usage(1_518, 275, 5_678), (216, 1)),
        _row(TWO_PARTS, "strong", Usage(1_444, 583, 5_678), (219, 1)),
        _row(GREETING, "cheap", Usage(3_381, 125), (210, 1)),
    ),
    0.0450,
    -0.028,
)
OWN = {row.question: row.usage.input_tokens for row in JUNE_CACHED.rows}
"""Tokens of each question behind the cache point, all calls together."""


def their_pair() -> Catalogue:
    """The two models of the published tables, at the prices their tracker used.

    Their rows show 1,743 tokens cached by the strong model, so its minimum is taken to be 1,024 here (of the two published
    figures the lower one). Sonnet 4.5 and 4.6 have the same prices.
    """
    catalogue = Catalogue.load(pair="haiku-sonnet", scope="global")
    strong = replace(catalogue["strong"], cache_minimum_tokens=1_024)
    return replace(catalogue, models={**catalogue.models, strong.key: strong})


def cost(rows: Iterable[Row], *, writes: bool = True) -> float:
    """USD of rows of a published table.

    Args:
        rows: of one run.
        writes: False prices cache writes at 0, as the publishers' tracker did.
    """
    pair = their_pair()
    total = Decimal(0)
    for row in rows:
        usage = row.usage if writes else replace(row.usage, cache_write_tokens=0, cache_write_1h_tokens=0)
        total += pair[row.model].price.cost(usage) + pair["cheap"].price.cost(row.classifier)
    return float(total)


def started_cold(run: Run) -> tuple[Row, ...]:
    """The rows of a run as they had been if its first call to the strong model had found no cache."""
    if any(row.usage.cache_write_tokens for row in run.rows):
        return run.rows
    first = next(row for row in run.rows if row.model == "strong")
    written = replace(
        first.usage,
        cache_read_tokens=first.usage.cache_read_tokens - run.prefix_tokens,
        cache_write_tokens=run.prefix_tokens,
    )
    return tuple(replace(row, usage=written) if row is first else row for row in run.rows)


def handbook(shop: Shop) -> str:
    """A long prompt that every request of a shop assistant would repeat: what the shop says of returns and of itself."""
    rules = f"You answer customers of {shop.name}, from this handbook and nothing else, in short sentences."
    return "\n\n".join([rules, *(p.text for p in shop.return_policies), *(t.text for t in shop.topics)])


def let_it_expire(workshop: Workshop) -> str:
    """Have the cache forget, as it does when a prefix was not used for its TTL. Bedrock takes its five minutes for it."""
    if workshop.endpoint is None:
        return "On Bedrock: do not use this prefix for five minutes (an hour, if you asked for that), then go on."
    workshop.endpoint.cache.clear()
    return "The local cache is empty, as after five minutes without a call."


def counters(calls: Mapping[str, Reply]) -> Html:
    """The four token counters of some calls, and what each call cost."""
    rows = [
        {"call": name}
        | {column: f"{getattr(reply.usage, field):,}" for column, field in COUNTERS.items()}
        | {"cost": usd(reply.cost_usd)}
        for name, reply in calls.items()
    ]
    return show_table(rows, caption="Tokens by counter")


def agrees(calls: Mapping[str, Reply], expected: Mapping[str, Bill]) -> Html:
    """Billed and computed, side by side."""
    rows = [
        {
            "call": name,
            "billed": usd(reply.cost_usd, 8),
            "closed form": usd(float(expected[name].total), 8),
            "the same": "yes" if float(expected[name].total) == reply.cost_usd else "NO",
        }
        for name, reply in calls.items()
    ]
    return show_table(rows)


def caches(catalogue: Catalogue) -> Html:
    """Which models have a prompt cache, from which length on, for how long, and at which prices."""
    rows = []
    for spec in catalogue:
        has = spec.cache_minimum_tokens is not None
        price = spec.price
        rows.append(
            {
                "model": spec.label,
                "from tokens": f"{spec.cache_minimum_tokens:,}" if has else "no cache",
                "kept for": " or ".join(spec.cache_ttls) or "-",
                "read": f"{price.cache_read / price.input:.2f} x" if has else "-",
                "write 5m": f"{price.cache_write_5m / price.input:.2f} x" if has else "-",
                "write 1h": f"{price.cache_write_1h / price.input:.2f} x" if has else "-",
            }
        )
    return show_table(rows, caption="Prices as multiples of a plain input token. A TTL starts anew with every use.")


def write_or_not(spec: ModelSpec, tokens: int, calls: Iterable[int] = (1, 2, 3, 10)) -> Html:
    """What a prefix costs in some calls: sent plainly, or written once and then read."""
    rows = []
    for n in calls:
        once = {"cache_read_tokens": (n - 1) * tokens, "cache_write_tokens": tokens}
        ways = {
            "no cache point": Usage(n * tokens),
            "5 minutes": Usage(**once),
            "an hour": Usage(**once, cache_write_1h_tokens=tokens),
        }
        cheapest = min(ways, key=lambda way: spec.price.cost(ways[way]))
        costs = {way: usd(float(spec.price.cost(usage)), 4) for way, usage in ways.items()}
        rows.append({"calls": n} | costs | {"cheapest": cheapest})
    return show_table(rows, caption=f"USD for the prefix of {tokens:,} tokens alone, all calls within the TTL")


def confront(guess: Mapping[str, Any], cold: Reply, warm: Reply) -> Html:
    """What was predicted beside what was billed."""
    measured = {
        "warm call, share of the cold one": f"{warm.cost_usd / cold.cost_usd:.2f}",
        "routing saves": f"{1 - cost(started_cold(JUNE_ROUTED)) / cost(JUNE_CACHED.rows):.1%}, June's tables, both cold",
    }
    return show_table(
        [{"question": q, "you wrote": guess.get(q, "-"), "found": found} for q, found in measured.items()]
    )


def where_is_the_classifier() -> Html:
    """What the cheap model's rows should hold, by the rows of the cached run, beside what was printed."""
    rows = []
    for cached, first, traced in zip(JANUARY_CACHED.rows, JANUARY_ROUTED.rows, JANUARY_TRACED.rows, strict=True):
        if first.model == "cheap":
            calls = CALLS[cached.question]
            wanted = cached.usage.input_tokens + calls * JANUARY_CACHED.prefix_tokens
            rows.append(
                {
                    "question": cached.question,
                    "own tokens + calls x prefix": f"{cached.usage.input_tokens} + {calls} x {JANUARY_CACHED.prefix_tokens:,} = {wanted:,}",
                    "printed first": f"{first.printed.input_tokens:,}",
                    "printed minutes later": f"{traced.printed.input_tokens:,}",
                    "more": f"{traced.printed.input_tokens - wanted}",
                }
            )
    return show_table(rows, caption="Input tokens of the cheap model, which cached nothing")


def repriced() -> Html:
    """The published comparisons of cached and routed, as printed and as they come out when everything is paid for."""
    write = their_pair()["strong"].price.cost(Usage(cache_write_tokens=SETTLED_WRITTEN))
    traced = {row.question: row.classifier for row in JANUARY_TRACED.rows}
    counted = [replace(row, classifier=traced[row.question]) for row in JANUARY_ROUTED.rows]
    before, june = cost(JANUARY_CACHED.rows), cost(JUNE_CACHED.rows)
    told = [
        ("January, as first published", cost(JANUARY_CACHED.rows, writes=False), cost(JANUARY_ROUTED.rows, writes=False), JANUARY_ROUTED.printed_change),
        ("... and the classifier's call", cost(JANUARY_CACHED.rows, writes=False), cost(counted, writes=False), None),
        ("... and the cache writes", before, cost(counted), None),
        ("January, traced, as published", cost(JANUARY_CACHED.rows, writes=False), cost(JANUARY_TRACED.rows, writes=False), JANUARY_TRACED.printed_change),
        ("January, settled, as published (totals only)", JANUARY_CACHED.printed_usd, SETTLED_USD, SETTLED_CHANGE),
        ("... and the cache writes", before, SETTLED_USD + float(write), None),
        ("June, as published", cost(JUNE_CACHED.rows, writes=False), cost(JUNE_ROUTED.rows, writes=False), JUNE_ROUTED.printed_change),
        ("... and the cache writes: cold against warm", june, cost(JUNE_ROUTED.rows), None),
        ("... both started cold", june, cost(started_cold(JUNE_ROUTED)), None),
    ]  # fmt: skip
    rows = [
        {
            "what is counted": name,
            "cached": usd(was, 4),
            "routed": usd(now, 4),
            "change": f"{now / was - 1:+.1%}",
            "printed": f"{printed:+.1%}" if printed is not None else "",
        }
        for name, was, now, printed in told
    ]
    return show_table(rows, caption="Five questions: the cached strong model alone, and with a router before it")


def kinds(catalogue: Catalogue, outputs: Mapping[str, int] | None = None) -> Html:
    """Of each simple question of the June table: the strong model with a warm cache, and the cheap one behind the classifier."""
    strong, cheap = catalogue["strong"], catalogue["cheap"]
    rows = []
    for question, output in (outputs or {POLICY: 280, PRODUCT: 370, GREETING: 150}).items():
        request = Request(JUNE_CACHED.prefix_tokens, OWN[question], output, CALLS[question])
        label = next(row.classifier for row in JUNE_ROUTED.rows if row.question == question)
        warm = strong.price.cost(usage_of(request, strong, "warm"))
        sent = cheap.price.cost(usage_of(request, cheap, "warm")) + catalogue["classifier"].price.cost(label)
        rows.append(
            {
                "question": question,
                "calls": request.calls,
                f"{strong.label}, warm": usd(float(warm), 5),
                f"classifier + {cheap.label}": usd(float(sent), 5),
                "routing saves": f"{float(1 - sent / warm):.1%}",
            }
        )
    cached = "cached, too" if cacheable(cheap, JUNE_CACHED.prefix_tokens) else "which does not cache such a prefix"
    return show_table(rows, caption=f"Answers of equal length; {cheap.label}: {cached}")


def june_traffic(simple_share: float = 0.6) -> Traffic:
    """Requests like those of the June table, by the mean of each kind; two calls each, as all but the greeting made."""
    simple, hard = ([r for r in JUNE_ROUTED.rows if r.model == model] for model in ("cheap", "strong"))
    label = [r.classifier for r in JUNE_ROUTED.rows]

    def mean(values: Sequence[int]) -> int:
        return round(sum(values) / len(values))

    def request(rows: Sequence[Row], calls: int) -> Request:
        own, out = mean([OWN[r.question] for r in rows]), mean([r.usage.output_tokens for r in rows])
        return Request(JUNE_ROUTED.prefix_tokens, own, out, calls)

    counted = Usage(mean([c.input_tokens for c in label]), mean([c.output_tokens for c in label]))
    return Traffic(request(simple, 2), request(hard, 2), simple_share, counted)


def compare(bills: Mapping[str, Bill]) -> Html:
    """The four designs by what they are paid for, and which one is cheapest."""
    ordered = sorted(bills, key=lambda name: bills[name].total)
    by = 1 - bills[ordered[0]].total / bills[ordered[1]].total
    shown = show_table(explain(bills), caption="USD for 1,000 requests")
    words = f"Cheapest: {ordered[0]}, {by:.1%} below {ordered[1]}."
    return Html(f"{shown.markup}<p class='mathjax_ignore'>{words}</p>", f"{shown.text}\n{words}")


def pairs(traffic: Traffic, rates: Any) -> Html:
    """What routing saves on the cached strong model, pair by pair, for the pairs whose tokens count alike."""
    rows = []
    for name in ("haiku-sonnet", "haiku-sonnet-5-5"):
        catalogue = Catalogue.load(pair=name)
        bills = designs(traffic, catalogue, rates)
        alone, routed = bills["strong, cached"].total, bills["routed, cached"].total
        cheap, strong = catalogue["cheap"], catalogue["strong"]
        rows.append(
            {
                "pair": f"{cheap.label}, {strong.label}",
                "input price": f"1 to {strong.price.input / cheap.price.input:.0f}",
                "the cheap model caches": "yes" if cacheable(cheap, traffic.simple.prefix_tokens) else "no",
                "strong alone, per 1,000": usd(float(alone * 1000), 2),
                "routed, per 1,000": usd(float(routed * 1000), 2),
                "routing saves": f"{float(1 - routed / alone):.1%}",
            }
        )
    return show_table(rows)


def _cached(answer: Callable[[int, int, Price], Any]) -> str | None:
    for model in ("claude-sonnet-4-6", "claude-haiku-4-5"):
        price = Catalogue.load()[model].price
        floats: dict[str, Any] = {f.name: float(getattr(price, f.name)) for f in fields(Price)}
        for calls, tokens in ((10, 8_000), (2, 5_000), (1, 5_000)):
            try:
                given = answer(calls, tokens, price)
            except TypeError:  # decimals do not mix with a float such as 1e6
                given = answer(calls, tokens, Price(**floats))
            if given is None or given is ...:
                raise NotAttemptedError
            each = {
                "write": price.cache_write_5m * tokens / 1_000_000,
                "read": price.cache_read * tokens / 1_000_000,
                "plain": price.input * tokens / 1_000_000,
            }
            wrong = {
                "the write at the plain input price; it has a price of its own, price.cache_write_5m": each["plain"]
                + (calls - 1) * each["read"],
                "every call as a read; somebody must have written": calls * each["read"],
                "every call as a write; within the TTL only the first one writes": calls * each["write"],
                "one write and a read for every call; the first call does not read": each["write"]
                + calls * each["read"],
                "every call at the plain price: that is without a cache": calls * each["plain"],
            }
            wanted = each["write"] + (calls - 1) * each["read"]
            if math.isclose(float(given), float(wanted), rel_tol=1e-9):
                continue
            said = f"for {calls} calls with {tokens:,} tokens your function says USD {float(given):.8f}"
            if math.isclose(float(given), 1e6 * float(wanted), rel_tol=1e-9):
                return f"{said}: a price is for a million tokens"
            why = next(
                (w for w, amount in wrong.items() if math.isclose(float(given), float(amount), rel_tol=1e-9)), ""
            )
            return f"{said}{f': it counts {why}' if why else ''}"
    return None


NEVER = ("You answer customers of a shop. Be brief." * 30, "Returns: 30 days, unopened. " * 400)
"""The rules and the handbook that an arrangement is tried with: long enough for every model that caches."""
ALWAYS = (("Monday, 9:01", "Customer: Ada, gold"), ("Monday, 9:02", "Customer: Bo, new"))


def _arranged(answer: Callable[[str, str, str, str], Any]) -> str | None:
    spec = Catalogue.load()["claude-sonnet-4-6"]
    cache, counted = PromptCache(lambda: 0.0), []
    for now, customer in ALWAYS:
        blocks = answer(*NEVER, now, customer)
        if blocks is None or blocks is ...:
            raise NotAttemptedError
        problem = _not_blocks(blocks, (*NEVER, now, customer))
        if problem:
            return problem
        counted.append(cache.count(spec, prompt_segments({"system": blocks}, spec)))
    first, second = counted
    stable = prompt_segments({"system": [{"text": text} for text in NEVER] + [CACHE_POINT]}, spec)[0].tokens
    read, again = second["cacheReadInputTokens"], second["cacheWriteInputTokens"]
    if not first["cacheWriteInputTokens"]:
        return "no cache point stands behind the long texts, so nothing is written or read"
    if not read:
        return f"the second request reads nothing and writes {again:,} tokens again: something that changes stands before the cache point"
    if again:
        return f"the second request reads {read:,} tokens, but writes {again:,} that no later one will read: a cache point stands behind what changes"
    if read < stable - 2:
        return f"only {read:,} of the {stable:,} tokens that never change are read"
    return None


def _not_blocks(blocks: Any, texts: Sequence[str]) -> str | None:
    if not isinstance(blocks, list) or not all(isinstance(b, Mapping) and len(b) == 1 for b in blocks):
        return 'return a list of blocks: {"text": ...} or CACHE_POINT'
    unknown = [key for block in blocks for key in block if key not in ("text", "cachePoint")]
    if unknown:
        return f"a block of the system prompt is a text or a cachePoint, not {unknown[0]!r}"
    if any("text" in block and not isinstance(block["text"], str) for block in blocks):
        return "a text block holds a string"
    said = "\n".join(block["text"] for block in blocks if "text" in block)
    names = ("rules", "handbook", "now", "customer")
    missing = [name for name, text in zip(names, texts, strict=True) if text not in said]
    return f"{' and '.join(missing)} cannot be found in your blocks: the model must read all four" if missing else None


def _priced(answer: Callable[[Row, ModelSpec, ModelSpec], Any]) -> str | None:
    pair = their_pair()
    cheap, strong = pair["cheap"], pair["strong"]
    for run in (JANUARY_CACHED, JANUARY_TRACED, JUNE_ROUTED):
        for row in run.rows:
            given = answer(row, cheap, strong)
            if given is None or given is ...:
                raise NotAttemptedError
            spec = pair[row.model]
            plain = spec.cost(row.usage)
            no_write = spec.cost(replace(row.usage, cache_write_tokens=0))
            label = cheap.cost(row.classifier)
            wrong = {
                "without its cache writes, as the published tables have it": no_write + label,
                "without the classifier's call": plain,
                "with neither cache writes nor the classifier's call": no_write,
                "with the classifier's tokens at the strong model's price": plain + strong.cost(row.classifier),
                "at the strong model's price": strong.cost(row.usage) + label,
                "at the cheap model's price": cheap.cost(row.usage) + label,
            }
            if math.isclose(float(given), plain + label, rel_tol=1e-9):
                continue
            why = next((w for w, amount in wrong.items() if math.isclose(float(given), amount, rel_tol=1e-9)), "")
            return f"{run.name}, {row.question}: your function says USD {float(given):.6f}{f', which is the row {why}' if why else ''}"
    return None


EXERCISES = {
    "6.1": Exercise(
        _cached,
        (
            "The first call writes all tokens, the other calls - 1 read them. Prices are per million tokens.",
            "price.cache_write_5m is what a written token costs, price.cache_read a read one.",
            "tokens * (price.cache_write_5m + (calls - 1) * price.cache_read) / 1_000_000",
        ),
        "one write, then reads. The write is dearer than a plain token, so a prefix that is used once loses.",
    ),
    "6.2": Exercise(
        _arranged,
        (
            "A cache point keeps everything from the start of the prompt up to itself. One changed character before it, and all is new.",
            "First what never changes, then CACHE_POINT, then what changes.",
            '[{"text": rules}, {"text": handbook}, CACHE_POINT, ...] and then a text block each for now and customer.',
        ),
        "what stays comes first, what changes last, and the cache point stands between the two.",
    ),
    "6.3": Exercise(
        _priced,
        (
            "row.model says whose tokens row.usage holds. cheap.cost(usage) and strong.cost(usage) price all four counters.",
            "The classifier's call (row.classifier) was always made by the cheap model.",
            "(strong if row.model == 'strong' else cheap).cost(row.usage) + cheap.cost(row.classifier)",
        ),
        "every counter, and every call: also the one that only decided who answers.",
    ),
}
