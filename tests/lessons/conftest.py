"""What the tests of the labs share."""

import functools

import pytest

from workshop_lib.local import server


@pytest.fixture(scope="module", autouse=True)
def _the_small_models_are_loaded_once():
    """A check opens a practice endpoint of its own, each time it is asked; its models may be the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "load_answerer", functools.cache(server.load_answerer))
        yield
