"""The loop on a CUDA device: bfloat16 by itself, exact resume there, checkpoints that open on a machine without one."""

from dataclasses import replace

import pytest
import torch

from lmtl_course.training import (
    LanguageModel,
    Streams,
    TrainConfig,
    evaluate,
    load_checkpoint,
    next_token_loss,
    train,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

IDS = torch.randint(11, (3000,), generator=torch.Generator().manual_seed(0)) // 2 * 2  # even numbers only: learnable
CONFIG = TrainConfig(steps=30, lr=0.01, optimizer="muon", warmup=3, accumulate=2, save_every=7)


class InterruptedRunError(Exception):
    """Stands for whatever ends a process."""


def make_model() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(11, 16, 32, dropout=0.2).cuda()


def test_training_on_the_gpu_lowers_the_loss_and_agrees_with_the_cpu_about_it():
    model, valid = make_model(), Streams(IDS[-500:], 2, 50)
    history = train(model, Streams(IDS, 8, 16), next_token_loss, CONFIG, valid)
    assert history.looks[-1][1] < 2.0 < history.loss[0]
    on_gpu = evaluate(model, valid, next_token_loss, autocast=False)
    assert on_gpu == pytest.approx(evaluate(model.cpu(), valid, next_token_loss, autocast=False), abs=1e-3)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_an_interrupted_run_resumes_exactly_and_its_checkpoint_opens_anywhere(tmp_path):
    streams = Streams(IDS, 8, 16)

    def until(n):
        if n == 17:
            raise InterruptedRunError
        return streams(n)

    whole, broken, again = make_model(), make_model(), make_model()
    expected = train(whole, streams, next_token_loss, CONFIG)
    with pytest.raises(InterruptedRunError):
        train(broken, until, next_token_loss, replace(CONFIG, folder=tmp_path))
    assert all(t.device.type == "cpu" for t in load_checkpoint(tmp_path).tensors.values())
    history = train(again, streams, next_token_loss, replace(CONFIG, folder=tmp_path))
    assert history.loss == pytest.approx(expected.loss, rel=1e-6)
    for name, t in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], t, rtol=0, atol=1e-6)
