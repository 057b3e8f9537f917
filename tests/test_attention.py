"""The equation against torch's two implementations, in values and gradients, and each rung of the climb against it."""

import itertools

import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from lmtl_course.attention import (
    KVCache,
    MultiHeadAttention,
    _written_out,
    attention,
    causal_mask,
    padding_mask,
    rotary,
    sinusoidal,
    tiled_attention,
)

B, H, Q, K, D, D_V = 2, 3, 5, 11, 7, 13  # all different primes, so that a swapped axis cannot pass
CLOSE = {"rtol": 0, "atol": 1e-10}


def leaf(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def some_mask():
    """Random, with one query of one text that may look nowhere."""
    mask = torch.rand(B, 1, Q, K) > 0.4
    mask[1, 0, 3] = False
    return mask


def compare(ours, reference, inputs, atol=1e-10):
    """Equal values, and equal gradients for a random upstream gradient (a plain sum would hide a permuted one)."""
    torch.testing.assert_close(ours, reference, rtol=0, atol=atol)
    upstream = torch.randn_like(ours)
    pairs = zip(
        torch.autograd.grad(ours, inputs, upstream, retain_graph=True),
        torch.autograd.grad(reference, inputs, upstream, retain_graph=True),
        strict=True,
    )
    for left, right in pairs:
        torch.testing.assert_close(left, right, rtol=0, atol=atol)


@pytest.fixture
def unchecked_shapes():
    """Outside pytest nobody checks the annotations: what a reader then sees are the functions' own messages."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


# ------------------------------------------------------------------------------------------------- the equation


def test_hand_computed_two_keys():
    q, k, v = torch.tensor([[2.0, 0, 0, 0]]), torch.eye(4)[:2], torch.tensor([[0.0], [1.0]])
    output, weights = attention(q, k, v)  # scores 2 / sqrt(4) = 1 and 0
    e = torch.tensor(1.0).exp()
    torch.testing.assert_close(weights, torch.stack([e, torch.tensor(1.0)])[None] / (1 + e))
    torch.testing.assert_close(output, (1 / (1 + e)).view(1, 1))


@pytest.mark.parametrize("masked", [False, True])
def test_equals_scaled_dot_product_attention(masked):
    torch.manual_seed(0)
    q, k, v, mask = leaf(B, H, Q, D), leaf(B, H, K, D), leaf(B, H, K, D_V), some_mask() if masked else None
    output, weights = attention(q, k, v, mask)
    compare(output, scaled_dot_product_attention(q, k, v, mask), (q, k, v))
    sums = torch.ones(B, H, Q, dtype=torch.float64)
    if masked:
        sums[1, :, 3] = 0.0
    torch.testing.assert_close(weights.sum(-1), sums, **CLOSE)


def test_a_query_that_may_look_nowhere_gets_zeros_and_sends_no_gradient():
    torch.manual_seed(1)
    q, k, v = leaf(B, H, Q, D), leaf(B, H, K, D), leaf(B, H, K, D_V)
    nowhere = torch.zeros(Q, K, dtype=torch.bool)
    for output in (attention(q, k, v, nowhere)[0], tiled_attention(q, k, v, nowhere, tile=3)):
        assert torch.equal(output, torch.zeros_like(output))
        for gradient in torch.autograd.grad(output, (q, k, v), torch.randn_like(output)):
            assert torch.equal(gradient, torch.zeros_like(gradient))


def test_what_is_masked_cannot_matter():
    torch.manual_seed(2)
    q, k, v, mask = leaf(B, H, Q, D), leaf(B, H, K, D), leaf(B, H, K, D_V), padding_mask(torch.tensor([4, 11]), K)
    k_changed, v_changed = k.detach().clone(), v.detach().clone()
    k_changed[0, :, 4:] = 1e6
    v_changed[0, :, 4:] = -1e6
    assert torch.equal(attention(q, k, v, mask)[0], attention(q, k_changed, v_changed, mask)[0])
    alone = attention(q[:1], k[:1, :, :4], v[:1, :, :4])[0]
    torch.testing.assert_close(attention(q, k, v, mask)[0][:1], alone, **CLOSE)


def test_the_order_of_the_keys_does_not_matter():
    torch.manual_seed(3)
    q, k, v, order = leaf(B, H, Q, D), leaf(B, H, K, D), leaf(B, H, K, D_V), torch.randperm(K)
    torch.testing.assert_close(attention(q, k, v)[0], attention(q, k[:, :, order], v[:, :, order])[0], **CLOSE)


# ---------------------------------------------------------------------------------------------------------- masks


def test_masks_by_hand():
    assert causal_mask(3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert causal_mask(2, 4).int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert padding_mask(torch.tensor([2, 0, 3]), 3)[:, 0, 0].int().tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("options", [{}, {"rotary": True, "qk_norm": True}, {"kv_heads": 1}])
def test_the_future_never_reaches_the_past(options):
    torch.manual_seed(4)
    layer, x = MultiHeadAttention(12, 3, causal=True, **options), torch.randn(B, K, 12)
    changed = x.clone()
    changed[:, 6:] += 1.0
    before, after = layer(x), layer(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.isclose(before[:, 6:], after[:, 6:]).all(-1).any()


# ------------------------------------------------------------------------------------------------------ positions


def test_rotary_is_a_complex_product():
    torch.manual_seed(5)
    x, positions = torch.randn(B, H, Q, 6, dtype=torch.float64), torch.tensor([0, 1, 4, 9, 16])
    theta = 10_000.0 ** (-2 * torch.arange(3, dtype=torch.float64) / 6)
    turn = torch.polar(torch.ones(Q, 3, dtype=torch.float64), positions[:, None] * theta)
    y = torch.complex(x[..., :3], x[..., 3:]) * turn
    torch.testing.assert_close(rotary(x, positions), torch.cat([y.real, y.imag], -1), **CLOSE)


def test_rotary_equals_llama():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    torch.manual_seed(6)
    q, k, positions = torch.randn(B, H, Q, 8), torch.randn(B, 1, Q, 8), torch.arange(3, 3 + Q)
    angles = positions[:, None] * 10_000.0 ** (-torch.arange(0, 8, 2) / 8)
    angles = torch.cat([angles, angles], -1)[None]
    q_ref, k_ref = llama.apply_rotary_pos_emb(q, k, angles.cos(), angles.sin())
    torch.testing.assert_close(rotary(q, positions), q_ref, rtol=0, atol=1e-6)
    torch.testing.assert_close(rotary(k, positions), k_ref, rtol=0, atol=1e-6)


def test_rotary_scores_depend_on_the_distance_alone():
    torch.manual_seed(7)
    q, k = torch.randn(2, Q, 8, dtype=torch.float64)
    scores = [rotary(q, torch.arange(Q) + shift) @ rotary(k, torch.arange(Q) + shift).mT for shift in (0, 1, 1000)]
    torch.testing.assert_close(scores[0], scores[1], **CLOSE)
    torch.testing.assert_close(scores[0], scores[2], **CLOSE)
    assert not torch.allclose(scores[0], rotary(q, 2 * torch.arange(Q)) @ rotary(k, 2 * torch.arange(Q)).mT)
    torch.testing.assert_close(rotary(q, torch.arange(Q)).norm(dim=-1), q.norm(dim=-1), **CLOSE)


def test_rotary_keeps_the_type_and_computes_angles_in_float32():
    x = torch.randn(Q, 8, dtype=torch.bfloat16)
    positions = torch.arange(1000, 1000 + Q)  # bfloat16 cannot even tell these positions apart
    y = rotary(x, positions)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), rotary(x.float(), positions), rtol=0.02, atol=0.02)


def test_sinusoidal_by_hand_and_its_shift_is_a_rotation():
    table = sinusoidal(torch.arange(K), 6)
    theta = 10_000.0 ** (-2 / 6)
    torch.testing.assert_close(table[4, 2:4], torch.tensor([4 * theta, 4 * theta]).sin() * torch.tensor([1.0, 0.0])
                               + torch.tensor([4 * theta, 4 * theta]).cos() * torch.tensor([0.0, 1.0]))  # fmt: skip
    torch.testing.assert_close(table.norm(dim=-1), torch.full((K,), 3.0).sqrt())
    inner = table @ table.T  # depends on the distance alone
    torch.testing.assert_close(inner[1:, 1:], inner[:-1, :-1])


# ----------------------------------------------------------------------------------------------------- in tiles


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tile", [1, 2, 3, 64])
def test_tiles_equal_the_equation(causal, masked, tile):
    torch.manual_seed(8)
    q, k, v, mask = leaf(B, H, Q, D), leaf(B, H, K, D), leaf(B, H, K, D_V), some_mask() if masked else None
    whole = mask
    if causal:
        whole = causal_mask(Q, K) if mask is None else mask & causal_mask(Q, K)
    compare(tiled_attention(q, k, v, mask, causal, tile), attention(q, k, v, whole)[0], (q, k, v))


def test_tiles_survive_scores_far_beyond_what_exp_can_hold():
    q, k, v = torch.full((1, 4), 300.0), torch.linspace(-300, 300, 20)[:, None].expand(20, 4), torch.eye(20)
    output = tiled_attention(q, k, v, tile=3)  # scores up to 180,000; float32's exp overflows at 89
    torch.testing.assert_close(output, attention(q, k, v)[0])
    assert output.argmax() == 19


def test_tiles_in_half_precision_sum_in_float32():
    torch.manual_seed(9)
    q, k, v = torch.randn(3, H, 97, 16)
    exact = attention(q.double(), k.double(), v.double())[0]
    tiled = tiled_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), tile=7)
    assert tiled.dtype == torch.bfloat16
    assert (tiled.double() - exact).abs().max() < 0.02


def test_tiles_keep_nothing_that_grows_with_the_square():
    def kept(queries):
        saved = []
        q, k, v = (torch.randn(queries, 8, requires_grad=True) for _ in range(3))
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
            tiled_attention(q, k, v, causal=True, tile=16)
        return sum(saved)

    assert kept(256) == 4 * kept(64)


def test_tiles_refuse_a_second_derivative():
    q = leaf(Q, D)
    (gradient,) = torch.autograd.grad(tiled_attention(q, q, q).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# -------------------------------------------------------------------------------------------------------- layers


def twin(heads=3, width=21, **options):
    """Our layer and torch's with the same weights, in double precision."""
    ours = MultiHeadAttention(width, heads, **options).double()
    reference = nn.MultiheadAttention(width, heads, batch_first=True).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=0.5)
        reference.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        reference.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        reference.out_proj.weight.copy_(ours.output.weight)
        reference.out_proj.bias.copy_(ours.output.bias)
    return ours, reference


def gradients_of(ours, reference):
    for part, row in (("query", 0), ("key", 1), ("value", 2)):
        for name in ("weight", "bias"):
            whole = getattr(reference, f"in_proj_{name}").grad
            torch.testing.assert_close(getattr(getattr(ours, part), name).grad, whole.chunk(3)[row], **CLOSE)
    torch.testing.assert_close(ours.output.weight.grad, reference.out_proj.weight.grad, **CLOSE)
    torch.testing.assert_close(ours.output.bias.grad, reference.out_proj.bias.grad, **CLOSE)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("case", ["plain", "causal", "padding", "cross"])
def test_layer_equals_torch(case, need_weights):
    torch.manual_seed(10)
    ours, reference = twin(causal=case == "causal")
    x, memory, lengths = leaf(B, Q, 21), leaf(B, K, 21), torch.tensor([3, 5])
    source, mask, theirs = x, None, {}
    if case == "causal":
        theirs = {"attn_mask": ~causal_mask(Q)}  # True means the opposite there: may not look
    if case == "padding":
        mask, theirs = padding_mask(lengths, Q), {"key_padding_mask": torch.arange(Q) >= lengths[:, None]}
    if case == "cross":
        source, lengths = memory, torch.tensor([11, 2])
        mask, theirs = padding_mask(lengths, K), {"key_padding_mask": torch.arange(K) >= lengths[:, None]}
    y = ours(x, memory if case == "cross" else None, mask, need_weights=need_weights)
    y_ref, weights_ref = reference(x, source, source, average_attn_weights=False, **theirs)
    if need_weights:
        y, weights = y
        torch.testing.assert_close(weights, weights_ref, **CLOSE)
    compare(y, y_ref, (x, memory) if case == "cross" else (x,))
    upstream = torch.randn_like(y)
    y.backward(upstream, retain_graph=True)
    y_ref.backward(upstream)
    gradients_of(ours, reference)


@pytest.mark.parametrize("options", [{}, {"kv_heads": 2}, {"rotary": True, "qk_norm": True}, {"bias": False}])
def test_both_paths_agree(options):
    torch.manual_seed(11)
    layer = MultiHeadAttention(24, 6, causal=True, **options).double()
    x = leaf(B, Q, 24)
    mask = padding_mask(torch.tensor([4, 0]), Q).flip(-1)  # padded on the left; the second text is nothing but padding
    for given in (None, mask, torch.rand(B, 6, Q, Q) > 0.5):
        slow, weights = layer(x, mask=given, need_weights=True)
        compare(layer(x, mask=given), slow, (x, *layer.parameters()))
        assert weights.shape == (B, 6, Q, Q)
    assert torch.equal(layer(x, mask=mask)[1], layer.output.bias.expand(Q, 24) if "bias" not in options else 0 * x[1])


@pytest.mark.parametrize("shape", [None, (Q, K), (B, 1, 1, K), (B, 3, Q, K)])
def test_short_texts_in_bfloat16_take_the_written_out_way_to_the_same_equation(shape):
    torch.manual_seed(12)
    q, k, v = leaf(B, 3, Q, 7), leaf(B, 3, K, 7), leaf(B, 3, K, 7)
    mask = None if shape is None else torch.rand(shape) > 0.4
    if mask is not None:
        mask[..., 0] = True  # each query may look somewhere, as the layer sees to
    compare(_written_out(q, k, v, mask, 0.0), attention(q, k, v, mask)[0], (q, k, v))


@pytest.mark.parametrize("options", [{}, {"kv_heads": 2}, {"rotary": True, "qk_norm": True}])
def test_autocast_on_a_cpu_changes_the_way_and_not_the_result(options, monkeypatch):
    torch.manual_seed(13)
    layer, x = MultiHeadAttention(24, 6, causal=True, **options), torch.randn(B, Q, 24)
    mask = padding_mask(torch.tensor([4, 0]), Q).flip(-1)
    wanted = [layer(x, mask=given) for given in (None, mask)]
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", None)  # calling it would fail
    with torch.autocast("cpu", torch.bfloat16):
        found = [layer(x, mask=given) for given in (None, mask)]
    for ours, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.float(), reference, rtol=0, atol=0.02)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError):
        layer(x)  # without a backward pass torch's kernel is the faster one


def test_grouped_heads_are_full_heads_that_share():
    torch.manual_seed(12)
    grouped, full = MultiHeadAttention(24, 6, kv_heads=2).double(), MultiHeadAttention(24, 6).double()
    with torch.no_grad():
        for name, parameter in full.named_parameters():
            part = dict(grouped.named_parameters())[name]
            if name.startswith(("key", "value")):  # heads 0, 1, 2 read what group 0 offers, heads 3, 4, 5 group 1's
                part = part.unflatten(0, (2, 4)).repeat_interleave(3, 0).flatten(0, 1)
            parameter.copy_(part)
    x = leaf(B, Q, 24)
    compare(grouped(x), full(x), (x,))


def test_qk_norm_bounds_the_scores_and_forgets_lengths():
    torch.manual_seed(13)
    layer, x = MultiHeadAttention(12, 3, qk_norm=True, bias=False).double(), torch.randn(B, Q, 12).double()
    _, weights = layer(100 * x, need_weights=True)
    _, same = layer(x, need_weights=True)
    torch.testing.assert_close(weights, same, rtol=0, atol=1e-6)
    spread = weights.log().amax(-1) - weights.log().amin(-1)  # the largest minus the smallest score of each row
    assert spread.max() <= 2 * 4**0.5


def test_zero_output_projection_adds_nothing_and_still_learns():
    torch.manual_seed(14)
    layer, x = MultiHeadAttention(12, 3, zero_init_output=True), torch.randn(B, Q, 12)
    y = layer(x)
    assert torch.equal(y, torch.zeros_like(y))
    y.backward(torch.randn_like(y))
    assert layer.output.weight.grad.abs().min() > 0


def test_dropout_only_in_training_and_keeps_the_mean():
    torch.manual_seed(15)
    layer, x = MultiHeadAttention(12, 3, dropout=0.25).double(), torch.randn(1, Q, 12, dtype=torch.float64)
    expected = layer.eval()(x)
    assert torch.equal(expected, layer(x))
    layer.train()
    with torch.no_grad():
        for ask in (False, True):
            runs = [layer(x.expand(2000, -1, -1), need_weights=ask)]
            runs = runs[0][0] if ask else runs[0]
            assert not torch.allclose(runs[0], runs[1])
            error = (runs.mean(0) - expected[0]).abs() / (runs.std(0) / 2000**0.5)
            assert error.max() < 5, "five standard errors"


# --------------------------------------------------------------------------------------------------------- cache


@pytest.mark.parametrize("chunks", [[20], [1] * 20, [7, 1, 1, 11], [19, 1]])
@pytest.mark.parametrize("options", [{}, {"rotary": True, "qk_norm": True}, {"kv_heads": 2, "rotary": True}])
@pytest.mark.parametrize("paths", [[False], [True], [False, True]])  # the fused, the written-out, in turn
@torch.no_grad()
def test_cached_in_any_chunks_equals_at_once(chunks, options, paths):
    torch.manual_seed(16)
    layer, x = MultiHeadAttention(24, 6, causal=True, **options).double(), torch.randn(B, 20, 24, dtype=torch.float64)
    cache, ask = KVCache(capacity=2), itertools.cycle(paths)
    parts = [layer(part, cache=cache, need_weights=next(ask)) for part in x.split(chunks, 1)]
    parts = [part[0] if isinstance(part, tuple) else part for part in parts]
    torch.testing.assert_close(torch.cat(parts, 1), layer(x), **CLOSE)
    assert len(cache) == 20


@torch.no_grad()
def test_cached_with_padding_on_the_left_equals_each_text_alone():
    torch.manual_seed(17)
    layer = MultiHeadAttention(24, 6, causal=True, rotary=True).double()
    long, short = torch.randn(1, 6, 24, dtype=torch.float64), torch.randn(1, 4, 24, dtype=torch.float64)
    x = torch.cat([long, torch.cat([torch.zeros(1, 2, 24, dtype=torch.float64), short], 1)])
    mask = (torch.arange(6) >= torch.tensor([0, 2])[:, None])[:, None, None]
    positions = (torch.arange(6) - torch.tensor([0, 2])[:, None]).clamp(min=0)
    cache = KVCache()
    parts = [
        layer(x[:, :5], mask=mask[..., :5], cache=cache, positions=positions[:, :5]),
        layer(x[:, 5:], mask=mask, cache=cache, positions=positions[:, 5:]),
    ]
    y = torch.cat(parts, 1)
    torch.testing.assert_close(y[:1], layer(long), **CLOSE)
    torch.testing.assert_close(y[1:, 2:], layer(short), **CLOSE)


@torch.no_grad()
def test_a_memory_is_projected_once():
    torch.manual_seed(18)
    layer = MultiHeadAttention(24, 6, qk_norm=True).double()
    x, memory = torch.randn(B, Q, 24, dtype=torch.float64), torch.randn(B, K, 24, dtype=torch.float64)
    expected, cache, calls = layer(x, memory), KVCache(), []
    layer.key.register_forward_hook(lambda *_: calls.append(1))
    parts = [layer(part, memory, cache=cache) for part in x.split(1, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), expected, **CLOSE)
    assert (len(cache), len(calls)) == (K, 1)


def test_cache_doubles_truncates_and_selects():
    cache = KVCache(capacity=4)
    tokens = torch.arange(2.0 * 3 * 9 * 5).view(2, 3, 9, 5)
    sizes = []
    for t in range(9):
        k, v = cache.append(tokens[:, :, t : t + 1], -tokens[:, :, t : t + 1])
        sizes.append(cache.capacity)
        assert torch.equal(k, tokens[:, :, : t + 1])
        assert torch.equal(v, -k)
    assert sizes == [4] * 4 + [8] * 4 + [16]
    cache.truncate(2)
    k, _ = cache.append(tokens[:, :, 7:9], tokens[:, :, 7:9])
    assert torch.equal(k, tokens[:, :, [0, 1, 7, 8]])
    cache.select(torch.tensor([1, 1, 0]))
    assert torch.equal(cache.parts[0], tokens[[1, 1, 0]][:, :, [0, 1, 7, 8]])


@pytest.mark.usefixtures("unchecked_shapes")
def test_keys_and_values_in_one_tensor_are_the_same_and_what_does_not_fit_is_refused():
    k, v = torch.randn(2, 2, 3, 4, 5).unbind()
    one, two = KVCache(), KVCache()
    assert one.parts == ()
    one.select(torch.tensor([0]))  # of nothing
    for t in range(4):
        found = one.append_both(torch.cat([k, v], 1)[:, :, t : t + 1])
        assert all(map(torch.equal, found, two.append(k[:, :, t : t + 1], v[:, :, t : t + 1])))
    assert torch.equal(one.parts[0], k)
    assert torch.equal(one.parts[1], v)
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 5\).*\(2, 3, 4, 5\)"):
        two.append(k[:, :1], v)
    with pytest.raises(ValueError, match="3 heads"):
        one.append_both(torch.cat([k, v], 1)[:, :3])
    with pytest.raises(ValueError, match="cannot follow"):
        one.append_both(k[:, :2])
    assert len(one) == len(two) == 4


def test_torch_is_causal_is_wrong_with_a_cache():
    """Why the layer makes its own mask for several new tokens: torch counts the diagonal from the first key."""
    torch.manual_seed(19)
    q, k, v = torch.randn(1, 2, D), torch.randn(1, Q, D), torch.randn(1, Q, D)
    theirs = scaled_dot_product_attention(q, k, v, is_causal=True)
    assert not torch.allclose(theirs, attention(q, k, v, causal_mask(2, Q))[0], atol=1e-3)
    torch.testing.assert_close(theirs, attention(q, k, v, torch.ones(2, Q).tril().bool())[0])


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_both_values_and_the_remedy():
    q, k, v, layer = torch.zeros(Q, D), torch.zeros(K, D), torch.zeros(K, D_V), MultiHeadAttention(12, 3)
    x, causal = torch.zeros(B, Q, 12), MultiHeadAttention(12, 3, causal=True)
    for call, message in [
        (lambda: attention(q, torch.zeros(K, 8), v), r"queries \(5, 7\), keys \(11, 8\)"),
        (lambda: attention(q, k, torch.zeros(4, D)), r"values \(4, 7\) do not fit"),
        (lambda: tiled_attention(q, torch.zeros(K, 8), v), r"keys \(11, 8\)"),
        (lambda: tiled_attention(q, k, v, tile=0), "tile is 0"),
        (lambda: tiled_attention(k, q, q, causal=True), "11 causal queries stand at the last of 5 positions"),
        (lambda: causal_mask(5, 3), "5 queries stand at the last of 3 positions"),
        (lambda: padding_mask(torch.tensor([2, 9]), 8), r"lengths are \[2, 9\], each must lie between 0 and 8"),
        (lambda: rotary(q, torch.arange(Q)), "7 coordinates cannot be split into pairs"),
        (lambda: sinusoidal(torch.arange(3), 5), "5 coordinates cannot be split"),
        (lambda: MultiHeadAttention(10, 3), "d_model=10, heads=3"),
        (lambda: MultiHeadAttention(12, 4, kv_heads=3), "kv_heads=3"),
        (lambda: MultiHeadAttention(9, 3, rotary=True), "rotary needs it even"),
        (lambda: MultiHeadAttention(12, 3, dropout=1.0), r"dropout=1\.0"),
        (lambda: KVCache(0), "capacity=0"),
        (lambda: causal(x, memory=x), "memory for a layer with causal=True"),
        (lambda: layer(x, mask=torch.ones(B, Q).bool()), r"mask has shape \(2, 5\), expected \(5, 5\)"),
        (lambda: layer(x, mask=torch.ones(B, Q, Q).bool()), r"mask has shape \(2, 5, 5\)"),
        (lambda: causal(x, cache=KVCache()), r"call the model under torch\.no_grad"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with torch.no_grad():
        cache = KVCache()
        layer(x, cache=cache)
        with pytest.raises(ValueError, match="start a new cache"):
            layer(x[:1], cache=cache)
        with pytest.raises(ValueError, match="cannot keep 6 tokens of 5"):
            cache.truncate(6)
