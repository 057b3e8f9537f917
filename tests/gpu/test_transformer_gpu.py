"""The same numbers on a CUDA device, in half precision, compiled, and with a cache."""

import pytest
import torch

from lmtl_course.training import TrainConfig, evaluate, train
from lmtl_course.transformer import CHOICES, GPT, EncoderDecoder, TransformerConfig, Windows, decoder_loss, windows

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CONFIG = {"vocab": 31, "context": 16, "d_model": 64, "layers": 2, "heads": 2, "zero_init": False}


@pytest.mark.parametrize("positions", CHOICES["positions"])
@pytest.mark.parametrize("norm", CHOICES["norm"])
def test_equals_the_cpu_in_values_and_gradients(positions, norm):
    torch.manual_seed(0)
    model, idx = GPT(TransformerConfig(**CONFIG, positions=positions, norm=norm)).double(), torch.randint(31, (3, 7))
    here = model(idx)
    upstream = torch.randn_like(here)
    wanted = torch.autograd.grad(here, list(model.parameters()), upstream)
    there = model.cuda()(idx.cuda())
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-10)
    for a, b in zip(torch.autograd.grad(there, list(model.parameters()), upstream.cuda()), wanted, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_half_precision_with_and_without_a_cache(positions, dtype):
    torch.manual_seed(0)
    model = GPT(TransformerConfig(**CONFIG, positions=positions)).cuda()
    idx = torch.randint(31, (3, 7), device="cuda")
    exact = model(idx)
    with torch.autocast("cuda", dtype):
        logits = model(idx)
        cache = model.new_cache()
        with torch.no_grad():
            parts = [model(part, cache) for part in idx.split([3, 1, 3], 1)]
        decoder_loss(model, (idx, idx), None)[0].backward()
    torch.testing.assert_close(logits.float(), exact, rtol=0, atol=0.1)
    torch.testing.assert_close(torch.cat(parts, 1).float(), logits.float(), rtol=0, atol=0.05)
    assert all(
        p.grad is None or (p.grad.dtype == torch.float32 and p.grad.isfinite().all()) for p in model.parameters()
    )


def test_encoder_decoder_writes_with_a_cache():
    torch.manual_seed(0)
    model = EncoderDecoder(TransformerConfig(**CONFIG)).double().cuda()
    source, target = torch.randint(31, (3, 5), device="cuda"), torch.randint(31, (3, 7), device="cuda")
    real = torch.arange(5, device="cuda") < torch.tensor([4, 5, 1], device="cuda")[:, None]
    with torch.no_grad():
        memory, cache = model.encoder(source, real), model.decoder.new_cache()
        parts = [model.decode(part, memory, real, cache) for part in target.split([2, 1, 4], 1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(source, target, real), rtol=0, atol=1e-10)


def test_compiled_equals_eager():
    torch.manual_seed(0)
    model, idx = GPT(TransformerConfig(**CONFIG)).cuda(), torch.randint(31, (3, 7), device="cuda")
    torch.testing.assert_close(torch.compile(model)(idx), model(idx), rtol=0, atol=1e-3)


def test_learns_a_rhythm():
    torch.manual_seed(0)
    ids = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6] * 30)
    model = GPT(TransformerConfig(vocab=11, d_model=32, layers=2)).cuda()
    train(model, Windows(ids, 4, 10), decoder_loss, TrainConfig(steps=40, lr=0.02, optimizer="muon", warmup=5))
    assert evaluate(model, windows(ids, 4, 10), decoder_loss) < 0.3
