"""What every stage's command line shares: logging, progress, options, and errors without a traceback."""

import argparse
import errno
import json
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mdlatent import lifeline
from mdlatent.errors import ConfigError, Interrupted, MdlatentError

log = logging.getLogger("mdlatent")
Item = TypeVar("Item")

EXIT_USER_ERROR = 1
EXIT_RUN_AGAIN = 75  # EX_TEMPFAIL: state is saved, the same command goes on from there


def parser(stage: str, doc: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options common to all stages (`--options`, `--log`)."""
    result = argparse.ArgumentParser(
        prog=f"mdlatent {stage}", description=(doc or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # torchrun and horovodrun look at all that follows, and take `--log` for an abbreviation of options of their own.
    result.add_argument("--log", "--log-file", type=Path, help="also write messages to this file")
    return result


def add_options(result: argparse.ArgumentParser) -> None:
    """Add `--options`: the part of the study's configuration that the stage reads."""
    result.add_argument(
        "--options",
        default="{}",
        metavar="JSON|-|FILE",
        help="sections of the configuration as a JSON object (`-`: on standard input), or a configuration file from "
        "which they are taken",
    )


def given(text: str) -> str:
    """An argument's value; of `-`, what stands on standard input.

    Linux takes no argument of more than 128 KiB: what grows with the simulations of a study is piped in.
    """
    return sys.stdin.read() if text == "-" else text


def read_options(text: str, *sections: str) -> dict[str, Any]:
    """The named sections of the configuration (or all that are given), validated and with defaults filled in.

    `text` is a JSON object of sections (`{"cluster": {…}}`), `-` for one on standard input, or the path of a
    configuration file. Raises ConfigError if it is neither, or if a key or value in it is wrong.
    """
    from mdlatent import config

    text = given(text)
    if text.lstrip().startswith("{"):
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"--options: got {text[:80]!r}, which is not valid JSON: {error}") from error
        values = config.validate_part(values)
    else:
        values = config.load(Path(text))
    missing = [name for name in sections if name not in values]
    if missing:
        raise ConfigError(f"--options: the section {missing[0]!r} is missing; got {', '.join(values) or 'none'}")
    return {name: values[name] for name in sections or values}


def start_logging(path: Path | None, rank: int = 0) -> None:
    """Send messages to the terminal and, if given, to a file as well.

    Of several processes only the first writes the file; the others say nothing but errors.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if path and rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="w"))
    who, level = (f"[process {rank}] ", logging.ERROR) if rank else ("", logging.INFO)
    logging.basicConfig(
        level=level, format=f"%(asctime)s {who}%(message)s", datefmt="%H:%M:%S", handlers=handlers, force=True
    )
    for noisy in ("numba", "matplotlib", "urllib3", "h5py"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    # mdtraj drops a dummy 1 Å box by itself, and says so in every job.
    warnings.filterwarnings("ignore", message="Unlikely unit cell vectors")


def progress(items: Iterable[Item], total: int, what: str, every_s: float = 5.0) -> Iterator[Item]:
    """Yield `items`, logging how far it is and how long it will take, at most once in `every_s` seconds."""
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= every_s and done:
            left = (now - start) / done * (total - done)
            log.info("%s: %d of %d (%.0f %%), about %.0f s left", what, done, total, 100 * done / total, left)
            last = now
        yield item


def run(main: Callable[[list[str] | None], None], argv: list[str] | None = None) -> None:
    """Call a stage's `main(argv)` and exit: 0 done, 1 the user's mistake (said in one message), 75 run again.

    A defect of the program keeps its traceback: that is for us, not for the user.
    """
    try:
        _run(main, argv)
    except SystemExit as end:
        lifeline.leave(end.code if isinstance(end.code, int) else 1)
        raise
    except BaseException:
        lifeline.leave(1, traceback.format_exc())
        raise
    lifeline.leave(0)


def _run(main: Callable[[list[str] | None], None], argv: list[str] | None) -> None:
    try:
        main(argv)
    except Interrupted as stop:
        log.warning("%s", stop)
        sys.exit(EXIT_RUN_AGAIN)
    except MdlatentError as error:
        _say(str(error))
        sys.exit(EXIT_USER_ERROR)
    except OSError as error:
        if error.errno not in _ADVICE:
            raise
        _say(f"{error.filename or 'output'}: {error.strerror}. {_ADVICE[error.errno]}")
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(130)


_ADVICE = {
    errno.ENOSPC: "Free some space there, or set `results` to a folder on another disk, and run again.",
    errno.EDQUOT: "Your quota is used up: free some space, or set `results` to another folder, and run again.",
    errno.EFBIG: "Files may not grow that large here (`ulimit -f`): raise the limit, or set `results` elsewhere.",
    errno.EACCES: "Give yourself the right to it, or set `results` to a folder that you can write.",
    errno.EPERM: "Give yourself the right to it, or set `results` to a folder that you can write.",
    errno.EROFS: "That file system is read-only: set `results` to a folder that you can write.",
    errno.ENOENT: "Check the path; run the stage that makes it first.",
    errno.ENOTDIR: "A file stands where a folder is needed: move it away, or choose another path.",
    errno.EISDIR: "A folder stands where a file is needed: move it away, or choose another path.",
}


def _say(message: str) -> None:
    """An error reaches the log file as well as the terminal, and the terminal even before logging has started."""
    if logging.getLogger().handlers:
        log.error("error: %s", message)
    else:
        print(f"error: {message}", file=sys.stderr)
    logging.shutdown()


def limit_threads(n: int) -> None:
    """Tell the numerical libraries, before they are imported, how many threads they may use.

    OMP_WAIT_POLICY=passive: threads that spin while they wait collapse on a shared core.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(n)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
