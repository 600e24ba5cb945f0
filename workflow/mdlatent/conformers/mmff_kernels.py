"""Energies and slopes of all MMFF94 terms of sixteen conformers, compiled with numba.

Coordinates and slopes are flat float32: number 48 a + 16 c + w is direction c of atom a in conformer w. So what is done
for one conformer is done for sixteen with the same instructions, and nothing is gathered.
"""

from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import cgutils, types

from mdlatent import lanes
from mdlatent.compiling import njit
from mdlatent.conformers import mmff_formulas
from mdlatent.lanes import LANES

__all__ = ["energy"]

intrinsic: Any = extending.intrinsic


def _term(formula: Any, n_atoms: int, n_values: int) -> Any:
    """A function of (x, e, g, atoms, values, t) that adds energy and slopes of term t to e (LANES,) and g."""

    @intrinsic
    def add(typing, x, e, g, atoms, values, t):
        def code(context, builder, signature, args):
            data = [cgutils.create_struct_proxy(signature.args[k])(context, builder, args[k]).data for k in range(5)]
            word = args[5].type

            def at(index, step, offset=0):
                return builder.add(builder.mul(index, ir.Constant(word, step)), ir.Constant(word, offset))

            indices = [lanes.read(builder, data[3], at(args[5], n_atoms, k)) for k in range(n_atoms)]
            places = [[at(index, 3 * LANES, LANES * c) for c in range(3)] for index in indices]
            points = [tuple(lanes.load(builder, data[0], place) for place in one) for one in places]
            numbers = [lanes.read(builder, data[4], at(args[5], n_values, k)) for k in range(n_values)]
            energy, slopes = formula(points, *(lanes.broadcast(builder, number) for number in numbers))
            zero = ir.Constant(word, 0)
            lanes.store(builder, lanes.load(builder, data[1], zero) + energy, data[1], zero)
            for one, slope in zip(places, slopes, strict=True):
                for place, part in zip(one, slope, strict=True):
                    lanes.store(builder, lanes.load(builder, data[2], place) + part, data[2], place)
            return context.get_dummy_value()

        return types.void(x, e, g, atoms, values, t), code

    return add


_bond = _term(mmff_formulas.bond, 2, 2)
_angle = _term(mmff_formulas.angle, 3, 6)
_linear = _term(mmff_formulas.linear, 3, 1)
_plane = _term(mmff_formulas.plane, 4, 1)
_torsion = _term(mmff_formulas.torsion, 4, 3)
_pair = _term(mmff_formulas.pair, 2, 3)


@njit(cache=True)
def energy(x, terms, e, g):
    """Energies e (LANES,) in kcal/mol and slopes g of x, by `terms`, a mmff_terms.Terms in float32."""
    e[:] = 0
    g[:] = 0
    for t in range(len(terms.bonds)):
        _bond(x, e, g, terms.bonds, terms.bond_values, t)
    for t in range(len(terms.angles)):
        _angle(x, e, g, terms.angles, terms.angle_values, t)
    for t in range(len(terms.linear)):
        _linear(x, e, g, terms.linear, terms.linear_values, t)
    for t in range(len(terms.planes)):
        _plane(x, e, g, terms.planes, terms.plane_values, t)
    for t in range(len(terms.torsions)):
        _torsion(x, e, g, terms.torsions, terms.torsion_values, t)
    for t in range(len(terms.pairs)):
        _pair(x, e, g, terms.pairs, terms.pair_values, t)
