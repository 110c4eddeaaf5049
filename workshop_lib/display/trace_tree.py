"""A trace as it went: every step under the one that asked for it, with its time on a common axis, its tokens and its cost."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from workshop_lib.display.theme import BLUE, COLOURS, GREY, RED, Html, line, usd

if TYPE_CHECKING:
    from workshop_lib.tracing.store import Span, Trace

WIDTH = 24
"""Characters of a bar in the text."""
ERROR_MARK = "!"


def trace_tree(trace: Trace) -> Html:
    """The tree and waterfall of one trace. Bars of model calls have their tier's colour; a failed step is marked and named.

    Only the cost of model calls is shown: the sum beneath is the request's bill.
    """
    begin = min(span.start_ns for span in trace.spans)
    length = max(max(span.end_ns for span in trace.spans) - begin, 1)
    calls = len(trace.calls)
    total = f"{calls} model call{'' if calls == 1 else 's'}, {usd(trace.cost_usd)}, {trace.duration_ms:,.1f} ms"
    if trace.unpriced:
        total += f"; {len(trace.unpriced)} without a known price"
    rows, texts = [], []
    for depth, span in trace.tree():
        from_, share = (span.start_ns - begin) / length, (span.end_ns - span.start_ns) / length
        cells = _cells(span)
        rows.append(_row(depth, span, from_, share, cells))
        # A bar of one character at least, and within the axis.
        left = min(int(from_ * WIDTH), WIDTH - 1)
        bar = (" " * left + "#" * max(1, round(share * WIDTH)))[:WIDTH]
        said = "  ".join(cell for cell in (f"{cells[0]} ms", *cells[1:]) if cell)
        texts.append(f"{'  ' * depth + _label(span):<48.48} |{bar:<{WIDTH}}| {said}")
    head = line(["step", "when", "ms", "tokens", "USD", "result"], head=True)
    caption = f"{trace.name}: {total}"
    markup = (
        f"<table class='mathjax_ignore' style='width:100%;table-layout:auto'><caption style='text-align:left'>"
        f"{html.escape(caption)}</caption><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return Html(markup, "\n".join([caption, *texts]))


def _label(span: Span) -> str:
    """The step's name, and of what where it says so."""
    what = span.attributes.get("workshop.item_id", "")
    if span.name == "chat":  # as Strands calls it
        what = span.attributes.get("gen_ai.request.model", "")
    return " ".join(f"{span.name} {what}".split())


def _cells(span: Span) -> list[str]:
    tokens = f"{span.input_tokens:,} in, {span.output_tokens:,} out" if span.input_tokens or span.output_tokens else ""
    cost = "" if span.cost_usd is None else f"{span.cost_usd:.6f}"
    return [f"{span.duration_ms:,.1f}", tokens, cost, _result(span)]


def _result(span: Span) -> str:
    """In words: what went wrong, or which tier it came to and why."""
    of = span.attributes
    if span.status == "ERROR":
        return f"{ERROR_MARK} {of.get('error.type', 'failed')}"
    said = []
    if of.get("workshop.escalated"):
        said.append(f"went up: {', '.join(of.get('workshop.reasons', ()))}")
    if span.parent_id is None and of.get("workshop.tier"):
        said.append(f"answered by {of['workshop.tier']}")
    if of.get("workshop.fallback"):
        said.append("fallback")
    if of.get("workshop.attempts", 1) > 1:
        said.append(f"{of['workshop.attempts']} attempts")
    if of.get("workshop.abandoned"):
        said.append("left before its end")
    return "; ".join(said)


def _row(depth: int, span: Span, from_: float, share: float, cells: list[str]) -> str:
    tier = str(span.attributes.get("workshop.tier") or span.attributes.get("workshop.role") or "")
    colour = RED if span.status == "ERROR" else COLOURS.get(tier, BLUE) if span.is_call else GREY
    weight = "font-weight:bold;" if span.parent_id is None else ""
    cell = "text-align:left;vertical-align:middle;padding:.2em .6em;line-height:normal;white-space:nowrap;"
    bar = (
        f"<div aria-hidden='true' style='position:relative;height:.8em;min-width:8em;background:#f0f0f0'><div style='position:absolute;"
        f"left:{min(from_, 0.995) * 100:.2f}%;width:{max(share * 100, 0.5):.2f}%;height:100%;background:{colour}'></div></div>"
    )
    named = f"<td style='{cell}{weight}padding-left:{0.6 + 1.2 * depth:.1f}em'>{html.escape(_label(span))}</td>"
    figures = "".join(f"<td style='{cell}text-align:right'>{html.escape(value)}</td>" for value in cells[:3])
    result = f"<td style='{cell}white-space:normal;min-width:15em'>{html.escape(cells[3])}</td>"
    return f"<tr>{named}<td style='{cell}width:30%'>{bar}</td>{figures}{result}</tr>"
