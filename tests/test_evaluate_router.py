"""`workshop evaluate-router`, run as a user would."""

import json
import re

import pytest

from tests.evaluation.pairs import as_csv, made
from tests.test_cli import run


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return as_csv(made(160), tmp_path_factory.mktemp("pair") / "pair.csv")


def plain(done):
    return re.sub(r"\s+", " ", done.stdout + done.stderr)


def test_one_command_gives_the_verdict_the_table_the_figures_and_the_page(pair, tmp_path):
    page, figures = tmp_path / "page.html", tmp_path / "new" / "figures.json"
    done = run("evaluate-router", str(pair), "--no-meaning", "--out", str(page), "--json", str(figures))
    assert done.returncode == 0, done.stderr
    for words in ("Worth it: ", "confidence", "learned, question", "oracle", "keep 99.0%", "held out"):
        assert words in plain(done)
    assert json.loads(figures.read_text(encoding="utf-8"))["best"] in {"confidence", "learned, answer"}
    assert page.read_text(encoding="utf-8").count("<img ") == 4


def test_targets_of_ones_own_take_the_place_of_the_standard_ones(here, pair):
    done = here("evaluate-router", str(pair), "--no-learning", "--budget", "5", "--max-risk", "0.1", "--markdown")
    assert "spend at most USD 5 per 1,000" in done.stdout
    assert "at most 10.0% kept and wrong" in done.stdout
    assert "keep 99.0%" not in done.stdout


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("text,cheap_correct,strong_correct\nA,maybe,1\n", [], "row 1, column cheap_correct: 'maybe'"),
        ("text,cheap_correct,strong_correct\nA,0,1\n", ["--budget", "5"], "needs the columns cheap_cost_usd"),
    ],
    ids=["bad cell", "no costs"],
)
def test_a_mistake_is_one_message_and_no_traceback(here, tmp_path, content, options, said):
    file = tmp_path / "pair.csv"
    file.write_text(content, encoding="utf-8")
    done = here("evaluate-router", str(file), *options)
    assert done.returncode != 0
    assert said in re.sub(r"[\s│]+", " ", done.stdout + done.stderr)
    assert "Traceback" not in done.stderr
