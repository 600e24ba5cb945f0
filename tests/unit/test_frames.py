"""The frame store: what is written is read, whole or not at all."""

import errno
import os
import pickle
import resource
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import frame_store
from mdlatent import clocks, frames
from mdlatent.errors import DataError


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    data = {"a": frame_store.chain(610, 9, seed=1), "b": frame_store.chain(37, 9, seed=2)}
    return frame_store.write_store(folder, data, n_parts=3), np.concatenate([data["a"], data["b"]])


@given(st.integers(0, 647), st.integers(0, 647))
def test_any_window_reads_what_was_written(study, a, b):
    index, expected = study
    start, stop = sorted((a, b))
    with frames.FrameStore(index) as store:
        found = store.read(start, stop)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected[start:stop])


def test_iterate_covers_every_row_once_and_in_order(study):
    index, expected = study
    with frames.FrameStore(index) as store:
        rows, pieces = zip(*store.iterate(5, 600, chunk=77), strict=True)
        np.testing.assert_array_equal(np.concatenate(pieces), expected[5:600])
        assert list(rows) == list(range(5, 600, 77))
        with pytest.raises(IndexError, match="expected within 0 to 647"):
            store.read(600, 648)


def test_frame_numbers_and_times_run_through_the_parts(study):
    with frames.FrameStore(study[0]) as store:
        np.testing.assert_array_equal(store.frame_numbers("a"), np.arange(610))
        np.testing.assert_array_equal(store.times_ps("a"), 2.0 * np.arange(610))
        assert [(s.start, s.stop) for s in store.simulations] == [(0, 610), (610, 647)]
        with pytest.raises(DataError, match="got simulation 'c', expected one of a, b"):
            store.frame_numbers("c")


def test_store_travels_to_another_process(study):
    with frames.FrameStore(study[0]) as store:
        store.read(0, 5)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read(0, 5), study[1][:5])


def test_more_parts_than_open_files(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "MAX_OPEN", 2)
    data = frame_store.chain(50, 4)
    with frames.FrameStore(frame_store.write_store(tmp_path, {"a": data}, n_parts=10)) as store:
        np.testing.assert_array_equal(store.read(0, 50), data)
        assert len(store._handles) == 2


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([[0, 2, 4], [6, 8]], [0, 2, 4, 6, 8]),
        ([[0, 2, 4], [0, 2]], [0, 2, 4, 6, 8]),  # the clock starts again
        ([[0, 2, 4], [4, 6]], [0, 2, 4, 6, 8]),  # the last frame is the first of the next part
        ([[0, 2], [100, 102]], [0, 2, 100, 102]),  # a pause stays
        ([[0, 2], [0, 2], [0, 2]], [0, 2, 4, 6, 8, 10]),
        ([[5], [5]], [5, 6]),
        ([[], [1, 2]], [1, 2]),
        ([], []),
    ],
)
def test_clocks_of_parts_are_joined(parts, expected):
    joined = clocks.join_clocks([np.array(part, float) for part in parts])
    np.testing.assert_allclose(joined, expected)
    assert (np.diff(joined) > 0).all()


def test_failed_writing_leaves_nothing(tmp_path):
    path = tmp_path / "a" / "part000.h5"
    with pytest.raises(RuntimeError, match="midway"), _writer(path) as writer:
        writer.append(np.zeros((3, 4, 3), np.float32), np.arange(3), np.zeros(3))
        raise RuntimeError("midway")
    assert list(path.parent.iterdir()) == []


def test_wrong_shapes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected \(3, 4, 3\)"), _writer(tmp_path / "part000.h5") as writer:
        writer.append(np.zeros((3, 5, 3), np.float32), np.arange(3), np.zeros(3))


@pytest.mark.parametrize("content", ["nothing", "garbage", "cut", "foreign"])
def test_damaged_parts_are_named(tmp_path, content):
    index = frame_store.write_store(tmp_path, {"a": frame_store.chain(600, 5)})
    part = tmp_path / "a" / "part000.h5"
    if content == "nothing":
        part.unlink()
    elif content == "garbage":
        part.write_bytes(b"no HDF5")
    elif content == "cut":
        part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    else:
        with h5py.File(part, "w") as file:
            file["coordinates"] = np.zeros((600, 5, 3))
    with frames.FrameStore(index) as store, pytest.raises(DataError, match=r"part000\.h5: .*featurize"):
        store.read(0, 600)


def test_index_that_disagrees_with_a_part_is_refused(tmp_path):
    index = frame_store.write_store(tmp_path, {"a": frame_store.chain(60, 5)})
    with _writer(tmp_path / "a" / "part000.h5", n_atoms=6) as writer:
        writer.append(np.zeros((3, 6, 3), np.float32), np.arange(3), np.zeros(3))
    with frames.FrameStore(index) as store, pytest.raises(DataError, match="run the index_frames stage again"):
        store.read(0, 1)


def test_missing_and_broken_index(tmp_path):
    with pytest.raises(DataError, match="run the index_frames stage first"):
        frames.FrameStore(tmp_path / "index.json")
    (tmp_path / "index.json").write_text('{"n_atoms":')
    with pytest.raises(DataError, match="not a valid index"):
        frames.FrameStore(tmp_path / "index.json")


def test_file_size_limit_is_said_plainly(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
    try:
        _demand_failure(tmp_path / "a" / "part000.h5", errno.EFBIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_full_disk_is_said_plainly(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    try:
        _demand_failure(disk / "a" / "part000.h5", errno.ENOSPC)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _demand_failure(path: Path, code: int) -> None:
    block = np.random.default_rng(0).random((256, 50, 3), np.float32)
    with pytest.raises(OSError) as caught, _writer(path, n_atoms=50) as writer:
        for k in range(20):
            writer.append(block, 256 * k + np.arange(256), np.zeros(256))
    assert (caught.value.errno, caught.value.filename) == (code, str(path))
    assert list(path.parent.iterdir()) == []
    assert 256 <= writer.n_frames < 20 * 256  # it stopped when the first write had failed


def _writer(path, n_atoms=4):
    return frames.write_part(path, simulation="a", part=0, n_atoms=n_atoms, provenance={})
