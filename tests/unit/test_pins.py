"""Pins agree everywhere: constraints.txt, pyproject.toml, envs/*.yaml."""

import re
import tomllib

import pytest
import yaml

from support import ROOT

CONDA_NAMES = {"pytorch": "torch", "pytables": "tables"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {
        normal(name): version
        for name, version in (line.split("==") for line in lines if line and not line.startswith("#"))
    }


def test_every_requirement_is_pinned(pins):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]
    missing = [name for name in wanted if normal(re.split(r"[<>=!~\[ ]", name)[0]) not in pins]
    assert not missing


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda path: path.stem)
def test_conda_environments_agree_with_the_constraints(path, pins):
    for entry in yaml.safe_load(path.read_text())["dependencies"]:
        name, version = entry.split("=")
        if name == "python":
            continue
        pinned = re.sub(r"\.post\d+$", "", pins[normal(CONDA_NAMES.get(name, name))])
        assert version == pinned, f"{path.name}: {name}={version}, constraints.txt has {pinned}"


def test_every_environment_is_used_by_a_rule():
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    for path in (ROOT / "envs").glob("*.yaml"):
        assert f"envs/{path.name}" in rules
