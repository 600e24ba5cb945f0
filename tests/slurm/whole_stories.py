"""Stories of what nobody disturbs: the whole study, many simulations, conformers."""

import json
from pathlib import Path

import pandas
from cluster import Cluster
from slurm_study import RESULTS, VALUES, SlurmStudy, new_study
from stories import assert_undisturbed, story

from conformer_study import write_mixed
from support import ROOT
from workflow_study import Study


@story
def whole_study(cluster: Cluster, local: Path, folder: Path) -> None:
    """Every job that is not local runs through Slurm, and the results are those of the local run, state for state."""
    study = SlurmStudy(new_study(folder, local), cluster)
    counts = study.jobs(study.run())
    here = {"all", "fetch_topology", "fetch_trajectory", "index_frames", "summarize_evaluation"}
    jobs = cluster.accounts(folder)
    ran = [row["Comment"].removeprefix("rule_").split("_wildcards_")[0] for row in jobs]
    assert {rule: ran.count(rule) for rule in set(ran)} == {k: n for k, n in counts.items() if k not in here}
    assert {row["State"] for row in jobs} == {"COMPLETED"}

    assert_undisturbed(study, local)
    tables = sorted((local / RESULTS).rglob("*.parquet"))
    assert len(tables) == 4  # latent and labels of two models
    for path in tables:
        other = folder / path.relative_to(local)
        pandas.testing.assert_frame_equal(pandas.read_parquet(path), pandas.read_parquet(other), check_exact=True)
    measured = {"frames_per_cpu_second", "peak_memory"}
    one, other = (json.loads((where / RESULTS / "summary.json").read_text())["metrics"] for where in (local, folder))
    assert [row for row in one if row["metric"] not in measured] == [
        row for row in other if row["metric"] not in measured
    ]

    used = pandas.read_csv(folder / RESULTS / "slurm_efficiency.csv", dtype={"job_id": str})
    assert set(used["job_id"]) == {row["JobIDRaw"] for row in jobs}
    assert (used["memory_used_mb"] < used["memory_asked_mb"]).all()
    assert (used["elapsed_s"] <= used["limit_s"]).all()
    assert used["memory_used_mb"].max() > 200
    assert "Nothing to be done" in study.run()


def three_simulations(folder: Path, local: Path, **changes) -> list[Path]:
    """A study of three simulations that are the same, with a baseline as model; where their latent points will be."""
    baseline = next(model for model in VALUES["models"] if model["family"] == "pca_distances")
    simulations = [VALUES["simulations"][0] | {"name": name} for name in "abc"]
    new_study(folder, local)
    Study(folder).write(VALUES | {"simulations": simulations, "models": [baseline]} | changes)
    return [RESULTS / "latent" / "pca_distances-d2" / "seed0" / f"{name}.parquet" for name in "abc"]


def assert_alike(folder: Path, latent: list[Path]) -> None:
    first, *others = (pandas.read_parquet(folder / path).drop(columns="simulation") for path in latent)
    assert len(first) == 1000
    for other in others:
        pandas.testing.assert_frame_equal(first, other, check_exact=True)


@story
def many_small_simulations(cluster: Cluster, local: Path, folder: Path) -> None:
    """With the profile's lines on groups, their jobs go together into one, which asks for what runs at a time in it."""
    latent = three_simulations(folder, local)
    (folder / "slurm").mkdir()
    head, groups = (ROOT / "slurm" / "config.yaml").read_text().split("# groups:", 1)
    lines = f"# groups:{groups}".replace("side_by_side: 4", "side_by_side: 2").splitlines()
    (folder / "slurm" / "config.yaml").write_text(head + "\n".join(line.removeprefix("# ") for line in lines))

    SlurmStudy(folder, cluster).run("--", *map(str, latent))
    for rule in ("featurize", "embed"):
        (job,) = [row for row in cluster.accounts(folder) if row["Comment"] == f"rule_{rule}_{rule}"]
        assert "cpu=2," in job["AllocTRES"] and job["State"] == "COMPLETED"
    assert_alike(folder, latent)


@story
def simulations_in_batches(cluster: Cluster, local: Path, folder: Path) -> None:
    """With `simulations_per_job` a job reads or maps several, as it does by itself for over a hundred simulations."""
    latent = three_simulations(folder, local, simulations_per_job=2)
    SlurmStudy(folder, cluster).run("--", *(str(latent[0].with_name(f"train00{batch}.json")) for batch in range(2)))
    jobs = cluster.accounts(folder)
    for rule in ("read_simulations", "embed_simulations"):
        ran = [row["State"] for row in jobs if row["Comment"].startswith(f"rule_{rule}_")]
        assert ran == ["COMPLETED", "COMPLETED"], (rule, ran)
    assert_alike(folder, latent)


@story
def conformers(cluster: Cluster, local: Path, folder: Path) -> None:
    """The benchmark of conformers as jobs finds what it finds without Slurm, but for the seconds."""
    section = {"references": "mine.sdf", "made_by": "generator", "generators": ["etkdg", "torsions"], "jobs": 2}
    results = RESULTS / "conformers/conformers.json"
    here = folder.with_name("conformers_here")
    for where in (folder, here):
        new_study(where, local)
        write_mixed(where / "mine.sdf")
        Study(where).write(VALUES | {"conformers": section | {"max_heavy_atoms": 30}})
    SlurmStudy(folder, cluster).run("--", str(results))
    Study(here).run("--", str(results))
    jobs = cluster.accounts(folder)
    ran = [row["Comment"].removeprefix("rule_").split("_wildcards_")[0] for row in jobs]
    assert sorted(ran) == ["benchmark_conformers", "benchmark_conformers", "choose_molecules", "collect_conformers"]
    assert {row["State"] for row in jobs} == {"COMPLETED"}
    one, other = (
        pandas.read_parquet(where / results.with_name("molecules.parquet")).drop(columns="cpu_s")
        for where in (folder, here)
    )
    assert set(one["generator"]) == {"etkdg", "torsions"}
    pandas.testing.assert_frame_equal(one, other, check_exact=True)
