"""What the stories of the Slurm tests share: the list of them, and how an undisturbed end is told."""

from collections.abc import Callable
from pathlib import Path

import pandas
from slurm_study import CHECKPOINTS, MODEL, RESULTS, SlurmStudy

__all__ = ["STORIES", "assert_undisturbed", "story"]

STORIES: dict[str, Callable] = {}


def story(function: Callable) -> Callable:
    """Have it run in the background from the first test on."""
    STORIES[function.__name__] = function
    return function


def assert_undisturbed(study: SlurmStudy, local: Path) -> None:
    """The model is, byte for byte, that of the run without Slurm; nothing is left in queue or folders."""
    assert (study.folder / MODEL).read_bytes() == (local / MODEL).read_bytes()
    one, other = (pandas.read_csv(folder / MODEL.with_name("history.csv")) for folder in (study.folder, local))
    pandas.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"), check_exact=True)
    assert not (study.folder / CHECKPOINTS).exists()
    assert not list((study.folder / RESULTS).rglob("*.part*.pt"))
    assert study.cluster.queue(study.folder, state="all") == [] or study.states()[-1] == "COMPLETED"
