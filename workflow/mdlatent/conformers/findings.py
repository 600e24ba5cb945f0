"""What a benchmark of generators found, for the tables and figures of a study: pure functions of its table of rows.

Molecules are the unit of every interval: they are drawn with replacement, with all that belongs to one. Where a
molecule was done with several seeds, its mean over them counts where generators are compared with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mdlatent.conformers import metrics
from mdlatent.conformers.summary import AMR, BASELINE, GROUPS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["curves", "differences", "failures", "groups", "has_precision", "records"]

Row = dict[str, Any]

STAGE = "conformers"
CURVE_ANGSTROM = np.round(np.arange(0, 2.0001, 0.05), 2)
KINDS = ("recall", "precision")
# Metric → column of the table, unit, factor, and what is made of a molecule's values: mean or median.
MEASURES = {
    **{f"amr_{kind}": (f"amr_{kind}_angstrom", "angstrom", 1.0, "mean") for kind in KINDS},
    **{
        f"coverage_{kind}_{threshold}": (f"cov_{kind}_{threshold}_percent", "1", 0.01, "mean")
        for kind in KINDS
        for threshold in metrics.THRESHOLDS_ANGSTROM
    },
    "stereo_kept": ("stereo_kept_percent", "1", 0.01, "mean"),
    "energy_above_reference": ("energy_raw_kcal", "kcal/mol", 1.0, "median"),
    "relaxed_energy_above_reference": ("energy_relaxed_kcal", "kcal/mol", 1.0, "median"),
}


def has_precision(table: pd.DataFrame) -> bool:
    """Whether any molecule has two references or more.

    With a single known conformer per molecule, precision asks whether every conformer made is that one, which punishes
    a generator for variety; then it is not reported.
    """
    return bool((table["n_references"] > 1).any())


def records(table: pd.DataFrame, generators: Sequence[str]) -> list[Row]:
    """{"stage", "model", "seed", "dim", "metric", "value", "unit"} for each generator, seed and measure.

    Means have their 95 % interval, `low` and `high`.
    """
    result: list[Row] = []
    measures = _measures(table)
    for generator in generators:
        for seed in sorted(table["seed"].unique()):
            rows = table[(table["generator"] == generator) & (table["seed"] == seed)]
            result += _records_of(rows, measures, {"stage": STAGE, "model": generator, "seed": int(seed), "dim": None})
    return result


def _measures(table: pd.DataFrame) -> dict[str, tuple[str, str, float, str]]:
    return {name: how for name, how in MEASURES.items() if "precision" not in name or "precision" in _kinds(table)}


def _kinds(table: pd.DataFrame) -> tuple[str, ...]:
    """What is reported of a table: recall, and precision where it means something."""
    return KINDS if has_precision(table) else KINDS[:1]


def _records_of(rows: pd.DataFrame, measures: dict[str, tuple[str, str, float, str]], about: Row) -> list[Row]:
    made = rows[rows["n_generated"] > 0]
    found: list[Row] = []
    for metric, (column, unit, factor, how) in measures.items():
        values = _column(rows, column)
        values = values[np.isfinite(values)] * factor
        if not len(values):
            continue
        record = {**about, "metric": metric, "value": float(getattr(np, how)(values)), "unit": unit}
        interval = metrics.bootstrap_interval(values) if how == "mean" else None
        found.append(record | (dict(zip(("low", "high"), interval, strict=True)) if interval else {}))
    if len(made):
        seconds = float(made["cpu_s"].sum() / made["n_generated"].sum())
        found.append({**about, "metric": "seconds_per_conformer", "value": seconds, "unit": "s"})
    for metric, n in (("failures", len(rows) - len(made)), ("molecules", len(rows))):
        found.append({**about, "metric": metric, "value": n, "unit": "count"})
    return found


def _column(rows: pd.DataFrame, name: str) -> np.ndarray:
    """Values (n_rows,) of a column; NaN where there are none, or where nothing was generated in any row."""
    return rows[name].to_numpy(np.float64) if name in rows else np.full(len(rows), np.nan)


def differences(table: pd.DataFrame, generators: Sequence[str]) -> dict[str, dict[str, Row]]:
    """generator → measure → {n, difference, difference_low, difference_high, ratio …} against `etkdg`, over molecules.

    Empty where `etkdg` is not among the generators; molecules that either failed for with every seed are left out.
    """
    if BASELINE not in generators:
        return {}
    kinds = _kinds(table)
    result: dict[str, dict[str, Row]] = {}
    for generator in generators:
        if generator == BASELINE:
            continue
        result[generator] = {}
        for kind in kinds:
            wide = table.pivot_table(index="molecule", columns="generator", values=f"amr_{kind}_angstrom", dropna=False)
            if generator in wide and BASELINE in wide:
                pair = (wide[name].to_numpy(np.float64) for name in (generator, BASELINE))
                found = metrics.bootstrap_difference(*pair)
                result[generator][f"amr_{kind}"] = {key: _number(value) for key, value in found.items()}
    return result


def curves(table: pd.DataFrame, generators: Sequence[str]) -> Row:
    """Coverage (0–1) at each of `threshold_angstrom`, mean over molecules and seeds, 0 where nothing was generated."""
    kinds = _kinds(table)
    result: Row = {"threshold_angstrom": CURVE_ANGSTROM.tolist()}
    for kind in kinds:
        result[kind] = {}
        for generator in generators:
            nearest = table.loc[table["generator"] == generator, f"nearest_{kind}_angstrom"]
            below = [
                (np.asarray(one, np.float64)[:, None] < CURVE_ANGSTROM).mean(0) if len(one) else 0 * CURVE_ANGSTROM
                for one in nearest
            ]
            result[kind][generator] = np.mean(below, axis=0).tolist()
    return result


def groups(table: pd.DataFrame, generators: Sequence[str]) -> list[Row]:
    """Mean AMR by rotatable bonds: {label, molecules, recall: {generator: {value, low, high}}, precision: …} each."""
    kinds = _kinds(table)
    result = []
    for low, high in GROUPS:
        some = table[table["n_rotatable"].between(low, high)]
        if not len(some):
            continue
        label = f"{low} to {high}" if high < 99 else f"{low} and more"
        row: Row = {"label": label, "molecules": int(some["molecule"].nunique())}
        for kind, name in zip(KINDS, AMR, strict=True):
            if kind in kinds:
                row[kind] = {one: _mean(some[some["generator"] == one], name) for one in generators}
        result.append(row)
    return result


def _mean(rows: pd.DataFrame, name: str) -> Row:
    values = rows.groupby("molecule")[name].mean().to_numpy(np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return {"value": None}
    interval = metrics.bootstrap_interval(values)
    ends = {"low": interval[0], "high": interval[1]} if interval else {}
    return {"value": float(values.mean()), **ends}


def failures(table: pd.DataFrame) -> list[Row]:
    """{molecule, generator, reason, seeds} for whatever failed."""
    some = table[table["n_generated"] == 0]
    return [
        {"molecule": molecule, "generator": generator, "reason": reason, "seeds": sorted(int(k) for k in rows["seed"])}
        for (molecule, generator, reason), rows in some.groupby(["molecule", "generator", "failure"], sort=True)
    ]


def _number(value: Any) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None
