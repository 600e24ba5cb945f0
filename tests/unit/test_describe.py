"""Sizes and memory before anything is trained: exact counts, and memory as a training was measured to take it."""

import json
import subprocess
import sys

import pytest
import torch
import yaml

from mdlatent import __main__, config, describe, model_memory, models, train
from mdlatent.errors import ConfigError
from mdlatent.model_names import DIRECT

SIZES = [(3, 1), (20, 3), (101, 7), (400, 3), (1068, 50)]


def said(capsys, *arguments):
    describe.main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_published_convolutional_model(capsys):
    result = said(capsys, "conv2d", "--n-atoms=1068", "--latent-dim=50")
    assert result["encoder_parameters"] == 260_068_260
    assert result["decoder_parameters"] == 148_286_977
    assert result["total_parameters"] == 408_355_237
    assert result["encoder_convolutions"] == 3


def test_published_residual_model(capsys):
    result = said(capsys, "resnet1d", "--n-atoms=1200", "--latent-dim=150", "--batch-size=64")
    assert result["encoder_convolutions"] == 45
    assert result["total_parameters"] == pytest.approx(111e6, rel=0.02)
    assert result["total_parameters"] == result["encoder_parameters"] + result["decoder_parameters"]
    assert result["batch_size"] == 64
    assert 1 < result["frames_in_one_pass"] < 64  # more would not fit the memory for activations


def test_a_model_fitted_in_one_step_has_neither_encoder_nor_batch(capsys):
    result = said(capsys, "pca_distances", "--n-atoms=20", "--latent-dim=3")
    assert result["total_parameters"] == 190 + 3 * 190
    assert result["encoder_parameters"] is result["batch_size"] is None


def test_options_change_the_model(capsys):
    small = said(capsys, "resnet1d", "--n-atoms=50", "--options", '{"decoder_filters": 8, "encoder_filters": 8}')
    assert small["total_parameters"] < said(capsys, "resnet1d", "--n-atoms=50")["total_parameters"] / 20
    describe.main(["conv2d", "--n-atoms=50"])
    assert "total_parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["conv3d", "--n-atoms=9"], "conv3d.*expected one of: .*conv2d"),
        (["conv2d", "--n-atoms=2"], "got 2 atoms, expected at least 3"),
        (["conv2d", "--n-atoms=9", "--latent-dim=0"], "latent_dim 0"),
        (["conv2d", "--n-atoms=9", "--batch-size=0"], "--batch-size: got 0"),
        (["resnet1d", "--n-atoms=9", "--options={"], "not valid JSON"),
        (["resnet1d", "--n-atoms=9", "--options=[]"], "expected a JSON object"),
        (["resnet1d", "--n-atoms=9", '--options={"filters": 3}'], "unknown key 'filters'"),
    ],
)
def test_mistakes_are_said(arguments, says):
    with pytest.raises(ConfigError, match=says):
        describe.main(arguments)


@pytest.mark.parametrize(("n_atoms", "latent_dim"), SIZES)
@pytest.mark.parametrize(
    ("family", "chosen"),
    [
        ("conv2d", {}), ("coordinate", {}), ("resnet1d", {}),
        ("coordinate", {"decoders": 3, "interpolate": True, "bond_tolerance": 0.03}),
    ],
)  # fmt: skip
def test_formulas_count_what_the_network_has(family, chosen, n_atoms, latent_dim):
    options = config.family_options(family, chosen)
    with torch.device("meta"):
        model = models.build(family, n_atoms, latent_dim, options)
    sizes = model_memory.sizes(family, n_atoms, latent_dim, options)
    assert sizes.parameters == model.n_parameters
    assert sizes.largest == max(parameter.numel() for parameter in model.parameters())
    assert sizes.bytes_per_frame == model.bytes_per_frame
    described = describe.describe(family, n_atoms, latent_dim, options, 32)
    assert described["training_memory_bytes"] == model_memory.training_bytes(family, n_atoms, latent_dim, options, 32)


@pytest.mark.parametrize("family", ["conv2d", "resnet1d"])
@pytest.mark.parametrize("n_atoms", [40, 101])
def test_bytes_per_frame_are_what_the_gradient_keeps(family, n_atoms):
    torch.manual_seed(0)
    model, coordinates, kept = models.build(family, n_atoms, 3), torch.randn(4, n_atoms, 3), {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    alive = []

    def pack(tensor):
        alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.loss(coordinates, 0.1, torch.randn(4, 3))
    assert model.bytes_per_frame == pytest.approx(sum(kept.values()) / 4, rel=0.15)


@pytest.mark.parametrize("family", ["conv2d", "coordinate", "resnet1d"])
def test_memory_is_what_a_training_takes(tmp_path, family):
    """Peak of the resident memory of the very command, within 20 %."""
    options = json.dumps({"models": [{"family": family}], "train": {"epochs": 2, "beta_warmup_epochs": 0}})
    words = [f"--model={family}", "--synthetic=32", "--n-atoms=150", f"--options={options}", f"--output-dir={tmp_path}"]
    command = [sys.executable, "-m", "mdlatent.train", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    estimate = describe.describe(family, 150, 3, {}, 32, 32)["training_memory_bytes"]
    measured = yaml.safe_load((tmp_path / "config.yaml").read_text())["measured"]["peak_memory_gb"]
    assert estimate == pytest.approx(1e9 * measured, rel=0.2)


# Measured as in the test above, with 2 epochs (`mdlatent train --synthetic`, peak resident memory in bytes): sizes
# that take too long to be measured in every test.
MEASURED = [
    ("conv2d", 20, 3, 32, 487e6),
    ("conv2d", 100, 3, 32, 643e6),
    ("conv2d", 100, 3, 64, 782e6),
    ("conv2d", 400, 3, 8, 1244e6),
    ("conv2d", 400, 3, 32, 2125e6),
    ("conv2d", 1068, 50, 2, 9773e6),
    ("resnet1d", 100, 3, 32, 547e6),
    ("resnet1d", 20, 3, 32, 507e6),
    ("resnet1d", 400, 3, 32, 1138e6),
    ("resnet1d", 1068, 50, 8, 2370e6),
]


@pytest.mark.parametrize(("family", "n_atoms", "latent_dim", "batch", "measured"), MEASURED)
def test_memory_of_large_models_is_what_was_measured(family, n_atoms, latent_dim, batch, measured):
    options = config.family_options(family, {})
    assert model_memory.training_bytes(family, n_atoms, latent_dim, options, batch) == pytest.approx(measured, rel=0.2)


# What was measured on one core, as in `benchmarks/training.py` at these batch sizes, in frames per second.
SPEEDS = [("conv2d", 20, 3, 32, 2040), ("conv2d", 400, 3, 8, 8.75), ("resnet1d", 20, 3, 32, 459)]
SPEEDS += [("resnet1d", 400, 3, 8, 10.7), ("conv2d", 1068, 50, 2, 0.624), ("resnet1d", 1068, 50, 2, 0.705)]


@pytest.mark.parametrize(("family", "n_atoms", "latent_dim", "batch", "frames_per_second"), SPEEDS)
def test_time_asked_for_is_about_what_was_measured(family, n_atoms, latent_dim, batch, frames_per_second):
    """Jobs ask for three times as much; a training that takes longer goes on from its checkpoint."""
    options = config.family_options(family, {})
    estimate_s = model_memory.frame_seconds(family, n_atoms, latent_dim, options, batch)
    assert 0.6 < estimate_s * frames_per_second < 2.5


def environment():
    import os
    from pathlib import Path

    return os.environ | {"PYTHONPATH": str(Path(train.__file__).parent.parent), "OMP_NUM_THREADS": "1"}


def test_the_formulas_need_no_torch():
    code = "import sys; import mdlatent.describe, mdlatent.model_memory; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


def test_it_is_a_command(capsys):
    __main__.main(["describe", "conv2d", "--n-atoms=9", "--json"])
    assert json.loads(capsys.readouterr().out)["n_atoms"] == 9


@pytest.mark.parametrize("family", DIRECT)
def test_every_family_fitted_in_one_step_has_an_estimate(family):
    few, many = (describe.describe(family, n, 3)["training_memory_bytes"] for n in (20, 1000))
    assert 0.5e9 < few < many < 20e9
    assert model_memory.frame_seconds(family, 20, 3, {}, 32) < 0.01
