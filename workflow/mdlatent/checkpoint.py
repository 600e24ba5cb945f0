"""Checkpoints of a training: written whole or not at all, read back only if sound and of the same training.

A checkpoint's name is `<key>-epoch<k>-step<s>.pt`; the key is a hash of everything that decides the result (settings,
seed, data), so that a training never goes on from a state that belongs to another one.
"""

import hashlib
import json
import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from mdlatent import files

__all__ = ["Checkpoints", "key_of", "write_torch"]

log = logging.getLogger("mdlatent")

KEEP = 2
_NAME = re.compile(r"(?P<key>[0-9a-f]{16})-epoch(?P<epoch>\d+)-step(?P<step>\d+)\.pt")


def key_of(*parts: Any) -> str:
    """Hash of settings (anything that JSON can hold), 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def write_torch(path: str | Path, content: Any) -> None:
    """Write what `torch.load` reads, in one step; same content, same bytes.

    A full disk, which torch reports as a RuntimeError, raises OSError with the system's error number.
    """
    # Through a handle, since torch writes a path's name into the file, and ours is a temporary one.
    with files.write_beside(path) as temporary, open(temporary, "wb") as handle:
        try:
            torch.save(content, handle)
            handle.flush()
        except (RuntimeError, OSError) as error:
            seen: BaseException | None = error
            while seen is not None and not (isinstance(seen, OSError) and seen.errno):
                seen = seen.__context__
            if isinstance(seen, OSError):
                raise OSError(seen.errno, seen.strerror, str(path)) from error
            raise


class Checkpoints:
    """The checkpoints of one training in a folder of its own; `key` says which training it is."""

    def __init__(self, folder: str | Path, key: str) -> None:
        self.folder, self.key = Path(folder), key

    def save(self, state: dict[str, Any]) -> Path:
        """Write a state (tensors, numbers, texts, lists and dicts of them; `epoch` and `step` among its keys).

        Older checkpoints but the last are removed once it is written.
        """
        path = self.folder / f"{self.key}-epoch{state['epoch']:05d}-step{state['step']:07d}.pt"
        write_torch(path, state)
        for old in self._found()[:-KEEP]:
            old.unlink()
        return path

    def load(self) -> dict[str, Any] | None:
        """The newest sound state of this training, or None. Damaged files are removed, foreign ones moved aside."""
        self._remove_unfinished()
        self._move_foreign_aside()
        for path in reversed(self._found()):
            try:
                state = _read(path)
            except Exception as error:  # torch and zipfile raise half a dozen kinds for a damaged file
                log.warning("%s: damaged (%s); removed, going on from the checkpoint before it, if any", path, error)
                path.unlink()
                continue
            log.info("going on from %s", path)
            return state
        return None

    def clear(self) -> None:
        """Remove this training's checkpoints, and the folder if nothing else is in it."""
        self._remove_unfinished()
        for path in self._found():
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _found(self) -> list[Path]:
        """This training's checkpoints, oldest first."""
        named = [(path, _NAME.fullmatch(path.name)) for path in self.folder.glob("*.pt")]
        ours = [(int(m["epoch"]), int(m["step"]), path) for path, m in named if m and m["key"] == self.key]
        return [path for _, _, path in sorted(ours)]

    def _remove_unfinished(self) -> None:
        """A killed process leaves the file that it was writing."""
        for path in self.folder.glob(".*.part.pt"):
            path.unlink(missing_ok=True)

    def _move_foreign_aside(self) -> None:
        foreign = [path for path in self.folder.glob("*.pt") if not path.name.startswith(self.key)]
        if not foreign:
            return
        n = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.old-{n}")).exists():
            n += 1
        aside.mkdir()
        for path in foreign:
            path.rename(aside / path.name)
        log.warning(
            "%s: holds checkpoints of another configuration, other data or another version; they were moved to %s",
            self.folder,
            aside,
        )


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:  # torch reads flipped bytes without complaint; the archive has check sums
        if (bad := archive.testzip()) is not None:
            raise ValueError(f"check sum of {bad} is wrong")
    return torch.load(path, map_location="cpu", weights_only=True)
