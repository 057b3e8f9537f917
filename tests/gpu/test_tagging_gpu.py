"""Tagging on a CUDA device: the chain's sums and best rows are the processor's, and a base learns there by itself."""

import pytest
import torch

from lmtl_course.pretraining import Base, MaskedLM, make_tokenizer
from lmtl_course.tagging import CRF, Tagger, TaggingHead, entity_f1, tag_names, train_tagger
from lmtl_course.transfer import FineTuneConfig, finetune
from lmtl_course.transformer import TransformerConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ROWS = [(["we", "met", name, "there"], ["O", "O", "B-PER" if name == "ada" else "O", "O"]) for name in ("ada", "him")]


def test_the_chain_is_the_same_there():
    torch.manual_seed(0)
    crf, mask = CRF(tag_names(["X"])).double(), torch.arange(7) < torch.tensor([[7], [3], [1]])
    for p in crf.parameters():
        torch.nn.init.normal_(p)
    emissions, tags = torch.randn(3, 7, 3).double(), torch.randint(3, (3, 7))
    found = {}
    for device in ("cpu", "cuda"):
        crf.to(device).zero_grad()
        there = emissions.to(device).requires_grad_()
        loss = crf.loss(there, tags.to(device), mask.to(device))
        loss.sum().backward()
        numbers = [loss, there.grad, *(p.grad.clone() for p in crf.parameters()), crf.decode(there, mask.to(device))]
        found[device] = [t.detach().cpu() for t in numbers]
    for a, b in zip(found["cpu"], found["cuda"], strict=True):
        torch.testing.assert_close(a, b)


def test_both_taggers_learn_there_by_themselves():
    tokenizer = make_tokenizer(["we met ada him there"] * 9, 300, "encoder")
    torch.manual_seed(5)
    sizes = {"vocab": 300, "context": 24, "d_model": 32, "layers": 2, "heads": 2, "dropout": 0.0}
    base = Base(MaskedLM(TransformerConfig.bert(**sizes)).eval(), tokenizer, "tiny")
    config = FineTuneConfig(epochs=8, batch=8, lr=0.01, head_lr=0.02, dropout=0.0)
    tuned = Tagger(finetune(base, ROWS * 20, head=TaggingHead(32, tag_names(["PER"])), config=config))
    fresh = train_tagger(ROWS * 20, epochs=10, lr=0.02)
    assert tuned.model.device.type == fresh.crf.transitions.device.type == "cuda"
    for tagger in (tuned, fresh):
        assert entity_f1([tags for _, tags in ROWS], tagger.predict([words for words, _ in ROWS])).f1 == 1.0
