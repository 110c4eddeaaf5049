"""The report: one page that needs nothing else, whatever was compared."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from tests.display.comparisons import ATTACK, MISSED, MIXED, RIGHT_BELOW, compared, strategies
from workshop_lib.display import report, save_report
from workshop_lib.evaluation import Measure

VOID = {"meta", "img", "br"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed and was not open."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def comparison():
    return compared(*MIXED)


@pytest.fixture(scope="module")
def page(comparison):
    return report(comparison)


def test_a_report_tells_the_table_the_pairs_and_the_charts(comparison, page):
    assert "3 strategies on 8 tickets (calibration split)" in page
    for sentence in comparison.sentences():
        assert sentence in page
    for row in comparison.table():
        assert row["joint"] in page
    assert page.count("<img ") == 1 + 1 + 3 + 1
    assert "Where cascade and strong-only part" in page


def test_warnings_come_before_the_table():
    page = report(compared(*[RIGHT_BELOW] * 3))
    assert page.index("not shown to be stronger") < page.index("<table")


def test_a_report_asks_for_nothing_from_outside(page):
    assert all(source.startswith("data:image/png") for source in re.findall(r"src=['\"]([^'\"]*)", page))
    assert not re.search(r"<(script|link|iframe)|https?://|@import|url\(", page)


def test_everything_hostile_in_a_report_is_escaped():
    chosen = {ATTACK: strategies()["cheap-only"], **strategies()}
    page = report(compared(*MIXED, MISSED, chosen=chosen, text=ATTACK))
    assert "<script>" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page


def test_a_report_is_whole_html(page):
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []


def test_the_same_comparison_gives_the_same_page(page):
    assert report(compared(*MIXED)) == page


@pytest.mark.parametrize(
    ("name", "said"),
    [("strong-only", RIGHT_BELOW), ("cascade", ("billing P3", None, None)), ("my own", ("billing P3", None, None))],
    ids=["a tier", "failed", "own name, failed"],
)
def test_one_strategy_on_one_ticket_makes_a_report_without_nan(name, said):
    page = report(compared(said, chosen={name: strategies()["cascade"]}))
    text = re.sub(r"base64,[^']*", "", page)
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert "on 1 ticket (" in page
    assert "The pairs" not in page


def test_a_key_without_the_fields_of_triage_leaves_their_charts_out():
    mine = Measure("right_team", lambda said, key: said.category.value == key.team)
    labels = {f"T-{i}": SimpleNamespace(team="billing", model_dump=lambda mode: {}) for i in range(2)}
    page = report(compared(RIGHT_BELOW, RIGHT_BELOW, measures=(mine,), labels=labels))
    assert "What is mixed up" not in page
    assert "right_team" in page


def test_a_locked_split_says_that_this_is_the_final_measurement():
    final = replace(compared(RIGHT_BELOW, chosen={"cascade": strategies()["cascade"]}), final=True)
    assert "locked: the final measurement" in report(final)


def test_a_report_is_saved_as_utf8_in_a_folder_that_need_not_exist(tmp_path):
    said = "Tarvitsen apua: ääkköset ✓"
    save_report(compared(*MIXED, MISSED, text=said), tmp_path / "new" / "report.html")
    assert said in (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
