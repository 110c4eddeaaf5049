"""The dashboard: every figure in words, alarms not by colour alone, everything escaped, and the same in a saved notebook."""

from dataclasses import replace

import nbformat
import pytest
from nbclient import NotebookClient

from workshop_lib.display import Dashboard, dashboard_figure, drift_chart, watch_records
from workshop_lib.monitoring.drift import DriftWatch
from workshop_lib.monitoring.records import Record
from workshop_lib.monitoring.simulation import incident, simulate

ATTACK = "<script>alert(1)</script>"
NAMES = ("billing", "auth", "abuse", "other")


def record(i, **changes):
    up = i % 3 == 0
    return replace(
        Record(
            float(i), "cascade", "strong" if up else "cheap", "answered", path="went up, agreed" if up else "first tier",
            reasons=("stakes",) if up else (), category=NAMES[i % 4], priority="P2", confidence=("0.85", "0.90")[i % 2],
            cost_usd=0.006 if up else 0.0001, latency_ms=4_000 if up else 700,
        ),
        **changes,
    )  # fmt: skip


NORMAL = [record(i) for i in range(240)]


@pytest.fixture(scope="module")
def drift():
    return DriftWatch(NORMAL, horizon=300, simulations=100)


@pytest.fixture
def fresh(drift):
    drift.restart()
    return drift


def test_the_dashboard_shows_every_figure_and_says_that_all_is_quiet(fresh):
    dashboard = Dashboard(drift=fresh, draw=[].append)
    for one in NORMAL:
        dashboard.add(one)
    markup = dashboard.markup()
    for words in ("No alarm", "USD per 1,000", "escalated by stakes", "retried", "latency p95", "guardrail", "drift of",
                  "category", "confidence", "no change proven", "false alarm in about 5%"):  # fmt: skip
        assert words in markup


def test_alarms_are_told_in_words_with_what_to_do(fresh):
    dashboard = Dashboard(drift=fresh, draw=[].append)
    for i in range(240):
        dashboard.add(record(i, retries=i % 2, category="auth"))
    markup = dashboard.markup()
    assert "2 ALARMS" in markup
    assert "retried tickets: RAISED" in markup
    assert "have one retry owner only" in markup
    assert "auth comes up more often" in markup


def test_before_the_first_ticket_there_is_nothing_to_show():
    assert "No ticket yet" in Dashboard(draw=[].append).markup()


def test_names_are_escaped():
    dashboard = Dashboard(draw=[].append)
    dashboard.add(record(0, reasons=(ATTACK,), category=ATTACK, tier=ATTACK))
    assert "<script>" not in dashboard.markup()
    assert "<script>" not in dashboard_figure([record(0, reasons=(ATTACK,))])._repr_html_()


def test_it_draws_at_most_twice_a_second_and_once_at_the_end():
    pictures, now = [], iter(range(1_000))
    watch_records(NORMAL[:100], draw=pictures.append, clock=lambda: next(now) / 100)
    assert 2 <= len(pictures) < 10
    assert "100 tickets" in pictures[-1]


def test_an_interrupt_leaves_the_last_picture():
    pictures = []

    def interrupted():
        yield NORMAL[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch_records(interrupted(), draw=pictures.append)
    assert "1 tickets" in pictures[-1]


def test_the_figure_says_its_numbers_and_leaves_the_watch_as_it_is(fresh):
    seen = [*NORMAL[:100], *(replace(r, category="auth") for r in NORMAL[:100])]
    picture = dashboard_figure(seen, drift=fresh)
    assert "drift of category at ticket 1" in picture.alt
    assert "escalated by stakes" in picture.alt
    assert "<table" in picture.table
    assert fresh.state.n == 0


def test_a_figure_of_one_ticket_can_be_drawn():
    assert "1 tickets" in dashboard_figure(NORMAL[:1]).alt


def test_the_drift_chart_tells_false_alarms_and_delays():
    results = simulate(
        NORMAL, {"incident": incident(NORMAL, "auth", 5)}, streams=6, references=2, reference=200, horizon=200, change_at=80,
        simulations=40,
    )  # fmt: skip
    picture = drift_chart(results)
    assert "false alarm" in picture.alt
    assert "incident: seen in" in picture.alt
    with pytest.raises(ValueError, match="no results"):
        drift_chart([])


def test_the_dashboard_stays_in_a_notebook_that_was_run_and_saved():
    code = (
        "from workshop_lib.display import watch_records\nfrom workshop_lib.monitoring import Record\n"
        "_ = watch_records(Record(0.0, 's', 'cheap', 'answered') for _ in range(40))"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert "over the last 40 tickets" in output.data["text/html"]
