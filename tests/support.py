"""Where the repository is, and what a missing tool means."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI") == "true"


def missing(what: str) -> None:
    """A missing tool fails the tests in CI; on a user's machine it skips, saying why."""
    if IN_CI:
        pytest.fail(f"{what}: the continuous integration must have it", pytrace=False)
    pytest.skip(what)
