"""Frames and models for the tests of the family `coordinate`."""

from pathlib import Path

import numpy as np
import torch

from frame_store import chain, write_store
from mdlatent import models, training
from mdlatent.alignment import align, centred
from mdlatent.feed import Feed

SETTINGS = {
    "epochs": 8, "batch_size": 32, "learning_rate": 3e-3, "weight_decay": 1e-4, "beta": 2e-3, "beta_warmup_epochs": 2,
    "checkpoint_epochs": 1, "ema_decay": 0.99, "patience_epochs": None,
}  # fmt: skip


def turning_chain(folder: Path) -> Path:
    """A chain of 12 atoms that bends, each frame somewhere else and turned; returns the index of its store."""
    coordinates = chain(400, 12)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((400, 3, 3)))[0]
    turn *= np.linalg.det(turn)[:, None, None]  # rotations
    coordinates = (coordinates @ turn + np.random.default_rng(2).standard_normal((400, 1, 3))).astype(np.float32)
    return write_store(folder, {"a": coordinates}, n_parts=2)


def breathing_helices(folder: Path) -> Path:
    """A right-handed helix that winds tighter and looser and stretches: two dimensions, far from linear."""
    random = np.random.default_rng(3)
    t, k = np.arange(400)[:, None], np.arange(14)[None]
    angle = np.deg2rad(90 + 10 * np.sin(t / 17)) * k
    rise = (0.15 + 0.05 * np.sin(t / 29)) * k
    coordinates = np.stack([0.25 * np.cos(angle), 0.25 * np.sin(angle), rise], -1)
    coordinates = (coordinates + 0.003 * random.standard_normal(coordinates.shape)).astype(np.float32)
    return write_store(folder, {"a": coordinates})


def prepared(store, latent_dim=3, seed=0, rows=None, **options):
    torch.manual_seed(seed)
    model = models.build("coordinate", store.n_atoms, latent_dim, options)
    model.prepare(store, np.arange(300) if rows is None else rows)
    return model


def trained(store, model, seed=0, train_rows=range(270), validation_rows=range(280, 330), **changes):
    lag = {"lag_frames": model.lag_frames}
    feed = Feed(store, np.array(train_rows), 32, seed, **lag)
    validation = Feed(store, np.array(validation_rows), 32, shuffle=model.lag_frames > 0, **lag)
    return training.train(model, feed, validation, SETTINGS | changes, seed)


def frames(store, start=0, stop=None):
    return torch.from_numpy(store.read(start, stop or store.n_frames))


@torch.no_grad()
def rmsd_nm(model, coordinates):
    decoded = model.decode_coordinates(model.encode(coordinates)[0])
    return (align(coordinates, centred(decoded)) - centred(decoded)).square().sum(2).mean(1).sqrt()


def linear_rmsd_nm(training_frames, coordinates, dim):
    """Principal components of superposed coordinates by plain numpy."""
    mean = centred(training_frames[:1])[0]
    for _ in range(20):
        mean = align(training_frames.double(), mean.double()).mean(0).float()
    flat = (align(training_frames, mean) - mean).flatten(1).double().numpy()
    centre = flat.mean(0)
    basis = np.linalg.svd(flat - centre, full_matrices=False)[2][:dim]
    x = (align(coordinates, mean) - mean).flatten(1).double().numpy()
    decoded = torch.from_numpy(((x - centre) @ basis.T @ basis + centre).reshape(coordinates.shape)).float() + mean
    return (align(coordinates, centred(decoded)) - centred(decoded)).square().sum(2).mean(1).sqrt()
