"""Charts that say their finding in the title, with alt text and their data below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from workshop_lib.display.theme import BLUE, GREEN, GREY, RED, Picture, picture
from workshop_lib.evaluation.metrics import auroc


def stated_confidence(confidence: Sequence[float], correct: Sequence[bool], *, threshold: float = 0.7) -> Picture:
    """How often each stated confidence was right and wrong, with the threshold that is supposed to tell them apart."""
    import matplotlib.pyplot as plt

    right = Counter(round(c, 2) for c, ok in zip(confidence, correct, strict=True) if ok)
    wrong = Counter(round(c, 2) for c, ok in zip(confidence, correct, strict=True) if not ok)
    values = sorted(right.keys() | wrong.keys())
    below = sum(c < threshold for c in confidence)
    figure, axes = plt.subplots(figsize=(7.5, 3.4))
    for counts, offset, colour, name, hatch in (
        (right, -0.004, GREEN, "right", ""),
        (wrong, 0.004, RED, "wrong", "//"),
    ):
        bars = axes.bar(
            [v + offset for v in values], [counts[v] for v in values], 0.008, color=colour, hatch=hatch, label=name
        )
        axes.bar_label(bars, fontsize=8)
    axes.axvline(threshold, color=GREY, linestyle="--")
    axes.text(threshold + 0.004, axes.get_ylim()[1] * 0.92, f"threshold {threshold:g}", color=GREY, fontsize=9)
    axes.set_xlim(min(threshold, *values) - 0.03, 1.0)
    axes.set_xlabel("confidence that the cheap model states")
    axes.set_ylabel("tickets")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper center")
    area = auroc(confidence, correct)
    title = f"{below} of {len(confidence)} tickets lie below {threshold:g}, and right and wrong look alike (AUROC {area:.2f})"
    axes.set_title(title, fontsize=11, loc="left")
    rows = [{"stated": f"{v:.2f}", "right": right[v], "wrong": wrong[v]} for v in values]
    said = "; ".join(f"{r['stated']}: {r['right']} right, {r['wrong']} wrong" for r in rows)
    return picture(
        figure,
        alt=f"Bar chart. {title}. Stated confidence: {said}.",
        caption="A confidence that could drive a cascade would put the wrong answers to the left.",
        rows=rows,
    )


def rules_fired(counts: dict[str, int], n: int) -> Picture:
    """How many of `n` tickets each rule sent up."""
    import matplotlib.pyplot as plt

    ordered = sorted(counts.items(), key=lambda kv: kv[1])
    figure, axes = plt.subplots(figsize=(7.5, 0.5 * len(ordered) + 1.2))
    bars = axes.barh([k for k, _ in ordered], [v for _, v in ordered], color=BLUE)
    axes.bar_label(bars, [f" {v}" for _, v in ordered])
    axes.set_xlim(0, max(1, *counts.values()) * 1.15)
    axes.set_xlabel(f"tickets sent up, of {n}")
    axes.spines[["top", "right"]].set_visible(False)
    silent = [k for k, v in counts.items() if v == 0]
    title = f"{', '.join(silent)} fired on no ticket" if silent else f"{ordered[-1][0]} fired most"
    axes.set_title(title, fontsize=11, loc="left")
    return picture(
        figure,
        alt=f"Bar chart. {title}. Tickets sent up, of {n}: " + ", ".join(f"{k} {v}" for k, v in ordered[::-1]) + ".",
        caption="A ticket may be sent up by several rules.",
        rows=[{"rule": k, "tickets": v} for k, v in ordered[::-1]],
    )
