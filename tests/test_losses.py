"""Oracles in torch.nn, numbers worked out by hand, what padding may not change, what a chunked loss never holds."""

import math
import weakref

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lmtl_course.losses import bits_per_byte, chunked_cross_entropy, cross_entropy, label_loss, perplexity

B, T, D, V = 3, 7, 5, 11  # all different, so that a swapped axis cannot pass
EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.fixture
def readers_view():
    """Shape checks by jaxtyping off: the sentence that a reader without them gets to see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def problem(seed: int = 0, ignored: bool = True):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(B, T, V, dtype=torch.float64, generator=generator)
    targets = torch.randint(V, (B, T), generator=generator)
    if ignored:
        targets[0, 2:5] = targets[2, 6] = -100
    return logits.requires_grad_(), targets


def linear_problem(seed: int = 0, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(B, T, D, dtype=dtype, generator=generator, requires_grad=True)
    weight = torch.randn(V, D, dtype=dtype, generator=generator, requires_grad=True)
    bias = torch.randn(V, dtype=dtype, generator=generator, requires_grad=True)
    return hidden, weight, bias, problem(seed)[1]


# cross_entropy


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_equals_torch_in_values_and_gradients(reduction):
    logits, targets = problem()
    ours = cross_entropy(logits, targets, reduction=reduction)
    reference = F.cross_entropy(logits.mT, targets, reduction=reduction)  # torch wants the vocabulary second
    torch.testing.assert_close(ours, reference, **EXACT)
    upstream = torch.randn_like(ours)
    (got,) = torch.autograd.grad(ours, logits, upstream)
    (expected,) = torch.autograd.grad(reference, logits, upstream)
    torch.testing.assert_close(got, expected, **EXACT)


def test_pays_the_logarithm_of_the_probability():
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]], dtype=torch.float64).log()
    losses = cross_entropy(logits, torch.tensor([0, 2]), reduction="none")
    torch.testing.assert_close(losses, torch.tensor([math.log(2), math.log(4)], dtype=torch.float64), **EXACT)


def test_gradient_is_probability_minus_truth():
    logits, targets = problem(ignored=False)
    (gradient,) = torch.autograd.grad(cross_entropy(logits, targets, reduction="sum"), logits)
    torch.testing.assert_close(gradient, logits.softmax(-1) - F.one_hot(targets, V), **EXACT)
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(B, T, dtype=torch.float64), **EXACT)


def test_gradient_and_second_derivative_by_finite_differences():
    logits, targets = problem()
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, targets), logits)
    assert torch.autograd.gradgradcheck(lambda z: cross_entropy(z, targets), logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_survives_scores_whose_exponential_overflows(dtype):
    logits = torch.tensor([[3e4, 0.0, -3e4]], dtype=dtype, requires_grad=True)
    right, wrong = (cross_entropy(logits, torch.tensor([w])) for w in (0, 2))
    assert right.item() == 0.0
    assert wrong.item() == pytest.approx(6e4, rel=2e-3)  # 3e4 has no exact bfloat16
    (gradient,) = torch.autograd.grad(wrong, logits)
    assert gradient.tolist() == [[1.0, 0.0, -1.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    logits = torch.randn(T, 1009, generator=torch.Generator().manual_seed(0)).to(dtype)
    targets = torch.arange(T)
    ours = cross_entropy(logits, targets, reduction="none")
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, F.cross_entropy(logits.float(), targets, reduction="none"), rtol=0, atol=1e-6)


def test_forbidden_words_cost_nothing_and_feel_nothing():
    logits, targets = problem(ignored=False)
    with torch.no_grad():
        logits[..., 4] = -math.inf
    targets = targets.where(targets != 4, 5)
    loss = cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad(loss, logits)
    kept = [k for k in range(V) if k != 4]
    torch.testing.assert_close(
        loss, cross_entropy(logits[..., kept], torch.where(targets > 4, targets - 1, targets)), **EXACT
    )
    assert gradient.isfinite().all()
    assert not gradient[..., 4].any()


@settings(deadline=None, max_examples=50)
@given(shift=st.floats(-1e3, 1e3), seed=st.integers(0, 99))
def test_adding_a_constant_to_all_scores_changes_nothing(shift, seed):
    logits, targets = problem(seed)
    torch.testing.assert_close(
        cross_entropy(logits + shift, targets), cross_entropy(logits, targets), rtol=0, atol=1e-10
    )


def test_padding_never_changes_the_result():
    logits, targets = problem(ignored=False)
    padded_logits = torch.cat([logits, 1e3 * torch.randn(B, 4, V, dtype=torch.float64)], dim=1)
    padded_targets = torch.cat([targets, torch.full((B, 4), -100)], dim=1)
    for reduction in ("mean", "sum"):
        torch.testing.assert_close(
            cross_entropy(padded_logits, padded_targets, reduction=reduction),
            cross_entropy(logits, targets, reduction=reduction),
            **EXACT,
        )


def test_any_id_can_be_the_ignored_one():
    logits, targets = problem(ignored=False)
    targets[1, 3] = 0
    expected = F.cross_entropy(logits.mT, targets, ignore_index=0)
    torch.testing.assert_close(cross_entropy(logits, targets, ignore_index=0), expected, **EXACT)


def test_a_batch_that_asks_nothing_moves_nothing():
    logits, targets = problem()
    targets = torch.full_like(targets, -100)
    assert F.cross_entropy(logits.mT, targets).isnan()  # the reference divides 0 by 0
    for reduction in ("mean", "sum"):
        loss = cross_entropy(logits, targets, reduction=reduction)
        assert loss.item() == 0.0
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.equal(gradient, torch.zeros_like(logits))


def test_gradients_of_single_examples_with_vmap():
    logits, targets = problem()
    each = torch.func.vmap(torch.func.grad(lambda z, w: cross_entropy(z, w, reduction="sum")))(logits, targets)
    (together,) = torch.autograd.grad(cross_entropy(logits, targets, reduction="sum"), logits)
    torch.testing.assert_close(each, together, **EXACT)


@pytest.mark.parametrize("stray", [V, -1, -101])
def test_a_stray_target_is_named(stray):
    logits, targets = problem()
    targets[1, 1] = stray
    with pytest.raises(ValueError, match=rf"target {stray} is outside 0…10; .* use -100"):
        cross_entropy(logits, targets)
    hidden, weight, bias, _ = linear_problem()
    with pytest.raises(ValueError, match=rf"target {stray} is outside 0…10; .* use -100"):
        chunked_cross_entropy(hidden, weight, targets, bias, chunk=4)


@pytest.mark.usefixtures("readers_view")
def test_wrong_shapes_and_names_are_refused_with_the_remedy():
    logits, targets = problem()
    with pytest.raises(ValueError, match=r"logits \(3, 11, 7\) need .* \(3, 11\), got \(3, 7\); .* is the last axis"):
        cross_entropy(logits.mT, targets)
    with pytest.raises(ValueError, match="reduction is 'average', expected 'mean', 'sum' or 'none'"):
        cross_entropy(logits, targets, reduction="average")


# label loss, perplexity, bits per byte


def test_label_loss_is_minus_the_sum_of_log_probabilities():
    logits = torch.randn(B, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = [1, 0, 1]
    by_hand = -sum(math.log(logits[i].softmax(-1)[y].item()) for i, y in enumerate(labels))
    assert label_loss(logits, torch.tensor(labels), reduction="sum").item() == pytest.approx(by_hand, abs=1e-12)
    assert label_loss(logits, torch.tensor(labels)).item() == pytest.approx(by_hand / B, abs=1e-12)


def test_perplexity_of_a_uniform_guess_is_the_size_of_the_vocabulary():
    loss = cross_entropy(torch.zeros(1, V, dtype=torch.float64), torch.tensor([3]))
    assert perplexity(loss.item()) == pytest.approx(V, abs=1e-12)
    assert perplexity(0.0) == 1.0
    assert perplexity(1e4) == perplexity(math.inf) == math.inf
    assert math.isnan(perplexity(math.nan))
    with pytest.raises(ValueError, match=r"-0\.5 nats per token are negative"):
        perplexity(-0.5)


def test_bits_per_byte_do_not_depend_on_how_the_text_was_cut():
    text = "Où est la bibliothèque?"
    n_bytes = len(text.encode())
    assert n_bytes == len(text) + 2
    by_character = sum(math.log(256**n) for n in (len(c.encode()) for c in text))
    by_word = sum(math.log(256**n) for n in (len(w.encode()) for w in text.split(" "))) + 3 * math.log(256)
    assert bits_per_byte(by_character, n_bytes) == pytest.approx(8, abs=1e-12)
    assert bits_per_byte(by_word, n_bytes) == pytest.approx(8, abs=1e-12)
    with pytest.raises(ValueError, match="n_bytes is 0"):
        bits_per_byte(1.0, 0)


# chunked_cross_entropy


@pytest.mark.parametrize("chunk", [1, 4, B * T, 1000])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_chunked_equals_plain_in_values_and_gradients(chunk, reduction, with_bias):
    hidden, weight, bias, targets = linear_problem()
    inputs = (hidden, weight, bias) if with_bias else (hidden, weight)
    bias = bias if with_bias else None
    ours = chunked_cross_entropy(hidden, weight, targets, bias, chunk=chunk, reduction=reduction)
    logits = F.linear(hidden, weight, bias)
    reference = F.cross_entropy(logits.mT, targets, reduction=reduction)
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-12)
    upstream = torch.tensor(-1.7, dtype=torch.float64)
    got = torch.autograd.grad(ours, inputs, upstream)
    for ours_, reference_ in zip(got, torch.autograd.grad(reference, inputs, upstream), strict=True):
        torch.testing.assert_close(ours_, reference_, **EXACT)


def test_chunked_agrees_with_finite_differences():
    hidden, weight, bias, targets = linear_problem()
    assert torch.autograd.gradcheck(
        lambda h, W, b: chunked_cross_entropy(h, W, targets, b, chunk=4), (hidden, weight, bias)
    )


def test_autocast_converts_the_weight_once_and_leaves_double_precision_alone():
    hidden, weight, bias, targets = linear_problem(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16), Ledger() as ledger:
        chunked_cross_entropy(hidden, weight, targets, bias, chunk=4)
    converted = [shape for name, shape in ledger.results if name == "aten._to_copy.default"]
    assert converted.count(weight.shape) + converted.count(weight.T.shape) == 1
    hidden, weight, bias, targets = linear_problem()
    with torch.autocast("cpu", torch.bfloat16):
        loss = chunked_cross_entropy(hidden, weight, targets, bias, chunk=4)
    torch.testing.assert_close(loss, cross_entropy(F.linear(hidden, weight, bias), targets), **EXACT)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_chunked_computes_only_the_gradients_that_are_wanted(wanted):
    hidden, weight, bias, targets = linear_problem()
    inputs = (hidden, weight, bias)
    for k, tensor in enumerate(inputs):
        tensor.requires_grad_(k == wanted)
    (got,) = torch.autograd.grad(chunked_cross_entropy(hidden, weight, targets, bias, chunk=4), inputs[wanted])
    (expected,) = torch.autograd.grad(cross_entropy(F.linear(hidden, weight, bias), targets), inputs[wanted])
    torch.testing.assert_close(got, expected, **EXACT)


def test_chunked_backward_can_run_twice_and_adds_up():
    hidden, weight, bias, targets = linear_problem()
    loss = chunked_cross_entropy(hidden, weight, targets, bias, chunk=4)
    loss.backward(retain_graph=True)
    once = weight.grad.clone()
    loss.backward()
    torch.testing.assert_close(weight.grad, 2 * once, **EXACT)


def test_chunked_with_nothing_to_predict_moves_nothing():
    hidden, weight, bias, targets = linear_problem()
    loss = chunked_cross_entropy(hidden, weight, torch.full_like(targets, -100), bias, chunk=4)
    assert loss.item() == 0.0
    for gradient in torch.autograd.grad(loss, (hidden, weight, bias)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


class Ledger(TorchDispatchMode):
    """The largest result of any operation, the most alive together (both in float32 numbers), and all that was done."""

    def __init__(self, *given: torch.Tensor):
        super().__init__()
        self.largest = self.alive = self.peak = 0
        self.results: list[tuple[str, torch.Size]] = []
        for tensor in given:
            tensor.untyped_storage().booked = True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
                self.results.append((str(func), tensor.shape))
                self.book(tensor.untyped_storage())
        return result

    def book(self, memory: torch.UntypedStorage):
        if not hasattr(memory, "booked"):
            memory.booked, size = True, memory.nbytes() / 4
            self.alive += size
            self.peak = max(self.peak, self.alive)
            weakref.finalize(memory, self.strike_out, size)

    def strike_out(self, size: float):
        self.alive -= size


@pytest.mark.parametrize("measuring", [False, True])
def test_chunked_never_holds_the_full_logits(measuring):
    tokens, width, vocab, chunk = 997, 2, 499, 67
    hidden = torch.randn(tokens, width, requires_grad=True)
    weight = torch.randn(vocab, width, requires_grad=True)
    targets = torch.arange(tokens) % vocab
    with torch.set_grad_enabled(not measuring):
        with Ledger(hidden, weight, targets) as plain:
            loss = cross_entropy(hidden @ weight.T, targets)
            if not measuring:
                loss.backward()
        del loss
        with Ledger(hidden, weight, targets) as chunked:
            loss = chunked_cross_entropy(hidden, weight, targets, chunk=chunk)
            if not measuring:
                loss.backward()
    logits, block = tokens * vocab, chunk * vocab
    assert (plain.largest, chunked.largest) == (logits, block)
    assert plain.peak > (2 if measuring else 3) * logits
    assert chunked.peak < 2.3 * block, "two blocks, and what is small beside them: ids and the gradients"
    products = sum(name == "aten.mm.default" for name, _ in chunked.results)
    assert products == (1 if measuring else 3) * math.ceil(tokens / chunk), "nothing is computed twice, or for nobody"


def test_chunked_without_gradients_gives_the_same_number_and_no_graph():
    hidden, weight, bias, targets = linear_problem()
    with torch.no_grad():
        loss = chunked_cross_entropy(hidden, weight, targets, bias, chunk=4)
    assert loss.grad_fn is None
    torch.testing.assert_close(loss, cross_entropy(F.linear(hidden, weight, bias), targets).detach(), **EXACT)


def test_chunked_under_autocast_is_as_exact_as_the_plain_loss():
    hidden, weight, bias, targets = linear_problem(dtype=torch.float32)
    inputs = (hidden, weight, bias)
    exact = torch.autograd.grad(cross_entropy(F.linear(hidden, weight, bias), targets), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        plain_loss = cross_entropy(F.linear(hidden, weight, bias), targets)
        loss = chunked_cross_entropy(hidden, weight, targets, bias, chunk=4)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(plain_loss.item(), rel=1e-2)
    errors = []
    for gradients in (torch.autograd.grad(plain_loss, inputs), torch.autograd.grad(loss, inputs)):
        assert [g.dtype for g in gradients] == [torch.float32] * 3
        errors.append([((g - e).norm() / e.norm()).item() for g, e in zip(gradients, exact, strict=True)])
    for plain_error, error in zip(*errors, strict=True):
        assert 0 < error < max(1.5 * plain_error, 2**-8)  # bfloat16 keeps 8 bits


def test_chunked_with_half_precision_weights_returns_their_type():
    hidden, weight, _, targets = linear_problem(dtype=torch.float32)
    h, W = (x.detach().bfloat16().requires_grad_() for x in (hidden, weight))
    loss = chunked_cross_entropy(h, W, targets, chunk=4)
    assert loss.dtype == torch.float32
    got = torch.autograd.grad(loss, (h, W))
    expected = torch.autograd.grad(cross_entropy(h.float() @ W.float().T, targets), (h, W))
    for ours, reference in zip(got, expected, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - reference).float().norm() < 2**-6 * reference.float().norm()


def test_chunked_says_that_it_has_no_second_derivative():
    hidden, weight, bias, targets = linear_problem()
    loss = chunked_cross_entropy(hidden, weight, targets, bias)
    with pytest.raises(RuntimeError, match="keeps no logits for a second derivative; use cross_entropy"):
        torch.autograd.grad(loss, hidden, create_graph=True)


@pytest.mark.usefixtures("readers_view")
def test_chunked_refuses_what_cannot_work():
    hidden, weight, bias, targets = linear_problem()
    with pytest.raises(ValueError, match="hidden states are 5 wide, the weight expects 4"):
        chunked_cross_entropy(hidden, weight[:, :4], targets)
    with pytest.raises(ValueError, match=r"hidden \(3, 7, 5\) needs targets of shape \(3, 7\), got \(3, 6\)"):
        chunked_cross_entropy(hidden, weight, targets[:, :6])
    with pytest.raises(ValueError, match="chunk is 0, expected at least 1"):
        chunked_cross_entropy(hidden, weight, targets, bias, chunk=0)
    with pytest.raises(ValueError, match="reduction is 'none', a chunked loss gives 'mean' or 'sum'"):
        chunked_cross_entropy(hidden, weight, targets, reduction="none")
