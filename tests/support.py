"""Where the repository is, and what a missing tool means."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI") == "true"


def missing(what: str) -> None:
    """A missing tool fails the tests in CI; on a user's machine it skips, saying why."""
    if IN_CI:
        pytest.fail(f"{what}: the continuous integration must have it", pytrace=False)
    pytest.skip(what)


@contextlib.contextmanager
def peak_growth() -> Iterator[dict[str, int]]:
    """By how many `bytes` the resident memory of this process grew at most, whatever it held or once held before.

    Freed memory that the allocator keeps is given back first, and the system's mark of the peak is set anew (Linux).
    """
    found: dict[str, int] = {}
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory_bytes("VmRSS")
    yield found
    found["bytes"] = _memory_bytes("VmHWM") - before


def _memory_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
