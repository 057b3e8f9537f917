"""The classroom: student versions without solutions, attacks that end in lost points, and a class graded in one go."""

import base64
import contextlib
import copy
import csv
import dataclasses
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
import torch
import yaml
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.classroom import __main__ as command
from tools.classroom import build, grading, reports, sandbox, server, sets, submissions
from tools.classroom.grading import Session
from tools.classroom.sandbox import Limits
from tools.classroom.sets import Cell, ProblemSet, SetError

ROOT = Path(__file__).resolve().parent.parent
TOY = ROOT / "tests" / "classroom" / "source" / "toy" / "toy.ipynb"
ZOO = sorted((ROOT / "tests" / "classroom" / "zoo" / "toy").glob("*.py"))
HTML = ROOT / "_build" / "html"
AGAINST = sandbox.reason_against()
sandboxed = pytest.mark.skipif(bool(AGAINST), reason=f"students' code is not tried here: {AGAINST}")
posix = pytest.mark.skipif(os.name != "posix", reason="grading needs Linux")


@pytest.fixture(scope="module")
def toy():
    return sets.read_set(TOY)


@pytest.fixture(scope="module")
def release():
    return build.student_version(TOY)


def reference(problems):
    return {cell.name: cell.source for cell in problems.of("solution")}


def solved(release, answers):
    """A copy of a student version with some cells filled in."""
    notebook = copy.deepcopy(release)
    for cell in notebook.cells:
        cell.source = answers.get(submissions.grade_id(cell), cell.source)
    return notebook


# --------------------------------------------------------------------------------------------------- sets and their zoo


def test_the_reference_of_a_set_has_full_marks_and_its_zoo_loses_what_it_says(toy):
    full = {cell.name: cell.points for cell in toy.of("test")}
    assert sets.try_set(toy, verbose=False) == full
    assert sum(full.values()) == 8
    assert toy.points == 10
    for path in ZOO:
        variant = sets.read_variant(path)
        points = sets.try_set(toy, variant, verbose=False)
        assert all(points[name] == 0 for name in variant.loses), path.stem
        assert variant.loses or points == full, path.stem


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cells: cells[4].metadata.nbgrader.update(grade_id="setup"), "another cell has this grade_id"),
        (lambda cells: cells[4].metadata.nbgrader.pop("points"), "a test cell with 0 points"),
        (lambda cells: cells[3].update(source=cells[3].source.replace("### END SOLUTION", "")), "in pairs"),
        (lambda cells: cells[1].update(source=cells[3].source), "a cell of this kind cannot hold"),
        (lambda cells: cells[0].update(source="### BEGIN HIDDEN TESTS"), "a cell of this kind cannot hold"),
        (lambda cells: cells[-1].metadata.pop("rubric"), "needs a rubric"),
        (lambda cells: cells[3].metadata.nbgrader.update(grade=True), "no kind of cell looks so"),
        (lambda cells: cells[3].metadata.nbgrader.update(schema_version=2), "schema_version must be 3"),
    ],
)
def test_a_set_that_breaks_the_rules_is_refused_with_the_cell(change, message, tmp_path):
    notebook = nbformat.read(TOY, as_version=4)
    change(notebook.cells)
    nbformat.write(notebook, tmp_path / "toy.ipynb")
    with pytest.raises(SetError, match=message):
        sets.read_set(tmp_path / "toy.ipynb")


def test_a_file_of_the_zoo_says_what_it_replaces(tmp_path, toy):
    (tmp_path / "x.py").write_text("def f(): ...\n")
    with pytest.raises(SetError, match="the first line must be"):
        sets.read_variant(tmp_path / "x.py")
    with pytest.raises(SetError, match="no_test is no such cell"):
        sets.try_set(toy, sets.Variant("x", "softmax_solution", ("no_test",), ""), verbose=False)


VACUOUS = {
    "nothing": "None",
    "an empty tensor": "torch.empty(0)",
    "an empty tensor of some width": "torch.empty(0, *next((x.shape[1:] for x in args if hasattr(x, 'shape')), ()))",
    "not a number": "torch.tensor(float('nan'))",
    "true": "True",
    "an empty list": "[]",
}


@pytest.mark.parametrize("name", VACUOUS)
@pytest.mark.parametrize("source", [TOY, *build.sources()], ids=lambda path: path.stem)
def test_an_answer_that_is_none_gets_no_points(source, name):
    """Every solution returns the same nothing: a test that passes tests nothing."""
    problems = sets.read_set(source)
    cells = []
    for cell in problems.cells:
        lines = [f"import torch\ndef nothing(*args, **kwargs):\n    return {VACUOUS[name]}"]
        for defined in sets.defined_names(cell.source) if cell.kind == "solution" else ():
            callable_ = re.search(rf"^(def|class) {defined}\b", cell.source, re.MULTILINE)
            lines.append(f"{defined} = nothing" if callable_ else f"{defined} = nothing()")
        cells.append(dataclasses.replace(cell, source="\n".join(lines)) if cell.kind == "solution" else cell)
    points = sets.try_set(ProblemSet(problems.name, tuple(cells)), verbose=False)
    assert not any(points.values()), {name: p for name, p in points.items() if p}


# ---------------------------------------------------------------------------------------------------- student versions


def test_a_student_version_has_no_solution_no_hidden_test_no_rubric(release, toy):
    text = build.written_bytes(release).decode()
    for mark in ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS", "rubric", "uniform"):
        assert mark not in text
    for secret in ("powers = torch.exp", "all powers go to 1", "other.add(-1.5)", "0.3671654"):
        assert any(secret in cell.source for cell in toy.cells)
        assert secret not in text
    assert text.count("raise NotImplementedError") == 4
    nbformat.validate(release)


def test_a_student_version_opens_on_colab_and_locks_what_is_not_the_students(release):
    links, setup = release.cells[0].source, release.cells[1].source
    chapter = nbformat.read(ROOT / "notebooks" / "12_classification.ipynb", as_version=4)
    assert links.startswith("# Toy · Temperatures and totals\n\n[Open in Colab](https://colab.research.google.com/")
    row = chapter.cells[0].source.split("\n")[2]
    assert row.replace("notebooks/12_classification.ipynb", "assignments/release/toy/toy.ipynb") in links
    assert setup == chapter.cells[1].source, "the set-up cell is the chapters'"
    for cell in release.cells[2:]:
        if "nbgrader" in cell.metadata:
            assert cell.metadata.deletable is False
            assert len(cell.metadata.nbgrader.checksum) == 32
            assert cell.metadata.get("editable", True) is cell.metadata.nbgrader.solution


def test_a_student_version_is_the_same_bytes_every_time(release):
    assert build.written_bytes(build.student_version(TOY)) == build.written_bytes(release)


def test_a_student_version_runs_to_the_first_unsolved_cell_which_says_so(release):
    namespace = sets.fresh_namespace("student")
    ran = []
    for cell in release.cells:
        if cell.cell_type == "code" and "%pip" not in cell.source:
            ran.append(submissions.grade_id(cell))
            if ran[-1] == "softmax_test":
                with pytest.raises(NotImplementedError, match="this part is not solved yet"):
                    sets.run_cell(cell.source, "cell", namespace)
                break
            sets.run_cell(cell.source, "cell", namespace)
    assert ran == ["setup", "softmax_solution", "softmax_test"]


def test_a_test_cell_that_hides_everything_is_refused(tmp_path):
    notebook = nbformat.read(TOY, as_version=4)
    notebook.cells[4].source = "### BEGIN HIDDEN TESTS\nassert True\n### END HIDDEN TESTS"
    nbformat.write(notebook, tmp_path / "toy.ipynb")
    with pytest.raises(SetError, match="needs a part that students see"):
        build.student_version(tmp_path / "toy.ipynb")


@pytest.mark.parametrize("source", build.sources(), ids=lambda path: path.stem)
def test_committed_student_versions_are_what_the_sources_give(source):
    released = build.release_path(source)
    assert released.exists(), "run `make assignments`"
    assert released.read_bytes() == build.written_bytes(build.student_version(source)), "run `make assignments`"
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert released.relative_to(ROOT).with_suffix("").as_posix() in listed, "add it to _toc.yml"


def secret_lines(problems):
    """Lines that stand in solutions or hidden tests and nowhere else in the set."""
    secret, shown = set(), set()
    for cell in problems.cells:
        hidden = False
        for line in map(str.strip, cell.source.splitlines()):
            hidden = hidden or line in (sets.SOLUTION[0], sets.HIDDEN[0])
            (secret if hidden else shown).add(line)
            hidden = hidden and line not in (sets.SOLUTION[1], sets.HIDDEN[1])
    return {line for line in secret - shown if len(line) >= 25}


def test_secret_lines_are_those_of_solutions_and_hidden_tests(toy):
    lines = secret_lines(toy)
    assert "powers = torch.exp(scaled - scaled.max(-1, keepdim=True).values)" in lines
    assert not any("one probability per logit" in line for line in lines)


@pytest.mark.parametrize("source", build.sources(), ids=lambda path: path.stem)
def test_solutions_are_nowhere_in_student_versions_nor_in_the_built_book(source):
    problems = sets.read_set(source)
    texts = {"release": build.release_path(source).read_text(encoding="utf-8")}
    assert not (HTML / "assignments" / "source").exists()
    assert not (HTML / "_sources" / "assignments" / "source").exists()
    for path in [*HTML.glob("assignments/**/*.html"), *HTML.glob("_sources/assignments/**/*")]:
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            texts[str(path)] = BeautifulSoup(text, "html.parser").get_text() if path.suffix == ".html" else text
    for where, text in texts.items():
        for secret in {"BEGIN SOLUTION", "BEGIN HIDDEN TESTS", *secret_lines(problems)}:
            assert secret not in text, f"{where} shows {secret!r}"
            assert json.dumps(secret)[1:-1] not in text, f"{where} shows {secret!r}"


# ------------------------------------------------------------------------------------------------- what goes over pipes


def refuse(*_):
    raise server.BadFrameError("no handles here")


def there_and_back(value):
    encoder = server.Encoder(refuse)
    data = server.frame({"value": encoder.tree(value)}, encoder.chunks)
    text, _ = server.HEAD.unpack(data[:8])
    return server.Decoder(data[8 + text :], refuse).value(json.loads(data[8 : 8 + text])["value"])


def test_plain_data_comes_through_the_pipe_as_it_was():
    values = [None, True, 3, -0.0, 1e300, float("inf"), 2j, "tëxt\ud800", b"\0\1", [1, [2]], (1,), {1: {"a": (2,)}}]
    values += [{1, 2}, frozenset("ab"), slice(1, None), torch.float16, 10**30]
    for value in values:
        back = there_and_back(value)
        assert back == value
        assert type(back) is type(value)
    assert np.isnan(there_and_back(float("nan")))
    for name in server.DTYPES:
        tensor = (torch.arange(-4, 8).reshape(3, 2, 2) if name != "uint8" else torch.arange(12)).to(
            getattr(torch, name)
        )
        for view in (
            tensor,
            tensor.T if tensor.ndim == 2 else tensor.transpose(0, -1),
            tensor[:0],
            tensor.reshape(-1)[3],
        ):
            back = there_and_back(view)
            assert back.dtype == view.dtype
            assert back.shape == view.shape
            assert torch.equal(back, view)
    assert there_and_back(torch.ones(2, requires_grad=True)).requires_grad
    for array in (np.arange(6.0).reshape(2, 3).T, np.array(["a", "bcd"]), np.float32(0.1), np.zeros((0, 3))):
        back = there_and_back(array)
        assert back.dtype == array.dtype
        assert np.shape(back) == np.shape(array)
        assert np.array_equal(back, array)
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(torch.rand(3, generator=there_and_back(generator)), torch.rand(3, generator=generator))


def test_values_that_are_too_deep_or_too_large_are_not_sent():
    deep = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ValueError, match="nested deeper"):
        there_and_back(deep)
    with pytest.raises(ValueError, match="too many for one answer"):
        there_and_back(bytes(server.MAX_BLOCK + 1))


WORDS = ["list", "dict", "tensor", "array", "bytes", "float", "set", "complex", "record", "slice", "dtype", "generator"]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([*WORDS, "float32", "<f4"]),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.tuples(st.sampled_from(WORDS), inner, inner, inner, inner, inner).map(list),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
)


@given(TREES, st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_whatever_comes_over_the_pipe_is_a_value_or_refused(tree, block):
    with contextlib.suppress(server.BadFrameError):
        server.Decoder(block, refuse).value(tree)


@pytest.mark.parametrize(
    "tree",
    [
        ["tensor", "float32", [1 << 39], 0, 8, False],  # a shape without its bytes
        ["tensor", "float32", [-1], 0, 8, False],
        ["tensor", "float32", [2], 4, 8, False],  # bytes outside the block
        ["tensor", "float32", [2], 0, 8, False, 1],
        ["tensor", "__class__", [2], 0, 8, False],
        ["array", "|O8", [1], 0, 8],
        ["array", "<f4", [3], 0, 8],
        ["dtype", "load"],
        ["name", "os", "system"],
        ["dict", [["list"], 1]],  # a key that cannot be hashed
        ["float", "1" * 50],
        {"a": 1},
        [],
        [["list"]],
        ["list", *[0] * (server.MAX_NODES + 1)],
        ["object", 1],
    ],
    ids=str,
)
def test_forged_values_are_refused_by_name(tree):
    with pytest.raises(server.BadFrameError):
        server.Decoder(bytes(8), refuse).value(tree)


# ------------------------------------------------------------------------------------------------------------- attacks

FAST = Limits(call=1.5, cell=8.0, total=30.0, output=1 << 20)
MARK = "hidden-mark-" + "7351"
ATTACKED = ProblemSet(
    "attacked",
    (
        Cell("setup", "given", "def there(function, *args, **kwargs):\n    return function(*args, **kwargs)"),
        Cell("double_solution", "solution", "def double(x):\n    return 2 * x"),
        Cell(
            "double_test",
            "test",
            "assert double(3) == 6, 'twice three is six'\n### BEGIN HIDDEN TESTS\n"
            f"mark = '{MARK}'\nassert double(7) == 14, 'twice any number'\n### END HIDDEN TESTS",
            5.0,
        ),
        Cell("honest_solution", "solution", "def honest(x):\n    return x + 1"),
        Cell("honest_test", "test", "assert honest(1) == 2, 'one more'", 1.0),
    ),
)
HONEST = "def honest(x):\n    return x + 1"


def attack(source, limits=FAST, problems=ATTACKED, unsafe=False):
    """Grade a hostile answer; the honest one in the same notebook must keep its point. Returns points and reason."""
    answers = {"double_solution": source, "honest_solution": HONEST}
    records = {record["name"]: record for record in Session(problems, answers, limits, unsafe).grade()}
    assert records["honest_test"] == {"name": "honest_test", "points": 1.0, "reason": ""}, records
    return records["double_test"]["points"], records["double_test"]["reason"]


def leftovers():
    """Processes of sandboxes that are still there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.ppid() == os.getpid() and "server.py" in " ".join(process.cmdline()):
                found.append(process)
    return found


@sandboxed
def test_a_right_answer_has_full_marks_and_a_wrong_one_reads_the_hint():
    assert attack("def double(x):\n    return x + x") == (5.0, "")
    assert attack("def double(x):\n    return x * x - 3") == (0.0, "in a hidden test: twice any number")
    assert attack("def double(x):\n    return 0") == (0.0, "twice three is six")


HOSTILE = {
    "endless loop": ("def double(x):\n    while True: pass", "more than 1.5 seconds"),
    "endless loop that hides from signals": (
        "import signal\ndef double(x):\n    [signal.signal(s, signal.SIG_IGN) for s in (2, 14, 15)]\n"
        "    while True: pass",
        "more than 1.5 seconds",
    ),
    "fork bomb": (
        "import os\ndef double(x):\n    while True:\n        try: os.fork()\n        except OSError: pass",
        "took",
    ),
    "thread bomb": (
        "import threading, time\ndef double(x):\n    for _ in range(10000):\n"
        "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n    return 2 * x",
        "RuntimeError (can't start new thread)",
    ),
    "forty processes": (
        "import os, time\ndef double(x):\n    for _ in range(40):\n        try: child = os.fork()\n"
        "        except OSError: return 0\n        if not child: time.sleep(60)\n    return 2 * x",
        "twice three is six",
    ),
    "10 GB": ("def double(x):\n    return len(bytearray(10 * 2**30))", "MemoryError"),
    "1 GB printed": (
        "def double(x):\n    for _ in range(1000): print('x' * 2**20)\n    return 2 * x",
        "printed more than 1 MB",
    ),
    "1 GB on disk": (
        "def double(x):\n    for k in range(1000):\n        open(f'/tmp/{k}', 'wb').write(bytes(2**20))\n"
        "    return 2 * x",
        "OSError",
    ),
    "1 GB in memory that is no process's": (
        "import os\ndef double(x):\n    return os.memfd_create('x')",
        "PermissionError",
    ),
    "a device full of files": ("def double(x):\n    open('/dev/shm/x', 'w').write('x')\n    return 2 * x", "Error"),
    "os._exit": ("import os\ndef double(x):\n    os._exit(0)", "its process ended (exit with status 0)"),
    "sys.exit": ("import sys\ndef double(x):\n    sys.exit(0)", "SystemExit"),
    "killing everyone": (
        "import os\ndef double(x):\n    for p in (os.getppid(), 1, -1):\n"
        "        try: os.kill(p, 9)\n        except OSError: pass\n    os.kill(os.getpid(), 9)",
        "its process ended (SIGKILL)",
    ),
    "a crash": ("import ctypes\ndef double(x):\n    ctypes.string_at(0)", "its process ended (SIGSEGV)"),
    "another namespace": (
        "import ctypes\ndef double(x):\n    libc = ctypes.CDLL(None, use_errno=True)\n"
        "    if libc.unshare(0x10000000) == 0 or libc.unshare(0x00020000) == 0: return 2 * x\n"
        "    raise PermissionError(ctypes.get_errno())",
        "PermissionError",
    ),
    "becoming root": ("import os\ndef double(x):\n    os.setuid(0)\n    return 2 * x", ": os.setuid(0)"),
    "deep recursion": ("def double(x):\n    return double(x)", "RecursionError"),
    "an error that cannot be shown": (
        "class E(Exception):\n    def __str__(self): raise SystemExit\ndef double(x):\n    raise E",
        "your code raised E, line 4 of the cell double_solution: raise E",
    ),
    "always equal": (
        "class Equal:\n    def __eq__(self, other): return True\n    def __bool__(self): return True\n"
        "def double(x):\n    return Equal()",
        "cannot be compared from outside",
    ),
    "an int that is always equal": (
        "class Equal(int):\n    def __eq__(self, other): return True\n    __hash__ = None\n"
        "def double(x):\n    return Equal(1)",
        "cannot be compared from outside",
    ),
    "patched assertions": (
        "import builtins, sys\nbuiltins.AssertionError = type('Quiet', (Exception,), {})\n"
        "class Fake:\n    def __getattr__(self, name): return lambda *a, **k: True\n"
        "sys.modules['torch.testing'] = sys.modules['unittest'] = Fake()\n"
        "builtins.all = lambda *a: True\ndef double(x):\n    return 0",
        "twice three is six",
    ),
    "patched type checks": (
        "import builtins\nbuiltins.isinstance = lambda *a: True\ndef double(x):\n    return 6",
        "ended",
    ),
    "patched given helpers": (
        "def there(*args, **kwargs):\n    return 6\ndef double(x):\n    return 0",
        "twice three is six",
    ),
    "hard-coded visible outputs": ("def double(x):\n    return 6", "in a hidden test: twice any number"),
    "a value too large to send": ("def double(x):\n    return 'x' * 2**24", "too many for one answer"),
    "a number with a million digits": ("def double(x):\n    return 1 << 4_000_000", "ValueError"),
    "a value that contains itself": ("def double(x):\n    y = []\n    y.append(y)\n    return y", "nested deeper"),
    "not Python": ("def double(x)\n    return 2 * x", "stopped with SyntaxError (expected ':'), line 1 of the cell"),
    "nothing": ("pass", "double is not defined in the cell double_solution"),
}


@sandboxed
@pytest.mark.parametrize("name", HOSTILE)
def test_an_attack_ends_in_lost_points_and_a_reason(name):
    source, expected = HOSTILE[name]
    start = time.monotonic()
    points, reason = attack(source)
    assert points == 0
    assert expected in reason
    assert time.monotonic() - start < 25
    assert not leftovers()


@sandboxed
def test_an_endless_loop_while_a_cell_is_read_costs_that_cell_only():
    points, reason = attack("while True: pass", Limits(call=1.5, cell=4.0, total=30))
    assert points == 0
    assert "while the cell double_solution ran, it was ended: it took more than 4 seconds" in reason


@sandboxed
def test_all_time_together_is_limited_too():
    limits = Limits(call=20, cell=20, total=4)
    answers = {"double_solution": "def double(x):\n    while True: pass", "honest_solution": HONEST}
    start = time.monotonic()
    records = list(Session(ATTACKED, answers, limits).grade())
    assert time.monotonic() - start < 15
    assert [record["points"] for record in records] == [0, 0]
    assert "it took all its time" in records[0]["reason"]


@sandboxed
def test_many_processes_together_have_no_more_memory_than_one():
    source = (
        "import os, time\nblock = []\ndef double(x):\n    for _ in range(4):\n        if os.fork() == 0: break\n"
        "    block.append(b'x' * 120_000_000)\n    time.sleep(60)"
    )
    points, reason = attack(source, Limits(call=20, cell=8, total=40, memory=400 << 20))
    assert points == 0
    assert "more than 0.390625 GB of memory" in reason


@sandboxed
def test_nothing_outside_can_be_read_written_or_reached(tmp_path):
    """The gradebook, other students' work, the sets with their hidden tests, and a server on this machine."""
    gradebook = tmp_path / "gradebook.csv"
    gradebook.write_text("ada,10")
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        source = f"""
import os, shutil, socket

def double(x):
    found = [p for p in ({str(gradebook)!r}, {str(TOY)!r}, {str(ROOT / "pyproject.toml")!r}) if os.path.exists(p)]
    for root, folders, names in os.walk("/"):
        folders[:] = [f for f in folders if f not in ("proc", "usr", "bin", "lib", "lib64", "include", "share")]
        found += [os.path.join(root, n) for n in names if n.endswith(".ipynb") or n in ("gradebook.csv", "grading.py")]
    course = ("/course/server.py", "/course/lmtl_course/__init__.py")
    for path in ({str(gradebook)!r}, *course, "/usr/x", {sys.executable!r}):
        try:
            with open(path, "a") as file:
                file.write("fake grade")
            found.append("wrote " + path)
        except OSError:
            pass
        try:
            os.remove(path)
            found.append("deleted " + path)
        except OSError:
            pass
    for folder in ("/course", "/home", {str(tmp_path)!r}):
        shutil.rmtree(folder, ignore_errors=True)
    for address in (("127.0.0.1", {port}), ("1.1.1.1", 53)):
        try:
            socket.create_connection(address, timeout=0.2)
            found.append("connected")
        except OSError:
            pass
    raise LookupError("found " + repr(found) + " with " + repr(sorted(os.environ)))
"""
        points, reason = attack(source, Limits(call=30, cell=8, total=60))
        with contextlib.suppress(TimeoutError):
            asked.append(listener.accept())
    assert points == 0
    assert "LookupError (found [] with " in reason
    assert "HOME" in reason
    assert "USER" not in reason, "the grader's environment stays outside"
    assert not asked
    assert gradebook.read_text() == "ada,10"
    for path in (ROOT / "lmtl_course" / "__init__.py", Path(server.__file__), Path(sys.executable)):
        assert path.exists()


@sandboxed
def test_hidden_tests_are_not_in_the_sandbox_at_all():
    """Frames, `inspect`, `gc`, the history of cells, other processes and open files: the mark is in none of them."""
    source = f"""
import gc, glob, linecache, sys
# visible-mark-1537

def double(x):
    seen = [repr(linecache.cache), repr(sys.argv)]
    frame = sys._getframe()
    while frame:
        seen += [repr(frame.f_locals), repr(frame.f_globals)] if frame.f_code.co_name != "double" else []
        frame = frame.f_back
    seen += [repr(o) for o in gc.get_objects() if isinstance(o, (list, tuple, dict)) and len(o) < 1000]
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            seen.append(open(path, errors="replace").read())
        except OSError:
            pass
    def is_seen(mark):
        return any(mark in text for text in seen)
    if not is_seen("".join(reversed("7351-kram-elbisiv"))):
        raise LookupError("the search finds nothing")
    return 2 * x if is_seen("".join(reversed("{MARK[::-1]}"))) else 0
"""
    assert attack(source) == (0.0, "twice three is six")


FORGED = {
    "garbage": ("b'garbage' * 100", "too long"),
    "an answer before it is asked": ('frame(b\'{"id": NUMBER, "value": 6}\')', "not the answer to what was asked"),
    "no JSON": ("frame(b'{id')", "not an answer"),
    "a frame of 4 GB": ("b'\\xff' * 8", "too long"),
    "deep nesting": ("frame(b'[' * 100_000)", "not an answer"),
    "an error of no form": ('frame(b\'{"id": 3, "error": [1]}\')', "not an answer"),
    "an unknown word": ('frame(b\'{"id": 3, "value": ["pickle", "x"]}\')', "not an answer"),
    "a huge number": ("frame(b'{\"id\": NUMBER, \"value\": ' + b'9' * 100_000 + b'}')", "not an answer"),
}


FRAME = """
import os, struct, sys

def frame(text):  # with the number of the request that waits, found in the server's own frame
    caller = sys._getframe()
    while "number" not in caller.f_locals:
        caller = caller.f_back
    text = text.replace(b"NUMBER", str(caller.f_locals["number"]).encode())
    return struct.pack(">II", len(text), 0) + text

def send(data):
    for number in range(3, 20):
        try:
            os.write(number, data)
        except OSError:
            pass
"""


@sandboxed
@pytest.mark.parametrize("name", FORGED)
def test_writing_into_the_pipe_of_answers_gives_no_points(name):
    what, expected = FORGED[name]
    points, reason = attack(f"{FRAME}\ndef double(x):\n    send({what})\n    return 2 * x")
    assert points == 0
    assert expected in reason


@sandboxed
def test_an_answer_that_nobody_asked_for_does_not_spoil_the_next_cell():
    forged = 'send(frame(b\'{"id": NUMBER, "value": 14}\'))'
    source = f"{FRAME}\ndef double(x):\n    if x == 7:\n        {forged}\n    return 2 * x"
    assert attack(source) == (5.0, ""), "what was forged is the right value"


@sandboxed
def test_endless_answers_and_silence_end_with_the_time():
    for source in (
        "import os\ndef double(x):\n    os.write(4, bytes([0, 0, 255, 0, 0, 0, 0, 0]))\n"
        "    while True: os.write(4, b' ' * 10)",
        "import os\ndef double(x):\n    os.close(4)\n    while True: pass",
    ):
        points, reason = attack(source)
        assert points == 0
        assert "your code was ended" in reason


@sandboxed
def test_a_server_that_a_student_replaced_gets_points_for_right_values_only():
    """Who takes over the whole pipe can say what he likes: it is compared with the truth all the same."""
    source = """
import json, os, struct, sys

def double(x):
    number = 3
    while True:
        text = json.dumps({"id": number, "value": 6}).encode()
        os.write(4, struct.pack(">II", len(text), 0) + text)
        head = b""
        while len(head) < 8:
            head += os.read(3, 8 - len(head))
        size, block = struct.unpack(">II", head)
        while size + block > 0:
            size -= len(os.read(3, size + block))
        number += 1
"""
    answers = {"double_solution": source, "honest_solution": HONEST}
    records = list(Session(ATTACKED, answers, FAST).grade())
    assert records[0]["points"] == 0


OBJECTS = ProblemSet(
    "objects",
    (
        Cell(
            "setup",
            "given",
            "import math\nimport torch\nfrom typing import NamedTuple\nfrom dataclasses import dataclass\n"
            "class Pair(NamedTuple):\n    left: float\n    right: torch.Tensor\n"
            "@dataclass(frozen=True)\nclass Setting:\n    width: int\n    depth: int = 2\n"
            "    def size(self):\n        return self.width * self.depth\n"
            "SETTING = Setting(3)\n"
            "def there(function, *args, **kwargs):\n    return function(*args, **kwargs)\n"
            "def gradient(function, x):\n    x = x.clone().requires_grad_()\n"
            "    function(x).sum().backward()\n    return x.grad\n"
            "def square(x):\n    return x * x",
        ),
        Cell(
            "solution",
            "solution",
            "class Box:\n    def __init__(self, n):\n        self.items = list(range(n))\n"
            "    def __len__(self):\n        return len(self.items)\n"
            "    def __getitem__(self, k):\n        return self.items[k]\n"
            "    def __iter__(self):\n        return iter(self.items)\n"
            "    def fail(self):\n        raise KeyError('gone')\n"
            "def pair(x):\n    return Pair(1.0, x)\n"
            "def setting(n):\n    return Setting(n)\n"
            "def area(s):\n    return s.size()\n"
            "def apply(f, x):\n    return f(x)\n"
            "def numbers():\n    n = 0\n    while True:\n        yield n\n        n += 1\n"
            "def boxes():\n    return [Box(1), Box(2)]\n"
            "def draw(generator):\n    return torch.rand(2, generator=generator)\n"
            "result = {'loss': [1.0, 2.0]}",
        ),
        Cell(
            "test",
            "test",
            """
box = Box(3)
assert len(box) == 3 and box[1] == 1 and list(box) == [0, 1, 2] and 2 in box and box.items == [0, 1, 2]
assert box[1:] == [1, 2] and not hasattr(box, "nothing") and not hasattr(box, "__array__")
try:
    box.fail()
    raised = False
except KeyError as error:
    raised = "gone" in str(error)
assert raised
p = pair(torch.ones(2))
left, right = p
assert isinstance(p, tuple) and p.left == left == 1.0 and torch.equal(p.right, torch.ones(2))
s = setting(5)
assert (s.width, s.depth, s.size(), area(s), area(SETTING)) == (5, 2, 10, 10, 6)
assert apply(math.sqrt, 4.0) == 2.0 and apply(square, 3) == 9 and apply(torch.relu, torch.tensor(-1.0)) == 0
assert apply(torch.nn.functional.relu, torch.tensor(-1.0)) == 0 and apply(len, [1, 2]) == 2
stream = numbers()
assert [next(stream), next(stream)] == [0, 1]
assert [len(b) for b in boxes()] == [1, 2]
assert torch.equal(there(gradient, square, torch.tensor([3.0])), torch.tensor([6.0]))
assert torch.equal(draw(torch.Generator().manual_seed(1)), torch.rand(2, generator=torch.Generator().manual_seed(1)))
assert result == {"loss": [1.0, 2.0]} and repr(box) == "<Box in the sandbox>"
assert there(apply, square, 2) == 4
assert apply.__class__.__name__ == "Proxy" and apply(type, 1) is not None
""",
            1.0,
        ),
    ),
)


@sandboxed
def test_objects_functions_and_generators_work_from_outside():
    assert list(Session(OBJECTS, reference(OBJECTS)).grade()) == [{"name": "test", "points": 1.0, "reason": ""}]


@sandboxed
def test_what_cannot_travel_is_the_sets_mistake_and_says_so():
    cells = [*OBJECTS.cells[:2], Cell("test", "test", "apply(lambda x: x, 1)", 1.0)]
    with pytest.raises(TypeError, match="a function made in a test cannot go into the sandbox; make it in a function"):
        list(Session(ProblemSet("objects", tuple(cells)), reference(OBJECTS)).grade())


@sandboxed
def test_an_object_of_a_process_that_was_ended_is_the_students_loss():
    cells = [
        *OBJECTS.cells[:2],
        Cell("first_test", "test", "box = Box(3)\nassert len(box) == 3", 1.0),
        Cell("crash_test", "test", "apply(crash, 1)", 1.0),
        Cell("last_test", "test", "assert apply(type, box) is not None", 1.0),
    ]
    setup = dataclasses.replace(cells[0], source="import os\ndef crash(x):\n    os._exit(1)\n" + cells[0].source)
    problems = ProblemSet("objects", (setup, *cells[1:]))
    records = list(Session(problems, reference(problems)).grade())
    assert [record["points"] for record in records] == [1, 0, 0]
    assert "went with the process that had to be ended" in records[2]["reason"]


@sandboxed
def test_a_given_cell_that_fails_inside_is_no_students_fault():
    given = Cell("setup", "given", "import os\nassert not os.path.exists('/course'), 'only outside'")
    with pytest.raises(RuntimeError, match="the given cell setup fails in the sandbox: AssertionError"):
        list(Session(ProblemSet("x", (given, *ATTACKED.cells[1:])), reference(ATTACKED)).grade())


@sandboxed
def test_magics_of_notebooks_are_passed_over_and_the_line_of_an_error_is_shown():
    assert attack("%matplotlib inline\n!pip list\ndef double(x):\n    %timeit 1\n    return 2 * x") == (5.0, "")
    points, reason = attack("def double(x):\n    y = x + undefined\n    return y")
    expected = "your code raised NameError (name 'undefined' is not defined), line 2 of the cell double_solution: "
    assert (points, reason) == (0.0, expected + "y = x + undefined")


@sandboxed
def test_in_hidden_tests_an_error_does_not_tell_their_inputs():
    points, reason = attack("def double(x):\n    if x != 3:\n        raise ValueError(f'input {x}')\n    return 6")
    assert points == 0
    assert reason.startswith("in a hidden test: your code raised ValueError, line 3 of the cell double_solution")
    assert "input 7" not in reason


@sandboxed
def test_the_sandbox_grades_as_try_does(toy):
    for path in [None, *ZOO]:
        variant = path and sets.read_variant(path)
        answers = reference(toy) | ({variant.replaces: variant.source} if variant else {})
        records = {record["name"]: record["points"] for record in Session(toy, answers).grade()}
        assert records == sets.try_set(toy, variant, verbose=False), path


@posix
def test_without_a_sandbox_the_same_server_has_limits_still():
    """`--unsafe`: here only code that every machine may run."""
    assert attack("def double(x):\n    return 2 * x", unsafe=True) == (5.0, "")
    points, reason = attack("def double(x):\n    while True: pass", unsafe=True)
    assert (points, "more than 1.5 seconds" in reason) == (0.0, True)


def test_a_missing_bubblewrap_is_refused_with_the_line_that_installs_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    (tmp_path / "ada.ipynb").write_text("{}")
    assert command.main(["grade", str(tmp_path), "--source", str(TOY)]) == 2
    assert "sudo apt-get install bubblewrap" in capsys.readouterr().err


@sandboxed
def test_folders_that_the_sandbox_shows_are_refused(tmp_path):
    sandbox.refuse_visible(tmp_path)
    with pytest.raises(sandbox.SandboxMissingError, match="/usr/share lies in /usr, which students' code can read"):
        sandbox.refuse_visible(tmp_path, Path("/usr/share"))


# ---------------------------------------------------------------------------------------- what students hand in


def zipped(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in entries.items():
            archive.writestr(name, body)
    return path


def test_submissions_are_found_in_every_layout(tmp_path):
    for name in (
        "ada.ipynb",
        "bob.zip",
        "carol/deep/ps1.ipynb",
        "carol/.ipynb_checkpoints/ps1-checkpoint.ipynb",
        "Dan O'Neil_123_assignsubmission_file_/ps1.ipynb",
        "Eve Li_124_assignsubmission_file_ps1.ipynb",
        "fritz_LATE_55_66_ps1.ipynb",
        "__MACOSX/x.ipynb",
        ".hidden.ipynb",
        "list.csv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "gina").mkdir()
    found = {(s.name, s.number): [path.as_posix() for path in s.files] for s in submissions.discover(tmp_path)}
    assert found == {
        ("ada", ""): ["ada.ipynb"],
        ("bob", ""): ["bob.zip"],
        ("carol", ""): ["carol/deep/ps1.ipynb"],
        ("Dan O'Neil", "Participant 123"): ["Dan O'Neil_123_assignsubmission_file_/ps1.ipynb"],
        ("Eve Li", "Participant 124"): ["Eve Li_124_assignsubmission_file_ps1.ipynb"],
        ("fritz", "55"): ["fritz_LATE_55_66_ps1.ipynb"],
        ("gina", ""): [],
    }
    assert len({s.key for s in submissions.discover(tmp_path)}) == 7
    with pytest.raises(FileNotFoundError, match="nothing to grade"):
        submissions.discover(tmp_path / "gina")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        submissions.discover(tmp_path / "nobody")


def only_reason(path):
    notebooks, reasons = submissions.read([path])
    assert not notebooks
    assert len(reasons) == 1
    return reasons[0]


def test_files_that_are_no_notebooks_are_refused_with_a_reason(tmp_path, release):
    good = build.written_bytes(release)
    path = tmp_path / "x.ipynb"
    path.write_text("{not json")
    assert "is not JSON" in only_reason(path)
    for body in (
        b"[]",
        b"{}",
        b'{"nbformat": 4, "cells": 3}',
        b"\xff\xfe",
        b'{"cells": [{}], "nbformat": 4}',
        b"[" * 99999,
    ):
        path.write_bytes(body)
        assert re.search("is not a notebook|is not JSON", only_reason(path)), body[:20]
    with open(path, "wb") as file:  # 300 MB, of which the disk keeps nothing
        file.truncate(300_000_000)
    start = time.monotonic()
    assert "has 300 MB, more than 20" in only_reason(path)
    assert time.monotonic() - start < 0.5
    (tmp_path / "real.ipynb").write_bytes(good)
    link = tmp_path / "link.ipynb"
    with contextlib.suppress(OSError):
        link.symlink_to(tmp_path / "real.ipynb")
        assert "is a link" in only_reason(link)
    assert submissions.read([])[1] == ["no notebook was handed in"]


def test_archives_are_read_without_writing_anything(tmp_path, release):
    good = build.written_bytes(release)
    notebooks, reasons = submissions.read([zipped(tmp_path / "good.zip", {"a/toy.ipynb": good, "data.csv": b"1"})])
    assert [name for name, _ in notebooks] == ["a/toy.ipynb"]
    assert not reasons
    for name in ("../evil.ipynb", "/etc/evil", "a/../../evil", "..\\evil", "C:evil"):
        reason = only_reason(zipped(tmp_path / "bad.zip", {"toy.ipynb": good, name: b"x"}))
        assert "wants to write outside its folder" in reason, name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip", "good.zip"]
    assert not list(tmp_path.parent.glob("evil*"))
    bomb = zipped(tmp_path / "bad.zip", {"toy.ipynb": bytes(submissions.MAX_BYTES + 1)})
    assert bomb.stat().st_size < 100_000
    assert "unpacks to more than 20 MB" in only_reason(bomb)
    assert "holds 300 files" in only_reason(zipped(tmp_path / "bad.zip", {f"{k}.ipynb": b"" for k in range(300)}))
    link = zipfile.ZipInfo("toy.ipynb")
    link.external_attr = 0o120777 << 16
    assert "holds a link" in only_reason(zipped(tmp_path / "bad.zip", {link: b"/etc/passwd"}))
    (tmp_path / "bad.zip").write_bytes(b"PK\3\4 no archive")
    assert "is not a zip file" in only_reason(tmp_path / "bad.zip")
    body = zipped(tmp_path / "good.zip", {"toy.ipynb": good}).read_bytes()
    (tmp_path / "bad.zip").write_bytes(body[:200] + b"XXXX" + body[204:])
    assert "cannot be unpacked" in only_reason(tmp_path / "bad.zip")


def test_missing_and_doubled_cells_are_told(release, toy):
    notebook = solved(release, reference(toy))
    cells = {submissions.grade_id(cell): cell for cell in notebook.cells}
    twin = copy.deepcopy(cells["total_solution"])
    twin.source = "class RunningTotal: pass"
    notebook.cells = [c for c in notebook.cells if c is not cells["softmax_solution"]] + [twin]
    found = submissions.answers(notebook, toy)
    assert found.code["total_solution"] == "class RunningTotal: pass"
    assert "softmax_solution" not in found.code
    assert "the cell softmax_solution is missing" in found.notes
    assert "2 different cells answer total_solution: the last of them counts" in found.notes


def test_cells_that_an_editor_robbed_of_their_ids_are_known_by_what_they_define(release, toy):
    answers = {
        **reference(toy),
        "written_answer": release.cells[-1].source.replace(sets.TEXT_STUB, "They become equal."),
    }
    notebook = solved(release, answers)
    for cell in notebook.cells:
        cell.metadata.pop("nbgrader", None)
    found = submissions.answers(notebook, toy)
    assert found.code == reference(toy)
    assert found.text == {"written_answer": "They become equal."}
    assert all("has lost its id" in note for note in found.notes)


def test_a_notebook_of_another_set_is_refused(release, toy):
    other = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")], metadata={"classroom": {"set": "ps9"}})
    with pytest.raises(submissions.RefusedError, match="not a notebook of toy: it says that it is 'ps9'"):
        submissions.choose([("x.ipynb", other)], [toy])
    assert submissions.choose([("x.ipynb", other), ("toy.ipynb", release)], [ATTACKED, toy])[0] is toy


# ------------------------------------------------------------------------------------------------------------- reports

INJECTION = '<script>alert(1)</script><img src=x onerror="alert(1)">'


def record(name, key, points, reason="", answer="They become equal.", number=""):
    cells = [
        {"name": "softmax_test", "kind": "test", "points": points, "of": 3.0, "reason": reason},
        {"name": "written_answer", "kind": "written", "points": None, "of": 2.0, "reason": "", "answer": answer},
    ]
    head = {"name": name, "number": number, "key": key, "set": "toy", "status": "graded", "reason": "", "notes": []}
    return head | {"cells": cells}


def rows(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))


def test_names_answers_and_errors_of_students_execute_nowhere(tmp_path, toy):
    evil = [
        record('=HYPERLINK("http://x")', "a", 3.0, answer="@SUM(1)"),
        record(INJECTION, "b", 0.0, reason=INJECTION, answer="-1+cmd|x"),
    ]
    evil[1]["notes"] = [INJECTION]
    reports.write_reports(tmp_path, toy, evil)
    for path in tmp_path.rglob("*.html"):
        soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        assert not soup.find("script"), path
        assert not soup.find("img", src="x"), path
        assert "default-src 'none'" in soup.find("meta", attrs={"http-equiv": True})["content"]
        assert not [tag for tag in soup.find_all(True) if any(name.startswith("on") for name in tag.attrs)]
    assert "alert(1)" in (tmp_path / "feedback" / "b.html").read_text(encoding="utf-8"), "it is shown as text"
    for path in tmp_path.glob("*.csv"):
        for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")):
            assert not [cell for cell in row if cell.startswith(("=", "+", "@", "-1"))], path


def test_platforms_get_the_columns_that_they_import_and_no_grade_before_all_is_marked(tmp_path, toy):
    results = [record("Ada", "a", 3.0, number="Participant 17"), record("Bob", "b", 1.0, number="55")]
    told = reports.write_reports(tmp_path, toy, copy.deepcopy(results))
    assert told == [f"2 written answers wait for points in {tmp_path / 'written.csv'}"]
    assert [row["Grade"] for row in rows(tmp_path / "moodle.csv")] == [""]
    sheet = rows(tmp_path / "written.csv")
    assert [(row["name"], row["points"]) for row in sheet] == [("Ada", ""), ("Bob", "")]
    assert "1 point: they become equal" in sheet[0]["rubric"]
    sheet[0]["points"], sheet[0]["comment"], sheet[1]["points"] = "1,5", "good", "0"
    with open(tmp_path / "written.csv", "w", encoding="cp1252", newline="") as file:  # as another program may save it
        writer = csv.DictWriter(file, reports.SHEET, delimiter=";")
        writer.writeheader()
        writer.writerows(sheet)
    assert reports.write_reports(tmp_path, toy, copy.deepcopy(results)) == []
    moodle = rows(tmp_path / "moodle.csv")[0]
    assert (moodle["Identifier"], moodle["Full name"], moodle["Grade"]) == ("Participant 17", "Ada", "4.5")
    assert {"Identifier", "Grade", "Last modified (grade)", "Feedback comments"} <= set(moodle)
    canvas = rows(tmp_path / "canvas.csv")
    assert list(canvas[0]) == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "toy"]
    assert canvas[0]["Student"].strip() == "Points Possible"
    assert (canvas[1]["ID"], canvas[1]["toy"]) == ("55", "1")
    assert "good" in (tmp_path / "feedback" / "a.html").read_text(encoding="utf-8")


def test_points_that_a_teacher_entered_stay_with_the_answer_they_were_given_for(tmp_path, toy):
    reports.write_reports(tmp_path, toy, [record("Ada", "a", 3.0), record("Bob", "b", 1.0)])
    text = (tmp_path / "written.csv").read_text(encoding="utf-8-sig")
    (tmp_path / "written.csv").write_text(re.sub(r"(written_answer,2),", r"\1,2", text), encoding="utf-8")
    assert [row["points"] for row in rows(tmp_path / "written.csv")] == ["2", "2"]
    again = [record("Ada", "a", 3.0, answer="Another answer.")]  # Bob is not in this run
    reports.write_reports(tmp_path, toy, again)
    sheet = {row["name"]: row for row in rows(tmp_path / "written.csv")}
    assert sheet["Ada"]["points"] == ""
    assert sheet["Ada"]["note"] == "an earlier answer had 2 points"
    assert sheet["Bob"]["points"] == "2"
    for wrong in ("3", "-1", "two", "nan"):
        body = (tmp_path / "written.csv").read_text(encoding="utf-8-sig")
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / "written.csv").write_text(re.sub(r"(written_answer,2),", rf"\1,{wrong}", body, count=1))
        with pytest.raises(ValueError, match="is no number of points between 0 and 2"):
            reports.write_reports(tmp_path / "x", toy, [record("Ada", "a", 3.0, answer="Another answer.")])
        assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["written.csv"]


def test_the_summary_names_the_hardest_cell_first_and_has_a_plot_with_words(tmp_path, toy):
    results = [record("Ada", "a", 3.0), record("Bob", "b", 0.0, reason="which axis?")]
    for result in results:
        result["cells"][1]["points"] = 2.0
    reports.write_reports(tmp_path, toy, results)
    soup = BeautifulSoup((tmp_path / "summary.html").read_text(encoding="utf-8"), "html.parser")
    hardest = soup.find("caption", string="Cells, the hardest first").find_parent("table").find_all("tr")[1]
    assert [cell.text for cell in hardest.find_all("td")] == ["softmax_test", "50 %", "1 times: which axis?"]
    image = soup.find("img")
    assert image["alt"] == "Histogram of points in percent. Submissions with 40 to 50 %: 1; 90 to 100 %: 1."
    assert base64.b64decode(image["src"].partition(",")[2]).startswith(b"\x89PNG")
    assert reports.counts([0, 9.9, 10, 99, 100]) == [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]


# ---------------------------------------------------------------------------------------------------------- full cycle


@sandboxed
def test_a_class_from_student_versions_to_grades(tmp_path, release, toy, capsys, monkeypatch):
    """Build, hand out, three submissions and two that nobody can read, grade, mark by hand, grade again, export."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    folder = tmp_path / "handed in"
    folder.mkdir()
    question = release.cells[-1].source
    written = {"written_answer": question.replace(sets.TEXT_STUB, "All become equal, for all scaled logits go to 0.")}
    ada = solved(release, reference(toy) | written)
    half = solved(release, {"softmax_solution": reference(toy)["softmax_solution"]})
    hostile = solved(release, reference(toy) | {"softmax_solution": "import os\nos._exit(0)"} | written)
    (folder / "Ada_17_assignsubmission_file_").mkdir()
    (folder / "Ada_17_assignsubmission_file_" / "toy.ipynb").write_bytes(build.written_bytes(ada))
    zipped(folder / "Bob_18_assignsubmission_file_bob.zip", {"toy.ipynb": build.written_bytes(half)})
    (folder / "Mallory_19_assignsubmission_file_toy.ipynb").write_bytes(build.written_bytes(hostile))
    (folder / "Nobody_20_assignsubmission_file_toy.ipynb").write_text("{")
    out = tmp_path / "graded"
    arguments = ["grade", str(folder), "--source", str(TOY), "--out", str(out), "--jobs", "2"]
    assert command.main(arguments) == 0
    table = {row["name"]: row for row in rows(out / "toy" / "grades.csv")}
    assert {name: float(row["points"]) for name, row in table.items()} == {
        "Ada": 8,
        "Bob": 5,
        "Mallory": 2,
        "Nobody": 0,
    }
    assert "is not JSON" in table["Nobody"]["remarks"]
    pages = {
        path.stem.split("-")[0]: path.read_text(encoding="utf-8") for path in (out / "toy/feedback").glob("*.html")
    }
    assert "the cell softmax_solution ran, it was ended" in pages["Mallory"]
    assert "this part is not solved yet" in pages["Bob"]
    for page in pages.values():
        assert not [line for line in secret_lines(toy) if line in BeautifulSoup(page, "html.parser").get_text()]

    sheet = (out / "toy" / "written.csv").read_text(encoding="utf-8-sig")
    (out / "toy" / "written.csv").write_text(sheet.replace("written_answer,2,,", "written_answer,2,2,"))
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "results").iterdir()}
    assert command.main(arguments) == 0
    assert {path.name: path.stat().st_mtime_ns for path in (out / "results").iterdir()} == kept, (
        "nothing is graded twice"
    )
    grades = {row["Full name"]: row["Grade"] for row in rows(out / "toy" / "moodle.csv")}
    assert grades == {"Ada": "10", "Bob": "5", "Mallory": "4", "Nobody": "0"}

    (folder / "Mallory_19_assignsubmission_file_toy.ipynb").write_bytes(build.written_bytes(ada))
    assert command.main(arguments) == 0
    changed = [path.name for path in (out / "results").iterdir() if path.stat().st_mtime_ns != kept[path.name]]
    assert [name.split("-")[0] for name in changed] == ["Mallory"], "only what changed is graded again"
    capsys.readouterr()
    assert command.main([*arguments[:4], "--out", str(folder / "inside")]) == 2
    assert "lies inside the submissions" in capsys.readouterr().err


def test_a_submission_whose_grading_breaks_does_not_stop_the_others(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for name in ("ada", "bob"):
        (tmp_path / "in" / f"{name}.ipynb").write_text("{}")

    def broken(command, **options):
        assert "ada.ipynb" not in options["input"] or time.sleep(0.1) is None
        if "ada.ipynb" in options["input"]:
            raise subprocess.TimeoutExpired(command, 1)
        return subprocess.CompletedProcess(command, -9, "", "Killed")

    monkeypatch.setattr(grading.subprocess, "run", broken)
    results = grading.Folder(tmp_path / "in", [TOY], tmp_path / "out").grade(jobs=2)
    assert [(r["name"], r["status"], r["reason"]) for r in results] == [
        ("ada", "failed", "grading took too long and was stopped"),
        ("bob", "failed", "grading failed: Killed"),
    ]
    assert not list((tmp_path / "out").glob("results/*")), "what failed is tried again next time"
