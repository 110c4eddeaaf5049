"""Runs of many questions: seven columns, what they belong to, and what may be compared."""

import json

import pytest

from tests.shop.conftest import say, use
from workshop_lib.shop import load_questions
from workshop_lib.shop.runs import Run, RunError, compare, run


@pytest.fixture
def demo():
    return load_questions("demo")


@pytest.fixture
def shop_script(script):
    """Each question looks something up once, then is answered."""
    waiting = set()

    def answer(spec, asked):
        if not asked.tools:
            return say("complex" if "Tarn 13" in asked.user or "Heron X" in asked.user else "simple")
        key = (spec.key, asked.user)
        waiting.symmetric_difference_update({key})
        return use("store_info", topic="hours") if key in waiting else say("Done.")

    script.answer = answer
    return script


def test_the_table_has_a_row_a_question_and_a_total_that_is_the_journal(door, agent, shop_script, demo):
    found = run(agent, demo, "classifier", name="v4")
    *rows, total = found.table()
    assert [row.test for row in rows] == [q.id for q in demo]
    assert total.cost_usd == pytest.approx(door.journal.cost_usd, rel=1e-12)
    assert total.cost_usd == pytest.approx(sum(row.cost_usd for row in rows))
    assert total.latency_ms == pytest.approx(sum(row.latency_ms for row in rows) / 5)
    for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"):
        assert getattr(total, name) == sum(getattr(entry.usage, name) for entry in door.journal)
    assert found.routed == {"cheap": 3, "strong": 2}


def test_repeats_are_averaged_and_their_spread_is_told(door, agent, shop_script, demo):
    found = run(agent, demo, "strong", repeats=3)
    assert len(found.answers) == 15
    assert found.table()[-1].cost_usd == pytest.approx(door.journal.cost_usd / 3)
    (cost, *_) = compare(found, found)
    low, high = cost.before_range
    assert low < cost.before < high  # the first round found the cache cold
    assert (cost.percent, cost.overlap) == (0, True)


def test_a_comparison_tells_every_measure_of_both_runs_and_the_change(agent, shop_script, demo):
    v3, v4 = run(agent, demo, "strong", name="v3"), run(agent, demo, "classifier", name="v4")
    found = {change.metric: change for change in compare(v3, v4)}
    assert found["total cost (USD)"].before == pytest.approx(v3.cost_usd)
    assert found["total cost (USD)"].after == pytest.approx(v4.cost_usd)
    assert found["input tokens"].percent > 100
    assert found["classifier cost (USD)"].before == 0
    assert found["classifier cost (USD)"].percent is None
    assert found["share answered by cheap"].after == 0.6
    assert not found["input tokens"].overlap


def test_runs_over_different_questions_are_not_compared(agent, shop_script, demo):
    with pytest.raises(RunError, match="different questions"):
        compare(run(agent, demo, "cheap"), run(agent, demo[:2], "cheap"))


def test_a_run_is_saved_and_loaded_with_what_it_belongs_to(agent, shop_script, demo, tmp_path):
    found = run(agent, [*demo, "What about \u2028 this? \x85"], "cascade", name="x", repeats=2, workers=4)
    found.save(tmp_path / "run.jsonl")
    again = Run.load(tmp_path / "run.jsonl")
    assert again == found
    assert again.table() == found.table()
    told = again.provenance
    assert (told["route"], told["check"], told["pair"], told["count"]) == ("cascade", "weak", "haiku-sonnet", 6)
    assert told["models"]["strong"] == agent.catalogue["strong"].id
    assert told["agent_prompt"].startswith("agent-1 ")
    assert told["made_at"]


@pytest.mark.parametrize("damage", ["cut", "changed", "other form", "no json", "missing"])
def test_a_file_that_is_not_whole_is_refused(agent, shop_script, demo, tmp_path, damage):
    path = tmp_path / "run.jsonl"
    run(agent, demo[:2], "cheap").save(path)
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    if damage == "missing":
        path.unlink()
    else:
        lines = {
            "cut": [head, rows[0]],
            "changed": [head, rows[0], rows[1].replace("Done.", "Paid.")],
            "other form": [json.dumps({**json.loads(head), "form": "shop-run-0"}), *rows],
            "no json": ["hello", *rows],
        }[damage]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(RunError):
        Run.load(path)


def test_failures_stay_in_the_totals(door, agent, shop_script, demo):
    from workshop_lib.local.faults import Fault

    door.faults.add(Fault("AccessDeniedException", at=frozenset({3})))
    found = run(agent, demo, "cheap")
    assert len(found.failed) == 1
    assert found.cost_usd == pytest.approx(door.journal.cost_usd, rel=1e-12)


def test_a_run_of_nothing_is_refused(agent):
    with pytest.raises(ValueError, match="at least one question"):
        run(agent, [])
