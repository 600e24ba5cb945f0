"""The help of a stage answers at once: nothing heavy is imported for it."""

import subprocess
import sys

import pytest

from mdlatent.__main__ import STAGES
from support import ROOT

HEAVY = (
    *("torch", "mdtraj", "pandas", "pyarrow", "scipy", "sklearn", "numba", "h5py", "openmm", "hdbscan", "fast_hdbscan"),
    *("deeptime", "jsonschema", "requests", "plotly", "pygments", "snakemake"),
)
PROBE = """
import sys
from mdlatent.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print("imported:", *(name for name in {heavy} if name in sys.modules))
"""


def imported(*argv: str) -> list[str]:
    """Which of the heavy modules the command imports."""
    command = [sys.executable, "-c", PROBE.format(heavy=HEAVY), *argv]
    result = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT / "workflow")
    return result.stdout.rpartition("imported:")[2].split()


@pytest.mark.parametrize("stage", ["--help", *STAGES])
def test_help_imports_nothing_heavy(stage):
    assert imported(*dict.fromkeys([stage, "--help"])) == []


def test_the_probe_sees_what_is_imported():
    assert "jsonschema" in imported("check", "--print", "study-dir", str(ROOT / "config.yaml"))
