"""Reading: how well a fine-tuned base points at answers, beside what needs no pretraining, and where that ends.

`python benchmarks/reading.py [PART …] [--quick]` prints a line per run and adds it to benchmarks/results/reading.json
at once; a run that is there already is not repeated. `--quick` takes few rows and one seed and writes nothing. The
48 articles of xquad are dealt into 28, 8 and 12, so that no article, and no paragraph, stands in two parts; both
languages are dealt alike, paragraph by paragraph. The settings come from a few runs judged on the
validation part; `settings` makes such runs anew. Parts:

settings    a few rates and numbers of passes, one seed each, judged on the validation questions
plain       the sentence most like the question; the words in it that `overlap_span` picks
bert-mini, minilm, scratch   fine-tuned on the English questions; "scratch" is minilm's shape with fresh weights. Each
            pretrained one also reads the test questions in Chinese, of which it has seen none
null        minilm fitted to the same questions and half as many with a passage that holds no answer; the threshold is
            chosen on every second validation question and as many with a wrong passage, and judged on test questions
            in the same way. The first of these models also reads every sixth test question with all five paragraphs
            of its article, cut off or in windows
chinese     minilm fitted to few or all Chinese questions, from its first weights and from those fitted to English
squad       the longer run, only where it is named: minilm on the 87,599 questions of SQuAD, which are downloaded; this
            wants a GPU
"""

import argparse
import copy
import hashlib
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from record import Runs

from lmtl_course import data
from lmtl_course.answering import (
    Reader,
    SpanHead,
    answer_f1,
    choose_threshold,
    exact_match,
    load_reader,
    overlap_span,
    reader_scores,
    sentence_spans,
    shorten,
    train_reader,
    unanswerable,
)
from lmtl_course.embedded import QuestionAnswer
from lmtl_course.metrics import bootstrap_interval
from lmtl_course.pretraining import load_base
from lmtl_course.transfer import FineTuneConfig, finetune, from_scratch

Rows = Sequence[QuestionAnswer]
CONFIGS = {
    "minilm": FineTuneConfig(epochs=3, batch=8, lr=3e-4, head_lr=3e-3, length=384, min_steps=0),
    "scratch": FineTuneConfig(epochs=3, batch=8, lr=3e-4, head_lr=3e-3, length=384, min_steps=0, layer_decay=1.0),
    "bert-mini": FineTuneConfig(epochs=6, batch=8, lr=1e-3, head_lr=3e-3, length=256, min_steps=0),
}
KEEP = os.environ.get("LMTL_KEEP_READERS", "")
"""A folder for fitted readers, so that a run that was broken off after fitting goes on from there."""
CHARACTERS = 350
"""Of a training passage, see `shorten`; tokens are what training costs."""
TRIED: list[tuple[str, int, dict[str, Any]]] = [
    ("minilm", 10_000, {"lr": 1e-4, "head_lr": 1e-3, "batch": 16, "epochs": 2}),
    ("minilm", 350, {}),
    ("minilm", 600, {}),
    ("bert-mini", 350, {}),
    ("bert-mini", 350, {"lr": 4e-4}),
]
"""Settings that were compared on the validation questions: the base, the characters, and what differs from above."""


def dealt(language: str) -> tuple[Rows, Rows, Rows]:
    """Train, validation and test questions of xquad, by article: five paragraphs that follow each other."""
    rows = data.load(f"xquad_{language}", "all")
    article = {context: k // 5 for k, context in enumerate(dict.fromkeys(row.context for row in rows))}
    order = list(range(48))
    random.Random(0).shuffle(order)
    parts = order[:28], order[28:36], order[36:]
    first, second, third = ([row for row in rows if article[row.context] in part] for part in parts)
    return first, second, third


def joined(rows: Rows) -> Rows:
    """Each question with all paragraphs of its article in one passage."""
    contexts = list(dict.fromkeys(row.context for row in rows))
    made = []
    for row in rows:
        k = contexts.index(row.context)
        article = contexts[k // 5 * 5 : k // 5 * 5 + 5]
        before = sum(len(context) + 1 for context in article[: k % 5])
        made.append(
            QuestionAnswer("\n".join(article), row.question, row.answers, tuple(before + at for at in row.starts))
        )
    return made


def summary(scores: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Means, an interval over questions, and each question's F1 in per cent."""
    matches, f1s = zip(*scores, strict=True)
    mean, low, high = bootstrap_interval(f1s)
    return {
        "exact": round(sum(matches) / len(matches), 4),
        "f1": round(mean, 4),
        "f1_interval": [round(low, 4), round(high, 4)],
        "questions": len(f1s),
    }


def plain(rows: Rows, pick: Callable[[str, str], tuple[int, int] | None]) -> dict[str, Any]:
    scores = []
    for row in rows:
        span = pick(row.question, row.context)
        text = row.context[slice(*span)] if span else None
        scores.append((exact_match(text, row.answers), answer_f1(text, row.answers)))
    return summary(scores) | {"each": [round(100 * f1) for _, f1 in scores]}


def sentence_like(question: str, passage: str) -> tuple[int, int] | None:
    """The whole sentence in which `overlap_span` finds its answer."""
    span = overlap_span(question, passage)
    return span and next(where for where in sentence_spans(passage) if where[0] <= span[0] < where[1])


def shown(found: dict[str, Any]) -> str:
    """F1 and exact match of a run, or of each of its parts."""
    parts = [f"{k} {v['f1']:.4f}/{v['exact']:.4f}" for k, v in found.items() if isinstance(v, dict)]
    return " ".join(parts) or f"{found.get('f1')}/{found.get('exact')}"


def fitted(name: str, rows: Rows, seed: int, characters: int = CHARACTERS, **changes: Any) -> Reader:
    base = load_base("minilm" if name == "scratch" else name)
    if name == "scratch":
        base = from_scratch(base, seed)
    short = [shorten(row, characters, seed) for row in rows]
    config = replace(CONFIGS[name], seed=seed, **changes)
    folder = KEEP and Path(KEEP) / hashlib.sha256(repr((name, config, short)).encode()).hexdigest()[:16]
    if folder and (folder / "reader.json").exists():
        return load_reader(folder)
    start = time.perf_counter()
    reader = train_reader(short, base, config)
    print(f"    {name} seed {seed}: {time.perf_counter() - start:.1f} s of training on {len(short)} rows", flush=True)
    if folder:
        reader.save(folder)
    return reader


def with_overlap(reader: Reader, length: int, overlap: int) -> Reader:
    """The same model with other windows."""
    other = copy.copy(reader.model)
    other.head, other.length = copy.copy(reader.model.head), length
    other.head.overlap = overlap  # type: ignore[assignment]
    return Reader(other, reader.limit, reader.threshold)


def cut_off(reader: Reader, rows: Rows, length: int) -> list[tuple[float, float]]:
    """Only what stands in the first window is read."""
    base, scores = reader.model.base, []
    pairs = []
    for row in rows:
        room = length - len(base.tokenizer.encode(row.question, "").ids)
        offsets = base.tokenizer.encode(row.context, add_special_tokens=False).offsets[:room]
        pairs.append((row.question, row.context[: offsets[-1][1]]))
    for answer, row in zip(reader.read_all(pairs), rows, strict=True):
        text = answer.text if answer else None
        scores.append((exact_match(text, row.answers), answer_f1(text, row.answers)))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; or all")
    parser.add_argument("--quick", action="store_true", help="few rows and one seed, nothing written")
    parser.add_argument("--most", type=int, default=1000, help="stop after so many new runs; call again to go on")
    arguments = parser.parse_args()
    results = Runs("reading", shown, arguments.quick, arguments.most)
    rows = {language: dealt(language) for language in ("en", "zh")}
    if arguments.quick:
        rows = {language: (a[:32], b[:16], c[:16]) for language, (a, b, c) in rows.items()}
    for part in arguments.parts or [part for part in PARTS if part != "squad"]:
        PARTS[part](results, rows, 1 if arguments.quick else 3)


def settings(results: Runs, rows: dict[str, tuple[Rows, Rows, Rows]], seeds: int) -> None:
    train, valid, _ = rows["en"]
    for name, changes in TRIED:
        key = f"settings {name} " + " ".join(f"{k}={v}" for k, v in changes.items())
        results.add(
            key, lambda name=name, changes=changes: summary(reader_scores(fitted(name, train, 0, **changes), valid))
        )  # type: ignore[misc]


def without_model(results: Runs, rows: dict[str, tuple[Rows, Rows, Rows]], seeds: int) -> None:
    test = rows["en"][2]
    results.add("plain sentence", lambda: plain(test, sentence_like))
    results.add("plain overlap_span", lambda: plain(test, overlap_span))


def tuned(name: str) -> Callable[[Runs, dict[str, tuple[Rows, Rows, Rows]], int], None]:
    def part(results: Runs, rows: dict[str, tuple[Rows, Rows, Rows]], seeds: int) -> None:
        for seed in range(1 if name == "scratch" else seeds):
            results.add(f"{name} seed {seed}", lambda seed=seed: one(name, rows, seed))  # type: ignore[misc]

    return part


def one(name: str, rows: dict[str, tuple[Rows, Rows, Rows]], seed: int) -> dict[str, Any]:
    reader = fitted(name, rows["en"][0], seed)
    found: dict[str, Any] = {}
    scores = reader_scores(reader, rows["en"][2])
    found["en"] = summary(scores) | {"each": [round(100 * f1) for _, f1 in scores]}
    if name != "scratch":
        found["zh, zero-shot"] = summary(reader_scores(reader, rows["zh"][2], "zh"))
    return found


def null(results: Runs, rows: dict[str, tuple[Rows, Rows, Rows]], seeds: int) -> None:
    for seed in range(seeds):
        results.add(f"null seed {seed}", lambda seed=seed: with_silence(rows["en"], seed))  # type: ignore[misc]
    results.add("article", lambda: whole_articles(rows["en"]))


def silent(train: Rows, seed: int) -> Reader:
    """Fitted to the questions and half as many with a wrong passage."""
    return fitted("minilm", [*train, *unanswerable(train, len(train) // 2, seed)], seed)


def with_silence(parts: tuple[Rows, Rows, Rows], seed: int) -> dict[str, Any]:
    train, valid, test = parts
    reader = silent(train, seed)
    valid = [*valid[::2], *unanswerable(valid, len(valid[::2]), 1)]
    reader.threshold = choose_threshold(reader, valid)
    right, wrong = test[::2], unanswerable(test, len(test[::2]), 1)
    both = [*right, *wrong]
    answers = reader.best([(row.question, row.context) for row in both])
    found: dict[str, Any] = {"threshold": reader.threshold}
    for name, least in (("always answers", -math.inf), ("with threshold", reader.threshold)):
        said = [answer.text if answer and answer.score >= least else None for answer in answers]
        scores = [
            (exact_match(text, row.answers), answer_f1(text, row.answers)) for text, row in zip(said, both, strict=True)
        ]
        found[f"{name}, with a passage"] = summary(scores[: len(right)])
        found[f"{name}, with a wrong one"] = summary(scores[len(right) :])
        found[f"{name}, both"] = summary(scores)
    return found


def whole_articles(parts: tuple[Rows, Rows, Rows]) -> dict[str, Any]:
    reader = silent(parts[0], 0)
    long = joined(parts[2])[::6]  # reading five paragraphs takes five times as long
    found: dict[str, Any] = {"one paragraph": summary(reader_scores(reader, parts[2][::6]))}
    found["cut at 384"] = summary(cut_off(reader, long, 384))
    for length, overlap in ((384, 64), (128, 0), (128, 32)):
        windowed = with_overlap(reader, length, overlap)
        found[f"windows of {length}, overlap {overlap}"] = summary(reader_scores(windowed, long))
    return found


def chinese(results: Runs, rows: dict[str, tuple[Rows, Rows, Rows]], seeds: int) -> None:
    train, _, test = rows["zh"]
    english: list[Reader] = []

    def first() -> Reader:
        if not english:
            english.append(fitted("minilm", rows["en"][0], 0))
        return english[0]

    for n in (64, len(train)):
        some = random.Random(0).sample(list(train), min(n, len(train)))
        config = replace(CONFIGS["minilm"], seed=0, min_steps=40)

        def scored(reader: Reader) -> dict[str, Any]:
            return summary(reader_scores(reader, test, "zh"))

        def go_on(some: Rows = some, config: FineTuneConfig = config) -> dict[str, Any]:
            reader = first()
            head = copy.deepcopy(reader.model.head)
            assert isinstance(head, SpanHead)
            return scored(Reader(finetune(reader.model.base, some, head, config), reader.limit))

        def anew(some: Rows = some, config: FineTuneConfig = config) -> dict[str, Any]:
            return scored(train_reader(some, "minilm", config))

        results.add(f"chinese {len(some)} after English", go_on)
        results.add(f"chinese {len(some)} alone", anew)


def squad(results: Runs, rows: dict[str, tuple[Rows, Rows, Rows]], seeds: int) -> None:
    train, valid = (data.load("squad", split) for split in ("train", "valid"))
    config = FineTuneConfig(epochs=2, batch=32, lr=1e-4, head_lr=1e-3, length=384)
    results.add("squad", lambda: summary(reader_scores(train_reader(train, "minilm", config), valid)))


PARTS: dict[str, Callable[[Runs, dict[str, tuple[Rows, Rows, Rows]], int], None]] = {
    "plain": without_model,
    "settings": settings,
    "bert-mini": tuned("bert-mini"),
    "minilm": tuned("minilm"),
    "null": null,
    "chinese": chinese,
    "scratch": tuned("scratch"),
    "squad": squad,
}


if __name__ == "__main__":
    main()
