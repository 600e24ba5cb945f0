"""Training of the family `coordinate`: it only betters the start, and no interruption changes the result."""

import json
import signal

import numpy as np
import pytest
import torch

from coordinate_models import frames, prepared, rmsd_nm, trained
from frame_store import chain, write_store
from mdlatent import models, train, training
from mdlatent.errors import Interrupted
from mdlatent.feed import Feed, noise
from mdlatent.frames import FrameStore
from support import peak_growth
from training_parts import StopAfter


@pytest.fixture(autouse=True)
def _signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"signed_features": "dihedrals"}, {"kinetic_weight": 0.1, "lag_frames": 2},
        {"decoders": 3, "interpolate": True, "lag_frames": 1, "bond_tolerance": 0.05},
    ],
)  # fmt: skip
def test_gradient_reaches_every_parameter(store, options):
    model = prepared(store, **options)
    for network in (model.encoder, *model._networks()):  # zero layers let nothing through
        torch.nn.init.normal_(network[-1].weight, 0, 0.01)
    feed = Feed(store, np.arange(64), 16, lag_frames=model.lag_frames)
    model.loss(next(feed.batches(1)), 1e-2, torch.randn(16, model.n_noise))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_one_frame_can_be_learnt(store):
    model, coordinates = prepared(store, 2, refine_steps=0), frames(store, 350, 351)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(coordinates, 0.0, None)["loss"].backward()
        optimizer.step()
    assert 10 * float(rmsd_nm(model, coordinates)) < 0.02  # Å


def test_loss_is_a_mean_over_frames_whatever_the_batch(store):
    model, coordinates = prepared(store), frames(store, 0, 6)
    draw = torch.from_numpy(noise(0, 1, 0, (6, 3)))
    whole = model.loss(coordinates, 0.1, draw)
    halves = [model.loss(coordinates[part], 0.1, draw[part]) for part in (slice(0, 3), slice(3, 6))]
    for name in ("loss", "reconstruction", "kl_nats"):
        torch.testing.assert_close(whole[name], sum(half[name] for half in halves) / 2)


def test_training_betters_the_start_and_no_dimension_dies(helices):
    model, held_out = prepared(helices, 2), frames(helices, 340, 400)
    before = float(rmsd_nm(model, held_out).mean())
    result = trained(helices, model, epochs=20)
    assert result.weights.startswith("epoch")
    assert float(rmsd_nm(model, held_out).mean()) < 0.6 * before
    assert result.rows[-1]["active_dimensions"] == 2


def test_where_training_does_not_help_the_start_is_kept(store):
    """Few frames of pure noise: there is nothing to learn."""
    random = torch.Generator().manual_seed(0)
    rows = np.arange(30)
    model = prepared(store, rows=rows)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    honest = model.loss

    def misleading(coordinates, beta, draw):
        if draw is not None:
            coordinates = torch.randn(coordinates.shape, generator=random)
        return honest(coordinates, beta, draw)

    model.loss = misleading
    result = trained(store, model, train_rows=rows, validation_rows=range(50, 80), epochs=4)
    del model.loss
    assert result.weights.startswith("those before training (principal components)")
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_a_frame_far_from_all_others_does_not_blow_up(store):
    model = prepared(store)
    with torch.no_grad():
        model.encoder[-1].bias[3:] = 300.0
    parts = model.loss(frames(store, 0, 20), 1e-3, torch.ones(20, 3))
    parts["loss"].backward()
    assert torch.isfinite(parts["loss"])
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_three_atoms(tmp_path):
    coordinates = np.random.default_rng(0).standard_normal((120, 3, 3)).astype(np.float32)
    with FrameStore(write_store(tmp_path, {"a": coordinates})) as small:
        model = prepared(small, 2, rows=np.arange(80), signed_features="dihedrals")
        trained(small, model, train_rows=range(80), validation_rows=range(90, 120), epochs=2)
        z, error = model.embed(frames(small))
    assert z.shape == (120, 2)
    assert torch.isfinite(error).all()


def test_twelve_hundred_atoms_in_little_memory(tmp_path):
    with FrameStore(write_store(tmp_path, {"a": chain(80, 1208)})) as large, peak_growth() as memory:
        model = prepared(large, rows=np.arange(64))
        trained(large, model, train_rows=range(64), validation_rows=range(70, 80), epochs=1)
        assert torch.isfinite(model.embed(frames(large, 0, 8))[1]).all()
    assert memory["bytes"] < 0.2e9  # a batch of distance matrices would be as much
    assert model.n_parameters < 500_000


@pytest.mark.parametrize("n_atoms", [3, 4, 65, 101, 5000])
def test_parameters_and_features_are_linear_in_the_atoms(n_atoms):
    model = models.build("coordinate", n_atoms, 3)
    assert model.n_parameters <= models.build("coordinate", 5000, 3).n_parameters
    assert model.feature_mean.numel() <= 2016 + 6 * n_atoms


# Through the stages


def arguments(index, folder, options=None, **settings):
    settings = {"epochs": 4, "batch_size": 32, "checkpoint_epochs": 1, "device": "cpu", "patience_epochs": 3} | settings
    content = {
        "models": [{"family": "coordinate", "latent_dim": 2, "options": options or {}}],
        "train": settings,
        "split": {"gap_frames": 2},
    }
    return [
        "--frames", str(index), "--model", "coordinate-d2", "--seed", "0", "--options", json.dumps(content),
        "--output-dir", str(folder / "out"), "--checkpoints", str(folder / "checkpoints"),
        "--log", str(folder / "train.log"),
    ]  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"kinetic_weight": 0.1, "lag_frames": 3}], ids=["plain", "kinetic"])
def test_stopped_at_any_step_the_result_is_the_same(store, tmp_path, monkeypatch, options):
    anew = "never" if options else "always"  # and stopped in its midst
    train.main(arguments(store.path, tmp_path / "whole", options, refit=anew))
    monkeypatch.setattr(training, "StopSignal", lambda: StopAfter(5))
    stops = 0
    while not (tmp_path / "pieces/out/model.pt").exists():
        try:
            train.main(arguments(store.path, tmp_path / "pieces", options, refit=anew))
        except Interrupted:
            stops += 1
    assert stops >= (2 if options else 8)
    assert not (tmp_path / "pieces/checkpoints").exists()
    assert (tmp_path / "whole/out/model.pt").read_bytes() == (tmp_path / "pieces/out/model.pt").read_bytes()


def test_few_frames_are_no_error_and_never_worse_than_the_start(tmp_path):
    """30 frames: 11 for training, fewer than a batch."""
    with FrameStore(write_store(tmp_path / "frames", {"a": chain(30, 12)})) as few:
        train.main(arguments(few.path, tmp_path, batch_size=64, epochs=6))
        model, _ = models.load(tmp_path / "out/model.pt")
        rows = np.flatnonzero(np.isin(np.arange(30), [5, 17, 29]))
        assert torch.isfinite(rmsd_nm(model, torch.from_numpy(few.read(0, 30))[rows])).all()


def test_saved_model_comes_back_the_same(store, tmp_path):
    model, coordinates = prepared(store, signed_features="dihedrals", width=16).eval(), frames(store, 0, 9)
    models.save(tmp_path / "model.pt", model, {"atoms": ["A"]})
    again, _ = models.load(tmp_path / "model.pt")
    assert again.options == model.options
    for one, other in zip(model.embed(coordinates), again.embed(coordinates), strict=True):
        assert torch.equal(one, other)
