"""Downloads that survive interruptions: resumed, retried, verified, shared between processes."""

import errno
import logging
import shutil
import time
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from mdlatent import cache, files, transports
from mdlatent.errors import FetchError
from mdlatent.sources import without_secrets
from mdlatent.transports import Opened, UnfinishedError

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 600.0  # a server that asks for more is not waited for: the partial file stays, run again later
PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True)
class Policy:
    """How patiently a file is fetched (section `fetch` of the configuration)."""

    attempts: int = 5
    timeout_s: float = 60.0
    backoff_s: float = 2.0

    def wait_s(self, attempt: int, asked_s: float | None) -> float:
        """Seconds to wait after the `attempt`-th try (from 1): doubling, and never less than the server asked for."""
        return max(self.backoff_s * 2 ** (attempt - 1), asked_s or 0.0)


def cached(folder: Path, name: str, expected: dict[str, str]) -> dict[str, str] | None:
    """Checksums of the file in a cache folder if it is there, whole and the expected one; else None, and it is gone."""
    path, record = folder / name, folder / "record.json"
    if not path.exists():
        return None
    try:
        stored = files.read_json(record)["sha256"]
    except (OSError, ValueError, KeyError):
        stored = None
    got = cache.digests(path, *expected)
    if got["sha256"] == stored and not cache.differing(got, expected):
        log.info("%s: taken from the cache (%s)", name, folder)
        return got
    log.warning("%s in the cache is not the file that was loaded or is wanted now: loading it again", name)
    path.unlink()
    return None


def download(
    url: str, folder: Path, name: str, expected: dict[str, str], policy: Policy
) -> tuple[Path, dict[str, str]]:
    """Bring `url` to `folder/name` in the cache; the folder must be locked. Returns its path and checksums.

    `expected` maps `sha256`/`md5` to hex digests. Look with `cached` first. What arrived of an interrupted download
    stays in the folder as `partial` and the next try, or the next run, goes on from there.
    Raises FetchError; then nothing lies at `folder/name`, and a file with the wrong checksum is thrown away.
    """
    partial, state = folder / "partial", folder / "partial.json"
    shown = without_secrets(url)
    failures = 0
    while True:
        resumed_from = 0
        try:
            resumed_from = _transfer(url, partial, state, expected, policy)
            got = cache.digests(partial, *expected)
            wrong = cache.differing(got, expected)
            if not wrong:
                break
            _forget(partial, state)
            if not resumed_from:
                raise FetchError(
                    f"{shown}: the checksum is wrong: {wrong}. The file was thrown away. Either it was changed on the "
                    "server or damaged on its way, or the checksum in the configuration is not that of this file"
                )
            raise UnfinishedError("the pieces of the interrupted download do not fit together", at_once=True)
        except UnfinishedError as problem:
            if problem.discard:
                _forget(partial, state)
            failures += 1
            _wait_or_give_up(problem, failures, policy, shown, partial)
    files.write_json(folder / "record.json", {"url": shown, **got, "bytes": partial.stat().st_size})
    partial.replace(folder / name)
    state.unlink(missing_ok=True)
    return folder / name, got


def _wait_or_give_up(problem: UnfinishedError, failures: int, policy: Policy, shown: str, partial: Path) -> None:
    kept = partial.stat().st_size if partial.exists() else 0
    rest = f" The {kept / 1e6:.1f} MB that arrived are kept: run again and it goes on from there." if kept else ""
    if failures >= policy.attempts:
        raise FetchError(f"{shown}: given up after {failures} tries; the last one: {problem}.{rest}") from problem
    wait_s = 0.0 if problem.at_once else policy.wait_s(failures, problem.wait_s)
    if wait_s > LONGEST_WAIT_S and problem.wait_s:
        raise FetchError(f"{shown}: {problem}; the server asks to come back in {wait_s:.0f} s.{rest}") from problem
    log.warning("try %d of %d: %s; again in %.1f s%s", failures, policy.attempts, problem, wait_s,
                f", from {kept / 1e6:.1f} MB on" if kept else "")  # fmt: skip
    time.sleep(wait_s)


def _transfer(url: str, partial: Path, state: Path, expected: dict[str, str], policy: Policy) -> int:
    """One try: append what is missing to `partial`. Returns the byte it went on from.

    Raises UnfinishedError if the file is not complete afterwards.
    """
    start, validator = _resume_point(url, partial, state, expected)
    opened = transports.open_url(url, start, validator, policy.timeout_s)
    if opened.is_page and not expected:
        raise FetchError(
            f"{without_secrets(url)}: the server sent a web page, not a data file. Open the address in a browser and "
            "take the one of the download itself; a checksum (`#sha256=…`) behind the address says the page is meant"
        )
    if opened.start and validator and opened.validator and opened.validator != validator:
        raise UnfinishedError("the file on the server has changed since the download began", discard=True, at_once=True)
    if opened.start:
        log.info("%s: going on at %.1f MB", partial.parent.name, opened.start / 1e6)
    elif start:
        log.info("the server cannot go on at a given byte, or has another file now: starting again")
    _check_space(partial, opened)
    files.write_json(state, {"url": without_secrets(url), "validator": opened.validator, "total": opened.total})
    with open(partial, "r+b" if partial.exists() else "wb", buffering=0) as handle:
        handle.truncate(opened.start)
        handle.seek(opened.start)
        _copy(opened, handle, transports.host(url), partial)
        done = handle.tell()
    if opened.total is not None and done != opened.total:
        raise UnfinishedError(
            f"{transports.host(url)}: the connection broke off after {done:,} of {opened.total:,} bytes"
        )
    return opened.start


def _resume_point(url: str, partial: Path, state: Path, expected: dict[str, str]) -> tuple[int, str | None]:
    """The byte to go on from and the name of that content; 0 where going on would not be safe.

    It is safe if the server names the content (ETag, Last-Modified), or if a checksum tells afterwards.
    """
    try:
        known = files.read_json(state)
        if known["url"] == without_secrets(url) and (known["validator"] or expected):
            return partial.stat().st_size, known["validator"]
    except (OSError, ValueError, KeyError):
        pass
    return 0, None


def _copy(opened: Opened, handle: FileIO, server: str, partial: Path) -> None:
    """Write the stream to `handle`, with progress. Raises UnfinishedError (from the stream) or FetchError (disk)."""
    began = last = time.monotonic()
    for chunk in opened.chunks:
        try:
            rest = memoryview(chunk)
            while rest:  # unbuffered, so that a full disk shows here and not when the file is closed
                rest = rest[handle.write(rest) :]
        except OSError as error:
            raise _disk_error(error, partial) from error
        now = time.monotonic()
        if now - last >= PROGRESS_EVERY_S:
            last, done = now, handle.tell()
            speed = (done - opened.start) / (now - began)
            of = f" of {opened.total / 1e6:.1f}" if opened.total else ""
            percent = f" ({100 * done / opened.total:.0f} %)" if opened.total else ""
            left = f", about {(opened.total - done) / speed:.0f} s left" if opened.total and speed else ""
            log.info("%s: %.1f%s MB%s, %.2f MB/s%s", server, done / 1e6, of, percent, speed / 1e6, left)
    seconds = max(time.monotonic() - began, 1e-6)
    amount = (handle.tell() - opened.start) / 1e6
    log.info("%s: %.1f MB in %.1f s (%.2f MB/s)", server, amount, seconds, amount / seconds)


def _check_space(partial: Path, opened: Opened) -> None:
    """Refuse a download that cannot fit, before it fills the disk."""
    free = shutil.disk_usage(partial.parent).free
    missing = (opened.total or 0) - (partial.stat().st_size if partial.exists() else 0)
    if missing > free:
        raise FetchError(
            f"the download needs {missing / 1e6:.1f} MB more, but {str(partial.parent)!r} has only {free / 1e6:.1f} MB "
            "free. Free some space, or choose a cache on another disk with `fetch.cache` or the variable MDLATENT_CACHE"
        )


def _disk_error(error: OSError, partial: Path) -> Exception:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS):
        return error
    return FetchError(
        f"the download cache {str(partial.parent)!r} takes no more: {error.strerror}. What arrived is kept. Free some "
        "space and run again, or choose a cache on another disk with `fetch.cache` or the variable MDLATENT_CACHE"
    )


def _forget(partial: Path, state: Path) -> None:
    partial.unlink(missing_ok=True)
    state.unlink(missing_ok=True)
