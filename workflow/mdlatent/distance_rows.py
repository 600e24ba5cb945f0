"""Rows of distance matrices, compiled with numba: from one atom to others, float32 nm, with and without a box."""

import numpy as np

from mdlatent.compiling import njit
from mdlatent.streaming import LANES


@njit(cache=True)
def columns(frame, x, y, z):
    """Copy (n, 3) into three columns, which vectorises better."""
    for i in range(len(frame)):
        x[i], y[i], z[i] = frame[i, 0], frame[i, 1], frame[i, 2]


@njit(cache=True)
def begin_again(n, x, y, z):
    """The first atoms once more after the last, for the lines that begin a row."""
    for k in range(LANES):
        x[n + k], y[n + k], z[n + k] = x[k], y[k], z[k]


@njit(cache=True)
def row(xi, yi, zi, x, y, z, out):
    """Distances from one atom to others."""
    for k in range(len(out)):
        dx, dy, dz = x[k] - xi, y[k] - yi, z[k] - zi
        out[k] = np.sqrt(dx * dx + dy * dy + dz * dz)


@njit(cache=True, fastmath={"contract"})
def row_inside(xi, yi, zi, x, y, z, out, a, b, c):
    """The same to the nearest images in a rectangular box a × b × c, for differences up to the box."""
    for k in range(len(out)):
        dx, dy, dz = abs(x[k] - xi), abs(y[k] - yi), abs(z[k] - zi)
        ex, ey, ez = a - dx, b - dy, c - dz
        dx = ex if ex < dx else dx
        dy = ey if ey < dy else dy
        dz = ez if ez < dz else dz
        out[k] = np.sqrt(dx * dx + dy * dy + dz * dz)


@njit(cache=True, fastmath={"contract"})
def row_rectangular(xi, yi, zi, x, y, z, out, a, b, c, u, v, w):
    """The same however far atoms are apart; u, v, w are the inverses of a, b, c."""
    for k in range(len(out)):
        dx, dy, dz = x[k] - xi, y[k] - yi, z[k] - zi
        dx -= a * np.rint(dx * u)
        dy -= b * np.rint(dy * v)
        dz -= c * np.rint(dz * w)
        out[k] = np.sqrt(dx * dx + dy * dy + dz * dz)


@njit(cache=True, fastmath={"contract"})
def row_triclinic(xi, yi, zi, x, y, z, out, box, inv, shifts, dx, dy, dz, gain):
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
    for k in range(len(out)):
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
        for k in range(len(out)):
            other = square - abs(dx[k] * tx + dy[k] * ty + dz[k] * tz)
            gain[k] = other if other < gain[k] else gain[k]
    for k in range(len(out)):
        out[k] = np.sqrt(dx[k] * dx[k] + dy[k] * dy[k] + dz[k] * dz[k] + gain[k])
