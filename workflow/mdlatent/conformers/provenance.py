"""Whether the conformers of an SDF file were made by a generator: then they may train, but never be references.

A benchmark against a generator's conformers measures likeness to that generator. It is known from the record beside
the file (`generated_by`), and where that was lost, from the tags which generators leave in the file.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable
from pathlib import Path

from mdlatent import files, sources
from mdlatent.errors import DataError

__all__ = ["GENERATED_BY", "check_references", "generator_of"]

GENERATED_BY = "generated_by"  # key of the record beside a file
TAGS = {
    b"PUBCHEM_CONFORMER_ID": "PubChem3D (OMEGA)",
    b"PUBCHEM_MMFF94_ENERGY": "PubChem3D (OMEGA)",
    b"mmff94s_kcal_per_mol": "mdlatent conformers",
}
_TAG = re.compile(rb"^>[^<]*<(%s)>" % b"|".join(TAGS))


def generator_of(path: Path) -> str:
    """What made the conformers in an SDF file, an empty text if nothing says that a generator did.

    Raises DataError if the record beside the file cannot be read, OSError if the file cannot.
    """
    record = sources.record_path(path)
    if record.exists():
        try:
            if made_by := files.read_json(record).get(GENERATED_BY):
                return str(made_by)
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(
                f"{record}: got a record that cannot be read ({error}), expected JSON that says where {path.name} "
                "comes from; fetch the file again, or take the record away if it is of another file"
            ) from error
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as handle:
        for line in handle:
            if line.startswith(b">") and (found := _TAG.match(line)):
                return TAGS[found[1]]
    return ""


def check_references(paths: Iterable[Path]) -> None:
    """Raise DataError, naming the file, if one has conformers of a generator. Files that cannot be read pass."""
    for path in paths:
        try:
            made_by = generator_of(path)
        except (OSError, EOFError, zlib.error):
            continue  # whoever reads it says what is wrong with it
        if made_by:
            raise DataError(
                f"{path}: got conformers made by a generator, {made_by}, expected measured or quantum-chemical "
                "structures. A benchmark against them measures likeness to that generator: use them for training alone"
            )
