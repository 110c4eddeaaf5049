"""Which entry of the shop's data a few words mean: the one of that name, or the ones whose texts share most with them."""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

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


def match(names: Mapping[str, tuple[str, ...]], asked: str) -> str | None:
    """The key one of whose names is `asked`, however it is spaced and hyphenated."""
    wanted = words(asked)
    return next((key for key, known in names.items() if any(words(name) == wanted for name in known)), None)


def words(text: str) -> list[str]:
    """The words of a text in small letters; what is between them does not matter."""
    text = unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("’", "")
    return re.findall(r"[^\W_]+", text)


def _stem(word: str) -> str:
    """English endings off, so that "charges" finds "charging"."""
    for ending in ("ing", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)].rstrip("e")
    return word.rstrip("e") if len(word) > 3 else word


def search(texts: Mapping[str, str], names: Mapping[str, tuple[str, ...]], query: str) -> Sequence[str]:
    """Keys of the best texts by BM25 (S. Robertson and H. Zaragoza, 2009), best first; a name finds its text alone.

    Words of one letter, and the commonest of English, count for nothing; a text without a common word is not found.
    """
    if (named := match(names, query)) is not None:
        return [named]
    bags, mean = _bags(tuple(texts.items()))
    score: dict[str, float] = {}
    for word in {_stem(w) for w in words(query) if len(w) > 1 and w not in COMMON}:
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
    bags = {key: Counter(map(_stem, words(text))) for key, text in texts}
    return bags, sum(bag.total() for bag in bags.values()) / len(bags)
