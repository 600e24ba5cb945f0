"""The convolutional autoencoder: the published sizes, any number of atoms, and a loss that means what it says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from frame_store import chain, write_store
from mdlatent import distances, models
from mdlatent.errors import ConfigError
from mdlatent.feed import noise
from mdlatent.frames import FrameStore
from mdlatent.models.conv2d import MatrixNorm, MemoryOrder
from mdlatent.models.matrix_vae import SCALE_MARGIN


def make(n_atoms=12, latent_dim=3, seed=0, scale_nm=6.0):
    torch.manual_seed(seed)
    model = models.build("conv2d", n_atoms, latent_dim)
    model.scale_nm.fill_(scale_nm)
    return model


def sizes(network):
    """Parameters of each layer that has any."""
    counts = [sum(p.numel() for p in layer.parameters()) for layer in network]
    return [count for count in counts if count]


def test_parameters_are_those_of_the_published_model():
    with torch.device("meta"):  # shapes without memory: the real thing takes 1.6 GB
        model = models.build("conv2d", 1068, 50)
    assert sizes(model.encoder) == [80, 18_249_984, 1_168, 9_124_992, 4_640, 4_562_496, 228_124_900]
    assert sizes(model.decoder) == [116_343_648, 4_562_496, 4_624, 9_124_992, 1_160, 18_249_984, 73]
    assert sum(sizes(model.encoder)) == 260_068_260
    assert sum(sizes(model.decoder)) == 148_286_977
    assert model.n_parameters == 408_355_237


def test_selu_stands_between_convolution_and_norm():
    model = make()
    for network in (model.encoder, model.decoder):
        layers = [type(layer) for layer in network if not isinstance(layer, nn.Unflatten | MemoryOrder)]
        places = [k for k, kind in enumerate(layers) if kind is MatrixNorm]
        assert len(places) == 3
        assert all(layers[k - 1] is nn.SELU for k in places)
    assert isinstance(model.decoder[-1], nn.Sigmoid)


@pytest.mark.parametrize("n_atoms", [7, 40])
def test_same_numbers_as_its_plain_form(monkeypatch, n_atoms):
    """The order in memory makes it faster, and changes neither loss nor gradients."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from plain_conv2d import largest_difference

    assert largest_difference(n_atoms, torch.from_numpy(chain(4, n_atoms))) < 1e-4


@pytest.mark.parametrize("n_atoms", range(3, 42))
def test_any_number_of_atoms(n_atoms):
    model = make(n_atoms, 2)
    coordinates = torch.from_numpy(chain(2, n_atoms))
    mean, log_variance = model.encode(coordinates)
    assert mean.shape == log_variance.shape == (2, 2)
    assert model.decode(mean).shape == (2, n_atoms * (n_atoms - 1) // 2)
    assert torch.isfinite(model.loss(coordinates, 1e-3, torch.zeros(2, 2))["loss"])


@pytest.mark.parametrize(("n_atoms", "latent_dim", "says"), [(2, 3, "at least 3"), (5, 0, "at least 1")])
def test_sizes_that_cannot_be_are_refused(n_atoms, latent_dim, says):
    with pytest.raises(ConfigError, match=says):
        models.build("conv2d", n_atoms, latent_dim)


def test_unknown_family_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"conv3d.*conv2d, resnet1d"):
        models.build("conv3d", 10, 3)


def test_gradient_reaches_every_parameter():
    model = make()
    model.loss(torch.from_numpy(chain(4, 12)), 1e-2, torch.randn(4, 3))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_one_frame_can_be_learnt():
    model, coordinates = make(), torch.from_numpy(chain(1, 12))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        model.loss(coordinates, 0.0, None)["loss"].backward()
        optimizer.step()
    assert float(model.embed(coordinates)[1][0]) < 0.02


def test_loss_is_a_mean_over_frames_whatever_the_batch():
    model, coordinates = make(), torch.from_numpy(chain(6, 12))
    draw = torch.from_numpy(noise(0, 1, 0, (6, 3)))
    whole = model.loss(coordinates, 0.1, draw)
    halves = [model.loss(coordinates[part], 0.1, draw[part]) for part in (slice(0, 3), slice(3, 6))]
    for name in ("loss", "reconstruction", "kl_nats"):
        torch.testing.assert_close(whole[name], sum(half[name] for half in halves) / 2)


def test_loss_terms_against_their_definitions():
    model, coordinates = make(), torch.from_numpy(chain(5, 12))
    parts = model.loss(coordinates, 0.25, None)
    mean, log_variance = (value.detach().double().numpy() for value in model.encode(coordinates))
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)
    assert parts["kl_nats"].item() == pytest.approx(kl.sum(1).mean(), rel=1e-5)
    error_nm = model.embed(coordinates)[1].double().numpy()
    assert parts["reconstruction"].item() == pytest.approx(np.mean(error_nm**2) / 6.0**2, rel=1e-4)
    assert parts["loss"].item() == pytest.approx(parts["reconstruction"].item() + 0.25 * parts["kl_nats"].item())


def test_map_ignores_position_and_orientation():
    model, coordinates = make(), chain(3, 12)
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))
    moved = (coordinates @ turn + [3.0, -2.0, 5.0]).astype(np.float32)
    here, there = (model.encode(torch.from_numpy(x))[0] for x in (coordinates, moved))
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)


def test_scale_lies_above_the_largest_training_distance(tmp_path):
    coordinates = chain(300, 12)
    with FrameStore(write_store(tmp_path, {"a": coordinates}, n_parts=2)) as store:
        model = make()
        model.prepare(store, np.arange(50, 200))
    assert float(model.scale_nm) == pytest.approx(SCALE_MARGIN * distances.packed(coordinates[50:200]).max(), rel=1e-6)


def test_saved_model_comes_back_the_same(tmp_path):
    model, coordinates = make().eval(), torch.from_numpy(chain(3, 12))
    models.save(tmp_path / "a" / "model.pt", model, {"atoms": ["A"]})
    models.save(tmp_path / "b.pt", model, {"atoms": ["A"]})
    assert (tmp_path / "a" / "model.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    again, metadata = models.load(tmp_path / "b.pt")
    assert metadata == {"atoms": ["A"]}
    assert not again.training
    assert torch.equal(again.embed(coordinates)[1], model.embed(coordinates)[1])
    assert float(again.scale_nm) == 6.0
