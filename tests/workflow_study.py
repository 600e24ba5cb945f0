"""Run the real Snakemake, as a user would, in a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from support import ROOT


class Study:
    """A study in its own working folder; the workflow itself stays where it is."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config = folder / "study.yaml"

    def write(self, values: dict) -> None:
        self.config.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))

    def snakemake(self, *args: str, timeout: int = 900, **environment: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--profile", str(ROOT / "profiles" / "local"), "--directory", str(self.folder)]
        command += ["--configfile", str(self.config), *args]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **environment}, cwd=self.folder
        )

    def run(self, *args: str, **kwargs) -> str:
        """Run and expect success; returns everything that was printed."""
        result = self.snakemake(*args, **kwargs)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
        return result.stdout + result.stderr

    def fail(self, *args: str, **kwargs) -> str:
        """Run and expect a user's error: exit code not 0, no traceback; returns everything that was printed."""
        result = self.snakemake(*args, **kwargs)
        text = result.stdout + result.stderr
        assert result.returncode != 0, text[-3000:]
        assert "Traceback" not in text, text[-6000:]
        return text

    def jobs(self, text: str) -> dict[str, int]:
        """How many jobs of each rule ran or would run, from the table that Snakemake prints."""
        table = text.split("Job stats:", 1)[1].split("\n\n", 1)[0]
        rows = [line.split() for line in table.splitlines() if len(line.split()) == 2]
        return {rule: int(count) for rule, count in rows if count.isdigit() and rule != "total"}

    def plan(self, values: dict) -> dict[str, int]:
        """How many jobs of each rule would run if the configuration were `values`; the study stays as it is."""
        other = Study(self.folder)
        other.config = self.folder / "changed.yaml"
        other.write(values)
        return self.jobs(other.run("--dry-run"))
