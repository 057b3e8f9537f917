"""Finding: which of many passages answers a question? Counting, comparing, both, and a small base taught to compare.

`python benchmarks/answering.py [PART …] [--quick]` prints a line per run and adds it to
benchmarks/results/answering.json at once; a run that is there already is not repeated. `--quick` takes few rows, one
seed, and writes nothing. Two collections: the 240 paragraphs of xquad with their 1,190 questions, in English and in
Chinese, and first sentences of docstrings with the rests that they belong to (`docstring_pairs`). The weight of the
blend is chosen on validation questions: of 8 articles of xquad (the other 40 judge), or of other modules than those
that judge. Parts:

counting     BM25 in both languages and on docstrings; Chinese by spaces, characters and pairs of characters
minilm       comparing, and both, on the same questions
settings     bert-mini taught on docstrings: two rates, one seed each, judged on the validation modules
bert-mini    bert-mini as it is, and taught with the best of these, three seeds
"""

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from record import Runs

from lmtl_course import data
from lmtl_course.answering import (
    BM25,
    ContrastiveHead,
    Pair,
    blend,
    docstring_pairs,
    embed,
    mean_reciprocal_rank,
    ranks,
    recall_at,
    reciprocal_ranks,
    words,
)
from lmtl_course.metrics import mcnemar, paired_bootstrap
from lmtl_course.pretraining import load_base
from lmtl_course.text import tokenize
from lmtl_course.transfer import FineTuneConfig, FineTuned, finetune

WEIGHTS = [k / 10 for k in range(11)]
TAUGHT = FineTuneConfig(epochs=4, batch=64, lr=1e-3, layer_decay=1.0, length=96)
TRIED = [(1e-3, 0.05), (1e-3, 0.1)]
"""Learning rates and temperatures that were compared on the validation modules."""


class Task:
    """Questions, passages, which passage answers which question, and which questions choose and which judge."""

    def __init__(self, name: str, pairs: Sequence[Pair], chooses: Sequence[bool]):
        self.name, self.questions = name, [pair.question for pair in pairs]
        self.passages = list(dict.fromkeys(pair.passage for pair in pairs))
        number = {passage: k for k, passage in enumerate(self.passages)}
        self.truth = np.array([number[pair.passage] for pair in pairs])
        self.chooses = np.array(chooses)
        self.counted = BM25(self.passages).scores(self.questions)

    def compared(self, model: Any) -> np.ndarray:
        """Cosines of every question with every passage; what was taught on cut texts reads them whole."""
        model = model.base if isinstance(model, FineTuned) else model
        return (embed(model, self.questions) @ embed(model, self.passages).T).double().numpy()

    def summary(self, scores: np.ndarray, part: np.ndarray | None = None) -> dict[str, Any]:
        """What the questions that judge say, and the place of each one's passage."""
        found = ranks(scores, self.truth)[~self.chooses if part is None else part]
        return {f"recall@{k}": round(recall_at(k, found), 4) for k in (1, 3, 5, 10)} | {
            "mrr": round(mean_reciprocal_rank(found), 4),
            "questions": len(found),
            "places": found.tolist(),
        }

    def weight(self, compared: np.ndarray) -> float:
        """The weight with the highest mean reciprocal rank of the questions that choose."""
        tried = [ranks(blend(self.counted, compared, w), self.truth)[self.chooses] for w in WEIGHTS]
        return WEIGHTS[int(np.argmax([mean_reciprocal_rank(found) for found in tried]))]

    def judged(self, model: Any) -> dict[str, Any]:
        """Counting, comparing and both, with tests of both against counting alone."""
        compared = self.compared(model)
        weight = self.weight(compared)
        found = {
            "counting": self.summary(self.counted),
            "comparing": self.summary(compared),
            "reciprocal ranks": self.summary(reciprocal_ranks(self.counted, compared)),
            "blend": self.summary(blend(self.counted, compared, weight)) | {"weight": weight},
        }
        for part, which in (("chooses", self.chooses), ("judges", ~self.chooses)):
            tried = [ranks(blend(self.counted, compared, w), self.truth)[which] for w in WEIGHTS]
            found["blend"][f"mrr by weight, {part}"] = [round(mean_reciprocal_rank(places), 4) for places in tried]
        before = np.array(found["counting"]["places"]) <= 5
        for way in ("comparing", "reciprocal ranks", "blend"):
            after = np.array(found[way]["places"]) <= 5
            difference, low, high, p = paired_bootstrap(after, before)
            found[way]["recall@5 minus counting"] = [round(value, 4) for value in (difference, low, high)]
            found[way]["p"] = {"bootstrap": round(p, 5), "mcnemar": float(f"{mcnemar(after, before):.3g}")}
        return found


def dealt() -> list[int]:
    """The articles of xquad in the order in which they are dealt: 28 that teach, 8 that choose, 12 that judge."""
    order = list(range(48))
    random.Random(0).shuffle(order)
    return order


def xquad(language: str, quick: bool = False) -> Task:
    rows = list(data.load(f"xquad_{language}", "all"))
    article = {context: k // 5 for k, context in enumerate(dict.fromkeys(row.context for row in rows))}
    choosing = set(dealt()[28:36])
    if quick:
        rows = [row for row in rows if article[row.context] in (*dealt()[28:30], *dealt()[:2])]
    pairs = [Pair(row.question, row.context) for row in rows]
    return Task(f"xquad_{language}", pairs, [article[pair.passage] in choosing for pair in pairs])


def docstrings(quick: bool = False) -> Task:
    """Every question is asked of the passages of its own part and of the other one."""
    valid, test = (docstring_pairs(split)[: 40 if quick else None] for split in ("valid", "test"))
    return Task("docstrings", [*valid, *test], [True] * len(valid) + [False] * len(test))


def recalls(found: dict[str, Any]) -> str:
    """Every recall@5 of a run, by the way of finding."""
    parts = {"": found} | found
    return f"recall@5 { ({k: v['recall@5'] for k, v in parts.items() if isinstance(v, dict) and 'recall@5' in v}) }"


def counting(results: Runs, seeds: int) -> None:
    ways: dict[str, Callable[[str], list[str]]] = {
        "spaces": str.split,
        "characters": tokenize,
        "pairs of characters": lambda text: [text[k : k + 2] for k in range(len(text) - 1)],
        "characters and pairs": words,
    }

    def chinese() -> dict[str, Any]:
        task = xquad("zh", results.quick)
        every = np.ones(len(task.questions), dtype=bool)
        return {
            way: task.summary(BM25(task.passages, cut).scores(task.questions), every) | {"places": []}
            for way, cut in ways.items()
        }

    results.add("counting xquad_zh", chinese)
    for make in (docstrings, lambda quick: xquad("en", quick)):
        task = make(results.quick)
        results.add(f"counting {task.name}", lambda task=task: task.summary(task.counted))  # type: ignore[misc]


def minilm(results: Runs, seeds: int) -> None:
    base = load_base("minilm")
    for make in (docstrings, lambda quick: xquad("en", quick)):
        task = make(results.quick)
        results.add(f"minilm {task.name}", lambda task=task: task.judged(base))  # type: ignore[misc]

    def foreign() -> dict[str, Any]:
        english, chinese = xquad("en", results.quick), xquad("zh", results.quick)
        every = np.ones(len(chinese.questions), dtype=bool)
        asked, pages = embed(base, chinese.questions), embed(base, english.passages)
        return {
            "Chinese over Chinese": chinese.summary(chinese.compared(base), every) | {"places": []},
            "Chinese over English": chinese.summary((asked @ pages.T).double().numpy(), every) | {"places": []},
            "Chinese over English, counting": chinese.summary(BM25(english.passages).scores(chinese.questions), every)
            | {"places": []},
        }

    results.add("minilm xquad_zh", foreign)


def taught(
    pairs: Sequence[Pair], seed: int, quick: bool, temperature: float = 0.05, apart: bool = True, **changes: Any
) -> FineTuned:
    changes |= {"epochs": 1, "min_steps": 0} if quick else {}
    config = replace(TAUGHT, seed=seed, **changes)
    return finetune("bert-mini", pairs[: 128 if quick else None], ContrastiveHead(temperature, apart), config)


def settings(results: Runs, seeds: int) -> None:
    task = docstrings(results.quick)
    for lr, temperature in TRIED:

        def one(lr: float = lr, temperature: float = temperature) -> dict[str, Any]:
            model = taught(docstring_pairs("train"), 0, results.quick, temperature, lr=lr)
            return task.summary(task.compared(model), task.chooses) | {"places": []}

        results.add(f"settings lr={lr} temperature={temperature}", one)


def bert_mini(results: Runs, seeds: int) -> None:
    task = docstrings(results.quick)
    results.add("bert-mini untaught", lambda: task.judged(load_base("bert-mini")))
    for seed in range(seeds):
        results.add(
            f"bert-mini seed {seed}",
            lambda seed=seed: task.judged(taught(docstring_pairs("train"), seed, results.quick)),  # type: ignore[misc]
        )


PARTS: dict[str, Callable[[Runs, int], None]] = {
    "counting": counting,
    "minilm": minilm,
    "settings": settings,
    "bert-mini": bert_mini,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; or all")
    parser.add_argument("--quick", action="store_true", help="few rows and one seed, nothing written")
    arguments = parser.parse_args()
    for part in arguments.parts or PARTS:
        PARTS[part](Runs("answering", recalls, arguments.quick), 1 if arguments.quick else 3)


if __name__ == "__main__":
    main()
