"""Things to move by hand, each with the plain function that does the same: a threshold slider, a form for a ticket of one's own."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from workshop_lib.display.theme import Html


def slider(
    function: Callable[[float], Html],
    *,
    description: str,
    low: float = 0.0,
    high: float = 1.0,
    start: float = 0.7,
    step: float = 0.01,
) -> Any:
    """A slider with `function(value)` below it. It needs a live kernel: show `function(start)` in a cell of its own as well."""
    import ipywidgets

    handle = ipywidgets.FloatSlider(
        value=start, min=low, max=high, step=step, description=description, readout_format=".2f"
    )
    handle.style.description_width = "initial"
    shown = ipywidgets.HTML(function(start).markup)

    def move(change: dict[str, Any]) -> None:
        shown.value = function(change["new"]).markup

    handle.observe(move, names="value")
    return ipywidgets.VBox([handle, shown])


def ticket_form(function: Callable[[str, str], Any]) -> Any:
    """Two fields and a button that call `function(subject, body)`; errors are shown below, not raised."""
    import ipywidgets

    wide = ipywidgets.Layout(width="40em")
    subject = ipywidgets.Text(description="Subject", layout=wide)
    body = ipywidgets.Textarea(description="Text", layout=ipywidgets.Layout(width="40em", height="8em"))
    button = ipywidgets.Button(description="Triage it", button_style="primary")
    out = ipywidgets.Output()

    def run(_: Any) -> None:
        out.clear_output()
        with out:
            try:
                function(subject.value, body.value)
            except ValueError as error:  # what pydantic says of an unusable ticket
                _display(Html(f"<pre>{html.escape(str(error))}</pre>", str(error)))

    button.on_click(run)
    return ipywidgets.VBox([subject, body, button, out])


def _display(value: Any) -> None:
    from IPython.display import display

    if value is not None:
        display(value)
