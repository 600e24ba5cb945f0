"""Principal components of superposed coordinates: against scikit-learn, wherever the frames lie, many atoms or few."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from sklearn.decomposition import PCA

from frame_store import chain, write_store
from mdlatent import models, structures
from mdlatent.alignment import align
from mdlatent.errors import DataError
from mdlatent.frames import FrameStore
from mdlatent.models import pca_coordinates


def fit(folder, coordinates, dim, rows=None):
    with FrameStore(write_store(folder, {"a": coordinates}, n_parts=2)) as store:
        model = models.build("pca_coordinates", coordinates.shape[1], dim)
        model.fit(store, np.arange(len(coordinates)) if rows is None else rows)
    return model


@pytest.fixture
def frames() -> np.ndarray:
    """Frames of a bending chain, each turned and moved at random: (400, 15, 3) float32."""
    random = np.random.default_rng(1)
    rotations = Rotation.random(400, random_state=1).as_matrix()
    return (chain(400, 15) @ rotations + random.normal(size=(400, 1, 3))).astype(np.float32)


@pytest.mark.parametrize("by_covariance", [1500, 0], ids=["covariance", "iteration"])
def test_agrees_with_scikit_learn_on_superposed_frames(tmp_path, monkeypatch, frames, by_covariance):
    monkeypatch.setattr(pca_coordinates, "COVARIANCE_COORDINATES", by_covariance)
    rows = np.r_[20:200, 250:380]
    model = fit(tmp_path, frames, 4, rows)
    aligned = align(torch.from_numpy(frames).double(), model.mean_nm.double()).flatten(1).numpy()
    reference = PCA(4, svd_solver="full").fit(aligned[rows])
    np.testing.assert_allclose(model.mean_nm.flatten(), reference.mean_, atol=2e-6)
    signs = np.sign((reference.components_ * model.components.numpy()).sum(1))
    np.testing.assert_allclose(model.components, signs[:, None] * reference.components_, atol=2e-4)
    np.testing.assert_allclose(model.variance_nm2, reference.explained_variance_, rtol=1e-4)
    ratio = model.variance_nm2 / model.total_variance_nm2
    np.testing.assert_allclose(ratio, reference.explained_variance_ratio_, rtol=1e-4)
    z, none = model.encode(torch.from_numpy(frames))
    assert none is None
    np.testing.assert_allclose(z, signs * reference.transform(aligned), atol=1e-3)


def test_many_dimensions_give_the_frame_back(tmp_path, frames):
    model = fit(tmp_path, frames, 39)  # all that 15 atoms have
    z, error_nm = model.embed(torch.from_numpy(frames))
    assert float(error_nm.max()) < 1e-5
    assert float(structures.kabsch_rmsd_nm(model.decode_coordinates(z), frames).max()) < 1e-5


def test_latent_does_not_depend_on_place_and_orientation(tmp_path, frames):
    model = fit(tmp_path, frames, 3)
    turned = frames[::-1][:50] @ Rotation.random(50, random_state=2).as_matrix() + [3.0, -2.0, 1.0]
    z, again = (model.encode(torch.tensor(x.copy(), dtype=torch.float32))[0] for x in (frames[::-1][:50], turned))
    np.testing.assert_allclose(again, z, atol=1e-5)


def test_structures_fit_better_than_those_from_distances(tmp_path, trpcage):
    import mdtraj

    topology, trajectory = trpcage
    loaded = mdtraj.load_dcd(str(trajectory), top=str(topology), stride=5)
    frames = loaded.xyz[:, loaded.topology.select("name CA")]
    train, test = np.arange(600), torch.from_numpy(frames[620:])
    errors = {}
    with FrameStore(write_store(tmp_path, {"a": frames})) as store:
        reference = structures.training_reference(store, train)
        for family in ("pca_coordinates", "pca_distances"):
            model = models.build(family, 20, 3)
            model.fit(store, train)
            found = structures.reconstruct(model, model.encode(test)[0], reference)
            errors[family] = float(structures.kabsch_rmsd_nm(found, test).mean())
    assert errors["pca_coordinates"] < 0.05 < errors["pca_distances"] < 0.06


def test_frozen_and_broken_frames(tmp_path):
    coordinates = np.repeat(chain(1, 6), 20, axis=0)
    model = fit(tmp_path, coordinates, 2)
    z, error_nm = model.embed(torch.from_numpy(coordinates))
    assert float(z.abs().max()) < 1e-5
    assert float(error_nm.max()) < 1e-5
    coordinates[3, 0] = np.nan
    z, error_nm = model.embed(torch.from_numpy(coordinates))
    assert torch.isnan(error_nm).nonzero().tolist() == [[3]]  # so that embed can say which frame it is


def test_more_dimensions_than_shapes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"latent_dim 4, expected at most 3"):
        fit(tmp_path, chain(40, 3), 4)


def test_saved_model_comes_back_the_same(tmp_path, frames):
    model = fit(tmp_path, frames, 2)
    models.save(tmp_path / "model.pt", model, {})
    again, _ = models.load(tmp_path / "model.pt")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
