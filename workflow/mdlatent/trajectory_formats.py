"""Numbers of atoms and frames of trajectories from headers and sizes, without reading the coordinates.

dcd: CHARMM/NAMD/X-PLOR layout as documented in VMD's dcdplugin; xtc and trr: GROMACS' XDR layout (xdrfile).
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mdlatent.errors import DataError


@dataclass(frozen=True)
class Layout:
    """What a trajectory file holds."""

    n_atoms: int
    n_frames: int  # complete frames
    left_over: int = 0  # behind the last complete frame, in `unit`
    unit: str = "bytes"
    claimed_frames: int | None = None  # what the header says, where it says anything


def read(path: Path, ending: str) -> Layout | None:
    """The layout of a dcd, xtc, trr, gro, xyz or lammpstrj file; None for others and for dcd with 64-bit records.

    Raises DataError if the file does not begin as its format must.
    """
    readers = {".dcd": _dcd, ".xtc": _xtc, ".trr": _trr, ".gro": _text, ".xyz": _text, ".lammpstrj": _text}
    reader = readers.get(ending)
    if reader is None:
        return None
    with open(path, "rb") as handle:
        try:
            return reader(handle, os.fstat(handle.fileno()).st_size)
        except struct.error as error:
            raise DataError("the file ends inside its header") from error


def _dcd(handle: BinaryIO, size: int) -> Layout | None:
    head = handle.read(92)
    order = next((sign for sign in "<>" if struct.unpack(sign + "i", head[:4])[0] == 84), None)
    if order is None or head[4:8] != b"CORD":
        if head[:4] in (b"\x54\0\0\0", b"\0\0\0\x54"):
            return None  # records counted in 64 bits: left to the general reader
        raise DataError("it does not begin like a dcd file")
    control = struct.unpack(order + "20i", head[8:88])
    n_fixed, is_charmm = control[8], control[19] != 0
    has_box, has_fourth = is_charmm and control[10] != 0, is_charmm and control[11] != 0
    title = struct.unpack(order + "i", handle.read(4))[0]
    handle.seek(title + 4, os.SEEK_CUR)
    record, n_atoms, _ = struct.unpack(order + "3i", handle.read(12))
    if record != 4 or n_atoms < 1:
        raise DataError(f"its header is damaged (number of atoms: {n_atoms})")
    if n_fixed:
        handle.seek(4 * (n_atoms - n_fixed) + 8, os.SEEK_CUR)
    axes = 4 if has_fourth else 3
    first = (56 if has_box else 0) + axes * (4 * n_atoms + 8)
    # Fixed atoms stand in the first frame only.
    later = first if not n_fixed else (56 if has_box else 0) + axes * (4 * (n_atoms - n_fixed) + 8)
    body = size - handle.tell()
    if body < first:
        return Layout(n_atoms, 0, body, claimed_frames=control[0])
    frames, left_over = divmod(body - first, later)
    return Layout(n_atoms, frames + 1, left_over, claimed_frames=control[0])


def _xtc(handle: BinaryIO, size: int) -> Layout:
    n_atoms, frames, at = 0, 0, 0
    while at < size:
        handle.seek(at)
        head = handle.read(96)
        if len(head) >= 4 and struct.unpack(">i", head[:4])[0] not in (1995, 2023):
            if frames == 0:
                raise DataError("it does not begin like an xtc file")
            raise DataError(f"damaged: no frame begins at byte {at:,}, behind frame {frames - 1:,}")
        if len(head) < 56:
            break
        magic, n_atoms = struct.unpack(">2i", head[:8])
        if n_atoms <= 9:  # so few are stored uncompressed
            end = at + 56 + 12 * n_atoms
        elif magic == 2023:  # from GROMACS 2023 on, for huge systems: the length has 64 bits
            end = at + 96 + _padded(struct.unpack(">q", head[88:96])[0]) if len(head) >= 96 else size + 1
        else:
            end = at + 92 + _padded(struct.unpack(">i", head[88:92])[0]) if len(head) >= 92 else size + 1
        if end > size:
            break
        at, frames = end, frames + 1
    return Layout(n_atoms, frames, size - at)


def _trr(handle: BinaryIO, size: int) -> Layout:
    n_atoms, frames, at = 0, 0, 0
    while at < size:
        handle.seek(at)
        head = handle.read(12)
        if len(head) >= 4 and struct.unpack(">i", head[:4])[0] != 1993:
            if frames == 0:
                raise DataError("it does not begin like a trr file")
            raise DataError(f"damaged: no frame begins at byte {at:,}, behind frame {frames - 1:,}")
        if len(head) < 12:
            break
        name_length = _padded(struct.unpack(">i", head[8:12])[0])
        head = handle.read(name_length + 52)[name_length:]
        if len(head) < 52:
            break
        numbers = struct.unpack(">13i", head)
        sizes, n_atoms = numbers[:10], numbers[10]
        # time and lambda are as wide as the coordinates: box 9 numbers, else 3 per atom
        width = sizes[2] // 9 if sizes[2] else max(sizes[7:10]) // max(3 * n_atoms, 1)
        end = handle.tell() + 2 * width + sum(sizes)
        if end > size:
            break
        at, frames = end, frames + 1
    return Layout(n_atoms, frames, size - at)


def _text(handle: BinaryIO, size: int) -> Layout:
    """Formats of lines: every frame has one line per atom and a fixed number of others around them."""
    ending = Path(handle.name).suffix.lower()
    line_of_count, others = {".gro": (1, 3), ".xyz": (0, 2), ".lammpstrj": (3, 9)}[ending]
    head = [handle.readline(200) for _ in range(4)]
    try:
        n_atoms = int(head[line_of_count])
    except ValueError:
        raise DataError(f"it does not begin like a {ending[1:]} file (no number of atoms)") from None
    handle.seek(max(0, size - 4096))
    tail = handle.read()
    blank = len(tail) - len(tail.rstrip())  # blank lines at the end are no frame
    handle.seek(0)
    lines = sum(chunk.count(b"\n") for chunk in iter(lambda: handle.read(1 << 20), b""))
    lines += 1 - tail[len(tail) - blank :].count(b"\n")
    return Layout(n_atoms, lines // (n_atoms + others), lines % (n_atoms + others), "lines")


def _padded(length: int) -> int:
    return (length + 3) // 4 * 4
