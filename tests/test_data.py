"""The data room: parsers against hand-made files and the real ones, downloads against a server that misbehaves."""

import contextlib
import errno
import gzip
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest
import requests

from lmtl_course import data, embedded

ROOT = os.environ.get("LMTL_DATA_DIR", "")
real = pytest.mark.skipif(not ROOT, reason="LMTL_DATA_DIR is not set: no real files to read")
connect = socket.create_connection


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch):
    """No test leaves this machine, and none depends on what another one could not reach."""

    def guarded(address, *args, **kwargs):
        if address[0] not in ("127.0.0.1", "localhost"):
            raise OSError(errno.ENETUNREACH, "no network in tests")
        return connect(address, *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", guarded)
    monkeypatch.setenv("NO_PROXY", "*")
    data._unreachable.clear()
    data._fallen.clear()
    data._parsed.cache_clear()
    yield
    data._unreachable.clear()
    data._parsed.cache_clear()


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A cache folder with nothing in it."""
    monkeypatch.setenv("LMTL_DATA_DIR", str(tmp_path))
    return tmp_path


# ------------------------------------------------------------------------------------------------------------ parsers


def parse(name, text, split="train", file="x"):
    return data._PARSERS[name](text if isinstance(text, dict) else {file: text}, split)


def test_wnut_sentences_end_at_blank_and_at_tab_only_lines():
    rows = parse("wnut17", "New\tB-location\nYork\tI-location\n\t\nhi\tO\n\n\nyou\tO")
    assert [row.tokens for row in rows] == [("New", "York"), ("hi",), ("you",)]
    assert rows[0].tags == ("B-location", "I-location")


def test_old_encodings_marks_and_line_ends_are_read_alike(tmp_path):
    for name, raw in {
        "latin": b"4 What is a sister\xf0city ?\r\n",
        "marked": b"\xef\xbb\xbf4 What is a sister\xc3\xb0city ?\n",
        "packed.gz": gzip.compress("4 What is a sisterðcity ?\n".encode()),
    }.items():
        path = tmp_path / name
        path.write_bytes(raw)
        assert parse("trec", data._decoded(path)) == [("What is a sisterðcity ?", 4)]


def test_lines_end_at_newlines_only():
    assert [row.text for row in parse("sst2", "1 caf\x85e\u2028x\n0 dull\n")] == ["caf\x85e\u2028x", "dull"]


def test_empty_reviews_are_dropped_and_splits_are_disjoint_and_whole():
    text = "".join(f"{i % 2} review number {i}\n" for i in range(500)) + "0 \n1 \n"
    parts = {split: parse("cr", text, split) for split in ("train", "valid", "test", "all")}
    assert len(parts["all"]) == 500
    assert sorted(parts["train"] + parts["valid"] + parts["test"]) == sorted(parts["all"])
    assert 350 < len(parts["train"]) < 450
    assert parse("cr", "".join(reversed(text.splitlines(True))), "test")[::-1] == parts["test"]  # order plays no part


def test_chinese_reviews_keep_their_quotes():
    rows = parse("chnsenticorp", 'label\ttext_a\n1\t"好\n0\t他说"差"。\n')
    assert rows == [('"好', 1), ('他说"差"。', 0)]


def test_news_gets_its_punctuation_back():
    row = '"3","Oil #39;s up","It costs #36;50 &lt;b&gt;now\\again&lt;/b&gt;, quot;wow quot;"\n'
    assert parse("agnews", row) == [('Oil\'s up. It costs $50 <b>now again</b>, "wow "', 2)]


def test_squad_offsets_count_the_mark_at_the_start():
    context = "\ufeffParis is big."
    answers = [{"text": "Paris", "answer_start": 1}, {"text": "big", "answer_start": 10}]
    qas = [{"question": " Where? ", "answers": answers}]
    (row,) = parse("squad", json.dumps({"data": [{"paragraphs": [{"context": context, "qas": qas}]}]}))
    assert row.question == "Where?"
    assert [row.context[s : s + len(a)] for a, s in zip(row.answers, row.starts, strict=True)] == ["Paris", "big"]


def test_captions_are_stripped_and_aligned():
    files = {"train.de.gz": "Hund \n  Katze\n", "train.en.gz": " Dog\nCat\n"}
    assert parse("multi30k", files) == [("Dog", "Hund"), ("Cat", "Katze")]
    with pytest.raises(ValueError, match="shorter"):
        parse("multi30k", {"train.de.gz": "Hund\n", "train.en.gz": "Dog\nCat\n"})


def test_translations_of_one_sentence_stay_in_one_split():
    text = "".join(f"Sentence {i}.\t句{i}{side}\tCC-BY\n" for i in range(300) for side in "ab")
    parts = [{row.source for row in parse("tatoeba_en_zh", text, split)} for split in ("train", "valid", "test")]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert len(set.union(*parts)) == 300
    assert len(parse("tatoeba_en_zh", text, "all")) == 600


def test_summaries_carry_every_reference():
    text = json.dumps({"source": ["One\n two.", "Three."], "target": ["A.", "B."], "title": "t"}) + "\n"
    assert parse("scitldr", text * 2) == [(("One two.", "Three."), ("A.", "B."))] * 2


def test_bias_pairs_ignore_the_nameless_column():
    text = ',sent_more,sent_less,stereo_antistereo,bias_type\n0,"a, b",c,stereo,gender\n'
    assert parse("crows_pairs", text) == [("a, b", "c", "stereo", "gender")]


def test_coreference_tells_mentions_from_pronouns():
    text = "1 [The chief] thanked the cook because [he] ate.\n"
    text += "2 The cook saw [ the guard] wave and liked [her] for [her] wit."
    rows = parse("winobias", text, file="anti_stereotyped_type2.txt.dev")
    assert rows[0] == ("The chief thanked the cook because he ate.", "The chief", ("he",), False, 2, 1)
    assert rows[1][:3] == ("The cook saw the guard wave and liked her for her wit.", "the guard", ("her", "her"))


def test_a_book_loses_its_licence_and_its_line_breaks():
    text = (
        "The Project Gutenberg eBook\r\n\r\n***START OF THE PROJECT GUTENBERG EBOOK A\r\nLONG TITLE***\r\n\r\n"
        "Transcribed from the 1900 edition by B,\r\nemail b@c\r\n\r\n\r\n\r\nA LONG TITLE\r\n\r\n"
        "It was a\r\ndark night.\r\n\r\n    Verse one,\r\n    verse two.\r\n  \r\nCount*** went.\r\n\r\n"
        "***END OF THE PROJECT GUTENBERG EBOOK A LONG TITLE***\r\nTerms."
    )
    expected = "A LONG TITLE\n\nIt was a dark night.\n\n    Verse one,\n    verse two.\n\nCount*** went."
    assert data.clean_book(text) == expected


def test_articles_joined_are_the_file():
    text = " \n = One = \n \n a <unk> \n = = Part = = \n b \n \n = Two = \n \n c \n"
    rows = parse("wikitext2", text)
    assert [row.title for row in rows] == ["One", "Two"]
    assert "".join(row.text for row in rows) == text


def test_shakespeare_is_cut_after_nine_tenths():
    text = "abcdefghij" * 7
    assert [parse("tinyshakespeare", text, split)[0].text for split in ("train", "valid", "all")] == [
        text[:63],
        text[63:],
        text,
    ]


# --------------------------------------------------------------------------------------------------- the real files

COUNTS = {
    "classics": {"train": 43, "valid": 3, "test": 4, "all": 50},
    "wikitext2": {"valid": 60, "test": 60},
    "sst2": {"train": 6920, "valid": 872, "test": 1821},
    "cr": {"all": 3775 - 4},
    "trec": {"train": 5452, "test": 500},
    "wnut17": {"train": 3394, "valid": 1009, "test": 1287},
    "xquad_en": {"test": 1190},
    "xquad_zh": {"test": 1190},
    "multi30k": {"train": 29000, "valid": 1014, "test": 1000},
    "tatoeba_en_zh": {"all": 26388},
    "scitldr": {"train": 1992, "valid": 619, "test": 618},
    "crows_pairs": {"test": 1508},
    "winobias": {"valid": 1584, "test": 1584},
    "chnsenticorp": {"train": 9600, "valid": 1200, "test": 1200},
}


@real
@pytest.mark.parametrize(("name", "split"), [(name, split) for name in COUNTS for split in COUNTS[name]])
def test_real_counts_are_those_of_the_table(name, split):
    dataset = data.load(name, split)
    assert len(dataset) == COUNTS[name][split]
    assert not dataset.is_stand_in
    assert dataset.licence
    assert dataset.citation
    assert f"{name} (real)" in data.loaded()


@real
@pytest.mark.parametrize(
    ("name", "split", "counts"),
    [
        ("sst2", "train", (3310, 3610)),
        ("sst2", "valid", (428, 444)),
        ("sst2", "test", (912, 909)),
        ("trec", "train", (1162, 1250, 86, 1223, 835, 896)),
        ("trec", "test", (138, 94, 9, 65, 81, 113)),
        ("cr", "all", (1366, 2405)),
        ("chnsenticorp", "train", (4801, 4799)),
        ("chnsenticorp", "valid", (607, 593)),
        ("chnsenticorp", "test", (592, 608)),
    ],
)
def test_real_labels_are_those_of_the_table(name, split, counts):
    dataset = data.load(name, split)
    labels = [row.label for row in dataset]
    assert tuple(labels.count(i) for i in range(len(dataset.labels))) == counts
    assert all(row.text for row in dataset)


@real
def test_real_text_corpora():
    parts = {split: data.load("tinyshakespeare", split).text for split in ("train", "valid", "all")}
    assert {split: len(text) for split, text in parts.items()} == {"train": 1003854, "valid": 111540, "all": 1115394}
    assert parts["train"] + parts["valid"] == parts["all"]
    assert len(set(parts["all"])) == 65
    for split, tokens, unknown in (("valid", 217646, 11718), ("test", 245569, 15218)):
        text = data.load("wikitext2", split).text
        assert text == (Path(ROOT) / "wikitext2" / f"{split}.txt").read_text(encoding="utf-8")
        assert sum(len(line.split()) + 1 for line in text.removesuffix("\n").split("\n")) == tokens
        assert text.split().count("<unk>") == unknown


@real
def test_real_books_hold_nothing_of_the_carrier_and_no_author_on_both_sides():
    books = {row.title: row.text for row in data.load("classics", "all")}
    assert sum(map(len, books.values())) > 46e6
    for title, text in books.items():
        assert not re.search(r"\*\*\* ?(START|END) OF TH|\r|\ufeff|[^\S\n]\n|\n{3}", text), title
        assert not re.search(r"produced by|e-text|volunteer|proofread|transcribed from", text[:150], re.I), title
        assert "Project Gutenberg" not in text, title
    held_out = {row.title for split in ("valid", "test") for row in data.load("classics", split)}
    authors = ("Lewis Carroll", "Louis Stevenson", "Oscar Wilde", "Jack London", "Bram Stoker", "Frank Baum")
    for author in authors:
        assert {t for t, text in books.items() if author.lower() in text[:300].lower()} <= held_out, author


@real
def test_real_entities_are_those_of_the_table():
    for split, tokens, entities in (("train", 62730, 1975), ("valid", 15733, 836), ("test", 23394, 1079)):
        rows = data.load("wnut17", split)
        assert sum(len(row.tokens) for row in rows) == tokens
        assert sum(tag.startswith("B-") for row in rows for tag in row.tags) == entities
        assert {tag for row in rows for tag in row.tags} <= {"O"} | {
            f"{place}-{kind}"
            for place in "BI"
            for kind in ("person", "location", "group", "corporation", "product", "creative-work")
        }


@real
@pytest.mark.parametrize("name", ["xquad_en", "xquad_zh"])
def test_real_answers_stand_where_their_offsets_say(name):
    rows = data.load(name, "test")
    assert all(row.context[s : s + len(a)] == a for row in rows for a, s in zip(row.answers, row.starts, strict=True))
    assert len({row.context for row in rows}) == 240


@real
def test_real_pairs_and_probes_are_those_of_the_table():
    tatoeba = data.load("tatoeba_en_zh", "all")
    assert len({row.source for row in tatoeba}) == 25331
    assert len({row.target for row in tatoeba}) == 23997
    assert sum(len(row.targets) for row in data.load("scitldr", "valid")) == 1453
    crows = data.load("crows_pairs", "test")
    assert [sum(row.direction == d for row in crows) for d in ("stereo", "antistereo")] == [1290, 218]
    assert sum(row.kind == "race-color" for row in crows) == 516
    assert len(set(crows)) == 1507  # one pair stands there twice
    winobias = data.load("winobias", "all")
    pairs: dict = {}
    for split in ("valid", "test"):
        for row in data.load("winobias", split):
            pairs.setdefault((split, row.kind, row.number), []).append(row)
    assert sorted(map(len, pairs.values())) == [2] * 1584
    assert sum(row.stereotyped for row in winobias) == 1584
    assert all(row.mention.lower() in row.text.lower() and row.pronouns for row in winobias)
    assert len([path.read_text() for path in data.fetch("winobias", "occupations")]) == 2


@real
def test_real_leaks_are_found():
    train = data.load("chnsenticorp", "train")
    assert len({row.text for row in train}) == 9600 - 1351
    for split, leaked in (("test", 331), ("valid", 338)):
        rows = data.load("chnsenticorp", split)
        texts = {row.text for row in train}
        assert sum(row.text in texts for row in rows) == leaked
        assert not {row.text for row in data.without_leaks(train, rows)} & texts
    trec = data.load("trec", "train")
    assert len(data.load("trec", "test")) - len(data.without_leaks(trec, data.load("trec", "test"))) == 10


@real
def test_real_files_are_all_intact():
    absent = {"wikitext2": {"train.txt"}, "squad": {"train-v1.1.json", "dev-v1.1.json"}}
    absent["agnews"] = {"test.csv", "classes.txt", "train.csv"}
    for name in data.table():
        assert set(data.missing(name)) <= absent.get(name, set()), name


# ------------------------------------------------------------------------------------------------- load and the dataset


def test_unknown_names_and_splits_are_refused_with_the_choices():
    with pytest.raises(ValueError, match="no data set is called 'sst3'; choose one of agnews, chnsenticorp"):
        data.load("sst3")
    with pytest.raises(ValueError, match="trec has no split 'valid'; choose one of train, test, all"):
        data.load("trec", "valid")
    with pytest.raises(ValueError, match="numerals has no split 'dev'"):
        data.load("numerals", "dev")


@pytest.mark.parametrize("name", list(data.table()))
def test_every_downloaded_set_has_a_stand_in_of_its_kind(name, empty, capsys):
    kinds = {
        "language model": data.Document,
        "sentiment": data.LabelledText,
        "question type": data.LabelledText,
        "news": data.LabelledText,
        "named": data.TaggedSentence,
        "question answering": data.QuestionAnswer,
        "translation": data.SentencePair,
        "summarisation": data.Summary,
        "bias probe (masked": data.BiasPair,
        "bias probe (coref": data.Coreference,
    }
    kind = next(kind for words, kind in kinds.items() if words in data.table()[name]["task"])
    split = data.splits(name)[0]
    with pytest.raises(data.Unavailable, match="is not in the cache and there is no connection to"):
        data.load(name, split)
    dataset = data.load(name, split, stand_in=True)
    printed = capsys.readouterr()
    stand_in = data.table()[name]["stand_in"]
    assert printed.out.startswith(f"STAND-IN: {name} is replaced by {stand_in}")
    assert printed.out.count("\n") == 1
    assert printed.err == ""
    assert dataset.is_stand_in
    assert dataset.name == name
    assert isinstance(dataset[0], kind)
    labels = data.table()[name]["labels"]
    assert len(dataset.labels or ()) == len(labels or ())
    assert f"{name} (stand-in: {stand_in})" in data.loaded()
    assert list(empty.iterdir()) == []


def test_no_real_split_follows_a_stand_in(empty, server, monkeypatch, capsys):
    server.bodies = {"train.txt": b" \n = A = \n \n a \n", "valid.txt": b" \n = B = \n \n b \n"}
    files = [{**entry, "split": entry["file"][:-4]} for entry in entries(server.bodies, server.address)]
    monkeypatch.setattr(data, "table", lambda: {"wikitext2": {**TABLE["wikitext2"], "files": files}})
    train = server.bodies.pop("train.txt")
    assert data.load("wikitext2", "train", stand_in=True).is_stand_in
    assert data.load("wikitext2", "valid", stand_in=True).is_stand_in
    assert "because its split 'train' was" in capsys.readouterr().out
    assert data.load("wikitext2", "valid").text == server.bodies["valid.txt"].decode()  # asked for the real one only
    assert data.load("wikitext2", "valid", stand_in=True).is_stand_in
    server.bodies["train.txt"] = train
    assert not data.load("wikitext2", "train", stand_in=True).is_stand_in
    assert not data.load("wikitext2", "valid", stand_in=True).is_stand_in


def test_a_doubtful_licence_is_said_once(monkeypatch, tmp_path, capsys):
    files = {"custrev.all": b"1 good\n0 bad\n"}
    monkeypatch.setattr(data, "table", lambda: {"cr": {**TABLE["cr"], "files": entries(files, "http://127.0.0.1:9")}})
    monkeypatch.setenv("LMTL_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(data, "_loaded", {})
    (tmp_path / "cr").mkdir()
    (tmp_path / "cr" / "custrev.all").write_bytes(files["custrev.all"])
    assert len(data.load("cr", "all")) == 2
    data.load("cr", "train")
    assert capsys.readouterr().out == f"Licence of cr: {TABLE['cr']['licence_note']}.\n"


def test_a_dataset_is_a_sequence():
    rows = tuple(data.LabelledText(str(i), i % 2) for i in range(10))
    dataset = data.Dataset(rows, "digits", "test", labels=("even", "odd"), licence="mine")
    assert list(dataset) == list(rows)
    assert dataset[-1] == ("9", 1)
    assert dataset[2:4].rows == rows[2:4]
    assert dataset[2:4].labels == ("even", "odd")
    assert sorted(dataset.sample(10, seed=3)) == sorted(rows)
    assert dataset.sample(5, seed=3).rows != dataset.sample(5, seed=4).rows
    with pytest.raises(ValueError, match="11 rows asked of digits test, which has 10"):
        dataset.sample(11)
    with pytest.raises(ValueError, match="digits holds LabelledText rows, not documents"):
        _ = dataset.text
    corpus = data.Dataset((data.Document("a", "x"), data.Document("b", "y")), "two", "all")
    assert corpus.text == "x\n\ny"


# ----------------------------------------------------------------------------------------------------------- downloads

TABLE = data.table()
BODY = b"1 " + b"fine " * 4000 + b"\n"


def entries(files, address):
    return [
        {
            "file": file,
            "split": None,
            "url": f"{address}/{file}",
            "sha256": hashlib.sha256(body).hexdigest(),
            "bytes": len(body),
        }
        for file, body in files.items()
    ]


class Server(ThreadingHTTPServer):
    """Serves `bodies` by path; `mood` says how badly."""

    daemon_threads = True
    mood = "well"

    def __init__(self):
        self.bodies, self.asked, self.released = {}, [], threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that hangs up is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server: Server = self.server  # type: ignore[assignment]
        server.asked.append(self.path)
        body = server.bodies.get(self.path[1:])
        if server.mood == "hang":
            server.released.wait(20)
            return
        if body is None or server.mood == "gone":
            self.send_error(404)
            return
        if server.mood == "wrong":
            body = body[:-2] + b"X\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.mood == "slow":
            time.sleep(0.5)
        half = len(body) // 2
        self.wfile.write(body[:half])
        if server.mood == "stall":
            server.released.wait(20)
        if server.mood not in ("short", "stall"):
            self.wfile.write(body[half:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def tiny(server, empty, monkeypatch):
    """`cr`, served by the local server as one small file, and an empty cache."""
    server.bodies = {"custrev.all": BODY}
    monkeypatch.setattr(data, "table", lambda: {"cr": {**TABLE["cr"], "files": entries(server.bodies, server.address)}})
    return empty / "cr"


def files_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def refused(**arguments):
    """The sentence with which fetching fails, checked for its form."""
    with pytest.raises(data.Unavailable) as caught:
        data.fetch("cr", **arguments)
    sentence = str(caught.value)
    assert sentence.startswith("cr/custrev.all is ")
    assert sentence.endswith("or set LMTL_DATA_DIR to a folder that holds cr/custrev.all")
    assert "\n" not in sentence
    return sentence


def test_a_file_arrives_once_and_whole(tiny, server):
    assert data.fetch("cr") == [tiny / "custrev.all"]
    assert (tiny / "custrev.all").read_bytes() == BODY
    assert data.fetch("cr") == [tiny / "custrev.all"]
    assert server.asked == ["/custrev.all"]
    assert files_under(tiny) == ["custrev.all"]
    assert data.load("cr", "all")[0].text.startswith("fine fine")


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ("wrong", "what arrived has sha256 [0-9a-f]{12}…, not " + hashlib.sha256(BODY).hexdigest()[:12]),
        ("short", "only 8,192 of 20,003 bytes arrived: try again"),
        ("stall", "only 8,192 of 20,003 bytes arrived: try again"),
        ("gone", "http://127.0.0.1:[0-9]+/custrev.all answered 404 Not Found: update lmtl-course"),
        ("hang", "127.0.0.1:[0-9]+ sent nothing for 0.3 s: try again"),
    ],
)
def test_a_misbehaving_server_leaves_a_sentence_and_no_file(tiny, server, mood, said):
    server.mood = mood
    start = time.monotonic()
    assert re.search(said, refused(timeout=0.3))
    assert time.monotonic() - start < 8
    assert len(server.asked) == 2  # one retry
    assert files_under(tiny) == []
    server.released.set()
    server.mood = "well"
    data.fetch("cr")
    assert (tiny / "custrev.all").read_bytes() == BODY


def test_a_damaged_file_is_named_and_replaced(tiny, server):
    tiny.mkdir()
    (tiny / "custrev.all").write_bytes(b"cut")
    server.mood = "gone"
    assert "cr/custrev.all is damaged (3 bytes, expected 20,003) and http" in refused()
    (tiny / "custrev.all").write_bytes(BODY[:-2] + b"X\n")
    digest = hashlib.sha256(BODY).hexdigest()[:12]
    assert re.search(f"is damaged \\(sha256 [0-9a-f]{{12}}…, expected {digest}…\\)", refused())
    assert data.missing("cr", thorough=False) == {}
    assert set(data.missing("cr")) == {"custrev.all"}
    assert (tiny / "custrev.all").read_bytes() == BODY[:-2] + b"X\n"  # a failed repair changes nothing
    server.mood = "well"
    data.fetch("cr")
    assert data.missing("cr") == {}


def test_no_connection_fails_fast_and_is_remembered(tiny, server, monkeypatch):
    server.shutdown()
    server.server_close()
    start = time.monotonic()
    assert "is not in the cache and there is no connection to 127.0.0.1:" in refused()
    assert time.monotonic() - start < 3
    tries = []
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: tries.append(a))
    refused()
    assert tries == []  # not asked again within the pause
    data._unreachable.clear()
    fresh = Server()
    fresh.bodies = {"custrev.all": BODY}
    threading.Thread(target=fresh.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(data, "table", lambda: {"cr": {**TABLE["cr"], "files": entries(fresh.bodies, fresh.address)}})
    assert data.fetch("cr")
    fresh.shutdown()
    fresh.server_close()


def test_a_name_that_cannot_be_looked_up_does_not_hang(tiny, monkeypatch):
    files = entries({"custrev.all": BODY}, "http://no.such.host.invalid")
    monkeypatch.setattr(data, "table", lambda: {"cr": {**TABLE["cr"], "files": files}})
    release = threading.Event()

    def never_answers(*args, **kwargs):
        release.wait(30)
        raise OSError("too late")

    monkeypatch.setattr(socket, "create_connection", never_answers)
    monkeypatch.setattr(data, "_PATIENCE", 0.2)
    start = time.monotonic()
    assert "there is no connection to no.such.host.invalid" in refused()
    assert time.monotonic() - start < 3
    release.set()


def test_a_prefilled_folder_is_only_read(tiny, server, monkeypatch):
    tiny.mkdir()
    (tiny / "custrev.all").write_bytes(BODY)
    with read_only(tiny):
        data.fetch("cr")
        assert len(data.load("cr", "all")) == 1
    assert server.asked == []


@contextlib.contextmanager
def read_only(folder):
    """Without write permission, which root must first give up to feel it."""
    chain = [folder, *folder.parents]
    modes = {path: path.stat().st_mode for path in chain if path.stat().st_uid == os.geteuid() and path != path.parent}
    modes = {path: mode for path, mode in modes.items() if "pytest" in str(path)}
    for path in modes:
        path.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.mark.skipif(os.name != "posix", reason="permissions of another kind")
@pytest.mark.parametrize("made", [True, False])
def test_a_folder_that_cannot_be_written(tiny, server, made):
    if made:
        tiny.mkdir()
    with read_only(tiny if made else tiny.parent):
        sentence = refused()
    assert f"{tiny} cannot be written (" in sentence
    assert "make it writable" in sentence
    assert files_under(tiny.parent) == []
    data.fetch("cr")
    assert files_under(tiny) == ["custrev.all"]


CHILD = """
import json, sys
if len(sys.argv) > 2:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
from lmtl_course import data, embedded
table = json.loads(sys.argv[1])
data.table = lambda: table
try:
    print(data.fetch("cr")[0].stat().st_size)
except data.Unavailable as error:
    print(error)
"""


def child(server, folder, *arguments):
    table = json.dumps({"cr": {**TABLE["cr"], "files": entries(server.bodies, server.address)}})
    environment = {**os.environ, "LMTL_DATA_DIR": str(folder), "TQDM_DISABLE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", CHILD, table, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name != "posix", reason="no resource limits")
def test_a_disk_without_room(tiny, server):
    out, err = child(server, tiny.parent, "8192").communicate(timeout=120)
    assert re.search(r"cr has no room \([\d,]+ bytes free, 20,003 needed\): free some, or set", out), err
    assert err == ""
    assert files_under(tiny.parent) == []
    data.fetch("cr")
    assert files_under(tiny.parent) == ["cr/custrev.all"]


def test_a_full_file_system(tiny, server, tmp_path):
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        out, err = child(server, small).communicate(timeout=120)
        assert "bytes free, 20,003 needed): free some" in out, err
        assert files_under(small) == []
        subprocess.run(["mount", "-o", "remount,size=64k", str(small)], check=True)
        assert child(server, small).communicate(timeout=120)[0] == "20003\n"
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_two_processes_at_once(tiny, server):
    server.mood = "slow"
    children = [child(server, tiny.parent) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in children]
    assert [out for out, _ in results] == ["20003\n"] * 2, results
    assert files_under(tiny.parent) == ["cr/custrev.all"]
    assert (tiny / "custrev.all").read_bytes() == BODY


def test_many_files_only_those_of_the_split_and_stop_at_the_first_failure(server, empty, monkeypatch):
    server.bodies = {f"{i}.txt": b"book %d" % i for i in range(30)}
    files = entries(server.bodies, server.address)
    for i, entry in enumerate(files):
        entry["split"], entry["title"] = ("train", "valid", "test")[min(i // 10, 2)], f"Book {i}"
    monkeypatch.setattr(data, "table", lambda: {"classics": {**TABLE["classics"], "files": files}})
    assert [row.text for row in data.load("classics", "valid")] == [f"book {i}" for i in range(10, 20)]
    assert sorted(server.asked) == sorted(f"/{i}.txt" for i in range(10, 20))
    server.mood = "gone"
    server.asked.clear()
    with pytest.raises(data.Unavailable, match="answered 404"):
        data.load("classics", "all")
    assert len(server.asked) < 20  # four at a time, tried twice, then no more of the thirty
    server.mood = "well"
    assert len(data.load("classics", "all")) == 30


def test_a_big_file_is_hashed_once(tiny, monkeypatch):
    data.fetch("cr")
    data.fetch("cr")
    reads = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: reads.append(self) or original(self))
    data.fetch("cr")
    assert reads == []
    os.utime(tiny / "custrev.all", (1, 1))  # a changed file is read again
    data.fetch("cr")
    assert len(reads) == 1


def test_the_table_is_pinned_and_whole():
    for name, facts in data.table().items():
        assert set(facts) >= {"folder", "task", "licence", "licence_status", "citation", "stats", "stand_in", "files"}
        assert (facts["licence_status"] == "doubt") == bool(facts["licence_note"])
        assert facts["stand_in"] in embedded.EMBEDDED
        assert name in data._PARSERS
        for entry in facts["files"]:
            assert re.fullmatch(r"[0-9a-f]{64}", entry["sha256"])
            assert re.match(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/", entry["url"])
            assert entry["bytes"] is None or entry["bytes"] > 0


def test_the_default_cache_is_the_users(monkeypatch):
    monkeypatch.delenv("LMTL_DATA_DIR", raising=False)
    assert data.cache_dir() == Path(pooch.os_cache("lmtl_course"))
    monkeypatch.setenv("LMTL_DATA_DIR", "~/texts")
    assert data.cache_dir() == Path.home() / "texts"


def test_a_proxy_is_left_to_do_the_connecting(monkeypatch):
    monkeypatch.setattr(requests.utils, "get_environ_proxies", lambda url: {"https": "http://proxy"})
    data._connect("https://no.such.host.invalid/x")  # raises nothing: the proxy looks the name up
