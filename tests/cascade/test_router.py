"""What a learned router sends up, what it admits not to know, what it can say about a score, and what survives a file."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from workshop_lib import Cascade, Ticket, Tier, never
from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.cascade.router import Choice, LearnedRouter, route_by
from workshop_lib.evaluation.curves import apgr

# The cheap model knows the kitchen and fails at the law; the strong one knows both, and neither knows the comets.
TOPICS = {
    "kitchen": [
        "the",
        "soup",
        "the",
        "bread",
        "the",
        "oven",
        "a",
        "pan",
        "of",
        "butter",
        "salt",
        "and",
        "pepper",
        "an",
        "onion",
        "a",
        "knife",
        "the",
        "dough",
        "a",
        "cake",
        "flour",
        "sugar",
    ],
    "law": [
        "the",
        "court",
        "the",
        "contract",
        "a",
        "judge",
        "of",
        "appeal",
        "the",
        "tenant",
        "a",
        "clause",
        "and",
        "liability",
        "a",
        "statute",
        "the",
        "witness",
        "a",
        "verdict",
        "damages",
    ],
    "sky": [
        "the",
        "comet",
        "the",
        "orbit",
        "a",
        "star",
        "of",
        "helium",
        "the",
        "telescope",
        "a",
        "planet",
        "and",
        "dust",
        "a",
        "crater",
        "the",
        "eclipse",
        "a",
        "galaxy",
        "light",
    ],
}
CHEAP = {"kitchen": 0.9, "law": 0.2, "sky": 0.2}
STRONG = {"kitchen": 0.9, "law": 0.9, "sky": 0.2}


def questions(n, seed=0):
    """Texts, topics, and whether each model is right."""
    chance = np.random.default_rng(seed)
    topics = chance.choice(list(TOPICS), n)
    texts = [
        f"What is to be said of {' '.join(chance.choice(TOPICS[topic], chance.integers(5, 12)))}?" for topic in topics
    ]
    right = [chance.random(n) < np.array([known[t] for t in topics]) for known in (CHEAP, STRONG)]
    return texts, topics, *right


def letters(texts):
    """A small embedding of our own: how often each letter occurs."""
    found = np.array([[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts], float)
    return found / (1 + found.sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def fitted():
    texts, _, cheap, strong = questions(300, seed=1)
    return LearnedRouter(["words"]).fit(texts, cheap, strong)


@pytest.fixture(scope="module")
def of_three_views():
    texts, _, cheap, strong = questions(300, seed=1)
    return LearnedRouter(["facts", "words", "meaning"], embed=letters).fit(texts, cheap, strong)


def test_a_topic_that_only_the_strong_model_knows_goes_up_first(fitted):
    texts, topics, cheap, strong = questions(600, seed=2)
    score = fitted.score(texts)
    assert score.dtype == np.float64
    assert score.shape == (600,)
    assert score[topics == "law"].mean() > 0.5
    assert abs(score[topics == "kitchen"].mean()) < 0.15
    assert abs(score[topics == "sky"].mean()) < 0.15  # where both fail, a dear call buys nothing
    assert apgr(score, cheap, strong) > 0.75


def test_the_heads_are_probabilities_of_being_right_and_their_difference_is_the_score(fitted):
    texts, topics, cheap, _ = questions(600, seed=2)
    cheap_right, strong_right = fitted.cheap_right(texts), fitted.strong_right(texts)
    assert np.allclose(fitted.score(texts), strong_right - cheap_right, atol=1e-12)
    assert min(cheap_right.min(), strong_right.min()) > 0
    assert max(cheap_right.max(), strong_right.max()) < 1
    for topic in TOPICS:
        assert abs(cheap_right[topics == topic].mean() - cheap[topics == topic].mean()) < 0.12


def test_the_same_labels_give_the_same_router():
    texts, _, cheap, strong = questions(120, seed=3)
    first, second = (LearnedRouter(["words"]).fit(texts, cheap, strong).score(texts) for _ in range(2))
    assert np.array_equal(first, second)


def test_a_texts_score_does_not_depend_on_its_neighbours(fitted):
    texts, *_ = questions(40, seed=2)
    assert np.allclose([fitted.score([text])[0] for text in texts], fitted.score(texts), atol=1e-12)


def test_no_texts_have_no_scores(fitted):
    assert fitted.score([]).shape == (0,)
    assert fitted.decide([], 0.1) == []


# --- Facts beside the text ---


def known(topics):
    return [{"topic": topic, "asked": float(i % 7)} for i, topic in enumerate(topics)]


def test_a_fact_beside_the_text_counts_where_the_text_says_nothing():
    _, topics, cheap, strong = questions(400, seed=1)
    texts = ["Please answer the question."] * 400
    router = LearnedRouter(["words"]).fit(texts, cheap, strong, features=known(topics))
    up = router.score(texts[:2], [{"topic": "law", "asked": 3}, {"topic": "sky", "asked": 3}])
    assert up[0] > up[1] + 0.3


def test_the_cheap_answers_confidence_is_learned_from_as_any_other_fact():
    texts, _, _, strong = questions(400, seed=4)
    confidence = np.random.default_rng(4).uniform(0.05, 0.95, 400)
    cheap = np.random.default_rng(5).random(400) < confidence
    facts = [{"confidence": c} for c in confidence]
    router = LearnedRouter(["words"]).fit(texts, cheap, strong, features=facts)
    right = router.cheap_right(texts[:2], [{"confidence": 0.9}, {"confidence": 0.2}])
    assert right[0] > 0.7
    assert right[1] < 0.4


def test_what_some_texts_lacked_when_fitted_may_be_missing_later_and_nothing_else():
    texts, topics, cheap, strong = questions(200, seed=1)
    facts = known(topics)
    for fact in facts[::3]:
        del fact["asked"]
    router = LearnedRouter(["words"]).fit(texts, cheap, strong, features=facts)
    assert np.isfinite(router.score(texts[:1], [{"topic": "law"}])).all()
    assert np.isfinite(router.score(texts[:1], [{"topic": "never seen", "asked": 1}])).all()
    with pytest.raises(ValueError, match="text 0 lacks the feature 'topic'"):
        router.score(texts[:1], [{"asked": 2}])
    with pytest.raises(ValueError, match="fitted with features"):
        router.score(texts[:1])


def test_facts_are_refused_by_a_router_that_learned_from_texts_alone(fitted):
    with pytest.raises(ValueError, match="fitted on texts alone"):
        fitted.score(["soup"], [{"topic": "law"}])


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ([{"a": 1.0}] * 99 + [{"a": "one"}], "a word for some texts and a number for others"),
        ([{"a": 1.0}] * 99 + [{"a": float("nan")}], "text 99: the feature 'a' is nan"),
        ([{"a": 1.0}] * 99, "100 texts and 99 features"),
        ([{"digits": 1.0}] * 100, "is taken"),
    ],
)
def test_facts_that_cannot_be_learned_from_are_named(facts, problem):
    texts, _, cheap, strong = questions(100, seed=1)
    with pytest.raises(ValueError, match=problem):
        LearnedRouter(["words"]).fit(texts, cheap, strong, features=facts)


PLAIN = SimpleNamespace(describe=str)


def test_a_route_leads_past_the_cheap_tier_what_scores_high_and_ends_at_it_what_scores_low(fitted):
    route = route_by(fitted, skip_at=0.4, stop_below=0.2, task=PLAIN)
    law, kitchen = "the tenant and the clause of appeal, the judge", "the dough and the onion, butter and the flour"
    assert route(law).tiers == ("strong",)
    assert route(law).detail.endswith(">= 0.4")
    assert route(kitchen).tiers == ("cheap",)


def test_between_the_two_scores_the_cascade_decides(fitted):
    assert route_by(fitted, skip_at=0.99, task=PLAIN)("the tenant and the clause") is None


def test_where_the_router_is_unsure_no_tier_is_skipped_and_none_is_the_end(fitted):
    assert route_by(fitted, skip_at=-1.0, task=PLAIN)("xq zv kj") is None


def test_a_score_cannot_both_skip_the_cheap_tier_and_end_there(fitted):
    with pytest.raises(ValueError, match="both skip"):
        route_by(fitted, skip_at=0.1, stop_below=0.2)


def test_a_route_of_the_same_router_is_the_same_run_after_a_file(fitted, tmp_path):
    fitted.save(tmp_path / "router.npz")
    again = LearnedRouter.load(tmp_path / "router.npz")
    assert route_by(fitted, skip_at=0.4).identity == route_by(again, skip_at=0.4).identity
    assert route_by(fitted, skip_at=0.4).identity != route_by(fitted, skip_at=0.5).identity


def test_a_cascade_follows_a_learned_route(fitted, bedrock):
    told = SimpleNamespace(describe=lambda ticket: ticket.body)
    route = route_by(fitted, skip_at=0.4, task=told)
    cascade = Cascade([Tier("cheap"), Tier("strong")], escalate_when=never(), route=route, client=bedrock)
    bodies = ["the tenant and the clause of appeal, the judge", "the dough and the onion, butter and the flour"]
    runs = [cascade.run(Ticket(id=f"T-{i}", subject="", body=body)) for i, body in enumerate(bodies)]
    assert [[attempt.tier for attempt in run.attempts] for run in runs] == [["strong"], ["cheap"]]


# --- Being unsure ---


def test_a_threshold_sends_up_what_scores_as_much(fitted):
    texts, *_ = questions(300, seed=2)
    choices, scores = fitted.decide(texts, 0.3), fitted.score(texts)
    assert all(isinstance(choice, Choice) for choice in choices)
    by_score = [any(r.rule == "score" for r in choice.reasons) for choice in choices]
    assert by_score == (scores >= 0.3).tolist()
    assert [choice.up for choice in choices if not choice.reasons].count(True) == 0


@pytest.mark.parametrize("text", ["", " \n ", "???", "Können Sie mir bitte die Rechnung schicken", "请把发票发给我"])
def test_a_text_unlike_all_that_was_learned_from_goes_up_whatever_its_score(fitted, text):
    (choice,) = fitted.decide([text], threshold=2.0)
    assert choice.up
    assert [reason.rule for reason in choice.reasons] == ["unsure"]


def test_texts_of_the_kind_that_was_learned_from_are_seldom_strange(fitted):
    texts, *_ = questions(600, seed=2)
    assert np.mean([choice.up for choice in fitted.decide(texts, threshold=2.0)]) < 0.05


def test_familiarity_is_the_share_of_known_words(fitted):
    none, some, all_known = fitted.familiarity(["zebra xylophone", "the soup xylophone", "the soup"])
    assert none == 0
    assert 0 < some < 1
    assert all_known == pytest.approx(1)


# --- Saying why ---


@pytest.mark.parametrize("text", ["What is to be said of a judge and the contract?", "soup", "", "zebra"])
def test_the_parts_of_an_explanation_sum_to_the_score(of_three_views, text):
    found = of_three_views.explain(text, top=3)
    assert found.score == pytest.approx(of_three_views.score([text])[0], abs=1e-12)
    assert found.start + sum(c.value for c in found.contributions) + found.rest == pytest.approx(found.score, abs=1e-9)
    assert found.start + sum(found.views.values()) == pytest.approx(found.score, abs=1e-9)
    assert set(found.views) == {"facts", "words", "meaning"}


def test_the_words_that_send_a_text_up_are_named(fitted):
    found = fitted.explain("What is to be said of a judge and the contract?", top=8)
    up = " ".join(c.name for c in found.contributions if c.value > 0.02)
    assert "judge" in up
    assert "contract" in up
    assert "contract (words)" in str(found)
    assert f"score {found.score:+.3f}" in str(found)
    assert "unsure: no words" in str(fitted.explain(""))


# --- In a file ---


def test_a_router_from_a_file_scores_as_before_without_learning(of_three_views, tmp_path, monkeypatch):
    texts, *_ = questions(50, seed=2)
    of_three_views.save(tmp_path / "router")
    monkeypatch.setattr(LearnedRouter, "fit", None)
    loaded = LearnedRouter.load(tmp_path / "router", embed=letters)
    assert np.abs(loaded.score(texts) - of_three_views.score(texts)).max() < 1e-9
    assert loaded.decide(texts, 0.3) == of_three_views.decide(texts, 0.3)
    assert loaded.explain(texts[0]) == of_three_views.explain(texts[0])


def test_facts_survive_a_file(tmp_path):
    texts, topics, cheap, strong = questions(120, seed=1)
    router = LearnedRouter(["words"]).fit(texts, cheap, strong, features=known(topics))
    router.save(tmp_path / "router.npz")
    loaded = LearnedRouter.load(tmp_path / "router.npz")
    assert np.array_equal(loaded.score(texts, known(topics)), router.score(texts, known(topics)))


def test_a_router_of_vectors_of_your_own_is_not_loaded_without_them(of_three_views, tmp_path):
    of_three_views.save(tmp_path / "router.npz")
    with pytest.raises(ValueError, match="an `embed` of your own"):
        LearnedRouter.load(tmp_path / "router.npz")


def test_a_damaged_or_alien_file_is_refused(fitted, tmp_path):
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    fitted.save(good)
    content = good.read_bytes()
    with np.load(good) as stored:
        arrays = {name: stored[name] for name in stored.files}
    header = json.loads(arrays["header"].tobytes())

    def with_header(**changed):
        return {**arrays, "header": np.frombuffer(json.dumps(header | changed).encode(), np.uint8)}

    for broken in (b"", b"hello", content[: len(content) // 2], content[:200] + b"\0" * 50 + content[250:]):
        bad.write_bytes(broken)
        with pytest.raises(ValueError, match="no router that can be read"):
            LearnedRouter.load(bad)
    for changed in (
        {"idf": arrays["idf"]},
        with_header(format=99),
        with_header(terms=header["terms"][1:]),
        with_header(views={"smell": [1, 1]}),
        {**arrays, "words_weights": arrays["words_weights"][:, :-1]},
        {**arrays, "words_weights": arrays["words_weights"] * np.nan},
    ):
        np.savez(bad, **changed)
        with pytest.raises(ValueError, match="no router that can be read"):
            LearnedRouter.load(bad)
    with pytest.raises(FileNotFoundError):
        LearnedRouter.load(tmp_path / "none.npz")


def test_a_file_with_a_pickled_object_is_never_opened(tmp_path):
    np.savez(tmp_path / "evil.npz", header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="no router that can be read"):
        LearnedRouter.load(tmp_path / "evil.npz")


# --- What is refused ---


def test_nothing_is_scored_or_saved_before_it_has_learned(tmp_path):
    router = LearnedRouter(["words"])
    for use in (
        lambda: router.score(["soup"]),
        lambda: router.decide(["soup"], 0.1),
        lambda: router.explain("soup"),
        lambda: router.save(tmp_path / "router.npz"),
    ):
        with pytest.raises(ValueError, match="has learned nothing yet"):
            use()


@pytest.mark.parametrize("views", [[], ["smell"], "words"])
def test_views_that_do_not_exist_are_refused(views):
    with pytest.raises(ValueError, match="views"):
        LearnedRouter(views)


def test_too_few_labels_are_refused_by_model_and_number():
    texts, _, cheap, strong = questions(200, seed=1)
    with pytest.raises(ValueError, match="49 labels of the cheap model"):
        LearnedRouter(["words"]).fit(texts[:49], cheap[:49], strong[:49])
    with pytest.raises(ValueError, match="200 labels of the strong model, 3 of the rarer kind"):
        LearnedRouter(["words"]).fit(texts, cheap, [1] * 197 + [0] * 3)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"cheap": np.ones(99)}, r"100 texts and cheap_correct of shape \(99,\)"),
        ({"strong": np.full(100, 0.5)}, r"strong_correct: give 1 \(right\) or 0"),
        ({"texts": "one text"}, "a list of texts"),
        ({"texts": [None] * 100}, "text 0 is NoneType"),
        ({"families": [1, 2]}, "100 texts and 2 families"),
        ({"families": [1] * 100}, "one family"),
    ],
)
def test_what_does_not_belong_together_is_refused(changed, problem):
    texts, _, cheap, strong = questions(100, seed=1)
    given = {"texts": texts, "cheap": cheap, "strong": strong, "families": None} | changed
    with pytest.raises(ValueError, match=problem):
        LearnedRouter(["words"]).fit(given["texts"], given["cheap"], given["strong"], families=given["families"])


# --- Sentence vectors ---


def test_meaning_carries_over_to_words_that_were_never_seen():
    texts, _, cheap, strong = questions(80, seed=1)
    router = LearnedRouter(["meaning"]).fit(texts, cheap, strong)
    law, kitchen = router.score(
        ["Which attorney represents defendants before tribunals?", "How is dinner cooked at home?"]
    )
    assert law > kitchen


def test_without_the_embedding_packages_it_says_so_and_learns_from_words(monkeypatch, tmp_path):
    texts, _, cheap, strong = questions(60, seed=1)
    with_vectors = LearnedRouter().fit(texts, cheap, strong)
    with_vectors.save(tmp_path / "router.npz")
    _forget_embedding(monkeypatch)
    with pytest.warns(UserWarning, match="without sentence vectors"):
        router = LearnedRouter().fit(texts, cheap, strong)
    assert router.views == ("words",)
    assert np.array_equal(router.score(texts), LearnedRouter(["words"]).fit(texts, cheap, strong).score(texts))
    with pytest.raises(ConfigurationError):
        LearnedRouter(["meaning"]).fit(texts, cheap, strong)
    with pytest.raises(ConfigurationError):
        LearnedRouter.load(tmp_path / "router.npz").score(texts)


def _forget_embedding(monkeypatch):
    """As if the packages that carry the weights were not installed."""
    from importlib import metadata

    from workshop_lib import embedding
    from workshop_lib.cascade import router

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    embedding._verified.cache_clear()
    router._minilm.cache_clear()
