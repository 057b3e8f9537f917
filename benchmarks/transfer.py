"""What transfer is worth: accuracy by amount of labels, pretrained against scratch, and by how much of the base moves.

`python benchmarks/transfer.py [curve|parts …] [--only METHOD …] [--quick]` fine-tunes on random subsets of sst2 (the
same rows for every method with the same seed, so that differences are paired) and tests on its 1,821 test sentences.
`curve` writes benchmarks/results/transfer_curve.json, `parts` transfer_parts.json (what is unfrozen, how fast, and
another domain). What a file already holds is not measured again: delete it to start anew.

Settings were chosen on the validation split with other subsets; no test sentence had a say in them.
"""

import argparse
import contextlib
import io
import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, stamp, write

from lmtl_course import data
from lmtl_course.pretraining import RECIPES, Base, MaskedLM, batches_for, corpus, encode_corpus, load_base, masked_loss
from lmtl_course.text import detokenize
from lmtl_course.training import evaluate
from lmtl_course.transfer import FineTuneConfig, features, finetune, from_scratch

SIZES = (32, 100, 500, 2000, 6920)
SEEDS = {32: 10, 100: 5, 500: 5, 2000: 10, 6920: 10}
SLOW = {32: 5, 100: 5, 500: 5, 6920: 2}  # fine-tuning 22 million weights on a laptop
Rows = list[tuple[str, int]]


def settings(name: str, size: int, **changes: Any) -> FineTuneConfig:
    """How a base of this name is fitted to so many labels; the same for `bert-mini` and for its architecture afresh."""
    chosen: dict[str, Any] = {"epochs": 3 if size > 500 else 4 if size > 100 else 10, "batch": 16, "lr": 1e-4}
    if name == "minilm" and size > 2000:
        chosen |= {"epochs": 2, "batch": 32, "lr": 1.4e-4}
    if name in ("bert-mini", "scratch"):
        epochs, batch = (10, 16) if size <= 500 else (5, 32) if size <= 2000 else (3, 32)
        chosen |= {"epochs": epochs, "batch": batch, "lr": 5e-4, "head_lr": 3e-3, "layer_decay": 1.0}
    if changes.get("unfreeze") == "head":
        chosen |= {"head_lr": 1e-2, "epochs": 20, "min_steps": 400}
    return FineTuneConfig(**{**chosen, **changes})


def rows_of(name: str, split: str) -> Rows:
    """Texts as people write them, and labels."""
    return [(detokenize(row.text), row.label) for row in data.load(name, split)]


def subset(rows: Rows, size: int, seed: int) -> Rows:
    """The same rows for every method; all of them in their own order where that many are asked for."""
    order = np.random.default_rng(seed).permutation(len(rows))[:size] if size < len(rows) else range(len(rows))
    return [rows[int(k)] for k in order]


def fitted(base: Base, rows: Rows, config: FineTuneConfig) -> Any:
    """`finetune` without its progress bar."""
    with contextlib.redirect_stderr(io.StringIO()):
        return finetune(base, rows, config=config, labels=("negative", "positive"))


def accuracy(model: Any, rows: Rows) -> float:
    """Share of rows whose label is the most probable one."""
    truth = torch.tensor([label for _, label in rows])
    return round((model.logits([text for text, _ in rows]).argmax(-1) == truth).double().mean().item(), 6)


def regression(first: Any, rows: list[Any], labels: list[int], test: list[Any], truth: list[int]) -> float:
    """Logistic regression behind a first step, its strength chosen by cross-validation on the training rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(first, LogisticRegression(max_iter=2000))
    strengths = {"logisticregression__C": [0.001, 0.01, 0.1, 1, 10, 100]}
    search = GridSearchCV(pipeline, strengths, cv=max(2, min(5, *np.bincount(labels))))
    return round(float(search.fit(rows, labels).score(test, truth)), 6)


def bag_of_words(rows: Rows, test: Rows) -> float:
    """TF-IDF of words and word pairs."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    (texts, labels), (asked, truth) = (list(map(list, zip(*part, strict=True))) for part in (rows, test))
    return regression(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), texts, labels, asked, truth)


@cache
def vectors(name: str) -> dict[str, Any]:
    """The frozen vector of every sentence of sst2, made once: it is the same for every subset."""
    texts = [text for split in ("train", "test") for text, _ in rows_of("sst2", split)]
    return dict(zip(texts, features(load_base(name), texts).numpy(), strict=True))


def frozen(name: str, rows: Rows, test: Rows) -> float:
    """A linear probe on the vectors of a base that stays as it is."""
    from sklearn.preprocessing import StandardScaler

    found = vectors(name)
    sides = [([found[text] for text, _ in part], [label for _, label in part]) for part in (rows, test)]
    return regression(StandardScaler(), *sides[0], *sides[1])


def method(name: str, seed: int) -> Callable[[Rows, Rows], float]:
    """From training and test rows to an accuracy."""
    if name == "bag of words":
        return bag_of_words
    base_name, _, how = name.partition(" ")
    if how == "frozen":
        return lambda rows, test: frozen(base_name, rows, test)
    base = from_scratch(load_base("bert-mini"), seed) if base_name == "scratch" else load_base(base_name)
    return lambda rows, test: accuracy(fitted(base, rows, settings(base_name, len(rows), seed=seed)), test)


METHODS = ("bag of words", "scratch", "bert-mini frozen", "bert-mini fine-tuned", "minilm frozen", "minilm fine-tuned")


class Results:
    """A results file that is read and written for every number, so that a run can be cut short and gone on with."""

    def __init__(self, name: str, command: str):
        self.name, self.path = name, Path(RESULTS) / f"{name}.json"
        if not self.path.exists():
            write(name, stamp(command))

    def read(self) -> dict[str, Any]:
        """All of it."""
        return json.loads(self.path.read_text(encoding="utf-8"))

    def lacks(self, *path: str, seed: int) -> bool:
        """Whether the list at the end of a path has no number for this seed yet."""
        place: Any = self.read()
        for step in path:
            place = place.get(step, {})
        return len(place) <= seed

    def add(self, *path: str, value: Any) -> None:
        """Append to the list at the end of a path."""
        record = place = self.read()
        for step in path[:-1]:
            place = place.setdefault(step, {})
        place.setdefault(path[-1], []).append(value)
        write(self.name, record)
        print(*path, value, flush=True)

    def set(self, **values: Any) -> None:
        """Facts beside the numbers."""
        write(self.name, self.read() | values)


def curve(only: list[str], quick: bool, sizes: tuple[int, ...] = ()) -> None:
    """Accuracy by method and number of labels."""
    results = Results("transfer_curve", "python benchmarks/transfer.py curve")
    train, test = rows_of("sst2", "train"), rows_of("sst2", "test")
    sizes = SIZES[:2] if quick else sizes or SIZES
    results.set(sizes=list(SIZES), test=len(test))
    for name in only or METHODS:
        for size in sizes:
            once = size == len(train) and (name == "bag of words" or name.endswith("frozen"))  # nothing is random
            seeds = (SLOW if name == "minilm fine-tuned" else SEEDS).get(size, 0)
            for seed in range(1 if once else 2 if quick else seeds):
                if results.lacks("accuracy", name, str(size), seed=seed):
                    start = time.perf_counter()
                    value = method(name, seed)(subset(train, size, seed), test)
                    results.add("seconds", name, str(size), value=round(time.perf_counter() - start, 1))
                    results.add("accuracy", name, str(size), value=value)


def forgetting(base: Base) -> Callable[[Any], float]:
    """Nats per hidden token of a held-out book under a fine-tuned body and the head that it was pretrained with."""
    ids = encode_corpus([text[:400_000] for text in corpus("test")[:1]], base.tokenizer, "<sep>")
    batches = [batches_for(RECIPES["bert-mini"], base.tokenizer, ids, seed=3)(n) for n in range(6)]
    return lambda body: round(evaluate(body, batches, masked_loss), 4)


def parts(only: list[str], quick: bool) -> None:
    """What moves, how fast, and what it costs elsewhere: 500 labels of sst2."""
    results = Results("transfer_parts", "python benchmarks/transfer.py parts")
    domains = {name: {split: rows_of(name, split) for split in ("train", "test")} for name in ("sst2", "cr")}
    for name in only or ("bert-mini",):
        for seed in range(2 if quick else 2 if name == "minilm" else 3):
            _parts_of(results, load_base(name), domains, 64 if quick else 500, seed)


def _parts_of(results: Results, base: Base, domains: dict[str, dict[str, Rows]], size: int, seed: int) -> None:
    def run(source: str = "sst2", **changes: Any) -> Any:
        return fitted(
            base, subset(domains[source]["train"], size, seed), settings(base.name, size, seed=seed, **changes)
        )

    films = domains["sst2"]["test"]
    whole = None  # the usual settings: one run, read in several tables
    for unfreeze in ("head", 2, "gradual")[: 3 if isinstance(base.model, MaskedLM) else 1]:
        if results.lacks(base.name, "unfreeze", str(unfreeze), seed=seed):
            results.add(base.name, "unfreeze", str(unfreeze), value=accuracy(run(unfreeze=unfreeze), films))
    for source in domains:
        if results.lacks(base.name, "domain", f"{source}→cr", seed=seed):
            model = run(source)
            whole = model if source == "sst2" else whole
            for target in domains:
                results.add(base.name, "domain", f"{source}→{target}", value=accuracy(model, domains[target]["test"]))
    on_films = results.read()[base.name]["domain"]["sst2→sst2"][seed]
    usual = str(settings(base.name, size).layer_decay)
    results.set(**{base.name: {**results.read()[base.name], "usual": usual}})
    for path in (("unfreeze", "all"), ("layer_decay", usual)):
        if results.lacks(base.name, *path, seed=seed):
            results.add(base.name, *path, value=on_films)
    if isinstance(base.model, MaskedLM):
        _rates_of(results, base, run, whole, films, seed)


def _rates_of(results: Results, base: Base, run: Callable[..., Any], whole: Any, films: Rows, seed: int) -> None:
    """Learning rates, by block and over all, and what the base forgets at them."""
    for decay in (1.0, 0.9, 0.75):
        if results.lacks(base.name, "layer_decay", str(decay), seed=seed):
            results.add(base.name, "layer_decay", str(decay), value=accuracy(run(layer_decay=decay), films))
    nats = forgetting(base)
    if results.lacks(base.name, "masked_nats before", seed=0):
        results.add(base.name, "masked_nats before", value=nats(base.model))
    for factor in (0.1, 1, 3, 10):
        if results.lacks(base.name, "lr", str(factor), "masked_nats", seed=seed):
            usual = whole if factor == 1 else None
            model = usual or run(lr=settings(base.name, 500).lr * factor)
            results.add(base.name, "lr", str(factor), "accuracy", value=accuracy(model, films))
            results.add(base.name, "lr", str(factor), "masked_nats", value=nats(model.body))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", help="curve, parts, or both (default)")
    parser.add_argument("--only", nargs="*", default=[], help="methods of the curve, or bases of the parts")
    parser.add_argument("--sizes", nargs="*", type=int, default=[], help="of the curve (default: all)")
    parser.add_argument("--quick", action="store_true", help="two seeds and few labels")
    chosen = parser.parse_args()
    if not chosen.which or "curve" in chosen.which:
        curve(chosen.only, chosen.quick, tuple(chosen.sizes))
    if not chosen.which or "parts" in chosen.which:
        parts(chosen.only, chosen.quick)
