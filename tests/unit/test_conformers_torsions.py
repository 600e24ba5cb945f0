from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem, RDConfig
from rdkit.Chem import rdMolTransforms

from mdlatent.conformers import molecules, rotors, sdf, torsion_statistics, train
from mdlatent.conformers.embedding import Deadline, embed
from mdlatent.conformers.molecules import from_smiles, with_conformers
from mdlatent.conformers.torsion_statistics import BINS, TURNS, TorsionStatistics
from mdlatent.errors import DataError

EGFR = Path(RDConfig.RDContribDir) / "PBF" / "testData" / "egfr.sdf"


@pytest.fixture(scope="module")
def egfr() -> list[molecules.Molecule]:
    return sdf.read_sdf(EGFR)[0][:60]


@pytest.mark.parametrize(
    ("smiles", "n"),
    [("CCCC", 1), ("CC", 0), ("CCCO", 2), ("c1ccccc1", 0), ("c1ccccc1-c1ccccc1", 1), ("CC#CC", 0), ("FC(F)(F)CCC", 1)],
)
def test_which_bonds_turn(smiles: str, n: int) -> None:
    assert len(rotors.find_rotors(Chem.AddHs(Chem.MolFromSmiles(smiles)))) == n


def test_angles_are_rdkits_and_turn_turns_them() -> None:
    mol = from_smiles("C[C@H](F)CC(=O)NCc1ccccc1").mol
    coordinates = embed(mol, 3, 0, Deadline(60))
    made = with_conformers(mol, coordinates)
    for rotor in rotors.find_rotors(mol):
        before = rotors.torsion_angles(coordinates, rotor.torsions)
        for number, conformer in enumerate(made.GetConformers()):
            for torsion, angle in zip(rotor.torsions.tolist(), before[number], strict=True):
                assert rdMolTransforms.GetDihedralRad(conformer, *torsion) == pytest.approx(angle, abs=1e-9)
        turned, by = coordinates.copy(), np.array([0.3, -2.0, 0.0])
        rotors.turn(turned, rotor, by)
        change = rotors.torsion_angles(turned, rotor.torsions) - before - by[:, None]
        assert np.abs((change + np.pi) % (2 * np.pi) - np.pi).max() < 1e-9
        for bond in mol.GetBonds():
            i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            lengths = [np.linalg.norm(one[:, i] - one[:, j], axis=-1) for one in (coordinates, turned)]
            assert np.allclose(*lengths, atol=1e-9)


@pytest.mark.parametrize("spellings", [("ClCCBr", "BrCCCl"), ("CC(=O)NCc1ccc(OCC)cc1", "c1(OCC)ccc(cc1)CNC(C)=O")])
def test_keys_do_not_depend_on_the_order_of_atoms(spellings: tuple[str, str]) -> None:
    found = []
    for smiles in spellings:
        keys = [tuple(key) for rotor in rotors.find_rotors(from_smiles(smiles).mol) for key in rotor.keys.tolist()]
        found.append(sorted(keys))
    assert found[0] == found[1]


def test_learns_that_amides_are_planar_and_butane_is_staggered(egfr: list[molecules.Molecule]) -> None:
    amides = [from_smiles("CCC(=O)NCC"), from_smiles("CCCCC(=O)NCCC"), from_smiles("CCCCCC")]
    known = [
        molecules.Molecule(one.name, with_conformers(one.mol, embed(one.mol, 20, 0, Deadline(60)))) for one in amides
    ]
    statistics = torsion_statistics.learn(known, {})
    mol = from_smiles("CCCC(=O)NCCC").mol
    coordinates = embed(mol, 1, 3, Deadline(60))
    amide = next(
        rotor
        for rotor in rotors.find_rotors(mol)
        if {mol.GetAtomWithIdx(int(i)).GetSymbol() for i in rotor.torsions[0, 1:3]} == {"C", "N"}
        and any(mol.GetAtomWithIdx(int(i)).GetSymbol() == "O" for i in rotor.torsions[:, 0])
        | any(mol.GetAtomWithIdx(int(i)).GetSymbol() == "O" for i in rotor.torsions[:, 3])
    )
    turns = statistics.turns(amide, coordinates)
    assert turns.shape == (1, TURNS) and turns.sum() == pytest.approx(1)
    start = rotors.torsion_angles(coordinates, amide.torsions)[0, 0]
    from_plane = np.abs(np.sin(start + 2 * np.pi / TURNS * np.arange(TURNS)))
    assert turns[0, from_plane < 0.5].sum() > 0.8
    assert turns[0].min() > 0  # nothing is ruled out


def test_unknown_environments_back_off_to_uniform(egfr: list[molecules.Molecule]) -> None:
    statistics = torsion_statistics.learn(egfr, {})
    assert statistics.distribution([1, 2, 3, 4]) == pytest.approx(np.full(BINS, 1 / BINS))
    known = rotors.find_rotors(egfr[0].mol)[0].keys[0].tolist()
    assert np.abs(statistics.distribution(known) - 1 / BINS).max() > 0.01


def test_likelihood_of_new_molecules_is_above_uniform(egfr: list[molecules.Molecule]) -> None:
    statistics = torsion_statistics.learn(egfr[:40], {})
    logs = []
    for molecule in egfr[40:]:
        coordinates = molecules.positions(molecule.mol)
        for rotor in rotors.find_rotors(molecule.mol):
            logs.append(np.log(statistics.turns(rotor, coordinates)[:, 0] * TURNS).mean())
    assert np.mean(logs) > 0.3


def test_smoothing_keeps_the_sum_and_mirrors_at_the_ends() -> None:
    kernel = torsion_statistics._smoothing()
    assert kernel.sum(1) == pytest.approx(1)
    assert kernel[0, 0] > kernel[BINS // 2, BINS // 2]  # what would pass 0° comes back


def test_train_command_writes_and_other_files_are_refused(tmp_path: Path) -> None:
    path, egfr = tmp_path / "learned.npz", tmp_path / "egfr.sdf"
    egfr.write_text("$$$$\n".join(EGFR.read_text().split("$$$$\n")[:60]) + "$$$$\n")
    train.main([str(egfr), "--output", str(path), "--source", "RDKit Contrib", "--fractions", ".3", ".3", ".4"])
    statistics = TorsionStatistics.load(path)
    assert statistics.provenance["files"].keys() == {"egfr.sdf"} and statistics.provenance["source"] == "RDKit Contrib"
    assert 10 < statistics.provenance["n_molecules"] < 30
    again = tmp_path / "again.npz"
    train.main([str(egfr), "--output", str(again), "--source", "RDKit Contrib", "--fractions", ".3", ".3", ".4"])
    assert again.read_bytes() == path.read_bytes()
    (tmp_path / "other.npz").write_bytes(b"something else")
    with pytest.raises(DataError, match="no torsion statistics"):
        TorsionStatistics.load(tmp_path / "other.npz")
