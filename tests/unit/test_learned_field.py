"""The force field on the graph: energies, symmetries and bounds, numpy beside torch, its file, and its training."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem

from mdlatent.conformers import field_rounds, field_values, fit_field, mmff_kernels, mmff_terms, scaffolds
from mdlatent.conformers.embedding import Deadline, ForceField
from mdlatent.conformers.field_energy import energies
from mdlatent.conformers.field_geometries import LATER, Counts, geometries
from mdlatent.conformers.field_graph import FieldGraph, field_graph, mapped, union
from mdlatent.conformers.field_net import FieldNet
from mdlatent.conformers.learned_field import LearnedField
from mdlatent.conformers.mmff_relax import SideBySide
from mdlatent.conformers.mmff_terms import Terms
from mdlatent.conformers.molecules import MoleculeError, from_smiles
from mdlatent.conformers.pm7 import Labels
from mdlatent.errors import DataError
from mdlatent.lanes import LANES
from shaken_conformers import conformers
from support import ROOT

SMILES = [
    "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O",
    "CC#CCN=[N+]=[N-]",  # linear
    "CCC",  # no plane
    "[NH3+][C@@H](CS)C(=O)[O-]",
    "CS(=O)(=O)Nc1nc(Cl)c(F)s1",
    "C1CC1C(=O)N[C@H](CO)C(F)(F)F",
    "OP(=O)(O)OC[C@H]1O[C@@H](n2cnc3c2ncnc3N)C[C@@H]1O",
]


def disturbed(scale: float = 0.08, seed: int = 0, **options: int) -> FieldNet:
    """A network that is no longer MMFF94s."""
    torch.manual_seed(seed)
    net = FieldNet(**options)
    with torch.no_grad():
        for one in net.parameters():
            one.add_(torch.randn_like(one) * scale)
    return net


def tensors(graph: FieldGraph) -> FieldGraph:
    return mapped(graph, torch.from_numpy)


def detached(terms: Terms) -> Terms:
    return Terms(*(one.detach().numpy() for one in terms))


def test_an_untrained_network_is_mmff94s() -> None:
    pairs = [conformers(smiles, 4, 0.04) for smiles in SMILES]
    graph = tensors(union([field_graph(mol) for mol, _ in pairs]))
    x = torch.from_numpy(np.concatenate([x for _, x in pairs], 1)).float()
    found = energies(x, graph, FieldNet(16, 2)(graph)).detach().numpy()
    assert found.shape == (4, len(SMILES))
    for column, (mol, one) in enumerate(pairs):
        expected = SideBySide.mmff(mol).energies(one)
        assert found[:, column] == pytest.approx(expected, abs=1e-3, rel=2e-6)


def test_corrected_energies_and_slopes_are_those_of_the_kernels() -> None:
    pairs, net = [conformers(smiles, 3, 0.04) for smiles in SMILES], disturbed(0.08)
    graph = tensors(union([field_graph(mol) for mol, _ in pairs]))
    x = torch.from_numpy(np.concatenate([x for _, x in pairs], 1)).float().requires_grad_()
    found = energies(x, graph, net(graph))
    (slopes,) = torch.autograd.grad(found.sum(), x)
    learned, first = LearnedField(net.weights(), {}), 0
    for column, (mol, one) in enumerate(pairs):
        side = learned.relaxer(mol)
        assert found[:, column].detach().numpy() == pytest.approx(side.energies(one), rel=1e-5, abs=1e-3)
        mmff = SideBySide.mmff(mol).energies(one)
        assert np.abs(side.energies(one) - mmff).max() > 1
        block = np.repeat(one.reshape(3, -1).T.astype(np.float32), 6, axis=1)[:, :LANES].copy()
        energy, flat = np.empty(LANES, np.float32), np.empty(block.size, np.float32)
        mmff_kernels.energy(block.reshape(-1), side.terms, energy, flat)
        theirs = flat.reshape(-1, LANES)[:, [0, 6, 12]].T.reshape(3, -1, 3)
        ours = slopes[:, first : first + mol.GetNumAtoms()].numpy()
        assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
        first += mol.GetNumAtoms()


def test_gradients_are_those_of_numbers() -> None:
    """In float64: slopes of the energy, and the gradient of a loss on slopes with respect to weights."""
    mol, x = conformers("CC#CC(=O)NC", 2)  # terms of all kinds
    graph = mapped(
        field_graph(mol), lambda one: torch.from_numpy(one.astype(np.float64) if one.dtype == np.float32 else one)
    )
    net, start = disturbed(width=8, layers=2).double(), torch.from_numpy(x)
    along = torch.randn(start.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def slopes(at: torch.Tensor) -> torch.Tensor:
        at = at.clone().requires_grad_()
        return torch.autograd.grad(energies(at, graph, net(graph)).sum(), at, create_graph=True)[0]

    ahead, behind = (energies(start + step * along, graph, net(graph)).sum().item() for step in (1e-5, -1e-5))
    assert (ahead - behind) / 2e-5 == pytest.approx((slopes(start) * along).sum().item(), rel=1e-6)
    loss = (slopes(start) ** 2).mean()
    loss.backward()
    for name, one in net.named_parameters():
        assert one.grad is not None, name
        direction = torch.randn(one.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        if name == "kind.weight":
            assert one.grad.abs().max() > 0
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                one.add_(step * direction)
            values.append((slopes(start) ** 2).mean().item())
            with torch.no_grad():
                one.sub_(step * direction)
        assert (values[0] - values[1]) / 2e-5 == pytest.approx((one.grad * direction).sum().item(), rel=1e-4, abs=1e-5)


def test_the_order_of_a_terms_atoms_does_not_matter() -> None:
    for smiles in (SMILES[0], SMILES[1]):
        graph, weights = field_graph(from_smiles(smiles).mol), disturbed(0.3).weights()
        known, turned = graph.terms, (2, 1, 0)
        other = graph._replace(
            angle_bonds=graph.angle_bonds[:, ::-1],
            terms=known._replace(
                bonds=known.bonds[:, ::-1],
                angles=known.angles[:, turned],
                angle_values=known.angle_values[:, [0, 1, 3, 2, 5, 4]],
                linear=known.linear[:, turned],
                planes=known.planes[:, [0, 1, 3, 2]],
                torsions=known.torsions[:, ::-1],
                pairs=known.pairs[:, ::-1],
            ),
        )
        first, second = (field_values.values(weights, one, np) for one in (graph, other))
        for name in Terms._fields[1::2]:
            one, two = getattr(first, name), getattr(second, name)
            if name == "angle_values":
                two = two[:, [0, 1, 3, 2, 5, 4]]
            assert one == pytest.approx(two, rel=1e-5, abs=1e-4), name


def test_the_order_of_atoms_in_a_file_does_not_matter() -> None:
    mol, x = conformers(SMILES[4], 3, 0.04)
    order = np.random.default_rng(1).permutation(mol.GetNumAtoms())
    field = LearnedField(disturbed().weights(), {})
    again = field.relaxer(Chem.RenumberAtoms(mol, order.tolist())).energies(x[:, order])
    assert again == pytest.approx(field.relaxer(mol).energies(x), rel=1e-5)


@pytest.mark.parametrize(("smiles", "pattern"), [("NCC(=O)[O-]", "[O]~C~[O]"), ("CC[N+](=O)[O-]", "[O]~N~[O]")])
def test_oxygens_of_one_kind_are_alike(smiles: str, pattern: str) -> None:
    mol = from_smiles(smiles).mol
    first, _, second = mol.GetSubstructMatch(Chem.MolFromSmarts(pattern))
    graph = field_graph(mol)
    terms = field_values.values(disturbed(0.03).weights(), graph, np)  # far from all bounds
    rows = {frozenset(pair): value for pair, value in zip(terms.bonds.tolist(), terms.bond_values, strict=True)}
    of = [next(value for pair, value in rows.items() if one in pair) for one in (first, second)]
    assert of[0] == pytest.approx(of[1], rel=1e-5)
    assert graph.charges[first] == pytest.approx(graph.charges[second])


@pytest.mark.parametrize("smiles", SMILES)
def test_a_molecule_keeps_its_charge_whatever_stands_beside_it(smiles: str) -> None:
    mol = from_smiles(smiles).mol
    graph = union([field_graph(from_smiles("CC[NH3+]").mol), field_graph(mol)])
    weights = disturbed(0.05).weights()
    found = field_values.charges(weights, graph, field_values.embedding(weights, graph, np), np)
    own = graph.molecule == 1
    assert found[own].sum() == pytest.approx(Chem.GetFormalCharge(mol), abs=2e-5)
    assert np.abs(found - graph.charges).max() > 0.05


def test_corrections_have_bounds() -> None:
    graph = field_graph(from_smiles(SMILES[0]).mol)
    found, known = field_values.values(disturbed(3.0).weights(), graph, np), graph.terms
    lengths = np.abs(found.bond_values[:, 1] - known.bond_values[:, 1])
    bent = np.abs(found.angle_values[:, 1] - known.angle_values[:, 1])
    assert 0.09 < lengths.max() < 0.101 and 0.29 < bent.max() < 0.301
    for ratio, most in (
        (found.bond_values[:, 0] / known.bond_values[:, 0], 1.0),
        (found.angle_values[:, 0] / known.angle_values[:, 0], 1.5),
        (found.pair_values[:, 0] / known.pair_values[:, 0], 0.4),
    ):
        assert 0.5 * most < np.abs(np.log(ratio)).max() < most + 1e-4
    coupled = found.angle_values[:, 4:]
    assert coupled == pytest.approx(found.bond_values[graph.angle_bonds, 1])


def test_torsions_without_values_are_there_and_zero() -> None:
    mol = from_smiles("C1CC1C(=O)N[C@H](CO)C(F)(F)F").mol
    properties = ForceField(mol).properties
    mmff, every = mmff_terms.terms(mol, properties), mmff_terms.terms(mol, properties, every_torsion=True)
    known = dict(zip(map(tuple, mmff.torsions.tolist()), mmff.torsion_values.tolist(), strict=True))
    assert set(known) < set(map(tuple, every.torsions.tolist()))
    for atoms, values in zip(map(tuple, every.torsions.tolist()), every.torsion_values.tolist(), strict=True):
        assert values == known.get(atoms, [0, 0, 0])


@pytest.mark.parametrize("options", [{}, {"width": 12, "layers": 1}])
def test_numpy_gives_what_torch_gives(options: dict[str, int]) -> None:
    net = disturbed(**options)
    for smiles in SMILES:
        graph = field_graph(from_smiles(smiles).mol)
        ours, theirs = field_values.values(net.weights(), graph, np), detached(net(tensors(graph)))
        for name, one, other in zip(Terms._fields, ours, theirs, strict=True):
            assert one.dtype == other.dtype and one.shape == other.shape
            assert one.dtype == (np.float32 if name.endswith("values") else np.int64)
            if one.size:
                assert np.abs(one - other).max() < 1e-5 * max(np.abs(other).max(), 1), name


def test_file_round_trip_and_refusals(tmp_path: Path) -> None:
    field = LearnedField(disturbed().weights(), {"source": "x"})
    for name in ("a.npz", "b.npz"):
        field.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again, mol = LearnedField.load(tmp_path / "a.npz"), from_smiles(SMILES[0]).mol
    assert again.provenance == {"source": "x"} and again.digest == field.digest
    for one, other in zip(again.terms(mol), field.terms(mol), strict=True):
        np.testing.assert_array_equal(one, other)
    field.weights["scales"] = field.weights["scales"] + 1
    assert again.digest != field.digest
    with np.load(tmp_path / "a.npz") as stored:
        np.savez(tmp_path / "c.npz", **{**stored, "features": np.array(["other"])})
    with pytest.raises(DataError, match="another version"):
        LearnedField.load(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_text("no")
    with pytest.raises(DataError, match=r"got no learned force field.*train_field"):
        LearnedField.load(tmp_path / "d.npz")
    with pytest.raises(MoleculeError, match="no parameters"):
        field.relaxer(Chem.AddHs(Chem.MolFromSmiles("CB(C)C")))


def test_a_field_is_used_without_torch(tmp_path: Path) -> None:
    LearnedField(disturbed(width=8, layers=1).weights(), {}).save(tmp_path / "a.npz")
    code = f"""
import sys
from mdlatent.conformers.learned_field import LearnedField
from mdlatent.conformers.molecules import from_smiles
LearnedField.load({str(tmp_path / "a.npz")!r}).terms(from_smiles("CCCO").mol)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "workflow")


def test_geometries_are_of_the_field_that_is_given() -> None:
    mol, counts = from_smiles("CC(C)Nc1ccc(CCO)cc1").mol, Counts(rough=3, halfway=4, lowest=5, others=2)
    fields = [
        SideBySide.mmff(mol),
        LearnedField(disturbed(0.05).weights(), {}).relaxer(mol),
    ]
    for field in fields:
        found = geometries(mol, field, 0, counts, Deadline(60))
        np.testing.assert_array_equal(found, geometries(mol, field, 0, counts, Deadline(60)))
        assert found.shape == (14, mol.GetNumAtoms(), 3)
        kcal = field.energies(found)
        fall = kcal - field.relax(found, 200)[1]
        assert (np.diff(kcal[:5]) > 0).all() and fall[:7].max() < 0.3
        assert np.median(fall[:7]) < np.median(fall[7:11]) < np.median(fall[11:])
        other = next(one for one in fields if one is not field)
        assert (other.energies(found) - other.relax(found, 200)[1])[:7].min() > 0.3
    rigid = from_smiles("Cc1ccccc1").mol
    with pytest.raises(DataError, match=f"got conformers of 15 atoms, expected {mol.GetNumAtoms()}"):
        geometries(rigid, fields[0], 0, LATER, Deadline(60))
    field = SideBySide.mmff(rigid)
    assert len(geometries(rigid, field, 0, LATER, Deadline(60))) > 0
    with pytest.raises(MoleculeError, match="not done within"):
        geometries(mol, fields[0], 0, counts, Deadline(0))


def labels_of(net: FieldNet, smiles: str) -> Labels:
    mol, x = conformers(smiles, 20, 0.05)
    graph = tensors(field_graph(mol))
    at = torch.from_numpy(x).float().requires_grad_()
    found = energies(at, graph, net(graph))
    (slopes,) = torch.autograd.grad(found.sum(), at)
    return Labels(x, found[:, 0].detach().numpy() - 37.0, slopes.numpy())


def test_training_finds_a_field_from_its_labels() -> None:
    """The true field is a network too, so it can be found; molecules that were not seen are measured."""
    true, options = disturbed(0.1, seed=3, width=16, layers=2), fit_field.Options(width=16, layers=2, epochs=20)
    names = ["CCCO", "CCCCO", "CC(C)O", "CCOC", "CCOCC", "CC(C)CO", "OCCCO", "CC(C)CCO"]
    made = [fit_field.example(one, from_smiles(one).mol, [labels_of(true, one)]) for one in names]
    examples = [one for one in made if one is not None]
    assert len(examples) == len(names) and all(one.energies.min() == 0 for one in examples)
    train, test = examples[:6], examples[6:]
    before, best = (fit_field.errors(field, test) for field in (lambda graph: graph.terms, true))
    after = fit_field.errors(fit_field.fit(train, options, 0), test)
    assert best.energy_kcal < 1e-3 and best.slope_kcal_per_angstrom < 1e-2
    assert after.energy_kcal < 0.6 * before.energy_kcal
    assert after.slope_kcal_per_angstrom < 0.6 * before.slope_kcal_per_angstrom
    short = fit_field.Options(width=8, layers=1, epochs=2)
    digests = [LearnedField(fit_field.fit(train, short, seed).weights(), {}).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    for empty in (lambda: fit_field.fit([], options, 0), lambda: fit_field.errors(true, [])):
        with pytest.raises(DataError, match="got no molecule"):
            empty()


def test_later_rounds_go_on_from_the_field_before_and_look_at_what_it_led_to() -> None:
    true = disturbed(0.1, seed=3, width=16, layers=2)
    mol = from_smiles("CCOCC").mol
    labels = labels_of(true, "CCOCC")
    made = fit_field.example("x", mol, [labels, None, Labels(*(some[:2] for some in labels))])
    assert made is not None and made.later.sum() == 2 and len(made.later) == len(labels.energies) + 2
    drawn = fit_field._draw(made.later, 10, np.random.default_rng(0))
    assert len(drawn) == 10 and made.later[drawn].sum() >= 5
    assert fit_field.example("x", mol, [None, None]) is None
    begun = disturbed(0.1, seed=4, width=16, layers=2)
    weights = begun.weights()
    still = fit_field.Options(width=16, layers=2, later_epochs=1, later_rate=1e-12)
    found = fit_field.fit([made], still, 0, begun).weights()
    assert all(np.allclose(found[name], weights[name], atol=1e-6) for name in weights)
    assert all(np.array_equal(begun.weights()[name], weights[name]) for name in weights)


def test_rounds_are_learned_again_one_after_the_other(tmp_path: Path) -> None:
    true, options = disturbed(0.1, width=8, layers=1), fit_field.Options(width=8, layers=1, epochs=1, later_epochs=1)
    some = [from_smiles(one) for one in ("CCCO", "CCOC")]
    first = [labels_of(true, one.name) for one in some]
    rounds = [first, [Labels(*(values[:8] for values in one)) for one in first]]
    found = field_rounds.again(some, rounds, options, 0, tmp_path)
    begun = fit_field.fit(field_rounds.examples(some, rounds[:1]), options, 0)
    expected = fit_field.fit(field_rounds.examples(some, rounds), options, 0, begun)
    assert LearnedField(found.weights(), {}).digest == LearnedField(expected.weights(), {}).digest


def test_geometries_far_up_are_left_out() -> None:
    labels = labels_of(FieldNet(8, 1), "CCCO")
    labels.energies[0] += 100  # too high
    labels.slopes[1, 0] = 400  # too steep, and it must not be the zero of the others
    labels.energies[1] -= 1000
    made = fit_field.example("x", from_smiles("CCCO").mol, [labels])
    assert made is not None and len(made.energies) <= 18 and made.energies.min() == 0
    few = Labels(*(some[:7] for some in labels))
    assert fit_field.example("x", from_smiles("CCCO").mol, [few]) is None


def test_further_molecules_are_apart_from_what_is_held_out() -> None:
    known, held = [from_smiles("CCCO")], [from_smiles("c1ccccc1CCO"), from_smiles("CCCN")]
    more = ["OCCc1ccccc1C", "c1ccncc1CC", "CCCN", "CCCO", "c1ccncc1CC", "CCCCl"]
    found = scaffolds.apart([from_smiles(one) for one in more], known, held)
    assert [one.name for one in found] == ["c1ccncc1CC", "CCCCl"]
