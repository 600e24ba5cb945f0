"""Elements of atoms where a topology file does not name them.

Readers then guess from the atom's name and take the CA of an alanine for calcium and its HG for mercury; selections
such as `symbol != H` and the structures shown would be wrong.
"""

from typing import Any

# Residues of these elements alone, so that the first letter of an atom's name tells its element.
SYMBOLS = "HCNOPS"
ORGANIC = {
    *("ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE", "LEU", "LYS", "MET", "PHE", "PRO", "SER"),
    *("THR", "TRP", "TYR", "VAL", "HID", "HIE", "HIP", "HSD", "HSE", "HSP", "CYX", "CYM", "ASH", "GLH", "LYN"),
    *("ACE", "NME", "NMA", "NH2", "A", "C", "G", "U", "T", "DA", "DC", "DG", "DT", "RA", "RC", "RG", "RU"),
}


def mend(topology: Any) -> int:
    """Set the elements of an mdtraj topology's protein and nucleic-acid atoms; returns how many were wrong."""
    from mdtraj.core import element

    by_symbol = {symbol: element.get_by_symbol(symbol) for symbol in SYMBOLS}
    mended = 0
    for atom in topology.atoms:
        symbol = atom.name.lstrip("0123456789")[:1].upper()
        if (
            atom.residue.name in ORGANIC
            and symbol in by_symbol
            and getattr(atom.element, "symbol", "") not in (symbol, "D")
        ):
            atom.element = by_symbol[symbol]
            mended += 1
    return mended
