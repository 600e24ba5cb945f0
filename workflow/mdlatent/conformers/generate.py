"""Make conformers of molecules given as SMILES and write them as SDF, lowest MMFF94s energy first.

A molecule that cannot be treated is named with its reason, and the others go on; only if none is left it is an error.
"""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mdlatent import files, stage
from mdlatent.conformers import learned

if TYPE_CHECKING:
    from mdlatent.conformers.molecules import Molecule

log = logging.getLogger("mdlatent")


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, generate, write."""
    parser = stage.parser("conformers", __doc__)
    parser.add_argument("smiles", nargs="*", help="SMILES")
    parser.add_argument("--file", type=Path, help="file with a SMILES and, if wanted, a name on each line")
    parser.add_argument("-n", type=int, default=20, help="conformers of each molecule")
    parser.add_argument("-o", "--output", type=Path, required=True, help="SDF file")
    parser.add_argument("--generator", default="torsions", help="name of the generator")
    learned.add_arguments(parser)
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--limit-s", type=float, default=60.0, help="wall time for a molecule")
    parser.add_argument("--enumerate-stereo", action="store_true", help="all stereoisomers that the SMILES leaves open")
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    _run(args)


def _run(args: argparse.Namespace) -> None:
    from rdkit import Chem

    from mdlatent.conformers.embedding import ForceField
    from mdlatent.conformers.generators import generate
    from mdlatent.conformers.molecules import MoleculeError, positions
    from mdlatent.errors import DataError

    given, n_written = learned.read(args), 0
    failures: list[str] = []
    with files.write_beside(args.output) as path, Chem.SDWriter(str(path)) as writer:
        for molecule in _molecules(args, failures):
            try:
                made = generate(args.generator, molecule.bare, args.n, args.seed, args.limit_s, **given)
            except MoleculeError as error:
                failures.append(f"{molecule.name}: {error}")
                log.warning("left out %s", failures[-1])
                continue
            energies = ForceField(made).energies(positions(made))
            for index in np.argsort(energies, kind="stable").tolist():
                made.SetProp("_Name", molecule.name)
                made.SetDoubleProp("mmff94s_kcal_per_mol", round(float(energies[index]), 4))
                writer.write(made, confId=index)
            n_written += 1
        if not n_written:
            raise DataError(f"no conformers were made; {'; '.join(failures[:3]) or 'give SMILES or --file'}")
    log.info("%s: %d conformers of each of %d molecules, %d left out", args.output, args.n, n_written, len(failures))


def _molecules(args: argparse.Namespace, failures: list[str]) -> Iterator["Molecule"]:
    """The molecules asked for; those that cannot be used are logged and added to `failures`."""
    from mdlatent.conformers.molecules import MoleculeError, from_smiles, stereoisomers

    lines = [line.split(maxsplit=1) for line in args.file.read_text().splitlines() if line.strip()] if args.file else []
    for smiles, *name in [[one] for one in args.smiles] + lines:
        label = name[0].strip() if name else smiles
        try:
            yield from stereoisomers(smiles, label) if args.enumerate_stereo else [from_smiles(smiles, label)]
        except MoleculeError as error:
            failures.append(str(error))
            log.warning("left out %s", error)


if __name__ == "__main__":
    stage.run(main)
