"""Distance matrices written past the caches, for results that no cache can hold; compiled with numba.

An ordinary store first reads the line of memory that it is going to overwrite; a non-temporal one does not, and takes
nothing else out of the caches. LLVM's vectoriser makes none, so sixteen distances at a time are spelled out here: each
line of the result, which may end one row and begin the next, is one vector. The arithmetic is that of `distance_rows`,
to the bit. `row_over` alone writes as usual, for results that a cache does hold.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils, types

from mdlatent import lanes
from mdlatent.lanes import INDEX, LANES, VECTOR, Lanes  # LANES float32 are a line of the cache

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


def _atoms(context, builder, signature, args, first):
    """A function of a number below LANES: the atom so many after `first`, as `_atom` gives it.

    From registers, where the processor can: loads between lines on their way to memory slow those down, by a fourth
    where each line takes three, even from the nearest cache.
    """
    if not lanes.HAS_AVX512:
        return lambda number: _atom(context, builder, signature, args, builder.add(first, number))
    atoms = _columns(context, builder, signature, args, first)
    return lambda number: [lanes.element(builder, axis, builder.trunc(number, INDEX)).value for axis in atoms]


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


# Of two vectors, the even ones (first) and the odd ones: of the lanes in each group of four, and of the groups.
LANES_IN_GROUPS = [[4 * group + lane + odd for group in range(4) for lane in (0, 2, 16, 18)] for odd in (0, 1)]
WHOLE_GROUPS = [[4 * (group + odd) + lane for group in (0, 2, 4, 6) for lane in range(4)] for odd in (0, 1)]


def _turned(builder, four, masks):
    """Four vectors as the columns of what they are the rows of, by `masks` lanes in groups or whole groups."""

    def taken(two, mask):
        return builder.shuffle_vector(*two, ir.Constant(ir.VectorType(INDEX, LANES), mask))

    halves = [[taken(two, mask) for two in (four[:2], four[2:])] for mask in masks]
    return [taken(halves[number % 2], masks[number // 2]) for number in range(4)]


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
        others = _columns(context, builder, signature, args, args[4])
        box = cgutils.unpack_tuple(builder, args[11])
        with cgutils.for_range(builder, args[8]) as loop:
            further = builder.mul(loop.index, args[7])
            row = builder.add(args[6], further)
            after = builder.add(row, row.type(1))
            both = (_atom(context, builder, signature, args, atom) for atom in (row, after))
            atoms = [builder.select(first, *axis) for axis in zip(*both, strict=True)]
            place = builder.add(args[9], builder.mul(args[10], further))
            found = _distances(builder, others, atoms, box)
            _store(builder, found, _pointer(context, builder, signature, args, 3, place))
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


@intrinsic
def row_over(typing, x, y, z, out, k, lines, i, at, edges):
    """The same for one row, by ordinary stores to wherever out[at] is: distances of atom i to `lines` × LANES atoms."""

    def code(context, builder, signature, args):
        atom, box = _atom(context, builder, signature, args, args[6]), cgutils.unpack_tuple(builder, args[8])
        data = cgutils.create_struct_proxy(signature.args[3])(context, builder, args[3]).data
        with cgutils.for_range(builder, args[5]) as loop:
            done = builder.mul(loop.index, ir.Constant(loop.index.type, LANES))
            others = _columns(context, builder, signature, args, builder.add(args[4], done))
            found = Lanes(builder, _distances(builder, others, atom, box))
            lanes.store(builder, found, data, builder.add(args[7], done))
        return context.get_dummy_value()

    return types.void(x, y, z, out, k, lines, i, at, edges), code


MANY = 8  # more need more registers than there are
row, rows = _rows(1), _rows(MANY)


@intrinsic
def scratch(typing):
    """Room for LANES vectors on the stack, which stays in the nearest cache."""

    def code(context, builder, signature, args):
        memory = cgutils.alloca_once(builder, VECTOR, LANES)
        memory.align = 4 * LANES
        return builder.bitcast(memory, context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(), code


def _block(mirrors):
    """An intrinsic function for a block of a matrix, which mirrors an earlier block meanwhile or does not."""

    @intrinsic
    def run(typing, x, y, z, out, k, i, at, image, n, fresh, kept, edges):
        """A block d of a matrix (n, n), of LANES atoms from i on to as many from k on, and the image of an earlier one.

        d[j] goes to out[at + j n :], and into `fresh` what a later call needs. What an earlier one left in `kept`, of
        its block b, is mirrored: b[:, j] goes to out[image + j n :]. All of these begin lines of the cache; n is a
        multiple of LANES. If nothing is mirrored, the first rows come once more after the last, as atoms do in x.

        Four rows of one and four of the other take turns. Were a block turned over as soon as it is computed, no roots
        would be taken meanwhile, for the processor looks no more than some 350 instructions ahead. What is kept is half
        turned over, so that each turn reads four vectors.
        """

        def code(context, builder, signature, args):
            others = _columns(context, builder, signature, args, args[4])
            atom = _atoms(context, builder, signature, args, args[5])
            box = cgutils.unpack_tuple(builder, args[11])
            whole = args[8].type

            def save(vector, first, row):
                at = builder.add(first, builder.mul(args[8], row))
                _store(builder, vector, _pointer(context, builder, signature, args, 3, at))

            def place(memory, rows, column):
                """Of a vector of rows 4 `rows`, …, + 3 and, in its groups, columns `column`, + 4, + 8, + 12."""
                number = builder.add(builder.mul(rows, whole(4)), column)
                return lanes.pointer(builder, memory, builder.mul(number, whole(LANES)))

            with cgutils.for_range(builder, whole(4)) as loop:
                if mirrors:
                    parts = [builder.load(place(args[10], whole(rows), loop.index)) for rows in range(4)]
                    images = _turned(builder, parts, WHOLE_GROUPS)
                made = []
                for number in range(4):
                    row = builder.add(builder.mul(loop.index, whole(4)), whole(number))
                    made.append(_distances(builder, others, atom(row), box))
                    if mirrors:
                        save(images[number], args[7], builder.add(loop.index, whole(4 * number)))
                    else:
                        inside = builder.icmp_signed("<", builder.add(args[5], row), args[8])
                        row = builder.select(inside, row, builder.sub(row, args[8]))
                    save(made[-1], args[6], row)
                for number, part in enumerate(_turned(builder, made, LANES_IN_GROUPS)):
                    builder.store(part, place(args[9], loop.index, whole(number)))
            return context.get_dummy_value()

        return types.void(x, y, z, out, k, i, at, image, n, fresh, kept, edges), code

    return run


block, block_and_image = _block(False), _block(True)


@intrinsic
def fence(typing):
    """After this, other threads see what was written past the caches."""

    def code(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code
