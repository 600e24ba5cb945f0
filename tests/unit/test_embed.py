"""The latent table: what it holds, where each row comes from, and stores that do not fit the model."""

import numpy as np
import pandas as pd
import pytest
import torch

from frame_store import chain, write_store
from mdlatent import distances, embed, models, splits
from mdlatent.errors import DataError
from mdlatent.frames import FrameStore

SPLIT = {
    "by": "time", "n_blocks": 5, "test_blocks": [1, 3], "validation_fraction": 0.15, "gap_frames": 2,
    "test_simulations": [], "validation_simulations": [],
}  # fmt: skip


@pytest.fixture
def study(tmp_path):
    """Index of a store with three simulations, and a model of its atoms."""
    simulations = {"a": chain(120, 8), "b": chain(90, 8, 1), "new": chain(30, 8, 2)}
    index = write_store(tmp_path / "frames", simulations, n_parts=2, roles={"new": "embed"})
    return index, save_model(tmp_path / "model.pt", index)


def save_model(path, index, family="conv2d"):
    torch.manual_seed(0)
    with FrameStore(index) as store:
        model = models.build(family, store.n_atoms, 2)
        rows = np.arange(store.n_frames)
        model.fit(store, rows) if model.fitted == "direct" else model.prepare(store, rows)
        models.save(path, model, {"atoms": store.atoms, "n_atoms": store.n_atoms, "split": SPLIT})
    return path


def run(index, model, simulation, output):
    embed.main(
        ["--frames", str(index), "--model", str(model), "--simulation", simulation, "--output", str(output),
         "--device", "cpu"]
    )  # fmt: skip
    return pd.read_parquet(output)


@pytest.mark.parametrize("family", ["conv2d", "pca_distances"])
def test_rows_are_the_frames_in_order(study, tmp_path, family):
    index, _ = study
    table = run(index, save_model(tmp_path / "m.pt", index, family), "b", tmp_path / "out" / "b.parquet")
    assert list(table) == ["simulation", "frame", "time_ps", "split", "z0", "z1", "reconstruction_rmse_nm"]
    assert table.dtypes.astype(str).to_dict() | {"simulation": "", "split": ""} == {
        "simulation": "", "frame": "int64", "time_ps": "float64", "split": "", "z0": "float32", "z1": "float32",
        "reconstruction_rmse_nm": "float32",
    }  # fmt: skip
    assert (table["simulation"] == "b").all()
    np.testing.assert_array_equal(table["frame"], np.arange(90))
    np.testing.assert_array_equal(table["time_ps"], 2.0 * np.arange(90))
    np.testing.assert_array_equal(table["split"], splits.label_blocks(90, SPLIT))
    model, _ = models.load(tmp_path / "m.pt")
    coordinates = chain(90, 8, 1)
    with torch.no_grad():
        z, _ = model.encode(torch.from_numpy(coordinates))
        error = model.decode(z).numpy() - distances.packed(coordinates)
    np.testing.assert_allclose(table[["z0", "z1"]], z, atol=1e-4)
    np.testing.assert_allclose(table["reconstruction_rmse_nm"], np.sqrt((error**2).mean(1)), rtol=1e-4, atol=1e-6)


def test_pieces_do_not_matter(study, tmp_path, monkeypatch):
    whole = run(*study, "a", tmp_path / "a.parquet")
    monkeypatch.setattr("mdlatent.models.base.MAP_BYTES", 7 * 264 * 64)
    pieces = run(*study, "a", tmp_path / "b.parquet")
    pd.testing.assert_frame_equal(whole, pieces, rtol=1e-4, atol=1e-5)


def test_new_data_is_labelled_embed(study, tmp_path):
    assert set(run(*study, "new", tmp_path / "new.parquet")["split"]) == {"embed"}


def test_unknown_simulation_is_named(study, tmp_path):
    with pytest.raises(DataError, match=r"'c'.*a, b, new"):
        run(*study, "c", tmp_path / "c.parquet")
    assert not (tmp_path / "c.parquet").exists()


@pytest.mark.parametrize(
    ("coordinates", "atoms", "says"),
    [
        (chain(20, 9), None, r"trained on 8 atoms, the frame store holds 9"),
        (chain(20, 8), ["ALA1-CA", "GLY2-CA"] + [f"ALA{k}-CA" for k in range(3, 9)], r"1 differ.*atom 1.*GLY2-CA"),
    ],
)
def test_other_atoms_are_refused(study, tmp_path, coordinates, atoms, says):
    other = write_store(tmp_path / "other", {"a": coordinates}, atoms)
    with pytest.raises(DataError, match=says):
        run(other, study[1], "a", tmp_path / "a.parquet")
    assert not (tmp_path / "a.parquet").exists()


def test_frames_that_map_to_nan_are_refused(tmp_path, study):
    coordinates = chain(60, 8)
    coordinates[41, 0, 0] = np.nan
    other = write_store(tmp_path / "other", {"a": coordinates})
    with pytest.raises(DataError, match=r"1 frames map to NaN.*frame 41"):
        run(other, study[1], "a", tmp_path / "a.parquet")


def test_damaged_model_is_an_error_that_names_it(study, tmp_path):
    index, path = study
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"model\.pt: not a readable model"):
        run(index, path, "a", tmp_path / "a.parquet")


def test_missing_model_is_named(study, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        run(study[0], tmp_path / "nowhere.pt", "a", tmp_path / "a.parquet")
