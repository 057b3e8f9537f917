"""Execute the notebooks, store what they printed, and say later whether that is still true.

`python tools/notebooks.py execute [NAME …]` runs notebooks top to bottom and stores their outputs with a stamp
(`metadata.lmtl`): a hash of the code and of everything in the package that the code reaches, the data that was used,
the hardware, the time and the peak memory. `check` recomputes the hashes and names every notebook with stale outputs.
`build FILE.md` converts a Markdown working copy (jupytext) into a notebook first. `set-repo OWNER/NAME` rewrites every
link that carries the repository's address.
"""

import argparse
import ast
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
PACKAGE = ROOT / "lmtl_course"
RESULTS = ROOT / "benchmarks" / "results"
CELL_TIMEOUT = 300  # seconds; a whole notebook is meant to stay under 90

SURVEY = """
import json as _json, platform as _platform, sys as _sys
import numpy as _numpy, torch as _torch
from lmtl_course import data as _data
try:
    import resource as _resource

    _unit = 1 if _sys.platform == "darwin" else 1024  # ru_maxrss counts bytes on macOS, kibibytes on Linux
    _peak = round(_resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss * _unit / 1e6)
except ImportError:  # Windows keeps no such number
    _peak = 0
print(_json.dumps({
    "data": _data.loaded(),
    "peak_mb": _peak,
    "device": _torch.cuda.get_device_name() if _torch.cuda.is_available() else "cpu",
    "threads": _torch.get_num_threads(),
    "versions": {
        "python": _platform.python_version(), "torch": _torch.__version__.split("+")[0], "numpy": _numpy.__version__
    },
}))
"""


def code_of(notebook: NotebookNode) -> str:
    """All code cells as one text, without outputs."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def imported_modules(source: str) -> set[str]:
    """Names of `lmtl_course` modules that a piece of Python imports anywhere in it; notebook magics are passed over."""
    plain = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)
    names: set[str] = set()
    for node in ast.walk(ast.parse(plain)):
        if isinstance(node, ast.ImportFrom) and node.module == "lmtl_course":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lmtl_course."):
            names.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("lmtl_course.")}
    return {name for name in names if (PACKAGE / f"{name}.py").exists()}


def reached_modules(source: str) -> list[str]:
    """The package modules that a source imports, directly or through other modules, in alphabetical order."""
    reached: set[str] = set()
    waiting = imported_modules(source)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= imported_modules((PACKAGE / f"{name}.py").read_text(encoding="utf-8")) - reached
    return sorted(reached)


def code_hash(notebook: NotebookNode) -> str:
    """Hash of a notebook's code cells and of every file that they reach: modules, tables, base models, results.

    A notebook that reads from benchmarks/results depends on the files there whose first word begins a string in it.
    """
    code = code_of(notebook)
    digest = hashlib.sha256(code.encode())
    files = [PACKAGE / f"{name}.py" for name in reached_modules(code)] + sorted(PACKAGE.glob("*.json"))
    if "benchmarks/results" in code:
        first = {path: path.stem.split("_")[0] for path in sorted(RESULTS.glob("*.json"))}
        files += [path for path, word in first.items() if re.search(rf"""["'/]{word}[_."']""", code)]
    if "pretraining" in reached_modules(code):
        for weights in sorted(PACKAGE.glob("models/*/model.safetensors")):
            digest.update(weights.parent.name.encode() + b"\0" + weights.read_bytes())
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_text(encoding="utf-8").encode() + b"\0")
    return digest.hexdigest()[:32]


def hardware() -> str:
    """The processor's name and the number of cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        name = found.group(1).strip() if found else name
    return f"{name}, {cores} cores, {platform.system()}"


def survey_of(client: NotebookClient) -> dict[str, Any]:
    """Ask the kernel, after the last cell, what it used; nothing of this is stored as a cell."""
    probe = nbformat.v4.new_code_cell(SURVEY)
    client.nb.cells.append(probe)
    try:
        client.execute_cell(probe, len(client.nb.cells) - 1)
        return json.loads("".join(output.text for output in probe.outputs if output.output_type == "stream"))
    finally:
        client.nb.cells.pop()


def tidy(notebook: NotebookNode) -> None:
    """Leave nothing in the file that changes from run to run: ids, execution times, the local kernel's name."""
    for index, cell in enumerate(notebook.cells):
        cell.id = hashlib.sha256(f"{index} {cell.source}".encode()).hexdigest()[:8]
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):  # neighbouring pieces of one stream arrive split at random places
            if output.output_type == "stream":
                output.text = "".join(output.text)
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.pop("jupytext", None)
    notebook.nbformat, notebook.nbformat_minor = 4, 5


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join stream outputs that follow each other and have the same name."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def execute(path: Path) -> dict[str, Any]:
    """Run one notebook in a fresh kernel, store outputs and stamp in place, and return the stamp."""
    notebook = nbformat.read(path, as_version=4)
    stamp_hash = code_hash(notebook)
    environment = {
        **os.environ,
        "TQDM_DISABLE": "1",  # a finished progress bar is noise on a page
        "PYTHONWARNINGS": "ignore:IProgress not found",  # progress bars are text here, whether widgets are there or not
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOKS)}},
        extra_arguments=["--log-level=40"],  # errors only: the kernel talks to this process alone
    )
    start = time.perf_counter()
    with client.setup_kernel(env=environment):
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        seconds = time.perf_counter() - start
        survey = survey_of(client)
    stamp = {
        "code_hash": stamp_hash,
        "modules": reached_modules(code_of(notebook)),
        "hardware": hardware(),
        "seconds": round(seconds, 1),
        "date": datetime.now(UTC).date().isoformat(),
        **survey,
    }
    tidy(notebook)
    notebook.metadata["lmtl"] = stamp
    temporary = path.with_suffix(".ipynb.part")
    nbformat.write(notebook, temporary)
    temporary.replace(path)
    return stamp


def is_stale(path: Path) -> bool:
    """Whether the stored outputs come from other code than the notebook and the package hold now."""
    notebook = nbformat.read(path, as_version=4)
    return notebook.metadata.get("lmtl", {}).get("code_hash") != code_hash(notebook)


def selected(names: list[str]) -> list[Path]:
    """The notebooks with these names (`05`, `recurrent`, `05_recurrent` or a path), or all of them."""
    every = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not names:
        return every
    chosen = []
    for name in names:
        stem = Path(name).stem
        matches = [path for path in every if stem in (path.stem, *path.stem.split("_", 1))]
        if not matches:
            raise SystemExit(f"no notebook called {name!r}; there are {', '.join(path.stem for path in every)}")
        chosen += matches
    return chosen


def from_markdown(source: Path) -> Path:
    """Convert a jupytext Markdown file into `notebooks/<same name>.ipynb` (no outputs yet) and return its path."""
    import jupytext

    notebook = jupytext.read(source, fmt="md")
    target = NOTEBOOKS / f"{source.stem}.ipynb"
    tidy(notebook)
    nbformat.write(notebook, target)
    return target


def repository() -> tuple[str, str]:
    """The repository's owner/name and branch, from _config.yml."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]
    return "/".join(settings["url"].rstrip("/").split("/")[-2:]), settings["branch"]


def set_repository(new: str) -> int:
    """Replace the repository's address (owner/name) in every tracked text file; returns how many files changed."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
        raise SystemExit(f"{new!r} is not of the form owner/name")
    old, _ = repository()
    (old_owner, old_name), (owner, name) = old.split("/"), new.split("/")
    current = [path for path in selected([]) if not is_stale(path)]
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    changed = 0
    for file in (ROOT / entry for entry in tracked.split("\0") if entry):
        try:
            before = file.read_bytes().decode("utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
        after = before.replace(f"{old_owner}.github.io/{old_name}", f"{owner}.github.io/{name}").replace(old, new)
        if after != before:
            file.write_bytes(after.encode("utf-8"))
            changed += 1
    for path in current:  # the setup cell names the repository: its outputs are the same, its hash is not
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata["lmtl"]["code_hash"] = code_hash(notebook)
        nbformat.write(notebook, path)
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tools/notebooks.py", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("execute", help="run notebooks and store outputs and stamp")
    run.add_argument("names", nargs="*")
    run.add_argument("--stale", action="store_true", help="only those whose stored outputs are stale")
    commands.add_parser("check", help="exit 1 if any stored output is stale")
    build = commands.add_parser("build", help="convert a Markdown working copy, then execute it")
    build.add_argument("source", type=Path)
    move = commands.add_parser("set-repo", help="rewrite every link to the repository")
    move.add_argument("repository", metavar="OWNER/NAME")
    options = parser.parse_args(arguments)

    if options.command == "set-repo":
        print(f"{set_repository(options.repository)} files now point at {options.repository}")
        return 0
    if options.command == "check":
        stale = [path.name for path in selected([]) if is_stale(path)]
        print(f"stale outputs: {', '.join(stale)}; run `make notebooks`" if stale else "all stored outputs are current")
        return 1 if stale else 0
    paths = [from_markdown(options.source)] if options.command == "build" else selected(options.names)
    for path in paths:
        if options.command == "execute" and options.stale and not is_stale(path):
            continue
        try:
            stamp = execute(path)
        except CellExecutionError as error:
            print(f"{path.name} failed and keeps its old outputs:\n{error}", file=sys.stderr)
            return 1
        used = ", ".join(stamp["data"]) or "none"
        print(f"{path.name}: {stamp['seconds']:.0f} s, {stamp['peak_mb']} MB, data: {used}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
