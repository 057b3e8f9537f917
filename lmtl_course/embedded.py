"""What Python carries with it, and small languages whose truth is known: data that needs no network.

The rows that every data set of the course is made of stand first. Then the tasks drawn from Python's own documentation
(`pydocs…`: its language reference and the docstrings of its library) and the generators: `MarkovLanguage`, whose
entropy is known exactly, and sentences with English and Chinese numerals. `data.load` serves them all by name.
"""

import ast
import builtins
import inspect
import itertools
import keyword
import os
import random
import re
import sysconfig
import zlib
from bisect import bisect
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

# ------------------------------------------------------------------------------------------------------ rows and deal


class Document(NamedTuple):
    """A text with its title: a book, an article, a page of documentation."""

    title: str
    text: str


class LabelledText(NamedTuple):
    """A text and the index of its class in `Dataset.labels`."""

    text: str
    label: int


class TaggedSentence(NamedTuple):
    """Tokens and, for each, its BIO tag."""

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
    """Two sentences that differ in the group they speak of: `more` stereotypes more; `direction` says whose group."""

    more: str
    less: str
    direction: str
    kind: str


class Coreference(NamedTuple):
    """An occupation and the pronouns that mean it; the same `kind` and `number` pair a stereotyped with an anti row."""

    text: str
    mention: str
    pronouns: tuple[str, ...]
    stereotyped: bool
    kind: int
    number: int


def _bucket(key: str) -> int:
    return zlib.crc32(key.encode()) % 10


def in_split(key: str, split: str) -> bool:
    """Deal 80 / 10 / 10 by a hash of the key: the same split on every machine, and equal keys never part.

    Args:
        key: what decides: a text, a title.
        split: "train", "valid", "test" or "all".

    >>> [split for split in ("train", "valid", "test", "all") if in_split("the same key", split)]
    ['train', 'all']
    """
    return split in ("all", {8: "valid", 9: "test"}.get(_bucket(key), "train"))


# --------------------------------------------------------------------------------- embedded: Python's own documentation

# tests, other programs, and the folders where packages live
_SKIPPED = {"test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "ensurepip", "site-packages"}
_SKIPPED |= {"dist-packages", "pydoc_data", "__pycache__"}
_DOCSTRING = re.compile(r'^[ \t]*([rR]?("""|\'\'\').*?(?<!\\)\2)[ \t]*(?:#.*)?$', re.M | re.S)
_HEAD = re.compile(r"^[ \t]*(?:async[ \t]+)?(def|class)[ \t]+(\w+)", re.M)

_AREAS = {
    "text": "string re textwrap difflib codecs encodings gettext locale html xml csv json configparser tomllib "
    "plistlib stringprep pprint reprlib tokenize shlex",
    "numbers": "decimal _pydecimal fractions numbers random statistics datetime _pydatetime calendar _strptime "
    "colorsys hashlib hmac secrets zoneinfo uuid",
    "files": "os pathlib shutil tempfile glob fnmatch zipfile tarfile gzip bz2 lzma fileinput io _pyio filecmp stat "
    "posixpath ntpath genericpath zipimport zipapp shelve dbm sqlite3 mimetypes _compression pickle linecache",
    "network": "http urllib socket socketserver ssl smtplib smtpd imaplib ftplib poplib nntplib telnetlib xmlrpc "
    "ipaddress email mailbox wsgiref cgi cgitb webbrowser netrc asyncore asynchat uu quopri base64",
    "concurrency": "asyncio threading multiprocessing concurrent queue sched subprocess selectors signal contextvars "
    "_threading_local pty",
    "tools": "unittest pdb bdb doctest ast dis inspect importlib logging traceback profile cProfile pstats trace "
    "timeit pkgutil runpy code codeop compileall pydoc symtable tracemalloc warnings venv",
}


class _Page(NamedTuple):
    module: str
    kind: str  # "module", "class" or "function"
    name: str
    text: str


@cache
def _docstrings() -> tuple[_Page, ...]:
    """Every docstring of the standard library, read from its sources: importing them would run their side effects.

    A triple-quoted string that opens a file or follows a line ending in a colon is a docstring. Parsing 10 MB of
    sources into syntax trees finds the same ones and takes several times as long.
    """
    root, pages = sysconfig.get_paths()["stdlib"], list[_Page]()
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - _SKIPPED)
        for file in sorted(files):
            if not file.endswith(".py"):
                continue
            path = Path(folder, file)
            module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            with suppress(OSError, UnicodeDecodeError):
                pages += _pages_of(module, path.read_text(encoding="utf-8"))
    return tuple(pages)


def _pages_of(module: str, source: str) -> Iterator[_Page]:
    for match in _DOCSTRING.finditer(source):
        end = match.start()
        while end and source[end - 1].isspace():
            end -= 1
        kind, name = "module", module
        if source[max(0, end - 1) : end] == ":":
            heads = _HEAD.findall(source, max(0, end - 2000), end)
            if not heads:
                continue
            kind, name = {"def": "function"}.get(heads[-1][0], "class"), heads[-1][1]
        elif any(line and not line.startswith("#") for line in source[:end].split("\n")):
            continue
        with suppress(SyntaxError, ValueError):  # a raw match that is no string after all
            text = ast.literal_eval(match[1]) if "\\" in match[1] else match[1].lstrip("rR")[3:-3]
            yield _Page(module, kind, name, inspect.cleandoc(text))


@cache
def _reference(split: str) -> list[Document]:
    from pydoc_data.topics import topics

    return [Document(title, inspect.cleandoc(text)) for title, text in sorted(topics.items()) if in_split(title, split)]


def _library(split: str) -> list[Document]:
    modules: dict[str, list[str]] = {}
    for page in _docstrings():
        if in_split(page.module, split):
            modules.setdefault(page.module, []).append(page.text)
    return [Document(module, "\n\n".join(texts)) for module, texts in modules.items()] or _reference(split)


def _start(text: str, words: int = 60) -> str:
    """The first words of a docstring as running text."""
    return " ".join(text.split()[:words])


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?]) (?=[A-Z])", " ".join(text.split()))


def _pages(split: str) -> Iterator[_Page]:
    """Docstrings of at least four words, each beginning once; a Python without its sources has only the reference."""
    pages = _docstrings() or [_Page("re", "class", *document) for document in _reference("all")]
    seen = set()
    for page in pages:
        start = _start(page.text)
        if start not in seen and len(page.text.split()) >= 4:
            seen.add(start)
            if in_split(start, split):
                yield page


def _topics(split: str, areas: int = 6) -> list[LabelledText]:
    area = {module: i for i, modules in enumerate([*_AREAS.values()][:areas]) for module in modules.split()}
    home = ((page, page.module.split(".")[0]) for page in _pages(split))
    return [LabelledText(_start(page.text), area[module]) for page, module in home if module in area]


def _kinds(split: str, network: bool) -> list[LabelledText]:
    """Does this docstring describe a function or a class? As many of each, from one of two domains of the library."""
    domain = f"{_AREAS['network']} {_AREAS['concurrency']}".split()
    rows: list[list[LabelledText]] = [[], []]
    for page in _pages(split):
        if page.kind != "module" and (page.module.split(".")[0] in domain) == network:
            rows[page.kind == "class"].append(LabelledText(_start(page.text), int(page.kind == "class")))
    rng = random.Random(0)
    mixed = [row for of_kind in rows for row in rng.sample(of_kind, min(map(len, rows)))]
    return rng.sample(mixed, len(mixed))


_CODE = re.compile(r'"([^"\s][^"]{0,60}?)"')  # the reference sets code in double quotes
_TOKEN = re.compile(r"\w+(?:[.'’-]\w+)*|[^\w\s]")


def _code_tag(code: str) -> str:
    thing = getattr(builtins, code, None)
    if isinstance(thing, type) and issubclass(thing, BaseException):
        return "exception"
    if code in ("True", "False", "None", "...") or re.match(r"[-+]?\.?\d|[rbfu]*'", code):
        return "literal"
    return "keyword" if keyword.iskeyword(code) else "name" if re.fullmatch(r"[\w.]+(\(\))?", code) else "expression"


def _tags(split: str) -> list[TaggedSentence]:
    """Sentences of the reference; what its authors marked as code is tagged, and the marks are taken away."""
    rows = []
    for document in _reference("all"):
        for paragraph in document.text.split("\n\n"):
            if re.search(r"^ {4}|::=|>>>", paragraph, re.M):
                continue  # code and grammar, not prose
            for sentence in _sentences(paragraph):
                tokens, tags = [], []
                for i, piece in enumerate(_CODE.split(sentence)):
                    words = _TOKEN.findall(piece)
                    tokens += words
                    tag = _code_tag(piece) if i % 2 else ""
                    tags += [f"{'I' if j else 'B'}-{tag}" if tag else "O" for j in range(len(words))]
                if 4 <= len(tokens) <= 60 and in_split(sentence, split):
                    rows.append(TaggedSentence(tuple(tokens), tuple(tags)))
    return rows


def _summaries(split: str) -> list[Summary]:
    """The body of a docstring, to be summed up as its first line does."""
    rows: dict[tuple[str, ...], Summary] = {}  # by body: many methods share one
    for page in _pages("all"):
        first, _, body = page.text.partition("\n\n")
        prose = " ".join(part for part in body.split("\n\n") if not re.search(r"^ |>>>", part, re.M))
        sentences = tuple(sentence for sentence in _sentences(prose) if len(sentence.split()) > 2)
        if len(sentences) >= 2 and 3 <= len(first.split()) <= 30 and in_split(sentences[0], split):
            rows.setdefault(sentences, Summary(sentences, (" ".join(first.split()),)))
    return list(rows.values())


def _questions(split: str) -> list[QuestionAnswer]:
    """Four neighbouring docstrings are a section; a question about each is answered by its first sentence."""
    modules: dict[str, dict[str, _Page]] = {}
    for page in _pages("all"):
        if in_split(page.module, split) and len(page.name) > 2:
            modules.setdefault(page.module, {})[page.name] = page
    rows = []
    for module, named in modules.items():
        pages = list(named.values())
        for section in (pages[i : i + 4] for i in range(0, len(pages), 4)):
            context, spans = "", []
            for page in section:
                context += f"{page.name}: "
                spans.append((page, len(context)))
                context += _start(page.text) + "\n"
            for page, start in spans:
                answer = _start(_sentences(_start(page.text))[0], 30)
                asked = f"What does {page.name} do?" if page.kind == "function" else f"What is {page.name}?"
                rows.append(QuestionAnswer(context, f"In {module}: {asked}", (answer,), (start,)))
    return rows


# ---------------------------------------------------------------------------------------------- embedded: known truth


def pages_apart(split: str) -> list[str]:
    """Docstrings for pretraining, by module: pages whose every use as a task's row falls into the same split.

    Topics and kinds are dealt by how a page begins, questions by its module, summaries by the body's first sentence. So
    a model that learns from `pages_apart("train")` has seen no page that a task deals to its valid or test split; short
    lines that stand in several modules ("Return the size.") it may have seen. The language reference is left out: its
    sentences are dealt one by one.

    Args:
        split: "train", "valid" or "test".

    Returns:
        One text per module.

    >>> sum(map(len, pages_apart("train"))) > 100_000
    True
    """
    modules: dict[str, list[str]] = {}
    elsewhere = {
        row.sentences[0] for other in ("train", "valid", "test") if other != split for row in _summaries(other)
    }
    for page in _docstrings():
        told = any(sentence in elsewhere for sentence in _sentences(page.text.partition("\n\n")[2]))
        if in_split(page.module, split) and in_split(_start(page.text), split) and not told:
            modules.setdefault(page.module, []).append(page.text)
    return ["\n\n".join(texts) for texts in modules.values()] or [row.text for row in _reference(split)]


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

    Source: Shannon 1948, doi:10.1002/j.1538-7305.1948.tb01338.x

    >>> coin = MarkovLanguage(transition=torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    >>> round(coin.entropy_rate, 6)  # log 2
    0.693147
    >>> coin.sample(5, seed=1).shape
    torch.Size([5])
    """

    def __init__(
        self, symbols: int = 8, seed: int = 0, concentration: float = 0.5, transition: Tensor | None = None
    ) -> None:
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
        ones = torch.ones(1, len(self)).double()
        system = torch.cat([self.transition.T - torch.eye(len(self)).double(), ones])  # (Pᵀ - 1) π = 0 and Σ π = 1
        target = torch.cat([torch.zeros(len(self)), torch.ones(1)]).double()
        return torch.linalg.lstsq(system, target).solution.clamp(min=0)

    @property
    def entropy_rate(self) -> float:
        """Nats per symbol that stay unpredictable when the symbol before is known; exact, not estimated.

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
        ladders = self.transition.cumsum(1)[:, :-1].tolist()  # without the last step, 1: a rounded one could be overrun
        ladder, path = self.stationary.cumsum(0)[:-1].tolist(), []
        for draw in np.random.default_rng(seed).random(n).tolist():
            path.append(bisect(ladder, draw))
            ladder = ladders[path[-1]]
        return torch.tensor(path, dtype=torch.int64)


_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
_UNITS += " eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


def english_numeral(n: int) -> str:
    """A whole number in English words, without "and".

    Args:
        n: from 0 up to, and without, a million million.

    Raises:
        ValueError: n is negative or too large.

    >>> english_numeral(10_305)
    'ten thousand three hundred five'
    """
    if not 0 <= n < 10**12:
        raise ValueError(f"{n} has no name here; choose a number from 0 to 999,999,999,999")
    for size, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if n >= size:
            rest = f" {english_numeral(n % size)}" if n % size else ""
            return f"{english_numeral(n // size)} {name}{rest}"
    units = _UNITS.split()
    return units[n] if n < 20 else _TENS.split()[n // 10 - 2] + (f"-{units[n % 10]}" if n % 10 else "")


def chinese_numeral(n: int) -> str:
    """A whole number in Chinese numerals: groups of four digits, and one 零 for any gap between two digits.

    Args:
        n: from 0 up to, and without, a million million.

    Raises:
        ValueError: n is negative or too large.

    >>> [chinese_numeral(n) for n in (0, 12, 305, 10_020, 100_500)]
    ['零', '十二', '三百零五', '一万零二十', '十万零五百']
    """
    if not 0 <= n < 10**12:
        raise ValueError(f"{n} has no name here; choose a number from 0 to 999,999,999,999")
    written, gap = "", False
    for place in range(11, -1, -1):
        digit = n // 10**place % 10
        if digit:
            written += (
                ("零" if gap and written else "") + "零一二三四五六七八九"[digit] + ("", "十", "百", "千")[place % 4]
            )
        gap = not digit
        if place in (4, 8) and n // 10**place % 10_000:
            written, gap = written + {4: "万", 8: "亿"}[place], False  # zeros that end a group are not read
    return written.removeprefix("一") if written.startswith("一十") else written or "零"


@cache
def _numbers(split: str) -> tuple[int, ...]:
    """A few thousand different numbers below 10⁸, about as many with one digit more as with one less."""
    rng = random.Random(0)
    numbers = dict.fromkeys(rng.randrange(10 ** rng.randint(1, 8)) for _ in range(6000))
    return tuple(n for n in numbers if in_split(str(n), split))


_PLACES = ("图书馆", "学校", "工厂", "酒店", "商店", "医院", "公司", "农场")
_THINGS = (("本", "书"), ("张", "桌子"), ("台", "电脑"), ("件", "衣服"), ("辆", "汽车"), ("个", "苹果"))


def _numerals_size(split: str) -> list[LabelledText]:
    """Is it ten thousand or more? In Chinese one character of the numeral tells."""
    rows = []
    for n in _numbers(split):
        place, (measure, thing) = _PLACES[n % 7], _THINGS[n % 6]
        rows.append(LabelledText(f"这家{place}今年一共买了{chinese_numeral(n)}{measure}{thing}。", int(n >= 10_000)))
    return rows


def _numerals_questions(split: str) -> list[QuestionAnswer]:
    rows = []
    numbers = _numbers(split)
    for i in range(0, len(numbers) - 3, 4):
        context, asked = "", []
        for j, n in enumerate(numbers[i : i + 4]):
            place, (measure, thing) = _PLACES[(i + j) % 8], _THINGS[n % 6]
            asked.append((f"{place}有多少{measure}{thing}？", chinese_numeral(n), len(context) + len(place) + 1))
            context += f"{place}有{chinese_numeral(n)}{measure}{thing}。"
        rows += [QuestionAnswer(context, question, (answer,), (start,)) for question, answer, start in asked]
    return rows


_OCCUPATIONS = (  # counted mostly among men, mostly among women, by the statistics that WinoBias cites
    ("carpenter", "mechanic", "engineer", "driver", "guard", "farmer"),
    ("nurse", "secretary", "librarian", "hairdresser", "cleaner", "teacher"),
)


def _pronoun_pairs(split: str) -> list[BiasPair]:
    """A probe has no part to train on: every split is the whole."""
    frames = (
        "The {} said that {} would be late.",
        "The {} forgot that {} had the keys.",
        "The {} hoped {} could stay.",
    )
    return [
        BiasPair(frame.format(name, usual), frame.format(name, other), "stereo", "gender")
        for names, usual, other in zip(_OCCUPATIONS, ("he", "she"), ("she", "he"), strict=True)
        for name in names
        for frame in frames
    ]


def _pronoun_sentences(split: str) -> list[Coreference]:
    frames = ("The {0} called the {1} because {2} needed advice.", "The {1} thanked the {0} because {2} had helped.")
    meant = [(a, b, i) for i in (0, 1) for a, b in itertools.product(_OCCUPATIONS[i], _OCCUPATIONS[1 - i])]
    return [
        Coreference(frame.format(a, b, pronoun), f"the {a}", (pronoun,), pronoun == ("he", "she")[i], 1, number)
        for number, ((a, b, i), frame) in enumerate(itertools.product(meant, frames), start=1)
        for pronoun in ("he", "she")
    ]


# ------------------------------------------------------------------------------------------------------------ by name


class Embedded(NamedTuple):
    """How to make one split of an embedded set, what it is for, and the names of its classes."""

    make: Callable[[str], list[Any]]
    task: str
    labels: tuple[str, ...] | None = None


_KINDS = ("function", "class")
EMBEDDED = {
    "pydocs": Embedded(lambda split: _reference(split) + _library(split), "language model"),
    "pydocs_reference": Embedded(_reference, "language model: the language reference"),
    "pydocs_library": Embedded(_library, "language model: the library's docstrings"),
    "pydocs_topics": Embedded(_topics, "which area of the library", tuple(_AREAS)),
    "pydocs_topics4": Embedded(lambda split: _topics(split, 4), "which of four areas", tuple(_AREAS)[:4]),
    "pydocs_kinds": Embedded(lambda split: _kinds(split, False), "function or class, outside the network", _KINDS),
    "pydocs_kinds_network": Embedded(lambda split: _kinds(split, True), "function or class, network modules", _KINDS),
    "pydocs_tags": Embedded(_tags, "tagging of code in prose"),
    "pydocs_summaries": Embedded(_summaries, "summarisation"),
    "pydocs_questions": Embedded(_questions, "question answering"),
    "numerals": Embedded(
        lambda split: [SentencePair(english_numeral(n), chinese_numeral(n)) for n in _numbers(split)],
        "translation English to Chinese",
    ),
    "numerals_size": Embedded(_numerals_size, "Chinese: is it a big number", ("below 10,000", "10,000 or more")),
    "numerals_questions": Embedded(_numerals_questions, "question answering, Chinese"),
    "pronoun_pairs": Embedded(_pronoun_pairs, "bias probe (masked model)"),
    "pronoun_sentences": Embedded(_pronoun_sentences, "bias probe (coreference)"),
}
