"""Frames on a node's own disk: read from there, removed at the end, and no reason to fail."""

import threading
import time

import numpy as np
import pytest

from frame_store import chain, write_store
from mdlatent import staging
from mdlatent.frames import FrameStore
from mdlatent.launch import Launch

ALONE = Launch("python", 0, 1, 0, "here", "")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "BUDGET_BYTES", 1000)
    with FrameStore(write_store(tmp_path / "frames", {"a": chain(50, 6), "b": chain(30, 6, 1)}, n_parts=2)) as store:
        yield store


def test_frames_come_from_the_copy_and_it_is_removed(store, tmp_path):
    expected, sources = store.read(0, store.n_frames), store.files
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with staging.staged(store, str(scratch), ALONE):
        assert all(file.is_relative_to(scratch) for file in store.files)
        for file in sources:
            file.rename(file.with_suffix(".away"))  # so they cannot be what is read
        np.testing.assert_array_equal(store.read(0, store.n_frames), expected)
        for file in sources:
            file.with_suffix(".away").rename(file)
    assert list(scratch.iterdir()) == []
    assert store.files == sources
    np.testing.assert_array_equal(store.read(0, store.n_frames), expected)


def test_the_copy_is_removed_after_an_error(store, tmp_path):
    (tmp_path / "scratch").mkdir()
    with pytest.raises(ValueError, match="training"), staging.staged(store, str(tmp_path / "scratch"), ALONE):
        raise ValueError("training")
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("scratch", ["", "no/such/folder"])
def test_without_a_usable_folder_frames_are_read_where_they_lie(store, scratch):
    before = store.files
    with staging.staged(store, scratch, ALONE):
        assert store.files == before


def test_no_room(store, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(staging, "SPARE", 1e15)
    before = store.files
    with staging.staged(store, str(tmp_path), ALONE):
        assert store.files == before
    assert "are needed; frames are read where they lie" in caplog.text


def test_what_fits_in_memory_is_not_copied(store, tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "BUDGET_BYTES", 10**9)
    before = store.files
    with staging.staged(store, str(tmp_path), ALONE):
        assert store.files == before


def test_one_process_of_a_node_copies_and_the_others_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "BUDGET_BYTES", 1000)
    index = write_store(tmp_path / "frames", {"a": chain(50, 6)})
    (tmp_path / "scratch").mkdir()
    seen, read = [], threading.Barrier(2)

    def work(rank):
        with FrameStore(index) as store, staging.staged(store, str(tmp_path / "scratch"), place(rank)):
            seen.append((rank, store.files, store.read(0, 50).sum()))
            read.wait(10)

    def place(rank):
        return Launch("srun", rank, 2, rank, "here", "0123456789ab")

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (1, 0)]
    threads[0].start()
    time.sleep(0.5)
    assert not seen
    threads[1].start()
    for thread in threads:
        thread.join(10)
    assert [rank for rank, _, _ in sorted(seen, key=lambda one: one[0])] == [0, 1]
    assert seen[0][1:] == seen[1][1:]
    assert list((tmp_path / "scratch").iterdir()) == []
