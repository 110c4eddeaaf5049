"""SHOWING: charts, tables and live pictures. The only part that imports IPython, ipywidgets and matplotlib, each where it is used."""

from workshop_lib.display.charts import rules_fired, stated_confidence
from workshop_lib.display.controls import slider, ticket_form
from workshop_lib.display.live import BulkTable, Journey, watch, watch_bulk
from workshop_lib.display.theme import Html, Picture, door_line, picture, show_table, usd

__all__ = [
    "BulkTable",
    "Html",
    "Journey",
    "Picture",
    "door_line",
    "picture",
    "rules_fired",
    "show_table",
    "slider",
    "stated_confidence",
    "ticket_form",
    "usd",
    "watch",
    "watch_bulk",
]
