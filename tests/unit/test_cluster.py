"""The stage `cluster` from files to files."""

import json
import math

import mdtraj
import numpy as np
import pandas
import pytest

from latent_study import Study, pair_distances, principal_components
from mdlatent import cluster, stability
from mdlatent.errors import DataError
from mdlatent.frames import FrameStore

OPTIONS = {"min_cluster_size": 20, "min_samples": 5, "n_representatives": 3}


def hopping(n_frames: int, stay: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Latent (n, 2) of a planted trajectory that changes between two states every `stay` frames, and the states."""
    truth = np.arange(n_frames) // stay % 2
    return np.random.default_rng(seed).uniform(-0.2, 0.2, size=(n_frames, 2)) + truth[:, None] * [3, 1], truth


@pytest.fixture(scope="module")
def study(tmp_path_factory, trpcage):
    """Two simulations of 200 and 160 real frames; the planted latent visits state 0 and 1 in turn, 50 frames each."""
    original = mdtraj.load_dcd(str(trpcage[1]), top=mdtraj.load_topology(str(trpcage[0])))[:360]
    study = Study(tmp_path_factory.mktemp("study"))
    study.add_frames({"a": [original[:120], original[120:200]], "b": [original[200:]]}, ".dcd")
    z, truth = zip(hopping(200, 50, 1), hopping(160, 40, 2), strict=True)
    study.truth = np.concatenate(truth)
    study.write_latent(np.concatenate(z))
    cluster.main(study.cluster_arguments(**OPTIONS))
    return study


def test_labels_have_a_row_for_every_frame(study):
    labels = pandas.read_parquet(study.clusters / "labels.parquet")
    assert list(labels.columns) == ["simulation", "frame", "label", "probability"]
    assert str(labels["label"].dtype) == "int32"
    assert str(labels["probability"].dtype) == "float32"
    assert labels["simulation"].tolist() == ["a"] * 200 + ["b"] * 160
    assert labels["frame"].tolist() == [*range(200), *range(160)]
    inside = labels["label"] >= 0
    assert inside.mean() > 0.9
    states = np.unique(np.c_[labels["label"][inside], study.truth[inside]], axis=0)
    assert len(states) == 2  # each label is one true state


def test_transitions_are_those_planted_and_none_joins_the_simulations(study):
    table = pandas.read_csv(study.clusters / "transitions.csv")
    assert list(table.columns) == ["simulation", "from", "to", "count", "count_direct"]
    assert (table["count"] > 0).any()
    changes = table[table["from"] != table["to"]].groupby("simulation")["count"].sum()
    assert changes.to_dict() == {"a": 3, "b": 3}  # a ends in state 1 and b begins in 0: that would be one more
    assert (table["count"] >= table["count_direct"]).all()
    direct = table.groupby("simulation")["count_direct"].sum()
    assert direct["a"] <= 199
    assert direct["b"] <= 159


def test_summary_says_what_a_state_is(study):
    table = pandas.read_csv(study.clusters / "summary.csv").set_index("state")
    assert table.index.tolist() == [0, 1, -1]
    assert table["n_frames"].sum() == 360
    assert table["population"].sum() == pytest.approx(1)
    assert table["n_frames"][0] >= table["n_frames"][1]
    assert 0 < table["population_se"][0] < 0.3
    assert 0 < table["mean_probability"][0] <= 1
    # each state is visited twice per simulation; time until left: 50 (a), 40 (b) frames of 20 ps, and what is cut off
    assert table["n_visits"][0] == table["n_visits"][1] == 4
    assert 700 < table["mean_lifetime_ps"].iloc[0] < 2000
    labels = pandas.read_parquet(study.clusters / "labels.parquet").set_index(["simulation", "frame"])["label"]
    for state in (0, 1):
        row = table.loc[state]
        assert labels[(row["medoid_simulation"], int(row["medoid_frame"]))] == state
        assert row["medoid_time_ps"] == row["medoid_frame"] * 20.0
        models = mdtraj.load(str(study.clusters / "representatives" / f"cluster_{state}.pdb"))
        assert len(models) == 3
        assert models.n_atoms == 304
    assert table["medoid_simulation"].isna()[-1]
    assert table["n_visits"].isna()[-1]


def test_cluster_json_is_complete_and_plain(study):
    about = json.loads((study.clusters / "cluster.json").read_text(), parse_constant=pytest.fail)
    assert about["n_states"] == 2
    assert about["message"] is None
    assert about["settings"]["min_samples"] == 5
    assert about["settings"]["chosen_here"] == []
    assert about["ari_subsamples"] > 0.9
    assert about["settings"]["approx_min_span_tree"] is False
    assert [state["n_frames"] for state in about["states"]]
    for state in about["states"]:
        assert (study.clusters / state["structures"]).is_file()
        assert len(state["representatives"]) == 3
        assert state["representatives"][0]["latent_distance"] == 0


def test_given_parameters_are_the_only_ones_tried(study):
    table = pandas.read_csv(study.clusters / "sweep.csv")
    assert list(table.columns) == stability.COLUMNS
    assert table[["min_cluster_size", "min_samples", "chosen"]].to_numpy().tolist() == [[20, 5, True]]
    assert table["n_states"][0] == 2


def test_running_again_gives_the_same_bytes(study):
    before = {path: path.read_bytes() for path in study.clusters.rglob("*") if path.is_file()}
    cluster.main(study.cluster_arguments(**OPTIONS))
    assert {path: path.read_bytes() for path in study.clusters.rglob("*") if path.is_file()} == before


def check_empty(study: Study, says: str, n_frames: int) -> None:
    about = json.loads((study.clusters / "cluster.json").read_text(), parse_constant=pytest.fail)
    assert about["n_states"] == 0
    assert about["noise_fraction"] == 1
    assert says in about["message"]
    assert about["states"] == []
    assert (study.clusters / "representatives").is_dir()
    assert not list((study.clusters / "representatives").iterdir())
    summary = pandas.read_csv(study.clusters / "summary.csv")
    assert summary[["state", "n_frames", "population"]].to_numpy().tolist() == [[-1, n_frames, 1]]
    transitions = pandas.read_csv(study.clusters / "transitions.csv")
    assert len(transitions) == 0
    assert list(transitions.columns)[:4] == ["simulation", "from", "to", "count"]
    assert (pandas.read_parquet(study.clusters / "labels.parquet")["label"] == -1).all()


def test_no_state_is_written_and_said(tmp_path):
    study = Study(tmp_path)
    study.pretend_frames({"a": 300, "b": 200})
    study.write_latent(np.random.default_rng(0).normal(size=(500, 8)))
    old = study.clusters / "representatives" / "cluster_7.pdb"
    old.parent.mkdir(parents=True)
    old.write_text("of an earlier run")
    cluster.main(study.cluster_arguments(min_cluster_size=50, min_samples=5))
    check_empty(study, "HDBSCAN found no state", 500)


def test_fewer_frames_than_a_state_is_said(tmp_path):
    study = Study(tmp_path)
    study.pretend_frames({"a": 30})
    study.write_latent(np.random.default_rng(0).normal(size=(30, 2)))
    cluster.main(study.cluster_arguments(min_cluster_size=100))
    check_empty(study, "got 30 frames, expected at least 200", 30)


def test_unknown_times_leave_lifetimes_empty(tmp_path):
    from mdlatent.latents import Latents
    from mdlatent.states import Clustering

    latent = Latents(["a"], np.array([0, 4]), np.arange(4), np.full(4, np.nan), np.zeros((4, 1), np.float32))
    found = Clustering(np.array([0, 1, 0, 0], np.int32), np.ones(4, np.float32), [0.5, 0.5])
    from mdlatent.representatives import Pick
    from mdlatent.stability import Choice

    picks = [[Pick("a", 0, math.nan, 0.0)], [Pick("a", 1, math.nan, 0.0)]]
    summary, transitions = cluster.tables(latent, found, picks)
    assert summary["mean_lifetime_ps"].isna().all()
    assert summary["n_visits"].tolist()[:2] == [2, 1]
    assert transitions.to_numpy().tolist() == [["a", 0, 0, 1, 1], ["a", 0, 1, 1, 1], ["a", 1, 0, 1, 1]]
    about = cluster.description(latent, found, picks, OPTIONS, Choice(OPTIONS, 0.5, [], 4))
    assert about["states"][0]["representatives"][0]["time_ps"] is None


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda s: (s.latent / "b.parquet").unlink(), "b.parquet: there is no such table"),
        (lambda s: (s.latent / "b.parquet").write_bytes(b"PAR1 no"), "cannot be read as parquet"),
        (lambda s: change(s, lambda t: t.iloc[:-1]), "got 19 rows, the frame store has 20"),
        (lambda s: change(s, lambda t: t.drop(columns="z1")), "got latent columns z0, the simulations before"),
        (lambda s: change(s, lambda t: t.drop(columns=["z0", "z1"])), "expected z0, z1"),
        (lambda s: change(s, lambda t: t.drop(columns="frame")), "the column 'frame' is missing"),
        (lambda s: change(s, lambda t: t.assign(z1=np.float32([0] * 7 + [np.nan] * 13))), "13 frames .* is frame 7"),
    ],
    ids=["missing", "damaged", "short", "other dimension", "no latent", "no frame", "nan"],
)
def test_bad_latents_are_named_and_nothing_is_written(tmp_path, spoil, says):
    study = Study(tmp_path)
    study.pretend_frames({"a": 30, "b": 20})
    study.write_latent(np.zeros((50, 2)))
    spoil(study)
    with pytest.raises(DataError, match=says):
        cluster.main(study.cluster_arguments())
    assert not study.clusters.exists()


def change(study: Study, edit) -> None:
    path = study.latent / "b.parquet"
    edit(pandas.read_parquet(path)).to_parquet(path, index=False)


def test_the_demo_bar(tmp_path, trpcage):
    """Trp-cage by its CA distances: two states; an eighth is noise by density, most of it outskirts of one state."""
    study = Study(tmp_path)
    original = mdtraj.load_dcd(str(trpcage[1]), top=mdtraj.load_topology(str(trpcage[0])))
    study.add_frames({"trpcage": [original]}, ".dcd")
    with FrameStore(study.index) as store:
        study.write_latent(principal_components(pair_distances(store.read(0, store.n_frames)), 3))
    cluster.main(study.cluster_arguments())
    table = pandas.read_csv(study.clusters / "summary.csv").set_index("state")
    assert table.index.tolist() == [0, 1, -1]
    assert 2750 < table["n_frames"][0] < 2900
    assert 2000 < table["n_frames"][1] < 2200
    assert table["population"][-1] < 0.03
    about = json.loads((study.clusters / "cluster.json").read_text())
    assert 0.08 <= about["noise_fraction_by_density"] <= 0.13
    assert about["caution"] is None
    assert about["settings"]["chosen_here"] == ["min_cluster_size", "min_samples"]
    assert about["ari_subsamples"] > 0.9
    sweep = pandas.read_csv(study.clusters / "sweep.csv")
    assert len(sweep) == 12
    assert sweep["chosen"].sum() == 1
    assert sweep["score"][sweep["chosen"]].item() == sweep["score"].max() > 0.75
    for state, chosen in enumerate(about["states"]):
        models = mdtraj.load(str(study.clusters / "representatives" / f"cluster_{state}.pdb"))
        truth = original[[pick["frame"] for pick in chosen["representatives"]]]
        for k in range(5):
            assert mdtraj.rmsd(models, truth, k)[k] < 1e-3
