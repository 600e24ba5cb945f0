"""Writing DCD files (CHARMM's layout, little-endian, no box): the same frames always make the same bytes.

OpenMM's and mdtraj's writers put the date into the title, so a checksum could not tell whether two runs agree.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

AKMA_PS = 0.04888821  # CHARMM's unit of time in ps
_INT32_MAX = 2**31 - 1


def write(
    path: str | Path, chunks: Iterable[np.ndarray], n_atoms: int, n_frames: int, interval: int, time_step_ps: float
) -> None:
    """Write frames to `path`.

    `chunks` yields arrays (k, n_atoms, 3) float32 in Å, `n_frames` frames in all; the first stands at step `interval`,
    each next one `interval` steps of `time_step_ps` later. Raises ValueError if the frames are not `n_frames`.
    """
    if interval * n_frames > _INT32_MAX:  # steps are 32-bit integers: count saved frames as steps
        interval, time_step_ps = 1, time_step_ps * interval
    row = np.dtype(
        [
            field
            for axis in "xyz"
            for field in ((f"before_{axis}", "<i4"), (axis, "<f4", (n_atoms,)), (f"after_{axis}", "<i4"))
        ]
    )
    written = 0
    with open(path, "wb") as handle:
        handle.write(_header(n_atoms, n_frames, interval, time_step_ps))
        for chunk in chunks:
            rows = np.empty(len(chunk), row)
            for index, axis in enumerate("xyz"):
                rows[f"before_{axis}"] = rows[f"after_{axis}"] = 4 * n_atoms
                rows[axis] = chunk[:, :, index]
            rows.tofile(handle)
            written += len(chunk)
    if written != n_frames:
        raise ValueError(f"{path}: got {written} frames, expected {n_frames}")


def _header(n_atoms: int, n_frames: int, interval: int, time_step_ps: float) -> bytes:
    control = struct.pack("<9i", n_frames, interval, interval, interval * n_frames, 0, 0, 0, 0, 0)
    control += struct.pack("<f10i", time_step_ps / AKMA_PS, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24)  # "CHARMM version 24"
    title = struct.pack("<i80s", 1, b"Simulated by mdlatent with OpenMM".ljust(80))
    blocks = (b"CORD" + control, title, struct.pack("<i", n_atoms))
    return b"".join(struct.pack("<i", len(block)) + block + struct.pack("<i", len(block)) for block in blocks)
