"""Learn torsion statistics from multi-conformer SDF files, from the training scaffolds alone.

The molecules are split by Murcko scaffold; validation and test molecules are not looked at. Give the same --seed and
--fractions to mdlatent.conformers.benchmark, which measures on the others.
"""

import hashlib
import logging
from pathlib import Path

import rdkit

from mdlatent import __version__, files, stage
from mdlatent.conformers import split_options

log = logging.getLogger("mdlatent")


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, read, split, learn, write."""
    parser = stage.parser("conformers.train", __doc__)
    parser.add_argument("sdf", nargs="+", type=Path, help="SDF files (.sdf, .sdf.gz)")
    parser.add_argument("--output", type=Path, required=True, help="file of the statistics (.npz)")
    parser.add_argument("--source", default="", help="where the data come from and their licence, kept in the file")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split")
    split_options.add_fractions(parser)
    args = parser.parse_args(argv)
    stage.start_logging(args.log)

    from mdlatent.conformers import scaffolds, sdf, torsion_statistics

    found = sdf.read_files(args.sdf)
    part = scaffolds.split(found, args.fractions, args.seed)["train"]
    provenance = {
        "source": args.source,
        "files": {path.name: files.digest(path) for path in args.sdf},
        "seed": args.seed,
        "fractions": list(args.fractions),
        "molecules_sha256": hashlib.sha256("\n".join(molecule.name for molecule in part).encode()).hexdigest(),
        "n_conformers": sum(molecule.mol.GetNumConformers() for molecule in part),
        "mdlatent": __version__,
        "rdkit": rdkit.__version__,
    }
    learned = torsion_statistics.learn(part, provenance)
    learned.save(args.output)
    log.info(
        "%s: %d environments from %d molecules with %d conformers, of %d molecules",
        args.output, len(learned.keys), len(part), provenance["n_conformers"], len(found),
    )  # fmt: skip


if __name__ == "__main__":
    stage.run(main)
