"""The file of a trained conformation autoencoder: weights, sizes and provenance; read back only if whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mdlatent.checkpoint import write_torch
from mdlatent.conformers.autoencoder import ConformationAutoencoder
from mdlatent.errors import DataError

__all__ = ["load", "save"]

FORMAT, VERSION = "mdlatent-conformation-autoencoder", 1  # another version wherever weights are laid out anew


def save(path: str | Path, model: ConformationAutoencoder, provenance: Mapping[str, Any]) -> None:
    """Write `model`, and from what it was made (anything that JSON can hold), in one step."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "options": json.dumps(model.options),
        "provenance": json.dumps(dict(provenance)),
        "state": model.state_dict(),
    }
    write_torch(path, content)


def load(path: str | Path) -> tuple[ConformationAutoencoder, dict[str, Any]]:
    """The model, on the CPU and ready for use, and its provenance. Raises DataError if the file is not such a one."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise DataError(
                f"{path}: got format {content['format']} version {content['version']}, expected {FORMAT} {VERSION}; "
                "train it again with this version (`make train-conformers`)"
            )
        model = ConformationAutoencoder(**json.loads(content["options"]))
        model.load_state_dict(content["state"])
        provenance = json.loads(content["provenance"])
    except (DataError, OSError):
        raise
    except Exception as error:  # torch and zipfile raise half a dozen kinds for a file that is not theirs
        raise DataError(
            f"{path}: is no conformation autoencoder ({error}); give the file that "
            "`python -m mdlatent.conformers.fit_autoencoder` writes"
        ) from error
    return model.eval(), provenance
