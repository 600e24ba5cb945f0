"""The index of a study's frames, and what it refuses; distances written on demand."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import frame_store
from mdlatent import compute_distances, distances, files, frames, index_frames, stage
from mdlatent.errors import ConfigError, DataError

OPTIONS = '{"split": {"gap_frames": 2}}'


def simulation(folder: Path, name: str, lengths, times=None, n_atoms=5, **keys):
    """A simulation as the rule describes it, its parts stored with one frame in two of the source."""
    parts = []
    for k, n in enumerate(lengths):
        path = folder / "frames" / name / f"part{k:03d}.h5"
        with frames.write_part(path, simulation=name, part=k, n_atoms=n_atoms, provenance={}) as writer:
            writer.append(
                frame_store.chain(n, n_atoms, seed=k), 2 * np.arange(n), 20.0 * np.arange(n) if times is None else times
            )
            writer.n_frames_source = 2 * n
        parts.append({"file": str(path), "trajectory": str(folder / "trajectories" / name / f"part{k:03d}.xtc")})
    return {
        "name": name,
        "role": "train",
        "topology": str(folder / "trajectories" / name / "topology.pdb"),
        "parts": parts,
    } | keys


def index(folder: Path, *simulations, options=OPTIONS, n_atoms=5):
    atoms = {
        "n_atoms": n_atoms,
        "atoms": ["A"] * n_atoms,
        "simulations": {s["name"]: {"n_atoms_total": 99} for s in simulations},
    }
    files.write_json(folder / "frames" / "atoms.json", atoms)
    arguments = ["--atoms", str(folder / "frames" / "atoms.json"), "--simulations", json.dumps(simulations)]
    index_frames.main([*arguments, "--options", options, "--output", str(folder / "frames" / "index.json")])
    return folder / "frames" / "index.json"


def test_what_the_store_reads(tmp_path):
    path = index(
        tmp_path,
        simulation(tmp_path, "a", [150, 100], temperature_k=300.0),
        simulation(tmp_path, "b", [40], times=np.full(40, np.nan), time_step_ps=5.0, role="embed"),
    )
    with frames.FrameStore(path) as store:
        a, b = store.simulations
        assert (a.n_frames, a.start, a.stop, a.role, a.temperature_k) == (250, 0, 250, "train", 300.0)
        assert (b.start, b.stop, b.role, b.time_step_ps) == (250, 290, "embed", 5.0)
        np.testing.assert_array_equal(store.frame_numbers("a"), 2 * np.arange(250))
        np.testing.assert_array_equal(store.times_ps("a"), 20.0 * np.arange(250))  # the second part's clock began at 0
        np.testing.assert_array_equal(store.times_ps("b"), 10.0 * np.arange(40))
        np.testing.assert_array_equal(store.read(150, 250), frame_store.chain(100, 5, seed=1))
        assert a.topology.resolve() == tmp_path / "trajectories" / "a" / "topology.pdb"
        assert a.parts[1].trajectory.resolve() == tmp_path / "trajectories" / "a" / "part001.xtc"
    entry = files.read_json(path)["simulations"][0]
    assert entry["parts"][1]["first_frame"] == 300 and entry["n_frames_source"] == 500 and entry["n_atoms_total"] == 99
    assert not any(str(tmp_path) in part["file"] for part in entry["parts"])  # the study's folder can be moved


@pytest.mark.parametrize(
    ("lengths", "keys", "error", "message"),
    [
        ([1], {}, DataError, "simulation 'a' has 1 stored frame, expected at least 2"),
        ([3], {}, DataError, "simulation 'a': got 3 frames, expected at least 5"),
        ([100], {"role": "embed"}, ConfigError, "all simulations have the role `embed`"),
        ([100], {"times": np.full(100, np.nan)}, DataError, "part000.xtc carries no time; set time_step_ps .*'a'"),
        (
            [100],
            {"times": np.zeros(100)},
            DataError,
            r"does not rise from stored frame 0 \(0.0 ps\) to 1 .*time_step_ps",
        ),
        ([100], {"n_atoms": 6}, DataError, "holds 6 atoms, atoms.json has 5; delete it"),
    ],
)
def test_what_does_not_suffice_is_said(tmp_path, lengths, keys, error, message):
    with pytest.raises(error, match=message):
        index(tmp_path, simulation(tmp_path, "a", lengths, **keys))
    assert not (tmp_path / "frames" / "index.json").exists()


def test_without_a_split_nothing_is_asked_of_it(tmp_path):
    alone = simulation(tmp_path, "a", [3], role="embed")
    assert index(tmp_path, alone, options="{}").exists()


def test_simulations_with_other_numbers_of_atoms_are_named(tmp_path):
    paths = []
    for name, n_atoms in (("a", 5), ("b", 6)):
        paths.append(tmp_path / f"{name}.json")
        files.write_json(paths[-1], {"n_atoms": n_atoms, "atoms": ["A"] * n_atoms, "simulations": {name: {}}})
    with pytest.raises(DataError, match="5 atoms in simulation 'a', but 6 in 'b'"):
        index_frames.merged_atoms(paths)
    assert list(index_frames.merged_atoms(paths[:1])["simulations"]) == ["a"]


def test_missing_part_is_named(tmp_path):
    described = simulation(tmp_path, "a", [100])
    Path(described["parts"][0]["file"]).unlink()
    with pytest.raises(DataError, match=r"part000\.h5: this part of the frame store is missing"):
        index(tmp_path, described)


def test_stored_distances(tmp_path):
    path = index(tmp_path, simulation(tmp_path, "a", [150, 100]), simulation(tmp_path, "b", [300]))
    output = tmp_path / "distances" / "b.h5"
    compute_distances.main(["--frames", str(path), "--simulation", "b", "--output", str(output)])
    with h5py.File(output) as file, frames.FrameStore(path) as store:
        np.testing.assert_array_equal(file["distances"][:], distances.packed(store.read(250, 550)))
        assert file["distances"].dtype == np.float32 and file["distances"].attrs["unit"] == "nm"
        i, j = file["pairs"][:].T
        np.testing.assert_array_equal(np.stack([i, j]), np.stack(distances.pairs(5)))
        np.testing.assert_array_equal(file["time_ps"][:], store.times_ps("b"))
    with pytest.raises(SystemExit) as stop:
        stage.run(compute_distances.main, ["--frames", str(path), "--simulation", "c", "--output", str(output)])
    assert stop.value.code == 1


def test_distances_that_do_not_fit_on_the_disk_are_refused_beforehand(tmp_path, monkeypatch):
    path = index(tmp_path, simulation(tmp_path, "a", [300]))
    usage = compute_distances.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(compute_distances.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with frames.FrameStore(path) as store, pytest.raises(DataError, match=r"set distances\.store to false"):
        compute_distances.write_distances(store, store.simulations[0], tmp_path / "distances" / "a.h5")
    assert list((tmp_path / "distances").iterdir()) == []
