"""Byte-pair encoding against `tokenizers`: learning the merges and encoding, ours and the peer in turns.

`python benchmarks/bpe.py [--quick]` learns 4,096 merges from every book of `classics` and encodes ten of them, as whole
books and as paragraphs (which the peer likes better: it shares a batch among its cores), and does the
same with Chinese reviews, whose pieces are long. Merges and ids must be equal. It prints a table, writes
benchmarks/results/bpe.json and ends with one line `ratio <case> <ours/peer>` per case, the peer once on all cores and
once on one; below 1 means that ours is faster. `--quick` reads Python's documentation, and writes nothing.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import record  # puts this checkout on the path
import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lmtl_course import data
from lmtl_course.bpe import BPE


def peer_trained(texts: list[str], size: int) -> Tokenizer:
    peer = Tokenizer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    peer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    )
    return peer


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def speed(quick: bool) -> dict[str, dict[str, float]]:
    books = [row.text for row in data.load("pydocs" if quick else "classics", "train" if quick else "all")]
    forms = {
        "books": (books, books[:10]),
        "paragraphs": tuple([p for book in some for p in book.split("\n\n")] for some in (books, books[:10])),
    }
    if not quick:  # long pieces: Chinese sets no spaces
        forms["chinese"] = ([row.text for row in data.load("chnsenticorp")],) * 2
    size, repeats, cases = 256 + (512 if quick else 4096), 1 if quick else 2, {}
    for form, (texts, some) in forms.items():
        n_bytes = {"train": sum(len(t.encode()) for t in texts), "encode": sum(len(t.encode()) for t in some)}
        ours: dict[str, list[float]] = {"train": [], "encode": []}
        peers: dict[str, list[float]] = {f"{task}-{cores}": [] for task in ours for cores in ("all", "one")}
        for _ in range(repeats):
            took, bpe = seconds(lambda texts=texts: BPE.train(texts, size))
            ours["train"].append(took)
            for cores in ("all", "one"):
                os.environ["TOKENIZERS_PARALLELISM"] = "true" if cores == "all" else "false"
                took, peer = seconds(lambda texts=texts: peer_trained(texts, size))
                peers[f"train-{cores}"].append(took)
            mine, theirs = json.loads(bpe.to_json())["model"], json.loads(peer.to_str())["model"]
            assert (mine["merges"], mine["vocab"]) == (theirs["merges"], theirs["vocab"]), "merges differ"
        for _ in range(repeats + 1):
            fresh = BPE(bpe.tokens, bpe.merges)  # without the words that it has met
            took, ids = seconds(lambda some=some, fresh=fresh: [fresh.encode(text) for text in some])
            ours["encode"].append(took)
            for cores in ("all", "one"):
                os.environ["TOKENIZERS_PARALLELISM"] = "true" if cores == "all" else "false"
                peer = Tokenizer.from_str(bpe.to_json())
                took, encodings = seconds(lambda some=some, peer=peer: peer.encode_batch_fast(some))
                peers[f"encode-{cores}"].append(took)
            assert [e.ids for e in encodings] == ids, "ids differ"
        for task, times in ours.items():
            best = {"ours": min(times)} | {f"peer_{c}": min(peers[f"{task}-{c}"]) for c in ("all", "one")}
            cases[f"{task}-{form}"] = {
                "megabytes": n_bytes[task] / 1e6,
                "ours_s": best["ours"],
                "peer_all_cores_s": best["peer_all"],
                "peer_one_core_s": best["peer_one"],
            }
            print(f"{task:6} {form:10} {n_bytes[task] / 1e6:5.1f} MB   ours {best['ours']:6.2f} s   "
                  f"tokenizers {best['peer_all']:6.2f} s on all cores, {best['peer_one']:6.2f} s on one")  # fmt: skip
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description="Byte-pair encoding against tokenizers.")
    parser.add_argument("--quick", action="store_true", help="Python's documentation; nothing is written")
    options = parser.parse_args()
    cases = speed(options.quick)
    if not options.quick:
        stamp = record.stamp("python benchmarks/bpe.py")
        stamp["versions"]["tokenizers"] = tokenizers.__version__
        record.write("bpe", {**stamp, "merges": 4096, "data": data.loaded(), "cases": cases})
    for case, row in cases.items():
        print(f"ratio {case} {row['ours_s'] / row['peer_all_cores_s']:.3f}")
        print(f"ratio {case}-one-core {row['ours_s'] / row['peer_one_core_s']:.3f}")


if __name__ == "__main__":
    main()
