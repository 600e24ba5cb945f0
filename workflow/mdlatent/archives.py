"""One file out of a zip or tar archive, or out of its gzip, bzip2 or xz wrapping; never the whole in memory."""

import bz2
import difflib
import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mdlatent.errors import FetchError

OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError)
COPY_BYTES = 1 << 20


def extract(archive: Path, member: str, target: Path) -> None:
    """Write the file `member` of `archive` to `target`.

    `member` is the path inside the archive; a leading folder that wraps all of it (`name-1.2/…`) may be left out.
    Raises FetchError if the archive is broken or has no such file (the most similar names are given).
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                name = _choose([info.filename for info in opened.infolist() if not info.is_dir()], member, archive)
                with opened.open(name) as stream:
                    _copy(stream, target)
        elif tarfile.is_tarfile(archive):
            _extract_tar(archive, member, target)
        else:
            raise FetchError(
                f"{archive.name}: got a file that is no zip or tar archive, so it has no member {member!r}"
            )
    except BROKEN as error:
        raise FetchError(f"{archive.name}: the archive is damaged ({error}); load it again") from error


def unpack(compressed: Path, ending: str, target: Path) -> None:
    """Write the content of a `.gz`, `.bz2` or `.xz` file to `target`. Raises FetchError if it is damaged."""
    try:
        with OPENERS[ending](compressed, "rb") as stream:
            _copy(stream, target)
    except (*BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the file's fault
        raise FetchError(
            f"{compressed.name}: cannot be unpacked ({error}); the file is damaged or no {ending} file"
        ) from error


def _extract_tar(archive: Path, member: str, target: Path) -> None:
    """Read the tar in one pass: the common case, in which the name fits exactly, stops at the file."""
    names = []
    with tarfile.open(archive) as opened:
        for info in opened:
            if info.isdir():
                continue
            names.append(info.name)
            if _fits(info.name, member):
                stream = opened.extractfile(info)
                if stream is None:
                    raise FetchError(f"{archive.name}: {member!r} is not a file")
                with stream:
                    _copy(stream, target)
                return
    _choose(names, member, archive)


def _fits(name: str, member: str) -> bool:
    """Whether an archive's name is `member`, as it stands or without its first folder."""
    parts, wanted = PurePosixPath(name).parts, PurePosixPath(member).parts
    return wanted in (parts, parts[1:])


def _choose(names: list[str], member: str, archive: Path) -> str:
    fitting = [name for name in names if _fits(name, member)]
    if fitting:
        return min(fitting, key=len)
    last = PurePosixPath(member).name
    near = [name for name in names if PurePosixPath(name).name == last] or difflib.get_close_matches(member, names, n=3)
    hint = (
        f"did you mean {' or '.join(map(repr, near[:3]))}?"
        if near
        else f"it has {', '.join(sorted(names)[:10]) or 'no files'}"
    )
    raise FetchError(f"{archive.name}: there is no file {member!r} in it; {hint}")


def _copy(stream: IO[bytes], target: Path) -> None:
    with open(target, "wb") as handle:
        shutil.copyfileobj(stream, handle, COPY_BYTES)
