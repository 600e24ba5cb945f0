"""Start a program as several processes, by each of the launchers a user may have, for the tests of parallel work."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from mdlatent import train
from support import missing

WORKFLOW = Path(train.__file__).parent.parent
PATHS = os.pathsep.join([str(WORKFLOW), str(Path(__file__).parent)])  # of the package and of the tests' own modules
MPIRUN = ["mpirun", "--oversubscribe", "--mca", "mpi_yield_when_idle", "1", "--bind-to", "none"]


def script(name: str) -> str:
    """Path of a program that a Python package brings, beside this Python or on the path."""
    own = Path(sysconfig.get_path("scripts")) / name
    found = str(own) if own.exists() else shutil.which(name)
    if not found:
        missing(f"{name} is not installed here; `make horovod` builds Horovod")
    return str(found)


def need_horovod(mpi: bool = False) -> None:
    """Skip (in CI fail) the test where Horovod, or its MPI half, is not there."""
    code = "import horovod.torch as hvd; print(int(hvd.mpi_built()))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if answer.returncode:
        missing("Horovod is not installed here; `make horovod` builds it")
    if mpi and (answer.stdout.strip() != "1" or not shutil.which("mpirun")):
        missing("Horovod was built without MPI; install OpenMPI, then `make horovod`")


def command(launcher: str, size: int = 2) -> list[str]:
    """The words that stand before `-m module arguments`."""
    if launcher == "python":
        return [sys.executable]
    if launcher == "torchrun":
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    if launcher == "horovodrun":
        return [script("horovodrun"), "-np", str(size), "--gloo", sys.executable]
    if launcher == "mpirun":
        if not shutil.which("mpirun"):
            missing("mpirun is not installed here; tests/install-tools.sh installs it")
        as_root = ["--allow-run-as-root"] if os.getuid() == 0 else []
        return [*MPIRUN, *as_root, "-np", str(size), sys.executable]
    raise AssertionError(launcher)


def environment(**more: str) -> dict[str, str]:
    """One thread per process, and none of the variables of a launcher that started the tests themselves."""
    foreign = ("OMPI_", "PMIX_", "HOROVOD_", "SLURM_", "TORCHELASTIC_")
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign) and key not in names}
    return kept | {"PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"} | more


def start(launcher: str, module: str, arguments: list[str], size: int = 2, **more: str) -> subprocess.Popen:
    """Start `module` as `size` processes; stdout and stderr together are in `.stdout`."""
    return subprocess.Popen(
        [*command(launcher, size), "-m", module, *arguments],
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, code: int | None = 0, timeout_s: float = 240) -> str:
    """Wait for the end and return all that was printed; `code` is the exit code expected, None any but 0."""
    try:
        text, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode != 0 if code is None else process.returncode == code, text[:3000] + "\n…\n" + text[-3000:]
    return text


def rank_log(log: Path, rank: int) -> list[dict]:
    """What a process noted of itself, see `train.rank_log`."""
    return [json.loads(line) for line in log.with_name(f"{log.name}.rank{rank}.jsonl").read_text().splitlines()]
