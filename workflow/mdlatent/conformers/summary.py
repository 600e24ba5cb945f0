"""The table of a benchmark: means, medians and intervals over molecules, all and clean, by rotatable bonds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mdlatent.conformers import metrics

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["summarise", "text"]

BASELINE = "etkdg"
AMR = ("amr_recall_angstrom", "amr_precision_angstrom")
GROUPS = ((0, 2), (3, 5), (6, 8), (9, 99))  # rotatable bonds
MEDIANS = ("energy_raw_kcal", "energy_relaxed_kcal")


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """Everything that is said about a benchmark: `all`, `clean` graphs only, and by number of rotatable bonds.

    Each part has {generator: values}; means of AMR are over the molecules for which something was generated.
    """
    order = list(dict.fromkeys(table["generator"]))
    result = {"all": _part(table, order), "clean": _part(table[~table["broken"]], order)}
    for low, high in GROUPS:
        some = table[table["n_rotatable"].between(low, high)]
        name = f"{low}-{high} rotatable bonds" if high < 99 else f"{low} and more rotatable bonds"
        result[name] = _part(some, order)
    return {name: part for name, part in result.items() if part}


def _part(table: pd.DataFrame, order: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for generator in order if len(table) else []:
        rows = table[table["generator"] == generator]
        made = rows[rows["n_generated"] > 0]
        columns = [name for name in rows.columns if name.startswith("cov_")]
        values: dict[str, Any] = {"molecules": len(rows), "failures": len(rows) - len(made)}
        values |= {name: _number(rows[name].mean()) for name in columns}
        for name in (*AMR, "stereo_kept_percent", "distinct_percent"):
            values[name] = _number(made[name].mean())
        values |= {f"{name}_median": _number(made[name].median()) for name in (*AMR, *MEDIANS)}
        made_n = made["n_generated"].sum()
        values["cpu_s_per_conformer"] = _number(made["cpu_s"].sum() / made_n) if made_n else None
        values["against"] = {
            other: {name: _difference(table, generator, other, name) for name in AMR}
            for other in order
            if other != generator
        }
        result[generator] = values
    return result


def _difference(table: pd.DataFrame, ours: str, theirs: str, name: str) -> dict[str, float | None]:
    wide = table.pivot(index="molecule", columns="generator", values=name)
    found = metrics.bootstrap_difference(wide[ours].to_numpy(), wide[theirs].to_numpy())
    return {key: _number(value) for key, value in found.items()}


def text(result: dict[str, Any]) -> str:
    """The summary as Markdown tables; ratios to ETKDG have their 95 % interval over molecules."""
    lines = []
    for part, generators in result.items():
        n = max(values["molecules"] for values in generators.values())
        lines += [
            f"\n{part}: {n} molecules",
            "| generator | AMR-R mean/median | × etkdg [95 %] | AMR-P mean/median | × etkdg [95 %] | COV-R .5/.75/1.25 "
            "| COV-P .5/.75/1.25 | kcal/mol raw/relaxed | stereo % | distinct % | failures | s/conformer |",
            "|" + "---|" * 12,
        ]
        lines += [_line(generator, values) for generator, values in generators.items()]
    return "\n".join(lines)


def _line(generator: str, values: dict[str, Any]) -> str:
    cells = [generator]
    for name in AMR:
        cells.append(f"{_show(values[name], 3)}/{_show(values[name + '_median'], 3)}")
        against = values["against"].get(BASELINE, {}).get(name, {})
        ratio = [_show(against.get(key), 2) for key in ("ratio", "ratio_low", "ratio_high")]
        cells.append("" if generator == BASELINE else f"{ratio[0]} [{ratio[1]}, {ratio[2]}]")
    for kind in ("recall", "precision"):
        cells.append("/".join(_show(values[f"cov_{kind}_{one}_percent"], 0) for one in metrics.THRESHOLDS_ANGSTROM))
    cells.append("/".join(_show(values[f"{name}_median"], 1) for name in MEDIANS))
    cells += [_show(values["stereo_kept_percent"], 1), _show(values["distinct_percent"], 0), str(values["failures"])]
    cells.append(_show(values["cpu_s_per_conformer"], 3))
    return "| " + " | ".join(cells) + " |"


def _show(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _number(value: Any) -> float | None:
    """A JSON number; None for NaN."""
    number = float(value)
    return number if number == number else None
