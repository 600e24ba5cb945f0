"""What is made with a trained conformation autoencoder: its file, conformers, the map of a molecule's latent."""

import gzip
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rdkit import Chem

from mdlatent.conformers import (
    autoencoder_file,
    curve_figure,
    fit_autoencoder,
    generators,
    latent_map,
    quality,
    scaffolds,
    sdf,
)
from mdlatent.conformers.conformations import prepare, symmetric_rmsd_angstrom, with_hydrogens
from mdlatent.conformers.decoded_conformers import Codec
from mdlatent.conformers.embedding import Deadline, embed
from mdlatent.conformers.molecules import from_smiles, positions, with_conformers
from mdlatent.errors import ConfigError, DataError

TRAINED = ("CCCCOCC", "NCCCCO", "CCOC(=O)CCC", "CC(C)CCCl", "OCCCc1ccccc1", "CCCCC1CCCC1", "CCNCc1ccco1", "CCCSCCC")
SMILES = "C[C@H](O)CC(=O)NCC(C)C"


def conformers(smiles: str, n: int, seed: int = 1) -> Chem.Mol:
    mol = from_smiles(smiles).mol
    return with_conformers(mol, embed(mol, n, seed, Deadline(60)))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training on a few molecules with eight conformers each, through the command line."""
    folder = tmp_path_factory.mktemp("fitted")
    with Chem.SDWriter(str(folder / "some.sdf")) as writer:
        for number, smiles in enumerate(TRAINED):
            mol = conformers(smiles, 8)
            mol.SetProp("_Name", f"molecule {number}")
            for conformer in mol.GetConformers():
                writer.write(mol, confId=conformer.GetId())
    (folder / "some.sdf.gz").write_bytes(gzip.compress((folder / "some.sdf").read_bytes()))
    fit_autoencoder.main(
        [str(folder / "some.sdf.gz"), "--output-dir", str(folder / "made"), "--variational", "--latent-dim", "8",
         "--epochs", "4", "--source", "RDKit"]
    )  # fmt: skip
    return folder / "made"


def test_fit_writes_model_curve_and_errors(fitted: Path) -> None:
    model, provenance = autoencoder_file.load(fitted / "model.pt")
    assert model.variational and model.latent_dim == 8 and not model.training
    assert provenance["source"] == "RDKit" and list(provenance["files"]) == ["some.sdf.gz"]
    assert len(pd.read_csv(fitted / "curve.csv")) == 4
    ElementTree.parse(fitted / "curve.svg")
    table, summary = pd.read_parquet(fitted / "errors.parquet"), json.loads((fitted / "summary.json").read_text())
    seen, unseen = table[table["part"] == "seen"], table[table["part"] == "unseen"]
    assert len(seen) and len(unseen) and len(seen) + len(unseen) == len(table)
    assert seen["pca_rmsd_angstrom"].notna().all() and unseen["pca_rmsd_angstrom"].isna().all()
    assert summary["rmsd"]["seen"]["model_mean"] == pytest.approx(seen["rmsd_angstrom"].mean())
    assert not (fitted / "checkpoints").exists()


def test_nothing_held_out_is_trained_on(fitted: Path) -> None:
    found = sdf.read_files([fitted.parent / "some.sdf.gz"])
    parts = scaffolds.split(found)
    sets = prepare(parts, seed=3)
    trained = {one.example.name: one.coordinates_angstrom for one in sets.train}
    assert len(sets.seen_test) == len(sets.seen_validation) > 0
    for held in (*sets.seen_validation, *sets.seen_test):
        apart = (trained[held.example.name] - held.coordinates_angstrom).abs().amax((1, 2))
        assert held.coordinates_angstrom.shape[0] == 1 and float(apart.min()) > 1e-3
    assert not {one.example.name for one in (*sets.unseen_validation, *sets.unseen_test)} & set(trained)


def test_file_that_is_no_model(tmp_path: Path, fitted: Path) -> None:
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(DataError, match="is no conformation autoencoder"):
        autoencoder_file.load(tmp_path / "text.pt")
    content = torch.load(fitted / "model.pt", weights_only=True)
    torch.save(content | {"version": 0}, tmp_path / "old.pt")
    with pytest.raises(DataError, match="train it again"):
        autoencoder_file.load(tmp_path / "old.pt")


def test_hydrogens_go_back_to_their_atoms() -> None:
    mol = conformers(SMILES, 3)
    mixed = Chem.RenumberAtoms(mol, np.random.default_rng(0).permutation(mol.GetNumAtoms()).tolist())
    heavy = [atom.GetIdx() for atom in mixed.GetAtoms() if atom.GetAtomicNum() > 1]
    before = positions(mixed)
    made = with_hydrogens(mixed, torch.from_numpy(before[:, heavy]))
    assert np.array_equal(made[:, heavy], before[:, heavy])
    for bond in mixed.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        length = np.linalg.norm(made[:, i] - made[:, j], axis=1)
        assert np.abs(length - np.linalg.norm(before[:, i] - before[:, j], axis=1)).max() < 0.15
    assert quality.stereo_kept(with_conformers(mixed, made)) == 100


def test_rmsd_is_least_over_symmetries() -> None:
    ring = Chem.RemoveHs(conformers("Cc1ccccc1", 1))
    x = torch.from_numpy(positions(ring))
    other = x[:, [0, 1, 6, 5, 4, 3, 2]]
    assert float((x - other).abs().max()) > 1
    assert symmetric_rmsd_angstrom(ring, x, other)[0] < 0.1


def test_vae_generates(fitted: Path) -> None:
    mol = from_smiles(SMILES).mol
    made, again = (generators.generate("vae", mol, 5, 3, autoencoder=fitted / "model.pt") for _ in range(2))
    other = generators.generate("vae", mol, 5, 4, autoencoder=fitted / "model.pt")
    assert made.GetNumConformers() == 5 and mol.GetNumConformers() == 0
    assert np.array_equal(positions(made), positions(again)) and not np.array_equal(positions(made), positions(other))
    assert np.isfinite(positions(made)).all()
    with pytest.raises(ConfigError, match="needs trained weights"):
        generators.generate("vae", mol, 5)


def test_plain_autoencoder_cannot_generate() -> None:
    from mdlatent.conformers.autoencoder import ConformationAutoencoder

    with pytest.raises(DataError, match="--variational"):
        Codec(ConformationAutoencoder(4), conformers(SMILES, 1)).generate(2, 0)


def test_a_conformer_of_the_other_hand_is_refused(fitted: Path) -> None:
    mol = conformers("C[C@H](O)[C@H](F)Cl", 1)
    codec = Codec(autoencoder_file.load(fitted / "model.pt")[0], mol)
    x = codec.reference.coordinates_angstrom
    assert codec.encode(x).shape == (1, 8)
    with pytest.raises(DataError, match="another handedness"):
        codec.encode(x * torch.tensor([1.0, 1.0, -1.0]))


def test_map_and_interpolation(fitted: Path, tmp_path: Path) -> None:
    latent_map.main(
        [str(fitted / "model.pt"), SMILES, "--output-dir", str(tmp_path), "-n", "12", "--clusters", "3", "--steps", "3"]
    )
    table = pd.read_csv(tmp_path / "latent.csv")
    assert len(table) == 12 and set(table["cluster"]) == {0, 1, 2} and table["representative"].sum() == 3
    assert (np.diff(table["cluster"].value_counts().sort_index()) <= 0).all()
    clusters = list(Chem.SDMolSupplier(str(tmp_path / "clusters.sdf"), removeHs=False))
    steps = list(Chem.SDMolSupplier(str(tmp_path / "interpolation.sdf"), removeHs=False))
    assert len(clusters) == 3 and len(steps) == 3
    assert {Chem.MolToSmiles(Chem.RemoveHs(one)) for one in clusters + steps} == {Chem.CanonSmiles(SMILES)}
    drawn = ElementTree.parse(tmp_path / "map.svg").getroot()
    assert len(drawn.findall("{*}circle")) == 12
    with pytest.raises(ConfigError, match="two numbers from 0 to 11"):
        latent_map.main(
            [str(fitted / "model.pt"), SMILES, "--output-dir", str(tmp_path), "-n", "12", "--between", "0", "12"]
        )


def test_interpolation_ends_at_the_two_reconstructions(fitted: Path) -> None:
    mol = conformers(SMILES, 1)
    Chem.AssignAtomChiralTagsFromStructure(mol)
    mol = with_conformers(mol, embed(mol, 2, 5, Deadline(60)))
    codec = Codec(autoencoder_file.load(fitted / "model.pt")[0], mol)
    x = codec.reference.coordinates_angstrom
    line = positions(codec.between(x[0], x[1], 5))
    ends = positions(codec.decode(codec.encode(x)))
    assert np.abs(line[[0, -1]] - ends).max() < 1e-4


def test_components_clusters_and_representatives() -> None:
    generator = np.random.default_rng(0)
    centres = np.array([[10.0, 0, 0], [-10.0, 0, 0], [0, 6.0, 0]])
    z = np.repeat(centres, [5, 20, 10], axis=0) + 0.1 * generator.normal(size=(35, 3))
    table = latent_map.latent_table(z, 3)
    assert table["cluster"].tolist() == [2] * 5 + [0] * 20 + [1] * 10
    assert sum(table.attrs["explained"]) > 0.99 and len(latent_map.latent_table(z[:1], 3)["cluster"].unique()) == 1
    for cluster, rows in table.groupby("cluster"):
        middle = z[rows.index].mean(0)
        chosen = rows.index[rows["representative"] == 1]
        assert len(chosen) == 1, cluster
        assert np.linalg.norm(z[chosen[0]] - middle) == np.linalg.norm(z[rows.index] - middle, axis=1).min()


def test_curve_figure_has_what_was_watched(fitted: Path, tmp_path: Path) -> None:
    rows = [{"epoch": epoch, "seen_rmsd_angstrom": 1 / epoch if epoch % 2 else ""} for epoch in range(1, 8)]
    drawn = ElementTree.fromstring(curve_figure.draw({"AE & VAE": rows}))
    lines = drawn.findall("{*}polyline")
    assert len(lines) == 2 and len(lines[0].get("points", "").split()) == 4 and not lines[1].get("points")
    curve_figure.main([f"VAE={fitted / 'curve.csv'}", "--output", str(tmp_path / "both.svg")])
    assert len(ElementTree.parse(tmp_path / "both.svg").getroot().findall("{*}polyline")) == 2
    with pytest.raises(ConfigError, match="expected NAME"):
        curve_figure.main([str(fitted / "curve.csv"), "--output", str(tmp_path / "both.svg")])
