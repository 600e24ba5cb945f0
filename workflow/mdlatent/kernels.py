"""Distance kernels compiled with numba; import this module only where they run (numba takes 0.3 s to import).

Whole rows are computed, although the matrix is symmetric: mirroring one half costs eight times as much as computing it
again, for the writes of a column are scattered. Differences are taken directly; the Gram form |x|² + |y|² − 2xy is
slower and loses 4e-3 nm at 50 nm from the origin. (x−y)² = (y−x)² exactly, so the matrices are symmetric to the bit.
"""

import os
import tempfile
from pathlib import Path

import numba
import numpy as np


def _cache_folder() -> None:
    """Give numba a folder for compiled code if neither the package's nor the user's can be written."""
    if numba.config.CACHE_DIR:
        return
    for folder in (Path(__file__).parent, Path.home()):
        if os.access(folder, os.W_OK):
            return
    numba.config.CACHE_DIR = str(Path(tempfile.gettempdir()) / f"mdlatent-numba-{os.getuid()}")


_cache_folder()


@numba.njit(cache=True)
def full(coordinates, out):
    """Distances (frames, n, n) of coordinates (frames, n, 3), float32, into `out`."""
    frames, n, _ = coordinates.shape
    x, y, z = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for t in range(frames):
        for i in range(n):
            x[i], y[i], z[i] = coordinates[t, i, 0], coordinates[t, i, 1], coordinates[t, i, 2]
        for i in range(n):
            xi, yi, zi = x[i], y[i], z[i]
            row = out[t, i]
            for j in range(n):
                dx, dy, dz = x[j] - xi, y[j] - yi, z[j] - zi
                row[j] = np.sqrt(dx * dx + dy * dy + dz * dz)


@numba.njit(cache=True)
def packed(coordinates, out):
    """Distances (frames, n (n − 1) / 2) of the pairs i < j, row by row, into `out`."""
    frames, n, _ = coordinates.shape
    x, y, z = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for t in range(frames):
        for i in range(n):
            x[i], y[i], z[i] = coordinates[t, i, 0], coordinates[t, i, 1], coordinates[t, i, 2]
        first = 0
        for i in range(n - 1):
            xi, yi, zi = x[i], y[i], z[i]
            row = out[t, first : first + n - 1 - i]
            for k in range(n - 1 - i):
                dx, dy, dz = x[i + 1 + k] - xi, y[i + 1 + k] - yi, z[i + 1 + k] - zi
                row[k] = np.sqrt(dx * dx + dy * dy + dz * dz)
            first += n - 1 - i
