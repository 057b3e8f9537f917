"""Names in the noise of the web: entity F1 on wnut17 from a list of names to a fine-tuned base, and the chain's speed.

`python benchmarks/tagging.py [PART …] [--quick]` prints a line per run, and adds it to results/tagging.json as
soon as it is done: for every rung the entity F1 (lenient and strict), precision, recall, F1 by label, how many seen and
unseen entities were found, what the errors were, and the seconds of each seed. What the file already holds is not
measured again: delete it to start anew. `--quick` takes 200 rows and one seed and writes nothing.

Parts: `main` are the rungs of the chapter over three seeds, all of them with the 3,394 training sentences except where
"rows" says fewer; `choices` takes one decision back at a time (the chain, the capitals, the pretraining) with 400
sentences, the same ones for all with the same seed; `speed` times
one step of the chain, forwards and backwards, against autograd through the same loop, against a loop over tags, and,
where it is installed, against pytorch-crf. Settings were chosen on the validation split.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from record import RESULTS, stamp, write

from lmtl_course import data
from lmtl_course.data import Dataset
from lmtl_course.pretraining import Base, load_base
from lmtl_course.tagging import (
    CRF,
    Gazetteer,
    Tagger,
    TaggingHead,
    chain_score,
    entities,
    entity_f1,
    error_kinds,
    recall_by_novelty,
    surface,
    tag_names,
    train_tagger,
)
from lmtl_course.transfer import FineTuneConfig, finetune, from_scratch

Predict = Callable[[Sequence[Any]], list[list[str]]]
Run = tuple[str, int, int, Callable[[], Predict]]
"""Name of the rung, seed, training rows, and what fits it and gives its predictions."""
SEEDS = 3
SETTINGS: dict[str, dict[str, Any]] = {
    "bert-mini": {"epochs": 3, "batch": 16, "lr": 5e-4, "head_lr": 1e-2, "layer_decay": 1.0},
    "minilm": {"epochs": 2, "batch": 16, "lr": 3e-4, "head_lr": 1e-2},
}
FEWER = {"bert-mini": 1700, "minilm": 1000}
"""Sentences that the bases learn from here; what is trained from scratch has all 3,394."""


def labels_of(*parts: Dataset) -> list[str]:
    return sorted({entity.label for part in parts for row in part for entity in entities(row.tags)})


def tuned(base: Base, settings: str, rows: Dataset, labels: Sequence[str], seed: int, **head: bool) -> Predict:
    config = FineTuneConfig(seed=seed, **SETTINGS[settings])
    made = TaggingHead(base.config.d_model, tag_names(labels), **head)
    return Tagger(finetune(base, rows, head=made, config=config)).predict


def scratch(rows: Dataset, labels: Sequence[str], seed: int) -> Predict:
    return train_tagger(rows, tag_names(labels), epochs=12, lr=1e-2, seed=seed).predict


def subset(rows: Dataset, name: str, seed: int) -> Dataset:
    most = min(FEWER.get(name, len(rows)), len(rows))
    return rows.sample(most, seed) if most < len(rows) else rows


def main_runs(train: Dataset, labels: Sequence[str], seeds: int) -> Iterator[Run]:
    """Every rung with the first seed, then with the second: what is there is balanced whenever it stops."""
    yield "gazetteer", 0, len(train), lambda: Gazetteer(train).predict
    bases = {name: load_base(name) for name in SETTINGS}
    for seed in range(seeds):
        yield "LSTM-CRF", seed, len(train), lambda seed=seed: scratch(train, labels, seed)  # type: ignore[misc]
        for name, base in bases.items():
            rows = subset(train, name, seed)
            fit = lambda n=name, b=base, r=rows, s=seed: tuned(b, n, r, labels, s)  # noqa: E731
            yield f"{name} fine-tuned", seed, len(rows), fit  # type: ignore[misc]


def choice_runs(train: Dataset, labels: Sequence[str], seeds: int) -> Iterator[Run]:
    """What one decision is worth, with the large base and few sentences: the same ones for all with the same seed."""
    base = load_base("minilm")
    variants: dict[str, dict[str, bool]] = {
        "": {},
        " without chain": {"crf": False},
        " without capitals": {"capitals": False},
    }
    for seed in range(seeds):
        few = train.sample(min(400, len(train)), seed)
        for name, options in variants.items():
            fit = lambda o=options, r=few, s=seed: tuned(base, "minilm", r, labels, s, **o)  # noqa: E731
            yield f"minilm, few{name}", seed, len(few), fit  # type: ignore[misc]
        fit = lambda r=few, s=seed: tuned(from_scratch(base, s), "minilm", r, labels, s)  # noqa: E731
        yield "minilm, few, from scratch", seed, len(few), fit  # type: ignore[misc]
        yield "LSTM-CRF, few", seed, len(few), lambda r=few, s=seed: scratch(r, labels, s)  # type: ignore[misc]


def score(train: Dataset, test: Dataset, predicted: list[list[str]], labels: Sequence[str]) -> dict[str, Any]:
    truth = [row.tags for row in test]
    known = {surface(row.tokens, entity) for row in train for entity in entities(row.tags)}
    lenient, strict = entity_f1(truth, predicted), entity_f1(truth, predicted, strict="bio")
    return {
        "f1": round(lenient.f1, 4),
        "strict_f1": round(strict.f1, 4),
        "precision": round(lenient.precision, 4),
        "recall": round(lenient.recall, 4),
        "by_label": {label: round(entity_f1(truth, predicted, label=label).f1, 4) for label in labels},
        "novelty": recall_by_novelty(known, test, predicted),
        "errors": error_kinds(truth, predicted),
    }


PARTS: dict[str, Callable[..., Iterator[Run]]] = {"main": main_runs, "choices": choice_runs}


def measure(part: str, quick: bool) -> None:
    train, valid, test = (data.load("wnut17", split) for split in ("train", "valid", "test"))
    labels = labels_of(train, valid, test)
    if quick:
        train, test = train.sample(200), test.sample(100)
    record = recorded()
    for rung, seed, rows, fit in PARTS[part](train, labels, 1 if quick else SEEDS):
        if any(run["seed"] == seed for run in record["scores"].get(rung, [])) and not quick:
            continue
        start = time.perf_counter()
        predict = fit()
        seconds = time.perf_counter() - start
        scores = score(train, test, predict([row.tokens for row in test]), labels)
        run = {"seed": seed, "rows": rows, "seconds": round(seconds, 1), **scores}
        print(f"{rung:28s}seed {seed}  rows {rows:5d}  F1 {run['f1']:.4f}  {seconds:6.1f} s", flush=True)
        if not quick:
            record["scores"].setdefault(rung, []).append(run)
            record["parts"][part] = stamp(f"python benchmarks/tagging.py {part}")
            write("tagging", {**stamp("python benchmarks/tagging.py"), **record})


def recorded() -> dict[str, Any]:
    path = RESULTS / "tagging.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {key: found.get(key, {}) for key in ("parts", "scores", "speed")}


def loop_over_tags(emissions: torch.Tensor, transitions: torch.Tensor) -> torch.Tensor:
    """The forward algorithm for one sentence with Python loops over tags: what the equation says, word for word."""
    alpha = list(emissions[0].unbind())
    for row in emissions[1:]:
        before = [[alpha[j] + transitions[j, k] for j in range(len(alpha))] for k in range(len(alpha))]
        alpha = [row[k] + torch.stack(before[k]).logsumexp(0) for k in range(len(alpha))]
    return torch.stack(alpha).logsumexp(0)


def through_autograd(crf: CRF, emissions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The same loop over time as `LogPartition`, its gradient left to autograd."""
    alpha = crf.start + emissions[:, 0]
    for t in range(1, emissions.shape[1]):
        step = emissions[:, t] + (alpha[:, :, None] + crf.transitions).logsumexp(1)
        alpha = torch.where(mask[:, t, None], step, alpha)
    return (alpha + crf.end).logsumexp(1)


def fastest(step: Callable[[], torch.Tensor], leaves: Sequence[torch.Tensor], repeats: int) -> float:
    """The least seconds of several passes forwards and backwards."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        torch.autograd.grad(step(), leaves)
        best = min(best, time.perf_counter() - start)
    return best


def speed(quick: bool, batch: int = 32, seq: int = 20, tags: int = 13) -> dict[str, float]:
    """Milliseconds of one loss and its gradient for 32 sentences of 20 words with 13 tags."""
    torch.manual_seed(0)
    crf, mask = CRF(tags), torch.ones(batch, seq).bool()
    torch.nn.init.normal_(crf.transitions)
    emissions, gold = torch.randn(batch, seq, tags, requires_grad=True), torch.randint(tags, (batch, seq))
    leaves, parts = [emissions, crf.transitions], (crf.transitions, crf.start, crf.end)
    repeats = 2 if quick else 15

    def by_hand() -> torch.Tensor:
        return crf.loss(emissions, gold, mask).sum()

    def by_autograd() -> torch.Tensor:
        return (through_autograd(crf, emissions, mask) - chain_score(emissions, gold, mask, *parts)).sum()

    steps: dict[str, Callable[[], torch.Tensor]] = {"ours": by_hand, "autograd": by_autograd}
    try:
        import torchcrf
    except ImportError:
        print("pytorch-crf is not installed: its line is left out")
    else:
        peer = torchcrf.CRF(tags, batch_first=True)
        peer.load_state_dict(
            {"transitions": crf.transitions, "start_transitions": crf.start, "end_transitions": crf.end}
        )
        steps["pytorch-crf"] = lambda: -peer(emissions, gold, mask=mask, reduction="sum")
        assert torch.allclose(steps["pytorch-crf"](), steps["ours"](), rtol=1e-4)
        of_peer = [emissions, peer.transitions]
    seconds = dict.fromkeys(steps, float("inf"))
    for _ in range(3):  # alternately, so that a busy moment hits all
        for name, step in steps.items():
            wanted = of_peer if name == "pytorch-crf" else leaves
            seconds[name] = min(seconds[name], fastest(step, wanted, repeats))
    naive = lambda: loop_over_tags(emissions[0], crf.transitions)  # noqa: E731
    seconds["loop over tags"] = batch * fastest(naive, leaves, 2)  # one sentence measured, 32 meant
    print("one step, ms:", {name: round(1000 * value, 2) for name, value in seconds.items()}, flush=True)
    return {name: round(1000 * value, 3) for name, value in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument(
        "parts", choices=[*PARTS, "speed", []], nargs="*", metavar="PART", help="of main, choices, speed"
    )
    parser.add_argument("--quick", action="store_true", help="200 rows and one seed, nothing written")
    arguments = parser.parse_args()
    for part in arguments.parts or ["speed", *PARTS]:
        if part != "speed":
            measure(part, arguments.quick)
            continue
        found = speed(arguments.quick)
        for name, value in found.items():
            if name != "ours":
                print(f"ratio tagging-chain-ours/{name.replace(' ', '-')} {found['ours'] / value:.3f}")
        if not arguments.quick:
            record = recorded()
            record["speed"] = {"milliseconds": found, **stamp("python benchmarks/tagging.py speed")}
            write("tagging", {**stamp("python benchmarks/tagging.py"), **record})
    if not arguments.quick:
        mean = {name: sum(run["f1"] for run in runs) / len(runs) for name, runs in recorded()["scores"].items()}
        for name in set(mean) & {f"{base} fine-tuned" for base in SETTINGS}:
            print(f"ratio tagging-{name.replace(' ', '-')}/LSTM-CRF-F1 {mean['LSTM-CRF'] / mean[name]:.3f}")


if __name__ == "__main__":
    main()
