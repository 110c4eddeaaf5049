"""The answer key, read once for all tests of judging."""

import pytest

from workshop_lib import load_labels


@pytest.fixture(scope="session")
def labels():
    return load_labels()
