"""Checkpoints: kept sparingly, read back only if sound and of the same training."""

import errno
import logging

import pytest
import torch

from mdlatent.checkpoint import Checkpoints, key_of


def state(epoch, step=0):
    return {
        "epoch": epoch,
        "step": step,
        "rows": [{"epoch": 1, "x": None}],
        "model": {"w": torch.arange(999.0) + epoch},
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "seed0", key_of({"a": 1}, 0))


def test_nothing_to_go_on_from(checkpoints):
    assert checkpoints.load() is None
    checkpoints.clear()  # nothing to remove either


def test_newest_two_are_kept_and_the_newest_is_read(checkpoints):
    for epoch, step in ((1, 0), (2, 0), (2, 17), (10, 0)):
        checkpoints.save(state(epoch, step))
    assert [path.name[17:] for path in sorted(checkpoints.folder.iterdir())] == [
        "epoch00002-step0000017.pt",
        "epoch00010-step0000000.pt",
    ]
    found = checkpoints.load()
    assert found["epoch"] == 10
    assert found["rows"] == state(10)["rows"]
    assert torch.equal(found["model"]["w"], state(10)["model"]["w"])


def truncate(data):
    return data[: len(data) // 2]


def flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [truncate, flip, lambda data: b"", lambda data: b"not a checkpoint"])
def test_damaged_newest_gives_way_to_the_one_before(checkpoints, damage, caplog):
    checkpoints.save(state(1))
    newest = checkpoints.save(state(2))
    newest.write_bytes(damage(newest.read_bytes()))
    with caplog.at_level(logging.WARNING, "mdlatent"):
        assert checkpoints.load()["epoch"] == 1
    assert "damaged" in caplog.text
    assert newest.name in caplog.text
    assert not newest.exists()


def test_all_damaged_means_a_fresh_start(checkpoints):
    for epoch in (1, 2):
        checkpoints.save(state(epoch)).write_bytes(b"")
    assert checkpoints.load() is None


def test_another_training_is_moved_aside(checkpoints, caplog):
    for number, setting in enumerate(({"a": 2}, {"a": 3}), start=1):
        other = Checkpoints(checkpoints.folder, key_of(setting, 0))
        other.save(state(7))
        with caplog.at_level(logging.WARNING, "mdlatent"):
            assert checkpoints.load() is None
        aside = checkpoints.folder.with_name(f"seed0.old-{number}")
        assert "another configuration" in caplog.text
        assert str(aside) in caplog.text
        assert len(names(aside)) == 1
        assert names(checkpoints.folder) == []
    checkpoints.save(state(1))
    assert checkpoints.load()["epoch"] == 1


def test_files_of_a_killed_process_are_swept_and_no_others(checkpoints):
    path = checkpoints.save(state(1))
    (checkpoints.folder / f".{path.name}.123.part.pt").write_bytes(b"half")
    (checkpoints.folder / "note.txt").write_text("mine")
    assert checkpoints.load()["epoch"] == 1
    assert names(checkpoints.folder) == [path.name, "note.txt"]
    checkpoints.clear()
    assert names(checkpoints.folder) == ["note.txt"]


def test_key_depends_on_every_part():
    assert key_of({"a": 1, "b": 2}, 0) == key_of({"b": 2, "a": 1}, 0)
    assert len({key_of({"a": 1}, 0), key_of({"a": 1}, 1), key_of({"a": 1.5}, 0), key_of({"b": 1}, 0)}) == 4


def test_full_disk_is_said_by_its_number_and_leaves_nothing(checkpoints, monkeypatch):
    def full(content, handle):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 576 vs 534")  # noqa: B904, what torch does

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left.*epoch00003") as caught:
        checkpoints.save(state(3))
    assert caught.value.errno == errno.ENOSPC
    assert names(checkpoints.folder) == []
