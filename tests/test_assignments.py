"""Every problem set, tried in this process: its form, the reference, and a zoo of wrong and right solutions.

The reference keeps every point, each wrong solution loses those that its first line names, each right one in another
style keeps all. Three attacks need no file: functions that return nothing, that return what they were given, and that
have learned the visible tests by heart.
"""

import ast
import functools
import pickle
import re
import warnings
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch

from tools.classroom.build import student_version
from tools.classroom.sets import HIDDEN, SOLUTION, read_set, read_variant, try_set
from tools.classroom.sets import fresh_namespace as fresh
from tools.classroom.sets import run_cell as run

ROOT = Path(__file__).parent.parent
SOURCES = {path.stem: path for path in sorted((ROOT / "assignments/source").glob("ps*/ps*.ipynb"))}
ZOO = {f"{path.parent.name}-{path.stem}": path for path in sorted((ROOT / "assignments/zoo").glob("ps*/*.py"))}
BADGES = ("Open in Colab", "Open in Kaggle", "Download")
THERE = "def there(function, *args, **kwargs):"

every_set = pytest.mark.parametrize("name", SOURCES)


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors gain nothing from a second core, and the suite runs in several processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def problems(name):
    return read_set(SOURCES[name])


@functools.cache
def variants(name):
    return [read_variant(path) for path in ZOO.values() if path.parent.name == name]


def notebook(name):
    return nbformat.read(SOURCES[name], as_version=4)


def without(source, marks):
    """The source without what stands between marks, the marks included."""
    return re.sub(rf"^[ \t]*{marks[0]}.*?{marks[1]}[ \t]*$", "", source, flags=re.S | re.M)


def inside(source, marks):
    """Everything that stands between marks."""
    return "\n".join(re.findall(rf"{marks[0]}\n(.*?){marks[1]}", source, flags=re.S))


def asserts(source):
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]


# ------------------------------------------------------------------------------------------------------------ the form


def test_there_are_sets_and_each_has_a_zoo():
    assert SOURCES
    assert {path.parent.name for path in ZOO.values()} == set(SOURCES)


@every_set
def test_a_set_says_what_it_teaches_and_how_long_it_takes(name):
    first = notebook(name).cells[0].source
    assert re.match(rf"# Problem set {name[2:]} · \S", first)
    for line in ("**You will be able to**", "**You need**", "**Time**"):
        assert line in first, line


@every_set
def test_a_student_version_opens_once_and_installs_once(name):
    # the build adds the row of links and the cell that installs the package; a source has neither
    cells = student_version(SOURCES[name]).cells
    assert all(cells[0].source.count(f"[{badge}](") == 1 for badge in BADGES)
    assert f"assignments/release/{name}/{name}.ipynb" in cells[0].source
    assert sum("%pip" in cell.source for cell in cells) == 1


@every_set
def test_points_and_rubrics_add_up(name):
    cells = problems(name).cells
    assert 30 <= problems(name).points <= 100
    assert all(cell.points == int(cell.points) for cell in cells)
    written = problems(name).of("written")
    assert written, "a derivation or an experiment is answered in words"
    for cell in written:
        given = [re.match(r"(\d+) points?: ", line) for line in cell.rubric]
        assert all(given), f"{cell.name}: each line of the rubric begins with its points"
        assert sum(int(match[1]) for match in given) == cell.points, cell.name


@every_set
def test_a_source_notebook_stores_no_outputs_and_is_valid(name):
    book = notebook(name)
    nbformat.validate(book)
    assert book.metadata.kernelspec.name == "python3"
    for cell in book.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
    ids = [cell.id for cell in book.cells]
    assert len(set(ids)) == len(ids)


@every_set
def test_the_first_given_cell_defines_there(name):
    first = problems(name).of("given", "solution", "test")[0]
    assert first.kind == "given"
    assert THERE in first.source
    assert "return function(*args, **kwargs)" in first.source


@every_set
def test_every_test_cell_has_visible_and_hidden_tests_with_hints(name):
    for cell in problems(name).of("test"):
        visible, hidden = without(cell.source, HIDDEN), inside(cell.source, HIDDEN)
        assert asserts(visible), f"{cell.name}: students get no test to run"
        assert asserts(hidden), f"{cell.name}: no hidden test"
        for node in [*asserts(visible), *asserts(hidden)]:
            text = [n.value for n in ast.walk(node.msg or node) if isinstance(n, ast.Constant)]
            hint = " ".join(part for part in text if isinstance(part, str))
            assert node.msg is not None, f"{cell.name}: {ast.unparse(node)} has no hint"
            assert len(hint.split()) >= 3, f"{cell.name}: {hint!r} teaches nobody"
        seen = {ast.dump(node.test) for node in asserts(visible)}
        assert {ast.dump(node.test) for node in asserts(hidden)} - seen, f"{cell.name}: hidden tests ask nothing new"


@every_set
def test_solutions_stand_between_marks_and_nowhere_else(name):
    public = []
    for cell in notebook(name).cells:
        meta = cell.metadata.get("nbgrader", {})
        if meta.get("solution"):
            assert SOLUTION[0] in cell.source, f"{meta['grade_id']}: no solution between marks"
        public.append(without(without(cell.source, SOLUTION), HIDDEN))
    text = "\n".join(public)
    for cell in problems(name).of("solution", "written"):
        for line in inside(cell.source, SOLUTION).splitlines():
            if len(line.strip()) >= 30 and not line.endswith(":"):  # how a loop begins is no secret
                assert line.strip() not in text, f"{cell.name}: {line.strip()!r} is given away"


@every_set
def test_solution_cells_keep_only_signatures_and_docstrings_for_students(name):
    for cell in problems(name).of("solution"):
        for node in ast.parse(without(cell.source, SOLUTION)).body:
            assert isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Assign), (
                cell.name
            )
            if isinstance(node, ast.FunctionDef):
                assert ast.get_docstring(node), f"{cell.name}: {node.name} does not say what it takes and returns"


@every_set
def test_the_zoo_is_large_enough_and_reaches_every_solution_and_every_test(name):
    wrong = [variant for variant in variants(name) if variant.loses]
    right = [variant for variant in variants(name) if not variant.loses]
    assert len(wrong) >= 6
    assert right, "a correct solution in another style"
    solutions, tests = ({cell.name for cell in problems(name).of(kind)} for kind in ("solution", "test"))
    assert {variant.replaces for variant in wrong} == solutions, "each solution has a wrong one"
    assert {lost for variant in wrong for lost in variant.loses} == tests, "each test cell is needed"
    sources = [variant.source.split("\n", 1)[1] for variant in variants(name)]
    assert len(set(sources)) == len(sources), "two files are the same"


# --------------------------------------------------------------------------------------------- reference, wrong, right


@every_set
def test_the_reference_gets_full_marks_without_a_warning(name):
    points = try_set(problems(name))
    assert {cell.name: cell.points for cell in problems(name).of("test")} == points


def only(problems, tests):
    """The set without other tests, and without what comes after the last of these."""
    last = max(k for k, cell in enumerate(problems.cells) if cell.name in tests)
    cells = [cell for cell in problems.cells[: last + 1] if cell.kind != "test" or cell.name in tests]
    return replace(problems, cells=tuple(cells))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", ZOO.values(), ids=ZOO)
def test_a_solution_of_the_zoo_gets_what_it_deserves(path):
    variant, whole = read_variant(path), problems(path.parent.name)
    points = try_set(only(whole, variant.loses) if variant.loses else whole, variant, verbose=False)
    lost = {name for name, got in points.items() if not got}
    assert lost == set(variant.loses), f"kept {sorted(set(points) - lost)}, lost {sorted(lost)}"


# ---------------------------------------------------------------------------------------------- attacks without a file


def attempt(name, change=lambda function, original: original, part=lambda source: source):
    """Run a set whose functions are changed after their cell, each test cell by itself. Returns the tests that fail."""
    namespace, failed = fresh(), set()
    for cell in problems(name).of("given", "solution", "test"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if cell.kind == "test":
                    run(part(cell.source), cell.name, dict(namespace))  # what it defines is for itself
                else:
                    run(cell.source, cell.name, namespace)
        except Exception:
            assert cell.kind != "given", cell.name
            failed |= {cell.name} if cell.kind == "test" else set()
        if cell.kind == "solution":
            for function in functions_of([cell]) & set(namespace):
                namespace[function] = change(function, namespace[function])
    return failed


def functions_of(cells):
    return {n.name for cell in cells for n in ast.parse(cell.source).body if isinstance(n, ast.FunctionDef)}


def concerned(name):
    """Test cells that mention a function of the students."""
    functions = functions_of(problems(name).of("solution"))
    found = {}
    for cell in problems(name).of("test"):
        names = {node.id for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)}
        found[cell.name] = names & functions
    kept = [ast.parse(without(cell.source, SOLUTION)).body for cell in problems(name).of("solution")]
    asked = {getattr(node, "name", "") for body in kept for node in body} & functions  # not helpers of the reference
    called = set().union(*found.values())
    assert asked <= called, f"no test calls {sorted(asked - called)}"
    return {test for test, names in found.items() if names}


@every_set
def test_each_test_cell_stands_by_itself(name):
    # a test that needs what another one defines would fall with it
    assert not attempt(name)


@every_set
@pytest.mark.parametrize("lazy", ["nothing", "first argument", "zero"])
def test_functions_that_do_nothing_earn_nothing(name, lazy):
    def change(function, original):
        results = {"nothing": lambda *a, **k: None, "first argument": lambda *a, **k: a[0], "zero": lambda *a, **k: 0.0}
        return functools.wraps(original)(results[lazy])

    kept = sorted(concerned(name) - attempt(name, change))
    assert not kept, f"passed by functions that return {lazy}: {kept}"


def key(args, kwargs):
    try:
        return pickle.dumps((args, kwargs))
    except Exception:  # what cannot be pickled has no key
        return None


@every_set
def test_learning_the_visible_tests_by_heart_earns_nothing(name):
    memory = {}

    def record(function, original):
        @functools.wraps(original)
        def recorded(*args, **kwargs):
            asked = function, key(args, kwargs)
            memory[asked] = original(*args, **kwargs)
            return memory[asked]

        return recorded

    def replay(function, original):
        @functools.wraps(original)
        def replayed(*args, **kwargs):
            return memory.get((function, key(args, kwargs)))

        return replayed

    assert not attempt(name, record, part=lambda source: without(source, HIDDEN)), "the visible tests pass"
    assert memory
    kept = sorted(concerned(name) - attempt(name, replay))
    assert not kept, f"{kept}: the hidden tests ask nothing new"
