"""How fast the book's character decoder learns tiny Shakespeare, beside nanoGPT's published recipe for a CPU.

`python benchmarks/shakespeare.py [race] [ablations] [pace] [--quick]` prints a table, writes
benchmarks/results/shakespeare.json (each part keeps what the other wrote) and ends with one line
`ratio <case> <ours/peer>` per case; below 1 means that ours needs less. `--quick` takes a few steps and writes nothing.

`race`: wall time and tokens until the loss on the whole validation split (last 10 %) is at most 1.88 nats per
character, and the best loss within 60 and 180 seconds of training. Time runs while a model is trained and stands still
while it is evaluated. The peer is nanoGPT's recipe with `transformers`' `GPT2LMHeadModel`: 4 layers, 4 heads, width
128, context 64, batch 12, 2,000 updates, AdamW at 1e-3 with 100 steps of warm-up and a cosine to 1e-4, float32; its
optimiser is torch's fused one. Both sides take turns. `ablations`: the race's model with one option switched off at a
time, the same number of updates and three seeds. `pace`: milliseconds per update of the same variants, in turns.

`--device cuda` instead trains the shape of GPT-2 (124 M weights) on random tokens, ours and the peer's both compiled,
in bfloat16 and with flash attention, and reports tokens per second and model FLOP utilisation (`--peak` in TFLOP/s).
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from record import RESULTS, stamp, write
from torch import Tensor, nn

from lmtl_course import data
from lmtl_course.losses import cross_entropy
from lmtl_course.metrics import mean_interval
from lmtl_course.text import Vocabulary
from lmtl_course.training import TrainConfig, evaluate, lr_at, train
from lmtl_course.transformer import GPT, TransformerConfig, Windows, decoder_loss, flops_per_token, windows

TARGET, BUDGETS, SEEDS = 1.88, (60, 180), (0, 1, 2)
SPRINT = (
    TransformerConfig(vocab=1, context=64, layers=2),
    TrainConfig(steps=240, lr=3e-2, optimizer="muon", momentum=0.9),
    24,
)
"""Model, training and batch for the way to 1.88; `vocab` is filled in."""
LONG = (
    TransformerConfig(vocab=1, context=128, layers=4),
    TrainConfig(steps=1, lr=1.5e-2, optimizer="muon", weight_decay=0.1, warmup=1),
    24,
)
"""The same for a budget of seconds; the number of updates is what fits."""
PEER = TrainConfig(
    steps=2000, lr=1e-3, warmup=100, min_ratio=0.1, weight_decay=0.1, betas=(0.9, 0.99), autocast=False
)  # nanoGPT's; its loop is below

Look = dict[str, float]


def texts() -> tuple[int, dict[str, Tensor]]:
    """How many characters there are, and both splits as numbers."""
    splits = {split: data.load("tinyshakespeare", split, stand_in=True).text for split in ("train", "valid")}
    vocabulary = Vocabulary.build(splits["train"])
    return len(vocabulary), {split: torch.tensor(vocabulary.encode(text)) for split, text in splits.items()}


def ours(
    ids: dict[str, Tensor],
    setup: tuple[TransformerConfig, TrainConfig, int],
    vocab: int,
    seed: int,
    **changes: Any,
) -> list[Look]:
    """One run with `train`; a look is taken at every `eval_every` steps and at the end."""
    shape, config, batch = setup
    torch.manual_seed(seed)
    model = GPT(replace(shape, vocab=vocab))
    seq, looks = shape.context, []

    def note(history: Any) -> None:
        step, nats = history.looks[-1]
        looks.append({"step": step, "tokens": history.tokens, "seconds": history.seconds, "nats": nats})

    config = replace(config, seed=seed, **changes)
    train(model, Windows(ids["train"], batch, seq, seed), decoder_loss, config, windows(ids["valid"], 64, seq), note)
    return looks


class Peer(nn.Module):
    """nanoGPT's small model in `transformers`, called like ours."""

    def __init__(self, vocab: int):
        from transformers import GPT2Config, GPT2LMHeadModel

        super().__init__()
        sizes = {"n_positions": 64, "n_embd": 128, "n_layer": 4, "n_head": 4}
        no_dropout = {
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "bos_token_id": None,
            "eos_token_id": None,
        }
        self.inner = GPT2LMHeadModel(GPT2Config(vocab_size=vocab, **sizes, **no_dropout))

    def forward(self, idx: Tensor) -> Tensor:
        """Scores of the next token at every position."""
        return self.inner(idx, use_cache=False).logits


def peer(ids: dict[str, Tensor], vocab: int, seed: int, steps: int, eval_every: int) -> list[Look]:
    """The loop of nanoGPT: random pieces, one fused AdamW, one clip."""
    torch.manual_seed(seed)
    model, text = Peer(vocab), ids["train"]
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": PEER.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, PEER.lr, PEER.betas, fused=True)
    valid, looks, seconds, offsets = windows(ids["valid"], 64, 64), [], 0.0, torch.arange(64)
    for step in range(steps):
        start = time.perf_counter()
        at = torch.randint(len(text) - 64, (12, 1)) + offsets
        loss = nn.functional.cross_entropy(model(text[at]).flatten(0, 1), text[at + 1].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), PEER.clip)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, PEER)
        optimizer.step()
        optimizer.zero_grad()
        seconds += time.perf_counter() - start
        if (step + 1) % eval_every == 0 or step + 1 == steps:
            nats = evaluate(model, valid, decoder_loss, autocast=False)
            looks.append({"step": step + 1, "tokens": (step + 1) * 12 * 64, "seconds": seconds, "nats": nats})
    return looks


def reached(looks: list[Look], target: float) -> Look | None:
    """The first look at or below the target."""
    return next((look for look in looks if look["nats"] <= target), None)


def best_within(looks: list[Look], seconds: float) -> float:
    """The lowest loss among the looks in time."""
    return min((look["nats"] for look in looks if look["seconds"] <= seconds), default=math.nan)


def fitted(ids: dict[str, Tensor], vocab: int, seconds: float) -> tuple[TransformerConfig, TrainConfig, int]:
    """The long setup with as many updates as fit into the budget, by the clock of a short run."""
    few = replace(LONG[1], steps=12, warmup=0)
    first = ours(ids, (LONG[0], few, LONG[2]), vocab, 0, eval_every=4)
    pace = (first[-1]["seconds"] - first[0]["seconds"]) / 8
    steps = max(2, int(0.94 * seconds / pace))
    return LONG[0], replace(LONG[1], steps=steps, warmup=min(30, steps // 2)), LONG[2]


def race(quick: bool) -> dict[str, Any]:
    vocab, ids = texts()
    peer_steps, runs = (20 if quick else PEER.steps), {"ours": [], "peer": []}
    sprint = (SPRINT[0], replace(SPRINT[1], steps=10), SPRINT[2]) if quick else SPRINT
    for seed in SEEDS[:1] if quick else SEEDS:  # in turns
        runs["ours"].append(ours(ids, sprint, vocab, seed, eval_every=10))
        if seed < 2:
            runs["peer"].append(peer(ids, vocab, seed, peer_steps, 10 if quick else 100))
        for side in ("ours", "peer") if seed < 2 else ("ours",):
            looks = runs[side][-1]
            last, goal = looks[-1], reached(looks, TARGET)
            print(
                f"{side}, seed {seed}: {last['nats']:.3f} nats after {last['step']} updates, {last['seconds']:.1f} s; "
                + (f"{TARGET} after {goal['seconds']:.1f} s" if goal else f"{TARGET} not reached"),
                flush=True,
            )
    long = {}
    for seconds in (2,) if quick else BUDGETS:
        setup = fitted(ids, vocab, seconds)
        looks = ours(ids, setup, vocab, 0, eval_every=max(1, setup[1].steps // 10))
        long[str(seconds)] = {"steps": setup[1].steps, "looks": looks, "nats": best_within(looks, seconds)}
        best = [best_within(found, seconds) for found in runs["peer"]]
        print(
            f"within {seconds} s: ours {long[str(seconds)]['nats']:.3f}, peer {', '.join(f'{b:.3f}' for b in best)}",
            flush=True,
        )
    if not quick and not all(reached(looks, TARGET) for looks in runs["ours"]):
        raise SystemExit(f"a run of ours ended above {TARGET}; give SPRINT more steps")
    need = {
        side: {
            key: [
                (reached(looks, TARGET) or looks[-1])[key] for looks in found
            ]  # the peer's end, where it never got there
            for key in ("seconds", "tokens")
        }
        for side, found in runs.items()
    }
    ratios = {
        f"shakespeare-{name}-to-{TARGET}": statistics.mean(need["ours"][key]) / statistics.mean(need["peer"][key])
        for name, key in (("time", "seconds"), ("tokens", "tokens"))
    }
    return {
        "target": TARGET,
        "seeds": {"ours": list(SEEDS), "peer": [0, 1]},
        "setups": {"sprint": described(sprint), "long": described(LONG)},
        "runs": runs,
        "needed": need,
        "peer_reached_target": [reached(looks, TARGET) is not None for looks in runs["peer"]],
        "within": long,
        "peer_within": {str(s): [best_within(found, s) for found in runs["peer"]] for s in BUDGETS},
        "ratios": ratios,
    }


def described(setup: tuple[TransformerConfig, TrainConfig, int]) -> dict[str, Any]:
    shape, config, batch = setup
    kept = ("steps", "lr", "optimizer", "momentum", "weight_decay", "warmup", "autocast")
    return {
        **{"layers": shape.layers, "d_model": shape.d_model, "heads": shape.heads, "seq": shape.context},
        **{"batch": batch, **{name: getattr(config, name) for name in kept}},
    }


# ------------------------------------------------------------------------------------------------------- ablations

OFF: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {  # changes of model, training, and batch
    "everything": ({}, {}, 24),
    "float32 instead of bfloat16": ({}, {"autocast": False}, 24),
    "AdamW instead of Muon": ({}, {"optimizer": "adamw"}, 24),
    "learned instead of rotary positions": ({"positions": "learned"}, {}, 24),
    "no QK-norm": ({"qk_norm": False}, {}, 24),
    "random instead of zero projections": ({"zero_init": False}, {}, 24),
    "GELU instead of squared ReLU": ({"activation": "gelu"}, {}, 24),
    "layer norm instead of RMS norm": ({"norm": "layer"}, {}, 24),
    "half the batch": ({}, {}, 12),
    "twice the batch, half the updates": ({}, {"steps": 120}, 48),
    "constant learning rate": ({}, {"min_ratio": 1.0}, 24),
}
RATES = {
    "AdamW instead of Muon": (2.5e-3, 5e-3, 1e-2),
    "constant learning rate": (7.5e-3, 1.5e-2, 3e-2),
    "half the batch": (1.5e-2, 3e-2),
    "twice the batch, half the updates": (3e-2, 4e-2),
    "learned instead of rotary positions": (1.5e-2, 3e-2),
    "random instead of zero projections": (1.5e-2, 3e-2),
    "no QK-norm": (1.5e-2, 3e-2),
}


def ablations(quick: bool) -> list[dict[str, Any]]:
    """Each option switched off, at the best of a few rates where the optimal one is likely to move."""
    vocab, ids = texts()
    rows = []
    for name, (model, training, batch) in list(OFF.items())[: 2 if quick else None]:
        setup = replace(SPRINT[0], **model), replace(SPRINT[1], **training), batch
        if quick:
            setup = setup[0], replace(setup[1], steps=5), batch
        rates = RATES.get(name, (SPRINT[1].lr,))
        tried = {lr: ours(ids, setup, vocab, 100, lr=lr)[-1]["nats"] for lr in rates} if len(rates) > 1 else {}
        lr = min(tried, key=lambda rate: tried[rate]) if tried else rates[0]
        ends = [ours(ids, setup, vocab, seed, lr=lr)[-1] for seed in SEEDS[: 2 if quick else None]]
        mean, half = mean_interval([end["nats"] for end in ends])
        rows.append(
            {
                "name": name,
                "lr": lr,
                "loss": [end["nats"] for end in ends],
                "mean": mean,
                "half_width": half,
                "updates": setup[1].steps,
            }
        )
        print(f"{name:36} lr {lr:<6g} {mean:.3f} ± {half:.3f} nats", flush=True)
    return rows


def pace(quick: bool, rounds: int = 5, steps: int = 12) -> dict[str, float]:
    """Milliseconds per update of every variant: the median over rounds in which all take turns."""
    vocab, ids = texts()
    took: dict[str, list[float]] = {name: [] for name in OFF}
    for _ in range(1 if quick else rounds):
        for name, (model, training, batch) in OFF.items():
            config = replace(SPRINT[1], **{**training, "steps": steps})
            looks = ours(ids, (replace(SPRINT[0], **model), config, batch), vocab, 0, eval_every=4)
            took[name].append((looks[-1]["seconds"] - looks[0]["seconds"]) / (steps - 4))  # the first few warm up
    found = {name: 1000 * statistics.median(times) for name, times in took.items()}
    for name, milliseconds in found.items():
        print(f"{name:36} {milliseconds:6.1f} ms per update", flush=True)
    return found


# ------------------------------------------------------------------------------------------------------------- cuda


def cuda(peak: float, quick: bool) -> dict[str, Any]:
    """Tokens per second of the 124 M shape, both sides compiled."""
    from transformers import GPT2Config, GPT2LMHeadModel

    batch, seq, device = (2 if quick else 16), 1024, "cuda"
    config = TransformerConfig.gpt2(dropout=0.0)
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    theirs = GPT2LMHeadModel(GPT2Config(**no_dropout, attn_implementation="sdpa")).to(device)
    mine = GPT.from_transformers(theirs)
    idx = torch.randint(config.vocab, (batch, seq + 1), device=device)
    forwards: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {
        "ours": (mine, torch.compile(mine)),
        "peer": (theirs, torch.compile(lambda x: theirs(x, use_cache=False).logits)),
    }

    def step(model: nn.Module, forward: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer) -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = cross_entropy(forward(idx[:, :-1]), idx[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds: dict[str, list[float]] = {side: [] for side in forwards}
    optimizers = {side: torch.optim.AdamW(m.parameters(), 1e-4, fused=True) for side, (m, _) in forwards.items()}
    for index in range(4 if quick else 30):
        for side, (model, forward) in forwards.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            step(model, forward, optimizers[side])
            torch.cuda.synchronize()
            if index > 2:
                seconds[side].append(time.perf_counter() - start)
    flops = flops_per_token(config, seq, training=True)
    rows = {}
    for side, times in seconds.items():
        speed = batch * seq / statistics.median(times)
        rows[side] = {"tokens_per_second": speed, "mfu": speed * flops / (peak * 1e12)}
        print(f"{side}: {speed:,.0f} tokens/s, {rows[side]['mfu']:.1%} of {peak} TFLOP/s", flush=True)
    ratio = rows["peer"]["tokens_per_second"] / rows["ours"]["tokens_per_second"]
    return {"batch": batch, "seq": seq, "peak_tflops": peak, **rows, "ratios": {"gpt2-124m-cuda-time": ratio}}


def main() -> None:
    parser = argparse.ArgumentParser(description="Training speed on tiny Shakespeare.")
    parser.add_argument("parts", nargs="*", choices=["race", "ablations", "pace", []], metavar="PART")
    parser.add_argument("--quick", action="store_true", help="a few steps, nothing is written")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peak", type=float, default=989.0, help="the GPU's bfloat16 TFLOP/s (an H100's: 989)")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device here; run without --device for the CPU")
    path = RESULTS / "shakespeare.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    parts = ["cuda"] if options.device == "cuda" else options.parts or ["race", "ablations", "pace"]
    ratios: dict[str, float] = {}
    for part in parts:
        command = "--device cuda" if part == "cuda" else part
        head = stamp(f"python benchmarks/shakespeare.py {command}", options.device)
        if part == "ablations":
            found: dict[str, Any] = {"seeds": list(SEEDS), "ablations": ablations(options.quick)}
        elif part == "pace":
            found = {"milliseconds_per_update": pace(options.quick)}
        else:
            found = cuda(options.peak, options.quick) if part == "cuda" else race(options.quick)
            ratios |= found["ratios"]
        record[part] = {**head, "data": data.loaded(), **found}
        if not options.quick:
            write("shakespeare", record)
    for name, ratio in ratios.items():
        print(f"ratio {name} {ratio:.4f}")


if __name__ == "__main__":
    main()
