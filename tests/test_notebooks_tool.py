"""The tool that executes notebooks stores what they print, who ran them on what, and nothing that changes by chance."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from tools import notebooks as tool

ROOT = Path(__file__).resolve().parent.parent
CELLS = [
    'print("one")',
    "import sys\nprint('two', end=''); sys.stdout.flush(); print(' three')",
    "from lmtl_course import data\ntext = data.load('numerals', 'train')\nassert len(text) > 0",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of notebooks with one notebook in it, not yet executed."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "07_sample.ipynb")
    monkeypatch.setattr(tool, "NOTEBOOKS", tmp_path)
    return tmp_path


def test_execution_stores_outputs_and_a_stamp_and_is_repeatable(folder):
    path = folder / "07_sample.ipynb"
    assert tool.is_stale(path)
    stamp = tool.execute(path)
    notebook = nbformat.read(path, as_version=4)
    assert len(notebook.cells) == len(CELLS), "the survey of the kernel must not stay in the notebook"
    assert notebook.cells[0].outputs[0].text == "one\n"
    assert [output.text for output in notebook.cells[1].outputs] == ["two three\n"]
    assert notebook.metadata.lmtl == stamp
    assert stamp["modules"] == ["data", "embedded"]
    assert any("numerals" in used for used in stamp["data"])
    assert stamp["peak_mb"] > 50 or sys.platform == "win32"
    assert not tool.is_stale(path)
    first = path.read_text(encoding="utf-8")
    again = tool.execute(path)
    changing = {"seconds", "peak_mb"}
    for key in changing:
        first = first.replace(f'"{key}": {stamp[key]}', f'"{key}": {again[key]}')
    assert path.read_text(encoding="utf-8") == first


def test_a_failing_cell_leaves_the_file_as_it_was(folder):
    path = folder / "07_sample.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = "assert 1 == 2"
    nbformat.write(notebook, path)
    before = path.read_bytes()
    with pytest.raises(CellExecutionError):
        tool.execute(path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in folder.iterdir()) == ["07_sample.ipynb"]


@pytest.mark.parametrize("name", ["07", "sample", "07_sample", "notebooks/07_sample.ipynb"])
def test_notebooks_go_by_number_name_or_path(folder, name):
    assert tool.selected([name]) == [folder / "07_sample.ipynb"]


def test_the_command_reports_a_failing_cell_and_exits_with_1(folder, capsys):
    path = folder / "07_sample.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = "raise RuntimeError('the reason')"
    nbformat.write(notebook, path)
    assert tool.main(["execute", "07"]) == 1
    assert "the reason" in capsys.readouterr().err


def test_an_unknown_name_lists_the_known_ones(folder):
    with pytest.raises(SystemExit, match="no notebook called '99'; there are 07_sample"):
        tool.selected(["99"])


def test_set_repo_moves_every_link_and_keeps_stored_outputs_current(tmp_path, monkeypatch):
    copy = tmp_path / "fork"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    subprocess.run("git init -q && git add -A", cwd=copy, shell=True, check=True)
    monkeypatch.setattr(tool, "ROOT", copy)
    monkeypatch.setattr(tool, "NOTEBOOKS", copy / "notebooks")
    stale = {path.name for path in tool.selected([]) if tool.is_stale(path)}
    assert tool.set_repository("someone/their-fork") > 5
    left = subprocess.run(["grep", "-rIl", "lmtl-course/lmtl-course", "--exclude-dir=.git", "."], cwd=copy, check=False)
    assert left.returncode == 1, "an old address is left"
    assert "https://github.com/someone/their-fork" in (copy / "_config.yml").read_text()
    assert {path.name for path in tool.selected([]) if tool.is_stale(path)} == stale
    assert tool.set_repository("lmtl-course/lmtl-course") > 5
    for name in ("_config.yml", "README.md", "pyproject.toml"):
        assert (copy / name).read_bytes() == (ROOT / name).read_bytes(), "the way back must be exact"


def test_set_repo_refuses_what_is_not_an_address():
    with pytest.raises(SystemExit, match="'nonsense' is not of the form owner/name"):
        tool.set_repository("nonsense")
