"""The conformation autoencoder: what it must not depend on, that it learns and goes on, and its linear baseline."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from mdlatent.alignment import kabsch_rmsd_nm
from mdlatent.checkpoint import Checkpoints
from mdlatent.conformers.autoencoder import FORMS, ConformationAutoencoder, losses
from mdlatent.conformers.conformations import Conformers
from mdlatent.conformers.examples import Batch, addresses, batch_of, compact, example_of
from mdlatent.conformers.graph import N_ATOM_FEATURES, N_BOND_FEATURES, TWINS, graph_of
from mdlatent.conformers.internal import LOOSE, internal_coordinates
from mdlatent.conformers.internal_values import Values, values, wrapped
from mdlatent.conformers.pca_internal import pca_reconstruct
from mdlatent.conformers.placing import place
from mdlatent.conformers.train_autoencoder import COLUMNS, Options, rmsd_angstrom, train, twist
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
        known = model.known(batch)
        z = model.encode(batch, known, values(batch.internal, x.float()))[0]
        return z, model.decode(batch, known, z)


def disturbed(form: str) -> ConformationAutoencoder:
    """A model with weights nowhere zero, as after training."""
    torch.manual_seed(0)
    model = ConformationAutoencoder(4, form=form)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("form", FORMS)
def test_molecules_together_are_each_as_alone(data: list[Conformers], form: str) -> None:
    model = disturbed(form)
    together = batch_of([c.example for c in data])
    z, decoded = run(model, together, torch.cat([c.coordinates_angstrom for c in data], 1))
    assert z.shape == (8, len(data), 4)
    structures = place(together.internal, decoded).split(together.n_atoms, 1)
    for i, conformers in enumerate(data):
        alone = batch_of([conformers.example])
        z_alone, decoded_alone = run(model, alone, conformers.coordinates_angstrom)
        assert torch.allclose(z[:, i], z_alone[:, 0], atol=1e-5)
        assert torch.allclose(structures[i], place(alone.internal, decoded_alone), atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_latent_does_not_feel_where_a_conformer_stands(data: list[Conformers], form: str) -> None:
    model, batch, x = disturbed(form), batch_of([data[0].example]), data[0].coordinates_angstrom
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[0]
    turn = turn * torch.linalg.det(turn)
    assert torch.allclose(run(model, batch, x)[0], run(model, batch, x @ turn + 5.0)[0], atol=1e-5)
    mirrored = run(model, batch, x * torch.tensor([1.0, 1.0, -1.0]))[0]
    assert not torch.allclose(run(model, batch, x)[0], mirrored, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_a_tuple_read_backwards_is_the_same(data: list[Conformers], form: str) -> None:
    model = disturbed(form)
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


def test_cis_and_trans_are_told_to_the_nets() -> None:
    said = []
    for smiles in ("CC/C(C)=C/CO", "CC/C(C)=C\\CO"):
        example = conformers_of(smiles, 3).example
        middle = example.internal.dihedrals[:, 1:3].sort(1).values.tolist()
        said.append([int(o) for o, axis in zip(example.orientation, middle, strict=True) if axis == [2, 4] and o])
    assert len(said[0]) == 1 and said[0] == [-said[1][0]]


def test_features_tell_atoms_and_bonds_apart() -> None:
    graph = graph_of(Chem.MolFromSmiles("C1CCCCC1"))
    assert graph.atoms.shape == (6, N_ATOM_FEATURES) and graph.bonds.shape == (12, N_BOND_FEATURES)
    assert len(graph.atoms[:, :-TWINS].unique(dim=0)) == 1 and len(graph.atoms.unique(dim=0)) == TWINS
    trans, cis = (graph_of(Chem.MolFromSmiles(smiles)).bonds for smiles in ("C/C=C/C", "C/C=C\\C"))
    assert not torch.equal(trans, cis)


def test_bonds_that_turn_have_numbers_of_their_own() -> None:
    molecule = Chem.MolFromSmiles("CCOC(=O)c1ccccc1C1CCCCC1")
    internal = compact(internal_coordinates(molecule), molecule)
    address, free = addresses(internal, molecule)
    bond_of = {}
    for row, number, can in zip(internal.dihedrals.tolist(), address.tolist(), free.tolist(), strict=True):
        bond = molecule.GetBondBetweenAtoms(row[1], row[2])
        turns = bond is not None and bond.GetBondType() == Chem.BondType.SINGLE
        if number:
            assert turns and bond_of.setdefault(number, bond.GetIdx()) == bond.GetIdx()
            assert can != bond.IsInRing()
        else:
            assert not can
    assert sorted(bond_of) == list(range(1, 11))  # four outside rings, six in the cyclohexane
    assert len(set(bond_of.values())) == 10
    assert not any(molecule.GetBondWithIdx(bond_of[number]).IsInRing() for number in range(1, 5))
    sides = molecule.GetBondWithIdx(bond_of[1])
    assert {sides.GetBeginAtom().GetIsAromatic(), sides.GetEndAtom().GetIsAromatic()} == {False, True}


def test_twisting_turns_free_bonds_alone(data: list[Conformers]) -> None:
    one = data[3]
    batch, x = (
        batch_of([one.example, data[1].example]),
        torch.cat([one.coordinates_angstrom, data[1].coordinates_angstrom], 1),
    )
    found = values(batch.internal, x)
    draw = torch.Generator().manual_seed(0)
    assert torch.equal(twist(batch, found, 0.0, draw).dihedrals, wrapped(found.dihedrals))
    turned = twist(batch, found, 1.0, draw)
    change = wrapped(turned.dihedrals - found.dihedrals).abs().amax(0)
    assert (change[batch.free] > 0.1).all() and float(change[~batch.free].max()) < 1e-9
    after = values(batch.internal, place(batch.internal, turned))  # the molecule is still whole, its rings closed
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(after[:2], found[:2], strict=True))


def test_linked_form_passes_the_first_torsions_before_it_has_learned(data: list[Conformers]) -> None:
    torch.manual_seed(0)
    batch, x = batch_of([data[3].example]), data[3].coordinates_angstrom
    found = values(batch.internal, x.float())
    known = (batch.address > 0) & (batch.address <= 2)
    for variational in (False, True):
        with torch.no_grad():
            decoded, _ = ConformationAutoencoder(2, variational)(batch, found)
        error = wrapped(decoded.dihedrals - found.dihedrals).abs().amax(0)
        assert known.sum() == 2 and float(error[known].max()) < 1e-5 and float(error[~known].max()) > 0.1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("variational", [False, True])
def test_learns_the_same_from_the_same_seed(
    data: list[Conformers], tmp_path: Path, variational: bool, form: str
) -> None:
    held = [replace(c, coordinates_angstrom=c.coordinates_angstrom[6:]) for c in data]
    trained = [replace(c, coordinates_angstrom=c.coordinates_angstrom[:6]) for c in data]
    options = Options(
        epochs=30, watch_every=30, n_conformers=4, learning_rate=1e-3, beta=1e-4, weights=(1.0, 1.0, 1.0), twisted=0.2
    )
    weights, curves = [], []
    for _ in range(2):
        torch.manual_seed(0)
        model = ConformationAutoencoder(8, variational, form, width=48, n_node=32)
        untrained = rmsd_angstrom(model, trained).mean()
        curves.append(train(model, trained, held, held[:1], options, seed=0, curve=tmp_path / "curve.csv"))
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)
    first, last = curves[0][0], curves[0][-1]
    assert float(last["dihedrals"]) < 0.6 * float(first["dihedrals"])
    assert rmsd_angstrom(model, trained).mean() < 0.8 * untrained
    assert (float(last["kl_nats"]) > 0.3) == variational
    with (tmp_path / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 30
    assert rows[0]["seen_rmsd_angstrom"] == "" and float(rows[-1]["unseen_rmsd_angstrom"]) > 0
    closed = rmsd_angstrom(model, trained, close_rings=True)
    assert closed.shape == (24,) and np.isfinite(closed).all()


def test_a_training_that_was_stopped_goes_on_bit_for_bit(data: list[Conformers], tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    class Stopping(Checkpoints):
        def save(self, state: dict) -> Path:
            path = super().save(state)
            if state["epoch"] == 3:
                raise StoppedError
            return path

    options, weights = Options(epochs=6, watch_every=2, twisted=0.5), []
    for folder in (None, tmp_path / "checkpoints"):
        for kind in (Stopping, Checkpoints) if folder else (Checkpoints,):
            torch.manual_seed(0)
            model = ConformationAutoencoder(4, variational=True, width=16, n_node=16)
            kept = kind(folder, "0" * 16) if folder else None
            if kind is Stopping:
                with pytest.raises(StoppedError):
                    train(model, data, data, [], options, seed=1, checkpoints=kept)
            else:
                rows = train(model, data, data, [], options, seed=1, checkpoints=kept)
        weights.append((torch.cat([p.detach().flatten() for p in model.parameters()]), [row["loss"] for row in rows]))
    assert torch.equal(weights[0][0], weights[1][0]) and weights[0][1] == weights[1][1]


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
