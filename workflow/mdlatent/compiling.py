"""numba's compiler, with a folder for what was compiled also where neither the package's nor the user's can be written.

Import it only where compiled functions are used: numba takes 0.3 s.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numba

__all__ = ["njit"]


def _cache_folder() -> None:
    """Give numba a folder for compiled code if neither the package's nor the user's can be written."""
    config: Any = numba.config
    if config.CACHE_DIR:
        return
    for folder in (Path(__file__).parent, Path.home()):
        if os.access(folder, os.W_OK):
            return
    config.CACHE_DIR = str(Path(tempfile.gettempdir()) / f"mdlatent-numba-{os.getuid()}")


_cache_folder()
njit = numba.njit
