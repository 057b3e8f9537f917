"""Embedded data is the same for everybody, deals without leaks, and knows its own truth."""

import ast
import math
import random
import re
import sysconfig
from pathlib import Path

import pytest
import torch

from lmtl_course import data, embedded

# -------------------------------------------------------------------------------------------------- what is embedded


@pytest.mark.parametrize("name", list(embedded.EMBEDDED))
def test_embedded_sets_have_rows_of_one_kind_and_splits_that_do_not_meet(name):
    parts = {split: data.load(name, split) for split in ("train", "valid", "test", "all")}
    assert all(len(part) for part in parts.values())
    assert len({type(row) for row in parts["all"]}) == 1
    assert parts["train"].rows == data.load(name, "train").rows
    if not name.startswith("pronoun"):  # a probe has no part to train on
        keys = [
            {row[:2] if name.endswith("questions") else row[0] for row in parts[s]} for s in ("train", "valid", "test")
        ]
        assert not keys[0] & keys[1] | keys[0] & keys[2] | keys[1] & keys[2]
    for row in parts["all"]:
        if isinstance(row, embedded.LabelledText):
            assert 0 <= row.label < len(parts["all"].labels)
        if isinstance(row, embedded.TaggedSentence):
            assert len(row.tokens) == len(row.tags)
            assert not re.search(r"\bO I-", " ".join(("O", *row.tags)))
        if isinstance(row, embedded.QuestionAnswer):
            assert all(row.context[s : s + len(a)] == a and a for a, s in zip(row.answers, row.starts, strict=True))
        if isinstance(row, embedded.Summary):
            assert len(row.sentences) > 1
            assert row.targets


def test_labels_are_all_used_and_no_class_is_the_answer():
    for name in ("pydocs_topics", "pydocs_topics4", "pydocs_kinds", "pydocs_kinds_network", "numerals_size"):
        for split in ("train", "valid", "test"):
            rows = data.load(name, split)
            counts = [sum(row.label == i for row in rows) for i in range(len(rows.labels))]
            assert min(counts) > 10
            assert max(counts) < 0.75 * len(rows)


def test_two_text_domains_differ_and_the_two_sentiment_stand_ins_share_no_text():
    reference, library = (data.load(f"pydocs_{part}", "all").text for part in ("reference", "library"))
    assert len(reference) > 200_000
    assert len(library) > 500_000
    one, other = ({row.text for row in data.load(name, "all")} for name in ("pydocs_kinds", "pydocs_kinds_network"))
    assert not one & other


def test_tags_name_code_that_the_sentence_no_longer_marks():
    rows = data.load("pydocs_tags", "all")
    found = {(token, tag) for row in rows for token, tag in zip(row.tokens, row.tags, strict=True)}
    assert {("ValueError", "B-exception"), ("None", "B-literal"), ("import", "B-keyword")} <= found
    assert {tag for _, tag in found} >= {"O", "B-name", "I-name", "B-expression", "I-expression"}
    assert sum('"' in row.tokens for row in rows) < 0.01 * len(rows)


def test_docstrings_are_those_that_the_syntax_tree_knows():
    root, ours = Path(sysconfig.get_paths()["stdlib"]), {}
    for page in embedded._docstrings():
        ours.setdefault(page.module, set()).add(page)
    for module, file in {"json.decoder": "json/decoder.py", "textwrap": "textwrap.py", "heapq": "heapq.py"}.items():
        theirs = set()
        for node in ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                kind = {ast.Module: "module", ast.ClassDef: "class"}.get(type(node), "function")
                if (text := ast.get_docstring(node)) is not None:
                    theirs.add((module, kind, getattr(node, "name", module), text))
        assert ours[module] <= theirs
        assert len(ours[module]) >= 0.75 * len(theirs)  # the rest stand in single quotes


def test_docstrings_of_awkward_sources():
    source = '#!python\n\n"""Top."""\nX = """not\na docstring"""\nclass A:  \n    r"""Raw \\d."""\n'
    source += "    def f(\n        self\n    ):\n"
    source += "        '''Tab\\tbed.'''\n        y = 1\n        '''stray'''\n    async def g(self): pass\n"
    pages = [page[1:] for page in embedded._pages_of("m", source)]
    assert pages == [("module", "m", "Top."), ("class", "A", "Raw \\d."), ("function", "f", "Tab     bed.")]


def test_a_python_without_sources_still_has_its_reference(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    embedded._docstrings.cache_clear()
    try:
        assert not embedded._docstrings()
        assert len(data.load("pydocs", "all").text) > 200_000
        assert data.load("pydocs_library", "all").text == data.load("pydocs_reference", "all").text
    finally:
        embedded._docstrings.cache_clear()


# --------------------------------------------------------------------------------------------------------- known truth


def chinese_value(text):
    """Read a numeral back, digit by digit, with rules of its own."""
    total = section = digit = 0
    for character in text:
        if character in "零一二三四五六七八九":
            digit = "零一二三四五六七八九".index(character)
        elif character in "十百千":
            section += (digit or (character == "十")) * 10 ** ("十百千".index(character) + 1)
            digit = 0
        else:
            total, section, digit = total + (section + digit) * {"万": 10**4, "亿": 10**8}[character], 0, 0
    return total + section + digit


def english_value(text):
    small = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    small, tens = f"{small} seventeen eighteen nineteen", "twenty thirty forty fifty sixty seventy eighty ninety"
    total = group = 0
    for word in re.split("[ -]", text):
        if word in small.split():
            group += small.split().index(word)
        elif word in tens.split():
            group += 10 * tens.split().index(word) + 20
        elif word == "hundred":
            group *= 100
        else:
            total, group = total + group * {"thousand": 10**3, "million": 10**6, "billion": 10**9}[word], 0
    return total + group


def test_numerals_read_back_as_the_number_they_name():
    rng = random.Random(3)
    numbers = [*range(2000), *(10**k + d for k in range(3, 12) for d in (-1, 0, 1, 10, 101))]
    numbers += [rng.randrange(10 ** rng.randint(1, 12)) for _ in range(5000)]
    for n in numbers:
        chinese = embedded.chinese_numeral(n)
        assert chinese_value(chinese) == n, (n, chinese)
        assert english_value(embedded.english_numeral(n)) == n
        assert "零零" not in chinese
        assert n == 0 or not chinese.endswith("零")
        assert not re.search("零[十百千万亿]", chinese)


def test_numerals_follow_the_zero_rules():
    expected = {
        0: "零",
        10: "十",
        11: "十一",
        110: "一百一十",
        101: "一百零一",
        1001: "一千零一",
        1010: "一千零一十",
        10_001: "一万零一",
        10_100: "一万零一百",
        100_000: "十万",
        120_000: "十二万",
        1_000_500: "一百万零五百",
        10_001_000: "一千万一千",
        20_010_203: "二千零一万零二百零三",
        100_000_000: "一亿",
        100_000_001: "一亿零一",
        100_005_000: "一亿零五千",
        1_000_000_000: "十亿",
        120_345_006_789: "一千二百零三亿四千五百万六千七百八十九",
    }
    assert {n: embedded.chinese_numeral(n) for n in expected} == expected
    assert embedded.english_numeral(1_002_013) == "one million two thousand thirteen"
    for convert in (embedded.chinese_numeral, embedded.english_numeral):
        with pytest.raises(ValueError, match=r"-1 has no name here"):
            convert(-1)
        with pytest.raises(ValueError, match="1000000000000 has no name"):
            convert(10**12)


def test_markov_truth_by_hand():
    language = embedded.MarkovLanguage(transition=torch.tensor([[0.9, 0.1], [0.3, 0.7]]))

    def entropy(p):
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    assert language.entropy_rate == pytest.approx(0.75 * entropy(0.9) + 0.25 * entropy(0.7), abs=1e-6)
    exact = embedded.MarkovLanguage(transition=torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64))
    assert exact.entropy_rate == pytest.approx(0.75 * entropy(0.9) + 0.25 * entropy(0.7), abs=1e-12)
    uniform = embedded.MarkovLanguage(transition=torch.full((7, 7), 1 / 7))
    assert uniform.entropy_rate == pytest.approx(math.log(7), abs=1e-12)


def test_markov_stationary_distribution_stays():
    language = embedded.MarkovLanguage(symbols=13, seed=4, concentration=0.2)
    pi = language.stationary
    torch.testing.assert_close(pi @ language.transition, pi, rtol=0, atol=1e-12)
    assert float(pi.sum()) == pytest.approx(1, abs=1e-12)
    assert 0 < language.entropy_rate < math.log(13)


def test_markov_samples_follow_the_matrix():
    language = embedded.MarkovLanguage(symbols=5, seed=1)
    path = language.sample(200_000, seed=2)
    assert path.dtype == torch.int64
    counts = torch.zeros(5, 5, dtype=torch.float64)
    counts.index_put_((path[:-1], path[1:]), torch.ones(len(path) - 1, dtype=torch.float64), accumulate=True)
    frequencies = counts / counts.sum(1, keepdim=True)
    torch.testing.assert_close(frequencies, language.transition, rtol=0, atol=0.02)
    surprise = -language.transition[path[:-1], path[1:]].log().mean()
    assert float(surprise) == pytest.approx(language.entropy_rate, abs=0.01)
    assert not torch.equal(path, language.sample(200_000, seed=3))
    assert language.sample(0).shape == (0,)


def test_markov_refuses_what_is_no_language():
    with pytest.raises(ValueError, match="symbols=1 must be at least 2"):
        embedded.MarkovLanguage(symbols=1)
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        embedded.MarkovLanguage(transition=torch.ones(2, 3))
    with pytest.raises(ValueError, match="rows of transition sum to"):
        embedded.MarkovLanguage(transition=torch.ones(2, 2))
    with pytest.raises(ValueError, match="each must be a distribution"):
        embedded.MarkovLanguage(transition=torch.tensor([[1.5, -0.5], [0.5, 0.5]]))
