"""What many questions cost by one route: run, saved with what it belongs to, tabled in seven columns, and compared with another run.

v3 = run(agent, load_questions("demo"), "strong", name="v3", repeats=3)
v4 = run(agent, load_questions("demo"), "classifier", name="v4", repeats=3)
v3.save(path); Run.load(path)
v4.table(); compare(v3, v4)
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.evaluation.provenance import digest_of, libraries, read_sealed, write_sealed
from workshop_lib.shop import prompts, tools
from workshop_lib.shop.agent import Route, ShopAgent
from workshop_lib.shop.answers import Answer, Check, weak
from workshop_lib.shop.questions import Question

FORM = "shop-run-1"
LIBRARIES = ("two-tier-workshop", "strands-agents", "boto3")


class RunError(ConfigurationError):
    """A saved run is missing, cut short, changed, or cannot be compared."""

    default_advice = "Run it again."


@dataclass(frozen=True)
class TableRow:
    """One question, as the mean of its repeats; or all of them."""

    test: str
    """The question's id; "total" in the last row."""
    latency_ms: float
    """Model time, the classifier's included. In the total row the mean of the questions."""
    cost_usd: float
    """Of every call, cache writes included. This and the token columns: in the total row the sum."""
    input_tokens: float
    """Neither read from nor written to the cache."""
    output_tokens: float
    cache_read_tokens: float
    cache_write_tokens: float


@dataclass(frozen=True)
class Change:
    """One measure in two runs."""

    metric: str
    before: float
    after: float
    before_range: tuple[float, float]
    """Lowest and highest of the repeats."""
    after_range: tuple[float, float]

    @property
    def percent(self) -> float | None:
        """After against before; None: before is 0."""
        return 100 * (self.after / self.before - 1) if self.before else None

    @property
    def overlap(self) -> bool:
        """Whether the ranges of the repeats overlap: then the sign of the change may be chance. One repeat has no range to speak of."""
        return self.before_range[0] <= self.after_range[1] and self.after_range[0] <= self.before_range[1]


@dataclass(frozen=True)
class Run:
    """The answers of one route to some questions, each asked `repeats` times, and what they belong to."""

    name: str
    repeats: int
    provenance: Mapping[str, Any]
    answers: tuple[Answer, ...]
    """All questions in order, then all again."""

    @property
    def cost_usd(self) -> float:
        """USD of everything."""
        return sum(answer.cost_usd for answer in self.answers)

    @property
    def rounds(self) -> list[tuple[Answer, ...]]:
        """The answers by repeat."""
        size = len(self.answers) // self.repeats
        return [self.answers[i * size : (i + 1) * size] for i in range(self.repeats)]

    @property
    def routed(self) -> Mapping[str, int]:
        """How many answers each tier gave; "none": no model was asked."""
        return Counter(answer.tier or "none" for answer in self.answers)

    @property
    def fallbacks(self) -> Mapping[str, int]:
        """Why a label was the safe one, to how often."""
        return Counter(answer.fallback for answer in self.answers if answer.fallback is not None)

    @property
    def failed(self) -> tuple[Answer, ...]:
        """Answers with an error: they stay in every total, with what they cost."""
        return tuple(answer for answer in self.answers if answer.error)

    def table(self) -> list[TableRow]:
        """A row a question, then the total."""
        rows = [_row(same[0].question_id or same[0].question[:40], same) for same in zip(*self.rounds, strict=True)]
        n = len(rows)
        sums = [sum(getattr(row, name) for row in rows) for name in COLUMNS]
        return [*rows, TableRow("total", sums[0] / n, *sums[1:])]

    def save(self, path: Path) -> None:
        """Write it as JSONL: a line of provenance with a hash of the rest, then a line an answer."""
        lines = [_answer().dump_json(answer).decode() for answer in self.answers]
        head = {"form": FORM, "name": self.name, "repeats": self.repeats, "provenance": dict(self.provenance)}
        write_sealed(path, head, lines)

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read a file of `save`.

        Raises:
            RunError: there is none, it was cut short or changed, or another version wrote it.
        """
        return read_sealed(
            path,
            lambda head, lines: cls(
                head["name"], head["repeats"], head["provenance"], tuple(map(_answer().validate_json, lines))
            ),
            form=FORM,
            made="saved",
            counted="answers",
            error=RunError,
        )


def run(
    agent: ShopAgent,
    questions: Sequence[Question | str],
    route: Route = "classifier",
    *,
    check: Check = weak,
    name: str = "",
    repeats: int = 1,
    workers: int = 1,
) -> Run:
    """Ask every question `repeats` times by one route.

    Args:
        agent: what answers.
        questions: with or without an answer key.
        route, check: as `ShopAgent.answer`.
        name: of the run; "": the route's name.
        repeats: how often; one says nothing about spread.
        workers: requests at once. With more than one, which of them finds the prompt cache cold is chance.

    Raises:
        ValueError: no questions, or no such route.
    """
    if not questions or repeats < 1:
        raise ValueError("a run needs at least one question and one repeat")
    asked = [question for _ in range(repeats) for question in questions]
    with ThreadPoolExecutor(workers) as pool:
        found = tuple(pool.map(lambda question: agent.answer(question, route, check=check), asked))
    texts = [q if isinstance(q, str) else q.model_dump_json() for q in questions]
    told = _provenance(agent, texts) | {"route": found[0].route}
    if route == "cascade":
        told["check"] = str(getattr(check, "__name__", type(check).__name__))
    return Run(name or found[0].route, repeats, told, found)


def compare(before: Run, after: Run) -> list[Change]:
    """What changed from one run to another, as totals of one pass over the questions.

    Raises:
        RunError: they asked different questions: their totals have nothing to do with each other.
    """
    if before.provenance["questions"] != after.provenance["questions"]:
        raise RunError(
            f"{before.name} and {after.name} asked different questions: totals over them cannot be compared."
        )
    found = []
    for metric, measure in MEASURES.items():
        then, now = ([measure(answers) for answers in side.rounds] for side in (before, after))
        found.append(Change(metric, _mean(then), _mean(now), (min(then), max(then)), (min(now), max(now))))
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


Pass = Sequence[Answer]
MEASURES: Mapping[str, Callable[[Pass], float]] = {
    "total cost (USD)": lambda found: sum(a.cost_usd for a in found),
    "average latency (ms)": lambda found: _mean([a.latency_ms for a in found]),
    "input tokens": lambda found: sum(a.usage.input_tokens for a in found),
    "output tokens": lambda found: sum(a.usage.output_tokens for a in found),
    "cache read tokens": lambda found: sum(a.usage.cache_read_tokens for a in found),
    "cache write tokens": lambda found: sum(a.usage.cache_write_tokens for a in found),
    "prompt tokens, cached or not": lambda found: sum(a.usage.prompt_tokens for a in found),
    "classifier cost (USD)": lambda found: sum(a.router_cost_usd for a in found),
    "average classifier latency (ms)": lambda found: _mean([a.router_latency_ms for a in found]),
    "share answered by cheap": lambda found: _mean([a.tier == "cheap" for a in found]),
    "share of right answers": lambda found: _mean([bool(a.right) for a in found]),
}
"""Of one pass over the questions."""
COLUMNS = ("latency_ms", "cost_usd", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


def _row(test: str, same: Pass) -> TableRow:
    return TableRow(
        test,
        _mean([a.latency_ms for a in same]),
        _mean([a.cost_usd for a in same]),
        *(_mean([getattr(a.usage, name) for a in same]) for name in COLUMNS[2:]),
    )


def _provenance(agent: ShopAgent, questions: Sequence[str]) -> dict[str, Any]:
    classifier = prompts.classifier_prompt()
    return {
        "pair": agent.catalogue.pair,
        "models": {role: agent.catalogue[role].id for role in ("classifier", "cheap", "strong")},
        "catalogue": agent.catalogue.version,
        "door": dict(agent.door),
        "shop": agent.shop.version,
        "classifier_prompt": f"{prompts.CLASSIFIER_VERSION} {prompts.fingerprint(classifier)}",
        "agent_prompt": f"{prompts.AGENT_VERSION} {prompts.fingerprint(agent.system_prompt)}",
        "tools": prompts.fingerprint(json.dumps(tools.tool_specs(agent.shop), sort_keys=True)),
        "questions": digest_of(list(questions)),
        "count": len(questions),
        "libraries": libraries(LIBRARIES),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@functools.cache
def _answer() -> TypeAdapter[Answer]:
    return TypeAdapter(Answer)  # built at the first run that is saved or loaded
