"""The trained pair: its features are scikit-learn's, without scikit-learn, and what it answered is kept."""

import contextlib
import sqlite3

import numpy as np
import pytest
from sklearn.feature_extraction.text import HashingVectorizer

from workshop_lib import load_tickets
from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.embedding import Embedder, Kept
from workshop_lib.local.models.trained import HASHED, counts, train

CACHE = PROJECT / ".cache"

ODD = [
    "",
    "a",
    "I am.",
    "  two\tblanks\n",
    "Ü ärgert 日本語 😀 ok",
    "refund " * 300,
    "e-mail: x_y@z.io #1",
    "é日😀" * 9 + "x",
]


@pytest.mark.parametrize("view", HASHED)
def test_the_pieces_of_a_text_are_those_of_the_hashing_vectorizer(view):
    analyzer, ngrams, columns = HASHED[view]
    theirs = HashingVectorizer(
        analyzer=analyzer, ngram_range=ngrams, n_features=columns, norm=None, alternate_sign=False
    )
    for text in [*ODD, *(ticket.body for ticket in load_tickets("calibration", limit=40))]:
        expected, found = theirs.transform([text]), counts(view, text)
        assert found.columns.tolist() == expected.indices.tolist()
        assert found.values.tolist() == pytest.approx(1 + np.log(expected.data), rel=1e-6)


@pytest.fixture
def strong(tmp_path):
    """Makes the strong model anew; its answers are kept in a folder of the test's."""

    def make():
        _, model = train(Embedder(CACHE), data_dir=PROJECT / "data", cache_dir=CACHE)
        model._kept = Kept(tmp_path / "answers.db")
        return model

    return make


def test_a_kept_answer_is_the_computed_one(strong, tmp_path):
    text = "Refund the second charge, please.\nWe were billed twice for March. The app is fine."
    first, again = strong(), strong()
    likely, quoted = first.predict(text), first.telling_sentence(text, "billing")
    again._view = None  # nothing is computed
    assert again.predict(text) == likely
    assert again.telling_sentence(text, "billing") == quoted
    with pytest.raises(AttributeError):
        again.predict(text + "!")


def test_no_text_stands_in_the_file_of_answers(strong, tmp_path):
    model = strong()
    model.predict("We were billed twice for March.")
    model.telling_sentence("We were billed twice for March.", "billing")
    assert b"billed" not in (tmp_path / "answers.db").read_bytes()


def test_a_damaged_answer_is_computed_again(strong, tmp_path):
    likely = strong().predict("The export fails.")
    with contextlib.closing(sqlite3.connect(tmp_path / "answers.db")) as file, file:
        file.execute("UPDATE kept SET result = ?", (b"{half",))
    assert strong().predict("The export fails.") == likely
