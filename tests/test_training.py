"""The loop against a loop written out by hand, and a run that is killed against one that is not."""

import itertools
import math
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lmtl_course import training
from lmtl_course.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from lmtl_course.text import Vocabulary
from lmtl_course.training import (
    History,
    LanguageModel,
    LiveCurve,
    Muon,
    Streams,
    TrainConfig,
    evaluate,
    lr_at,
    make_optimizers,
    next_token_loss,
    orthogonalize,
    sample,
    train,
)

VOCAB, D_MODEL, D_HIDDEN = 11, 3, 5


def text(tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCAB, (tokens,), generator=torch.Generator().manual_seed(seed))


def make_model(seed: int = 0, **settings) -> LanguageModel:
    torch.manual_seed(seed)
    model = LanguageModel(VOCAB, D_MODEL, D_HIDDEN, **settings)
    torch.nn.init.normal_(model.head.weight)  # a zero output layer would send no gradient further down
    return model


# ------------------------------------------------------------------------------------------------------------ streams


@given(st.integers(2, 200), st.integers(1, 13), st.integers(1, 17))
def test_one_pass_predicts_every_token_but_the_first_exactly_once_and_in_order(tokens, batch, seq):
    ids = torch.arange(tokens)  # each token is its own position
    if tokens - 1 < batch:
        with pytest.raises(ValueError, match=f"{tokens} tokens cannot feed {batch} rows"):
            Streams(ids, batch, seq)
        return
    streams = Streams(ids, batch, seq)
    windows = list(streams)
    inputs = torch.cat([x for x, _, _ in windows], dim=1)
    targets = torch.cat([y for _, y, _ in windows], dim=1)
    counted = targets != -100
    assert torch.equal(targets[counted], ids[1:]), "row after row, the text itself"
    assert torch.equal(inputs[counted] + 1, targets[counted]), "each input is the token before its target"
    sizes = [x.shape[1] for x, _, _ in windows]
    assert max(sizes) <= seq
    assert max(sizes) - min(sizes) <= 1
    assert [fresh for _, _, fresh in windows] == [True] + [False] * (len(streams) - 1)


def test_batches_are_a_function_of_their_number_and_start_again_after_a_pass():
    streams = Streams(text(50), 3, 4)
    for n in (0, 2, len(streams) - 1):
        once, again = streams(n), streams(n + len(streams))
        assert torch.equal(once[0], again[0])
        assert torch.equal(once[1], again[1])
        assert once[2] is again[2] is (n == 0)


@pytest.mark.parametrize(("batch", "seq"), [(0, 4), (3, 0)])
def test_sizes_below_one_are_refused(batch, seq):
    with pytest.raises(ValueError, match=f"cannot feed {batch} rows of windows of {seq}"):
        Streams(text(20), batch, seq)


# -------------------------------------------------------------------------------------------------------------- model


def test_language_model_equals_torch_layers_in_values_and_gradients():
    model = make_model(layers=2).double()
    embedding, head, lstm = torch.nn.Embedding(VOCAB, D_MODEL), torch.nn.Linear(D_HIDDEN, VOCAB), model.lstm.to_torch()
    embedding.load_state_dict(model.embedding.state_dict())
    head.load_state_dict(model.head.state_dict())
    tokens = text(14).view(2, 7)
    logits, (h, c) = model(tokens)
    output, (h_ref, c_ref) = lstm(embedding.double()(tokens))
    expected = head.double()(output)
    for ours, theirs in ((logits, expected), (h, h_ref), (c, c_ref)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    upstream = torch.randn_like(logits)
    logits.backward(upstream)
    expected.backward(upstream)
    for ours, theirs in ((model.embedding, embedding), (model.head, head)):
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=0, atol=1e-12)


def test_an_untrained_model_is_indifferent():
    model = LanguageModel(VOCAB, D_MODEL, D_HIDDEN)
    assert evaluate(model, Streams(text(60), 3, 7), next_token_loss) == pytest.approx(math.log(VOCAB), abs=1e-6)


def test_dropout_changes_the_scores_but_never_the_state():
    model, tokens = make_model(dropout=0.5), text(14).view(2, 7)
    model.train()
    one, state_one = model(tokens)
    two, state_two = model(tokens)
    assert not torch.equal(one, two)
    assert torch.equal(state_one[0], state_two[0])
    assert torch.equal(state_one[1], state_two[1])
    model.eval()
    assert torch.equal(model(tokens)[0], model(tokens)[0])


def test_a_carried_state_makes_windows_equal_to_one_long_reading():
    model, ids = make_model().double(), text(44)
    whole = evaluate(model, Streams(ids, 1, 43), next_token_loss, autocast=False)
    windows = evaluate(model, Streams(ids, 1, 5), next_token_loss, autocast=False)
    assert windows == pytest.approx(whole, abs=1e-12)
    forgetful = evaluate(model, ((x, y, True) for x, y, _ in Streams(ids, 1, 5)), next_token_loss, autocast=False)
    assert abs(forgetful - whole) > 1e-4


def test_evaluate_is_a_sum_over_a_count_and_leaves_no_trace():
    model, ids = make_model(dropout=0.5).double().train(), text(45)
    model.eval()
    logits, _ = model(ids[None, :-1])
    expected = F.cross_entropy(logits[0], ids[1:]).item()
    model.train()
    before = torch.get_rng_state()
    assert evaluate(model, Streams(ids, 1, 7), next_token_loss, autocast=False) == pytest.approx(expected, abs=1e-12)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ValueError, match="0 targets"):
        evaluate(model, [], next_token_loss)


def test_sampling_repeats_with_a_generator_and_spells_only_known_characters():
    vocabulary = Vocabulary.build("abcde")
    model = LanguageModel(len(vocabulary), 2, 3).train()
    with torch.no_grad():
        model.head.bias[vocabulary.unknown] = 50.0
    one, two = (sample(model, vocabulary, "ab", 40, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert one == two
    assert len(one) == 42
    assert set(one) <= set("abcde")
    assert model.training
    with pytest.raises(ValueError, match="prompt ''"):
        sample(model, vocabulary, "", 3)


# -------------------------------------------------------------------------------------------------- settings, schedule


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"warmup": 11}, "warmup=11"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"lr": math.nan}, "lr=nan"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"min_ratio": 1.5}, "min_ratio=1.5"),
        ({"betas": (0.9, 1.0)}, "betas="),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"optimizer": "sgd"}, "optimizer='sgd'"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"patience": 2}, "patience=2 needs eval_every"),
    ],
)
def test_a_setting_outside_its_range_is_named(settings, message, monkeypatch):
    with pytest.raises(ValueError, match=message):
        _plain_config(**{"steps": 10, **settings})


def _plain_config(**settings) -> TrainConfig:
    """A config whose wrong types reach its own checks, not beartype's."""
    config = object.__new__(TrainConfig)
    defaults = {f: TrainConfig.__dataclass_fields__[f].default for f in TrainConfig.__dataclass_fields__}
    for name, value in {**defaults, **settings}.items():
        object.__setattr__(config, name, value)
    config.__post_init__()
    return config


def test_the_learning_rate_climbs_straight_and_falls_along_a_cosine():
    config = TrainConfig(steps=104, lr=8.0, warmup=4, min_ratio=0.5)
    rates = [lr_at(step, config) for step in range(104)]
    assert rates[:5] == [2.0, 4.0, 6.0, 8.0, 8.0]
    assert rates[54] == pytest.approx(6.0)  # half way between 8 and 4
    assert rates[29] == pytest.approx(4 + 4 * (0.5 + 0.5 * math.sqrt(0.5)))
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))
    assert 4.0 < rates[-1] < 4.01
    assert lr_at(0, TrainConfig(steps=1, lr=3.0)) == 3.0
    for step in (-1, 104):
        with pytest.raises(ValueError, match=f"step {step} is not one of the run's 104"):
            lr_at(step, config)


# --------------------------------------------------------------------------------------------------------- optimisers


@pytest.mark.parametrize("shape", [(7, 19), (19, 7), (13, 13)])
@pytest.mark.parametrize("half", [False, True])
def test_orthogonalize_moves_singular_values_to_one_and_keeps_the_vectors(shape, half, monkeypatch):
    monkeypatch.setattr(training, "_bf16_is_fast", lambda device: half)
    G = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    U, S, Vh = torch.linalg.svd(G, full_matrices=False)
    inner = U.T @ orthogonalize(G) @ Vh.T  # diagonal if the singular vectors stayed
    assert ((inner.diag() > 0.65) & (inner.diag() < 1.25)).all(), inner.diag()
    off = inner - torch.diag(inner.diag())
    assert off.abs().max() < (0.06 if half else 1e-4)
    assert S.max() / S.min() > 1.5, "the input was not orthogonal already"


def test_orthogonalize_ignores_scale_and_turns_with_the_axes(monkeypatch):
    monkeypatch.setattr(training, "_bf16_is_fast", lambda device: False)
    generator = torch.Generator().manual_seed(2)
    G = torch.randn(7, 5, generator=generator, dtype=torch.float32)
    Q, _ = torch.linalg.qr(torch.randn(7, 7, generator=generator))
    torch.testing.assert_close(orthogonalize(1000 * G), orthogonalize(G), rtol=0, atol=1e-4)
    torch.testing.assert_close(orthogonalize(Q @ G), Q @ orthogonalize(G), rtol=0, atol=1e-4)
    assert torch.equal(orthogonalize(torch.zeros(3, 2)), torch.zeros(3, 2))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has its own Muon since 2.9")
def test_muon_equals_torchs_over_several_steps(monkeypatch):
    monkeypatch.setattr(training, "_bf16_is_fast", lambda device: True)  # torch's works in bfloat16 everywhere
    start = torch.randn(7, 13)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    mine = Muon([ours], lr=0.03, momentum=0.9, weight_decay=0.1)
    reference = torch.optim.Muon(
        [theirs], lr=0.03, momentum=0.9, weight_decay=0.1, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        ours.grad = torch.randn(7, 13)
        theirs.grad = ours.grad.clone()
        mine.step()
        reference.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert (ours - start).abs().max() > 0.01


def test_muon_refuses_a_vector():
    with pytest.raises(ValueError, match=r"matrices, got a parameter of shape \(5,\)"):
        Muon([torch.nn.Parameter(torch.zeros(5))], lr=0.1)


def test_every_parameter_has_one_optimizer_and_tables_stay_with_adamw():
    model = make_model(layers=2)
    names = {id(p): name for name, p in model.named_parameters()}

    def held(optimizer):
        return {names[id(p)] for group in optimizer.param_groups for p in group["params"]}

    adamw, muon = make_optimizers(model, TrainConfig(steps=1, optimizer="muon", weight_decay=0.1))
    assert held(muon) == {f"lstm.cells.{k}.{w}" for k in (0, 1) for w in ("w_xh", "w_hh")}
    assert held(adamw) == set(names.values()) - held(muon)
    decayed = {names[id(p)] for group in adamw.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {"embedding.weight", "head.weight"}

    model.embedding.requires_grad_(False)
    (alone,) = make_optimizers(model, TrainConfig(steps=1))
    assert held(alone) == set(names.values()) - {"embedding.weight"}
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="all 9 parameters are frozen"):
        make_optimizers(model, TrainConfig(steps=1))


# ----------------------------------------------------------------------------------------------------------- the loop


@pytest.mark.parametrize("clip", [0.05, math.inf])
def test_train_equals_a_loop_written_out_with_torchs_parts(clip):
    ids, steps = text(90), 9  # more than one pass of 6 windows
    config = TrainConfig(steps, lr=0.02, warmup=2, clip=clip, weight_decay=0.1, autocast=False)
    model = make_model().double()
    embedding, lstm, head = torch.nn.Embedding(VOCAB, D_MODEL), model.lstm.to_torch(), torch.nn.Linear(D_HIDDEN, VOCAB)
    embedding.load_state_dict(model.embedding.state_dict())
    head.load_state_dict(model.head.state_dict())
    reference = torch.nn.ModuleList([embedding, lstm, head]).double()
    for name, p in lstm.named_parameters():
        p.requires_grad_("bias_hh" not in name)  # ours has one bias
    trained = [p for p in reference.parameters() if p.requires_grad]
    decayed, rest = [p for p in trained if p.ndim == 2], [p for p in trained if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.95))
    streams, state, losses, norms = Streams(ids, 3, 5), None, [], []
    for step in range(steps):
        inputs, targets, fresh = streams(step)
        output, state = lstm(embedding(inputs), None if fresh else state)
        state = tuple(part.detach() for part in state)
        loss = F.cross_entropy(head(output).flatten(0, 1), targets.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(trained, clip).item())
        rate = 0.02 * (0.5, 1.0)[step] if step < 2 else 0.01 * (1 + math.cos(math.pi * (step - 2) / 7))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss.item())
    history = train(model, streams, next_token_loss, config)
    assert history.loss == pytest.approx(losses, abs=1e-9)
    assert history.norm == pytest.approx(norms, rel=1e-6)
    torch.testing.assert_close(model.head.weight, head.weight, rtol=0, atol=1e-7)
    torch.testing.assert_close(model.embedding.weight, embedding.weight, rtol=0, atol=1e-7)


@pytest.mark.parametrize("accumulate", [2, 3, 7])
def test_a_batch_in_parts_is_the_batch(accumulate):
    ids = text(7 * 10 - 4)  # the last of the 7 rows has ignored targets, so a mean of means would differ
    whole, parts = make_model().double(), make_model().double()
    config = TrainConfig(steps=5, lr=0.02, autocast=False)
    one = train(whole, Streams(ids, 7, 5), next_token_loss, config)
    many = train(parts, Streams(ids, 7, 5), next_token_loss, replace(config, accumulate=accumulate))
    assert many.loss == pytest.approx(one.loss, abs=1e-12)
    assert many.tokens == one.tokens
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-10)


def test_more_parts_than_rows_is_refused():
    with pytest.raises(ValueError, match="3 rows cannot be computed in accumulate=4"):
        train(make_model(), Streams(text(40), 3, 5), next_token_loss, TrainConfig(steps=1, accumulate=4))


def test_autocast_multiplies_in_bfloat16_and_keeps_parameters_in_float32():
    seen = set()

    def loss(model, batch, state):
        nats, count, state = next_token_loss(model, batch, state)
        seen.add(model(batch[0])[0].dtype)
        return nats, count, state

    half, full = make_model(), make_model()
    history = train(half, Streams(text(60), 3, 5), loss, TrainConfig(steps=3, autocast=True))
    assert seen == {torch.bfloat16}
    exact = train(full, Streams(text(60), 3, 5), next_token_loss, TrainConfig(steps=3, autocast=False))
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert history.loss == pytest.approx(exact.loss, rel=0.02)
    assert history.loss != exact.loss


def test_a_model_without_state_and_with_labels_trains_in_the_same_loop():
    torch.manual_seed(0)
    x = torch.randn(23, 4)
    y = (x[:, 0] > 0).long()

    def loss(model, batch, state):
        rows, labels = batch
        return F.cross_entropy(model(rows), labels, reduction="sum"), len(labels), None

    model = torch.nn.Linear(4, 2)
    history = train(model, lambda n: (x, y), loss, TrainConfig(steps=60, lr=0.1, accumulate=3), valid=[(x, y)])
    assert history.loss[-1] < 0.2 < history.loss[0]
    assert history.looks == [(60, history.best)]
    assert history.tokens == 60 * 23


def test_patience_stops_and_the_best_weights_come_back():
    ids, other = torch.arange(60) % 4, torch.full((40,), 9)  # learning one text makes the other ever less likely
    looks = []
    model = make_model()
    config = TrainConfig(steps=200, lr=0.05, eval_every=2, patience=3, autocast=False)
    valid = Streams(other, 2, 7)
    history = train(model, Streams(ids, 2, 5), next_token_loss, config, valid, lambda h: looks.append(h.steps))
    best = min(history.looks, key=lambda look: look[1])
    assert history.stopped
    assert history.steps == best[0] + 2 * 3 == looks[-1] < 200
    assert history.best == best[1]
    assert evaluate(model, valid, next_token_loss, autocast=False) == pytest.approx(best[1], abs=1e-9)


def test_a_loss_that_is_no_number_stops_before_it_reaches_the_weights():
    model = make_model()
    before = {name: t.clone() for name, t in model.state_dict().items()}

    def broken(model, batch, state):
        nats, count, state = next_token_loss(model, batch, state)
        return nats * math.nan, count, state

    with pytest.raises(FloatingPointError, match=r"loss is nan .* at step 0 with lr=0\.005"):
        train(model, Streams(text(40), 3, 5), broken, TrainConfig(steps=3))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_a_gradient_that_is_not_finite_stops_the_run_before_any_weight_is_touched():
    model = make_model()
    before = {name: w.clone() for name, w in model.state_dict().items()}

    def steep(model, batch, state):  # the loss is 0, its slope is infinite
        return (model.head.weight * 0).abs().sqrt().sum(), 1, None

    with pytest.raises(FloatingPointError, match=r"loss is 0\.0 and its gradient nan long at step 0"):
        train(model, Streams(text(40), 3, 5), steep, TrainConfig(steps=2, autocast=False))
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


def test_the_live_curve_draws_once_and_then_updates_in_place(monkeypatch):
    shown, updated = [], []

    class Handle:
        def update(self, image):
            updated.append(image)

    def display(image, display_id):
        shown.append(image)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    curve = LiveCurve("tiny")
    history = History(loss=[3.0, 2.0, 1.5], looks=[(2, 2.5)])
    curve(history)
    history.looks.append((3, 1.75))
    curve(history)
    assert (len(shown), len(updated)) == (1, 1)
    assert "after 3 steps the validation loss is 1.750" in updated[0].alt


# -------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.skipif(os.name != "posix", reason="needs a file-size limit")
def test_a_full_disk_leaves_the_old_checkpoint_and_the_run_alive(tmp_path):
    import resource

    folder = tmp_path / "run"
    config = TrainConfig(steps=6, folder=folder, save_every=2, autocast=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sizes = []

    def batches(n):  # the disk is full from the second checkpoint on
        if n == 3:
            sizes.append(next(folder.glob("checkpoint-*")).stat().st_size)
            resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[0] // 2, hard))
        return Streams(text(40), 3, 5)(n)

    message = r"checkpoint-0000000[46].*could not be written.*earlier checkpoints are untouched.*Training goes on"
    try:
        with pytest.warns(UserWarning, match=message):
            history = train(make_model(), batches, next_token_loss, config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert history.steps == 6
    assert [p.name for p in folder.iterdir()] == ["checkpoint-00000002.safetensors"], "no half-written file stays"
    assert load_checkpoint(folder).record["history"]["loss"] == history.loss[:2]


# ------------------------------------------------------------------------------------------------------------- resume

CONFIG = TrainConfig(
    steps=14,
    lr=0.02,
    optimizer="muon",
    warmup=3,
    weight_decay=0.1,
    accumulate=2,
    eval_every=3,
    patience=4,
    save_every=4,
    seed=5,
)


class InterruptedRunError(Exception):
    """Stands for whatever ends a process."""


def noisy_loss(model, batch, state):
    """Draws from numpy, as a reader's own augmentation might (Python's own generator is drawn from by beartype)."""
    nats, count, state = next_token_loss(model, batch, state)
    return nats * (1 + 0.1 * np.random.random()), count, state


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stop", [1, 5, 9, 13])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, optimizer, stop):
    streams, valid = Streams(text(70), 4, 5), Streams(text(40, seed=1), 2, 7)
    config = replace(CONFIG, optimizer=optimizer)

    def until(n):
        if n == stop:
            raise InterruptedRunError
        return streams(n)

    whole, broken, again = (make_model(dropout=0.3) for _ in range(3))
    expected = train(whole, streams, noisy_loss, config, valid)
    with pytest.raises(InterruptedRunError):
        train(broken, until, noisy_loss, replace(config, folder=tmp_path), valid)
    random.seed(99)
    torch.manual_seed(99)
    history = train(again, streams, noisy_loss, replace(config, folder=tmp_path), valid)
    assert history.loss == expected.loss
    assert history.looks == expected.looks
    for name, t in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], t), name
    finished = train(make_model(dropout=0.3), streams, noisy_loss, replace(config, folder=tmp_path), valid)
    assert finished.loss == expected.loss, "a finished run is not trained again"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("config", r"its config differs, lr was 0\.02 and is 0\.03"),
        ("model", "its model differs, .* was "),
        ("data", "its batch differs"),
        ("not a run", "was not written by train: it has no 'run'"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_says_why(tmp_path, change, message):
    config = replace(CONFIG, folder=tmp_path)
    if change == "not a run":
        save_checkpoint(tmp_path, 4, {"w": torch.ones(3)}, {})
    else:
        train(make_model(), Streams(text(70), 4, 5), next_token_loss, config)
    model = make_model(layers=2) if change == "model" else make_model()
    streams = Streams(text(70, seed=8 if change == "data" else 0), 4, 5)
    with pytest.raises(CheckpointError, match=message):
        train(model, streams, next_token_loss, replace(config, lr=0.03) if change == "config" else config)


SCRIPT = """
import os, random, signal, sys
import numpy, torch
from lmtl_course.training import LanguageModel, Streams, TrainConfig, next_token_loss, train
torch.set_num_threads(1)
torch.manual_seed(0)
folder, kill_at = sys.argv[1], int(sys.argv[2])
model = LanguageModel(11, 3, 5, dropout=0.3)
ids = torch.randint(11, (200,), generator=torch.Generator().manual_seed(1))
streams = Streams(ids, 4, 5)
def batches(n):
    if n == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return streams(n)
def loss(model, batch, state):  # draws from all three generators
    nats, count, state = next_token_loss(model, batch, state)
    return nats * (1 + 0.1 * random.random() + 0.1 * numpy.random.random()), count, state
config = TrainConfig(40, lr=0.02, optimizer="muon", warmup=3, folder=folder, save_every=3, seed=2)
train(model, batches, loss, config)
torch.save(model.state_dict(), folder + "/weights.pt")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_process_killed_at_a_random_step_and_restarted_ends_with_the_same_bits(tmp_path):
    step = random.SystemRandom().randrange(4, 40)

    def start(folder: str, kill_at: int) -> subprocess.Popen:
        (tmp_path / folder).mkdir(exist_ok=True)
        environment = {**os.environ, "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path / folder), str(kill_at)]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    whole, killed = start("whole", -1), start("killed", step)
    assert killed.communicate()[1] == ""
    assert killed.returncode == -signal.SIGKILL
    left = load_checkpoint(tmp_path / "killed")
    assert left.path.name == f"checkpoint-{step // 3 * 3:08d}.safetensors"
    assert not (tmp_path / "killed" / "weights.pt").exists()
    restarted = start("killed", -1)
    for process in (whole, restarted):
        assert process.communicate()[1] == ""
        assert process.returncode == 0
    expected, found = (torch.load(tmp_path / f / "weights.pt", weights_only=True) for f in ("whole", "killed"))
    for name, t in expected.items():
        assert torch.equal(found[name], t), f"killed at step {step}: {name} differs"
