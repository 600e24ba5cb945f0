"""Conformers: CPU seconds of each, beside RDKit's own; relaxation in MMFF94s alone; and symmetric RMSD between them.

Molecules are every eighth of the 47 CDK2 ligands that come with RDKit, 20 conformers each. How near they come to
references is another matter: docs/conformer-generators.md.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem, RDConfig
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers, rdMolAlign
from side_by_side import Bar, Row, interleaved

from mdlatent.conformers import generators, many_rmsd, metrics
from mdlatent.conformers.embedding import ForceField
from mdlatent.conformers.mmff_relax import SideBySide
from mdlatent.conformers.molecules import heavy_indices, positions

BENCH = "conformers"
FILE = Path(RDConfig.RDContribDir) / "Fastcluster" / "testdata" / "cdk2.sdf"
EVERY, N, STEPS, LIMIT_S = 8, 20, 500, 600
STAGE = 60  # steps after which most of a pool is dropped
BAR_SECONDS = 0.15


def molecules() -> list[Chem.Mol]:
    """With explicit hydrogens and without conformers."""
    read = [mol for mol in Chem.SDMolSupplier(str(FILE)) if mol is not None][::EVERY]
    found = [Chem.AddHs(mol) for mol in read]
    for mol in found:
        mol.RemoveAllConformers()
    return found


def run() -> tuple[list[Row], list[Bar]]:
    """Generators, then RMSD."""
    mols = molecules()

    def rdkit(relaxed: bool) -> Callable[[], None]:
        def all_of_them() -> None:
            for mol in mols:
                work, options = Chem.Mol(mol), rdDistGeom.ETKDGv3()
                options.randomSeed, options.numThreads = 1, 1
                rdDistGeom.EmbedMultipleConfs(work, N, options)
                if relaxed:
                    rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(work, 1, STEPS, "MMFF94s")

        return all_of_them

    def ours() -> None:
        for mol in mols:
            generators.generate("torsions", mol, N, 0, LIMIT_S)

    systems: dict[str, Callable[[], object]] = {
        "RDKit, ETKDGv3": rdkit(relaxed=False),
        "RDKit, ETKDGv3 and MMFF94s": rdkit(relaxed=True),
        "mdlatent, torsions": ours,
    }
    seconds = interleaved(systems, 3)
    case = f"{len(mols)} CDK2 ligands, {N} conformers"
    rows = [Row(BENCH, case, name, value / len(mols) / N, "CPU s per conformer") for name, value in seconds.items()]
    bars = [Bar(BENCH, case, "CPU s per conformer", rows[-1].value, BAR_SECONDS, at_most=True)]
    return rows + relaxation(mols) + rmsd(mols), bars


def relaxation(mols: list[Chem.Mol]) -> list[Row]:
    """The same conformers of ETKDG relaxed by RDKit and by ours, for as many steps and to the end; where they end."""
    starts = [positions(generators.generate("etkdg", mol, 2 * N, 0)) for mol in mols]
    lowest = [ForceField(mol).relax(x, 10 * STEPS)[1] for mol, x in zip(mols, starts, strict=True)]
    rows = []
    for steps in (STAGE, STEPS):
        ends: dict[str, list[np.ndarray]] = {}

        def rdkit(steps: int = steps, ends: dict[str, list[np.ndarray]] = ends) -> None:
            ends["RDKit"] = [ForceField(mol).relax(x, steps)[0] for mol, x in zip(mols, starts, strict=True)]

        def ours(steps: int = steps, ends: dict[str, list[np.ndarray]] = ends) -> None:
            ends["mdlatent"] = [SideBySide.mmff(mol).relax(x, steps)[0] for mol, x in zip(mols, starts, strict=True)]

        seconds = interleaved({"RDKit": rdkit, "mdlatent": ours}, 3)
        case = f"MMFF94s, at most {steps} steps"
        for name, value in seconds.items():
            energies = np.concatenate(
                [ForceField(mol).energies(end) - low for mol, end, low in zip(mols, ends[name], lowest, strict=True)]
            )
            rows += [
                Row(BENCH, case, name, 1000 * value / len(energies), "CPU ms per conformer"),
                Row(BENCH, case, name, float(np.mean(energies)), "kcal/mol above their wells, mean"),
            ]
    return rows


def rmsd(mols: list[Chem.Mol]) -> list[Row]:
    """Pairs of conformers a second."""
    made: list[Any] = [generators.generate("etkdg", mol, N, 0) for mol in mols]

    def loop() -> None:
        for mol in made:
            heavy = Chem.RemoveHs(mol)
            for first in range(N):
                for second in range(first):
                    rdMolAlign.GetBestRMS(heavy, heavy, first, second)

    def matrix() -> None:
        for mol in made:
            metrics.rmsd_matrix(mol)

    def side_by_side() -> None:
        for mol in made:
            same = many_rmsd.automorphisms(mol, metrics.MAX_MATCHES)
            many_rmsd.rmsd_matrix(positions(mol)[:, heavy_indices(mol)], same)

    seconds = interleaved(
        {
            "RDKit, GetBestRMS in a loop": loop,
            "RDKit, GetAllConformerBestRMS": matrix,
            "mdlatent, sixteen pairs at a time": side_by_side,
        },
        3,
    )
    n_pairs = len(made) * N * (N - 1) // 2
    return [Row(BENCH, "symmetric RMSD", name, n_pairs / value, "pairs/s") for name, value in seconds.items()]
