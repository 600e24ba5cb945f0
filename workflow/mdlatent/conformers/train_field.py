"""Learn the force field of conformers from PM7, from the training scaffolds alone.

The molecules of the references are split by Murcko scaffold as by mdlatent.conformers.train. Geometries of those of the
training part, and their references, are labelled with energies and slopes of PM7 by MOPAC, and MMFF94s is corrected to
agree with them. Each further round labels minima of the field learned so far and goes on from it. Molecules of
--more are used if neither their scaffold nor their InChIKey skeleton is one of the validation or test part. Validation
molecules are labelled to measure on; test molecules are not looked at.

Labels and the field of each round are kept in a folder: a run that was stopped goes on from there.

A ranker wants pools of molecules that the field has not seen: with --folds 2 two more fields are learned, each with
half of the training scaffolds left out, for train_ranker.
"""

import argparse
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rdkit

from mdlatent import __version__, files, stage
from mdlatent.conformers import split_options
from mdlatent.errors import ConfigError

if TYPE_CHECKING:
    from rdkit import Chem

    from mdlatent.conformers.field_graph import FieldGraph
    from mdlatent.conformers.field_net import FieldNet
    from mdlatent.conformers.fit_field import Example
    from mdlatent.conformers.mmff_relax import SideBySide
    from mdlatent.conformers.mmff_terms import Terms
    from mdlatent.conformers.molecules import Molecule
    from mdlatent.conformers.pm7 import Labels

log = logging.getLogger("mdlatent")

REFERENCES = 10  # of a molecule that are labelled
RELAXED = 300  # evaluations of the energy: references, to see how far they move


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, read, split, label, learn, measure, write."""
    parser = stage.parser("conformers.train_field", __doc__)
    parser.add_argument("sdf", nargs="+", type=Path, help="SDF files with reference conformers (.sdf, .sdf.gz)")
    parser.add_argument("--more", nargs="+", type=Path, default=[], help="SDF files with further training molecules")
    parser.add_argument("--output", type=Path, required=True, help="file of the field (.npz)")
    parser.add_argument("--labels", type=Path, help="folder where labels are kept (default: beside the output)")
    parser.add_argument("--source", default="", help="where the data come from and their licence, kept in the file")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split, of geometries and of the training")
    split_options.add_fractions(parser)
    parser.add_argument("--folds", type=int, default=0, help="so many more fields, each with a part left out")
    parser.add_argument(
        "--rounds", type=int, default=2, help="of labels: the first by MMFF94s, others by what it became"
    )
    parser.add_argument("--epochs", type=int, help="passes over the molecules, in the first round")
    parser.add_argument("--later-epochs", type=int, help="the same in each further round")
    parser.add_argument("--width", type=int, help="of the network")
    parser.add_argument("--layers", type=int, help="of the network: rounds of messages")
    parser.add_argument("--max-atoms", type=int, default=62, help="larger molecules, slow ones, are left out")
    parser.add_argument("--processes", type=int, default=1, help="that label molecules side by side")
    parser.add_argument("--limit-s", type=float, default=120.0, help="wall time for the labels of a molecule")
    args = parser.parse_args(argv)
    for name in ("rounds", "processes", "max_atoms"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')}: got {getattr(args, name)}, expected at least 1")
    if args.folds < 0 or args.folds == 1:
        raise ConfigError(f"--folds: got {args.folds}, expected 0 for none, or at least 2")
    stage.start_logging(args.log)
    stage.limit_threads(1)
    _run(args)


def _run(args: argparse.Namespace) -> None:
    from dataclasses import asdict, replace

    import torch

    from mdlatent.conformers import field_rounds, fit_field, pm7
    from mdlatent.conformers.field_geometries import LATER, Counts
    from mdlatent.conformers.field_labels import Task, keep, label_all
    from mdlatent.conformers.learned_field import LearnedField

    torch.set_num_threads(1)
    mopac = pm7.library().VERSION
    train, n_own, validation = _molecules(args)
    folder = args.labels or args.output.with_suffix(".labels")
    task = Task(Counts(), REFERENCES, None, folder, args.seed, args.limit_s)
    given = {name: getattr(args, name) for name in ("epochs", "later_epochs", "width", "layers")}
    options = replace(fit_field.Options(), **{name: value for name, value in given.items() if value is not None})

    measured = field_rounds.examples(validation, [label_all(validation, task, args.processes)])
    errors: dict[str, dict[str, float]] = {}
    if measured:
        errors["MMFF94s"] = _errors(lambda graph: graph.terms, _mmff, measured, validation)
        _say("MMFF94s", errors["MMFF94s"], len(measured))
    rounds: list[list[Labels | None]] = []
    begun: FieldNet | None = None
    for number in range(args.rounds):
        rounds.append(label_all(train, task, args.processes))
        examples = field_rounds.examples(train, rounds)
        n_geometries = sum(len(one.energies) for one in examples)
        log.info("round %d of %d: %d molecules, %d geometries", number + 1, args.rounds, len(examples), n_geometries)
        begun = net = field_rounds.fitted(examples, options, args.seed, begun, folder)
        if measured:
            errors["learned field"] = _errors(net, LearnedField(net.weights(), {}).relaxer, measured, validation)
            _say("learned field", errors["learned field"], len(measured))
        if number + 1 < args.rounds:
            path = keep(LearnedField(net.weights(), {"round": number}), folder)
            task = replace(task, counts=LATER, references=0, field=path)
    provenance = {
        "source": args.source,
        "files": {path.name: files.digest(path) for path in [*args.sdf, *args.more]},
        "seed": args.seed,
        "fractions": list(args.fractions),
        "rounds": args.rounds,
        "options": asdict(options),
        "n_molecules": len(examples),
        "n_geometries": n_geometries,
        "molecules_sha256": hashlib.sha256("\n".join(one.name for one in examples).encode()).hexdigest(),
        "n_validation": len(measured),
        "validation": errors,
        "method": "PM7",
        "mopac": mopac,
        "mdlatent": __version__,
        "rdkit": rdkit.__version__,
        "torch": torch.__version__,
    }
    LearnedField(net.weights(), provenance).save(args.output)
    log.info("%s: from %d molecules", args.output, len(examples))
    for number in range(1, args.folds + 1):
        stays, left_out = _fold(train[:n_own], train[n_own:], number, args.folds, args.seed)
        log.info("fold %d of %d: %d molecules are left out", number, args.folds, len(left_out))
        some = [[labels[index] for index in stays] for labels in rounds]
        net = field_rounds.again([train[index] for index in stays], some, options, args.seed, folder)
        less = {"source": args.source, "fold": number, "mdlatent": __version__, "left_out": left_out}
        output = args.output.with_name(f"{args.output.stem}-fold{number}.npz")
        LearnedField(net.weights(), less).save(output)
        log.info("%s: without them and what is like them", output)


def _molecules(args: argparse.Namespace) -> "tuple[list[Molecule], int, list[Molecule]]":
    """Molecules to learn from, how many of these, the first, are references, and molecules to measure on."""
    from mdlatent.conformers import scaffolds, sdf

    parts = scaffolds.split(sdf.read_files(args.sdf), args.fractions, args.seed)
    own, validation = (_usable(parts[name], args.max_atoms) for name in ("train", "validation"))
    added: list[Molecule] = []
    if args.more:
        more = sdf.read_files(args.more)
        added = scaffolds.apart(more, parts["train"], parts["validation"] + parts["test"])
        added = [one for one in added if not one.broken]
        log.info("%d of %d further molecules are used", len(added), len(more))
    return own + _usable(added, args.max_atoms), len(own), validation


def _fold(
    own: "list[Molecule]", added: "list[Molecule]", number: int, n_folds: int, seed: int
) -> tuple[list[int], list[str]]:
    """Which of own + added stay, and the InChIKey skeletons of those of `own` that are left out: with them goes what
    has their scaffold or skeleton."""
    from mdlatent.conformers import scaffolds

    stays, out = scaffolds.fold(own, number, n_folds, seed)
    kept = {id(one) for one in (*stays, *scaffolds.apart(added, stays, out))}
    return [index for index, one in enumerate(own + added) if id(one) in kept], [one.key for one in out]


def _usable(molecules: "Sequence[Molecule]", max_atoms: int) -> "list[Molecule]":
    """Molecules small enough and of the elements that are learned."""
    from mdlatent.conformers.field_graph import ELEMENTS

    return [
        one
        for one in molecules
        if one.mol.GetNumAtoms() <= max_atoms and all(atom.GetAtomicNum() in ELEMENTS for atom in one.mol.GetAtoms())
    ]


def _errors(
    terms: "Callable[[FieldGraph], Terms]",
    relaxer: "Callable[[Chem.Mol], SideBySide]",
    measured: "Sequence[Example]",
    molecules: "Sequence[Molecule]",
) -> dict[str, float]:
    """Of a field: errors at labelled geometries, and how far references are moved."""
    from mdlatent.conformers.fit_field import errors

    return {**errors(terms, measured)._asdict(), "moved_angstrom": _moved(relaxer, molecules)}


def _say(name: str, errors: dict[str, float], n_measured: int) -> None:
    log.info("%s on %d validation molecules, medians: energies %.2f kcal/mol, slopes %.2f kcal/mol/Å, references "
             "moved %.3f Å", name, n_measured, *errors.values())  # fmt: skip


def _mmff(mol: "Chem.Mol") -> "SideBySide":
    from mdlatent.conformers.mmff_relax import SideBySide

    return SideBySide.mmff(mol)


def _moved(field: "Callable[[Chem.Mol], SideBySide]", molecules: "Sequence[Molecule]") -> float:
    """How far relaxation moves the references: RMSD of heavy atoms in Å, mean of each molecule, median over them.

    It sees what errors at labelled geometries do not: minima that the field has made up.
    """
    import numpy as np

    from mdlatent.conformers import many_rmsd, pool
    from mdlatent.conformers.molecules import heavy_indices, positions

    means = []
    for one in molecules:
        mol, x = one.bare, positions(one.mol)[:REFERENCES]
        heavy, same = heavy_indices(mol), many_rmsd.automorphisms(mol, pool.AUTOMORPHISMS)
        ends, _ = field(mol).relax(x, RELAXED)
        means.append(np.diag(many_rmsd.rmsd_between(x[:, heavy], ends[:, heavy], same)).mean())
    return float(np.median(means))


if __name__ == "__main__":
    stage.run(main)
