"""A peptide from its sequence alone: what the sequence means, and a start structure with all its hydrogens.

A sequence is one-letter (`NLYIQWLKDGGPSSGRPPPS`), or tokens joined by `-`: residue names (`ALA`), caps (ACE first, NME
or NH2 last) and stretches of one-letter codes, freely mixed: `ACE-ALA-NME`, `ACE-NLYIQ-NH2`. Without caps the ends are
charged (NH3+, COO−). Protonation is that of pH 7 with histidine neutral (on NE2); other states have names of their own:
ASH, GLH, LYN, HID, HIE, HIP. Cysteines are reduced.
"""

import random
from typing import TYPE_CHECKING

import numpy as np

from mdlatent import peptide_geometry
from mdlatent.errors import ConfigError

if TYPE_CHECKING:
    from openmm import app

N_CAPS = ("ACE",)
C_CAPS = ("NME", "NH2")
CAPS = N_CAPS + C_CAPS
MAX_RESIDUES = 1000  # beyond that a chain drawn out straight is no start for anything

# Named protonation states: the residue in the topology, and the variant that OpenMM's Modeller makes of it.
PROTONATION = {
    "ASH": ("ASP", "ASH"), "GLH": ("GLU", "GLH"), "LYN": ("LYS", "LYN"),
    "HID": ("HIS", "HID"), "HIE": ("HIS", "HIE"), "HIP": ("HIS", "HIP"), "HIS": ("HIS", "HIE"),
}  # fmt: skip
_NAMES = set(peptide_geometry.SIDE_CHAINS) | set(PROTONATION) | set(CAPS)


def parse(sequence: str) -> list[str]:
    """Residue names of a sequence, caps included: `ACE-AG-NME` → [ACE, ALA, GLY, NME].

    Raises ConfigError where a letter or name is unknown, a cap stands at the wrong end, or nothing can be built.
    """
    tokens = [token.strip() for token in sequence.strip().split("-")]
    if not any(tokens):
        raise _wrong(sequence, "it is empty; write a sequence such as 'ACE-ALA-NME' or 'NLYIQWLKDGGPSSGRPPPS'")
    if len(tokens) == 1 and tokens[0] in _NAMES and set(tokens[0]) <= set(peptide_geometry.THREE_LETTERS):
        spelt = "-".join(tokens[0])
        raise _wrong(
            sequence,
            f"it is both the name of one residue and a sequence of three; write {spelt!r} for the sequence, or "
            f"'ACE-{tokens[0]}-NME' for the residue between caps",
        )
    residues: list[str] = []
    for token in tokens:
        if not token:
            raise _wrong(sequence, "there is nothing between two '-', or at an end of it; remove the '-'")
        residues += [token] if token in _NAMES else _letters(token, sequence)
    _check_ends(residues, sequence)
    return residues


def _letters(token: str, sequence: str) -> list[str]:
    codes = peptide_geometry.THREE_LETTERS
    unknown = next((letter for letter in token if letter not in codes), None)
    if unknown is None:
        return [codes[letter] for letter in token]
    if len(token) in (3, 4) and "-" in sequence:
        hint = f"; did you mean {token.upper()!r}?" if token.upper() in _NAMES else "."
        raise _wrong(
            sequence,
            f"{token!r} is neither a residue or cap nor a stretch of one-letter codes{hint} Known are the 20 amino "
            f"acids, {', '.join(sorted(set(PROTONATION) - {'HIS'}))} and the caps {', '.join(CAPS)}, in capitals",
        )
    if unknown.upper() in codes:
        raise _wrong(sequence, f"{unknown!r} is a small letter; write L amino acids in capitals (there are no D ones)")
    raise _wrong(sequence, f"{unknown!r} is no amino acid; the one-letter codes are {' '.join(sorted(codes))}")


def _check_ends(residues: list[str], sequence: str) -> None:
    if any(name in N_CAPS for name in residues[1:]):
        raise _wrong(sequence, "the cap ACE closes the first end and can only stand first")
    if any(name in C_CAPS for name in residues[:-1]):
        cap = next(name for name in residues[:-1] if name in C_CAPS)
        raise _wrong(sequence, f"the cap {cap} closes the last end and can only stand last")
    n_amino_acids = sum(name not in CAPS for name in residues)
    if n_amino_acids == 0:
        raise _wrong(sequence, "there is no amino acid between the caps; add at least one")
    if len(residues) == 1:
        raise _wrong(
            sequence, f"a single amino acid with two free ends is in no force field; cap it: 'ACE-{residues[0]}-NME'"
        )
    if n_amino_acids > MAX_RESIDUES:
        raise _wrong(
            sequence,
            f"it has {n_amino_acids} residues, expected at most {MAX_RESIDUES}; a start structure drawn out "
            "straight is no use for a chain that long",
        )


def _wrong(sequence: str, what: str) -> ConfigError:
    shown = sequence if len(sequence) <= 60 else sequence[:57] + "…"
    return ConfigError(f"simulate: got the sequence {shown!r}: {what}")


def build(residues: list[str]) -> "tuple[app.Topology, np.ndarray]":
    """Topology and start positions, shape (atoms, 3) float64 nm, of an extended chain with all hydrogens.

    `residues` as from `parse`. Same residues, same positions: nothing here is left to chance.
    """
    import openmm
    from openmm import app, unit

    topology, positions_nm = _heavy_topology(residues)
    variants = [PROTONATION[name][1] if name in PROTONATION else None for name in residues]
    modeller = app.Modeller(topology, [openmm.Vec3(*row) for row in positions_nm] * unit.nanometer)
    state = random.getstate()
    random.seed(0)  # Modeller places hydrogens at random around their atom before it minimises them
    try:
        # Without a force field Modeller uses its own simple one: the same start for every force field, and quickly.
        modeller.addHydrogens(variants=variants, platform=openmm.Platform.getPlatformByName("Reference"))
    finally:
        random.setstate(state)
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer), np.float64).reshape(-1, 3)
    return modeller.topology, positions


def _heavy_topology(residues: list[str]) -> "tuple[app.Topology, np.ndarray]":
    """Topology of the heavy atoms with its bonds, and their positions in nm."""
    from openmm import app

    topology = app.Topology()
    chain = topology.addChain("A")
    positions = []
    for i, atoms in enumerate(peptide_geometry.heavy_atoms([_plain(name) for name in residues])):
        residue = topology.addResidue(_plain(residues[i]), chain, str(i + 1))
        for name, position in atoms.items():
            topology.addAtom(name, app.Element.getBySymbol(name[0]), residue)
            positions.append(position / 10)
    topology.createStandardBonds()
    return topology, np.array(positions)


def _plain(name: str) -> str:
    return PROTONATION[name][0] if name in PROTONATION else name
