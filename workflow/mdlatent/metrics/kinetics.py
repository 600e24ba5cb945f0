"""How much of the slow motion a map keeps: VAMP-2.

VAMP-2 of a map z at a lag τ is the sum of the squared singular values of C₀₀^(−1/2) C₀τ C_ττ^(−1/2), with the
covariances of z(t) and z(t + τ), means taken out (Wu & Noé 2020, doi:10.1007/s00332-019-09567-y, eq. 33). The constant
function, which would add 1, is left out. It lies between 0 (no memory) and the number of dimensions, and rises with
the dimension: only maps of the same dimension, at the same lag, can be compared. The whitening is computed from the
frames that are judged, so for independent frames it is about d² / n, not 0.

Pairs (t, t + τ) lie within one run of frames without a gap, never across simulations or parts of the split.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mdlatent.metrics.intervals import Interval, block_jackknife
from mdlatent.states import time_blocks

CUTOFF = 1e-10  # directions with less than this part of the largest variance carry nothing but rounding


@dataclass(frozen=True)
class Moments:
    """Sums over pairs of frames by block: `n` (B,), `x` and `y` (B, d), `xx`, `yy`, `xy` (B, d, d), float64."""

    n: np.ndarray
    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    yy: np.ndarray
    xy: np.ndarray

    def covariances(self, use: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """C₀₀, C_ττ and C₀τ, (d, d) each, over the blocks `use` (B,) bool, or all."""
        use = np.ones(len(self.n), bool) if use is None else use
        n = max(float(self.n[use].sum()), 1.0)
        x, y = self.x[use].sum(0) / n, self.y[use].sum(0) / n
        xx, yy, xy = (part[use].sum(0) / n for part in (self.xx, self.yy, self.xy))
        return xx - np.outer(x, x), yy - np.outer(y, y), xy - np.outer(x, y)


def lagged_moments(runs: Sequence[np.ndarray], lag: int) -> Moments | None:
    """Moments of pairs `lag` frames apart within runs, (k, d) each, by about ten blocks of time; None without pairs.

    Values are shifted by their common mean before they are squared, for the sake of rounding.
    """
    runs = [run for run in runs if len(run) > lag]
    if not runs:
        return None
    centre = np.concatenate([run.mean(0, dtype=np.float64)[None] for run in runs]).mean(0)
    blocks = time_blocks([len(run) - lag for run in runs])
    n_blocks, d = int(blocks[-1]) + 1, runs[0].shape[1]
    found = Moments(np.zeros(n_blocks), *(np.zeros((n_blocks, *(d,) * k)) for k in (1, 1, 2, 2, 2)))
    start = 0
    for run in runs:
        shifted = run.astype(np.float64) - centre
        own = blocks[start : start + len(run) - lag]
        for block in np.unique(own):
            x, y = shifted[:-lag][own == block], shifted[lag:][own == block]
            found.n[block] += len(x)
            found.x[block] += x.sum(0)
            found.y[block] += y.sum(0)
            found.xx[block] += x.T @ x
            found.yy[block] += y.T @ y
            found.xy[block] += x.T @ y
        start += len(run) - lag
    return found


def vamp2(moments: Moments, use: np.ndarray | None = None) -> float:
    """VAMP-2 without the constant, see the head of this file."""
    c00, ctt, c0t = moments.covariances(use)
    return float(np.square(whitening(c00).T @ c0t @ whitening(ctt)).sum())


def vamp2_interval(moments: Moments) -> Interval | None:
    """95 % interval over blocks of time."""
    return block_jackknife(lambda use: vamp2(moments, use), len(moments.n))


def vamp2_ratio(map_moments: Moments, baseline: Moments) -> tuple[float, Interval | None]:
    """VAMP-2 of a map over that of another on the same pairs, and its interval (blocks left out of both at once)."""

    def ratio(use: np.ndarray) -> float:
        below = vamp2(baseline, use)
        return vamp2(map_moments, use) / below if below > 0 else float("nan")

    return ratio(np.ones(len(baseline.n), bool)), block_jackknife(ratio, len(baseline.n))


def whitening(covariance: np.ndarray) -> np.ndarray:
    """W (d, r) with Wᵀ C W = 1, over the r directions that vary."""
    values, vectors = np.linalg.eigh(covariance)
    keep = values > CUTOFF * max(float(values[-1]), np.finfo(float).tiny)
    return vectors[:, keep] / np.sqrt(values[keep])


def split_runs(rows: np.ndarray, starts: Iterable[int]) -> list[np.ndarray]:
    """Rows (k,) ascending cut wherever one is missing or where a stretch of even time begins (`starts`, rows)."""
    if not len(rows):
        return []
    breaks = (np.diff(rows) > 1) | np.isin(rows[1:], np.fromiter(starts, np.int64))
    return np.split(rows, np.flatnonzero(breaks) + 1)
