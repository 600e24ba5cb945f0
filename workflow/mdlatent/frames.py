"""The frame store: selected atoms of every simulation, float32 in nm, one HDF5 file per trajectory part.

Nothing else in the package knows its format. A part is written by `write_part` in one pass and appears whole or not at
all; a study's parts are listed in `index.json` and read through `FrameStore`, which holds no coordinates itself.
"""

import contextlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import files
from mdlatent.clocks import join_clocks
from mdlatent.errors import DataError
from mdlatent.hdf5 import create_hdf5

FORMAT = "mdlatent-frames"
VERSION = 1
CHUNK = 256  # frames per HDF5 chunk: the fastest of those measured, read in order or in random windows
MAX_OPEN = 64  # a study may have thousands of parts, a process may not have as many open files


@dataclass(frozen=True)
class Part:
    """One trajectory part of a simulation and the file that holds its selected atoms."""

    file: Path
    trajectory: Path
    n_frames: int
    n_frames_source: int
    first_frame: int  # frames of the source in the parts before this one


@dataclass(frozen=True)
class Simulation:
    """One simulation: the rows `start` to `stop` of the store, from its parts in order of time."""

    name: str
    role: str
    start: int
    stop: int
    n_frames: int
    topology: Path
    parts: list[Part]
    time_step_ps: float | None
    temperature_k: float | None


class PartWriter:
    """Appends frames to a part that is being written; made by `write_part`."""

    def __init__(self, file: Any, n_atoms: int, check: Callable[[], None]):
        self._file = file
        self._check = check
        self._n_atoms = n_atoms
        self.n_frames = 0
        self.n_frames_source: int | None = None
        make = {"maxshape": (None,), "shape": (0,), "chunks": (4096,)}
        file.create_dataset(
            "coordinates", (0, n_atoms, 3), "f4", maxshape=(None, n_atoms, 3), chunks=(CHUNK, n_atoms, 3)
        )
        file.create_dataset("frame", dtype="i8", **make)
        file.create_dataset("time_ps", dtype="f8", **make)

    def append(self, coordinates_nm: np.ndarray, frames: np.ndarray, times_ps: np.ndarray) -> None:
        """Append k frames: coordinates (k, atoms, 3) in nm, their numbers in the source (k,), times in ps (k,) or NaN.

        Raises DataError if the shapes disagree.
        """
        k = len(coordinates_nm)
        if coordinates_nm.shape != (k, self._n_atoms, 3) or len(frames) != k or len(times_ps) != k:
            raise DataError(
                f"got coordinates {coordinates_nm.shape}, {len(frames)} frame numbers and {len(times_ps)} times, "
                f"expected ({k}, {self._n_atoms}, 3) and {k} of each"
            )
        for name, values in (("coordinates", coordinates_nm), ("frame", frames), ("time_ps", times_ps)):
            dataset = self._file[name]
            dataset.resize(self.n_frames + k, axis=0)
            if name == "coordinates" and k == CHUNK and self.n_frames % CHUNK == 0:
                # A whole chunk goes to the file as it is, without HDF5's copy of it: twice as fast.
                dataset.id.write_direct_chunk((self.n_frames, 0, 0), np.ascontiguousarray(values, np.float32))
            else:
                dataset[self.n_frames :] = values
        self.n_frames += k
        self._check()


@contextlib.contextmanager
def write_part(
    path: str | Path, *, simulation: str, part: int, n_atoms: int, provenance: dict[str, Any]
) -> Iterator[PartWriter]:
    """Yield a writer of one part; the file stands at `path` only if the block ends well.

    The block appends frames and sets `writer.n_frames_source`, the number of frames of the source before striding
    (default, as many as were written). Raises OSError as `create_hdf5`.
    """
    with create_hdf5(path) as (file, check):
        writer = PartWriter(file, n_atoms, check)
        yield writer
        source = writer.n_frames if writer.n_frames_source is None else writer.n_frames_source
        file.attrs.update(
            format=FORMAT,
            version=VERSION,
            simulation=simulation,
            part=part,
            n_frames_source=source,
            provenance=json.dumps(provenance),
        )


@contextlib.contextmanager
def open_part(path: str | Path) -> Iterator[Any]:
    """Open a stored part for reading (an `h5py.File`). Raises DataError if it is missing, damaged or something else."""
    file = _open(Path(path))
    try:
        yield file
    finally:
        file.close()


def made_from(path: str | Path) -> str | None:
    """What a stored part's provenance says under `made_from`; None if it says nothing, or there is no such part."""
    try:
        with open_part(path) as file:
            return json.loads(file.attrs["provenance"]).get("made_from")
    except DataError:
        return None


def _open(path: Path) -> Any:
    import h5py

    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise DataError(f"{path}: this part of the frame store is missing; run the featurize stage again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read as HDF5 ({error}); delete it and run the featurize stage") from error
    found = file.attrs.get("format"), file.attrs.get("version")
    if found != (FORMAT, VERSION):
        file.close()
        raise DataError(f"{path}: got format {found}, expected {(FORMAT, VERSION)}; delete it and run featurize again")
    return file


class FrameStore:
    """All frames of a study as rows: simulations in the order of the table, their parts in order of time.

    Parts are opened when they are read and coordinates are not kept. Use as a context manager, or call `close`.
    Raises DataError if the index or a part is missing or is not what the index says.
    """

    def __init__(self, index: str | Path):
        index = Path(index)
        try:
            content = files.read_json(index)
        except FileNotFoundError:
            raise DataError(f"{index}: the index of frames is missing; run the index_frames stage first") from None
        except json.JSONDecodeError as error:
            raise DataError(f"{index}: not a valid index of frames ({error}); run index_frames again") from error
        self.path = index
        self.atoms: list[str] = content["atoms"]
        self.n_atoms: int = content["n_atoms"]
        self.n_frames: int = content["n_frames"]
        self.simulations: list[Simulation] = []
        start = 0
        for entry in content["simulations"]:
            self.simulations.append(_simulation(entry, index.parent, start))
            start = self.simulations[-1].stop
        self._parts: list[Part] = [part for simulation in self.simulations for part in simulation.parts]
        self._edges = np.cumsum([0] + [part.n_frames for part in self._parts])
        if self._edges[-1] != self.n_frames:
            raise DataError(
                f"{index}: lists {self._edges[-1]} frames in parts, but {self.n_frames} in all; make it again"
            )
        self._handles: OrderedDict[int, Any] = OrderedDict()

    @property
    def files(self) -> list[Path]:
        """The files of all parts, in order of their rows."""
        return [part.file for part in self._parts]

    def read_from(self, files: Sequence[Path]) -> None:
        """From now on read coordinates from these files, copies of `files` in the same order."""
        self.close()
        self._parts = [replace(part, file=file) for part, file in zip(self._parts, files, strict=True)]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` (exclusive): (k, atoms, 3), float32, nm."""
        if not 0 <= start <= stop <= self.n_frames:
            raise IndexError(f"got rows {start} to {stop}, expected within 0 to {self.n_frames}")
        out = np.empty((stop - start, self.n_atoms, 3), np.float32)
        k = int(np.searchsorted(self._edges, start, side="right")) - 1
        row = start
        while row < stop:
            first, last = int(self._edges[k]), int(self._edges[k + 1])
            end = min(stop, last)
            if end > row:
                self._dataset(k).read_direct(out, np.s_[row - first : end - first], np.s_[row - start : end - start])
                row = end
            k += 1
        return out

    def iterate(self, start: int = 0, stop: int | None = None, chunk: int = CHUNK) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, coordinates (≤ chunk, atoms, 3)) from `start` to `stop` in order."""
        stop = self.n_frames if stop is None else stop
        for row in range(start, stop, chunk):
            yield row, self.read(row, min(row + chunk, stop))

    def frame_numbers(self, simulation: Simulation | str) -> np.ndarray:
        """Numbers of a simulation's frames in its original trajectory, parts counted through: (n_frames,) int64."""
        parts = self.simulation(simulation).parts
        return np.concatenate([self._column(part, "frame") + part.first_frame for part in parts])

    def times_ps(self, simulation: Simulation | str) -> np.ndarray:
        """Times of a simulation's frames in ps: (n_frames,) float64.

        They are the frame number times the table's `time_step_ps` where it is given, else those in the files. A part
        whose clock starts again is put behind the part before it, one usual step later.
        """
        simulation = self.simulation(simulation)
        if simulation.time_step_ps is not None:
            return self.frame_numbers(simulation) * simulation.time_step_ps
        return join_clocks([self._column(part, "time_ps") for part in simulation.parts])

    def simulation(self, simulation: Simulation | str) -> Simulation:
        """The simulation of that name. Raises DataError naming those there are."""
        if isinstance(simulation, Simulation):
            return simulation
        for candidate in self.simulations:
            if candidate.name == simulation:
                return candidate
        names = ", ".join(s.name for s in self.simulations)
        raise DataError(f"{self.path}: got simulation {simulation!r}, expected one of {names}")

    def close(self) -> None:
        """Close the parts that are open; the store can be read again afterwards."""
        for handle in self._handles.values():
            handle.close()
        self._handles.clear()

    def __enter__(self) -> "FrameStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": OrderedDict()}  # open files do not travel to another process

    def _dataset(self, k: int) -> Any:
        if k in self._handles:
            self._handles.move_to_end(k)
        else:
            file = _open(self._parts[k].file)
            if file["coordinates"].shape != (self._parts[k].n_frames, self.n_atoms, 3):
                raise DataError(
                    f"{self._parts[k].file}: holds {file['coordinates'].shape[:2]} (frames, atoms), the index says "
                    f"{(self._parts[k].n_frames, self.n_atoms)}; run the index_frames stage again"
                )
            self._handles[k] = file
            if len(self._handles) > MAX_OPEN:
                self._handles.popitem(last=False)[1].close()
        return self._handles[k]["coordinates"]

    @staticmethod
    def _column(part: Part, name: str) -> np.ndarray:
        with open_part(part.file) as file:
            return file[name][:]


def _simulation(entry: dict[str, Any], folder: Path, start: int) -> Simulation:
    parts = [
        Part(
            file=folder / part["file"],
            trajectory=folder / part["trajectory"],
            n_frames=part["n_frames"],
            n_frames_source=part["n_frames_source"],
            first_frame=part["first_frame"],
        )
        for part in entry["parts"]
    ]
    return Simulation(
        name=entry["name"],
        role=entry["role"],
        start=start,
        stop=start + entry["n_frames"],
        n_frames=entry["n_frames"],
        topology=folder / entry["topology"],
        parts=parts,
        time_step_ps=entry.get("time_step_ps"),
        temperature_k=entry.get("temperature_k"),
    )
