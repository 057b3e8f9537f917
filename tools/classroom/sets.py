"""A problem set: the teacher's notebook read into cells of known kinds, and its zoo of right and wrong solutions."""

import ast
import builtins
import contextlib
import linecache
import math
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
from nbformat import NotebookNode

SCHEMA = 3  # of nbgrader's cell metadata
SOLUTION = ("### BEGIN SOLUTION", "### END SOLUTION")
HIDDEN = ("### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS")
TEXT_STUB = "*Write your answer here, in place of this line.*"
"""What stands in the student version in place of a written answer."""
KINDS = {  # (cell type, grade, solution, locked): kind
    ("code", False, False, True): "given",
    ("code", False, True, False): "solution",
    ("code", True, False, True): "test",
    ("markdown", True, True, False): "written",
    ("markdown", False, False, True): "text",
}


class SetError(ValueError):
    """A teacher's notebook or a file of the zoo that breaks the rules; the message names the cell and the remedy."""


@dataclass(frozen=True)
class Cell:
    """One cell that takes part in grading."""

    name: str
    """nbgrader's `grade_id`."""
    kind: str
    """given, solution, test, written or text."""
    source: str
    points: float = 0.0
    rubric: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProblemSet:
    """The cells of a teacher's notebook, in order, without those that grading ignores."""

    name: str
    cells: tuple[Cell, ...]

    def of(self, *kinds: str) -> list[Cell]:
        """The cells of these kinds, in order."""
        return [cell for cell in self.cells if cell.kind in kinds]

    @property
    def points(self) -> float:
        """Points that can be had, those for written answers included."""
        return sum(cell.points for cell in self.cells)

    @property
    def defined(self) -> list[str]:
        """The top-level names that the reference's solution cells define: what the tests reach."""
        return sorted({name for cell in self.of("solution") for name in defined_names(cell.source)})


def kind_of(cell: NotebookNode) -> str:
    """The kind of a notebook cell: one of `KINDS`, or "free" where nbgrader has nothing to do with it."""
    meta = cell.metadata.get("nbgrader")
    if not meta or not (meta.get("grade") or meta.get("solution") or meta.get("locked")):
        return "free"
    key = cell.cell_type, *(bool(meta.get(flag)) for flag in ("grade", "solution", "locked"))
    if key not in KINDS:
        flags = ", ".join(flag for flag in ("grade", "solution", "locked") if meta.get(flag))
        raise SetError(f"cell {meta.get('grade_id')!r} is {cell.cell_type} with {flags}: no kind of cell looks so")
    return KINDS[key]


def read_set(path: str | Path) -> ProblemSet:
    """Read a teacher's notebook.

    Args:
        path: `…/psN.ipynb`; the set has the file's name.

    Raises:
        SetError: ids are missing or doubled, marks are not in pairs, points are missing or not positive.
    """
    path = Path(path)
    cells: list[Cell] = []
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells, 1):
        kind = kind_of(cell)
        if kind == "free":
            _refuse_marks(cell.source, f"{path.name}, cell {number}", SOLUTION, HIDDEN)
            continue
        meta = cell.metadata.nbgrader
        name, where = meta.get("grade_id", ""), f"{path.name}, cell {number} ({meta.get('grade_id')!r})"
        if meta.get("schema_version") != SCHEMA or not re.fullmatch(r"\w+", name):
            raise SetError(f"{where}: schema_version must be {SCHEMA} and grade_id a word of letters, digits and _")
        if name in [other.name for other in cells]:
            raise SetError(f"{where}: another cell has this grade_id; every cell needs its own")
        points = meta.get("points", 0)
        if (kind in ("test", "written")) != (points > 0):
            raise SetError(f"{where}: a {kind} cell with {points} points; tests and written answers have some")
        if kind != "test":
            _refuse_marks(cell.source, where, HIDDEN)
        if kind not in ("solution", "written"):
            _refuse_marks(cell.source, where, SOLUTION)
        for begin, end in (SOLUTION, HIDDEN):
            marks = re.findall(f"{begin}|{end}", cell.source)
            if marks != [begin, end] * (len(marks) // 2):
                raise SetError(f"{where}: {begin!r} and {end!r} must follow each other in pairs, found {marks}")
        rubric = tuple(cell.metadata.get("rubric", ()))
        if kind == "written" and not rubric:
            raise SetError(f"{where}: a written answer needs a rubric in its metadata, a list of strings with points")
        cells.append(Cell(name, kind, cell.source, float(points), rubric))
    if not any(cell.kind == "test" for cell in cells):
        raise SetError(f"{path.name} has no test cell: nothing could be graded")
    return ProblemSet(path.stem, tuple(cells))


def _refuse_marks(source: str, where: str, *pairs: tuple[str, str]) -> None:
    for begin, end in pairs:
        if begin in source or end in source:
            raise SetError(f"{where}: a cell of this kind cannot hold {begin!r} … {end!r}")


def defined_names(source: str) -> set[str]:
    r"""Names that a cell's functions, classes and assignments define at its top level (imports are not counted).

    >>> sorted(defined_names("import math\ndef f():\n    x = 1\na, *b = c = 1, 2\nclass D: pass"))
    ['D', 'a', 'b', 'c', 'f']
    """
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return names


@dataclass(frozen=True)
class Variant:
    """A file of the zoo: another source for one solution cell, and what it must lose."""

    name: str
    replaces: str
    loses: tuple[str, ...]
    """Test cells that must find it out; none for a right solution in another style."""
    source: str


def read_variant(path: str | Path) -> Variant:
    """Read a file of the zoo; its first line says what it replaces and what that costs."""
    path = Path(path)
    source = path.read_text(encoding="utf-8")
    first = re.match(r"# replaces: (\w+); (?:full marks|loses: (\w+(?:, \w+)*))(?:\n|$)", source)
    if not first:
        raise SetError(
            f"{path.name}: the first line must be '# replaces: <solution cell>; loses: <test cell>[, …]' "
            "or '# replaces: <solution cell>; full marks'"
        )
    return Variant(path.stem, first[1], tuple((first[2] or "").split(", ")) if first[2] else (), source)


def run_cell(source: str, name: str, namespace: dict[str, Any]) -> None:
    """Execute a cell's source; tracebacks and `inspect` find its lines under `<name>`."""
    filename = f"<{name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    exec(compile(source, filename, "exec"), namespace)


@contextlib.contextmanager
def comparisons_of_something() -> Iterator[None]:
    """While tests run: nothing, an empty tensor, is not close to something, though broadcasting makes it so.

    >>> import torch
    >>> torch.allclose(torch.empty(0, 3), torch.ones(3))
    True
    >>> with comparisons_of_something():
    ...     torch.allclose(torch.empty(0, 3), torch.ones(3))
    False
    """
    import numpy
    import torch

    def checked(function: Any) -> Any:
        def close(a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
            sizes = {math.prod(getattr(side, "shape", numpy.shape(side))) for side in (a, b)}
            return (0 not in sizes or sizes == {0}) and function(a, b, *args, **kwargs)

        return close

    places: list[Any] = [torch, numpy]
    before = [place.allclose for place in places]
    for place, function in zip(places, before, strict=True):
        place.allclose = checked(function)
    try:
        yield
    finally:
        for place, function in zip(places, before, strict=True):
            place.allclose = function


def fresh_namespace(name: str = "problem_set") -> dict[str, Any]:
    """The namespace of a new module that `sys.modules` knows, as dataclasses and pickling functions expect."""
    module = ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    return module.__dict__


def try_set(problems: ProblemSet, variant: Variant | None = None, verbose: bool = True) -> dict[str, float]:
    """Run a set in this process, without a sandbox: for authors, who trust their own code.

    Args:
        problems: the set.
        variant: takes the place of one solution cell.
        verbose: print what is raised in cells that fail.

    Returns:
        Points by test cell.

    Raises:
        SetError: the variant names cells that the set does not have.
    """
    if variant:
        known = {cell.name: cell.kind for cell in problems.cells}
        wrong = [name for name in variant.loses if known.get(name) != "test"]
        if known.get(variant.replaces) != "solution" or wrong:
            raise SetError(f"{variant.name}.py: {', '.join(wrong) or variant.replaces} is no such cell of the set")
    namespace = fresh_namespace()
    points: dict[str, float] = {}
    for cell in problems.of("given", "solution", "test"):
        source = variant.source if variant and cell.name == variant.replaces else cell.source
        try:
            with warnings.catch_warnings(), comparisons_of_something():
                warnings.simplefilter("ignore")
                run_cell(source, cell.name, namespace)
            error: Exception | None = None
        except Exception as raised:
            if cell.kind == "given":
                raise
            error = raised
        if cell.kind == "test":
            points[cell.name] = 0.0 if error else cell.points
        if error and verbose:
            lines = traceback.format_exception(error)
            print(f"--- {cell.name}\n{''.join([lines[0], *lines[2:]])}", file=sys.stderr)
    return points
