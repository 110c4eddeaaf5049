"""The embedder keeps its vectors from one process to the next, and is none the worse where it cannot."""

import sqlite3

import numpy as np
import pytest

from workshop_lib import embedding
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.embedding import Embedder, write_vectors
from workshop_lib.local.models import VECTORS, shipped_texts

TEXTS = ["The export fails.", "Where is my invoice?", "half a pair: \ud83d"]


@pytest.fixture(scope="module")
def plain():
    return Embedder()


def test_a_kept_vector_is_the_computed_one_bit_by_bit(plain, tmp_path):
    Embedder(tmp_path).embed(TEXTS[:2])
    again = Embedder(tmp_path)
    again._embed_one = None  # nothing is computed
    assert again.embed(TEXTS[:2]).tobytes() == plain.embed(TEXTS[:2]).tobytes()


def test_no_text_stands_in_the_file(tmp_path):
    Embedder(tmp_path).embed(TEXTS[:1])
    assert b"export" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_what_was_cut_elsewhere_is_computed_again(tmp_path, monkeypatch):
    long = [" ".join(TEXTS[:2])]
    kept = Embedder(tmp_path).embed(long)
    monkeypatch.setattr(embedding, "MAX_TOKENS", 6)
    assert not np.array_equal(Embedder(tmp_path).embed(long), kept)


def test_between_two_uses_the_file_is_closed(tmp_path):
    embedder = Embedder(tmp_path)
    embedder.embed(TEXTS[:1])
    assert [file.name for file in tmp_path.iterdir()] == ["vectors.db"]  # open, it has others beside it
    (tmp_path / "vectors.db").unlink()  # as Windows would not
    embedder.embed(TEXTS[:2])


def test_a_damaged_file_is_done_without(plain, tmp_path):
    (tmp_path / "vectors.db").write_bytes(b"no database at all" * 1_000)
    assert np.array_equal(Embedder(tmp_path).embed(TEXTS[:2]), plain.embed(TEXTS[:2]))


def test_a_folder_that_cannot_be_made_is_done_without(plain, tmp_path):
    (tmp_path / "file").write_text("")
    assert np.array_equal(Embedder(tmp_path / "file" / "cache").embed(TEXTS[:1]), plain.embed(TEXTS[:1]))


def test_a_full_file_takes_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "MOST_KEPT", 1)
    Embedder(tmp_path).embed(TEXTS[:2])
    with sqlite3.connect(tmp_path / "vectors.db") as file:
        assert file.execute("SELECT count(*) FROM kept").fetchone() == (1,)


def test_a_new_cache_begins_with_what_is_shipped(plain, tmp_path):
    write_vectors(tmp_path / "shipped.npz", TEXTS[:2])
    begun = Embedder(tmp_path / "cache", shipped=tmp_path / "shipped.npz")
    begun._embed_one = None  # nothing is computed
    assert begun.embed(TEXTS[:2]).tobytes() == plain.embed(TEXTS[:2]).tobytes()


@pytest.mark.parametrize("content", [None, b"", b"no archive at all"], ids=["missing", "empty", "damaged"])
def test_what_cannot_be_begun_with_is_computed(plain, tmp_path, content):
    if content is not None:
        (tmp_path / "shipped.npz").write_bytes(content)
    begun = Embedder(tmp_path / "cache", shipped=tmp_path / "shipped.npz")
    assert np.array_equal(begun.embed(TEXTS[:1]), plain.embed(TEXTS[:1]))


def test_the_shipped_vectors_are_those_of_todays_tickets_and_shop(plain, tmp_path):
    texts = shipped_texts(PROJECT / "data")
    begun = Embedder(tmp_path, shipped=PROJECT / "data" / VECTORS)
    begun._embed_one = None  # nothing is computed
    assert np.allclose(begun.embed(texts)[::100], plain.embed(texts[::100]), atol=0.02)
