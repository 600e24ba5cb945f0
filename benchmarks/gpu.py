"""Speed and memory of training on a GPU, families side by side, and each beside one core of the same machine's CPU.

    python benchmarks/gpu.py [--sizes 20 154 400 1068 1200] [--output results/bench/gpu.json]

Steps on random walks at each family's default batch size (and a large one for `coordinate`), all that a step does but
reading frames, timed with the GPU's work waited for. "as they come" is without replay.py, "plain" ordinary PyTorch.
Writes a JSON file and prints it. Needs a GPU.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from plain_conv2d import PlainConv2dVAE
from training import PLAIN, PREPARED_ON, figures, settings

COUNTED_S = 2.0  # of steps, at least
SIZES = (20, 154, 400, 1068, 1200)
PRECISIONS = ("float32", "bf16")
LARGE_BATCH = 1024


def measure(
    system: str, n_atoms: int, device: str, precision: str = "float32", batch: int = 0, replayed: bool = True
) -> dict[str, Any]:
    """Train for some seconds: frames per second, memory, the share of the distances."""
    import numpy as np

    from mdlatent import distances, models, replay, synthetic, training
    from mdlatent.averaging import Average
    from mdlatent.device import choose_device
    from mdlatent.frames import FrameStore
    from mdlatent.optimizer import adamw, set_rate
    from mdlatent.parallel import Group

    choose_device(device, 1)
    dim = 3 if n_atoms < 1000 else 50
    options = settings(system, n_atoms, dim)
    batch = batch or options["batch_size"]
    torch.manual_seed(0)
    with synthetic.store(max(PREPARED_ON, batch), n_atoms, 0) as index, FrameStore(index) as store:
        model = PlainConv2dVAE(n_atoms, dim) if system == PLAIN else models.build(system, n_atoms, dim)
        model.prepare(store, np.arange(PREPARED_ON))
        coordinates = torch.from_numpy(store.read(0, batch)).to(device)
    model.precision = precision
    model.to(device).train()
    on_gpu, optimizer = device == "cuda", adamw(model, options, device)
    set_rate(optimizer, 1e-4)
    average = Average(model, options["ema_decay"]) if options["ema_decay"] else None
    draw = torch.from_numpy(np.random.default_rng(1).standard_normal((batch, model.n_noise), np.float32)).to(device)

    def work(batch: torch.Tensor, beta: float | torch.Tensor, draw: torch.Tensor, length: int) -> torch.Tensor:
        return training._step(model, optimizer, batch, beta, draw)

    replayed = replayed and system != PLAIN and replay.fits(model, batch, device, Group())
    step_of = replay.Replayed(work, batch) if replayed else work

    def step(number: int) -> None:
        added = step_of(coordinates, options["beta"], draw, batch)
        if average:
            average.update(number)
        float(added[:5].sum())  # as training does, to see a loss that is no number

    for number in range(5):
        step(number)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    step_s = timed(step, device)
    distance_s = timed(lambda _: distances.full_torch(coordinates), device, 0.3) if system != "coordinate" else 0.0
    row = {
        "n_atoms": n_atoms, "latent_dim": dim, "system": system, "device": device, "precision": precision,
        "batch": batch, "frames_per_second": batch / step_s, "step_ms": 1e3 * step_s,
        "distances_share": distance_s / step_s, "replayed": replayed, "parameters": model.n_parameters,
    }  # fmt: skip
    if on_gpu:
        row["peak_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return row


def timed(work: Any, device: str, least_s: float = COUNTED_S) -> float:
    """Seconds of one call of `work(number)`."""
    begin, number = time.perf_counter(), 0
    while number < 5 or time.perf_counter() - begin < least_s:
        work(number)
        number += 1
        if device == "cuda" and number % 20 == 0:
            torch.cuda.synchronize()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) / number


def jobs(sizes: list[int]) -> list[tuple[Any, ...]]:
    """What is measured, in order."""
    found: list[tuple[Any, ...]] = []
    for n_atoms in sizes:
        found += [("coordinate", n_atoms, "cuda"), ("coordinate", n_atoms, "cuda", "float32", 0, False)]
        found += [("coordinate", n_atoms, "cuda", "float32", LARGE_BATCH), ("coordinate", n_atoms, "cpu")]
        if n_atoms != 1200:
            found += [("conv2d", n_atoms, "cuda", precision) for precision in PRECISIONS]
            found += [("conv2d", n_atoms, "cuda", "float32", 0, False), (PLAIN, n_atoms, "cuda")]
        if n_atoms != 1068:
            found += [("resnet1d", n_atoms, "cuda", precision) for precision in PRECISIONS]
            found.append(("resnet1d", n_atoms, "cuda", "float32", 0, False))
    return found


def distance_rows() -> list[dict[str, Any]]:
    """Full and packed distance matrices on the GPU: GB of float32 written per second."""
    from mdlatent import distances

    rows = []
    for n_atoms, n_frames in ((20, 20000), (154, 4000), (400, 1000), (1208, 200)):
        coordinates = torch.randn(n_frames, n_atoms, 3, device="cuda")
        for name, kernel in (("full", distances.full_torch), ("packed", distances.packed_torch)):
            with torch.no_grad():
                seconds = timed(lambda _, k=kernel, c=coordinates: k(c), "cuda", 0.3)
                cdist_s = timed(lambda _, c=coordinates: torch.cdist(c, c), "cuda", 0.3)
            numbers = n_frames * (n_atoms**2 if name == "full" else n_atoms * (n_atoms - 1) // 2)
            rows.append(
                {"n_atoms": n_atoms, "kind": name, "gb_per_second": 4e-9 * numbers / seconds}
                | {"frames_per_second": n_frames / seconds, "cdist_frames_per_second": n_frames / cdist_s}
            )
    return rows


def main() -> None:
    """Measure, print a table, write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=list(SIZES), help="atoms")
    parser.add_argument("--output", type=Path, default=Path("results/bench/gpu.json"), help="file to write")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: torch sees no GPU here")
    rows: list[dict[str, Any]] = []
    args.output.parent.mkdir(parents=True, exist_ok=True)
    gpu = torch.cuda.get_device_name()
    found: dict[str, Any] = {"gpu": gpu, "torch": str(torch.__version__), "rows": rows, "distances": distance_rows()}
    for job in jobs(args.sizes):
        try:
            rows.append(measure(*job))
        except torch.cuda.OutOfMemoryError as error:
            rows.append(dict(zip(("system", "n_atoms", "device", "precision", "batch"), job, strict=False)))
            rows[-1]["error"] = str(error)[:200]
        torch.cuda.empty_cache()
        row = rows[-1]
        print(" ".join(f"{key}={figures(v) if isinstance(v, float) else v}" for key, v in row.items()), flush=True)
        args.output.write_text(json.dumps(found, indent=1) + "\n")
    for row in found["distances"]:
        print(" ".join(f"{key}={figures(v) if isinstance(v, float) else v}" for key, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
