"""The table of simulations: read from TSV or CSV, catalogue entries and globs expanded, each row checked."""

import csv
import glob
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mdlatent import sources
from mdlatent.errors import ConfigError

NUMBERS = {"seed": int, "time_step_ps": float, "temperature_k": float}
WITHOUT_TIME = {".dcd", ".pdb", ".mdcrd", ".crd", ".xyz", ".binpos"}  # trajectory formats that store no time


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a TSV (tabs) or CSV (commas) file; empty cells are left out, `trajectory` is split at `;`.

    Raises ConfigError if the file is missing, unreadable, or a number is not one.
    """
    if not path.exists():
        raise ConfigError(f"simulations: got the table {str(path)!r}, but there is no such file")
    separator, name = (",", "commas") if path.suffix.lower() == ".csv" else ("\t", "tabs")
    rows: list[dict[str, Any]] = []
    keys: list[str] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            reader = csv.reader(handle, delimiter=separator, skipinitialspace=True)
            for cells in ([cell.strip() for cell in line] for line in reader):
                if not any(cells) or cells[0].startswith("#"):
                    continue
                line = reader.line_num
                if len(keys or cells) < len(cells):
                    raise ConfigError(f"{path}, line {line}: got {len(cells)} cells, the head has {len(keys)} keys")
                if keys:
                    pairs = zip(keys, cells, strict=False)  # empty cells at the end may be left out
                    rows.append({key: _value(key, cell, path, line) for key, cell in pairs if cell})
                keys = keys or cells
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a table of {name}: {error}") from error
    if not keys:
        raise ConfigError(f"{path}: not a table of {name}: it is empty")
    return rows


def _value(key: str, cell: str, path: Path, line: int) -> Any:
    if key == "trajectory":
        return [part.strip() for part in cell.split(";") if part.strip()]
    if key in NUMBERS:
        try:
            return NUMBERS[key](cell)
        except ValueError as error:
            raise ConfigError(f"{path}, line {line}: {key}: got {cell!r}, expected a number") from error
    return cell


def expand(rows: list[dict[str, Any]], where: Callable[[], str] = str) -> list[dict[str, Any]]:
    """Rows with catalogue entries and globs replaced by the files they stand for. Raises ConfigError.

    `where` says in which file and line the table stands, for errors. Every row that comes back has `name`, `role`, and
    either `simulate`, or `topology` and a list `trajectory`.
    """
    from mdlatent import catalogue

    _refuse_twice([row["name"] for row in rows], where)
    expanded, mistakes = [], []
    for position, row in enumerate(rows):
        try:
            given = [key for key in ("catalogue", "simulate", "trajectory") if key in row]
            if len(given) != 1:
                got = " and ".join(f"`{key}`" for key in given) or "none of them"
                raise ConfigError(
                    f"simulation {row['name']!r}: got {got}, expected exactly one of `catalogue`, `simulate`, or "
                    "`trajectory` with `topology`"
                )
            if given == ["simulate"]:
                expanded.append({"seed": position, **row})
                continue
            for one in catalogue.expand(row) if "catalogue" in row else [row]:
                expanded.append(_with_files(one))
        except ConfigError as error:
            mistakes.append(f"{where()}{error}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    _refuse_twice([row["name"] for row in expanded], where)
    return expanded


def _with_files(row: dict[str, Any]) -> dict[str, Any]:
    """One row with its globs expanded; raises ConfigError where files are missing."""
    if "topology" not in row:
        raise ConfigError(
            f"simulation {row['name']!r}: `topology` is missing; a trajectory needs one to name its atoms"
        )
    trajectory: list[str] = []
    for uri in row["trajectory"]:
        if sources.is_local(uri) and any(sign in uri for sign in "*?["):
            found = sorted(glob.glob(str(Path(uri).expanduser()), recursive=True))  # noqa: PTH207 (absolute patterns)
            if not found:
                raise ConfigError(f"simulation {row['name']!r}: no file matches {uri!r}")
            trajectory += found
        else:
            trajectory.append(uri)
    for uri in [row["topology"], *trajectory, *([row["reference"]] if "reference" in row else [])]:
        source = sources.parse(uri)
        if source.kind == "path" and not Path(source.location).expanduser().is_file():
            raise ConfigError(f"simulation {row['name']!r}: there is no file {source.location!r}")
    if "time_step_ps" not in row:
        silent = [uri for uri in trajectory if sources.extension(uri) in WITHOUT_TIME]
        if silent:
            raise ConfigError(
                f"simulation {row['name']!r}: {silent[0]!r} stores no time: set `time_step_ps`, the time between frames"
            )
    return {**row, "trajectory": trajectory}


def _refuse_twice(names: list[str], where: Callable[[], str]) -> None:
    counts = Counter(names)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise ConfigError(f"{where()}simulations: {twice[0]!r} is named {counts[twice[0]]} times; names must be unique")
