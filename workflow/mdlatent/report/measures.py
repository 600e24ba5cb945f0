"""What the page calls each measure, how it shows it and what it means."""

from typing import Any, NamedTuple

Row = dict[str, Any]


class Measure(NamedTuple):
    """Heading, unit in the heading, digits, factor on the value, and the meaning in a sentence."""

    label: str
    unit: str
    digits: int
    factor: float
    meaning: str


GROUPS: dict[str, dict[str, Measure]] = {
    "Structures": {
        "parameters": Measure("Parameters", "", 0, 1, "numbers that were trained or fitted"),
        "heldout_distance_rmse": Measure(
            "Held-out distance RMSE", "nm", 4, 1, "root mean square difference of true and decoded pair distances"
        ),
        "heldout_rmsd": Measure(
            "Held-out RMSD", "Å", 3, 1, "distance of decoded to true structures, superposed, mean over frames"
        ),
        "contacts_recovered": Measure(
            "Contacts recovered", "%", 1, 100, "true contacts that the decoded structure has too (recall)"
        ),
        "contacts_precision": Measure("Contacts right", "%", 1, 100, "decoded contacts that are true (precision)"),
    },
    "Motion and neighbours": {
        "vamp2": Measure(
            "VAMP-2", "", 2, 1, "slow motion kept, between 0 and the dimension; compare at equal dimension and lag only"
        ),
        "vamp2_ratio_to_tica": Measure(
            "VAMP-2 / TICA", "", 2, 1, "the same over that of the slowest linear coordinates, of equal dimension"
        ),
        "trustworthiness": Measure(
            "Trustworthiness",
            "",
            3,
            1,
            "1 if neighbours in the map are neighbours in distance space; about 0.5 by chance",
        ),
        "continuity": Measure("Continuity", "", 3, 1, "1 if neighbours in distance space are neighbours in the map"),
    },
    "States": {
        "n_states": Measure("States", "", 0, 1, "states found by HDBSCAN"),
        "noise_fraction": Measure("Noise", "% of frames", 1, 100, "frames between states"),
        "noise_fraction_by_density": Measure(
            "Before outskirts", "% of frames", 1, 100, "noise as HDBSCAN has it, outskirts of a single state included"
        ),
        "ari_subsamples": Measure(
            "Agreement of subsamples", "ARI", 3, 1, "with the states of random 80 % of the frames, noise as a label"
        ),
        "ari_seeds": Measure(
            "Agreement of seeds", "ARI", 3, 1, "with the states of the other seeds, all frames, noise as a label"
        ),
        "ari_seeds_without_noise": Measure(
            "Without noise", "ARI", 3, 1, "agreement of seeds on the frames that both call a state"
        ),
        "ari_reference": Measure(
            "Agreement with known states", "ARI", 3, 1, "on held-out frames, those of noise left out"
        ),
        "implied_timescale_1": Measure(
            "Slowest timescale", "{unit}", 1, 1, "of the Markov model of the states at the lag of the study"
        ),
        "ck_error": Measure(
            "Chapman–Kolmogorov error",
            "",
            3,
            1,
            "largest difference of predicted and estimated transition probabilities",
        ),
    },
}
MACHINE = {
    "frames_per_cpu_second": ("Training speed", "frames per CPU second", 0, 1),
    "peak_memory": ("Peak memory", "GB", 2, 1),
}
# In evaluation/summary.csv and summary.json, not on the page.
MORE = (
    *("heldout_rmsd_median", "heldout_rmsd_95", "nmi_reference"),
    *("ari_reference_with_noise", "nmi_reference_with_noise"),
)
PANELS = {  # of the figure that compares models: which way is better
    "heldout_rmsd": "← better",
    "contacts_recovered": "better →",
    "vamp2_ratio_to_tica": "better →",
    "trustworthiness": "better →",
    "noise_fraction": "← better",
    "ari_subsamples": "better →",
    "ari_seeds": "better →",
    "ari_reference": "better →",
}
MOST_PANELS = 6


def shown(records: list[Row]) -> dict[str, dict[str, tuple[str, str, int, float]]]:
    """The measures there are, by group: metric → (label, unit, digits, factor). Unknown ones bear their own name."""
    units = {record["metric"]: record["unit"] for record in records}
    groups: dict[str, dict[str, tuple[str, str, int, float]]] = {}
    for group, measures in GROUPS.items():
        found = {
            name: (m.label, m.unit.format(unit=units[name]), m.digits, m.factor)
            for name, m in measures.items()
            if name in units
        }
        if found:
            groups[group] = found
    known = {name for measures in GROUPS.values() for name in measures} | set(MACHINE) | set(MORE)
    for name in sorted(set(units) - known):
        unit = units[name] if units[name] not in ("1", "count") else ""
        words = (name.replace("_", " "), unit, 0 if units[name] == "count" else 3, 1.0)
        groups.setdefault("Further measures", {})[name] = words
    return groups


def comparison(records: list[Row], families: dict[str, str], baselines: set[str]) -> Row:
    """The data of the figure that compares models: panels, models in the order of the table, values with intervals."""
    labels = {name: words for group in shown(records).values() for name, words in group.items()}
    panels = [
        {"metric": name, "label": labels[name][0], "unit": labels[name][1], "factor": labels[name][3], "better": better}
        for name, better in PANELS.items()
        if name in labels
    ][:MOST_PANELS]
    wanted = {panel["metric"] for panel in panels}
    keys = ("model", "seed", "metric", "value", "low", "high")
    return {
        "panels": panels,
        "models": [{"name": name, "baseline": family in baselines} for name, family in families.items()],
        "values": [{k: r[k] for k in keys if k in r} for r in records if r["metric"] in wanted],
    }


def meanings(records: list[Row]) -> list[tuple[str, str]]:
    """(label, meaning) of the measures there are."""
    there = {record["metric"] for record in records}
    return [(m.label, m.meaning) for group in GROUPS.values() for name, m in group.items() if name in there]
