"""MMFF94 term by term: energy and slopes of sixteen conformers at once (Halgren 1996, doi:10.1002/(SICI)1096-987X
(199604)17:5/6<490::AID-JCC1>3.0.CO;2-P, part I, eqs. 2–9; MMFF94s differs in parameters alone).

Each function is given the atoms' positions, three `Lanes` each in Å, and parameters; it returns the energy in kcal/mol
and for each atom its slopes in kcal/mol/Å. Angles come from their cosines by a polynomial (Abramowitz & Stegun 4.4.46,
off by 2e-8 rad at most); torsions need cosines alone.
"""

from __future__ import annotations

import math

from mdlatent.lanes import Lanes, select

__all__ = ["angle", "bond", "linear", "pair", "plane", "torsion"]

CUBIC = -2.0  # of bonds, per Å
BEND = -0.4  # of angles, per radian
BUFFER, GAMMA, DELTA = 0.07, 0.12, 0.05  # of van der Waals, and of charges in Å
TINY = 1e-12
ARC = (
    -0.0012624911,
    0.0066700901,
    -0.0170881256,
    0.0308918810,
    -0.0501743046,
    0.0889789874,
    -0.2145988016,
    1.5707963050,
)

Point = tuple[Lanes, Lanes, Lanes]
Result = tuple[Lanes, list[Point]]


def bond(points: list[Point], force: Lanes, length: Lanes) -> Result:
    """The stretching of a bond."""
    apart = _minus(*points)
    d = _norm(apart)
    x = d - length
    shape = 1.0 + x * (CUBIC + 7 / 12 * CUBIC**2 * x)
    slope = force * x * (2.0 + x * (3 * CUBIC + 7 / 3 * CUBIC**2 * x))
    along = _times(slope / d, apart)
    return force * x * x * shape, [along, _negative(along)]


def angle(
    points: list[Point],
    force: Lanes,
    rest: Lanes,
    first: Lanes,
    second: Lanes,
    first_length: Lanes,
    second_length: Lanes,
) -> Result:
    """The bending of an angle and its coupling with the stretching of both bonds."""
    a, b, da, db, c, slopes = _cosine(points)
    x = _arc_cosine(c) - rest
    sine = (1.0 - c * c).call("maxnum", TINY).sqrt()
    stretched = first * (da - first_length) + second * (db - second_length)
    by_cosine = -(force * x * (2.0 + 3 * BEND * x) + stretched) / sine
    at_first = _plus(_times(by_cosine, slopes[0]), _times(first * x / da, a))
    at_second = _plus(_times(by_cosine, slopes[1]), _times(second * x / db, b))
    energy = force * x * x * (1.0 + BEND * x) + stretched * x
    return energy, [at_first, _negative(_plus(at_first, at_second)), at_second]


def linear(points: list[Point], force: Lanes) -> Result:
    """An angle that is straight at rest."""
    *_, c, slopes = _cosine(points)
    first, second = (_times(force, slope) for slope in slopes)
    return force * (1.0 + c), [first, _negative(_plus(first, second)), second]


def plane(points: list[Point], force: Lanes) -> Result:
    """How far a bond leaves the plane of two others (Wilson angle): outer atom, centre, the two others."""
    outer, centre, one, two = points
    r, p, q = _minus(outer, centre), _minus(one, centre), _minus(two, centre)
    n = _cross(p, q)
    inverse_r, inverse_n = 1.0 / _norm(r), 1.0 / _norm(n)
    sine = _dot(n, r) * inverse_r * inverse_n
    x = math.pi / 2 - _arc_cosine(sine)
    by_sine = 2.0 * force * x / (1.0 - sine * sine).call("maxnum", TINY).sqrt()
    both = by_sine * inverse_r * inverse_n
    by_r = _minus(_times(both, n), _times(by_sine * sine * inverse_r * inverse_r, r))
    by_n = _minus(_times(both, r), _times(by_sine * sine * inverse_n * inverse_n, n))
    by_p, by_q = _cross(q, by_n), _cross(by_n, p)
    return force * x * x, [by_r, _negative(_plus(by_r, _plus(by_p, by_q))), by_p, by_q]


def torsion(points: list[Point], v1: Lanes, v2: Lanes, v3: Lanes) -> Result:
    """The turning of the bond between the second and the third of four atoms."""
    i, j, k, m = points
    r1, r2, r3 = _minus(i, j), _minus(k, j), _minus(m, k)
    n1, n2 = _cross(r1, r2), _cross(r3, r2)
    inverse_1, inverse_2 = 1.0 / _norm(n1), 1.0 / _norm(n2)
    c = _dot(n1, n2) * inverse_1 * inverse_2
    energy = 0.5 * (v1 * (1.0 + c) + 2.0 * v2 * (1.0 - c * c) + v3 * (1.0 + c * (4.0 * c * c - 3.0)))
    by_cosine = 0.5 * (v1 - 4.0 * v2 * c + v3 * (12.0 * c * c - 3.0))
    both = by_cosine * inverse_1 * inverse_2
    by_1 = _minus(_times(both, n2), _times(by_cosine * c * inverse_1 * inverse_1, n1))
    by_2 = _minus(_times(both, n1), _times(by_cosine * c * inverse_2 * inverse_2, n2))
    first, last = _cross(r2, by_1), _cross(r2, by_2)
    middle = _plus(_cross(by_1, r1), _cross(by_2, r3))
    return energy, [first, _negative(_plus(first, middle)), _minus(middle, last), last]


def pair(points: list[Point], inverse_radius: Lanes, well: Lanes, charge: Lanes) -> Result:
    """Van der Waals (buffered 14-7) and charges. One division serves all reciprocals."""
    apart = _minus(*points)
    d = _norm(apart)
    q = d * inverse_radius
    q2 = q * q
    q6 = q2 * q2 * q2
    u, v, z = q + BUFFER, q6 * q + GAMMA, d + DELTA
    uv, zd = u * v, z * d
    inverse = 1.0 / (uv * zd)
    inverse_uv, inverse_zd = inverse * zd, inverse * uv
    b, c, f = inverse_uv * v, inverse_uv * u, inverse_zd * d
    a = (1.0 + BUFFER) * b
    a2 = a * a
    repulsion = well * (a2 * a2 * a2 * a)
    attraction = (1.0 + GAMMA) * c - 2.0
    energy = repulsion * attraction + charge * f
    slope = -7.0 * repulsion * (b * attraction + (1.0 + GAMMA) * c * c * q6) * inverse_radius - charge * f * f
    along = _times(slope * inverse_zd * z, apart)
    return energy, [along, _negative(along)]


def _cosine(points: list[Point]) -> tuple[Point, Point, Lanes, Lanes, Lanes, list[Point]]:
    """Both bonds of an angle, their lengths, its cosine and the slopes of that at both ends."""
    a, b = _minus(points[0], points[1]), _minus(points[2], points[1])
    da, db = _norm(a), _norm(b)
    inverse_a, inverse_b = 1.0 / da, 1.0 / db
    both = inverse_a * inverse_b
    c = (_dot(a, b) * both).call("maxnum", -1.0).call("minnum", 1.0)
    first = _minus(_times(both, b), _times(c * inverse_a * inverse_a, a))
    second = _minus(_times(both, a), _times(c * inverse_b * inverse_b, b))
    return a, b, da, db, c, [first, second]


def _arc_cosine(x: Lanes) -> Lanes:
    a = x.call("fabs")
    value = a * ARC[0] + ARC[1]
    for coefficient in ARC[2:]:
        value = value * a + coefficient
    value = value * (1.0 - a).call("maxnum", 0.0).sqrt()
    return select(x.below(0.0), math.pi - value, value)


def _norm(a: Point) -> Lanes:
    return (_dot(a, a) + TINY).sqrt()


def _dot(a: Point, b: Point) -> Lanes:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Point, b: Point) -> Point:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def _minus(a: Point, b: Point) -> Point:
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])


def _plus(a: Point, b: Point) -> Point:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def _times(factor: Lanes, a: Point) -> Point:
    return (factor * a[0], factor * a[1], factor * a[2])


def _negative(a: Point) -> Point:
    return (-a[0], -a[1], -a[2])
