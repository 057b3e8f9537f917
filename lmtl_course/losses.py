r"""What a model pays for the truth: cross-entropy, the two units it is quoted in, and a version that fits in memory.

Chapter 1 turned text into ids; here a model's scores for the next id become one number to make small,
$L = -\sum_i \log P(w_i \mid w_{<i}; \theta)$. The same function with labels in the place of words is the loss of
fine-tuning. Every later chapter that trains anything calls `cross_entropy`.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def cross_entropy(
    logits: Float[Tensor, "*axes vocab"],
    targets: Int[Tensor, "*axes"],
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Float[Tensor, ""] | Float[Tensor, "*axes"]:
    r"""The nats a model pays for each target, $-\log \mathrm{softmax}(z)_w = \mathrm{lse}(z) - z_w$.

    The vocabulary is the *last* axis, as models produce it (`torch.nn.functional.cross_entropy` wants it second).
    Half-precision logits are summed in float32, the result then stays float32.

    Args:
        logits: one score z per word of the vocabulary, before any softmax.
        targets: the id that really came, or `ignore_index` where nothing is to be predicted (padding, a prompt).
        ignore_index: the target that costs nothing and sends no gradient.
        reduction: "mean" over the targets that count, "sum", or "none" for one value per target.

    Returns:
        Nats: a scalar, or for "none" the shape of `targets` with zeros at ignored places.
        Where every target is ignored the sum is 0 and so is the mean (torch's is nan): a batch that asks nothing
        must not move a weight. When *measuring*, divide a sum by a count of targets, so that 0/0 cannot look perfect.

    Raises:
        ValueError: the shapes do not fit, a target is no id of the vocabulary (on a GPU that ends in CUDA's own
            assertion: looking at values beforehand would make the processor wait), or the reduction has another name.

    Source: Shannon 1948, doi:10.1002/j.1538-7305.1948.tb01338.x; the ignored targets as in `torch.nn.CrossEntropyLoss`.

    >>> scores = torch.tensor([[2.0, 2.0, 2.0, 2.0], [0.0, 9.0, 0.0, 0.0]])
    >>> cross_entropy(scores, torch.tensor([3, -100]))  # four equal scores: log 4 nats; the second row is ignored
    tensor(1.3863)
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} need targets of shape {tuple(logits.shape[:-1])}, "
            f"got {tuple(targets.shape)}; the vocabulary is the last axis"
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is {reduction!r}, expected 'mean', 'sum' or 'none'")
    counts = targets != ignore_index
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    ids = targets.where(counts, 0).long()  # any valid id: its loss is thrown away below
    try:
        losses = -logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1).where(counts, 0.0)
    except RuntimeError:
        _refuse_stray(ids, logits.shape[-1], ignore_index)
        raise
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / counts.sum().clamp(min=1)


def label_loss(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], reduction: str = "mean"
) -> Float[Tensor, ""] | Float[Tensor, " batch"]:
    r"""The loss of fine-tuning, $L' = -\sum_i \log P(y_i \mid x_i; \theta')$: `cross_entropy` with labels as words.

    Args:
        logits: one score per class for each text.
        labels: the class of each text.
        reduction: as for `cross_entropy`.

    Returns:
        Nats per text, or their sum, or one value per text.

    Raises:
        ValueError: as for `cross_entropy`.

    Source: Howard and Ruder 2018, arXiv:1801.06146, section 3.3.

    >>> label_loss(torch.zeros(5, 2), torch.tensor([0, 1, 1, 0, 1]))  # a coin, whatever the labels: log 2
    tensor(0.6931)
    """
    return cross_entropy(logits, labels, reduction=reduction)


def perplexity(nats_per_token: float) -> float:
    r"""How many equally likely words the model is hesitating between, $e^{L/N}$.

    Args:
        nats_per_token: mean cross-entropy.

    Returns:
        At least 1 (certain and right); the size of the vocabulary for a uniform guess; inf beyond the range of floats.

    Raises:
        ValueError: the mean is negative, which no probability can give.

    Source: Jelinek et al. 1977, doi:10.1121/1.2016299.

    >>> round(perplexity(math.log(65)))  # a blind guess among the 65 characters of tinyshakespeare
    65
    """
    if nats_per_token < 0:
        raise ValueError(f"{nats_per_token} nats per token are negative: a probability was above 1; check the softmax")
    return math.inf if nats_per_token > 709 else math.exp(nats_per_token)


def bits_per_byte(total_nats: float, n_bytes: int) -> float:
    r"""Cross-entropy of a text per byte of its UTF-8 encoding, $L / (B \ln 2)$: comparable across tokenisers.

    Args:
        total_nats: the *sum* of the losses over the whole text.
        n_bytes: `len(text.encode())`.

    Returns:
        Bits; 8 is what the plain file takes, a good compressor of English needs about 2.

    Raises:
        ValueError: there are no bytes to divide by.

    Source: Brown et al. 1992, "An Estimate of an Upper Bound for the Entropy of English" (J92-1002), per character.

    >>> bits_per_byte(10 * math.log(256), n_bytes=10)  # every byte equally likely
    8.0
    """
    if n_bytes < 1:
        raise ValueError(f"n_bytes is {n_bytes}, expected the number of bytes of the text, at least 1")
    return total_nats / (n_bytes * math.log(2))


def chunked_cross_entropy(
    hidden: Float[Tensor, "*axes d_model"],
    weight: Float[Tensor, "vocab d_model"],
    targets: Int[Tensor, "*axes"],
    bias: Float[Tensor, " vocab"] | None = None,
    chunk: int = 512,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Float[Tensor, ""]:
    r"""`cross_entropy(hidden @ weight.T + bias, targets)` without ever holding more than `chunk` rows of logits.

    The logits are the largest tensor of a language model, tokens x vocab, and the loss wants each of them only once.
    Their gradient is known the moment they are, $\partial L/\partial z = p - y$, so the forward pass turns each block
    into its share of the three gradients and drops it: nothing is computed twice, and `backward` only multiplies.

    Args:
        hidden: the last hidden state of each token.
        weight: one row per word of the vocabulary, as in `nn.Linear.weight`.
        targets: as for `cross_entropy`.
        bias: one score per word.
        chunk: tokens per block; memory for logits is about 2 x chunk x vocab numbers.
        ignore_index: as for `cross_entropy`.
        reduction: "mean" or "sum". "none" cannot be had: the weight's gradient is summed before the caller's weights on
            the tokens are known.

    Returns:
        A scalar in nats with gradients for `hidden`, `weight` and `bias`, once (no second derivative). Under autocast
        the products run in its type; logarithms, sums and the weight's gradient stay in float32.

    Raises:
        ValueError: the shapes do not fit, a target is no id of the vocabulary, chunk < 1, or another reduction.

    Source: Hsu et al. 2024, "Liger Kernel", arXiv:2410.10989, section 3.2 (fused linear cross-entropy).

    >>> h, W, w = torch.randn(7, 3), torch.randn(11, 3), torch.arange(7)
    >>> torch.allclose(chunked_cross_entropy(h, W, w, chunk=2), cross_entropy(h @ W.T, w))
    True
    """
    if hidden.shape[-1] != weight.shape[-1]:
        raise ValueError(f"hidden states are {hidden.shape[-1]} wide, the weight expects {weight.shape[-1]}")
    if hidden.shape[:-1] != targets.shape:
        raise ValueError(
            f"hidden {tuple(hidden.shape)} needs targets of shape {tuple(hidden.shape[:-1])}, "
            f"got {tuple(targets.shape)}"
        )
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1 token per block")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}, a chunked loss gives 'mean' or 'sum'; cross_entropy has 'none'")
    counts = (targets != ignore_index).flatten()
    device, product = hidden.device.type, hidden.dtype
    if torch.is_autocast_enabled(device) and product != torch.float64:  # autocast leaves double precision alone
        product = torch.get_autocast_dtype(device)
    if not torch.is_grad_enabled():  # measuring: inside the function every input would still look trainable
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    ids = targets.flatten().where(counts, 0).long()
    try:
        total = _Chunked.apply(hidden.flatten(0, -2), weight, bias, ids, counts, chunk, product)
    except RuntimeError:
        _refuse_stray(ids, len(weight), ignore_index)
        raise
    return total if reduction == "sum" else total / counts.sum().clamp(min=1)


class _Chunked(torch.autograd.Function):
    """The sum of the losses. Dividing for the mean comes after it, so float16 gradients are not made tiny too early."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        counts: Tensor,
        chunk: int,
        product: torch.dtype,
    ) -> Tensor:
        wide = torch.promote_types(weight.dtype, torch.float32)
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if for_hidden else None
        d_weight = torch.zeros_like(weight, dtype=wide) if for_weight else None
        d_bias = torch.zeros_like(bias, dtype=wide) if bias is not None and for_bias else None
        total = torch.zeros((), dtype=wide, device=hidden.device)
        W = weight.to(product)  # once, not per block
        for start in range(0, len(hidden), chunk):
            rows = slice(start, start + chunk)
            h, w, ignored = hidden[rows].to(product), ids[rows, None], ~counts[rows, None]
            z = (h @ W.T).to(wide)  # block vocab; one name for all that follows, so that each step frees the one before
            if bias is not None:
                z += bias
            z = z.log_softmax(-1)  # now log p
            total -= z.gather(-1, w).masked_fill_(ignored, 0.0).sum()
            if not any(ctx.needs_input_grad):
                continue
            z.exp_().scatter_add_(-1, w, z.new_full(w.shape, -1.0)).masked_fill_(ignored, 0.0)  # now p - y
            if d_bias is not None:
                d_bias += z.sum(0)
            z = z.to(product)
            if d_hidden is not None:
                d_hidden[rows] = z @ W
            if d_weight is not None:
                d_weight += z.T @ h
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        ctx.dtypes = (hidden.dtype, weight.dtype, wide if bias is None else bias.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # only under create_graph=True, where constants would pass for derivatives
            raise RuntimeError("chunked_cross_entropy keeps no logits for a second derivative; use cross_entropy")
        grads = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return *[None if g is None else (g * upstream).to(dtype) for g, dtype in grads], None, None, None, None


def _refuse_stray(ids: Tensor, vocab: int, ignore_index: int) -> None:
    """Say which target is no id. Called after the gather has failed: a look at every target beforehand costs time."""
    stray = ids[(ids < 0) | (ids >= vocab)]
    if stray.numel():
        raise ValueError(
            f"target {stray[0].item()} is outside 0…{vocab - 1}; where none is to be predicted use {ignore_index}"
        )
