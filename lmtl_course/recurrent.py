"""Recurrent layers: a state that reads a text from left to right, and the gradient that walks back from right to left.

Chapter 4 gave the loss of a prediction; this chapter gives the thing that predicts. A layer is there as one `*_step`,
written like its equation and differentiated by autograd, and, for RNN and LSTM, as a scan with its gradient by hand.
Weights interchange with `torch.nn.RNN`, `torch.nn.LSTM` and `torch.nn.GRU`.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Layer = TypeVar("Layer", bound="Recurrent")


def rnn_step(
    x: Float[Tensor, "batch d_in"],
    h: Float[Tensor, "batch d_hidden"],
    w_xh: Float[Tensor, "d_hidden d_in"],
    w_hh: Float[Tensor, "d_hidden d_hidden"],
    b_h: Float[Tensor, " d_hidden"],
    f: Callable[[Tensor], Tensor] = torch.tanh,
) -> tuple[Float[Tensor, "batch d_hidden"]]:
    r"""One step of the simple recurrent network, $h_t = f(W_{hh} h_{t-1} + W_{xh} x_t + b_h)$.

    Args:
        x: the tokens' vectors at time t.
        h: the state after time t - 1.
        w_xh: what the state takes from the token.
        w_hh: what the state takes from itself.
        b_h: added to every state.
        f: the squashing function.

    Returns:
        The state after time t, alone in a tuple, because the state of an LSTM has two parts.

    Source: Elman 1990, doi:10.1207/s15516709cog1402_1.

    >>> one = torch.ones(1, 1)
    >>> rnn_step(2 * one, 3 * one, 10 * one, one, torch.tensor([100.0]), f=torch.relu)  # 10 · 2 + 1 · 3 + 100
    (tensor([[123.]]),)
    """
    return (f(h @ w_hh.T + x @ w_xh.T + b_h),)


def lstm_step(
    x: Float[Tensor, "batch d_in"],
    h: Float[Tensor, "batch d_hidden"],
    c: Float[Tensor, "batch d_hidden"],
    w_xh: Float[Tensor, "gates d_in"],
    w_hh: Float[Tensor, "gates d_hidden"],
    b_h: Float[Tensor, " gates"],
) -> tuple[Float[Tensor, "batch d_hidden"], Float[Tensor, "batch d_hidden"]]:
    r"""One step of long short-term memory, $c_t = f_t \odot c_{t-1} + i_t \odot g_t$ and $h_t = o_t \odot \tanh c_t$.

    The candidate is $g_t = \tanh(\cdot)$, the gates are $i_t, f_t, o_t = \sigma(\cdot)$, each of its own rows of
    $W_{hh} h_{t-1} + W_{xh} x_t + b_h$. The rows stand in the order g, i, f, o.

    Args:
        x: the tokens' vectors at time t.
        h: the output state after time t - 1.
        c: the memory after time t - 1.
        w_xh: four blocks of d_hidden rows, so `gates` is 4 · d_hidden.
        w_hh: the same blocks for the previous state.
        b_h: the same blocks of the bias.

    Returns:
        h and c after time t.

    Source: Hochreiter and Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735, with the forget gate of
    Gers et al. 2000, doi:10.1162/089976600300015015.

    >>> zero = torch.zeros(1, 1)  # every gate is half open and the candidate is 0: the memory is halved
    >>> h, c = lstm_step(zero, zero, zero + 6, torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4))
    >>> c, torch.equal(h, 0.5 * torch.tanh(c))
    (tensor([[3.]]), True)
    """
    a = h @ w_hh.T + x @ w_xh.T + b_h
    g, i, f, o = a.chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(
    x: Float[Tensor, "batch d_in"],
    h: Float[Tensor, "batch d_hidden"],
    w_xh: Float[Tensor, "gates d_in"],
    w_hh: Float[Tensor, "gates d_hidden"],
    b_h: Float[Tensor, " gates"],
    b_n: Float[Tensor, " d_hidden"],
) -> tuple[Float[Tensor, "batch d_hidden"]]:
    r"""One step of the gated recurrent unit, $h_t = (1 - z_t) \odot n_t + z_t \odot h_{t-1}$.

    The gates are $r_t, z_t = \sigma(W_{xh} x_t + W_{hh} h_{t-1} + b_h)$ and the candidate is
    $n_t = \tanh(W_{xn} x_t + b_{hn} + r_t \odot (W_{hn} h_{t-1} + b_n))$. The rows stand in the order r, z, n.

    Args:
        x: the tokens' vectors at time t.
        h: the state after time t - 1.
        w_xh: three blocks of d_hidden rows, so `gates` is 3 · d_hidden.
        w_hh: the same blocks for the previous state.
        b_h: the same blocks of the bias.
        b_n: the bias that the reset gate can switch off together with the past.

    Returns:
        The state after time t, alone in a tuple.

    Source: Cho et al. 2014, arXiv:1406.1078, with the reset gate after the product, as in `torch.nn.GRU`.

    >>> zero = torch.zeros(1, 1)  # the update gate is half open and the candidate is 0: the state is halved
    >>> gru_step(zero, zero + 6, torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3), torch.zeros(1))
    (tensor([[3.]]),)
    """
    x_r, x_z, x_n = (x @ w_xh.T + b_h).chunk(3, dim=-1)
    h_r, h_z, h_n = (h @ w_hh.T).chunk(3, dim=-1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = (x_n + r * (h_n + b_n)).tanh()
    return ((1 - z) * n + z * h,)


def unroll(
    step: Callable[..., tuple[Tensor, ...]],
    x: Float[Tensor, "seq batch d_in"],
    state: tuple[Float[Tensor, "batch d_hidden"], ...],
    weights: tuple[Tensor, ...],
) -> tuple[Float[Tensor, "seq batch d_hidden"], ...]:
    """Apply a step to every token in turn and leave the backward pass to autograd: slow, and plainly right.

    Args:
        step: `rnn_step`, `lstm_step`, `gru_step` or one with the same signature.
        x: token vectors, time first.
        state: the parts of the state before the first token.
        weights: what the step takes after the state.

    Returns:
        Each part of the state after every token.

    >>> add = lambda x, h: (h + x,)
    >>> unroll(add, torch.ones(3, 1, 1), (torch.zeros(1, 1),), ())[0].flatten()
    tensor([1., 2., 3.])
    """
    history = []
    for x_t in x:
        state = step(x_t, *state, *weights)
        history.append(state)
    return tuple(torch.stack(part) for part in zip(*history, strict=True))


class RNNScan(torch.autograd.Function):
    r"""Every step of `rnn_step` at once, with backpropagation through time derived by hand.

    With $a_t = W_{hh} h_{t-1} + W_{xh} x_t + b_h$ and $\delta_t = \partial L / \partial a_t$,
    $\delta_t = f'(a_t) \odot (\partial L / \partial h_t |_{\text{direct}} + W_{hh}^\top \delta_{t+1})$. The gradient of
    every weight is the sum over t of $\delta_t$ times what that weight was multiplied by: one product at the end.

    Source: Werbos 1990, doi:10.1109/5.58337.

    >>> one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    >>> RNNScan.apply(torch.ones(3, 1, 1), zero, one, one, torch.zeros(1), "relu").flatten()  # adds the tokens up
    tensor([1., 2., 3.])
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, h_0: Tensor, w_xh: Tensor, w_hh: Tensor, b_h: Tensor, f: str = "tanh") -> Tensor:
        """Equation 5.1 over all tokens, time first; f is "tanh" or "relu"."""
        h = torch.addmm(b_h, x.flatten(0, 1), w_xh.T).unflatten(0, x.shape[:2])  # all tokens in one product
        before = h_0
        for h_t in h:
            h_t.addmm_(before, w_hh.T)
            before = h_t.tanh_() if f == "tanh" else h_t.relu_()
        ctx.f = f
        ctx.save_for_backward(x, h_0, w_xh, w_hh, h)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_h: Tensor) -> tuple[Tensor | None, ...]:
        """Equations 5.3 to 5.5: from the gradient of every state to that of every input."""
        x, h_0, w_xh, w_hh, h = ctx.saved_tensors
        delta = 1 - h * h if ctx.f == "tanh" else (h > 0).to(h.dtype)  # f'(a), for all t; becomes delta in the loop
        later = torch.zeros_like(h_0)  # what comes back from t + 1
        for t in reversed(range(len(h))):
            delta[t] *= d_h[t] + later
            later = delta[t] @ w_hh
        rows, before = delta.flatten(0, 1), torch.cat([h_0[None], h[:-1]])
        d_x = (rows @ w_xh).view_as(x)
        return d_x, later, rows.T @ x.flatten(0, 1), rows.T @ before.flatten(0, 1), rows.sum(0), None


def multiplier(
    w: Tensor, rows: int, bias: Tensor | None = None, uses: int = 1, gelu: str | None = None
) -> Callable[..., Tensor]:
    """A function that computes `x @ w.T + bias` and adds a second argument to it, if given one.

    A loop that multiplies by the same matrix at every step need not pack that matrix anew for every product. For
    float32 and bfloat16 on x86 PyTorch can pack once, by operators meant for its compiler; where it cannot, or where
    too few products follow to pay for it, these are plain products.

    Args:
        w: the matrix, one row per output.
        rows: how many rows x will have, which decides how to pack.
        bias: one number per output.
        uses: how many products will follow.
        gelu: apply this function to the result, as `nn.functional.gelu` with approximate="none" or "tanh" does.

    >>> product = multiplier(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), rows=1)
    >>> product(torch.ones(1, 2)), product(torch.ones(1, 2), torch.tensor([[10.0, 20.0]]))
    (tensor([[2., 3.]]), tensor([[12., 23.]]))
    """

    def plain(x: Tensor, plus: Tensor | None = None) -> Tensor:
        start = bias if plus is None else plus if bias is None else plus + bias
        y = x @ w.T if start is None else torch.addmm(start, x, w.T)
        return y if gelu is None else nn.functional.gelu(y, approximate=gelu)

    if w.device.type != "cpu" or rows * uses < 1024 or not _packing_works(w.dtype):
        return plain
    packed, linear = torch.ops.mkldnn._reorder_linear_weight(w, rows), torch.ops.mkldnn._linear_pointwise

    def product(x: Tensor, plus: Tensor | None = None) -> Tensor:
        if plus is None:
            return linear(x, packed, bias, "none" if gelu is None else "gelu", [], gelu or "")
        y = linear.binary(x, plus, packed, bias, "add")
        return y if gelu is None else nn.functional.gelu(y, approximate=gelu)

    return product


@cache
def _packing_works(dtype: torch.dtype = torch.float32) -> bool:
    """Whether this PyTorch packs a matrix and multiplies by it: the operators have no public name, so try them."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    x, w, b = (torch.tensor(a, dtype=dtype) for a in ([[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]], [7.0, 8.0]))
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        return False
    try:
        packed, linear = torch.ops.mkldnn._reorder_linear_weight(w, 1), torch.ops.mkldnn._linear_pointwise
        found = linear(x, packed, b, "none", [], ""), linear.binary(x, x, packed, b, "add")
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    wanted = x @ w.T + b
    return torch.allclose(found[0], wanted) and torch.allclose(found[1], wanted + x)


class LSTMScan(torch.autograd.Function):
    r"""Every step of `lstm_step` at once, with backpropagation through time derived by hand and arranged for speed.

    With $\epsilon_t = \partial L / \partial c_t$ and $\eta_t = \partial L / \partial h_t$, the memory's gradient is
    $\epsilon_t = f_{t+1} \odot \epsilon_{t+1} + \eta_t \odot o_t \odot (1 - \tanh^2 c_t)$. What waits for no later step
    is computed for all steps before the loop, and what no step waits for, after it.

    Source: Greff et al. 2017, doi:10.1109/TNNLS.2016.2582924, without peepholes.

    >>> zero, wide = torch.zeros(1, 1), torch.zeros(4, 1)  # every gate is half open: the memory is halved twice
    >>> LSTMScan.apply(torch.zeros(2, 1, 1), zero, zero + 8, wide, wide, torch.zeros(4))[1].flatten()
    tensor([4., 2.])
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h_0: Tensor, c_0: Tensor, w_xh: Tensor, w_hh: Tensor, b_h: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both parts of the state after every token, time first."""
        seq, batch, d_hidden = *x.shape[:2], w_hh.shape[1]
        gates = multiplier(w_xh, seq * batch, b_h)(x.flatten(0, 1)).unflatten(0, (seq, batch))  # all tokens at once
        h, c = (torch.cat([start[None], start.new_empty(seq, batch, d_hidden)]) for start in (h_0, c_0))
        tanh_c, product = torch.empty_like(c[1:]), multiplier(w_hh, batch, uses=seq)
        h_t, c_t = h[0], c[0]
        steps = [part.unbind() for part in (gates, *gates.chunk(4, dim=-1), h[1:], c[1:], tanh_c)]
        for a, g, i, f, o, h_next, c_next, squashed in zip(*steps, strict=True):
            total = product(h_t, a)
            torch.tanh(total[:, :d_hidden], out=g)
            torch.sigmoid(total[:, d_hidden:], out=a[:, d_hidden:])
            c_t = torch.mul(f, c_t, out=c_next).addcmul_(i, g)
            h_t = torch.mul(o, torch.tanh(c_t, out=squashed), out=h_next)
        ctx.save_for_backward(x, w_xh, w_hh, gates, h, c, tanh_c)
        ctx.set_materialize_grads(False)  # the memory is rarely read outside: no gradient, no work
        return h[1:], c[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_h: Tensor | None, d_c: Tensor | None) -> tuple[Tensor, ...]:
        """Equations 5.12 and 5.13, then 5.5: from the gradient of every state to that of every input."""
        x, w_xh, w_hh, gates, h, c, tanh_c = ctx.saved_tensors
        g, i, f, o = gates.chunk(4, dim=-1)
        delta = torch.empty_like(gates)  # 5.13 but for its first factor, which the loop multiplies in
        tanh_slope, sigmoid_slope = torch.ops.aten.tanh_backward, torch.ops.aten.sigmoid_backward
        d_g, d_i, d_f, d_o = delta.chunk(4, dim=-1)
        tanh_slope.grad_input(i, g, grad_input=d_g)  # i (1 - g²)
        sigmoid_slope.grad_input(g, i, grad_input=d_i)  # g i (1 - i)
        sigmoid_slope.grad_input(c[:-1], f, grad_input=d_f)
        sigmoid_slope.grad_input(tanh_c, o, grad_input=d_o)
        direct = torch.zeros_like(tanh_c) if d_h is None else d_h.contiguous()
        eta, epsilon, product = direct[-1], torch.zeros_like(c[0]), multiplier(w_hh.T, c.shape[1], uses=len(delta))
        by_c, by_h = delta.unflatten(-1, (4, -1)).split([3, 1], dim=2)  # seq batch 3|1 d_hidden
        steps = [part.unbind() for part in (delta, by_c, by_h.squeeze(2), tanh_slope(o, tanh_c), f)]
        for t, (delta_t, by_c_t, by_h_t, h_to_c, f_t) in reversed(list(enumerate(zip(*steps, strict=True)))):
            if d_c is not None:
                epsilon += d_c[t]
            epsilon.addcmul_(eta, h_to_c)
            by_c_t.mul_(epsilon[:, None])
            by_h_t.mul_(eta)
            epsilon.mul_(f_t)
            eta = product(delta_t, direct[t - 1]) if t else product(delta_t)
        rows = delta.flatten(0, 1)
        d_x = multiplier(w_xh.T, len(rows))(rows).view_as(x)
        return d_x, eta, epsilon, rows.T @ x.flatten(0, 1), rows.T @ h[:-1].flatten(0, 1), rows.sum(0)


class Cell(nn.Module):
    """The weights of one layer in one direction, under the names they have in the equations.

    >>> [tuple(weight.shape) for weight in Cell(2, 5, blocks=4, reset_bias=False).parameters()]  # an LSTM's
    [(20, 2), (20, 5), (20,)]
    """

    def __init__(self, d_in: int, d_hidden: int, blocks: int, reset_bias: bool):
        super().__init__()
        bound = d_hidden**-0.5  # as in torch.nn
        self.w_xh = nn.Parameter(torch.empty(blocks * d_hidden, d_in).uniform_(-bound, bound))
        self.w_hh = nn.Parameter(torch.empty(blocks * d_hidden, d_hidden).uniform_(-bound, bound))
        self.b_h = nn.Parameter(torch.zeros(blocks * d_hidden))
        if reset_bias:
            self.b_n = nn.Parameter(torch.zeros(d_hidden))


class Recurrent(nn.Module):
    """What RNN, LSTM and GRU share: layers, directions, dropout, padded batches and the exchange with `torch.nn`.

    Args:
        d_in: width of a token's vector.
        d_hidden: width of the state.
        layers: how many stand on each other; each reads the outputs of the one below.
        bidirectional: whether a second set of weights reads each sentence from its end.
        dropout: share of a layer's outputs hidden from the next layer while training.

    Raises:
        ValueError: a size below 1, or a dropout outside [0, 1).
    """

    torch_class: ClassVar[Any]
    order: ClassVar[tuple[int, ...]]  # our k-th block of rows is block order[k] of torch's weights
    parts: ClassVar[int] = 1  # the state of an LSTM has two

    def __init__(self, d_in: int, d_hidden: int, layers: int = 1, bidirectional: bool = False, dropout: float = 0.0):
        super().__init__()
        if min(d_in, d_hidden, layers) < 1:
            raise ValueError(f"d_in={d_in}, d_hidden={d_hidden} and layers={layers} must all be at least 1")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout} is a share of the outputs: choose it in [0, 1)")
        self.d_in, self.d_hidden, self.layers = d_in, d_hidden, layers
        self.bidirectional, self.directions, self.dropout = bidirectional, 1 + bidirectional, dropout
        widths = [d_in] + [d_hidden * self.directions] * (layers - 1)
        self.cells = nn.ModuleList(
            Cell(width, d_hidden, len(self.order), isinstance(self, GRU))
            for width in widths
            for _ in range(self.directions)
        )

    def scan(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Each part of the state after every token; the inputs are tokens (time first), state and weights."""
        raise NotImplementedError

    def run(
        self, x: Tensor, state: tuple[Tensor, ...] | None, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All cells in turn; the state comes and goes as a tuple of its parts.

        Padding is not read: it is zeroed on the way in and out, the reverse direction starts at each sentence's last
        token, and the final state is the one after that token.
        """
        batch, seq, d_in = x.shape
        if d_in != self.d_in or seq < 1:
            raise ValueError(f"x has {seq} tokens of width {d_in}; this layer reads 1 or more of width {self.d_in}")
        shape = (len(self.cells), batch, self.d_hidden)
        state = (x.new_zeros(shape),) * self.parts if state is None else state
        if len(state) != self.parts:
            raise ValueError(f"the state has {len(state)} part(s), that of this {type(self).__name__} has {self.parts}")
        if wrong := [tuple(part.shape) for part in state if part.shape != shape]:
            raise ValueError(f"the state has shape {wrong[0]}, this batch needs {shape}")
        if lengths is not None and (lengths.shape != (batch,) or lengths.min() < 1 or lengths.max() > seq):
            raise ValueError(f"lengths are {lengths.tolist()}; give {batch} numbers between 1 and {seq}")

        length = torch.full((batch,), seq, device=x.device) if lengths is None else lengths.to(x.device)
        row, time = torch.arange(batch, device=x.device), torch.arange(seq, device=x.device)[:, None]
        padding = (time >= length)[..., None]  # seq batch 1
        mirror = torch.where(time < length, length - 1 - time, time)  # its own inverse; padding stays behind

        def hide(v: Tensor) -> Tensor:
            return v if lengths is None else v.masked_fill(padding, 0.0)

        def turn(v: Tensor) -> Tensor:
            return v.flip(0) if lengths is None else v[mirror, row]

        def last(v: Tensor) -> Tensor:
            return v[-1] if lengths is None else v[length - 1, row]

        y, final = hide(x.transpose(0, 1)), []
        for layer in range(self.layers):
            below = nn.functional.dropout(y, self.dropout, self.training) if layer else y
            outputs = []
            for direction in range(self.directions):
                k = layer * self.directions + direction
                inputs = [
                    turn(below) if direction else below,
                    *(part[k] for part in state),
                    *self.cells[k].parameters(),
                ]
                if torch.is_autocast_enabled(x.device.type):
                    inputs = [v.to(torch.get_autocast_dtype(x.device.type)) for v in inputs]
                history = self.scan(*inputs)
                final.append(tuple(last(part) for part in history))
                outputs.append(turn(history[0]) if direction else history[0])
            y = hide(torch.cat(outputs, dim=-1) if direction else outputs[0])
        return y.transpose(0, 1), tuple(torch.stack(part) for part in zip(*final, strict=True))

    def forward(
        self,
        x: Float[Tensor, "batch seq d_in"],
        state: Any = None,
        lengths: Int[Tensor, " _"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_out"], Any]:
        """Read a batch of sentences.

        Args:
            x: token vectors.
            state: h before the first token, shape (layers · directions, batch, d_hidden) in torch's order, for an LSTM
                the pair (h, c) of that shape; zeros where None.
            lengths: how many of the tokens of each sentence are real, padding on the right; all of them where None.

        Returns:
            The top layer's h at every token (d_out is d_hidden times the directions; zero at padding), and the state of
            every layer and direction after its last real token, in the shape of `state`.

        Raises:
            ValueError: tokens of another width, a state of another shape, a length outside 1 … seq.
        """
        output, final = self.run(x, (state,) if isinstance(state, Tensor) else state, lengths)
        return output, final if self.parts == 2 else final[0]

    def rows(self) -> Tensor:
        """For each of our rows of weights, where `torch.nn`, which orders the gates differently, has it."""
        return torch.cat([torch.arange(self.d_hidden) + block * self.d_hidden for block in self.order])

    def named_cells(self) -> Iterator[tuple[str, Cell]]:
        """Each cell after the ending that its weights' names have in `torch.nn`."""
        for k, cell in enumerate(self.cells):
            assert isinstance(cell, Cell)
            yield f"_l{k // self.directions}" + "_reverse" * (k % self.directions), cell

    @classmethod
    def from_torch(cls: type[Layer], module: nn.RNNBase) -> Layer:
        """A layer that computes what a `torch.nn` module computes; of its two biases, it keeps the sum.

        Args:
            module: an RNN, LSTM or GRU, whichever this class is.

        Raises:
            ValueError: a module of another kind, or an LSTM with a projection.

        >>> theirs = nn.GRU(2, 3, batch_first=True)
        >>> x = torch.ones(1, 4, 2)
        >>> torch.allclose(GRU.from_torch(theirs)(x)[0], theirs(x)[0], atol=1e-6)
        True
        """
        if not isinstance(module, cls.torch_class) or module.proj_size:
            raise ValueError(
                f"{cls.__name__} reads a torch.nn.{cls.torch_class.__name__} without projection, not {module}"
            )
        sizes = module.input_size, module.hidden_size, module.num_layers, module.bidirectional, module.dropout
        ours = cls(*sizes, **({"nonlinearity": module.nonlinearity} if isinstance(module, nn.RNN) else {}))
        weight = next(module.parameters())
        ours.to(weight.device, weight.dtype).train(module.training)
        rows, n = ours.rows(), slice(2 * ours.d_hidden, None)
        with torch.no_grad():
            for end, cell in ours.named_cells():
                cell.w_xh.copy_(getattr(module, "weight_ih" + end)[rows])
                cell.w_hh.copy_(getattr(module, "weight_hh" + end)[rows])
                cell.b_h.zero_()
                if module.bias:
                    b_x, b_h = (getattr(module, name + end).clone() for name in ("bias_ih", "bias_hh"))
                    if isinstance(ours, GRU):  # the reset gate switches this one off: it cannot be summed
                        cell.b_n.copy_(b_h[n])
                        b_h[n] = 0.0
                    cell.b_h.copy_((b_x + b_h)[rows])
        return ours

    def to_torch(self) -> nn.RNNBase:
        """The `torch.nn` module (batch first) that computes what this layer computes.

        >>> layer, x = LSTM(2, 3), torch.ones(1, 4, 2)
        >>> torch.allclose(layer.to_torch()(x)[0], layer(x)[0], atol=1e-6)
        True
        """
        weight = next(self.parameters())
        options: dict[str, Any] = {"nonlinearity": self.nonlinearity} if isinstance(self, RNN) else {}
        options |= {"dropout": self.dropout, "device": weight.device, "dtype": weight.dtype}
        if self.layers == 1:
            options["dropout"] = 0.0  # there is no layer for it to act on, and torch would warn
        module = self.torch_class(
            self.d_in, self.d_hidden, self.layers, batch_first=True, bidirectional=self.bidirectional, **options
        ).train(self.training)
        rows = self.rows()
        with torch.no_grad():
            for end, cell in self.named_cells():
                getattr(module, "weight_ih" + end)[rows] = cell.w_xh
                getattr(module, "weight_hh" + end)[rows] = cell.w_hh
                getattr(module, "bias_ih" + end)[rows] = cell.b_h
                getattr(module, "bias_hh" + end).zero_()
                if isinstance(self, GRU):
                    getattr(module, "bias_hh" + end)[2 * self.d_hidden :] = cell.b_n
        return module


class RNN(Recurrent):
    """The simple recurrent network over batches of sentences, `rnn_step` at every token.

    Beside the arguments of `Recurrent` it takes `nonlinearity`, "tanh" or "relu".

    >>> h, final = RNN(2, 5)(torch.ones(3, 7, 2))
    >>> h.shape, final.shape
    (torch.Size([3, 7, 5]), torch.Size([1, 3, 5]))
    """

    torch_class, order = nn.RNN, (0,)

    def __init__(
        self,
        d_in: int,
        d_hidden: int,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        nonlinearity: str = "tanh",
    ):
        super().__init__(d_in, d_hidden, layers, bidirectional, dropout)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity={nonlinearity!r} has no derivative here; choose 'tanh' or 'relu'")
        self.nonlinearity = nonlinearity

    def scan(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """`rnn_step` at every token."""
        return (RNNScan.apply(*inputs, self.nonlinearity),)


class LSTM(Recurrent):
    """Long short-term memory over batches of sentences, `lstm_step` at every token.

    Beside the arguments of `Recurrent` it takes `forget_bias`, where the forget gate's bias starts: 1 keeps about three
    quarters of the memory at each step.

    Source: Jozefowicz et al. 2015, proceedings.mlr.press/v37/jozefowicz15.html, for the forget gate's bias.

    >>> output, (h, c) = LSTM(2, 5, layers=2, bidirectional=True)(torch.ones(3, 7, 2))
    >>> output.shape, h.shape, c.shape
    (torch.Size([3, 7, 10]), torch.Size([4, 3, 5]), torch.Size([4, 3, 5]))
    """

    torch_class, order, parts = nn.LSTM, (2, 0, 1, 3), 2

    def __init__(
        self,
        d_in: int,
        d_hidden: int,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        forget_bias: float = 1.0,
    ):
        super().__init__(d_in, d_hidden, layers, bidirectional, dropout)
        with torch.no_grad():
            for _, cell in self.named_cells():
                cell.b_h[2 * d_hidden : 3 * d_hidden] = forget_bias

    def scan(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """`lstm_step` at every token."""
        return LSTMScan.apply(*inputs)


class GRU(Recurrent):
    """The gated recurrent unit over batches of sentences, `gru_step` at every token; its arguments are `Recurrent`'s.

    >>> h, final = GRU(2, 5)(torch.ones(3, 7, 2))
    >>> torch.equal(h[:, -1], final[0])
    True
    """

    torch_class, order = nn.GRU, (0, 1, 2)

    def scan(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """`gru_step` at every token."""
        x, h, *weights = inputs
        return unroll(gru_step, x, (h,), tuple(weights))


@torch.no_grad()
def clip_gradient(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    r"""Shorten a gradient that is longer than m = `max_norm`, $g \leftarrow g \cdot \min(1, m / \|g\|)$.

    Args:
        parameters: whose `.grad` to scale, in place; all of them together are one vector g.
        max_norm: the longest gradient that passes unchanged.

    Returns:
        The norm before clipping. Watch it: nan or inf means that clipping could not help.

    Raises:
        ValueError: a negative max_norm.

    Source: Pascanu et al. 2013, arXiv:1211.5063, section 3.2.

    >>> p = torch.zeros(2, requires_grad=True)
    >>> p.grad = torch.tensor([30.0, 40.0])
    >>> clip_gradient([p], 5.0), p.grad
    (tensor(50.), tensor([3.0000, 4.0000]))
    """
    if max_norm < 0:
        raise ValueError(f"max_norm={max_norm} is a length; choose 0 or more")
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.tensor(0.0)
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale)
    return norm
