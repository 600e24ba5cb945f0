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


@numba.njit(cache=True)
def mend(coordinates, boxes, inverse, real, child, parent):
    """Move each child (edges in order) by the lattice vector that brings it next to its parent, in place."""
    for t in range(len(coordinates)):
        if not real[t]:
            continue
        x, box, inv = coordinates[t], boxes[t], inverse[t]
        for e in range(len(child)):
            c, p = child[e], parent[e]
            dx = np.float64(x[c, 0]) - x[p, 0]
            dy = np.float64(x[c, 1]) - x[p, 1]
            dz = np.float64(x[c, 2]) - x[p, 2]
            a = np.rint(dx * inv[0, 0] + dy * inv[1, 0] + dz * inv[2, 0])
            b = np.rint(dx * inv[0, 1] + dy * inv[1, 1] + dz * inv[2, 1])
            d = np.rint(dx * inv[0, 2] + dy * inv[1, 2] + dz * inv[2, 2])
            if a != 0 or b != 0 or d != 0:
                for k in range(3):
                    x[c, k] = x[c, k] - (a * box[0, k] + b * box[1, k] + d * box[2, k])


@numba.njit(cache=True)
def nearest_image(dx, dy, dz, box, inv):
    """Lattice vector to take off (dx, dy, dz) for the shortest result, and its square; exact in skewed cells."""
    a = np.rint(dx * inv[0, 0] + dy * inv[1, 0] + dz * inv[2, 0])
    b = np.rint(dx * inv[0, 1] + dy * inv[1, 1] + dz * inv[2, 1])
    c = np.rint(dx * inv[0, 2] + dy * inv[1, 2] + dz * inv[2, 2])
    best, sx, sy, sz = np.inf, 0.0, 0.0, 0.0
    for i in (0, -1, 1):
        for j in (0, -1, 1):
            for k in (0, -1, 1):
                vx = (a + i) * box[0, 0] + (b + j) * box[1, 0] + (c + k) * box[2, 0]
                vy = (a + i) * box[0, 1] + (b + j) * box[1, 1] + (c + k) * box[2, 1]
                vz = (a + i) * box[0, 2] + (b + j) * box[1, 2] + (c + k) * box[2, 2]
                square = (dx - vx) ** 2 + (dy - vy) ** 2 + (dz - vz) ** 2
                if square < best:
                    best, sx, sy, sz = square, vx, vy, vz
    return best, sx, sy, sz


@numba.njit(cache=True)
def gather(coordinates, boxes, inverse, real, molecule, sizes, anchor, chained):
    """Move whole molecules next to each other (Prim's tree of their centres, or all around the anchor), in place."""
    m = len(sizes)
    for t in range(len(coordinates)):
        if not real[t]:
            continue
        centre = np.zeros((m, 3))
        for i in range(len(molecule)):
            for k in range(3):
                centre[molecule[i], k] += coordinates[t, i, k]
        for g in range(m):
            centre[g] /= sizes[g]
        shift = np.zeros((m, 3))
        placed = np.zeros(m, np.bool_)
        square = np.full(m, np.inf)
        move = np.zeros((m, 3))
        last = anchor
        for step in range(m):
            placed[last] = True
            if step == 0 or chained:
                for g in range(m):
                    if not placed[g]:
                        dx = centre[g, 0] - centre[last, 0] + shift[last, 0]
                        dy = centre[g, 1] - centre[last, 1] + shift[last, 1]
                        dz = centre[g, 2] - centre[last, 2] + shift[last, 2]
                        best, sx, sy, sz = nearest_image(dx, dy, dz, boxes[t], inverse[t])
                        if best < square[g]:
                            square[g] = best
                            move[g, 0], move[g, 1], move[g, 2] = sx, sy, sz
            following = -1
            for g in range(m):
                if not placed[g] and (following < 0 or square[g] < square[following]):
                    following = g
            if following < 0:
                break
            shift[following] = move[following]
            last = following
        for i in range(len(molecule)):
            g = molecule[i]
            if shift[g, 0] != 0 or shift[g, 1] != 0 or shift[g, 2] != 0:
                for k in range(3):
                    coordinates[t, i, k] = coordinates[t, i, k] - shift[g, k]
