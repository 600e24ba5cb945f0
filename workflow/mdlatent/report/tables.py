"""The parts of the page that need no JavaScript, as HTML: headline table, sources, timings, versions, references.

Whatever comes from the user or from a file passes through `escape`.
"""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from mdlatent.model_names import DIRECT
from mdlatent.report import measures
from mdlatent.report.measures import MACHINE

Row = dict[str, Any]
Scale = tuple[float, float]

RULES = (
    *("fetch_topology", "fetch_trajectory", "fetch_reference", "simulate", "select_atoms", "featurize"),
    *("read_simulations", "compute_distances", "compare_reference", "train_model", "embed", "embed_simulations"),
    *("cluster", "fit_tica", "evaluate", "choose_molecules", "benchmark_conformers"),
)  # in the order of the work
WHISKERS = "heldout_distance_rmse"
PLOT_WIDTH, PLOT_HEIGHT = 150, 14


def escape(value: Any) -> str:
    """Text for HTML, in elements and in quoted attributes."""
    return html.escape("" if value is None else str(value), quote=True)


def show(value: float | None, digits: int, factor: float = 1) -> str:
    """A number with thin spaces between thousands and a real minus sign; a dash for None."""
    if value is None:
        return "–"
    text = f"{value * factor:,.{digits}f}".replace(",", "\u202f").replace("-", "−")
    return "0" if digits == 0 and text == "−0" else text


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), kind: str = "") -> str:
    """An HTML table of cells that are HTML already; `numbers` are the columns set flush right."""

    def cell(tag: str, k: int, text: str) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        return f"<{tag}{scope}{' class=n' if k in numbers else ''}>{text}</{tag}>"

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(cell(tag, k, text) for k, text in enumerate(cells)) + "</tr>"

    return _framed(kind, line("th", head), "".join(line("td", row) for row in rows))


def _framed(kind: str, head: str, body: str) -> str:
    return f'<div class="scroll"><table class="{kind}"><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def heading(label: str, unit: str) -> str:
    """A column's heading with its unit."""
    return f"{escape(label)}{f' <span class=unit>{escape(unit)}</span>' if unit else ''}"


def headline(records: Sequence[Row], families: dict[str, str]) -> str:
    """All models and baselines side by side, a table for each group of measures: mean and standard deviation over
    seeds, and each seed below.

    `families` gives the family of each model, in the order of the table. Metrics that this page has no words for get
    a column with their own name.
    """
    scale = whisker_range([record for record in records if record["metric"] == WHISKERS])
    result = ""
    for group, metrics in measures.shown(list(records)).items():
        head = [escape(group), heading("Latent dimensions", "")]
        for name, (label, unit, _, _) in metrics.items():
            head.append(heading(label, unit))
            if name == WHISKERS:
                head.append(whisker_scale(scale))
        body = ""
        for model, family in families.items():
            own = [record for record in records if record["model"] == model]
            seeds = list(dict.fromkeys(record["seed"] for record in own))
            name = f"<b>{escape(model)}</b>" + ('<span class="tag">baseline</span>' if is_baseline(family) else "")
            if len(seeds) > 1:
                name += f'<span class="quiet">mean ± standard deviation of {len(seeds)} seeds</span>'
            body += _headline_row("model", name, own, metrics, scale)
            for seed in seeds if len(seeds) > 1 else ():
                some = [record for record in own if record["seed"] == seed]
                body += _headline_row("seed", f"seed {escape(seed)}", some, metrics, scale)
        cells = "".join(
            f'<th scope="col" class="{"graph" if "whiskers" in text else "n" if k else ""}">{text}</th>'
            for k, text in enumerate(head)
        )
        result += _framed("headline", f"<tr>{cells}</tr>", body)
    return result + meanings(records)


def meanings(records: Sequence[Row]) -> str:
    """What the measures mean, to be opened."""
    rows = measures.meanings(list(records))
    items = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in rows)
    return f'<details><summary>What the numbers mean</summary><dl class="meanings">{items}</dl></details>'


def is_baseline(family: str) -> bool:
    """Whether a family is there to compare with."""
    return family in DIRECT


def _headline_row(kind: str, name: str, records: Sequence[Row], metrics: dict[str, Any], scale: Scale) -> str:
    cells = [f'<th scope="row">{name}</th>', f"<td class=n>{show(records[0]['dim'], 0) if records else '–'}</td>"]
    for metric, (_, _, digits, factor) in metrics.items():
        own = [record for record in records if record["metric"] == metric]
        text = mean_and_spread([r["value"] for r in own], digits, factor)
        if metric == WHISKERS and len(own) == 1 and "low" in own[0]:
            ends = "–".join(show(own[0][key], digits, factor) for key in ("low", "high"))
            text += f"<span class=interval>{ends}</span>"
        cells.append(f"<td class=n>{text}</td>")
        if metric == WHISKERS:
            cells.append(f"<td class=graph>{whiskers(own, scale)}</td>")
    return f'<tr class="{kind}">' + "".join(cells) + "</tr>"


def mean_and_spread(values: Sequence[float], digits: int, factor: float) -> str:
    """`mean ± sample standard deviation`, the latter only where there are several values that differ."""
    import statistics

    if not values:
        return "–"
    text = show(statistics.fmean(values), digits, factor)
    if len(set(values)) > 1:
        text += f" <span class=spread>± {show(statistics.stdev(values), digits or 1, factor)}</span>"
    return text


def whisker_range(records: Sequence[Row]) -> Scale:
    """Smallest and largest value to draw in nm, intervals included, with some room; (0, 1) if there is none."""
    ends = [float(r[key]) for r in records for key in ("low", "high", "value") if key in r]
    if not ends:
        return 0.0, 1.0
    room = 0.06 * (max(ends) - min(ends)) or 0.05 * abs(max(ends)) or 1.0
    return max(0.0, min(ends) - room), max(ends) + room


def whisker_scale(scale: Scale) -> str:
    """Heading of the column of intervals: the ends of its axis."""
    low, high = scale
    return (
        f'95 % interval<svg class="whiskers" viewBox="0 0 {PLOT_WIDTH} 14" width="{PLOT_WIDTH}" height="14" role="img" '
        f'aria-label="scale from {low:.3g} to {high:.3g} nm"><text x="0" y="11">{low:.3g}</text>'
        f'<text x="{PLOT_WIDTH}" y="11" text-anchor="end">{high:.3g} nm</text></svg>'
    )


def whiskers(records: Sequence[Row], scale: Scale) -> str:
    """A dot for each value and a line for its interval."""
    if not records:
        return ""
    low, high = scale

    def x(value: float) -> str:
        return f"{(value - low) / (high - low) * PLOT_WIDTH:.1f}"

    middle = PLOT_HEIGHT // 2
    marks, words = "", []
    for r in records:
        words.append(f"{r['value']:.4f} nm")
        if "low" in r and "high" in r:
            marks += f'<line x1="{x(r["low"])}" x2="{x(r["high"])}" y1="{middle}" y2="{middle}"/>'
            words[-1] += f", 95 % interval {r['low']:.4f} to {r['high']:.4f}"
        marks += f'<circle cx="{x(r["value"])}" cy="{middle}" r="3.5"/>'
    said = escape("; ".join(words))
    return (
        f'<svg class="whiskers" viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" width="{PLOT_WIDTH}" height="{PLOT_HEIGHT}" '
        f'role="img" aria-label="{said}"><title>{said}</title><path d="M0 {middle}H{PLOT_WIDTH}"/>{marks}</svg>'
    )


def sources(entries: Sequence[Row]) -> str:
    """Where every file came from: address, checksum, size, licence."""
    if not entries:
        return "<p class=quiet>No record of sources was found beside the trajectories.</p>"
    rows = [
        [
            escape(entry["simulation"]),
            escape(entry.get("file")),
            f"<span class=address>{escape(address(entry))}</span>",
            size(entry.get("bytes")),
            show(entry.get("n_atoms"), 0),
            show(entry.get("n_frames"), 0),
            f"<code class=sum>{escape(entry.get('sha256'))}</code>",
            escape(entry.get("licence") or "not stated"),
        ]
        for entry in entries
    ]
    head = ["Simulation", "File", "Source", "Size", "Atoms", "Frames", "SHA-256", "Licence"]
    return table(head, rows, numbers=(3, 4, 5))


def address(entry: Row) -> str:
    """Where a file came from, without the checksum, which has its own column."""
    return str(entry.get("uri") or entry.get("kind") or "").partition("#sha256")[0]


def size(n_bytes: float | None) -> str:
    """Bytes in words."""
    if n_bytes is None:
        return "–"
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= step:
            return f"{show(n_bytes / step, 1)} {unit}"
    return f"{n_bytes} B"


def timings(benchmarks: Sequence[Row]) -> str:
    """Time and memory of each rule, from Snakemake's benchmark files."""
    if not benchmarks:
        return (
            "<p class=quiet>No benchmark files were found: Snakemake writes them as it runs the rules, and these "
            "stages were started without it.</p>"
        )
    rows = []
    known = {rule: place for place, rule in enumerate(RULES)}
    for rule in sorted({row["rule"] for row in benchmarks}, key=lambda rule: (known.get(rule, len(known)), rule)):
        own = [row for row in benchmarks if row["rule"] == rule]

        def most(key: str, own: list[Row] = own) -> float | None:
            return max((row[key] for row in own if row.get(key) is not None), default=None)

        def total(key: str, own: list[Row] = own) -> float | None:
            values = [row[key] for row in own if row.get(key) is not None]
            return sum(values) if values else None

        cells = [show(len(own), 0), show(total("s"), 1), show(most("s"), 1), show(total("cpu_time"), 1)]
        rows.append([escape(rule), *cells, show(most("max_rss"), 0)])
    head = ["Rule", "Jobs", heading("Time, sum", "s"), heading("Longest job", "s"), heading("CPU time, sum", "s")]
    return table([*head, heading("Peak memory", "MB")], rows, numbers=range(1, 6))


def machine(records: Sequence[Row]) -> str:
    """Speed and memory of training, one row per model and seed."""
    rows = []
    for model, seed in dict.fromkeys((r["model"], r["seed"]) for r in records):
        own = {r["metric"]: r["value"] for r in records if (r["model"], r["seed"]) == (model, seed)}
        if set(own) & set(MACHINE):
            values = [show(own.get(name), digits, factor) for name, (_, _, digits, factor) in MACHINE.items()]
            rows.append([escape(model), escape(seed), *values])
    head = ["Model", "Seed", *(heading(label, unit) for label, unit, _, _ in MACHINE.values())]
    return table(head, rows, numbers=(1, 2, 3)) if rows else ""


def versions(about: Row) -> str:
    """Commit, checksum of the configuration, packages."""
    rows = [["Commit", f"<code>{escape(about['commit'] or 'not known: the code is not in a git repository')}</code>"]]
    rows.append(["Configuration, SHA-256", f"<code class=sum>{escape(about['config_sha256'])}</code>"])
    rows += [[escape(name), escape(version)] for name, version in about["versions"].items()]
    return table(["What", "Version"], rows, kind="pairs")


def references(entries: Sequence[tuple[str, str, str | None]], data: Sequence[Row]) -> str:
    """How to cite: the data first, then methods and programs."""
    items = []
    for citation in dict.fromkeys(str(entry["citation"]) for entry in data if entry.get("citation")):
        items.append(("Data", linked(citation)))
    items += [(what, escape(text) + (f", {doi_link(doi)}" if doi else "")) for what, text, doi in entries]
    return '<dl class="references">' + "".join(f"<dt>{escape(w)}</dt><dd>{t}</dd>" for w, t in items) + "</dl>"


def doi_link(doi: str) -> str:
    """A link to follow; nothing is loaded from it."""
    return f'<a href="https://doi.org/{escape(doi)}" rel="noopener noreferrer">doi:{escape(doi)}</a>'


def linked(text: str) -> str:
    """Escaped text in which every `doi:10.…` is a link."""
    pieces, last = [], 0
    for found in re.finditer(r"(?:doi:|https?://doi\.org/)(10\.\d{4,9}/[^\s,;<>\"']+[^\s,;.<>\"')])", text):
        pieces += [escape(text[last : found.start()]), doi_link(found[1])]
        last = found.end()
    return "".join([*pieces, escape(text[last:])])
