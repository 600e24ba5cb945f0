"""Show the latent of one molecule: 200 conformers, their two principal components, a structure per cluster.

Takes a molecule as SMILES, of which conformers are made by ETKDGv3, or an SDF file with conformers of one molecule.
Writes into the output folder: latent.csv, a row per conformer; clusters.sdf, the conformer nearest to each cluster's
centre; map.svg, both as a picture; interpolation.sdf, structures on the straight line in the latent between two of
them (by default the representatives that are farthest apart).
"""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mdlatent import files, stage

if TYPE_CHECKING:
    import pandas as pd
    from rdkit import Chem

log = logging.getLogger("mdlatent")


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, make or read conformers, encode, cluster, write."""
    parser = stage.parser("conformers.latent_map", __doc__)
    parser.add_argument("model", type=Path, help="model.pt of mdlatent.conformers.fit_autoencoder")
    parser.add_argument("molecule", help="SMILES, or an SDF file (.sdf, .sdf.gz) with conformers of one molecule")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for what is written")
    parser.add_argument("-n", type=int, default=200, help="conformers made of a SMILES")
    parser.add_argument("--clusters", type=int, default=6, help="number of clusters (K-means on the latent)")
    parser.add_argument("--between", type=int, nargs=2, metavar=("I", "J"), help="conformers to interpolate between")
    parser.add_argument("--steps", type=int, default=21, help="structures of the interpolation")
    parser.add_argument("--seed", type=int, default=0, help="seed of the conformers and of the clusters")
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    _run(args)


def _run(args: argparse.Namespace) -> None:
    import torch

    from mdlatent.conformers import autoencoder_file
    from mdlatent.conformers.decoded_conformers import Codec
    from mdlatent.conformers.map_figure import draw
    from mdlatent.conformers.molecules import heavy_indices, positions
    from mdlatent.errors import ConfigError

    torch.set_num_threads(1)
    mol = _conformers(args.molecule, args.n, args.seed)
    codec = Codec(autoencoder_file.load(args.model)[0], mol)
    x = torch.from_numpy(positions(mol)[:, heavy_indices(mol)])
    if args.between and not all(0 <= one < len(x) for one in args.between):
        raise ConfigError(f"--between: got {args.between}, expected two numbers from 0 to {len(x) - 1}")
    z = codec.encode(x).numpy()
    table = latent_table(z, args.clusters, args.seed)
    with files.write_beside(args.output_dir / "latent.csv") as path:
        table.to_csv(path, index=False, float_format="%.5f")
    chosen = np.flatnonzero(table["representative"])
    chosen = chosen[np.argsort(table["cluster"].to_numpy()[chosen])]
    labels = [f"cluster {table['cluster'][one]}, conformer {one}" for one in chosen]
    _write(args.output_dir / "clusters.sdf", mol, chosen.tolist(), labels)
    files.write_text(args.output_dir / "map.svg", draw(table, codec.reference.molecule, x[chosen].numpy()))
    if args.between:
        one, other = args.between
    else:
        apart = np.linalg.norm(z[chosen][:, None] - z[chosen][None], axis=-1)
        one, other = (int(chosen[k]) for k in np.unravel_index(apart.argmax(), apart.shape))
    made = codec.between(x[one], x[other], args.steps)
    shares = np.linspace(0, 1, args.steps)
    labels = [f"conformer {one} to {other}, {share:.2f}" for share in shares]
    _write(args.output_dir / "interpolation.sdf", made, list(range(args.steps)), labels)
    explained = table.attrs["explained"]
    log.info(
        "%s: %d conformers, two components hold %.0f %% of the latent's variance, %d clusters; %d structures between "
        "conformers %d and %d", args.output_dir, len(x), 100 * sum(explained), len(chosen), args.steps, one, other,
    )  # fmt: skip


def latent_table(z: np.ndarray, n_clusters: int, seed: int = 0) -> "pd.DataFrame":
    """A row per conformer of latents (C, latent_dim): `pc1`, `pc2`, `cluster`, `representative`, and z0 …

    Clusters are those of K-means on all of the latent, numbered from 0, the largest first; there are at most as many as
    distinct latents. Its `attrs["explained"]` has the two components' shares of the variance. Components point to where
    their largest loading is positive.
    """
    import pandas as pd
    from sklearn.cluster import KMeans

    centred = z.astype(np.float64) - z.mean(0, dtype=np.float64)
    _, size, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(np.take_along_axis(axes[:2], np.abs(axes[:2]).argmax(1)[:, None], 1))
    components = np.zeros((len(z), 2))
    components[:, : len(axes)] = centred @ axes.T
    n_clusters = min(n_clusters, len(np.unique(z, axis=0)))
    fitted = KMeans(n_clusters, n_init=10, random_state=seed).fit(centred)
    order = np.argsort(-np.bincount(fitted.labels_, minlength=n_clusters), kind="stable")
    cluster = np.argsort(order)[fitted.labels_]
    away = np.linalg.norm(centred - fitted.cluster_centers_[fitted.labels_], axis=1)
    nearest = [int(np.where(cluster == k, away, np.inf).argmin()) for k in range(n_clusters)]
    table = pd.DataFrame(
        {"conformer": range(len(z)), "pc1": components[:, 0], "pc2": components[:, 1], "cluster": cluster}
    )
    table["representative"] = np.isin(np.arange(len(z)), nearest).astype(int)
    for number in range(z.shape[1]):
        table[f"z{number}"] = z[:, number]
    table.attrs["explained"] = (size[:2] ** 2 / max(float((size**2).sum()), 1e-30)).tolist()
    return table


def _conformers(given: str, n: int, seed: int) -> "Chem.Mol":
    """Conformers of a SMILES, all of one handedness, or those of the one molecule in a file."""
    from rdkit import Chem

    from mdlatent.conformers import molecules, sdf
    from mdlatent.conformers.embedding import Deadline, embed
    from mdlatent.conformers.generators import LIMIT_S
    from mdlatent.errors import DataError

    if Path(given).is_file():
        found = sdf.read_files([Path(given)])
        if len(found) != 1:
            raise DataError(f"{given}: got {len(found)} molecules, expected the conformers of one; keep one of them")
        return found[0].mol
    mol = molecules.from_smiles(given).mol
    mol = molecules.with_conformers(mol, embed(mol, 1, seed, Deadline(LIMIT_S)))
    Chem.AssignAtomChiralTagsFromStructure(mol)  # equal neighbours are then listed the same way round in all
    return molecules.with_conformers(mol, embed(mol, n, seed, Deadline(LIMIT_S)))


def _write(path: Path, mol: "Chem.Mol", which: list[int], labels: list[str]) -> None:
    from rdkit import Chem

    work = Chem.Mol(mol)
    with files.write_beside(path) as temporary, Chem.SDWriter(str(temporary)) as writer:
        for index, label in zip(which, labels, strict=True):
            work.SetProp("_Name", label)
            writer.write(work, confId=index)


if __name__ == "__main__":
    stage.run(main)
