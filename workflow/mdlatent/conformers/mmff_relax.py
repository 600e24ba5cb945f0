"""Relaxation of many conformers side by side in MMFF94: L-BFGS (Liu & Nocedal 1989, doi:10.1007/BF01589116).

Sixteen conformers go in step, each with a step length of its own: where the energy has not fallen, the same direction
is tried again with a shorter one, while the others go on. Single precision: energies are off by some 1e-3 kcal/mol,
which wells are not told apart by.
"""

from __future__ import annotations

import numpy as np
from rdkit import Chem

from mdlatent.compiling import njit
from mdlatent.conformers import mmff_kernels
from mdlatent.conformers.embedding import Deadline, ForceField
from mdlatent.conformers.mmff_terms import Terms, terms
from mdlatent.errors import DataError
from mdlatent.lanes import LANES, loop, select

__all__ = ["SideBySide"]

MEMORY = 12  # pairs of steps and changes of slope
FURTHEST = np.float32(0.3)  # Å in one direction in one step
ARMIJO = np.float32(1e-4)
NOISE = np.float32(1e-6)  # of an energy, relative …
LEAST = np.float32(1e-4)  # … and in kcal/mol
ENOUGH = np.float32(0.02)  # kcal/mol/Å of the root-mean-square slope
CAUTIOUS = np.float32(0.001)  # Å² mol / kcal: the first step, against the slope
CURVED = np.float32(1e-10)  # kcal/mol: least s·y that is remembered
SHORTER, SHORTEST = np.float32(0.1), np.float32(1e-7)  # part of a step that is tried again at least; and in all
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


class SideBySide:
    """A force field of the form of MMFF94, given by its terms, of many conformers of one molecule. What comes out of
    each depends on nothing but itself. float64 of what was computed in float32. Raises DataError for conformers with
    fewer atoms than the terms name: the kernels look at no bounds."""

    def __init__(self, some_terms: Terms) -> None:
        self.terms = Terms(*map(np.ascontiguousarray, some_terms))
        self.n_atoms = 1 + max((int(atoms.max()) for atoms in some_terms[::2] if atoms.size), default=-1)

    @classmethod
    def mmff(cls, mol: Chem.Mol, variant: str = "MMFF94s") -> SideBySide:
        """MMFF94 or MMFF94s with RDKit's parameters. Raises MoleculeError where there are none."""
        return cls(terms(mol, ForceField(mol, variant).properties))

    def energies(self, coordinates_angstrom: np.ndarray) -> np.ndarray:
        """Energies (B,) in kcal/mol of conformers (B, n_atoms, 3)."""
        x, energies = self._blocks(coordinates_angstrom)
        slopes = np.empty(x[0].size if len(x) else 0, np.float32)
        for block, energy in zip(x, energies, strict=True):
            mmff_kernels.energy(block.reshape(-1), self.terms, energy, slopes)
        return energies.reshape(-1)[: len(coordinates_angstrom)].astype(np.float64)

    def relax(
        self, coordinates_angstrom: np.ndarray, max_steps: int, deadline: Deadline | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Conformers (B, n_atoms, 3) after at most so many evaluations of the energy, and their energies (B,)."""
        n, n_atoms, _ = coordinates_angstrom.shape
        x, energies = self._blocks(coordinates_angstrom)
        for block, energy in zip(x, energies, strict=True):
            if deadline:
                deadline.check("relaxation")
            _relax(block.reshape(-1), self.terms, max_steps, energy)
        found = x.transpose(0, 2, 1).reshape(-1, n_atoms, 3)[:n].astype(np.float64, order="C")
        return found, energies.reshape(-1)[:n].astype(np.float64)

    def _blocks(self, coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates as the kernels take them, (blocks, 3 n_atoms, LANES), the last filled up; room for energies."""
        n, n_atoms, _ = coordinates.shape
        if n_atoms < self.n_atoms:
            raise DataError(
                f"got conformers of {n_atoms} atoms, expected {self.n_atoms}, as the force field's molecule has"
            )
        blocks = -(-n // LANES)
        filled = coordinates[np.minimum(np.arange(blocks * LANES), max(0, n - 1))]
        x = filled.reshape(blocks, LANES, 3 * n_atoms).transpose(0, 2, 1).astype(np.float32, order="C")
        return x, np.empty((blocks, LANES), np.float32)


def _dot_formula(arrays, _):
    a, b = arrays
    return (None, None), (a * b,)


def _add_formula(arrays, vectors):
    a, b = arrays
    return (a + vectors[0] * b, None), ()


def _scale_formula(arrays, vectors):
    """a = factor b."""
    return (vectors[0] * arrays[1], None), ()


def _choose_formula(arrays, vectors):
    """p: the new direction where it is wanted, a little downhill where that is, else as it was; its largest part."""
    p, new, g = arrays
    wanted, plain = vectors
    p = select(wanted.true(), new, select(plain.true(), g * -float(CAUTIOUS), p))
    return (p, None, None), (p.call("fabs"),)


def _try_formula(arrays, vectors):
    x, p, _ = arrays
    return (None, None, x + vectors[0] * p), ()


def _accept_formula(arrays, vectors):
    """Take new x and g where the conformer moves; what that adds to the memory, and s·y and y·y."""
    x, g, new_x, new_g, _, _ = arrays
    moves = vectors[0].true()
    zero = x * 0.0
    s, y = select(moves, new_x - x, zero), select(moves, new_g - g, zero)
    return (select(moves, new_x, x), select(moves, new_g, g), None, None, s, y), (s * y, y * y)


_dot = loop(_dot_formula, ("add",))
_add = loop(_add_formula)
_scale = loop(_scale_formula)
_choose = loop(_choose_formula, ("largest",))
_try = loop(_try_formula)
_accept = loop(_accept_formula, ("add", "add"))


@njit(cache=True)
def _direction(g, s, y, rho, newest, count, gamma, alpha, dots, p):
    """p = −H g by the last `count` pairs of steps and changes of slope."""
    minus = np.full(LANES, -ONE)
    _scale((p, g), (minus,), ())
    for back in range(count):
        slot = (newest - back) % MEMORY
        _dot((s[slot], p), (), (dots,))
        for w in range(LANES):
            alpha[slot, w] = rho[slot, w] * dots[w]
            dots[w] = -alpha[slot, w]
        _add((p, y[slot]), (dots,), ())
    _scale((p, p), (gamma,), ())
    for back in range(count - 1, -1, -1):
        slot = (newest - back) % MEMORY
        _dot((y[slot], p), (), (dots,))
        for w in range(LANES):
            dots[w] = alpha[slot, w] - rho[slot, w] * dots[w]
        _add((p, s[slot]), (dots,), ())


@njit(cache=True)
def _relax(x, terms, max_steps, e):
    """Relax one block (3 n_atoms LANES,) in place; energies go into e (LANES,)."""
    size = len(x)
    g, new_g, new_x, p, new_p = (
        np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32),
        np.zeros(size, np.float32), np.empty(size, np.float32),
    )  # fmt: skip
    s, y = np.zeros((MEMORY, size), np.float32), np.zeros((MEMORY, size), np.float32)
    rho, alpha = np.zeros((MEMORY, LANES), np.float32), np.zeros((MEMORY, LANES), np.float32)
    new_e, dots, square, slope, furthest, sy, yy, moves, wanted, plain = np.zeros((10, LANES), np.float32)
    gamma, length = np.full(LANES, CAUTIOUS), np.zeros(LANES, np.float32)
    moves[:] = ONE
    mmff_kernels.energy(x, terms, e, g)
    for step in range(max_steps - 1):
        slot = step % MEMORY
        _direction(g, s, y, rho, (step - 1) % MEMORY, min(step, MEMORY), gamma, alpha, dots, new_p)
        _dot((g, new_p), (), (dots,))
        _dot((g, g), (), (square,))
        for w in range(LANES):
            downhill = dots[w] < ZERO
            wanted[w] = ONE if moves[w] > ZERO and downhill else ZERO
            plain[w] = ONE if moves[w] > ZERO and not downhill else ZERO
        _choose((p, new_p, g), (wanted, plain), (furthest,))
        going = False
        for w in range(LANES):
            if moves[w] > ZERO:
                slope[w] = dots[w] if wanted[w] > ZERO else -square[w] * CAUTIOUS
                length[w] = min(ONE, FURTHEST / furthest[w]) if furthest[w] > ZERO else ZERO
                if np.sqrt(square[w] * LANES / size) < ENOUGH:
                    length[w] = ZERO
            going |= length[w] > ZERO
        if not going:
            break
        _try((x, p, new_x), (length,), ())
        mmff_kernels.energy(new_x, terms, new_e, new_g)
        for w in range(LANES):
            allowed = e[w] + ARMIJO * length[w] * slope[w] + NOISE * abs(e[w]) + LEAST
            moves[w] = ONE if length[w] > ZERO and new_e[w] <= allowed else ZERO
        _accept((x, g, new_x, new_g, s[slot], y[slot]), (moves,), (sy, yy))
        for w in range(LANES):
            rho[slot, w] = ZERO
            if moves[w] > ZERO:
                e[w] = new_e[w]
                if sy[w] > CURVED:
                    rho[slot, w] = ONE / sy[w]
                    gamma[w] = sy[w] / yy[w]
            elif length[w] > ZERO:
                bend = new_e[w] - e[w] - slope[w] * length[w]
                part = -HALF * slope[w] * length[w] / bend if bend > ZERO else SHORTER
                length[w] *= max(SHORTER, min(HALF, part))
                if length[w] < SHORTEST:
                    length[w] = ZERO
