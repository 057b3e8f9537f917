r"""Tagging: a label for every word, and with it where a name begins and ends.

Chapter 12 gave a text one label. Here every word gets one, and neighbouring labels depend on each other: an entity goes
on only where it has begun. That dependence is a chain, and a chain of tags has a distribution that can be summed over
exactly: the linear-chain CRF. `TaggingHead` puts it on a pretrained base, so that `finetune` of chapter 11 trains it;
`train_tagger` puts it on the LSTM of chapter 5, from scratch. Entities are counted whole, as `seqeval` counts them.
"""

import html
import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lmtl_course.losses import cross_entropy
from lmtl_course.pretraining import Base
from lmtl_course.recurrent import LSTM
from lmtl_course.text import Mark, Vocabulary, from_bio, token_spans
from lmtl_course.training import IGNORED, Batch, History, State, TrainConfig, _autocast, train
from lmtl_course.transfer import Buckets, Example, FineTuned, Head, _mode, opened, save_parts

OUTSIDE = "O"
"""The tag of a word that belongs to no entity."""
_PREFIXES = {"bio": "BI", "bioes": "BIES"}
_Rows = Sequence[Sequence[str]]
_Emissions = Float[Tensor, "batch seq tags"]
_Tags = Int[Tensor, "batch seq"]
_Mask = Bool[Tensor, "batch seq"]
_Steps = Float[Tensor, "tags tags"]
_Ends = Float[Tensor, " tags"]

# ---------------------------------------------------------------------------------------------------- tags and entities


class Entity(NamedTuple):
    """Words `start` to `end` of a sentence, without `end`, are a `label`."""

    start: int
    end: int
    label: str


def _parted(tag: str) -> tuple[str, str]:
    """A tag's prefix and label; `O` has no label."""
    prefix, _, label = tag.partition("-")
    if tag != OUTSIDE and (prefix not in ("B", "I", "E", "S") or not label):
        raise ValueError(f"tag {tag!r} is none of O, B-LABEL, I-LABEL, E-LABEL and S-LABEL; convert the scheme first")
    return prefix, label


def entities(tags: Sequence[str], strict: str | None = None) -> list[Entity]:
    """The entities that a row of tags spells.

    Args:
        tags: one per word: `O`, and `B-`, `I-`, and in BIOES also `E-` and `S-`, before a label.
        strict: None reads like the CoNLL scorer: an `I-` that continues nothing begins an entity all the same. "bio"
            takes only what begins with `B-`, "bioes" only what also ends with `E-` or is an `S-`.

    Raises:
        ValueError: a tag of another form, or another scheme.

    Source: Tjong Kim Sang and De Meulder 2003, aclanthology.org/W03-0419 (the scorer).

    >>> entities(["B-PER", "I-PER", "O", "I-LOC"])
    [Entity(start=0, end=2, label='PER'), Entity(start=3, end=4, label='LOC')]
    >>> entities(["B-PER", "I-PER", "O", "I-LOC"], strict="bio")
    [Entity(start=0, end=2, label='PER')]
    """
    if strict not in (None, *_PREFIXES):
        raise ValueError(f"strict={strict!r} must be None, 'bio' or 'bioes'")
    found: list[Entity] = []
    opened, before = -1, ("O", "")  # where the open entity began, if there is one
    for i, tag in enumerate([*tags, OUTSIDE]):
        prefix, label = _parted(tag)
        goes_on = opened >= 0 and prefix in ("I", "E") and label == before[1] and before[0] in ("B", "I")
        if not goes_on:
            if opened >= 0 and (strict != "bioes" or before[0] in ("E", "S")):
                found.append(Entity(opened, i, before[1]))
            starts = prefix != "O" if strict is None else prefix in ("B", "S") if strict == "bioes" else prefix == "B"
            opened = i if starts else -1
        before = prefix, label
    return found


def entity_tags(length: int, found: Iterable[Entity], scheme: str = "bio") -> list[str]:
    """Undo `entities`: one tag for each of a sentence's words. With `entities` before it, one scheme becomes the other.

    Args:
        length: how many words there are.
        found: stretches of at least one word that do not overlap, in any order.
        scheme: "bio" or "bioes".

    Raises:
        ValueError: an entity is empty, leaves the sentence or overlaps another, or the scheme has another name.

    Source: Ratinov and Roth 2009, aclanthology.org/W09-1119 (BILOU, which is BIOES by other letters).

    >>> entity_tags(4, [Entity(0, 2, "PER"), Entity(3, 4, "LOC")], "bioes")
    ['B-PER', 'E-PER', 'O', 'S-LOC']
    """
    if scheme not in _PREFIXES:
        raise ValueError(f"scheme={scheme!r} must be 'bio' or 'bioes'")
    tags, at = [OUTSIDE] * length, 0
    for entity in sorted(found):
        if not at <= entity.start < entity.end <= length:
            raise ValueError(
                f"{entity} is empty, overlaps one that ends at {at}, or leaves a sentence of {length} words; a word "
                "has one tag, so keep one of two entities that overlap"
            )
        at = entity.end
        tags[entity.start : at] = [f"B-{entity.label}"] + [f"I-{entity.label}"] * (at - entity.start - 1)
        if scheme == "bioes":
            tags[at - 1] = f"{'E' if at - entity.start > 1 else 'S'}-{entity.label}"
    return tags


def tag_names(labels: Sequence[str], scheme: str = "bio") -> tuple[str, ...]:
    """All tags of a scheme, "bio" or "bioes", `O` first.

    >>> tag_names(["LOC", "PER"])
    ('O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER')
    """
    if scheme not in _PREFIXES:
        raise ValueError(f"scheme={scheme!r} must be 'bio' or 'bioes'")
    if isinstance(labels, str):
        raise TypeError(f"labels={labels!r} is one string; give a list of labels, [{labels!r}]")
    return (OUTSIDE, *(f"{prefix}-{label}" for label in labels for prefix in _PREFIXES[scheme]))


def _words(words: Any) -> list[str]:
    if isinstance(words, str) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"a sentence must be a list of words, got {words!r:.60}; cut it with lmtl_course.text.tokenize")
    return list(words)


def _checked(row: Any) -> tuple[list[str], list[str]]:
    if not isinstance(row, tuple | list) or len(row) != 2:
        raise ValueError(f"a row must be (words, tags), got {row!r:.80}")
    words, tags = _words(row[0]), list(row[1])
    if len(words) != len(tags):
        raise ValueError(f"{len(words)} words but {len(tags)} tags in the row that begins {words[:4]}; give each one")
    return words, tags


def _numbered(rows: Sequence[Any], tags: Sequence[str]) -> list[tuple[list[str], list[int]]]:
    """Rows with the tags as numbers."""
    number, found = {tag: k for k, tag in enumerate(tags)}, []
    for words, row in map(_checked, rows):
        if unknown := [tag for tag in row if tag not in number]:
            raise ValueError(
                f"tag {unknown[0]!r} in the row that begins {words[:4]} is none of {list(tags)}; "
                "name it in tag_names, or convert the scheme"
            )
        found.append((words, [number[tag] for tag in row]))
    return found


# -------------------------------------------------------------------------------------------------------------- scoring


class EntityScore(NamedTuple):
    """Precision, recall and their harmonic mean, and the counts that they are made of."""

    precision: float
    recall: float
    f1: float
    right: int
    predicted: int
    true: int


def _pairs(truth: _Rows, predicted: _Rows, strict: str | None = None) -> list[tuple[set[Entity], set[Entity]]]:
    if len(truth) != len(predicted):
        raise ValueError(f"there are {len(truth)} true sentences and {len(predicted)} predicted ones; give each both")
    for k, (a, b) in enumerate(zip(truth, predicted, strict=True)):
        if len(a) != len(b):
            raise ValueError(f"sentence {k} has {len(a)} true tags and {len(b)} predicted ones; give every word one")
    return [(set(entities(a, strict)), set(entities(b, strict))) for a, b in zip(truth, predicted, strict=True)]


def entity_f1(truth: _Rows, predicted: _Rows, strict: str | None = None, label: str | None = None) -> EntityScore:
    r"""$F_1 = 2\,|Y \cap \hat Y| / (|Y| + |\hat Y|)$ of the true entities $Y$ and the predicted ones $\hat Y$.

    An entity counts as right where its first word, its last word and its label are right; there is no half a point.

    Args:
        truth: the tags of each sentence.
        predicted: the same, of the same lengths.
        strict: as in `entities`; None and "bio" are `seqeval`'s default and its strict IOB2 mode.
        label: count only entities of this label.

    Returns:
        Scores from 0 to 1, 0 where nothing is there to divide by, and the counts.

    Raises:
        ValueError: the lengths differ, or a tag is none.

    Source: Tjong Kim Sang and De Meulder 2003, aclanthology.org/W03-0419; as code, Nakayama 2018 (`seqeval`).

    >>> score = entity_f1([["B-PER", "I-PER", "O"]], [["B-PER", "O", "B-LOC"]])
    >>> score.f1, score.predicted, score.true
    (0.0, 2, 1)
    """
    right = claimed = there = 0
    for one, other in _pairs(truth, predicted, strict):
        true, said = ({e for e in found if label in (None, e.label)} for found in (one, other))
        right, claimed, there = right + len(true & said), claimed + len(said), there + len(true)
    return EntityScore(
        right / max(claimed, 1), right / max(there, 1), 2 * right / max(claimed + there, 1), right, claimed, there
    )


ERRORS = ("right", "boundary", "type", "both", "missed", "invented")
"""What can become of an entity, see `error_kinds`."""


def error_kinds(truth: _Rows, predicted: _Rows) -> dict[str, int]:
    """What became of every true entity, and how many were invented; arguments and errors as in `entity_f1`.

    Returns:
        Of the true entities: "right"; "boundary", a prediction of the same label overlaps but begins or ends elsewhere;
        "type", the same words have another label; "both", another label and other ends; "missed", nothing overlaps.
        These five add up to the true entities. "invented" are predictions that overlap no true entity.

    >>> kinds = error_kinds([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "O", "B-LOC", "B-PER"]])
    >>> {kind: n for kind, n in kinds.items() if n}
    {'boundary': 1, 'type': 1, 'invented': 1}
    """
    counts = dict.fromkeys(ERRORS, 0)
    for true, said in _pairs(truth, predicted):
        for entity in true:
            near = [e for e in said if e.start < entity.end and entity.start < e.end]
            same_place = any(e[:2] == entity[:2] for e in near)
            same_label = any(e.label == entity.label for e in near)
            kind = "type" if same_place else "boundary" if same_label else "both" if near else "missed"
            counts["right" if entity in said else kind] += 1
        counts["invented"] += sum(not any(e.start < s.end and s.start < e.end for e in true) for s in said)
    return counts


def surface(words: Sequence[str], entity: Entity) -> str:
    """An entity of a sentence as it is compared with others: its words in small letters.

    >>> surface(["In", "New", "York"], Entity(1, 3, "LOC"))
    'new york'
    """
    return " ".join(words[entity.start : entity.end]).lower()


def recall_by_novelty(known: Iterable[str], rows: Sequence[Any], predicted: _Rows) -> dict[str, tuple[int, int]]:
    """How many entities were found, apart for those whose spelling the training rows had as an entity and the others.

    Args:
        known: surface forms of the training entities, see `surface`.
        rows: of (words, true tags).
        predicted: tags for each row; errors as in `entity_f1`.

    Returns:
        For "seen" and "unseen", how many were found exactly, and how many there are.

    Source: Augenstein, Derczynski and Bontcheva 2017, arXiv:1701.02877.

    >>> rows = [(["Ada", "in", "Paris"], ["B-PER", "O", "B-LOC"])]
    >>> recall_by_novelty({"paris"}, rows, [["O", "O", "B-LOC"]])
    {'seen': (1, 1), 'unseen': (0, 1)}
    """
    known, counts = set(known), {"seen": [0, 0], "unseen": [0, 0]}
    for row, (true, said) in zip(rows, _pairs([row[1] for row in rows], predicted), strict=True):
        for entity in true:
            count = counts["seen" if surface(row[0], entity) in known else "unseen"]
            count[0] += entity in said
            count[1] += 1
    return {kind: (found, there) for kind, (found, there) in counts.items()}


class Gazetteer:
    """A list of names with their labels, taken from training rows: what memory alone is worth.

    A name is kept where more than half of its occurrences in the training rows were an entity with that label. Texts
    are read from the left, and at each word the longest name is taken.

    Args:
        rows: of (words, tags); not one tag per word is a ValueError.

    >>> names = Gazetteer([(["Ada", "met", "a", "may"], ["B-PER", "O", "O", "O"])])
    >>> names.predict([["ada", "may"]])
    [['B-PER', 'O']]
    """

    def __init__(self, rows: Sequence[Any]):
        labelled: dict[str, Counter[str]] = {}
        for words, tags in map(_checked, rows):
            for entity in entities(tags):
                labelled.setdefault(surface(words, entity), Counter())[entity.label] += 1
        self.longest = max((name.count(" ") + 1 for name in labelled), default=0)
        occurrences: Counter[str] = Counter()
        for words, _ in rows:
            for n in range(1, self.longest + 1):
                spelled = (surface(words, Entity(i, i + n, "")) for i in range(len(words) - n + 1))
                occurrences.update(name for name in spelled if name in labelled)
        best = {name: counts.most_common(1)[0] for name, counts in labelled.items()}
        self.names = {name: label for name, (label, n) in best.items() if n > occurrences[name] / 2}

    def predict(self, sentences: _Rows) -> list[list[str]]:
        """Tags for every word of sentences of words."""
        tagged = []
        for words in map(_words, sentences):
            found, at = [], 0
            while at < len(words):
                longest_first = range(min(len(words), at + self.longest), at, -1)
                names = ((end, self.names.get(surface(words, Entity(at, end, "")))) for end in longest_first)
                end, label = next(((end, label) for end, label in names if label), (at + 1, None))
                found += [Entity(at, end, label)] if label else []
                at = end
            tagged.append(entity_tags(len(words), found))
        return tagged


# ---------------------------------------------------------------------------------------------------- the chain of tags


def _check_chain(emissions: Tensor, mask: Tensor) -> None:
    if mask.shape != emissions.shape[:2] or not mask.shape[1] or not bool(mask[:, 0].all()):
        raise ValueError(
            f"a mask of shape {tuple(mask.shape)} for emissions of shape {tuple(emissions.shape)} must be True at the "
            "first word of every row: leave empty sentences out, they have no tags"
        )
    if gaps := (mask[:, 1:] & ~mask[:, :-1]).any(1).nonzero().flatten().tolist():
        raise ValueError(f"the mask of row {gaps[0]} has words after padding: all padding belongs on the right")


def chain_score(
    emissions: _Emissions, tags: _Tags, mask: _Mask, transitions: _Steps, start: _Ends, end: _Ends
) -> Float[Tensor, " batch"]:
    r"""The score of one row of tags, $s(y) = a_{y_1} + \sum_t E_{t,y_t} + \sum_{t>1} A_{y_{t-1},y_t} + b_{y_n}$.

    Args:
        emissions: $E$ of shape (batch, seq, tags), what the model says about each word alone.
        tags: $y$ of shape (batch, seq); what stands at padding is not read.
        mask: of shape (batch, seq), True at words, padding on the right, at least one word in each row.
        transitions: $A$ of shape (tags, tags), from the tag in the row to the tag in the column.
        start: $a$ of shape (tags,), of the first tag.
        end: $b$ of shape (tags,), of the last one.

    Raises:
        ValueError: a row has no word, or the shapes do not fit.

    Source: Lafferty, McCallum and Pereira 2001 (the model); Lample et al. 2016, arXiv:1603.01360, section 2.2.

    >>> E, A = torch.tensor([[[1.0, 0.0], [0.0, 5.0]]]), torch.tensor([[0.0, 10.0], [0.0, 0.0]])
    >>> chain_score(E, torch.tensor([[0, 1]]), torch.ones(1, 2).bool(), A, torch.zeros(2), torch.zeros(2)).item()
    16.0
    """
    _check_chain(emissions, mask)
    tags = tags.masked_fill(~mask, 0)
    said = emissions.gather(2, tags[..., None])[..., 0]
    moved = transitions[tags[:, :-1], tags[:, 1:]]  # batch seq-1
    last = tags.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0]
    return start[tags[:, 0]] + (said * mask).sum(1) + (moved * mask[:, 1:]).sum(1) + end[last]


class LogPartition(torch.autograd.Function):
    r"""$\log Z = \log \sum_y e^{s(y)}$ over all rows of tags, by the forward algorithm, with its gradient by hand.

    $\alpha_t(k) = E_{tk} + \mathrm{lse}_j(\alpha_{t-1}(j) + A_{jk})$ from the left. The gradient needs the same from
    the right, $\beta_t(j) = \mathrm{lse}_k(A_{jk} + E_{t+1,k} + \beta_{t+1}(k))$, and is a table of probabilities:
    $\partial \log Z / \partial E_{tk} = P(y_t = k) = e^{\alpha_t(k) + \beta_t(k) - \log Z}$, and for $A_{jk}$ the
    expected number of steps from j to k. Python loops over time alone.

    Source: Rabiner 1989, doi:10.1109/5.18626 (forward and backward); Sutton and McCallum 2012, doi:10.1561/2200000013.

    >>> zero = torch.zeros(2)
    >>> mask = torch.ones(1, 3).bool()
    >>> LogPartition.apply(torch.zeros(1, 3, 2), mask, torch.zeros(2, 2), zero, zero).exp().round()  # 2³ rows
    tensor([8.])
    """

    @staticmethod
    def forward(ctx: Any, emissions: Tensor, mask: Tensor, transitions: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """One number per row; arguments as in `chain_score`."""
        alpha = start + emissions[:, 0]
        alphas = [alpha]
        for t in range(1, emissions.shape[1]):
            step = emissions[:, t] + (alpha[:, :, None] + transitions).logsumexp(1)
            alpha = torch.where(mask[:, t, None], step, alpha)
            alphas.append(alpha)
        log_z = (alpha + end).logsumexp(1)
        ctx.save_for_backward(emissions, mask, transitions, end, torch.stack(alphas, 1), log_z)
        return log_z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        """The marginals, times what comes from above."""
        emissions, mask, transitions, end, alphas, log_z = ctx.saved_tensors
        beta = end.expand_as(alphas[:, 0])
        betas = [beta]
        for t in reversed(range(1, emissions.shape[1])):
            step = (transitions + (emissions[:, t] + beta)[:, None]).logsumexp(2)
            beta = torch.where(mask[:, t, None], step, beta)  # behind the last word it stays the end's scores
            betas.append(beta)
        betas_ = torch.stack(betas[::-1], 1)
        z, never = log_z[:, None, None], -math.inf  # set before exp: at padding a difference may be large
        single = (alphas + betas_ - z).masked_fill(~mask[..., None], never).exp() * above[:, None, None]
        right = (emissions[:, 1:] + betas_[:, 1:] - z).masked_fill(~mask[:, 1:, None], never)
        pair = (alphas[:, :-1, :, None] + transitions + right[:, :, None]).exp()  # batch seq-1 tags tags
        steps = (pair * above[:, None, None, None]).sum((0, 1))
        last = single.gather(1, (mask.sum(1) - 1)[:, None, None].expand(-1, 1, single.shape[2]))[:, 0]
        return single, None, steps, single[:, 0].sum(0), last.sum(0)


def log_partition(
    emissions: _Emissions, mask: _Mask, transitions: _Steps, start: _Ends, end: _Ends
) -> Float[Tensor, " batch"]:
    r"""$\log Z$ of each row, see `LogPartition`; arguments and errors as for `chain_score`.

    >>> E, zero = torch.zeros(1, 2, 3), torch.zeros(3)
    >>> round(log_partition(E, torch.ones(1, 2).bool(), torch.zeros(3, 3), zero, zero).item(), 4)  # log 3²
    2.1972
    """
    _check_chain(emissions, mask)
    return cast(Tensor, LogPartition.apply(emissions, mask, transitions, start, end))


def viterbi(
    emissions: _Emissions, mask: _Mask, transitions: _Steps, start: _Ends, end: _Ends
) -> tuple[_Tags, Float[Tensor, " batch"]]:
    r"""The best row of tags, $\arg\max_y s(y)$, and its score: the forward algorithm with the largest for the sum.

    Arguments and errors as for `chain_score`; a score of minus infinity forbids. The tags are 0 at padding.

    Source: Viterbi 1967, doi:10.1109/TIT.1967.1054010.

    >>> E, A = torch.tensor([[[1.0, 0.0], [0.0, 5.0]]]), torch.tensor([[0.0, -9.0], [0.0, 0.0]])
    >>> viterbi(E, torch.ones(1, 2).bool(), A, torch.zeros(2), torch.zeros(2))
    (tensor([[1, 1]]), tensor([5.]))
    """
    _check_chain(emissions, mask)
    best, pointers = start + emissions[:, 0], []
    stay = torch.arange(emissions.shape[2], device=emissions.device).expand_as(best)
    for t in range(1, emissions.shape[1]):
        score, came_from = (best[:, :, None] + transitions).max(1)
        best = torch.where(mask[:, t, None], emissions[:, t] + score, best)
        pointers.append(torch.where(mask[:, t, None], came_from, stay))
    score, tag = (best + end).max(1)
    path = [tag]
    for pointer in reversed(pointers):
        tag = pointer.gather(1, tag[:, None])[:, 0]
        path.append(tag)
    return torch.stack(path[::-1], 1).masked_fill(~mask, 0), score


def rules(tags: Sequence[str]) -> tuple[Bool[Tensor, " tags"], Bool[Tensor, "tags tags"], Bool[Tensor, " tags"]]:
    """Which tags may stand first, which may follow which, and which may stand last; a tag of another form is refused.

    Inside comes after begin, of the same label; in BIOES an entity also has to end.

    >>> start, step, end = rules(("O", "B-PER", "I-PER"))
    >>> start.tolist(), step.tolist()
    ([True, True, False], [[True, True, False], [True, True, True], [True, True, True]])
    """
    parts = [_parted(tag) for tag in tags]
    inside = torch.tensor([prefix in ("I", "E") for prefix, _ in parts])
    may_go_on = torch.tensor([prefix in ("B", "I") for prefix, _ in parts])
    must_go_on = may_go_on & any(prefix in ("E", "S") for prefix, _ in parts)
    same_label = torch.tensor([[one == other for _, other in parts] for _, one in parts])
    step = torch.where(inside, may_go_on[:, None] & same_label, ~must_go_on[:, None])
    return ~inside, step, ~must_go_on


class CRF(nn.Module):
    r"""A distribution over rows of tags, $P(y \mid x) = e^{s(y)} / Z$, whose scores of neighbours are learned.

    Args:
        tags: how many there are, or their names: then `decode` returns only rows that the scheme allows.

    Source: Lafferty, McCallum and Pereira 2001, "Conditional Random Fields"; on top of a network: Lample et al. 2016,
    arXiv:1603.01360.

    >>> crf = CRF(("O", "B-PER", "I-PER"))
    >>> emissions, mask = torch.tensor([[[0.0, 0.0, 3.0], [0.0, 1.0, 2.0]]]), torch.ones(1, 2).bool()
    >>> crf.decode(emissions, mask)  # I-PER may not stand first
    tensor([[1, 2]])
    """

    barred: Tensor
    """Minus infinity where the scheme forbids, else 0: a row for each tag before, then the start and the end."""

    def __init__(self, tags: int | Sequence[str]):
        super().__init__()
        n = tags if isinstance(tags, int) else len(tags)
        if n < 2:
            raise ValueError(f"a chain needs at least 2 tags, got {n}")
        self.transitions = nn.Parameter(torch.zeros(n, n))
        self.start, self.end = nn.Parameter(torch.zeros(n)), nn.Parameter(torch.zeros(n))
        barred = torch.zeros(n + 2, n)
        if not isinstance(tags, int):
            start, step, end = rules(tags)
            barred.masked_fill_(~torch.cat([step, start[None], end[None]]), -math.inf)
        self.register_buffer("barred", barred, persistent=False)

    def scores(self, obey: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Transitions, start and end; where `obey` is True, minus infinity for what the scheme forbids."""
        if not obey:
            return self.transitions, self.start, self.end
        return self.transitions + self.barred[:-2], self.start + self.barred[-2], self.end + self.barred[-1]

    def loss(self, emissions: _Emissions, tags: _Tags, mask: _Mask) -> Float[Tensor, " batch"]:
        r"""$-\log P(y \mid x) = \log Z - s(y)$ of each row; Z sums over forbidden rows too, which it unlearns."""
        return log_partition(emissions, mask, *self.scores()) - chain_score(emissions, tags, mask, *self.scores())

    @torch.no_grad()
    def decode(self, emissions: _Emissions, mask: _Mask, obey: bool = True) -> _Tags:
        """The most probable row of tags, among the allowed ones unless `obey` is False; 0 at padding."""
        return viterbi(emissions, mask, *self.scores(obey))[0]

    def marginals(self, emissions: _Emissions, mask: _Mask) -> _Emissions:
        r"""$P(y_t = k \mid x)$ for every word and tag: the gradient of $\log Z$; zeros at padding."""
        with torch.enable_grad():
            wanted = emissions.detach().requires_grad_()
            return torch.autograd.grad(log_partition(wanted, mask, *self.scores()).sum(), wanted)[0]


def _by_length(lengths: Sequence[int], batch: int) -> Iterator[list[int]]:
    """Numbers of rows of like length, a batch at a time; empty rows are left out."""
    order = sorted((k for k, n in enumerate(lengths) if n), key=lambda k: lengths[k])
    return (order[at : at + batch] for at in range(0, len(order), batch))


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows as one tensor, and the mask of what is real."""
    lengths = torch.tensor([len(row) for row in rows])
    joined = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    return joined, torch.arange(joined.shape[1]) < lengths[:, None]


class _SentenceTagger:
    """What the taggers of this chapter share: from scores of words to tags, and to entities of running text."""

    tags: tuple[str, ...]
    crf: CRF

    def emissions(self, sentences: _Rows, batch: int = 64) -> list[Float[Tensor, "words tags"]]:
        raise NotImplementedError

    def predict(self, sentences: _Rows, batch: int = 64, obey: bool = True) -> list[list[str]]:
        """A tag for every word of every sentence; an empty one has none.

        Args:
            sentences: lists of words; a string instead is a TypeError.
            batch: sentences at a time.
            obey: give only rows of tags that the scheme allows.
        """
        scores = self.emissions(sentences, batch)
        found: list[list[str]] = [[] for _ in scores]
        for part in _by_length([len(row) for row in scores], batch):
            rows, mask = (t.to(self.crf.transitions.device) for t in _padded([scores[k] for k in part]))
            for k, numbers in zip(part, self.crf.decode(rows, mask, obey).tolist(), strict=True):
                found[k] = [self.tags[n] for n in numbers[: len(scores[k])]]
        return found

    def marks(self, texts: Sequence[str], batch: int = 64) -> list[list[Mark]]:
        """Entities of running texts by their characters: `text[mark.start:mark.end]` is one.

        Args:
            texts: strings; they are cut into words by `token_spans`.
            batch: as in `predict`.

        Raises:
            TypeError: one string instead of a list of them.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts={texts[:40]!r} is one string; give a list of texts")
        spans = [token_spans(text) for text in texts]
        words = [[text[start:end] for start, end in row] for text, row in zip(texts, spans, strict=True)]
        found = [entity_tags(len(row), entities(row)) for row in self.predict(words, batch)]  # as BIO
        return [from_bio(row, tags) for row, tags in zip(spans, found, strict=True)]


# --------------------------------------------------------------------------------------------------- words and subwords


class Window(NamedTuple):
    """A stretch of a sentence as a base reads it, and the words whose tags are decided in it.

    `ids` and `type_ids` are the base's tokens, special ones included; word number `words[i]` of the sentence stands at
    token `places[i]`.
    """

    ids: list[int]
    type_ids: list[int]
    words: list[int]
    places: list[int]


def align(base: Base, sentences: _Rows, length: int | None = None, capitals: bool = False) -> list[list[Window]]:
    """Cut sentences of words into tokens, and keep track of which token speaks for which word.

    The words are joined with spaces and given to the tokenizer as the running text that it was made for; a token
    belongs to the word in which it ends. In an encoder a word's first token speaks for it, in a decoder its last, the
    only one that has seen the whole word. A sentence of more tokens than the base can read is read in windows that
    overlap by half, and a word is decided in the window where it stands furthest from a cut. A word without any token
    (a lone variation selector, an empty string) is in no window.

    Args:
        base: see `Base`.
        sentences: lists of words.
        length: tokens in a window at most, special ones included; None means as many as the base can read.
        capitals: set a token's type to 1 where its letters were written with a capital, for bases that read only small
            letters and have types to spare. They then learn while fine-tuning what it means.

    Raises:
        TypeError: a sentence is a string or holds something else than words.
        ValueError: the length leaves no room, or is more than the base can read.

    >>> from lmtl_course.pretraining import load_base
    >>> (window,) = align(load_base("bert-mini"), [["Unbelievable", "day"]])[0]
    >>> len(window.ids) > 4, window.words, window.places[0]
    (True, [0, 1], 1)
    """
    lists = [_words(words) for words in sentences]
    special, most = base.tokenizer.num_special_tokens_to_add(False), base.config.context
    length = most if length is None else length
    if not special < length <= most:
        raise ValueError(f"length={length} must be above {special} and at most the base's context={most}")
    base.tokenizer.no_truncation()
    encodings = base.tokenizer.encode_batch([" ".join(words) for words in lists]) if lists else []
    last = base.kind == "decoder"
    return [_windows(e, words, length, last, capitals) for e, words in zip(encodings, lists, strict=True)]


def _windows(encoding: Any, words: list[str], length: int, last: bool, capitals: bool) -> list[Window]:
    real = [k for k, special in enumerate(encoding.special_tokens_mask) if not special]
    if not real:
        return []
    head, tail = encoding.ids[: real[0]], encoding.ids[real[-1] + 1 :]
    text, starts = " ".join(words), [0]  # of each word in the text
    for word in words[:-1]:
        starts.append(starts[-1] + len(word) + 1)
    place: dict[int, int] = {}  # of each word among the real tokens
    types = []
    for n, k in enumerate(real):
        begin, end = encoding.offsets[k]
        types.append(int(capitals and any(letter.isupper() for letter in text[begin:end])))
        owner = bisect_right(starts, end - 1) - 1
        if begin < end <= starts[owner] + len(words[owner]) and (last or owner not in place):
            place[owner] = n
    room, final = length - len(head) - len(tail), max(len(real) - length + len(head) + len(tail), 0)
    begins = [*range(0, final, max(room // 2, 1)), final]
    found = []
    for begin in begins:
        inner = slice(real[begin], real[min(begin + room, len(real)) - 1] + 1)
        types_ = [0] * len(head) + types[begin : begin + room] + [0] * len(tail)
        found.append(Window([*head, *encoding.ids[inner], *tail], types_, [], []))
    for owner, n in sorted(place.items()):  # furthest from a cut is nearest to the middle
        best = min(range(len(begins)), key=lambda k: abs(2 * (n - begins[k]) - room + 1))
        found[best].words.append(owner)
        found[best].places.append(len(head) + n - begins[best])
    return [window for window in found if window.words]


# ------------------------------------------------------------------------------------------------------------ on a base


class TaggingHead(Head):
    r"""A tag per word: scores $E_t = W h_t + c$ of the vector at the word's token, and a `CRF` over them.

    Args:
        d_model: width of the base.
        tags: all of them, as from `tag_names`.
        crf: learn how tags follow each other; False takes the loss of each word alone. Either way an answer obeys the
            scheme.
        capitals: as in `align`, where the base has types to spare.

    Source: Devlin et al. 2019, arXiv:1810.04805, section 5.3 (the first subword speaks for the word).

    >>> from lmtl_course.transfer import FineTuneConfig, finetune
    >>> rows = [(["Ada", "sleeps"], ["B-PER", "O"]), (["we", "sleep"], ["O", "O"])] * 8
    >>> head = TaggingHead(192, tag_names(["PER"]))
    >>> tagger = Tagger(finetune("bert-mini", rows, head=head, config=FineTuneConfig(min_steps=30, head_lr=1e-2)))
    >>> tagger.predict([["Ada", "sleeps"], ["we", "sleep"], []])
    [['B-PER', 'O'], ['O', 'O'], []]
    """

    def __init__(self, d_model: int, tags: Sequence[str], crf: bool = True, capitals: bool = True):
        super().__init__()
        if OUTSIDE not in tags or len(set(tags)) != len(tags):
            raise ValueError(f"tags must hold {OUTSIDE!r}, and each one once, got {list(tags)}; tag_names makes them")
        self.tags, self.capitals, self.learns_steps = tuple(tags), capitals, crf
        self.dropout = nn.Dropout(0.0)
        self.head = nn.Linear(d_model, len(tags))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.crf = CRF(tags).requires_grad_(crf)

    def align(self, base: Base, sentences: _Rows, length: int | None) -> list[list[Window]]:
        """Sentences as this head wants them, see `align`."""
        return align(base, sentences, length, self.capitals and base.kind == "encoder" and base.config.segments > 1)

    def examples(self, base: Base, rows: Sequence[Any], length: int | None) -> list[Example]:
        """Rows of (words, tags), windows of long ones apart; a sentence without words has nothing to learn from."""
        made, pairs = [], _numbered(rows, self.tags)
        cut = self.align(base, [words for words, _ in pairs], length)
        for (_, tags), windows in zip(pairs, cut, strict=True):
            for window in windows:
                target = torch.full((len(window.ids),), IGNORED)
                target[window.places] = torch.tensor([tags[word] for word in window.words])
                made.append(Example(cast(Any, window), target))
        return made

    def forward(self, hidden: Float[Tensor, "batch seq d_model"]) -> _Emissions:
        """Scores of each tag at every token; only those at `Window.places` mean anything."""
        return self.head(self.dropout(hidden))

    def loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        r"""$-\sum \log P(y \mid x)$ over sentences, and the number of words. The chain runs over words, not tokens."""
        with torch.autocast(logits.device.type, enabled=False):
            logits, count = logits.float(), int((targets != IGNORED).sum())
            if not self.learns_steps:
                return cross_entropy(logits, targets, reduction="sum"), count
            emissions, tags, mask = _at_words(logits, targets)
            return self.crf.loss(emissions, tags, mask).sum(), count


def _at_words(logits: _Emissions, targets: _Tags) -> tuple[Tensor, Tensor, Tensor]:
    """Move the tokens that speak for words, those with a target, to the left in their order, and drop the others.

    Returns scores, tags (0 at padding) and the mask of words.
    """
    spoken = targets != IGNORED
    most = max(int(spoken.sum(1).max()), 1)
    order = (~spoken).int().argsort(dim=1, stable=True)[:, :most]  # words first
    mask = spoken.gather(1, order)
    emissions = logits.gather(1, order[..., None].expand(-1, -1, logits.shape[2]))
    return emissions, targets.gather(1, order).masked_fill(~mask, 0), mask


class Tagger(_SentenceTagger):
    """A fine-tuned model that gives every word of a sentence a tag.

    Args:
        model: from `finetune` with a `TaggingHead`; another head is a TypeError.

    >>> from lmtl_course.pretraining import load_base
    >>> tagger = Tagger(FineTuned(load_base("bert-mini"), TaggingHead(192, tag_names(["PER"]))))
    >>> tagger.predict([["Ada", "😂", ""], []])  # untrained: nothing is an entity yet
    [['O', 'O', 'O'], []]
    """

    def __init__(self, model: FineTuned):
        if not isinstance(model.head, TaggingHead):
            raise TypeError(f"a Tagger needs a model with a TaggingHead, this one has a {type(model.head).__name__}")
        self.model, self.head, self.tags, self.crf = model, model.head, model.head.tags, model.head.crf

    @torch.no_grad()
    def emissions(self, sentences: _Rows, batch: int = 64) -> list[Float[Tensor, "words tags"]]:
        """Scores of each tag for each word, on the CPU. A word without a token can only be `O`.

        Args:
            sentences: lists of words, of any length; longer ones than the base can read are read in windows.
            batch: windows at a time.
        """
        cut = self.head.align(self.model.base, sentences, self.model.length)
        scores = [torch.full((len(words), len(self.tags)), -math.inf) for words in sentences]
        for row in scores:
            row[:, self.tags.index(OUTSIDE)] = 0.0
        jobs = [(k, window) for k, windows in enumerate(cut) for window in windows]
        with _mode(self.model, training=False), _autocast(self.model.device, self.model.autocast):
            for part in _by_length([len(window.ids) for _, window in jobs], batch):
                packed = self.model.base.pack([jobs[n][1] for n in part]).to(self.model.device)
                for n, row in zip(part, self.model(*packed).float().cpu(), strict=True):
                    k, window = jobs[n]
                    scores[k][window.words] = row[window.places]
        return scores

    def save(self, folder: str | Path) -> Path:
        """Write base, head and tags into a folder that `load_tagger` reads: safetensors and JSON, no pickle.

        Args:
            folder: is made where missing.

        Raises:
            TypeError: the head is of a subclass, whose own ways a folder cannot keep.
            OSError: the disk is full or may not be written to; no half-written file stays.
        """
        if type(self.head) is not TaggingHead:
            raise TypeError(f"a {type(self.head).__name__} is not kept by a folder, only a TaggingHead itself is")
        head, length = self.head, self.model.length
        about = {"tags": head.tags, "crf": head.learns_steps, "capitals": head.capitals, "length": length}
        return save_parts(self.model, folder, "tagger", about)


def load_tagger(folder: str | Path) -> Tagger:
    """Open what `Tagger.save` wrote.

    Raises:
        OSError, ValueError: see `opened` of chapter 11.

    >>> from lmtl_course.pretraining import load_base
    >>> import tempfile
    >>> tagger = Tagger(FineTuned(load_base("bert-mini"), TaggingHead(192, tag_names(["PER"]))))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_tagger(tagger.save(folder)).tags
    ('O', 'B-PER', 'I-PER')
    """
    with opened(folder, "tagger") as (base, about, state):
        head = TaggingHead(base.config.d_model, about["tags"], about["crf"], about["capitals"])
        head.load_state_dict(state)
        return Tagger(FineTuned(base, head, about["length"]).eval())


# --------------------------------------------------------------------------------------------------------- from scratch

SHAPES = ("@name", "#tag", "link", "digits", "number", "sign", "small", "Capital", "CAPITALS", "miXed")
"""What `shape` tells apart."""


def shape(word: str) -> int:
    """How a word is written, as a number into `SHAPES`: what is left of a word that no training row had.

    >>> [SHAPES[shape(word)] for word in ("day", "Ada", "NYC", "iPad", "2017", "4th", "@ada", "#nlp", "http://x", "…")]
    ['small', 'Capital', 'CAPITALS', 'miXed', 'number', 'digits', '@name', '#tag', 'link', 'sign']
    """
    capitals = [letter.isupper() for letter in word if letter.isalpha()]
    digits = any(letter.isdigit() for letter in word)
    known = (
        *(re.match(pattern, word) for pattern in ("@.", "#.", r"https?:|www\.")),
        *(digits and capitals, digits, not capitals),
        *(not any(capitals), capitals[:1] == [True] and not any(capitals[1:]), all(capitals), True),
    )
    return next(k for k, fits in enumerate(known) if fits)


class LSTMTagger(_SentenceTagger, nn.Module):
    r"""The LSTM-CRF: word and shape vectors, an LSTM in both directions, scores of tags, and a `CRF` over them.

    Args:
        vocabulary: of words in small letters.
        tags: all of them, as from `tag_names`.
        d_model: width of a word's vector; its shape gets a quarter more.
        d_hidden: width of each direction's state.
        dropout: share of the vectors, and of the states, set to zero while training.

    Source: Huang, Xu and Yu 2015, arXiv:1508.01991; Lample et al. 2016, arXiv:1603.01360, here without their vectors
    from other texts and with shapes for their characters.

    >>> tagger = LSTMTagger(Vocabulary.build(["ada", "sleeps"]), tag_names(["PER"]))
    >>> [len(tags) for tags in tagger.predict([["Ada", "sleeps"], []])]
    [2, 0]
    """

    history: History | None = None

    def __init__(
        self, vocabulary: Vocabulary, tags: Sequence[str], d_model: int = 64, d_hidden: int = 64, dropout: float = 0.3
    ):
        super().__init__()
        self.vocabulary, self.tags, self.crf = vocabulary, tuple(tags), CRF(tags)
        self.words = nn.Embedding(len(vocabulary), d_model)
        self.shapes = nn.Embedding(len(SHAPES), d_model // 4)
        self.lstm = LSTM(d_model + d_model // 4, d_hidden, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * d_hidden, len(tags))
        nn.init.normal_(self.words.weight, std=0.1)
        nn.init.normal_(self.shapes.weight, std=0.1)
        nn.init.zeros_(self.head.bias)

    def numbers(self, words: Sequence[str]) -> Int[Tensor, "words 2"]:
        """The number and the shape of each word."""
        ids = self.vocabulary.encode([word.lower() for word in _words(words)])
        pairs = [[k, shape(word)] for k, word in zip(ids, words, strict=True)]
        return torch.tensor(pairs, dtype=torch.long).view(-1, 2)

    def forward(self, idx: Int[Tensor, "batch seq 2"], mask: _Mask) -> _Emissions:
        """Scores of each tag for each word; `idx` as from `numbers`."""
        vectors = torch.cat([self.words(idx[..., 0]), self.shapes(idx[..., 1])], -1)
        states, _ = self.lstm(self.dropout(vectors), lengths=mask.sum(1))
        return self.head(self.dropout(states.to(self.head.weight.dtype)))

    @torch.no_grad()
    def emissions(self, sentences: _Rows, batch: int = 64) -> list[Float[Tensor, "words tags"]]:
        """Scores of each tag for each word, on the CPU; arguments as in `predict`."""
        ids = [self.numbers(words) for words in sentences]
        scores = [torch.zeros(0, len(self.tags))] * len(ids)
        with _mode(self, training=False):
            for part in _by_length([len(row) for row in ids], batch):
                idx, mask = (t.to(self.head.weight.device) for t in _padded([ids[k] for k in part]))
                for k, row in zip(part, self(idx, mask).float().cpu(), strict=True):
                    scores[k] = row[: len(ids[k])]
        return scores


class _TagRows(Buckets):
    """Batches of sentences as numbers, with mask and tags, padded to the longest; in the order of `Buckets`."""

    def __init__(self, ids: Sequence[Tensor], tags: Sequence[Sequence[int]], batch: int, seed: int = 0):
        self.ids, self.tags = list(ids), [torch.tensor(list(row)) for row in tags]
        self.examples, self.batch, self.seed = self.ids, batch, seed  # type: ignore[assignment]
        self.lengths = torch.tensor([len(row) for row in self.ids])
        self._last = (-1, [])

    def collate(self, numbers: Sequence[int]) -> Batch:
        return *_padded([self.ids[k] for k in numbers]), _padded([self.tags[k] for k in numbers])[0]


def _tag_loss(model: nn.Module, batch: Batch, state: State) -> tuple[Tensor, int, State]:
    r"""$-\sum \log P(y \mid x)$ of a batch of `_TagRows`, and the number of words."""
    idx, mask, tags = batch
    return cast(LSTMTagger, model).crf.loss(model(idx, mask).float(), tags, mask).sum(), int(mask.sum()), None


def train_tagger(
    rows: Sequence[Any],
    tags: Sequence[str] | None = None,
    epochs: int = 8,
    batch: int = 32,
    lr: float = 5e-3,
    min_count: int = 2,
    seed: int = 0,
    device: torch.device | str | None = None,
    **sizes: Any,
) -> LSTMTagger:
    """Fit an LSTM-CRF to tagged rows and to nothing else; its vocabulary is that of these rows.

    Args:
        rows: of (words, tags).
        tags: all of them; None takes those of the labels that occur.
        epochs: passes over the rows.
        batch: rows per update.
        lr: peak learning rate.
        min_count: rarer words become unknown.
        seed: of weights, order and dropout.
        device: None means a GPU where there is one.
        sizes: passed on to the model: `d_model`, `d_hidden`, `dropout`.

    Raises:
        ValueError: there are no rows with words, a row has not one tag per word, or a tag is unknown.

    >>> rows = [(["Ada", "sleeps"], ["B-PER", "O"]), (["we", "sleep"], ["O", "O"])] * 8
    >>> train_tagger(rows, epochs=20, lr=0.02).predict([["Ada", "sleeps"], ["we"]])
    [['B-PER', 'O'], ['O']]
    """
    tags = tags or tag_names(sorted({e.label for row in rows for e in entities(_checked(row)[1])}) or ["none"])
    pairs = [pair for pair in _numbered(rows, tags) if pair[0]]
    if not pairs:
        raise ValueError(f"there are 0 sentences with words among {len(rows)} rows; give at least one")
    vocabulary = Vocabulary.build((word.lower() for words, _ in pairs for word in words), min_count)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LSTMTagger(vocabulary, tags, **sizes).to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    batches = _TagRows([model.numbers(words) for words, _ in pairs], [row for _, row in pairs], batch, seed)
    steps, warmup = epochs * len(batches), len(batches) // 2
    config = TrainConfig(steps, lr, weight_decay=0.01, betas=(0.9, 0.98), warmup=warmup, autocast=False, seed=seed)
    model.history = train(model, batches, _tag_loss, config)
    return model.eval()


# ------------------------------------------------------------------------------------------------------------ on a page

_TINTS = ("31,111,180", "209,73,91", "46,139,87", "143,91,176", "183,121,31", "82,96,109")


def highlight(words: Sequence[str], tags: Sequence[str], labels: Sequence[str] = ()) -> str:
    """A sentence as HTML, entities marked by colour and named in words, for `IPython.display.HTML`.

    The colours are translucent and the letters keep the page's colour, so that it reads in light and in dark; the name
    of the label stands beside the entity for those who see no colours.

    Args:
        words: of the sentence.
        tags: one per word; another number, or a tag that is none, is a ValueError.
        labels: in the order of the colours; none given takes the order of the alphabet.

    >>> highlight(["Ada", "<3"], ["B-PER", "O"]).split("color:inherit")[1]
    ';padding:0 .2em">Ada <small>[PER]</small></mark> &lt;3</p>'
    """
    words, tags = _checked((words, tags))
    found = entities(tags)
    names = list(labels) or sorted({entity.label for entity in found})
    pieces, at = [], 0
    for entity in found:
        pieces += [html.escape(word) for word in words[at : entity.start]]
        tint = _TINTS[names.index(entity.label) % len(_TINTS) if entity.label in names else -1]
        style = f"background:rgba({tint},.22);border-bottom:2px solid rgb({tint});color:inherit;padding:0 .2em"
        inside = html.escape(" ".join(words[entity.start : entity.end]))
        pieces.append(f'<mark style="{style}">{inside} <small>[{html.escape(entity.label)}]</small></mark>')
        at = entity.end
    return f'<p style="overflow-wrap:anywhere">{" ".join([*pieces, *map(html.escape, words[at:])])}</p>'
