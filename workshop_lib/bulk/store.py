"""Where results are kept, so that nothing is paid for twice: one SQLite file a run, a commit a row, one writer at a time.

WAL with synchronous=NORMAL: a killed process loses nothing that was committed; a power cut may lose the last rows, never the file.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from workshop_lib.bedrock.errors import ConfigurationError, WorkshopError
from workshop_lib.bulk.rows import ROW_SCHEMA, Row, to_frame

if TYPE_CHECKING:
    import filelock

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
    seq INTEGER PRIMARY KEY, ticket_id TEXT NOT NULL, step INTEGER NOT NULL, digest TEXT NOT NULL, row TEXT NOT NULL,
    UNIQUE (ticket_id, step) ON CONFLICT REPLACE);
"""


class StoreError(WorkshopError):
    """A result could not be kept: disk full, file locked or damaged."""

    default_advice = (
        "Make room, or close what holds the file; then run the same command again: it goes on where it stopped."
    )


class StoreInUse(StoreError):
    """Another run is writing to this store."""

    default_advice = (
        "Wait for it, or give this run a store of its own. Two runs on one store would pay for the same tickets."
    )


class StoreMismatch(ConfigurationError):
    """The store was made by another task, prompt, model, rule or door, or a ticket's text has changed since."""

    default_advice = (
        "Use a new store for the changed run, or put back what was changed: results of both must not be mixed."
    )


class Store:
    """Rows by ticket and tier. Safe to share between the threads of one process; a second writer is refused.

    store = Store(Path("run.db"), identity={"prompt": "..."})
    store.add(row, step=0, digest="...")
    """

    def __init__(
        self, path: Path | str, *, identity: Mapping[str, Any] | None = None, busy_timeout_s: float = 5
    ) -> None:
        """
        Args:
            path: the file; it is made if it does not exist.
            identity: what the rows depend on, part by part; must equal that of an existing store. None: only read.
            busy_timeout_s: how long to wait for another program that holds the file.

        Raises:
            StoreInUse: another run is writing to it.
            StoreMismatch: it was made with another identity.
            StoreError: it cannot be opened, or is no store.
        """
        self.path = Path(path)
        self.resumed = True
        """Whether it held rows when it was opened."""
        self._lock = threading.Lock()
        self._writer: filelock.FileLock | None = None
        self._file: sqlite3.Connection | None = None
        if not self.path.parent.is_dir():
            raise StoreError(f"There is no folder {self.path.parent}.", advice="Make it, or choose another --store.")
        if identity is None and not self.path.is_file():
            raise StoreError(f"There is no store {self.path}.", advice="Check the path: it is the --store of the run.")
        try:
            if identity is not None:
                self._writer = only_writer(self.path)
            self._file = sqlite3.connect(
                self.path, timeout=busy_timeout_s, check_same_thread=False, isolation_level=None
            )
            if identity is not None:
                self._file.execute("PRAGMA journal_mode=WAL")
                self._file.execute("PRAGMA synchronous=NORMAL")
                self._file.executescript(_TABLES)
                self._claim({"rows": ROW_SCHEMA, **identity})
            self.resumed = self._file.execute("SELECT 1 FROM rows LIMIT 1").fetchone() is not None
        except sqlite3.Error as error:
            self.close()
            _broken(self.path, error)
        except BaseException:
            self.close()
            raise

    def add(self, row: Row, *, step: int, digest: str) -> None:
        """Keep one row, for good when this returns. A row of the same ticket and tier is replaced.

        Args:
            row: what to keep.
            step: the tier's place, from 0.
            digest: of the ticket's text, so that a changed ticket is noticed.

        Raises:
            StoreError: it could not be written.
        """
        self._write(
            "INSERT INTO rows (ticket_id, step, digest, row) VALUES (?, ?, ?, ?)",
            (row.ticket_id, step, digest, row.to_json()),
        )

    def rows_of(self, ticket_id: str, *, digest: str | None = None) -> list[Row]:
        """The rows of one ticket, from its first tier up.

        Raises:
            StoreMismatch: the ticket's text is not the one that these rows were paid for.
        """
        found = self._read("SELECT digest, row FROM rows WHERE ticket_id = ? ORDER BY step", (ticket_id,))
        if digest is not None and any(known != digest for known, _ in found):
            raise StoreMismatch(f"Ticket {ticket_id} has another text than when {self.path.name} was made.")
        return [Row.model_validate_json(text) for _, text in found]

    def note(self, name: str, what: Mapping[str, Any]) -> None:
        """Keep something about the run itself, e.g. the ARN of a job, as JSON; what had this name before is replaced.

        Raises:
            StoreError: it could not be written.
        """
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"note/{name}", json.dumps(what)))

    def notes(self, prefix: str) -> dict[str, Any]:
        """The notes whose name begins so, in the order of their names."""
        start = f"note/{prefix}"
        found = self._read(
            "SELECT name, value FROM meta WHERE substr(name, 1, ?) = ? ORDER BY name", (len(start), start)
        )
        return {name.removeprefix("note/"): json.loads(value) for name, value in found}

    def __iter__(self) -> Iterator[Row]:
        """All rows, in the order in which they were kept."""
        last = -1
        while page := self._read("SELECT seq, row FROM rows WHERE seq > ? ORDER BY seq LIMIT 500", (last,)):
            last = page[-1][0]
            yield from (Row.model_validate_json(text) for _, text in page)

    def __len__(self) -> int:
        return int(self._read("SELECT count(*) FROM rows", ())[0][0])

    @property
    def cost_usd(self) -> float:
        """USD of all rows."""
        return float(self._read("SELECT total(json_extract(row, '$.cost_usd')) FROM rows", ())[0][0])

    @property
    def failed(self) -> int:
        """Tickets whose last row is an error row."""
        failed = "json_extract(row, '$.final') AND json_extract(row, '$.decision') IS NULL"
        return int(self._read(f"SELECT count(*) FROM rows WHERE {failed}", ())[0][0])

    def export(self, path: Path | str) -> int:
        """Write every row once to a file: .parquet, or NDJSON under any other name. All or nothing.

        Returns:
            How many rows it holds.

        Raises:
            StoreError: the file cannot be written.
        """
        path = Path(path)
        try:
            with tempfile.NamedTemporaryFile(
                "w", dir=path.parent, suffix=path.suffix, encoding="utf-8", newline="\n", delete=False
            ) as made:
                try:
                    if path.suffix == ".parquet":
                        _flat(to_frame(self)).to_parquet(made.name, index=False)
                    else:
                        made.writelines(row.to_json() + "\n" for row in self)
                    made.close()
                    Path(made.name).replace(path)
                except BaseException:
                    made.close()
                    Path(made.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise StoreError(
                f"{path} cannot be written: {error}.", advice="Choose another --out; the store has it all."
            ) from error
        return len(self)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._file is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._file.close()
                self._file = None
            if self._writer is not None:
                self._writer.release()
                self._writer = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _claim(self, identity: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps(identity))
        stored = self._read("SELECT value FROM meta WHERE name = 'identity'", ())
        if not stored:
            self._write("INSERT INTO meta VALUES ('identity', ?)", (json.dumps(now, sort_keys=True),))
            return
        hold_against(self.path, then=json.loads(stored[0][0]), now=now)

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._lock:
            try:
                self._open().execute(statement, values)
            except sqlite3.Error as error:
                _broken(self.path, error)

    def _read(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._open().execute(statement, values).fetchall()
            except sqlite3.Error as error:
                _broken(self.path, error)

    def _open(self) -> sqlite3.Connection:
        if self._file is None:
            raise StoreError(f"{self.path.name} was closed.", advice="Open it again.")
        return self._file


def hold_against(path: Path, *, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse results that depend on something else than those at `path`.

    Raises:
        StoreMismatch: it names each part that differs.
    """
    changed = [
        f"{part} (then {then.get(part)}, now {now.get(part)})"
        for part in sorted(then.keys() | now.keys())
        if then.get(part) != now.get(part)
    ]
    if changed:
        raise StoreMismatch(f"{path.name} was made with another {'; another '.join(changed)}.")


def only_writer(path: Path) -> filelock.FileLock:
    """The lock of a store's writer; the system lets go of it when the process ends, however it ends.

    Raises:
        StoreInUse: somebody else has it.
        StoreError: the folder cannot be written.
    """
    import filelock

    lock = filelock.FileLock(f"{path}.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise StoreInUse(f"{path} is in use by another run.") from None
    except OSError as error:
        raise StoreError(
            f"{path} cannot be used: {error}.", advice="Choose a folder that exists and can be written."
        ) from error
    return lock


def _broken(path: Path, error: sqlite3.Error) -> NoReturn:
    if "not a database" in str(error) or "no such table" in str(error):
        raise StoreError(f"{path} is not a store: {error}.", advice="Give the path of another file.") from error
    raise StoreError(f"{path}: {error}.") from error


def _flat(frame: Any) -> Any:
    """Lists and objects as JSON text: parquet wants one type a column, and an empty list has none."""
    return frame.map(lambda cell: json.dumps(cell) if isinstance(cell, list | dict) else cell)
