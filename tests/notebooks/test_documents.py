"""What stands beside the notebooks, for attendees and for whoever teaches: complete, and in step with what it describes."""

import functools
import importlib
import json
import re
import shlex
from contextlib import nullcontext, suppress
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from workshop_lib import WorkshopError
from workshop_lib.cli import app
from workshop_lib.lessons.doctor import TROUBLES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
FACILITATOR = (ROOT / "notebooks" / "FACILITATOR.md").read_text(encoding="utf-8")
SOLVED = {path.stem[:2]: path for path in sorted((ROOT / "notebooks" / "solutions").glob("[0-9][0-9]_*.ipynb"))}


def section(page: str, title: str) -> str:
    """A section with all that is below it."""
    found = re.search(rf"(?ms)^(#+) {re.escape(title)}$\n(.*?)(?=^##? |\Z)", page)
    assert found, f"there is no section {title}"
    return found[2]


def table(text: str) -> list[list[str]]:
    """The cells of the rows of a table, without its head."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def minutes() -> dict[str, int]:
    """Lab to minutes, as the index has them."""
    return {row[0][1:3]: int(row[1]) for row in table(section(README, "Index"))}


def letters(text: str) -> str:
    """Without case, spaces and hyphens, so that `paired_difference` is the paired difference."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


@functools.cache
def shown_in(lab: str) -> str:
    """What a solved notebook says, outputs included, pictures left out."""
    return letters(re.sub(r"base64,[^'\"\\]+", "", SOLVED[lab].read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def room():
    """benchmarks/room.py, which is no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")  # where it finds its neighbour
        return importlib.import_module("room")


@pytest.fixture(scope="module")
def counted(room):
    return json.loads(room.COUNTS.read_text(encoding="utf-8"))


def test_the_index_has_every_lab():
    assert list(minutes()) == list(SOLVED)


def test_every_command_that_a_page_or_a_notebook_names_can_be_run():
    pages = [*(ROOT / "notebooks").rglob("[0-9]*.ipynb"), *ROOT.rglob("notebooks/*.md"), *ROOT.glob("*.md")]
    named = {
        words for page in pages for words in re.findall(r"`workshop ([a-z][^`]*)`", page.read_text(encoding="utf-8"))
    }
    commands = get_command(app).commands
    assert len(named) > 10
    for words in sorted(named):
        name, *arguments = shlex.split(words.replace('\\"', '"').replace("[", "").replace("]", ""))
        assert name in commands
        if arguments:  # a bare name only says which one
            with suppress(typer.Exit):  # --help
                commands[name].make_context(name, arguments)  # raises as the program would


def test_troubleshooting_has_the_doctors_sixteen_causes_by_number_and_name():
    rows = table(section(README, "Troubleshooting"))
    assert {int(number): cause for number, _, cause, _ in rows} == dict(TROUBLES)
    assert all(seen and fix for _, seen, _, fix in rows)
    assert len(rows) == 16


def test_the_glossary_is_in_order_and_each_word_is_in_the_lab_that_it_points_to():
    rows = table(section(README, "Glossary"))
    words = [word.lower() for word, _, _ in rows]
    assert words == sorted(words)
    missing = []
    for word, _, shown in rows:
        lab = re.search(r"\((\d\d)_\w+\.ipynb\)", shown)
        text = shown_in(lab[1]) if lab else letters(word)
        if not any(letters(each) in text for each in word.split(",")):
            missing.append(f"{word} is not in lab {lab[1]}")
    assert not missing


@pytest.mark.parametrize("lab", SOLVED)
def test_every_lab_has_a_run_sheet(lab):
    assert re.search(rf"(?m)^### Labs? .*\b{lab}\b", section(FACILITATOR, "Run sheets"))


@pytest.mark.parametrize("lab", SOLVED)
def test_every_lab_has_its_idea_two_misunderstandings_and_an_answer_to_why_not_just(lab):
    block = re.search(rf"(?s)\*\*{lab}\*\* (.*?)(?=\n\n|\Z)", section(FACILITATOR, "One idea a lab"))[1]
    quoted = [" ".join(said.split()) for said in re.findall(r'\*"(.*?)"\*', block, re.S)]
    alternatives = [said for said in quoted if said.startswith("Why not just")]
    assert alternatives
    assert len(quoted) - len(alternatives) >= 2


def clock(text: str) -> int:
    hours, _, rest = text.partition(":")
    return 60 * int(hours) + int(rest)


@pytest.mark.parametrize("cut", ["90 minutes", "Half a day", "A day"])
def test_a_cut_gives_each_lab_its_minutes(cut):
    rows = table(section(FACILITATOR, cut))
    assert rows[0][0] == "0:00"
    for (at, what, *_), (until, *_) in pairwise(rows):
        given = clock(until) - clock(at)
        assert given > 0
        lab = what[:2]
        if lab in SOLVED and "short" not in what:
            assert given >= minutes()[lab], f"{cut}: {what}"


def test_a_day_has_every_lab():
    taught = {row[1][:2] for row in table(section(FACILITATOR, "A day"))}
    assert set(SOLVED) <= taught


def test_the_list_of_contents_leads_to_every_section():
    listed = set(re.findall(r"\]\(#([\w-]+)\)", FACILITATOR.partition("\n## ")[0]))
    titles = re.findall(r"(?m)^## (.*)$", FACILITATOR)
    assert listed == {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_costs_are_those_of_the_counted_tokens_at_todays_prices(room, counted, catalogue):
    """After a change of prices or of a lab: python benchmarks/room.py costs --write (03 04 for these labs only)."""
    assert room.cost_table(counted, catalogue) in FACILITATOR
    assert room.quota_table(counted, catalogue) in FACILITATOR


def test_every_lab_has_been_counted(counted):
    """If one is missing: python benchmarks/room.py costs --write NN."""
    assert list(counted["labs"]) == list(SOLVED)


def test_the_readme_says_what_the_table_says(room, counted, catalogue):
    paragraph = (
        (ROOT / "README.md").read_text(encoding="utf-8").partition("## What it costs live")[2].partition("\n## ")[0]
    )
    core = [counts for lab, counts in counted["labs"].items() if lab <= "04"]
    calls = sum(n["calls"] for counts in core for n in counts.values())
    said_calls, said_usd = re.search(r"about ([\d,]+) calls.*?about ([\d.]+) US dollars", paragraph, re.S).groups()
    assert int(said_calls.replace(",", "")) == pytest.approx(calls, rel=0.05)
    assert float(said_usd) == pytest.approx(sum(room.usd(counts, catalogue) for counts in core), rel=0.1)


def test_lab_01_makes_the_calls_that_were_counted(room, counted, endpoint, catalogue, monkeypatch, capsys):
    """One lab stands for all: the cells run here, at an endpoint whose journal counts."""
    monkeypatch.setenv("WORKSHOP_ENDPOINT_URL", endpoint.url)
    names: dict[str, object] = {}
    cells = json.loads(SOLVED["01"].read_text(encoding="utf-8"))["cells"]
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        means_to_fail = "raises-exception" in cell["metadata"].get("tags", [])
        with suppress(WorkshopError, ValueError) if means_to_fail else nullcontext():
            exec("".join(cell["source"]), names)
    entries = [e for e in endpoint.journal if e.operation != "CountTokens"]
    asked = [catalogue.by_id(entry.model_id).key for entry in entries]
    assert {key: asked.count(key) for key in asked} == {k: n["calls"] for k, n in counted["labs"]["01"].items()}
    assert sum(e.cost_usd for e in entries) == pytest.approx(room.usd(counted["labs"]["01"], catalogue))


def test_a_few_attendees_at_one_endpoint_all_finish_with_every_ticket(room, endpoint):
    finished, _ = room.attend_some(endpoint.url, range(3), 0, None, 2)
    assert [(f.tickets, f.failed) for f in finished] == [(5, 0)] * 3
    assert {entry.status for entry in endpoint.journal} == {200}


def test_jains_index_is_one_if_all_have_the_same_and_a_share_if_one_has_all(room):
    assert room.jain([2, 2, 2, 2]) == 1
    assert room.jain([8, 0, 0, 0]) == 0.25
