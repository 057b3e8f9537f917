r"""Answering: first find the passage, then read the answer in it.

Finding is ranking: every passage gets a score for a question. `BM25` counts shared words, rare ones for more; `embed`
makes vectors to compare, which `ContrastiveHead` teaches to lie close where a passage answers a question; `blend` and
`reciprocal_ranks` use both. `read_folder` cuts any folder of texts into passages that know where they stand.

Reading is pointing: a `SpanHead` on a base gives every token two scores, as the first and as the last token of the
answer. Passages that are longer than the base reads are cut into overlapping `windows`; `best_spans` finds the best
pair of places; a `Reader` puts this together and gives characters of the original text back. `exact_match` and
`answer_f1` judge it as the SQuAD script does.
"""

import html
import math
import os
import random
import re
import string
import tempfile
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Encoding
from torch import Tensor, nn
from torch.nn import functional as F

from lmtl_course import data
from lmtl_course.data import cache_dir, load
from lmtl_course.embedded import QuestionAnswer
from lmtl_course.losses import cross_entropy
from lmtl_course.pretraining import Base, Encoded, load_base
from lmtl_course.text import HAN, token_spans, tokenize
from lmtl_course.training import IGNORED, History, _autocast
from lmtl_course.transfer import Example, FineTuneConfig, FineTuned, Head, _mode, finetune, opened, pool, save_parts

Scores = Float[np.ndarray, "questions passages"]
CELLS = 2**24
"""Scores that are held at once while many questions are asked."""
_HAN_PAIR = re.compile(f"(?=([{HAN}]{{2}}))")

# ------------------------------------------------------------------------------------------------------ counting: BM25


def words(text: str) -> list[str]:
    """What is counted: small words without signs; of Chinese, the characters and each pair of neighbours.

    Args:
        text: any text.

    >>> words("Who wrote C++ in 1985?"), words("北京在")
    (['who', 'wrote', 'c', 'in', '1985'], ['北', '京', '在', '北京', '京在'])
    """
    tokens = (text[start:end] for start, end in token_spans(text))
    return [token.casefold() for token in tokens if token[0].isalnum()] + _HAN_PAIR.findall(text)


class BM25:
    r"""Rank passages by the words that they share with a question, over an inverted index.

    $$s(q, p) = \sum_{w \in q} \mathrm{idf}(w)\,
    \frac{c_{wp}\,(k_1 + 1)}{c_{wp} + k_1\,(1 - b + b\,\ell_p / \bar\ell)}$$

    Everything but the sum is known before a question comes, and is kept per word: which passages hold it, and what each
    earns for it. Many questions are then one gather and one `bincount`.

    Args:
        texts: the passages.
        tokenize: cuts a text into what is counted.
        k1: how soon further occurrences stop counting; 0 counts a word once.
        b: how much a long passage pays for its length; from 0 to 1.
        idf: "lucene", $\log(1 + (N - n_w + \frac12) / (n_w + \frac12))$, never negative; or "robertson", the same
            without the 1, where what is negative becomes a quarter of the mean, as in the package `rank_bm25`.

    Raises:
        ValueError: there are no passages, or a number is out of range.

    Source: Robertson and Zaragoza 2009, doi:10.1561/1500000019, section 3.

    >>> index = BM25(["the cat sat", "the dog ran", "the end"])
    >>> index.scores(["Which dog ran?"]).round(3)
    array([[0.   , 1.857, 0.   ]])
    """

    def __init__(
        self,
        texts: Sequence[str],
        tokenize: Callable[[str], Sequence[str]] = words,
        k1: float = 1.5,
        b: float = 0.75,
        idf: str = "lucene",
    ):
        if isinstance(texts, str):
            raise TypeError(f"texts is one string ({texts[:20]!r}), expected several; wrap it in a list")
        if not len(texts):
            raise ValueError("there are 0 passages to search; give at least one")
        if k1 < 0 or not 0 <= b <= 1:
            raise ValueError(f"k1={k1} must be at least 0 and b={b} between 0 and 1")
        if idf not in ("lucene", "robertson"):
            raise ValueError(f"idf={idf!r} must be 'lucene' or 'robertson'")
        self.tokenize, self.passages = tokenize, len(texts)
        self.vocabulary: dict[str, int] = {}
        bags = [[self._number(word) for word in tokenize(text)] for text in texts]
        lengths = np.array([len(bag) for bag in bags])
        holds = np.repeat(np.arange(len(texts)), lengths)
        numbers = np.fromiter((number for bag in bags for number in bag), dtype=np.int64, count=int(lengths.sum()))
        keys, counts = np.unique(numbers * len(texts) + holds, return_counts=True)  # by word, then by passage
        word, self.posting = np.divmod(keys, len(texts))
        self.start = np.searchsorted(word, np.arange(len(self.vocabulary) + 1))
        self.idf = self._rarity(np.diff(self.start), idf)
        room = k1 * (1 - b + b * lengths / max(lengths.mean(), 1e-9))
        self.earned = self.idf[word] * counts * (k1 + 1) / (counts + room[self.posting])

    def _number(self, word: str) -> int:
        return self.vocabulary.setdefault(word, len(self.vocabulary))

    def _rarity(self, having: Int[np.ndarray, " vocab"], idf: str) -> Float[np.ndarray, " vocab"]:
        odds = (self.passages - having + 0.5) / (having + 0.5)
        if idf == "lucene":
            return np.log1p(odds)
        rarity = np.log(odds)
        rarity[rarity < 0] = 0.25 * rarity.mean() if len(rarity) else 0.0
        return rarity

    def scores(self, questions: Sequence[str]) -> Scores:
        """What each passage earns for each question; a word that occurs twice in a question counts twice.

        Args:
            questions: of any length; one that shares no word with a passage scores it 0.
        """
        if isinstance(questions, str):
            raise TypeError(f"questions is one string ({questions[:20]!r}), expected several; wrap it in a list")
        step = max(1, CELLS // self.passages)
        blocks = [self._block(questions[k : k + step]) for k in range(0, len(questions), step)]
        return np.concatenate(blocks) if blocks else np.zeros((0, self.passages))

    def _block(self, questions: Sequence[str]) -> Scores:
        asked = [(q, self.vocabulary.get(w, -1)) for q, text in enumerate(questions) for w in self.tokenize(text)]
        row, word = np.array([pair for pair in asked if pair[1] >= 0], dtype=np.int64).reshape(-1, 2).T
        first, count = self.start[word], self.start[word + 1] - self.start[word]
        before = np.repeat(np.cumsum(count) - count, count)
        where = np.repeat(first, count) + np.arange(count.sum()) - before  # every posting of every word asked
        cells = np.repeat(row, count) * self.passages + self.posting[where]
        size = len(questions) * self.passages
        earned = np.bincount(cells, self.earned[where], size).astype(float)  # of nothing, integers
        return earned.reshape(len(questions), self.passages)


# ------------------------------------------------------------------------------------------------ comparing: dense


class Pair(NamedTuple):
    """A question and the passage that answers it."""

    question: str
    passage: str


class ContrastiveHead(Head):
    r"""Teach a base to put a question near its passage: the other passages of the batch are the wrong answers.

    With unit vectors $q_i, p_j$ of a batch, $s_{ij} = q_i^\top p_j / \tau$ and
    $L = -\sum_i \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}$. The head has no weights: all of the base must move.
    Rows of `finetune` are `Pair`s. A passage that stands twice in a batch is no wrong answer to either question.

    Args:
        temperature: $\tau$; the smaller, the more the hardest wrong passage counts.
        apart: leave equal passages out of each other's wrong answers.

    Raises:
        ValueError: a temperature that is not above 0.

    Source: van den Oord et al. 2018, arXiv:1807.03748, equation 4; in-batch negatives: Karpukhin et al. 2020,
    arXiv:2004.04906, section 3.2.

    >>> from lmtl_course.pretraining import load_base
    >>> model = FineTuned(load_base("bert-mini"), ContrastiveHead())
    >>> model.logits(["a question"]).norm().round(decimals=4).item()
    1.0
    """

    def __init__(self, temperature: float = 0.05, apart: bool = True):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature={temperature} must be above 0; 0.05 is usual")
        self.temperature, self.apart = temperature, apart
        self._read: Callable[[Tensor], Tensor] | None = None

    def examples(self, base: Base, rows: Sequence[Any], length: int | None) -> list[Example]:
        """Pairs as the passage's tokens, with the passage's number and the question's tokens as the target."""
        for row in rows:
            if not isinstance(row, tuple | list) or len(row) != 2 or not all(isinstance(part, str) for part in row):
                raise ValueError(f"a row must be (question, passage), two texts, got {row!r:.80}")

        def read(ids: Tensor) -> Tensor:
            mask = ids != IGNORED
            idx = ids.masked_fill(~mask, base.pad)
            return self(pool(base.hidden(Encoded(idx, mask, torch.zeros_like(idx))), mask))

        self._read = read  # `loss` sees the passages' vectors; those of the questions come from the same base
        number: dict[str, int] = {}
        numbers = [number.setdefault(passage, len(number)) for _, passage in rows]
        questions, passages = (base.tokens([row[k] for row in rows], length) for k in (0, 1))
        return [
            Example(passage, torch.tensor([k, *question.ids]))
            for question, passage, k in zip(questions, passages, numbers, strict=True)
        ]

    def reduce(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The mean over the real tokens."""
        return pool(hidden, mask)

    def forward(self, pooled: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch d_model"]:
        """The vector brought to length 1."""
        return F.normalize(pooled.float(), dim=-1)

    def loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        r"""$L$ for passages' vectors and targets from `examples`."""
        assert self._read is not None, "finetune calls `examples` first"
        asked = self._read(targets[:, 1:])
        with torch.autocast(asked.device.type, enabled=False):  # half precision would blur what tau sharpens
            scores = asked @ logits.T / self.temperature
        if self.apart:
            same = targets[:, 0, None] == targets[:, 0]
            scores = scores.masked_fill(same.fill_diagonal_(False), -torch.inf)
        right = torch.arange(len(scores), device=scores.device)
        return cross_entropy(scores, right, reduction="sum"), len(scores)


def embed(model: Base | FineTuned, texts: Sequence[str], length: int | None = None) -> Float[Tensor, "texts d_model"]:
    """Texts as unit vectors, mean-pooled, so that a product of two of them is the cosine of their angle.

    Args:
        model: a base as it is, or what `finetune` made of one with a `ContrastiveHead`.
        texts: at least one; a warning says so where one had to be cut.
        length: for a base, cut texts after so many tokens; None means as many as it can read.

    Raises:
        ValueError: there is no text.

    Source: Reimers and Gurevych 2019, arXiv:1908.10084, section 3 (mean pooling).

    >>> from lmtl_course.pretraining import load_base
    >>> vectors = embed(load_base("bert-mini"), ["to read a file", "reading files", "the moon"])
    >>> bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
    True
    """
    fitted = FineTuned(model, ContrastiveHead(), length) if isinstance(model, Base) else model
    return fitted.logits(texts)


def docstring_pairs(split: str) -> list[Pair]:
    """Questions that every Python carries: the first sentence of a docstring, to be answered by the rest of it.

    Modules are dealt to the splits whole. What stands in two splits all the same (equal sentences or equal rests) stays
    in the first of train, valid and test alone, so that nothing judged was learned. Rests that repeat the sentence, or
    have fewer than 8 words, are left out.

    Args:
        split: "train", "valid" or "test".

    Raises:
        ValueError: another split.

    >>> {split: len(docstring_pairs(split)) > 50 for split in ("train", "valid", "test")}
    {'train': True, 'valid': True, 'test': True}
    """
    order = ("train", "valid", "test")
    if split not in order:
        raise ValueError(f"split={split!r} must be one of {', '.join(order)}")
    seen: set[str] = set()
    kept: list[Pair] = []
    for part in order[: order.index(split) + 1]:
        kept = []
        for row in data.load("pydocs_questions", part):
            start = row.starts[0]
            page = row.context[start : row.context.find("\n", start)]
            pair = Pair(row.answers[0], page[len(row.answers[0]) :].strip())
            if len(pair.passage.split()) >= 8 and pair.question not in pair.passage and not seen & set(pair):
                seen |= set(pair)
                kept.append(pair)
    return kept


# --------------------------------------------------------------------------------------------- both, and how good it is


def standardise(scores: Scores) -> Scores:
    """Each question's scores with mean 0 and standard deviation 1; where all are equal, 0.

    Args:
        scores: a row per question.

    >>> standardise(np.array([[1.0, 3.0], [5.0, 5.0]]))
    array([[-1.,  1.],
           [ 0.,  0.]])
    """
    away = scores - scores.mean(1, keepdims=True)
    spread = away.std(1, keepdims=True)
    equal = scores.max(1, keepdims=True) == scores.min(1, keepdims=True)  # rounding must not make a spread of nothing
    return np.where(equal, 0.0, away / np.where(equal, 1.0, spread))


def blend(counted: Scores, compared: Float[np.ndarray, "_ _"], weight: float = 0.5) -> Scores:
    """Two judges as one: `weight` of the second's standardised scores, the rest of the first's.

    Args:
        counted: of BM25, say.
        compared: of a dense model, say.
        weight: from 0 (the first alone) to 1.

    Raises:
        ValueError: the shapes differ, or the weight is out of range.

    >>> blend(np.array([[0.0, 1.0]]), np.array([[9.0, 1.0]]), 0.25)
    array([[-0.5,  0.5]])
    """
    if counted.shape != compared.shape or not 0 <= weight <= 1:
        raise ValueError(
            f"shapes {counted.shape} and {compared.shape} must be equal and weight={weight} between 0 and 1"
        )
    return (1 - weight) * standardise(counted) + weight * standardise(compared)


def places(scores: Scores) -> Int[np.ndarray, "questions passages"]:
    """The place of each passage in its question's list, from 1; equal scores share their mean place, rounded up.

    Args:
        scores: a row per question.

    >>> places(np.array([[0.2, 0.9, 0.2, 0.1]]))
    array([[3, 1, 3, 4]])
    """
    return np.stack([_places(row) for row in scores]) if len(scores) else np.zeros(scores.shape, dtype=np.int64)


def _places(row: np.ndarray) -> np.ndarray:
    ordered = np.sort(-row)
    first, last = (np.searchsorted(ordered, -row, side=side) for side in ("left", "right"))
    return (first + 1 + last + 1) // 2


def reciprocal_ranks(*scores: Float[np.ndarray, "_ _"], k: float = 60.0) -> Scores:
    r"""Reciprocal rank fusion, $\sum_m 1 / (k + r_m(p))$: it looks at places alone, so scales do not matter.

    Args:
        scores: of each judge, a row per question.
        k: how little the first places stand out.

    Raises:
        ValueError: no judge, or shapes that differ.

    Source: Cormack, Clarke and Büttcher 2009, doi:10.1145/1571941.1572114.

    >>> reciprocal_ranks(np.array([[3.0, 2.0, 1.0]]), np.array([[0.0, 0.9, 0.1]]), k=0.0).round(2)
    array([[1.33, 1.5 , 0.83]])
    """
    shapes = {judge.shape for judge in scores}
    if len(shapes) != 1 or k < 0:
        raise ValueError(f"shapes {[*shapes]} must be one and k={k} at least 0")
    return np.add.reduce([1 / (k + places(judge)) for judge in scores])


def ranks(scores: Scores, truth: Sequence[int] | np.ndarray) -> Int[np.ndarray, " questions"]:
    """The place of the right passage for each question, from 1.

    Args:
        scores: a row per question; nan is an error.
        truth: the number of the right passage for each.

    Raises:
        ValueError: not one right passage for each question, or a number that is none.

    >>> ranks(np.array([[0.2, 0.9, 0.5], [1.0, 0.0, 0.0]]), [2, 0])
    array([2, 1])
    """
    truth = np.asarray(truth)
    if truth.shape != scores.shape[:1] or (len(truth) and not 0 <= truth.min() <= truth.max() < scores.shape[1]):
        raise ValueError(
            f"{len(scores)} questions over {scores.shape[1]} passages need a passage's number each, got {truth!r:.60}"
        )
    if np.isnan(scores).any():
        raise ValueError("a score is nan; look at the model that made it")
    return places(scores)[np.arange(len(truth)), truth]


def recall_at(k: int, found: Int[np.ndarray, " questions"]) -> float:
    """The share of questions whose passage is among the first k.

    Args:
        k: how many passages are looked at.
        found: from `ranks`.

    Raises:
        ValueError: k is below 1, or there are no questions.

    >>> recall_at(2, np.array([1, 3, 2, 7]))
    0.5
    """
    if k < 1 or not len(found):
        raise ValueError(f"k={k} must be at least 1, with at least one question (there are {len(found)})")
    return float((np.asarray(found) <= k).mean())


def mean_reciprocal_rank(found: Int[np.ndarray, " questions"]) -> float:
    """The mean of 1 / place: 1 where the right passage always comes first.

    Args:
        found: from `ranks`.

    Raises:
        ValueError: there are no questions.

    Source: Voorhees 1999, "The TREC-8 Question Answering Track Report".

    >>> mean_reciprocal_rank(np.array([1, 2, 4]))
    0.5833333333333334
    """
    if not len(found):
        raise ValueError("there are 0 questions; the mean needs at least one")
    return float((1 / np.asarray(found)).mean())


# ------------------------------------------------------------------------------------------------------- any text files


class Passage(NamedTuple):
    """A stretch of a file: `text` is what stands at characters `start` to `end` of it."""

    file: str
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Passages:
    """Passages of many files, and the names of the files that hold no text.

    >>> Passages.of([("a.txt", "One two three. Four five.")], size=4, overlap=1).rows[1]
    Passage(file='a.txt', start=13, end=25, text='. Four five.')
    """

    rows: tuple[Passage, ...]
    skipped: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, documents: Iterable[tuple[str, str]], size: int = 120, overlap: int = 30, skipped: Sequence[str] = ()
    ) -> "Passages":
        """Cut documents into overlapping passages, so that what a cut parts stands whole in a neighbour.

        Args:
            documents: pairs of a name and a text.
            size: tokens of a passage, as `lmtl_course.text` cuts them; in Chinese, characters.
            overlap: tokens that a passage shares with the next one.
            skipped: names of files without text.

        Raises:
            ValueError: the overlap is not between 0 and size, without size.
        """
        if not 0 <= overlap < size:
            raise ValueError(f"overlap={overlap} must be at least 0 and below size={size}")
        rows = []
        for name, text in documents:
            spans = token_spans(text)
            starts = range(0, max(1, len(spans) - overlap), size - overlap)
            for piece in (spans[k : k + size] for k in starts):
                if piece:
                    start, end = piece[0][0], piece[-1][1]
                    rows.append(Passage(name, start, end, text[start:end]))
        return cls(tuple(rows), tuple(skipped))

    def __len__(self) -> int:
        return len(self.rows)


def read_text(path: str | Path) -> str | None:
    """The text of a file in UTF-8, UTF-16 with its mark, GB 18030 or Windows-1252; None where it is none.

    A zero byte means binary. What is not UTF-8 is taken for Chinese where its bytes above 127 stand in pairs, and for
    a Western text where they stand alone.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "menu.txt"
    ...     _ = path.write_bytes("café au lait".encode("cp1252"))
    ...     read_text(path)
    'café au lait'
    """
    raw = Path(path).read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings = ["utf-16"]
    elif b"\0" in raw:
        return None
    else:
        high = np.frombuffer(raw, dtype=np.uint8) > 127
        beside = np.convolve(high, [1, 0, 1], "same")[high] > 0 if high.any() else np.ones(1)
        encodings = ["utf-8-sig", "gb18030" if beside.mean() > 0.9 else "cp1252"]
    for encoding in encodings:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        strange = len(re.findall("[\0-\x08\x0e-\x1f]", text))
        return text if strange <= len(text) // 100 else None
    return None


def read_folder(folder: str | Path, size: int = 120, overlap: int = 30) -> Passages:
    """The passages of every text file in a folder and its subfolders; binary files are passed over and counted.

    Args:
        folder: its hidden files and folders (names that begin with a dot) are left out; so are links to folders.
        size: see `Passages.of`.
        overlap: see `Passages.of`.

    Raises:
        OSError: there is no such folder.
        ValueError: it holds no text.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "a.txt").write_text("Normans gave their name to Normandy.", encoding="utf-8")
    ...     _ = (Path(folder) / "b.bin").write_bytes(bytes(9))
    ...     found = read_folder(folder)
    >>> found.rows[0].text, found.skipped
    ('Normans gave their name to Normandy.', ('b.bin',))
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.is_file() else "is no folder"
        raise OSError(f"{folder} {what}; give a folder that holds text files")
    documents, skipped = [], []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        for file in sorted(name for name in files if not name.startswith(".")):
            path = Path(where, file)
            name = path.relative_to(folder).as_posix()
            try:
                text = read_text(path) if path.is_file() else None  # a pipe would wait for ever
            except OSError:
                text = None
            if text is None:
                skipped.append(name)
            else:
                documents.append((name, text))
    passages = Passages.of(documents, size, overlap, skipped)
    if not len(passages):
        without = f"{len(documents)} empty and {len(skipped)} binary or unreadable files"
        raise ValueError(f"{folder.name or folder} holds no text ({without}); give a folder with .txt, .md or the like")
    return passages


class Found(NamedTuple):
    """A passage and its score; scores of one question can be compared, those of two questions cannot."""

    passage: Passage
    score: float


class Finder:
    """Passages that can be asked.

    Args:
        passages: from `read_folder` or `Passages.of`.
        base: a model that compares (`load_base("minilm")`, or one of `finetune` with a `ContrastiveHead`); None counts
            words alone.
        weight: of comparing beside counting, see `blend`; 1 compares alone.
        among: with a weight below 1 only so many passages, the best by counting, are compared: the model then reads
            these and not the whole folder.

    Raises:
        ValueError: there are no passages, or a number is out of range.

    >>> finder = Finder(Passages.of([("a", "Cats sleep."), ("b", "Dogs bark at night.")]))
    >>> [(found.passage.file, round(found.score, 2)) for found in finder.find("Do dogs bark?")]
    [('b', 1.21)]
    """

    def __init__(self, passages: Passages, base: Base | FineTuned | None = None, weight: float = 0.6, among: int = 100):
        if not 0 <= weight <= 1 or among < 1:
            raise ValueError(f"weight={weight} must be between 0 and 1 and among={among} at least 1")
        self.passages, self.base, self.weight, self.among = passages, base, weight, among
        self.index = BM25([passage.text for passage in passages.rows])
        self._vectors: dict[int, Tensor] = {}

    def find(self, question: str, k: int = 5) -> list[Found]:
        """The best passages, best first.

        Args:
            question: in words.
            k: how many at most; fewer where fewer share a word with the question (unless comparing alone).

        Raises:
            ValueError: the question is empty, or k is below 1.
        """
        if not question.strip():
            raise ValueError("the question is empty; ask in words")
        if k < 1:
            raise ValueError(f"k={k} must be at least 1")
        scores = self.index.scores([question])[0]
        chosen = np.argsort(-scores, kind="stable")
        if self.base is None or self.weight < 1:
            chosen = chosen[scores[chosen] > 0]
            chosen = chosen if self.base is None else chosen[: self.among]
        scores = scores[chosen]
        if self.base is not None and len(chosen):
            scores = blend(scores[None], self._compared(question, chosen)[None], self.weight)[0]
        best = np.argsort(-scores, kind="stable")[:k]
        return [Found(self.passages.rows[chosen[i]], float(scores[i])) for i in best]

    def _compared(self, question: str, chosen: Int[np.ndarray, " passages"]) -> Float[np.ndarray, " passages"]:
        """Cosines of the question and these passages, each of which is read once."""
        assert self.base is not None
        if new := [k for k in chosen.tolist() if k not in self._vectors]:
            self._vectors |= zip(new, embed(self.base, [self.passages.rows[k].text for k in new]), strict=True)
        vectors = torch.stack([self._vectors[k] for k in chosen.tolist()])
        return (vectors @ embed(self.base, [question])[0]).double().numpy()


# ------------------------------------------------------------------------------------------------------ right or wrong

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def _is_chinese(letter: str) -> bool:
    return "\u3400" <= letter <= "\u9fff" or "\uf900" <= letter <= "\ufaff" or "\U00020000" <= letter <= "\U0003ffff"


def answer_words(text: str, language: str = "en") -> list[str]:
    """What of an answer is compared: small letters, without punctuation, and in English without articles.

    Args:
        text: an answer.
        language: "en" cuts at white space, as the SQuAD script does; "zh" also makes a word of every Chinese character
            and removes punctuation of every script.

    Raises:
        ValueError: another language.

    Source: Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1, and their script; Chinese as in Lewis et al. 2020,
    arXiv:1910.07475.

    >>> answer_words("The U.S. Army"), answer_words("《红楼梦》 2 卷", "zh")
    (['us', 'army'], ['红', '楼', '梦', '2', '卷'])
    """
    text = text.lower()
    if language == "en":
        text = "".join(letter for letter in text if letter not in string.punctuation)
        return _ARTICLES.sub(" ", text).split()
    if language != "zh":
        raise ValueError(f"language={language!r} must be 'en' or 'zh'")
    text = "".join(f" {letter} " if _is_chinese(letter) else letter for letter in text)
    return "".join(
        letter for letter in text if letter not in string.punctuation and unicodedata.category(letter)[0] != "P"
    ).split()


def _truths(truths: Sequence[str], language: str) -> list[list[str]]:
    """Normalised answers; those of which nothing is left do not count, and where none is left the truth is silence."""
    if isinstance(truths, str):
        raise TypeError(f"truths is one string ({truths[:20]!r}), expected several; wrap it in a list")
    return [words for words in (answer_words(truth, language) for truth in truths) if words] or [[]]


def exact_match(answer: str | None, truths: Sequence[str], language: str = "en") -> float:
    """1 where the answer's words are those of a true answer, else 0.

    Args:
        answer: as given; None or "" says that there is none.
        truths: answers that count as right; none of them means that the passage holds no answer.
        language: see `answer_words`.

    Raises:
        TypeError: the truths are one string.

    Source: Rajpurkar et al. 2018, arXiv:1806.03822, and the script of SQuAD 2.0.

    >>> exact_match("The Normans!", ["Normans", "the Norman people"]), exact_match(None, []), exact_match("x", [])
    (1.0, 1.0, 0.0)
    """
    return float(answer_words(answer or "", language) in _truths(truths, language))


def answer_f1(answer: str | None, truths: Sequence[str], language: str = "en") -> float:
    r"""How many words answer and truth share, $F_1 = 2c / (n + m)$, for the truth that fits best.

    $c$ counts words in common, each as often as it stands in both; $n$ and $m$ are the lengths. It is the harmonic
    mean of $c/n$ (precision) and $c/m$ (recall). Two silences agree fully, silence and words not at all.

    Args:
        answer: as in `exact_match`, and the others too.
        truths: answers that count as right.
        language: see `answer_words`.

    Raises:
        TypeError: the truths are one string.

    Source: as for `exact_match`.

    >>> round(answer_f1("about 308 points", ["308 points", "308"]), 2)  # 2 · 2 / (3 + 2)
    0.8
    """
    words, best = answer_words(answer or "", language), 0.0
    for truth in _truths(truths, language):
        if words and truth:
            best = max(best, 2 * (Counter(words) & Counter(truth)).total() / (len(words) + len(truth)))
        else:
            best = max(best, float(words == truth))
    return best


def best_threshold(margins: Sequence[float], answered: Sequence[float], refused: Sequence[float]) -> float:
    r"""Above which margin to answer, so that the mean score of these questions is largest.

    The margin $m_i$ orders the questions. A threshold $\tau$ answers those with $m_i \ge \tau$ and earns
    $\frac1n (\sum_{m_i \ge \tau} a_i + \sum_{m_i < \tau} r_i)$; only n + 1 places of $\tau$ differ, and two running
    sums try them all.

    Args:
        margins: of the best span over "no answer", one per question of a validation set.
        answered: the score, such as `answer_f1`, that each would earn if answered.
        refused: and if refused: 1 where the passage holds no answer, else 0.

    Returns:
        Halfway between two margins; minus infinity where refusing never pays, plus infinity where answering never does.

    Raises:
        ValueError: the lengths differ, there are no questions, or a margin is not a number.

    >>> best_threshold([3.0, 2.0, -1.0, 0.5], [1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0])
    1.25
    """
    if not len(margins) or not len(margins) == len(answered) == len(refused):
        raise ValueError(
            f"{len(margins)} margins, {len(answered)} and {len(refused)} scores: give one of each per question"
        )
    m = torch.tensor(list(margins), dtype=torch.float64)
    if m.isnan().any():
        raise ValueError("a margin is not a number; leave out questions without a passage")
    order = m.argsort(descending=True)
    m = m[order]
    gain = torch.tensor(list(answered), dtype=torch.float64) - torch.tensor(list(refused), dtype=torch.float64)
    earned = torch.cat([torch.zeros(1, dtype=torch.float64), gain[order].cumsum(0)])  # by answering the first k
    possible = torch.ones(len(m) + 1, dtype=torch.bool)
    possible[1:-1] = m[:-1] > m[1:]  # equal margins are answered together
    k = int(earned.masked_fill(~possible, -math.inf).argmax())
    if k in (0, len(m)):
        return math.inf if k == 0 else -math.inf
    return float(m[k - 1] + m[k]) / 2


# ------------------------------------------------------------------------------------------------------ without a model

_SENTENCE = re.compile(r"[^.!?。！？\n]*(?:[.!?](?!\s|$)[^.!?。！？\n]*)*[.!?。！？]*[”\"')\]]*\s*")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where sentences begin and end, by their punctuation alone; together they cover the text.

    Args:
        text: any.

    >>> [("It rained. Did it?"[a:b]) for a, b in sentence_spans("It rained. Did it?")]
    ['It rained. ', 'Did it?']
    """
    return [match.span() for match in _SENTENCE.finditer(text) if match.end() > match.start()]


_SMALL = frozenset(
    tokenize(
        """a about after also an and are as at be been before but by can did do does for from had has have he her his
        how in into is it its many may more most much of on one or other s she so some such than that the their them
        then there these they this those to up was we were what when where which while who whom whose why will with
        would"""
    )
)
_WORD = re.compile(r"[^\W_]+(?:[-'’.,][^\W_]+)*")


def overlap_span(question: str, passage: str, longest: int = 6) -> tuple[int, int] | None:
    """An answer without any learning: in the sentence most like the question, the words nearest to what it asks about.

    Sentences are compared by the question's words in them, each weighted by how rare it is among the passage's
    sentences. The best one is cut into runs of words at the question's words, at small words such as "of", and at
    punctuation. A run with a number is preferred where the question asks when or how many, one with a capital where it
    asks who or where; among those left the one is taken that is nearest to a word of the question.

    Args:
        question: any.
        passage: any; meant for English.
        longest: most words of an answer.

    Returns:
        First character and the one after the last; None where every word of the passage is the question's, or small.

    Source: the sliding window of Richardson, Burges and Renshaw 2013 (D13-1020), with the kinds of answer of Rajpurkar
    et al. 2016, arXiv:1606.05250, made into rules.

    >>> passage = "Nobody came. The tower was built by Eiffel in 1889."
    >>> [passage[slice(*overlap_span(f"{how} was the tower built?", passage))] for how in ("When", "By whom")]
    ['1889', 'Eiffel']
    """
    asked = {m[0].lower() for m in _WORD.finditer(question)}
    number = re.search(r"\b(when|how (many|much|long|old|far)|what (year|date|percent\w*|number))\b", question.lower())
    name = re.search(r"\b(who|whom|whose|where|what (city|country|person))\b", question.lower())
    content = asked - _SMALL or asked
    sentences = [list(_WORD.finditer(passage, *span)) for span in sentence_spans(passage)]
    known = [{m[0].lower() for m in words} for words in sentences]
    weight = {w: math.log((1 + len(known)) / n) for w in content if (n := sum(w in words for words in known))}
    for k in sorted(range(len(sentences)), key=lambda k: -math.fsum(weight.get(w, 0.0) for w in known[k])):
        words, runs, run = sentences[k], [], []  # type: ignore[var-annotated]
        for i, word in enumerate(words):
            if run and passage[words[i - 1].end() : word.start()].strip():  # punctuation between them
                run = []
            if word[0].lower() in asked | _SMALL:
                run = []
                continue
            if not run:
                runs.append(run)
            run.append(i)
        near = [i for i, word in enumerate(words) if word[0].lower() in content]

        def cost(run: list[int], words: list[re.Match[str]] = words, near: list[int] = near) -> tuple[bool, int, int]:
            text = " ".join(words[i][0] for i in run)
            fits = re.search(r"\d", text) if number else any(c.isupper() for c in text) if name else True
            return not fits, min((abs(i - j) for i in run for j in near), default=0), run[0]

        if runs:
            best = min(runs, key=cost)[:longest]
            return words[best[0]].start(), words[best[-1]].end()
    return None


# ------------------------------------------------------------------------------------------- windows over long passages


class Window(NamedTuple):
    """A stretch of a passage as a base reads it, behind the question.

    The encoding holds the question, then `count` tokens of the passage from place `first` on; the first of them is
    number `at` of the whole passage. Its `offsets` count characters of the passage as it was given.
    """

    encoding: Encoding
    first: int
    count: int  # type: ignore[assignment]  # tuples have a method of this name
    at: int

    @property
    def characters(self) -> list[tuple[int, int]]:
        """Where each of its passage tokens begins and ends in the passage."""
        return self.encoding.offsets[self.first : self.first + self.count]


def windows(base: Base, question: str, passage: str, length: int | None = None, overlap: int = 64) -> list[Window]:
    r"""A question with its passage as often as the passage needs to be read to its end.

    Of a window's $L$ tokens the question and the special ones leave $r$ for the passage. Window $k$ reads the passage's
    tokens from $k (r - o)$ on, so that neighbours share $o$: an answer of at most $o + 1$ tokens is whole in one of
    them. (BERT's `doc_stride` is the step $r - o$; the library `tokenizers` calls the overlap `stride`.)

    Args:
        base: with the tokenizer of an encoder.
        question: comes whole into every window.
        passage: of any length.
        length: most tokens of a window, special ones included; None means as many as the base can read.
        overlap: tokens that neighbours share; at most half of the room is taken.

    Returns:
        At least one window; a passage without tokens gives one with `count` 0.

    Raises:
        ValueError: the question is empty, or leaves less than a quarter of the window to the passage; or the length or
            overlap is out of range; or the base is a decoder.

    Source: Devlin et al. 2019, arXiv:1810.04805, and its code for SQuAD.

    >>> base = load_base("bert-mini")
    >>> parts = windows(base, "Who?", "one two three four five six seven eight", length=9, overlap=2)
    >>> [(w.at, w.encoding.tokens[w.first : w.first + w.count]) for w in parts]
    [(0, ['one', 'Ġtwo', 'Ġthree', 'Ġfour']), (2, ['Ġthree', 'Ġfour', 'Ġfive', 'Ġsix']), ...]
    """
    if base.kind == "decoder":
        raise ValueError(f"{base.name or 'this base'} is a decoder, whose first token sees nothing; take an encoder")
    if overlap < 0:
        raise ValueError(f"overlap={overlap} must be at least 0")
    most = base.config.context
    length = most if length is None else length
    asked = len(base.tokenizer.encode(question, add_special_tokens=False).ids)
    if not asked:
        raise ValueError(f"the question {question!r:.40} has no words; ask with at least one")
    fixed = asked + base.tokenizer.num_special_tokens_to_add(True)
    if not 8 <= length <= most:
        raise ValueError(f"length={length} must be between 8 and the base's context={most}")
    room = length - fixed
    if room < length // 4:
        raise ValueError(
            f"the question has {asked} tokens and leaves {max(room, 0)} of a window of {length} to the passage; "
            f"ask with at most {length - length // 4 - fixed + asked} tokens"
        )
    overlap = min(overlap, room // 2)
    base.tokenizer.enable_truncation(length, stride=overlap, strategy="only_second")
    try:
        encoding = base.tokenizer.encode(question, passage)
    finally:
        base.tokenizer.no_truncation()
    found = []
    for k, part in enumerate([encoding, *encoding.overflowing]):
        sides = part.sequence_ids
        count = sides.count(1)
        found.append(Window(part, sides.index(1) if count else 0, count, k * (room - overlap)))
    return found


def best_spans(
    start: Float[Tensor, "batch seq"],
    end: Float[Tensor, "batch seq"],
    allowed: Bool[Tensor, "batch seq"],
    limit: int = 30,
) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"], Int[Tensor, " batch"]]:
    r"""The best pair of places, $\arg\max \{s_i + e_j : i \le j < i + \text{limit}\}$, among the allowed ones.

    Not $n^2$ pairs: for each first place the best last one among the next `limit` is a running maximum, seen through
    a sliding view of the end scores.

    Args:
        start: scores as the first token.
        end: scores as the last token.
        allowed: True where an answer may stand; an allowed stretch has no gaps.
        limit: most tokens of a span.

    Returns:
        The sum of the two scores, and the first and the last place; minus infinity, 0 and 0 where nothing is allowed.
        Of equal sums the earliest start is taken, then the shortest.

    Raises:
        ValueError: limit is below 1.

    Source: Devlin et al. 2019, arXiv:1810.04805, section 4.2.

    >>> start, end = torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[9.0, 3.0, 0.0]])
    >>> best_spans(start, end, torch.ones(1, 3).bool())  # 9 + 5 would end before it begins; 0 + 9 is a span
    (tensor([9.]), tensor([0]), tensor([0]))
    """
    if limit < 1:
        raise ValueError(f"limit={limit} must be at least 1 token")
    limit = min(limit, start.shape[1])
    start, end = start.masked_fill(~allowed, -math.inf), end.masked_fill(~allowed, -math.inf)
    ahead = nn.functional.pad(end, (0, limit - 1), value=-math.inf).unfold(1, limit, 1)  # batch seq limit
    behind, step = ahead.max(2)
    total, first = (start + behind).max(1)
    last = first + step.gather(1, first[:, None])[:, 0]
    none = total == -math.inf
    return total, first.masked_fill(none, 0), last.masked_fill(none, 0)


# ------------------------------------------------------------------------------------------------------------- the head


class SpanHead(Head):
    r"""Two scores per token, $s_i = w_s \cdot h_i$ and $e_i = w_e \cdot h_i$: does the answer begin, or end, here?

    Two softmaxes over the places of a window make probabilities of them, and the loss of a window whose answer goes
    from place $a$ to place $b$ is $-\log P_s(a) - \log P_e(b)$. A window without the answer has $a = b = 0$: the first
    special token stands for "not here".

    Args:
        d_model: width of the base.
        overlap: of `windows`.

    Source: Devlin et al. 2019, arXiv:1810.04805, sections 4.2 and 4.3.

    >>> head = SpanHead(8)
    >>> hidden, mask = torch.zeros(2, 5, 8), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    >>> head(head.reduce(hidden, mask)).softmax(1)[1, :, 0]  # padding gets nothing
    tensor([0.3333, 0.3333, 0.3333, 0.0000, 0.0000], grad_fn=...)
    """

    def __init__(self, d_model: int, overlap: int = 64):
        super().__init__()
        self.overlap = overlap
        self.dropout = nn.Dropout(0.0)
        self.head = nn.Linear(d_model, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def examples(self, base: Base, rows: Sequence[Any], length: int | None) -> list[Example]:
        """Rows of (context, question, answers, starts), each as one example per window; see `QuestionAnswer`.

        Of several answers the first is learned; a row without answers is one whose passage holds none.
        """
        examples, lost = [], 0
        for row in map(_checked, rows):
            parts = windows(base, row.question, row.context, length, self.overlap)
            targets = [(0, 0)] * len(parts)
            if row.answers:
                targets = _targets(base, row, parts)
                lost += all(target == (0, 0) for target in targets)
            examples += [Example(w.encoding, torch.tensor(t)) for w, t in zip(parts, targets, strict=True)]
        if lost:
            warnings.warn(
                f"{lost} of {len(rows)} answers stand whole in no window and are learned as absent: they have no "
                f"token, or more than the overlap of {self.overlap}",
                stacklevel=3,
            )
        return examples

    def reduce(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """All vectors, each with one more number that is added to its scores: 0, and minus infinity at padding."""
        bias = torch.zeros(mask.shape, dtype=hidden.dtype, device=hidden.device).masked_fill(~mask, -math.inf)
        return torch.cat([hidden, bias[..., None]], -1)

    def forward(self, reduced: Float[Tensor, "batch seq d_model_and_1"]) -> Float[Tensor, "batch seq 2"]:
        """The scores of start and end for each token."""
        return self.head(self.dropout(reduced[..., :-1])) + reduced[..., -1:]

    def loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        r"""$-\sum \log P_s(a) + \log P_e(b)$ over the windows of a batch; two targets each."""
        return cross_entropy(logits.transpose(1, 2), targets, reduction="sum"), targets.numel()


def _checked(row: Any) -> QuestionAnswer:
    """A row as a `QuestionAnswer` whose answers stand where they say."""
    if not isinstance(row, tuple | list) or len(row) != 4:
        raise ValueError(f"a row must be (context, question, answers, starts), got {row!r:.80}")
    row = QuestionAnswer(*row)
    if len(row.answers) != len(row.starts):
        raise ValueError(f"{len(row.answers)} answers, but {len(row.starts)} starts to {row.question!r:.60}")
    for answer, start in zip(row.answers, row.starts, strict=True):
        there = row.context[start : start + len(answer)] if start >= 0 else ""
        if there != answer or not answer.strip():
            raise ValueError(
                f"the answer {answer!r:.40} to {row.question!r:.60} does not stand at character {start} of its "
                f"passage, where {there!r:.40} stands; give the start that `passage.find(answer)` finds"
            )
    return row


def _targets(base: Base, row: QuestionAnswer, parts: Sequence[Window]) -> list[tuple[int, int]]:
    """First and last token of the first answer in each window; (0, 0) where it is not whole."""
    answer = row.answers[0].strip()
    start = row.starts[0] + row.answers[0].index(answer)
    stop = start + len(answer)
    offsets = base.tokenizer.encode(row.context, add_special_tokens=False).offsets
    inside = [k for k, (a, b) in enumerate(offsets) if a < stop and b > start]
    if not inside:
        return [(0, 0)] * len(parts)
    return [
        (w.first + inside[0] - w.at, w.first + inside[-1] - w.at)
        if w.at <= inside[0] and inside[-1] < w.at + w.count
        else (0, 0)
        for w in parts
    ]


def unanswerable(rows: Sequence[Any], n: int, seed: int = 0) -> list[QuestionAnswer]:
    """Questions with a passage that does not answer them: someone else's, without any of their answers in it.

    Args:
        rows: of (context, question, answers, starts), from at least two passages.
        n: how many; each question is used at most once.
        seed: of the draw.

    Raises:
        ValueError: there are fewer than n such questions.

    >>> rows = [QuestionAnswer("It is 7.", "How many?", ("7",), (6,)), QuestionAnswer("Ada.", "Who?", ("Ada",), (0,))]
    >>> unanswerable(rows, 1, seed=1)
    [QuestionAnswer(context='Ada.', question='How many?', answers=(), starts=())]
    """
    rows, rng = [_checked(row) for row in rows], random.Random(seed)
    found: list[QuestionAnswer] = []
    contexts = sorted({row.context for row in rows})
    for row in rng.sample(rows, len(rows)):
        if len(found) == n:
            break
        others = [c for c in contexts if c != row.context and not any(answer in c for answer in row.answers)]
        if others:
            found.append(QuestionAnswer(rng.choice(others), row.question, (), ()))
    if len(found) < n:
        raise ValueError(
            f"{n} unanswerable questions asked of {len(rows)} rows with {len(contexts)} passages, but {len(found)} "
            "were found; ask for fewer, or give more rows"
        )
    return found


def shorten(row: Any, characters: int, seed: int = 0) -> QuestionAnswer:
    """A row with only those sentences of its passage that stand around the first answer: cheaper to learn from.

    Sentences before and after are added at random while they fit, so that the answer stands anywhere in what is left.

    Args:
        row: of (context, question, answers, starts).
        characters: most of the passage; more only where the answer's own sentences are longer.
        seed: of the draw.

    Returns:
        The row with its first answer alone. A row without answers keeps sentences from its passage's beginning.

    Raises:
        ValueError: the answer does not stand where it says.

    >>> row = QuestionAnswer("It rained. Ada came. She slept. We left.", "Who came?", ("Ada",), (11,))
    >>> shorten(row, 24).context, shorten(row, 9).context
    ('It rained. Ada came. ', 'Ada came. ')
    """
    row = _checked(row)
    spans = sentence_spans(row.context)
    start, stop = (row.starts[0], row.starts[0] + len(row.answers[0])) if row.answers else (0, 1)
    inside = [k for k, (a, b) in enumerate(spans) if a < stop and b > start]
    if not inside:
        return row
    first, last, rng = inside[0], inside[-1], random.Random(f"{seed} {row.question}")
    while True:
        wider = [(first - 1, last)] * (first > 0) + [(first, last + 1)] * (last + 1 < len(spans))
        wider = [(a, b) for a, b in wider if spans[b][1] - spans[a][0] <= characters]
        if not wider:
            break
        first, last = rng.choice(wider)
    begin, end = spans[first][0], spans[last][1]
    moved = tuple(at - begin for at in row.starts[:1])
    return QuestionAnswer(row.context[begin:end], row.question, row.answers[:1], moved)


# -------------------------------------------------------------------------------------------------------------- reading


class Answer(NamedTuple):
    """Words of a passage: `passage[start:end] == text`, and how many nats they are more likely than "no answer"."""

    text: str
    start: int
    end: int
    score: float


class Reader:
    r"""A base with a `SpanHead`, ready to read: what `train_reader` returns.

    For each window, span $(i, j)$ and silence have the scores $s_i + e_j$ and $s_0 + e_0$. Their difference is the
    logarithm of how much more probable the span is than silence; unlike the scores themselves it can be compared
    across windows and passages, since a constant added to all scores of a window leaves it as it was.

    Args:
        model: from `finetune` with a `SpanHead`.
        limit: most tokens of an answer.
        threshold: an answer is given where its score is at least this; minus infinity always answers.

    Raises:
        TypeError: the model has another head.
        ValueError: the limit is below 1.

    >>> base = load_base("bert-mini")
    >>> reader = Reader(FineTuned(base, SpanHead(192)))
    >>> reader.read("Who came?", "She came.").text  # it has learned nothing: all spans are equal, the first is taken
    'She'
    >>> reader.read("Who came?", "") is None
    True
    """

    def __init__(self, model: FineTuned, limit: int = 30, threshold: float = -math.inf):
        if not isinstance(model.head, SpanHead):
            raise TypeError(f"a Reader needs a model with a SpanHead, this one has a {type(model.head).__name__}")
        if limit < 1:
            raise ValueError(f"limit={limit} must be at least 1 token")
        self.model, self.limit, self.threshold = model, limit, threshold

    @property
    def history(self) -> History | None:
        """Of the training."""
        return self.model.history

    def read(self, question: str, passage: str) -> Answer | None:
        """The answer to a question in a passage, or None where there is none.

        Args:
            question: of at least one word, in the language that the reader was trained on; in another one it answers
                too, by whatever the tokens remind it of.
            passage: of any length.

        Raises:
            ValueError: the question is empty, or too long for the window.
            TypeError: question or passage is no string.
        """
        return self.read_all([(question, passage)])[0]

    def read_all(self, pairs: Sequence[tuple[str, str]], batch: int = 32) -> list[Answer | None]:
        """The answer to each question in its passage, or None: `best` where it reaches the threshold.

        Args:
            pairs: of question and passage.
            batch: windows at a time; those of like length are read together.

        Raises:
            ValueError: as for `read`.
            TypeError: as for `read`.
        """
        return [a if a is not None and a.score >= self.threshold else None for a in self.best(pairs, batch)]

    @torch.no_grad()
    def best(self, pairs: Sequence[tuple[str, str]], batch: int = 32) -> list[Answer | None]:
        """The best span for each question, however unlikely; None only where the passage holds no word.

        Args:
            pairs: of question and passage.
            batch: windows at a time.

        Raises:
            ValueError: as for `read`.
            TypeError: as for `read`.
        """
        parts: list[tuple[int, Window]] = []
        for k, pair in enumerate(pairs):
            if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(side, str) for side in pair):
                raise TypeError(f"a pair must be (question, passage), two strings, got {pair!r:.80}")
            head: Any = self.model.head
            found = windows(self.model.base, *pair, self.model.length, head.overlap)
            parts += [(k, window) for window in found if window.count]
        parts.sort(key=lambda part: len(part[1].encoding.ids))
        answers: list[Answer | None] = [None] * len(pairs)
        with _mode(self.model, training=False), _autocast(self.model.device, self.model.autocast):
            for at in range(0, len(parts), batch):
                some = parts[at : at + batch]
                packed = self.model.base.pack([window.encoding for _, window in some])
                start, end = self.model(*packed.to(self.model.device)).float().cpu().unbind(2)
                place = torch.arange(start.shape[1])
                first = torch.tensor([[window.first] for _, window in some])
                count = torch.tensor([[window.count] for _, window in some])
                blank = torch.zeros_like(start, dtype=torch.bool)  # no answer begins with white space
                for row, (k, window) in enumerate(some):
                    spans = enumerate(window.characters, window.first)
                    blank[row, [at for at, (a, b) in spans if not pairs[k][1][a:b].strip()]] = True
                allowed = (place >= first) & (place < first + count)
                total, i, j = best_spans(start.masked_fill(blank, -math.inf), end, allowed, self.limit)
                margin = total - start[:, 0] - end[:, 0]
                for (k, window), score, a, b in zip(some, margin.tolist(), i.tolist(), j.tolist(), strict=True):
                    known, offsets = answers[k], window.encoding.offsets
                    if score > (known.score if known else -math.inf):
                        answers[k] = _cut(pairs[k][1], offsets[a][0], offsets[b][1], score)
        return answers

    def save(self, folder: str | Path) -> Path:
        """Write a folder that `load_reader` reads: safetensors and JSON, no pickle.

        Args:
            folder: is made where missing.

        Raises:
            OSError: the disk is full or may not be written to; no half-written file stays.
        """
        head: Any = self.model.head
        about = {
            "overlap": head.overlap,
            "length": self.model.length,
            "limit": self.limit,
            "threshold": self.threshold if math.isfinite(self.threshold) else None,
        }
        return save_parts(self.model, folder, "reader", about)


def _cut(passage: str, start: int, end: int, score: float) -> Answer:
    """Characters as an `Answer`: without white space around them, with the accents that follow the last letter."""
    while end < len(passage) and unicodedata.combining(passage[end]):
        end += 1
    text = passage[start:end]
    start, end = start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())
    return Answer(passage[start:end], start, end, score)


def load_reader(folder: str | Path) -> Reader:
    """Open what `Reader.save` wrote.

    Args:
        folder: of the reader.

    Raises:
        OSError, ValueError: see `opened` of chapter 11.

    >>> import tempfile
    >>> reader = Reader(FineTuned(load_base("bert-mini"), SpanHead(192)), limit=7)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_reader(reader.save(folder)).limit
    7
    """
    with opened(folder, "reader") as (base, about, state):
        head = SpanHead(base.config.d_model, about["overlap"])
        head.load_state_dict(state)
        threshold = -math.inf if about["threshold"] is None else float(about["threshold"])
        return Reader(FineTuned(base, head, about["length"]).eval(), about["limit"], threshold)


READING = FineTuneConfig(epochs=3, batch=8, head_lr=3e-3, length=384)
"""How `train_reader` fits a base where nothing else is said: with a rate of 3e-4 for a base as wide as MiniLM."""
SHORT = 350
"""Characters of a passage that the default reader learns from, see `shorten`; it reads passages of any length."""


def train_reader(
    rows: Sequence[Any],
    base: Base | str | Path = "minilm",
    config: FineTuneConfig | None = None,
    valid: Sequence[Any] | None = None,
    overlap: int = 64,
    limit: int = 30,
    device: torch.device | str | None = None,
    watch: Callable[[History], None] | None = None,
) -> Reader:
    """Fit a base to questions, passages and answers: `finetune` with a `SpanHead`.

    Args:
        rows: of (context, question, answers, starts); without answers where the passage holds none.
        base: an encoder, or what `load_base` takes.
        config: see `FineTuneConfig`; None is `READING`, with the base's context where that is shorter. Its `length` is
            that of the windows.
        valid: rows to look at while training.
        overlap: of the windows.
        limit: most tokens of an answer when reading.
        device: None means a GPU where there is one.
        watch: called after every look.

    Raises:
        ValueError: there are no rows, a row has another form, an answer does not stand where it says, a question is
            empty or too long for the window, or the base is a decoder.

    >>> def row(thing, n):
    ...     question, start = f"How high is the {thing}?", len(f"The {thing} is ")
    ...     return QuestionAnswer(f"The {thing} is {n} m high.", question, (f"{n} m",), (start,))
    >>> rows = [row("tower", 300), row("gate", 12), row("hill", 80), row("tree", 9)] * 8
    >>> reader = train_reader(rows, "bert-mini", FineTuneConfig(epochs=5, lr=1e-3, seed=1))
    >>> reader.read("How high is the house?", "The house is 17 m high.").text
    '17 m'
    """
    if not len(rows):
        raise ValueError("there are 0 rows to learn from; give at least one")
    base = load_base(base) if isinstance(base, str | Path) else base
    if config is None:
        rate = 3e-4 * (384 / base.config.d_model) ** 2
        config = replace(READING, lr=rate, length=min(READING.length or base.config.context, base.config.context))
    head = SpanHead(base.config.d_model, overlap)
    return Reader(finetune(base, rows, head, config, valid, device=device, watch=watch), limit)


def default_reader(folder: str | Path | None = None) -> Reader:
    """A reader for everybody's questions: trained once, in some minutes, and kept.

    It is minilm (bert-mini where that cannot be had), fitted to the questions of xquad in English, each with what
    stands around its answer, and half as many with a wrong passage, so that it learns to be silent; the threshold is
    chosen on questions about other passages. Without xquad it learns from questions about Python's documentation, and
    says so. The folder is whole or not used: a run that was broken off starts again.

    Args:
        folder: where to keep it; None means `reader` in the data cache, or in the user's own cache where the data
            cache cannot be written.

    Raises:
        OSError: the folder cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kept = Reader(FineTuned(load_base("bert-mini"), SpanHead(192)), limit=9).save(folder)
    ...     default_reader(kept).limit  # what is there is not trained again
    9
    """
    import pooch

    places = [Path(folder)] if folder else [cache_dir() / "reader", Path(pooch.os_cache("lmtl_course")) / "reader"]
    for place in places:
        if (place / "reader.json").is_file():
            return load_reader(place)
    place = _first_writable(places)  # before minutes of training, not after them
    reader = _train_default()
    reader.save(place)
    return reader


def _first_writable(places: Sequence[Path]) -> Path:
    """The first of some folders, made where missing, in which a file can be written."""
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                return place
        except OSError as error:
            why = error
    raise OSError(f"a reader could not be written into {places[-1]} ({why.strerror}); name a folder that can be")


def _train_default() -> Reader:
    rows = load("xquad_en", "all", stand_in=True)
    name = "xquad in English"
    if rows.is_stand_in:
        rows, name = rows.sample(1000), "questions about Python's documentation"
    try:
        base = load_base("minilm")
    except OSError:
        base = load_base("bert-mini")
    print(f"A reader is trained once, from {base.name} on {name}; this takes some minutes.")
    contexts = list(dict.fromkeys(row.context for row in rows))
    held = set(contexts[::8])
    parts = [[row for row in rows if (row.context in held) == side] for side in (False, True)]
    parts = [[*part, *unanswerable(part, len(part) // 2)] for part in parts]
    reader = train_reader([shorten(row, SHORT) for row in parts[0]], base)
    reader.threshold = choose_threshold(reader, parts[1])
    return reader


def choose_threshold(reader: Reader, rows: Sequence[Any], language: str = "en") -> float:
    """The threshold with which a reader earns the highest mean F1 on questions that it was not trained on.

    Args:
        reader: is not changed.
        rows: of (context, question, answers, starts), some of them without answers.
        language: see `answer_words`.

    Raises:
        ValueError: there are no rows with a passage.

    >>> reader = Reader(FineTuned(load_base("bert-mini"), SpanHead(192)))
    >>> choose_threshold(reader, [QuestionAnswer("She came.", "Who came?", ("She",), (0,))])  # never be silent
    -inf
    """
    rows = [_checked(row) for row in rows]
    answers = reader.best([(row.question, row.context) for row in rows])
    some = [(answer, row.answers) for answer, row in zip(answers, rows, strict=True) if answer is not None]
    return best_threshold(
        [answer.score for answer, _ in some],
        [answer_f1(answer.text, truths, language) for answer, truths in some],
        [answer_f1(None, truths, language) for _, truths in some],
    )


def reader_scores(
    reader: Reader, rows: Sequence[Any], language: str = "en", batch: int = 32
) -> list[tuple[float, float]]:
    """Exact match and F1 of a reader's answer to each question.

    Args:
        reader: with its threshold.
        rows: of (context, question, answers, starts).
        language: see `answer_words`.
        batch: windows at a time.

    >>> reader = Reader(FineTuned(load_base("bert-mini"), SpanHead(192)))
    >>> reader_scores(reader, [QuestionAnswer("She came.", "Who came?", ("She",), (0,))])
    [(1.0, 1.0)]
    """
    rows = [_checked(row) for row in rows]
    answers = reader.read_all([(row.question, row.context) for row in rows], batch)
    texts = [answer.text if answer else None for answer in answers]
    return [
        (exact_match(text, row.answers, language), answer_f1(text, row.answers, language))
        for text, row in zip(texts, rows, strict=True)
    ]


def mark(passage: str, answer: Answer | None, truths: Sequence[str] = ()) -> str:
    """A passage as HTML with the answer marked, for `IPython.display.HTML`.

    The tint is translucent and the letters keep the page's colour; the answer is named in words beside it too.

    Args:
        passage: any.
        answer: in this passage, or None.
        truths: answers that count as right, said below where the answer is none of them.

    >>> print(mark("Ada <3", Answer("Ada", 0, 3, 1.5)))
    <p><mark style="...">Ada</mark> &lt;3</p>
    """
    if answer is None:
        body = f"{html.escape(passage)} <em>[no answer]</em>"
    else:
        style = "background:rgba(31,111,180,.22);border-bottom:2px solid rgb(31,111,180);color:inherit;padding:0 .2em"
        before, inside, after = passage[: answer.start], answer.text, passage[answer.end :]
        body = f'{html.escape(before)}<mark style="{style}">{html.escape(inside)}</mark>{html.escape(after)}'
    right = not truths or exact_match(answer.text if answer else None, truths)
    return f"<p>{body}</p>" + ("" if right else f"<p><em>expected: {html.escape(' / '.join(truths))}</em></p>")
