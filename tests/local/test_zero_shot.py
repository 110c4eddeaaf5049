"""Zero-shot labels: good enough to be served, and known how good."""

import pytest

from workshop_lib.bedrock.settings import PROJECT
from workshop_lib.embedding import Embedder
from workshop_lib.local.models.answers import describe_labels
from workshop_lib.local.models.trained import read_ticket
from workshop_lib.local.models.zero_shot import ZeroShot
from workshop_lib.triage import TRIAGE, Category, load_labels, load_tickets


@pytest.fixture(scope="module")
def accuracy():
    described = describe_labels([c.value for c in Category], "", TRIAGE.system)
    model, labels, tickets = ZeroShot(Embedder(PROJECT / ".cache")), load_labels(), load_tickets("calibration")

    def share(manner):
        right = 0
        for ticket in tickets:
            likely = model.distribution(manner, read_ticket(TRIAGE.describe(ticket)), described)
            right += max(likely, key=likely.__getitem__) == labels[ticket.id].category
        return right / len(tickets)

    return {manner: share(manner) for manner in ("cheap", "strong")}


def test_the_strong_manner_is_right_for_half_of_the_tickets_and_more(accuracy):
    assert accuracy["strong"] > 0.5


def test_the_cheap_manner_is_better_than_chance_and_worse_than_the_strong_one(accuracy):
    assert 0.2 < accuracy["cheap"] < accuracy["strong"]


def test_a_distribution_adds_up_to_one():
    likely = ZeroShot(Embedder()).distribution("strong", "A quote, please.", {"a": "a: price", "b": "b: weather"})
    assert sum(likely.values()) == pytest.approx(1)
