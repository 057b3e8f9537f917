"""Oracles against Hugging Face's GPT-2 and BERT and torch.nn, counted weights, operations and bytes, and invariants."""

import dataclasses
import itertools
import math
import subprocess
import sys

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lmtl_course.training import TrainConfig, evaluate, make_optimizers, train
from lmtl_course.transformer import (
    CHOICES,
    GPT,
    MLP,
    Block,
    Encoder,
    EncoderDecoder,
    TransformerConfig,
    Windows,
    count_parameters,
    decoder_loss,
    flops_per_token,
    make_norm,
    training_memory,
    windows,
)

B, T, LAYERS, HEADS, D, H, V = 3, 7, 2, 5, 30, 53, 31  # prime where the layout allows it, and all different
SMALL = TransformerConfig(V, context=11, d_model=D, layers=LAYERS, heads=HEADS, d_hidden=H, zero_init=False)
POSITIONS = CHOICES["positions"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small(**changes):
    return dataclasses.replace(SMALL, **changes)


def same(a, b, atol=1e-10):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def scrambled(model):
    """All weights random and large enough to matter: zeros and ones would hide a wrong map."""
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.5)
    return model


def tokens(*shape):
    return torch.randint(V, shape or (B, T))


# ------------------------------------------------------------------------------------------------- the real thing


def hf_gpt2(**changes):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        **{
            **{"vocab_size": V, "n_positions": 11, "n_embd": D, "n_layer": LAYERS, "n_head": HEADS, "n_inner": H},
            **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0},
            **changes,
        }
    )
    return scrambled(transformers.GPT2LMHeadModel(config)).double()


def hf_bert(**changes):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        **{
            **{"vocab_size": V, "max_position_embeddings": 11, "hidden_size": D, "num_hidden_layers": LAYERS},
            **{"num_attention_heads": HEADS, "intermediate_size": H, "type_vocab_size": 2, "pad_token_id": None},
            **{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
            **changes,
        }
    )
    return scrambled(transformers.BertModel(config, add_pooling_layer=False)).double()


def gradients(output, model, upstream):
    model.zero_grad()
    output.backward(upstream)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "changes", [{}, {"n_inner": None, "activation_function": "gelu"}, {"tie_word_embeddings": False}]
)
def test_gpt_equals_gpt2_in_values_and_gradients(changes):
    theirs = hf_gpt2(**changes)
    ours, idx = GPT.from_transformers(theirs), tokens()
    logits, reference = ours(idx), theirs(idx).logits
    same(logits, reference)
    upstream = torch.randn_like(logits)
    mine, found = gradients(logits, ours, upstream), gradients(reference, theirs, upstream)
    same(mine["embedding.weight"], found["transformer.wte.weight"])
    same(mine["position.weight"], found["transformer.wpe.weight"])
    if changes.get("tie_word_embeddings") is False:
        same(mine["head.weight"], found["lm_head.weight"])
    for k, end in itertools.product(range(LAYERS), ("weight", "bias")):
        block, layer = f"blocks.{k}", f"transformer.h.{k}"
        packed = found[f"{layer}.attn.c_attn.{end}"].mT if end == "weight" else found[f"{layer}.attn.c_attn.{end}"]
        same(torch.cat([mine[f"{block}.attention.{part}.{end}"] for part in ("query", "key", "value")]), packed)
        for a, b in (("attention.output", "attn.c_proj"), ("mlp.up", "mlp.c_fc"), ("mlp.down", "mlp.c_proj")):
            wanted = found[f"{layer}.{b}.{end}"]
            same(mine[f"{block}.{a}.{end}"], wanted.T if end == "weight" else wanted)
        same(mine[f"{block}.norm_attention.{end}"], found[f"{layer}.ln_1.{end}"])
        same(mine[f"{block}.norm_mlp.{end}"], found[f"{layer}.ln_2.{end}"])
        same(mine[f"norm.{end}"], found[f"transformer.ln_f.{end}"])


def test_gpt_equals_gpt2_in_float32_and_with_its_own_padding():
    theirs = hf_gpt2().float()
    ours, idx = GPT.from_transformers(theirs), tokens()
    with torch.no_grad():
        same(ours(idx), theirs(idx).logits, atol=1e-3 * theirs(idx).logits.abs().max().item())  # weights are huge here
        for p in theirs.parameters():
            p.mul_(0.1)
        ours = GPT.from_transformers(theirs)
        same(ours(idx), theirs(idx).logits, atol=1e-5)
        real = torch.tensor([[False] * 3 + [True] * 4, [True] * 7, [False] + [True] * 6])
        positions = (real.cumsum(-1) - 1).clamp(min=0)
        reference = theirs(idx, attention_mask=real.long(), position_ids=positions).logits
        same(ours(idx, mask=real, positions=positions)[real], reference[real], atol=1e-5)


def test_a_gpt2_without_output_layer_is_read_as_well():
    theirs = hf_gpt2()
    same(GPT.from_transformers(theirs.transformer).hidden(idx := tokens()), theirs.transformer(idx).last_hidden_state)


@pytest.mark.parametrize("act", ["gelu", "gelu_new"])
def test_encoder_equals_bert_in_values_and_gradients(act):
    theirs = hf_bert(hidden_act=act)
    ours, idx, segments = Encoder.from_transformers(theirs), tokens(), torch.randint(2, (B, T))
    real = torch.arange(T) < torch.tensor([4, 7, 1])[:, None]
    hidden = ours(idx, real, segments)
    reference = theirs(idx, attention_mask=real.long(), token_type_ids=segments).last_hidden_state
    same(hidden[real], reference[real])  # what stands at padding is nobody's business
    upstream = torch.randn_like(hidden) * real[..., None]
    mine, found = gradients(hidden, ours, upstream), gradients(reference, theirs, upstream)
    for a, b in (("embedding", "word"), ("position", "position"), ("segment", "token_type")):
        same(mine[f"{a}.weight"], found[f"embeddings.{b}_embeddings.weight"])
    names = {
        **{"attention.query": "attention.self.query", "attention.key": "attention.self.key"},
        **{"attention.value": "attention.self.value", "attention.output": "attention.output.dense"},
        **{"norm_attention": "attention.output.LayerNorm", "mlp.up": "intermediate.dense"},
        **{"mlp.down": "output.dense", "norm_mlp": "output.LayerNorm"},
    }
    for k, end, (a, b) in itertools.product(range(LAYERS), ("weight", "bias"), names.items()):
        same(mine[f"blocks.{k}.{a}.{end}"], found[f"encoder.layer.{k}.{b}.{end}"])
    same(mine["embed_norm.weight"], found["embeddings.LayerNorm.weight"])


def test_encoder_reads_a_bert_under_a_head_and_segments_default_to_the_first():
    transformers = pytest.importorskip("transformers")
    base = hf_bert()
    headed = scrambled(transformers.BertForMaskedLM(base.config)).double()
    ours, idx = Encoder.from_transformers(headed), tokens()
    same(ours(idx), headed.bert(idx).last_hidden_state)
    assert ours.training == headed.training


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (hf_gpt2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True has no counterpart"),
        (hf_gpt2, {"activation_function": "silu"}, "activation 'silu' has no counterpart"),
        (hf_bert, {"is_decoder": True}, "is_decoder=True has no counterpart"),
    ],
)
def test_what_cannot_be_read_is_refused(make, changes, message):
    theirs = make(**changes)
    with pytest.raises(ValueError, match=message):
        (GPT if make is hf_gpt2 else Encoder).from_transformers(theirs)


def test_a_model_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="expected a gpt2 model, got 'bert'"):
        GPT.from_transformers(hf_bert())


# --------------------------------------------------------------------------------------------------- against torch


def copy_attention(ours, theirs):
    with torch.no_grad():
        for part, w, b in zip(
            (ours.query, ours.key, ours.value),
            theirs.in_proj_weight.chunk(3),
            theirs.in_proj_bias.chunk(3),
            strict=True,
        ):
            part.weight.copy_(w)
            part.bias.copy_(b)
        ours.output.load_state_dict(theirs.out_proj.state_dict())


def copy_block(ours, theirs, cross):
    copy_attention(ours.attention, theirs.self_attn)
    ours.norm_attention.load_state_dict(theirs.norm1.state_dict())
    ours.mlp.up.load_state_dict(theirs.linear1.state_dict())
    ours.mlp.down.load_state_dict(theirs.linear2.state_dict())
    if cross:
        copy_attention(ours.cross, theirs.multihead_attn)
        ours.norm_cross.load_state_dict(theirs.norm2.state_dict())
    ours.norm_mlp.load_state_dict((theirs.norm3 if cross else theirs.norm2).state_dict())


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_decoder_equals_torch_in_values_and_gradients(norm_first):
    nn = torch.nn
    config = small(positions="none", norm="layer", bias=True, qk_norm=False, activation="gelu", norm_first=norm_first)
    ours = scrambled(EncoderDecoder(config)).double()
    options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": norm_first}
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(D, HEADS, H, **options),
        LAYERS,
        nn.LayerNorm(D) if norm_first else None,
        enable_nested_tensor=False,
    )
    decoder = nn.TransformerDecoder(
        nn.TransformerDecoderLayer(D, HEADS, H, **options), LAYERS, nn.LayerNorm(D) if norm_first else None
    )
    theirs = scrambled(
        nn.Transformer(D, HEADS, custom_encoder=encoder, custom_decoder=decoder, batch_first=True)
    ).double()
    for stack, reference, cross in ((ours.encoder, encoder, False), (ours.decoder, decoder, True)):
        for block, layer in zip(stack.blocks, reference.layers, strict=True):
            copy_block(block, layer, cross)
        if norm_first:
            stack.norm.load_state_dict(reference.norm.state_dict())
    source, target, real = tokens(B, 5), tokens(B, T), torch.arange(5) < torch.tensor([4, 5, 1])[:, None]
    table = ours.encoder.embedding.weight.detach().clone().requires_grad_()
    logits = ours(source, target, real)
    reference = theirs(
        table[source],
        table[target],
        tgt_mask=torch.ones(T, T, dtype=torch.bool).triu(1),
        src_key_padding_mask=~real,
        memory_key_padding_mask=~real,
    )
    same(logits, reference @ ours.head.weight.T)
    upstream = torch.randn_like(logits)
    logits.backward(upstream)
    (reference @ ours.head.weight.detach().T).backward(upstream)
    same(ours.encoder.embedding.weight.grad, table.grad)
    for mine, layer in ((ours.encoder.blocks[0], encoder.layers[0]), (ours.decoder.blocks[1], decoder.layers[1])):
        same(mine.mlp.up.weight.grad, layer.linear1.weight.grad)
        same(mine.attention.value.weight.grad, layer.self_attn.in_proj_weight.grad[2 * D :])
        same(mine.norm_attention.bias.grad, layer.norm1.bias.grad)
    same(ours.decoder.blocks[0].cross.key.weight.grad, decoder.layers[0].multihead_attn.in_proj_weight.grad[D : 2 * D])


def test_rms_norm_by_hand():
    norm = make_norm(small(d_model=2, heads=1, norm_eps=1e-12)).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 10.0]))
    root = 12.5**0.5  # of the mean of 9 and 16
    same(norm(torch.tensor([3.0, 4.0], dtype=torch.float64)), torch.tensor([3 / root, 40 / root], dtype=torch.float64))


def test_activations_by_hand():
    x = torch.tensor([[[-1.0, 2.0]]])
    for name, wanted in (
        ("relu2", [0.0, 4.0]),
        ("gelu", [-0.5 * (1 + math.erf(-(0.5**0.5))), 1 + math.erf(2 * 0.5**0.5)]),
        ("gelu_tanh", [-0.5 * (1 + math.tanh((2 / math.pi) ** 0.5 * -1.044715)),
                       1 + math.tanh((2 / math.pi) ** 0.5 * (2 + 0.044715 * 8))]),
    ):  # fmt: skip
        mlp = MLP(small(d_model=2, heads=1, d_hidden=2, activation=name, positions="none"))
        with torch.no_grad():
            mlp.up.weight.copy_(torch.eye(2))
            mlp.down.weight.copy_(torch.eye(2))
        same(mlp(x)[0, 0], torch.tensor(wanted), atol=1e-6)


# ------------------------------------------------------------------------------------------------------ invariants


def variants():
    for positions in POSITIONS:
        yield {"positions": positions}
    yield {"norm": "layer", "bias": True, "norm_first": False, "embed_norm": True, "qk_norm": False}
    yield {"norm": "none", "activation": "gelu", "tied": True}
    yield {"residual": False, "kv_heads": 1, "activation": "gelu_tanh"}


@pytest.mark.parametrize("changes", list(variants()), ids=str)
def test_the_future_never_reaches_the_past(changes):
    model, idx = scrambled(GPT(small(**changes))), tokens()
    changed = idx.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % V
    before, after = model(idx), model(changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("changes", list(variants()), ids=str)
def test_padding_never_changes_a_result(changes):
    model, idx = scrambled(Encoder(small(**changes))).double(), tokens()
    real = torch.arange(T) < torch.tensor([4, 7, 1])[:, None]
    padded = model(idx, real)
    for row, length in enumerate((4, 7, 1)):
        same(padded[row, :length], model(idx[row : row + 1, :length])[0])
    same(model(idx.where(real, 0), real)[real], padded[real])


@pytest.mark.parametrize("changes", list(variants()), ids=str)
@pytest.mark.parametrize("chunks", [[7], [1] * 7, [3, 1, 3], [6, 1]], ids=str)
def test_a_cache_changes_nothing(changes, chunks):
    model, idx = scrambled(GPT(small(**changes))).double(), tokens()
    with torch.no_grad():
        cache = model.new_cache(capacity=2)
        parts = [model(part, cache) for part in idx.split(chunks, 1)]
        same(torch.cat(parts, 1), model(idx))
    assert [len(c) for c in cache] == [T] * LAYERS


@pytest.mark.parametrize("positions", POSITIONS)
def test_padding_on_the_left_with_own_positions_and_a_cache(positions):
    model, lengths = scrambled(GPT(small(positions=positions))).double(), (4, 7, 1)
    texts = [tokens(1, n) for n in lengths]
    idx = torch.cat(
        [torch.cat([torch.zeros(1, T - n, dtype=torch.long), t], 1) for t, n in zip(texts, lengths, strict=True)]
    )
    real = torch.arange(T) >= T - torch.tensor(lengths)[:, None]
    places = (real.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        cache = model.new_cache()
        first = model(idx[:, :5], cache, real[:, :5], places[:, :5])
        rest = model(idx[:, 5:], cache, real, places[:, 5:])
        both = torch.cat([first, rest], 1)
        for row, text in enumerate(texts):
            same(both[row, T - lengths[row] :], model(text)[0])


def test_encoder_decoder_writes_with_a_cache():
    model = scrambled(EncoderDecoder(small())).double()
    source, target, real = tokens(B, 5), tokens(), torch.arange(5) < torch.tensor([4, 5, 1])[:, None]
    with torch.no_grad():
        memory, cache = model.encoder(source, real), model.decoder.new_cache()
        parts = [model.decode(part, memory, real, cache) for part in target.split([2, 1, 4], 1)]
        same(torch.cat(parts, 1), model(source, target, real))
        longer = torch.cat([source, tokens(B, 2)], 1)
        more = torch.cat([real, torch.zeros(B, 2, dtype=torch.bool)], 1)
        same(model(longer, target, more), model(source, target, real))


def test_hidden_and_head_make_the_logits():
    model, idx = scrambled(GPT(SMALL)), tokens()
    assert torch.equal(model.head(model.hidden(idx)), model(idx))


def test_order_matters_to_an_encoder_only_through_positions():
    idx, order = tokens(1, T), torch.randperm(T)
    blind = scrambled(Encoder(small(positions="none"))).double()
    same(blind(idx[:, order]), blind(idx)[:, order])
    for positions in ("rotary", "learned", "sinusoidal"):
        seeing = scrambled(Encoder(small(positions=positions))).double()
        assert not torch.allclose(seeing(idx[:, order]), seeing(idx)[:, order], atol=1e-3)


def test_pre_norm_keeps_the_stream_and_post_norm_normalises_it():
    x = 100 * torch.randn(B, T, D, dtype=torch.float64)
    pre, post = (scrambled(Block(small(norm_first=first), causal=True)).double() for first in (True, False))
    assert (pre(x) - x).square().mean() < x.square().mean()  # what was there is still there
    same((post(x) / post.norm_mlp.weight).square().mean(-1), torch.ones(B, T, dtype=torch.float64), atol=1e-6)


def test_without_residual_a_block_is_its_last_layer():
    block, x = scrambled(Block(small(residual=False), causal=True)), torch.randn(B, T, D)
    looked = block.attention(block.norm_attention(x))
    assert torch.equal(block(x), block.mlp(block.norm_mlp(looked)))


# -------------------------------------------------------------------------------------------------- initialisation


def test_zero_init_starts_as_the_identity_and_with_equal_chances():
    model, idx = GPT(small(zero_init=True)), tokens()
    x = model.embedding(idx)
    for block in model.blocks:
        assert torch.equal(block(x), x)
    assert torch.equal(model(idx), torch.zeros(B, T, V))


@pytest.mark.parametrize(("changes", "std"), [({}, None), ({"init_std": 0.02}, 0.02)])
def test_the_spread_of_the_first_weights(changes, std):
    config = TransformerConfig(vocab=500, d_model=240, heads=5, layers=3, zero_init=False, bias=True, **changes)
    for cross, additions in ((False, 6), (True, 9)):
        model = GPT(config, cross)
        block = model.blocks[0]
        inside = std or 240**-0.5
        for weight, wanted in (
            (block.attention.query.weight, inside),
            (block.attention.output.weight, inside * additions**-0.5),
            (block.mlp.up.weight, inside),
            (block.mlp.down.weight, (std or 960**-0.5) * additions**-0.5),
            (model.embedding.weight, std or 1.0),
            (model.head.weight, inside),
        ):
            assert weight.std().item() == pytest.approx(wanted, rel=0.02)
            assert abs(weight.mean().item()) < 0.02 * wanted
        assert block.mlp.up.bias.abs().max() == 0
    post = Block(dataclasses.replace(config, norm_first=False), causal=True)
    assert post.attention.output.weight.std().item() == pytest.approx(inside, rel=0.02)


def test_a_tied_head_is_the_table_and_muon_never_gets_it():
    model = GPT(small(tied=True))
    assert model.head.weight is model.embedding.weight
    both = EncoderDecoder(small(tied=True))
    assert both.head.weight is both.encoder.embedding.weight is both.decoder.embedding.weight
    for made in (model, both, GPT(small(positions="learned", segments=2))):
        muon = make_optimizers(made, TrainConfig(steps=1, optimizer="muon"))[1]
        held = {id(p) for group in muon.param_groups for p in group["params"]}
        names = {name for name, p in made.named_parameters() if id(p) in held}
        assert all(name.split(".")[-3] in ("attention", "cross", "mlp") for name in names)
        assert len(names) == sum(m is not None for n, m in made.named_modules() if isinstance(m, torch.nn.Linear)) - 1


# -------------------------------------------------------------------------------------------------------- formulas


def many_configs():
    options = itertools.product(POSITIONS, ("rms", "layer", "none"), (True, False), (True, False))
    for k, (positions, norm, norm_first, tied) in enumerate(options):
        yield small(
            **{"positions": positions, "norm": norm, "norm_first": norm_first, "tied": tied, "bias": k % 3 == 0},
            **{"kv_heads": (None, 1)[k % 2], "embed_norm": k % 5 == 0, "segments": k % 4, "layers": 1 + k % 3},
            **{"d_hidden": (None, H)[k % 2]},
        )


def test_parameters_are_counted_exactly():
    for config in many_configs():
        for kind, make in (("decoder", GPT), ("encoder", Encoder), ("encoder-decoder", EncoderDecoder)):
            assert count_parameters(config, kind) == sum(p.numel() for p in make(config).parameters()), (kind, config)


def test_the_published_models_have_their_published_sizes():
    assert count_parameters(TransformerConfig.gpt2()) == 124_439_808
    pooler = 768 * 768 + 768
    assert count_parameters(TransformerConfig.bert(), "encoder") + pooler == 109_482_240


def counted_flops(call):
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # of fused kernels it knows nothing
        result = call()
    return counter.get_total_flops(), result


def test_operations_are_counted_exactly():
    for changes in ({}, {"norm": "layer", "bias": True, "positions": "learned"}, {"d_hidden": None, "tied": True}):
        config = small(**changes)
        model, idx = GPT(config), tokens()
        forward, (nats, *_) = counted_flops(lambda: decoder_loss(model, (idx, idx), None))  # noqa: B023
        backward, _ = counted_flops(nats.backward)
        assert forward == B * T * flops_per_token(config, T)
        assert forward + backward == B * T * flops_per_token(config, T, training=True)
        encoder = Encoder(config)
        assert counted_flops(lambda: encoder(idx))[0] == B * T * flops_per_token(config, T, "encoder")  # noqa: B023


def kept_for_backward(model, batch):
    """Bytes of everything that autograd keeps, each storage once, weights not counted."""
    weights, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}
    alive = []

    def pack(tensor):
        alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        decoder_loss(model, batch, None)
    return sum(kept.values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm": "layer", "bias": True},
        {"norm": "none"},
        {"qk_norm": False},
        {"qk_norm": False, "positions": "none"},
        {"positions": "learned", "segments": 2},
        {"positions": "sinusoidal", "activation": "gelu"},
        {"norm_first": False, "embed_norm": True},
        {"tied": True, "layers": 3},
    ],
    ids=str,
)
def test_bytes_of_a_training_step_are_counted_exactly(changes):
    config = small(**changes)
    model, idx = GPT(config), tokens()
    memory = training_memory(config, B, T)
    assert memory["activations"] == kept_for_backward(model, (idx, idx.clone()))
    decoder_loss(model, (idx, idx), None)[0].backward()
    assert memory["weights"] == sum(p.nbytes for p in model.parameters())
    assert memory["gradients"] == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    for name in ("adamw", "muon"):
        optimizers = make_optimizers(model, TrainConfig(steps=1, optimizer=name))
        for optimizer in optimizers:
            optimizer.step()
        states = [s for o in optimizers for state in o.state.values() for key, s in state.items() if key != "step"]
        assert training_memory(config, B, T, name)["optimizer"] == sum(s.nbytes for s in states)


# ------------------------------------------------------------------------------------------------- batches and loss


@pytest.mark.parametrize(
    ("length", "batch", "seq", "overlap"), [(101, 3, 7, 0), (101, 3, 7, 4), (8, 2, 7, 0), (5, 2, 7, 3), (2, 1, 1, 0)]
)
def test_windows_ask_for_every_token_once_and_show_what_came_before(length, batch, seq, overlap):
    asked = []
    for inputs, targets in windows(torch.arange(length), batch, seq, overlap):
        assert inputs.shape == targets.shape
        assert len(inputs) <= batch
        counted = targets != -100
        assert torch.equal(targets[counted], inputs[counted] + 1)
        asked += targets[counted].tolist()
    assert sorted(asked) == list(range(1, length))


def test_evaluation_with_overlap_sees_further_back():
    idx = torch.arange(40) % 2 * torch.arange(40) % V  # any text
    model = scrambled(GPT(small(context=64))).double()
    full = torch.nn.functional.cross_entropy(model(idx[None, :-1])[0], idx[1:]).item()
    assert evaluate(model, windows(idx, 2, 39), decoder_loss) == pytest.approx(full, abs=1e-10)
    assert evaluate(model, windows(idx, 2, 20, 19), decoder_loss) != pytest.approx(full, abs=1e-10)


def test_random_windows_are_a_function_of_their_number_and_repeat_nothing_within_a_pass():
    ids = torch.arange(1000)
    make = Windows(ids, batch=5, seq=7, seed=3)
    later = make(400)
    seen = torch.cat([make(n)[1].flatten() for n in range(make.pieces // 5)])
    assert len(seen.unique()) == len(seen) > 0.9 * len(ids)
    inputs, targets = make(400)
    assert torch.equal(inputs, later[0])
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(Windows(ids, 5, 7, 3)(28)[0], make(28)[0])  # a batch across two passes
    assert not torch.equal(Windows(ids, 5, 7, 4)(0)[0], make(0)[0])
    starts = torch.cat([make(n)[0][:, 0] for n in range(600)]) % 7
    assert set(starts.tolist()) == set(range(7)), "every pass is cut elsewhere"


@pytest.mark.parametrize("length", [8, 9, 15, 16, 23])
def test_random_windows_of_a_short_text_reach_both_ends(length):
    make = Windows(torch.arange(length), batch=3, seq=7)
    rows = torch.cat([make(n)[1] for n in range(60)])
    assert rows.min() == 1
    assert rows.max() == length - 1


def test_the_loss_counts_what_has_a_target():
    model, idx = GPT(SMALL).double(), tokens()
    targets = idx.roll(-1, 1)
    targets[0, 2:] = -100
    nats, count, state = decoder_loss(model, (idx, targets), None)
    same(nats, torch.nn.functional.cross_entropy(model(idx).flatten(0, 1), targets.flatten(), reduction="sum"))
    assert (count, state) == (B * T - 5, None)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_small_one_learns_a_rhythm(optimizer):
    ids = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6] * 30)
    model = GPT(small(zero_init=True))
    config = TrainConfig(steps=40, lr=0.02, optimizer=optimizer, warmup=5)
    train(model, Windows(ids, 4, 10), decoder_loss, config)
    assert evaluate(model, windows(ids, 4, 10), decoder_loss) < 0.3  # the 1 is ambiguous only where a row begins


# ------------------------------------------------------------------------------------------------------ half precision


@pytest.mark.parametrize("changes", list(variants()), ids=str)
def test_autocast_keeps_the_stream_in_float32_and_stays_near(changes):
    model, idx = GPT(small(**changes)), tokens()
    with torch.autocast("cpu", torch.bfloat16):
        hidden, logits = model.hidden(idx), model(idx)
        cache = model.new_cache()
        with torch.no_grad():
            parts = [model(part, cache) for part in idx.split([3, 4], 1)]
    assert hidden.dtype == torch.float32
    same(logits.float(), model(idx), atol=0.15)
    same(torch.cat(parts, 1).float(), logits.float(), atol=0.1)
    decoder_loss(model, (idx, idx), None)[0].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


COMPILED = """
import torch
from lmtl_course.transformer import GPT, TransformerConfig
for positions in ("rotary", "learned"):
    model = GPT(TransformerConfig(31, d_model=20, layers=2, heads=5, positions=positions, zero_init=False))
    idx = torch.randint(31, (3, 7))
    eager, whole = model(idx), torch.compile(model, backend="aot_eager", fullgraph=True)(idx)
    upstream = torch.randn_like(eager)
    for a, b in zip(*(torch.autograd.grad(y, list(model.parameters()), upstream) for y in (eager, whole))):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
"""


def test_compiles_as_one_graph_with_equal_gradients():
    subprocess.run([sys.executable, "-c", COMPILED], check=True)  # outside of pytest: without the shape-checking hook


def test_dropout_is_for_training_only():
    model, idx = scrambled(GPT(small(dropout=0.5))), tokens()
    assert not torch.equal(model(idx), model(idx))
    model.eval()
    assert torch.equal(model(idx), model(idx))


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab": 0}, "vocab=0 must be an integer of at least 1"),
        ({"layers": -1}, "layers=-1 must be an integer"),
        ({"positions": "absolute"}, "positions='absolute' must be one of rotary, learned"),
        ({"norm": "batch"}, "norm='batch' must be one of rms"),
        ({"activation": "silu"}, "activation='silu' must be one of relu2"),
        ({"heads": 7}, "d_model=30, heads=7, kv_heads=7: each must be divisible by the next"),
        ({"kv_heads": 2}, "d_model=30, heads=5, kv_heads=2"),
        ({"heads": 10}, "d_model / heads is 3; make it even"),
        ({"d_model": 35, "positions": "sinusoidal"}, "d_model is 35; make it even"),
        ({"dropout": 1.0}, "dropout=1.0 must be in 0"),
        ({"init_std": 0.0}, "init_std=0.0 must be above 0"),
        ({"residual": False, "zero_init": True}, "set zero_init=False"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_misuse_is_refused_with_both_values():
    learned = GPT(small(positions="learned"))
    with pytest.raises(ValueError, match="12 tokens, but learned positions end at context=11"):
        learned(tokens(1, 12))
    with pytest.raises(ValueError, match="positions from -1 to 3"):
        learned(tokens(1, 5), positions=torch.arange(-1, 4))
    with torch.no_grad():
        cache = learned.new_cache()
        learned(tokens(1, 9), cache)
        with pytest.raises(ValueError, match="12 tokens, but learned"):
            learned(tokens(1, 3), cache)
    with pytest.raises(ValueError, match="1 caches for 2 blocks"):
        learned(tokens(), learned.new_cache()[:1])
    with pytest.raises(ValueError, match="segments were given"):
        Encoder(SMALL)(tokens(), segments=tokens())
    x = torch.randn(B, T, D)
    with pytest.raises(ValueError, match="cross=False got memory; it needs none"):
        Block(SMALL, causal=True)(x, memory=x)
    with pytest.raises(ValueError, match="cross=True got no memory; it needs one"):
        Block(SMALL, causal=True, cross=True)(x)
    for bad in ((torch.arange(7), 1, 7), (torch.arange(7), 0, 3)):
        with pytest.raises(ValueError, match="hold no piece"):
            Windows(*bad)
    for bad in ((torch.arange(1), 1, 3), (torch.arange(9), 1, 3, 3)):
        with pytest.raises(ValueError, match="in rows of 3"):
            windows(*bad)
    with pytest.raises(ValueError, match="kind='gpt'"):
        count_parameters(SMALL, "gpt")
    with pytest.raises(ValueError, match="kind='encoder-decoder'"):
        flops_per_token(SMALL, 5, "encoder-decoder")
    with pytest.raises(ValueError, match="optimizer='sgd'"):
        training_memory(SMALL, 1, 1, "sgd")
