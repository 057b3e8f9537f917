"""Random models and the shipped ones against transformers, both ways, in values and gradients; tokenizers id by id; a
Trainer that learns; and sentences instead of silence where something does not fit.
"""

import copy
import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

transformers = pytest.importorskip("transformers")
pytest.importorskip("datasets")
pytest.importorskip("accelerate")

from lmtl_course.checkpoint import from_huggingface, to_huggingface  # noqa: E402
from lmtl_course.huggingface import (  # noqa: E402
    classification_trainer,
    compute_metrics,
    from_transformers,
    library,
    to_datasets,
    to_transformers,
    tokenizer_of,
)
from lmtl_course.pretraining import MODELS, Base, MaskedLM, load_base  # noqa: E402
from lmtl_course.transformer import GPT, Encoder, TransformerConfig  # noqa: E402

B, T, V = 5, 7, 23  # primes, so that no two axes can be exchanged
NASTY = ["", " ", "plain words", "naïve 😀 café", "two  spaces\n\ttab", "中文", "[SEP]", "don't", "x" * 70]
SIZES = {"vocab": V, "context": 13, "d_model": 22, "heads": 2, "layers": 3, "d_hidden": 17, "dropout": 0.0}


@pytest.fixture(autouse=True)
def _quiet():
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    importlib.import_module("datasets").disable_progress_bars()


def make_tokenizer(kind: str) -> Tokenizer:
    """One token per word, so few that tiny models can have them."""
    specials = ["<pad>", "<cls>", "<sep>", "<mask>"] if kind == "encoder" else ["<end>"]
    words = [*specials, "<unk>", *["good", "bad", "fine", "dull", "a", "film", "very", "not"]]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(specials)
    if kind == "encoder":
        ends = [("<cls>", 1), ("<sep>", 2)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<cls> $A <sep>", pair="<cls> $A <sep> $B:1 <sep>:1", special_tokens=ends
        )
    return tokenizer


def make_base(kind: str, **changes) -> Base:
    """A random model in which every weight matters: biases and norms are no zeros and ones."""
    torch.manual_seed(0)
    if kind == "gpt":
        model = GPT(TransformerConfig.gpt2(**{**SIZES, **changes}))
    else:
        model = (MaskedLM if kind == "masked" else Encoder)(TransformerConfig.bert(**{**SIZES, **changes}))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.3)
    return Base(model.eval(), make_tokenizer("decoder" if kind == "gpt" else "encoder"), kind)


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    idx = torch.randint(1, V, (B, T), generator=generator)  # 0 is padding, whose row gets no gradient on their side
    segments = torch.randint(2, (B, T), generator=generator)
    mask = torch.arange(T) < torch.tensor([7, 1, 3, 6, 5])[:, None]
    return idx, mask, segments


def outputs(ours, theirs, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    idx, mask, segments = inputs()
    if kind == "gpt":
        return ours(idx), theirs(idx).logits
    hidden = ours(idx, mask, segments)
    found = theirs(idx, mask.long(), segments)
    if kind == "masked":
        return ours.head(hidden)[mask], found.logits[mask]
    return hidden[mask], found.last_hidden_state[mask]


def assert_same(ours, theirs, kind: str) -> None:
    """Values, and the gradient of every weight for a random gradient from above, in double precision."""
    ours, theirs = copy.deepcopy(ours).double(), copy.deepcopy(theirs).double()
    a, b = outputs(ours, theirs, kind)
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    upstream = torch.randn(a.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for model, out in ((ours, a), (theirs, b)):
        model.zero_grad()
        (out * upstream).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    translated = from_huggingface(gradients, "gpt2" if kind == "gpt" else "bert")
    mine = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    assert mine.keys() == translated.keys()
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, translated[name], rtol=1e-8, atol=1e-8, msg=name)
        if not name.endswith("key.bias"):  # shifts every score of a query alike, so its gradient is zero
            assert gradient.abs().max() > 1e-4, f"{name} has no gradient, so nothing was compared"


# ----------------------------------------------------------------------------------------------- values and gradients


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gpt", {"tied": True}),
        ("gpt", {"tied": False}),
        ("gpt", {"activation": "gelu"}),
        ("masked", {}),
        ("encoder", {}),
        ("encoder", {"norm_eps": 1e-3}),
    ],
)
def test_random_models_are_the_same_function_on_both_sides(kind, changes):
    base = make_base(kind, **changes)
    theirs = to_transformers(base)
    assert_same(base.model, theirs, kind)
    again = from_transformers(theirs, tokenizer_of(base))  # and home again, exactly
    state = again.model.state_dict()
    assert state.keys() == base.model.state_dict().keys()
    assert all(torch.equal(t, state[name]) for name, t in base.model.state_dict().items())
    assert again.config == replace(base.config, init_std=again.config.init_std)
    assert_same(again.model, theirs, kind)


def test_copies_share_no_memory():
    base = make_base("masked")
    theirs = to_transformers(base)
    before = base.model.embedding.weight.clone()
    with torch.no_grad():
        theirs.bert.embeddings.word_embeddings.weight.add_(1)
    assert torch.equal(base.model.embedding.weight, before)


@pytest.mark.parametrize("kind", ["gpt", "masked"])
def test_folders_are_read_by_the_auto_classes(kind, tmp_path):
    base = make_base(kind)
    base.save(tmp_path)
    cls = transformers.AutoModelForCausalLM if kind == "gpt" else transformers.AutoModelForMaskedLM
    assert_same(base.model, cls.from_pretrained(tmp_path).eval(), kind)
    theirs = to_transformers(base)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer_of(base).save_pretrained(tmp_path / "theirs")
    assert_same(load_base(tmp_path / "theirs").model, theirs, kind)


def test_classifiers_have_the_base_inside_and_names_for_their_labels():
    base, labels = make_base("masked"), ("bad", "good", "neither")
    theirs = to_transformers(base, labels)
    idx, mask, segments = inputs()
    found = theirs.bert(idx, mask.long(), segments).last_hidden_state[mask]
    torch.testing.assert_close(found, base.model(idx, mask, segments)[mask], rtol=1e-5, atol=1e-5)
    assert theirs.config.id2label == {0: "bad", 1: "good", 2: "neither"}
    assert theirs(idx).logits.shape == (B, 3)
    assert torch.equal(theirs.classifier.weight, to_transformers(base, labels).classifier.weight)
    assert not torch.equal(theirs.classifier.weight, to_transformers(base, labels, seed=1).classifier.weight)
    gpt = make_base("gpt")
    decoder = to_transformers(gpt, labels)
    torch.testing.assert_close(decoder.transformer(idx).last_hidden_state, gpt.model.hidden(idx), rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------------------------------- the shipped models


@pytest.mark.parametrize("name", ["bert-mini", "gpt-mini"])
def test_shipped_folders_give_the_same_numbers_through_auto_classes(name):
    base = load_base(name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODELS / name)
    texts = [text for text in NASTY if text or base.kind == "encoder"]
    assert tokenizer(texts)["input_ids"] == [e.ids for e in base.tokens(texts)]
    headed = transformers.AutoModelForMaskedLM if name == "bert-mini" else transformers.AutoModelForCausalLM
    for theirs in (headed.from_pretrained(MODELS / name).eval(), to_transformers(base)):
        assert theirs.dtype == torch.float32
        encoded = base.encode(texts)
        extra = {"token_type_ids": encoded.segments} if base.kind == "encoder" else {}
        with torch.no_grad():
            ours = base.model.head(base.hidden(encoded))[encoded.mask]
            found = theirs(encoded.idx, attention_mask=encoded.mask.long(), **extra).logits[encoded.mask]
        torch.testing.assert_close(found, ours, rtol=1e-4, atol=1e-4)


# ----------------------------------------------------------------------------------------------------------- tokenizers


@pytest.mark.parametrize("name", ["bert-mini", "gpt-mini"])
def test_tokenizers_agree_on_nasty_texts_and_differ_only_where_a_text_gives_orders(name):
    base = load_base(name)
    ours, special = tokenizer_of(base), tokenizer_of(base, special_words=True)
    for text in NASTY:
        ids = base.tokens([text])[0].ids
        assert ours(text)["input_ids"] == ids == special(text)["input_ids"], text
    order = "<sep>" if name == "bert-mini" else "<end>"
    text = f"one {order} two"
    assert ours(text)["input_ids"] == base.tokens([text])[0].ids
    number = base.tokenizer.token_to_id(order)
    count = base.tokens([text])[0].ids.count(number)
    assert special(text)["input_ids"].count(number) == count + 1, "the default of transformers obeys the text"
    long = "word " * 300
    assert ours(long, truncation=True)["input_ids"] == base.tokens([long])[0].ids
    assert len(ours(long)["input_ids"]) > base.config.context, "nothing is cut unless it is asked for"


def test_pairs_get_two_segments_and_the_base_keeps_its_own_tokenizer():
    base = load_base("bert-mini")
    tokenizer = tokenizer_of(base)
    found, wanted = tokenizer("a film", "fine"), base.tokens([("a film", "fine")])[0]
    assert found["input_ids"] == wanted.ids
    assert found["token_type_ids"] == wanted.type_ids
    tokenizer("a film", truncation=True, max_length=3)
    assert base.tokens([("a film", "fine")])[0].ids == wanted.ids


# -------------------------------------------------------------------------------------------------- tables and training


def test_tables_hold_the_rows_and_the_names_of_the_labels():
    table = to_datasets([("fine", "good"), ("", 0)], labels=("bad", "good"))
    assert table["text"][:] == ["fine", ""]
    assert table["label"][:] == [1, 0]
    assert table.features["label"].names == ["bad", "good"]
    assert to_datasets([("fine", 3)])["label"][:] == [3]
    pairs = to_datasets([(("a", "b"), 1), (("c", "d"), 0)])
    assert pairs["text_pair"][:] == ["b", "d"]


def test_metrics_by_hand():
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 0.5], [0.0, 1.0, 4.0]])
    found = compute_metrics((logits, np.array([0, 1, 1, 2])))  # one of four wrong: a 1 taken for a 0
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


@pytest.mark.filterwarnings("default")
def test_trainer_learns_from_a_tiny_random_model(tmp_path):
    base = make_base("masked", vocab=13, layers=1)
    rows = [("a very good film", "good"), ("bad film", "bad"), ("fine film", "good"), ("a dull film", "bad")] * 8
    table = to_datasets(rows, ("bad", "good"))
    settings = {"max_steps": 30, "learning_rate": 1e-2, "logging_steps": 1, "per_device_train_batch_size": 8}
    trainer = classification_trainer(
        to_transformers(base, ("bad", "good")), tokenizer_of(base), table, table, tmp_path, settings
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) / 3
    assert after["eval_accuracy"] == 1.0 >= before["eval_accuracy"]
    assert not list(tmp_path.rglob("checkpoint-*")), "nothing is written unless it is asked for"
    home = from_transformers(trainer.model.cpu(), tokenizer_of(base))
    assert not torch.equal(home.model.embedding.weight, base.model.embedding.weight)


@pytest.mark.filterwarnings("default")
def test_batches_are_padded_to_their_own_longest_row(tmp_path):
    base = make_base("masked", vocab=13, layers=1)
    table = to_datasets([("good", 1), ("a very very bad film", 0)], ("bad", "good"))
    trainer = classification_trainer(to_transformers(base, ("bad", "good")), tokenizer_of(base), table, folder=tmp_path)
    rows = [trainer.train_dataset[0], trainer.train_dataset[1]]
    assert trainer.data_collator(rows[:1])["input_ids"].shape == (1, 3)
    both = trainer.data_collator(rows)
    assert both["input_ids"].shape == (2, 7)
    assert both["attention_mask"].sum(1).tolist() == [3, 7]
    assert both["labels"].tolist() == [1, 0]


# --------------------------------------------------------------------------------------------------------------- errors


def test_what_does_not_fit_is_refused_in_a_sentence():
    odd = Base(GPT(TransformerConfig(V, d_model=24, heads=2, layers=1)), make_tokenizer("decoder"))
    with pytest.raises(ValueError, match="neither GPT-2's nor BERT's architecture"):
        to_transformers(odd)
    distil = transformers.DistilBertModel(transformers.DistilBertConfig(vocab_size=V, dim=22, n_heads=2, n_layers=1))
    with pytest.raises(ValueError, match="a distilbert model has no counterpart here"):
        from_transformers(distil, make_tokenizer("encoder"))
    with pytest.raises(ValueError, match="kind 'distilbert' have no counterpart"):
        from_huggingface(distil.state_dict(), "distilbert")
    with pytest.raises(ValueError, match="kind 't5' have no counterpart"):
        to_huggingface({}, "t5")
    with pytest.raises(ValueError, match="int has no backend_tokenizer"):
        from_transformers(to_transformers(make_base("gpt")), 7)
    with pytest.raises(ValueError, match="0 rows"):
        to_datasets([])
    with pytest.raises(ValueError, match="label 'odd' is none of"):
        to_datasets([("fine", "odd")], ("bad", "good"))
    with pytest.raises(ValueError, match="label 2 is none of"):
        to_datasets([("fine", 2)], ("bad", "good"))


def test_weights_that_have_no_place_are_named(monkeypatch):
    base = make_base("masked")
    broken = {name.replace("attention.self", "attention.itself"): t for name, t in to_huggingface(
        base.model.state_dict(), "bert"
    ).items()}  # fmt: skip
    monkeypatch.setattr("lmtl_course.huggingface.to_huggingface", lambda state, kind: broken)
    with pytest.raises(ValueError, match=r"BertForMaskedLM lacks .*attention\.self.* and has no place for .*itself"):
        to_transformers(base)
    with pytest.raises(ValueError, match="BertForSequenceClassification lacks"):
        to_transformers(base, ("bad", "good"))


@pytest.mark.parametrize("name", ["transformers", "datasets", "accelerate"])
def test_a_missing_extra_is_named_with_the_remedy(name, monkeypatch):
    real = importlib.import_module

    def without(module, *rest):
        if module == name:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return real(module, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ImportError, match=rf"needs the library {name}: pip install 'lmtl-course\[hf\]'"):
        library(name)
    base = make_base("masked")
    calls = {
        "transformers": lambda: (to_transformers(base), tokenizer_of(base)),
        "datasets": lambda: to_datasets([("fine", 1)]),
        "accelerate": lambda: classification_trainer(None, None, None),
    }
    with pytest.raises(ImportError, match="lmtl-course"):
        calls[name]()


def test_what_a_library_itself_lacks_is_not_mistaken_for_it(monkeypatch):
    def broken(module, *rest):
        raise ModuleNotFoundError("No module named 'other'", name="other")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="other"):
        library("transformers")
