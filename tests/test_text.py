"""Round trips of any text, NLTK as oracle, values worked out by hand, and what is refused."""

import html
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from nltk.tokenize import RegexpTokenizer, WordPunctTokenizer
from nltk.tokenize.util import align_tokens

from lmtl_course import text
from lmtl_course.text import HAN, Mark, Vocabulary

# Any Unicode, but mostly what breaks tokenizers: apostrophes, Chinese, combining marks, markup, odd spaces.
ODD = "ab'’_.!?<>&;\u0301é中国。\n\r\t \x0b\x85\u00a0\u200b\ufeff\x07１ﬁ 😀\u200d"
TEXTS = st.text(st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=("Cs",))), max_size=60)


# ------------------------------------------------------------------------------------------------------------ cleaning


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@given(dirty=TEXTS)
def test_cleaning_again_changes_nothing(form, dirty):
    once = text.clean(dirty, form)
    assert text.clean(once, form) == once
    assert unicodedata.is_normalized(form, once)
    assert not re.search(r"[^\S \n]|  | \n|\n |\n{3}|\A\s|\s\Z", once)
    unwrapped = text.clean(dirty, form, unwrap=True)
    assert text.clean(unwrapped, form, unwrap=True) == unwrapped
    assert unwrapped.split() == once.split()


@given(dirty=TEXTS)
def test_cleaning_keeps_every_visible_character(dirty):
    visible = [
        c for c in dirty if not c.isspace() and unicodedata.category(c) != "Cc" and c not in "\xad\u200b\u2060\ufeff"
    ]
    kept = [c for c in unicodedata.normalize("NFD", text.clean(dirty)) if not c.isspace()]
    assert sorted(kept) == sorted(c for c in unicodedata.normalize("NFD", "".join(visible)) if not c.isspace())


@pytest.mark.parametrize(
    ("dirty", "wanted"),
    [
        ("\ufeffone\r\ntwo\rthree\u2028four\x85five\x0bsix", "one\ntwo\nthree\nfour\nfive\nsix"),
        ("a \u00a0\t\u3000b \n \n\n \n c\x00\x7f", "a b\n\nc"),
        ("so\xadft zero\u200bwidth", "soft zerowidth"),
        ("👩\u200d🚀 می\u200cخواهم", "👩\u200d🚀 می\u200cخواهم"),  # joiners spell: they stay
        ("cafe\u0301 \uf979 ﬁ Ａ", "café 凉 ﬁ Ａ"),
    ],
)
def test_cleaning_by_hand(dirty, wanted):
    assert text.clean(dirty) == wanted


def test_compatibility_forms_and_unwrapping_by_hand():
    assert text.clean("ﬁne Ａ½ 2⁵", "NFKC") == "fine A1⁄2 25"
    assert text.clean("one\ntwo\n\nthree\n", unwrap=True) == "one two\n\nthree"


@pytest.mark.parametrize(
    ("markup", "wanted"),
    [
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ("un<b>believ</b>able<br/>x<td>y", "unbelievable\nx\ny"),
        ("&lt;b&gt; &amp;amp; &eacute;&#33;", "<b> &amp; é!"),
        ('<a title="x>y" href=z>link</a><!-- <p>no</p> -->.', "link."),
        ("<title>t</title><style>p{}</style><script>if (a<b) '</p>'</script>5 < 6", "5 < 6"),
        ("</script>kept", "kept"),
    ],
)
def test_markup_by_hand(markup, wanted):
    assert text.strip_markup(markup) == wanted


@given(TEXTS)
def test_escaped_text_survives_markup(plain):
    assume("\r" not in plain and "\x00" not in plain)  # HTML itself replaces these
    assert text.strip_markup(f"<p>{html.escape(plain)}</p>") == text.clean(plain)


# -------------------------------------------------------------------------------------------------- words and sentences


@given(TEXTS)
@example("_don't_ l’amour'' 中国a國")
def test_spans_rebuild_the_text(s):
    spans = text.token_spans(s)
    assert [s[a:b] for a, b in spans] == text.tokenize(s)
    edges = [0, *(edge for span in spans for edge in span), len(s)]
    assert edges == sorted(edges)
    assert all(a < b for a, b in spans)
    assert not "".join(s[edges[i] : edges[i + 1]] for i in range(0, len(edges), 2)).strip()
    assert align_tokens(text.tokenize(s), s) == spans


AGREED = ("L", "Nd", "Pd", "Ps", "Pe", "Po", "Sc", "Sm", "Zs", "Zl", "Zp")
"""NLTK runs the `regex` engine, to which marks and some symbols are letters and which knows newer Unicode versions."""


@given(st.text(st.one_of(st.sampled_from("ab1é.!?<> \n\t"), st.characters(categories=AGREED)), max_size=60))
def test_equals_nltk_where_the_rules_meet(s):
    """Without apostrophes, underscores and Chinese, and with punctuation one by one, WordPunct has the same rule."""
    plain = re.sub(rf"['’_{HAN}]", " ", s)
    assert text.tokenize(plain) == RegexpTokenizer(r"\w+|[^\w\s]").tokenize(plain)
    joined = [t for t in WordPunctTokenizer().tokenize(plain) if t[0].isalnum()]
    assert [t for t in text.tokenize(plain) if t[0].isalnum()] == joined


@pytest.mark.parametrize(
    ("s", "tokens"),
    [
        ("Don't 'quote' rock'n'roll", ["Don't", "'", "quote", "'", "rock'n'roll"]),
        ("the _very_ snake_case", ["the", "_", "very", "_", "snake", "_", "case"]),
        ("我爱NLP2吗？", ["我", "爱", "NLP2", "吗", "？"]),
        ("他's", ["他", "'", "s"]),
        ("𠀀々〇", ["𠀀", "々", "〇"]),
        ("...\u00a0—", [".", ".", ".", "—"]),
        ("", []),
    ],
)
def test_tokens_by_hand(s, tokens):
    assert text.tokenize(s) == tokens


@given(TEXTS)
def test_sentences_lose_nothing_but_space(s):
    assert "".join("".join(text.sentences(s)).split()) == "".join(s.split())
    assert all(piece and piece == piece.strip() for piece in text.sentences(s))


@pytest.mark.parametrize(
    "whole",
    [
        ["I saw it.", "It was Dr. Smith, i.e. J. R. Smith.", "He left at 3.50 exactly!"],
        ["“Go!” she cried.", "“Why?”", "(No reason.)", "He went… slowly."],
        ["It was I.", "Then he came."],
        ["他来了。", "“真的吗？”", "她走了！！", "好"],
        ["A TITLE", "First words?!", "Second."],
    ],
)
def test_sentences_by_hand(whole):
    glue = "\n\n" if whole[0] == "A TITLE" else "" if whole[0][0] == "他" else " "
    assert text.sentences(glue.join(whole)) == whole


# --------------------------------------------------------------------------------------------------------------- labels

LABELS = st.sampled_from(["PER", "LOC", "B-x", "O"])


@given(TEXTS, st.data())
def test_marks_survive_the_three_notations(s, data):
    spans = text.token_spans(s)
    marks, at = [], 0
    while at < len(spans):  # marks of up to three tokens, with and without gaps
        length = data.draw(st.integers(0, min(3, len(spans) - at)))
        if length:
            marks.append(Mark(spans[at][0], spans[at + length - 1][1], data.draw(LABELS)))
        at += max(1, length)
    assert text.read_marks(text.write_marks(s, reversed(marks))) == (s, marks)
    tags = text.to_bio(spans, marks)
    assert text.from_bio(spans, tags) == marks
    assert [tag[0] for tag in tags].count("B") == len(marks)


@given(st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), max_size=12))
def test_tags_survive_marks_once_every_mark_begins_with_b(tags):
    spans = [(2 * i, 2 * i + 1) for i in range(len(tags))]
    legal = [
        "B" + tag[1:] if tag[0] == "I" and (i == 0 or tags[i - 1][2:] != tag[2:]) else tag for i, tag in enumerate(tags)
    ]
    assert text.to_bio(spans, text.from_bio(spans, tags)) == legal


def test_text_cannot_write_a_mark():
    hostile = "<PER>me</PER> &lt; R&D"
    assert text.read_marks(text.write_marks(hostile, [])) == (hostile, [])


@pytest.mark.parametrize(
    ("marked", "message"),
    [
        ("<PER>a", "<PER> is never closed"),
        ("a</PER>", "</PER> at 1 stands where <…> is open"),
        ("<PER>a<LOC>b</LOC></PER>", "<LOC> at 6 stands where <PER> is open"),
        ("<PER>a</LOC>", "</LOC> at 6 stands where <PER> is open"),
    ],
)
def test_broken_marks_are_refused(marked, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        text.read_marks(marked)


@pytest.mark.parametrize(
    "marks", [[Mark(0, 0, "X")], [Mark(2, 4, "X")], [Mark(0, 2, "X"), Mark(1, 3, "X")], [Mark(0, 1, "a b")]]
)
def test_impossible_marks_are_refused(marks):
    with pytest.raises(ValueError, match="is empty, misnamed, overlaps"):
        text.write_marks("abc", marks)


def test_impossible_tags_are_refused():
    spans = text.token_spans("Ada met Bob")
    for marks in ([Mark(0, 2, "X")], [Mark(1, 3, "X")], [Mark(0, 3, "X"), Mark(0, 7, "Y")], [Mark(4, 3, "X")]):
        with pytest.raises(ValueError, match="cuts through a token or shares one; move its ends to the 3 tokens'"):
            text.to_bio(spans, marks)
    with pytest.raises(ValueError, match="3 tokens but 2 tags"):
        text.from_bio(spans, ["O", "O"])
    for tag in ("PER", "B-", "E-PER", "", "o"):
        with pytest.raises(ValueError, match=f"tag '{tag}' is none of"):
            text.from_bio(spans, ["O", tag, "O"])


# -------------------------------------------------------------------------------------------------------------- Chinese


@given(TEXTS, st.sets(st.text("ab中国 é'", min_size=1, max_size=4), max_size=6))
def test_matching_loses_nothing_and_cuts_no_token(s, words):
    tokens = text.max_match(s, words)
    assert "".join("".join(tokens).split()) == "".join(s.split())
    singles = text.tokenize(s)
    assert all(token in words or token in singles for token in tokens)
    assert text.max_match(s, set()) == singles


def test_matching_takes_the_longest_word_first():
    words = {"研究", "研究生", "生命", "中国"}
    assert text.max_match("研究生命 in中国", words) == ["研究生", "命", "in", "中国"]
    assert text.max_match("abc d", {"ab", "c d"}) == ["abc", "d"]
    assert text.max_match("a bc 中国", {"a b", "bc 中国"}) == ["a", "bc 中国"]


def test_found_words_by_hand():
    """12 characters: 甲乙 has pmi log(2/12 / (2/12 · 2/12)) = log 6, 丁丙 has log(2/12 / (3/12 · 3/12)) = log 8/3."""
    runs = ["甲乙丙", "丁甲乙", "戊丁丙", "丁丙戊"]
    for cohesion, words in ((6.01, set()), (5.99, {"甲乙"}), (2.67, {"甲乙"}), (2.66, {"甲乙", "丁丙"})):
        assert text.find_words(runs, 2, 2, cohesion=np.log(cohesion)) == words
    assert text.find_words(["，".join(runs)], 2, 2, cohesion=np.log(5.99)) == {"甲乙"}  # a comma ends a string


def test_a_fragment_is_no_word():
    """乙丙 stands inside 甲乙丙 in 4 of its 5 occurrences: not free enough at 0.3, free enough at 0.2."""
    texts = ["甲乙丙", "甲乙丙丁", "戊甲乙丙", "己甲乙丙庚", "辛乙丙壬", "丁戊己庚辛壬癸子丑寅"]
    assert text.find_words(texts, 3, 3, cohesion=0.5) == {"甲乙丙"}
    assert text.find_words(texts, 3, 3, cohesion=0.5, freedom=0.2) == {"甲乙丙", "乙丙"}
    assert text.find_words(texts, 2, 5, cohesion=0.5) == set()  # also when the extension is rarer than min_count
    assert text.find_words(texts, max_length=1) == set()  # a single character is not searched for


# ------------------------------------------------------------------------------------------------------------- counting


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.7, 1.0, 2.3])
@pytest.mark.parametrize(("first", "last"), [(1, None), (3, 17)])
def test_exact_power_laws_give_their_exponent(alpha, first, last):
    counts = np.arange(1, 32) ** -alpha
    assert text.zipf_exponent(counts, first, last) == pytest.approx(alpha, abs=1e-7)


def test_zipf_maximises_the_likelihood_of_two_ranks_by_hand():
    """Ranks 1 and 2 with counts 3 and 1: p(1)/p(2) = 2^α = 3."""
    assert text.zipf_exponent([3, 1]) == pytest.approx(np.log2(3), abs=1e-8)
    assert text.zipf_exponent([50, 3, 1], first=2) == pytest.approx(np.log(3) / np.log(3 / 2), abs=1e-7)


def test_zipf_recovers_a_known_exponent_where_a_straight_line_does_not():
    p = np.arange(1, 20_001) ** -1.2
    counts = np.sort(np.random.default_rng(0).multinomial(100_000, p / p.sum()))[::-1]
    seen = counts[counts > 0]
    line = -np.polyfit(np.log(np.arange(1, len(seen) + 1)), np.log(seen), 1)[0]
    assert abs(text.zipf_exponent(counts, last=500) - 1.2) < 0.02
    assert abs(line - 1.2) > 0.1


@pytest.mark.parametrize(("counts", "first"), [([5], 1), ([], 1), ([0, 0, 0], 1), ([5, 3, 2], 3), ([5, 3, 2], 0)])
def test_too_few_ranks_are_refused(counts, first):
    with pytest.raises(ValueError, match=f"ranks {first} … {len(counts)} hold"):
        text.zipf_exponent(counts, first)


@given(st.lists(st.integers(0, 9), max_size=40))
def test_growth_equals_sets(ids):
    sizes = range(len(ids) + 3)
    assert text.vocabulary_growth(np.array(ids, dtype=int), sizes).tolist() == [len(set(ids[:n])) for n in sizes]


# ----------------------------------------------------------------------------------------------------------- vocabulary


@given(st.lists(TEXTS, max_size=15), st.integers(1, 3), st.integers(3, 8))
def test_known_tokens_survive_and_others_become_unknown(tokens, min_count, max_size):
    vocabulary = Vocabulary.build(tokens, min_count, max_size, specials=("<end>",))
    assert 2 <= len(vocabulary) <= max_size
    ids = vocabulary.encode(tokens)
    assert vocabulary.decode(ids) == [token if token in vocabulary else "<unk>" for token in tokens]
    assert [i == vocabulary.unknown for i in ids] == [token not in vocabulary for token in tokens]
    assert all(tokens.count(token) >= min_count for token in vocabulary.tokens[2:])
    assert vocabulary == Vocabulary.build(reversed(tokens), min_count, max_size, specials=("<end>",))


@given(st.sets(st.text(max_size=5)))
def test_a_saved_vocabulary_comes_back(tmp_path_factory, tokens):
    path = tmp_path_factory.mktemp("vocabulary") / "v.json"
    vocabulary = Vocabulary.build(tokens, specials=("<end>", "<pad>"))
    vocabulary.save(path)
    again = Vocabulary.load(path)
    assert again == vocabulary
    assert (again.id("<unk>"), again.id("<end>"), again.id("<pad>")) == (0, 1, 2)


def test_order_and_limits_by_hand():
    tokens = ["b", "b", "b", "a", "a", "c", "c", "d"]
    assert Vocabulary.build(tokens).tokens == ("<unk>", "b", "a", "c", "d")
    assert Vocabulary.build(tokens, min_count=2).tokens == ("<unk>", "b", "a", "c")
    assert Vocabulary.build(tokens, max_size=3).tokens == ("<unk>", "b", "a")
    assert Vocabulary.build("abba c").encode("cab d") == [4, 1, 2, 3, 0]
    assert Vocabulary.build([]).tokens == ("<unk>",)


def test_text_cannot_spell_a_special_entry():
    vocabulary = Vocabulary.build(["a", "<end>", "<unk>", "<end>"], specials=("<end>",))
    assert vocabulary.encode(["<end>", "<unk>", "a"]) == [0, 0, 2]
    assert "<end>" not in vocabulary
    assert vocabulary.decode([vocabulary.id("<end>")]) == ["<end>"]


def test_unknown_rate_by_hand():
    vocabulary = Vocabulary.build(["the", "cat"])
    assert vocabulary.unknown_rate(["the", "dog", "the", "cow"]) == 0.5
    assert vocabulary.unknown_rate({"the", "dog", "cow"}) == 2 / 3
    with pytest.raises(ValueError, match="0 tokens"):
        vocabulary.unknown_rate([])


def test_mistakes_are_refused(tmp_path):
    words, characters = Vocabulary.build(["cat", "dog"]), Vocabulary.build("cat")
    with pytest.raises(ValueError, match="'the cat' is one string, the 3 entries are words; tokenize it first"):
        words.encode("the cat")
    assert characters.encode("tac") == [3, 1, 2]
    for outside in (3, -1):
        with pytest.raises(ValueError, match=f"id {outside} is outside a vocabulary of 3 entries"):
            words.decode([0, outside])
    with pytest.raises(ValueError, match="min_count=0 must be at least 1"):
        Vocabulary.build("ab", min_count=0)
    with pytest.raises(ValueError, match="max_size=2 leaves no room beside 2 special entries"):
        Vocabulary.build("ab", max_size=2, specials=("<end>",))
    with pytest.raises(ValueError, match="'a' stands twice among 3 entries"):
        Vocabulary(["a", "a"])
    with pytest.raises(ValueError, match="'<pad>' is not among the special entries"):
        words.id("<pad>")
    for content in (b"{}", b"[]", b"not json", b'\xff\xfe{"', b'{"tokens": 3, "specials": []}'):
        (tmp_path / "v.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"v\.json is not a vocabulary written by"):
            Vocabulary.load(tmp_path / "v.json")
