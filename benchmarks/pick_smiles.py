"""Draw molecules of different scaffolds from a large list of SMILES, for `train_field --more`.

    pip download --no-deps molsets==0.3.1 && unzip molsets-0.3.1-*.whl 'moses/dataset/data/train.csv.gz'
    python benchmarks/pick_smiles.py moses/dataset/data/train.csv.gz -n 2200 --output picked.smi
    mdlatent conformers --file picked.smi -n 1 --generator etkdg --output picked.sdf

The list is that of MOSES (Polykovskiy et al. 2020, doi:10.3389/fphar.2020.565644; MIT), 1.6 million molecules of ZINC
Clean Leads. Drawn at random are those with at least --rotors rotatable bonds, one of each Murcko scaffold.
"""

import argparse
import csv
import gzip
from pathlib import Path

import numpy as np
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcNumRotatableBonds
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

from mdlatent import files


def main() -> None:
    """Parse the command line, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="gzip-compressed, SMILES in the first column, one line of names above")
    parser.add_argument("-n", type=int, default=2200, help="molecules")
    parser.add_argument("--rotors", type=int, default=3, help="rotatable bonds, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="SMILES and a name on each line")
    args = parser.parse_args()
    with gzip.open(args.csv, "rt") as handle:
        listed = [row[0] for row in csv.reader(handle)][1:]
    seen: dict[str, str] = {}
    for index in np.random.default_rng(args.seed).permutation(len(listed)).tolist():
        mol = Chem.MolFromSmiles(listed[index])
        if CalcNumRotatableBonds(mol) >= args.rotors:
            seen.setdefault(MurckoScaffoldSmiles(mol=mol), f"{listed[index]} line{index + 2}")
        if len(seen) == args.n:
            break
    with files.write_beside(args.output) as path:
        path.write_text("".join(f"{line}\n" for line in seen.values()))


if __name__ == "__main__":
    main()
