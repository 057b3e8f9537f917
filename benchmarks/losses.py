"""Time and peak memory of the losses, forward and backward, against `torch.nn.functional`.

`python benchmarks/losses.py [--quick]` prints a table, writes benchmarks/results/losses.json and ends with one line
`ratio <case> <ours/peer>` per case; below 1 means that ours is faster or smaller. `--quick` uses small shapes, prints,
and writes nothing.

Time: one process, the sides in turn; the ratio is the median over the rounds of ours / peer within one round, which
drifts less with the machine's load than a ratio of two medians. Memory: each side in a fresh process of its own;
the most resident memory that the operating system ever saw, minus what was resident when the inputs stood ready
(after a small warm-up, so that the libraries' own buffers do not count).
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from record import ROOT, peak_bytes, stamp, write
from torch.nn import functional as F

from lmtl_course.losses import chunked_cross_entropy, cross_entropy

D_MODEL, CHUNK, SEED = 256, 512, 0
FULL, QUICK = [(8192, 32768), (8192, 50257)], [(1024, 8192)]  # tokens, vocab


def linear_then(loss: Callable[..., Any], hidden: Any, weight: Any, targets: Any) -> None:
    """Logits, loss and both gradients, by way of the full logits."""
    loss(F.linear(hidden, weight), targets).backward()


SIDES: dict[str, Callable[[Any, Any, Any], None]] = {
    "torch": lambda h, W, t: linear_then(F.cross_entropy, h, W, t),
    "plain": lambda h, W, t: linear_then(cross_entropy, h, W, t),
    "chunked": lambda h, W, t: chunked_cross_entropy(h, W, t, chunk=CHUNK).backward(),
}


def inputs(tokens: int, vocab: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    hidden = torch.randn(tokens, D_MODEL, generator=generator, requires_grad=True)
    weight = torch.randn(vocab, D_MODEL, generator=generator).div_(D_MODEL**0.5).requires_grad_()  # no second copy
    return hidden, weight, torch.randint(vocab, (tokens,), generator=generator)


def peak_of(side: str, tokens: int, vocab: int) -> float:
    """Additional peak memory in MB of one forward and backward pass, in a fresh process."""
    command = [sys.executable, __file__, "--peak", side, str(tokens), str(vocab)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


def report_peak(side: str, tokens: int, vocab: int) -> None:
    SIDES[side](*inputs(64, 128))
    ready = inputs(tokens, vocab)
    before = peak_bytes()
    SIDES[side](*ready)
    print((peak_bytes() - before) / 1e6)


def seconds_of(tokens: int, vocab: int, rounds: int) -> dict[str, list[float]]:
    """Every round of every side, alternating, after one round that warms up."""
    hidden, weight, targets = inputs(tokens, vocab)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for index in range(rounds + 1):
        for side, step in SIDES.items():
            hidden.grad = weight.grad = None
            start = time.perf_counter()
            step(hidden, weight, targets)
            if index:
                seconds[side].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Losses against torch: time and peak memory.")
    parser.add_argument("--quick", action="store_true", help="small shapes, nothing is written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", nargs=3, metavar=("SIDE", "TOKENS", "VOCAB"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        side, tokens, vocab = options.peak
        return report_peak(side, int(tokens), int(vocab))

    load = [round(os.getloadavg()[0], 1)] if hasattr(os, "getloadavg") else []
    cases: list[dict[str, Any]] = []
    ratios: list[str] = []
    print(f"d_model {D_MODEL}, chunk {CHUNK}, {torch.get_num_threads()} threads")
    print(f"{'tokens x vocab':>15}  {'logits MB':>9}  {'side':8} {'seconds':>8} {'peak MB':>8}")
    for tokens, vocab in QUICK if options.quick else FULL:
        seconds = seconds_of(tokens, vocab, options.rounds)
        for side, times in seconds.items():
            peak, median = peak_of(side, tokens, vocab), statistics.median(times)
            case = {"tokens": tokens, "vocab": vocab, "side": side, "seconds": round(median, 4), "peak_mb": round(peak)}
            cases.append({**case, "rounds": [round(value, 4) for value in times]})
            print(f"{f'{tokens} x {vocab}':>15}  {tokens * vocab * 4e-6:9.0f}  {side:8} {median:8.3f} {peak:8.0f}")
            if side == "torch":
                peer = case
            else:
                ratio = statistics.median(ours / theirs for ours, theirs in zip(times, seconds["torch"], strict=True))
                ratios.append(f"ratio losses-{side}-time-{vocab} {ratio:.3f}")
                ratios.append(f"ratio losses-{side}-memory-{vocab} {peak / peer['peak_mb']:.3f}")
    if not options.quick:
        load += [round(os.getloadavg()[0], 1)] if load else []
        record = {
            **stamp("python benchmarks/losses.py"),
            "load": load,  # of the machine when the run began and ended; above the thread count, times are noisy
            "seed": SEED,
            "d_model": D_MODEL,
            "chunk": CHUNK,
            "cases": cases,
            "ratios": {line.split()[1]: float(line.split()[2]) for line in ratios},
        }
        write("losses", record)
    print("\n".join(ratios))


if __name__ == "__main__":
    main()
