"""The same losses where memory matters most: on a CUDA device."""

import pytest
import torch
from torch.nn import functional as F

from lmtl_course.losses import chunked_cross_entropy, cross_entropy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def problem(dtype: torch.dtype, tokens: int = 509, width: int = 64, vocab: int = 4099):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator).to("cuda", dtype).requires_grad_()
    weight = (torch.randn(vocab, width, generator=generator) / width**0.5).to("cuda", dtype).requires_grad_()
    targets = torch.randint(vocab, (tokens,), generator=generator).to("cuda")
    targets[::5] = -100
    return hidden, weight, targets


def test_values_and_gradients_in_float64():
    hidden, weight, targets = problem(torch.float64)
    reference = F.cross_entropy(hidden @ weight.T, targets)
    expected = torch.autograd.grad(reference, (hidden, weight))
    for loss in (cross_entropy(hidden @ weight.T, targets), chunked_cross_entropy(hidden, weight, targets, chunk=100)):
        torch.testing.assert_close(loss, reference, rtol=0, atol=1e-12)
        for got, wanted in zip(torch.autograd.grad(loss, (hidden, weight)), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_as_exact_as_the_plain_loss(dtype):
    hidden, weight, targets = problem(torch.float32)
    exact = torch.autograd.grad(F.cross_entropy(hidden @ weight.T, targets), (hidden, weight))
    scale = 2.0**16  # as a gradient scaler does for float16
    errors = []
    for chunked in (False, True):
        with torch.autocast("cuda", dtype):
            loss = (
                chunked_cross_entropy(hidden, weight, targets, chunk=100)
                if chunked
                else cross_entropy(hidden @ weight.T, targets)
            )
        got = torch.autograd.grad(loss * scale, (hidden, weight))
        errors.append([((g / scale - e).norm() / e.norm()).item() for g, e in zip(got, exact, strict=True)])
    for plain, ours in zip(*errors, strict=True):
        assert ours < 1.5 * plain + 1e-4


def test_chunks_keep_the_peak_below_a_third():
    peaks = []
    for chunked in (False, True):
        hidden, weight, targets = problem(torch.float32, tokens=4096, vocab=32768)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss = (
            chunked_cross_entropy(hidden, weight, targets, chunk=256)
            if chunked
            else cross_entropy(hidden @ weight.T, targets)
        )
        loss.backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < peaks[0] / 3
