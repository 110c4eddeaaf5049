"""THE SHOP: an example whose questions are routed by a classifier, and the one source of what is true in it."""

from workshop_lib.shop.facts import Shop, UnknownKey, load_shop
from workshop_lib.shop.questions import TOOLS, Question, load_questions

__all__ = ["TOOLS", "Question", "Shop", "UnknownKey", "load_questions", "load_shop"]
