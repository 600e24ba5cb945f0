"""Is a trajectory whole, readable, and of the atoms of its topology? Only headers, sizes and one frame are read."""

import contextlib
import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mdlatent import sources, trajectory_formats
from mdlatent.errors import DataError

log = logging.getLogger(__name__)

WHOLE_ONLY = (".pdb", ".pdbx", ".cif", ".mmcif")  # formats that mdtraj reads in one piece only


def check_pair(topology: Path, trajectory: Path, name: str | None = None, atoms: Any = None) -> dict[str, Any]:
    """Check that `trajectory` is usable with `topology`; `name` stands for the trajectory in messages.

    `atoms` is the mdtraj topology in the file `topology`, if that has been read already.
    Returns `{"n_atoms", "n_frames"}`. Raises DataError if one cannot be read, the numbers of atoms differ, there is no
    frame, the first frame is not finite, or the file is cut off in the middle of a frame.
    """
    import numpy as np

    name = name or trajectory.name
    atoms = _topology(topology, topology.name) if atoms is None else atoms
    n_topology = atoms.n_atoms
    found = inspect(trajectory, name, atoms)
    if found["n_atoms"] != n_topology:
        raise DataError(
            f"{name} has {found['n_atoms']:,} atoms, {topology.name} has {n_topology:,}: expected the same atoms in "
            "the same order. Give the topology that belongs to it (with or without water, hydrogens, ligands)"
        )
    if found["n_frames"] < 1:
        raise DataError(
            f"{name} has no frame: expected at least one. Is it the right file, and was the run not aborted?"
        )
    coordinates = _frame(trajectory, atoms, name)
    if not np.isfinite(coordinates).all():
        bad = int(np.argmin(np.isfinite(coordinates).all(axis=-1).reshape(-1)))
        raise DataError(
            f"{name}: the first frame has coordinates that are not finite (atom {bad + 1}): the simulation blew up, "
            "the file is damaged, or it was written by a program that needs another reader"
        )
    return found


def inspect(path: Path, name: str | None = None, topology: Any = None) -> dict[str, int]:
    """`{"n_atoms", "n_frames"}` of a trajectory (mdcrd needs the mdtraj topology to be read).

    Raises DataError if it is no trajectory, or cut off (which mdcrd does not show).

    A header that claims another number of frames than the file has room for is common: only a warning.
    """
    name = name or path.name
    _refuse_empty(path, name)
    try:
        layout = trajectory_formats.read(path, _ending(path))
    except DataError as error:
        raise DataError(
            f"{name}: {error}{_seems(path)}. Load or copy it again, and check that its ending fits"
        ) from None
    if layout is None:
        return _inspect_by_reading(path, name, topology)
    if layout.left_over:
        raise DataError(
            f"{name} is truncated: {layout.left_over:,} {layout.unit} after the last complete frame "
            f"({layout.n_frames:,} complete frames). The copy was interrupted, or the simulation still writes: get the "
            "whole file, or cut it to its complete frames (for example with `mdconvert`)"
        )
    if layout.claimed_frames and layout.claimed_frames != layout.n_frames:
        log.warning("%s: the header claims %s frames, the file holds %s complete ones; these are used",
                    name, f"{layout.claimed_frames:,}", f"{layout.n_frames:,}")  # fmt: skip
    return {"n_atoms": layout.n_atoms, "n_frames": layout.n_frames}


def count_atoms(path: Path) -> int:
    """Number of atoms of a topology or trajectory. Raises DataError if it is neither."""
    return topology_atoms(path) if _ending(path) in sources.TOPOLOGY else inspect(path)["n_atoms"]


def topology_atoms(path: Path, name: str | None = None) -> int:
    """Number of atoms of a topology file. Raises DataError if it cannot be read or has none."""
    return int(_topology(path, name or path.name).n_atoms)


def _topology(path: Path, name: str) -> Any:
    """The mdtraj topology of a file; raises DataError."""
    import mdtraj

    _refuse_empty(path, name)
    try:
        with _quiet():
            topology = mdtraj.load_topology(str(path))
    except Exception as error:  # mdtraj raises whatever its parsers stumble on
        raise DataError(f"{name} cannot be read as a topology{_seems(path)}: {_short(error)}") from error
    if topology.n_atoms < 1:
        raise DataError(f"{name} names no atom{_seems(path)}: expected a topology, for example a pdb file")
    return topology


def _inspect_by_reading(path: Path, name: str, topology: Any) -> dict[str, int]:
    """Open a file with mdtraj and read its last frame: a file that is cut off fails there."""
    import mdtraj

    needs_atoms = topology is not None and _ending(path) in (".crd", ".mdcrd")
    try:
        with _quiet():
            if _ending(path) in WHOLE_ONLY:
                whole = mdtraj.load(str(path))
                return {"n_atoms": whole.n_atoms, "n_frames": len(whole)}
            with mdtraj.open(str(path), **({"n_atoms": topology.n_atoms} if needs_atoms else {})) as handle:
                n_frames = _length(handle)
                if n_frames > 1:
                    handle.seek(n_frames - 1)
                result: Any = handle.read(n_frames=1)
    except Exception as error:  # mdtraj raises whatever its parsers stumble on
        raise DataError(
            f"{name} cannot be read to its end{_seems(path)}: {_short(error)}. Get the whole file"
        ) from error
    coordinates: Any = getattr(result, "coordinates", result[0] if isinstance(result, tuple) else result)
    return {"n_atoms": int(coordinates.shape[-2]), "n_frames": n_frames}


def _length(handle: Any) -> int:
    """Number of frames; where the format does not tell it, they are counted a hundred at a time."""
    try:
        return len(handle)
    except (NotImplementedError, TypeError):
        n_frames = 0
        while found := len(result if hasattr(result := handle.read(n_frames=100), "shape") else result[0]):
            n_frames += found
        return n_frames


def _frame(trajectory: Path, topology: Any, name: str) -> Any:
    """Coordinates of the first frame, shape (1, atoms, 3), through the reader that later reads them all."""
    import numpy as np

    from mdlatent.trajectory import Trajectory

    try:
        with _quiet():
            return next(Trajectory(trajectory, topology).chunks(np.arange(topology.n_atoms), stop=1)).coordinates
    except DataError as error:
        said = str(error).replace(str(trajectory), name)
        raise DataError(f"{said}{_seems(trajectory)}") from error


def _ending(path: Path) -> str:
    return path.suffix.lower()


def _refuse_empty(path: Path, name: str) -> None:
    try:
        if path.stat().st_size:
            return
    except FileNotFoundError as error:
        raise DataError(f"{name}: there is no such file ({path})") from error
    raise DataError(f"{name} is empty (0 bytes): get the file again")


def _seems(path: Path) -> str:
    """A guess what a file is that is not what it should be."""
    with open(path, "rb") as handle:
        head = handle.read(200).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return " (it is a web page)"
    if head.startswith(b"version https://git-lfs"):
        return " (it is a Git LFS pointer, not the data: run `git lfs pull`)"
    if head.startswith(b"\x1f\x8b"):
        return " (it is compressed with gzip: let its name end in .gz)"
    return ""


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Mute mdtraj: its dcd reader prints from C, its pdb reader warns of every dummy box."""
    with open(os.devnull, "w") as void, warnings.catch_warnings(action="ignore"):
        sys.stdout.flush()
        saved = os.dup(1)
        try:
            os.dup2(void.fileno(), 1)
            yield
        finally:
            ctypes.CDLL(None).fflush(None)  # C keeps its own buffer
            os.dup2(saved, 1)
            os.close(saved)
