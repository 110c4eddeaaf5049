"""How things look: one colour per strategy and tier in the whole series, money that no renderer turns into mathematics, figures with alt text."""

from __future__ import annotations

import base64
import functools
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito's palette, the four that have a contrast of 3:1 or more on white.
BLUE, RED, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
COLOURS: Mapping[str, str] = {
    "cheap": GREEN,
    "cheap-only": GREEN,
    "strong": BLUE,
    "strong-only": BLUE,
    "cascade": RED,
    "middle": PINK,
    "three-tier": PINK,
    "judge": PINK,
    "random-50%": GREY,
    "oracle": "black",
}
MARKERS: Mapping[str, str] = {
    "cheap-only": "o",
    "strong-only": "s",
    "cascade": "D",
    "three-tier": "^",
    "random-50%": "X",
    "oracle": "*",
}


@dataclass(frozen=True)
class Picture:
    """A chart with words: drawn in a notebook with alt text and caption (and its data as a table), printed as its description."""

    figure: Figure
    alt: str
    """What the picture shows, with its numbers, for who cannot see it."""
    caption: str = ""
    table: str = ""
    """HTML of the data."""

    @functools.cached_property
    def png(self) -> bytes:
        """The image, drawn at first use: always the same bytes for the same figure. A dollar sign in it is a dollar sign."""
        import matplotlib as mpl

        buffer = io.BytesIO()
        with mpl.rc_context({"text.parse_math": False}):  # labels of ticks are made while it is drawn
            self.figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
        return buffer.getvalue()

    def __repr__(self) -> str:
        return self.alt

    def _repr_html_(self) -> str:
        image = base64.b64encode(self.png).decode()
        details = f"<details><summary>The data of this chart</summary>{self.table}</details>" if self.table else ""
        return (
            f"<figure class='mathjax_ignore' style='margin:0'><img alt=\"{html.escape(self.alt)}\" style='max-width:100%' "
            f"src='data:image/png;base64,{image}'><figcaption>{html.escape(self.caption)}</figcaption></figure>{details}"
        )


@dataclass(frozen=True)
class Html:
    """HTML for a notebook, with words for everywhere else."""

    markup: str
    text: str = ""

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.markup


def usd(amount: float, digits: int = 6) -> str:
    """Money without a dollar sign, which two of in one block would become mathematics."""
    return f"USD {amount:,.{digits}f}"


def picture(figure: Figure, *, alt: str, caption: str = "", rows: Sequence[Mapping[str, Any]] = ()) -> Picture:
    """A matplotlib figure as a Picture; pyplot forgets the figure, so that it is shown once."""
    import matplotlib.pyplot as plt

    plt.close(figure)
    return Picture(figure, alt, caption, table(rows) if rows else "")


def table(rows: Sequence[Mapping[str, Any]], *, caption: str = "") -> str:
    """Rows as an HTML table, everything escaped; columns are the first row's keys."""
    if not rows:
        return "<p>(no rows)</p>"
    body = "".join(line(row.values()) for row in rows)
    title = f"<caption style='text-align:left'>{html.escape(caption)}</caption>" if caption else ""
    return (
        f"<table class='mathjax_ignore'>{title}<thead>{line(rows[0], head=True)}</thead><tbody>{body}</tbody></table>"
    )


def line(values: Iterable[object], *, head: bool = False) -> str:
    """One line of an HTML table, everything escaped; the head's cells are named as such."""
    # The style is written into each cell, because JupyterLab's own for tables does not reach into widgets.
    style = "style='text-align:left;vertical-align:top;padding:.3em .6em;line-height:normal'"
    tag, scope = ("th", " scope='col'") if head else ("td", "")
    return f"<tr>{''.join(f'<{tag}{scope} {style}>{html.escape(str(value))}</{tag}>' for value in values)}</tr>"


def show_table(rows: Sequence[Mapping[str, Any]], *, caption: str = "") -> Html:
    """Rows as a table to show at the end of a cell."""
    text = "\n".join([caption] * bool(caption) + ["  ".join(f"{k}={v}" for k, v in row.items()) for row in rows])
    return Html(table(rows, caption=caption), text)


def door_line(words: str) -> Html:
    """The line that every notebook shows under its setup cell: which door, and what its figures mean."""
    return Html(
        f"<div class='mathjax_ignore' style='border-left:4px solid {GREY};padding:.3em .8em;color:#444'>{html.escape(words)}</div>",
        words,
    )
