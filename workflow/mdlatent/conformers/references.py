"""Choose the molecules of a benchmark of generators: read the references, say what is left out, spread the rest.

Writes part000.sdf, part001.sdf …, each with some of the molecules and all their distinct references, and
references.json, which says how many there are and, molecule by molecule, what was left out for which reason. Molecules
that cannot be used are left out and the others go on; where none can be used, that is an error.
All molecules of the file are in memory at once.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlatent import files, stage
from mdlatent.conformers.split_options import FRACTIONS

if TYPE_CHECKING:
    from mdlatent.conformers.molecules import Molecule
    from mdlatent.conformers.sdf import Refused

log = logging.getLogger("mdlatent")

SHOWN = 20  # left-out molecules named in the log; all stand in references.json


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, read, write."""
    parser: argparse.ArgumentParser = stage.parser("conformers.references", __doc__)
    parser.add_argument("sdf", type=Path, help="SDF file with reference conformers (.sdf, .sdf.gz)")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for the parts and references.json")
    stage.add_options(parser)
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    settings = stage.read_options(args.options, "conformers")["conformers"]

    from mdlatent.conformers import provenance, sdf

    if settings["made_by"] != "generator":
        provenance.check_references([args.sdf])
    found, refused = sdf.read_sdf(args.sdf, settings["max_heavy_atoms"])
    chosen = choose(sdf.with_unique_names(found), settings)
    for bad in refused[:SHOWN]:
        log.warning("left out %s: %s", bad.name, bad.reason)
    if len(refused) > SHOWN:
        log.warning("left out %d more: see references.json", len(refused) - SHOWN)
    for number in range(settings["jobs"]):
        with files.write_beside(args.output_dir / f"part{number:03d}.sdf") as path:
            sdf.write_sdf(chosen[number :: settings["jobs"]], path)
    about = describe(found, chosen, refused)
    files.write_json(args.output_dir / "references.json", about)
    log.info(
        "%s: %d of %d molecules, %d references; %d records left out",
        args.sdf, about["molecules"], about["readable_molecules"], about["references"], len(refused),
    )  # fmt: skip


def choose(found: Sequence["Molecule"], settings: dict[str, Any]) -> list["Molecule"]:
    """The molecules that the section `conformers` asks for, in the order of the file.

    Raises DataError if there are too few scaffolds for the part that it names.
    """
    from mdlatent.conformers import scaffolds

    chosen = list(found)
    if settings["part"] != "all":
        chosen = scaffolds.split(chosen, FRACTIONS, settings["split_seed"])[settings["part"]]
    return chosen[: settings["max_molecules"]]


def describe(found: Sequence["Molecule"], chosen: Sequence["Molecule"], refused: Sequence["Refused"]) -> dict[str, Any]:
    """How many molecules and references there are, and what was left out."""
    counts = [one.mol.GetNumConformers() for one in chosen]
    return {
        "readable_molecules": len(found),
        "molecules": len(chosen),
        "references": sum(counts),
        "molecules_with_one_reference": counts.count(1),
        "duplicates": sum(one.n_duplicates for one in chosen),
        "broken": [one.name for one in chosen if one.broken],
        "left_out": [{"name": one.name, "reason": one.reason} for one in refused],
    }


if __name__ == "__main__":
    stage.run(main)
