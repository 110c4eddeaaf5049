"""How good the local door's models are at the shop: `python benchmarks/shop_models.py [calibration | test]`.

Label, tools and answers of the cheap and the strong model, with the shop's own tools. The test split is for final figures alone: nothing
is chosen or tuned by it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from workshop_lib import Settings
from workshop_lib.bedrock.errors import WorkshopError
from workshop_lib.embedding import Embedder
from workshop_lib.local.models.shop import ARGUMENTS, ShopModel, learn
from workshop_lib.shop import Question, Shop, load_questions, load_shop
from workshop_lib.shop.questions import LABELS
from workshop_lib.shop.tools import call


def main() -> None:
    split: Any = sys.argv[1] if len(sys.argv) > 1 else "calibration"
    settings, shop, questions = Settings(), load_shop(), load_questions(split)
    started = time.perf_counter()
    model = learn(Embedder(), data_dir=settings.data_dir, cache_dir=settings.cache_dir)
    print(f"ready after {time.perf_counter() - started:.1f} s\n")
    print(f"{len(questions)} questions of the split {split}\n")
    print(
        "| model | label right | of simple | of complex | tools right | all facts, simple | all facts, complex | words | ms CPU |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for manner in ("cheap", "strong"):
        began = time.process_time()
        rows = [_served(model, shop, manner, question) for question in questions]
        cpu_ms = (time.process_time() - began) / len(questions) * 1e3
        label = [_share(rows, lambda q, r: r[0] == q.label, only) for only in (None, *LABELS)]
        tools = _share(rows, lambda q, r: r[1] == set(q.tools))
        facts = [
            _share([x for x in rows if x[0].facts], lambda q, r: not q.missing_facts(r[2]), only) for only in LABELS
        ]
        words = sum(len(r[2].split()) for _, r in rows) / len(rows)
        print(f"| {manner} | {' | '.join([*label, tools, *facts])} | {words:.0f} | {cpu_ms:.0f} |")


def _served(
    model: ShopModel, shop: Shop, manner: str, question: Question
) -> tuple[Question, tuple[str, set[str], str]]:
    likely = model.label(manner, question.text)
    lookups = model.lookups(manner, question.text)
    results = []
    for tool, key in lookups:
        try:
            results.append((call(shop, tool, {ARGUMENTS[tool]: model.argument((tool, key))}), False))
        except WorkshopError as error:
            results.append((str(error), True))
    said = model.answer(manner, question.text, results) if results else model.reply(manner, question.text)
    return question, (max(likely, key=likely.__getitem__), {tool for tool, _ in lookups}, said)


def _share(
    rows: Sequence[tuple[Question, Any]], right: Callable[[Question, Any], bool], label: str | None = None
) -> str:
    found = [right(question, row) for question, row in rows if label in (None, question.label)]
    return f"{sum(found) / len(found):.0%} ({len(found)})"


if __name__ == "__main__":
    main()
