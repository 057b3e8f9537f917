"""The same texts on a CUDA device: cached as uncached, batched as alone, drawn as on the processor."""

import pytest
import torch

from lmtl_course.generation import beam_search, generate, speculative
from lmtl_course.transformer import GPT, TransformerConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

VOCAB = 11


def make_model(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    config = TransformerConfig(VOCAB, d_model=12, layers=2, heads=2, zero_init=False, qk_norm=False)
    return GPT(config).double().cuda()


def prompt(rows: int) -> torch.Tensor:
    return torch.randint(VOCAB, (rows, 7), generator=torch.Generator().manual_seed(rows))


@torch.no_grad()
@pytest.mark.parametrize("parts", [[20], [1] * 20, [7, 1, 1, 11], [19, 1]])
def test_the_cache_changes_nothing(parts):
    model = make_model()
    idx = torch.randint(VOCAB, (3, 20), generator=torch.Generator().manual_seed(0)).cuda()
    cache = model.new_cache(5)
    cached = torch.cat([model(part, cache) for part in idx.split(parts, 1)], 1)
    torch.testing.assert_close(cached, model(idx), rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_p": 0.9, "repetition_penalty": 1.4, "stop": 3}])
def test_the_same_seed_draws_the_same_text_as_on_the_processor(options):
    model, idx, lengths = make_model(), prompt(4), torch.tensor([7, 2, 5, 1])
    luck = torch.Generator()
    here = generate(model, idx.cuda(), 40, lengths=lengths.cuda(), generator=luck.manual_seed(0), **options)
    there = generate(model.cpu(), idx, 40, lengths=lengths, generator=luck.manual_seed(0), **options)
    assert torch.equal(here.cpu(), there)


def test_prompts_of_unequal_length_give_what_each_gives_alone():
    model, idx, lengths = make_model(), prompt(3).cuda(), [7, 2, 4]
    together = generate(model, idx, 30, temperature=0.0, lengths=torch.tensor(lengths, device="cuda"))
    for row, n in enumerate(lengths):
        alone = generate(model, idx[row : row + 1, :n], 30, temperature=0.0)
        assert torch.equal(together[row, 7:], alone[0, n:])


def test_a_generator_of_the_device_works_too():
    luck = torch.Generator("cuda")
    runs = [generate(make_model(), prompt(2).cuda(), 9, generator=luck.manual_seed(3)) for _ in "ab"]
    assert torch.equal(*runs)


def test_search_and_speculation_agree_with_the_processor():
    target, draft, idx = make_model(), make_model(1), prompt(1)
    beams = [text.tokens.tolist() for text in beam_search(target, idx.cuda(), 9, beams=5, stop=4)]
    guided = speculative(target, draft, idx.cuda(), 30, temperature=0.0)
    greedy = generate(target, idx.cuda(), 30, temperature=0.0)
    assert torch.equal(guided.tokens, greedy)
    luck = torch.Generator()
    drawn = speculative(target, draft, idx.cuda(), 30, generator=luck.manual_seed(1))
    target, draft = target.cpu(), draft.cpu()
    assert beams == [text.tokens.tolist() for text in beam_search(target, idx, 9, beams=5, stop=4)]
    again = speculative(target, draft, idx, 30, generator=luck.manual_seed(1))
    assert torch.equal(drawn.tokens.cpu(), again.tokens)
