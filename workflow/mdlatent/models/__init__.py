"""The families of latent models, one per file, and how a model is built, saved and loaded.

Importing this package loads no torch; a family's module is imported when it is asked for.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlatent.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mdlatent.models.base import LatentModel

__all__ = ["FAMILIES", "VERSION", "build", "family_class", "load", "save"]

FAMILIES = {
    "coordinate": ("mdlatent.models.coordinate", "CoordinateVAE"),
    "conv2d": ("mdlatent.models.conv2d", "Conv2dVAE"),
    "resnet1d": ("mdlatent.models.resnet1d", "ResNet1dVAE"),
    "pca_distances": ("mdlatent.models.pca_distances", "PcaDistances"),
    "pca_coordinates": ("mdlatent.models.pca_coordinates", "PcaCoordinates"),
    "tica": ("mdlatent.models.tica", "Tica"),
}

FORMAT, VERSION = "mdlatent-model", 3  # another version wherever weights are laid out anew


def family_class(family: str) -> type[LatentModel]:
    """The class of a family. Raises ConfigError if there is no such family."""
    if family not in FAMILIES:
        raise ConfigError(f"family: got {family!r}, expected one of: {', '.join(FAMILIES)}")
    module, name = FAMILIES[family]
    return getattr(importlib.import_module(module), name)


def build(family: str, n_atoms: int, latent_dim: int, options: dict[str, Any] | None = None) -> LatentModel:
    """A new, untrained model. `options` are the family's own keyword arguments.

    Raises ConfigError if the family is unknown or the sizes do not fit it.
    """
    return family_class(family)(n_atoms, latent_dim, **(options or {}))


def save(path: str | Path, model: LatentModel, metadata: dict[str, Any]) -> None:
    """Write a model and what is needed to build it again, in one step; same model, same bytes."""
    from mdlatent.checkpoint import write_torch

    content = {
        "format": FORMAT,
        "version": VERSION,
        "family": model.family,
        "n_atoms": model.n_atoms,
        "latent_dim": model.latent_dim,
        "options": json.dumps(model.options),
        "metadata": json.dumps(metadata),
        "state": {key: value.cpu() for key, value in model.state_dict().items()},
    }
    write_torch(path, content)


def load(path: str | Path) -> tuple[LatentModel, dict[str, Any]]:
    """Read a model (on the CPU, in evaluation mode) and its metadata; no code in the file is run.

    Raises DataError if the file is damaged or is no model, FileNotFoundError if it is not there.
    """
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise DataError(
                f"{path}: got format {content['format']} version {content['version']}, expected {FORMAT} {VERSION}; "
                "train the model again with this version"
            )
        state, options = content["state"], json.loads(content["options"])
        model = family_class(content["family"])(content["n_atoms"], content["latent_dim"], **options)
        model.load_state_dict(state, assign=True)
    except (DataError, ConfigError, FileNotFoundError):
        raise
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise DataError(f"{path}: not a readable model ({error}); remove it and train it again") from error
    return model.eval(), json.loads(content["metadata"])
