"""How long a class waits for its grades: thirty submissions of one set, all tests in the sandbox.

`python benchmarks/grading.py [--set ps1] [--jobs 2] [--quick]` hands in the set's reference and every solution of its
zoo in turn, grades the folder as `make grade` does, and writes seconds and what each needs to
benchmarks/results/grading.json. The aim is five minutes for thirty on two cores.
"""

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

from record import RESULTS, ROOT, stamp, write

from tools.classroom import build, sets, submissions
from tools.classroom.grading import Folder
from tools.classroom.reports import total, write_reports
from tools.classroom.sandbox import reason_against

AIM = 300.0  # seconds


def hand_in(source: Path, zoo: list[Path], folder: Path, count: int) -> None:
    """Write `count` notebooks: the reference first, then the zoo, one wrong cell in each, over and over."""
    problems, release = sets.read_set(source), build.student_version(source)
    reference = {cell.name: cell.source for cell in problems.of("solution")}
    variants = [None, *map(sets.read_variant, zoo)]
    for number in range(count):
        variant = variants[number % len(variants)]
        answers = reference | ({variant.replaces: variant.source} if variant else {})
        notebook = copy.deepcopy(release)
        for cell in notebook.cells:
            cell.source = answers.get(submissions.grade_id(cell), cell.source)
        (folder / f"student{number:02d}.ipynb").write_bytes(build.written_bytes(notebook))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--set", default="ps1")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="four submissions, nothing written")
    options = parser.parse_args()
    if reason := reason_against():
        raise SystemExit(reason)
    source = ROOT / "assignments" / "source" / options.set / f"{options.set}.ipynb"
    zoo = sorted((ROOT / "assignments" / "zoo" / options.set).glob("*.py"))
    count = 4 if options.quick else 30
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch) / "handed-in", Path(scratch) / "graded"
        folder.mkdir()
        hand_in(source, zoo, folder, count)
        start = time.perf_counter()
        results = Folder(folder, [source], out).grade(options.jobs)
        write_reports(out / options.set, sets.read_set(source), results)
        seconds = time.perf_counter() - start
    each = [result["seconds"] for result in results]
    failed = [result["name"] for result in results if result["status"] != "graded"]
    if failed:
        raise SystemExit(f"not graded: {', '.join(failed)}")
    print(f"{count} submissions of {options.set}, {options.jobs} at a time: {seconds:.0f} s; ", end="")
    print(f"one: median {statistics.median(each):.1f} s, most {max(each):.1f} s")
    print(f"ratio grading_{options.set} {seconds / (AIM * count / 30):.3f}")
    if options.quick:
        return
    command = f"python benchmarks/grading.py --set {options.set} --jobs {options.jobs}"
    record = stamp(command) | {
        "set": options.set,
        "submissions": count,
        "jobs": options.jobs,
        "seconds": round(seconds, 1),
        "aim_seconds": AIM,
        "median_seconds_of_one": statistics.median(each),
        "most_seconds_of_one": max(each),
        "points": [total(result) for result in results],
    }
    write("grading", record)
    print(f"written: {(RESULTS / 'grading.json').relative_to(ROOT)}")


if __name__ == "__main__":
    main()
