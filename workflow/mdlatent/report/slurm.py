"""What Slurm jobs asked for beside what they used, a row per rule: the next run can ask for less, or must for more."""

from collections.abc import Sequence
from typing import Any

from mdlatent.report import tables
from mdlatent.report.tables import escape, heading, show

Row = dict[str, Any]


def table(rows: Sequence[Row]) -> str:
    """The jobs of all earlier runs; nothing where there were none.

    Memory and time are those of the job that came closest to what it had asked for.
    """
    if not rows:
        return ""
    cells = []
    for rule in dict.fromkeys(row["rule"] for row in rows):
        own = [row for row in rows if row["rule"] == rule]
        memory = max(own, key=lambda row: share(row, "memory_used_mb", "memory_asked_mb"))
        time = max(own, key=lambda row: share(row, "elapsed_s", "limit_s"))
        granted = sum(row["elapsed_s"] * row["cpus"] for row in own)
        busy = sum(row["cpu_s"] for row in own) / granted if granted else None
        cells.append(
            [
                escape(rule),
                show(len(own), 0),
                show(sum(row["state"] != "COMPLETED" for row in own), 0),
                show(max(row["cpus"] for row in own), 0),
                show(busy, 0, 100),
                show(memory["memory_asked_mb"], 0),
                show(memory["memory_used_mb"], 0),
                show(time["limit_s"] / 60, 0),
                show(time["elapsed_s"] / 60, 1),
            ]
        )
    head = ["Slurm jobs of rule", "Jobs", "Not completed", heading("CPUs", ""), heading("CPUs busy", "%")]
    head += [heading(f"Memory {word}", "MB") for word in ("asked", "used")]
    head += [heading(f"Time {word}", "min") for word in ("asked", "used")]
    return tables.table(head, cells, numbers=range(1, len(head)))


def share(row: Row, used: str, asked: str) -> float:
    """Used ÷ asked; 0 where nothing was asked for."""
    return float(row[used] / row[asked]) if row[asked] else 0.0
