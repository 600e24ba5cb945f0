"""Write a trained encoder as one file of TorchScript that needs nothing but torch: coordinates in, latent out.

It computes its own features (distances, superposition), so that a simulation program can follow or bias the latent
while it runs; gradients with respect to the coordinates flow. Coordinates are those of the atoms that the model was
trained on, in its order, in nm, molecules whole. --for says which program reads it:

plain    (N, 3), (B, N, 3), (3N,) or (B, 3N) → (B, d); also for PLUMED's PYTORCH_MODEL
plumed   the same, always float32, and with --atoms an input file for PLUMED beside it
openmm   positions of all particles (n, 3) of any precision → one latent coordinate, a scalar; for OpenMM-Torch

What it is, is kept in the file itself, as JSON under the name mdlatent.json. See docs/export.md.
"""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlatent import __version__, files, stage
from mdlatent.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from mdlatent.models.base import LatentModel

log = logging.getLogger("mdlatent")

ABOUT = "mdlatent.json"
CONVENTIONS = ("plain", "plumed", "openmm")
RUNS = 4  # from the second on, TorchScript runs what it made of the recorded code
GRADIENT_TOLERANCE = 1e-3  # relative to its largest element
TOLERANCE = 1e-5  # relative to the largest latent coordinate of the frames that are tried


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, trace, check, write."""
    parser = stage.parser("export", __doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a trained model")
    parser.add_argument("--output", type=Path, required=True, help="TorchScript file to write")
    parser.add_argument("--for", dest="convention", choices=CONVENTIONS, default="plain", help="who reads it")
    parser.add_argument("--frames", type=Path, help="index.json of the frame store: its frames are tried")
    parser.add_argument("--atoms", type=Path, help="atoms.json of a simulation: numbers of the atoms in the system")
    parser.add_argument("--simulation", help="which simulation of --atoms (default, the first)")
    parser.add_argument("--component", type=int, default=0, help="latent coordinate, for openmm (counts from 0)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="precision inside")
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)

    from mdlatent import models

    model, metadata = models.load(args.model)
    if args.convention == "plumed" and args.dtype != "float32":
        raise ConfigError("--dtype: got float64, expected float32, the only precision that PLUMED reads")
    if args.convention == "openmm" and not 0 <= args.component < model.latent_dim:
        raise ConfigError(f"--component: got {args.component}, expected 0 to {model.latent_dim - 1}")
    indices = atom_indices(args.atoms, args.simulation, metadata["atoms"]) if args.atoms else None
    frames = some_frames(args.frames, metadata, model.n_atoms, args.model)
    traced = trace(model, frames, args.convention, args.dtype, indices, args.component)
    about = {
        **{name: metadata.get(name) for name in ("model", "seed", "data_sha256")},
        "family": model.family,
        "options": model.options,
        "latent_dim": model.latent_dim,
        "n_atoms": model.n_atoms,
        "atoms": metadata["atoms"],
        "indices": indices,
        "length_unit": "nm",
        "for": args.convention,
        "dtype": args.dtype,
        "component": args.component if args.convention == "openmm" else None,
        "mdlatent": __version__,
    }
    write(args.output, traced, about)
    log.info("%s: encoder of %s for %s, %s", args.output, about["model"], args.convention, args.dtype)
    if args.convention == "plumed" and indices is not None:
        path = args.output.with_suffix(".plumed.dat")
        files.write_text(path, plumed_input(args.output.name, indices, model.latent_dim))
        log.info("%s: its input for PLUMED", path)


def wrapper(
    model: "LatentModel", convention: str, dtype: str, indices: Sequence[int] | None = None, component: int = 0
) -> "torch.nn.Module":
    """A module on coordinates as the convention has them, see the head of this file; the model is copied.

    `indices` are places of the model's atoms among the particles of a system; None takes the particles as they are.
    """
    import copy

    import torch
    from torch import Tensor

    precision = getattr(torch, dtype)

    class Encoder(torch.nn.Module):
        """Coordinates in nm → latent (B, d)."""

        def __init__(self) -> None:
            super().__init__()
            self.model = _encoder_alone(copy.deepcopy(model).to("cpu").eval()).to(precision).requires_grad_(False)

        def forward(self, coordinates: Tensor) -> Tensor:
            return self.model.encode(coordinates.to(precision).reshape(-1, model.n_atoms, 3))[0]

    class Component(Encoder):
        """Positions (n, 3) of all particles in nm → one latent coordinate, a scalar."""

        def __init__(self) -> None:
            super().__init__()
            chosen = torch.arange(model.n_atoms) if indices is None else torch.tensor(indices)
            self.indices: Tensor
            self.register_buffer("indices", chosen)

        def forward(self, coordinates: Tensor) -> Tensor:
            return super().forward(coordinates[self.indices])[0, component]

    return (Component if convention == "openmm" else Encoder)().eval()


def _encoder_alone(model: "LatentModel") -> "LatentModel":
    """The model without the modules and tensors that `encode` does not read: decoders are as large as encoders."""
    import torch

    example = torch.tensor(chains(2, model.n_atoms), dtype=torch.float32)
    with torch.no_grad():
        wanted = model.encode(example)[0]
        for held in (model._modules, model._parameters, model._buffers):
            for name in list(held):
                kept = held.pop(name)
                try:
                    needed = not torch.equal(model.encode(example)[0], wanted)
                except Exception:  # whatever a family's code raises where something is missing
                    needed = True
                if needed:
                    held[name] = kept  # type: ignore[assignment]
    return model


def trace(
    model: "LatentModel",
    frames: "np.ndarray",
    convention: str = "plain",
    dtype: str = "float32",
    indices: Sequence[int] | None = None,
    component: int = 0,
) -> "torch.jit.ScriptModule":
    """The encoder as TorchScript, recorded on the first of the `frames` (k ≥ 2, N, 3) nm and tried on the others.

    Raises DataError if it does not give what the model gives, for single frames and for several at once.
    """
    import numpy as np
    import torch

    from mdlatent import recording

    module = wrapper(model, convention, dtype, indices, component)
    if convention == "openmm":
        # A system has at least the particles that the indices name; the others are put out of the way.
        system = np.full((len(frames), max(indices) + 1 if indices else model.n_atoms, 3), 100.0)
        system[:, indices if indices else slice(None)] = frames
        inputs = torch.tensor(system, dtype=torch.float32)
        examples, example = list(inputs), inputs[0]
    else:
        inputs = torch.tensor(frames, dtype=torch.float32)
        examples, example = [*inputs, inputs.flatten(1)[:1], inputs[0].flatten(), inputs, inputs.flatten(1)], inputs[:1]
    module(example)  # what is kept from a first call must not be recorded
    with _without_warnings(), recording.substitutes(recording.hold_constants(module, example)):
        traced = torch.jit.trace(module, example, check_trace=False)
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer)
        buffer.seek(0)
        traced = torch.jit.load(buffer)  # tried as it will be used: what is loaded is run differently
    # Before anything without gradient, for TorchScript adapts what it makes of the code to its first runs.
    wanted_gradient = _gradient(module, example)
    for _ in range(RUNS):
        try:
            error = float((_gradient(traced, example) - wanted_gradient).abs().max())
        except RuntimeError as failure:  # whatever TorchScript's interpreter meets
            raise DataError(f"the recorded encoder of {model.family} gives no gradient: {failure}") from failure
        if not error <= GRADIENT_TOLERANCE * float(wanted_gradient.abs().max()):
            raise DataError(f"the recorded encoder of {model.family} has another gradient than the model itself")
    with torch.no_grad():
        wanted = [module(x) for x in examples]
        scale = max(float(z.abs().max()) for z in wanted)
        for x, z in zip(examples, wanted, strict=True):
            got = traced(x)
            if got.shape != z.shape or not float((got - z).abs().max()) <= TOLERANCE * scale:
                raise DataError(
                    f"the recorded encoder of {model.family} gives other values than the model itself for input of "
                    f"shape {tuple(x.shape)}; its `encode` does something that depends on the values"
                )
    return traced


def _gradient(module: "torch.nn.Module", coordinates: "torch.Tensor") -> "torch.Tensor":
    import torch

    x = coordinates.clone().requires_grad_(True)
    return torch.autograd.grad(module(x).sum(), x)[0]


def write(path: Path, traced: "torch.jit.ScriptModule", about: dict[str, Any]) -> None:
    """Write the TorchScript file with `about` in it, in one step."""
    import torch

    buffer = io.BytesIO()  # with a path, torch writes its name into the file, and ours is a temporary one
    with _without_warnings():
        torch.jit.save(traced, buffer, _extra_files={ABOUT: json.dumps(about, indent=1)})
    with files.write_beside(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Shapes are meant to be recorded as constants, and TorchScript is what PLUMED and OpenMM-Torch read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def atom_indices(path: Path, simulation: str | None, atoms: Sequence[str]) -> list[int]:
    """Numbers (from 0) of the model's atoms in the system of a simulation, from its atoms.json.

    Raises DataError if there is no such simulation or its atoms are not those that the model was trained on.
    """
    content = files.read_json(path)["simulations"]
    name = simulation or next(iter(content))
    if name not in content:
        raise DataError(f"{path}: got simulation {name!r}, expected one of: {', '.join(content)}")
    if content[name]["atoms"] != list(atoms):
        raise DataError(f"{path}: the atoms of {name!r} are not those that the model was trained on; take its own file")
    return [int(index) for index in content[name]["indices"]]


def some_frames(index: Path | None, metadata: dict[str, Any], n_atoms: int, model: Path) -> "np.ndarray":
    """Five structures (5, N, 3) nm to try the encoder on: frames of the store, or without one random chains."""
    import numpy as np

    if index is None:
        return chains(5, n_atoms)
    from mdlatent.embed import check_atoms
    from mdlatent.feed import read_rows
    from mdlatent.frames import FrameStore

    with FrameStore(index) as store:
        check_atoms(store, metadata, model)
        return read_rows(store, np.linspace(0, store.n_frames - 1, 5).astype(np.int64))


def chains(n: int, n_atoms: int) -> "np.ndarray":
    """Random chains with steps of 0.38 nm, as between CA atoms, always the same: (n, n_atoms, 3) nm."""
    import numpy as np

    steps = np.random.default_rng(0).standard_normal((n, n_atoms, 3))
    return np.cumsum(0.38 * steps / np.linalg.norm(steps, axis=2, keepdims=True), axis=1)


def plumed_input(file: str, indices: Sequence[int], latent_dim: int) -> str:
    """Input for PLUMED that computes the latent z.node-0 … from the atoms with these numbers (from 0) and prints it."""
    numbers = [index + 1 for index in indices]  # PLUMED counts from 1
    lines = [
        "UNITS LENGTH=nm",
        "# Whole molecules: list those with mapped atoms; the order must follow the chain.",
        f"WHOLEMOLECULES ENTITY0={','.join(map(str, numbers))}",
        *(f"p{k}: POSITION ATOM={number} NOPBC" for k, number in enumerate(numbers)),
        f"z: PYTORCH_MODEL FILE={file} ARG=" + ",".join(f"p{k}.{x}" for k in range(len(numbers)) for x in "xyz"),
        "PRINT FILE=COLVAR STRIDE=100 ARG=" + ",".join(f"z.node-{k}" for k in range(latent_dim)),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    stage.run(main)
