"""Attention against `torch.nn`: memory up to 16k tokens, time, the layer, the cache; and what an LSTM cannot recall.

`python benchmarks/attention.py [speed|recall] [--quick]` prints a table, writes benchmarks/results/attention.json
(`speed`, the default) or attention_recall.json, and `speed` ends with one line `ratio <case> <ours/peer>` per case;
below 1 means that ours is faster or smaller. `--quick` uses small shapes, prints, and writes nothing.

Time: one process, both sides alternately, the median of the rounds. Memory: each side in a fresh process of its own;
the most resident memory that the operating system ever saw, minus what was resident when the inputs stood ready
(after a small warm-up, so that the libraries' own buffers do not count).

`recall` gives the LSTM of chapter 7's experiment ten times the steps that attention needed, and more width.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from record import ROOT, peak_bytes, stamp, write
from torch import Tensor, nn
from torch.nn import functional as F

from lmtl_course import data
from lmtl_course.attention import KVCache, MultiHeadAttention, attention, causal_mask, tiled_attention
from lmtl_course.losses import cross_entropy
from lmtl_course.metrics import mean_interval
from lmtl_course.recurrent import LSTM
from lmtl_course.text import Vocabulary, tokenize
from lmtl_course.training import TrainConfig, train

SEED, D_HEAD = 0, 64
LENGTHS, QUICK_LENGTHS = (1024, 2048, 4096, 8192, 16384), (256, 512)

# ---------------------------------------------------------------------------------------------------- long texts


def written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention(q, k, v, causal_mask(q.shape[-2]))[0]


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


SIDES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "written out": written_out,
    "torch": fused,
    "tiled": lambda q, k, v: tiled_attention(q, k, v, causal=True),
}


def vectors(tokens: int) -> tuple[Tensor, ...]:
    """Queries, keys and values of one head, with gradients."""
    generator = torch.Generator().manual_seed(SEED)
    return tuple(torch.randn(1, 1, tokens, D_HEAD, generator=generator, requires_grad=True) for _ in range(3))


def step(side: str, inputs: tuple[Tensor, ...]) -> None:
    SIDES[side](*inputs).sum().backward()


def report_peak(side: str, tokens: int) -> None:
    step(side, vectors(64))
    ready = vectors(tokens)
    before = peak_bytes()
    step(side, ready)
    print((peak_bytes() - before) / 1e6)


def peak_of(side: str, tokens: int) -> float:
    """Additional peak memory in MB of one forward and backward pass, in a fresh process."""
    command = [sys.executable, __file__, "--peak", side, str(tokens)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


def alternate(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """The median time of each step in seconds, both sides alternating, after one round that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds + 1):
        for name, run in steps.items():
            start = time.perf_counter()
            run()
            if index:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def long_texts(lengths: tuple[int, ...], rounds: int) -> tuple[list[dict[str, Any]], list[str]]:
    cases, ratios = [], []
    print(
        f"{'tokens':>7}  {'side':12} {'seconds':>8} {'peak MB':>8}   forward and backward, one causal head of {D_HEAD}"
    )
    for tokens in lengths:
        inputs = vectors(tokens)
        seconds = alternate({side: partial(step, side, inputs) for side in SIDES}, rounds)
        peaks = {side: peak_of(side, tokens) for side in SIDES}
        for side in SIDES:
            print(f"{tokens:7}  {side:12} {seconds[side]:8.3f} {peaks[side]:8.1f}", flush=True)
            cases.append(
                {"tokens": tokens, "side": side, "seconds": round(seconds[side], 4), "peak_mb": round(peaks[side], 1)}
            )
        for peer in ("written out", "torch"):
            name = f"attention-tiled-{tokens}-vs-{peer.replace(' ', '-')}"
            ratios.append(f"ratio {name}-memory {peaks['tiled'] / peaks[peer]:.4f}")
            ratios.append(f"ratio {name}-time {seconds['tiled'] / seconds[peer]:.3f}")
    return cases, ratios


# ------------------------------------------------------------------------------------------- the layer, the cache


def layer_ratios(quick: bool, rounds: int) -> list[str]:
    """`MultiHeadAttention` against `nn.MultiheadAttention` with its fastest settings, causal."""
    batch, seq, width, heads = (2, 32, 64, 4) if quick else (8, 256, 256, 4)
    torch.manual_seed(SEED)
    ours, peer = MultiHeadAttention(width, heads, causal=True), nn.MultiheadAttention(width, heads, batch_first=True)
    x = torch.randn(batch, seq, width, requires_grad=True)
    hidden = ~causal_mask(seq)

    def ours_forward() -> Tensor:
        return ours(x)

    def peer_forward() -> Tensor:
        return peer(x, x, x, need_weights=False, attn_mask=hidden, is_causal=True)[0]

    def untracked(forward: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                forward()

        return run

    both = alternate(
        {"ours": lambda: ours_forward().sum().backward(), "peer": lambda: peer_forward().sum().backward()}, 10 * rounds
    )
    ours.eval(), peer.eval()
    alone = alternate({"ours": untracked(ours_forward), "peer": untracked(peer_forward)}, 10 * rounds)
    return [
        f"ratio attention-layer-forward-backward {both['ours'] / both['peer']:.3f}",
        f"ratio attention-layer-forward {alone['ours'] / alone['peer']:.3f}",
    ]


def cache_ratio(quick: bool, rounds: int) -> str:
    """Appending token after token, against joining the old keys and the new key into a new tensor at each step."""
    tokens, heads = (64, 4) if quick else (4096, 12)
    new = torch.randn(1, heads, 1, D_HEAD)

    def doubling() -> None:
        cache = KVCache()
        for _ in range(tokens):
            cache.append(new, new)

    def joining() -> None:
        k, v = new, new
        for _ in range(tokens - 1):
            k, v = torch.cat([k, new], 2), torch.cat([v, new], 2)

    seconds = alternate({"ours": doubling, "peer": joining}, rounds)
    return f"ratio attention-cache-append-{tokens} {seconds['ours'] / seconds['peer']:.3f}"


# ------------------------------------------------------------------------------- what followed this word? (recall)

SPAN, ASKED, BATCH, WIDTH, VOCAB, STEPS = 32, 8, 32, 64, 1000, 1500


class Recurrent(nn.Module):
    """Reads the passage into one state, then reads the question; as in the notebook, of any width."""

    def __init__(self, d_hidden: int):
        super().__init__()
        self.embed, self.read, self.out = nn.Embedding(VOCAB, WIDTH), LSTM(WIDTH, d_hidden), nn.Linear(d_hidden, WIDTH)

    def forward(self, passages: Tensor, questions: Tensor) -> Tensor:
        """Scores of every token as the answer, of shape (batch, asked, vocab)."""
        _, state = self.read(self.embed(passages))
        state = tuple(part.repeat_interleave(questions.shape[1], 1) for part in state)
        y, _ = self.read(self.embed(questions.flatten())[:, None], state)
        return self.out(y).view(*questions.shape, -1) @ self.embed.weight.T / WIDTH**0.5


def quiz(ids: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Passages, tokens that occur once in them, and the token after each of those."""
    generator = torch.Generator().manual_seed(seed)
    passages = ids[torch.randint(len(ids) - SPAN, (n, 1), generator=generator) + torch.arange(SPAN)]
    askable = (passages[:, :, None] == passages[:, None]).sum(-1) == 1
    askable &= (passages != 0) & (passages.roll(-1, 1) != 0)
    askable[:, -1] = False
    places = torch.rand(askable.shape, generator=generator).where(askable, -1.0).topk(ASKED, 1).indices
    answers = passages.gather(1, (places + 1) % SPAN).where(askable.gather(1, places), -100)
    return passages, passages.gather(1, places), answers


def answer_loss(model: nn.Module, batch: Any, _: Any) -> tuple[Tensor, int, None]:
    passages, questions, answers = batch
    nats = cross_entropy(model(passages, questions), answers, reduction="sum")
    return nats, int((answers != -100).sum()), None


def recall(quick: bool) -> dict[str, Any]:
    """Accuracy of the LSTM after many more steps than attention needs, for two widths and two learning rates."""
    tokens = {
        split: tokenize(data.load("tinyshakespeare", split, stand_in=True).text.lower()) for split in ("train", "valid")
    }
    vocabulary = Vocabulary.build(tokens["train"], max_size=VOCAB)
    ids = {split: torch.tensor(vocabulary.encode(words)) for split, words in tokens.items()}
    seeds, steps = ((0, 1), 20) if quick else ((0, 1, 2), STEPS)
    rows: list[dict[str, Any]] = []
    for d_hidden, lr in ((64, 3e-3),) if quick else ((64, 3e-3), (64, 1e-2), (256, 3e-3)):
        scores = []
        for seed in seeds:
            torch.manual_seed(seed)
            model = Recurrent(d_hidden)
            config = TrainConfig(steps=steps, lr=lr, warmup=steps // 20, seed=seed, autocast=False)
            train(model, lambda n, seed=seed: quiz(ids["train"], BATCH, 10**6 * seed + n), answer_loss, config)
            passages, questions, answers = quiz(ids["valid"], 1024, 99)
            with torch.no_grad():
                right = model(passages, questions).argmax(-1) == answers
            scores.append(right[answers != -100].float().mean().item())
            print(f"LSTM of width {d_hidden}, lr {lr}, seed {seed}: {scores[-1]:.3f} after {steps} steps", flush=True)
        mean, half = mean_interval(scores)
        case = {"d_hidden": d_hidden, "lr": lr, "steps": steps, "batch": BATCH, "accuracy": scores}
        rows.append({**case, "mean": mean, "half_width": half})
    return {"seeds": seeds, "data": data.loaded(), "runs": rows}


# ----------------------------------------------------------------------------------------------------------- main


def main() -> None:
    parser = argparse.ArgumentParser(description="Attention against torch.nn, and an LSTM's recall.")
    parser.add_argument("part", nargs="?", choices=("speed", "recall"), default="speed")
    parser.add_argument("--quick", action="store_true", help="small shapes, nothing is written")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", nargs=2, metavar=("SIDE", "TOKENS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        return report_peak(options.peak[0], int(options.peak[1]))
    if options.part == "recall":
        record = recall(options.quick)
        if not options.quick:
            write("attention_recall", stamp("python benchmarks/attention.py recall") | record)
        return None
    cases, ratios = long_texts(QUICK_LENGTHS if options.quick else LENGTHS, options.rounds)
    ratios += layer_ratios(options.quick, options.rounds)
    ratios.append(cache_ratio(options.quick, options.rounds))
    if not options.quick:
        named = {line.split()[1]: float(line.split()[2]) for line in ratios}
        record = {"seed": SEED, "d_head": D_HEAD, "cases": cases, "ratios": named}
        write("attention", stamp("python benchmarks/attention.py speed") | record)
    print("\n".join(ratios))
    return None


if __name__ == "__main__":
    main()
