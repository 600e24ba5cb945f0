"""Representatives are frames of the original trajectory: the right ones, with all their atoms, whole."""

import mdtraj
import numpy as np
import pytest

from latent_study import Study
from mdlatent import cluster, files, latents, representatives, states
from mdlatent.errors import DataError
from mdlatent.frames import FrameStore
from mdlatent.original_frames import System, read_frames
from mdlatent.representatives import Pick

MODEL_PRECISION_NM = 2e-4  # a PDB file has 0.001 Å = 1e-4 nm


@pytest.fixture(scope="module")
def original(trpcage):
    """The first 400 frames of Trp-cage with all atoms and no box, far too few for real states, enough for mapping."""
    found = mdtraj.load_dcd(str(trpcage[1]), top=mdtraj.load_topology(str(trpcage[0])), stride=12)[:400]
    found.unitcell_vectors = None
    return found


def in_box(trajectory: mdtraj.Trajectory) -> mdtraj.Trajectory:
    """The same frames moved at random and cut up by a box of 3.7 nm, atom by atom."""
    moved = trajectory[:]
    shift = np.random.default_rng(0).uniform(0, 3.7, size=(len(moved), 1, 3))
    moved.xyz = ((moved.xyz + shift) % 3.7).astype(np.float32)
    moved.unitcell_lengths, moved.unitcell_angles = np.full((len(moved), 3), 3.7), np.full((len(moved), 3), 90.0)
    return moved


def test_the_medoid_is_exact_and_ignores_the_rim():
    random = np.random.default_rng(0)
    points = random.normal(size=(300, 2))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert representatives.medoid(points, np.ones(300)) == distances.sum(1).argmin()
    weights = random.random(300)
    assert representatives.medoid(points, weights) == (distances * weights).sum(1).argmin()
    assert representatives.medoid(points, np.zeros(300)) == distances.sum(1).argmin()
    assert representatives.medoid(np.zeros((5, 2)), np.ones(5)) == 0


def test_the_medoid_of_a_large_state_is_near_the_exact_one(monkeypatch):
    points = np.random.default_rng(1).normal(size=(3000, 3))
    exact = representatives.medoid(points, np.ones(3000))
    monkeypatch.setattr(representatives, "MAX_DISTANCES", 3000 * 300)
    sampled = representatives.medoid(points, np.ones(3000))
    assert np.linalg.norm(points[sampled] - points[exact]) < 0.3  # of a spread of 1.7


def test_the_medoid_of_a_bent_state_lies_in_it():
    angle = np.linspace(0, np.pi, 200)
    points = np.c_[np.cos(angle), np.sin(angle)]  # the mean lies outside
    assert 60 < representatives.medoid(points, np.ones(200)) < 140


def test_the_nearest_frames_begin_with_the_medoid():
    points = np.array([[0.0], [3.0], [1.0], [0.0], [2.0]])
    rows, distances = representatives.nearest(points, 3, np.ones(5, bool), 3)
    assert rows.tolist() == [3, 0, 2]
    assert distances.tolist() == [0, 0, 1]
    rows, _ = representatives.nearest(points, 3, np.array([False, True, False, True, False]), 5)
    assert rows.tolist() == [3, 1]


def test_superposing_undoes_a_rotation_but_no_mirror():
    random = np.random.default_rng(0)
    points = random.normal(size=(20, 3))
    rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    selected = np.array([1, 4, 7, 11])
    moved = points @ rotation + [5, -3, 2]
    np.testing.assert_allclose(representatives.superpose(moved, points[selected], selected), points, atol=1e-12)
    mirrored = representatives.superpose(points * [1, 1, -1], points, np.arange(20))
    assert np.abs(mirrored - points).max() > 0.5


@pytest.mark.parametrize("ending", [".dcd", ".xtc", ".trr", ".nc", ".pdb", ".xyz"])
def test_frames_are_found_again_in_every_format(tmp_path, original, ending):
    path = tmp_path / f"some{ending}"
    original[:20].save(str(path))
    wanted = [17, 3, 19, 3]
    found = list(read_frames(path, original.topology, wanted))
    assert len(found) == 4
    for frame, (coordinates, box) in zip(wanted, found, strict=True):
        np.testing.assert_allclose(coordinates, original.xyz[frame], atol=6e-4)  # xtc stores 1e-3 nm
        assert box is None or not np.any(box), ending
    with pytest.raises(DataError, match="frame 20 cannot be read again"):
        list(read_frames(path, original.topology, [20]))


@pytest.mark.parametrize("ending", [".dcd", ".xtc"])
@pytest.mark.parametrize("boxed", [False, True], ids=["plain", "cut up by a box"])
def test_representatives_are_the_original_frames(tmp_path, original, ending, boxed):
    """Two simulations, one of two parts; every third frame; the frame numbers must lead back to the right atoms."""
    source = in_box(original) if boxed else original
    study = Study(tmp_path)
    study.add_frames({"one": [source[:101], source[101:250]], "two": [source[250:]]}, ending, stride=3)
    with FrameStore(study.index) as store:
        frames = np.concatenate([store.frame_numbers("one"), store.frame_numbers("two") + 250])
    assert frames[33:36].tolist() == [99, 101, 104]  # the second part begins anew
    # The latent is the place in the original trajectory: near in the latent is near in the number of the frame.
    study.write_latent(np.c_[frames, frames * 0.0])

    with FrameStore(study.index) as store:
        latent = latents.read(study.latent, {s.name: s.n_frames for s in store.simulations})
        found = states.Clustering(
            np.where(frames < 60, -1, np.where(frames < 300, 0, 1)).astype(np.int32),
            np.ones(len(frames), np.float32),
            [0.5, 0.5],
        )
        chosen = files.read_json(study.index.parent / "atoms.json")["simulations"]
        structures = representatives.Structures(store, {name: entry["indices"] for name, entry in chosen.items()})
        picks = cluster.pick_frames(latent, found, structures, 75)
        representatives.write_all(tmp_path / "out", structures, picks, ["first", "second"])

    offset = {"one": 0, "two": 250}
    assert {pick.simulation for pick in picks[0]} == {"one", "two"}
    assert {pick.frame >= 101 for pick in picks[0] if pick.simulation == "one"} == {True, False}  # from both parts
    carbons = original.topology.select("name CA")
    for state, chosen in enumerate(picks):
        path = tmp_path / "out" / f"cluster_{state}.pdb"
        models = mdtraj.load(str(path))
        assert len(models) == len(chosen) == (75, 33)[state]
        assert models.n_atoms == original.n_atoms
        for k, pick in enumerate(chosen):
            truth = original.xyz[offset[pick.simulation] + pick.frame]
            fitted = representatives.superpose(truth, models.xyz[0][carbons].astype(float), carbons)
            tolerance = 3e-3 if ending == ".xtc" else MODEL_PRECISION_NM
            np.testing.assert_allclose(models.xyz[k], fitted, atol=tolerance)
        np.testing.assert_allclose(models.xyz[0][carbons].mean(0), 0, atol=MODEL_PRECISION_NM)
        text = path.read_text()
        assert "CRYST1" not in text
        remark = f"REMARK 250 MODEL 1 simulation {chosen[0].simulation} frame {chosen[0].frame} time "
        assert remark + f"{chosen[0].frame * 20.0:.6g} ps medoid" in text


def test_other_molecules_are_put_around_the_mapped_ones(original):
    """The protein cut up by the box, with two ions: one in the same image, one on the far side."""
    protein = original[0]
    ions = mdtraj.Topology()
    chain = ions.add_chain()
    for _ in range(2):
        ions.add_atom("NA", mdtraj.element.sodium, ions.add_residue("NA", chain))
    topology = protein.topology.join(ions)
    box = np.diag([3.7, 3.7, 3.7])
    away = np.array([[1.5, 0, 0], [0, -1.0, 1.2]])
    intact = np.concatenate([protein.xyz[0], protein.xyz[0].mean(0) + away])
    system = System(topology, topology.select("name CA"))
    cut = ((intact + np.array([2.0, 1.0, 3.1])) % 3.7).astype(np.float32)
    whole = system.make_whole(cut, box)
    np.testing.assert_allclose(
        np.linalg.norm(whole[:, None] - whole[None], axis=-1),
        np.linalg.norm(intact[:, None] - intact[None], axis=-1),
        atol=1e-5,
    )
    assert system.make_whole(cut, None) is cut
    assert system.make_whole(cut, np.eye(3) * 0.1) is cut  # a box of 1 Å is none


def test_only_simulations_with_the_same_atoms_share_a_file(tmp_path, original):
    heavy = original.atom_slice(original.topology.select("element != H"))
    study = Study(tmp_path)
    study.add_frames({"all": [original[:150]], "heavy": [heavy[150:250]]}, ".dcd")
    study.write_latent(np.c_[np.arange(250) % 10, np.zeros(250)])
    with FrameStore(study.index) as store:
        latent = latents.read(study.latent, {s.name: s.n_frames for s in store.simulations})
        found = states.Clustering(np.zeros(250, np.int32), np.ones(250, np.float32), [0.5])
        chosen = files.read_json(study.index.parent / "atoms.json")["simulations"]
        structures = representatives.Structures(store, {name: entry["indices"] for name, entry in chosen.items()})
        (picks,) = cluster.pick_frames(latent, found, structures, 100)
        assert {pick.simulation for pick in picks} == {"all"}
        representatives.write_all(tmp_path / "out", structures, [picks], ["it"])
    assert len(mdtraj.load(str(tmp_path / "out" / "cluster_0.pdb"))) == 100


def test_a_trajectory_that_vanished_or_shrank_is_named(tmp_path, original):
    study = Study(tmp_path)
    study.add_frames({"one": [original[:20]]}, ".dcd")
    trajectory = tmp_path / "trajectories" / "one" / "part000.dcd"
    chosen = files.read_json(study.index.parent / "atoms.json")["simulations"]["one"]["indices"]
    with FrameStore(study.index) as store:
        structures = representatives.Structures(store, {"one": chosen})
        with pytest.raises(DataError, match="has no frame 20"):
            structures.fetch([Pick("one", 20, 0.0, 0.0)])
        original[:5].save(str(trajectory))
        with pytest.raises(DataError, match="frame 19 cannot be read again"):
            structures.fetch([Pick("one", 19, 0.0, 0.0)])
        trajectory.unlink()
        with pytest.raises(DataError, match="there is no such trajectory"):
            structures.write(tmp_path / "x.pdb", "it", [Pick("one", 3, 0.0, 0.0)])
    assert not list(tmp_path.glob("*.pdb"))
    assert not list(tmp_path.glob(".*"))
