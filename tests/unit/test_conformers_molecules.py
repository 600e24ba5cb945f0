import gzip
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem, RDConfig

from mdlatent.conformers import molecules, quality, scaffolds, sdf
from mdlatent.conformers.embedding import Deadline, embed
from mdlatent.conformers.molecules import MoleculeError, from_smiles, with_conformers
from mdlatent.errors import DataError

CDK2 = Path(RDConfig.RDContribDir) / "Fastcluster" / "testdata" / "cdk2.sdf"


@pytest.fixture(scope="module")
def cdk2() -> list[molecules.Molecule]:
    return sdf.read_sdf(CDK2)[0]


def block(mol: Chem.Mol, title: str) -> str:
    mol = Chem.Mol(mol)
    mol.SetProp("_Name", title)
    return "".join(Chem.MolToMolBlock(mol, confId=c.GetId()) + "$$$$\n" for c in mol.GetConformers())


def conformers(smiles: str, n: int) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    return with_conformers(mol, embed(mol, n, 0, Deadline(60)))


def test_real_ligands(cdk2: list[molecules.Molecule]) -> None:
    assert len(cdk2) == 47 and not any(one.broken for one in cdk2)
    assert all(one.mol.GetNumConformers() == 1 and not one.bare.GetNumConformers() for one in cdk2)
    assert not any(atom.GetTotalNumHs() for one in cdk2 for atom in one.mol.GetAtoms())  # all hydrogens are explicit


def test_bad_records_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    flat = Chem.MolFromSmiles("CCCCO")
    Chem.rdDepictor.Compute2DCoords(flat)
    butane = conformers("CCCCO", 6)
    text = block(butane, "good") + "junk\n\n\nnot a counts line\n$$$$\n" + block(conformers("CCO.O", 1), "salt")
    text += block(flat, "flat") + block(conformers("CCCCCCCC", 1), "large") + block(conformers("CCCB(C)C", 1), "boron")
    path = tmp_path / "mixed.sdf.gz"
    with gzip.open(path, "wt") as handle:
        handle.write(text)
    found, refused = sdf.read_sdf(path, max_heavy_atoms=7)
    assert [one.name for one in found] == ["good"]
    why = {one.name: one.reason for one in refused}
    assert "disconnected" in why["salt"] and "8 heavy atoms" in why["large"] and "no 3-D" in why["flat"]
    assert "cannot be parsed" in why["record 7"] and "MMFF94" in why["boron"]


def test_how_a_sulphurane_is_bent_is_no_stereo(tmp_path: Path) -> None:
    written = "[H]S12[C](c3ccccc3)NC(C)(C)C1=NN=C2C(=O)OCC"
    mol = conformers(written, 8)
    seen = Chem.Mol(mol)
    Chem.AssignStereochemistryFrom3D(seen)
    assert seen.GetAtomWithIdx(0).GetChiralTag() != Chem.CHI_UNSPECIFIED  # what RDKit makes of it
    (tmp_path / "bent.sdf").write_text(block(mol, "bent"))
    (found,), refused = sdf.read_sdf(tmp_path / "bent.sdf", duplicate_angstrom=0)
    assert not refused and found.mol.GetNumConformers() == 8 and quality.stereo_kept(found.mol) == 100
    for smiles in (written, written.replace("S12", "[S@@]12"), written.replace("S12", "[S@TB17]12")):
        assert [Chem.CanonSmiles(Chem.MolToSmiles(one.mol)) for one in molecules.stereoisomers(smiles)] == [
            Chem.CanonSmiles(Chem.MolToSmiles(from_smiles(written).mol))
        ]


def test_duplicates_and_other_isomers_are_left_out(tmp_path: Path) -> None:
    mol = conformers("C[C@H](F)CCC", 1)
    other = conformers("C[C@@H](F)CCC", 1)
    position = mol.GetConformer().GetPositions()
    shaken = position + np.random.default_rng(0).normal(0, 0.02, position.shape)
    path = tmp_path / "twice.sdf"
    path.write_text(block(with_conformers(mol, [position, shaken]), "one") + block(other, "one"))
    (found,), refused = sdf.read_sdf(path)
    assert found.mol.GetNumConformers() == 1 and found.n_duplicates == 1
    assert [(one.name, one.reason[:11]) for one in refused] == [("one", "conformer 3")]
    assert sdf.read_sdf(path, duplicate_angstrom=0)[0][0].mol.GetNumConformers() == 2


def test_broken_graphs_are_marked() -> None:
    assert from_smiles("CC[CH]CC").broken and from_smiles("NC1=[N+]=C(Br)N(C)C1").broken
    assert not any(from_smiles(one).broken for one in ("CC[NH3+]", "CCN=[N+]=[N-]", "CC(=[NH2+])N", "C[N+](=O)[O-]"))


@pytest.mark.parametrize(
    ("smiles", "says"),
    [
        ("C1CC", "not a SMILES"),
        ("", "not a SMILES"),
        ("CCO.O", "disconnected"),
        ("CC[Pt]CC", "MMFF94"),
        ("CO", "at least 3"),
    ],
)
def test_bad_smiles(smiles: str, says: str) -> None:
    with pytest.raises(MoleculeError, match=says):
        from_smiles(smiles, "mine")


def test_undefined_stereo_is_said_and_enumerated() -> None:
    with pytest.raises(MoleculeError, match=r"undefined stereo at .*atom 1 \(C\)"):
        from_smiles("CC(F)(Cl)C=CC")
    found = molecules.stereoisomers("CC(F)(Cl)C=CC", "x")
    assert [one.name for one in found] == ["x.1", "x.2", "x.3", "x.4"]
    assert len({Chem.MolToSmiles(one.mol) for one in found}) == 4
    assert [one.name for one in molecules.stereoisomers("CCCO", "y")] == ["y"]


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(MoleculeError, match="cannot be read"):
        sdf.read_sdf(tmp_path / "none.sdf")
    (tmp_path / "empty.sdf").write_text("")
    with pytest.raises(MoleculeError, match="no usable molecule"):
        sdf.read_sdf(tmp_path / "empty.sdf")


def test_names_are_made_unique(tmp_path: Path) -> None:
    one, other = (block(conformers(smiles, 1), title) for smiles, title in (("CCCCO", "same"), ("CCCCN", "other")))
    path = tmp_path / "apart.sdf"
    path.write_text(one + other + one)
    assert [found.name for found in sdf.read_files([path])] == ["same", "other", "same (2)"]


def test_split_separates_scaffolds_and_skeletons(cdk2: list[molecules.Molecule]) -> None:
    parts = scaffolds.split(cdk2)
    assert sum(map(len, parts.values())) == len(cdk2) and all(parts.values())
    kinds = [{one.scaffold for one in part} for part in parts.values()]
    assert not (kinds[0] & kinds[1] or kinds[0] & kinds[2] or kinds[1] & kinds[2])
    again = scaffolds.split(cdk2)
    assert [one.name for one in again["test"]] == [one.name for one in parts["test"]]
    assert [one.name for one in scaffolds.split(cdk2, seed=1)["test"]] != [one.name for one in parts["test"]]


def test_overlap_is_found(cdk2: list[molecules.Molecule]) -> None:
    with pytest.raises(DataError, match="is training molecule"):
        scaffolds.check_overlap(cdk2[:5], cdk2[4:])
    with pytest.raises(DataError, match="too few"):
        scaffolds.split(cdk2[:1])
