"""Distance kernels compiled with numba; import this module only where they run (numba takes 0.3 s to import).

Whole rows are computed, although the matrix is symmetric: mirroring one half costs eight times as much as computing it
again, for the writes of a column are scattered. Differences are taken directly; the Gram form |x|² + |y|² − 2xy is
slower and loses 4e-3 nm at 50 nm from the origin. (x−y)² = (y−x)² exactly, so the matrices are symmetric to the bit.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numba
import numpy as np

from mdlatent import streaming
from mdlatent.streaming import LANES


def _cache_folder() -> None:
    """Give numba a folder for compiled code if neither the package's nor the user's can be written."""
    config: Any = numba.config
    if config.CACHE_DIR:
        return
    for folder in (Path(__file__).parent, Path.home()):
        if os.access(folder, os.W_OK):
            return
    config.CACHE_DIR = str(Path(tempfile.gettempdir()) / f"mdlatent-numba-{os.getuid()}")


_cache_folder()


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
def _columns(frame, x, y, z):
    """Copy (n, 3) into three columns, which vectorises better."""
    for i in range(len(frame)):
        x[i], y[i], z[i] = frame[i, 0], frame[i, 1], frame[i, 2]


@numba.njit(cache=True)
def _begin_again(n, x, y, z):
    """The first atoms once more after the last, for the lines that begin a row."""
    for k in range(LANES):
        x[n + k], y[n + k], z[n + k] = x[k], y[k], z[k]


@numba.njit(cache=True)
def _row(xi, yi, zi, x, y, z, row):
    """Distances from one atom to others."""
    for k in range(len(row)):
        dx, dy, dz = x[k] - xi, y[k] - yi, z[k] - zi
        row[k] = np.sqrt(dx * dx + dy * dy + dz * dz)


@numba.njit(cache=True, fastmath={"contract"})
def _row_inside(xi, yi, zi, x, y, z, row, a, b, c):
    """The same to the nearest images in a rectangular box a × b × c, for differences up to the box."""
    for k in range(len(row)):
        dx, dy, dz = abs(x[k] - xi), abs(y[k] - yi), abs(z[k] - zi)
        ex, ey, ez = a - dx, b - dy, c - dz
        dx = ex if ex < dx else dx
        dy = ey if ey < dy else dy
        dz = ez if ez < dz else dz
        row[k] = np.sqrt(dx * dx + dy * dy + dz * dz)


@numba.njit(cache=True, fastmath={"contract"})
def _row_rectangular(xi, yi, zi, x, y, z, row, a, b, c, u, v, w):
    """The same however far atoms are apart; u, v, w are the inverses of a, b, c."""
    for k in range(len(row)):
        dx, dy, dz = x[k] - xi, y[k] - yi, z[k] - zi
        dx -= a * np.rint(dx * u)
        dy -= b * np.rint(dy * v)
        dz -= c * np.rint(dz * w)
        row[k] = np.sqrt(dx * dx + dy * dy + dz * dz)


@numba.njit(cache=True, fastmath={"contract"})
def _row_triclinic(xi, yi, zi, x, y, z, row, box, inv, shifts, dx, dy, dz, gain):
    """The same in any box with a reduced basis: a first guess p by rounding, then its neighbours p ± s, for `shifts` s.

    |p ± s|² = |p|² + |s|² ± 2 p·s, so what is gained is the least of 0 and |s|² − 2 |p·s|. No digits are lost in the
    sum: after rounding, p is nowhere near a lattice vector other than 0, so that the nearest image is never much
    shorter.
    """
    a0, a1, a2 = np.float32(box[0, 0]), np.float32(box[0, 1]), np.float32(box[0, 2])
    b0, b1, b2 = np.float32(box[1, 0]), np.float32(box[1, 1]), np.float32(box[1, 2])
    c0, c1, c2 = np.float32(box[2, 0]), np.float32(box[2, 1]), np.float32(box[2, 2])
    u0, u1, u2 = np.float32(inv[0, 0]), np.float32(inv[1, 0]), np.float32(inv[2, 0])
    v0, v1, v2 = np.float32(inv[0, 1]), np.float32(inv[1, 1]), np.float32(inv[2, 1])
    w0, w1, w2 = np.float32(inv[0, 2]), np.float32(inv[1, 2]), np.float32(inv[2, 2])
    for k in range(len(row)):
        px, py, pz = x[k] - xi, y[k] - yi, z[k] - zi
        a = np.rint(px * u0 + py * u1 + pz * u2)
        b = np.rint(px * v0 + py * v1 + pz * v2)
        c = np.rint(px * w0 + py * w1 + pz * w2)
        px -= a * a0 + b * b0 + c * c0
        py -= a * a1 + b * b1 + c * c1
        pz -= a * a2 + b * b2 + c * c2
        dx[k], dy[k], dz[k] = px, py, pz
        gain[k] = np.float32(0)
    for s in range(len(shifts)):
        sx, sy, sz = shifts[s, 0], shifts[s, 1], shifts[s, 2]
        square = sx * sx + sy * sy + sz * sz
        tx, ty, tz = sx + sx, sy + sy, sz + sz
        for k in range(len(row)):
            other = square - abs(dx[k] * tx + dy[k] * ty + dz[k] * tz)
            gain[k] = other if other < gain[k] else gain[k]
    for k in range(len(row)):
        row[k] = np.sqrt(dx[k] * dx[k] + dy[k] * dy[k] + dz[k] * dz[k] + gain[k])


@numba.njit(cache=True)
def full(coordinates, out):
    """Distances (frames, n, n) of coordinates (frames, n, 3), float32, into `out`."""
    frames, n, _ = coordinates.shape
    x, y, z = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for t in range(frames):
        _columns(coordinates[t], x, y, z)
        for i in range(n):
            _row(x[i], y[i], z[i], x, y, z, out[t, i])


@numba.njit(cache=True)
def full_streamed(coordinates, x, y, z, lead, out):
    """`full` past the caches: `out` is flat, with `lead` values to its first line; x, y, z are `streaming.room`."""
    frames, n, _ = coordinates.shape
    for t in range(frames):
        _columns(coordinates[t], x, y, z)
        _begin_again(n, x, y, z)
        start = t * n * n
        k, i = (lead - start) % LANES, 0
        _row(x[0], y[0], z[0], x[:k], y[:k], z[:k], out[start : start + k])
        while True:
            while k + LANES <= n:
                streaming.line(x, y, z, out, k, i, i, LANES, start + i * n + k)
                k += LANES
            if i + 1 == n:
                break
            streaming.line(x, y, z, out, k, i, i + 1, n - k, start + i * n + k)
            k, i = k + LANES - n, i + 1
        _row(x[i], y[i], z[i], x[k:n], y[k:n], z[k:n], out[start + i * n + k : start + n * n])
    streaming.fence()


@numba.njit(cache=True)
def packed(coordinates, out):
    """Distances (frames, n (n − 1) / 2) of the pairs i < j, row by row, into `out`."""
    frames, n, _ = coordinates.shape
    x, y, z = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for t in range(frames):
        _columns(coordinates[t], x, y, z)
        first = 0
        for i in range(n - 1):
            j = i + 1
            _row(x[i], y[i], z[i], x[j:], y[j:], z[j:], out[t, first : first + n - j])
            first += n - 1 - i


@numba.njit(cache=True)
def _frame_inside(x, y, z, whole, out, a, b, c):
    """All rows of a frame by `_row_inside`, into `out`, one row after the other; so the others below.

    Each kind of row has a loop of its own: a choice inside the loop costs half the speed.
    """
    start, n = 0, len(x)
    for i in range(n):
        j = 0 if whole else i + 1
        _row_inside(x[i], y[i], z[i], x[j:], y[j:], z[j:], out[start : start + n - j], a, b, c)
        start += n - j


@numba.njit(cache=True)
def _frame_inside_streamed(x, y, z, n, lead, start, out, a, b, c):
    """One frame as in `full_streamed`, into out[start:]."""
    k, i = (lead - start) % LANES, 0
    _row_inside(x[0], y[0], z[0], x[:k], y[:k], z[:k], out[start : start + k], a, b, c)
    while True:
        while k + LANES <= n:
            streaming.line_inside(x, y, z, out, k, i, i, LANES, start + i * n + k, a, b, c)
            k += LANES
        if i + 1 == n:
            break
        streaming.line_inside(x, y, z, out, k, i, i + 1, n - k, start + i * n + k, a, b, c)
        k, i = k + LANES - n, i + 1
    _row_inside(x[i], y[i], z[i], x[k:n], y[k:n], z[k:n], out[start + i * n + k : start + n * n], a, b, c)


@numba.njit(cache=True)
def _frame_rectangular(x, y, z, whole, out, a, b, c, u, v, w):
    start, n = 0, len(x)
    for i in range(n):
        j = 0 if whole else i + 1
        _row_rectangular(x[i], y[i], z[i], x[j:], y[j:], z[j:], out[start : start + n - j], a, b, c, u, v, w)
        start += n - j


@numba.njit(cache=True)
def _frame_triclinic(x, y, z, whole, out, box, inv, shifts, dx, dy, dz, gain):
    start, n = 0, len(x)
    for i in range(n):
        j = 0 if whole else i + 1
        row = out[start : start + n - j]
        _row_triclinic(x[i], y[i], z[i], x[j:], y[j:], z[j:], row, box, inv, shifts, dx, dy, dz, gain)
        start += n - j


@numba.njit(cache=True)
def periodic(coordinates, boxes, inverse, rectangular, room, lead, whole, out):
    """Distances to the nearest images: rows of the full matrix if `whole`, else of the packed half, into `out`.

    `out` is (frames, n²) or (frames, n (n − 1) / 2); boxes (frames, 3, 3) float64 with a reduced basis; `room`
    is three times `streaming.room`. A `lead` of at least 0 is that of `full_streamed`; then whole rows go past the
    caches.
    """
    frames, n, _ = coordinates.shape
    x, y, z = room[0][:n], room[1][:n], room[2][:n]
    flat = out.reshape(-1)
    dx, dy, dz = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    gain, neighbours = np.empty(n, np.float32), np.empty((13, 3), np.float32)
    for t in range(frames):
        _columns(coordinates[t], x, y, z)
        if not rectangular[t]:
            shifts = neighbours[: _neighbours(boxes[t], neighbours)]
            _frame_triclinic(x, y, z, whole, out[t], boxes[t], inverse[t], shifts, dx, dy, dz, gain)
            continue
        a, b, c = np.float32(boxes[t, 0, 0]), np.float32(boxes[t, 1, 1]), np.float32(boxes[t, 2, 2])
        if _spread(x) <= a and _spread(y) <= b and _spread(z) <= c:
            if whole and lead >= 0:
                _begin_again(n, room[0], room[1], room[2])
                _frame_inside_streamed(room[0], room[1], room[2], n, lead, t * n * n, flat, a, b, c)
            else:
                _frame_inside(x, y, z, whole, out[t], a, b, c)
        else:
            u, v, w = np.float32(inverse[t, 0, 0]), np.float32(inverse[t, 1, 1]), np.float32(inverse[t, 2, 2])
            _frame_rectangular(x, y, z, whole, out[t], a, b, c, u, v, w)
    streaming.fence()


@numba.njit(cache=True)
def _spread(x):
    """Largest less smallest value; NaN counts for nothing."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for k in range(len(x)):
        low = x[k] if x[k] < low else low
        high = x[k] if x[k] > high else high
    return high - low


@numba.njit(cache=True)
def _neighbours(box, shifts):
    """Lattice vectors s around the origin, of each pair ± one, into `shifts` (13, 3); returns how many.

    Left out are those that no point p of the cell around the origin is nearer to than to the origin: where
    2 |p·s| ≤ Σ |box_k·s| ≤ |s|² for all p.
    """
    n = 0
    for i in range(-1, 2):
        for j in range(-1, 2):
            for k in range(-1, 2):
                if 9 * i + 3 * j + k > 0:
                    s = i * box[0] + j * box[1] + k * box[2]
                    reach = 0.0
                    for d in range(3):
                        reach += abs(box[d, 0] * s[0] + box[d, 1] * s[1] + box[d, 2] * s[2])
                    if reach > (s[0] ** 2 + s[1] ** 2 + s[2] ** 2) * (1 + 1e-6):
                        for d in range(3):
                            shifts[n, d] = s[d]
                        n += 1
    return n


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
