"""The mean against a loop, the LSTM against torch.nn, padding that changes nothing, training that finds what is there,
pairs that are what their labels say, and a temperature that moves no answer.
"""

import copy
import itertools

import pytest
import torch
from torch import nn

from lmtl_course import data
from lmtl_course.classification import (
    PAD,
    LSTMClassifier,
    Tempered,
    WordAverage,
    WordClassifier,
    WordRows,
    class_pairs,
    classify_loss,
    majority,
    train_from_scratch,
)
from lmtl_course.metrics import best_temperature
from lmtl_course.text import Vocabulary

VOCAB, CLASSES = 11, 3
TEXTS = ["fine", "a dull film", "a fine film with a long tail of words", ""]
REVIEWS = [(f"{'a fine' if label else 'a dull'} film number {k}", label) for k in range(20) for label in (0, 1)]
ORDERED = [("red blue", 1), ("blue red", 0)] * 16


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(kind: type, seed: int = 0, **sizes) -> nn.Module:
    torch.manual_seed(seed)
    return kind(VOCAB, CLASSES, **({"d_model": 5, "dropout": 0.0} | sizes)).double()


def padded(*lengths: int, seq: int | None = None, pad: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random words, the padding filled with `pad`."""
    seq = seq or max(lengths)
    mask = torch.arange(seq) < torch.tensor(lengths)[:, None]
    return torch.randint(2, VOCAB, mask.shape, generator=seeded(1)).masked_fill(~mask, pad), mask


def gradients(model: nn.Module, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of every parameter, for the same random gradient from above."""
    model.zero_grad()
    logits.backward(torch.randn(logits.shape, generator=seeded(2), dtype=logits.dtype))
    return {name: p.grad.clone() for name, p in model.named_parameters()}


# ----------------------------------------------------------------------------------------------------------- references


def test_the_mean_equals_a_loop_over_words_in_values_and_gradients():
    model, (idx, mask) = make(WordAverage), padded(7, 3, 1, 5)
    ours, E, W, b = model(idx, mask), model.embedding.weight, model.head.weight, model.head.bias
    rows = []
    for words, real in zip(idx, mask, strict=True):
        total = torch.zeros(5, dtype=torch.float64)
        for word, there in zip(words, real, strict=True):
            if there:
                total = total + E[word]
        rows.append(W @ (total / int(real.sum())) + b)
    theirs = torch.stack(rows)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    got, wanted = gradients(model, ours), gradients(model, theirs)
    for name in got:
        torch.testing.assert_close(got[name], wanted[name], rtol=0, atol=1e-12, msg=name)
    assert got["embedding.weight"][0].abs().sum() == 0, "padding has no gradient"


def test_the_mean_by_hand():
    model = make(WordAverage, d_model=2)
    with torch.no_grad():
        model.embedding.weight[3] = torch.tensor([1.0, 0.0])
        model.embedding.weight[4] = torch.tensor([0.0, 3.0])
        model.head.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
        model.head.bias.copy_(torch.tensor([0.0, 0.5, 0.0]))
    logits = model(torch.tensor([[3, 4, 3, 0]]), torch.tensor([[True, True, True, False]]))
    torch.testing.assert_close(logits, torch.tensor([[4 / 3, 2.5, 5 / 3]], dtype=torch.float64))


def test_the_lstm_equals_torch_and_a_gather_in_values_and_gradients():
    model, (idx, mask) = make(LSTMClassifier, d_hidden=3), padded(7, 3, 1, 5)
    reference, embedding, head = model.lstm.to_torch(), copy.deepcopy(model.embedding), copy.deepcopy(model.head)
    lengths = mask.sum(1)
    packed = nn.utils.rnn.pack_padded_sequence(embedding(idx), lengths, batch_first=True, enforce_sorted=False)
    output, _ = nn.utils.rnn.pad_packed_sequence(reference(packed)[0], batch_first=True)
    last = output[torch.arange(4), lengths - 1, :3]  # forward: at the last word; backward: at the first
    theirs, ours = head(torch.cat([last, output[:, 0, 3:]], 1)), model(idx, mask)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    got = gradients(model, ours)
    above = torch.randn(theirs.shape, generator=seeded(2), dtype=theirs.dtype)
    theirs.backward(above)
    torch.testing.assert_close(got["embedding.weight"], embedding.weight.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(got["head.weight"], head.weight.grad, rtol=0, atol=1e-12)
    rows = model.lstm.rows()
    torch.testing.assert_close(
        got["lstm.cells.0.w_hh"], reference.weight_hh_l0.grad[rows], rtol=0, atol=1e-12, msg="forward direction"
    )
    torch.testing.assert_close(
        got["lstm.cells.1.w_xh"],
        reference.weight_ih_l0_reverse.grad[rows],
        rtol=0,
        atol=1e-12,
        msg="backward direction",
    )


def test_the_loss_is_the_sum_of_minus_log_probabilities():
    model, (idx, mask) = make(WordAverage), padded(7, 3, 1)
    targets = torch.tensor([2, 0, 1])
    nats, count, state = classify_loss(model, (idx, mask, targets), None)
    p = model(idx, mask).softmax(-1)
    assert (count, state) == (3, None)
    torch.testing.assert_close(nats, -(p[0, 2] * p[1, 0] * p[2, 1]).log())


# ----------------------------------------------------------------------------------------------------------- invariants


@pytest.mark.parametrize("kind", [WordAverage, LSTMClassifier])
def test_padding_changes_nothing(kind):
    model = make(kind)
    idx, mask = padded(7, 3, 1)
    longer, wider = padded(7, 3, 1, seq=13)
    longer[:, :7] = idx
    for pad in (0, 9):
        filled = longer.masked_fill(~wider, pad)
        torch.testing.assert_close(model(filled, wider), model(idx, mask), rtol=0, atol=1e-12)
    alone = torch.cat([model(idx[k : k + 1, :n], mask[k : k + 1, :n]) for k, n in enumerate((7, 3, 1))])
    torch.testing.assert_close(model(idx, mask), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [WordAverage, LSTMClassifier])
def test_only_the_average_is_blind_to_order(kind):
    model, (idx, mask) = make(kind), padded(7)
    turned = model(idx.flip(1), mask)
    assert torch.allclose(turned, model(idx, mask), atol=1e-12) == (kind is WordAverage)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_predictions_keep_the_order_of_the_texts_in_any_batch(batch):
    model = train_from_scratch(REVIEWS, epochs=2)
    alone = torch.cat([model.logits([text]) for text in TEXTS])
    torch.testing.assert_close(model.logits(TEXTS, batch), alone)
    assert model.predict(TEXTS, batch) == [model.labels[k] for k in alone.argmax(-1).tolist()]
    torch.testing.assert_close(model.probabilities(TEXTS).sum(-1), torch.ones(4))


def test_a_pass_deals_every_row_once_and_batch_n_is_a_function_of_n():
    ids = [[k + 2] * (k % 7 + 1) for k in range(50)]
    rows = WordRows(ids, list(range(50)), batch=8, seed=3, pad=1)
    assert len(rows) == 7
    first = [rows(n) for n in range(7)]
    assert sorted(itertools.chain(*(targets.tolist() for _, _, targets in first))) == list(range(50))
    for idx, mask, targets in first:
        for row, real, target in zip(idx, mask, targets.tolist(), strict=True):
            assert row[real].tolist() == ids[target]
            assert set(row[~real].tolist()) <= {1}
    for n in (9, 2, 5):
        again = WordRows(ids, list(range(50)), batch=8, seed=3, pad=1)(n)
        assert all(torch.equal(a, b) for a, b in zip(again, rows(n), strict=True))
    other = WordRows(ids, list(range(50)), batch=8, seed=4, pad=1)
    assert [t.tolist() for *_, t in map(other, range(7))] != [t.tolist() for *_, t in first]


def test_the_loop_sees_the_padding_id_only_under_the_mask():
    model = train_from_scratch(REVIEWS, epochs=1)
    pad = model.vocabulary.id(PAD)
    for idx, mask, _ in model.rows([*TEXTS, "<pad> <unk>"], [0] * 5, batch=3):
        assert not (idx[mask] == pad).any(), "a text that spells <pad> is not padding"
        assert bool((idx[~mask] == pad).all())
        assert bool(mask.any(1).all())


# ------------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("kind", ["average", "lstm"])
def test_training_separates_what_can_be_separated(kind):
    model = train_from_scratch(REVIEWS, kind, labels=("bad", "good"), epochs=20, lr=0.02)
    assert model.predict(["a fine film", "a dull film"]) == ["good", "bad"]
    assert (model.logits([text for text, _ in REVIEWS]).argmax(-1) == torch.tensor([y for _, y in REVIEWS])).all()
    assert model.history is not None
    assert model.history.loss[-1] < 0.1 < model.history.loss[0]


def test_the_lstm_learns_an_order_that_the_average_cannot():
    texts, truth = ["red blue", "blue red"], torch.tensor([1, 0])
    lstm = train_from_scratch(ORDERED, "lstm", epochs=40, lr=0.02, dropout=0.0)
    assert torch.equal(lstm.logits(texts).argmax(-1), truth)
    average = train_from_scratch(ORDERED, "average", epochs=40, lr=0.02, dropout=0.0)
    torch.testing.assert_close(*average.logits(texts))


@pytest.mark.parametrize("kind", ["average", "lstm"])
def test_the_seed_decides_the_run_and_nothing_is_drawn_when_predicting(kind):
    runs = [train_from_scratch(REVIEWS, kind, epochs=2, seed=seed) for seed in (1, 1, 2)]
    weights = [run.model.state_dict() for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["head.weight"], weights[2]["head.weight"])
    assert not runs[0].model.training
    assert torch.equal(runs[0].logits(TEXTS), runs[1].logits(TEXTS)), "no dropout when predicting"


def test_validation_rows_end_the_training_and_keep_the_best_weights():
    wrong = [(text, 1 - label) for text, label in REVIEWS]
    model = train_from_scratch(REVIEWS, valid=wrong, epochs=20, lr=0.02)
    assert model.history is not None
    assert len(model.history.looks) == 3, "the first look is the best, two worse ones end it"
    assert min(nats for _, nats in model.history.looks) == model.history.looks[0][1]


def test_characters_are_words_for_a_language_without_spaces():
    rows = [("这个酒店很好", 1), ("这个酒店很差", 0)] * 8
    model = train_from_scratch(rows, tokenize=list, labels=("差", "好"), epochs=20, lr=0.03)
    assert "好" in model.vocabulary
    assert model.predict(["好", "差"]) == ["好", "差"]


def test_the_average_learns_from_a_data_set_by_name():
    rows = data.load("pydocs_topics", "train")
    model = train_from_scratch(rows[:400], epochs=15, lr=0.01)
    test = data.load("pydocs_topics", "test")
    right = model.logits([row.text for row in test]).argmax(-1) == torch.tensor([row.label for row in test])
    assert model.labels == rows.labels
    common = majority([row.label for row in rows[:400]])
    assert right.float().mean() > 0.1 + sum(row.label == common for row in test) / len(test)


# -------------------------------------------------------------------------------------------------- pairs, temperature


def test_pairs_have_the_labels_that_they_say():
    rows = [(f"text {k}", k % 3) for k in range(12)]
    pairs = class_pairs(rows, 40, seed=5)
    number = dict(rows)
    assert sum(same for _, same in pairs) == 20
    for (one, other), same in pairs:
        assert one != other
        assert same == (number[one] == number[other])
    assert class_pairs(rows, 40, seed=5) == pairs != class_pairs(rows, 40, seed=6)
    assert [same for _, same in pairs] != sorted(same for _, same in pairs), "in random order"


def test_a_temperature_moves_no_answer_and_is_the_one_of_metrics():
    model = train_from_scratch(REVIEWS, epochs=3)
    held_out = [(text, label if k % 5 else 1 - label) for k, (text, label) in enumerate(REVIEWS)]
    tempered = Tempered.fit(model, held_out)
    texts, truth = [text for text, _ in held_out], [label for _, label in held_out]
    assert tempered.temperature == pytest.approx(best_temperature(model.logits(texts).double().numpy(), truth))
    assert tempered.predict(texts) == model.predict(texts)
    torch.testing.assert_close(tempered.logits(texts) * tempered.temperature, model.logits(texts))

    def nats(probabilities: torch.Tensor) -> float:
        return -probabilities[torch.arange(len(truth)), torch.tensor(truth)].log().mean().item()

    best = nats(tempered.probabilities(texts))
    for factor in (0.8, 1.25):
        assert best < nats(Tempered(model, tempered.temperature * factor).probabilities(texts))


def test_the_majority_breaks_ties_downwards():
    assert majority([2, 1, 1, 2, 0]) == 1
    assert majority([5]) == 5


# --------------------------------------------------------------------------------------------------------------- errors


def test_bad_input_is_refused_with_its_value():
    for call, message in [
        (lambda: majority([]), "0 labels"),
        (lambda: train_from_scratch([]), "0 rows to learn from"),
        (lambda: train_from_scratch([("a", 1), ("b", 1)]), "only the label 1 occurs"),
        (lambda: train_from_scratch([("a", 0), ("b", 2)], labels=("x", "y")), "0 to 2, but there are 2 names"),
        (lambda: train_from_scratch([("a", -1), ("b", 1)]), "from -1 to 1"),
        (lambda: train_from_scratch(REVIEWS, "transformer"), "'transformer' must be one of average, lstm"),
        (lambda: WordRows([], [], 3), "0 texts and 0 labels"),
        (lambda: WordRows([[1]], [0, 1], 3), "1 texts and 2 labels"),
        (lambda: class_pairs(REVIEWS, 3), "3 pairs cannot be half alike"),
        (lambda: class_pairs(REVIEWS, 0), "0 pairs"),
        (lambda: class_pairs([("a", 1), ("b", 1)], 2), "2 rows of 1 classes"),
        (lambda: class_pairs([("a", 1), ("b", 0)], 2), "2 rows of 2 classes"),
        (lambda: Tempered(train_from_scratch(REVIEWS, epochs=1), 0.0), "temperature=0.0"),
        (lambda: Tempered(train_from_scratch(REVIEWS, epochs=1), float("inf")), "temperature=inf must be finite"),
        (lambda: train_from_scratch(REVIEWS, epochs=1).logits([]), r"0 texts; give at least one \(it may be empty\)"),
        (lambda: train_from_scratch([("a", "good"), ("b", "bad")]), "label 'good' must be an index"),
        (lambda: train_from_scratch([("a", 0.9), ("b", 1)]), r"label 0\.9 must be an index"),
        (lambda: train_from_scratch(REVIEWS, valid=[]), "0 rows in valid"),
        (lambda: train_from_scratch(REVIEWS, valid=[("a", -100)]), "from -100 to 1"),
        (lambda: train_from_scratch(REVIEWS, length=0), "epochs=10, batch=32 and length=0 must each be at least 1"),
        (lambda: train_from_scratch(REVIEWS, batch=0), "batch=0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_one_string_is_not_taken_for_its_letters():
    with pytest.raises(TypeError, match="texts is one string"):
        train_from_scratch(REVIEWS, epochs=1).predict("fine film")


def test_words_beyond_the_length_are_not_in_the_vocabulary():
    model = train_from_scratch([("fine film far", 1), ("dull film away", 0)] * 4, epochs=1, min_count=1, length=2)
    known, beyond, never = model.vocabulary.encode(["film", "far", "zebra"])
    assert known != never == beyond


def test_words_never_seen_are_read_as_unknown():
    model = train_from_scratch(REVIEWS, epochs=1)
    torch.testing.assert_close(model.logits(["zebra 酒店 ☃"]), model.logits(["qwerty asdf yxcv"]))
    torch.testing.assert_close(model.logits([""]), model.logits(["zebra"]))
    assert isinstance(model, WordClassifier)
    assert isinstance(model.vocabulary, Vocabulary)
