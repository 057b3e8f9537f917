"""The same numbers on a CUDA device, against cuDNN in float64 and within its padded batches."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lmtl_course.recurrent import GRU, LSTM, RNN, clip_gradient

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

B, T, D_IN, D_HIDDEN = 3, 7, 2, 5
LENGTHS = torch.tensor([4, 7, 1])
PAIRS = [(RNN, torch.nn.RNN), (LSTM, torch.nn.LSTM), (GRU, torch.nn.GRU)]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_equals_cudnn_in_values_and_gradients(ours, theirs):
    torch.manual_seed(0)
    reference = theirs(D_IN, D_HIDDEN, 2, batch_first=True, bidirectional=True, device="cuda", dtype=torch.float64)
    layer = ours.from_torch(reference)
    x = torch.randn(B, T, D_IN, dtype=torch.float64, device="cuda", requires_grad=True)
    y, y_ref = layer(x)[0], reference(x)[0]
    upstream = torch.randn_like(y)
    torch.testing.assert_close(y, y_ref, rtol=0, atol=1e-10)
    found, wanted = (
        torch.autograd.grad(out, (x, *m.parameters()), upstream) for out, m in ((y, layer), (y_ref, reference))
    )
    torch.testing.assert_close(found[0], wanted[0], rtol=0, atol=1e-10)
    rows = layer.rows()
    for ours_grad, theirs_grad in zip(found[1:3], wanted[1:3], strict=True):
        torch.testing.assert_close(ours_grad, theirs_grad[rows], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_padded_batch_equals_packed_sequence(ours, theirs):
    torch.manual_seed(0)
    reference = theirs(D_IN, D_HIDDEN, 2, batch_first=True, bidirectional=True, device="cuda", dtype=torch.float64)
    x = torch.randn(B, T, D_IN, dtype=torch.float64, device="cuda")
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    wanted, _ = pad_packed_sequence(reference(packed)[0], batch_first=True)
    for lengths in (LENGTHS, LENGTHS.cuda()):
        torch.testing.assert_close(ours.from_torch(reference)(x, lengths=lengths)[0], wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_trains_in_half_precision(dtype):
    torch.manual_seed(0)
    layer, x = LSTM(D_IN, D_HIDDEN, layers=2).cuda(), torch.randn(B, T, D_IN, device="cuda")
    exact = layer(x)[0]
    with torch.autocast("cuda", dtype):
        y = layer(x)[0]
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), exact, rtol=0, atol=0.03)
    y.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in layer.parameters())
    assert clip_gradient(layer.parameters(), 0.1).device.type == "cuda"
