"""The ladder of classifiers on three tasks, over several seeds: what a pretrained model adds to the methods below it.

`python benchmarks/classification.py [PART …] [--quick]` prints a line per run and adds each part's scores to
benchmarks/results/classification.json: for every data set and rung the accuracy, macro F1 and seconds of each seed, and
which test texts the first seed got right. `--quick` takes 200 rows and one seed and writes nothing. The rungs are the
majority, a bag of words with logistic regression (its C chosen by cross-validation on the training rows), the average
of word vectors and an LSTM from scratch (the number of passes chosen on held-out rows), frozen bases with logistic
regression, and fine-tuned ones. sst2's pretrained rungs are in transfer_curve.json and are not measured again. Chinese
reviews are read as characters by the models from scratch and cut after 128 of them; fine-tuned models read 96 tokens
(minilm) or 256 (bert-mini, three to a character), frozen ones 128 characters, and these learn from 1,000 of the rows,
as does one line of counting, which reads 96 characters. The Chinese test set is judged as it came and without
the texts that stand in the training or validation file. `trec-pairs` asks of 1,000 pairs of questions whether both want
the same class, given as a pair or glued into one text.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from record import RESULTS, stamp, write
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lmtl_course import data
from lmtl_course.classification import class_pairs, majority, train_from_scratch
from lmtl_course.data import Dataset
from lmtl_course.embedded import LabelledText
from lmtl_course.metrics import accuracy, f1
from lmtl_course.pretraining import load_base
from lmtl_course.text import detokenize, tokenize
from lmtl_course.transfer import FineTuneConfig, features, finetune

GRID = {"logisticregression__C": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]}
Predict = Callable[[Sequence[str]], Sequence[int]]
Run = tuple[str, int, Callable[[], Predict]]
"""Name of the rung, seed, and what fits it and gives its predictions."""


def rows_of(name: str) -> tuple[Dataset, Dataset, Dataset]:
    """Training, held-out and test rows; English as people write it. TREC's held-out rows are its last 500."""
    splits = [data.load(name, split) for split in ("train", "test")]
    held_out = data.load(name, "valid") if "valid" in data.splits(name) else splits[0].sample(len(splits[0]))[-500:]
    if name == "trec":
        splits[0] = splits[0].sample(len(splits[0]))[:-500]
    parts = []
    for part in (splits[0], held_out, splits[1]):
        rows = tuple(
            LabelledText(detokenize(row.text) if name != "chnsenticorp" else row.text, row.label) for row in part
        )
        parts.append(Dataset(rows, name, part.split, labels=part.labels))
    return parts[0], parts[1], parts[2]


def texts(rows: Sequence[LabelledText]) -> list[str]:
    return [row.text for row in rows]


def targets(rows: Sequence[LabelledText]) -> list[int]:
    return [row.label for row in rows]


def bag_of_words(rows: Dataset) -> Predict:
    """TF-IDF of words and word pairs, for Chinese of one to three characters, and logistic regression."""
    if rows.name == "chnsenticorp":
        vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True)
    else:
        vectors = TfidfVectorizer(tokenizer=tokenize, token_pattern=None, ngram_range=(1, 2), sublinear_tf=True)
    search = GridSearchCV(make_pipeline(vectors, LogisticRegression(max_iter=2000)), GRID, cv=3)
    search.fit(texts(rows), targets(rows))
    print(f"    C = {search.best_params_['logisticregression__C']}")
    return lambda unseen: search.predict(list(unseen)).tolist()


def fewer(rows: Dataset) -> Predict:
    """Counting with the rows of the slow rungs; of Chinese it reads as much as minilm does."""
    if rows.name != "chnsenticorp":
        return bag_of_words(rows)
    cut = Dataset(tuple(LabelledText(row.text[:94], row.label) for row in rows), rows.name, rows.split)
    predict = bag_of_words(cut)
    return lambda unseen: predict([text[:94] for text in unseen])


def frozen(base_name: str, rows: Dataset) -> Predict:
    """Logistic regression on the base's mean vectors."""
    base = load_base(base_name)
    read = (lambda unseen: [text[:128] for text in unseen]) if rows.name == "chnsenticorp" else list
    search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)), GRID, cv=3)
    search.fit(features(base, read(texts(rows))).numpy(), targets(rows))
    return lambda unseen: search.predict(features(base, read(unseen)).numpy()).tolist()


def scratch(model: str, rows: Dataset, valid: Dataset, seed: int) -> Predict:
    chinese = rows.name == "chnsenticorp"
    fitted = train_from_scratch(rows, model, list if chinese else tokenize, valid=valid, length=128, seed=seed)
    return lambda unseen: fitted.logits(unseen).argmax(-1).tolist()


def tuned(base_name: str, rows: Dataset, seed: int) -> Predict:
    longest = {"minilm": 96, "bert-mini": 256}[base_name]  # bert-mini spells a Chinese character in three bytes
    config = FineTuneConfig(epochs=2)
    if base_name == "bert-mini":
        config = FineTuneConfig(epochs=5, batch=32, lr=5e-4, head_lr=3e-3, layer_decay=1.0)
    config = replace(config, seed=seed, length=longest if rows.name == "chnsenticorp" else None)
    fitted = finetune(base_name, rows, config=config)
    return lambda unseen: fitted.logits(unseen).argmax(-1).tolist()


def small(rows: Dataset, name: str) -> Dataset:
    """The rows that the slow rungs learn from: 1,000 of the long Chinese ones, 2,000 of TREC's, else all."""
    most = {"chnsenticorp": 1000, "trec": 2000}.get(name, len(rows))
    return rows.sample(most) if len(rows) > most else rows


def plain(name: str, train: Dataset, valid: Dataset, seeds: int) -> Iterator[Run]:
    """Rungs that carry nothing over."""
    common = majority(targets(train))
    yield "majority", 0, lambda: lambda unseen: [common] * len(unseen)
    yield "bag of words", 0, lambda: bag_of_words(train)
    for model, rung in (("average", "word average"), ("lstm", "LSTM")):
        rows = small(train, name) if name == "chnsenticorp" and model == "lstm" else train
        for seed in range(seeds):
            yield rung, seed, lambda model=model, rows=rows, seed=seed: scratch(model, rows, valid, seed)  # type: ignore[misc]
    if len(small(train, name)) < len(train):
        yield FEWER, 0, lambda: fewer(small(train, name))


def pretrained(base: str, name: str, train: Dataset, seeds: int) -> Iterator[Run]:
    """Frozen features and full fine-tuning of one base."""
    yield f"{base} frozen", 0, lambda: frozen(base, small(train, name))
    for seed in range(seeds):
        yield f"{base} fine-tuned", seed, lambda seed=seed: tuned(base, small(train, name), seed)  # type: ignore[misc]


def pairs(train: Dataset, seeds: int) -> Iterator[Run]:
    """Do two questions want the same class? As a pair with a separator and segments, or glued into one text."""
    for seed in range(seeds):
        rows = class_pairs(train, 1000, seed=seed)
        glued = [(" ".join(pair), same) for pair, same in rows]
        yield "minilm, a pair", seed, lambda rows=rows, seed=seed: tuned_pairs(rows, seed)  # type: ignore[misc]
        yield "minilm, glued", seed, lambda rows=glued, seed=seed: tuned_pairs(rows, seed, glue=True)  # type: ignore[misc]


def tuned_pairs(rows: Sequence[Any], seed: int, glue: bool = False) -> Predict:
    fitted = finetune("minilm", rows, labels=("different", "same"), config=FineTuneConfig(seed=seed, length=96))
    return lambda unseen: fitted.logits([" ".join(p) for p in unseen] if glue else unseen).argmax(-1).tolist()


FEWER = "bag of words, fewer rows"
"""The rung that learns from the same rows as the slow ones."""
PARTS = {f"{name}-plain": (name, "") for name in ("sst2", "trec", "chnsenticorp")} | {
    f"{name}-{base}": (name, base) for base in ("minilm", "bert-mini") for name in ("trec", "chnsenticorp")
}
PARTS["trec-pairs"] = ("trec", "pairs")


def measure(part: str, quick: bool) -> tuple[dict[str, Any], dict[str, float]]:
    """The scores of one part's rungs, and its ratios of error rates."""
    name, base = PARTS[part]
    train, valid, test = rows_of(name)
    if quick:
        train, valid, test = train.sample(200), valid.sample(100), test.sample(100)
    fresh = set(texts(data.without_leaks(texts_as_rows(train, valid), test)))
    keep = np.array([text in fresh for text in texts(test)])
    seeds = 1 if quick else 5 if not base and name != "chnsenticorp" else 3 if base != "minilm" else 2
    seeds = 1 if base and name == "chnsenticorp" else seeds  # long texts: one run each
    if base == "pairs":
        test = Dataset(tuple(LabelledText(*pair) for pair in class_pairs(test, 600)), name, "test")  # type: ignore[arg-type]
        runs = pairs(train, 1 if quick else 3)
    else:
        runs = pretrained(base, name, train, seeds) if base else plain(name, train, valid, seeds)
    scores: dict[str, Any] = {}
    for rung, seed, fit in runs:
        start = time.perf_counter()
        predict = fit()
        seconds = time.perf_counter() - start
        predicted, truth = np.array(predict(texts(test))), np.array(targets(test))
        row = scores.setdefault(rung, {"accuracy": [], "macro_f1": [], "seconds": []})
        row["accuracy"].append(round(accuracy(truth, predicted), 4))
        row["macro_f1"].append(
            round(float(f1(truth, predicted, classes=2 if base == "pairs" else len(train.labels or ()))), 4)
        )
        row["seconds"].append(round(seconds, 1))
        few = base or rung == FEWER or (rung == "LSTM" and name == "chnsenticorp")
        row["rows"] = 1000 if base == "pairs" else len(small(train, name)) if few else len(train)
        if name == "chnsenticorp":
            row.setdefault("accuracy_without_leaks", []).append(round(accuracy(truth[keep], predicted[keep]), 4))
        row.setdefault("right", "".join("01"[int(right)] for right in truth == predicted))
        print(f"{name:13s}{rung:24s} seed {seed}  {row['accuracy'][-1]:.4f}  {seconds:6.1f} s", flush=True)
    mean = {rung: statistics.mean(row["accuracy"]) for rung, row in scores.items()}
    neighbours = [("word average", "bag of words"), ("LSTM", "bag of words"), (f"{base} fine-tuned", f"{base} frozen")]
    neighbours += [("minilm, a pair", "minilm, glued")]
    ratios = {f"{name} {a}/{b} error": (1 - mean[a]) / (1 - mean[b]) for a, b in neighbours if a in mean and b in mean}
    return scores, ratios


def texts_as_rows(*parts: Dataset) -> list[LabelledText]:
    return [row for part in parts for row in part]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("parts", choices=[*PARTS, []], nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; or all")
    parser.add_argument("--quick", action="store_true", help="200 rows and one seed, nothing written")
    arguments = parser.parse_args()
    for part in arguments.parts or PARTS:
        scores, ratios = measure(part, arguments.quick)
        if not arguments.quick:
            path = RESULTS / "classification.json"
            record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            record = {
                **stamp("python benchmarks/classification.py"),
                **{k: record.get(k, {}) for k in ("parts", "scores")},
            }
            record["parts"][part] = stamp(f"python benchmarks/classification.py {part}")
            record["scores"].setdefault("trec-pairs" if part == "trec-pairs" else PARTS[part][0], {}).update(scores)
            write("classification", record)
        for case, ratio in ratios.items():
            print(f"ratio classification-{case.replace(',', '').replace(' ', '-')} {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
