"""Ideal geometry of the 20 amino acids and the caps: heavy atoms placed one after the other.

Each atom is placed by its bond length, bond angle and dihedral to three atoms that stand already (the "natural
extension reference frame": Parsons et al., J. Comput. Chem. 26, 1063 (2005), doi:10.1002/jcc.20237). Lengths and angles
are the usual crystallographic averages (Engh & Huber, Acta Cryst. A 47, 392 (1991)), rounded: the force field has the
last word, for the structure is minimised before it is used. What minimisation cannot mend is right here: L amino acids,
the second chiral centres of Ile and Thr, trans peptide bonds, and no rings threaded by another chain.
"""

import numpy as np

# One row per side-chain atom: (atom, its dihedral atom, its angle atom, the atom it is bound to,
#                               bond length in Å, bond angle in degrees, dihedral in degrees)
Row = tuple[str, str, str, str, float, float, float]

THREE_LETTERS = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU", "G": "GLY", "H": "HIS",
    "I": "ILE", "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE", "P": "PRO", "S": "SER", "T": "THR", "W": "TRP",
    "Y": "TYR", "V": "VAL",
}  # fmt: skip

_CB: Row = ("CB", "N", "C", "CA", 1.53, 110.1, 122.6)  # + is the L amino acid, − would be its mirror image
_PHENYL: list[Row] = [
    ("CG", "N", "CA", "CB", 1.50, 113.8, -60.0),
    ("CD1", "CA", "CB", "CG", 1.39, 120.0, 90.0),
    ("CD2", "CA", "CB", "CG", 1.39, 120.0, -90.0),
    ("CE1", "CB", "CG", "CD1", 1.39, 120.0, 180.0),
    ("CE2", "CB", "CG", "CD2", 1.39, 120.0, 180.0),
    ("CZ", "CG", "CD1", "CE1", 1.39, 120.0, 0.0),
]

SIDE_CHAINS: dict[str, list[Row]] = {
    "GLY": [],
    "ALA": [_CB],
    "SER": [_CB, ("OG", "N", "CA", "CB", 1.42, 110.8, -60.0)],
    "CYS": [_CB, ("SG", "N", "CA", "CB", 1.81, 113.8, -60.0)],
    "VAL": [
        _CB,
        ("CG1", "N", "CA", "CB", 1.53, 110.5, 175.0),
        ("CG2", "N", "CA", "CB", 1.53, 110.5, -62.0),
    ],
    "THR": [  # OG1 and CG2 in this order around CB: (2S,3R)
        _CB,
        ("OG1", "N", "CA", "CB", 1.43, 109.6, -60.0),
        ("CG2", "N", "CA", "CB", 1.53, 111.1, 180.0),
    ],
    "ILE": [  # CG1 and CG2 in this order around CB: (2S,3S)
        _CB,
        ("CG1", "N", "CA", "CB", 1.53, 110.7, -60.0),
        ("CG2", "N", "CA", "CB", 1.53, 110.4, 180.0),
        ("CD1", "CA", "CB", "CG1", 1.52, 114.0, 170.0),
    ],
    "LEU": [
        _CB,
        ("CG", "N", "CA", "CB", 1.53, 116.1, -60.0),
        ("CD1", "CA", "CB", "CG", 1.52, 110.3, 175.0),
        ("CD2", "CA", "CB", "CG", 1.52, 110.6, -63.0),
    ],
    "MET": [
        _CB,
        ("CG", "N", "CA", "CB", 1.52, 113.7, -60.0),
        ("SD", "CA", "CB", "CG", 1.81, 112.7, 180.0),
        ("CE", "CB", "CG", "SD", 1.79, 100.6, 180.0),
    ],
    "PRO": [  # the ring closes from CD to N
        ("CB", "N", "C", "CA", 1.53, 111.4, 115.3),
        ("CG", "N", "CA", "CB", 1.49, 104.2, 29.6),
        ("CD", "CA", "CB", "CG", 1.50, 105.0, -34.9),
    ],
    "ASP": [
        _CB,
        ("CG", "N", "CA", "CB", 1.52, 113.1, -60.0),
        ("OD1", "CA", "CB", "CG", 1.25, 119.2, 0.0),
        ("OD2", "CA", "CB", "CG", 1.25, 118.2, 180.0),
    ],
    "ASN": [
        _CB,
        ("CG", "N", "CA", "CB", 1.52, 112.6, -60.0),
        ("OD1", "CA", "CB", "CG", 1.23, 120.9, 0.0),
        ("ND2", "CA", "CB", "CG", 1.33, 116.5, 180.0),
    ],
    "GLU": [
        _CB,
        ("CG", "N", "CA", "CB", 1.52, 113.8, -60.0),
        ("CD", "CA", "CB", "CG", 1.52, 113.3, 180.0),
        ("OE1", "CB", "CG", "CD", 1.25, 119.0, 0.0),
        ("OE2", "CB", "CG", "CD", 1.25, 118.1, 180.0),
    ],
    "GLN": [
        _CB,
        ("CG", "N", "CA", "CB", 1.52, 113.8, -60.0),
        ("CD", "CA", "CB", "CG", 1.52, 112.8, 180.0),
        ("OE1", "CB", "CG", "CD", 1.23, 120.9, 0.0),
        ("NE2", "CB", "CG", "CD", 1.33, 116.5, 180.0),
    ],
    "LYS": [
        _CB,
        ("CG", "N", "CA", "CB", 1.52, 113.8, -60.0),
        ("CD", "CA", "CB", "CG", 1.52, 111.8, 180.0),
        ("CE", "CB", "CG", "CD", 1.52, 111.7, 180.0),
        ("NZ", "CG", "CD", "CE", 1.49, 111.9, 180.0),
    ],
    "ARG": [
        _CB,
        ("CG", "N", "CA", "CB", 1.52, 113.8, -60.0),
        ("CD", "CA", "CB", "CG", 1.52, 111.8, 180.0),
        ("NE", "CB", "CG", "CD", 1.46, 111.7, 180.0),
        ("CZ", "CG", "CD", "NE", 1.33, 124.8, 180.0),
        ("NH1", "CD", "NE", "CZ", 1.33, 120.6, 0.0),
        ("NH2", "CD", "NE", "CZ", 1.33, 119.6, 180.0),
    ],
    "HIS": [
        _CB,
        ("CG", "N", "CA", "CB", 1.50, 113.7, -60.0),
        ("ND1", "CA", "CB", "CG", 1.38, 122.7, -70.0),
        ("CD2", "CA", "CB", "CG", 1.36, 131.0, 110.0),
        ("CE1", "CB", "CG", "ND1", 1.33, 109.0, 180.0),
        ("NE2", "CB", "CG", "CD2", 1.37, 107.2, 180.0),
    ],
    "PHE": [_CB, *_PHENYL],
    "TYR": [_CB, *_PHENYL, ("OH", "CD1", "CE1", "CZ", 1.38, 119.9, 180.0)],
    "TRP": [
        _CB,
        ("CG", "N", "CA", "CB", 1.50, 113.6, -60.0),
        ("CD1", "CA", "CB", "CG", 1.37, 126.9, 90.0),
        ("CD2", "CA", "CB", "CG", 1.43, 126.8, -90.0),
        ("NE1", "CB", "CG", "CD1", 1.37, 110.2, 180.0),
        ("CE2", "CB", "CG", "CD2", 1.41, 107.2, 180.0),
        ("CE3", "CB", "CG", "CD2", 1.40, 133.9, 0.0),
        ("CZ2", "CG", "CD2", "CE2", 1.39, 122.4, 180.0),
        ("CZ3", "CG", "CD2", "CE3", 1.38, 118.6, 180.0),
        ("CH2", "CD2", "CE2", "CZ2", 1.37, 117.5, 0.0),
    ],
}

# Extended chain (β region); proline's ring allows only φ near −65.
PHI, PHI_PROLINE, PSI, OMEGA = -135.0, -65.0, 140.0, 180.0


def place(a: np.ndarray, b: np.ndarray, c: np.ndarray, length: float, angle: float, dihedral: float) -> np.ndarray:
    """Position d with |cd| = `length` (Å), the angle b-c-d and the dihedral a-b-c-d (degrees). Shapes (3,) float64."""
    theta, phi = np.radians(angle), np.radians(dihedral)
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    local = np.array([-np.cos(theta), np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi)])
    return c + length * (local[0] * axis + local[1] * np.cross(normal, axis) + local[2] * normal)


def backbone(residues: list[str]) -> list[dict[str, np.ndarray]]:
    """Backbone positions (Å) of an extended chain: per residue N, CA, C (ACE: CH3, C; NME: N, C; NH2: N).

    `residues` are three-letter names, with ACE only first and NME or NH2 only last.
    """
    slots: list[tuple[int, str, str]] = []  # residue, atom's name, its part in the chain: N, CA or C
    for i, name in enumerate(residues):
        parts = {"ACE": [("CH3", "CA"), ("C", "C")], "NME": [("N", "N"), ("C", "CA")], "NH2": [("N", "N")]}
        slots += [(i, atom, part) for atom, part in parts.get(name, [("N", "N"), ("CA", "CA"), ("C", "C")])]
    length = {"N": 1.33, "CA": 1.46, "C": 1.525}  # to the atom before: C-N, N-CA, CA-C
    angle = {"N": 116.6, "CA": 121.7, "C": 111.0}  # at the atom before: CA-C-N, C-N-CA, N-CA-C
    points: list[np.ndarray] = []
    positions: list[dict[str, np.ndarray]] = [{} for _ in residues]
    for k, (i, atom, part) in enumerate(slots):
        if k == 0:
            point = np.zeros(3)
        elif k == 1:
            point = np.array([length[part], 0.0, 0.0])
        else:
            # The dihedral that ends at N is ψ, at CA ω, at C φ of the residue it belongs to.
            phi = PHI_PROLINE if residues[i] == "PRO" else PHI
            dihedral = {"N": PSI, "CA": OMEGA, "C": phi}[part]
            before = points[k - 3] if k > 2 else np.array([0.0, 1.0, 0.0])  # any plane serves for the third atom
            point = place(before, points[k - 2], points[k - 1], length[part], angle[part], dihedral)
        points.append(point)
        positions[i][atom] = point
    return positions


def heavy_atoms(residues: list[str]) -> list[dict[str, np.ndarray]]:
    """Positions (Å, shape (3,)) of all heavy atoms by name, per residue, of an extended chain of `residues`."""
    chain = backbone(residues)
    for i, name in enumerate(residues):
        atoms = chain[i]
        for atom, a, b, c, length, angle, dihedral in SIDE_CHAINS.get(name, []):
            atoms[atom] = place(atoms[a], atoms[b], atoms[c], length, angle, dihedral)
        if name in ("NME", "NH2"):
            continue
        if i + 1 < len(residues):
            following = chain[i + 1]
            if "CA" in following or residues[i + 1] == "NME":  # O is cis to the next CA (trans peptide bond)
                next_ca = following["CA"] if "CA" in following else following["C"]
                atoms["O"] = place(next_ca, following["N"], atoms["C"], 1.23, 123.0, 0.0)
            else:  # NH2: opposite to its nitrogen
                atoms["O"] = place(atoms["N"], atoms["CA"], atoms["C"], 1.23, 120.4, PSI + 180.0)
        else:
            atoms["O"] = place(atoms["N"], atoms["CA"], atoms["C"], 1.25, 118.0, PSI + 180.0)
            atoms["OXT"] = place(atoms["N"], atoms["CA"], atoms["C"], 1.25, 118.0, PSI)
    return chain
