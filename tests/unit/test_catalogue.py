"""The catalogue: well-formed, usable as it stands, and helpful when a name is wrong."""

import json
import re
from pathlib import Path

import pytest
import yaml

from mdlatent import catalogue, sources
from mdlatent.errors import ConfigError

SETS = catalogue.load()
SIMULATIONS = [(name, row) for name, data in SETS.items() for row in data["simulations"]]


def test_form():
    from jsonschema import Draft202012Validator

    schema = yaml.safe_load((catalogue.FILE.parent / "schemas" / "catalogue.schema.yaml").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(yaml.safe_load(catalogue.FILE.read_text()))
    assert len(SETS) >= 8
    for data in SETS.values():
        names = [row["name"] for row in data["simulations"]]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(("name", "row"), SIMULATIONS, ids=[f"{name}/{row['name']}" for name, row in SIMULATIONS])
def test_every_file_is_verifiable(name, row):
    assert sources.extension(row["topology"]) in sources.TOPOLOGY
    for index, uri in enumerate(row["trajectory"]):
        assert sources.part_file_name(uri, index)
    for uri in (row["topology"], *row["trajectory"]):
        source = sources.parse(uri)
        assert source.kind != "path" and (source.checksums or source.archive_sha256), uri
    if sources.extension(row["trajectory"][0]) == ".dcd":
        assert row["time_step_ps"] > 0, "a dcd stores no time"


def test_citations_have_a_doi():
    for name, data in SETS.items():
        assert re.search(r"doi:10\.\d{4,}/\S+", data["citation"]), name


def test_one_simulation_keeps_the_name():
    (row,) = catalogue.expand({"name": "mine", "catalogue": "trpcage"})
    assert row["name"] == "mine" and row["time_step_ps"] == 10 and "catalogue" not in row
    (row,) = catalogue.expand({"name": "second", "catalogue": "adk/dims2"})
    assert row["name"] == "second" and "adk_dims2.dcd" in row["trajectory"][0] and "adk_closed.pdb" in row["topology"]


def test_several_simulations_are_told_apart():
    rows = catalogue.expand({"name": "adk", "catalogue": "adk", "role": "embed", "time_step_ps": 2.5})
    assert [row["name"] for row in rows] == ["adk-dims1", "adk-dims2"]
    assert {row["role"] for row in rows} == {"embed"} and {row["time_step_ps"] for row in rows} == {2.5}


def test_records_without_catalogue_pass():
    record = {"name": "mine", "topology": "a.pdb", "trajectory": ["a.dcd"]}
    assert catalogue.expand(record) == [record]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("trpcge", "simulation 'x': .*'trpcge'.*did you mean 'trpcage'"),
        ("adk/dims3", "data set 'adk' has no simulation 'dims3'; did you mean 'dims"),
        ("zzzz", "known are trpcage, adk"),
    ],
)
def test_unknown_names(wanted, says):
    with pytest.raises(ConfigError, match=says):
        catalogue.expand({"name": "x", "catalogue": wanted})


def test_credit():
    (row,) = catalogue.expand({"name": "x", "catalogue": "trpcage"})
    assert catalogue.credit(row["trajectory"][0].partition("#")[0])["licence"] == "MIT"
    assert catalogue.credit("data/mine.dcd") == {}


def test_what_is_handed_out_may_be_changed():
    catalogue.expand({"name": "x", "catalogue": "trpcage"})[0]["trajectory"].clear()
    assert catalogue.expand({"name": "x", "catalogue": "trpcage"})[0]["trajectory"]


def test_command_line(capsys):
    catalogue.main([])
    table = capsys.readouterr().out
    assert all(name in table for name in SETS) and "4,999" in table
    catalogue.main(["adk"])
    details = capsys.readouterr().out
    assert "adk/dims2" in details and "doi:10.1371" in details and "LGPL" in details
    catalogue.main(["--json"])
    assert set(json.loads(capsys.readouterr().out)) == set(SETS)
    with pytest.raises(ConfigError, match="did you mean 'adk'"):
        catalogue.main(["akd"])


def test_files_at_hand_have_the_catalogue_s_checksums(field_data: Path):
    from mdlatent import files

    known = {"adk_closed.pdb", "adk_dims.dcd", "adk_dims2.dcd"}
    folder = field_data / "adk_transitions"
    uris = {uri for _, row in SIMULATIONS for uri in (row["topology"], *row["trajectory"])}
    for source in map(sources.parse, uris):
        if source.file_name in known:
            assert files.digest(folder / source.file_name) == source.checksums["sha256"]
            known.remove(source.file_name)
    assert not known
