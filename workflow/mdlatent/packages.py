"""Archives of the Python package index, brought by pip, so that its configuration (mirrors, proxies, logins) counts.

Nothing of a package is ever run. A wheel is plain data and comes with `pip download`. For a source archive that command
would run the package's build script just to read its name; so the archive is found with pip's own index and connection
in a process of its own (`pip_source_archive.py`), and only stored.
"""

import base64
import logging
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from mdlatent import cache, files
from mdlatent.download import Policy, cached
from mdlatent.errors import FetchError

log = logging.getLogger(__name__)

HELPER = Path(__file__).with_name("pip_source_archive.py")
NO_ARCHIVE = 3  # exit status of the helper: the index has no source archive of that version


def archive(requirement: str, folder: Path, policy: Policy) -> tuple[Path, str]:
    """The wheel, or else the source archive, of `name==version`, in a locked cache folder, and its sha256.

    Raises FetchError if pip finds neither.
    """
    for kept in sorted(folder.iterdir()):
        if kept.name.endswith((".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2")) and (
            got := cached(folder, kept.name, {})
        ):
            return kept, got["sha256"]
    log.info("%s: asking the package index", requirement)
    with tempfile.TemporaryDirectory(dir=folder, prefix="pip") as scratch:
        options = "--no-deps --only-binary=:all: --ignore-requires-python --no-input --disable-pip-version-check"
        pip = ["-m", "pip", "download", *options.split(), "--progress-bar=off", "--dest", scratch, requirement]
        wheel = _run(pip, scratch)
        if wheel.returncode != 0:
            if "No module named pip" in wheel.stderr:
                raise FetchError(f"{requirement}: {sys.executable} has no pip to load it; run `python -m ensurepip`")
            log.info("%s: no wheel to be had, looking for a source archive", requirement)
            found = _run([str(HELPER), requirement, scratch, str(policy.attempts), str(policy.backoff_s)], scratch)
            if found.returncode != 0:
                raise FetchError(_says(requirement, wheel, found))
        loaded = [path for path in Path(scratch).iterdir() if path.is_file()]
        if len(loaded) != 1:
            raise FetchError(
                f"{requirement}: expected one archive from pip, got {len(loaded)}; load it by hand with pip download"
            )
        log.info("%s: got %s (%.1f MB)", requirement, loaded[0].name, loaded[0].stat().st_size / 1e6)
        sha256 = cache.digests(loaded[0])["sha256"]
        files.write_json(folder / "record.json", {"package": requirement, "sha256": sha256})
        return loaded[0].replace(folder / loaded[0].name), sha256


def installed(requirement: str, member: str) -> tuple[Path, str | None] | None:
    """The file `member` of `name==version` where just that version is installed here with the file as its wheel has it.

    With it comes the licence that the package states.

    A wheel's record holds the checksum of each file; one that does not fit it is not taken, nor one without.
    """
    name, _, version = requirement.partition("==")
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    listed = next((file for file in found.files or [] if file.as_posix() == member), None)
    if found.version != version or listed is None or listed.hash is None or listed.hash.mode != "sha256":
        return None
    path = Path(str(listed.locate()))
    expected = base64.urlsafe_b64decode(listed.hash.value + "=").hex()
    if not path.is_file() or cache.digests(path)["sha256"] != expected:
        return None
    stated = (found.metadata[key] for key in ("License-Expression", "License") if key in found.metadata)
    return path, next(stated, None)


def _run(arguments: list[str], folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def _says(requirement: str, wheel: subprocess.CompletedProcess[str], found: subprocess.CompletedProcess[str]) -> str:
    """pip's own words, as far as they help."""
    lines = [line.removeprefix("ERROR: ") for line in wheel.stderr.splitlines() if line.startswith("ERROR")]
    if found.returncode != NO_ARCHIVE:
        lines += found.stderr.strip().splitlines()[-1:]
    known = " ".join(lines) or wheel.stderr.strip()[-300:]
    return (
        f"{requirement}: pip found neither a wheel nor a source archive of just that version. pip says: {known}. "
        "Check name and version, that this machine is online, and pip's settings (`pip config list`)"
    )
