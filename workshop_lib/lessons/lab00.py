"""What counts as right in lab 00."""

from __future__ import annotations

from workshop_lib.bedrock.settings import Settings
from workshop_lib.lessons.checks import Exercise


def _door(answer: object) -> str | None:
    mode = Settings.load().mode
    if answer == mode:
        return None
    return f"door is {answer!r}; the line under the setup cell names the other one"


EXERCISES = {
    "0.1": Exercise(
        _door,
        (
            "Look at the line under the setup cell: it begins with the name of the door.",
            'It is one of two words: "local" or "live".',
        ),
        "that is how every exercise works: edit the cell, run it, read the verdict.",
    ),
}
