"""Distance matrices written past the caches, for results that no cache can hold; compiled with numba.

An ordinary store first reads the line of memory that it is going to overwrite; a non-temporal one does not, and takes
nothing else out of the caches. LLVM's vectoriser makes none, so sixteen distances at a time are spelled out here: each
line of the result, which may end one row and begin the next, is one vector. The arithmetic is that of `kernels`, to the
bit.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils, types

intrinsic: Any = extending.intrinsic  # its types do not say that the first argument is numba's own

LANES = 16  # float32 in 64 bytes: a line of the cache; LLVM splits it where the processor has shorter vectors
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INDEX = ir.IntType(32)


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
    """Pointer to the vector that begins at args[array][args[index]]."""
    data = cgutils.create_struct_proxy(signature.args[array])(context, builder, args[array]).data
    return builder.bitcast(builder.gep(data, [args[index]]), _VECTOR.as_pointer())


def _all(builder, value, vector=_VECTOR):
    """A vector of one value."""
    empty = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(empty, value, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES))


def _call(builder, name, value):
    """The vector form of an intrinsic function of LLVM."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32"), [value])


def _line(context, builder, signature, args, edges=None, flags=()):
    """Arguments as of `line`; with `edges`, distances are those to the nearest images."""
    lanes = ir.VectorType(_INDEX, LANES)
    split = _all(builder, builder.trunc(args[7], _INDEX), lanes)
    first = builder.icmp_signed("<", ir.Constant(lanes, list(range(LANES))), split)
    total = None
    for axis in range(3):
        data = cgutils.create_struct_proxy(signature.args[axis])(context, builder, args[axis]).data
        one, after = (_all(builder, builder.load(builder.gep(data, [args[at]]))) for at in (5, 6))
        other = builder.load(_pointer(context, builder, signature, args, axis, 4))
        other.align = 4
        apart = builder.fsub(other, builder.select(first, one, after))
        if edges is not None:
            apart = _call(builder, "fabs", apart)
            image = builder.fsub(_all(builder, edges[axis]), apart)
            apart = builder.select(builder.fcmp_ordered("<", image, apart), image, apart)
        square = builder.fmul(apart, apart, flags=flags)
        total = square if total is None else builder.fadd(total, square, flags=flags)
    _store(builder, _call(builder, "sqrt", total), _pointer(context, builder, signature, args, 3, 8))
    return context.get_dummy_value()


def _store(builder, vector, pointer):
    """Write a line past the caches."""
    store = builder.store(vector, pointer)
    store.align = 4 * LANES
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INDEX, 1)]))


@intrinsic
def fill_line(typing, out, at, value):
    """out[at : at + LANES] = value, for out[at] that begins a line of the cache: what memory can take at most."""

    def code(context, builder, signature, args):
        _store(builder, _all(builder, args[2]), _pointer(context, builder, signature, args, 0, 1))
        return context.get_dummy_value()

    return types.void(out, at, types.float32), code


@intrinsic
def line(typing, x, y, z, out, k, i, after, split, at):
    """out[at : at + LANES] = distances of atoms k, k + 1, … to atom i, from the lane `split` on to atom `after`.

    out[at] begins a line of the cache.
    """
    return types.void(x, y, z, out, k, i, after, split, at), _line


@intrinsic
def line_inside(typing, x, y, z, out, k, i, after, split, at, a, b, c):
    """The same to the nearest images in a rectangular box a × b × c, for differences up to the box."""

    def code(context, builder, signature, args):
        return _line(context, builder, signature, args, args[9:], ("contract",))

    return types.void(x, y, z, out, k, i, after, split, at, a, b, c), code


@intrinsic
def fence(typing):
    """After this, other threads see what was written past the caches."""

    def code(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code
