"""Charts of routing: the finding and the figures are in words, and hold against the measures."""

import re
from functools import cache

import numpy as np
import pytest

from tests.evaluation.pairs import made
from workshop_lib.display import (
    gap_chart,
    quality_cost_chart,
    reliability_diagram,
    risk_coverage_chart,
    routing_page,
    save_routing_page,
)
from workshop_lib.evaluation import apgr, aurc, cost_at_quality, ece, routing_report

ATTACK = "<script>alert(1)</script> $x_{$"
PAIR = made()
SCORES = {"confidence": -PAIR.confidence, "mine": PAIR.strong - PAIR.cheap + 0.0}
BOTH = (PAIR.cheap, PAIR.strong)
MONEY = (PAIR.cheap_cost_usd, PAIR.strong_cost_usd)
DRAWN = {
    "reliability": lambda name: reliability_diagram(PAIR.confidence, PAIR.cheap, PAIR.confidence),
    "risk": lambda name: risk_coverage_chart({name: (PAIR.confidence, PAIR.cheap)}),
    "gap": lambda name: gap_chart({name: -PAIR.confidence}, *BOTH),
    "cost": lambda name: quality_cost_chart({name: -PAIR.confidence}, *BOTH, *MONEY),
}
every_chart = pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN.keys())


@cache
def report(**changes):
    return routing_report(made(200, **changes), views=(), targets=[{"quality": 0.99}])


def test_the_reliability_diagram_says_which_way_a_confidence_errs():
    alt = reliability_diagram(np.full(100, 0.9), np.repeat([0, 1], 50)).alt
    assert "claims too much: 90% on the average, 50% are right (expected error 0.400)" in alt
    assert "claims too little" in reliability_diagram(np.full(100, 0.1), np.repeat([0, 1], 50)).alt
    assert "is about true" in reliability_diagram(np.full(100, 0.5), np.repeat([0, 1], 50)).alt


def test_the_reliability_diagram_gives_the_error_before_and_after():
    alt = reliability_diagram(PAIR.confidence, PAIR.cheap, PAIR.cheap * 0.98 + 0.01).alt
    assert f"expected error {ece(PAIR.confidence, PAIR.cheap):.3f}); calibrated 0.010" in alt


def test_the_risk_chart_names_the_surest_and_every_area():
    picture = risk_coverage_chart({"luck": (np.zeros(PAIR.n), PAIR.cheap), "sure": (PAIR.confidence, PAIR.cheap)})
    assert "Keeping the surer half by sure leaves" in picture.alt
    assert f"keeping all leaves {1 - PAIR.cheap.mean():.1%}" in picture.alt
    assert f"sure: AURC {aurc(PAIR.confidence, PAIR.cheap):.3f}" in picture.alt


def test_the_gap_chart_always_has_chance_and_the_oracle():
    alt = gap_chart({"confidence": -PAIR.confidence}, *BOTH).alt
    assert f"confidence: APGR {apgr(-PAIR.confidence, *BOTH):.3f}" in alt
    assert "random: APGR 0.500, CPT50 50%" in alt
    assert f"oracle: APGR {apgr(PAIR.strong - PAIR.cheap, *BOTH):.3f}" in alt


def test_the_gap_chart_refuses_a_pair_without_a_gap():
    with pytest.raises(ValueError, match="no gap to recover"):
        gap_chart({"confidence": -PAIR.confidence}, PAIR.strong, PAIR.cheap)


def test_the_cost_chart_prices_95_99_and_100_percent():
    picture = quality_cost_chart({"confidence": -PAIR.confidence}, *BOTH, *MONEY)
    for q in (0.95, 0.99, 1.0):
        assert f"{cost_at_quality(-PAIR.confidence, *BOTH, *MONEY, q):.0%} for {q:.0%}" in picture.alt
    assert "Cheap-only" in picture.alt
    assert "USD 10.0000" in picture.alt


def test_a_score_that_is_known_before_pays_one_model_only():
    after = quality_cost_chart({"mine": -PAIR.confidence}, *BOTH, *MONEY)
    before = quality_cost_chart({"mine": -PAIR.confidence}, *BOTH, *MONEY, before=["mine"])
    dear, less = (int(re.search(r"mine: .*?(\d+)% for 100%", p.alt)[1]) for p in (after, before))
    assert less < dear


def test_the_cost_chart_says_when_nothing_is_saved():
    costs = np.full(PAIR.n, 0.01)
    assert (
        "costs no less than asking it alone" in quality_cost_chart({"mine": np.zeros(PAIR.n)}, *BOTH, costs, costs).alt
    )


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no confidence"):
        risk_coverage_chart({})
    with pytest.raises(ValueError, match="no score"):
        quality_cost_chart({}, *BOTH, *MONEY)


@every_chart
def test_the_same_figures_are_drawn_as_the_same_bytes(draw):
    assert draw("confidence").png == draw("confidence").png


@every_chart
def test_a_name_is_no_markup_and_no_mathematics(draw):
    assert "<script>" not in draw(ATTACK)._repr_html_()


@every_chart
def test_a_chart_leaves_no_figure_open_and_has_its_data_below(draw):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    shown = draw("mine")
    assert shown.table.count("<tr>") > 1
    assert shown.png
    assert plt.get_fignums() == before


def test_the_page_tells_the_verdict_the_tables_and_all_charts():
    page = routing_page(report())
    assert page.index("Worth it: confidence") < page.index("<table")
    assert page.count("<img ") == 4
    assert report().table()[1]["APGR"] in page


def test_the_page_of_a_pair_without_a_gap_draws_what_is_left():
    page = routing_page(report(stronger=False))
    assert "not shown to be stronger" in page
    assert page.count("<img ") == 2


def test_the_page_asks_for_nothing_from_outside_and_escapes_names(tmp_path):
    save_routing_page(report(name=ATTACK, stronger=False), tmp_path / "new" / "page.html")
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert not re.search(r"<(link|iframe)|https?://|@import|url\(", page)
