"""Speed and memory side by side with other programs, one thread each, in one run: `make bench`.

    python benchmarks/run.py [--only distances reading clustering conformers training feed] [--large]

Writes results/bench/bench.json, a list of {"bench", "case", "system", "value", "unit", "ratio_to_limit"}; bars.json,
what must be reached and whether it was; about.json, the machine; and bench.svg. Ends with an error where a bar is
missed.
`--large` adds the clustering of a million points, and scikit-learn at 100,000: several minutes more.
docs/make_performance.py puts the figures into docs/performance.md.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from figure import draw
from side_by_side import Bar, Row, one_thread, plain, progress, say

from mdlatent import files

FOLDER = Path("results/bench")
BENCHES = [
    "distances",
    "reading",
    "clustering",
    "conformers",
    "training",
    "feed",
]  # feed asks what a training step takes
PEERS = ["mdtraj", "MDAnalysis", "scipy", "torch", "hdbscan", "scikit-learn", "numpy", "numba", "h5py", "rdkit"]


def training() -> tuple[list[Row], list[Bar]]:
    """What benchmarks/training.py measures, in a process of its own; its bars are checked again here."""
    here = Path(__file__).parent
    subprocess.run([sys.executable, str(here / "training.py"), "--rounds", "2"], check=False)
    found = files.read_json(FOLDER / "training.json")
    rows, bars = [], []
    for row in found["rows"]:
        case = f"{row['n_atoms']:,} atoms, {row['latent_dim']} dimensions"
        speed, ratio = row["frames_per_cpu_second"], row["ratio_to_plain"]
        rows += [
            Row("training", case, row["system"], speed, "frames per CPU s"),
            Row("training", case, row["system"], row["peak_memory_gb"], "GB at most"),
        ]
        if row["least_ratio"]:
            bars.append(Bar("training", case, "times as fast as plain conv2d", ratio, row["least_ratio"]))
    whole = found["whole_training"]
    case = f"{whole['n_atoms']:,} atoms, a whole training"
    rows.append(Row("training", case, "coordinate", whole["frames_per_cpu_second"], "frames per CPU s"))
    rows.append(Row("training", case, "coordinate", whole["peak_memory_gb"], "GB at most"))
    bars.append(Bar("training", case, "memory, GB", whole["peak_memory_gb"], 1.0, at_most=True))
    return rows, bars


def measure(name: str, large: bool) -> tuple[list[Row], list[Bar]]:
    """One of BENCHES."""
    if name == "distances":
        import bench_distances as bench
    elif name == "reading":
        import bench_reading as bench
    elif name == "feed":
        import bench_feed as bench
    elif name == "conformers":
        import bench_conformers as bench
    elif name == "training":
        return training()
    else:
        import bench_clustering

        return bench_clustering.run(large)
    return bench.run()


def merged(path: Path, new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the file holds, without what is measured anew."""
    old = files.read_json(path) if path.exists() else []
    fresh = {(row["bench"], row["case"]) for row in new}
    return [row for row in old if (row["bench"], row["case"]) not in fresh] + new


def about(started: float, load: float) -> dict[str, Any]:
    """The machine and the versions."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            cpu = line.split(":")[1].strip()
            break
    return {
        "cpu": cpu,
        "cpus": os.cpu_count(),
        "load_at_start": round(load, 1),
        "load_at_end": round(os.getloadavg()[0], 1),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "versions": {name: version(name) for name in PEERS},
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=BENCHES, help="leave the others as they were")
    parser.add_argument("--large", action="store_true", help="clustering of a million points (minutes)")
    args = parser.parse_args()
    one_thread()
    started, load = time.monotonic(), os.getloadavg()[0]
    if args.only is None:
        for name in ("bench.json", "bars.json"):
            if not args.large:
                (FOLDER / name).unlink(missing_ok=True)
    bars: list[Bar] = []
    for name in args.only or (["clustering"] if args.large else BENCHES):
        progress(name)
        rows, found = measure(name, args.large)
        say(rows, found)
        bars += found
        for file, new in (("bench.json", plain(rows)), ("bars.json", plain(found))):
            files.write_json(FOLDER / file, merged(FOLDER / file, new))
    files.write_text(FOLDER / "bench.svg", draw(files.read_json(FOLDER / "bench.json")))
    if not args.large:
        files.write_json(FOLDER / "about.json", about(started, load))
    progress(f"written: {FOLDER}/bench.json, bars.json, bench.svg ({(time.monotonic() - started) / 60:.1f} minutes)")
    if missed := [bar for bar in bars if not bar.met]:
        words = (
            f"{bar.bench}, {bar.case}: {bar.what}: got {bar.value:.4g}, expected {bar.sign} {bar.least:.4g}"
            for bar in missed
        )
        sys.exit("\n".join(f"error: {text}" for text in words))


if __name__ == "__main__":
    main()
