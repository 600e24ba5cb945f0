"""What the workflow itself costs with many simulations: seconds of dry runs, jobs, and overhead of a real run.

    python benchmarks/many_simulations.py --topology trp_cage.pdb --trajectory trp_cage.dcd

writes a study of 1,000 simulations, each a few frames cut from the trajectory, and plans it; then a study of 30, which
it runs, and plans again when nothing is left to do. Everything is written to a folder that is removed at the end, or to
`--folder`. Prints a table, and with `--profile` where a dry run's time goes.
"""

import argparse
import csv
import os
import pstats
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mdtraj
import yaml

ROOT = Path(__file__).resolve().parent.parent
BAR_DRY_RUN_S = 4.0
REPEATS = 3


def write_study(folder: Path, n: int, source: mdtraj.Trajectory, topology: Path, n_frames: int) -> None:
    """A study of `n` simulations: `n_frames` frames each, cut from the source one after another, round and round."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    shutil.copy(topology, folder / "data" / f"topology{topology.suffix}")
    n_pieces = len(source) // n_frames
    rows = []
    for k in range(n):
        path = folder / "data" / f"s{k:04d}.dcd"
        start = k % n_pieces * n_frames
        if not path.exists():
            source[start : start + n_frames].save_dcd(str(path))
        rows.append([f"s{k:04d}", f"data/topology{topology.suffix}", f"data/{path.name}", 100])
    with open(folder / "table.tsv", "w", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t")
        writer.writerows([["name", "topology", "trajectory", "time_step_ps"], *rows])
    values = {
        "study": "many",
        "simulations": "table.tsv",
        "split": {"n_blocks": 5, "test_blocks": [1, 3], "gap_frames": 0},
        "models": [{"family": "pca_distances", "latent_dim": 3}],
        "evaluate": {"lag_frames": [1]},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def snakemake(folder: Path, *options: str, profile: Path | None = None) -> tuple[float, float, str]:
    """Seconds that Snakemake took, those of CPU (its jobs included), and what it printed; ends if it fails."""
    command = [sys.executable, *(["-m", "cProfile", "-o", str(profile)] if profile else []), "-m", "snakemake"]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--profile", str(ROOT / "profiles" / "local")]
    command += ["--directory", str(folder), "--configfile", str(folder / "study.yaml"), *options]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        sys.exit(result.stdout[-3000:] + result.stderr[-6000:])
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu_s, result.stdout + result.stderr


def jobs(text: str) -> dict[str, int]:
    """Jobs of each rule, from the table that Snakemake prints."""
    table = text.split("Job stats:", 1)[-1].split("\n\n", 1)[0]
    rows = [line.split() for line in table.splitlines() if len(line.split()) == 2]
    return {rule: int(count) for rule, count in rows if count.isdigit()}


def plan(folder: Path, what: str) -> dict[str, int]:
    """Print the seconds of a dry run, and return its jobs."""
    runs = [snakemake(folder, "--dry-run", "--quiet", "rules") for _ in range(REPEATS)]
    wall, cpu = (statistics.median(run[k] for run in runs) for k in (0, 1))
    lowest = min(run[0] for run in runs)
    found = jobs(runs[0][2])
    print(f"{what}: {wall:.2f} s (lowest {lowest:.2f}; CPU {cpu:.2f} s), {found.get('total', 0)} jobs")
    return found


def own_seconds(folder: Path) -> float:
    """Seconds that jobs took by themselves: their `benchmark:` files, where a rule has one."""
    total = 0.0
    for path in (folder / "results").rglob("benchmarks/**/*.tsv"):
        with open(path) as handle:
            total += sum(float(row["s"]) for row in csv.DictReader(handle, delimiter="\t"))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", type=Path, required=True)
    parser.add_argument("--trajectory", type=Path, required=True)
    parser.add_argument("--simulations", type=int, default=1000, help="in the study that is planned")
    parser.add_argument("--run", type=int, default=30, help="simulations in the study that is run; 0: none")
    parser.add_argument("--frames", type=int, default=20, help="of each simulation")
    parser.add_argument("--folder", type=Path, help="keep the studies here")
    parser.add_argument("--profile", type=int, metavar="LINES", help="of the profile of a dry run, by own time")
    args = parser.parse_args()
    source = mdtraj.load(str(args.trajectory), top=str(args.topology))
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).absolute()
        many = folder / "many"
        write_study(many, args.simulations, source, args.topology, args.frames)
        found = plan(many, f"dry run of {args.simulations} simulations")
        print("  " + ", ".join(f"{rule} {count}" for rule, count in found.items()))
        if args.profile:
            file = folder / "dry-run.profile"
            snakemake(many, "--dry-run", "--quiet", "rules", profile=file)
            pstats.Stats(str(file)).sort_stats("tottime").print_stats(args.profile)
            pstats.Stats(str(file)).sort_stats("cumtime").print_stats(args.profile)


if __name__ == "__main__":
    os.environ.update(OMP_NUM_THREADS="1")
    main()
