"""Charts of a comparison: what goes up and whether it helps, which answers are mixed up, how long it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import EnumType

from workshop_lib.cascade.cascade import id_of
from workshop_lib.display.canvas import canvas, looks_of, named, shortened, title_of
from workshop_lib.display.theme import BLUE, COLOURS, GREEN, GREY, RED, Picture, picture
from workshop_lib.evaluation.comparison import Comparison
from workshop_lib.evaluation.metrics import confusion

FATES = {
    "was right already": ("#999999", ""),
    "repaired": (GREEN, ""),
    "harmed": (RED, "xx"),
    "wrong before and after": ("#999999", "//"),
}
"""What going up did to a ticket: how its bar looks."""


def escalation_flow(comparison: Comparison, strategy: str = "cascade") -> Picture:
    """How many tickets stop at each tier, by which rules others went up, and what going up did to their agreement.

    Raises:
        KeyError: there is no such strategy.
    """
    from matplotlib.ticker import MaxNLocator

    judge = next(m for m in comparison.measures if m.name == comparison.main_measure)
    outcomes = comparison.outcomes[strategy]
    n, up = len(outcomes), [o for o in outcomes if o.escalated]
    paths = Counter(tuple(a.tier for a in o.attempts) for o in outcomes)
    why = Counter(rule for o in up for rule in dict.fromkeys(r.rule for r in o.reasons))
    fates = dict.fromkeys(FATES, 0)
    for o in up:
        label, first = comparison.labels[o.item_id], o.attempts[0].decision
        before, after = first is not None and judge.holds(first, label), judge.of(o, label)
        fates[list(FATES)[(0 if after else 2) if before else (1 if after else 3)]] += 1
    stayed, bars = n - len(up), []  # group, name, start, tickets, colour, hatch
    start = 0
    for path, count in sorted(paths.items(), key=lambda kv: (len(kv[0]), kv[0])):
        bars.append((f"Where {n} tickets went", " → ".join(path), start, count, COLOURS.get(path[-1], GREY), ""))
        start += count
    if up:
        several = ", a ticket by one rule or more" if sum(why.values()) > len(up) else ""
        bars += [(f"Why {len(up)} went up{several}", rule, stayed, c, "#999999", "") for rule, c in why.most_common()]
        start = stayed
        for fate, (colour, hatch) in FATES.items():
            bars.append((f"What going up did, by {named(judge.name)}", fate, start, fates[fate], colour, hatch))
            start += fates[fate]
    title = f"{strategy} sends none of {n} tickets up"
    if up:
        title = (
            f"Of {n} tickets {strategy} sends {len(up)} up: {fates['repaired']} repaired, {fates['harmed']} harmed, "
            f"{fates['was right already']} right already"
        )
    groups = list(dict.fromkeys(bar[0] for bar in bars))
    with canvas(7.5, 0.31 * (len(bars) + 1.4 * len(groups)) + 0.6) as axes:
        if up:
            axes.axvspan(stayed, n, color="#EEEEEE", zorder=0)
        place, places = 0.0, []
        for i, (group, _, left, count, colour, hatch) in enumerate(bars):
            if i == 0 or group != bars[i - 1][0]:
                place += 1.4
                axes.text(0, place - 0.95, group, fontsize=9, fontweight="bold", va="center")
            axes.barh(place, count, 0.72, left, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
            of = n if group == groups[0] else len(up)
            axes.text(left + count + 0.012 * n, place, f"{count} ({count / of:.0%})", fontsize=9, va="center")
            places.append(place)
            place += 1
        axes.set_yticks(places, [shortened(bar[1]) for bar in bars], fontsize=9)
        axes.set_ylim(place - 0.4, 0)
        axes.set_xlim(0, 1.16 * n)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("tickets" + ("; those sent up are under the grey band" if up else ""))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        title_of(axes, title)
        told = [
            f"{group}: " + ", ".join(f"{name} {count}" for g, name, _, count, *_ in bars if g == group)
            for group in groups
        ]
        return picture(
            axes.get_figure(root=True),  # type: ignore[arg-type]  # it has one
            alt=f"Bar chart. {title}. {'. '.join(told)}.",
            caption="Repaired: the first tier was wrong, the outcome is right. Harmed: the other way round."
            if up
            else "",
            rows=[{"of": group, "what": name, "tickets": count} for group, name, _, count, *_ in bars],
        )


def confusions(comparison: Comparison, strategy: str, field: str) -> Picture:
    """How often each value of the key (rows) got each answer (columns), for one field of the decision.

    Raises:
        KeyError: there is no such strategy.
        AttributeError: the answer key has no such field.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgb

    outcomes = comparison.outcomes[strategy]
    counts = confusion(outcomes, comparison.labels, field)
    keys, answers = _in_order(comparison, field, counts)
    right = sum(count for (key, answer), count in counts.items() if key == answer)
    wrong = sorted((pair for pair in counts if pair[0] != pair[1]), key=lambda pair: (-counts[pair], pair))
    title = f"{strategy}: {field} right on {right} of {len(outcomes)} tickets"
    if wrong:
        key, answer = wrong[0]
        title += f"; most often wrong: {key} taken for {answer}, {counts[wrong[0]]} times"
    with canvas(1.6 + 0.72 * len(answers), 0.9 + 0.4 * len(keys)) as axes:
        image = []
        for row, key in enumerate(keys):
            total, cells = sum(counts[key, answer] for answer in answers), []
            for column, answer in enumerate(answers):
                count = counts[key, answer]
                depth = 0.1 + 0.5 * count / total if count else 0.0
                cells.append([1 - depth + depth * part for part in to_rgb(BLUE if key == answer else RED)])
                axes.text(
                    column, row, str(count) if count else "·", ha="center", va="center", fontsize=10,
                    fontweight="bold" if key == answer else "normal",
                )  # fmt: skip
            image.append(cells)
        axes.imshow(image, aspect="auto")
        axes.set_xticks(range(len(answers)), [shortened(a) for a in answers])
        if max(map(len, answers)) > 7:
            axes.tick_params("x", rotation=30)
            plt.setp(axes.get_xticklabels(), ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(keys)), [shortened(k) for k in keys])
        axes.set_xlabel(f"{field} by {strategy}")
        axes.set_ylabel("by the key")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        title_of(axes, title)
        said = "; ".join(f"{k} {counts[k, k]} of {sum(counts[k, a] for a in answers)}" for k in keys)
        errors = "; ".join(f"{k} taken for {a} {counts[k, a]}" for k, a in wrong) or "none"
        return picture(
            axes.get_figure(root=True),  # type: ignore[arg-type]  # it has one
            alt=f"Confusion matrix. {title}. Right: {said}. Mistakes: {errors}.",
            caption="Rows: the key; columns: the answer. Blue with bold figures: as in the key; the darker, the larger a row's share.",
            rows=[{"key": key} | {f"said {answer}": counts[key, answer] for answer in answers} for key in keys],
        )


def latencies(comparison: Comparison) -> Picture:
    """How long each strategy takes a ticket, in seconds: every ticket as a stroke, with p50, mean and p95."""
    scores = sorted(comparison.scores.values(), key=lambda s: s.latency_mean_ms)
    looks = looks_of(comparison)
    fastest, slowest = scores[0], max(scores, key=lambda s: s.latency_p95_ms)
    title = f"{fastest.strategy}: half of the tickets within {_s(fastest.latency_p50_ms)}, 95% within {_s(fastest.latency_p95_ms)}"
    if len(scores) > 1:
        title = (
            f"{fastest.strategy} is fastest on the mean ({_s(fastest.latency_mean_ms)}); "
            f"{slowest.strategy} has the longest p95 ({_s(slowest.latency_p95_ms)})"
        )
    with canvas(7.5, 0.5 * len(scores) + 1.3) as axes:
        for place, s in enumerate(scores):
            taken = [o.latency_ms / 1e3 for o in comparison.outcomes[s.strategy]]
            colour = looks[s.strategy][0]
            axes.vlines(taken, place - 0.2, place + 0.2, color=colour, linewidth=1, alpha=max(0.03, min(0.6, 40 / s.n)))
            p50, mean, p95 = (ms / 1e3 for ms in (s.latency_p50_ms, s.latency_mean_ms, s.latency_p95_ms))
            first = place == 0
            axes.vlines(p50, place - 0.36, place + 0.36, color="black", linewidth=2.4, label="p50" if first else "_")
            axes.vlines(
                p95, place - 0.36, place + 0.36, color="black", linewidth=1.6, linestyle=(0, (2, 1)),
                label="p95" if first else "_",
            )  # fmt: skip
            axes.plot(mean, place, "o", color="white", markeredgecolor="black", label="mean" if first else "_")
            for x, value in zip((1.06, 1.16, 1.26), (p50, mean, p95), strict=True):
                axes.text(x, place, f"{value:.1f}", transform=axes.get_yaxis_transform(), ha="right", va="center")
        for x, head in zip((1.06, 1.16, 1.26), ("p50", "mean", "p95"), strict=True):
            axes.text(x, -0.65, head, transform=axes.get_yaxis_transform(), ha="right", va="center", color=GREY)
        axes.set_yticks(range(len(scores)), [shortened(s.strategy) for s in scores])
        axes.set_ylim(len(scores) - 0.5, -0.8)
        axes.set_xlim(left=0, right=None if any(s.latency_p95_ms for s in scores) else 1)
        axes.set_xlabel("seconds a ticket", loc="left")
        axes.tick_params(axis="y", length=0)
        axes.legend(frameon=False, ncols=3, fontsize=9, loc="upper right", bbox_to_anchor=(1.0, -0.28 / len(scores)))
        title_of(axes, title)
        said = "; ".join(
            f"{s.strategy} p50 {_s(s.latency_p50_ms)}, mean {_s(s.latency_mean_ms)}, p95 {_s(s.latency_p95_ms)}"
            for s in scores
        )
        return picture(
            axes.get_figure(root=True),  # type: ignore[arg-type]  # it has one
            alt=f"Strip chart. {title}. Seconds a ticket: {said}. {_source_of_times(comparison)}",
            caption=_source_of_times(comparison),
            rows=[
                {
                    "strategy": s.strategy,
                    "p50 s": f"{s.latency_p50_ms / 1e3:.2f}",
                    "mean s": f"{s.latency_mean_ms / 1e3:.2f}",
                    "p95 s": f"{s.latency_p95_ms / 1e3:.2f}",
                }
                for s in scores
            ],
        )


def _in_order(comparison: Comparison, field: str, counts: Mapping[tuple[str, str], int]) -> tuple[list[str], list[str]]:
    """The key's values and the answers' that occur: an enumeration in its own order, else by name; "(none)" last."""
    kind = type(getattr(comparison.labels[id_of(comparison.tickets[0])], field))
    known = [str(value) for value in kind] if isinstance(kind, EnumType) else []

    def order(value: str) -> tuple[bool, int, str]:
        return (value == "(none)", known.index(value) if value in known else len(known), value)

    keys = sorted({key for key, _ in counts}, key=order)
    return keys, sorted({*keys, *(answer for _, answer in counts)}, key=order)


def _source_of_times(comparison: Comparison) -> str:
    said = "Time of all of a ticket's model calls, one after the other."
    if comparison.provenance.door.get("mode") == "local":
        said += " Nothing was measured here: the local door draws times from the catalogue's published figures."
    else:
        said += " As the service measured it, without the network."
    if any(not a.replies for found in comparison.outcomes.values() for o in found for a in o.attempts):
        said += " A call that failed counts as 0 s."
    return said


def _s(ms: float) -> str:
    return f"{ms / 1e3:.1f} s"
