"""Pooling and the label loss against hand values and torch, batches that deal every example once, and `finetune`
held to what it promises: what moves, how fast, what stays bit for bit, and that no text, label or file surprises it.
"""

import contextlib
import copy
import csv
import json
import math
import random
import warnings
from dataclasses import replace
from functools import cache

import pytest
import torch
from tokenizers import Tokenizer
from torch import nn

from lmtl_course import transfer
from lmtl_course.data import Dataset
from lmtl_course.embedded import LabelledText
from lmtl_course.pretraining import Base, MaskedLM, load_base, make_tokenizer
from lmtl_course.training import IGNORED, make_optimizers
from lmtl_course.transfer import (
    Buckets,
    ClassificationHead,
    Example,
    FineTuneConfig,
    FineTuned,
    Head,
    features,
    fine_tune_loss,
    finetune,
    from_scratch,
    load_finetuned,
    pool,
    set_dropout,
)
from lmtl_course.transformer import GPT, Encoder, TransformerConfig

WORDS = ["good", "bad", "fine", "dull", "film", "book", "long", "short", "the", "is", "very", "not", "and", "quite"]
CONFIG = FineTuneConfig(min_steps=0, epochs=1, batch=5, lr=1e-4, dropout=0.0, autocast=False, warmup=0.0)
THOROUGH = replace(CONFIG, epochs=12, batch=10, lr=5e-3, head_lr=5e-2, warmup=0.1)


@cache
def tokenizer_of(kind: str) -> str:
    return make_tokenizer([" ".join(WORDS)] * 9, 300, kind, lowercase=kind == "encoder").to_str()


def make_base(kind: str = "encoder", layers: int = 3, d_model: int = 12, context: int = 24, seed: int = 5) -> Base:
    """A small random base that is not indifferent to what it reads."""
    tokenizer = Tokenizer.from_str(tokenizer_of(kind))
    sizes = {"vocab": 300, "context": context, "d_model": d_model, "layers": layers, "heads": 2, "dropout": 0.0}
    torch.manual_seed(seed)
    if kind == "encoder":
        model = MaskedLM(TransformerConfig.bert(**sizes, init_std=0.3))
    else:
        model = GPT(TransformerConfig.gpt2(**sizes, init_std=0.3))
    return Base(model.eval(), tokenizer, f"tiny {kind}")


def make_rows(n: int, seed: int = 0) -> list[tuple[str, int]]:
    """Texts of 1 to 9 words; the label says whether "good" or "bad" is in it."""
    rng, rows = random.Random(seed), []
    for k in range(n):
        words = rng.choices(WORDS[2:], k=rng.randrange(8))
        words.insert(rng.randrange(len(words) + 1), WORDS[1 - k % 2])
        rows.append((" ".join(words), k % 2))
    return rows


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same_state(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """Also where the processor is fast in bfloat16, so that 1e-5 means something."""
    monkeypatch.setattr("lmtl_course.training._bf16_is_fast", lambda device: False)


@pytest.fixture
def stages(monkeypatch):
    """Every run of the loop inside `finetune`: the model, its optimisers, and which parameters could move."""
    seen = []

    def spy(model, config):
        optimizers = make_optimizers(model, config)
        movable = {name for name, p in model.named_parameters() if p.requires_grad}
        seen.append((model, optimizers, movable, [m.p for m in model.modules() if isinstance(m, nn.Dropout)]))
        return optimizers

    monkeypatch.setattr("lmtl_course.training.make_optimizers", spy)
    return seen


# ----------------------------------------------------------------------------------------------------------- pooling


def test_pool_by_hand():
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [50.0, 70.0]], [[4.0, 1.0], [2.0, 1.0], [0.0, 4.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert pool(hidden, mask).tolist() == [[2.0, 4.0], [2.0, 2.0]]
    assert pool(hidden, mask, "first").tolist() == [[1.0, 2.0], [4.0, 1.0]]
    assert pool(hidden, mask, "last").tolist() == [[3.0, 6.0], [0.0, 4.0]]
    with pytest.raises(ValueError, match="how='max' must be 'mean', 'first' or 'last'"):
        pool(hidden, mask, "max")


@pytest.mark.parametrize("how", ["mean", "first", "last"])
def test_padding_changes_neither_the_pooled_vector_nor_its_gradient(how):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 7, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    mask = torch.arange(7) < torch.tensor([7, 2, 1, 5, 3])[:, None]
    above = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    pooled = pool(hidden, mask, how)
    (gradient,) = torch.autograd.grad((pooled * above).sum(), hidden)
    assert (gradient[~mask] == 0).all()
    for row, n in enumerate(mask.sum(1).tolist()):
        alone = hidden[row, :n].detach().requires_grad_()
        wanted = {"mean": alone.mean(0), "first": alone[0], "last": alone[n - 1]}[how]
        torch.testing.assert_close(pooled[row], wanted, rtol=0, atol=1e-12)
        (slope,) = torch.autograd.grad((wanted * above[row]).sum(), alone)
        torch.testing.assert_close(gradient[row, :n], slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("how", ["mean", "last"])
def test_a_text_in_company_gets_what_it_gets_alone(kind, how):
    base = make_base(kind)
    base.model.double()
    head = ClassificationHead(12, ("a", "b"), how).double()
    nn.init.normal_(head.head.weight)
    model = FineTuned(base, head).eval()
    texts = ["good", "a film that is very long and not good but quite dull", "", "fine book"]
    with torch.no_grad():
        together = model(*base.encode(texts))
        for row, text in enumerate(texts):
            torch.testing.assert_close(together[row], model(*base.encode([text]))[0], rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------------------- the head


@pytest.mark.parametrize("weights", [None, (0.3, 2.0, 0.0, 1.5, 1.0)])
def test_the_loss_is_torchs_summed_cross_entropy_in_values_and_gradients(weights):
    generator = torch.Generator().manual_seed(1)
    head = ClassificationHead(3, "abcde", weights=weights).double()
    nn.init.normal_(head.head.weight, generator=generator)
    pooled = torch.randn(7, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    targets = torch.randint(5, (7,), generator=generator)
    nats, count = head.loss(head(pooled), targets)
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    logits = pooled @ head.head.weight.T + head.head.bias
    wanted = nn.CrossEntropyLoss(given, reduction="sum")(logits, targets)
    torch.testing.assert_close(nats, wanted, rtol=0, atol=1e-12)
    assert count == 7, "the mean is over texts, not over weights as torch's mean would be"
    leaves = [pooled, head.head.weight, head.head.bias]
    for ours, theirs in zip(torch.autograd.grad(nats, leaves), torch.autograd.grad(wanted, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_the_gradient_of_the_probe_is_p_minus_y_times_the_vector():
    head = ClassificationHead(3, "ab").double()
    nn.init.normal_(head.head.weight, generator=torch.Generator().manual_seed(2))
    pooled = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64, requires_grad=True)
    logits = head(pooled)
    head.loss(logits, torch.tensor([1]))[0].backward()
    error = logits.detach().softmax(-1)[0] - torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(head.head.weight.grad, torch.outer(error, pooled[0].detach()), rtol=0, atol=1e-12)
    torch.testing.assert_close(head.head.bias.grad, error, rtol=0, atol=1e-12)
    torch.testing.assert_close(pooled.grad[0], head.head.weight.detach().T @ error, rtol=0, atol=1e-12)


def test_labels_by_name_and_by_index_are_the_same_targets():
    base, head = make_base(), ClassificationHead(12, ("bad", "good", "so-so"))
    rows = [("a", "good"), ("b", 1), ("c", "so-so"), ("d", 0)]
    assert [example.target.item() for example in head.examples(base, rows, None)] == [1, 1, 2, 0]
    for label in ("fine", 3, -1):
        with pytest.raises(ValueError, match=r"is none of \['bad', 'good', 'so-so'\] \(0 to 2\)"):
            head.examples(base, [("a", label)], None)


def test_heads_that_cannot_be():
    with pytest.raises(ValueError, match="at least 2 labels, got"):
        ClassificationHead(3, ("one",))
    for weights in ((1.0,), (1.0, -1.0)):
        with pytest.raises(ValueError, match="2 labels, but class weights"):
            ClassificationHead(3, "ab", weights=weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"seed": -1},
        {"lr": 0.0},
        {"head_lr": math.inf},
        {"layer_decay": -1.0},
        {"dropout": 1.0},
        {"warmup": 1.1},
        {"unfreeze": -1},
        {"unfreeze": True},
        {"unfreeze": "top"},
        {"class_weights": "even"},
    ],
)
def test_settings_out_of_range_are_named(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        FineTuneConfig(**changes)


# ------------------------------------------------------------------------------------------------------------ batches


def make_buckets(n: int, batch: int, seed: int = 0) -> Buckets:
    base = make_base()
    return Buckets(ClassificationHead(12, "ab").examples(base, make_rows(n), None), base, batch, seed)


@pytest.mark.parametrize(("n", "batch"), [(13, 5), (7, 7), (11, 13), (97, 3), (2, 1)])
def test_each_example_comes_once_per_pass(n, batch):
    buckets = make_buckets(n, batch)
    assert len(buckets) == math.ceil(n / batch)
    passes = []
    for epoch in range(3):
        dealt = [buckets.numbers(epoch * len(buckets) + k).tolist() for k in range(len(buckets))]
        assert sorted(number for part in dealt for number in part) == list(range(n))
        assert all(len(part) <= batch for part in dealt)
        passes.append(dealt)
    assert n < 11 or passes[0] != passes[1]
    whole = [target for *_, targets in buckets for target in targets.tolist()]
    assert len(whole) == n
    assert sum(whole) == n // 2


def test_a_batch_is_a_pure_function_of_its_number_and_the_seed():
    forward, backward, other = make_buckets(17, 3), make_buckets(17, 3), make_buckets(17, 3, seed=1)
    numbers = list(range(2 * len(forward)))
    there = {n: forward(n) for n in numbers}
    for n in reversed(numbers):
        for a, b in zip(there[n], backward(n), strict=True):
            assert torch.equal(a, b)
    later = make_buckets(17, 3).later(4)
    assert all(torch.equal(a, b) for a, b in zip(later(3), there[7], strict=True))
    assert any(not torch.equal(forward.numbers(n), other.numbers(n)) for n in numbers)


def test_batches_hold_texts_of_like_length_and_right_content():
    buckets = make_buckets(193, 7)
    padding = {True: 0, False: 0}
    order = torch.randperm(193, generator=torch.Generator().manual_seed(0))
    for sorted_, parts in ((True, [buckets.numbers(n) for n in range(len(buckets))]), (False, order.split(7))):
        for part in parts:
            lengths = buckets.lengths[part]
            padding[sorted_] += int((lengths.max() - lengths).sum())
    assert padding[True] < 0.4 * padding[False]
    idx, mask, segments, targets = buckets(3)
    for row, number in enumerate(buckets.numbers(3).tolist()):
        example = buckets.examples[number]
        assert idx[row, mask[row]].tolist() == example.encoding.ids
        assert (idx[row, ~mask[row]] == buckets.base.pad).all()
        assert targets[row] == example.target
    assert not segments.any()


def test_targets_of_unequal_length_are_filled_up():
    base = make_base()
    encodings = base.tokens(["the very good film", "bad"])
    long, short = (len(e.ids) for e in encodings)
    examples = [Example(e, torch.arange(len(e.ids))) for e in encodings]
    targets = Buckets(examples, base, 2).collate([0, 1])[-1]
    assert targets.tolist() == [list(range(long)), list(range(short)) + [IGNORED] * (long - short)]
    assert long > short
    with pytest.raises(ValueError, match="0 examples"):
        Buckets([], base, 2)


# ------------------------------------------------------------------------------------------------ what moves, how fast


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("unfreeze", ["head", 1, "gradual", "all"])
def test_the_base_is_left_bit_for_bit_as_it_was(kind, unfreeze):
    base = make_base(kind)
    before = state_of(base.model)
    model = finetune(base, make_rows(20), config=replace(CONFIG, unfreeze=unfreeze, dropout=0.3, lr=0.05))
    assert_same_state(before, base.model.state_dict())
    assert all(p.requires_grad and p.grad is None for p in base.model.parameters())
    assert not base.model.training
    assert model.body is not base.model
    assert model.head.how == {"encoder": "mean", "decoder": "last"}[kind]
    changed = {name for name, t in model.body.state_dict().items() if not torch.equal(t, before[name])}
    assert bool(changed) == (unfreeze != "head")


def body_names(base: Base, blocks: int | None) -> set[str]:
    """What may move, written down a second time: the top blocks, a norm above them, and with None all but the head."""
    names, layers = {name for name, _ in base.model.named_parameters()}, base.config.layers
    if blocks is None:
        chosen = {name for name in names if not name.startswith("head.")}
    else:
        tops = tuple(f"blocks.{layers - 1 - k}." for k in range(blocks)) + (("norm.",) if blocks else ())
        chosen = {name for name in names if tops and name.startswith(tops)}
    return {f"body.{name}" for name in chosen}


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize(
    ("unfreeze", "wanted"),
    [("head", [0]), (0, [0]), (1, [1]), (2, [2]), (9, [3]), ("all", [None]), ("gradual", [0, 1, 2, None])],
)
def test_exactly_the_parts_that_were_asked_for_can_move(stages, kind, unfreeze, wanted):
    base = make_base(kind)
    before = state_of(base.model)
    model = finetune(base, make_rows(20), config=replace(CONFIG, unfreeze=unfreeze, batch=1))
    assert len(stages) == len(wanted)
    for (trained, _, movable, _), blocks in zip(stages, wanted, strict=True):
        if blocks == 0:  # the head alone, on vectors that are computed once
            assert trained is model.head
            assert movable == {"head.weight", "head.bias"}
        else:
            assert movable == body_names(base, blocks) | {"head.head.weight", "head.head.bias"}
    moved = {f"body.{name}" for name, p in model.body.named_parameters() if not torch.equal(p, before[name])}
    assert moved <= body_names(base, wanted[-1])
    if wanted == [1]:
        assert moved == body_names(base, 1)
    assert model.history.steps == 20, "stages share the steps"


def test_each_part_learns_at_its_own_rate(stages):
    base = make_base()
    config = replace(CONFIG, lr=0.02, head_lr=0.07, layer_decay=0.5, batch=7)
    finetune(base, make_rows(7), config=config)  # one step, at the peak
    ((model, optimizers, _, _),) = stages
    rates = {
        id(p): group["lr"] for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]
    }
    found = {name: rates[id(p)] for name, p in model.named_parameters() if id(p) in rates}
    wanted = {"head.head.weight": 0.07, "head.head.bias": 0.07, "body.embedding.weight": 0.02 * 0.5**3}
    wanted |= {f"body.blocks.{k}.attention.query.weight": 0.02 * 0.5 ** (2 - k) for k in range(3)}
    wanted |= {"body.position.weight": 0.02 * 0.5**3}
    for name, rate in wanted.items():
        assert found[name] == pytest.approx(rate, rel=1e-12), name
    assert "body.head.bias" not in found, "the head of pretraining is kept as it is"
    matrices = {id(p) for o in optimizers for g in o.param_groups if g["weight_decay"] for p in g["params"]}
    assert all((p.ndim >= 2) == (id(p) in matrices) for p in model.parameters() if id(p) in rates)


@pytest.mark.parametrize(("d_model", "rate"), [(12, 0.1024), (24, 0.0256)])
def test_without_a_rate_small_bases_learn_faster(stages, d_model, rate):
    finetune(make_base(d_model=d_model), make_rows(5), config=replace(CONFIG, lr=None))
    ((model, optimizers, _, _),) = stages
    top = model.body.blocks[-1].attention.query.weight
    (found,) = [g["lr"] for o in optimizers for g in o.param_groups if any(p is top for p in g["params"])]
    assert found == pytest.approx(rate), "1e-4 at a width of 384, with the inverse square of the width"


def test_a_frozen_body_computed_once_gives_the_head_that_it_gives_computed_each_time():
    class EachTime(ClassificationHead):
        pools = False

    base, rows = make_base(), make_rows(23)
    config = replace(CONFIG, unfreeze="head", epochs=4, head_lr=0.05, lr=0.003)
    once = finetune(base, rows, config=config, head=ClassificationHead(12, "ab"))
    each = finetune(base, rows, config=config, head=EachTime(12, "ab"))
    for a, b in zip(once.head.parameters(), each.head.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert once.head.head.weight.abs().max() > 0.1
    torch.testing.assert_close(torch.tensor(once.history.loss), torch.tensor(each.history.loss), rtol=0, atol=1e-5)


def test_the_first_step_is_gradient_descent_on_the_loss_of_labels():
    base, rows = make_base(), make_rows(7)
    model = FineTuned(copy.copy(base), ClassificationHead(12, "ab"))
    batch = Buckets(model.head.examples(base, rows, None), base, 7).collate(range(7))
    nats, count, _ = fine_tune_loss(model, batch, None)
    assert nats.item() == pytest.approx(7 * math.log(2), abs=1e-5)
    assert count == 7
    (gradient,) = torch.autograd.grad(nats / count, model.head.head.weight)
    after = finetune(base, rows, config=replace(CONFIG, batch=7, head_lr=0.01, weight_decay=0.0))
    # AdamW's first step has the length of the rate in each coordinate
    torch.testing.assert_close(after.head.head.weight.detach(), -0.01 * gradient.sign(), rtol=0, atol=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    base, rows = make_base(), make_rows(23)
    config = replace(CONFIG, dropout=0.2)
    torch.manual_seed(1)
    first = finetune(base, rows, config=config)
    torch.manual_seed(2)
    assert_same_state(state_of(first), finetune(base, rows, config=config).state_dict())
    other = finetune(base, rows, config=replace(config, seed=1))
    assert not torch.equal(first.head.head.weight, other.head.head.weight)


def test_dropout_is_on_while_training_and_as_it_was_afterwards(stages):
    model = finetune(make_base(), make_rows(7), config=replace(CONFIG, dropout=0.25))
    assert set(stages[0][3]) == {0.25}
    dropouts = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert dropouts
    assert set(dropouts) == {0.0}
    assert {block.attention.dropout for block in model.body.blocks} == {0.0}
    set_dropout(model, 0.5)
    assert {block.attention.dropout for block in model.body.blocks} == {0.5}


def test_steps_looks_and_patience():
    base, rows = make_base(), make_rows(23)
    assert finetune(base, rows, config=replace(CONFIG, min_steps=17)).history.steps == 17
    seen = []
    config = replace(CONFIG, epochs=4, eval_every=3, unfreeze="gradual")
    model = finetune(base, rows, config=config, valid=rows[:7], watch=lambda history: seen.append(history.steps))
    assert model.history.steps == 20
    steps = [step for step, _ in model.history.looks]
    assert steps == sorted(set(steps))
    assert steps[-1] == 20
    assert len(seen) == len(steps)
    assert model.history.tokens == 4 * 23
    still = finetune(
        base, rows, config=replace(CONFIG, epochs=9, eval_every=1, patience=2, lr=1e-9, head_lr=1.0), valid=rows
    )
    assert still.history.stopped
    assert still.history.steps < 45


def test_fewer_steps_than_stages_leave_stages_out():
    model = finetune(
        make_base(), make_rows(4), config=replace(CONFIG, batch=4, epochs=2, min_steps=0, unfreeze="gradual")
    )
    assert model.history.steps == 2


def test_single_precision_is_single_precision_everywhere(monkeypatch):
    asked = []
    monkeypatch.setattr(transfer, "_autocast", lambda device, wanted: asked.append(wanted) or contextlib.nullcontext())
    base, rows = make_base(), make_rows(6)
    model = finetune(base, rows, config=replace(CONFIG, autocast=False, unfreeze="head"))
    model.logits(["good"])
    features(base, ["good"], autocast=False)
    assert asked
    assert set(asked) == {False}


def test_a_task_that_can_be_learned_is_learned():
    rows, held_out = make_rows(60), make_rows(40, seed=1)
    model = finetune(make_base(), rows, config=THOROUGH)
    right = sum(
        int(said) == label for said, (_, label) in zip(model.predict([t for t, _ in held_out]), held_out, strict=True)
    )
    assert right >= 38


# ---------------------------------------------------------------------------------------------------------- the labels


def test_labels_come_from_the_argument_the_data_set_or_the_rows():
    base = make_base()
    rows = make_rows(6)
    named = [(text, ("minus", "plus")[label]) for text, label in rows]
    assert finetune(base, named, config=CONFIG).labels == ("minus", "plus")
    assert finetune(base, rows, config=CONFIG).labels == ("0", "1")
    assert finetune(base, [(text, 2 * label) for text, label in rows], config=CONFIG).labels == ("0", "1", "2")
    assert finetune(base, rows, config=CONFIG, labels=("no", "yes", "perhaps")).labels == ("no", "yes", "perhaps")
    held = Dataset(tuple(LabelledText(*row) for row in rows), "mine", "train", labels=("down", "up"))
    assert finetune(base, held, config=CONFIG).labels == ("down", "up")
    one = finetune(base, [row for row in rows if row[1]], config=CONFIG, labels=("no", "yes"))
    assert one.predict(["good"]) == ["yes"], "a label that does not occur is allowed where it is named"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "0 rows"),
        ([("a", 1), ("b", 1)], "only the label 1 occurs"),
        ([("a", "x"), ("b", 1)], "partly names and partly numbers"),
        ([("a", 1, 2)], r"must be \(text, label\)"),
        (["ab", "cd"], r"must be \(text, label\)"),
        ([("a", 0.5), ("b", 1)], r"must be \(text, label\)"),
        ([("a", -1), ("b", 1)], "label -1 is none of"),
    ],
)
def test_rows_that_are_none_end_in_one_sentence(rows, message):
    with pytest.raises(ValueError, match=message):
        finetune(make_base(), rows, config=CONFIG)


def test_other_wrong_arguments():
    with pytest.raises(ValueError, match="head='tags' must be 'classification' or a Head"):
        finetune(make_base(), make_rows(4), head="tags")
    with pytest.raises(ValueError, match="label 'good' is none of"):
        finetune(make_base(), [("a", "good"), ("b", "bad")], config=CONFIG, labels=("x", "y"))
    with pytest.raises(OSError, match="no folder"):
        finetune("a/folder/that/is/not", make_rows(4))


def test_balanced_weights_make_rare_labels_as_heavy_as_frequent_ones():
    rows = [("good", "b"), ("bad", "a"), ("fine", "b"), ("dull", "b")]
    head = finetune(make_base(), rows, config=replace(CONFIG, class_weights="balanced")).head
    assert head.weights == pytest.approx((4 / (2 * 1), 4 / (2 * 3)))
    given = finetune(make_base(), rows, config=replace(CONFIG, class_weights=(1.0, 3.0))).head
    assert given.weights == (1.0, 3.0)
    numbered = [(text, "ab".index(label)) for text, label in rows]
    balanced = replace(CONFIG, class_weights="balanced")
    assert finetune(make_base(), numbered, config=balanced, labels="ab").head.weights == pytest.approx(head.weights)


# ----------------------------------------------------------------------------------------------------------- the texts


def test_odd_texts_get_probabilities_and_cut_ones_a_warning():
    model = finetune(make_base(), [*make_rows(9), ("", 1), ("🙂 ¿qué? 好", 0)], config=CONFIG)
    odd = ["", " ", "🙂🙃", "\x00", "好的", "[SEP] <cls>"]
    probabilities = model.probabilities(odd)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(odd)))
    with pytest.warns(UserWarning, match="2 of 3 texts are longer than 24 tokens and were cut"):
        probabilities = model.probabilities(["good " * 2000, "fine", "x" * 10_000])
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    assert model.limits.startswith("Reads at most 24 tokens of a text (about 18 English words)")
    with pytest.raises(ValueError, match="no text to predict for"):
        model.predict([])
    with pytest.raises(TypeError, match="one string"):
        model.predict("good")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finetune(make_base(), [("long " * 99, 0), ("short", 1)], config=CONFIG)  # while learning, cutting is usual


def test_a_shorter_length_is_kept_for_predictions():
    model = finetune(make_base(), make_rows(9), config=replace(CONFIG, length=5))
    assert model.length == 5
    with pytest.warns(UserWarning, match="1 of 1 texts are longer than 5 tokens"):
        long = model.logits(["zzzzz"])  # no two of these letters are one token
    torch.testing.assert_close(long, model.logits(["zzz"]), rtol=0, atol=1e-6)
    assert not torch.allclose(long, model.logits(["zz"]), rtol=0, atol=1e-5)
    assert "at most 5 tokens" in model.limits
    with pytest.raises(ValueError, match="length=25 must be between"):
        finetune(make_base(), make_rows(9), config=replace(CONFIG, length=25))


def test_pairs_of_texts_are_read_together_and_in_order():
    rows = [((text, "the film"), label) for text, label in make_rows(12)]
    model = finetune(make_base(), rows, config=replace(CONFIG, epochs=3, lr=0.01))
    there, back = model.logits([("good", "bad"), ("bad", "good")])
    assert not torch.allclose(there, back, atol=1e-4)
    batch = Buckets(model.head.examples(model.base, rows, None), model.base, 3)(0)
    assert batch[2].any()
    assert not torch.equal(batch[2], batch[1].long())


def test_predictions_do_not_depend_on_batches_or_order():
    model = finetune(make_base(), make_rows(20), config=THOROUGH)
    texts = [text for text, _ in make_rows(29, seed=3)]
    wanted = model.logits(texts, batch=1)
    for batch in (2, 7, 64):
        torch.testing.assert_close(model.logits(texts, batch=batch), wanted, rtol=0, atol=1e-5)
    order = list(range(29))
    random.Random(0).shuffle(order)
    torch.testing.assert_close(model.logits([texts[k] for k in order]), wanted[order], rtol=0, atol=1e-5)
    assert model.predict(texts) == [model.labels[k] for k in wanted.argmax(-1)]
    assert len(set(model.predict(texts))) == 2
    assert not model.training


def test_a_table_of_ones_own(tmp_path):
    path = tmp_path / "mine.tsv"
    rows = [(text, ("blame", "praise")[label]) for text, label in make_rows(40)]
    path.write_text("".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    with open(path, encoding="utf-8", newline="") as file:
        read = [(text, label) for text, label in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    model = finetune(make_base(), read, config=THOROUGH)
    assert model.predict(["a very good film", "a bad book"]) == ["praise", "blame"]


# ----------------------------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_what_is_saved_comes_back_equal(tmp_path, kind):
    config = replace(CONFIG, length=9, class_weights=(1.0, 2.0))
    model = finetune(make_base(kind), make_rows(12), config=config, labels=("bad", "good"))
    again = load_finetuned(model.save(tmp_path / "model"))
    assert (again.labels, again.length, again.head.how) == (model.labels, 9, model.head.how)
    assert again.head.weights == (1.0, 2.0)
    texts = ["good", "", "a dull film"]
    assert torch.equal(again.logits(texts), model.logits(texts))
    assert_same_state(state_of(model), again.state_dict())
    assert load_base(tmp_path / "model").kind == kind, "the folder is a base too"


def test_damaged_and_missing_heads_are_refused(tmp_path):
    folder = finetune(make_base(), make_rows(6), config=CONFIG).save(tmp_path / "m")
    about, weights = (folder / "head.json").read_bytes(), (folder / "head.safetensors").read_bytes()
    (folder / "head.safetensors").write_bytes(weights[:-3])
    with pytest.raises(ValueError, match="the head in m is damaged or belongs to another base"):
        load_finetuned(folder)
    (folder / "head.safetensors").write_bytes(weights)
    (folder / "head.json").write_text(json.dumps(json.loads(about) | {"labels": ["a", "b", "c"]}))
    with pytest.raises(ValueError, match="the head in m is damaged"):
        load_finetuned(folder)
    (folder / "head.json").write_text("{")
    with pytest.raises(ValueError, match="the head in m is damaged"):
        load_finetuned(folder)
    (folder / "head.json").unlink()
    with pytest.raises(OSError, match=r"m is a base without a head: head\.json is missing"):
        load_finetuned(folder)
    (folder / "head.json").write_bytes(about)
    (folder / "head.safetensors").unlink()
    with pytest.raises(OSError, match=r"m is a base without a head: head\.safetensors is missing"):
        load_finetuned(folder)
    with pytest.raises(OSError, match=r"there is no folder .*nowhere; give one that a model was saved in"):
        load_finetuned(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="this model has a Head"):
        FineTuned(make_base(), Head()).save(tmp_path / "other")


def test_a_model_is_whole_when_its_last_file_is_there(tmp_path, monkeypatch):
    model, real, written = FineTuned(make_base(), ClassificationHead(12, ("bad", "good"))), transfer.write_whole, []
    monkeypatch.setattr(transfer, "write_whole", lambda path, body: (written.append(path.name), real(path, body)))
    model.save(tmp_path)
    assert written == ["head.safetensors", "head.json"]
    assert load_finetuned(tmp_path).labels == ("bad", "good")

    def full(path, body):
        raise OSError(f"{path.name}: no space is left")

    monkeypatch.setattr(transfer, "write_whole", full)
    with pytest.raises(OSError, match=r"head\.safetensors: no space is left"):
        model.save(tmp_path)
    assert not (tmp_path / "head.json").exists()
    with pytest.raises(OSError, match=r"head\.json is missing"):
        load_finetuned(tmp_path)


# ------------------------------------------------------------------------------------------------- what is carried over


def test_features_of_a_layer_are_those_of_a_model_that_ends_there():
    base, texts = make_base(), ["good film", "", "not a very long book but dull"]
    for k in range(4):
        cut = copy.deepcopy(base.model)
        cut.blocks = nn.ModuleList(list(cut.blocks)[:k])
        with torch.no_grad():
            encoded = base.encode(texts)
            wanted = pool(Encoder.forward(cut, encoded.idx, encoded.mask, encoded.segments), encoded.mask)
        torch.testing.assert_close(features(base, texts, layer=k, batch=2), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(features(base, texts), features(base, texts, layer=3), rtol=0, atol=0)
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in base.model.blocks)


def test_a_decoders_end_is_its_top_block_after_the_last_norm():
    base, texts = make_base("decoder"), ["good film", "dull", "not a very long book"]
    with torch.no_grad():
        normed = base.model.norm(features(base, texts, "last", layer=3))
    torch.testing.assert_close(features(base, texts, "last"), normed, rtol=0, atol=1e-5)


def test_features_say_what_they_cannot_do():
    base = make_base()
    for layer in (-1, 4):
        with pytest.raises(ValueError, match=f"layer={layer} must be between 0 and 3"):
            features(base, ["a"], layer=layer)
    with pytest.raises(ValueError, match="no text to look at"):
        features(base, [])


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_from_scratch_keeps_the_shape_and_nothing_else(kind):
    base = make_base(kind)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    fresh, same, other = from_scratch(base), from_scratch(base), from_scratch(base, seed=1)
    assert torch.equal(torch.get_rng_state(), state), "and the luck of others is left alone"
    assert (fresh.config, fresh.kind, fresh.tokenizer) == (base.config, kind, base.tokenizer)
    assert torch.equal(fresh.model.embedding.weight, same.model.embedding.weight)
    for another in (base, other):
        assert not torch.equal(fresh.model.embedding.weight, another.model.embedding.weight)
