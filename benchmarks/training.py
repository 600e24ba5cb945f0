"""Speed and memory of training, families side by side and conv2d beside its plain form: part of `make bench`.

    python benchmarks/training.py [--sizes 20 154 400 1068] [--rounds 3]

Every measurement is a process of its own on one thread: steps on random walks for some seconds, the first not counted.
The systems take turns, for a few rounds, so that a busy moment hits all alike; speeds are medians, in frames per second
of CPU time. Each family trains with its own default settings, so at its own batch size, cut where the plain form's
activations would take more than 4 GB; all that a step does counts, the average of weights too, but not reading frames.

The plain form is ordinary PyTorch: no memory order, no settings of the allocator, torch's default AdamW, a batch in one
pass. "bf16" is the same step under `torch.autocast`; a study has no key for it. The last row is a whole training of
`coordinate`, as `mdlatent train` runs it.

Peak memory is that of the whole process. Writes results/bench/training.json and prints the table; ends with an error
where the recommended family misses a bar.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mdlatent import config, files, model_memory

OUTPUT = Path("results/bench/training.json")
PLAIN, BF16 = "conv2d, plain", ", bf16"
SYSTEMS = ["coordinate", "conv2d", PLAIN, "resnet1d"]
ACTIVATIONS_BYTES = 4_000_000_000  # of a batch of the plain form
COUNTED_S = 1.5  # of CPU time at least, and one step
PREPARED_ON = 256  # frames


class Size(NamedTuple):
    """What is measured at a number of atoms."""

    dim: int
    rounds: int  # at most
    bar: float  # of coordinate, in frames per second of plain conv2d
    systems: list[str]


SIZES = {
    20: Size(3, 9, 2, SYSTEMS),
    154: Size(3, 9, 50, SYSTEMS),
    400: Size(3, 2, 200, [*SYSTEMS, f"conv2d{BF16}", f"resnet1d{BF16}"]),
    1068: Size(50, 1, 1000, ["coordinate", "conv2d", PLAIN]),
}
# A whole training whose memory has a bar.
MEMORY_ATOMS, MEMORY_FRAMES, MEMORY_BAR_GB = 1208, 5000, 1.0


def settings(system: str, n_atoms: int, dim: int) -> dict[str, Any]:
    """Section `train` as a study gets it by default, with the batch size used here."""
    family = system.split(",")[0]
    values = config.validate_part({"models": [{"family": family}], "train": {}})
    found = config.train_settings(values, values["models"][0])
    if family == "conv2d":
        kept = model_memory.KEPT_AND_PASSING * model_memory.family(family).bytes_per_frame(n_atoms, dim, {})
        found["batch_size"] = max(1, min(found["batch_size"], int(ACTIVATIONS_BYTES / kept)))
    return found


def work(system: str, n_atoms: int) -> dict[str, float]:
    """Train for some steps in this process."""
    import numpy as np
    import torch
    from plain_conv2d import PlainConv2dVAE

    from mdlatent import models, synthetic, train, training
    from mdlatent.averaging import Average
    from mdlatent.device import choose_device
    from mdlatent.frames import FrameStore

    dim = SIZES[n_atoms].dim
    options = settings(system, n_atoms, dim)
    batch = options["batch_size"]
    torch.manual_seed(0)
    if system == PLAIN:
        torch.set_num_threads(1)
        model: models.LatentModel = PlainConv2dVAE(n_atoms, dim)
        optimizer = torch.optim.AdamW(model.parameter_groups(), lr=1e-4)
    else:
        choose_device("cpu", 1)
        model = models.build(system.removesuffix(BF16), n_atoms, dim)
        optimizer = torch.optim.AdamW(model.parameter_groups(), lr=1e-4, fused=True)
    with synthetic.store(PREPARED_ON, n_atoms, 0) as index, FrameStore(index) as store:
        model.prepare(store, np.arange(PREPARED_ON))
        coordinates = torch.from_numpy(store.read(0, batch))
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((batch, dim), np.float32))
    average = Average(model, options["ema_decay"]) if options["ema_decay"] else None
    lower = torch.autocast("cpu", torch.bfloat16) if system.endswith(BF16) else contextlib.nullcontext()
    model.train()

    def loss(*arguments: Any) -> dict[str, Any]:
        with lower:
            return model.loss(*arguments)

    start, step, seconds = 0.0, 0, 0.0
    while step < 2 or seconds < COUNTED_S:
        if step == 1:
            start = time.process_time()
        training._step(model, optimizer, coordinates, options["beta"], noise, loss)
        if average:
            average.update(step)
        step += 1
        seconds = time.process_time() - start if step > 1 else 0.0
    return {
        "batch": batch,
        "frames_per_cpu_second": batch * (step - 1) / seconds,
        "peak_memory_gb": train.peak_memory_gb("cpu"),
    }


def run(*words: str) -> str:
    """What a Python process of one thread prints."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout


def side_by_side(n_atoms: int, rounds: int) -> list[dict[str, Any]]:
    """All systems at one size, in turns."""
    size = SIZES[n_atoms]
    found: dict[str, list[dict[str, float]]] = {system: [] for system in size.systems}
    n_rounds = min(rounds, size.rounds)
    for turn in range(n_rounds):
        for system, values in found.items():
            if turn and system.endswith(BF16):
                continue  # once, to see that it does not pay
            values.append(json.loads(run(__file__, "--work", system, "--sizes", str(n_atoms)).splitlines()[-1]))
            speed = values[-1]["frames_per_cpu_second"]
            progress(f"{n_atoms} atoms, round {turn + 1} of {n_rounds}: {system}: {speed:.3g} frames/s")
    rows = []
    for system, values in found.items():
        speeds = [value["frames_per_cpu_second"] for value in values]
        rows.append(
            {
                "n_atoms": n_atoms,
                "latent_dim": size.dim,
                "system": system,
                "batch": values[0]["batch"],
                "frames_per_cpu_second": statistics.median(speeds),
                "lowest": min(speeds),
                "highest": max(speeds),
                "peak_memory_gb": max(value["peak_memory_gb"] for value in values),
                "rounds": len(values),
                "bar": f"{size.bar:,} ×" if system == "coordinate" else "",
                "least_ratio": size.bar if system == "coordinate" else 0,
            }
        )
    plain = next(row["frames_per_cpu_second"] for row in rows if row["system"] == PLAIN)
    return [row | {"ratio_to_plain": row["frames_per_cpu_second"] / plain} for row in rows]


def whole_training() -> dict[str, Any]:
    """Two epochs of `coordinate` with its default settings, by `mdlatent train`: peak memory and speed."""
    progress(f"{MEMORY_ATOMS} atoms: a whole training of coordinate")
    with tempfile.TemporaryDirectory() as folder:
        options = json.dumps({"train": {"epochs": 2, "threads": 1, "device": "cpu"}})
        sizes = ["--synthetic", str(MEMORY_FRAMES), "--n-atoms", str(MEMORY_ATOMS)]
        words = ["--model", "coordinate", "--options", options, "--output-dir", folder]
        run("-m", "mdlatent.train", *sizes, *words)
        record = yaml.safe_load((Path(folder) / "config.yaml").read_text(encoding="utf-8"))
    return {
        "n_atoms": MEMORY_ATOMS,
        "n_frames": MEMORY_FRAMES,
        "latent_dim": record["latent_dim"],
        "system": "coordinate, a whole training",
        "batch": record["train"]["batch_size"],
        "frames_per_cpu_second": record["measured"]["frames_per_cpu_second"],
        "peak_memory_gb": record["measured"]["peak_memory_gb"],
        "bar": f"< {MEMORY_BAR_GB:g} GB",
    }


def agreement(n_atoms: int = 64) -> float:
    """Largest relative difference between conv2d and its plain form, in loss and gradients."""
    import torch
    from plain_conv2d import largest_difference

    return largest_difference(n_atoms, torch.randn(4, n_atoms, 3, generator=torch.Generator().manual_seed(0)))


def figures(value: float) -> str:
    """Three significant digits."""
    return f"{float(f'{value:.3g}'):,g}"


def table(rows: list[dict[str, Any]], training: dict[str, Any]) -> list[str]:
    """The lines of a table of all that was measured."""
    lines = [
        "| atoms, dimensions | system | batch | frames per CPU second (lowest, highest) | × plain | bar | peak GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in [*rows, training]:
        speed = figures(row["frames_per_cpu_second"])
        if "lowest" in row:
            speed += f" ({figures(row['lowest'])}, {figures(row['highest'])})"
        ratio = figures(row["ratio_to_plain"]) if "ratio_to_plain" in row else ""
        cells = [f"{row['n_atoms']:,}, {row['latent_dim']}", row["system"], row["batch"], speed, ratio]
        lines.append(" ".join(["|", *[f"{cell} |" for cell in [*cells, row["bar"], f"{row['peak_memory_gb']:.2f}"]]]))
    return lines


def missed(rows: list[dict[str, Any]], training: dict[str, Any]) -> list[str]:
    """Which bars were missed, in words."""
    found = [
        f"{row['n_atoms']} atoms: {row['system']} trains on {row['ratio_to_plain']:.3g} × the frames of plain conv2d, "
        f"expected at least {row['bar']}"
        for row in rows
        if row["ratio_to_plain"] < row["least_ratio"]
    ]
    if training["peak_memory_gb"] >= MEMORY_BAR_GB:
        found.append(
            f"{training['n_atoms']} atoms: training coordinate takes {training['peak_memory_gb']:.2f} GB, "
            f"expected {training['bar']}"
        )
    return found


def progress(what: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {what}", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print a table, write training.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", choices=list(SIZES), default=list(SIZES), help="atoms")
    parser.add_argument("--rounds", type=int, default=3, help="turns at each size, at most (fewer at the large ones)")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work(args.work, args.sizes[0])))
        return
    difference = agreement()
    progress(f"conv2d and its plain form agree in loss and gradients to {difference:.0e} (relative, 64 atoms)")
    rows = [row for n_atoms in args.sizes for row in side_by_side(n_atoms, args.rounds)]
    training = whole_training()
    files.write_json(OUTPUT, {"agreement_with_plain": difference, "rows": rows, "whole_training": training})
    print("\n".join(table(rows, training)))
    if wrong := missed(rows, training):
        sys.exit("error: " + "\nerror: ".join(wrong))


if __name__ == "__main__":
    main()
