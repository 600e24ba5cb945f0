"""Large studies: peak memory of every stage, and time per frame as the number of frames grows.

    python benchmarks/large.py stages TOPOLOGY TRAJECTORY [--selection …] [--frames 2000 11000 20000]
    python benchmarks/large.py study TOPOLOGY TRAJECTORY [--selection …] [--frames 200000]

The frames are made from those of a real trajectory: the selected atoms on the way from one frame to the next, with
0.02 nm of noise, as often as it takes. `stages` runs featurize, train (one epoch), embed and cluster by themselves,
each a process, and gives its CPU time and largest memory. Short stages run several times, and the least time counts:
what the system takes for their files can double from one run to the next. `study` runs the whole workflow, report
included, and gives the largest memory of any process in it. Adds to results/bench/large.json; ends with an error where
a bar is missed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import yaml
from side_by_side import ONE_THREAD, Bar, Row, plain, progress, say

from mdlatent import dcd_writer, files
from mdlatent.trajectory import load_topology

OUTPUT = Path("results/bench/large.json")
BAR_GB = {"stages": 2.0, "study": 4.0}
BAR_GROWTH = 0.10
MEASURED = ("featurize", "train", "embed", "cluster")
SHORT_S, TIMES = 2.0, 5  # stages below so many CPU seconds run so many times each time
NOISE_NM, CHUNK = 0.02, 250
ROOT = Path(__file__).resolve().parent.parent


def between(frames: np.ndarray, n_frames: int) -> Iterator[np.ndarray]:
    """`n_frames` frames on a way through `frames` (k, n, 3) nm and back, with noise: chunks in Å."""
    random = np.random.default_rng(0)
    steps = max(1, -(-n_frames // (2 * len(frames))))  # about once there and back
    for start in range(0, n_frames, CHUNK):
        place = np.arange(start, min(start + CHUNK, n_frames)) / steps
        place = np.abs((place + len(frames) - 1) % (2 * len(frames) - 2) - (len(frames) - 1))
        first = np.minimum(place.astype(int), len(frames) - 2)
        part = (place - first)[:, None, None].astype(np.float32)
        x = frames[first] * (1 - part) + frames[first + 1] * part
        x += random.standard_normal(x.shape, np.float32) * np.float32(NOISE_NM)
        yield x * np.float32(10)


def make_files(topology: Path, trajectory: Path, selection: str, n_frames: int, folder: Path) -> tuple[Path, Path]:
    """A topology of the selected atoms and a dcd of `n_frames` frames."""
    whole = load_topology(topology)
    atoms = whole.select(selection)
    real = mdtraj.load(str(trajectory), top=whole, atom_indices=atoms)
    real.superpose(real)
    real.unitcell_vectors = None
    top, dcd = folder / "topology.pdb", folder / f"{n_frames}.dcd"
    real[0].save_pdb(str(top))
    dcd_writer.write(dcd, between(real.xyz, n_frames), len(atoms), n_frames, 1, 1.0)
    return top, dcd


def measured(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Run it: CPU seconds and seconds, and the largest memory in GB of it or any process below it."""
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT / "workflow")}
    start = time.monotonic()
    with open(folder / "output.txt", "w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"error: {' '.join(command)[:200]}: {(folder / 'output.txt').read_text()[-3000:]}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - start, usage.ru_maxrss * 1024 / 1e9


def stages(top: Path, dcd: Path, folder: Path) -> Iterator[tuple[str, float, float]]:
    """Name, CPU seconds and peak GB of each stage, one after the other, short ones several times."""
    study = folder / dcd.stem
    frames, name = study / "frames", "large"
    model = study / "models" / "coordinate-d3" / "seed0"
    latent = study / "latent" / "coordinate-d3" / "seed0"
    options = study / "options.json"
    files.write_json(
        options,
        {
            "featurize": {"selection": "all"},
            "split": {"n_blocks": 5, "test_blocks": [3]},
            "models": [{"family": "coordinate", "latent_dim": 3}],
            "train": {"epochs": 1, "device": "cpu", "threads": 1},
            "cluster": {},
        },
    )
    text = options.read_text()
    record = {"name": name, "role": "train", "topology": str(top), "first_part": str(dcd)}
    part = {"file": str(frames / name / "part000.h5"), "trajectory": str(dcd)}
    atoms, index = frames / name / "atoms.json", frames / "index.json"
    record["parts"] = [part]  # type: ignore[assignment]
    records = json.dumps([record | {"time_step_ps": 1.0}])
    common = ["--options", text]
    commands = {
        "select_atoms": ["--simulations", records, "--output", atoms],
        "featurize": ["--simulation", name, "--topology", top, "--trajectory", dcd, "--atoms", atoms]
        + ["--output", part["file"]],
        "index_frames": ["--atoms", atoms, "--simulations", records, "--output", index],
        "train": ["--frames", index, "--model", "coordinate-d3", "--seed", "0", "--output-dir", model],
        "embed": ["--frames", index, "--model", model / "model.pt", "--simulation", name]
        + ["--output", latent / f"{name}.parquet"],
        "cluster": ["--frames", index, "--latent", latent, "--output-dir", study / "clusters"],
    }
    for stage, words in commands.items():
        extra = [] if stage == "embed" else common
        command = [sys.executable, "-m", f"mdlatent.{stage}", *map(str, words), *extra]
        for _ in range(TIMES):
            if stage == "featurize":
                Path(part["file"]).unlink(missing_ok=True)  # removing the file of the time before is no part of it
            cpu, seconds, peak = measured(command, folder)
            progress(f"{dcd.stem} frames: {stage}: {cpu:.1f} CPU s, {seconds:.1f} s, {peak:.2f} GB")
            yield stage, cpu, peak
            if cpu > SHORT_S:
                break


def run_stages(args: argparse.Namespace, folder: Path) -> tuple[list[Row], list[Bar]]:
    """Every stage at every size, the sizes in turn, the least CPU time of all runs; time per frame is what a frame more
    costs between one size and the next."""
    rows, bars = [], []
    found: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    made = {n: make_files(args.topology, args.trajectory, args.selection, n, folder) for n in args.frames}
    n_atoms = load_topology(made[args.frames[0]][0]).n_atoms
    for _ in range(args.repeats):
        for n_frames, (top, dcd) in made.items():
            for stage, seconds, peak in stages(top, dcd, folder):
                found[stage, n_frames].append((seconds, peak))
            shutil.rmtree(folder / dcd.stem)
    cpu = {key: min(seconds for seconds, _ in values) for key, values in found.items()}
    for (stage, n_frames), values in found.items():
        case, peak = f"{n_frames:,} × {n_atoms:,} atoms", max(peak for _, peak in values)
        seconds = cpu[stage, n_frames]
        rows += [Row("large", case, stage, seconds, "CPU s"), Row("large", case, stage, peak, "GB at most")]
        bars.append(Bar("large", case, f"memory of {stage}, GB", peak, BAR_GB["stages"], at_most=True))
    if len(args.frames) > 2:
        low, middle, high = args.frames[0], args.frames[1], args.frames[-1]
        for n_frames in args.frames:
            cpu["all four", n_frames] = sum(cpu[stage, n_frames] for stage in MEASURED)
        for stage in (*MEASURED, "all four"):
            few = (cpu[stage, middle] - cpu[stage, low]) / (middle - low)
            many = (cpu[stage, high] - cpu[stage, middle]) / (high - middle)
            for start, stop, value in ((low, middle, few), (middle, high, many)):
                case = f"{n_atoms:,} atoms, from {start:,} to {stop:,} frames"
                rows.append(Row("large", case, stage, 1000 * value, "CPU ms per frame more"))
            what = f"{stage}: growth of the time per frame"
            bars.append(Bar("large", f"{n_atoms:,} atoms", what, many / few - 1, BAR_GROWTH, at_most=True))
    return rows, bars


def run_study(args: argparse.Namespace, folder: Path) -> tuple[list[Row], list[Bar]]:
    """The workflow as `make run` runs it, one job at a time."""
    rows, bars = [], []
    for n_frames in args.frames:
        top, dcd = make_files(args.topology, args.trajectory, args.selection, n_frames, folder)
        settings: dict[str, Any] = {
            "study": f"large-{n_frames}",
            "results": str(folder / "results"),
            "seeds": [0],
            "simulations": [
                {"name": "large", "topology": str(top), "trajectory": [str(dcd)], "time_step_ps": 1.0},
            ],
            "featurize": {"selection": "all"},
            "split": {"n_blocks": 5, "test_blocks": [3]},
            "models": [{"family": "coordinate", "latent_dim": 3}, {"family": "pca_coordinates", "latent_dim": 3}],
            "train": {"epochs": args.epochs},
            "cluster": {},
            "evaluate": {"lag_frames": [10]},
        }
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1"]
        command += ["--configfile", str(config), "--directory", str(folder)]
        cpu, seconds, peak = measured(command, folder)
        case = f"{n_frames:,} × {load_topology(top).n_atoms:,} atoms"
        progress(f"{case}: {cpu:.0f} CPU s, {seconds:.0f} s, {peak:.2f} GB")
        for table in sorted((folder / "results" / f"large-{n_frames}" / "benchmarks").rglob("*.tsv")):
            header, values = (line.split("\t") for line in table.read_text().splitlines()[:2])
            found = dict(zip(header, values, strict=True))
            name = str(table.relative_to(folder / "results" / f"large-{n_frames}" / "benchmarks").with_suffix(""))
            rows.append(Row("large", case, f"study: {name}", float(found["s"]), "s"))
        rows += [
            Row("large", case, "study: all", cpu, "CPU s"),
            Row("large", case, "study: all", 1000 * cpu / n_frames, "CPU ms per frame"),
            Row("large", case, "study: all", peak, "GB at most"),
        ]
        bars.append(Bar("large", case, "memory of any process, GB", peak, BAR_GB["study"], at_most=True))
    return rows, bars


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["stages", "study"])
    parser.add_argument("topology", type=Path)
    parser.add_argument("trajectory", type=Path)
    parser.add_argument("--selection", default="name N or name CA or name C or name O")
    parser.add_argument("--frames", type=int, nargs="+", help="numbers of frames, ascending")
    parser.add_argument("--epochs", type=int, default=1, help="of the study's training")
    parser.add_argument("--repeats", type=int, default=7, help="of the stages; the least counts")
    args = parser.parse_args()
    args.frames = args.frames or {"stages": [2000, 11000, 20000], "study": [200_000]}[args.what]
    with tempfile.TemporaryDirectory(prefix="mdlatent-large-") as name:
        rows, bars = {"stages": run_stages, "study": run_study}[args.what](args, Path(name))
    say(rows, bars)
    new = plain(rows)
    cases = {row["case"] for row in new}
    old = files.read_json(OUTPUT) if OUTPUT.exists() else []
    files.write_json(OUTPUT, [row for row in old if row["case"] not in cases] + new)
    if any(not bar.met for bar in bars):
        sys.exit("error: " + "; ".join(f"{bar.case}: {bar.what}: got {bar.value:.3g}" for bar in bars if not bar.met))


if __name__ == "__main__":
    main()
