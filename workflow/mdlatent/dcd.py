"""Reading DCD files (CHARMM, NAMD, OpenMM): only what the other reader does not do.

A DCD that was cut short is taken by common readers for a shorter one, without a word. Here a file must end with a whole
frame and every frame must carry its record marks. Reading selected atoms is faster too, since nothing is converted
that is not kept. The layout is that of VMD's molfile plugin `dcd`.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent.errors import DataError

log = logging.getLogger("mdlatent")

BLOCK_BYTES = 2**20  # read at a time: what fits the processor's cache is picked apart faster
NM_PER_ANGSTROM = np.float32(0.1)


class DCDReader:
    """One DCD file: `n_atoms`, `n_frames`, and `read`. Raises DataError if it is not whole.

    `DCDReader.can_read(path)` is False for the rare variants (fixed atoms, 64-bit record marks, four dimensions), which
    are left to mdtraj.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        header = _header(self.path)
        if header is None:
            raise DataError(f"{path}: not a DCD file of the usual kind")
        self.n_atoms, self._first_byte, self._dtype, claimed = header
        size = self.path.stat().st_size - self._first_byte
        self.n_frames, rest = divmod(size, self._dtype.itemsize)
        if rest:
            raise DataError(
                f"{path}: frame {self.n_frames} is cut short (it has {rest} of {self._dtype.itemsize} bytes); "
                "fetch or copy the file again, or remove the broken frame"
            )
        if claimed > self.n_frames > 0:
            log.warning("%s: its header promises %d frames, it holds %d", path, claimed, self.n_frames)
        self._buffer: np.ndarray | None = None
        self._handle = open(self.path, "rb", buffering=0)  # noqa: SIM115 (closed by close)

    @staticmethod
    def can_read(path: str | Path) -> bool:
        """Whether the file is a DCD of the usual kind."""
        return _header(Path(path)) is not None

    def read(self, start: int, stop: int, stride: int, atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Frames start, start + stride … < stop: coordinates (k, len(atoms), 3) float32 nm, and cells or None.

        Cells are (k, 6) float64: three lengths in nm, three angles in degrees. Raises DataError at a damaged frame.
        """
        numbers = range(start, stop, stride)
        xyz = np.empty((len(numbers), len(atoms), 3), np.float32)
        has_cell = "cell" in (self._dtype.names or ())
        cells = np.empty((len(numbers), 6)) if has_cell else None
        fields: Any = self._dtype.fields
        places = np.asarray(atoms)[:, None] + np.array([fields[axis][1] // 4 for axis in "xyz"])
        per_block = max(1, BLOCK_BYTES // self._dtype.itemsize)
        for first in range(0, len(numbers), per_block):
            block = slice(first, min(first + per_block, len(numbers)))
            raw = self._read_raw(numbers[block])
            numbers_4_bytes = raw.view(self._dtype["x"].base).reshape(len(raw), -1)
            np.multiply(numbers_4_bytes.take(places, axis=1), NM_PER_ANGSTROM, out=xyz[block])
            if cells is not None:
                cells[block] = _cells(raw["cell"])
        return xyz, cells

    def _read_raw(self, numbers: range) -> np.ndarray:
        """Whole frames, unconverted, in a buffer that the next call fills again."""
        if self._buffer is None or len(self._buffer) < len(numbers):
            self._buffer = np.empty(len(numbers), self._dtype)
        raw = self._buffer[: len(numbers)]
        runs = [numbers] if numbers.step == 1 else [range(frame, frame + 1) for frame in numbers]
        for k, run in enumerate(runs):
            self._handle.seek(self._first_byte + run.start * self._dtype.itemsize)
            into: Any = raw[k : k + len(run)].view(np.uint8)
            if self._handle.readinto(into) != into.nbytes:
                raise DataError(f"{self.path}: ends before frame {run.stop} of {self.n_frames}; it shrank while read")
        marks = np.stack([raw[f"{side}_{axis}"] for axis in "xyz" for side in ("before", "after")])
        if (bad := (marks != 4 * self.n_atoms).any(axis=0)).any():
            raise DataError(f"{self.path}: frame {numbers[int(np.argmax(bad))]} is damaged; fetch the file again")
        return raw

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


def _cells(raw: np.ndarray) -> np.ndarray:
    """Lengths (nm) and angles (degrees) from A, gamma, B, beta, alpha, C in Å and degrees or cosines."""
    raw = raw.astype(np.float64)
    lengths = raw[:, [0, 2, 5]] * 0.1
    angles = raw[:, [4, 3, 1]]
    cosines = (np.abs(angles) <= 1).all(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        angles = np.where(cosines, 90 - np.degrees(np.arcsin(angles)), angles)
    return np.concatenate([lengths, angles], axis=1)


def _header(path: Path) -> tuple[int, int, np.dtype, int] | None:
    """(atoms, byte of the first frame, dtype of a frame, frames promised), or None for a rare variant."""
    with open(path, "rb") as handle:
        head = handle.read(92)
        if len(head) < 92:
            return None
        order = "<" if head[:4] == b"\x54\0\0\0" else ">"
        if np.frombuffer(head[:4], f"{order}i4")[0] != 84 or head[4:8] != b"CORD":
            return None
        control = np.frombuffer(head[8:88], f"{order}i4")
        charmm = control[19] != 0
        if control[8] or (charmm and control[11]):
            return None
        title = np.frombuffer(handle.read(4), f"{order}i4")
        if len(title) < 1:
            return None
        handle.seek(int(title[0]) + 4, 1)
        count = np.frombuffer(handle.read(12), f"{order}i4")
        if len(count) < 3 or count[0] != 4:
            return None
        n_atoms, first_byte = int(count[1]), handle.tell()
    fields: list[tuple] = []
    if charmm and control[10]:
        fields += [("before_cell", f"{order}i4"), ("cell", f"{order}f8", (6,)), ("after_cell", f"{order}i4")]
    for axis in "xyz":
        fields += [
            (f"before_{axis}", f"{order}i4"),
            (axis, f"{order}f4", (n_atoms,)),
            (f"after_{axis}", f"{order}i4"),
        ]
    return n_atoms, first_byte, np.dtype(fields), int(control[0])
