"""HDF5 files that appear whole or not at all, and say so plainly when the disk is full."""

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mdlatent import files

__all__ = ["create_hdf5"]


class _Destination(io.FileIO):
    """The file that HDF5 writes to; keeps the system's first error and lets HDF5 go on.

    HDF5 itself reports a full disk as one of many errors with the reason in the text, fails again when it is closed,
    and prints tracebacks when its objects are freed.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        view = memoryview(data).cast("B")
        while self.error is None and len(view):
            try:
                view = view[super().write(view) or 0 :]
            except OSError as error:
                self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        if self.error is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.error = error
        return size or 0


@contextlib.contextmanager
def create_hdf5(path: str | Path) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Yield a new `h5py.File` that stands at `path` once the block has ended well, and a check for failed writes.

    The check raises OSError with the system's error number and the file's name if a write has failed so far (a full
    disk); call it after each large write, so as not to go on in vain. It is called once more at the end.
    """
    import h5py

    path = Path(path)
    with files.write_beside(path) as temporary, _Destination(temporary, "x+") as destination:

        def check() -> None:
            if destination.error is not None:
                code = destination.error.errno or errno.EIO
                raise OSError(code, os.strerror(code), str(path)) from destination.error

        with h5py.File(destination, "w") as file:
            yield file, check
        check()
