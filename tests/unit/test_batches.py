"""Which simulations share jobs."""

import os

import pytest

from mdlatent import batches

MB = 1_000_000


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "frames" / "simulations_per_job.json"


def rows(folder, n, size, n_parts=1):
    """A table of `n` simulations with parts of `size` bytes each."""
    for k in range(n_parts):
        path = folder / f"part{k}.dcd"
        path.touch()
        os.truncate(path, size)
    trajectory = [str(folder / f"part{k}.dcd") for k in range(n_parts)]
    return [{"name": f"s{k}", "role": "train", "trajectory": trajectory} for k in range(n)]


@pytest.mark.parametrize(
    ("size", "n_parts", "expected"), [(2 * MB, 1, 2500), (2 * MB, 4, 625), (1500 * MB, 1, 3), (20_000 * MB, 1, 1)]
)
def test_a_job_takes_five_gigabytes(tmp_path, kept, size, n_parts, expected):
    assert batches.per_job(rows(tmp_path, 101, size, n_parts), "auto", kept, True) == expected


def test_few_simulations_and_simulated_ones_have_jobs_of_their_own(tmp_path, kept):
    table = rows(tmp_path, 100, MB)
    simulated = [{"name": f"p{k}", "role": "train", "simulate": "AAA"} for k in range(50)]
    assert batches.per_job(table + simulated, "auto", kept, True) == 1
    assert batches.batches(table, 1) == {}
    assert batches.batches(table + simulated, 60) == {
        "train000": [f"s{k}" for k in range(60)],
        "train001": [f"s{k}" for k in range(60, 100)],
    }


def test_batches_stay_when_simulations_are_added(tmp_path):
    table = rows(tmp_path, 1000, MB)
    many = batches.batches(table, 100)
    assert len(many) == 10 and many["train009"] == [f"s{k}" for k in range(900, 1000)]
    more = batches.batches([*table, {"name": "new", "role": "embed"}], 100)
    assert more.pop("embed000") == ["new"] and more == many


def test_what_is_downloaded_has_no_size(tmp_path, kept):
    remote = [{"name": f"r{k}", "role": "train", "trajectory": ["https://host/a.xtc"]} for k in range(200)]
    assert batches.per_job(remote, "auto", kept, True) == 100
    assert batches.per_job(remote + rows(tmp_path, 10, 500 * MB), "auto", kept, True) == 10
    packed = [{"name": "a", "role": "train", "trajectory": ["a.dcd.gz"]}] * 200  # nor what is unpacked
    assert batches.per_job(packed, "auto", kept, True) == 100


def test_files_that_grow_do_not_change_the_batches_of_jobs(tmp_path, kept):
    batches.keep(kept, batches.per_job(rows(tmp_path, 200, 5 * MB), "auto", kept, is_start=True))
    larger = rows(tmp_path, 300, 20 * MB)
    assert batches.per_job(larger, "auto", kept, is_start=False) == 1000
    assert batches.per_job(larger, "auto", kept, is_start=True) == 1000  # nor those of a later start, as yet
    assert batches.per_job(larger, 7, kept, is_start=False) == 7


def test_another_start_follows_files_that_are_far_larger(tmp_path, kept):
    batches.keep(kept, 1000)
    larger = rows(tmp_path, 300, 50 * MB)
    assert batches.per_job(larger, "auto", kept, is_start=False) == 1000
    batches.keep(kept, batches.per_job(larger, "auto", kept, is_start=True))
    assert batches.per_job(larger, "auto", kept, is_start=False) == 100
    huge = rows(tmp_path, 300, 6000 * MB)
    batches.keep(kept, batches.per_job(huge, "auto", kept, is_start=True))
    assert batches.per_job(huge, "auto", kept, is_start=False) == 1


def test_nothing_is_kept_of_jobs_of_one(kept):
    batches.keep(kept, 1)
    assert not kept.exists()
