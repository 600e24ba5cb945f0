"""One process against two: `make bench-scaling`.

Two processes of one thread each, the same batch per process, on 400 atoms: conv2d and the recommended family. The bar
is against two processes that do the same work and do not talk: they share the machine's memory and caches as ranks
do, so what is left is the price of working together. Rounds alternate between the ways and the median round counts,
for other users' load.

Writes results/bench/scaling.json and prints a table, with a simple model of larger machines.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

N_ATOMS, DIM, WARM = 400, 3, 3
BAR = 0.85


class Case(NamedTuple):
    """How a family is run here, and on the GPUs of the prediction."""

    batch: int  # per process
    steps: int
    gpu_batch: int  # per GPU


CASES = {"conv2d": Case(8, 12, 32), "coordinate": Case(512, 24, 1024)}


def worker(family: str, frames: str, backend: str, output: str) -> None:
    """Seconds per step of one process, after a few steps to warm up; the phases of a step likewise."""
    case = CASES[family]
    import numpy as np
    import torch

    from mdlatent import launch, lifeline, models, parallel, training
    from mdlatent.device import choose_device
    from mdlatent.feed import Feed
    from mdlatent.frames import FrameStore

    me = launch.find()
    device = choose_device("cpu", 1)
    together, store = lifeline.together(me, Path(output)), FrameStore(Path(frames))
    with together as line, parallel.joined(backend, line, device) as group, store:
        torch.manual_seed(0)
        model = models.build(family, store.n_atoms, DIM)
        model.prepare(store, np.arange(min(256, store.n_frames)))
        batch_size = case.batch * group.size
        feed = Feed(store, np.arange(batch_size * (case.steps + WARM)), batch_size, rank=group.rank, size=group.size)
        optimizer = torch.optim.AdamW(model.parameter_groups(), lr=1e-4, fused=True)
        loss = group.wrap(model, feed.any_frame())
        step_s, feed_s, last = [], [], time.perf_counter()
        for batch in feed.batches(1):
            fed = time.perf_counter()
            draw = torch.zeros(len(batch), model.n_noise)
            training._step(model, optimizer, batch, 1e-6, draw, loss, group, batch_size)
            group.any(False, False, False)
            now = time.perf_counter()
            step_s, feed_s, last = [*step_s, now - last], [*feed_s, fed - last], now
        exchange = []
        gradient = torch.zeros(model.n_parameters)
        for _ in range(4):
            begin = time.perf_counter()
            group.sum(gradient)
            exchange.append(time.perf_counter() - begin)
        result = {
            "step_s": statistics.median(step_s[WARM:]),
            "feed_s": statistics.median(feed_s[WARM:]),
            "exchange_s": min(exchange) if group.size > 1 else 0.0,
            "parameters": model.n_parameters,
        }
        Path(f"{output}.{group.rank}.{os.getpid()}.json").write_text(json.dumps(result))


def measure(family: str, way: str, frames: Path, folder: Path) -> dict:
    """One round of one way: the slowest process's seconds per step."""
    import launchers

    folder.mkdir()
    backend = "horovod" if way.startswith("horovod") else "auto"
    words = [str(Path(__file__)), "--worker", family, str(frames), backend, str(folder / "result")]
    launcher = {"one": "python", "two independent": "python", "ddp": "torchrun"}.get(way, "horovodrun")
    if way == "horovod mpi":
        launcher = "mpirun"
    commands = [[*launchers.command(launcher), *words]] * (2 if way == "two independent" else 1)
    running = [
        subprocess.Popen(command, env=launchers.environment(), stdout=subprocess.DEVNULL) for command in commands
    ]
    if any(process.wait() for process in running):
        raise SystemExit(f"error: {way} failed, see above")
    results = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return {name: max(result[name] for result in results) for name in results[0]}


def predict(parameters: int, compute_s: float, feed_s: float, bandwidth: float, latency_s: float, n: int) -> dict:
    """Seconds of a step on n GPUs, and the efficiency against one.

    Ring all-reduce of the float32 gradients: each GPU sends and receives 2 (n − 1) / n of their bytes in 2 (n − 1)
    messages. DDP hides it behind the backward pass, two thirds of the computation, where it fits.
    """
    bytes_moved = 4 * parameters * 2 * (n - 1) / n
    exchange_s = bytes_moved / bandwidth + 2 * (n - 1) * latency_s
    hidden_s = min(exchange_s, HIDDEN * compute_s)
    control_s = 2 * (n - 1) * latency_s  # the agreement to go on, after each step
    step_s = max(compute_s + exchange_s - hidden_s + control_s, feed_s)
    return {"gpus": n, "exchange_s": exchange_s, "step_s": step_s, "efficiency": max(compute_s, feed_s) / step_s}


# Assumptions of the prediction, none of them measured here.
FLOPS_PER_S = 20e12  # float32 convolutions that a data-centre GPU sustains
NETWORK = 25e9  # bytes/s per GPU between nodes: 200 Gbit/s each
LATENCY_S = 5e-6  # of one message
FEED = 2e9  # bytes/s of coordinates from memory or a file system to one GPU
STEP_FLOOR_S = 3e-3  # to start the few hundred small operations of a step, however little they do
HIDDEN = 2 / 3  # of the computation, the backward pass, may run beside the all-reduce


def flops_per_frame(family: str, n: int, parameters: int) -> float:
    """Of a training step: twice the multiplications of the layers, three times for forward and backward."""
    if family == "coordinate":
        return 3 * 2 * parameters
    half, quarter = (n + 1) // 2, (n + 3) // 4
    layers = [8 * 9 * n**2, 8 * 16 * 9 * half**2, 16 * 32 * 9 * quarter**2, 32 * quarter**2 * 2 * DIM]
    return 3 * 2 * 2 * sum(layers)  # the decoder mirrors the encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--families", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5, help="rounds, alternating between the ways")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "bench" / "scaling.json")
    args = parser.parse_args()
    if args.worker:
        from mdlatent import lifeline

        worker(*args.worker)
        lifeline.leave(0)
        return

    from frame_store import chain, write_store
    from mdlatent import files

    reports = {}
    with tempfile.TemporaryDirectory() as scratch:
        for family in args.families:
            case = CASES[family]
            n_frames = 2 * case.batch * (case.steps + WARM)
            frames = write_store(Path(scratch) / family / "frames", {"a": chain(n_frames, N_ATOMS)})
            rounds: dict[str, list[dict]] = {way: [] for way in ["one", "two independent", "ddp", *horovod_ways()]}
            for k in range(args.rounds):
                for way, done in rounds.items():
                    done.append(measure(family, way, frames, Path(scratch) / family / f"{way} {k}"))
                    print(f"{family}, round {k + 1}: {way}: {1000 * done[-1]['step_s']:.0f} ms per step", flush=True)
            reports[family] = evaluate(family, rounds)
    files.write_json(args.output, reports)
    for report in reports.values():
        print_tables(report)
    print(f"\nwritten to {args.output}")
    for family, report in reports.items():
        if (reached := report["efficiency"]["ddp"]) < BAR:
            sys.exit(f"error: {family}: DDP reaches {reached:.2f} of two independent processes, expected {BAR}")


def horovod_ways() -> list[str]:
    """Horovod by Gloo and by MPI, where it is installed."""
    import shutil

    try:
        import horovod.torch as hvd
    except ImportError:
        return []
    return ["horovod gloo"] + ["horovod mpi"] * bool(hvd.mpi_built() and shutil.which("mpirun"))


def evaluate(family: str, rounds: dict[str, list[dict]]) -> dict:
    """Medians over the rounds; efficiency is the median of the ratios within a round."""
    step = {way: [one["step_s"] for one in results] for way, results in rounds.items()}
    free = step["two independent"]
    efficiency = {
        way: statistics.median(a / b for a, b in zip(free, values, strict=True))
        for way, values in step.items()
        if way not in ("one", "two independent")
    }
    parameters = rounds["one"][0]["parameters"]
    gpu_batch = CASES[family].gpu_batch
    compute_s = max(STEP_FLOOR_S, gpu_batch * flops_per_frame(family, N_ATOMS, parameters) / FLOPS_PER_S)
    feed_s = gpu_batch * N_ATOMS * 12 / FEED
    return {
        "model": family, "n_atoms": N_ATOMS, "latent_dim": DIM, "parameters": parameters,
        "batch_per_process": CASES[family].batch,
        "threads": 1, "rounds": len(free), "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "step_s": {way: statistics.median(values) for way, values in step.items()},
        "feed_s": statistics.median(one["feed_s"] for one in rounds["ddp"]),
        "exchange_s": {way: statistics.median(one["exchange_s"] for one in results) for way, results in rounds.items()},
        "gradient_bytes": 4 * parameters,
        "efficiency": efficiency,
        "bar": BAR,
        "prediction": {
            "assumptions": {
                "flops_per_s": FLOPS_PER_S, "network_bytes_per_s": NETWORK, "latency_s": LATENCY_S,
                "feed_bytes_per_s": FEED, "step_floor_s": STEP_FLOOR_S, "batch_per_gpu": gpu_batch,
                "hidden_fraction_of_compute": HIDDEN,
            },
            "compute_s": compute_s, "feed_s": feed_s,
            "rows": [predict(parameters, compute_s, feed_s, NETWORK, LATENCY_S, n) for n in (1, 8, 64, 512)],
        },
    }  # fmt: skip


def print_tables(report: dict) -> None:
    print(
        f"\n{report['model']}, {report['n_atoms']} atoms, {report['parameters']:,} parameters, batch "
        f"{report['batch_per_process']} per process, 1 thread each; median of {report['rounds']} rounds; "
        f"{report['machine']}\n"
    )
    print("| way | ms per step | frames/s | of two independent | all-reduce of all gradients, ms |")
    print("|---|---|---|---|---|")
    for way, seconds in report["step_s"].items():
        n = 1 if way == "one" else 2
        share = f"{report['efficiency'][way]:.2f}" if way in report["efficiency"] else "–"
        exchange = report["exchange_s"][way]
        print(
            f"| {way} | {1000 * seconds:.0f} | {n * report['batch_per_process'] / seconds:.1f} | {share} | "
            f"{f'{1000 * exchange:.0f}' if exchange else '–'} |"
        )
    prediction, a = report["prediction"], report["prediction"]["assumptions"]
    print(
        f"\nPredicted (a model, not a measurement), batch {a['batch_per_gpu']} per GPU: {a['flops_per_s']:.0e} FLOP/s "
        f"per GPU, {a['network_bytes_per_s']:.1e} bytes/s and {1e6 * a['latency_s']:.0f} µs per message of a ring "
        f"all-reduce, {a['feed_bytes_per_s']:.0e} bytes/s of coordinates per GPU, a step no shorter than "
        f"{1000 * a['step_floor_s']:.0f} ms\n"
    )
    print("| GPUs | ms per step | all-reduce, ms | efficiency |")
    print("|---|---|---|---|")
    for row in prediction["rows"]:
        print(
            f"| {row['gpus']} | {1000 * row['step_s']:.2f} | {1000 * row['exchange_s']:.2f} | {row['efficiency']:.2f} |"
        )


if __name__ == "__main__":
    main()
