"""Things to move by hand, each with the plain function that does the same: a slider or several, a form for a ticket of one's own."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from workshop_lib.cascade.cascade import Cascade
from workshop_lib.display.live import watch
from workshop_lib.display.theme import Html
from workshop_lib.triage.schema import Ticket

WIDTH = "40em"


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
        value=start,
        min=low,
        max=high,
        step=step,
        description=description,
        readout_format=".2f",
        layout=ipywidgets.Layout(width=WIDTH),
    )
    handle.style.description_width = "initial"
    shown = ipywidgets.HTML(function(start).markup)

    def move(change: dict[str, Any]) -> None:
        shown.value = function(change["new"]).markup

    handle.observe(move, names="value")
    return ipywidgets.VBox([handle, shown])


def sliders(function: Callable[..., Html], **controls: tuple[float, float, float, float]) -> Any:
    """One slider a keyword of `function`, with its result below them. Show a call of `function` in a cell of its own as well.

    Args:
        function: called with every keyword at once, each time one moves.
        controls: keyword to (lowest, highest, start, step); whole numbers make a slider of whole numbers.
    """
    import ipywidgets

    handles = {}
    for name, (low, high, start, step) in controls.items():
        kind = (
            ipywidgets.IntSlider
            if all(isinstance(v, int) for v in (low, high, start, step))
            else ipywidgets.FloatSlider
        )
        layout = ipywidgets.Layout(width=WIDTH)
        words = name.replace("_", " ")
        handles[name] = kind(value=start, min=low, max=high, step=step, description=words, layout=layout)
        handles[name].style.description_width = "10em"
    shown = ipywidgets.HTML()

    def draw(_: Any = None) -> None:
        shown.value = function(**{name: handle.value for name, handle in handles.items()}).markup

    for handle in handles.values():
        handle.observe(draw, names="value")
    draw()
    return ipywidgets.VBox([*handles.values(), shown])


def ticket_form(cascade: Cascade[Any]) -> Any:
    """Two fields and a button that sends what was typed through the cascade, as `watch` does; errors are shown below, not raised."""
    import ipywidgets

    subject = ipywidgets.Text(description="Subject", layout=ipywidgets.Layout(width=WIDTH))
    body = ipywidgets.Textarea(description="Text", layout=ipywidgets.Layout(width=WIDTH, height="8em"))
    button = ipywidgets.Button(description="Triage it", button_style="primary")
    shown = ipywidgets.HTML()  # not an Output, which takes in a first picture and drops the ones that should replace it

    def draw(markup: str) -> None:
        shown.value = markup

    def run(_: Any) -> None:
        try:
            watch(cascade, Ticket(id="mine", subject=subject.value, body=body.value), draw=draw)
        except Exception as error:  # an empty ticket, a rule with a mistake: of a button's errors Jupyter shows nothing
            draw(f"<pre style='white-space:pre-wrap'>{html.escape(f'{type(error).__name__}: {error}')}</pre>")

    button.on_click(run)
    return ipywidgets.VBox([subject, body, button, shown])
