"""How well are dropped atoms predicted from kept ones, on later frames? `even` against `informative`.

Atoms are chosen and predictors fitted on the first half of the frames; the root mean square error (Å, per atom) of the
dropped atoms is taken on the second half. Two linear predictors: `ridge` uses the covariance of the first half alone,
`ridge + space` adds half of an exponential covariance in space (0.5 nm), without which few frames cannot tell.

    python benchmarks/reduction.py TOPOLOGY TRAJECTORY "name N CA C O" 400
"""

import argparse
import time

import numpy as np

from mdlatent.featurize import whole_chunks
from mdlatent.reduction import choose_columns, superpose
from mdlatent.select_atoms import even, select
from mdlatent.trajectory import Trajectory, load_topology


def covariance(x: np.ndarray, mean: np.ndarray, space: float, ridge: float) -> np.ndarray:
    sample = x.T @ x / len(x)
    distance = np.linalg.norm(mean[:, None] - mean[None], axis=-1)
    spread = np.sqrt(np.diag(sample).reshape(-1, 3).mean(axis=1))
    prior = np.kron(np.exp(-distance / 0.5) * spread[:, None] * spread[None], np.eye(3))
    return (1 - space) * sample + space * prior + ridge * np.trace(sample) / len(sample) * np.eye(len(sample))


def rmse_angstrom(total: np.ndarray, test: np.ndarray, kept: np.ndarray) -> float:
    mask = np.zeros(len(total) // 3, bool)
    mask[kept] = True
    mask = np.repeat(mask, 3)
    weights = np.linalg.solve(total[np.ix_(mask, mask)], total[np.ix_(mask, ~mask)])
    error = test[:, mask] @ weights - test[:, ~mask]
    return 10 * float(np.sqrt((error**2).sum(axis=1).mean() / ((~mask).sum() / 3)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topology")
    parser.add_argument("trajectory")
    parser.add_argument("selection")
    parser.add_argument("n_keep", type=int)
    args = parser.parse_args()
    topology = load_topology(args.topology)
    atoms = select(topology, args.selection, "benchmark", args.topology)
    trajectory = Trajectory(args.trajectory, topology, args.topology)
    _, chunks = whole_chunks(trajectory, atoms, max(1, trajectory.count_frames() // 1000), "auto")
    frames = superpose(np.concatenate([chunk.coordinates for chunk in chunks]).astype(np.float64))
    half = len(frames) // 2
    mean = frames[:half].mean(axis=0)
    x = (frames - mean).reshape(len(frames), -1)
    start = time.perf_counter()
    choices = {"even": even(len(atoms), args.n_keep), "informative": choose_columns(frames[:half], args.n_keep)}
    seconds = time.perf_counter() - start
    print(f"{len(frames)} frames, {len(atoms)} → {args.n_keep} atoms, chosen on {half} frames in {seconds:.1f} s")
    for name, space, ridge in (("ridge", 0.0, 1e-2), ("ridge + space", 0.5, 1e-3)):
        total = covariance(x[:half], mean, space, ridge)
        figures = ", ".join(f"{key} {rmse_angstrom(total, x[half:], kept):.3f} Å" for key, kept in choices.items())
        print(f"  {name}: {figures}")


if __name__ == "__main__":
    main()
