r"""Subwords: the pieces between characters and words, found by counting pairs.

Chapter 1 numbered words and had to call every word it had not seen `<unk>`. Here a text is a sequence of bytes, of
which there are 256 and no others, and byte-pair encoding glues neighbours together, the most frequent pair first.
Nothing is unknown any more, and frequent words still cost one number.

The numbers, the merges and the file are those of the library `tokenizers` with its byte-level settings (GPT-2's):
`BPE.fast` hands over to it where speed counts.
"""

import heapq
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from operator import add
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers
from tqdm import tqdm

# ------------------------------------------------------------------------------------------- the cut before the bytes

_PIECE = re.compile(
    r"'(?:[sdmt]|ll|ve|re)"  # 's 't 're 've 'm 'll 'd
    r"| ?[A-Za-z]+"  # a word, with the one space before it
    r"| ?[0-9]+"
    r"| ?[^\t-\r 0-9A-Za-z]+"  # whatever is neither letter nor number nor white space
    r"|[\t-\r ]+(?![^\t-\r ])"  # white space, but its last character only at the end: it belongs to what follows
    r"|[\t-\r ]+"
)


class _Shadows(dict[int, int]):
    r"""The ASCII character that stands in for any other one of its kind: Python's `re` knows no `\p{L}`."""

    def __missing__(self, code: int) -> int:
        character = chr(code)
        kind = unicodedata.category(character)
        if code < 128:
            shadow = character
        elif kind == "Cn":  # younger than the tables of this Python: those of tokenizers decide what it sticks to
            peer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            shadow = next((ascii for ascii in "A0" if len(peer.pre_tokenize_str(ascii + character)) == 1), "#")
        else:
            shadow = "A" if kind[0] == "L" else "0" if kind[0] == "N" else "\n" if character.isspace() else "#"
        self[code] = ord(shadow)
        return self[code]


_shadows = _Shadows()


def split(text: str) -> list[str]:
    r"""Cut a text into the pieces that no token may reach across: words, numbers, punctuation, white space.

    The rule is GPT-2's, `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`. Every character
    outside ASCII is first replaced by an ASCII one of its kind, a letter by A, a number by 0; the rule runs on that
    shadow, and the text is cut where the shadow is.

    Args:
        text: any string.

    Returns:
        Pieces that join to the text again.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2, and its code.

    >>> split("It's naïve: 3 cafés,  两个 cafés.")
    ['It', "'s", ' naïve', ':', ' 3', ' cafés', ',', ' ', ' 两个', ' cafés', '.']
    """
    if text.isascii():
        return _PIECE.findall(text)
    ends = list(accumulate(map(len, _PIECE.findall(text.translate(_shadows))), initial=0))
    return [text[start:end] for start, end in pairwise(ends)]


# ---------------------------------------------------------------------------------------------------------- learning

# Byte-level files write each byte as one visible character: itself where it has a picture, else 256, 257 and so on.
_PICTURED = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_BARE = [byte for byte in range(256) if byte not in _PICTURED]
BYTE_ORDER = (*_PICTURED, *_BARE)
"""The 256 bytes in the order of their ids, which is that of their visible characters."""
_VISIBLE = {byte: chr(byte) for byte in _PICTURED} | {byte: chr(256 + n) for n, byte in enumerate(_BARE)}
_BYTES = {character: byte for byte, character in _VISIBLE.items()}


def learn(words: Mapping[str, int], first: int, merges: int, min_count: int = 2) -> list[tuple[int, int]]:
    r"""The merge loop: glue the most frequent pair of neighbours into a new symbol, again and again.

    A word is a string with one character per symbol, `chr(id)`: `split` then finds the pair, from the left like the
    definition does, and `join` glues. Ties go to the pair with the smaller ids. Only words that hold the pair are
    touched, and of the counts only those of its neighbours: `index` knows the words, a heap knows the best pair. Counts
    in the heap may be too high, never too low: a pair gains occurrences only in the step that makes its younger half.

    Args:
        words: how often each word occurs.
        first: the id of the first new symbol, above all that occur in words.
        merges: how many to learn.
        min_count: stop when no pair occurs that often.

    Returns:
        Pairs of ids, in the order of learning; pair n makes the symbol `first + n`.

    Source: Gage 1994, "A New Algorithm for Data Compression"; for words Sennrich et al. 2016, arXiv:1508.07909.

    >>> learn({"abab": 3, "abc": 2}, first=ord("d"), merges=2)  # ab 8 times, then dd 3 times
    [(97, 98), (100, 100)]
    """
    spelled, counts = list(words), list(words.values())
    pairs: Counter[str] = Counter()
    index: defaultdict[str, set[int]] = defaultdict(set)
    for number, (word, count) in enumerate(zip(spelled, counts, strict=True)):
        for pair in map(add, word, word[1:]):
            pairs[pair] += count
            index[pair].add(number)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    learned: list[tuple[int, int]] = []
    with tqdm(total=merges, desc="merges", leave=False) as progress:
        while heap and len(learned) < merges:
            negative, pair = heapq.heappop(heap)
            if -negative != pairs[pair]:  # it has lost occurrences since: back into the queue
                if pairs[pair] > 0:
                    heapq.heappush(heap, (-pairs[pair], pair))
                continue
            if -negative < min_count:
                break
            left, right, symbol = *pair, chr(first + len(learned))
            made: Counter[str] = Counter()
            for number in index.pop(pair):
                count, parts = counts[number], spelled[number].split(pair)  # what stands between the occurrences
                spelled[number] = symbol.join(parts)
                for k, (before, after) in enumerate(pairwise(parts)):
                    if before or k:  # has a left neighbour: a symbol, or the occurrence just before
                        pairs[(before[-1:] or right) + left] -= count
                        new = (before[-1:] or symbol) + symbol
                        made[new] += count
                        index[new].add(number)
                    if after:
                        pairs[right + after[0]] -= count
                        new = symbol + after[0]
                        made[new] += count
                        index[new].add(number)
            pairs.update(made)
            for new, count in made.items():
                heapq.heappush(heap, (-count, new))
            del pairs[pair]
            learned.append((ord(left), ord(right)))
            progress.update()
    return learned


# -------------------------------------------------------------------------------------------------------- using it


class BPE:
    """A byte-level byte-pair encoding: text to ids and back, without loss and without an unknown token.

    Args:
        tokens: the bytes of each token, in the order of the ids; for a special token its name in UTF-8.
        merges: pairs of ids in the order of learning.
        specials: the id of each special token; `encode` never returns one, whatever the text spells.

    Raises:
        ValueError: a byte has no token, a merge has a part or a result that no earlier token gives, or the file that
            `save` writes would spell two tokens alike.

    >>> bpe = BPE.train(["low lower lowest low low"], vocab_size=261, specials=("<end>",))
    >>> bpe.encode("lowest"), bpe.id("<end>"), [bpe.tokens[i] for i in bpe.encode(" lowest")]
    ([258, 69, 83, 84], 0, [b' lowe', b's', b't'])
    >>> bpe.decode(bpe.encode("<end> 低 🙂")), 0 in bpe.encode("<end>")
    ('<end> 低 🙂', False)
    """

    def __init__(
        self, tokens: Sequence[bytes], merges: Sequence[tuple[int, int]], specials: Mapping[str, int] | None = None
    ):
        self.tokens, self.merges, self.specials = tuple(tokens), tuple(merges), dict(specials or {})
        reserved = set(self.specials.values())
        ids = {token: number for number, token in enumerate(self.tokens) if number not in reserved}
        missing = [byte for byte in range(256) if bytes([byte]) not in ids]
        if missing:
            raise ValueError(f"byte {missing[0]} has no token among {len(self.tokens)}; a byte-level one has all 256")
        self._byte_ids = [ids[bytes([byte])] for byte in range(256)]
        self._ranks: dict[str, int] = {}
        self._made: list[str] = []
        known = set(self._byte_ids)
        for rank, (left, right) in enumerate(self.merges):
            made = ids.get(self.tokens[left] + self.tokens[right]) if {left, right} <= known else None
            if made is None:
                raise ValueError(f"merge {rank} of ids {left} and {right} uses or makes a token not made before it")
            known.add(made)
            self._ranks[chr(left) + chr(right)] = rank
            self._made.append(chr(made))
        names = {number: name for name, number in self.specials.items()}
        self._spelled = [names.get(n) or "".join(map(_VISIBLE.__getitem__, t)) for n, t in enumerate(self.tokens)]
        if len(set(self._spelled)) < len(self.tokens):
            twice = Counter(self._spelled).most_common(1)[0][0]
            raise ValueError(f"{twice!r} would be two tokens of one spelling in a file; rename the special one")
        self._cache = _Cache(self._merge)

    def __reduce__(self) -> tuple[Any, ...]:
        return BPE, (self.tokens, self.merges, self.specials)  # the cache fills again by itself

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, specials: Sequence[str] = (), min_count: int = 2) -> "BPE":
        """Learn merges until there are `vocab_size` tokens.

        Args:
            texts: the training texts, one at a time; they need not be in memory together.
            vocab_size: special tokens, 256 bytes and merges together.
            specials: names of the special tokens, which get the ids 0, 1 and so on.
            min_count: stop early when no pair occurs that often.

        Returns:
            An encoding of at most `vocab_size` tokens; the same texts always give the same one.

        Raises:
            ValueError: one string where texts are wanted, a special named twice or like a word, or no room for bytes.
        """
        if isinstance(texts, str):
            raise ValueError(f"texts is one string ({texts[:20]!r}), expected several; wrap it in a list")
        if len(set(specials)) != len(specials):
            raise ValueError(f"specials {tuple(specials)} name a token twice; give each its own name")
        first = len(specials) + 256
        for name in specials:
            if len(split(name)) < 2:  # a name in one piece could be learned from the text: two tokens, one spelling
                raise ValueError(f"{name!r} could also be learned from text; mix letters and signs, as in '<end>'")
        if vocab_size < first:
            raise ValueError(f"vocab_size={vocab_size} leaves no room for {first} special and byte tokens; raise it")
        pieces: Counter[str] = Counter()
        for text in texts:
            pieces.update(split(text))
        order = {byte: len(specials) + n for n, byte in enumerate(BYTE_ORDER)}
        words: Counter[str] = Counter()
        for piece, count in pieces.items():
            words[_utf8(piece).translate(order)] += count
        merges = learn(words, first, vocab_size - first, min_count)
        tokens = [name.encode() for name in specials] + [bytes([byte]) for byte in BYTE_ORDER]
        for left, right in merges:
            tokens.append(tokens[left] + tokens[right])
        return cls(tokens, merges, {name: number for number, name in enumerate(specials)})

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"BPE({len(self)} tokens, {len(self.merges)} merges, specials {tuple(self.specials)})"

    def encode(self, text: str) -> list[int]:
        """The ids of a text; of special tokens none, even where the text spells their names.

        Args:
            text: any string that UTF-8 can express.

        Returns:
            Integers in [0, len(self)).

        Raises:
            ValueError: the text holds half of a surrogate pair, which is no character.
        """
        return list(chain.from_iterable(map(self._cache.__getitem__, split(text))))

    def _merge(self, piece: str) -> tuple[int, ...]:
        word, ranks = _utf8(piece).translate(self._byte_ids), self._ranks
        met = {ranks[pair] for pair in map(add, word, word[1:]) if pair in ranks}
        waiting = list(met)
        heapq.heapify(waiting)
        while waiting:  # the merge learned first goes first, and once: what it makes is glued by later ones only
            rank = heapq.heappop(waiting)
            left, right = self.merges[rank]
            parts, symbol = word.split(chr(left) + chr(right)), self._made[rank]
            word = symbol.join(parts)
            for before, after in pairwise(parts):  # the new symbol's neighbours
                for pair in ((before[-1:] or symbol) + symbol, symbol + after[:1]):
                    if (new := ranks.get(pair)) is not None and new not in met:
                        met.add(new)
                        heapq.heappush(waiting, new)
        return tuple(map(ord, word))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of ids: undoes `encode` exactly.

        Args:
            ids: integers in [0, len(self)); special tokens give their names.
            errors: what to do with bytes that are no UTF-8, as ids cut out of the middle of a text may be: "replace"
                writes U+FFFD, "strict" raises.

        Raises:
            ValueError: an id outside the vocabulary, or with "strict" an incomplete character.
        """
        numbers = list(ids)
        for number in numbers:
            if not 0 <= number < len(self.tokens):
                raise ValueError(f"id {number} is outside an encoding of {len(self)} tokens; was it made with another?")
        return b"".join([self.tokens[number] for number in numbers]).decode("utf-8", errors)

    def id(self, special: str) -> int:
        """The id of a special token, by the only way that leads to it.

        Args:
            special: its name.

        Raises:
            ValueError: there is none of that name.
        """
        if special not in self.specials:
            raise ValueError(f"{special!r} is not among the specials {tuple(self.specials)}; name it in train")
        return self.specials[special]

    def prefix(self, vocab_size: int) -> "BPE":
        """The encoding that training with a smaller `vocab_size` would have given: the first merges of this one.

        Args:
            vocab_size: at most len(self), and enough for special and byte tokens.

        Raises:
            ValueError: the size is out of that range, or the merged tokens do not stand last in their order.
        """
        first = len(self) - len(self.merges)
        if not first <= vocab_size <= len(self):
            raise ValueError(f"vocab_size={vocab_size} is not between {first} and {len(self)}; train a larger one")
        if self._made != [chr(first + n) for n in range(len(self.merges))]:
            raise ValueError("these tokens are not in the order of their merges; train the smaller size instead")
        return BPE(self.tokens[:vocab_size], self.merges[: vocab_size - first], self.specials)

    def to_json(self) -> str:
        """The encoding as `tokenizer.json`, the format of the library `tokenizers`."""
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        description = {
            "version": "1.0",
            "added_tokens": [{"id": n, "content": name, **plain} for name, n in self.specials.items()],
            "pre_tokenizer": byte_level,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "vocab": {spelled: number for number, spelled in enumerate(self._spelled)},
                "merges": [[self._spelled[left], self._spelled[right]] for left, right in self.merges],
            },
        }
        return json.dumps(description, ensure_ascii=False, indent=1) + "\n"

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file, which `tokenizers.Tokenizer.from_file` reads too.

        Args:
            path: the file to write.
        """
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "BPE":
        """Read what `save` wrote, or any byte-level `tokenizer.json` with GPT-2's settings.

        Args:
            path: the file to read.

        Raises:
            ValueError: the file is no such description, or asks for something that this class does not do.
        """
        try:
            file = json.loads(Path(path).read_text(encoding="utf-8"))
            model, before, added = file["model"], file["pre_tokenizer"] or {}, file["added_tokens"]
            vocab: dict[str, int] = model["vocab"]
            specials = {entry["content"]: entry["id"] for entry in added}
            asks = {  # whatever would change an id
                **{name: file.get(name) for name in ("normalizer", "truncation", "padding")},
                **{name: model.get(name) for name in ("dropout", "byte_fallback", "ignore_merges")},
                **{name: model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix")},
                "add_prefix_space": before.get("add_prefix_space", True),
                "pre_tokenizer": before.get("type") != "ByteLevel" or not before.get("use_regex", True),
                "post_processor": (file.get("post_processor") or {"type": "ByteLevel"})["type"] != "ByteLevel",
                "added_tokens": not all(entry["special"] for entry in added),
            }
            unmet = [name for name, asked in asks.items() if asked]
            if unmet:
                raise ValueError(f"{path} sets {', '.join(unmet)}, not known here; use tokenizers.Tokenizer.from_file")
            spelled = {number: name for name, number in (vocab | specials).items()}
            tokens = [
                name.encode() if name in specials else bytes([_BYTES[character] for character in name])
                for name in (spelled[number] for number in range(len(vocab | specials)))
            ]
            pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
            return cls(tokens, [(vocab[left], vocab[right]) for left, right in pairs], specials)
        except (AttributeError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a tokenizer.json of a byte-level BPE; write it with BPE.save") from error

    def fast(self) -> Tokenizer:
        """The same encoding as a `tokenizers.Tokenizer`, in Rust: same ids, batches on all cores.

        Its own default would turn the spelling of a special token into its id; here that is switched off.

        >>> BPE.train(["a a a"], vocab_size=257).fast().encode("a a").ids
        [64, 256]
        """
        tokenizer = Tokenizer.from_str(self.to_json())
        tokenizer.encode_special_tokens = True
        return tokenizer


class _Cache(dict[str, tuple[int, ...]]):
    """Words that were merged before: a text repeats itself. Emptied when full, so that no text can fill the memory."""

    def __init__(self, merge: Callable[[str], tuple[int, ...]], most: int = 1 << 17):
        super().__init__()
        self.merge, self.most = merge, most

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids = self.merge(piece)
        if len(piece) <= 50:
            if len(self) >= self.most:
                self.clear()
            self[piece] = ids
        return ids


def _utf8(piece: str) -> str:
    """The UTF-8 bytes of a piece, one character each."""
    try:
        return piece.encode().decode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"U+{ord(piece[error.start]):04X} is half a surrogate pair, no character; decode the text again"
        ) from error
