// Implied timescales and the Chapman–Kolmogorov test of the states, and the parameters they were found with.
function drawMarkov(run) {
  const found = run.kinetics, rows = found.timescales, known = found.time_step_ps !== null;
  byId("markov").hidden = !rows.length;
  if (!rows.length) return;
  const span = Math.max(...rows.map((row) => row.lag), ...rows.flatMap((row) => row.values).filter((v) => v !== null));
  const unit = known ? timeUnit(span) : { name: "frames", step: 1 }, lags = rows.map((row) => row.lag / unit.step), traces = [];
  const n = Math.max(...rows.map((row) => row.values.length));
  for (let k = 0; k < n; k++) {
    const color = PALETTE[k % PALETTE.length], own = rows.filter((row) => row.values[k] !== null && row.values[k] !== undefined);
    const banded = own.filter((row) => row.intervals && row.intervals[k]);
    const x = banded.map((row) => row.lag / unit.step);
    if (banded.length > 1) traces.push({ type: "scatter", mode: "lines", x: [...x, ...x.slice().reverse()], hoverinfo: "skip", showlegend: false, line: { width: 0 }, fill: "toself",
      y: [...banded.map((row) => row.intervals[k][1] / unit.step), ...banded.map((row) => row.intervals[k][0] / unit.step).reverse()], fillcolor: color + "22" });
    traces.push({ type: "scatter", mode: "lines+markers", x: own.map((row) => row.lag / unit.step), y: own.map((row) => row.values[k] / unit.step), name: "process " + (k + 1),
      line: { color, width: 1.8 }, marker: { size: 5 }, hovertemplate: "lag %{x:.3g}: %{y:.3g} " + unit.name + "<extra>process " + (k + 1) + "</extra>" });
  }
  traces.push({ type: "scatter", mode: "lines", x: lags, y: lags, fill: "tozeroy", fillcolor: "#eef0f3", line: { color: "#b4bac0", width: 1, dash: "dot" }, hoverinfo: "skip", showlegend: false });
  const log = { type: "log", exponentformat: "power", dtick: 1 };
  draw("timescales-plot", traces, { xaxis: axis("lag (" + unit.name + ")", log), yaxis: axis("implied timescale (" + unit.name + ")", log) }, "implied_timescales",
    "Implied timescales of the states by lag time");
  byId("timescales-caption").textContent = "Timescales of a Markov model of the states (all frames, a frame between states counted as the state last visited), by its lag. Where a line is flat, "
    + "the states have no memory at that lag. Bands: 95 % from blocks of time. Grey: faster than the lag, not resolved.";
  const tests = found.chapman_kolmogorov, stays = [];
  found.states.forEach((state, i) => {
    if (i >= 6) return;
    const color = stateColor(state), x = [0, ...tests.map((row) => (row.lag_frames * (found.time_step_ps || 1)) / unit.step)];
    stays.push({ type: "scatter", mode: "lines", x, y: [1, ...tests.map((row) => row.predicted[i][i])], name: "state " + state + ", predicted", line: { color, width: 1.8 },
      hovertemplate: "predicted %{y:.3f}<extra>state " + state + "</extra>" });
    stays.push({ type: "scatter", mode: "markers", x, y: [1, ...tests.map((row) => row.estimated[i][i])], name: "estimated", showlegend: i === 0, marker: { color, size: 8, symbol: "circle-open", line: { width: 1.8 } },
      hovertemplate: "estimated %{y:.3f}<extra>state " + state + "</extra>" });
  });
  draw("ck-plot", stays, { xaxis: axis("lag (" + unit.name + ")"), yaxis: axis("probability to be there again (no unit)", { rangemode: "tozero" }) }, "chapman_kolmogorov",
    "Chapman–Kolmogorov test: probabilities to stay, predicted and estimated");
  byId("ck-caption").textContent = "Chapman–Kolmogorov test: lines are powers of the model at the shortest lag shown, circles models estimated at each lag. Largest difference over all pairs of states: "
    + digits(found.ck_error, 2) + "." + (found.states.length > 6 ? " Only the six most populated states are drawn." : "");
}

function drawSweep(run) {
  const rows = run.sweep;
  byId("sweep-card").hidden = rows.length < 2;
  if (rows.length < 2) return;
  const sizes = [...new Set(rows.map((row) => row.min_cluster_size))], samples = [...new Set(rows.map((row) => row.min_samples))];
  const at = (size, some) => rows.find((row) => row.min_cluster_size === size && row.min_samples === some);
  const grid = (value) => samples.map((some) => sizes.map((size) => { const row = at(size, some); return row ? value(row) : null; }));
  const words = (row) => row.n_states + (row.n_states === 1 ? " state" : " states") + "<br>" + percent(row.noise_fraction, 0) + " % noise";
  const notes = rows.map((row) => ({ x: sizes.indexOf(row.min_cluster_size), y: samples.indexOf(row.min_samples), text: row.chosen === "True" ? "<b>" + words(row) + "</b>" : words(row), showarrow: false,
    font: { size: 11.5, color: row.score > 0.6 ? "#fff" : "#1c2127" } }));
  const chosen = rows.find((row) => row.chosen === "True"), i = sizes.indexOf(chosen.min_cluster_size), j = samples.indexOf(chosen.min_samples);
  draw("sweep-plot", [{ type: "heatmap", z: grid((row) => row.score), customdata: grid((row) => [row.ari_subsamples, row.noise_fraction, row.smallest_persistence]), x: sizes.map(String), y: samples.map(String),
    zmin: 0, zmax: 1, xgap: 2, ygap: 2, colorscale: [[0, "#f3f6f9"], [0.5, "#7fb2d3"], [1, "#005c94"]], colorbar: { title: { text: "score", side: "right" }, thickness: 12, outlinewidth: 0 },
    hovertemplate: "score %{z:.3f}<br>agreement of subsamples %{customdata[0]:.3f}<br>noise %{customdata[1]:.3f}<br>smallest persistence %{customdata[2]:.3f}<extra></extra>" }],
  { annotations: notes, xaxis: axis("min_cluster_size (frames)", { type: "category", showgrid: false, ticks: "" }), yaxis: axis("min_samples (frames)", { type: "category", showgrid: false, ticks: "" }),
    shapes: [{ type: "rect", x0: i - 0.48, x1: i + 0.48, y0: j - 0.47, y1: j + 0.47, line: { color: "#D55E00", width: 2.5 } }] }, "parameters",
  "Parameters of HDBSCAN that were tried, and their scores");
}
