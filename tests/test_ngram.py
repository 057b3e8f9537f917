"""Probabilities equal to nltk's, sums to one, counts done by hand, draws that follow their distribution."""

import math
from collections import Counter, defaultdict

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.lm import MLE, KneserNeyInterpolated, Laplace, Lidstone, WittenBellInterpolated
from nltk.lm.models import AbsoluteDiscountingInterpolated
from nltk.lm.preprocessing import padded_everygram_pipeline
from nltk.lm.vocabulary import Vocabulary as PeerVocabulary

from lmtl_course import data
from lmtl_course.ngram import (
    NGramCounts,
    absolute_discounting,
    add_k,
    estimate_discounts,
    kneser_ney,
    maximum_likelihood,
    pad,
    witten_bell,
)
from lmtl_course.text import Vocabulary, sentences, tokenize

ORDER = 3
EXACT = {"rtol": 0, "atol": 1e-12}
OURS = {
    "ml": maximum_likelihood,
    "add_k": lambda counts: add_k(counts, 0.3),
    "witten_bell": witten_bell,
    "absolute": absolute_discounting,
    "one discount": lambda counts: kneser_ney(counts, "single"),
    "kneser_ney": kneser_ney,
}
PEERS = {  # our model and the one of nltk.lm that it should equal
    "ml": (maximum_likelihood, lambda v: MLE(ORDER, vocabulary=v)),
    "laplace": (lambda c: add_k(c, 1), lambda v: Laplace(ORDER, vocabulary=v)),
    "lidstone": (lambda c: add_k(c, 0.07), lambda v: Lidstone(0.07, ORDER, vocabulary=v)),
    "witten_bell": (lambda c: witten_bell(c, like_nltk=True), lambda v: WittenBellInterpolated(ORDER, vocabulary=v)),
    "absolute": (
        lambda c: absolute_discounting(c, 0.6, like_nltk=True),
        lambda v: AbsoluteDiscountingInterpolated(ORDER, discount=0.6, vocabulary=v),
    ),
    "kneser_ney": (
        lambda c: kneser_ney(c, 0.1, like_nltk=True),
        lambda v: KneserNeyInterpolated(ORDER, vocabulary=v),
    ),
    "kneser_ney 0.7": (
        lambda c: kneser_ney(c, 0.7, like_nltk=True),
        lambda v: KneserNeyInterpolated(ORDER, discount=0.7, vocabulary=v),
    ),
}


@pytest.fixture
def readers_view():
    """Type checks by jaxtyping off: the sentence that a reader without them gets to see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def prose():
    """Sentences of Python's documentation as words and as padded ids: what both sides are trained and judged on."""
    words = [tokenize(s)[:40] for s in sentences(data.load("pydocs").text[:60_000])]
    train, held = words[:250], words[250:290]
    vocabulary = Vocabulary.build((w for s in train for w in s), min_count=2, specials=("<s>", "</s>"))
    start, end = vocabulary.id("<s>"), vocabulary.id("</s>")
    ids = [pad(map(vocabulary.encode, part), ORDER, start, end) for part in (train, held)]
    return vocabulary, train, held, *ids


def fitted(prose, make):
    """The peer, trained on the same sentences with the same vocabulary, its unknown spelled as ours."""
    vocabulary, train = prose[:2]
    grams, words = padded_everygram_pipeline(ORDER, train)
    known = set(vocabulary.tokens)
    peer = make(PeerVocabulary(unk_cutoff=1, unk_label="<unk>"))
    peer.fit((list(s) for s in grams), [w for w in words if w in known])
    assert len(peer.vocab) == len(vocabulary)
    return peer


def everything_seen(texts, order):
    """Counts of all runs by a loop over tokens."""
    counts = [Counter() for _ in range(order + 1)]
    for text in texts:
        for n in range(1, order + 1):
            counts[n].update(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
    return counts


# against nltk


@pytest.mark.parametrize("name", PEERS)
def test_equals_nltk_on_held_out_sentences(prose, name):
    vocabulary, _, _, train_ids, held_ids = prose
    ours, make = PEERS[name]
    model, peer = ours(NGramCounts.of(train_ids, ORDER, len(vocabulary))), fitted(prose, make)
    some = held_ids[:6] if name.startswith("kneser") else held_ids  # nltk walks through all contexts for each score
    got = model.probabilities(some)
    expected = []
    for ids in some:
        words = [vocabulary.tokens[i] for i in ids]
        for i, word in enumerate(words):
            context = words[max(0, i - ORDER + 1) : i]
            expected.append(peer.score(word, tuple(context)) if context else peer.score(word))
    np.testing.assert_allclose(got, expected, **EXACT)
    assert any(0 in ids for ids in some), "unknown words take part"
    assert len(np.unique(got)) > 50


@pytest.mark.parametrize("name", ["ml", "lidstone", "witten_bell", "absolute", "kneser_ney"])
def test_equals_nltk_over_the_whole_vocabulary_after_seen_and_unseen_contexts(prose, name):
    vocabulary, _, _, train_ids, _ = prose
    ours, make = PEERS[name]
    model, peer = ours(NGramCounts.of(train_ids, ORDER, len(vocabulary))), fitted(prose, make)
    sample = range(len(vocabulary)) if not name.startswith("kneser") else range(0, len(vocabulary), 29)
    never = [len(vocabulary) - 1, 1]  # a word, and the start of a sentence after it
    for context in ([], [train_ids[3][3]], train_ids[3][4:6], never, [0, 0]):
        words = tuple(vocabulary.tokens[i] for i in context)
        expected = [peer.score(vocabulary.tokens[w], words or None) for w in sample]
        np.testing.assert_allclose(model.distribution(context)[list(sample)], expected, **EXACT)


def test_perplexity_is_nltks(prose):
    vocabulary, _, _, train_ids, held_ids = prose
    model = add_k(NGramCounts.of(train_ids, ORDER, len(vocabulary)), 0.07)
    peer = fitted(prose, PEERS["lidstone"][1])
    grams = []
    for ids in held_ids:
        words = [vocabulary.tokens[i] for i in ids]
        grams += [tuple(words[max(0, i - ORDER + 1) : i + 1]) for i in range(len(words))]
    assert model.perplexity(held_ids) == pytest.approx(peer.perplexity(grams), rel=1e-12)


# invariants


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_sums_to_one_after_every_context(prose, name, order):
    vocabulary, _, _, train_ids, held_ids = prose
    model = OURS[name](NGramCounts.of(train_ids, order, len(vocabulary)))
    contexts = [ids[i : i + k] for ids in (*train_ids[:3], *held_ids[:3]) for i in range(5) for k in range(order)]
    unseen = 0
    for context in contexts:
        p = model.distribution(context)
        assert (p >= 0).all()
        if name == "ml" and not p.any():  # its one way out: it has no opinion about what never came
            unseen += 1
            continue
        assert p.sum() == pytest.approx(1, abs=1e-12)
        assert name == "ml" or (p > 0).all(), "every token of the vocabulary stays possible"
    assert unseen == 0 if name != "ml" or order < 3 else unseen > 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=12), min_size=1, max_size=6),
    st.integers(1, 4),
    st.lists(st.integers(0, 6), max_size=9),
    st.sampled_from(sorted(OURS)),
)
def test_listing_and_scoring_agree_on_any_text(texts, order, query, name):
    """`distribution` and `probabilities` are two ways to the same numbers; edges of texts are where they could part."""
    order = min(order, max(map(len, texts)))
    model = OURS[name](NGramCounts.of(texts, order, vocab=7))
    listed = [model.distribution(query[max(0, i - order + 1) : i])[token] for i, token in enumerate(query)]
    if query:
        np.testing.assert_allclose(model.probabilities([query]), listed, **EXACT)
    total = model.distribution(query[: order - 1]).sum()
    assert total == pytest.approx(1, abs=1e-12) or (name == "ml" and total == 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=15), min_size=1, max_size=6), st.integers(1, 5))
def test_counts_are_those_of_a_loop(texts, order):
    if max(map(len, texts)) < order:
        return
    counts = NGramCounts.of(texts, order, vocab=5)
    expected = everything_seen(texts, order)
    runs = [()]
    for n, table in enumerate(counts.tables, 1):
        runs = [(*runs[key // 5], int(key % 5)) for key in table.keys]
        assert dict(zip(runs, table.counts.tolist(), strict=True)) == expected[n]
        if n < order:
            lefts = defaultdict(set)
            for longer in expected[n + 1]:
                lefts[longer[1:]].add(longer[0])
            assert table.lefts.tolist() == [len(lefts[run]) for run in runs]
        opening = {tuple(text[:n]) for text in texts}
        assert table.opens.tolist() == [run in opening for run in runs]


def test_ids_too_large_to_pack_are_counted_the_same():
    text = np.array([5, 1, 5, 1, 5, 2])
    small, large = (NGramCounts.of([text * s], 3, vocab=6 * s) for s in (1, 2**59))
    for a, b in zip(small.tables, large.tables, strict=True):
        assert a.counts.tolist() == b.counts.tolist()
        assert a.lefts.tolist() == b.lefts.tolist()


def test_the_order_of_texts_does_not_matter_and_no_run_crosses_from_one_to_the_next():
    texts = [[1, 2, 3], [3, 1], [2, 2, 1, 3]]
    one, other = (kneser_ney(NGramCounts.of(t, 2, 4)) for t in (texts, texts[::-1]))
    np.testing.assert_allclose(one.distribution([3]), other.distribution([3]), **EXACT)
    joined = NGramCounts.of([[1, 2, 3, 3, 1, 2, 2, 1, 3]], 2, 4)
    assert joined.tables[1].counts.sum() == 8
    apart = NGramCounts.of(texts, 2, 4)
    assert apart.tables[1].counts.sum() == 6
    assert maximum_likelihood(joined).distribution([3])[3] > 0
    assert maximum_likelihood(apart).distribution([3])[3] == 0  # 3 ended one text and began the next


def test_a_longer_count_holds_the_shorter_ones():
    texts = [[1, 2, 3, 1, 2, 2, 1, 3, 3, 3, 1]]
    ours = kneser_ney(NGramCounts.of(texts, 4, 4).upto(2))
    np.testing.assert_allclose(ours.distribution([1]), kneser_ney(NGramCounts.of(texts, 2, 4)).distribution([1]))


# numbers by hand


def test_maximum_likelihood_is_beaten_by_no_other_distribution():
    text = np.random.default_rng(0).choice(5, size=200, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    best = maximum_likelihood(NGramCounts.of([text], 1, 5)).distribution()
    seen = np.bincount(text, minlength=5)
    np.testing.assert_allclose(best, seen / 200, **EXACT)
    for other in np.random.default_rng(1).dirichlet(50 * best, size=100):
        assert seen @ np.log(other) < seen @ np.log(best)


def test_a_discount_frees_what_the_shorter_context_gets():
    """a b a b c: after b came a and c. D = 0.5 takes half of each; b alone: a stands after b and opens the text."""
    model = kneser_ney(NGramCounts.of([[0, 1, 0, 1, 2]], 2, vocab=4), 0.5)
    single = np.array([1.5, 0.5, 0.5, 0.0]) / 4 + 1.5 / 4 / 4  # N1+ 2, 1, 1 of 4; the rest over 4 tokens
    np.testing.assert_allclose(model.distribution(), single, **EXACT)
    np.testing.assert_allclose(model.distribution([1]), [0.25, 0, 0.25, 0] + 0.5 * single, **EXACT)
    np.testing.assert_allclose(model.distribution([3]), single, **EXACT)  # a context never seen: the shorter one


def test_kneser_ney_asks_in_how_many_places_a_word_stands():
    """Francisco follows San only, twelve times; glass stands after three different words, once each."""
    text = [[1, 2]] * 12 + [[3, 4], [5, 4], [6, 4]]
    counts = NGramCounts.of(text, 2, 8)
    raw, places = absolute_discounting(counts, 0.5), kneser_ney(counts, 0.5)
    assert raw.distribution([7])[2] > raw.distribution([7])[4]
    assert places.distribution([7])[4] > places.distribution([7])[2]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_marginals_are_those_of_the_counts(seed):
    """What Kneser and Ney asked for: bigrams summed over all contexts of the text give its unigram counts."""
    text = np.random.default_rng(seed).zipf(1.3, size=3000).clip(max=40) - 1
    ring = np.concatenate([text, text[:1]])  # every token has a neighbour on both sides
    counts = NGramCounts.of([ring], 2, 40)
    lower = kneser_ney(counts, 0.6, like_nltk=True)  # starts do not count, unigrams are not mixed with the uniform
    marginal = sum(np.bincount(text, minlength=40)[h] * lower.distribution([h]) for h in range(40))
    np.testing.assert_allclose(marginal, np.bincount(text, minlength=40), rtol=0, atol=1e-9)
    raw = absolute_discounting(counts, 0.6, like_nltk=True)
    wrong = sum(np.bincount(text, minlength=40)[h] * raw.distribution([h]) for h in range(40))
    assert abs(wrong - np.bincount(text, minlength=40)).max() > 1


def test_discounts_are_chen_and_goodmans():
    counts = np.repeat([1, 2, 3, 4, 9], [100, 40, 20, 12, 7])
    y = 100 / 180
    assert estimate_discounts(counts, "single") == pytest.approx([y, y, y])
    assert estimate_discounts(counts) == pytest.approx([1 - 2 * y * 0.4, 2 - 3 * y * 0.5, 3 - 4 * y * 0.6])
    assert estimate_discounts(np.array([1, 1, 5])) == [0.5, 1.0, 1.5]
    assert estimate_discounts(np.array([3, 3]), "single") == [0.5, 0.5, 0.5]
    falling = np.repeat([1, 2, 3, 4], [10, 40, 1, 400])  # the formula would ask for less than nothing
    assert estimate_discounts(falling) == [0.5, 1.0, 1.5]


def test_perplexity_of_a_blind_guess_is_the_vocabulary_and_of_the_impossible_infinite():
    counts = NGramCounts.of([[0, 1, 0, 1, 2]], 2, vocab=11)
    assert add_k(counts, 1e12).perplexity([[3, 4, 5]]) == pytest.approx(11)
    assert maximum_likelihood(counts).perplexity([[0, 1, 1]]) == math.inf
    assert maximum_likelihood(counts).perplexity([[0, 1, 0]]) == pytest.approx((5 / 2 * 1 * 2) ** (1 / 3))


# sampling


@pytest.mark.parametrize("name", ["add_k", "witten_bell", "absolute", "kneser_ney"])
def test_draws_follow_the_distribution(name):
    """Chi-square over 40,000 draws of one token, after a seen and an unseen context, at a fixed seed."""
    text = np.random.default_rng(3).zipf(1.4, size=400).clip(max=9) - 1
    model = OURS[name](NGramCounts.of([text], 3, vocab=11))
    for context in ([0, 1], [10, 0], [10, 10], [0], []):
        p = model.distribution(context)
        seen = np.bincount(model.sample(1, rows=40_000, context=context)[:, 0], minlength=11)
        chi_square = ((seen - 40_000 * p) ** 2 / (40_000 * p)).sum()
        assert chi_square < 29.6, f"10 degrees of freedom, p < 0.001 after {context}: {seen}"


def test_later_draws_are_conditioned_on_the_earlier_ones():
    model = maximum_likelihood(NGramCounts.of([[0, 1, 2, 3] * 5 + [0]], 2, vocab=5))
    rows = model.sample(9, rows=7, context=[1], seed=5)
    assert rows.shape == (7, 9)
    assert (rows == [2, 3, 0, 1, 2, 3, 0, 1, 2]).all()
    text = np.random.default_rng(3).integers(3, size=300)
    trained = kneser_ney(NGramCounts.of([text], 3, vocab=3))
    drawn = trained.sample(3, rows=30_000, seed=1)
    triples = np.bincount(drawn @ [9, 3, 1], minlength=27) / 30_000
    exact = [
        trained.distribution()[a] * trained.distribution([a])[b] * trained.distribution([a, b])[c]
        for a in range(3)
        for b in range(3)
        for c in range(3)
    ]
    assert abs(triples - exact).max() < 0.01
    assert np.array_equal(drawn, trained.sample(3, rows=30_000, seed=1))
    assert not np.array_equal(drawn, trained.sample(3, rows=30_000, seed=2))


def test_maximum_likelihood_gets_past_the_end_of_its_text():
    model = maximum_likelihood(NGramCounts.of([[0, 1, 2, 3]], 3, vocab=4))  # nothing ever followed 2 3
    assert set(model.sample(5, rows=20, context=[2, 3]).flatten()) <= {0, 1, 2, 3}


# errors


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: NGramCounts.of([[]], 2, 5), "there are 0 tokens"),
        (lambda: NGramCounts.of([], 2, 5), "there are 0 tokens"),
        (lambda: NGramCounts.of([[1, 2]], 0, 5), "order=0 is below 1"),
        (lambda: NGramCounts.of([[1, 2]], 3, 5), "order 3 needs a text of that many tokens, the longest has 2"),
        (lambda: NGramCounts.of([[1, 7]], 2, 5), "id 7 is outside a vocabulary of 5"),
        (lambda: NGramCounts.of([[1, -1]], 2, 5), "id -1 is outside a vocabulary of 5"),
        (lambda: NGramCounts.of([[[1, 2]]], 2, 5), r"got \[\(1, 2\)\]; wrap one in a list"),
        (lambda: NGramCounts.of([1, 2], 2, 5), r"got \[\(\), \(\)\]; wrap one in a list"),
        (lambda: NGramCounts.of([np.array([0.5, 1.0])], 2, 5), "ids are float64, expected integers in 0…4"),
        (lambda: NGramCounts.of([[1, 2]], 2, 5).upto(3), "order 3 is not between 1 and the 2 counted"),
        (lambda: add_k(NGramCounts.of([[1, 2]], 2, 5), 0), "k=0 is not above 0"),
        (lambda: add_k(NGramCounts.of([[1, 2]], 2, 5), math.nan), "k=nan is not above 0"),
        (lambda: kneser_ney(NGramCounts.of([[1, 2]], 2, 5), 1.5), "discount=1.5 is outside 0…1"),
        (lambda: kneser_ney(NGramCounts.of([[1, 2]], 2, 5), "two"), "discount is 'two', expected 'single', 'modified'"),
        (lambda: kneser_ney(NGramCounts.of([[1, 2]], 2, 5)).distribution([1, 2]), "context has 2 tokens, order 2 re"),
        (lambda: kneser_ney(NGramCounts.of([[1, 2]], 2, 5)).sample(3, context=[1, 2]), "context has 2 tokens"),
        (lambda: kneser_ney(NGramCounts.of([[1, 2]], 2, 5)).distribution([6]), "id 6 is outside a vocabulary of 5"),
        (lambda: kneser_ney(NGramCounts.of([[1, 2]], 2, 5)).probabilities([[5]]), "id 5 is outside a vocabulary of 5"),
        (lambda: pad([[1]], 0, 1, 2), "order=0 is below 1"),
    ],
)
def test_bad_input_is_named_in_one_sentence(readers_view, act, message):
    with pytest.raises(ValueError, match=message):
        act()
