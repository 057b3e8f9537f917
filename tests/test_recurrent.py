"""Oracles against torch.nn, hand-computed numbers, and what padding, clipping and wrong input must do."""

import itertools

import pytest
import torch
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lmtl_course.recurrent import (
    GRU,
    LSTM,
    RNN,
    LSTMScan,
    RNNScan,
    clip_gradient,
    gru_step,
    lstm_step,
    multiplier,
    rnn_step,
    unroll,
)

B, T, D_IN, D_HIDDEN = 3, 7, 2, 5  # all prime and different, so that a swapped axis cannot pass
LENGTHS = torch.tensor([4, 7, 1])
PAIRS = [(RNN, torch.nn.RNN), (LSTM, torch.nn.LSTM), (GRU, torch.nn.GRU)]
SHAPES = list(itertools.product([1, 2, 3], [False, True]))  # layers, bidirectional


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def random_state(layer, batch=B):
    shape = (layer.layers * layer.directions, batch, D_HIDDEN)
    state = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(layer.parts))
    return state if layer.parts == 2 else state[0]


def pair(ours, theirs, layers, bidirectional, **options):
    """torch's layer with its own random weights, both biases included, and ours that was read from it."""
    reference = theirs(D_IN, D_HIDDEN, layers, batch_first=True, bidirectional=bidirectional, **options).double()
    return ours.from_torch(reference), reference


def assert_same_gradients(layer, reference, x, state, y, final, y_ref, final_ref):
    """Backpropagate the same random numbers from every output of both and compare everything they reach."""
    upstream = [torch.randn_like(v) for v in (y, *parts(final))]
    inputs = (x, *parts(state))
    ours = torch.autograd.grad((y, *parts(final)), (*inputs, *layer.parameters()), upstream)
    theirs = torch.autograd.grad((y_ref, *parts(final_ref)), (*inputs, *reference.parameters()), upstream)
    for a, b in zip(ours, theirs[: len(inputs)], strict=False):
        same(a, b)
    found = dict(zip([name for name, _ in reference.named_parameters()], theirs[len(inputs) :], strict=True))
    mine = dict(zip([name for name, _ in layer.named_parameters()], ours[len(inputs) :], strict=True))
    rows = layer.rows()
    for k, (end, _) in enumerate(layer.named_cells()):
        same(mine[f"cells.{k}.w_xh"], found["weight_ih" + end][rows])
        same(mine[f"cells.{k}.w_hh"], found["weight_hh" + end][rows])
        same(mine[f"cells.{k}.b_h"], found["bias_ih" + end][rows])
        if isinstance(layer, GRU):
            same(mine[f"cells.{k}.b_n"], found["bias_hh" + end][2 * D_HIDDEN :])


@pytest.mark.parametrize(("layers", "bidirectional"), SHAPES)
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_equals_torch_in_values_and_gradients(ours, theirs, layers, bidirectional):
    layer, reference = pair(ours, theirs, layers, bidirectional)
    x, state = torch.randn(B, T, D_IN, dtype=torch.float64, requires_grad=True), random_state(layer)
    y, final = layer(x, state)
    y_ref, final_ref = reference(x, state)
    same(y, y_ref)
    for a, b in zip(parts(final), parts(final_ref), strict=True):
        same(a, b)
    assert_same_gradients(layer, reference, x, state, y, final, y_ref, final_ref)


@pytest.mark.parametrize(("layers", "bidirectional"), SHAPES)
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_padded_batch_equals_packed_sequence(ours, theirs, layers, bidirectional):
    layer, reference = pair(ours, theirs, layers, bidirectional)
    x, state = torch.randn(B, T, D_IN, dtype=torch.float64, requires_grad=True), random_state(layer)
    y, final = layer(x, state, LENGTHS)
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    y_ref, final_ref = reference(packed, state)
    y_ref, _ = pad_packed_sequence(y_ref, batch_first=True)
    same(y, y_ref)
    for a, b in zip(parts(final), parts(final_ref), strict=True):
        same(a, b)
    assert_same_gradients(layer, reference, x, state, y, final, y_ref, final_ref)


@pytest.mark.parametrize("nothing", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("ours", [RNN, LSTM, GRU])
def test_padding_never_changes_a_result(ours, nothing):
    layer = ours(D_IN, D_HIDDEN, layers=2, bidirectional=True).double()
    x = torch.randn(B, T, D_IN, dtype=torch.float64)
    spoiled = x.clone()
    for row, length in enumerate(LENGTHS):
        spoiled[row, length:] = nothing
    gradients = []
    for batch in (x, spoiled):
        layer.zero_grad()
        y, final = layer(batch, lengths=LENGTHS)
        (y.square().sum() + sum(part.square().sum() for part in parts(final))).backward()
        gradients.append([y, *parts(final), *(p.grad for p in layer.parameters())])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
    for row, length in enumerate(LENGTHS):  # and each sentence alone gives what it gives in the batch
        y, final = layer(x[row : row + 1, :length])
        same(gradients[0][0][row : row + 1, :length], y)
        for a, b in zip(gradients[0][1 : 1 + layer.parts], parts(final), strict=True):
            same(a[:, row : row + 1], b)


@pytest.mark.parametrize(("layers", "bidirectional"), SHAPES)
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_to_torch_computes_the_same_and_comes_back_unchanged(ours, theirs, layers, bidirectional):
    layer = ours(D_IN, D_HIDDEN, layers, bidirectional, dropout=0.25).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_()
    reference = layer.to_torch()
    assert type(reference) is theirs
    assert (reference.num_layers, reference.bidirectional, reference.dropout) == (
        layers,
        bidirectional,
        0.25 * (layers > 1),
    )
    x = torch.randn(B, T, D_IN, dtype=torch.float64)
    same(layer.eval()(x)[0], reference.eval()(x)[0])
    back = ours.from_torch(reference)
    for a, b in zip(layer.parameters(), back.parameters(), strict=True):
        assert torch.equal(a, b)


def test_from_torch_reads_relu_and_missing_biases():
    layer, reference = pair(RNN, torch.nn.RNN, 2, True, nonlinearity="relu", bias=False)
    x = torch.randn(B, T, D_IN, dtype=torch.float64, requires_grad=True)
    y, _ = layer(x)
    y_ref, _ = reference(x)
    same(y, y_ref)
    upstream = torch.randn_like(y)
    same(*(torch.autograd.grad(out, x, upstream)[0] for out in (y, y_ref)))
    assert layer.to_torch().nonlinearity == "relu"
    for ours, theirs in PAIRS[1:]:
        layer, reference = pair(ours, theirs, 1, False, bias=False)
        same(layer(x)[0], reference(x)[0])


def weights_and_inputs(gates, state_parts):
    shapes = [(T, B, D_IN), *[(B, D_HIDDEN)] * state_parts]
    shapes += [(gates * D_HIDDEN, D_IN), (gates * D_HIDDEN, D_HIDDEN), (gates * D_HIDDEN,)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("f", ["tanh", "relu"])
def test_rnn_by_hand_equals_autograd_over_the_step(f):
    inputs = weights_and_inputs(1, 1)
    x, h, *weights = inputs
    (slow,) = unroll(lambda *a: rnn_step(*a, f=getattr(torch, f)), x, (h,), tuple(weights))
    fast = RNNScan.apply(*inputs, f)
    same(fast, slow)
    upstream = torch.randn_like(slow)
    for a, b in zip(
        torch.autograd.grad(fast, inputs, upstream), torch.autograd.grad(slow, inputs, upstream), strict=True
    ):
        same(a, b)


@pytest.mark.parametrize(("batch", "seq"), [(B, T), (31, 37)])
def test_float32_equals_torch_with_and_without_packed_products(batch, seq):
    """Packed products exist for float32 only and for long loops only: the tests in float64 do not reach them."""
    reference = torch.nn.LSTM(D_IN, D_HIDDEN, 2, batch_first=True, bidirectional=True)
    layer, x = LSTM.from_torch(reference), torch.randn(batch, seq, D_IN, requires_grad=True)
    state = tuple(torch.randn(4, batch, D_HIDDEN, requires_grad=True) for _ in range(2))
    outputs = [(y, *final) for y, final in (layer(x, state), reference(x, state))]
    upstream = [torch.randn_like(v) for v in outputs[0]]
    found, wanted = (torch.autograd.grad(out, (x, *state), upstream, retain_graph=True) for out in outputs)
    for a, b in zip((*outputs[0], *found), (*outputs[1], *wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    rows = layer.rows()
    for end, cell in layer.named_cells():
        pairs = [(cell.w_xh, "weight_ih"), (cell.w_hh, "weight_hh"), (cell.b_h, "bias_ih")]
        a = torch.autograd.grad(outputs[0], [ours for ours, _ in pairs], upstream, retain_graph=True)
        b = torch.autograd.grad(
            outputs[1], [getattr(reference, n + end) for _, n in pairs], upstream, retain_graph=True
        )
        for ours_grad, theirs_grad in zip(a, b, strict=True):  # sums of up to 1147 float32 numbers
            torch.testing.assert_close(ours_grad, theirs_grad[rows], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_multiplier_is_a_product_with_bias_and_addend(dtype, tolerance):
    w, bias, x, plus = (
        torch.randn(shape, dtype=dtype) for shape in [(D_HIDDEN, T), (D_HIDDEN,), (B, T), (B, D_HIDDEN)]
    )
    for rows, uses in [(B, 1), (B, 1009), (1031, 1)]:  # the number of rows is a hint, not a promise
        torch.testing.assert_close(multiplier(w, rows, None, uses)(x), x @ w.T, rtol=0, atol=tolerance)
        torch.testing.assert_close(multiplier(w, rows, bias, uses)(x), x @ w.T + bias, rtol=0, atol=tolerance)
        torch.testing.assert_close(multiplier(w, rows, None, uses)(x, plus), x @ w.T + plus, rtol=0, atol=tolerance)
        torch.testing.assert_close(
            multiplier(w, rows, bias, uses)(x, plus), x @ w.T + bias + plus, rtol=0, atol=tolerance
        )
        torch.testing.assert_close(multiplier(w.T, rows, None, uses)(plus, x), plus @ w + x, rtol=0, atol=tolerance)
        for gelu in ("none", "tanh"):
            bent = torch.nn.functional.gelu(x @ w.T + bias, approximate=gelu)
            torch.testing.assert_close(multiplier(w, rows, bias, uses, gelu)(x), bent, rtol=0, atol=tolerance)
            bent = torch.nn.functional.gelu(x @ w.T + plus, approximate=gelu)
            torch.testing.assert_close(multiplier(w, rows, None, uses, gelu)(x, plus), bent, rtol=0, atol=tolerance)


@pytest.mark.parametrize("used", [(0,), (1,), (0, 1)])
def test_lstm_by_hand_equals_autograd_over_the_step(used):
    inputs = weights_and_inputs(4, 2)
    x, h, c, *weights = inputs
    slow, fast = unroll(lstm_step, x, (h, c), tuple(weights)), LSTMScan.apply(*inputs)
    upstream = [torch.randn_like(slow[k]) for k in used]
    pairs = [torch.autograd.grad([out[k] for k in used], inputs, upstream) for out in (slow, fast)]
    for a, b in zip((*slow, *pairs[0]), (*fast, *pairs[1]), strict=True):
        same(a, b)


def test_hand_computed_numbers():
    one = torch.ones(1, 1)
    # the answer spells its parts: 10 per unit of x, 1 per unit of h, 100 once
    assert rnn_step(2 * one, 3 * one, 10 * one, one, torch.tensor([100.0]), f=torch.relu)[0].item() == 123.0
    # saturated gates, rows g, i, f, o: write 1 and keep 5 / write nothing and forget
    wide = torch.zeros(4, 1)
    h, c = lstm_step(one, one, 5 * one, wide, wide, torch.tensor([50.0, 50.0, 50.0, 50.0]))
    assert c.item() == 6.0
    assert h.item() == pytest.approx(torch.tanh(torch.tensor(6.0)).item())
    h, c = lstm_step(one, one, 5 * one, wide, wide, torch.tensor([50.0, -200.0, -200.0, 50.0]))
    assert c.item() == 0.0
    h, c = lstm_step(one, one, 5 * one, wide, wide, torch.tensor([50.0, -200.0, 50.0, -200.0]))
    assert (c.item(), h.item()) == (5.0, 0.0)
    # rows r, z, n: keep the past / replace it, with and without a look at it
    wide, see = torch.zeros(3, 1), torch.tensor([[0.0], [0.0], [0.5]])
    assert gru_step(one, 3 * one, wide, see, torch.tensor([0.0, 200.0, 0.0]), torch.zeros(1))[0].item() == 3.0
    (h,) = gru_step(one, 3 * one, wide, see, torch.tensor([-200.0, -200.0, 0.25]), torch.ones(1))
    assert h.item() == pytest.approx(torch.tanh(torch.tensor(0.25)).item())
    (h,) = gru_step(one, 3 * one, wide, see, torch.tensor([200.0, -200.0, 0.25]), torch.ones(1))
    assert h.item() == pytest.approx(torch.tanh(torch.tensor(0.25 + 1.5 + 1.0)).item())


@pytest.mark.parametrize("ours", [RNN, LSTM, GRU])
def test_state_carries_a_text_across_pieces(ours):
    layer = ours(D_IN, D_HIDDEN, layers=2).double()
    x = torch.randn(B, T, D_IN, dtype=torch.float64)
    whole, final = layer(x)
    state, pieces = None, []
    for piece in x.split([1, 4, 2], dim=1):
        y, state = layer(piece, state)
        pieces.append(y)
    same(torch.cat(pieces, dim=1), whole)
    for a, b in zip(parts(state), parts(final), strict=True):
        same(a, b)


@pytest.mark.parametrize("ours", [RNN, LSTM, GRU])
def test_the_future_never_reaches_the_past(ours):
    layer, x = ours(D_IN, D_HIDDEN, layers=2), torch.randn(B, T, D_IN)
    changed = x.clone()
    changed[:, 4:] += 1.0
    before, after = layer(x)[0], layer(changed)[0]
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.isclose(before[:, 4:], after[:, 4:]).all(dim=-1).any()


def test_dropout_acts_between_layers_and_only_in_training():
    x = torch.randn(B, T, D_IN)
    single, double = LSTM(D_IN, D_HIDDEN, dropout=0.5), LSTM(D_IN, D_HIDDEN, layers=2, dropout=0.5)
    assert torch.equal(single(x)[0], single(x)[0])  # nothing after the last layer
    assert not torch.equal(double(x)[0], double(x)[0])
    assert torch.equal(double(x)[1][0][0], double(x)[1][0][0])  # the first layer has not met the dropout yet
    assert torch.equal(double.eval()(x)[0], double(x)[0])


def test_forget_gate_starts_open_and_the_other_biases_at_zero():
    bias = LSTM(D_IN, D_HIDDEN).cells[0].b_h.view(4, D_HIDDEN)
    assert bias[2].eq(1.0).all()
    assert bias[[0, 1, 3]].eq(0.0).all()
    assert LSTM(D_IN, D_HIDDEN, forget_bias=3.0).cells[0].b_h.view(4, D_HIDDEN)[2].eq(3.0).all()


@pytest.mark.parametrize("ours", [RNN, LSTM, GRU])
def test_autocast_returns_bf16_near_the_full_numbers_and_full_gradients(ours):
    layer, x = ours(D_IN, D_HIDDEN, layers=2, bidirectional=True), torch.randn(B, T, D_IN)
    exact = layer(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, rtol=0, atol=0.03)
    upstream = torch.randn_like(exact)
    wanted = torch.autograd.grad(exact, layer.parameters(), upstream)
    found = torch.autograd.grad(y, layer.parameters(), upstream.bfloat16())
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.05 * b.norm()


@pytest.mark.parametrize("max_norm", [0.3, 1e9, 0.0])
def test_clip_gradient_equals_torch(max_norm):
    ours, theirs = LSTM(D_IN, D_HIDDEN).double(), LSTM(D_IN, D_HIDDEN).double()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
    ours.cells[0].b_h.grad = theirs.cells[0].b_h.grad = None  # a frozen weight is left alone
    same(clip_gradient(ours.parameters(), max_norm), clip_grad_norm_(theirs.parameters(), max_norm))
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        if p.grad is not None:
            same(p.grad, q.grad)
    norm = torch.cat([p.grad.flatten() for p in ours.parameters() if p.grad is not None]).norm()
    assert norm <= max_norm


def test_clip_gradient_says_when_there_is_nothing_or_nonsense():
    p = torch.ones(2, requires_grad=True)
    assert clip_gradient([p], 1.0) == 0.0
    p.grad = torch.tensor([float("nan"), 1.0])
    assert clip_gradient([p], 1.0).isnan()
    with pytest.raises(ValueError, match=r"max_norm=-1\.0"):
        clip_gradient([p], -1.0)


def test_no_graph_no_gradient_and_a_second_derivative_is_refused():
    layer, x = LSTM(D_IN, D_HIDDEN), torch.randn(B, T, D_IN)
    with torch.no_grad():
        assert not layer(x)[0].requires_grad
    (gradient,) = torch.autograd.grad(layer(x)[0].square().sum(), layer.cells[0].w_hh, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: LSTM(0, 5), "d_in=0, d_hidden=5 and layers=1"),
        (lambda: LSTM(2, 5, dropout=1.0), r"dropout=1\.0"),
        (lambda: RNN(2, 5, nonlinearity="gelu"), "nonlinearity='gelu'"),
        (lambda: LSTM(2, 5)(torch.randn(3, 7, 4)), "7 tokens of width 4.*width 2"),
        (lambda: LSTM(2, 5)(torch.randn(3, 0, 2)), "0 tokens of width 2"),
        (lambda: GRU(2, 5)(torch.randn(3, 7, 2), torch.zeros(1, 4, 5)), r"\(1, 4, 5\), this batch needs \(1, 3, 5\)"),
        (lambda: RNN(2, 5)(torch.randn(3, 7, 2), lengths=torch.tensor([7, 8, 1])), r"\[7, 8, 1\].*between 1 and 7"),
        (lambda: RNN(2, 5)(torch.randn(3, 7, 2), lengths=torch.tensor([7, 0, 1])), r"\[7, 0, 1\].*between 1 and 7"),
        (lambda: LSTM(2, 5)(torch.randn(3, 7, 2), torch.zeros(1, 3, 5)), r"1 part\(s\), that of this LSTM has 2"),
        (lambda: LSTM.from_torch(torch.nn.GRU(2, 5)), r"LSTM reads a torch.nn.LSTM without projection.*GRU"),
        (lambda: LSTM.from_torch(torch.nn.LSTM(2, 5, proj_size=3)), "without projection"),
    ],
)
def test_wrong_input_names_the_numbers(act, message):
    with pytest.raises(ValueError, match=message):
        act()


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch cannot pack a matrix")
def test_products_are_plain_where_packing_has_changed_or_gone(monkeypatch):
    from lmtl_course import recurrent

    def gone(*_):
        raise RuntimeError("unknown operator")

    assert recurrent._packing_works() == torch.backends.mkl.is_available()
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", gone)
    recurrent._packing_works.cache_clear()
    try:
        assert not recurrent._packing_works()
        x, w = torch.randn(1024, 3), torch.randn(5, 3)
        assert torch.equal(multiplier(w, 1024)(x), x @ w.T)
    finally:
        recurrent._packing_works.cache_clear()
