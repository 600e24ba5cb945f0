from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from mdlatent.conformers import generate as command
from mdlatent.conformers import pool, quality, ranker, train_ranker
from mdlatent.conformers.embedding import Deadline, ForceField, embed
from mdlatent.conformers.generators import generate, shipped_ranker
from mdlatent.conformers.learned_field import LearnedField
from mdlatent.conformers.molecules import MoleculeError, from_smiles, with_conformers
from mdlatent.conformers.ranker import FEATURES, Example, Ranker
from mdlatent.errors import DataError


def line(seed: int, n: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Structures on a line, as energies of wells and own, and distances; true ones are the three least strained."""
    rng = np.random.default_rng(seed)
    points, well = rng.uniform(0, 20, n), rng.uniform(0, 5, n)
    own = well + rng.uniform(0, 4, n)
    return well, own, np.abs(points[:, None] - points)


def examples(n: int, first: int = 0) -> list[Example]:
    made = []
    for seed in range(first, first + n):
        well, own, rmsd = line(seed)
        made.append(Example(ranker.features(well, own, rmsd, 20), rmsd[:, np.argsort(own - well)[:3]]))
    return made


def test_fit_finds_what_makes_references_likely() -> None:
    weights, likelihood = ranker.fit(examples(25), 1.0)
    other = examples(10, 100)
    flat = np.mean([ranker.log_likelihood(np.zeros(len(FEATURES)), one)[0] for one in other])
    learned = np.mean([ranker.log_likelihood(weights, one)[0] for one in other])
    assert learned > flat + 0.5 and likelihood > flat
    well, own, rmsd = line(200)
    energies = Ranker(weights, {}).energies(ranker.features(well, own, rmsd, 20))
    assert energies.min() == 0 and set(np.argsort(energies)[:2]) <= set(np.argsort(own - well)[:6])


def test_slope_is_that_of_the_likelihood() -> None:
    one, rng = examples(1)[0], np.random.default_rng(0)
    weights, along = rng.normal(0, 0.3, (2, len(FEATURES)))
    ahead, behind = (ranker.log_likelihood(weights + step * along, one)[0] for step in (1e-5, -1e-5))
    assert (ahead - behind) / 2e-5 == pytest.approx(ranker.log_likelihood(weights, one)[1] @ along, rel=1e-5)


def test_features_do_not_know_the_order_nor_the_zero_of_energy() -> None:
    well, own, rmsd = line(1)
    before = ranker.features(well, own, rmsd, 20)
    order = np.random.default_rng(0).permutation(len(well))
    after = ranker.features(well[order] + 70, own[order] + 70, rmsd[np.ix_(order, order)], 20)
    assert before.shape == (30, len(FEATURES)) and after == pytest.approx(before[order], abs=1e-9)


def test_file_round_trip_and_refusals(tmp_path: Path) -> None:
    first = Ranker(np.arange(len(FEATURES), dtype=float), {"source": "x"})
    first.save(tmp_path / "a.npz")
    again = Ranker.load(tmp_path / "a.npz")
    assert np.array_equal(first.weights, again.weights) and again.provenance == {"source": "x"}
    np.savez(tmp_path / "b.npz", weights=first.weights[:3], names=np.array(FEATURES[:3]), provenance=np.array("{}"))
    with pytest.raises(DataError, match="another version"):
        Ranker.load(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_text("no")
    with pytest.raises(DataError, match="got no ranker"):
        Ranker.load(tmp_path / "c.npz")
    with pytest.raises(DataError, match="no pool"):
        ranker.fit([], 1.0)


def test_shipped_ranker_says_where_it_comes_from() -> None:
    assert {"source", "files", "molecules_sha256", "n_molecules", "rdkit"} <= set(shipped_ranker().provenance)


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [("CCCC(=O)NC", True), (r"C/C=C/CO", True), ("C[C@H](F)CC", False), ("C[C@H](O)[C@@H](C)O", False)],
)
def test_mirror_images_join_the_pool_where_they_are_the_same_molecule(smiles: str, expected: bool) -> None:
    mol = from_smiles(smiles).mol
    assert pool.has_mirror(mol) is expected
    made = pool.build(mol, 4, 0, pool.Options(torsions="uniform"), None, Deadline(60))
    assert quality.stereo_kept(with_conformers(mol, made.coordinates)) == 100
    half = len(made.coordinates) // 2
    mirrored = np.array_equal(made.coordinates[:half] * [-1, 1, 1], made.coordinates[half:])
    assert mirrored is expected
    if expected:
        assert ForceField(mol, pool.JUDGE).energies(made.coordinates) == pytest.approx(made.own_kcal, abs=1e-3)


def test_each_well_comes_with_its_lowest_and_with_less_relaxed_members() -> None:
    mol = from_smiles("CC(C)Nc1ccc(CCO)cc1").mol
    options = pool.Options(torsions="uniform", mirror=False)
    made = pool.build(mol, 6, 0, options, None, Deadline(60))
    assert ForceField(mol, "MMFF94").energies(made.coordinates) == pytest.approx(made.own_kcal, abs=3e-3)
    lowest = np.flatnonzero(made.own_kcal == made.well_kcal)
    assert (np.diff(made.well_kcal[lowest]) >= 0).all() and set(made.well_kcal[lowest]) == set(made.well_kcal)
    others = np.setdiff1d(np.arange(len(made.own_kcal)), lowest)
    assert (made.own_kcal[others] <= made.own_kcal.min() + options.strain_kcal).all()
    assert len(others) > len(lowest) > 10
    apart = made.rmsd_angstrom[np.ix_(lowest, lowest)] + np.eye(len(lowest))
    deep = made.well_kcal[lowest]
    near = apart < options.same_angstrom
    assert (np.abs(deep[:, None] - deep)[near] >= options.same_kcal).all()


@pytest.mark.parametrize("smiles", ["Cc1ccccc1", "CCCO", "OCCOCCOCCO"])
@pytest.mark.parametrize("torsions", ["uniform", "etkdg"])
def test_there_are_always_as_many_as_asked_for(smiles: str, torsions: str) -> None:
    mol = from_smiles(smiles).mol
    for n in (1, 30):
        options = pool.Options(torsions=torsions, most=4)
        made = pool.build(mol, n, 0, options, None, Deadline(60))
        assert len(made.coordinates) >= n
        assert len(set(pool.choose(mol, made, n, options).tolist())) == n


def test_an_unstated_stereocentre_has_no_mirror() -> None:
    assert not pool.has_mirror(Chem.AddHs(Chem.MolFromSmiles("CC(F)CO")))


def test_ranker_decides() -> None:
    mol = from_smiles("CCCC(=O)NCCO").mol
    rankers = [Ranker(np.eye(len(FEATURES))[0] * by, {}) for by in (-30.0, 30.0)]
    deep, shallow = (generate("torsions", mol, 1, 0, ranker=one) for one in rankers)
    field = ForceField(mol)
    energies = [field.energies(np.array([made.GetConformer().GetPositions()]))[0] for made in (deep, shallow)]
    assert energies[0] < energies[1] - 0.5


def test_a_ranker_of_ones_own_is_taken_by_the_command(tmp_path: Path) -> None:
    made = []
    for by in (-30.0, 30.0):
        weights, output = tmp_path / f"{by}.npz", tmp_path / f"{by}.sdf"
        Ranker(np.eye(len(FEATURES))[0] * by, {}).save(weights)
        command.main(["CCCC(=O)NCCO", "-n", "1", "-o", str(output), "--ranker", str(weights)])
        made.append(next(iter(Chem.SDMolSupplier(str(output)))).GetDoubleProp("mmff94s_kcal_per_mol"))
    assert made[0] < made[1] - 0.5


def test_training_reads_writes_and_leaves_other_scaffolds_out(tmp_path: Path) -> None:
    path = tmp_path / "references.sdf"
    blocks = []
    for smiles in ("CCCO", "c1ccccc1CCO", "C1CCCC1CO", "c1ccncc1CCN", "CCCC(=O)NC", "C1CCOC1CO"):
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        mol = with_conformers(mol, embed(mol, 2, 0, Deadline(60))[:2])
        mol.SetProp("_Name", smiles)
        blocks += [Chem.MolToMolBlock(mol, confId=one) + "$$$$\n" for one in range(2)]
    path.write_text("".join(blocks))
    outputs = [tmp_path / name for name in ("a.npz", "b.npz")]
    for output in outputs:
        train_ranker.main(
            [str(path), "--output", str(output), "--source", "made here", "--fractions", "0.5", "0", "0.5"]
        )
    learned = Ranker.load(outputs[0])
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert learned.provenance["source"] == "made here" and 1 <= learned.provenance["n_molecules"] <= 4
    assert np.isfinite(learned.weights).all() and np.abs(learned.weights).max() > 0


def test_pools_are_made_with_a_field_that_has_not_seen_the_molecule() -> None:
    first, second = from_smiles("CCCO"), from_smiles("c1ccccc1CCO")
    fields = [LearnedField({}, {"left_out": [one.key]}) for one in (first, second)]
    assert train_ranker.unseen(first, []) is None
    assert train_ranker.unseen(first, fields[1:]) is fields[1]  # one alone is taken as it is
    assert [train_ranker.unseen(one, fields) for one in (first, second)] == fields
    with pytest.raises(MoleculeError, match=r"no field that left out CCCC among 2.*--folds 2"):
        train_ranker.unseen(from_smiles("CCCC"), fields)
