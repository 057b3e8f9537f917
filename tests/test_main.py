"""The command line: what it prints, what it returns to a script, and that it goes on after a failure."""

import hashlib
import subprocess
import sys
from importlib import metadata

import pytest

import lmtl_course
from lmtl_course import __main__ as program
from lmtl_course import data

BODY = b"1 good\n0 bad\n"


def pinned(name, files, address="http://127.0.0.1:9"):
    """The table's entry for a set, with small files at an address where nobody listens."""
    digest = hashlib.sha256(BODY).hexdigest()
    made = [{"file": f, "split": None, "url": f"{address}/{f}", "sha256": digest, "bytes": len(BODY)} for f in files]
    return {**data.table()[name], "files": made}


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A table of two sets, `cr` here and `sst2` absent, and its folder."""
    table = {"cr": pinned("cr", ["custrev.all"]), "sst2": pinned("sst2", ["stsa.binary.train", "stsa.binary.dev"])}
    monkeypatch.setattr(data, "table", lambda: table)
    monkeypatch.setenv("LMTL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "*")
    data._unreachable.clear()
    (tmp_path / "cr").mkdir()
    (tmp_path / "cr" / "custrev.all").write_bytes(BODY)
    return tmp_path


def test_list_is_a_table_of_every_set(shelf, capsys):
    assert program.main(["data", "list"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "SIZE", "STATE", "LICENCE", "TASK", "STAND-IN"]
    assert [line.split()[0] for line in lines] == list(data.names())
    states = {line.split()[0]: line[header.index("STATE") :].split("  ")[0] for line in lines}
    assert (states["cr"], states["sst2"], states["numerals"]) == ("present", "absent", "embedded")
    assert all(line[header.index("LICENCE") :].startswith(("in doubt", "clear")) for line in lines)
    (shelf / "sst2").mkdir()
    (shelf / "sst2" / "stsa.binary.dev").write_bytes(BODY)
    program.main(["data", "list"])
    assert "1 of 2 files absent" in capsys.readouterr().out
    (shelf / "sst2" / "stsa.binary.dev").write_bytes(b"cut")
    program.main(["data", "list"])
    assert "DAMAGED" in capsys.readouterr().out


def test_fetch_goes_on_after_a_failure_and_tells_it_at_the_end(shelf, capsys):
    assert program.main(["data", "fetch", "sst2", "numerals", "cr"]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["sst2", "FAILED"],
        ["numerals", "embedded,"],
        ["cr", "1"],
    ]
    assert "sst2: sst2/stsa.binary.train is not in the cache and there is no connection to 127.0.0.1:9" in err
    assert err.endswith("2 of 3 complete; failed: sst2\n")
    assert program.main(["data", "fetch", "--all"]) == 1
    assert capsys.readouterr().err.endswith("1 of 2 complete; failed: sst2\n")
    assert program.main(["data", "fetch", "cr"]) == 0


def test_verify_finds_what_a_size_does_not_tell(shelf, capsys):
    assert program.main(["data", "verify", "cr"]) == 0
    assert capsys.readouterr().out.split() == ["cr", "intact"]
    assert program.main(["data", "verify"]) == 1
    out, err = capsys.readouterr()
    assert "sst2                  absent" in out
    assert "To repair: python -m lmtl_course data fetch sst2" in err
    (shelf / "cr" / "custrev.all").write_bytes(BODY.replace(b"good", b"goof"))
    assert program.main(["data", "verify", "cr"]) == 1
    assert "DAMAGED: custrev.all is damaged (sha256" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required: COMMAND"),
        (["data"], "required: ACTION"),
        (["data", "fetch"], "name the data sets to fetch, or say --all"),
        (["data", "fetch", "cr", "--all"], "name the data sets to fetch, or say --all"),
        (["data", "fetch", "snli"], "no data set is called snli; choose from cr, sst2"),
        (["data", "verify", "numerals"], "no data set is called numerals"),
        (["heal"], "invalid choice: 'heal'"),
    ],
)
def test_what_is_not_understood_exits_with_2(shelf, capsys, words, said):
    with pytest.raises(SystemExit) as stopped:
        program.main(words)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_help_names_every_command_and_the_exit_codes(capsys):
    for words, expected in (
        (["--help"], ("doctor", "data", "Exit codes")),
        (["data", "-h"], ("list", "fetch", "verify")),
    ):
        with pytest.raises(SystemExit) as stopped:
            program.main(words)
        assert stopped.value.code == 0
        assert all(word in capsys.readouterr().out for word in [expected[0]])
    with pytest.raises(SystemExit):
        program.main(["--version"])
    assert capsys.readouterr().out == f"lmtl-course {lmtl_course.__version__}\n"


def test_doctor_says_what_is_here_and_how_to_get_the_rest(shelf, capsys):
    assert program.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for package in (*program.CORE, *program.OPTIONAL):
        assert f"\n  {package} " in out
    assert f"{shelf} (LMTL_DATA_DIR)" in out
    assert "writable, " in out
    assert "× the speed of float32" in out
    assert "present" in out
    assert out.endswith("To get it: python -m lmtl_course data fetch sst2\n")
    assert max(map(len, out.splitlines())) < 140


def test_doctor_is_content_when_nothing_lacks(shelf, capsys):
    (shelf / "sst2").mkdir()
    for file in ("stsa.binary.dev", "stsa.binary.train"):
        (shelf / "sst2" / file).write_bytes(BODY)
    assert program.main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("All is well.\n")


def test_doctor_finds_a_missing_and_an_old_package(monkeypatch, capsys):
    versions = {"numpy": "1.25.9", "pooch": ""}
    original = program._version
    monkeypatch.setattr(program, "_version", lambda package: versions.get(package, original(package)))
    monkeypatch.setattr(program, "_bounds", lambda: {"numpy": "1.26", "pooch": "1.8", "torch": "2.5"})
    assert program.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "TOO OLD: 1.26 or newer is needed; pip install --upgrade numpy" in out
    assert "MISSING: pip install 'pooch>=1.8'" in out
    assert "Data sets" not in out  # what cannot be imported is not asked


def test_versions_are_compared_by_number_and_bounds_come_from_the_metadata(monkeypatch):
    assert program._numbers("2.13.0+cpu") > program._numbers("2.5")
    assert program._numbers("1.0.4.post1") == (1, 0, 4)
    asked = ["torch>=2.5", "numpy>=1.26", 'transformers>=5.0; extra == "hf"']
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    assert program._bounds() == {"torch": "2.5", "numpy": "1.26"}

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert program._bounds() == {}


@pytest.fixture
def library(tmp_path):
    """A folder of two texts and a picture."""
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "normans.txt").write_text("The Normans gave their name to Normandy.\n\nThey came in ships.", "utf-8")
    (folder / "cows.md").write_text("Cows give milk. 牛吃草。", "utf-8")
    (folder / "cow.png").write_bytes(b"\x89PNG\0")
    return str(folder)


def test_ask_prints_passages_with_their_places(library, capsys):
    assert program.main(["ask", "Who gave a name to Normandy?", library, "--find", "bm25", "-k", "1"]) == 0
    out, err = capsys.readouterr()
    head, first, *lines = [line for line in out.splitlines() if line]
    assert head == "2 passages of 2 texts; 1 binary file left out. Counting words."
    assert first.startswith("1. normans.txt, characters 0 to 61, score ")
    assert lines[0] == "   The Normans gave their name to Normandy. They came in ships."
    assert "--read" in lines[-1]
    assert "\n2. " not in out
    assert err == ""


def test_ask_prints_what_a_reader_says(library, capsys, monkeypatch):
    from lmtl_course import answering

    class Reads:
        def read(self, question, passage):
            start = passage.find("milk")
            return answering.Answer("milk", start, start + 4, 1.5) if start >= 0 else None

    monkeypatch.setattr(answering, "load_reader", lambda folder: {"kept": Reads()}[folder])
    assert program.main(["ask", "What do cows give to Normans?", library, "--find", "bm25", "--reader", "kept"]) == 0
    out = capsys.readouterr().out
    assert "answer: 'milk', characters 10 to 14, score 1.50" in out
    assert out.count("answer: none in this passage") == 1
    assert "--read" not in out


def test_ask_trains_no_reader_for_a_question_that_finds_nothing(library, capsys, monkeypatch):
    from lmtl_course import answering

    monkeypatch.setattr(answering, "default_reader", lambda: pytest.fail("a reader was trained"))
    assert program.main(["ask", "Wo liegt Rom?", library, "--find", "bm25", "--read"]) == 1
    assert "no passage shares a word" in capsys.readouterr().err


def test_ask_ends_in_one_sentence_where_the_reader_cannot_read(library, capsys, monkeypatch, tmp_path):
    from lmtl_course import answering

    class Refuses:
        def read(self, question, passage):
            raise ValueError("the question has 999 tokens")

    question = ["ask", "What do cows give?", library, "--find", "bm25", "--reader"]
    assert program.main([*question, str(tmp_path / "typo")]) == 1
    assert "typo; give one that a model was saved in" in capsys.readouterr().err
    monkeypatch.setattr(answering, "load_reader", lambda folder: Refuses())
    assert program.main([*question, "kept"]) == 1
    assert capsys.readouterr().err == "the question has 999 tokens\n"


def test_ask_in_chinese_counts_and_in_english_compares(library, capsys):
    assert program.main(["ask", "牛吃什么？", library]) == 0
    out = capsys.readouterr().out
    assert "MiniLM reads no Chinese" in out
    assert "1. cows.md" in out
    assert "\n2. " not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([" "], "the question is empty"),
        (["Wo liegt Rom?"], "no passage shares a word with the question"),
        (["Normans", "-k", "0"], "k=0"),
    ],
)
def test_ask_ends_in_one_sentence(library, capsys, words, said):
    assert program.main(["ask", *words[:1], library, "--find", "bm25", *words[1:]]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_ask_of_no_folder_and_of_none_with_text(tmp_path, capsys):
    assert program.main(["ask", "Who?", str(tmp_path / "nowhere")]) == 1
    assert "nowhere is no folder" in capsys.readouterr().err
    (tmp_path / "x.bin").write_bytes(bytes(3))
    assert program.main(["ask", "Who?", str(tmp_path / "x.bin")]) == 1
    assert "x.bin is a file, not a folder" in capsys.readouterr().err
    assert program.main(["ask", "Who?", str(tmp_path)]) == 1
    assert "holds no text (0 empty and 1 binary" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        program.main(["ask"])
    assert stopped.value.code == 2


def test_ask_without_a_folder_asks_pythons_documentation(capsys):
    assert program.main(["ask", "How do I fold several lists together like a zipper?", "--find", "bm25"]) == 0
    out = capsys.readouterr().out
    assert "1. " in out
    assert int(out.split()[0].replace(",", "")) > 1000


def test_without_torch_the_data_command_points_to_the_doctor(monkeypatch, capsys):
    for module in ("data", "embedded"):
        monkeypatch.delitem(sys.modules, f"lmtl_course.{module}")
        monkeypatch.delattr(lmtl_course, module)
    monkeypatch.setitem(sys.modules, "torch", None)  # an import of it fails from now on
    assert program.main(["data", "list"]) == 1
    assert "torch is not installed; `python -m lmtl_course doctor`" in capsys.readouterr().err


def test_as_a_program(tmp_path):
    command = [sys.executable, "-m", "lmtl_course", "data", "list"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "tinyshakespeare" in run.stdout
    assert run.stderr == ""
    run = subprocess.run([*command[:-1], "grab"], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 2
