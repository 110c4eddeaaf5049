"""What someone who begins at a later lab needs: an unspoilt copy of it, trained models, and what the others have done so far.

catch_up("05")      # or, in a terminal: workshop catch-up 05
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from workshop_lib.bedrock.settings import PROJECT, Settings
from workshop_lib.lessons.checks import Note, nothing_to_check

NOTEBOOKS = PROJECT / "notebooks"
WORK = PROJECT / "work"
"""Fresh copies go here, where neither the tests nor git look."""


def catch_up(
    lab: str, *, settings: Settings | None = None, notebooks: Path = NOTEBOOKS, work: Path = WORK, train: bool = True
) -> Note:
    """Put in place what a lab starts from, so that any lab can be the first one, and say what was done before it.

    No lab needs a result of another. What is put in place: the lab's notebook as it was shipped (beside an attendee's own, which
    is never touched), and the trained models of the local door, so that the first cell does not take half a minute.

    Args:
        lab: its number, e.g. "05".
        settings: None reads the environment and `.env`.
        notebooks, work: where the notebooks are, and where fresh copies go.
        train: whether to train the local door's models, if they are not.

    Raises:
        ConfigurationError: the settings, or the data that the local models learn from, are not usable.
    """
    number = lab.strip().zfill(2)
    solved = {path.stem[:2]: path for path in sorted((notebooks / "solutions").glob("[0-9][0-9]_*.ipynb"))}
    if number not in solved:
        return nothing_to_check(f"there is no lab {lab}; the labs are {', '.join(solved)}")
    where = _unspoilt(solved[number], notebooks, work)
    settings = settings or Settings.load()
    if train and settings.mode == "local" and settings.endpoint_url is None:
        _train(settings)
    missed = [path for other, path in solved.items() if other < number]
    text = f"it needs nothing from earlier labs{_helps(solved[number])}. Open {where} and run it from its first cell."
    before = "\n\n".join(["Done before it:", *(_done_in(path) for path in missed)]) if missed else ""
    return Note(f"Lab {number}", text, code=before)


def _unspoilt(solved: Path, notebooks: Path, work: Path) -> str:
    """Where the lab stands as it was shipped: in its own place, or as a copy if that has been worked on."""
    import nbformat

    from workshop_lib.lessons.notebooks import learner_copy

    fresh = learner_copy(nbformat.read(solved, 4))
    copies = (work / (solved.name if i == 1 else f"{solved.stem}_{i}.ipynb") for i in count(1))
    for path in chain([notebooks / solved.name], copies):
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            path.write_text(nbformat.writes(fresh) + "\n", encoding="utf-8", newline="\n")
        if _sources(nbformat.read(path, 4)) == _sources(fresh):
            return f"{path.parent.name}/{path.name}"
    raise AssertionError("there is always another name")


def _sources(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells]


def _train(settings: Settings) -> None:
    from workshop_lib.embedding import Embedder
    from workshop_lib.local.models import load_answerer, shop

    load_answerer(settings.data_dir, settings.cache_dir)
    shop.learn(Embedder(settings.cache_dir), data_dir=settings.data_dir, cache_dir=settings.cache_dir)


def _helps(path: Path) -> str:
    found = re.search(r"\((\d\d) helps\)", "\n".join(_prose(path)[:1]))
    return f" ({found[1]} helps: read its end)" if found else ""


def _done_in(path: Path) -> str:
    """The title of a lab and the list at its end: there is no second copy of either."""
    prose = _prose(path)
    end = next((text for text in reversed(prose) if "## What you did" in text), "")
    return "\n".join([prose[0].splitlines()[0].removeprefix("# "), *re.findall(r"(?m)^- .*$", end.replace("**", ""))])


def _prose(path: Path) -> Sequence[str]:
    import nbformat

    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
