"""The configuration: every mistake is named with its place, what was got and what was expected."""

import copy
import sys
from pathlib import Path

import pytest
import yaml

from mdlatent import config, table
from mdlatent.errors import ConfigError
from support import ROOT

STUDIES = [ROOT / "config.yaml", *sorted((ROOT / "workflow" / "studies").glob("*.yaml"))]


@pytest.fixture
def demo() -> dict:
    return config.read(ROOT / "config.yaml")


def load_text(tmp_path: Path, text: str) -> dict:
    (tmp_path / "study.yaml").write_text(text)
    return config.load(tmp_path / "study.yaml")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_in_the_repository_is_valid(path):
    values = config.load(path)
    assert values["simulations"]
    assert all(model["name"] for model in values["models"])


def test_defaults_are_filled_in_without_touching_what_was_given(demo):
    before = copy.deepcopy(demo)
    values = config.resolve(demo)
    assert demo == before
    assert values["cluster"]["n_representatives"] == 5
    assert values["train"]["epochs"] == 40
    assert values["models"][1]["name"] == "pca_coordinates-d3"
    assert values["distances"] == {"store": False}


def test_a_resolved_configuration_resolves_to_itself(demo):
    once = config.resolve(demo)
    assert config.resolve(once) == once


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"clutser": {}}, "unknown key 'clutser'; did you mean 'cluster'?"),
        ({"train": {"epoch": 3}}, "unknown key 'epoch' in 'train'; did you mean 'epochs'?"),
        ({"train": {"epochs": "ten"}}, "train.epochs: got 'ten' (text), expected a whole number"),
        ({"train": {"epochs": 0}}, "train.epochs: got 0 (a whole number), expected at least 1"),
        ({"train": {"learning_rate": 0}}, "expected more than 0"),
        ({"cluster": {"selection_method": "eon"}}, "expected one of eom, leaf (did you mean 'eom'?)"),
        ({"models": []}, "models: got [] (a list), expected at least this many entries: 1"),
        ({"models": [{"family": "conv2"}]}, "did you mean 'conv2d'?"),
        ({"models": [{"family": "conv2d"}, {"family": "conv2d"}]}, "'conv2d-d3' stands 2 times"),
        ({"models": [{"family": "conv2d", "train": {"epoch": 1}}]}, "unknown key 'epoch'"),
        ({"study": "a/b"}, "becomes part of file names"),
        ({"split": {"n_blocks": 3, "test_blocks": [3]}}, "got block 3, expected 0 to 2"),
        ({"split": {"n_blocks": 2, "test_blocks": [0, 1]}}, "none is left to train on"),
        ({"split": {"by": "simulation", "test_simulations": ["trpcgae"]}}, "did you mean 'trpcage'?"),
        ({"simulations": [{"name": "a", "catalogue": "trpcge"}]}, "did you mean 'trpcage'?"),
        ({"simulations": [{"name": "a"}]}, "expected exactly one of `catalogue`, `simulate`, or `trajectory`"),
        ({"simulations": [{"name": "a", "trajectory": ["x.xtc"]}]}, "`topology` is missing"),
        ({"simulations": [{"name": "a", "catalogue": "trpcage"}] * 2}, "'a' is named 2 times"),
        ({"simulations": [{"name": "a", "catalogue": "trpcage", "role": "embed"}]}, "nothing to train on"),
        ({"simulations": "no-such.tsv"}, "there is no such file"),
        ({"seeds": [1, 1]}, "each entry only once"),
    ],
)
def test_each_mistake_is_explained(demo, change, expected):
    with pytest.raises(ConfigError) as caught:
        config.resolve(demo | change)
    assert expected in str(caught.value)


def test_all_mistakes_are_reported_at_once_with_their_lines(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, "study: x\nmodels:\n  - family: conv2d\n    latent_dim: zero\nsimulations:\n  - nmae: a\n")
    lines = str(caught.value).splitlines()
    assert any("study.yaml, line 4: models.0.latent_dim: got 'zero'" in line for line in lines)
    assert any("study.yaml, line 6: unknown key 'nmae'" in line and "'name'?" in line for line in lines)


def test_numbers_without_a_decimal_point_are_numbers(tmp_path):
    text = "study: x\nsimulations: [{name: a, catalogue: trpcage}]\nmodels: [{family: conv2d, train: {beta: 2e-5}}]\n"
    values = load_text(tmp_path, text + "train: {beta: 5e-6, learning_rate: 1E-3}\n")
    assert (values["train"]["beta"], values["train"]["learning_rate"]) == (5e-6, 1e-3)
    assert config.train_settings(values, values["models"][0])["beta"] == 2e-5


def test_broken_yaml_names_the_line(tmp_path):
    with pytest.raises(ConfigError, match=r"study.yaml, line 3: not valid YAML"):
        load_text(tmp_path, "study: x\nmodels: [\n")


@pytest.mark.parametrize("separator", ["\t", ","], ids=["tsv", "csv"])
def test_a_table_file_says_the_same_as_the_inline_list(tmp_path, demo, separator):
    for name in ("top.pdb", "b.dcd", "a.dcd"):
        (tmp_path / name).write_text("x")
    suffix = ".csv" if separator == "," else ".tsv"
    table = tmp_path / f"simulations{suffix}"
    rows = [
        ["name", "topology", "trajectory", "time_step_ps", "role"],
        ["one", f"{tmp_path}/top.pdb", f"{tmp_path}/b.dcd;{tmp_path}/a.dcd", "2.5", ""],
        ["two", f"{tmp_path}/top.pdb", f"{tmp_path}/*.dcd", "1", "embed"],
    ]
    table.write_text("".join(separator.join(row) + "\n" for row in rows))
    one, two = config.resolve(demo | {"simulations": str(table)})["simulations"]
    assert one["trajectory"] == [f"{tmp_path}/b.dcd", f"{tmp_path}/a.dcd"]  # order as given
    assert one["time_step_ps"] == 2.5
    assert one["role"] == "train"
    assert two["trajectory"] == [f"{tmp_path}/a.dcd", f"{tmp_path}/b.dcd"]  # a glob is sorted
    assert two["role"] == "embed"


def test_a_wrong_number_in_a_table_names_file_and_line(tmp_path, demo):
    (tmp_path / "t.tsv").write_text("name\tcatalogue\ttime_step_ps\na\ttrpcage\tfast\n")
    with pytest.raises(ConfigError, match=r"t\.tsv, line 2: time_step_ps: got 'fast', expected a number"):
        config.resolve(demo | {"simulations": str(tmp_path / "t.tsv")})


def test_lines_of_a_table_are_read_as_they_stand(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\ufeff# made by hand\nname, topology,trajectory\n\na, x.pdb#sha256=00,y.dcd\n#b,x.pdb,y.dcd\nc\n")
    assert table.read(path) == [
        {"name": "a", "topology": "x.pdb#sha256=00", "trajectory": ["y.dcd"]},  # a checksum is no comment
        {"name": "c"},
    ]
    for text, says in (("name,seed\na,1,2\n", "line 2: got 3 cells, the head has 2 keys"), ("\n", "it is empty")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=says):
            table.read(path)
    path.write_bytes(b"name\n\xff\n")
    with pytest.raises(ConfigError, match="not a table of commas"):
        table.read(path)


def test_missing_files_and_missing_time_steps_are_seen_before_anything_runs(tmp_path, demo):
    top, dcd = tmp_path / "top.pdb", tmp_path / "a.dcd"
    row = {"name": "a", "topology": str(top), "trajectory": [str(dcd)]}
    with pytest.raises(ConfigError, match="there is no file"):
        config.resolve(demo | {"simulations": [row]})
    with pytest.raises(ConfigError, match="no file matches"):
        config.resolve(demo | {"simulations": [{**row, "trajectory": [str(tmp_path / "*.xtc")]}]})
    top.write_text("x")
    dcd.write_text("x")
    with pytest.raises(ConfigError, match="stores no time: set `time_step_ps`"):
        config.resolve(demo | {"simulations": [row]})


def test_a_simulation_run_here_knows_its_time_step_and_temperature(demo):
    rows = [{"name": "a", "simulate": "ACE-ALA-NME"}, {"name": "b", "simulate": "AAA", "temperature_k": 350.0}]
    a, b = config.resolve(demo | {"simulations": rows, "simulate": {"save_interval_ps": 2.0}})["simulations"]
    assert (a["time_step_ps"], a["temperature_k"], a["seed"]) == (2.0, 300.0, 0)
    assert (b["time_step_ps"], b["temperature_k"], b["seed"]) == (2.0, 350.0, 1)


def test_a_part_of_a_configuration_is_validated_on_its_own():
    assert config.validate_part({"cluster": {"min_samples": 3}})["cluster"]["min_cluster_size"] == "auto"
    with pytest.raises(ConfigError, match="min_samples"):
        config.validate_part({"cluster": {"min_sample": 3}})


def test_every_key_of_the_schema_has_a_meaning_and_every_default_obeys_it():
    def walk(rules, path):
        for key, rule in rules.get("properties", {}).items():
            assert rule.get("description"), f"{path}{key} has no description"
            if "default" in rule:
                assert not config._mistakes(rule["default"], rule, config.Lines(()))
            walk(rule, f"{path}{key}.")
            walk(rule.get("items", {}), f"{path}{key}[].")

    walk(config.schema(), "")


def test_the_page_about_the_configuration_agrees_with_the_schema():
    sys.path.insert(0, str(ROOT / "docs"))
    import make_configuration

    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == make_configuration.page(), "docs/configuration.md is out of date: run `make docs`"


def test_keys_of_the_demo_are_commented():
    text = (ROOT / "config.yaml").read_text()
    assert yaml.safe_load(text)["study"] == "trpcage"


def test_families_are_the_same_everywhere():
    import inspect

    from mdlatent import models
    from mdlatent.model_names import DIRECT

    assert set(config.schema()["$defs"]) == set(models.FAMILIES)
    enum = config.schema()["properties"]["models"]["items"]["properties"]["family"]["enum"]
    assert set(enum) == set(models.FAMILIES)
    assert {name for name in enum if models.family_class(name).fitted == "direct"} == set(DIRECT)
    for family, rules in config.schema()["$defs"].items():
        arguments = list(inspect.signature(models.family_class(family)).parameters)
        assert arguments[2:] == list(rules["properties"]), family


def test_unknown_options_of_a_family_are_refused(demo):
    demo["models"][0]["options"] = {"widht": 3}
    with pytest.raises(ConfigError, match=r"unknown key 'widht' in 'models\.0\.options'"):
        config.resolve(demo, [ROOT / "config.yaml"])


@pytest.mark.parametrize(
    ("value", "says"), [("aoto", "a whole number or `auto`"), (1, "at least 2"), (2.5, "a whole number or text")]
)
def test_cluster_sizes_are_numbers_or_auto(value, says):
    for good in ("auto", 2, 100):
        assert config.validate_part({"cluster": {"min_cluster_size": good}})["cluster"]["min_cluster_size"] == good
    with pytest.raises(ConfigError, match=f"cluster.min_cluster_size: got .*{says}"):
        config.validate_part({"cluster": {"min_cluster_size": value}})


def test_reference_states_are_checked():
    angle = {"atoms": [6, 8, 14, 16], "borders_degrees": [-105, 90]}
    values = config.validate_part({"evaluate": {"reference_states": {"dihedrals": [angle]}}})
    assert values["evaluate"]["reference_states"]["dihedrals"] == [angle]
    assert values["evaluate"]["lag_frames"] == [10]
    for wrong in ({"atoms": [1, 2, 3]}, {"borders_degrees": [90]}, {"borders_degrees": [-200, 90]}, {"border": 1}):
        with pytest.raises(ConfigError, match="reference_states"):
            config.validate_part({"evaluate": {"reference_states": {"dihedrals": [angle | wrong]}}})


def test_a_family_s_own_training_defaults_stand_below_all_that_is_written(demo):
    own = config.schema()["$defs"]["coordinate"]["x-train"]
    section = config.schema()["properties"]["train"]["properties"]
    assert own["beta"] != section["beta"]["default"]
    demo["models"] = [{"family": "coordinate", "train": {"epochs": 7}}, {"family": "conv2d"}]
    demo["train"] = {"learning_rate": 0.123}

    def settings(values, number=0):
        return config.train_settings(values, values["models"][number])

    values = config.resolve(demo)
    part = config.validate_part({"models": demo["models"], "train": demo["train"]})
    for resolved in (values, config.resolve(values), part):
        got = settings(resolved)
        assert (got["epochs"], got["learning_rate"], got["beta"]) == (7, 0.123, own["beta"])
        assert settings(resolved, 1)["beta"] == section["beta"]["default"]
    explicit = config.resolve(demo | {"train": {"beta": section["beta"]["default"]}})  # also where it is the default
    assert settings(explicit)["beta"] == section["beta"]["default"]


def test_every_family_s_training_defaults_are_valid(demo):
    for family in config.schema()["$defs"]:
        config.resolve(
            demo | {"models": [{"family": family, "train": config.schema()["$defs"][family].get("x-train", {})}]}
        )
