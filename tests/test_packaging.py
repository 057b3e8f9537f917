"""Installing the course beside somebody's torch and numpy changes neither."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = {"torch", "numpy", "matplotlib", "safetensors", "tokenizers", "pooch", "tqdm", "jaxtyping", "ipython"}
OTHERS = {"torch": "2.6.0", "numpy": "1.26.4"}  # what somebody else's machine might carry


def installed():
    """This environment's distributions, each once.

    Only its own folders are read. A library that another test imported may have put copies of others on ``sys.path``:
    setuptools does so with ``packaging``, whatever version that copy has.
    """
    return list(importlib.metadata.distributions(path=sorted({sysconfig.get_path(k) for k in ("purelib", "platlib")})))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a pristine copy of the sources, built without a network."""
    import shutil

    source, out = tmp_path_factory.mktemp("source") / "course", tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "lmtl_course", source / "lmtl_course", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode())


def test_core_dependencies_are_few_and_have_lower_bounds_only(metadata):
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert {re.match(r"[\w-]+", line).group() for line in required} == CORE
    for line in required:
        assert re.fullmatch(r"[\w-]+>=[\d.]+", line), f"{line}: lower bounds only"


def test_the_extras_are_the_promised_ones(metadata):
    assert set(metadata.get_all("Provides-Extra")) == {"book", "hf", "dev", "classroom"}


def test_the_wheel_carries_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert all(name.startswith("lmtl_course") for name in names)
    assert "lmtl_course/datasets.json" in names
    assert "lmtl_course/py.typed" in names


def test_no_solution_of_a_problem_set_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert b"BEGIN SOLUTION" not in content, name
            assert b"BEGIN HIDDEN TESTS" not in content, name
            assert "assignments" not in name


def test_a_copy_that_a_library_carries_does_not_count_as_installed(monkeypatch, tmp_path):
    copy = tmp_path / "packaging-0.dist-info"
    copy.mkdir()
    (copy / "METADATA").write_text("Metadata-Version: 2.1\nName: packaging\nVersion: 0\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert "0" in [copy.version for copy in importlib.metadata.distributions(name="packaging")]
    names = [distribution.metadata["Name"] for distribution in installed()]
    assert len(names) == len(set(names))
    assert {"torch", "numpy", "packaging"} <= set(names)


def test_installing_it_beside_another_torch_and_numpy_changes_neither(wheel, tmp_path):
    """A venv with this environment's real metadata but other torch and numpy versions: pip must only add the course."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", query], capture_output=True, text=True, check=True).stdout.strip())
    for distribution in installed():
        name = distribution.metadata["Name"]
        if name == "lmtl-course":
            continue
        version = OTHERS.get(name, distribution.version)
        text = re.sub(
            r"^Version: .*$", f"Version: {version}", distribution.read_text("METADATA"), count=1, flags=re.MULTILINE
        )
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--python", str(python), "--isolated", "install", "--dry-run", "--quiet"]
    command += ["--no-index", "--report", "-", str(wheel)]
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # which shows this checkout
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=alone, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    planned = [entry["metadata"]["name"] for entry in json.loads(run.stdout)["install"]]
    assert planned == ["lmtl-course"]


def test_development_pins_satisfy_the_lower_bounds(metadata):
    from packaging.requirements import Requirement

    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    for line in metadata.get_all("Requires-Dist"):
        requirement = Requirement(line)
        if requirement.name == "lmtl-course":
            continue
        assert requirement.specifier.contains(pins[requirement.name.lower()]), (
            f"{requirement} against {pins[requirement.name.lower()]}"
        )


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0", "3.13.0"])
def test_every_pin_can_be_installed_with_each_python_that_is_promised(metadata, python):
    from packaging.specifiers import SpecifierSet

    assert SpecifierSet(metadata["Requires-Python"]).contains(python)
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    needs = {}
    for name in pins:
        try:
            needs[name] = importlib.metadata.metadata(name)["Requires-Python"] or ""
        except importlib.metadata.PackageNotFoundError:  # pinned for another platform
            continue
    assert len(needs) > 100
    refusing = {name: need for name, need in needs.items() if not SpecifierSet(need).contains(python)}
    assert not refusing, f"pinned to releases that Python {python} may not have"


def test_the_base_models_travel_in_the_wheel_and_stay_small(wheel):
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    for name in ("gpt-mini", "bert-mini"):
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "record.json", "model.safetensors"):
            assert f"lmtl_course/models/{name}/{file}" in sizes
    models = sum(size for name, size in sizes.items() if name.startswith("lmtl_course/models/"))
    assert 10e6 < models < 15e6, f"{models:,} bytes of models"
    assert not [name for name in sizes if name.endswith((".bin", ".pt", ".pkl"))], "weights are never pickles"
