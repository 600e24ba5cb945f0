"""Molecules of further SDF files whose scaffold and skeleton nothing was learned from, to measure generators on.

    python benchmarks/unseen_molecules.py conformer_benchmark_dev.sdf.gz ligands.sdf --output unseen.sdf
    python -m mdlatent.conformers.benchmark unseen.sdf --part all --output-dir out

The first file is split as `train_field` splits it; with its training part and those of the others that it takes as
--more nothing that is written has a Murcko scaffold or an InChIKey skeleton in common. Graphs with radicals are left
out.
"""

import argparse
from pathlib import Path

from mdlatent import stage
from mdlatent.conformers import scaffolds, sdf


def main() -> None:
    """Parse the command line, read, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", type=Path, help="SDF file that is split")
    parser.add_argument("more", nargs="+", type=Path, help="SDF files of further molecules")
    parser.add_argument("--output", type=Path, required=True, help="SDF file")
    args = parser.parse_args()
    stage.start_logging(None)
    parts = scaffolds.split(sdf.read_files([args.references]))
    more = sdf.read_files(args.more)
    learned = parts["train"] + scaffolds.apart(more, parts["train"], parts["validation"] + parts["test"])
    unseen = [one for one in scaffolds.apart(more, [], learned) if not one.broken]
    sdf.write_sdf(unseen, args.output)


if __name__ == "__main__":
    main()
