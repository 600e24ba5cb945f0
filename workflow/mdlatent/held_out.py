"""Which frames a model is judged on: the test frames of a study, in runs without a gap, and their blocks of time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdlatent import states
from mdlatent.frames import FrameStore
from mdlatent.latents import Latents
from mdlatent.metrics.kinetics import split_runs


@dataclass(frozen=True)
class HeldOut:
    """Test frames as rows of the frame store (k,) ascending, cut into runs; the block of time of each (k,)."""

    rows: np.ndarray
    runs: list[np.ndarray]
    blocks: np.ndarray

    @classmethod
    def of(cls, split: np.ndarray, starts: np.ndarray) -> "HeldOut":
        """From the class of every frame (n,) and the rows at which a stretch of even time begins."""
        rows = np.flatnonzero(split == "test")
        runs = split_runs(rows, starts)
        return cls(rows, runs, states.time_blocks([len(run) for run in runs]))

    def thinned(self, most: int) -> np.ndarray:
        """Places (≤ most,) among the rows, evenly spaced."""
        k = min(len(self.rows), most)
        return np.arange(k, dtype=np.int64) * len(self.rows) // max(k, 1)


def stretches(latent: Latents) -> np.ndarray:
    """Rows at which a simulation or a stretch of even time begins, (k,) int64 ascending."""
    pieces = [slice(a, b) for a, b in zip(latent.edges[:-1], latent.edges[1:], strict=True)]
    found = [states.segment_starts(latent.frame[piece], latent.time_ps[piece]) + piece.start for piece in pieces]
    return np.concatenate(found)


def time_step_ps(latent: Latents, starts: np.ndarray) -> float | None:
    """Median time between frames that follow each other, in ps; None if it is not known."""
    step = np.diff(latent.time_ps)
    step = np.delete(step, starts[starts > 0] - 1)
    known = len(step) and np.isfinite(step).all() and np.median(step) > 0
    return float(np.median(step)) if known else None


def read_split(folder: Path, simulations: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Class (n,) and error of reconstruction in nm (n,) of every frame, from the latent tables of one model."""
    from mdlatent import latents

    tables = [latents.columns(folder / f"{name}.parquet", ["split", "reconstruction_rmse_nm"]) for name in simulations]
    split = np.concatenate([np.asarray(table["split"].to_numpy()) for table in tables])
    errors = [table["reconstruction_rmse_nm"].to_numpy().astype(np.float64) for table in tables]
    return split, np.concatenate(errors)


def training_structure(store: FrameStore, split: np.ndarray) -> np.ndarray:
    """A training frame (atoms, 3) in nm that gives the hand to structures made from distances."""
    from mdlatent.structures import training_reference

    rows = np.flatnonzero(split == "train")
    return training_reference(store, rows if len(rows) else np.flatnonzero(split != "test"))
