// Generators of conformers: coverage by threshold, and distance by rotatable bonds. The same colour for a generator in both.
const KIND_WORDS = { recall: "recall", precision: "precision" };
const ConformerView = { kind: "recall" };

function drawConformers() {
  const found = DATA.conformers;
  if (!found) return;
  drawCoverage(found);
  const kinds = Object.keys(KIND_WORDS).filter((kind) => found.groups.some((row) => row[kind]));
  const tools = byId("rotatable-tools");
  tools.hidden = kinds.length < 2;
  byId("coverage-tools").hidden = kinds.length < 2;
  if (kinds.length > 1) {
    const choose = (kind) => { ConformerView.kind = kind; drawRotatable(found); };
    tools.replaceChildren(segments("Direction", kinds.map((kind) => [kind, KIND_WORDS[kind]]), ConformerView.kind, choose));
    byId("coverage-tools").replaceChildren(element("span", { class: "label" }, "solid: recall, dotted: precision"));
  }
  drawRotatable(found);
}

function drawCoverage(found) {
  const traces = [], x = found.curves.threshold_angstrom;
  for (const kind of Object.keys(KIND_WORDS)) {
    if (!found.curves[kind]) continue;
    found.generators.forEach((name, k) => {
      traces.push({ type: "scatter", mode: "lines", x, y: found.curves[kind][name].map((value) => 100 * value), name: plain(name), legendgroup: name, showlegend: kind === "recall",
        line: { color: PALETTE[k % PALETTE.length], width: 1.8, dash: kind === "recall" ? "solid" : "dot" }, hovertemplate: "below %{x:.2f} Å: %{y:.1f} %<extra>" + plain(name) + ", " + KIND_WORDS[kind] + "</extra>" });
    });
  }
  draw("coverage-plot", traces, { xaxis: axis("threshold (Å)", { range: [0, x.at(-1)] }), yaxis: axis("coverage (%)", { range: [0, 102] }) }, "coverage",
    "Coverage by threshold of RMSD, for each generator");
  byId("coverage-caption").textContent = "Share of the references that have a conformer nearer than the threshold (recall)"
    + (found.curves.precision ? ", and of the conformers that have a reference nearer than it (precision)" : "") + ", mean over molecules and seeds.";
}

function drawRotatable(found) {
  const kind = ConformerView.kind, n = found.generators.length, rows = found.groups;
  const traces = found.generators.map((name, k) => {
    const cells = rows.map((row) => row[kind][name]), shift = n > 1 ? 0.5 * (k / (n - 1) - 0.5) : 0, color = PALETTE[k % PALETTE.length];
    const end = (cell, key) => (cell.value === null || cell[key] === undefined ? 0 : Math.abs(cell[key] - cell.value));
    return { type: "scatter", mode: "markers", x: rows.map((_, i) => i + shift), y: cells.map((cell) => cell.value), name: plain(name), marker: { color, size: 9 },
      error_y: { type: "data", symmetric: false, array: cells.map((cell) => end(cell, "high")), arrayminus: cells.map((cell) => end(cell, "low")), color, thickness: 1.4, width: 0 },
      text: cells.map((cell, i) => plain(name) + ", " + rows[i].label + " rotatable bonds: " + digits(cell.value, 3) + " Å"
        + (cell.low === undefined ? "" : "<br>95 % interval " + digits(cell.low, 3) + " to " + digits(cell.high, 3))), hovertemplate: "%{text}<extra></extra>" };
  });
  draw("rotatable-plot", traces, { xaxis: axis("rotatable bonds (count)", { tickvals: rows.map((_, i) => i), range: [-0.5, rows.length - 0.5], showgrid: false,
    ticktext: rows.map((row) => plain(row.label) + "<br>" + count(row.molecules) + (row.molecules === 1 ? " molecule" : " molecules")) }),
  yaxis: axis("AMR, " + KIND_WORDS[kind] + " (Å)", { rangemode: "tozero" }) }, "rotatable_bonds", "Average minimum RMSD, " + KIND_WORDS[kind] + ", by number of rotatable bonds");
}
