r"""The Transformer: attention and a small network per token, each *added* to a stream through the whole model.

Chapter 7 gave the layer that looks around; here it is stacked. One `Block` makes all three kinds of model: `GPT` reads
what came before and predicts, `Encoder` (BERT) reads both sides, `EncoderDecoder` reads one text and writes another.
Whatever makes them train faster or slower is a named switch of `TransformerConfig`, so that chapter 8 can take the
parts away one by one, and whatever they cost (weights, operations, memory) is a formula that is checked by counting.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lmtl_course.attention import KVCache, MultiHeadAttention, sinusoidal
from lmtl_course.checkpoint import from_huggingface
from lmtl_course.losses import cross_entropy
from lmtl_course.training import IGNORED, Batch, State

Cache = KVCache | tuple[KVCache, KVCache]
"""What one block remembers: its own keys and values and, where there is cross-attention, those of the other text."""

CHOICES = {
    "positions": ("rotary", "learned", "sinusoidal", "none"),
    "norm": ("rms", "layer", "none"),
    "activation": ("relu2", "gelu", "gelu_tanh"),
}


@dataclass(frozen=True)
class TransformerConfig:
    r"""Everything that fixes a model besides its weights. The defaults are this book's; `gpt2`, `bert` are history's.

    Args:
        vocab: how many tokens there are.
        context: the longest text; a table of learned positions has this many rows.
        d_model: width of the stream.
        layers: blocks, one after the other.
        heads: of each attention.
        kv_heads: heads of keys and values, where they are shared by several heads; None means as many as `heads`.
        d_hidden: width inside the network per token; None means 4 d_model.
        positions: "rotary" (turned queries and keys), "learned" or "sinusoidal" (added to the embedding), or "none".
        norm: "rms" (divide by the root mean square), "layer" (also take away the mean), or "none".
        norm_first: normalise what goes into a layer (pre-norm); False normalises the stream after each sum (post-norm).
        activation: "relu2" ($\max(0, x)^2$), "gelu" (exact), or "gelu_tanh" (GPT-2's approximation).
        bias: whether projections and layer norms have one.
        qk_norm: queries and keys of root mean square 1, so that no score exceeds $\sqrt{d_\text{head}}$.
        zero_init: what is added to the stream starts at 0, and so do the logits of an output layer of its own.
        residual: add to the stream at all; False replaces it.
        tied: the output layer is the embedding table, used a second time.
        dropout: share of embeddings, attention weights and additions set to zero in training.
        norm_eps: added under the roots of the norms.
        embed_norm: normalise the embedding too, before the first block.
        segments: kinds of text that a token can belong to (BERT's two), each with a vector; 0 for none.
        init_std: spread of the initial weights; None means $1/\sqrt{d_\text{in}}$, which keeps a variance of 1.

    Raises:
        ValueError: a value outside its range, by name.

    >>> TransformerConfig(vocab=65, residual=False)
    Traceback (most recent call last):
    ...
    ValueError: residual=False with zero_init=True lets nothing through, and no gradient back; set zero_init=False
    """

    vocab: int
    context: int = 256
    d_model: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int | None = None
    d_hidden: int | None = None
    positions: str = "rotary"
    norm: str = "rms"
    norm_first: bool = True
    activation: str = "relu2"
    bias: bool = False
    qk_norm: bool = True
    zero_init: bool = True
    residual: bool = True
    tied: bool = False
    dropout: float = 0.0
    norm_eps: float = 1e-5
    embed_norm: bool = False
    segments: int = 0
    init_std: float | None = None

    def __post_init__(self) -> None:
        for name in ("vocab", "context", "d_model", "layers", "heads", "kv_heads", "d_hidden"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}={value} must be an integer of at least 1")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(allowed)}")
        kv_heads = self.kv_heads or self.heads
        if self.d_model % self.heads or self.heads % kv_heads:
            raise ValueError(
                f"d_model={self.d_model}, heads={self.heads}, kv_heads={kv_heads}: each must be divisible by the next"
            )
        if self.positions == "rotary" and self.d_head % 2:
            raise ValueError(f"rotary positions turn pairs, but d_model / heads is {self.d_head}; make it even")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"sinusoidal positions are pairs, but d_model is {self.d_model}; make it even")
        if not 0 <= self.dropout < 1 or self.norm_eps <= 0 or self.segments < 0:
            raise ValueError(
                f"dropout={self.dropout} must be in 0…1 without 1, norm_eps={self.norm_eps} above 0, "
                f"segments={self.segments} at least 0"
            )
        if self.init_std is not None and self.init_std <= 0:
            raise ValueError(f"init_std={self.init_std} must be above 0; None fits it to each matrix")
        if not self.residual and self.zero_init:
            raise ValueError(
                "residual=False with zero_init=True lets nothing through, and no gradient back; set zero_init=False"
            )

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.heads

    @property
    def d_kv(self) -> int:
        """Width of all keys (or values) of a token together."""
        return self.d_head * (self.kv_heads or self.heads)

    @property
    def d_inside(self) -> int:
        """Width inside the network per token."""
        return self.d_hidden or 4 * self.d_model

    @classmethod
    def gpt2(cls, **changes: Any) -> "TransformerConfig":
        """GPT-2 as published, 124 M weights unless changed: learned positions, layer norm first, biases, tied output.

        >>> TransformerConfig.gpt2(layers=24, d_model=1024, heads=16).context  # the medium one
        1024
        """
        return cls(**{**_CLASSIC, **_GPT2, **changes})

    @classmethod
    def bert(cls, **changes: Any) -> "TransformerConfig":
        """BERT as published, the base model unless changed: GPT-2's parts, but the norm after each sum.

        >>> TransformerConfig.bert().norm_first
        False
        """
        return cls(**{**_CLASSIC, **_BERT, **changes})

    @classmethod
    def from_huggingface(cls, settings: Mapping[str, Any], kind: str | None = None) -> "TransformerConfig":
        """What a Hugging Face `config.json` of a GPT-2 or a BERT says, in this book's words.

        Args:
            settings: the file as a dictionary.
            kind: "gpt2" or "bert" where only one of them will do.

        Raises:
            ValueError: another kind of model, or a setting without a counterpart here.

        >>> TransformerConfig.from_huggingface({"model_type": "gpt2", "n_layer": 3}).layers
        3
        """
        kind = kind or settings.get("model_type", "")
        if kind == "gpt2":
            _refuse(settings, kind, add_cross_attention=False, scale_attn_weights=True)
            _refuse(settings, kind, scale_attn_by_inverse_layer_idx=False)
            names: dict[str, str] = _GPT2_SETTINGS
            changes: dict[str, Any] = {"tied": bool(settings.get("tie_word_embeddings", True))}
        else:
            _refuse(settings, "bert", is_decoder=False, position_embedding_type="absolute")
            names, changes = _BERT_SETTINGS, {}
        for theirs, ours in names.items():
            if settings.get(theirs) is not None:
                changes[ours] = settings[theirs]
        if "activation" in changes and changes["activation"] not in _ACTIVATIONS:
            known = ", ".join(_ACTIVATIONS)
            raise ValueError(f"activation {changes['activation']!r} has no counterpart; it needs one of {known}")
        if "activation" in changes:
            changes["activation"] = _ACTIVATIONS[changes["activation"]]
        return (cls.gpt2 if kind == "gpt2" else cls.bert)(**changes)

    def to_huggingface(self) -> dict[str, Any]:
        """The way back: the `config.json` with which `transformers` builds the same model.

        Raises:
            ValueError: the configuration is neither GPT-2's nor BERT's architecture, so `transformers` has no class
                for it among these two.

        >>> TransformerConfig.bert(layers=3).to_huggingface()["num_hidden_layers"]
        3
        """
        shared = self.positions == "learned" and self.norm == "layer" and self.bias and not self.qk_norm
        shared = shared and self.residual and self.kv_heads in (None, self.heads)
        activations = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
        if shared and self.norm_first and not self.embed_norm and not self.segments:
            kind, names = "gpt2", _GPT2_SETTINGS
            settings: dict[str, Any] = {"tie_word_embeddings": self.tied}
            settings |= {"embd_pdrop": self.dropout, "attn_pdrop": self.dropout}
        elif shared and not self.norm_first and self.embed_norm and self.segments:
            kind, names = "bert", _BERT_SETTINGS
            settings = {"attention_probs_dropout_prob": self.dropout}
        else:
            raise ValueError(
                f"{self} is neither GPT-2's nor BERT's architecture; build it from TransformerConfig.gpt2() or .bert()"
            )
        settings |= {theirs: getattr(self, ours) for theirs, ours in names.items()}
        settings["activation_function" if kind == "gpt2" else "hidden_act"] = activations[self.activation]
        settings["n_inner" if kind == "gpt2" else "intermediate_size"] = self.d_inside
        return {"model_type": kind, **settings}


_CLASSIC: dict[str, Any] = {
    **{"d_model": 768, "layers": 12, "heads": 12, "positions": "learned", "norm": "layer", "bias": True},
    **{"qk_norm": False, "zero_init": False, "dropout": 0.1, "init_std": 0.02},
}
_GPT2: dict[str, Any] = {"vocab": 50257, "context": 1024, "activation": "gelu_tanh", "tied": True}
_BERT: dict[str, Any] = {
    **{"vocab": 30522, "context": 512, "activation": "gelu", "norm_first": False},
    **{"norm_eps": 1e-12, "embed_norm": True, "segments": 2},
}

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_GPT2_SETTINGS = {  # theirs: ours
    **{"vocab_size": "vocab", "n_positions": "context", "n_embd": "d_model", "n_layer": "layers", "n_head": "heads"},
    **{"n_inner": "d_hidden", "activation_function": "activation", "resid_pdrop": "dropout"},
    "layer_norm_epsilon": "norm_eps",
}
_BERT_SETTINGS = {
    **{"vocab_size": "vocab", "max_position_embeddings": "context", "hidden_size": "d_model"},
    **{"num_hidden_layers": "layers", "num_attention_heads": "heads", "intermediate_size": "d_hidden"},
    **{"hidden_act": "activation", "hidden_dropout_prob": "dropout", "layer_norm_eps": "norm_eps"},
    "type_vocab_size": "segments",
}

# --------------------------------------------------------------------------------------------------------- the parts


def make_norm(config: TransformerConfig) -> nn.Module:
    r"""The norm that a configuration asks for: $g \odot x / \mathrm{rms}(x)$, or with the mean taken away first.

    Args:
        config: names it in `norm`.

    Source: Zhang and Sennrich 2019, arXiv:1910.07467 (root mean square); Ba et al. 2016, arXiv:1607.06450 (layer norm).

    >>> make_norm(TransformerConfig(vocab=7, d_model=2, heads=1))(torch.tensor([3.0, 4.0])).square().mean().round()
    tensor(1., grad_fn=<RoundBackward0>)
    """
    if config.norm == "rms":
        return nn.RMSNorm(config.d_model, config.norm_eps)
    if config.norm == "layer":
        return nn.LayerNorm(config.d_model, config.norm_eps, bias=config.bias)
    return nn.Identity()


class MLP(nn.Module):
    r"""The small network per token, $W_2\, \phi(W_1 x)$: the same for all positions, which do not see each other here.

    Args:
        config: has the widths and the activation φ.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.3; So et al. 2021, arXiv:2109.08668 (squared ReLU).

    >>> mlp = MLP(TransformerConfig(vocab=7, d_model=4, heads=1, d_hidden=6))
    >>> mlp(torch.randn(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_inside, config.bias)
        self.down = nn.Linear(config.d_inside, config.d_model, config.bias)
        self.activation = config.activation

    def forward(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        """Each token for itself."""
        x = self.up(x)
        if self.activation == "relu2":
            x = nn.functional.relu(x)
            x = x * x  # not x.square(): autocast would make that float32
        else:
            x = nn.functional.gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none")
        return self.down(x)


class Block(nn.Module):
    r"""Look around, then think: $x \leftarrow x + \mathrm{Attention}(\mathrm{norm}(x))$ and the same with the network.

    The one part of all models here. A decoder's looks at the past only, an encoder's everywhere, and one with
    cross-attention looks at another text between the two steps.

    Args:
        config: widths and switches.
        causal: tokens see themselves and the past only.
        cross: has cross-attention.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.1 (norm after the sum); Xiong et al. 2020, arXiv:2002.04745
    (norm first).

    >>> block = Block(TransformerConfig(vocab=7, d_model=8, heads=2), causal=True)
    >>> x = torch.randn(2, 3, 8)
    >>> torch.equal(block(x), x)  # it starts by adding nothing (zero_init)
    True
    """

    def __init__(self, config: TransformerConfig, causal: bool, cross: bool = False):
        super().__init__()
        shared: dict[str, Any] = {
            **{"qk_norm": config.qk_norm, "bias": config.bias, "dropout": config.dropout},
            "zero_init_output": config.zero_init,
        }
        sizes = config.d_model, config.heads, config.kv_heads
        self.norm_attention = make_norm(config)
        self.attention = MultiHeadAttention(*sizes, causal=causal, rotary=config.positions == "rotary", **shared)
        if cross:
            self.norm_cross = make_norm(config)
            self.cross = MultiHeadAttention(*sizes, **shared)  # another text has neither a past nor a distance
        self.norm_mlp = make_norm(config)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)
        self.norm_first, self.residual, self.has_cross = config.norm_first, config.residual, cross
        self._initialise(config)

    def _initialise(self, config: TransformerConfig) -> None:
        """Random matrices that keep the size of what passes; what is added to the stream starts smaller, or at 0."""
        additions = [self.attention.output, self.mlp.down] + ([self.cross.output] if self.has_cross else [])
        # pre-norm blocks only ever add: n additions of equal variance make √n times the spread
        share = (len(additions) * config.layers) ** -0.5 if config.norm_first and config.residual else 1.0
        for module in self.modules():
            if isinstance(module, nn.Linear):
                std = config.init_std or module.in_features**-0.5
                if any(module is last for last in additions):
                    std *= 0.0 if config.zero_init else share
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        memory: Float[Tensor, "batch keys d_model"] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
        memory_mask: Bool[Tensor, "..."] | None = None,
        cache: Cache | None = None,
        positions: Int[Tensor, "*batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """Carry the stream through the block.

        Args:
            x: the stream; with a cache, that of the new tokens only.
            memory: the other text's stream, for cross-attention.
            mask: True where a token may look; shapes as in `MultiHeadAttention`.
            memory_mask: the same for the other text.
            cache: appended to; with cross-attention a pair, of which the second keeps what is computed from `memory`.
            positions: of the tokens, for rotary ones.

        Raises:
            ValueError: memory for a block without cross-attention, or none for one with it.
        """
        if self.has_cross == (memory is None):
            raise ValueError(
                f"a block with cross={self.has_cross} got {'no ' if memory is None else ''}memory; it needs "
                f"{'one' if self.has_cross else 'none'}"
            )
        own, other = cache if isinstance(cache, tuple) else (cache, None)
        x = self._step(x, self.norm_attention, self.attention, mask=mask, cache=own, positions=positions)
        if self.has_cross:
            x = self._step(x, self.norm_cross, self.cross, memory=memory, mask=memory_mask, cache=other)
        return self._step(x, self.norm_mlp, self.mlp)

    def _step(self, x: Tensor, norm: nn.Module, layer: nn.Module, **inputs: Any) -> Tensor:
        y = self.dropout(layer(norm(x) if self.norm_first else x, **inputs))
        y = x + y if self.residual else y.to(x.dtype)  # under autocast the stream stays in float32
        return y if self.norm_first else norm(y)


# -------------------------------------------------------------------------------------------------- the three models


class Stack(nn.Module):
    """Embedding, blocks and a last norm: what a decoder and an encoder have in common.

    Args:
        config: see `TransformerConfig`.
        causal: as for `Block`.
        cross: as for `Block`.

    >>> Stack(TransformerConfig(vocab=7), causal=False).run(torch.zeros(2, 5, dtype=torch.long)).shape
    torch.Size([2, 5, 128])
    """

    def __init__(self, config: TransformerConfig, causal: bool, cross: bool = False):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab, config.d_model)
        self.position = nn.Embedding(config.context, config.d_model) if config.positions == "learned" else None
        self.segment = nn.Embedding(config.segments, config.d_model) if config.segments else None
        self.embed_norm = make_norm(config) if config.embed_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config, causal, cross) for _ in range(config.layers)])
        self.norm = make_norm(config) if config.norm_first else nn.Identity()  # post-norm blocks end with theirs
        for table in (self.embedding, self.position, self.segment):
            if table is not None:
                nn.init.normal_(table.weight, std=config.init_std or (config.d_model**-0.5 if config.tied else 1.0))

    def run(
        self,
        idx: Int[Tensor, "batch seq"],
        cache: Sequence[Cache] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
        positions: Int[Tensor, "*batch seq"] | None = None,
        segments: Int[Tensor, "batch seq"] | None = None,
        memory: Float[Tensor, "batch keys d_model"] | None = None,
        memory_mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """From ids to the stream after the last norm.

        Args:
            idx: tokens; with a cache, only the new ones.
            cache: one per block, appended to.
            mask: True at tokens that may be looked at, of shape (batch, keys), remembered ones included; or of four
                axes, as in `MultiHeadAttention`.
            positions: of shape (seq) or (batch, seq); None counts on from the cache.
            segments: which kind of text each token belongs to; None means 0.
            memory: the other text's stream, for cross-attention.
            memory_mask: as `mask`, for the other text.

        Raises:
            ValueError: more tokens than there are learned positions, segments for a model without, or a cache with
                another number of blocks.
        """
        if cache is not None and len(cache) != len(self.blocks):
            raise ValueError(f"{len(cache)} caches for {len(self.blocks)} blocks; make them with new_cache()")
        x = self.embedding(idx)
        if self.config.positions != "none":
            seen = 0 if cache is None else len(cache[0][0] if isinstance(cache[0], tuple) else cache[0])
            positions = self._positions(idx, seen, positions)
        if self.position is not None:
            x = x + self.position(positions)
        elif self.config.positions == "sinusoidal":
            assert positions is not None
            waves = sinusoidal(positions.flatten(), self.config.d_model)
            x = x + waves.view(*positions.shape, -1).to(x.dtype)
        if self.segment is not None:
            x = x + self.segment(torch.zeros_like(idx) if segments is None else segments)
        elif segments is not None:
            raise ValueError("segments were given, but the model was made with segments=0; leave them out")
        x = self.dropout(self.embed_norm(x))
        mask, memory_mask = (m[:, None, None] if m is not None and m.ndim == 2 else m for m in (mask, memory_mask))
        for k, block in enumerate(self.blocks):
            x = block(x, memory, mask, memory_mask, None if cache is None else cache[k], positions)
        return self.norm(x)

    def _positions(self, idx: Tensor, seen: int, positions: Tensor | None) -> Tensor:
        learned, context = self.position is not None, self.config.context
        if positions is None:
            if learned and seen + idx.shape[1] > context:
                raise ValueError(
                    f"{seen + idx.shape[1]} tokens, but learned positions end at context={context}; shorten the text"
                )
            return torch.arange(seen, seen + idx.shape[1], device=idx.device)
        # elsewhere a look at the values would make the processor wait for the device
        if learned and positions.device.type == "cpu" and not 0 <= positions.min() <= positions.max() < context:
            raise ValueError(
                f"positions from {positions.min()} to {positions.max()}, but learned ones go from 0 to "
                f"context - 1 = {context - 1}"
            )
        return positions


class GPT(Stack):
    r"""A decoder: each position predicts the next token from itself and what came before, $P(w_i \mid w_{<i})$.

    Args:
        config: see `TransformerConfig`; `head` is the output layer.
        cross: blocks also look at another text (see `EncoderDecoder`).

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; the default switches follow
    Jordan et al. 2024, https://github.com/KellerJordan/modded-nanogpt.

    >>> model = GPT(TransformerConfig(vocab=11, d_model=8, heads=2))
    >>> model(torch.tensor([[3, 1, 4]])).shape
    torch.Size([1, 3, 11])
    >>> cache = model.new_cache()
    >>> with torch.no_grad():
    ...     _ = model(torch.tensor([[3, 1]]), cache)         # what was read is remembered …
    ...     model(torch.tensor([[4]]), cache).shape          # … and only the new token is computed
    torch.Size([1, 1, 11])
    """

    def __init__(self, config: TransformerConfig, cross: bool = False):
        super().__init__(config, causal=True, cross=cross)
        self.head = nn.Linear(config.d_model, config.vocab, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight
        elif config.zero_init:
            nn.init.zeros_(self.head.weight)
        else:
            nn.init.normal_(self.head.weight, std=config.init_std or config.d_model**-0.5)

    def hidden(
        self,
        idx: Int[Tensor, "batch seq"],
        cache: Sequence[Cache] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
        positions: Int[Tensor, "*batch seq"] | None = None,
        memory: Float[Tensor, "batch keys d_model"] | None = None,
        memory_mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """What `head` reads; arguments as in `Stack.run`. Whoever needs the last position only saves the rest."""
        return self.run(idx, cache, mask, positions, memory=memory, memory_mask=memory_mask)

    def forward(
        self,
        idx: Int[Tensor, "batch seq"],
        cache: Sequence[Cache] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
        positions: Int[Tensor, "*batch seq"] | None = None,
        memory: Float[Tensor, "batch keys d_model"] | None = None,
        memory_mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch seq vocab"]:
        """Scores for the token after each one; arguments as in `Stack.run`."""
        return self.head(self.hidden(idx, cache, mask, positions, memory, memory_mask))

    def new_cache(self, capacity: int = 64) -> list[Any]:
        """An empty `KVCache` per block (a pair of them where blocks look at another text).

        Args:
            capacity: tokens to make room for at first.
        """
        return [
            (KVCache(capacity), KVCache(capacity)) if cast(Block, block).has_cross else KVCache(capacity)
            for block in self.blocks
        ]

    @classmethod
    def from_transformers(cls, model: Any) -> "GPT":
        """The same function as a Hugging Face GPT-2, with a copy of its weights.

        Args:
            model: a `GPT2LMHeadModel`, or a `GPT2Model` (then the output layer is tied).

        Raises:
            ValueError: the model is no GPT-2, or has a setting that this class has no counterpart for.
        """
        settings = dict(_settings(model))
        if "lm_head.weight" not in model.state_dict():
            settings["tie_word_embeddings"] = True  # a body without a head
        return _filled(cls(TransformerConfig.from_huggingface(settings, "gpt2")), model, "gpt2")


class Encoder(Stack):
    """An encoder: each position reads the whole text, to the left and to the right.

    Args:
        config: see `TransformerConfig`.

    Source: Devlin et al. 2019, arXiv:1810.04805.

    >>> model = Encoder(TransformerConfig(vocab=11, d_model=8, heads=2))
    >>> real = torch.tensor([[True, True, False]])  # the third token is padding
    >>> model(torch.tensor([[3, 1, 0]]), real).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, config: TransformerConfig):
        super().__init__(config, causal=False)

    def forward(
        self,
        idx: Int[Tensor, "batch seq"],
        mask: Bool[Tensor, "batch seq"] | None = None,
        segments: Int[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """One vector per token that knows its whole text.

        Args:
            idx: tokens.
            mask: True at real tokens, False at padding, which nobody looks at.
            segments: as in `Stack.run`.
        """
        return self.run(idx, mask=mask, segments=segments)

    @classmethod
    def from_transformers(cls, model: Any) -> "Encoder":
        """The same function as a Hugging Face BERT, with a copy of its weights; a head or a pooler is left behind.

        Args:
            model: a `BertModel` or a model with a head on it (`BertForMaskedLM` and others).

        Raises:
            ValueError: the model is no BERT, or has a setting that this class has no counterpart for.
        """
        return _filled(cls(TransformerConfig.from_huggingface(_settings(model), "bert")), model, "bert")


class EncoderDecoder(nn.Module):
    r"""Reads one text, writes another: $P(y_i \mid y_{<i}, x)$, an encoder and a decoder with one embedding table.

    Args:
        config: of both.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.1; the shared table, section 3.4.

    >>> model = EncoderDecoder(TransformerConfig(vocab=11, d_model=8, heads=2))
    >>> model(torch.tensor([[3, 1, 4]]), torch.tensor([[1, 5]])).shape
    torch.Size([1, 2, 11])
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), GPT(config, cross=True)
        self.decoder.embedding = self.encoder.embedding
        if config.tied:
            self.decoder.head.weight = self.encoder.embedding.weight

    @property
    def head(self) -> nn.Linear:
        """The output layer."""
        return self.decoder.head

    def forward(
        self,
        source: Int[Tensor, "batch keys"],
        target: Int[Tensor, "batch seq"],
        mask: Bool[Tensor, "batch keys"] | None = None,
    ) -> Float[Tensor, "batch seq vocab"]:
        """Scores for the token after each one of `target`.

        Args:
            source: the text to read.
            target: the text so far. Padding at its end needs no mask: nothing before it looks there.
            mask: True at real tokens of `source`.
        """
        return self.decode(target, self.encoder(source, mask), mask)

    def decode(
        self,
        target: Int[Tensor, "batch seq"],
        memory: Float[Tensor, "batch keys d_model"],
        mask: Bool[Tensor, "batch keys"] | None = None,
        cache: Sequence[Cache] | None = None,
    ) -> Float[Tensor, "batch seq vocab"]:
        """The second half, for a source that is already read: write token by token with `decoder.new_cache()`.

        Args:
            target: the text so far; with a cache, only what is new.
            memory: `encoder(source, mask)`.
            mask: True at real tokens of the source.
            cache: appended to.
        """
        return self.decoder(target, cache, memory=memory, memory_mask=mask)


# ------------------------------------------------------------------------------------------- weights from elsewhere


def _refuse(theirs: Mapping[str, Any], kind: str, **wanted: Any) -> None:
    if theirs.get("model_type") != kind:
        raise ValueError(f"expected a {kind} model, got {theirs.get('model_type')!r}")
    for name, value in wanted.items():
        if theirs.get(name, value) != value:
            raise ValueError(f"a {kind} model with {name}={theirs[name]} has no counterpart; it needs {value}")


def _settings(model: Any) -> dict[str, Any]:
    config = getattr(model, "config", None)
    return {"model_type": type(model).__name__} if config is None else config.to_dict()


def _filled(ours: Any, theirs: nn.Module, kind: str) -> Any:
    """Their weights, device, precision and mode in our model."""
    weight = next(theirs.parameters())
    state = from_huggingface(theirs.state_dict(), kind)
    state = {name: t for name, t in state.items() if name in ours.state_dict()}  # a head that ours has no use for
    if isinstance(ours, GPT):
        state.setdefault("head.weight", state["embedding.weight"])
    ours.to(weight.device, weight.dtype).load_state_dict(state)
    return ours.train(theirs.training)


# ------------------------------------------------------------------------------------------------- batches and loss


class Windows:
    """Random pieces of a text: in each pass the text is cut anew, at random places, and the pieces are shuffled.

    Unlike `Streams`, rows do not continue each other: a Transformer carries no state. In a pass no token is a target
    twice. Batch number n is a pure function of n and the seed.

    Args:
        ids: the whole text as numbers.
        batch: rows.
        seq: tokens per row.
        seed: of cuts and order.

    Raises:
        ValueError: the text is shorter than one piece and its last target, or a size is below 1.

    >>> inputs, targets = Windows(torch.arange(100), batch=2, seq=3)(0)
    >>> torch.equal(targets, inputs + 1), inputs.shape
    (True, torch.Size([2, 3]))
    """

    def __init__(self, ids: Int[Tensor, " tokens"], batch: int, seq: int, seed: int = 0):
        if min(batch, seq) < 1 or len(ids) < seq + 1:
            raise ValueError(
                f"{len(ids)} tokens hold no piece of seq={seq} tokens and a target after it for batch={batch} rows; "
                "use a longer text or a shorter piece"
            )
        self.ids, self.batch, self.seq, self.seed = ids, batch, seq, seed
        self.pieces = max(1, (len(ids) - seq) // seq)
        self._last: tuple[int, Tensor] = (-1, ids.new_empty(0))

    def __call__(self, n: int) -> Batch:
        """Batch number n: inputs [batch seq] and, one place on, targets [batch seq]."""
        first, stop = n * self.batch, (n + 1) * self.batch
        starts = [
            self._starts(k)[max(0, first - k * self.pieces) : stop - k * self.pieces]
            for k in range(first // self.pieces, (stop - 1) // self.pieces + 1)
        ]
        rows = self.ids.unfold(0, self.seq + 1, 1)[torch.cat(starts)]
        return rows[:, :-1], rows[:, 1:]

    def _starts(self, k: int) -> Tensor:
        """Where the pieces of pass number k begin."""
        if self._last[0] != k:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + k)
            shift = torch.randint(len(self.ids) - self.pieces * self.seq, (1,), generator=generator)
            order = torch.randperm(self.pieces, generator=generator) * self.seq + shift
            self._last = (k, order.to(self.ids.device))
        return self._last[1]


def windows(ids: Int[Tensor, " tokens"], batch: int, seq: int, overlap: int = 0) -> list[Batch]:
    """A whole text for `evaluate`: every token but the first is a target exactly once.

    Args:
        ids: the text as numbers.
        batch: rows of the largest batch.
        seq: tokens per row.
        overlap: how many of them are read again from the row before, only as context: their targets are -100. More of
            it makes every prediction see further back, and the evaluation slower.

    Raises:
        ValueError: there is nothing to predict, or rows of these sizes never get to the end.

    >>> for inputs, targets in windows(torch.arange(6), batch=2, seq=3, overlap=1):
    ...     print(inputs.tolist(), targets.tolist())
    [[0, 1, 2], [2, 3, 4]] [[1, 2, 3], [-100, 4, 5]]
    """
    if min(batch, seq) < 1 or not 0 <= overlap < seq or len(ids) < 2:
        raise ValueError(
            f"{len(ids)} tokens in rows of {seq} with overlap {overlap}, {batch} at a time: give at least 2 tokens, "
            "1 row, and an overlap below the length of a row"
        )
    stride = seq - overlap
    rows = 1 + max(0, math.ceil((len(ids) - 1 - seq) / stride))
    length = (rows - 1) * stride + seq
    padded = torch.cat([ids, ids.new_zeros(length + 1 - len(ids))])
    inputs, targets = padded[:-1].unfold(0, seq, stride), padded[1:].unfold(0, seq, stride).clone()
    targets[1:, :overlap] = IGNORED
    targets[-1, len(ids) - 1 - (rows - 1) * stride :] = IGNORED
    return list(zip(inputs.split(batch), targets.split(batch), strict=True))


def decoder_loss(model: nn.Module, batch: Batch, state: State) -> tuple[Tensor, int, State]:
    r"""The loss $-\sum_i \log P(w_i \mid w_{<i})$ of a model without state, for `train` and `evaluate`.

    Args:
        model: `model(inputs) -> logits`.
        batch: inputs and targets [batch seq], with -100 where there is none.
        state: not used.

    Returns:
        Summed nats, the number of targets, and None.

    >>> nats, count, _ = decoder_loss(GPT(TransformerConfig(vocab=4)), Windows(torch.arange(4), 1, 3)(0), None)
    >>> round(nats.item() / count, 4)  # an untrained model: log 4
    1.3863
    """
    inputs, targets = batch
    return cross_entropy(model(inputs), targets, reduction="sum"), int((targets != IGNORED).sum()), None


# ------------------------------------------------------------------------------------------------ what it all costs


def count_parameters(config: TransformerConfig, kind: str = "decoder") -> int:
    r"""How many weights a model has, without making it: mostly $12\, L d^2$ (four projections, and two of width 4d).

    Args:
        config: see `TransformerConfig`.
        kind: "decoder" (`GPT`), "encoder" (`Encoder`) or "encoder-decoder" (`EncoderDecoder`).

    Returns:
        The exact number; a table that is used twice counts once.

    Raises:
        ValueError: another kind.

    >>> count_parameters(TransformerConfig.gpt2())  # "GPT-2 124M"
    124439808
    """
    if kind not in ("decoder", "encoder", "encoder-decoder"):
        raise ValueError(f"kind={kind!r} must be 'decoder', 'encoder' or 'encoder-decoder'")
    d, kv, h, b = config.d_model, config.d_kv, config.d_inside, int(config.bias)
    norm = {"rms": d, "layer": d * (1 + b), "none": 0}[config.norm]
    attention = 2 * d * d + 2 * d * kv + b * (2 * d + 2 * kv)
    mlp = 2 * d * h + b * (h + d)
    block = attention + mlp + 2 * norm
    stack = config.layers * block + norm * (config.embed_norm + config.norm_first)
    stack += d * ((config.context if config.positions == "learned" else 0) + config.segments)
    table = config.vocab * d
    head = 0 if config.tied else table
    if kind == "encoder-decoder":
        return table + head + 2 * stack + config.layers * (attention + norm)
    return table + stack + (head if kind == "decoder" else 0)


def flops_per_token(config: TransformerConfig, seq: int, kind: str = "decoder", training: bool = False) -> int:
    r"""Floating-point operations of all matrix products per token: $2N$ for N weights in matrices, and the attention.

    A product with an m × n matrix takes mn multiplications and mn additions. Scores and mixing add $4\, T d$ per block
    (all pairs; a kernel that skips the future does half of it). The way back costs twice the way there, one product
    for the gradient of the input and one for that of the weights: $6N + 12\, L T d$ in training.

    Args:
        config: see `TransformerConfig`.
        seq: T, tokens per text.
        kind: "decoder" (with its output layer) or "encoder" (without one).
        training: forward and backward.

    Raises:
        ValueError: another kind.

    Source: Kaplan et al. 2020, arXiv:2001.08361, section 2.1; Chowdhery et al. 2022, arXiv:2204.02311, appendix B.

    >>> flops_per_token(TransformerConfig.gpt2(), seq=1024, training=True) / 1e9  # GFLOP per token
    0.8544384
    """
    if kind not in ("decoder", "encoder"):
        raise ValueError(f"kind={kind!r} must be 'decoder' or 'encoder'")
    d = config.d_model
    matrices = config.layers * (2 * d * d + 2 * d * config.d_kv + 2 * d * config.d_inside)
    matrices += d * config.vocab if kind == "decoder" else 0
    forward = 2 * matrices + 4 * config.layers * seq * d
    return 3 * forward if training else forward


def training_memory(config: TransformerConfig, batch: int, seq: int, optimizer: str = "adamw") -> dict[str, int]:
    """Bytes that a `GPT` needs for one training step in float32, by what they are for.

    Args:
        config: without dropout and with as many heads of keys as of queries, else the count of activations is rough.
        batch: texts.
        seq: tokens per text.
        optimizer: "adamw" keeps two averages of each weight, "muon" one of each hidden matrix.

    Returns:
        "weights", "gradients", "optimizer" and "activations": what is kept from the forward pass for the backward one.
        Each block keeps, per token, what its norms, projections and products read: about 18 d_model numbers.

    Raises:
        ValueError: another optimizer.

    Source: the kind of account in Korthikanti et al. 2022, arXiv:2205.05198, section 4.

    >>> memory = training_memory(TransformerConfig.gpt2(dropout=0.0), batch=8, seq=1024)
    >>> {name: f"{value / 2**30:.1f} GiB" for name, value in memory.items()}
    {'weights': '0.5 GiB', 'gradients': '0.5 GiB', 'optimizer': '0.9 GiB', 'activations': '6.1 GiB'}
    """
    if optimizer not in ("adamw", "muon"):
        raise ValueError(f"optimizer={optimizer!r} must be 'adamw' or 'muon'")
    d, kv, kv_heads = config.d_model, config.d_kv, config.kv_heads or config.heads
    weights = count_parameters(config)
    hidden = config.layers * (2 * d * d + 2 * d * kv + 2 * d * config.d_inside) if optimizer == "muon" else 0
    norm = {"rms": 2 * d + 1, "layer": d + 2, "none": 0}[config.norm]  # what it read, and by what it divided
    block = 2 * (norm + d)  # … and what the projections after it read
    block += d + 2 * kv + d + config.heads  # q, k, v, what was mixed, and the softmax's log-sum-exp
    if config.qk_norm:
        block += d + kv + config.heads + kv_heads  # before the norm, and by what it divided
    if config.qk_norm or config.positions == "rotary":
        block += d  # queries made head by head: what was mixed is copied, to stand token by token again
    block += 2 * config.d_inside  # before and after the activation
    ends = norm * (config.embed_norm + config.norm_first) + d + config.vocab
    per_token = config.layers * block + ends
    turns = 2 * seq * config.d_head // 2 * config.layers if config.positions == "rotary" else 0
    whole = batch * seq * (8 + 8 + 1 + 8 * bool(config.segments))  # ids, targets, which of them count, segments
    whole += 8 * seq * (config.positions == "learned")
    return {
        "weights": 4 * weights,
        "gradients": 4 * weights,
        "optimizer": 4 * (2 * weights - hidden),
        "activations": 4 * (batch * seq * per_token + turns) + whole,
    }
