"""Unpacking frames of xtc files, compiled with numba.

The layout is that of GROMACS' xdrfile (`xdr3dfcoord`; Green and van der Spoel). Coordinates are whole multiples of
1/precision nm. An atom is written as three numbers from a box around the frame, or, in a run behind such an atom, as
three small differences to the atom before it; three numbers of known ranges are packed into one.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils, types

from mdlatent.compiling import njit

intrinsic: Any = extending.intrinsic

SMALLEST = 9  # the first of RANGES that is in use
# About 2^(k/3): three numbers below RANGES[k] fit into k bits.
RANGES = np.array(
    [0] * SMALLEST
    + [8, 10, 12, 16, 20, 25, 32, 40, 50, 64, 80, 101, 128, 161, 203, 256, 322, 406, 512, 645, 812, 1024, 1290, 1625]
    + [2048, 2580, 3250, 4096, 5060, 6501, 8192, 10321, 13003, 16384, 20642, 26007, 32768, 41285, 52015, 65536, 82570]
    + [104031, 131072, 165140, 208063, 262144, 330280, 416127, 524287, 660561, 832255, 1048576, 1321122, 1664510]
    + [2097152, 2642245, 3329021, 4194304, 5284491, 6658042, 8388607, 10568983, 13316085, 16777216]
)
MOST_PACKED = 0xFFFFFF  # larger ranges are not packed
MAGIC, PLAIN_ATOMS = 1995, 9  # so few atoms are not packed
# Where in a frame they are: number of atoms, time, box; coordinates that are not packed, or of packed ones precision,
# ranges, level, length, and themselves.
N_ATOMS, TIME, BOX, PLAIN, PRECISION, LEAST, MOST, LEVEL, LENGTH, PACKED = 4, 12, 16, 56, 56, 60, 72, 84, 88, 92
MOST_BYTES = 16  # of an atom: three times 32 bits and six more
PAST_THE_END = 128  # bytes that must be there to be read behind those of a frame: a run takes no more
GROUP = 24  # bits of a digit in the division of long numbers
AT_ONCE = 56  # bits that can be taken out of eight bytes wherever they begin


@intrinsic
def _eight(typing, data, at):
    """data[at : at + 8] as one number, the first byte the highest."""

    def code(context, builder, signature, args):
        memory = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
        number = builder.load(builder.bitcast(builder.gep(memory, [args[1]]), ir.IntType(64).as_pointer()))
        number.align = 1
        return builder.bswap(number)

    return types.int64(data, types.int64), code


@intrinsic
def _float(typing, bits):
    """The float32 that has these bits."""

    def code(context, builder, signature, args):
        return builder.bitcast(builder.trunc(args[0], ir.IntType(32)), ir.FloatType())

    return types.float32(types.int64), code


@intrinsic
def _swapped(typing, number):
    """The bytes of a number in the other order."""

    def code(context, builder, signature, args):
        return builder.bswap(args[0])

    return types.int64(types.int64), code


@intrinsic
def _over(typing, number, by):
    """number // by, both positive: without Python's rules for others."""

    def code(context, builder, signature, args):
        return builder.udiv(*args)

    return types.int64(types.int64, types.int64), code


@njit
def _int(data, at):
    """The signed number in four bytes from `at` on, the first the highest."""
    return _eight(data, at) >> 32


@njit
def _bits(data, at, n):
    """n ≤ AT_ONCE bits from bit `at` on, the first the highest."""
    return (_eight(data, at >> 3) << (at & 7)) >> (64 - n) & ((1 << n) - 1)


@njit
def _number(data, at, n):
    """n ≤ AT_ONCE bits as a number whose bytes begin with the lowest; the last byte may have fewer bits."""
    window = _eight(data, at >> 3) << (at & 7)
    whole = (n - 1) & ~7
    last = window >> (64 - n) & ((1 << (n - whole)) - 1)
    return _swapped(window) & ((1 << whole) - 1) | last << whole


@njit
def _three(data, at, n, second, third):
    """Three numbers packed into n bits, of which the second and third are below these."""
    if n <= AT_ONCE:
        number = _number(data, at, n)
        rest = _over(number, third)
        number -= rest * third
    else:  # a long division in three digits
        high = _number(data, at + 2 * GROUP, n - 2 * GROUP)
        a = _over(high, third)
        middle = _number(data, at + GROUP, GROUP) + ((high - a * third) << GROUP)
        b = _over(middle, third)
        number = _number(data, at, GROUP) + ((middle - b * third) << GROUP)
        c = _over(number, third)
        number -= c * third
        rest = (((a << GROUP) + b) << GROUP) + c
    first = _over(rest, second)
    return first, rest - first * second, number


@njit
def _length(number):
    """Bits that a number takes."""
    n = 0
    while number:
        n, number = n + 1, number >> 1
    return n


@njit
def _length_of_product(a, b, c):
    """Bits that a b c takes, which may be more than 64."""
    low = (a * b & (1 << GROUP) - 1) * c
    high = (a * b >> GROUP) * c + (low >> GROUP)
    return _length(high) + GROUP if high else _length(low)


@njit
def _unpack(data, begin, needed, out):
    """Coordinates of the atoms of the frame at `begin`, at least of the first `needed`, into `out` (atoms, 3) int32.

    They are in units of the precision. Returns whether the bytes make sense.
    """
    least_a, least_b, least_c = _int(data, begin + LEAST), _int(data, begin + LEAST + 4), _int(data, begin + LEAST + 8)
    a = _int(data, begin + MOST) - least_a + 1
    b = _int(data, begin + MOST + 4) - least_b + 1
    c = _int(data, begin + MOST + 8) - least_c + 1
    if min(a, b, c) < 1:
        return False
    packed = max(a, b, c) <= MOST_PACKED
    n_a, n_b, n_c, n_packed = _length(a), _length(b), _length(c), _length_of_product(a, b, c)
    level, at = _int(data, begin + LEVEL), 8 * (begin + PACKED)
    end = at + 8 * _int(data, begin + LENGTH)
    atom, run = 0, 0
    while atom < needed:
        if not SMALLEST <= level < len(RANGES) or at >= end:
            return False
        if packed:
            x, y, z = _three(data, at, n_packed, b, c)
            at += n_packed
        else:
            x, y, z = _bits(data, at, n_a), _bits(data, at + n_a, n_b), _bits(data, at + n_a + n_b, n_c)
            at += n_a + n_b + n_c
        x, y, z = x + least_a, y + least_b, z + least_c
        change = 0
        if _bits(data, at, 1):  # another length of the run, which else stays the same
            code = _bits(data, at + 1, 5)
            change = code % 3 - 1
            run = code // 3
            at += 5
        at += 1
        if atom + run >= len(out):
            return False
        # The first two of a run change places, which makes differences in water smaller.
        place = atom + 1 if run else atom
        out[place, 0], out[place, 1], out[place, 2] = x, y, z
        size = RANGES[level]
        half = size >> 1
        for k in range(run):
            dx, dy, dz = _three(data, at, level, size, size)
            at += level
            x, y, z = x + dx - half, y + dy - half, z + dz - half
            place = atom + k + 1 if k else atom
            out[place, 0], out[place, 1], out[place, 2] = x, y, z
        atom += run + 1
        level += change
    return at <= end


@njit
def _coordinates(data, begin, atoms, needed, whole, out):
    """Those of `atoms` of the frame at `begin` into `out` (atoms, 3), in nm; `whole` is room for `_unpack`."""
    if len(whole) <= PLAIN_ATOMS:
        for k in range(len(atoms)):
            for axis in range(3):
                out[k, axis] = _float(_int(data, begin + PLAIN + 12 * atoms[k] + 4 * axis))
        return True
    unit = np.float32(1.0 / np.float64(_float(_int(data, begin + PRECISION))))
    sound = _unpack(data, begin, needed, whole)
    for k in range(len(atoms)):
        for axis in range(3):
            out[k, axis] = np.float32(whole[atoms[k], axis]) * unit
    return sound


@njit(cache=True)
def frames(data, begin, end, number, stride, atoms, whole, xyz, times, boxes):
    """Unpack frames that data[begin:end] holds, the first of them frame `number` of the file, of every `stride` one.

    data (bytes,) uint8 has PAST_THE_END bytes more than `end`; whole (all atoms, 3) int32 is room. Up to len(xyz)
    frames go to xyz (k, atoms, 3) float32 nm, times (k,) float32 ps and boxes (k, 3, 3) float32 nm.
    Returns where the next frame begins (beyond `end` if frames before it are not wanted), its number, how many were
    unpacked, and whether it may be one: False where the file is damaged.
    """
    n, k, needed = len(whole), 0, atoms.max() + 1
    head = PACKED if n > PLAIN_ATOMS else PLAIN
    while k < len(xyz) and begin + head <= end:
        if _int(data, begin) != MAGIC or _int(data, begin + N_ATOMS) != n:
            return begin, number, k, False
        length = head + 12 * n
        if n > PLAIN_ATOMS:
            packed = _int(data, begin + LENGTH)
            if not 0 < packed <= MOST_BYTES * n:
                return begin, number, k, False
            length = head + (packed + 3 & ~3)
        if number % stride == 0:
            if begin + length > end:
                break
            times[k] = _float(_int(data, begin + TIME))
            for i in range(3):
                for j in range(3):
                    boxes[k, i, j] = _float(_int(data, begin + BOX + 12 * i + 4 * j))
            if not _coordinates(data, begin, atoms, needed, whole, xyz[k]):
                return begin, number, k, False
            k += 1
        begin += length
        number += 1
    return begin, number, k, True
