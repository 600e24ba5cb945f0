"""Distance matrices written past the caches, for results that no cache can hold; compiled with numba.

An ordinary store first reads the line of memory that it is going to overwrite; a non-temporal one does not, and takes
nothing else out of the caches. LLVM's vectoriser makes none, so sixteen distances at a time are spelled out here: each
line of the result, which may end one row and begin the next, is one vector. The arithmetic is that of `distance_rows`,
to the bit.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils, types

from mdlatent import lanes
from mdlatent.lanes import INDEX, LANES, Lanes  # LANES float32 are a line of the cache

intrinsic: Any = extending.intrinsic  # its types do not say that the first argument is numba's own


def to_line(values: np.ndarray) -> int:
    """How many float32 from the first of contiguous `values` to the next line of the cache."""
    return -values.ctypes.data % (4 * LANES) // 4


def room(n: int, lead: int) -> np.ndarray:
    """Uninitialised (n + LANES,) float32, of which number `lead` begins a line: loads across lines take twice as long.

    For n a multiple of LANES and a result with this `lead` to its first line, no load is across lines.
    """
    memory = np.empty(n + 3 * LANES, np.float32)
    first = (to_line(memory) - lead) % LANES
    return memory[first : first + n + LANES]


def _pointer(context, builder, signature, args, array, index):
    """Pointer to the vector that begins at args[array][index]."""
    data = cgutils.create_struct_proxy(signature.args[array])(context, builder, args[array]).data
    return lanes.pointer(builder, data, index)


def _columns(context, builder, signature, args, index):
    """Vectors of x, y and z that begin at `index`."""
    data = [cgutils.create_struct_proxy(signature.args[axis])(context, builder, args[axis]).data for axis in range(3)]
    return [lanes.load(builder, one, index).value for one in data]


def _atom(context, builder, signature, args, at):
    """x, y and z of one atom, each as a vector of one value."""
    data = [cgutils.create_struct_proxy(signature.args[axis])(context, builder, args[axis]).data for axis in range(3)]
    return [lanes.broadcast(builder, builder.load(builder.gep(one, [at]))).value for one in data]


def _distances(builder, others, atoms, edges, root=Lanes.sqrt):
    """A vector of distances; with `edges` those to the nearest images, and sums as `distance_rows` makes them there."""
    flags, total = ("contract",) if edges else (), None
    for axis in range(3):
        apart = builder.fsub(others[axis], atoms[axis])
        if edges:
            apart = Lanes(builder, apart).call("fabs").value
            image = builder.fsub(lanes.broadcast(builder, edges[axis]).value, apart)
            apart = builder.select(builder.fcmp_ordered("<", image, apart), image, apart)
        square = builder.fmul(apart, apart, flags=flags)
        total = square if total is None else builder.fadd(total, square, flags=flags)
    return root(Lanes(builder, total)).value


def _transposed(builder, rows):
    """Sixteen vectors as the columns of what they are the rows of: in groups of four lanes, then of groups."""

    def exchange(pairs, masks):
        """Of each pair of vectors two others, by which lanes of both they take."""
        result = list(rows)
        for a, b in pairs:
            both = rows[a], rows[b]
            for place, mask in zip((a, b), masks, strict=True):
                result[place] = builder.shuffle_vector(*both, ir.Constant(ir.VectorType(INDEX, LANES), mask))
        return result

    def within_groups(mask):
        return [4 * group + lane % 4 + (LANES if lane >= 4 else 0) for group in range(4) for lane in mask]

    def of_groups(groups):
        return [LANES * (group >= 4) + 4 * (group % 4) + lane for group in groups for lane in range(4)]

    even = range(0, LANES, 2)
    rows = exchange([(k, k + 1) for k in even], [within_groups(m) for m in ((0, 4, 1, 5), (2, 6, 3, 7))])
    halves = [(k, k + 2) for k in range(LANES) if k % 4 < 2]
    rows = exchange(halves, [within_groups(m) for m in ((0, 1, 4, 5), (2, 3, 6, 7))])
    rows = [rows[k + (0, 2, 1, 3)[j]] for k in range(0, LANES, 4) for j in range(4)]  # lane j of each group
    for step in (4, 8):
        pairs = [(k, k + step) for k in range(LANES) if not k & step]
        rows = exchange(pairs, [of_groups(m) for m in ((0, 2, 4, 6), (1, 3, 5, 7))])
    return rows


def _store(builder, vector, pointer):
    """Write a line past the caches."""
    store = builder.store(vector, pointer)
    store.align = 4 * LANES
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(INDEX, 1)]))


@intrinsic
def fill_line(typing, out, at, value):
    """out[at : at + LANES] = value, for out[at] that begins a line of the cache: what memory can take at most."""

    def code(context, builder, signature, args):
        _store(
            builder, lanes.broadcast(builder, args[2]).value, _pointer(context, builder, signature, args, 0, args[1])
        )
        return context.get_dummy_value()

    return types.void(out, at, types.float32), code


@intrinsic
def line(typing, x, y, z, out, k, i, after, split, at, edges):
    """out[at : at + LANES] = distances of atoms k, k + 1, … to atom i, from the lane `split` on to atom `after`.

    out[at] begins a line of the cache. With `edges` (a, b, c) of a rectangular box instead of (), distances are those
    to the nearest images, for differences up to the box; so below.
    """

    def code(context, builder, signature, args):
        numbers = ir.VectorType(INDEX, LANES)
        split = lanes.broadcast(builder, builder.trunc(args[7], INDEX), numbers).value
        first = builder.icmp_signed("<", ir.Constant(numbers, list(range(LANES))), split)
        one, after = (_atom(context, builder, signature, args, args[at]) for at in (5, 6))
        atoms = [builder.select(first, *both) for both in zip(one, after, strict=True)]
        others = _columns(context, builder, signature, args, args[4])
        found = _distances(builder, others, atoms, cgutils.unpack_tuple(builder, args[9]))
        _store(builder, found, _pointer(context, builder, signature, args, 3, args[8]))
        return context.get_dummy_value()

    return types.void(x, y, z, out, k, i, after, split, at, edges), code


def _rows(many):
    """An intrinsic function for so many rows of a matrix at a time."""

    @intrinsic
    def run(typing, x, y, z, out, k, lines, i, apart, at, n, edges):
        """Whole lines of rows i, i + apart, … of a matrix (n, n), from column k on, where all of them begin a line.

        `at` is the place of the first in `out`.
        """

        def code(context, builder, signature, args):
            box = cgutils.unpack_tuple(builder, args[10])
            further = [builder.mul(args[7], ir.Constant(args[7].type, number)) for number in range(many)]
            atoms = [_atom(context, builder, signature, args, builder.add(args[6], more)) for more in further]
            places = [builder.add(args[8], builder.mul(args[9], more)) for more in further]
            with cgutils.for_range(builder, args[5]) as loop:
                done = builder.mul(loop.index, ir.Constant(loop.index.type, LANES))
                others = _columns(context, builder, signature, args, builder.add(args[4], done))
                for number, (atom, place) in enumerate(zip(atoms, places, strict=True)):
                    # A fourth of the roots by products: square roots and products then take equally long.
                    root = Lanes.sqrt if box or number % 4 < 3 else Lanes.sqrt_by_products
                    found = _distances(builder, others, atom, box, root)
                    _store(builder, found, _pointer(context, builder, signature, args, 3, builder.add(place, done)))
            return context.get_dummy_value()

        return types.void(x, y, z, out, k, lines, i, apart, at, n, edges), code

    return run


MANY = 8  # more need more registers than there are
row, rows = _rows(1), _rows(MANY)


@intrinsic
def block(typing, x, y, z, out, k, i, at, mirrored, n, edges):
    """A block of a matrix (n, n) and its image below the diagonal: d, of LANES atoms from i on to as many from k on.

    d[j] goes to out[at + j n :], d[:, j] to out[mirrored + j n :]. Both begin a line of the cache, and n is a multiple
    of LANES, so that this holds for every j.
    """

    def code(context, builder, signature, args):
        others = _columns(context, builder, signature, args, args[4])
        box = cgutils.unpack_tuple(builder, args[9])

        def store(vector, first, number):
            at = builder.add(first, builder.mul(args[8], ir.Constant(args[8].type, number)))
            _store(builder, vector, _pointer(context, builder, signature, args, 3, at))

        rows = []
        for number in range(LANES):  # each is written at once: one after another they would wait for memory
            atom = builder.add(args[5], ir.Constant(args[5].type, number))
            rows.append(_distances(builder, others, _atom(context, builder, signature, args, atom), box))
            store(rows[-1], args[6], number)
        for number, column in enumerate(_transposed(builder, rows)):
            store(column, args[7], number)
        return context.get_dummy_value()

    return types.void(x, y, z, out, k, i, at, mirrored, n, edges), code


@intrinsic
def fence(typing):
    """After this, other threads see what was written past the caches."""

    def code(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code
