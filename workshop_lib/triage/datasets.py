"""The shipped tickets and their answer key, and anyone's own JSONL: the only reader of ticket files."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import ValidationError

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.triage.schema import Category, Priority, Ticket

Split = Literal["train", "calibration", "test", "workshop"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "test", "workshop")


@dataclass(frozen=True)
class Label:
    """What the answer key says about a ticket, and where the ticket belongs."""

    category: Category
    priority: Priority
    needs_human: bool
    family: str
    """The scenario; tickets of one family are not independent of each other."""
    split: Split
    style: str
    """How the ticket is written: plain, terse, angry, ..."""
    note: str = ""
    """Why, where the two labellers disagreed."""


def load_tickets(split: Split | None = None, *, data_dir: Path | None = None, limit: int | None = None) -> list[Ticket]:
    """The shipped tickets, in file order.

    Args:
        split: which part; None: all. The parts share no scenario family. `test` is for final scores only.
        data_dir: where tickets.jsonl lies; None: this project's data folder.
        limit: at most so many.

    Raises:
        ConfigurationError: the files are missing, a line is not JSON or has no label, or one of that part is not a ticket.
    """
    if split is not None and split not in SPLITS:
        raise ConfigurationError(f"There is no split {split!r}.", advice=f"The splits are {', '.join(SPLITS)}.")
    key, texts = _file("labels.jsonl", data_dir), _file("tickets.jsonl", data_dir)
    return list(_tickets_of(split, texts, _version(texts), key, _version(key))[:limit])


def load_labels(*, data_dir: Path | None = None) -> Mapping[str, Label]:
    """The answer key by ticket id, not to be changed: all callers share it.

    Raises:
        ConfigurationError: as `load_tickets`.
    """
    path = _file("labels.jsonl", data_dir)
    return _labels_of(path, _version(path))


Version = tuple[int, int]
"""When a file was written, in ns, and how long it is: as long as both stay, it need not be read again."""


def _version(path: Path) -> Version:
    try:
        found = path.stat()
    except OSError:
        return 0, 0  # who reads it says why it cannot be read
    return found.st_mtime_ns, found.st_size


@functools.lru_cache(maxsize=8)
def _tickets_of(split: Split | None, texts: Path, _: Version, key: Path, key_version: Version) -> tuple[Ticket, ...]:
    labels, rows = _labels_of(key, key_version), list(json_rows(texts))
    missing = [name for _, row in rows if (name := str(row.get("id"))) not in labels]
    if missing:
        raise ConfigurationError(
            f"labels.jsonl has no label for {', '.join(missing[:5])}.", advice="Restore the data folder."
        )
    wanted = [row for row in rows if split is None or labels[str(row[1]["id"])].split == split]
    return tuple(_ticket(row, number, texts.name) for number, row in wanted)


@functools.lru_cache(maxsize=2)
def _labels_of(path: Path, _: Version) -> Mapping[str, Label]:
    labels: dict[str, Label] = {}
    for number, row in json_rows(path):
        try:
            labels[str(row["id"])] = Label(
                category=Category(str(row["category"])),
                priority=Priority(str(row["priority"])),
                needs_human=bool(row["needs_human"]),
                family=str(row["family"]),
                split=str(row["split"]),  # type: ignore[arg-type]  # a test holds the file to SPLITS
                style=str(row["style"]),
                note=str(row.get("note", "")),
            )
        except (KeyError, ValueError) as error:
            raise ConfigurationError(f"{path.name}, line {number} is not a label: {error}.") from None
    return MappingProxyType(labels)


def read_tickets(path: Path) -> Iterator[Ticket]:
    """Tickets of any JSONL file: one object a line with id, subject and body (customer_tier if known).

    Raises:
        ConfigurationError: the file cannot be read, or a line is not a ticket; the message names line and field.
    """
    for number, row in json_rows(path):
        yield _ticket(row, number, path.name)


def _ticket(row: dict[str, object], number: int, name: str) -> Ticket:
    try:
        return Ticket.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "ticket"
        raise ConfigurationError(
            f"{name}, line {number} is not a ticket: {where}: {first['msg']}.",
            advice='A line looks like {"id": "T-1", "subject": "...", "body": "..."}.',
        ) from None


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Number, from 1, and object of every line of a JSONL file that is not blank.

    Raises:
        ConfigurationError: the file cannot be read, or a line is not a JSON object in UTF-8; the message names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:  # a bad byte is named by its line
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    line.encode()
                    row = json.loads(line)
                except UnicodeEncodeError:
                    raise ConfigurationError(
                        f"{path.name} cannot be read: line {number} is not UTF-8.", advice="Save the file as UTF-8."
                    ) from None
                except (ValueError, RecursionError) as error:
                    raise ConfigurationError(
                        f"{path.name}, line {number} is not JSON: {error}.", advice="Mend or remove that line."
                    ) from None
                if not isinstance(row, dict):
                    raise ConfigurationError(
                        f"{path.name}, line {number} is not a JSON object.", advice="Mend or remove that line."
                    )
                yield number, row
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error}.", advice="Give the path of a JSONL file in UTF-8."
        ) from None


def _file(name: str, data_dir: Path | None) -> Path:
    return (data_dir or PROJECT / "data") / name
