"""Distance matrices of whole frames, line after line past the caches or, if they are small, into them; by numba.

`edges` are those of a rectangular box, (a, b, c) in nm, for distances to the nearest images (of atoms no further apart
than the box in each direction), or (). Both give the arithmetic of the rows of `distance_rows`, to the bit.
"""

from typing import Any

from numba import extending

from mdlatent import distance_rows, streaming
from mdlatent.compiling import njit
from mdlatent.streaming import LANES

overload: Any = extending.overload


@njit(cache=True)
def frame(x, y, z, n, lead, start, out, edges):
    """Distances (n, n) into out[start:]; x, y, z are `streaming.room`, `lead` is to the first line of `out`."""
    if n % LANES == 0:
        _of_blocks(x, y, z, n, lead, start, out, edges)
    else:
        _of_rows(x, y, z, n, lead, start, out, edges)


@njit(cache=True)
def frame_over(x, y, z, n, whole, start, out, edges):
    """Distances into out[start:] by ordinary stores: whole rows, or of the pairs i < j. x, y, z are `streaming.room`.

    Rows are written in vectors of LANES, over the beginning of the next row, which comes after: what is left of a row
    after its last whole vector costs more than the vectors where rows are short.
    """
    for i in range(n):
        j = 0 if whole else i + 1
        lines = (n - j + LANES - 1) // LANES
        if start + lines * LANES <= len(out):
            streaming.row_over(x, y, z, out, j, lines, i, start, edges)
        else:
            _row(x[i], y[i], z[i], x[j:n], y[j:n], z[j:n], out[start : start + n - j], edges)
        start += n - j


@njit(cache=True)
def _of_rows(x, y, z, n, lead, start, out, edges):
    """Rows that begin lines of the cache at the same columns are made side by side, for what they share is then loaded
    once. What is left of each row is in one line with the beginning of the next."""
    apart = 1  # such rows
    while apart * n % LANES:
        apart *= 2
    for first in range(apart):
        k = (lead - start - first * n) % LANES
        _lines(x, y, z, n, k, (n - k) // LANES, first, apart, start, out, edges)
        _seams(x, y, z, n, n - (n - k) % LANES, first, n, apart, start, out, edges)
    end = (lead - start) % LANES
    _part(x, y, z, 0, 0, end, out, start, edges)
    end = n - (n - (lead - start - (n - 1) * n)) % LANES
    _part(x, y, z, n - 1, end, n, out, start, edges)


@njit(cache=True)
def _lines(x, y, z, n, k, lines, first, apart, start, out, edges):
    """So many lines from column k on of rows first, first + apart, …, some side by side: they share loads."""
    i = first
    while i + (streaming.MANY - 1) * apart < n:
        streaming.rows(x, y, z, out, k, lines, i, apart, start + i * n + k, n, edges)
        i += streaming.MANY * apart
    while i < n:
        streaming.row(x, y, z, out, k, lines, i, apart, start + i * n + k, n, edges)
        i += apart


@njit(cache=True)
def _seams(x, y, z, n, end, first, stop, apart, start, out, edges):
    """Lines from column `end` on of rows first, first + apart, … < stop, with the beginnings of the rows after them.

    The last row has none after it.
    """
    count = (min(stop, n - 1) - first + apart - 1) // apart
    if end < n:
        streaming.seams(x, y, z, out, end, n - end, first, apart, count, start + first * n + end, n, edges)


@njit(cache=True)
def _of_blocks(x, y, z, n, lead, start, out, edges):
    """For n a multiple of LANES, where the lines of every row begin at columns lead, lead + LANES, …: blocks of LANES
    atoms by as many others are computed once and written twice, which saves half of the square roots."""
    _part(x, y, z, 0, 0, lead, out, start, edges)
    end = n - (LANES - lead if lead else 0)  # of the last line that is all in one row
    fresh, kept, image = streaming.scratch(), streaming.scratch(), -1
    for first in range(lead, end, LANES):
        for k in range(first, end, LANES):  # one on the diagonal, which has no image, is the last of all
            at = start + first * n + k
            if image < 0:
                streaming.block(x, y, z, out, k, first, at, image, n, fresh, kept, edges)
            else:
                streaming.block_and_image(x, y, z, out, k, first, at, image, n, fresh, kept, edges)
            fresh, kept, image = kept, fresh, -1 if k == first else start + k * n + first
        _seams(x, y, z, n, end, first, first + LANES, 1, start, out, edges)
    if end < n:
        _seams(x, y, z, n, end, 0, lead, 1, start, out, edges)
        _seams(x, y, z, n, end, end, n, 1, start, out, edges)
        for k in range(lead, end, LANES):  # of the last atoms and the first
            streaming.block(x, y, z, out, k, end, start + end * n + k, -1, n, fresh, kept, edges)
    _part(x, y, z, n - 1, end, n, out, start, edges)


@njit(cache=True)
def _part(x, y, z, i, first, end, out, start, edges):
    """Columns first … end of row i, which are less than a line."""
    at = start + i * (len(x) - LANES)
    _row(x[i], y[i], z[i], x[first:end], y[first:end], z[first:end], out[at + first : at + end], edges)


def _row(xi, yi, zi, x, y, z, row, edges):
    """`distance_rows.row` or `row_inside`."""


@overload(_row)
def _row_of(xi, yi, zi, x, y, z, row, edges):
    if len(edges) == 0:
        return lambda xi, yi, zi, x, y, z, row, edges: distance_rows.row(xi, yi, zi, x, y, z, row)
    return lambda xi, yi, zi, x, y, z, row, edges: distance_rows.row_inside(xi, yi, zi, x, y, z, row, *edges)
