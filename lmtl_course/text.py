"""Text, before any model: clean it, cut it into tokens, mark what they mean, count them and give them numbers.

The first chapter. Everything after it reads the lists of integers that are made here.
"""

import html
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from html.parser import HTMLParser
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
"""Chinese characters, as the inside of a character class of `re`."""

# A Chinese character; or letters and digits, with apostrophes between them; or any other visible character alone. The
# underscore is no letter here: books print _italics_ with it.
_TOKEN = re.compile(rf"[{HAN}]|[^\W_{HAN}]+(?:['’][^\W_{HAN}]+)*|[^\w\s]|_")
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u200b\u2060\ufeff]")  # not U+200C and U+200D: those spell words

# ------------------------------------------------------------------------------------------------------------ cleaning


def clean(text: str, form: Literal["NFC", "NFD", "NFKC", "NFKD"] = "NFC", unwrap: bool = False) -> str:
    r"""Make equal what looks equal: line ends, invisible characters, Unicode form, spaces. Letters and marks stay.

    Args:
        text: decoded text.
        form: Unicode normal form; the K forms also replace ligatures, full-width letters and superscripts.
        unwrap: turn single line breaks into spaces, so that only empty lines part paragraphs.

    Returns:
        Text without control characters, byte-order marks, zero-width spaces and soft hyphens, with single spaces, at
        most one empty line in a row and no space at the ends of lines. Cleaning it again changes nothing.

    Source: Unicode Standard Annex 15 (normalisation forms).

    >>> clean("\ufeffA cafe\u0301,\r\n  two\u00a0\u200b words\r\n\r\n\r\n\r\nEnd\x07 ")
    'A café,\ntwo words\n\nEnd'
    """
    text = _UNSEEN.sub("", _LINE_END.sub("\n", text))
    text = re.sub(r"[^\S\n]+", " ", unicodedata.normalize(form, text))
    text = re.sub(r"\n{3,}", "\n\n", re.sub(" ?\n ?", "\n", text)).strip()
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text) if unwrap else text


_BRACKETS = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "-lcb-": "{", "-rcb-": "}"}
_SHORT = re.compile(r" (n't|n 't|'(?:s|re|ve|ll|d|m|t)\b)", re.IGNORECASE)


def detokenize(text: str) -> str:
    """Undo the spaces of a text that is stored in tokens, so that it reads as people, and pretrained models, write it.

    Args:
        text: words and signs with a space between any two, as in the Penn Treebank: "do n't", "-lrb-", "``".

    Returns:
        Running text. What was never tokenised passes nearly unchanged, but a space before a comma goes.

    Source: the conventions of Marcus et al. 1993, "Building a Large Annotated Corpus of English: The Penn Treebank".

    >>> print(detokenize("it is n't bad , just `` odd '' -lrb- it 's long -rrb- ."))
    it isn't bad, just "odd" (it's long).
    """
    for code, sign in _BRACKETS.items():
        text = re.sub(re.escape(code), sign, text, flags=re.IGNORECASE)
    text = _SHORT.sub(lambda m: m[1].replace(" ", ""), text)
    text = re.sub(r"(``|(?<!\S)`(?= )) ?", lambda m: '"' if m[1] == "``" else "'", text)
    text = re.sub(r" ?''", '"', text)
    text = re.sub(r" ([,.;:!?%)\]}]+)(?!\S)", r"\1", text)
    return re.sub(r"(?<!\S)([(\[{$]) ", r"\1", text)


_INLINE = re.compile("a|abbr|b|big|cite|code|em|font|i|kbd|mark|q|s|small|span|strong|sub|sup|tt|u|var|wbr")
_HIDDEN = re.compile("script|style|template|title")


class _Reader(HTMLParser):
    """Collects what a browser would show."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.shown: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.hidden += bool(_HIDDEN.fullmatch(tag))
        self.handle_startendtag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        self.hidden = max(0, self.hidden - bool(_HIDDEN.fullmatch(tag)))
        self.handle_startendtag(tag, None)

    def handle_startendtag(self, tag: str, attrs: object) -> None:  # <br/>, and what every tag has in common
        self.shown.append("" if _INLINE.fullmatch(tag) else "\n")

    def handle_data(self, data: str) -> None:
        self.shown.append("" if self.hidden else data)


def strip_markup(markup: str) -> str:
    r"""The text of an HTML page: words on two sides of a block's tag stay apart, those inside an inline tag stay whole.

    Args:
        markup: HTML, well-formed or not.

    Returns:
        What a browser shows, cleaned, entities decoded; blocks on lines of their own.

    >>> strip_markup("<p>Un<b>believ</b>able &mdash; <i>AT&amp;T</i>!<br>10 &lt; 20<script>x()</script><td>a<td>b")
    'Unbelievable — AT&T!\n10 < 20\n\na\nb'
    """
    reader = _Reader()
    reader.feed(markup)
    reader.close()
    return clean("".join(reader.shown))


# -------------------------------------------------------------------------------------------------- words and sentences


def token_spans(text: str) -> list[tuple[int, int]]:
    """Where each token of `tokenize` stands: `text[start:end]` is the token, and between two there is only space.

    Args:
        text: any text.

    >>> token_spans("No way!")
    [(0, 2), (3, 6), (6, 7)]
    """
    return [match.span() for match in _TOKEN.finditer(text)]


def tokenize(text: str) -> list[str]:
    """Words, with the apostrophes inside them; Chinese characters one by one; every other visible character alone.

    Args:
        text: composed text (`clean` does it): a combining mark counts as another character. Scripts that write their
            vowels with such marks, or no spaces (Devanagari, Thai), need the learned tokens of chapter 2.

    Returns:
        The tokens in order. Nothing but white space is lost.

    >>> tokenize("Don't pay £3.50 for l’amour, 他说。")
    ["Don't", 'pay', '£', '3', '.', '50', 'for', 'l’amour', ',', '他', '说', '。']
    """
    return _TOKEN.findall(text)


_STOP = re.compile(r"""[.!?…]+["'”’)\]]*(?=\s)|[。！？]+[”’」』）]*|\n\s*(?=\n)""")
_OPENING = "\"'“‘([—-*_ "
_ABBREVIATION = re.compile(
    "(mrs?|ms|dr|prof|st|rev|hon|capt|col|gen|lt|sgt|mme|mlle|m|messrs|vs|cf|e.g|i.e|viz|vol|fig|pp?|no)", re.I
)


def sentences(text: str) -> list[str]:
    """Cut text after full stops that end a sentence, by three rules.

    A stop is a run of `. ! ? …` with its closing quotes before white space, a Chinese 。！？, or an empty line. It does
    not count when a small letter follows, nor when it is a single dot after an abbreviation or an initial.

    Args:
        text: any text.

    Returns:
        The sentences without the space around them.

    >>> sentences("“Well?” asked Mr. J. Bennet. He paid 3.50 at St. Ives. 真的！她走了。")
    ['“Well?” asked Mr. J. Bennet.', 'He paid 3.50 at St. Ives.', '真的！', '她走了。']
    """
    cuts = [0]
    for stop in _STOP.finditer(text):
        following = text[stop.end() : stop.end() + 20].lstrip().lstrip(_OPENING)[:1]
        before = text[max(cuts[-1], stop.start() - 12) : stop.start()].split()[-1:]
        word = before[0].strip(_OPENING) if before else ""
        initial = len(word) == 1 and word.isupper() and word != "I"
        if stop.group() == "." and (initial or _ABBREVIATION.fullmatch(word)):
            continue
        if stop.group()[0] not in "。！？\n" and following.islower():
            continue
        cuts.append(stop.end())
    pieces = (text[start:end].strip() for start, end in pairwise([*cuts, len(text)]))
    return [piece for piece in pieces if piece]


# --------------------------------------------------------------------------------------------------------------- labels


class Mark(NamedTuple):
    """A labelled stretch of text: `text[start:end]` is a `label`."""

    start: int
    end: int
    label: str


_LABEL = re.compile(r"[A-Za-z][\w-]*")
_MARK = re.compile(r"<(/?)([A-Za-z][\w-]*)>")


def write_marks(text: str, marks: Iterable[Mark]) -> str:
    """Write labels into the text, as `<PER>…</PER>`; the text's own `<`, `>` and `&` are escaped.

    Args:
        text: any text.
        marks: stretches of at least one character that do not overlap, in any order.

    Raises:
        ValueError: a mark is empty, outside the text or overlaps another, or its label is no name.

    >>> write_marks("Ada & Charles", [Mark(0, 3, "PER")])
    '<PER>Ada</PER> &amp; Charles'
    """
    written, at = [], 0
    for mark in sorted(marks):
        if not at <= mark.start < mark.end <= len(text) or not _LABEL.fullmatch(mark.label):
            raise ValueError(f"{mark} is empty, misnamed, overlaps one that ends at {at} or leaves 0 … {len(text)}")
        inside = html.escape(text[mark.start : mark.end], quote=False)
        written += [html.escape(text[at : mark.start], quote=False), f"<{mark.label}>{inside}</{mark.label}>"]
        at = mark.end
    return "".join(written) + html.escape(text[at:], quote=False)


def read_marks(marked: str) -> tuple[str, list[Mark]]:
    """Undo `write_marks`: the plain text, and where in it each label stands.

    Args:
        marked: text with `<LABEL>…</LABEL>`, not nested.

    Raises:
        ValueError: a label opens inside another, or does not open or close.

    >>> read_marks("<PER>Ada</PER> &amp; Charles")
    ('Ada & Charles', [Mark(start=0, end=3, label='PER')])
    """
    text, marks, at, label, start = "", [], 0, "", 0
    for tag in _MARK.finditer(marked):
        text, at = text + html.unescape(marked[at : tag.start()]), tag.end()
        if tag[1] and tag[2] == label:
            marks.append(Mark(start, len(text), label))
            label = ""
        elif not tag[1] and not label:
            label, start = tag[2], len(text)
        else:
            raise ValueError(
                f"{tag[0]} at {tag.start()} stands where <{label or '…'}> is open; close it, and nest none"
            )
    if label:
        raise ValueError(f"<{label}> is never closed; add </{label}>")
    return text + html.unescape(marked[at:]), marks


def to_bio(spans: Sequence[tuple[int, int]], marks: Iterable[Mark]) -> list[str]:
    """One tag per token: `B-` on the first token of a mark, `I-` on its others, `O` outside.

    Args:
        spans: start and end of each token, as from `token_spans`.
        marks: stretches that begin and end where tokens do.

    Raises:
        ValueError: a mark cuts through a token, or two share one.

    Source: Ramshaw and Marcus 1995, arXiv:cmp-lg/9505040.

    >>> to_bio(token_spans("Ada Lovelace wrote"), [Mark(0, 12, "PER")])
    ['B-PER', 'I-PER', 'O']
    """
    tags = ["O"] * len(spans)
    starts, ends = ({span[side]: i for i, span in enumerate(spans)} for side in (0, 1))
    for mark in marks:
        first, last = starts.get(mark.start), ends.get(mark.end)
        if first is None or last is None or last < first or set(tags[first : last + 1]) != {"O"}:
            raise ValueError(
                f"{mark} cuts through a token or shares one; move its ends to the {len(spans)} tokens' ends"
            )
        tags[first : last + 1] = ["B-" + mark.label] + ["I-" + mark.label] * (last - first)
    return tags


def from_bio(spans: Sequence[tuple[int, int]], tags: Sequence[str]) -> list[Mark]:
    """Undo `to_bio`. An `I-` with nothing of its label before it opens a mark, as in the CoNLL scorer.

    Args:
        spans: start and end of each token.
        tags: one per token, `O`, `B-…` or `I-…`.

    Raises:
        ValueError: there are more tokens than tags or fewer, or a tag is none of the three.

    >>> from_bio([(0, 3), (4, 12), (13, 18)], ["B-PER", "I-PER", "O"])
    [Mark(start=0, end=12, label='PER')]
    """
    if len(spans) != len(tags):
        raise ValueError(f"{len(spans)} tokens but {len(tags)} tags; give every token one")
    marks: list[Mark] = []
    before = ""
    for (start, end), tag in zip(spans, tags, strict=True):
        prefix, _, label = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I") or not label):
            raise ValueError(f"tag {tag!r} is none of O, B-LABEL and I-LABEL; convert the scheme first")
        if prefix == "I" and label == before:
            marks[-1] = marks[-1]._replace(end=end)
        elif label:
            marks.append(Mark(start, end, label))
        before = label
    return marks


# -------------------------------------------------------------------------------------------------------------- Chinese


def find_words(
    texts: Iterable[str], max_length: int = 4, min_count: int = 5, cohesion: float = 2.0, freedom: float = 0.3
) -> set[str]:
    r"""Find the words of a language written without spaces, by counting: $\log\frac{p(ab)}{p(a)\,p(b)}$ at every cut.

    A string counts as a word when its weakest cut still holds together (pointwise mutual information of the two sides)
    and its surroundings vary: no single neighbour stands beside it nearly always.

    Args:
        texts: raw texts; a word never crosses anything but Chinese characters.
        max_length: of a word, in characters.
        min_count: rarer strings are not judged.
        cohesion: least pointwise mutual information, in nats.
        freedom: least share of occurrences not covered by the most frequent one-character extension.

    Returns:
        Words of 2 to `max_length` characters.

    Source: Church and Hanks 1990, aclanthology.org/J90-1003 (mutual information of word pairs, here of characters).

    >>> sorted(find_words(["我喜欢酒店", "你喜欢他", "酒店好", "他喜欢你", "大酒店小"] * 5, min_count=6, cohesion=1.0))
    ['喜欢', '酒店']
    """
    runs = [run for text in texts for run in re.findall(f"[{HAN}]+", text)]
    counts: Counter[str] = Counter()
    for n in range(1, max_length + 2):  # one longer than a word, to see its neighbours
        counts.update(run[i : i + n] for run in runs for i in range(len(run) - n + 1))
    characters = sum(map(len, runs))
    nats = {string: log(count / characters) for string, count in counts.items() if count >= min_count}
    company: dict[str, int] = {}  # of each string, the count of its most frequent extension, where that can matter
    for string, count in counts.items():
        if count > (1 - freedom) * min_count:
            for inner in (string[1:], string[:-1]):
                company[inner] = max(company.get(inner, 0), count)
    return {
        string
        for string, p in nats.items()
        if 1 < len(string) <= max_length
        and min(p - nats[string[:cut]] - nats[string[cut:]] for cut in range(1, len(string))) >= cohesion
        and company.get(string, 0) <= (1 - freedom) * counts[string]
    }


@lru_cache(maxsize=8)
def _longest(words: frozenset[str]) -> int:
    """Length of the longest word, kept: going through the dictionary for every text would cost more than the texts."""
    return max(map(len, words), default=0)


def max_match(text: str, words: Iterable[str]) -> list[str]:
    """Segment from left to right, taking at each place the longest word that fits; else a token of `tokenize`.

    Args:
        text: any text.
        words: a dictionary; a frozenset is neither copied nor measured again at the next call.

    >>> max_match("研究生命的起源", {"研究", "研究生", "生命", "起源"})  # "study of life", read as "graduate student"
    ['研究生', '命', '的', '起源']
    """
    known, spans = frozenset(words), token_spans(text)
    ends = {end for _, end in spans}  # a word must not stop inside a token
    longest, tokens, at = _longest(known), [], 0
    for start, end in spans:
        if start >= at:  # else a longer word has covered this token
            lengths = range(min(longest, len(text) - start), end - start, -1)
            fits = (start + n for n in lengths if start + n in ends and text[start : start + n] in known)
            at = next(fits, end)
            tokens.append(text[start:at])
    return tokens


# ------------------------------------------------------------------------------------------------------------- counting


def zipf_exponent(counts: Sequence[int] | np.ndarray, first: int = 1, last: int | None = None) -> float:
    r"""The $\alpha$ of $p(r) \propto r^{-\alpha}$ under which ranks `first` … `last` are most likely.

    At the maximum the model's mean log rank equals the data's; halving an interval finds it, for the model's falls
    as $\alpha$ grows.

    Args:
        counts: how often the word of rank 1, 2, 3, … occurs. Where words rank by the same counts, near-equal ones
            stand in the order of chance, which bends the tail: quote the exponent with its range of ranks.
        first: the first rank that counts.
        last: the last one; None for all.

    Raises:
        ValueError: fewer than two ranks are left, or no occurrences.

    Source: Moreno-Sánchez, Font-Clos and Corral 2016, doi:10.1371/journal.pone.0147073; on the order of chance:
    Piantadosi 2014, doi:10.3758/s13423-014-0585-6.

    >>> round(zipf_exponent([round(1e6 / rank**1.2) for rank in range(1, 500)]), 3)
    1.2
    """
    n = np.asarray(counts, dtype=float)[first - 1 : last]
    if first < 1 or len(n) < 2 or not n.sum() > 0:
        raise ValueError(
            f"ranks {first} … {last or len(counts)} hold {len(n)} words, {n.sum():g} times; use at least 2"
        )
    log_rank = np.log(np.arange(first, first + len(n)))
    wanted, low, high = (n @ log_rank) / n.sum(), -10.0, 10.0
    while high - low > 1e-9:
        alpha = (low + high) / 2
        p = np.exp(-alpha * (log_rank - log_rank[0]))
        low, high = (alpha, high) if p @ log_rank / p.sum() > wanted else (low, alpha)
    return (low + high) / 2


def vocabulary_growth(ids: Int[np.ndarray, " tokens"], sizes: Sequence[int] | np.ndarray) -> Int[np.ndarray, " sizes"]:
    """How many different tokens the first n hold, for every n at once.

    Args:
        ids: token numbers, 0 or larger.
        sizes: the values of n.

    >>> vocabulary_growth(np.array([4, 7, 4, 4, 9]), [1, 2, 4, 5])
    array([1, 2, 2, 3])
    """
    first = np.full(int(ids.max(initial=-1)) + 1, len(ids))
    first[ids[::-1]] = np.arange(len(ids))[::-1]  # the last assignment to a number wins: its first occurrence
    return np.searchsorted(np.sort(first[first < len(ids)]), np.asarray(sizes), side="left")


# ----------------------------------------------------------------------------------------------------------- vocabulary

UNKNOWN = "<unk>"
"""The spelling of the entry that stands for every token outside a vocabulary."""


class Vocabulary:
    """Tokens in a fixed order, so that each has a number; entry 0 stands for everything unknown.

    After the unknown come the other special entries (sentence ends, padding), then ordinary tokens, the frequent first.
    `encode` never returns the number of a special entry except the unknown's: text that spells `<end>` ends nothing.

    Args:
        tokens: ordinary tokens, each once, in order of their numbers.
        specials: names of special entries after the unknown; `id("<end>")` is the only way to their numbers.

    Raises:
        ValueError: a token stands twice.

    >>> vocabulary = Vocabulary.build("the cat and the dog and the end".split(), max_size=4)
    >>> vocabulary.tokens
    ('<unk>', 'the', 'and', 'cat')
    >>> vocabulary.encode(["the", "cat", "sat"])
    [1, 3, 0]
    >>> vocabulary.decode([1, 3, 0])
    ['the', 'cat', '<unk>']
    """

    def __init__(self, tokens: Iterable[str], specials: Sequence[str] = ()):
        self.specials = (UNKNOWN, *specials)
        self.tokens = (*self.specials, *tokens)
        self.unknown = 0
        self._ids = {token: number for number, token in enumerate(self.tokens)}
        if len(self._ids) != len(self.tokens):
            twice = next(token for token, count in Counter(self.tokens).items() if count > 1)
            raise ValueError(f"{twice!r} stands twice among {len(self.tokens)} entries; give every token one number")
        self._ordinary = dict(list(self._ids.items())[len(self.specials) :])
        self._characters = all(len(token) == 1 for token in self._ordinary)

    @classmethod
    def build(
        cls, tokens: Iterable[str], min_count: int = 1, max_size: int | None = None, specials: Sequence[str] = ()
    ) -> "Vocabulary":
        """Number the tokens of a text by how often they occur, equal counts alphabetically.

        Args:
            tokens: the tokens of the training text; a plain string gives a vocabulary of characters.
            min_count: rarer tokens become unknown.
            max_size: most entries to have, the special ones included; None keeps all.
            specials: further special entries, for instance `("<end>",)`.

        Returns:
            A vocabulary that knows nothing but this text.

        Raises:
            ValueError: `min_count` is below 1, or `max_size` leaves no room beside the special entries.

        >>> Vocabulary.build("hello").tokens
        ('<unk>', 'l', 'e', 'h', 'o')
        """
        reserved = {UNKNOWN, *specials}
        if min_count < 1:
            raise ValueError(f"min_count={min_count} must be at least 1: a token that never occurs has no place")
        if max_size is not None and max_size <= len(reserved):
            raise ValueError(f"max_size={max_size} leaves no room beside {len(reserved)} special entries; raise it")
        counts = Counter(tokens)
        kept = [token for token, count in counts.items() if count >= min_count and token not in reserved]
        kept.sort(key=lambda token: (-counts[token], token))
        return cls(kept if max_size is None else kept[: max_size - len(reserved)], specials)

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ordinary

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and (self.tokens, self.specials) == (other.tokens, other.specials)

    def __hash__(self) -> int:
        return hash((self.tokens, self.specials))

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """The number of each token, that of the unknown where it has none.

        Args:
            tokens: tokens made the same way as those of `build`.

        Returns:
            As many integers in [0, len(self)) as there are tokens.

        Raises:
            ValueError: a string where a list of words is wanted; its characters would all be unknown.
        """
        if isinstance(tokens, str) and not self._characters:
            raise ValueError(f"{tokens[:20]!r} is one string, the {len(self)} entries are words; tokenize it first")
        get, unknown = self._ordinary.get, self.unknown
        return [get(token, unknown) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The token of each number: undoes `encode` but for the unknown, which stays `<unk>`.

        Args:
            ids: integers in [0, len(self)).

        Returns:
            As many tokens as there are numbers.

        Raises:
            ValueError: a number lies outside the vocabulary.
        """
        numbers = list(ids)
        for number in numbers:
            if not 0 <= number < len(self.tokens):  # a negative index would quietly count from the end
                raise ValueError(
                    f"id {number} is outside a vocabulary of {len(self)} entries; was it made with another?"
                )
        return [self.tokens[number] for number in numbers]

    def unknown_rate(self, tokens: Iterable[str]) -> float:
        """The share of tokens that have no number here.

        Args:
            tokens: running text; pass `set(tokens)` for the share of different ones.

        Raises:
            ValueError: there are no tokens.

        >>> Vocabulary.build("the cat sat".split()).unknown_rate("the dog sat down".split())
        0.5
        """
        ids = self.encode(tokens)
        if not ids:
            raise ValueError("there are 0 tokens; a rate needs at least one")
        return ids.count(self.unknown) / len(ids)

    def id(self, special: str) -> int:
        """The number of a special entry.

        Args:
            special: its name.

        Raises:
            ValueError: it was not reserved when the vocabulary was built.

        >>> Vocabulary.build("abc", specials=("<end>",)).id("<end>")
        1
        """
        if special not in self.specials:
            raise ValueError(f"{special!r} is not among the special entries {self.specials}; reserve it in build")
        return self.specials.index(special)

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as JSON: a model is useless without the numbers it was trained on.

        Args:
            path: the file to write.
        """
        entries = {"specials": self.specials[1:], "tokens": list(self._ordinary)}
        Path(path).write_text(json.dumps(entries) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read what `save` wrote.

        Args:
            path: the file to read.

        Raises:
            ValueError: the file is not a saved vocabulary.
        """
        try:
            entries = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(entries["tokens"], entries["specials"])
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a vocabulary written by Vocabulary.save; write it again") from error
