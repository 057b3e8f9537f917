"""Checkpoint files that are whole or not there: named tensors and a JSON record, never a pickle.

A checkpoint is written under another name, flushed and renamed; it carries a checksum of its every byte; a file that
is half-written, damaged, foreign or a pickle is refused by name while the one before it is used. What goes into a
checkpoint is the business of `training`.
"""

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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
    partial = folder / f".{path.name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        if os.name == "posix":  # the new name is on the disk only when the folder is
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise OSError(
            error.errno,
            f"{path.name} ({len(body):,} bytes) could not be written: {error.strerror}; "
            "earlier checkpoints are untouched, free some space or choose another folder",
        ) from error
    for old in [p for p in _files(folder) if p.name <= path.name][:-keep]:
        old.unlink()
    return path


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
