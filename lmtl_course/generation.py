r"""Generation: a model gives a distribution over the next token; here it becomes a text.

Chapter 8's `GPT` answers one question, $P(w_i \mid w_{<i})$. Which text to make of the answers is a second question
with many answers: the filters below bend one distribution, `generate` draws from it token by token, `beam_search` looks
for the most probable text, and `speculative` draws texts of the same distribution with fewer calls of a large model.
What was read is remembered in the layers' `KVCache`s, so a new token costs one position and not the whole text again.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lmtl_course.attention import KVCache, padding_mask
from lmtl_course.recurrent import multiplier
from lmtl_course.transformer import GPT, Block

Stop = int | Sequence[int] | Callable[[Tensor], Tensor]
"""Tokens that end a text, or a function from all new tokens [batch new] to True for the texts that end here."""
Generators = torch.Generator | Sequence[torch.Generator] | None
"""Where the luck comes from: one generator for a batch, or one per row, whose text then is the same in any batch."""

# ------------------------------------------------------------------------------------------------------- the filters


def with_temperature(logits: Float[Tensor, "*batch vocab"], temperature: float) -> Float[Tensor, "*batch vocab"]:
    r"""Sharpen or flatten: $P_\tau(w) \propto P(w)^{1/\tau}$, which divides the logits by τ.

    Args:
        logits: scores of the next token.
        temperature: τ. At 1 nothing changes, towards 0 only the best token is left, and 0 means just that.

    Raises:
        ValueError: τ is negative.

    Source: Ackley, Hinton and Sejnowski 1985, doi:10.1207/s15516709cog0901_7 (the Boltzmann distribution).

    >>> with_temperature(torch.tensor([1.0, 3.0]), 0.5)
    tensor([2., 6.])
    """
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}; give 0 (always the best token) or more")
    if temperature == 0:
        best = logits.argmax(-1, keepdim=True)
        return torch.full_like(logits, -math.inf).scatter(-1, best, 0.0)
    return logits / temperature


def top_k_filter(logits: Float[Tensor, "*batch vocab"], k: int) -> Float[Tensor, "*batch vocab"]:
    """Keep the k best tokens (and whatever ties with the last of them).

    Args:
        logits: scores of the next token.
        k: how many to keep; more than there are keeps all.

    Raises:
        ValueError: fewer than 1 would be left.

    Source: Fan, Lewis and Dauphin 2018, arXiv:1805.04833.

    >>> top_k_filter(torch.tensor([1.0, 3.0, 2.0]), 2)
    tensor([-inf, 3., 2.])
    """
    if k < 1:
        raise ValueError(f"top_k={k} leaves no token; give at least 1")
    return logits.masked_fill(logits < logits.topk(min(k, logits.shape[-1])).values[..., -1:], -math.inf)


def top_p_filter(logits: Float[Tensor, "*batch vocab"], p: float) -> Float[Tensor, "*batch vocab"]:
    """Keep the nucleus: the smallest set of best tokens that has probability p or more.

    Args:
        logits: scores of the next token.
        p: the probability to keep at least.

    Raises:
        ValueError: p is not in 0…1, without 0.

    Source: Holtzman et al. 2020, arXiv:1904.09751.

    >>> top_p_filter(torch.tensor([0.5, 0.3, 0.2]).log(), 0.7).softmax(-1)  # 0.5 is too little, 0.5 + 0.3 enough
    tensor([0.6250, 0.3750, 0.0000])
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p={p} must be above 0 and at most 1")
    best, order = logits.sort(-1, descending=True)
    probabilities = best.softmax(-1)
    better = probabilities.cumsum(-1) - probabilities  # what the better tokens have together
    return logits.masked_fill((better >= p).scatter(-1, order, better >= p), -math.inf)


def min_p_filter(logits: Float[Tensor, "*batch vocab"], p: float) -> Float[Tensor, "*batch vocab"]:
    r"""Keep the tokens that are at least p times as probable as the best: $\log P(w) \ge \log P_\max + \log p$.

    Args:
        logits: scores of the next token.
        p: the share of the best token's probability.

    Raises:
        ValueError: p is not in 0…1, without 0.

    Source: Nguyen et al. 2024, arXiv:2407.01082.

    >>> min_p_filter(torch.tensor([0.6, 0.3, 0.1]).log(), 0.4).softmax(-1)  # 0.3 is half of the best, 0.1 a sixth
    tensor([0.6667, 0.3333, 0.0000])
    """
    if not 0 < p <= 1:
        raise ValueError(f"min_p={p} must be above 0 and at most 1")
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(p), -math.inf)


def penalise(
    logits: Float[Tensor, "*batch vocab"], seen: Bool[Tensor, "*batch vocab"], penalty: float
) -> Float[Tensor, "*batch vocab"]:
    """Make tokens less likely that are in the text already: positive logits are divided, negative ones multiplied.

    Unlike the other filters this depends on where the logits' zero is, which the softmax does not care about.

    Args:
        logits: scores of the next token.
        seen: True for tokens of the text so far.
        penalty: 1 changes nothing; above 1 discourages, below 1 encourages.

    Raises:
        ValueError: the penalty is not positive.

    Source: Keskar et al. 2019, arXiv:1909.05858, section 4.1.

    >>> penalise(torch.tensor([2.0, -2.0, 2.0]), torch.tensor([True, True, False]), 2.0)
    tensor([ 1., -4.,  2.])
    """
    if penalty <= 0:
        raise ValueError(f"repetition_penalty={penalty} must be above 0; 1 changes nothing")
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def adjust(
    logits: Float[Tensor, "*batch vocab"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Float[Tensor, "*batch vocab"]:
    """All filters that look at one distribution alone, in this order: temperature, top k, top p, min p.

    Args:
        logits: scores of the next token.
        temperature: see `with_temperature`.
        top_k: see `top_k_filter`; None keeps all.
        top_p: see `top_p_filter`; None keeps all.
        min_p: see `min_p_filter`; None keeps all.

    Returns:
        Logits of the same shape, -inf where a token cannot come.

    >>> adjust(torch.tensor([1.0, 3.0, 2.0]), temperature=0.5, top_k=2)
    tensor([-inf, 6., 4.])
    """
    logits = with_temperature(logits, temperature)
    if top_k is not None:
        logits = top_k_filter(logits, top_k)
    if top_p is not None:
        logits = top_p_filter(logits, top_p)
    if min_p is not None:
        logits = min_p_filter(logits, min_p)
    return logits


def draw(probabilities: Float[Tensor, "batch vocab"], generator: Generators = None) -> Int[Tensor, " batch"]:
    r"""One token per row: the first whose cumulative probability exceeds a number u drawn evenly from 0…1.

    Args:
        probabilities: need not add up to one.
        generator: of u. It may live on the CPU whatever the device of the rows: the same seed draws the same text.

    Returns:
        Token w with probability $P(w)$, for u falls into an interval of that length.

    Raises:
        ValueError: there are several generators, but not one per row.

    >>> draw(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]))
    tensor([1, 2])
    """
    rows = len(probabilities)
    many = [generator] if generator is None or isinstance(generator, torch.Generator) else list(generator)
    if len(many) not in (1, rows):
        raise ValueError(f"{len(many)} generators for {rows} rows; give one for all, or one per row")
    u = torch.cat([
        torch.rand(rows // len(many), 1, dtype=torch.float64, generator=g, device="cpu" if g is None else g.device)
        for g in many
    ]).to(probabilities.device)  # fmt: skip
    edges = probabilities.double().cumsum(-1)
    return torch.searchsorted(edges, u * edges[:, -1:], right=True)[:, 0].clamp(max=probabilities.shape[1] - 1)


# ----------------------------------------------------------------------------------------------------- token by token


def ends_with(tokens: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """A stop condition for `generate`: the new tokens end with these, in this order.

    Args:
        tokens: the sequence to wait for, for instance an encoded blank line.

    Raises:
        ValueError: the sequence is empty.

    >>> ends_with([7, 8])(torch.tensor([[1, 7, 8], [7, 8, 1]]))
    tensor([ True, False])
    """
    if not len(tokens):
        raise ValueError("0 tokens to wait for; give at least one")

    def check(new: Tensor) -> Tensor:
        if new.shape[1] < len(tokens):
            return new.new_zeros(len(new), dtype=torch.bool)
        return (new[:, -len(tokens) :] == torch.tensor(tokens, device=new.device)).all(1)

    return check


def generate(
    model: GPT, idx: Int[Tensor, "batch seq"], max_new_tokens: int, **options: Any
) -> Int[Tensor, "batch longer"]:
    """Continue texts token by token.

    Args:
        model: any decoder.
        idx: the texts to continue; shorter ones padded at the end (see `lengths`).
        max_new_tokens: the most tokens to add.
        options: as in `stream`: temperature, top_k, top_p, min_p, repetition_penalty, lengths, stop, pad, generator,
            cache.

    Returns:
        `idx`, and beside it the new tokens. Where every text has stopped before, there are fewer than `max_new_tokens`.

    Raises:
        ValueError: see `stream`.

    >>> from lmtl_course.transformer import TransformerConfig
    >>> model = GPT(TransformerConfig(vocab=5))  # untrained: all tokens equally likely
    >>> generate(model, torch.tensor([[3, 1]]), 4, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([1, 6])
    """
    return torch.cat([idx, *(token[:, None] for token in stream(model, idx, max_new_tokens, **options))], 1)


def stream(
    model: GPT,
    idx: Int[Tensor, "batch seq"],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    lengths: Int[Tensor, " batch"] | None = None,
    stop: Stop = (),
    pad: int = 0,
    generator: Generators = None,
    cache: list[Any] | None = None,
    **inputs: Any,
) -> Iterator[Int[Tensor, " batch"]]:
    """The loop of `generate`, one column at a time: show a text while it is being written.

    The model runs under `torch.inference_mode`. Tokens and cache are ordinary tensors afterwards; what a hook keeps is
    not, and must be cloned before anything is trained on it.

    Args:
        model: any decoder.
        idx: the texts to continue.
        max_new_tokens: the most tokens to add.
        temperature: see `with_temperature`; 0 is greedy, and the filters after it have nothing left to do.
        top_k: see `top_k_filter`.
        top_p: see `top_p_filter`.
        min_p: see `min_p_filter`.
        repetition_penalty: see `penalise`; applied first, for tokens of the prompt too.
        lengths: how many tokens of each prompt are real; what follows them in a row is padding, and nobody looks there.
        stop: see `Stop`. The ending itself is still part of the text.
        pad: what follows a text that has stopped while others go on; any number, for the model never reads it.
        generator: see `Generators`.
        cache: from `model.new_cache()`, with what was read before `idx`. Afterwards it has all but the last token, so
            that a conversation can go on (with `lengths` also the padding: then it cannot).
        inputs: handed to `model.hidden` each time, such as the memory of a decoder with cross-attention.

    Yields:
        The next token of every text.

    Raises:
        ValueError: there is nothing to continue, a length is no length, or the texts would outgrow learned positions.

    >>> from lmtl_course.transformer import TransformerConfig
    >>> model = GPT(TransformerConfig(vocab=5))
    >>> [token.tolist() for token in stream(model, torch.tensor([[3], [1]]), 2, temperature=0.0)]
    [[0, 0], [0, 0]]
    """
    batch, seq = idx.shape
    if min(batch, seq) < 1 or max_new_tokens < 1:
        raise ValueError(f"{batch} texts of {seq} tokens, {max_new_tokens} to add: give at least 1 of each")
    if lengths is not None and not 1 <= int(lengths.min()) <= int(lengths.max()) <= seq:
        raise ValueError(f"lengths are {lengths.tolist()}, each must lie between 1 and the {seq} tokens of a row")
    cache = model.new_cache(seq + max_new_tokens) if cache is None else cache
    _check_context(model, len(_flat(cache)[0]) + seq + max_new_tokens - 1)
    _check_filters(temperature, top_k, top_p, min_p, repetition_penalty)
    seen = None
    if repetition_penalty != 1:
        real = idx if lengths is None else torch.where(padding_mask(lengths, seq)[:, 0, 0], idx, idx[:, :1])
        seen = torch.zeros(batch, model.head.out_features, dtype=torch.bool, device=idx.device).scatter_(1, real, True)

    def choose(logits: Tensor) -> Tensor:
        if seen is not None:
            logits = penalise(logits, seen, repetition_penalty)
        if temperature == 0:
            token = logits.argmax(-1)
        else:
            token = draw(adjust(logits.float(), temperature, top_k, top_p, min_p).softmax(-1), generator)
        if seen is not None:
            seen.scatter_(1, token[:, None], True)
        return token

    return _write(
        model, idx, idx.new_full((batch, max_new_tokens), pad), choose, lengths, _stopper(stop), cache, inputs
    )


def _write(
    model: GPT,
    unread: Tensor,
    new: Tensor,
    choose: Callable[[Tensor], Tensor],
    lengths: Tensor | None,
    ended: Callable[[Tensor], Tensor] | None,
    cache: list[Any],
    inputs: dict[str, Any],
) -> Iterator[Tensor]:
    """Read, choose, hand over; `new` is filled column by column and says with what a finished text is filled."""
    (batch, seq), before = unread.shape, len(_flat(cache)[0])
    where: dict[str, Tensor] = {}
    done = torch.zeros(batch, dtype=torch.bool, device=new.device)
    if lengths is not None:  # there will be gaps between prompts and what follows: nobody may look there …
        visible = torch.ones(batch, before + seq + new.shape[1], dtype=torch.bool, device=new.device)
        visible[:, before : before + seq] = padding_mask(lengths, seq)[:, 0, 0]
    training = model.training
    few: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    model.eval()
    try:
        for n in range(new.shape[1]):
            if n == 1:  # the prompt is read; from now on one token of each text at a time
                few = FewRows(model, rows=batch, uses=new.shape[1])
            with torch.inference_mode(), few:
                hidden = model.hidden(unread, cache, **where, **inputs)
                if lengths is None or n > 0:
                    last = hidden[:, -1]
                else:  # from the last real token; padding comes after it, so the causal mask has hidden it
                    last = hidden[torch.arange(batch, device=new.device), lengths - 1]
                logits = model.head(last)
            with torch.no_grad():  # tokens are ordinary tensors again, fit to train on
                token = choose(logits)
            unread = token[:, None]
            if ended is not None:
                token = torch.where(done, new[:, n], token)
            new[:, n] = token
            yield token
            if ended is not None:
                done = done | ended(new[:, : n + 1])
                if done.all():
                    return
            if lengths is not None:  # … and positions go on as if they were not there
                where = {"mask": visible[:, : before + seq + n + 1], "positions": (lengths + before + n)[:, None]}
    finally:
        model.train(training)


class FewRows:
    """While this is entered, a model on a CPU computes a single new token per text with far fewer calls.

    One token per text means products of a matrix and very few vectors. Then most of the time goes into calling layers
    and fetching matrices. So each block becomes one function: queries, keys and values come from one product, and every
    matrix is laid out once as suits so few rows: packed for several and in bfloat16, in pieces for one. Equations are
    those of `Block`, and only the order of additions changes. Several new tokens go through the layers as they are.
    Hooks on what lies inside a block do not run meanwhile.

    Args:
        model: a decoder.
        rows: texts at once.
        uses: tokens to come; for few, copying does not pay and nothing is done.

    >>> from lmtl_course.transformer import TransformerConfig
    >>> model, idx = GPT(TransformerConfig(vocab=5)).eval(), torch.tensor([[3]])
    >>> with torch.no_grad(), FewRows(model, rows=1, uses=100):
    ...     inside = model(idx, model.new_cache())
    >>> torch.allclose(inside, model(idx))
    True
    """

    def __init__(self, model: nn.Module, rows: int, uses: int):
        self.fast: list[tuple[nn.Module, Callable[..., Tensor]]] = []
        weight = next(model.parameters())
        known = (torch.float32, torch.float64, torch.bfloat16)
        if weight.device.type != "cpu" or weight.dtype not in known or uses < 32:
            return
        blocks = [m for m in model.modules() if isinstance(m, Block) and not m.has_cross]
        inside = {id(part) for block in blocks for part in block.modules()}
        self.fast += [(block, _fast_block(block, rows, uses)) for block in blocks]
        for layer in model.modules():
            if isinstance(layer, nn.Linear) and id(layer) not in inside:
                self.fast.append((layer, _fast_linear(layer, rows, uses)))

    def __enter__(self) -> None:
        for layer, product in self.fast:
            layer.__dict__["forward"] = product  # stands before the method of the class

    def __exit__(self, *error: object) -> None:
        for layer, _ in self.fast:
            layer.__dict__.pop("forward", None)


def _product(layers: Sequence[nn.Linear], rows: int, uses: int, gelu: str | None = None) -> Callable[..., Tensor]:
    """Some linear layers of the same input as one, for x of shape (rows, d_in); the rest is as in `multiplier`.

    Matrix times vector is the one product that MKL hands to the cores badly: as a batch of about eight pieces of the
    matrix, which lie where they are, it takes far less time than the matrix in one, packed or not.
    """
    alone = len(layers) == 1  # then nothing is copied
    weight = layers[0].weight.detach() if alone else torch.cat([layer.weight.detach() for layer in layers])
    bias = None if layers[0].bias is None else torch.cat([layer.bias.detach() for layer in layers])
    pieces = min((n for n in range(2, 33) if len(weight) % n == 0), key=lambda n: abs(n - 8), default=1)
    if rows > 1 or pieces == 1 or weight.dtype == torch.bfloat16 or not torch.backends.mkl.is_available():
        return multiplier(weight, rows, bias, max(uses, 1024), gelu)
    stack = weight.view(pieces, -1, weight.shape[1])

    def product(x: Tensor, plus: Tensor | None = None) -> Tensor:
        # the same x for every piece; one row can have other strides than these, and with them MKL is many times slower
        columns = x.contiguous().as_strided((pieces, x.shape[1], len(x)), (0, 1, x.shape[1]))
        y = torch.bmm(stack, columns).view(len(weight), -1).T
        for term in (bias, plus):
            y = y if term is None else y.add_(term)
        return y if gelu is None else nn.functional.gelu(y, approximate=gelu)

    return product


def _fast_linear(layer: nn.Linear, rows: int, uses: int) -> Callable[[Tensor], Tensor]:
    product = _product([layer], rows, uses)
    return lambda x: product(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)


def _fast_norm(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """A layer norm without looking its weights up each time; others as they are."""
    if type(norm) is nn.LayerNorm:
        return partial(_layer_norm, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return norm


def _layer_norm(shape: tuple[int, ...], weight: Tensor, bias: Tensor | None, eps: float, x: Tensor) -> Tensor:
    return torch.layer_norm(x, shape, weight, bias, eps)


def _fast_block(block: Block, rows: int, uses: int) -> Callable[..., Tensor]:
    """`Block.forward` for one new token per text."""
    look, mlp, plain = block.attention, block.mlp, partial(Block.forward, block)
    project, output = (_product(some, rows, uses) for some in ([look.query, look.key, look.value], [look.output]))
    gelu = {"gelu": "none", "gelu_tanh": "tanh"}.get(mlp.activation)
    up, down = _product([mlp.up], rows, uses, gelu), _product([mlp.down], rows, uses)
    norm_attention, norm_mlp = _fast_norm(block.norm_attention), _fast_norm(block.norm_mlp)
    heads, kv_heads = look.heads, look.kv_heads

    def think(x: Tensor, plus: Tensor | None) -> Tensor:
        x = up(x)
        return down(torch.relu(x).square_() if gelu is None else x, plus)

    def forward(
        x: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        cache: Any = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        if x.shape[1] != 1 or cache is None or memory is not None or block.training:
            return plain(x, memory, mask, memory_mask, cache, positions)
        x = x[:, 0]  # batch d_model, until the end
        y = project(norm_attention(x) if block.norm_first else x)
        y = y.view(len(x), heads + 2 * kv_heads, 1, look.d_head)
        if look.qk_norm or look.rotary:
            qk, v = y.split_with_sizes([heads + kv_heads, kv_heads], 1)
            qk = nn.functional.rms_norm(qk, (look.d_head,)) if look.qk_norm else qk
            q, k = (look._place(positions, len(cache), qk)[0] if look.rotary else qk).split([heads, kv_heads], 1)
            k, v = cache.append(k, v)
        else:
            q, kv = y.split_with_sizes([heads, 2 * kv_heads], 1)  # batch heads 1 d_head
            k, v = cache.append_both(kv)
        if x.dtype == torch.bfloat16:  # for one query and many keys, copies and float32 are faster
            q, k, v = q.float(), k.float(), v.float()
        y = nn.functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=kv_heads != heads)
        y = output(y.reshape(len(x), -1).to(x.dtype), x if block.residual else None)
        x = y if block.norm_first else norm_attention(y)
        y = think(norm_mlp(x) if block.norm_first else x, x if block.residual else None)
        return (y if block.norm_first else norm_mlp(y))[:, None]

    return forward


def _flat(cache: Sequence[Any]) -> list[KVCache]:
    """The caches of all layers; a block with cross-attention has two, its own first."""
    return [part for layer in cache for part in (layer if isinstance(layer, tuple) else (layer,))]


def _check_context(model: GPT, tokens: int) -> None:
    if model.config.positions == "learned" and tokens > model.config.context:
        raise ValueError(
            f"{tokens} tokens will be read, but learned positions end at context={model.config.context}; ask for fewer"
        )


def _check_filters(
    temperature: float, top_k: int | None, top_p: float | None, min_p: float | None, penalty: float
) -> None:
    """Complain before the model is asked, also where greedy choice leaves a filter nothing to do."""
    nothing = torch.zeros(1)
    adjust(penalise(nothing, nothing > 0, penalty), temperature, top_k, top_p, min_p)


def _stopper(stop: Stop) -> Callable[[Tensor], Tensor] | None:
    if callable(stop):
        return stop
    ids = [stop] if isinstance(stop, int) else list(stop)
    return (lambda new: torch.isin(new[:, -1], torch.tensor(ids, device=new.device))) if ids else None


# -------------------------------------------------------------------------------------------------------- beam search


@dataclass(frozen=True)
class Hypothesis:
    """A text that `beam_search` found: its new tokens, their log probability in nats, and what it was ranked by.

    >>> Hypothesis(torch.tensor([3, 1]), log_probability=-2.0, score=-1.0).score
    -1.0
    """

    tokens: Int[Tensor, " new"]
    log_probability: float
    score: float


@torch.no_grad()
def beam_search(
    model: GPT,
    idx: Int[Tensor, "1 seq"],
    max_new_tokens: int,
    beams: int = 4,
    *,
    length_penalty: float = 1.0,
    stop: int | Sequence[int] = (),
    **inputs: Any,
) -> list[Hypothesis]:
    r"""Look for the most probable continuation, keeping the best few of each length on the way.

    Texts of different lengths are compared by $\frac{1}{|y|^\alpha}\sum_i \log P(y_i \mid y_{<i})$. The search ends
    when no text that is still growing can overtake the worst of the finished ones.

    Args:
        model: as for `generate`.
        idx: one text to continue.
        max_new_tokens: the longest continuation.
        beams: how many texts are kept.
        length_penalty: α. At 0 the sum decides, which favours short texts; at 1 the mean per token.
        stop: tokens that finish a text; without one all have `max_new_tokens`.
        inputs: as for `stream`, each of one row.

    Returns:
        Up to `beams` finished texts, the best first.

    Raises:
        ValueError: several texts, no beam, or what `stream` refuses.

    Source: Graves 2012, arXiv:1211.3711 (beams); Wu et al. 2016, arXiv:1609.08144, section 7 (lengths).

    >>> from lmtl_course.transformer import TransformerConfig
    >>> found = beam_search(GPT(TransformerConfig(vocab=5)), torch.tensor([[3, 1]]), 3, beams=2)
    >>> [round(text.score, 4) for text in found]  # all tokens equally likely: log 5 nats each
    [-1.6094, -1.6094]
    """
    if len(idx) != 1 or idx.shape[1] < 1 or beams < 1 or max_new_tokens < 1:
        raise ValueError(
            f"idx of shape {tuple(idx.shape)}, {beams} beams, {max_new_tokens} tokens to add: give one text of at "
            "least 1 token, 1 beam and 1 token to add"
        )
    _check_context(model, idx.shape[1] + max_new_tokens - 1)
    ends = torch.tensor([stop] if isinstance(stop, int) else list(stop), dtype=torch.long, device=idx.device)
    cache, training = model.new_cache(idx.shape[1] + max_new_tokens), model.training
    finished: list[Hypothesis] = []
    texts, sums = idx[:, :0], torch.zeros(1, dtype=torch.float64, device=idx.device)
    model.eval()
    try:
        hidden = model.hidden(idx, cache, **inputs)
        for n in range(1, max_new_tokens + 1):
            totals = sums[:, None] + model.head(hidden[:, -1]).double().log_softmax(-1)  # texts vocab
            # as many as can end here, and `beams` more that go on
            best, which = totals.flatten().topk(min((len(ends) + 1) * beams, totals.numel()))
            row, token = which // totals.shape[1], which % totals.shape[1]
            longer = torch.cat([texts[row], token[:, None]], 1)
            over = torch.isin(token, ends) if n < max_new_tokens else torch.ones_like(token, dtype=torch.bool)
            for k in over[:beams].nonzero()[:, 0].tolist():  # an ending that is not among the best `beams` has lost
                finished.append(Hypothesis(longer[k], best[k].item(), best[k].item() / n**length_penalty))
            finished = sorted(finished, key=lambda text: -text.score)[:beams]
            keep = (~over).nonzero()[:beams, 0]
            if not len(keep):
                break
            reach = max_new_tokens if length_penalty > 0 else n  # sums only fall: the best that can still come
            if len(finished) == beams and finished[-1].score >= best[keep[0]].item() / reach**length_penalty:
                break
            texts, sums = longer[keep], best[keep]
            for part in _flat(cache):
                part.select(row[keep])
            inputs = {name: t.expand(len(keep), *t.shape[1:]) for name, t in inputs.items()}
            hidden = model.hidden(texts[:, -1:], cache, **inputs)
    finally:
        model.train(training)
    return finished


# ------------------------------------------------------------------------------------------------ speculative decoding


@dataclass(frozen=True)
class Speculation:
    r"""What `speculative` wrote, and how often the large model was asked.

    Args:
        tokens: prompt and continuation, [1 longer].
        calls: of the target.
        tested: guesses that the target looked at up to the first it refused.
        accepted: how many of those it took.
        expected: how many it should have taken: the sum of $1 - \mathrm{TV}(p, q)$ over the tested guesses.

    >>> Speculation(torch.zeros(1, 9), calls=2, tested=8, accepted=6, expected=5.9).rate
    0.75
    """

    tokens: Tensor
    calls: int
    tested: int
    accepted: int
    expected: float

    @property
    def rate(self) -> float:
        """The share of tested guesses that were accepted."""
        return self.accepted / self.tested if self.tested else math.nan


def accept(
    p: Float[Tensor, "guesses vocab"],
    q: Float[Tensor, "guesses vocab"],
    guesses: Int[Tensor, " guesses"],
    generator: torch.Generator | None = None,
) -> tuple[int, Float[Tensor, " vocab"]]:
    r"""Take guesses from q so that what is taken is distributed as p: each with probability $\min(1, p(x)/q(x))$.

    Args:
        p: what the target thinks at each guess.
        q: what the guess was drawn from.
        guesses: the tokens, one after the other.
        generator: of the luck involved.

    Returns:
        How many are taken before the first that is refused, and the distribution to draw its replacement from,
        proportional to $\max(0, p - q)$ (zeros where all are taken).

    Source: Leviathan, Kalman and Matias 2023, arXiv:2211.17192, section 2.3; Chen et al. 2023, arXiv:2302.01318.

    >>> p, q = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    >>> accept(p, q, torch.tensor([0]))  # the target would never say 0, and always 1
    (0, tensor([0., 1.]))
    """
    at = guesses[:, None]
    u = torch.rand(len(p), dtype=torch.float64, generator=generator, device="cpu" if generator is None else None)
    taken = u.to(p.device) * q.gather(1, at)[:, 0] < p.gather(1, at)[:, 0]
    n = int(taken.cumprod(0).sum())
    if n == len(p):
        return n, torch.zeros_like(p[0])
    rest = (p[n] - q[n]).clamp(min=0)
    return n, rest if rest.sum() > 0 else p[n]  # p = q but for rounding: nothing to correct


@torch.no_grad()
def speculative(
    target: GPT,
    draft: GPT,
    idx: Int[Tensor, "1 seq"],
    max_new_tokens: int,
    *,
    lookahead: int = 4,
    generator: torch.Generator | None = None,
    **filters: Any,
) -> Speculation:
    """Texts of `generate(target, …)`, with the same probabilities, for fewer calls of the target.

    A small draft model guesses some tokens ahead; one call of the target judges all of them, and `accept` corrects the
    first bad one. A call of the target therefore yields at least one token and at most lookahead + 1.

    Args:
        target: the model whose texts are wanted.
        draft: a cheaper one with the same vocabulary; a bad one costs time and never quality.
        idx: one text to continue.
        max_new_tokens: tokens to add.
        lookahead: guesses per call.
        generator: of all draws.
        filters: as for `adjust`, applied to both models.

    Returns:
        The text and the counts.

    Raises:
        ValueError: several texts, different vocabularies, no lookahead, or what `stream` refuses.

    Source: Leviathan, Kalman and Matias 2023, arXiv:2211.17192.

    >>> from lmtl_course.transformer import TransformerConfig
    >>> model = GPT(TransformerConfig(vocab=5))
    >>> result = speculative(model, model, torch.tensor([[3, 1]]), 10, lookahead=4)  # its own best draft
    >>> result.tokens.shape, result.calls, result.rate
    (torch.Size([1, 12]), 2, 1.0)
    """
    if len(idx) != 1 or idx.shape[1] < 1 or lookahead < 1 or max_new_tokens < 1:
        raise ValueError(
            f"idx of shape {tuple(idx.shape)}, lookahead={lookahead}, {max_new_tokens} tokens to add: give one text of "
            "at least 1 token, 1 guess and 1 token to add"
        )
    if target.head.out_features != draft.head.out_features:
        raise ValueError(
            f"the target knows {target.head.out_features} tokens, the draft {draft.head.out_features}; they need one "
            "vocabulary"
        )
    for model in (target, draft):
        _check_context(model, idx.shape[1] + max_new_tokens - 1)
    goal = idx.shape[1] + max_new_tokens
    large, small = target.new_cache(goal), draft.new_cache(goal)
    modes = target.training, draft.training

    def distributions(model: GPT, cache: list[Any], text: Tensor, count: int) -> Tensor:
        """Of the tokens after each of the last `count`; only what the cache does not know is read."""
        hidden = model.hidden(text[:, len(_flat(cache)[0]) :], cache)
        return adjust(model.head(hidden[0, -count:]).double(), **filters).softmax(-1)  # count vocab

    text, calls, tested, accepted, expected = idx, 0, 0, 0, 0.0
    target.eval()
    draft.eval()
    try:
        while text.shape[1] < goal:
            guessed, parts = text, []
            for _ in range(min(lookahead, goal - text.shape[1] - 1)):
                parts.append(distributions(draft, small, guessed, 1))
                guessed = torch.cat([guessed, draw(parts[-1], generator)[:, None]], 1)
            p = distributions(target, large, guessed, len(parts) + 1)
            calls, n, next_from = calls + 1, 0, p[-1]
            if parts:
                q = torch.cat(parts)
                n, rest = accept(p[:-1], q, guessed[0, -len(parts) :], generator)
                judged = min(n + 1, len(parts))
                tested, accepted = tested + judged, accepted + n
                expected += torch.minimum(p[:judged], q[:judged]).sum().item()
                next_from = p[-1] if n == len(parts) else rest
            known = text.shape[1] + n
            text = torch.cat([guessed[:, :known], draw(next_from[None], generator)[:, None]], 1)
            for part in _flat(large) + _flat(small):
                part.truncate(min(len(part), known))  # forget the guesses that were refused
    finally:
        target.train(modes[0])
        draft.train(modes[1])
    return Speculation(text, calls, tested, accepted, expected)
