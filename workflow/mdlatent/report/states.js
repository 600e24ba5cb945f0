// Table of states, states over time, populations, transitions.
const LanesView = { simulation: null };

function statesTable(run, chosen, choose) {
  const place = byId("states-table");
  byId("states-card").hidden = !run.states.length;
  if (!run.states.length) return place.replaceChildren();
  const many = FRAMES.simulations.length > 1;
  const head = ["State", "Frames", "Population (%)", "Mean probability", "Visits", "Mean lifetime", "Medoid", "Structures"];
  const table = element("table", {}, element("thead", {}, element("tr", {},
    ...head.map((text, k) => element("th", { scope: "col", class: k > 0 && k < 6 ? "n" : null }, text)))));
  const body = element("tbody");
  const rows = run.noise ? [...run.states, run.noise] : run.states;
  for (const row of rows) {
    const noise = row.state < 0, representatives = row.representatives || [];
    const dot = element("span", { class: "dot", style: "background:" + stateColor(row.state) });
    const first = noise ? [dot, "noise"] : [dot, String(row.state)];
    const cells = [count(row.n_frames), percent(row.population) + (row.population_se === null ? "" : " ± " + percent(row.population_se)),
      noise ? "" : row.mean_probability.toFixed(2), noise ? "" : count(row.n_visits), noise ? "" : row.mean_lifetime_ps === null ? "never left" : duration(row.mean_lifetime_ps)];
    const pick = representatives[0];
    const medoid = pick ? (many ? pick.simulation + ", " : "") + "frame " + count(pick.frame) + (pick.time_ps === null ? "" : " (" + duration(pick.time_ps) + ")") : "between states";
    const link = noise ? [] : [element("a", { href: encodeURI(fileOf(run, row.state)), onclick: (event) => event.stopPropagation() }, "cluster_" + row.state + ".pdb")];
    const line = element("tr", noise ? {} : { "data-state": row.state, tabindex: 0, "aria-label": "show structures of state " + row.state,
      onclick: () => choose(row.state),
      onkeydown: (event) => { if (event.target === line && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); choose(row.state); } } },
    element("td", {}, ...first), ...cells.map((text) => element("td", { class: "n" }, text)), element("td", {}, medoid), element("td", {}, ...link));
    if (row.state === chosen) { line.classList.add("chosen"); line.setAttribute("aria-current", "true"); }
    body.append(line);
  }
  table.append(body);
  place.replaceChildren(table);
}

function lanesTools(run, redraw) {
  const tools = byId("lanes-tools");
  const names = FRAMES.simulations;
  tools.hidden = names.length < 2;
  if (LanesView.simulation === null) LanesView.simulation = names.length > 1 ? "all" : "0";
  if (names.length < 2) return;
  tools.replaceChildren(...labelled("Simulation", picker("Simulation shown", [["all", "all"], ...names.map((name, k) => [String(k), name])], LanesView.simulation,
    (key) => { LanesView.simulation = key; redraw(); })));
}

function drawLanes(run) {
  const shown = LanesView.simulation;
  if (shown === "all") return drawRaster(run);
  const wanted = Number(shown), rows = [];
  for (let k = 0; k < FRAMES.n; k++) if (FRAMES.simulation[k] === wanted) rows.push(k);
  const lanes = run.states.length;
  const traces = [];
  for (let state = -1; state < lanes; state++) {
    const own = rows.filter((row) => run.state[row] === state);
    traces.push({ type: WEBGL ? "scattergl" : "scatter", mode: "markers", x: own.map((row) => FRAMES.time[row]), y: own.map(() => state), showlegend: false,
      hovertemplate: stateName(state) + ", %{x:.5g}" + (FRAMES.known ? " " + FRAMES.unit.name : "") + "<extra></extra>",
      marker: { symbol: "line-ns", size: laneSize(lanes), opacity: 0.6, color: stateColor(state), line: { width: 1, color: stateColor(state) } } });
  }
  const height = Math.min(420, 110 + 34 * (lanes + 1));
  byId("lanes-plot").style.height = height + "px";
  const ticks = Array.from({ length: lanes + 1 }, (_, k) => k - 1);
  const bands = heldOut(rows);
  draw("lanes-plot", traces, { height, showlegend: false, shapes: bands, margin: { l: 64, r: 16, t: 6, b: 46 },
    xaxis: axis(FRAMES.timeTitle, { showgrid: false, range: padded(rows.map((row) => FRAMES.time[row])) }),
    yaxis: axis("", { tickvals: ticks, ticktext: ticks.map(stateName), range: [-1.7, lanes - 0.3], showgrid: false, fixedrange: true, ticks: "" }) },
  "states_over_time", "States over time of simulation " + FRAMES.simulations[wanted]);
  byId("lanes-caption").textContent = "State of each frame of " + FRAMES.simulations[wanted] + "."
    + (bands.length ? " Grey bands: time held out for the test." : "")
    + (FRAMES.n < FRAMES.total ? " " + count(rows.length) + " frames drawn, evenly spaced." : "");
}
function padded(values) {
  const [low, high] = limitsOf(values), room = 0.005 * (high - low) || 1;
  return [low - room, high + room];
}
const laneSize = (lanes) => Math.max(6, Math.min(22, 240 / (lanes + 1)));

// Shaded stretches of time that belong to the test.
function heldOut(rows) {
  const test = FRAMES.splits.indexOf("test"), shapes = [];
  let start = null;
  rows.forEach((row, k) => {
    const inside = FRAMES.split[row] === test;
    if (inside && start === null) start = FRAMES.time[row];
    if (start !== null && (!inside || k === rows.length - 1)) {
      const end = FRAMES.time[inside ? row : rows[k - 1]];
      shapes.push({ type: "rect", xref: "x", yref: "paper", x0: start, x1: end, y0: 0, y1: 1, fillcolor: "#eef0f3", line: { width: 0 }, layer: "below" });
      start = null;
    }
  });
  return shapes.length <= 100 ? shapes : [];
}

// All simulations, one line each, the state as colour.
function drawRaster(run) {
  const n = FRAMES.simulations.length, bins = Math.min(800, Math.max(50, Math.ceil(FRAMES.n / n)));
  const end = limitsOf(FRAMES.time)[1], z = Array.from({ length: n }, () => new Array(bins).fill(null));
  for (let k = 0; k < FRAMES.n; k++) {
    z[FRAMES.simulation[k]][Math.min(bins - 1, Math.floor((FRAMES.time[k] / (end || 1)) * bins))] = run.state[k];
  }
  for (const line of z) for (let k = 1; k < bins; k++) if (line[k] === null && line.slice(k, k + 3).some((v) => v !== null)) line[k] = line[k - 1];
  const lanes = run.states.length + 1, scale = [];
  for (let state = -1; state < lanes - 1; state++) scale.push([(state + 1) / lanes, stateColor(state)], [(state + 2) / lanes, stateColor(state)]);
  const height = Math.min(900, 90 + Math.max(16, Math.min(34, 600 / n)) * n);
  byId("lanes-plot").style.height = height + "px";
  draw("lanes-plot", [{ type: "heatmap", z, x0: end / bins / 2, dx: end / bins, y: FRAMES.simulations.map(plain), zmin: -1.5, zmax: lanes - 1.5, colorscale: scale, showscale: false,
    text: z.map((line) => line.map((v) => (v === null ? "" : stateName(v)))), hovertemplate: "%{y}, %{x:.5g}" + (FRAMES.known ? " " + FRAMES.unit.name : "") + ": %{text}<extra></extra>", hoverongaps: false, ygap: 2 }],
  { height, xaxis: axis(FRAMES.timeTitle, { showgrid: false }), yaxis: axis("", { type: "category", autorange: "reversed", showgrid: false, fixedrange: true, ticks: "" }) },
  "states_over_time", "States over time, one line for each of " + n + " simulations");
  byId("lanes-caption").textContent = "One line per simulation; colours as in the table of states, noise grey. Choose a simulation to see its frames.";
}

function drawPopulations(run) {
  const rows = [...run.states, ...(run.noise ? [run.noise] : [])];
  draw("populations-plot", [{ type: "bar", x: rows.map((row) => stateName(row.state)), y: rows.map((row) => 100 * row.population),
    error_y: { type: "data", array: rows.map((row) => 100 * (row.population_se || 0)), color: "#3a434c", thickness: 1.3, width: 5 },
    marker: { color: rows.map((row) => stateColor(row.state)) }, width: rows.length < 5 ? 0.5 : 0.75,
    hovertemplate: "%{x}: %{y:.1f} ± %{error_y.array:.1f} %<extra></extra>" }],
  { showlegend: false, yaxis: axis("population (% of frames)", { rangemode: "tozero" }), margin: { l: 56, r: 16, t: 8, b: 30 },
    xaxis: { ...AXIS, type: "category", showgrid: false, ticks: "", automargin: rows.length > 8 } },
  "populations", "Populations of " + rows.length + " groups of frames in percent");
}

function drawTransitions(run) {
  const counts = run.transitions, n = counts.length;
  const totals = counts.map((row) => row.reduce((a, b) => a + b, 0));
  const share = counts.map((row, i) => row.map((c, j) => (i === j || !totals[i] ? null : c / totals[i])));
  const names = counts.map((_, i) => String(i));
  const top = Math.max(1e-9, ...share.flat().filter((value) => value !== null));
  const notes = n > 14 ? [] : counts.flatMap((row, i) => row.map((c, j) => ({ x: j, y: i, text: count(c), showarrow: false,
    font: { size: 12.5, color: i === j ? "#8a949e" : (share[i][j] || 0) > 0.55 * top ? "#fff" : "#1c2127" } })));
  draw("transitions-plot", [{ type: "heatmap", z: share, customdata: counts, x: names, y: names, zmin: 0, zmax: top, hoverongaps: false, xgap: 2, ygap: 2,
    colorscale: [[0, "#f3f6f9"], [0.5, "#7fb2d3"], [1, "#005c94"]],
    colorbar: { title: { text: "probability per step", side: "right" }, thickness: 12, outlinewidth: 0, tickformat: ".2~g" },
    hovertemplate: "from state %{y} to state %{x}: %{customdata} steps, probability %{z:.3g} per step<extra></extra>" }],
  { annotations: notes, xaxis: axis("to state", { type: "category", showgrid: false, ticks: "" }), yaxis: axis("from state", { type: "category", autorange: "reversed", showgrid: false, ticks: "" }) },
  "transitions", "Transition counts between " + n + " states");
  byId("transitions-caption").textContent = "Steps between stored frames that follow each other, a frame between states counted as the state last visited. "
    + "Numbers are counts; colour is the probability to leave per step. The diagonal (grey numbers) is steps within a state.";
}
