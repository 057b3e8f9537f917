"""The house shows itself: arrows point to earlier chapters, every chapter has its three files, no page is stale."""

import ast
import itertools
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import lmtl_course
from tools import notebooks as tool

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lmtl_course"
CHAPTERS = lmtl_course.CHAPTERS
ORDER = [chapter.split("_", 1)[1] for chapter in CHAPTERS]
DIRECTIVE = re.compile(r"^:::|^```\{|\{[a-z:_-]+\}`|^\+\+\+|^%|\{(cite|numref|ref|eq)\}", re.MULTILINE)


def read(chapter: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)


def markdown(chapter: str) -> str:
    return "\n\n".join(cell.source for cell in read(chapter).cells if cell.cell_type == "markdown")


def outputs(chapter: str):
    for cell in read(chapter).cells:
        if cell.cell_type == "code":
            yield from cell.outputs


def test_every_chapter_has_its_three_files_and_nothing_else_is_numbered():
    for chapter, module in zip(CHAPTERS, ORDER, strict=True):
        for path in (f"notebooks/{chapter}.ipynb", f"lmtl_course/{module}.py", f"tests/test_{module}.py"):
            assert (ROOT / path).exists(), f"chapter {chapter} lacks {path}"
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == list(CHAPTERS)
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert modules == {*ORDER, *lmtl_course.GROUND_FLOOR}


@pytest.mark.parametrize("module", [*lmtl_course.GROUND_FLOOR, *ORDER])
def test_arrows_point_only_to_earlier_chapters_and_the_ground_floor(module):
    floors = [*lmtl_course.GROUND_FLOOR, *ORDER]
    earlier = set(floors[: floors.index(module)])
    reached = tool.imported_modules((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    assert reached <= earlier, f"{module} imports {sorted(reached - earlier)}"


def test_the_arrow_reader_sees_every_form_of_import():
    source = (
        "from lmtl_course import text\nimport lmtl_course.losses\ndef f():\n    from lmtl_course.data import load\n"
    )
    assert tool.imported_modules(source) == {"text", "losses", "data"}


def test_no_module_imports_notebooks_tests_or_tools():
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            roots = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            roots += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in roots} & {"notebooks", "tests", "tools", "benchmarks"}


def test_importing_the_package_is_cheap():
    code = "import sys, lmtl_course; print([m for m in ('torch', 'numpy', 'matplotlib', 'pooch') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.parametrize("module", [*lmtl_course.GROUND_FLOOR, *ORDER])
def test_every_public_function_and_class_is_documented_with_an_example(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{module}.py does not say what it is"
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        docstring = ast.get_docstring(node) or ""
        assert docstring, f"{module}.{node.name} has no docstring"
        if isinstance(node, ast.ClassDef):  # an example in the class or in one of its methods
            docstring += "".join(ast.get_docstring(m) or "" for m in node.body if isinstance(m, ast.FunctionDef))
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
            assert bases & {"NamedTuple", "OSError", "ValueError"} or ">>>" in docstring, (
                f"{module}.{node.name} has no example"
            )
        else:
            assert ">>>" in docstring, f"{module}.{node.name} has no example"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_stored_outputs_are_complete_and_current(chapter):
    notebook = read(chapter)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "cells were not run once each from top to bottom"
    assert notebook.metadata.lmtl.code_hash == tool.code_hash(notebook), "stale outputs: run `make notebooks`"
    assert notebook.metadata.lmtl.seconds <= 90
    assert all("stand-in" not in used for used in notebook.metadata.lmtl.data), (
        "stored outputs must come from the real data"
    )


def test_a_changed_cell_or_module_changes_the_hash(tmp_path, monkeypatch):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("from lmtl_course import a")])
    package = tmp_path / "lmtl_course"
    package.mkdir()
    (package / "a.py").write_text("from lmtl_course import b\n")
    (package / "b.py").write_text("x = 1\n")
    (package / "c.py").write_text("x = 1\n")
    monkeypatch.setattr(tool, "PACKAGE", package)
    before = tool.code_hash(notebook)
    assert tool.reached_modules(tool.code_of(notebook)) == ["a", "b"]
    (package / "c.py").write_text("x = 2\n")
    assert tool.code_hash(notebook) == before, "a module that is not reached must not matter"
    (package / "b.py").write_text("x = 2\n")
    assert tool.code_hash(notebook) != before
    changed = tool.code_hash(notebook)
    notebook.cells[0].source += "  # again"
    assert tool.code_hash(notebook) != changed


def test_committed_results_that_a_notebook_reads_belong_to_its_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "RESULTS", tmp_path)
    cells = ['path = "../benchmarks/results"\nname = f"training_{part}.json"', "x = 'training'"]
    reader, other = (nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]) for cell in cells)
    before = tool.code_hash(reader), tool.code_hash(other)
    (tmp_path / "losses.json").write_text("1")
    assert (tool.code_hash(reader), tool.code_hash(other)) == before, "a file that is not named must not matter"
    (tmp_path / "training_long.json").write_text("1")
    assert tool.code_hash(reader) != before[0]
    assert tool.code_hash(other) == before[1]


def test_the_weights_of_base_models_belong_to_the_hash_of_a_notebook_that_can_load_them(tmp_path, monkeypatch):
    cells = ["from lmtl_course.pretraining import load_base", "from lmtl_course import text"]
    loader, other = (nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]) for cell in cells)
    (tmp_path / "models" / "mini").mkdir(parents=True)
    for module in ("pretraining", "text"):
        (tmp_path / f"{module}.py").write_text("x = 1\n")
    monkeypatch.setattr(tool, "PACKAGE", tmp_path)
    before = tool.code_hash(loader), tool.code_hash(other)
    (tmp_path / "models" / "mini" / "model.safetensors").write_bytes(b"weights")
    assert tool.code_hash(loader) != before[0]
    assert tool.code_hash(other) == before[1]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_notebook_runs_on_its_own_and_earlier_chapters_alone(chapter):
    reached = set(tool.imported_modules(tool.code_of(read(chapter))))
    later = reached - {*lmtl_course.GROUND_FLOOR, *ORDER[: CHAPTERS.index(chapter) + 1]}
    assert not later, f"{chapter} uses {sorted(later)}, which come later"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_figure_has_alt_text_and_no_output_is_noise(chapter):
    for output in outputs(chapter):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", f"stray warning or log: {output.text[:200]}"
        for kind in output.get("data", {}):
            if kind.startswith("image/"):
                assert len(output.metadata.get(kind, {}).get("alt", "")) >= 20, "a figure without alt text"
        text = output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
        assert not re.search(r"/(work|root|home|tmp|Users)/", text), f"a private path in an output: {text[:200]}"
        source = "text/latex" in output.get("data", {})  # a listing by print_source may be longer than a result
        assert text.count("\n") <= (110 if source else 40), f"a wall of output: {text[:80]!r}"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_notebooks_use_markdown_that_every_viewer_shows(chapter):
    source = re.sub(r"```.*?```", "", markdown(chapter), flags=re.DOTALL)
    assert not DIRECTIVE.search(source), DIRECTIVE.search(source)
    assert not re.search(r"!\[[^]]*\]\(http", source), "a remote image"
    html = set(re.findall(r"<(/?[a-zA-Z]+)\b", re.sub(r"`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", "", source, flags=re.DOTALL)))
    assert html <= {"details", "/details", "summary", "/summary", "br", "sub", "/sub", "sup", "/sup"}, html


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_headings_step_down_one_level_at_a_time(chapter):
    source = re.sub(r"```.*?```", "", markdown(chapter), flags=re.DOTALL)
    levels = [len(marks) for marks in re.findall(r"^(#{1,6}) ", source, flags=re.MULTILINE)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_its_anatomy(chapter):
    notebook, source = read(chapter), markdown(chapter)
    number = int(chapter.split("_")[0])
    repository = re.search(r"url: https://github.com/(\S+)", (ROOT / "_config.yml").read_text()).group(1)
    blob = f"{repository}/blob/main/notebooks/{chapter}.ipynb"
    badges = (
        f"[Open in Colab](https://colab.research.google.com/github/{blob}) · "
        f"[Open in Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/{blob}) · "
        f"[Download](https://github.com/{repository}/raw/main/notebooks/{chapter}.ipynb)"
    )
    first, setup = notebook.cells[0].source, notebook.cells[1]
    assert first.startswith(f"# {number:02d} · ")
    assert badges in first
    for line in ("**You will be able to**", "**You need**", "**Time**"):
        assert line in first, line
    assert setup.cell_type == "code"
    assert f"%pip install --quiet git+https://github.com/{repository}" in setup.source
    for section in ("goes wrong", "Exercises", "Quiz", "Summary", "Sources", "next"):
        assert re.search(rf"^##+ .*{section}", source, flags=re.MULTILINE | re.IGNORECASE), f"no section on {section!r}"
    assert source.count("<details>") == source.count("</details>") >= 6
    tags = re.findall(r"\\tag\{([^}]*)\}", source)
    assert tags == [f"{number}.{k}" for k in range(1, len(tags) + 1)], f"equations are numbered {tags}"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert 15 <= len(cells) <= 45, f"{len(cells)} code cells"
    assert sum("assert" in cell.source for cell in cells) >= 8, "claims need cells that assert them"


def test_relative_links_in_notebooks_lead_somewhere():
    for chapter in CHAPTERS:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", markdown(chapter)):
            assert (ROOT / "notebooks" / target).exists(), f"{chapter} links to {target}"
