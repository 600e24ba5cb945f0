"""MMFF94 and symmetric RMSD of many conformers side by side, against RDKit's."""

import numpy as np
import pytest
from rdkit.Chem import rdForceFieldHelpers

from mdlatent.conformers import many_rmsd, metrics, mmff_kernels, pool, stereo_signs
from mdlatent.conformers.embedding import Deadline, ForceField
from mdlatent.conformers.mmff_relax import SideBySide
from mdlatent.conformers.molecules import MoleculeError, heavy_indices, with_conformers
from mdlatent.lanes import LANES
from shaken_conformers import conformers

SMILES = [
    "CC#N",  # linear
    "CC(=O)[O-]",
    "CC[NH3+]",
    "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O",
    "O=C1CCC(=O)N1OC(=O)c1ccncc1",
    "CS(=O)(=O)Nc1nc(Cl)c(F)s1",
    "CC#CCN=[N+]=[N-]",
    "C1CC1C(=O)N[C@H](CO)C(F)(F)F",
    "OP(=O)(O)OC[C@H]1O[C@@H](n2cnc3c2ncnc3N)C[C@@H]1O",
]


@pytest.mark.parametrize("variant", ["MMFF94", "MMFF94s"])
@pytest.mark.parametrize("smiles", SMILES)
def test_energies_and_slopes_are_those_of_rdkit(smiles: str, variant: str) -> None:
    mol, x = conformers(smiles, 5)
    field = ForceField(mol, variant)
    ours = SideBySide.mmff(mol, variant)
    assert ours.energies(x) == pytest.approx(field.energies(x), abs=2e-3)
    theirs = rdForceFieldHelpers.MMFFGetMoleculeForceField(with_conformers(mol, x[:1]), field.properties)
    theirs.Initialize()
    expected = []
    for one in x.reshape(5, -1).tolist():
        theirs.CalcEnergy(one)  # without it slopes are of the structure before
        expected.append(theirs.CalcGrad(one))
    block = np.repeat(x.reshape(5, -1).T.astype(np.float32), 4, axis=1)[:, :LANES].copy()
    energy, slopes = np.empty(LANES, np.float32), np.empty(block.size, np.float32)
    mmff_kernels.energy(block.reshape(-1), ours.terms, energy, slopes)
    found = slopes.reshape(-1, LANES)[:, ::4].T
    assert np.abs(found - expected[:4]).max() < 1e-5 * np.abs(expected).max() + 1e-3


@pytest.mark.parametrize("smiles", SMILES[3:])
def test_relaxed_to_the_same_wells(smiles: str) -> None:
    mol, x = conformers(smiles, 6, 0.02)
    field = ForceField(mol)
    ours, energies = SideBySide.mmff(mol).relax(x, 2000)
    assert field.energies(ours) == pytest.approx(energies, abs=2e-3)
    _, theirs = field.relax(x, 5000)
    assert np.median(np.abs(energies - theirs)) < 0.02
    further = field.relax(ours, 5000)[1]
    assert (energies - further < 0.02).all()


def test_what_comes_out_depends_on_the_conformer_alone() -> None:
    mol, x = conformers(SMILES[3], LANES + 3)
    side = SideBySide.mmff(mol)
    together, energies = side.relax(x, 60)
    assert (energies < side.energies(x)).all()
    for some in (slice(0, 1), slice(7, 12), slice(LANES, LANES + 3)):
        alone, its = side.relax(x[some], 60)
        np.testing.assert_array_equal(alone, together[some])
        np.testing.assert_array_equal(its, energies[some])
    assert side.relax(x[:0], 60)[0].shape == (0, *x.shape[1:])


def test_a_broken_conformer_disturbs_no_other() -> None:
    mol, x = conformers(SMILES[3], 4)
    side = SideBySide.mmff(mol)
    whole, _ = side.relax(x, 60)
    x[1, 3] = x[1, 4]  # two atoms in one place
    x[2, 0] = np.nan
    found, energies = side.relax(x, 60)
    np.testing.assert_array_equal(found[[0, 3]], whole[[0, 3]])
    assert np.isnan(energies[2]) and np.isfinite(found[1]).all()


@pytest.mark.parametrize(
    "smiles",
    ["CCCO", "CC(=O)[O-]", "Cc1ccccc1C(C)(C)C", "OC(=O)CCC(N)=[NH2+]", "O=[N+]([O-])c1ccc(C(F)(F)F)cc1", SMILES[-1]],
)
def test_rmsd_is_that_of_rdkit(smiles: str) -> None:
    mol, x = conformers(smiles, 21, 0.3)
    x = np.concatenate([x, x[:3], x[:2] * [-1, 1, 1]])
    heavy, same = heavy_indices(mol), many_rmsd.automorphisms(mol, 10_000)
    expected = metrics.rmsd_matrix(with_conformers(mol, x))
    found = many_rmsd.rmsd_matrix(x[:, heavy], same)
    np.testing.assert_allclose(found, expected, atol=3e-3)
    np.testing.assert_allclose(many_rmsd.rmsd_between(x[:4, heavy], x[:, heavy], same), expected[:4], atol=3e-3)


def test_rmsd_does_not_depend_on_the_order_in_memory() -> None:
    mol, x = conformers(SMILES[4], 5)
    heavy, same = heavy_indices(mol), many_rmsd.automorphisms(mol, 100)
    usual = np.ascontiguousarray(x[:, heavy])
    other = np.asfortranarray(usual)
    np.testing.assert_array_equal(many_rmsd.rmsd_matrix(other, same), many_rmsd.rmsd_matrix(usual, same))
    np.testing.assert_array_equal(
        many_rmsd.rmsd_between(other[:2], other, same), many_rmsd.rmsd_between(usual[:2], usual, same)
    )


def test_signs_tell_stereoisomers_apart() -> None:
    isomers = [f"C[C@{at}H](O)/C=C{side}F" for at in ("", "@") for side in ("/", "\\")]
    found = []
    for smiles in isomers:
        mol, x = conformers(smiles, 3, 0.02)
        its = stereo_signs.signs(mol, x)
        assert (its == its[0]).all() and its.shape == (3, 2)
        assert (stereo_signs.signs(mol, x * [-1, 1, 1]) == its * [-1, 1]).all()
        found.append(tuple(its[0]))
    assert len(set(found)) == 4
    assert stereo_signs.signs(*conformers("CCCO", 2)).shape == (2, 0)


def test_what_has_lost_its_stereo_is_not_in_the_pool() -> None:
    mol, x = conformers(SMILES[3], 40, 0.02)
    x[10:] *= [-1, 1, 1]
    mmff = SideBySide.mmff(mol)
    made = pool._relaxed(mol, x, 5, mmff, pool.Options(stages=(5, 5)), Deadline(60))
    assert made.shape[:2] == (2, 10)
    with pytest.raises(MoleculeError, match="keeps the stereo of 10 of 40 structures, expected 11"):
        pool._relaxed(mol, x, 11, mmff, pool.Options(stages=(5, 5)), Deadline(60))


def test_members_of_a_well_are_near_its_deepest_and_no_higher() -> None:
    places = np.array([0.0, 0.1, 0.2, 2.0, 0.05])
    kcal = np.array([0.9, 0.0, 0.5, 0.2, 5.0])
    found = pool.wells(kcal, np.abs(places[:, None] - places), pool.Options())
    assert found.tolist() == [1, 1, 1, 3, 4]
