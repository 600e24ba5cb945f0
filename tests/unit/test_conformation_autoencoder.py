"""The conformation autoencoder: what it must not depend on, that it learns, and its linear baseline."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from mdlatent.alignment import kabsch_rmsd_nm
from mdlatent.conformers.autoencoder import ConformationAutoencoder, losses
from mdlatent.conformers.conformations import Conformers
from mdlatent.conformers.examples import Batch, batch_of, compact, example_of
from mdlatent.conformers.graph import N_ATOM_FEATURES, N_BOND_FEATURES, TWINS, graph_of
from mdlatent.conformers.internal import LOOSE, internal_coordinates
from mdlatent.conformers.internal_values import Values, values
from mdlatent.conformers.pca_internal import pca_reconstruct
from mdlatent.conformers.placing import place
from mdlatent.conformers.train_autoencoder import COLUMNS, Options, rmsd_angstrom, train
from mdlatent.errors import DataError

SMILES = ("CCC(C)CO", "C1CCCCC1N", "OCC#CC(F)Cl", "O=S(=O)(c1ccccc1)CC")


def conformers_of(smiles: str, n: int = 8) -> Conformers:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert len(rdDistGeom.EmbedMultipleConfs(molecule, 1, randomSeed=1)) == 1
    Chem.AssignAtomChiralTagsFromStructure(molecule)  # equal neighbours are listed the same way round in all
    assert len(rdDistGeom.EmbedMultipleConfs(molecule, n, randomSeed=7)) == n
    molecule = Chem.RemoveHs(molecule)
    x = torch.tensor(np.stack([c.GetPositions() for c in molecule.GetConformers()]))
    molecule.RemoveAllConformers()
    return Conformers(example_of(molecule, x[0]), x, molecule)


@pytest.fixture(scope="module")
def data() -> list[Conformers]:
    return [conformers_of(smiles) for smiles in SMILES]


def run(model: ConformationAutoencoder, batch: Batch, x: torch.Tensor) -> tuple[torch.Tensor, Values]:
    """Latents and decoded values."""
    model.eval()
    with torch.no_grad():
        h = model.nodes(batch)
        z = model.encode(batch, h, values(batch.internal, x.float()))[0]
        return z, model.decode(batch, h, z)


def test_molecules_together_are_each_as_alone(data: list[Conformers]) -> None:
    torch.manual_seed(0)
    model = ConformationAutoencoder(4)
    together = batch_of([c.example for c in data])
    z, decoded = run(model, together, torch.cat([c.coordinates_angstrom for c in data], 1))
    assert z.shape == (8, len(data), 4)
    structures = place(together.internal, decoded).split(together.n_atoms, 1)
    for i, conformers in enumerate(data):
        alone = batch_of([conformers.example])
        z_alone, decoded_alone = run(model, alone, conformers.coordinates_angstrom)
        assert torch.allclose(z[:, i], z_alone[:, 0], atol=1e-5)
        assert torch.allclose(structures[i], place(alone.internal, decoded_alone), atol=1e-3)


def test_latent_does_not_feel_where_a_conformer_stands(data: list[Conformers]) -> None:
    torch.manual_seed(0)
    model, batch, x = ConformationAutoencoder(4), batch_of([data[0].example]), data[0].coordinates_angstrom
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[0]
    turn = turn * torch.linalg.det(turn)
    assert torch.allclose(run(model, batch, x)[0], run(model, batch, x @ turn + 5.0)[0], atol=1e-5)
    mirrored = run(model, batch, x * torch.tensor([1.0, 1.0, -1.0]))[0]
    assert not torch.allclose(run(model, batch, x)[0], mirrored, atol=1e-4)


def test_a_tuple_read_backwards_is_the_same(data: list[Conformers]) -> None:
    torch.manual_seed(0)
    model = ConformationAutoencoder(4)
    batch, x = batch_of([data[3].example]), data[3].coordinates_angstrom
    internal = batch.internal
    flipped = replace(
        internal, bonds=internal.bonds.flip(1), angles=internal.angles.flip(1), dihedrals=internal.dihedrals.flip(1)
    )
    here, there = run(model, batch, x), run(model, replace(batch, internal=flipped), x)
    assert torch.allclose(here[0], there[0], atol=1e-6)
    for one, other in zip(here[1], there[1], strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_compact_list_builds_the_same_structures(data: list[Conformers]) -> None:
    for conformers in data:
        internal, x = conformers.example.internal, conformers.coordinates_angstrom
        assert float(kabsch_rmsd_nm(place(internal, values(internal, x)), x).max()) < 1e-8
    molecule = Chem.MolFromSmiles("CC(C)(C)C1CCCCC1")
    full = internal_coordinates(molecule)
    small = compact(full, molecule)
    rows = [tuple(row) for row in small.dihedrals.tolist()]
    assert set(rows) < {tuple(row) for row in full.dihedrals.tolist()}
    ring = set(Chem.GetSymmSSSR(molecule)[0])
    assert sum(ring.issuperset(row) for row in rows) >= 6


def test_handedness_is_that_of_the_reference(data: list[Conformers]) -> None:
    example, x = data[2].example, data[2].coordinates_angstrom  # one stereocentre: C(F)(Cl)C
    assert int((example.orientation != 0).sum()) == 1
    molecule = Chem.AddHs(Chem.MolFromSmiles(SMILES[2]))
    heavy = Chem.RemoveHs(molecule)
    mirrored = example_of(heavy, x[0] * torch.tensor([1.0, 1.0, -1.0]))
    assert torch.equal(mirrored.orientation, -example.orientation)
    radical = Chem.MolFromSmiles("C[C](C)C")  # its centre has no double bond, yet it may be flat
    star = torch.tensor([[1.5, 0.0, 0.0], [0.0, 0.0, 0.0], [-0.75, 1.3, 0.01], [-0.75, -1.3, 0.0]])
    assert radical.GetAtomWithIdx(1).GetHybridization() == Chem.HybridizationType.SP3
    assert not example_of(radical, star).orientation.any()
    assert example_of(radical, star + torch.tensor([[0.0, 0, 0], [0, 0, 0.5], [0, 0, 0], [0, 0, 0]])).orientation.any()


def test_features_tell_atoms_and_bonds_apart() -> None:
    graph = graph_of(Chem.MolFromSmiles("C1CCCCC1"))
    assert graph.atoms.shape == (6, N_ATOM_FEATURES) and graph.bonds.shape == (12, N_BOND_FEATURES)
    assert len(graph.atoms[:, :-TWINS].unique(dim=0)) == 1 and len(graph.atoms.unique(dim=0)) == TWINS
    trans, cis = (graph_of(Chem.MolFromSmiles(smiles)).bonds for smiles in ("C/C=C/C", "C/C=C\\C"))
    assert not torch.equal(trans, cis)


@pytest.mark.parametrize("variational", [False, True])
def test_learns_the_same_from_the_same_seed(data: list[Conformers], tmp_path: Path, variational: bool) -> None:
    held = [replace(c, coordinates_angstrom=c.coordinates_angstrom[6:]) for c in data]
    trained = [replace(c, coordinates_angstrom=c.coordinates_angstrom[:6]) for c in data]
    options = Options(epochs=30, watch_every=30, n_conformers=8, learning_rate=1e-3, beta=1e-4, weights=(1.0, 1.0, 1.0))
    weights, curves = [], []
    for _ in range(2):
        torch.manual_seed(0)
        model = ConformationAutoencoder(8, variational, width=48, n_node=32)
        untrained = rmsd_angstrom(model, trained).mean()
        curves.append(train(model, trained, held, held[:1], options, seed=0, curve=tmp_path / "curve.csv"))
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)
    first, last = curves[0][0], curves[0][-1]
    assert float(last["dihedrals"]) < 0.3 * float(first["dihedrals"])
    assert rmsd_angstrom(model, trained).mean() < 0.75 * untrained
    assert (float(last["kl_nats"]) > 1.0) == variational
    with (tmp_path / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 30
    assert rows[0]["seen_rmsd_angstrom"] == "" and float(rows[-1]["unseen_rmsd_angstrom"]) > 0
    closed = rmsd_angstrom(model, trained, close_rings=True)
    assert closed.shape == (24,) and np.isfinite(closed).all()


def test_dihedral_error_goes_the_short_way_round(data: list[Conformers]) -> None:
    batch = batch_of([data[2].example])
    found = values(batch.internal, data[2].coordinates_angstrom)
    turned = found._replace(dihedrals=found.dihedrals + 2 * torch.pi - 0.1)
    loose = (batch.internal.kinds == LOOSE)[None]
    assert loose.any()
    assert float(losses(batch, turned, found).dihedrals) == pytest.approx(0.01)
    assert float(losses(batch, found._replace(dihedrals=found.dihedrals + loose), found).dihedrals) == 0.0


def test_linear_baseline(data: list[Conformers]) -> None:
    internal, x = data[0].example.internal, data[0].coordinates_angstrom
    errors = [
        float(kabsch_rmsd_nm(place(internal, pca_reconstruct(internal, x, x, n)), x).mean()) for n in (0, 2, 7, 50)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6 and errors[3] == errors[2]


def test_nothing_to_train_on() -> None:
    with pytest.raises(DataError, match="no molecule to train on"):
        train(ConformationAutoencoder(4), [], [], [], Options(), seed=0)
