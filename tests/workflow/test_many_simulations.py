"""Tables of many simulations: planned quickly, no command line too long, and only what is new is done."""

import json
import time

import mdtraj
import pytest

pytestmark = pytest.mark.workflow

N_FRAMES = 40
STUDY = "results/many"


@pytest.fixture(scope="module")
def data(trpcage, tmp_path_factory):
    """Short pieces of Trp-cage, s0.dcd … s7.dcd, with top.pdb."""
    folder = tmp_path_factory.mktemp("data")
    frames = mdtraj.load_dcd(str(trpcage[1]), top=str(trpcage[0]), stride=10)
    frames = frames.atom_slice(frames.topology.select("name CA"))
    frames[0].save_pdb(str(folder / "top.pdb"))
    for k in range(8):
        frames[k * N_FRAMES : (k + 1) * N_FRAMES].save_dcd(str(folder / f"s{k}.dcd"))
    return folder


def write(study, data, roles, per_job):
    """A study of as many simulations as there are roles; they come as a table, which is quicker to read than YAML."""
    rows = [[f"s{k}", data / "top.pdb", data / f"s{k % 8}.dcd", 100.0, role] for k, role in enumerate(roles)]
    head = ["name", "topology", "trajectory", "time_step_ps", "role"]
    (study.folder / "table.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in [head, *rows]))
    study.write(
        {
            "study": "many",
            "simulations": "table.tsv",
            "simulations_per_job": per_job,
            "models": [{"family": "pca_distances", "latent_dim": 2}],
            "split": {"gap_frames": 1},
            "evaluate": {"lag_frames": [1]},
            "cluster": {"min_cluster_size": 20, "min_samples": 5},
        }
    )


def test_a_thousand_simulations_are_planned_at_once(study, data):
    write(study, data, ["train"] * 1000, "auto")
    start = time.monotonic()
    jobs = study.jobs(study.run("--dry-run", "--quiet", "rules"))
    assert time.monotonic() - start < 20  # 4 s and less (docs/scale.md), and what else the machine does
    assert jobs["read_simulations"] == jobs["embed_simulations"] == 1
    assert sum(jobs.values()) < 60
    assert not (study.folder / STUDY).exists()


def test_no_command_line_grows_with_the_table(study, data):
    """An argument may have 128 KiB: what 1,500 simulations say about themselves is more."""
    write(study, data, ["train"] * 1500, "auto")
    study.run("--", f"{STUDY}/frames/index.json", f"{STUDY}/frames/training.json")
    for name in ("index", "training"):
        index = json.loads((study.folder / STUDY / "frames" / f"{name}.json").read_text())
        assert len(index["simulations"]) == 1500
        assert index["n_frames"] == 1500 * N_FRAMES
    # What was found by the sizes of files is kept, for each job finds its batches by itself.
    kept = json.loads((study.folder / STUDY / "frames" / "simulations_per_job.json").read_text())["simulations_per_job"]
    assert kept > 1500


def test_jobs_take_the_number_that_is_kept(study, data):
    write(study, data, ["train"] * 120, "auto")
    kept = study.folder / STUDY / "frames" / "simulations_per_job.json"
    kept.parent.mkdir(parents=True)
    kept.write_text('{"simulations_per_job": 50}')
    alone = "--cores", "1", "--mode", "subprocess", "--target-jobs", "read_simulations:batch=train002"  # as on a node
    study.run(*alone, "--", f"{STUDY}/frames/train002.json")
    assert len(json.loads((study.folder / STUDY / "frames" / "train002.json").read_text())["simulations"]) == 20
    assert study.jobs(study.run("--dry-run", "--quiet", "rules"))["read_simulations"] == 1  # a start looks at the files


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """A study of five simulations in batches of two, finished."""
    from workflow_study import Study

    study = Study(tmp_path_factory.mktemp("many"))
    write(study, data, ["train"] * 4 + ["embed"], 2)
    study.run()
    return study


def test_nothing_is_left_to_do(done):
    assert (done.folder / STUDY / "report.html").exists()
    assert "Nothing to be done" in done.run()


def test_a_simulation_that_is_added_is_all_that_is_read_and_mapped(done, data):
    frames = [done.folder / STUDY / f"frames/s{k}/part000.h5" for k in range(5)]
    tables = [done.folder / STUDY / f"latent/pca_distances-d2/seed0/s{k}.parquet" for k in range(5)]
    before = [path.stat().st_mtime_ns for path in frames + tables]
    write(done, data, ["train"] * 4 + ["embed"] * 2, 2)  # the new one comes into the same batch as the one before
    jobs = done.jobs(done.run("--dry-run"))
    assert jobs["read_simulations"] == jobs["embed_simulations"] == 1
    assert "train_model" not in jobs
    text = done.run("--", f"{STUDY}/latent/pca_distances-d2/seed0/embed000.json")
    assert "2 simulations, 1 parts read anew" in text
    assert "1 of 2 simulations mapped anew" in text
    assert [path.stat().st_mtime_ns for path in frames + tables] == before
    assert tables[0].with_name("s5.parquet").exists()
