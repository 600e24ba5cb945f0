"""The residual autoencoder with 1-D convolutions: published size, any length, batch norm that depends on no share."""

import numpy as np
import pytest
import torch
from torch import nn

from frame_store import chain, write_store
from mdlatent import config, models, training
from mdlatent.errors import Interrupted
from mdlatent.feed import Feed
from mdlatent.frames import FrameStore
from mdlatent.models.batch_norm import EPSILON, BatchNorm, settle
from mdlatent.optimizer import learning_rate
from training_parts import StopAfter

SMALL = {"encoder_filters": 16, "decoder_filters": 16}
SETTINGS = {
    "epochs": 4, "batch_size": 16, "learning_rate": 2e-3, "weight_decay": 0.0, "beta": 1e-6, "beta_warmup_epochs": 0,
    "checkpoint_epochs": 1,
}  # fmt: skip


def make(n_atoms=12, latent_dim=3, scale_nm=6.0, **options):
    torch.manual_seed(0)
    model = models.build("resnet1d", n_atoms, latent_dim, SMALL | options)
    model.scale_nm.fill_(scale_nm)
    return model


def alone(values):
    """The sum over one process."""
    return values


def convolutions(network):
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv1d)]


def test_size_is_that_of_the_published_model():
    with torch.device("meta"):
        model = models.build("resnet1d", 1200, 150)
    assert len(convolutions(model.encoder)) == 45
    assert model.n_parameters == pytest.approx(111e6, rel=0.02)
    assert model.n_parameters == 110_757_094
    assert convolutions(model.encoder)[0].in_channels == 1200
    assert convolutions(model.encoder)[-1].out_channels == 2 * 150
    widths = [block.skip.out_channels for block in model.encoder if hasattr(block, "skip")]
    assert widths == [round(400 * 1.09**k) for k in range(11)]
    decoder = [block for block in model.decoder if hasattr(block, "skip")]
    assert [block.skip.out_channels for block in decoder] == [1200] * 3


def test_defaults_of_class_and_schema_agree():
    assert models.build("resnet1d", 5, 1).options == config.family_options("resnet1d", {})


@pytest.mark.parametrize("n_atoms", [*range(3, 18), 31, 32, 33])
@pytest.mark.parametrize("batch", [1, 3])
def test_any_number_of_atoms_and_frames(n_atoms, batch):
    model, coordinates = make(n_atoms, 2), torch.from_numpy(chain(batch, n_atoms))
    parts = model.loss(coordinates, 1e-3, torch.randn(batch, 2))
    parts["loss"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    model.settle(alone)
    z, error_nm = model.eval().embed(coordinates)
    assert z.shape == (batch, 2)
    assert torch.isfinite(error_nm).all()
    assert model.decode(z).shape == (batch, n_atoms * (n_atoms - 1) // 2)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    "options",
    [
        {"encoder_blocks": 1}, {"encoder_blocks": 2}, {"encoder_blocks": 7}, {"decoder_blocks": 1},
        {"decoder_blocks": 6}, {"encoder_kernel": 1, "decoder_kernel": 5}, {"encoder_kernel": 2},
        {"encoder_growth": 0.1}, {"encoder_growth": 2.0},
    ],
    ids=str,
)  # fmt: skip
def test_every_option_gives_a_model_that_learns(options):
    model, coordinates = make(11, 2, **options), torch.from_numpy(chain(8, 11))
    model.loss(coordinates, 1e-3, torch.randn(8, 2))["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_gradient_reaches_every_parameter():
    model = make()
    model.loss(torch.from_numpy(chain(4, 12)), 1e-2, torch.randn(4, 3))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_one_frame_can_be_learnt():
    """A batch of one frame, at whose end the sequence has length 1: training and use agree all the same."""
    model, coordinates = make(12, 3, **config.family_options("resnet1d", {})), torch.from_numpy(chain(1, 12))
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(100):
        optimizer.param_groups[0]["lr"] = learning_rate(step, 10, 100, 3e-3)
        optimizer.zero_grad()
        model.loss(coordinates, 0.0, None)["loss"].backward()
        optimizer.step()
        model.settle(alone)
    assert float(model.eval().embed(coordinates)[1][0]) < 0.1  # of distances up to 3 nm


def test_small_data_set_is_learnt_without_collapse_at_the_defaults(tmp_path):
    """As a user would train it, on few frames for few epochs: all three dimensions in use, better than no model."""
    values = config.validate_part({"train": {"epochs": 10, "device": "cpu"}})
    with FrameStore(write_store(tmp_path, {"a": chain(300, 12)})) as store:
        torch.manual_seed(0)
        model = models.build("resnet1d", 12, 3)
        model.prepare(store, np.arange(240))
        feed, held_out = Feed(store, np.arange(240), 32), Feed(store, np.arange(250, 300), 32, shuffle=False)
        rows = training.train(model, feed, held_out, values["train"], 0).rows
        spread = store.read(0, 240)
    assert rows[-1]["active_dimensions"] == 3
    assert rows[-1]["validation_reconstruction"] < 0.5 * rows[0]["validation_reconstruction"]
    frames = torch.from_numpy(spread)
    distances_nm = torch.cdist(frames, frames)
    no_model = float(distances_nm.var(0).sum() / (12 * 11) / model.scale_nm**2)
    assert rows[-1]["train_reconstruction"] < 0.5 * no_model


def test_saved_model_comes_back_the_same(tmp_path):
    model, coordinates = make(), torch.from_numpy(chain(5, 12))
    for _ in range(3):
        model.loss(coordinates, 0.0, None)
        model.settle(alone)
    models.save(tmp_path / "model.pt", model.eval(), {})
    again, _ = models.load(tmp_path / "model.pt")
    assert again.options == model.options
    assert all(map(torch.equal, again.embed(coordinates), model.embed(coordinates)))


def test_what_is_mapped_does_not_depend_on_the_frames_beside_it():
    model, coordinates = make(), torch.from_numpy(chain(6, 12))
    model.loss(coordinates, 0.0, None)
    model.settle(alone)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    together, _ = model.eval().embed(coordinates)
    torch.testing.assert_close(torch.cat([model.embed(frame[None])[0] for frame in coordinates]), together)
    assert torch.equal(model.embed(coordinates)[0], together)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# Batch norm


def test_norm_is_torch_s_own():
    x = torch.randn(5, 4, 7) * 3 + 1
    ours, theirs = BatchNorm(4), nn.BatchNorm1d(4, eps=EPSILON)
    torch.testing.assert_close(ours(x), theirs(x))
    settle([ours], alone)
    torch.testing.assert_close(ours.running_mean.float(), x.mean((0, 2)))
    variance = ours.running_square - ours.running_mean.square()
    torch.testing.assert_close(variance.float(), x.var((0, 2), unbiased=False), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.eval()(x), theirs(x), rtol=1e-3, atol=1e-4)


def test_statistics_do_not_depend_on_how_a_batch_was_shared_out():
    whole, pieces, shares = BatchNorm(3), BatchNorm(3), [BatchNorm(3) for _ in range(3)]
    for _ in range(4):
        x = torch.randn(7, 3, 5) * torch.rand(3, 1) + torch.randn(3, 1)
        whole(x)
        settle([whole], alone)
        for piece in x.split(2):
            pieces(piece)
        settle([pieces], alone)
        for norm, share in zip(shares[:2], (x[0::2], x[1::2]), strict=True):  # the third process has none
            norm(share)
        sums = [norm.pending if norm.pending is not None else torch.zeros(7, dtype=torch.float64) for norm in shares]
        total = torch.stack(sums).sum(0)
        for norm in shares:
            settle([norm], lambda mine, total=total: total)
    for norm in (pieces, *shares):
        torch.testing.assert_close(norm.running_mean, whole.running_mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.running_square, whole.running_square, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(norm.running_square, shares[0].running_square) for norm in shares)


def test_batches_of_one_frame_have_statistics_too():
    """Length 1: no variance within a batch, but between them."""
    norm = BatchNorm(2)
    values = torch.randn(400, 2) * torch.tensor([0.5, 2.0]) + torch.tensor([3.0, -1.0])
    for value in values:
        assert norm(value[None, :, None]).abs().max() < 1e-3
        settle([norm], alone)
    assert torch.allclose(norm.running_mean, torch.tensor([3.0, -1.0]).double(), atol=1.5)
    assert ((norm.running_square - norm.running_mean.square()) > 0.01).all()


def test_stopped_in_an_epoch_and_going_on_the_bits_are_the_same(tmp_path):
    from mdlatent.checkpoint import Checkpoints

    with FrameStore(write_store(tmp_path / "frames", {"a": chain(100, 9)})) as store:

        def run(checkpoints=None, stop=False):
            model = make(9, 2)
            feed, held_out = Feed(store, np.arange(70), 16), Feed(store, np.arange(80, 100), 16, shuffle=False)
            trained = training.train(model, feed, held_out, SETTINGS, 0, checkpoints, stop=stop)
            return model.state_dict(), [{**row, "seconds": 0} for row in trained.rows]

        whole = run()
        checkpoints = Checkpoints(tmp_path / "checkpoints", "0" * 16)
        with pytest.raises(Interrupted):
            run(checkpoints, StopAfter(8))
        again = run(checkpoints)
    assert again[1] == whole[1]
    assert all(torch.equal(value, again[0][name]) for name, value in whole[0].items())
