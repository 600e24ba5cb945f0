"""A small benchmark of conformer generators, every stage called as the workflow calls it."""

from pathlib import Path

import pytest

from conformer_files import bad_records, block, conformers, ligands
from mdlatent import config, fetch
from mdlatent.conformers import benchmark, collect, references
from report_study import ReportStudy, run, small_study  # noqa: F401  (a fixture)

GENERATORS = ["etkdg", "etkdg_mmff"]


def write_mixed(path: Path) -> Path:
    """Three ligands, all that cannot be used, and a molecule with five conformers."""
    path.write_text(ligands(3) + bad_records() + block(conformers("CCC(CC)CCO", 5), "flexible"))
    return path


def section(**changes: object) -> dict:
    """The section of the configuration, as `options` of a stage."""
    settings = {"references": "x.sdf", "made_by": "generator", "generators": GENERATORS, "seeds": [0]}
    return {"conformers": settings | {"max_heavy_atoms": 30} | changes}


def benchmark_in(folder: Path, source: Path, options: dict) -> Path:
    """Choose, measure and collect; `folder` with the results."""
    settings = options["conformers"]
    references.main([str(source), *given(output_dir=folder / "parts", options=options)])
    rows = []
    for seed in settings["seeds"]:
        for k in range(settings.get("jobs", 1)):
            rows.append(folder / f"seed{seed}" / f"part{k:03d}.parquet")
            part = [str(folder / "parts" / f"part{k:03d}.sdf"), "--generators", *settings["generators"]]
            benchmark.main([*part, *given(seed=seed, output=rows[-1])])
    about = folder / "parts" / "references.json"
    collect.main([*map(str, rows), *given(references=about, options=options, output_dir=folder)])
    return folder


def given(**options: object) -> list[str]:
    """Options of a command line, as `run` makes them."""
    found: list[str] = []
    run(found.extend, **options)
    return found


def with_conformers(study: ReportStudy, folder: Path) -> ReportStudy:
    """A copy of the study in `folder` with a benchmark of conformers; its report is not yet written."""
    source = write_mixed(folder / "mine.sdf")
    result = study.copy(folder / "small")
    wanted = section(references=str(source), seeds=[0, 1])
    result.options = config.resolve(result.options | wanted)
    place = result.folder / "conformers"
    fetch.fetch(str(source), place / "references.sdf", result.options["fetch"])
    benchmark_in(place, place / "references.sdf", wanted)
    return result


@pytest.fixture(scope="session")
def conformer_study(small_study, tmp_path_factory) -> ReportStudy:  # noqa: F811
    """The study of the report with a benchmark of conformers and its report; do not change it."""
    study = with_conformers(small_study, tmp_path_factory.mktemp("conformers"))
    study.write()
    return study
