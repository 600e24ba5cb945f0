"""Decoded structures: right atoms and names, said to be decoded, ends at the states; paths keep to the frames."""

import json

import mdtraj
import numpy as np
import pytest
import torch

from latent_study import Study
from mdlatent import cluster, decoded, models, structures
from mdlatent.errors import DataError
from mdlatent.frames import FrameStore
from mdlatent.latent_paths import Points, smooth
from mdlatent.latents import Latents

SPLIT = {
    "by": "time", "n_blocks": 2, "test_blocks": [1], "validation_fraction": 0.1, "gap_frames": 2,
    "test_simulations": [], "validation_simulations": [],
}  # fmt: skip


def latents(z: np.ndarray) -> Latents:
    n = len(z)
    return Latents(["a"], np.array([0, n]), np.arange(n), np.arange(n) * 1.0, z.astype(np.float32))


@pytest.fixture(scope="module")
def study(trpcage, tmp_path_factory):
    """Trp-cage, every 5th frame, clustered in two principal components of its coordinates."""
    topology, trajectory = trpcage
    frames = mdtraj.load_dcd(str(trajectory), top=str(topology), stride=5)
    result = Study(tmp_path_factory.mktemp("decoded"), "pca_coordinates-d2")
    result.add_frames({"a": [frames[:600], frames[600:]]}, ".dcd")
    return result


def decode(study, family) -> dict[str, mdtraj.Trajectory]:
    """Fit, cluster and decode; the structures by file name."""
    with FrameStore(study.index) as store:
        model = models.build(family, store.n_atoms, 2)
        model.fit(store, np.arange(450))
        models.save(study.folder / f"{family}.pt", model, {"atoms": store.atoms, "split": SPLIT})
        z, _ = model.embed(torch.from_numpy(store.read(0, store.n_frames)))
    study.write_latent(z.numpy())
    cluster.main(study.cluster_arguments(min_cluster_size=60, min_samples=5))
    output = study.clusters / "decoded"
    decoded.main(
        [
            f"--frames={study.index}",
            f"--model={study.folder / family}.pt",
            f"--latent={study.latent}",
            f"--clusters={study.clusters / 'cluster.json'}",
            f"--output-dir={output}",
        ]
    )
    return {path.name: mdtraj.load(str(path)) for path in sorted(output.iterdir())}


@pytest.mark.parametrize("family", ["pca_coordinates", "pca_distances"])
def test_states_and_paths_of_trpcage(study, family):
    found = decode(study, family)
    assert list(found) == ["cluster_0.pdb", "cluster_1.pdb", "path_0_1.pdb"]
    about = json.loads((study.clusters / "cluster.json").read_text())
    with FrameStore(study.index) as store:
        names = store.atoms
        medoids = [state["representatives"][0]["frame"] for state in about["states"]]
        frames = torch.from_numpy(np.stack([store.read(k, k + 1)[0] for k in medoids])).double()
    for structure in found.values():
        assert [str(atom) for atom in structure.topology.atoms] == names
        assert [atom.residue.resSeq for atom in structure.topology.atoms] == list(range(1, 21))
    path = torch.from_numpy(found["path_0_1.pdb"].xyz).double()
    assert path.shape == (20, 20, 3)
    ends = torch.from_numpy(np.stack([found[f"cluster_{k}.pdb"].xyz[0] for k in (0, 1)])).double()
    # Three decimals in Å; the path's ends are the states, which are like their frames and of the same hand.
    np.testing.assert_allclose(path[[0, -1]], ends, atol=2e-4)
    assert float(structures.kabsch_rmsd_nm(ends, frames).max()) < 0.08
    assert float(structures.kabsch_rmsd_nm(-ends, frames).min()) > 0.15
    steps = structures.kabsch_rmsd_nm(path[1:], path[:-1])
    assert float(steps.max()) < 0.5 * float(structures.kabsch_rmsd_nm(ends[:1], ends[1:]))

    lines = (study.clusters / "decoded" / "path_0_1.pdb").read_text().splitlines()
    assert lines[0].startswith("REMARK 250 PATH FROM STATE 0 TO STATE 1 DECODED FROM THE LATENT")
    assert "NOT SIMULATED" in lines[0]
    assert lines[1].startswith("REMARK 250 MODEL 1 latent distance to the nearest frame 0, rmsd to its frame ")
    rmsd = 10 * float(structures.kabsch_rmsd_nm(path[:1], frames[:1])[0])
    assert float(lines[1].split()[-2]) == pytest.approx(rmsd, abs=0.011)
    assert "rmsd" not in lines[2]
    first = (study.clusters / "decoded" / "path_0_1.pdb").read_bytes()
    decode(study, family)
    assert (study.clusters / "decoded" / "path_0_1.pdb").read_bytes() == first


def test_without_states_the_folder_is_empty(study, tmp_path):
    files = study.clusters / "cluster.json"
    about = json.loads(files.read_text())
    (tmp_path / "cluster.json").write_text(json.dumps(about | {"states": [], "n_states": 0}))
    (tmp_path / "decoded").mkdir()
    (tmp_path / "decoded" / "old.pdb").write_text("")
    decoded.main(
        [f"--frames={study.index}", f"--model={study.folder / 'pca_coordinates'}.pt", f"--latent={study.latent}",
         f"--clusters={tmp_path / 'cluster.json'}", f"--output-dir={tmp_path / 'decoded'}"]
    )  # fmt: skip
    assert list((tmp_path / "decoded").iterdir()) == []


def test_a_medoid_that_is_not_in_the_latent_is_refused():
    with pytest.raises(DataError, match="no frame 7 of simulation 'a'"):
        decoded.medoid_row(latents(np.zeros((5, 2))), {"simulation": "a", "frame": 7})
    with pytest.raises(DataError, match="simulation 'b'"):
        decoded.medoid_row(latents(np.zeros((5, 2))), {"simulation": "b", "frame": 0})


def test_a_path_follows_the_frames_round_a_hole():
    """Points on three quarters of a ring, thinner at one place: the straight line would cross the empty middle."""
    angle = np.linspace(0, 1.5 * np.pi, 1500)
    z = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.02 * np.random.default_rng(0).normal(size=(1500, 2))
    points = Points(latents(z), [0, 1499])
    path = points.path(0, 1499, 20)
    assert path.dtype == np.float32
    np.testing.assert_allclose(path[[0, -1]], z[[0, 1499]], atol=1e-6)
    assert np.abs(np.linalg.norm(path, axis=1) - 1).max() < 0.1
    assert points.distance(path).max() < 0.05
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps.max() < 1.1 * steps.min()


def test_a_path_between_islands_and_within_a_point():
    random = np.random.default_rng(0)
    z = np.concatenate([random.normal(size=(100, 2)), 50 + random.normal(size=(100, 2))])
    path = Points(latents(z), [0, 199]).path(0, 199, 20)
    np.testing.assert_allclose(path[[0, -1]], z[[0, 199]], atol=1e-5)
    assert np.isfinite(path).all()
    same = Points(latents(np.ones((4, 2))), [1, 2])
    np.testing.assert_array_equal(same.path(1, 2, 5), np.ones((5, 2)))
    np.testing.assert_array_equal(same.path(1, 1, 5), np.ones((5, 2)))


def test_many_frames_are_thinned_but_medoids_kept():
    points = Points(latents(np.random.default_rng(0).normal(size=(20000, 2))), [7, 19991])
    assert len(points.rows) <= 5002
    assert {7, 19991} <= set(points.rows.tolist())


def test_smoothing_keeps_ends_and_rounds_corners():
    zigzag = np.array([[0, 0], [1, 1], [2, -1], [3, 1], [4, 0]], float)
    path = smooth(zigzag, 20)
    np.testing.assert_allclose(path[[0, -1]], zigzag[[0, -1]])
    assert np.abs(path[:, 1]).max() < 0.9
