"""Pretraining runs that are longer than a notebook may be: a scaling law, older models beside it, a better start.

`python benchmarks/pretraining.py [scaling] [peers] [neighbours] [counts] [--quick]` prints a table, writes
benchmarks/results/pretraining_<part>.json and ends with one line `ratio <case> <ours/peer>` per case, below 1 in favour
of the first. `--quick` runs a few steps and writes nothing. All runs use the tokenizers, the corpus, the batches and
the validation text of the shipped models.

`scaling` trains decoders of four sizes on three budgets of tokens, each run once and with a schedule of its own length;
the learning rate is the better of two on the smallest budget, chosen for each size. `peers` gives an LSTM (chapter 6)
the largest of these budgets and an n-gram model (chapter 3) the same tokens, and then all there are. `neighbours`
trains `bert-mini` for a short while with and without `look_at_neighbours`, and `counts` with and without the vectors
of `start_from_counts` (its bias in both), each over three seeds.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from record import stamp, write
from torch import Tensor

from lmtl_course import data
from lmtl_course.ngram import NGramCounts, kneser_ney
from lmtl_course.pretraining import (
    RECIPES,
    MaskedLM,
    Recipe,
    batches_for,
    corpus,
    encode_corpus,
    load_base,
    masked_loss,
    new_model,
)
from lmtl_course.training import LanguageModel, Streams, TrainConfig, evaluate, next_token_loss, train
from lmtl_course.transformer import decoder_loss, windows

SEEDS = (0, 1, 2)
SIZES = ((32, 2, 2), (48, 2, 3), (64, 3, 4), (96, 4, 4))  # d_model, layers, heads
BUDGETS = (150_000, 300_000, 600_000)
RATES = (1.5e-2, 3e-2)
TOKENS = 2048  # in a batch
STRETCH = 8192  # tokens of each test book


@functools.cache
def encoded(name: str, split: str) -> Tensor:
    end = "<end>" if RECIPES[name].kind == "decoder" else "<sep>"
    return encode_corpus(corpus(split), load_base(name).tokenizer, end)


@functools.cache
def books() -> tuple[Tensor, ...]:
    """The first tokens of each test book, after the token that says that a text begins."""
    tokenizer = load_base("gpt-mini").tokenizer
    end = torch.tensor([tokenizer.token_to_id("<end>")])
    texts = [encode_corpus([text], tokenizer, "<end>")[:STRETCH] for text in corpus("test")[:4]]
    return tuple(torch.cat([end, text]) for text in texts)


def run_decoder(size: tuple[int, int, int], tokens: int, lr: float) -> tuple[Any, dict[str, Any]]:
    width, layers, heads = size
    steps = max(2, tokens // TOKENS)
    shape = replace(RECIPES["gpt-mini"].model, d_model=width, layers=layers, heads=heads)
    config = TrainConfig(steps, lr, "muon", weight_decay=0.01, warmup=max(1, steps // 10))
    recipe = replace(RECIPES["gpt-mini"], model=shape, tokens=TOKENS, train=config)
    model = new_model(recipe)
    batches = batches_for(recipe, load_base("gpt-mini").tokenizer, encoded("gpt-mini", "train"))
    valid = windows(encoded("gpt-mini", "valid")[:65_536], 32, recipe.lengths[-1])  # as `pretrain` has it
    history = train(model, batches, decoder_loss, config, valid)
    row = {
        "d_model": width,
        "layers": layers,
        "heads": heads,
        "weights": sum(p.numel() for p in model.parameters()),
        "weights_of_blocks": sum(p.numel() for p in model.blocks.parameters()),
        "tokens": history.tokens,
        "lr": lr,
        "nats": round(history.looks[-1][1], 4),
        "seconds": round(history.seconds, 1),
    }
    print(f"d {width:3d} layers {layers} {history.tokens:9,} tokens lr {lr:g}: {row['nats']} nats", flush=True)
    return model, row


def nats_per_book(model: Any) -> list[float]:
    return [
        round(evaluate(model, windows(book, 8, 256, overlap=128), decoder_loss) * (len(book) - 1), 2)
        for book in books()
    ]


def scaling(quick: bool) -> dict[str, Any]:
    sizes, budgets = (SIZES[:1], (5000, 8000)) if quick else (SIZES, BUDGETS)
    sweep, runs, spent = [], [], time.perf_counter()
    model = None
    for size in sizes:
        tried = [run_decoder(size, budgets[0], lr)[1] for lr in RATES]
        sweep += tried
        best = min(tried, key=lambda row: row["nats"])
        runs.append(best)
        for tokens in budgets[1:]:
            model, row = run_decoder(size, tokens, best["lr"])
            runs.append(row)
    return {
        "settings": {"tokens_per_batch": TOKENS, "lengths": RECIPES["gpt-mini"].lengths, "rates": RATES},
        "train_tokens": len(encoded("gpt-mini", "train")),
        "sweep": sweep,
        "runs": runs,
        "largest_on_books": nats_per_book(model),
        "seconds": round(time.perf_counter() - spent),
        "ratios": {"largest/smallest nats": runs[-1]["nats"] / runs[0]["nats"]},
    }


def peers(quick: bool) -> dict[str, Any]:
    ids, rows, seq, width = encoded("gpt-mini", "train"), 32, 64, 96
    vocab = RECIPES["gpt-mini"].model.vocab
    budget = 8000 if quick else BUDGETS[-1]

    def lstm(lr: float, tokens: int) -> tuple[Any, dict[str, Any]]:
        torch.manual_seed(0)
        model = LanguageModel(vocab, width, width)
        steps = max(2, tokens // (rows * seq))
        config = TrainConfig(steps, lr, "muon", weight_decay=0.01, warmup=max(1, steps // 10))
        valid = Streams(encoded("gpt-mini", "valid")[:65_536], 8, 256)
        history = train(model, Streams(ids, rows, seq), next_token_loss, config, valid)
        row = {"lr": lr, "tokens": history.tokens, "nats": round(history.looks[-1][1], 4)}
        row |= {"weights": sum(p.numel() for p in model.parameters()), "seconds": round(history.seconds, 1)}
        print(f"LSTM lr {lr:g} {history.tokens:,} tokens: {row['nats']} nats", flush=True)
        return model, row

    tried = [lstm(lr, budget // 4)[1] for lr in RATES]
    model, network = lstm(min(tried, key=lambda row: row["nats"])["lr"], budget)
    network["on_books"] = [
        round(evaluate(model, Streams(book, 1, 512), next_token_loss) * (len(book) - 1), 2) for book in books()
    ]
    same = ids[: len(ids) // rows * rows].view(rows, -1)[:, : budget // rows].tolist()  # what the LSTM has read
    held_out = [encoded("gpt-mini", "valid")[:65_536].tolist()]
    tables = []
    for name, texts in (("the same tokens", same), ("all tokens", [ids[:20_000].tolist() if quick else ids.tolist()])):
        counts = NGramCounts.of(texts, 5, vocab)
        orders = {n: float(kneser_ney(counts.upto(n)).nats(held_out)[1:].mean()) for n in (2, 3, 4, 5)}
        order = min(orders, key=lambda n: orders[n])
        chosen = kneser_ney(counts.upto(order))
        row = {"name": name, "tokens": sum(map(len, texts)), "order": order, "nats": round(orders[order], 4)}
        row |= {"tried": {str(n): round(nats, 4) for n, nats in orders.items()}}
        row["entries"] = sum(len(table.keys) for table in counts.upto(order).tables)
        row["on_books"] = [round(float(chosen.nats([book.tolist()])[1:].sum()), 2) for book in books()]
        print(f"Kneser-Ney from {name}: order {order}, {row['nats']} nats, {row['entries']:,} entries", flush=True)
        tables.append(row)
        del counts, chosen
    return {
        "settings": {"lstm_width": width, "rows": rows, "seq": seq, "rates": RATES, "stretch": STRETCH},
        "sweep": tried,
        "lstm": network,
        "ngrams": tables,
        "ratios": {"lstm/n-grams nats": network["nats"] / tables[0]["nats"]},
    }


@functools.cache
def log_shares() -> Tensor:
    """Logarithms of the tokens' frequencies in the corpus, none of them minus infinity."""
    counts = torch.bincount(encoded("bert-mini", "train"), minlength=RECIPES["bert-mini"].model.vocab) + 1.0
    return (counts / counts.sum()).log()


def short_runs(quick: bool, starts: tuple[str, str], prepare: Callable[[Recipe, str], Any]) -> dict[str, Any]:
    """The recipe of `bert-mini` from two starts, shortened to a few steps, over all seeds."""
    base = RECIPES["bert-mini"]
    steps = 4 if quick else 160
    train_ids, valid_ids = encoded("bert-mini", "train"), encoded("bert-mini", "valid")
    tokenizer = load_base("bert-mini").tokenizer
    looks = batches_for(base, tokenizer, valid_ids, seed=1)
    valid = [looks(n) for n in range(6)]
    targets = torch.cat([batch[1].flatten() for batch in valid])
    guess = float(-log_shares()[targets[targets >= 0]].mean())
    runs: list[dict[str, Any]] = []
    for seed in SEEDS[:1] if quick else SEEDS:
        for start in starts:
            config = replace(base.train, steps=steps, warmup=steps // 3, eval_every=max(1, steps // 8), seed=seed)
            config = replace(config, save_every=0, scales=())  # the table learns at the full rate from both
            model = prepare(replace(base, train=config), start)
            history = train(model, batches_for(base, tokenizer, train_ids, seed=seed), masked_loss, config, valid)
            runs.append({"start": start, "seed": seed, "valid": history.looks, "seconds": history.seconds})
            print(f"{start:12s} seed {seed}: {history.looks[-1][1]:.3f} (by frequency {guess:.3f})", flush=True)
    last = {name: statistics.mean(row["valid"][-1][1] for row in runs if row["start"] == name) for name in starts}
    return {
        "settings": {"steps": steps, "tokens_per_batch": base.tokens, "lr": base.train.lr},
        "by_frequency": round(guess, 4),
        "runs": [{**row, "valid": [(n, round(nats, 4)) for n, nats in row["valid"]]} for row in runs],
        "ratios": {f"{starts[0]}/{starts[1]} nats": last[starts[0]] / last[starts[1]]},
    }


def neighbours(quick: bool) -> dict[str, Any]:
    """With and without `look_at_neighbours`, both from a random table."""
    return short_runs(
        quick,
        ("neighbours", "without"),
        lambda recipe, start: new_model(replace(recipe, counts=False, neighbours=start == "neighbours")),
    )


def counts(quick: bool) -> dict[str, Any]:
    """The table from counts or at random; the heads look at their neighbours and the bias is that of counts in both."""

    def prepare(recipe: Recipe, start: str) -> Any:
        model = new_model(replace(recipe, counts=start == "counts"), encoded("bert-mini", "train"))
        if start == "frequencies":
            with torch.no_grad():
                cast(MaskedLM, model).head.bias.copy_(log_shares())
        return model

    return short_runs(quick, ("counts", "frequencies"), prepare)


PARTS = {"scaling": scaling, "peers": peers, "neighbours": neighbours, "counts": counts}


def main() -> None:
    parser = argparse.ArgumentParser(description="Longer pretraining runs: a scaling law, peers, a better start.")
    parser.add_argument(
        "parts", choices=[*PARTS, []], nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default all"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps, nothing written")
    arguments = parser.parse_args()
    for part in arguments.parts or PARTS:
        result = PARTS[part](arguments.quick)
        if not arguments.quick:
            head = {**stamp(f"python benchmarks/pretraining.py {part}"), "data": data.loaded(), "seeds": list(SEEDS)}
            write(f"pretraining_{part}", {**head, **result})
        for case, ratio in result["ratios"].items():
            print(f"ratio pretraining-{case.replace(' ', '-')} {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
