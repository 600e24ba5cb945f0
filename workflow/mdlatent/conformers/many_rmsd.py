"""Symmetric RMSD between many conformers of one molecule, sixteen pairs at a time.

For each automorphism of the heavy atoms, the largest root of the quartic of Theobald (2005, doi:10.1107/
S0108767305015266) says how well two structures superpose; the automorphism with the largest is found in single
precision, its root again in double precision. As RDKit's GetAllConformerBestRMS with terminal atoms of conjugated
groups alike, to 3e-3 Å; time grows with the number of pairs, of automorphisms and of atoms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils, types
from rdkit import Chem

from mdlatent import lanes
from mdlatent.compiling import njit
from mdlatent.lanes import LANES, Lanes

__all__ = ["automorphisms", "rmsd_between", "rmsd_matrix"]

intrinsic: Any = extending.intrinsic

NEWTON = 8  # steps in single precision, from the upper bound down
ABOVE = 1.00001  # times what they end at is above the root for sure: where double precision starts
CONJUGATED = Chem.MolFromSmarts("[O,N;D1;$([O,N;D1]-[*]=[O,N;D1]),$([O,N;D1]=[*]-[O,N;D1])]~[*]")


def automorphisms(mol: Chem.Mol, most: int) -> np.ndarray:
    """At most so many automorphisms of the heavy atoms, which stand in `mol` before hydrogens or among them: (P, n)."""
    heavy = Chem.RWMol(Chem.RemoveAllHs(mol))
    heavy.RemoveAllConformers()
    for terminal, centre in heavy.GetSubstructMatches(CONJUGATED):
        for index in (terminal, centre):
            heavy.GetAtomWithIdx(index).SetFormalCharge(0)
        heavy.GetBondBetweenAtoms(terminal, centre).SetBondType(Chem.BondType.ONEANDAHALF)
    return np.array(heavy.GetSubstructMatches(heavy, uniquify=False, useChirality=False, maxMatches=most), np.int64)


def rmsd_matrix(coordinates_angstrom: np.ndarray, same: np.ndarray) -> np.ndarray:
    """RMSD (C, C) in Å of conformers (C, n, 3) of heavy atoms, least over the automorphisms `same` (P, n)."""
    flat, columns, squares = _prepared(coordinates_angstrom)
    result = np.zeros((len(flat), len(flat)))
    _fill(flat, columns, 3 * same, squares, squares, True, result)
    return result + result.T


def rmsd_between(one_angstrom: np.ndarray, other_angstrom: np.ndarray, same: np.ndarray) -> np.ndarray:
    """The same between the conformers of two sets, (C, n, 3) and (D, n, 3): (C, D)."""
    flat, _, squares = _prepared(one_angstrom)
    _, columns, others = _prepared(other_angstrom)
    result = np.zeros((len(squares), len(others)))
    _fill(flat, columns, 3 * same, squares, others, False, result)
    return result


def _prepared(coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred conformers one by one (C, 3 n) and, flat, in columns of LANES, filled up; sums of squares (C,)."""
    count, n, _ = coordinates.shape
    centred = np.ascontiguousarray(coordinates - coordinates.mean(1, keepdims=True))  # whatever their order in memory
    blocks = -(-count // LANES)
    filled = centred[np.minimum(np.arange(blocks * LANES), max(0, count - 1))].astype(np.float32)
    columns = np.ascontiguousarray(filled.reshape(blocks, LANES, 3 * n).transpose(0, 2, 1)).reshape(-1)
    return centred.astype(np.float32).reshape(count, -1), columns, (centred**2).sum((1, 2))


def _largest_root(products: list[Lanes], start: Lanes) -> Lanes:
    """λ of Theobald's quartic λ⁴ + c₂ λ² + c₁ λ + c₀ for the sums of products M (row by row), from above by Newton.

    With σ the singular values of M: c₂ = −2 Σ σ², c₁ = −8 det M, c₀ = (Σ σ²)² − 4 Σ_{i<j} σ_i² σ_j², the last sum being
    that of the squared cofactors.
    """
    a, b, c, d, e, f, g, h, i = products
    total = a * a
    for one in products[1:]:
        total = total + one * one
    cofactors = [e * i - f * h, f * g - d * i, d * h - e * g, c * h - b * i, a * i - c * g, b * g - a * h,
                 b * f - c * e, c * d - a * f, a * e - b * d]  # fmt: skip
    twos = cofactors[0] * cofactors[0]
    for one in cofactors[1:]:
        twos = twos + one * one
    determinant = a * cofactors[0] + b * cofactors[1] + c * cofactors[2]
    c2, c1, c0 = -2.0 * total, -8.0 * determinant, total * total - 4.0 * twos
    root = start
    for _ in range(NEWTON):
        square = root * root
        inner = (square + c2) * root
        value = (inner + c1) * root + c0
        slope = 4.0 * square * root + 2.0 * c2 * root + c1
        root = root - value / (slope + 1e-20)
    return root


@intrinsic
def _try(typing, one, at, columns, block, same, p, start, products, root):
    """Superpose `one`, its atoms reordered, on a block of conformers: where λ exceeds `root` (LANES,), that becomes λ,
    and products (9, LANES) the sums of products."""

    def code(context, builder, signature, args):
        data = {
            k: cgutils.create_struct_proxy(signature.args[k])(context, builder, args[k]) for k in (0, 2, 4, 6, 7, 8)
        }
        word = args[1].type
        number = lambda value: ir.Constant(word, value)  # noqa: E731
        n = builder.extract_value(data[4].shape, 1)
        sums = [cgutils.alloca_once_value(builder, lanes.constant(0.0)) for _ in range(9)]
        begin_one = builder.mul(args[1], builder.mul(n, number(3)))
        begin_block = builder.mul(args[3], builder.mul(n, number(3 * LANES)))
        begin_same = builder.mul(args[5], n)
        with cgutils.for_range(builder, n) as inner:
            other = builder.add(begin_one, lanes.read(builder, data[4].data, builder.add(begin_same, inner.index)))
            mine = [
                lanes.broadcast(builder, lanes.read(builder, data[0].data, builder.add(other, number(k))))
                for k in range(3)
            ]
            place = builder.add(begin_block, builder.mul(inner.index, number(3 * LANES)))
            theirs = [lanes.load(builder, data[2].data, builder.add(place, number(LANES * k))) for k in range(3)]
            for k in range(9):
                so_far = Lanes(builder, builder.load(sums[k]))
                builder.store((so_far + mine[k // 3] * theirs[k % 3]).value, sums[k])
        found = [Lanes(builder, builder.load(one)) for one in sums]
        new = _largest_root(found, lanes.load(builder, data[6].data, number(0)))
        before = lanes.load(builder, data[8].data, number(0))
        better = before.below(new)
        lanes.store(builder, lanes.select(better, new, before), data[8].data, number(0))
        for k, sums_of_products in enumerate(found):
            kept = lanes.load(builder, data[7].data, number(LANES * k))
            lanes.store(builder, lanes.select(better, sums_of_products, kept), data[7].data, number(LANES * k))
        return context.get_dummy_value()

    return types.void(one, at, columns, block, same, p, start, products, root), code


@njit(cache=True)
def _exact_root(m, w, start):
    """As `_largest_root`, in double precision for lane w of m (9, LANES), until it stands still."""
    a, b, c = np.float64(m[0, w]), np.float64(m[1, w]), np.float64(m[2, w])
    d, e, f = np.float64(m[3, w]), np.float64(m[4, w]), np.float64(m[5, w])
    g, h, i = np.float64(m[6, w]), np.float64(m[7, w]), np.float64(m[8, w])
    total = a * a + b * b + c * c + d * d + e * e + f * f + g * g + h * h + i * i
    p, q, r = e * i - f * h, f * g - d * i, d * h - e * g
    s, t, u = c * h - b * i, a * i - c * g, b * g - a * h
    v, x, y = b * f - c * e, c * d - a * f, a * e - b * d
    twos = p * p + q * q + r * r + s * s + t * t + u * u + v * v + x * x + y * y
    c2, c1, c0 = -2.0 * total, -8.0 * (a * p + b * q + c * r), total * total - 4.0 * twos
    root = start
    for _ in range(60):
        value = ((root * root + c2) * root + c1) * root + c0
        slope = 4.0 * root * root * root + 2.0 * c2 * root + c1
        if slope <= 0.0:
            break
        step = value / slope
        root -= step
        if abs(step) <= 1e-9 * start:
            break
    return root


@njit(cache=True)
def _fill(flat, columns, same, squares, others, above, result):
    """RMSD of each of `flat` with each of the columns, only above the diagonal if `above`."""
    count = len(others)
    start, root, products = np.empty(LANES, np.float32), np.empty(LANES, np.float32), np.empty((9, LANES), np.float32)
    n = same.shape[1]
    for i in range(len(flat)):
        for block in range(i // LANES if above else 0, -(-count // LANES)):
            for w in range(LANES):
                start[w] = (squares[i] + others[min(block * LANES + w, count - 1)]) / 2
                root[w] = -np.inf
            for p in range(len(same)):
                _try(flat, i, columns, block, same, p, start, products, root)
            for w in range(LANES):
                j = block * LANES + w
                if j < count and (j > i or not above):
                    half = (squares[i] + others[j]) / 2
                    above_it = min(half, ABOVE * root[w])
                    result[i, j] = np.sqrt(max(0.0, 2 * (half - _exact_root(products, w, above_it)) / n))
