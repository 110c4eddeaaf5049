"""Where the results of a cluster are kept: a folder with one parquet file a partition, and a manifest of what they depend on.

    run.parquet/_manifest.json      cascade, models, door, tickets, partition size
    run.parquet/part-00012.parquet  one row a tier of each ticket, in the tickets' order; written whole or not at all
    run.parquet/_work/              stores of partitions that are not finished; gone when the run is

Readers of parquet pass over names with an underscore: `pandas.read_parquet("run.parquet")` reads the results and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from workshop_lib.bulk.rows import ROW_SCHEMA, Row
from workshop_lib.bulk.store import StoreError, hold_against, only_writer

if TYPE_CHECKING:
    import filelock
    import pandas
    import pyarrow

FOLDER_SCHEMA = "bulk-cluster-1"
STORE_FILES = ("-wal", "-shm", ".lock", ".json")
"""Beside a store: SQLite's, its writer's, and the note of its attempts."""


@dataclass(frozen=True)
class Partition:
    """What one run has done about one partition, in all its attempts."""

    number: int
    tickets: int = 0
    """Answered in this run."""
    skipped: int = 0
    """Answered by an earlier run, and not asked about again."""
    escalated: int = 0
    failed: int = 0
    cost_usd: float = 0.0
    """USD of this run's rows."""
    cut_off: int = 0
    """Attempts that ended without a word, e.g. with their worker: each has paid at most for what its threads had in flight."""
    stopped: Literal["finished", "budget", "interrupted"] = "finished"


@dataclass(frozen=True)
class Folder:
    """The files of a run. Drivers and workers see the same `path`; `work_dir` may be each worker's own."""

    path: Path
    work_dir: Path | None = None

    @property
    def work(self) -> Path:
        """Where stores of unfinished partitions are."""
        if self.work_dir is None:
            return self.path / "_work"
        return self.work_dir / f"{self.path.stem}-{hashlib.sha256(str(self.path).encode()).hexdigest()[:8]}"

    def claim(self, manifest: Mapping[str, Any]) -> filelock.FileLock:
        """Make the folder, or go on in it; nobody else may until the lock is released.

        Raises:
            StoreInUse: another driver is at it.
            StoreMismatch: it was made with another manifest.
            StoreError: it cannot be made, or holds something else.
        """
        file, now = self.path / "_manifest.json", json.loads(json.dumps({"folder": FOLDER_SCHEMA, **manifest}))
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be made: {error}.", advice="Choose another out=.") from error
        lock = only_writer(self.path / "_driver")
        try:
            if file.exists():
                hold_against(self.path, then=json.loads(file.read_text(encoding="utf-8")), now=now)
            elif any(not entry.name.startswith(("_", ".")) for entry in self.path.iterdir()):
                raise StoreError(  # noqa: TRY301
                    f"{self.path} holds files and no results of a cluster.", advice="Give out= a folder of its own."
                )
            else:
                _replace(file, json.dumps(now, indent=1, sort_keys=True).encode())
        except (OSError, ValueError) as error:
            lock.release()
            raise StoreError(f"{self.path} cannot be used: {error}.", advice="Choose another out=.") from error
        except BaseException:
            lock.release()
            raise
        return lock

    def part(self, number: int) -> Path:
        """The file of a finished partition."""
        return self.path / f"part-{number:05d}.parquet"

    def store(self, number: int) -> Path:
        """The store of an unfinished one. SQLite: the disk must be the worker's own."""
        return self.work / f"part-{number:05d}.db"

    def lock(self, number: int) -> Path:
        """Of whoever is at an unfinished one."""
        return self.work / f"part-{number:05d}.lock"

    def finish(self, rows: Iterable[Row], schema: type[BaseModel], said: Partition, *, run: str) -> None:
        """Write a partition's rows for good.

        Raises:
            StoreError: they cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        told = json.dumps({"run": run, **asdict(said)})
        columns = _columns(schema).with_metadata({"rows": ROW_SCHEMA, "partition": told})
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([_record(row, columns) for row in rows], schema=columns), sink)
        try:
            _replace(self.part(said.number), sink.getvalue())
        except OSError as error:
            raise StoreError(f"{self.part(said.number)} cannot be written: {error}.") from error

    def finished(self, number: int, count: int, *, run: str) -> Partition | None:
        """What was done about a partition whose file stands; None: it does not stand."""
        import pyarrow.parquet as pq

        if not self.part(number).exists():
            return None
        told = json.loads(pq.read_schema(self.part(number)).metadata[b"partition"])
        return Partition(**told) if told.pop("run") == run else Partition(number, skipped=count)

    def forget(self, number: int) -> None:
        """Remove what a finished partition needs no longer."""
        store = self.store(number)
        for file in (store, self.lock(number), *(store.with_name(store.name + e) for e in STORE_FILES)):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what a finished run needs no longer."""
        shutil.rmtree(self.work, ignore_errors=True)
        # Left by who was killed while writing; any sooner, somebody may still be writing.
        for left in self.path.glob("_*.tmp"):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)

    def frame(self, schema: type[BaseModel]) -> pandas.DataFrame:
        """The rows of all finished partitions, in the tickets' order."""
        import pandas as pd

        parts = sorted(self.path.glob("part-*.parquet"))
        if not parts:
            empty: pandas.DataFrame = _columns(schema).empty_table().to_pandas()
            return empty
        return pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)


def note(file: Path, told: Mapping[str, Any]) -> None:
    """Keep a few facts in a small file, whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        _replace(file, json.dumps(told).encode())
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error}.") from error


def _replace(file: Path, content: Any) -> None:
    """Write a file that is there whole or not at all, also after a power cut."""
    made = file.with_name(f"_{file.name}.{os.getpid()}.tmp")
    try:
        with made.open("wb") as sink:
            sink.write(content)
            sink.flush()
            os.fsync(sink.fileno())
        made.replace(file)
        _keep_names(file.parent)
    except BaseException:
        made.unlink(missing_ok=True)
        raise


def _keep_names(folder: Path) -> None:
    """See to it that a power cut does not undo a renaming: what it replaces is removed next. Windows has no call for it."""
    if sys.platform == "win32":
        return
    try:
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except OSError as error:
        # Any other is of a file system that cannot: the file stands all the same.
        if error.errno in (errno.EIO, errno.ENOSPC):
            raise


def _columns(schema: type[BaseModel]) -> pyarrow.Schema:
    """One type a column whatever a partition holds, so that all files agree; lists and objects are JSON text."""
    import pyarrow as pa

    kinds = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}

    def kind(of: Any) -> pyarrow.DataType:
        either = typing.get_args(of) if typing.get_origin(of) in (typing.Union, types.UnionType) else (of,)
        known = [kinds.get(each) for each in either if each is not type(None)]
        return known[0] if len(known) == 1 and known[0] is not None else pa.string()

    fields: list[tuple[str, Any]] = []
    for name, field in Row.model_fields.items():
        title, inner = field.alias or name, field.annotation
        if name == "decision":
            fields += [(f"decision.{part}", kind(f.annotation)) for part, f in schema.model_fields.items()]
        elif name == "usage":
            fields += [(f"usage.{part}", pa.int64()) for part in typing.get_type_hints(inner)]
        elif name == "error":
            fields += [(f"error.{part}", pa.string()) for part in ("stage", "type", "message", "advice")]
        else:
            fields.append((title, kind(inner)))
    return pa.schema(fields)


def _record(row: Row, columns: pyarrow.Schema) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, value in row.model_dump(mode="json", by_alias=True).items():
        parts = {name: value}
        if name in ("decision", "usage", "error"):
            parts = {f"{name}.{part}": inner for part, inner in (value or {}).items()}
        record |= parts
    texts = {field.name for field in columns if field.type == "string"}
    return {k: json.dumps(v) if k in texts and not isinstance(v, str | None) else v for k, v in record.items()}
