"""What the charts of a comparison share: axes, titles, looks and names."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from workshop_lib.display.theme import COLOURS, MARKERS
from workshop_lib.evaluation.comparison import COMPARED, Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OWN_COLOURS, OWN_MARKERS = ("#5D3A9B", "#8C510A", "#01665E", "#A50026"), ("P", "v", "h", "<", ">", "p", "d", "8")
"""Of strategies with names that the series does not know, in their order."""


def looks_of(comparison: Comparison) -> dict[str, tuple[str, str]]:
    """Colour and marker of each strategy; unknown names take free ones in their order."""
    own = [name for name in comparison.scores if name not in MARKERS]
    return {
        name: (COLOURS[name], MARKERS[name])
        if name in MARKERS
        else (OWN_COLOURS[own.index(name) % len(OWN_COLOURS)], OWN_MARKERS[own.index(name) % len(OWN_MARKERS)])
        for name in comparison.scores
    }


@contextmanager
def canvas(width: float, height: float) -> Iterator[Axes]:
    """Axes of a figure of so many inches, where a dollar sign in a name is a dollar sign. The figure is closed whatever happens."""
    import matplotlib.pyplot as plt

    with plt.rc_context({"text.parse_math": False}):
        figure, axes = plt.subplots(figsize=(width, height))
        axes.spines[["top", "right"]].set_visible(False)
        try:
            yield axes
        finally:
            plt.close(figure)


def title_of(axes: Axes, words: str) -> None:
    """Write the finding above the axes, in lines of about equal length."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    lines = textwrap.wrap(words, max(42, int(11 * figure.get_figwidth())))
    even = textwrap.wrap(words, len(words) // len(lines) + 8)  # no last line of one word
    axes.set_title("\n".join(even if len(even) == len(lines) else lines), fontsize=11, loc="left", pad=10)


def named(measure: str) -> str:
    """A measure as it is called in a sentence."""
    return f"{measure} agreement" if measure in COMPARED else measure


def enumerated(names: Sequence[str]) -> str:
    """Names in a sentence; of more than four the first three and how many more."""
    shown = [*names] if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
    return " and ".join([", ".join(shown[:-1])] * (len(shown) > 1) + shown[-1:])


def shortened(text: str, limit: int = 28) -> str:
    """A label that fits beside the axes."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
