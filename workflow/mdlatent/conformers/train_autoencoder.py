"""Training of the conformation autoencoder, and the error of what it gives back, in Å.

Each epoch takes every molecule once with K of its conformers, drawn with replacement. AdamW, one epoch of warm-up and a
cosine; the same seed gives the same weights, bit for bit on one machine, also where a training is killed and goes on
from its checkpoint: what is drawn in an epoch follows from the seed and the epoch alone.
"""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mdlatent.checkpoint import Checkpoints
from mdlatent.conformers.autoencoder import ConformationAutoencoder, losses
from mdlatent.conformers.conformations import Conformers, symmetric_rmsd_angstrom
from mdlatent.conformers.examples import N_ADDRESSES, Batch, batch_of
from mdlatent.conformers.internal_values import Values, values, wrapped
from mdlatent.conformers.placing import place
from mdlatent.conformers.reconcile import reconcile
from mdlatent.errors import DataError
from mdlatent.optimizer import learning_rate

__all__ = ["COLUMNS", "Options", "reconstruct", "rmsd_angstrom", "train", "twist", "write_curve"]

log = logging.getLogger("mdlatent")

COLUMNS = (
    "epoch", "loss", "lengths", "angles", "dihedrals", "kl_nats", "learning_rate", "seconds", "seen_rmsd_angstrom",
    "unseen_rmsd_angstrom",
)  # fmt: skip
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Options:
    """How to train.

    `weights` are those of the three errors, in Å² and radians². The paper's are one each, and the dihedrals' error is
    then all that is felt for long: after 20 epochs on some 200 molecules lengths were off by 0.06 Å, with these weights
    by 0.03 Å.
    """

    epochs: int = 150
    n_molecules: int = 16  # in a batch
    n_conformers: int = 4  # of each of them
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    beta: float = 1e-3  # of the KL divergence, variational model only
    weights: tuple[float, float, float] = (100.0, 30.0, 1.0)
    twisted: float = 0.8  # share of the conformers whose free bonds are turned at random in the first epoch; falls to 0
    watch_every: int = 10  # epochs from one look at the held-out conformers to the next


Row = dict[str, float | int | str]


def train(
    model: ConformationAutoencoder,
    data: Sequence[Conformers],
    seen: Sequence[Conformers],
    unseen: Sequence[Conformers],
    options: Options,
    seed: int,
    curve: Path | None = None,
    checkpoints: Checkpoints | None = None,
) -> list[Row]:
    """Train `model` in place; rows of the learning curve (COLUMNS), written to `curve` as they come.

    `seen` are held-out conformers of molecules of `data`, `unseen` conformers of other molecules: their mean RMSD after
    reconstruction (rings closed by the tree alone) is watched, nothing is chosen by it. With `checkpoints`, which must
    be this training's own, it goes on from the last one. Raises DataError where `data` is empty or the loss stops being
    finite.
    """
    if not data:
        raise DataError("no molecule to train on; give molecules with at least one conformer each")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
    )
    n_batches = math.ceil(len(data) / options.n_molecules)
    rows: list[Row] = []
    if checkpoints and (state := checkpoints.load()):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        rows = state["rows"]
    begin = time.monotonic() - (float(rows[-1]["seconds"]) if rows else 0.0)
    for epoch in range(len(rows) + 1, options.epochs + 1):
        generator = np.random.default_rng((seed, epoch))
        draw = torch.Generator().manual_seed(int(generator.integers(2**62)))
        model.train()
        sums, rate = torch.zeros(5, dtype=torch.float64), 0.0
        order = generator.permutation(len(data))
        for i in range(n_batches):
            chosen = [data[k] for k in order[i * options.n_molecules : (i + 1) * options.n_molecules]]
            x = [
                c.coordinates_angstrom[generator.integers(len(c.coordinates_angstrom), size=options.n_conformers)]
                for c in chosen
            ]
            batch = batch_of([c.example for c in chosen], to_build=False)
            found = values(batch.internal, torch.cat(x, 1).float())
            if options.twisted:
                found = twist(batch, found, options.twisted * (1 - (epoch - 1) / options.epochs), draw)
            noise = torch.randn(options.n_conformers, len(chosen), model.latent_dim, generator=draw)
            decoded, kl = model(batch, found, noise)
            parts = losses(batch, decoded, found)
            loss = sum((w * part for w, part in zip(options.weights, parts, strict=True)), options.beta * kl.mean())
            rate = learning_rate(
                (epoch - 1) * n_batches + i, n_batches, options.epochs * n_batches, options.learning_rate
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
            sums += torch.stack([loss, *parts, kl.mean()]).detach().double()
        if not math.isfinite(float(sums[0])):
            raise DataError(f"the loss is no longer finite in epoch {epoch}; lower the learning rate ({rate:g})")
        named = dict(zip(COLUMNS[1:6], (sums / n_batches).tolist(), strict=True))
        row: Row = {"epoch": epoch, **named, "learning_rate": rate, "seconds": time.monotonic() - begin}
        if epoch % options.watch_every == 0 or epoch == options.epochs:
            for name, watched in (("seen", seen), ("unseen", unseen)):
                if watched:
                    row[f"{name}_rmsd_angstrom"] = float(rmsd_angstrom(model, watched).mean())
            log.info("%s", ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
        rows.append(row)
        if curve:
            write_curve(curve, rows)
        if checkpoints:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rows": rows}
            checkpoints.save({**state, "epoch": epoch, "step": epoch * n_batches})
    return rows


def twist(batch: Batch, found: Values, share: float, draw: torch.Generator) -> Values:
    """Values with the bonds outside rings turned by angles drawn uniformly, in a `share` of the conformers (K, M)."""
    k, m = len(found.dihedrals), batch.n_molecules
    turned = (torch.rand(k, m, 1, generator=draw) < share) * torch.rand(k, m, N_ADDRESSES, generator=draw)
    angle = 2 * torch.pi * turned[:, batch.dihedral_molecule, batch.address] * batch.free
    return found._replace(dihedrals=wrapped(found.dihedrals + angle))


def reconstruct(model: ConformationAutoencoder, conformers: Conformers) -> Values:
    """What the model gives back of the conformers of one molecule (without noise): decoded values."""
    model.eval()
    batch = batch_of([conformers.example])
    with torch.no_grad():
        return model(batch, values(batch.internal, conformers.coordinates_angstrom.float()))[0]


def rmsd_angstrom(model: ConformationAutoencoder, data: Sequence[Conformers], close_rings: bool = False) -> np.ndarray:
    """RMSD between conformers and their reconstruction, Å, least over symmetries: one per conformer, in order.

    Structures come from `place`, or with `close_rings` from `reconcile`.
    """
    found = []
    for conformers in data:
        internal, decoded = conformers.example.internal, reconstruct(model, conformers)
        built = reconcile(internal, decoded) if close_rings else place(internal, decoded)
        found.append(symmetric_rmsd_angstrom(conformers.molecule, built, conformers.coordinates_angstrom))
    return np.concatenate(found)


def write_curve(path: Path, rows: Sequence[Row]) -> None:
    """Learning curve as CSV, one row per epoch; what was not looked at in an epoch is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
