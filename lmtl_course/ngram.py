r"""N-grams: the next token from the last few, by counting.

Chapters 1 and 2 turned text into ids; here is the first model that gives the next id a probability. It counts every run
of n tokens, and all its art is in what it says about runs that it has never met. Every smoothing method of the chapter
comes out as the same two columns per length, a weight for each run seen and a rest for each context,

    p(w | h) = weight(hw) + rest(h) · p(w | h without its first token),

so one class scores, lists and samples them all.

Runs are numbered length by length: the number of `h w` is the rank of `number(h) · vocab + w` among all such keys.
Counting is then a sort, and looking up a whole text one binary search per length; no loop goes over tokens.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from tqdm import tqdm

Texts = Iterable[Sequence[int] | Int[np.ndarray, "..."]]
"""Several texts, each a list or array of token ids. No run of tokens reaches from one text into the next."""


def pad(texts: Texts, order: int, start: int, end: int) -> list[list[int]]:
    """Put `order - 1` start tokens before each text and as many end tokens after it, as `nltk.lm` wants its sentences.

    Args:
        texts: token ids.
        order: of the model to come.
        start: id of the start token.
        end: id of the end token.

    >>> pad([[7, 8]], order=3, start=1, end=2)
    [[1, 1, 7, 8, 2, 2]]
    """
    _at_least_one(order)
    return [[*[start] * (order - 1), *text, *[end] * (order - 1)] for text in texts]


# ------------------------------------------------------------------------------------------------------------ counting


class Table(NamedTuple):
    """All runs of one length, in the order of their keys: the row of a run is its number."""

    keys: Int[np.ndarray, " runs"]
    """Number of the run without its last token, times the size of the vocabulary, plus the last token."""
    counts: Int[np.ndarray, " runs"]
    """How often it occurs."""
    lefts: Int[np.ndarray, " runs"]
    """How many different tokens were seen before it (zeros for the longest runs, where nobody asks)."""
    opens: Bool[np.ndarray, " runs"]
    """Whether a text begins with it."""


@dataclass(frozen=True)
class NGramCounts:
    """How often every run of 1 to `order` tokens occurs.

    Args:
        tables: one per length.
        vocab: size of the vocabulary; ids lie in [0, vocab).

    >>> counts = NGramCounts.of([[0, 1, 0, 1, 2]], order=2, vocab=3)  # a b a b c
    >>> counts.tables[1].keys, counts.tables[1].counts  # ab, ba, bc as 3 · first + second
    (array([1, 3, 5]), array([2, 1, 1]))
    >>> counts.tables[0].lefts  # a follows b; b follows a; c follows b
    array([1, 1, 1])
    """

    tables: tuple[Table, ...]
    vocab: int

    @classmethod
    def of(cls, texts: Texts, order: int, vocab: int) -> "NGramCounts":
        """Count the runs of some texts.

        Args:
            texts: training texts as ids.
            order: length of the longest runs.
            vocab: size of the vocabulary.

        Raises:
            ValueError: order < 1, no token at all, an id outside the vocabulary, or no text as long as `order`.
        """
        _at_least_one(order)
        ids, place = _joined(texts, vocab)
        if place.max() < order - 1:
            raise ValueError(f"order {order} needs a text of that many tokens, the longest has {place.max() + 1}")
        number = np.zeros(len(ids), dtype=np.int64)
        tables: list[Table] = []
        for length in tqdm(range(1, order + 1), desc="lengths", leave=False, delay=1):
            ends = np.flatnonzero(place >= length - 1)  # where a run of this length ends
            before = number[ends - 1] if length > 1 else 0  # the number of all of it but the last token
            keys, first, inverse, counts = _distinct(before * vocab + ids[ends])
            if length > 1:  # the run without its *first* token is the run, one shorter, that ends at the same place
                shorter = tables[-1]
                lefts = np.bincount(number[ends[first]], minlength=len(shorter.keys))
                tables[-1] = shorter._replace(lefts=lefts)
            number = np.full(len(ids), -1)
            number[ends] = inverse
            opens = np.zeros(len(keys), dtype=bool)
            opens[number[place == length - 1]] = True
            tables.append(Table(keys, counts, np.zeros_like(counts), opens))
        return cls(tuple(tables), vocab)

    @property
    def order(self) -> int:
        """Length of the longest runs."""
        return len(self.tables)

    def upto(self, order: int) -> "NGramCounts":
        """The same counts, of runs up to a shorter length: one count serves models of every order.

        Args:
            order: at most `self.order`.

        Raises:
            ValueError: order is below 1 or above what was counted.
        """
        if not 1 <= order <= self.order:
            raise ValueError(f"order {order} is not between 1 and the {self.order} counted; count again with more")
        return NGramCounts(self.tables[:order], self.vocab)


def _distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`np.unique` with first places, inverse and counts; key and place in one integer sort several times faster."""
    bits = len(keys).bit_length()
    if int(keys.max()) < 1 << (62 - bits):
        packed = np.sort((keys << bits) | np.arange(len(keys)))
        places, ordered = packed & ((1 << bits) - 1), packed >> bits
    else:
        places = np.argsort(keys, kind="stable")
        ordered = keys[places]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    counts = np.diff(starts, append=len(keys))
    inverse = np.empty_like(places)
    inverse[places] = np.repeat(np.arange(len(starts)), counts)
    return ordered[starts], places[starts], inverse, counts


def _joined(texts: Texts, vocab: int) -> tuple[np.ndarray, np.ndarray]:
    """All ids in one array, and for each its place in its own text."""
    texts = list(texts)
    if texts and all(isinstance(text, list) for text in texts):  # many short ones: one array is faster than many
        lengths = list(map(len, texts))
        arrays = [np.array(list(chain.from_iterable(texts)))]
    else:
        arrays = [np.asarray(text) for text in texts]
        lengths = [array.size for array in arrays]
    if any(array.ndim != 1 for array in arrays):
        raise ValueError(f"expected texts of shape (tokens,), got {[a.shape for a in arrays][:3]}; wrap one in a list")
    if not sum(lengths):
        raise ValueError("there are 0 tokens in these texts; a model of text needs at least 1")
    ids = np.concatenate([array for array in arrays if len(array)])
    if ids.dtype.kind not in "iu":
        raise ValueError(f"ids are {ids.dtype}, expected integers in 0…{vocab - 1}; encode the tokens first")
    ids = ids.astype(np.int64)
    if ids.min() < 0 or ids.max() >= vocab:
        stray = ids[(ids < 0) | (ids >= vocab)][0]
        raise ValueError(f"id {stray} is outside a vocabulary of {vocab} entries; was it made with another?")
    return ids, np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _at_least_one(order: int) -> None:
    if order < 1:
        raise ValueError(f"order={order} is below 1; 1 looks at no earlier token, 2 at one")


# ----------------------------------------------------------------------------------------------------------- the model


class Level(NamedTuple):
    """What a model knows about runs of one length."""

    keys: Int[np.ndarray, " runs"]
    weight: Float[np.ndarray, " runs"]
    """Probability that the run's last token gets from its own count."""
    rest: Float[np.ndarray, " contexts"]
    """Share that each context hands on; 1 where nothing ever followed it."""


class NGram:
    r"""A model of order n: $p(w \mid h) = \mathrm{weight}(hw) + \mathrm{rest}(h)\, p_{\text{lower}}(w \mid h')$.

    Made by `maximum_likelihood`, `add_k`, `witten_bell`, `absolute_discounting` or `kneser_ney`.

    Args:
        levels: one per length.
        vocab: size of the vocabulary.
        base: what every token has below the first level, $1/V$ or 0.
        interpolated: the rest goes to the context one token shorter; otherwise straight to `base`.

    >>> model = kneser_ney(NGramCounts.of([[0, 1, 0, 1, 2]], order=2, vocab=4), discount=0.5)
    >>> model.distribution([1]).round(4)  # after b came a and c, once each
    array([0.4844, 0.1094, 0.3594, 0.0469])
    >>> model.probabilities([[1, 0]]).round(4)
    array([0.2188, 0.4844])
    """

    def __init__(self, levels: Sequence[Level], vocab: int, base: float, interpolated: bool):
        self.levels, self.vocab, self.base, self.interpolated = tuple(levels), vocab, base, interpolated
        self._sums = [np.concatenate([[0.0], np.cumsum(level.weight)]) for level in self.levels]

    @property
    def order(self) -> int:
        """One more than the number of tokens that it looks back."""
        return len(self.levels)

    @property
    def size(self) -> int:
        """How many numbers it holds: the weights and the rests of all levels."""
        return sum(len(level.weight) + len(level.rest) for level in self.levels)

    def _extend(self, length: int, before: np.ndarray, token: np.ndarray) -> np.ndarray:
        """The number of each run that adds a token to the run `before`, -1 where it was never seen."""
        keys = self.levels[length - 1].keys
        wanted = before * self.vocab + token
        rows = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        return np.where(keys[rows] == wanted, rows, -1)  # after an unseen run, -1, keys are negative: never found

    def probabilities(self, texts: Texts) -> Float[np.ndarray, " tokens"]:
        """The probability of every token, given those before it in its own text (at most order - 1).

        Args:
            texts: token ids; the first tokens of a text are judged by as much context as there is.

        Returns:
            One number per token, text after text.

        Raises:
            ValueError: no tokens, or an id outside the vocabulary.
        """
        ids, place = _joined(texts, self.vocab)
        p, number = np.full(len(ids), self.base), np.zeros(len(ids), dtype=np.int64)
        for length, level in enumerate(self.levels, 1):
            if length > 1:
                number = np.concatenate([[-1], number[:-1]])  # of the context, which ends one place earlier
            rest = np.where(number >= 0, level.rest[number], 1.0)
            number = self._extend(length, number, ids)
            weight = np.where(number >= 0, level.weight[number], 0.0)
            lower = p if self.interpolated else self.base
            p = np.where(place >= length - 1, weight + rest * lower, p)  # not where the context is in another text
        return p

    def nats(self, texts: Texts) -> Float[np.ndarray, " tokens"]:
        r"""What every token costs, $-\log p(w_i \mid w_{i-n+1} \dots w_{i-1})$; inf where the model held it impossible.

        Args:
            texts: as for `probabilities`.
        """
        with np.errstate(divide="ignore"):
            return -np.log(self.probabilities(texts))

    def perplexity(self, texts: Texts) -> float:
        r"""The geometric mean of $1/p$ over all tokens: as unsure as among that many equally likely ones.

        Args:
            texts: as for `probabilities`.

        Returns:
            At least 1; inf if one token had probability 0.
        """
        mean = float(self.nats(texts).mean())
        return math.exp(mean) if mean < 709 else math.inf

    def _numbers(self, context: Sequence[int]) -> list[int]:
        """The number of the last 0, 1, … order - 1 tokens of a context, -1 where that run was never seen."""
        if len(context) > self.order - 1:
            raise ValueError(f"the context has {len(context)} tokens, order {self.order} reads {self.order - 1}")
        numbers = [0]
        if len(context):
            _joined([context], self.vocab)  # refuses stray ids
        for token in context:
            extended = [self._extend(k, np.array(number), np.array(token)) for k, number in enumerate(numbers, 1)]
            numbers = [0, *map(int, extended)]
        return numbers

    def distribution(self, context: Sequence[int] = ()) -> Float[np.ndarray, " vocab"]:
        """The probability of every token of the vocabulary after one context.

        Args:
            context: at most order - 1 ids.

        Raises:
            ValueError: the context is longer, or holds an id outside the vocabulary.
        """
        p = np.full(self.vocab, self.base)
        for number, level in zip(self._numbers(context), self.levels, strict=False):
            lower = p if self.interpolated else np.full(self.vocab, self.base)
            p = lower * (level.rest[number] if number >= 0 else 1.0)
            first, last = np.searchsorted(level.keys, [number * self.vocab, (number + 1) * self.vocab])
            p[level.keys[first:last] % self.vocab] += level.weight[first:last]
        return p

    def sample(
        self, tokens: int, rows: int = 1, context: Sequence[int] = (), seed: int = 0
    ) -> Int[np.ndarray, "rows tokens"]:
        """Draw texts. With the context's own weights a token is drawn from its own counts, else from a shorter context.

        That descent is exactly a draw from the mixture, and it never lists the vocabulary. Where maximum likelihood
        knows no continuation, the context is shortened as well.

        Args:
            tokens: how many to draw for each row.
            rows: texts drawn side by side.
            context: what all of them begin after, at most order - 1 ids.
            seed: of the draw.

        Raises:
            ValueError: the context is longer, or holds an id outside the vocabulary.
        """
        generator = np.random.default_rng(seed)
        numbers = [np.full(rows, number) for number in self._numbers(context)]
        drawn = np.empty((rows, tokens), dtype=np.int64)
        descend = self.interpolated or self.base == 0
        for step in tqdm(range(tokens), desc="tokens", leave=False, delay=1):
            chosen = np.full(rows, -1)
            for length in range(len(numbers), 0, -1) if descend else [len(numbers)]:
                keys, sums, number = self.levels[length - 1].keys, self._sums[length - 1], numbers[length - 1]
                open_rows = np.flatnonzero((chosen < 0) & (number >= 0))
                first, last = (np.searchsorted(keys, (number[open_rows] + k) * self.vocab) for k in (0, 1))
                target = sums[first] + generator.random(len(open_rows))
                hit = target < sums[last]
                run = np.searchsorted(sums, target[hit], side="right") - 1
                chosen[open_rows[hit]] = keys[run] % self.vocab
            uniform = generator.integers(self.vocab, size=rows)
            drawn[:, step] = np.where(chosen >= 0, chosen, uniform)
            extended = [self._extend(k, number, drawn[:, step]) for k, number in enumerate(numbers, 1)]
            numbers = [numbers[0], *extended][: self.order]
        return drawn


# ---------------------------------------------------------------------------------------------------------- estimators


def _shared(counts: NGramCounts, length: int, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The context of each run of a length, and the sum of values over the runs of each context."""
    context = counts.tables[length - 1].keys // counts.vocab
    contexts = len(counts.tables[length - 2].keys) if length > 1 else 1
    return context, np.bincount(context, weights=values, minlength=contexts)


def maximum_likelihood(counts: NGramCounts) -> NGram:
    r"""Relative frequencies, $p(w \mid h) = c(hw)/c(h\cdot)$.

    Args:
        counts: of the training text, up to the wanted order.

    Returns:
        A model that gives 0 to what it never saw, and 0 to everything after a context that it never saw.

    Source: Shannon 1948, doi:10.1002/j.1538-7305.1948.tb01338.x, section 3.

    >>> maximum_likelihood(NGramCounts.of([[0, 1, 0, 1, 2]], order=2, vocab=3)).distribution([1])
    array([0.5, 0. , 0.5])
    """
    return _to_the_uniform(counts, 0.0)


def add_k(counts: NGramCounts, k: float | int) -> NGram:
    r"""Every count raised by k, $p(w \mid h) = (c(hw) + k)/(c(h\cdot) + kV)$: Lidstone's rule, Laplace's for k = 1.

    Args:
        counts: of the training text, up to the wanted order.
        k: pretended occurrences of every continuation.

    Raises:
        ValueError: k is 0 or negative.

    Source: Lidstone 1920, Transactions of the Faculty of Actuaries 8, 182-192.

    >>> add_k(NGramCounts.of([[0, 1, 0, 1, 2]], order=2, vocab=3), k=1).distribution([1])
    array([0.4, 0.2, 0.4])
    """
    if not k > 0:
        raise ValueError(f"k={k} is not above 0, where unseen tokens stay impossible; use maximum_likelihood for k=0")
    return _to_the_uniform(counts, k)


def _to_the_uniform(counts: NGramCounts, k: float | int) -> NGram:
    """Add-k as a mixture: kV of c + kV pretended occurrences are spread evenly."""
    levels = []
    for length, table in enumerate(counts.tables, 1):
        context, total = _shared(counts, length, table.counts)
        whole = total + k * counts.vocab
        rest = np.divide(k * counts.vocab, whole, out=np.ones_like(whole), where=total > 0)
        levels.append(Level(table.keys, table.counts / whole[context], rest))
    return NGram(levels, counts.vocab, 1 / counts.vocab if k else 0.0, interpolated=False)


def witten_bell(counts: NGramCounts, like_nltk: bool = False) -> NGram:
    r"""The rest of a context is the share of its tokens that were new when they came: $T/(T + c)$ for T different ones.

    Args:
        counts: of the training text, up to the wanted order.
        like_nltk: leave the shortest context unsmoothed, as `nltk.lm.WittenBellInterpolated` does.

    Source: Witten and Bell 1991, doi:10.1109/18.87000, method C.

    >>> witten_bell(NGramCounts.of([[0, 1, 0, 1, 2]], order=2, vocab=3), like_nltk=True).distribution([1])
    array([0.45, 0.2 , 0.35])
    """
    levels = []
    for length, table in enumerate(counts.tables, 1):
        context, total = _shared(counts, length, table.counts)
        kinds = _shared(counts, length, np.ones(len(table.keys)))[1] * (not (like_nltk and length == 1))
        rest = np.divide(kinds, kinds + total, out=np.ones_like(total), where=total > 0)
        levels.append(Level(table.keys, (1 - rest[context]) * table.counts / total[context], rest))
    return NGram(levels, counts.vocab, 1 / counts.vocab, interpolated=True)


Discount = float | int | Literal["single", "modified"]
"""A number for every run; "single" estimates one for each length; "modified" three, for counts of 1, 2, and more."""


def estimate_discounts(counts: Int[np.ndarray, " runs"], how: str = "modified") -> list[float]:
    r"""What to take off a count of 1, of 2, and of 3 or more, from how many runs have counts of 1, 2, 3 and 4.

    With $Y = n_1/(n_1 + 2 n_2)$: "single" is $D = Y$ thrice, "modified" is $D_r = r - (r+1)\, Y\, n_{r+1}/n_r$.

    Args:
        counts: of the runs of one length.
        how: "single" or "modified".

    Returns:
        Three numbers. Where a table is too small for the formula (some $n_r = 0$, or a result outside 0 … r), the usual
        0.5, 1 and 1.5.

    Source: Ney, Essen and Kneser 1994, doi:10.1006/csla.1994.1001; Chen and Goodman 1999, doi:10.1006/csla.1999.0128.

    >>> estimate_discounts(np.array([1] * 8 + [2] * 4 + [3] * 2 + [4]))
    [0.5, 1.25, 2.0]
    """
    n1, n2, n3, n4 = ((counts == r).sum() for r in (1, 2, 3, 4))
    if n1 and n2:
        y = float(n1 / (n1 + 2 * n2))
        if how == "single":
            return [y, y, y]
        if n3 and n4:
            found = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
            if all(0 <= value <= r for r, value in enumerate(found, 1)):
                return [float(value) for value in found]
    return [0.5, 1.0, 1.5] if how == "modified" else [0.5, 0.5, 0.5]


def absolute_discounting(counts: NGramCounts, discount: Discount = "single", like_nltk: bool = False) -> NGram:
    r"""Take D off every count and give what that frees to the shorter context,
    $p(w \mid h) = \max(c(hw) - D, 0)/c(h\cdot) + \mathrm{rest}(h)\, p(w \mid h')$.

    Args:
        counts: of the training text, up to the wanted order.
        discount: D between 0 and 1, or how to estimate it.
        like_nltk: leave the shortest context unsmoothed, as `nltk.lm.AbsoluteDiscountingInterpolated` does.

    Raises:
        ValueError: the discount is outside 0 … 1 or has another name.

    Source: Ney, Essen and Kneser 1994, doi:10.1006/csla.1994.1001.

    >>> absolute_discounting(NGramCounts.of([[0, 1, 0, 1, 2]], 2, vocab=3), 0.5, like_nltk=True).distribution([1])
    array([0.45, 0.2 , 0.35])
    """
    return _discounted(counts, [table.counts for table in counts.tables], discount, like_nltk)


def kneser_ney(counts: NGramCounts, discount: Discount = "modified", like_nltk: bool = False) -> NGram:
    r"""Interpolated Kneser-Ney: absolute discounting, with shorter runs counted by *different* places where they stand.

    The longest runs have their counts; a shorter run g has $N_{1+}(\cdot\, g)$, the number of different tokens before
    it, where the beginning of a text is one more. The shortest context is mixed with the uniform distribution.

    Args:
        counts: of the training text, up to the wanted order.
        discount: D between 0 and 1, or how to estimate it for each length.
        like_nltk: the formula of `nltk.lm.KneserNeyInterpolated`: unigrams unsmoothed, beginnings of texts not counted
            (so that the weights of a context that also begins texts may sum to more than 1). Its discount is 0.1.

    Raises:
        ValueError: the discount is outside 0 … 1 or has another name.

    Source: Kneser and Ney 1995, doi:10.1109/ICASSP.1995.479394; Chen and Goodman 1999, doi:10.1006/csla.1999.0128.

    >>> kneser_ney(NGramCounts.of([[0, 1, 0, 1, 2]], 2, vocab=3), 0.5, like_nltk=True).distribution([1])
    array([0.41666667, 0.16666667, 0.41666667])
    """
    shorter = [table.lefts + (0 if like_nltk else table.opens) for table in counts.tables[:-1]]
    return _discounted(counts, [*shorter, counts.tables[-1].counts], discount, like_nltk)


def _discounted(counts: NGramCounts, adjusted: list[np.ndarray], discount: Discount, like_nltk: bool) -> NGram:
    levels = []
    for length, (table, c) in enumerate(zip(counts.tables, adjusted, strict=True), 1):
        if isinstance(discount, str):
            if discount not in ("single", "modified"):
                raise ValueError(f"discount is {discount!r}, expected 'single', 'modified' or a number from 0 to 1")
            taken = np.array([0.0, *estimate_discounts(c, discount)])[np.minimum(c, 3)]
        else:
            if not 0 <= discount <= 1:
                raise ValueError(f"discount={discount} is outside 0…1, where rests stay shares; 0.75 is a usual value")
            taken = np.full(len(c), float(discount))
        if like_nltk and length == 1:
            taken = np.zeros(len(c))
        context, total = _shared(counts, length, c)
        freed = _shared(counts, length, taken)[1]
        seen = total > 0
        weight = np.divide(np.maximum(c - taken, 0), total[context], out=np.zeros(len(c)), where=seen[context])
        levels.append(Level(table.keys, weight, np.divide(freed, total, out=np.ones_like(total), where=seen)))
    return NGram(levels, counts.vocab, 1 / counts.vocab, interpolated=True)
