"""Put the report page together: template, styles, scripts and data in one file that asks the network for nothing."""

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent.report import conformers, figures, measures, methods, slurm, structures, study, tables
from mdlatent.report.study import Study
from mdlatent.report.tables import escape, show

log = logging.getLogger("mdlatent")

HERE = Path(__file__).parent
VENDORED = "2.5.5"  # of 3Dmol.js, see assets/README.md
SCRIPTS = (
    *("common.js", "comparison.js", "map.js", "states.js", "markov.js", "matrices.js", "curves.js", "viewer.js"),
    *("conformers.js", "app.js"),
)


def build(found: Study, options: dict[str, Any], about: dict[str, Any], links_from: Path) -> str:
    """The whole page as text; links to structures are relative to the folder `links_from`."""
    rows = figures.thinned(found.store.n_frames, options["report"]["max_points"])
    log.info("drawing %d of %d frames", len(rows), found.store.n_frames)
    labels = [study.labels(found, run) for run in found.runs]
    families = {run.model: str(run.settings.get("family", "")) for run in found.runs}
    baselines = {family for family in families.values() if tables.is_baseline(family)}
    latent = [record for record in about["metrics"] if record["stage"] != "conformers"]
    paths = [run.structures(state) for run in found.runs for state in range(run.n_states)]
    data = {
        "study": options["study"],
        "frames": figures.frame_data(
            found, rows, [row["name"] for row in options["simulations"] if "reference" in row]
        ),
        "comparison": measures.comparison(latent, families, baselines),
        "runs": [figures.run_data(found, run, rows, label) for run, label in zip(found.runs, labels, strict=True)],
        "matrices": figures.matrices(found, labels),
        "structures": structures.packed(paths),
        "conformers": conformers.figure_data(found.conformers) if found.conformers else None,
        "files": [Path(os.path.relpath(path, links_from)).as_posix() for path in paths],
    }
    return fill(
        template("page.html"),
        {
            "study": escape(options["study"]),
            "facts": facts(found),
            "headline": tables.headline(latent, families),
            "headline_note": escape(headline_note(found, options)),
            "conformers": conformer_section(found),
            "conformers_link": '<a href="#conformers">Conformers</a>' if found.conformers else "",
            "sources": tables.sources(found.sources),
            "timings": tables.timings(found.benchmarks) + tables.machine(latent) + slurm.table(found.slurm),
            "versions": tables.versions(about),
            "config": escape(as_yaml(options)),
            "references": tables.references(methods.references(options, list(families.values())), found.sources),
            "program": escape(f"mdlatent {about['versions']['mdlatent']} {(about['commit'] or '')[:12]}".strip()),
            "licence": escape((HERE / "assets" / "3Dmol-LICENSE.txt").read_text(encoding="utf-8").strip()),
            "style": template("style.css"),
            "data": as_script_data(data),
            "plotly": library(plotly_js()),
            "viewer": library((HERE / "assets" / "3Dmol-min.js").read_text(encoding="utf-8")),
            "script": "\n".join(template(name) for name in SCRIPTS),
        },
    )


def conformer_section(found: Study) -> str:
    """The section about generators of conformers; empty if the study has none."""
    return fill(template("conformers.html"), conformers.parts(found.conformers)) if found.conformers else ""


def template(name: str) -> str:
    """The text of a file of the page."""
    return (HERE / name).read_text(encoding="utf-8")


def fill(text: str, values: dict[str, str]) -> str:
    """`text` with every `{{name}}` replaced, once; what is filled in is not looked at again."""

    def value(match: re.Match[str]) -> str:
        return values[match[1]]

    return re.sub(r"\{\{(\w+)\}\}", value, text)


def as_script_data(data: Any) -> str:
    """JSON that can stand inside a script element, whatever text is in it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def plotly_js() -> str:
    """The library's script as the Python package brings it."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def library(text: str) -> str:
    """A script to embed; a closing tag inside it would end it early."""
    return text.replace("</script", "<\\/script")


def facts(found: Study) -> str:
    """The study in a line of numbers."""
    store = found.store
    n_mapped = len([s for s in store.simulations if s.role == "embed"])
    times = [store.times_ps(simulation) for simulation in store.simulations]
    spans = [float(np.ptp(some)) for some in times if np.isfinite(some).all()]
    items = [
        (show(len(store.simulations), 0), "simulations" if len(store.simulations) > 1 else "simulation"),
        (show(store.n_frames, 0), "frames"),
        (show(store.n_atoms, 0), "atoms mapped"),
    ]
    if len(spans) == len(store.simulations):
        items.append((duration(sum(spans)), "simulated time"))
    if n_mapped:
        items.append((show(n_mapped, 0), "mapped only, not trained on"))
    return "".join(f"<li><b>{escape(value)}</b> {escape(word)}</li>" for value, word in items)


def duration(time_ps: float) -> str:
    """A time in words with three digits."""
    for unit, step in (("ms", 1e9), ("µs", 1e6), ("ns", 1e3)):
        if time_ps >= step:
            return f"{time_ps / step:.3g} {unit}"
    return f"{time_ps:.3g} ps"


def headline_note(found: Study, options: dict[str, Any]) -> str:
    """How the numbers of the headline table came about."""
    split = options["split"]
    if split["by"] == "time":
        blocks = ", ".join(str(block) for block in split["test_blocks"])
        held = f"blocks {blocks} (counted from 0) of {split['n_blocks']} of each simulation's time"
    else:
        held = "the simulations " + ", ".join(split["test_simulations"])
    measured = options["evaluate"]
    return (
        f"Held out: {held}, which no model was trained on. Structures, motion and neighbours are measured there, the "
        f"states on all frames. Structures, contacts and neighbours: at most {measured['max_frames']} held-out frames; "
        f"contacts below {measured['contact_cutoff_nm']} nm; VAMP-2 and Markov model at a lag of "
        f"{measured['lag_frames'][0]} stored frames. Intervals are 95 %, from blocks of time."
    )


def as_yaml(options: dict[str, Any]) -> str:
    """The configuration as a user would write it."""
    import yaml

    return yaml.safe_dump(options, sort_keys=False, allow_unicode=True, width=110).rstrip()
