"""What an attendee sees of the notebooks in JupyterLab: the learner's copy after Run All, the solved one as it is opened."""

import pytest

LAB_02 = "02_let_the_cheap_model_go_first.ipynb"
LAB_03 = "03_triage_in_bulk.ipynb"
GOES_UP = "show.watch(cascade, tickets[20])"  # the call that draws the journey of a ticket through both tiers


@pytest.fixture(scope="module")
def lab_02(lab):
    """Lab 02 as a learner has it, after Run All."""
    nb = lab(LAB_02)
    nb.follow(nb.output(GOES_UP))
    nb.run_all()
    return nb


@pytest.fixture(scope="module")
def solved_02(lab):
    """The solved lab 02, opened and not run."""
    return lab(f"solutions/{LAB_02}")


def test_every_cell_of_a_learners_copy_runs(lab_02):
    assert lab_02.not_run() == []


def test_no_output_is_a_traceback_or_a_warning(lab_02):
    assert lab_02.complaints() == []


def test_nothing_on_the_page_raises(lab_02):
    assert lab_02.errors == []


def test_no_output_is_left_undrawn(lab_02):
    assert "Loading widget" not in lab_02.text(lab_02.all)
    assert "Error displaying widget" not in lab_02.text(lab_02.all)


def test_a_tickets_journey_grows_while_its_cell_runs(lab_02):
    first, *_, last = lab_02.story(lab_02.output(GOES_UP))
    assert "under way" in first
    assert "Done: answer of strong" in last


@pytest.mark.parametrize("tier", ["cheap", "strong"])
def test_a_finished_journey_shows_the_card_of_each_tier(lab_02, tier):
    assert f"{tier}: answered" in lab_02.text(lab_02.output(GOES_UP))


@pytest.mark.parametrize("number", ["2.1", "2.2", "2.3"])
def test_an_exercise_that_nobody_solved_is_called_not_attempted(lab_02, number):
    assert lab_02.text(lab_02.output(f'check("{number}"')).startswith("○ Not attempted")


def test_moving_the_slider_changes_the_table_below_it(lab_02):
    cell = lab_02.cell("show.slider(")
    table, chosen = f"{cell} .widget-html-content table", f"{cell} .widget-readout"
    before = lab_02.text(table)
    lab_02.page.press(f"{cell} .noUi-handle", "PageDown")
    lab_02.wait_until("([table, before]) => document.querySelector(table).innerText !== before", [table, before])
    assert lab_02.text(chosen) in lab_02.text(table)


def test_a_ticket_typed_into_the_form_travels_to_its_end(lab_02):
    form = lab_02.cell("show.ticket_form(")
    shown = f"{form} .widget-html-content"
    lab_02.follow(shown)
    lab_02.page.fill(f"{form} input", "Charged twice")
    lab_02.page.fill(f"{form} textarea", "Our card was charged twice for March.")
    lab_02.page.click(f"{form} button.widget-button")  # JupyterLab gives it no name to find it by
    lab_02.page.locator(form).get_by_text("Done:").wait_for(state="attached")
    first, *_, last = lab_02.story(shown)
    assert "under way" in first
    assert "Charged twice" in last


def test_a_solved_copy_shows_a_journey_before_anything_is_run(solved_02):
    assert "Done: answer of strong" in solved_02.text(solved_02.output(GOES_UP))


def test_a_solved_copy_shows_its_charts_before_anything_is_run(solved_02):
    sizes = solved_02.page.locator(f"{solved_02.all} .jp-OutputArea-output img").evaluate_all(
        "all => all.map(i => i.naturalWidth)"
    )
    assert len(sizes) == 2
    assert all(sizes)


def test_the_bulk_table_grows_while_its_cell_runs(server, lab):
    if not (server.notebooks / LAB_03).exists():
        pytest.skip(f"notebooks/{LAB_03} does not exist yet")
    nb = lab(LAB_03)
    nb.follow(".bulk-table")
    # The other cells draw nothing that grows, and nbval runs them.
    nb.run("open_workshop()", "cascade = Cascade(", "show.watch_bulk(")
    assert nb.complaints() == nb.errors == []
    assert len(nb.story(".bulk-table")) > 2
