"""HDBSCAN by either engine, and on a part of the frames: the same states, probabilities and noise."""

import hdbscan
import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster

from mdlatent import density, spanning_tree, states
from mdlatent.metrics.agreement import adjusted_rand, contingency

OPTIONS = {"min_cluster_size": 60, "min_samples": 10, "selection_method": "eom", "outskirts": "noise"}


def mixture(n: int, seed: int = 0) -> np.ndarray:
    """Four tilted Gaussians and a twentieth of even noise, (n, 3) float32."""
    random = np.random.default_rng(seed)
    centres, axes = random.normal(size=(4, 3)) * 5, random.normal(size=(4, 3, 3)) * 0.5
    member = random.integers(0, 4, n)
    z = np.einsum("nij,nj->ni", axes[member], random.normal(size=(n, 3))) + centres[member]
    z[: n // 20] = random.uniform(-12, 12, size=(n // 20, 3))
    return z[random.permutation(n)].astype(np.float32)


def agreement(one: np.ndarray, two: np.ndarray) -> float:
    """Adjusted Rand index with noise as a label of its own."""
    return adjusted_rand(contingency(one, two, noise=True))


@pytest.mark.parametrize("selection", ["eom", "leaf"])
def test_both_engines_find_the_same(monkeypatch, selection):
    z, options = mixture(6000).astype(np.float64), {**OPTIONS, "selection_method": selection}
    exact = density.fit(z, options)
    assert exact.plan == density.Plan("hdbscan", 6000)
    monkeypatch.setattr(density, "MANY_FRAMES", 100)
    fast = density.fit(z, options)
    assert fast.plan == density.Plan("mdlatent", 6000)
    assert len(fast.persistence) == len(exact.persistence) >= 4
    assert agreement(exact.labels, fast.labels) > 0.999
    if selection == "eom":
        assert (np.abs(fast.probabilities - exact.probabilities) > 1e-6).mean() < 1e-3  # but for ties
    order = states.by_population
    np.testing.assert_allclose(fast.persistence[order(fast.labels)], exact.persistence[order(exact.labels)], atol=1e-3)
    np.testing.assert_array_equal(density.fit(z, options).labels, fast.labels)


@pytest.mark.parametrize("engine", ["hdbscan", "mdlatent"])
def test_frames_left_out_get_what_their_nearest_frame_has(monkeypatch, engine):
    z = mixture(12_000).astype(np.float64)
    exact = states.find_states(z, OPTIONS)
    monkeypatch.setattr(density, "MANY_FRAMES", 100 if engine == "mdlatent" else 10**9)
    monkeypatch.setitem(density.EXACT_FRAMES, True, 6000)
    found = states.find_states(z, OPTIONS)
    assert found.plan == density.Plan(engine, 6000)
    assert found.n_states == exact.n_states
    inside = (exact.labels >= 0) & (found.labels >= 0)
    assert adjusted_rand(contingency(exact.labels[inside], found.labels[inside])) > 0.999
    assert found.noise_fraction == pytest.approx(exact.noise_fraction, abs=0.02)
    assert (found.probabilities[found.labels < 0] == 0).all()
    rows = np.arange(6000) * 2
    alone = states.find_states(z[rows], {**OPTIONS, "min_cluster_size": 30, "min_samples": 5})
    assert agreement(found.labels[rows], alone.labels) == 1  # but for their numbers
    np.testing.assert_array_equal(found.probabilities[rows], alone.probabilities)
    left = np.setdiff1d(np.arange(12_000), rows)[::97]
    for row in left:
        near = rows[np.argmin(((z[rows] - z[row]) ** 2).sum(1))]
        assert (found.labels[row], found.probabilities[row]) == (found.labels[near], found.probabilities[near])


def test_the_plan_bounds_frames_and_neighbours():
    assert density.plan(5000, 3, 10) == density.Plan("hdbscan", 5000)
    assert density.plan(100_000, 3, 10) == density.Plan("mdlatent", 100_000)
    assert density.plan(3_000_000, 3, 10) == density.Plan("mdlatent", 1_000_000)
    assert density.plan(3_000_000, 50, 10) == density.Plan("mdlatent", 100_000)
    assert density.plan(3_000_000, 3, 1000).n_fitted * 1000 <= density.NEIGHBOURS


def test_nearest_is_looked_up_in_blocks(monkeypatch):
    random = np.random.default_rng(0)
    fitted, points = random.normal(size=(50, 4)), random.normal(size=(301, 4))
    monkeypatch.setattr(density, "BLOCK", 100)
    truth = ((points[:, None] - fitted) ** 2).sum(2).argmin(1)
    np.testing.assert_array_equal(density.nearest(fitted, points), truth)


@pytest.mark.parametrize(("n", "dim", "samples"), [(5, 2, 3), (16, 1, 1), (17, 3, 5), (700, 2, 10), (1500, 7, 25)])
def test_the_spanning_tree_is_that_of_hdbscan(n, dim, samples):
    z = np.random.default_rng(n).normal(size=(n, dim))
    z[n // 2 :: 5] = z[n // 2]  # some frames alike
    ours = spanning_tree.linkage(z, samples)
    engine = hdbscan.HDBSCAN(min_samples=samples, approx_min_span_tree=False, core_dist_n_jobs=1).fit(z)
    theirs = engine.single_linkage_tree_.to_numpy()
    np.testing.assert_allclose(ours[:, 2], theirs[:, 2], rtol=1e-12)
    assert ours[-1, 3] == n
    for cut in np.quantile(ours[:, 2], [0.3, 0.6, 0.9, 0.99]):  # the same flat clusters at any distance
        one, two = (fcluster(tree, cut * (1 + 1e-9), "distance") for tree in (ours, theirs))
        assert adjusted_rand(contingency(one, two)) == 1
