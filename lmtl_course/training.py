"""Training: from a model and a text to weights that can be stopped, resumed, kept and moved to another text.

Chapter 4 gave the loss and chapter 5 the layer; here is the loop that makes one small by moving the other, for this
chapter's LSTM and, unchanged, for every later model. Three habits keep it short. A batch is a pure function of its
number, so there is no position to lose. A loss returns a *sum* and a *count*, so parts of a batch add up to the batch.
And whatever the next step depends on stands in one checkpoint of plain tensors and JSON, so that a killed run goes on
as if nothing had happened.
"""

import contextlib
import hashlib
import io
import json
import math
import random
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from lmtl_course.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from lmtl_course.losses import cross_entropy
from lmtl_course.recurrent import LSTM, clip_gradient
from lmtl_course.text import Vocabulary

IGNORED = -100
Batch = tuple[Any, ...]
"""Tensors whose first axis counts rows, and anything else that every row shares (a flag, a name)."""
State = Tensor | tuple[Any, ...] | None
"""What a model carries from batch to batch: nothing, a tensor, or a tuple of such."""
Loss = Callable[[nn.Module, Batch, State], tuple[Tensor, int, State]]
"""`loss(model, batch, state)` gives the summed nats of the batch, how many tokens (or labels) they belong to, and the
state for the batch that follows."""


# ---------------------------------------------------------------------------------------------------- data and model


class Streams:
    """A text read as `batch` parallel streams, `seq` tokens at a time, so that a state can be carried along each row.

    The text is cut into equally long pieces, one per row; window n + 1 goes on where window n stopped. In one pass
    every token but the very first is a target exactly once: windows differ in length by at most one token, and the few
    cells after the end of the text have the target -100, which costs nothing.

    Args:
        ids: the whole text as numbers.
        batch: rows.
        seq: the longest window, in tokens.

    Raises:
        ValueError: there are fewer targets than rows, or a size is below 1.

    >>> streams = Streams(torch.arange(8), batch=2, seq=2)  # 0 1 2 3 | 4 5 6 7
    >>> for inputs, targets, fresh in streams:
    ...     print(inputs.tolist(), targets.tolist(), fresh)
    [[0, 1], [4, 5]] [[1, 2], [5, 6]] True
    [[2, 3], [6, 0]] [[3, 4], [7, -100]] False
    """

    def __init__(self, ids: Int[Tensor, " tokens"], batch: int, seq: int):
        predicted = len(ids) - 1
        if min(batch, seq) < 1 or predicted < batch:
            raise ValueError(
                f"{len(ids)} tokens cannot feed {batch} rows of windows of {seq}; use a longer text or fewer rows"
            )
        columns = math.ceil(predicted / batch)
        inputs, targets = ids.new_zeros(batch * columns), ids.new_full((batch * columns,), IGNORED)
        inputs[:predicted], targets[:predicted] = ids[:-1], ids[1:]
        windows = math.ceil(columns / seq)
        self.inputs = inputs.view(batch, columns).tensor_split(windows, dim=1)
        self.targets = targets.view(batch, columns).tensor_split(windows, dim=1)

    def __len__(self) -> int:
        return len(self.inputs)

    def __call__(self, n: int) -> Batch:
        """Batch number n of an endless reading: inputs, targets, and whether the text begins anew here."""
        k = n % len(self)
        return self.inputs[k], self.targets[k], k == 0

    def __iter__(self) -> Iterator[Batch]:
        return map(self, range(len(self)))


class LanguageModel(nn.Module):
    """Embedding → LSTM → dropout → linear: from tokens and a state to scores for each next token and the state after.

    Args:
        vocab: how many tokens there are.
        d_model: width of a token's vector.
        d_hidden: width of the LSTM's state.
        layers: LSTM layers.
        dropout: share of the LSTM's *outputs* set to zero while training; the carried state is never touched.

    The output layer starts at zero, so an untrained model gives every token the same probability.

    Source: Mikolov et al. 2010, "Recurrent neural network based language model" (Interspeech), with an LSTM;
    dropout only between layers as in Zaremba et al. 2014, arXiv:1409.2329.

    >>> model = LanguageModel(vocab=11, d_model=3, d_hidden=5)
    >>> logits, (h, c) = model(torch.zeros(2, 7, dtype=torch.long))
    >>> logits.shape, h.shape
    (torch.Size([2, 7, 11]), torch.Size([1, 2, 5]))
    """

    def __init__(self, vocab: int, d_model: int, d_hidden: int, layers: int = 1, dropout: float = 0.0):
        super().__init__()
        self.embedding = nn.Embedding(vocab, d_model)
        self.lstm = LSTM(d_model, d_hidden, layers, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(d_hidden, vocab)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, tokens: Int[Tensor, "batch seq"], state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Float[Tensor, "batch seq vocab"], tuple[Tensor, Tensor]]:
        """Scores for the token after each one, and the state after the last."""
        output, state = self.lstm(self.embedding(tokens), state)
        return self.head(self.dropout(output)), state


def next_token_loss(model: nn.Module, batch: Batch, state: State) -> tuple[Tensor, int, State]:
    r"""The loss of every language model in the book: $-\sum_i \log P(w_i \mid w_{<i})$ over one window of `Streams`.

    Args:
        model: `model(tokens, state) -> (logits, state)`.
        batch: inputs [batch seq], targets [batch seq] with -100 where there is none, and whether to forget the state.
        state: from the window before.

    Returns:
        Summed nats, the number of targets, the state after the window.

    >>> nats, count, state = next_token_loss(LanguageModel(4, 3, 5), Streams(torch.arange(4), 1, 3)(0), None)
    >>> round(nats.item() / count, 4)  # an untrained model: log 4
    1.3863
    """
    inputs, targets, fresh = batch
    logits, state = model(inputs, None if fresh else state)
    return cross_entropy(logits, targets, reduction="sum"), int((targets != IGNORED).sum()), state


@torch.no_grad()
def sample(
    model: nn.Module,
    vocabulary: Vocabulary,
    prompt: str,
    length: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> str:
    """Continue a text one character at a time, carrying the state.

    Args:
        model: a character language model.
        vocabulary: of its characters.
        prompt: at least one character to start from.
        length: characters to add.
        temperature: below 1 sharpens the distribution, above 1 flattens it.
        generator: for repeatable draws, on the CPU.

    Returns:
        The prompt and its continuation.

    Raises:
        ValueError: the prompt is empty or the temperature is not positive.

    >>> vocabulary = Vocabulary.build("ab")
    >>> len(sample(LanguageModel(3, 2, 2), vocabulary, "ab", 5, generator=torch.Generator().manual_seed(0)))
    7
    """
    if not prompt or temperature <= 0:
        raise ValueError(
            f"prompt {prompt!r} and temperature {temperature}: give at least one character and more than 0"
        )
    device, training = next(model.parameters()).device, model.training
    model.eval()
    pieces, tokens, state = [prompt], torch.tensor([vocabulary.encode(prompt)], device=device), None
    for _ in range(length):
        logits, state = model(tokens, state)
        scores = logits[0, -1].float().cpu() / temperature
        scores[vocabulary.unknown] = -math.inf  # it has no spelling
        drawn = torch.multinomial(scores.softmax(-1), 1, generator=generator)
        pieces += vocabulary.decode(drawn.tolist())
        tokens = drawn[None].to(device)
    model.train(training)
    return "".join(pieces)


# --------------------------------------------------------------------------------------------------------- optimisers


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on besides the model, the batches and the loss.

    Args:
        steps: updates of the weights.
        lr: peak learning rate.
        optimizer: "adamw", or "muon" for matrices with AdamW for the rest.
        weight_decay: share of each matrix taken away per step, times the learning rate; vectors never decay.
        betas: how much AdamW's two averages remember.
        momentum: how much Muon's average remembers.
        warmup: steps over which the learning rate climbs to its peak.
        min_ratio: share of the peak that is left at the end of the cosine decay.
        clip: longest gradient let through; `math.inf` for no limit.
        accumulate: parts that a batch is computed in, to save memory; the result is that of the whole batch.
        autocast: matrix products in bfloat16 (True, False, or "auto": where the device is fast at it).
        scales: pairs of a parameter's first letters and a factor on its learning rate, such as ("head.", 10.0); where
            several fit, the last one counts.
        eval_every: steps between two looks at the validation text; 0 looks only at the end.
        patience: looks without a new best after which training stops, with the best weights restored; 0 never does.
        folder: where checkpoints go; None writes none.
        save_every: steps between two checkpoints; 0 writes one at the end.
        seed: of dropout and everything else random inside the loop.

    Raises:
        ValueError: a value outside its range, by name.

    >>> TrainConfig(steps=100, warmup=200)
    Traceback (most recent call last):
    ...
    ValueError: warmup=200 must be an integer from 0 to steps=100
    """

    steps: int
    lr: float = 5e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    momentum: float = 0.95
    warmup: int = 0
    min_ratio: float = 0.0
    clip: float = 1.0
    accumulate: int = 1
    autocast: bool | str = "auto"
    scales: tuple[tuple[str, float], ...] = ()
    eval_every: int = 0
    patience: int = 0
    folder: str | Path | None = None
    save_every: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        whole = {"steps": 1, "accumulate": 1, "eval_every": 0, "patience": 0, "save_every": 0, "seed": 0}
        for name, least in whole.items():
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be an integer of at least {least}")
        if not isinstance(self.warmup, int) or not 0 <= self.warmup <= self.steps:
            raise ValueError(f"warmup={self.warmup} must be an integer from 0 to steps={self.steps}")
        if not 0 < self.lr < math.inf or not self.clip > 0:
            raise ValueError(f"lr={self.lr} and clip={self.clip} must be above 0 (clip=math.inf never clips)")
        if not 0 <= self.weight_decay < math.inf or not 0 <= self.min_ratio <= 1:
            raise ValueError(
                f"weight_decay={self.weight_decay} must be at least 0 and min_ratio={self.min_ratio} in 0…1"
            )
        if not all(0 <= beta < 1 for beta in (*self.betas, self.momentum)):
            raise ValueError(f"betas={self.betas} and momentum={self.momentum} must be in 0…1, without 1")
        if self.optimizer not in ("adamw", "muon") or self.autocast not in (True, False, "auto"):
            raise ValueError(
                f"optimizer={self.optimizer!r} must be 'adamw' or 'muon', "
                f"autocast={self.autocast!r} True, False or 'auto'"
            )
        if any(not 0 <= factor < math.inf for _, factor in self.scales):
            raise ValueError(f"scales={self.scales}: every factor must be at least 0")
        if self.patience and not self.eval_every:
            raise ValueError(f"patience={self.patience} needs eval_every of at least 1: without looks nothing can stop")


def lr_at(step: int, config: TrainConfig) -> float:
    r"""The learning rate of one step: a straight climb, then half a cosine down to `min_ratio` of the peak.

    Args:
        step: from 0 to steps - 1.
        config: has the peak, the warm-up and the floor.

    Returns:
        $\eta\,(s + 1)/w$ while $s < w$, then $\eta\,(r + (1 - r)\,\tfrac12(1 + \cos \pi\tfrac{s - w}{S - w}))$.

    Raises:
        ValueError: the step is not one of the run's.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.

    >>> config = TrainConfig(steps=10, lr=1.0, warmup=2)
    >>> [round(lr_at(step, config), 2) for step in range(10)]
    [0.5, 1.0, 1.0, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04]
    """
    if not 0 <= step < config.steps:
        raise ValueError(f"step {step} is not one of the run's {config.steps} (0 to {config.steps - 1})")
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / (config.steps - config.warmup)
    return config.lr * (config.min_ratio + (1 - config.min_ratio) * 0.5 * (1 + math.cos(math.pi * done)))


def orthogonalize(G: Float[Tensor, "rows columns"], steps: int = 5) -> Float[Tensor, "rows columns"]:
    r"""Move all singular values of a matrix towards 1 and leave its singular vectors: $U\Sigma V^\top \to U S V^\top$.

    Each round computes $aX + b(XX^\top)X + c(XX^\top)^2X$, which sends every singular value σ to
    $a\sigma + b\sigma^3 + c\sigma^5$ and needs nothing but matrix products, so bfloat16 is good enough.

    Args:
        G: any matrix; its size does not matter, it is first divided by its norm.
        steps: rounds.

    Returns:
        A matrix whose singular values lie near 1 (0.7 to 1.2 after 5 rounds, for those above 1/500 of the norm).

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"
    (https://kellerjordan.github.io/posts/muon/), coefficients included.

    >>> values = torch.linalg.svdvals(orthogonalize(torch.diag(torch.tensor([9.0, 3.0, 0.1]))))
    >>> bool(((values > 0.6) & (values < 1.3)).all())
    True
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    X = G.bfloat16() if _bf16_is_fast(G.device) else G.float()
    if G.shape[0] > G.shape[1]:
        X = X.T  # the products are then of the smaller side
    X = X / (X.norm() + 1e-7)
    for _ in range(steps):
        A = X @ X.T
        B = torch.addmm(A, A, A, beta=b, alpha=c)  # b A + c A²
        X = torch.addmm(X, B, X, beta=a)  # a X + B X
    return (X.T if G.shape[0] > G.shape[1] else X).to(G.dtype)


class Muon(torch.optim.Optimizer):
    r"""Momentum, orthogonalised: every direction of a weight matrix moves equally far in each step.

    $M \leftarrow \mu M + (1-\mu) G$, then $W \leftarrow W - \eta\,(\lambda W + 0.2\sqrt{\max(m, n)}\;
    \mathrm{orth}((1-\mu) G + \mu M))$ for an m × n matrix. The factor gives an update entries of the size that AdamW's
    have, so both can share a learning rate.

    Args:
        params: matrices (or groups of them), and only those; embeddings, output layers and vectors belong to AdamW.
        lr: learning rate η.
        momentum: μ.
        weight_decay: λ.

    Raises:
        ValueError: a parameter is not a matrix.

    Source: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/); the factor from Liu et al. 2025,
    arXiv:2502.16982.

    >>> weight = nn.Parameter(torch.zeros(2, 2))
    >>> weight.grad = torch.diag(torch.tensor([100.0, 1.0]))  # one direction a hundred times as steep
    >>> Muon([weight], lr=1.0).step()
    >>> bool((weight.diag().abs() > 0.15).all())              # and both have moved
    True
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.ndim != 2:
                raise ValueError(f"Muon moves matrices, got a parameter of shape {tuple(p.shape)}; give it to AdamW")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            lr, mu, decay = group["lr"], group["momentum"], group["weight_decay"]
            for W in group["params"]:
                if W.grad is None:
                    continue
                M = self.state[W].setdefault("momentum", torch.zeros_like(W))
                M.lerp_(W.grad, 1 - mu)
                update = orthogonalize(W.grad.lerp(M, mu))
                W.mul_(1 - lr * decay).sub_(update, alpha=lr * 0.2 * max(W.shape) ** 0.5)


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the hidden matrices and AdamW for the rest.

    Hidden matrices are the parameters with two axes except embeddings and the output layer, which must be called
    `head`: their rows belong to single tokens, and rare tokens would be moved as far as frequent ones.

    Args:
        model: any model; parameters that need no gradient are left alone.
        config: names the optimiser and its settings.

    Returns:
        One optimiser or two.

    Raises:
        ValueError: nothing is left to train.

    >>> [type(o).__name__ for o in make_optimizers(LanguageModel(7, 3, 5), TrainConfig(steps=1, optimizer="muon"))]
    ['AdamW', 'Muon']
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError(f"all {sum(1 for _ in model.parameters())} parameters are frozen; unfreeze one to train")
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    tables |= {id(p) for name, p in model.named_parameters() if "head" in name.split(".")}
    groups: dict[tuple[bool, bool, float], list[Tensor]] = {}  # by optimiser, decay, and factor on the rate
    for name, p in trained.items():
        scale = next((factor for start, factor in reversed(config.scales) if name.startswith(start)), 1.0)
        hidden = p.ndim == 2 and id(p) not in tables and config.optimizer == "muon"
        groups.setdefault((hidden, p.ndim >= 2, scale), []).append(p)

    def of(muon: bool) -> list[dict[str, Any]]:
        chosen = sorted((key for key in groups if key[0] == muon), key=lambda key: not key[1])  # matrices first
        return [
            {"params": groups[key], "weight_decay": config.weight_decay * key[1], "scale": key[2]} for key in chosen
        ]

    optimizers: list[torch.optim.Optimizer] = []
    if of(muon=False):
        optimizers.append(torch.optim.AdamW(of(muon=False), config.lr, config.betas, fused=True))
    if of(muon=True):
        optimizers.append(Muon(of(muon=True), config.lr, config.momentum, config.weight_decay))
    return optimizers


# ----------------------------------------------------------------------------------------------------------- the loop


@dataclass
class History:
    """What happened in a run, step by step.

    Args:
        loss: nats per token of each training batch, before its update.
        norm: length of each gradient before clipping.
        tokens: how many targets the run has seen.
        seconds: time in the loop, looks and interruptions not counted.
        looks: (steps done, validation nats per token) of each evaluation.
        best: the lowest of these.
        stopped: patience ran out.

    >>> History(loss=[2.0, 1.0]).steps
    2
    """

    loss: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    looks: list[tuple[int, float]] = field(default_factory=list)
    best: float = math.inf
    stopped: bool = False

    @property
    def steps(self) -> int:
        """Updates so far."""
        return len(self.loss)

    @property
    def stale(self) -> int:
        """Looks since the best one."""
        return len(self.looks) - 1 - min(range(len(self.looks)), key=lambda k: self.looks[k][1]) if self.looks else 0


def evaluate(model: nn.Module, batches: Iterable[Batch], loss: Loss, autocast: bool | str = "auto") -> float:
    """Nats per token over *all* of some batches, state carried, dropout off: a sum divided by a count, once.

    Args:
        model: is left in the mode it was in.
        batches: for a whole text, `Streams(ids, batch, seq)`.
        loss: as for `train`.
        autocast: as in `TrainConfig`.

    Returns:
        Mean nats per counted target.

    Raises:
        ValueError: there was nothing to predict.

    >>> round(evaluate(LanguageModel(4, 3, 5), Streams(torch.arange(4), 1, 3), next_token_loss), 4)
    1.3863
    """
    device, training = next(model.parameters()).device, model.training
    total, count, state = 0.0, 0, None
    model.eval()
    with torch.no_grad(), _autocast(device, autocast):
        for batch in batches:
            nats, n, state = loss(model, _to(batch, device), state)
            total, count = total + float(nats), count + n
    model.train(training)
    if not count:
        raise ValueError("the batches hold 0 targets, so there is no mean; give at least one")
    return total / count


def train(
    model: nn.Module,
    batches: Callable[[int], Batch],
    loss: Loss,
    config: TrainConfig,
    valid: Iterable[Batch] | None = None,
    watch: Callable[[History], None] | None = None,
) -> History:
    """Train a model in place, and resume by itself where `config.folder` holds a checkpoint of the same run.

    Each step: the batch in `accumulate` parts, gradients added and divided by the number of targets, clipped, one
    update at `lr_at(step)`. Parameters stay in float32; products run in bfloat16 where that is fast.

    Args:
        model: reads its device from its parameters.
        batches: batch number n, a pure function of n (`Streams`); that is what makes a resumed run exact.
        loss: see `Loss`.
        config: see `TrainConfig`.
        valid: the batches to evaluate on.
        watch: called with the history after every look, for instance a `LiveCurve`.

    Returns:
        The history of the whole run, interruptions included. With patience the model holds its best weights.

    Raises:
        ValueError: the batch has fewer rows than parts, or the folder holds a checkpoint of another run.
        FloatingPointError: the loss is no longer a number.

    >>> _ = torch.manual_seed(0)
    >>> model, ids = LanguageModel(4, 8, 16), torch.arange(64) % 4  # 0 1 2 3 0 1 2 3 …
    >>> history = train(model, Streams(ids, batch=1, seq=8), next_token_loss, TrainConfig(steps=40, lr=0.05))
    >>> history.loss[0] > 1.3 and history.loss[-1] < 0.3
    True
    """
    device = next(model.parameters()).device
    optimizers = make_optimizers(model, config)
    run = _Run(model, optimizers, config, batches)
    history = run.resume()
    model.train()
    with tqdm(total=config.steps, initial=history.steps, unit="step") as bar:
        for step in range(history.steps, config.steps):
            if history.stopped:
                break
            start = time.perf_counter()
            total, count = torch.zeros((), device=device), 0
            for k, part in enumerate(_parts(_to(batches(step), device), config.accumulate)):
                with _autocast(device, config.autocast):
                    nats, n, state = loss(model, part, run.states[k])
                nats.backward()
                total, count, run.states[k] = total + nats.detach(), count + n, _detached(state)
            mean = float(total) / max(count, 1)
            for p in model.parameters():
                if p.grad is not None:
                    p.grad /= max(count, 1)
            norm = float(clip_gradient(model.parameters(), config.clip))
            if not math.isfinite(mean) or not math.isfinite(norm):  # before any weight is touched
                raise FloatingPointError(
                    f"the loss is {mean} and its gradient {norm} long at step {step} with "
                    f"lr={lr_at(step, config):.3g}; lower lr or warm up for longer"
                )
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = lr_at(step, config) * group["scale"]
                optimizer.step()
                optimizer.zero_grad()
            history.loss.append(mean)
            history.norm.append(norm)
            history.tokens += count
            history.seconds += time.perf_counter() - start
            last = step + 1 == config.steps
            if valid is not None and (last or (config.eval_every and (step + 1) % config.eval_every == 0)):
                nats_per_token = evaluate(model, valid, loss, config.autocast)
                history.looks.append((step + 1, nats_per_token))
                if nats_per_token < history.best:
                    history.best = nats_per_token
                    run.keep_best()
                history.stopped = 0 < config.patience <= history.stale
                if watch is not None:
                    watch(history)
            if last or history.stopped or (config.save_every and (step + 1) % config.save_every == 0):
                run.save(history)
            bar.update()
            valid_text = f"{history.looks[-1][1]:.3f}" if history.looks else "-"
            speed = history.tokens / history.seconds
            bar.set_postfix_str(f"loss {mean:.3f}, valid {valid_text}, {speed:,.0f} tokens/s", refresh=False)
    run.restore_best()
    return history


class LiveCurve:
    """A picture of a run that redraws itself in place: pass it to `train(..., watch=LiveCurve())`.

    Args:
        title: above the axes.

    >>> LiveCurve("tiny Shakespeare").title
    'tiny Shakespeare'
    """

    def __init__(self, title: str = ""):
        self.title, self.handle = title, None

    def __call__(self, history: History) -> None:
        """Draw the training loss (a mean over about 1/50 of the steps), the looks and their latest value."""
        from IPython.display import Image, display

        from lmtl_course.plotting import figure

        fig, ax = figure(height=2.8)
        width = max(1, history.steps // 50)
        smooth = np.convolve(history.loss, np.ones(width) / width, mode="valid")
        ax.plot(np.arange(width, history.steps + 1), smooth, label="training batches")
        ax.plot(*zip(*history.looks, strict=True), marker="o", label="whole validation text")
        ax.set(title=self.title, xlabel="step", ylabel="nats per token")
        ax.legend()
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=144)
        steps, nats = history.looks[-1]
        alt = (
            f"Loss against step: training and validation curves; after {steps} steps the validation loss is {nats:.3f}"
        )
        image = Image(buffer.getvalue(), format="png", width=round(fig.get_figwidth() * 96), alt=alt)
        if self.handle is None:
            self.handle = display(image, display_id=True)
        else:
            self.handle.update(image)


def _bf16_is_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public question for this
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in names)


def _autocast(device: torch.device, wanted: bool | str) -> contextlib.AbstractContextManager[Any]:
    on = _bf16_is_fast(device) if wanted == "auto" else bool(wanted)
    return torch.autocast(device.type, torch.bfloat16) if on else contextlib.nullcontext()


def _to(batch: Batch, device: torch.device) -> Batch:
    return tuple(item.to(device) if isinstance(item, Tensor) else item for item in batch)


def _parts(batch: Batch, parts: int) -> Iterator[Batch]:
    """The rows of a batch in equal parts; what is not a tensor goes with each of them."""
    rows = next(len(item) for item in batch if isinstance(item, Tensor))
    if rows < parts:
        raise ValueError(f"a batch of {rows} rows cannot be computed in accumulate={parts} parts")
    split = [item.tensor_split(parts) if isinstance(item, Tensor) else (item,) * parts for item in batch]
    return zip(*split, strict=True)


def _detached(state: State) -> State:
    """The numbers of a state without the graph that made them: here backpropagation through time ends."""
    return tuple(map(_detached, state)) if isinstance(state, tuple) else None if state is None else state.detach()


# -------------------------------------------------------------------------------------------------------- checkpoints


def _flat(prefix: str, value: Any) -> dict[str, Tensor]:
    """Tensors nested in tuples and dicts under names such as `state.0.1`; None has no name."""
    if isinstance(value, Tensor):
        return {prefix: value}
    inside = value.items() if isinstance(value, dict) else enumerate(value or ())
    return {name: t for key, item in inside for name, t in _flat(f"{prefix}.{key}", item).items()}


def _nested(prefix: str, tensors: dict[str, Tensor]) -> Any:
    """Undoes `_flat` for tuples."""
    if prefix in tensors:
        return tensors[prefix]
    keys = {int(name[len(prefix) + 1 :].split(".")[0]) for name in tensors if name.startswith(prefix + ".")}
    return tuple(_nested(f"{prefix}.{key}", tensors) for key in sorted(keys)) or None


class _Run:
    """Everything the next step depends on, and its way into a checkpoint and out again."""

    def __init__(
        self,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        config: TrainConfig,
        batches: Callable[[int], Batch],
    ):
        self.model, self.optimizers, self.config, self.batches = model, optimizers, config, batches
        self.device = next(model.parameters()).device
        self.states: list[State] = [None] * config.accumulate
        self.best: dict[str, Tensor] = {}
        torch.manual_seed(config.seed)
        random.seed(config.seed)
        np.random.seed(config.seed)

    def keep_best(self) -> None:
        if self.config.patience:
            self.best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}

    def restore_best(self) -> None:
        if self.best:
            self.model.load_state_dict(self.best)

    def fingerprint(self, step: int) -> dict[str, Any]:
        """What must be equal for a checkpoint to belong to this run; of the data, the batch used last."""
        settings = {k: v for k, v in asdict(self.config).items() if k not in ("folder", "save_every")}
        digest = hashlib.sha256()
        for item in self.batches(step - 1):
            digest.update(item.cpu().numpy().tobytes() if isinstance(item, Tensor) else repr(item).encode())
        shapes = {name: list(t.shape) for name, t in self.model.state_dict().items()}
        return json.loads(json.dumps({"config": settings, "model": shapes, "batch": digest.hexdigest()}))

    def save(self, history: History) -> None:
        if self.config.folder is None:
            return
        tensors = _flat("model", self.model.state_dict()) | _flat("best", self.best) | _flat("state", self.states)
        for k, optimizer in enumerate(self.optimizers):
            tensors |= _flat(f"optimizer.{k}", optimizer.state_dict()["state"])
        tensors["random.torch"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        name, keys, *rest = cast(tuple[Any, ...], np.random.get_state(legacy=True))
        record = {
            "run": self.fingerprint(history.steps),
            "history": asdict(history),
            "random": {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest]},
        }
        try:
            save_checkpoint(self.config.folder, history.steps, tensors, record)
        except OSError as error:  # hours of work are in memory: losing a checkpoint must not lose them too
            warnings.warn(f"{error.args[1]}. Training goes on", stacklevel=3)

    def check(self, found: Checkpoint) -> None:
        try:
            theirs, ours = found.record["run"], self.fingerprint(len(found.record["history"]["loss"]))
        except KeyError as missing:
            raise CheckpointError(f"{found.path.name} was not written by train: it has no {missing}") from None
        for part in ours:
            if theirs[part] == ours[part]:
                continue
            message = f"{found.path.name} is from another run: its {part} differs"
            if isinstance(ours[part], dict):
                key = next(k for k in {**ours[part], **theirs[part]} if theirs[part].get(k) != ours[part].get(k))
                message = f"{message}, {key} was {theirs[part].get(key)} and is {ours[part].get(key)}"
            raise CheckpointError(message)

    def resume(self) -> History:
        found = None if self.config.folder is None else load_checkpoint(self.config.folder, self.check)
        if found is None:
            return History()
        of = {
            top: {n[len(top) + 1 :]: t for n, t in found.tensors.items() if n.startswith(top + ".")}
            for top in ("model", "best", "optimizer")
        }
        self.model.load_state_dict(of["model"])
        self.best = {name: t.to(self.device) for name, t in of["best"].items()}
        for k, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for name, t in of["optimizer"].items():
                which, parameter, key = name.split(".")
                if int(which) == k:
                    state.setdefault(int(parameter), {})[key] = t
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        on_device = {name: t.to(self.device) for name, t in found.tensors.items() if name.startswith("state.")}
        self.states = [_nested(f"state.{k}", on_device) for k in range(self.config.accumulate)]
        torch.set_rng_state(found.tensors["random.torch"])
        if "random.cuda" in found.tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(found.tensors["random.cuda"], self.device)
        version, numbers, gauss = found.record["random"]["python"]
        random.setstate((version, tuple(numbers), gauss))
        name, keys, *rest = found.record["random"]["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
        history = found.record["history"]
        return History(**{**history, "looks": [tuple(look) for look in history["looks"]]})
