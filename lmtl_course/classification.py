r"""Classification: one label for a text, and the simplest models that a pretrained one has to beat.

Chapter 11 fitted a base to labels. Whether that was worth it shows only beside models that carry nothing over: the most
frequent label, the average of word vectors, an LSTM, each learned from the labelled rows alone with the loop of chapter
6. They read words of a `Vocabulary`, padded to the longest text of a batch, and answer the same three questions as a
`FineTuned` model: `logits`, `probabilities`, `predict`. `Tempered` sets any of them right where it is too sure or
not sure enough, and `class_pairs` makes a task for two texts out of one for single texts.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lmtl_course.losses import cross_entropy
from lmtl_course.metrics import best_temperature
from lmtl_course.recurrent import LSTM
from lmtl_course.text import Vocabulary, tokenize
from lmtl_course.training import Batch, History, State, TrainConfig, train
from lmtl_course.transfer import Buckets, pool

PAD = "<pad>"
"""The special entry that fills up short rows; no text can spell it."""


@runtime_checkable
class Scorer(Protocol):
    """What a classifier of this chapter and a `FineTuned` of chapter 11 have in common.

    >>> vocabulary = Vocabulary.build(["fine", "dull"], specials=(PAD,))
    >>> isinstance(WordClassifier(WordAverage(len(vocabulary), 2), vocabulary, ("bad", "good")), Scorer)
    True
    """

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""

    def logits(self, texts: Sequence[Any], batch: int = 64) -> Tensor:
        """Scores of every class, a row for each text."""


# ------------------------------------------------------------------------------------------------------ without a model


def majority(labels: Sequence[int]) -> int:
    r"""The most frequent label, $\arg\max_k |\{i : y_i = k\}|$: what to answer without reading the text.

    Args:
        labels: of the training rows. Of labels that are equally frequent the smallest is taken.

    Raises:
        ValueError: there are none.

    >>> majority([1, 0, 1, 2])
    1
    """
    if not len(labels):
        raise ValueError("there are 0 labels; the most frequent one needs at least one")
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def class_pairs(rows: Sequence[Any], n: int, seed: int = 0) -> list[tuple[tuple[str, str], int]]:
    """Pairs of texts, labelled 1 where both have the same class and 0 where not: as many of each, in random order.

    Draw the pairs of each split from the rows of that split, so that no text of the test set was ever read. A text, or
    a pair, may come up more than once.

    Args:
        rows: of (text, label).
        n: how many pairs, an even number.
        seed: of the draw.

    Raises:
        ValueError: n is odd or below 2, or no two rows share a class, or none differ.

    >>> class_pairs([("a", 0), ("b", 0), ("c", 1)], 2, seed=1)
    [(('b', 'a'), 1), (('b', 'c'), 0)]
    """
    if n < 2 or n % 2:
        raise ValueError(f"{n} pairs cannot be half alike and half different; ask for an even number of at least 2")
    sizes = Counter(row[1] for row in rows)
    if len(sizes) < 2 or max(sizes.values()) < 2:
        raise ValueError(
            f"{len(rows)} rows of {len(sizes)} classes: pairs need two classes and two rows of one of them"
        )
    rng, pairs = random.Random(seed), []
    for alike in [True, False] * (n // 2):
        while True:
            one, other = rng.sample(range(len(rows)), 2)
            if (rows[one][1] == rows[other][1]) == alike:
                break
        pairs.append(((rows[one][0], rows[other][0]), int(alike)))
    rng.shuffle(pairs)
    return pairs


# --------------------------------------------------------------------------------------------------------- from scratch


class WordAverage(nn.Module):
    r"""The mean of the words' vectors and a linear layer: $P(y | x) = \mathrm{softmax}(W \frac1n \sum_i E_{w_i} + b)$.

    It knows which words a text has and not in which order.

    Args:
        vocab: how many words there are.
        classes: how many labels there are.
        d_model: width of a word's vector.
        dropout: share of the mean's numbers set to zero while training.

    Source: Iyyer et al. 2015, doi:10.3115/v1/P15-1162, without hidden layers; Joulin et al. 2017, arXiv:1607.01759.

    >>> idx, mask = torch.tensor([[5, 7, 0]]), torch.tensor([[True, True, False]])
    >>> WordAverage(vocab=11, classes=2)(idx, mask).shape
    torch.Size([1, 2])
    """

    def __init__(self, vocab: int, classes: int, d_model: int = 64, dropout: float = 0.3):
        super().__init__()
        self.embedding = nn.Embedding(vocab, d_model)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(d_model, classes)
        nn.init.normal_(self.embedding.weight, std=0.1)
        nn.init.zeros_(self.head.bias)

    def forward(self, idx: Int[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"]) -> Float[Tensor, "batch classes"]:
        """Scores for each label. The mask is True at words, of which every row has at least one."""
        return self.head(self.dropout(pool(self.embedding(idx), mask)))


class LSTMClassifier(nn.Module):
    r"""An LSTM reads the words in both directions; a linear layer reads its two last states: $W [h_n; h'_1] + b$.

    Args:
        vocab: how many words there are.
        classes: how many labels there are.
        d_model: width of a word's vector.
        d_hidden: width of each direction's state.
        dropout: share of the numbers in the words' vectors, and in the last states, set to zero while training.

    Source: Hochreiter and Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735; as a baseline on SST in Tai et al. 2015,
    arXiv:1503.00075.

    >>> idx, mask = torch.tensor([[5, 7, 0]]), torch.tensor([[True, True, False]])
    >>> LSTMClassifier(vocab=11, classes=2)(idx, mask).shape
    torch.Size([1, 2])
    """

    def __init__(self, vocab: int, classes: int, d_model: int = 64, d_hidden: int = 64, dropout: float = 0.3):
        super().__init__()
        self.embedding = nn.Embedding(vocab, d_model)
        self.lstm = LSTM(d_model, d_hidden, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * d_hidden, classes)
        nn.init.normal_(self.embedding.weight, std=0.1)
        nn.init.zeros_(self.head.bias)

    def forward(self, idx: Int[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"]) -> Float[Tensor, "batch classes"]:
        """Scores for each label. The mask is True at words, at least one in each row, with the padding on the right."""
        _, (h, _) = self.lstm(self.dropout(self.embedding(idx)), lengths=mask.sum(1))
        return self.head(self.dropout(h.transpose(0, 1).flatten(1).to(self.head.weight.dtype)))


MODELS: dict[str, Callable[..., nn.Module]] = {"average": WordAverage, "lstm": LSTMClassifier}


def classify_loss(model: nn.Module, batch: Batch, state: State) -> tuple[Tensor, int, State]:
    r"""The loss $L' = -\sum_i \log P(y_i \mid x_i; \theta')$ of one batch, for `train` and `evaluate`.

    Args:
        model: `model(idx, mask) -> logits`.
        batch: ids, mask and targets, from `WordRows`.
        state: not used.

    Returns:
        Summed nats, the number of texts, and None.

    >>> batch = torch.tensor([[3, 1]]), torch.tensor([[True, True]]), torch.tensor([1])
    >>> nats, count, _ = classify_loss(WordAverage(vocab=4, classes=2, d_model=8), batch, None)
    >>> count, 0.5 < nats.item() < 0.9  # an untrained model: about log 2
    (1, True)
    """
    idx, mask, targets = batch
    return cross_entropy(model(idx, mask), targets, reduction="sum"), len(targets), None


class WordRows(Buckets):
    """Batches of rows of word numbers, padded to the longest of the batch: the order is that of chapter 11's `Buckets`.

    Args:
        ids: word numbers of each text; a text without any is read as one unknown word.
        targets: the class of each text.
        batch: texts in a batch; the last of a pass may be smaller.
        seed: of the order.
        pad: fills up; the mask is False there.

    Raises:
        ValueError: there are no texts, or not one target for each.

    >>> rows = WordRows([[5, 6], [7], []], [0, 1, 0], batch=3)
    >>> idx, mask, targets = next(iter(rows))
    >>> idx.tolist(), mask.sum(1).tolist(), targets.tolist()
    ([[7, 0], [0, 0], [5, 6]], [1, 1, 2], [1, 0, 0])
    """

    def __init__(self, ids: Sequence[Sequence[int]], targets: Sequence[int], batch: int, seed: int = 0, pad: int = 0):
        if not len(ids) or len(ids) != len(targets):
            raise ValueError(
                f"there are {len(ids)} texts and {len(targets)} labels; give at least one text, and a label for each"
            )
        self.ids, self.targets = [list(row) or [0] for row in ids], torch.tensor(list(targets))
        self.examples, self.batch, self.seed, self.pad = self.ids, batch, seed, pad  # type: ignore[assignment]
        self.lengths = torch.tensor([len(row) for row in self.ids])
        self._last = (-1, [])

    def collate(self, numbers: Sequence[int]) -> Batch:
        """The rows of these numbers, padded to the longest: ids, mask and targets.

        Args:
            numbers: of rows.
        """
        chosen = [torch.tensor(self.ids[k]) for k in numbers]
        idx = nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=self.pad)
        lengths = self.lengths[torch.tensor(list(numbers))]
        return idx, torch.arange(idx.shape[1]) < lengths[:, None], self.targets[torch.tensor(list(numbers))]


class WordClassifier:
    """A model from scratch with what it needs to read text: what `train_from_scratch` returns.

    Args:
        model: `model(idx, mask) -> logits`.
        vocabulary: of its words, with `PAD` among the special entries.
        labels: names of the classes.
        tokenize: cuts a text into words.
        length: texts are cut after so many words, without a warning.

    >>> vocabulary = Vocabulary.build(["fine", "dull"], specials=(PAD,))
    >>> model = WordClassifier(WordAverage(len(vocabulary), 2), vocabulary, ("bad", "good"))
    >>> model.probabilities(["fine", "", "never seen"]).shape
    torch.Size([3, 2])
    """

    history: History | None = None

    def __init__(
        self,
        model: nn.Module,
        vocabulary: Vocabulary,
        labels: Sequence[str],
        tokenize: Callable[[str], Sequence[str]] = tokenize,
        length: int = 256,
    ):
        self.model, self.vocabulary, self.labels = model, vocabulary, tuple(labels)
        self.tokenize, self.length = tokenize, length

    def rows(self, texts: Sequence[str], targets: Sequence[int], batch: int, seed: int = 0) -> WordRows:
        """Texts as batches of numbers; unknown words get the number of the unknown, words beyond `length` none."""
        if isinstance(texts, str):
            raise TypeError(f"texts is one string ({texts[:20]!r}), expected several; wrap it in a list")
        if not len(texts):
            raise ValueError("there are 0 texts; give at least one (it may be empty)")
        ids = [self.vocabulary.encode(list(self.tokenize(text)))[: self.length] for text in texts]
        return WordRows(ids, targets, batch, seed, self.vocabulary.id(PAD))

    @torch.no_grad()
    def logits(self, texts: Sequence[str], batch: int = 64) -> Float[Tensor, "texts classes"]:
        """Scores for texts, in their order, on the CPU.

        Args:
            texts: of any length, empty ones too.
            batch: texts at a time.

        Raises:
            ValueError: there is no text.
            TypeError: one string where several are wanted.
        """
        rows = self.rows(texts, [0] * len(texts), batch)
        training, device = self.model.training, next(self.model.parameters()).device
        self.model.eval()
        parts = [self.model(idx.to(device), mask.to(device)).float().cpu() for idx, mask, _ in rows]
        self.model.train(training)
        return torch.cat(parts)[rows.lengths.argsort(stable=True).argsort()]

    def probabilities(self, texts: Sequence[str], batch: int = 64) -> Float[Tensor, "texts classes"]:
        """The probability of each label for each text; arguments as in `logits`."""
        return self.logits(texts, batch).softmax(-1)

    def predict(self, texts: Sequence[str], batch: int = 64) -> list[str]:
        """The most probable label's name for each text; arguments as in `logits`."""
        return [self.labels[k] for k in self.logits(texts, batch).argmax(-1).tolist()]


def _index(label: Any) -> int:
    """A label as a number of its class."""
    if isinstance(label, str) or int(label) != label:
        raise ValueError(f"label {label!r} must be an index (0, 1, …); labels= gives their names")
    return int(label)


def train_from_scratch(
    rows: Sequence[Any],
    model: str = "average",
    tokenize: Callable[[str], Sequence[str]] = tokenize,
    labels: Sequence[str] | None = None,
    valid: Sequence[Any] | None = None,
    epochs: int = 10,
    batch: int = 32,
    lr: float = 3e-3,
    min_count: int = 2,
    length: int = 256,
    seed: int = 0,
    device: torch.device | str | None = None,
    **sizes: Any,
) -> WordClassifier:
    """Fit a small model to labelled rows and to nothing else; its vocabulary is that of these rows.

    Args:
        rows: of (text, label), the label as its index.
        model: "average" or "lstm".
        tokenize: cuts a text into words; `list` for characters.
        labels: names of the classes; None takes those of a `Dataset`, or numbers.
        valid: rows to look at after every pass; the weights of the best look are kept, and two worse ones end it.
        epochs: passes over the rows, at most.
        batch: rows per update.
        lr: peak learning rate.
        min_count: rarer words become unknown.
        length: texts are cut after so many words, without a warning.
        seed: of weights, order and dropout.
        device: None means a GPU where there is one.
        sizes: passed on to the model: `d_model`, `d_hidden`, `dropout`.

    Raises:
        ValueError: there are no rows, only one label occurs, a label is no index or has no name, a number is out of
            range, or the model has another name.

    >>> rows = [("a fine film", 1), ("a dull film", 0)] * 8
    >>> train_from_scratch(rows, labels=("bad", "good"), lr=0.03).predict(["fine", "dull"])
    ['good', 'bad']
    """
    if model not in MODELS:
        raise ValueError(f"model={model!r} must be one of {', '.join(MODELS)}")
    if not len(rows):
        raise ValueError("there are 0 rows to learn from; give at least one of each label")
    if min(epochs, batch, length) < 1:
        raise ValueError(f"epochs={epochs}, batch={batch} and length={length} must each be at least 1")
    texts, targets = [row[0] for row in rows], [_index(row[1]) for row in rows]
    if len(set(targets)) < 2:
        raise ValueError(f"only the label {targets[0]} occurs; a classifier needs at least 2")
    names = labels or getattr(rows, "labels", None) or [str(k) for k in range(max(targets) + 1)]
    held_out = [] if valid is None else [_index(row[1]) for row in valid]
    if valid is not None and not held_out:
        raise ValueError("there are 0 rows in valid; give at least one, or None")
    given = [*targets, *held_out]
    if not 0 <= min(given) <= max(given) < len(names):
        raise ValueError(f"labels run from {min(given)} to {max(given)}, but there are {len(names)} names")
    words = (word for text in texts for word in list(tokenize(text))[:length])
    vocabulary = Vocabulary.build(words, min_count, specials=(PAD,))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = MODELS[model](len(vocabulary), len(names), **sizes)
    body.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    fitted = WordClassifier(body, vocabulary, names, tokenize, length)
    batches = fitted.rows(texts, targets, batch, seed)
    looks = None if valid is None else list(fitted.rows([row[0] for row in valid], held_out, 256))
    config = TrainConfig(
        steps=epochs * len(batches),
        lr=lr,
        weight_decay=0.01,
        betas=(0.9, 0.98),
        warmup=len(batches) // 2,
        eval_every=len(batches) if looks else 0,
        patience=2 if looks else 0,
        seed=seed,
    )
    fitted.history = train(body, batches, classify_loss, config, looks)
    body.eval()
    return fitted


# ---------------------------------------------------------------------------------------------------------- calibration


class Tempered:
    r"""A classifier whose scores are divided by one number, $\mathrm{softmax}(z / T)$: its answers stay the same.

    Args:
        model: anything with `labels` and `logits`.
        temperature: T, above 0; above 1 makes it less sure.

    Raises:
        ValueError: a temperature that is not above 0.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.

    >>> vocabulary = Vocabulary.build(["fine", "dull"], specials=(PAD,))
    >>> model = WordClassifier(WordAverage(len(vocabulary), 2), vocabulary, ("bad", "good"))
    >>> bool((Tempered(model, 1e6).probabilities(["fine"]) - 0.5).abs().max() < 1e-3)
    True
    """

    def __init__(self, model: Scorer, temperature: float):
        if not 0 < temperature < math.inf:
            raise ValueError(
                f"temperature={temperature} must be finite and above 0; best_temperature finds one on held-out rows"
            )
        self.model, self.labels, self.temperature = model, model.labels, temperature

    @classmethod
    def fit(cls, model: Scorer, rows: Sequence[Any], batch: int = 64) -> "Tempered":
        """Choose the temperature on rows that neither trained the model nor will judge it.

        Args:
            model: anything with `labels` and `logits`.
            rows: held-out (text, label), the label as its index.
            batch: texts at a time.

        Raises:
            ValueError: no temperature is best, as for `metrics.best_temperature`.
        """
        logits = model.logits([row[0] for row in rows], batch)
        return cls(model, best_temperature(logits.double().numpy(), [_index(row[1]) for row in rows]))

    def logits(self, texts: Sequence[Any], batch: int = 64) -> Tensor:
        """Scores divided by the temperature."""
        return self.model.logits(texts, batch) / self.temperature

    def probabilities(self, texts: Sequence[Any], batch: int = 64) -> Tensor:
        """The probability of each label for each text."""
        return self.logits(texts, batch).softmax(-1)

    def predict(self, texts: Sequence[Any], batch: int = 64) -> list[str]:
        """The most probable label's name for each text: the same as without a temperature."""
        return [self.labels[k] for k in self.logits(texts, batch).argmax(-1).tolist()]
