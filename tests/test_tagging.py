"""Entities against seqeval, the chain of tags against a list of all rows in values and gradients, every word with its
token whatever the tokenizer does, and taggers that learn what is there, answer for every word and come back from disk.
"""

import itertools
import json
import math
import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from lmtl_course import data
from lmtl_course.losses import cross_entropy
from lmtl_course.pretraining import Base, MaskedLM, load_base, make_tokenizer
from lmtl_course.tagging import (
    CRF,
    ERRORS,
    Entity,
    Gazetteer,
    LogPartition,
    LSTMTagger,
    Tagger,
    TaggingHead,
    _at_words,
    _tag_loss,
    _TagRows,
    align,
    chain_score,
    entities,
    entity_f1,
    entity_tags,
    error_kinds,
    highlight,
    load_tagger,
    log_partition,
    recall_by_novelty,
    rules,
    surface,
    tag_names,
    train_tagger,
    viterbi,
)
from lmtl_course.text import Mark, Vocabulary, from_bio, to_bio
from lmtl_course.training import IGNORED
from lmtl_course.transfer import ClassificationHead, FineTuneConfig, FineTuned, finetune
from lmtl_course.transformer import GPT, TransformerConfig

WORDS = ["ada", "bob", "paris", "rome", "met", "saw", "in", "near", "the", "old", "town", "and"]
CONFIG = FineTuneConfig(min_steps=0, epochs=12, batch=8, lr=5e-3, head_lr=3e-2, dropout=0.0, autocast=False)
TAGS, LENGTHS = 3, (5, 3, 1)


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    monkeypatch.setattr("lmtl_course.training._bf16_is_fast", lambda device: False)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_base(kind: str = "encoder", context: int = 48, d_model: int = 12, seed: int = 5) -> Base:
    """A small random base that is not indifferent to what it reads."""
    tokenizer = make_tokenizer([" ".join(WORDS)] * 9, 300, kind, lowercase=kind == "encoder")
    sizes = {"vocab": 300, "context": context, "d_model": d_model, "layers": 2, "heads": 2, "dropout": 0.0}
    torch.manual_seed(seed)
    model = (
        MaskedLM(TransformerConfig.bert(**sizes, init_std=0.3))
        if kind == "encoder"
        else GPT(TransformerConfig.gpt2(**sizes, init_std=0.3))
    )
    return Base(model.eval(), tokenizer, f"tiny {kind}")


def make_rows(n: int, seed: int = 0) -> list[tuple[list[str], list[str]]]:
    """Sentences in which ada and bob are persons and paris and rome places; "old" belongs to the place it precedes."""
    rng, rows = random.Random(seed), []
    for _ in range(n):
        words = rng.choices(
            WORDS, [{"old": 4, "paris": 3, "rome": 3}.get(word, 1) for word in WORDS], k=rng.randrange(2, 8)
        )
        tags, before = [], ""
        for word, after in itertools.pairwise([*words, ""]):
            label = "PER" if word in ("ada", "bob") else "LOC" if word in ("paris", "rome") else ""
            if word == "old" and after in ("paris", "rome"):
                tags.append("B-LOC")
            else:
                tags.append(f"{'I' if before == 'old' and label == 'LOC' else 'B'}-{label}" if label else "O")
            before = word
        rows.append((words, tags))
    return rows


def without_context(rows, test) -> float:
    """Entity F1 of giving each word the tag that it has most often."""
    counts: dict[str, Counter[str]] = {}
    for word, tag in (pair for row in rows for pair in zip(*row, strict=True)):
        counts.setdefault(word, Counter())[tag] += 1
    said = [[counts[word].most_common(1)[0][0] for word in words] for words, _ in test]
    return entity_f1([tags for _, tags in test], said).f1


def random_tags(rng: random.Random, prefixes: str, labels: str = "XY", most: int = 9) -> list[str]:
    return [
        rng.choice(["O", *(f"{p}-{label}" for p in prefixes for label in labels)]) for _ in range(rng.randrange(most))
    ]


def random_entities(rng: random.Random, length: int) -> list[Entity]:
    found, at = [], 0
    while (at := at + rng.randrange(3)) < length:
        end = min(length, at + rng.randrange(1, 4))
        found.append(Entity(at, end, rng.choice("XY")))
        at = end
    return found


# -------------------------------------------------------------------------------------------------------------- schemes


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_entities_and_tags_undo_each_other_and_the_schemes_convert(scheme):
    rng = random.Random(1)
    for _ in range(300):
        length = rng.randrange(12)
        found = random_entities(rng, length)
        tags = entity_tags(length, rng.sample(found, len(found)), scheme)
        assert entities(tags) == entities(tags, strict=scheme) == found
        for other in ("bio", "bioes"):
            assert entity_tags(length, entities(tags), other) == entity_tags(length, found, other)
        assert set(tags) <= set(tag_names(["X", "Y"], scheme))


def test_tags_by_hand():
    assert entity_tags(6, [Entity(4, 5, "Y"), Entity(0, 3, "X")]) == ["B-X", "I-X", "I-X", "O", "B-Y", "O"]
    bio = ["B-X", "I-X", "I-X", "O", "B-Y", "O"]
    assert entity_tags(6, entities(bio), "bioes") == ["B-X", "I-X", "E-X", "O", "S-Y", "O"]
    assert entities(["B-X", "B-X", "I-Y", "I-Y"]) == [Entity(0, 1, "X"), Entity(1, 2, "X"), Entity(2, 4, "Y")]
    assert entities(["B-X", "B-X", "I-Y", "I-Y"], strict="bio") == [Entity(0, 1, "X"), Entity(1, 2, "X")]
    assert entities(["B-X", "I-X", "S-Y", "E-X"], strict="bioes") == [Entity(2, 3, "Y")]
    assert tag_names(["b", "a"], "bioes")[:5] == ("O", "B-b", "I-b", "E-b", "S-b")


def test_entities_are_the_marks_of_the_first_chapter():
    rng = random.Random(2)
    for _ in range(300):
        tags = random_tags(rng, "BI")
        spans = [(3 * k, 3 * k + 2) for k in range(len(tags))]
        wanted = [Mark(3 * e.start, 3 * e.end - 1, e.label) for e in entities(tags)]
        assert from_bio(spans, tags) == wanted
        assert to_bio(spans, wanted) == entity_tags(len(tags), entities(tags))


# ---------------------------------------------------------------------------------------------------------- the scoring

CASES = [(seed, prefixes) for prefixes in ("BI", "BIES") for seed in range(20)]
SEQEVAL = {  # seqeval 1.2.2: F1, strict F1 and F1 of label Y for the first seeds
    "BI": [
        (0.702703, 0.721311, 0.674699),
        (0.763359, 0.694444, 0.709677),
        (0.771242, 0.774194, 0.740741),
        (0.832215, 0.835443, 0.789474),
        (0.84058, 0.771429, 0.869565),
        (0.595745, 0.629213, 0.69697),
    ],
    "BIES": [
        (0.739884, 0.791667, 0.657895),
        (0.790698, 0.724638, 0.831683),
        (0.705202, 0.566038, 0.736842),
        (0.773333, 0.682927, 0.753247),
        (0.806283, 0.810811, 0.824742),
        (0.740088, 0.777778, 0.732673),
    ],
}


def case(seed: int, prefixes: str) -> tuple[list[list[str]], list[list[str]]]:
    """Sentences in which about half of the predicted tags are the true ones."""
    rng, truth, predicted = random.Random(1000 * len(prefixes) + seed), [], []
    for _ in range(30):
        true = random_tags(rng, prefixes)
        other = [rng.choice(random_tags(rng, prefixes, most=4) or ["O"]) for _ in true]
        truth.append(true)
        predicted.append([a if rng.random() < 0.7 else b for a, b in zip(true, other, strict=True)])
    return truth, predicted


def ours(seed: int, prefixes: str) -> list[float]:
    truth, predicted = case(seed, prefixes)
    strict = {"BI": "bio", "BIES": "bioes"}[prefixes]
    scores = [entity_f1(truth, predicted), entity_f1(truth, predicted, strict), entity_f1(truth, predicted, label="Y")]
    return [value for score in scores for value in score[:3]]


@pytest.mark.parametrize(("seed", "prefixes"), CASES)
def test_entity_scores_are_those_of_seqeval(seed, prefixes):
    pytest.importorskip("seqeval")
    from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
    from seqeval.scheme import IOB2, IOBES

    truth, predicted = case(seed, prefixes)
    strict = {"mode": "strict", "scheme": {"BI": IOB2, "BIES": IOBES}[prefixes]}
    functions = precision_score, recall_score, f1_score
    wanted = [f(truth, predicted, **options) for options in ({}, strict) for f in functions]
    of_y = classification_report(truth, predicted, output_dict=True)["Y"]
    wanted += [of_y[name] for name in ("precision", "recall", "f1-score")]
    assert ours(seed, prefixes) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("prefixes", ["BI", "BIES"])
def test_entity_scores_are_those_that_seqeval_gave_when_it_was_asked(prefixes):
    for seed, wanted in enumerate(SEQEVAL[prefixes]):
        f1, strict, of_y = (ours(seed, prefixes)[k] for k in (2, 5, 8))
        assert [f1, strict, of_y] == pytest.approx(wanted, abs=1e-6)


def test_scores_by_hand():
    truth = [["B-X", "I-X", "O", "B-Y"], ["O", "B-X"], []]
    said = [["B-X", "I-X", "O", "B-X"], ["B-Y", "O"], []]
    score = entity_f1(truth, said)
    assert score == (1 / 3, 1 / 3, 1 / 3, 1, 3, 3)
    assert entity_f1(truth, said, label="Y")[3:] == (0, 1, 1)
    assert entity_f1([["O"]], [["O"]])[:3] == (0.0, 0.0, 0.0)
    assert entity_f1(truth, truth)[:3] == (1.0, 1.0, 1.0)


def test_errors_by_hand_and_their_sums():
    truth = [["B-X", "I-X", "O", "B-Y", "O", "B-X", "O", "B-X", "O", "B-Y", "I-Y"]]
    said = [["B-X", "O", "O", "B-X", "O", "B-X", "B-Y", "O", "O", "O", "B-X"]]
    assert error_kinds(truth, said) == {"right": 1, "boundary": 1, "type": 1, "both": 1, "missed": 1, "invented": 1}
    rng = random.Random(3)
    for _ in range(100):
        tags = [random_tags(rng, "BI") for _ in range(5)]
        other = [[rng.choice(["O", "B-X", "I-X", "B-Y"]) for _ in row] for row in tags]
        kinds, score = error_kinds(tags, other), entity_f1(tags, other)
        assert kinds["right"] == score.right
        assert sum(kinds[kind] for kind in ERRORS[:-1]) == score.true
        assert kinds["invented"] <= score.predicted - score.right


def test_novelty_splits_the_recall():
    rows = [(["Ada", "in", "New", "York"], ["B-X", "O", "B-Y", "I-Y"]), (["ada"], ["B-X"])]
    said = [["B-X", "O", "B-Y", "O"], ["O"]]
    counts = recall_by_novelty({"ada"}, rows, said)
    assert counts == {"seen": (1, 2), "unseen": (0, 1)}
    assert surface(rows[0][0], Entity(2, 4, "Y")) == "new york"


def test_the_gazetteer_remembers_names_that_are_mostly_names():
    rows = [
        (["In", "New", "York", "may", "rain"], ["O", "B-L", "I-L", "O", "O"]),
        (["May", "sleeps", "in", "York"], ["B-P", "O", "O", "B-L"]),
        (["may", "may"], ["O", "O"]),
    ]
    names = Gazetteer(rows)
    assert names.names == {"new york": "L"}, "york is a name in one of two places, may in one of four"
    assert names.predict([["new", "YORK", "New", "york", "york"], [], ["may"]]) == [
        ["B-L", "I-L", "B-L", "I-L", "O"],
        [],
        ["O"],
    ]
    assert Gazetteer([]).predict([["a"]]) == [["O"]]


# ---------------------------------------------------------------------------------------------------- the chain of tags


def make_chain(tags: int = TAGS, lengths: tuple[int, ...] = LENGTHS, seed: int = 0, dtype=torch.float64):
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    shapes = (*mask.shape, tags), (tags, tags), (tags,), (tags,)
    emissions, *scores = (torch.randn(shape, generator=seeded(seed + k), dtype=dtype) for k, shape in enumerate(shapes))
    return emissions.requires_grad_(), mask, *(s.requires_grad_() for s in scores)


def all_rows(n: int, tags: int = TAGS) -> list[tuple[int, ...]]:
    return list(itertools.product(range(tags), repeat=n))


def score_by_hand(row, emissions, transitions, start, end) -> torch.Tensor:
    total = start[row[0]] + end[row[-1]]
    for t, tag in enumerate(row):
        total = total + emissions[t, tag] + (transitions[row[t - 1], tag] if t else 0.0)
    return total


def log_z_by_hand(emissions, mask, *scores) -> torch.Tensor:
    """Every row of tags, one after the other."""
    found = []
    for row_emissions, real in zip(emissions, mask, strict=True):
        n = int(real.sum())
        each = [score_by_hand(row, row_emissions, *scores) for row in all_rows(n, emissions.shape[2])]
        found.append(torch.stack(each).logsumexp(0))
    return torch.stack(found)


def test_the_score_equals_a_loop_in_values_and_gradients():
    emissions, mask, *scores = make_chain()
    tags = torch.randint(TAGS, mask.shape, generator=seeded(9)).masked_fill(~mask, IGNORED)
    got = chain_score(emissions, tags, mask, *scores)
    rows = [tuple(t[m].tolist()) for t, m in zip(tags, mask, strict=True)]
    wanted = torch.stack([score_by_hand(row, e, *scores) for row, e in zip(rows, emissions, strict=True)])
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    above = torch.randn(len(LENGTHS), generator=seeded(4), dtype=torch.float64)
    ours_, theirs = (torch.autograd.grad(s, [emissions, *scores], above) for s in (got, wanted))
    for a, b in zip(ours_, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tags", [2, 3])
def test_the_sum_over_all_rows_equals_brute_force_in_values_and_gradients(tags):
    emissions, mask, *scores = make_chain(tags)
    got, wanted = log_partition(emissions, mask, *scores), log_z_by_hand(emissions, mask, *scores)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    above = torch.randn(len(LENGTHS), generator=seeded(4), dtype=torch.float64)
    ours_, theirs = (torch.autograd.grad(z, [emissions, *scores], above) for z in (got, wanted))
    for name, a, b in zip(("emissions", "transitions", "start", "end"), ours_, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12, msg=name)


def test_the_gradient_by_hand_passes_gradcheck():
    emissions, mask, *scores = make_chain(2, (3, 1))
    assert torch.autograd.gradcheck(lambda e, *s: LogPartition.apply(e, mask, *s), (emissions, *scores))


def test_the_sum_by_hand():
    zero = torch.zeros(2)
    emissions = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0]]])
    transitions = torch.tensor([[math.log(2.0), 0.0], [0.0, math.log(5.0)]])
    z = log_partition(emissions, torch.ones(1, 2).bool(), transitions, zero, zero).exp()
    torch.testing.assert_close(z, torch.tensor([2.0 + 1.0 + 3.0 + 15.0]))


def test_the_gradient_of_the_loss_is_expected_minus_observed():
    torch.manual_seed(0)
    crf = CRF(TAGS).double()
    for p in crf.parameters():
        nn.init.normal_(p)
    emissions, mask, *_ = make_chain(lengths=(4,))
    tags = torch.tensor([[2, 0, 0, 1]])
    rows = all_rows(4)
    scores = torch.stack([score_by_hand(row, emissions[0], *crf.parameters()) for row in rows])
    p = scores.softmax(0).detach()
    torch.testing.assert_close(crf.loss(emissions, tags, mask)[0], -p[rows.index((2, 0, 0, 1))].log())
    crf.loss(emissions, tags, mask).sum().backward()
    steps, words = torch.zeros(TAGS, TAGS).double(), torch.zeros(4, TAGS).double()
    for row, weight in [*zip(rows, p, strict=True), ((2, 0, 0, 1), torch.tensor(-1.0))]:
        for t, tag in enumerate(row):
            words[t, tag] += weight
            if t:
                steps[row[t - 1], tag] += weight
    torch.testing.assert_close(emissions.grad[0], words)
    torch.testing.assert_close(crf.transitions.grad, steps)
    torch.testing.assert_close(crf.start.grad, words[0])
    torch.testing.assert_close(crf.end.grad, words[-1])
    marginals = crf.marginals(emissions, mask)[0]
    observed = nn.functional.one_hot(tags[0], TAGS)
    torch.testing.assert_close(marginals - observed, words)
    torch.testing.assert_close(marginals.sum(-1), torch.ones(4).double())


def test_padding_changes_nothing_and_gets_no_gradient():
    emissions, mask, *scores = make_chain()
    wide = torch.full((3, 8, TAGS), 7.0, dtype=torch.float64)
    wide[:, :5] = torch.where(mask[..., None], emissions.detach(), -55.0)
    wide.requires_grad_()
    longer = torch.arange(8) < torch.tensor(LENGTHS)[:, None]
    z = log_partition(wide, longer, *scores)
    torch.testing.assert_close(z, log_partition(emissions, mask, *scores), rtol=0, atol=1e-12)
    z.sum().backward()
    assert wide.grad[~longer].abs().sum() == 0
    tags = torch.randint(TAGS, longer.shape, generator=seeded(2))
    other = torch.where(longer, tags, IGNORED)
    assert torch.equal(chain_score(wide, tags, longer, *scores), chain_score(wide, other, longer, *scores))
    alone = [
        viterbi(emissions[k : k + 1, :n], mask[k : k + 1, :n], *scores)[0][0].tolist() for k, n in enumerate(LENGTHS)
    ]
    path, _ = viterbi(wide, longer, *scores)
    assert [row[:n].tolist() for row, n in zip(path, LENGTHS, strict=True)] == alone
    assert path[~longer].abs().sum() == 0


def test_the_best_row_is_the_best_of_all():
    for seed in range(20):
        emissions, mask, *scores = make_chain(seed=seed)
        path, best = viterbi(emissions, mask, *scores)
        for k, n in enumerate(LENGTHS):
            rows = {row: score_by_hand(row, emissions[k], *scores).item() for row in all_rows(n)}
            assert tuple(path[k, :n].tolist()) == max(rows, key=rows.__getitem__)
            assert best[k].item() == pytest.approx(max(rows.values()), abs=1e-12)


def test_large_scores_do_not_overflow():
    emissions, mask, *scores = make_chain(dtype=torch.float32)
    big = [(500 * s).detach().requires_grad_() for s in (emissions, *scores)]
    z = log_partition(big[0], mask, *big[1:])
    z.sum().backward()
    assert all(bool(torch.isfinite(t).all()) for t in (z, *(b.grad for b in big)))
    over = z - viterbi(big[0], mask, *big[1:])[1]
    most = torch.tensor(LENGTHS) * math.log(TAGS)
    assert bool((over >= 0).all() and (over <= most).all()), "between the best row and as many rows as there are of it"


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_the_rules_allow_exactly_the_rows_that_spell_entities(scheme):
    tags = tag_names(["X", "Y"], scheme)
    start, step, end = rules(tags)
    for n in (1, 2, 3):
        for row in all_rows(n, len(tags)):
            allowed = bool(start[row[0]] and end[row[-1]] and all(step[a, b] for a, b in itertools.pairwise(row)))
            named = [tags[k] for k in row]
            assert allowed == (entity_tags(n, entities(named, strict=scheme), scheme) == named), named


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_decoding_obeys_and_is_the_best_that_obeys(scheme):
    tags = tag_names(["X"], scheme)
    crf = CRF(tags).double()
    torch.manual_seed(1)
    for p in crf.parameters():
        nn.init.normal_(p)
    free = 0
    for seed in range(10):
        emissions, mask, *_ = make_chain(len(tags), seed=seed)
        got = crf.decode(emissions, mask)
        free += not torch.equal(got, crf.decode(emissions, mask, obey=False))
        for k, n in enumerate(LENGTHS):
            valid = [
                row
                for row in all_rows(n, len(tags))
                if entity_tags(n, entities([tags[j] for j in row], strict=scheme), scheme) == [tags[j] for j in row]
            ]
            best = max(valid, key=lambda row: score_by_hand(row, emissions[k], *crf.parameters()).item())
            assert tuple(got[k, :n].tolist()) == best
    assert free, "or the rules were never needed"


def test_a_chain_without_scores_of_neighbours_is_a_softmax_per_word():
    emissions, mask, *_ = make_chain()
    tags = torch.randint(TAGS, mask.shape, generator=seeded(3))
    nats = CRF(TAGS).double().loss(emissions, tags, mask).sum()
    torch.testing.assert_close(nats, cross_entropy(emissions[mask], tags[mask], reduction="sum"))


# --------------------------------------------------------------------------------------------------- words and subwords


@pytest.mark.parametrize("name", ["bert-mini", "minilm", "gpt-mini"])
def test_a_word_has_its_first_token_in_an_encoder_and_its_last_in_a_decoder(name):
    base = load_base(name)
    words = ["Unbelievable", "weather", "in", "@Ada_Lovelace", "don't", "日本", "😂", "naïve", "[SEP]", "x" * 30, "."]
    (window,) = align(base, [words])[0]
    (encoding,) = base.tokens([" ".join(words)])
    assert window.ids == encoding.ids
    assert window.words == list(range(len(words)))
    starts, several = [0], 0
    for word in words:
        starts.append(starts[-1] + len(word) + 1)
    for word, place, start in zip(words, window.places, starts, strict=False):
        begin, end = encoding.offsets[place]
        if base.kind == "encoder":  # the first token, perhaps with the space before it
            assert start - 1 <= begin <= start < end
        else:
            assert begin < end == start + len(word)
        several += end - begin < len(word)
    assert several >= 3, "or first and last token are the same"


def test_words_are_read_as_running_text_and_not_one_by_one():
    base = load_base("bert-mini")
    words = ["from", "the", "green", "hills"]
    (window,) = align(base, [words])[0]
    assert window.ids == base.tokens(["from the green hills"])[0].ids
    alone = base.tokenizer.encode(words, is_pretokenized=True).ids
    assert len(alone) > len(window.ids), "words without their spaces fall into more pieces"


def test_words_without_tokens_and_empty_sentences_are_in_no_window():
    base = load_base("minilm")
    one, empty, blank = align(base, [["a", "\ufe0f", "", "b"], [], ["", "\ufe0f"]])
    assert (one[0].words, one[0].places) == ([0, 3], [1, 2])
    assert (empty, blank) == ([], [])
    assert align(base, []) == []


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("length", [5, 8, 11, 48])
def test_long_sentences_are_read_in_windows_and_every_word_once(kind, length):
    base = make_base(kind)
    rng = random.Random(length)
    for n in (1, 7, 30, 80):
        words = rng.choices([*WORDS, "townandtown"], k=n)
        windows = align(base, [words], length)[0]
        assert sorted(word for window in windows for word in window.words) == list(range(n))
        (whole,) = align(make_base(kind, context=512), [words])[0]
        for window in windows:
            assert len(window.ids) == len(window.type_ids) <= length
            assert window.words == list(range(window.words[0], window.words[-1] + 1)), "a stretch, so a chain"
            at = [whole.ids[whole.places[word]] for word in window.words]
            assert [window.ids[place] for place in window.places] == at
        if len(windows) > 1 and length > 8:
            inner = [w for window in windows[1:-1] for w in (window.places[0], length - 1 - window.places[-1])]
            assert min(inner, default=2) >= 2, "a word is decided away from the cuts"


def test_capitals_are_told_by_the_types_of_tokens():
    base = load_base("minilm")
    (window,) = align(base, [["Ada", "met", "mcDonald", "NYC"]], capitals=True)[0]
    marked = {base.tokenizer.id_to_token(i) for i, kind in zip(window.ids, window.type_ids, strict=True) if kind}
    assert {"ada", "nyc"} <= marked
    assert not {"met", "[CLS]", "[SEP]"} & marked
    (plain,) = align(base, [["Ada", "met", "mcDonald", "NYC"]])[0]
    assert plain.ids == window.ids
    assert not any(plain.type_ids)


# ------------------------------------------------------------------------------------------------------------ on a base


@pytest.mark.parametrize("crf", [True, False])
def test_the_loss_runs_over_words_and_not_over_tokens(crf):
    base, tags = make_base(), tag_names(["LOC", "PER"])
    torch.manual_seed(0)
    head = TaggingHead(12, tags, crf)
    for p in head.parameters():
        nn.init.normal_(p)
    rows = [(["townandtown", "old", "rome"], ["O", "B-LOC", "I-LOC"]), (["ada"], ["B-PER"])]
    examples = head.examples(base, rows, None)
    hidden = torch.randn(2, 20, 12, generator=seeded(1))
    targets = torch.full((2, 20), IGNORED)
    for k, example in enumerate(examples):
        targets[k, : len(example.target)] = example.target
    assert (targets != IGNORED).sum(1).tolist() == [3, 1]
    nats, count = head.loss(head(hidden), targets)
    wanted = torch.zeros(())
    for row, target, (_, names) in zip(head(hidden), targets, rows, strict=True):
        at = (target != IGNORED).nonzero()[:, 0]
        numbers = torch.tensor([[tags.index(name) for name in names]])
        if crf:
            wanted = wanted + head.crf.loss(row[at][None], numbers, torch.ones_like(numbers).bool()).sum()
        else:
            wanted = wanted - row[at].log_softmax(-1)[range(len(at)), numbers[0]].sum()
    assert count == 4
    torch.testing.assert_close(nats, wanted)


def test_words_are_moved_to_the_left_in_their_order():
    logits = torch.arange(24.0).view(2, 6, 2)
    targets = torch.tensor([[-100, 3, -100, 1, 2, -100], [0, -100, -100, -100, -100, -100]])
    emissions, tags, mask = _at_words(logits, targets)
    assert emissions[0].tolist() == [[2, 3], [6, 7], [8, 9]]
    assert emissions[1, 0].tolist() == [12, 13]
    assert (tags.tolist(), mask.tolist()) == ([[3, 1, 2], [0, 0, 0]], [[True] * 3, [True, False, False]])


@pytest.mark.parametrize(("kind", "crf"), [("encoder", True), ("encoder", False), ("decoder", True)])
def test_a_base_learns_to_tag(kind, crf):
    head = TaggingHead(12, tag_names(["LOC", "PER"]), crf)
    tagger = Tagger(finetune(make_base(kind), make_rows(300), head=head, config=replace(CONFIG, lr=1e-2)))
    rows = make_rows(60, seed=1)
    score = entity_f1([tags for _, tags in rows], tagger.predict([words for words, _ in rows]))
    assert without_context(make_rows(300), rows) < 0.88
    assert score.f1 > (0.92 if kind == "encoder" else 0.98), "a decoder learns from the chain what follows old"
    history = tagger.model.history
    assert history is not None
    assert sum(history.loss[-20:]) / 20 < 0.05 * history.loss[0]
    assert any(p.abs().sum() > 0 for p in head.crf.parameters()) == crf


def test_capitals_reach_a_base_that_reads_small_letters():
    rng, rows = random.Random(0), []
    for _ in range(120):
        words = [rng.choice(["town", "Town"]) for _ in range(rng.randrange(1, 6))]
        rows.append((words, ["B-LOC" if word == "Town" else "O" for word in words]))
    found = {}
    for capitals in (True, False):
        head = TaggingHead(12, tag_names(["LOC"]), capitals=capitals)
        tagger = Tagger(finetune(make_base(), rows[:100], head=head, config=CONFIG))
        found[capitals] = entity_f1([tags for _, tags in rows[100:]], tagger.predict([w for w, _ in rows[100:]])).f1
    assert found[True] == 1.0
    assert found[False] < 0.8


def make_tagger(length: int | None = None, kind: str = "encoder") -> Tagger:
    """Untrained, with an opinion on every word."""
    torch.manual_seed(3)
    head = TaggingHead(12, tag_names(["LOC", "PER"]))
    for p in head.parameters():
        nn.init.normal_(p)
    return Tagger(FineTuned(make_base(kind), head, length).eval())


def test_every_word_gets_a_tag_whatever_it_is():
    tagger = make_tagger()
    sentences = [["ada"], [], [""], ["😂", "old", "\u200d"], WORDS * 30, ["<pad>", "[SEP]", "日本"], ["a b", "\n"]]
    for batch in (1, 64):
        found = tagger.predict(sentences, batch)
        assert [len(tags) for tags in found] == [len(words) for words in sentences]
        assert found == [row for words in sentences for row in tagger.predict([words])]
        for tags in found:
            assert entity_tags(len(tags), entities(tags, strict="bio")) == tags
    assert tagger.predict([[""]]) == [["O"]]
    assert tagger.predict([]) == []


def test_a_word_without_tokens_is_outside():
    head = TaggingHead(384, tag_names(["PER"]))
    with torch.no_grad():
        head.head.bias.copy_(torch.tensor([0.0, 1.0, 9.0]))
    tagger = Tagger(FineTuned(load_base("minilm"), head))
    assert tagger.predict([["Ada", "\ufe0f", "King"]]) == [["B-PER", "O", "B-PER"]]


def test_disobedient_answers_can_be_asked_for():
    tagger = make_tagger()
    rows = [words for words, _ in make_rows(40)]
    free = tagger.predict(rows, obey=False)
    assert any(entity_tags(len(tags), entities(tags, strict="bio")) != tags for tags in free)


def test_marks_are_characters_of_the_text():
    tagger = train_tagger(make_rows(300), epochs=20, lr=0.02, d_model=16, d_hidden=16, dropout=0.0)
    text = "  ada   met bob\nin old paris "
    (found,) = tagger.marks([text])
    assert [(text[m.start : m.end], m.label) for m in found] == [("ada", "PER"), ("bob", "PER"), ("old paris", "LOC")]
    assert tagger.marks([""]) == [[]]


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_what_is_saved_comes_back_equal(tmp_path, kind):
    tagger = make_tagger(length=20, kind=kind)
    again = load_tagger(tagger.save(tmp_path / "t"))
    assert (again.tags, again.model.length) == (tagger.tags, 20)
    settings = [(t.head.learns_steps, t.head.capitals) for t in (tagger, again)]
    assert settings[0] == settings[1]
    rows = [WORDS * 9, ["Ada"], []]
    for a, b in zip(tagger.emissions(rows), again.emissions(rows), strict=True):
        assert torch.equal(a, b)
    assert again.predict(rows) == tagger.predict(rows)


def test_a_head_with_ways_of_its_own_is_not_saved_as_a_plain_one(tmp_path):
    class Other(TaggingHead):
        pass

    with pytest.raises(TypeError, match="a Other is not kept by a folder"):
        Tagger(FineTuned(make_base(), Other(12, tag_names(["X"])))).save(tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_damaged_and_missing_taggers_are_refused(tmp_path):
    folder = make_tagger().save(tmp_path / "t")
    about, weights = (folder / "tagger.json").read_bytes(), (folder / "tagger.safetensors").read_bytes()
    (folder / "tagger.safetensors").write_bytes(weights[:-3])
    with pytest.raises(ValueError, match="the tagger in t is damaged or belongs to another base"):
        load_tagger(folder)
    (folder / "tagger.safetensors").write_bytes(weights)
    (folder / "tagger.json").write_text(json.dumps(json.loads(about) | {"tags": ["O", "B-X"]}))
    with pytest.raises(ValueError, match="the tagger in t is damaged"):
        load_tagger(folder)
    (folder / "tagger.json").unlink()
    with pytest.raises(OSError, match=r"t is a base without a tagger: tagger\.json is missing"):
        load_tagger(folder)
    (folder / "tagger.json").write_bytes(about)
    (folder / "tagger.safetensors").unlink()
    with pytest.raises(OSError, match=r"t is a base without a tagger: tagger\.safetensors is missing"):
        load_tagger(folder)
    with pytest.raises(TypeError, match="this one has a ClassificationHead"):
        Tagger(FineTuned(make_base(), ClassificationHead(12, ("a", "b"))))


# --------------------------------------------------------------------------------------------------------- from scratch


def test_the_lstm_crf_ignores_padding_and_its_loss_is_that_of_its_chain():
    torch.manual_seed(0)
    vocabulary = Vocabulary.build("abcdefghij")  # and the unknown
    model = LSTMTagger(vocabulary, tag_names(["X"]), d_model=8, d_hidden=5, dropout=0.0).double()
    for p in model.crf.parameters():
        nn.init.normal_(p)
    mask = torch.arange(7) < torch.tensor([[7], [3], [1]])
    idx = torch.stack(
        [torch.randint(11, mask.shape, generator=seeded(1)), torch.randint(9, mask.shape, generator=seeded(2))], -1
    )
    other = torch.where(mask[..., None], idx, 5)
    torch.testing.assert_close(model(idx, mask)[mask], model(other, mask)[mask], rtol=0, atol=1e-12)
    alone = [model(idx[k : k + 1, :n], mask[k : k + 1, :n])[0] for k, n in enumerate((7, 3, 1))]
    torch.testing.assert_close(model(idx, mask)[mask], torch.cat(alone), rtol=0, atol=1e-12)
    tags = torch.randint(3, mask.shape, generator=seeded(3))
    nats, count, state = _tag_loss(model, (idx, mask, tags), None)
    assert (count, state) == (11, None)
    torch.testing.assert_close(nats.double(), model.crf.loss(model(idx, mask), tags, mask).sum(), rtol=1e-5, atol=1e-4)


def test_the_lstm_crf_learns_what_comes_before_and_after():
    rows, test = make_rows(300), make_rows(60, seed=1)
    tagger = train_tagger(rows, epochs=20, lr=0.02, d_model=16, d_hidden=16, dropout=0.0)
    assert tagger.tags == tag_names(["LOC", "PER"])
    assert entity_f1([tags for _, tags in test], tagger.predict([words for words, _ in test])).f1 > 0.98
    assert not tagger.training


def test_the_seed_decides_the_run():
    rows = make_rows(40)
    runs = [train_tagger(rows, epochs=2, seed=seed, d_model=8, d_hidden=8) for seed in (1, 1, 2)]
    weights = [run.state_dict() for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["head.weight"], weights[2]["head.weight"])


def test_a_pass_deals_every_sentence_once():
    ids = [torch.full((k % 5 + 1, 2), k) for k in range(30)]
    rows = _TagRows(ids, [[k % 3] * (k % 5 + 1) for k in range(30)], batch=7, seed=2)
    dealt = []
    for idx, mask, tags in map(rows, range(len(rows))):
        for row, real, tag in zip(idx, mask, tags, strict=True):
            k = int(row[0, 0])
            dealt.append(k)
            assert row[real].tolist() == ids[k].tolist()
            assert set(tag[real].tolist()) == {k % 3}
    assert sorted(dealt) == list(range(30))


def test_a_tagger_learns_from_a_data_set_by_name():
    rows, test = data.load("pydocs_tags", "train")[:1000], data.load("pydocs_tags", "test")
    tagger = train_tagger(rows, epochs=6, lr=0.02, d_model=32, d_hidden=32)
    truth, words = [row.tags for row in test], [row.tokens for row in test]
    assert entity_f1(truth, tagger.predict(words)).f1 > 0.25


# --------------------------------------------------------------------------------------------------------------- errors


def test_bad_input_is_refused_with_its_value():
    base, head = make_base(), TaggingHead(12, tag_names(["X"]))
    zero, mask = torch.zeros(2), torch.tensor([[True, True], [False, False]])
    gap = torch.tensor([[True, False, True]])
    for call, message in [
        (lambda: entities(["PER"]), "tag 'PER' is none of O, B-LABEL"),
        (lambda: entities(["B-"]), "tag 'B-' is none"),
        (lambda: entities([], strict="iob"), "strict='iob'"),
        (lambda: entity_tags(4, [Entity(0, 2, "X"), Entity(1, 3, "Y")]), "overlaps one that ends at 2"),
        (lambda: entity_tags(2, [Entity(1, 3, "X")]), "leaves a sentence of 2 words"),
        (lambda: entity_tags(2, [Entity(1, 1, "X")]), "is empty"),
        (lambda: entity_tags(2, [], "bilou"), "scheme='bilou'"),
        (lambda: tag_names(["X"], "io"), "scheme='io'"),
        (lambda: entity_f1([["O"]], []), "1 true sentences and 0 predicted"),
        (lambda: entity_f1([["O"]], [["O", "O"]]), "sentence 0 has 1 true tags and 2 predicted"),
        (lambda: Gazetteer([(["a"], ["O", "O"])]), "1 words but 2 tags"),
        (lambda: head.examples(base, [(["a", "b"], ["O"])], None), "2 words but 1 tags"),
        (lambda: head.examples(base, [(["a"], ["B-Z"])], None), "tag 'B-Z' in the row that begins"),
        (lambda: head.examples(base, ["a O"], None), "a row must be"),
        (lambda: finetune(base, [], head=head), "0 examples"),
        (lambda: finetune(base, [([], [])], head=head), "0 examples"),
        (lambda: TaggingHead(12, ["B-X", "I-X"]), "tags must hold 'O'"),
        (lambda: TaggingHead(12, ["O", "O"]), "each one once"),
        (lambda: TaggingHead(12, ["O", "X"]), "tag 'X' is none"),
        (lambda: CRF(1), "at least 2 tags, got 1"),
        (lambda: log_partition(torch.zeros(2, 2, 2), mask, torch.zeros(2, 2), zero, zero), "leave empty sentences out"),
        (lambda: viterbi(torch.zeros(2, 2, 2), mask, torch.zeros(2, 2), zero, zero), r"mask of shape \(2, 2\)"),
        (lambda: chain_score(torch.zeros(2, 2, 2), mask.long(), mask, torch.zeros(2, 2), zero, zero), "first word"),
        (
            lambda: log_partition(torch.zeros(1, 3, 2), gap, torch.zeros(2, 2), zero, zero),
            "row 0 has words after padding",
        ),
        (lambda: viterbi(torch.zeros(1, 0, 2), gap[:, :0], torch.zeros(2, 2), zero, zero), "leave empty sentences out"),
        (lambda: align(base, [["a"]], 2), "length=2 must be above 2 and at most the base's context=48"),
        (lambda: align(base, [["a"]], 49), "length=49"),
        (lambda: train_tagger([]), "0 sentences with words among 0 rows"),
        (lambda: train_tagger([([], [])]), "0 sentences with words among 1 rows"),
        (lambda: train_tagger([(["a"], ["B-Z"])], tags=tag_names(["X"])), "tag 'B-Z'"),
        (lambda: highlight(["a"], []), "1 words but 0 tags"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    for call in (
        lambda: make_tagger().predict(["Ada sleeps"]),
        lambda: Gazetteer([]).predict(["Ada"]),
        lambda: train_tagger(make_rows(3), epochs=1).predict(["Ada"]),
    ):
        with pytest.raises(TypeError, match=r"must be a list of words, got .*tokenize"):
            call()
    for call in (lambda: make_tagger().marks("Ada sleeps"), lambda: tag_names("PER")):
        with pytest.raises(TypeError, match=r"is one string; give a list of"):
            call()


def test_a_page_shows_entities_by_name_and_escapes_the_text():
    page = highlight(["<b>", "Ada", "King", "&", "AT&T"], ["O", "B-PER", "I-PER", "O", "B-ORG"])
    assert "Ada King <small>[PER]</small></mark> &amp; <mark" in page
    assert "&lt;b&gt;" in page
    assert "AT&amp;T <small>[ORG]</small>" in page
    assert page.count("color:inherit") == 2
    assert highlight([], []) == '<p style="overflow-wrap:anywhere"></p>'


def test_the_configuration_of_a_long_run_is_respected():
    config = replace(CONFIG, length=9, epochs=1)
    rows = [(WORDS * 3, ["O"] * 36)]
    model = finetune(make_base(), rows * 4, head=TaggingHead(12, tag_names(["X"])), config=config)
    assert Tagger(model).predict([WORDS * 3])[0] == ["O"] * 36
    assert max(len(w.ids) for w in model.head.align(model.base, [WORDS * 3], 9)[0]) <= 9
