"""Filters and beams against transformers, caches against whole texts, batches against single texts, a wide search
against all texts there are, and speculation against the distribution that it must keep.
"""

import copy
import itertools
import math

import jaxtyping
import pytest
import torch
from scipy.stats import chisquare

from lmtl_course.generation import (
    FewRows,
    accept,
    adjust,
    beam_search,
    draw,
    ends_with,
    generate,
    min_p_filter,
    penalise,
    speculative,
    stream,
    top_k_filter,
    top_p_filter,
    with_temperature,
)
from lmtl_course.transformer import GPT, EncoderDecoder, TransformerConfig

VOCAB = 11
KINDS = {
    "rotary": {"qk_norm": True, "kv_heads": 1},
    "learned": {"positions": "learned", "norm": "layer", "bias": True, "context": 40},
    "sinusoidal": {"positions": "sinusoidal"},
    "none": {"positions": "none", "norm_first": False},
}

FEW = KINDS | {  # every way through a block for few rows
    "gpt2": {**KINDS["learned"], "activation": "gelu_tanh", "tied": True, "kv_heads": 1},
    "turned": {"kv_heads": 2, "heads": 4},
    "levelled": {"positions": "sinusoidal", "qk_norm": True, "norm": "layer"},
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_model(seed: int = 0, vocab: int = VOCAB, sharpness: float = 3.0, **changes) -> GPT:
    """A random model that is not indifferent, and in double precision."""
    torch.manual_seed(seed)
    settings = {"d_model": 12, "layers": 2, "heads": 2, "zero_init": False, "qk_norm": False, **changes}
    model = GPT(TransformerConfig(vocab=vocab, **settings)).double()
    with torch.no_grad():
        model.head.weight.mul_(sharpness)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # at zero, as they start, nobody would miss a forgotten one
                parameter.normal_(std=0.1)
    return model


@pytest.fixture
def unchecked():
    """Thousands of repetitions in seconds: shapes are checked in the other tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@torch.no_grad()
def greedy_without_cache(model: GPT, idx: torch.Tensor, new: int) -> torch.Tensor:
    for _ in range(new):
        idx = torch.cat([idx, model(idx)[:, -1:].argmax(-1)], 1)
    return idx


@torch.no_grad()
def log_probability(model: GPT, prompt: torch.Tensor, new: torch.Tensor) -> float:
    logp = model(torch.cat([prompt, new[None]], 1))[0].log_softmax(-1)
    return sum(logp[prompt.shape[1] - 1 + n, token].item() for n, token in enumerate(new))


# ---------------------------------------------------------------------------------------------------------- filters


def test_filters_equal_those_of_transformers():
    processors = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(5, 37, generator=seeded(0), dtype=torch.float64) * 3
    text = torch.randint(37, (5, 13), generator=seeded(1))
    seen = torch.zeros(5, 37, dtype=torch.bool).scatter_(1, text, True)
    pairs = [(with_temperature(logits, t), processors.TemperatureLogitsWarper(t)) for t in (0.3, 1.7)]
    pairs += [(top_k_filter(logits, k), processors.TopKLogitsWarper(k)) for k in (1, 7, 36)]
    pairs += [(top_p_filter(logits, p), processors.TopPLogitsWarper(p)) for p in (1e-9, 0.3, 0.9, 0.999)]
    pairs += [(min_p_filter(logits, p), processors.MinPLogitsWarper(p)) for p in (0.001, 0.3, 1.0)]
    pairs += [(penalise(logits, seen, r), processors.RepetitionPenaltyLogitsProcessor(r)) for r in (0.5, 1.3)]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs(text, logits.clone()), rtol=0, atol=0, msg=type(theirs).__name__)
    chain = [processors.TemperatureLogitsWarper(1.7), processors.TopKLogitsWarper(9), processors.TopPLogitsWarper(0.8)]
    wanted = logits
    for processor in [*chain, processors.MinPLogitsWarper(0.2)]:
        wanted = processor(text, wanted)
    assert torch.equal(adjust(logits, 1.7, top_k=9, top_p=0.8, min_p=0.2), wanted)


def test_the_nucleus_is_the_smallest_that_suffices():
    probabilities = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
    for p, kept in ((0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [1, 2, 3]), (1.0, [0, 1, 2, 3])):
        filtered = top_p_filter(probabilities.log(), p)
        assert filtered.isfinite().nonzero()[:, 0].tolist() == kept, p


def test_zero_temperature_is_the_best_token_and_low_ones_approach_it():
    logits = torch.randn(3, VOCAB, generator=seeded(2))
    cold = with_temperature(logits, 0.0).softmax(-1)
    assert torch.equal(cold.argmax(-1), logits.argmax(-1))
    assert torch.equal(cold.sum(-1), torch.ones(3))
    torch.testing.assert_close(with_temperature(logits, 0.001).softmax(-1), cold, rtol=0, atol=1e-6)


def test_draws_have_their_probabilities_and_never_an_impossible_token():
    p = torch.tensor([[0.0, 0.5, 0.0, 0.2, 0.3, 0.0]])
    drawn = draw(p.expand(20_000, -1), seeded(3)).bincount(minlength=6)
    assert drawn[p[0] == 0].sum() == 0
    assert chisquare(drawn[[1, 3, 4]], 20_000 * p[0, [1, 3, 4]].double()).pvalue > 0.001
    torch.manual_seed(5)
    first = draw(p)
    torch.manual_seed(5)
    assert torch.equal(first, draw(p)), "without a generator torch's own seed rules"


# --------------------------------------------------------------------------------------------------- cache and batch


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", [[20], [1] * 20, [7, 1, 1, 11], [19, 1]])
def test_the_cache_changes_nothing(kind, parts):
    model, idx = make_model(**KINDS[kind]), torch.randint(VOCAB, (3, 20), generator=seeded(0))
    cache = model.new_cache(5)
    cached = torch.cat([model(part, cache) for part in idx.split(parts, 1)], 1)
    torch.testing.assert_close(cached, model(idx), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_equals_the_loop_over_whole_texts(kind):
    model, idx = make_model(**KINDS[kind]), torch.randint(VOCAB, (3, 5), generator=seeded(1))
    wanted = greedy_without_cache(model, idx, 17)
    assert torch.equal(generate(model, idx, 17, temperature=0.0), wanted)
    assert len(wanted[:, 5:].unique()) > 2, "a text of one token would prove little"
    streamed = torch.stack(list(stream(model, idx, 17, temperature=0.0)), 1)
    assert torch.equal(streamed, wanted[:, 5:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_p": 0.9, "repetition_penalty": 1.4}])
def test_prompts_of_unequal_length_give_what_each_gives_alone(kind, options):
    model, lengths = make_model(**KINDS[kind]), torch.tensor([7, 2, 5, 1])
    generator = seeded(2)
    prompts = [torch.randint(VOCAB, (1, n), generator=generator) for n in lengths.tolist()]
    results = []
    for filler in (0, 9):  # what the padding says must not matter
        idx = torch.full((4, 7), filler)
        for row, prompt in zip(idx, prompts, strict=True):
            row[: prompt.shape[1]] = prompt
        luck = [seeded(row) for row in range(4)]
        results.append(generate(model, idx, 13, lengths=lengths, generator=luck, **options)[:, 7:])
    assert torch.equal(*results)
    for row, prompt in enumerate(prompts):
        alone = generate(model, prompt, 13, generator=seeded(row), **options)
        assert torch.equal(results[0][row], alone[0, prompt.shape[1] :]), row


@pytest.mark.parametrize("rows", [1, 2, 8])
@pytest.mark.parametrize("kind", FEW)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_laid_out_for_few_rows_are_the_same_products(rows, kind, dtype):
    model = make_model(d_model=64, **{**FEW[kind], "context": 250}).to(dtype).eval()
    idx, seen = torch.randint(VOCAB, (rows, 9), generator=seeded(12)), torch.ones(rows, 9, dtype=torch.bool)
    seen[::2, 1] = False  # padding inside
    tolerance = {"rtol": 0, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    few = FewRows(model, rows, uses=1024)
    assert len(few.fast) == 3, "two blocks and the head"
    with torch.no_grad():
        caches = model.new_cache(), model.new_cache()
        for n, part in enumerate(idx.split([3, 1, 1, 2, 1, 1], 1)):
            stop = [3, 4, 5, 7, 8, 9][n]
            given = {"mask": seen[:, :stop], "positions": torch.arange(stop - part.shape[1], stop).expand(rows, -1)}
            given = given if n % 2 else {}
            with few:
                fast = model(part, caches[0], **given)
            torch.testing.assert_close(fast, model(part, caches[1], **given), **tolerance)
    if dtype == torch.float64:
        assert torch.equal(generate(model, idx, 60, temperature=0.0), greedy_without_cache(model, idx, 60))
    assert all("forward" not in layer.__dict__ for layer in model.modules()), "and nothing of it stays"
    assert not FewRows(model, rows, uses=5).fast


@torch.no_grad()
@pytest.mark.parametrize("vocab", [8, 37])  # eight pieces, and a prime that no number of pieces divides
def test_an_output_layer_of_any_size_is_the_same_in_pieces(vocab):
    model, idx = make_model(vocab=vocab).eval(), torch.tensor([[3]])
    wanted = model(idx)
    with FewRows(model, rows=1, uses=1024):
        torch.testing.assert_close(model(idx, model.new_cache()), wanted, rtol=0, atol=1e-11)


@torch.no_grad()
def test_pieces_take_one_row_however_it_lies_and_refuse_another_width():
    torch.manual_seed(0)
    model = GPT(TransformerConfig(vocab=16, d_model=8, heads=2, zero_init=False)).double()
    x = torch.randn(8, 3, dtype=torch.float64)
    rows = [x[:, :1].T, x[:, 1:2].T.contiguous(), x.T[2:], x.T, x.flatten()[:16].view(1, 16)[:, ::2]]
    wanted = [row @ model.head.weight.T for row in rows]
    with FewRows(model, rows=1, uses=1024):
        for row, y in zip(rows, wanted, strict=True):
            torch.testing.assert_close(model.head(row), y, rtol=0, atol=1e-12)
        for width in (4, 16):
            with pytest.raises(RuntimeError, match="8"):
                model.head(torch.randn(1, width, dtype=torch.float64))


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("kind", FEW)
def test_in_bfloat16_few_rows_are_as_exact_as_the_layers_themselves(rows, kind):
    model = make_model(d_model=64, **{**FEW[kind], "context": 250}).bfloat16().eval()
    exact = copy.deepcopy(model).double()
    idx, few = torch.randint(VOCAB, (rows, 60), generator=seeded(13)), FewRows(model, rows, uses=1024)
    assert len(few.fast) == 3, "two blocks and the head"
    wanted, caches = exact(idx), (model.new_cache(), model.new_cache())
    plain = torch.cat([model(part, caches[0]) for part in idx.split(1, 1)], 1)
    with few:
        fast = torch.cat([model(part, caches[1]) for part in idx.split(1, 1)], 1)
    errors = [(logits - wanted).square().mean().sqrt() for logits in (fast, plain)]
    assert fast.dtype == torch.bfloat16
    assert errors[0] < 1.3 * errors[1], errors


@torch.no_grad()
def test_logits_of_a_padded_batch_are_those_of_single_texts():
    model, lengths, seen = make_model(), torch.tensor([3, 6]), []
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(output))
    idx = torch.randint(VOCAB, (2, 6), generator=seeded(4))
    together = generate(model, idx, 8, temperature=0.0, lengths=lengths)
    batch, seen[:] = torch.stack(seen, 1), []
    for row, n in enumerate(lengths.tolist()):
        model(torch.cat([idx[row, :n], together[row, 6:]])[None])
        torch.testing.assert_close(batch[row], seen[-1][0, n - 1 : -1], rtol=0, atol=1e-12)


def test_a_conversation_goes_on_from_its_cache():
    model, idx = make_model(), torch.randint(VOCAB, (2, 9), generator=seeded(5))
    cache = model.new_cache()
    first = generate(model, idx[:, :4], 3, temperature=0.0, cache=cache)
    assert len(cache[0]) == 6, "everything but the last new token"
    reply = torch.cat([first[:, -1:], idx[:, 4:]], 1)
    second = generate(model, reply, 6, temperature=0.0, cache=cache)
    wanted = greedy_without_cache(model, torch.cat([first, idx[:, 4:]], 1), 6)
    assert torch.equal(second[:, -6:], wanted[:, -6:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 2])
def test_what_generation_leaves_behind_can_be_trained_on_and_continued(kind, rows):
    """Inside, no record for gradients is kept at all; outside, everything must be an ordinary tensor again."""
    model, idx = make_model(0, **KINDS[kind]), torch.tensor([[1, 2, 3], [3, 2, 1]])[:rows]
    cache = model.new_cache(2)
    text = generate(model, idx, 33, temperature=0.0, cache=cache)
    options = {"lengths": torch.tensor([2, 3])[:rows], "stop": VOCAB - 1, "top_k": 3, "repetition_penalty": 1.5}
    columns = list(stream(model, idx, 33, generator=seeded(0), **options))
    assert not any(column.is_inference() for column in columns)
    with torch.no_grad():
        rest = model(text[:, -1:], cache)[:, -1]
        torch.testing.assert_close(rest, model(text)[:, -1], rtol=0, atol=1e-10)
    for read in (text, torch.stack(columns, 1)):
        model.zero_grad()
        model(read).logsumexp(-1).sum().backward()
        assert all(weight.grad is not None for weight in model.parameters())
    with torch.inference_mode():  # and a cache that was filled inside the mode goes on outside of it
        inside = model.new_cache(2)
        assert generate(model, idx, 5, temperature=0.0, cache=inside)[:, :8].equal(text[:, :8])
        for part in inside:
            part.select(torch.arange(rows).flip(0))
    with torch.no_grad():
        assert model(text[:, 7:8].flip(0), inside)[:, -1].argmax(-1).flip(0).equal(text[:, 8])


def test_a_memory_is_still_trained_after_texts_were_written_from_it():
    torch.manual_seed(0)
    config = TransformerConfig(vocab=VOCAB, d_model=12, layers=2, heads=2, zero_init=False)
    model, source = EncoderDecoder(config), torch.tensor([[1, 2, 3]])
    memory = model.encoder(source)
    text = generate(model.decoder, source[:, :1], 40, temperature=0.0, memory=memory)
    model.decoder(text, memory=memory).logsumexp(-1).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_common_beginning_is_read_once_for_texts_of_unequal_length():
    model, start = make_model(), torch.randint(VOCAB, (1, 4), generator=seeded(6))
    cache, lengths = model.new_cache(), torch.tensor([1, 3])
    with torch.no_grad():
        model(start.expand(2, -1), cache)
    idx = torch.randint(VOCAB, (2, 3), generator=seeded(7))
    found = generate(model, idx, 5, temperature=0.0, lengths=lengths, cache=cache)[:, 3:]
    for row, n in enumerate(lengths.tolist()):
        wanted = greedy_without_cache(model, torch.cat([start, idx[row : row + 1, :n]], 1), 5)
        assert torch.equal(found[row], wanted[0, -5:])


def test_one_generator_repeats_a_batch_and_one_per_row_does_not_know_the_batch():
    model, idx = make_model(), torch.randint(VOCAB, (3, 4), generator=seeded(8))
    assert torch.equal(*(generate(model, idx, 9, generator=seeded(1)) for _ in "ab"))
    assert not torch.equal(*(generate(model, idx, 9, generator=seeded(s)) for s in (1, 2)))
    batch = generate(model, idx, 9, generator=[seeded(s) for s in (1, 2, 3)])
    assert torch.equal(batch[2:], generate(model, idx[2:], 9, generator=seeded(3)))


@pytest.mark.parametrize("filters", [{}, {"temperature": 0.5}, {"top_k": 4}, {"top_p": 0.7}, {"min_p": 0.1}])
def test_samples_have_the_models_distribution(filters):
    model, idx = make_model(vocab=7, sharpness=1.0), torch.tensor([[1, 2]])
    with torch.no_grad():
        p = adjust(model(idx)[0, -1], **filters).softmax(-1)
    drawn = generate(model, idx.expand(4000, -1), 1, generator=seeded(9), **filters)[:, -1].bincount(minlength=7)
    assert drawn[p == 0].sum() == 0
    assert chisquare(drawn[p > 0], 4000 * p[p > 0]).pvalue > 0.001


def test_the_mode_of_the_model_is_left_as_it_was():
    model = make_model(dropout=0.5).train()
    assert torch.equal(*(generate(model, torch.tensor([[1]]), 6, temperature=0.0) for _ in "ab"))
    assert model.training
    next(words := stream(model, torch.tensor([[1]]), 6))
    words.close()  # a reader who stops listening
    assert model.training
    assert torch.is_grad_enabled()


# ------------------------------------------------------------------------------------------------------- where to stop


def test_texts_stop_where_they_say_so():
    model, idx = make_model(), torch.randint(VOCAB, (4, 3), generator=seeded(10))
    free = generate(model, idx, 30, generator=seeded(1))[:, 3:]
    stop = [int(free[0, 4]), int(free[1, 9])]
    found = generate(model, idx, 30, generator=seeded(1), stop=stop, pad=-7)[:, 3:]
    for row in range(4):
        ends = [n for n, token in enumerate(free[row].tolist()) if token in stop]
        last = ends[0] if ends else 29
        assert torch.equal(found[row, : last + 1], free[row, : last + 1])
        assert (found[row, last + 1 :] == -7).all()


def test_generation_ends_with_the_last_text():
    model, idx = make_model(), torch.tensor([[1, 2], [4, 3]])
    free = generate(model, idx, 25, generator=seeded(3))[:, 2:]
    pair = free[0, 5:7].tolist()
    ending = ends_with(pair)
    alone = generate(model, idx[:1], 25, generator=seeded(0), stop=lambda new: torch.tensor([new.shape[1] == 7]))
    assert alone.shape == (1, 9)
    found = generate(model, idx, 25, generator=seeded(3), stop=ending)[:, 2:]
    firsts = [next((n for n in range(1, 25) if free[row, n - 1 : n + 1].tolist() == pair), 24) for row in range(2)]
    assert found.shape[1] == max(firsts) + 1
    assert torch.equal(found[0, : firsts[0] + 1], free[0, : firsts[0] + 1])
    assert generate(
        model, idx[:1], 25, temperature=0.0, stop=int(greedy_without_cache(model, idx[:1], 1)[0, -1])
    ).shape == (1, 3)


def test_repetition_penalty_counts_prompt_and_continuation():
    model = make_model(sharpness=0.0)  # all logits 0: nothing to divide
    with torch.no_grad():
        model.head.weight.copy_(torch.randn(VOCAB, 12, generator=seeded(0)))
    idx = torch.tensor([[3, 8, 3]])
    found = generate(model, idx, 8, temperature=0.0, repetition_penalty=1e9)[0].tolist()
    # an infinite penalty leaves a token at 0 or sends it far down: none comes twice while a new one is above 0
    with torch.no_grad():
        for n in range(3, 11):
            logits = model(torch.tensor([found[:n]]))[0, -1]
            fresh = {t for t in range(VOCAB) if t not in found[:n] and logits[t] > 0}
            assert not fresh or found[n] in fresh


# ---------------------------------------------------------------------------------------------------------- beam search


def brute_force(model: GPT, idx: torch.Tensor, longest: int, stop: int, alpha: float, vocab: int) -> list[tuple]:
    scored = []
    for n in range(1, longest + 1):
        for text in itertools.product(range(vocab), repeat=n):
            if stop in text[:-1] or (n < longest and text[-1] != stop):
                continue
            total = log_probability(model, idx, torch.tensor(text))
            scored.append((total / n**alpha, text))
    return sorted(scored, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0, 2.0, -0.5])
def test_a_wide_beam_finds_the_best_of_all_texts(alpha):
    model, idx = make_model(3, vocab=3, sharpness=1.5), torch.tensor([[1, 0, 2]])
    wanted = brute_force(model, idx, 4, 2, alpha, 3)
    found = beam_search(model, idx, 4, beams=3**4, length_penalty=alpha, stop=2)
    assert [tuple(text.tokens.tolist()) for text in found] == [text for _, text in wanted]
    assert [text.score for text in found] == pytest.approx([score for score, _ in wanted], abs=1e-12)


def test_one_beam_is_greedy_and_more_find_more():
    for seed in range(5):
        model, idx = make_model(seed), torch.randint(VOCAB, (1, 4), generator=seeded(seed))
        greedy = generate(model, idx, 12, temperature=0.0)[0, 4:]
        (one,) = beam_search(model, idx, 12, beams=1)
        assert torch.equal(one.tokens, greedy)
        assert one.log_probability == pytest.approx(log_probability(model, idx, greedy), abs=1e-10)
        wide = beam_search(model, idx, 12, beams=64)[0]
        assert wide.log_probability == pytest.approx(log_probability(model, idx, wide.tokens), abs=1e-10)
        assert wide.log_probability >= one.log_probability - 1e-12


@torch.no_grad()
def beams_without_cache_or_early_end(model: GPT, idx: torch.Tensor, longest: int, beams: int, alpha: float, stop: int):
    going, finished = [(0.0, ())], []
    for n in range(1, longest + 1):
        rows = torch.tensor([idx[0].tolist() + list(text) for _, text in going])
        logp = model(rows)[:, -1].log_softmax(-1)
        tried = [
            (total + logp[k, token].item(), (*text, token))
            for k, (total, text) in enumerate(going)
            for token in range(VOCAB)
        ]
        ranked = [(*pair, pair[1][-1] == stop or n == longest) for pair in sorted(tried, reverse=True)]
        finished += [(total / n**alpha, text) for total, text, over in ranked[:beams] if over]
        going = [(total, text) for total, text, over in ranked if not over][:beams]
    return sorted(finished, reverse=True)[:beams]


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("seed", [2, 17, 26, 27])
def test_ending_the_search_early_loses_nothing(alpha, seed):
    model, idx = make_model(seed), torch.tensor([[1, 7, 2]])
    found = beam_search(model, idx, 15, beams=2, length_penalty=alpha, stop=4)
    wanted = beams_without_cache_or_early_end(model, idx, 15, 2, alpha, 4)
    assert [tuple(text.tokens.tolist()) for text in found] == [text for _, text in wanted]
    assert [text.score for text in found] == pytest.approx([score for score, _ in wanted], abs=1e-10)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("alpha", "stop"), [(1.0, None), (0.0, 4), (0.6, 4), (3.0, 4)])
def test_beams_equal_those_of_transformers(alpha, stop, seed):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.GPT2Config(vocab_size=13, n_positions=32, n_embd=12, n_layer=2, n_head=3)
    theirs = transformers.GPT2LMHeadModel(config).double().eval()
    with torch.no_grad():
        theirs.transformer.wte.weight.mul_(40)  # tied: also makes the distribution sharp
    prompt = torch.tensor([[1, 7, 2]])
    settings = transformers.GenerationConfig(
        num_beams=2, num_return_sequences=2, max_new_tokens=9, length_penalty=alpha, early_stopping="never",
        do_sample=False, eos_token_id=stop, pad_token_id=0, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    wanted = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=settings)
    ours = GPT.from_transformers(theirs)
    found = beam_search(ours, prompt, 9, beams=2, length_penalty=alpha, stop=() if stop is None else stop)
    for text, row, score in zip(found, wanted.sequences[:, 3:], wanted.sequences_scores, strict=True):
        assert text.tokens.tolist() == row[: len(text.tokens)].tolist()
        assert (row[len(text.tokens) :] == 0).all()
        assert text.score == pytest.approx(score.item(), abs=1e-5)  # theirs sums in single precision


def test_decoders_with_a_memory_are_searched_and_sampled_too():
    torch.manual_seed(2)
    config = TransformerConfig(vocab=VOCAB, d_model=12, layers=2, heads=2, zero_init=False)
    model = EncoderDecoder(config).double().eval()
    source, start = torch.randint(VOCAB, (1, 6), generator=seeded(0)), torch.tensor([[1]])
    with torch.no_grad():
        memory, text = model.encoder(source), start
        for _ in range(8):
            text = torch.cat([text, model(source, text)[:, -1:].argmax(-1)], 1)
    assert torch.equal(generate(model.decoder, start, 8, temperature=0.0, memory=memory), text)
    for found in beam_search(model.decoder, start, 8, beams=3, memory=memory):
        with torch.no_grad():
            logp = model(source, torch.cat([start, found.tokens[None]], 1))[0, :-1].log_softmax(-1)
        assert found.log_probability == pytest.approx(logp.gather(1, found.tokens[:, None]).sum().item(), abs=1e-10)


# --------------------------------------------------------------------------------------------------------- speculation


@pytest.mark.usefixtures("unchecked")
def test_what_is_accepted_or_replaced_has_the_targets_distribution():
    p = torch.tensor([0.5, 0.1, 0.0, 0.4], dtype=torch.float64)
    q = torch.tensor([0.2, 0.3, 0.5, 0.0], dtype=torch.float64)
    generator, counts, taken = seeded(0), torch.zeros(4), 0
    for _ in range(10_000):
        guess = draw(q[None], generator)
        n, rest = accept(p[None], q[None], guess, generator)
        counts[guess[0] if n else draw(rest[None], generator)[0]] += 1
        taken += n
    assert counts[2] == 0
    assert chisquare(counts[[0, 1, 3]], 10_000 * p[[0, 1, 3]]).pvalue > 0.001
    total_variation = (p - q).abs().sum().item() / 2
    assert taken / 10_000 == pytest.approx(1 - total_variation, abs=4 * 0.5 / 100)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("lookahead", "filters"), [(1, {}), (3, {}), (2, {"top_k": 2, "temperature": 0.8})])
def test_speculation_keeps_the_joint_distribution_of_texts(lookahead, filters):
    target, draft = (make_model(seed, vocab=3, sharpness=1.0, layers=1) for seed in (1, 2))
    idx, new, runs = torch.tensor([[1, 0]]), 3, 1000
    texts = list(itertools.product(range(3), repeat=new))
    with torch.no_grad():
        rows = torch.cat([idx.expand(len(texts), -1), torch.tensor(texts)], 1)
        logp = adjust(target(rows)[:, 1:-1], **filters).log_softmax(-1)
        p = logp.gather(2, rows[:, 2:, None]).sum((1, 2)).exp()
    assert p.sum().item() == pytest.approx(1)
    generator, counts = seeded(3), torch.zeros(len(texts))
    tested = accepted = expected = 0
    for _ in range(runs):
        result = speculative(target, draft, idx, new, lookahead=lookahead, generator=generator, **filters)
        counts[texts.index(tuple(result.tokens[0, 2:].tolist()))] += 1
        tested, accepted = tested + result.tested, accepted + result.accepted
        expected += result.expected
    assert counts[p == 0].sum() == 0
    enough = p * runs > 5
    seen, wanted = counts[enough].double(), p[enough] * runs
    if (~enough & (p > 0)).any():
        seen = torch.cat([seen, counts[~enough].sum()[None].double()])
        wanted = torch.cat([wanted, p[~enough].sum()[None] * runs])
    assert chisquare(seen, wanted).pvalue > 0.001
    assert 0 < accepted < tested
    assert accepted / tested == pytest.approx(expected / tested, abs=4 * 0.5 / math.sqrt(tested))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lookahead", [1, 4, 7])
def test_greedy_speculation_is_greedy(kind, lookahead):
    target, draft = make_model(1, **KINDS[kind]), make_model(1, **KINDS[kind])
    with torch.no_grad():  # a draft that is often, but not always, right
        draft.head.weight.add_(torch.randn(VOCAB, 12, generator=seeded(0)) * 1.5)
    idx = torch.randint(VOCAB, (1, 6), generator=seeded(11))
    result = speculative(target, draft, idx, 23, lookahead=lookahead, temperature=0.0)
    assert torch.equal(result.tokens, generate(target, idx, 23, temperature=0.0))
    assert 0 < result.accepted < result.tested
    assert result.accepted == result.expected, "a certain target accepts for certain"
    assert result.calls < 23


def test_a_draft_equal_to_the_target_is_never_refused():
    model, idx = make_model(), torch.tensor([[1, 2]])
    for other in (model, make_model()):
        result = speculative(model, other, idx, 25, lookahead=4, generator=seeded(0))
        assert (result.calls, result.rate) == (5, 1.0)


# -------------------------------------------------------------------------------------------------------------- errors


def test_bad_input_is_refused_with_its_value():
    model, idx = make_model(), torch.tensor([[1, 2, 3]])
    for options, message in [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": 0}, "top_k=0 leaves no token"),
        ({"top_k": 0, "temperature": 0.0}, "top_k=0 leaves no token"),
        ({"top_p": 0.0}, "top_p=0.0 must be above 0"),
        ({"top_p": 1.1}, "top_p=1.1 must be above 0"),
        ({"min_p": 0.0}, "min_p=0.0 must be above 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0 must be above 0"),
        ({"lengths": torch.tensor([4])}, r"lengths are \[4\], each must lie between 1 and the 3"),
        ({"lengths": torch.tensor([0])}, r"lengths are \[0\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            stream(model, idx, 5, **options)  # before anything is written
    with pytest.raises(ValueError, match="0 to add"):
        generate(model, idx, 0)
    with pytest.raises(ValueError, match="1 texts of 0 tokens"):
        generate(model, idx[:, :0], 5)
    with pytest.raises(ValueError, match="2 generators for 1 rows"):
        generate(model, idx, 5, generator=[seeded(0), seeded(1)])
    with pytest.raises(ValueError, match="0 tokens to wait for"):
        ends_with([])
    short = make_model(positions="learned", context=8)
    assert generate(short, idx, 6, temperature=0.0).shape == (1, 9), "the last token is never read"
    for call in (generate, beam_search, lambda *rest: speculative(short, *rest)):
        with pytest.raises(ValueError, match="9 tokens will be read, but learned positions end at context=8"):
            call(short, idx, 7)
    with pytest.raises(ValueError, match="0 beams"):
        beam_search(model, idx, 5, beams=0)
    with pytest.raises(ValueError, match="lookahead=0"):
        speculative(model, model, idx, 5, lookahead=0)
    with pytest.raises(ValueError, match="the target knows 11 tokens, the draft 7"):
        speculative(model, make_model(vocab=7), idx, 5)
