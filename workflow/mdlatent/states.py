"""States in a latent space: density clusters, and what their sequence in time says. Pure functions on arrays.

A state is a cluster of HDBSCAN (Campello et al. 2013, doi:10.1007/978-3-642-37456-2_14; McInnes et al. 2017,
doi:10.21105/joss.00205) on the latent as the model gives it: no scaling, for a dimension that varies little is meant
to count little, and whitening would lift its noise to the height of the slow motions.

Frames that are less dense than the pass between two states are noise to HDBSCAN, on all sides of a state. Where asked
for, those that lie at the outskirts of one state are given to it (`assign_outskirts`), so that noise is what lies
between states or far away.

Frames between states are noise (label −1). For kinetics they belong to the state last visited (core sets, also called
milestoning: Buchete & Hummer 2008, doi:10.1021/jp0761665; Schütte et al. 2011, doi:10.1063/1.3590108): a frame that
leaves a core and falls back to it made no transition.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import density

NOISE = -1
DOUBTFUL = 0.15  # one structureless (Gaussian) basin of 1,000–20,000 frames gives clusters of persistence up to this
NEIGHBOURS = 10  # that must agree for a frame at the outskirts …
REACH, MOST = 4.0, 0.95  # … and be no further than so many times what it is for this part of the frames of the state
N_BLOCKS = 10  # blocks of time for standard errors; few, since blocks must outlast the memory of the states


@dataclass(frozen=True)
class Clustering:
    """Labels (n,) int32 (0 is the largest state, −1 noise), probabilities (n,) float32, persistence of each state.

    `message` says in words why there is no state, or None. `n_assigned` frames at the outskirts were noise to HDBSCAN;
    their probability is 0. `plan` says how the clusters were found, or None.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    persistence: list[float] = field(default_factory=list)
    message: str | None = None
    n_assigned: int = 0
    plan: density.Plan | None = None

    @property
    def n_states(self) -> int:
        """Number of states, noise not counted."""
        return len(self.persistence)

    @property
    def noise_fraction(self) -> float:
        """Fraction of frames in no state."""
        return float(np.mean(self.labels == NOISE)) if len(self.labels) else 0.0

    @property
    def noise_by_density(self) -> float:
        """The same before frames at the outskirts were given to states."""
        return self.noise_fraction + self.n_assigned / max(len(self.labels), 1)

    @property
    def caution(self) -> str | None:
        """Which states may be chance, in words, or None."""
        weak = [f"{state} ({value:.3f})" for state, value in enumerate(self.persistence) if value < DOUBTFUL]
        if not weak:
            return None
        return (
            f"Low persistence (below {DOUBTFUL}) of state {', '.join(weak)}: clusters like these appear in a single "
            "basin by chance too. See whether they stay when cluster.min_cluster_size is raised, and from seed to seed."
        )


def find_states(latent: np.ndarray, options: Mapping[str, Any], trees: Path | None = None) -> Clustering:
    """Cluster frames by their latent (n, d); `options` is the section `cluster` with numbers for `auto`.

    The minimum spanning tree is exact (`approx_min_span_tree=False`): the approximation changes which frames are
    noise. The result does not depend on the order of the frames but for ties, nor on rotations of the latent but for
    rounding. Where no state is found all frames are noise and `message` says why and what to do. Which package does the
    work, and on how many frames, is decided by `density.plan`. In the folder `trees` the spanning tree is kept, which
    does not depend on min_cluster_size, and found again by the content of `latent`.
    """
    size, samples = options["min_cluster_size"], options["min_samples"]
    reason = _hopeless(latent, size, samples)
    if reason:
        return Clustering(np.full(len(latent), NOISE, np.int32), np.zeros(len(latent), np.float32), message=reason)
    fitted = density.fit(np.asarray(latent, np.float64), options, trees)
    order = by_population(fitted.labels)
    message = None if len(order) else _no_state(size, samples)
    labels = relabel(fitted.labels, order)
    dense = int((labels != NOISE).sum())
    if options.get("outskirts") == "assign":
        labels = assign_outskirts(np.asarray(latent, np.float64), labels)
    return Clustering(
        labels,
        np.nan_to_num(fitted.probabilities, nan=1.0).astype(np.float32),  # 0/0 where identical frames make a state
        [float(fitted.persistence[label]) for label in order],
        message,
        int((labels != NOISE).sum()) - dense,
        fitted.plan,
    )


def assign_outskirts(latent: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels (n,) in which noise at the outskirts of one state belongs to it; states keep all they have.

    A frame is at the outskirts of a state if its NEIGHBOURS nearest frames in states are all of that state, the last of
    them no further away than REACH times what it is for MOST frames of the state. What remains noise has several states
    around it, or is far from all. (What it is for the most isolated frame of a state depends on chance and on
    `min_samples`, and so would how much is noise.)
    """
    from scipy.spatial import cKDTree

    inside, noise = np.flatnonzero(labels != NOISE), np.flatnonzero(labels == NOISE)
    if len(inside) <= NEIGHBOURS or not len(noise):
        return labels
    tree, here = cKDTree(latent[inside]), labels[inside]
    own = tree.query(latent[inside], k=[NEIGHBOURS + 1])[0][:, 0]  # the first is the frame itself
    reach = REACH * np.array([np.quantile(own[here == state], MOST) for state in range(int(here.max()) + 1)])
    distance, nearest = tree.query(latent[noise], k=NEIGHBOURS)
    around = here[nearest]
    near = (around == around[:, :1]).all(1) & (distance[:, -1] <= reach[around[:, 0]])
    result = labels.copy()
    result[noise[near]] = around[near, 0]
    return result


def _hopeless(latent: np.ndarray, size: int, samples: int) -> str | None:
    n = len(latent)
    if n < 2 * size or n <= samples:
        return (
            f"No state was looked for: got {n} frames, expected at least {max(2 * size, samples + 1)}, twice "
            f"cluster.min_cluster_size ({size}) and more than cluster.min_samples ({samples}). Lower them, give more "
            "frames, or lower featurize.stride."
        )
    if np.ptp(latent, axis=0).max() == 0:
        return (
            f"No state was looked for: all {n} frames have the same latent. The model has collapsed: lower train.beta, "
            "train longer, or look at its learning curves."
        )
    return None


def _no_state(size: int, samples: int) -> str:
    return (
        f"HDBSCAN found no state: all frames are noise, or one single basin, which it does not call a state. Lower "
        f"cluster.min_cluster_size (now {size}, try {max(2, size // 4)}) or cluster.min_samples (now {samples}), train "
        "the model longer or with more latent dimensions; or the simulation indeed stays in one basin."
    )


def by_population(labels: np.ndarray) -> np.ndarray:
    """Labels ≥ 0 that occur, the most populated first; of equally populated ones, that which is visited first."""
    found, first, counts = np.unique(labels, return_index=True, return_counts=True)
    keep = found >= 0
    return found[keep][np.lexsort((first[keep], -counts[keep]))]


def relabel(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Labels (n,) renumbered so that `order[k]` becomes k and noise stays −1; int32."""
    table = np.full(int(labels.max(initial=-1)) + 2, NOISE, np.int32)  # the last place is that of noise
    table[order] = np.arange(len(order))
    return table[labels]


def segment_starts(frame: np.ndarray, time_ps: np.ndarray) -> np.ndarray:
    """Rows at which a stretch of even time begins, (k,) int64, within one simulation; the first is row 0.

    `frame` (n,) int64 and `time_ps` (n,) float64 or NaN. A new stretch begins where frame number or time jumps by more
    than 1.5 times its usual (median) step or does not rise: nothing is known of what happened in between.
    """
    if len(frame) < 2:
        return np.zeros(min(len(frame), 1), np.int64)
    breaks = np.zeros(len(frame) - 1, bool)
    for values in (frame, time_ps):
        step = np.diff(np.asarray(values, np.float64))
        if np.isfinite(step).all():
            breaks |= (step > 1.5 * np.median(step)) | (step <= 0)
    return np.concatenate([[0], np.flatnonzero(breaks) + 1])


def last_visited(labels: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Labels (n,) with noise replaced by the state last visited in the same stretch; −1 before the first visit."""
    rows = np.arange(len(labels))
    from_row = np.maximum.accumulate(np.where(labels != NOISE, rows, -1))
    begin = starts[np.searchsorted(starts, rows, side="right") - 1]
    return np.where(from_row >= begin, labels[np.maximum(from_row, 0)], NOISE).astype(labels.dtype)


def count_steps(labels: np.ndarray, starts: np.ndarray, n_states: int) -> np.ndarray:
    """Counts (n_states, n_states) int64 of steps from row t (first index) to t + 1, both in states, in one stretch."""
    inside = np.ones(max(len(labels) - 1, 0), bool)
    inside[starts[starts > 0] - 1] = False
    here, there = labels[:-1], labels[1:]
    keep = inside & (here != NOISE) & (there != NOISE)
    pairs = here[keep].astype(np.int64) * n_states + there[keep]
    return np.bincount(pairs, minlength=n_states * n_states).reshape(n_states, n_states)


@dataclass
class Stays:
    """Visits, exits and time of each state, summed over simulations: (n_states,) each."""

    visits: np.ndarray
    exits: np.ndarray
    time_ps: np.ndarray

    @classmethod
    def none(cls, n_states: int) -> "Stays":
        """No visit yet."""
        return cls(np.zeros(n_states, np.int64), np.zeros(n_states, np.int64), np.zeros(n_states))

    def add(self, visited: np.ndarray, starts: np.ndarray, time_ps: np.ndarray) -> None:
        """Add a simulation by its last visited states (n,) and times (n,) in ps; see `last_visited`."""
        n_states = len(self.visits)
        if not len(visited):
            return
        is_start = np.zeros(len(visited), bool)
        is_start[starts] = True
        entered = (visited != NOISE) & (is_start | (np.roll(visited, 1) != visited))
        self.visits += np.bincount(visited[entered], minlength=n_states)
        here, step = visited[:-1], np.diff(time_ps)
        keep = (here != NOISE) & ~is_start[1:]
        self.time_ps += np.bincount(here[keep], weights=step[keep], minlength=n_states)
        left = keep & (visited[1:] != here)
        self.exits += np.bincount(here[left], minlength=n_states)

    def mean_lifetime_ps(self) -> np.ndarray:
        """Time in a state divided by the exits from it, (n_states,) in ps; NaN for a state that is never left.

        The maximum-likelihood estimate for memoryless exits; visits cut off by the end of a simulation count with
        their time and without an exit.
        """
        return np.divide(self.time_ps, self.exits, out=np.full(len(self.exits), np.nan), where=self.exits > 0)


def time_blocks(lengths: Sequence[int] | np.ndarray, n_blocks: int = N_BLOCKS) -> np.ndarray:
    """Number of the block of time of every row, (sum of lengths,) int64, blocks counted over all pieces.

    `lengths` are those of consecutive pieces (simulations, or runs of frames without a pause). No block crosses a
    piece's border; each piece is cut into equal blocks such that there are about `n_blocks` in all, at least one each.
    """
    total = max(int(np.sum(lengths)), 1)
    result, first = [np.empty(0, np.int64)], 0
    for length in lengths:
        n = min(max(1, round(n_blocks * int(length) / total)), max(int(length), 1))
        result.append(first + np.arange(length) * n // max(int(length), 1))
        first += n if length else 0
    return np.concatenate(result)


def population_error(labels: np.ndarray, blocks: np.ndarray, n_states: int) -> np.ndarray:
    """Standard error of the population of each state and, last, of noise: (n_states + 1,) float64.

    From the spread of the populations between blocks of time (n,), each weighted by its frames:
    s² = B / (B − 1) · Σ w_b² (p_b − p)²; NaN for fewer than two blocks. It is right as far as blocks are independent,
    too small where a state's lifetime exceeds the length of a block.
    """
    n_blocks = int(blocks.max(initial=-1)) + 1
    if n_blocks < 2:
        return np.full(n_states + 1, math.nan)
    column = np.where(labels == NOISE, n_states, labels)
    counts = np.bincount(blocks * (n_states + 1) + column, minlength=n_blocks * (n_states + 1))
    counts = counts.reshape(n_blocks, n_states + 1)
    sizes = counts.sum(1)
    deviation = (counts - sizes[:, None] * (counts.sum(0) / sizes.sum())) / sizes.sum()
    return np.sqrt(n_blocks / (n_blocks - 1) * (deviation**2).sum(0))
