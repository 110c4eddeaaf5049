"""Which items a run accepts: those that its task can describe, each id once. Decided before anything is paid for.

A list is checked as a whole, and so is a file; what comes from elsewhere is checked item by item.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from typing import Any

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.cascade.cascade import id_of
from workshop_lib.triage.task import Task


def identify(task: Task[Any], item: Any) -> tuple[str, str]:
    """An item's id, and a hash of what the models are told about it.

    Raises:
        ConfigurationError: the task cannot describe it.
    """
    item_id = id_of(item)
    try:
        item_id.encode()  # half of a character pair could be neither sent nor kept
        told = task.describe(item).encode()
    except Exception as error:  # a user's function, on whatever was put into the list
        raise ConfigurationError(
            f"{item_id!a} is no item for the task {task.name}: {type(error).__name__}: {error}.",
            advice="Give it what the task describes, e.g. Ticket(id=..., subject=..., body=...).",
        ) from error
    return item_id, hashlib.sha256(told).hexdigest()[:16]


def check(task: Task[Any], items: Iterable[Any]) -> int:
    """How many there are, once all of them are known to be usable and different.

    Raises:
        ConfigurationError: the task cannot describe one, or an id occurs twice.
    """
    seen, count = Seen(), 0
    for item in items:
        item_id, _ = identify(task, item)
        if not seen.add(item_id):
            raise twice(item_id)
        count += 1
    return count


class Seen:
    """Ids that have come by, in a temporary file of SQLite's: a set of millions would not be flat memory."""

    def __init__(self) -> None:
        """Empty."""
        self._file = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._file.execute("CREATE TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID")
        self._file.execute("BEGIN")  # never committed: it is forgotten with the run, and an insert costs a tenth

    def add(self, item_id: str) -> bool:
        """Whether it is new."""
        return self._file.execute("INSERT OR IGNORE INTO seen VALUES (?)", (item_id,)).rowcount == 1


def twice(item_id: str) -> ConfigurationError:
    """The error about an id that has come before."""
    return ConfigurationError(
        f"The id {item_id} occurs twice.", advice="Give every ticket an id of its own: results are kept by it."
    )
