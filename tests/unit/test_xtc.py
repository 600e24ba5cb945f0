"""The reader of xtc files gives what mdtraj gives, to the bit."""

import mdtraj
import numpy as np
import pytest

from mdlatent import trajectory_formats, xtc
from mdlatent.errors import DataError


def written(path, xyz, **rest):
    """An xtc file of frames (k, n, 3) nm, and what mdtraj reads from it: coordinates, times, steps, boxes."""
    with mdtraj.open(str(path), "w") as file:
        file.write(np.asarray(xyz, np.float32), **rest)
    return reread(path)


def reread(path, **how):
    with mdtraj.open(str(path)) as file:
        return file.read(**how)


def read(path, atoms, stride=1, at_a_time=7):
    """All frames, a few at a time."""
    reader = xtc.XTCReader(path)
    parts = []
    while len((part := reader.read(at_a_time, stride, atoms))[0]):
        parts.append(part)
    reader.close()
    return reader.n_frames, *(np.concatenate(column) for column in zip(*parts, strict=True))


@pytest.mark.parametrize("name", ["gpcr_5ht1b/traj", "bpti_small/bpti", "asp7/asp7"])
def test_real_data(field_data, name):
    path = field_data / f"{name}.xtc"
    layout = trajectory_formats.read(path, ".xtc")
    every = np.arange(layout.n_atoms)
    for atoms in (every, every[3:40:5], every[::-2], every[:1]):
        for stride in (1, 3, 100_000):
            xyz, times, _, boxes = reread(path, atom_indices=atoms)
            n_frames, *found = read(path, atoms, stride, 256)
            assert n_frames == layout.n_frames
            for one, other in zip(found, (xyz, times, boxes), strict=True):
                np.testing.assert_array_equal(one, other[::stride])


def cases():
    """Frames (k, n, 3) nm that are written in each of the ways there are."""
    random = np.random.default_rng(0)
    yield from ((f"{n} atoms", random.normal(size=(20, n, 3))) for n in (1, 2, 9, 10, 11, 500))
    yield "a chain", np.cumsum(random.normal(size=(9, 700, 3)) * 0.1, axis=1)
    water = random.random((9, 300, 1, 3)) * 8 + random.normal(size=(9, 300, 3, 3)) * 0.05
    yield "water", water.reshape(9, 900, 3)
    yield "all in one place", np.ones((3, 40, 3))
    # From 2,643 nm on three numbers take more than 64 bits together, from 16,778 nm on they are not packed.
    for width in (300, 1000, 3000, 16000, 20_000, 40_000):
        yield f"{width} nm wide", random.random((9, 60, 3)) * width - width / 3
        yield (
            f"two heaps {width} nm apart",
            np.sort(random.normal(size=(9, 60, 3)) + random.choice([0, width], (60, 1))),
        )


@pytest.mark.parametrize("xyz", [pytest.param(xyz, id=name) for name, xyz in cases()])
def test_what_was_made_for_it(tmp_path, monkeypatch, xyz):
    box = np.array([[4, 0, 0], [1.3, 3.6, 0], [-1.1, 1.2, 3.4]], np.float32)
    path, k = tmp_path / "made.xtc", len(xyz)
    xyz, times, _, boxes = written(path, xyz, time=1.5 * np.arange(k, dtype=np.float32), box=np.repeat(box[None], k, 0))
    for block in (3, 10_000):  # smaller and larger than a frame
        monkeypatch.setattr(xtc, "BLOCK_BYTES", block)
        for atoms in (np.arange(xyz.shape[1]), np.array([0]), np.array([xyz.shape[1] - 1, 0])):
            for stride in (1, 4):
                n_frames, *found = read(path, atoms, stride)
                assert n_frames == k
                for one, other in zip(found, (xyz[:, atoms], times, boxes), strict=True):
                    np.testing.assert_array_equal(one, other[::stride])


@pytest.mark.parametrize("n_atoms", [5, 300])
@pytest.mark.parametrize("stride", [1, 4])
def test_every_cut_is_seen(tmp_path, monkeypatch, n_atoms, stride):
    path = tmp_path / "whole.xtc"
    written(path, np.random.default_rng(0).normal(size=(11, n_atoms, 3)))
    content = path.read_bytes()
    whole = {trajectory_formats.read(path, ".xtc").n_frames: len(content)}
    monkeypatch.setattr(xtc, "BLOCK_BYTES", 100)  # so that frames that are not wanted are passed over
    for length in [*range(8, len(content), 97), len(content) - 1, len(content)]:
        cut = tmp_path / "cut.xtc"
        cut.write_bytes(content[:length])
        layout = trajectory_formats.read(cut, ".xtc")
        whole[layout.n_frames] = length
        if layout.left_over == 0:
            assert read(cut, np.array([0]), stride)[0] == layout.n_frames
            continue
        with pytest.raises(DataError, match=f"frame {layout.n_frames} is cut short"):
            read(cut, np.array([0]), stride)
    assert len(whole) == 12


def test_damage_never_breaks_the_process(tmp_path):
    path = tmp_path / "whole.xtc"
    written(path, np.cumsum(np.random.default_rng(0).normal(size=(8, 200, 3)) * 0.1, axis=1))
    content = path.read_bytes()
    random = np.random.default_rng(1)
    seen = set()
    for _ in range(300):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        if xtc.XTCReader.can_read(path) and xtc.XTCReader(path).n_atoms == 200:
            try:
                n_frames, xyz, *_ = read(path, np.arange(200))
                assert xyz.shape == (n_frames, 200, 3)
            except DataError as error:
                seen.add(" ".join(str(error).split()[3:5]))
    assert "is damaged;" in seen


def test_a_frame_in_the_middle_that_is_damaged_is_named(tmp_path):
    path = tmp_path / "whole.xtc"
    written(path, np.random.default_rng(0).normal(size=(11, 300, 3)))
    content = bytearray(path.read_bytes())
    at = content.index(content[:8], 5000)  # the header of a later frame
    number = content[:at].count(content[:8])
    content[at + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"whole.xtc: frame {number} is damaged; fetch the file again"):
        read(path, np.arange(300))
