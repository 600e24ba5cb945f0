"""Simulations: frames, temperature, seeds, and runs that are stopped, killed, prolonged or changed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mdlatent import config, dcd_writer, dynamics, files, peptide, production, simulate
from mdlatent.dcd import DCDReader
from mdlatent.errors import ConfigError, DataError, Interrupted
from support import ROOT

ALA2 = {"name": "a", "simulate": "ACE-ALA-NME", "seed": 0}
QUICK = {
    "solvent": "vacuum", "length_ns": 0.01, "save_interval_ps": 0.1, "equilibration_ps": 1.0, "platform": "Reference",
}  # fmt: skip


def settings(**changes):
    return config.validate_part({"simulate": {**QUICK, **changes}})["simulate"]


def run(folder, simulation=ALA2, threads=1, **changes):
    """The trajectory of a run in `folder`, from its state if there is one: (frames, atoms, 3) in nm."""
    simulate.simulate(simulation, settings(**changes), folder / "out", folder / "state", threads)
    reader = DCDReader(folder / "out" / "part000.dcd")
    try:
        return reader.read(0, reader.n_frames, 1, np.arange(reader.n_atoms))[0]
    finally:
        reader.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run(folder)


def test_files_of_a_run(undisturbed):
    import mdtraj

    folder, frames = undisturbed
    assert frames.shape == (100, 22, 3)
    trajectory = mdtraj.load(str(folder / "out/part000.dcd"), top=str(folder / "out/topology.pdb"))
    assert np.allclose(trajectory.xyz, frames, atol=1e-6)
    assert len(trajectory.topology.select("symbol != H")) == 10
    assert trajectory.topology.n_bonds == 21
    for name in ("topology.pdb", "part000.dcd"):
        record = json.loads((folder / "out" / f"{name}.source.json").read_text())
        assert record["file"] == name
        assert record["kind"] == "simulate"
        assert record["sha256"] == files.digest(folder / "out" / name)
        assert record["bytes"] == (folder / "out" / name).stat().st_size
        assert record["dynamics"]["segments"][0]["platform"] == "Reference"
    assert (record["n_frames"], record["time_step_ps"], record["n_atoms"]) == (100, 0.1, 22)
    bonds = np.linalg.norm(frames[:, 5] - frames[:, 4], axis=1)  # C=O
    assert 0.115 < bonds.min() < bonds.max() < 0.135
    assert np.abs(np.diff(frames, axis=0)).max() > 0.001, "it does not move"


def test_same_seed_same_bytes_other_seed_other(undisturbed, tmp_path):
    folder, frames = undisturbed
    run(tmp_path / "again")
    for name in ("topology.pdb", "part000.dcd", "part000.dcd.source.json"):
        assert (tmp_path / "again/out" / name).read_bytes() == (folder / "out" / name).read_bytes()
    other = run(tmp_path / "other", {**ALA2, "seed": 1})
    assert other.shape == frames.shape
    assert np.abs(other[0] - frames[0]).max() > 0.001


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_killed_run_goes_on_to_the_same_frames(tmp_path, platform):
    """SIGKILL twice at whatever moment it strikes; the frames are those of an undisturbed run, bit for bit."""
    length = {"length_ns": 0.1 if platform == "Reference" else 0.03, "save_interval_ps": 0.1, "platform": platform}
    script = (
        "import json, sys; from mdlatent import production, simulate; production.CHECKPOINT_S = 0.05;"
        "simulate.main(json.loads(sys.argv[1]))"
    )
    arguments = ["--simulation", json.dumps(ALA2), "--options", json.dumps({"simulate": {**QUICK, **length}})]
    arguments += ["--output-dir", str(tmp_path / "out"), "--state-dir", str(tmp_path / "state")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    checkpoint = tmp_path / "state/checkpoint.npz"
    seen = 0.0
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", script, json.dumps(arguments)], env=environment, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while (not checkpoint.exists() or checkpoint.stat().st_mtime <= seen) and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        seen = checkpoint.stat().st_mtime
        assert not (tmp_path / "out").exists()
    resumed = run(tmp_path, **length)
    assert len(json.loads((tmp_path / "out/part000.dcd.source.json").read_text())["dynamics"]["segments"]) == 1
    assert np.array_equal(resumed, run(tmp_path / "undisturbed", **length))


def test_frames_written_after_the_last_checkpoint_are_cut_off(undisturbed, tmp_path, monkeypatch):
    stop_after(monkeypatch, 40)
    with pytest.raises(Interrupted, match=r"after 40 of 100 frames.*run the same command again"):
        run(tmp_path)
    monkeypatch.undo()
    with open(tmp_path / "state/frames.f32", "ab") as handle:
        handle.write(b"half a frame")
    assert np.array_equal(run(tmp_path), undisturbed[1])


def stop_after(monkeypatch, n_frames):
    """Let SIGTERM arrive while frame `n_frames` is being written."""
    append = production.RunState.append

    def append_and_stop(self, frame):
        append(self, frame)
        append_and_stop.count += 1
        if append_and_stop.count == n_frames:
            os.kill(os.getpid(), signal.SIGTERM)

    append_and_stop.count = 0
    monkeypatch.setattr(production.RunState, "append", append_and_stop)


def test_pieces_of_any_length_give_the_same_frames(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(production, "CHUNK_S", 1e-4)
    assert np.array_equal(run(tmp_path), undisturbed[1])


def test_longer_and_shorter_continue_the_same_run(undisturbed, tmp_path):
    short = run(tmp_path, length_ns=0.004)
    assert np.array_equal(short, undisturbed[1][:40])
    assert np.array_equal(run(tmp_path), undisturbed[1])
    assert np.array_equal(run(tmp_path, length_ns=0.006), undisturbed[1][:60])
    assert not list(tmp_path.glob("state.old*"))


def test_other_settings_start_anew_and_keep_the_old_state(undisturbed, tmp_path, caplog):
    run(tmp_path, friction_per_ps=2.0)
    with caplog.at_level("WARNING"):
        assert np.array_equal(run(tmp_path), undisturbed[1])
    assert "another configuration" in caplog.text
    assert (tmp_path / "state.old-1/frames.f32").stat().st_size == 100 * 22 * 12


@pytest.mark.parametrize("name", ["checkpoint.npz", "setup.json", "frames.f32", "topology.pdb"])
def test_damaged_state_is_moved_aside(undisturbed, tmp_path, caplog, name):
    run(tmp_path, length_ns=0.005)
    path = tmp_path / "state" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]) if name != "topology.pdb" else path.unlink()
    with caplog.at_level("WARNING"):
        assert np.array_equal(run(tmp_path), undisturbed[1])
    assert "damaged" in caplog.text


def test_unreadable_engine_checkpoint_goes_on_with_fresh_noise(undisturbed, tmp_path, caplog):
    """On another machine or version OpenMM may refuse its own checkpoint: positions and velocities suffice."""
    run(tmp_path, length_ns=0.005)
    setup = json.loads((tmp_path / "state/setup.json").read_text())
    setup["segments"][0]["openmm"] = "0.1"
    (tmp_path / "state/setup.json").write_text(json.dumps(setup))
    with caplog.at_level("WARNING"):
        frames = run(tmp_path)
    assert "fresh noise" in caplog.text
    assert np.array_equal(frames[:50], undisturbed[1][:50])
    assert 0 < np.abs(frames[50] - undisturbed[1][50]).max() < 0.1, "it must go on from there, but not alike"
    record = json.loads((tmp_path / "out/part000.dcd.source.json").read_text())
    assert [segment["from_step"] for segment in record["dynamics"]["segments"]] == [0, 3000]


def test_temperature():
    values = settings(friction_per_ps=10.0, temperature_k=350.0)
    topology, start = peptide.build(peptide.parse("ACE-ALA-NME"))
    system = dynamics.make_system(topology, values)
    context = dynamics.open_context(system, values, "Reference", 1, dynamics.seed_for(0, "noise"))
    dynamics.start(context, start, 0)
    kinetic = []
    for _ in range(1000):
        context.getIntegrator().step(100)
        kinetic.append(context.getState(energy=True).getKineticEnergy()._value)
    degrees = 3 * len(start) - system.getNumConstraints() - 3  # the centre of mass rests
    temperature = 2 * np.mean(kinetic[100:]) / (degrees * 0.00831446)
    assert temperature == pytest.approx(350, rel=0.02)


def test_auto_times_the_platforms_and_says_so(tmp_path, caplog):
    with caplog.at_level("INFO"):
        run(tmp_path, platform="auto", length_ns=0.001)
    record = json.loads((tmp_path / "out/part000.dcd.source.json").read_text())["dynamics"]
    speeds = record["platform_steps_per_s"]
    assert {"Reference", "CPU"} <= set(speeds)
    assert all(speed > 0 for speed in speeds.values())
    assert record["segments"][0]["platform"] == max(speeds, key=speeds.get)
    assert "is the fastest for this system" in caplog.text


def test_trp_cage_in_gbn2(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamics, "MINIMISE_TOLERANCE", 200.0)  # the rest takes ten seconds, and nothing new happens
    trpcage = {"name": "t", "simulate": "NLYIQWLKDGGPSSGRPPPS", "temperature_k": 310}
    frames = run(
        tmp_path, trpcage, solvent="gbn2", length_ns=0.0002, save_interval_ps=0.1, time_step_fs=4.0,
        equilibration_ps=0.0, platform="CPU",
    )  # fmt: skip
    assert frames.shape == (2, 304, 3)
    assert json.loads((tmp_path / "out/part000.dcd.source.json").read_text())["dynamics"]["temperature_k"] == 310


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"save_interval_ps": 0.0031}, "multiple of the time step"),
        ({"save_interval_ps": 0.0001}, "the nearest is 0.002 ps"),
        ({"length_ns": 0.00001}, "at least one interval"),
        ({"force_field": "charmm36"}, "knows no caps"),
        ({"platform": "HIP"}, "this OpenMM has"),
    ],
)
def test_impossible_settings(tmp_path, changes, expected):
    with pytest.raises(ConfigError, match=expected):
        run(tmp_path, **changes)
    assert not list(tmp_path.iterdir()), "nothing half-written"


def test_flying_apart_is_said_and_nothing_is_written(tmp_path):
    with pytest.raises(DataError, match=r"Lower simulate\.time_step_fs"):
        run(tmp_path, time_step_fs=5.0, temperature_k=20000.0, length_ns=1.0, save_interval_ps=1.0)
    assert not (tmp_path / "out").exists()


def test_command_line_mistakes():
    common = ["--options", '{"simulate": {}}', "--output-dir", "o", "--state-dir", "s"]
    with pytest.raises(ConfigError, match="not valid JSON"):
        simulate.main(["--simulation", "{", *common])
    with pytest.raises(ConfigError, match="`name` and `simulate`"):
        simulate.main(["--simulation", '{"name": "a"}', *common])


def test_dcd_of_very_long_runs_keeps_its_time(tmp_path):
    """Steps are 32-bit integers in a DCD: beyond them saved frames are counted as steps."""
    frame = np.zeros((3, 4, 3), np.float32)
    dcd_writer.write(tmp_path / "a.dcd", [frame], 4, 3, 2**30, 0.002)
    header = (tmp_path / "a.dcd").read_bytes()
    assert np.frombuffer(header[8:24], "<i4").tolist() == [3, 1, 1, 3]
    assert np.frombuffer(header[44:48], "<f4")[0] == pytest.approx(2**30 * 0.002 / 0.04888821)
    with pytest.raises(ValueError, match="got 3 frames, expected 4"):
        dcd_writer.write(tmp_path / "b.dcd", [frame], 4, 4, 1, 0.002)
