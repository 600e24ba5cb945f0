"""Choose the atoms of every simulation that are mapped: a selection, then at most `max_atoms` of it.

The same number of atoms, in the same order, is taken from every simulation, for one model maps them all.
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import files, stage
from mdlatent.errors import ConfigError, DataError
from mdlatent.trajectory import load_topology

log = logging.getLogger("mdlatent")

MIN_ATOMS = 3


def select(topology: Any, selection: str, simulation: str, topology_path: str | Path) -> np.ndarray:
    """Indices of the selected atoms, ascending (n,) int64.

    Raises ConfigError if the selection cannot be understood, DataError if it matches fewer than three atoms.
    """
    try:
        indices = np.asarray(topology.select(selection), np.int64)
    except Exception as error:  # mdtraj lets the errors of its parser and of the compiled expression through
        raise ConfigError(
            f"featurize.selection: got {selection!r}, which mdtraj cannot understand "
            f"({' '.join(str(error).split())[:200]}); examples: `name CA`, `protein and not element H`, `backbone`"
        ) from error
    if len(indices) < MIN_ATOMS:
        what = "no atom" if len(indices) == 0 else f"only {len(indices)} atom{'s' * (len(indices) > 1)}"
        names = ", ".join(sorted({atom.name for atom in topology.atoms})[:12])
        raise DataError(
            f"featurize.selection {selection!r} matches {what} of the {topology.n_atoms} in simulation {simulation!r} "
            f"({topology_path}), expected at least {MIN_ATOMS}; atom names there: {names} …"
        )
    return indices


def even(n_atoms: int, max_atoms: int) -> np.ndarray:
    """Positions of `max_atoms` of `n_atoms` atoms, evenly spaced from first to last: (max_atoms,) int64."""
    return np.round(np.linspace(0, n_atoms - 1, min(max_atoms, n_atoms))).astype(np.int64)


def demand_same(selected: dict[str, np.ndarray]) -> None:
    """Raise DataError if simulations have different numbers of selected atoms."""
    (first, reference), *others = selected.items()
    for name, indices in others:
        if len(indices) != len(reference):
            raise DataError(
                f"the selection matches {len(reference)} atoms in simulation {first!r}, but {len(indices)} in "
                f"{name!r}; "
                "one model needs the same atoms in all: narrow featurize.selection (`name CA and resid 0 to 99`) "
                "or study them separately"
            )


def choice_of(path: Path, n_selected: int) -> np.ndarray:
    """Positions (max_atoms,) int64 kept among the selected atoms in another atoms.json.

    Raises DataError if another number of atoms was selected there.
    """
    other = files.read_json(path)
    if other["n_selected"] != n_selected:
        names = ", ".join(other["simulations"])
        raise DataError(
            f"the selection matches {n_selected} atoms here, but {other['n_selected']} in {names}; one model needs the "
            "same atoms in all: narrow featurize.selection or study them separately"
        )
    return np.array(other["kept"], np.int64)


def choose(
    simulations: list[dict[str, Any]], topologies: dict[str, Any], options: dict[str, Any], like: Path | None = None
) -> dict[str, Any]:
    """The content of atoms.json for these simulations; `topologies` are mdtraj's, by name.

    `options` is the section `featurize`; `like` another atoms.json, whose choice is taken over. Raises ConfigError or
    DataError as `select`, `demand_same` and `choice_of`.
    """
    selected = {
        s["name"]: select(topologies[s["name"]], options["selection"], s["name"], s["topology"]) for s in simulations
    }
    demand_same(selected)
    n_selected = len(next(iter(selected.values())))
    keep = np.arange(n_selected)
    if options["max_atoms"] and options["max_atoms"] < n_selected:
        if like:
            keep = choice_of(like, n_selected)
        elif options["reduction"] == "informative":
            from mdlatent.reduction import informative_atoms

            training = [s for s in simulations if s.get("role", "train") == "train"]
            keep = informative_atoms(training, topologies, selected, options["max_atoms"], options["make_whole"])
        else:
            keep = even(n_selected, options["max_atoms"])
        log.info("%d of %d selected atoms are kept (%s)", len(keep), n_selected, options["reduction"])

    entries = {
        name: {
            "n_atoms_total": topologies[name].n_atoms,
            "indices": indices[keep].tolist(),
            "atoms": [str(topologies[name].atom(int(i))) for i in indices[keep]],
        }
        for name, indices in selected.items()
    }
    return {
        "selection": options["selection"],
        "reduction": options["reduction"],
        "max_atoms": options["max_atoms"],
        "n_selected": n_selected,
        "kept": keep.tolist(),
        "n_atoms": len(keep),
        "atoms": next(iter(entries.values()))["atoms"],
        "simulations": entries,
    }


def warn_of_other_names(entries: dict[str, dict[str, Any]]) -> None:
    """Log where the atoms of a simulation have other names than those of the first."""
    names = next(iter(entries.values()))["atoms"]
    for name, entry in entries.items():
        other = [(a, b) for a, b in zip(names, entry["atoms"], strict=True) if a != b]
        if other:
            log.warning(
                "%s: %d atoms have other names than in the first simulation, e.g. %s for %s",
                name,
                len(other),
                *other[0][::-1],
            )


def main(argv: list[str] | None = None) -> None:
    """Parse, read, write."""
    parser = stage.parser("select_atoms", __doc__)
    parser.add_argument(
        "--simulations",
        required=True,
        help='JSON (`-`: on standard input): [{"name", "role", "topology": path, "first_part": path}, …]',
    )
    parser.add_argument(
        "--like", type=Path, help="atoms.json of other simulations, whose choice among the selected atoms is taken over"
    )
    parser.add_argument("--output", type=Path, required=True, help="atoms.json")
    stage.add_options(parser)
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    options = stage.read_options(args.options, "featurize")["featurize"]
    simulations = json.loads(stage.given(args.simulations))

    topologies = {s["name"]: load_topology(s["topology"]) for s in simulations}
    chosen = choose(simulations, topologies, options, args.like)
    warn_of_other_names(chosen["simulations"])
    files.write_json(args.output, chosen)
    log.info("%s: %d atoms of %d simulations", args.output, chosen["n_atoms"], len(simulations))


if __name__ == "__main__":
    stage.run(main)
