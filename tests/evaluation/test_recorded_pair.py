"""A recorded pair as CSV: what is read, what is put right, what is left out with a word, and what is refused by row and column."""

import csv

import numpy as np
import pytest

from workshop_lib.evaluation import RecordedPairError, load_pair

PLAIN = "text,cheap_correct,strong_correct\nWhy?,0,1\nHow?,1,1\n"


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "pair.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refused(path, **how):
    with pytest.raises(RecordedPairError) as caught:
        load_pair(path, **how)
    return str(caught.value)


def test_three_columns_are_enough(written):
    pair = load_pair(written(PLAIN))
    assert pair.texts == ("Why?", "How?")
    assert (pair.cheap.tolist(), pair.strong.tolist()) == ([0, 1], [1, 1])
    assert (pair.confidence, pair.cheap_cost_usd, pair.features, pair.notes) == (None, None, None, ())


@pytest.mark.parametrize("name", ["text", "prompt", "question", " Question "])
def test_the_text_goes_by_several_names(written, name):
    assert load_pair(written(PLAIN.replace("text", name, 1))).texts[0] == "Why?"


@pytest.mark.parametrize(
    "change",
    [
        lambda s: b"\xef\xbb\xbf" + s.encode(),
        lambda s: s.replace("\n", "\r\n"),
        lambda s: s.replace("\n", "\r"),
        lambda s: s.replace(",", ";"),
        lambda s: s.replace(",", "\t"),
        lambda s: s + "\n,,\n",
        lambda s: s.replace("text,", "latency_ms,text,").replace("Why", "9,Why").replace("How", "9,How"),
    ],
    ids=["byte-order mark", "Windows lines", "old Mac lines", "semicolons", "tabs", "blank rows", "other columns"],
)
def test_what_spreadsheets_do_changes_nothing(written, change):
    pair = load_pair(written(change(PLAIN)))
    assert pair.texts == ("Why?", "How?")
    assert pair.strong.tolist() == [1, 1]


def test_a_decimal_comma_is_read_where_semicolons_separate(written):
    pair = load_pair(written("text;cheap_correct;strong_correct;confidence\nA, B;0;1;0,83\n"))
    assert pair.confidence.tolist() == [0.83]
    assert pair.texts == ("A, B",)


@pytest.mark.parametrize(
    ("cell", "value"), [("TRUE", 1), ("false", 0), ("1.0", 1), ("yes", 1), (" 0 ", 0), ("0.25", 0.25)]
)
def test_a_verdict_may_be_a_word_or_a_quality(written, cell, value):
    pair = load_pair(written(f"text,cheap_correct,strong_correct\nWhy?,{cell},1\n"))
    assert pair.cheap.tolist() == [value]
    assert pair.graded is (value == 0.25)


def test_a_log_probability_becomes_a_probability(written):
    pair = load_pair(written("text,cheap_correct,strong_correct,cheap_logprob\nWhy?,0,1,-0.5\nHow?,0,1,0\n"))
    assert pair.confidence.tolist() == [np.exp(-0.5), 1]


def test_a_text_of_many_lines_and_of_great_length_is_read(written):
    long = "a line, and more\n" * 20_000
    assert load_pair(written(f'text,cheap_correct,strong_correct\n"{long}",0,1\n')).texts == (long,)
    assert csv.field_size_limit() == 131_072


def test_rows_with_an_empty_cell_are_left_out_and_told_of(written):
    pair = load_pair(written("text,cheap_correct,strong_correct,confidence\nA,0,1,.5\nB,,1,.5\nC,1,1,\nD,1,1,.9\n"))
    assert pair.texts == ("A", "D")
    assert any("1 of 4 rows have no cheap_correct and are left out (row 2)" in note for note in pair.notes)
    assert any("no confidence" in note and "row 3" in note for note in pair.notes)
    assert any("50% of the rows" in note for note in pair.notes)


def test_copies_of_a_text_are_one_family_and_told_of(written):
    pair = load_pair(written(PLAIN + "Why?,1,1\n"))
    assert pair.families[0] == pair.families[2] != pair.families[1]
    assert any("1 of 3 texts are copies" in note for note in pair.notes)
    assert any("different verdicts" in note for note in pair.notes)


def test_a_family_that_is_not_named_is_the_text_itself(written):
    pair = load_pair(written("text,cheap_correct,strong_correct,family\nA,0,1,x\nB,0,1,x\nC,0,1,\nA,0,1,y\n"))
    assert pair.families == ("x", "x", "C", "y")
    assert any("more than one family" in note for note in pair.notes)


def test_a_feature_is_a_number_if_all_of_it_are(written):
    head = "text,cheap_correct,strong_correct,Subject,turns\n"
    pair = load_pair(written(head + "A,0,1,law,3\nB,0,1,7,4.5\n"), features=["subject", "turns"])
    assert pair.features == ({"subject": "law", "turns": 3.0}, {"subject": "7", "turns": 4.5})


def test_one_cost_alone_is_not_used_and_told_of(written):
    pair = load_pair(written("text,cheap_correct,strong_correct,cheap_cost_usd\nA,0,1,.1\n"))
    assert pair.cheap_cost_usd is None
    assert "need both" in pair.notes[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,cheap_correct\nA,1\n", "no column strong_correct; it has text, cheap_correct"),
        ("body,cheap_correct,strong_correct\nA,1,1\n", "no column text or prompt or question"),
        (PLAIN + "Who?,maybe,1\n", "row 3, column cheap_correct: 'maybe' is not 0, 1"),
        (PLAIN + "Who?,1,2\n", "row 3, column strong_correct: '2' is not"),
        (PLAIN + "Who?,nan,1\n", "row 3, column cheap_correct: 'nan'"),
        (PLAIN + "Who, me?,1,1\n", "row 3: 4 cells where the header has 3"),
        (PLAIN + '"Who?,1,1\n', "line"),
        ("text,cheap_correct,strong_correct,confidence\nA,1,1,83\n", "column confidence: '83' is not a number from 0 to 1"),
        ("text,cheap_correct,strong_correct,cheap_logprob\nA,1,1,0.7\n", "log-probability"),
        ("text,cheap_correct,strong_correct,cheap_cost_usd,strong_cost_usd\nA,1,1,-1,2\n", "column cheap_cost_usd: '-1'"),
        ("text,text,cheap_correct,strong_correct\nA,A,1,1\n", "two columns text"),
        ("text,cheap_correct,strong_correct\n", "no row has all"),
        ("", "no column"),
        ("text,cheap_correct\n".encode("utf-16"), "not UTF-8"),
        ("text,cheap_correct,strong_correct\nCaf\xe9,1,1\n".encode("latin-1"), "not UTF-8"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_row_and_column(written, content, said):
    assert said in refused(written(content))


def test_a_feature_or_a_file_that_is_missing_is_named(written, tmp_path):
    assert "no column subject" in refused(written(PLAIN), features=["subject"])
    assert "none.csv cannot be read" in refused(tmp_path / "none.csv")
