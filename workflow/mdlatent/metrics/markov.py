"""Markov models of states: implied timescales and the Chapman–Kolmogorov test (Prinz et al. 2011,
doi:10.1063/1.3565032).

The model is the reversible one of maximum likelihood, on the states last visited (`states.last_visited`), with every
pair of frames a lag apart counted. If the states were memoryless at the lag, timescales would not change when the lag
grows, and powers of the model would predict the transitions at multiples of the lag.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mdlatent.metrics.intervals import Interval

LAGS = (1, 2, 5)  # and their multiples by powers of ten
CK_STEPS = 5
N_RESAMPLES = 200
N_TIMESCALES = 5
MAX_STATES = 50  # above, intervals are left out: they would take 200 times as long
TOLERANCE, MAX_ITERATIONS = 1e-10, 20_000


@dataclass(frozen=True)
class Chain:
    """States last visited (n,), −1 before the first visit; stretch and block of time of each frame (n,)."""

    visited: np.ndarray
    stretch: np.ndarray
    block: np.ndarray
    n_states: int

    def counts(self, lag: int) -> np.ndarray:
        """Pairs `lag` frames apart within a stretch by block: (B, n_states, n_states) float64."""
        n_blocks, n = int(self.block.max(initial=-1)) + 1, self.n_states
        here, there = self.visited[:-lag], self.visited[lag:]
        keep = (self.stretch[:-lag] == self.stretch[lag:]) & (here >= 0) & (there >= 0)
        code = (self.block[:-lag][keep] * n + here[keep]) * n + there[keep]
        return np.bincount(code, minlength=n_blocks * n * n).reshape(n_blocks, n, n).astype(np.float64)


def connected(counts: np.ndarray) -> np.ndarray:
    """The states (k,) that can all be reached from each other, of the largest such set by counts (n, n)."""
    from scipy.sparse.csgraph import connected_components

    n_sets, member = connected_components(counts > 0, directed=True, connection="strong")
    weights = np.bincount(member, counts.sum(1), minlength=n_sets)
    return np.flatnonzero(member == weights.argmax())


def reversible(counts: np.ndarray) -> np.ndarray:
    """The reversible transition matrices of maximum likelihood, (B, n, n) from counts (B, n, n).

    Iterates x_ij = (c_ij + c_ji) / (c_i / x_i + c_j / x_j) until the x_i stand still (Bowman et al. 2009,
    doi:10.1063/1.3216567). A state without counts keeps to itself.
    """
    both = counts + counts.transpose(0, 2, 1)
    out = counts.sum(2)
    x = both / np.maximum(both.sum((1, 2), keepdims=True), 1)
    for _ in range(MAX_ITERATIONS):
        sums = x.sum(2)
        rate = np.divide(out, sums, out=np.zeros_like(out), where=sums > 0)
        below = rate[:, :, None] + rate[:, None, :]
        x = np.divide(both, below, out=np.zeros_like(both), where=below > 0)
        x /= np.maximum(x.sum((1, 2), keepdims=True), np.finfo(float).tiny)
        if np.abs(x.sum(2) - sums).max(initial=0) < TOLERANCE:
            break
    sums = x.sum(2, keepdims=True)
    return np.where(sums > 0, np.divide(x, sums, out=np.zeros_like(x), where=sums > 0), np.eye(x.shape[1]))


def timescales(matrices: np.ndarray, lag: float) -> np.ndarray:
    """Implied timescales (B, n − 1), largest first, in the unit of `lag`: −lag / ln λ; NaN where λ is not in 0 … 1."""
    values = np.sort(np.linalg.eigvals(matrices).real, axis=1)[:, -2::-1]
    good = (values > 0) & (values < 1 - 1e-12)
    return np.where(good, -lag / np.log(np.where(good, values, 0.5)), np.nan)


def model(chain: Chain, lag: int, states: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Transition matrix (k, k) among `states` at a lag, and those of resampled blocks (200, k, k) or None."""
    counts = chain.counts(lag)[:, states][:, :, states]
    matrix = reversible(counts.sum(0)[None])[0]
    if len(counts) < 2 or len(states) > MAX_STATES:
        return matrix, None
    drawn = np.random.default_rng(0).integers(len(counts), size=(N_RESAMPLES, len(counts)))
    weights = np.stack([np.bincount(some, minlength=len(counts)) for some in drawn]).astype(np.float64)
    return matrix, reversible(np.einsum("rb,bij->rij", weights, counts))


def lags_to_show(longest: int, lag: int) -> list[int]:
    """1, 2, 5, 10 … frames up to a tenth of the longest stretch, and `lag` itself."""
    top = max(longest // 10, 1)
    return sorted({k * 10**e for e in range(9) for k in LAGS if k * 10**e <= top} | {lag})


def analyse(chain: Chain, lag: int, time_step_ps: float | None) -> dict[str, Any]:
    """Timescales at several lags, and the test at multiples of `lag` frames; see KEYS in the stage `evaluate`.

    Times are in ps, or in frames where `time_step_ps` is None. Empty lists where fewer than two states are connected.
    """
    step = time_step_ps or 1.0
    result: dict[str, Any] = {"lag_frames": lag, "time_step_ps": time_step_ps, "n_states": chain.n_states}
    longest = int(np.bincount(chain.stretch).max(initial=0))
    states = connected(chain.counts(lag).sum(0)) if 0 < lag < longest and chain.n_states > 1 else np.arange(0)
    result |= {"states": states.tolist(), "timescales": [], "chapman_kolmogorov": [], "ck_error": None}
    if len(states) < 2:
        return result
    for some in lags_to_show(longest, lag):
        matrix, resampled = model(chain, some, states)
        values = timescales(matrix[None], some * step)[0][:N_TIMESCALES]
        row = {"lag_frames": some, "lag": some * step, "values": _plain(values)}
        if resampled is not None:
            spread = timescales(resampled, some * step)[:, :N_TIMESCALES]
            row["intervals"] = [interval(column) for column in spread.T]
        result["timescales"].append(row)
    first = model(chain, lag, states)[0]
    worst = 0.0
    for k in range(1, CK_STEPS + 1):
        if k * lag >= longest:
            break
        predicted = np.linalg.matrix_power(first, k)
        estimated = model(chain, k * lag, states)[0]
        worst = max(worst, float(np.abs(predicted - estimated).max()))
        result["chapman_kolmogorov"].append(
            {"lag_frames": k * lag, "predicted": predicted.tolist(), "estimated": estimated.tolist()}
        )
    result["ck_error"] = worst
    return result


def interval(values: np.ndarray) -> Interval | None:
    """2.5 and 97.5 % of the finite values; None where they are fewer than nine tenths."""
    good = values[np.isfinite(values)]
    if len(good) < 0.9 * len(values):
        return None
    low, high = np.quantile(good, [0.025, 0.975])
    return float(low), float(high)


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
