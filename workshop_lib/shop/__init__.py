"""THE SHOP: an example whose questions are routed by a classifier, and the one source of what is true in it."""

from workshop_lib.shop.agent import Limits, ShopAgent
from workshop_lib.shop.answers import Answer, weak
from workshop_lib.shop.classifier import Classification, Router, classify, llm_router, parse_label
from workshop_lib.shop.facts import Shop, UnknownKey, load_shop
from workshop_lib.shop.prompts import agent_prompt, classifier_prompt
from workshop_lib.shop.questions import TOOLS, Question, load_questions

__all__ = [
    "TOOLS",
    "Answer",
    "Classification",
    "Limits",
    "Question",
    "Router",
    "Shop",
    "ShopAgent",
    "UnknownKey",
    "agent_prompt",
    "classifier_prompt",
    "classify",
    "llm_router",
    "load_questions",
    "load_shop",
    "parse_label",
    "weak",
]
