"""summary.json: every headline number of a study, and what it was made with."""

import hashlib
import json
import logging
import math
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mdlatent import __version__

log = logging.getLogger("mdlatent")

PACKAGES = (
    "torch", "numpy", "scipy", "numba", "mdtraj", "hdbscan", "scikit-learn", "openmm", "pandas", "pyarrow", "h5py",
    "plotly", "rdkit", "snakemake",
)  # fmt: skip


def describe(options: dict[str, Any], records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What summary.json holds; values that are no numbers are left out and said."""
    metrics = [record for record in records if math.isfinite(record["value"])]
    for record in records:
        if not math.isfinite(record["value"]):
            log.warning("%s of %s is not a number and left out", record["metric"], record["model"])
    return {
        "study": options["study"],
        "commit": commit(Path(__file__).resolve().parent),
        "config_sha256": config_sha256(options),
        "versions": versions(),
        "metrics": metrics,
    }


def config_sha256(options: dict[str, Any]) -> str:
    """SHA-256 of the configuration as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(options, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages on which numbers or figures depend, those that are installed."""
    found = {"mdlatent": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit(folder: Path) -> str | None:
    """The git commit of the code in `folder`, `-modified` behind it if it has uncommitted changes; None outside git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "page.py")  # a package that merely lies inside another repository is not it
        found = git("rev-parse", "HEAD")
        return found + ("-modified" if git("status", "--porcelain", "--untracked-files=no", "..") else "")
    except (OSError, subprocess.SubprocessError):
        return None
