"""States of many frames, side by side with hdbscan (and scikit-learn): CPU seconds, memory, the same labels.

Ours is `density.fit`, the engine of the stage `cluster`. hdbscan runs with its exact spanning tree: its default, an
approximation, changes which frames are noise. Points are six tilted Gaussians in three dimensions and a twentieth of
even noise. Every run is a process of its own; loading and compiling are not counted, memory is that of the process.

Assignment: points that were not fitted get the label of their nearest of 20,000 fitted ones; hdbscan's way is
`approximate_predict`.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import Bar, Row, one_thread, progress

BENCH = "clustering"
SMALL, LARGE, FITTED = 100_000, 1_000_000, 20_000
MIN_SAMPLES = 10
BAR_SPEED, BAR_MEMORY_GB, BAR_ARI, BAR_ASSIGNMENT = 2.5, 1.0, 0.999, 20
OURS, THEIRS, SKLEARN = "mdlatent", "hdbscan, exact tree", "scikit-learn"
NEAREST, PREDICT = "mdlatent, nearest fitted point", "hdbscan, approximate_predict"


def mixture(n: int, seed: int = 0) -> np.ndarray:
    """(n, 3) float64 that are float32, as a latent is."""
    random = np.random.default_rng(seed)
    centres, axes = random.normal(size=(6, 3)) * 4, random.normal(size=(6, 3, 3)) * 0.5
    member = random.choice(6, n - n // 20, p=random.dirichlet(np.full(6, 4)))
    inside = np.einsum("nij,nj->ni", axes[member], random.normal(size=(len(member), 3))) + centres[member]
    z = np.concatenate([inside, random.uniform(-10, 10, size=(n // 20, 3))])
    return z[random.permutation(n)].astype(np.float32).astype(np.float64)


def cluster(system: str, z: np.ndarray) -> np.ndarray:
    """Labels (n,)."""
    size = max(50, len(z) // 200)
    if system == OURS:
        from mdlatent import density

        options = {"min_cluster_size": size, "min_samples": MIN_SAMPLES, "selection_method": "eom"}
        return density.fit(z, options).labels
    if system == SKLEARN:
        from sklearn.cluster import HDBSCAN

        return HDBSCAN(min_cluster_size=size, min_samples=MIN_SAMPLES + 1, copy=False).fit(z).labels_  # counts itself
    import hdbscan

    engine = hdbscan.HDBSCAN(
        min_cluster_size=size, min_samples=MIN_SAMPLES, approx_min_span_tree=False, core_dist_n_jobs=1
    )
    return engine.fit(z).labels_


def work(system: str, n: int, output: Path) -> dict[str, float]:
    """One run in this process."""
    from mdlatent import train

    if system == OURS:
        from mdlatent import density

        density.MANY_FRAMES = 1000  # so that what follows loads and compiles
    cluster(system, mixture(2000))
    z = mixture(n)
    start = time.process_time()
    labels = cluster(system, z)
    seconds = time.process_time() - start
    np.save(output, labels.astype(np.int32))
    return {"seconds": seconds, "peak_gb": train.peak_memory_gb("cpu")}


def at_size(n: int, rounds: int, systems: list[str]) -> tuple[list[Row], list[Bar]]:
    """All systems with n points, in turns."""
    from mdlatent.metrics.agreement import adjusted_rand, contingency

    case = f"{n:,} × 3"
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in systems}
    labels: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for name, found in runs.items():
                if turn and name == SKLEARN:
                    continue
                output = Path(folder) / "labels.npy"
                command = [sys.executable, __file__, "--work", name, str(n), str(output)]
                found.append(
                    json.loads(subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[-1])
                )
                labels[name] = np.load(output)
                progress(f"{case}, round {turn + 1} of {rounds}: {name}: {found[-1]['seconds']:.1f} s")
    seconds = {name: statistics.median(run["seconds"] for run in found) for name, found in runs.items()}
    rows = []
    for name, found in runs.items():
        agreement = adjusted_rand(contingency(labels[THEIRS], labels[name], noise=True))
        rows += [
            Row(BENCH, case, name, seconds[name], "CPU s"),
            Row(BENCH, case, name, max(run["peak_gb"] for run in found), "GB at most"),
            Row(BENCH, case, name, agreement, "ARI to hdbscan"),
        ]
    ours = {row.unit: row.value for row in rows if row.system == OURS}
    return rows, [
        Bar(BENCH, case, "times as fast as hdbscan", seconds[THEIRS] / seconds[OURS], BAR_SPEED),
        Bar(BENCH, case, "memory, GB", ours["GB at most"], BAR_MEMORY_GB, at_most=True),
        Bar(BENCH, case, "ARI to hdbscan, noise a label", ours["ARI to hdbscan"], BAR_ARI),
    ]


def assignment() -> tuple[list[Row], list[Bar]]:
    """Points a second that get a label after the fit."""
    import hdbscan
    from side_by_side import interleaved

    from mdlatent import density

    z = mixture(SMALL)
    fitted, rest = z[:FITTED], z[FITTED:]
    few = rest[:10_000]
    engine = hdbscan.HDBSCAN(
        min_cluster_size=100,
        min_samples=MIN_SAMPLES,
        approx_min_span_tree=False,
        core_dist_n_jobs=1,
        prediction_data=True,
    ).fit(fitted)
    seconds = interleaved(
        {NEAREST: lambda: density.nearest(fitted, rest), PREDICT: lambda: hdbscan.approximate_predict(engine, few)}, 3
    )
    speeds = {NEAREST: len(rest) / seconds[NEAREST], PREDICT: len(few) / seconds[PREDICT]}
    case = f"assignment to {FITTED:,} fitted points"
    rows = [Row(BENCH, case, name, speed, "points/s") for name, speed in speeds.items()]
    ratio = speeds[NEAREST] / speeds[PREDICT]
    return rows, [Bar(BENCH, case, "times as fast as approximate_predict", ratio, BAR_ASSIGNMENT)]


def run(large: bool = False) -> tuple[list[Row], list[Bar]]:
    """The small size and assignment; or the large one, and scikit-learn at the small one, which take minutes."""
    if large:
        found = [at_size(LARGE, 1, [OURS, THEIRS]), at_size(SMALL, 1, [OURS, THEIRS, SKLEARN])]
    else:
        found = [at_size(SMALL, 2, [OURS, THEIRS]), assignment()]
    rows: list[Any] = [row for rows, _ in found for row in rows]
    bars: list[Any] = [bar for _, bars in found for bar in bars]
    return rows, bars


if __name__ == "__main__":
    one_thread()
    print(json.dumps(work(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
