"""Fitting and scoring n-gram models against `nltk.lm`: the same sentences, the same order, the same probabilities.

`python benchmarks/ngram.py [--quick]` prints a table, writes benchmarks/results/ngram.json and ends with one line
`ratio <case> <ours/peer>` per case; below 1 means that ours is faster. `--quick` uses a small corpus, writes nothing.

Both sides start from sentences of words (strings) and end with one probability per token of the held-out sentences.
`fit` is everything before scoring: vocabulary, padding, counting and, for ours, the model's tables. The peer gets its
own documented pipeline. `score` includes encoding and padding on our side, padding and contexts on the peer's. They
take turns; a ratio is the median over the rounds of ours / peer within one round. nltk's Kneser-Ney walks through all
contexts for every score, so both sides score only the first few hundred tokens there.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

import nltk
import numpy as np
from nltk.lm import KneserNeyInterpolated, Lidstone
from nltk.lm.preprocessing import pad_both_ends, padded_everygram_pipeline
from record import stamp, write

from lmtl_course import data
from lmtl_course.ngram import NGramCounts, add_k, kneser_ney, pad
from lmtl_course.text import Vocabulary, sentences, tokenize

K, DISCOUNT = 0.1, 0.1  # the second is nltk's default
Sentences = list[list[str]]
MODELS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "lidstone": (lambda counts: add_k(counts, K), lambda order: Lidstone(K, order)),
    "kneser-ney": (
        lambda counts: kneser_ney(counts, DISCOUNT, like_nltk=True),
        lambda order: KneserNeyInterpolated(order, discount=DISCOUNT),
    ),
}


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def our_fit(name: str, train: Sentences, order: int) -> tuple[Vocabulary, Any]:
    vocabulary = Vocabulary.build(chain.from_iterable(train), specials=("<s>", "</s>"))
    return vocabulary, MODELS[name][0](NGramCounts.of(our_ids(vocabulary, train, order), order, len(vocabulary)))


def our_ids(vocabulary: Vocabulary, some: Sentences, order: int) -> list[list[int]]:
    return pad(map(vocabulary.encode, some), order, vocabulary.id("<s>"), vocabulary.id("</s>"))


def peer_fit(name: str, train: Sentences, order: int) -> Any:
    model = MODELS[name][1](order)
    model.fit(*padded_everygram_pipeline(order, train))
    return model


def peer_scores(model: Any, held: Sentences, order: int) -> list[float]:
    padded = [list(pad_both_ends(words, order)) for words in held]
    return [
        model.score(word, tuple(words[max(0, i - order + 1) : i]) or None)
        for words in padded
        for i, word in enumerate(words)
    ]


def compare(name: str, train: Sentences, held: Sentences, order: int, rounds: int) -> dict[str, Any]:
    times: dict[str, dict[str, list[float]]] = {task: {"ours": [], "peer": []} for task in ("fit", "score", "together")}
    for _ in range(rounds):
        fit, (vocabulary, model) = seconds(lambda: our_fit(name, train, order))
        score, got = seconds(lambda v=vocabulary, m=model: m.probabilities(our_ids(v, held, order)))
        peer_fits, peer = seconds(lambda: peer_fit(name, train, order))
        peer_scored, expected = seconds(lambda p=peer: peer_scores(p, held, order))
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
        for task, ours, theirs in (("fit", fit, peer_fits), ("score", score, peer_scored)):
            times[task]["ours"].append(ours)
            times[task]["peer"].append(theirs)
        times["together"]["ours"].append(fit + score)
        times["together"]["peer"].append(peer_fits + peer_scored)
    return {
        "model": name,
        "order": order,
        "train_tokens": sum(map(len, train)),
        "scored_tokens": len(got),
        "seconds": {
            task: {side: round(statistics.median(t), 5) for side, t in sides.items()} for task, sides in times.items()
        },
        "ratios": {
            task: statistics.median(a / b for a, b in zip(sides["ours"], sides["peer"], strict=True))
            for task, sides in times.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small corpus, one round, nothing written")
    options = parser.parse_args()
    books = data.load("classics", stand_in=True)
    size, n_held, rounds = (100_000, 100, 1) if options.quick else (1_500_000, 2_000, 3)
    cut = [tokenize(sentence) for sentence in sentences(books.text[:size])]
    train, held = cut[:-n_held], cut[-n_held:]
    cases = []
    print(f"{'case':14} {'train':>8} {'scored':>7} {'task':9} {'ours s':>9} {'nltk s':>9} {'nltk/ours':>10}")
    for name, order in (("lidstone", 3), ("lidstone", 5), ("kneser-ney", 3)):
        few = held if name == "lidstone" else held[: 3 if options.quick else 12]
        case = compare(name, train, few, order, rounds)
        cases.append(case)
        for task, times in case["seconds"].items():
            print(
                f"{f'{name}-{order}':14} {case['train_tokens']:8,} {case['scored_tokens']:7,} {task:9} "
                f"{times['ours']:9.4f} {times['peer']:9.4f} {1 / case['ratios'][task]:10.0f}"
            )
    ratios = {f"{c['model']}-{c['order']}-{task}": c["ratios"][task] for c in cases for task in c["ratios"]}
    if not options.quick:
        record = stamp("python benchmarks/ngram.py")
        record["versions"]["nltk"] = nltk.__version__
        write("ngram", {**record, "data": data.loaded(), "rounds": rounds, "cases": cases, "ratios": ratios})
    for case_name, ratio in ratios.items():
        print(f"ratio ngram-{case_name} {ratio:.5f}")


if __name__ == "__main__":
    main()
