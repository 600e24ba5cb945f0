// The latent map: every frame shown is a point.
const COLORINGS = [["state", "State"], ["time", "Time"], ["split", "Split"], ["error", "Reconstruction error"]];
const SPLIT_COLORS = { train: "#56B4E9", validation: "#E69F00", test: "#D55E00", gap: "#B4BAC0", embed: "#009E73" };
const ERROR_SCALE = [[0, "#c3d0dc"], [0.35, "#efb05a"], [0.7, "#d0455c"], [1, "#57124f"]];
const MapView = { color: "state", deep: false, axes: [] };

function axisTitle(run, name) {
  return run.family.startsWith("pca") ? name + " (nm)" : name + " (no unit)";
}

function mapTools(run, redraw) {
  const tools = byId("map-tools");
  const options = COLORINGS.slice();
  if (FRAMES.simulations.length > 1) options.splice(1, 0, ["simulation", "Simulation"]);
  if (FRAMES.reference) options.push(["reference", "Distance to reference"]);
  if (!options.some(([key]) => key === MapView.color)) MapView.color = "state";
  MapView.axes = run.spread.slice(0, 3);
  if (run.axes.length < 3 || !WEBGL) MapView.deep = false;
  tools.replaceChildren(...labelled("Colour", segments("Colour of the points", options, MapView.color, (key) => { MapView.color = key; redraw(); })));
  if (run.axes.length >= 3 && WEBGL) {
    tools.append(segments("Dimensions of the view", [["2", "2-D"], ["3", "3-D"]], MapView.deep ? "3" : "2", (key) => {
      MapView.deep = key === "3"; mapTools(run, redraw); redraw();
    }));
  }
  const n = Math.min(run.axes.length, MapView.deep ? 3 : 2);
  if (run.axes.length > n || n > 1) {
    for (let k = 0; k < n; k++) {
      tools.append(...labelled("xyz"[k], picker("Latent coordinate on axis " + "xyz"[k], run.axes.map((a) => [a, a]), MapView.axes[k],
        (name) => { MapView.axes[k] = name; redraw(); })));
    }
  }
}

function pointTexts(run) {
  if (run.texts) return run.texts;
  const many = FRAMES.simulations.length > 1, texts = new Array(FRAMES.n);
  const names = FRAMES.simulations.map(plain);
  for (let k = 0; k < FRAMES.n; k++) {
    texts[k] = "<b>" + stateName(run.state[k]) + "</b><br>" + (many ? names[FRAMES.simulation[k]] + ", " : "") + "frame " + count(FRAMES.frame[k])
      + (FRAMES.known ? ", " + digits(FRAMES.time[k], 4) + " " + FRAMES.unit.name : "")
      + "<br>error " + run.error_nm[k].toFixed(4) + " nm, " + FRAMES.splits[FRAMES.split[k]];
  }
  return (run.texts = texts);
}

// Rows of the frames in each group, in the order in which groups are drawn.
function groups(run) {
  const pick = { state: (k) => run.state[k], simulation: (k) => FRAMES.simulation[k], split: (k) => FRAMES.split[k] }[MapView.color];
  const found = new Map();
  for (let k = 0; k < FRAMES.n; k++) {
    const key = pick(k);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(k);
  }
  const name = { state: stateName, simulation: (s) => FRAMES.simulations[s], split: (s) => FRAMES.splits[s] }[MapView.color];
  const color = { state: stateColor, simulation: (s) => PALETTE[s % PALETTE.length], split: (s) => SPLIT_COLORS[FRAMES.splits[s]] }[MapView.color];
  return [...found.keys()].sort((a, b) => a - b).map((key) => ({ key, rows: found.get(key), name: name(key), color: color(key) }));
}

// Colourings by a number.
function measures(run) {
  return {
    time: { values: FRAMES.time, title: FRAMES.timeTitle, scale: "Viridis", range: limitsOf(FRAMES.time) },
    error: { values: run.error_nm, title: "error (nm)", scale: ERROR_SCALE, range: limits(run.error_nm) },
    reference: FRAMES.reference && { values: FRAMES.reference, title: "distance (Å)", scale: "Viridis", range: limits(FRAMES.reference.filter(Number.isFinite)) },
  };
}

// The 1st and 99th percentile.
function limits(values) {
  const sorted = Float32Array.from(values).sort();
  return sorted.length ? [sorted[Math.floor(0.01 * (sorted.length - 1))], sorted[Math.floor(0.99 * (sorted.length - 1))]] : [0, 1];
}

function drawMap(run, chosen, choose) {
  const flat = run.axes.length === 1, deep = MapView.deep, axes = flat ? run.axes : MapView.axes.slice(0, deep ? 3 : 2);
  const texts = pointTexts(run);
  const kind = deep ? "scatter3d" : WEBGL ? "scattergl" : "scatter";
  const size = (deep ? 2 : 4) * (FRAMES.n > 8000 ? 0.8 : 1);
  const sources = flat ? [FRAMES.time, run.z[axes[0]]] : axes.map((name) => run.z[name]);
  const at = (rows) => Object.fromEntries(sources.map((values, k) => ["xyz"[k], rows ? rows.map((row) => values[row]) : values]));
  const common = { type: kind, mode: "markers", hovertemplate: "%{text}<extra></extra>" };
  const traces = [], rowsOf = [];
  let labels = [];
  const measure = measures(run)[MapView.color];
  if (measure) {
    const { values, title, scale, range } = measure;
    const rows = [...values.keys()].filter((k) => Number.isFinite(values[k])), rest = [...values.keys()].filter((k) => !Number.isFinite(values[k]));
    if (rest.length) {
      traces.push({ ...common, ...at(rest), text: rest.map((row) => texts[row]), name: "without", marker: { size, opacity: 0.45, color: NOISE } });
      rowsOf.push(rest);
    }
    traces.push({ ...common, ...at(rows), text: rows.map((row) => texts[row]), showlegend: false, marker: { size, opacity: 0.75,
      color: rows.map((row) => values[row]), cmin: range[0], cmax: range[1], colorscale: scale,
      colorbar: { title: { text: title, side: "right" }, thickness: 12, len: 0.9, outlinewidth: 0, xpad: 6 } } });
    rowsOf.push(rows);
  } else {
    for (const group of groups(run)) {
      traces.push({ ...common, ...at(group.rows), text: group.rows.map((row) => texts[row]), name: plain(group.name),
        marker: { size, opacity: group.key < 0 ? 0.45 : 0.65, color: group.color } });
      rowsOf.push(group.rows);
    }
  }
  if (run.states.length && !flat) {
    const where = axes.map((name) => run.axes.indexOf(name));
    const places = Object.fromEntries(where.map((column, k) => ["xyz"[k], run.states.map((state) => state.medoid[column])]));
    traces.push({ ...places, type: kind, mode: "markers", name: "medoids", showlegend: false,
      text: run.states.map((state) => String(state.state)),       hovertemplate: "<b>medoid of state %{text}</b><br>click for its structures<extra></extra>",
      marker: { size: run.states.map((state) => (state.state === chosen ? 17 : 12) * (deep ? 0.6 : 1)), symbol: "diamond", opacity: 1,
        color: run.states.map((state) => stateColor(state.state)), line: { width: 2, color: "#fff" } } });
    labels = run.states.map((state, k) => ({ x: places.x[k], y: places.y[k], ...(deep ? { z: places.z[k] } : {}), text: "<b>" + state.state + "</b>", showarrow: false, yshift: 19,
      font: { size: 13, color: "#1c2127" }, bgcolor: "rgba(255,255,255,0.82)", borderpad: 1.5 }));
    rowsOf.push("medoids");
  }
  const shape = { uirevision: run.key + MapView.deep + axes.join(), margin: { l: 56, r: 8, t: 8, b: 46 }, annotations: deep ? [] : labels };
  if (deep) {
    const bare = { backgroundcolor: "#fff", gridcolor: "#e2e6ea", zeroline: false, showspikes: false };
    shape.scene = Object.fromEntries(axes.map((name, k) => ["xyz"[k] + "axis", { ...bare, title: { text: axisTitle(run, name) } }]));
    shape.scene.annotations = labels;
    shape.scene.aspectmode = "cube";
    shape.scene.camera = { eye: { x: 1.6, y: -1.5, z: 0.9 } };
    shape.margin = { l: 0, r: 0, t: 0, b: 0 };
    shape.legend = { orientation: "h", x: 0, y: 1, yanchor: "top", itemsizing: "constant" };
  } else {
    shape.xaxis = axis(flat ? FRAMES.timeTitle : axisTitle(run, axes[0]));
    shape.yaxis = axis(axisTitle(run, flat ? axes[0] : axes[1]));
  }
  const words = "Latent map of " + run.key + ", " + count(FRAMES.n) + " frames, coloured by " + MapView.color + "; " + run.states.length + " states";
  const place = byId("map-plot");
  // A WebGL scene and flat axes do not change into each other without leftovers.
  if (place.dataset.deep !== undefined && place.dataset.deep !== String(deep)) Plotly.purge(place);
  place.dataset.deep = String(deep);
  draw("map-plot", traces, shape, "latent_" + run.key.replace("/", "_"), words);
  place.removeAllListeners?.("plotly_click");
  place.on("plotly_click", (event) => {
    const point = event.points[0], rows = rowsOf[point.curveNumber];
    const state = rows === "medoids" ? run.states[point.pointNumber].state : run.state[rows ? rows[point.pointNumber] : point.pointNumber];
    choose(state);
  });
  mapCaption(run);
}

function limitsOf(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
  return [low, high];
}

function mapCaption(run) {
  const parts = ["Each point is a frame" + (FRAMES.n < FRAMES.total
    ? "; " + count(FRAMES.n) + " of " + count(FRAMES.total) + " are drawn, evenly spaced." : "; all " + count(FRAMES.total) + " are drawn.")];
  if (run.states.length && run.axes.length > 1) parts.push("Diamonds: medoids of the states.");
  if (run.axes.length < run.dim) parts.push("The latent has " + run.dim + " dimensions; the " + run.axes.length + " with the largest spread can be chosen.");
  if (MapView.color === "error") parts.push("Root mean square error of the frame’s reconstructed distances; the colours end at the 1st and 99th percentile.");
  if (MapView.color === "reference") parts.push("Root mean square distance of the mapped atoms to the reference structure, superposed; the colours end at the 1st and 99th percentile.");
  if (run.axes.length === 1) parts.push("The latent has one dimension: it is drawn against " + (FRAMES.known ? "time." : "the frame number."));
  if (!WEBGL) parts.push("This browser offers no WebGL: drawing is slow and flat.");
  byId("map-caption").textContent = parts.join(" ");
}
