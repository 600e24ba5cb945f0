"""Measures of a latent space: known answers, invariants, and other programs as the reference."""

import numpy as np
import pytest
import torch
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from frame_store import chain
from mdlatent import distances
from mdlatent.metrics import agreement, contacts, intervals, neighbourhood, structure


def globules(n_frames: int, n_atoms: int) -> np.ndarray:
    """Structures (frames, atoms, 3) float32 nm that all have the same hand."""
    random = np.random.default_rng(7)
    return (random.normal(size=(n_atoms, 3)) + 0.05 * random.normal(size=(n_frames, n_atoms, 3))).astype(np.float32)


def rotations(n: int, seed: int) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.random(n, random_state=seed).as_matrix()


class Decoder:
    """A model that decodes what it is told to."""

    frames_at_once = 100

    def __init__(self, coordinates, by_distances):
        self.coordinates, self.by_distances = torch.from_numpy(coordinates), by_distances

    def decode(self, z):
        return distances.packed_torch(self.coordinates)

    def decode_coordinates(self, z):
        return None if self.by_distances else self.coordinates


def test_rmsd_in_angstrom_from_coordinates_and_from_distances():
    true, random = globules(15, 10), np.random.default_rng(0)
    decoded = true + random.normal(scale=0.01, size=true.shape).astype(np.float32)
    z = torch.zeros(15, 2)
    direct = structure.held_out_rmsd(Decoder(decoded, False), z, true, true[0])
    by_distances = structure.held_out_rmsd(Decoder(decoded, True), z, true, true[0])
    assert 0.1 < direct.mean() < 0.2  # 0.01 nm in each of three directions, less what the superposition takes
    np.testing.assert_allclose(by_distances, direct, rtol=0.02)


def test_contacts_by_hand():
    assert len(contacts.contact_pairs(5)) == 3  # 0-3, 0-4, 1-4
    i, j = np.triu_indices(5, 1)
    assert {(int(i[k]), int(j[k])) for k in contacts.contact_pairs(5)} == {(0, 3), (0, 4), (1, 4)}
    true, decoded = np.array([[0.5, 0.79, 0.9, 1.0]]), np.array([[0.5, 0.81, 0.7, 2.0]])
    assert contacts.contact_counts(true, decoded, 0.8).tolist() == [[2, 2, 1]]


@pytest.mark.parametrize("k", [5, 10])
def test_trustworthiness_agrees_with_scikit_learn(k):
    random = np.random.default_rng(0)
    original = random.normal(size=(200, 6))
    latent = original[:, :2] + 0.1 * random.normal(size=(200, 2))
    by_original, by_latent = neighbourhood.ranks(original), neighbourhood.ranks(latent)
    assert neighbourhood.kept(by_latent, by_original, k).mean() == pytest.approx(
        trustworthiness(original, latent, n_neighbors=k), abs=1e-12
    )
    assert neighbourhood.kept(by_original, by_latent, k).mean() == pytest.approx(
        trustworthiness(latent, original, n_neighbors=k), abs=1e-12
    )


def test_a_rotated_and_scaled_map_is_perfect_and_a_random_one_is_not():
    random = np.random.default_rng(1)
    original = random.normal(size=(300, 3)) + 100
    by_original = neighbourhood.ranks(original)
    perfect = neighbourhood.ranks(3 * original @ rotations(1, 3)[0])
    assert neighbourhood.kept(perfect, by_original, 10).min() == 1
    by_chance = neighbourhood.ranks(random.normal(size=(300, 3)))
    assert 0.4 < neighbourhood.kept(by_chance, by_original, 10).mean() < 0.6


def test_ranks_leave_the_frame_itself_out_even_among_equal_ones():
    assert (np.diag(neighbourhood.ranks(np.zeros((6, 2)))) == 0).all()
    with pytest.raises(ValueError, match="expected 1 to 2 for 6 frames"):
        neighbourhood.kept(neighbourhood.ranks(np.zeros((6, 2))), neighbourhood.ranks(np.zeros((6, 2))), 3)


def test_few_pairs_are_all_taken_and_many_are_thinned():
    assert neighbourhood.some_pairs(190).tolist() == list(range(190))
    many = neighbourhood.some_pairs(79_800)
    assert len(many) == neighbourhood.MAX_PAIRS == len(np.unique(many))


@pytest.mark.parametrize("seed", range(3))
def test_agreement_is_that_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    one = random.integers(-1, 3, 500)
    two = np.where(random.random(500) < 0.3, random.integers(-1, 4, 500), one)
    keep = (one >= 0) & (two >= 0)
    for noise, rows in ((False, keep), (True, np.ones(500, bool))):
        table = agreement.contingency(one, two, noise)
        assert agreement.adjusted_rand(table) == pytest.approx(adjusted_rand_score(one[rows], two[rows]), abs=1e-12)
        expected = normalized_mutual_info_score(one[rows], two[rows])
        assert agreement.normalized_mutual_information(table) == pytest.approx(expected, abs=1e-12)


def test_agreement_does_not_see_names_and_is_nought_by_chance():
    labels = np.random.default_rng(0).integers(0, 3, 20_000)
    assert agreement.adjusted_rand(agreement.contingency(labels, (labels + 1) % 3)) == 1
    shuffled = np.random.default_rng(1).permutation(labels)
    assert abs(agreement.adjusted_rand(agreement.contingency(labels, shuffled))) < 1e-3
    one = np.zeros(5, int)
    assert agreement.adjusted_rand(agreement.contingency(one, one)) == 1
    assert np.isnan(agreement.adjusted_rand(agreement.contingency(one - 1, one)))  # nothing but noise
    assert np.isnan(agreement.normalized_mutual_information(agreement.contingency(one - 1, one)))


def test_noise_counts_as_a_label_only_where_asked():
    one = np.array([0] * 50 + [1] * 50)
    two = one.copy()
    two[::5] = -1
    assert agreement.adjusted_rand(agreement.contingency(one, two)) == 1
    assert agreement.adjusted_rand(agreement.contingency(one, two, noise=True)) < 0.9


def test_seeds_are_compared_in_pairs():
    a, b = np.array([0, 0, 1, 1] * 10), np.array([0, 1, 0, 1] * 10)
    same = agreement.among_seeds([a, a, b])
    pair = agreement.adjusted_rand(agreement.contingency(a, b))
    assert same == pytest.approx([(1 + pair) / 2, (1 + pair) / 2, pair])
    assert np.isnan(agreement.among_seeds([a])).all()


def test_dihedrals_agree_with_mdtraj_and_are_cut_on_the_circle():
    import mdtraj

    frames = chain(40, 8)
    topology = mdtraj.Topology()
    residue = topology.add_residue("ALA", topology.add_chain())
    for _ in range(8):
        topology.add_atom("CA", mdtraj.element.carbon, residue)
    quadruples = np.array([[0, 1, 2, 3], [2, 5, 1, 7]])
    expected = np.degrees(mdtraj.compute_dihedrals(mdtraj.Trajectory(frames, topology), quadruples, periodic=False))
    np.testing.assert_allclose(agreement.dihedrals_degrees(frames, quadruples), expected, atol=2e-2)
    angles = np.array([[-170.0, 0], [-100, 0], [89, 0], [90, 0], [180, 0], [180, 100]])
    states = agreement.dihedral_states(angles, [[90, -105], [-50, 50]])
    assert states.tolist() == [2, 0, 0, 2, 2, 3]  # −105 to 90 is one state, over ±180° the other


def test_intervals_of_independent_blocks_have_about_the_right_width():
    blocks = np.random.default_rng(1).normal(5, 1, size=400)
    wanted = 2 * 1.96 * blocks.std() / np.sqrt(400)
    low, high = intervals.block_bootstrap(blocks * 7, np.full(400, 7))
    assert low < blocks.mean() < high
    assert high - low == pytest.approx(wanted, rel=0.1)
    low, high = intervals.block_jackknife(lambda use: blocks[use].mean(), 400)
    assert low < blocks.mean() < high
    assert high - low == pytest.approx(wanted, rel=0.1)
    low, high = intervals.bootstrap_frames(blocks, np.arange(400), np.median)
    assert low < np.median(blocks) < high
    assert intervals.block_bootstrap([1.0], [1]) is None
    assert intervals.block_jackknife(lambda use: 1.0, 1) is None
    assert intervals.bootstrap_frames(np.ones(3), np.zeros(3, int), np.median) is None


def test_the_jackknife_covers_the_truth_for_few_blocks():
    random, inside = np.random.default_rng(0), 0
    for _ in range(400):
        blocks = random.normal(size=10)
        low, high = intervals.block_jackknife(lambda use, blocks=blocks: blocks[use].mean(), 10)
        inside += low < 0 < high
    assert 0.92 < inside / 400 < 0.98
