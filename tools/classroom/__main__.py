"""Command line of the classroom: `python -m tools.classroom build | grade | try`."""

import argparse
import os
import sys
from pathlib import Path

from tools.classroom.sandbox import SandboxMissingError
from tools.classroom.sets import SetError, read_set, read_variant, try_set


def try_command(options: argparse.Namespace) -> int:
    """Print points by cell; the status is 0 if they are what the set, or the variant, promises."""
    import torch

    torch.set_num_threads(1)
    problems = read_set(options.notebook)
    variant = read_variant(options.variant) if options.variant else None
    if options.sandbox:
        from tools.classroom.grading import Session

        answers = {cell.name: cell.source for cell in problems.of("solution")}
        if variant:
            answers[variant.replaces] = variant.source
        results = list(Session(problems, answers).grade())
        points = {result["name"]: result["points"] for result in results}
        print("".join(f"{r['name']}: {r['reason']}\n" for r in results if r["reason"]), end="", file=sys.stderr)
    else:
        points = try_set(problems, variant, verbose=not options.quiet)
    for cell in problems.of("test", "written"):
        got = f"{points[cell.name]:g}" if cell.kind == "test" else "by hand, of"
        print(f"{cell.name:32} {got} / {cell.points:g}")
    tests = sum(cell.points for cell in problems.of("test"))
    print(f"{'total of the tests':32} {sum(points.values()):g} / {tests:g} ({problems.points:g} with written answers)")
    lost = {cell.name for cell in problems.of("test") if points[cell.name] < cell.points}
    promised = set(variant.loses) if variant else set()
    if variant and promised and promised <= lost:
        print(f"{variant.name} loses {', '.join(sorted(lost))}, as it should")
        return 0
    if lost - promised or promised - lost:
        print(f"lost: {', '.join(sorted(lost)) or 'nothing'}; expected: {', '.join(sorted(promised)) or 'nothing'}")
        return 1
    return 0


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def build_command(options: argparse.Namespace) -> int:
    """Write the student versions."""
    from tools.classroom.build import build

    for path in build():
        print(f"{path.parent.name}: {path}")
    return 0


def grade_command(options: argparse.Namespace) -> int:
    """Grade a folder and write the reports; the status is 1 where something could not be graded."""
    from tools.classroom.build import sources
    from tools.classroom.grading import Folder
    from tools.classroom.reports import write_reports
    from tools.classroom.sandbox import reason_against, refuse_visible

    paths = [path for path in options.source or sources() if options.set in (None, path.stem)]
    if not paths:
        raise SetError(f"there is no set {options.set!r}; there are {', '.join(path.stem for path in sources())}")
    if not options.unsafe and (reason := reason_against()):
        raise SandboxMissingError(f"{reason}\n(--unsafe grades without a sandbox: only for code that you trust)")
    if options.unsafe:
        print("WARNING: no sandbox. Students' code runs with all your rights on this machine.", file=sys.stderr)
    submissions = options.submissions.resolve()
    out = (options.out or submissions.with_name(f"{submissions.name}-graded")).resolve()
    if out == submissions or submissions in out.parents:
        raise SetError(f"{out} lies inside the submissions; choose a folder outside")
    if not options.unsafe:
        refuse_visible(submissions, out, *paths)
    results = Folder(submissions, paths, out, unsafe=options.unsafe).grade(options.jobs)
    for path in paths:
        own = [result for result in results if result["set"] == path.stem]
        if own:
            told = write_reports(out / path.stem, read_set(path), own)
            print("\n".join([f"{path.stem}: {len(own)} submissions, see {out / path.stem / 'summary.html'}", *told]))
    lost = [result["name"] for result in results if result["set"] is None]
    if lost:
        print(f"of no set: {', '.join(lost)}; give SET to count them", file=sys.stderr)
    return int(bool(lost) or any(result["status"] == "failed" for result in results))


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.classroom", description="Problem sets: build, grade, try.")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("build", help="write the student versions of all sets").set_defaults(run=build_command)
    grade = commands.add_parser("grade", help="grade a folder of notebooks and zips")
    grade.add_argument("submissions", type=Path)
    grade.add_argument("--set", help="which set they answer, say ps1; without it each notebook tells")
    grade.add_argument("--out", type=Path, help="where the results go; <submissions>-graded unless given")
    grade.add_argument("--jobs", type=int, default=cores(), help="how many at a time (default: all cores)")
    grade.add_argument(
        "--source", type=Path, action="append", help="a teacher's notebook elsewhere than in assignments"
    )
    grade.add_argument("--unsafe", action="store_true", help="without a sandbox: only for code that you trust")
    grade.set_defaults(run=grade_command)
    attempt = commands.add_parser("try", help="run a teacher's notebook, with its own or another solution; for authors")
    attempt.add_argument("notebook", type=Path)
    attempt.add_argument("--with", dest="variant", type=Path, metavar="FILE", help="a file of the zoo")
    attempt.add_argument("--sandbox", action="store_true", help="as it will be graded: solutions inside, tests outside")
    attempt.add_argument("--quiet", action="store_true", help="points only, no tracebacks")
    attempt.set_defaults(run=try_command)
    options = parser.parse_args(arguments)
    os.environ.setdefault("MPLBACKEND", "agg")
    try:
        return options.run(options)
    except (SetError, SandboxMissingError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
