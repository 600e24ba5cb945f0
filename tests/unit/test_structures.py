"""Superposition, and structures from distances: exact ones come back with the right hand, noisy ones are refined."""

import mdtraj
import numpy as np
import pytest
import torch

from frame_store import write_store
from mdlatent import alignment, distances, models, structures
from mdlatent.frames import FrameStore


@pytest.fixture(scope="module")
def folded(trpcage) -> np.ndarray:
    """100 frames of Trp-cage's CA atoms, (100, 20, 3) float64 nm."""
    topology, trajectory = trpcage
    frames = mdtraj.load_dcd(str(trajectory), top=str(topology), stride=50)
    return frames.xyz[:, frames.topology.select("name CA")].astype(np.float64)


def turned(coordinates: np.ndarray, seed: int = 0) -> np.ndarray:
    """Each frame (N, 3) rotated and moved at random."""
    from scipy.spatial.transform import Rotation

    random = np.random.default_rng(seed)
    rotations = Rotation.random(len(coordinates), random_state=seed).as_matrix()
    return coordinates @ rotations + random.normal(size=(len(coordinates), 1, 3))


def packed(coordinates: np.ndarray) -> torch.Tensor:
    return distances.packed_torch(torch.as_tensor(coordinates, dtype=torch.float64))


def test_rmsd_is_that_of_mdtraj(folded):
    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(20):
        topology.add_atom("CA", mdtraj.element.carbon, residue)
    reference = mdtraj.rmsd(mdtraj.Trajectory(folded, topology), mdtraj.Trajectory(folded[7], topology))
    found = structures.kabsch_rmsd_nm(turned(folded), folded[7])
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, reference, atol=2e-4)  # mdtraj computes in single precision
    assert float(found[7]) < 1e-12


def test_a_mirror_image_is_not_fitted(folded):
    assert float(structures.kabsch_rmsd_nm(-folded[:5], folded[:5]).min()) > 0.15
    rotations = alignment.rotations(*(torch.tensor(x - x.mean(1, keepdims=True)) for x in (-folded, folded)))
    np.testing.assert_allclose(torch.linalg.det(rotations), 1, atol=1e-12)


@pytest.mark.parametrize("shape", ["folded", "flat", "line"])
def test_gradient_through_the_rotation(folded, shape):
    moved, target = (torch.tensor(turned(folded[k : k + 2, :6], k)) for k in (0, 50))
    if shape == "flat":
        moved[..., 2] = 0
    if shape == "line":
        moved[..., 1:] = 0
    weights = torch.linspace(-1, 1, moved.numel(), dtype=torch.float64).reshape(moved.shape)
    moved.requires_grad_(True)
    (gradient,) = torch.autograd.grad((alignment.align(moved, target) * weights).sum(), moved)
    assert torch.isfinite(gradient).all()
    if shape != "line":  # around a line the rotation is not defined
        assert torch.autograd.gradcheck(lambda x: alignment.align(x, target), (moved,), atol=1e-6)


def test_mean_structure_does_not_depend_on_where_frames_lie(tmp_path, folded):
    means = []
    for name, coordinates in (("a", folded), ("b", np.concatenate([folded[:1], turned(folded[1:])]))):
        with FrameStore(write_store(tmp_path / name, {"a": coordinates.astype(np.float32)})) as store:
            means.append(alignment.procrustes_mean(store, np.arange(len(folded))))
    np.testing.assert_allclose(*means, atol=1e-5)
    aligned = alignment.align(torch.tensor(folded), torch.tensor(means[0])).mean(0)
    np.testing.assert_allclose(aligned, means[0], atol=1e-5)


def test_exact_distances_give_the_structure_and_its_hand(folded):
    found = structures.from_distances(packed(folded), folded[0])
    assert float(structures.kabsch_rmsd_nm(found, folded).max()) < 1e-5
    # Superposed on the reference, which is not the frame itself.
    np.testing.assert_allclose(found, alignment.align(found, torch.tensor(folded[0])), atol=1e-9)
    mirrored = structures.from_distances(packed(folded), -folded[0])
    assert float(structures.kabsch_rmsd_nm(mirrored, -folded).max()) < 1e-5


def test_noisy_distances_are_refined(folded):
    noisy = packed(folded) + 0.03 * torch.tensor(np.random.default_rng(0).normal(size=(len(folded), 190)))
    errors, stresses = [], []
    for steps in (0, 200):
        found = structures.from_distances(noisy, folded[0], steps)
        errors.append(float(structures.kabsch_rmsd_nm(found, folded).mean()))
        stresses.append(float((packed(found) - noisy).square().mean()))
    assert errors[1] < 0.8 * errors[0]
    assert errors[1] < 0.03
    assert stresses[1] < stresses[0]


def test_refinement_ends_in_a_minimum(folded):
    noisy = packed(folded[:3]) + 0.03 * torch.tensor(np.random.default_rng(0).normal(size=(3, 190)))
    found = structures.from_distances(noisy, folded[0]).requires_grad_(True)
    stress = (distances.packed_torch(found) - noisy).square().sum()
    (gradient,) = torch.autograd.grad(stress, found)
    assert float(gradient.abs().max()) < 0.02 * float(2 * (noisy**2).sum(1).sqrt().mean())
    moved = found.detach() - 0.01 * gradient
    assert float((packed(moved) - noisy).square().sum()) > 0.999 * float(stress.detach())


def test_a_frame_does_not_depend_on_its_neighbours(folded, monkeypatch):
    noisy = packed(folded[:9]) + 0.03
    together = structures.from_distances(noisy, folded[0])
    monkeypatch.setattr(structures, "CHUNK_BYTES", 1)
    np.testing.assert_allclose(structures.from_distances(noisy, folded[0]), together, atol=1e-9)


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("n_atoms", [3, 4, 20])
def test_flat_and_straight_molecules(dimensions, n_atoms):
    coordinates = np.zeros((3, n_atoms, 3))
    coordinates[..., :dimensions] = np.random.default_rng(0).normal(size=(3, n_atoms, dimensions))
    found = structures.from_distances(packed(coordinates), coordinates[0])
    assert float(structures.kabsch_rmsd_nm(found, coordinates).max()) < 1e-4
    noisy = structures.from_distances(packed(coordinates) + 0.01, coordinates[0])
    assert float(structures.kabsch_rmsd_nm(noisy, coordinates).max()) < 0.1


def test_impossible_distances_give_numbers():
    found = structures.from_distances(torch.tensor([[1.0, 1.0, 5.0], [0.0, 0.0, 0.0], [-1.0, 1.0, 1.0]]), np.eye(3))
    assert torch.isfinite(found).all()
    assert float(packed(found[:1]).sub(torch.tensor([1.0, 1.0, 5.0])).square().sum()) == pytest.approx(3, rel=1e-3)


def test_many_atoms_go_through_landmarks():
    random = np.random.default_rng(0)
    coordinates = random.normal(size=(1200, 3)) + 0.2 * random.normal(size=(2, 1200, 3))
    exact = packed(coordinates)
    found = structures.from_distances(exact, coordinates[0])
    assert float(structures.kabsch_rmsd_nm(found, coordinates).max()) < 1e-5
    noise = 0.03 * torch.tensor(random.normal(size=exact.shape))
    plain, refined = (
        float(
            structures.kabsch_rmsd_nm(structures.from_distances(exact + noise, coordinates[1], k), coordinates).mean()
        )
        for k in (0, 5)
    )
    assert refined < 0.5 * plain


def test_wrong_number_of_distances_is_refused():
    with pytest.raises(ValueError, match=r"expected \(frames, 6\) for 4 atoms"):
        structures.from_distances(np.ones((1, 5)), np.zeros((4, 3)))


@pytest.mark.parametrize("family", ["pca_distances", "pca_coordinates"])
def test_models_give_structures_superposed_on_the_reference(tmp_path, folded, family):
    with FrameStore(write_store(tmp_path, {"a": folded.astype(np.float32)})) as store:
        rows = np.arange(0, 80)
        reference = structures.training_reference(store, rows)
        model = models.build(family, 20, 10)
        model.fit(store, rows)
    assert float(structures.kabsch_rmsd_nm(folded[:80], reference).min()) < 1e-6  # it is one of them
    frames = torch.tensor(turned(folded[80:]), dtype=torch.float32)
    z, _ = model.encode(frames)
    found = structures.reconstruct(model, z, reference)
    assert found.shape == (20, 20, 3)
    assert found.dtype == torch.float64
    assert float(structures.kabsch_rmsd_nm(found, frames).mean()) < 0.05
    np.testing.assert_allclose(found, alignment.align(found, torch.tensor(reference)), atol=1e-6)
    assert structures.reconstruct(model, z[:0], reference).shape == (0, 20, 3)
