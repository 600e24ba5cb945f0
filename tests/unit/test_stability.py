"""HDBSCAN's parameters chosen by stability: on planted states, one basin, and real simulations."""

import mdtraj
import numpy as np
import pytest

from latent_study import pair_distances, principal_components
from mdlatent import stability, states
from mdlatent.metrics.agreement import adjusted_rand, contingency

AUTO = {"min_cluster_size": "auto", "min_samples": "auto", "selection_method": "eom"}


def planted(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two-state trajectory (n, 3) that hops every 100 frames or so, and its states (n,)."""
    random = np.random.default_rng(seed)
    truth = np.cumsum(random.random(n) < 0.01) % 2
    return random.normal(size=(n, 3)) * [0.6, 0.4, 0.3] + truth[:, None] * [4, 1, -2], truth


def test_planted_states_are_found_without_parameters():
    z, truth = planted(600)
    choice = stability.choose(z, AUTO)
    found = states.find_states(z, choice.options)
    assert found.n_states == 2
    assert found.noise_fraction < 0.05
    assert adjusted_rand(contingency(truth, found.labels)) > 0.99
    assert choice.ari_subsamples > 0.95
    assert len(choice.table) == 12
    assert choice.table[0].keys() == set(stability.COLUMNS)
    assert [row["chosen"] for row in choice.table].count(True) == 1
    again = stability.choose(z.copy(), AUTO)
    assert again == choice


def test_the_choice_has_the_largest_score():
    z, _ = planted(400, 1)
    choice = stability.choose(z, AUTO)
    row = next(row for row in choice.table if row["chosen"])
    assert row["score"] == max(row["score"] for row in choice.table)
    assert (row["min_cluster_size"], row["min_samples"]) == tuple(
        choice.options[name] for name in ("min_cluster_size", "min_samples")
    )
    assert choice.options["selection_method"] == "eom"


def test_a_small_state_far_away_is_kept():
    random = np.random.default_rng(2)
    z = np.concatenate([random.normal(size=(980, 2)), random.normal(size=(20, 2)) * 0.3 + 12])
    found = states.find_states(z, stability.choose(z, {**AUTO}).options)
    small = found.labels[980:]
    assert found.n_states == 2
    assert (small == 1).mean() > 0.9


def test_one_basin_is_not_cut_by_the_most_daring_parameters():
    z = np.random.default_rng(0).normal(size=(1000, 3))
    choice = stability.choose(z, AUTO)
    assert max(row["score"] for row in choice.table) < stability.STABLE
    assert (choice.options["min_cluster_size"], choice.options["min_samples"]) == (50, 25)
    assert states.find_states(z, choice.options).n_states == 0


def test_the_score_is_lowered_by_noise_and_by_weak_states():
    z = planted(400, 3)[0] + np.random.default_rng(4).normal(scale=0.8, size=(400, 3))
    for row in stability.choose(z, AUTO).table:
        weak = min(1.0, row["smallest_persistence"] / 0.15)
        expected = row["ari_subsamples"] * (1 - row["noise_fraction"]) * weak if row["n_states"] > 1 else 0
        assert row["score"] == pytest.approx(expected)


def test_given_numbers_stay():
    z, _ = planted(300)
    choice = stability.choose(z, {**AUTO, "min_cluster_size": 33})
    assert {row["min_cluster_size"] for row in choice.table} == {33}
    assert {row["min_samples"] for row in choice.table} == {5, 10, 25}
    both = stability.choose(z, {**AUTO, "min_cluster_size": 33, "min_samples": 7})
    assert (both.options["min_cluster_size"], both.options["min_samples"]) == (33, 7)
    assert len(both.table) == 1


def test_cost_is_bounded_and_parameters_are_scaled(monkeypatch):
    monkeypatch.setattr(stability, "MAX_FRAMES", 250)
    seen = []
    find = states.find_states

    def spy(z, options, trees=None):
        seen.append((len(z), options["min_cluster_size"], options["min_samples"]))
        return find(z, options, trees)

    monkeypatch.setattr(states, "find_states", spy)
    z, _ = planted(1000)
    choice = stability.choose(z, AUTO)
    assert max(n for n, _, _ in seen) == choice.n_frames == 250
    assert {row["min_cluster_size"] for row in choice.table} == {5, 10, 20, 50}
    assert {row["min_samples"] for row in choice.table} == {20, 40, 100}
    assert {samples for n, _, samples in seen if n == 250} == {5, 10, 25}
    assert len(stability.thinned(10**6)) == 250
    assert stability.thinned(3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("z", [np.zeros((0, 2)), np.zeros((1, 2)), np.zeros((12, 2)), np.zeros((400, 2))])
def test_too_few_or_equal_frames_are_no_error(z):
    choice = stability.choose(z, AUTO)
    assert states.find_states(z, choice.options).n_states == 0
    assert all(row["score"] == 0 for row in choice.table)


def test_frames_left_out_of_a_chance_partition_change_it():
    random = np.random.default_rng(0)
    basin, (clear, _) = random.normal(size=(800, 2)), planted(800)
    options = {"min_cluster_size": 15, "min_samples": 5, "selection_method": "eom"}
    agreement = [
        stability.subsample_agreement(z, states.find_states(z, options).labels, options, 3) for z in (basin, clear)
    ]
    assert agreement[0] < 0.7 < 0.95 < agreement[1]


def test_outskirts_do_not_change_the_choice():
    z = planted(500, 3)[0] + np.random.default_rng(4).normal(scale=0.8, size=(500, 3))
    assigned, left = (stability.choose(z, {**AUTO, "outskirts": value}) for value in ("assign", "noise"))
    assert assigned.table == left.table
    assert assigned.options == left.options | {"outskirts": "assign"}
    assert assigned.ari_subsamples > left.ari_subsamples


def test_alanine_dipeptide_has_its_two_basins_without_parameters(field_data):
    folder = field_data / "ala2_msmbuilder"
    trajectory = mdtraj.load([str(folder / f"trajectory-{k}.dcd") for k in range(7)], top=str(folder / "ala2.pdb"))[
        ::30
    ]
    z = principal_components(pair_distances(trajectory.xyz[:, trajectory.topology.select("symbol != H")]), 3)
    found = states.find_states(z, stability.choose(z, {**AUTO, "outskirts": "assign"}).options)
    psi = np.degrees(mdtraj.compute_dihedrals(trajectory, [[6, 8, 14, 16]])[:, 0])
    assert found.n_states == 2
    assert found.noise_fraction < 0.01
    assert adjusted_rand(contingency(((psi > -105) & (psi < 90)).astype(int), found.labels)) > 0.985
