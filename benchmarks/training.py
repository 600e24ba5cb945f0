"""Speed and memory of training, families side by side and conv2d beside its plain form: `make bench`.

    python benchmarks/training.py [--sizes 20 154 400 1068] [--rounds 3]

Every measurement is a process of its own on one thread: some steps on random walks, the first not counted. The systems
take turns, `rounds` times, so that a busy moment hits all alike; speeds are medians, in frames per second of CPU time.
Peak memory is that of the whole process. The plain form is ordinary PyTorch: no memory order, no settings of the
allocator, torch's default AdamW. Writes results/bench/training.json and prints the table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mdlatent import files
from mdlatent.models import FAMILIES

OUTPUT = Path("results/bench/training.json")
PLAIN = "conv2d, plain"
SYSTEMS = ["conv2d", PLAIN, "resnet1d", *[name for name in ("coordinate",) if name in FAMILIES]]
# atoms: latent dimensions, batch, steps counted, rounds at most
SIZES = {20: (3, 32, 20, 9), 154: (3, 32, 3, 9), 400: (3, 8, 3, 9), 1068: (50, 2, 1, 1)}


def work(system: str, n_atoms: int) -> dict[str, float]:
    """Train for some steps in this process."""
    import numpy as np
    import torch
    from plain_conv2d import PlainConv2dVAE

    from mdlatent import models, synthetic, train, training
    from mdlatent.device import choose_device

    dim, batch, steps, _ = SIZES[n_atoms]
    coordinates = torch.from_numpy(synthetic.random_walks(batch, n_atoms, np.random.default_rng(0)))
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((batch, dim), np.float32))
    if system == PLAIN:
        torch.set_num_threads(1)
        model: models.LatentModel = PlainConv2dVAE(n_atoms, dim)
        optimizer = torch.optim.AdamW(model.parameter_groups(), lr=1e-4)
    else:
        choose_device("cpu", 1)
        model = models.build(system, n_atoms, dim)
        optimizer = torch.optim.AdamW(model.parameter_groups(), lr=1e-4, fused=True)
    if hasattr(model, "scale_nm"):
        model.scale_nm.fill_(1.25 * float(torch.cdist(coordinates, coordinates).max()))
    model.train()
    start = 0.0
    for step in range(steps + 1):
        if step == 1:
            start = time.process_time()
        training._step(model, optimizer, coordinates, 1e-6, noise)
    seconds = time.process_time() - start
    return {"frames_per_cpu_second": batch * steps / seconds, "peak_memory_gb": train.peak_memory_gb("cpu")}


def measured(system: str, n_atoms: int) -> dict[str, float]:
    """`work` in a process of its own."""
    command = [sys.executable, __file__, "--work", system, "--sizes", str(n_atoms)]
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def side_by_side(n_atoms: int, rounds: int) -> list[dict[str, Any]]:
    """All systems at one size, in turns."""
    dim, batch, _, most = SIZES[n_atoms]
    found: dict[str, list[dict[str, float]]] = {system: [] for system in SYSTEMS}
    for _ in range(min(rounds, most)):
        for system, values in found.items():
            values.append(measured(system, n_atoms))
    rows = []
    for system, values in found.items():
        speeds = [value["frames_per_cpu_second"] for value in values]
        rows.append(
            {
                "bench": "training",
                "case": f"{n_atoms} atoms, {dim} dimensions, batch {batch}",
                "system": system,
                "frames_per_cpu_second": statistics.median(speeds),
                "lowest": min(speeds),
                "highest": max(speeds),
                "peak_memory_gb": max(value["peak_memory_gb"] for value in values),
                "rounds": len(values),
            }
        )
    plain = next(row["frames_per_cpu_second"] for row in rows if row["system"] == PLAIN)
    return [row | {"ratio_to_plain": row["frames_per_cpu_second"] / plain} for row in rows]


def agreement(n_atoms: int = 64) -> float:
    """Largest relative difference between conv2d and its plain form, in loss and gradients."""
    import torch
    from plain_conv2d import largest_difference

    return largest_difference(n_atoms, torch.randn(4, n_atoms, 3, generator=torch.Generator().manual_seed(0)))


def main() -> None:
    """Measure, print a table, write training.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", choices=list(SIZES), default=list(SIZES), help="atoms")
    parser.add_argument("--rounds", type=int, default=3, help="turns at each size (one at 1,068 atoms)")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work(args.work, args.sizes[0])))
        return
    difference = agreement()
    print(f"conv2d and its plain form agree in loss and gradients to {difference:.0e} (relative, 64 atoms)\n")
    print(
        "| atoms, dimensions, batch | system | frames per CPU second (lowest to highest) | ratio to plain | peak GB |"
    )
    print("|---|---|---|---|---|")
    rows = []
    for n_atoms in args.sizes:
        for row in side_by_side(n_atoms, args.rounds):
            speed = f"{row['frames_per_cpu_second']:.3g} ({row['lowest']:.3g}, {row['highest']:.3g})"
            ratio, peak = f"{row['ratio_to_plain']:.2f}", f"{row['peak_memory_gb']:.2f}"
            print(f"| {row['case']} | {row['system']} | {speed} | {ratio} | {peak} |", flush=True)
            rows.append(row)
    files.write_json(OUTPUT, {"agreement_with_plain": difference, "rows": rows})


if __name__ == "__main__":
    main()
