"""The stage `evaluate`: held-out errors, their intervals, and one table of all models."""

import json

import numpy as np
import pandas
import pytest
import yaml

from latent_study import Study
from mdlatent import evaluate
from mdlatent.errors import ConfigError, DataError

KEYS = ["stage", "model", "seed", "dim", "metric", "value", "unit"]


@pytest.fixture
def study(tmp_path):
    """Two simulations of 100 and 50 frames; error 0.05 nm in the test, 1 nm (far off) everywhere else."""
    study = Study(tmp_path)
    study.pretend_frames({"a": 100, "b": 50})
    split = np.full(150, "train", object)
    split[20:40] = split[60:80] = split[110:130] = "test"
    split[40:50] = "validation"
    study.split, study.error = split, np.where(split == "test", 0.05, 1.0).astype(np.float32)
    study.write_latent(np.zeros((150, 2)), split, study.error)
    study.models = study.folder / "models" / study.model / "seed0"
    study.models.mkdir(parents=True)
    measured = {"parameters": 1234, "frames_per_cpu_second": 56.7, "peak_memory_gb": 0.5}
    (study.models / "config.yaml").write_text(yaml.safe_dump({"measured": measured}))
    study.clusters.mkdir(parents=True)
    labels = np.where(np.arange(150) < 15, -1, 0).astype(np.int32)
    (study.clusters / "cluster.json").write_text(json.dumps({"n_states": 2, "noise_fraction": 0.1}))
    pandas.DataFrame({"simulation": ["a"] * 100 + ["b"] * 50, "label": labels}).to_parquet(
        study.clusters / "labels.parquet"
    )
    return study


def run(study: Study, seed: int = 0) -> dict[str, dict]:
    output = study.folder / "evaluation" / study.model / f"seed{seed}.json"
    arguments = [f"--frames={study.index}", f"--model={study.models}", f"--latent={study.latent}"]
    arguments += [f"--clusters={study.clusters}", f"--name={study.model}", f"--seed={seed}", f"--output={output}"]
    evaluate.main(arguments)
    records = json.loads(output.read_text(), parse_constant=pytest.fail)
    for record in records:
        assert list(record)[:7] == KEYS
        assert (record["model"], record["seed"], record["dim"]) == (study.model, seed, 2)
    assert len({record["metric"] for record in records}) == len(records)
    return {record["metric"]: record for record in records}


def test_the_records_of_a_model(study):
    found = run(study)
    assert {name: (r["stage"], r["value"], r["unit"]) for name, r in found.items()} == {
        "parameters": ("train", 1234, "count"),
        "frames_per_cpu_second": ("train", 56.7, "1/s"),
        "peak_memory": ("train", 0.5, "GB"),
        "heldout_distance_rmse": ("evaluate", pytest.approx(0.05), "nm"),
        "n_states": ("cluster", 2, "count"),
        "noise_fraction": ("cluster", 0.1, "1"),
    }
    assert found["heldout_distance_rmse"]["low"] == pytest.approx(0.05)
    assert found["noise_fraction"]["low"] <= 0.1 <= found["noise_fraction"]["high"]
    assert "low" not in found["parameters"]


def test_the_error_is_the_root_of_the_mean_square_over_test_frames(study):
    error = np.random.default_rng(0).uniform(0.01, 0.1, 150).astype(np.float32)
    study.write_latent(np.zeros((150, 2)), study.split, error)
    found = run(study)["heldout_distance_rmse"]
    assert found["value"] == pytest.approx(np.sqrt(np.mean(error[study.split == "test"].astype(float) ** 2)), rel=1e-12)
    assert found["low"] < found["value"] < found["high"]
    assert run(study)["heldout_distance_rmse"] == found  # the bootstrap is seeded


def test_test_frames_are_cut_at_gaps(study):
    runs = evaluate.held_out_errors(study.latent / "a.parquet")
    assert [len(piece) for piece in runs] == [20, 20]


def test_without_test_frames_the_metric_is_left_out(study, capsys):
    study.write_latent(np.zeros((150, 2)), "train", 0.05)
    assert "heldout_distance_rmse" not in run(study)
    assert "no frame is held out" in capsys.readouterr().err


def test_what_was_not_measured_is_left_out(study):
    (study.models / "config.yaml").write_text("measured: {parameters: 5, frames_per_cpu_second: null}")
    found = run(study)
    assert found["parameters"]["value"] == 5
    assert not {"frames_per_cpu_second", "peak_memory"} & set(found)


def test_the_interval_has_about_the_right_width():
    blocks = np.random.default_rng(1).normal(5, 1, size=400)
    low, high = evaluate.block_bootstrap(blocks * 7, np.full(400, 7), lambda mean: mean)
    assert low < blocks.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * blocks.std() / np.sqrt(400), rel=0.1)
    assert evaluate.block_bootstrap([1.0], [1], lambda mean: mean) is None


def test_all_models_in_one_table(study, tmp_path):
    run(study, 0)
    (study.models / "config.yaml").write_text("measured: {parameters: 1236}")
    run(study, 1)
    files = sorted((tmp_path / "evaluation").rglob("*.json"))
    output = tmp_path / "evaluation" / "summary.csv"
    evaluate.main(["--summary", *map(str, files), "--output", str(output)])
    table = pandas.read_csv(output)
    assert list(table.columns) == [*KEYS, "low", "high"]
    parameters = table[table["metric"] == "parameters"].set_index("seed")["value"]
    assert parameters.to_dict() == {"0": 1234, "1": 1236, "mean": 1235, "sd": pytest.approx(np.sqrt(2))}
    memory = table[table["metric"] == "peak_memory"].set_index("seed")["value"]
    assert memory.to_dict() == {"0": 0.5, "mean": 0.5}  # known of one seed only


def test_missing_arguments_and_files_are_named(study):
    with pytest.raises(ConfigError, match="--frames is missing"):
        evaluate.main(["--output", str(study.folder / "x.json")])
    (study.clusters / "cluster.json").unlink()
    with pytest.raises(DataError, match=r"cluster\.json: there is no such file"):
        run(study)
    assert not (study.folder / "evaluation").exists()
