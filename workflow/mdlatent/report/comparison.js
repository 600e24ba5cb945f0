// All models side by side: one panel per measure, a dot per seed with its 95 % interval.
function drawComparison() {
  const { panels, models, values } = DATA.comparison;
  const place = byId("comparison-card");
  place.hidden = !panels.length;
  if (!panels.length) return;
  const traces = [], shape = {}, notes = [], n = panels.length, columns = Math.min(n, window.innerWidth < 620 ? 1 : window.innerWidth < 1020 ? 2 : 3), rows = Math.ceil(n / columns);
  const gap = 0.05, width = (1 - gap * (columns - 1)) / columns, drawn = rows * (40 * models.length + 54) - 54, rowGap = 54 / drawn;
  const tall = (1 - rowGap * (rows - 1)) / rows, height = drawn + 30 + 34;
  panels.forEach((panel, k) => {
    const end = k ? String(k + 1) : "", column = k % columns, row = Math.floor(k / columns), top = 1 - row * (tall + rowGap);
    const left = column * (width + gap);
    models.forEach((model, place) => {
      const own = values.filter((v) => v.metric === panel.metric && v.model === model.name);
      if (!own.length) return;
      const at = own.map((_, i) => place + (own.length > 1 ? 0.44 * (i / (own.length - 1) - 0.5) : 0));
      const scaled = (v) => (v === null || v === undefined ? null : v * panel.factor);
      const x = own.map((v) => scaled(v.value)), color = PALETTE[place % PALETTE.length];
      traces.push({ type: "scatter", mode: "markers", x, y: at, xaxis: "x" + end, yaxis: "y" + end, showlegend: false,
        marker: { color: model.baseline ? "#fff" : color, size: 9, symbol: model.baseline ? "diamond" : "circle", line: { color, width: 1.8 } },
        error_x: { type: "data", symmetric: false, array: own.map((v, i) => (v.high === undefined ? 0 : Math.max(0, scaled(v.high) - x[i]))),
          arrayminus: own.map((v, i) => (v.low === undefined ? 0 : Math.max(0, x[i] - scaled(v.low)))), color, thickness: 1.4, width: 0 },
        text: own.map((v, i) => plain(model.name) + ", seed " + v.seed + ": " + digits(x[i], 3) + (panel.unit ? " " + panel.unit : "")
          + (v.low === undefined ? "" : "<br>95 % interval " + digits(scaled(v.low), 3) + " to " + digits(scaled(v.high), 3))), hovertemplate: "%{text}<extra></extra>" });
      const mean = x.reduce((a, b) => a + b, 0) / x.length;
      if (x.length > 1) traces.push({ type: "scatter", mode: "lines", x: [mean, mean], y: [place - 0.34, place + 0.34], xaxis: "x" + end, yaxis: "y" + end, showlegend: false,
        line: { color, width: 2 }, hovertemplate: "mean of " + x.length + " seeds: " + digits(mean, 3) + "<extra></extra>" });
    });
    shape["xaxis" + end] = axis("", { domain: [left, left + width], anchor: "y" + end, tickfont: { size: 11.5 }, nticks: 5 });
    shape["yaxis" + end] = { ...AXIS, domain: [top - tall, top], anchor: "x" + end, range: [models.length - 0.5, -0.5], fixedrange: true, ticks: "", showgrid: true,
      tickvals: models.map((_, i) => i), ticktext: column ? models.map(() => "") : models.map((m) => plain(m.name)), zeroline: false };
    notes.push({ xref: "paper", yref: "paper", x: left, y: top, yshift: 6, xanchor: "left", yanchor: "bottom", showarrow: false, align: "left",
      text: "<b>" + plain(panel.label) + "</b>" + (panel.unit ? " (" + plain(panel.unit) + ")" : "") + " <span style='color:#8a949e'>" + panel.better + "</span>", font: { size: 12.5 } });
  });
  byId("comparison-plot").style.height = height + "px";
  draw("comparison-plot", traces, { ...shape, height, annotations: notes, margin: { l: 20, r: 16, t: 30, b: 34 } }, "models",
    "Models compared in " + panels.map((panel) => panel.label).join(", "));
}
