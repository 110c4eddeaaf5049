"""How often routers pick the right label, and what each kind of their mistakes costs: wrong answers, or money.

routers = {"keywords": keywords, "nearest": NearestExample(load_questions("few_shot")), "llm": llm_router(bedrock)}
found = compare_routers(routers, load_questions("calibration"), cheap=cheap_run.answers, strong=strong_run.answers)
found.rows()
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from workshop_lib.evaluation.statistics import Difference, Share, paired_difference, share
from workshop_lib.shop.answers import Answer
from workshop_lib.shop.classifier import Classification, Router, decide
from workshop_lib.shop.questions import LABELS, Complexity, Question


@dataclass(frozen=True)
class RouterScores:
    """One router on some questions."""

    router: str
    n: int
    accuracy: Share
    """Share of labels as in the key, with its interval over families."""
    confusion: Mapping[tuple[Complexity, Complexity], int]
    """(label of the key, label of the router) to how many."""
    fallbacks: Mapping[str, int]
    """Why, to how often. A fallback counts as the label it fell back to."""
    decision_usd: float
    """USD of all decisions."""
    decision_ms: float
    """Mean time of a decision: a model's own, or what was waited for code."""
    against: Difference | None = None
    """Accuracy minus that of the reference router, on the same questions; None: it is the reference."""
    wrong_answers: int | None = None
    """Complex ones sent to cheap that the cheap model got wrong and the strong one right; None without both models' answers."""
    wasted_usd: float | None = None
    """Simple ones sent to strong: what the strong answers cost above the cheap ones; None as above."""
    answers_right: Share | None = None
    """Share of right answers under this router; None as above."""
    total_usd: float | None = None
    """USD of decisions and answers together; None as above."""

    @property
    def to_cheap(self) -> int:
        """Complex ones that were sent to cheap."""
        return self.confusion["complex", "simple"]

    @property
    def to_strong(self) -> int:
        """Simple ones that were sent to strong."""
        return self.confusion["simple", "complex"]


@dataclass(frozen=True)
class RouterComparison:
    """All routers on the same questions; the first one is the reference."""

    scores: tuple[RouterScores, ...]
    decisions: Mapping[str, tuple[Classification, ...]]
    """By router, in the order of the questions."""

    def rows(self) -> list[dict[str, Any]]:
        """One row a router, for a table."""
        return [
            {
                "router": s.router,
                "accuracy": str(s.accuracy),
                "complex to cheap": s.to_cheap,
                "wrong answers from it": s.wrong_answers,
                "simple to strong": s.to_strong,
                "USD wasted by it": s.wasted_usd,
                "fallbacks": sum(s.fallbacks.values()),
                "USD of decisions": s.decision_usd,
                "ms a decision": round(s.decision_ms, 1),
                "right answers": None if s.answers_right is None else str(s.answers_right),
                "USD in all": s.total_usd,
            }
            for s in self.scores
        ]

    def __getitem__(self, router: str) -> RouterScores:
        """The scores of one router, by name."""
        return next(s for s in self.scores if s.router == router)


def compare_routers(
    routers: Mapping[str, Router],
    questions: Sequence[Question],
    *,
    cheap: Sequence[Answer] | None = None,
    strong: Sequence[Answer] | None = None,
    workers: int = 1,
) -> RouterComparison:
    """Every router on the same questions, each asked once.

    Args:
        routers: by name; the first one is what the others are compared with.
        questions: with their labels.
        cheap, strong: both models' answers to these questions, one each (runs with route "cheap" and "strong"); with them the two kinds
            of mistakes are put in wrong answers and in money.

    Raises:
        ValueError: no routers or questions, or a question without an answer of both models where answers are given.
    """
    if not routers or not questions:
        raise ValueError("a comparison needs at least one router and one question")
    known = _answers(questions, cheap, strong)
    families = [q.family for q in questions]
    with ThreadPoolExecutor(workers) as pool:
        decisions = {
            name: tuple(pool.map(lambda q, name=name, router=router: decide(q.text, router, name), questions))
            for name, router in routers.items()
        }
    # What is refused costs no model: it counts as sent to the cheap one.
    sent_by = {name: [said.label or "simple" for said in found] for name, found in decisions.items()}
    right = {
        name: [label == q.label for label, q in zip(sent, questions, strict=True)] for name, sent in sent_by.items()
    }
    reference = next(iter(routers))
    scores = []
    for name, found in decisions.items():
        sent = sent_by[name]
        pairs = Counter((q.label, label) for q, label in zip(questions, sent, strict=True))
        scores.append(
            RouterScores(
                router=name,
                n=len(questions),
                accuracy=share(right[name], families),
                confusion={(key, label): pairs[key, label] for key in LABELS for label in LABELS},
                fallbacks=Counter(said.fallback for said in found if said.fallback is not None),
                decision_usd=sum(said.cost_usd for said in found),
                decision_ms=sum(said.latency_ms for said in found) / len(found),
                against=None if name == reference else paired_difference(right[name], right[reference], families),
                **_priced(questions, sent, found, known, families),
            )
        )
    return RouterComparison(tuple(scores), decisions)


def _answers(
    questions: Sequence[Question], cheap: Sequence[Answer] | None, strong: Sequence[Answer] | None
) -> dict[Complexity, dict[str, Answer]] | None:
    if cheap is None or strong is None:
        if cheap is not strong:
            raise ValueError("give the answers of both models, or of none")
        return None
    known: dict[Complexity, dict[str, Answer]] = {
        "simple": {a.question_id: a for a in cheap},
        "complex": {a.question_id: a for a in strong},
    }
    for label, by_id in known.items():
        lacking = [q.id for q in questions if q.id not in by_id]
        if lacking:
            model = "cheap" if label == "simple" else "strong"
            raise ValueError(f"the {model} model has no answer to {len(lacking)} of the questions, e.g. {lacking[0]}")
    return known


def _priced(
    questions: Sequence[Question],
    sent: Sequence[Complexity],
    found: Sequence[Classification],
    known: dict[Complexity, dict[str, Answer]] | None,
    families: Sequence[str],
) -> dict[str, Any]:
    if known is None:
        return {}
    right, wrong, wasted, total = [], 0, 0.0, 0.0
    for question, label, said in zip(questions, sent, found, strict=True):
        cheap, strong = known["simple"][question.id], known["complex"][question.id]
        taken = known[label][question.id]
        right.append(bool(taken.right))
        total += said.cost_usd + taken.cost_usd
        if (question.label, label) == ("complex", "simple"):
            wrong += bool(strong.right) and not cheap.right
        elif (question.label, label) == ("simple", "complex"):
            wasted += strong.cost_usd - cheap.cost_usd
    return {
        "wrong_answers": wrong,
        "wasted_usd": wasted,
        "answers_right": share(right, families),
        "total_usd": total,
    }
