"""Store the source archive of a package without building it.

    python pip_source_archive.py name==version FOLDER TRIES WAIT_S

Run by `packages.py` in a process of its own, since it uses pip's insides, which have no public interface for this.
Whatever pip is configured with counts: indexes, find-links, proxies, certificates, logins. The index's checksum is
verified.
"""

import hashlib
import sys
import time
from pathlib import Path
from typing import Any

NO_ARCHIVE = 3


def main(requirement: str, folder: str, tries: int, wait_s: float) -> None:
    """Write the archive into `folder`; exit with NO_ARCHIVE if the index has none."""
    from pip._internal.commands import create_command

    name, _, version = requirement.partition("==")
    command: Any = create_command("download")
    options, _ = command.parse_args(["--no-deps", "--no-binary=:all:", requirement])
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options=options, session=session, ignore_requires_python=True)
        links = [
            found.link
            for found in finder.find_all_candidates(name)
            if found.version == type(found.version)(version) and not found.link.is_wheel
        ]
        if not links:
            sys.exit(NO_ARCHIVE)
        for attempt in range(1, tries + 1):
            try:
                _store(session, links[0], Path(folder) / links[0].filename)
                return
            except (OSError, ValueError) as error:
                if attempt == tries:
                    sys.exit(f"{links[0].filename}: {error}")
                time.sleep(wait_s * 2 ** (attempt - 1))


def _store(session: Any, link: Any, path: Path) -> None:
    """Copy what `link` names to `path`. Raises OSError, or ValueError if the checksum is not the index's."""
    with session.get(link.url_without_fragment, stream=True, headers={"Accept-Encoding": "identity"}) as response:
        response.raise_for_status()
        with open(path, "wb") as handle:
            while chunk := response.raw.read(1 << 20):
                handle.write(chunk)
    if link.hash:
        with open(path, "rb") as handle:
            got = hashlib.file_digest(handle, link.hash_name).hexdigest()
        if got != link.hash:
            path.unlink()
            raise ValueError(f"got {link.hash_name} {got}, expected {link.hash} as the index says")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
