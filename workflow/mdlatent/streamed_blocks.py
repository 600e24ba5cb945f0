"""Blocks of a distance matrix that are computed once and written twice past the caches, the second time turned over;
compiled with numba.

Where all rows begin lines of the cache at the same columns (n a multiple of LANES), rows of a block are lines. Where
every other row begins them half a line later (n an odd multiple of LANES / 2), the second half of each such row waits
for the block beside it.
"""

from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import cgutils, types

from mdlatent import lanes
from mdlatent.lanes import INDEX, LANES, VECTOR
from mdlatent.streaming import atoms_from, columns_from, distances_of, line_at, store_line

intrinsic: Any = extending.intrinsic  # its types do not say that the first argument is numba's own
HALF = LANES // 2

# Of two vectors, the even ones (first) and the odd ones: of the lanes in each group of four, and of the groups.
LANES_IN_GROUPS = [[4 * group + lane + odd for group in range(4) for lane in (0, 2, 16, 18)] for odd in (0, 1)]
WHOLE_GROUPS = [[4 * (group + odd) + lane for group in (0, 2, 4, 6) for lane in range(4)] for odd in (0, 1)]


def _turned(builder, four, masks):
    """Four vectors as the columns of what they are the rows of, by `masks` lanes in groups or whole groups."""

    def taken(two, mask):
        return builder.shuffle_vector(*two, ir.Constant(ir.VectorType(INDEX, LANES), mask))

    halves = [[taken(two, mask) for two in (four[:2], four[2:])] for mask in masks]
    return [taken(halves[number % 2], masks[number // 2]) for number in range(4)]


@intrinsic
def scratch(typing):
    """Room for LANES vectors on the stack, which stays in the nearest cache."""

    def code(context, builder, signature, args):
        memory = cgutils.alloca_once(builder, VECTOR, LANES)
        memory.align = 4 * LANES
        return builder.bitcast(memory, context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(), code


def _block(computes, mirrors, halves):
    """An intrinsic function for a block of a matrix, which mirrors an earlier block meanwhile, or does one of the two.

    With `halves`, every other row begins lines half a line later.
    """

    @intrinsic
    def run(typing, x, y, z, out, k, i, at, other, image, n, fresh, kept, waiting, edges):
        """A block d of a matrix (n, n), of LANES atoms from i on to as many from k on, and the image of an earlier one.

        d[j] goes to out[at + j n :], and into `fresh` what a later call needs. What an earlier one left in `kept`, of
        its block b, whose columns are atoms from `other` on, is mirrored: b[:, j] goes to out[image + j n :]. All of
        these begin lines of the cache. If nothing is mirrored and there are no halves, the first rows come once more
        after the last, as atoms do in x.

        With halves, i and `other` are even, and rows of odd atoms begin lines LANES / 2 columns later: the first half
        of such a row of d ends the line whose beginning is in `waiting`, from (atom − 1) LANES / 4 on, and the second
        waits there. Blocks of a row must come from left to right.

        Four rows of one and four of the other take turns. Were a block turned over as soon as it is computed, no roots
        would be taken meanwhile, for the processor looks no more than some 350 instructions ahead. What is kept is half
        turned over, so that each turn reads four vectors.
        """

        def code(context, builder, signature, args):
            whole = args[9].type
            if computes:
                others = columns_from(context, builder, signature, args, args[4])
                atom = atoms_from(context, builder, signature, args, args[5])
            box = cgutils.unpack_tuple(builder, args[13])
            data = cgutils.create_struct_proxy(signature.args[12])(context, builder, args[12]).data if halves else None

            def save(vector, first, row, atom, odd):
                at = builder.add(first, builder.mul(args[9], row))
                if halves and odd:
                    before_it = builder.sub(builder.add(atom, row), whole(1))
                    half = builder.mul(before_it, whole(HALF // 2))
                    pointer = builder.bitcast(builder.gep(data, [half]), _HALF_VECTOR.as_pointer())
                    before = builder.load(pointer, align=4)
                    low, high = (_lanes_of(builder, vector, range(start, start + HALF)) for start in (0, HALF))
                    builder.store(high, pointer, align=4)
                    vector, at = _joined(builder, before, low), builder.sub(at, whole(HALF))
                store_line(builder, vector, line_at(context, builder, signature, args, 3, at))

            def place(memory, rows, column):
                """Of a vector of rows 4 `rows`, …, + 3 and, in its groups, columns `column`, + 4, + 8, + 12."""
                number = builder.add(builder.mul(rows, whole(4)), column)
                return lanes.pointer(builder, memory, builder.mul(number, whole(LANES)))

            turns = 2 if halves else 1  # in a loop: of odd ones all images are rows of odd atoms
            with cgutils.for_range(builder, whole(4 // turns)) as loop:
                for odd in range(turns):
                    turn = builder.add(builder.mul(loop.index, whole(turns)), whole(odd))
                    if mirrors:
                        parts = [builder.load(place(args[11], whole(rows), turn)) for rows in range(4)]
                        images = _turned(builder, parts, WHOLE_GROUPS)
                    made = []
                    for number in range(4):
                        if computes:
                            row = builder.add(builder.mul(turn, whole(4)), whole(number))
                            made.append(distances_of(builder, others, atom(row), box))
                        if mirrors:
                            save(images[number], args[8], builder.add(turn, whole(4 * number)), args[7], odd)
                        elif not halves:
                            inside = builder.icmp_signed("<", builder.add(args[5], row), args[9])
                            row = builder.select(inside, row, builder.sub(row, args[9]))
                        if computes:
                            save(made[-1], args[6], row, args[5], number % 2)
                    for number, part in enumerate(_turned(builder, made, LANES_IN_GROUPS) if computes else ()):
                        builder.store(part, place(args[10], turn, whole(number)))
            return context.get_dummy_value()

        return types.void(x, y, z, out, k, i, at, other, image, n, fresh, kept, waiting, edges), code

    return run


_HALF_VECTOR = ir.VectorType(ir.FloatType(), HALF)


def _lanes_of(builder, vector, which):
    return builder.shuffle_vector(vector, ir.Constant(VECTOR, ir.Undefined), _mask(which))


def _joined(builder, low, high):
    return builder.shuffle_vector(low, high, _mask(range(LANES)))


def _mask(which):
    return ir.Constant(ir.VectorType(INDEX, len(which)), list(which))


block, block_and_image = _block(True, False, False), _block(True, True, False)
halves_block, halves_block_and_image = _block(True, False, True), _block(True, True, True)
halves_image = _block(False, True, True)
