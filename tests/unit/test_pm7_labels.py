"""Labels of PM7, and the command that learns a force field from them."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from conformer_files import block, conformers
from mdlatent.conformers import field_labels, fit_field, molecules, pm7, train_field
from mdlatent.conformers.embedding import Deadline, embed
from mdlatent.conformers.field_geometries import LATER, Counts
from mdlatent.conformers.field_net import FieldNet
from mdlatent.conformers.generators import shipped_field
from mdlatent.conformers.learned_field import LearnedField
from mdlatent.conformers.mmff_relax import SideBySide
from mdlatent.conformers.molecules import Molecule, MoleculeError, from_smiles
from mdlatent.errors import ConfigError
from support import missing

NAMES = ("CCCO", "c1ccccc1CCO", "C1CCCC1CO", "c1ccncc1CCN", "CCCC(=O)NC", "C1CCOC1", "CCOC", "CCNCC")
FEW = Counts(rough=2, halfway=2, lowest=3, others=2)


@pytest.fixture(autouse=True)
def mopac() -> None:
    if importlib.util.find_spec("mopactools") is None:
        missing("mopactools is not installed (pip install mopactools)")


@pytest.mark.parametrize("smiles", ["OCCN", "CC(=O)[O-]", "C[NH2+]CCl", "CS(=O)(=O)CBr"])
def test_slopes_are_those_of_the_energies(smiles: str) -> None:
    mol = from_smiles(smiles).mol
    x = embed(mol, 1, 0, Deadline(60))
    along = np.random.default_rng(0).normal(size=x.shape)
    middle, ahead, behind = pm7.label(mol, np.concatenate([x, x + 1e-3 * along, x - 1e-3 * along])).energies
    slopes = pm7.label(mol, x).slopes
    assert slopes.shape == x.shape and ahead != behind
    assert (ahead - behind) / 2e-3 == pytest.approx((slopes * along).sum(), rel=3e-3, abs=0.1)
    assert abs(middle - (ahead + behind) / 2) < 0.1


def test_energies_are_heats_of_formation_whichever_way_a_molecule_lies() -> None:
    mol = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    x = embed(mol, 2, 0, Deadline(60))
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    found, turned = pm7.label(mol, x), pm7.label(mol, x @ turn + 5)
    assert turned.energies == pytest.approx(found.energies, abs=1e-3)
    assert turned.slopes == pytest.approx(found.slopes @ turn, abs=0.1)
    assert found.energies == pytest.approx(-56.2, abs=6)  # measured: −56.2 kcal/mol; ETKDG's geometry is not a minimum


@pytest.mark.parametrize(("smiles", "charge"), [("CNC", 0), ("[NH3+]CC[NH3+]", 2)])
def test_a_minimum_tells_the_charge_that_a_broken_graph_does_not(smiles: str, charge: int) -> None:
    mol = from_smiles(smiles).mol
    x = embed(mol, 1, 0, Deadline(60))
    for _ in range(40):
        x = x - 0.001 * pm7.label(mol, x).slopes
    mol.GetAtomWithIdx(1).SetFormalCharge(2 - charge)  # the graph says 2 in both cases
    assert Chem.GetFormalCharge(mol) == 2
    assert pm7.likely_charge(mol, x[0]) == charge
    assert pm7.label(mol, x, charge=charge).energies[0] < pm7.label(mol, x, charge=charge + 2).energies[0]
    if charge == 0:
        mol.GetAtomWithIdx(1).SetFormalCharge(1)
        assert pm7.likely_charge(mol, x[0]) == 0  # with one charge the electrons are odd


def test_what_cannot_be_computed_is_left_out_and_disturbs_no_other() -> None:
    mol = from_smiles("CCCO").mol
    x = embed(mol, 4, 0, Deadline(60))
    alone = [pm7.label(mol, x[[one]]) for one in (0, 3)]
    x[1, 4] = x[1, 5]
    x[2, 0] = np.nan
    found = pm7.label(mol, x)
    np.testing.assert_array_equal(found.coordinates, x[[0, 3]])
    for index, one in enumerate(alone):
        assert found.energies[index] == one.energies[0]
        np.testing.assert_array_equal(found.slopes[index], one.slopes[0])
    empty = pm7.label(mol, x[:0])
    assert empty.energies.shape == (0,) and empty.slopes.shape == (0, *x.shape[1:])


def test_elements_radicals_and_time_are_named() -> None:
    boron = Chem.AddHs(Chem.MolFromSmiles("CB(C)[Se]C"))
    with pytest.raises(MoleculeError, match=r"got B, Se in .*, expected no element but H, C, N, O, F, Si, P, S"):
        pm7.label(boron, np.zeros((1, boron.GetNumAtoms(), 3)))
    radical = Chem.AddHs(Chem.MolFromSmiles("CC[CH2]"))
    with pytest.raises(MoleculeError, match="odd number of electrons"):
        pm7.label(radical, np.zeros((1, radical.GetNumAtoms(), 3)))
    mol = from_smiles("CCCO").mol
    with pytest.raises(MoleculeError, match="not done within 0 s"):
        pm7.label(mol, embed(mol, 1, 0, Deadline(60)), Deadline(0))


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mopactools", None)
    with pytest.raises(ConfigError, match=r"pip install 'mdlatent\[label\]'"):
        train_field.main([str(references(tmp_path)), "--output", str(tmp_path / "field.npz")])


def test_how_far_references_move_is_seen() -> None:
    """References that are minima of a field stay where they are in it, and move in another."""
    field, mol = LearnedField(FieldNet(8, 1).weights(), {}), from_smiles("CC(=O)NCCO").mol
    other = LearnedField({**field.weights, "scales": np.array([1, 1, 0, 0], np.float32)}, {})
    ends, _ = field.relaxer(mol).relax(embed(mol, 3, 0, Deadline(60)), 1000)
    some = [Molecule("a", molecules.with_conformers(mol, ends))]
    assert train_field._moved(field.relaxer, some) < 0.05 < train_field._moved(other.relaxer, some)


def molecule(smiles: str) -> Molecule:
    return Molecule(smiles, conformers(smiles, 3))


def test_labels_are_kept_and_do_not_depend_on_processes(tmp_path: Path) -> None:
    some = [molecule("CCCO"), molecule("CC(=O)NC"), Molecule("boron", Chem.AddHs(Chem.MolFromSmiles("CB(C)C")))]
    tasks = [field_labels.Task(FEW, 2, None, tmp_path / name, 0, 60.0) for name in "ab"]
    found = [field_labels.label_all(some, task, processes) for task, processes in zip(tasks, (1, 2), strict=True)]
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            for part, its in zip(one, other, strict=True):
                np.testing.assert_array_equal(part, its)
    assert found[0][0] is not None and found[0][2] is None
    references = molecules.positions(some[0].mol)[:2].astype(np.float32)
    np.testing.assert_array_equal(found[0][0].coordinates[:2], references)
    paths = sorted((tmp_path / "a").iterdir())
    assert len(paths) == 2
    for path in paths:
        os.utime(path, (0, 0))
    field_labels.label_all(some, tasks[0])
    assert [path.stat().st_mtime for path in sorted((tmp_path / "a").iterdir())] == [0, 0]
    for other in ({"seed": 1}, {"references": 1}, {"counts": LATER}):
        before = len(list((tmp_path / "a").iterdir()))
        field_labels.label_all(some[:1], field_labels.Task(**{**vars(tasks[0]), **other}))
        assert len(list((tmp_path / "a").iterdir())) == before + 1


def test_a_limit_of_time_names_the_molecule(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = field_labels.Task(FEW, 2, None, tmp_path, 0, 0.0)
    assert field_labels.label_all([molecule("CCCO")], task) == [None]
    assert "left out CCCO: not done within 0 s" in caplog.text


def references(folder: Path) -> Path:
    path = folder / "references.sdf"
    path.write_text("".join(block(conformers(smiles, 2), smiles) for smiles in NAMES))
    return path


def test_training_goes_on_from_its_labels_and_repeats(tmp_path: Path) -> None:
    path, more = references(tmp_path), tmp_path / "more.sdf"
    more.write_text("".join(block(conformers(one, 1), one) for one in ("CCCCl", "CCCO", "CCSCC", "CC(C)=O")))
    options = ["--rounds", "2", "--epochs", "24", "--width", "12", "--layers", "1", "--max-atoms", "20"]
    options += ["--fractions", "0.6", "0.2", "0.2", "--labels", str(tmp_path / "labels"), "--source", "made here"]
    outputs = [tmp_path / name for name in ("a.npz", "b.npz")]
    for output in outputs:
        train_field.main([str(path), "--more", str(more), "--output", str(output), *options])
        labels = sorted((tmp_path / "labels").iterdir())
        labels[0].unlink()  # as if the run had been stopped
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    field = LearnedField.load(outputs[0])
    known = field.provenance
    assert known["source"] == "made here" and set(known["files"]) == {"references.sdf", "more.sdf"}
    assert 5 <= known["n_molecules"] <= 8 and known["n_geometries"] > 100 and known["rounds"] == 2
    mmff, learned = known["validation"]["MMFF94s"], known["validation"]["learned field"]
    assert all(learned[name] < mmff[name] for name in ("energy_kcal", "slope_kcal_per_angstrom"))
    assert 0 < mmff["moved_angstrom"] < 1.5 and 0 < learned["moved_angstrom"] < 1.5
    rounds = [path for path in labels if path.name.startswith("round-")]
    assert len(rounds) == 2
    times = [path.stat().st_mtime_ns for path in rounds]
    train_field.main([str(path), "--more", str(more), "--output", str(outputs[1]), *options])
    assert [path.stat().st_mtime_ns for path in rounds] == times  # not fitted anew, …
    assert outputs[0].read_bytes() == outputs[1].read_bytes()  # … and the same comes out
    for bad in ("--rounds", "--processes"):
        with pytest.raises(ConfigError, match=f"{bad}: got 0, expected at least 1"):
            train_field.main([str(path), "--output", str(outputs[0]), bad, "0"])


def test_folds_leave_out_molecules_and_all_that_is_like_them(tmp_path: Path) -> None:
    path, more, output = references(tmp_path), tmp_path / "more.sdf", tmp_path / "field.npz"
    more.write_text("".join(block(conformers(one, 1), one) for one in ("CCCCl", "CCc1ccncc1", "C1CCOC1C", "CC1CC1")))
    options = ["--rounds", "2", "--epochs", "1", "--later-epochs", "1", "--width", "8", "--layers", "1"]
    options += ["--more", str(more), "--fractions", "1", "0", "0", "--folds", "2", "--output", str(output)]
    train_field.main([str(path), *options])
    fields = [LearnedField.load(tmp_path / f"field-fold{number}.npz") for number in (1, 2)]
    left_out = [one.provenance["left_out"] for one in fields]
    assert sorted(left_out[0] + left_out[1]) == sorted(molecule(one).key for one in NAMES)
    assert len({one.digest for one in (*fields, LearnedField.load(output))}) == 3
    with pytest.raises(ConfigError, match="--folds: got 1"):
        train_field.main([str(path), "--output", "x", "--folds", "1"])
    own, added = ([molecule(one) for one in some] for some in (NAMES, ("CCCCl", "CCc1ccncc1", "C1CCOC1C", "CC1CC1")))
    for number in (1, 2):
        stays, out = train_field._fold(own, added, number, 2, 0)
        scaffolds = {one.scaffold for one in own if one.key in out}
        kept = [(own + added)[index] for index in stays]
        assert kept == [one for one in own + added if one.scaffold not in scaffolds]
        assert len(kept) < len(own + added) - len(out)  # further ones go too


@pytest.mark.parametrize("smiles", ["OCCC(=O)Nc1ccccc1Cl", "C[C@H](N)C(=O)N1CCC[C@H]1CO", "CC(C)S(=O)(=O)NCCOC"])
def test_shipped_field_is_nearer_to_pm7_than_mmff(smiles: str) -> None:
    """Energies and slopes of conformers that MMFF94s has relaxed a little."""
    mol = from_smiles(smiles).mol
    x = embed(mol, 20, 0, Deadline(60))
    mmff = SideBySide.mmff(mol)
    found = pm7.label(mol, mmff.relax(x, 40)[0])
    example = fit_field.example(smiles, mol, [found])
    assert example is not None
    before = fit_field.errors(lambda graph: graph.terms, [example])
    after = fit_field.errors(fit_field.net_of(shipped_field().weights, fit_field.Options()), [example])
    assert after.energy_kcal < 0.6 * before.energy_kcal
    assert after.slope_kcal_per_angstrom < 0.6 * before.slope_kcal_per_angstrom
