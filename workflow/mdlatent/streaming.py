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


def line_at(context, builder, signature, args, array, index):
    """Pointer to the vector that begins at args[array][index]."""
    data = cgutils.create_struct_proxy(signature.args[array])(context, builder, args[array]).data
    return lanes.pointer(builder, data, index)


def columns_from(context, builder, signature, args, index):
    """Vectors of x, y and z that begin at `index`."""
    data = [cgutils.create_struct_proxy(signature.args[axis])(context, builder, args[axis]).data for axis in range(3)]
    return [lanes.load(builder, one, index).value for one in data]


def one_atom(context, builder, signature, args, at):
    """x, y and z of one atom, each as a vector of one value."""
    data = [cgutils.create_struct_proxy(signature.args[axis])(context, builder, args[axis]).data for axis in range(3)]
    return [lanes.broadcast(builder, builder.load(builder.gep(one, [at]))).value for one in data]


def atoms_from(context, builder, signature, args, first):
    """A function of a number below LANES: the atom so many after `first`, as `_atom` gives it.

    From registers, where the processor can: loads between lines on their way to memory slow those down, by a fourth
    where each line takes three, even from the nearest cache.
    """
    if not lanes.HAS_AVX512:
        return lambda number: one_atom(context, builder, signature, args, builder.add(first, number))
    atoms = columns_from(context, builder, signature, args, first)
    return lambda number: [lanes.element(builder, axis, builder.trunc(number, INDEX)).value for axis in atoms]


def distances_of(builder, others, atoms, edges, root=Lanes.sqrt):
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


def store_line(builder, vector, pointer):
    """Write a line past the caches."""
    store = builder.store(vector, pointer)
    store.align = 4 * LANES
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(INDEX, 1)]))


@intrinsic
def fill_line(typing, out, at, value):
    """out[at : at + LANES] = value, for out[at] that begins a line of the cache: what memory can take at most."""

    def code(context, builder, signature, args):
        store_line(
            builder, lanes.broadcast(builder, args[2]).value, line_at(context, builder, signature, args, 0, args[1])
        )
        return context.get_dummy_value()

    return types.void(out, at, types.float32), code


@intrinsic
def seams(typing, x, y, z, out, k, split, i, apart, count, at, n, edges):
    """`count` lines of a matrix (n, n) that end rows i, i + apart, … and begin those after them.

    Each is the distances of atoms k, k + 1, … to atom i (or i + apart, …), from the lane `split` on to the atom after
    that. The first goes to out[at : at + LANES], which is a line of the cache, as the others then are. With `edges`
    (a, b, c) of a rectangular box instead of (), distances are those to the nearest images, for differences up to the
    box; so below.
    """

    def code(context, builder, signature, args):
        numbers = ir.VectorType(INDEX, LANES)
        split = lanes.broadcast(builder, builder.trunc(args[5], INDEX), numbers).value
        first = builder.icmp_signed("<", ir.Constant(numbers, list(range(LANES))), split)
        others = columns_from(context, builder, signature, args, args[4])
        box = cgutils.unpack_tuple(builder, args[11])
        with cgutils.for_range(builder, args[8]) as loop:
            further = builder.mul(loop.index, args[7])
            row = builder.add(args[6], further)
            after = builder.add(row, row.type(1))
            both = (one_atom(context, builder, signature, args, atom) for atom in (row, after))
            atoms = [builder.select(first, *axis) for axis in zip(*both, strict=True)]
            place = builder.add(args[9], builder.mul(args[10], further))
            found = distances_of(builder, others, atoms, box)
            store_line(builder, found, line_at(context, builder, signature, args, 3, place))
        return context.get_dummy_value()

    return types.void(x, y, z, out, k, split, i, apart, count, at, n, edges), code


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
            atoms = [one_atom(context, builder, signature, args, builder.add(args[6], more)) for more in further]
            places = [builder.add(args[8], builder.mul(args[9], more)) for more in further]
            with cgutils.for_range(builder, args[5]) as loop:
                done = builder.mul(loop.index, ir.Constant(loop.index.type, LANES))
                others = columns_from(context, builder, signature, args, builder.add(args[4], done))
                for number, (atom, place) in enumerate(zip(atoms, places, strict=True)):
                    # A fourth of the roots by products: square roots and products then take equally long.
                    root = Lanes.sqrt if box or number % 4 < 3 else Lanes.sqrt_by_products
                    found = distances_of(builder, others, atom, box, root)
                    store_line(builder, found, line_at(context, builder, signature, args, 3, builder.add(place, done)))
            return context.get_dummy_value()

        return types.void(x, y, z, out, k, lines, i, apart, at, n, edges), code

    return run


MANY = 8  # more need more registers than there are
row, rows = _rows(1), _rows(MANY)


@intrinsic
def fence(typing):
    """After this, other threads see what was written past the caches."""

    def code(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code
