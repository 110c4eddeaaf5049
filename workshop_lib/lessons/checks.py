"""How an exercise is checked, hinted at and solved: `check`, `hint`, `solution`. None of them ever raises in a lesson.

check("1.1", my_answer)     # Correct / Not yet / Not attempted / Your code raised / Nothing to check
hint("1.1"); hint("1.1", 2); solution("1.1")
"""

from __future__ import annotations

import html
import importlib
import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from workshop_lib.bedrock.settings import PROJECT

Status = Literal["Correct", "Not yet", "Not attempted", "Your code raised", "Nothing to check"]
COLOURS: Mapping[Status, str] = {
    "Correct": "#009E73",
    "Not yet": "#D55E00",
    "Not attempted": "#666666",
    "Your code raised": "#D55E00",
    "Nothing to check": "#666666",
}
MARKS: Mapping[Status, str] = {
    "Correct": "✔",
    "Not yet": "✘",
    "Not attempted": "○",
    "Your code raised": "✘",
    "Nothing to check": "○",
}


class NotAttemptedError(Exception):
    """Raised by an exercise's test when a function still returns nothing."""


@dataclass(frozen=True)
class Exercise:
    """What counts as right, and the hints on the way there."""

    test: Callable[..., str | None]
    """Given the attendee's answer: None if it is right, else what is seen (their value, never the answer)."""
    hints: tuple[str, ...]
    praise: str
    """What was just learnt, shown when it is right."""


@dataclass(frozen=True)
class Note:
    """A verdict, hint or solution: one object for notebook and terminal."""

    head: str
    text: str = ""
    colour: str = "#0072B2"
    code: str = ""

    def __repr__(self) -> str:
        return "\n".join(part for part in (f"{self.head}{': ' if self.text else ''}{self.text}", self.code) if part)

    def _repr_html_(self) -> str:
        code = f"<pre style='margin:.5em 0 0'>{html.escape(self.code)}</pre>" if self.code else ""
        return (
            f"<div class='mathjax_ignore' style='border-left:4px solid {self.colour};padding:.4em .8em;margin:.3em 0'>"
            f"<b>{html.escape(self.head)}:</b> {html.escape(self.text)}{code}</div>"
        )


def check(number: str, *answer: Any) -> Note:
    """Look at an answer and say what it is worth.

    Args:
        number: of the exercise, e.g. "1.1".
        answer: the variable or function that the exercise asks for.
    """
    number = str(number)
    exercise = _exercise(number)
    if exercise is None:
        return nothing_to_check(f"there is no exercise {number}")
    if not answer:
        return nothing_to_check(f'pass your answer, e.g. check("{number}", my_answer)')
    if any(given is ... or given is None for given in answer):
        return _verdict("Not attempted", f'replace the ... in exercise {number}; hint("{number}") helps')
    try:
        problem = exercise.test(*answer)
    except NotAttemptedError:
        return _verdict("Not attempted", f'your function returns nothing yet; hint("{number}") helps')
    except Exception as error:  # the attendee's own code runs in here: whatever it raises is theirs to see
        where = traceback.extract_tb(error.__traceback__)[-1]
        return _verdict("Your code raised", f"{type(error).__name__}: {error} (line {where.lineno}: {where.line})")
    return _verdict("Correct", exercise.praise) if problem is None else _verdict("Not yet", problem)


def hint(number: str, step: int = 1) -> Note:
    """The first hint of an exercise, or a later one; each says a little more."""
    number = str(number)
    exercise = _exercise(number)
    if exercise is None:
        return nothing_to_check(f"there is no exercise {number}")
    step = max(1, min(int(step), len(exercise.hints)))
    more = (
        f'  (hint("{number}", {step + 1}) says more)'
        if step < len(exercise.hints)
        else f'  (solution("{number}") is next)'
    )
    return Note(f"Hint {step} of {len(exercise.hints)}", exercise.hints[step - 1] + more)


def solution(number: str) -> Note:
    """The solved cell of an exercise, read from the solved notebook: there is no second copy."""
    for path in sorted((PROJECT / "notebooks" / "solutions").glob(f"{_lab_of(number)}_*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if "solution" in cell["metadata"].get("tags", ()) and f'check("{number}"' in source:
                body = source.partition("# BEGIN SOLUTION\n")[2].partition("# END SOLUTION")[0]
                return Note(
                    f"Solution of {number}",
                    "one way to do it; paste it over your code and run the cell",
                    code=body.rstrip(),
                )
    return nothing_to_check(f"there is no exercise {number}")


def nothing_to_check(why: str) -> Note:
    """The verdict when there is no such exercise or lab."""
    return _verdict("Nothing to check", why)


def _verdict(status: Status, text: str) -> Note:
    return Note(f"{MARKS[status]} {status}", text, COLOURS[status])


def _lab_of(number: str) -> str:
    return number.split(".", maxsplit=1)[0].zfill(2)


def _exercise(number: str) -> Exercise | None:
    try:
        module = importlib.import_module(f"workshop_lib.lessons.lab{_lab_of(number)}")
    except ModuleNotFoundError:
        return None
    exercises: Mapping[str, Exercise] = module.EXERCISES
    return exercises.get(number)
