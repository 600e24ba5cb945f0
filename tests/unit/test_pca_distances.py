"""Principal components of the distances: against scikit-learn, in one go or in chunks, few pairs or many."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from frame_store import chain, write_store
from mdlatent import distances, models
from mdlatent.errors import DataError
from mdlatent.frames import FrameStore
from mdlatent.models import pca_distances


def fit(folder, coordinates, dim, rows=None):
    with FrameStore(write_store(folder, {"a": coordinates}, n_parts=2)) as store:
        model = models.build("pca_distances", coordinates.shape[1], dim)
        model.fit(store, np.arange(len(coordinates)) if rows is None else rows)
    return model


@pytest.mark.parametrize("n_pairs_by_covariance", [4000, 0], ids=["covariance", "iteration"])
def test_agrees_with_scikit_learn(tmp_path, monkeypatch, n_pairs_by_covariance):
    monkeypatch.setattr(pca_distances, "COVARIANCE_PAIRS", n_pairs_by_covariance)
    coordinates, rows = chain(400, 15), np.r_[20:200, 250:380]
    model = fit(tmp_path, coordinates, 4, rows)
    packed = distances.packed(coordinates).astype(np.float64)
    reference = PCA(4, svd_solver="full").fit(packed[rows])
    signs = np.sign((reference.components_ * model.components.numpy()).sum(1))
    np.testing.assert_allclose(model.mean_nm, reference.mean_, atol=1e-6)
    np.testing.assert_allclose(model.components, signs[:, None] * reference.components_, atol=2e-5)
    np.testing.assert_allclose(model.variance_nm2, reference.explained_variance_, rtol=1e-5)
    ratio = model.variance_nm2 / model.total_variance_nm2
    np.testing.assert_allclose(ratio, reference.explained_variance_ratio_, rtol=1e-5)
    z, none = model.encode(torch.from_numpy(coordinates))
    assert none is None
    np.testing.assert_allclose(z, signs * reference.transform(packed), atol=1e-4)
    decoded = reference.inverse_transform(reference.transform(packed))
    np.testing.assert_allclose(model.decode(z), decoded, atol=1e-4)
    np.testing.assert_allclose(
        model.embed(torch.from_numpy(coordinates))[1], np.sqrt(((decoded - packed) ** 2).mean(1)), atol=1e-5
    )


@pytest.mark.parametrize("n_pairs_by_covariance", [4000, 0], ids=["covariance", "iteration"])
def test_chunks_do_not_matter(tmp_path, monkeypatch, n_pairs_by_covariance):
    monkeypatch.setattr(pca_distances, "COVARIANCE_PAIRS", n_pairs_by_covariance)
    whole = fit(tmp_path / "a", chain(200, 10), 3)
    monkeypatch.setattr(pca_distances, "CHUNK_BYTES", 45 * 8 * 7)
    chunked = fit(tmp_path / "b", chain(200, 10), 3)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(chunked.state_dict()[name], value, atol=1e-6, rtol=1e-6)


def test_components_are_ordered_orthonormal_and_signed(tmp_path):
    model = fit(tmp_path, chain(200, 10), 5)
    components = model.components.numpy()
    np.testing.assert_allclose(components @ components.T, np.eye(5), atol=1e-6)
    assert (np.diff(model.variance_nm2.numpy()) <= 0).all()
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
    assert (largest > 0).all()


def test_thousands_of_pairs_and_fewer_frames(tmp_path):
    coordinates = chain(60, 130)  # 8,385 pairs: no covariance matrix is made
    model = fit(tmp_path, coordinates, 3)
    reference = PCA(3, svd_solver="full").fit(distances.packed(coordinates).astype(np.float64))
    np.testing.assert_allclose(model.variance_nm2, reference.explained_variance_, rtol=1e-5)
    overlap = np.abs((reference.components_ * model.components.numpy()).sum(1))
    np.testing.assert_allclose(overlap, 1, atol=1e-4)


def test_frozen_frames_give_zero_and_no_nan(tmp_path):
    coordinates = np.repeat(chain(1, 6), 20, axis=0)
    model = fit(tmp_path, coordinates, 2)
    z, error_nm = model.embed(torch.from_numpy(coordinates))
    assert float(z.abs().max()) < 1e-5
    assert float(error_nm.max()) < 1e-5


def test_more_dimensions_than_frames_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"latent_dim 5, expected at most 3"):
        fit(tmp_path, chain(4, 10), 5)


def test_saved_model_comes_back_the_same(tmp_path):
    model = fit(tmp_path, chain(100, 8), 2)
    models.save(tmp_path / "model.pt", model, {})
    again, _ = models.load(tmp_path / "model.pt")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
