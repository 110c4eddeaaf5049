"""What the bulk tests share."""

import pytest

from workshop_lib import Cascade, Tier, stakes


@pytest.fixture
def cascade(bedrock):
    """Cheap, then strong where much is at stake, over the shared endpoint."""
    return Cascade([Tier("cheap"), Tier("strong")], escalate_when=stakes(), client=bedrock)
