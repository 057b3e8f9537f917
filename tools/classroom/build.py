"""Student versions of the problem sets: nbgrader takes out what students must not see, the rest stays as it is."""

import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from lmtl_course.checkpoint import write_whole
from tools.classroom.sets import HIDDEN, SOLUTION, TEXT_STUB, SetError, kind_of, read_set
from tools.notebooks import ROOT, repository, tidy

ASSIGNMENTS = ROOT / "assignments"
CODE_STUB = (
    '# Write your code here, in place of the next line.\nraise NotImplementedError("this part is not solved yet")'
)
SETUP = """import importlib.util

if importlib.util.find_spec("lmtl_course") is None:  # on Colab or Kaggle: install the package, leave torch as it is
    %pip install --quiet git+https://github.com/{repository}"""


def sources() -> list[Path]:
    """The teacher's notebooks."""
    return sorted(ASSIGNMENTS.glob("source/*/*.ipynb"))


def release_path(source: Path) -> Path:
    """Where the student version of a teacher's notebook stands."""
    return ASSIGNMENTS / "release" / source.stem / source.name


def student_version(source: Path) -> NotebookNode:
    """The student version of a teacher's notebook: the same bytes whenever the source is the same.

    Solutions become stubs, hidden tests and rubrics vanish, cells are locked and carry checksums; the row of links and
    the cell that installs the package are added.

    Raises:
        SetError: the source breaks the rules of a set, or something that students must not see would be left.
    """
    from nbgrader.preprocessors import (
        CheckCellMetadata,
        ClearHiddenTests,
        ClearOutput,
        ClearSolutions,
        ComputeChecksums,
        LockCells,
    )

    problems = read_set(source)
    notebook: Any = nbformat.read(source, as_version=4)
    notebook.metadata = nbformat.from_dict({"classroom": {"set": problems.name, "points": problems.points}})
    steps = [
        ClearSolutions(code_stub={"python": CODE_STUB}, text_stub=TEXT_STUB),
        ClearHiddenTests(),
        ClearOutput(),
        LockCells(),
        ComputeChecksums(),
        CheckCellMetadata(),
    ]
    resources: Any = {}
    for step in steps:
        notebook, resources = step.preprocess(notebook, resources)
    add_opening(notebook, f"assignments/release/{source.stem}/{source.name}")
    for cell in notebook.cells:
        cell.metadata.pop("rubric", None)
        left = [mark for mark in (*SOLUTION, *HIDDEN) if mark.strip("# ") in cell.source]
        if left or (kind_of(cell) == "test" and not cell.source.strip()):
            name = cell.metadata.get("nbgrader", {}).get("grade_id", "without an id")
            raise SetError(f"{source.name}, cell {name}: {left or 'a test cell needs a part that students see'}")
    tidy(notebook)
    nbformat.validate(notebook)
    return notebook


def add_opening(notebook: NotebookNode, path: str) -> None:
    """Put the row of links under the title and the cell that installs the package after it, as in the chapters."""
    name, branch = repository()
    blob = f"{name}/blob/{branch}/{path}"
    links = (
        f"[Open in Colab](https://colab.research.google.com/github/{blob}) · "
        f"[Open in Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/{blob}) · "
        f"[Download](https://github.com/{name}/raw/{branch}/{path})"
    )
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not re.match(r"# \S", first.source):
        raise SetError(f"{path}: the first cell must be text that begins with a title, '# Problem set …'")
    title, _, rest = first.source.partition("\n")
    first.source = f"{title}\n\n{links}\n\n{rest.strip()}".strip()
    notebook.cells.insert(1, nbformat.v4.new_code_cell(SETUP.format(repository=name)))


def written_bytes(notebook: NotebookNode) -> bytes:
    """The file of a notebook."""
    return (nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n").encode("utf-8")


def build() -> list[Path]:
    """Write the student version of every set under assignments/release, each file whole or not at all."""
    written = []
    for source in sources():
        target = release_path(source)
        write_whole(target, written_bytes(student_version(source)))
        written.append(target)
    return written
