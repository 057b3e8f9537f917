r"""Transfer: carry a pretrained model over to a task, and know what is carried.

Chapter 9 left a `Base`. A task adds a small *head* that reads the base's vectors, and `finetune` moves both, with the
training loop of chapter 6: $L' = -\sum_i \log P(y_i \mid x_i; \theta')$, started at the pretrained $\theta$ instead of
at random. What is moved, how fast, and in which order are switches of one frozen configuration. Later chapters bring
heads of their own (tags, answers) and use the same function.
"""

import copy
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save
from tokenizers import Encoding
from torch import Tensor, nn

from lmtl_course.attention import MultiHeadAttention
from lmtl_course.checkpoint import write_whole
from lmtl_course.losses import cross_entropy
from lmtl_course.pretraining import Base, Encoded, Text, json_bytes, load_base
from lmtl_course.training import IGNORED, Batch, History, State, TrainConfig, _autocast, train
from lmtl_course.transformer import GPT, Encoder

# ----------------------------------------------------------------------------------------------------------- what moves


@dataclass(frozen=True)
class FineTuneConfig:
    r"""How a base is fitted to a task. The defaults suit a few hundred to a few thousand labels.

    Args:
        epochs: passes over the examples.
        min_steps: make more passes where the examples are so few that these updates would not be reached.
        batch: examples per update.
        lr: peak learning rate of the topmost block; None takes 1e-4 for a base as wide as MiniLM (384) and changes with
            the inverse square of the width: small models want larger steps.
        head_lr: peak learning rate of the head, which starts from nothing.
        layer_decay: each block further down learns this much more slowly; the embedding is the lowest. 1 for all alike.
        unfreeze: "all" moves everything from the start; "head" moves the head alone; "gradual" begins with the head and
            adds the blocks from the top down, one stage each; an integer moves the head and that many top blocks.
        dropout: of base and head while training.
        weight_decay: share of each matrix taken away per step, times the learning rate.
        warmup: share of the steps over which the rates climb.
        length: cut texts after so many tokens; None means as many as the base can read.
        class_weights: of the labels in the loss; "balanced" weighs each inversely to how often it occurs.
        eval_every: updates between two looks at the validation rows; 0 looks only at the end.
        patience: looks without a new best after which training stops, with the best weights restored; 0 never does.
        optimizer: as in `TrainConfig`.
        autocast: as in `TrainConfig`.
        seed: of the head's first weights, the order of the examples, and dropout.

    Raises:
        ValueError: a value outside its range, by name.

    >>> FineTuneConfig(unfreeze="some")
    Traceback (most recent call last):
    ...
    ValueError: unfreeze='some' must be 'all', 'head', 'gradual' or a number of blocks
    """

    epochs: int = 3
    min_steps: int = 60
    batch: int = 16
    lr: float | None = None
    head_lr: float = 1e-3
    layer_decay: float = 0.9
    unfreeze: str | int = "all"
    dropout: float = 0.1
    weight_decay: float = 0.01
    warmup: float = 0.1
    length: int | None = None
    class_weights: str | tuple[float, ...] | None = None
    eval_every: int = 0
    patience: int = 0
    optimizer: str = "adamw"
    autocast: bool | str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in {"epochs": 1, "min_steps": 0, "batch": 1, "eval_every": 0, "patience": 0, "seed": 0}.items():
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be an integer of at least {least}")
        for name in ("lr", "head_lr", "layer_decay"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        if not 0 <= self.dropout < 1 or not 0 <= self.warmup <= 1:
            raise ValueError(f"dropout={self.dropout} must be in 0…1 without 1, warmup={self.warmup} in 0…1")
        if self.unfreeze not in ("all", "head", "gradual") and (
            not isinstance(self.unfreeze, int) or isinstance(self.unfreeze, bool) or self.unfreeze < 0
        ):
            raise ValueError(f"unfreeze={self.unfreeze!r} must be 'all', 'head', 'gradual' or a number of blocks")
        if isinstance(self.class_weights, str) and self.class_weights != "balanced":
            raise ValueError(f"class_weights={self.class_weights!r} must be 'balanced', numbers, or None")


# --------------------------------------------------------------------------------------------------------------- heads


class Example(NamedTuple):
    """A row as a model reads it: the text's tokens and a tensor of targets."""

    encoding: Encoding
    target: Tensor


class Head(nn.Module):
    """What a task adds to a base. A chapter with another task writes another subclass; `finetune` stays the same.

    >>> isinstance(ClassificationHead(8, ("bad", "good")), Head)
    True
    """

    pad_target: int = IGNORED
    """Fills up targets that are shorter than others of their batch."""
    pools: bool = False
    """`reduce` makes one vector of each text."""

    def examples(self, base: Base, rows: Sequence[Any], length: int | None) -> list[Example]:
        """Rows of the task as tokens and targets."""
        raise NotImplementedError

    def reduce(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """What the head reads of the base's vectors, by a rule without weights; here all of them."""
        return hidden

    def loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        """Summed nats, and how many targets they belong to."""
        raise NotImplementedError


def pool(hidden: Float[Tensor, "batch seq d_model"], mask: Tensor, how: str = "mean") -> Float[Tensor, "batch d_model"]:
    r"""One vector for a text: $\frac{1}{n} \sum_{i \le n} h_i$ over its real tokens, or its first or last one.

    Args:
        hidden: a vector per token.
        mask: of shape (batch, seq), True at real tokens; each row has at least one.
        how: "mean", "first" (an encoder's `<cls>`) or "last" (a decoder's only token that has seen the whole text).

    Raises:
        ValueError: another way.

    >>> hidden = torch.tensor([[[1.0], [3.0], [99.0]]])
    >>> pool(hidden, torch.tensor([[True, True, False]])).item()
    2.0
    """
    if how == "mean":
        weight = mask.to(hidden.dtype) / mask.sum(1, keepdim=True)
        return (weight[:, None] @ hidden)[:, 0]
    if how == "first":
        return hidden[:, 0]
    if how == "last":
        last = mask.shape[1] - 1 - mask.flip(1).int().argmax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    raise ValueError(f"how={how!r} must be 'mean', 'first' or 'last'")


class ClassificationHead(Head):
    r"""A label per text: $P(y \mid x) = \mathrm{softmax}(W\,\bar h + b)$ of the pooled vector.

    Args:
        d_model: width of the base.
        labels: names of the classes.
        how: see `pool`.
        weights: of the classes in the loss; None weighs all alike.

    Source: Devlin et al. 2019, arXiv:1810.04805, section 4.1; without the pooler's extra layer.

    >>> head = ClassificationHead(8, ("bad", "good"))
    >>> head(torch.zeros(3, 8)).softmax(-1)[0].tolist()  # it starts by preferring nothing
    [0.5, 0.5]
    """

    pools = True

    def __init__(self, d_model: int, labels: Sequence[str], how: str = "mean", weights: Sequence[float] | None = None):
        super().__init__()
        if len(labels) < 2:
            raise ValueError(f"a classifier needs at least 2 labels, got {list(labels)}")
        if weights is not None and (len(weights) != len(labels) or min(weights) < 0):
            raise ValueError(
                f"{len(labels)} labels, but class weights {list(weights)}: give one of at least 0 for each"
            )
        self.labels, self.how, self.weights = tuple(map(str, labels)), how, None if weights is None else tuple(weights)
        self.dropout = nn.Dropout(0.0)
        self.head = nn.Linear(d_model, len(labels))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def examples(self, base: Base, rows: Sequence[Any], length: int | None) -> list[Example]:
        """Rows of (text, label), the label as its index or its name."""
        number = {name: k for k, name in enumerate(self.labels)}
        targets = []
        for row in rows:
            label = number.get(row[1]) if isinstance(row[1], str) else int(row[1])
            if label is None or not 0 <= label < len(self.labels):
                raise ValueError(f"label {row[1]!r} is none of {list(self.labels)} (0 to {len(self.labels) - 1})")
            targets.append(torch.tensor(label))
        texts = [row[0] for row in rows]
        return [Example(e, t) for e, t in zip(base.tokens(texts, length), targets, strict=True)]

    def reduce(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The pooled vector."""
        return pool(hidden, mask, self.how)

    def forward(self, pooled: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch classes"]:
        """Scores for each label."""
        return self.head(self.dropout(pooled))

    def loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        r"""$-\sum_i w_{y_i} \log P(y_i \mid x_i)$, with all weights 1 unless they were given."""
        if self.weights is None:
            return cross_entropy(logits, targets, reduction="sum"), len(targets)
        nats = cross_entropy(logits, targets, reduction="none")
        return (nats * nats.new_tensor(self.weights)[targets]).sum(), len(targets)


# ------------------------------------------------------------------------------------------------------- base and head


class FineTuned(nn.Module):
    """A base with a head on it: what `finetune` returns.

    Args:
        base: is used as it is, not copied.
        head: see `Head`.
        length: texts are cut after so many tokens; None means as many as the base can read.

    >>> model = FineTuned(load_base("bert-mini"), ClassificationHead(192, ("bad", "good")))
    >>> model.probabilities(["A fine film.", ""]).shape
    torch.Size([2, 2])
    >>> print(model.limits)
    Reads at most 256 tokens of a text (about 192 English words); what comes after is cut off, and a warning says so.
    """

    def __init__(self, base: Base, head: Head, length: int | None = None):
        super().__init__()
        self.base, self.body, self.head, self.length = base, base.model, head, length
        self.history: History | None = None
        self.autocast: bool | str = "auto"

    @property
    def limits(self) -> str:
        """What this model can read, in a sentence."""
        most = self.length or self.base.config.context
        return (
            f"Reads at most {most} tokens of a text (about {most * 3 // 4} English words); "
            "what comes after is cut off, and a warning says so."
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, where the head has any."""
        return getattr(self.head, "labels", ())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(self, idx: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        """Scores for a batch, as `Base.encode` makes it."""
        return self.head(self.head.reduce(self.base.hidden(Encoded(idx, mask, segments)), mask))

    def encode(self, texts: Sequence[Text]) -> list[Encoding]:
        """Texts as tokens; a warning says how many were cut."""
        encodings = self.base.tokens(texts, self.length)
        cut = sum(bool(e.overflowing) for e in encodings)
        if cut:
            most = self.length or self.base.config.context
            warnings.warn(f"{cut} of {len(encodings)} texts are longer than {most} tokens and were cut", stacklevel=3)
        return encodings

    @torch.no_grad()
    def logits(self, texts: Sequence[Text], batch: int = 64) -> Tensor:
        """Scores for texts, in their order; computed in batches of texts of like length.

        Args:
            texts: strings or pairs; any length, empty ones too. See `limits`.
            batch: texts at a time.

        Returns:
            On the CPU, of shape (texts, classes) for a classifier.
        """
        encodings = self.encode(texts)
        parts, order = [], sorted(range(len(texts)), key=lambda k: len(encodings[k].ids))
        with _mode(self, training=False), _autocast(self.device, self.autocast):
            for start in range(0, len(order), batch):
                packed = self.base.pack([encodings[k] for k in order[start : start + batch]]).to(self.device)
                parts.append(self(*packed).float().cpu())
        if not parts:
            raise ValueError("there is no text to predict for; give at least one (it may be empty)")
        joined = torch.cat(parts)
        return joined[torch.tensor(order).argsort()]

    def probabilities(self, texts: Sequence[Text], batch: int = 64) -> Float[Tensor, "texts classes"]:
        """The probability of each label for each text; arguments as in `logits`."""
        return self.logits(texts, batch).softmax(-1)

    def predict(self, texts: Sequence[Text], batch: int = 64) -> list[str]:
        """The most probable label's name for each text; arguments as in `logits`."""
        return [self.labels[k] for k in self.logits(texts, batch).argmax(-1).tolist()]

    def save(self, folder: str | Path) -> Path:
        """Write base and head into a folder that `load_finetuned` reads: safetensors and JSON, no pickle.

        Args:
            folder: is made where missing.

        Raises:
            OSError: the disk is full or may not be written to; no half-written file stays.
            TypeError: the head is no `ClassificationHead`; chapters with other heads save them themselves.
        """
        if not isinstance(self.head, ClassificationHead):
            raise TypeError(f"save writes a ClassificationHead, this model has a {type(self.head).__name__}")
        about = {"labels": self.head.labels, "how": self.head.how, "weights": self.head.weights, "length": self.length}
        return save_parts(self, folder, "head", about)


def save_parts(model: FineTuned, folder: str | Path, name: str, about: dict[str, Any]) -> Path:
    """Write a base and a head of any kind into a folder: what the `save` of each task's model calls.

    Args:
        model: whose base and weights to write.
        folder: is made where missing.
        name: of the head's two files.
        about: what making such a head takes, and whatever else its task knows; goes into `name`.json, which is written
            last, so that a folder with it is whole.

    Raises:
        OSError: the disk is full or may not be written to; no half-written file stays.

    >>> import tempfile
    >>> model = FineTuned(load_base("bert-mini"), ClassificationHead(192, ("bad", "good")))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with opened(save_parts(model, folder, "mine", {"labels": ["bad", "good"]}), "mine") as (base, about, state):
    ...         about, list(state)
    ({'labels': ['bad', 'good']}, ['head.bias', 'head.weight'])
    """
    (Path(folder) / f"{name}.json").unlink(missing_ok=True)  # of a model that was there before
    folder = model.base.save(folder)
    state = {key: t.detach().cpu().contiguous() for key, t in model.head.state_dict().items()}
    write_whole(folder / f"{name}.safetensors", save(state))
    write_whole(folder / f"{name}.json", json_bytes(about))
    return folder


@contextmanager
def opened(folder: str | Path, name: str) -> Iterator[tuple[Base, dict[str, Any], dict[str, Tensor]]]:
    """Read what `save_parts` wrote, and turn whatever goes wrong while a head is made of it into one sentence.

    Args:
        folder: of the model.
        name: of the head's two files.

    Yields:
        The base, what is known about the head, and the head's weights.

    Raises:
        OSError: the folder or a file is missing.
        ValueError: a file is damaged, or head and base do not belong together.

    >>> with opened("nowhere", "head"):
    ...     pass
    Traceback (most recent call last):
    OSError: there is no folder nowhere; give one that a model was saved in
    """
    folder = Path(folder)
    if not folder.is_dir():  # `load_base` would look for a model of that name on the hub
        raise OSError(f"there is no folder {folder}; give one that a model was saved in")
    base = load_base(folder)
    for file in (folder / f"{name}.json", folder / f"{name}.safetensors"):
        if not file.is_file():
            raise OSError(f"{folder.name} is a base without a {name}: {file.name} is missing; save the model again")
    try:
        about = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        yield base, about, load_file(folder / f"{name}.safetensors")
    except Exception as error:
        raise ValueError(f"the {name} in {folder.name} is damaged or belongs to another base: {error}") from error


def load_finetuned(folder: str | Path) -> FineTuned:
    """Open what `FineTuned.save` wrote.

    Args:
        folder: of the model.

    Raises:
        OSError, ValueError: see `opened`.

    >>> import tempfile
    >>> model = FineTuned(load_base("bert-mini"), ClassificationHead(192, ("bad", "good")))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = load_finetuned(model.save(folder))
    >>> torch.equal(again.logits(["fine"]), model.logits(["fine"]))
    True
    """
    with opened(folder, "head") as (base, about, state):
        head = ClassificationHead(base.config.d_model, about["labels"], about["how"], about["weights"])
        head.load_state_dict(state)
        return FineTuned(base, head, about["length"]).eval()


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


def fine_tune_loss(model: nn.Module, batch: Batch, state: State) -> tuple[Tensor, int, State]:
    """The loss of a `FineTuned` model, for `train` and `evaluate`.

    Args:
        model: a `FineTuned`.
        batch: from `Buckets`: ids, mask, segments and targets.
        state: not used.

    >>> model = FineTuned(load_base("bert-mini"), ClassificationHead(192, ("bad", "good")))
    >>> batches = Buckets(model.head.examples(model.base, [("fine", 1), ("dull", 0)], None), model.base, 2)
    >>> nats, count, _ = fine_tune_loss(model, batches(0), None)
    >>> round(nats.item() / count, 4)  # an untrained head: log 2
    0.6931
    """
    *inputs, targets = batch
    nats, count = cast(FineTuned, model).head.loss(model(*inputs), targets)
    return nats, count, None


class Buckets:
    """Batches of examples of like length, cut from tokens that are made once: little padding, yet a random order.

    Every pass deals the examples anew: shuffled, sorted by length within pools of 16 batches, cut into batches, and the
    batches shuffled. Batch number n is a pure function of n and the seed.

    Args:
        examples: from `Head.examples`.
        base: knows how to pad.
        batch: examples in a batch; the last of a pass may be smaller.
        seed: of the order.
        pad_target: fills up targets of unequal length.

    Raises:
        ValueError: there are no examples.

    >>> base = load_base("bert-mini")
    >>> examples = ClassificationHead(192, ("a", "b")).examples(base, [("one", 0), ("one two three", 1)] * 3, None)
    >>> [batch[0].shape[1] for batch in Buckets(examples, base, 3)]
    [3, 5]
    """

    def __init__(self, examples: Sequence[Example], base: Base, batch: int, seed: int = 0, pad_target: int = IGNORED):
        if not examples:
            raise ValueError("there are 0 examples to learn from; give at least one")
        self.examples, self.base, self.batch, self.seed, self.pad_target = examples, base, batch, seed, pad_target
        self.lengths = torch.tensor([len(example.encoding.ids) for example in examples])
        self._last: tuple[int, list[Tensor]] = (-1, [])

    def __len__(self) -> int:
        return math.ceil(len(self.examples) / self.batch)

    def __call__(self, n: int) -> Batch:
        """Batch number n of endless passes."""
        return self.collate(self.numbers(n).tolist())

    def numbers(self, n: int) -> Int[Tensor, " batch"]:
        """Which examples batch number n holds."""
        epoch, k = divmod(n, len(self))
        if self._last[0] != epoch:
            self._last = (epoch, self._deal(epoch))
        return self._last[1][k]

    def later(self, start: int) -> Callable[[int], Batch]:
        """The same batches, numbered from `start` on.

        Args:
            start: number of the first.
        """
        return lambda n: self(start + n)

    def __iter__(self) -> Iterator[Batch]:
        """One pass in order of length, for `evaluate`."""
        return (self.collate(part.tolist()) for part in self.lengths.argsort(stable=True).split(self.batch))

    def collate(self, numbers: Sequence[int]) -> Batch:
        """The examples of these numbers, padded to the longest.

        Args:
            numbers: of examples.
        """
        chosen = [self.examples[k] for k in numbers]
        targets = [example.target for example in chosen]
        if targets[0].ndim:
            padded = nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=self.pad_target)
        else:
            padded = torch.stack(targets)
        return (*self.base.pack([example.encoding for example in chosen]), padded)

    def _deal(self, epoch: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.examples), generator=generator)
        pools = (pool[self.lengths[pool].argsort(stable=True)] for pool in order.split(16 * self.batch))
        batches = [part for pool in pools for part in pool.split(self.batch)]
        return [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]


# ---------------------------------------------------------------------------------------------------------- fine-tuning


def read_rows(path: str | Path, header: bool = False) -> list[tuple[str, str]]:
    r"""A reader's own examples: a file in UTF-8 with a text, a tab and a label on each line.

    Args:
        path: the file; empty lines are passed over.
        header: the first line names the columns.

    Returns:
        Pairs of text and label name, for `finetune`.

    Raises:
        ValueError: a line has not two columns, or the file holds no example, or is no UTF-8.
        OSError: the file cannot be read.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "reviews.tsv"
    ...     _ = path.write_text("A fine film.\tgood\nToo long.\tbad\n", encoding="utf-8")
    ...     read_rows(path)
    [('A fine film.', 'good'), ('Too long.', 'bad')]
    """
    path, rows = Path(path), []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 (byte {error.start}); save it again in that encoding") from error
    for number, line in enumerate(lines[header:], start=1 + header):
        if not line.strip():
            continue
        columns = line.rstrip("\r").split("\t")
        if len(columns) != 2:
            raise ValueError(f"line {number} of {path.name} has {len(columns)} columns, expected text, tab, label")
        rows.append((columns[0], columns[1].strip()))
    if not rows:
        raise ValueError(f"{path.name} holds 0 examples; write one per line: text, tab, label")
    return rows


def finetune(
    base: Base | str | Path,
    dataset: Sequence[Any],
    head: Head | str = "classification",
    config: FineTuneConfig | None = None,
    valid: Sequence[Any] | None = None,
    labels: Sequence[str] | None = None,
    device: torch.device | str | None = None,
    watch: Callable[[History], None] | None = None,
) -> FineTuned:
    """Fit a pretrained model to a task. The base itself is left as it was: a copy of it is trained.

    Args:
        base: from `load_base`, or what `load_base` takes.
        dataset: rows of (text, label), or a `Dataset`; a text may be a pair of texts, a label an index or a name. For
            another head, whatever that reads.
        head: "classification", or a `Head`.
        config: see `FineTuneConfig`.
        valid: rows to look at while training.
        labels: names of the classes; None takes those of the dataset, or the labels that occur, sorted.
        device: None means a GPU where there is one.
        watch: called after every look, as in `train`.

    Returns:
        The model in evaluation mode, its `history` with it.

    Raises:
        ValueError: there are no rows, a row has no such form, only one label occurs, or a label is unknown.

    >>> rows = [("a wonderful film", "good"), ("a dreadful film", "bad")] * 8
    >>> model = finetune("bert-mini", rows, config=FineTuneConfig(min_steps=20))
    >>> model.predict(["a wonderful film", "a dreadful film"])
    ['good', 'bad']
    """
    base = load_base(base) if isinstance(base, str | Path) else base
    config = config or FineTuneConfig()
    if config.lr is None:
        config = replace(config, lr=1e-4 * (384 / base.config.d_model) ** 2)
    if isinstance(head, str):
        head = _classifier(base, dataset, head, config, labels)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    copied = Base(copy.deepcopy(base.model), base.tokenizer, base.name, base.record)
    model = FineTuned(copied, head, config.length).to(device)
    model.autocast = config.autocast
    set_dropout(model, config.dropout)
    examples = head.examples(copied, dataset, config.length)
    batches = Buckets(examples, copied, min(config.batch, len(examples) or 1), config.seed, head.pad_target)
    looks = None
    if valid is not None:
        looks = list(Buckets(head.examples(copied, valid, config.length), copied, 64, 0, head.pad_target))
    steps = max(config.epochs * len(batches), config.min_steps)
    stages = _stages(base.config.layers, config.unfreeze)
    model.history = History()
    for k, blocks in enumerate(stages):
        first, last = steps * k // len(stages), steps * (k + 1) // len(stages)
        if first == last:  # fewer steps than stages
            continue
        _unfreeze(model, blocks)
        run = _train_config(config, base.config.layers, last - first)
        if blocks == 0 and head.pools:  # the vectors that the head reads stay the same: compute them once
            kept, looked = _Kept(model, batches), None if looks is None else [_reduced(model, look) for look in looks]
            run = replace(run, lr=config.head_lr, scales=())
            history = train(head, kept.later(first), _head_loss, run, looked, watch)
        else:
            history = train(model, batches.later(first), fine_tune_loss, run, looks, watch)
        model.history = _joined(model.history, history)
    _unfreeze(model, None)
    set_dropout(model, base.config.dropout)
    return model.eval()


def _classifier(
    base: Base, dataset: Sequence[Any], head: str, config: FineTuneConfig, labels: Sequence[str] | None
) -> ClassificationHead:
    """A fresh head for the labels of a data set."""
    if head != "classification":
        raise ValueError(f"head={head!r} must be 'classification' or a Head, such as ClassificationHead(…)")
    if not len(dataset):
        raise ValueError("there are 0 rows to learn from; give at least one of each label")
    for row in dataset:
        if not isinstance(row, tuple | list) or len(row) != 2 or not isinstance(row[1], str | int):
            raise ValueError(f"a row must be (text, label) with a label that is a name or a number, got {row!r:.80}")
    labels = labels or getattr(dataset, "labels", None)
    if not labels:
        found = {row[1] for row in dataset}
        if len({type(label) for label in found}) > 1:
            raise ValueError(f"labels are partly names and partly numbers: {sorted(map(str, found))[:6]}; use one kind")
        labels = sorted(found) if isinstance(next(iter(found)), str) else [str(k) for k in range(max(found) + 1)]
        if len(found) < 2:
            raise ValueError(f"only the label {next(iter(found))!r} occurs; a classifier needs at least 2")
    weights = config.class_weights
    if weights == "balanced":
        number = {name: k for k, name in enumerate(labels)}
        counts = torch.bincount(
            torch.tensor([number.get(row[1], row[1]) for row in dataset]), minlength=len(labels)
        ).tolist()
        weights = tuple(len(dataset) / (len(labels) * max(count, 1)) for count in counts)
    how = "mean" if base.kind == "encoder" else "last"
    return ClassificationHead(base.config.d_model, labels, how, cast(tuple[float, ...] | None, weights))


def _stages(layers: int, unfreeze: str | int) -> list[int | None]:
    """How many top blocks move in each stage; None stands for everything, the embedding too."""
    if unfreeze == "gradual":
        return [*range(layers), None]
    return [None if unfreeze == "all" else 0 if unfreeze == "head" else min(int(unfreeze), layers)]


def _unfreeze(model: FineTuned, blocks: int | None) -> None:
    """Let the head and so many top blocks move (None: everything), and nothing else."""
    layers = model.base.config.layers
    for name, p in model.body.named_parameters():
        if name.startswith("head."):  # of the pretraining task
            p.requires_grad_(False)
        elif blocks is None:
            p.requires_grad_(True)
        else:
            number = (
                int(name.split(".")[1]) if name.startswith("blocks.") else layers if name.startswith("norm.") else -1
            )
            p.requires_grad_(blocks > 0 and number >= layers - blocks)


def _train_config(config: FineTuneConfig, layers: int, steps: int) -> TrainConfig:
    """The loop's settings: the head's rate, the top block's, and a smaller one for each block below."""
    assert config.lr is not None
    rates = {f"body.blocks.{k}.": config.layer_decay ** (layers - 1 - k) for k in range(layers)}
    scales = {"body.": config.layer_decay**layers, "body.norm.": 1.0, **rates, "head.": config.head_lr / config.lr}
    return TrainConfig(
        steps=steps,
        lr=config.lr,
        optimizer=config.optimizer,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.98),
        warmup=round(config.warmup * steps),
        autocast=config.autocast,
        scales=tuple(scales.items()),
        eval_every=config.eval_every,
        patience=config.patience,
        seed=config.seed,
    )


def set_dropout(model: nn.Module, share: float) -> None:
    """Set the dropout of every part of a model.

    Args:
        model: is changed in place.
        share: of the numbers to set to zero while training.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    >>> set_dropout(model, 0.1)
    >>> model[1].p
    0.1
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        elif isinstance(module, MultiHeadAttention):
            module.dropout = share


@torch.no_grad()
def _reduced(model: FineTuned, batch: Batch) -> Batch:
    """What the head reads of a batch, and the targets."""
    *inputs, targets = (item.to(model.device) for item in batch)
    with _mode(model, training=False), _autocast(model.device, model.autocast):
        encoded = Encoded(*inputs)
        return model.head.reduce(model.base.hidden(encoded), encoded.mask).float(), targets


class _Kept:
    """Batches of what the head reads, computed once: the order is that of the `Buckets`."""

    def __init__(self, model: FineTuned, batches: Buckets):
        self.batches = batches
        order = batches.lengths.argsort(stable=True)
        parts = [_reduced(model, batches.collate(part.tolist())) for part in order.split(64)]
        self.vectors, self.targets = (torch.cat(rows)[order.argsort()] for rows in zip(*parts, strict=True))

    def later(self, start: int) -> Callable[[int], Batch]:
        def batch(n: int) -> Batch:
            chosen = self.batches.numbers(start + n).to(self.vectors.device)
            return self.vectors[chosen], self.targets[chosen]

        return batch


def _head_loss(head: nn.Module, batch: Batch, state: State) -> tuple[Tensor, int, State]:
    vectors, targets = batch
    nats, count = cast(Head, head).loss(head(vectors), targets)
    return nats, count, None


def _joined(before: History, after: History) -> History:
    """Two stages as one run."""
    return History(
        before.loss + after.loss,
        before.norm + after.norm,
        before.tokens + after.tokens,
        before.seconds + after.seconds,
        before.looks + [(before.steps + step, nats) for step, nats in after.looks],
        min(before.best, after.best),
        after.stopped,
    )


# ------------------------------------------------------------------------------------------------- what is carried over


@torch.no_grad()
def features(
    base: Base,
    texts: Sequence[Text],
    how: str = "mean",
    layer: int | None = None,
    batch: int = 64,
    autocast: bool | str = "auto",
) -> Float[Tensor, "texts d_model"]:
    """Frozen features: one vector per text from a base that stays as it is, for a linear probe or a comparison.

    Args:
        base: see `Base`.
        texts: strings or pairs.
        how: see `pool`.
        layer: after how many blocks to look; 0 is the embedding, None the end, after the last norm.
        batch: texts at a time.
        autocast: as in `TrainConfig`.

    Returns:
        On the CPU, in the order of the texts.

    Raises:
        ValueError: there is no text, or no such layer.

    >>> features(load_base("bert-mini"), ["fine", "dull"], layer=0).shape
    torch.Size([2, 192])
    """
    layers = base.config.layers
    if layer is not None and not 0 <= layer <= layers:
        raise ValueError(f"layer={layer} must be between 0 and {layers}, or None for the end")
    if not len(texts):
        raise ValueError("there is no text to look at; give at least one (it may be empty)")
    device = next(base.model.parameters()).device
    encodings = base.tokens(texts)
    order = sorted(range(len(texts)), key=lambda k: len(encodings[k].ids))
    seen: list[Tensor] = []
    blocks = cast(list[nn.Module], list(base.model.blocks))
    watched = None if layer is None else blocks[layer - 1] if layer else blocks[0]
    hook = None
    if watched is not None and layer:
        hook = watched.register_forward_hook(lambda module, inputs, output: seen.append(output))
    elif watched is not None:
        hook = watched.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    parts = []
    try:
        with _mode(base.model, training=False), _autocast(device, autocast):
            for start in range(0, len(order), batch):
                encoded = base.pack([encodings[k] for k in order[start : start + batch]]).to(device)
                hidden = base.hidden(encoded)
                parts.append(pool(seen.pop() if hook else hidden, encoded.mask, how).float().cpu())
    finally:
        if hook is not None:
            hook.remove()
    return torch.cat(parts)[torch.tensor(order).argsort()]


def from_scratch(base: Base, seed: int = 0) -> Base:
    """The same architecture and tokenizer with fresh weights: what a base is compared with to see what it carries.

    Args:
        base: gives the shape.
        seed: of the weights.

    >>> fresh = from_scratch(load_base("bert-mini"))
    >>> fresh.config == load_base("bert-mini").config
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT(base.config) if base.kind == "decoder" else Encoder(base.config)
    return Base(model.eval(), base.tokenizer, f"{base.name} from scratch")
