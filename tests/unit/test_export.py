"""Exported encoders: in a bare Python with torch alone they give the model's latent, for every family."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from frame_store import chain, write_store
from mdlatent import export, models, recording
from mdlatent.errors import ConfigError, DataError
from mdlatent.frames import FrameStore
from support import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

N_ATOMS, INDICES = 16, [2 * k + 1 for k in range(16)]

BARE = """
import json, sys, torch
folder, families = sys.argv[1], sys.argv[2:]
assert "mdlatent" not in sys.modules and "numba" not in sys.modules
frames = torch.load(folder + "/frames.pt")
result = {}
for family in families:
    about = {"mdlatent.json": ""}
    encoder = torch.jit.load(f"{folder}/{family}.pt", _extra_files=about)
    for run in range(4):  # from the second on, TorchScript runs code of its own making
        x = frames.clone().requires_grad_(True)
        z = encoder(x)
        (gradient,) = torch.autograd.grad(z.sum(), x)
    each = torch.cat([encoder(frame) for frame in frames])
    flat = torch.cat([encoder(frame.flatten()[None]) for frame in frames])
    result[family] = z.detach(), each.detach(), flat.detach(), gradient, json.loads(about["mdlatent.json"])
torch.save(result, folder + "/result.pt")
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with a fitted or prepared model of each family, <family>.model.pt, atoms.json and frames/index.json."""
    folder = tmp_path_factory.mktemp("export")
    index = write_store(folder / "frames", {"a": chain(200, N_ATOMS)})
    with FrameStore(index) as store:
        for family in models.FAMILIES:
            torch.manual_seed(0)
            options = {"refine_steps": 2} if family == "coordinate" else {}  # recorded step by step
            model = models.build(family, N_ATOMS, 2, options)
            rows = np.arange(150)
            model.fit(store, rows) if model.fitted == "direct" else model.prepare(store, rows)
            metadata = {"model": f"{family}-d2", "seed": 0, "atoms": store.atoms, "data_sha256": "0" * 64}
            models.save(folder / f"{family}.model.pt", model, metadata)
        entry = {"indices": INDICES, "atoms": store.atoms}
    (folder / "atoms.json").write_text(json.dumps({"simulations": {"a": entry}}))
    return folder


def run(study, output, *arguments, family="pca_coordinates"):
    export.main([f"--model={study / family}.model.pt", f"--output={output}", *map(str, arguments)])
    return torch.jit.load(str(output))


def test_every_family_in_a_bare_python(study, tmp_path):
    frames = torch.from_numpy(chain(200, N_ATOMS)[[3, 50, 120, 199]])
    torch.save(frames, tmp_path / "frames.pt")
    for family in models.FAMILIES:
        run(study, tmp_path / f"{family}.pt", f"--frames={study / 'frames' / 'index.json'}", family=family)
    command = [sys.executable, "-I", "-c", BARE, str(tmp_path), *models.FAMILIES]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=120)
    result = torch.load(tmp_path / "result.pt")
    for family in models.FAMILIES:
        model, metadata = models.load(study / f"{family}.model.pt")
        x = frames.clone().requires_grad_(True)
        z = model.eval().encode(x)[0]
        (gradient,) = torch.autograd.grad(z.sum(), x)
        together, each, flat, got_gradient, about = result[family]
        for got in (together, each, flat):
            torch.testing.assert_close(got, z.detach(), rtol=1e-5, atol=1e-5, msg=lambda text, f=family: f"{f}: {text}")
        scale = float(gradient.abs().max())
        assert scale > 0, family
        torch.testing.assert_close(got_gradient, gradient, rtol=1e-4, atol=1e-4 * scale)
        assert about["family"] == family
        assert about["atoms"] == metadata["atoms"]
        assert about["length_unit"] == "nm"
        assert about["model"] == f"{family}-d2"


def test_several_decoders_and_kept_bonds_are_exported(study, tmp_path):
    torch.manual_seed(0)
    options = {"refine_steps": 2, "decoders": 2, "bond_tolerance": 0.5, "interpolate": True, "noise": 0.1}
    model = models.build("coordinate", N_ATOMS, 2, options)
    with FrameStore(study / "frames" / "index.json") as store:
        model.prepare(store, np.arange(150))
        atoms = store.atoms
    for network in model.decoder:
        torch.nn.init.normal_(network[-1].weight, 0, 0.05)
    assert (model.bonds_nm > 0).any()
    models.save(tmp_path / "several.model.pt", model, {"model": "several", "atoms": atoms})
    encoder = run(tmp_path, tmp_path / "e.pt", "--dtype=float64", family="several")
    x = torch.from_numpy(chain(200, N_ATOMS)[[3, 50, 120]]).double()
    wanted = model.eval().double().encode(x)[0].detach()
    plain = models.build("coordinate", N_ATOMS, 2, {**options, "bond_tolerance": 0.0}).double()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if name != "bonds_nm"})
    assert float((plain.encode(x)[0].detach() - wanted).abs().max()) > 1e-4  # they count in the refinement
    for _ in range(4):
        torch.testing.assert_close(encoder(x), wanted)
    assert torch.autograd.gradcheck(encoder, (x[:1].requires_grad_(True),), atol=1e-5)


@pytest.mark.parametrize("family", ["coordinate", "pca_coordinates", "pca_distances", "tica"])
def test_gradient_is_that_of_finite_differences(study, tmp_path, family):
    encoder = run(study, tmp_path / "e.pt", "--dtype=float64", family=family)
    x = torch.tensor(chain(200, N_ATOMS)[7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(encoder, (x,), atol=1e-5)


def test_openmm_picks_the_atoms_and_gives_a_scalar(study, tmp_path):
    frame = chain(200, N_ATOMS)[9]
    model, _ = models.load(study / "pca_coordinates.model.pt")
    z = model.encode(torch.from_numpy(frame)[None])[0][0]
    system = np.random.default_rng(0).normal(size=(50, 3))
    system[INDICES] = frame
    for component in (0, 1):
        options = ("--for=openmm", f"--atoms={study / 'atoms.json'}", f"--component={component}")
        encoder = run(study, tmp_path / "e.pt", *options)
        for dtype in 3 * [torch.float64] + 3 * [torch.float32]:  # the Reference platform gives doubles, others singles
            positions = torch.tensor(system, dtype=dtype, requires_grad=True)
            value = encoder(positions)
            assert value.shape == ()
            assert float(value.detach()) == pytest.approx(float(z[component]), abs=1e-5)
            value.backward()
            assert positions.grad.dtype == dtype
            moved = positions.grad.abs().sum(1).nonzero()[:, 0].tolist()
            assert moved == INDICES
    whole = run(study, tmp_path / "e.pt", "--for=openmm")  # a system of just these atoms
    assert float(whole(torch.from_numpy(frame))) == pytest.approx(float(z[0]), abs=1e-5)


@pytest.mark.parametrize("family", ["conv2d", "pca_coordinates", "tica"])
def test_plumed_can_load_it(study, tmp_path, family):
    """What src/pytorch/PytorchModel.cpp does: zeros first, then one row; derivatives of each output by itself."""
    encoder = run(study, tmp_path / "z.ptc", "--for=plumed", f"--atoms={study / 'atoms.json'}", family=family)
    zeros = encoder(torch.zeros(1, 3 * N_ATOMS))
    assert zeros.shape == (1, 2)
    assert torch.isfinite(zeros).all()
    x = torch.from_numpy(chain(200, N_ATOMS)[9]).reshape(1, -1).requires_grad_(True)
    z = encoder(x)
    assert z.dtype == torch.float32
    for k in range(2):
        (gradient,) = torch.autograd.grad([z[:, k : k + 1]], [x], [torch.ones(1).expand(1, 1)], retain_graph=True)
        assert gradient.shape == (1, 3 * N_ATOMS)
        # A latent that does not change with place has no net force.
        assert float(gradient.reshape(N_ATOMS, 3).sum(0).abs().max()) < 1e-3 * float(gradient.abs().max())
    lines = (tmp_path / "z.plumed.dat").read_text().splitlines()
    assert "p0: POSITION ATOM=2 NOPBC" in lines
    assert "p15: POSITION ATOM=32 NOPBC" in lines
    model_line = next(line for line in lines if "PYTORCH_MODEL" in line)
    arguments = model_line.split("ARG=")[1].split(",")
    assert model_line.startswith("z: PYTORCH_MODEL FILE=z.ptc ")
    assert arguments[:4] == ["p0.x", "p0.y", "p0.z", "p1.x"]
    assert len(arguments) == 3 * N_ATOMS
    assert lines[-1].endswith("ARG=z.node-0,z.node-1")


def test_same_model_same_bytes(study, tmp_path):
    """Torch numbers what it records within a process, so each is written by one of its own, as in the workflow."""
    for name in ("one.pt", "other.pt"):
        command = [sys.executable, "-m", "mdlatent", "export", "--model", str(study / "conv2d.model.pt")]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
        subprocess.run([*command, "--output", str(tmp_path / name)], check=True, env=environment, timeout=120)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "other.pt").read_bytes()


def test_the_decoder_is_left_out(study, tmp_path):
    names = {name for name, _ in run(study, tmp_path / "e.pt", family="conv2d").named_parameters()}
    model, _ = models.load(study / "conv2d.model.pt")
    assert names == {f"model.encoder.{name}" for name, _ in model.encoder.named_parameters()}
    names = {name for name, _ in run(study, tmp_path / "t.pt", family="tica").named_buffers()}
    assert names == {"model.landmarks", "model.mean_nm", "model.components", "constant0"}  # pairs of the landmarks


def test_an_encoder_that_cannot_be_recorded_is_refused(study):
    model, _ = models.load(study / "pca_distances.model.pt")
    original = model.encode

    def encode(coordinates):
        z, variance = original(coordinates)
        return (z if float(z.detach().sum()) > 0 else -z), variance

    model.encode = encode
    with pytest.raises(DataError, match="depends on the values"):
        export.trace(model, chain(200, N_ATOMS)[::20])


def test_an_encoder_without_gradient_is_refused(study, monkeypatch):
    """Torch's own fault, which `recording._slices` goes round; should it be mended one day, this test may go."""
    model, _ = models.load(study / "coordinate.model.pt")
    monkeypatch.setattr(recording, "_slices", torch.chunk)
    with pytest.raises(DataError, match="gives no gradient"):
        export.trace(model, chain(200, N_ATOMS)[::20])


def test_mistakes_are_explained(study, tmp_path):
    with pytest.raises(ConfigError, match=r"--component: got 2, expected 0 to 1"):
        run(study, tmp_path / "e.pt", "--for=openmm", "--component=2")
    with pytest.raises(ConfigError, match="the only precision that PLUMED reads"):
        run(study, tmp_path / "e.pt", "--for=plumed", "--dtype=float64")
    with pytest.raises(DataError, match=r"got simulation 'b', expected one of: a"):
        run(study, tmp_path / "e.pt", f"--atoms={study / 'atoms.json'}", "--simulation=b")
    other = {"simulations": {"a": {"indices": INDICES, "atoms": ["X"] * N_ATOMS}}}
    (tmp_path / "atoms.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="are not those that the model was trained on"):
        run(study, tmp_path / "e.pt", f"--atoms={tmp_path / 'atoms.json'}")
    index = write_store(tmp_path / "frames", {"a": chain(20, 9)})
    with pytest.raises(DataError, match="the frame store holds 9"):
        run(study, tmp_path / "e.pt", f"--frames={index}")
    assert not (tmp_path / "e.pt").exists()


@pytest.mark.parametrize("family", models.FAMILIES)
def test_nothing_ties_it_to_the_device_it_was_recorded_on(study, tmp_path, family):
    """No tensor among the code's constants, which would stay where it is, and no device named by the code."""
    graph = run(study, tmp_path / "encoder.pt", family=family).inlined_graph
    constants = list(graph.findAllNodes("prim::Constant"))
    assert len(constants) > 5
    for node in constants:
        kind = node.output().type().kind()
        assert kind != "TensorType" or node.t("value").dim() == 0, node
        users = {use.user.kind() for use in node.output().uses()}
        assert kind != "DeviceObjType" or not users, node
