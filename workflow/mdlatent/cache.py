"""The download cache: one folder per address, one process at a time in each, partial files kept for the next try."""

import contextlib
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from mdlatent.errors import FetchError

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20


def folder(setting: str | None) -> Path:
    """Where downloads are kept: the setting `fetch.cache`, else `$MDLATENT_CACHE`, else `~/.cache/mdlatent`."""
    chosen = setting or os.environ.get("MDLATENT_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mdlatent"


def entry(cache: Path, key: str) -> Path:
    """The folder of one address inside the cache, made if needed. Raises FetchError if it cannot be made or written."""
    path = cache / hashlib.sha256(key.encode()).hexdigest()[:24]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(cache, error) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise unwritable(cache, PermissionError("permission denied"))
    return path


def unwritable(cache: Path, error: OSError) -> FetchError:
    """The error for a cache that cannot be written."""
    return FetchError(
        f"the download cache {str(cache)!r} cannot be written: {error.strerror or error}. Give yourself the right to "
        "it, or choose another folder with the key `fetch.cache` or the variable MDLATENT_CACHE"
    )


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a cache folder, so that two processes that want one file load it once, one after the other."""
    with open(path / "lock", "w") as handle:
        waited = time.monotonic()
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    log.info("another process is fetching %s: waiting for it", what)
                    told = True
                time.sleep(min(1.0, 0.05 + (time.monotonic() - waited) / 10))
            except OSError as error:  # a file system without locks: rare, and two writers are still caught by checksums
                log.warning("%s: no file locks there (%s); going on without", path, error.strerror)
                break
        yield


def digests(path: Path, *algorithms: str) -> dict[str, str]:
    """Hex digests of a file in one pass, with progress for large ones. sha256 is always among them."""
    hashes = {name: hashlib.new(name) for name in dict.fromkeys(("sha256", *algorithms))}
    size, done, last = path.stat().st_size, 0, time.monotonic()
    with open(path, "rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            for one in hashes.values():
                one.update(chunk)
            done += len(chunk)
            if time.monotonic() - last > 5:
                log.info("computing the checksum of %s: %.0f %%", path.name, 100 * done / max(size, 1))
                last = time.monotonic()
    return {name: one.hexdigest() for name, one in hashes.items()}


def differing(got: dict[str, str], expected: dict[str, str]) -> str:
    """`got sha256 …, expected …` for the first checksum that differs, or an empty text if all agree."""
    for name, value in expected.items():
        if got[name] != value:
            return f"got {name} {got[name]}, expected {value}"
    return ""
