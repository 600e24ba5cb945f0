"""Learn the ranker of pools from multi-conformer SDF files, from the training scaffolds alone.

A pool is made for each training molecule as `torsions_uniform` makes it (the torsion statistics know the training
molecules, so learned torsions would flatter them), and the weights that make its references likely are found. The
molecules are split as by mdlatent.conformers.train; validation and test molecules are not looked at.

Where pools are relaxed by a learned force field, give those of train_field --folds: each molecule's pool is made with
one that has not seen it, since energies of molecules that it has seen are better than they will be in use.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import rdkit

from mdlatent import __version__, files, stage
from mdlatent.conformers import split_options

if TYPE_CHECKING:
    from mdlatent.conformers.learned_field import LearnedField
    from mdlatent.conformers.molecules import Molecule
    from mdlatent.conformers.ranker import Example

log = logging.getLogger("mdlatent")


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, read, split, make pools, learn, write."""
    parser = stage.parser("conformers.train_ranker", __doc__)
    parser.add_argument("sdf", nargs="+", type=Path, help="SDF files with reference conformers (.sdf, .sdf.gz)")
    parser.add_argument("--output", type=Path, required=True, help="file of the ranker (.npz)")
    parser.add_argument("--source", default="", help="where the data come from and their licence, kept in the file")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split")
    split_options.add_fractions(parser)
    parser.add_argument("--field", type=Path, nargs="+", default=[], help="learned force fields for the pools")
    parser.add_argument("--penalty", type=float, default=2.0, help="weight of the squared weights")
    parser.add_argument("--max-atoms", type=int, default=62, help="larger molecules, slow ones, are left out")
    parser.add_argument("--limit-s", type=float, default=60.0, help="wall time for a molecule")
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)

    from mdlatent.conformers import molecules, ranker, scaffolds, sdf
    from mdlatent.conformers.learned_field import LearnedField

    found = sdf.read_files(args.sdf)
    part = scaffolds.split(found, args.fractions, args.seed)["train"]
    fields = [LearnedField.load(path) for path in args.field]
    if not fields:
        log.warning("no --field: pools are relaxed by MMFF94s alone, those of `torsions` are not; for these give the "
                    "fields of train_field --folds 2")  # fmt: skip
    used, examples = [], []
    for molecule in stage.progress(part, len(part), "molecules"):
        if molecule.mol.GetNumAtoms() > args.max_atoms:
            continue
        try:
            examples.append(example(molecule, args.limit_s, unseen(molecule, fields)))
            used.append(molecule)
        except molecules.MoleculeError as error:
            log.warning("left out %s: %s", molecule.name, error)
    weights, likelihood = ranker.fit(examples, args.penalty)
    provenance = {
        "source": args.source,
        "files": {path.name: files.digest(path) for path in args.sdf},
        "seed": args.seed,
        "fractions": list(args.fractions),
        "penalty": args.penalty,
        "fields": [field.digest for field in fields],
        "n_molecules": len(used),
        "n_conformers": sum(molecule.mol.GetNumConformers() for molecule in used),
        "molecules_sha256": hashlib.sha256("\n".join(molecule.name for molecule in used).encode()).hexdigest(),
        "log_likelihood": likelihood,
        "mdlatent": __version__,
        "rdkit": rdkit.__version__,
    }
    ranker.Ranker(weights, provenance).save(args.output)
    log.info("%s: from %d of %d training molecules, log-likelihood %.3f", args.output, len(used), len(part), likelihood)


def unseen(molecule: "Molecule", fields: "Sequence[LearnedField]") -> "LearnedField | None":
    """The field that left the molecule out; of one field alone, that one; None if there is none.

    Raises MoleculeError if all of several fields have seen it.
    """
    from mdlatent.conformers.molecules import MoleculeError

    if len(fields) < 2:
        return fields[0] if fields else None
    for field in fields:
        if molecule.key in field.provenance.get("left_out", ()):
            return field
    raise MoleculeError(f"got no field that left out {molecule.name} among {len(fields)}; give those of all folds, "
                        "train_field --folds 2")  # fmt: skip


def example(molecule: "Molecule", limit_s: float, field: "LearnedField | None" = None) -> "Example":
    """What is learned from one molecule: the pool for 2 K conformers of K references, and how near they are.

    Raises MoleculeError if there is no pool within `limit_s` seconds.
    """
    from mdlatent.conformers import many_rmsd, pool, ranker
    from mdlatent.conformers.embedding import Deadline
    from mdlatent.conformers.molecules import heavy_indices, positions

    mol, references = molecule.bare, positions(molecule.mol)
    options = replace(pool.Options(), torsions="uniform")
    made = pool.build(mol, 2 * len(references), 0, options, None, Deadline(limit_s), field)
    known = ranker.features(made.well_kcal, made.own_kcal, made.rmsd_angstrom, mol.GetNumHeavyAtoms(), made.field_kcal)
    heavy, same = heavy_indices(mol), many_rmsd.automorphisms(mol, pool.AUTOMORPHISMS)
    return ranker.Example(known, many_rmsd.rmsd_between(made.coordinates[:, heavy], references[:, heavy], same))


if __name__ == "__main__":
    stage.run(main)
