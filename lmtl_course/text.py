"""Text, before any model: clean it, cut it into tokens, number the tokens.

The first chapter. Everything after it reads the lists of integers that are made here.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

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

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} entries: {', '.join(map(repr, self.tokens[:5]))}, …)"

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
