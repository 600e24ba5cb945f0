"""Measure generators on reference conformers: exactly 2 K are made where a molecule has K references.

Generators take turns molecule by molecule in one process, so that a busy machine slows all alike. Writes
conformers.parquet, a row per molecule and generator, and summary.json; prints the table. Seconds are process CPU time.
Files whose conformers were made by a generator (as those of PubChem3D) are refused: they are no references.
With --output, as the workflow calls it, all molecules of a part that conformers.references wrote are measured as they
are, and the rows alone are written; conformers.collect puts them together.
"""

import argparse
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rdkit.Chem import rdMolDescriptors

from mdlatent import files, stage
from mdlatent.conformers import learned, split_options

if TYPE_CHECKING:
    import pandas as pd

    from mdlatent.conformers.molecules import Molecule

log = logging.getLogger("mdlatent")

DEFAULT = (
    "etkdg", "etkdg_mmff", "etkdg_pool", "torsions_uniform", "torsions_mmff", "torsions_unranked", "torsions",
)  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run, write, print."""
    parser = stage.parser("conformers.benchmark", __doc__)
    parser.add_argument("sdf", nargs="+", type=Path, help="SDF files with reference conformers (.sdf, .sdf.gz)")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--output-dir", type=Path, help="folder for conformers.parquet, summary.json")
    where.add_argument("--output", type=Path, help="parquet file for the rows of a part, nothing else")
    parser.add_argument("--part", choices=("train", "validation", "test", "all"), default="test")
    parser.add_argument("--generators", nargs="+", default=DEFAULT, help="names of generators")
    learned.add_arguments(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of the generators")
    parser.add_argument("--split-seed", type=int, default=0, help="seed of the split by scaffold")
    split_options.add_fractions(parser)
    parser.add_argument("--at-most", type=int, help="only so many molecules")
    parser.add_argument("--limit-s", type=float, default=60.0, help="wall time for a molecule")
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    if args.output:
        _measure_part(args)
    else:
        _run(args)


def _measure_part(args: argparse.Namespace) -> None:
    """The rows of a part of the molecules that were chosen before; none for an empty part."""
    import pandas as pd

    from mdlatent.conformers import sdf

    found = [
        one
        for path in args.sdf
        if path.stat().st_size
        for one in sdf.read_sdf(path, duplicate_angstrom=0)[0]  # duplicates are left out already
    ]
    table = pd.DataFrame()
    if found:
        table = measure(found, args.generators, args.seed, args.limit_s, learned.read(args))
    with files.write_beside(args.output) as path:
        table.to_parquet(path)
    log.info("%s: %d molecules, %d generators", args.output, len(found), len(args.generators))


def _run(args: argparse.Namespace) -> None:
    from mdlatent.conformers import provenance, scaffolds, sdf, summary

    provenance.check_references(args.sdf)
    found = sdf.read_files(args.sdf)
    if args.part != "all":
        found = scaffolds.split(found, args.fractions, args.split_seed)[args.part]

    def write(so_far: "pd.DataFrame") -> None:
        with files.write_beside(args.output_dir / "conformers.parquet") as path:
            so_far.to_parquet(path)

    table = measure(found[: args.at_most], args.generators, args.seed, args.limit_s, learned.read(args), write)
    result = summary.summarise(table)
    files.write_json(args.output_dir / "summary.json", result)
    print(summary.text(result))


def measure(
    molecules: Sequence["Molecule"],
    generators: Sequence[str],
    seed: int = 0,
    limit_s: float = 60.0,
    given: Mapping[str, Any] | None = None,
    note: "Callable[[pd.DataFrame], None]" = lambda so_far: None,
) -> "pd.DataFrame":
    """A row per molecule and generator; which generator is first changes from molecule to molecule.

    `given` are more arguments of `generators.generate`: what was learned elsewhere. `note` is given all rows so far
    after each molecule.
    """
    import pandas as pd

    from mdlatent.conformers import quality

    rows = []
    for number, molecule in enumerate(stage.progress(molecules, len(molecules), "molecules")):
        about = {
            "molecule": molecule.name,
            "key": molecule.key,
            "broken": molecule.broken,
            "n_heavy": molecule.mol.GetNumHeavyAtoms(),
            "n_rotatable": rdMolDescriptors.CalcNumRotatableBonds(molecule.mol),
            "n_references": molecule.mol.GetNumConformers(),
        }
        lowest = quality.lowest_reference(molecule.mol)
        for place in range(len(generators)):
            name = generators[(number + place) % len(generators)]
            rows.append(
                about | {"generator": name, "seed": seed} | _one(name, molecule, seed, limit_s, given or {}, lowest)
            )
        note(pd.DataFrame(rows))
    return pd.DataFrame(rows)


def _one(
    generator: str,
    molecule: "Molecule",
    seed: int,
    limit_s: float,
    given: Mapping[str, Any],
    lowest_kcal: float,
) -> dict[str, Any]:
    """What one generator reaches for one molecule."""
    from mdlatent.conformers import metrics, quality
    from mdlatent.conformers.generators import generate
    from mdlatent.conformers.molecules import MoleculeError

    n = 2 * molecule.mol.GetNumConformers()
    start = time.process_time()
    try:
        made = generate(generator, molecule.bare, n, seed, limit_s, **given)
    except MoleculeError as error:
        log.warning("%s: %s: %s", molecule.name, generator, error)
        nothing: dict[str, Any] = metrics.coverage(np.zeros((0, n // 2)))
        nothing |= {"nearest_recall_angstrom": [], "nearest_precision_angstrom": []}
        return {"n_generated": 0, "failure": str(error), "cpu_s": time.process_time() - start} | nothing
    cpu_s = time.process_time() - start
    raw, relaxed = quality.energies_above(made, lowest_kcal)
    rmsd, to_references = metrics.rmsd_matrix(made), metrics.rmsd_between(made, molecule.mol)
    return {
        "n_generated": n,
        "failure": "",
        "cpu_s": cpu_s,
        **metrics.coverage(to_references),
        "nearest_recall_angstrom": to_references.min(0).tolist(),
        "nearest_precision_angstrom": to_references.min(1).tolist(),
        "energy_raw_kcal": float(np.median(raw)),
        "energy_relaxed_kcal": float(np.median(relaxed)),
        "stereo_kept_percent": quality.stereo_kept(made),
        "distinct_percent": 100 * len(metrics.distinct(rmsd, 0.125)) / n,
    }


if __name__ == "__main__":
    stage.run(main)
