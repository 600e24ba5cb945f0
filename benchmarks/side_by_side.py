"""Measuring several systems in turns, on one thread, and saying which bars were missed.

Times are CPU seconds of this process: with one thread they are those of the clock on an idle machine, and on a busy one
they leave out what others take. What stays is that others use the memory and the caches: so the systems take turns, and
medians are compared within one run.
"""

import contextlib
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numba
import numpy as np

from mdlatent import streaming

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
LIMIT = "memory fill (limit)"


@dataclass
class Row:
    """One figure; `ratio_to_limit` is the share of what the machine could do at most, where that is known."""

    bench: str
    case: str
    system: str
    value: float
    unit: str
    ratio_to_limit: float | None = None


@dataclass
class Bar:
    """A figure that must be reached: `value` at least (or, with `at_most`, at most) `least`."""

    bench: str
    case: str
    what: str
    value: float
    least: float
    at_most: bool = False

    @property
    def sign(self) -> str:
        return "≤" if self.at_most else "≥"

    @property
    def met(self) -> bool:
        return self.value <= self.least if self.at_most else self.value >= self.least


def one_thread() -> None:
    """Start this program again with one thread for every library, unless it has been."""
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        os.environ.update(ONE_THREAD)
        os.execv(sys.executable, [sys.executable, *sys.argv])


def interleaved(systems: Mapping[str, Callable[[], object]], repeats: int = 7) -> dict[str, float]:
    """Median CPU seconds of each system; they take turns, the first round (compiling) not counted."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    for turn in range(repeats + 1):
        for name, run in systems.items():
            start = time.process_time()
            run()
            if turn:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


@numba.njit
def _fill(flat, lead):
    flat[:lead] = 1
    for at in range(lead, len(flat) - streaming.LANES + 1, streaming.LANES):
        streaming.fill_line(flat, at, np.float32(1))
    flat[len(flat) - streaming.LANES :] = 1
    streaming.fence()


def fill(array: Any) -> None:
    """Write an array of float32 as fast as memory takes it: past the caches, which the C library's memset does not.

    Ones, for there are machines that take zeros three times as fast as anything else.
    """
    flat = array.reshape(-1)
    _fill(flat, streaming.to_line(flat))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send to nowhere what libraries print, also past Python."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def figures(value: float, digits: int = 3) -> str:
    """A number with three significant digits, plain where that is readable."""
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return f"{float(f'{value:.{digits}g}'):,g}"
    return f"{value:.{digits - 1}e}"


def say(rows: list[Row], bars: list[Bar]) -> None:
    """Print figures and bars."""
    for row in rows:
        ratio = "" if row.ratio_to_limit is None else f"{100 * row.ratio_to_limit:5.0f} % of the limit"
        print(f"{row.bench:11} {row.case:34} {row.system:34} {figures(row.value):>10} {row.unit:9} {ratio}")
    for bar in bars:
        verdict = f"{bar.sign} {figures(bar.least)}: " + ("met" if bar.met else "MISSED")
        print(f"{bar.bench:11} {bar.case:34} {bar.what}: {figures(bar.value)} (bar {verdict})")
    sys.stdout.flush()


def plain(items: list[Row] | list[Bar]) -> list[dict[str, Any]]:
    """Rows or bars as JSON has them."""
    return [asdict(item) | ({"met": item.met} if isinstance(item, Bar) else {}) for item in items]


def progress(what: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {what}", file=sys.stderr, flush=True)
