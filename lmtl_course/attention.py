r"""Attention: every token looks at every other, and decides for itself how much of each to take.

The recurrent layers of chapter 5 hand the past on through one state of fixed size; here each token reads all the others
directly, $\mathrm{softmax}(QK^\top/\sqrt{d_k})\,V$. The equation stands here three times, each equal to the others:
written out (`attention`), in tiles with linear memory (`tiled_attention`), and as torch's fused kernel inside
`MultiHeadAttention`. Chapter 8 builds the Transformer from the last.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# ------------------------------------------------------------------------------------------------- the equation


def attention(
    q: Float[Tensor, "*heads queries d_head"],
    k: Float[Tensor, "*heads keys d_head"],
    v: Float[Tensor, "*heads keys d_value"],
    mask: Bool[Tensor, "..."] | None = None,
) -> tuple[Float[Tensor, "*heads queries d_value"], Float[Tensor, "*heads queries keys"]]:
    r"""A soft lookup, $\mathrm{softmax}(QK^\top/\sqrt{d_k})\,V$: a mean of values, weighted by how keys fit queries.

    Args:
        q: what each position looks for. The leading axes (batch, heads) are looked through independently.
        k: what each position offers to be found by.
        v: what each position hands over when found.
        mask: True where a query may look; any shape that broadcasts to (*heads, queries, keys).

    Returns:
        The outputs and the weights. A row of weights sums to 1, except where the mask forbids a query every key: then
        its weights and its output are 0, for a mean over nothing should add nothing (and not be nan).

    Raises:
        ValueError: queries and keys differ in width, or keys and values in number.

    Source: Vaswani et al. 2017, arXiv:1706.03762, equation 1.

    >>> q, k = torch.tensor([[0.0, 9.0]]), torch.tensor([[9.0, 0.0], [0.0, 9.0]])
    >>> output, weights = attention(q, k, torch.tensor([[1.0], [2.0]]))  # the query fits the second key
    >>> output
    tensor([[2.]])
    """
    _check(q, k, v)
    scores = q @ k.mT / k.shape[-1] ** 0.5
    if mask is None:
        weights = scores.softmax(-1)
    else:  # the smallest finite number, not -inf: a row of -inf has no softmax, and its nan would reach the gradient
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(~mask, 0.0)
    return weights @ v, weights


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(
            f"queries {tuple(q.shape)}, keys {tuple(k.shape)} and values {tuple(v.shape)} do not fit: queries and keys "
            "need one width (the last axis), keys and values one number (the axis before it)"
        )


# ---------------------------------------------------------------------------------------------------------- masks


def causal_mask(
    queries: int, keys: int | None = None, device: torch.device | str | None = None
) -> Bool[Tensor, "queries keys"]:
    """Each query may look at its own position and everything before it.

    Args:
        queries: how many; they stand at the *last* positions.
        keys: how many; more than queries where earlier keys come out of a cache. None means as many as queries.
        device: where the mask is made.

    Returns:
        True where query i may look at key j, that is for j ≤ i + keys - queries.

    Raises:
        ValueError: there are fewer keys than queries, so that a query has not even itself to look at.

    >>> causal_mask(2, 4).int()  # two new tokens after two that are in the cache
    tensor([[1, 1, 1, 0],
            [1, 1, 1, 1]], dtype=torch.int32)
    """
    keys = queries if keys is None else keys
    if keys < queries:
        raise ValueError(f"{queries} queries stand at the last of {keys} positions; give at least as many keys")
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def padding_mask(lengths: Int[Tensor, " batch"], keys: int) -> Bool[Tensor, "batch 1 1 keys"]:
    """No query may look at the padding after a text; for cross-attention, at the padding of the other text.

    Args:
        lengths: how many tokens of each text are real.
        keys: tokens per text with padding.

    Returns:
        True at real tokens. Combine with another mask by `&`.

    Raises:
        ValueError: a length is negative or above `keys`.

    >>> padding_mask(torch.tensor([3, 1]), keys=3)[:, 0, 0].int()
    tensor([[1, 1, 1],
            [1, 0, 0]], dtype=torch.int32)
    """
    mask = torch.arange(keys, device=lengths.device) < lengths[:, None]
    # elsewhere a look at the values would make the processor wait for the device
    if mask.device.type == "cpu" and lengths.numel() and not 0 <= lengths.min() <= lengths.max() <= keys:
        raise ValueError(f"lengths are {lengths.tolist()}, each must lie between 0 and {keys} keys")
    return mask[:, None, None]


# ------------------------------------------------------------------------------------------------------ positions


def sinusoidal(positions: Int[Tensor, " seq"], d_model: int, base: float = 10_000.0) -> Float[Tensor, "seq d_model"]:
    r"""A fixed vector for each position, $\sin(p\,\theta_i)$ beside $\cos(p\,\theta_i)$ with $\theta_i = b^{-2i/d}$.

    Args:
        positions: 0, 1, 2, …
        d_model: width of the token vectors that these are added to; even.
        base: b; the slowest pair turns once in about 2πb positions.

    Returns:
        One row per position, each of length $\sqrt{d/2}$.

    Raises:
        ValueError: an odd width cannot hold pairs.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.

    >>> sinusoidal(torch.arange(2), d_model=2)
    tensor([[0.0000, 1.0000],
            [0.8415, 0.5403]])
    """
    angles = _angles(positions, d_model, base, torch.float32)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


def rotary(
    x: Float[Tensor, "*heads seq d_head"], positions: Int[Tensor, "*#heads seq"], base: float = 10_000.0
) -> Float[Tensor, "*heads seq d_head"]:
    r"""Turn each pair of coordinates by an angle that grows with the position, so that $q^\top k$ sees only distances.

    Coordinates i and i + d/2 are one point in the plane, turned by $p\,\theta_i$ with $\theta_i = b^{-2i/d}$. Then
    $(R_m q)^\top (R_n k) = q^\top R_{n-m}\, k$: moving both tokens by the same amount changes nothing.

    Args:
        x: queries or keys.
        positions: one per token, or with leading axes that broadcast to those of x.
        base: b, as for `sinusoidal`.

    Returns:
        The turned vectors, of the same lengths as before.

    Raises:
        ValueError: an odd width cannot hold pairs.

    Source: Su et al. 2021, arXiv:2104.09864, section 3.2, with the pairing of Llama and GPT-NeoX.

    >>> rotary(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.arange(2))  # one radian per position
    tensor([[1.0000, 0.0000],
            [0.5403, 0.8415]])
    """
    angles = _angles(positions, x.shape[-1], base, torch.promote_types(x.dtype, torch.float32))
    return _turn(x, angles.cos().to(x.dtype), angles.sin().to(x.dtype))


def _angles(positions: Tensor, d: int, base: float, dtype: torch.dtype) -> Tensor:
    if d % 2:
        raise ValueError(f"{d} coordinates cannot be split into pairs; give an even width")
    pairs = torch.arange(d // 2, device=positions.device, dtype=dtype)
    return positions[..., None] * base ** (-2 * pairs / d)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


# ----------------------------------------------------------------------------------------------------- in tiles


def tiled_attention(
    q: Float[Tensor, "*heads queries d_head"],
    k: Float[Tensor, "*heads keys d_head"],
    v: Float[Tensor, "*heads keys d_value"],
    mask: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
    tile: int = 256,
) -> Float[Tensor, "*heads queries d_value"]:
    r"""The output of `attention` without ever holding more than tile × tile scores: linear memory in the length.

    A softmax can be summed in pieces when its running maximum m is carried along: once a larger one is met, what was
    summed so far is multiplied by $e^{m_\text{old} - m_\text{new}}$. The gradient needs no stored weights either: they
    come back from the scores and their log-sum-exp, one tile at a time.

    Args:
        q: queries.
        k: keys.
        v: values.
        mask: as for `attention`. One that broadcasts along the queries, as `padding_mask`'s does, stays small.
        causal: apply `causal_mask(queries, keys)` without making it; tiles in the future are skipped.
        tile: queries and keys per block.

    Returns:
        The outputs; 0 for a query that may look nowhere. First derivatives only.

    Raises:
        ValueError: the shapes do not fit, the tile is empty, or there are fewer keys than causal queries.

    Source: Milakov and Gimelshein 2018, arXiv:1805.02867 (the running maximum); Rabe and Staats 2021, arXiv:2112.05682
    (linear memory); Dao et al. 2022, arXiv:2205.14135 (tiles, and the backward pass).

    >>> q, k, v = torch.randn(3, 7, 4, dtype=torch.float64)
    >>> torch.allclose(tiled_attention(q, k, v, tile=2), attention(q, k, v)[0])
    True
    """
    _check(q, k, v)
    if tile < 1:
        raise ValueError(f"tile is {tile}, expected at least 1 query and key per block")
    if causal and k.shape[-2] < q.shape[-2]:
        raise ValueError(f"{q.shape[-2]} causal queries stand at the last of {k.shape[-2]} positions; give more keys")
    if mask is not None:
        mask = mask.expand(*mask.shape[:-2], q.shape[-2], k.shape[-2])  # a view: broadcast axes take no memory
    return _Tiled.apply(q, k, v, mask, causal, tile)


class _Tiled(torch.autograd.Function):
    @staticmethod
    def tiles(queries: int, keys: int, causal: bool, tile: int) -> list[tuple[slice, list[slice]]]:
        """Blocks of queries, each with the blocks of keys it may look at."""
        plan = []
        for start in range(0, queries, tile):
            stop = min(start + tile, queries)
            reach = stop + keys - queries if causal else keys
            plan.append((slice(start, stop), [slice(j, min(j + tile, reach)) for j in range(0, reach, tile)]))
        return plan

    @staticmethod
    def scores(
        q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, rows: slice, columns: slice, shift: int
    ) -> Tensor:
        """One tile of scaled scores in at least float32, -inf where a query may not look."""
        s = (q[..., rows, :] @ k[..., columns, :].mT).to(torch.promote_types(q.dtype, torch.float32))
        s = s / k.shape[-1] ** 0.5
        if mask is not None:
            s = s.masked_fill(~mask[..., rows, columns], -torch.inf)
        if causal and columns.stop > rows.start + shift + 1:  # the diagonal passes through this tile
            i = torch.arange(rows.start, rows.stop, device=q.device)[:, None] + shift
            s = s.masked_fill(torch.arange(columns.start, columns.stop, device=q.device) > i, -torch.inf)
        return s

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, tile: int) -> Tensor:
        queries, keys = q.shape[-2], k.shape[-2]
        wide = torch.promote_types(q.dtype, torch.float32)
        output = q.new_empty(*q.shape[:-1], v.shape[-1])
        lse = q.new_empty(q.shape[:-1], dtype=wide)  # log of the softmax's denominator, all that backward needs of it
        for rows, blocks in _Tiled.tiles(queries, keys, causal, tile):
            m = q.new_full(lse[..., rows].shape, torch.finfo(wide).min, dtype=wide)  # finite: -inf - -inf is nan
            total, mixed = torch.zeros_like(m), torch.zeros_like(m)[..., None]
            for columns in blocks:
                s = _Tiled.scores(q, k, mask, causal, rows, columns, keys - queries)
                higher = torch.maximum(m, s.amax(-1))
                p, shrink = (s - higher[..., None]).exp(), (m - higher).exp()
                total = total * shrink + p.sum(-1)
                mixed = mixed * shrink[..., None] + (p.to(v.dtype) @ v[..., columns, :]).to(wide)
                m = higher
            total = total.clamp(min=1.0)  # the maximum alone adds exp(0) = 1; less means that no key was allowed
            output[..., rows, :] = mixed / total[..., None]
            lse[..., rows] = m + total.log()
        ctx.save_for_backward(q, k, v, mask, output, lse)
        ctx.causal, ctx.tile = causal, tile
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_output: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, output, lse = ctx.saved_tensors
        queries, keys, scale = q.shape[-2], k.shape[-2], k.shape[-1] ** -0.5
        d_q, d_k, d_v = (torch.zeros_like(part, dtype=lse.dtype) for part in (q, k, v))
        mean = (d_output * output).sum(-1, keepdim=True, dtype=lse.dtype)  # Σ_j p_j dp_j, from the softmax's Jacobian
        for rows, blocks in _Tiled.tiles(queries, keys, ctx.causal, ctx.tile):
            d_o = d_output[..., rows, :]
            for columns in blocks:
                s = _Tiled.scores(q, k, mask, ctx.causal, rows, columns, keys - queries)
                p = (s - lse[..., rows, None]).exp()  # the weights again; 0 where the score is -inf
                d_v[..., columns, :] += p.to(v.dtype).mT @ d_o
                d_s = p * ((d_o @ v[..., columns, :].mT) - mean[..., rows, :]) * scale
                d_q[..., rows, :] += d_s.to(k.dtype) @ k[..., columns, :]
                d_k[..., columns, :] += d_s.to(q.dtype).mT @ q[..., rows, :]
        return d_q.to(q.dtype), d_k.to(k.dtype), d_v.to(v.dtype), None, None, None


# -------------------------------------------------------------------------------------------------------- layers


class KVCache:
    """Keys and values of the tokens that one layer has seen: it grows at the end, and it belongs to the caller.

    The buffer doubles when it is full, so that n tokens cost O(n) copies and not O(n²).

    Args:
        capacity: tokens to make room for at first. Knowing the final length saves the copies altogether.

    Raises:
        ValueError: the capacity is below 1.

    >>> cache = KVCache()
    >>> layer = MultiHeadAttention(d_model=8, heads=2, causal=True)
    >>> x = torch.randn(1, 5, 8)
    >>> with torch.no_grad():
    ...     parts = [layer(x[:, :3], cache=cache), layer(x[:, 3:], cache=cache)]
    ...     torch.allclose(torch.cat(parts, 1), layer(x), atol=1e-6), len(cache)
    (True, 5)
    """

    def __init__(self, capacity: int = 64):
        if capacity < 1:
            raise ValueError(f"capacity={capacity} tokens leave nothing to remember; give at least 1")
        self.capacity, self.length = capacity, 0
        self._buffer: Tensor | None = None  # batch 2·kv_heads capacity d_head: the keys' heads, then the values'

    def __len__(self) -> int:
        return self.length

    @property
    def parts(self) -> tuple[Float[Tensor, "batch kv_heads keys d_head"], ...]:
        """All keys and all values so far, as views of the buffer; empty before the first `append`."""
        return () if self._buffer is None else self._buffer.narrow(2, 0, self.length).chunk(2, 1)

    def append(
        self, k: Float[Tensor, "batch kv_heads seq d_head"], v: Float[Tensor, "batch kv_heads seq d_head"]
    ) -> tuple[Float[Tensor, "batch kv_heads keys d_head"], ...]:
        """Remember the keys and values of the tokens that come next.

        Args:
            k: their keys, already turned where positions are rotary.
            v: their values.

        Returns:
            The keys and values of all tokens, these included.

        Raises:
            ValueError: keys and values differ in shape, the batch or the heads differ from what is remembered, or
                gradients are wanted: an overwritten buffer has no history to walk back through.
        """
        if k.shape != v.shape:
            raise ValueError(
                f"keys of shape {tuple(k.shape)}, values of shape {tuple(v.shape)}; a cache keeps them in one tensor, "
                "so give both the same"
            )
        return self.append_both(torch.cat([k, v], 1))

    def append_both(
        self, kv: Float[Tensor, "batch both_heads seq d_head"]
    ) -> tuple[Float[Tensor, "batch kv_heads keys d_head"], ...]:
        """`append` for keys and values that already lie in one tensor.

        Args:
            kv: the heads of the keys, then as many of the values.

        Returns:
            As `append`.

        Raises:
            ValueError: an odd number of heads, or as `append`.
        """
        if torch.is_grad_enabled() and kv.requires_grad:
            raise ValueError("a cache keeps numbers, not their history; call the model under torch.no_grad()")
        (batch, both, seq, d_head), full = kv.shape, self._buffer
        if both % 2:
            raise ValueError(f"{both} heads cannot be keys and values in equal numbers; give an even number")
        if full is not None and (batch, both, d_head) != (*full.shape[:2], full.shape[3]):
            raise ValueError(
                f"keys of shape {(batch, both // 2, seq, d_head)} cannot follow {tuple(self.parts[0].shape)}: batch, "
                "heads and width must stay the same; start a new cache"
            )
        needed = self.length + seq
        if full is None or needed > full.shape[2]:
            self.capacity = max(needed, self.capacity * (1 if full is None else 2))
            with torch.inference_mode(False):  # else nobody could append outside of the mode in which it grew
                grown = kv.new_empty(batch, both, self.capacity, d_head)
            if full is not None:
                grown[:, :, : self.length] = full[:, :, : self.length]
            self._buffer = full = grown
        full.narrow(2, self.length, seq).copy_(kv)
        self.length = needed
        return self.parts

    def truncate(self, length: int) -> None:
        """Forget the tokens from position `length` on: a guess that was not accepted (chapter 10).

        Args:
            length: tokens to keep.

        Raises:
            ValueError: the cache holds fewer.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot keep {length} tokens of {self.length}; give a number between the two ends")
        self.length = length

    def select(self, rows: Int[Tensor, " batch"]) -> None:
        """Keep these rows of the batch, in this order and as often as named: the survivors of a beam (chapter 10).

        Args:
            rows: indices into the batch.
        """
        if self._buffer is not None:
            with torch.inference_mode(False):
                self._buffer = self._buffer[rows]


class MultiHeadAttention(nn.Module):
    r"""Several attentions side by side, $\mathrm{Concat}(\mathrm{head}_1 … \mathrm{head}_h)\,W^O$, as one product each.

    Args:
        d_model: width of the tokens.
        heads: how many; each sees d_model / heads coordinates.
        kv_heads: heads of keys and values, each shared by heads / kv_heads query heads (grouped-query attention: the
            cache shrinks by that factor). None means as many as `heads`; 1 is multi-query attention.
        causal: tokens look at themselves and the past only; knows about the cache.
        rotary: turn queries and keys by their positions (`rotary`).
        qk_norm: bring queries and keys to root mean square 1, so that no score exceeds $\sqrt{d_\text{head}}$.
        bias: whether the four projections have one.
        zero_init_output: start with output projection 0, so that the layer at first adds nothing to the stream.
        dropout: share of the weights set to zero in training.

    Raises:
        ValueError: the heads do not divide the width, or the heads of keys and values not the heads.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2; Ainslie et al. 2023, arXiv:2305.13245 (groups);
    Henry et al. 2020, arXiv:2010.04245 (normalised queries and keys, there with length 1 and a learned scale).

    >>> layer = MultiHeadAttention(d_model=8, heads=4, kv_heads=2)
    >>> layer(torch.randn(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    >>> layer.key.weight.shape  # two heads of width 2
    torch.Size([4, 8])
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        kv_heads: int | None = None,
        *,
        causal: bool = False,
        rotary: bool = False,
        qk_norm: bool = False,
        bias: bool = True,
        zero_init_output: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if min(d_model, heads, kv_heads) < 1 or d_model % heads or heads % kv_heads:
            raise ValueError(
                f"d_model={d_model}, heads={heads}, kv_heads={kv_heads}: each must be a divisor of the one before"
            )
        if rotary and d_model // heads % 2:
            raise ValueError(f"d_model={d_model} over {heads} heads is {d_model // heads} each; rotary needs it even")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout} is the share of weights set to zero: it must be in [0, 1)")
        self.heads, self.kv_heads, self.d_head = heads, kv_heads, d_model // heads
        self.causal, self.rotary, self.qk_norm, self.dropout = causal, rotary, qk_norm, dropout
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, kv_heads * self.d_head, bias)
        self.value = nn.Linear(d_model, kv_heads * self.d_head, bias)
        self.output = nn.Linear(d_model, d_model, bias)
        if zero_init_output:
            for parameter in self.output.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        memory: Float[Tensor, "batch keys d_model"] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
        cache: KVCache | None = None,
        positions: Int[Tensor, "*batch seq"] | None = None,
        need_weights: bool = False,
    ) -> Float[Tensor, "batch seq d_model"] | tuple[Float[Tensor, "batch seq d_model"], Float[Tensor, "..."]]:
        """Let each token of x look at the tokens of x, or at those of another text.

        Args:
            x: the tokens that look; with a cache, only the new ones.
            memory: the tokens looked at, where they are not x itself (cross-attention).
            mask: True where a token may look, of shape (queries, keys) or (batch, heads or 1, queries or 1, keys);
                with a cache, keys counts the remembered tokens too. A causal layer adds its own mask.
            cache: appended to. For cross-attention it keeps the keys and values of `memory`, computed once.
            positions: of the tokens of x, for rotary layers, of shape (seq) or (batch, seq). None counts on from the
                cache.
            need_weights: also return the weights (batch, heads, queries, keys), by the slower written-out path.

        Returns:
            What each token found, and the weights if they were asked for.

        Raises:
            ValueError: a mask of another shape, or memory for a layer that is causal or rotary: another text has
                neither a past nor a distance.
        """
        if memory is not None and (self.causal or self.rotary):
            raise ValueError(f"memory for a layer with causal={self.causal}, rotary={self.rotary}; it needs both False")
        q = self._split(self.query(x), self.heads)
        if memory is not None and cache is not None and len(cache):
            k, v = cache.parts
        else:
            source = x if memory is None else memory
            k, v = self._split(self.key(source), self.kv_heads), self._split(self.value(source), self.kv_heads)
            if self.qk_norm:
                k = nn.functional.rms_norm(k, (self.d_head,))
            if self.rotary:
                q, k = self._place(positions, 0 if cache is None else len(cache), q, k)
            if cache is not None:
                k, v = cache.append(k, v)
        if self.qk_norm:  # after turning, which leaves lengths alone
            q = nn.functional.rms_norm(q, (self.d_head,))
        mixed, weights = self._look(q, k, v, mask, need_weights)
        y = self.output(mixed.transpose(1, 2).flatten(2))  # batch heads seq d_head -> batch seq d_model
        return y if weights is None else (y, weights)

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, self.d_head)).transpose(1, 2)  # batch heads seq d_head

    def _place(self, positions: Tensor | None, seen: int, *parts: Tensor) -> list[Tensor]:
        x = parts[0]
        if positions is None:
            positions = torch.arange(seen, seen + x.shape[2], device=x.device)
        angles = _angles(positions, self.d_head, 10_000.0, torch.promote_types(x.dtype, torch.float32))
        if angles.ndim == 3:
            angles = angles[:, None]  # batch seq d -> batch heads seq d
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        return [_turn(part, cos, sin) for part in parts]

    def _look(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        queries, keys = q.shape[2], k.shape[2]
        full = (len(q), self.heads, queries, keys)
        if mask is not None and (
            mask.ndim not in (2, 4) or any(a not in (1, b) for a, b in zip(mask.shape[::-1], full[::-1], strict=False))
        ):
            raise ValueError(f"mask has shape {tuple(mask.shape)}, expected {full[2:]} or what broadcasts to {full}")
        # a lone new token may see everything; torch's is_causal counts from the first key, right only without a cache
        if self.causal and (need_weights or mask is not None or 1 < queries != keys):
            past = causal_mask(queries, keys, device=q.device)
            mask = past if mask is None else mask & past
        dropout = self.dropout if self.training else 0.0
        if need_weights:
            k, v = (part.repeat_interleave(self.heads // self.kv_heads, 1) for part in (k, v))
            mixed, weights = attention(q, k, v, mask)
            return (nn.functional.dropout(weights, dropout) @ v if dropout else mixed), weights
        blind = None if mask is None else ~mask.any(-1, keepdim=True)
        if mask is not None and blind is not None:  # kernels disagree about rows that see nothing: let those see
            mask = mask | blind  # everything, then take away what they saw
        causal = self.causal and mask is None and queries > 1
        if v.device.type == "cpu" and v.dtype == torch.bfloat16 and torch.is_grad_enabled() and keys <= 512:
            k, v = (part.repeat_interleave(self.heads // self.kv_heads, 1) for part in (k, v))
            mixed = _written_out(q, k, v, causal_mask(queries, keys) if causal else mask, dropout)
        else:
            mixed = nn.functional.scaled_dot_product_attention(
                q, k, v, mask, dropout, causal, enable_gqa=self.kv_heads != self.heads
            )
        return (mixed if blind is None else mixed.masked_fill(blind, 0.0)), None


def _written_out(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """The output of `attention`, where each query may look somewhere; the mask is added inside the first product.

    Torch's CPU kernel walks back slowly in bfloat16: for short texts this takes a third to two thirds of its time.
    """
    heads = q.shape[:2]
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))  # batch heads seq d_head -> batch·heads seq d_head
    bias = q.new_zeros(1, 1, 1)
    if mask is not None:
        bias = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, torch.finfo(q.dtype).min)
        bias = bias.expand(*heads, -1, -1).flatten(0, 1) if bias.ndim == 4 else bias
    weights = torch.baddbmm(bias, q, k.mT, alpha=q.shape[-1] ** -0.5).softmax(-1)
    return (nn.functional.dropout(weights, dropout) @ v).unflatten(0, heads)
