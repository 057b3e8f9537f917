"""Training runs that are longer than a notebook may be: two optimisers, a longer run, a migration.

`python benchmarks/training.py [optimizers] [long] [migration] [--quick]` prints a table, writes
benchmarks/results/training_<part>.json and ends with one line `ratio <case> <ours/peer>` per case, below 1 in favour of
the first. `--quick` runs a few steps and writes nothing. `optimizers` gives AdamW and Muon the same model, batches,
warm-up and number of updates, and each its own best learning rate of a grid, found with one seed and then run with
three others. `migration` continues a model of one text on a small sample of another, against a model that starts from
nothing there, each again with its own best learning rate.
"""

import argparse
import math
import statistics
from dataclasses import replace
from typing import Any

import torch
from record import stamp, write

from lmtl_course import data
from lmtl_course.text import Vocabulary
from lmtl_course.training import (
    LanguageModel,
    Streams,
    TrainConfig,
    evaluate,
    next_token_loss,
    train,
)

SEEDS = (1, 2, 3)
BATCH, SEQ, D_MODEL, D_HIDDEN = 32, 64, 64, 256


def encode(vocabulary: Vocabulary, text: str) -> torch.Tensor:
    return torch.tensor(vocabulary.encode(text))


def texts() -> tuple[Vocabulary, dict[str, torch.Tensor]]:
    """Plays to learn from, reviews to move to, one vocabulary of characters made from the training texts of both."""
    plays = {split: data.load("tinyshakespeare", split, stand_in=True).text for split in ("train", "valid")}
    reviews = {
        split: "\n".join(row.text for row in data.load("sst2", split, stand_in=True)) for split in ("train", "test")
    }
    vocabulary = Vocabulary.build(plays["train"] + reviews["train"])
    named = {"train": plays["train"], "valid": plays["valid"], "reviews": reviews["train"], "test": reviews["test"]}
    return vocabulary, {name: encode(vocabulary, text) for name, text in named.items()}


def fresh_model(vocabulary: Vocabulary, seed: int, d_hidden: int = D_HIDDEN, **settings: Any) -> LanguageModel:
    torch.manual_seed(seed)
    return LanguageModel(len(vocabulary), D_MODEL, d_hidden, **settings)


def optimizers(quick: bool) -> dict[str, Any]:
    vocabulary, ids = texts()
    batches, valid = Streams(ids["train"], BATCH, SEQ), Streams(ids["valid"], BATCH, 256)
    base = TrainConfig(steps=10 if quick else 200, warmup=5 if quick else 20)
    rates = (8e-3, 1.6e-2, 3.2e-2, 6.4e-2, 1.28e-1)
    grids = {"adamw": rates, "muon": rates}
    sweep, runs = [], []

    def run(optimizer: str, lr: float, seed: int) -> dict[str, Any]:
        model = fresh_model(vocabulary, seed)
        config = replace(base, optimizer=optimizer, lr=lr, seed=seed)
        history = train(model, batches, next_token_loss, config, valid)
        row = {
            "optimizer": optimizer,
            "lr": lr,
            "seed": seed,
            "nats": history.looks[-1][1],
            "seconds": round(history.seconds, 1),
            "loss": [round(x, 4) for x in history.loss[::5]],
        }
        print(f"{optimizer:6s} lr {lr:<7g} seed {seed}  {row['nats']:.4f} nats  {row['seconds']} s", flush=True)
        return row

    best = {}
    for optimizer, grid in grids.items():
        tried = [run(optimizer, lr, 0) for lr in grid]
        sweep += tried
        best[optimizer] = min(tried, key=lambda row: row["nats"])["lr"]
    for seed in SEEDS:
        runs += [run(optimizer, lr, seed) for optimizer, lr in best.items()]
    mean = {name: statistics.mean(r["nats"] for r in runs if r["optimizer"] == name) for name in grids}
    time_of = {name: statistics.median(r["seconds"] for r in runs if r["optimizer"] == name) for name in grids}
    ratios = {
        "muon/adamw nats": mean["muon"] / mean["adamw"],
        "muon/adamw seconds": time_of["muon"] / time_of["adamw"],
    }
    settings = {"steps": base.steps, "batch": BATCH, "seq": SEQ, "d_model": D_MODEL, "d_hidden": D_HIDDEN}
    return {"settings": settings, "sweep": sweep, "runs": runs, "ratios": ratios}


def long(quick: bool) -> dict[str, Any]:
    vocabulary, ids = texts()
    steps, d_hidden, dropout = (10, 64, 0.3) if quick else (3000, 384, 0.3)
    batches, valid = Streams(ids["train"], BATCH, SEQ), Streams(ids["valid"], BATCH, 256)
    model = fresh_model(vocabulary, 0, d_hidden, dropout=dropout)
    config = TrainConfig(
        steps, lr=2e-2, optimizer="muon", weight_decay=0.1, warmup=steps // 20, eval_every=steps // 20 or 1, patience=5
    )
    history = train(model, batches, next_token_loss, config, valid)
    streamed = evaluate(model, Streams(ids["valid"], 1, 512), next_token_loss)
    print(f"best {history.best:.4f} nats after {history.tokens:,} tokens; one unbroken stream {streamed:.4f}")
    return {
        "settings": {**vars(config), "batch": BATCH, "seq": SEQ, "d_model": D_MODEL, "d_hidden": d_hidden}
        | {"dropout": dropout, "parameters": sum(p.numel() for p in model.parameters())},
        "looks": history.looks,
        "loss": [round(x, 4) for x in history.loss[:: max(1, steps // 200)]],
        "tokens": history.tokens,
        "passes": history.tokens / (len(ids["train"]) - 1),
        "best": history.best,
        "one_stream": streamed,
        "seconds": round(history.seconds, 1),
        "ratios": {"long/uniform nats": history.best / math.log(len(vocabulary))},
    }


def migrate(model: LanguageModel, known: torch.Tensor, lr: float, seed: int, steps: int) -> tuple[float, int, int]:
    """Train on all that is known of a new domain, its last fifth kept for early stopping.

    Gives the best nats on that fifth, the updates until then, and all updates.
    """
    cut = len(known) * 4 // 5
    rows = min(16, max(1, cut // 256))
    learn, look = Streams(known[:cut], rows, SEQ), Streams(known[cut:], min(32, max(1, (len(known) - cut) // 256)), 256)
    config = TrainConfig(
        steps, lr, "muon", weight_decay=0.1, warmup=10, min_ratio=0.1, eval_every=10, patience=5, seed=seed
    )
    history = train(model, learn, next_token_loss, config, look)
    best = min(history.looks, key=lambda look: look[1])
    return best[1], best[0], history.steps


def migration(quick: bool) -> dict[str, Any]:
    vocabulary, ids = texts()
    source, steps = fresh_model(vocabulary, 0), 10 if quick else 300
    config = TrainConfig(steps, lr=3.2e-2, optimizer="muon", warmup=steps // 10)
    train(source, Streams(ids["train"], BATCH, SEQ), next_token_loss, config)
    weights = {name: t.clone() for name, t in source.state_dict().items()}
    test = Streams(ids["test"], BATCH, 256)
    before = {
        "plays": evaluate(source, Streams(ids["valid"], BATCH, 256), next_token_loss),
        "reviews": evaluate(source, test, next_token_loss),
    }
    print(f"source model: {before}", flush=True)
    sizes, rates = (2_000, 8_000, 32_000, 128_000), (1.2e-3, 4e-3, 1.2e-2, 3.6e-2, 0.1)
    if quick:
        sizes, rates = sizes[:1], rates[2:3]
    sweep, runs = [], []

    def run(start: str, size: int, lr: float, seed: int) -> dict[str, Any]:
        model = fresh_model(vocabulary, seed)
        if start == "pretrained":
            model.load_state_dict(weights)
        first = seed * (len(ids["reviews"]) - size) // len(SEEDS)  # each seed knows reviews of its own
        known = ids["reviews"][first : first + size]
        nats, best, done = migrate(model, known, lr, seed, 10 if quick else 300)
        row = {"start": start, "characters": size, "lr": lr, "seed": seed, "valid": nats, "best_step": best}
        row |= {"steps": done, "nats": evaluate(model, test, next_token_loss)}
        print(
            f"{start:10s} {size:7,} chars  lr {lr:<6g} seed {seed}  {row['nats']:.4f}  step {best}/{done}", flush=True
        )
        return row

    for size in sizes:
        for start in ("pretrained", "scratch"):
            tried = [run(start, size, lr, 0) for lr in rates]
            sweep += tried
            lr = min(tried, key=lambda row: row["valid"])["lr"]
            runs += [run(start, size, lr, seed) for seed in SEEDS]
    mean = {
        (start, size): statistics.mean(r["nats"] for r in runs if (r["start"], r["characters"]) == (start, size))
        for start in ("pretrained", "scratch")
        for size in sizes
    }
    ratios = {f"pretrained/scratch nats {n}": mean["pretrained", n] / mean["scratch", n] for n in sizes}
    return {"settings": vars(config), "before": before, "sweep": sweep, "runs": runs, "ratios": ratios}


PARTS = {"optimizers": optimizers, "long": long, "migration": migration}


def main() -> None:
    parser = argparse.ArgumentParser(description="Longer training runs: optimisers, one long run, a migration.")
    parser.add_argument(
        "parts", choices=[*PARTS, []], nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default all"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps, nothing written")
    arguments = parser.parse_args()
    for part in arguments.parts or PARTS:
        result = PARTS[part](arguments.quick)
        if not arguments.quick:
            record = {
                **stamp(f"python benchmarks/training.py {part}"),
                "data": data.loaded(),
                "seeds": list(SEEDS),
                **result,
            }
            write(f"training_{part}", record)
        for case, ratio in result["ratios"].items():
            print(f"ratio training-{case.replace(' ', '-')} {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
