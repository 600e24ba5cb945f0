"""The device to train or map on, set to reproducible results."""

import contextlib
import ctypes
import os

import torch

from mdlatent.errors import ConfigError

__all__ = ["choose_device"]


def choose_device(wanted: str, threads: int) -> str:
    """The device to work on (`wanted`: auto, cpu, cuda), with torch set to reproducible results and `threads` threads.

    Raises ConfigError if a GPU is wanted and there is none.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is reproducible only with this
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms, which imports a compiler for 2 s
    # By default that also fills all fresh memory with NaN, to show up who reads it before writing: 10 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _keep_freed_memory()
    torch.backends.cudnn.benchmark = False
    # By default cuDNN rounds what it convolves to 10 bits.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device: got `cuda`, but torch sees no GPU here; choose `auto` or `cpu`")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory instead of returning it to the system at once.

    A step frees and asks again for the same large blocks; fresh pages cost a third of its time at 400 atoms.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    with contextlib.suppress(OSError, AttributeError):  # another C library: slower, not wrong
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
