"""The section of the page about generators of conformers: its table, its notes, and lists of what failed."""

from collections.abc import Sequence
from typing import Any

from mdlatent.report.tables import escape, heading, mean_and_spread, show, table

Row = dict[str, Any]

BASELINE = "etkdg"
MOST_LISTED = 200
AT_ANGSTROM = 0.75
# Metric → heading, unit, digits, factor; a difference to the baseline stands behind the first two.
COLUMNS = {
    "amr_recall": ("AMR, recall", "Å", 3, 1),
    "amr_precision": ("AMR, precision", "Å", 3, 1),
    f"coverage_recall_{AT_ANGSTROM}": (f"Coverage at {AT_ANGSTROM} Å, recall", "%", 1, 100),
    f"coverage_precision_{AT_ANGSTROM}": (f"Coverage at {AT_ANGSTROM} Å, precision", "%", 1, 100),
    "energy_above_reference": ("Energy as made", "kcal/mol", 1, 1),
    "relaxed_energy_above_reference": ("Energy, relaxed", "kcal/mol", 1, 1),
    "stereo_kept": ("Stereo kept", "%", 1, 100),
    "failures": ("Failures", "molecules", 0, 1),
    "seconds_per_conformer": ("Time per conformer", "CPU s", 3, 1),
}
MADE_BY = {
    "experiment": "from experiment",
    "quantum_chemistry": "optimised by quantum chemistry",
    "generator": "made by another generator of conformers",
}


def parts(found: Row) -> dict[str, str]:
    """What fills the template of the section, from conformers.json."""
    return {
        "conformers_notice": notice(found),
        "conformers_facts": escape(facts(found)),
        "conformers_table": generators(found),
        "conformers_note": escape(note(found)),
        "conformers_failures": failures(found["failures"], found["limit_s"]),
        "conformers_left_out": left_out(found["about"]),
    }


def figure_data(found: Row) -> Row:
    """What the script draws."""
    return {key: found[key] for key in ("generators", "curves", "groups")}


def notice(found: Row) -> str:
    """A warning where the references are no truth."""
    if found["made_by"] != "generator":
        return ""
    return (
        '<p class="notice">The references were made by a generator of conformers. The numbers below say how near '
        "others come to its results, not which generator is right. For that, take references from crystal structures "
        "or quantum chemistry.</p>"
    )


def facts(found: Row) -> str:
    """Molecules, references and seeds in a sentence."""
    about = found["about"]
    part = "" if found["part"] == "all" else f", the {found['part']} part of a split by scaffold"
    seeds = ", ".join(map(str, found["seeds"]))
    return (
        f"{count(about['molecules'], 'molecule')}{part}; {count(about['references'], 'reference')}, "
        f"{MADE_BY[found['made_by']]}; two conformers made for each; "
        f"{'seed' if len(found['seeds']) == 1 else 'seeds'} {seeds}."
    )


def count(n: int, word: str) -> str:
    """`1 molecule`, `2 molecules`."""
    return f"{show(n, 0)} {word}{'' if n == 1 else 's'}"


def generators(found: Row) -> str:
    """All generators side by side; mean ± standard deviation over seeds, and differences to the baseline."""
    there = {record["metric"] for record in found["records"]}
    columns = {name: words for name, words in COLUMNS.items() if name in there}
    head = ["Generator"]
    for name, (label, unit, _, _) in columns.items():
        head.append(heading(label, unit))
        if name.startswith("amr_") and found["differences"]:
            head.append(heading(f"Difference to {BASELINE}", "Å, 95 % interval"))
    rows = []
    for generator in found["generators"]:
        tag = '<span class="tag">baseline</span>' if generator == BASELINE else ""
        cells = [f"<b>{escape(generator)}</b>{tag}"]
        own = [record for record in found["records"] if record["model"] == generator]
        for name, (_, _, digits, factor) in columns.items():
            cells.append(mean_and_spread([r["value"] for r in own if r["metric"] == name], digits, factor))
            if name.startswith("amr_") and found["differences"]:
                cells.append(difference(found["differences"].get(generator, {}).get(name)))
        rows.append(cells)
    return table(head, rows, numbers=range(1, len(head)), kind="headline")


def difference(entry: Row | None) -> str:
    """A difference with its interval below; a dash where there is none."""
    if entry is None or entry.get("difference") is None:
        return ""
    ends = [entry.get(key) for key in ("difference_low", "difference_high")]
    text = show(entry["difference"], 3)
    if None in ends:
        return text
    return f'{text}<span class="quiet">{show(ends[0], 3)} to {show(ends[1], 3)}</span>'


def note(found: Row) -> str:
    """What the numbers mean."""
    about = found["about"]
    text = (
        "RMSD of heavy atoms, superposed, least over all symmetries. Recall: from each reference to the nearest "
        "conformer made. Precision: from each conformer made to the nearest reference. AMR: mean of these distances, "
        "over the molecules for which something was made. Coverage: share of them below a threshold, 0 where nothing "
        "was made. "
        "Energy: MMFF94 above the lowest relaxed reference, median over molecules of a molecule's median. Stereo kept: "
        "conformers with the R/S and E/Z of the graph. Values are means over seeds ± standard deviation; intervals are "
        "95 %, from drawing molecules, each with its mean over seeds."
    )
    if not about["with_precision"]:
        text += (
            " Every molecule has one reference only: precision would punish a generator for variety, so recall alone "
            "is shown."
        )
    elif one := about["molecules_with_one_reference"]:
        text += f" {count(one, 'molecule')} with one reference only: there precision punishes variety."
    return text


def failures(found: Sequence[Row], limit_s: float) -> str:
    """Which generator failed for which molecule."""
    if not found:
        return f"<p>No generator failed for any molecule (limit {limit_s:g} s for each).</p>"
    rows = [
        [escape(f["molecule"]), escape(f["generator"]), escape(", ".join(map(str, f["seeds"]))), escape(f["reason"])]
        for f in found[:MOST_LISTED]
    ]
    return table(["Molecule", "Generator", "Seeds", "Reason"], rows) + rest(len(found), "conformers.json")


def left_out(about: Row) -> str:
    """What of the file of references was not used, and molecules whose graph cannot be trusted."""
    text = ""
    if entries := about["left_out"]:
        rows = [[escape(entry["name"]), escape(entry["reason"])] for entry in entries[:MOST_LISTED]]
        inner = table(["Molecule or record", "Reason"], rows) + rest(len(entries), "left_out.csv")
        text += f"<details open><summary>{count(len(entries), 'record')} left out</summary>{inner}</details>"
    if broken := about["broken"]:
        names = ", ".join(map(str, broken[:MOST_LISTED]))
        text += (
            f"<details><summary>{count(len(broken), 'molecule')} with a doubtful graph</summary><p>Radicals or "
            "over-bonded cations, as bonds guessed from a geometry have; a force field says little about them: "
            f"{escape(names)}.</p>"
            f"{rest(len(broken), 'parts/references.json')}</details>"
        )
    return text


def rest(n: int, file: str) -> str:
    """Where the others are listed, if not all are shown."""
    return f'<p class="note">{show(n - MOST_LISTED, 0)} more: conformers/{file}.</p>' if n > MOST_LISTED else ""
