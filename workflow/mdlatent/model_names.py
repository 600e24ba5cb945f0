"""Names of models in files and tables. Light: the workflow reads it before any job runs."""

from collections.abc import Iterable
from typing import Any

from mdlatent.errors import ConfigError

# Families fitted in one step, without randomness: one seed stands for all. They are the baselines.
DIRECT = ("pca_distances", "pca_coordinates", "tica")


def model_name(entry: dict[str, Any]) -> str:
    """Name of one entry of the section `models`: its own `name`, else `<family>-d<latent_dim>`.

    >>> model_name({"family": "pca_distances", "latent_dim": 3})
    'pca_distances-d3'
    """
    return str(entry.get("name") or f"{entry['family']}-d{entry['latent_dim']}")


def find_model(entries: Iterable[dict[str, Any]], name: str) -> dict[str, Any]:
    """The entry of the section `models` that bears `name`, or the only one of the family `name`.

    Raises ConfigError if there is none.
    """
    entries = list(entries)
    by_name = {model_name(entry): entry for entry in entries}
    of_family = [entry for entry in entries if entry["family"] == name]
    if name not in by_name and len(of_family) == 1:
        return of_family[0]
    if name not in by_name:
        raise ConfigError(f"model: got {name!r}, expected one of those in `models`: {', '.join(by_name) or 'none'}")
    return by_name[name]
