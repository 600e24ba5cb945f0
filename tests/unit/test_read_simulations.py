"""Many simulations read and mapped in one go: the same as one by one, and nothing again that is done."""

import json
import os
import shutil
from pathlib import Path

import mdtraj
import numpy as np
import pandas
import pytest

from mdlatent import (
    embed,
    featurize,
    files,
    frames,
    index_frames,
    read_simulations,
    select_atoms,
    stage,
    train,
)
from mdlatent.errors import DataError

N_FRAMES = 40


class Batch:
    """Three short simulations of Trp-cage in `folder`, two with the same topology, and what is made of them."""

    def __init__(self, folder: Path, trpcage: tuple[Path, Path]):
        self.folder = folder
        topology, trajectory = trpcage
        whole = mdtraj.load_dcd(str(trajectory), top=str(topology), stride=20)
        (folder / "data").mkdir()
        for name in ("top", "own"):
            shutil.copy(topology, folder / "data" / f"{name}.pdb")
        for k, name in enumerate("abc"):
            whole[k * N_FRAMES : (k + 1) * N_FRAMES].save_dcd(str(folder / "data" / f"{name}.dcd"))
        self.records = [self.record("a", "top"), self.record("b", "top"), self.record("c", "own")]
        self.index = folder / "frames" / "train000.json"

    def record(self, name: str, topology: str) -> dict:
        study, place = self.folder, self.folder / "trajectories" / name
        uris = {place / "topology.pdb": f"{topology}.pdb", place / "part000.dcd": f"{name}.dcd"}
        return {
            "name": name,
            "role": "train",
            "time_step_ps": 100.0,
            "temperature_k": None,
            "topology": str(place / "topology.pdb"),
            "atoms": str(study / "frames" / name / "atoms.json"),
            "parts": [{"file": str(self.part(name)), "trajectory": str(place / "part000.dcd")}],
            "uris": {str(file): str(study / "data" / uri) for file, uri in uris.items()},
        }

    def part(self, name: str) -> Path:
        return self.folder / "frames" / name / "part000.h5"

    def read(self, code: str = "1", **options) -> set[str]:
        """Run the stage; names of the simulations that were read anew."""
        before = {record["name"]: self.changed(record["name"]) for record in self.records}
        arguments = ["--simulations", json.dumps(self.records), "--options", json.dumps({"featurize": options})]
        read_simulations.main([*arguments, "--code", code, "--output", str(self.index)])
        return {name for name, then in before.items() if self.changed(name) != then}

    def changed(self, name: str) -> int:
        path = self.part(name)
        return path.stat().st_mtime_ns if path.exists() else 0


@pytest.fixture
def batch(tmp_path, trpcage) -> Batch:
    return Batch(tmp_path, trpcage)


def test_the_same_as_one_by_one(batch, tmp_path):
    assert batch.read(stride=2) == {"a", "b", "c"}
    for record in batch.records:
        name, data = record["name"], record["uris"]
        atoms, part = tmp_path / "atoms.json", tmp_path / "part.h5"
        options = ["--options", '{"featurize": {"stride": 2}}', "--output"]
        one = {"name": name, "topology": data[record["topology"]]}
        select_atoms.main(["--simulations", json.dumps([one]), *options, str(atoms)])
        assert files.read_json(Path(record["atoms"])) == files.read_json(atoms)
        paths = ["--topology", one["topology"], "--trajectory", data[record["parts"][0]["trajectory"]]]
        featurize.main(["--simulation", name, *paths, "--atoms", str(atoms), *options, str(part)])
        with frames.open_part(part) as alone, frames.open_part(batch.part(name)) as found:
            for column in ("coordinates", "frame", "time_ps"):
                np.testing.assert_array_equal(alone[column][:], found[column][:])
    with frames.FrameStore(batch.index) as store:
        assert [s.name for s in store.simulations] == ["a", "b", "c"] and store.n_frames == 3 * N_FRAMES // 2
        assert store.simulations[0].parts[0].trajectory.resolve() == tmp_path / "data" / "a.dcd"
    atoms = index_frames.merged_atoms([Path(record["atoms"]) for record in batch.records])
    assert files.read_json(batch.index) == index_frames.build_index(batch.records, atoms, None, batch.index.parent)


def test_only_what_depends_on_a_change_is_read_again(batch):
    records = batch.records
    batch.records = records[:2]
    assert batch.read() == {"a", "b"}
    batch.records = records
    assert batch.read() == {"c"}
    assert batch.read() == set()
    batch.records = records[1:]
    assert batch.read() == set()
    batch.records = records
    shutil.copy(batch.folder / "data" / "a.dcd", batch.folder / "data" / "b.dcd")
    assert batch.read() == {"b"}
    os.utime(batch.folder / "data" / "a.dcd")  # newer, and the same
    assert batch.read() == set()
    batch.part("c").write_bytes(b"damaged")
    assert batch.read() == {"c"}
    assert batch.read(stride=2) == batch.read(stride=2, code="2") == {"a", "b", "c"}


def test_a_grown_simulation_has_only_its_new_part_read(batch):
    batch.read()
    record = batch.records[0]
    trajectory = str(batch.folder / "trajectories" / "a" / "part001.dcd")
    record["uris"][trajectory] = str(batch.folder / "data" / "b.dcd")
    record["parts"].append({"file": str(batch.part("a").with_name("part001.h5")), "trajectory": trajectory})
    assert batch.read() == set()  # the first parts stay
    with frames.FrameStore(batch.index) as store:
        assert store.simulation("a").n_frames == 2 * N_FRAMES


def test_one_that_fails_does_not_stop_the_others(batch):
    (batch.folder / "data" / "a.dcd").write_bytes((batch.folder / "data" / "a.dcd").read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"(?s)simulation 'a': part000.dcd is truncated.*other 2 of 3 are read"):
        batch.read()
    assert not batch.index.exists() and not batch.part("a").exists() and batch.part("c").exists()


def test_the_choice_among_atoms_is_taken_over(batch):
    chosen = batch.folder / "informative.json"
    files.write_json(chosen, {"n_selected": 20, "kept": [1, 5, 7], "simulations": {"x": {}}})
    assert batch.read(max_atoms=3) == {"a", "b", "c"}
    options = json.dumps({"featurize": {"max_atoms": 3, "reduction": "informative"}})
    arguments = ["--simulations", json.dumps(batch.records), "--options", options, "--like", str(chosen)]
    read_simulations.main([*arguments, "--output", str(batch.index)])
    assert files.read_json(Path(batch.records[2]["atoms"]))["kept"] == [1, 5, 7]


def test_tables_of_all_simulations_are_made_once(batch, tmp_path):
    batch.read()
    split = {"gap_frames": 1}
    options = {"split": split, "models": [{"family": "pca_distances", "latent_dim": 2}], "train": {}}
    models = [tmp_path / name for name in ("one", "other")]
    for folder, more in zip(models, ({}, {"split": split | {"test_blocks": [0]}}), strict=True):
        arguments = ["--frames", str(batch.index), "--model", "pca_distances-d2", "--output-dir", str(folder)]
        train.main([*arguments, "--options", json.dumps(options | more)])
    output = tmp_path / "latent" / "train000.json"

    def run(model: Path = models[0], code: str = "1") -> set[str]:
        tables = {name: output.with_name(f"{name}.parquet") for name in "abc"}
        before = {name: path.stat().st_mtime_ns if path.exists() else 0 for name, path in tables.items()}
        paths = ["--frames", str(batch.index), "--model", str(model / "model.pt"), "--output", str(output)]
        embed.main([*paths, "--code", code])
        return {name for name, path in tables.items() if path.stat().st_mtime_ns != before[name]}

    assert run() == {"a", "b", "c"}
    assert files.read_json(output) == ["a", "b", "c"]
    assert run() == set()
    output.with_name("b.parquet").write_bytes(b"damaged")
    assert run() == {"b"}
    shutil.copy(batch.folder / "data" / "a.dcd", batch.folder / "data" / "c.dcd")
    batch.read()
    assert run() == {"c"}
    assert run(models[1]) == run(models[1], code="2") == {"a", "b", "c"}

    alone = tmp_path / "b.parquet"
    paths = ["--frames", str(batch.index), "--model", str(models[1] / "model.pt"), "--output", str(alone)]
    embed.main([*paths, "--simulation", "b"])
    pandas.testing.assert_frame_equal(pandas.read_parquet(alone), pandas.read_parquet(output.with_name("b.parquet")))


def test_more_than_an_argument_may_hold_comes_from_standard_input(tmp_path, monkeypatch):
    class Piped:
        read = staticmethod(lambda: json.dumps({"split": {"test_blocks": [2]}}) + " " * 200_000)

    monkeypatch.setattr(stage.sys, "stdin", Piped)
    assert stage.read_options("-", "split")["split"]["test_blocks"] == [2]
