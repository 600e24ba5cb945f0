"""Distance matrices of whole frames, line after line past the caches, compiled with numba.

`edges` are those of a rectangular box, (a, b, c) in nm, for distances to the nearest images (of atoms no further apart
than the box in each direction), or (). Both give the arithmetic of the rows of `distance_rows`, to the bit.
"""

from typing import Any

import numpy as np
from numba import extending

from mdlatent import distance_rows, streamed_blocks, streaming
from mdlatent.compiling import njit
from mdlatent.streaming import LANES

overload: Any = extending.overload


@njit(cache=True)
def frame(x, y, z, n, lead, start, out, edges):
    """Distances (n, n) into out[start:]; x, y, z are `streaming.room`, `lead` is to the first line of `out`."""
    if n % LANES == 0:
        _of_blocks(x, y, z, n, lead, start, out, edges)
    elif n % LANES == LANES // 2 and lead % 2 == 0 and n >= lead + LANES:
        _of_halves(x, y, z, n, lead, start, out, edges)
    else:
        _of_rows(x, y, z, n, lead, start, out, edges)


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
    fresh, kept, image = streamed_blocks.scratch(), streamed_blocks.scratch(), -1
    for first in range(lead, end, LANES):
        for k in range(first, end, LANES):  # one on the diagonal, which has no image, is the last of all
            at = start + first * n + k
            if image < 0:
                streamed_blocks.block(x, y, z, out, k, first, at, 0, image, n, fresh, kept, x, edges)
            else:
                streamed_blocks.block_and_image(x, y, z, out, k, first, at, 0, image, n, fresh, kept, x, edges)
            fresh, kept, image = kept, fresh, -1 if k == first else start + k * n + first
        _seams(x, y, z, n, end, first, first + LANES, 1, start, out, edges)
    if end < n:
        _seams(x, y, z, n, end, 0, lead, 1, start, out, edges)
        _seams(x, y, z, n, end, end, n, 1, start, out, edges)
        for k in range(lead, end, LANES):  # of the last atoms and the first
            streamed_blocks.block(x, y, z, out, k, end, start + end * n + k, 0, -1, n, fresh, kept, x, edges)
    _part(x, y, z, n - 1, end, n, out, start, edges)


@njit(cache=True)
def _of_halves(x, y, z, n, lead, start, out, edges):
    """The same for n an odd multiple of LANES / 2 and an even `lead`: lines of the rows of even atoms begin at columns
    lead, lead + LANES, …, those of odd atoms half a line later."""
    half = LANES // 2
    end = lead + (n - lead) // LANES * LANES  # blocks are of atoms lead … end
    waiting = np.empty(n * half // 2 + LANES, np.float32)
    waiting[:] = 0
    fresh, kept, other, image = streamed_blocks.scratch(), streamed_blocks.scratch(), -1, -1
    for first in range(lead, end, LANES):
        for k in range(first, end, LANES):
            at = start + first * n + k
            if other == first:  # of the same rows, and further to the left
                streamed_blocks.halves_image(x, y, z, out, k, first, at, other, image, n, fresh, kept, waiting, edges)
                image = -1
            if image < 0:
                streamed_blocks.halves_block(x, y, z, out, k, first, at, other, image, n, fresh, kept, waiting, edges)
            else:
                streamed_blocks.halves_block_and_image(
                    x, y, z, out, k, first, at, other, image, n, fresh, kept, waiting, edges
                )
            fresh, kept, other, image = kept, fresh, k, start + k * n + first
            if k == first:
                other, image = -1, -1
    # Lines that are not all in blocks: of rows of even atoms those across their end; …
    _seams(x, y, z, n, end, lead, end, 2, start, out, edges)
    # … of odd ones the first, if it is all in the row (else it was among the others), and the last or the two last.
    odd = lead + 1
    if lead >= half:
        _lines(x, y, z, n, lead - half, 1, odd, 2, start, out, edges)
    left = n - (end - half)
    if left >= LANES:
        _lines(x, y, z, n, end - half, 1, odd, 2, start, out, edges)
    _seams(x, y, z, n, n - left % LANES, odd, end, 2, start, out, edges)
    for i in range(lead):
        _whole(x, y, z, i, n, lead, start, out, edges)
    for i in range(end, n):
        _whole(x, y, z, i, n, lead, start, out, edges)
    _part(x, y, z, 0, 0, lead, out, start, edges)
    last = (lead + half) % LANES
    _part(x, y, z, n - 1, n - (n - last) % LANES, n, out, start, edges)


@njit(cache=True)
def _whole(x, y, z, i, n, lead, start, out, edges):
    """All lines that begin in row i."""
    k = (lead - start - i * n) % LANES
    _lines(x, y, z, n, k, (n - k) // LANES, i, n, start, out, edges)
    _seams(x, y, z, n, n - (n - k) % LANES, i, i + 1, 1, start, out, edges)


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
