"""The same equalities on a CUDA device, where other kernels do the work."""

import pytest
import torch

from lmtl_course.attention import KVCache, MultiHeadAttention, attention, causal_mask, padding_mask, tiled_attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("causal", [False, True])
def test_tiles_equal_the_equation(causal):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 37, 16, device="cuda", dtype=torch.float64, requires_grad=True) for _ in range(3))
    whole = attention(q, k, v, causal_mask(37, device="cuda") if causal else None)[0]
    tiled = tiled_attention(q, k, v, causal=causal, tile=8)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-10)
    upstream = torch.randn_like(whole)
    for ours, reference in zip(
        torch.autograd.grad(tiled, (q, k, v), upstream), torch.autograd.grad(whole, (q, k, v), upstream), strict=True
    ):
        torch.testing.assert_close(ours, reference, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_fused_kernels_equal_the_written_out_path_with_rows_that_see_nothing(dtype, kv_heads):
    torch.manual_seed(1)
    layer = MultiHeadAttention(64, 4, kv_heads, causal=True).to("cuda", dtype)
    x = torch.randn(3, 16, 64, device="cuda", dtype=dtype, requires_grad=True)
    mask = padding_mask(torch.tensor([16, 5, 0], device="cuda"), 16).flip(-1)
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    for given in (None, mask):
        fast, (slow, _) = layer(x, mask=given), layer(x, mask=given, need_weights=True)
        torch.testing.assert_close(fast, slow, rtol=tolerance, atol=tolerance)
        upstream = torch.randn_like(fast)
        (ours,), (reference,) = torch.autograd.grad(fast, x, upstream), torch.autograd.grad(slow, x, upstream)
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance)


@torch.no_grad()
def test_cached_equals_at_once():
    torch.manual_seed(2)
    layer = MultiHeadAttention(24, 6, kv_heads=2, causal=True, rotary=True, qk_norm=True).to("cuda", torch.float64)
    x, cache = torch.randn(2, 20, 24, device="cuda", dtype=torch.float64), KVCache()
    parts = [layer(part, cache=cache) for part in x.split([7, 1, 1, 11], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), layer(x), rtol=0, atol=1e-10)


def test_memory_of_tiles_grows_linearly():
    def peak(queries):
        q, k, v = (torch.randn(queries, 64, device="cuda", requires_grad=True) for _ in range(3))
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        tiled_attention(q, k, v, causal=True).sum().backward()
        return torch.cuda.max_memory_allocated() - before

    peak(1024)  # the library's workspace is allocated once
    assert peak(16_384) < 10 * peak(4096), "four times the tokens; the square would be sixteen times"
