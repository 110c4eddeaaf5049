"""Comparisons of a few tickets, worked out by the real strategies from attempts written down here."""

from workshop_lib import TRIAGE, Attempt, Cascade, Ticket, Tier, stakes
from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.bedrock.errors import Throttled
from workshop_lib.bedrock.replies import Reply
from workshop_lib.evaluation import TRIAGE_MEASURES, Asked, Comparison, NoCalls, Provenance, Recording, score
from workshop_lib.evaluation.strategies import identity_of, work_out
from workshop_lib.triage import Category, Decision, Label, Priority

ATTACK = "<script>alert(1)</script> <img src=x onerror=alert(2)>"
COST, SECONDS = {"cheap": 0.0001, "strong": 0.005}, {"cheap": 0.5, "strong": 3.0}


def label(said="billing P3"):
    category, priority, *flag = said.split()
    return Label(Category(category), Priority(priority), bool(flag), "", "calibration", "plain")


def attempt(tier, said):
    """What a tier said, e.g. "billing P3" or "auth P1 human"; None: it was throttled."""
    if said is None:
        return Attempt(tier, tier, TRIAGE, error=Throttled("Too many requests."))
    category, priority, *flag = said.split()
    decision = Decision(
        category=category, priority=priority, confidence=0.9, reasoning="", needs_human=bool(flag) or priority in "P0P1"
    )
    reply = Reply(tier, tier, {"content": []}, "end_turn", Usage(), COST[tier], 1_000 * SECONDS[tier], 0.0)
    return Attempt(tier, tier, TRIAGE, decision, replies=(reply,))


def strategies():
    cheap, strong = Tier("cheap"), Tier("strong")
    return {
        "strong-only": Cascade([strong], client=NoCalls()),
        "cheap-only": Cascade([cheap], client=NoCalls()),
        "cascade": Cascade([cheap, strong], escalate_when=stakes(), client=NoCalls()),
    }


def compared(*said, chosen=None, text="Hello.", measures=TRIAGE_MEASURES, mode="local", labels=None):
    """A comparison of tickets, each given as (key, what cheap said, what strong said)."""
    chosen = strategies() if chosen is None else chosen
    tickets = [Ticket(id=f"T-{i}", subject=text, body=text) for i in range(len(said))]
    labels = labels or {f"T-{i}": label(key) for i, (key, _, _) in enumerate(said)}
    asked = [
        Asked(ticket, {"cheap": attempt("cheap", cheap), "strong": attempt("strong", strong)})
        for ticket, (_, cheap, strong) in zip(tickets, said, strict=True)
    ]
    outcomes = {name: [work_out(name, strategy, a) for a in asked] for name, strategy in chosen.items()}
    return Comparison(
        scores={name: score(name, found, labels, measures=measures) for name, found in outcomes.items()},
        outcomes=outcomes,
        tickets=tickets,
        labels=labels,
        recording=Recording(
            Provenance("triage", "p", {}, "c", {"mode": mode}, "calibration", "t", "l", len(tickets)), ()
        ),
        identities={name: identity_of(strategy) for name, strategy in chosen.items()},
        measures=measures,
        final=False,
        seed=0,
    )


RIGHT_BELOW = ("billing P3", "billing P3", "billing P3")
REPAIRED = ("auth P1 human", "auth P0 human", "auth P1 human")
HARMED = ("auth P1 human", "auth P1 human", "billing P1 human")
RIGHT_BOTH = ("auth P1 human", "auth P1 human", "auth P1 human")
WRONG_BOTH = ("abuse P0 human", "other P1 human", "other P1 human")
MISSED = ("feature_request P3", "bug_report P3", "feature_request P3")
MIXED = (RIGHT_BELOW, RIGHT_BELOW, REPAIRED, REPAIRED, HARMED, RIGHT_BOTH, WRONG_BOTH, MISSED)
