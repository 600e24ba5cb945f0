"""Options of the command line for what generators have learned: files of your own in place of the package's."""

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_arguments", "read"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --statistics, --ranker, --field and --autoencoder."""
    package = "(default: the one of the package)"
    parser.add_argument("--statistics", type=Path, help=f"torsion statistics of conformers.train {package}")
    parser.add_argument("--ranker", type=Path, help=f"ranker of conformers.train_ranker {package}")
    parser.add_argument("--field", type=Path, help=f"learned force field of conformers.train_field {package}")
    parser.add_argument("--autoencoder", type=Path, help="trained weights (model.pt) for the generator vae")


def read(args: argparse.Namespace) -> dict[str, Any]:
    """What was given, as `generators.generate` takes it. Raises DataError for a file that is something else."""
    from mdlatent.conformers.learned_field import LearnedField
    from mdlatent.conformers.ranker import Ranker
    from mdlatent.conformers.torsion_statistics import TorsionStatistics

    return {
        "statistics": TorsionStatistics.load(args.statistics) if args.statistics else None,
        "ranker": Ranker.load(args.ranker) if args.ranker else None,
        "field": LearnedField.load(args.field) if args.field else None,
        "autoencoder": args.autoencoder,
    }
