"""What of a simulation must be brought, chosen or read anew, and doing it: the work of the stage read_simulations."""

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from mdlatent import config, featurize, fetch, files, select_atoms, sources, stage
from mdlatent.errors import DataError, MdlatentError
from mdlatent.frames import made_from
from mdlatent.trajectory import load_topology

log = logging.getLogger("mdlatent")

SHARED_TOPOLOGIES = 4  # kept in memory: most simulations of a table have the same


def is_fetched(uri: str, file: Path) -> bool:
    """Whether `file` lies in its place, came from `uri`, and the file there has not changed since."""
    record = sources.record_path(file)
    if not record.exists() or not file.exists() or files.read_json(record)["uri"] != sources.without_secrets(uri):
        return False
    source = Path(sources.parse(uri).location).expanduser()
    return source.exists() and source.stat().st_mtime <= record.lstat().st_mtime


class Reader:
    """Reads simulations with the same settings; `n_read` counts the parts that were read anew.

    `options` is the section `featurize`, `like` an atoms.json whose choice of atoms is taken over, `code` a digest of
    the program: what was made by another is made again.
    """

    def __init__(self, options: dict[str, Any], like: Path | None, code: str):
        self.options, self.like = options, like
        self.settings = files.stamp(options, files.digest(like) if like else None, code)
        self.patience = config.validate_part({"fetch": {}})["fetch"]  # files of this machine need none
        self.n_read = 0
        # By content, not by name: the file of each simulation is a link to the one that they share.
        self._chosen = lru_cache(SHARED_TOPOLOGIES)(self._choose)

    def read(self, simulation: dict[str, Any]) -> None:
        """Bring what is missing or old of one simulation up to date. Raises MdlatentError."""
        topology = Path(simulation["topology"])
        uris = simulation.get("uris", {})
        plain = sources.plain_path(uris[str(topology)]) if str(topology) in uris else None
        known = self._chosen(plain.resolve()) if plain else None
        self._fetch(uris, topology, atoms=known[1] if known else None)
        kept, atoms = known or self._chosen(topology.resolve())
        chosen = {**kept, "simulations": {simulation["name"]: next(iter(kept["simulations"].values()))}}
        _write_atoms(Path(simulation["atoms"]), chosen)
        for number, part in enumerate(simulation["parts"]):
            trajectory, output = Path(part["trajectory"]), Path(part["file"])
            self._fetch(uris, trajectory, topology, atoms)
            own = files.stamp(self.settings, self._content(topology), self._content(trajectory))
            if made_from(output) == own:
                continue
            labels = {"simulation": simulation["name"], "part": number}
            featurize.read_part(trajectory, (topology, atoms), chosen, self.options, output, labels, made_from=own)
            self.n_read += 1

    def _fetch(self, uris: dict[str, str], file: Path, topology: Path | None = None, atoms: Any = None) -> None:
        uri = uris.get(str(file))
        if uri is not None and not is_fetched(uri, file):
            fetch.fetch(uri, file, self.patience, topology, atoms)

    def _choose(self, topology: Path) -> tuple[dict[str, Any], Any]:
        atoms = load_topology(topology)
        one = {"name": topology.name, "topology": str(topology)}
        return select_atoms.choose([one], {topology.name: atoms}, self.options, self.like), atoms

    @staticmethod
    def _content(file: Path) -> str:
        """Checksum of a file's content, as the fetch stage found it."""
        return files.read_json(sources.record_path(file))["sha256"]


def _write_atoms(path: Path, chosen: dict[str, Any]) -> None:
    """Write atoms.json, unless the same stands there."""
    if not path.exists() or files.read_json(path) != chosen:
        files.write_json(path, chosen)


def read_all(simulations: list[dict[str, Any]], reader: Reader) -> None:
    """Read every simulation. Raises DataError with all that went wrong, after the others are read."""
    mistakes = []
    for simulation in stage.progress(simulations, len(simulations), "reading simulations"):
        try:
            reader.read(simulation)
        except MdlatentError as error:
            mistakes.append(f"simulation {simulation['name']!r}: {error}")
    if mistakes:
        good = len(simulations) - len(mistakes)
        raise DataError("\n".join([*mistakes, f"The other {good} of {len(simulations)} are read and stay so."]))
