import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdMolAlign

from mdlatent.conformers import metrics
from mdlatent.conformers.embedding import Deadline, embed
from mdlatent.conformers.molecules import from_smiles, with_conformers

# Symmetric: carboxylic acid, two like phenyls, sulfonamide, nitro.
SMILES = ["OC(=O)CCc1ccccc1", "O=C(c1ccccc1)c1ccccc1", "NS(=O)(=O)c1ccc(CCO)cc1", "O=[N+]([O-])c1ccc(CC)cc1"]


def conformers(smiles: str, n: int, seed: int = 0) -> Chem.Mol:
    mol = from_smiles(smiles).mol
    return with_conformers(mol, embed(mol, n, seed, Deadline(60)))


@pytest.mark.parametrize("smiles", SMILES)
def test_rmsd_is_that_of_the_slow_loop(smiles: str) -> None:
    mol = conformers(smiles, 5)
    found, heavy = metrics.rmsd_matrix(mol), Chem.RemoveAllHs(mol)
    for i in range(5):
        for j in range(i):
            slow = rdMolAlign.GetBestRMS(Chem.Mol(heavy), heavy, i, j, symmetrizeConjugatedTerminalGroups=True)
            assert found[i, j] == pytest.approx(slow, abs=1e-4)
    assert np.array_equal(found, found.T)


def test_rmsd_between_is_the_block_of_the_whole() -> None:
    generated, references = conformers(SMILES[0], 4), conformers(SMILES[0], 3, seed=1)
    between = metrics.rmsd_between(generated, references)
    assert between.shape == (4, 3)
    swapped = metrics.rmsd_between(references, generated)
    assert np.allclose(between, swapped.T, atol=1e-6) and between.min() > 0.01
    assert metrics.rmsd_between(generated, generated).diagonal() == pytest.approx(0, abs=1e-3)


def test_two_carboxylate_oxygens_are_alike() -> None:
    mol = from_smiles("[O-]C(=O)CCC").mol
    made = embed(mol, 1, 0, Deadline(60))
    swapped = made.copy()
    swapped[:, [0, 2]] = made[:, [2, 0]]
    assert metrics.rmsd_matrix(with_conformers(mol, [made[0], swapped[0]]))[0, 1] < 1e-3


def test_coverage_by_hand() -> None:
    found = metrics.coverage(np.array([[0.2, 1.0], [0.9, 0.6], [2.0, 1.5], [0.4, 0.8]]))
    assert found["amr_recall_angstrom"] == pytest.approx((0.2 + 0.6) / 2)
    assert found["amr_precision_angstrom"] == pytest.approx((0.2 + 0.6 + 1.5 + 0.4) / 4)
    assert found["cov_recall_0.5_percent"] == 50 and found["cov_precision_0.75_percent"] == 75


def test_nothing_generated_covers_nothing() -> None:
    found = metrics.coverage(np.zeros((0, 3)))
    assert all(value == 0 for name, value in found.items() if name.startswith("cov"))
    assert np.isnan(found["amr_recall_angstrom"])


def test_distinct_keeps_the_first_of_each() -> None:
    points = np.array([0.0, 0.05, 1.0, 1.1, 3.0])
    assert metrics.distinct(np.abs(points[:, None] - points), 0.125) == [0, 2, 4]


def test_bootstrap_is_paired() -> None:
    theirs = np.random.default_rng(0).uniform(0.2, 3.0, 60)
    ours = theirs - 0.1 + np.random.default_rng(1).normal(0, 0.02, 60)
    ours[3] = np.nan
    found = metrics.bootstrap_difference(ours, theirs)
    assert found["n"] == 59
    assert found["difference_low"] < -0.1 < found["difference_high"] < -0.08  # unpaired, it would include zero
    assert found["ratio_low"] < found["ratio"] < found["ratio_high"] < 1
