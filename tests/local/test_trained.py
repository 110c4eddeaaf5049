"""The trained pair: its features are scikit-learn's, without scikit-learn."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import HashingVectorizer

from workshop_lib import load_tickets
from workshop_lib.local.models.trained import HASHED, counts

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
