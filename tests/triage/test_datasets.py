"""Reading tickets: every bad line is named."""

import pytest

from workshop_lib import ConfigurationError, load_tickets
from workshop_lib.triage.datasets import read_tickets

GOOD = '{"id": "a", "subject": "s", "body": "b"}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{GOOD}\n{{broken\n", "line 2 is not JSON"),
        (f"{GOOD}\n\n[1]\n", "line 3 is not a JSON object"),
        (f'{GOOD}\n{{"id": "b"}}\n', "line 2 is not a ticket.*empty"),
        ('{"id": 5, "body": "x"}\n', "line 1 is not a ticket: id: .*must be text"),
    ],
    ids=["not JSON", "not an object", "empty ticket", "wrong type"],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, text, said):
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        list(read_tickets(path))


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigurationError, match=r"gone\.jsonl cannot be read"):
        list(read_tickets(tmp_path / "gone.jsonl"))


def test_a_file_that_is_not_text_is_a_clear_error(tmp_path):
    path = tmp_path / "picture.jsonl"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        list(read_tickets(path))


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = tmp_path / "windows.jsonl"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert [t.id for t in read_tickets(path)] == ["a"]


def test_tickets_of_a_split_come_in_file_order_and_can_be_limited():
    tickets = load_tickets("workshop")
    assert len(tickets) == 30
    assert load_tickets("workshop", limit=5) == tickets[:5]


def test_a_folder_without_data_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_tickets(data_dir=tmp_path)


def test_a_file_that_changed_is_read_again(tmp_path):
    key = '{"id": "a", "category": "other", "priority": "P3", "needs_human": false, "family": "f", "split": "test", "style": "plain"}'
    (tmp_path / "labels.jsonl").write_text(key)
    (tmp_path / "tickets.jsonl").write_text(GOOD)
    before = load_tickets(data_dir=tmp_path)
    (tmp_path / "tickets.jsonl").write_text(GOOD.replace('"b"', '"body"'))
    assert [before[0].body, load_tickets(data_dir=tmp_path)[0].body] == ["b", "body"]
