"""Trajectory files in chunks: coordinates in nm, times in ps and box vectors, never more than a chunk in memory."""

import contextlib
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import elements
from mdlatent.dcd import DCDReader
from mdlatent.errors import DataError
from mdlatent.periodic import box_vectors
from mdlatent.xtc import XTCReader

log = logging.getLogger("mdlatent")

CHUNK_FRAMES = 256
CHUNK_BYTES = 64 * 2**20  # large systems are read in fewer frames at a time
WITH_TIME = {".xtc", ".trr", ".nc", ".netcdf", ".h5", ".hdf5", ".dtr", ".stk", ".gro"}
WHOLE_ONLY = {".pdb", ".ent", ".cif", ".pdbx", ".gz", ".bz2"}  # formats that mdtraj reads in one piece only
NEEDS_ATOMS = {".crd", ".mdcrd"}
HDF5 = {".h5", ".hdf5"}


@dataclass
class Chunk:
    """Consecutive read frames: numbers in the file, coordinates (k, atoms, 3) float32 nm, times (k,) ps, boxes.

    `boxes` are (k, 3, 3) float64 nm with the vectors as rows, or None where the file has none.
    """

    frames: np.ndarray
    coordinates: np.ndarray
    times_ps: np.ndarray
    boxes: np.ndarray | None


class Trajectory:
    """One trajectory file read for a topology. Raises DataError if they do not fit or the file is damaged."""

    def __init__(self, path: str | Path, topology: Any, topology_path: str | Path = "the topology"):
        self.path, self.topology = Path(path), topology
        if not self.path.exists():
            raise DataError(f"{path}: there is no such trajectory file")
        self._dcd = DCDReader(self.path) if self._suffix == ".dcd" and DCDReader.can_read(self.path) else None
        self._xtc = self._suffix == ".xtc" and XTCReader.can_read(self.path)
        found = self._dcd.n_atoms if self._dcd else self._count_atoms()
        if found != topology.n_atoms:
            raise DataError(
                f"{path} has {found} atoms per frame, {topology_path} has {topology.n_atoms}; "
                "give the topology of exactly the atoms in the trajectory"
            )

    @property
    def _suffix(self) -> str:
        return self.path.suffix.lower()

    def first_box(self) -> np.ndarray | None:
        """Box vectors (3, 3) nm of the first frame, or None."""
        chunk = next(self.chunks(np.array([0]), stop=1), None)
        return None if chunk is None or chunk.boxes is None else chunk.boxes[0]

    def count_frames(self) -> int:
        """Number of frames in the file; formats that do not tell it are read through once."""
        if self._dcd:
            return self._dcd.n_frames
        with self._open() as file:
            total = _length(file)
        return sum(len(c.frames) for c in self.chunks(np.array([0]))) if total is None else total

    def chunks(self, atoms: np.ndarray, stride: int = 1, stop: int | None = None) -> Iterator[Chunk]:
        """Every `stride`-th frame (before frame `stop`), of the given atoms only, in chunks of bounded size.

        The number of frames in the file is in `n_frames` when the last chunk has been read.
        Raises DataError naming the frame at which a damaged or shortened file fails.
        """
        self.n_frames = 0
        size = int(np.clip(CHUNK_BYTES // (12 * self.topology.n_atoms), 1, CHUNK_FRAMES))
        if self._dcd:
            yield from self._chunks_dcd(self._dcd, atoms, stride, stop, size)
        elif self._xtc and stop is None:  # a frame alone is left to mdtraj: numba takes a second to start
            yield from self._chunks_xtc(atoms, stride, size)
        else:
            yield from self._chunks_mdtraj(atoms, stride, stop, size)

    def _chunks_dcd(
        self, dcd: DCDReader, atoms: np.ndarray, stride: int, stop: int | None, size: int
    ) -> Iterator[Chunk]:
        self.n_frames = dcd.n_frames
        end = dcd.n_frames if stop is None else min(stop, dcd.n_frames)
        for start in range(0, end, size * stride):
            last = min(start + size * stride, end)
            xyz, cells = dcd.read(start, last, stride, atoms)
            frames = np.arange(start, last, stride)
            boxes = None if cells is None else box_vectors(cells)
            yield Chunk(frames, xyz, np.full(len(frames), np.nan), boxes)

    def _chunks_xtc(self, atoms: np.ndarray, stride: int, size: int) -> Iterator[Chunk]:
        with contextlib.closing(XTCReader(self.path)) as xtc:
            for start in itertools.count(0, size * stride):
                xyz, times, boxes = xtc.read(size, stride, atoms)
                self.n_frames = xtc.n_frames
                if not len(xyz):
                    return
                frames = start + stride * np.arange(len(xyz))
                yield Chunk(frames, xyz, times.astype(np.float64), boxes.astype(np.float64) if boxes.any() else None)

    def _chunks_mdtraj(self, atoms: np.ndarray, stride: int, stop: int | None, size: int) -> Iterator[Chunk]:
        """Read with mdtraj, but not with its stride: the reader of trr then breaks the process's memory."""
        frame = 0
        with self._open() as file:
            total = _length(file)
            while stop is None or frame < stop:
                wanted = min([size, *(end - frame for end in (total, stop) if end is not None)])
                if wanted <= 0:
                    break
                try:
                    part = self._read(file, wanted, atoms)
                except Exception as error:
                    self._raise_at(frame, total, error)
                if len(part) == 0:
                    break
                numbers = frame + np.arange(len(part))
                frame += len(part)
                keep = numbers % stride == 0
                times = part.time if self._suffix in WITH_TIME else np.full(len(part), np.nan)
                boxes = _boxes(part)
                if keep.any():
                    times = np.asarray(times, np.float64)[keep]
                    xyz = part.xyz if keep.all() else part.xyz[keep]
                    boxes = None if boxes is None else boxes[keep]
                    yield Chunk(numbers[keep], xyz.astype(np.float32, copy=False), times, boxes)
        self.n_frames = frame if total is None else total
        if total is not None and stop is None and frame < total:
            raise DataError(f"{self.path}: ends at frame {frame} of {total}; the file is cut short, fetch it again")
        if self._suffix == ".xyz" and stop is None and _n_lines(self.path) > frame * (self.topology.n_atoms + 2):
            raise DataError(f"{self.path}: frame {frame} is not whole; the file is cut short, fetch it again")

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        import mdtraj

        if self._suffix in WHOLE_ONLY:
            yield _Whole(self._loaded)
            return
        extra = {"n_atoms": self.topology.n_atoms} if self._suffix in NEEDS_ATOMS else {}
        try:
            file = mdtraj.open(str(self.path), **extra)
        except Exception as error:
            raise DataError(f"{self.path}: cannot be read as a trajectory ({_text(error)})") from error
        with file:
            yield file

    def _read(self, file: Any, n_frames: int, atoms: np.ndarray) -> Any:
        if isinstance(file, _Whole):
            return file.read(n_frames, atoms)
        if self._suffix in HDF5:
            return _Frames(file.read(n_frames=n_frames, atom_indices=atoms))
        before = {".gro": (), ".lammpstrj": (self.topology,)}.get(self._suffix, (_NoTopology(),))
        return file.read_as_traj(*before, n_frames=n_frames, atom_indices=atoms)

    @cached_property
    def _loaded(self) -> Any:
        """The whole file, in the formats that are read in one piece only: once, for that is what takes the time."""
        import mdtraj

        try:
            return mdtraj.load(str(self.path))
        except Exception as error:
            raise DataError(f"{self.path}: cannot be read as a trajectory ({_text(error)})") from error

    def _count_atoms(self) -> int:
        if self._suffix in WHOLE_ONLY:
            return self._loaded.n_atoms
        with self._open() as file:
            try:
                first = file.read(1)
            except Exception as error:
                self._raise_at(0, None, error)
            first = first if isinstance(first, np.ndarray) else first[0]
            if len(first) == 0:
                raise DataError(f"{self.path}: has no frames; give a trajectory with at least two")
            return first.shape[1]

    def _raise_at(self, frame: int, total: int | None, error: Exception) -> None:
        """Say at which frame reading fails: go on one by one from `frame`, the first of the chunk that failed."""
        try:
            with self._open() as file:
                file.seek(frame)
                while len(self._read(file, 1, np.array([0]))):
                    frame += 1
        except Exception as again:
            error = again
        of = f" of {total}" if total else ""
        raise DataError(
            f"{self.path}: frame {frame}{of} cannot be read ({_text(error)}); the file is cut short or damaged, "
            "fetch it again or remove the broken frame"
        ) from error


class _NoTopology:
    """Given to mdtraj's readers, which in every chunk cut one down to the selected atoms: a fifth of the time."""

    def subset(self, _: np.ndarray) -> None:
        return None


class _Frames:
    """What the reader of mdtraj's own format gives, with the names of a trajectory."""

    def __init__(self, found: Any):
        self.xyz = found.coordinates
        self.time = np.full(len(self.xyz), np.nan) if found.time is None else found.time
        self.unitcell_lengths, self.unitcell_angles = found.cell_lengths, found.cell_angles

    def __len__(self) -> int:
        return len(self.xyz)


def _boxes(part: Any) -> np.ndarray | None:
    """Box vectors (k, 3, 3) nm of what was read, None where there are none."""
    if part.unitcell_lengths is None or part.unitcell_angles is None:
        return None
    return box_vectors(np.concatenate([part.unitcell_lengths, part.unitcell_angles], axis=1))


class _Whole:
    """A file that was read in one piece, served like the others."""

    def __init__(self, trajectory: Any):
        self._trajectory, self._next = trajectory, 0

    def __len__(self) -> int:
        return len(self._trajectory)

    def read(self, n_frames: int, atoms: np.ndarray) -> Any:
        part = self._trajectory[self._next : self._next + n_frames]
        self._next += len(part)
        return part.atom_slice(atoms)


def _length(file: Any) -> int | None:
    """Number of frames if the format tells it."""
    try:
        return len(file)
    except (NotImplementedError, TypeError):
        return None


def _n_lines(path: Path) -> int:
    """Lines of a text file up to the last that is not blank (mdtraj drops an unfinished xyz frame without a word)."""
    lines = last = 0
    with open(path, "rb") as handle:
        for line in handle:
            lines += 1
            if line.strip():
                last = lines
    return last


def _text(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def load_topology(path: str | Path) -> Any:
    """The mdtraj topology in a file, with bonds where the format or the residues tell them.

    Raises DataError if it cannot be read.
    """
    import mdtraj

    if not Path(path).exists():
        raise DataError(f"{path}: there is no such topology file")
    try:
        topology = mdtraj.load_topology(str(path))
    except Exception as error:
        raise DataError(f"{path}: cannot be read as a topology ({_text(error)})") from error
    elements.mend(topology)
    if topology.n_bonds == 0:
        topology.create_standard_bonds()
    return topology
