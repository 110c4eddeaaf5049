"""Where two strategies part: the tickets on which just one of them is right, as a table or one at a time."""

from __future__ import annotations

import html
from typing import Any

from workshop_lib.display.theme import Html, show_table
from workshop_lib.evaluation.comparison import Comparison

TEXT_SHOWN = 200
"""Characters of a ticket's text in the table."""


def disagreements(comparison: Comparison, a: str, b: str, *, measure: str | None = None, show: int = 20) -> Html:
    """The first `show` tickets on which just one of two strategies is right, with the key, both answers and the text.

    Args:
        comparison: of at least these two.
        a, b: strategies.
        measure: what right means; None: the comparison's main one.
        show: how many; a line says how many there are.

    Raises:
        KeyError: there is no such strategy or measure.
    """
    rows = _rows(comparison, a, b, measure)
    said = _summary(comparison, rows, a, b)
    if not rows:
        return Html(f"<p>{html.escape(said)}</p>", said)
    shown = show_table([row | {"text": _cut(row["text"])} for row in rows[:show]], caption=said)
    if len(rows) <= show:
        return shown
    more = f"{len(rows) - show} more are not shown."
    return Html(f"{shown.markup}<p>{more}</p>", f"{shown.text}\n{more}")


def disagreement(comparison: Comparison, a: str, b: str, index: int = 0, *, measure: str | None = None) -> Html:
    """One of these tickets with its whole text, counted from 0: what `browse` shows.

    Raises:
        KeyError: there is no such strategy or measure.
        IndexError: there are not so many.
    """
    return _one(_rows(comparison, a, b, measure), index)


def browse(comparison: Comparison, a: str, b: str, *, measure: str | None = None) -> Any:
    """These tickets to leaf through, by a list and two buttons. It needs a live kernel: `disagreement` shows the same without."""
    import ipywidgets

    rows = _rows(comparison, a, b, measure)
    said = ipywidgets.HTML(f"<p>{html.escape(_summary(comparison, rows, a, b))}</p>")
    if not rows:
        return ipywidgets.VBox([said])
    chosen = ipywidgets.Dropdown(
        options=[(f"{i + 1}. {row['ticket']}: {row['right']} is right", i) for i, row in enumerate(rows)],
        description="Ticket",
        layout=ipywidgets.Layout(width="30em"),
    )
    back, on = (ipywidgets.Button(description=words) for words in ("Previous", "Next"))
    shown = ipywidgets.HTML(_one(rows, 0).markup)

    def draw(change: dict[str, Any]) -> None:
        shown.value = _one(rows, change["new"]).markup

    def step(by: int) -> None:
        chosen.value = (chosen.value + by) % len(rows)

    chosen.observe(draw, names="value")
    back.on_click(lambda _: step(-1))
    on.on_click(lambda _: step(1))
    return ipywidgets.VBox([said, ipywidgets.HBox([chosen, back, on]), shown])


def _rows(comparison: Comparison, a: str, b: str, measure: str | None) -> list[dict[str, Any]]:
    return comparison.disagreements(a, b, measure or comparison.main_measure)


def _summary(comparison: Comparison, rows: list[dict[str, Any]], a: str, b: str) -> str:
    n, counts = len(comparison.tickets), {name: sum(row["right"] == name for row in rows) for name in (a, b)}
    if not rows:
        return f"{a} and {b} are right on the same of {n} tickets."
    return f"On {len(rows)} of {n} tickets just one is right: {a} on {counts[a]}, {b} on {counts[b]}."


def _one(rows: list[dict[str, Any]], index: int) -> Html:
    return show_table([{"": name, "value": value} for name, value in rows[index].items()])


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN].rsplit(" ", 1)[0] + " ..."
