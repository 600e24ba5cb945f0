"""Leading principal components of any numbers computed from frames, in passes over them.

Up to 1,500 numbers a frame, their covariance is accumulated in float64 and diagonalised. Beyond, where it would be too
large, the components come from subspace iteration with oversampling (Halko, Martinsson & Tropp 2011,
doi 10.1137/090771806): the variance they leave is within a few per cent of the least possible, which does for a start.
Memory grows with the numbers times the components, never with the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

__all__ = ["principal_components"]

COVARIANCE_NUMBERS = 1500
OVERSAMPLING = 10
PASSES = 4

Chunks = Callable[[], Iterable[np.ndarray]]


def principal_components(chunks: Chunks, n_components: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (p,), components (k, p) and standard deviations (k,) along them, all float32, largest first.

    `chunks` gives the rows, (≤ chunk, p), as often as it is called. Components that the data do not span are zero, with
    standard deviation zero; each component's largest entry is positive.
    """
    total: np.ndarray | float = 0.0
    count = 0
    for chunk in chunks():
        total = total + chunk.sum(0, dtype=np.float64)
        count += len(chunk)
    mean = np.asarray(total) / count
    few = min(n_components, len(mean), count - 1)
    by = _by_covariance if len(mean) <= COVARIANCE_NUMBERS else _by_iteration
    variance, vectors = by(chunks, mean, few, count)
    deviations = np.sqrt(np.maximum(variance, 0))
    components = np.zeros((n_components, len(mean)))
    components[:few] = vectors
    # What rounding errors alone span is no direction of the data.
    deviations[deviations < 1e-6 * max(deviations[:1].max(initial=0), 1e-30)] = 0
    components[:few][deviations == 0] = 0
    largest = np.abs(components).argmax(1)
    components *= np.where(components[np.arange(n_components), largest] < 0, -1, 1)[:, None]
    deviations = np.concatenate([deviations, np.zeros(n_components - few)])
    return mean.astype(np.float32), components.astype(np.float32), deviations.astype(np.float32)


def _by_covariance(chunks: Chunks, mean: np.ndarray, k: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.linalg import eigh

    p = len(mean)
    covariance = np.zeros((p, p))
    for chunk in chunks():
        centred = chunk - mean
        covariance += centred.T @ centred
    if k < 1:
        return np.zeros(0), np.zeros((0, p))
    values, vectors = eigh(covariance / max(count - 1, 1), subset_by_index=(p - k, p - 1), overwrite_a=True)
    return values[::-1], vectors.T[::-1]


def _by_iteration(chunks: Chunks, mean: np.ndarray, k: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    p = len(mean)
    width = min(k + OVERSAMPLING, p)
    centre = mean.astype(np.float32)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((p, width)).astype(np.float32))[0]
    for _ in range(PASSES):
        image = np.zeros((p, width))
        inside = np.zeros((width, width))
        for chunk in chunks():
            centred = chunk - centre
            projected = centred @ basis
            image += centred.T @ projected
            inside += projected.T.astype(np.float64) @ projected
        last, basis = basis, np.linalg.qr(image)[0].astype(np.float32)
    values, vectors = np.linalg.eigh(inside / max(count - 1, 1))
    return values[::-1][:k], (last @ vectors[:, ::-1][:, :k]).T
