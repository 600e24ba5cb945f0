"""Distances against double precision, brute force over images, and mdtraj."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mdtraj
import numba
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from mdlatent import distances, lanes, periodic, streaming

PACKAGE = Path(distances.__file__).parent.parent


def exact(coordinates):
    x = coordinates.astype(np.float64)
    return np.sqrt(((x[:, :, None] - x[:, None]) ** 2).sum(axis=-1))


@pytest.mark.parametrize("offset_nm", [0, 50])
@pytest.mark.parametrize("n_atoms", [3, 4, 8, 20, 33, 128, 129, 301])
def test_right_to_single_precision_anywhere_in_space(n_atoms, offset_nm):
    random = np.random.default_rng(n_atoms)
    x = (offset_nm + 4 * random.random((5, n_atoms, 3))).astype(np.float32)
    expected = exact(x)
    found = distances.full(x)
    off = ~np.eye(n_atoms, dtype=bool)
    assert (np.abs(found - expected)[:, off] / expected[:, off]).max() < 3e-7
    assert (found[:, ~off] == 0).all()
    np.testing.assert_array_equal(found, found.transpose(0, 2, 1))
    i, j = distances.pairs(n_atoms)
    np.testing.assert_array_equal(distances.packed(x), found[:, i, j])


@pytest.mark.parametrize("n_frames", [1, 3])
def test_rows_written_over_each_other_end_where_the_buffer_does(n_frames):
    """Any number of atoms, so that rests of rows are of any length; the same to the bit as numpy's."""
    for n_atoms in range(1, 36):
        x = np.random.default_rng(n_atoms).random((n_frames, n_atoms, 3)).astype(np.float32)
        squares = (x[:, :, None] - x[:, None]) ** 2
        expected = np.sqrt((squares[..., 0] + squares[..., 1]) + squares[..., 2])
        i, j = distances.pairs(n_atoms)
        for function, wanted in ((distances.full, expected), (distances.packed, expected[:, i, j])):
            memory = np.full(wanted.size + 64, -1, np.float32)
            out = memory[32:-32].reshape(wanted.shape)
            np.testing.assert_array_equal(function(x, out=out), wanted)
            assert (memory[:32] == -1).all() and (memory[-32:] == -1).all()
        boxes = np.repeat(np.diag([1.1, 1.0, 1.2])[None], n_frames, axis=0)  # atoms are less than a box apart
        inside = np.abs(x[:, :, None] - x[:, None])
        wanted = np.linalg.norm(np.minimum(inside, np.diagonal(boxes[0]) - inside), axis=-1)
        memory = np.full(wanted.size + 64, -1, np.float32)
        out = memory[32:-32].reshape(wanted.shape)
        np.testing.assert_allclose(distances.full(x, out=out, boxes=boxes), wanted, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(distances.packed(x, boxes=boxes), out[:, i, j])
        assert (memory[:32] == -1).all() and (memory[-32:] == -1).all()


def same_past_the_caches(n_atoms, lead):
    """Frames of so many atoms, into memory with `lead` values to its first line, against those that stay in caches."""
    x = np.random.default_rng(n_atoms).random((3, n_atoms, 3)).astype(np.float32)
    x[1, 2, 0] = np.nan
    boxes = np.repeat(np.diag([0.7, 0.8, 1.0])[None], 3, axis=0) * [[[1]], [[1]], [[2]]]
    margin = 17 * n_atoms  # the rows of one more block on either side
    memory = np.full(3 * n_atoms**2 + 2 * margin, -1.0, np.float32)
    first = margin - 16 + (streaming.to_line(memory[margin:]) - lead) % 16
    out = memory[first : first + 3 * n_atoms**2].reshape(3, n_atoms, n_atoms)
    assert streaming.to_line(out) == lead
    for box in (None, boxes):
        expected = distances.full(x, boxes=box)
        out[:] = -2
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distances, "STREAM_BYTES", 0)
            patch.setattr(distances, "STREAM_ATOMS", 16)
            np.testing.assert_array_equal(distances.full(x, out=out, boxes=box), expected)
        assert (memory[:first] == -1).all() and (memory[first + out.size :] == -1).all()


@pytest.mark.parametrize("lead", [0, 3, 15])
@pytest.mark.parametrize("n_atoms", [17, 31, 129, 132, 136])
def test_written_past_the_caches_are_the_same_to_the_bit(n_atoms, lead):
    same_past_the_caches(n_atoms, lead)


@pytest.mark.parametrize("n_atoms", [16, 32, 48, 64, 80, 400])
def test_blocks_are_the_same_to_the_bit_wherever_lines_begin(n_atoms):
    """None, one and more on the diagonal, none and more beside it: the first, the last and those between."""
    for lead in range(16):
        same_past_the_caches(n_atoms, lead)


def test_processors_without_avx512_give_the_same_to_the_bit(tmp_path):
    program = """
import llvmlite.binding, numpy as np
features = llvmlite.binding.get_host_cpu_features()
features.update({name: False for name in features if name.startswith("avx512")})
llvmlite.binding.get_host_cpu_features = lambda: features
from mdlatent import distances, lanes
assert not lanes.HAS_AVX512
x = np.random.default_rng(0).random((2, 136, 3)).astype(np.float32)
for n in (136, 48):
    expected = distances.full(x[:, :n])
    exact = np.sqrt(((x[:, :n, None].astype(float) - x[:, None, :n]) ** 2).sum(-1))
    np.testing.assert_allclose(expected, exact, rtol=3e-7)
    distances.STREAM_BYTES, distances.STREAM_ATOMS = 0, 16
    np.testing.assert_array_equal(distances.full(x[:, :n]), expected)
    distances.STREAM_BYTES = 2**30
"""
    without = {"PYTHONPATH": str(PACKAGE), "NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | without)


@given(
    hn.arrays(
        np.float32, st.tuples(st.integers(0, 4), st.integers(1, 9), st.just(3)), elements=st.floats(-90, 90, width=32)
    )
)
def test_numba_and_torch_agree(x):
    full, packed = distances.full(x), distances.packed(x)
    np.testing.assert_allclose(distances.full_torch(torch.tensor(x)), full, rtol=3e-7)
    np.testing.assert_allclose(distances.packed_torch(torch.tensor(x)), packed, rtol=3e-7)
    with torch.no_grad():
        np.testing.assert_array_equal(distances.full_torch(torch.tensor(x)), full)
        np.testing.assert_array_equal(distances.packed_torch(torch.tensor(x)), packed)
    i, j = distances.pairs(x.shape[1])
    np.testing.assert_array_equal(packed, full[:, i, j])


def test_not_finite_stays_where_it_is():
    x = np.random.default_rng(0).random((2, 6, 3)).astype(np.float32)
    x[1, 2, 0] = np.nan
    for found in (distances.full(x), distances.full_torch(torch.tensor(x)).numpy()):
        bad = np.isnan(found)
        expected = np.zeros((2, 6, 6), bool)
        expected[1, 2], expected[1, :, 2] = True, True
        np.testing.assert_array_equal(bad, expected)


def test_buffers_are_filled_and_wrong_ones_refused():
    x = np.random.default_rng(0).random((3, 5, 3)).astype(np.float32)
    out = np.full((3, 10), -1, np.float32)
    assert distances.packed(x, out) is out
    assert (out > 0).all()
    np.testing.assert_allclose(distances.packed(x[::2, ::-1].astype(np.float64)), distances.packed(x[::2, ::-1]))
    for wrong in (np.empty((3, 9), np.float32), np.empty((3, 10)), np.empty((10, 3), np.float32).T):
        with pytest.raises(ValueError, match="expected contiguous float32"):
            distances.packed(x, wrong)
    with pytest.raises(ValueError, match=r"expected \(frames, atoms, 3\)"):
        distances.full(x[0])


def test_without_gradients_kernels_do_the_work_where_they_can():
    x = torch.rand(2, 5, 3)
    packed = torch.from_numpy(distances.packed(x.numpy()))
    with torch.no_grad():
        for wide in (x.double(), x.clone().requires_grad_(), x[:, ::2]):
            expected = torch.from_numpy(distances.packed(wide.float().numpy(force=True)))
            torch.testing.assert_close(distances.packed_torch(wide).float(), expected, rtol=3e-7, atol=0)
        torch.testing.assert_close(distances.packed_torch(x[None])[0], packed, rtol=3e-7, atol=0)
        traced = torch.jit.trace(distances.packed_torch, (torch.zeros(2, 5, 3),), check_trace=False)
        torch.testing.assert_close(traced(x), packed, rtol=3e-7, atol=0)  # not the zeros it was traced with


def test_gradients_are_right_and_finite_where_atoms_meet():
    x = torch.rand(2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(distances.packed_torch, (x,))
    met = torch.zeros(1, 4, 3, requires_grad=True)
    (distances.full_torch(met).sum() + distances.packed_torch(met).sum()).backward()
    assert met.grad is not None and (met.grad == 0).all()


CELLS = {
    "rectangular": np.diag([3.0, 4.0, 5.0]),
    "rhombic dodecahedron": 4 * np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, np.sqrt(0.5)]]),
    "hexagonal": np.array([[3, 0, 0], [-1.5, 1.5 * np.sqrt(3), 0], [0, 0, 4.0]]),
    "truncated octahedron": 4
    * np.array([[1, 0, 0], [-1 / 3, np.sqrt(8) / 3, 0], [-1 / 3, -np.sqrt(2) / 3, np.sqrt(2 / 3)]]),
    "very skewed": np.array([[3, 0, 0], [7.1, 3, 0], [-4, 5.2, 3.0]]),
}


@pytest.mark.parametrize("width_nm", [2.9, 9])  # within the box, and beyond
@pytest.mark.parametrize("cell", CELLS)
def test_nearest_images_against_all_images(cell, width_nm):
    box = CELLS[cell]
    x = (width_nm * np.random.default_rng(1).random((3, 40, 3)) - 4).astype(np.float32)
    boxes = np.tile(box, (3, 1, 1))
    i, j = distances.pairs(40)
    d = (x[:, j].astype(np.float64) - x[:, i]).reshape(-1, 3)
    reach = np.ceil(np.abs(d @ np.linalg.inv(box)).max(axis=0)).astype(int) + 2
    many = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach)))) @ box
    expected = np.array([np.sqrt(((v - many) ** 2).sum(axis=1).min()) for v in d]).reshape(3, -1)
    found = distances.packed(x, boxes=boxes)
    np.testing.assert_allclose(found, expected, atol=3e-6)
    full = distances.full(x, boxes=boxes)
    np.testing.assert_array_equal(full, full.transpose(0, 2, 1))
    np.testing.assert_array_equal(full[:, i, j], found)
    assert (np.diagonal(full, axis1=1, axis2=2) == 0).all()


def test_box_vectors_are_those_of_mdtraj():
    random = np.random.default_rng(0)
    cells = np.concatenate([2 + 5 * random.random((50, 3)), 60 + 60 * random.random((50, 3))], axis=1)
    cells[:3, 3:] = [[90, 90, 90], [60, 60, 90], [109.4712206, 109.4712206, 109.4712206]]
    possible = np.isfinite(periodic.box_vectors(cells)).all(axis=(1, 2))
    expected = [mdtraj.utils.lengths_and_angles_to_box_vectors(*cell) for cell in cells[possible]]
    np.testing.assert_allclose(periodic.box_vectors(cells)[possible], expected, atol=1e-5)
    assert possible.sum() > 30
    dummies = np.array(
        [[0.0, 0, 0, 0, 0, 0], [0.1, 0.1, 0.1, 90, 90, 90], [3, 3, 3, 0, 0, 0], [np.nan] * 6, [3, 3, 3, 60, 60, 150]]
    )
    assert not periodic.is_real(periodic.box_vectors(dummies)).any()


def test_periodic_distances_need_a_real_box():
    x = np.zeros((2, 3, 3), np.float32)
    for boxes in (np.zeros((2, 3, 3)), np.tile(0.1 * np.eye(3), (2, 1, 1)), np.eye(3)):
        with pytest.raises(ValueError, match="expected one real box"):
            distances.full(x, boxes=boxes)


@pytest.mark.parametrize("cell", CELLS)
def test_reduced_lattice_is_the_same_lattice(cell):
    short = periodic.reduced(CELLS[cell][None])[0]
    change = short @ np.linalg.inv(CELLS[cell])
    np.testing.assert_allclose(change, np.rint(change), atol=1e-9)
    assert abs(np.linalg.det(change)) == pytest.approx(1)
    assert np.linalg.norm(short) <= np.linalg.norm(CELLS[cell]) + 1e-9


def test_kernels_compile_where_neither_package_nor_home_can_be_written(tmp_path):
    program = f"""
import os, sys, tempfile
tempfile.tempdir = {str(tmp_path)!r}
denied = os.access
os.access = lambda path, mode: mode != os.W_OK and denied(path, mode)
import numba, numpy as np
from mdlatent import distances
assert distances.full(np.zeros((1, 3, 3), np.float32)).sum() == 0
assert numba.config.CACHE_DIR.startswith({str(tmp_path)!r}), numba.config.CACHE_DIR
"""
    clean = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | {"PYTHONPATH": str(PACKAGE)}
    subprocess.run([sys.executable, "-c", program], check=True, env=clean)
    assert list(tmp_path.rglob("*.nbi"))


def test_a_change_in_what_is_called_is_compiled_anew(tmp_path):
    shutil.copytree(PACKAGE / "mdlatent", tmp_path / "mdlatent", ignore=shutil.ignore_patterns("__pycache__"))
    program = """
import numpy as np
from mdlatent import distances
print(distances.full(np.array([[[0, 0, 0], [0, 3, 4]]], np.float32))[0, 0, 1])
"""
    clean = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | {"PYTHONPATH": str(tmp_path)}

    def run():
        return subprocess.run(
            [sys.executable, "-c", program], check=True, text=True, capture_output=True, env=clean
        ).stdout.strip()

    assert run() == "5.0"
    rows = tmp_path / "mdlatent/distance_rows.py"
    rows.write_text(rows.read_text().replace("dx * dx + dy * dy", "dx * dx + 0 * dy"))
    assert run() == "4.0"


def test_importing_distances_is_light():
    program = "import sys, mdlatent.distances; print(sorted({'numba', 'torch'} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(PACKAGE)},
    )
    assert run.stdout.strip() == "[]"


def test_square_roots_by_products_are_right_to_the_bit():
    """Of every mantissa with an even and an odd exponent, and of what takes the usual way."""
    by_products = lanes.loop(lambda arrays, _: ([None, arrays[0].sqrt_by_products()], []))

    @numba.njit
    def roots(numbers, found):
        by_products((numbers, found), (), ())

    one = (np.arange(2**24, dtype=np.uint32) + np.float32(1).view(np.uint32)).view(np.float32)
    found = np.empty_like(one)
    for exponent in (0, -72, -110, 100):
        numbers = np.ldexp(one, exponent)
        roots(numbers, found)
        np.testing.assert_array_equal(found, np.sqrt(numbers))
    odd = np.array([0, 1e-45, 1e-38, 1e-30, 1e-23, 1e-22, np.inf, np.nan, np.finfo(np.float32).max, 1e38], np.float32)
    odd = np.concatenate([odd, np.ones(6, np.float32)])
    roots(odd, found[:16])
    np.testing.assert_array_equal(found[:16], np.sqrt(odd))
