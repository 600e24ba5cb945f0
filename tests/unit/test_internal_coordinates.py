"""Internal coordinates of small molecules: complete, right, and back to the same structure."""

import gzip
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdMolTransforms

from mdlatent.alignment import kabsch_rmsd_nm
from mdlatent.conformers.internal import IMPROPER, LOOSE, PROPER, STRAIGHT, internal_coordinates, join, straight_atoms
from mdlatent.conformers.internal_values import Values, jacobian, values, wrapped
from mdlatent.conformers.placing import place
from mdlatent.conformers.reconcile import Spread, reconcile
from mdlatent.errors import DataError

SMILES = {
    "drug": "CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O",
    "biphenyl": "c1ccccc1-c1ccccc1",
    "alkyne": "CCC#CC#CC(C)O",
    "nitrile": "N#CCC(C)C#N",
    "allene": "CC=C=CC",
    "cumulene": "CC=C=C=CC",
    "azide": "CCN=[N+]=[N-]",
    "spiro": "C1CC12CCC2",
    "bicycle": "C1CC2CCC1CC2",
    "macrocycle": "O=C1NCCCCNC(=O)c2cccc(c2)-c2ccccc2NCC1",
    "morphine": "CN1CC[C@]23[C@@H]4[C@H]1CC5=C2C(=C(C=C5)O)O[C@H]3[C@H](C=C4)O",
    "double bonds": "C/C=C/C=C\\C(F)Cl",
    "sulfone": "CS(=O)(=O)NC1CC1",
    "phosphate": "COP(=O)(O)OC",
    "hypervalent": "CS(F)(F)(F)(F)F",
    "water": "O",
    "two atoms": "[H]Cl",
    "one atom": "[Na+]",
    "three on a line": "O=C=O",
    "all on a line": "C#C",
}


def embedded(smiles: str, n: int = 3) -> Chem.Mol:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert len(rdDistGeom.EmbedMultipleConfs(molecule, n, randomSeed=7)) == n
    return molecule


def positions(molecules: Chem.Mol | list[Chem.Mol]) -> torch.Tensor:
    molecules = molecules if isinstance(molecules, list) else [molecules]
    return torch.tensor(np.stack([c.GetPositions() for m in molecules for c in m.GetConformers()]))


def rmsd_angstrom(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(kabsch_rmsd_nm(a, b).max())


def stereo(molecule: Chem.Mol, coordinates: torch.Tensor) -> str:
    """SMILES with the stereochemistry that `coordinates` (n_atoms, 3) Å have."""
    copy = Chem.Mol(molecule)
    copy.RemoveAllConformers()
    conformer = Chem.Conformer(copy.GetNumAtoms())
    conformer.SetPositions(coordinates.double().numpy())
    copy.AddConformer(conformer)
    Chem.AssignStereochemistryFrom3D(copy)
    return Chem.MolToSmiles(copy)


@pytest.mark.parametrize("name", SMILES)
@pytest.mark.parametrize("hydrogens", [True, False])
def test_there_and_back(name: str, hydrogens: bool) -> None:
    molecule = embedded(SMILES[name])
    molecule = molecule if hydrogens else Chem.RemoveHs(molecule)
    x, internal = positions(molecule), internal_coordinates(molecule)
    for dtype, limit in ((torch.float64, 1e-8), (torch.float32, 1e-3)):
        back = place(internal, values(internal, x.to(dtype)))
        assert back.dtype == dtype
        assert rmsd_angstrom(back, x) < limit
        assert [stereo(molecule, y) for y in back] == [stereo(molecule, y) for y in x]


def test_exactly_straight_angles_break_nothing() -> None:
    """Butadiyne and dimethylacetylene with angles of exactly 180°: finite values, gradients and structures."""
    line = torch.zeros(1, 6, 3, dtype=torch.float64)
    line[0, :, 0] = torch.tensor([0.0, 1.06, 2.27, 3.64, 4.85, 5.91])
    molecule = Chem.AddHs(Chem.MolFromSmiles("C#CC#C"))
    order = [Chem.GetDistanceMatrix(molecule)[4].tolist().index(d) for d in range(6)]
    x = torch.empty_like(line).index_copy(1, torch.tensor(order), line).requires_grad_()
    internal = internal_coordinates(molecule)
    found = values(internal, x)
    back = place(internal, found)
    assert rmsd_angstrom(back.detach(), x.detach()) < 1e-8
    assert rmsd_angstrom(reconcile(internal, Values(*(q.detach() for q in found))), x.detach()) < 1e-8
    (gradient,) = torch.autograd.grad(back.square().sum() + found.dihedrals.sum(), x)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["alkyne", "nitrile", "allene", "cumulene", "azide"])
def test_ends_of_exactly_straight_runs_stay_where_they_were(name: str) -> None:
    molecule = embedded(SMILES[name])
    internal = internal_coordinates(molecule)
    found = values(internal, positions(molecule))
    straight = torch.tensor(straight_atoms(molecule))[internal.angles[:, 1]]
    assert straight.any()
    x = place(internal, found._replace(angles=torch.where(straight, torch.pi, found.angles)))
    for dtype, limit in ((torch.float64, 1e-8), (torch.float32, 1e-3)):
        assert rmsd_angstrom(place(internal, values(internal, x.to(dtype))), x) < limit


def test_torsion_across_a_straight_run_turns_its_ends() -> None:
    molecule = embedded("CCC#CC#CC(C)O", 1)
    internal = internal_coordinates(molecule)
    across = internal.kinds == STRAIGHT
    assert int(across.sum()) == 1
    found = values(internal, positions(molecule))
    turned = place(internal, found._replace(dihedrals=found.dihedrals + 1.0 * across))
    after = values(internal, turned)
    assert float(wrapped(after.dihedrals - found.dihedrals)[0, across]) == pytest.approx(1.0, abs=1e-9)
    keep = internal.kinds == PROPER
    assert torch.allclose(wrapped(after.dihedrals - found.dihedrals)[:, keep], torch.zeros(1, 1).double(), atol=1e-8)
    assert torch.allclose(after.lengths_angstrom, found.lengths_angstrom)


def test_values_are_those_of_rdkit() -> None:
    molecule = embedded("CN1CC[C@]23[C@@H]4[C@H]1CC5=C2C(=C(C=C5)O)O[C@H]3[C@H](C=C4)O", 1)
    conformer, internal = molecule.GetConformer(), internal_coordinates(molecule)
    lengths, angles, dihedrals = (q[0].tolist() for q in values(internal, positions(molecule)))
    assert lengths == pytest.approx(
        [rdMolTransforms.GetBondLength(conformer, *row) for row in internal.bonds.tolist()], abs=1e-6
    )
    assert angles == pytest.approx(
        [rdMolTransforms.GetAngleRad(conformer, *row) for row in internal.angles.tolist()], abs=1e-6
    )
    for row, kind, value in zip(internal.dihedrals.tolist(), internal.kinds.tolist(), dihedrals, strict=True):
        if kind == PROPER:
            assert value == pytest.approx(rdMolTransforms.GetDihedralRad(conformer, *row), abs=1e-6)


@pytest.mark.parametrize("name", ["drug", "spiro", "alkyne", "allene", "macrocycle"])
def test_list_is_complete_and_repeats_nothing(name: str) -> None:
    molecule = Chem.AddHs(Chem.MolFromSmiles(SMILES[name]))
    internal = internal_coordinates(molecule)
    degree = [atom.GetDegree() for atom in molecule.GetAtoms()]
    assert len(internal.bonds) == molecule.GetNumBonds()
    assert len(internal.angles) == sum(d * (d - 1) // 2 for d in degree)
    proper = internal.dihedrals[internal.kinds == PROPER].tolist()
    patterns = Chem.MolFromSmarts("*~[!$([D2](=*)=*)&!$([D2]#*)]~[!$([D2](=*)=*)&!$([D2]#*)]~*")
    found = molecule.GetSubstructMatches(patterns, uniquify=False, maxMatches=100000)
    assert {min(tuple(row), tuple(row[::-1])) for row in proper} == {min(row, row[::-1]) for row in found}
    held = internal.dihedrals[internal.kinds == IMPROPER]
    assert {i for i, d in enumerate(degree) if d >= 3} == set(held[:, 2].tolist())
    for rows in (internal.bonds, internal.angles, internal.dihedrals):
        assert len({min(tuple(r), tuple(r[::-1])) for r in rows.tolist()}) == len(rows)
    placed = [*internal.roots.tolist(), *internal.firsts.tolist()]
    for level in internal.levels:
        for reference in (level.b, level.c, level.a[level.a < internal.n_atoms]):
            assert set(reference.tolist()) <= set(placed)
        placed += level.atoms.tolist()
    assert sorted(placed) == list(range(internal.n_atoms))


def test_mirror_image_has_the_opposite_dihedrals_alone() -> None:
    molecule = embedded(SMILES["drug"], 1)
    internal, x = internal_coordinates(molecule), positions(molecule)
    here, there = values(internal, x), values(internal, x * torch.tensor([1.0, 1.0, -1.0]))
    assert torch.allclose(here.angles, there.angles) and torch.allclose(here.lengths_angstrom, there.lengths_angstrom)
    assert torch.allclose(wrapped(here.dihedrals + there.dihedrals), torch.zeros(1).double(), atol=1e-9)
    assert stereo(molecule, place(internal, there)[0]) != stereo(molecule, x[0])


@pytest.mark.parametrize("name", ["spiro", "sulfone", "cumulene"])
def test_gradients(name: str) -> None:
    molecule = Chem.RemoveHs(embedded(SMILES[name], 2))
    internal, x = internal_coordinates(molecule), positions(molecule)
    assert torch.autograd.gradcheck(lambda x: values(internal, x), x.clone().requires_grad_())
    found = [q.clone().requires_grad_() for q in values(internal, x)]
    assert torch.autograd.gradcheck(lambda *q: place(internal, Values(*q)), found)
    J, worth = jacobian(internal, x)
    by_autograd = torch.autograd.functional.jacobian(lambda x: torch.cat(values(internal, x), 1).sum(0), x)
    assert torch.allclose(J, by_autograd.permute(1, 0, 2, 3).flatten(2), atol=1e-9)
    assert (worth >= 0).all() and (worth <= 1).all()


def noisy(found: Values, seed: int = 0) -> Values:
    generator = torch.Generator().manual_seed(seed)
    return Values(
        *(
            q + sigma * torch.randn(q.shape, generator=generator, dtype=q.dtype)
            for q, sigma in zip(found, (0.02, 0.05, 0.15), strict=True)
        )
    )


def test_reconcile_differentiates() -> None:
    """Gradient of the fitted structure with respect to every target, against finite differences."""
    molecule = Chem.RemoveHs(embedded("C1CC12CCC2", 1))
    internal, x = internal_coordinates(molecule), positions(molecule)
    target = [q.requires_grad_() for q in noisy(values(internal, x))]

    def distances(*q: torch.Tensor) -> torch.Tensor:
        y = reconcile(internal, Values(*q), n_steps=3)
        return (y[:, :, None] - y[:, None]).square().sum(-1)

    assert torch.autograd.gradcheck(distances, target, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["macrocycle", "morphine", "bicycle", "alkyne"])
def test_reconcile_closes_rings(name: str) -> None:
    """Values that disagree: the tree alone leaves rings open, least squares closes them and keeps the stereo."""
    molecule = Chem.RemoveHs(embedded(SMILES[name], 5))
    internal, x = internal_coordinates(molecule), positions(molecule)
    target = noisy(values(internal, x))

    def off(y: torch.Tensor) -> torch.Tensor:
        return (values(internal, y).lengths_angstrom - target.lengths_angstrom).square().mean(1).sqrt()

    raw, fitted = place(internal, target), reconcile(internal, target)
    assert float(off(fitted).max()) < 0.02  # Å, of noise of 0.02 Å that need not fit
    if name != "alkyne":
        assert float(off(raw).mean()) > 0.1
    assert float(kabsch_rmsd_nm(fitted, x).mean()) < float(kabsch_rmsd_nm(raw, x).mean())
    assert [stereo(molecule, y) for y in fitted] == [stereo(molecule, y) for y in x]
    single = reconcile(internal, Values(*(q.float() for q in target)))
    assert single.dtype == torch.float32 and rmsd_angstrom(single, fitted) < (0.1 if name == "alkyne" else 0.01)


def test_reconcile_leaves_what_agrees_and_heeds_the_spread() -> None:
    molecule = embedded(SMILES["morphine"])
    internal, x = internal_coordinates(molecule), positions(molecule)
    assert rmsd_angstrom(reconcile(internal, values(internal, x)), x) < 1e-8
    # From elsewhere it comes back to the structure that all targets agree on.
    shaken = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    assert rmsd_angstrom(reconcile(internal, values(internal, x), start_angstrom=shaken), x) < 1e-6
    target = noisy(values(internal, x))
    rms = [
        float((values(internal, reconcile(internal, target, spread=Spread(s))).lengths_angstrom - target[0]).std())
        for s in (0.1, 0.001)
    ]
    assert rms[1] < 0.2 * rms[0]


def test_several_molecules_at_once() -> None:
    molecules = [embedded(smiles, 1) for smiles in SMILES.values()]
    parts = [internal_coordinates(m) for m in molecules]
    everything = torch.cat([positions(m) for m in molecules], 1)
    internal = join(parts)
    together = place(internal, values(internal, everything))
    start = 0
    for part, molecule in zip(parts, molecules, strict=True):
        alone = place(part, values(part, positions(molecule)))
        assert torch.allclose(together[:, start : start + part.n_atoms], alone, atol=1e-9)
        start += part.n_atoms
    assert start == internal.n_atoms


def test_what_cannot_be_described() -> None:
    with pytest.raises(DataError, match=r"2 disconnected pieces.*keep one"):
        internal_coordinates(Chem.MolFromSmiles("CC(=O)[O-].[Na+]"))
    with pytest.raises(DataError, match="0 disconnected pieces"):
        internal_coordinates(Chem.Mol())


def read(path: Path) -> Iterator[Chem.Mol]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from Chem.ForwardSDMolSupplier(file, removeHs=False)


@pytest.mark.parametrize("folder", ["dft_conformers", "crystal_ligands", "small"])
def test_every_molecule_of_the_field(field_data: Path, folder: str) -> None:
    same_graph = defaultdict(list)  # conformers of a molecule share name, atoms and bonds
    for path in sorted((field_data / folder).glob("*.sdf*")):
        for molecule in read(path):
            bonds = sorted(tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in molecule.GetBonds())
            same_graph[path.name, molecule.GetProp("_Name"), tuple(bonds)].append(molecule)
    assert sum(map(len, same_graph.values())) == {"dft_conformers": 2900, "crystal_ligands": 1030, "small": 147}[folder]
    by_number = defaultdict(list)  # molecules with as many conformers are worked on together, which is quicker
    for conformers in same_graph.values():
        by_number[len(conformers)].append(conformers)
    kinds = set()
    for molecules in (some[i : i + 32] for some in by_number.values() for i in range(0, len(some), 32)):
        parts = [internal_coordinates(conformers[0]) for conformers in molecules]
        internal, x = join(parts), torch.cat([positions(conformers) for conformers in molecules], 1)
        kinds |= set(internal.kinds.tolist())
        double, single = (place(internal, values(internal, x.to(dtype))) for dtype in (torch.float64, torch.float32))
        start = 0
        for part, conformers in zip(parts, molecules, strict=True):
            own = slice(start, start := start + part.n_atoms)
            name = conformers[0].GetProp("_Name")
            assert rmsd_angstrom(double[:, own], x[:, own]) < 1e-8, name
            assert rmsd_angstrom(single[:, own], x[:, own]) < 1e-3, name
            assert stereo(conformers[0], single[0, own]) == stereo(conformers[0], x[0, own]), name
    assert kinds == ({PROPER, IMPROPER, LOOSE} if folder == "small" else {PROPER, IMPROPER, STRAIGHT, LOOSE})
