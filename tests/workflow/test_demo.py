"""The demo study, end to end: it runs, it is finished, it can be repeated, and only what depends on a change reruns."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas
import pytest
import yaml

from support import ROOT

pytestmark = [pytest.mark.workflow, pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")]

CONFIGS = [ROOT / "config.yaml", *sorted((ROOT / "workflow" / "studies").glob("*.yaml"))]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo, run once for all tests here."""
    from workflow_study import Study

    study = Study(tmp_path_factory.mktemp("demo"))
    shutil.copy(ROOT / "config.yaml", study.config)
    study.output = study.run()
    return study


@pytest.fixture(scope="module")
def results(demo):
    return demo.folder / "results" / "trpcage"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_plans(study, path):
    shutil.copy(path, study.config)
    text = study.run("--dry-run")
    assert {"all", "make_report", "train_model", "cluster"} <= set(study.jobs(text))


def test_the_plan_of_the_demo_is_ready_quickly(study):
    shutil.copy(ROOT / "config.yaml", study.config)
    start = time.monotonic()
    study.run("--dry-run", "--quiet", "all")
    assert time.monotonic() - start < 5


def test_nothing_is_left_to_do(demo):
    assert "Nothing to be done" in demo.run()


def test_two_clear_states_are_found(results):
    about = json.loads((results / "clusters/pca_distances-d3/seed0/cluster.json").read_text())
    assert about["n_states"] == 2
    assert about["noise_fraction"] < 0.05
    assert about["noise_fraction_by_density"] < 0.15
    labels = pandas.read_parquet(results / "clusters/pca_distances-d3/seed0/labels.parquet")
    counts = labels["label"].value_counts()
    assert 2700 < counts[0] < 2950
    assert 1950 < counts[1] < 2250


def test_the_models_reconstruct_held_out_time(results):
    table = pandas.read_csv(results / "evaluation/summary.csv")
    errors = table[table["metric"] == "heldout_distance_rmse"].groupby("model")["value"].first()
    assert errors["pca_distances-d3"] == pytest.approx(0.0348, abs=0.003)  # nm
    assert errors["coordinate-d3"] < 0.032
    spread = table[(table["metric"] == "heldout_distance_rmse") & (table["seed"] == "sd")].set_index("model")["value"]
    assert 0 < spread["coordinate-d3"] < 0.003  # over the seeds


def test_held_out_frames_are_blocks_of_time_and_never_trained_on(results):
    latent = pandas.read_parquet(results / "latent/coordinate-d3/seed0/trpcage.parquet")
    assert len(latent) == 4999
    test = np.flatnonzero(latent["split"] == "test")
    assert len(np.flatnonzero(np.diff(test) > 1)) == 1  # two blocks
    assert len(test) == pytest.approx(0.4 * 4999, abs=2)
    trained = np.flatnonzero(latent["split"] == "train")
    assert np.abs(trained[:, None] - test[None, ::50]).min() > 10


def test_representatives_are_frames_of_the_original_trajectory(results, trpcage):
    import mdtraj

    original = mdtraj.load_dcd(str(trpcage[1]), top=str(trpcage[0]))
    summary = pandas.read_csv(results / "clusters/pca_distances-d3/seed0/summary.csv").set_index("state")
    for state in (0, 1):
        models = mdtraj.load(str(results / f"clusters/pca_distances-d3/seed0/representatives/cluster_{state}.pdb"))
        assert models.n_atoms == 304
        assert len(models) == 5
        medoid = original[int(summary.loc[state, "medoid_frame"])]
        assert mdtraj.rmsd(models[0], medoid)[0] < 1e-3  # nm, the precision of a PDB file


def test_decoded_structures_resemble_the_frames_of_their_states(results, trpcage):
    import mdtraj

    original = mdtraj.load_dcd(str(trpcage[1]), top=str(trpcage[0]))
    original = original.atom_slice(original.topology.select("name CA"))
    for run in ("pca_distances-d3/seed0", "coordinate-d3/seed1"):
        folder = results / "clusters" / run
        medoids = pandas.read_csv(folder / "summary.csv").set_index("state")["medoid_frame"]
        path = mdtraj.load(str(folder / "decoded" / "path_0_1.pdb"))
        assert len(path) == 20
        for state, end in ((0, path[0]), (1, path[-1])):
            decoded = mdtraj.load(str(folder / "decoded" / f"cluster_{state}.pdb"))
            assert [str(atom) for atom in decoded.topology.atoms] == [str(atom) for atom in original.topology.atoms]
            assert mdtraj.rmsd(decoded, original[int(medoids[state])])[0] < 0.08  # nm
            assert mdtraj.rmsd(decoded, end)[0] < 1e-3


def test_exported_encoders_give_the_latent(results):
    import torch

    from mdlatent.frames import FrameStore

    with FrameStore(results / "frames" / "index.json") as store:
        frames = torch.from_numpy(store.read(1000, 1050))
    for run in ("pca_distances-d3/seed0", "coordinate-d3/seed1"):
        table = pandas.read_parquet(results / "latent" / run / "trpcage.parquet")[["z0", "z1", "z2"]]
        encoder = torch.jit.load(str(results / "models" / run / "encoder.pt"))
        np.testing.assert_allclose(encoder(frames), table.to_numpy()[1000:1050], atol=1e-5)


def test_summary_holds_the_headline_numbers(results):
    summary = json.loads((results / "summary.json").read_text())
    assert summary["study"] == "trpcage"
    assert {"commit", "config_sha256", "versions", "metrics"} <= set(summary)
    keys = {"stage", "model", "seed", "dim", "metric", "value", "unit"}
    assert all(keys <= set(record) for record in summary["metrics"])
    found = {(record["model"], record["metric"]) for record in summary["metrics"]}
    assert {("torsions", "amr_recall"), ("etkdg", "failures")} <= found
    for model in ("coordinate-d3", "pca_coordinates-d3", "pca_distances-d3", "tica-d3"):
        assert {(model, "heldout_distance_rmse"), (model, "n_states"), (model, "noise_fraction")} <= found


def test_conformers_are_made_and_measured(results):
    found = json.loads((results / "conformers/conformers.json").read_text())
    assert found["failures"] == [] and not found["about"]["with_precision"]
    values = pandas.DataFrame(found["records"]).set_index(["model", "metric", "seed"])["value"]
    for name in ("etkdg", "etkdg_mmff", "torsions"):
        for seed in (0, 1, 2):
            assert 0.3 < values[name, "amr_recall", seed] < 1.3  # Å
            assert values[name, "stereo_kept", seed] == 1
            assert values[name, "molecules", seed] == 24
    for seed in (0, 1, 2):
        raw = [values[name, "energy_above_reference", seed] for name in ("etkdg", "etkdg_mmff", "torsions")]
        assert raw[0] > 20 > 5 > max(raw[1:])  # kcal/mol
    relaxed = values.xs("relaxed_energy_above_reference", level="metric").groupby("model").mean()
    assert relaxed["etkdg"] > relaxed["etkdg_mmff"] > relaxed["torsions"]


def test_models_are_judged_beside_tica_and_between_seeds(results):
    table = pandas.read_csv(results / "evaluation/summary.csv").set_index(["model", "metric", "seed"])["value"]
    for model in ("coordinate-d3", "pca_coordinates-d3", "pca_distances-d3"):
        assert 0.3 < table[model, "heldout_rmsd", "mean"] < 0.65  # Å
        assert table[model, "contacts_recovered", "mean"] > 0.93
        assert table[model, "contacts_precision", "mean"] > 0.93
        assert 0.5 < table[model, "vamp2_ratio_to_tica", "mean"] < 1
        assert table[model, "ari_subsamples", "mean"] > 0.9
    assert table["coordinate-d3", "ari_seeds", "mean"] > 0.9
    assert table["coordinate-d3", "noise_fraction", "mean"] < 0.1


def test_no_stage_needs_much_memory(results):
    for path in (results / "benchmarks").rglob("*.tsv"):
        used = pandas.read_csv(path, sep="\t", na_values="-")["max_rss"].max()
        assert not used > 1500, f"{path.name}: {used} MB"


def test_the_workflow_report_is_written(demo, results):
    demo.run("--report", str(results / "report.zip"))
    import zipfile

    names = zipfile.ZipFile(results / "report.zip").namelist()
    assert any(name.endswith("report.html") for name in names)


def test_a_clustering_key_reruns_clustering_and_what_follows(demo):
    values = yaml.safe_load(demo.config.read_text())
    values["cluster"]["min_cluster_size"] = 150
    jobs = demo.plan(values)
    once = ("compare_seeds", "summarize_evaluation", "make_report", "all")
    assert jobs == dict.fromkeys(("cluster", "decode_states", "evaluate"), 6) | dict.fromkeys(once, 1)


def test_a_lag_reruns_the_evaluation_and_what_follows(demo):
    values = yaml.safe_load(demo.config.read_text())
    values["evaluate"]["lag_frames"] = [20]
    once = ("fit_tica", "summarize_evaluation", "make_report", "all")
    assert demo.plan(values) == {"evaluate": 6} | dict.fromkeys(once, 1)


def test_an_added_model_leaves_the_others_alone(demo):
    values = yaml.safe_load(demo.config.read_text())
    values["models"].append({"family": "pca_distances", "latent_dim": 2})
    jobs = demo.plan(values)
    own = ("train_model", "export_encoder", "embed", "cluster", "decode_states", "evaluate")
    assert jobs == dict.fromkeys((*own, "summarize_evaluation", "make_report", "all"), 1)


def test_a_simulation_that_is_only_mapped_trains_nothing_again(demo):
    values = yaml.safe_load(demo.config.read_text())
    values["simulations"].append({"name": "again", "catalogue": "trpcage", "role": "embed"})
    jobs = demo.plan(values)
    assert "train_model" not in jobs
    assert jobs["featurize"] == 1
    assert jobs["embed"] == 6  # the new simulation, with three seeds of one model and one of each baseline


def test_an_added_simulation_hides_no_changed_parameter(demo):
    values = yaml.safe_load(demo.config.read_text())
    values["simulations"].append({"name": "again", "catalogue": "trpcage", "role": "embed"})
    values["train"] = {"beta": 1e-5}
    jobs = demo.plan(values)
    assert jobs["train_model"] == 6
    assert jobs["embed"] == 12
    values["featurize"]["stride"] = 2
    assert demo.plan(values)["featurize"] == 2


def test_a_second_fresh_run_gives_the_same_numbers(demo, results, study):
    shutil.copy(ROOT / "config.yaml", study.config)
    study.run()
    again = study.folder / "results" / "trpcage"
    first, second = (json.loads((folder / "summary.json").read_text()) for folder in (results, again))
    measured = {"frames_per_cpu_second", "peak_memory", "seconds_per_conformer"}  # of the machine, not of the science
    for a, b in zip(first["metrics"], second["metrics"], strict=True):
        if a["metric"] not in measured:
            assert a == b
    for path in sorted(results.rglob("*.parquet")):
        one, other = (
            pandas.read_parquet(file).drop(columns="cpu_s", errors="ignore")
            for file in (path, again / path.relative_to(results))
        )
        pandas.testing.assert_frame_equal(one, other, check_exact=True)
    for path in sorted((results / "clusters").rglob("*.pdb")):
        assert path.read_bytes() == (again / path.relative_to(results)).read_bytes()


def test_help_answers_at_once():
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "mdlatent", "--help"], check=True, cwd=ROOT / "workflow", capture_output=True)
    assert time.monotonic() - start < 0.6
