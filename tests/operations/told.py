"""Outcomes written down here: what each tier said to a ticket, how sure it was, what it cost."""

from workshop_lib import TRIAGE, Attempt, Outcome
from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.bedrock.replies import Reply
from workshop_lib.triage import Category, Decision, Label, Priority

MODELS = {"cheap": "nemotron-nano-3", "strong": "claude-sonnet-4-6"}
USAGES = {"cheap": Usage(1_259, 110), "strong": Usage(1_650, 231)}
COST = {"cheap": 0.00010194, "strong": 0.0092565}
LATENCY_MS = {"cheap": 700.0, "strong": 3_400.0}


def label(said="billing P3", family=""):
    category, priority, *flag = said.split()
    return Label(Category(category), Priority(priority), bool(flag), family, "calibration", "plain")


def attempt(tier, said, sure=0.9, usage=None):
    """What a tier said, e.g. "billing P3" or "auth P1 human"; None: nothing that could be used."""
    usage = usage or USAGES[tier]
    reply = Reply(MODELS[tier], "id", {"content": []}, "end_turn", usage, COST[tier], LATENCY_MS[tier], 0.0, 1)
    if said is None:
        return Attempt(tier, MODELS[tier], TRIAGE, None, None, (reply,), 1)
    category, priority, *flag = said.split()
    decision = Decision(category=category, priority=priority, confidence=sure, reasoning="", needs_human=bool(flag))
    return Attempt(tier, MODELS[tier], TRIAGE, decision, None, (reply,), 1)


def outcome(item_id, cheap, strong="", sure=0.9):
    """A ticket that the cheap tier kept, or with `strong` one that went up."""
    attempts = [attempt("cheap", cheap, sure)] + ([attempt("strong", strong)] if strong else [])
    last = next((a for a in reversed(attempts) if a.decision is not None), attempts[-1])
    flags = {"needs_human": last.tier} if last.decision is not None and last.decision.needs_human else {}
    return Outcome(item_id, last.decision, tuple(attempts), flags=flags)
