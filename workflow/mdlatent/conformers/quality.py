"""What a conformer is worth without a reference beside it: force-field energy and kept stereo."""

from __future__ import annotations

import numpy as np
from rdkit import Chem, rdBase

from mdlatent.conformers.embedding import ForceField
from mdlatent.conformers.molecules import positions, stereo_from_3d

__all__ = ["energies_above", "lowest_reference", "stereo_kept"]

STEPS = 2000


def lowest_reference(references: Chem.Mol) -> float:
    """Least MMFF94 energy in kcal/mol of the references once relaxed."""
    return float(ForceField(references, "MMFF94").relax(positions(references), STEPS)[1].min())


def energies_above(generated: Chem.Mol, lowest_kcal: float) -> tuple[np.ndarray, np.ndarray]:
    """MMFF94 energies (C,) in kcal/mol above `lowest_kcal`, as generated and relaxed; below zero where lower."""
    field, coordinates = ForceField(generated, "MMFF94"), positions(generated)
    return field.energies(coordinates) - lowest_kcal, field.relax(coordinates, STEPS)[1] - lowest_kcal


def stereo_kept(generated: Chem.Mol) -> float:
    """Share in percent of conformers whose geometry has the stereo (R/S, E/Z) that the graph asks for."""
    with rdBase.BlockLogs():
        wanted = Chem.MolToSmiles(Chem.RemoveHs(generated))
        kept = []
        for conformer in generated.GetConformers():
            seen = Chem.Mol(generated)
            stereo_from_3d(seen, conformer.GetId())
            kept.append(Chem.MolToSmiles(Chem.RemoveHs(seen)) == wanted)
    return 100 * float(np.mean(kept)) if kept else float("nan")
