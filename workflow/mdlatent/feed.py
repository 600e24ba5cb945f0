"""Coordinates for training: every frame exactly once an epoch, in an order drawn anew from (seed, epoch).

Distances are not stored: models compute them from the coordinates of a batch. Coordinates stay in memory if they fit
the budget; else windows of them are read from the store, each made of whole stretches of time in random order.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from mdlatent.frames import FrameStore

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Feed", "iterate_rows", "noise", "read_rows"]

BUDGET_BYTES = 1_000_000_000
STRETCH = 256  # frames read in one go where not all fit in memory: a chunk of the store
READ_ROWS = 4096
NEAR_ROWS = 16  # rows this close are read together: one long read beats many short ones

_ORDER, _NOISE = 1, 2  # purposes of random numbers, so that no two streams coincide


def read_rows(store: FrameStore, rows: np.ndarray) -> np.ndarray:
    """Frames `rows` of the store, in the order given: (k, atoms, 3) float32 nm."""
    out = np.empty((len(rows), store.n_atoms, 3), np.float32)
    order = np.argsort(rows, kind="stable")
    breaks = np.flatnonzero(np.diff(rows[order]) > NEAR_ROWS) + 1
    for places in np.split(order, breaks):
        if len(places):
            first = int(rows[places[0]])
            out[places] = store.read(first, int(rows[places[-1]]) + 1)[rows[places] - first]
    return out


def iterate_rows(store: FrameStore, rows: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    """Frames `rows` of the store in pieces of at most `chunk`: (≤ chunk, atoms, 3) float32 nm."""
    for start in range(0, len(rows), chunk):
        yield read_rows(store, rows[start : start + chunk])


def noise(seed: int, epoch: int, step: int, shape: tuple[int, int]) -> np.ndarray:
    """Standard normal float32 numbers of one step, the same whenever and wherever it is done."""
    return np.random.default_rng([_NOISE, seed, epoch, step]).standard_normal(shape, dtype=np.float32)


class Feed:
    """Batches of the frames `rows` of a store; the last one of an epoch may be smaller.

    Batch k of an epoch is `order(epoch)[k * batch_size : (k + 1) * batch_size]`, whatever is kept in memory: of
    several processes each can take its share `[rank::world_size]` of the same batch.
    """

    def __init__(
        self,
        store: FrameStore,
        rows: np.ndarray,
        batch_size: int,
        seed: int = 0,
        *,
        shuffle: bool = True,
        device: str = "cpu",
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        self.store, self.rows, self.batch_size, self.seed = store, np.asarray(rows, np.int64), batch_size, seed
        self.shuffle, self.device = shuffle, device
        rows_in_budget = max(1, budget_bytes // (store.n_atoms * 12) // batch_size) * batch_size
        self.in_memory = len(rows) <= rows_in_budget
        self._window = len(rows) if self.in_memory else rows_in_budget  # a multiple of the batch size
        self._kept: Tensor | None = None

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.rows)

    @property
    def n_batches(self) -> int:
        """Number of batches in an epoch."""
        return -(-len(self.rows) // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """Places in `rows` in the order of an epoch: a permutation, (n,) int64."""
        places = np.arange(len(self.rows))
        if not self.shuffle:
            return places
        random = np.random.default_rng([_ORDER, self.seed, epoch])
        if self.in_memory:
            return random.permutation(places)
        stretches = np.split(places, np.arange(STRETCH, len(places), STRETCH))
        places = np.concatenate([stretches[k] for k in random.permutation(len(stretches))])
        for start in range(0, len(places), self._window):
            random.shuffle(places[start : start + self._window])
        return places

    def batches(self, epoch: int = 0, first: int = 0) -> "Iterator[Tensor]":
        """Yield the batches of an epoch from number `first` on: (≤ batch_size, atoms, 3) float32 nm on the device."""
        order = self.order(epoch)
        window, start = None, first * self.batch_size
        while start < len(order):
            begin = start // self._window * self._window
            places = order[begin : begin + self._window]
            window = self._kept if self._kept is not None else None if self.in_memory else self._load(places)
            if window is None:
                window = self._kept = self._load(np.arange(len(self.rows)))
            for k in range(start - begin, len(places), self.batch_size):
                stop = min(k + self.batch_size, len(places))
                yield window[torch.from_numpy(places[k:stop])] if self.in_memory else window[k:stop]
            start = begin + len(places)

    def _load(self, places: np.ndarray) -> "Tensor":
        frames = np.empty((len(places), self.store.n_atoms, 3), np.float32)
        order = np.argsort(places)
        for start in range(0, len(order), READ_ROWS):
            some = order[start : start + READ_ROWS]
            frames[some] = read_rows(self.store, self.rows[places[some]])
        return torch.from_numpy(frames).to(self.device)
