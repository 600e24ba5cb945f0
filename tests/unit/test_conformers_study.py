"""The stages of a study that benchmark generators of conformers: what is chosen, measured, and said of what is not."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from conformer_files import BROKEN_RECORD, LEFT_OUT, block, conformers, ligands
from conformer_study import GENERATORS, benchmark_in, given, section, write_mixed
from mdlatent import check, config, fetch, packages
from mdlatent.conformers import collect, findings, generators, molecules, references, sdf
from mdlatent.errors import ConfigError, DataError
from support import ROOT

DEMO = config.read(ROOT / "config.yaml")


def choose(path: Path, output: Path, **changes) -> dict:
    references.main([str(path), *given(output_dir=output, options=section(**changes))])
    return json.loads((output / "references.json").read_text())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    return write_mixed(tmp_path_factory.mktemp("mixed") / "mixed.sdf")


def test_what_cannot_be_used_is_named_and_the_others_go_on(mixed, tmp_path):
    about = choose(mixed, tmp_path, max_heavy_atoms=30, jobs=3)
    assert (about["molecules"], about["readable_molecules"], about["molecules_with_one_reference"]) == (4, 4, 3)
    reasons = {entry["name"]: entry["reason"] for entry in about["left_out"]}
    assert list(reasons) == ["record 4", *LEFT_OUT]
    said = ("cannot be parsed", "got 2 pieces", "31 heavy atoms, expected at most 30", "MMFF94", "flat", "undefined")
    for reason, words in zip(reasons.values(), said, strict=True):
        assert words in reason
    parts = [sdf.read_sdf(tmp_path / f"part00{k}.sdf", duplicate_angstrom=0)[0] for k in range(3)]
    assert [[one.name for one in part] for part in parts] == [
        ["ZINC03814457", "flexible"],
        ["ZINC03814459"],
        ["ZINC03814460"],
    ]
    again = {one.name: one for part in parts for one in part}
    for one in sdf.read_sdf(mixed, 30)[0]:
        assert Chem.MolToSmiles(again[one.name].mol) == Chem.MolToSmiles(one.mol)
        np.testing.assert_allclose(molecules.positions(again[one.name].mol), molecules.positions(one.mol), atol=1e-4)


def test_parts_and_limits_of_the_section(mixed, tmp_path):
    assert choose(mixed, tmp_path, max_molecules=2)["molecules"] == 2
    assert choose(mixed, tmp_path, part="test", max_heavy_atoms=30)["molecules"] == 1
    with pytest.raises(DataError, match="too few for a"):
        choose(mixed, tmp_path / "split", part="test", max_heavy_atoms=16)
    assert not (tmp_path / "split").exists()


def test_a_file_without_a_usable_molecule_leaves_nothing(tmp_path):
    path = tmp_path / "bad.sdf"
    path.write_text(BROKEN_RECORD + block(conformers("CCO.O", 1), "salt"))
    with pytest.raises(DataError, match=r"got no usable molecule; record 1: cannot be parsed.*salt: disconnected"):
        choose(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_conformers_of_a_generator_are_no_measured_references(tmp_path):
    tagged = ligands(2).replace("$$$$\n", "> <PUBCHEM_CONFORMER_ID>\n0000000100000001\n\n$$$$\n")
    path = tmp_path / "pubchem.sdf"
    path.write_text(tagged)
    with pytest.raises(DataError, match="PubChem3D"):
        choose(path, tmp_path / "parts", made_by="experiment")
    assert not (tmp_path / "parts").exists()
    choose(path, tmp_path / "parts", made_by="generator")
    assert (tmp_path / "parts" / "references.json").exists()


def test_of_a_name_that_comes_again_both_are_kept(tmp_path):
    one = block(conformers("CCCCO", 1), "same")
    path = tmp_path / "twice.sdf"
    path.write_text(one + block(conformers("CCCCN", 1), "other") + one)
    choose(path, tmp_path)
    assert [found.name for found in sdf.read_sdf(tmp_path / "part000.sdf")[0]] == ["same", "other", "same (2)"]


@pytest.fixture(scope="module")
def whole(mixed, tmp_path_factory) -> Path:
    """The results of one job for each of two seeds."""
    return benchmark_in(tmp_path_factory.mktemp("whole"), mixed, section(seeds=[0, 1]))


def test_no_result_depends_on_the_number_of_jobs(whole, mixed, tmp_path):
    other = benchmark_in(tmp_path / "spread", mixed, section(seeds=[0, 1], jobs=6))  # two of the jobs have no molecule
    one, two = (pd.read_parquet(folder / "molecules.parquet").drop(columns="cpu_s") for folder in (whole, other))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert len(one) == 4 * 2 * 2
    first, second = (json.loads((folder / "conformers.json").read_text()) for folder in (whole, other))
    for found in (first, second):
        found["records"] = [r for r in found["records"] if r["metric"] != "seconds_per_conformer"]
    assert first == second


def test_tables_of_a_benchmark(whole):
    table = pd.read_parquet(whole / "molecules.parquet")
    assert (table["n_generated"] == 2 * table["n_references"]).all()
    assert [len(one) for one in table["nearest_recall_angstrom"]] == table["n_references"].tolist()
    summary = pd.read_csv(whole / "summary.csv").set_index(["model", "metric", "seed"])
    assert list(summary.columns) == ["stage", "dim", "value", "unit", "low", "high"]
    row = summary.loc[("etkdg", "amr_recall", "1")]
    own = table[(table["generator"] == "etkdg") & (table["seed"] == 1)]["amr_recall_angstrom"]
    assert row["value"] == pytest.approx(own.mean()) and row["low"] < row["value"] < row["high"]
    assert summary.loc[("etkdg", "amr_recall", "sd"), "value"] > 0
    assert summary.loc[("etkdg_mmff", "energy_above_reference", "0"), "unit"] == "kcal/mol"
    with open(whole / "left_out.csv", encoding="utf-8", newline="") as handle:
        assert [entry["name"] for entry in csv.DictReader(handle)] == ["record 4", *LEFT_OUT]


def row(molecule, generator, recall, precision=(), seed=0, n_rotatable=1, **other) -> dict:
    """A row of the table, from the nearest distances."""
    made = bool(len(recall))
    values = {"molecule": molecule, "generator": generator, "seed": seed, "n_rotatable": n_rotatable}
    values |= {"n_references": 2, "n_generated": 4 if made else 0, "cpu_s": 1.0, "failure": "" if made else "too slow"}
    values |= {"nearest_recall_angstrom": list(recall), "nearest_precision_angstrom": list(precision)}
    values |= {"amr_recall_angstrom": np.mean(recall) if made else np.nan, "cov_recall_0.75_percent": 0.0}
    values |= {"amr_precision_angstrom": np.mean(precision) if len(precision) else np.nan}
    return values | other


def test_curves_by_hand():
    table = pd.DataFrame([row("a", "etkdg", [0.31, 1.0], [0.31, 1.0, 1.2, 1.6]), row("b", "etkdg", [])])
    found = findings.curves(table, ["etkdg"])
    at = {threshold: place for place, threshold in enumerate(found["threshold_angstrom"])}
    assert [found["recall"]["etkdg"][at[one]] for one in (0.3, 0.35, 1.05, 2.0)] == [0, 0.25, 0.5, 0.5]
    assert [found["precision"]["etkdg"][at[one]] for one in (1.25, 2.0)] == [0.375, 0.5]


def test_differences_are_paired_by_molecule_and_averaged_over_seeds():
    rows = []
    for k in range(20):
        for seed, noise in ((0, 0.3), (1, -0.3)):
            rows.append(row(f"m{k}", "etkdg", [1.0 + k + noise], [2.0], seed))
            rows.append(row(f"m{k}", "torsions", [0.9 + k - noise], [2.0], seed))
    rows.append(row("failed", "torsions", []))
    found = findings.differences(pd.DataFrame(rows), ["etkdg", "torsions"])
    assert list(found) == ["torsions"]
    entry = found["torsions"]["amr_recall"]
    assert entry["n"] == 20
    assert [entry[k] for k in ("difference", "difference_low", "difference_high")] == pytest.approx([-0.1] * 3)
    assert findings.differences(pd.DataFrame(rows), ["torsions"]) == {}


def test_what_failed_is_named_and_counts_as_no_coverage():
    one = row("a", "etkdg", [0.4, 0.6], [0.4] * 4, **{"cov_recall_0.75_percent": 100.0})
    table = pd.DataFrame([one, row("b", "etkdg", []), row("b", "etkdg", [], seed=3)])
    found = {(r["metric"], r["seed"]): r["value"] for r in findings.records(table, ["etkdg"])}
    assert (found["failures", 0], found["molecules", 0], found["failures", 3]) == (1, 2, 1)
    assert found["coverage_recall_0.75", 0] == 0.5
    assert found["amr_recall", 0] == pytest.approx(0.5)  # of the molecule for which something was made
    assert ("amr_recall", 3) not in found
    assert findings.failures(table) == [
        {"molecule": "b", "generator": "etkdg", "reason": "too slow", "seeds": [0, 3]},
    ]


def test_groups_by_rotatable_bonds_where_each_molecule_counts_once():
    rows = [row("a", "etkdg", [0.4]), row("b", "etkdg", [1.0], n_rotatable=12), row("c", "etkdg", [2.0])]
    table = pd.DataFrame([*rows, row("c", "etkdg", [3.0], seed=1), row("a", "etkdg", [], seed=1)])
    found = findings.groups(table, ["etkdg"])
    assert [(one["label"], one["molecules"]) for one in found] == [("0 to 2", 2), ("9 and more", 1)]
    assert found[0]["recall"]["etkdg"]["value"] == pytest.approx((0.4 + 2.5) / 2)
    assert "low" in found[0]["recall"]["etkdg"] and "low" not in found[1]["recall"]["etkdg"]


def test_with_one_reference_each_only_recall_is_reported():
    table = pd.DataFrame([row("a", "etkdg", [0.4], [0.4, 1.0], n_references=1)])
    assert not any("precision" in record["metric"] for record in findings.records(table, ["etkdg"]))
    assert "precision" not in findings.curves(table, ["etkdg"])
    assert "precision" not in findings.groups(table, ["etkdg"])[0]


def test_rows_are_ordered_whatever_part_they_come_from(tmp_path):
    rows = [row(name, generator, [0.4], seed=seed) for seed in (1, 0) for name in "ba" for generator in GENERATORS]
    pd.DataFrame(rows[1::2]).to_parquet(tmp_path / "one.parquet")
    pd.DataFrame(rows[::2]).to_parquet(tmp_path / "two.parquet")
    table = collect.together([tmp_path / "one.parquet", tmp_path / "two.parquet"], GENERATORS)
    keys = list(zip(table["molecule"], table["generator"], table["seed"], strict=True))
    assert keys == [(name, generator, seed) for name in "ab" for generator in GENERATORS for seed in (0, 1)]


def test_parts_without_any_molecule(tmp_path):
    pd.DataFrame().to_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="no molecule in any part"):
        collect.together([tmp_path / "none.parquet"], GENERATORS)


def test_generators_are_the_same_everywhere():
    section = config.schema()["properties"]["conformers"]["properties"]
    assert section["generators"]["items"]["enum"] == list(generators.GENERATORS)


GOOD = {"references": "x.sdf", "made_by": "experiment"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "conformers.references: there is no file 'x.sdf'"),
        ({"references": "x.smi"}, "expected one of .sdf"),
        ({"references": "pacakge:a==1/b.sdf"}, "did you mean `package:`"),
        ({"made_by": "omega"}, "conformers.made_by: got 'omega' (text), expected one of experiment"),
        ({"generators": ["etdkg"]}, "did you mean 'etkdg'?"),
        ({"generators": ["vae"]}, "conformers.autoencoder: got nothing, expected the trained weights"),
        ({"generators": ["vae"], "autoencoder": "no.pt"}, "got 'no.pt', which is no file"),
        ({"generators": []}, "at least this many entries: 1"),
        ({"limit_s": 0}, "conformers.limit_s: got 0 (a whole number), expected more than 0"),
        ({"max_molecules": 0}, "expected at least 1"),
        ({"part": "tset"}, "did you mean 'test'?"),
        ({"seeds": [1, 1]}, "each entry only once"),
        ({"limit": 5}, "unknown key 'limit' in 'conformers'; did you mean 'limit_s'?"),
    ],
)
def test_mistakes_in_the_section(change, expected):
    with pytest.raises(ConfigError) as caught:
        config.resolve(DEMO | {"conformers": GOOD | change})
    assert expected in str(caught.value)


def test_the_line_of_a_mistake_is_named(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("study: x\nsimulations: [{name: a, catalogue: trpcage}]\nmodels: [{family: conv2d}]\n"
                    "conformers:\n  made_by: experiment\n  references: none.sdf\n")  # fmt: skip
    with pytest.raises(ConfigError, match=r"study.yaml, line 6: conformers.references: there is no file 'none.sdf'"):
        config.load(path)
    path.write_text(path.read_text().replace("  references: none.sdf\n", ""))
    with pytest.raises(ConfigError, match=r"study.yaml, line 4: in 'conformers' the key 'references' is missing"):
        config.load(path)


def test_the_section_is_not_needed_and_takes_the_seeds_of_the_study():
    assert config.resolve({k: v for k, v in DEMO.items() if k != "conformers"})["conformers"] is None
    assert config.resolve(DEMO)["conformers"]["seeds"] == [0, 1, 2]
    assert config.resolve(DEMO | {"conformers": DEMO["conformers"] | {"seeds": [7]}})["conformers"]["seeds"] == [7]


def test_a_local_file_is_looked_into_before_the_first_job(tmp_path):
    path = tmp_path / "x.sdf"
    path.write_text("no molecules\n")
    values = config.resolve(DEMO | {"results": str(tmp_path), "conformers": GOOD | {"references": str(path)}})
    with pytest.raises(DataError, match=r"conformers.references: .*x.sdf is no SDF file"):
        check.before_first_job(values)
    path.write_text(ligands(1))
    check.before_first_job(values)


def test_the_demo_takes_its_ligands_from_the_rdkit_that_is_installed():
    line = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("rdkit=="))
    assert DEMO["conformers"]["references"].startswith(f"package:{line}/")


def test_a_file_of_an_installed_package_is_taken_from_there_if_it_is_as_its_wheel_has_it(tmp_path, monkeypatch):
    member = "shiny/data/x.sdf"
    info = tmp_path / "shiny-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shiny\nVersion: 1.0\nLicense: MIT\n")
    (info / "RECORD").write_text(f"{member},sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\nshiny/y.sdf,,\n")
    (tmp_path / "shiny" / "data").mkdir(parents=True)
    (tmp_path / member).write_bytes(b"")
    (tmp_path / "shiny" / "y.sdf").write_bytes(b"")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert packages.installed("shiny==1.0", member) == (tmp_path / member, "MIT")
    record = fetch.fetch(f"package:shiny==1.0/{member}", tmp_path / "x.sdf", config.resolve(DEMO)["fetch"])
    assert (tmp_path / "x.sdf").is_file() and not (tmp_path / "x.sdf").is_symlink()
    assert (record["member"], record["licence"], record["kind"]) == (member, "MIT", "package")
    assert packages.installed("shiny==1.1", member) is None
    assert packages.installed("shiny==1.0", "shiny/y.sdf") is None  # without a checksum
    assert packages.installed("dull==1.0", member) is None
    (tmp_path / member).write_bytes(b"changed")
    assert packages.installed("shiny==1.0", member) is None
