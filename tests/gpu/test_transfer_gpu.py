"""Fine-tuning on a CUDA device: the loss of the processor, a task that is learned, files that open anywhere."""

from dataclasses import replace

import pytest
import torch

from lmtl_course.pretraining import Base, MaskedLM, make_tokenizer
from lmtl_course.transfer import FineTuneConfig, features, finetune, from_scratch, load_finetuned
from lmtl_course.transformer import GPT, TransformerConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ROWS = [(f"a {word} film{', once more' * (k % 3)}", k % 2) for k in range(40) for word in [("bad", "good")[k % 2]]]
CONFIG = FineTuneConfig(epochs=6, batch=7, lr=0.01, head_lr=0.02, dropout=0.0, autocast=False)


def make_base(kind: str) -> Base:
    tokenizer = make_tokenizer(["a good bad film, once more"] * 9, 300, kind)
    sizes = {"vocab": 300, "context": 24, "d_model": 32, "layers": 2, "heads": 2, "dropout": 0.0}
    torch.manual_seed(5)
    if kind == "encoder":
        return Base(MaskedLM(TransformerConfig.bert(**sizes)).eval(), tokenizer, kind)
    return Base(GPT(TransformerConfig.gpt2(**sizes)).eval(), tokenizer, kind)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_task_is_learned_there_by_itself_and_the_base_stays_where_it_is(kind):
    base = make_base(kind)
    model = finetune(base, ROWS, config=replace(CONFIG, autocast="auto"))
    assert model.device.type == "cuda"
    assert next(base.model.parameters()).device.type == "cpu"
    assert model.predict(["a good film", "a bad film"]) == ["1", "0"]
    assert model.logits(["a good film"]).device.type == "cpu"


@pytest.mark.parametrize("unfreeze", ["head", "gradual", "all"])
def test_both_devices_agree_about_the_loss(unfreeze):
    config = replace(CONFIG, unfreeze=unfreeze, epochs=2)
    there, here = (finetune(make_base("encoder"), ROWS, config=config, device=d) for d in ("cuda", "cpu"))
    torch.testing.assert_close(
        torch.tensor(there.history.loss[:3]), torch.tensor(here.history.loss[:3]), rtol=0.02, atol=0.02
    )
    assert there.history.steps == here.history.steps


def test_what_was_saved_there_opens_on_a_machine_without_one(tmp_path):
    model = finetune(make_base("encoder"), ROWS, config=CONFIG)
    again = load_finetuned(model.save(tmp_path))
    assert again.device.type == "cpu"
    texts = ["a good film", "", "bad, bad"]
    torch.testing.assert_close(again.logits(texts), model.logits(texts), rtol=0.02, atol=0.02)
    assert again.predict(texts[:1]) == ["1"]


def test_features_are_computed_where_the_base_is():
    base = make_base("encoder")
    here = features(base, ["a good film", "bad"], layer=1)
    fresh = from_scratch(base)
    base.model.cuda()
    there = features(base, ["a good film", "bad"], layer=1)
    assert there.device.type == "cpu"
    torch.testing.assert_close(there, here, rtol=0.03, atol=0.03)
    assert next(fresh.model.parameters()).device.type == "cpu"
