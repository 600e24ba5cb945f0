"""Principal components of anything that comes in chunks of rows, with sums in float64; nothing holds all rows.

Up to a given number of columns the covariance is accumulated in one pass over the rows and diagonalised; beyond, the
components are found by iteration, one pass each, until the variances stand still.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Components", "principal_components"]

log = logging.getLogger("mdlatent")

BASIS_BYTES = 400_000_000  # of the iteration's basis, but at least three blocks
OVERSAMPLING = 5
TOLERANCE = 1e-9  # relative change of the variances; the directions are right to about its root
MAX_PASSES = 50

Chunks = Callable[[], Iterator[np.ndarray]]  # one pass over the rows: float64 (≤ chunk, p), which may be overwritten


@dataclass(frozen=True)
class Components:
    """Mean (p,), the largest variances (d,) in falling order, their directions (d, p), orthonormal, total variance.

    All float64. Each direction is signed so that its entry of largest magnitude is positive.
    """

    mean: np.ndarray
    variance: np.ndarray
    directions: np.ndarray
    total_variance: float


def principal_components(
    chunks: Chunks, n_rows: int, dim: int, most_by_covariance: int, name: str, tolerance: float = TOLERANCE
) -> Components:
    """The `dim` principal components of the `n_rows` rows that each call of `chunks` yields.

    Up to `most_by_covariance` columns by the covariance matrix, which takes memory and time for its square and cube;
    beyond by iteration, until the variances change by less than `tolerance`. `name` is for the log.
    """
    columns = next(chunks()).shape[1]
    if columns <= most_by_covariance:
        mean, variance, directions, total = _by_covariance(chunks, n_rows, dim)
    else:
        mean, variance, directions, total = _by_iteration(chunks, n_rows, dim, name, tolerance)
    largest = np.abs(directions).argmax(1)
    directions *= np.sign(directions[np.arange(len(directions)), largest])[:, None]
    return Components(mean, variance, directions, float(total))


Fit = tuple[np.ndarray, np.ndarray, np.ndarray, float]  # mean (p,), variance (d,), components (d, p), total variance


def _by_covariance(chunks: Chunks, n_rows: int, dim: int) -> Fit:
    """One pass: sums of x − s and of its products, where s, the first row, keeps them small."""
    from scipy.linalg import eigh

    shift: np.ndarray | None = None
    for chunk in chunks():
        if shift is None:
            p = chunk.shape[1]
            shift, sums, products = chunk[0].copy(), np.zeros(p), np.zeros((p, p))
        chunk -= shift
        sums += chunk.sum(0)
        products += chunk.T @ chunk
    assert shift is not None
    sums /= n_rows
    products -= n_rows * np.outer(sums, sums)
    products /= n_rows - 1
    total = float(np.trace(products))
    variance, vectors = eigh(products, subset_by_index=(len(sums) - dim, len(sums) - 1), overwrite_a=True)
    return shift + sums, np.maximum(variance[::-1], 0), vectors.T[::-1].copy(), total


def _by_iteration(chunks: Chunks, n_rows: int, dim: int, name: str, tolerance: float) -> Fit:
    """Block Krylov iteration (Musco & Musco 2015, arXiv 1504.05477) with restarts, for any number of columns.

    With X the centred rows (T, p): one pass over them multiplies a block Q (p, k) by XᵀX, which gives the
    next block. All blocks so far form the basis V, in which the best components are the eigenvectors of H = VᵀXᵀXV.
    Where V would take too much memory, it is replaced by its best half.
    """
    mean = sum(chunk.sum(0) for chunk in chunks()) / n_rows
    p = len(mean)
    k = min(dim + OVERSAMPLING, p)
    most = min(p, max(3 * k, BASIS_BYTES // (8 * p)))  # columns of V
    block = np.linalg.qr(np.random.default_rng(0).standard_normal((p, k)))[0]
    basis, m, H = np.empty((p, most), order="F"), 0, np.empty((0, 0))  # the first m columns are in use
    before = np.zeros(dim)
    for number in range(1, MAX_PASSES + 1):
        image, total = np.zeros((p, k)), 0.0
        for chunk in chunks():
            chunk -= mean
            image += chunk.T @ (chunk @ block)
            total += float(np.einsum("ij,ij->", chunk, chunk))
        across, within = basis[:, :m].T @ image, block.T @ image
        H = np.block([[H, across], [across.T, (within + within.T) / 2]])
        basis[:, m : m + k] = block
        m += k
        values, vectors = (part[..., ::-1] for part in np.linalg.eigh(H))  # largest first
        largest, components = values[:dim], (basis[:, :m] @ vectors[:, :dim]).T.copy()
        floor = max(1e-6 * largest[0], np.finfo(float).tiny)  # below it, directions mean nothing
        change = float((np.abs(largest - before) / np.maximum(largest, floor)).max())
        log.info("%s: pass %d over the frames, variances changed by %.1e", name, number, change)
        if change <= tolerance:
            break
        before = largest
        if m + k > most:
            keep = max(k, most // 2)
            basis[:, :keep] = basis[:, :m] @ vectors[:, :keep]
            m, H = keep, np.diag(values[:keep])
        for _ in range(2):  # once leaves rounding errors of the parts taken out
            image = np.linalg.qr(image - basis[:, :m] @ (basis[:, :m].T @ image))[0]
        block = image
    else:
        log.warning("%s: variances still change by %.1e after %d passes", name, change, MAX_PASSES)
    freedom = n_rows - 1
    return mean, np.maximum(largest, 0) / freedom, components, total / freedom
