"""Generation against `transformers.generate`: the same GPT-2 architecture, weights, precision and tokens.

`python benchmarks/generation.py [--quick] [--dtype bfloat16]` continues a prompt of 32 tokens by 256, greedily, on the
CPU, both sides in float32 or, with the option, both in bfloat16, for one text and for eight, at a small shape (6 layers
of width 256, a vocabulary of 4,096) and at GPT-2's own (124 M weights). Both sides alternate in one process and must
write the same tokens (in bfloat16 the order of additions can change a choice, so the share of equal tokens is recorded
instead); the median of the rounds counts. The peer runs as fast as it can: its cache, fused attention, inference mode,
evaluation mode, no stop token to look for, and of its two kinds of cache the one that was faster in a trial. It prints
a table, writes benchmarks/results/generation.json (generation_bfloat16.json) and ends with one line
`ratio <case> <ours/peer>` per case, below 1 in our favour. The last case is for information: the small shape with
GPT-2's vocabulary of 50,257, where both sides mostly wait for the same output layer. `--quick` uses fewer tokens and
rounds and writes nothing.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from record import stamp, write
from torch import Tensor

from lmtl_course.generation import generate
from lmtl_course.transformer import GPT

SEED, PROMPT, NEW = 0, 32, 256
SHAPES: dict[str, dict[str, int]] = {
    "mini": {"n_layer": 6, "n_embd": 256, "n_head": 8, "vocab_size": 4096},
    "124m": {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257},
    "mini-50257": {"n_layer": 6, "n_embd": 256, "n_head": 8, "vocab_size": 50257},
}
CASES = [("mini", 1), ("mini", 8), ("124m", 1), ("124m", 8), ("mini-50257", 1)]
ROUNDS = {"mini": 7, "124m": 3, "mini-50257": 5}


def make_pair(shape: str, dtype: torch.dtype) -> tuple[Any, GPT]:
    """Their model with random weights, and ours with the same, both in one precision."""
    torch.manual_seed(SEED)
    config = transformers.GPT2Config(
        **SHAPES[shape], n_positions=1024, attn_implementation="sdpa", bos_token_id=None, eos_token_id=None
    )
    theirs = transformers.GPT2LMHeadModel(config).eval()
    return theirs.to(dtype), GPT.from_transformers(theirs).to(dtype)


def peer(model: Any, prompt: Tensor, new: int, cache: str) -> Tensor:
    settings = transformers.GenerationConfig(
        max_new_tokens=new, do_sample=False, use_cache=True, cache_implementation=cache, pad_token_id=0
    )
    with torch.inference_mode():
        return model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=settings)


def seconds(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def measure(shape: str, batch: int, new: int, rounds: int, pair: tuple[Any, GPT]) -> dict[str, Any]:
    theirs, ours = pair
    prompt = torch.randint(
        SHAPES[shape]["vocab_size"], (batch, PROMPT), generator=torch.Generator().manual_seed(SEED + 1)
    )
    generate(ours, prompt, 4, temperature=0.0)
    trial: dict[str, float] = {}
    for cache in ("dynamic", "static"):
        peer(theirs, prompt, 4, cache)
        trial[cache] = min(seconds(lambda cache=cache: peer(theirs, prompt, max(8, new // 8), cache))[0] for _ in "ab")
    cache = min(trial, key=trial.__getitem__)
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    same = 1.0
    for _ in range(rounds):
        took, wanted = seconds(lambda: peer(theirs, prompt, new, cache))
        times["peer"].append(took)
        took, found = seconds(lambda: generate(ours, prompt, new, temperature=0.0))
        times["ours"].append(took)
        same = min(same, (found == wanted)[:, PROMPT:].float().mean().item())
        assert same == 1.0 or theirs.dtype == torch.bfloat16, "the same weights must write the same text"
    median = {side: statistics.median(runs) for side, runs in times.items()}
    row = {
        "case": f"{shape}-b{batch}",
        "batch": batch,
        "new_tokens": new,
        "peer_cache": cache,
        "same_tokens": round(same, 4),
        "seconds": times,
        "ms_per_token": {side: round(1e3 * t / new, 3) for side, t in median.items()},
        "ratio": median["ours"] / median["peer"],
    }
    print(
        f"{row['case']:14s} ours {1e3 * median['ours'] / new:8.2f} ms/token   transformers ({cache} cache) "
        f"{1e3 * median['peer'] / new:8.2f} ms/token   ratio {row['ratio']:.3f}",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="generate() against transformers, greedily, on the CPU.")
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(f'{s}-b{b}' for s, b in CASES)}; default all")
    parser.add_argument("--quick", action="store_true", help="16 tokens, one round, nothing written")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of both sides")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    transformers.logging.set_verbosity_error()
    wanted = arguments.cases or [f"{shape}-b{batch}" for shape, batch in CASES]
    rows, pairs = [], {}
    for shape, batch in CASES:
        if f"{shape}-b{batch}" in wanted:
            pairs = pairs if shape in pairs else {shape: make_pair(shape, dtype)}
            new, rounds = (16, 1) if arguments.quick else (NEW, ROUNDS[shape])
            rows.append(measure(shape, batch, new, rounds, pairs[shape]))
    if not arguments.quick and not arguments.cases:
        narrow = dtype == torch.bfloat16
        record = stamp("python benchmarks/generation.py" + " --dtype bfloat16" * narrow)
        record["versions"]["transformers"] = transformers.__version__
        record |= {"seeds": [SEED], "dtype": arguments.dtype, "prompt_tokens": PROMPT, "shapes": SHAPES, "cases": rows}
        write("generation_bfloat16" if narrow else "generation", record)
    for row in rows:
        print(f"ratio {row['case']} {row['ratio']:.3f}", flush=True)


if __name__ == "__main__":
    main()
