"""numba's compiler, with a folder for what it compiled: import it only where that is used, it takes 0.3 s.

numba looks for changes in the file of a function alone, not in those of the functions it calls, which are compiled into
it. So the folder is named after the contents of all files here that have compiled functions. It is in the package's
`__pycache__`, or, where that cannot be written, in the user's or a temporary folder.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numba

__all__ = ["njit"]


def _digest() -> str:
    """Of the files of compiled functions."""
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py"))]
    compiled = [source for source in sources if any(mark in source for mark in (b"@njit", b"@intrinsic", b"Lanes"))]
    return hashlib.sha256(b"\0".join(compiled)).hexdigest()[:12]


def _folder() -> Path:
    """Where folders of compiled functions may be made."""
    package = Path(__file__).parent
    for writable, folder in ((package, package / "__pycache__"), (Path.home(), Path.home() / ".cache" / "mdlatent")):
        if os.access(writable, os.W_OK):
            return folder
    return Path(tempfile.gettempdir()) / f"mdlatent-numba-{os.getuid()}"


config: Any = numba.config
config.CACHE_DIR = str(Path(config.CACHE_DIR or _folder()) / f"compiled-{_digest()}")
njit = numba.njit
