"""The data room: every text and task of the course, by name.

Three shelves. *Embedded* sets need nothing but Python: its own documentation (`pydocs…`) and small languages whose
truth is known (`MarkovLanguage`, `numerals…`, `pronoun_…`). *Downloaded* sets are pinned in `datasets.json` by address,
size and sha256 and live in one cache folder: `LMTL_DATA_DIR` where that is set, else the user's cache. And each
downloaded set names an embedded *stand-in* with rows of the same shape, so that a chapter runs anywhere and says so.

Splits are "train", "valid", "test" and "all". Official ones are kept. Sets without: tiny Shakespeare is cut after 90 %
of its characters; cr, tatoeba_en_zh and everything embedded is dealt 80/10/10 by a hash of the text (of the English
side, of the title), the same on every machine; classics goes by book, its held-out authors nowhere in train.

>>> topics = load("pydocs_topics", "test")
>>> topics.labels[topics[0].label] in topics.labels
True
"""

import csv
import errno
import gzip
import hashlib
import html
import io
import json
import os
import random
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lmtl_course.embedded import (  # noqa: F401 - served from here too
    EMBEDDED,
    BiasPair,
    Coreference,
    Document,
    LabelledText,
    MarkovLanguage,
    QuestionAnswer,
    SentencePair,
    Summary,
    TaggedSentence,
    chinese_numeral,
    english_numeral,
    in_split,
)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Sequence[Any]):
    """One split of a data set: a sequence of rows that knows where it comes from. A slice is again a `Dataset`.

    Args:
        rows: NamedTuples of one class.
        name: what was asked for; a stand-in keeps the name of the set whose place it takes.
        split: "train", "valid", "test" or "all".
        is_stand_in: an embedded set took this one's place.
        licence: the terms of the text.
        citation: whom to cite.
        labels: the names of the classes, where rows have labels.
        separator: what stands between two documents in `text`.

    >>> reviews = Dataset((LabelledText("fine", 1), LabelledText("dull", 0)), "mine", "train", labels=("bad", "good"))
    >>> len(reviews), reviews[0].text, reviews[:1]
    (2, 'fine', <mine train: 1 × LabelledText>)
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
        kind = type(self.rows[0]).__name__ if self.rows else "row"
        return f"<{self.name} {self.split}: {len(self):,} × {kind}{', a stand-in' if self.is_stand_in else ''}>"

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

        >>> load("numerals").sample(3, seed=1).rows == load("numerals").sample(3, seed=1).rows
        True
        """
        if not 0 <= n <= len(self):
            raise ValueError(
                f"{n} rows asked of {self.name} {self.split}, which has {len(self)}; ask for that or fewer"
            )
        return replace(self, rows=tuple(random.Random(seed).sample(self.rows, n)))


def without_leaks(train: Sequence[Any], test: Dataset) -> Dataset:
    """The rows of `test` whose text does not occur in `train`, each text once.

    331 of the 1,200 test reviews of ChnSentiCorp stand word for word in its training file; a score on all of them
    partly measures memory.

    Args:
        train: the rows that a model learns from.
        test: the rows that it is judged by.

    Returns:
        A smaller `test`. Rows are compared by `text`, or where they have none by their first field.

    >>> test = Dataset((Document("a", "seen"), Document("b", "new"), Document("c", "new")), "mine", "test")
    >>> [row.title for row in without_leaks([Document("z", "seen")], test)]
    ['b']
    """
    seen, kept = {getattr(row, "text", row[0]) for row in train}, []
    for row in test:
        key = getattr(row, "text", row[0])
        if key not in seen:
            seen.add(key)
            kept.append(row)
    return replace(test, rows=tuple(kept))


# --------------------------------------------------------------------------------------- the table, cache and network


class Unavailable(OSError):  # noqa: N818
    """A data set cannot be had; the message is one sentence: what is the matter, and what to do."""


@cache
def table() -> dict[str, Any]:
    """What `datasets.json` says: address, size, sha256, licence and citation of everything that can be downloaded.

    >>> table()["tinyshakespeare"]["files"][0]["bytes"]
    1115394
    """
    return json.loads(Path(__file__).with_name("datasets.json").read_text(encoding="utf-8"))


def cache_dir() -> Path:
    """Where downloaded files lie, as `<data set>/<file>`: `LMTL_DATA_DIR`, else the user's cache folder.

    >>> isinstance(cache_dir(), Path)
    True
    """
    import pooch

    return Path(os.environ.get("LMTL_DATA_DIR") or pooch.os_cache("lmtl_course")).expanduser()


_PATIENCE = 5.0  # seconds for a connection to come about
_PAUSE = 60.0  # seconds for which a host that could not be reached is not asked again
_unreachable: dict[str, float] = {}
_verified: set[tuple[str, int, int]] = set()


def _fault(path: Path, entry: dict[str, Any], thorough: bool = True) -> str:
    """What is wrong with a cached file, "" if nothing. A file is read and hashed once per process."""
    if not path.is_file():
        return "is not in the cache"
    stat = path.stat()
    if entry["bytes"] is not None and stat.st_size != entry["bytes"]:
        return f"is damaged ({stat.st_size:,} bytes, expected {entry['bytes']:,})"
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if thorough and key not in _verified:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != entry["sha256"]:
            return f"is damaged (sha256 {digest[:12]}…, expected {entry['sha256'][:12]}…)"
        _verified.add(key)
    return ""


def _facts(name: str) -> dict[str, Any]:
    if name not in table():
        raise ValueError(f"no data set {name!r} can be downloaded; choose one of {', '.join(sorted(table()))}")
    return table()[name]


def missing(name: str, thorough: bool = True) -> dict[str, str]:
    """The files of a data set that are absent or damaged, each with what is the matter.

    Args:
        name: of a downloaded data set.
        thorough: compare sha256, not only sizes.

    Raises:
        ValueError: no downloaded set has this name.

    >>> set(missing("sst2", thorough=False)) <= {"stsa.binary.train", "stsa.binary.dev", "stsa.binary.test"}
    True
    """
    facts = _facts(name)
    folder = cache_dir() / facts["folder"]
    faults = {entry["file"]: _fault(folder / entry["file"], entry, thorough) for entry in facts["files"]}
    return {file: fault for file, fault in faults.items() if fault}


def fetch(name: str, split: str | None = None, timeout: float = 10.0) -> list[Path]:
    """Make sure that a data set's files are in the cache, downloading what is missing or damaged.

    A file reaches its place complete and with the right sha256, or not at all; an intact file is never written.

    Args:
        name: of a downloaded data set.
        split: only the files which that split needs; None for all.
        timeout: seconds without an answer after which a server is given up; connecting has 5.

    Returns:
        The paths, in the order of the table.

    Raises:
        Unavailable: a file cannot be had.
        ValueError: no downloaded set has this name.

    >>> fetch("snli")
    Traceback (most recent call last):
    ...
    ValueError: no data set 'snli' can be downloaded; choose one of agnews, chnsenticorp, ...
    """
    facts = _facts(name)
    folder = cache_dir() / facts["folder"]
    wanted = {"all": ("train", "valid", "test", None)}.get(split or "", (split, None))
    entries = [entry for entry in facts["files"] if split is None or entry["split"] in wanted]
    faults = {entry["file"]: _fault(folder / entry["file"], entry) for entry in entries}
    lacking = [entry for entry in entries if faults[entry["file"]]]
    if lacking:
        _download(name, folder, lacking, faults, timeout)
    return [folder / entry["file"] for entry in entries]


def _download(name: str, folder: Path, lacking: list[dict[str, Any]], faults: dict[str, str], timeout: float) -> None:
    """Fetch files four at a time under one progress bar; `Unavailable` at the first that cannot be had."""
    import pooch
    import requests
    from tqdm import tqdm

    pooch.get_logger().setLevel("WARNING")
    registry = {entry["file"]: f"sha256:{entry['sha256']}" for entry in lacking}
    urls = {entry["file"]: entry["url"] for entry in lacking}
    store = pooch.create(folder, base_url="", registry=registry, urls=urls, retry_if_failed=1)

    def one(entry: dict[str, Any]) -> None:
        def downloader(url: str, output: str, pup: Any) -> None:
            digest, size = hashlib.sha256(), 0
            with open(output, "wb") as file, requests.get(url, stream=True, timeout=(_PATIENCE, timeout)) as response:
                response.raise_for_status()
                try:
                    for chunk in response.iter_content(8192):
                        digest.update(chunk)
                        size += file.write(chunk)
                        bar.update(len(chunk))
                except requests.RequestException:
                    if not size:
                        raise
            if size != (entry["bytes"] or size):
                raise ValueError(f"only {size:,} of {entry['bytes']:,} bytes arrived")
            if digest.hexdigest() != entry["sha256"]:
                raise ValueError(f"what arrived has sha256 {digest.hexdigest()[:12]}…, not {entry['sha256'][:12]}…")

        try:
            store.fetch(entry["file"], downloader=downloader)
        except (OSError, ValueError) as error:
            raise unavailable(entry, error) from error

    def unavailable(entry: dict[str, Any], error: Exception) -> Unavailable:
        what = f"{folder.name}/{entry['file']} {faults[entry['file']]}"
        return Unavailable(f"{what} and {_reason(error, entry, folder, timeout)}")

    for entry in {urlsplit(entry["url"]).netloc: entry for entry in reversed(lacking)}.values():
        try:
            _connect(entry["url"])
        except ConnectionError as error:
            raise unavailable(entry, error) from None
    size = sum(entry["bytes"] or 0 for entry in lacking)
    with tqdm(total=size, desc=name, unit="B", unit_scale=True, leave=False) as bar, ThreadPoolExecutor(4) as pool:
        list(pool.map(one, lacking))  # the first failure cancels what is still waiting


def _connect(url: str) -> None:
    """Reach the server soon or raise: looking up a name has no timeout of its own and may hang for a minute."""
    from requests.utils import get_environ_proxies

    parts = urlsplit(url)
    if get_environ_proxies(url):
        return  # a proxy does the looking up
    address, reached = (parts.hostname or "", parts.port or {"http": 80}.get(parts.scheme, 443)), threading.Event()

    def attempt() -> None:
        with suppress(OSError), socket.create_connection(address, timeout=_PATIENCE):
            reached.set()

    if time.monotonic() - _unreachable.get(parts.netloc, -_PAUSE) >= _PAUSE:
        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(_PATIENCE)
        if not reached.is_set():
            _unreachable[parts.netloc] = time.monotonic()
    if not reached.is_set():
        raise ConnectionError(f"there is no connection to {parts.netloc}")


def _reason(error: Exception, entry: dict[str, Any], folder: Path, timeout: float) -> str:
    """The second half of the sentence: what happened, and the remedy."""
    import requests

    host, response = urlsplit(entry["url"]).netloc, getattr(error, "response", None)
    remedy = "try again"
    if isinstance(error, requests.HTTPError) and response is not None:
        what, remedy = f"{entry['url']} answered {response.status_code} {response.reason}", "update lmtl-course"
    elif isinstance(error, requests.Timeout) or "timed out" in str(error):
        what = f"{host} sent nothing for {timeout:g} s"
    elif isinstance(error, requests.RequestException):
        what = f"the connection to {host} broke off"
    elif isinstance(error, ConnectionError):
        what, remedy = str(error), f"connect and try again after {_PAUSE:g} s"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
        what, remedy = f"{folder} has no room ({free:,} bytes free, {entry['bytes'] or 0:,} needed)", "free some"
    elif isinstance(error, OSError):
        what, remedy = f"{folder} cannot be written ({error.strerror})", "make it writable"
    else:
        what = str(error)
    return f"{what}: {remedy}, or set LMTL_DATA_DIR to a folder that holds {folder.name}/{entry['file']}"


# ------------------------------------------------------------------------------------------------ downloaded: parsers
# Each takes the decoded files of a split by name, and the split, which matters only where the files have none.


def _decoded(path: Path) -> str:
    """The text of a file whatever its age: gz or plain, with a byte-order mark or not, CRLF or LF, UTF-8 or cp1252."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:  # one byte of TREC's training file: "sister\xf0city"
        text = raw.decode("cp1252", errors="replace")
    return text.replace("\r\n", "\n")


def _lines(files: dict[str, str]) -> list[str]:
    """Lines end at a newline and nowhere else; `str.splitlines` would also cut at U+0085 and U+2028."""
    return [line for text in files.values() for line in text.removesuffix("\n").split("\n")]


def _tinyshakespeare(files: dict[str, str], split: str) -> list[Document]:
    (text,) = files.values()
    cut = int(0.9 * len(text))
    return [Document("Tiny Shakespeare", {"train": text[:cut], "valid": text[cut:], "all": text}[split])]


def _classics(files: dict[str, str], split: str) -> list[Document]:
    titles = {entry["file"]: entry["title"] for entry in table()["classics"]["files"]}
    return [Document(titles[file], clean_book(text)) for file, text in files.items()]


def clean_book(text: str) -> str:
    r"""The book inside a Project Gutenberg file: without its markers and notices, one line per paragraph.

    Line breaks inside a paragraph are the transcriber's and become spaces; where lines are indented (verse, letters,
    tables of contents) they stay.

    Args:
        text: the file's text.

    >>> book = "Terms\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\nProduced by A\n\n\nIt was\nlate.\n\n  O moon\n"
    >>> clean_book(book + "  O sea\n\nEnd of Project Gutenberg's X\n*** END OF THIS PROJECT GUTENBERG EBOOK X ***\n")
    'It was late.\n\n  O moon\n  O sea'
    """
    text = text.replace("\r\n", "\n")
    start, end = re.search(r"\*\*\* ?START OF TH[^*]*\*\*\*", text), re.search(r"\n\*\*\* ?END OF TH", text)
    body = text[start.end() if start else 0 : end.start() if end else None]
    paragraphs = [p.rstrip() for p in re.split(r"\n(?:[ \t]*\n)+", "\n" + body) if p.strip()]
    paragraphs = [p for p in paragraphs if not re.search(r"Project\s+Gutenberg", p)]
    while paragraphs and re.match(
        r"E-text prepared|Produced by|Transcribed|Special thanks|An Anonymous", paragraphs[0]
    ):
        del paragraphs[0]
    return "\n\n".join(p.strip("\n") if "\n " in f"\n{p}" else " ".join(p.split()) for p in paragraphs)


def _wikitext2(files: dict[str, str], split: str) -> list[Document]:
    """One document per article, cut so that joined with nothing between they are the file again, line for line."""
    articles = [a for a in re.split(r"(?m)^(?= \n = [^=\n])", "".join(files.values())) if a.strip()]
    return [Document(article.split("\n")[1].strip(" ="), article) for article in articles]


def _label_first(files: dict[str, str], split: str) -> list[LabelledText]:
    return [LabelledText(line[2:].strip(), int(line[0])) for line in _lines(files)]


def _cr(files: dict[str, str], split: str) -> list[LabelledText]:
    """Without the four empty reviews."""
    return [row for row in _label_first(files, split) if row.text and in_split(row.text, split)]


def _chnsenticorp(files: dict[str, str], split: str) -> list[LabelledText]:
    lines = (line for text in files.values() for line in _lines({"": text})[1:])  # each file has a header
    return [LabelledText(text, int(label)) for label, text in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]


def _agnews(files: dict[str, str], split: str) -> list[LabelledText]:
    """Classes count from 1; HTML entities have lost their ampersand, and a newline has become a backslash."""

    def mended(text: str) -> str:
        text = re.sub(r" #39;", "'", text.replace("\\", " "))
        text = re.sub(r"&?(#\d+|\b(?:quot|amp|lt|gt|nbsp));", lambda m: html.unescape(f"&{m[1]};"), text)
        return " ".join(text.split())

    return [LabelledText(mended(f"{title}. {body}"), int(n) - 1) for n, title, body in csv.reader(_lines(files))]


def _wnut17(files: dict[str, str], split: str) -> list[TaggedSentence]:
    """A sentence ends at a line without visible characters: many separators hold a single tab."""
    rows, pairs = [], []
    for line in [*_lines(files), ""]:
        if line.strip():
            pairs.append(line.split("\t")[:2])
        elif pairs:
            tokens, tags = zip(*pairs, strict=True)
            rows.append(TaggedSentence(tokens, tuple(tag.strip() for tag in tags)))
            pairs = []
    return rows


def _squad(files: dict[str, str], split: str) -> list[QuestionAnswer]:
    """Offsets count code points of the context as it stands, a leading U+FEFF included, so nothing is stripped."""
    paragraphs = (p for text in files.values() for article in json.loads(text)["data"] for p in article["paragraphs"])
    return [
        QuestionAnswer(
            paragraph["context"],
            qa["question"].strip(),
            tuple(answer["text"] for answer in qa["answers"]),
            tuple(answer["answer_start"] for answer in qa["answers"]),
        )
        for paragraph in paragraphs
        for qa in paragraph["qas"]
    ]


def _multi30k(files: dict[str, str], split: str) -> list[SentencePair]:
    sides = (_lines({file: text for file, text in files.items() if f".{side}." in file}) for side in ("en", "de"))
    return [SentencePair(source.strip(), target.strip()) for source, target in zip(*sides, strict=True)]


def _tatoeba(files: dict[str, str], split: str) -> list[SentencePair]:
    """Dealt by the English side: one sentence has up to several translations, which must not part."""
    pairs = (SentencePair(*line.split("\t")[:2]) for line in _lines(files))
    return [pair for pair in pairs if in_split(pair.source, split)]


def _scitldr(files: dict[str, str], split: str) -> list[Summary]:
    papers = ((paper["source"], paper["target"]) for paper in map(json.loads, _lines(files)))
    return [Summary(*(tuple(" ".join(part.split()) for part in parts) for parts in paper)) for paper in papers]


def _crows_pairs(files: dict[str, str], split: str) -> list[BiasPair]:
    rows = csv.DictReader(io.StringIO("".join(files.values())))  # the nameless first column is a number
    return [BiasPair(r["sent_more"], r["sent_less"], r["stereo_antistereo"], r["bias_type"]) for r in rows]


def _winobias(files: dict[str, str], split: str) -> list[Coreference]:
    """Most lines bracket one mention and one pronoun, 87 have a third group: each is told by what it holds."""
    rows = []
    for file, text in files.items():
        for line in _lines({file: text}):
            number, _, sentence = line.partition(" ")
            groups = [group.strip() for group in re.findall(r"\[([^\]]*)\]", sentence)]
            pronouns = tuple(g for g in groups if g.lower() in ("he", "she", "him", "her", "his", "hers"))
            mention = next(g for g in groups if g not in pronouns)
            plain = " ".join(re.sub(r"[\[\]]", "", sentence).split())
            rows.append(
                Coreference(plain, mention, pronouns, file.startswith("pro"), 1 if "type1" in file else 2, int(number))
            )
    return rows


_PARSERS: dict[str, Callable[[dict[str, str], str], list[Any]]] = {
    "tinyshakespeare": _tinyshakespeare,
    "classics": _classics,
    "wikitext2": _wikitext2,
    "sst2": _label_first,
    "cr": _cr,
    "trec": _label_first,
    "chnsenticorp": _chnsenticorp,
    "agnews": _agnews,
    "wnut17": _wnut17,
    "xquad_en": _squad,
    "xquad_zh": _squad,
    "squad": _squad,
    "multi30k": _multi30k,
    "tatoeba_en_zh": _tatoeba,
    "scitldr": _scitldr,
    "crows_pairs": _crows_pairs,
    "winobias": _winobias,
}


# ------------------------------------------------------------------------------------------------------- load by name


_loaded: dict[str, str] = {}
_fallen: dict[tuple[str, Path], str] = {}  # which split of a set sent the others to the stand-in


def names() -> dict[str, str]:
    """Every data set's name with its task: the downloaded ones first, then the embedded ones.

    >>> names()["sst2"], names()["numerals"]
    ('sentiment of film reviews', 'translation English to Chinese')
    """
    return {name: facts["task"] for name, facts in table().items()} | {n: e.task for n, e in EMBEDDED.items()}


def splits(name: str) -> tuple[str, ...]:
    """The splits of a data set, "all" last.

    Args:
        name: of the data set.

    Raises:
        ValueError: no data set has this name.

    >>> splits("trec"), splits("tinyshakespeare"), splits("pydocs")
    (('train', 'test', 'all'), ('train', 'valid', 'all'), ('train', 'valid', 'test', 'all'))
    """
    if name not in names():
        raise ValueError(f"no data set is called {name!r}; choose one of {', '.join(sorted(names()))}")
    kept = {entry["split"] for entry in table()[name]["files"]} if name in table() else {None}
    whole = ("train", "valid") if name == "tinyshakespeare" else ("train", "valid", "test")
    return (*(split for split in whole if split in kept or None in kept), "all")


def loaded() -> list[str]:
    """What this process has loaded so far, and in which form; a notebook's stamp quotes it.

    >>> _ = load("numerals", "test")
    >>> "numerals (embedded)" in loaded()
    True
    """
    return [f"{name} ({how})" for name, how in sorted(_loaded.items())]


@cache
def _parsed(name: str, split: str, root: Path) -> tuple[Any, ...]:
    return tuple(_PARSERS[name]({path.name: _decoded(path) for path in fetch(name, split)}, split))


def load(name: str, split: str = "train", stand_in: bool = False) -> Dataset:
    """Load one split of a data set, downloading its files where they are missing.

    Args:
        name: of the data set, see `names`.
        split: "train", "valid", "test" or "all", where the set has it, see `splits`.
        stand_in: where the set cannot be had, run on an embedded one of the same shape and print which. All further
            splits then come from that one too, so that no training set meets a test set from elsewhere.

    Returns:
        The rows, with labels, licence and citation. A licence that is in doubt is printed once per process.

    Raises:
        ValueError: no such set or split.
        Unavailable: the set cannot be had and no stand-in was asked for.

    >>> load("numerals", "test")[0]
    SentencePair(source='...', target='...')
    """
    if split not in splits(name):
        raise ValueError(f"{name} has no split {split!r}; choose one of {', '.join(splits(name))}")
    if name in EMBEDDED:
        _loaded[name] = "embedded"
        return _embedded(name, name, split)
    facts, key = table()[name], (name, cache_dir())
    try:
        if stand_in and _fallen.get(key, split) != split:  # never train on a stand-in and test on the real set
            raise Unavailable(f"its split {_fallen[key]!r} was")
        rows = _parsed(name, split, cache_dir())
    except Unavailable as error:
        if not stand_in:
            raise
        print(f"STAND-IN: {name} is replaced by {facts['stand_in']} ({names()[facts['stand_in']]}), because {error}.")
        _fallen.setdefault(key, split)
        _loaded[name] = f"stand-in: {facts['stand_in']}"
        return replace(_embedded(facts["stand_in"], name, split), is_stand_in=True)
    if _fallen.get(key) == split:
        del _fallen[key]
    if facts["licence_note"] and _loaded.get(name) != "real":
        print(f"Licence of {name}: {facts['licence_note']}.")
    _loaded[name] = "real"
    labels = tuple(facts["labels"]) if facts["labels"] else None
    exact = "" if name in ("tinyshakespeare", "wikitext2") else "\n\n"  # these are cut, and joined, line for line
    return Dataset(rows, name, split, False, facts["licence"], facts["citation"], labels, exact)


def _embedded(source: str, name: str, split: str) -> Dataset:
    python = source.startswith("pydocs")
    licence = "PSF-2.0 (Python's documentation)" if python else "MIT (made by this package)"
    citation = "Python Software Foundation, docs.python.org" if python else ""
    made = EMBEDDED[source]
    return Dataset(tuple(made.make(split)), name, split, licence=licence, citation=citation, labels=made.labels)
