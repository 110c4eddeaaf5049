"""The notebooks: well kept, built from their solved twins, and linked to what exists."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from tests.notebooks.lint import RULES, Notebook
from workshop_lib import ConfigurationError
from workshop_lib.lessons import notebooks as built

ROOT = Path(__file__).resolve().parents[2]
ALL = sorted((ROOT / "notebooks").rglob("[0-9][0-9]_*.ipynb"))
PROMISED = [
    "00_check_your_setup",
    "01_price_a_call",
    "02_let_the_cheap_model_go_first",
    "03_triage_in_bulk",
    "04_was_it_worth_it",
    "05_tune_the_escalation",
    "06_cache_the_prompt",
    "07_route_the_query",
    "08_trace_and_serve",
    "09_run_it_in_production",
    "10_scale_out",
]


def test_every_promised_notebook_stands_in_both_folders():
    assert [p.stem for p in ALL] == PROMISED + PROMISED


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.__name__)
@pytest.mark.parametrize("path", ALL, ids=lambda p: f"{p.parent.name}/{p.stem[:2]}")
def test_a_notebook_keeps_the_rule(path, rule):
    assert list(rule(Notebook(path))) == []


def test_learners_copies_are_built_from_the_solved_ones():
    assert built.build(write=False) == []


def test_no_answer_is_left_in_a_learners_copy():
    for path in ALL[: len(PROMISED)]:
        text = path.read_text(encoding="utf-8")
        assert "BEGIN SOLUTION" not in text
        assert "#:" not in text


def test_every_relative_link_of_the_documents_leads_somewhere():
    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "notebooks").glob("*.md"), *(ROOT / "data").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken


def cell(source, *tags):
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})


def test_the_builder_puts_the_starter_in_place_of_the_solution():
    solved = nbformat.v4.new_notebook(
        cells=[cell("#: answer = ...\n# BEGIN SOLUTION\nanswer = 42\n# END SOLUTION\ncheck('9.1', answer)", "solution")]
    )
    made = built.learner_copy(solved).cells[0]
    assert made.source == "answer = ...\ncheck('9.1', answer)"
    assert made.metadata["tags"] == ["exercise"]


def test_the_builder_leaves_out_what_only_the_solved_copy_shows():
    solved = nbformat.v4.new_notebook(cells=[cell("1"), cell("2", "solution-only")])
    assert [c.source for c in built.learner_copy(solved).cells] == ["1"]


def test_a_tagged_cell_without_a_marked_solution_is_refused():
    with pytest.raises(ConfigurationError, match="holds 0 marked solutions"):
        built.learner_copy(nbformat.v4.new_notebook(cells=[cell("x = 1", "solution")]))


def test_the_lint_finds_what_it_is_for(tmp_path):
    bad = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# A\n\n### C\n\nIt costs $5 or $6, see [here](x.md).\n\n> [!NOTE]\n> no"),
            nbformat.v4.new_code_cell("!pip install x\ntry:\n    f()\nexcept Exception:\n    pass"),
        ]
    )
    path = tmp_path / "99_bad.ipynb"
    path.write_text(nbformat.writes(bad))
    found = {rule.__name__ for rule in RULES if list(rule(Notebook(path)))}
    assert {
        "headings",
        "opening",
        "closing",
        "setup_cell",
        "dollars",
        "links",
        "admonitions",
        "plain_code",
        "tidy",
    } <= found


def test_solved_notebooks_promise_their_verdicts():
    for path in ALL[3:]:
        for c in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if "solution" in c["metadata"].get("tags", []):
                assert "nbval-check-output" in c["metadata"]["tags"]
