"""Which parts of the Transformer does it need? Each is taken away, and the rest trained with the same budget.

`python benchmarks/transformer.py [parts] [norms] [--quick] [--minutes M] [--anew]` prints a table, writes
benchmarks/results/transformer_<part>.json and ends with one line `ratio <case> <ours/peer>` per case: the loss of the
full model divided by that of the one without the part, so below 1 the part is worth having. Every variant has the same
batches, number of updates and seeds, and its own best learning rate, found with seed 0 (doubled or halved until the
best lies inside what was tried) and then run with three others. `norms` trains pre- and post-norm at two depths.
`--minutes` stops after that time (a run that has begun is finished), and the next call goes on with what is missing;
`--anew` forgets what was measured. `--quick` trains a few steps of two variants and writes nothing.
"""

import argparse
import contextlib
import json
import math
import time
from dataclasses import asdict
from typing import Any

import torch
from record import RESULTS, stamp, write

from lmtl_course import data
from lmtl_course.metrics import mean_interval
from lmtl_course.text import Vocabulary
from lmtl_course.training import History, LanguageModel, Streams, TrainConfig, evaluate, next_token_loss, train
from lmtl_course.transformer import GPT, TransformerConfig, Windows, decoder_loss, windows

SEEDS = (1, 2, 3)
BATCH, SEQ, STEPS, WARMUP = 32, 64, 200, 20
BASE: dict[str, Any] = {"context": SEQ, "d_model": 64, "layers": 4, "heads": 4}
PARTS: dict[str, dict[str, Any]] = {
    "everything": {},
    "no positions": {"positions": "none"},
    "no residual": {"residual": False, "zero_init": False},
    "LSTM": {"d_hidden": 192},  # chapter 6's, of about as many weights
    "no norm": {"norm": "none", "qk_norm": False},
    "one head": {"heads": 1},
    "learned positions": {"positions": "learned"},
    "post-norm": {"norm_first": False},
    "no QK-norm": {"qk_norm": False},
    "no zero init": {"zero_init": False},
    "GELU": {"activation": "gelu"},
    "layer norm": {"norm": "layer"},
    "sinusoidal positions": {"positions": "sinusoidal"},
    "tied output": {"tied": True},
}
NORMS = {
    f"{name}, {layers} layers": {"norm_first": first, "layers": layers, "zero_init": False, "norm": "layer"}
    for layers in (2, 8)
    for name, first in (("pre-norm", True), ("post-norm", False))
}
PLANS: dict[str, tuple[dict[str, dict[str, Any]], tuple[float, ...], str]] = {
    "parts": (PARTS, (0.02, 0.04), "muon"),
    "norms": (NORMS, (4e-3, 8e-3), "adamw"),
}
SLOWEST, FASTEST = 2.5e-4, 0.4  # where the search for a learning rate ends


class Bench:
    """The text, and runs that are not repeated when they are in the file already."""

    def __init__(self, part: str, quick: bool, anew: bool, minutes: float):
        self.part, self.quick, self.end = part, quick, time.monotonic() + 60 * minutes
        text = {split: data.load("tinyshakespeare", split, stand_in=True).text for split in ("train", "valid")}
        self.vocabulary = Vocabulary.build(text["train"])
        self.ids = {name: torch.tensor(self.vocabulary.encode(t)) for name, t in text.items()}
        path = RESULTS / f"transformer_{part}.json"
        self.rows: list[dict[str, Any]] = []
        if path.exists() and not anew and not quick:
            self.rows = json.loads(path.read_text(encoding="utf-8"))["runs"]

    def run(self, name: str, options: dict[str, Any], lr: float, seed: int, optimizer: str) -> dict[str, Any]:
        """One training run and its loss on the whole validation text, in nats per character."""
        for row in self.rows:
            if (row["name"], row["lr"], row["seed"]) == (name, lr, seed):
                return row
        if time.monotonic() > self.end:
            raise TimeoutError
        steps = 4 if self.quick else STEPS
        config = TrainConfig(steps, lr, optimizer, warmup=min(WARMUP, steps), seed=seed)
        torch.manual_seed(seed)
        extra: dict[str, float] = {}
        history, nats = History(), math.inf  # what is left of a run that ends in numbers that are none
        if name == "LSTM":
            model: Any = LanguageModel(len(self.vocabulary), BASE["d_model"], **options)
            valid = Streams(self.ids["valid"], 64, SEQ)
            history = train(model, Streams(self.ids["train"], BATCH, SEQ), next_token_loss, config)
            # as little context as the others have, and then with the state that is a recurrent network's own
            nats = evaluate(model, ((x, y, True) for x, y, _ in valid), next_token_loss)
            extra["carried"] = evaluate(model, valid, next_token_loss)
        else:
            model = GPT(TransformerConfig(len(self.vocabulary), **{**BASE, **options}))
            with contextlib.suppress(FloatingPointError):
                history = train(model, Windows(self.ids["train"], BATCH, SEQ, seed), decoder_loss, config)
                nats = evaluate(model, windows(self.ids["valid"], 64, SEQ), decoder_loss)
        row = {"name": name, "lr": lr, "seed": seed, "nats": nats, "seconds": round(history.seconds, 1), **extra}
        row |= {"parameters": sum(p.numel() for p in model.parameters())}
        row |= {"loss": [round(x, 4) for x in history.loss[::5]], "norm": [round(x, 4) for x in history.norm[::5]]}
        print(f"{name:22s} lr {lr:<6g} seed {seed}  {nats:.4f} nats  {row['seconds']} s", flush=True)
        self.rows.append(row)
        return row

    def save(self, ablations: list[dict[str, Any]], ratios: dict[str, float], complete: bool) -> None:
        """The file as it stands now, complete or not."""
        if self.quick:
            return
        _, rates, optimizer = PLANS[self.part]
        settings = {"steps": STEPS, "batch": BATCH, "seq": SEQ, "rates": rates, "base": BASE}
        training = asdict(TrainConfig(STEPS, rates[0], optimizer, warmup=WARMUP))
        settings["train"] = {key: value for key, value in training.items() if key != "lr"}
        head = stamp(f"python benchmarks/transformer.py {self.part}")
        head |= {"data": data.loaded(), "seeds": list(SEEDS), "settings": settings, "complete": complete}
        write(f"transformer_{self.part}", head | {"ablations": ablations, "ratios": ratios, "runs": self.rows})

    def all(self) -> dict[str, float]:
        """Every variant at its own best rate, and its loss against the full model's on the same seeds."""
        variants, rates, optimizer = PLANS[self.part]
        if self.quick:
            variants = dict(list(variants.items())[:1] + list(variants.items())[-1:])
            rates = rates[:1]
        ablations: list[dict[str, Any]] = []
        ratios: dict[str, float] = {}
        for name, options in variants.items():
            try:
                ablations.append(self.variant(name, options, rates, optimizer))
            except TimeoutError:
                self.save(ablations, ratios, complete=False)
                raise
            # the full model, or the pre-norm of the same depth
            peer = ablations[0 if self.part == "parts" else (len(ablations) - 1) // 2 * 2]
            if peer["name"] != name:
                ratios[f"{peer['name']}/{name}"] = peer["mean"] / ablations[-1]["mean"]
        self.save(ablations, ratios, complete=True)
        return ratios

    def variant(self, name: str, options: dict[str, Any], rates: tuple[float, ...], optimizer: str) -> dict[str, Any]:
        """One variant at the best rate that can be found with seed 0, with three other seeds."""
        tried = {lr: self.run(name, options, lr, 0, optimizer)["nats"] for lr in rates}
        while not self.quick:
            best = min(tried, key=lambda lr: tried[lr] if math.isfinite(tried[lr]) else math.inf)
            lr = best * 2 if best == max(tried) else best / 2 if best == min(tried) else None
            if lr is None or not SLOWEST <= lr <= FASTEST:
                break
            tried[lr] = self.run(name, options, lr, 0, optimizer)["nats"]
        lr = min(tried, key=lambda lr: tried[lr] if math.isfinite(tried[lr]) else math.inf)
        runs = [self.run(name, options, lr, seed, optimizer) for seed in SEEDS]
        nats = [row["nats"] for row in runs]
        mean, half = mean_interval(nats)
        option = ", ".join(f"{key}={value!r}" for key, value in options.items())
        row = {"name": name, "option": option, "lr": lr, "loss": nats, "mean": mean, "half_width": half}
        row |= {"tried": sorted(tried.items()), "parameters": runs[0]["parameters"]}
        row |= {"seconds": [run["seconds"] for run in runs]}
        return row | ({"carried": [run["carried"] for run in runs]} if "carried" in runs[0] else {})


def main() -> None:
    parser = argparse.ArgumentParser(description="The Transformer without each of its parts; pre- against post-norm.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PLANS)}; default all")
    parser.add_argument("--quick", action="store_true", help="a few steps of two variants, nothing written")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time; the next call goes on")
    parser.add_argument("--anew", action="store_true", help="forget what was measured")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PLANS):
        parser.error(f"{', '.join(sorted(unknown))}: the parts are {', '.join(PLANS)}")
    for part in arguments.parts or PLANS:
        bench = Bench(part, arguments.quick, arguments.anew, arguments.minutes)
        try:
            ratios = bench.all()
        except TimeoutError:
            print(f"{part}: {len(bench.rows)} runs are done; call again for the rest", flush=True)
            continue
        for case, ratio in ratios.items():
            print(f"ratio transformer-{part}-{case.replace(', ', '-').replace(' ', '-')} {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
