"""What the agent can look up: five functions over the shop's data, and the one place where they become tools of a model.

return_policy(shop, "laptops")      # the entry's text
product_info(shop, "Tarn 13")       # by key, by name, or a whole category
return_policy(shop, "boats")        # UnknownKey, which lists the categories: there is no default policy

Arguments come from a model that has read a customer's words. They are compared with keys or counted as words, and nothing else.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workshop_lib.bedrock.errors import WorkshopError
from workshop_lib.shop.facts import Shop, UnknownKey
from workshop_lib.shop.questions import TOOLS, Tool

if TYPE_CHECKING:
    from strands.types.tools import AgentTool

MAX_ARGUMENT = 300
"""Characters of an argument that are read: the rest can only be noise."""
MAX_RESULT = 4_000
"""Characters of a result: it is paid for in every later call of the conversation."""
FOUND = 2
"""Articles or pages that a search returns at most."""
COMMON = frozenset(
    re.findall(
        r"\w+",
        "the and for with not now new from that this what how can does are was has have had its it is my me our your you will "
        "would could should when which who why any all but too out off get got one two on in of to at do or if no an be",
    )
)
"""Words that every question has: a search does not count them."""
STUB = (
    "Web search is a stub in this project: a fixed set of pages stands in for a search engine, and nothing was fetched."
)


class BadArgument(WorkshopError):
    """A tool was called with something that is no text, or an empty one."""

    default_advice = "Call it again with a short text."


def return_policy(shop: Shop, category: str) -> str:
    """How products of a category are returned.

    Raises:
        UnknownKey: there is no such category; the advice lists them.
        BadArgument: it is no text, or empty.
    """
    asked = _text(category)
    names = {key: (key, label) for key, label in shop.categories.items()}
    return _bounded(shop.return_policy(_match(names, asked) or _shown(asked)).text)


def product_info(shop: Shop, product: str) -> str:
    """All facts of a product, by key or name; of every product, if a category is named.

    Raises:
        UnknownKey: it is neither; the advice lists products of the nearest name, and the categories.
        BadArgument: it is no text, or empty.
    """
    asked = _text(product)
    key = _match({p.key: (p.key, p.name) for p in shop.products}, asked)
    if key is not None:
        return _bounded(shop.product(key).text)
    category = _match({key: (key, label) for key, label in shop.categories.items()}, asked)
    if category is not None:
        return _bounded("\n\n".join(p.text for p in shop.products_of(category)))
    words = set(_words(asked))
    near = [p.name for p in shop.products if words & set(_words(p.name))] or [p.name for p in shop.products]
    raise UnknownKey(
        f"The shop has no product {_shown(asked)!r}.",
        advice=f"Products: {', '.join(near)}. Categories: {', '.join(shop.categories)}.",
    )


def tech_support(shop: Shop, issue: str) -> str:
    """The support articles that fit a description best, most fitting first; an article's id or title finds just that one.

    Raises:
        BadArgument: it is no text, or empty.
    """
    names = {p.key: p.name for p in shop.products} | dict(shop.categories)
    texts = {
        a.id: " ".join([a.id, a.title, *a.keywords] * 2 + [*a.steps, *(names.get(k, k) for k in a.applies_to)])
        for a in shop.support
    }
    found = _search(texts, {a.id: (a.id, a.title) for a in shop.support}, _text(issue))
    if not found:
        return "No support article fits this description. Ask the customer which device it is and what happens."
    return _bounded("\n\n".join(shop.article(id).text for id in found))


def store_info(shop: Shop, topic: str) -> str:
    """What the shop says of itself on a topic.

    Raises:
        UnknownKey: there is no such topic; the advice lists them.
        BadArgument: it is no text, or empty.
    """
    asked = _text(topic)
    names = {t.key: (t.key, t.title) for t in shop.topics}
    return _bounded(shop.topic(_match(names, asked) or _shown(asked)).text)


def web_search(shop: Shop, query: str) -> str:
    """The pages that fit some words best, from the fixed set that stands in for the web; every result says so.

    Raises:
        BadArgument: it is no text, or empty.
    """
    texts = {p.id: " ".join([p.id, p.title, *p.keywords] * 2 + [p.text]) for p in shop.web_pages}
    found = _search(texts, {p.id: (p.id, p.title) for p in shop.web_pages}, _text(query))
    if not found:
        return f"{STUB} No page fits these words."
    return _bounded("\n\n".join([STUB, *(f"{shop.web_page(id).title}\n{shop.web_page(id).text}" for id in found)]))


@dataclass(frozen=True)
class ToolForm:
    """How a model is told of a tool."""

    run: Callable[[Shop, str], str]
    argument: str
    description: str
    argument_description: str
    known: Callable[[Shop], Iterable[str]] | None = None
    """The values that the argument may have; None: free words."""

    def spec(self, name: str, shop: Shop) -> dict[str, Any]:
        """`toolSpec` of Converse."""
        form: dict[str, Any] = {"type": "string", "description": self.argument_description}
        if self.known is not None:
            form["enum"] = list(self.known(shop))
        schema = {"type": "object", "properties": {self.argument: form}, "required": [self.argument]}
        return {"name": name, "description": self.description, "inputSchema": {"json": schema}}


FORMS: Mapping[Tool, ToolForm] = {
    "return_policy": ToolForm(
        return_policy,
        "category",
        "How products of one category are returned: window, condition, restocking fee, shipping, refund time, exceptions.",
        "The product category.",
        lambda shop: shop.categories,
    ),
    "product_info": ToolForm(
        product_info,
        "product",
        "Price, availability, warranty and specifications of one product, or of all products of a category.",
        "A product's name, or a category to see all of its products.",
    ),
    "tech_support": ToolForm(
        tech_support,
        "issue",
        "Support articles, with steps in order, for a device that does not work or for how to do something with it.",
        "The device and what happens, in a few English words.",
    ),
    "store_info": ToolForm(
        store_info,
        "topic",
        "What the shop says of itself on one topic: opening hours, stores, shipping, payment, warranty, price match and more.",
        "The topic.",
        lambda shop: [topic.key for topic in shop.topics],
    ),
    "web_search": ToolForm(
        web_search,
        "query",
        "Facts of the world that are not the shop's: rules of airlines, standards, plugs of countries. A stub with a fixed set of pages.",
        "A few English words.",
    ),
}


def call(shop: Shop, name: str, arguments: Mapping[str, Any]) -> str:
    """Run a tool by name, with arguments as a model gives them.

    Raises:
        UnknownKey: no such tool, or nothing of that key in the shop's data.
        BadArgument: the argument is missing, is no text, or is empty.
    """
    form = FORMS.get(name)  # type: ignore[call-overload]  # a model may give any name
    if form is None:
        raise UnknownKey(f"There is no tool {_shown(name)!r}.", advice=f"There are: {', '.join(FORMS)}.")
    return str(form.run(shop, arguments.get(form.argument, "")))


def tool_specs(shop: Shop) -> list[dict[str, Any]]:
    """`toolSpec` of every tool, in the order of `TOOLS`."""
    return [FORMS[name].spec(name, shop) for name in TOOLS]


def strands_tools(shop: Shop) -> list[AgentTool]:
    """The tools as Strands takes them. An error becomes a result with the status `error`, which the model can read."""
    from strands.tools.tools import PythonAgentTool

    def runner(name: str) -> Callable[..., Any]:
        def run(use: Mapping[str, Any], **_: Any) -> dict[str, Any]:
            arguments = use.get("input")
            try:
                text, status = call(shop, name, arguments if isinstance(arguments, Mapping) else {}), "success"
            except WorkshopError as error:
                text, status = str(error)[:MAX_RESULT], "error"
            return {"toolUseId": use["toolUseId"], "status": status, "content": [{"text": text}]}

        return run

    return [PythonAgentTool(spec["name"], spec, runner(spec["name"])) for spec in tool_specs(shop)]  # type: ignore[arg-type]


def _text(argument: object) -> str:
    if not isinstance(argument, str) or not argument.strip():
        raise BadArgument(f"The argument is {'empty' if isinstance(argument, str) else type(argument).__name__}.")
    return argument.strip()[:MAX_ARGUMENT]


def _shown(argument: str) -> str:
    """What an error repeats of an argument: enough to see a slip, too little to carry orders."""
    return argument if len(argument) <= 40 else argument[:40] + "..."


def _bounded(text: str) -> str:
    if len(text) <= MAX_RESULT:
        return text
    kept = text[: MAX_RESULT - 60].rsplit("\n", 1)[0]
    return f"{kept}\n(cut: ask for one entry)"


def _match(names: Mapping[str, tuple[str, ...]], asked: str) -> str | None:
    """The key one of whose names is `asked`, however it is spaced and hyphenated."""
    wanted = _words(asked)
    return next((key for key, known in names.items() if any(_words(name) == wanted for name in known)), None)


def _words(text: str) -> list[str]:
    text = unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("’", "")
    return re.findall(r"[^\W_]+", text)


def _stem(word: str) -> str:
    """English endings off, so that "charges" finds "charging"."""
    for ending in ("ing", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)].rstrip("e")
    return word.rstrip("e") if len(word) > 3 else word


def _search(texts: Mapping[str, str], names: Mapping[str, tuple[str, ...]], query: str) -> Sequence[str]:
    """Keys of the best texts by BM25 (S. Robertson and H. Zaragoza, 2009), best first; a name finds its text alone.

    Words of one letter, and the commonest of English, count for nothing; a text without a common word is not found.
    """
    if (named := _match(names, query)) is not None:
        return [named]
    bags, mean = _bags(tuple(texts.items()))
    score: dict[str, float] = {}
    for word in {_stem(w) for w in _words(query) if len(w) > 1 and w not in COMMON}:
        holding = [key for key, bag in bags.items() if bag[word]]
        idf = math.log(1 + (len(bags) - len(holding) + 0.5) / (len(holding) + 0.5))
        for key in holding:
            n = bags[key][word]
            weight = idf * n * 2.2 / (n + 1.2 * (0.25 + 0.75 * bags[key].total() / mean))
            score[key] = score.get(key, 0.0) + weight
    return sorted(score, key=score.__getitem__, reverse=True)[:FOUND]


@functools.lru_cache(maxsize=8)
def _bags(texts: tuple[tuple[str, str], ...]) -> tuple[Mapping[str, Counter[str]], float]:
    """The words of each text with their counts, and the mean number of words; kept, because a shop is searched often."""
    bags = {key: Counter(map(_stem, _words(text))) for key, text in texts}
    return bags, sum(bag.total() for bag in bags.values()) / len(bags)
