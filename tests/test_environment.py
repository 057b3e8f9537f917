"""environment.yml asks for the same packages and bounds as pyproject.toml, under conda's names."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CONDA_NAMES = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}  # conda-forge's name: PyPI's name


def split(requirement: str) -> tuple[str, frozenset[str]]:
    """A requirement's name and its bounds, in any order."""
    match = re.fullmatch(r"([A-Za-z0-9_.-]+?)\s*((?:[<>=!~]=?[\w.]+,?\s*)*)", requirement)
    assert match, f"cannot read {requirement!r}"
    name, bounds = match.groups()
    return CONDA_NAMES.get(name, name), frozenset(bound.strip() for bound in bounds.split(",") if bound.strip())


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def test_packages_and_bounds_are_those_of_pyproject(project, environment):
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    piped = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    asked = dict(split(entry) for entry in [*plain, *piped] if not entry.startswith("-"))
    del asked["pip"]
    (python,) = asked.pop("python")
    assert asked == dict(map(split, [*project["dependencies"], *project["optional-dependencies"]["book"]]))
    assert re.fullmatch(r"=3\.\d+", python), "Binder finds the version only where it is written python=3.x"
    lowest = int(re.fullmatch(r">=3\.(\d+)", project["requires-python"]).group(1))
    assert int(python.removeprefix("=3.")) >= lowest


def test_the_package_itself_is_installed_so_that_binder_can_import_it(environment):
    piped = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert "-e ." in piped
    assert environment["name"] == "lmtl-course"
    assert environment["channels"] == ["conda-forge"]


def test_the_reader_of_requirements_tells_bounds_apart():
    assert split("jupyter-book>=1.0.4,<2") == ("jupyter-book", frozenset({">=1.0.4", "<2"}))
    assert split("pytorch-cpu>=2.5") == ("torch", frozenset({">=2.5"}))
    assert split("pip") == ("pip", frozenset())
    assert split("numpy>=1.26") != split("numpy>=2.0")
