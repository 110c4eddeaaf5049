"""What a recorded pair of models is: a CSV of questions with both models' verdicts, read, checked, and cleaned of what cannot be used.

Columns: `text` (or `prompt`, `question`), `cheap_correct`, `strong_correct`: 0 or 1, true or false, or a quality from 0 to 1. If there:
`confidence` (0..1) or `cheap_logprob` (taken as exp), `cheap_cost_usd` with `strong_cost_usd`, `family`, and the features you name.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from workshop_lib.bedrock.errors import ConfigurationError

Floats = npt.NDArray[np.float64]
TEXT = ("text", "prompt", "question")
VERDICTS = ("cheap_correct", "strong_correct")
COSTS = ("cheap_cost_usd", "strong_cost_usd")
LONGEST_CELL = 1_000_000
"""Characters. The csv module's own limit, 131,072, is less than a long document."""
WORDS = {"true": 1.0, "yes": 1.0, "right": 1.0, "false": 0.0, "no": 0.0, "wrong": 0.0}


class RecordedPairError(ConfigurationError):
    """A recorded pair cannot be read."""

    default_advice = (
        "It takes a CSV in UTF-8 with the columns text, cheap_correct and strong_correct (0 or 1); "
        "confidence, costs and family if you have them."
    )


@dataclass(frozen=True, eq=False)
class RecordedPair:
    """Two models on the same questions."""

    name: str
    texts: tuple[str, ...]
    cheap: Floats
    """Quality of the cheap model's answer to each, 0..1."""
    strong: Floats
    families: tuple[str, ...]
    """What each text belongs to: the column's word, or else the text itself, so that copies stay together."""
    confidence: Floats | None = None
    """Of the cheap answer, 0..1."""
    cheap_cost_usd: Floats | None = None
    """Of each call."""
    strong_cost_usd: Floats | None = None
    features: tuple[Mapping[str, str | float], ...] | None = None
    """Further facts about each text, known before a model is asked."""
    notes: tuple[str, ...] = ()
    """What was left out or is odd."""

    @property
    def n(self) -> int:
        """Questions."""
        return len(self.texts)

    @property
    def graded(self) -> bool:
        """Whether an answer may be right in part, so that the measures of right and wrong do not apply."""
        return not bool(np.isin(self.cheap, (0, 1)).all() and np.isin(self.strong, (0, 1)).all())


def load_pair(path: Path, *, features: Sequence[str] = ()) -> RecordedPair:
    """Read a recorded pair. A row with an empty cell that is needed is left out and told of; one that cannot be read is an error.

    Separated by comma, semicolon (then with decimal commas too) or tab; with or without a byte-order mark.

    Args:
        path: of the CSV.
        features: columns to learn from beside the text.

    Raises:
        RecordedPairError: no such file, not UTF-8, a column that is missing, a cell that cannot be read (named by row and column), or
            no row left.
    """
    header, records, decimal_comma = _rows(path)
    features = [name.strip().lower() for name in features]
    text = next((name for name in TEXT if name in header), None)
    missing = [" or ".join(TEXT)] * (text is None)
    missing += [name for name in (*VERDICTS, *features) if name not in header]
    if missing or text is None:
        raise RecordedPairError(f"{path.name} has no column {', '.join(missing)}; it has {', '.join(header)}.")
    notes = []
    sure = next((name for name in ("confidence", "cheap_logprob") if name in header), None)
    costs = COSTS if set(COSTS) <= set(header) else ()
    if not costs and set(COSTS) & set(header):
        notes.append(f"costs need both columns, {' and '.join(COSTS)}: there is one, and it is not used.")
    used = [text, *VERDICTS, *([sure] if sure else []), *costs, *features]
    where = {name: header.index(name) for name in used}
    empty = {name: [row for row, cells in records if not cells[at].strip()] for name, at in where.items()}
    for name, rows in empty.items():
        if rows:
            shown = ", ".join(map(str, rows[:3])) + (", ..." if len(rows) > 3 else "")
            notes.append(f"{len(rows)} of {len(records)} rows have no {name} and are left out (row {shown}).")
    out = set().union(*empty.values())
    kept = [(row, cells) for row, cells in records if row not in out]
    if not kept:
        raise RecordedPairError(f"{path.name}: no row has all of {', '.join(used)}.")
    if len(out) > len(records) / 10:
        notes.append(
            f"Together {len(out) / len(records):.0%} of the rows are left out: what remains may differ from your traffic."
        )

    def numbers(name: str, read: Callable[[str], float], wanted: str) -> Floats:
        found = np.empty(len(kept))
        for i, (row, cells) in enumerate(kept):
            cell = cells[where[name]].strip()
            try:
                found[i] = read(cell.replace(",", ".") if decimal_comma else cell)
            except ValueError:
                raise RecordedPairError(
                    f"{path.name}, row {row}, column {name}: {cell[:40]!r} is not {wanted}."
                ) from None
        return found

    cheap, strong = (numbers(name, _quality, "0, 1, true, false, or a number from 0 to 1") for name in VERDICTS)
    confidence = None
    if sure == "confidence":
        confidence = numbers(sure, _unit, "a number from 0 to 1")
    elif sure is not None:
        confidence = np.exp(numbers(sure, _logarithm, "a log-probability: a number, 0 or less"))
    spent = [numbers(name, _amount, "USD: a number, 0 or more") for name in costs]
    texts = tuple(cells[where[text]] for _, cells in kept)
    alone = tuple(" ".join(t.split()) for t in texts)
    given = None
    if "family" in header:
        at = header.index("family")
        given = tuple(cells[at].strip() or text for (_, cells), text in zip(kept, alone, strict=True))
    notes += _oddities(alone, given, cheap, strong)
    return RecordedPair(
        name=path.name,
        texts=texts,
        cheap=cheap,
        strong=strong,
        families=given or alone,
        confidence=confidence,
        cheap_cost_usd=spent[0] if spent else None,
        strong_cost_usd=spent[1] if spent else None,
        features=_features(features, where, kept, decimal_comma) if features else None,
        notes=tuple(notes),
    )


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]], bool]:
    """Names of the columns in small letters; each row that is not blank, with its number; whether numbers may have a decimal comma.

    The first row under the names has number 1.
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RecordedPairError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise RecordedPairError(
            f"{path.name} is not UTF-8 (byte {error.start}).", advice='In a spreadsheet, save it as "CSV UTF-8".'
        ) from None
    first = content.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    lines = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    limit = csv.field_size_limit(LONGEST_CELL)
    try:
        header = [name.strip().lower() for name in next(lines, [])]
        records = [(i, cells) for i, cells in enumerate(lines, start=1) if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise RecordedPairError(f"{path.name}, line {lines.line_num}: {error}.") from None
    finally:
        csv.field_size_limit(limit)
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise RecordedPairError(f"{path.name} has two columns {twice[0]}.", advice="Name each column once.")
    for row, cells in records:
        if len(cells) != len(header):
            raise RecordedPairError(
                f"{path.name}, row {row}: {len(cells)} cells where the header has {len(header)}.",
                advice=f'A text with "{separator}" or a line break in it stands in quotation marks.',
            )
    return header, records, separator == ";"


def _features(
    names: Sequence[str], where: Mapping[str, int], kept: Sequence[tuple[int, list[str]]], decimal_comma: bool
) -> tuple[dict[str, str | float], ...]:
    """A column is of numbers if every cell is one; else of words."""
    found: list[dict[str, str | float]] = [{} for _ in kept]
    for name in names:
        cells = [cells[where[name]].strip() for _, cells in kept]
        values: Sequence[str | float] = cells
        try:
            numbers = [float(cell.replace(",", ".") if decimal_comma else cell) for cell in cells]
        except ValueError:
            pass
        else:
            values = numbers if all(map(math.isfinite, numbers)) else cells
        for facts, value in zip(found, values, strict=True):
            facts[name] = value
    return tuple(found)


def _oddities(texts: Sequence[str], families: Sequence[str] | None, cheap: Floats, strong: Floats) -> list[str]:
    said = []
    verdicts: dict[str, set[tuple[float, float]]] = {}
    homes: dict[str, set[str]] = {}
    for i, text in enumerate(texts):
        verdicts.setdefault(text, set()).add((float(cheap[i]), float(strong[i])))
        if families is not None:
            homes.setdefault(text, set()).add(families[i])
    copies = len(texts) - len(verdicts)
    if copies:
        parted = sum(len(v) > 1 for v in verdicts.values())
        said.append(
            f"{copies} of {len(texts)} texts are copies of another: they are counted as one family, not as further evidence."
            if families is None
            else f"{copies} of {len(texts)} texts are copies of another."
        )
        if parted:
            said.append(f"{parted} of the repeated texts have different verdicts from copy to copy.")
    strays = sum(len(home) > 1 for home in homes.values())
    if strays:
        said.append(
            f"{strays} texts stand in more than one family: learned scores have seen them before and may look too good."
        )
    return said


def _quality(cell: str) -> float:
    return WORDS[cell.lower()] if cell.lower() in WORDS else _unit(cell)


def _unit(cell: str) -> float:
    return _between(float(cell), 0, 1)


def _logarithm(cell: str) -> float:
    return _between(float(cell), -math.inf, 0)


def _amount(cell: str) -> float:
    return _between(float(cell), 0, 1e9)


def _between(value: float, low: float, high: float) -> float:
    if not low <= value <= high:  # NaN too
        raise ValueError
    return value
