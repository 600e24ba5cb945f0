"""Bring multi-conformer 3-D records of PubChem3D into one SDF file, to train on: by CID, or from bulk files.

    python -m mdlatent.conformers.pubchem 2244 3672 --file cids.txt -o some.sdf.gz
    python -m mdlatent.conformers.pubchem --bulk 00000001_00025000 --min-conformers 5 --at-most 1000 -o many.sdf.gz

What was fetched stays in the download cache: an interrupted run goes on from there. These conformers were made by a
generator (OMEGA); the record beside the file says so, and the benchmark refuses them as references.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gzip
import logging
import re
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from mdlatent import cache, files, sources, stage
from mdlatent.conformers import pubchem_bulk, pug_rest
from mdlatent.conformers.provenance import GENERATED_BY
from mdlatent.conformers.pubchem_records import ELEMENTS, Filters, Group, selected
from mdlatent.download import Policy
from mdlatent.errors import ConfigError, DataError, Interrupted

log = logging.getLogger("mdlatent")

ABOUT = {
    "kind": "pubchem3d",
    GENERATED_BY: "PubChem3D: OpenEye OMEGA with MMFF94s without electrostatics, not relaxed; no references",
    "licence": "public domain: a work of the United States government (NCBI, National Library of Medicine)",
    "licence_url": "https://www.ncbi.nlm.nih.gov/home/about/policies/",
    "citation": "Bolton, Kim, Bryant: PubChem3D: conformer generation. J. Cheminform. 3, 4 (2011), "
    "doi:10.1186/1758-2946-3-4",
}


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, fetch, filter, write."""
    parser = stage.parser("conformers.pubchem", __doc__)
    parser.add_argument("cids", nargs="*", metavar="CID", help="compound identifiers of PubChem")
    parser.add_argument("--file", type=Path, help="file with a CID on each line; what stands behind it is not read")
    parser.add_argument("--bulk", nargs="+", default=[], metavar="NAME", help="bulk files: 00000001_00025000, an "
                        "address (https://…, ftp://…) or a path, of .sdf.gz")  # fmt: skip
    parser.add_argument("-o", "--output", required=True, type=Path, help="file to write (.sdf or .sdf.gz)")
    parser.add_argument("--max-heavy-atoms", type=int, default=50, help="larger molecules are left out")
    parser.add_argument("--elements", default=",".join(sorted(ELEMENTS)), help="allowed ones, with commas between")
    parser.add_argument("--min-conformers", type=int, default=1, help="molecules with fewer are left out")
    parser.add_argument("--max-conformers", type=int, default=10, help="only the first so many of each molecule")
    parser.add_argument("--at-most", type=int, help="only the first so many molecules that pass")
    parser.add_argument("--rest", default=pug_rest.BASE, help="address of PUG REST, or of a mirror (%(default)s)")
    parser.add_argument("--bulk-url", default=pubchem_bulk.BASE, help="folder of the bulk files (%(default)s)")
    stage.add_options(parser)
    parser.set_defaults(options='{"fetch": {}}')
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    _run(args)


def _run(args: argparse.Namespace) -> None:
    wanted = frozenset(one.strip().capitalize() for one in args.elements.split(",") if one.strip())
    filters = Filters(args.max_heavy_atoms, wanted, args.min_conformers, args.max_conformers, args.at_most)
    if not args.output.name.endswith((".sdf", ".sdf.gz")):
        raise ConfigError(f"--output: got {args.output.name!r}, expected a name that ends in .sdf or .sdf.gz")
    if bool(args.bulk) == bool(args.cids or args.file):
        raise ConfigError("give CIDs (as arguments or with --file) or bulk files (--bulk), and not both")
    options = stage.read_options(args.options, "fetch")["fetch"]
    cids = [] if args.bulk else read_cids(args.cids, args.file)
    signal.signal(signal.SIGTERM, _stop)
    if args.bulk:
        from_bulk(args.bulk, args.output, filters, options, args.bulk_url)
    else:
        from_cids(cids, args.output, filters, options, args.rest)


def _stop(number: int, frame: object) -> None:
    """Ends the work as an error would, so that nothing half written stays behind."""
    raise Interrupted("stopped by SIGTERM; what arrived is kept: run again and it goes on from there")


def read_cids(given: Iterable[str], path: Path | None) -> list[int]:
    """CIDs of the command line and of a file, each once, in order. Raises ConfigError that names the wrong one."""
    places = [("CID", text) for text in given]
    if path:
        for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
            if text := line.partition("#")[0].strip():
                places.append((f"{path}, line {number}", re.split(r"[\s,;]", text)[0]))
    for where, text in places:
        if not re.fullmatch(r"[1-9][0-9]{0,9}", text):
            raise ConfigError(f"{where}: got {text!r}, expected a compound identifier of PubChem, such as 2244")
    if not places:
        raise ConfigError(f"{path}: got no CID, expected one on each line")
    return list(dict.fromkeys(int(text) for _, text in places))


def from_cids(
    cids: list[int],
    output: Path,
    filters: Filters,
    options: dict[str, Any],
    base: str = pug_rest.BASE,
    interval_s: float = pug_rest.INTERVAL_S,
) -> dict[str, Any]:
    """Fetch compounds by CID from PUG REST and write those that pass to `output`; returns its record.

    `options` is the section `fetch` of the configuration. Raises FetchError if the server cannot be asked, DataError
    if no compound passes; then there is nothing new at `output`.
    """
    base = base.rstrip("/")
    folder = cache.entry(cache.folder(options["cache"]), f"pubchem3d {base}")
    missing: list[int] = []
    with cache.locked(folder, "from PUG REST"):
        client = pug_rest.Client(base, folder, _policy(options), interval_s)
        shown = stage.progress(cids, len(cids), "compounds", every_s=2.0)
        record = _write(client.groups(shown, filters, missing), output, filters, Counter(), lambda: {
            "uri": f"{sources.without_secrets(base)}/compound/cid/<CID>/conformers", "n_asked": len(cids),
            "missing": missing,
        })  # fmt: skip
        log.info("%d requests to %s", client.requests, sources.without_secrets(base))
    return record


def from_bulk(
    names: Iterable[str], output: Path, filters: Filters, options: dict[str, Any], base: str = pubchem_bulk.BASE
) -> dict[str, Any]:
    """Fetch bulk files and write the compounds that pass to `output`; returns its record. Raises as `from_cids`."""
    found: list[dict[str, Any]] = []
    broken: Counter[str] = Counter()
    root, policy = cache.folder(options["cache"]), _policy(options)

    def groups() -> Iterator[Group]:
        for name in names:  # the next one is fetched only if the last one did not suffice
            path, about = pubchem_bulk.fetch(name, root, policy, base)
            found.append(about)
            yield from pubchem_bulk.groups(path, filters.max_conformers, broken)

    return _write(groups(), output, filters, broken, lambda: {"files": found})


def _policy(options: dict[str, Any]) -> Policy:
    return Policy(options["attempts"], options["timeout_s"], options["backoff_s"])


def _write(
    groups: Iterable[Group], output: Path, filters: Filters, left_out: Counter[str], about: Any
) -> dict[str, Any]:
    """Write what passes, and its record, in one step each; `about` is asked afterwards what came from where."""
    n_molecules = n_conformers = 0
    with files.write_beside(output) as temporary:
        with _opened(temporary, packed=output.suffix == ".gz") as handle:
            for group in selected(groups, filters, left_out):
                handle.writelines(group.records)
                n_molecules += 1
                n_conformers += len(group.records)
        where = about()
        reasons = ", ".join(f"{count:,} × {reason}" for reason, count in left_out.most_common())
        if not n_molecules:
            reasons = reasons or "none has a 3-D record"
            raise DataError(f"got no molecule for {output.name}: {reasons}; give other ones or wider filters")
        record = {
            "file": output.name,
            **ABOUT,
            **where,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "sha256": cache.digests(temporary)["sha256"],
            "bytes": temporary.stat().st_size,
            "n_molecules": n_molecules,
            "n_conformers": n_conformers,
            "left_out": dict(left_out),
            "filters": {**vars(filters), "elements": sorted(filters.elements)},
        }
        files.write_json(sources.record_path(output), record)  # first: a file in its place has its record
    log.info("%s: %d molecules with %d conformers; left out: %s", output, n_molecules, n_conformers, reasons or "none")
    if missing := record.get("missing"):
        log.warning("%d of %d CIDs have no 3-D record: %s", len(missing), record["n_asked"],
                    ", ".join(map(str, missing[:20])) + (" …" if len(missing) > 20 else ""))  # fmt: skip
    return record


@contextlib.contextmanager
def _opened(path: Path, packed: bool) -> Iterator[IO[bytes]]:
    """For writing; packed without name and time, so that the same records give the same bytes."""
    with open(path, "wb") as plain:
        if not packed:
            yield plain
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=plain, mtime=0) as handle:
            yield handle  # type: ignore[misc]


if __name__ == "__main__":
    stage.run(main)
