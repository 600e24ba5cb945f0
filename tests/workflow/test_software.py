"""The switches for conda and containers: with either, jobs take the Python that it brings, and no other.

Neither program can be had from the package index, so small programs stand in for them here: they understand what
Snakemake asks of them, and start this very Python by a `python` of their own that takes a note. What is shown is that
the switch reaches every job and that nothing of ours overrides it; not that environments and images can be built.
"""

import os
import sys
from pathlib import Path

import pytest

from support import ROOT
from workflow_study import Study

CONDA = """#!/bin/bash
case "$*" in
    --version) echo conda 24.11.0 ;;
    "info --json") echo '{"conda_prefix": "@HERE@", "root_prefix": "@HERE@", "platform": "linux-64"}' ;;
    "config --get channel_priority --json") echo '{"get": {"channel_priority": "strict"}}' ;;
    clean*) ;;
    *create*) # … --prefix FOLDER
        while [ "$1" != --prefix ]; do shift; done
        mkdir -p "$2/bin"; cp @HERE@/own/python "$2/bin/"; echo made >> @HERE@/notes ;;
    *) echo "conda $*: not understood" >&2; exit 2 ;;
esac
"""
ACTIVATE = 'export PATH="$1/bin:$PATH"\n'
APPTAINER = """#!/bin/bash
if [ "$1" = --version ]; then echo apptainer version 1.3.6; exit; fi
while [ "${1%.sif}" = "$1" ]; do shift; done  # … IMAGE sh -c COMMAND
echo "image $1" >> @HERE@/notes
shift
PATH=@HERE@/own:/usr/bin:/bin exec "$@"
"""
PYTHON = f'#!/bin/bash\necho "python $*" >> @HERE@/notes\nexec {sys.executable} "$@"\n'
STAGES = ["mdlatent.featurize", "mdlatent.fetch", "mdlatent.fetch", "mdlatent.select_atoms"]


def program(path: Path, text: str, here: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("@HERE@", str(here)))
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path) -> Path:
    here = tmp_path / "programs"
    for name, text in {
        "bin/conda": CONDA,
        "bin/activate": ACTIVATE,
        "bin/apptainer": APPTAINER,
        "own/python": PYTHON,
    }.items():
        program(here / name, text, here)
    return here


def frames(study: Study, trpcage: tuple[Path, Path]) -> list[str]:
    """A study up to the frames that it reads, as arguments."""
    topology, trajectory = trpcage
    simulation = {"name": "trpcage", "topology": str(topology), "trajectory": [str(trajectory)], "time_step_ps": 10.0}
    study.write(
        {"study": "small", "simulations": [simulation], "models": [{"family": "pca_distances", "latent_dim": 2}]}
    )
    return ["--", "results/small/frames/trpcage/part000.h5"]


def noted(programs: Path, word: str) -> list[str]:
    return [line for line in (programs / "notes").read_text().splitlines() if line.startswith(word)]


def path_with(programs: Path) -> dict[str, str]:
    return {"PATH": f"{programs / 'bin'}:{os.environ['PATH']}"}


def test_conda_environments_are_made_beforehand_and_used(study, trpcage, programs):
    target = frames(study, trpcage)
    switch = ["--software-deployment-method", "conda", "--conda-prefix", str(programs / "environments")]
    study.run(*switch, "--conda-create-envs-only", *target, **path_with(programs))
    made = noted(programs, "made")
    assert made
    assert noted(programs, "python") == []
    study.run(*switch, *target, **path_with(programs))
    assert sorted(line.split()[2] for line in noted(programs, "python")) == STAGES
    assert noted(programs, "made") == made
    assert "Nothing to be done" in study.run(*switch, *target, **path_with(programs))


@pytest.fixture
def image():
    """The file that the workflow looks for; its content is nothing to the program that stands in."""
    path = ROOT / "mdlatent.sif"
    if path.exists():
        yield path  # the user's own
    else:
        path.touch()
        yield path
        path.unlink()


def test_a_container_is_used(study, trpcage, programs, image):
    target = frames(study, trpcage)
    switch = ["--software-deployment-method", "apptainer"]
    study.run(*switch, *target, **path_with(programs))
    images, pythons = (noted(programs, word) for word in ("image", "python"))
    assert images == [f"image {image}"] * len(STAGES)
    assert sorted(line.split()[2] for line in pythons) == STAGES
    assert "Nothing to be done" in study.run(*switch, *target, **path_with(programs))


def test_a_container_that_is_not_there(study, trpcage, programs):
    if (ROOT / "mdlatent.sif").exists():
        pytest.skip("an image of the user's own is there")
    text = study.fail("--software-deployment-method", "apptainer", *frames(study, trpcage), **path_with(programs))
    assert f"{ROOT / 'mdlatent.sif'} is not there" in text
    assert "profiles/README.md" in text
