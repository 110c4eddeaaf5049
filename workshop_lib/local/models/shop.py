"""What a small model does with a shop question: label, tools with arguments, answer.

* **cheap** reads the whole message once, by its words alone (TF-IDF). One look-up at most; it quotes what shares words with the question.
* **strong** also reads each part of the message by itself, and by meaning (MiniLM) and groups of letters. Several look-ups; it quotes more.

Both learn from the split `train` of questions.jsonl (`few_shot`, if there is no `train`) and from the entries of shop.json, by ridge
regression; no other split is looked at. They are real models with real errors, but not language models: definitions and examples in a
prompt do not change what they answer, and what they say is quoted from the tools' results.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workshop_lib.embedding import Embedder
from workshop_lib.local.models.speech import sentences
from workshop_lib.local.models.trained import letter_groups, one_at_a_time, read_arrays, word_groups, write_arrays
from workshop_lib.shop.facts import Shop, load_shop
from workshop_lib.shop.questions import LABELS, TOOLS, Question, load_questions, says
from workshop_lib.shop.tools import FORMS

Matrix = npt.NDArray[np.float32]
Lookup = tuple[str, str]
"""Tool, and key of an entry of the shop."""
ARGUMENTS: Mapping[str, str] = {name: form.argument for name, form in FORMS.items()}
"""The one argument of each of the shop's tools."""
JOINT, LINES = 1.0, 1.0
"""Weight of the likeliest entry in the choice of a tool, and of the lines that examples quote in the choice of what is quoted."""
RIDGE = 0.2
"""Regularisation."""
LEAST = 3
"""Known texts that a group of letters must stand in to count."""
HEADS = ("label", "tools", "lines", "entries")
"""What is learned: simple or complex; tools; which lines of a result are wanted; entries."""
RECIPE = "2"
"""Changes when features or fitting change, so that no stale cache is used."""
SHARPNESS = 6.0
"""From scores to probabilities, for samples above temperature 0."""
SEVERAL, SECOND = 0.7, 0.45
"""Strong: the score from which a further tool, and a further entry of one tool, is looked up as well."""
PARTS = 6
"""Strong: parts of a message that are read one by one; of a long story the last ones, where the question is."""
WORDS = {"cheap": 60, "strong": 120}
"""Words quoted from results at most."""
MOST_PRODUCTS = 4
"""Products that are looked up one by one at most."""
NO_LOOKUP = ("greeting", "out_of_scope", "empty")
HELP = "I can look up products, return rules and store information, and help with devices."


@dataclass(frozen=True)
class Piece:
    """A line or sentence of a result."""

    entry: int
    """Which of the entries in the results it belongs to."""
    title: str
    section: str
    text: str
    step: bool

    @property
    def name(self) -> str:
        """Of a fact, what stands before its colon."""
        name, colon, _ = self.text.partition(": ")
        return name if colon and not self.step else ""

    @property
    def meaning(self) -> str:
        """What it is about, to be embedded."""
        return f"{self.section} {self.name or self.text}"


class ShopModel:
    """The pair, for the shop. Safe to share between threads."""

    def __init__(
        self, shop: Shop, examples: Sequence[Question], embedder: Embedder, kept: Mapping[str, Matrix]
    ) -> None:
        """
        Args:
            examples: what is learned from, beside the shop itself.
            kept: embeddings of `known_texts` as "vectors"; and, if they were fitted before, the heads as `learned` gives them.
        """
        self._shop, self._embedder = shop, embedder
        self._names = {_plain(name): key for key, name in _product_names(shop)}
        longest_first = sorted(map(re.escape, self._names), key=len, reverse=True)
        self._any_name = re.compile(rf"(?<![a-z0-9])({'|'.join(longest_first)})s?(?![a-z0-9])")
        self._titles = _titles(shop)
        described = _descriptions(shop)
        self._entries = list(described)
        texts = [q.text for q in examples]
        known = known_texts(shop, examples)
        meaning = Meaning(embedder, known, kept["vectors"])
        masked = [self._masked(text) for text in known]
        cheap = Manner(
            Views([(Counted(phrases_of, masked), self._masked)]),
            Views([(Counted(words_of, known), str), (Counted(letters_of, known, least=LEAST), str)]),
        )
        strong = Manner(
            Views(
                [
                    (meaning, str),
                    (Counted(phrases_of, masked), self._masked),
                    (Counted(letters_of, masked, least=LEAST), self._masked),
                ]
            ),
            Views([(meaning, str), (Counted(phrases_of, known), str), (Counted(letters_of, known, least=LEAST), str)]),
        )
        self._manners = {"cheap": cheap, "strong": strong}
        held = [{(t, k) for t, keys in q.keys.items() for k in keys} for q in examples]
        of_entry = _hot([*held, *({entry} for entry in self._entries)], self._entries)
        wanted = [{*(q.tools or [_no_lookup(q)]), *(() if q.language == "en" else ("foreign",))} for q in examples]
        of_tool = _hot([*wanted, *({tool} for tool, _ in self._entries)], (*TOOLS, *NO_LOOKUP, "foreign"))
        told = [self._telling_lines(q) for q in examples]
        self._lines = {name: i for i, name in enumerate(sorted(set().union(*told)))}
        of_line = _hot(told, list(self._lines))
        forms = np.vstack([self._form(text) for text in texts])
        for name, manner in self._manners.items():
            if f"{name}/tools/weights" in kept:
                manner.heads = {
                    head: Ridge(kept[f"{name}/{head}/weights"], kept[f"{name}/{head}/base"]) for head in HEADS
                }
                continue
            rows, subjects = manner.task.rows(known), manner.subject.rows(known)
            kernel, n = products(rows), len(texts)
            manner.heads = {
                "label": fit(
                    np.hstack([rows[:n], forms]),
                    kernel[:n, :n] + forms @ forms.T,
                    _hot([{q.label} for q in examples], LABELS),
                ),
                "tools": fit(rows, kernel, of_tool, of_tool[:n].mean(axis=0)),
                "lines": fit(rows[:n], kernel[:n, :n], of_line),
                "entries": fit(subjects, products(subjects), of_entry, np.zeros(len(self._entries), np.float32)),
            }
        of_product = [(word, key) for name, key in self._names.items() for word in words_of(name)]
        of_category = [(word, key) for key, label in shop.categories.items() for word in words_of(f"{key} {label}")]
        self._nicknames, self._kinds = (self._learned_words(w, examples) for w in (of_product, of_category))

    def learned(self) -> dict[str, Matrix]:
        """The fitted heads, to be kept."""
        return {
            f"{name}/{head}/{part}": getattr(ridge, part)
            for name, manner in self._manners.items()
            for head, ridge in manner.heads.items()
            for part in ("weights", "base")
        }

    def label(self, manner: str, text: str) -> dict[str, float]:
        """simple and complex to their probabilities."""
        model = self._of(manner)
        scores = model.heads["label"](np.hstack([model.task(text), self._form(text)]))
        odds = np.exp(SHARPNESS * (scores - scores.max()))
        return dict(zip(LABELS, map(float, odds / odds.sum()), strict=True))

    def lookups(self, manner: str, text: str, offered: Iterable[str] = TOOLS, *, must: bool = False) -> list[Lookup]:
        """What to look up, likeliest tool first; none for a greeting and the like.

        Args:
            offered: the tools that may be called.
            must: at least one.
        """
        model, offered = self._of(manner), list(offered)
        parts = [text] if manner == "cheap" else [text, *parts_of(text)]
        tools = np.vstack([model.heads["tools"](model.task(part)) for part in parts])
        tools = (tools[0] + tools.max(axis=0)) / 2
        idle = tools[len(TOOLS) : -1].sum() > tools[: len(TOOLS)].max() or not words_of(text)
        entries = np.vstack([model.heads["entries"](model.subject(part)) for part in parts])
        likely = (entries[0] + entries.max(axis=0)) / 2
        for i, tool in enumerate(TOOLS):
            of = [j for j, (t, _) in enumerate(self._entries) if t == tool]
            tools[i] += JOINT * likely[of].max()
        scored = dict(zip(TOOLS, map(float, tools), strict=False))
        ranked = sorted((t for t in scored if t in offered), key=scored.__getitem__, reverse=True)
        if not ranked or (idle and not must):
            return []
        named = self.named(text, nicknames=True)
        chosen = ranked[:1]
        if manner != "cheap":
            chosen += [t for t in ranked[1:] if scored[t] >= SEVERAL and (named or t != "product_info")]
        found: list[Lookup] = [(tool, key) for tool in chosen for key in self._keys(manner, tool, text, named, entries)]
        return found[:1] if manner == "cheap" else found

    def _keys(self, manner: str, tool: str, text: str, named: Sequence[str], entries: Matrix) -> list[str]:
        """Entries of one tool that the text asks about; `entries` are the scores of the whole text and of its parts."""
        if tool == "product_info" and named:
            return list(named[:MOST_PRODUCTS])
        kinds = {self._shop.product(key).category for key in named}
        kinds = kinds or {self._kinds[word] for word in words_of(text) if word in self._kinds}
        if tool == "return_policy" and named:
            return sorted(kinds)[:2]
        mine = [i for i, (t, key) in enumerate(self._entries) if t == tool and self._fits(t, key, named, kinds)]
        mine = mine or [i for i, (t, _) in enumerate(self._entries) if t == tool]
        if tool == "product_info":  # no product is named: a whole category
            mine = [i for i in mine if self._entries[i][1] in self._shop.categories]
        keys = [self._entries[i][1] for i in mine]
        most = entries[:, mine].max(axis=0)
        chosen = [keys[int((entries[0, mine] + most).argmax())]]
        if manner != "cheap" and tool == "store_info":
            chosen += [k for k, s in zip(keys, most, strict=True) if s >= SECOND and k not in chosen][:1]
        return chosen

    def _fits(self, tool: str, key: str, named: Sequence[str], kinds: set[str]) -> bool:
        """Whether an entry may be about the products that are named, or about the kinds of products."""
        if not kinds or tool in ("store_info", "web_search"):
            return True
        if tool != "tech_support":
            return key in kinds
        of = {*self._shop.article(key).applies_to}
        if named:
            return bool(of & {*named, *kinds})
        return bool(kinds & {k if k in self._shop.categories else self._shop.product(k).category for k in of})

    def argument(self, lookup: Lookup) -> str:
        """What the tool is given: a key, or the title of what is searched for."""
        return self._titles.get(lookup, lookup[1])

    def named(self, text: str, *, nicknames: bool = False) -> list[str]:
        """Keys of the products that a text names, in its order; "Wren 5 Plus" does not name the Wren 5.

        Args:
            nicknames: a word that only one product's name has will do ("the fold"), if the examples do not mean else by it.
        """
        plain, found = _plain(text), dict[str, int]()
        for match in self._any_name.finditer(plain):
            found.setdefault(self._names[match[1]], match.start())
        left = self._any_name.sub(" ", plain)
        if nicknames:
            words = set(words_of(left))
            known = self._nicknames.items()
            found |= {key: plain.find(word) for word, key in known if word in words and key not in found}
        return sorted(found, key=found.__getitem__)

    def _telling_lines(self, question: Question) -> set[str]:
        """Names of the lines of its entries that say one of an example's facts."""
        pieces = [
            piece
            for tool, keys in question.keys.items()
            for key in keys
            for piece in pieces_of(entry_text(self._shop, (tool, key)), 0)
        ]
        spelled = [spelling for fact in question.facts for spelling in fact]
        return {p.name for p in pieces if any(says(p.text, spelling) for spelling in spelled)} - {""}

    def _learned_words(self, words: Sequence[tuple[str, str]], examples: Sequence[Question]) -> dict[str, str]:
        """Words that stand for one key alone, unless the examples mostly mean something else by them."""
        keys: dict[str, set[str]] = {}
        for word, key in words:
            keys.setdefault(word, set()).add(key)
        meant: dict[str, list[bool]] = {}
        for q in examples:
            held = {key for of in q.keys.values() for key in of}
            held |= {
                self._shop.product(key).category
                for key in q.keys.get("product_info", ())
                if key not in self._shop.categories
            }
            for word in keys.keys() & set(words_of(self._masked(q.text))):
                meant.setdefault(word, []).append(bool(held & keys[word]))
        return {
            word: min(of)
            for word, of in keys.items()
            if len(of) == 1
            and len(word) > 2
            and word.isalpha()
            and 2 * sum(meant.get(word, [True])) >= len(meant.get(word, [True]))
        }

    def _masked(self, text: str) -> str:
        """The text without the names of products and the figures: what is asked, not of what."""
        return re.sub(r"\d[\d.,]*", "number", self._any_name.sub("productname", _plain(text)))

    def _form(self, text: str) -> Matrix:
        """Counts that tell a long task from a short one, whatever the words."""
        low = text.lower()
        words = re.findall(r"\w+", low)
        counts = (
            len(re.findall(r"[?？]", low)),
            len(re.findall(r"\b(?:and|or|vs|versus|und|oder|et|ou|y|o|e|en|of)\b|[;&]", low)) / 2,
            len(re.findall(r"\b(?:\w+er|better|best|more|most|than|between|difference|compare\w*|which)\b", low)) / 2,
            len(re.findall(r"\d+", low)) / 3,
            min(len(words), 100) / 50,
            min(len(self.named(text)), 3) - 1,
            len(re.findall(r"\b(?:not|no|never|won|doesn|don|isn|can|cannot)\b", low)) / 2,
        )
        return np.asarray(np.minimum(counts, 2) / 4, np.float32)

    def _near(self, manner: str, text: str, pieces: Sequence[Piece]) -> Matrix:
        """How near each piece is to the question, or to the part of it that it is nearest to."""
        told = [f"{p.section} {p.text}" for p in pieces]
        parts = [text] if manner == "cheap" else [text, *parts_of(text)]
        near = _overlap(parts, told)
        if manner != "cheap":
            meant = [self._embedder.embed([p.meaning]) for p in pieces]  # one by one: they are kept
            near += self._embedder.embed(parts) @ np.vstack(meant).T
        lines = self._of(manner).heads["lines"](self._of(manner).task(text))
        near += LINES * np.array(
            [lines[self._lines[p.name]] if p.name in self._lines else 0 for p in pieces], np.float32
        )
        nearest: Matrix = (near[0] + near.max(axis=0)) / np.float32(2)
        return nearest

    def _of(self, manner: str) -> Manner:
        return self._manners["cheap" if manner == "cheap" else "strong"]

    def reply(self, manner: str, text: str) -> str:
        """The answer to a message that needs no look-up."""
        model = self._of(manner)
        scores = dict(zip((*TOOLS, *NO_LOOKUP), map(float, model.heads["tools"](model.task(text))[:-1]), strict=True))
        kind = max(NO_LOOKUP, key=scores.__getitem__)
        if kind == "greeting":
            thanks = re.search(r"thank|thx|merci|danke|gracias|grazie|obrigad", text.lower())
            return f"{'You are welcome!' if thanks else 'Hello!'} {HELP} What would you like to know?"
        if kind == "empty":
            return (
                f"I am not sure yet what you need. {HELP} Which product is it about, and what would you like to know?"
            )
        return f"I am sorry, that is not something that I can help with here. {HELP}"

    def answer(self, manner: str, text: str, results: Sequence[tuple[str, bool]]) -> str:
        """An answer out of the tools' results.

        Args:
            results: text, and whether the tool failed.
        """
        model = self._of(manner)
        failed = [first_sentence(said) for said, error in results if error]
        pieces = [p for i, (said, error) in enumerate(results) if not error for p in pieces_of(said, i)]
        said = []
        if pieces:
            said += quoted(
                pieces,
                self._near(manner, text, pieces),
                WORDS["cheap" if manner == "cheap" else "strong"],
                terse=manner == "cheap",
            )
        if failed:
            said.append(f"I could not look everything up: {' '.join(failed)}")
        if float(model.heads["tools"](model.task(text))[-1]) > 0.5:
            said.append("(I answer in English.)")
        return "\n".join(said) or f"The look-up found nothing. {HELP}"


class Views:
    """Several ways to see a text, side by side, as one row of unit length."""

    def __init__(self, views: Sequence[tuple[Callable[[str], Matrix], Callable[[str], str]]]) -> None:
        self._views = views

    def __call__(self, text: str) -> Matrix:
        """The features of a text."""
        row: Matrix = np.concatenate([view(of(text)) for view, of in self._views])
        return row / np.float32(math.sqrt(len(self._views)))

    def rows(self, texts: Sequence[str]) -> Matrix:
        """The features of each."""
        return np.vstack([self(text) for text in texts])


@dataclass
class Manner:
    """How one of the pair sees a text, and what it has learned."""

    task: Views
    """What is asked: products and figures do not count."""
    subject: Views
    """What it is about."""
    heads: dict[str, Ridge] = field(default_factory=dict)
    """By what they say, see HEADS."""


class Meaning:
    """MiniLM vectors, seen from their center: what all texts have in common says nothing."""

    def __init__(self, embedder: Embedder, texts: Sequence[str], vectors: Matrix) -> None:
        self._embedder = embedder
        self._center = vectors.mean(axis=0)
        self._known = dict(zip(texts, vectors, strict=True))

    def __call__(self, text: str) -> Matrix:
        """A unit vector."""
        vector = self._known.get(text)
        moved: Matrix = (self._embedder.embed([text])[0] if vector is None else vector) - self._center
        return moved / max(float(np.linalg.norm(moved)), 1e-9)


class Counted:
    """TF-IDF of the pieces that the known texts have, of unit length."""

    def __init__(self, pieces: Callable[[str], list[str]], texts: Sequence[str], *, least: int = 1) -> None:
        """
        Args:
            least: texts that a piece must stand in to be known.
        """
        self._pieces = pieces
        seen = Counter(piece for text in texts for piece in set(pieces(text)))
        kept = sorted(piece for piece, n in seen.items() if n >= least)
        self._columns = {piece: i for i, piece in enumerate(kept)}
        counts = np.array([seen[piece] for piece in self._columns], np.float32)
        self._idf = (np.log((1 + len(texts)) / (1 + counts)) + 1).astype(np.float32)

    def __call__(self, text: str) -> Matrix:
        """A unit vector; 0 if no piece is known."""
        row = np.zeros(len(self._columns), np.float32)
        for piece, count in Counter(self._pieces(text)).items():
            if piece in self._columns:
                row[self._columns[piece]] = 1 + math.log(count)
        row *= self._idf
        return row / max(float(np.linalg.norm(row)), 1e-9)


class Ridge:
    """Ridge regression on 0/1 targets, several at once."""

    def __init__(self, weights: Matrix, base: Matrix) -> None:
        self.weights, self.base = weights, base

    def __call__(self, row: Matrix) -> Matrix:
        """A score a target, 0 to 1 more or less."""
        used = np.flatnonzero(row)
        scores: Matrix = row[used] @ self.weights[used] + self.base
        return scores


def fit(rows: Matrix, kernel: Matrix, targets: Matrix, base: Matrix | None = None) -> Ridge:
    """Solved in the space of the examples, of which there are fewer than features. `base` is the score of a text that shows nothing."""
    base = targets.mean(axis=0) if base is None else base
    damped = kernel + np.float32(RIDGE) * np.eye(len(rows), dtype=np.float32)
    return Ridge(rows.T @ np.linalg.solve(damped, targets - base).astype(np.float32), base)


def products(rows: Matrix) -> Matrix:
    """rows @ rows.T. A column that one row alone has counts for the diagonal only, and those are most."""
    shared = rows[:, np.count_nonzero(rows, axis=0) > 1]
    kernel: Matrix = shared @ shared.T
    kernel[np.diag_indices(len(rows))] = (rows**2).sum(axis=1)
    return kernel


def learn(embedder: Embedder, *, data_dir: Path, cache_dir: Path) -> ShopModel:
    """The pair, from the split `train`, or `few_shot` if there is none. What was fitted is kept in `cache_dir`.

    Raises:
        ConfigurationError: the shop or its questions cannot be read.
    """
    file = data_dir / "questions.jsonl"
    train = load_questions("train", path=file) or load_questions("few_shot", path=file)
    shop = load_shop(data_dir / "shop.json")
    data = json.dumps([RECIPE, shop.model_dump(mode="json"), [q.model_dump(mode="json") for q in train]])
    cache = cache_dir / f"shop-{hashlib.sha256(data.encode()).hexdigest()[:16]}.npz"
    with one_at_a_time(cache):
        kept = read_arrays(cache)
        if kept is not None:
            return ShopModel(shop, train, embedder, kept)
        kept = {"vectors": embedder.embed(known_texts(shop, train))}
        model = ShopModel(shop, train, embedder, kept)
        write_arrays(cache, kept | model.learned())
    return model


def known_texts(shop: Shop, examples: Sequence[Question]) -> list[str]:
    """All that the pair learns from: the examples, then a description of each entry of the shop."""
    return [*(q.text for q in examples), *_descriptions(shop).values()]


def quotable_texts(shop: Shop) -> list[str]:
    """What each piece of each entry is about."""
    pieces = [piece for lookup in _descriptions(shop) for piece in pieces_of(entry_text(shop, lookup), 0)]
    return list(dict.fromkeys(piece.meaning for piece in pieces))


def asks_label(system: str) -> bool:
    """Whether a system prompt defines our two labels, each on a line of its own: a classification is asked for."""
    return all(re.search(rf"^\W*{label}\W*:", system, re.M | re.I) for label in LABELS)


def is_tool(tool: Mapping[str, Any]) -> bool:
    """Whether a toolSpec is one of the shop's, by its name and argument."""
    return tool["name"] in ARGUMENTS and bool(form_of(tool))


def form_of(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of the argument of one of the shop's tools; empty if it has none of that name."""
    schema = tool["inputSchema"].get("json")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    form = properties.get(ARGUMENTS[tool["name"]]) if isinstance(properties, Mapping) else None
    return form if isinstance(form, Mapping) else {}


def last_question(messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[tuple[str, bool]]]:
    """What the customer asked last, and what tools have said since: text, and whether the tool failed."""
    asked, results = "", list[tuple[str, bool]]()
    for message in messages:
        found = [block["toolResult"] for block in message["content"] if "toolResult" in block]
        texts = [block["text"] for block in message["content"] if "text" in block]
        if message["role"] == "user" and texts and not found:
            asked, results = "\n".join(texts), []
        results += [(_result_text(r), r.get("status") == "error") for r in found]
    between = re.search(r"<question>(.*)</question>", asked, re.S)
    return (between[1] if between else asked).strip(), results


def _result_text(result: Mapping[str, Any]) -> str:
    return "\n".join(
        block["text"] if "text" in block else json.dumps(block["json"], ensure_ascii=False)
        for block in result["content"]
        if "text" in block or "json" in block
    )


def _overlap(some: Sequence[str], others: Sequence[str]) -> Matrix:
    """How many words texts share, one that many of `others` have weighing less. Shape (some, others)."""
    bags = [set(words_of(text)) for text in others]
    seen = Counter(word for bag in bags for word in bag)
    weight = {word: math.log(1 + len(bags) / n) ** 2 for word, n in seen.items()}
    size = [math.sqrt(sum(weight[word] for word in bag)) or 1.0 for bag in bags]
    asked = [set(words_of(text)) & set(seen) for text in some]
    shared = [[sum(weight[w] for w in a & bag) / n for bag, n in zip(bags, size, strict=True)] for a in asked]
    return np.array(shared, np.float32).reshape(len(some), len(others))


def entry_text(shop: Shop, lookup: Lookup) -> str:
    """What the shop's data says under a key."""
    tool, key = lookup
    if tool == "product_info":
        return "\n\n".join(p.text for p in (shop.products_of(key) if key in shop.categories else [shop.product(key)]))
    if tool == "return_policy":
        return shop.return_policy(key).text
    if tool == "tech_support":
        return shop.article(key).text
    return shop.topic(key).text if tool == "store_info" else shop.web_page(key).text


def parts_of(text: str) -> list[str]:
    """A message in parts that may each ask something of its own."""
    pieces = [
        part.strip(" ,")
        for sentence in sentences(text)
        for part in re.split(r"[;？]|,? (?:and|or|und|et|y|e|also|plus) |, ", sentence)
    ]
    return [p for p in pieces if len(p.split()) > 1][-PARTS:]


def pieces_of(result: str, number: int) -> list[Piece]:
    """A result in lines or sentences, each with the title of its entry and the heading that it stands under."""
    found = []
    for i, block in enumerate(re.split(r"\n\s*\n", result.strip())):
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        title, section = (lines[0], "") if len(lines) > 1 else ("", "")
        for line in lines[1:] if title else lines:
            if line.endswith(":") and not line.startswith("-"):
                section = line
                continue
            step = re.match(r"\d+\. |If it does not help", line) is not None
            said = [line.removeprefix("- ")] if step or line.startswith("-") else sentences(line)
            found += [Piece(100 * number + i, title, section, s, step) for s in said]
    return found


def quoted(pieces: Sequence[Piece], near: Matrix, words: int, *, terse: bool = False) -> list[str]:
    """The nearest pieces of every result, in their own order, within a number of words."""
    results = sorted({p.entry // 100 for p in pieces})
    said = []
    for result in results:
        mine = [i for i, p in enumerate(pieces) if p.entry // 100 == result]
        best = pieces[max(mine, key=lambda i: near[i])]
        if best.step or any(pieces[i].step for i in mine):  # one article, not a mixture of several
            first = min(pieces[i].entry for i in mine)
            mine = [i for i in mine if pieces[i].entry == first]
        chosen: list[int] = []
        left = words // len(results)
        if terse and any(pieces[i].step for i in mine):
            left = left * 2 // 3
        for i in sorted(mine, key=lambda i: -near[i]):
            cost = len(f"{pieces[i].section} {pieces[i].text}".split())
            if cost <= left or not chosen:
                chosen.append(i)
                left -= cost
        said += _told([pieces[i] for i in sorted(chosen)])
    return said


def _told(pieces: Sequence[Piece]) -> list[str]:
    """Pieces of one result as text: steps one a line, facts of one section on a line."""
    lines: list[str] = []
    entry, section = -1, ""
    for p in pieces:
        if p.entry != entry:
            entry, section = p.entry, ""
            lines.append(f"{p.title}:" if p.title else "")
        if p.step:
            lines.append(p.text)
            continue
        if p.section != section:
            section = p.section
            lines[-1] += f" {p.section}"
        lines[-1] += f" {p.text}" if lines[-1].endswith((":", ".")) or not lines[-1] else f"; {p.text}"
    return [line.strip() for line in lines]


def first_sentence(text: str) -> str:
    """What an error says first."""
    return sentences(text)[0][:200]


def words_of(text: str) -> list[str]:
    """Words, without the s of a plural."""
    return [w.removesuffix("s") if len(w) > 3 else w for w in word_groups(_plain(text), (1, 1))]


def phrases_of(text: str) -> list[str]:
    """Words and pairs of words."""
    return word_groups(_plain(text), (1, 2))


def letters_of(text: str) -> list[str]:
    """Groups of letters."""
    return letter_groups(_plain(text), (3, 5))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).lower().replace("’", "'").split())


def _hot(held: Sequence[Iterable[object]], of: Sequence[object]) -> Matrix:
    sets = [set(h) for h in held]
    return np.array([[value in has for value in of] for has in sets], np.float32).reshape(len(sets), len(of))


def _no_lookup(question: Question) -> str:
    return (
        question.kind
        if question.kind in ("greeting", "empty")
        else "empty"
        if question.kind == "ambiguous"
        else "out_of_scope"
    )


def _product_names(shop: Shop) -> list[tuple[str, str]]:
    """Keys and names as customers say them: "Ember 65", not "Ember 65 Charger"."""
    tails = r" (?:Charger|Keyboard|Mouse|4-pack|240 W)$|(?<=Dock) 11$|[()]"
    return [(p.key, re.sub(tails, "", p.name)) for p in shop.products]


def _titles(shop: Shop) -> dict[Lookup, str]:
    """Of entries that are found by search, the words to search for."""
    return {("tech_support", a.id): a.title for a in shop.support} | {
        ("web_search", p.id): f"{p.title} {' '.join(p.keywords)}" for p in shop.web_pages
    }


def _descriptions(shop: Shop) -> dict[Lookup, str]:
    """Every entry that can be looked up, and words about it."""
    called = {
        key: " ".join([label, *(f"{p.name} {p.specs.get('kind', '')}" for p in shop.products_of(key))])
        for key, label in shop.categories.items()
    }
    return {
        **{
            (
                "return_policy",
                p.category,
            ): f"return {called[p.category]}, send back {p.category}, refund, restocking fee"
            for p in shop.return_policies
        },
        **{("product_info", p.key): f"{p.name}, {p.category}: price, {', '.join(p.specs)}" for p in shop.products},
        **{("product_info", key): f"all {label}: which {key} do you sell" for key, label in called.items()},
        **{
            ("tech_support", a.id): f"{a.title}: {', '.join(a.keywords)}. {' '.join(a.applies_to)}"
            for a in shop.support
        },
        **{
            (
                "store_info",
                t.key,
            ): f"{t.title}: {', '.join([*t.sections, *(n for s in t.sections.values() for n in s)])}. {' '.join(t.notes)}".replace(
                "_", " "
            )
            for t in shop.topics
        },
        **{("web_search", p.id): f"{p.title}: {', '.join(p.keywords)}. {p.text}" for p in shop.web_pages},
    }
