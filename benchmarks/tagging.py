"""Names in the noise of the web: entity F1 on wnut17 from a list of names to a fine-tuned base, and the chain's speed.

`python benchmarks/tagging.py [PART …] [--quick]` prints a line per run, and adds it to results/tagging.json as
soon as it is done. What the file already holds is not measured again: delete it to start anew. `--quick` takes 200 rows
and one seed and writes nothing.

Parts, in the order in which they need each other: `choices` tries six settings for each base and eight for the LSTM-
CRF, learned from training sentences (all of them for the LSTM-CRF, fewer for the bases: "rows" says how many) and
judged by the entity F1 on the validation sentences, one seed each; the best is kept. `main` takes these settings, all
3,394 training sentences and three seeds to the test sentences: for every rung the entity F1 (lenient and strict),
precision, recall, F1 by label, how many seen and unseen entities were found, what the errors were, and the seconds.
`without` takes back one decision at a time (the chain, the mark for capitals) with 400 sentences, the same ones for
all with the same seed. `speed` times one step of the chain, forwards and backwards, against autograd through the same
loop, against a loop over tags, and, where it is installed, against pytorch-crf.
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
from lmtl_course.pretraining import load_base
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
from lmtl_course.transfer import FineTuneConfig, finetune

Predict = Callable[[Sequence[Any]], list[list[str]]]
Run = tuple[str, int, Dataset, Callable[[], Predict]]
"""Name of the rung, seed, training rows, and what fits it and gives its predictions."""
SEEDS = 3
TRIES: dict[str, list[dict[str, Any]]] = {
    "LSTM-CRF": [
        {"epochs": 12, "lr": 1e-2},
        {"epochs": 12, "lr": 5e-3},
        {"epochs": 20, "lr": 5e-3, "dropout": 0.5},
        {"epochs": 20, "lr": 1e-2, "dropout": 0.5},
        {"epochs": 12, "lr": 1e-2, "dropout": 0.5, "d_model": 128, "d_hidden": 128},
        {"epochs": 12, "lr": 1e-2, "dropout": 0.5, "min_count": 1},
        {"epochs": 20, "lr": 1e-2, "dropout": 0.5, "d_model": 128, "d_hidden": 128},
        {"epochs": 12, "lr": 1e-2, "dropout": 0.5, "d_model": 256, "d_hidden": 128},
    ],
    "bert-mini": [
        {"epochs": 3, "lr": 5e-4, "head_lr": 1e-2, "layer_decay": 1.0},
        {"epochs": 6, "lr": 5e-4, "head_lr": 1e-2, "layer_decay": 1.0},
        {"epochs": 6, "lr": 1e-3, "head_lr": 1e-2, "layer_decay": 1.0},
        {"epochs": 6, "lr": 2e-3, "head_lr": 1e-2, "layer_decay": 1.0},
        {"epochs": 6, "lr": 1e-3, "head_lr": 3e-3, "layer_decay": 1.0},
        {"epochs": 6, "lr": 1e-3, "head_lr": 1e-2, "layer_decay": 1.0, "dropout": 0.3},
    ],
    "minilm": [
        {"epochs": 2, "lr": 3e-4, "head_lr": 1e-2},
        {"epochs": 2, "lr": 6e-4, "head_lr": 1e-2},
        {"epochs": 3, "lr": 3e-4, "head_lr": 1e-2},
        {"epochs": 3, "lr": 1e-4, "head_lr": 1e-2},
        {"epochs": 2, "lr": 3e-4, "head_lr": 3e-3},
        {"epochs": 2, "lr": 3e-4, "head_lr": 1e-2, "layer_decay": 1.0},
    ],
}
ROWS = {"bert-mini": 1700, "minilm": 700}
"""Sentences of a try; the LSTM-CRF has all of them."""


def labels_of(*parts: Dataset) -> list[str]:
    return sorted({entity.label for part in parts for row in part for entity in entities(row.tags)})


def fit(model: str, settings: dict[str, Any], rows: Dataset, labels: Sequence[str], seed: int, **head: bool) -> Predict:
    """A model with these settings, trained; what gives its predictions."""
    if model == "LSTM-CRF":
        return train_tagger(rows, tag_names(labels), seed=seed, **settings).predict
    base, config = load_base(model), FineTuneConfig(seed=seed, **settings)
    made = TaggingHead(base.config.d_model, tag_names(labels), **head)
    return Tagger(finetune(base, rows, head=made, config=config)).predict


def some(rows: Dataset, most: int | None, seed: int = 0) -> Dataset:
    return rows.sample(most, seed) if most is not None and most < len(rows) else rows


def choose(train: Dataset, valid: Dataset, labels: Sequence[str], quick: bool) -> None:
    """Try every setting once; the best on the validation sentences is the model's from then on."""
    record = recorded()
    for model, settings in TRIES.items():
        rows = some(train, ROWS.get(model))
        found = record["choices"].setdefault(model, {"rows": len(rows), "tried": []})
        for tried in settings:
            if any(one["settings"] == tried for one in found["tried"]) and not quick:
                continue
            start = time.perf_counter()
            predict = fit(model, tried, rows, labels, seed=9)
            seconds = time.perf_counter() - start
            f1 = entity_f1([row.tags for row in valid], predict([row.tokens for row in valid])).f1
            print(f"{model:12s}rows {len(rows):5d}  valid F1 {f1:.4f}  {seconds:6.1f} s  {tried}", flush=True)
            found["tried"].append({"settings": tried, "valid_f1": round(f1, 4), "seconds": round(seconds, 1)})
            found["chosen"] = max(found["tried"], key=lambda one: one["valid_f1"])["settings"]
            if not quick:
                save(record, "choices")


def chosen(model: str) -> dict[str, Any]:
    """The settings that `choose` kept; without a record the first that it would try."""
    return recorded()["choices"].get(model, {}).get("chosen", TRIES[model][0])


def main_runs(train: Dataset, labels: Sequence[str], seeds: int) -> Iterator[Run]:
    """Every rung with the first seed, then with the second: what is there is balanced whenever it stops."""
    yield "gazetteer", 0, train, lambda: Gazetteer(train).predict
    for seed in range(seeds):
        for model in TRIES:
            rung = model if model == "LSTM-CRF" else f"{model} fine-tuned"
            yield rung, seed, train, lambda m=model, s=seed: fit(m, chosen(m), train, labels, s)  # type: ignore[misc]


def without_runs(train: Dataset, labels: Sequence[str], seeds: int) -> Iterator[Run]:
    """What one decision is worth, with the large base and few sentences: the same ones for all with the same seed."""
    variants: dict[str, dict[str, bool]] = {
        "minilm, few": {},
        "minilm, few, without chain": {"crf": False},
        "minilm, few, without capitals": {"capitals": False},
    }
    for seed in range(seeds):
        few = some(train, 400, seed)
        for rung, head in variants.items():
            yield rung, seed, few, lambda h=head, r=few, s=seed: fit("minilm", chosen("minilm"), r, labels, s, **h)  # type: ignore[misc]


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


PARTS: dict[str, Callable[..., Iterator[Run]]] = {"main": main_runs, "without": without_runs}


def measure(part: str, train: Dataset, test: Dataset, labels: Sequence[str], quick: bool) -> None:
    record = recorded()
    for rung, seed, rows, make in PARTS[part](train, labels, 1 if quick else SEEDS):
        if any(run["seed"] == seed for run in record["scores"].get(rung, [])) and not quick:
            continue
        start = time.perf_counter()
        predict = make()
        seconds = time.perf_counter() - start
        scores = score(rows, test, predict([row.tokens for row in test]), labels)
        run = {"seed": seed, "rows": len(rows), "seconds": round(seconds, 1), **scores}
        print(f"{rung:32s}seed {seed}  rows {len(rows):5d}  F1 {run['f1']:.4f}  {seconds:6.1f} s", flush=True)
        if not quick:
            record["scores"].setdefault(rung, []).append(run)
            save(record, part)


def recorded() -> dict[str, Any]:
    path = RESULTS / "tagging.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {key: found.get(key, {}) for key in ("parts", "choices", "scores", "speed")}


def save(record: dict[str, Any], part: str) -> None:
    record["parts"][part] = stamp(f"python benchmarks/tagging.py {part}")
    write("tagging", {**stamp("python benchmarks/tagging.py"), **record})


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
    parts = ["choices", *PARTS, "speed"]
    parser.add_argument("parts", choices=[*parts, []], nargs="*", metavar="PART", help=f"of {', '.join(parts)}")
    parser.add_argument("--quick", action="store_true", help="200 rows and one seed, nothing written")
    arguments = parser.parse_args()
    quick = arguments.quick
    train, valid, test = (data.load("wnut17", split) for split in ("train", "valid", "test"))
    labels = labels_of(train, valid, test)
    if quick:
        train, valid, test = train.sample(200), valid.sample(100), test.sample(100)
    for part in arguments.parts or parts:
        if part == "choices":
            choose(train, valid, labels, quick)
        elif part == "speed":
            found, record = speed(quick), recorded()
            for name, value in found.items():
                if name != "ours":
                    print(f"ratio tagging-chain-ours/{name.replace(' ', '-')} {found['ours'] / value:.3f}")
            record["speed"] = found
            if not quick:
                save(record, part)
        else:
            measure(part, train, test, labels, quick)
    mean = {name: sum(run["f1"] for run in runs) / len(runs) for name, runs in recorded()["scores"].items()}
    for name in sorted(set(mean) & {f"{base} fine-tuned" for base in TRIES}):
        print(f"ratio tagging-LSTM-CRF/{name.replace(' ', '-')}-F1 {mean['LSTM-CRF'] / mean[name]:.3f}")


if __name__ == "__main__":
    main()
