"""No frame serves twice, and no training frame is near a held-out one."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mdlatent import splits
from mdlatent.errors import ConfigError, DataError

TIME = {
    "by": "time",
    "n_blocks": 5,
    "test_blocks": [1, 3],
    "validation_fraction": 0.15,
    "gap_frames": 10,
    "test_simulations": [],
    "validation_simulations": [],
}


@st.composite
def options(draw):
    n_blocks = draw(st.integers(2, 12))
    test = draw(st.sets(st.integers(0, n_blocks - 1), min_size=1, max_size=n_blocks - 1))
    return TIME | {
        "n_blocks": n_blocks,
        "test_blocks": list(test),
        "validation_fraction": draw(st.floats(0, 0.5)),
        "gap_frames": draw(st.integers(0, 40)),
    }


def label(n_frames, chosen):
    try:
        return splits.label_blocks(n_frames, chosen)
    except DataError:
        assume(False)


@given(st.integers(2, 2000), options())
def test_training_keeps_its_distance(n_frames, chosen):
    labels = label(n_frames, chosen)
    train = np.flatnonzero(labels == "train")
    held_out = np.flatnonzero((labels == "test") | (labels == "validation"))
    distance = np.abs(train[:, None] - held_out[None]).min(axis=1)
    assert (distance > chosen["gap_frames"]).all()
    gap = np.flatnonzero(labels == "gap")
    if len(gap):  # and no more than needed is given up
        assert (np.abs(gap[:, None] - held_out[None]).min(axis=1) <= chosen["gap_frames"]).all()


@given(st.integers(2, 2000), options())
def test_every_frame_has_one_class_and_the_test_is_exactly_its_blocks(n_frames, chosen):
    labels = label(n_frames, chosen)
    assert labels.shape == (n_frames,)
    assert set(labels) <= {"train", "validation", "test", "gap"}
    block = np.searchsorted(
        np.arange(1, chosen["n_blocks"]) * n_frames // chosen["n_blocks"], np.arange(n_frames), "right"
    )
    np.testing.assert_array_equal(labels == "test", np.isin(block, chosen["test_blocks"]))


@given(st.integers(2, 2000), options())
def test_the_same_input_gives_the_same_split(n_frames, chosen):
    labels = label(n_frames, chosen)
    again = splits.label_blocks(n_frames, chosen | {"test_blocks": chosen["test_blocks"][::-1]})
    np.testing.assert_array_equal(labels, again)


def test_the_demo_in_numbers():
    labels = splits.label_blocks(4999, TIME)
    assert {name: int((labels == name).sum()) for name in ("train", "validation", "test", "gap")} == {
        "train": 2499,
        "validation": 450,
        "test": 2000,
        "gap": 50,
    }
    changes = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    order = ["train", "gap", "validation", "test", "gap", "train", "gap", "validation", "test", "gap", "train", "gap"]
    assert [str(labels[k]) for k in [0, *changes]] == [*order, "validation"]


@pytest.mark.parametrize(
    ("n_frames", "change", "error", "message"),
    [
        (4, {}, DataError, "got 4 frames, expected at least 5 .*n_blocks"),
        (0, {}, DataError, "got 0 frames"),
        (60, {}, DataError, "of 60 frames none is left for training .*gap_frames"),
        (1000, {"test_blocks": [5]}, ConfigError, "got 5, expected 0 to 4"),
        (1000, {"test_blocks": [0, 1, 2, 3, 4]}, ConfigError, "all 5 blocks are held out"),
    ],
)
def test_impossible_splits_are_explained(n_frames, change, error, message):
    with pytest.raises(error, match=message):
        splits.label_blocks(n_frames, TIME | change)


def test_too_short_simulation_is_named():
    with pytest.raises(DataError, match="simulation 'short': got 3 frames"):
        splits.labels({"long": 1000, "short": 3}, TIME)


def test_new_data_is_embedded_and_need_not_be_long():
    labels = splits.labels({"new": 3, "old": 1000}, TIME, {"new": "embed"})
    assert list(labels) == ["new", "old"]
    assert set(labels["new"]) == {"embed"}


BY_SIMULATION = TIME | {"by": "simulation", "test_simulations": ["b"], "validation_simulations": ["c"]}
LENGTHS = {"a": 100, "b": 50, "c": 20, "run_1": 3}


def test_whole_simulations_are_held_out():
    labels = splits.labels(LENGTHS, BY_SIMULATION)
    assert {name: set(found) for name, found in labels.items()} == {
        "a": {"train"}, "b": {"test"}, "c": {"validation"}, "run_1": {"train"},
    }  # fmt: skip


def test_without_a_validation_simulation_the_end_of_training_ones_is_taken():
    labels = splits.labels({"a": 100, "b": 50}, BY_SIMULATION | {"validation_simulations": []})
    assert [(labels["a"] == name).sum() for name in ("train", "gap", "validation")] == [75, 10, 15]
    assert labels["a"][-1] == "validation"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"test_simulations": ["run_2"]},
            "got 'run_2', which is not in the table of simulations; did you mean 'run_1'?",
        ),
        ({"test_simulations": ["qqq"]}, "expected one of: a, b, c, run_1"),
        ({"test_simulations": ["b", "c"]}, "'c' is in both"),
        ({"test_simulations": []}, "expected at least one"),
        ({"test_simulations": ["a", "b", "run_1"]}, "all simulations are held out"),
        ({"test_simulations": ["new"]}, "'new' has the role `embed`"),
    ],
)
def test_wrong_names_of_simulations(change, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        splits.labels(LENGTHS | {"new": 5}, BY_SIMULATION | change, {"new": "embed"})
