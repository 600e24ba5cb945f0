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

__all__ = ["Feed", "Tally", "iterate_rows", "noise", "partners", "read_rows"]

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

    Batch k of an epoch is `order(epoch)[k * batch_size : (k + 1) * batch_size]`, whatever is kept in memory. Of `size`
    processes each gets its share `[rank::size]` of every batch, which may be empty; together they get each frame once.

    With `lag_frames`, each frame comes with the one so many frames later: shapes (b, 2, atoms, 3). It is NaN where
    there is none, that is where a frame up to there is of another simulation or not among `rows`. A partner does not
    count as handed out.
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
        rank: int = 0,
        size: int = 1,
        lag_frames: int = 0,
    ) -> None:
        self.store, self.rows, self.batch_size, self.seed = store, np.asarray(rows, np.int64), batch_size, seed
        self.shuffle, self.device, self.rank, self.size = shuffle, device, rank, size
        self.tally = Tally()
        self._later = partners(store, self.rows, lag_frames) if lag_frames else None
        rows_in_budget = max(1, budget_bytes // (store.n_atoms * 12) // batch_size) * batch_size
        self.in_memory = len(rows) <= rows_in_budget
        if lag_frames:  # a window holds the partners too
            rows_in_budget = max(1, budget_bytes // (store.n_atoms * 24) // batch_size) * batch_size
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

    def batch_length(self, number: int) -> int:
        """Frames of batch `number` over all processes."""
        return min(self.batch_size, len(self.rows) - number * self.batch_size)

    def batches(self, epoch: int = 0, first: int = 0) -> "Iterator[Tensor]":
        """Yield this process's shares of the batches of an epoch from number `first` on: (≤ batch_size, atoms, 3)
        float32 nm on the device, with partners (≤ batch_size, 2, atoms, 3)."""
        order = self.order(epoch)
        start = first * self.batch_size
        while start < len(order):
            stop = min((start // self._window + 1) * self._window, len(order))
            shares = [
                order[k : min(k + self.batch_size, stop)][self.rank :: self.size]
                for k in range(start, stop, self.batch_size)
            ]
            if self.in_memory:
                if self._kept is None:
                    self._kept = self._load(np.arange(len(self.rows)))
                pieces = (self._pick(self._kept, share) for share in shares)
            else:
                pieces = iter(self._read(np.concatenate(shares)).split([len(share) for share in shares]))
            for share, piece in zip(shares, pieces, strict=True):
                self.tally.add(self.rows[share])
                yield piece
            start = stop

    def any_frame(self) -> "Tensor":
        """The first frame, for a process whose share is empty but which must take part: as a batch of one."""
        return self._read(np.zeros(1, np.int64))

    def _pick(self, frames: "Tensor", places: np.ndarray) -> "Tensor":
        """Frames at `places`, and their partners, out of all `frames`."""
        now = frames.index_select(0, torch.from_numpy(places).to(frames.device))  # whole frames: faster than frames[…]
        return now if self._later is None else _paired(now, frames, self._later[places])

    def _read(self, places: np.ndarray) -> "Tensor":
        """The same, read from the store."""
        now = self._load(places)
        if self._later is None:
            return now
        later = self._later[places]
        known = later >= 0
        return _paired(now, self._load(later[known]), np.where(known, np.cumsum(known) - 1, -1))

    def _load(self, places: np.ndarray) -> "Tensor":
        frames = np.empty((len(places), self.store.n_atoms, 3), np.float32)
        order = np.argsort(places)
        for start in range(0, len(order), READ_ROWS):
            some = order[start : start + READ_ROWS]
            frames[some] = read_rows(self.store, self.rows[places[some]])
        return torch.from_numpy(frames).to(self.device)


def partners(store: FrameStore, rows: np.ndarray, lag_frames: int) -> np.ndarray:
    """Place in the ascending `rows` of the frame `lag_frames` later: (n,) int64, -1 where there is none.

    All frames on the way must be among `rows` and of the same simulation: no pair spans a gap or a border of the split.
    """
    places = np.arange(len(rows)) + lag_frames
    there = places < len(rows)
    later = np.where(there, rows[np.minimum(places, len(rows) - 1)], -1)
    starts = np.array([simulation.start for simulation in store.simulations])
    number = np.searchsorted(starts, rows, side="right")
    there &= (later == rows + lag_frames) & (np.searchsorted(starts, later, side="right") == number)
    return np.where(there, places, -1)


def _paired(now: "Tensor", frames: "Tensor", later: np.ndarray) -> "Tensor":
    """(b, 2, atoms, 3): `now` (b, atoms, 3) and `frames[later]`, NaN where `later` is -1."""
    result = torch.full((len(now), 2, *now.shape[1:]), torch.nan, device=now.device)
    result[:, 0] = now
    known = torch.from_numpy(np.flatnonzero(later >= 0)).to(now.device)
    result[known, 1] = frames[torch.from_numpy(later[later >= 0])]
    return result


class Tally:
    """Which rows were handed out, as their number and a check sum that does not depend on their order.

    The check sum adds up a hash of each row modulo 2⁶⁴, so that those of several processes can be added: their total
    is that of all rows just if each was handed out once (a chance agreement has probability 2⁻⁶⁴).
    """

    def __init__(self) -> None:
        self.frames, self.checksum = 0, 0

    def add(self, rows: np.ndarray) -> None:
        """Count the rows (k,)."""
        self.frames += len(rows)
        self.checksum = (self.checksum + int(_mixed(rows).sum(dtype=np.uint64))) % 2**64

    def take(self) -> tuple[int, int]:
        """Number and check sum since the last time."""
        taken = self.frames, self.checksum
        self.frames, self.checksum = 0, 0
        return taken


def _mixed(rows: np.ndarray) -> np.ndarray:
    """A hash of each row number, uint64 (SplitMix64, Steele et al. 2014, doi 10.1145/2660193.2660195)."""
    x = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
