"""What customers ask the shop and what a right answer takes: label, tools, facts. The only reader of questions.jsonl."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.triage.datasets import json_rows

Complexity = Literal["simple", "complex"]
LABELS: tuple[Complexity, ...] = ("simple", "complex")
Tool = Literal["return_policy", "product_info", "tech_support", "store_info", "web_search"]
TOOLS: tuple[Tool, ...] = ("return_policy", "product_info", "tech_support", "store_info", "web_search")
QuestionSplit = Literal["demo", "few_shot", "train", "calibration", "test"]
SPLITS: tuple[QuestionSplit, ...] = ("demo", "few_shot", "train", "calibration", "test")
Kind = Literal[
    "plain", "ambiguous", "multi_part", "negated", "adversarial", "foreign", "terse", "rambling",
    "empty", "greeting", "out_of_scope", "unanswerable",
]  # fmt: skip


class Question(BaseModel):
    """One message of a customer and its answer key. The text is untrusted everywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    id: str
    text: str
    label: Complexity
    tools: tuple[Tool, ...]
    """What a right answer has to look up; empty: nothing."""
    keys: Mapping[Tool, tuple[str, ...]]
    """The entries of the shop's data that hold the answer, by tool: return_policy takes a category, product_info
    products or a category, tech_support an article, store_info a topic, web_search a page."""
    facts: tuple[tuple[str, ...], ...]
    """What a right answer says; of each fact any one spelling. Empty: nothing that can be checked by its words."""
    working: str = ""
    """How a fact that stands in no entry follows from figures that do: "949 - 949 * 7 / 100"."""
    kind: Kind
    split: QuestionSplit
    family: str
    """The situation; no two splits share one."""
    language: str
    """ISO 639-1 code, of the text and of the answer that is expected."""
    first: Complexity
    """The label of the first pass."""
    second: Complexity
    """The label of the second pass, from the text alone."""
    note: str = ""
    """Why, where the two passes differed or the rubric had to be read closely."""

    def missing_facts(self, answer: str) -> tuple[tuple[str, ...], ...]:
        """The facts that `answer` does not say; empty: it says all that it must."""
        return tuple(fact for fact in self.facts if not any(says(answer, spelling) for spelling in fact))


def load_questions(split: QuestionSplit | None = None, *, path: Path | None = None) -> list[Question]:
    """The shipped questions, in file order.

    Args:
        split: which part; None: all. `few_shot` may stand in prompts, `train` is for small models and
            learned routers, `test` is for final scores only.
        path: a JSONL file of the same form; None: data/questions.jsonl of this project.

    Raises:
        ConfigurationError: there is no such split, the file is missing, or a line of it is not a question.
    """
    if split is not None and split not in SPLITS:
        raise ConfigurationError(f"There is no split {split!r}.", advice=f"The splits are {', '.join(SPLITS)}.")
    path = path or PROJECT / "data" / "questions.jsonl"
    questions = []
    for number, row in json_rows(path):
        try:
            questions.append(Question.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigurationError(
                f"{path.name}, line {number} is not a question: {where}: {first['msg']}.",
                advice="Compare it with a line of data/questions.jsonl.",
            ) from None
    return [q for q in questions if split is None or q.split == split]


def says(answer: str, spelling: str) -> bool:
    """Whether `answer` holds `spelling`, however numbers are written.

    Case, full-width digits, and separators of thousands do not matter ("1,299", "1.299" and "1299" are one number),
    a decimal comma is a point, "8 %" and "8 percent" are "8%", and a number is found as a whole only: "21" does not
    stand in "2100" or "21.5".
    """
    text, wanted = _plain(answer), _plain(spelling)
    before = r"(?<!\d)(?<!\d\.)" if wanted[:1].isdigit() else ""
    after = r"(?!\d)(?!\.\d)" if wanted[-1:].isdigit() else ""
    return re.search(before + re.escape(wanted) + after, text) is not None


def _plain(text: str) -> str:
    text = re.sub(r"(?<=\d)[,.'’\u00a0\u202f](?=\d{3}(?!\d))", "", text)
    text = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    text = re.sub(r"(?<=\d),(?=\d)", ".", text)
    return re.sub(r"(?<=\d)\s*(?:%|percent\b|per cent\b)", "%", text)
