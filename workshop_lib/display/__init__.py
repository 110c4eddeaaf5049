"""SHOWING: charts, tables and live pictures. The only part that imports IPython, ipywidgets and matplotlib, each where it is used."""

from workshop_lib.display.bakeoff_charts import confusions, escalation_flow, latencies
from workshop_lib.display.caching_chart import cost_against_hit_rate, cost_against_prefix
from workshop_lib.display.capacity_chart import scale_chart
from workshop_lib.display.charts import rules_fired, stated_confidence
from workshop_lib.display.controls import slider, sliders, ticket_form
from workshop_lib.display.cost_chart import cost_against_agreement
from workshop_lib.display.dashboard import Dashboard, watch_records
from workshop_lib.display.disagreements import browse, disagreement, disagreements
from workshop_lib.display.live import BulkTable, Journey, watch, watch_bulk, watch_cluster
from workshop_lib.display.operations_charts import dashboard_figure, drift_chart
from workshop_lib.display.report import report, save_report
from workshop_lib.display.review_panel import ReviewPanel
from workshop_lib.display.router_charts import (
    gap_chart,
    quality_cost_chart,
    reliability_diagram,
    risk_coverage_chart,
)
from workshop_lib.display.routing_page import routing_page, save_routing_page
from workshop_lib.display.theme import Html, Picture, door_line, picture, show_table, usd
from workshop_lib.display.trace_tree import trace_tree

__all__ = [
    "BulkTable",
    "Dashboard",
    "Html",
    "Journey",
    "Picture",
    "ReviewPanel",
    "browse",
    "confusions",
    "cost_against_agreement",
    "cost_against_hit_rate",
    "cost_against_prefix",
    "dashboard_figure",
    "disagreement",
    "disagreements",
    "door_line",
    "drift_chart",
    "escalation_flow",
    "gap_chart",
    "latencies",
    "picture",
    "quality_cost_chart",
    "reliability_diagram",
    "report",
    "risk_coverage_chart",
    "routing_page",
    "rules_fired",
    "save_report",
    "save_routing_page",
    "scale_chart",
    "show_table",
    "slider",
    "sliders",
    "stated_confidence",
    "ticket_form",
    "trace_tree",
    "usd",
    "watch",
    "watch_bulk",
    "watch_cluster",
    "watch_records",
]
