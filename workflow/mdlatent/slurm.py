"""A study's jobs on Slurm: none is submitted twice, and a table says what each asked for and what it used.

The Snakemake that submits notes its run in `logs/slurm_run.json` and removes the note when it ends. If it was killed,
the note is still there, and jobs may be too: a second Snakemake would have two jobs write the same files.
"""

import csv
import io
import logging
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from mdlatent import files
from mdlatent.errors import ConfigError

__all__ = ["begin", "finish", "megabytes", "rows_of", "seconds", "submitted"]

log = logging.getLogger("mdlatent")

FIELDS = (
    "JobIDRaw", "State", "NodeList", "AllocCPUS", "AllocTRES", "ReqMem", "NNodes", "Timelimit", "Elapsed", "TotalCPU",
    "MaxRSS",
)  # fmt: skip
COLUMNS = (
    "run", "job_id", "rule", "wildcards", "state", "nodes", "cpus", "gpus", "limit_s", "elapsed_s", "cpu_s",
    "memory_asked_mb", "memory_used_mb",
)  # fmt: skip
_RUN = re.compile(r"SLURM run ID: (\S+)")
_SUBMITTED = re.compile(r"SLURM jobid (\d+) \(log: .*/(?:rule_([^/]+)|(group_[^/]+))(?:/([^/]+))?/\1\.log\)")
_UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


def begin(study: Path, snakemake_log: Path) -> None:
    """Note this run of a study. Raises ConfigError if jobs of an earlier one are still in the queue."""
    note = _note(study)
    if note.exists():
        earlier = files.read_json(note)
        if jobs := _queued(earlier["run"]):
            numbers = " ".join(number for number, _ in jobs)
            raise ConfigError(
                f"{study}: an earlier Snakemake of this study has ended, or still runs, but not its jobs: "
                f"{', '.join(f'{number} ({what})' for number, what in jobs)}. A second run would have two jobs write "
                f"the same files. Wait until they are done, or end them with `scancel {numbers}`, and run again; "
                "training goes on from its last checkpoint."
            )
        _collect(study, Path(earlier["log"]), earlier["run"])
    if run := _run_id(snakemake_log):
        files.write_json(note, {"run": run, "log": str(snakemake_log.resolve())})


def finish(study: Path, snakemake_log: Path) -> None:
    """Write the table of the jobs of this run and remove its note. What goes wrong here is said and no more."""
    _collect(study, snakemake_log, _run_id(snakemake_log) or "")
    _note(study).unlink(missing_ok=True)


def _note(study: Path) -> Path:
    return study / "logs" / "slurm_run.json"


def _run_id(snakemake_log: Path) -> str | None:
    """The name of all jobs of this run, from Snakemake's log, which is written with some delay."""
    for _ in range(30):
        if snakemake_log.exists() and (found := _RUN.search(snakemake_log.read_text(errors="replace"))):
            return found[1]
        time.sleep(0.1)
    return None


def _queued(run: str) -> list[tuple[str, str]]:
    """(number, comment) of the jobs of a run that have not ended."""
    command = ["squeue", "--noheader", f"--name={run}", "--format=%i|%k"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise ConfigError(
            f"{' '.join(command)}: {result.stderr.strip()}; without an answer it is not known whether jobs of an "
            "earlier run still write into this study. Try again when Slurm answers."
        )
    return [(number, what) for number, what in (line.split("|", 1) for line in result.stdout.splitlines())]


def _collect(study: Path, snakemake_log: Path, run: str) -> None:
    """Add the jobs of a run to the study's table."""
    path = study / "slurm_efficiency.csv"
    try:
        jobs = submitted(snakemake_log.read_text(errors="replace"))
        if not jobs:
            return
        rows = [row for row in _read(path) if row["run"] != run]
        rows += [{"run": run, **row} for row in rows_of(_sacct(list(jobs)), jobs)]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        files.write_text(path, text.getvalue())
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        log.warning("%s: not written, Slurm's accounting or the disk failed (%s)", path, str(reason).strip())


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    return rows if not rows or set(rows[0]) == set(COLUMNS) else []


def _sacct(numbers: list[str]) -> list[dict[str, str]]:
    """Accounting's lines of jobs and their steps; once more if the last of them has not reached it yet."""
    command = ["sacct", "--noheader", "--parsable2", f"--format={','.join(FIELDS)}", f"--jobs={','.join(numbers)}"]
    lines: list[dict[str, str]] = []
    for _ in range(5):
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        lines = [dict(zip(FIELDS, line.split("|"), strict=True)) for line in output.splitlines()]
        if not any(line["State"] in ("RUNNING", "COMPLETING") for line in lines):
            break
        time.sleep(1)
    return lines


def submitted(text: str) -> dict[str, tuple[str, str]]:
    """Number of each job that Snakemake's log names → (rule or group, wildcards)."""
    return {found[1]: (found[2] or found[3], found[4] or "") for found in _SUBMITTED.finditer(text)}


def rows_of(lines: list[dict[str, str]], jobs: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """One row per job from accounting's lines, a job's own followed by those of its steps.

    `jobs` gives the rule and the wildcards of each number. Memory is that of the batch script (Snakemake waits in it)
    and of the largest step together, as Slurm counts it.
    """
    rows: dict[str, dict[str, Any]] = {}
    used: dict[str, list[float]] = {}  # of steps, of the batch script
    for line in lines:
        number, _, step = line["JobIDRaw"].partition(".")
        if number not in jobs:
            continue
        if not step:
            used[number] = [0.0, 0.0]
            rows[number] = {
                "job_id": number,
                "rule": jobs[number][0],
                "wildcards": jobs[number][1],
                "state": line["State"].split()[0],
                "nodes": line["NodeList"],
                "cpus": int(line["AllocCPUS"] or 0),
                "gpus": int(found[1]) if (found := re.search(r"gres/gpu=(\d+)", line["AllocTRES"])) else 0,
                "limit_s": round(seconds(line["Timelimit"])),
                "elapsed_s": round(seconds(line["Elapsed"])),
                "cpu_s": round(seconds(line["TotalCPU"]), 1),
                "memory_asked_mb": _asked_mb(line),
            }
        elif number in rows:
            used[number][step == "batch"] = max(used[number][step == "batch"], megabytes(line["MaxRSS"]))
    return [{**row, "memory_used_mb": round(sum(used[number]))} for number, row in rows.items()]


def _asked_mb(line: dict[str, str]) -> int:
    """Memory of a whole job; older versions of Slurm end it with `n` (of each node) or `c` (of each CPU)."""
    times = {"n": int(line["NNodes"] or 1), "c": int(line["AllocCPUS"] or 1)}.get(line["ReqMem"][-1:], 1)
    return round(megabytes(line["ReqMem"].rstrip("nc")) * times)


def megabytes(text: str) -> float:
    """Slurm's memory as MB: `2000M`, `1.5G`; 0 for nothing."""
    if not text:
        return 0.0
    return float(text[:-1]) * _UNITS[text[-1]] if text[-1] in _UNITS else float(text) / 1024**2


def seconds(text: str) -> float:
    """Slurm's times as seconds: `2-03:04:05`, `03:04:05`, `04:05.678`; 0 for what is no time (`UNLIMITED`)."""
    days, _, clock = text.rpartition("-")
    try:
        result = 0.0
        for part in clock.split(":"):
            result = 60 * result + float(part)
        return 86400 * int(days or 0) + result
    except ValueError:
        return 0.0
