"""The data room: every text and task of the course, by name.

Three shelves. Embedded sets need nothing but Python: its own documentation (`pydocs…`) and small languages whose truth
is known (`MarkovLanguage`, `numerals`). Downloaded sets are pinned in `datasets.json` by address, size and sha256, and
live in one cache folder, `LMTL_DATA_DIR` where that is set. And each downloaded set names an embedded stand-in with
rows of the same shape, so that a chapter runs without a network, and says so.

    >>> from lmtl_course import data
    >>> topics = data.load("pydocs_topics")
    >>> topics.labels[topics[0].label] in topics.labels
    True
"""

import ast
import csv
import gzip
import hashlib
import inspect
import json
import os
import random
import re
import sysconfig
import zlib
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor


class Unavailable(OSError):
    """A data set cannot be had; the message is one sentence that says why and what to do."""


# ------------------------------------------------------------------------------------------------ rows and data sets


class Document(NamedTuple):
    """A text with its title: a book, an article, a page of documentation."""

    title: str
    text: str


class LabelledText(NamedTuple):
    """A text and the index of its class in `Dataset.labels`."""

    text: str
    label: int


class TaggedSentence(NamedTuple):
    """Tokens and their BIO tags, of one length."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]


class QuestionAnswer(NamedTuple):
    """A question whose answers are spans: `context[start:start + len(answer)] == answer` for each."""

    context: str
    question: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]


class SentencePair(NamedTuple):
    """A sentence and its translation."""

    source: str
    target: str


class Summary(NamedTuple):
    """The sentences of a text and one or more short versions of it."""

    sentences: tuple[str, ...]
    targets: tuple[str, ...]


class BiasPair(NamedTuple):
    """Two sentences that differ in the group they speak of; `more` is the one that stereotypes more."""

    more: str
    less: str
    direction: str
    kind: str


class Coreference(NamedTuple):
    """A sentence, the occupation in it, and the pronouns that refer to it; `number` pairs pro with anti."""

    text: str
    mention: str
    pronouns: tuple[str, ...]
    stereotyped: bool
    kind: int
    number: int


@dataclass(frozen=True, eq=False)
class Dataset(Sequence):
    """One split of a data set: a sequence of rows that knows where it comes from.

    Args:
        rows: NamedTuples of one class.
        name: what was asked for; a stand-in keeps the name of the set whose place it takes.
        split: "train", "valid", "test" or "all".
        is_stand_in: an embedded set took this one's place.
        licence: the terms of the text.
        citation: whom to cite.
        labels: the names of the classes, where rows have labels.
        separator: what stands between two documents in `text`.

    A slice is again a `Dataset`.

    >>> reviews = Dataset((LabelledText("fine", 1), LabelledText("dull", 0)), "mine", "train", labels=("bad", "good"))
    >>> len(reviews), reviews[0].text, len(reviews[:1])
    (2, 'fine', 1)
    """

    rows: tuple[Any, ...]
    name: str
    split: str
    is_stand_in: bool = False
    licence: str = ""
    citation: str = ""
    labels: tuple[str, ...] | None = None
    separator: str = "\n\n"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return replace(self, rows=self.rows[index]) if isinstance(index, slice) else self.rows[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def __repr__(self) -> str:
        kind = type(self.rows[0]).__name__ if self.rows else "nothing"
        return f"<{self.name} {self.split}: {len(self):,} × {kind}{', stand-in' if self.is_stand_in else ''}>"

    @property
    def text(self) -> str:
        """The documents of a text corpus as one string.

        Raises:
            ValueError: the rows are not documents.
        """
        if self.rows and not isinstance(self.rows[0], Document):
            raise ValueError(f"{self.name} holds {type(self.rows[0]).__name__} rows, not documents; use a text corpus")
        return self.separator.join(row.text for row in self.rows)

    def sample(self, n: int, seed: int = 0) -> "Dataset":
        """Draw n rows without replacement, the same ones for the same seed.

        Args:
            n: how many rows.
            seed: of the draw.

        Raises:
            ValueError: there are fewer than n rows.

        >>> load("pydocs_topics").sample(3, seed=1).rows == load("pydocs_topics").sample(3, seed=1).rows
        True
        """
        if n > len(self):
            raise ValueError(f"{n} rows asked of {self.name} {self.split}, which has {len(self)}; ask for fewer")
        return replace(self, rows=tuple(random.Random(seed).sample(self.rows, n)))


# ------------------------------------------------------------------------------------- embedded: Python's own pages

_SKIPPED = frozenset(
    "test tests idle_test idlelib lib2to3 turtledemo ensurepip site-packages dist-packages pydoc_data __pycache__".split()
)
_DOCSTRING = re.compile(r'^[ \t]*([rR]?("""|\'\'\').*?(?<!\\)\2)[ \t]*(?:#.*)?$', re.M | re.S)
_HEAD = re.compile(r"^[ \t]*(?:async[ \t]+)?(def|class)[ \t]+(\w+)", re.M)


class _Page(NamedTuple):
    module: str
    kind: str  # "module", "class" or "function"
    name: str
    text: str


@cache
def _docstrings() -> tuple[_Page, ...]:
    """Every docstring of the standard library, read from its sources: importing them all would run their side effects.

    A triple-quoted string that opens a file or follows a line ending in a colon is a docstring. Parsing 10 MB of
    sources into syntax trees finds the same ones and takes ten times as long.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    pages = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if _SKIPPED & set(parts):
            continue
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        module = ".".join(parts).removesuffix(".__init__")
        for match in _DOCSTRING.finditer(source):
            before = source[: match.start()].rstrip()
            kind, name = "module", module
            if before.endswith(":"):
                heads = list(_HEAD.finditer(before, max(0, len(before) - 2000)))
                if not heads:
                    continue
                kind, name = ("class" if heads[-1][1] == "class" else "function"), heads[-1][2]
            elif before and not all(line.lstrip().startswith("#") or not line.strip() for line in before.splitlines()):
                continue
            try:
                text = inspect.cleandoc(ast.literal_eval(match[1]))
            except (SyntaxError, ValueError):
                continue
            pages.append(_Page(module, kind, name, text))
    return tuple(pages)


def _bucket(key: str) -> int:
    """A number from 0 to 9 that depends on the key alone: the same split on every machine and Python."""
    return zlib.crc32(key.encode()) % 10


def _in_split(key: str, split: str) -> bool:
    return split == "all" or split == {8: "valid", 9: "test"}.get(_bucket(key), "train")


def _reference(split: str) -> list[Document]:
    from pydoc_data.topics import topics

    return [
        Document(title, inspect.cleandoc(text)) for title, text in sorted(topics.items()) if _in_split(title, split)
    ]


def _library(split: str) -> list[Document]:
    modules: dict[str, list[str]] = {}
    for page in _docstrings():
        if _in_split(page.module, split):
            modules.setdefault(page.module, []).append(page.text)
    return [Document(module, "\n\n".join(texts)) for module, texts in modules.items()]


_AREAS = {
    "text": "string re textwrap difflib codecs encodings gettext locale html xml csv json configparser tomllib plistlib "
    "unicodedata stringprep readline pprint reprlib tokenize shlex",
    "numbers": "decimal _pydecimal fractions numbers random statistics datetime _pydatetime calendar _strptime colorsys "
    "hashlib hmac secrets zoneinfo time uuid",
    "files": "os pathlib shutil tempfile glob fnmatch zipfile tarfile gzip bz2 lzma fileinput io _pyio filecmp stat "
    "posixpath ntpath genericpath zipimport zipapp shelve dbm sqlite3 mimetypes _compression pickle",
    "network": "http urllib socket socketserver ssl smtplib smtpd imaplib ftplib poplib nntplib telnetlib xmlrpc "
    "ipaddress email mailbox wsgiref cgi cgitb webbrowser netrc asyncore asynchat uu quopri base64",
    "concurrency": "asyncio threading multiprocessing concurrent queue sched subprocess selectors signal contextvars "
    "_threading_local pty",
    "tools": "unittest pdb bdb doctest ast dis inspect importlib logging traceback profile cProfile pstats trace timeit "
    "distutils pkgutil runpy code codeop compileall pydoc symtable tracemalloc warnings venv optparse argparse cmd "
    "tkinter curses turtle",
}


def _prose(page: _Page) -> str:
    """The first paragraphs of a docstring as running text, at most 60 words."""
    return " ".join(page.text.split()[:60])


def _pages(split: str) -> Iterator[_Page]:
    """The docstrings of at least six words, each text once."""
    seen = set()
    for page in _docstrings():
        if len(page.text.split()) >= 6 and page.text not in seen:
            seen.add(page.text)
            if _in_split(page.text, split):
                yield page


def _topics(split: str) -> list[LabelledText]:
    area = {module: label for label, modules in enumerate(_AREAS.values()) for module in modules.split()}
    return [
        LabelledText(_prose(page), area[page.module.split(".")[0]])
        for page in _pages(split)
        if page.module.split(".")[0] in area
    ]


def _kinds(split: str, areas: str) -> list[LabelledText]:
    """Is it a function or a class that this docstring describes? Two halves of the library are two domains."""
    modules = {module for area in areas.split() for module in _AREAS[area].split()}
    pages = [p for p in _pages(split) if p.kind != "module" and p.module.split(".")[0] in modules]
    classes = [LabelledText(_prose(page), 1) for page in pages if page.kind == "class"]
    functions = [LabelledText(_prose(page), 0) for page in pages if page.kind == "function"]
    rng = random.Random(0)
    rows = classes + rng.sample(functions, min(len(functions), len(classes)))
    rng.shuffle(rows)
    return rows


# ---------------------------------------------------------------------------------------------- embedded: known truth


class MarkovLanguage:
    r"""A language whose every symbol depends on the one before it, and whose entropy rate is known exactly.

    No model can predict it with fewer nats per symbol than $H = -\sum_i \pi_i \sum_j P_{ij} \log P_{ij}$, where $\pi$
    is the stationary distribution, $\pi P = \pi$.

    Args:
        symbols: the size k of the alphabet; symbols are the integers 0 … k-1.
        seed: of the random transition matrix.
        concentration: of the Dirichlet distribution of each row; the smaller, the more predictable the language.
        transition: a k × k matrix of probabilities to use instead of a random one; row i is what follows symbol i.

    Raises:
        ValueError: fewer than two symbols, or a matrix whose rows are not distributions.

    Source: Shannon 1948, doi:10.1002/j.1538-7305.1948.tb01338.x; Cover and Thomas 2006, theorem 4.2.4.

    >>> coin = MarkovLanguage(transition=torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    >>> round(coin.entropy_rate, 6)  # log 2
    0.693147
    >>> coin.sample(5, seed=1).shape
    torch.Size([5])
    """

    def __init__(
        self,
        symbols: int = 8,
        seed: int = 0,
        concentration: float = 0.5,
        transition: Tensor | None = None,
    ):
        if transition is None:
            if symbols < 2 or concentration <= 0:
                raise ValueError(f"symbols={symbols} must be at least 2 and concentration={concentration} above 0")
            transition = torch.from_numpy(np.random.default_rng(seed).dirichlet([concentration] * symbols, symbols))
        matrix = transition.double()
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
            raise ValueError(f"transition has shape {tuple(transition.shape)}; it must be k × k with k at least 2")
        if bool((matrix < 0).any()) or not torch.allclose(matrix.sum(1), torch.ones(len(matrix)).double(), atol=1e-6):
            raise ValueError(f"the rows of transition sum to {matrix.sum(1).tolist()}; each must be a distribution")
        self.transition: Float64[Tensor, "k k"] = matrix / matrix.sum(1, keepdim=True)

    def __len__(self) -> int:
        return len(self.transition)

    @property
    def stationary(self) -> Float64[Tensor, " k"]:
        """How often each symbol occurs in the long run: the distribution that the transition leaves as it is.

        >>> MarkovLanguage(transition=torch.tensor([[0.9, 0.1], [0.3, 0.7]])).stationary
        tensor([0.7500, 0.2500], dtype=torch.float64)
        """
        k = len(self)
        system = torch.cat(
            [self.transition.T - torch.eye(k).double(), torch.ones(1, k).double()]
        )  # π(P - 1) = 0, Σπ = 1
        target = torch.cat([torch.zeros(k), torch.ones(1)]).double()
        return torch.linalg.lstsq(system, target).solution.clamp(min=0)

    @property
    def entropy_rate(self) -> float:
        """Nats per symbol that remain unpredictable when the symbol before is known; exact, not estimated.

        >>> MarkovLanguage(transition=torch.eye(2).flip(0)).entropy_rate  # strict alternation holds no surprise
        0.0
        """
        return float((self.stationary[:, None] * torch.special.entr(self.transition)).sum())

    def sample(self, n: int, seed: int = 0) -> Int64[Tensor, " n"]:
        """Draw n symbols in a row, the first from the stationary distribution.

        Args:
            n: how many.
            seed: of the draw; the same seed gives the same symbols.

        Returns:
            Integers 0 … k-1.

        >>> language = MarkovLanguage(symbols=3, seed=2)
        >>> bool((language.sample(100, seed=5) == language.sample(100, seed=5)).all())
        True
        """
        ladders = self.transition.cumsum(1)[:, :-1].tolist()  # without the last step, 1.0: bisect then never leaves k-1
        state = bisect(self.stationary.cumsum(0)[:-1].tolist(), (draws := np.random.default_rng(seed).random(n))[0])
        path = [state]
        for draw in draws[1:].tolist():
            state = bisect(ladders[state], draw)
            path.append(state)
        return torch.tensor(path)


# ------------------------------------------------------------------------------------------------ downloaded: parsers


def _read(path: Path, encoding: str = "utf-8-sig") -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode(encoding).replace("\r\n", "\n")


def _shakespeare(paths: list[Path], split: str) -> list[Document]:
    text = _read(paths[0])
    cut = int(0.9 * len(text))
    return [Document("Tiny Shakespeare", {"train": text[:cut], "valid": text[cut:], "all": text}[split])]


def _book(paths: list[Path], split: str) -> list[Document]:
    titles = {entry["file"]: entry["title"] for entry in table()["classics"]["files"]}
    return [Document(titles[path.name], clean_book(_read(path))) for path in paths]


def clean_book(text: str) -> str:
    """The book inside a Project Gutenberg file: without its markers and notices, one paragraph per line.

    Lines of a paragraph are joined, because the line breaks are the transcriber's and not the author's; where a
    line is indented (verse, letters) they stay.

    Args:
        text: the file's text.

    >>> clean_book("Terms\\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\\nProduced by A\\n\\n\\nIt was\\nlate.\\n\\n"
    ...     "  O moon\\n  O sea\\n\\n\\nEnd of Project Gutenberg's X\\n*** END OF THIS PROJECT GUTENBERG EBOOK X ***\\nTerms")
    'It was late.\\n\\n  O moon\\n  O sea'
    """
    text = text.replace("\r\n", "\n")
    body = re.search(r"\*\*\* ?START OF TH.*?\*\*\*[^\n]*\n(.*?)\n\*\*\* ?END OF TH", text, re.S)
    paragraphs = re.split(r"\n[ \t]*(?:\n[ \t]*)+(?=\S)|\n(?:[ \t]*\n)+", (body[1] if body else text).strip("\n"))
    while paragraphs and re.match(r"(e-text )?(produced|transcribed|prepared) ", paragraphs[0], re.I):
        del paragraphs[0]
    while paragraphs and re.match(r"\s*End of (the )?Project Gutenberg", paragraphs[-1], re.I):
        del paragraphs[-1]
    kept = (p.rstrip() if re.search(r"^[ \t]", p, re.M) else " ".join(p.split()) for p in paragraphs)
    return "\n\n".join(p for p in kept if p.strip())


def _wikitext(paths: list[Path], split: str) -> list[Document]:
    """One document per article, cut before its title line, so that the joined documents are the file, line for line."""
    text = "".join(map(_read, paths))
    articles = [a for a in re.split(r"(?m)^(?= \n = [^=\n])", text) if a.strip()]
    return [Document(a.split("\n")[1].strip(" ="), a) for a in articles]


def _label_first(paths: list[Path], split: str) -> list[LabelledText]:
    rows = []
    for path in paths:
        for line in _read(path, "latin-1").splitlines():
            label, _, text = line.partition(" ")
            rows.append(LabelledText(text.strip(), int(label)))
    return rows


def _customer_reviews(paths: list[Path], split: str) -> list[LabelledText]:
    """Without the four empty lines; the file has no splits and is sorted by label, so a hash of the text deals it out."""
    return [row for row in _label_first(paths, split) if row.text and _in_split(row.text, split)]


def _chnsenticorp(paths: list[Path], split: str) -> list[LabelledText]:
    rows = []
    for path in paths:
        lines = csv.reader(_read(path).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)  # quotes are literal
        next(lines)
        rows += [LabelledText(text, int(label)) for label, text in lines]
    return rows


# ------------------------------------------------------------------------------------------------ the table and load


@dataclass(frozen=True)
class _Source:
    folder: str
    splits: dict[str, tuple[str, ...]]
    parse: Callable[[list[Path], str], list[Any]]
    stand_in: str
    labels: tuple[str, ...] | None = None
    separator: str = "\n\n"


_SENTIMENT = ("negative", "positive")
# Classics go by book, and no author of a held-out book has another one in train.
_HELD_OUT = {"valid": ("11.txt", "120.txt", "174.txt"), "test": ("215.txt", "345.txt", "55.txt", "910.txt")}


@cache
def table() -> dict[str, Any]:
    """What `datasets.json` says: address, size, sha256, licence and citation of everything that can be downloaded.

    >>> table()["tinyshakespeare"]["files"][0]["bytes"]
    1115394
    """
    return json.loads(Path(__file__).with_name("datasets.json").read_text(encoding="utf-8"))


@cache
def _sources() -> dict[str, _Source]:
    books = tuple(entry["file"] for entry in table()["classics"]["files"])
    held_out = _HELD_OUT["valid"] + _HELD_OUT["test"]
    return {
        "tinyshakespeare": _Source(
            "tinyshakespeare",
            dict.fromkeys(("train", "valid", "all"), ("input.txt",)),
            _shakespeare,
            "pydocs_reference",
            separator="",
        ),
        "classics": _Source(
            "classics",
            {"train": tuple(b for b in books if b not in held_out), **_HELD_OUT, "all": books},
            _book,
            "pydocs",
        ),
        "wikitext2": _Source(
            "wikitext2",
            {split: (f"{split}.txt",) for split in ("train", "valid", "test")},
            _wikitext,
            "pydocs_library",
            separator="",
        ),
        "sst2": _Source(
            "sst2",
            {"train": ("stsa.binary.train",), "valid": ("stsa.binary.dev",), "test": ("stsa.binary.test",)},
            _label_first,
            "pydocs_kinds",
            _SENTIMENT,
        ),
        "cr": _Source(
            "cr",
            dict.fromkeys(("train", "valid", "test", "all"), ("custrev.all",)),
            _customer_reviews,
            "pydocs_kinds_network",
            _SENTIMENT,
        ),
        "chnsenticorp": _Source(
            "chnsenticorp",
            {"train": ("train.tsv",), "valid": ("dev.tsv",), "test": ("test.tsv",)},
            _chnsenticorp,
            "pydocs_topics",
            _SENTIMENT,
        ),
    }


class _Embedded(NamedTuple):
    make: Callable[[str], list[Any]]
    labels: tuple[str, ...] | None = None


_EMBEDDED: dict[str, _Embedded] = {
    "pydocs": _Embedded(lambda split: _reference(split) + _library(split)),
    "pydocs_reference": _Embedded(_reference),
    "pydocs_library": _Embedded(_library),
    "pydocs_topics": _Embedded(_topics, tuple(_AREAS)),
    "pydocs_kinds": _Embedded(lambda split: _kinds(split, "text numbers files tools"), ("function", "class")),
    "pydocs_kinds_network": _Embedded(lambda split: _kinds(split, "network concurrency"), ("function", "class")),
}

_loaded: dict[str, str] = {}
_noted: set[str] = set()


def loaded() -> list[str]:
    """What this process has loaded so far, and in which form; a notebook's stamp quotes it.

    >>> _ = load("pydocs_reference", "test")
    >>> "pydocs_reference (embedded)" in loaded()
    True
    """
    return [f"{name} ({how})" for name, how in sorted(_loaded.items())]


def _fetch(folder: str, files: Iterable[str]) -> list[Path]:
    """First shelf only: what LMTL_DATA_DIR holds."""
    root = os.environ.get("LMTL_DATA_DIR")
    known = {entry["file"]: entry for entry in table()[folder]["files"]}
    paths = []
    for file in files:
        path = Path(root or "", folder, file)
        if not root or not path.is_file():
            raise Unavailable(f"{folder}/{file} is not here; set LMTL_DATA_DIR to a folder that holds it")
        if hashlib.sha256(path.read_bytes()).hexdigest() != known[file]["sha256"]:
            raise Unavailable(f"{path} has the wrong sha256; delete it and fetch it again")
        paths.append(path)
    return paths


@cache
def _parsed(name: str, split: str, root: str | None) -> tuple[Any, ...]:
    source = _sources()[name]
    return tuple(source.parse(_fetch(source.folder, source.splits[split]), split))


def load(name: str, split: str = "train", stand_in: bool = False) -> Dataset:
    """Load one split of a data set.

    Args:
        name: of the data set.
        split: "train", "valid" or "test"; some sets have "all".
        stand_in: where the set cannot be had, run on an embedded one of the same shape and print which.

    Raises:
        ValueError: no such set or split.
        Unavailable: the set cannot be had and no stand-in was asked for.

    >>> load("pydocs_topics", "test").labels
    ('text', 'numbers', 'files', 'network', 'concurrency', 'tools')
    """
    if name in _EMBEDDED:
        embedded = _EMBEDDED[name]
        if split not in ("train", "valid", "test", "all"):
            raise ValueError(f"{name} has no split {split!r}; choose one of train, valid, test, all")
        _loaded.setdefault(name, "embedded")
        return Dataset(tuple(embedded.make(split)), name, split, licence="PSF-2.0", labels=embedded.labels)
    if name not in _sources():
        raise ValueError(
            f"no data set is called {name!r}; choose one of {', '.join(sorted([*_sources(), *_EMBEDDED]))}"
        )
    source, facts = _sources()[name], table()[_sources()[name].folder]
    if split not in source.splits:
        raise ValueError(f"{name} has no split {split!r}; choose one of {', '.join(source.splits)}")
    try:
        rows = _parsed(name, split, os.environ.get("LMTL_DATA_DIR"))
    except Unavailable as error:
        if not stand_in:
            raise
        print(f"STAND-IN: {name} runs on {source.stand_in} instead ({error})")
        _loaded[name] = f"stand-in: {source.stand_in}"
        rows = tuple(_EMBEDDED[source.stand_in].make(split))
        labels = _EMBEDDED[source.stand_in].labels
        return Dataset(rows, name, split, is_stand_in=True, licence="PSF-2.0", labels=labels)
    _loaded[name] = "real"
    if facts["licence_note"] and name not in _noted:
        _noted.add(name)
        print(f"licence of {name}: {facts['licence_note']}")
    return Dataset(
        rows,
        name,
        split,
        licence=facts["licence"],
        citation=facts["citation"],
        labels=source.labels,
        separator=source.separator,
    )


def without_leaks(train: Sequence[Any], test: Dataset) -> Dataset:
    """The rows of `test` whose text does not occur in `train`, and each of those once.

    Args:
        train: the rows that a model learns from.
        test: the rows that it is judged by.

    >>> test = Dataset((Document("a", "seen"), Document("b", "new"), Document("c", "new")), "mine", "test")
    >>> [row.title for row in without_leaks([Document("z", "seen")], test)]
    ['b']
    """

    def text(row: Any) -> Any:
        return row.text if hasattr(row, "text") else row[0]

    seen, kept = {text(row) for row in train}, []
    for row in test:
        if text(row) not in seen:
            seen.add(text(row))
            kept.append(row)
    return replace(test, rows=tuple(kept))
