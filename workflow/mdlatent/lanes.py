"""Vectors of sixteen float32 in code that numba compiles: formulas are written with operators, once for all lanes.

LLVM's vectoriser gives up where several arrays are read and written in a loop, since they might overlap. Here nothing
is left to it. A processor with shorter vectors takes two or four for each, and the numbers are the same to the bit:
sums and products are not contracted.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils, types

__all__ = [
    "HAS_AVX512",
    "INDEX",
    "LANES",
    "VECTOR",
    "Lanes",
    "broadcast",
    "constant",
    "element",
    "load",
    "loop",
    "pointer",
    "read",
    "select",
    "store",
]

LANES = 16
LEAST_ROOT = 2.0**-36  # of smaller ones the products lose bits
HAS_AVX512 = llvmlite.binding.get_host_cpu_features().get("avx512f", False)
VECTOR = ir.VectorType(ir.FloatType(), LANES)
INDEX = ir.IntType(32)


class Lanes:
    """A vector in the code that is built; numbers may stand beside it."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def _other(self, other: Lanes | float) -> Any:
        return other.value if isinstance(other, Lanes) else constant(other)

    def _made(self, value: Any) -> Lanes:
        return Lanes(self.builder, value)

    def __add__(self, other: Lanes | float) -> Lanes:
        return self._made(self.builder.fadd(self.value, self._other(other)))

    def __sub__(self, other: Lanes | float) -> Lanes:
        return self._made(self.builder.fsub(self.value, self._other(other)))

    def __rsub__(self, other: float) -> Lanes:
        return self._made(self.builder.fsub(constant(other), self.value))

    def __mul__(self, other: Lanes | float) -> Lanes:
        return self._made(self.builder.fmul(self.value, self._other(other)))

    def __truediv__(self, other: Lanes | float) -> Lanes:
        return self._made(self.builder.fdiv(self.value, self._other(other)))

    def __rtruediv__(self, other: float) -> Lanes:
        return self._made(self.builder.fdiv(constant(other), self.value))

    def __neg__(self) -> Lanes:
        return self._made(self.builder.fneg(self.value))

    __radd__, __rmul__ = __add__, __mul__

    def call(self, name: str, *others: Lanes | float) -> Lanes:
        """An intrinsic function of LLVM: sqrt, fabs, fma, maxnum, minnum, …"""
        kind = ir.FunctionType(VECTOR, [VECTOR] * (1 + len(others)))
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.v{LANES}f32")
        return self._made(self.builder.call(function, [self.value, *(self._other(other) for other in others)]))

    def sqrt(self) -> Lanes:
        """Its square root."""
        return self.call("sqrt")

    def sqrt_by_products(self) -> Lanes:
        """The same to the bit, by other units of the processor, which are free while it takes square roots.

        From 1/√x to 14 bits by two steps of Newton and Goldschmidt in fused products, the last of which rounds rightly
        (Markstein, IBM J. Res. Dev. 34, 111 (1990), doi 10.1147/rd.341.0111; the tests try every mantissa). Very small,
        infinite and undefined numbers take the usual way.
        """
        if not HAS_AVX512:
            return self.sqrt()
        builder, bits = self.builder, ir.IntType(LANES)
        kind = ir.FunctionType(VECTOR, [VECTOR, VECTOR, bits])
        rough = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.rsqrt14.ps.512")
        inverse = self._made(builder.call(rough, [self.value, constant(0.0), bits(-1)]))
        root, half = self * inverse, 0.5 * inverse
        error = (-root).call("fma", half, 0.5)
        root, half = root.call("fma", error, root), half.call("fma", error, half)
        root = (-root).call("fma", root, self).call("fma", half, root)
        fine = builder.bitcast(builder.fcmp_ordered(">=", root.value, constant(LEAST_ROOT)), bits)
        before = builder.basic_block
        with builder.if_then(builder.icmp_unsigned("!=", fine, bits(-1)), likely=False):
            exact, aside = self.sqrt(), builder.basic_block
        result = builder.phi(VECTOR)
        result.add_incoming(root.value, before)
        result.add_incoming(exact.value, aside)
        return self._made(result)

    def true(self) -> Any:
        """Where it is not zero: a condition for `select`."""
        return self.builder.fcmp_unordered("!=", self.value, constant(0.0))

    def below(self, other: Lanes | float) -> Any:
        """Where it is less: a condition for `select`."""
        return self.builder.fcmp_ordered("<", self.value, self._other(other))


def constant(number: float) -> Any:
    """A vector of a number that is known when the code is built."""
    return ir.Constant(VECTOR, [float(np.float32(number))] * LANES)


def select(condition: Any, yes: Lanes, no: Lanes) -> Lanes:
    """Lane by lane."""
    return Lanes(yes.builder, yes.builder.select(condition, yes.value, no.value))


def broadcast(builder: Any, number: Any, vector: Any = VECTOR) -> Lanes:
    """A vector of one number, float32 unless `vector` is of another kind."""
    empty = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(empty, number, ir.Constant(INDEX, 0))
    zeros = ir.Constant(ir.VectorType(INDEX, LANES), [0] * LANES)
    return Lanes(builder, builder.shuffle_vector(one, empty, zeros))


def element(builder: Any, vector: Any, number: Any) -> Lanes:
    """A vector of one number of `vector`, of which one is known only when the code runs; AVX-512 alone has it."""
    numbers = ir.VectorType(INDEX, LANES)
    kind = ir.FunctionType(VECTOR, [VECTOR, numbers])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.permvar.sf.512")
    return Lanes(builder, builder.call(function, [vector, broadcast(builder, number, numbers).value]))


def pointer(builder: Any, data: Any, index: Any) -> Any:
    """Of the vector that begins at data[index]."""
    return builder.bitcast(builder.gep(data, [index]), VECTOR.as_pointer())


def load(builder: Any, data: Any, index: Any) -> Lanes:
    """data[index : index + LANES] of float32."""
    value = builder.load(pointer(builder, data, index))
    value.align = 4
    return Lanes(builder, value)


def store(builder: Any, vector: Lanes, data: Any, index: Any) -> None:
    """data[index : index + LANES] = vector."""
    builder.store(vector.value, pointer(builder, data, index)).align = 4


def read(builder: Any, data: Any, index: Any) -> Any:
    """data[index]."""
    return builder.load(builder.gep(data, [index]))


def loop(formula: Any, reductions: tuple[str, ...] = ()) -> Any:
    """A function of (arrays, vectors, totals), three tuples, that goes through arrays of one length, LANES at a time.

    `formula` is given the `Lanes` of every array and of every vector (LANES,). It returns what is to be stored into
    each array (None: nothing) and what is to be put together, by `reductions` ("add" or "largest"), in each of the
    `totals`.
    """

    @extending.intrinsic
    def run(typing, arrays, vectors, totals):
        def code(context, builder, signature, args):
            kinds = [signature.args[k].types for k in range(3)]
            data = [
                [cgutils.create_struct_proxy(kind)(context, builder, one) for kind, one in zip(some, many, strict=True)]
                for some, many in zip(kinds, (cgutils.unpack_tuple(builder, arg) for arg in args), strict=True)
            ]
            zero = ir.Constant(ir.IntType(64), 0)
            fixed = [load(builder, one.data, zero) for one in data[1]]
            sums = [cgutils.alloca_once_value(builder, constant(0.0)) for _ in reductions]
            length = builder.extract_value(data[0][0].shape, 0)
            count = builder.udiv(length, ir.Constant(length.type, LANES))
            with cgutils.for_range(builder, count) as inner:
                at = builder.mul(inner.index, ir.Constant(inner.index.type, LANES))
                results, parts = formula([load(builder, one.data, at) for one in data[0]], fixed)
                for one, result in zip(data[0], results, strict=True):
                    if result is not None:
                        store(builder, result, one.data, at)
                for total, kind, part in zip(sums, reductions, parts, strict=True):
                    so_far = Lanes(builder, builder.load(total))
                    both = so_far + part if kind == "add" else so_far.call("maxnum", part)
                    builder.store(both.value, total)
            for total, one in zip(sums, data[2], strict=True):
                store(builder, Lanes(builder, builder.load(total)), one.data, zero)
            return context.get_dummy_value()

        return types.void(arrays, vectors, totals), code

    return run
