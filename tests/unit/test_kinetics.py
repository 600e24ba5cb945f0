"""VAMP-2 and Markov models: deeptime as the reference, planted kinetics, shuffled time."""

import numpy as np
import pytest
from deeptime.decomposition import VAMP
from deeptime.markov import TransitionCountEstimator
from deeptime.markov.msm import MaximumLikelihoodMSM

from mdlatent.metrics import kinetics, markov
from mdlatent.states import time_blocks


def relaxation(n: int, rates: list[float], seed: int) -> np.ndarray:
    """Independent Ornstein–Uhlenbeck processes (n, k), correlation exp(−rate) per frame, variance 1."""
    random, decay = np.random.default_rng(seed), np.exp(-np.array(rates))
    noise = random.normal(size=(n, len(rates))) * np.sqrt(1 - decay**2)
    result = np.empty_like(noise)
    state = random.normal(size=len(rates))
    for k in range(n):
        state = state * decay + noise[k]
        result[k] = state
    return result


def mixed(runs: list[np.ndarray]) -> list[np.ndarray]:
    mix = np.random.default_rng(9).normal(size=(runs[0].shape[1],) * 2)
    return [(run @ mix + 50).astype(np.float32) for run in runs]


@pytest.mark.parametrize("lag", [1, 10])
def test_vamp2_agrees_with_deeptime(lag):
    runs = mixed([relaxation(n, [0.01, 0.1, 1], k) for k, n in enumerate((700, 400))])
    data = tuple(np.concatenate([r[s] for r in runs]).astype(float) for s in (np.s_[:-lag], np.s_[lag:]))
    reference = VAMP(epsilon=1e-12).fit(data).fetch_model().score(2) - 1  # deeptime counts the constant
    moments = kinetics.lagged_moments(runs, lag)
    assert moments.n.sum() == len(data[0])
    assert kinetics.vamp2(moments) == pytest.approx(reference, rel=1e-6)


def test_vamp2_is_that_of_the_process_and_sees_no_linear_change():
    runs = [relaxation(20_000, [0.01, 0.05], 1)]
    value = kinetics.vamp2(kinetics.lagged_moments(runs, 10))
    assert value == pytest.approx(np.exp(-0.2) + np.exp(-1.0), abs=0.05)
    assert kinetics.vamp2(kinetics.lagged_moments(mixed(runs), 10)) == pytest.approx(value, rel=1e-4)
    low, high = kinetics.vamp2_interval(kinetics.lagged_moments(runs, 10))
    assert low < np.exp(-0.2) + np.exp(-1.0) < high
    assert high - low < 0.3


def test_shuffled_time_leaves_nothing():
    run = relaxation(2000, [0.005, 0.02, 0.1], 2)
    kept = kinetics.vamp2(kinetics.lagged_moments([run], 10))
    shuffled = np.random.default_rng(0).permutation(run)
    noise = kinetics.vamp2(kinetics.lagged_moments([shuffled], 10))
    assert kept > 1
    assert noise < 4 * 3**2 / 2000  # d² / n by chance


def test_dead_dimensions_count_nothing():
    run = relaxation(1000, [0.01, 0.1], 3)
    dead = np.c_[run, np.full(1000, 7.0)]
    value = kinetics.vamp2(kinetics.lagged_moments([run], 5))
    assert kinetics.vamp2(kinetics.lagged_moments([dead], 5)) == pytest.approx(value, rel=1e-9)
    assert kinetics.vamp2(kinetics.lagged_moments([np.zeros((100, 2))], 5)) == 0


def test_pairs_never_cross_runs():
    moments = kinetics.lagged_moments([np.zeros((10, 1)), np.ones((6, 1)), np.full((3, 1), 9.0)], 3)
    assert moments.n.sum() == 7 + 3
    _, _, c0t = moments.covariances()
    assert c0t[0, 0] == pytest.approx(0.7 * 0.3)  # no pair of a 0 and a 1, the run of 3 frames is too short
    assert kinetics.lagged_moments([np.zeros((3, 1))], 3) is None


def test_runs_end_where_frames_or_time_are_missing():
    rows = np.array([0, 1, 2, 5, 6, 7, 8])
    assert [run.tolist() for run in kinetics.split_runs(rows, [0, 7])] == [[0, 1, 2], [5, 6], [7, 8]]
    assert kinetics.split_runs(np.empty(0, int), [0]) == []


def test_the_ratio_of_two_maps_of_the_same_frames():
    runs = [relaxation(3000, [0.01, 0.05, 0.3, 2], k) for k in range(2)]
    slow = kinetics.lagged_moments([run[:, :2] for run in runs], 10)
    mixture = kinetics.lagged_moments([run[:, :2] + run[:, 2:] for run in runs], 10)
    ratio, (low, high) = kinetics.vamp2_ratio(mixture, slow)
    assert ratio == pytest.approx(kinetics.vamp2(mixture) / kinetics.vamp2(slow))
    assert low < ratio < high < 1
    assert kinetics.vamp2_ratio(slow, slow) == (1, pytest.approx((1, 1)))


def chain_of(labels: np.ndarray, n_states: int, lengths: list[int]) -> markov.Chain:
    return markov.Chain(labels, np.repeat(np.arange(len(lengths)), lengths), time_blocks(lengths), n_states)


def jumps(n: int, matrix: np.ndarray, seed: int) -> np.ndarray:
    random, edges = np.random.default_rng(seed), np.cumsum(matrix, 1)
    state, result = 0, np.empty(n, int)
    for k, number in enumerate(random.random(n)):
        state = int(np.searchsorted(edges[state], number))
        result[k] = state
    return result


MATRIX = np.array([[0.97, 0.02, 0.01], [0.04, 0.95, 0.01], [0.02, 0.02, 0.96]])


@pytest.mark.parametrize("lag", [1, 7])
def test_the_markov_model_agrees_with_deeptime(lag):
    labels = jumps(5000, MATRIX, 0)
    chain = chain_of(labels, 3, [2000, 3000])
    counts = TransitionCountEstimator(lag, "sliding").fit_fetch([labels[:2000], labels[2000:]])
    np.testing.assert_array_equal(chain.counts(lag).sum(0), counts.count_matrix)
    reference = MaximumLikelihoodMSM(reversible=True).fit_fetch(counts)
    matrix, _ = markov.model(chain, lag, np.arange(3))
    np.testing.assert_allclose(matrix, reference.transition_matrix, atol=1e-6)
    np.testing.assert_allclose(markov.timescales(matrix[None], lag)[0], reference.timescales(), rtol=1e-4)


def test_a_planted_timescale_is_found_and_passes_the_test():
    matrix = np.array([[0.98, 0.02], [0.03, 0.97]])
    found = markov.analyse(chain_of(jumps(100_000, matrix, 1), 2, [50_000] * 2), 10, 2.0)
    true_ps = -2.0 / np.log(0.95)
    row = next(row for row in found["timescales"] if row["lag_frames"] == 10)
    assert row["lag"] == 20
    assert row["values"][0] == pytest.approx(true_ps, rel=0.05)
    low, high = row["intervals"][0]
    assert low < true_ps < high
    assert found["ck_error"] < 0.02
    assert [entry["lag_frames"] for entry in found["chapman_kolmogorov"]] == [10, 20, 30, 40, 50]


def test_states_with_memory_fail_the_test():
    hidden = jumps(50_000, np.array([[0.9, 0.09, 0.01], [0.3, 0.7, 0], [0.01, 0, 0.99]]), 2)
    lumped = np.minimum(hidden, 1)  # a state that is left soon or late
    assert markov.analyse(chain_of(hidden, 3, [50_000]), 2, None)["ck_error"] < 0.02
    assert markov.analyse(chain_of(lumped, 2, [50_000]), 2, None)["ck_error"] > 0.1


def test_states_that_are_never_entered_again_are_left_out():
    labels = np.r_[np.full(50, 2), np.tile([0, 0, 0, 1, 1], 200)]
    found = markov.analyse(chain_of(labels, 3, [1050]), 1, 1.0)
    assert found["states"] == [0, 1]
    assert len(found["timescales"][0]["values"]) == 1


def test_one_state_or_a_lag_too_long_gives_no_model():
    for labels, n_states, lag in ((np.zeros(50, int), 1, 5), (np.tile([0, 1], 25), 2, 60), (np.full(50, -1), 0, 5)):
        found = markov.analyse(chain_of(labels, n_states, [50]), lag, 1.0)
        assert found["timescales"] == found["chapman_kolmogorov"] == []
        assert found["ck_error"] is None


def test_counts_respect_stretches_and_frames_before_the_first_visit():
    labels = np.array([-1, 0, 0, 1, 1, 0])
    chain = markov.Chain(labels, np.array([0, 0, 0, 0, 1, 1]), np.zeros(6, int), 2)
    assert chain.counts(1)[0].tolist() == [[1, 1], [1, 0]]
    assert chain.counts(2)[0].tolist() == [[0, 1], [0, 0]]
