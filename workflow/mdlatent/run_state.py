"""The state of a simulation on disk, from which a killed run goes on.

    setup.json       what is simulated (settings, seed, key), on which platform, and in which pieces
    topology.pdb     the minimised start structure
    frames.f32       the frames so far: float32, Å, (frames, atoms, 3), nothing else
    checkpoint.npz   step, number of frames, positions, velocities, and OpenMM's own checkpoint with its random streams

Frames reach the disk before the checkpoint that counts them, and the checkpoint is replaced in one step: at any moment
there is a checkpoint and at least the frames it counts. What a killed run wrote beyond it is cut off.
"""

import logging
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mdlatent import files

log = logging.getLogger("mdlatent")

CHUNK_FRAMES = 1024


@dataclass
class Checkpoint:
    """Where a run stands: positions and velocities (atoms, 3) float64 in nm and nm/ps, and OpenMM's checkpoint."""

    step: int
    n_frames: int
    positions: np.ndarray
    velocities: np.ndarray
    engine: bytes


class RunState:
    """The folder of one run. `key` names the configuration; the state of another one is moved aside."""

    def __init__(self, folder: str | Path, key: str, n_atoms: int):
        self.folder, self.key, self.n_atoms = Path(folder), key, n_atoms
        self.setup: dict[str, Any] = {}
        self.checkpoint: Checkpoint | None = None
        self._handle: BinaryIO | None = None
        if not self.folder.exists():
            return
        for unfinished in self.folder.glob(".*.part*"):  # a killed process leaves the file that it was writing
            unfinished.unlink(missing_ok=True)
        if reason := self._load():
            self._move_aside(reason)

    @property
    def topology(self) -> Path:
        """The start structure."""
        return self.folder / "topology.pdb"

    @property
    def frames(self) -> Path:
        """The frames so far."""
        return self.folder / "frames.f32"

    def begin(self, setup: dict[str, Any]) -> None:
        """Start anew: write what will be simulated. The frames come with `append`."""
        self.setup = {"key": self.key, "n_atoms": self.n_atoms, **setup}
        self.checkpoint = None
        files.write_json(self.folder / "setup.json", self.setup)
        self.frames.write_bytes(b"")

    def add_segment(self, segment: dict[str, Any]) -> None:
        """Record that the run goes on in another way than it began (other platform or version)."""
        self.setup["segments"] = [*self.setup["segments"], segment]
        files.write_json(self.folder / "setup.json", self.setup)

    def append(self, positions_nm: np.ndarray) -> None:
        """Add one frame, (atoms, 3) nm."""
        if self._handle is None:
            kept = (self.checkpoint.n_frames if self.checkpoint else 0) * self._frame_bytes
            os.truncate(self.frames, kept)
            self._handle = open(self.frames, "ab")  # noqa: SIM115 (closed by close)
        self._handle.write((positions_nm * 10).astype("<f4").tobytes())

    def save(self, checkpoint: Checkpoint) -> None:
        """Make the frames so far and the checkpoint that counts them safe on disk."""
        if self._handle is not None:
            self._handle.flush()
            os.fsync(self._handle.fileno())
        with files.write_beside(self.folder / "checkpoint.npz") as temporary:
            np.savez(
                temporary,
                step=checkpoint.step,
                n_frames=checkpoint.n_frames,
                positions=checkpoint.positions,
                velocities=checkpoint.velocities,
                engine=np.frombuffer(checkpoint.engine, np.uint8),
            )
        self.checkpoint = checkpoint

    def read_frames(self, n_frames: int) -> Iterator[np.ndarray]:
        """The first `n_frames` frames in chunks (k, atoms, 3) float32 Å."""
        with open(self.frames, "rb") as handle:
            for first in range(0, n_frames, CHUNK_FRAMES):
                count = min(CHUNK_FRAMES, n_frames - first) * self.n_atoms * 3
                yield np.fromfile(handle, "<f4", count).reshape(-1, self.n_atoms, 3)

    def close(self) -> None:
        """Close the file of frames."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    @property
    def _frame_bytes(self) -> int:
        return 12 * self.n_atoms

    def _load(self) -> str:
        """Read what is there; returns why it cannot be used, or an empty text."""
        setup, checkpoint = self.folder / "setup.json", self.folder / "checkpoint.npz"
        if not setup.exists():
            return "an unfinished start" if any(self.folder.iterdir()) else ""
        try:
            values = files.read_json(setup)
            if values["key"] != self.key or values["n_atoms"] != self.n_atoms:
                return "the state of another configuration or version"
            self.setup = values
            if not checkpoint.exists():
                return ""
            with np.load(checkpoint, allow_pickle=False) as stored:
                self.checkpoint = Checkpoint(
                    int(stored["step"]),
                    int(stored["n_frames"]),
                    stored["positions"],
                    stored["velocities"],
                    stored["engine"].tobytes(),
                )
            if self.frames.stat().st_size < self.checkpoint.n_frames * self._frame_bytes or not self.topology.exists():
                return "a damaged state (frames or topology are missing)"
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            return f"a damaged state ({error})"
        return ""

    def _move_aside(self, reason: str) -> None:
        n = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.old-{n}")).exists():
            n += 1
        self.folder.rename(aside)
        self.setup, self.checkpoint = {}, None
        log.warning("%s: held %s; it was moved to %s", self.folder, reason, aside)
