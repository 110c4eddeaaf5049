"""A comparison as one HTML page that needs nothing else: to be mailed, printed, kept beside the recorded run."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workshop_lib.cascade.cascade import id_of
from workshop_lib.display.bakeoff_charts import confusions, escalation_flow, latencies
from workshop_lib.display.cost_chart import cost_against_agreement
from workshop_lib.display.disagreements import disagreements
from workshop_lib.display.theme import Picture, table
from workshop_lib.evaluation.comparison import LABELLED, Comparison

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1{line-height:1.2} h2{margin-top:2.5rem;border-bottom:1px solid #ccc} figure{margin:1rem 0!important} figcaption{color:#555;font-size:.9rem}
table{border-collapse:collapse;font-size:.85rem} tr{border-bottom:1px solid #ddd} caption{padding:.5rem 0}
td:last-child{overflow-wrap:anywhere} .wide{overflow-x:auto;margin-bottom:1rem} .wide th:first-child,.wide td:first-child{white-space:nowrap}
.warnings{border-left:5px solid #D55E00;background:#FFF4EC;padding:.5rem 1rem}
.small figcaption{max-width:24rem} .small{display:flex;flex-wrap:wrap;gap:1rem 2rem;align-items:flex-start}
@media print{body{max-width:none;margin:0;font-size:11px} .wide{overflow:visible} figure,tr,li{break-inside:avoid}
h2{break-after:avoid} details::details-content{content-visibility:visible;block-size:auto} details summary{display:none}}
"""


def report(comparison: Comparison) -> str:
    """The comparison as a self-contained page: warnings, table, pairs, charts, disagreements, provenance. What cannot be drawn is left out."""
    title = _title(comparison)
    parts = [
        f"<p>{_e(_door(comparison))}</p>",
        warned(comparison.warnings),
        section("The strategies", *_tables(comparison)),
        listed("The pairs", comparison.sentences(comparison.main_measure)),
        section("Cost and agreement", *_pictures(_cost(comparison))),
        section("What goes up", *_pictures(_flows(comparison))),
        section("What is mixed up", _wrapped(_pictures(_confusions(comparison)))),
        section("How long it takes", *_pictures([latencies(comparison)])),
        section("Where cascade and strong-only part", _parted(comparison)),
        section("Provenance", _provenance(comparison)),
    ]
    return page(title, parts)


def page(title: str, parts: Sequence[str]) -> str:
    """A self-contained page of these parts, which are HTML, under its title, which is text."""
    body = "\n".join(filter(None, parts))
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{_e(title)}</title><style>{STYLE}</style></head><body>\n<h1>{_e(title)}</h1>{body}\n</body></html>\n"
    )


def save_report(comparison: Comparison, path: Path) -> None:
    """Write the report to a file; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report(comparison), encoding="utf-8", errors="replace", newline="\n")


def _title(comparison: Comparison) -> str:
    names, n = list(comparison.scores), len(comparison.tickets)
    what = names[0] if len(names) == 1 else f"{len(names)} strategies"
    split = f"{comparison.provenance.split} split" + (", locked: the final measurement" if comparison.final else "")
    return f"{what} on {n} {'ticket' if n == 1 else 'tickets'} ({split})"


def _door(comparison: Comparison) -> str:
    door = comparison.provenance.door
    if door.get("mode") == "local":
        return (
            "Local door: small models on one machine stand in for those of Bedrock. Answers and errors are real, prices are the real "
            "ones applied to counted tokens, times are drawn from published figures. None of it says how the real models do."
        )
    return "Door: " + ", ".join(f"{name} {value}" for name, value in door.items() if value)


def warned(warnings: Sequence[str]) -> str:
    """Warnings, as text, in a box; nothing without one."""
    said = "".join(f"<li>{_e(w)}</li>" for w in warnings)
    return f"<div class='warnings'><strong>Before you believe the table</strong><ul>{said}</ul></div>" if said else ""


def _tables(comparison: Comparison) -> Iterator[str]:
    """The comparison's table in two that fit a page: shares, then money and time."""
    rows = comparison.table()
    shares = {"strategy", "escalated", *(m.name for m in comparison.measures)}
    for kept in ([k for k in rows[0] if k in shares], [k for k in rows[0] if k == "strategy" or k not in shares]):
        yield f"<div class='wide'>{table([{k: row[k] for k in kept} for row in rows])}</div>"
    told = [f"{m.name}: {m.description}" for m in comparison.measures if m.description]
    yield f"<p>Shares with 95% intervals. {_e('; '.join(told))}{'.' if told else ''}</p>"


def _cost(comparison: Comparison) -> Iterator[Picture]:
    if any(s.shares[comparison.main_measure] is not None for s in comparison.scores.values()):
        yield cost_against_agreement(comparison, comparison.main_measure)


def _flows(comparison: Comparison) -> Iterator[Picture]:
    for name, outcomes in comparison.outcomes.items():
        if any(o.escalated for o in outcomes):
            yield escalation_flow(comparison, name)


def _confusions(comparison: Comparison) -> Iterator[Picture]:
    """Of the cascade, or else of the first strategy, for the fields that the key has."""
    name = "cascade" if "cascade" in comparison.scores else next(iter(comparison.scores))
    labels = [comparison.labels[id_of(ticket)] for ticket in comparison.tickets]
    for field in LABELLED:
        if all(hasattr(label, field) for label in labels):
            yield confusions(comparison, name, field)


def _parted(comparison: Comparison) -> str:
    if not {"cascade", "strong-only"} <= comparison.scores.keys():
        return ""
    return f"<div class='wide'>{disagreements(comparison, 'cascade', 'strong-only').markup}</div>"


def _provenance(comparison: Comparison) -> str:
    told: Mapping[str, Any] = {
        **vars(comparison.provenance),
        **{f"strategy {name}": identity for name, identity in comparison.identities.items()},
        "seed of the intervals": comparison.seed,
    }
    return table([{"what": name, "value": _plain(value)} for name, value in told.items()])


def _plain(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, Mapping) else str(value)


def _pictures(pictures: Iterator[Picture] | Sequence[Picture]) -> list[str]:
    return [f"<div>{picture._repr_html_()}</div>" for picture in pictures]


def _wrapped(parts: Sequence[str]) -> str:
    return f"<div class='small'>{''.join(parts)}</div>" if parts else ""


def listed(head: str, sentences: Sequence[str]) -> str:
    """Sentences, as text, under a heading; nothing without one."""
    return section(head, f"<ul>{''.join(f'<li>{_e(s)}</li>' for s in sentences)}</ul>" if sentences else "")


def section(head: str, *parts: str) -> str:
    """Parts, which are HTML, under a heading; nothing without one."""
    body = "\n".join(filter(None, parts))
    return f"<section><h2>{_e(head)}</h2>{body}</section>" if body else ""


def _e(value: object) -> str:
    return html.escape(str(value))
