"""On a GPU: a CPU's numbers to rounding, the same bits every time, also resumed, and NCCL. Skipped without one."""

import json
import signal

import numpy as np
import pytest
import torch
import yaml

import launchers
from frame_store import chain, write_store
from mdlatent import (
    ddp_group,
    distances,
    embed,
    export,
    launch,
    lifeline,
    models,
    parallel,
    replay,
    synthetic,
    train,
    training,
)
from mdlatent.alignment import align
from mdlatent.checkpoint import Checkpoints
from mdlatent.device import choose_device
from mdlatent.errors import ConfigError, Interrupted
from mdlatent.feed import Feed
from mdlatent.frames import FrameStore
from mdlatent.models.matrix_norm import MatrixNorm
from training_parts import Sgd, StopAfter

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

N_ATOMS = 24
SETTINGS = {
    "epochs": 3, "batch_size": 32, "learning_rate": 1e-3, "weight_decay": 1e-3, "beta": 1e-4, "beta_warmup_epochs": 1,
    "checkpoint_epochs": 1,
}  # fmt: skip
# name → family, options, settings
MODELS = {
    "coordinate": ("coordinate", {}, {"ema_decay": 0.9}),
    "coordinate, all options": (
        "coordinate",
        {"error": "rmsd", "decoders": 2, "interpolate": True, "lag_frames": 1, "bond_tolerance": 0.03, "noise": 0.2},
        {"ema_decay": 0.9},
    ),
    "coordinate, kinetic": ("coordinate", {"kinetic_weight": 0.1, "lag_frames": 3}, {}),
    "coordinate, dihedrals": ("coordinate", {"signed_features": "dihedrals"}, {}),
    "conv2d": ("conv2d", {}, {}),
    "resnet1d": ("resnet1d", {}, {}),
    "conv2d, bf16": ("conv2d", {}, {"precision": "bf16"}),
    "resnet1d, bf16": ("resnet1d", {}, {"precision": "bf16"}),
}  # fmt: skip
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module", autouse=True)
def _reproducible():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    choose_device("cuda", 1)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    simulations = {"a": chain(400, N_ATOMS), "b": chain(150, N_ATOMS, 1)}
    return write_store(tmp_path_factory.mktemp("frames"), simulations, n_parts=2)


def learned(index, name, device, checkpoints=None, stop=False, group=None):
    """A model after a short training, and the rows of its history."""
    family, options, more = MODELS[name]
    settings = SETTINGS | more
    torch.manual_seed(5)
    with FrameStore(index) as store:
        model = models.build(family, store.n_atoms, 2, options)
        model.precision = settings.get("precision", "float32")
        model.prepare(store, np.arange(400))
        share = {"device": device, "lag_frames": model.lag_frames}
        feed = Feed(store, np.arange(400), settings["batch_size"], 5, **share)
        validation = Feed(store, np.arange(400, 500), 64, shuffle=model.lag_frames > 0, **share)
        model.to(device)
        trained = training.train(model, feed, validation, settings, 5, checkpoints, stop=stop, group=group)
    return model, trained.rows


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return all(torch.equal(a[key].cpu(), b[key].cpu()) for key in a)


@every_model
def test_same_bits_every_time(index, name):
    first, second = learned(index, name, "cuda")[0], learned(index, name, "cuda")[0]
    assert same(first, second)


@every_model
def test_replayed_steps_are_the_same_bits(index, monkeypatch, name):
    recorded = []

    class Graph(torch.cuda.CUDAGraph):
        def replay(self):
            recorded.append(self)
            super().replay()

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    replayed = learned(index, name, "cuda")[0]
    assert len(set(recorded)) == (name != "coordinate, kinetic")
    assert len(recorded) in (0, 3 * (400 // 32) - replay.STARTED)
    monkeypatch.setattr(replay, "fits", lambda *of: False)
    assert same(replayed, learned(index, name, "cuda")[0])


@every_model
def test_stopped_and_resumed_the_bits_are_the_same(index, tmp_path, name):
    through = learned(index, name, "cuda")[0]
    checkpoints = Checkpoints(tmp_path, "0123456789abcdef")
    with pytest.raises(Interrupted):
        learned(index, name, "cuda", checkpoints, StopAfter(17))
    assert checkpoints.load() is not None
    assert same(learned(index, name, "cuda", checkpoints)[0], through)


@every_model
def test_learns_what_a_cpu_learns(index, monkeypatch, name):
    monkeypatch.setattr(torch.optim, "AdamW", Sgd)
    monkeypatch.setattr(replay, "fits", lambda *of: False)  # with which such steps do not go
    (_, on_gpu), (_, on_cpu) = learned(index, name, "cuda"), learned(index, name, "cpu")
    allowed = 2e-2 if name.endswith("bf16") else 1e-4
    for here, there in zip(on_gpu, on_cpu, strict=True):
        for key in ("train_loss", "validation_loss"):
            assert here[key] == pytest.approx(there[key], rel=allowed), (name, here["epoch"], key)


@every_model
def test_maps_as_a_cpu_maps(index, name):
    model = learned(index, name, "cpu")[0].eval()
    with FrameStore(index) as store:
        frames = torch.from_numpy(store.read(400, 550))
    z, error_nm = model.embed(frames)
    z_gpu, error_gpu_nm = model.to("cuda").embed(frames.to("cuda"))
    torch.testing.assert_close(z_gpu.cpu(), z, rtol=1e-3, atol=1e-4 * float(z.abs().max()))
    torch.testing.assert_close(error_gpu_nm.cpu(), error_nm, rtol=1e-3, atol=1e-5)


def test_one_after_the_other_by_the_command(index, tmp_path):
    """`train` takes the GPU by itself and notes it; `embed` maps with what it wrote, on either device alike."""
    options = {
        "models": [{"family": "coordinate", "latent_dim": 2}],
        "train": {"epochs": 2, "batch_size": 32},
        "split": {"gap_frames": 2},
    }
    out = tmp_path / "out"
    words = ["--frames", str(index), "--model", "coordinate-d2", "--options", json.dumps(options)]
    train.main([*words, "--output-dir", str(out)])
    record = yaml.safe_load((out / "config.yaml").read_text())
    assert record["versions"]["gpu"] == torch.cuda.get_device_name()
    assert 0 < record["measured"]["peak_memory_gb"] < 2
    import pandas

    tables = []
    for device in ("cuda", "cpu"):
        path = tmp_path / f"{device}.parquet"
        words = ["--frames", str(index), "--model", str(out / "model.pt"), "--simulation", "a"]
        embed.main([*words, "--output", str(path), "--device", device])
        tables.append(pandas.read_parquet(path))
    for column in ("z0", "z1", "reconstruction_rmse_nm"):
        np.testing.assert_allclose(tables[0][column], tables[1][column], rtol=1e-3, atol=1e-4)


def test_rotations_are_those_of_a_cpu():
    """Also of mirror images, of atoms on a line and of all in one place, where several are best."""
    random = torch.Generator().manual_seed(0)
    target = torch.randn(500, 12, 3, generator=random, dtype=torch.float64)
    moved = target + 0.3 * torch.randn(500, 12, 3, generator=random, dtype=torch.float64)
    moved[100:200] *= torch.tensor([1.0, 1.0, -1.0])
    moved[200:300, :, :2] = 0
    moved[300:301] = 0
    here = align(moved.to("cuda"), target.to("cuda")).cpu()
    there = align(moved, target)
    errors = [(one - target).square().sum((1, 2)) for one in (here, there)]
    torch.testing.assert_close(*errors, rtol=1e-6, atol=0)
    torch.testing.assert_close(here[:200], there[:200], rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_atoms", [20, 400, 1208])
def test_distances_are_exact(n_atoms):
    """Relative error, diagonal, symmetry; far from the origin."""
    frames = synthetic.random_walks(4, n_atoms, np.random.default_rng(0)) + np.float32(50)
    found = distances.full_torch(torch.from_numpy(frames).to("cuda")).cpu().numpy()
    exact = np.linalg.norm(frames[:, :, None].astype(float) - frames[:, None], axis=-1)
    apart = exact > 0
    assert np.abs(found[apart] / exact[apart] - 1).max() <= 3e-7
    assert not np.diagonal(found, axis1=1, axis2=2).any()
    assert np.array_equal(found, found.transpose(0, 2, 1))
    i, j = np.triu_indices(n_atoms, 1)
    packed = distances.packed_torch(torch.from_numpy(frames).to("cuda")).cpu().numpy()
    assert np.abs(packed / exact[:, i, j] - 1).max() <= 3e-7


def test_gradient_of_a_distance_of_zero_is_zero():
    frames = torch.zeros(2, 5, 3, device="cuda", requires_grad=True)
    distances.full_torch(frames).sum().backward()
    assert torch.equal(frames.grad, torch.zeros_like(frames))


@pytest.mark.parametrize("side", [20, 154])
def test_norm_of_matrices(side):
    """Small and large ones go different ways on a GPU; numbers and slopes of both are those of the CPU."""
    torch.manual_seed(0)
    x, pull = torch.randn(2, 4, 8, side, side)
    norm = MatrixNorm(8, side)
    found = {}
    for device in ("cpu", "cuda"):
        norm.zero_grad()
        here = x.to(device, copy=True).requires_grad_()
        y = norm.to(device)(here)
        y.backward(pull.to(device))
        found[device] = [one.cpu() for one in (y.detach(), here.grad, norm.weight.grad, norm.bias.grad)]
    for here, there in zip(found["cuda"], found["cpu"], strict=True):
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_atoms", [20, 154])
def test_loss_of_conv2d(n_atoms):
    torch.manual_seed(0)
    model = models.build("conv2d", n_atoms, 3)
    frames = torch.from_numpy(chain(8, n_atoms))
    losses = [
        float(model.to(device).loss(frames.to(device), 1e-3, torch.zeros(8, 3, device=device))["loss"])
        for device in ("cpu", "cuda")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("family", ["coordinate", "conv2d"])
def test_exported_encoder_runs_on_a_gpu(index, tmp_path, family):
    """TorchScript, written on a CPU, moved to the GPU: the latent and its gradient."""
    model = learned(index, family, "cpu")[0].eval()
    with FrameStore(index) as store:
        frames = store.read(0, 16)
    export.write(tmp_path / "encoder.pt", export.trace(model, frames), {"n_atoms": N_ATOMS})
    loaded = torch.jit.load(str(tmp_path / "encoder.pt")).to("cuda")  # as OpenMM-Torch does
    x = torch.from_numpy(frames).to("cuda").requires_grad_()
    for _ in range(3):
        z = loaded(x)
    (gradient,) = torch.autograd.grad(z.sum(), x)
    expected_z = model.encode(torch.from_numpy(frames))[0]
    torch.testing.assert_close(z.cpu(), expected_z, rtol=1e-3, atol=1e-4 * float(expected_z.detach().abs().max()))
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0


@pytest.fixture
def nccl(tmp_path):
    """The group of processes as DDP makes it on GPUs; a single one, for NCCL wants a GPU for each."""
    with lifeline.together(launch.find(), tmp_path) as line:
        group = ddp_group.DdpGroup(line, "cuda")
        parallel._refuse_shared_gpus(group, line)
        assert torch.distributed.get_backend_config() == "cpu:gloo,cuda:nccl"
        yield group
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["coordinate", "conv2d", "resnet1d"])
def test_gradients_by_nccl(index, nccl, name):
    """As several processes train, and the same bits as without."""
    alone, rows = learned(index, name, "cuda")
    by_nccl, rows_nccl = learned(index, name, "cuda", group=nccl)
    for here, there in zip(rows_nccl, rows, strict=True):
        assert here["validation_loss"] == pytest.approx(there["validation_loss"], rel=1e-5)
    assert same(by_nccl, alone)


def test_two_processes_on_one_gpu_are_refused(index, tmp_path):
    """With a word on what to do, not with an error of NCCL's."""
    options = json.dumps({"models": [{"family": "coordinate", "latent_dim": 2}], "train": {"epochs": 1}, "split": {}})
    words = ["--frames", str(index), "--model", "coordinate-d2", "--options", options, "--output-dir", str(tmp_path)]
    process = launchers.start("torchrun", "mdlatent.train", words, CUDA_VISIBLE_DEVICES="0")
    text = launchers.finish(process, code=None)
    assert "expected a GPU per process" in text, text[:6000]
    assert "NCCL" not in text


def test_more_processes_than_gpus_are_refused():
    with pytest.raises(ConfigError, match="expected a GPU per process"):
        parallel.gpu_index(2, 2)


def test_memory_stays_below_what_is_planned():
    """Activations of one pass take what `model_memory` says, so that a batch is cut where it must be."""
    n_atoms, batch = 400, 64
    model = models.build("conv2d", n_atoms, 3).to("cuda")
    frames = torch.from_numpy(synthetic.random_walks(batch, n_atoms, np.random.default_rng(0))).to("cuda")
    noise = torch.zeros(batch, model.n_noise, device="cuda")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model.loss(frames, 1e-4, noise)["loss"].backward()
    grown = torch.cuda.max_memory_allocated() - before - 4 * model.n_parameters
    assert 0.5 * batch * model.bytes_per_frame < grown < 2 * batch * model.bytes_per_frame
