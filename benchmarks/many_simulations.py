"""What the workflow itself costs with many simulations: dry runs, and jobs beside the work that they do.

    python benchmarks/many_simulations.py --topology trp_cage.pdb --trajectory trp_cage.dcd

plans a study of 1,000 simulations, each some frames cut from the trajectory; then it reads and maps 1 and 300 of them
in one job each, whose difference is the work that a simulation takes, the rest the start of a job. CPU seconds are
those of Snakemake and of all that it starts, on one core. With `--run-all` the whole study of 1,000 runs, and is
planned again when nothing is left to do. Everything is written to a folder that is removed at the end, or to
`--folder`.
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
from collections.abc import Callable
from pathlib import Path

import mdtraj
import yaml

ROOT = Path(__file__).resolve().parent.parent
STUDY = "results/many"
REPEATS = 3


def write_study(
    folder: Path, n: int, source: mdtraj.Trajectory, topology: Path, n_frames: int, per_job: str, family: str
) -> None:
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
        "simulations_per_job": per_job if per_job == "auto" else int(per_job),
        "split": {"n_blocks": 5, "test_blocks": [1, 3], "gap_frames": 0},
        "models": [{"name": "model", "family": family, "latent_dim": 3}],
        "train": {"epochs": 1},
        "evaluate": {"lag_frames": [1]},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def snakemake(folder: Path, *options: str, profile: Path | None = None) -> tuple[float, float, str]:
    """Seconds that Snakemake took, those of CPU (its jobs included), and what it printed; ends if it fails."""
    command = [sys.executable, *(["-m", "cProfile", "-o", str(profile)] if profile else []), "-m", "snakemake"]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--profile", str(ROOT / "profiles" / "local")]
    command += ["--directory", str(folder), "--configfile", str(folder / "study.yaml"), *options]
    start, before = time.perf_counter(), cpu_of_children()
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    seconds, cpu_s = time.perf_counter() - start, cpu_of_children() - before
    if result.returncode:
        sys.exit(result.stdout[-3000:] + result.stderr[-6000:])
    return seconds, cpu_s, result.stdout + result.stderr


def jobs(text: str) -> dict[str, int]:
    """Jobs of each rule, from the table that Snakemake prints."""
    table = text.split("Job stats:", 1)[-1].split("\n\n", 1)[0]
    rows = [line.split() for line in table.splitlines() if len(line.split()) == 2]
    return {rule: int(count) for rule, count in rows if count.isdigit()}


def plan(folder: Path, what: str) -> None:
    """Print the seconds of a dry run, and its jobs."""
    runs = [snakemake(folder, "--dry-run", "--quiet", "rules") for _ in range(REPEATS)]
    wall, cpu = (statistics.median(run[k] for run in runs) for k in (0, 1))
    lowest = min(run[0] for run in runs)
    found = jobs(runs[0][2])
    print(f"{what}: {wall:.2f} s (lowest {lowest:.2f}; CPU {cpu:.2f} s), {found.get('total', 0)} jobs")
    print("  " + ", ".join(f"{count} {rule}" for rule, count in found.items() if rule != "total"))


def plan_alone(folder: Path) -> None:
    """Print the CPU seconds of a dry run of a single job by Snakemake without this workflow."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Snakefile").write_text('rule all:\n    output: "done"\n    shell: "touch done"\n')
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--quiet", "all"]
    found = []
    for _ in range(REPEATS):
        before = cpu_of_children()
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
        found.append(cpu_of_children() - before)
    print(f"dry run of Snakemake alone, one job: CPU {statistics.median(found):.2f} s")


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_seconds(folder: Path, target: str) -> tuple[float, float]:
    """CPU seconds of making one file of the study (what it needs is there), and of finding that it is there."""
    making = snakemake(folder, "--cores", "1", "--", f"{STUDY}/{target}")[1]
    return making, statistics.median(
        snakemake(folder, "--cores", "1", "--", f"{STUDY}/{target}")[1] for _ in range(REPEATS)
    )


def jobs_beside_work(folder: Path, n: int, write: Callable[[Path, int, str], None]) -> None:
    """Print what a simulation and what a job costs, from jobs of one and of `n` simulations."""
    seconds: dict[str, list[tuple[float, float]]] = {"read": [], "map": []}
    for size in (1, n):
        place = folder / f"batch{size}"
        write(place, size, str(max(2, n)))
        seconds["read"].append(cpu_seconds(place, "frames/train000.json"))
        snakemake(place, "--cores", "1", "--", f"{STUDY}/models/model/seed0/model.pt")
        seconds["map"].append(cpu_seconds(place, "latent/model/seed0/train000.json"))
    for what, ((one, idle_one), (many, idle_many)) in seconds.items():
        one, many = one - idle_one, many - idle_many
        work = (many - one) / (n - 1)
        start = one - work
        shares = ", ".join(f"{start / (start + size * work):.0%} of a job of {size}" for size in (1, 10, 100, 1000))
        print(f"{what}: {1000 * work:.0f} ms for each simulation, {start:.2f} s for each job ({shares})")
    place, few = folder / "single", min(n, 6)
    write(place, few, "1")
    alone = snakemake(place, "--cores", "1", "--", f"{STUDY}/frames/training.json")[1] - seconds["read"][0][1]
    print(f"read, a job for each step of each: {1000 * alone / few:.0f} ms for each simulation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", type=Path, required=True)
    parser.add_argument("--trajectory", type=Path, required=True)
    parser.add_argument("--simulations", type=int, default=1000, help="in the study that is planned")
    parser.add_argument("--per-job", default="auto", help="its `simulations_per_job`")
    parser.add_argument("--family", default="pca_distances", help="of the model; one epoch of training")
    parser.add_argument("--frames", type=int, default=20, help="of each simulation that is planned")
    parser.add_argument("--run", type=int, default=300, help="simulations of the jobs that are run; 0: none")
    parser.add_argument("--run-frames", type=int, default=500, help="of each simulation that is run")
    parser.add_argument("--run-all", action="store_true", help="also run the study that is planned")
    parser.add_argument("--folder", type=Path, help="keep the studies here")
    parser.add_argument("--profile", type=int, metavar="LINES", help="of the profile of a dry run, by own time")
    args = parser.parse_args()
    source = mdtraj.load(str(args.trajectory), top=str(args.topology))
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).absolute()
        many = folder / "many"
        write_study(many, args.simulations, source, args.topology, args.frames, args.per_job, args.family)
        plan(many, f"dry run of {args.simulations} simulations")
        plan_alone(folder / "alone")
        if args.profile:
            file = folder / "dry-run.profile"
            snakemake(many, "--dry-run", "--quiet", "rules", profile=file)
            pstats.Stats(str(file)).sort_stats("tottime").print_stats(args.profile)
            pstats.Stats(str(file)).sort_stats("cumtime").print_stats(args.profile)
        if args.run_all:
            wall, cpu, _ = snakemake(many)
            print(f"all of it: {wall:.0f} s, CPU {cpu:.0f} s")
            plan(many, "dry run when nothing is left to do")
        if args.run:

            def write(place: Path, n: int, per_job: str) -> None:
                write_study(place, n, source, args.topology, args.run_frames, per_job, args.family)

            jobs_beside_work(folder, args.run, write)


if __name__ == "__main__":
    os.environ.update(OMP_NUM_THREADS="1")
    main()
