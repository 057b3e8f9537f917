r"""The same weights on both sides: this book's base models as models, tokenizers and data sets of Hugging Face.

Chapter 8 built GPT-2 and BERT, and `checkpoint` translates the names of their weights. Here stands what a reader takes
along into other people's programs: `to_transformers` and `from_transformers` carry a `Base` over and back,
`tokenizer_of` wraps its tokenizer, `to_datasets` makes a table of labelled texts, and `classification_trainer` puts the
pieces of a fine-tuning run with `Trainer` together, all of them named.

The libraries `transformers`, `datasets` and `accelerate` are an extra: `pip install 'lmtl-course[hf]'`.
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer

from lmtl_course.checkpoint import from_huggingface, to_huggingface
from lmtl_course.metrics import accuracy, f1
from lmtl_course.pretraining import Base, MaskedLM
from lmtl_course.transformer import GPT, Encoder, Stack, TransformerConfig

_NEW = re.compile(r"(.*\.)?(pooler|classifier|score)\b.*")
"""Weights of a task, which no base brings along."""
_TIED = re.compile(r"lm_head\.weight|cls\.predictions\.decoder\.(weight|bias)")
"""Second names of weights that are there under a first one."""


def library(name: str) -> Any:
    """A library of the extra `hf`, imported only when it is used.

    Args:
        name: "transformers", "datasets" or "accelerate".

    Raises:
        ImportError: it is not installed; the message says how to install it.

    >>> library("transformers").__name__
    'transformers'
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # something that the library itself lacks
            raise
        raise ImportError(f"this needs the library {name}: pip install 'lmtl-course[hf]'") from error


def to_transformers(base: Base, labels: Sequence[str] | None = None, seed: int = 0) -> Any:
    """The same model as a `PreTrainedModel` of `transformers`, with a copy of the weights.

    Args:
        base: GPT-2's or BERT's architecture.
        labels: names of classes, for a model with a classification head. The head, and BERT's pooler before it, are
            new: their weights are drawn.
        seed: of that draw.

    Returns:
        A `GPT2LMHeadModel`, `BertForMaskedLM` or (where the base has no head) `BertModel`; with labels, a
        `GPT2ForSequenceClassification` or `BertForSequenceClassification`. In evaluation mode.

    Raises:
        ValueError: another architecture, or weights that would be left over or missing.
        ImportError: `transformers` is not installed.

    >>> from lmtl_course.pretraining import load_base
    >>> base = load_base("bert-mini")
    >>> encoded, theirs = base.encode(["A fine film."]), to_transformers(base)
    >>> logits = theirs(encoded.idx, encoded.mask.long(), encoded.segments).logits
    >>> torch.allclose(logits, base.model.head(base.hidden(encoded)), atol=1e-5)
    True
    """
    transformers = library("transformers")
    settings = base.config.to_huggingface()
    kind = settings.pop("model_type")
    settings["pad_token_id"] = base.pad
    if kind == "gpt2":
        end = next((n for t in ("<end>", "<|endoftext|>") if (n := base.tokenizer.token_to_id(t)) is not None), None)
        settings |= {"bos_token_id": end, "eos_token_id": end}
    if labels is not None:
        settings |= {"id2label": dict(enumerate(labels)), "label2id": {name: k for k, name in enumerate(labels)}}
    config = (transformers.GPT2Config if kind == "gpt2" else transformers.BertConfig)(**settings)
    headed = kind == "gpt2" or isinstance(base.model, MaskedLM)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if labels is not None:
            names = {"gpt2": "GPT2ForSequenceClassification", "bert": "BertForSequenceClassification"}
            model = getattr(transformers, names[kind])(config)
        elif headed:
            model = (transformers.GPT2LMHeadModel if kind == "gpt2" else transformers.BertForMaskedLM)(config)
        else:
            model = transformers.BertModel(config, add_pooling_layer=False)
    state = to_huggingface(base.model.state_dict(), kind)
    if labels is not None:  # the head of the pretraining task stays behind
        state = {name: t for name, t in state.items() if not name.startswith(("cls.", "lm_head."))}
    elif not headed:
        state = {name.removeprefix("bert."): t for name, t in state.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not _TIED.fullmatch(name) and not (labels and _NEW.fullmatch(name))]
    if missing or unexpected:  # strict=False alone would leave them at random without a word
        raise ValueError(f"{type(model).__name__} lacks {missing[:3]} and has no place for {list(unexpected)[:3]}")
    return model.eval()


def from_transformers(model: Any, tokenizer: Any, name: str = "") -> Base:
    """The way back: a GPT-2 or a BERT of `transformers` as a `Base`, with a copy of the weights.

    Args:
        model: a `GPT2LMHeadModel`, `GPT2Model`, `BertModel` or a BERT with a head. Only a masked language model's head
            comes along; poolers and classifiers stay behind.
        tokenizer: a fast tokenizer of `transformers`, or a `Tokenizer`.
        name: for messages.

    Raises:
        ValueError: another architecture, a setting without a counterpart, or no fast tokenizer.

    >>> from lmtl_course.pretraining import load_base
    >>> base = load_base("gpt-mini")
    >>> again = from_transformers(to_transformers(base), tokenizer_of(base))
    >>> torch.equal(again.model.head.weight, base.model.head.weight)
    True
    """
    inner = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        raise ValueError(f"{type(tokenizer).__name__} has no backend_tokenizer; give a fast tokenizer")
    state = model.state_dict()
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if kind == "bert" and "cls.predictions.transform.dense.weight" in state:
        made: Stack = MaskedLM(TransformerConfig.from_huggingface(model.config.to_dict(), "bert"))
        ours = from_huggingface(state, "bert")
        made.load_state_dict({name: ours[name] for name in made.state_dict()})
    elif kind in ("gpt2", "bert"):
        made = GPT.from_transformers(model) if kind == "gpt2" else Encoder.from_transformers(model)
    else:
        raise ValueError(f"a {kind} model has no counterpart here; it must be a gpt2 or a bert")
    return Base(made.eval(), Tokenizer.from_str(inner.to_str()), name)


def tokenizer_of(base: Base, special_words: bool = False) -> Any:
    """The base's tokenizer as `transformers` has it: called with texts, it gives ids, mask and segments.

    Args:
        base: whose tokenizer to copy.
        special_words: whether `<mask>` written out in a text becomes the special token, as is usual there. The default
            reads six characters, as this book does: a text is data and no command.

    Returns:
        A `PreTrainedTokenizerFast`. It cuts nothing unless it is called with `truncation=True`.

    Raises:
        ImportError: `transformers` is not installed.

    >>> from lmtl_course.pretraining import load_base
    >>> base = load_base("bert-mini")
    >>> tokenizer_of(base)("a <mask>")["input_ids"] == base.tokens(["a <mask>"])[0].ids
    True
    """
    transformers = library("transformers")
    inner = Tokenizer.from_str(base.tokenizer.to_str())
    inner.no_truncation()
    known = inner.get_vocab()
    roles: dict[str, str] = {}
    for role in ("pad", "cls", "sep", "mask", "unk"):
        found = next((name for name in (f"<{role}>", f"[{role.upper()}]") if name in known), None)
        roles |= {f"{role}_token": found} if found else {}
    end = next((name for name in ("<end>", "<|endoftext|>") if name in known), None)
    if base.kind == "decoder" and end:
        roles |= {"bos_token": end, "eos_token": end, "pad_token": end}
    columns = ["input_ids", *(["token_type_ids"] if base.config.segments else []), "attention_mask"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=base.config.context,
        model_input_names=columns,
        split_special_tokens=not special_words,
        **roles,
    )


def to_datasets(rows: Sequence[Any], labels: Sequence[str] | None = None) -> Any:
    """Rows of (text, label) as a `datasets.Dataset` with the columns `text` and `label`.

    Args:
        rows: labelled texts, for instance a split of `data.load`; a text may be a pair and then fills `text_pair` too.
        labels: names of the classes; None takes those that `rows` has, if any. A label is then an index or a name.

    Raises:
        ValueError: there are no rows, or a label that is not among the names.
        ImportError: `datasets` is not installed.

    >>> table = to_datasets([("fine", "good"), ("dull", "bad")], labels=("bad", "good"))
    >>> table[0], table.features["label"].names
    ({'text': 'fine', 'label': 1}, ['bad', 'good'])
    """
    datasets = library("datasets")
    if not len(rows):
        raise ValueError("there are 0 rows; a table needs at least one")
    labels = list(labels or getattr(rows, "labels", None) or [])
    number = {name: k for k, name in enumerate(labels)}
    numbers = []
    for row in rows:
        label = number.get(row[1]) if isinstance(row[1], str) else row[1]
        if label is None or not 0 <= label < (len(labels) or label + 1):
            raise ValueError(f"label {row[1]!r} is none of {labels} (0 to {len(labels) - 1})")
        numbers.append(label)
    kind = datasets.ClassLabel(names=labels) if labels else datasets.Value("int64")
    columns: dict[str, list[Any]] = {"text": [row[0] for row in rows]}
    features = {"text": datasets.Value("string")}
    if isinstance(rows[0][0], tuple):
        columns = {"text": [row[0][0] for row in rows], "text_pair": [row[0][1] for row in rows]}
        features["text_pair"] = datasets.Value("string")
    return datasets.Dataset.from_dict(columns | {"label": numbers}, datasets.Features(features | {"label": kind}))


def compute_metrics(prediction: Any) -> dict[str, float]:
    """What `Trainer` prints after an evaluation: accuracy and macro F1.

    Args:
        prediction: a pair of logits, of shape (texts, classes), and labels; `Trainer` gives an `EvalPrediction`.

    >>> compute_metrics((np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]]), np.array([0, 1, 1, 1])))
    {'accuracy': 0.75, 'f1': 0.7333...}
    """
    logits, truth = prediction
    logits, truth = np.asarray(logits), np.asarray(truth)
    guess = logits.argmax(-1)
    return {
        "accuracy": float(accuracy(truth, guess)),
        "f1": float(cast(float, f1(truth, guess, "macro", classes=logits.shape[-1]))),
    }


def classification_trainer(
    model: Any,
    tokenizer: Any,
    train: Any,
    valid: Any = None,
    folder: str | Path = "trainer",
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[Any] = (),
) -> Any:
    """A `Trainer` for labelled texts: texts cut into tokens, batches padded to their longest row, accuracy and F1.

    Args:
        model: with a classification head, for instance from `to_transformers(base, labels)`.
        tokenizer: that belongs to it.
        train: a table with `text` (perhaps `text_pair`) and `label`, for instance from `to_datasets`.
        valid: the same to look at, once per epoch unless `settings` say otherwise.
        folder: where checkpoints go, if any are written.
        settings: any `TrainingArguments`. The defaults write no checkpoints, send nothing anywhere and show no bars.
        callbacks: of `transformers`, for instance `EarlyStoppingCallback`.

    Raises:
        ImportError: a library is not installed.
        TypeError: a setting that `TrainingArguments` does not know (many old ones are gone).

    >>> from lmtl_course.pretraining import load_base
    >>> base, rows = load_base("bert-mini"), to_datasets([("fine", "good"), ("dull", "bad")] * 4, ("bad", "good"))
    >>> trainer = classification_trainer(to_transformers(base, ("bad", "good")), tokenizer_of(base), rows)
    >>> sorted(trainer.train_dataset.column_names), trainer.args.learning_rate
    (['attention_mask', 'input_ids', 'label', 'token_type_ids'], 5e-05)
    """
    transformers = library("transformers")
    library("accelerate")  # Trainer cannot start without it, and says so less clearly

    def tokens(batch: Mapping[str, Any]) -> Any:
        return tokenizer(batch["text"], batch.get("text_pair"), truncation=True)

    def cut(table: Any) -> Any:
        texts = [name for name in ("text", "text_pair") if name in table.column_names]
        return table.map(lambda batch: tokens(dict(batch)), batched=True, remove_columns=texts)

    arguments = {
        **{"output_dir": str(folder), "save_strategy": "no", "report_to": "none", "disable_tqdm": True},
        **{"eval_strategy": "no" if valid is None else "epoch", "use_cpu": not torch.cuda.is_available()},
        "dataloader_pin_memory": torch.cuda.is_available(),
        **(settings or {}),
    }
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(**arguments),
        train_dataset=cut(train),
        eval_dataset=None if valid is None else cut(valid),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(transformers.PrinterCallback)  # what it prints stands in trainer.state.log_history
    return trainer
