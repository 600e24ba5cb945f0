"""How far the pair distances of two structures differ, compiled: nothing of n × n numbers is ever in memory."""

import numpy as np

from mdlatent.compiling import njit


def rms_nm(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Root of the mean over the pairs of (d_ij − d'_ij)² between frames, (k, n, 3) nm each: (k,) float32 nm."""
    n = one.shape[1]
    sums = np.empty(len(one))
    _sums(np.ascontiguousarray(one, np.float32), np.ascontiguousarray(two, np.float32), sums)
    return np.sqrt(sums / (n * (n - 1) / 2)).astype(np.float32)


@njit(cache=True, fastmath={"contract", "reassoc", "nsz"})
def _row_sum(x, y, z, u, v, w):
    """Sum over the pairs of the first atom with all later ones; short enough for single precision."""
    total = np.float32(0)
    x0, y0, z0, u0, v0, w0 = x[0], y[0], z[0], u[0], v[0], w[0]
    for k in range(len(x)):
        dx, dy, dz, du, dv, dw = x[k] - x0, y[k] - y0, z[k] - z0, u[k] - u0, v[k] - v0, w[k] - w0
        error = np.sqrt(dx * dx + dy * dy + dz * dz) - np.sqrt(du * du + dv * dv + dw * dw)
        total += error * error
    return total


@njit(cache=True)
def _sums(one, two, out):
    n = one.shape[1]
    x, y, z = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    u, v, w = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for t in range(len(one)):
        for i in range(n):
            x[i], y[i], z[i] = one[t, i, 0], one[t, i, 1], one[t, i, 2]
            u[i], v[i], w[i] = two[t, i, 0], two[t, i, 1], two[t, i, 2]
        total = 0.0
        for i in range(n):
            total += _row_sum(x[i:], y[i:], z[i:], u[i:], v[i:], w[i:])
        out[t] = total
