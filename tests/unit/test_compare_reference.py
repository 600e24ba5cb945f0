"""Distances to a reference structure, against mdtraj's."""

import mdtraj
import numpy as np
import pytest

from mdlatent import compare_reference
from mdlatent.errors import DataError


@pytest.fixture(scope="module")
def frames(trpcage):
    return mdtraj.load_dcd(str(trpcage[1]), top=str(trpcage[0]), stride=50)


def test_agrees_with_mdtraj(frames):
    ca = frames.atom_slice(frames.top.select("name CA"))
    expected = mdtraj.rmsd(mdtraj.Trajectory(ca.xyz.copy(), ca.top), mdtraj.Trajectory(ca.xyz[7:8].copy(), ca.top))
    found = compare_reference.kabsch_rmsd(ca.xyz, ca.xyz[7])
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert found[7] < 1e-7


def test_a_mirror_image_is_not_the_same_structure(frames):
    ca = frames.xyz[:1, frames.top.select("name CA")]
    assert compare_reference.kabsch_rmsd(ca * [-1, 1, 1], ca[0])[0] > 0.1


def test_moved_and_turned_frames_are_at_distance_zero(frames):
    ca = frames.xyz[3, frames.top.select("name CA")]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    assert compare_reference.kabsch_rmsd((ca @ turn + 5.0)[None], ca)[0] < 1e-5


def test_atoms_are_found_by_name_and_missing_ones_named(frames, tmp_path):
    frames[0].save_pdb(str(tmp_path / "reference.pdb"))
    atoms = [str(frames.top.atom(i)) for i in frames.top.select("name CA")]
    found = compare_reference.read_reference(tmp_path / "reference.pdb", "name CA", atoms[::-1])
    np.testing.assert_allclose(found[::-1], frames.xyz[0, frames.top.select("name CA")], atol=1e-4)
    with pytest.raises(DataError, match="'GLY99-CA'"):
        compare_reference.read_reference(tmp_path / "reference.pdb", "name CA", [*atoms, "GLY99-CA"])
    (tmp_path / "not.pdb").write_text("nothing")
    with pytest.raises(DataError):
        compare_reference.read_reference(tmp_path / "not.pdb", "name CA", atoms)
