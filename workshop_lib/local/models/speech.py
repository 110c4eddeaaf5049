"""How the small models talk like language models: the confidence they state, the reasons they give, JSON that comes as text.

This is the one place where something is put on. What is put on, and from which measurement it is taken:

* **Stated confidence.** Converse returns no probabilities, so a real model can only *say* how sure it is, and what it says is bunched
  high, coarse, and hardly related to being right. Asked for a confidence in JSON, Qwen2.5-Coder 0.5B said 0.85 or 0.95 on 108 of 120
  tickets (AUROC 0.59) and the 1.5B model 0.92 or 0.89 on 97 of 120 (AUROC 0.64), while their token probabilities reached 0.74 and 0.80.
  In the published run of this workshop's example on Bedrock, a rule `confidence < 0.7` fired on none of 150 tickets. So the computed
  probability is not handed out: it only nudges which of a few high values is said.
* **JSON as text.** Nemotron Nano "often" answers a forced tool with the JSON as a text block. How often is not published; TEXT_SHARE is
  our assumption.
* **A sentence instead of a label.** Asked for one word, a model now and then explains itself. How often is not published;
  SENTENCE_SHARE is our assumption.
"""

from __future__ import annotations

import hashlib
import re

TEXT_SHARE = 0.3
"""Share of calls in which a model that does not honour forced tools answers in text."""
SENTENCE_SHARE = 0.02
"""Share of classifications that come as a sentence."""
STATED = {"cheap": (0.85, 0.88, 0.92, 0.95), "strong": (0.89, 0.92, 0.95, 0.97), "judge": (0.97,)}
TRUTH_IN_STATEMENT = 0.2
"""How far the computed probability moves the stated one; the rest is chance."""


def stated_confidence(probability: float, *, manner: str, text: str, salt: str = "") -> float:
    """What the model says about its confidence, given how sure it really is."""
    values = STATED[manner]
    level = TRUTH_IN_STATEMENT * probability + (1 - TRUTH_IN_STATEMENT) * chance("confidence", manner, text, salt)
    return values[min(int(level * len(values)), len(values) - 1)]


def chance(*parts: str) -> float:
    """A number in [0, 1) that depends on `parts` alone: the same question, the same luck."""
    digest = hashlib.sha256("\x00".join(parts).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def sentences(text: str) -> list[str]:
    """A text in sentences, good enough to quote from."""
    return [s.strip() for s in re.split(r"(?<=[.!?。])\s+|\n+", text) if s.strip()] or [text.strip()]


def as_text(json_text: str, luck: float) -> str:
    """The JSON of an answer as a model writes it when it does not call the tool: bare, fenced, or after a few words."""
    if luck < 0.4:
        return json_text
    if luck < 0.8:
        return f"```json\n{json_text}\n```"
    return f"Here is the record:\n{json_text}"


def as_sentence(label: str, other: str, luck: float) -> str:
    """A label as a model gives it that was asked for one word: after a few words, or by naming the other one too."""
    if luck < 0.5:
        return f"I would call this one {label}."
    return f"This is not {other}, so the label is {label}."
