"""Say how large a model is and how much memory its training takes, before anything is trained.

The parameters are counted in the real network, built without memory; the memory is an estimate, see `model_memory`.
Numbers of bytes are for one process on a CPU.
"""

import argparse
import json
from typing import Any

from mdlatent import config, model_memory, stage
from mdlatent.errors import ConfigError


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, print the description."""
    parser = stage.parser("describe", __doc__)
    parser.add_argument("model", metavar="MODEL", help="family of the model")
    parser.add_argument("--n-atoms", type=int, required=True, help="number of atoms")
    parser.add_argument("--latent-dim", type=int, default=3, help="dimensions of the latent space")
    parser.add_argument("--options", default="{}", metavar="JSON", help="settings of the family")
    parser.add_argument("--batch-size", type=int, help="frames per step (default, that of section `train`)")
    parser.add_argument("--frames", type=int, default=0, help="training frames that are kept in memory")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    print_description(parser.parse_args(argv))


def print_description(args: argparse.Namespace) -> None:
    """Print what `describe` says. Raises ConfigError for options that are no JSON object."""
    try:
        options = json.loads(args.options)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--options: got {args.options[:80]!r}, which is not valid JSON: {error}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"--options: got {args.options[:80]!r}, expected a JSON object of the family's settings")
    result = describe(args.model, args.n_atoms, args.latent_dim, options, args.batch_size, args.frames)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    width = max(map(len, result))
    for name, value in result.items():
        print(f"{name:{width}}  {f'{value:,}' if isinstance(value, int) else '–' if value is None else value}")


def describe(
    family: str,
    n_atoms: int,
    latent_dim: int,
    options: dict[str, Any] | None = None,
    batch_size: int | None = None,
    n_frames: int = 0,
) -> dict[str, Any]:
    """What there is to say of a model; encoder and decoder are None where a family has no two parts.

    Raises ConfigError for an unknown family, wrong options, or sizes that do not fit it.
    """
    from mdlatent import models

    models.family_class(family)  # before its options are looked up
    options = config.family_options(family, options or {})
    batch_size = config.validate_part({"train": {}})["train"]["batch_size"] if batch_size is None else batch_size
    if batch_size < 1:
        raise ConfigError(f"--batch-size: got {batch_size}, expected at least 1")

    import torch
    from torch import nn

    with torch.device("meta"):
        model = models.build(family, n_atoms, latent_dim, options)
    convolutions = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
    parameters = {name: sum(value.numel() for value in part.parameters()) for name, part in model.parts().items()}
    layers = {
        name: sum(isinstance(layer, convolutions) for layer in part.modules()) for name, part in model.parts().items()
    }
    direct = model.fitted == "direct"
    if direct:
        memory = model_memory.direct_bytes(family, n_atoms, latent_dim, options, n_frames)
    else:
        sizes = model_memory.sizes(family, n_atoms, latent_dim, options)
        memory = model_memory.step_bytes(sizes, n_atoms, batch_size, n_frames)
    return {
        "model": family,
        "n_atoms": n_atoms,
        "latent_dim": latent_dim,
        "options": options,
        "encoder_parameters": parameters.get("encoder"),
        "decoder_parameters": parameters.get("decoder"),
        "total_parameters": model.n_parameters,
        "encoder_convolutions": layers.get("encoder"),
        "decoder_convolutions": layers.get("decoder"),
        "batch_size": None if direct else batch_size,
        "frames_in_one_pass": None if direct else model_memory.frames_in_one_pass(model.bytes_per_frame, batch_size),
        "training_memory_bytes": memory,
    }


if __name__ == "__main__":
    stage.run(main)
