"""Grade submissions: what a student defined runs in a sandbox, the tests run outside and ask it."""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lmtl_course.checkpoint import write_whole
from tools.classroom.remote import CannotTravelError, Remote
from tools.classroom.sandbox import Limits, Sandbox, SandboxFailure, StudentError
from tools.classroom.sets import (
    HIDDEN,
    Cell,
    ProblemSet,
    comparisons_of_something,
    defined_names,
    fresh_namespace,
    read_set,
    run_cell,
)
from tools.classroom.submissions import RefusedError, Submission, answers, choose, discover, read

# ------------------------------------------------------------------------------------------ one submission's cells


@dataclass
class Session:
    """The run of one submission: a sandbox that is started again where it was ended, and the namespace of the tests."""

    problems: ProblemSet
    answers: dict[str, str]
    """The student's source by solution cell."""
    limits: Limits = field(default_factory=Limits)
    unsafe: bool = False

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.limits.total
        self.remote: Remote | None = None
        self.executed: list[Cell] = []
        self.failed: dict[str, str] = {}  # cells that ended with an error, and why
        self.ended: set[str] = set()  # those among them that ended the sandbox: they are not run again
        self.undefined: dict[str, str] = {}
        self.given: dict[str, Any] = {}

    def grade(self) -> Iterator[dict[str, Any]]:
        """Run all cells in order; a record for each test cell."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._start()
            self.namespace = fresh_namespace()
            try:
                for cell in self.problems.of("given", "solution", "test"):
                    if cell.kind == "test":
                        reason = self._test(cell)
                        yield {"name": cell.name, "points": 0.0 if reason else cell.points, "reason": reason}
                    else:
                        self._define(cell)
            finally:
                if self.remote:
                    self.remote.sandbox.stop()

    def _start(self) -> None:
        self.remote = Remote(Sandbox(self.limits, self.deadline, self.unsafe), self.given)

    def _define(self, cell: Cell) -> None:
        if cell.kind == "given":
            before = dict(self.namespace)
            run_cell(cell.source, cell.name, self.namespace)
            self.given |= {name: value for name, value in self.namespace.items() if before.get(name) is not value}
        if cell.kind == "solution" and cell.name not in self.answers:
            self.failed[cell.name] = f"the cell {cell.name} is missing from the notebook"
        self.executed.append(cell)
        with contextlib.suppress(SandboxFailure), alarm(self.deadline + 5 - time.monotonic()):
            if self._ready(cell):
                self._run(cell)
                self._bind()

    def _ready(self, last: Cell | None = None) -> bool:
        """Have a sandbox in which all cells so far (but the last) were run. False where the time is up."""
        if self.remote and not self.remote.sandbox.reason:
            with contextlib.suppress(SandboxFailure):
                self.remote.ask("data")  # an answer that nobody asked for is found before it costs another cell
        while self.remote is None or self.remote.sandbox.reason:
            if self.remote:
                self.remote.sandbox.stop()
            if time.monotonic() > self.deadline:
                return False
            self._start()
            with contextlib.suppress(SandboxFailure):
                for cell in self.executed:
                    if cell is not last:
                        self._run(cell)
                self._bind()
        return True

    def _run(self, cell: Cell) -> None:
        """Run one cell inside, unless it is missing or ended a sandbox before."""
        assert self.remote
        source = cell.source if cell.kind == "given" else self.answers.get(cell.name)
        if source is None or cell.name in self.ended:
            return
        blameless = not any(other.kind == "solution" for other in self.executed)
        try:
            self.remote.run(source, cell.name, cell.kind == "given")
        except StudentError as error:
            if blameless:
                raise RuntimeError(f"the given cell {cell.name} fails in the sandbox: {told(error, '')}") from None
            what = told(error, self.answers.get(error.cell, ""))
            self.failed[cell.name] = f"the cell {cell.name} stopped with {what}"
        except SandboxFailure as failure:
            if blameless:
                printed = self.remote.sandbox.first_output.decode(errors="replace")[-2000:]
                raise RuntimeError(f"the sandbox ended while it ran {cell.name}: {failure}\n{printed}") from None
            self.failed[cell.name] = f"while the cell {cell.name} ran, it was ended: {failure}"
            self.ended.add(cell.name)
            raise

    def _bind(self) -> None:
        """Give the tests what the solution cells so far define: data as it is, everything else as a proxy."""
        assert self.remote
        if "there" in self.namespace:
            self.namespace["there"] = self.remote.there
        self.undefined = {}
        for cell in [cell for cell in self.executed if cell.kind == "solution"]:
            for name in defined_names(cell.source):
                self.namespace.pop(name, None)
                try:
                    self.namespace[name] = self.remote.ask("get", name)
                except StudentError as error:
                    missing = isinstance(error, NameError)
                    default = f"{name} is not defined in the cell {cell.name}" if missing else f"{name}: {error.text}"
                    self.undefined[name] = self.failed.get(cell.name, default)

    def _test(self, cell: Cell) -> str:
        """Run a test cell; empty if it raises nothing, else the reason as the student will read it."""
        try:
            with alarm(self.deadline + 5 - time.monotonic()):
                if not self._ready():
                    raise SandboxFailure("the time for this submission was used up before")
                with comparisons_of_something():
                    run_cell(cell.source, cell.name, self.namespace)
            return ""
        except SandboxFailure as failure:
            return f"your code was ended: {failure}"
        except CannotTravelError:
            raise
        except NameError as error:
            if error.name in self.undefined:
                return self.undefined[str(error.name)]
            problem: BaseException = error
        except (Exception, MemoryError) as error:
            problem = error
        hidden = in_hidden_part(cell.source, last_line(problem, cell.name))
        prefix = "in a hidden test: " if hidden else ""
        if isinstance(problem, StudentError):
            return f"{prefix}your code raised {told(problem, self.answers.get(problem.cell, ''), hidden)}"
        if isinstance(problem, AssertionError):
            return prefix + (str(problem)[:1000] or "a check failed")
        text = "" if hidden else f": {str(problem)[:300]}"
        return f"{prefix}the check cannot use what your code returns ({type(problem).__name__}{text})"


def told(error: StudentError, source: str, hidden: bool = False) -> str:
    """An exception in words: type, text (not in hidden tests: it may tell their inputs) and the line it comes from."""
    lines = source.splitlines()
    place = f", line {error.line} of the cell {error.cell}" if re.fullmatch(r"\w+", error.cell) else ""
    if place and 0 < error.line <= len(lines):
        place += f": {lines[error.line - 1].strip()[:200]}"
    return f"{error.kind}{'' if hidden or not error.text else f' ({error.text})'}{place}"


def last_line(error: BaseException, name: str) -> int:
    """The line of a test cell in which an exception left it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == f"<{name}>"]
    return (frames[0].lineno or 0) if frames else 0


def in_hidden_part(source: str, line: int) -> bool:
    """Whether a line of a test cell stands among its hidden tests."""
    before = source.splitlines()[:line]
    return sum(HIDDEN[0] in text for text in before) > sum(HIDDEN[1] in text for text in before)


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """End what runs in this block after so many seconds: an answer may make a test work for hours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: Any) -> None:
        raise SandboxFailure("it took all its time")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------------------------------------------- one submission


def grade_submission(
    files: list[Path], sets: list[ProblemSet], limits: Limits | None = None, unsafe: bool = False
) -> dict[str, Any]:
    """Grade one student's files against whichever of the sets they answer.

    Args:
        files: notebooks and zips; they are read here and nowhere else.
        sets: the sets that they may belong to.
        limits: of the sandbox.
        unsafe: run the server without a sandbox.

    Returns:
        `set` (its name, or None), `status` ("graded" or "refused"), `reason`, `notes`, `seconds`, and `cells`: for each
        test and written cell `name`, `kind`, `points` (None: to be marked by hand), `of`, `reason` and, for written
        ones, `answer`.
    """
    start = time.monotonic()
    result: dict[str, Any] = {"set": sets[0].name if len(sets) == 1 else None, "status": "graded", "reason": ""}
    notebooks, notes = read(files)
    try:
        if not notebooks:
            raise RefusedError("; ".join(notes))
        problems, notebook, name = choose(notebooks, sets)
    except RefusedError as refused:
        cells = no_points(sets[0], str(refused)) if len(sets) == 1 else []
        return result | {"status": "refused", "reason": str(refused), "notes": [], "cells": cells, "seconds": 0.0}
    if len(notebooks) > 1:
        notes.append(f"of {len(notebooks)} notebooks {name} was graded")
    given = answers(notebook, problems)
    tests = {record["name"]: record for record in Session(problems, given.code, limits or Limits(), unsafe).grade()}
    cells = []
    for cell in problems.of("test", "written"):
        record: dict[str, Any] = {"kind": cell.kind, "of": cell.points, **tests.get(cell.name, {"name": cell.name})}
        if cell.kind == "written":
            text = given.text.get(cell.name, "")
            record |= {"answer": text, "points": None if text else 0.0, "reason": "" if text else "not answered"}
        cells.append(record)
    seconds = round(time.monotonic() - start, 1)
    return result | {"set": problems.name, "notes": notes + given.notes, "cells": cells, "seconds": seconds}


def no_points(problems: ProblemSet, reason: str) -> list[dict[str, Any]]:
    """The cells of a submission that could not be graded."""
    cells = problems.of("test", "written")
    return [
        {"name": cell.name, "kind": cell.kind, "points": 0.0, "of": cell.points, "reason": reason, "answer": ""}
        for cell in cells
    ]


def serve_job() -> None:
    """Grade what the job at standard input names, in this process of its own, and write the result file."""
    with contextlib.suppress(ImportError):
        import resource

        size = 8 << 30  # an answer may be made to grow while it is compared: this process, too, has its limit
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    job = json.load(sys.stdin)
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    sets = [read_set(path) for path in job["sets"]]
    files = [Path(path) for path in job["files"]]
    result = grade_submission(files, sets, Limits(**job["limits"]), job["unsafe"])
    write_whole(job["result"], json.dumps(job["head"] | result, indent=1).encode())


# -------------------------------------------------------------------------------------------------------- a folder


@dataclass
class Folder:
    """A folder of submissions on its way to results."""

    submissions: Path
    sets: list[Path]
    """The teacher's notebooks that the submissions may answer."""
    out: Path
    limits: Limits = field(default_factory=Limits)
    unsafe: bool = False

    def grade(self, jobs: int) -> list[dict[str, Any]]:
        """Grade all submissions, several at a time; what has been graded before and is as it was, is not graded again.

        Args:
            jobs: how many at a time.

        Returns:
            A result for each submission, in the order of the folder; the same lie in `out/results`.
        """
        found = discover(self.submissions)
        code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
        code += b"".join(path.read_bytes() for path in self.sets) + json.dumps(asdict(self.limits)).encode()
        version = hashlib.sha256(code).hexdigest()
        results: dict[str, dict[str, Any]] = {}
        with ThreadPoolExecutor(jobs) as pool:
            tasks = {pool.submit(self.one, submission, version): submission for submission in found}
            try:
                for task in tqdm(as_completed(tasks), total=len(tasks), desc="grading", unit="submission"):
                    results[tasks[task].key] = task.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        common = Counter(result["set"] for result in results.values() if result["set"]).most_common(1)
        for result in results.values():  # what could not be read belongs to the set of the others
            if result["set"] is None and common:
                problems = next(read_set(path) for path in self.sets if path.stem == common[0][0])
                result |= {"set": problems.name, "cells": no_points(problems, result["reason"])}
        return [results[submission.key] for submission in found]

    def one(self, submission: Submission, version: str) -> dict[str, Any]:
        """The result of one submission: kept from before, or graded in a process of its own."""
        path = self.out / "results" / f"{submission.key}.json"
        head = {"name": submission.name, "number": submission.number, "key": submission.key, "version": version}
        try:
            head["digest"] = submission.digest(self.submissions)
            kept = json.loads(path.read_bytes())
            if all(kept.get(key) == value for key, value in head.items()):
                return kept
        except (OSError, ValueError, AttributeError):
            pass
        files = [str(self.submissions / file) for file in submission.files]
        job: dict[str, Any] = {"files": files, "sets": [str(path) for path in self.sets], "limits": asdict(self.limits)}
        job |= {"unsafe": self.unsafe, "result": str(path), "head": head}
        path.unlink(missing_ok=True)
        try:
            done = subprocess.run(
                [sys.executable, "-c", "from tools.classroom.grading import serve_job; serve_job()"],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.limits.total + 120,
                check=False,
                env={
                    **os.environ,
                    "PYTHONPATH": str(Path(__file__).resolve().parent.parent.parent),
                    "MPLBACKEND": "agg",
                },
            )
            return json.loads(path.read_bytes())
        except subprocess.TimeoutExpired:
            reason = "grading took too long and was stopped"
        except (OSError, ValueError):
            last = done.stderr.strip().splitlines()[-1:] or [f"it ended with status {done.returncode}"]
            reason = f"grading failed: {last[0][:300]}"
        sets = [read_set(path) for path in self.sets]
        cells = no_points(sets[0], reason) if len(sets) == 1 else []
        result: dict[str, Any] = {
            "set": sets[0].name if cells else None,
            "status": "failed",
            "reason": reason,
            "notes": [],
        }
        return head | result | {"cells": cells, "seconds": 0.0}
