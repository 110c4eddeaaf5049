"""What counts as right in lab 07, replies and answers to try an attendee's code on, and routers held against the price of a wrong answer."""

from __future__ import annotations

import functools
import itertools
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.bedrock.client import Bedrock
from workshop_lib.bedrock.settings import Settings
from workshop_lib.display.theme import BLUE, GREEN, GREY, PINK, RED, Html, Picture, show_table, usd
from workshop_lib.evaluation.statistics import Share, paired_difference, share
from workshop_lib.lessons.checks import Exercise, NotAttemptedError
from workshop_lib.local.faults import Fault
from workshop_lib.shop.answers import AgentAttempt, Answer, Call, Check, ToolCall, weak
from workshop_lib.shop.classifier import Classification, classify
from workshop_lib.shop.comparison import RouterComparison
from workshop_lib.shop.questions import LABELS, Question, load_questions
from workshop_lib.shop.runs import Run, compare
from workshop_lib.workshop import Workshop, open_workshop

REPLIES: tuple[tuple[str, str | None], ...] = (
    ("simple", "simple"),
    ("complex", "complex"),
    (" Complex.\n", "complex"),
    ("**SIMPLE**", "simple"),
    ('"simple"', "simple"),
    ("not simple", None),
    ("This is not a simple question.", None),
    ("complex, not simple", None),
    ("simple or complex", None),
    ("I would call this one complex.", None),
    ("simple\n\nBecause it takes one look-up.", None),
    ("simplex", None),
    ("The customer asks about a laptop.", None),
    ("", None),
    (" ...\n", None),
)
"""What a classifier may reply, and the label that it is: None where it is none."""
COLUMNS = ("latency ms", "USD", "input", "output", "cache read", "cache write")
PRICES = tuple(10 ** (i / 20) for i in range(-80, 21))
"""USD of a wrong answer that the chart goes through: 0.0001 to 10."""


def scratch() -> Path:
    """A new folder for this notebook's runs; the system clears it away."""
    return Path(tempfile.mkdtemp(prefix="lab07-"))


def bill(answer: Answer) -> Html:
    """Every call of one answer, and their sum."""
    rows: list[dict[str, Any]] = [
        {"call": call.purpose, "model": call.model} | _tokens(call.usage) | {"USD": f"{call.cost_usd:.6f}", "ms": f"{call.latency_ms:,.0f}"}
        for call in answer.calls
    ]  # fmt: skip
    total = {"call": "total", "model": ""} | _tokens(answer.usage)
    return show_table([*rows, total | {"USD": f"{answer.cost_usd:.6f}", "ms": f"{answer.latency_ms:,.0f}"}])


def seven(run: Run) -> Html:
    """The seven columns of a run: one row a question, then the total."""
    rows = []
    for row in run.table():
        figures = (row.input_tokens, row.output_tokens, row.cache_read_tokens, row.cache_write_tokens)
        rows.append(
            {"test": row.test}
            | dict(zip(COLUMNS, (f"{row.latency_ms:,.0f}", f"{row.cost_usd:.6f}", *map(_count, figures)), strict=True))
        )
    shares = ", ".join(f"{tier} {n / len(run.answers):.0%}" for tier, n in sorted(run.routed.items()))
    return show_table(
        rows,
        caption=f"{run.name}, mean of {run.repeats} passes (latency in the total row: mean). Answered by: {shares}",
    )


def changes(before: Run, after: Run) -> Html:
    """Every measure in two runs, with the range of the passes."""
    rows = []
    for change in compare(before, after):
        percent = "" if change.percent is None else f"{change.percent:+.1f} %"
        rows.append(
            {
                "measure": change.metric,
                before.name: _ranged(change.before, change.before_range),
                after.name: _ranged(change.after, change.after_range),
                "change": percent,
                "ranges overlap": "yes" if change.overlap else "no",
            }
        )
    return show_table(rows, caption="Mean of the passes; lowest and highest pass in brackets")


def by_pass(before: Run, after: Run) -> Html:
    """The change of cost, pass by pass: the first one finds the prompt cache cold."""
    rows = []
    for i, (then, now) in enumerate(zip(before.rounds, after.rounds, strict=True), 1):
        a, b = (sum(answer.cost_usd for answer in side) for side in (then, now))
        rows.append(
            {"pass": i, before.name: usd(a), after.name: usd(b), "change": f"{100 * (b / a - 1):+.1f} %" if a else ""}
        )
    return show_table(rows)


def cold_cache(workshop: Workshop) -> str:
    """Begin with a cold prompt cache: the local door's is emptied, Bedrock's cannot be."""
    if workshop.endpoint is None:
        return "live door: the cache goes cold by itself, five minutes after its last use"
    workshop.endpoint.cache.clear()
    return "the prompt cache is cold"


def repriced(before: Run, after: Run, cheap: str) -> Html:
    """What routing would save if the cheap answers and the classifier's replies had the same tokens at another model's price."""
    spec = Catalogue.load()[cheap]
    rows = []
    for strong, routed in zip(before.rounds[-1], after.rounds[-1], strict=True):
        if routed.tier != "cheap":
            continue
        other = sum(spec.cost(call.usage) for call in routed.calls)
        rows.append(
            {"test": routed.question_id, "always strong, warm": usd(strong.cost_usd)}
            | {"routed": usd(routed.cost_usd), "saved": _saved(routed.cost_usd, strong.cost_usd)}
            | {f"routed, {cheap}'s price": usd(other), "saved then": _saved(other, strong.cost_usd)}
        )
    return show_table(rows, caption="Last pass, the classifier's call included")


def in_weather(kind: str, question: str) -> Classification:
    """What the classifier comes to at an endpoint of this lab's own where each call fails in one way; one HTTP request, no retry."""
    with open_workshop(Settings(mode="local", time_scale=0.005)) as practice:
        if practice.endpoint is None:
            raise AssertionError("the local door has an endpoint")
        practice.endpoint.faults.add(Fault(kind))
        client = Bedrock(practice.settings, practice.catalogue, max_attempts=1, own_attempts=1)
        try:
            return classify(question, client)
        finally:
            client.close()


def said(found: Mapping[str, Classification]) -> Html:
    """Classifications under what happened to them."""
    rows = [
        {"what happened": name, "label": c.label, "fallback": c.fallback or "", "may pass": _yes(c.retryable)}
        | {"USD": f"{c.cost_usd:.6f}", "seen": c.detail}
        for name, c in found.items()
    ]
    return show_table(rows)


def sample(questions: Sequence[Question], n: int) -> list[Question]:
    """Every so-manieth question, so that all parts of the file are in: the same ones each time."""
    return [questions[i * len(questions) // n] for i in range(min(n, len(questions)))]


@dataclass(frozen=True)
class Line:
    """One way of routing on the evaluated questions."""

    name: str
    right: tuple[bool, ...]
    usd: float
    """USD of decisions and answers."""
    decisions_usd: float
    to_cheap: float
    """Share whose answer is the cheap model's."""
    coin: float
    """Right answers to expect of a coin that sends as many to the cheap model."""
    accuracy: Share | None = None
    """Share of labels as in the key; None: it gives no labels."""
    families: tuple[str, ...] = ()

    @property
    def wrong(self) -> int:
        """Answers that are not right."""
        return len(self.right) - sum(self.right)

    def costs(self, wrong_usd: float) -> float:
        """USD of everything, if each wrong answer costs so much."""
        return self.usd + self.wrong * wrong_usd


def lines(
    comparison: RouterComparison,
    questions: Sequence[Question],
    cheap: Run,
    strong: Run,
    checks: Mapping[str, Check] = MappingProxyType({"cascade": weak}),
) -> list[Line]:
    """Every router of a comparison, a cascade by each check, and hindsight, worked out from the same answers of both models."""
    families = tuple(q.family for q in questions)
    found = []
    for score in comparison.scores:
        chosen = comparison.decisions[score.router]
        down = [c.label != "complex" for c in chosen]
        found.append(_line(score.router, down, [c.cost_usd for c in chosen], cheap, strong, families, score.accuracy))
    for name, check in checks.items():
        kept = [check(_attempt_of(answer)) is None for answer in cheap.answers]
        first = [0.0 if stays else answer.cost_usd for stays, answer in zip(kept, cheap.answers, strict=True)]
        found.append(_line(name, kept, first, cheap, strong, families, None))
    best = [bool(c.right) or not s.right for c, s in zip(cheap.answers, strong.answers, strict=True)]
    found.append(_line("hindsight", best, [0.0] * len(best), cheap, strong, families, None))
    return found


def side_by_side(found: Sequence[Line]) -> Html:
    """Accuracy, right answers and money of each, dearest last."""
    rows = [
        {
            "router": line.name,
            "labels right": "" if line.accuracy is None else str(line.accuracy),
            "to cheap": f"{line.to_cheap:.0%}",
            "right answers": str(share(line.right, line.families)),
            "a coin at its rate": f"{line.coin:.1%}",
            "USD": f"{line.usd:.4f}",
            "of it decisions": f"{line.decisions_usd:.4f}",
            "right answers per USD": f"{sum(line.right) / line.usd:,.0f}" if line.usd else "",
        }
        for line in sorted(found, key=lambda line: line.usd)
    ]
    return show_table(rows, caption="95 % intervals in brackets, by family")


def seen_by_check(cheap: Run, check: Check = weak) -> str:
    """How many of the wrong and of the right answers a check objects to."""
    flagged = [check(_attempt_of(answer)) is not None for answer in cheap.answers]
    rights = [bool(answer.right) for answer in cheap.answers]
    of_wrong = sum(f and not r for f, r in zip(flagged, rights, strict=True))
    wrong = len(rights) - sum(rights)
    return f"it objects to {of_wrong} of {wrong} wrong answers, and to {sum(flagged) - of_wrong} of {sum(rights)} right ones"


def paired(found: Sequence[Line], name: str, others: Sequence[str]) -> Html:
    """Right answers of one way less those of others, on the same questions."""
    by_name = {line.name: line for line in found}
    mine, rows = by_name[name], []
    for other in others:
        d = paired_difference(mine.right, by_name[other].right, mine.families)
        rows.append(
            {
                "compared": f"{name} less {other}",
                "points": f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]",
            }
            | {"decided": "yes" if d.decides else "no", "USD": f"{mine.usd - by_name[other].usd:+.4f}"}
        )
    return show_table(rows, caption="Share of right answers, in pairs, by family; 95 % intervals in brackets")


def mistakes(comparison: RouterComparison) -> Html:
    """Both kinds of mistakes of each router, and what they cost."""
    rows = [
        {
            "router": s.router,
            "complex to cheap": s.to_cheap,
            "answers lost by it": s.wrong_answers,
            "simple to strong": s.to_strong,
            "USD wasted by it": "" if s.wasted_usd is None else f"{s.wasted_usd:.4f}",
            "fallbacks": sum(s.fallbacks.values()),
        }
        for s in comparison.scores
    ]
    return show_table(rows)


def confusion(comparison: RouterComparison, router: str) -> Html:
    """What the key says against what the router says."""
    counts = comparison[router].confusion
    return show_table(
        [{"the key says": key} | {f"{router} says {label}": counts[key, label] for label in LABELS} for key in LABELS]
    )


def at_price(found: Sequence[Line]) -> Callable[[float], Html]:
    """A function from the US cents that a wrong answer costs to what each way then costs, cheapest first."""

    def shown(cents: float) -> Html:
        ranked = sorted(found, key=lambda line: line.costs(cents / 100))
        rows = [
            {"router": line.name, "wrong answers": line.wrong, "models": usd(line.usd, 4)}
            | {"wrong answers cost": usd(line.wrong * cents / 100, 4), "in all": usd(line.costs(cents / 100), 4)}
            for line in ranked
        ]
        return show_table(rows, caption=f"A wrong answer costs {cents:.1f} US cents")

    return shown


def cheapest(found: Sequence[Line]) -> list[tuple[str, float, float]]:
    """Which way is cheapest in all from which to which price of a wrong answer, in USD: exact, not by the chart's steps."""
    spans: list[tuple[str, float, float]] = []
    at = 0.0
    now = min(found, key=lambda line: (line.usd, line.wrong))
    while True:
        meets = [
            ((other.usd - now.usd) / (now.wrong - other.wrong), other.wrong, other)
            for other in found
            if other.wrong < now.wrong
        ]
        if not meets:
            return [*spans, (now.name, at, math.inf)]
        until, _, following = min(meets, key=lambda meet: meet[:2])
        spans.append((now.name, at, until))
        now, at = following, until


def in_words(spans: Iterable[tuple[str, float, float]]) -> str:
    """`cheapest` as lines of text."""
    told = []
    for name, low, high in spans:
        until = "on" if math.isinf(high) else f"to {usd(high, 4)}"
        told.append(f"{name}: from {usd(low, 4)} {until}")
    return "\n".join(told)


def error_price_chart(found: Sequence[Line]) -> Picture:
    """What each way costs beside always-strong, over the price of a wrong answer."""
    from workshop_lib.display.canvas import canvas, title_of
    from workshop_lib.display.theme import picture

    reference = next(line for line in found if line.name == "always-strong")
    drawn = [line for line in found if line.name != "hindsight"]
    colours = itertools.cycle((BLUE, RED, PINK, "black", GREY))
    looks = {line.name: (GREEN if line.name == "always-cheap" else next(colours)) for line in drawn}
    marks = itertools.cycle(("o", "s", "D", "^", "v", "P", "X", "*", "<", ">"))
    spans = cheapest(drawn)
    with canvas(8.6, 4.6) as axes:
        for i, line in enumerate(drawn):
            values = [line.costs(price) / reference.costs(price) for price in PRICES]
            axes.plot(
                PRICES, values, color=looks[line.name], lw=1.6, marker=next(marks), ms=5, markevery=(i, 10), label=line.name
            )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")  # the theme draws no mathematics
        axes.set_ylim(0, 2.5)
        axes.set_xlabel("what one wrong answer costs (USD)")
        axes.set_ylabel("cost in all, always-strong = 1")
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        title_of(axes, f"Cheapest in all: {'; then '.join(_span(span) for span in spans)}")
        figure = axes.get_figure(root=True)
        assert figure is not None
        rows = [
            {"router": line.name, "wrong answers": line.wrong, "USD of the models": f"{line.usd:.4f}"}
            | {f"in all at {price} USD an error": f"{line.costs(price):.4f}" for price in (0.001, 0.01, 0.1, 1)}
            for line in drawn
        ]
        alt = (
            "Cost in all over the price of a wrong answer. Cheapest is "
            + "; ".join(_span(span) for span in spans)
            + "."
        )
        return picture(figure, alt=alt, caption="Models and wrong answers together, over always-strong", rows=rows)


def _span(span: tuple[str, float, float]) -> str:
    name, _, high = span
    return name if math.isinf(high) else f"{name} up to USD {high:.4f}"


def _line(  # noqa: PLR0917  # columns of one table
    name: str,
    down: Sequence[bool],
    before: Sequence[float],
    cheap: Run,
    strong: Run,
    families: tuple[str, ...],
    accuracy: Share | None,
) -> Line:
    """Both models' answers put together: the cheap one where `down`; `before` was paid for each question on top."""
    pairs = list(zip(cheap.answers, strong.answers, strict=True))
    taken = [c if stays else s for (c, s), stays in zip(pairs, down, strict=True)]
    rate = sum(down) / len(down)
    coin = sum(rate * bool(c.right) + (1 - rate) * bool(s.right) for c, s in pairs) / len(pairs)
    right = tuple(bool(answer.right) for answer in taken)
    return Line(name, right, sum(before) + sum(a.cost_usd for a in taken), sum(before), rate, coin, accuracy, families)


def _attempt_of(answer: Answer) -> AgentAttempt:
    calls = tuple(call for call in answer.calls if call.purpose == "answer")
    return AgentAttempt(
        answer.question, answer.tier or "", answer.model or "", answer.text, calls, answer.tools_used,
        answer.stop_reason, answer.error,
    )  # fmt: skip


def _tokens(usage: Any) -> dict[str, str]:
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    return {name.removesuffix("_tokens").replace("_", " "): _count(getattr(usage, name)) for name in names}


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def _ranged(value: float, ends: tuple[float, float]) -> str:
    digits = 5 if abs(value) < 1 else 0
    low, high = ends
    return f"{value:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


def _saved(after: float, before: float) -> str:
    return f"{100 * (1 - after / before):.1f} %" if before else ""


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


# What an attendee's code is tried on.


def _parses(answer: Callable[[str], Any]) -> str | None:
    if all(_first(answer(reply)) in (None, ...) for reply, label in REPLIES if label):
        raise NotAttemptedError
    for reply, wanted in REPLIES:
        found = _first(answer(reply))
        if found == wanted:
            continue
        if wanted is None:
            return f"the reply {reply!r} is taken for {found!r}: it holds a label, but it is not one"
        return f"the reply {reply!r} gives {found!r}: case, blanks and marks around the word do not matter"
    return None


def _first(found: Any) -> Any:
    return found[0] if isinstance(found, tuple) and found else found


def _changed(answer: Callable[[Run, Run], Any]) -> str | None:
    before = _made_run("v3", [(0.0, 0.010), (0.0, 0.030)])
    after = _made_run("v4", [(0.002, 0.006), (0.002, 0.020)])
    given = answer(before, after)
    if given is None or given is ...:
        raise NotAttemptedError
    whole, headline = (float(value) for value in given)
    seen = f"from USD 0.040 to 0.030, of which the classifier takes 0.004, it gives ({whole:.4g}, {headline:.4g})"
    if abs(whole + 25) < 1e-6 and abs(headline + 35) < 1e-6:
        return None
    if abs(whole + 0.25) < 1e-6:
        return f"{seen}: in per cent, please, times 100"
    if abs(whole - 25) < 1e-6:
        return f"{seen}: cheaper is a negative change"
    if abs(whole + 35) < 1e-6 and abs(headline + 25) < 1e-6:
        return f"{seen}: the other way round; first with everything that is paid"
    if abs(whole - headline) < 1e-6:
        return f"{seen}: twice the same; the second leaves router_cost_usd out"
    return f"{seen}: compare sums over the answers, and what is left out is left out of v4's sum"


def _made_run(name: str, costs: Sequence[tuple[float, float]]) -> Run:
    answers = []
    for i, (asked, told) in enumerate(costs):
        calls = [Call("classifier", "classifier", "example", cost_usd=asked)] if asked else []
        calls.append(Call("answer", "strong", "example", cost_usd=told))
        answers.append(Answer(f"question {i}", "An answer.", "strong", "example", name, calls=tuple(calls)))
    return Run(name, 1, {"questions": "the same"}, tuple(answers))


def _finds_broken(answer: Callable[[Answer, Question], Any]) -> str | None:
    for what, given, question, broken in _answers():
        found = answer(given, question)
        if found is True or found is False:
            return f"for {what} it gives {found}: give a reason in words, or None"
        if broken and not found:
            problem = f"{what} is let through"
        elif not broken and found:
            problem = f"{what} is called {str(found)!r}, but it is a good answer"
        else:
            continue
        if all(answer(g, q) in (None, ...) for _, g, q, _ in _answers()):
            raise NotAttemptedError
        return problem
    return None


@functools.cache
def _answers() -> tuple[tuple[str, Answer, Question, bool], ...]:
    """Made-up answers without an answer key of their own, so that `right` cannot be asked."""
    by_id = {q.id: q for q in load_questions("demo")}
    price = next(q for q in by_id.values() if q.tools == ("product_info",))
    hello = next(q for q in by_id.values() if not q.tools)
    two = next(q for q in by_id.values() if len(q.tools) > 1)
    returns = next(q for q in by_id.values() if q.tools == ("return_policy",))
    full = " ".join(fact[0] for fact in price.facts)
    own_way = " ".join(fact[0] for fact in returns.facts).upper().replace("%", " percent")
    of_returns = (ToolCall("return_policy", {}, ok=True),)
    look = (ToolCall("product_info", {}, ok=True),)
    of_two = tuple(ToolCall(tool, {}, ok=True) for tool in two.tools)
    all_of_two = ", ".join(fact[0] for fact in two.facts)

    def made(
        question: Question, text: str, used: tuple[ToolCall, ...] = look, stop: str = "end_turn", **more: Any
    ) -> Answer:
        return Answer(question.text, text, "cheap", "example", "v4", tools_used=used, stop_reason=stop, **more)

    return (
        ("a full answer", made(price, full), price, False),
        ("an answer that was cut off at max_tokens", made(price, full, stop="max_tokens", truncated=True), price, True),
        ("an answer that a stop sequence ended", made(price, full, stop="stop_sequence"), price, True),
        ("one introductory line, without the facts", made(price, "Here is what I found:"), price, True),
        ("a full answer that writes the facts in its own way", made(returns, own_way, of_returns), returns, False),
        ("an apology after an error", made(price, full, stop="error", error="Throttled: no"), price, True),
        ("an answer from memory, with no look-up", made(price, full, ()), price, True),
        ("an answer whose look-up failed", made(price, full, (ToolCall("product_info", {}, ok=False),)), price, True),
        ("a greeting, for which nothing is to be looked up", made(hello, "Hello!", ()), hello, False),
        ("a greeting answered with a price list", made(hello, "Hello! " + full, look), hello, True),
        ("an answer to half of the question", made(two, two.facts[0][0], of_two), two, True),
        ("an answer with one look-up of two", made(two, all_of_two, of_two[:1]), two, True),
        ("an answer to a question in two parts", made(two, all_of_two, of_two), two, False),
    )  # fmt: skip


def _routes(answer: Callable[[str], Any]) -> str | None:
    texts = [q.text for q in sample(load_questions("train"), 80)]
    found = [answer(text) for text in texts]
    if all(label is None or label is ... for label in found):
        raise NotAttemptedError
    for text, label in zip(texts, found, strict=True):
        if label not in LABELS:
            return f"for {text[:60]!r} it gives {label!r}: give 'simple' or 'complex'"
    if len(set(found)) == 1:
        return f"it says {found[0]} to all of {len(found)} questions that you have not seen: that is a constant, not a router"
    if [answer(text) for text in texts] != found:
        return "asked twice it says two things: nobody can look into its mistakes"
    return None


EXERCISES = {
    "7.1": Exercise(
        _parses,
        (
            "Clean the reply first: lower case, then nothing but letters at both ends. `strip` takes the characters to remove.",
            'text.strip(" \\n.*\\"\'").lower() leaves the word. Is it one of the two labels, or something else?',
            "Do not search for the label in the reply; compare the whole of it. What is not a label is None.",
        ),
        "a reply is a label or it is not. What is not goes to the safe side, and is counted.",
    ),
    "7.2": Exercise(
        _changed,
        (
            "before.cost_usd and after.cost_usd are sums over all answers. Change: 100 * (new / old - 1).",
            "The classifier's part is answer.router_cost_usd, for each answer of after.answers.",
        ),
        "the classifier's call is part of what routing costs.",
    ),
    "7.3": Exercise(
        _finds_broken,
        (
            'answer.stop_reason is "end_turn" if the model came to its own end. Anything else ended it.',
            "question.missing_facts(answer.text) gives the facts that are not said; empty is good.",
            "Which of question.tools is not among the names of those answer.tools_used that are ok? If question.tools is empty, so is answer.tools_used.",
        ),
        "an answer has to end by itself, say its facts and have looked them up, before its price counts.",
    ),
    "7.4": Exercise(
        _routes,
        (
            "Any rule on the text: question marks, `and`, words such as compare or broken. Return 'simple' or 'complex'.",
            'Read complex questions of load_questions("train"): what do they say that simple ones do not?',
        ),
        "it always decides, and always alike. What it is worth, the table says.",
    ),
}
