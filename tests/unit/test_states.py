"""States: found again where planted, whatever order or frame of reference; counts in time checked by hand."""

import mdtraj
import numpy as np
import pytest

from latent_study import pair_distances, principal_components
from mdlatent import states

OPTIONS = {"min_cluster_size": 40, "min_samples": 10, "selection_method": "eom"}


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Latent (1000, 3) and true state (1000,), 600 frames of state 0 and 400 of state 1, and no noise."""
    random = np.random.default_rng(seed)
    truth = np.r_[np.zeros(300, int), np.ones(400, int), np.zeros(300, int)]
    z = random.normal(size=(1000, 3)) * [0.5, 0.3, 0.2] + np.array([[0, 0, 0], [5, 1, -2]])[truth]
    return z.astype(np.float32), truth


def test_planted_states_are_found_again():
    z, truth = planted()
    found = states.find_states(z, OPTIONS)
    assert found.n_states == 2
    assert found.message is None
    inside = found.labels >= 0
    assert inside.mean() > 0.85
    assert (found.labels[inside] == truth[inside]).all()  # the larger one is state 0
    assert found.noise_fraction == pytest.approx(1 - inside.mean())
    assert (found.probabilities[~inside] == 0).all()
    assert found.probabilities.min() >= 0
    assert found.probabilities.max() == 1
    assert found.labels.dtype == np.int32


def test_labels_do_not_depend_on_order_or_rotation():
    z, _ = planted(1)
    z = z.astype(np.float64)
    labels = states.find_states(z, OPTIONS).labels
    order = np.random.default_rng(2).permutation(len(z))
    np.testing.assert_array_equal(states.find_states(z[order], OPTIONS).labels, labels[order])
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    np.testing.assert_array_equal(states.find_states(z @ rotation + 7, OPTIONS).labels, labels)


def test_the_same_input_gives_the_same_result():
    z, _ = planted(4)
    one, two = states.find_states(z, OPTIONS), states.find_states(z.copy(), OPTIONS)
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.probabilities, two.probabilities)
    assert one.persistence == two.persistence


def test_trpcage_has_two_clear_states(trpcage):
    trajectory = mdtraj.load_dcd(str(trpcage[1]), top=mdtraj.load_topology(str(trpcage[0])))
    carbons = trajectory.xyz[:, trajectory.topology.select("name CA")]
    z = principal_components(pair_distances(carbons), 3)
    for size in (25, 50, 100, 200):
        found = states.find_states(z, {"min_cluster_size": size, "min_samples": 10, "selection_method": "eom"})
        assert found.n_states == 2, size
        larger, smaller = np.bincount(found.labels[found.labels >= 0])
        assert 2500 < larger < 2650
        assert 1800 < smaller < 1990
        assert 0.07 < found.noise_fraction < 0.14


@pytest.mark.parametrize(
    ("z", "says"),
    [
        (np.random.default_rng(0).normal(size=(79, 2)), "got 79 frames, expected at least 80"),
        (np.zeros((1, 2)), "got 1 frames"),
        (np.zeros((0, 2)), "got 0 frames"),
        (np.zeros((500, 2)), "the same latent"),
        (np.random.default_rng(0).normal(size=(1000, 8)), "min_cluster_size (now 40, try 10)"),
    ],
    ids=["too few", "one", "none", "collapsed", "one basin"],
)
def test_no_state_is_said_in_words(z, says):
    found = states.find_states(z, OPTIONS)
    assert found.n_states == 0
    assert (found.labels == -1).all()
    assert len(found.labels) == len(found.probabilities) == len(z)
    assert says in found.message
    assert found.noise_fraction == (1.0 if len(z) else 0.0)


def test_states_that_chance_makes_are_called_doubtful():
    basin = np.random.default_rng(0).normal(size=(1000, 2))
    found = states.find_states(basin, {**OPTIONS, "min_cluster_size": 25})
    assert found.n_states > 1
    assert "Low persistence" in found.caution
    assert states.find_states(planted()[0], OPTIONS).caution is None


def test_min_samples_is_never_lowered_in_silence():
    z, _ = planted()
    found = states.find_states(z, {**OPTIONS, "min_samples": 1000})
    assert "cluster.min_samples (1000)" in found.message


def test_identical_frames_make_states_without_nan():
    z = np.repeat([[0.0, 0.0], [1.0, 1.0]], [150, 100], axis=0)
    found = states.find_states(z, OPTIONS)
    assert found.n_states == 2
    assert np.isfinite(found.probabilities).all()
    assert np.bincount(found.labels).tolist() == [150, 100]


def test_states_are_numbered_by_population_then_by_first_visit():
    labels = np.array([2, 2, -1, 0, 0, 1, 1, 1])
    order = states.by_population(labels)
    assert order.tolist() == [1, 2, 0]
    assert states.relabel(labels, order).tolist() == [1, 1, -1, 2, 2, 0, 0, 0]


# Eleven frames with a pause before frame 6 (the seventh):
#           0   1  2   3  4  5  | 6   7  8   9  10
LABELS = [-1, 0, 0, -1, 0, 1, -1, -1, 1, 0, -1]
STARTS = np.array([0, 6])


def test_noise_belongs_to_the_state_last_visited_in_the_same_stretch():
    visited = states.last_visited(np.array(LABELS), STARTS)
    #                           noise before any visit stays noise, in each stretch anew
    assert visited.tolist() == [-1, 0, 0, 0, 0, 1, -1, -1, 1, 0, 0]


def test_steps_are_counted_in_time_order_and_never_across_a_pause():
    labels = np.array(LABELS)
    assert states.count_steps(states.last_visited(labels, STARTS), STARTS, 2).tolist() == [[4, 1], [1, 0]]
    assert states.count_steps(labels, STARTS, 2).tolist() == [[1, 1], [1, 0]]


def test_a_step_that_a_pause_interrupts_is_not_counted():
    labels = np.array([0, 0, 1, 1])
    assert states.count_steps(labels, np.array([0]), 2).tolist() == [[1, 1], [0, 1]]
    assert states.count_steps(labels, np.array([0, 2]), 2).tolist() == [[1, 0], [0, 1]]


def test_lifetimes_by_hand():
    stays = states.Stays.none(3)
    times = np.array([0, 10, 20, 30, 40, 50, 1000, 1010, 1020, 1030, 1040.0])
    stays.add(states.last_visited(np.array(LABELS), STARTS), STARTS, times)
    assert stays.visits.tolist() == [2, 2, 0]
    assert stays.exits.tolist() == [1, 1, 0]
    assert stays.time_ps.tolist() == [50, 10, 0]
    np.testing.assert_array_equal(stays.mean_lifetime_ps(), [50, 10, np.nan])
    stays.add(np.array([2, 2]), np.array([0]), np.array([0.0, 5.0]))  # another simulation, never leaves
    assert stays.visits.tolist() == [2, 2, 1]
    assert np.isnan(stays.mean_lifetime_ps()[2])


def test_lifetime_of_a_memoryless_state_is_found_again():
    random = np.random.default_rng(0)
    chain = np.cumsum(random.random(200_000) < 0.02) % 2  # leaves its state every 50 steps on average
    stays = states.Stays.none(2)
    for piece in np.split(chain, 200):  # cut into pieces of 1,000 steps, 20 lifetimes
        stays.add(piece, np.array([0]), np.arange(len(piece)) * 2.0)
    np.testing.assert_allclose(stays.mean_lifetime_ps(), 100, rtol=0.06)


def test_pauses_in_time_or_frame_number_start_a_new_stretch():
    frame = np.array([0, 2, 4, 6, 7, 9, 11])  # a part may begin in the middle of a stride: no pause
    assert states.segment_starts(frame, frame * 5.0).tolist() == [0]
    assert states.segment_starts(frame, np.full(7, np.nan)).tolist() == [0]
    assert states.segment_starts(frame, np.array([0, 1, 2, 50, 51, 52, 53.0])).tolist() == [0, 3]
    assert states.segment_starts(np.array([0, 2, 4, 10, 12]), np.full(5, np.nan)).tolist() == [0, 3]
    assert states.segment_starts(np.arange(4), np.array([0, 1, 0, 1.0])).tolist() == [0, 2]  # the clock went back
    assert states.segment_starts(np.array([5]), np.array([0.0])).tolist() == [0]
    assert states.segment_starts(np.array([], int), np.array([])).tolist() == []


def test_blocks_of_time_do_not_cross_simulations():
    assert states.time_blocks([6, 3], 3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert states.time_blocks([4, 1, 0], 2).tolist() == [0, 0, 1, 1, 2]
    assert states.time_blocks([2], 10).tolist() == [0, 1]
    assert len(states.time_blocks([])) == 0


def test_population_error_by_hand_and_against_independent_frames():
    labels = np.array([0, 0, 0, 1, 1, 1, 1, -1])
    # State 0 has 3/4 and 0 of the two blocks, mean 3/8: s² = 2 / 1 · 2 · (1/2)² · (3/8)² = (3/8)².
    error = states.population_error(labels, np.repeat([0, 1], 4), 2)
    np.testing.assert_allclose(error, [3 / 8, 1 / 4, 1 / 8])
    assert np.isnan(states.population_error(labels, np.zeros(8, int), 2)).all()

    labels = (np.random.default_rng(0).random(100_000) < 0.3).astype(int)  # no memory: binomial
    error = states.population_error(labels, states.time_blocks([60_000, 40_000], 200), 2)
    assert error[1] == pytest.approx(np.sqrt(0.3 * 0.7 / 100_000), rel=0.15)
    assert error[2] == 0


def test_outskirts_belong_to_their_state_and_what_lies_between_stays_noise():
    random = np.random.default_rng(0)
    z = np.concatenate([random.normal(size=(400, 2)), random.normal(size=(300, 2)) + [5, 0]])
    extra = np.array([[-2.9, 0.0], [7.9, 0.0], [2.5, 1.5], [-40.0, 0.0]])  # two outskirts, between, far away
    z = np.concatenate([z, extra])
    dense = states.find_states(z, OPTIONS)
    found = states.find_states(z, {**OPTIONS, "outskirts": "assign"})
    assert dense.labels[-4:].tolist() == [-1] * 4
    assert found.labels[-4:].tolist() == [0, 1, -1, -1]
    inside = dense.labels >= 0
    np.testing.assert_array_equal(found.labels[inside], dense.labels[inside])
    assert (found.probabilities == dense.probabilities).all()
    assert found.n_assigned == (found.labels != dense.labels).sum() > 2
    assert found.noise_by_density == pytest.approx(dense.noise_fraction)
    assert dense.n_assigned == 0
    nothing = np.full(5, -1, np.int32)
    assert states.assign_outskirts(np.zeros((5, 2)), nothing).tolist() == nothing.tolist()


def test_one_isolated_frame_of_a_state_does_not_widen_its_outskirts():
    random = np.random.default_rng(0)
    z = np.concatenate([random.normal(size=(400, 2)), [[9.0, 0.0], [0.0, 7.0], [0.0, 3.9]]])
    labels = np.zeros(403, np.int32)
    labels[-2:] = -1  # far away, at the edge
    assert states.assign_outskirts(z, labels)[-2:].tolist() == [-1, 0]
    labels[-3] = -1
    assert states.assign_outskirts(z, labels)[-3:].tolist() == [-1, -1, 0]
