"""What the agent can look up: five functions over the shop's data, and the one place where they become tools of a model.

return_policy(shop, "laptops")      # the entry's text
product_info(shop, "Tarn 13")       # by key, by name, or a whole category
return_policy(shop, "boats")        # UnknownKey, which lists the categories: there is no default policy

Arguments come from a model that has read a customer's words. They are compared with keys or counted as words, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workshop_lib.bedrock.errors import WorkshopError
from workshop_lib.shop.facts import Shop, UnknownKey
from workshop_lib.shop.questions import TOOLS, Tool
from workshop_lib.shop.search import match, search, words

if TYPE_CHECKING:
    from strands.types.tools import AgentTool

MAX_ARGUMENT = 300
"""Characters of an argument that are read: the rest can only be noise."""
MAX_RESULT = 4_000
"""Characters of a result: it is paid for in every later call of the conversation."""
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
    return _bounded(shop.return_policy(match(names, asked) or _shown(asked)).text)


def product_info(shop: Shop, product: str) -> str:
    """All facts of a product, by key or name; of every product, if a category is named.

    Raises:
        UnknownKey: it is neither; the advice lists products of the nearest name, and the categories.
        BadArgument: it is no text, or empty.
    """
    asked = _text(product)
    key = match({p.key: (p.key, p.name) for p in shop.products}, asked)
    if key is not None:
        return _bounded(shop.product(key).text)
    category = match({key: (key, label) for key, label in shop.categories.items()}, asked)
    if category is not None:
        return _bounded("\n\n".join(p.text for p in shop.products_of(category)))
    asked_for = set(words(asked))
    near = [p.name for p in shop.products if asked_for & set(words(p.name))] or [p.name for p in shop.products]
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
    found = search(texts, {a.id: (a.id, a.title) for a in shop.support}, _text(issue))
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
    return _bounded(shop.topic(match(names, asked) or _shown(asked)).text)


def web_search(shop: Shop, query: str) -> str:
    """The pages that fit some words best, from the fixed set that stands in for the web; every result says so.

    Raises:
        BadArgument: it is no text, or empty.
    """
    texts = {p.id: " ".join([p.id, p.title, *p.keywords] * 2 + [p.text]) for p in shop.web_pages}
    found = search(texts, {p.id: (p.id, p.title) for p in shop.web_pages}, _text(query))
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
