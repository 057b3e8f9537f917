"""The peer is `tokenizers`: same pieces, same merges, same ids, same file. The rest is what no peer can promise."""

import copy
import json
import pickle
import random
from collections import Counter
from functools import cache
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lmtl_course import data
from lmtl_course.bpe import BPE, BYTE_ORDER, _Cache, learn, split

SIZE = 701
ENGLISH = [row.text for row in data.load("pydocs_reference")]
WILD = [
    "naïve café 🙂 don't we'll — “quoted”",
    "机器学习 语言模型。",
    "x += 1\n\tif  x:\r\n\n   pass",
    "aaaaaaa aaaa   \n \n",
] * 3
TEXTS = [*ENGLISH, *WILD]
# Any characters at all, and strings of such as the split and the merges care about.
ANY = st.text() | st.lists(
    st.sampled_from(
        [" ", "  ", "\n", "'", "'s", "'ll", "a", "aa", "the", " the", "é", "0", "½", "。", "低", "<end>", "🙂"]
    )
).map("".join)


def peer_of(texts, size, specials=(), min_frequency=2):
    peer = Tokenizer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    peer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    peer.train_from_iterator(texts, trainer)
    peer.encode_special_tokens = True
    return peer


@cache
def ours():
    return BPE.train(TEXTS, SIZE, specials=("<end>", "<|pad|>"))


@cache
def theirs():
    return peer_of(TEXTS, SIZE, specials=("<end>", "<|pad|>"))


@cache
def fast():
    return ours().fast()


def cuts(peer, text):
    return [span for _, span in peer.pre_tokenize_str(text)]


def our_cuts(text):
    return list(pairwise(accumulate(map(len, split(text)), initial=0)))


def test_every_code_point_is_cut_as_tokenizers_cuts_it():
    peer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # planes 4 to 13 are empty and 15, 16 private: samples of them; the others code point by code point
    codes = [*range(0x40000), *range(0x40000, 0xE0000, 997), *range(0xE0000, 0xE0400), *range(0xF0000, 0x110000, 997)]
    characters = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
    for start in range(0, len(characters), 2000):
        text = "".join(f"a{c}1{c}.{c}" for c in characters[start : start + 2000])  # sticks to letter, number, sign?
        assert our_cuts(text) == cuts(peer, text), f"from U+{ord(characters[start]):04X} on"


@settings(deadline=None)
@given(ANY)
def test_any_text_is_cut_as_tokenizers_cuts_it(text):
    assert our_cuts(text) == cuts(pre_tokenizers.ByteLevel(add_prefix_space=False), text)
    assert "".join(split(text)) == text


def test_the_merge_loop_by_hand():
    # 11 letters of Gage's kind: (a, a) stands 4 times, its overlaps counted
    learned = learn({"aaabdaaabac": 1}, first=ord("x"), merges=3)
    assert learned[0] == (ord("a"), ord("a"))  # x a b d x a b a c
    assert learned[1] == (ord("a"), ord("b"))  # a tie with (x, a) at 2: smaller ids first; x y d x y a c
    assert learned[2] == (ord("x"), ord("y"))


def test_ties_go_to_the_smaller_ids():
    assert learn({"ba": 3, "ab": 3, "ac": 3}, first=200, merges=3) == [(97, 98), (97, 99), (98, 97)]


def recounted(words, first, merges, min_count):
    """The definition: count everything again after every merge."""
    words, learned = {tuple(map(ord, word)): count for word, count in words.items()}, []
    while len(learned) < merges:
        pairs = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < min_count:
            break
        glued = Counter()
        for word, count in words.items():
            out, i = [], 0
            while i < len(word):
                if word[i : i + 2] == best:
                    out.append(first + len(learned))
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            glued[tuple(out)] += count
        words, learned = glued, [*learned, best]
    return learned


@settings(deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=12), st.integers(1, 9), max_size=12), st.integers(1, 3))
def test_the_index_changes_nothing_but_the_time(words, min_count):
    assert learn(words, 1000, 20, min_count) == recounted(words, 1000, 20, min_count)


@pytest.mark.parametrize(("specials", "min_count"), [((), 1), (("<end>", "<|pad|>"), 2)])
def test_merges_and_ids_are_those_of_tokenizers(specials, min_count):
    texts = ENGLISH[:20] + WILD
    bpe = BPE.train(texts, SIZE, specials, min_count)
    peer = json.loads(peer_of(texts, SIZE, specials, min_count).to_str())
    mine = json.loads(bpe.to_json())
    assert len(bpe) == SIZE
    assert mine["model"]["merges"] == peer["model"]["merges"]
    assert mine["model"]["vocab"] == peer["model"]["vocab"]
    assert mine["added_tokens"] == peer["added_tokens"]


def test_training_stops_where_nothing_repeats():
    bpe = BPE.train(["abc abd"], 1000)
    assert [bpe.tokens[-1], len(bpe)] == [b"ab", 257]
    assert json.loads(bpe.to_json())["model"]["merges"] == [["a", "b"]]


@settings(deadline=None)
@given(ANY)
def test_any_text_gets_the_ids_of_tokenizers_and_comes_back(text):
    ids = ours().encode(text)
    assert ids == theirs().encode(text).ids == fast().encode(text).ids
    assert ours().decode(ids, errors="strict") == text


@pytest.mark.parametrize("letters", ["ab", "etaoin shrdlu", "低模型"])
def test_long_pieces_get_the_ids_of_the_library(letters):
    text = "".join(random.Random(1).choices(letters, k=5000))
    for cut in (text, text.replace(" ", "")):
        assert ours().encode(cut) == theirs().encode(cut).ids


@settings(deadline=None)
@given(st.lists(st.sampled_from(["<end>", "<|pad|>", "<|", "end", ">", " ", "<", "x"])).map("".join))
def test_no_text_spells_a_special_token(text):
    reserved = set(ours().specials.values())
    assert reserved == {0, 1}
    assert not reserved & set(ours().encode(text))
    assert not reserved & set(fast().encode(text).ids)


def test_special_ids_have_one_way_in():
    bpe = ours()
    assert (bpe.id("<end>"), bpe.id("<|pad|>")) == (0, 1)
    assert bpe.decode([*bpe.encode("so"), bpe.id("<end>")]) == "so<end>"
    with pytest.raises(ValueError, match=r"'<start>' is not among the specials \('<end>', '<\|pad\|>'\)"):
        bpe.id("<start>")


@pytest.mark.parametrize("name", ["", "END", "<<", " end", "'s", "\n\n"])
def test_a_special_that_text_could_teach_is_refused(name):
    with pytest.raises(ValueError, match="could also be learned from text"):
        BPE.train(["a"], 300, specials=(name,))


def test_a_special_spelled_like_the_bytes_of_a_token_is_refused():
    with pytest.raises(ValueError, match="'Ã©' would be two tokens of one spelling"):  # the bytes of é, made visible
        BPE.train(["ééé ééé"], 300, specials=("Ã©",))


def test_the_file_is_read_by_both(tmp_path):
    path = tmp_path / "tokenizer.json"
    ours().save(path)
    peer, again = Tokenizer.from_file(str(path)), BPE.load(path)
    assert (again.tokens, again.merges, again.specials) == (ours().tokens, ours().merges, ours().specials)
    text = "The naïve 低 didn't <b>return</b>\n"
    assert peer.encode(text).ids == again.encode(text) == ours().encode(text)
    assert peer.decode(again.encode(text)) == text
    assert peer.token_to_id("<end>") == 0


@pytest.mark.parametrize("joined", [False, True])
def test_files_of_others_are_read(tmp_path, joined):
    """GPT-2's layout: the special token last, and in older files each merge one string."""
    peer = peer_of(TEXTS, SIZE - 1)
    peer.add_special_tokens(["<|endoftext|>"])
    path = tmp_path / "tokenizer.json"
    file = json.loads(peer.to_str())
    if joined:
        file["model"]["merges"] = [" ".join(pair) for pair in file["model"]["merges"]]
    path.write_text(json.dumps(file), encoding="utf-8")
    bpe = BPE.load(path)
    assert (len(bpe), bpe.id("<|endoftext|>")) == (SIZE, SIZE - 1)
    for text in TEXTS[-20:]:
        assert bpe.encode(text) == peer.encode(text).ids
    with pytest.raises(ValueError, match="not in the order of their merges"):
        bpe.prefix(400)


CHANGES = {
    "normalizer": lambda file: file.update(normalizer={"type": "NFC"}),
    "add_prefix_space": lambda file: file["pre_tokenizer"].update(add_prefix_space=True),
    "pre_tokenizer": lambda file: file["pre_tokenizer"].update(use_regex=False),
    "dropout": lambda file: file["model"].update(dropout=0.1),
    "end_of_word_suffix": lambda file: file["model"].update(end_of_word_suffix="</w>"),
    "post_processor": lambda file: file.update(post_processor={"type": "TemplateProcessing"}),
    "added_tokens": lambda file: file["added_tokens"][0].update(special=False),
}


@pytest.mark.parametrize("setting", CHANGES)
def test_a_file_that_asks_for_more_is_refused(tmp_path, setting):
    file = json.loads(ours().to_json())
    CHANGES[setting](file)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(file), encoding="utf-8")
    with pytest.raises(ValueError, match=f"sets {setting}, not known here; use tokenizers.Tokenizer.from_file"):
        BPE.load(path)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "\xff", '{"model": {"merges": [], "vocab": {" ": 0}}, "added_tokens": [], "pre_tokenizer": '
     '{"type": "ByteLevel", "add_prefix_space": false}}'],
)  # fmt: skip
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"not a tokenizer\.json of a byte-level BPE"):
        BPE.load(path)


def test_a_smaller_vocabulary_is_a_prefix_of_a_larger_one():
    small = BPE.train(TEXTS, 400, specials=("<end>", "<|pad|>"))
    assert ours().prefix(400).tokens == small.tokens
    assert ours().prefix(400).encode("the return value") == small.encode("the return value")
    assert ours().prefix(258).encode("é") == [2 + BYTE_ORDER.index(byte) for byte in "é".encode()]
    for size in (257, SIZE + 1):
        with pytest.raises(ValueError, match=f"vocab_size={size} is not between 258 and {SIZE}"):
            ours().prefix(size)


def test_ids_cut_out_of_a_character():
    bpe = ours().prefix(258)
    ids = bpe.encode("🙂")
    assert len(ids) == 4
    assert bpe.decode(ids[:3]) == "\N{REPLACEMENT CHARACTER}"
    with pytest.raises(UnicodeDecodeError):
        bpe.decode(ids[:3], errors="strict")


def test_it_can_be_copied_and_sent_to_another_process():
    for bpe in (copy.deepcopy(ours()), pickle.loads(pickle.dumps(ours()))):
        assert bpe.encode("The return value") == ours().encode("The return value")


def test_the_cache_never_outgrows_its_size():
    cache = _Cache(lambda piece: (len(piece),), most=5)
    assert [cache["x" * n] for n in range(1, 20)] == [(n,) for n in range(1, 20)]
    assert len(cache) <= 5
    assert (cache["x" * 60], "x" * 60 in cache) == ((60,), False)


def test_bad_input_names_the_values_and_the_remedy():
    with pytest.raises(ValueError, match="vocab_size=257 leaves no room for 258"):
        BPE.train(["a"], 257, specials=("<a>", "<b>"))
    with pytest.raises(ValueError, match="name a token twice"):
        BPE.train(["a"], 300, specials=("<a>", "<a>"))
    with pytest.raises(ValueError, match=r"texts is one string \('one string'\), expected several"):
        BPE.train("one string", 300)
    with pytest.raises(ValueError, match=r"U\+D83D is half a surrogate pair"):
        ours().encode("a \ud83d b")
    for number in (-1, SIZE):
        with pytest.raises(ValueError, match=f"id {number} is outside an encoding of {SIZE} tokens"):
            ours().decode([5, number])
    with pytest.raises(ValueError, match="byte 255 has no token among 255"):
        BPE([bytes([n]) for n in range(255)], [])
    every = [bytes([n]) for n in range(256)]
    for merges in ([(97, 98)], [(97, 256)], [(256, 98), (97, 98)]):  # makes nothing known, uses the unknown, too early
        with pytest.raises(ValueError, match="merge 0 of ids"):
            BPE([*every, b"abb"] if len(merges) == 1 else [*every, b"ab", b"abb"], merges)
