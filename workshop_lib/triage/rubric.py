"""What people label by: the rubric of data/README.md, read from there, so that its words stand in one place only."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.triage.schema import Category, Priority


@dataclass(frozen=True)
class Rubric:
    """The rules that a label is made by."""

    version: str
    """E.g. "triage-rubric-1": kept with every label, since other words make other labels."""
    markdown: str
    """The whole text, without its heading."""
    categories: Mapping[Category, str]
    """In order of precedence: what belongs to it, as Markdown."""
    priorities: Mapping[Priority, str]


@functools.lru_cache(maxsize=2)
def load_rubric(data_dir: Path | None = None) -> Rubric:
    """The rubric of the shipped labels.

    Args:
        data_dir: where README.md lies; None: this project's data folder.

    Raises:
        ConfigurationError: the file is missing, or lacks the rubric or a definition.
    """
    path = (data_dir or PROJECT / "data") / "README.md"
    try:
        text = path.read_text(encoding="utf-8")
        heading = re.search(r"^## The rubric \((?P<version>[\w-]+)\)\n(?P<text>.*?)(?=^## |\Z)", text, re.M | re.S)
        version, rules = ("", "") if heading is None else (heading["version"], heading["text"])
        rows = {cells[0]: cells[1] for cells in _table_rows(rules)}
        return Rubric(
            version,
            rules.strip(),
            {Category(name): said for name, said in rows.items() if name in list(Category)},
            {priority: rows[priority] for priority in Priority},
        )
    except (OSError, ValueError, LookupError) as error:
        raise ConfigurationError(
            f"The rubric cannot be read from {path}: {type(error).__name__}: {error}.",
            advice="Restore data/README.md: people label by the section that is called The rubric.",
        ) from None


def _table_rows(markdown: str) -> list[list[str]]:
    """The cells of every line of every table."""
    return [
        [cell.strip() for cell in line.strip("| \n").split("|")] for line in markdown.splitlines() if line[:1] == "|"
    ]
