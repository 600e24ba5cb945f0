"""Downloads as a command, and on disks that are full or cannot be written."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from fetching import BIG, PDB, leftovers
from mdlatent import fetch
from mdlatent.errors import FetchError
from server import Answer


def run_cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2] / "workflow"
    limit = environment.pop("limit_bytes", None)
    return subprocess.run(
        [sys.executable, "-m", "mdlatent.fetch", *arguments],
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit),) * 2)) if limit else None,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_command_line_says_what_is_wrong_without_traceback(server, tmp_path):
    output = tmp_path / "out" / "top.pdb"
    url = server.put("/top.pdb", BIG)
    done = run_cli("--uri", url, "--output", str(output), MDLATENT_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0 and output.read_bytes() == BIG, done.stderr
    wrong = run_cli(
        "--uri", f"{url}#sha256={'0' * 64}", "--output", str(tmp_path / "b.pdb"), MDLATENT_CACHE=str(tmp_path)
    )
    assert wrong.returncode == 1 and "checksum is wrong" in wrong.stderr and "Traceback" not in wrong.stderr


def test_a_limit_on_file_size_is_like_a_full_disk(server, tmp_path):
    output = tmp_path / "out" / "top.pdb"
    url = server.put("/top.pdb", BIG)
    cache = str(tmp_path / "cache")
    full = run_cli("--uri", url, "--output", str(output), MDLATENT_CACHE=cache, limit_bytes="200000")
    assert full.returncode == 1 and "Traceback" not in full.stderr
    assert "takes no more" in full.stderr and "fetch.cache" in full.stderr
    assert leftovers(output.parent) == []
    again = run_cli("--uri", url, "--output", str(output), MDLATENT_CACHE=cache)
    assert again.returncode == 0 and output.read_bytes() == BIG and server.ranges("/top.pdb")[1] is not None


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(server, place, small_disk):
    output, options = place
    url = server.put("/top.pdb", BIG)
    with pytest.raises(FetchError, match=r"needs 0\.6 MB more, but .* has only 0\.\d MB free"):
        fetch.fetch(url, output, {**options, "cache": str(small_disk)})
    assert len(leftovers(small_disk)) == 0 and len(server.requests) == 1
    server.plan["/top.pdb"] = [Answer(chunked=True)]
    with pytest.raises(FetchError, match=r"takes no more: No space left on device"):
        fetch.fetch(url, output, {**options, "cache": str(small_disk)})
    with pytest.raises(OSError, match="No space left"):  # stage.run adds the advice
        fetch.fetch(url, small_disk / "top.pdb", options)
    assert not (small_disk / "top.pdb").exists()


def test_unwritable_folders(server, place, tmp_path):
    output, options = place
    url = server.put("/top.pdb", PDB)
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match=r"the download cache .* cannot be written.*fetch\.cache"):
        fetch.fetch(url, output, {**options, "cache": str(tmp_path / "file" / "cache")})
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        fetch.fetch(url, tmp_path / "file" / "top.pdb", options)
