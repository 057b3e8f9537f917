"""What students handed in: found in a folder, read without trust, and matched with the cells of a set."""

import hashlib
import os
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import nbformat
from nbformat import NotebookNode

from tools.classroom.sets import TEXT_STUB, Cell, ProblemSet, defined_names

MAX_BYTES = 20_000_000
"""Of a notebook or an archive; larger ones are refused unread."""
MAX_MEMBERS = 200
PLATFORMS = (  # how learning platforms name what they hand over: the student, and a number by which they know them
    (re.compile(r"(?P<name>[^/]+?)_(?P<number>\d+)_assignsubmission_"), "Participant {}"),  # Moodle
    (re.compile(r"(?P<name>[^/_]+)(?:_LATE)?_(?P<number>\d+)_\d+_"), "{}"),  # Canvas
)


class RefusedError(ValueError):
    """A file that is not read, or not graded; the message is for the student."""


@dataclass
class Submission:
    """One student's files."""

    name: str
    number: str
    """The learning platform's number of the student, where the file's name tells it."""
    files: list[Path] = field(default_factory=list)

    @property
    def key(self) -> str:
        """A file name that no other submission has."""
        first = self.files[0].as_posix() if self.files else ""
        own = f"{self.name}\0{self.number}\0{'' if self.number else first}"
        return (
            f"{re.sub(r'[^a-zA-Z0-9]+', '-', self.name).strip('-')[:40]}-{hashlib.sha256(own.encode()).hexdigest()[:8]}"
        )

    def digest(self, folder: Path) -> str:
        """A hash of all that was handed in; what is refused unread counts with its size."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(f"{path}\0".encode())
            try:
                digest.update(read_file(folder / path))
            except (RefusedError, OSError) as refused:
                digest.update(str(refused).encode())
        return digest.hexdigest()


def discover(folder: Path) -> list[Submission]:
    """The submissions of a folder: notebooks, zips, and one sub-folder for each student; links are not followed.

    Raises:
        FileNotFoundError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; give the folder with the notebooks that were handed in")
    found: dict[tuple[str, str], Submission] = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith((".", "__MACOSX")):
            continue
        inside = [Path(entry.name)]
        if entry.is_dir(follow_symlinks=False):
            inside = [path.relative_to(folder) for path in walk(Path(entry.path))]
        elif not entry.name.lower().endswith((".ipynb", ".zip")):
            continue
        shown = entry.name.encode("utf-8", "replace").decode()
        name, number = (shown if entry.is_dir(follow_symlinks=False) else Path(shown).stem), ""
        for pattern, form in PLATFORMS:
            if match := pattern.match(shown):
                name, number = match["name"], form.format(match["number"])
                break
        key = (name, number) if number else (entry.name, "")
        found.setdefault(key, Submission(name, number)).files.extend(inside)
    if not found:
        raise FileNotFoundError(f"{folder} holds no .ipynb, no .zip and no folders: nothing to grade")
    return list(found.values())


def walk(folder: Path) -> Iterator[Path]:
    """Notebooks and archives below a folder, in order."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        yield from (Path(root, name) for name in sorted(names) if name.lower().endswith((".ipynb", ".zip")))


def read_file(path: Path) -> bytes:
    """The bytes of an ordinary file of sensible size, or RefusedError."""
    try:
        status = path.lstat()
    except OSError as error:
        raise RefusedError(f"{path.name} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(f"{path.name} is a link or no ordinary file")
    if status.st_size > MAX_BYTES:
        raise RefusedError(
            f"{path.name} has {status.st_size / 1e6:,.0f} MB, more than {MAX_BYTES / 1e6:,.0f}: "
            "clear the outputs and hand it in again"
        )
    return path.read_bytes()


def members(body: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """The notebooks in a zip, read into memory; nothing is written anywhere."""
    try:
        archive = zipfile.ZipFile(BytesIO(body))
        entries = archive.infolist()
    except Exception as error:
        raise RefusedError(f"{name} is not a zip file: {str(error)[:100]}") from None
    if len(entries) > MAX_MEMBERS:
        raise RefusedError(f"{name} holds {len(entries):,} files, more than {MAX_MEMBERS}")
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or re.match(r"[a-zA-Z]:", entry.filename):
            raise RefusedError(
                f"{name} wants to write outside its folder ({entry.filename[:100]!r}): it was not unpacked"
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise RefusedError(f"{name} holds a link ({entry.filename[:100]!r}): it was not unpacked")
    left = MAX_BYTES
    for entry in entries:
        hidden = any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(entry.filename).parts)
        if hidden or not entry.filename.lower().endswith(".ipynb"):
            continue
        try:
            with archive.open(entry) as file:
                content = file.read(left + 1)
        except Exception as error:  # a damaged or encrypted archive; every way of packing has errors of its own
            raise RefusedError(f"{name} cannot be unpacked: {str(error)[:100]}") from None
        left -= len(content)
        if left < 0:
            raise RefusedError(f"{name} unpacks to more than {MAX_BYTES / 1e6:,.0f} MB")
        yield entry.filename, content


def parse(body: bytes, name: str) -> NotebookNode:
    """The notebook in these bytes, or RefusedError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            notebook = nbformat.reads(body.decode("utf-8-sig"), as_version=4)
        for cell in notebook.cells:
            if not isinstance(cell.source, str) or not isinstance(cell.metadata, dict):
                raise TypeError("a cell without text")
    except Exception as error:  # whatever nbformat stumbles over
        what = "is not JSON" if isinstance(error, nbformat.reader.NotJSONError) else "is not a notebook"
        raise RefusedError(f"{name} {what}: {str(error)[:150]}") from None
    return notebook


def read(files: list[Path]) -> tuple[list[tuple[str, NotebookNode]], list[str]]:
    """All notebooks in a student's files, and the reasons why others were refused."""
    found, refused = list[tuple[str, NotebookNode]](), list[str]()
    for path in files:
        try:
            body = read_file(path)
            for name, content in members(body, path.name) if path.suffix.lower() == ".zip" else [(path.name, body)]:
                found.append((name, parse(content, name)))
        except RefusedError as error:
            refused.append(str(error))
    if not found and not refused:
        refused.append("no notebook was handed in")
    return found, refused


# ---------------------------------------------------------------------------------------------------- match with a set


@dataclass
class Answers:
    """What a notebook answers: source by solution cell, text by written cell, and what was strange on the way."""

    code: dict[str, str] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def ids(notebook: NotebookNode) -> set[str]:
    """All grade ids of a notebook."""
    return {name for cell in notebook.cells if (name := grade_id(cell))}


def grade_id(cell: NotebookNode) -> str:
    meta = cell.metadata.get("nbgrader")
    name: Any = meta.get("grade_id") if isinstance(meta, dict) else None
    return name if isinstance(name, str) else ""


def choose(notebooks: list[tuple[str, NotebookNode]], sets: list[ProblemSet]) -> tuple[ProblemSet, NotebookNode, str]:
    """The set and the notebook that have the most cells in common, and the notebook's name.

    Raises:
        RefusedError: no notebook has a cell of a set.
    """
    scores = [(len(matched(notebook, s)), s, notebook, name) for name, notebook in notebooks for s in sets]
    score, problems, notebook, name = max(scores, key=lambda entry: entry[0])
    if not score:
        told = notebooks[0][1].metadata.get("classroom", {})
        other = (
            f"it says that it is {told['set']!r}"
            if isinstance(told, dict) and "set" in told
            else "it has none of its cells"
        )
        raise RefusedError(f"{name} is not a notebook of {' or '.join(s.name for s in sets)}: {str(other)[:100]}")
    return problems, notebook, name


def matched(notebook: NotebookNode, problems: ProblemSet) -> dict[str, list[NotebookNode]]:
    """The cells of a notebook by the cell of the set that they answer.

    Some editors drop the metadata of cells. A cell without an id then counts as the answer if it defines what the
    reference defines or, in text, begins with the same line.
    """
    found: dict[str, list[NotebookNode]] = {}
    nameless = [cell for cell in notebook.cells if not grade_id(cell)]
    for cell in problems.of("solution", "written"):
        kind = "code" if cell.kind == "solution" else "markdown"
        own = [c for c in notebook.cells if grade_id(c) == cell.name and c.cell_type == kind]
        own = own or [c for c in nameless if c.cell_type == kind and resembles(c.source, cell)]
        if own:
            found[cell.name] = own
    return found


def resembles(source: str, cell: Cell) -> bool:
    if cell.kind == "written":
        return bool(source.strip()) and source.split("\n", maxsplit=1)[0].strip() == cell.source.split("\n")[0].strip()
    names = defined_names(cell.source)
    return bool(names) and all(
        re.search(rf"^(?:(?:def|class) {name}\b|{name}\b[^=\n]*=[^=])", source, re.M) for name in names
    )


def answers(notebook: NotebookNode, problems: ProblemSet) -> Answers:
    """What a notebook answers to a set."""
    result = Answers()
    cells = matched(notebook, problems)
    for cell in problems.of("solution", "written"):
        own = cells.get(cell.name, [])
        if not own:
            result.notes.append(f"the cell {cell.name} is missing")
            continue
        if len({c.source for c in own}) > 1:
            result.notes.append(f"{len(own)} different cells answer {cell.name}: the last of them counts")
        if not grade_id(own[-1]):
            result.notes.append(f"the cell {cell.name} has lost its id; it was known by what it defines")
        if cell.kind == "solution":
            result.code[cell.name] = own[-1].source
        else:
            question = cell.source.split("### BEGIN SOLUTION")[0].strip()
            text = own[-1].source.strip().removeprefix(question).replace(TEXT_STUB, "").strip()
            result.text[cell.name] = text[:20_000]
    return result
