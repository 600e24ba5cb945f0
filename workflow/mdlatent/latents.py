"""Reading the latent tables of a study: one parquet file per simulation, only the columns that are needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mdlatent.errors import DataError

if TYPE_CHECKING:
    import pyarrow

COORDINATE = r"z\d+"


@dataclass(frozen=True)
class Latents:
    """The latent of all frames of a study as rows: simulations one after the other, each in order of time.

    `z` (n, d) float32; `frame` (n,) int64, number in the original trajectory; `time_ps` (n,) float64, NaN if unknown.
    Simulation k has the rows `edges[k]` to `edges[k + 1]`.
    """

    simulations: list[str]
    edges: np.ndarray
    frame: np.ndarray
    time_ps: np.ndarray
    z: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each simulation, (n_simulations,) int64."""
        return np.diff(self.edges)

    def simulation_of(self, rows: np.ndarray) -> np.ndarray:
        """Index of the simulation of each of the rows (k,)."""
        return np.searchsorted(self.edges, rows, side="right") - 1


def read(folder: Path, n_frames: Mapping[str, int]) -> Latents:
    """Read `<folder>/<simulation>.parquet` for every simulation of `n_frames` (name → frames that it must have).

    Raises DataError if a table is missing, damaged, of other length or dimension, or holds NaN or infinity.
    """
    edges = np.concatenate([[0], np.cumsum(list(n_frames.values()))]).astype(np.int64)
    frame, time_ps = np.empty(edges[-1], np.int64), np.empty(edges[-1])
    names: list[str] = []
    z = np.empty((0, 0), np.float32)
    for k, (simulation, expected) in enumerate(n_frames.items()):
        path = folder / f"{simulation}.parquet"
        found = coordinate_names(path)
        if not names:
            names, z = found, np.empty((int(edges[-1]), len(found)), np.float32)
        if found != names:
            raise DataError(
                f"{path}: got latent columns {', '.join(found)}, the simulations before have {', '.join(names)}; "
                "map all simulations with the same model"
            )
        table = columns(path, ["frame", "time_ps", *names])
        if len(table) != expected:
            raise DataError(f"{path}: got {len(table)} rows, the frame store has {expected} frames; run embed again")
        rows = slice(edges[k], edges[k + 1])
        frame[rows], time_ps[rows] = table["frame"].to_numpy(), table["time_ps"].to_numpy()
        for column, name in enumerate(names):
            z[rows, column] = table[name].to_numpy()
        bad = ~np.isfinite(z[rows]).all(1)
        if bad.any():
            raise DataError(
                f"{path}: the latent of {int(bad.sum())} frames is NaN or infinite, the first is frame "
                f"{frame[rows][bad.argmax()]}; look at the training of the model and train it again"
            )
    return Latents(list(n_frames), edges, frame, time_ps, z)


def coordinate_names(path: Path) -> list[str]:
    """Names of the latent columns of a table, z0, z1 … in order. Raises DataError if there is none."""
    import re

    import pyarrow.parquet as pq

    with _plain_errors(path):
        names = pq.read_schema(path).names
    found = sorted((name for name in names if re.fullmatch(COORDINATE, name)), key=lambda name: int(name[1:]))
    if not found:
        raise DataError(f"{path}: got the columns {', '.join(names)}, expected z0, z1 …; run embed again")
    return found


def columns(path: Path, names: Sequence[str]) -> "pyarrow.Table":
    """Some columns of a parquet table. Raises DataError if the file is missing or damaged or a column is not there."""
    import pyarrow.parquet as pq

    with _plain_errors(path):
        there = pq.read_schema(path).names
        missing = [name for name in names if name not in there]
        if missing:
            raise DataError(f"{path}: the column {missing[0]!r} is missing, got {', '.join(there)}; make it again")
        return pq.read_table(path, columns=list(names), use_threads=False)


class _plain_errors:  # noqa: N801  (used like a function)
    """Turn what pyarrow raises for a missing or damaged file into DataError."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        if not self.path.is_file():
            raise DataError(f"{self.path}: there is no such table; run the stage that makes it first")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import pyarrow

        if isinstance(error, pyarrow.ArrowInvalid):
            raise DataError(f"{self.path}: cannot be read as parquet ({error}); make it again") from error
