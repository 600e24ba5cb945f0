"""SDF files of small molecules for tests: good ones, and one of each kind that cannot be used."""

from pathlib import Path

import numpy as np
from rdkit import Chem, RDConfig

from mdlatent.conformers.embedding import Deadline, embed
from mdlatent.conformers.molecules import with_conformers

CDK2 = Path(RDConfig.RDContribDir) / "Fastcluster" / "testdata" / "cdk2.sdf"
LEFT_OUT = ("disconnected", "large", "boron", "flat", "open")  # by title; `BROKEN_RECORD` has none
BROKEN_RECORD = "junk\n\n\nnot a counts line\n$$$$\n"


def block(mol: Chem.Mol, title: str) -> str:
    """A record for each conformer of `mol`."""
    mol = Chem.Mol(mol)
    mol.SetProp("_Name", title)
    return "".join(Chem.MolToMolBlock(mol, confId=c.GetId()) + "$$$$\n" for c in mol.GetConformers())


def conformers(smiles: str, n: int, seed: int = 0) -> Chem.Mol:
    """A molecule with `n` conformers of ETKDG; undefined stereo stays so."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    return with_conformers(mol, embed(mol, n, seed, Deadline(60)))


def ligands(n: int) -> str:
    """The first records of RDKit's CDK2 ligands."""
    return "".join(one + "$$$$\n" for one in CDK2.read_text().split("$$$$\n")[:n])


def bad_records() -> str:
    """A record that cannot be parsed, and LEFT_OUT: each is left out for its own reason (at most 30 heavy atoms)."""
    flat = Chem.MolFromSmiles("CCCCO")
    Chem.rdDepictor.Compute2DCoords(flat)
    planar = conformers("C[C@H](F)Cl", 1)  # its stereocentre lies in the plane of three neighbours and the hydrogen too
    at = planar.GetConformer().GetPositions()
    centre, others = 1, [atom.GetIdx() for atom in planar.GetAtomWithIdx(1).GetNeighbors()]
    for k, other in enumerate(others):
        length = np.linalg.norm(at[other] - at[centre])
        angle = np.pi / 2 * k
        at[other] = at[centre] + length * np.array([np.cos(angle), np.sin(angle), 0])
    open_stereo = with_conformers(planar, [at])
    return (
        BROKEN_RECORD
        + block(conformers("CCO.O", 1), "disconnected")
        + block(conformers("C" * 31, 1), "large")
        + block(conformers("CCCB(C)C", 1), "boron")
        + block(flat, "flat")
        + block(open_stereo, "open")
    )
