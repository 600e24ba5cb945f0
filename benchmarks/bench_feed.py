"""Batches for training: shuffled frames of 400 atoms, 64 at a time, with the distances of all pairs made per batch.

Beside it the same with torch.cdist, and coordinates alone, which is what the training of `coordinate` takes from the
feed (distances are part of its loss). The limit is filling the memory of the distances. Shares of a training step come
from results/bench/training.json (`benchmarks/training.py`), frames per CPU second too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import LIMIT, Bar, Row, fill, interleaved

from mdlatent import distances, files, synthetic
from mdlatent.feed import Feed
from mdlatent.frames import FrameStore

BENCH = "feed"
N_ATOMS, BATCH, N_FRAMES = 400, 64, 4096
BAR_SPEED, BAR_SHARE = 20_000, 0.05
TRAINING = Path("results/bench/training.json")
# What a family takes from the feed: coordinates, or distance matrices as well.
TAKES = {"conv2d": "distances", "resnet1d": "distances", "coordinate": "coordinates"}
IN_MEMORY, FROM_STORE, ALONE = "mdlatent, in memory", "mdlatent, from the store", "mdlatent, coordinates alone"


def run() -> tuple[list[Row], list[Bar]]:
    """Speeds, and shares of a step where steps were measured."""
    out = np.empty((BATCH, N_ATOMS, N_ATOMS), np.float32)
    case = f"{N_ATOMS} atoms, batches of {BATCH}"
    with synthetic.store(N_FRAMES, N_ATOMS, 0) as index, FrameStore(index) as store:
        rows = np.arange(N_FRAMES)
        kept = Feed(store, rows, BATCH)
        windows = Feed(store, rows, BATCH, budget_bytes=8 * 12 * N_ATOMS * BATCH)  # eight batches in memory

        def epoch(feed: Feed, use: Callable[[Any], object]) -> Callable[[], None]:
            def all_batches() -> None:
                for batch in feed.batches():
                    use(batch)

            return all_batches

        def with_distances(batch: torch.Tensor) -> None:
            distances.full(batch.numpy(), out=out[: len(batch)])

        def fill_all() -> None:
            for _ in range(N_FRAMES // BATCH):
                fill(out)

        seconds = interleaved(
            {
                LIMIT: fill_all,
                IN_MEMORY: epoch(kept, with_distances),
                FROM_STORE: epoch(windows, with_distances),
                "torch.cdist, in memory": epoch(kept, lambda batch: torch.cdist(batch, batch)),
                ALONE: epoch(kept, lambda batch: None),
            },
            5,
        )
    speeds = {name: N_FRAMES / value for name, value in seconds.items()}
    found = [
        Row(BENCH, case, name, speed, "frames/s", None if name == ALONE else speed / speeds[LIMIT])
        for name, speed in speeds.items()
    ]
    bars = [Bar(BENCH, case, "frames a second, in memory", speeds[IN_MEMORY], BAR_SPEED)]
    return found, bars + shares(speeds)


def shares(speeds: dict[str, float]) -> list[Bar]:
    """The feed's share of a training step of each family, as far as training was measured at this size."""
    if not TRAINING.exists():
        return []
    bars = []
    for row in files.read_json(TRAINING)["rows"]:
        if row["n_atoms"] == N_ATOMS and row["system"] in TAKES:
            feed = speeds[IN_MEMORY if TAKES[row["system"]] == "distances" else ALONE]
            what = f"feed ({TAKES[row['system']]}) in a step of {row['system']}"
            bars.append(Bar(BENCH, f"{N_ATOMS} atoms", what, row["frames_per_cpu_second"] / feed, BAR_SHARE, True))
    return bars
