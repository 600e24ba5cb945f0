"""Distance kernels compiled with numba; import this module only where they run (numba takes 0.3 s to import).

Whole rows are computed, although the matrix is symmetric: mirroring one half costs eight times as much as computing it
again, for the writes of a column are scattered; only blocks that go past the caches are mirrored
(streamed_frames.py). Differences are taken directly; the Gram form |x|² + |y|² − 2xy is slower and loses 4e-3 nm at 50
nm from the origin. (x−y)² = (y−x)² exactly, so the matrices are symmetric to the bit.
"""

import numpy as np

from mdlatent import distance_rows as rows
from mdlatent import streamed_frames as streamed
from mdlatent import streaming
from mdlatent.compiling import njit


@njit(cache=True)
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


@njit(cache=True)
def unstreamed(coordinates, x, y, z, whole, out):
    """Distances of coordinates (frames, n, 3), float32, into `out`, (frames, n²) if `whole`, else of the pairs i < j,
    row by row, (frames, n (n − 1) / 2); x, y, z are `streaming.room`."""
    frames, n, _ = coordinates.shape
    flat = out.reshape(-1)
    for t in range(frames):
        rows.columns(coordinates[t], x, y, z)
        if t == 0:
            rows.begin_again(n, x, y, z)  # anything that is quick to compute with will do
        streamed.frame_over(x, y, z, n, whole, t * out.shape[1], flat, ())


@njit(cache=True)
def full_streamed(coordinates, x, y, z, lead, out):
    """Whole rows past the caches: `out` is flat, with `lead` values to its first line; x, y, z are `streaming.room`."""
    frames, n, _ = coordinates.shape
    for t in range(frames):
        rows.columns(coordinates[t], x, y, z)
        rows.begin_again(n, x, y, z)
        streamed.frame(x, y, z, n, lead, t * n * n, out, ())
    streaming.fence()


@njit(cache=True)
def _frame_rectangular(x, y, z, whole, out, a, b, c, u, v, w):
    """All rows of a frame by `row_rectangular`, into `out`, one row after the other; so the one below.

    Each kind of row has a loop of its own: a choice inside the loop costs half the speed.
    """
    start, n = 0, len(x)
    for i in range(n):
        j = 0 if whole else i + 1
        rows.row_rectangular(x[i], y[i], z[i], x[j:], y[j:], z[j:], out[start : start + n - j], a, b, c, u, v, w)
        start += n - j


@njit(cache=True)
def _frame_triclinic(x, y, z, whole, out, box, inv, shifts, dx, dy, dz, gain):
    start, n = 0, len(x)
    for i in range(n):
        j = 0 if whole else i + 1
        row = out[start : start + n - j]
        rows.row_triclinic(x[i], y[i], z[i], x[j:], y[j:], z[j:], row, box, inv, shifts, dx, dy, dz, gain)
        start += n - j


@njit(cache=True)
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
        rows.columns(coordinates[t], x, y, z)
        if not rectangular[t]:
            shifts = neighbours[: _neighbours(boxes[t], neighbours)]
            _frame_triclinic(x, y, z, whole, out[t], boxes[t], inverse[t], shifts, dx, dy, dz, gain)
            continue
        a, b, c = np.float32(boxes[t, 0, 0]), np.float32(boxes[t, 1, 1]), np.float32(boxes[t, 2, 2])
        if _spread(x) <= a and _spread(y) <= b and _spread(z) <= c:
            rows.begin_again(n, room[0], room[1], room[2])
            if whole and lead >= 0:
                streamed.frame(room[0], room[1], room[2], n, lead, t * n * n, flat, (a, b, c))
            else:
                streamed.frame_over(room[0], room[1], room[2], n, whole, t * out.shape[1], flat, (a, b, c))
        else:
            u, v, w = np.float32(inverse[t, 0, 0]), np.float32(inverse[t, 1, 1]), np.float32(inverse[t, 2, 2])
            _frame_rectangular(x, y, z, whole, out[t], a, b, c, u, v, w)
    streaming.fence()


@njit(cache=True)
def _spread(x):
    """Largest less smallest value; NaN counts for nothing."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for k in range(len(x)):
        low = x[k] if x[k] < low else low
        high = x[k] if x[k] > high else high
    return high - low


@njit(cache=True)
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


@njit(cache=True)
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


@njit(cache=True)
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
