"""The shipped shop and its questions: consistent, distinct, fairly split, and labelled as the data README says."""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import cohen_kappa_score

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.shop import TOOLS, UnknownKey, load_questions, load_shop
from workshop_lib.shop.questions import LABELS, SPLITS, says

DATA = Path(__file__).resolve().parents[2] / "data"
NEAR = 0.5
"""Jaccard overlap of five-letter groups above which two texts count as near-duplicates."""
LARGE = ("train", "calibration", "test")
"""The splits that something is learned, tuned or scored on."""
KINDS = {
    *("plain", "ambiguous", "multi_part", "negated", "adversarial", "foreign"),
    *("terse", "rambling", "empty", "greeting", "out_of_scope", "unanswerable"),
}


COUNTED = {"2": "two", "14": "fourteen"}
"""Numbers of pieces that customers write as words."""


@pytest.fixture(scope="module")
def shop():
    return load_shop()


@pytest.fixture(scope="module")
def questions():
    return load_questions()


def plain(text):
    return re.sub(r"\W+", " ", text.lower()).strip()


def entries(shop, tool, key):
    """What the tool finds under the key, as text."""
    if tool == "product_info":
        found = shop.products_of(key) if key in shop.categories else (shop.product(key),)
        return "\n".join(product.text for product in found)
    one = {
        "return_policy": shop.return_policy,
        "tech_support": shop.article,
        "store_info": shop.topic,
        "web_search": shop.web_page,
    }
    return one[tool](key).text


def known_to(shop, question):
    return "\n".join(entries(shop, tool, key) for tool, keys in question.keys.items() for key in keys)


def numbers(text):
    return re.findall(r"\d+(?:\.\d+)?", text)


def worked_out(question):
    return eval(question.working)


def test_every_category_has_several_products_and_one_return_policy(shop):
    assert len(shop.products) >= 30
    assert len(shop.categories) >= 5
    assert all(len(shop.products_of(category)) >= 3 for category in shop.categories)
    assert sorted(policy.category for policy in shop.return_policies) == sorted(shop.categories)


def test_no_key_occurs_twice(shop):
    for keys in (
        [p.key for p in shop.products],
        [p.name for p in shop.products],
        [a.id for a in shop.support],
        [t.key for t in shop.topics],
        [w.id for w in shop.web_pages],
    ):
        assert len(set(keys)) == len(keys)


def test_support_articles_concern_products_and_categories_that_exist(shop):
    known = {p.key for p in shop.products} | set(shop.categories)
    assert len(shop.support) >= 24
    assert not [(a.id, key) for a in shop.support for key in a.applies_to if key not in known]
    assert all(article.steps and article.keywords and article.if_it_fails for article in shop.support)


def test_an_expected_day_is_given_just_where_something_is_on_its_way(shop):
    for product in shop.products:
        awaited = product.availability in ("out of stock", "pre-order")
        assert (product.expected_days is not None) == awaited, product.key


def test_who_pays_the_return_agrees_with_what_it_costs(shop):
    for policy in shop.return_policies:
        assert (policy.return_shipping_usd == 0) == (policy.shipping_paid_by == "shop"), policy.category
        assert (policy.restocking_fee_percent == 0) == (policy.restocking_fee_when == "never"), policy.category


def test_no_two_categories_share_a_return_window_or_a_refund_time(shop):
    """Else an answer from the wrong policy could pass for a right one."""
    for field in ("window_days", "refund_days"):
        values = [getattr(policy, field) for policy in shop.return_policies]
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("look_up", ["product", "products_of", "return_policy", "article", "topic", "web_page"])
def test_an_unknown_key_is_an_error_that_lists_the_known_ones(shop, look_up):
    with pytest.raises(UnknownKey, match=r"has no .* 'toasters'\. There are: \w+"):
        getattr(shop, look_up)("toasters")


def test_a_file_that_is_no_shop_is_a_clear_error(tmp_path):
    path = tmp_path / "shop.json"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_shop(path)
    path.write_text("{}")
    with pytest.raises(ConfigurationError, match="is not a shop: version"):
        load_shop(path)
    broken = json.loads((DATA / "shop.json").read_text(encoding="utf-8"))
    broken["products"][0]["category"] = "toasters"
    path.write_text(json.dumps(broken))
    with pytest.raises(ConfigurationError, match="a product names the category 'toasters'"):
        load_shop(path)


def test_a_line_that_is_no_question_is_named_by_its_number(tmp_path):
    path = tmp_path / "questions.jsonl"
    line = (DATA / "questions.jsonl").read_text(encoding="utf-8").splitlines()[0]
    path.write_text(line + "\n" + line.replace('"label": "simple"', '"label": "medium"'), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="line 2 is not a question: label"):
        load_questions(path=path)
    with pytest.raises(ConfigurationError, match="no split 'practice'"):
        load_questions("practice")


def test_there_are_enough_questions_in_every_split(questions):
    sizes = Counter(q.split for q in questions)
    assert set(sizes) == set(SPLITS)
    assert sizes["demo"] == 5
    assert sizes["few_shot"] == 12
    assert sizes["train"] >= 500
    assert sizes["calibration"] >= 75
    assert sizes["test"] >= 150


def test_the_demo_is_three_simple_and_two_complex_questions():
    demo = load_questions("demo")
    assert [q.label for q in demo] == ["simple"] * 3 + ["complex"] * 2
    assert [q.tools for q in demo] == [
        ("return_policy",),
        ("product_info",),
        (),
        ("tech_support",),
        ("product_info", "return_policy"),
    ]


def test_the_few_shot_examples_are_balanced():
    assert Counter(q.label for q in load_questions("few_shot")) == dict.fromkeys(LABELS, 6)


def test_every_id_and_every_text_is_distinct(questions):
    assert len({q.id for q in questions}) == len(questions)
    assert len({plain(q.text) or q.text for q in questions}) == len(questions)


def test_no_two_splits_share_a_family(questions):
    splits_of = defaultdict(set)
    for question in questions:
        splits_of[question.family].add(question.split)
    assert all(len(splits) == 1 for splits in splits_of.values())


def test_the_training_questions_have_families_of_their_own_name(questions):
    for question in questions:
        assert question.family.startswith("t-") == (question.split == "train"), question.id


def test_no_text_has_a_near_duplicate_in_another_split(questions):
    pieces = CountVectorizer(analyzer="char", ngram_range=(5, 5), binary=True, lowercase=False, dtype=np.float32)
    has = pieces.fit_transform([plain(q.text) for q in questions])
    sizes, split = np.asarray(has.sum(axis=1)).ravel(), np.array([q.split for q in questions])
    shared = (has @ has.T).toarray()
    overlap = shared / np.maximum(sizes[:, None] + sizes - shared, 1)
    near = np.argwhere((overlap > NEAR) & (split[:, None] != split))
    assert [(questions[i].text, questions[j].text) for i, j in near] == []


@pytest.mark.parametrize("split", LARGE)
def test_labels_and_kinds_are_well_populated(questions, split):
    some = [q for q in questions if q.split == split]
    assert 0.5 <= sum(q.label == "simple" for q in some) / len(some) <= 0.6
    assert {q.kind for q in some} == KINDS
    for kind in ("plain", "ambiguous", "negated", "adversarial", "foreign", "terse", "rambling", "unanswerable"):
        assert {q.label for q in some if q.kind == kind} == set(LABELS), kind
    assert len({q.language for q in some}) >= (12 if split == "train" else 7)
    assert {tool for q in some for tool in q.tools} == set(TOOLS)


@pytest.mark.parametrize("split", LARGE)
def test_length_hardly_gives_the_label_away(questions, split):
    """Else a ruler would be a router."""
    some = [(len(q.text.split()), q.label == "complex") for q in questions if q.split == split]
    right = max(np.mean([(words > limit) == is_complex for words, is_complex in some]) for limit in range(120))
    always_simple = np.mean([not is_complex for _, is_complex in some])
    assert right < min(always_simple + 0.08, 0.65)


def test_every_key_is_found_by_its_tool(shop, questions):
    for question in questions:
        assert set(question.keys) == set(question.tools), question.id
        known_to(shop, question)  # raises UnknownKey


def test_quoting_the_entries_that_a_question_names_says_every_fact(shop, questions):
    for question in questions:
        quoted = known_to(shop, question)
        if question.working:
            quoted += f"\n{worked_out(question):.2f} {worked_out(question):g}"
        assert not question.missing_facts(quoted), question.id


def test_a_sum_is_worked_out_from_figures_that_stand_in_the_entries(shop, questions):
    summed = [q for q in questions if q.working]
    assert len(summed) >= 5
    for question in summed:
        assert re.fullmatch(r"[\d. +*/-]+", question.working), question.id
        spellings = [s for fact in question.facts for s in fact if re.fullmatch(r"[\d.]+", s)]
        assert round(worked_out(question), 2) in [float(s) for s in spellings], question.id
        known = f"{known_to(shop, question)}\n{question.text}"
        for number in numbers(question.working):
            assert number == "100" or says(known, number) or COUNTED.get(number, "?") in question.text, question.id


def test_an_answer_from_a_wrong_entry_seldom_says_all_facts(shop, questions):
    """Even one that quotes the whole of a wrong policy, product, article, topic or page."""
    every = {
        "return_policy": list(shop.categories),
        "product_info": [p.key for p in shop.products],
        "tech_support": [a.id for a in shop.support],
        "store_info": [t.key for t in shop.topics],
        "web_search": [w.id for w in shop.web_pages],
    }
    texts = {(tool, key): entries(shop, tool, key) for tool, keys in every.items() for key in keys}
    passed = [
        not question.missing_facts(texts[tool, key])
        for question in questions
        if question.facts
        and len(question.tools) == 1
        and not set(shop.categories) & set(question.keys.get("product_info", ()))
        for tool, keys in question.keys.items()
        for key in every[tool]
        if key not in keys
    ]
    assert np.mean(passed) < 0.03


def test_facts_are_written_small_and_messages_without_an_answer_have_none(questions):
    for question in questions:
        assert all(spelling == spelling.lower() and spelling for fact in question.facts for spelling in fact)
        if question.kind in ("unanswerable", "empty", "greeting", "out_of_scope"):
            assert not question.facts, question.id


@pytest.mark.parametrize(
    ("answer", "spelling", "said"),
    [
        ("It costs $1,299.", "1299", True),
        ("Es kostet 1.299 $.", "1,299", True),
        ("Er wiegt 1,12 kg.", "1.12", True),
        ("a fee of 8 percent", "8%", True),
        ("Within 30 days", "30 Days", True),
        ("３８時間", "38", True),
        ("2100 points", "21", False),
        ("21.5 inches", "21", False),
        ("version 3.21", "21", False),
    ],
)
def test_a_fact_is_found_however_its_number_is_written_but_only_as_a_whole(answer, spelling, said):
    assert says(answer, spelling) is said


def test_missing_facts_are_those_of_which_no_spelling_is_said():
    question = load_questions("demo")[0]
    assert question.missing_facts("Tablets: 30-day window, 8 % once opened.") == ()
    assert question.missing_facts("Tablets can be returned within 30 days.") == (question.facts[1],)


def test_the_published_counts_are_those_of_the_file(questions):
    page = (DATA / "README.md").read_text(encoding="utf-8")
    for split in SPLITS:
        labels = Counter(q.label for q in questions if q.split == split)
        assert f"| {split} | {labels.total()} | {labels['simple']} | {labels['complex']} |" in page
    for kind in KINDS:
        counts = Counter(q.split for q in questions if q.kind == kind)
        assert f"| {kind} | {counts['train']} | {counts['calibration']} | {counts['test']} |" in page


def test_the_published_agreement_is_what_the_two_passes_give(questions):
    page = (DATA / "README.md").read_text(encoding="utf-8")
    for split in LARGE:
        some = [q for q in questions if q.split == split]
        kappa = cohen_kappa_score([q.first for q in some], [q.second for q in some])
        assert f"| {split} | {len(some)} | {kappa:.3f} |" in page


def test_every_disagreement_was_decided_with_a_note(questions):
    for question in questions:
        if question.first != question.second:
            assert question.note, question.id
        else:
            assert question.label == question.first
        assert question.note or question.kind != "ambiguous" or question.split == "few_shot", question.id
