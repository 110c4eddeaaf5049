"""What is true about the shop: the one source that prompts, tools and answers are made from.

shop = load_shop()
shop.product("tarn-13").price_usd          # Decimal("949"), USD
print(shop.return_policy("laptops").text)  # what a tool hands to a model
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from workshop_lib.bedrock.errors import ConfigurationError, WorkshopError
from workshop_lib.bedrock.settings import PROJECT

Value = bool | int | Decimal | str
UNITS = {
    "days": "days",
    "months": "months",
    "years": "years",
    "hours": "hours",
    "minutes": "minutes",
    "percent": "%",
    "kg": "kg",
    "g": "g",
    "gb": "GB",
    "mah": "mAh",
    "wh": "Wh",
    "w": "W",
    "mp": "megapixels",
    "ms": "ms",
    "m": "m",
    "cm": "cm",
}
"""Last part of a fact's name to the unit its number is said in; `_usd` is money."""


class UnknownKey(WorkshopError):
    """The shop's data has no entry of that key. There is no default: an invented policy would be a wrong answer."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Product(_Entry):
    """Something the shop sells or sold."""

    key: str
    name: str
    category: str
    price_usd: Decimal
    availability: Literal["in stock", "out of stock", "pre-order", "discontinued"]
    units_left: int | None = None
    """Where few are left; None: plenty, or none."""
    expected_days: int | None = None
    """Days until it is delivered again, or for the first time; None: in stock, or never."""
    warranty_months: int
    specs: Mapping[str, Value]

    @property
    def text(self) -> str:
        """All facts, one a line."""
        stock: str = self.availability
        if self.units_left is not None:
            stock += f", {self.units_left} left"
        if self.expected_days is not None:
            stock += f", expected in {self.expected_days} days"
        head = [
            f"{self.name} ({self.category})",
            f"- price: {_usd(self.price_usd)}",
            f"- availability: {stock}",
            f"- warranty: {self.warranty_months} months",
        ]
        return "\n".join([*head, *_lines(self.specs)])


class ReturnPolicy(_Entry):
    """How products of one category are returned; rules for all categories are the topic `returns_general`."""

    category: str
    window_days: int
    """From delivery."""
    condition: str
    restocking_fee_percent: int
    """Of the price."""
    restocking_fee_when: str
    shipping_paid_by: Literal["shop", "customer"]
    return_shipping_usd: Decimal
    """0 where the shop pays."""
    refund_days: int
    """From arrival of the parcel until the money is sent."""
    process: str
    exceptions: str

    @property
    def text(self) -> str:
        """All facts, one a line."""
        fee = f"{self.restocking_fee_percent} %, if {self.restocking_fee_when}"
        paid = (
            "the shop pays" if self.shipping_paid_by == "shop" else f"{_usd(self.return_shipping_usd)}, customer pays"
        )
        return "\n".join(
            [
                f"Returns: {self.category}",
                f"- window: {self.window_days} days from delivery",
                f"- condition: {self.condition}",
                f"- restocking fee: {fee if self.restocking_fee_percent else 'none'}",
                f"- return shipping: {paid}",
                f"- refund: within {self.refund_days} days of the parcel's arrival",
                f"- how: {self.process}",
                f"- exceptions: {self.exceptions}",
            ]
        )


class Article(_Entry):
    """A support article: steps in the order in which to try them."""

    id: str
    title: str
    applies_to: tuple[str, ...]
    """Keys of products and categories."""
    keywords: tuple[str, ...]
    steps: tuple[str, ...]
    if_it_fails: str

    @property
    def text(self) -> str:
        """Title, numbered steps and the last resort."""
        steps = [f"{number}. {step}" for number, step in enumerate(self.steps, 1)]
        return "\n".join([self.title, *steps, f"If it does not help: {self.if_it_fails}"])


class Topic(_Entry):
    """What the shop says of itself on one matter: hours, shipping, payment, ..."""

    key: str
    title: str
    sections: Mapping[str, Mapping[str, Value]]
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Every section with its facts, then the notes."""
        parts = [self.title]
        for name, facts in self.sections.items():
            parts += [f"{name}:", *_lines(facts)]
        return "\n".join([*parts, *(f"- {note}" for note in self.notes)])


class WebPage(_Entry):
    """A page that a search of the web finds: facts of the world, not of the shop. The text names its source."""

    id: str
    title: str
    keywords: tuple[str, ...]
    text: str


class Shop(_Entry):
    """Everything that is true about the shop. Lists are in file order."""

    version: str
    name: str
    about: str
    categories: Mapping[str, str]
    """Key to what customers call it."""
    products: tuple[Product, ...]
    return_policies: tuple[ReturnPolicy, ...]
    support: tuple[Article, ...]
    topics: tuple[Topic, ...]
    web_pages: tuple[WebPage, ...]

    def product(self, key: str) -> Product:
        """One product.

        Raises:
            UnknownKey: there is none of that key.
        """
        return _of(self.products, "key", key, "product")

    def products_of(self, category: str) -> tuple[Product, ...]:
        """All products of a category.

        Raises:
            UnknownKey: there is no such category.
        """
        if category not in self.categories:
            raise _unknown("category", category, self.categories)
        return tuple(p for p in self.products if p.category == category)

    def return_policy(self, category: str) -> ReturnPolicy:
        """How products of a category are returned.

        Raises:
            UnknownKey: there is no such category.
        """
        return _of(self.return_policies, "category", category, "return policy")

    def article(self, id: str) -> Article:
        """One support article.

        Raises:
            UnknownKey: there is none of that id.
        """
        return _of(self.support, "id", id, "support article")

    def topic(self, key: str) -> Topic:
        """What the shop says of itself on one matter.

        Raises:
            UnknownKey: there is no such topic.
        """
        return _of(self.topics, "key", key, "topic")

    def web_page(self, id: str) -> WebPage:
        """One page of the web.

        Raises:
            UnknownKey: there is none of that id.
        """
        return _of(self.web_pages, "id", id, "web page")


def load_shop(path: Path | None = None) -> Shop:
    """The shop.

    Args:
        path: a JSON file of the same form; None: data/shop.json of this project.

    Raises:
        ConfigurationError: the file is missing, is not such a shop, or names a category it does not list.
    """
    path = path or PROJECT / "data" / "shop.json"
    advice = "Restore data/shop.json, or give the path of a file of the same form."
    try:
        shop = Shop.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.", advice=advice) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigurationError(f"{path.name} is not a shop: {where}: {first['msg']}.", advice=advice) from None
    for of, names in (
        ("product", [p.category for p in shop.products]),
        ("policy", [r.category for r in shop.return_policies]),
    ):
        for name in names:
            if name not in shop.categories:
                raise ConfigurationError(f"{path.name}: a {of} names the category {name!r}.", advice=advice)
    return shop


_T = TypeVar("_T", bound=BaseModel)


def _of(entries: Iterable[_T], field: str, key: str, what: str) -> _T:
    by_key = {str(getattr(entry, field)): entry for entry in entries}
    if key not in by_key:
        raise _unknown(what, key, by_key)
    return by_key[key]


def _unknown(what: str, key: str, known: Iterable[str]) -> UnknownKey:
    return UnknownKey(f"The shop has no {what} {key!r}.", advice=f"There are: {', '.join(known)}.")


def _lines(facts: Mapping[str, Value]) -> list[str]:
    return [f"- {_fact(name, value)}" for name, value in facts.items()]


def _fact(name: str, value: Value) -> str:
    """`battery_hours`, 17 -> "battery: 17 hours"; `esim`, True -> "esim: yes"."""
    if isinstance(value, bool):
        return f"{_words(name)}: {'yes' if value else 'no'}"
    stem, _, unit = name.rpartition("_")
    if stem and unit == "usd":
        return f"{_words(stem)}: {_usd(Decimal(value))}"
    if unit in UNITS and not isinstance(value, str):
        business = "business " if stem.endswith("_business") else ""
        return f"{_words(stem.removesuffix('_business'))}: {value} {business}{UNITS[unit]}"
    return f"{_words(name)}: {value}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _usd(amount: Decimal) -> str:
    """949 -> "$949", 5.9 -> "$5.90"."""
    return f"${amount:,.0f}" if amount == amount.to_integral_value() else f"${amount:,.2f}"
