"""Checkpoint files that are whole or not there: named tensors and a JSON record, never a pickle.

A checkpoint is written under another name, flushed and renamed; it carries a checksum of its every byte; a file that
is half-written, damaged, foreign or a pickle is refused by name while the one before it is used. What goes into a
checkpoint is the business of `training`. The second half translates between the names that this package and Hugging
Face give to the same weights, in both directions.
"""

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor


class CheckpointError(ValueError):
    """A file that is no checkpoint of this run: half-written, damaged, foreign or a pickle. The message names it."""


class Checkpoint(NamedTuple):
    """What a checkpoint file holds: named tensors, and everything else as JSON values."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]
    path: Path


_UNSIGNED = b'"sha256":"' + b"0" * 64 + b'"'  # a quote inside the record is written \", so this stands there once


def save_checkpoint(
    folder: str | Path, step: int, tensors: dict[str, Tensor], record: dict[str, Any], keep: int = 2
) -> Path:
    """Write `checkpoint-<step>.safetensors` whole or not at all, and delete all but the newest `keep` of this run.

    The file is written under another name, flushed to the disk and then renamed: a reader, or a power cut, finds the
    old file or the new one and never half of one. It carries a checksum of its every byte.

    Args:
        folder: is made where missing.
        step: updates done; numbers the file.
        tensors: by name; they may share memory.
        record: anything JSON can say.
        keep: files to keep, this one included.

    Returns:
        The file's path.

    Raises:
        OSError: the disk is full or may not be written to; older checkpoints are as they were.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_checkpoint(folder, 40, {"w": torch.ones(3)}, {"lr": 0.5})
    ...     print(path.name, read_checkpoint(path).record)
    checkpoint-00000040.safetensors {'lr': 0.5}
    """
    folder = Path(folder)
    path = folder / f"checkpoint-{step:08d}.safetensors"
    copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    body = save(copies, metadata={"lmtl_course": json.dumps(record), "sha256": "0" * 64})
    body = body.replace(_UNSIGNED, b'"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"', 1)
    write_whole(path, body, "earlier checkpoints are untouched, free some space or choose another folder")
    for old in [p for p in _files(folder) if p.name <= path.name][:-keep]:
        old.unlink()
    return path


def write_whole(path: str | Path, body: bytes, remedy: str = "free some space or choose another folder") -> None:
    """Write a file whole or not at all, whatever stands there now: under another name, flushed, then renamed.

    Args:
        path: the file; its folder is made where missing.
        body: what to write.
        remedy: ends the message where the file cannot be written.

    Raises:
        OSError: the disk is full or may not be written to; a file that was there before is as it was.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole(pathlib.Path(folder) / "note.txt", b"whole")
    ...     [p.name for p in pathlib.Path(folder).iterdir()]
    ['note.txt']
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        if os.name == "posix":  # the new name is on the disk only when the folder is
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        what = f"{path.name} ({len(body):,} bytes) could not be written: {error.strerror}; {remedy}"
        raise OSError(error.errno, what) from error


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read one file that `save_checkpoint` wrote, or say why it cannot be one. Nothing in it is ever executed.

    Args:
        path: the file.

    Returns:
        Its tensors (on the CPU) and its record.

    Raises:
        CheckpointError: the file is empty, a pickle, cut short, damaged, or was written by something else.

    >>> import pathlib, tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "model.pt"
    ...     torch.save({"w": torch.ones(3)}, path)
    ...     read_checkpoint(path)
    Traceback (most recent call last):
    ...
    lmtl_course.checkpoint.CheckpointError: model.pt is a pickle, which can run any code when it is opened; ...
    """
    path = Path(path)
    body = path.read_bytes()
    if body[:2] == b"PK" or (body[:1] == b"\x80" and body[8:9] != b"{"):
        raise CheckpointError(
            f"{path.name} is a pickle, which can run any code when it is opened; save tensors with save_checkpoint"
        )
    start = 8 + int.from_bytes(body[:8], "little")
    try:
        header: Any = json.loads(body[8:start]) if len(body) >= start > 8 else None
        metadata = header.pop("__metadata__", {})
        size = start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, AttributeError, TypeError, KeyError):
        if body[8:9] == b"{" or len(body) < 9:
            raise CheckpointError(f"{path.name} ends inside its header, after {len(body):,} bytes") from None
        raise CheckpointError(f"{path.name} is not a safetensors file") from None
    if len(body) < size:
        raise CheckpointError(f"{path.name} holds {len(body):,} of {size:,} bytes: it was cut short")
    if "lmtl_course" not in metadata or "sha256" not in metadata:
        raise CheckpointError(f"{path.name} is a safetensors file, but not a checkpoint of this course")
    unsigned = body.replace(b'"sha256":"' + metadata["sha256"].encode() + b'"', _UNSIGNED, 1)
    if hashlib.sha256(unsigned).hexdigest() != metadata["sha256"]:
        raise CheckpointError(f"{path.name} does not match its checksum: it was damaged or changed")
    return Checkpoint(load(body), json.loads(metadata["lmtl_course"]), path)


def load_checkpoint(folder: str | Path, check: Callable[[Checkpoint], None] | None = None) -> Checkpoint | None:
    """The newest good checkpoint in a folder. Files that are refused on the way are named in a warning.

    Args:
        folder: need not exist.
        check: raises `CheckpointError` for a checkpoint that is sound, but not what is wanted.

    Returns:
        The checkpoint, or None where there is no file to try.

    Raises:
        CheckpointError: there are files, and every one was refused: starting over silently would waste what they hold.

    >>> load_checkpoint("a folder that does not exist") is None
    True
    """
    refused = []
    for path in reversed(_files(Path(folder))):
        try:
            found = read_checkpoint(path)
            if check is not None:
                check(found)
        except (CheckpointError, OSError) as error:
            refused.append(str(error))
            continue
        if refused:
            warnings.warn(f"{'; '.join(refused)}. Going on from {path.name}", stacklevel=2)
        return found
    if refused:
        raise CheckpointError(f"{'; '.join(refused)}. No checkpoint is left: choose another folder or empty this one")
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.safetensors"))


# ------------------------------------------------------------------------------------------- names used elsewhere

_GPT2 = {  # theirs: ours; {k} counts the blocks
    "wte": "embedding",
    "wpe": "position",
    "ln_f": "norm",
    "lm_head": "head",
    "h.{k}.ln_1": "blocks.{k}.norm_attention",
    "h.{k}.attn.c_proj": "blocks.{k}.attention.output",
    "h.{k}.ln_2": "blocks.{k}.norm_mlp",
    "h.{k}.mlp.c_fc": "blocks.{k}.mlp.up",
    "h.{k}.mlp.c_proj": "blocks.{k}.mlp.down",
}
_BERT = {
    "embeddings.word_embeddings": "embedding",
    "embeddings.position_embeddings": "position",
    "embeddings.token_type_embeddings": "segment",
    "embeddings.LayerNorm": "embed_norm",
    "encoder.layer.{k}.attention.self.query": "blocks.{k}.attention.query",
    "encoder.layer.{k}.attention.self.key": "blocks.{k}.attention.key",
    "encoder.layer.{k}.attention.self.value": "blocks.{k}.attention.value",
    "encoder.layer.{k}.attention.output.dense": "blocks.{k}.attention.output",
    "encoder.layer.{k}.attention.output.LayerNorm": "blocks.{k}.norm_attention",
    "encoder.layer.{k}.intermediate.dense": "blocks.{k}.mlp.up",
    "encoder.layer.{k}.output.dense": "blocks.{k}.mlp.down",
    "encoder.layer.{k}.output.LayerNorm": "blocks.{k}.norm_mlp",
    "cls.predictions": "head",  # the head of masked language models
    "cls.predictions.transform.dense": "head.dense",
    "cls.predictions.transform.LayerNorm": "head.norm",
}
_NAMES = {"gpt2": _GPT2, "bert": _BERT}
_INSIDE = {"gpt2": "transformer.", "bert": "bert."}
"""What stands before the names of the body where a model has a head."""
_TURNED = re.compile(r"(attention\.output|mlp\.up|mlp\.down)\.weight$")
"""GPT-2's matrices stand the other way round: (d_in, d_out)."""


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors that have a name on the other side, under that name."""
    found = {}
    for name, tensor in state.items():
        stem, _, end = name.rpartition(".")
        number = re.search(r"\d+", stem)
        k = number[0] if number else ""
        other = names.get(stem.replace(f".{k}.", ".{k}.") if k else stem)
        if other is not None:
            found[f"{other.replace('{k}', k)}.{end}"] = tensor
    return found


def _check_kind(kind: str) -> None:
    if kind not in _NAMES:
        raise ValueError(f"weights of kind {kind!r} have no counterpart here; it must be one of {', '.join(_NAMES)}")


def from_huggingface(state: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Weights of a Hugging Face model under the names that `GPT` and `Encoder` have; whatever else it holds is left.

    Args:
        state: their tensors by name, with or without the body's prefix (`bert.`, `transformer.`).
        kind: "gpt2" or "bert".

    Returns:
        Views of their tensors where the layout allows it. Poolers and task heads are left behind; the head of a masked
        language model comes along as `head.…`.

    Raises:
        ValueError: another kind.

    >>> import torch
    >>> theirs = {"transformer.h.0.attn.c_attn.weight": torch.zeros(2, 6), "transformer.wte.weight": torch.zeros(5, 2)}
    >>> {name: tuple(t.shape) for name, t in from_huggingface(theirs, "gpt2").items()}  # doctest: +NORMALIZE_WHITESPACE
    {'embedding.weight': (5, 2), 'blocks.0.attention.query.weight': (2, 2),
     'blocks.0.attention.key.weight': (2, 2), 'blocks.0.attention.value.weight': (2, 2)}
    """
    _check_kind(kind)
    bare = {name.removeprefix(_INSIDE[kind]): tensor for name, tensor in state.items()}
    ours = _renamed(bare, _NAMES[kind])
    if kind == "gpt2":
        for name, tensor in bare.items():
            packed = re.fullmatch(r"h\.(\d+)\.attn\.c_attn\.(weight|bias)", name)
            if packed:  # queries, keys and values in one matrix
                for part, which in zip(tensor.chunk(3, -1), ("query", "key", "value"), strict=True):
                    ours[f"blocks.{packed[1]}.attention.{which}.{packed[2]}"] = part
        ours = {
            name: t.T if _TURNED.search(name) or (t.ndim == 2 and re.search(r"(query|key|value)\.weight$", name)) else t
            for name, t in ours.items()
        }
    return ours


def to_huggingface(state: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The way back: tensors of a `GPT` or an `Encoder` under the names of `GPT2LMHeadModel` or a BERT with a head.

    Args:
        state: `model.state_dict()`.
        kind: "gpt2" or "bert".

    Returns:
        Tensors that `load_state_dict` or `from_pretrained` on their side reads. An output layer that is the embedding
        table used a second time is left out, as they do.

    Raises:
        ValueError: another kind.

    >>> import torch
    >>> list(to_huggingface({"blocks.3.mlp.up.bias": torch.zeros(4)}, "bert"))
    ['bert.encoder.layer.3.intermediate.dense.bias']
    """
    _check_kind(kind)
    theirs = _renamed(state, {ours: name for name, ours in _NAMES[kind].items()})
    if kind == "gpt2":
        theirs = {name: t.T if re.search(r"(c_proj|c_fc)\.weight$", name) else t for name, t in theirs.items()}
        for name in state:
            first = re.fullmatch(r"blocks\.(\d+)\.attention\.query\.(weight|bias)", name)
            if first:
                parts = [state[name.replace("query", which)] for which in ("query", "key", "value")]
                packed = torch.cat(parts, 0)
                theirs[f"h.{first[1]}.attn.c_attn.{first[2]}"] = packed.T if packed.ndim == 2 else packed
        if "lm_head.weight" in theirs and torch.equal(theirs["lm_head.weight"], theirs["wte.weight"]):
            del theirs["lm_head.weight"]
    heads = ("lm_head.", "cls.")
    return {name if name.startswith(heads) else _INSIDE[kind] + name: t.contiguous() for name, t in theirs.items()}
