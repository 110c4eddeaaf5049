"""The shipped tickets: distinct, fairly split, well populated, and labelled as the data README says."""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import cohen_kappa_score

from workshop_lib import Category, Priority, load_labels, load_tickets
from workshop_lib.triage.datasets import SPLITS

DATA = Path(__file__).resolve().parents[2] / "data"
NEAR = 0.5
"""Jaccard overlap of five-letter groups above which two texts count as near-duplicates."""
HELD_OUT = ("calibration", "test", "workshop")
FIELDS = ("category", "priority", "needs_human")


@pytest.fixture(scope="module")
def labels():
    return load_labels()


@pytest.fixture(scope="module")
def texts():
    return {t.id: f"{t.subject}\n{t.body}" for t in load_tickets()}


@pytest.fixture(scope="module")
def rows():
    return [json.loads(line) for line in (DATA / "labels.jsonl").read_text(encoding="utf-8").splitlines()]


def plain(text):
    return re.sub(r"\W+", " ", text.lower()).strip()


def test_there_are_enough_tickets_in_every_split(labels):
    sizes = Counter(label.split for label in labels.values())
    assert set(sizes) == set(SPLITS)
    assert sizes["train"] >= 450
    assert sizes["calibration"] >= 100
    assert sizes["test"] >= 220
    assert sizes["workshop"] == 30


def test_every_text_is_distinct(texts):
    assert len({plain(text) for text in texts.values()}) == len(texts)


def test_no_two_splits_share_a_family(labels):
    splits_of = defaultdict(set)
    for label in labels.values():
        splits_of[label.family].add(label.split)
    assert all(len(splits) == 1 for splits in splits_of.values())


def test_no_text_has_a_near_duplicate_in_another_split(labels, texts):
    ids = list(texts)
    pieces = CountVectorizer(analyzer="char", ngram_range=(5, 5), binary=True, lowercase=False, dtype=np.float32)
    has = pieces.fit_transform([plain(texts[i]) for i in ids])
    sizes, split = np.asarray(has.sum(axis=1)).ravel(), np.array([labels[i].split for i in ids])
    held_out = np.flatnonzero(np.isin(split, HELD_OUT))
    shared = (has[held_out] @ has.T).toarray()
    overlap = shared / (sizes[held_out][:, None] + sizes - shared)
    near = np.argwhere((overlap > NEAR) & (split[held_out][:, None] != split))
    assert [(ids[held_out[i]], ids[j]) for i, j in near] == []


@pytest.mark.parametrize("split", SPLITS)
def test_every_class_is_well_populated(labels, split):
    some = [label for label in labels.values() if label.split == split]
    for classes, of in ((Category, "category"), (Priority, "priority")):
        counts = Counter(getattr(label, of) for label in some)
        least = 1 if split == "workshop" else len(some) / 25
        assert min(counts[c] for c in classes) >= least, counts
    assert 0.25 <= sum(label.needs_human for label in some) / len(some) <= 0.75


def test_urgent_implies_a_person(labels):
    assert all(label.needs_human for label in labels.values() if label.priority.is_urgent)


def test_all_customer_tiers_occur_and_none_moves_a_label(labels):
    tiers = defaultdict(Counter)
    for ticket in load_tickets():
        tiers[ticket.customer_tier][labels[ticket.id].priority.is_urgent] += 1
    shares = [counts[True] / counts.total() for counts in tiers.values()]
    assert len(shares) == 3
    assert max(shares) - min(shares) < 0.05


def test_every_style_occurs_in_the_test_split(labels):
    styles = Counter(label.style for label in labels.values() if label.split == "test")
    wanted = {"plain", "formal", "terse", "rambling", "angry", "non_native", "multi_issue", "misleading"}
    assert wanted | {"foreign_language", "instructs_the_model", "insulting"} <= set(styles)


def test_the_published_agreement_is_what_the_two_labellings_give(rows):
    page = (DATA / "README.md").read_text(encoding="utf-8")
    for split in ("train", "held-out"):
        some = [r for r in rows if (r["split"] == "train") == (split == "train")]
        for k, field in enumerate(FIELDS):
            kappa = cohen_kappa_score([str(r["first"][k]) for r in some], [str(r["second"][k]) for r in some])
            assert f"| {split} | {field} | {len(some)} | {kappa:.3f} |" in page


def test_every_disagreement_was_decided_with_a_note(rows):
    for row in rows:
        if row["first"] != row["second"]:
            assert row["note"], row["id"]
        else:
            assert [row[field] for field in FIELDS] == row["first"]


def test_the_data_readme_describes_every_file():
    page = (DATA / "README.md").read_text(encoding="utf-8")
    assert not [p.name for p in DATA.iterdir() if p.name != "README.md" and f"`{p.name}`" not in page]
