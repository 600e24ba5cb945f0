"""Train the conformation autoencoder on multi-conformer SDF files, and measure it on what is held out.

The molecules are split by Murcko scaffold as in mdlatent.conformers.train. Writes into the output folder: model.pt;
curve.csv, the learning curve, and curve.svg; errors.parquet, a row per test conformer with its RMSD after
reconstruction (heavy atoms, rings closed, least over symmetries) by the model and by PCA of the molecule's own internal
coordinates; summary.json. A run that was killed goes on from its last epoch.
"""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlatent import __version__, files, stage
from mdlatent.conformers import split_options

if TYPE_CHECKING:
    import pandas as pd

    from mdlatent.conformers.autoencoder import ConformationAutoencoder
    from mdlatent.conformers.conformations import Sets

log = logging.getLogger("mdlatent")


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, read, split, train, measure, write."""
    parser = stage.parser("conformers.fit_autoencoder", __doc__)
    parser.add_argument("sdf", nargs="+", type=Path, help="SDF files (.sdf, .sdf.gz)")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for model.pt and the measures")
    parser.add_argument("--source", default="", help="where the data come from and their licence, kept in the file")
    parser.add_argument("--latent-dim", type=int, default=16, help="size of the latent")
    parser.add_argument("--variational", action="store_true", help="the VAE; needed to generate conformers")
    parser.add_argument("--beta", type=float, help="weight of the KL divergence")
    parser.add_argument("--form", choices=("published", "linked"), default="linked", help="of the nets, see docs")
    parser.add_argument("--twisted", type=float, help="share of training conformers with randomly turned bonds")
    parser.add_argument("--epochs", type=int, help="passes over the molecules")
    parser.add_argument("--conformers", type=int, help="conformers of each molecule in a batch")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of what is drawn in training")
    parser.add_argument("--split-seed", type=int, default=0, help="seed of the split, and of the conformers held out")
    split_options.add_fractions(parser)
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    _run(args)


def _run(args: argparse.Namespace) -> None:
    from dataclasses import asdict, replace

    import torch

    from mdlatent.checkpoint import Checkpoints, key_of
    from mdlatent.conformers import autoencoder_file, scaffolds, sdf, train_autoencoder
    from mdlatent.conformers.autoencoder import ConformationAutoencoder
    from mdlatent.conformers.conformations import prepare
    from mdlatent.conformers.curve_figure import draw

    torch.set_num_threads(1)
    parts = scaffolds.split(sdf.read_files(args.sdf), args.fractions, args.split_seed)
    sets = prepare(parts, args.split_seed)
    given = {"epochs": args.epochs, "n_conformers": args.conformers, "beta": args.beta, "twisted": args.twisted}
    options = replace(train_autoencoder.Options(), **{key: value for key, value in given.items() if value is not None})
    torch.manual_seed(args.seed)
    model = ConformationAutoencoder(args.latent_dim, args.variational, args.form)
    provenance = {
        "source": args.source,
        "files": {path.name: files.digest(path) for path in args.sdf},
        "split_seed": args.split_seed,
        "fractions": list(args.fractions),
        "seed": args.seed,
        "options": asdict(options),
        "n_molecules": len(sets.train),
        "n_conformers": sum(len(one.coordinates_angstrom) for one in sets.train),
        "mdlatent": __version__,
        "torch": torch.__version__,
    }
    checkpoints = Checkpoints(args.output_dir / "checkpoints", key_of(provenance, model.options))
    watched = [replace(one, coordinates_angstrom=one.coordinates_angstrom[:1]) for one in sets.unseen_validation]
    rows = train_autoencoder.train(
        model, sets.train, sets.seen_validation, watched, options, args.seed, args.output_dir / "curve.csv", checkpoints
    )
    autoencoder_file.save(args.output_dir / "model.pt", model, provenance)
    checkpoints.clear()
    files.write_text(args.output_dir / "curve.svg", draw({"VAE" if args.variational else "AE": rows}))
    table = errors(model, sets)
    with files.write_beside(args.output_dir / "errors.parquet") as path:
        table.to_parquet(path)
    result = {"model": model.options, **provenance, "minutes": float(rows[-1]["seconds"]) / 60, "rmsd": _means(table)}
    files.write_json(args.output_dir / "summary.json", result)
    for name, row in result["rmsd"].items():
        print(f"{name:18s} " + ", ".join(f"{key} {value:.3f}" for key, value in row.items()))


def errors(model: "ConformationAutoencoder", sets: "Sets") -> "pd.DataFrame":
    """RMSD in Å of each test conformer of seen molecules, and of one of each other, by the model and by PCA.

    PCA is fitted for each molecule on its training conformers, with as many components as the latent has, or as there
    are; for molecules that are not in the training set there is none (NaN).
    """
    from dataclasses import replace

    import pandas as pd

    from mdlatent.conformers.conformations import symmetric_rmsd_angstrom
    from mdlatent.conformers.pca_internal import pca_reconstruct
    from mdlatent.conformers.reconcile import reconcile
    from mdlatent.conformers.train_autoencoder import rmsd_angstrom

    trained = {one.example.name: one.coordinates_angstrom for one in sets.train}
    rows = []
    for part, members in (("seen", sets.seen_test), ("unseen", sets.unseen_test)):
        for one in members:
            x, internal, name = one.coordinates_angstrom[:1], one.example.internal, one.example.name
            by_model = rmsd_angstrom(model, [replace(one, coordinates_angstrom=x)], close_rings=True)
            by_pca = [float("nan")] * len(x)
            if part == "seen":
                decoded = pca_reconstruct(internal, trained[name], x, model.latent_dim)
                by_pca = symmetric_rmsd_angstrom(one.molecule, reconcile(internal, decoded), x).tolist()
            rows += [
                {"part": part, "molecule": name, "broken": one.broken, "n_heavy": x.shape[1], "rmsd_angstrom": a,
                 "pca_rmsd_angstrom": b}
                for a, b in zip(by_model.tolist(), by_pca, strict=True)
            ]  # fmt: skip
    return pd.DataFrame(rows)


def _means(table: "pd.DataFrame") -> dict[str, dict[str, Any]]:
    """Means and medians over conformers, by part."""
    result = {}
    for part, rows in table.groupby("part", sort=False):
        result[str(part)] = {
            f"{name}_{how}": float(getattr(rows[f"{column}rmsd_angstrom"], how)())
            for name, column in (("model", ""), ("pca", "pca_"))
            for how in ("mean", "median")
            if rows[f"{column}rmsd_angstrom"].notna().any()
        }
    return result


if __name__ == "__main__":
    stage.run(main)
