"""Frames copied to a node's own disk for the time of a training that cannot keep them in memory.

A training reads such frames in random windows, once an epoch, for days: a node's own disk bears that better than the
file system that all nodes share. One process of each node copies, the others wait for it.
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from mdlatent.feed import BUDGET_BYTES
from mdlatent.frames import FrameStore
from mdlatent.launch import Launch

__all__ = ["staged"]

log = logging.getLogger("mdlatent")

SPARE = 1.05  # of the files' size must be free
WAIT_S = 0.2


@contextlib.contextmanager
def staged(store: FrameStore, scratch: str, launch: Launch) -> Iterator[None]:
    """Have `store` read its parts from a copy below the folder `scratch` of this node, removed at the end.

    Nothing is done where `scratch` is empty or the frames fit in memory; where it is no folder or has not enough room,
    that is said and the store read where it lies. `launch` tells who of the processes on this node copies.
    """
    sources = store.files
    if not scratch or store.n_frames * store.n_atoms * 12 <= BUDGET_BYTES or not _fits(sources, scratch):
        yield
        return
    folder = Path(scratch) / f"mdlatent-frames-{launch.identity or f'process-{os.getpid()}'}"
    copies = [folder / f"{number:06d}.h5" for number in range(len(sources))]
    try:
        if launch.local_rank == 0:
            _copy(sources, copies, folder)
        while not (folder / "complete").exists():  # that a process is lost ends this one too (lifeline.py)
            time.sleep(WAIT_S)
        store.read_from(copies)
        yield
    finally:
        store.read_from(sources)
        if launch.local_rank == 0:
            shutil.rmtree(folder, ignore_errors=True)  # what others of this node have open stays readable to them


def _fits(sources: list[Path], scratch: str) -> bool:
    needed = SPARE * sum(source.stat().st_size for source in sources)
    try:
        free = shutil.disk_usage(scratch).free
    except OSError as error:
        log.warning("scratch folder %s: %s; frames are read where they lie", scratch, error.strerror)
        return False
    if free < needed:
        log.warning(
            "scratch folder %s: %.1f GB are free, %.1f GB are needed; frames are read where they lie",
            scratch, free / 1e9, needed / 1e9,
        )  # fmt: skip
    return free >= needed


def _copy(sources: list[Path], copies: list[Path], folder: Path) -> None:
    start, size = time.monotonic(), sum(source.stat().st_size for source in sources)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for source, copy in zip(sources, copies, strict=True):
        shutil.copyfile(source, copy)
    (folder / "complete").touch()
    log.info("copied %.1f GB of frames to %s in %.0f s", size / 1e9, folder, time.monotonic() - start)
