"""Which frames are trained on and which are held out: blocks of time, or whole simulations, never random frames.

Neighbours in time resemble each other, so a random held-out frame has a near copy among the training frames and every
error measured on it flatters. Here the test is whole blocks of time, validation is the end of each other block, and
training frames within `gap_frames` of any held-out frame are left out.
"""

import difflib
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from mdlatent.errors import ConfigError, DataError
from mdlatent.frames import FrameStore

CLASSES = ("train", "validation", "test", "gap", "embed")
_TEXT = "<U10"


def labels(
    source: FrameStore | Mapping[str, int], options: Mapping[str, Any], roles: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """The class of every frame of every simulation: {name: (n_frames,) of train|validation|test|gap|embed}.

    `source` is the frame store or the number of frames of each simulation (then `roles` gives those that are only
    mapped, `embed`); `options` is the section `split` of the configuration. Frames count as stored, after striding.
    Raises ConfigError for blocks or simulations that do not exist, DataError for a simulation too short to be split.
    """
    if isinstance(source, FrameStore):
        lengths = {simulation.name: simulation.n_frames for simulation in source.simulations}
        roles = {simulation.name: simulation.role for simulation in source.simulations}
    else:
        lengths, roles = dict(source), dict(roles or {})
    if options["by"] == "simulation":
        _check_names({name for name in lengths if roles.get(name) != "embed"}, options, set(lengths))
    return {name: label(name, n_frames, roles.get(name, "train"), options) for name, n_frames in lengths.items()}


def label(name: str, n_frames: int, role: str, options: Mapping[str, Any]) -> np.ndarray:
    """The classes of the frames of one simulation: (n_frames,) of train|validation|test|gap|embed.

    Where simulations are held out and none is named for validation, the end of each training one is taken.
    Raises ConfigError or DataError as `labels` does.
    """
    if role == "embed":
        return np.full(n_frames, "embed", _TEXT)
    try:
        if options["by"] == "time":
            return label_blocks(n_frames, options)
        test, validation = options["test_simulations"], options["validation_simulations"]
        kind = "test" if name in test else "validation" if name in validation else "train"
        result = np.full(n_frames, kind, _TEXT)
        if kind == "train" and not validation:
            result[n_frames - _n_validation(n_frames, options) :] = "validation"
            _with_gaps(result, options["gap_frames"])
        return result
    except DataError as error:
        raise DataError(f"simulation {name!r}: {error}") from None


def label_blocks(n_frames: int, options: Mapping[str, Any]) -> np.ndarray:
    """Classes of the frames of one simulation split by time: (n_frames,) of train|validation|test|gap.

    The frames are cut into `n_blocks` blocks whose lengths differ by one at most; `test_blocks` are the test; the last
    `validation_fraction` of each other block (rounded) is validation; training frames with fewer than `gap_frames`
    frames between them and a held-out frame become `gap`.
    Raises ConfigError for blocks that do not exist or leave nothing, DataError if no training frame is left.
    """
    n_blocks, test = options["n_blocks"], sorted(options["test_blocks"])
    if test and test[-1] >= n_blocks:
        raise ConfigError(
            f"split.test_blocks: got {test[-1]}, expected 0 to {n_blocks - 1}, "
            f"for blocks count from 0 and split.n_blocks is {n_blocks}"
        )
    if len(test) >= n_blocks:
        raise ConfigError(f"split.test_blocks: all {n_blocks} blocks are held out; leave at least one for training")
    if n_frames < n_blocks:
        raise DataError(
            f"got {n_frames} frames, expected at least {n_blocks} (split.n_blocks); "
            "give a longer trajectory, lower featurize.stride or lower split.n_blocks"
        )
    edges = np.arange(n_blocks + 1) * n_frames // n_blocks
    result = np.full(n_frames, "train", _TEXT)
    for block, (start, stop) in enumerate(itertools.pairwise(edges.tolist())):
        if block in test:
            result[start:stop] = "test"
        else:
            result[stop - _n_validation(stop - start, options) : stop] = "validation"
    return _with_gaps(result, options["gap_frames"])


def _n_validation(n_frames: int, options: Mapping[str, Any]) -> int:
    return round(float(n_frames * options["validation_fraction"]))


def _with_gaps(result: np.ndarray, gap_frames: int) -> np.ndarray:
    """Turn training frames within `gap_frames` of a held-out one into `gap`, in place."""
    held_out = np.flatnonzero(result != "train")
    if len(held_out):
        frames = np.arange(len(result))
        after = np.searchsorted(held_out, frames)
        to_next = held_out[np.minimum(after, len(held_out) - 1)] - frames
        to_last = frames - held_out[np.maximum(after - 1, 0)]
        nearest = np.minimum(np.abs(to_next), np.abs(to_last))
        result[(result == "train") & (nearest <= gap_frames)] = "gap"
    if not (result == "train").any():
        counts = ", ".join(f"{np.count_nonzero(result == name)} {name}" for name in ("validation", "test", "gap"))
        raise DataError(
            f"of {len(result)} frames none is left for training ({counts}); give a longer trajectory, "
            "or lower split.gap_frames or split.n_blocks"
        )
    return result


def _check_names(trainable: set[str], options: Mapping[str, Any], known: set[str]) -> None:
    """Raise ConfigError unless the simulations held out exist, may be trained on, and leave one to train on."""
    test, validation = options["test_simulations"], options["validation_simulations"]
    for key, names in (("test_simulations", test), ("validation_simulations", validation)):
        for name in names:
            if name in known - trainable:
                raise ConfigError(
                    f"split.{key}: {name!r} has the role `embed`; give it the role `train` or remove it here"
                )
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                advice = f"did you mean {near[0]!r}?" if near else f"expected one of: {', '.join(sorted(trainable))}"
                raise ConfigError(f"split.{key}: got {name!r}, which is not in the table of simulations; {advice}")
    if both := set(test) & set(validation):
        raise ConfigError(
            f"split: {min(both)!r} is in both test_simulations and validation_simulations; name it in one"
        )
    if not test:
        raise ConfigError("split.test_simulations: got none, expected at least one, since split.by is `simulation`")
    if not trainable - set(test) - set(validation):
        raise ConfigError("split: all simulations are held out; leave at least one for training")
