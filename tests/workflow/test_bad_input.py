"""A user's mistakes: a clear message, exit code not 0, no traceback, nothing half-written that looks whole.

What can be known before the first job is said before the first job ("Building DAG" is not reached).
"""

import os
import shutil
import subprocess

import mdtraj
import numpy as np
import pytest

from support import missing

pytestmark = pytest.mark.workflow

QUICK = {
    "models": [{"family": "pca_distances", "latent_dim": 2}],
    "split": {"gap_frames": 2},
    "cluster": {"min_cluster_size": 20},
}


@pytest.fixture
def small(trpcage, tmp_path):
    """300 frames of Trp-cage as local files."""
    topology, trajectory = trpcage
    shutil.copy(topology, tmp_path / "top.pdb")
    frames = mdtraj.load_dcd(str(trajectory), top=str(topology), stride=16)[:300]
    frames.save_dcd(str(tmp_path / "a.dcd"))
    return frames


def record(name="a", **other):
    return {"name": name, "topology": "top.pdb", "trajectory": [f"{name}.dcd"], "time_step_ps": 100.0} | other


def values(*simulations, **other):
    return {"study": "bad", "simulations": list(simulations) or [record()], **QUICK, **other}


def before_any_job(text: str) -> bool:
    return "Job stats" not in text


def files(folder):
    return {str(path.relative_to(folder)) for path in (folder / "results").rglob("*") if path.is_file()}


def test_the_good_case_runs(study, small):
    study.write(values())
    study.run()
    assert (study.folder / "results/bad/report.html").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"trian": {}}, "study.yaml, line"),
        ({"train": {"epochs": "many"}}, "train.epochs: got 'many' (text), expected a whole number"),
        ({"train": {"batch_size": 0}}, "expected at least 1"),
        ({"simulations": [record(), record()]}, "'a' is named 2 times"),
        ({"simulations": [record(trajectory=["b.dcd"])]}, "there is no file 'b.dcd'"),
        ({"featurize": {"selection": "name CAA"}}, "name CAA"),
        ({"featurize": {"selection": "nam CA"}}, "nam CA"),
        ({"featurize": {"selection": "resid 0 1 and name CA"}}, "at least 3"),
        ({"simulations": [{"name": "p", "simulate": "ACE-XYZ-NME"}]}, "XYZ"),
    ],
)
def test_mistakes_in_the_configuration(study, small, change, expected):
    study.write(values() | change)
    text = study.fail()
    assert expected in text
    assert before_any_job(text)
    assert not (study.folder / "results").exists()


def test_topology_and_trajectory_disagree(study, small):
    small.atom_slice(range(300)).save_dcd(str(study.folder / "a.dcd"))
    study.write(values())
    text = study.fail()
    assert "300" in text
    assert "304" in text
    assert before_any_job(text)


def test_truncated_trajectory(study, small):
    path = study.folder / "a.dcd"
    os.truncate(path, path.stat().st_size - 1000)
    study.write(values())
    text = study.fail()
    assert "truncated" in text
    assert before_any_job(text)


def test_selections_of_different_size(study, small):
    small.atom_slice(small.top.select("resid 0 to 15")).save_pdb(str(study.folder / "short.pdb"))
    short = small.atom_slice(small.top.select("resid 0 to 15"))
    short[0].save_pdb(str(study.folder / "short.pdb"))
    short.save_dcd(str(study.folder / "b.dcd"))
    study.write(values(record(), record("b", topology="short.pdb")))
    text = study.fail()
    assert "20 atoms in simulation 'a'" in text
    assert "16 in 'b'" in text
    assert before_any_job(text)


@pytest.mark.parametrize(("n_frames", "expected"), [(1, "1 frame"), (3, "frames")])
def test_too_few_frames(study, small, n_frames, expected):
    small[:n_frames].save_dcd(str(study.folder / "a.dcd"))
    study.write(values())
    text = study.fail()
    assert expected in text
    assert not any(name.startswith("results/bad/models") for name in files(study.folder))


def test_no_frames(study, small):
    with mdtraj.formats.DCDTrajectoryFile(str(study.folder / "a.dcd"), "w") as handle:
        handle.write(small.xyz[:1] * 10)
    with open(study.folder / "a.dcd", "r+b") as handle:  # the header alone
        handle.truncate(276)
    study.write(values())
    text = study.fail()
    assert "a.dcd" in text


def test_fewer_frames_than_a_batch(study, small):
    study.write(values(models=[{"family": "conv2d", "latent_dim": 2}], train={"batch_size": 500}))
    text = study.fail()
    assert "batch_size" in text
    assert "500" in text
    assert not any(name.startswith("results/bad/models") for name in files(study.folder))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_coordinates_that_are_no_numbers(study, small, bad):
    small.xyz[123, small.top.select("name CA")[4], 1] = bad
    small.save_dcd(str(study.folder / "a.dcd"))
    study.write(values())
    text = study.fail()
    assert "frame 123" in text
    assert not any(name.endswith("part000.h5") for name in files(study.folder))


def test_checksum_mismatch(study, small):
    study.write(values(record(topology="top.pdb#sha256=" + "0" * 64)))
    text = study.fail()
    assert "sha256" in text
    assert "0000" in text


def test_results_folder_that_cannot_be_written(study, small):
    (study.folder / "results").write_text("a file, not a folder")
    study.write(values())
    text = study.fail()
    assert "results" in text
    assert before_any_job(text)


def test_read_only_results_folder(study, small):
    if os.geteuid() != 0:
        (study.folder / "locked").mkdir(mode=0o500)
        locked = study.folder / "locked"
    else:  # root writes anywhere, save where the file system itself forbids it
        locked = "/proc/self"
    study.write(values(results=f"{locked}/results"))
    text = study.fail()
    assert "results" in text
    assert before_any_job(text)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 60 MB, at `small` in the study's folder."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", folder]).returncode != 0:
        missing("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_without_room_is_refused_at_the_start(study, small, small_disk):
    (small_disk / "ballast").write_bytes(bytes(30_000_000))
    study.write(values(results="small/results"))
    text = study.fail()
    assert "MB are free" in text
    assert before_any_job(text)


def test_a_disk_too_small_for_what_is_to_be_written(study, small, small_disk):
    """All distances of 304 atoms and 300 frames are 55 MB, more than there is: an error, no half file."""
    (small_disk / "ballast").write_bytes(bytes(7_000_000))
    study.write(values(results="small/results", featurize={"selection": "all"}, distances={"store": True}))
    text = study.fail("--until", "compute_distances")
    assert "the disk has" in text
    assert not list((small_disk / "results").rglob("distances/*"))


def test_no_cluster_still_ends_with_a_report_that_says_so(study, small):
    study.write(values(cluster={"min_cluster_size": 299, "min_samples": 200}))
    study.run()
    page = (study.folder / "results/bad/report.html").read_text()
    assert "no state" in page.lower() or "no cluster" in page.lower()
