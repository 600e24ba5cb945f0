"""What the tests share: real data and where it comes from."""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from mdlatent import stage
from support import ROOT, missing

# Before torch and numba are imported: one thread each, as a stage has by default. Two cores are shared by what the
# tests start, and threads that wait for one another then cost many times what they win.
stage.limit_threads(1)


@pytest.fixture(scope="session")
def trpcage() -> tuple[Path, Path]:
    """Topology and trajectory of Trp-cage (4,999 frames, 304 atoms), from the package index."""
    folder = ROOT / ".cache" / "tests" / "trpcage"
    topology, trajectory = folder / "trp_cage.pdb", folder / "trp_cage.dcd"
    if not trajectory.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as name:  # of this process: two may come here at once
            own = Path(name)
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", own, "fastmdanalysis==1.1.2"],
                check=True,
            )
            with zipfile.ZipFile(next(own.glob("*.whl"))) as wheel:
                for path in (topology, trajectory):
                    (own / path.name).write_bytes(wheel.read(f"fastmdanalysis/data/{path.name}"))
                    (own / path.name).replace(path)
    return topology, trajectory


@pytest.fixture(scope="session")
def field_data() -> Path:
    """Folder with further real data sets, not part of the repository (see CONTRIBUTING.md)."""
    folder = os.environ.get("MDLATENT_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        missing("set MDLATENT_TEST_DATA to the folder with the test trajectories")
    return Path(folder)
