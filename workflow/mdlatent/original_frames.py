"""Single frames of an original trajectory with all their atoms, fetched without reading the frames in between."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import periodic
from mdlatent.errors import DataError
from mdlatent.trajectory import load_topology

SEEKABLE = {".xtc", ".trr", ".nc", ".ncdf", ".netcdf", ".xyz", ".lammpstrj"}  # mdtraj finds a frame by its place
ALONE = {".h5", ".hdf5", ".lh5", ".gsd"}  # these too, but carry their own topology
IN_ONE_PIECE = {".pdb", ".ent", ".cif", ".mmcif", ".pdbx", ".gz", ".bz2", ".gro", ".arc"}

Reader = Callable[[int], tuple[np.ndarray, np.ndarray | None]]


def read_frames(path: Path, topology: Any, frames: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield coordinates (atoms, 3) float32 nm and box vectors (3, 3) nm or None of the given frames of one file.

    Formats that mdtraj can only read in one piece (pdb, cif, gro …) are read so. Raises DataError if the file does not
    have such a frame or not the atoms of the topology.
    """
    with _open(path, topology) as read:
        for frame in frames:
            try:
                coordinates, box = read(int(frame))
            except DataError:
                raise
            except Exception as error:  # each of mdtraj's readers raises its own kind
                raise DataError(
                    f"{path}: frame {frame} cannot be read again ({' '.join(str(error).split())[:200]}); "
                    "it changed since featurize, run that stage again"
                ) from error
            if coordinates.shape != (topology.n_atoms, 3):
                raise DataError(
                    f"{path}: frame {frame} has coordinates {coordinates.shape}, expected {(topology.n_atoms, 3)} as "
                    "in the topology; they changed since featurize, run that stage again"
                )
            yield coordinates, box


@contextlib.contextmanager
def _open(path: Path, topology: Any) -> Iterator[Reader]:
    import mdtraj

    from mdlatent.dcd import DCDReader

    if not path.exists():
        raise DataError(f"{path}: there is no such trajectory; fetch it again, structures are cut out of it")
    suffix = path.suffix.lower()

    def first(part: Any) -> tuple[np.ndarray, np.ndarray | None]:
        box = None if part.unitcell_vectors is None else part.unitcell_vectors[0].astype(np.float64)
        return part.xyz[0], box

    if suffix == ".dcd" and DCDReader.can_read(path):
        with contextlib.closing(DCDReader(path)) as dcd:
            yield lambda frame: _from_dcd(dcd, frame)
    elif suffix in SEEKABLE:
        with mdtraj.open(str(path)) as file:

            def seek(frame: int) -> tuple[np.ndarray, np.ndarray | None]:
                file.seek(frame)
                return first(file.read_as_traj(topology, n_frames=1))

            yield seek
    elif suffix in ALONE:
        yield lambda frame: first(mdtraj.load_frame(str(path), frame))
    elif suffix in {".dcd", ".crd", ".mdcrd"}:
        yield lambda frame: first(mdtraj.load_frame(str(path), frame, top=topology))
    else:
        whole = mdtraj.load(str(path), **({} if suffix in IN_ONE_PIECE else {"top": topology}))
        yield lambda frame: first(whole[frame])


def _from_dcd(dcd: Any, frame: int) -> tuple[np.ndarray, np.ndarray | None]:
    from mdtraj.utils import lengths_and_angles_to_box_vectors

    if not 0 <= frame < dcd.n_frames:
        raise IndexError(f"it has {dcd.n_frames} frames")
    coordinates, cells = dcd.read(frame, frame + 1, 1, np.arange(dcd.n_atoms))
    box = None if cells is None else np.stack(lengths_and_angles_to_box_vectors(*cells[0]))
    return coordinates[0], box


@dataclass(frozen=True)
class System:
    """Topology of a simulation (mdtraj) and the indices of its mapped atoms (n,) int64."""

    topology: Any
    selected: np.ndarray

    @classmethod
    def load(cls, path: Path, selected: Sequence[int]) -> "System":
        """Read the topology. Raises DataError if it cannot be read."""
        return cls(load_topology(path), np.asarray(selected, np.int64))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What the atoms are called; simulations that agree in this can share a file of structures."""
        return tuple(f"{atom.residue.chain.index} {atom}" for atom in self.topology.atoms)

    @cached_property
    def _forests(self) -> tuple[periodic.Forest, periodic.Forest]:
        links, n_atoms = periodic.links(self.topology), self.topology.n_atoms
        return (
            periodic.spanning_forest(n_atoms, links, np.arange(n_atoms)),
            periodic.spanning_forest(n_atoms, links, self.selected),
        )

    def make_whole(self, coordinates: np.ndarray, box: np.ndarray | None) -> np.ndarray:
        """A frame (atoms, 3) in nm with whole molecules: mapped atoms as in the frame store, the others around them.

        Molecules with mapped atoms stand to each other as they do in the frame store; every other molecule is put into
        the periodic image nearest to the centre of the mapped atoms. Frames without a real box are left as they are.
        """
        if box is None or not periodic.is_real(box):
            return coordinates
        every, mapped = self._forests
        one_piece = replace(every, molecule=np.zeros_like(every.molecule))  # mend only, do not gather yet
        whole = periodic.make_whole(coordinates[None], box[None], one_piece)[0]
        reference = periodic.make_whole(coordinates[None, mapped.read], box[None], mapped)[0]

        molecule, sizes = every.molecule, np.bincount(every.molecule)
        centres = np.stack([np.bincount(molecule, whole[:, k], len(sizes)) / sizes for k in range(3)], axis=1)
        away = (centres - reference.mean(0, dtype=np.float64)) @ np.linalg.inv(box)
        shift = -np.rint(away) @ box
        shift[molecule[self.selected]] = reference - whole[self.selected]  # the same for all atoms of a molecule
        return (whole + shift[molecule]).astype(np.float32)
