"""The stage `evaluate` from files to files, and the table of all models."""

import json

import numpy as np
import pandas
import pytest
import torch
import yaml

from frame_store import chain, write_store
from latent_study import Study
from mdlatent import compare_seeds, evaluate, fit_tica, models
from mdlatent.errors import ConfigError, DataError
from mdlatent.frames import FrameStore

KEYS = ["stage", "model", "seed", "dim", "metric", "value", "unit"]
N_ATOMS, LENGTHS = 8, {"a": 300, "b": 200}
SPLIT = {"by": "time", "n_blocks": 5, "test_blocks": [1, 3], "validation_fraction": 0.15, "gap_frames": 5}
ANGLE = {"atoms": [10, 11, 12, 13], "borders_degrees": [0, 179]}


@pytest.fixture
def study(tmp_path):
    """Two simulations of a bending chain, mapped by two principal components; the sign of the first is the state."""
    study = Study(tmp_path)
    frames = {name: chain(n, N_ATOMS, seed) for seed, (name, n) in enumerate(LENGTHS.items())}
    write_store(tmp_path / "frames", frames)
    for name in LENGTHS:
        indices = {"simulations": {name: {"indices": list(range(10, 10 + N_ATOMS))}}}
        (tmp_path / "frames" / name / "atoms.json").write_text(json.dumps(indices))
    study.models = tmp_path / "models" / study.model / "seed0"
    study.tica = tmp_path / "evaluation" / "tica.npz"
    with FrameStore(study.index) as store:
        from mdlatent import splits

        labels = np.concatenate([*splits.labels(store, SPLIT).values()])
        model = models.build("pca_distances", N_ATOMS, 2)
        model.fit(store, np.flatnonzero(labels == "train"))
        models.save(study.models / "model.pt", model, {"atoms": store.atoms})
        study.frames = store.read(0, store.n_frames)
        z, error = (part.numpy() for part in model.embed(torch.from_numpy(study.frames)))
    study.split, study.error, study.z = labels, error, z
    write_latent(study)
    measured = {"parameters": 1234, "frames_per_cpu_second": 56.7, "peak_memory_gb": 0.5}
    (study.models / "config.yaml").write_text(yaml.safe_dump({"measured": measured}))
    study.labels = np.where(np.abs(z[:, 0]) < 0.1 * z[:, 0].std(), -1, (z[:, 0] > 0).astype(int))
    write_clusters(study.clusters, study.labels)
    options = json.dumps({"split": SPLIT, "evaluate": {"lag_frames": [5, 20]}})
    fit_tica.main([f"--frames={study.index}", "--dim=2", f"--options={options}", f"--output={study.tica}"])
    return study


def write_latent(study: Study) -> None:
    start = 0
    for name, n in LENGTHS.items():
        rows = slice(start, start + n)
        columns = {"simulation": name, "frame": np.arange(n), "time_ps": 2.0 * np.arange(n), "split": study.split[rows]}
        columns |= {"z0": study.z[rows, 0], "z1": study.z[rows, 1], "reconstruction_rmse_nm": study.error[rows]}
        study.latent.mkdir(parents=True, exist_ok=True)
        pandas.DataFrame(columns).to_parquet(study.latent / f"{name}.parquet")
        start += n


def write_clusters(folder, labels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = {"n_states": int(labels.max()) + 1, "noise_fraction": float((labels < 0).mean())}
    (folder / "cluster.json").write_text(
        json.dumps(about | {"latent_dim": 2, "ari_subsamples": 0.9, "noise_fraction_by_density": 0.5})
    )
    names = np.repeat(list(LENGTHS), list(LENGTHS.values()))
    pandas.DataFrame({"simulation": names, "label": labels.astype(np.int32)}).to_parquet(folder / "labels.parquet")


def run(study: Study, seed: int = 0, **options) -> dict[str, dict]:
    output = study.folder / "evaluation" / study.model / f"seed{seed}.json"
    study.kinetics = study.folder / "kinetics.json"
    arguments = [f"--frames={study.index}", f"--model={study.models}", f"--latent={study.latent}"]
    arguments += [f"--clusters={study.clusters}", f"--name={study.model}", f"--seed={seed}", f"--output={output}"]
    text = json.dumps({"evaluate": {"lag_frames": [5, 20]} | options})
    evaluate.main([*arguments, f"--tica={study.tica}", f"--kinetics={study.kinetics}", f"--options={text}"])
    records = json.loads(output.read_text(), parse_constant=pytest.fail)
    for record in records:
        assert list(record)[:7] == KEYS
        assert (record["model"], record["seed"], record["dim"]) == (study.model, seed, 2)
        assert record.get("low", -np.inf) <= record["value"] <= record.get("high", np.inf), record["metric"]
    assert len({record["metric"] for record in records}) == len(records)
    return {record["metric"]: record for record in records}


def test_the_records_of_a_model(study):
    found = run(study)
    assert {name: r["unit"] for name, r in found.items()} == {
        "parameters": "count",
        "frames_per_cpu_second": "1/s",
        "peak_memory": "GB",
        "heldout_distance_rmse": "nm",
        **dict.fromkeys(("heldout_rmsd", "heldout_rmsd_median", "heldout_rmsd_95"), "angstrom"),
        **dict.fromkeys(("contacts_recovered", "contacts_precision", "trustworthiness", "continuity"), "1"),
        **dict.fromkeys(("vamp2", "vamp2_lag20", "vamp2_ratio_to_tica", "vamp2_ratio_to_tica_lag20"), "1"),
        "implied_timescale_1": "ps",
        "ck_error": "1",
        "ari_subsamples": "1",
        "n_states": "count",
        **dict.fromkeys(("noise_fraction", "noise_fraction_by_density"), "1"),
    }
    assert (found["parameters"]["stage"], found["vamp2"]["stage"]) == ("train", "evaluate")
    assert (found["n_states"]["stage"], found["n_states"]["value"]) == ("cluster", 2)
    assert "low" not in found["parameters"]
    for name in ("heldout_distance_rmse", "heldout_rmsd", "contacts_recovered", "vamp2", "trustworthiness"):
        assert found[name]["low"] < found[name]["high"]
    assert found["heldout_rmsd_median"]["value"] < found["heldout_rmsd_95"]["value"]
    assert run(study) == found  # every random number is seeded


def test_the_distance_error_is_that_of_the_test_frames(study):
    value = run(study)["heldout_distance_rmse"]["value"]
    expected = np.sqrt(np.mean(study.error[study.split == "test"].astype(float) ** 2))
    assert value == pytest.approx(expected, rel=1e-9)


def test_training_frames_are_not_looked_at(study):
    before = run(study)
    other = study.split != "test"
    study.z, study.error = study.z.copy(), study.error.copy()
    study.z[other], study.error[other] = 0, 9
    write_latent(study)
    after = run(study)
    for name in ("heldout_distance_rmse", "heldout_rmsd", "contacts_recovered", "vamp2", "trustworthiness"):
        assert after[name] == before[name]


def test_structures_and_contacts_are_those_of_the_decoded_frames(study):
    from mdlatent import distances, structures

    found = run(study, max_frames=40, contact_cutoff_nm=0.9)
    test = np.flatnonzero(study.split == "test")
    rows = test[np.arange(40) * len(test) // 40]
    model, _ = models.load(study.models / "model.pt")
    decoded, true = model.decode(torch.from_numpy(study.z[rows])).numpy(), distances.packed(study.frames[rows])
    i, j = np.triu_indices(N_ATOMS, 1)
    far = j - i >= 3
    both = ((decoded < 0.9) & (true < 0.9))[:, far].sum()
    assert found["contacts_recovered"]["value"] == pytest.approx(both / (true < 0.9)[:, far].sum())
    assert found["contacts_precision"]["value"] == pytest.approx(both / (decoded < 0.9)[:, far].sum())
    made = structures.from_distances(decoded, study.frames[0])
    nearest = np.minimum(*(structures.kabsch_rmsd_nm(some, study.frames[rows]) for some in (made, -made))).mean()
    assert 10 * float(nearest) <= found["heldout_rmsd"]["value"] < 20 * float(nearest)


def test_trustworthiness_is_that_of_the_distances_of_test_frames(study):
    from sklearn.manifold import trustworthiness

    from mdlatent import distances

    found = run(study, n_neighbours=7)
    test = study.split == "test"
    original = distances.packed(study.frames[test]).astype(float)
    expected = trustworthiness(original, study.z[test], n_neighbors=7)
    assert found["trustworthiness"]["value"] == pytest.approx(expected, abs=1e-4)
    expected = trustworthiness(study.z[test], original, n_neighbors=7)
    assert found["continuity"]["value"] == pytest.approx(expected, abs=1e-4)


def test_a_map_of_noise_is_worse(study):
    good = run(study)
    study.z = np.random.default_rng(0).normal(size=study.z.shape).astype(np.float32)
    write_latent(study)
    bad = run(study)
    for name in ("trustworthiness", "continuity", "vamp2", "vamp2_ratio_to_tica", "contacts_recovered"):
        assert bad[name]["value"] < 0.9 * good[name]["value"], name
    assert bad["vamp2"]["value"] < 0.1
    assert bad["heldout_rmsd"]["value"] > good["heldout_rmsd"]["value"]


def test_slow_motion_is_compared_with_tica_on_the_same_frames(study):
    from mdlatent.metrics import kinetics

    found = run(study)
    with np.load(study.tica) as tica:
        rows, slowest = tica["rows"], tica["lag5"]
    np.testing.assert_array_equal(rows, np.flatnonzero(study.split == "test"))
    cuts = np.flatnonzero(np.diff(rows) > 1) + 1
    assert len(cuts) == 3  # two test blocks in each of two simulations
    baseline = kinetics.vamp2(kinetics.lagged_moments(np.split(slowest, cuts), 5))
    own = kinetics.vamp2(kinetics.lagged_moments(np.split(study.z[rows], cuts), 5))
    assert found["vamp2"]["value"] == pytest.approx(own)
    assert found["vamp2_ratio_to_tica"]["value"] == pytest.approx(own / baseline)


def test_known_states_are_compared_on_test_frames(study):
    from mdlatent.metrics.agreement import dihedrals_degrees

    angle = dihedrals_degrees(study.frames, np.array([[0, 1, 2, 3]]))[:, 0]
    write_clusters(study.clusters, np.where((angle >= 0) & (angle < 179), 0, 1))
    found = run(study, reference_states={"dihedrals": [ANGLE]})
    for name in ("ari_reference", "nmi_reference", "ari_reference_with_noise", "nmi_reference_with_noise"):
        assert found[name]["value"] == pytest.approx(1)
    labels = np.where((angle >= 0) & (angle < 179), 0, 1)
    labels[study.split != "test"] = 0
    labels[np.flatnonzero(study.split == "test")[::4]] = -1
    write_clusters(study.clusters, labels)
    found = run(study, reference_states={"dihedrals": [ANGLE]})
    assert found["ari_reference"]["value"] == pytest.approx(1)
    assert found["ari_reference_with_noise"]["value"] < 0.9


def test_atoms_of_known_states_must_be_mapped(study):
    with pytest.raises(ConfigError, match=r"atom 9 of the dihedral \[9, 11, 12, 13\] is not among the 8 mapped atoms"):
        run(study, reference_states={"dihedrals": [ANGLE | {"atoms": [9, 11, 12, 13]}]})


def test_the_markov_model_is_written(study):
    found = run(study)
    written = json.loads(study.kinetics.read_text(), parse_constant=pytest.fail)
    assert (written["lag_frames"], written["time_step_ps"], written["states"]) == (5, 2.0, [0, 1])
    row = next(row for row in written["timescales"] if row["lag_frames"] == 5)
    assert row["values"][0] == found["implied_timescale_1"]["value"]
    assert written["ck_error"] == found["ck_error"]["value"]


def test_without_test_frames_or_states_the_rest_is_measured(study, capsys):
    study.split = np.full(len(study.split), "train", object)
    write_latent(study)
    write_clusters(study.clusters, np.full(len(study.split), -1))
    found = run(study)
    measured = {"parameters", "frames_per_cpu_second", "peak_memory"}
    assert set(found) == measured | {"n_states", "noise_fraction", "noise_fraction_by_density"}
    assert "no frame is held out" in capsys.readouterr().err


def test_what_was_not_measured_is_left_out(study):
    (study.models / "config.yaml").write_text("measured: {parameters: 5, frames_per_cpu_second: null}")
    found = run(study, n_neighbours=1000, lag_frames=[5, 50, 100])
    assert found["parameters"]["value"] == 5
    assert not {"frames_per_cpu_second", "peak_memory", "trustworthiness", "vamp2_lag100"} & set(found)
    assert "vamp2_lag50" in found
    assert "vamp2_ratio_to_tica_lag50" not in found  # TICA was fitted at other lags


def test_tica_of_other_frames_is_refused(study):
    study.split = np.roll(study.split, 1)
    write_latent(study)
    with pytest.raises(DataError, match="was made for other test frames"):
        run(study)


def test_all_models_in_one_table(study, tmp_path):
    run(study, 0)
    (study.models / "config.yaml").write_text("measured: {parameters: 1236}")
    run(study, 1)
    files = sorted((tmp_path / "evaluation" / study.model).glob("seed?.json"))
    output = tmp_path / "evaluation" / "summary.csv"
    evaluate.main(["--summary", *map(str, files), "--output", str(output)])
    table = pandas.read_csv(output)
    assert list(table.columns) == [*KEYS, "low", "high"]
    parameters = table[table["metric"] == "parameters"].set_index("seed")["value"]
    assert parameters.to_dict() == {"0": 1234, "1": 1236, "mean": 1235, "sd": pytest.approx(np.sqrt(2))}
    memory = table[table["metric"] == "peak_memory"].set_index("seed")["value"]
    assert memory.to_dict() == {"0": 0.5, "mean": 0.5}  # known of one seed only


def test_seeds_are_compared(study, tmp_path):
    noisy = study.labels.copy()
    noisy[::3] = -1
    folders = [study.clusters.with_name(f"seed{seed}") for seed in (0, 1, 7)]
    for folder, labels in zip(
        folders, (study.labels, 1 - np.where(study.labels < 0, 2, study.labels), noisy), strict=True
    ):
        write_clusters(folder, labels)
    output = tmp_path / "seeds.json"
    compare_seeds.main(["--name=m", "--clusters", *map(str, folders), f"--output={output}"])
    records = json.loads(output.read_text())
    assert all(list(record) == KEYS for record in records)
    strict = {r["seed"]: r["value"] for r in records if r["metric"] == "ari_seeds"}
    lenient = {r["seed"]: r["value"] for r in records if r["metric"] == "ari_seeds_without_noise"}
    assert lenient == pytest.approx({0: 1, 1: 1, 7: 1})  # names of states do not matter
    assert strict[7] < strict[0] == strict[1] < 1
    write_clusters(folders[1], study.labels)
    (folders[1] / "labels.parquet").unlink()
    pandas.DataFrame({"label": study.labels[:-1]}).to_parquet(folders[1] / "labels.parquet")
    with pytest.raises(DataError, match=r"labels of \[499, 500\] frames"):
        compare_seeds.main(["--name=m", "--clusters", *map(str, folders), f"--output={output}"])


def test_missing_arguments_and_files_are_named(study):
    with pytest.raises(ConfigError, match="--frames is missing"):
        evaluate.main(["--output", str(study.folder / "x.json")])
    (study.clusters / "cluster.json").unlink()
    with pytest.raises(DataError, match=r"cluster\.json: there is no such file"):
        run(study)
    assert not (study.folder / "evaluation" / study.model).exists()
