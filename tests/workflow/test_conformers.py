"""The benchmark of conformer generators in a study: it runs, bad records are named, bad files leave nothing."""

import json

import pandas
import pytest

from conformer_files import BROKEN_RECORD, LEFT_OUT, block, conformers
from conformer_study import write_mixed

pytestmark = pytest.mark.workflow

RESULTS = "results/mols/conformers/conformers.json"
STAGES = ("fetch_molecules", "choose_molecules", "benchmark_conformers", "collect_conformers")


def values(**changes) -> dict:
    section = {"references": "mine.sdf", "made_by": "generator", "generators": ["etkdg", "torsions"], "jobs": 2}
    return {
        "study": "mols",
        "seeds": [0, 1],
        "simulations": [{"name": "trpcage", "catalogue": "trpcage"}],
        "models": [{"family": "pca_distances"}],
        "conformers": section | {"max_heavy_atoms": 30} | changes,
    }


def test_a_study_with_conformers(study):
    write_mixed(study.folder / "mine.sdf")
    study.write(values())
    text = study.run("--", RESULTS)
    assert study.jobs(text) == dict(zip(STAGES, (1, 1, 4, 1), strict=True))
    folder = study.folder / "results" / "mols" / "conformers"
    found = json.loads((folder / "conformers.json").read_text())
    assert [entry["name"] for entry in found["about"]["left_out"]] == ["record 4", *LEFT_OUT]
    table = pandas.read_parquet(folder / "molecules.parquet")
    assert table.groupby(["generator", "seed"])["molecule"].nunique().tolist() == [4] * 4
    said = (study.folder / "results/mols/logs/choose_molecules.log").read_text()
    assert "left out boron: MMFF94 has no parameters" in said
    summary = pandas.read_csv(folder / "summary.csv")
    assert set(summary["model"]) == {"etkdg", "torsions"} and set(summary["seed"]) == {"0", "1", "mean", "sd"}
    assert "Nothing to be done" in study.run("--", RESULTS)
    jobs = study.plan(values(generators=["etkdg"]))
    assert [jobs.get(stage) for stage in STAGES] == [None, None, 4, 1]
    jobs = study.plan(values(max_molecules=2))
    assert [jobs.get(stage) for stage in STAGES] == [None, 1, 4, 1]
    assert "collect_conformers" not in study.plan({k: v for k, v in values().items() if k != "conformers"})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"references": "yours.sdf"}, "conformers.references: there is no file 'yours.sdf'"),
        ({"generators": ["etkgd"]}, "did you mean 'etkdg'?"),
        ({"limit_s": "long"}, "conformers.limit_s: got 'long' (text), expected a number"),
        ({}, "is no SDF file"),
    ],
)
def test_mistakes_are_said_before_the_first_job(study, change, expected):
    (study.folder / "mine.sdf").write_text("ATOM      1  N   ALA\n")
    study.write(values(**change))
    text = study.fail("--", RESULTS)
    assert expected in text
    assert "Job stats" not in text
    assert not (study.folder / "results").exists()


def test_a_file_without_a_usable_molecule(study):
    (study.folder / "mine.sdf").write_text(BROKEN_RECORD + block(conformers("CCO.O", 1), "salt"))
    study.write(values())
    text = study.fail("--", RESULTS)
    assert "got no usable molecule; record 1: cannot be parsed" in text
    assert "salt: disconnected, got 2 pieces" in text
    left = [path.name for path in (study.folder / "results/mols/conformers").rglob("*") if path.is_file()]
    assert sorted(left) == ["references.sdf", "references.sdf.source.json"]


def test_a_molecule_that_takes_too_long_has_failed_and_the_others_go_on(study):
    write_mixed(study.folder / "mine.sdf")
    study.write(values(limit_s=1e-6, generators=["etkdg_mmff"], max_molecules=2))
    study.run("--", RESULTS)
    found = json.loads((study.folder / RESULTS).read_text())
    assert len(found["failures"]) == 2 and "not done within" in found["failures"][0]["reason"]
    assert found["curves"]["recall"]["etkdg_mmff"] == [0.0] * 41
