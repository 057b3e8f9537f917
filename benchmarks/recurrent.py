"""Time of an LSTM's forward and backward pass against `torch.nn.LSTM`.

`python benchmarks/recurrent.py [--quick] [--device cuda] [--dtype bfloat16]` prints a table, writes
benchmarks/results/recurrent.json and ends with one line `ratio <case> <ours/peer>` per case; below 1 means that ours is
faster. `--quick` uses fewer rounds, prints, and writes nothing.

Three sides take turns in one process: autograd over the readable step, the package's hand-derived scan, and
`torch.nn.LSTM` in both layouts, of which the faster counts. On CUDA the peer is cuDNN and every timing waits for the
device. Each pass returns the outputs and the gradients of input and weights under a random upstream gradient; before
timing, the sides are compared. The ratio is the median over the rounds of ours / peer within one round, which drifts
less with the machine's load than a ratio of two medians.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from record import RESULTS, hardware, stamp, write

from lmtl_course.recurrent import LSTM, lstm_step, unroll

CASES = [(16, 64, 128), (32, 64, 256), (32, 128, 512)]  # batch, seq, d; d is the width of tokens and of the state
SEED = 0
TIME_FIRST = ("readable", "nn.LSTM, time first")  # the sides that take and give seq before batch


def sides(batch: int, seq: int, d: int, device: str, dtype: torch.dtype) -> dict[str, Callable[[], torch.Tensor]]:
    """One forward and backward pass per side, on the same weights and tokens; each returns its output."""
    torch.manual_seed(SEED)
    peer = torch.nn.LSTM(d, d, batch_first=True, device=device)
    peer_time_first = torch.nn.LSTM(d, d, device=device)
    peer_time_first.load_state_dict(peer.state_dict())
    ours = LSTM.from_torch(peer)
    x, upstream = torch.randn(2, batch, seq, d, device=device)
    x_t, upstream_t = (v.transpose(0, 1).contiguous() for v in (x, upstream))
    zero = torch.zeros(batch, d, device=device)

    def side(run: Callable[[torch.Tensor], torch.Tensor], module: Any, x: Any, upstream: Any) -> Any:
        x = x.clone().requires_grad_()

        def once() -> torch.Tensor:
            x.grad = None
            module.zero_grad()
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                y = run(x)
            y.backward(upstream.to(y.dtype))
            return y.detach()

        return once

    def readable(x: torch.Tensor) -> torch.Tensor:
        return unroll(lstm_step, x, (zero, zero), tuple(ours.parameters()))[0]

    return {
        "readable": side(readable, ours, x_t, upstream_t),
        "fast": side(lambda x: ours(x)[0], ours, x, upstream),
        "nn.LSTM": side(lambda x: peer(x)[0], peer, x, upstream),
        "nn.LSTM, time first": side(lambda x: peer_time_first(x)[0], peer_time_first, x_t, upstream_t),
    }


def check(runs: dict[str, Callable[[], torch.Tensor]], tolerance: float) -> None:
    """Refuse to time sides that disagree."""
    wanted = runs["nn.LSTM"]()
    for name, run in runs.items():
        found = run().transpose(0, 1) if name in TIME_FIRST else run()
        torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance, check_dtype=False)


def seconds_of(runs: dict[str, Callable[[], torch.Tensor]], rounds: int, device: str) -> dict[str, list[float]]:
    """Every round of every side, in turn; a side runs once before it is timed, so that the caches are its own."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="LSTM against torch.nn.LSTM: time of forward and backward.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, nothing is written")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16: by autocast")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device here; run without --device for the CPU")

    dtype, rounds = getattr(torch, options.dtype), 3 if options.quick else options.rounds
    cases: list[dict[str, Any]] = []
    ratios: dict[str, float] = {}
    print(f"{hardware(options.device)}, {options.dtype}, {rounds} rounds; median milliseconds")
    print(f"{'batch, seq, d':>14}  {'readable':>9} {'fast':>9} {'nn.LSTM':>9} {'time first':>10}")
    for batch, seq, d in CASES:
        runs = sides(batch, seq, d, options.device, dtype)
        check(runs, 1e-4 if dtype == torch.float32 else 0.05)
        seconds = seconds_of(runs, rounds, options.device)
        median = {name: statistics.median(times) for name, times in seconds.items()}
        peer = min(("nn.LSTM", "nn.LSTM, time first"), key=lambda name: median[name])
        milliseconds = {name: round(1e3 * value, 3) for name, value in median.items()}
        print(f"{f'{batch}, {seq}, {d}':>14}  {' '.join(f'{value:9.2f}' for value in milliseconds.values())}")
        case: dict[str, Any] = {"batch": batch, "seq": seq, "d": d, "peer": peer, "milliseconds": milliseconds}
        for side in ("readable", "fast"):
            pairs = zip(seconds[side], seconds[peer], strict=True)
            name = f"lstm-{side}-{batch}x{seq}x{d}"
            name += f"-{options.device}" * (options.device != "cpu") + f"-{options.dtype}" * (dtype != torch.float32)
            case[f"ratio_{side}"] = ratios[name] = round(statistics.median(a / b for a, b in pairs), 3)
        cases.append(case)
    if not options.quick:
        key = f"{options.device} {options.dtype}"
        earlier = RESULTS / "recurrent.json"
        record = json.loads(earlier.read_text(encoding="utf-8")) if earlier.exists() else {}
        record[key] = {
            **stamp(
                f"python benchmarks/recurrent.py --device {options.device} --dtype {options.dtype}", options.device
            ),
            "seed": SEED,
            "rounds": rounds,
            "cases": cases,
            "ratios": ratios,
        }
        write("recurrent", record)
    for name, ratio in ratios.items():
        print(f"ratio {name} {ratio:.3f}")


if __name__ == "__main__":
    main()
