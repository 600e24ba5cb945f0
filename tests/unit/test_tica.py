"""Time-lagged independent components: against deeptime, and never a pair across a border."""

import numpy as np
import pytest
import torch

from frame_store import chain, write_store
from mdlatent import distances, files, frames, models
from mdlatent.alignment import align, procrustes_mean
from mdlatent.errors import ConfigError, DataError
from mdlatent.frames import FrameStore
from mdlatent.models import tica


@pytest.fixture(scope="module")
def trajectories() -> dict[str, np.ndarray]:
    return {"a": chain(500, 8), "b": chain(300, 8, 1)}


def fit(folder, simulations, dim, rows=None, **options):
    with FrameStore(write_store(folder, simulations, n_parts=2)) as store:
        model = models.build("tica", store.n_atoms, dim, options)
        model.fit(store, np.arange(store.n_frames) if rows is None else rows)
    return model


@pytest.mark.parametrize("kinetic_map", [False, True])
def test_agrees_with_deeptime(tmp_path, monkeypatch, trajectories, kinetic_map):
    from deeptime.decomposition import TICA
    from sklearn.decomposition import PCA

    monkeypatch.setattr(tica, "CHUNK_FRAMES", 7)  # fewer than the lag
    rows = np.r_[10:200, 240:500, 500:700, 705:800]
    model = fit(tmp_path, trajectories, 3, rows, lag_frames=9, n_components_before=6, kinetic_map=kinetic_map)
    packed = np.concatenate([distances.packed(x) for x in trajectories.values()]).astype(np.float64)
    y = PCA(6, svd_solver="full").fit(packed[rows]).transform(packed)
    pieces = [y[10:200], y[240:500], y[500:700], y[705:800]]
    scaling = "kinetic_map" if kinetic_map else None
    estimator = TICA(lagtime=9, dim=3, scaling=scaling, epsilon=1e-8)
    for piece in pieces:
        estimator.partial_fit((piece[:-9], piece[9:]))
    expected = estimator.fetch_model()
    np.testing.assert_allclose(model.eigenvalues, expected.singular_values[:3], atol=1e-4)
    z = model.encode(torch.from_numpy(np.concatenate([*trajectories.values()])))[0].double().numpy()
    wanted = expected.transform(y)
    wanted = wanted * np.sign((wanted * z).sum(0))
    np.testing.assert_allclose(z - z.mean(0), wanted - wanted.mean(0), atol=2e-3 * np.abs(wanted).max())


def test_stretches_end_at_borders_gaps_and_rows_left_out(tmp_path, trajectories):
    index = write_store(tmp_path, trajectories)
    with FrameStore(index) as store:
        assert tica.stretches(store, np.arange(800)).tolist() == [0, 500]
        assert tica.stretches(store, np.r_[5:100, 110:800]).tolist() == [0, 95, 485]
        assert tica.stretches(store, np.r_[500:800]).tolist() == [0]


def test_stretches_end_at_a_pause(tmp_path):
    folder = tmp_path / "a"
    with frames.write_part(folder / "part000.h5", simulation="a", part=0, n_atoms=3, provenance={}) as writer:
        number = np.r_[0:40, 100:160]
        writer.append(chain(100, 3), number, 2.0 * number)
    part = {"file": "a/part000.h5", "trajectory": "a.dcd", "n_frames": 100, "n_frames_source": 160, "first_frame": 0}
    simulation = {"name": "a", "role": "train", "n_frames": 100, "topology": "a.pdb", "parts": [part]}
    content = {"n_atoms": 3, "n_frames": 100, "atoms": ["a", "b", "c"], "simulations": [simulation]}
    files.write_json(tmp_path / "index.json", content)
    with FrameStore(tmp_path / "index.json") as store:
        assert tica.stretches(store, np.arange(100)).tolist() == [0, 40]
        assert tica.stretches(store, np.r_[0:38, 42:100]).tolist() == [0, 38]


def test_a_slow_small_motion_comes_before_a_fast_large_one(tmp_path):
    random = np.random.default_rng(0)
    t = np.arange(4000)
    coordinates = np.repeat(chain(1, 6), 4000, axis=0) + 0.002 * random.normal(size=(4000, 6, 3))
    slow = np.sign(np.sin(2 * np.pi * t / 1000))
    coordinates[:, 0, 1] += 0.02 * slow
    coordinates[:, 5, 2] += 0.3 * random.normal(size=4000)
    model = fit(tmp_path, {"a": coordinates.astype(np.float32)}, 1, lag_frames=20, kinetic_map=False)
    z = model.encode(torch.tensor(coordinates, dtype=torch.float32))[0][:, 0].numpy()
    assert abs(np.corrcoef(z, slow)[0, 1]) > 0.95
    assert z.std() == pytest.approx(1, abs=0.05)
    fast = models.build("pca_distances", 6, 1)
    with FrameStore(write_store(tmp_path / "b", {"a": coordinates.astype(np.float32)})) as store:
        fast.fit(store, np.arange(4000))
    assert abs(np.corrcoef(fast.encode(torch.tensor(coordinates).float())[0][:, 0], slow)[0, 1]) < 0.3


def test_decoder_is_the_least_squares_map(tmp_path, trajectories):
    rows = np.r_[0:300, 400:800]
    model = fit(tmp_path, trajectories, 3, rows, landmark_atoms=5)
    coordinates = torch.from_numpy(np.concatenate([*trajectories.values()])[rows])
    z, error_nm = model.embed(coordinates)
    with FrameStore(tmp_path / "index.json") as store:
        mean = torch.from_numpy(procrustes_mean(store, rows))
    aligned = align(coordinates.double(), mean).flatten(1).numpy()
    design = np.column_stack([np.ones(len(z)), z.numpy()])
    fitted = design @ np.linalg.lstsq(design, aligned, rcond=None)[0]
    np.testing.assert_allclose(model.decode_coordinates(z).flatten(1), fitted, atol=1e-4)
    np.testing.assert_allclose(
        error_nm,
        (distances.packed_torch(model.decode_coordinates(z)) - distances.packed_torch(coordinates))
        .pow(2)
        .mean(1)
        .sqrt(),
        rtol=1e-5,
    )


def test_landmarks_are_evenly_spaced():
    model = models.build("tica", 1208, 3)
    assert len(model.landmarks) == 100
    assert model.landmarks[[0, -1]].tolist() == [0, 1207]
    assert model.mean_nm.shape == (4950,)
    assert models.build("tica", 8, 3).landmarks.tolist() == list(range(8))


def test_what_cannot_be_is_refused(tmp_path, trajectories):
    with pytest.raises(ConfigError, match=r"latent_dim 31, expected at most 30"):
        models.build("tica", 20, 31)
    with pytest.raises(ConfigError, match=r"latent_dim 4, expected at most 3"):
        models.build("tica", 3, 4)
    with pytest.raises(DataError, match=r"0 pairs of training frames 600 frames apart"):
        fit(tmp_path, trajectories, 2, lag_frames=600)
    with pytest.raises(DataError, match="the training frames move in 0 dimensions"):
        fit(tmp_path / "frozen", {"a": np.repeat(chain(1, 6), 100, axis=0)}, 2)


def test_saved_model_comes_back_the_same(tmp_path, trajectories):
    model = fit(tmp_path, trajectories, 2, lag_frames=3, landmark_atoms=6)
    models.save(tmp_path / "model.pt", model, {})
    again, _ = models.load(tmp_path / "model.pt")
    assert again.options == model.options
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
