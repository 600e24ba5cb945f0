"""Bulk files of PubChem3D: fetched with resume and checksum, read as a stream.

`<folder>/00000001_00025000.sdf.gz` has the 3-D records of the CIDs from 1 to 25,000, at most ten of each compound, and
`<name>.md5` beside it holds its checksum, as `md5sum` writes it.
"""

from __future__ import annotations

import contextlib
import datetime
import gzip
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mdlatent import archives, cache, files, sources
from mdlatent.conformers.pubchem_records import Group, SupportsRead, grouped, records
from mdlatent.download import Policy, cached, download
from mdlatent.errors import ConfigError, DataError, FetchError, NotFoundError

__all__ = ["BASE", "fetch", "groups"]

log = logging.getLogger("mdlatent")

BASE = "https://ftp.ncbi.nlm.nih.gov/pubchem/Compound_3D/10_conf_per_cmpd/SDF"
PROGRESS_EVERY_S = 2.0


def fetch(name: str, root: Path, policy: Policy, base: str = BASE) -> tuple[Path, dict[str, Any]]:
    """The bulk file `name` (`00000001_00025000`, an address or a path) on this machine, and what is known of it.

    Raises ConfigError (no name of a bulk file) or FetchError (not to be had, or not the file it should be).
    """
    url = f"{base.rstrip('/')}/{name}.sdf.gz" if re.fullmatch(r"\d+_\d+", name) else name
    source = sources.parse(url)
    if not source.file_name.endswith((".sdf.gz", ".sdf")):
        raise ConfigError(
            f"--bulk: got {name!r}, expected a range of CIDs as in 00000001_00025000, or the address or path of a file "
            "that ends in .sdf.gz or .sdf"
        )
    if source.kind == "path":
        return _local(Path(source.location).expanduser())
    if source.kind != "url" or source.member:
        raise ConfigError(f"--bulk: got {name!r}, expected an address (https://…, ftp://…) or a path of one file")
    folder = cache.entry(root, f"url {source.location}")
    with cache.locked(folder, source.file_name):
        path, expected = folder / source.file_name, dict(source.checksums)
        if cached(folder, source.file_name, expected) is None:
            expected = expected or _published(source.location, folder, policy)
            log.info("%s: %s", source.file_name, sources.without_secrets(source.location))
            download(source.location, folder, source.file_name, expected, policy)
        about = files.read_json(folder / "record.json")  # address, bytes, checksums
        fetched = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    return path, {**about, "fetched": fetched.isoformat(timespec="seconds")}


def _published(url: str, folder: Path, policy: Policy) -> dict[str, str]:
    """The MD5 that the server publishes beside the file; nothing where it has none."""
    beside = folder / "md5"
    beside.mkdir(exist_ok=True)
    try:
        path, _ = download(f"{url}.md5", beside, "published", {}, policy)
    except NotFoundError:
        log.warning("%s.md5: there is no checksum; only length and CRC-32 of the file tell whether it is whole",
                    sources.without_secrets(url))  # fmt: skip
        return {}
    return {"md5": _md5(path, f"{sources.without_secrets(url)}.md5")}


def _md5(path: Path, shown: str) -> str:
    """The first word of an .md5 file. Raises FetchError if that is no MD5."""
    word = path.read_bytes()[:200].decode("ascii", "replace").strip().split(" ")[0].lower()
    if not re.fullmatch(r"[0-9a-f]{32}", word):
        raise FetchError(
            f"{shown}: got {word[:40]!r}, expected 32 hex digits as of md5sum. Give the file's own address with the "
            "checksum behind it: `#md5=…`"
        )
    return word


def _local(path: Path) -> tuple[Path, dict[str, Any]]:
    """A file on this machine, compared with the .md5 beside it if there is one."""
    if not path.is_file():
        raise FetchError(f"{path}: {'it is a folder' if path.is_dir() else 'there is no such file'}; give an .sdf.gz")
    beside = path.with_name(f"{path.name}.md5")
    expected = {"md5": _md5(beside, str(beside))} if beside.exists() else {}
    got = cache.digests(path, *expected)
    if wrong := cache.differing(got, expected):
        raise FetchError(f"{path}: the checksum is wrong: {wrong} (from {beside.name}); load the file again")
    return path, {"path": str(path), **got, "bytes": path.stat().st_size}


def groups(path: Path, max_conformers: int, broken: Counter[str]) -> Iterator[Group]:
    """The compounds of a bulk file in order, each with its first conformers; as a stream, with progress.

    Raises DataError if the file is no SDF or breaks off, FetchError if it cannot be unpacked.
    """
    n, total = 0, max(path.stat().st_size, 1)
    last = time.monotonic()
    with open(path, "rb") as raw, _unpacked(raw, path.suffix == ".gz") as stream:
        try:
            for group in grouped(records(stream), max_conformers, broken):
                yield group
                n += 1
                if time.monotonic() - last > PROGRESS_EVERY_S:
                    last = time.monotonic()
                    log.info("%s: %d compounds read (%.0f %%)", path.name, n, 100 * raw.tell() / total)
        except DataError as error:
            raise DataError(f"{path}: {error}; load the file again") from error
        except (*archives.BROKEN, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise FetchError(f"{path}: cannot be unpacked ({error}); it is damaged, load it again") from error


def _unpacked(raw: IO[bytes], packed: bool) -> contextlib.AbstractContextManager[SupportsRead]:
    return gzip.GzipFile(fileobj=raw) if packed else contextlib.nullcontext(raw)
