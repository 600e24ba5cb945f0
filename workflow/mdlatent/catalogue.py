"""List the public data sets that a study can name with `catalogue: NAME`, or one of them in full."""

import copy
import difflib
import json
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mdlatent import stage
from mdlatent.errors import ConfigError

FILE = Path(__file__).parent.parent / "catalogue.yaml"
INHERITED = ("topology", "time_step_ps", "temperature_k")  # a set's keys that hold for all its simulations


@cache
def _sets() -> dict[str, dict[str, Any]]:
    return yaml.load(FILE.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def load() -> dict[str, dict[str, Any]]:
    """All data sets by name, each with `title`, `licence`, `citation`, `size_mb`, `frames`, `atoms` and `simulations`.

    Every simulation is complete: what it takes from its set is filled in.
    """
    sets = copy.deepcopy(_sets())
    for data in sets.values():
        shared = {key: data[key] for key in INHERITED if key in data}
        data["simulations"] = [{**shared, **simulation} for simulation in data["simulations"]]
    return sets


def expand(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Simulations for a record of the table with the key `catalogue` (`set`, or `set/simulation`).

    One simulation keeps the record's name; of several each is named `<record's name>-<its own name>`. Other keys of the
    record (time step, role, …) win over the catalogue's. A record without the key comes back as it is.
    Raises ConfigError, with the nearest name, for a set or simulation that is not in the catalogue.
    """
    if "catalogue" not in record:
        return [record]
    set_name, slash, wanted = str(record["catalogue"]).partition("/")
    sets = load()
    where = f"simulation {record.get('name', '')!r}"
    if set_name not in sets:
        raise ConfigError(
            f"{where}: there is no data set {set_name!r} in the catalogue; {_nearest(set_name, list(sets))}"
        )
    chosen = sets[set_name]["simulations"]
    if slash:
        names = [simulation["name"] for simulation in chosen]
        chosen = [simulation for simulation in chosen if simulation["name"] == wanted]
        if not chosen:
            raise ConfigError(
                f"{where}: the data set {set_name!r} has no simulation {wanted!r}; {_nearest(wanted, names)}"
            )
    own = {key: value for key, value in record.items() if key != "catalogue"}
    name = own.get("name", set_name)
    return [
        {**simulation, **own, "name": name if len(chosen) == 1 else f"{name}-{simulation['name']}"}
        for simulation in chosen
    ]


def credit(uri: str) -> dict[str, str]:
    """`{"catalogue", "licence", "citation"}` of the data set that a file belongs to; empty if it is in none."""
    address = uri.partition("#")[0]
    for name, data in load().items():
        uris = [
            one for simulation in data["simulations"] for one in (simulation["topology"], *simulation["trajectory"])
        ]
        if address in (one.partition("#")[0] for one in uris):
            return {"catalogue": name, "licence": data["licence"], "citation": data["citation"]}
    return {}


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def _count(value: float | None) -> str:
    return "?" if value is None else f"{value:,}"


def _table(sets: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # in a file or pipe nothing needs to wrap
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("title", min_width=26)
    for heading in ("MB", "runs", "frames", "atoms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("licence", overflow="fold")
    for name, data in sets.items():
        numbers = (data["size_mb"], len(data["simulations"]), data["frames"], data["atoms"])
        table.add_row(name, data["title"], *map(_count, numbers), data["licence"])
    console.print(table)
    console.print(
        "\nIn the table of simulations: `catalogue: NAME`. More of one: `mdlatent catalogue NAME`", highlight=False
    )


def _details(name: str, data: dict[str, Any]) -> None:
    print(f"{name}: {data['title']}\n")
    facts = {"licence": data["licence"], "size": f"{_count(data['size_mb'])} MB", "frames": _count(data["frames"]),
             "atoms": _count(data["atoms"]), "cite": data["citation"], "note": data.get("note", "")}  # fmt: skip
    for key, value in facts.items():
        if value:
            print(textwrap.fill(value, 110, initial_indent=f"{key:9}", subsequent_indent=" " * 9))
    for simulation in data["simulations"]:
        print(f"\n{name}/{simulation['name']}")
        for key in ("time_step_ps", "temperature_k", "topology"):
            if key in simulation:
                print(f"  {key}: {simulation[key]}")
        print("  trajectory:\n" + "\n".join(f"    - {uri}" for uri in simulation["trajectory"]))


def main(argv: list[str] | None = None) -> None:
    """Command line: `mdlatent catalogue [NAME] [--json]`."""
    parser = stage.parser("catalogue", __doc__)
    parser.add_argument("name", nargs="?", help="a data set: everything that is known of it, with its addresses")
    parser.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_args(argv)
    sets = load()
    if args.name and args.name not in sets:
        raise ConfigError(f"there is no data set {args.name!r} in the catalogue; {_nearest(args.name, list(sets))}")
    if args.json:
        print(json.dumps(sets[args.name] if args.name else sets, indent=1, ensure_ascii=False))
    elif args.name:
        _details(args.name, sets[args.name])
    else:
        _table(sets)


if __name__ == "__main__":
    stage.run(main)
