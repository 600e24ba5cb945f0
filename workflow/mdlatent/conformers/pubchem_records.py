"""Records of PubChem3D as text: taken apart, grouped by compound, filtered. Nothing but one compound is in memory.

A record is the bytes of one SDF entry with its closing `$$$$`. PubChem writes V2000 blocks with all hydrogens, the CID
as title, and the tags PUBCHEM_COMPOUND_CID and PUBCHEM_CONFORMER_ID. Conformers of a compound follow one another in
diverse order: the first N stand for the whole.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from mdlatent.errors import ConfigError, DataError

__all__ = ["ELEMENTS", "Filters", "Group", "cid_of", "elements_of", "grouped", "records", "selected", "tag", "titled"]

# PubChem makes 3-D records of these alone (release notes of PubChem3D).
ELEMENTS = frozenset({"H", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Br", "I"})
READ_BYTES = 1 << 18
MOST_RECORD_BYTES = 1 << 20  # far above what 50 heavy atoms and their hydrogens take with all tags

_END = re.compile(rb"(?<=\n)\$\$\$\$[ \t\r]*\n")


class SupportsRead(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


@dataclass(frozen=True)
class Group:
    """A compound and the records of its conformers."""

    cid: int
    records: list[bytes]


@dataclass(frozen=True)
class Filters:
    """Which compounds are kept, and how many conformers of each."""

    max_heavy_atoms: int = 50
    elements: frozenset[str] = ELEMENTS
    min_conformers: int = 1
    max_conformers: int = 10
    at_most: int | None = None  # compounds

    def __post_init__(self) -> None:
        """Raise ConfigError for what no compound can pass."""
        if not self.elements:
            raise ConfigError(f"--elements: got none, expected some of {', '.join(sorted(ELEMENTS))}")
        if unknown := sorted(self.elements - ELEMENTS):
            raise ConfigError(f"--elements: got {', '.join(unknown)}; PubChem3D has only {', '.join(sorted(ELEMENTS))}")
        for option, value in (
            ("--max-heavy-atoms", self.max_heavy_atoms), ("--min-conformers", self.min_conformers),
            ("--max-conformers", self.max_conformers), ("--at-most", self.at_most),
        ):  # fmt: skip
            if value is not None and value < 1:
                raise ConfigError(f"{option}: got {value}, expected 1 or more")
        if self.min_conformers > self.max_conformers:
            raise ConfigError(
                f"--min-conformers: got {self.min_conformers}, more than --max-conformers {self.max_conformers}"
            )

    def refuses(self, record: bytes) -> str:
        """Why a compound with this record is left out, or an empty text. Raises DataError for a broken record."""
        if record.split(b"\n", 2)[1][20:22] == b"2D":
            return "flat (2-D) record"
        found = elements_of(record)
        if sum(found.values()) - found["H"] > self.max_heavy_atoms:
            return f"more than {self.max_heavy_atoms} heavy atoms"
        if set(found) - self.elements - {"H"}:
            return "an element that is not allowed"
        return ""


def records(handle: SupportsRead) -> Iterator[bytes]:
    """The records of an SDF stream. Raises DataError if it ends within one, or is no SDF at all."""
    rest = b""
    while piece := handle.read(READ_BYTES):
        *whole, rest = _END.split(rest + piece)  # line by line all takes twice as long
        for one in whole:
            yield one + b"$$$$\n"
        if len(rest) > MOST_RECORD_BYTES:
            raise DataError(f"got {len(rest):,} bytes without a line `$$$$`, expected records of an SDF file")
    rest = rest.rstrip()
    if rest.endswith(b"\n$$$$"):
        yield rest + b"\n"
    elif rest:
        raise DataError("it ends within a record; expected `$$$$` as the last line")


def tag(record: bytes, name: str) -> str | None:
    """First line of the data of a tag, None where the record has no such tag."""
    found = re.search(rb"^>[^\n]*<%s>[^\n]*\n([^\r\n]*)" % re.escape(name.encode()), record, re.MULTILINE)
    return found[1].decode("ascii", "replace").strip() if found else None


def cid_of(record: bytes) -> int:
    """CID of a record, from its tag, else its title. Raises DataError if it has none."""
    text = tag(record, "PUBCHEM_COMPOUND_CID") or record.partition(b"\n")[0].decode("ascii", "replace").strip()
    if not re.fullmatch(r"[1-9]\d*", text):
        raise DataError(f"got {text[:40]!r}, expected a record with the tag PUBCHEM_COMPOUND_CID or a CID as title")
    return int(text)


def elements_of(record: bytes) -> Counter[str]:
    """How many atoms of each element the record has. Raises DataError if it is no whole V2000 block."""
    lines = record.split(b"\n")
    try:
        count = int(lines[3][:3])
        if b"V2000" not in lines[3] or not re.search(rb"^M  END\r?$", record, re.MULTILINE):
            raise ValueError
        found = Counter(lines[4 + i][31:34].decode("ascii").strip() for i in range(count))
        for line in lines[4 : 4 + count]:
            float(line[:10]), float(line[10:20]), float(line[20:30])
    except (ValueError, IndexError) as error:
        raise DataError("the record is no whole V2000 block") from error
    return found


def titled(record: bytes, cid: int) -> bytes:
    """The record with its CID as title: readers group conformers by it."""
    return b"%d\n" % cid + record.partition(b"\n")[2]


def grouped(found: Iterable[bytes], at_most: int, broken: Counter[str]) -> Iterator[Group]:
    """Records that follow one another with the same CID as groups, of each the first `at_most`.

    A record that cannot be told a CID is counted in `broken` and left out.
    """

    def known() -> Iterator[tuple[int, bytes]]:
        for record in found:
            try:
                yield cid_of(record), record
            except DataError:
                broken["record without a CID"] += 1

    for cid, members in itertools.groupby(known(), key=lambda pair: pair[0]):
        yield Group(cid, [record for _, record in itertools.islice(members, at_most)])


def selected(groups: Iterable[Group], filters: Filters, left_out: Counter[str]) -> Iterator[Group]:
    """Groups that pass, titled; why others do not is counted. No more is read than is asked for."""
    passed = 0
    for group in groups:
        whole = []
        reason = ""
        for record in group.records[: filters.max_conformers]:
            try:
                reason = reason or filters.refuses(record)
                whole.append(titled(record, group.cid))
            except DataError:
                left_out["broken record"] += 1
        if len(whole) < filters.min_conformers:
            reason = reason or f"fewer than {filters.min_conformers} conformers"
        if reason:
            left_out[reason] += 1
            continue
        yield Group(group.cid, whole)
        passed += 1
        if passed == filters.at_most:
            return
