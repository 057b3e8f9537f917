"""Recurrent layers: a state that reads a text from left to right, and the gradient that walks back from right to left.

Chapter 4 gave the loss of a prediction; this chapter gives the thing that predicts. Each layer is there twice: as one
`*_step`, written like its equation and differentiated by autograd, and as a scan whose backward pass is derived by hand.
Weights interchange with `torch.nn.RNN`, `torch.nn.LSTM` and `torch.nn.GRU`.
"""

from collections.abc import Callable, Iterable
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
    r"""All steps of `rnn_step` with tanh, and backpropagation through time derived by hand.

    With $a_t = W_{hh} h_{t-1} + W_{xh} x_t + b_h$ and $\delta_t = \partial L / \partial a_t$,
    $\delta_t = (1 - h_t^2) \odot (\partial L / \partial h_t |_{\text{direct}} + W_{hh}^\top \delta_{t+1})$, and every
    weight's gradient is a sum over t of $\delta_t$ times what the weight was multiplied by.

    Source: Werbos 1990, doi:10.1109/5.58337.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, h_0: Tensor, w_xh: Tensor, w_hh: Tensor, b_h: Tensor) -> Tensor:
        h = torch.addmm(b_h, x.flatten(0, 1), w_xh.T).unflatten(0, x.shape[:2])  # all tokens in one product
        w, before = w_hh.T.contiguous(), h_0
        for h_t in h:
            before = h_t.addmm_(before, w).tanh_()
        ctx.save_for_backward(x, h_0, w_xh, w_hh, h)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_h: Tensor) -> tuple[Tensor, ...]:
        x, h_0, w_xh, w_hh, h = ctx.saved_tensors
        delta = torch.addcmul(torch.ones_like(h), h, h, value=-1)  # tanh' = 1 - tanh²
        carried = torch.zeros_like(h_0)
        for t in reversed(range(len(h))):
            delta[t].mul_(carried.add_(d_h[t]))
            torch.mm(delta[t], w_hh, out=carried)
        before = torch.cat([h_0[None], h[:-1]])
        flat = delta.flatten(0, 1)
        d_x = (flat @ w_xh).view_as(x)
        return d_x, carried, flat.T @ x.flatten(0, 1), flat.T @ before.flatten(0, 1), flat.sum(0)


class LSTMScan(torch.autograd.Function):
    r"""All steps of `lstm_step`, and backpropagation through time derived by hand.

    Source: Greff et al. 2017, doi:10.1109/TNNLS.2016.2582924, without peepholes.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h_0: Tensor, c_0: Tensor, w_xh: Tensor, w_hh: Tensor, b_h: Tensor
    ) -> tuple[Tensor, Tensor]:
        seq, batch, d_hidden = *x.shape[:2], w_hh.shape[1]
        gates = torch.addmm(b_h, x.flatten(0, 1), w_xh.T).unflatten(0, (seq, batch))
        h, c = (torch.cat([part[None], part.new_empty(seq, batch, d_hidden)]) for part in (h_0, c_0))
        tanh_c = torch.empty_like(c[1:])
        w = w_hh.T
        for t in range(seq):
            a = gates[t].addmm_(h[t], w)
            a[:, :d_hidden].tanh_()
            a[:, d_hidden:].sigmoid_()
            g, i, f, o = a.chunk(4, dim=-1)
            torch.mul(f, c[t], out=c[t + 1]).addcmul_(i, g)
            torch.mul(o, torch.tanh(c[t + 1], out=tanh_c[t]), out=h[t + 1])
        ctx.save_for_backward(x, w_xh, w_hh, gates, h, c, tanh_c)
        ctx.set_materialize_grads(False)  # the memory is rarely used outside: no gradient, no work
        return h[1:], c[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_h: Tensor | None, d_c: Tensor | None) -> tuple[Tensor, ...]:
        x, w_xh, w_hh, gates, h, c, tanh_c = ctx.saved_tensors
        seq, batch, d_hidden = tanh_c.shape
        delta = torch.empty_like(gates)  # dL/da for every t; what each weight gets is one product at the end
        to_h, to_c = torch.zeros_like(h[0]), torch.zeros_like(c[0])
        for t in reversed(range(seq)):
            g, i, f, o = gates[t].chunk(4, dim=-1)
            if d_h is not None:
                to_h += d_h[t]
            if d_c is not None:
                to_c += d_c[t]
            to_c += to_h * o * (1 - tanh_c[t] ** 2)
            d_g, d_i, d_f, d_o = delta[t].chunk(4, dim=-1)
            torch.mul(to_c * i, 1 - g * g, out=d_g)
            torch.mul(to_c * g, i * (1 - i), out=d_i)
            torch.mul(to_c * c[t], f * (1 - f), out=d_f)
            torch.mul(to_h * tanh_c[t], o * (1 - o), out=d_o)
            to_c *= f
            torch.mm(delta[t], w_hh, out=to_h)
        flat = delta.flatten(0, 1)
        d_x = (flat @ w_xh).view_as(x)
        return d_x, to_h, to_c, flat.T @ x.flatten(0, 1), flat.T @ h[:-1].flatten(0, 1), flat.sum(0)


class Cell(nn.Module):
    """The weights of one layer in one direction, under the names of the equations."""

    def __init__(self, d_in: int, d_hidden: int, gates: int, extra: bool):
        super().__init__()
        bound = d_hidden**-0.5  # as torch.nn does
        self.w_xh = nn.Parameter(torch.empty(gates * d_hidden, d_in).uniform_(-bound, bound))
        self.w_hh = nn.Parameter(torch.empty(gates * d_hidden, d_hidden).uniform_(-bound, bound))
        self.b_h = nn.Parameter(torch.zeros(gates * d_hidden))
        if extra:
            self.b_n = nn.Parameter(torch.zeros(d_hidden))


class Recurrent(nn.Module):
    """What the three layers share: stacking, directions, dropout between layers, padded batches, exchange of weights."""

    torch_class: ClassVar[type[nn.RNNBase]]
    order: ClassVar[tuple[int, ...]]  # where each of our blocks of rows stands in torch's weights
    parts: ClassVar[int] = 1  # an LSTM's state has two

    def __init__(self, d_in: int, d_hidden: int, layers: int = 1, bidirectional: bool = False, dropout: float = 0.0):
        super().__init__()
        if min(d_in, d_hidden, layers) < 1:
            raise ValueError(f"d_in={d_in}, d_hidden={d_hidden} and layers={layers} must all be at least 1")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout} is the share of values set to zero: it must be in [0, 1)")
        self.d_in, self.d_hidden, self.layers, self.bidirectional, self.dropout = (
            d_in,
            d_hidden,
            layers,
            bidirectional,
            dropout,
        )
        self.directions = 2 if bidirectional else 1
        self.cells = nn.ModuleList(
            Cell(d_in if layer == 0 else d_hidden * self.directions, d_hidden, len(self.order), isinstance(self, GRU))
            for layer in range(layers)
            for _ in range(self.directions)
        )

    def scan(self, x: Tensor, state: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """All states of one layer in one direction; time first."""
        raise NotImplementedError

    def run(
        self, x: Tensor, state: tuple[Tensor, ...] | None, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Every layer and direction in turn; the state goes in and out as a tuple of its parts."""
        batch, seq, d_in = x.shape
        if d_in != self.d_in or seq == 0:
            raise ValueError(f"x has {seq} tokens of width {d_in}; give at least one token of width {self.d_in}")
        shape = (self.layers * self.directions, batch, self.d_hidden)
        if state is None:
            state = (x.new_zeros(shape),) * self.parts
        for part in state:
            if part.shape != shape:
                raise ValueError(f"the state has shape {tuple(part.shape)}, this batch needs {shape}")
        x = x.transpose(0, 1)  # seq batch d_in: each time step is one contiguous block
        rows = torch.arange(batch, device=x.device)
        times = torch.arange(seq, device=x.device)[:, None]
        if lengths is None:
            last, backwards, padding = None, None, None
        else:
            if lengths.shape != (batch,) or lengths.min() < 1 or lengths.max() > seq:
                raise ValueError(f"lengths are {lengths.tolist()}; give {batch} numbers between 1 and {seq}")
            last, padding = lengths.to(x.device) - 1, times >= lengths.to(x.device)
            backwards = torch.where(padding, times, last - times)  # a sentence is reversed, its padding stays behind
            padding = padding[..., None]
            x = x.masked_fill(padding, 0.0)  # whatever stands there, even nan, is never multiplied with anything
        final: list[tuple[Tensor, ...]] = []
        for layer in range(self.layers):
            outputs = []
            for direction in range(self.directions):
                k = layer * self.directions + direction
                seen = x if direction == 0 else x.flip(0) if backwards is None else x[backwards, rows]
                states = self.scan(seen, tuple(part[k] for part in state), tuple(self.cells[k].parameters()))
                final.append(tuple(part[-1] if last is None else part[last, rows] for part in states))
                y = states[0]
                outputs.append(y if direction == 0 else y.flip(0) if backwards is None else y[backwards, rows])
            x = outputs[0] if self.directions == 1 else torch.cat(outputs, dim=-1)
            if padding is not None:
                x = x.masked_fill(padding, 0.0)
            if layer + 1 < self.layers:
                x = nn.functional.dropout(x, self.dropout, self.training)
        return x.transpose(0, 1), tuple(torch.stack(part) for part in zip(*final, strict=True))

    def rows(self) -> Tensor:
        """Where our rows stand in the weights of `torch.nn`, which orders the gates differently."""
        return torch.cat([torch.arange(self.d_hidden) + block * self.d_hidden for block in self.order])

    def suffixes(self) -> list[str]:
        """The endings by which `torch.nn` tells the weights of its cells apart, in the order of `self.cells`."""
        return [f"_l{layer}{end}" for layer in range(self.layers) for end in ("", "_reverse")[: self.directions]]

    @classmethod
    def from_torch(cls: type[Layer], module: nn.RNNBase) -> Layer:
        """A layer that computes the same as a `torch.nn` module."""
        if not isinstance(module, cls.torch_class) or module.proj_size:
            raise ValueError(f"{cls.__name__} reads a {cls.torch_class.__name__} without projection, this is {module}")
        ours = cls(module.input_size, module.hidden_size, module.num_layers, module.bidirectional, module.dropout)
        ours.to(module.weight_hh_l0.device, module.weight_hh_l0.dtype)
        rows = ours.rows()
        with torch.no_grad():
            for cell, end in zip(ours.cells, ours.suffixes(), strict=True):
                cell.w_xh.copy_(getattr(module, "weight_ih" + end)[rows])
                cell.w_hh.copy_(getattr(module, "weight_hh" + end)[rows])
                cell.b_h.zero_()
                if module.bias:
                    cell.b_h.copy_((getattr(module, "bias_ih" + end) + getattr(module, "bias_hh" + end))[rows])
        return ours

    def to_torch(self) -> nn.RNNBase:
        """The `torch.nn` module that computes the same; its second bias, which adds nothing, is zero."""
        weight = self.cells[0].w_hh
        module = self.torch_class(
            self.d_in,
            self.d_hidden,
            self.layers,
            batch_first=True,
            dropout=self.dropout,
            bidirectional=self.bidirectional,
            device=weight.device,
            dtype=weight.dtype,
        )
        rows = self.rows()
        with torch.no_grad():
            for cell, end in zip(self.cells, self.suffixes(), strict=True):
                getattr(module, "weight_ih" + end)[rows] = cell.w_xh
                getattr(module, "weight_hh" + end)[rows] = cell.w_hh
                getattr(module, "bias_ih" + end)[rows] = cell.b_h
                getattr(module, "bias_hh" + end).zero_()
        return module


class RNN(Recurrent):
    torch_class, order = nn.RNN, (0,)

    def scan(self, x: Tensor, state: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (RNNScan.apply(x, *state, *weights),)

    def forward(self, x, state=None, lengths=None):
        output, (h,) = self.run(x, None if state is None else (state,), lengths)
        return output, h


class LSTM(Recurrent):
    torch_class, order, parts = nn.LSTM, (2, 0, 1, 3), 2

    def __init__(self, d_in: int, d_hidden: int, layers: int = 1, bidirectional: bool = False, dropout: float = 0.0):
        super().__init__(d_in, d_hidden, layers, bidirectional, dropout)
        with torch.no_grad():
            for cell in self.cells:
                cell.b_h[2 * d_hidden : 3 * d_hidden].fill_(1.0)  # remember until taught to forget

    def scan(self, x: Tensor, state: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return LSTMScan.apply(x, *state, *weights)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_in"],
        state: tuple[Float[Tensor, "stack batch d_hidden"], Float[Tensor, "stack batch d_hidden"]] | None = None,
        lengths: Int[Tensor, " batch"] | None = None,
    ) -> tuple[
        Float[Tensor, "batch seq d_out"],
        tuple[Float[Tensor, "stack batch d_hidden"], Float[Tensor, "stack batch d_hidden"]],
    ]:
        output, (h, c) = self.run(x, state, lengths)
        return output, (h, c)


class GRU(Recurrent):
    torch_class, order = nn.GRU, (0, 1, 2)

    def scan(self, x: Tensor, state: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return unroll(gru_step, x, state, weights)

    def forward(self, x, state=None, lengths=None):
        output, (h,) = self.run(x, None if state is None else (state,), lengths)
        return output, h


def clip_gradient(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients together so that their norm is at most `max_norm`."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.stack([g.norm() for g in grads]).norm() if grads else torch.zeros(())
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for g in grads:
        g.mul_(scale)
    return norm
