"""The recorded runs that are shipped: they are whole and this package's own, and every published number comes from them."""

import re
from pathlib import Path

import pytest

from workshop_lib import Catalogue, Settings, Tier, load_tickets
from workshop_lib.evaluation import Recording, all_strategies, record, replay
from workshop_lib.workshop import door_of

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "data" / "recorded"
SPLITS = ("workshop", "calibration", "test")


@pytest.fixture(scope="module")
def replayed(labels):
    catalogue, settings = Catalogue.load(), Settings()
    found = {}
    for split in SPLITS:
        tickets = load_tickets(split)
        found[split] = replay(
            Recording.load(FOLDER / f"local-{split}.jsonl"),
            tickets,
            labels,
            all_strategies({t.id: labels[t.id] for t in tickets}, catalogue),
            catalogue=catalogue,
            door=door_of(settings, catalogue),
            final=True,
        )
    return found


@pytest.mark.parametrize("split", SPLITS)
def test_a_recorded_run_belongs_to_todays_data_prompt_prices_and_small_models(replayed, split):
    assert replayed[split].notes == ()


def test_the_small_models_still_answer_as_recorded(bedrock, labels, tmp_path):
    tickets = load_tickets("workshop", limit=10)
    again = record(tickets, labels, [Tier("cheap"), Tier("strong")], client=bedrock, store=tmp_path).answers()
    recorded = Recording.load(FOLDER / "local-workshop.jsonl").answers()
    for ticket in tickets:
        for tier, attempt in again[ticket.id].items():
            assert attempt.decision == recorded[ticket.id][tier].decision
            assert attempt.cost_usd == recorded[ticket.id][tier].cost_usd


@pytest.mark.parametrize("split", SPLITS)
def test_the_published_table_is_what_the_records_give(replayed, split):
    published = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert replayed[split].to_markdown() in published


def test_the_published_benchmark_of_the_pair_is_what_the_records_give(replayed):
    published = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for name in ("strong-only", "cheap-only", "cascade"):
        line = next(line for line in published.splitlines() if line.startswith(f"| {name} |"))
        s = replayed["test"].scores[name]
        shares = (s.category, s.joint, s.needs_human_recall, s.urgent_recall, s.escalated)
        assert line == f"| {name} | {' | '.join(map(str, shares))} | {s.cost_per_1000_usd:.3f} |"
    for measure in ("category", "joint"):
        said = re.search(rf"strong minus cheap, {measure}: (.*)", published)[1]
        assert said == str(replayed["test"].paired("strong-only", "cheap-only", measure))


def test_only_the_test_splits_record_calls_itself_final(replayed):
    assert {split: found.final for split, found in replayed.items()} == {
        "workshop": False,
        "calibration": False,
        "test": True,
    }
