"""A small real study for the tests of the report: Trp-cage, short, every stage run as the workflow runs it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mdtraj
import pytest

from mdlatent import cluster, config, embed, evaluate, featurize, fit_tica, index_frames, select_atoms, train
from mdlatent.files import digest
from mdlatent.report import main as write_report

MODELS = {"conv2d-d2": "conv2d", "pca_distances-d1": "pca_distances", "pca_distances-d3": "pca_distances"}
LENGTHS = {"first": 500, "second": 300}
STRIDE = 6  # of the trajectory the frames are taken from


def run(stage_main: Callable[[list[str]], None], **options: object) -> None:
    """Call a stage's `main`: `output_dir=x` is `--output-dir x`; dictionaries and lists become JSON."""
    argv = []
    for name, value in options.items():
        text = json.dumps(value) if isinstance(value, dict | list) else str(value)
        argv += [f"--{name.replace('_', '-')}", text]
    stage_main(argv)


class ReportStudy:
    """`folder` is S of a finished study; `options` its complete configuration."""

    def __init__(self, folder: Path, options: dict):
        self.folder, self.options = folder, options
        self.page, self.summary = folder / "report.html", folder / "summary.json"

    def write(self, **report: int) -> str:
        """Write report and summary; the page as text."""
        options = self.options | ({"report": report} if report else {})
        run(write_report, study_dir=self.folder, options=options, output=self.page, summary=self.summary)
        return self.page.read_text(encoding="utf-8")

    def cluster(self, model: str, **options: int | str) -> None:
        """Find states and measure again, with other settings."""
        index = self.folder / "frames" / "index.json"
        models, latent, clusters = (self.folder / name / model / "seed0" for name in ("models", "latent", "clusters"))
        run(
            cluster.main,
            frames=index,
            latent=latent,
            output_dir=clusters,
            options={"cluster": self.options["cluster"] | options},
        )
        output = self.folder / "evaluation" / model / "seed0.json"
        run(
            evaluate.main,
            frames=index,
            model=models,
            latent=latent,
            clusters=clusters,
            tica=self.folder / "evaluation" / "tica.npz",
            name=model,
            seed=0,
            options={"evaluate": self.options["evaluate"]},
            kinetics=output.with_suffix(".kinetics.json"),
            output=output,
        )

    def copy(self, folder: Path) -> "ReportStudy":
        """The same study elsewhere, to be changed."""
        shutil.copytree(self.folder, folder)
        return ReportStudy(folder, json.loads(json.dumps(self.options)))


def make(folder: Path, topology: Path, trajectory: Path) -> ReportStudy:
    """Run all stages but the report in `folder`."""
    frames = mdtraj.load(str(trajectory), top=str(topology), stride=STRIDE)
    table, start = [], 0
    for name, n in LENGTHS.items():
        place = folder / "trajectories" / name
        place.mkdir(parents=True)
        files = {"topology": place / "topology.pdb", "trajectory": place / "part000.dcd"}
        frames[0].save_pdb(str(files["topology"]))
        frames[start : start + n].save_dcd(str(files["trajectory"]))
        start += n
        for file in files.values():
            record = {"file": file.name, "uri": str(file), "kind": "path", "sha256": digest(file)}
            record |= {"bytes": file.stat().st_size, "n_atoms": frames.n_atoms, "licence": "MIT <test>"}
            file.with_name(file.name + ".source.json").write_text(json.dumps(record))
        table.append({"name": name, "topology": str(files["topology"]), "trajectory": [str(files["trajectory"])]})
    options = config.resolve(
        {
            "study": "small",
            "simulations": [row | {"time_step_ps": 60} for row in table],
            "models": [{"family": family, "latent_dim": int(name[-1])} for name, family in MODELS.items()],
            "train": {"epochs": 3, "beta": 1e-5, "beta_warmup_epochs": 1},
            "cluster": {"min_cluster_size": 40, "min_samples": 5},
        }
    )
    _frames(folder, options)
    study = ReportStudy(folder, options)
    index = folder / "frames" / "index.json"
    sections = {name: options[name] for name in ("split", "evaluate")}
    run(fit_tica.main, frames=index, dim=3, options=sections, output=folder / "evaluation" / "tica.npz")
    for model in MODELS:
        path, checkpoints = folder / "models" / model / "seed0", folder / "checkpoints" / model / "seed0"
        run(train.main, frames=index, model=model, seed=0, output_dir=path, checkpoints=checkpoints, options=options)
        for name in LENGTHS:
            latent = folder / "latent" / model / "seed0" / f"{name}.parquet"
            run(embed.main, frames=index, model=path / "model.pt", simulation=name, output=latent)
        study.cluster(model)
    benchmark = folder / "benchmarks" / "cluster" / "conv2d-d2.seed0.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text(
        "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
        "12.5\t0:00:12\t377.25\t1\t1\t1\t0\t0\t50\t11.75\n"
    )
    return study


def _frames(folder: Path, options: dict) -> None:
    """Select, read and list the frames."""
    records = []
    for row in options["simulations"]:
        stored, trajectory = folder / "frames" / row["name"] / "part000.h5", row["trajectory"][0]
        records.append(row | {"first_part": trajectory, "parts": [{"file": str(stored), "trajectory": trajectory}]})
    for row in records:
        atoms = folder / "frames" / row["name"] / "atoms.json"
        run(select_atoms.main, simulations=[row], output=atoms, options=options)
        source = {"simulation": row["name"], "topology": row["topology"], "trajectory": row["trajectory"][0]}
        run(featurize.main, **source, atoms=atoms, output=row["parts"][0]["file"], options=options)
    atoms = [folder / "frames" / row["name"] / "atoms.json" for row in records]
    index_frames.main(
        ["--atoms", *map(str, atoms), "--simulations", json.dumps(records), "--options", json.dumps(options)]
        + ["--output", str(folder / "frames" / "index.json")]
    )


@pytest.fixture(scope="session")
def small_study(trpcage, tmp_path_factory) -> ReportStudy:
    """The study with its report written; do not change it, take a copy."""
    study = make(tmp_path_factory.mktemp("report") / "small", *trpcage)
    study.write()
    return study
