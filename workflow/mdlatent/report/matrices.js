// Mean distance matrix of all frames, of the chosen state, and their difference.
function square(packed, n) {
  const values = packed, z = Array.from({ length: n }, () => new Float32Array(n));
  let k = 0;
  for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) z[i][j] = z[j][i] = values[k++];
  return z;
}

function drawMatrices(run, index, chosen, choose) {
  const m = DATA.matrices, n = m.atoms.length, means = m.runs[index];
  if (!m.ready) { m.ready = true; m.whole = unpack(m.whole); }
  means.forEach((mean, k) => { if (mean.t) means[k] = unpack(mean); });
  const tools = byId("matrix-tools");
  tools.hidden = !means.length;
  const state = chosen >= 0 && chosen < means.length ? chosen : 0;
  tools.replaceChildren(...labelled("State", means.length > 8
    ? picker("State", means.map((_, k) => [String(k), String(k)]), String(state), (key) => choose(Number(key)))
    : segments("State", means.map((_, k) => [k, String(k)]), state, (key) => choose(Number(key)))));
  const names = m.atoms.map(plain), step = Math.max(1, Math.ceil(n / 8));
  const ticks = names.map((_, k) => k).filter((k) => k % step === 0);
  const room = 14 + Math.min(90, 6.6 * Math.max(...m.atoms.map((name) => name.length)));
  const texts = names.map((a) => names.map((b) => a + " – " + b));
  const view = (id, z, color, words) => {
    // Fixed margins, and a height that makes the matrix square.
    const place = byId(id), right = 60;
    if (place.clientWidth) place.style.aspectRatio = place.clientWidth + " / " + (place.clientWidth - right + 2);
    const side = { automargin: false, title: { text: "" }, tickvals: ticks, ticktext: ticks.map((k) => names[k]), tickfont: { size: 11 }, showgrid: false, constrain: "domain" };
    draw(id, [{ type: "heatmap", z, text: texts, hovertemplate: "%{text}<br>%{z:.3f} nm<extra></extra>", ...color,
      colorbar: { thickness: 10, outlinewidth: 0, len: 1, xpad: 6, ypad: 0, tickfont: { size: 11 } } }],
    { margin: { l: room, r: right, t: 2, b: room, autoexpand: false }, xaxis: { ...AXIS, ...side, tickangle: -60 },
      yaxis: { ...AXIS, ...side, autorange: "reversed", scaleanchor: "x" } }, id, words);
  };
  const top = limitsOf(m.whole)[1];
  const plainColors = (high) => ({ colorscale: "Cividis", reversescale: true, zmin: 0, zmax: high });
  const high = Math.max(top, means.length ? limitsOf(means[state])[1] : 0);
  view("matrix-whole", square(m.whole, n), plainColors(high), "Mean distance matrix of all frames");
  for (const id of ["matrix-state", "matrix-difference"]) byId(id).parentElement.hidden = !means.length;
  if (means.length) {
    view("matrix-state", square(means[state], n), plainColors(high), "Mean distance matrix of state " + state);
    const difference = means[state].map((value, k) => value - m.whole[k]);
    const [low, up] = limitsOf(difference), reach = Math.max(Math.abs(low), Math.abs(up), 1e-6);
    view("matrix-difference", square(difference, n), { colorscale: [[0, "#0072B2"], [0.5, "#ffffff"], [1, "#D55E00"]], zmin: -reach, zmax: reach },
      "Mean distances of state " + state + " minus those of all frames");
    byId("matrix-state-title").textContent = "State " + state + ", mean distance (nm)";
    byId("matrix-difference-title").textContent = "State " + state + " minus all frames (nm)";
  }
  byId("matrix-caption").textContent = (means.length ? "Blue: atoms are nearer to each other in this state than on average; orange: farther apart. " : "")
    + "Axes: mapped atoms in the order of the selection. Means over all frames, not only those drawn above."
    + (n < m.n_atoms ? " " + n + " of " + m.n_atoms + " atoms are shown, evenly spaced." : "")
    + (means.length < run.states.length ? " Only the " + means.length + " most populated states have matrices here." : "");
}
