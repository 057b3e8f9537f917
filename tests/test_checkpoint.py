"""A checkpoint comes back with every bit, and what is no checkpoint is refused by name while the one before is used."""

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lmtl_course.checkpoint import CheckpointError, load_checkpoint, read_checkpoint, save_checkpoint

TENSORS = {
    "matrix": torch.arange(6.0).view(2, 3).T,  # not contiguous
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "bytes": torch.arange(256, dtype=torch.uint8),
    "scalar": torch.tensor(7),
    "empty": torch.zeros(0, 3),
}


def test_a_checkpoint_comes_back_with_every_bit(tmp_path):
    shared = {**TENSORS, "same": TENSORS["matrix"]}
    path = save_checkpoint(tmp_path / "new" / "folder", 7, shared, {"text": 'a "quoted" Ω', "sha256": "0" * 64})
    found = read_checkpoint(path)
    assert found.record == {"text": 'a "quoted" Ω', "sha256": "0" * 64}
    assert found.tensors.keys() == shared.keys()
    for name, t in shared.items():
        assert torch.equal(found.tensors[name], t)
        assert found.tensors[name].dtype == t.dtype


def test_only_the_newest_two_stay_and_a_foreign_newer_file_pushes_nobody_out(tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "checkpoint-99999999.safetensors")
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, TENSORS, {})
    assert [p.name[11:19] for p in sorted(tmp_path.iterdir())] == ["00000002", "00000003", "99999999"]


def damage(path: Path, how: str) -> None:
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    if how == "empty":
        path.write_bytes(b"")
    elif how == "half-written header":
        path.write_bytes(good[: header // 2])
    elif how == "truncated":
        path.write_bytes(good[:-1])
    elif how == "bit flipped":
        path.write_bytes(good[:-5] + bytes([good[-5] ^ 1]) + good[-4:])
    elif how == "record changed":
        path.write_bytes(good.replace(b"step", b"stop", 1))
    elif how == "torch.save":
        torch.save({"w": torch.ones(3)}, path)
    elif how == "pickle":
        path.write_bytes(pickle.dumps({"w": 1}))
    elif how == "foreign safetensors":
        save_file({"w": torch.ones(3)}, path)
    elif how == "another format":
        path.write_bytes(b"GGUF" + bytes(200))
    else:  # the name exists before the first byte is there
        path.write_bytes(bytes(len(good)))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("empty", "ends inside its header, after 0 bytes"),
        ("half-written header", "ends inside its header"),
        ("truncated", "cut short"),
        ("bit flipped", "does not match its checksum"),
        ("record changed", "does not match its checksum"),
        ("torch.save", "is a pickle, which can run any code"),
        ("pickle", "is a pickle, which can run any code"),
        ("foreign safetensors", "not a checkpoint of this course"),
        ("another format", "is not a safetensors file"),
        ("zeros", "is not a safetensors file"),
    ],
)
def test_a_bad_checkpoint_is_refused_by_name_and_the_good_one_before_is_used(how, reason, tmp_path):
    save_checkpoint(tmp_path, 10, TENSORS, {"step": 10})
    newest = save_checkpoint(tmp_path, 20, TENSORS, {"step": 20})
    damage(newest, how)
    with pytest.raises(CheckpointError, match=f"{newest.name} .*{reason}"):
        read_checkpoint(newest)
    with pytest.warns(UserWarning, match=rf"{newest.name} .*{reason}.*\. Going on from checkpoint-00000010"):
        found = load_checkpoint(tmp_path)
    assert found.record == {"step": 10}
    assert torch.equal(found.tensors["matrix"], TENSORS["matrix"])
    damage(found.path, how)
    with pytest.raises(CheckpointError, match="No checkpoint is left"):
        load_checkpoint(tmp_path)


def test_no_prefix_of_a_checkpoint_is_taken_for_one(tmp_path):
    path = save_checkpoint(tmp_path, 1, {"w": torch.ones(2)}, {"step": 1})
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(CheckpointError, match=path.name):
            read_checkpoint(path)


def test_a_pickle_is_never_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    (tmp_path / "checkpoint-00000001.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="pickle"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_crash_between_writing_and_renaming_leaves_nothing_that_is_mistaken_for_a_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, TENSORS, {"step": 1})

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, 2, TENSORS, {"step": 2})
    assert load_checkpoint(tmp_path).record == {"step": 1}
    save_checkpoint(tmp_path, 2, TENSORS, {"step": 2})
    assert sorted(p.name[11:19] for p in tmp_path.iterdir()) == ["00000001", "00000002"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"could not be written: .*choose another folder") as caught:
        save_checkpoint(tmp_path / "file", 1, TENSORS, {})
    assert caught.value.errno in (errno.EEXIST, errno.ENOTDIR)
