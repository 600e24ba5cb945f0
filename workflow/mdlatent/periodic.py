"""Molecules broken across the periodic box, put together again.

A molecule is mended along a spanning tree of its bonds: an atom is moved by the lattice vector that brings it next to
its parent in the tree. A bond d is far shorter than half of any height h of the cell, so its fractional coordinates
without the lattice vector are below |d| / h < 1/2 and rounding finds that vector exactly, in any cell, skewed or not.
Only atoms on the way from one selected atom to another are needed; all others are not even read.
"""

import itertools
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

log = logging.getLogger("mdlatent")

MIN_HEIGHT_NM = 0.6  # twice the longest bond with room to spare; smaller boxes (1 Å, zero) are dummies
MAX_NEIGHBOURS = 64  # more molecules than this are put around the largest one, not next to each other


def box_vectors(cells: np.ndarray) -> np.ndarray:
    """Box vectors (k, 3, 3) as rows from cells (k, 6): lengths a, b, c and angles alpha, beta, gamma in degrees.

    a lies along x and b in the xy plane. Cells that cannot be (zero, or angles that do not close) give NaN.
    """
    a, b, c = cells[:, :3].T.astype(np.float64)
    cosines = np.cos(np.radians(cells[:, 3:].astype(np.float64)))
    cosines[np.abs(cosines) < 1e-6] = 0.0  # right angles in single precision
    alpha, beta, gamma = cosines.T
    boxes = np.zeros((len(cells), 3, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        sine = np.sqrt(1 - gamma**2)
        boxes[:, 0, 0] = a
        boxes[:, 1, 0], boxes[:, 1, 1] = b * gamma, b * sine
        y = (alpha - beta * gamma) / sine
        boxes[:, 2, 0], boxes[:, 2, 1] = c * beta, c * y
        boxes[:, 2, 2] = c * np.sqrt(1 - beta**2 - y**2)
    return boxes


def heights_nm(boxes: np.ndarray) -> np.ndarray:
    """Distances between opposite faces of cells (..., 3, 3), vectors as rows: (..., 3), 0 for a cell of no volume."""
    boxes = np.asarray(boxes, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        areas = np.linalg.norm(np.cross(np.roll(boxes, -1, axis=-2), np.roll(boxes, -2, axis=-2)), axis=-1)
        return np.nan_to_num(np.abs(np.linalg.det(boxes))[..., None] / areas, nan=0.0, posinf=0.0)


def is_real(boxes: np.ndarray) -> np.ndarray:
    """Which cells (..., 3, 3) are real boxes and not the dummies that files carry in their place (absent, 0, 1 Å)."""
    boxes = np.asarray(boxes, np.float64)
    finite = np.isfinite(boxes).all(axis=(-2, -1))
    boxes = np.where(finite[..., None, None], boxes, 0.0)
    return (heights_nm(reduced(boxes.reshape(-1, 3, 3))) >= MIN_HEIGHT_NM).all(axis=-1).reshape(finite.shape)


def reduced(boxes: np.ndarray, rounds: int = 20) -> np.ndarray:
    """The same lattices (k, 3, 3) with short vectors, so that the nearest image is among the neighbours of a guess.

    Each vector is freed of whole multiples of the others until nothing changes; rectangular boxes stay as they are.
    """
    boxes = np.array(boxes, np.float64)
    if not boxes[:, ~np.eye(3, dtype=bool)].any():
        return boxes
    for _ in range(rounds):
        changed = False
        for i in range(3):
            for j in range(3):
                if i != j:
                    squares = (boxes[:, j] ** 2).sum(axis=-1)
                    # a hair above 1/2 counts as 1/2, or hexagonal cells would change forever
                    overlap = (boxes[:, i] * boxes[:, j]).sum(axis=-1)
                    times = np.rint(overlap / np.where(squares > 0, squares, np.inf) * (1 - 1e-5))
                    boxes[:, i] -= times[:, None] * boxes[:, j]
                    changed |= bool(times.any())
        if not changed:
            break
    return boxes


def links(topology: Any) -> np.ndarray:
    """Pairs of atoms that are near each other: all bonds, and guesses where bonds are missing: (n, 2) int64.

    Guesses: atoms of one residue that no bond reaches hang on the atom before them in the residue; residues that
    follow each other in a chain (by number) and are known to be polymer units, but not bonded, hang together. Thus
    CA-only files and residues unknown to mdtraj can be mended too.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = [(a.index, b.index) for a, b in topology.bonds]

    def molecules() -> np.ndarray:
        i, j = np.array(pairs, np.int64).reshape(-1, 2).T
        graph = coo_array((np.ones(len(i)), (i, j)), shape=(topology.n_atoms,) * 2)
        return connected_components(graph, directed=False)[1]

    label = molecules()
    guessed = set()
    for residue in topology.residues:
        atoms = [atom.index for atom in residue.atoms]
        for before, atom in itertools.pairwise(atoms):
            if label[atom] != label[before]:
                pairs.append((before, atom))
                guessed.add(str(residue))
    label = molecules()
    for chain in topology.chains:
        residues = list(chain.residues)
        for one, two in itertools.pairwise(residues):
            ends = [next((a.index for a in r.atoms if a.name in ("CA", "P", "C4'")), None) for r in (one, two)]
            follow = two.resSeq - one.resSeq == 1 and one.code is not None and two.code is not None
            if follow and None not in ends and label[ends[0]] != label[ends[1]]:
                pairs.append((ends[0], ends[1]))
                guessed.add(f"{one}–{two}")
    if guessed:
        shown = ", ".join(sorted(guessed)[:5]) + (" …" if len(guessed) > 5 else "")
        log.warning("bonds are missing in the topology; atoms are kept together by residue and chain: %s", shown)
    return np.array(pairs, np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Forest:
    """What to read and in which order to mend: trees of bonds that hold the selected atoms together.

    `read`: atoms to read (m,), ascending; `child`, `parent`: edges (e,), positions in `read`, parents before children;
    `selected`: positions in `read` of the selected atoms (n,); `molecule`: which tree each selected atom is in (n,).
    """

    read: np.ndarray
    child: np.ndarray
    parent: np.ndarray
    selected: np.ndarray
    molecule: np.ndarray


def spanning_forest(n_atoms: int, pairs: np.ndarray, selected: np.ndarray) -> Forest:
    """Trees of the links `pairs` (n, 2) that connect the `selected` atoms (ascending) of each molecule."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n_atoms, n_atoms))
    label = connected_components(graph, directed=False)[1][selected]
    _, first, molecule = np.unique(label, return_index=True, return_inverse=True)
    roots = selected[first]
    # one search from an extra atom n_atoms that is bonded to the first selected atom of every molecule
    i = np.concatenate([pairs[:, 0], np.full(len(roots), n_atoms)])
    j = np.concatenate([pairs[:, 1], roots])
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(n_atoms + 1,) * 2).tocsr()
    order, before = breadth_first_order(graph, n_atoms, directed=False, return_predecessors=True)
    needed = np.zeros(n_atoms + 1, bool)
    needed[selected] = True
    for atom in order[:0:-1]:
        if needed[atom]:
            needed[before[atom]] = True
    children = np.array([atom for atom in order[1:] if needed[atom] and before[atom] != n_atoms], np.int64)
    read = np.flatnonzero(needed[:n_atoms])
    return Forest(
        read=read,
        child=np.searchsorted(read, children),
        parent=np.searchsorted(read, before[children].astype(np.int64)),
        selected=np.searchsorted(read, selected),
        molecule=molecule.astype(np.int64),
    )


def make_whole(coordinates: np.ndarray, boxes: np.ndarray, forest: Forest) -> np.ndarray:
    """Selected atoms (k, n, 3) float32 nm of frames whose atoms `forest.read` are (k, m, 3), molecules mended.

    `boxes` (k, 3, 3) nm, vectors as rows; frames without a real box are left as they are. Several molecules are put
    next to each other: beginning with the largest, the molecule that is nearest in any image to those already placed
    is moved into that image (distances between centres). What is whole already keeps its coordinates to the bit.
    """
    from mdlatent import kernels

    real = is_real(boxes)
    boxes = reduced(np.where(real[:, None, None], boxes, np.eye(3)))
    inverse = np.linalg.inv(boxes)
    coordinates = np.array(coordinates, np.float32)
    kernels.mend(coordinates, boxes, inverse, real, forest.child, forest.parent)
    coordinates = np.ascontiguousarray(coordinates[:, forest.selected])
    sizes = np.bincount(forest.molecule)
    if len(sizes) > 1:
        anchor = int(np.argmax(sizes))
        chained = len(sizes) <= MAX_NEIGHBOURS
        kernels.gather(coordinates, boxes, inverse, real, forest.molecule, sizes, anchor, chained)
    return coordinates
