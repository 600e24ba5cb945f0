from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem, RDConfig

from mdlatent.conformers import benchmark, drawing, metrics, molecules, quality, sdf, selection, torsion_statistics
from mdlatent.conformers import generate as cli
from mdlatent.conformers.embedding import Deadline, ForceField, embed
from mdlatent.conformers.generators import GENERATORS, generate
from mdlatent.conformers.molecules import MoleculeError, from_smiles, positions, with_conformers
from mdlatent.conformers.rotors import find_rotors, torsion_angles
from mdlatent.errors import ConfigError, DataError

EGFR = Path(RDConfig.RDContribDir) / "PBF" / "testData" / "egfr.sdf"
FLEXIBLE = "C[C@H](O)CC(=O)NCC"


@pytest.fixture(scope="module")
def statistics() -> torsion_statistics.TorsionStatistics:
    return torsion_statistics.learn(sdf.read_sdf(EGFR, duplicate_angstrom=0)[0][:40], {})


@pytest.mark.parametrize("generator", [name for name in GENERATORS if name != "vae"])  # it needs trained weights
def test_number_stereo_and_determinism(generator: str, statistics: torsion_statistics.TorsionStatistics) -> None:
    mol = from_smiles(FLEXIBLE).mol
    before = Chem.MolToSmiles(mol)
    made = generate(generator, mol, 2, 7, statistics=statistics)
    assert made.GetNumConformers() == 2 and mol.GetNumConformers() == 0 and Chem.MolToSmiles(mol) == before
    assert quality.stereo_kept(made) == 100
    again, other = (generate(generator, mol, 2, seed, statistics=statistics) for seed in (7, 8))
    assert np.array_equal(positions(made), positions(again)) and not np.array_equal(positions(made), positions(other))


def test_references_are_not_looked_at(statistics: torsion_statistics.TorsionStatistics) -> None:
    mol = from_smiles(FLEXIBLE).mol
    with_references = with_conformers(mol, embed(mol, 3, 5, Deadline(60)))
    made = [generate("torsions", one, 4, 0, statistics=statistics) for one in (mol, with_references)]
    assert np.array_equal(positions(made[0]), positions(made[1]))


def test_relaxed_generators_are_lower(statistics: torsion_statistics.TorsionStatistics) -> None:
    mol = from_smiles(FLEXIBLE).mol
    lowest = quality.lowest_reference(with_conformers(mol, embed(mol, 30, 1, Deadline(60))))
    above = {name: np.median(quality.energies_above(generate(name, mol, 6, 0, statistics=statistics), lowest)[0])
             for name in ("etkdg", "etkdg_mmff", "torsions")}  # fmt: skip
    assert max(above["torsions"], above["etkdg_mmff"]) < above["etkdg"] and above["torsions"] < 3


@pytest.mark.parametrize("smiles", ["c1ccccc1", "C1CCCCC1", "CC#CC", "CCCCCCCCCCCC"])
def test_rigid_rings_linear_and_long(smiles: str, statistics: torsion_statistics.TorsionStatistics) -> None:
    assert generate("torsions", from_smiles(smiles).mol, 3, 0, statistics=statistics).GetNumConformers() == 3


def test_many_of_a_rigid_molecule(statistics: torsion_statistics.TorsionStatistics) -> None:
    assert generate("torsions", from_smiles("C1CCOC1").mol, 90, 0, statistics=statistics).GetNumConformers() == 90


def test_a_limit_is_kept_and_named(statistics: torsion_statistics.TorsionStatistics) -> None:
    with pytest.raises(MoleculeError, match=r"not done within 0\.05 s"):
        generate("torsions", from_smiles("CC(C)CCCCOC(=O)CCCCNCCCCCC").mol, 300, 0, limit_s=0.05, statistics=statistics)


def test_impossible_and_unknown_are_refused() -> None:
    impossible = Chem.AddHs(Chem.MolFromSmiles("CC1(C)[C@@H]2CC[C@]1(C)C(=O)C2"))  # half of camphor's other face
    with pytest.raises(MoleculeError, match=r"cannot be embedded|not done within"):
        generate("etkdg", impossible, 2, 0, limit_s=1.5)
    with pytest.raises(ConfigError, match="expected one of: etkdg"):
        generate("omega", from_smiles("CCCC").mol, 2)
    with pytest.raises(ConfigError, match="n = 0"):
        generate("etkdg", from_smiles("CCCC").mol, 0)


def test_force_field_relaxes_and_leaves_the_molecule_alone() -> None:
    mol = from_smiles("c1ccc2[nH]c(=O)ccc2c1").mol
    aromatic = [atom.GetIsAromatic() for atom in mol.GetAtoms()]
    field = ForceField(mol)
    start = embed(mol, 2, 0, Deadline(60))
    relaxed, energies = field.relax(start, 200)
    assert (energies < field.energies(start)).all() and energies == pytest.approx(field.energies(relaxed))
    assert [atom.GetIsAromatic() for atom in mol.GetAtoms()] == aromatic


def test_lost_stereo_is_seen() -> None:
    mol = from_smiles("C[C@H](F)CC").mol
    right = embed(mol, 1, 0, Deadline(60))[0]
    assert quality.stereo_kept(with_conformers(mol, [right, right * [1, 1, -1]])) == 50


def test_choice_takes_the_likely_and_then_spreads() -> None:
    points = np.concatenate([np.linspace(0, 0.4, 6), [3.0, 3.1], [9.0]])
    rmsd = np.abs(points[:, None] - points)
    energies = np.array([0.0] * 6 + [0.5, 0.5] + [20.0])
    chosen = selection.expected(rmsd, energies, 3, 0.2, 0.05)
    assert {int(points[one] // 2.5) for one in chosen} == {0, 1}  # both wells, and not the one that is too high
    assert len(set(chosen.tolist())) == 3
    precise = selection.expected(rmsd, energies, 2, 50.0, 0.05)
    assert points[precise].max() < 0.5


def test_expected_nearest_is_that_of_draws() -> None:
    rng = np.random.default_rng(0)
    points, weight = rng.uniform(0, 5, 12), rng.dirichlet(np.ones(12))
    rmsd = np.abs(points[:, None] - points)
    drawn = rng.choice(12, p=weight, size=(40_000, 3))
    simulated = rmsd[:, drawn].min(-1).mean(-1)
    assert selection._expected_nearest(rmsd, weight, 3) == pytest.approx(simulated, abs=0.03)


def test_k_means_takes_one_of_each_cluster() -> None:
    mol = from_smiles("CCCCCC").mol
    one, two = embed(mol, 2, 1, Deadline(60))
    noise = np.random.default_rng(0).normal(0, 0.01, (6, *one.shape))
    many = np.concatenate([one + noise[:3], two + noise[3:]])
    assert {int(index) // 3 for index in selection.k_means(many, 2, 0)} == {0, 1}


def test_drawn_torsions_are_all_tried(statistics: torsion_statistics.TorsionStatistics) -> None:
    mol = from_smiles("CCCCCO").mol
    starts = embed(mol, 2, 0, Deadline(60))
    rotors = find_rotors(mol)
    drawn = drawing.draw(starts, rotors, 50, statistics, np.random.default_rng(0))
    assert drawn.shape == (50, *starts.shape[1:])
    moved = np.array([
        [abs(np.sin((torsion_angles(x, r.torsions) - torsion_angles(starts[i % 2], r.torsions))[0] / 2)) > 1e-6
         for r in rotors]
        for i, x in enumerate(drawn)
    ])  # fmt: skip
    assert moved.mean() > 0.99


def test_benchmark_measures_all_alike(
    statistics: torsion_statistics.TorsionStatistics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mol = from_smiles(FLEXIBLE).mol
    references = with_conformers(mol, embed(mol, 3, 11, Deadline(60)))
    references.SetProp("_Name", "mine")
    path = tmp_path / "references.sdf"
    path.write_text("".join(Chem.MolToMolBlock(references, confId=one) + "$$$$\n" for one in range(3)))
    statistics.save(tmp_path / "learned.npz")
    benchmark.main(
        [str(path), "--part", "all", "--output-dir", str(tmp_path), "--statistics", str(tmp_path / "learned.npz"),
         "--generators", "etkdg", "torsions"]
    )  # fmt: skip
    table = pd.read_parquet(tmp_path / "conformers.parquet").set_index("generator")
    assert (table["n_generated"] == 2 * table["n_references"]).all() and (table["stereo_kept_percent"] == 100).all()
    made = generate("etkdg", sdf.read_sdf(path)[0][0].bare, 2 * int(table["n_references"].iloc[0]), 0)
    expected = metrics.coverage(metrics.rmsd_between(made, sdf.read_sdf(path)[0][0].mol))
    assert table.loc["etkdg", "amr_recall_angstrom"] == pytest.approx(expected["amr_recall_angstrom"], abs=1e-3)
    assert table.loc["torsions", "energy_raw_kcal"] < table.loc["etkdg", "energy_raw_kcal"]
    assert "| torsions |" in capsys.readouterr().out


def test_benchmark_counts_failures() -> None:
    mol = from_smiles(FLEXIBLE).mol
    one = molecules.Molecule("x", with_conformers(mol, embed(mol, 2, 0, Deadline(60))))
    row = benchmark.measure([one], ["etkdg"], limit_s=0.0).iloc[0]
    assert row["n_generated"] == 0 and "not done within" in row["failure"] and row["cov_recall_1.25_percent"] == 0


def test_command_writes_sdf_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    listed = tmp_path / "some.smi"
    listed.write_text("CCCCO butanol\nC1CC broken ring\nCC(F)(Cl)CO open\n")
    path = tmp_path / "out.sdf"
    options = ["--file", str(listed), "-n", "3", "-o", str(path), "--generator", "etkdg_mmff"]
    cli.main(options)
    made = list(Chem.SDMolSupplier(str(path), removeHs=False))
    assert [mol.GetProp("_Name") for mol in made] == ["butanol"] * 3
    energies = [mol.GetDoubleProp("mmff94s_kcal_per_mol") for mol in made]
    assert energies == sorted(energies)
    assert energies[0] == pytest.approx(ForceField(made[0]).energies(positions(made[0]))[0], abs=0.1)
    cli.main([*options, "--enumerate-stereo"])
    names = [mol.GetProp("_Name") for mol in Chem.SDMolSupplier(str(path))]
    assert sorted(set(names)) == ["butanol", "open.1", "open.2"] and len(names) == 9
    before = path.read_bytes()
    with pytest.raises(DataError, match="no conformers were made; C1CC: 'C1CC' is not a SMILES"):
        cli.main(["-o", str(path), "C1CC"])
    assert path.read_bytes() == before
