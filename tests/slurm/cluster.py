"""A real Slurm cluster on this machine, from Debian's packages: 2 virtual nodes × 2 fake GPUs, with accounting.

Every daemon is started here, listens on its own port of the loopback interface, and is stopped by its process number.
The configuration has to lie in /etc/slurm, since jobs look for it there; a configuration of somebody else's is never
touched. What a killed test run left behind is stopped and removed at the next start.

    python tests/slurm/cluster.py start|stop     to try a profile by hand
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

MARK = "# mdlatent test cluster"
HOME = Path("/var/tmp/mdlatent-test-cluster")  # one machine, one cluster: the ports are taken once
ETC = Path("/etc/slurm")
TEMPLATES = Path(__file__).parent / "etc"
NODES = ("mdl1", "mdl2")
GPUS_PER_NODE = 2
NEEDED = ("slurmctld", "slurmd", "slurmdbd", "sacct", "munged", "mariadbd")
KEY = Path("/etc/munge/munge.key")


def why_not() -> str:
    """Why no cluster can be started here; empty if one can."""
    if os.geteuid() != 0:
        return "a Slurm cluster on this machine needs root"
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)} not installed; tests/install-tools.sh installs them on Debian and Ubuntu"
    if (foreign := foreign_files()) != []:
        return f"{', '.join(map(str, foreign))}: a Slurm of this machine's own, which is left alone"
    return ""


def foreign_files() -> list[Path]:
    """Slurm's configuration files that are not ours."""
    files = [ETC / path.name for path in TEMPLATES.glob("*.conf")]
    return [path for path in files if path.exists() and not path.read_text(errors="replace").startswith(MARK)]


class Cluster:
    """The cluster; `start` and `stop` may be called at any time."""

    def __init__(self) -> None:
        self.host = socket.gethostname().split(".")[0]

    # --- start and stop --------------------------------------------------------------------------------------------

    def start(self) -> None:
        if reason := why_not():
            raise RuntimeError(reason)
        self._lock = open("/var/tmp/mdlatent-test-cluster.lock", "w", encoding="utf-8")  # noqa: SIM115
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # of another test run; the system frees that of a killed one
        self.stop()
        for name in ("state", "log", "run", "gpu", *(f"spool/{node}" for node in NODES)):
            (HOME / name).mkdir(parents=True, exist_ok=True)
        for k in range(GPUS_PER_NODE):  # clones of the null device: then Slurm sets CUDA_VISIBLE_DEVICES
            os.mknod(HOME / "gpu" / f"gpu{k}", 0o20666, os.makedev(1, 3))
        self._name_nodes()
        self._configure()
        try:
            self._start_munge()
            self._start_accounting()
            self.start_controller()
            for node in NODES:
                self.start_node(node)
            wait_for(lambda: self.idle_nodes() == set(NODES), "both nodes to be idle", 30)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End what runs, remove what was written."""
        if not HOME.exists():
            return  # the lock file stays: two runs would else lock two files of that name
        for node in NODES:
            self.kill_node(node)
        for name in ("slurmctld", "slurmdbd", "mariadb", "munged"):
            end(self._pid(name))
        for path in [ETC / path.name for path in TEMPLATES.glob("*.conf")]:
            if path.exists() and path.read_text(errors="replace").startswith(MARK):
                path.unlink()
        if (HOME / "made-munge-key").exists():
            KEY.unlink(missing_ok=True)
        hosts = Path("/etc/hosts")
        lines = hosts.read_text().splitlines(keepends=True)
        hosts.write_text("".join(line for line in lines if MARK not in line))  # in place: containers mount this file
        shutil.rmtree(HOME)

    def start_controller(self) -> None:
        run("slurmctld")
        wait_for(lambda: "is UP" in text_of("scontrol", "ping"), "slurmctld to answer", 30)

    def stop_controller(self) -> None:
        end(self._pid("slurmctld"))

    def start_node(self, node: str) -> None:
        run("slurmd", "-N", node)
        wait_for(lambda: self._pid(node) is not None, f"{node} to start", 10)

    def kill_node(self, node: str) -> None:
        """As if the power were cut: its daemon, and every job on it with all processes, killed at once."""
        daemon, steps = self._pid(node), step_daemons(node)
        victims = [child for step in steps for child in (step, *descendants(step))]
        for pid in ([daemon] if daemon else []) + victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in ([daemon] if daemon else []) + victims:
            end(pid)

    # --- questions -------------------------------------------------------------------------------------------------

    def idle_nodes(self) -> set[str]:
        return set(text_of("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split())

    def queue(self, folder: Path, comment: str = "", state: str = "RUNNING") -> list[str]:
        """Numbers of the jobs submitted from `folder` whose comment contains `comment`."""
        rows = [line.split("|") for line in text_of("squeue", "-h", "-t", state, "-o", "%i|%Z|%k").splitlines()]
        return [number for number, where, what in rows if where == str(folder) and comment in what]

    def accounts(self, folder: Path) -> list[dict[str, str]]:
        """What accounting knows of the jobs submitted from `folder`, in order of submission."""
        fields = ("JobIDRaw", "State", "Comment", "WorkDir", "ReqMem", "AllocTRES", "NodeList", "ExitCode", "Elapsed")
        lines = text_of("sacct", "-X", "-n", "-P", "-D", "-S", "now-1day", "-o", ",".join(fields)).splitlines()
        rows = [dict(zip(fields, line.split("|"), strict=True)) for line in lines]
        return [row for row in rows if row["WorkDir"] == str(folder)]

    # --- parts of the start ----------------------------------------------------------------------------------------

    def _pid(self, name: str) -> int | None:
        """The running process of a daemon; None if there is none (a number may have gone to another program)."""
        path = HOME / "run" / f"{name}.pid"
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text())
            program = {"mariadb": "mariadbd", "munged": "munged"}.get(name, "slurm")
            if program in Path(f"/proc/{pid}/cmdline").read_text():
                return pid
        return None

    def _name_nodes(self) -> None:
        with open("/etc/hosts", "a", encoding="utf-8") as hosts:
            hosts.writelines(f"127.0.0.1 {node} {MARK}\n" for node in NODES)

    def _configure(self) -> None:
        ETC.mkdir(exist_ok=True)
        for template in TEMPLATES.glob("*.conf"):
            text = template.read_text().replace("@HOME@", str(HOME)).replace("@HOST@", self.host)
            path = ETC / template.name
            path.write_text(text)
            path.chmod(0o600 if template.name == "slurmdbd.conf" else 0o644)

    def _start_munge(self) -> None:
        if subprocess.run(["munge", "-n"], capture_output=True).returncode == 0:
            return  # one runs already, and is not ours to stop
        if not KEY.exists():
            run("mungekey", "--create")
            shutil.chown(KEY, "munge", "munge")
            (HOME / "made-munge-key").touch()
        runtime = Path("/run/munge")
        runtime.mkdir(exist_ok=True)
        shutil.chown(runtime, "munge", "munge")
        run("runuser", "-u", "munge", "--", "munged")
        wait_for(lambda: run("munge", "-n", check=False) == 0, "munged to answer", 10)
        shutil.copy("/run/munge/munged.pid", HOME / "run" / "munged.pid")

    def _start_accounting(self) -> None:
        data, socket_path = HOME / "mysql", HOME / "sql" / "socket"
        for folder in (data, socket_path.parent):
            folder.mkdir()
            shutil.chown(folder, "mysql", "mysql")
        run("mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}", "--skip-test-db")
        with open(HOME / "log" / "mariadb.log", "wb") as log:
            server = subprocess.Popen(
                ["mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}", f"--socket={socket_path}",
                 "--skip-networking", "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        (HOME / "run" / "mariadb.pid").write_text(str(server.pid))
        ping = ("mariadb-admin", "--no-defaults", "-S", str(socket_path), "ping")
        wait_for(lambda: run(*ping, check=False) == 0, "mariadb to answer", 30)
        run("slurmdbd", MYSQL_UNIX_PORT=str(socket_path))
        wait_for(lambda: run("sacctmgr", "-n", "list", "cluster", check=False) == 0, "slurmdbd to answer", 30)
        run("sacctmgr", "-i", "-Q", "add", "cluster", "mdlatent", check=False)


def run(*command: str, check: bool = True, **environment: str) -> int:
    """Run a command in silence; its output goes into the message if it fails."""
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, **environment}
    )
    if check and result.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result.returncode


def text_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def wait_for(condition: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)


def end(pid: int | None, patience_s: float = 20) -> None:
    """Ask a process to end, make it end if it does not, and wait until it is gone."""
    if pid is None:
        return
    deadline = time.monotonic() + patience_s
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < deadline + 5:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # of a daemon that is a child of ours
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
            time.sleep(0.05)


def step_daemons(node: str) -> list[int]:
    """The slurmstepd processes of a node: each has the node's spool folder open or in its arguments."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if proc.joinpath("comm").read_text().startswith("slurmstepd") and opened_below(proc, HOME / "spool" / node):
                found.append(int(proc.name))
    return found


def opened_below(proc: Path, folder: Path) -> bool:
    log = str(HOME / "log" / f"{folder.name}.log")
    names = []
    for descriptor in proc.joinpath("fd").iterdir():
        with contextlib.suppress(OSError):
            names.append(str(descriptor.readlink()))
    return any(name == log or name.startswith(f"{folder}/") for name in names)


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    parents: dict[int, list[int]] = {}
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int(proc.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(proc.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


if __name__ == "__main__":
    if sys.argv[1:] not in (["start"], ["stop"]):
        sys.exit(f"got {sys.argv[1:]}, expected `start` or `stop`")
    getattr(Cluster(), sys.argv[1])()
