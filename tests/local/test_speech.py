"""What is put on: stated confidence, JSON as text, and chance that repeats itself."""

from __future__ import annotations

import json

import pytest

from workshop_lib.bedrock.replies import first_object
from workshop_lib.local.models.speech import STATED, as_text, chance, sentences, stated_confidence


@pytest.mark.parametrize("manner", STATED)
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_nobody_states_less_than_eighty_percent(manner, probability):
    said = {stated_confidence(probability, manner=manner, text=f"ticket {i}") for i in range(200)}
    assert min(said) >= 0.8
    assert said <= set(STATED[manner])


def test_being_sure_hardly_moves_what_is_stated():
    def mean(probability: float) -> float:
        return sum(stated_confidence(probability, manner="cheap", text=f"{i}") for i in range(500)) / 500

    assert 0 < mean(1.0) - mean(0.2) < 0.03


def test_chance_depends_on_its_parts_alone():
    assert chance("a", "b") == chance("a", "b") != chance("ab", "")


def test_chance_is_even():
    rolled = [chance("roll", str(i)) for i in range(2_000)]
    assert 0 <= min(rolled) <= max(rolled) < 1
    assert sum(r < 0.3 for r in rolled) / 2_000 == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("luck", [0.0, 0.5, 0.9], ids=["bare", "fenced", "after a few words"])
def test_json_as_text_can_be_read_back(luck):
    record = {"category": "billing", "reasoning": "a } in a text"}
    assert first_object(as_text(json.dumps(record), luck)) == record


@pytest.mark.parametrize(
    ("text", "parts"),
    [("One. Two! Three?", ["One.", "Two!", "Three?"]), ("no end", ["no end"]), ("a\n\nb", ["a", "b"]), ("", [""])],
    ids=["three", "one", "lines", "empty"],
)
def test_a_text_falls_into_sentences(text, parts):
    assert sentences(text) == parts
