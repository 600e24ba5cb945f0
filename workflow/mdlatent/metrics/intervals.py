"""Intervals for means and other measures of a simulation, from blocks of time.

Frames that follow each other resemble each other, so blocks of time and not frames are the unit. Blocks must outlast
the memory of the simulation for an interval to be wide enough (Flyvbjerg & Petersen 1989, doi:10.1063/1.457480).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

N_RESAMPLES = 2000
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # Student's t of 1 … 9 degrees of freedom

Interval = tuple[float, float]


def block_bootstrap(
    totals: Any, sizes: Any, statistic: Callable[[Any], Any] = lambda mean: mean, n_resamples: int = N_RESAMPLES
) -> Interval | None:
    """95 % interval of `statistic(total / size)` by resampling blocks of time with replacement (percentiles).

    `totals` and `sizes` (n_blocks,): sums over the frames of a block, of what is measured and of what it is divided by
    (their number, for a mean). The seed is fixed. None for fewer than two blocks.
    """
    totals, sizes = np.asarray(totals, np.float64), np.asarray(sizes, np.float64)
    if len(totals) < 2:
        return None
    drawn = _draws(len(totals), n_resamples)
    below = sizes[drawn].sum(1)
    values = statistic(totals[drawn].sum(1)[below > 0] / below[below > 0])
    return _percentiles(values)


def bootstrap_frames(
    values: np.ndarray, blocks: np.ndarray, statistic: Callable[[np.ndarray], float], n_resamples: int = 500
) -> Interval | None:
    """As `block_bootstrap` for a statistic of the single frames (a median), given their values and blocks (n,)."""
    groups = [values[blocks == block] for block in np.unique(blocks)]
    if len(groups) < 2:
        return None
    drawn = _draws(len(groups), n_resamples)
    return _percentiles(np.array([statistic(np.concatenate([groups[k] for k in some])) for some in drawn]))


def bootstrap_sums(
    sums: np.ndarray, statistic: Callable[[np.ndarray], float], n_resamples: int = 500
) -> Interval | None:
    """As `block_bootstrap` for any statistic of a sum over blocks, as of tables of counts (n_blocks, …)."""
    if len(sums) < 2:
        return None
    return _percentiles(np.array([statistic(sums[some].sum(0)) for some in _draws(len(sums), n_resamples)]))


def block_jackknife(statistic: Callable[[np.ndarray], float], n_blocks: int) -> Interval | None:
    """95 % interval of a statistic that the repetition of blocks would bias: value ± t · s, from leaving blocks out.

    `statistic` takes which blocks to use, (n_blocks,) bool. s² = (B − 1) / B · Σ (v_b − mean v)² with v_b the value
    without block b (Künsch 1989, doi:10.1214/aos/1176347265). None for fewer than two blocks.
    """
    if n_blocks < 2:
        return None
    without = np.array([statistic(np.arange(n_blocks) != block) for block in range(n_blocks)])
    if not np.isfinite(without).all():
        return None
    error = np.sqrt((n_blocks - 1) / n_blocks * ((without - without.mean()) ** 2).sum())
    reach = error * (T_975[n_blocks - 2] if n_blocks - 2 < len(T_975) else 1.96)
    value = statistic(np.ones(n_blocks, bool))
    return float(value - reach), float(value + reach)


def _draws(n_blocks: int, n_resamples: int) -> np.ndarray:
    return np.random.default_rng(0).integers(n_blocks, size=(n_resamples, n_blocks))


def _percentiles(values: np.ndarray) -> Interval | None:
    values = np.asarray(values)[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
